"""Linear layers and embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.nn.coordinates.changes import Columns, picked
from zoo.nn.coordinates.rules.base import Places, Rule, Seen

_FEWEST = 4  # columns of what goes in, from which on a change is applied by itself


class Linear(Rule):
    """y = x W^T + b.

    W[j, i] + step changes column j of y by step * x[..., i], and b[j] + step by step. Where column i of x
    changes by d, y changes by d W[:, i]. Outputs of shape (b, columns) lie in memory column by column.
    """

    fresh = True
    mixes = True
    last = True

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, _linear(x, module))

    def moves_columns(self, seen: Seen, name: str) -> bool:
        return True

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        last, inputs = seen.y.ndim > 2, seen.x.shape[-1]
        if places.name == "bias":
            columns = places.columns(seen.y, last=last)
            return columns.holding(places.added_to(columns.of(seen.y)))
        columns = places.columns(seen.y, size=inputs, last=last)
        rows = seen.x.movedim(-1, 0)
        moved = picked(rows, places.index % inputs, tuple(number % inputs for number in places.numbers))
        return columns.holding(places.added_to(columns.of(seen.y), moved))

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        if seen.x.ndim == 2 or columns.last:
            return None
        return columns.holding(_linear(columns.values, seen.module))

    def mixed(self, seen: Seen, columns: Columns) -> Tensor:
        weight = seen.module.weight.detach()
        size = columns.values[0, 0].numel() if columns.flat else 1
        if weight.shape[1] < _FEWEST * size:
            return super().mixed(seen, columns)
        moved = columns.values - columns.of(seen.x)
        by_column = weight.view(len(weight), -1, size).movedim(1, 0)
        weights = picked(by_column, columns.index, columns.numbers)  # (K or 1, outputs, size)
        if columns.last:
            weights = weights.view(len(weights), *[1] * (moved.ndim - 1), -1)
            return seen.y.addcmul(moved.unsqueeze(-1), weights).flatten(0, 1)
        if columns.flat:
            changes = weights.expand(len(moved), -1, -1).bmm(moved.flatten(2).mT)
            y = changes.transpose(0, 1) + seen.y.t().unsqueeze(1)
        else:
            y = seen.y.t().unsqueeze(1).addcmul(weights.squeeze(2).t().unsqueeze(2), moved)
        return y.flatten(1).t()

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        return _linear(x, seen.module)

    def work(self, seen: Seen) -> float:
        return 2.0 * seen.x.numel() * seen.y.shape[-1]


class Embedding(Rule):
    """y = W[x]: W[v, j] + step changes column j of y by step where x is v."""

    fresh = True
    last = True

    def accepts(self, module: Any) -> bool:
        return module.max_norm is None

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, module(x))

    def moves_columns(self, seen: Seen, name: str) -> bool:
        return seen.y.ndim == seen.x.ndim + 1 and seen.x.ndim > 0

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        width = seen.y.shape[-1]
        numbers = tuple(number % width for number in places.numbers)
        columns = Columns(seen.y, places.index % width, numbers, last=seen.y.ndim > 2)
        words = (places.index // width).view(-1, *[1] * seen.x.ndim)
        return columns.holding(places.added_to(columns.of(seen.y), (seen.x == words).to(seen.y.dtype)))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        result: Tensor = seen.module(x)
        return result


def _linear(x: Tensor, module: Any) -> Tensor:
    if x.ndim != 2:
        return functional.linear(x, module.weight, module.bias)
    if module.bias is None:
        return torch.mm(module.weight, x.t()).t()
    return torch.addmm(module.bias.unsqueeze(1), module.weight, x.t()).t()
