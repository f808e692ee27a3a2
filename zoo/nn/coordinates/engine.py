"""The engine of single-coordinate changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.core.rng import Key
from zoo.nn.isolation import isolated
from zoo.nn.losses import Loss
from zoo.nn.parameters import Parameters
from zoo.nn.stages import Stages

_UNIT = 64  # coordinates


@dataclass(frozen=True)
class Cached:
    """One mini-batch as the unchanged network saw it.

    Attributes:
        loss: Mean of the losses of its examples.
    """

    inputs: Tensor
    targets: Tensor
    key: Key
    loss: float


class Coordinates:
    """Losses of a network with one parameter changed, for many parameters.

    Args:
        stages: The network.
        loss: Of each example; see `zoo.nn.losses`.

    Attributes:
        parameters: Of the network, in the order in which coordinates are counted.

    Example:
        >>> from torch import nn
        >>> from zoo.nn.losses import squared_error
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = model[0].weight.data.zero_()
        >>> engine = Coordinates(Stages(model), squared_error)
        >>> cached = engine.prepare(torch.eye(2), torch.zeros(2, 1), Key(0))
        >>> engine.losses(cached, torch.tensor([0, 1]), 2.0).tolist()
        [2.0, 2.0]
    """

    def __init__(self, stages: Stages, loss: Loss) -> None:
        self.stages, self.loss = stages, loss
        self.parameters = Parameters(stages.model)

    def prepare(self, inputs: Tensor, targets: Tensor, key: Key) -> Cached:
        """Evaluate the network as it is on a mini-batch; `key` is of dropout masks."""
        with isolated(key) as isolation:
            loss = isolation.call(lambda: self._mean(inputs, targets))
        return Cached(inputs, targets, key, float(loss))

    def losses(self, cached: Cached, indices: Tensor, smoothing: float | Tensor) -> Tensor:
        """Return the mean loss with coordinate indices[k] changed by smoothing[k], in float64, shape (n,)."""
        indices = torch.as_tensor(indices)
        steps = torch.as_tensor(smoothing, dtype=torch.float64).expand(len(indices))
        found = torch.empty(len(indices), dtype=torch.float64)
        with isolated(cached.key) as isolation:
            for number, (index, step) in enumerate(zip(indices.tolist(), steps.tolist(), strict=True)):
                owner = int(torch.searchsorted(torch.tensor(self.parameters.offsets), index, right=True)) - 1
                tensor = self.parameters.tensors[owner].detach().reshape(-1)
                place = index - self.parameters.offsets[owner]
                before = tensor[place].clone()
                tensor[place] += step
                found[number] = isolation.call(lambda: self._mean(cached.inputs, cached.targets))
                tensor[place] = before
        return found.to(cached.inputs.device)

    def boundaries(self, indices: Tensor) -> list[int]:
        """Return where units of sorted indices begin, and their end: they depend on the indices alone."""
        return [*range(0, len(indices), _UNIT), len(indices)]

    def costs(self, indices: Tensor, cached: Cached | None = None) -> Tensor:
        """Return what the loss of each coordinate takes, relative to the others, shape (n,)."""
        return torch.ones(len(indices), dtype=torch.float64)

    def _mean(self, inputs: Tensor, targets: Tensor) -> Tensor:
        through = inputs
        for module in self.stages.modules:
            through = module(through)
        return self.loss(through, targets).double().mean()
