"""Weights that look perturbed to whoever computes with them, and are not touched.

Every function of torch is first offered to a mode that is active, `torch.overrides.TorchFunctionMode`, with
its arguments. The one here puts a perturbed copy in the place of each watched tensor among them, made for
that call. So it does not matter which module a weight belongs to, and how often it is used: a weight shared
between an embedding and an output layer, or handed from one module to another, is perturbed everywhere. There
is nothing to be put back afterwards, whatever happens.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
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
        aliases: Whether to look out for other tensors that lie in the memory of one that is watched.

    Attributes:
        seen: Numbers of the tensors that anything was computed with.
        aliased: Numbers of those of whose memory another tensor was computed with.

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

    def __init__(self, tensors: Sequence[Tensor], names: Sequence[str], *, aliases: bool = False) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.aliased: set[int] = set()
        self._tensors, self._names = tensors, names
        self._copy: Copy | None = None
        self._numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
        self._room = max((_bytes(tensor) for tensor in tensors), default=0)
        self._kept: dict[int, Tensor] = {}
        self._memory: Tensor | None = None
        self._free = 0  # how often that is referred to when nobody uses it
        places = (_place(tensor) for tensor in tensors) if aliases else ()
        self._places = sorted((*place, number) for number, place in enumerate(places) if place)

    def use(self, copy: Copy | None) -> None:
        """Show other copies from now on.

        Args:
            copy: Given the number of a tensor and memory of its shape and dtype, writes the perturbed copy
                there; None for copies of the tensors as they are.
        """
        self.forget()
        self._copy = copy

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._places and _reads(func):
            self._look((args, kwargs))
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

    def _look(self, value: Any) -> None:
        """Note whose memory is computed with in the guise of other tensors."""
        if isinstance(value, dict):
            value = tuple(value.values())
        if isinstance(value, (list, tuple)):
            for part in value:
                self._look(part)
        elif isinstance(value, Tensor) and id(value) not in self._numbers and (place := _place(value)):
            before = max(0, bisect.bisect_right(self._places, place) - 1)
            for begin, end, number in itertools.islice(self._places, before, None):
                if begin >= place[1]:
                    break
                if end > place[0]:
                    self.aliased.add(number)

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
        found = self._kept.pop(number, None)
        if found is None:
            with torch._C._DisableFuncTorch():  # a copy is no part of what torch.func transforms
                found = self._empty(self._tensors[number])
                if self._copy is None:
                    found.copy_(self._tensors[number].detach())
                else:
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


def _reads(func: Any) -> bool:
    """Whether a function takes entries of its arguments, and not only what they are like."""
    name = getattr(func, "__name__", "")
    if name != "__get__":
        return name not in _SHAPES
    return getattr(getattr(func, "__self__", None), "__name__", "") in _VALUES


def _place(tensor: Tensor) -> tuple[int, int] | None:
    """Return where the memory of a tensor begins and ends; None if it has none that can be named."""
    try:
        if tensor.numel() == 0:
            return None
        begin = tensor.data_ptr()
        last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    except RuntimeError:  # sparse ones, and those that stand for others while a function is transformed
        return None
    return begin, begin + (last + 1) * tensor.element_size()


def _references(tensor: Tensor) -> int:
    """Return how many tensors, arrays and views refer to the memory of a tensor."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
