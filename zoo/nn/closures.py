"""What a closure returns, as numbers."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.nn.isolation import Isolation, place
from zoo.nn.parameters import Parameters

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Calls:
    """Calls of a closure in isolation, counted.

    Args:
        isolation: How it is called.
        closure: Returns a loss, a number or a tensor of one.
        params: What it must not write to.

    Attributes:
        count: How many there were.
        dtype: Of the losses, None where they are plain numbers.
    """

    def __init__(
        self, isolation: Isolation, closure: Callable[[], Any], params: Parameters | None = None
    ) -> None:
        self._isolation, self._closure, self._params = isolation, closure, params
        self.count = 0
        self.dtype: torch.dtype | None = None

    def __call__(self, *, thorough: bool = False) -> Any:
        """Return the loss as a float, or from a device as a float64 tensor of no dimensions.

        Args:
            thorough: Whether parameters are compared bit by bit: `tensor.data.add_(1)` leaves no other trace.

        Raises:
            TypeError: It is no number of floating point.
            ValueError: It is several.
            RuntimeError: The closure wrote to a parameter, or gave one other memory.
        """
        self.count += 1
        tensors = () if self._params is None else self._params.tensors
        before = [_traces(tensor) for tensor in tensors]
        bits = [_bits(tensor).clone() for tensor in tensors] if thorough else []
        try:
            loss = self._isolation.call(self._closure)
        except RuntimeError as error:
            if "does not require grad" in str(error):
                error.add_note(
                    "The closure is called without a graph of gradients: it has to return the loss, and to "
                    "leave out `loss.backward()`."
                )
            raise
        for number, (tensor, traces) in enumerate(zip(tensors, before, strict=True)):
            if _traces(tensor) != traces or (bits and not torch.equal(_bits(tensor), bits[number])):
                assert self._params is not None
                raise RuntimeError(
                    f"the closure wrote to the parameter {self._params.names[number]!r}, as `max_norm` of an "
                    "embedding does, for one. A closure must leave parameters as they are: compute with a "
                    "changed copy, or change them between steps."
                )
        if isinstance(loss, Tensor):
            if not loss.is_floating_point():
                raise TypeError(
                    f"`closure` must return a loss of floating point, got a tensor of {loss.dtype}; convert "
                    "it with `.double()` if it is meant."
                )
            if loss.numel() != 1:
                raise ValueError(
                    f"`closure` must return a single number, got a tensor of shape {tuple(loss.shape)}; take "
                    "its mean."
                )
            self.dtype = loss.dtype
            return loss.item() if loss.device.type == "cpu" else loss.detach().double().reshape(())
        if isinstance(loss, bool) or not isinstance(loss, numbers.Real):
            instead = "; has it a `return`?" if loss is None else "."
            raise TypeError(
                f"`closure` must return the loss, a number or a tensor of one, got {loss!r}{instead}"
            )
        return float(loss)

    def spacing(self, values: np.ndarray[Any, Any]) -> float:
        """Return the spacing of losses at the largest of some that it returned."""
        dtype = self.dtype
        if dtype is None or dtype == torch.float64:
            # A number that was computed in single precision can be told from its digits.
            single = bool((values.astype(np.float32) == values).all())
            dtype = torch.float32 if single else torch.float64
        return torch.finfo(dtype).eps * float(np.abs(values).max())


def gathered(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return floats and tensors of no dimensions as one float64 array, with one copy off the device."""
    if all(isinstance(value, float) for value in values):
        return np.array(values, np.float64)
    device = next(value.device for value in values if isinstance(value, Tensor))
    whole = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]
    return torch.stack(whole).cpu().numpy()


def _traces(tensor: Tensor) -> tuple[Any, ...]:
    """Return what most writes to a tensor change."""
    return (None if tensor.is_inference() else tensor._version, place(tensor))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_BITS[tensor.element_size()])
