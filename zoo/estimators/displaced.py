"""The candidates of a finite difference: a base, and points displaced from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.types import Candidates
from zoo.estimators.directions import Directions, Draw


class Displaced(Candidates):
    """A base and points displaced from it, described by a key.

    Rows: the base, where it is wanted; then x + h u_i in turn (forward), or x + h u_i and x - h u_i in turn
    (central). With a `mirror` the row x - h u_1 comes right after a forward stencil's base.

    With bounds, a displacement of the forward stencil that leaves the box is turned round, coordinate by
    coordinate; where it leaves the box on both sides it ends at the wall that is farther away. Pairs of the
    central stencil move inside together: their middle shifts, their distance stays, unless the box is
    narrower than that. (Mirroring each at the wall would let two partners meet there.)
    """

    __slots__ = (
        "_cache",
        "base",
        "bounds",
        "directions",
        "draw",
        "held",
        "lead",
        "memory",
        "mirror",
        "rows_like",
        "smoothing",
        "stencil",
        "stretch",
    )

    def __init__(
        self,
        base: Array,
        draw: Draw,
        directions: Directions,
        memory: Any,
        smoothing: float,
        stencil: str,
        *,
        rows_like: Like,
        lead: bool,
        mirror: bool,
        bounds: Bounds | None,
        stretch: Array | None,
        held: Array | None,
    ) -> None:
        self.base, self.draw, self.directions, self.memory = base, draw, directions, memory
        self.smoothing, self.stencil, self.rows_like = smoothing, stencil, rows_like
        self.lead, self.mirror, self.bounds = lead, mirror, bounds
        self.stretch, self.held = stretch, held
        self._cache: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "_cache"}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._cache = None

    @property
    def decisive(self) -> bool:
        return False

    @property
    def dim(self) -> int:
        return self.draw.dim

    @property
    def first(self) -> int:
        """Rows in front of those of the directions."""
        return int(self.lead) + int(self.mirror)

    @property
    def plan(self) -> Any:
        """What all directions have in common."""
        if self._cache is None:
            self._cache = (self.directions.plan(self.draw, self.memory),)
        return self._cache[0]

    def __len__(self) -> int:
        return self.first + self.draw.count * (2 if self.stencil == "central" else 1)

    def rows(self, start: int, stop: int) -> Array:
        like = self.draw.like
        out = like.asarray(np.empty((stop - start, self.dim), like.dtype))
        per = 2 if self.stencil == "central" else 1
        for row in range(start, min(stop, self.first)):
            out[row - start] = self.base if row == 0 and self.lead else self.mirrored()
        first, last = max(start, self.first) - self.first, stop - self.first
        if last > first:
            directions = self.along(first // per, -(-last // per))
            if per == 1:
                part = self.ahead(directions)
            else:
                pair = self.pairs(directions)
                part = array_module(self.base).stack(pair, 1).reshape(-1, self.dim)
            skip = first - first // per * per
            out[max(start, self.first) - start :] = part[skip : skip + last - first]
        return cast(out, self.rows_like, self.bounds)

    def along(self, start: int, stop: int) -> Array:
        """Return directions `start` to `stop`, not to be written to."""
        directions = self.directions.draw(self.draw, start, stop, self.memory, self.plan)
        return directions if self.held is None else array_module(directions).where(self.held, 0, directions)

    def ahead(self, directions: Array) -> Array:
        """Return x + h u for every direction u."""
        step = self._step(directions)
        if self.bounds is None:
            return self.base + step
        return self._turned(step)

    def pairs(self, directions: Array) -> tuple[Array, Array]:
        """Return x + h u and x - h u for every direction u."""
        step = self._step(directions)
        if self.bounds is None:
            return self.base + step, self.base - step
        xp = array_module(step)
        lower, upper = self.bounds.sides(self.base)
        half = xp.minimum(xp.abs(step), upper / 2 - lower / 2)
        middle = xp.minimum(xp.maximum(self.base, lower + half), upper - half)
        step = xp.sign(step) * half
        return self.bounds.map(middle + step, "clip"), self.bounds.map(middle - step, "clip")

    def mirrored(self) -> Array:
        """Return the mirror image of the first displaced row at the base, or the nearest point inside."""
        ahead = self.rounded(self.ahead(self.along(0, 1)))[0]
        back = 2 * self.base - ahead
        return back if self.bounds is None else self.bounds.map(back, "clip")

    def rounded(self, rows: Array) -> Array:
        """Return rows as whoever evaluates them sees them, in working precision."""
        return self.draw.like.asarray(cast(rows, self.rows_like, self.bounds))

    def _step(self, directions: Array) -> Array:
        return self.smoothing * (directions if self.stretch is None else directions * self.stretch)

    def _turned(self, step: Array) -> Array:
        assert self.bounds is not None
        xp = array_module(step)
        lower, upper = self.bounds.sides(self.base)
        ahead, back = self.base + step, self.base - step
        out = xp.where((ahead >= lower) & (ahead <= upper), ahead, back)
        farther = xp.where(upper - self.base > self.base - lower, upper, lower)
        out = xp.where((out >= lower) & (out <= upper), out, farther)
        return self.bounds.map(xp.where(step == 0, self.base, out), "clip")


def cast(rows: Array, like: Like, bounds: Bounds | None) -> Array:
    """Return rows as they are evaluated: of the dtype wanted, and inside the bounds all the same."""
    if Like.of(rows) == like:
        return rows
    rows = like.asarray(rows)
    return rows if bounds is None else bounds.map(rows, "clip")
