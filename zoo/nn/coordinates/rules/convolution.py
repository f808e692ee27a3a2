"""Convolutions of images and signals, with images pixel by pixel in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.nn.coordinates.changes import Columns, picked
from zoo.nn.coordinates.rules.base import Places, Rule, Seen

_FEWEST = 4  # channels of what goes in, from which on a change is applied by itself


class Convolution(Rule):
    """y_o = b_o + sum over channels i and offsets of W[o, i, offset] * (x_i, shifted by that offset).

    W[o, i, offset] + step changes channel o of y by step times one shifted channel of x. Where channel i of x
    changes by d, y changes by the convolution of d alone with W[:, i]. A signal is an image of height 1.
    """

    fresh = True
    mixes = True
    unit = 64

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, _convolved(module, x))

    def moves_columns(self, seen: Seen, name: str) -> bool:
        return True

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        module = seen.module
        if places.name == "bias":
            columns = places.columns(seen.y)
            return columns.holding(places.added_to(columns.of(seen.y)))
        inputs, offsets = module.weight.shape[1], module.weight[0, 0].numel()
        across = module.kernel_size[-1]
        columns = places.columns(seen.y, size=inputs * offsets)
        group = module.out_channels // module.groups
        channels = [
            column // group * inputs + number // offsets % inputs
            for column, number in zip(columns.numbers, places.numbers, strict=True)
        ]
        first, end = min(channels), max(channels) + 1
        shifted = _shifted(module, _planes(seen.x[:, first:end].transpose(0, 1)), _planes(seen.y).shape[-2:])
        base = _planes(columns.of(seen.y))
        if base.device.type == "cpu":
            values = base.new_empty(len(places), *base.shape[1:])
            steps = places.steps.tolist()
            for row, (number, channel) in enumerate(zip(places.numbers, channels, strict=True)):
                down, right = divmod(number % offsets, across)
                before = base[row if len(base) > 1 else 0]
                torch.add(before, shifted[down, right, channel - first], alpha=steps[row], out=values[row])
        else:
            offset = places.index % offsets
            channel = columns.index // group * inputs + places.index // offsets % inputs - first
            values = places.added_to(base, shifted[offset // across, offset % across, channel])
        return columns.holding(values.view(len(places), len(seen.y), *seen.y.shape[2:]))

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        module = seen.module
        if columns.last or not module.groups == module.in_channels == module.out_channels:
            return None
        weight = module.weight.detach().flatten(1)
        kernels = picked(weight, columns.index, columns.numbers)
        shifted = _shifted(module, _planes(columns.values), _planes(seen.y).shape[-2:])
        values = torch.zeros_like(shifted[0, 0], memory_format=torch.contiguous_format)
        if module.bias is not None:
            values += module.bias.detach()[columns.index].view(-1, 1, 1, 1)
        # One offset after the other: all of them side by side would take as many arrays.
        for offset, moved in enumerate(plane for row in shifted for plane in row):
            values.addcmul_(moved, kernels[:, offset].view(-1, 1, 1, 1))
        return columns.holding(values.view(len(columns), len(seen.y), *seen.y.shape[2:]))

    def mixed(self, seen: Seen, columns: Columns) -> Tensor:
        module = seen.module
        if columns.last or module.groups > 1 or module.in_channels < _FEWEST:
            return super().mixed(seen, columns)
        count = len(columns)
        patches = _patches(seen, columns.values - columns.of(seen.x))
        weight = module.weight.detach().flatten(2).transpose(0, 1)  # (channels in, channels out, offsets)
        kernels = picked(weight, columns.index, columns.numbers).expand(count, -1, -1)
        changes = torch.bmm(patches.permute(1, 2, 0), kernels.transpose(1, 2))
        pixels = seen.y.movedim(1, -1)
        y = changes.view(count, *pixels.shape).add_(pixels)
        return y.flatten(0, 1).movedim(-1, 1)

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        return _convolved(seen.module, x)

    def work(self, seen: Seen) -> float:
        return 2.0 * seen.y.numel() * seen.module.weight[0].numel()


def _convolved(module: Any, x: Tensor) -> Tensor:
    weight = module.weight
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
    result: Tensor = module._conv_forward(x, weight, module.bias)
    return result


def _planes(x: Tensor) -> Tensor:
    """Return signals (n, m, length) as images (n, m, 1, length), and images as they are."""
    return x.unsqueeze(-2) if x.ndim == 3 else x


def _patches(seen: Seen, values: Tensor) -> Tensor:
    """Return what each offset of the kernel meets in single channels (K, b, *rest): (offsets, K, outputs)."""
    shifted = _shifted(seen.module, _planes(values), _planes(seen.y).shape[-2:])
    return shifted.reshape(shifted.shape[0] * shifted.shape[1], len(values), -1)


def _shifted(module: Any, planes: Tensor, size: Any) -> Tensor:
    """Return planes (n, m, height, width) at all offsets of a kernel, a view (down, across, n, m, *size)."""
    around = list(module._reversed_padding_repeated_twice)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    if len(around) == 2:  # a signal
        planes = functional.pad(planes.squeeze(2), around, mode).unsqueeze(2)
    else:
        planes = functional.pad(planes, around, mode)
    planes = planes.contiguous()
    kernel, stride, dilation = (
        (1, *sizes) if len(sizes) == 1 else sizes
        for sizes in (module.kernel_size, module.stride, module.dilation)
    )
    n, m, down, across = planes.stride()
    return planes.as_strided(
        (*kernel, *planes.shape[:2], *size),
        (down * dilation[0], across * dilation[1], n, m, down * stride[0], across * stride[1]),
    )
