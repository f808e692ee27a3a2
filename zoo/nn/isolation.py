"""Evaluating a network as often as needed and leaving everything but the answer as it was."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.rng import Key, generator_states, keyed_generators, set_generators

_SHORT = 2**16  # elements, up to which a buffer is put back whether or not it is known to have changed


class Isolation:
    """Calls closures so that each sees the same random numbers and the same buffers.

    Every call begins with the global generators in the same keyed state: dropout masks, augmentation and
    whatever else a closure draws are the same for all of them. Buffers of the modules that a closure calls
    (running means of normalization layers, counters) are put back after each call, to the last bit.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, tuple[Tensor, Tensor, int]] = {}  # by id: the buffer, a copy, its version
        self._seen: set[int] = set()
        self._thread = threading.get_ident()
        self._generators = generator_states()

    def call(self, closure: Callable[[], Any]) -> Any:
        """Return what a closure returns, without a graph of gradients."""
        set_generators(self._generators)
        with torch.no_grad():
            result = closure()
        self._restore()
        return result

    def _note(self, module: nn.Module, inputs: Any) -> None:
        del inputs
        if id(module) in self._seen or threading.get_ident() != self._thread:
            return
        self._seen.add(id(module))
        for buffer in module._buffers.values():
            if buffer is not None and id(buffer) not in self._buffers:
                self._buffers[id(buffer)] = buffer, buffer.detach().clone(), buffer._version

    def _restore(self) -> None:
        with torch.no_grad():
            for name, (buffer, kept, version) in self._buffers.items():
                # Normalization layers write to their buffers without counting it as a version.
                if buffer._version != version or buffer.numel() <= _SHORT:
                    buffer.copy_(kept)
                    self._buffers[name] = buffer, kept, buffer._version


@contextlib.contextmanager
def isolated(key: Key) -> Iterator[Isolation]:
    """Run a block in which closures can be called in isolation, and put everything back afterwards.

    Args:
        key: Where random numbers that closures draw come from.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with isolated(Key(0)) as isolation:
        ...     first = isolation.call(lambda: layer(torch.randn(4, 2)))
        ...     again = isolation.call(lambda: layer(torch.randn(4, 2)))
        >>> torch.equal(first, again), layer.running_mean.tolist(), int(layer.num_batches_tracked)
        (True, [0.0, 0.0], 0)
    """
    with keyed_generators(key):
        isolation = Isolation()
        hook = nn.modules.module.register_module_forward_pre_hook(isolation._note)
        try:
            yield isolation
        finally:
            hook.remove()
            isolation._restore()
