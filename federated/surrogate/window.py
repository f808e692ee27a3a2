"""The points that a client has seen, and what they were worth, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.state import state
from zoo.core.validation import check_count

_MOST_BLOCKS = 32  # with more of them, reading a row costs more than to copy them into one
_BLOCK = 2**17  # numbers worked on at once, which the cache of a processor holds
_PRIME = 0x9E3779B97F4A7C15 - 2**64  # odd, of no pattern: the golden ratio's


@state
class Window:
    """Points and their values, as many as there is room for. A value: `add` returns another one.

    Windows made one from another share the points they have in common. When more than `capacity` points
    would be held, those farthest from where the search is now go, an eighth more than needed, so that points
    are not copied at every addition. A point that was there already is not held twice: its value becomes the
    mean of all values it was given. Failed values, NaN or infinite, are left out.

    Points stay on their device; values and what else is kept by point are numpy arrays of the host, where
    values of objectives are.

    Attributes:
        blocks: The points, in arrays of shape (k, dim).
        values: Their values, shape (n,), float64.
        counts: How many values each of them is the mean of.
        serials: Numbers of the points in the order in which they came, ascending; none is used twice.
        prints: Sums over the bits of each point, by which equal ones are found.
        next_serial: Number of the next point.
        dim: Length of a point.
        capacity: How many points may be held.

    Example:
        >>> window = Window.empty(2, capacity=100)
        >>> window = window.add(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), [1.0, 2.0, 3.0])
        >>> window.points.tolist(), window.values.tolist()
        ([[0.0, 0.0], [1.0, 0.0]], [2.0, 2.0])
    """

    blocks: tuple[Array, ...]
    values: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]
    serials: np.ndarray[Any, Any]
    prints: np.ndarray[Any, Any]
    next_serial: int
    dim: int
    capacity: int

    @staticmethod
    def empty(dim: int, capacity: int, *, like: Array | None = None, nbytes: int = 2**26) -> Window:
        """Return a window with nothing in it.

        Args:
            dim: Length of a point.
            capacity: How many points to hold at most.
            like: An array whose kind, dtype and device the points have; None for numpy's float64.
            nbytes: How many bytes the points may take; where it is less than `capacity` points, it rules.

        Raises:
            TypeError: A number is no integer.
            ValueError: A number is below 1, or not even two points fit into `nbytes`.
        """
        check_count("dim", dim)
        check_count("capacity", capacity)
        item: Array = np.zeros(0) if like is None else like
        size = dim * (item.element_size() if is_torch(item) else item.itemsize)
        if check_count("nbytes", nbytes) < 2 * size:
            raise ValueError(
                f"`nbytes` must be at least {2 * size}, room for two points of {dim} numbers, got {nbytes!r}."
            )
        none = np.zeros(0, np.int64)
        first = array_module(item).zeros((0, dim), **_kind(item))
        return Window((first,), np.zeros(0), none, none, none, 0, dim, min(capacity, nbytes // size))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def points(self) -> Array:
        """All points, shape (n, dim), a copy where they lie in several blocks."""
        return _joined(self.blocks)

    def add(self, points: Array, values: Any, centre: Array | None = None) -> Window:
        """Return the window with more points.

        Args:
            points: Shape (k, dim).
            values: Shape (k,); points whose value is not finite are left out.
            centre: Where the search is, shape (dim,), when points have to go; None for the last point.

        Raises:
            ValueError: Shapes do not fit.
        """
        given = np.asarray(to_numpy(values), np.float64)
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(f"`points` must have the shape (k, {self.dim}), got {tuple(points.shape)}.")
        if given.shape != (len(points),):
            raise ValueError(f"`values` must have the shape ({len(points)},), got {given.shape}.")
        fresh: list[int] = []
        places = {mark: place for place, mark in enumerate(self.prints.tolist())}
        new_values, new_counts, marks = self.values.copy(), self.counts.copy(), _prints(points)
        added: list[float] = []
        numbers: list[int] = []
        for row in np.flatnonzero(np.isfinite(given)):
            mark, value = int(marks[row]), float(given[row])
            place = places.get(mark)
            if place is None:
                places[mark] = len(self) + len(fresh)
                fresh.append(int(row))
                added.append(value)
                numbers.append(1)
            elif place < len(self):
                new_counts[place] += 1
                new_values[place] += (value - new_values[place]) / new_counts[place]
            else:
                numbers[place - len(self)] += 1
                added[place - len(self)] += (value - added[place - len(self)]) / numbers[place - len(self)]
        if not fresh:
            return self._with(self.blocks, new_values, new_counts, self.serials, self.prints)
        rows = np.array(fresh)
        block = points[_on(rows, points)]
        made = self._with(
            (*self.blocks, Like.of(self.blocks[0]).asarray(block)),
            np.concatenate([new_values, added]),
            np.concatenate([new_counts, np.array(numbers, np.int64)]),
            np.concatenate([self.serials, np.arange(self.next_serial, self.next_serial + len(rows))]),
            np.concatenate([self.prints, marks[rows]]),
        )
        if len(made) > self.capacity:
            room = max(1, self.capacity - self.capacity // 8)
            return made._taken(made.nearest(points[-1] if centre is None else centre, room))
        return made if len(made.blocks) <= _MOST_BLOCKS else made._taken(np.arange(len(made)))

    def nearest(self, x: Array, count: int) -> np.ndarray[Any, Any]:
        """Return the places of the points nearest to `x`, ascending, at most `count`.

        Of points as far as each other the newer one is nearer.
        """
        if len(self) <= count:
            return np.arange(len(self))
        far = [_distances(block, x) for block in self.blocks if len(block)]
        return np.sort(np.lexsort((-self.serials, to_numpy(_joined(far))))[:count])

    def columns(self, rows: np.ndarray[Any, Any], start: int = 0, stop: int | None = None) -> Array:
        """Return some columns of some points in float64, shape (len(rows), stop - start)."""
        part = self._chosen(rows, start, stop)
        return part.double() if is_torch(part) else part.astype(np.float64, copy=False)

    def _chosen(self, rows: np.ndarray[Any, Any], start: int = 0, stop: int | None = None) -> Array:
        """Return some columns of some points; those of all points in one block are not copied."""
        lengths = [len(block) for block in self.blocks]
        if len(rows) == len(self) and (rows == np.arange(len(self))).all():
            return _joined([block[:, start:stop] for block in self.blocks])
        order, ends = np.argsort(rows), np.cumsum(lengths)
        cuts = np.split(rows[order], np.searchsorted(rows[order], ends[:-1]))
        begins = (ends - lengths).tolist()
        part = _joined(
            [
                block[_on(cut - begin, block), start:stop]
                for block, cut, begin in zip(self.blocks, cuts, begins, strict=True)
            ]
        )
        return part[_on(np.argsort(order), part)] if (order[1:] < order[:-1]).any() else part

    def _taken(self, rows: np.ndarray[Any, Any]) -> Window:
        """Return the window with some of its points, in one block."""
        block = self._chosen(rows)
        return self._with(
            (block,), self.values[rows], self.counts[rows], self.serials[rows], self.prints[rows]
        )

    def _with(self, blocks: tuple[Array, ...], values: Any, counts: Any, serials: Any, prints: Any) -> Window:
        ahead = max(self.next_serial, int(serials[-1]) + 1 if len(serials) else 0)
        return Window(blocks, values, counts, serials, prints, ahead, self.dim, self.capacity)


def _kind(item: Array) -> dict[str, Any]:
    return {"dtype": item.dtype, "device": item.device} if is_torch(item) else {"dtype": item.dtype}


def _joined(blocks: Any) -> Array:
    """Return arrays on top of each other; a single one as it is."""
    there = [block for block in blocks if len(block)] or list(blocks[:1])
    if len(there) == 1:
        return there[0]
    return array_module(there[0]).concatenate(there)


def _distances(block: Array, x: Array) -> Array:
    """Return the squared distances of points from x, without a copy of all points."""
    width = max(1, _BLOCK // len(block))
    total = ((block[:, :width] - x[:width]) ** 2).sum(1)
    for start in range(width, len(x), width):
        part = slice(start, start + width)
        total += ((block[:, part] - x[part]) ** 2).sum(1)
    return total


def _on(rows: np.ndarray[Any, Any], array: Array) -> Any:
    """Return indices where an array is."""
    if not is_torch(array):
        return rows
    return array_module(array).as_tensor(rows, device=array.device)


def _prints(points: Array) -> np.ndarray[Any, Any]:
    """Return one integer for each point, the same for equal ones.

    A sum of the bits of each number times a multiplier of its place, in integers that wrap around: no
    order of summation changes it. Two different points have the same one with probability 2^-64.
    """
    xp = array_module(points)
    if is_torch(points):
        size = points.element_size()
        bits = (points + 0.0).contiguous().view({8: xp.int64, 4: xp.int32, 2: xp.int16}[size]).to(xp.int64)
        places = xp.arange(1, points.shape[1] + 1, device=points.device)
    else:
        bits = (points + 0.0).view(f"i{points.dtype.itemsize}").astype(np.int64, copy=False)
        places = np.arange(1, points.shape[1] + 1)
    mixed = bits * _PRIME
    mixed ^= mixed >> 29
    factors = places * _PRIME
    factors ^= factors >> 32
    mixed *= factors | 1
    made: np.ndarray[Any, Any] = to_numpy(mixed.sum(1))
    return made
