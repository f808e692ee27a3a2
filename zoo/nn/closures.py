"""What a closure returns, as numbers."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.nn.isolation import Isolation


class Calls:
    """Calls of a closure in isolation, counted.

    Args:
        isolation: How it is called.
        closure: Returns a loss, a number or a tensor of one.

    Attributes:
        count: How many there were.
        dtype: Of the losses, None where they are plain numbers.
    """

    def __init__(self, isolation: Isolation, closure: Callable[[], Any]) -> None:
        self._isolation, self._closure = isolation, closure
        self.count = 0
        self.dtype: torch.dtype | None = None

    def __call__(self) -> Any:
        """Return the loss as a float, or from a device as a float64 tensor of no dimensions.

        Raises:
            TypeError: It is no number of floating point.
            ValueError: It is several.
        """
        self.count += 1
        loss = self._isolation.call(self._closure)
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
