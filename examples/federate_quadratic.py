"""Five clients, one minimum, and what it costs in queries and bytes
==================================================================

Five clients have a quadratic function of 300 variables each, and none shows it to anybody: they answer
values. Wanted is the minimum of their mean, which is nobody's own. Each client does some steps by itself, the
server takes the mean of where they came to, and so on.

.. code-block:: sh

    python examples/federate_quadratic.py

``fedzo`` estimates gradients by differences of values, and forgets them. ``scaffold-2`` corrects its steps by
what the others found in the round before. ``fzoos`` keeps what it was told along the way, and goes by the
gradient of a surrogate that is fitted to it, corrected by what the surrogates of the others say.

A round is not a byte. The published form of ``fzoos`` sends a surrogate as 10,000 weights, however few
variables there are; the default form sends its gradient instead where that is shorter.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import federated

METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fzoos": ("fzoos", {}, "C0"),
    "fzoos, published": ("fzoos", {"published": True}, "C1"),
    "scaffold-2": ("scaffold-2", {}, "C2"),
    "fedzo": ("fedzo", {}, "grey"),
}


# %%
# One call is a whole run. All methods meet the same functions and begin at the same point, since both follow
# from ``rng``. What ``history`` holds of F is for us: no method sees it, and it counts as no query.


def main(
    rounds: int = 20, heterogeneity: float = 5.0, dim: int = 300, workers: int = 1, seed: int = 0
) -> dict[str, federated.Federation]:
    """Return a run of each method. A round of the baselines is cheap, so they do twice as many."""
    return {
        label: federated.federate(
            "quadratic",
            method,
            options=options,
            task_options={"dim": dim, "num_clients": 5, "heterogeneity": heterogeneity},
            rounds=rounds if method == "fzoos" else 2 * rounds,
            workers=workers,
            rng=seed,
        )
        for label, (method, options, _) in METHODS.items()
    }


# %%
# Rows of a table: how far each method is when a number of queries, or of bytes, is spent.


def at(found: federated.Federation, column: str, limit: float) -> float:
    """Return F after the last round by which no more than this was spent."""
    history = found.history
    spent = history["up"] + history["down"] if column == "bytes" else history[column]
    return float(history["value"][np.flatnonzero(spent <= limit)[-1]])


def table(shown: dict[str, federated.Federation]) -> str:
    """Return F at equal costs, of one method in each line."""
    queries, size = shown["fzoos"].queries // 2, (shown["fzoos"].up + shown["fzoos"].down) // 2
    head = ("queries", "bytes", f"F by {queries:,} queries", f"by {size / 1e3:,.0f} kB", "at the end")
    lines = [f"{'':18}" + "  ".join(f"{name:>{max(12, len(name))}}" for name in head)]
    for label, found in shown.items():
        row = (f"{found.queries:,}", f"{found.up + found.down:,}")
        row += tuple(
            f"{value:.4f}" for value in (at(found, "queries", queries), at(found, "bytes", size), found.value)
        )
        columns = zip(head, row, strict=True)
        lines.append(f"{label:18}" + "  ".join(f"{one:>{max(12, len(name))}}" for name, one in columns))
    return "\n".join(lines)


# %%
# Over queries, what is remembered pays. Over bytes, the published form is last by far, and the default one
# begins behind ``fedzo``, whose rounds are the cheapest there are.


def draw(shown: dict[str, federated.Federation]) -> plt.Figure:
    """Draw how far F is from its minimum, against queries and against bytes."""
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=True)
    for label, found in shown.items():
        history = found.history
        gap = history["value"] - (-0.025 + 0.1 / len(found.x))
        costs = history["queries"] / 1e3, (history["up"] + history["down"]) / 1e6
        for axes, cost in zip(panels, costs, strict=True):
            axes.plot(cost[1:], gap[1:], color=METHODS[label][2], label=label)
    panels[0].set(xlabel="thousands of queries, of all clients", title="F above its minimum", yscale="log")
    panels[1].set(xlabel="megabytes, in both directions", title="the same", xscale="log")
    panels[0].legend()
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="of fzoos; the others do twice as many")
    parser.add_argument("--heterogeneity", type=float, default=5.0, help="how much clients differ")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shown = main(given.rounds, given.heterogeneity, workers=given.workers, seed=given.seed)
    draw(shown)
    print(table(shown))
    plt.show()
