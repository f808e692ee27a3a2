"""What an environment shows and what it takes, in the few kinds that policies serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Vector:
    """Observations that are rows of numbers.

    They come as float32 arrays of shape (size, k), an episode a column.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """Observations that are pictures, or stacks of them.

    They come as uint8 arrays of shape (k, channels, height, width).
    """

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Discrete:
    """One action of `count`: int64, shape (k,)."""

    count: int


@dataclass(frozen=True, slots=True)
class Continuous:
    """Numbers between walls, which may be infinite: float32, shape (size, k)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many numbers an action has."""
        return len(self.low)


@dataclass(frozen=True, slots=True)
class MultiDiscrete:
    """Several choices at a time, of `counts[i]` each: int64, shape (len(counts), k)."""

    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MultiBinary:
    """Several switches: int64 of 0 and 1, shape (size, k)."""

    size: int


Observations: TypeAlias = Vector | Image
Actions: TypeAlias = Discrete | Continuous | MultiDiscrete | MultiBinary


@dataclass(frozen=True, slots=True)
class Spaces:
    """What an environment shows and takes."""

    observations: Observations
    actions: Actions
