"""Initial weights of a network, drawn under a key."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from zoo.core.rng import Key, keyed_generators
from zoo.core.validation import check_choice

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def initialize_(module: nn.Module, key: Key, *, law: str = "default") -> None:
    """Draw all weights of a network anew, each layer's as a function of the key and its name alone.

    Two networks with a layer of the same name and shape begin with the same weights there, whatever else is
    in them. Running statistics begin anew as well. The global generators stay as they are. Weights that are
    drawn on the CPU are the same everywhere; those drawn on another device differ from them.

    Args:
        module: The network. Its layers are reset by their own `reset_parameters`.
        key: Where the weights come from.
        law: "default" for what torch's layers do by themselves; "he" for weights of convolutions and linear
            layers from N(0, 2 / n), n the number of inputs of a unit, and biases of zero.

    Raises:
        ValueError: `law` is none of these, or a layer has parameters and no `reset_parameters`.

    Example:
        >>> from zoo.nn.models.mlp import mlp
        >>> model = mlp((3, 2), key=Key(0))
        >>> before = model[1].weight.tolist()
        >>> initialize_(model, Key(1))
        >>> initialize_(model, Key(0))
        >>> model[1].weight.tolist() == before
        True

    References:
        He, Zhang, Ren and Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
        classification", 2015. https://arxiv.org/abs/1502.01852
    """
    check_choice("law", law, ("default", "he"))
    layers = []
    for name, layer in module.named_modules():
        own = itertools.chain(layer.parameters(recurse=False), layer.buffers(recurse=False))
        if next(own, None) is None:
            continue
        # Attention of torch's own has it under this name.
        reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
        if reset is not None:
            layers.append((name, layer, reset))
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ValueError(
                f"`module` must have layers that can be reset, got {type(layer).__name__} {name!r} with "
                "parameters and without; give it a method `reset_parameters`."
            )
    for name, layer, reset in layers:
        with keyed_generators(key.fold("initialize", name)):
            reset()
        if law == "he" and isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _draw_he_(layer, key.fold("he", name))


def _draw_he_(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, key: Key) -> None:
    weight = layer.weight
    drawn = key.normal(0, 1, weight.numel(), like=weight.detach())
    with torch.no_grad():
        weight.copy_(drawn.view(weight.shape) * (2 / weight[0].numel()) ** 0.5)
        if layer.bias is not None:
            layer.bias.zero_()


def initialized(build: Callable[[], ModuleT], key: Key, *, law: str = "default") -> ModuleT:
    """Return the network that `build` makes, with weights drawn under a key, on the CPU.

    Example:
        >>> layer = initialized(lambda: nn.Linear(3, 2), Key(0))
        >>> tuple(layer.weight.shape)
        (2, 3)
    """
    with keyed_generators(key):  # layers draw weights when they are made
        module = build()
    initialize_(module, key, law=law)
    return module
