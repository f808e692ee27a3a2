"""A maze that better scores lead into a dead end of
==================================================

The score is minus the distance to the goal at the end. Right beside the goal, behind a wall, is a dead end:
whoever evolves towards a better score ends in there, and stays. Novelty search does not look at the score. It
breeds whoever came to where nobody was before, and comes to the goal on its way.

.. code-block:: sh

    python examples/evolve_maze.py
    python examples/evolve_maze.py --full     # 100,000 episodes, five seeds

Both are the same genetic algorithm, on the same networks of 210 parameters: ``deep-ga`` selects by score,
``novelty-ga`` by the mean distance to the nearest places where others have ended.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import evolution
from evolution.environments.maze import HARD_MAZE, HardMaze
from zoo.run import journal

OPTIONS: dict[str, dict[str, Any]] = {
    "deep-ga": {},
    "novelty-ga": {"neighbours": 15, "archive_probability": 0.02},
}

# %%
# A run with a directory keeps what every episode has come to, so that it can be drawn. Kill this script and
# start it again with the same ``--out``: it goes on where it was.


def main(
    budget: int = 12_000, seeds: tuple[int, ...] = (0,), workers: int = 1, out: str | None = None
) -> dict[str, Any]:
    """Return for each method and seed the episodes it took, the least distance, and where everyone ended."""
    shown: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for method, own in OPTIONS.items():
            for seed in seeds:
                folder = Path(out or temporary, f"{method}-{seed}")
                found = evolution.evolve(
                    "maze",
                    method,
                    policy_options={"hidden": (16,)},
                    options={
                        "population_size": 250,
                        "num_parents": 25,
                        "sigma": 0.1,
                        "elite_candidates": 0,
                        **own,
                    },
                    behaviour="position",
                    budget=budget,
                    score=HardMaze().solved,
                    test_episodes=0,
                    workers=workers,
                    rng=seed,
                    out=folder,
                )
                shown.setdefault(method, []).append(
                    {"episodes": found.episodes, "distance": -found.best, "ends": ends(folder)}
                )
    return shown


def ends(folder: Path) -> np.ndarray:
    """Return where the robots of a run ended, in the order of the episodes."""
    records = sorted(journal.read(folder / "evaluations.bin"), key=lambda r: r.first_id + r.reply.start)
    return np.concatenate([record.reply.extras["behaviour"] for record in records])


# %%
# Robots start at the bottom left, and the ring is the goal. Everyone's end is a point, a lighter one of those
# that came later.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw where everyone ended, in the first seed's runs."""
    figure, panels = plt.subplots(1, len(shown), figsize=(9.6, 5.0))
    for axes, (method, runs) in zip(panels, shown.items(), strict=True):
        run = runs[0]
        for x1, y1, x2, y2 in HARD_MAZE.walls:
            axes.plot([x1, x2], [y1, y2], color="black", linewidth=2)
        count = len(run["ends"])
        axes.scatter(*run["ends"].T, c=np.arange(count), cmap="viridis", s=3, linewidths=0)
        axes.add_patch(plt.Circle(HARD_MAZE.goal, HARD_MAZE.goal_radius, fill=False, color="tab:red"))
        axes.plot(*HARD_MAZE.start, "o", color="tab:red")
        solved = run["distance"] < HARD_MAZE.goal_radius
        said = f"solved by episode {count:,}" if solved else f"{run['distance']:.1f} short after {count:,}"
        axes.set(title=f"{method}: {said}", aspect="equal", ylim=axes.get_ylim()[::-1], xticks=[], yticks=[])
        axes.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=12_000, help="episodes of each method")
    parser.add_argument("--full", action="store_true", help="100,000 episodes, five seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="directory to keep the runs in")
    given = parser.parse_args()
    seeds = (0, 1, 2, 3, 4) if given.full else (0,)
    shown = main(100_000 if given.full else given.budget, seeds, given.workers, given.out)
    draw(shown)
    for method, runs in shown.items():
        for run in runs:
            print(f"{method:12}{run['episodes']:8,} episodes, least distance {run['distance']:5.1f}")
    plt.show()
