"""A box, and the three ways to stay inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.device import Array, Like, array_module, is_torch
from zoo.core.grid import Grid
from zoo.core.validation import check_choice

MODES = ("reflect", "clip", "smooth")


@dataclass(frozen=True, eq=False)
class Bounds:
    """A box lower <= x <= upper, with infinite entries where there is no limit.

    `map` takes any point of the whole space to one inside, in one of three ways:

    * "reflect": mirrored at the walls as often as it takes; the identity inside.
    * "clip": the nearest point inside.
    * "smooth": mirrored as well, but rounded off by a parabola within a margin of each wall, so that
      the map is differentiable and a distribution near a wall is not folded onto itself. A wall's
      margin a reaches a outside it too: u = wall - a arrives at the wall, u = wall + a stays where it
      is, and x = wall + (u - wall + a)^2 / (4 a) in between. The margin is a twentieth of the width, or
      of 1 + |wall| where the other wall is infinite.

    Points of another dtype than float64 meet walls rounded to that dtype towards the inside, or to the
    nearest number where none lies between the two.

    Args:
        lower: Shape (dim,), float64.
        upper: Shape (dim,), float64.
        grid: Which coordinates are discrete, if any is; the box is then [0, 1]^dim. Points need not lie on
            it: a method may look at it so as not to take steps in which nothing changes.

    Raises:
        ValueError: A bound is NaN, lower > upper somewhere, shapes differ, or a box with a grid is another.

    Example:
        >>> box = Bounds(np.zeros(2), np.ones(2))
        >>> box.map(np.array([-0.25, 3.5]), "reflect").tolist()
        [0.25, 0.5]
        >>> box.map(np.array([-0.25, 3.5]), "clip").tolist()
        [0.0, 1.0]
    """

    lower: np.ndarray[Any, Any]
    upper: np.ndarray[Any, Any]
    grid: Grid | None = None
    _known: dict[tuple[Any, ...], _Walls] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        lower, upper = np.array(self.lower, np.float64), np.array(self.upper, np.float64)
        if lower.shape != upper.shape or lower.ndim != 1:
            raise ValueError(
                f"`bounds` must be two rows of equal length, got shapes {lower.shape} and {upper.shape}."
            )
        for name, side in (("lower", lower), ("upper", upper)):
            if np.isnan(side).any():
                raise ValueError(
                    f"`bounds` must not hold NaN, got {name}[{int(np.isnan(side).argmax())}] = nan."
                )
        wrong = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(
                f"`bounds` must have lower <= upper, got lower[{index}] = {lower[index]} "
                f"and upper[{index}] = {upper[index]}."
            )
        if self.grid is not None:
            if self.grid.dim != len(lower):
                raise ValueError(f"`grid` must have {len(lower)} coordinates, got {self.grid.dim}.")
            if lower.any() or (upper != 1).any():
                raise ValueError("`bounds` must be 0 and 1 everywhere where there is a `grid`.")
        lower.flags.writeable = upper.flags.writeable = False
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def __reduce__(self) -> tuple[Any, ...]:
        return Bounds, (np.array(self.lower), np.array(self.upper), self.grid)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    @property
    def finite(self) -> bool:
        """Whether every side is finite."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def sides(self, x: Array) -> tuple[Array, Array]:
        """Return lower and upper walls as arrays like `x`, rounded towards the inside."""
        walls = self._walls("clip", x)
        return walls.lower, walls.upper

    def contains(self, x: Array) -> bool:
        """Whether every coordinate of every row of `x` is inside."""
        lower, upper = self.sides(x)
        return bool(((x >= lower) & (x <= upper)).all())

    def map(self, x: Array, mode: str = "reflect") -> Array:
        """Take finite points, shape (..., dim), into the box; see the class for the modes.

        Returns:
            A new array, of the kind, dtype and device of `x`.
        """
        check_choice("mode", mode, MODES)
        walls = self._walls(mode, x)
        if mode == "clip":
            inside: Array = walls.clip(x)
            return inside
        # Numbers next to the largest there are may overflow on the way; the clip afterwards mends them.
        with np.errstate(over="ignore"):
            inside = walls.reflect(x) if mode == "reflect" else walls.round_off(walls.reflect(x))
        # Rounding may have left a point a bit outside.
        inside = self._walls("clip", x).clip(inside)
        return inside

    def inverse(self, x: Array, mode: str = "reflect") -> Array:
        """Return a point that `map` takes to `x`, which must lie inside; exact but for rounding."""
        check_choice("mode", mode, MODES)
        if mode != "smooth":
            return x.clone() if is_torch(x) else x.copy()
        sharp: Array = self._walls(mode, x).sharpen(x)
        return sharp

    def _walls(self, mode: str, x: Array) -> _Walls:
        kind = (mode, x.dtype, x.device if is_torch(x) else None)
        walls = self._known.get(kind)
        if walls is None:
            walls = self._known[kind] = _Walls(self.lower, self.upper, mode == "smooth", Like.of(x))
        return walls


