"""Small classifiers, many at a time, with all weights of one in a row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.core.device import Array, array_module
from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.updates.adam import Adam


def as_hidden(hidden: Any) -> tuple[int, ...]:
    """Return the sizes of hidden layers that a number stands for, 0 for none, or several do."""
    several = isinstance(hidden, (tuple, list))
    sizes = hidden if several else () if hidden == 0 and not isinstance(hidden, bool) else (hidden,)
    return tuple(check_count("hidden", size) for size in sizes)


def num_weights(sizes: Sequence[int]) -> int:
    """Return how many weights there are between layers of some sizes, biases among them.

    Example:
        >>> num_weights((54, 30, 14, 7))
        2189
    """
    return sum((one + 1) * other for one, other in itertools.pairwise(sizes))


def logits(weights: Array, inputs: Array, sizes: Sequence[int]) -> Any:
    """Return what fully connected networks with ReLUs between their layers answer.

    Args:
        weights: A network in every row, shape (k, P): for each layer its weights (out, in), then its biases.
        inputs: Shape (n, sizes[0]), the same for all networks, or (k, n, sizes[0]).
        sizes: Of the layers, from the inputs to the classes.

    Returns:
        Shape (k, n, sizes[-1]).
    """
    xp = array_module(weights)
    found, place = inputs, 0
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        matrix = weights[:, place : place + fan_in * fan_out].reshape(-1, fan_out, fan_in)
        place += fan_in * fan_out
        bias = weights[:, None, place : place + fan_out]
        place += fan_out
        if number:
            found = xp.clip(found, 0, None)
        found = found @ xp.swapaxes(matrix, 1, 2) + bias
    return found


def train(
    inputs: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    parts: Sequence[np.ndarray[Any, Any]],
    sizes: Sequence[int],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    key: Key,
    batch_size: int = 64,
) -> np.ndarray[Any, Any]:
    """Return a classifier for each of several sets of examples, trained by back-propagation.

    Adam on the cross-entropy of mini-batches that are drawn with replacement. What is drawn follows from the
    key; the last bits of sums are those of this machine.

    Args:
        inputs: All examples, shape (n, sizes[0]).
        labels: Their classes, shape (n,).
        parts: The indices of each set.
        sizes: Of the layers.
        steps: Steps of Adam.
        learning_rate: Its learning rate.
        weight_decay: What of the weights is added to their gradient.
        key: Randomness of initial weights and of mini-batches.
        batch_size: Examples of a mini-batch.

    Returns:
        Weights, shape (len(parts), P), single precision.
    """
    import torch
    from torch.nn import functional

    count = len(parts)
    layers = []
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        drawn = key.fold("layer", number).normal(0, count, fan_in * fan_out)
        layers += [drawn * (2 / fan_in) ** 0.5, np.zeros((count, fan_out))]
    weights = torch.from_numpy(np.concatenate(layers, 1).astype(np.float32))
    x, y = torch.from_numpy(np.ascontiguousarray(inputs, np.float32)), torch.from_numpy(labels)
    drawn = [
        part[key.fold("batches", number).integers(0, steps, batch_size, high=len(part))]
        for number, part in enumerate(parts)
    ]
    batches = torch.from_numpy(np.stack(drawn, 1))
    adam = Adam()
    memory = adam.init(weights)
    for rows in batches:
        with torch.enable_grad():
            found = logits(weights.requires_grad_(), x[rows], sizes)
            # The sum over the networks: each has the gradient that it would have by itself.
            loss = functional.cross_entropy(found.flatten(0, 1), y[rows].flatten()) * count
            (gradient,) = torch.autograd.grad(loss, weights)
        weights = weights.detach()
        memory, direction = adam.update(memory, gradient + weight_decay * weights)
        weights = weights - learning_rate * direction
    return weights.numpy()
