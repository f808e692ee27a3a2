"""The one place that knows about array kinds: numpy or torch, which device, which dtype.

torch is never imported here unless an array of it is at hand, so a run on numpy does not pay for it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

Array: TypeAlias = Any
"""A numpy array or a torch tensor. What the two have in common has no type that a checker knows."""

_HALF = {"float16": "float32", "bfloat16": "float32"}


def is_torch(value: object) -> bool:
    """Whether `value` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def array_module(value: Array) -> Any:
    """Return `numpy` or `torch`, whichever `value` belongs to, for the operations common to both."""
    return sys.modules["torch"] if is_torch(value) else np


@dataclass(frozen=True, slots=True)
class Like:
    """What kind of array a run works on: `kind` ("numpy" or "torch"), `dtype` name and `device`.

    Example:
        >>> Like.of(np.zeros(3, np.float32))
        Like(kind='numpy', dtype='float32', device='cpu')
    """

    kind: str
    dtype: str
    device: str = "cpu"

    @staticmethod
    def of(value: Array) -> Like:
        """Read kind, dtype and device off an array."""
        if is_torch(value):
            return Like("torch", str(value.dtype).removeprefix("torch."), str(value.device))
        return Like("numpy", np.asarray(value).dtype.name)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype of that name."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def working_dtype(self) -> str:
        """The dtype arithmetic is done in: `dtype`, but float32 for half precision."""
        return _HALF.get(self.dtype, self.dtype)

    @property
    def epsilon(self) -> float:
        """Spacing of floating-point numbers at 1 in `dtype`."""
        known = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
        return known[self.dtype]

    def asarray(self, value: Array) -> Array:
        """Return `value` as an array of this kind, on this device; a copy only where needed."""
        if self.kind == "numpy":
            return np.asarray(to_numpy(value), dtype=self.dtype)
        import torch

        if not is_torch(value):
            value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return value.to(device=self.device, dtype=self.torch_dtype)


NUMPY = Like("numpy", "float64")


def to_numpy(value: Array) -> np.ndarray[Any, Any]:
    """Return `value` as a numpy array, with one copy off the device where it is on one."""
    if not is_torch(value):
        return np.asarray(value)
    value = value.detach().cpu()
    array: np.ndarray[Any, Any] = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return array
