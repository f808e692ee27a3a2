"""What changes while swarms converge: the inverse temperature, the noise, how many particles there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

SCHEDULES = ("constant", "multiply", "effective-sample-size", "cooling")


def multiplied(alpha: Matrix, rate: float, highest: float) -> Matrix:
    """Return min(rate alpha, highest); what is that high already stays as it is.

    Example:
        >>> multiplied(np.array([30.0, 90.0, np.inf]), 1.5, 100.0).tolist()
        [45.0, 100.0, inf]
    """
    if len(alpha) == 1:  # thrice as fast
        before = float(alpha[0])
        return np.array([before if before >= highest else min(before * rate, highest)])
    with np.errstate(over="ignore"):
        return np.where(alpha >= highest, alpha, np.minimum(alpha * rate, highest))


def doubled(alpha: float, epochs: int, highest: float) -> float:
    """Return the inverse temperature after some epochs of cooling, min(2^epochs alpha, highest).

    Example:
        >>> doubled(50.0, 3, 1e15), doubled(50.0, 10**6, 1e15)
        (400.0, 1000000000000000.0)
    """
    if alpha >= highest or alpha == 0:
        return alpha
    return highest if math.ldexp(highest, -epochs) <= alpha else math.ldexp(alpha, epochs)


def cooled(sigma: float, epochs: int) -> float:
    """Return the noise after some epochs of cooling.

    Epoch e = 1, 2, ... ends by multiplying it by log2(e + 1) / log2(e + 2), which makes it
    sigma / log2(epochs + 2).

    Example:
        >>> cooled(1.0, 0), cooled(1.0, 2)
        (1.0, 0.5)
    """
    return sigma / math.log2(epochs + 2)


def reduced(count: int, before: float, now: float, share: float, least: int = 1) -> int:
    """Return how many particles are kept after an epoch in which the variance of their places fell.

    N <- ceil(N clip((1 - share) + share now / before, 1 - share, 1)), at least `least`.

    Args:
        count: Particles so far.
        before: Variance at the beginning of the epoch.
        now: Variance at its end.
        share: mu, of the particles, that goes where the variance has fallen to nothing.
        least: Particles that are kept whatever happens.

    Example:
        >>> reduced(100, 1.0, 0.5, 0.2), reduced(100, 1.0, 2.0, 0.2), reduced(100, 0.0, 0.0, 0.2)
        (90, 100, 100)
    """
    ratio = now / before if 0 < before < math.inf else 1.0
    kept = 1 - share + share * min(max(ratio, 0.0), 1.0)
    return min(count, max(least, math.ceil(round(count * kept, 9))))
