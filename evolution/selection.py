"""Who is better: order by value, ties by lot."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.rng import Key

Array = np.ndarray[Any, Any]


def ranked(values: Array, key: Key) -> Array:
    """Return the members that have a value, the lowest one first, equal ones in an order drawn from a key.

    Where many have the same score, as in games that are rarely won, an order that always put the first one
    first would favour it for nothing.

    Args:
        values: Shape (n,), lower is better, NaN for failed.
        key: Where lots come from.

    Example:
        >>> ranked(np.array([2.0, np.nan, 1.0]), Key(0)).tolist()
        [2, 0]
    """
    lots = key.uniform(0, 1, len(values))[0]
    order = np.lexsort((lots, values))  # NaN last
    return order[: int(np.isfinite(values).sum())]
