"""The trainable parameters of a network as one vector."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.device import Like

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
        offsets: Where each tensor begins in the vector, and its end.
        dim: Length of the vector.
        like: Kind, dtype and device of the vector.

    Raises:
        TypeError: `params` is nothing of the kind, or a tensor is not of floating point.
        ValueError: There are no trainable parameters, they are on several devices, or two share memory.

    Example:
        >>> params = Parameters(nn.Linear(3, 2))
        >>> params.names, params.dim, params.like.dtype
        (('weight', 'bias'), 8, 'float32')
    """

    def __init__(self, params: nn.Module | Parameters | Iterable[Any]) -> None:
        named = _named(params)
        self.names = tuple(name for name, _, _ in named)
        self.tensors: tuple[Tensor, ...] = tuple(tensor for _, tensor, _ in named)
        self.groups = tuple(group for _, _, group in named)
        if not self.tensors:
            raise ValueError("`params` must hold a parameter that requires gradients; all are frozen.")
        _check_memory(self.names, self.tensors)
        self.offsets = (0, *itertools.accumulate(tensor.numel() for tensor in self.tensors))
        self.dim = self.offsets[-1]
        devices = sorted({str(tensor.device) for tensor in self.tensors})
        if len(devices) > 1:
            raise ValueError(
                f"`params` must be on one device, got some on each of {', '.join(devices)}; move the module "
                "with `.to(device)`."
            )
        dtype = "float64" if any(tensor.dtype == torch.float64 for tensor in self.tensors) else "float32"
        self.like = Like("torch", dtype, devices[0])

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def is_half(self) -> bool:
        """Whether any of them is of half precision."""
        return any(tensor.dtype in _HALF for tensor in self.tensors)

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
        """Set `.grad` of all to the parts of a vector."""
        for tensor, part in zip(self.tensors, self.split(vector), strict=True):
            tensor.grad = part.to(tensor.dtype).clone()

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Put all back as they are now, to the last bit, after the block."""
        before = [tensor.detach().clone() for tensor in self.tensors]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, kept in zip(self.tensors, before, strict=True):
                    tensor.copy_(kept)


def _named(params: Any) -> list[tuple[str, Tensor, int]]:
    """Return the name, tensor and group of every trainable parameter."""
    if isinstance(params, Parameters):
        return list(zip(params.names, params.tensors, params.groups, strict=True))
    if isinstance(params, nn.Module):
        return [(name, tensor, 0) for name, tensor in params.named_parameters() if tensor.requires_grad]
    if isinstance(params, Tensor):
        raise TypeError("`params` must be a module or hold tensors, got a single tensor; put it into a list.")
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


def _check_memory(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> None:
    owners: dict[tuple[str, int], str] = {}
    for name, tensor in zip(names, tensors, strict=True):
        if not tensor.is_floating_point():
            raise TypeError(f"`params` must be of floating point, got {name!r} of {tensor.dtype}.")
        place = str(tensor.device), tensor.untyped_storage().data_ptr()
        if tensor.numel() and owners.setdefault(place, name) != name:
            raise ValueError(
                f"`params` must not share memory, got {owners[place]!r} and {name!r} of the same; give a "
                "tensor that two modules share once, as the same parameter."
            )
