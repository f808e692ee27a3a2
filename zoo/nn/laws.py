"""Laws of directions for tensors that are drawn a piece at a time, and never held.

A direction of a network is one number for every entry of every parameter. Here it is a place: a key, a step,
the number of the direction and the number of the tensor. A law fills any piece of a tensor's direction from
its place, as often as it is asked to, with the same bits.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.core.rng import Key

_PIECE = 2**16  # elements, which stay in the processor's cache while they are drawn and added
_DEVICE_PIECE = 2**22  # the same on a device, which wants more to do at a time


class Place(NamedTuple):
    """Which direction of which tensor.

    Attributes:
        key: Of all directions of a run.
        step: Number of the step.
        direction: Number of the direction within the step.
        tensor: Number of the tensor among the trainable ones.
        shape: Of the tensor, its dimensions in their order in memory.
    """

    key: Key
    step: int
    direction: int
    tensor: int
    shape: tuple[int, ...]

    @property
    def own(self) -> Key:
        """The key of this direction of this tensor alone."""
        return self.key.fold("direction", self.step, self.direction, self.tensor)


class TensorLaw(abc.ABC):
    """A law of directions of single tensors, with E[z z^T] = I over the entries of each."""

    name: str

    def plan(self, place: Place, like: Tensor) -> Any:
        """Return what all pieces of a direction have in common; `like` says its dtype and device."""
        del like
        return place.own

    @abc.abstractmethod
    def fill_(self, out: Tensor, place: Place, plan: Any, start: int) -> None:
        """Write a piece of a direction.

        Args:
            out: Shape (n,), contiguous, of single or double precision; one of `pieces`.
            place: Which direction.
            plan: What `plan` returned for this place.
            start: Number of the first entry.
        """

    def described(self) -> dict[str, Any]:
        """Return the name and the arguments, as `as_law` takes them back."""
        return {"law": self.name, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Gaussian(TensorLaw):
    """Independent standard normal entries."""

    name = "gaussian"

    def fill_(self, out: Tensor, place: Place, plan: Any, start: int) -> None:
        plan.fold(start).fill_normal(out.view(1, -1))


@dataclass(frozen=True)
class Rademacher(TensorLaw):
    """Fair signs, drawn in half the time of normal numbers."""

    name = "rademacher"

    def fill_(self, out: Tensor, place: Place, plan: Any, start: int) -> None:
        out.copy_(plan.fold(start).rademacher(0, 1, len(out), like=out)[0])


def pieces(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a tensor begins and ends, by its size and device alone."""
    size = _PIECE if tensor.device.type == "cpu" else _DEVICE_PIECE
    for start in range(0, tensor.numel(), size):
        yield start, min(start + size, tensor.numel())


def in_memory_order(tensor: Tensor) -> Tensor:
    """Return a view with the dimensions in the order in which they lie in memory, largest stride first.

    Raises:
        ValueError: The tensor has gaps in memory, or overlaps itself.
    """
    tensor = tensor.detach()
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    ordered = tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -strides[axis]))
    if not ordered.is_contiguous():
        raise ValueError(
            f"`params` must be dense in memory, got shape {tuple(tensor.shape)} with strides {strides}; "
            "make it a copy with `.contiguous()`."
        )
    return ordered


def working_dtype(tensor: Tensor) -> torch.dtype:
    """Return what numbers for a tensor are drawn in: single precision for half."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def buffer_for(tensor: Tensor) -> Tensor:
    """Return memory for a piece of a tensor, of the dtype that it is drawn in."""
    first = next(itertools.chain(pieces(tensor), [(0, 0)]))
    return torch.empty(first[1], dtype=working_dtype(tensor), device=tensor.device)


def draw(law: TensorLaw, place: Place, tensor: Tensor) -> Tensor:
    """Return a whole direction of a tensor, in its shape, of single or double precision."""
    whole = torch.empty_like(tensor, dtype=working_dtype(tensor), requires_grad=False)
    flat = in_memory_order(whole).view(-1)
    plan = law.plan(place, buffer_for(tensor))
    for start, stop in pieces(tensor):
        law.fill_(flat[start:stop], place, plan, start)
    return whole
