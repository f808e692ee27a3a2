"""What methods of neuroevolution ask for: some members, each to be tried in some episodes."""

from __future__ import annotations

import abc
from typing import Any

from zoo.core.device import Array
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
