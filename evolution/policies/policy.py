"""What a policy is: a family of functions from observations to actions, one for each row of parameters."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolution.environments.spaces import Spaces

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of a policy: where it stands in a row follows from those in front of it.

    Attributes:
        name: Its name, as in a `state_dict`.
        shape: Its shape; in a row it lies in C order.
        std: Of the normal numbers that a first policy has here; 0 for none.
        mean: What they lie around.
    """

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class Actor(abc.ABC):
    """Policies at work in k episodes; whatever they remember from step to step is in here."""

    @abc.abstractmethod
    def act(self, observations: Any) -> Array:
        """Return an action for each episode, as `Spaces.actions` says, never NaN.

        Args:
            observations: As `Spaces.observations` says; normalized, where the run does so.
        """

    @abc.abstractmethod
    def keep(self, which: Array) -> None:
        """Go on with these episodes alone, in ascending order."""


class Policy(abc.ABC):
    """A family of functions from observations to actions. It travels to workers, so it should be small.

    Attributes:
        spaces: What it is for.
        pieces: What a row of parameters consists of.
        device: Where it computes, and where rows are to be: "cpu" (numpy arrays) or a torch device.
        members: How many sets of parameters are worth having side by side in one `actor`, 1 where the weights
            are so many that it only costs memory.
        is_recurrent: Whether it remembers.
    """

    spaces: Spaces
    pieces: tuple[Piece, ...]
    device: str = "cpu"
    members: int = 1
    is_recurrent: bool = False

    @property
    def dim(self) -> int:
        """How many parameters a row has."""
        return sum(piece.size for piece in self.pieces)

    @abc.abstractmethod
    def actor(self, parameters: Any, of: Array) -> Actor:
        """Return policies at work.

        Args:
            parameters: float32, shape (m, dim), where `device` says; not to be written to.
            of: For each of k episodes, ascending, which of the m rows it is of, int64.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what tells it from other ones, as numbers and names, for `config.json`."""

    def tensors(self, row: Array) -> dict[str, Array]:
        """Return one row as tensors by name: views of it."""
        found, start = {}, 0
        for piece in self.pieces:
            found[piece.name] = row[start : start + piece.size].reshape(piece.shape)
            start += piece.size
        return found
