"""Evaluating a network as often as needed and leaving everything but the answer as it was."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zoo.core.rng import Key, rewindable_generators

_OPEN: list[Isolation] = []  # those of blocks that are open, the innermost one last


def place(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return where a tensor's entries are in memory, None where it has no such place."""
    if tensor.layout is not torch.strided:
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride()


class Isolation:
    """Calls closures so that each sees the same random numbers and the same buffers.

    Every call begins with the global generators in the same keyed state: dropout masks, augmentation and
    whatever else a closure draws are the same for all of them. Buffers of the modules that a closure calls
    in this thread (running means of normalization layers, counters, tables made when they are first needed)
    are put back after each call, to the last bit. What a module keeps in plain attributes is not.
    """

    def __init__(self, rewind: Callable[[], None]) -> None:
        self._rewind = rewind
        self._seen: dict[int, nn.Module] = {}
        self._slots: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
        # By id: a buffer, its memory, where that is, and a copy. Versions do not count what is written
        # through `.data` or by normalization layers, and to compare takes longer than to copy.
        self._kept: dict[int, tuple[Tensor, Tensor, Any, Tensor]] = {}
        self._thread = threading.get_ident()

    def call(self, closure: Callable[[], Any]) -> Any:
        """Return what a closure returns, without a graph of gradients."""
        self._rewind()
        # An autocast around the block would go on with casts of the parameters as they were before.
        torch.clear_autocast_cache()
        with torch.no_grad():
            result = closure()
        self.restore()
        return result

    def note(self, module: nn.Module) -> None:
        """Remember the buffers of a module and of all modules in it."""
        for inner in module.modules():
            if id(inner) in self._seen:
                continue
            self._seen[id(inner)] = inner
            if not inner._buffers:
                # One that makes its first buffer when it is called has none to go back to.
                self._slots.append((inner, {}))
                continue
            self._slots.append((inner, dict(inner._buffers)))
            for name, buffer in inner._buffers.items():
                if buffer is not None and id(buffer) not in self._kept:
                    self._keep(inner, name, buffer)

    def restore(self) -> None:
        """Put all buffers back as they were."""
        torch.clear_autocast_cache()
        for module, buffers in self._slots:
            now = module._buffers
            if len(now) != len(buffers) or any(now.get(name) is not was for name, was in buffers.items()):
                module._non_persistent_buffers_set -= now.keys() - buffers.keys()
                now.clear()
                now.update(buffers)
        if not self._kept:
            return
        with torch.no_grad():
            for buffer, memory, where, _ in self._kept.values():
                if place(buffer) != where:
                    buffer.data = memory
            pairs = self._kept.values()
            torch._foreach_copy_([pair[0] for pair in pairs], [pair[-1] for pair in pairs])

    def _keep(self, module: nn.Module, name: str, buffer: Tensor) -> None:
        if is_lazy(buffer):
            raise ValueError(
                f"the buffer {name!r} of a {type(module).__name__} has no shape yet; call the module once "
                "before."
            )
        if buffer.is_inference():  # nothing can write to it here
            return
        if buffer.layout is torch.strided and any(
            size > 1 and not stride for size, stride in zip(buffer.shape, buffer.stride(), strict=True)
        ):  # an expanded one, to which nothing can write either
            return
        memory = buffer.detach()
        self._kept[id(buffer)] = buffer, memory, place(buffer), memory.clone()


def _called(module: nn.Module, inputs: Any) -> None:
    """Note the modules that are called in a block. One function for all blocks: compiled code looks at it."""
    del inputs
    if torch.compiler.is_compiling():
        return
    for isolation in _OPEN:
        if id(module) not in isolation._seen and threading.get_ident() == isolation._thread:
            isolation.note(module)


def _place() -> int:
    """Return a number of a hook that nobody else gets."""
    handle = nn.modules.module.register_module_forward_pre_hook(_called)
    handle.remove()
    return handle.id


# A hook under another number in every block would have code compiled anew in every block.
_PLACE = _place()
# What is said then about hooks of modules is no matter: they look at a module once.
_FIRES_TWICE = (
    "ignore",
    re.compile("Using `torch.compile.module.` when there are global hooks", re.IGNORECASE),
    Warning,
    None,
    0,
)
_HOOKS: dict[int, Any] = nn.modules.module._global_forward_pre_hooks


@contextlib.contextmanager
def isolated(key: Key, modules: Iterable[nn.Module] = ()) -> Iterator[Isolation]:
    """Run a block in which closures can be called in isolation, and put everything back afterwards.

    The global generators belong to the process, so threads take turns: one that is inside keeps the others
    waiting; see `zoo.core.rng.rewindable_generators`.

    Args:
        key: Where random numbers that closures draw come from.
        modules: Modules whose buffers are put back whether or not they are seen to be called: those called in
            another thread, by a compiled function, or compiled in place.

    Raises:
        ValueError: A module has buffers without a shape, as lazy ones have before their first call.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with isolated(Key(0)) as isolation:
        ...     first = isolation.call(lambda: layer(torch.randn(4, 2)))
        ...     again = isolation.call(lambda: layer(torch.randn(4, 2)))
        >>> torch.equal(first, again), layer.running_mean.tolist(), int(layer.num_batches_tracked)
        (True, [0.0, 0.0], 0)
    """
    with rewindable_generators(key) as rewind:
        isolation = Isolation(rewind)
        for module in modules:
            isolation.note(module)
        if "torch._dynamo" in sys.modules and _FIRES_TWICE not in warnings.filters:
            warnings.filterwarnings("ignore", _FIRES_TWICE[1].pattern)
        try:
            try:
                _OPEN.append(isolation)
                _HOOKS[_PLACE] = _called
                yield isolation
            finally:
                _close(isolation)
        except KeyboardInterrupt:  # which may have come while it was closed
            _close(isolation)
            raise


def _close(isolation: Isolation) -> None:
    if isolation in _OPEN:
        _OPEN.remove(isolation)
    if not _OPEN:
        _HOOKS.pop(_PLACE, None)
    isolation.restore()
