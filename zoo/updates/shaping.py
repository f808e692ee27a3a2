"""Shaped values: what a step's values count for, by their order alone.

The functions take values, lower is better and NaN for failed, and return a weight for each. Failed ones
have weight 0, as if they had not been asked for, and equal values have equal weights: the mean of what
their ranks would get. So where all values are equal, all weights are 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Vector = np.ndarray[Any, Any]


def centred_ranks(values: Vector) -> Vector:
    """Return the ranks, evenly spread from -1/2 for the lowest value to 1/2 for the highest.

    Args:
        values: Shape (n,).

    Returns:
        Shape (n,), of sum 0.

    Example:
        >>> centred_ranks(np.array([3.0, 1.0, np.nan, 2.0])).tolist()
        [0.5, -0.5, 0.0, 0.0]

    References:
        Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
        reinforcement learning", 2017. https://arxiv.org/abs/1703.03864
    """
    return _shaped(values, _ramp)


def nes_utilities(values: Vector) -> Vector:
    """Return the utilities of natural evolution strategies: highest for the lowest value.

        u_k = max(0, log(n / 2 + 1) - log k) / sum_j max(0, log(n / 2 + 1) - log j) - 1 / n

    for rank k = 1, ..., n, the lowest value first.

    Args:
        values: Shape (n,).

    Returns:
        Shape (n,), of sum 0; the worse half all have -1 / n.

    Example:
        >>> nes_utilities(np.array([3.0, 1.0, 2.0, 4.0])).round(3).tolist()
        [-0.25, 0.48, 0.02, -0.25]

    References:
        Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber, "Natural evolution strategies", 2014.
        https://jmlr.org/papers/v15/wierstra14a.html
    """
    return _shaped(values, _utilities)


def _shaped(values: Vector, table: Callable[[int], Vector]) -> Vector:
    """Return the entries of a table, by rank, in the order of the values."""
    order = values.argsort(kind="stable")  # NaN last
    ranked = values.take(order)
    if ranked[-1] != ranked[-1]:
        count = int(np.count_nonzero(ranked == ranked))
        order, ranked = order[:count], ranked[:count]
    shaped = np.zeros(len(values))
    if len(ranked) < 2 or ranked[0] == ranked[-1]:
        return shaped
    weights, same = table(len(ranked)), ranked[1:] == ranked[:-1]
    if np.count_nonzero(same):
        group = np.concatenate([[0], np.cumsum(~same)])
        weights = (np.bincount(group, weights) / np.bincount(group))[group]
    shaped[order] = weights
    return shaped


@functools.lru_cache(maxsize=256)
def _ramp(count: int) -> Vector:
    return np.arange(count) / (count - 1) - 0.5


@functools.lru_cache(maxsize=256)
def _utilities(count: int) -> Vector:
    raw = np.maximum(0.0, math.log(count / 2 + 1) - np.log(np.arange(1, count + 1)))
    weights: Vector = raw / raw.sum() - 1 / count
    return weights
