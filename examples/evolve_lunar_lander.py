"""Landing on the moon
===================

An evolution strategy learns to land. It moves one policy along the differences between pairs of others around
it, and what it has come to is tried now and then, in episodes of their own.

.. code-block:: sh

    python examples/evolve_lunar_lander.py            # half a minute: it learns not to crash
    python examples/evolve_lunar_lander.py --full     # 20,000 episodes: it lands, with 200 points and more

A crash costs 100 points, a landing brings 100 and more, and fuel costs some. Random policies get -200 and
less.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import evolution
from evolution.environments.lookup import as_environment

NAME = "LunarLander-v3"
OPTIONS = {
    "population_size": 64,
    "sigma": 0.1,
    "learning_rate": 0.05,
    "weight_decay": 0.0,
    "validation_every": 10,
    "validation_episodes": 50,
}

# %%
# All policies of a generation meet the same landscapes, so that they are compared under the same
# circumstances; each generation meets others. With ``--out``, the run is kept, and can be killed and started
# again.


def main(budget: int = 4000, workers: int = 1, out: str | None = None) -> dict[str, Any]:
    """Return the history of a search, the champion's score, and how it and a first policy come down."""
    found = evolution.evolve(
        NAME,
        "openai-es",
        options=OPTIONS,
        policy_options={"hidden": (16,)},
        budget=budget,
        score=215,
        test_episodes=50,
        workers=workers,
        rng=0,
        out=out,
    )
    first = evolution.evolve(
        NAME, "random", policy_options={"hidden": (16,)}, options={"population_size": 2},
        generations=1, test_episodes=0, rng=0,
    )  # fmt: skip
    return {
        "history": found.history,
        "score": (found.score, found.score_error),
        "paths": {
            "a random policy": [path(first, seed) for seed in range(5)],
            "the champion": [path(found, seed) for seed in range(5)],
        },
        "found": found,
    }


# %%
# To see how it comes down, the environment is stepped by hand. Observations begin with the place of the
# lander, and the pad is at 0, 0.


def path(found: evolution.Evolution, seed: int) -> np.ndarray:
    """Return where the lander is in each step of an episode, shape (steps, 2)."""
    environment = as_environment(NAME).build()
    actor = found.policy.actor(found.parameters[None], np.zeros(1, np.int64))
    observations, places, is_over = environment.begin([seed]), [], False
    while not is_over:
        places.append(observations[:2, 0].copy())
        done = environment.step(actor.act(observations))
        observations, is_over = done.observations, bool(done.ended[0])
    environment.close()
    return np.array(places)


# %%


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw returns by episode, and paths."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0))
    history = {name: column[shown["history"]["retrial"] == 0] for name, column in shown["history"].items()}
    left.plot(history["episodes"], history["highest"], color="#cccccc", label="best of a generation, once")
    left.plot(history["episodes"], history["median"], color="C0", label="median of a generation")
    left.plot(history["episodes"], history["best"], color="C1", label="best so far, by 50 episodes")
    left.axhline(200, color="grey", linestyle=":")
    left.set(xlabel="episodes", title="return", ylim=(-500, 320))
    left.legend(loc="lower right")
    for colour, (name, paths) in zip(("grey", "C0"), shown["paths"].items(), strict=True):
        for number, places in enumerate(paths):
            right.plot(*places.T, color=colour, linewidth=1, label=None if number else name)
            right.plot(*places[-1], "o", color=colour, markersize=4)
    right.plot([-0.2, 0.2], [0, 0], color="black", linewidth=4)
    right.set(title="coming down", xlim=(-1.1, 1.1), ylim=(-0.3, 1.6))
    right.legend(loc="upper left")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=4000, help="episodes")
    parser.add_argument("--full", action="store_true", help="20,000 episodes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="directory to keep the run in")
    given = parser.parse_args()
    shown = main(20_000 if given.full else given.budget, given.workers, given.out)
    draw(shown)
    print(shown["found"].message)
    print(f"{shown['score'][0]:.0f} +- {shown['score'][1]:.0f} in 50 fresh episodes")
    plt.show()
