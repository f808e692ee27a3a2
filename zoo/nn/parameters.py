"""The trainable parameters of a network as one vector."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zoo.core.device import Like
from zoo.core.validation import check_choice, hint, listed

_HALF = (torch.float16, torch.bfloat16)


class Parameters:
    """The trainable parameters of a network, in their order, as a vector of shape (dim,).

    Parameters that do not require gradients are frozen: they are left out, and nothing here changes them. The
    vector has the widest dtype among the parameters, at least single precision: a half-precision parameter is
    rounded only where it is written.

    Args:
        params: A module; or what `torch.optim` takes: tensors, (name, tensor) pairs, or dictionaries with
            those under "params".

    Attributes:
        names: Of the tensors; their numbers where they have no names.
        tensors: The tensors themselves.
        groups: For each tensor, which parameter group it is of; 0 for all of a module.
        sizes: How many entries each tensor has.
        offsets: Where each tensor begins in the vector, and its end.
        dim: Length of the vector.
        like: Kind, dtype and device of the vector.
        module: The module, where `params` was one.

    Raises:
        TypeError: `params` is nothing of the kind, or a tensor is of another dtype than float16, bfloat16,
            float32 and float64.
        ValueError: There are no trainable parameters, one has no shape or no memory yet or was computed from
            others, they are on several devices, or two share memory.

    Example:
        >>> params = Parameters(nn.Linear(3, 2))
        >>> params.names, params.dim, params.like.dtype
        (('weight', 'bias'), 8, 'float32')
    """

    def __init__(self, params: nn.Module | Parameters | Iterable[Any]) -> None:
        named = _named(params)
        self.module = params if isinstance(params, nn.Module) else getattr(params, "module", None)
        self.names = tuple(name for name, _, _ in named)
        self.tensors: tuple[Tensor, ...] = tuple(tensor for _, tensor, _ in named)
        self.groups = tuple(group for _, _, group in named)
        if not self.tensors:
            raise ValueError("`params` must hold a parameter that requires gradients; all are frozen.")
        for name, tensor in zip(self.names, self.tensors, strict=True):
            _check_tensor(name, tensor)
        devices = sorted({str(tensor.device) for tensor in self.tensors})
        if len(devices) > 1:
            raise ValueError(
                f"`params` must be on one device, got some on each of {', '.join(devices)}; move the module "
                "with `.to(device)`."
            )
        if devices == ["meta"]:
            raise ValueError(
                "`params` must hold numbers, got parameters on the meta device; give them memory with "
                "`.to_empty(device=...)` and values."
            )
        _check_memory(self.names, self.tensors)
        self.sizes = tuple(tensor.numel() for tensor in self.tensors)
        self.offsets = (0, *itertools.accumulate(self.sizes))
        self.dim = self.offsets[-1]
        dtype = "float64" if any(tensor.dtype == torch.float64 for tensor in self.tensors) else "float32"
        self.like = Like("torch", dtype, devices[0])

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def is_half(self) -> bool:
        """Whether any of them is of half precision."""
        return any(tensor.dtype in _HALF for tensor in self.tensors)

    @property
    def coarsest(self) -> str:
        """Name of the dtype that rounds most among those of the tensors."""
        coarsest = max({tensor.dtype for tensor in self.tensors}, key=lambda dtype: torch.finfo(dtype).eps)
        return str(coarsest).removeprefix("torch.")

    def flat(self) -> Tensor:
        """Return a copy of all, shape (dim,)."""
        with torch.no_grad():
            return torch.cat(
                [tensor.detach().reshape(-1).to(self.like.torch_dtype) for tensor in self.tensors]
            )

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector, one for each tensor and of its shape."""
        return [
            vector[start:stop].view(tensor.shape)
            for (start, stop), tensor in zip(itertools.pairwise(self.offsets), self.tensors, strict=True)
        ]

    def write_(self, vector: Tensor) -> None:
        """Set all to a vector, rounded to their dtypes."""
        with torch.no_grad():
            for tensor, part in zip(self.tensors, self.split(vector), strict=True):
                tensor.copy_(part)

    def write_gradient_(self, vector: Tensor) -> None:
        """Set `.grad` of all to the parts of a vector: views of it, where the dtype is the vector's."""
        for tensor, part in zip(self.tensors, self.split(vector), strict=True):
            tensor.grad = part.to(tensor.dtype)

    def blocks(self, by: str = "layer") -> tuple[int, ...]:
        """Return how many entries in a row belong together, as `Blocks` takes it.

        Args:
            by: "tensor", every one by itself; "layer", the parameters of one module, such as weight and bias;
                or "group", a parameter group.

        Raises:
            ValueError: `by` is none of these.

        Example:
            >>> named = [(name, nn.Parameter(torch.ones(2))) for name in ("0.weight", "0.bias", "1.weight")]
            >>> Parameters(named).blocks("layer")
            (4, 2)
        """
        check_choice("by", by, ("tensor", "layer", "group"))
        owners: Iterable[Any] = range(len(self.tensors))
        if by == "layer":
            owners = [name if name.isdigit() else name.rpartition(".")[0] for name in self.names]
        elif by == "group":
            owners = self.groups
        runs = itertools.groupby(zip(owners, self.sizes, strict=True), key=lambda pair: pair[0])
        return tuple(sum(size for _, size in run) for _, run in runs)

    def mask(self, masks: Mapping[str, Any], *, others: bool = True) -> np.ndarray[Any, Any]:
        """Return masks of tensors as one of the whole vector, as `Masked` takes it.

        Args:
            masks: By name of a tensor, which of its entries move: booleans of its shape, or a single one for
                all.
            others: Whether tensors that have no mask move.

        Returns:
            Booleans, shape (dim,).

        Raises:
            TypeError: A mask is not of booleans.
            ValueError: A name or a shape is not that of a tensor.

        Example:
            >>> params = Parameters(nn.Linear(2, 1))
            >>> params.mask({"weight": torch.tensor([[True, False]])}).tolist()
            [True, False, True]
        """
        out = np.full(self.dim, others, np.bool_)
        for name, given in masks.items():
            if name not in self.names:
                raise ValueError(
                    f"`masks` must be of trainable parameters, {listed(self.names)}, got {name!r}."
                    f"{hint(name, self.names)}"
                )
            index = self.names.index(name)
            mask, shape = torch.as_tensor(given), self.tensors[index].shape
            if mask.dtype != torch.bool:
                raise TypeError(f"`masks` must hold booleans, got {mask.dtype} for {name!r}.")
            if mask.ndim and mask.shape != shape:
                raise ValueError(
                    f"`masks` must be of a parameter's shape, {tuple(shape)} for {name!r}, got "
                    f"{tuple(mask.shape)}."
                )
            out[self.offsets[index] : self.offsets[index + 1]] = mask.cpu().numpy().reshape(-1)
        return out

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Put all back as they are now, to the last bit, after the block."""
        memory = [tensor.detach() for tensor in self.tensors]
        before = list(zip(self.tensors, memory, [tensor.clone() for tensor in memory], strict=True))
        try:
            try:
                yield
            finally:
                _put_back(before)
        except KeyboardInterrupt:  # which may have come while they were put back
            _put_back(before)
            raise


def _put_back(before: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Give tensors their own memory again, which `tensor.data = ...` exchanges, and what was in it."""
    with torch.no_grad():
        for tensor, memory, kept in before:
            tensor.data = memory
            tensor.copy_(kept)


