"""Normalization, over the mini-batch or within an example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.nn.coordinates.changes import Columns, by_copy
from zoo.nn.coordinates.rules.base import Places, Rule, Seen


class BatchNormalization(Rule):
    """y_c = gamma_c (x_c - mean_c) / sqrt(variance_c + eps) + beta_c.

    In training mean and variance are those of the mini-batch, of each copy by itself, and running statistics
    stay as they are. A change of gamma_c or beta_c changes channel c alone.
    """

    fresh = True

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        by_batch = module.training or module.running_mean is None
        return Seen(module, x, _normalized(module, x, by_batch), {"by_batch": by_batch})

    def moves_columns(self, seen: Seen, name: str) -> bool:
        return True

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        columns = places.columns(seen.y)
        times = None
        if places.name == "weight":
            times = self._standardized(seen, columns.holding(columns.of(seen.x)))
        return columns.holding(places.added_to(columns.of(seen.y), times))

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        module = seen.module
        if columns.last or columns.flat:
            return None
        values = self._standardized(seen, columns)
        if module.affine:
            shape = (-1, *[1] * (values.ndim - 1))
            weight, bias = module.weight.detach()[columns.index], module.bias.detach()[columns.index]
            values = torch.addcmul(bias.view(shape), values, weight.view(shape))
        return columns.holding(values)

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        if not seen.kept["by_batch"] or count == 1:
            return _normalized(seen.module, x, seen.kept["by_batch"])
        if x.device.type == "cpu":
            return torch.cat([_normalized(seen.module, part, True) for part in by_copy(x, count)])
        return normalized_together(seen.module, x, count)

    def _standardized(self, seen: Seen, columns: Columns) -> Tensor:
        """Return columns less their mean and over their deviation."""
        module, values = seen.module, columns.values
        if not seen.kept["by_batch"]:
            shape = (-1, *[1] * (values.ndim - 1))
            index = columns.index[: len(values)]
            mean, variance = module.running_mean[index].view(shape), module.running_var[index].view(shape)
            return (values - mean) * (variance + module.eps).rsqrt()
        over = tuple(range(1, values.ndim))
        values = values - values.mean(over, keepdim=True)
        flat = values.flatten(1)
        variance = torch.bmm(flat.unsqueeze(1), flat.unsqueeze(2)).view(-1, *[1] * (values.ndim - 1))
        return values.mul_((variance / flat.shape[1] + module.eps).rsqrt_())


class WithinExample(Rule):
    """Layer and group normalization: a change of gamma or beta changes one column."""

    fresh = True

    def accepts(self, module: Any) -> bool:
        return isinstance(module, nn.GroupNorm) or len(module.normalized_shape) == 1

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, module(x))

    def column_size(self, seen: Seen) -> int:
        return max(1, seen.y.numel() // seen.y.shape[1 if isinstance(seen.module, nn.GroupNorm) else -1])

    def moves_columns(self, seen: Seen, name: str) -> bool:
        return True

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        module = seen.module
        columns = places.columns(seen.y, last=isinstance(module, nn.LayerNorm) and seen.y.ndim > 2)
        times = None
        if places.name == "weight":
            if "standardized" not in seen.kept:
                seen.kept["standardized"] = _without_affine(module, seen.x)
            times = columns.of(seen.kept["standardized"])
        return columns.holding(places.added_to(columns.of(seen.y), times))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        result: Tensor = seen.module(x)
        return result


def _normalized(module: Any, x: Tensor, by_batch: bool) -> Tensor:
    """Return what the module returns, without counting the mini-batch."""
    mean, variance = (None, None) if by_batch else (module.running_mean, module.running_var)
    return functional.batch_norm(x, mean, variance, module.weight, module.bias, by_batch, 0.0, module.eps)


def normalized_together(module: Any, x: Tensor, count: int) -> Tensor:
    """Return copies normalized by the mini-batch, each by itself, in as many calls as one takes."""
    parts = by_copy(x, count)
    over = (1, *range(3, parts.ndim))
    variance, mean = torch.var_mean(parts, over, correction=0, keepdim=True)
    scale, centred = (variance + module.eps).rsqrt(), parts - mean
    if not module.affine:
        return centred.mul_(scale).flatten(0, 1)
    weight, bias = (own.detach().view(-1, *[1] * (parts.ndim - 3)) for own in (module.weight, module.bias))
    return torch.addcmul(bias, centred, scale * weight).flatten(0, 1)


def _without_affine(module: Any, x: Tensor) -> Tensor:
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(x, module.num_groups, None, None, module.eps)
    return functional.layer_norm(x, module.normalized_shape, None, None, module.eps)
