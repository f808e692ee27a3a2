"""Heavy-ball momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.core.device import Array, array_module
from zoo.core.validation import check_fraction


@dataclass(frozen=True)
class Momentum:
    """An accumulated gradient: m <- beta m + g, and m is the direction.

    Args:
        beta: Share of the past that is kept, at least 0 and below 1.

    Example:
        >>> import numpy as np
        >>> momentum = Momentum(0.5)
        >>> memory, first = momentum.update(momentum.init(np.zeros(1)), np.ones(1))
        >>> memory, second = momentum.update(memory, np.ones(1))
        >>> first.tolist(), second.tolist()
        ([1.0], [1.5])

    References:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
        https://doi.org/10.1016/0041-5553(64)90137-5
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta)

    def init(self, x: Array) -> Any:
        return array_module(x).zeros_like(x)

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        memory = self.beta * memory + gradient
        return memory, memory
