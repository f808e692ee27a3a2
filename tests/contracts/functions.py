"""What is minimised: apart from the tests, which would cost the workers that import it their imports."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[[np.ndarray[Any, Any]], float]


def bowl(x: np.ndarray[Any, Any]) -> float:
    """A smooth function with its minimum, 0, at 1; neither symmetric nor separable."""
    y = np.asarray(x, np.float64) - 1
    weights = np.arange(1.0, len(y) + 1)
    return float((weights * y**2).sum() + 0.5 * y.sum() ** 2 + 0.1 * (y**4).sum())


def constant(x: np.ndarray[Any, Any]) -> float:
    return 3.0


def delayed(x: np.ndarray[Any, Any]) -> float:
    """Take as long as chance will have it, in whichever process."""
    time.sleep(0.0004 * (time.perf_counter_ns() // 1000 % 7))
    return bowl(x)
