"""A robot learns to run
=====================

An evolution strategy trains the half cheetah of MuJoCo, a robot with six motors that should run to the right.

.. code-block:: sh

    pip install "gymnasium[mujoco]"
    python examples/evolve_half_cheetah.py            # half a minute, in episodes of 100 steps
    python examples/evolve_half_cheetah.py --full     # in episodes of 1000, until it makes 1600

What it feels is of unlike scales: angles below one, velocities above ten. ``normalize=True`` divides each
number by its deviation. The moments for that are frozen during a generation. After it, those of all its
episodes are merged, in the order of the episodes, so the outcome does not depend on which worker was first.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt

import evolution

OPTIONS = {
    "population_size": 64,
    "sigma": 0.05,
    "learning_rate": 0.02,
    "weight_decay": 0.0,
    "validation_every": 10,
    "validation_episodes": 5,
}

# %%
# A return is about how far the robot came, less what effort cost. What the champion's observations pass
# through belongs to it: it is ``found.normalizer``, and is saved along with it.


def main(
    budget: int = 2600,
    max_steps: int | None = 100,
    frames: int | None = None,
    workers: int = 1,
    normalize: bool = True,
    out: str | None = None,
) -> evolution.Evolution:
    """Return what was found."""
    return evolution.evolve(
        "HalfCheetah-v5",
        "openai-es",
        options=OPTIONS,
        policy_options={"hidden": (32,)},
        normalize=normalize,
        max_steps=max_steps,
        budget=None if frames else budget,
        frames=frames,
        score=1600,
        test_episodes=10,
        workers=workers,
        rng=0,
        out=out,
    )


# %%


def draw(found: evolution.Evolution) -> plt.Figure:
    """Draw the returns of generations, and the deviations that observations had."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0))
    generations = found.history["retrial"] == 0
    history: dict[str, Any] = {name: column[generations] for name, column in found.history.items()}
    left.plot(history["frames"], history["highest"], color="#cccccc", label="best of a generation, once")
    left.plot(history["frames"], history["median"], color="C0", label="median of a generation")
    left.plot(
        history["frames"], history["best"], "o-", color="C1", label="best so far, by 5 episodes", markersize=3
    )
    left.set(xlabel="steps", title="return")
    left.legend(loc="lower right")
    if found.normalizer is not None:
        deviations = found.normalizer.deviation
        right.barh(range(len(deviations)), deviations, color="C0")
    right.set(title="deviation of what the robot feels", ylabel="number", yticks=range(0, 17, 4))
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=2600, help="episodes")
    parser.add_argument("--full", action="store_true", help="in episodes of 1000 steps, 10 million at most")
    parser.add_argument("--plain", action="store_true", help="leave observations as they are")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="directory to keep the run in")
    given = parser.parse_args()
    size = {"max_steps": None, "frames": 10_000_000} if given.full else {"budget": given.budget}
    found = main(workers=given.workers, normalize=not given.plain, out=given.out, **size)
    draw(found)
    print(f"{found.score:.0f} +- {found.score_error:.0f} after {found.frames:,} steps: {found.message}")
    plt.show()
