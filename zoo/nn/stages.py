"""Networks as an ordered list of stages, so that a change to one needs only those behind it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from zoo.core.rng import Key
from zoo.nn.isolation import isolated


class Residual(nn.Module):
    """A branch added to a shortcut: branch(x) + shortcut(x).

    Both ways are of the same x: one in which a module works in place (`inplace`) gets a copy.

    Args:
        branch: Modules of the branch, in their order.
        shortcut: What x passes on the other way; nothing by default.

    Raises:
        ValueError: A way wrote to x, and no module in it says so by an attribute `inplace` that is True.

    Example:
        >>> block = Residual([nn.Linear(2, 2, bias=False), nn.ReLU()])
        >>> block(torch.zeros(1, 2)).tolist()
        [[0.0, 0.0]]

    References:
        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016.
        https://arxiv.org/abs/1512.03385
    """

    def __init__(self, branch: Sequence[nn.Module], shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        return _of(x, self.branch) + _of(x, self.shortcut)


class Stages:
    """A network as modules that are called one after the other.

    Args:
        model: The network: an `nn.Sequential`, nested or not, or any module if its stages are given.
        modules: Its stages in their order; those within an `nn.Sequential` count one by one.

    Attributes:
        model: The network.
        modules: Its stages.
        is_sequential: Whether they are all that the network does because it is an `nn.Sequential`.

    Raises:
        TypeError: `model` is no `nn.Sequential`, and no stages are given; or a module of TorchScript in it
            has buffers, which nothing could put back.
        ValueError: A parameter of the model is in none of the stages, or in two of them.

    Example:
        >>> stages = Stages(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU())))
        >>> [type(module).__name__ for module in stages.modules]
        ['Flatten', 'Linear', 'ReLU']
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module] | None = None) -> None:
        self.is_sequential = modules is None
        if modules is None:
            if not isinstance(model, nn.Sequential) or not is_plain(model, nn.Sequential):
                raise TypeError(
                    "`model` must be an nn.Sequential without hooks, or come with its `modules`, "
                    f"got {type(model).__name__}."
                )
            modules = list(model)
        for part in model.modules():
            if isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.buffers()):
                raise TypeError(
                    "`model` must not hold a module of TorchScript with buffers, got one made from "
                    f"{part.original_name}; give the module that it was made from."
                )
        self.model, self.modules = model, tuple(flattened(modules))
        self._check_parameters()

    def __len__(self) -> int:
        return len(self.modules)

    def check(self, inputs: Tensor, key: Key | None = None) -> None:
        """Raise ValueError if the stages in a row do not return what the model returns, bit for bit.

        Both are called as they are, in training or evaluation mode, and leave everything as it was.

        Args:
            inputs: Of some examples.
            key: Of dropout masks, the same for both; any by default.
        """
        with isolated(key or Key(0)) as isolation:
            whole = isolation.call(lambda: self.model(inputs))
            through = isolation.call(lambda: functools.reduce(_called, self.modules, inputs))
        if whole.shape != through.shape or not torch.equal(whole, through):
            raise ValueError(
                "`modules` must be the model's stages in their order, all of what its `forward` does: one "
                f"after the other they return {_described(through)}, and the model {_described(whole)}. "
                "Put what `forward` does between them into modules of their own."
            )

    def _check_parameters(self) -> None:
        where: dict[int, int] = {}
        for number, module in enumerate(self.modules):
            for name, parameter in module.named_parameters():
                if where.setdefault(id(parameter), number) != number:
                    raise ValueError(
                        f"`modules` must not share parameters, got {name!r} in stages {where[id(parameter)]} "
                        f"and {number}: a change to it would not be one to a single stage."
                    )
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in where:
                raise ValueError(f"`modules` must hold all parameters of the model, and none holds {name!r}.")


def _of(x: Tensor, way: nn.Module) -> Tensor:
    """Return what a way makes of x, which stays as it is."""
    copied = any(getattr(module, "inplace", False) for module in way.modules())
    counts = not (copied or x.is_inference())
    before = x._version if counts else 0
    y: Tensor = way(x.clone() if copied else x)
    if counts and x._version != before:
        raise ValueError(
            "the ways of a `Residual` must not write to what they are given, and one did; let its module "
            "work on a copy, or say so by an attribute `inplace` that is True."
        )
    return y


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module does what the modules of a type do and nothing else, by hooks or otherwise."""
    # A module of TorchScript has no `forward` in its type.
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in module.__dict__
        and not (module._forward_hooks or module._forward_pre_hooks)
    )


def flattened(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield modules in their order, with those within an `nn.Sequential` one by one."""
    for module in modules:
        if is_plain(module, nn.Sequential) and isinstance(module, nn.Sequential):
            yield from flattened(module)
        else:
            yield module


def _called(x: Tensor, module: nn.Module) -> Tensor:
    y: Tensor = module(x)
    return y


def _described(outputs: Tensor) -> str:
    return f"shape {tuple(outputs.shape)} with mean {float(outputs.double().mean()):.6g}"
