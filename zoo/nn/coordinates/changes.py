"""How K changed copies of an activation are written down: whole, or as the one column that differs.

An activation has the examples of the mini-batch first. Whole copies are one tensor of shape (K * b, ...), all
examples of the first copy first, so that a module which treats examples one by one takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """K copies of an activation, each of which differs from the unchanged one in a single column.

    A column is a channel of an image, an entry of the last dimension of a sequence, or, behind a layer that
    flattens images, the run of entries that came of one channel.

    Attributes:
        values: What the columns hold, shape (K, b, *rest).
        index: Which columns, shape (K,), on the device of the values.
        numbers: The same, known without asking the device.
        last: Whether columns are entries of the last dimension; else they are of the second.
        flat: Whether the activation has been flattened: a column is as many entries as `rest` has.
    """

    values: Tensor
    index: Tensor
    numbers: tuple[int, ...]
    last: bool = False
    flat: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> Columns:
        return Columns(self.values[part], self.index[part], self.numbers[part], self.last, self.flat)

    def holding(self, values: Tensor) -> Columns:
        """Return the same columns with other values."""
        return Columns(values, self.index, self.numbers, self.last, self.flat)

    def resembles(self, other: Columns) -> bool:
        """Whether another's columns are columns of the same kind of activation."""
        return (self.last, self.flat, self.values.shape) == (other.last, other.flat, other.values.shape)

    def of(self, activation: Tensor) -> Tensor:
        """Return what those columns of an activation hold, (K, b, *rest), or (1, b, *rest) if all are one."""
        return picked(self._by_column(activation).movedim(1, 0), self.index, self.numbers)

    def spread(self, activation: Tensor) -> Tensor:
        """Return whole copies of an activation with those columns in their places, (K * b, ...)."""
        whole = copies(activation, len(self))
        parts = whole.view(len(self), len(activation), *activation.shape[1:])
        if parts.device.type == "cpu":
            for part, column, values in zip(parts, self.numbers, self.values, strict=True):
                self._by_column(part).select(1, column).copy_(values)
            return whole
        rows = torch.arange(len(self), device=self.index.device)
        if self.last and not self.flat:
            parts = parts.movedim(-1, 2)
        elif self.flat:
            parts = parts.view(*parts.shape[:2], -1, *self.values.shape[2:])
        parts[rows, :, self.index] = self.values
        return whole

    def _by_column(self, activation: Tensor) -> Tensor:
        """Return a view of an activation of shape (b, columns, *rest)."""
        if self.flat:
            return activation.view(len(activation), -1, *self.values.shape[2:])
        return activation.movedim(-1, 1) if self.last else activation


def picked(rows: Tensor, index: Tensor, numbers: tuple[int, ...]) -> Tensor:
    """Return some rows of a tensor, or, if they are one and the same, that row alone: shape (1, ...)."""
    if numbers.count(numbers[0]) == len(numbers):
        return rows[numbers[0]].unsqueeze(0)
    return rows.index_select(0, index)


def copies(activation: Tensor, count: int) -> Tensor:
    """Return whole copies one after the other, (count * b, ...), with dimensions in the same order."""
    if activation.ndim == 2 and activation.stride(0) == 1:
        return activation.t().repeat(1, count).t()
    if is_channels_last(activation):
        return activation.permute(0, 2, 3, 1).repeat(count, 1, 1, 1).permute(0, 3, 1, 2)
    return activation.repeat(count, *[1] * (activation.ndim - 1))


def is_channels_last(activation: Tensor) -> bool:
    """Whether images lie in memory pixel by pixel."""
    return activation.ndim == 4 and activation.is_contiguous(memory_format=torch.channels_last)


def ordered(activation: Tensor, by_pixel: bool) -> Tensor:
    """Return an activation whose images lie in memory pixel by pixel, or whose dimensions are in order."""
    if by_pixel and activation.ndim == 4:
        return activation.contiguous(memory_format=torch.channels_last)
    return activation.contiguous()


def by_copy(whole: Tensor, count: int) -> Tensor:
    """Return a view of whole copies of shape (count, b, ...)."""
    return whole.view(count, whole.shape[0] // count, *whole.shape[1:])
