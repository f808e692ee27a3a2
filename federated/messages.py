"""Messages between server and clients, and what they weigh."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from zoo.core.device import array_module, is_torch


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
    """What a server sends to a client, or a client to the server. Subclasses are frozen dataclasses.

    Fields are arrays, numbers, booleans, None, and tuples of these; nothing else may cross the network.

    Example:
        >>> @dataclasses.dataclass(frozen=True, eq=False)
        ... class Step(Message):
        ...     x: np.ndarray
        ...     size: float
        >>> Step(np.zeros(300), 0.1).nbytes
        2408
    """

    @property
    def nbytes(self) -> int:
        """Bytes of its content: those of every array, 8 for every number, and 1 for a boolean or None.

        What a protocol puts around it is not counted.

        Raises:
            TypeError: A field holds something that cannot be sent.
        """
        return sum([_weight(getattr(self, name), name) for name in self._names])

    @property
    def is_finite(self) -> bool:
        """Whether every number in it is finite."""
        return all(_is_finite(getattr(self, name)) for name in self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        kind: Any = type(self)
        return _names_of(kind)


@functools.lru_cache(64)
def _names_of(kind: type[Message]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _weight(value: Any, name: str) -> int:
    if isinstance(value, (np.ndarray, np.generic)):
        return int(value.nbytes)
    if is_torch(value):
        return int(value.numel() * value.element_size())
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, (int, float)):
        return 8
    if isinstance(value, tuple):
        return sum(_weight(one, name) for one in value)
    raise TypeError(
        f"`{name}` of a message must be an array, a number, None or a tuple of these, got {value!r}."
    )


def _is_finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray) or is_torch(value):
        return bool(array_module(value).isfinite(value).all())
    return value is None or bool(np.isfinite(value))
