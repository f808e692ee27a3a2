"""Models of which nothing is known but what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.fingerprint import describe, digest


class BlackBox(nn.Module):
    """A model that answers and gives away nothing else: a stage behind networks that are to be trained.

    What it returns has no history, so no gradient passes through it. The network around it has none of its
    parameters and buffers: they are not trained, not saved with the network, and no change of mode and no
    `zoo.nn.calibrate.calibrate_` reaches them. They do move between devices and dtypes with the network.

    Answers have to be given to each example by itself, and to be the same each time. Many mini-batches may be
    asked about in one call.

    Args:
        function: A module, which is put into evaluation mode, or any function of inputs (n, ...) that returns
            a tensor (n, ...), such as logits (n, classes).

    Attributes:
        function: The same.

    Raises:
        TypeError: `function` cannot be called, or returns something else than a tensor.
        ValueError: It does not return one row for each input.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), BlackBox(nn.Linear(3, 2)))
        >>> model(torch.ones(4, 3)).requires_grad
        False
        >>> [name for name, parameter in model.named_parameters()]
        ['0.weight', '0.bias']
    """

    row_wise = True  # so that many changed copies are asked about at a time; see `zoo.nn.coordinates.rules`
    function: Callable[[Tensor], Tensor]

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"`function` must be a module or a function of inputs, got {function!r}.")
        if isinstance(function, nn.Module):
            function.eval()
        self.__dict__["function"] = function  # past `__setattr__`, which would make it a part

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answers = self.function(x.detach())
        if not isinstance(answers, Tensor):
            raise TypeError(f"`function` must return a tensor, got {type(answers).__name__}.")
        if answers.ndim == 0 or len(answers) != len(x):
            raise ValueError(
                f"`function` must return one row for each of {len(x)} inputs, got shape "
                f"{tuple(answers.shape)}."
            )
        return answers.detach()

    def extra_repr(self) -> str:
        """Return digits that differ between black boxes, so that a run is not resumed with another one."""
        if isinstance(self.function, nn.Module):
            return digest([repr(self.function), *self.function.state_dict().values()])
        return digest(sorted(describe(self.function).items()))

    def _apply(self, fn: Any, recurse: bool = True) -> BlackBox:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if recurse and isinstance(self.function, nn.Module):
            self.function._apply(fn)  # type: ignore[no-untyped-call]
        return self
