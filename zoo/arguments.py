"""What users may write for an argument of `zoo.minimize`, and what it means.

Each function returns the one form that the rest of the library knows, or raises `TypeError` or `ValueError`
with the argument's name, the rule and the value.
"""

from __future__ import annotations

import numbers
import os
import secrets
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, is_torch, to_numpy
from zoo.core.rng import Key
from zoo.core.space import Space
from zoo.core.types import Known
from zoo.core.validation import check_count, check_number
from zoo.execution.executor import Executor, Mapped, Serial
from zoo.registry import find


def as_method(name: Any, options: Any, space: Space | None = None) -> str:
    """Return the name of a method that can be built with these options, and is meant for such a space."""
    if not isinstance(name, str):
        raise TypeError(f"`method` must be the name of a method, got {name!r}.")
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"`options` must be a dictionary, got {options!r}.")
    method = find(name, mixed=space is not None and space.grid is not None)
    method.build(options)
    return method.name


def as_region(
    x0: Any, bounds: Any, scale: Any, known: Any = None, space: Space | None = None
) -> dict[str, Any]:
    """Return start, bounds, scale and known points of a search, as they fit together."""
    if space is not None:
        for name, value in (("bounds", bounds), ("scale", scale)):
            if value is not None:
                raise ValueError(
                    f"`{name}` cannot be given along with `space`, which says it, got {value!r}."
                )
        x0, known = None if x0 is None else _encoded("x0", x0, space), _rows_of(known, space)
        bounds, scale = space.bounds, space.scale
    given = None if x0 is None else as_start(x0)
    box = as_bounds(bounds, None if given is None else len(given))
    told, first = as_known(known)
    if given is None and told is not None:
        given = as_start(_like_known(known, told.best))
    if given is None and first is not None:
        given = as_start(_like_known(known, first[0]))  # until the first step shows which is the best
    if given is None and space is not None:
        given = space.x0
    if given is None:
        if box is None or not box.finite or not box.dim:
            raise ValueError(
                "`x0` must be given, or `bounds` be finite on all sides: there is nowhere to start."
            )
        given = box.lower / 2 + box.upper / 2
    if box is not None:
        if box.dim != len(given):
            raise ValueError(
                f"`bounds` must have one pair for each of the {len(given)} variables of `x0`, got {box.dim}."
            )
        inside = box.map(given, "clip")
        # A wall that `x0`'s dtype cannot hold is a rounding away from it.
        if not np.allclose(to_numpy(inside), to_numpy(given), rtol=Like.of(given).epsilon, atol=0):
            i = int(np.argmax(np.abs(to_numpy(inside) - to_numpy(given))))
            raise ValueError(
                f"`x0` must lie inside `bounds`, got x0[{i}] = {float(given[i])!r} and bounds[{i}] = "
                f"({float(box.lower[i])!r}, {float(box.upper[i])!r})."
            )
        given = inside
    for points in (None if told is None else told.points, first):
        if points is None:
            continue
        if points.shape[1] != len(given):
            raise ValueError(f"`known` must hold points of {len(given)} variables, got {points.shape[1]}.")
        if box is not None and not np.allclose(box.map(points, "clip"), points, atol=0):
            raise ValueError("`known` must hold points inside `bounds`.")
    return {
        "start": given,
        "bounds": box,
        "scale": as_scale(scale, len(given), box),
        "known": told,
        "first": first,
        "from_best": x0 is None,
    }


def as_space(space: Any) -> Space | None:
    """Return a space, or None where there is none."""
    if space is not None and not isinstance(space, Space):
        raise TypeError(f"`space` must be a zoo.Space, got {space!r}: give it zoo.Space(...) of that.")
    return space


def _encoded(name: str, point: Any, space: Space) -> np.ndarray[Any, Any]:
    try:
        return space.encode(point)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`{name}` must be a point of `space`: {error}") from None


def _rows_of(known: Any, space: Space) -> Any:
    """Return known points of a space as rows, in the form that `as_known` takes."""
    if known is None or isinstance(known, Known):
        return known
    try:
        points, values = known
        points = list(points)
    except (TypeError, ValueError):
        raise ValueError(
            "`known` must be (points, values): a list of points of `space`, and for each a number or None "
            f"where it is to be evaluated first, got {known!r}."
        ) from None
    return np.array([_encoded("known", point, space) for point in points]), values


def as_known(known: Any) -> tuple[Known | None, np.ndarray[Any, Any] | None]:
    """Return the points that were evaluated, NaN being failed, and those to be evaluated first.

    Where all that were evaluated failed, and others are still to be, the former say nothing.
    """
    if known is None:
        return None, None
    if isinstance(known, Known):
        return known, None
    try:
        points, values = known
        points = np.array(to_numpy(points), np.float64)
        count = len(points) if points.ndim == 2 else -1
        values = [None] * count if values is None else list(values)
        new = np.array([v is None for v in values], bool)
        values = np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        count = -1
    if count < 1 or len(values) != count:
        raise ValueError(
            "`known` must be (points, values): points of shape (n, dim), and for each a number or None where "
            f"it is to be evaluated first, got {known!r}."
        )
    if not np.isfinite(points).all():
        raise ValueError("`known` must hold finite points.")
    is_told = np.isfinite(values).any() or not new.any()
    return Known(points[~new], values[~new]) if is_told else None, points[new] if new.any() else None


