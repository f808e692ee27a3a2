"""Noise that is made again rather than held, sums over it, and the candidates that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key, NoiseTable
from zoo.core.types import Candidates

Vector = np.ndarray[Any, Any]

_HELD = 2**20  # numbers of a step's noise that are kept from `ask` to `tell`; more are drawn again
_BY_ROW = 2**15  # elements; from this length on rows are added up one by one, in the processor's cache

_last: tuple[Noise, Array] | None = None  # the noise held last


def clear_cache() -> None:
    """Forget the noise held last, which `tell` otherwise need not draw again; no result depends on it."""
    global _last
    _last = None


@dataclass(frozen=True, slots=True)
class Noise:
    """A matrix of standard normal numbers, known by where they come from.

    Attributes:
        key: Of the run.
        step: Number of the step.
        count: Rows.
        dim: Length of a row.
        like: Kind, dtype (single or double precision) and device.
        table: Where rows are read from, or None to draw them.
    """

    key: Key
    step: int
    count: int
    dim: int
    like: Like
    table: NoiseTable | None

    @property
    def is_held(self) -> bool:
        """Whether it is small enough to be held as a whole."""
        return self.count * self.dim <= _HELD

    def held(self) -> Array:
        """Return the whole matrix, not to be written to."""
        global _last
        last = _last
        if last is not None and last[0] == self:
            return last[1]
        key = self.key.fold("noise", self.step)
        if self.table is None:
            z = key.normal(0, self.count, self.dim, like=self.like)
        else:
            z = self.table.normal(key, 0, self.count, self.dim, like=self.like)
        _last = (self, z)
        return z

    def blocks(self, start: int, stop: int) -> Iterator[tuple[slice, slice, Array]]:
        """Yield (rows from `start`, columns, numbers) of a slice of rows; see `Key.normal_blocks`."""
        key = self.key.fold("noise", self.step)
        if self.table is None:
            return key.normal_blocks(start, stop, self.dim, like=self.like)
        return self.table.normal_blocks(key, start, stop, self.dim, like=self.like)


def moments(noise: Noise, first: Vector, second: Vector | None) -> tuple[Array, Array | None]:
    """Return sum_i a_i z_i and sum_i b_i z_i^2 over the rows z_i of a noise, in one pass over it.

    Args:
        noise: The rows.
        first: The a_i, shape (noise.count,).
        second: The b_i, or None for no second sum.

    Returns:
        Two arrays of shape (noise.dim,), the other one None where it was not wanted.
    """
    a = noise.like.asarray(first)
    b = None if second is None else noise.like.asarray(second)
    if noise.is_held:
        z = noise.held()
        return a @ z, None if b is None else b @ (z * z)
    xp = array_module(a)
    total = noise.like.asarray(np.zeros(noise.dim))
    squares = None if b is None else xp.zeros_like(total)
    by_row = noise.dim > _BY_ROW and noise.like.device == "cpu"
    others = [0.0] * noise.count if second is None else second.tolist()
    weights = list(zip(first.tolist(), others, strict=True))
    for rows, columns, z in noise.blocks(0, noise.count):
        if by_row:
            for row, (mine, its) in zip(z, weights[rows], strict=True):
                _add(row, mine, its, total[columns], None if squares is None else squares[columns])
            continue
        total[columns] += a[rows] @ z
        if squares is not None and b is not None:
            squares[columns] += b[rows] @ (z * z)
    return total, squares


def _add(z: Array, first: float, second: float, total: Array, squares: Array | None) -> None:
    """Add a z to one sum and b z^2 to the other, in place."""
    if isinstance(z, np.ndarray):
        total += first * z
        if squares is not None:
            scaled = second * z
            scaled *= z
            squares += scaled
        return
    total.add_(z, alpha=first)
    if squares is not None:
        squares.addcmul_(z, z, value=second)


class Sampled(Candidates):
    """Points around a mean: mean + spread * z_i, or in pairs mean + spread * z_i, mean - spread * z_i.

    With bounds these are points of the whole space, and rows are what the boundary map makes of them.

    Args:
        mean: Shape (dim,), in working precision.
        spread: Standard deviations, shape (dim,), or one for all.
        source: Where the z_i come from.
        count: Rows.
        mirrored: Whether rows come in pairs.
        bounds: Box, or None.
        boundary: How it is mapped into, see `Bounds.map`.
        like: Kind, dtype and device of the rows.
    """

    __slots__ = ("_other", "boundary", "bounds", "count", "like", "mean", "mirrored", "source", "spread")

    def __init__(
        self,
        mean: Array,
        spread: Array | float,
        source: Noise,
        count: int,
        *,
        mirrored: bool,
        bounds: Bounds | None,
        boundary: str,
        like: Like,
    ) -> None:
        self.mean, self.spread, self.source, self.count, self.mirrored = mean, spread, source, count, mirrored
        self.bounds, self.boundary, self.like = bounds, boundary, like
        self._other: dict[int, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "_other"}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._other = {}

    @property
    def dim(self) -> int:
        return self.source.dim

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int, stop: int) -> Array:
        if self.mirrored:
            points = self._pairs(start, stop)
        elif self.source.is_held:
            points = self.source.held()[start:stop] * self.spread
            points += self.mean
        else:
            points = self._empty(stop - start)
            for rows, columns, z in self.source.blocks(start, stop):
                here = points[rows, columns]
                # A product and a sum, each rounded by itself: one fused operation may round differently at
                # the end of a row.
                array_module(z).multiply(z, self._spread(columns), out=here)
                here += self.mean[columns]
        return place(points, self.source.like, self.bounds, self.boundary, self.like)

    def _pairs(self, start: int, stop: int) -> Array:
        if stop - start == 1 and (other := self._other.pop(start, None)) is not None:
            return other
        first, last = start // 2, -(-stop // 2)
        points = self._empty(2 * (last - first)).reshape(last - first, 2, self.dim)
        if self.source.is_held:
            step = self.source.held()[first:last] * self.spread
            points[:, 0], points[:, 1] = self.mean + step, self.mean - step
        else:
            for rows, columns, z in self.source.blocks(first, last):
                ahead, back, mean = points[rows, 0, columns], points[rows, 1, columns], self.mean[columns]
                xp = array_module(z)
                xp.multiply(z, self._spread(columns), out=ahead)  # in two operations, as above
                xp.subtract(mean, ahead, out=back)
                ahead += mean
        points = points.reshape(-1, self.dim)
        if stop - start == 1 and not self.source.is_held:
            # Functions of one point ask row by row: the other half of the pair is wanted next.
            mine = start % 2
            self._other = {start + 1 - 2 * mine: points[1 - mine : 2 - mine]}
        return points[start - 2 * first : stop - 2 * first]

    def _spread(self, columns: slice) -> Array | float:
        return self.spread if isinstance(self.spread, float) else self.spread[columns]

    def _empty(self, count: int) -> Array:
        like = self.source.like
        if like.kind == "numpy":
            return np.empty((count, self.dim), like.dtype)
        import torch

        return torch.empty((count, self.dim), dtype=like.torch_dtype, device=like.device)


def place(points: Array, work: Like, bounds: Bounds | None, boundary: str, like: Like) -> Array:
    """Take points of the whole space, of the kind `work`, into the box, and make them of the kind wanted."""
    if bounds is not None:
        points = bounds.map(points, boundary)
    if work == like:
        return points
    points = like.asarray(points)
    return points if bounds is None else bounds.map(points, "clip")  # which rounding may have led out of
