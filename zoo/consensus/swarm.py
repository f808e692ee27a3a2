"""Where swarms are: any number of them at once, as anchors in double precision and offsets from there.

Particle i of swarm m is at anchor_m + offset_mi. Multiplicative noise needs the relative precision of the
distance to the consensus point: a coordinate held in single precision as it is would be rounded onto the
consensus point as soon as the swarm is seven digits narrower than that is far from 0, and stay there for
ever, unless the point is 0 itself. So the anchor, which moves with the consensus point, is kept in float64,
and offsets may be float32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, make_dataclass
from typing import Any, TypeVar

import numpy as np

from zoo.consensus.host import cast
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Known
from zoo.methods.population import inside

Matrix = np.ndarray[Any, Any]
S = TypeVar("S")

STARTS = ("normal", "uniform")
_LARGEST_HALF = 65504.0

FEW = 4.0
"""Effective sample size below which a consensus point is the opinion of a few, and their order decides."""


@state
class Frame:
    """What swarms were begun with and keep.

    Attributes:
        keys: Of each swarm.
        like: Kind, dtype and device of the rows asked for.
        work: The same, with the dtype that offsets have.
        bounds: Box, or None.
        x0: Start, shape (dim,), float64, inside the box.
        scale: Shape (dim,), float64.
        budget: Evaluations there will be of each swarm, or None.
    """

    keys: tuple[Key, ...]
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

    @property
    def wide(self) -> Like:
        """What anchors are: of the same kind and device, in double precision."""
        return Like(self.like.kind, "float64", self.like.device)


@functools.cache
def _drafts(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], type[Any]]:
    """Return what reads all fields of a state class, and a class of its layout that can be written to.

    Frozen classes take thrice as long to be made.
    """
    names = [field.name for field in fields(kind)]
    plain: Any = make_dataclass(kind.__name__, names)
    body: dict[str, Any] = {"__init__": plain.__init__, "__setattr__": object.__setattr__}
    return operator.attrgetter(*names), type(
        kind.__name__, (kind,), {**body, "__slots__": (), "becomes": kind}
    )


def drafted(state: S) -> S:
    """Return a draft of a state: a copy that `changed` writes to, so that many changes copy a state once."""
    kind: Any = type(state)
    read, draft = _drafts(kind)
    made: S = draft(*read(state))
    return made


def completed(draft: S) -> S:
    """Return the state that a draft has become, which is written to no more."""
    kind: Any = type(draft)
    draft.__class__ = kind.becomes
    return draft


def changed(state: S, **changes: Any) -> S:
    """Return a state with some fields changed: `dataclasses.replace`, in a fourth of its time."""
    is_draft = hasattr(state, "becomes")
    made = state if is_draft else drafted(state)
    for name, value in changes.items():
        setattr(made, name, value)
    return made if is_draft else completed(made)


def select(state: S, swarms: Matrix) -> S:
    """Return the state of some of its swarms: of every array in it, those rows.

    Args:
        state: One that has a `frame`, and whose arrays, and those of states within it, have an entry for each
            swarm along their first axis.
        swarms: Which, shape (k,).
    """

    def chosen(value: Any) -> Any:
        if isinstance(value, Frame):
            return changed(value, keys=tuple(value.keys[swarm] for swarm in swarms.tolist()))
        if is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in fields(value)]
            return changed(value, **{name: chosen(getattr(value, name)) for name in names})
        if isinstance(value, np.ndarray):
            return value[swarms]
        if is_torch(value):
            return value[array_module(value).from_numpy(swarms).to(value.device)]
        return value

    selected: S = chosen(state)
    return selected


def begin(
    x0: Array,
    keys: Sequence[Key],
    bounds: Bounds | None,
    scale: Any,
    budget: int | None,
    precision: str = "double",
) -> Frame:
    """Return the frame of some swarms.

    Args:
        x0: Start, shape (dim,).
        keys: One for each swarm.
        bounds: Box, or None.
        scale: A number or shape (dim,).
        budget: Evaluations of each swarm, or None.
        precision: Of offsets, "single" or "double".

    Raises:
        ValueError: `x0` is no vector, or `scale` is not above 0.
    """
    like = Like.of(x0)
    dtype = "float32" if precision == "single" else "float64"
    wide = Like(like.kind, "float64", like.device)
    start = wide.asarray(x0) + 0
    if start.ndim != 1 or not len(start):
        raise ValueError(f"`x0` must have shape (dim,), got {tuple(start.shape)}.")
    spread = np.array(np.broadcast_to(np.asarray(to_numpy(scale), np.float64), (len(start),)))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        raise ValueError(f"`scale` must be finite and above 0 everywhere, got {scale!r}.")
    if bounds is not None:
        start = bounds.map(start, "clip")
    return Frame(tuple(keys), like, Like(like.kind, dtype, like.device), bounds, start, spread, budget)


def scatter(frame: Frame, count: int, start: str, known: Known | None = None) -> Array:
    """Return where particles begin, as offsets from x0, shape (m, count, dim).

    A coordinate is uniform between its walls where both are finite. Else it is x0 + scale * z, with z
    standard normal, or uniform in [-1, 1] with start "uniform", mirrored at the one wall it may have. The
    best points that are known come first, then x0 itself.
    """
    work, wide, dim = frame.work, frame.wide, frame.dim
    scale = wide.asarray(frame.scale)
    xp = array_module(scale)
    swarms = []
    for key in frame.keys:
        law = key.fold("start", start)
        if start == "normal":
            offsets = scale * law.normal(0, count, dim, like=wide)
        else:
            offsets = scale * (2 * law.uniform(0, count, dim, like=wide) - 1)
        if frame.bounds is not None:
            lower, upper = frame.bounds.sides(scale)
            boxed = xp.isfinite(lower) & xp.isfinite(upper)
            shares = key.fold("start", "box").uniform(0, count, dim, like=wide)
            low, high = xp.where(boxed, lower, 0), xp.where(boxed, upper, 0)
            offsets = xp.where(boxed, (1 - shares) * low + shares * high - frame.x0, offsets)
            offsets = frame.bounds.map(frame.x0 + offsets) - frame.x0
        fixed = 0
        if known is not None:
            order = known.order
            order = order[inside(frame.bounds, known.points[order])][:count]
            fixed = len(order)
            offsets[:fixed] = wide.asarray(known.points[order]) - frame.x0
        if fixed < count and not (fixed and bool((offsets[:fixed] == 0).all(1).any())):
            offsets[fixed] = 0
        swarms.append(work.asarray(offsets))
    return xp.stack(swarms)


class Particles(Candidates):
    """Particles of some swarms, swarm by swarm, made when their rows are wanted.

    Args:
        like: Kind, dtype and device of rows.
        bounds: Box that rows are clipped to, or None.
        anchor: Shape (m, dim), float64.
        offsets: Shape (m, n, dim).
        averaged: Effective sample sizes, shape (m,), where all values go into means; else None.
    """

    __slots__ = ("_is_near", "_near", "anchor", "averaged", "bounds", "like", "offsets")

    def __init__(
        self, like: Like, bounds: Bounds | None, anchor: Array, offsets: Array, averaged: Matrix | None = None
    ) -> None:
        self.like, self.bounds, self.anchor, self.offsets = like, bounds, anchor, offsets
        self.averaged = averaged
        self._is_near = like.dtype == "float32" and offsets.dtype.itemsize == 4
        self._near = cast(anchor, like) if self._is_near else anchor  # as `place` wants it

    @property
    def decisive(self) -> bool:
        return self.averaged is None or bool(self.averaged.min() < FEW)

    @property
    def dim(self) -> int:
        return int(self.offsets.shape[2])

    def __len__(self) -> int:
        return int(self.offsets.shape[0] * self.offsets.shape[1])

    def rows(self, start: int, stop: int) -> Array:
        count, parts = int(self.offsets.shape[1]), []
        points: Array
        if self._is_near and self.bounds is None:  # the usual cases in fewer calls
            if len(self.anchor) == 1:
                points = self.offsets[0, start:stop] + self._near
                return points
            if start < stop and start % count == stop % count == 0:
                these = slice(start // count, stop // count)
                points = self.offsets[these] + self._near[these, None]
                return points.reshape(-1, self.dim)
        while start < stop:
            swarm, first = divmod(start, count)
            whole = (stop - start) // count if first == 0 else 0
            if whole:  # swarms at a time
                these, last = slice(swarm, swarm + whole), count
            else:
                these, last = slice(swarm, swarm + 1), min(count, first + stop - start)
            placed = place(self.like, self.bounds, self._near[these, None], self.offsets[these, first:last])
            parts.append(placed.reshape(-1, self.dim))
            start += len(parts[-1])
        if not parts:
            return self.like.asarray(self.anchor[:0])
        return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)


def place(like: Like, bounds: Bounds | None, anchor: Array, offsets: Array) -> Array:
    """Return the points anchor + offsets as the user's kind of array, inside the box.

    Half precision ends at 65504, which widths of samples soon reach: there points are clipped.
    """
    if like.dtype == "float32" and offsets.dtype.itemsize == 4:
        x = offsets + like.asarray(anchor)
    else:
        x = anchor + offsets
        x = like.asarray(x.clip(-_LARGEST_HALF, _LARGEST_HALF) if like.dtype == "float16" else x)
    if bounds is not None:
        xp = array_module(x)
        lower, upper = bounds.sides(x)
        xp.maximum(x, lower, out=x)
        xp.minimum(x, upper, out=x)
    return x


@functools.lru_cache(maxsize=64)
def _common_scale(frame: Frame) -> float | None:
    """Return the scale of all coordinates, if it is the same."""
    return float(frame.scale[0]) if frame.scale.min() == frame.scale.max() else None


def limits(frame: Frame, anchor: Array, reach: float) -> tuple[Any, Any]:
    """Return the least and the largest offset that a particle may have from the anchors, shape (m, dim).

    They are inside the box, and at most `reach` in units of scale from the anchor.

    Returns:
        Shapes (m, 1, dim) or (1, 1, dim); numbers where all are the same.
    """
    scale = _common_scale(frame)
    if frame.bounds is None and scale is not None:
        return -reach * scale, reach * scale
    far = frame.wide.asarray(reach * frame.scale)
    if frame.bounds is None:
        return frame.work.asarray(-far)[None, None], frame.work.asarray(far)[None, None]
    xp = array_module(anchor)
    lower, upper = frame.bounds.sides(anchor)
    low, high = xp.maximum(lower - anchor, -far), xp.minimum(upper - anchor, far)
    return frame.work.asarray(low)[:, None], frame.work.asarray(high)[:, None]


def clip(offsets: Array, low: Any, high: Any) -> None:
    """Bring offsets between `limits`, in place; NaN stays."""
    if isinstance(offsets, np.ndarray):
        offsets.clip(low, high, out=offsets)
    else:
        offsets.clamp_(low, high)


def part(limit: Any, swarms: slice, columns: slice) -> Any:
    """Return one of `limits` for some swarms and coordinates."""
    if isinstance(limit, float):
        return limit
    return limit[swarms if len(limit) > 1 else slice(0, 1), :, columns]


def confine(frame: Frame, anchor: Array, offsets: Array) -> Array:
    """Return offsets of points inside the box, for those of any; shapes (m, dim) and (m, n, dim)."""
    if frame.bounds is None:
        return offsets
    xp = array_module(offsets)
    lower, upper = frame.bounds.sides(anchor)
    low, high = frame.work.asarray(lower - anchor)[:, None], frame.work.asarray(upper - anchor)[:, None]
    return xp.minimum(xp.maximum(offsets, low), high)


def spread_of(offsets: Array, centre: Array | None = None) -> Matrix:
    """Return the root mean square distance of a coordinate from the anchors, or from `centre`, shape (m,)."""
    away = offsets if centre is None else offsets - centre[:, None]
    with np.errstate(over="ignore"):
        return np.sqrt(np.asarray(to_numpy((away * away).mean((1, 2))), np.float64))
