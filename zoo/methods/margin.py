"""A normal distribution in a box with discrete coordinates: how it goes on looking at other values.

Where a coordinate is cut into cells, a distribution that has become narrow falls into one cell, all its
candidates have the same value there, and nothing that they tell can ever move it again. So a share of the
candidates, 1 / (dim population_size) of them in each discrete coordinate, is made to have another value.

Source: R. Hamano, S. Saito, M. Nomura and S. Shirakawa, CMA-ES with Margin: Lower-Bounding Marginal
Probability for Mixed-Integer Black-Box Optimization, 2022, https://arxiv.org/abs/2205.13482. There the factor
by which a coordinate is widened is part of the state; here it follows from the mean, which gives the same
once the further neighbour is at its least share, and need not be remembered. Groups of coordinates, of which
the largest one wins, are not in the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from zoo.core.bounds import Bounds

Matrix = np.ndarray[Any, Any]


def widened(bounds: Bounds, mode: str, mean: Matrix, deviations: Matrix, share: float) -> Matrix:
    """Return deviations with which enough of the candidates leave a cell that lies between two others.

    In such a cell the deviation s is raised until either neighbour is reached by at least `share` / 2 of
    the candidates: to the distance of the further edge over the quantile of a normal distribution.

    Args:
        bounds: The box, which has a grid.
        mode: How points are taken into it, see `Bounds.map`.
        mean: Of the distribution before that, shape (dim,).
        deviations: Of its coordinates, shape (dim,).
        share: Of the candidates, per coordinate.
    """
    grid = bounds.grid
    assert grid is not None
    lower, upper = _edges(bounds, mode, mean)
    inner = np.isfinite(lower) & np.isfinite(upper)
    reach = np.where(
        inner, np.maximum(mean - np.where(inner, lower, 0.0), np.where(inner, upper, 0.0) - mean), 0.0
    )
    return np.maximum(deviations, reach / float(-ndtri(share / 2)))


def kept_near(bounds: Bounds, mode: str, mean: Matrix, deviations: Matrix, share: float) -> Matrix:
    """Return the mean, moved to where enough of the candidates have another value than itself.

    In a cell with one neighbour it stays so near to the edge between them that `share` of the candidates
    are beyond. In a group of coordinates of which the largest wins, the others stay so near to it that
    each wins a comparison with it that often, divided among them.

    Args:
        bounds: As in `widened`, and so are the others.
        mode: As there.
        mean: As there.
        deviations: As there.
        share: As there.
    """
    grid = bounds.grid
    assert grid is not None
    moved = np.where(grid.celled | (grid.groups >= 0), bounds.inverse(bounds.map(mean, mode), mode), mean)
    lower, upper = _edges(bounds, mode, moved)
    reach = float(-ndtri(share)) * deviations
    first, last = np.isneginf(lower) & np.isfinite(upper), np.isfinite(lower) & np.isposinf(upper)
    moved = np.where(first, np.maximum(moved, np.where(first, upper, 0.0) - reach), moved)
    moved = np.where(last, np.minimum(moved, np.where(last, lower, 0.0) + reach), moved)
    for members in grid.members:
        best = members[int(moved[members].argmax())]
        apart = float(-ndtri(share / (len(members) - 1))) * np.hypot(deviations[members], deviations[best])
        raised = np.maximum(moved[members], moved[best] - apart)
        raised[members == best] = moved[best]
        moved[members] = raised
    return moved


def num_discrete(bounds: Bounds | None) -> int:
    """Return how many coordinates of a box are discrete."""
    if bounds is None or bounds.grid is None:
        return 0
    return int(np.count_nonzero(bounds.grid.celled | (bounds.grid.groups >= 0)))


def _edges(bounds: Bounds, mode: str, mean: Matrix) -> tuple[Matrix, Matrix]:
    """Return the edges of the cells that the mean is in, before the map; infinite beyond the last cells."""
    grid = bounds.grid
    assert grid is not None
    index = grid.index(bounds.map(mean, mode))
    lower, upper = grid.edge(index), grid.edge(index + 1)
    inside = grid.celled
    lower = bounds.inverse(np.where(inside, lower, 0.5), mode)
    upper = bounds.inverse(np.where(inside, upper, 0.5), mode)
    return (
        np.where(inside & (index > 0), lower, -np.inf),
        np.where(inside & (index < grid.counts - 1), upper, np.inf),
    )
