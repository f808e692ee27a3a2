"""Maps from a dual space, where particles move freely, to where points may be; and back."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module

_INSIDE = 1e-12  # how near to an open end a point is taken to lie at most, as a share of what is 1 there
_SMALLEST = 1e-15  # the same of a share of a simplex
# What begins nearer to an end than the first of these, begins at the second: its dual is so far out that
# nothing would come back from there, and it would draw others there. Shares as above.
_WALL = 1e-3, 1e-2
_ZERO = 1e-3, 1e-1
_LARGE = 1e150  # its square is a number
_HIGHEST = float(np.log(1e4))  # of x / unit, where only the exponential holds x back


class Mirror(Protocol):
    """The gradient of a convex function phi*, and the one of phi, which leads back."""

    def to_primal(self, y: Array) -> Array:
        """Return the points x = grad phi*(y), shape (..., dim), all of which are allowed."""
        ...

    def to_dual(self, x: Array) -> Array:
        """Return what `to_primal` takes to x, or near it: ends that are never reached have no dual."""
        ...

    def inner(self, x: Array) -> Array:
        """Return points to begin at: those given, but for coordinates that are all but at an end."""
        return x + 0

    def away(self, x: Array) -> Array:
        """Return how far points are off the set, as a share of its size or theirs, shape (...)."""
        return x.sum(-1) * 0


class Simplex(Mirror):
    """All x >= 0 whose sum is `total`, by phi = total times the negative entropy of x / total.

        x = total softmax(y / total)

    Example:
        >>> Simplex(2.0).to_primal(np.array([1.0, 1.0])).tolist()
        [1.0, 1.0]
    """

    def __init__(self, total: float) -> None:
        self.total = total

    def to_primal(self, y: Array) -> Array:
        xp = array_module(y)
        # The largest is taken away first, so that no exponential overflows.
        weights = xp.exp((y - xp.amax(y, -1)[..., None]) / self.total)
        return self.total * (weights / weights.sum(-1)[..., None])

    def to_dual(self, x: Array) -> Array:
        xp = array_module(x)
        return self.total * xp.log((x / self.total).clip(_SMALLEST))

    def inner(self, x: Array) -> Array:
        share = self.total / x.shape[-1]
        return array_module(x).where(x < _ZERO[0] * share, _ZERO[1] * share, x)

    def away(self, x: Array) -> Array:
        xp = array_module(x)
        return xp.maximum(abs(x.sum(-1) - self.total), -xp.amin(x, -1)) / self.total


class Nonnegative(Mirror):
    """All x > 0, by phi = sum unit^2 (u log u - u) with u = x / unit: x = unit exp(y / unit).

    Points go up to 10^4 units: a little further in y, and nothing would be left to compare x with.

    Example:
        >>> Nonnegative(np.ones(2)).to_primal(np.array([0.0, -np.inf])).tolist()
        [1.0, 0.0]
    """

    def __init__(self, unit: Array) -> None:
        self.unit = unit

    def to_primal(self, y: Array) -> Array:
        return self.unit * array_module(y).exp((y / self.unit).clip(max=_HIGHEST))

    def to_dual(self, x: Array) -> Array:
        return self.unit * array_module(x).log((x / self.unit).clip(_SMALLEST))

    def inner(self, x: Array) -> Array:
        return array_module(x).where(x < _ZERO[0] * self.unit, _ZERO[1] * self.unit, x)

    def away(self, x: Array) -> Array:
        xp = array_module(x)
        size = xp.amax(abs(x), -1)
        return (-xp.amin(x, -1)).clip(0) / (size + (size == 0))


class Box(Mirror):
    """All x inside a box, by a logarithmic barrier in each coordinate that has walls.

    Between two walls, at distance h from the middle m, with u = (y - m) / h, and with one wall, in units s
    from there, with z = (y - wall) / s, upwards for a lower one:

        x = m + h 2 u / (1 + sqrt(1 + 4 u^2)),        x = wall + s (z + sqrt(z^2 + 4)) / 2.

    Where there is no wall, x = y. Walls are approached, and touched only by rounding. A step of y is a step
    of x in the middle of two walls, and far from one.

    Args:
        bounds: Walls, or None.
        scale: s, shape (dim,).

    Example:
        >>> box = Box(Bounds(np.array([0.0, 0.0]), np.array([2.0, np.inf])), np.ones(2))
        >>> box.to_primal(np.array([1.0, 0.0])).tolist()
        [1.0, 1.0]
    """

    def __init__(self, bounds: Bounds | None, scale: Array) -> None:
        xp = array_module(scale)
        infinite = xp.full_like(scale, np.inf)
        self.lower, self.upper = (-infinite, infinite) if bounds is None else bounds.sides(scale)
        below, above = xp.isfinite(self.lower), xp.isfinite(self.upper)
        self.both, self.one = below & above, below ^ above
        # Numbers that stand in where there is no such wall are not looked at.
        low, high = xp.where(below, self.lower, 0.0), xp.where(above, self.upper, 0.0)
        self.middle, half = low + (high - low) / 2, (high - low) / 2
        self.fixed = self.both & (half == 0)
        self.half = xp.where(self.both & (half > 0), half, 1.0)
        one = xp.ones_like(scale)
        self.wall, self.sign = xp.where(below, low, high), xp.where(below, one, -one)
        self.scale = scale

    def to_primal(self, y: Array) -> Array:
        xp = array_module(y)
        u = ((y - self.middle) / self.half).clip(-_LARGE, _LARGE)
        between = self.middle + self.half * (2 * u / (1 + xp.sqrt(1 + 4 * u * u)))
        z = (self.sign * (y - self.wall) / self.scale).clip(-_LARGE, _LARGE)
        # For negative z the same number without the difference of two large ones.
        root = xp.sqrt(z * z + 4)
        beyond = xp.where(z > 0, (z + root) / 2, 2 / (root - xp.where(z > 0, 0.0, z)))
        beside = self.wall + self.sign * self.scale * beyond
        x = xp.where(self.both, between, xp.where(self.one, beside, y))
        x = xp.where(self.fixed, self.middle, x)
        return xp.minimum(xp.maximum(x, self.lower), self.upper)

    def to_dual(self, x: Array) -> Array:
        xp = array_module(x)
        v = ((x - self.middle) / self.half).clip(-1 + _INSIDE, 1 - _INSIDE)
        between = self.middle + self.half * (v / (1 - v * v))
        w = (self.sign * (x - self.wall) / self.scale).clip(_INSIDE)
        beside = self.wall + self.sign * self.scale * (w - 1 / w)
        return xp.where(self.both, between, xp.where(self.one, beside, x))

    def inner(self, x: Array) -> Array:
        xp = array_module(x)
        v = (x - self.middle) / self.half
        between = xp.where(abs(v) > 1 - _WALL[0], self.middle + self.half * (1 - _WALL[1]) * xp.sign(v), x)
        w = self.sign * (x - self.wall) / self.scale
        beside = xp.where(w < _WALL[0], self.wall + self.sign * self.scale * _WALL[1], x)
        return xp.where(self.both, between, xp.where(self.one, beside, x))


class Ball(Mirror):
    """All x with |x| <= radius: the nearest point of it, by phi = |x|^2 / 2 inside and infinite outside.

    Example:
        >>> Ball(1.0).to_primal(np.array([[0.0, 4.0], [0.3, 0.4]])).tolist()
        [[0.0, 1.0], [0.3, 0.4]]
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def to_primal(self, y: Array) -> Array:
        xp = array_module(y)
        length = xp.sqrt((y * y).sum(-1))[..., None]
        return y * (self.radius / xp.where(length > self.radius, length, self.radius))

    def to_dual(self, x: Array) -> Array:
        return x + 0

    def away(self, x: Array) -> Array:
        return (array_module(x).sqrt((x * x).sum(-1)) / self.radius - 1).clip(0)


class ElasticNet(Mirror):
    """All x, most of them sparse, by phi = |x|^2 / 2 + threshold sum |x|: soft thresholding.

        x = sign(y) max(|y| - threshold, 0)

    Example:
        >>> ElasticNet(1.0).to_primal(np.array([-3.0, 0.5])).tolist()
        [-2.0, 0.0]
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def to_primal(self, y: Array) -> Array:
        return y - y.clip(-self.threshold, self.threshold)

    def to_dual(self, x: Array) -> Array:
        return x + self.threshold * array_module(x).sign(x)


class Hyperplane(Mirror):
    """All x whose sum is `total`: the nearest point of it, by phi = |x|^2 / 2 there.

    Example:
        >>> Hyperplane(3.0).to_primal(np.array([1.0, 0.0])).tolist()
        [2.0, 1.0]
    """

    def __init__(self, total: float) -> None:
        self.total = total

    def to_primal(self, y: Array) -> Array:
        return y + ((self.total - y.sum(-1)) / y.shape[-1])[..., None]

    def to_dual(self, x: Array) -> Array:
        return x + 0

    def away(self, x: Array) -> Array:
        size = abs(x).sum(-1) + abs(self.total)
        return abs(x.sum(-1) - self.total) / (size + (size == 0))
