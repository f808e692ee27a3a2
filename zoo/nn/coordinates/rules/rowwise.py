"""Modules of which little is known: called whole, on many copies at once or on one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.rng import generator_states, set_generators
from zoo.nn.coordinates.changes import by_copy, is_channels_last, ordered
from zoo.nn.coordinates.rules.base import Places, Rule, Seen


class Unknown(Rule):
    """Any module at all: it is called on one copy after the other.

    Each time the generators and the module's buffers are where the unchanged pass found them.
    """

    unit = 64

    def draws(self, module: nn.Module) -> bool:
        return True

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        x = ordered(x, by_pixel)
        buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        before = generator_states()
        y = module(x.clone())
        drawn = None if _same(before, generator_states()) else before
        _put_back(buffers)
        return Seen(module, x, y, {"buffers": buffers, "generators": drawn})

    def changed(self, seen: Seen, places: Places) -> Tensor:
        def call() -> Tensor:
            _rewind(seen)
            y: Tensor = seen.module(seen.x.clone())
            _put_back(seen.kept["buffers"])
            return y

        return _each_changed(seen.module, places, call)

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        results = []
        for part in by_copy(ordered(x, is_channels_last(seen.x)), count):
            _rewind(seen)
            results.append(seen.module(part))
            _put_back(seen.kept["buffers"])
        return torch.cat(results) if count > 1 else _own(results[0])


class RowWise(Rule):
    """Modules that treat the examples of a batch one by one, and draw no random numbers."""

    unit = 64

    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        return Seen(module, x, module(x.clone()))

    def changed(self, seen: Seen, places: Places) -> Tensor:
        return _each_changed(seen.module, places, lambda: seen.module(seen.x.clone()))

    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        return _own(seen.module(x))


def _each_changed(module: nn.Module, places: Places, call: Callable[[], Tensor]) -> Tensor:
    """Return what a module returns with one entry of a parameter changed after the other, (K * b, ...)."""
    parameter = dict(module.named_parameters())[places.name]
    value = parameter.detach().clone(memory_format=torch.contiguous_format)
    entries, results = value.view(-1), []
    with _replaced(module, parameter, value):
        for copy, number in enumerate(places.numbers):
            before = entries[number].clone()
            entries[number] += places.steps[copy]
            results.append(call())
            entries[number] = before
    return torch.cat(results) if len(results) > 1 else _own(results[0])


@contextlib.contextmanager
def _replaced(module: nn.Module, parameter: nn.Parameter, value: Tensor) -> Iterator[None]:
    """Let a tensor stand for a parameter wherever a module has it.

    `torch.func.functional_call` loses the parameter for good where a module is registered twice.
    """
    found = [
        (owner, name)
        for owner in module.modules()
        for name, own in owner._parameters.items()
        if own is parameter
    ]
    stand_in = nn.Parameter(value, requires_grad=False)
    try:
        for owner, name in found:
            owner._parameters[name] = stand_in
        yield
    finally:
        for owner, name in found:
            owner._parameters[name] = parameter


def _own(y: Tensor) -> Tensor:
    """Return memory that can be written to: each entry in a place of its own."""
    return y.clone(memory_format=torch.contiguous_format) if 0 in y.stride() else y


def _rewind(seen: Seen) -> None:
    if seen.kept["generators"] is not None:
        set_generators(seen.kept["generators"])


def _put_back(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    for buffer, kept in buffers:
        buffer.copy_(kept)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool((one == other).all()) if hasattr(one, "dtype") else bool(one == other)