def _named(params: Any) -> list[tuple[str, Tensor, int]]:
    """Return the name, tensor and group of every trainable parameter."""
    if isinstance(params, Parameters):
        return list(zip(params.names, params.tensors, params.groups, strict=True))
    if isinstance(params, nn.Module):
        return [(name, tensor, 0) for name, tensor in params.named_parameters() if tensor.requires_grad]
    if isinstance(params, Tensor):
        raise TypeError("`params` must be a module or hold tensors, got a single tensor; put it into a list.")
    if isinstance(params, Mapping):
        raise TypeError(
            "`params` must be a module or hold tensors, got a dictionary; put a parameter group into a list, "
            "and give tensors by name as pairs, `params.items()`."
        )
    if not isinstance(params, Iterable):
        raise TypeError(f"`params` must be a module or hold tensors, got {params!r}.")
    found: list[tuple[str, Tensor, int]] = []
    groups = list(params)
    if not any(isinstance(group, Mapping) for group in groups):
        groups = [{"params": groups}]
    for number, group in enumerate(groups):
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"each group of `params` must be a dictionary with 'params', got {group!r}.")
        members = group["params"]
        for member in [members] if isinstance(members, Tensor) else members:
            name, tensor = member if isinstance(member, tuple) else (str(len(found)), member)
            if not isinstance(tensor, Tensor):
                raise TypeError(f"`params` must hold tensors, got {type(tensor).__name__}.")
            if tensor.requires_grad:
                found.append((str(name), tensor, number))
    return found


def _check_tensor(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise ValueError(
            f"`params` must have shapes, and {name!r} has none yet; call the module once before its "
            "parameters are looked at."
        )
    if tensor.dtype not in (*_HALF, torch.float32, torch.float64):
        raise TypeError(
            f"`params` must be of float16, bfloat16, float32 or float64, got {name!r} of {tensor.dtype}."
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"`params` must be dense, got {name!r} of {tensor.layout}; use `.to_dense()`.")
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            f"`params` must be writable, and {name!r} was made under `torch.inference_mode`; make the module "
            "outside of it, or with `torch.no_grad`."
        )
    if not tensor.is_leaf:
        raise ValueError(
            f"`params` must not be computed from other tensors, and {name!r} is; give the parameters "
            "themselves."
        )


def _check_memory(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> None:
    places = []
    for name, tensor in zip(names, tensors, strict=True):
        extent = 1 + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        if tensor.numel() > extent:
            raise ValueError(
                f"`params` must not share memory, and entries of {name!r} do: it was expanded; clone it "
                "before it becomes a parameter."
            )
        if tensor.numel():
            begin = tensor.data_ptr()
            places.append((begin, begin + extent * tensor.element_size(), name, tensor))
    places.sort(key=lambda place: place[:2])
    reached: list[tuple[int, str, Tensor]] = []  # those that may go on beyond where the next one begins
    for begin, end, name, tensor in places:
        reached = [one for one in reached if begin < one[0]]
        for _, other, earlier in reached:
            # Columns of one array lie within each other's extent, and need not have an entry in common.
            is_whole = earlier.is_contiguous() and tensor.is_contiguous()
            if is_whole or np.intersect1d(_occupied(earlier), _occupied(tensor)).size:
                raise ValueError(
                    f"`params` must not share memory, got {other!r} and {name!r} of the same; give a tensor "
                    "that two modules share once, as the same parameter."
                )
        reached.append((end, name, tensor))


def _occupied(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return which pairs of bytes hold the entries of a tensor, as numbers of pairs."""
    pairs = tensor.element_size() // 2
    found = np.arange(pairs) + tensor.data_ptr() // 2
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        found = np.add.outer(found, np.arange(size) * stride * pairs)
    return found.reshape(-1)
