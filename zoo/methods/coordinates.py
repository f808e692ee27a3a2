"""Coordinates that a local method works in, and differences along each of them.

A method sees z, a row of float64 numbers, one for each variable that is free to move: x = unit * z, where
unit is the power of two nearest to `scale`. So a step of length about 1 is as long as the user's scale says,
and nothing is rounded on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import NUMPY, Array, to_numpy
from zoo.core.types import Candidates
from zoo.estimators.precision import start_smoothing
from zoo.methods.population import Frame

Matrix = np.ndarray[Any, Any]

_LARGEST = {"float64": 1.7e308, "float32": 3.4e38, "bfloat16": 3.3e38, "float16": 65504.0}


class Coordinates:
    """Free variables of a run in units of its scale.

    Args:
        frame: What the run was begun with.
        smooth: Whether every z stands for a point of the box, by `Bounds.map` with "smooth"; else the walls
            are walls of z, and beyond them the nearest point inside is meant.

    Attributes:
        free: Which variables can move: those whose walls are apart, shape (dim,).
        unit: Powers of two, shape (n,).
        ratio: `scale` in these units, between 0.7 and 1.42, shape (n,).
        lower: Walls of z, shape (n,), infinite where there is none.
        upper: The same above.
    """

    __slots__ = (
        "_fixed",
        "_max",
        "_min",
        "_plain",
        "frame",
        "free",
        "lower",
        "ratio",
        "smooth",
        "unit",
        "upper",
    )

    def __init__(self, frame: Frame, smooth: bool = False) -> None:
        self.frame, self.smooth = frame, smooth and frame.bounds is not None
        start = np.array(to_numpy(frame.x0), np.float64)
        low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
        if frame.bounds is not None:
            # Of the dtype of the rows: what lies between them and the exact walls is never evaluated.
            sides = frame.bounds.sides(frame.like.asarray(start))
            low, high = (np.asarray(to_numpy(side), np.float64) for side in sides)
        self.free = low < high
        self._fixed = np.where(self.free, start, low)
        largest = _LARGEST[frame.like.dtype]
        self._min, self._max = np.maximum(low, -largest), np.minimum(high, largest)
        scale = frame.scale[self.free]
        exponent = np.clip(np.rint(np.log2(scale)), -900, 900).astype(int)
        self.unit = np.ldexp(1.0, exponent)
        self.ratio = scale / self.unit
        self._plain = frame.bounds is None and frame.like == NUMPY
        walls = not self.smooth
        self.lower = low[self.free] / self.unit if walls else np.full(len(scale), -np.inf)
        self.upper = high[self.free] / self.unit if walls else np.full(len(scale), np.inf)

    @property
    def dim(self) -> int:
        """Number of free variables, n."""
        return len(self.unit)

    @property
    def bounded(self) -> bool:
        """Whether z has any wall."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    def inverse(self, x: Array) -> Matrix:
        """Return z of a point, shape (n,)."""
        x = np.asarray(to_numpy(x), np.float64)
        if self.smooth and self.frame.bounds is not None:
            x = self.frame.bounds.inverse(np.minimum(np.maximum(x, self._min), self._max), "smooth")
        z = x[self.free] / self.unit
        return np.minimum(np.maximum(z, self.lower), self.upper)

    def rows(self, z: Matrix) -> Array:
        """Return the points that rows of z stand for, shape (k, dim), as they are evaluated."""
        frame = self.frame
        if self._plain:
            return z * self.unit
        x = np.empty((len(z), len(self.free)))
        x[:] = self._fixed
        x[:, self.free] = z * self.unit
        if self.smooth and frame.bounds is not None:
            x = frame.bounds.map(x, "smooth")
        x = np.minimum(np.maximum(x, self._min), self._max)
        return frame.like.asarray(x)

    def seen(self, z: Matrix) -> Matrix:
        """Return z, shape (..., n), as the objective sees it: rounded to the dtype of the rows."""
        if self.smooth or self.frame.like.dtype == "float64":
            return z
        x = np.asarray(to_numpy(self.rows(z.reshape(-1, self.dim))), np.float64)
        return x[:, self.free].reshape(z.shape) / self.unit


class Points(Candidates):
    """Points given by rows of z.

    Args:
        coordinates: Where z lives.
        z: Shape (k, n); not copied.
    """

    __slots__ = ("coordinates", "z")

    def __init__(self, coordinates: Coordinates, z: Matrix) -> None:
        self.coordinates, self.z = coordinates, z

    @property
    def dim(self) -> int:
        return len(self.coordinates.free)

    def __len__(self) -> int:
        return len(self.z)

    def rows(self, start: int, stop: int) -> Array:
        return self.coordinates.rows(self.z[start:stop])


