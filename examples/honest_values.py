"""Lucky and honest values
=======================

Minimise something that is never the same twice, and compare what a search claims to have found with what is
there.

.. code-block:: sh

    python examples/honest_values.py

Of thousands of noisy values the lowest one was lucky. A search that takes values at their word keeps the
point that had it. With ``noise=True`` candidates that decide are evaluated again, the result is what the
method recommends from all it was told, and its value is the mean of fresh ones, with a standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np

import zoo

DIM = 6


def true(x: np.ndarray) -> np.ndarray:
    """Return what would be measured without noise."""
    return (x**2).sum(-1)


def instrument(seed: int) -> Callable[[np.ndarray], float]:
    """Return something that measures it, with an error of its own each time, of deviation 1."""
    errors = np.random.default_rng(seed)
    return lambda x: float(true(x) + errors.standard_normal())


# %%
# The same searches, once told that there is noise and once not.


def main(budget: int = 2000, seeds: int = 20) -> dict[str, np.ndarray]:
    """Return for each search the true value at its result, the claimed one, and the error it admits."""
    found = {}
    for name, noise in (("noise=False", False), ("noise=True", True)):
        rows = []
        for seed in range(seeds):
            start = np.full(DIM, 2.0)
            result = zoo.minimize(instrument(seed), start, noise=noise, budget=budget, rng=seed)
            rows.append((float(true(result.x)), float(result.fun), float(result.get("fun_error", 0.0))))
        found[name] = np.array(rows)
    return found


# %%
# On the line, what is claimed is true.


def draw(shown: dict[str, np.ndarray]) -> plt.Figure:
    """Draw claims beside truths, one dot a search."""
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    most = 1.1 * max(rows[:, 0].max() for rows in shown.values())
    axes.plot([0, most], [0, most], color="#9a9a9a", linewidth=1, linestyle="--")
    for (name, (there, claimed, error)), colour in zip(
        ((name, rows.T) for name, rows in shown.items()), ("C1", "C0"), strict=True
    ):
        bars = {"yerr": 2 * error, "elinewidth": 1} if error.any() else {}
        axes.errorbar(there, claimed, fmt="o", color=colour, markersize=5, alpha=0.75, label=name, **bars)
    axes.text(0.72 * most, 0.72 * most + 0.2, "claimed = true", color="#666666", ha="center")
    axes.set(title=f"{len(there)} searches each, under noise of deviation 1")
    axes.set(xlabel="true value at the result", ylabel="value that is claimed")
    axes.legend(loc="center right")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=2000, help="evaluations of each search")
    shown = main(parser.parse_args().budget)
    draw(shown)
    for name, rows in shown.items():
        there, claimed = np.median(rows[:, 0]), np.median(rows[:, 1])
        print(f"{name:<12} claims {claimed:6.2f} where there is {there:.2f}")
    plt.show()
