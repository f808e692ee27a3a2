"""ClipUp."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.device import Array, array_module
from zoo.core.validation import check_fraction, check_positive


@dataclass(frozen=True)
class ClipUp:
    """Normalized gradients with momentum, and a speed limit of 1.

        v <- beta v + step g / |g|, then shortened to length 1 where it is longer

    and v is the direction. Times a learning rate it is a step that is never longer than that, however
    large the gradient; a gradient of 0 only lets v fade.

    Args:
        beta: Share of the past that is kept.
        step: What a gradient adds, in units of the speed limit.

    Example:
        >>> import numpy as np
        >>> clip_up = ClipUp()
        >>> memory, first = clip_up.update(clip_up.init(np.zeros(2)), np.array([30.0, 40.0]))
        >>> first.tolist()
        [0.3, 0.4]

    References:
        Toklu, Liskowski and Srivastava, "ClipUp: a simple and powerful optimizer for distribution-based
        policy evolution", 2020. https://arxiv.org/abs/2008.02387
    """

    beta: float = 0.9
    step: float = 0.5

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta)
        check_positive("step", self.step)

    def init(self, x: Array) -> Any:
        return array_module(x).zeros_like(x)

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        velocity = self.beta * memory + gradient * (self.step / _length(gradient, 0.0))
        velocity = velocity / _length(velocity, 1.0)
        return velocity, velocity


def _length(x: Array, least: float) -> Any:
    """Return the length of a vector, or 1 where it is not above `least`; a tensor's stays on its device."""
    if isinstance(x, np.ndarray):
        length = math.sqrt(x.dot(x))
        return length if length > least else 1.0
    length = x.norm()
    return length.where(length > least, 1.0)