class _Walls:
    """Everything about a box that does not depend on the point, in the kind of array it is used with.

    With margins, points are mirrored at `low` and `high`, outside the box, and then rounded off.
    """

    def __init__(self, lower: Any, upper: Any, with_margins: bool, like: Like) -> None:
        self.lower, self.upper = self.low, self.high = _rounded_inside(lower, upper, like)
        if with_margins:
            self.below, self.low = _with_margin(self.lower, self.upper, -1)
            self.above, self.high = _with_margin(self.upper, self.lower, 1)
        xp = array_module(self.low)
        # Where a wall is infinite nothing is ever beyond it, and any number may stand in for it.
        self.low_mirror = xp.where(xp.isfinite(self.low), self.low, 0)
        self.high_mirror = xp.where(xp.isfinite(self.high), self.high, 0)
        with np.errstate(over="ignore"):
            period = 2 * (self.high - self.low)
        # Coordinates without a second wall, or without any room, take one mirror; so do those whose
        # width is too large for a number.
        self.waves = xp.isfinite(period) & (period > 0)
        self.any_waves = bool(self.waves.any())
        self.period = xp.where(self.waves, period, 1)
        self.start = xp.where(self.waves, self.low_mirror, 0)
        if with_margins:
            self.low_end, self.high_start = self.lower + self.below, self.upper - self.above
            # A wall without a margin has no parabola either: any divisor will do.
            self.low_scale = xp.where(self.below > 0, 4 * self.below, 1)
            self.high_scale = xp.where(self.above > 0, 4 * self.above, 1)

    def clip(self, x: Any) -> Any:
        xp = array_module(x)
        return xp.minimum(xp.maximum(x, self.lower), self.upper)

    def reflect(self, x: Any) -> Any:
        xp = array_module(x)
        inside = (x >= self.low) & (x <= self.high)
        if inside.all():
            return x
        single = xp.where(x < self.low, self.low_mirror + (self.low_mirror - x), x)
        folded = xp.where(x > self.high, self.high_mirror + (self.high_mirror - x), single)
        if self.any_waves:
            offset = xp.remainder(x - self.start, self.period)
            folded = xp.where(self.waves, self.start + xp.minimum(offset, self.period - offset), folded)
        return xp.where(inside, x, folded)

    def round_off(self, u: Any) -> Any:
        xp = array_module(u)
        near_low, near_high = u < self.low_end, u > self.high_start
        # The distance is cut to 0 where the parabola is not used, as its square might overflow there.
        from_low = xp.where(near_low, u - self.low_mirror, 0)
        from_high = xp.where(near_high, self.high_mirror - u, 0)
        out = xp.where(near_low, self.lower + from_low * (from_low / self.low_scale), u)
        return xp.where(near_high, self.upper - from_high * (from_high / self.high_scale), out)

    def sharpen(self, x: Any) -> Any:
        xp = array_module(x)
        near_low, near_high = x < self.low_end, x > self.high_start
        from_low = xp.sqrt(self.below) * xp.sqrt(xp.where(near_low, x - self.lower, 0))
        from_high = xp.sqrt(self.above) * xp.sqrt(xp.where(near_high, self.upper - x, 0))
        out = xp.where(near_low, self.low_mirror + 2 * from_low, x)
        return xp.where(near_high, self.high_mirror - 2 * from_high, out)


def _with_margin(wall: Any, other: Any, sign: int) -> tuple[Any, Any]:
    """Return the margin of a wall, 0 where the dtype has no room for one, and where it begins outside."""
    xp = array_module(wall)
    with np.errstate(over="ignore", invalid="ignore"):
        width = xp.abs(wall - other)
        margin = xp.where(xp.isfinite(width), width, 1 + xp.abs(wall)) / 20
        outside = wall + sign * margin
        has_room = xp.isfinite(4 * margin) & xp.isfinite(outside) & (wall - outside != 0)
    return xp.where(has_room, margin, 0), xp.where(has_room, outside, wall)


def _tensor(value: Any, like: Like) -> Any:
    import torch

    return torch.from_numpy(np.require(value, requirements=["C", "W"])).to(like.device)


def _as(value: Any, like: Like) -> Any:
    with np.errstate(over="ignore"):
        return like.asarray(value)


def _rounded_inside(lower: Any, upper: Any, like: Like) -> tuple[Any, Any]:
    near_lower, near_upper = _as(lower, like), _as(upper, like)
    if like.dtype == "float64":
        return near_lower, near_upper
    xp = array_module(near_lower)
    infinite = xp.full_like(near_lower, float("inf"))
    exact = [_tensor(side, like) if like.kind == "torch" else side for side in (lower, upper)]
    low = xp.where(near_lower < exact[0], xp.nextafter(near_lower, infinite), near_lower)
    high = xp.where(near_upper > exact[1], xp.nextafter(near_upper, -infinite), near_upper)
    empty = low > high
    return xp.where(empty, near_lower, low), xp.where(empty, near_lower, high)
