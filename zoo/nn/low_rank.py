"""Directions of low rank: matrices perturbed within few dimensions, that few numbers describe.

A tensor of two and more dimensions counts as a matrix of m rows and n columns; all others are given normal
directions. Both laws are scaled so that E|Z|^2 = m n, as for normal directions: a smoothing and a learning
rate mean the same under all of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.validation import check_count
from zoo.nn.laws import Place, TensorLaw


class Factors:
    """A matrix A B^T, given by its factors, a piece of its entries at a time.

    Args:
        left: A, shape (m, r).
        right: B, shape (n, r).
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right

    def fill_(self, out: Tensor, start: int) -> None:
        """Write the entries from `start` on, counted row by row."""
        with in_one_thread():
            self._fill_(out, start)

    def _fill_(self, out: Tensor, start: int) -> None:
        columns, stop = len(self.right), start + len(out)
        first, last = start // columns, -(-stop // columns)
        if last - first > 2:
            rows = (self.left[first:last] @ self.right.T).view(-1)
            out.copy_(rows[start - first * columns : stop - first * columns])
            return
        for row in range(first, last):  # long rows, of which a piece holds a part
            begin, end = max(start, row * columns), min(stop, (row + 1) * columns)
            part = self.right[begin - row * columns : end - row * columns]
            out[begin - start : end - start] = part @ self.left[row]


@dataclass(frozen=True)
class Lozo(TensorLaw):
    """Z = U V^T / sqrt(r), with V drawn anew every so many steps only.

    U (m, r) and V (n, r) have standard normal entries. As long as V stays, all steps move a matrix within the
    same r-dimensional space of rows: with V given, the mean of the estimate is G V V^T / r, G being the
    gradient, and over V it is G.

    The published method perturbs by U V^T and divides the estimate by r; here the smoothing is in units of
    normal directions, that of the paper times sqrt(r). V follows from the step's number, so a run that is
    resumed goes on with the same one, and is shared by all directions of a step.

    Args:
        rank: r.
        period: Steps with the same V.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is below 1.

    References:
        Chen, Zhang, Cao, Yuan and Wen, "Enhancing zeroth-order fine-tuning for language models with low-rank
        structures", 2025. https://arxiv.org/abs/2410.07698
    """

    rank: int = 2
    period: int = 50

    name = "lozo"

    def __post_init__(self) -> None:
        check_count("rank", self.rank)
        check_count("period", self.period)

    def plan(self, place: Place, like: Tensor) -> Any:
        if len(place.shape) < 2:
            return place.own
        left = place.own.normal(0, place.shape[0], self.rank, like=like)
        return Factors(left.div_(math.sqrt(self.rank)), self.right(place, like))

    def right(self, place: Place, like: Tensor) -> Tensor:
        """Return V, shape (n, r), of the tensor and the period that a place is in."""
        key = place.key.fold("lozo", place.step // self.period, place.tensor)
        return key.normal(0, math.prod(place.shape[1:]), self.rank, like=like)

    def fill_(self, out: Tensor, place: Place, plan: Any, start: int) -> None:
        if isinstance(plan, Factors):
            plan.fill_(out, start)
        else:
            plan.fold(start).fill_normal(out.view(1, -1))


@dataclass(frozen=True)
class SubZero(TensorLaw):
    """Z = sqrt(m n) / r U Z0 V^T, with U and V orthonormal and drawn anew every so many steps only.

    Z0 (r, r) has standard normal entries. As long as U and V stay, r^2 dimensions of a matrix are searched.
    Tensors count as matrices as near to a square as their number of entries allows, which leaves the most
    room; a rank above the shorter side is that side's length.

    The published method keeps U and V in memory; here they are drawn again from the number of the step where
    they are needed. They are the same for any number of threads.

    Args:
        rank: r.
        period: Steps with the same U and V.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is below 1.

    References:
        Yu, Zhou, Wang, Li, Tian and Huang, "Zeroth-order fine-tuning of LLMs in random subspaces", 2025.
        https://arxiv.org/abs/2410.08989
    """

    rank: int = 8
    period: int = 1000

    name = "subzero"

    def __post_init__(self) -> None:
        check_count("rank", self.rank)
        check_count("period", self.period)

    def plan(self, place: Place, like: Tensor) -> Any:
        if len(place.shape) < 2 or math.prod(place.shape) == 0:
            return place.own
        rows, columns = near_square(math.prod(place.shape))
        rank = min(self.rank, rows)
        key = place.key.fold("subzero", place.step // self.period, place.tensor)
        with in_one_thread():
            left, right = (
                torch.linalg.qr(key.fold(side).normal(0, length, rank, like=like)).Q
                for side, length in (("left", rows), ("right", columns))
            )
            core = place.own.normal(0, rank, rank, like=like)
            return Factors(left @ core.mul_(math.sqrt(rows * columns) / rank), right)

    def fill_(self, out: Tensor, place: Place, plan: Any, start: int) -> None:
        if isinstance(plan, Factors):
            plan.fill_(out, start)
        else:
            plan.fold(start).fill_normal(out.view(1, -1))


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """Compute on the CPU in one thread: how sums are shared out among several decides on their last bits."""
    count = torch.get_num_threads()
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def near_square(size: int) -> tuple[int, int]:
    """Return the two factors of a number that are nearest to each other, the smaller one first.

    Example:
        >>> near_square(64 * 256), near_square(10 * 49), near_square(7)
        ((128, 128), (14, 35), (1, 7))
    """
    rows = next(rows for rows in range(math.isqrt(size), 0, -1) if size % rows == 0)
    return rows, size // rows
