"""CMA-ES in a curved valley
===========================

Watch CMA-ES learn the shape of Rosenbrock's valley: it narrows where the valley is narrow, turns where it
turns, and takes long steps along it.

.. code-block:: sh

    python examples/cma_in_a_valley.py

A method is a value and so is its state. This loop asks, evaluates and tells by itself, and keeps every
state on the way: they are what the picture is made of.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import zoo
from zoo.problems import rosenbrock

SCALE = 0.3  # how far from the start the first candidates are

# %%
# The search. ``method.ask`` and ``method.tell`` are pure: nothing is changed in place, so that ``states``
# is the whole film, and each of its pictures could be gone on from.


def main(generations: int = 75) -> dict[str, Any]:
    """Search, and return the states with what was evaluated."""
    method = zoo.list_methods()["cma"].build({"population_size": 8})
    states = [method.init(np.array([-1.2, 1.0]), key=zoo.Key(7), scale=SCALE)]
    points, values = [], []
    for _ in range(generations):
        candidates = method.ask(states[-1])
        points.append(candidates.rows(0, len(candidates)))
        values.append(rosenbrock(points[-1]))
        states.append(method.tell(states[-1], zoo.Evaluations(values[-1])))
    return {"states": states, "points": points, "values": values, "x": method.recommend(states[-1])}


# %%
# The picture. Each ellipse holds the candidates of its generation with a probability of 86 %.


def ellipse(state: Any) -> np.ndarray:
    """Return the points two standard deviations away from the mean."""
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    return state.mean + 2 * state.sigma * SCALE * circle @ state.factor


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw the valley with the search in it, and how far the search has come."""
    figure, (valley, progress) = plt.subplots(1, 2, figsize=(9.6, 4.3), width_ratios=[1.55, 1])
    x, y = np.meshgrid(np.linspace(-1.9, 1.6, 400), np.linspace(-0.6, 2.1, 400))
    height = np.log10(rosenbrock(np.stack([x, y], -1)) + 1e-3)
    valley.contourf(x, y, height, 24, cmap="Blues", vmin=-3, vmax=6)
    every = range(0, len(shown["points"]), 5)
    colours = plt.get_cmap("Oranges")(np.linspace(0.45, 1, len(every)))
    means = np.array([state.mean for state in shown["states"]])
    valley.plot(*means.T, color="white", linewidth=1.2, alpha=0.9)
    for generation, colour in zip(every, colours, strict=True):
        valley.plot(*ellipse(shown["states"][generation]).T, color=colour, linewidth=1.4)
        valley.scatter(*shown["points"][generation].T, color=colour, s=7, linewidths=0)
    valley.plot(1, 1, marker="*", color="white", markeredgecolor="#444444", markersize=13)
    valley.annotate("minimum", (1, 1), (6, -14), textcoords="offset points", color="#333333")
    valley.set(
        title="every fifth generation, light to dark", xlabel="first variable", ylabel="second variable"
    )
    valley.set(xlim=(-1.9, 1.6), ylim=(-0.6, 2.1), aspect="equal")
    valley.grid(False)

    evaluations = np.cumsum([len(values) for values in shown["values"]])
    best = np.minimum.accumulate([values.min() for values in shown["values"]])
    axes = [SCALE * state.sigma * np.linalg.svd(state.factor)[1] for state in shown["states"][1:]]
    progress.semilogy(evaluations, best, label="best value")
    progress.semilogy(evaluations, [longest for longest, _ in axes], label="longest axis")
    progress.semilogy(evaluations, [shortest for _, shortest in axes], "C1", alpha=0.5, label="shortest axis")
    progress.set(title="it converges once it is through", xlabel="evaluations")
    progress.legend()
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--generations", type=int, default=75)
    shown = main(parser.parse_args().generations)
    draw(shown)
    print("after", sum(map(len, shown["values"])), "evaluations x =", shown["x"].round(4))
    plt.show()
