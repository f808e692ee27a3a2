"""Who is better: order by value, ties by lot."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.rng import Key
from zoo.core.validation import check_count

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


def judged(values: Array, before: float, trials: int) -> tuple[int, float] | None:
    """Return who of those that were tried again is the best, and the mean value of all its further trials.

    A mean of many trials is as good as what the luckiest of them was; so those of the one that won before
    are held against it all together, and not the last ones alone.

    Args:
        values: Mean values of the trials, shape (n,), NaN for failed; the first is that of the one that won
            before, if anybody did.
        before: Mean of its earlier trials.
        trials: How many these were; 0 if nobody won before.

    Returns:
        Its row and its value; None where nobody has one.

    Example:
        >>> judged(np.array([9.0, 6.0]), 3.0, 2)
        (0, 5.0)
    """
    means = values + 0.0
    if trials and means[0] == means[0]:
        means[0] = before + (means[0] - before) / (trials + 1)
    if np.isnan(means).all():
        return None
    row = int(np.nanargmin(means))
    return row, float(means[row])


def check_trials(candidates: int, episodes: int) -> None:
    """Raise unless so many members can be tried again in so many episodes.

    Raises:
        TypeError: A number is no integer.
        ValueError: It is below 0, or 1, which leaves nobody to compare the one that won before with; or there
            are no episodes.

    Example:
        >>> check_trials(0, 30)
        >>> check_trials(1, 30)
        Traceback (most recent call last):
        ...
        ValueError: `elite_candidates` must be 0 or at least 2, got 1: one would be compared with nobody.
    """
    if check_count("elite_candidates", candidates, minimum=0) == 1:
        raise ValueError(
            "`elite_candidates` must be 0 or at least 2, got 1: one would be compared with nobody."
        )
    check_count("elite_episodes", episodes)
