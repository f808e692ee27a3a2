"""Heating eight buildings by one set of rules, without seeing into any
=====================================================================

A maker of heat pumps wants settings that suit all buildings it is in. How a building behaves, when people are
there and how warm they had it is nobody's business: each building tries the settings on its own model of
itself, over two winter days, and answers one number, its costs. A pump that would run too slowly does not
run, so that number has no gradient.

.. code-block:: sh

    python examples/federate_your_own.py

Buildings are clients of your own: a function of the client's number and x is all that is needed. A value
takes half a minute of a building's small computer, one of the computers is eight times as slow, and in each
round one in five is off. So it matters whom one waits for: six of eight come there in a third of the time,
and building 5, the slow one, has little say in it.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import federated
from federated.tasks.functions import FunctionTask
from zoo import Key

STEPS, HOURS = 144, 48.0
NAMES = ("night, °C", "begin early, h", "gain, 1/K", "weather, 1/K", "integral, 1/(K h)", "stop early, h")
LOWER = np.array([14.0, 0.0, 0.05, 0.0, 0.0, 0.0])
UPPER = np.array([21.0, 6.0, 1.0, 0.08, 0.3, 4.0])
FIRST = np.array([20.0, 1.0, 0.3, 0.01, 0.0, 0.0])  # as the maker ships them


# %%
# A building is drawn from its number: how fast it cools, its floor, the weather, when people are there. The
# function simulates it under many settings side by side.


def costs(client: int, x: np.ndarray) -> np.ndarray:
    """Return what two days cost a building, for energy and for being cold, for rows of settings."""
    return simulated(client, x)[0]


def simulated(client: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the costs, and temperature and power by time, shape (STEPS, k)."""
    key = Key(7).fold("building", client)
    loss, mass, floor, phase = key.uniform(0, 1, 4)[0]
    comes, leaves = np.round(6 + 3 * key.fold("people").uniform(0, 1, 2)[0] + [0, 10])
    hours = np.arange(STEPS) * HOURS / STEPS
    outside = -2 + 6 * client / 8 + 5 * np.sin(2 * np.pi * (hours - 9 - 2 * phase) / 24)
    there = (hours % 24 >= comes) & (hours % 24 < leaves)
    night, begin, gain, weather, integral, stop = (LOWER + np.clip(x, 0, 1) * (UPPER - LOWER)).T
    inside, slab, summed = np.full(len(x), 17.0), np.full(len(x), 20.0), np.zeros(len(x))
    cost, step = np.zeros(len(x)), HOURS / STEPS
    temperatures, powers = np.empty((2, STEPS, len(x)))
    for at, hour in enumerate(hours % 24):
        wanted = np.where((hour >= comes - begin) & (hour < leaves - stop), 21.0, night)
        error = wanted - inside
        summed = np.clip(summed + error * step, -5, 5)
        power = np.clip(gain * error + integral * summed + weather * (18 - outside[at]), 0, 1)
        power[power < 0.2] = 0  # it does not run as slowly as that
        slab += step * (power * (14 + 6 * floor) - (slab - inside)) / (2 + 3 * floor)
        inside += step * ((slab - inside) - (0.12 + 0.2 * loss) * (inside - outside[at])) / (2 + 4 * mass)
        dear = 1.6 if 17 <= hour < 20 else 1.0
        cost += step * dear * power
        if there[at]:
            cost += step * np.maximum(20.5 - inside, 0) ** 2
        temperatures[at], powers[at] = inside, power
    return cost, temperatures, powers


# %%
# The network is virtual: nobody waits for anything here, and every run with its losses can be repeated to the
# last bit. A round in which a building was off, or too late, goes on without it.

NETWORK: dict[str, Any] = {
    "dropout": 0.2,
    "seconds_per_query": 30.0,
    "spread": 0.2,
    "slow": [(5, 8.0)],
}
WAYS: dict[str, dict[str, Any]] = {"for everybody": {}, "for six of eight": {"wait_for": 6}}
OPTIONS = {"num_steps": 5, "learning_rate": 0.03, "radius": 0.05, "step_queries": 2, "round_queries": 4}


def main(rounds: int = 20, workers: int = 1, seed: int = 0) -> dict[str, federated.Federation]:
    """Return a run for each way to wait."""
    first = (FIRST - LOWER) / (UPPER - LOWER)
    task = FunctionTask(costs, 8, x0=first, bounds=[(0, 1)] * 6, vectorized=True)
    return {
        way: federated.federate(
            task,
            "fzoos",
            options=OPTIONS,
            network={**NETWORK, **waiting},
            rounds=rounds,
            workers=workers,
            rng=seed,
        )
        for way, waiting in WAYS.items()
    }


# %%
# What comes of it: the mean over virtual days, and what it is worth to each building.


def draw(shown: dict[str, federated.Federation]) -> plt.Figure:
    """Draw the mean costs over virtual time, and those of each building before and after."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0))
    for way, found in shown.items():
        left.plot(found.history["clock"] / 3600, found.history["value"], ".-", label=f"waiting {way}")
    left.set(xlabel="virtual hours", title="mean costs")
    left.legend()
    found = shown["for six of eight"]
    first = ((FIRST - LOWER) / (UPPER - LOWER))[None]
    before = np.array([costs(client, first)[0] for client in range(8)])
    after = found.clients["value"]
    places = np.arange(8)
    right.vlines(places, after, before, color="#cccccc", linewidth=3)
    right.plot(places, before, "o", color="grey", label="as shipped")
    right.plot(places, after, "o", color="C0", label="after")
    right.set(xlabel="building", title="costs of each", ylim=(0, None), xticks=places)
    right.legend()
    return figure


def table(shown: dict[str, federated.Federation]) -> str:
    """Return how each way went, and the settings."""
    lines = []
    for way, found in shown.items():
        faults = ", ".join(f"{count} {name}" for name, count in found.faults.items() if count)
        lines.append(
            f"{way:17} {found.history['value'][0]:.2f} -> {found.value:.2f} in {found.clock / 3600:5.1f} "
            f"virtual hours, {found.queries:,} queries; {faults}"
        )
    x = LOWER + np.clip(shown["for six of eight"].x, 0, 1) * (UPPER - LOWER)
    return "\n".join(
        [
            *lines,
            "",
            *(
                f"{name:18}{was:8.3f} -> {is_now:.3f}"
                for name, was, is_now in zip(NAMES, FIRST, x, strict=True)
            ),
        ]
    )


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shown = main(given.rounds, given.workers, given.seed)
    draw(shown)
    print(table(shown))
    plt.show()
