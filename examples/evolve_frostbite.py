"""Networks of a million parameters that play from pictures
========================================================

The deep genetic algorithm on an Atari game, as published: networks see four grey pictures of 84 by 84 pixels,
and are changed in all of their parameters at once, at random. What came of a change is all that selects.

.. code-block:: sh

    pip install "gymnasium[atari]"
    python examples/evolve_frostbite.py            # three small generations, in a minute
    python examples/evolve_frostbite.py --full     # 2 million frames, half an hour on two cores

The parameters of a network are 4 MB, and a genome is some bytes for each ancestor: the seeds that the network
is made from. Nothing else travels to the workers. Published scores come from 500 times as many frames.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import evolution
from evolution.environments.lookup import as_environment

NAME = "ALE/Frostbite-v5"

# %%
# A population of 1000, 20 parents and a sigma of .002 are the paper's, and the defaults. These are smaller.


def main(
    population: int = 16,
    generations: int | None = 3,
    max_steps: int | None = 150,
    frames: int | None = None,
    workers: int = 1,
    out: str | None = None,
) -> dict[str, Any]:
    """Return what was found, its genome's size, and some moments of a game of the champion."""
    found = evolution.evolve(
        NAME,
        "deep-ga",
        policy="atari-small",
        options={
            "population_size": population,
            "num_parents": max(2, population // 5),
            "sigma": 0.005,
            "elite_candidates": 3,
            "elite_episodes": 3 if generations else 10,
        },
        max_steps=max_steps,
        generations=generations,
        frames=frames,
        test_episodes=4 if generations else 100,
        workers=workers,
        rng=0,
        out=out,
    )
    return {
        "found": found,
        "bytes": (len(found.genome.pack(found.codec)), found.parameters.nbytes),
        "moments": moments(found, max_steps or 1000),
    }


# %%
# Twelve moments of a game, with the score until then.


def moments(found: evolution.Evolution, max_steps: int) -> list[tuple[float, np.ndarray]]:
    """Return scores and pictures of a game, evenly spaced."""
    game = as_environment(NAME, max_steps=max_steps).build(pictures=True)
    actor = found.policy.actor(found.parameters[None], np.zeros(1, np.int64))
    observations, score, shown, is_over = game.begin([1]), 0.0, [], False
    while not is_over:
        shown.append((score, game.render()))
        done = game.step(actor.act(observations))
        observations, is_over, score = done.observations, bool(done.ended[0]), score + done.rewards[0]
    game.close()
    return [shown[i] for i in np.linspace(0, len(shown) - 1, 12).astype(int)]


# %%


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw the returns of generations, and moments of a game."""
    figure = plt.figure(figsize=(9.6, 4.4))
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.5])
    axes, history = left.subplots(), shown["found"].history
    generations = history["retrial"] == 0
    numbers = np.arange(1, generations.sum() + 1)
    axes.plot(numbers, history["highest"][generations], "o-", color="#bbbbbb", label="best, in one game")
    axes.plot(numbers, history["median"][generations], "o-", color="C0", label="median")
    axes.set(xlabel="generation", title="points", ylim=(0, None))
    axes.legend()
    for panel, (score, picture) in zip(right.subplots(2, 6).flat, shown["moments"], strict=True):
        panel.imshow(picture)
        panel.set(xticks=[], yticks=[], title=f"{score:.0f}")
        panel.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument(
        "--full", action="store_true", help="2 million frames, whole games, a population of 50"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="directory to keep the run in")
    given = parser.parse_args()
    whole = {"population": 50, "generations": None, "max_steps": None, "frames": 2_000_000}
    small = {"population": given.population, "generations": given.generations}
    shown = main(**(whole if given.full else small), workers=given.workers, out=given.out)
    draw(shown)
    found, (genome, parameters) = shown["found"], shown["bytes"]
    print(f"{found.score:.0f} +- {found.score_error:.0f} points in {found.test_episodes} fresh games")
    print(f"{found.frames:,} frames in {found.seconds:.0f} s")
    print(f"a genome of {genome} bytes for {parameters:,} bytes of parameters")
    plt.show()
