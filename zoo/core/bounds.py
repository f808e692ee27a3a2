"""A box, and the three ways to stay inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch
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
      margin a reaches a outside it too: u = wall - a arrives at the wall. The margin is a twentieth of
      the width, or of 1 + |wall| where the other wall is infinite, and at most half the width.

    Args:
        lower: Shape (dim,), float64.
        upper: Shape (dim,), float64.

    Raises:
        ValueError: A bound is NaN, lower > upper somewhere, or shapes differ.

    Example:
        >>> box = Bounds(np.zeros(2), np.ones(2))
        >>> box.map(np.array([-0.25, 3.5]), "reflect").tolist()
        [0.25, 0.5]
        >>> box.map(np.array([-0.25, 3.5]), "clip").tolist()
        [0.0, 1.0]
    """

    lower: np.ndarray[Any, Any]
    upper: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        lower, upper = np.asarray(self.lower, np.float64), np.asarray(self.upper, np.float64)
        if lower.shape != upper.shape or lower.ndim != 1:
            raise ValueError(f"`bounds` must be two rows of equal length, got shapes {lower.shape} and {upper.shape}.")
        for name, side in (("lower", lower), ("upper", upper)):
            if np.isnan(side).any():
                raise ValueError(f"`bounds` must not hold NaN, got {name}[{int(np.isnan(side).argmax())}] = nan.")
        wrong = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(
                f"`bounds` must have lower <= upper, got lower[{index}] = {lower[index]} "
                f"and upper[{index}] = {upper[index]}."
            )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    @property
    def finite(self) -> bool:
        """Whether every side is finite."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def contains(self, x: Array) -> bool:
        """Whether every coordinate of every row of `x` is inside."""
        lower, upper = self._sides(x)
        return bool(((x >= lower) & (x <= upper)).all())

    def map(self, x: Array, mode: str = "reflect") -> Array:
        """Take points, shape (..., dim), into the box; see the class for the modes."""
        check_choice("mode", mode, MODES)
        lower, upper = self._sides(x)
        if mode == "clip":
            return _clip(x, lower, upper)
        inside = _reflect(x, lower, upper) if mode == "reflect" else _smooth(x, lower, upper, *self._margins(x))
        return _clip(inside, lower, upper)  # rounding may leave a point a bit outside

    def inverse(self, x: Array, mode: str = "reflect") -> Array:
        """Return a point that `map` takes to `x`, which must lie inside."""
        check_choice("mode", mode, MODES)
        if mode != "smooth":
            return x
        lower, upper = self._sides(x)
        below, above = self._margins(x)
        xp: Any = _module(x)
        # Inverse of the parabola x = wall + (u - wall + a)^2 / (4 a) within a of a wall.
        near_lower = lower - below + 2 * xp.sqrt(below * xp.abs(x - lower))
        near_upper = upper + above - 2 * xp.sqrt(above * xp.abs(upper - x))
        out = xp.where(x < lower + below, near_lower, x)
        return xp.where(x > upper - above, near_upper, out)

    def _sides(self, x: Array) -> tuple[Array, Array]:
        if not is_torch(x):
            return self.lower, self.upper
        import torch

        # Rounded towards the inside: a float32 point on the rounded wall must not lie outside the box.
        low, high = (torch.from_numpy(side).to(device=x.device, dtype=x.dtype) for side in (self.lower, self.upper))
        exact_low, exact_high = (torch.from_numpy(side).to(x.device) for side in (self.lower, self.upper))
        infinite = torch.full_like(low, float("inf"))
        low = torch.where(low.double() < exact_low, torch.nextafter(low, infinite), low)
        high = torch.where(high.double() > exact_high, torch.nextafter(high, -infinite), high)
        return low, high

    def _margins(self, x: Array) -> tuple[Array, Array]:
        width = self.upper - self.lower
        margins = []
        for wall in (self.lower, self.upper):
            finite = np.where(np.isfinite(wall), wall, 0.0)
            margin = np.where(np.isfinite(width), width / 20, (1 + np.abs(finite)) / 20)
            margins.append(np.minimum(margin, width / 2))
        if is_torch(x):
            import torch

            margins = [torch.from_numpy(margin).to(device=x.device, dtype=x.dtype) for margin in margins]
        return margins[0], margins[1]


def _module(x: Array) -> Any:
    if is_torch(x):
        import torch

        return torch
    return np


def _clip(x: Array, lower: Array, upper: Array) -> Array:
    xp = _module(x)
    return xp.minimum(xp.maximum(x, lower), upper)


def _reflect(x: Array, lower: Array, upper: Array) -> Array:
    xp = _module(x)
    width = upper - lower
    bounded = xp.isfinite(width) & (width > 0)
    period = xp.where(bounded, 2 * width, xp.ones_like(width))
    start = xp.where(bounded, lower, xp.zeros_like(width))
    # Two walls: a triangle wave. One wall: a single mirror. The identity inside, to the bit.
    offset = (x - start) - period * xp.floor((x - start) / period)
    wave = start + xp.minimum(offset, period - offset)
    single = xp.where(x < lower, 2 * lower - x, xp.where(x > upper, 2 * upper - x, x))
    folded = xp.where(bounded, wave, single)
    return xp.where((x >= lower) & (x <= upper), x, folded)


def _smooth(x: Array, lower: Array, upper: Array, below: Array, above: Array) -> Array:
    xp = _module(x)
    # Mirrored at the points that the parabolas take to the walls, then rounded off by them.
    x = _reflect(x, lower - below, upper + above)
    small = xp.ones_like(below) * 1e-300 if x.dtype in (np.float64, getattr(xp, "float64", None)) else 1e-37
    low = lower + (x - lower + below) ** 2 / (4 * below + small)
    high = upper - (x - upper - above) ** 2 / (4 * above + small)
    out = xp.where(x < lower + below, low, x)
    return xp.where(x > upper - above, high, out)
