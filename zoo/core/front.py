"""Several objectives: functions that return a row of numbers, and which points are not dominated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch, to_numpy
from zoo.core.fingerprint import describe
from zoo.core.objective import Objective, as_number
from zoo.core.rng import Key, keyed_generators
from zoo.core.space import Space
from zoo.core.types import Evaluations

Matrix = np.ndarray[Any, Any]

_CHUNK = 2**22  # comparisons held at once


class SeveralObjectives(Objective):
    """A function with several objectives, all to be minimised.

    The value of a point, which a search reports and stops by, is the mean of its objectives; methods for
    several objectives go by the row itself, which is the extra "objectives".

    Args:
        fun: Called as `fun(x, *args)`. Returns a row of k numbers; with `vectorized`, shape (n, k) for x of
            shape (n, dim). One number is a row of one.
        args: Further arguments.
        vectorized: Whether the function takes many points at once.
        noisy: Whether to run it under forked global generators keyed by the place in the run.
        space: What rows stand for, or None; as for functions with one objective.

    Example:
        >>> both = SeveralObjectives(lambda x: (x[0] ** 2, (x[0] - 2) ** 2))
        >>> done = both(np.array([[0.0], [1.0]]), key=Key(0))
        >>> done.values.tolist(), done.extras["objectives"].tolist()
        ([2.0, 1.0], [[0.0, 4.0], [1.0, 1.0]])
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...] = (),
        vectorized: bool = False,
        noisy: bool = False,
        space: Space | None = None,
    ) -> None:
        self.fun, self.args, self.vectorized, self.noisy, self.space = fun, args, vectorized, noisy, space
        self.unit = None if vectorized else 1

    def __call__(self, x: Array, *, key: Key) -> Evaluations:
        with keyed_generators(key) if self.noisy else contextlib.nullcontext():
            if self.vectorized:
                points = x if self.space is None else self.space.columns(x)
                rows = _rows(self.fun(points, *self.args), len(x))
            else:
                points = x if self.space is None else self.space.points(x)
                several = [_row(self.fun(point, *self.args)) for point in points]
                if len({len(row) for row in several}) > 1:
                    raise ValueError(
                        "the objective must return as many numbers for one point as for another, got "
                        f"{sorted({len(row) for row in several})}."
                    )
                rows = np.array(several)
        failed: Any = ~np.isfinite(rows).all(1)
        values = np.where(failed, np.nan, np.where(failed[:, None], 0.0, rows).mean(1))
        return Evaluations(values, extras={"objectives": np.where(failed[:, None], np.nan, rows)})

    def identity(self) -> dict[str, Any]:
        return describe(self.fun, self.args)


def dominates(one: Matrix, other: Matrix) -> Matrix:
    """Return which rows of `one` dominate which of `other`: nowhere larger, and somewhere smaller.

    Args:
        one: Shape (n, k).
        other: Shape (m, k).

    Returns:
        Shape (n, m).

    Example:
        >>> dominates(np.array([[1.0, 1.0]]), np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 1.0]])).tolist()
        [[True, False, False]]
    """
    larger: Matrix = np.zeros((len(one), len(other)), bool)
    smaller: Matrix = np.zeros_like(larger)
    for mine, theirs in zip(one.T, other.T, strict=True):
        larger |= mine[:, None] > theirs
        smaller |= mine[:, None] < theirs
    return ~larger & smaller


def extended(front: tuple[Any, Matrix] | None, points: Array, objectives: Matrix) -> tuple[Any, Matrix]:
    """Return the points that no other one dominates, of a front and of new points; the first one of equals.

    Args:
        front: Points, shape (n, dim), and their objectives, shape (n, k); or None for none.
        points: Shape (m, dim).
        objectives: Shape (m, k), finite.
    """
    fresh = np.sort(np.unique(objectives, axis=0, return_index=True)[1])
    fresh = fresh[~_dominated(objectives[fresh], objectives[fresh])]
    if front is None:
        return chosen(points, fresh), objectives[fresh]
    known, before = front
    equal = (objectives[fresh][:, None] == before).all(2).any(1)
    fresh = fresh[~equal]
    fresh = fresh[~_dominated(objectives[fresh], before)]
    if not len(fresh):
        return front
    kept = np.flatnonzero(~_dominated(before, objectives[fresh]))
    joined = np.concatenate([before[kept], objectives[fresh]])
    return _joined(chosen(known, kept), chosen(points, fresh)), joined


def _dominated(rows: Matrix, by: Matrix) -> Matrix:
    """Return which rows are dominated by some other ones."""
    height = max(1, _CHUNK // max(1, len(by)))
    parts = [dominates(by, rows[i : i + height]).any(0) for i in range(0, len(rows), height)]
    return np.concatenate([np.zeros(0, bool), *parts])


def _row(value: Any) -> Matrix:
    """Return what a function of one point returned, as a row."""
    if value is None or isinstance(value, (str, bytes)):
        as_number(value)
    if is_torch(value) or isinstance(value, np.ndarray):
        return _rows(to_numpy(value)[None], 1)[0]
    row = [as_number(v) for v in value] if np.iterable(value) else [as_number(value)]
    return _rows(np.array([row]), 1)[0]


def _rows(value: Any, n: int) -> Matrix:
    """Return what a function of n points returned, as rows."""
    if value is None:
        as_number(value)
    array = np.asarray(to_numpy(value))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"the objective must return real numbers, got an array of {array.dtype}.")
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != n or not array.shape[1]:
        raise TypeError(
            f"the objective must return a row of numbers for each of {n} points, got shape {array.shape}."
        )
    return array.astype(np.float64)


def chosen(points: Array, rows: Matrix) -> Array:
    """Return some rows of an array."""
    if not is_torch(points):
        return points[rows]
    import torch

    return points[torch.from_numpy(rows).to(points.device)]


def _joined(one: Array, other: Array) -> Array:
    if not is_torch(one):
        return np.concatenate([one, other])
    import torch

    return torch.cat([one, other])
