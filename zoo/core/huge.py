"""Numbers so large that their sums or squares overflow, in units in which they do not."""

from __future__ import annotations

from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

_HUGE, _UNIT = 2.0**450, 2.0**600  # squares of 2^450 can be added up, and those of the largest number / 2^600
_LARGEST = float(np.finfo(np.float64).max)


def unit_of(*arrays: Matrix) -> float:
    """Return a power of 2 in units of which squares of all finite numbers can be added up; 1 for most.

    Example:
        >>> unit_of(np.array([1e100, np.nan])), unit_of(np.array([3.0]), np.array([1e200])) > 1
        (1.0, True)
    """
    return _UNIT if any(bool((abs(array) > _HUGE).any()) for array in arrays) else 1.0


def restored(numbers: Matrix, unit: float) -> Matrix:
    """Return numbers that are in units of `unit`; those that are too large as the largest that there is.

    Example:
        >>> numbers = np.array([1.5e308, 1e308])
        >>> unit = unit_of(numbers)
        >>> float(restored((numbers / unit).mean(), unit)), float(restored((numbers / unit).sum(), unit))
        (1.25e+308, 1.7976931348623157e+308)
    """
    return numbers if unit == 1 else np.clip(numbers, -_LARGEST / unit, _LARGEST / unit) * unit
