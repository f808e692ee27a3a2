"""How a network does on a whole set of examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.core.validation import check_count
from zoo.nn.batches import check_examples
from zoo.nn.losses import Loss, errors


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network and all its modules into evaluation mode for a block, and back into their modes after it.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     model[0].training
        False
        >>> model[0].training, model[1].training
        (True, False)
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss, *, chunk: int = 1024) -> float:
    """Return the mean loss of a network over a set, taken in their order, in double precision.

    The network runs in evaluation mode, without a graph of gradients. Nothing of it changes.

    Args:
        model: The network.
        inputs: Shape (n, ...).
        targets: Shape (n, ...).
        loss: One number for each example; see `zoo.nn.losses`.
        chunk: Most examples that the network sees at a time.

    Raises:
        TypeError: `inputs` or `targets` is no tensor.
        ValueError: There are not as many targets as inputs, or none; or `loss` does not return one number for
            each example.

    Example:
        >>> from zoo.nn.losses import squared_error
        >>> mean_loss(nn.Identity(), torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), squared_error)
        5.0
    """
    check_examples(inputs, targets)
    check_count("chunk", chunk)
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    with evaluating(model), torch.no_grad():
        for start in range(0, len(inputs), chunk):
            part = slice(start, start + chunk)
            values = loss(model(inputs[part]), targets[part])
            if values.shape != inputs[part].shape[:1]:
                raise ValueError(
                    f"`loss` must return one number for each of {len(inputs[part])} examples, got shape "
                    f"{tuple(values.shape)}."
                )
            total += values.double().sum()
    return float(total) / len(inputs)


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor, *, chunk: int = 1024) -> float:
    """Return the share of a set whose label has the largest of a network's outputs.

    Args:
        model: A network that returns logits (n, classes), or (n, length, classes).
        inputs: Shape (n, ...).
        targets: Labels, shape (n,), or (n, length).
        chunk: Most examples that the network sees at a time.

    Raises:
        TypeError: `inputs` or `targets` is no tensor.
        ValueError: There are not as many targets as inputs, or none.

    Example:
        >>> accuracy(nn.Identity(), torch.eye(3), torch.tensor([0, 1, 0])) * 3
        2.0
    """
    return 1 - mean_loss(model, inputs, targets, errors, chunk=chunk)
