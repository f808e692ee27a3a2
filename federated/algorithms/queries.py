"""Active queries: where a client asks for values so as to learn the gradient where it is."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.rng import Key

if TYPE_CHECKING:
    from federated.surrogate.gaussian_process import Fit

_BLOCK = 2**20  # numbers of candidates that are weighed up at a time


def sweep(key: Key, dim: int, first: int, count: int) -> np.ndarray[Any, Any]:
    """Return rows of an endless matrix of which every `dim` rows, from row 0 on, are an orthonormal basis.

    Each basis is the cosine transform's, with a random sign for every coordinate and its vectors in random
    order: all entries have about the same size, and a row costs as many operations as it has entries.

    Args:
        key: The matrix.
        dim: Length of a row.
        first: First row.
        count: How many rows.

    Returns:
        Shape (count, dim).

    Example:
        >>> rows = sweep(Key(0), 3, 3, 3)
        >>> bool(np.allclose(rows @ rows.T, np.eye(3)))
        True
    """
    made = np.empty((count, dim))
    middles = (np.arange(dim) + 0.5) * (math.pi / dim)
    for row in range(count):
        number, place = divmod(first + row, dim)
        order, signs = _basis(key, dim, number)
        frequency = int(order[place])
        made[row] = np.cos(middles * frequency) * signs * math.sqrt((2 if frequency else 1) / dim)
    return made


@functools.lru_cache(maxsize=4)
def _basis(key: Key, dim: int, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the order of a basis's vectors, and the signs of coordinates."""
    one = key.fold("basis", number)
    return one.fold("order").permutation(0, 1, dim)[0], one.fold("signs").rademacher(0, 1, dim)[0]


def orthogonal(x: Array, distance: float, count: int, first: int, shared: Key, key: Key) -> Array:
    """Return points at some distance of x, in directions of `sweep`, each forwards or backwards.

    More than `dim` of them are a whole basis, then some of the same directions the other way, so that all
    are different.

    Args:
        x: Shape (dim,).
        distance: Distance from x to each.
        count: How many, at most 2 dim.
        first: Number of the first direction.
        shared: Key of the directions.
        key: Of the signs.
    """
    dim = len(x)
    if count > dim:
        first = -(-first // dim) * dim  # of two bases, rows may be the same but for the sign
    some = min(count, dim)
    ways = sweep(shared, dim, first, some) * key.rademacher(0, some, 1)
    ways = np.concatenate([ways, -ways[: count - some]])
    return x + Like.of(x).asarray(ways * distance)


def uncertain(
    x: Array, radius: float, count: int, candidates: int, fit: Fit | None, key: Key, bounds: Bounds | None
) -> Array:
    """Return the points of a box around x where the gradient is least known.

    Args:
        x: Shape (dim,).
        radius: Half of the box's width.
        count: How many points.
        candidates: How many are drawn, uniform in the box; at least `count`.
        fit: What is known; None before anything is, when the first that are drawn are taken.
        key: Of the candidates.
        bounds: Box that candidates are taken into, or None.
    """
    xp, height = array_module(x), max(1, _BLOCK // len(x))

    def drawn(start: int, stop: int) -> Array:
        points = x + radius * (2 * key.uniform(start, stop, len(x), like=x) - 1)
        return points if bounds is None else bounds.map(points, "clip")

    if fit is None:
        return drawn(0, count)
    parts = [
        to_numpy(fit.uncertainty(drawn(start, min(start + height, candidates))))
        for start in range(0, candidates, height)
    ]
    # A stable order, so that of equal ones the first are taken.
    best = np.sort(np.argsort(-np.concatenate(parts), kind="stable")[:count])
    if candidates <= height:
        return drawn(0, candidates)[best.tolist()]
    return xp.concatenate([drawn(row, row + 1) for row in best.tolist()])