def _like_known(known: Any, point: np.ndarray[Any, Any]) -> Array:
    """Return a point of `known` in the kind of array that its points are given in."""
    points = known[0] if isinstance(known, (list, tuple)) else None
    if isinstance(points, (list, tuple)):
        points = points[0]
    if is_torch(points) or (isinstance(points, np.ndarray) and points.dtype.kind == "f"):
        return Like.of(points).asarray(point)
    return point


def as_target(target: Any) -> float:
    """Return a target as a finite number."""
    number = check_number("target", target)
    if not np.isfinite(number):
        raise ValueError(f"`target` must be finite, got {target!r}.")
    return number


def as_start(x0: Any) -> Array:
    """Return a start as a row of floating-point numbers, of its own kind."""
    if is_torch(x0):
        if not x0.is_floating_point():
            raise TypeError(f"`x0` must be of a floating-point dtype, got {x0.dtype}.")
        start = x0.detach().clone()
    else:
        try:
            array = np.atleast_1d(np.asarray(x0))
        except ValueError:
            raise ValueError(f"`x0` must be one row of numbers, got {x0!r}.") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(f"`x0` must hold real numbers, got an array of {array.dtype}.")
        start = array.astype(array.dtype if array.dtype.kind == "f" else np.float64)
    if start.ndim != 1 or not len(start):
        raise ValueError(
            f"`x0` must have shape (dim,) with dim of at least 1, got shape {tuple(start.shape)}."
        )
    if not np.isfinite(to_numpy(start)).all():
        index = int(np.flatnonzero(~np.isfinite(to_numpy(start)))[0])
        raise ValueError(f"`x0` must be finite, got x0[{index}] = {float(start[index])}.")
    return start


def as_bounds(bounds: Any, dim: int | None) -> Bounds | None:
    """Return bounds in any of their forms as `Bounds`."""
    if bounds is None or isinstance(bounds, Bounds):
        return bounds
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):  # scipy's, where one number may stand for all
        lower, upper = np.broadcast_arrays(np.atleast_1d(bounds.lb), np.atleast_1d(bounds.ub))
        if dim is not None and lower.shape == (1,):
            lower, upper = np.repeat(lower, dim), np.repeat(upper, dim)
        return Bounds(lower, upper)
    try:
        pairs = [(lower, upper) for lower, upper in bounds]
    except (TypeError, ValueError):
        raise ValueError(
            f"`bounds` must be a sequence of (lower, upper) pairs, one for each variable, got {bounds!r}."
        ) from None
    for side in (side for pair in pairs for side in pair if side is not None):
        if not isinstance(side, numbers.Real) and np.ndim(side) == 0 and not isinstance(side, np.ndarray):
            raise TypeError(f"`bounds` must hold real numbers and None, got {side!r}.")
    lower = np.array([-np.inf if pair[0] is None else pair[0] for pair in pairs], np.float64)
    upper = np.array([np.inf if pair[1] is None else pair[1] for pair in pairs], np.float64)
    return Bounds(lower, upper)


def as_scale(scale: Any, dim: int, box: Bounds | None) -> np.ndarray[Any, Any]:
    """Return a scale for each coordinate, by default that of the bounds."""
    if scale is not None:
        array = to_numpy(scale)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"`scale` must be a number or one for each variable, got {scale!r}.")
        given = np.asarray(array, np.float64)
        if given.shape not in ((), (1,), (dim,)):
            raise ValueError(f"`scale` must be a number or have shape ({dim},), got shape {given.shape}.")
        if not (np.isfinite(given).all() and (given > 0).all()):
            raise ValueError(f"`scale` must be finite and above 0, got {scale!r}.")
        return np.broadcast_to(given, (dim,)).copy()
    if box is None:
        return np.ones(dim)
    width = 0.3 * box.upper - 0.3 * box.lower
    # A variable that its bounds fix keeps a scale, which nothing depends on.
    return np.where(np.isfinite(width) & (width > 0), width, 1.0)


def as_key(rng: Any) -> Key:
    """Return the key that a seed, a generator or nothing stands for."""
    if isinstance(rng, Key):
        return rng
    if rng is None:
        return Key(secrets.randbits(64))
    if isinstance(rng, np.random.Generator):
        return Key(int(rng.integers(2**63)))
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"`rng` must be at least 0, got {rng!r}.")
        return Key(int(rng))
    raise TypeError(f"`rng` must be an integer, a numpy Generator, a Key or None, got {rng!r}.")


def as_executor(workers: Any) -> Executor:
    """Return the executor that a number of workers, a map or an executor stands for."""
    if isinstance(workers, Executor):
        return workers
    if isinstance(workers, type) and issubclass(workers, Executor):
        raise TypeError(
            f"`workers` must be an executor, and {workers!r} is a class: call it, as in "
            f"{workers.__name__}(...)."
        )
    if callable(workers):
        return Mapped(workers)
    if isinstance(workers, bool) or not isinstance(workers, numbers.Integral):
        raise TypeError(
            "`workers` must be an integer, an executor such as zoo.Processes(2) or zoo.Ray(8), or a map-like "
            f"callable, got {workers!r}."
        )
    if workers == -1:
        workers = os.cpu_count() or 1
    number = check_count("workers", workers)
    if number == 1:
        return Serial()
    from zoo.execution.processes import Processes

    return Processes(number)
