"""Losses of a batch, one number for each of its examples.

A loss here is a function `loss(outputs, targets)` of what a network returns for n examples, n first, and of
what it should have returned. It returns shape (n,): the mean is taken by who calls it, in double precision,
and may be taken over any part of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return -log softmax(outputs)[target], of logits (n, classes) and labels (n,).

    Logits of shape (n, length, classes) and labels (n, length) give the mean over the length.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().tolist()
        [4.0]
    """
    if outputs.ndim == 2:
        return functional.cross_entropy(outputs, targets, reduction="none")
    flat = functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    return flat.view(len(outputs), -1).mean(1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean square of outputs - targets over all but the first dimension."""
    return (outputs - targets).square().flatten(1).mean(1)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of |outputs - targets| over all but the first dimension."""
    return (outputs - targets).abs().flatten(1).mean(1)


def errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the largest of the logits (n, classes) is not the label's, else 0.

    Logits of shape (n, length, classes) and labels (n, length) give the mean over the length.

    Example:
        >>> import torch
        >>> errors(torch.eye(3), torch.tensor([0, 1, 0])).tolist()
        [0.0, 0.0, 1.0]
    """
    wrong = (outputs.argmax(-1) != targets).to(outputs.dtype)
    return wrong if wrong.ndim == 1 else wrong.flatten(1).mean(1)
