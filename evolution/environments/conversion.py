"""From the spaces of Gymnasium to those here, and back: how observations are read and actions handed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evolution.environments.spaces import (
    Actions,
    Continuous,
    Discrete,
    Image,
    MultiBinary,
    MultiDiscrete,
    Observations,
    Vector,
)

Array = np.ndarray[Any, Any]
Encode = Callable[[Sequence[Any]], Array]
Decode = Callable[[Array], Sequence[Any]]

MOST_CATEGORIES = 4096
"""Of observations that are categories; more would make rows of zeros longer than any policy wants."""


class Mismatch(ValueError):
    """An observation is not of the space that it should be of."""


def observations_of(space: Any, name: str) -> tuple[Observations, Encode, Any]:
    """Return what observations of a space become, how, and one that is of it.

    Categories become one-hot rows, switches numbers, boxes of any shape rows of numbers, and pictures (boxes
    of uint8 with three axes, or two, or four for stacks of them) are turned so that channels come first.

    Args:
        space: Of Gymnasium.
        name: Of the environment, for errors.

    Returns:
        The kind; a function of k observations as the environment returns them, which raises `Mismatch` or
        another exception where they do not fit; and zeros, or the first category, as the environment would.

    Raises:
        ValueError: Policies are not served with such observations.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        shape, dtype = tuple(space.shape), space.dtype
        if math.prod(shape) == 0:
            raise ValueError(f"observations of {name} must have some numbers, got {space}.")
        if dtype == np.uint8 and len(shape) in (2, 3, 4):
            return _pictures(shape)
        return _numbers(shape, dtype)
    if isinstance(space, spaces.Discrete):
        kind, encode = _categories([int(space.n)], [int(space.start)], (), name)
        return kind, encode, np.int64(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        counts, starts = np.asarray(space.nvec), np.asarray(space.start)
        kind, encode = _categories(counts.ravel().tolist(), starts.ravel().tolist(), counts.shape, name)
        return kind, encode, starts.astype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return _numbers(tuple(space.shape), np.dtype(np.int8))
    advice = (
        "wrap it in gymnasium.wrappers.FlattenObservation, or in a wrapper of your own that returns one array"
        if isinstance(space, (spaces.Dict, spaces.Tuple))
        else "wrap it in a gymnasium.ObservationWrapper that returns one array"
    )
    raise ValueError(
        f"observations of {name} must be an array, a category, or several of them, got {_said(space)}: "
        f'{advice}, in a function that is then given as "module:function".'
    )


def actions_of(space: Any, name: str) -> tuple[Actions, Decode]:
    """Return what actions of a space come from, and how.

    Args:
        space: Of Gymnasium.
        name: Of the environment, for errors.

    Returns:
        The kind, and a function that returns k actions as the environment takes them.

    Raises:
        ValueError: Policies have no such actions.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        if start:
            return Discrete(int(space.n)), lambda actions: list(actions + start)
        return Discrete(int(space.n)), list
    if isinstance(space, spaces.MultiDiscrete):
        counts, starts = np.asarray(space.nvec), np.asarray(space.start, np.int64)
        return MultiDiscrete(tuple(counts.ravel().tolist())), lambda actions: list(
            actions.T.reshape(-1, *counts.shape) + starts
        )
    if isinstance(space, spaces.MultiBinary):
        shape = tuple(space.shape)
        return MultiBinary(math.prod(shape)), lambda actions: list(
            actions.T.astype(np.int8).reshape(-1, *shape)
        )
    if isinstance(space, spaces.Box) and space.low.size:
        kind = Continuous(tuple(space.low.ravel().tolist()), tuple(space.high.ravel().tolist()))
        return kind, _between_walls(tuple(space.shape), space.dtype)
    raise ValueError(
        f"actions of {name} must be Discrete, MultiDiscrete, MultiBinary or a Box, got {_said(space)}: wrap "
        "it in a gymnasium.ActionWrapper that takes one of these, in a function that is then given as "
        '"module:function".'
    )


def _between_walls(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Decode:
    is_whole = dtype.kind in "iu"

    def decode(actions: Array) -> list[Any]:
        # A copy in any case, which the environment may keep, or write to.
        rows = np.rint(actions.T).astype(dtype) if is_whole else np.array(actions.T, dtype, order="C")
        return list(rows.reshape(-1, *shape) if len(shape) != 1 else rows)

    return decode


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Observations, Encode, Any]:
    size, is_row = math.prod(shape), len(shape) == 1
    isfinite, contiguous = np.isfinite, np.ascontiguousarray  # this is called for every step

    def encode(found: Sequence[Any]) -> Array:
        rows = np.array(found, np.float32)
        if rows.shape[1:] != shape:
            raise Mismatch(f"has shape {rows.shape[1:]}, and the space says {shape}")
        if not is_row:
            rows = rows.reshape(-1, size)
        if not isfinite(rows).all():
            _, place = np.argwhere(~isfinite(rows))[0].tolist()
            raise Mismatch(f"is {rows[~isfinite(rows)][0]} at {place}")
        return contiguous(rows.T)

    return Vector(size), encode, np.zeros(shape, dtype)


def _pictures(shape: tuple[int, ...]) -> tuple[Observations, Encode, Any]:
    """Return those of shape (height, width), (height, width, channels), the other way, or stacks of them."""
    if len(shape) == 2:
        axes: tuple[int, ...] = (0, 1)
    elif shape[-1] > shape[-3]:
        axes = tuple(range(len(shape)))
    else:
        axes = (*range(len(shape) - 3), len(shape) - 1, len(shape) - 3, len(shape) - 2)
    *channels, height, width = (shape[axis] for axis in axes)
    kind = Image(math.prod(channels), height, width)

    def encode(found: Sequence[Any]) -> Array:
        rows = np.empty((len(found), *(shape[axis] for axis in axes)), np.uint8)
        for row, picture in zip(rows, found, strict=True):
            if getattr(picture, "shape", None) != shape:
                raise Mismatch(f"has shape {np.shape(picture)}, and the space says {shape}")
            if picture.dtype != np.uint8:
                raise Mismatch(f"is an array of {picture.dtype}, and the space says uint8")
            row[...] = picture.transpose(axes)
        return rows.reshape(-1, kind.channels, height, width)

    return kind, encode, np.zeros(shape, np.uint8)


def _categories(
    counts: list[int], starts: list[int], shape: tuple[int, ...], name: str
) -> tuple[Observations, Encode]:
    """Return one-hot rows, one after the other for several of them."""
    total = sum(counts)
    if total > MOST_CATEGORIES:
        raise ValueError(
            f"observations of {name} have {total} categories, and at most {MOST_CATEGORIES} are made rows of "
            "zeros and ones: wrap it in a gymnasium.ObservationWrapper that returns a few numbers."
        )
    first = np.array(starts)
    offset = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    limit = np.array(counts)

    def encode(found: Sequence[Any]) -> Array:
        rows = np.array(found)
        if rows.shape[1:] != shape:
            raise Mismatch(f"has shape {rows.shape[1:]}, and the space says {shape}")
        if rows.dtype.kind not in "iub":
            raise Mismatch(f"is an array of {rows.dtype}, and the space says integers")
        places = rows.reshape(len(rows), -1) - first
        if (places < 0).any() or (places >= limit).any():
            wrong = int(np.argmax(((places < 0) | (places >= limit)).any(0)))
            raise Mismatch(
                f"has a category beyond {starts[wrong]} to {starts[wrong] + counts[wrong] - 1}, "
                "those that the space says"
            )
        hot = np.zeros((total, len(rows)), np.float32)
        hot[(places + offset).T, np.arange(len(rows))] = 1.0
        return hot

    return Vector(total), encode


def _said(space: Any) -> str:
    """Return a space in a line of readable length; `Dict` lists all of its own."""
    text = str(space)
    return f"{type(space).__name__}: {text[:150]}{'...' if len(text) > 150 else ''}"
