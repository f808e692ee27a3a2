"""What methods that move a population have in common: where it starts, and how its rows are asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known

Matrix = np.ndarray[Any, Any]

CHECK_EVERY = 10  # steps between two looks at whether a population has shrunk to a point


@state
class Frame:
    """What a run was begun with and keeps.

    Attributes:
        key: Where all randomness comes from.
        like: Kind, dtype and device of the rows asked for.
        work: The same, with the dtype that arithmetic is done in.
        bounds: Box, or None.
        x0: Start, shape (dim,), in working precision, inside the box.
        scale: Shape (dim,), float64.
        budget: Evaluations there will be, or None.
    """

    key: Key
    like: Like
    work: Like
    bounds: Bounds | None
    x0: Array
    scale: Matrix
    budget: int | None

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.scale)


def begin(x0: Array, key: Key, bounds: Bounds | None, scale: Any, budget: int | None) -> Frame:
    """Return the frame of a run.

    Raises:
        ValueError: `x0` is no vector, or `scale` is not above 0.
    """
    like = Like.of(x0)
    work = Like(like.kind, like.working_dtype, like.device)
    start = work.asarray(x0) + 0
    if start.ndim != 1 or not len(start):
        raise ValueError(f"`x0` must have shape (dim,), got {tuple(start.shape)}.")
    spread = np.array(np.broadcast_to(np.asarray(to_numpy(scale), np.float64), (len(start),)))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        raise ValueError(f"`scale` must be finite and above 0 everywhere, got {scale!r}.")
    if bounds is not None:
        start = bounds.map(start, "clip")  # a short float may lie a rounding outside
    return Frame(key, like, work, bounds, start, spread, budget)


def scatter(frame: Frame, purpose: str, count: int) -> Array:
    """Return points to start from, shape (count, dim), in working precision.

    A coordinate is uniform where both of its walls are finite; else it is x0 + scale * normal, mirrored
    at the one wall it may have.
    """
    key, work = frame.key.fold(purpose), frame.work
    rows = work.asarray(frame.scale) * key.fold("normal").normal(0, count, frame.dim, like=work) + frame.x0
    if frame.bounds is None:
        return rows
    xp = array_module(rows)
    lower, upper = frame.bounds.sides(rows)
    boxed = xp.isfinite(lower) & xp.isfinite(upper)
    if boxed.any():
        shares = key.fold("uniform").uniform(0, count, frame.dim, like=work)
        low, high = xp.where(boxed, lower, 0), xp.where(boxed, upper, 0)
        rows = xp.where(boxed, (1 - shares) * low + shares * high, rows)
    return frame.bounds.map(rows)


def populate(frame: Frame, size: int, known: Known | None) -> tuple[Array, Matrix]:
    """Return the first population, shape (size, dim), and its values, infinite where there is none yet.

    In front are the best points that are known, in order, where they lie inside the box; then x0, unless
    it is one of them; then points of `scatter`.
    """
    rows = scatter(frame, "start", size)
    values, count = np.full(size, np.inf), 0
    if known is not None:
        points, order = frame.work.asarray(known.points), known.order
        if frame.bounds is not None:
            order = order[inside(frame.bounds, known.points[order])]
            points = frame.bounds.map(points, "clip")
        order = order[:size]
        count = len(order)
        rows[:count] = take(points, order)
        values[:count] = known.values[order]
    if count < size and not (count and bool((rows[:count] == frame.x0).all(1).any())):
        rows[count] = frame.x0
    return rows, values


def inside(bounds: Bounds | None, points: Matrix) -> Matrix:
    """Return which points lie in a box, shape (n,)."""
    if bounds is None:
        return np.ones(len(points), bool)
    outside: Matrix = np.maximum(bounds.lower - points, points - bounds.upper)
    return np.max(outside, axis=1) <= 0


def place(frame: Frame, rows: Array) -> Array:
    """Return points inside the box as the user's kind of array; shorter floats are clipped to its walls."""
    x = frame.like.asarray(rows)
    return x if frame.bounds is None or frame.work == frame.like else frame.bounds.map(x, "clip")


def beside(array: Array, plain: Matrix) -> Array:
    """Return a numpy array as it is used together with `array`: on its device, if that is torch's."""
    if isinstance(array, np.ndarray):
        return plain
    import torch

    return torch.from_numpy(plain).to(array.device)


def take(array: Array, rows: Matrix) -> Array:
    """Return some rows of an array, by a numpy array of their numbers; several times as fast as indexing."""
    if isinstance(array, np.ndarray):
        return array.take(rows, 0)
    return array.index_select(0, beside(array, rows))


def remaining(frame: Frame, nfev: int, wanted: int) -> int:
    """Return how many of the candidates wanted the budget has room for."""
    return wanted if frame.budget is None else max(0, min(wanted, frame.budget - nfev))


def check_told(evaluations: Evaluations, asked: int) -> Matrix:
    """Return the values told.

    Raises:
        ValueError: There are not as many as candidates.
    """
    if len(evaluations) != asked:
        raise ValueError(f"`evaluations` must hold the {asked} values asked for, got {len(evaluations)}.")
    return evaluations.values


def is_finite(rows: Array) -> bool:
    """Whether all numbers are finite, at the price of one sum; call it with floating-point errors off."""
    return math.isfinite(float(rows.sum())) or bool(array_module(rows).isfinite(rows).all())


def extent(rows: Array) -> Matrix:
    """Return the range of each coordinate over some points, shape (dim,), float64."""
    xp = array_module(rows)
    with np.errstate(over="ignore"):
        return np.asarray(to_numpy(xp.amax(rows, 0) - xp.amin(rows, 0)), np.float64)


def collapsed(frame: Frame, rows: Array, widest: Matrix, tolx: float) -> bool:
    """Whether no coordinate has more than `tolx` of its scale, or a few roundings, left to vary in."""
    if tolx == 0:
        return False
    size = np.abs(np.asarray(to_numpy(rows[0]), np.float64))
    return bool((widest <= np.maximum(tolx * frame.scale, 4 * frame.like.epsilon * size)).all())
