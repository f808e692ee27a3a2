"""What an environment is here: episodes side by side, each a function of its seed and its actions alone."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolution.environments.spaces import Spaces

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Step:
    """What came of one action in each of the k episodes under way.

    Attributes:
        observations: As `Spaces.observations` says. Those of episodes that ended are not looked at. The next
            step may write over all of them.
        rewards: float64, shape (k,); NaN where an episode failed.
        ended: Whether the episode is over, bool, shape (k,).
        errors: By episode, 0 to k - 1, what it raised; it has ended then.
    """

    observations: Array
    rewards: Array
    ended: Array
    errors: Mapping[int, BaseException] = field(default_factory=dict)


class Environment(abc.ABC):
    """Episodes side by side.

    `begin` starts some; `step` takes an action for each that is under way; `keep` goes on with some of them,
    so that those under way are always numbered 0 to k - 1. An episode depends on its seed and its actions
    alone: not on what was run before it in this object, nor beside it.

    Attributes:
        spaces: What is shown and taken.
        max_steps: Steps after which every episode has ended.
        frames_per_step: What a step counts for where frames are counted.
        pictures_per_second: How many steps are a second to look at.
        slots: How many episodes are worth having side by side.
        behaviours: By name, how many numbers `behaviour` returns for it; such as {"position": 2}. The first
            one is what users mean who do not say.
    """

    spaces: Spaces
    max_steps: int
    frames_per_step: int = 1
    pictures_per_second: float = 30.0
    slots: int = 1
    behaviours: Mapping[str, int] = {}

    @abc.abstractmethod
    def begin(self, seeds: Sequence[int]) -> Array:
        """Start an episode for each seed, from 0 to 2^32 - 1, and return the first observations."""

    @abc.abstractmethod
    def step(self, actions: Array) -> Step:
        """Take an action in each episode under way."""

    @abc.abstractmethod
    def keep(self, which: Array) -> None:
        """Go on with these episodes alone, in ascending order; the others have ended."""

    def behaviour(self, name: str) -> Array:
        """Return what the episodes under way, or just ended, have come to: float64, shape (k, size)."""
        raise ValueError(f"{type(self).__name__} has no behaviour {name!r}.")

    def render(self) -> Array | None:
        """Return a picture of episode 0, uint8 of shape (height, width, 3), or None."""
        return None

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds."""
