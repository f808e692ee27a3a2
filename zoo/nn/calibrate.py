"""Running statistics of normalization, from examples instead of from training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from zoo.nn.evaluate import evaluating


def calibrate_(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the running means and variances of batch and instance normalization to those of some batches.

    An estimated gradient leaves every buffer as it was, so a network that is trained by estimates has the
    running statistics it began with: before it is put into evaluation mode, they are to be found out. Mean
    and variance of what reaches a layer of batch normalization are taken over all batches together, with the
    divisor (number - 1); those of instance normalization are means over all instances of each one's own,
    likewise. Both are computed in double precision. While they are found out, layers in training mode
    normalize by the statistics of each batch or instance, as they do there. Layers in evaluation mode
    normalize by those they have, and keep them. All other modules are in evaluation mode, so that nothing is
    dropped. A layer that no batch reaches stays as it is, and so do parameters and modes.

    Args:
        model: The network.
        batches: Inputs of the network, each a batch, best of the size that is trained with.

    Returns:
        How many forward passes were made.

    Raises:
        ValueError: There are no batches, one of them gives a layer a single number of each channel, or all
            layers with running statistics are in evaluation mode.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> calibrate_(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        2
        >>> model[0].running_mean.item(), round(model[0].running_var.item(), 4)
        (4.0, 6.6667)

    References:
        Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021. https://arxiv.org/abs/2105.07576
    """
    statistics = [module for module in model.modules() if _has_statistics(module)]
    layers = [layer for layer in statistics if layer.training]
    if statistics and not layers:
        raise ValueError(
            "`model` must have layers in training mode, whose running statistics are not those that they "
            "normalize by; all are in evaluation mode. Call `model.train()` before."
        )
    found: dict[int, _Moments | _Means] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        made = _Moments if isinstance(layer, _BatchNorm) else _Means
        found.setdefault(id(layer), made()).add(layer, inputs[0].detach())

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


def is_calibrated(module: nn.Module) -> bool:
    """Return whether `calibrate_` finds out running statistics of a module."""
    return module.training and _has_statistics(module)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, (_BatchNorm, _InstanceNorm)) and module.running_mean is not None


class _Moments:
    """Number, mean and squared deviations of what a layer was given, for each channel."""

    def __init__(self) -> None:
        self.count, self.batches = 0, 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, layer: nn.Module, x: Tensor) -> None:
        rows = x.double().transpose(0, 1).flatten(1)
        count = rows.shape[1]
        _check_many(layer, count)
        mean = rows.mean(1)
        apart = mean - self.mean
        total = self.count + count
        # Two sets joined, without differences of large numbers.
        self.squares = self.squares + (rows - mean[:, None]).square().sum(1)
        self.squares = self.squares + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total
        self.batches += 1

    def write_(self, layer: nn.Module) -> None:
        _write_(layer, self.mean, self.squares / (self.count - 1), self.batches)


class _Means:
    """Means over instances of the mean and the variance of each, for each channel."""

    def __init__(self) -> None:
        self.count, self.batches = 0, 0
        self.mean: Any = 0.0
        self.variance: Any = 0.0

    def add(self, layer: Any, x: Tensor) -> None:
        instances = x[None] if x.ndim == layer._get_no_batch_dim() else x
        rows = instances.double().flatten(2)
        _check_many(layer, rows.shape[2])
        count = len(rows)
        self.count += count
        share = count / self.count
        self.mean = self.mean + (rows.mean(2).mean(0) - self.mean) * share
        self.variance = self.variance + (rows.var(2).mean(0) - self.variance) * share
        self.batches += 1

    def write_(self, layer: nn.Module) -> None:
        _write_(layer, self.mean, self.variance, self.batches)


def _check_many(layer: nn.Module, count: int) -> None:
    if count < 2:
        raise ValueError(
            f"`batches` must give a {type(layer).__name__} at least two numbers of each channel at a time, "
            f"as it normalizes by each batch, got {count}; take larger batches."
        )


def _write_(layer: nn.Module, mean: Tensor, variance: Tensor, batches: int) -> None:
    assert isinstance(layer, _NormBase)
    with torch.no_grad():
        for buffer, value in (
            (layer.running_mean, mean),
            (layer.running_var, variance),
            (layer.num_batches_tracked, batches),
        ):
            if buffer is not None:
                buffer.copy_(torch.as_tensor(value))
