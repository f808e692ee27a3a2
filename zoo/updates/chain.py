"""What an update is, and several of them in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from zoo.core.device import Array


class Update(Protocol):
    """A frozen dataclass that turns gradients into directions, with an explicit memory."""

    def init(self, x: Array) -> Any:
        """Return the memory before the first gradient; `x` says its shape, kind and dtype."""
        ...

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        """Return the next memory, and the direction whose negative is the way to go."""
        ...


@dataclass(frozen=True)
class Chain:
    """Updates one after another, each given what the one before returned; with none, the gradient itself.

    Args:
        parts: The updates, first one first.

    Example:
        >>> import numpy as np
        >>> from zoo.updates.sign import Sign
        >>> chain = Chain((Sign(),))
        >>> chain.update(chain.init(np.zeros(2)), np.array([3.0, -0.5]))[1].tolist()
        [1.0, -1.0]
    """

    parts: tuple[Update, ...] = ()

    def init(self, x: Array) -> Any:
        return tuple(part.init(x) for part in self.parts)

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        after = []
        for part, known in zip(self.parts, memory, strict=True):
            known, gradient = part.update(known, gradient)
            after.append(known)
        return tuple(after), gradient
