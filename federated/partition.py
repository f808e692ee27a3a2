"""Partitions: which examples belong to which client."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.rng import Key


def dirichlet(key: Key, alpha: float, rows: int, count: int) -> np.ndarray[Any, Any]:
    """Draw shares from the symmetric Dirichlet distribution, shape (rows, count); every row has the sum 1.

    A share is a gamma variable over the sum of all. Their logarithms are drawn, as those of a gamma variable
    of shape `alpha` + 1 plus log(u) / `alpha` with u uniform, so that the smallest `alpha` has rows too.

    Args:
        key: Randomness of the shares.
        alpha: Above 0; the smaller, the more one share of a row has of it all.
        rows: How many rows.
        count: Shares of a row.

    Example:
        >>> shares = dirichlet(Key(0), 0.1, 2, 5)
        >>> shares.shape, bool(np.allclose(shares.sum(1), 1))
        ((2, 5), True)

    References:
        Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
        https://doi.org/10.1145/358407.358414
    """
    gamma = key.fold("gamma").generator().standard_gamma(alpha + 1, (rows, count))
    logs = np.log(gamma) + np.log1p(-key.fold("uniform").generator().random((rows, count))) / alpha
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
