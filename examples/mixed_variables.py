"""Numbers, counts and choices
===========================

Tune a forecast: whether seasons add to a trend or multiply it, how long one of them is, how many waves it
has, and how fast the past is forgotten.

.. code-block:: sh

    python examples/mixed_variables.py

A ``zoo.Space`` says what each variable may be; the objective is given a dictionary, and so is the result.
Choices, counts and numbers are searched together, since what is best for one depends on the others. Whoever
looks at the length of the season alone finds a valley at every multiple of it.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import zoo

SPACE = zoo.Space(
    {
        "seasons": zoo.Categorical(["added", "multiplied"]),
        "period": zoo.Float(4.0, 40.0, log=True),
        "waves": zoo.Integer(0, 8),
        "degree": zoo.Integer(0, 5),
        "memory": zoo.Float(5.0, 500.0, log=True),
        "ridge": zoo.Float(1e-6, 10.0, log=True),
    }
)
TIMES = np.arange(200.0)
NAMES = {"found": "by search", "chance": "by chance"}
FITTED, CHECKED, FUTURE = slice(0, 120), slice(120, 160), slice(160, 200)


def history() -> np.ndarray:
    """Return what was sold, say, in each of 200 weeks."""
    season = 2 * np.pi * TIMES / 17.3
    waves = 0.5 * np.sin(season) + 0.25 * np.sin(2 * season + 1.0) + 0.15 * np.sin(3 * season - 0.5)
    noise = np.random.default_rng(0).normal(0, 0.06, len(TIMES))
    return (4.0 + 0.05 * TIMES + 0.00035 * (TIMES - 60) ** 2) * np.exp(waves + noise)


SOLD = history()

# %%
# The objective: a model is fitted to the first 120 weeks, and judged by the next 40. The last 40 nobody
# looks at.


def forecast(point: dict[str, Any]) -> np.ndarray:
    """Return what a model says of all weeks, fitted to the first of them."""
    season = 2 * np.pi * TIMES / point["period"]
    waves = [wave(k * season) for k in range(1, point["waves"] + 1) for wave in (np.sin, np.cos)]
    terms = np.column_stack([*((TIMES / 200) ** k for k in range(point["degree"] + 1)), *waves])
    target = np.log(SOLD) if point["seasons"] == "multiplied" else SOLD
    weights = np.exp((TIMES[FITTED] - 120) / point["memory"])
    weighted = terms[FITTED] * weights[:, None]
    matrix = terms[FITTED].T @ weighted + point["ridge"] * np.eye(terms.shape[1])
    said = terms @ np.linalg.solve(matrix, weighted.T @ target[FITTED])
    return np.exp(np.minimum(said, 20)) if point["seasons"] == "multiplied" else said


def error(point: dict[str, Any]) -> float:
    """Return how far off a forecast is, as a root mean square."""
    return float(np.sqrt(((forecast(point) - SOLD)[CHECKED] ** 2).mean()))


def main(budget: int = 2000) -> dict[str, Any]:
    """Return what was found by search and by chance, and all that the search evaluated, in order."""
    seen: list[tuple[dict[str, Any], float]] = []

    def watched(point: dict[str, Any]) -> float:
        seen.append((point, error(point)))
        return seen[-1][1]

    found = zoo.minimize(watched, space=SPACE, budget=budget, rng=3)
    chance = zoo.minimize(error, space=SPACE, method="random", budget=budget, rng=3)
    return {"found": found, "chance": chance, "seen": seen}


# %%
# The forecasts; and below them, each line is a model that was tried, from the least to the largest value of
# each variable, and the darker the better.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw what was sold and what was said of it, and the models that were tried."""
    figure, (weeks, models) = plt.subplots(2, 1, figsize=(9, 6.4), height_ratios=[1.25, 1])
    weeks.axvspan(120, 160, color="#f1f1f1", linewidth=0)
    weeks.plot(TIMES, SOLD, ".", color="#9a9a9a", markersize=5, label="sold")
    for name, colour, width in (("chance", "C1", 1.2), ("found", "C0", 1.8)):
        said = forecast(shown[name].x)
        weeks.plot(TIMES, said, color=colour, linewidth=width, label=f"forecast, {NAMES[name]}")
    weeks.set(xlim=(0, 200), ylim=(0, 1.25 * SOLD.max()), xlabel="week")
    for middle, text in ((60, "fitted"), (140, "judged by"), (180, "seen by nobody")):
        weeks.text(middle, 1.17 * SOLD.max(), text, ha="center", color="#666666")
    weeks.legend(loc="center left")

    ranked = sorted(shown["seen"], key=lambda tried: -tried[1])
    colours = plt.get_cmap("Blues")(np.linspace(0.08, 1, len(ranked)) ** 3)
    for (point, _), colour in zip(ranked, colours, strict=True):
        models.plot(SPACE.encode(point), color=colour, linewidth=0.7)
    best = {
        name: f"{value:.3g}" if isinstance(value, float) else value
        for name, value in shown["found"].x.items()
    }
    models.set_xticks(range(len(best)), [f"{name}\n{value}" for name, value in best.items()])
    models.set(
        xlim=(-0.1, len(best) - 0.9), yticks=[], title=f"{len(ranked)} models, and the best one's values"
    )
    models.grid(axis="x", color="#777777")
    models.set_frame_on(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=2000, help="models")
    shown = main(parser.parse_args().budget)
    draw(shown)
    for name, result in (("search", shown["found"]), ("chance", shown["chance"])):
        left = (forecast(result.x) - SOLD)[FUTURE]
        print(
            f"{name}: off by {result.fun:.2f}, and by {np.sqrt((left**2).mean()):.2f} in weeks seen by nobody"
        )
        print(
            "  "
            + ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.x.items())
        )
    plt.show()
