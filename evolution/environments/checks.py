"""Whether an environment does as environments should, tried out before anything starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from evolution.environments.environment import Array, Environment
from evolution.environments.spaces import (
    Actions,
    Discrete,
    Image,
    MultiBinary,
    MultiDiscrete,
    Observations,
    Spaces,
    Vector,
)
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key

_STEPS = 2  # a user's steps may take long, and what is forgotten to be reset shows at once or much later
_TRIES = 3


def random_actions(actions: Actions, count: int, generator: np.random.Generator) -> Array:
    """Return actions for `count` episodes: uniform between walls that are finite, else normal within them.

    Example:
        >>> random_actions(MultiBinary(5), 3, np.random.default_rng(0)).shape
        (5, 3)
    """
    if isinstance(actions, Discrete):
        return generator.integers(actions.count, size=count)
    if isinstance(actions, MultiDiscrete):
        return generator.integers(np.array(actions.counts)[:, None], size=(len(actions.counts), count))
    if isinstance(actions, MultiBinary):
        return generator.integers(2, size=(actions.size, count))
    low, high = (np.array(walls)[:, None] for walls in (actions.low, actions.high))
    with np.errstate(all="ignore"):  # of walls that are infinite, or as good as that
        uniform = low + generator.random((actions.size, count)) * (high - low)
    normal = np.clip(generator.standard_normal((actions.size, count)), low, high)
    return np.where(np.isfinite(uniform), uniform, normal).astype(np.float32)


def try_out(used: Environment, build: Callable[[], Environment], name: str) -> bool:
    """Try an environment for some steps of some episodes.

    It warns where an episode is another one although seed and actions are the same.

    Args:
        used: The environment; it is closed.
        build: Builds another one.
        name: How it is called in errors.

    Returns:
        Whether an episode is another one after others than in a new environment: with this seed, and as far
        as its first steps show it.

    Raises:
        TypeError: Its `spaces` are none.
        ValueError: Another thing is not as `Environment` says; or every episode fails at its first step.
    """
    _check_attributes(used, name)
    errors = []
    for seed in range(_TRIES):
        episode, error = _beginning(used, seed, name)
        if seed == 0:
            first = episode
        if error is not None and len(episode) == 1:
            errors.append(error)
    if len(errors) == _TRIES:
        raise ValueError(f"{name}: no episode gets further than its first step: {errors[0]}") from errors[0]
    again, _ = _beginning(used, 0, name)
    used.close()
    new = build()
    fresh, _ = _beginning(new, 0, name)
    new.close()
    if fresh != first:
        warnings.warn(
            f"{name}: an episode is another one although its seed and actions are the same, so no run can be "
            "repeated. All randomness should come from what `reset(seed=...)` seeds: in environments of "
            "Gymnasium, from `self.np_random`.",
            ZooWarning,
            stacklevel=4,
        )
        return False
    return again != first


def _beginning(environment: Environment, seed: int, name: str) -> tuple[list[bytes], BaseException | None]:
    """Return what is seen and given in the first steps of an episode, and what ended it before."""
    actions, kind = environment.spaces.actions, environment.spaces.observations
    observations = environment.begin([seed])
    _check_observations(observations, kind, name)
    found = [observations.tobytes()]
    generator = Key(0).fold("actions", seed).generator()
    for _ in range(min(_STEPS, environment.max_steps)):
        done = environment.step(random_actions(actions, 1, generator))
        if done.errors:
            return found, done.errors[0]
        if np.shape(done.rewards) != (1,) or np.shape(done.ended) != (1,):
            raise ValueError(
                f"{name}: `step` must return rewards and ends of shape (1,) for one episode, got shapes "
                f"{np.shape(done.rewards)} and {np.shape(done.ended)}."
            )
        if done.ended[0]:
            found.append(done.rewards.tobytes())
            break
        _check_observations(done.observations, kind, name)
        found += [done.observations.tobytes(), done.rewards.tobytes()]
    return found, None


def _check_attributes(environment: Environment, name: str) -> None:
    if not isinstance(getattr(environment, "spaces", None), Spaces):
        raise TypeError(
            f"{name} must say its `spaces` as evolution.environments.spaces.Spaces(observations, actions), "
            f"got {getattr(environment, 'spaces', None)!r}."
        )
    for attribute in ("max_steps", "frames_per_step", "slots"):
        value = getattr(environment, attribute, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{attribute}` of {name} must be an integer of at least 1, got {value!r}.")


def _check_observations(observations: Any, kind: Observations, name: str) -> None:
    shape, dtype = _layout(kind)
    there = getattr(observations, "shape", None), getattr(observations, "dtype", None)
    if there != (shape, dtype):
        raise ValueError(
            f"{name}: observations of one episode must be an array of {dtype} of shape {shape} by its "
            f"`spaces`, got {there[1]} of shape {there[0]}."
        )


def _layout(kind: Observations) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if isinstance(kind, Vector):
        return (kind.size, 1), np.dtype(np.float32)
    assert isinstance(kind, Image)
    return (1, kind.channels, kind.height, kind.width), np.dtype(np.uint8)
