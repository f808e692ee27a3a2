"""Fully connected networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import nn

from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.nn.initialize import initialized


def mlp(sizes: Sequence[int], *, key: Key, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers with an activation between every two.

    Inputs of shape (n, ...) are flattened to (n, sizes[0]); outputs have shape (n, sizes[-1]).

    Args:
        sizes: Numbers of inputs, of hidden units of each layer, and of outputs; at least two.
        key: Where the initial weights come from.
        activation: Makes the module between two layers.

    Raises:
        TypeError: A size is no integer.
        ValueError: A size is below 1, or there are fewer than two.

    Example:
        >>> model = mlp((64, 16, 10), key=Key(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        1210
    """
    if len(sizes) < 2:
        raise ValueError(f"`sizes` must name at least inputs and outputs, got {tuple(sizes)!r}.")
    sizes = [check_count("sizes", size) for size in sizes]

    def build() -> nn.Sequential:
        modules: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(sizes):
            modules += [nn.Linear(inputs, outputs), activation()]
        return nn.Sequential(*modules[:-1])

    return initialized(build, key)
