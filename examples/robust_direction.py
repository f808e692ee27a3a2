"""A direction that outliers do not turn
=======================================

Principal components minimise squares, and a few points far out turn them as they like. Distances
themselves, not squared, are what outliers count little in. Their sum has several minima, and no decomposition
finds the least one; but it is a function on the sphere of all directions.

.. code-block:: sh

    python examples/robust_direction.py

``cbo-manifold`` keeps all of its particles on that sphere: no candidate has to be scaled back, and none is
wasted on a length that means nothing.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np

import zoo

DIM, INLIERS = 20, 150


# %%
# Points along one direction with some noise around it; outliers along another one, further out.


def points(share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points of which a share are outliers, the direction, and that of the outliers."""
    rng = np.random.default_rng(seed)
    direction, other = np.linalg.qr(rng.standard_normal((DIM, 2)))[0].T
    count = round(INLIERS * share / (1 - share))
    along = rng.standard_normal((INLIERS, 1)) * direction
    away = 4 * rng.uniform(0.5, 1, (count, 1)) * rng.choice([-1, 1], (count, 1)) * other
    return np.vstack([along, away]) + 0.1 * rng.standard_normal((INLIERS + count, DIM)), direction, other


def angle(found: np.ndarray, direction: np.ndarray) -> float:
    """Return the angle between two lines in degrees."""
    return float(np.degrees(np.arccos(min(1.0, abs(found @ direction) / np.linalg.norm(found)))))


# %%
# The sum of the distances of all points from a line along v. Both ends of v are the same line.


def robust(data: np.ndarray, budget: int) -> np.ndarray:
    """Return the direction of the line from which all points are least far in total."""

    def distances(v: np.ndarray) -> np.ndarray:
        squares = (data**2).sum(1) - (v @ data.T) ** 2
        return np.sqrt(np.maximum(squares, 0)).sum(-1)

    start = np.full(DIM, DIM**-0.5)  # its length is the radius of the sphere
    return zoo.minimize(distances, start, method="cbo-manifold", budget=budget, vectorized=True, rng=0).x


def main(budget: int = 6000, seeds: int = 8) -> dict[str, np.ndarray]:
    """Return the angles of both lines from the right one, by the share of outliers, and one case."""
    shares, angles = np.linspace(0, 0.3, 13), {"squares": [], "distances": []}
    for share in shares:
        for name in angles:
            angles[name].append([])
        for seed in range(seeds):
            data, direction, _ = points(float(share), seed)
            angles["squares"][-1].append(angle(np.linalg.svd(data)[2][0], direction))
            angles["distances"][-1].append(angle(robust(data, budget), direction))
    data, direction, other = points(0.15, 1)
    plane = np.column_stack([direction, other])
    return {
        "shares": shares,
        **{name: np.array(found) for name, found in angles.items()},
        "points": data @ plane,
        "by squares": np.linalg.svd(data)[2][0] @ plane,
        "by distances": robust(data, budget) @ plane,
    }


# %%
# To the left the plane of both directions, with 15 percent of outliers; to the right all shares.


def draw(shown: dict[str, np.ndarray]) -> plt.Figure:
    """Draw points with both lines, and angles by the share of outliers."""
    figure, (plane, curves) = plt.subplots(1, 2, figsize=(9.6, 4))
    plane.scatter(*shown["points"][:INLIERS].T, s=12, linewidths=0, alpha=0.6, color="C0", label="points")
    plane.scatter(*shown["points"][INLIERS:].T, s=12, linewidths=0, alpha=0.8, color="C5", label="outliers")
    for name, colour in (("by squares", "C1"), ("by distances", "C2")):
        plane.axline((0, 0), tuple(shown[name]), color=colour, linewidth=1.6, label=f"line {name}")
    plane.set(xlabel="along the direction", ylabel="along the outliers'", aspect="equal")
    plane.set(xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), title="15 percent are outliers")
    plane.legend(loc="upper left", fontsize=7)
    for name, colour in (("squares", "C1"), ("distances", "C2")):
        middle = np.median(shown[name], 1)
        low, high = shown[name].min(1), shown[name].max(1)
        curves.plot(100 * shown["shares"], middle, "o-", markersize=4, color=colour, label=f"by {name}")
        curves.fill_between(100 * shown["shares"], low, high, color=colour, alpha=0.2, linewidth=0)
    curves.set(xlabel="outliers, percent", ylabel="degrees off", title="medians and ranges", ylim=(-3, 93))
    curves.legend(loc="lower right")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=6000, help="evaluations of each search")
    parser.add_argument("--seeds", type=int, default=8, help="data sets for each share of outliers")
    arguments = parser.parse_args()
    shown = main(arguments.budget, arguments.seeds)
    draw(shown)
    for share, squares, distances in zip(shown["shares"], shown["squares"], shown["distances"], strict=True):
        print(f"{share:4.0%} outliers: {np.median(squares):5.1f} degrees off by squares, ", end="")
        print(f"{np.median(distances):5.1f} by distances")
    plt.show()
