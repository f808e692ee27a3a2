"""Gradients of limited length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.core.device import Array
from zoo.core.validation import check_positive


@dataclass(frozen=True)
class Clip:
    """The gradient, shortened to `max_norm` where it is longer: g min(1, max_norm / |g|).

    Args:
        max_norm: Longest gradient let through, above 0.

    Example:
        >>> import numpy as np
        >>> Clip(2.5).update(None, np.array([3.0, 4.0]))[1].tolist()
        [1.5, 2.0]
    """

    max_norm: float

    def __post_init__(self) -> None:
        check_positive("max_norm", self.max_norm)

    def init(self, x: Array) -> Any:
        del x

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        norm = float((gradient * gradient).sum()) ** 0.5
        return memory, gradient * (self.max_norm / norm) if norm > self.max_norm else gradient
