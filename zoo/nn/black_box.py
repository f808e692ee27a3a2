"""Models of which nothing is known but what they return."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class BlackBox(nn.Module):
    """A model that answers and gives away nothing else: a stage behind networks that are to be trained.

    What it returns has no history, so no gradient passes through it. A module is frozen, and stays in
    evaluation mode whatever mode the network around it is in. `Parameters` of that network leave those of the
    module out, though it moves between devices with the network.

    Answers have to be given to each example by itself, and to be the same each time. Many mini-batches may be
    asked about in one call.

    Args:
        function: A module, which is changed as said, or any function of inputs (n, ...) that returns a tensor
            (n, ...), such as logits (n, classes).

    Attributes:
        function: The same.

    Raises:
        TypeError: `function` cannot be called, or returns something else than a tensor.
        ValueError: It does not return one row for each input.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), BlackBox(nn.Linear(3, 2)))
        >>> model(torch.ones(4, 3)).requires_grad
        False
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['0.weight', '0.bias']
    """

    row_wise = True  # so that many changed copies are asked about at a time; see `zoo.nn.coordinates.rules`

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"`function` must be a module or a function of inputs, got {function!r}.")
        if isinstance(function, nn.Module):
            function.eval().requires_grad_(False)
        self.function = function

    def train(self, mode: bool = True) -> BlackBox:
        """Set the mode of this module, and leave what it holds in evaluation mode."""
        self.training = mode
        return self

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
