"""Modules that treat every number by itself: a changed column stays one column."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.coordinates.changes import Columns, by_copy, ordered
from zoo.nn.coordinates.rules.base import Rule, Seen


class Elementwise(Rule):
    """Activations without parameters."""

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, module(x.clone() if getattr(module, "inplace", False) else x))

    def columns(self, seen: Seen, columns: Columns) -> Columns:
        return columns.holding(seen.module(columns.values))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        result: Tensor = seen.module(x)
        return result


class Rectifier(Elementwise):
    """ReLU, which needs no second array."""

    def columns(self, seen: Seen, columns: Columns) -> Columns:
        return columns.holding(columns.values.relu_())

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        return x.relu_()


class Masked(Rule):
    """Dropout, of numbers or of whole channels: all copies have the mask of the unchanged pass."""

    def draws(self, module: nn.Module) -> bool:
        return module.training

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        if not module.training:
            return Seen(module, x, x)
        mask = module(ordered(torch.ones_like(x), by_pixel))
        return Seen(module, x, x * mask, {"mask": mask})

    def columns(self, seen: Seen, columns: Columns) -> Columns:
        if "mask" not in seen.kept:
            return columns
        return columns.holding(columns.values.mul_(columns.of(seen.kept["mask"])))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        if "mask" in seen.kept:
            by_copy(x, count).mul_(seen.kept["mask"])
        return x
