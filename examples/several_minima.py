"""Several minima
==============

Where there are several good answers, find them all in one search: each with its value, the best one first.

.. code-block:: sh

    python examples/several_minima.py

``cbo-polarized`` lets particles agree with those near them, so that they settle in many valleys;
``result.minima`` says where. Below are four minima of equal value, and six of three different ones, of which
most methods would find one, and not the same one each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import zoo


def himmelblau(x: np.ndarray) -> np.ndarray:
    first, second = x.T
    return (first**2 + second - 11) ** 2 + (first + second**2 - 7) ** 2


def camel(x: np.ndarray) -> np.ndarray:
    first, second = x.T
    return (4 - 2.1 * first**2 + first**4 / 3) * first**2 + first * second + 4 * (second**2 - 1) * second**2


PROBLEMS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[tuple[float, float]]]] = {
    "Himmelblau's function": (himmelblau, [(-5, 5), (-5, 5)]),
    "the six-hump camel": (camel, [(-2.1, 2.1), (-1.2, 1.2)]),
}


# %%
# A function may keep what it was asked for. With ``vectorized=True`` it takes many points at once.


def main(budget: int = 10_000) -> dict[str, Any]:
    """Return for each function its minima with their values, and all points that were evaluated."""
    found: dict[str, Any] = {}
    for name, (function, bounds) in PROBLEMS.items():
        asked: list[np.ndarray] = []

        def recorded(x: np.ndarray, function: Any = function, asked: Any = asked) -> np.ndarray:
            asked.append(x.copy())
            return function(x)

        minima = zoo.minimize(
            recorded, bounds=bounds, method="cbo-polarized", budget=budget, vectorized=True, rng=0
        ).minima
        found[name] = {"x": minima.x, "fun": minima.fun, "asked": np.concatenate(asked)}
    return found


# %%
# All points, from light (the first) to dark (the last), and the minima with their values.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw both functions with the points."""
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.6))
    for axes, (name, (function, bounds)) in zip(panels, PROBLEMS.items(), strict=True):
        found = shown[name]
        grid = np.stack(np.meshgrid(*[np.linspace(*side, 200) for side in bounds]), -1)
        heights = function(grid.reshape(-1, 2)).reshape(200, 200)
        heights = np.log10(heights - heights.min() + 1e-2)
        axes.contour(*grid.transpose(2, 0, 1), heights, 14, colors="#bbbbbb", linewidths=0.7)
        count = len(found["asked"])
        axes.scatter(*found["asked"].T, c=np.arange(count), cmap="viridis_r", s=3, linewidths=0, alpha=0.5)
        axes.scatter(*found["x"].T, s=30, color="white", edgecolors="black", zorder=3)
        for x, value in zip(found["x"], found["fun"], strict=True):
            axes.annotate(
                f"{value + 0.0:.2f}", x, (7, 7), textcoords="offset points", fontsize=9, zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
        axes.set(title=f"{name}: {len(found['x'])} minima", xlim=bounds[0], ylim=bounds[1])
        axes.set(xlabel="$x_0$", ylabel="$x_1$")
        axes.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=10_000, help="evaluations of each function")
    shown = main(parser.parse_args().budget)
    draw(shown)
    for name, found in shown.items():
        print(name)
        for x, value in zip(found["x"], found["fun"], strict=True):
            print(f"  {value:9.5f} at {x[0]:8.4f}, {x[1]:8.4f}")
    plt.show()
