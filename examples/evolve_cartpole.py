"""Learning to balance a pole, and luck
=====================================

A pole stands on a cart, and a network of 226 parameters pushes the cart left or right. Nobody tells it how:
networks are changed at random and the best have children, and in some hundred episodes one of them balances
the pole for as long as it is asked to.

.. code-block:: sh

    python examples/evolve_cartpole.py

So does one of some dozens of networks that were just drawn at random. Here that is a method like any other,
``random``, and what does not do better has learned nothing: begin with it. The maze in ``evolve_maze.py`` is
a task of another kind.

And whoever came first in a generation was lucky to do so. Its return is a number to be careful with, which is
why the best are tried again in episodes of their own before one of them becomes the elite.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import evolution
from evolution.environments.cart_pole import CartPole
from zoo import Key

TRIED_AGAIN = {"elite_candidates": 2, "elite_episodes": 30}
METHODS: dict[str, dict[str, Any]] = {
    "deep-ga": {"population_size": 64, "num_parents": 3, "sigma": 0.5, **TRIED_AGAIN},
    "openai-es": {
        "population_size": 64,
        "sigma": 0.1,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "validation_every": 2,
    },
    "random": {"population_size": 64, **TRIED_AGAIN},
}


# %%
# One call is a whole search. ``score`` ends it, by the mean of the best by re-evaluation. At the end the
# champion is tried in thirty episodes more, by which nobody was selected: ``found.score`` is their mean.


def main(budget: int = 4000, seeds: int = 3, workers: int = 1) -> dict[str, Any]:
    """Return the best scores of each method by episode, and the first and later returns of policies."""
    runs = {
        method: [
            evolution.evolve(
                "cart-pole", method, options=options, budget=budget, score=490, workers=workers, rng=seed
            )
            for seed in range(seeds)
        ]
        for method, options in METHODS.items()
    }
    found = runs["deep-ga"][0]
    rows = np.empty((300, found.policy.dim), np.float32)
    found.codec.roots(rows, found.codec.draw(Key(1), 0, len(rows)))
    once = returns(found.policy, rows, np.arange(300), [*range(100, 400)])
    best = np.argsort(-once, kind="stable")[:20]
    again = returns(found.policy, rows[best], np.repeat(np.arange(20), 30), [*range(1, 31)] * 20)
    return {
        "curves": {
            method: [(run.history["episodes"], run.history["best"]) for run in done]
            for method, done in runs.items()
        },
        "scores": {method: np.array([run.score for run in done]) for method, done in runs.items()},
        "once": once[best],
        "again": again.reshape(20, 30).mean(1),
    }


# %%
# What was found is used by hand like this. An actor is networks at work in some episodes, and ``of`` says
# whose each of these is; an environment takes their actions, all at once.


def returns(policy: evolution.Policy, parameters: np.ndarray, of: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Return for how many steps the pole stays up in some episodes."""
    poles, actor = CartPole(), policy.actor(parameters, of)
    observations, left, found = poles.begin(seeds), np.arange(len(seeds)), np.zeros(len(seeds))
    while True:
        done = poles.step(actor.act(observations))
        found[left] += done.rewards
        observations = done.observations
        if done.ended.all():
            return found
        if done.ended.any():
            going = np.flatnonzero(~done.ended)
            poles.keep(going)
            actor.keep(going)
            observations, left = observations[:, going], left[going]


# %%
# An episode is worth the steps that the pole stays up, 500 at most. On the right, 300 random policies were
# tried once: the best twenty by that, and what they are worth.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw scores by episodes, and first returns beside the mean of later ones."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0))
    for colour, (method, curves) in zip(("C0", "C1", "grey"), shown["curves"].items(), strict=True):
        for number, (episodes, best) in enumerate(curves):
            label = None if number else method
            left.plot(episodes, best, "o-", color=colour, markersize=4, alpha=0.8, label=label)
    left.set(xlabel="episodes", title="mean return of the best, by re-evaluation", ylim=(0, 520))
    left.legend(loc="lower right")
    ranks = np.arange(1, len(shown["once"]) + 1)
    right.vlines(ranks, shown["again"], shown["once"], color="#cccccc")
    right.plot(ranks, shown["once"], "o", color="grey", label="in one episode")
    right.plot(ranks, shown["again"], "o", color="C0", label="mean of 30 more")
    right.set(
        xlabel="rank among 300 random policies", title="return", ylim=(0, 520), xticks=[1, 5, 10, 15, 20]
    )
    right.legend(loc="lower left")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=4000, help="episodes of each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes; these poles need no more than one")
    given = parser.parse_args()
    shown = main(given.budget, given.seeds, given.workers)
    draw(shown)
    for method, scores in shown["scores"].items():
        count = " ".join(f"{int(episodes[-1]):6}" for episodes, _ in shown["curves"][method])
        print(f"{method:10} episodes {count}   score in fresh ones", *scores.round(1))
    plt.show()
