"""Running statistics of batch normalization, from examples instead of from training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.nn.evaluate import evaluating


def calibrate_(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the running means and variances of batch normalization to those of some batches.

    An estimated gradient leaves every buffer as it was, so a network that is trained by estimates has the
    running statistics it began with: before it is put into evaluation mode, they are to be found out. Mean
    and variance of what reaches a layer are taken over all batches together, with the divisor (number - 1),
    in double precision. While they are found out layers normalize by the statistics of each batch, as in
    training; all other modules are in evaluation mode, so that nothing is dropped. A layer that no batch
    reaches stays as it is, and so do parameters and modes.

    Args:
        model: The network.
        batches: Inputs of the network, each a batch, best of the size that is trained with.

    Returns:
        How many forward passes were made.

    Raises:
        ValueError: There are no batches, or a layer saw one number only of each channel.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> calibrate_(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        2
        >>> model[0].running_mean.item(), round(model[0].running_var.item(), 4)
        (4.0, 6.6667)

    References:
        Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021. https://arxiv.org/abs/2105.07576
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    found: dict[int, _Moments] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(id(layer), _Moments()).add(inputs[0])

    kept = {id(layer): {name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers}
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    passes = 0
    try:
        with evaluating(model), torch.no_grad():
            for layer in layers:
                layer.train()
            for inputs in batches:
                model(inputs)
                passes += 1
        if not passes:
            raise ValueError("`batches` must hold at least one batch.")
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            for name, buffer in layer.named_buffers():
                buffer.copy_(kept[id(layer)][name])
    for layer in layers:
        if id(layer) in found:
            found[id(layer)].write_(layer)
    return passes


class _Moments:
    """Number, mean and squared deviations of what a layer was given, for each channel."""

    def __init__(self) -> None:
        self.count, self.batches = 0, 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, x: Tensor) -> None:
        rows = x.detach().double().transpose(0, 1).flatten(1)
        count = rows.shape[1]
        mean = rows.mean(1)
        apart = mean - self.mean
        total = self.count + count
        # Two sets joined, without differences of large numbers.
        self.squares = self.squares + (rows - mean[:, None]).square().sum(1)
        self.squares = self.squares + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total
        self.batches += 1

    def write_(self, layer: _BatchNorm) -> None:
        if self.count < 2:
            raise ValueError("`batches` must give each layer at least two numbers of each channel, got 1.")
        with torch.no_grad():
            for buffer, value in (
                (layer.running_mean, self.mean),
                (layer.running_var, self.squares / (self.count - 1)),
                (layer.num_batches_tracked, self.batches),
            ):
                if buffer is not None:
                    buffer.copy_(torch.as_tensor(value))
