"""What an episode has come to, as users define it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One that has ended, of T steps.

    Attributes:
        observations: As policies are shown them: float32, shape (T + 1, size); or uint8, shape
            (T + 1, channels, height, width).
        actions: As the environment took them, T of them.
        rewards: float64, shape (T,).
        environment: The environment itself, in its last state, without the wrappers that Gymnasium puts
            around all environments; to be read only.
    """

    observations: Array
    actions: list[Any]
    rewards: Array
    environment: Any


Behaviour: TypeAlias = Callable[[Episode], Any]
"""Returns some numbers, as many for every episode."""


def as_numbers(behaviour: Behaviour, episode: Episode, size: int | None = None) -> Array:
    """Return what a user's function says of an episode: float64, one dimension.

    Args:
        behaviour: The function.
        episode: The episode.
        size: How many numbers it is to be, or None for any.

    Raises:
        TypeError: It returns no numbers.
        ValueError: It returns more or fewer, none, not a row of them, or some that are not finite.
    """
    name = getattr(behaviour, "__name__", type(behaviour).__name__)
    found = behaviour(episode)
    try:
        numbers = np.array(found, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"`behaviour` must return a row of numbers, and {name} returned {found!r}.") from None
    if numbers.ndim != 1 or not numbers.size:
        raise ValueError(
            f"`behaviour` must return a row of numbers, and {name} returned an array of shape "
            f"{numbers.shape}."
        )
    if size is not None and len(numbers) != size:
        raise ValueError(
            f"`behaviour` must return as many numbers for every episode: {name} returned {size} of a first "
            f"one, and {len(numbers)} of one of {len(episode.rewards)} steps. Cut or fill them up to one "
            "length, or take the last ones."
        )
    if not np.isfinite(numbers).all():
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(
            f"`behaviour` must return finite numbers, and {name} returned {numbers[place]} at {place}."
        )
    return numbers