class Differences(Candidates):
    """A base and, for each coordinate, one or two points displaced along it.

    Rows: the base, if it is wanted; then for each coordinate the first and, with the central stencil, the
    second displaced point.

    Displacements are h and, for the central stencil, -h. Where a wall is in the way of one of them, the
    forward stencil takes -h, and the central one h and 2 h, or -h and -2 h. Where the walls
    are too near for that, they are the whole and half of the wider side.

    Args:
        coordinates: Where z lives.
        z: The base, shape (n,).
        distance: h, shape (n,).
        central: Whether there are two points for each coordinate.
        base: Whether the base is among the rows.
    """

    __slots__ = ("base", "central", "coordinates", "first", "second", "z")

    def __init__(
        self, coordinates: Coordinates, z: Matrix, distance: Matrix, *, central: bool, base: bool = True
    ) -> None:
        self.coordinates, self.central, self.base = coordinates, central, base
        self.z = z = coordinates.seen(z)
        below, above = z - coordinates.lower, coordinates.upper - z
        if central:
            first, second = _pair(distance, below, above)
            self.first, self.second = (coordinates.seen(z + step) for step in (first, second))
        else:
            wider = np.where(above >= below, above, -below)
            step = np.where(distance <= above, distance, np.where(distance <= below, -distance, wider))
            self.first = self.second = coordinates.seen(z + step)

    @property
    def dim(self) -> int:
        return len(self.coordinates.free)

    def __len__(self) -> int:
        return int(self.base) + (2 if self.central else 1) * len(self.z)

    def rows(self, start: int, stop: int) -> Array:
        z = np.empty((stop - start, len(self.z)))
        z[:] = self.z
        numbers = np.arange(start, stop) - int(self.base)
        which = np.arange(max(1 - start, 0) if self.base else 0, stop - start)
        numbers = numbers[which]
        if self.central:
            column = numbers // 2
            z[which, column] = np.where(numbers % 2, self.second[column], self.first[column])
        else:
            z[which, numbers] = self.first[numbers]
        return self.coordinates.rows(z)

    def gradient(self, values: Matrix, value: float) -> Matrix:
        """Return the slopes along all coordinates, shape (n,), NaN where there is none.

        forward:  (f(z + a) - f(z)) / a
        central:  the slope at z of the parabola through z, z + a and z + b, which is
                  (f(z + a) - f(z + b)) / (a - b) where b = -a

        Where one of the two points failed, the other one and the base are left, and where the base did, the
        two are.

        Args:
            values: One for each row but the base, NaN where it failed.
            value: Value at the base.
        """
        a = self.first - self.z
        with np.errstate(all="ignore"):
            if not self.central:
                return _finite((values - value) / a)
            b = self.second - self.z
            ahead, back = values[::2], values[1::2]
            slope = (ahead - back) / (a - b)
            at_base = ((ahead - value) * (b / a) - (back - value) * (a / b)) / (b - a)
            slope = np.where((a == -b) | np.isnan(value), slope, at_base)
            slope = np.where(np.isnan(ahead), (back - value) / b, slope)
            slope = np.where(np.isnan(back), (ahead - value) / a, slope)
            return _finite(slope)

    def second_differences(self, values: Matrix, value: float) -> Matrix:
        """Return f(z + a) + f(z - a) - 2 f(z) for all coordinates where it can be had; see `gradient`."""
        if not self.central:
            return np.empty(0)
        even = np.abs(self.first - self.z + (self.second - self.z)) <= np.abs(self.first - self.z) / 16
        second = (values[::2] - value) + (values[1::2] - value)
        return second[even & np.isfinite(second)]


def difference_distance(coordinates: Coordinates, z: Matrix, *, central: bool) -> Matrix:
    """Return how far differences should reach along each coordinate, shape (n,).

    Where rounding and truncation balance for a function that changes about as much as its value
    over a distance of 1; see `zoo.estimators.precision`.
    """
    like = coordinates.frame.like
    stencil = "central" if central else "forward"
    smallest = start_smoothing(like, stencil, norm=1.0, scale=1.0, size=0.0).start
    return np.maximum(smallest, 32 * like.epsilon * np.abs(z))


def _pair(distance: Matrix, below: Matrix, above: Matrix) -> tuple[Matrix, Matrix]:
    both = (distance <= above) & (distance <= below)
    upwards = above >= below
    reach = np.minimum(2 * distance, np.where(upwards, above, below)) * np.where(upwards, 1, -1)
    return np.where(both, distance, reach / 2), np.where(both, -distance, reach)


def _finite(slope: Matrix) -> Matrix:
    return np.where(np.isfinite(slope), slope, np.nan)
