"""Moments of observations: counted per episode, merged in the order of the episodes.

Moments of d numbers are an array (n, mean_1, ..., mean_d, M_1, ..., M_d), float64, where M is the sum of
squared deviations from the mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.state import state

Array = np.ndarray[Any, Any]

_LEAST_VARIANCE = 1e-2
_CLIP = 5.0


def no_moments(size: int) -> Array:
    """Return the moments of no observations of `size` numbers."""
    return np.zeros(1 + 2 * size)


def merged(moments: Array, rows: Array) -> Array:
    """Return the moments of all observations together.

        n = sum_i n_i,    mean = sum_i n_i mean_i / n,    M = sum_i M_i + n_i (mean_i - mean)^2

    Args:
        moments: Of what came before, shape (1 + 2d,).
        rows: Of what came since, shape (k, 1 + 2d); rows that are NaN do not count.

    Example:
        >>> ones = np.array([2.0, 1.0, 0.0])  # twice the number 1
        >>> threes = np.array([2.0, 3.0, 0.0])
        >>> merged(ones, threes[None]).tolist()
        [4.0, 2.0, 4.0]

    References:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance: analysis and
        recommendations", 1983. https://doi.org/10.1080/00031305.1983.10483115
    """
    together = np.concatenate([moments[None], rows[~np.isnan(rows).any(1)]])
    size = (len(moments) - 1) // 2
    counts, means, squares = together[:, :1], together[:, 1 : 1 + size], together[:, 1 + size :]
    count = counts.sum()
    if not count:
        return moments
    mean = (counts * means).sum(0) / count
    spread = (squares + counts * (means - mean) ** 2).sum(0)
    return np.concatenate([[count], mean, spread])


@state
class Normalizer:
    """What makes observations comparable: (x - mean) / deviation, clipped to -5 and 5.

    Attributes:
        mean: float32, shape (d,).
        deviation: The same; at least 0.1.

    References:
        Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
        reinforcement learning", 2017. https://arxiv.org/abs/1703.03864
    """

    mean: Array
    deviation: Array

    @staticmethod
    def of(moments: Array) -> Normalizer:
        """Return that of some moments; of none, one that only clips."""
        size = (len(moments) - 1) // 2
        if moments[0] < 1:
            return Normalizer(np.zeros(size, np.float32), np.ones(size, np.float32))
        variance = np.maximum(moments[1 + size :] / moments[0], _LEAST_VARIANCE)
        return Normalizer(moments[1 : 1 + size].astype(np.float32), np.sqrt(variance).astype(np.float32))

    def __call__(self, observations: Array) -> Array:
        """Return observations of shape (d, k) normalized."""
        scaled = observations - self.mean[:, None]
        scaled /= self.deviation[:, None]
        return np.clip(scaled, -_CLIP, _CLIP, out=scaled)


class Tally:
    """Moments of the observations of k episodes while they go on.

    Sums are of deviations from the first observation, so that nothing is lost to a large mean.

    Args:
        first: First observations, shape (d, k).
    """

    def __init__(self, first: Array) -> None:
        self._shift = first.astype(np.float64)
        self._sums = np.zeros_like(self._shift)
        self._squares = np.zeros_like(self._shift)
        self._count = 0

    def add(self, observations: Array) -> None:
        """Count one observation of each episode, shape (d, k)."""
        deviation = observations - self._shift
        self._sums += deviation
        deviation *= deviation
        self._squares += deviation
        self._count += 1

    def rows(self, which: Array) -> Array:
        """Return the moments of some of the episodes, shape (len(which), 1 + 2d)."""
        sums, count = self._sums[:, which], self._count
        squares = np.maximum(self._squares[:, which] - sums * sums / count, 0.0)
        means = self._shift[:, which] + sums / count
        return np.concatenate([np.full((1, len(which)), float(count)), means, squares]).T

    def keep(self, which: Array) -> None:
        """Go on with these episodes alone."""
        self._shift, self._sums = self._shift[:, which], self._sums[:, which]
        self._squares = self._squares[:, which]
