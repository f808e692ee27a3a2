"""Methods compared
================

Five methods on two problems, eleven seeds each: the median, and the band that holds half of the seeds.

.. code-block:: sh

    python examples/methods_compared.py

A run says little about a method, since another seed is another run; and a problem says little about others.
So compare many, at equal numbers of evaluations, and keep ``random`` among them: it shows what no method at
all would have found. Here, what wins in one curved valley does not among many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import zoo
from zoo.problems import rastrigin, rosenbrock

METHODS = ("cma", "lbfgs", "nelder-mead", "de", "random")
PROBLEMS = {"one curved valley": (rosenbrock, 8), "thousands of valleys": (rastrigin, 5)}

# %%
# The objective writes down what it is asked, so that methods that evaluate ten points a step can be drawn
# beside those that evaluate one.


def curve(fun: Callable[[np.ndarray], Any], dim: int, method: str, seed: int, budget: int) -> np.ndarray:
    """Return the best value after each evaluation of one run."""
    seen: list[float] = []

    def watched(x: np.ndarray) -> float:
        seen.append(float(fun(x)))
        return seen[-1]

    start = np.random.default_rng(seed).uniform(-4, 4, dim)
    zoo.minimize(watched, start, bounds=[(-5, 5)] * dim, method=method, budget=budget, rng=seed)
    best = np.minimum.accumulate(seen)
    return np.pad(best, (0, budget - len(best)), mode="edge")  # those that end early stay where they are


def main(budget: int = 4000, seeds: int = 11) -> dict[str, dict[str, np.ndarray]]:
    """Return the curves of all methods on all problems, a row for each seed."""
    return {
        problem: {
            method: np.array([curve(*of, method, seed, budget) for seed in range(seeds)])
            for method in METHODS
        }
        for problem, of in PROBLEMS.items()
    }


# %%


def draw(shown: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """Draw medians and quartiles."""
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.4), sharex=True)
    for axes, (problem, curves) in zip(panels, shown.items(), strict=True):
        for number, (method, values) in enumerate(curves.items()):
            low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
            evaluations = np.arange(1, len(median) + 1)
            axes.fill_between(evaluations, low, high, color=f"C{number}", alpha=0.16, linewidth=0)
            axes.plot(evaluations, median, color=f"C{number}", label=method)
        axes.set(yscale="log", title=problem, xlabel="evaluations", xlim=(0, len(evaluations)))
        axes.set_ylim(bottom=1e-9)
    panels[0].set_ylabel("best value so far")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=4000, help="evaluations of each run")
    shown = main(parser.parse_args().budget)
    draw(shown)
    for problem, curves in shown.items():
        print(f"{problem}, median of what was found")
        for method, values in sorted(curves.items(), key=lambda item: np.median(item[1][:, -1])):
            print(f"  {method:<12} {np.median(values[:, -1]):.2e}")
    plt.show()
