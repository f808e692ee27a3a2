"""Weights that look perturbed to whoever computes with them, and are not touched.

Every function of torch is first offered to a mode that is active, `torch.overrides.TorchFunctionMode`, with
its arguments. The one here puts a perturbed copy in the place of each watched tensor among them, made for
that call. So it does not matter which module a weight belongs to, and how often it is used: a weight shared
between an embedding and an output layer, or handed from one module to another, is perturbed everywhere. There
is nothing to be put back afterwards, whatever happens.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Attributes whose value is made of the entries; all others say what a tensor is, and are passed through.
_VALUES = frozenset({"data", "T", "H", "mT", "mH", "real", "imag"})
# The same for methods, where drawing a copy would be in vain.
_SHAPES = frozenset(
    {
        "__hash__",
        "__len__",
        "data_ptr",
        "dim",
        "element_size",
        "get_device",
        "is_complex",
        "is_contiguous",
        "is_floating_point",
        "is_pinned",
        "is_shared",
        "ndimension",
        "nelement",
        "numel",
        "register_hook",
        "requires_grad_",
        "size",
        "storage_offset",
        "stride",
        "untyped_storage",
    }
)
_IN_PLACE = frozenset(
    f"__i{name}__"
    for name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
) | {"__ilshift__", "__irshift__", "__setitem__"}


_LARGE = 2**20  # bytes

Copy: TypeAlias = Callable[[int, Tensor], object]


class Perturbed(TorchFunctionMode):
    """A mode under which functions of torch see perturbed copies of some tensors.

    One memory of the length of the largest tensor serves one large copy after the other; of small ones, as
    many are kept as take a quarter of that. A function that is given several tensors at once, as an LSTM is,
    has copies of them all at once, and a copy that the closure holds on to, or a view of it, lives as long as
    that.

    Args:
        tensors: What is watched.
        names: What they are called in messages.
        copy: Given the number of a tensor and memory of its shape and dtype, writes the perturbed copy there.
            None leaves all as they are, and watches.

    Attributes:
        seen: Numbers of the tensors that anything was computed with.

    Example:
        >>> from zoo.core.rng import Key
        >>> from zoo.nn.models.mlp import mlp
        >>> layer = mlp((2, 1), key=Key(0))[1]
        >>> moved = Perturbed([layer.bias], ["bias"])
        >>> moved.use(lambda number, made: torch.add(layer.bias.detach(), 1, out=made))
        >>> before = layer(torch.zeros(1, 2))
        >>> with moved:
        ...     after = layer(torch.zeros(1, 2))
        >>> round((after - before).item(), 3), sorted(moved.seen)
        (1.0, [0])
    """

    def __init__(self, tensors: Sequence[Tensor], names: Sequence[str]) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self._tensors, self._names = tensors, names
        self._copy: Copy | None = None
        self._numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
        self._room = max((_bytes(tensor) for tensor in tensors), default=0)
        self._kept: dict[int, Tensor] = {}
        self._memory: Tensor | None = None
        self._free = 0  # how often that is referred to when nobody uses it

    def use(self, copy: Copy | None) -> None:
        """Show other copies from now on."""
        self.forget()
        self._copy = copy

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not (self._holds(args) or (kwargs and self._holds(kwargs.values()))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "__delete__"):
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if name == "__set__" and attribute == "data" and id(args[0]) in self._numbers:
                raise self._refusal(self._numbers[id(args[0])], ".data = ...")
            if name != "__get__" or attribute not in _VALUES:
                return func(*args, **kwargs)
        elif name in _SHAPES:
            return func(*args, **kwargs)
        elif (written := self._written(name, args, kwargs)) is not None:
            raise self._refusal(written, name)
        return func(
            *(self._replaced(arg) for arg in args), **{k: self._replaced(v) for k, v in kwargs.items()}
        )

    def forget(self) -> None:
        """Drop the copies that are kept."""
        self._kept.clear()

    def _holds(self, values: Iterable[Any]) -> bool:
        for value in values:
            if isinstance(value, (list, tuple)):
                if self._holds(value):
                    return True
            elif isinstance(value, dict):
                if self._holds(value.values()):
                    return True
            elif id(value) in self._numbers:
                return True
        return False

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._replaced(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            if not self._holds(value):
                return value
            parts = [self._replaced(part) for part in value]
            if hasattr(value, "_fields"):
                return type(value)(*parts)
            return parts if isinstance(value, list) else tuple(parts)
        number = self._numbers.get(id(value))
        return value if number is None else self._perturbed(number)

    def _perturbed(self, number: int) -> Tensor:
        self.seen.add(number)
        if self._copy is None:
            return self._tensors[number].detach()
        found = self._kept.pop(number, None)
        if found is None:
            with torch._C._DisableFuncTorch():  # a copy is no part of what torch.func transforms
                found = self._empty(self._tensors[number])
                self._copy(number, found)
        self._kept[number] = found  # the one used last comes last
        return found

    def _empty(self, like: Tensor) -> Tensor:
        """Return memory for a copy, after dropping copies for which there is no room beside it."""
        like, need = like.detach(), _bytes(like)
        is_large = need > self._room // 4
        kept = [number for number, copy in self._kept.items() if (_bytes(copy) > self._room // 4) == is_large]
        taken = 0 if is_large else sum(_bytes(self._kept[number]) for number in kept) + need
        for number in kept:
            if is_large or taken > self._room // 4:
                taken -= _bytes(self._kept.pop(number))
        if not is_large:
            return torch.empty_like(like)
        if self._memory is None:
            self._memory = _allocate(self._room, like.device)
            self._free = _references(self._memory)
        if _references(self._memory) != self._free:
            return torch.empty_like(like)
        flat = self._memory[:need].view(like.dtype)
        return flat.as_strided(like.shape, like.stride())

    def _written(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the number of a tensor that a function would write to."""
        targets: tuple[Any, ...] = (kwargs.get("out"),)
        if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace"):
            targets += args[:1] or tuple(kwargs.values())[:1]
        for target in targets:
            for tensor in target if isinstance(target, (list, tuple)) else [target]:
                if id(tensor) in self._numbers:
                    return self._numbers[id(tensor)]
        return None

    def _refusal(self, number: int, what: str) -> RuntimeError:
        return RuntimeError(
            f"the closure writes to the parameter {self._names[number]!r} with {what!r}. A closure must "
            "leave parameters as they are: compute with a changed copy, or do it outside the closure."
        )


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run a block in which what `torch.compile` returned runs as it was before.

    Compiled code calls no function of torch, and would see the weights as they are.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _allocate(size: int, device: torch.device) -> Tensor:
    """Return so many bytes, which go back to the system when they are let go."""
    if device.type != "cpu" or size < _LARGE:
        return torch.empty(size, dtype=torch.uint8, device=device)
    # What malloc gave stays with the process, and where it lies a larger hole may be looked for in vain.
    private: dict[str, int] = {}
    if hasattr(mmap, "MAP_PRIVATE"):
        private["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, size, **private), dtype=torch.uint8)


def _references(tensor: Tensor) -> int:
    """Return how many tensors, arrays and views refer to the memory of a tensor."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
