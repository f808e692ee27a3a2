"""Pooling and flattening, which treat every channel by itself."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from zoo.nn.coordinates.changes import Columns
from zoo.nn.coordinates.rules.base import Rule, Seen


class Pooling(Rule):
    """Means and maxima over pieces of images or signals, channel by channel."""

    fresh = True

    def accepts(self, module: Any) -> bool:
        return not getattr(module, "return_indices", False)

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, module(x))

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        if columns.last or columns.flat:
            return None
        return columns.holding(seen.module(columns.values))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        result: Tensor = seen.module(x)
        return result


class Flattening(Rule):
    """nn.Flatten of all but the first dimension: a channel becomes a run of entries."""

    def accepts(self, module: Any) -> bool:
        return module.start_dim == 1 and module.end_dim == -1

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, x.flatten(1))

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        if seen.x.ndim == 2:
            return columns
        if columns.last:
            return None
        if math.prod(seen.x.shape[2:]) == 1:
            return columns.holding(columns.values.flatten(1))
        return Columns(columns.values.flatten(2), columns.index, columns.numbers, flat=True)

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        return x.flatten(1)

    def work(self, seen: Seen) -> float:
        return 0.0
