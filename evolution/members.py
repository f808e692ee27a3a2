"""What methods of neuroevolution ask for: some members, each to be tried in some episodes."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from zoo.core.device import Array, Like
from zoo.core.types import Candidates


class Members(Candidates):
    """Candidates that know how often each is to be tried, and can be built where they are needed.

    Attributes:
        episodes: Episodes of each; None for as many as the run says.
    """

    __slots__ = ()

    episodes: int | None = None

    @abc.abstractmethod
    def rows_on(self, device: str, start: int, stop: int) -> Any:
        """Return rows `start` to `stop` where they are used: float32, a numpy array for "cpu", else torch's.

        The same bits on every device where members are made of a noise table.
        """

    def rows(self, start: int, stop: int) -> Array:
        return self.rows_on("cpu", start, stop)


class HeldMembers(Members):
    """Members that are few enough to be held as they are.

    Args:
        array: float32, shape (n, dim); not to be written to afterwards.
        episodes: Episodes of each; None for as many as the run says.
    """

    __slots__ = ("array", "episodes")

    def __init__(self, array: np.ndarray[Any, Any], episodes: int | None = None) -> None:
        self.array, self.episodes = array, episodes

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    def __len__(self) -> int:
        return len(self.array)

    def rows_on(self, device: str, start: int, stop: int) -> Any:
        rows = self.array[start:stop].copy()
        return rows if device == "cpu" else Like("torch", "float32", device).asarray(rows)
