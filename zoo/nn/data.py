"""Sets of examples as tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.problems.cifar import load_cifar10
from zoo.problems.digits import NUM_TRAINED, shuffled_digits


@dataclass(frozen=True)
class Data:
    """Examples to train on, and others to test with.

    Attributes:
        inputs: To train on, shape (n, ...).
        targets: Shape (n, ...).
        test_inputs: To test with, shape (m, ...).
        test_targets: Shape (m, ...).
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Data:
        """Return the same examples on a device, those of floating point in a dtype."""
        return Data(*(_moved(tensor, device, dtype) for tensor in vars(self).values()))


def digits() -> Data:
    """Return scikit-learn's digits: 1437 to train on and 360 to test with, as `zoo.problems.digits` has them.

    Images have the shape (1, 8, 8), from 0 to 1 in single precision; labels are from 0 to 9.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> data = digits()
        >>> tuple(data.inputs.shape), tuple(data.test_targets.shape)
        ((1437, 1, 8, 8), (360,))
    """
    images, labels = (torch.from_numpy(array) for array in shuffled_digits())
    images = images.view(-1, 1, 8, 8)
    return Data(images[:NUM_TRAINED], labels[:NUM_TRAINED], images[NUM_TRAINED:], labels[NUM_TRAINED:])


def cifar10(folder: str | os.PathLike[str]) -> Data:
    """Return CIFAR-10 from a local folder, normalised; see `zoo.problems.cifar.load_cifar10`."""
    return Data(*map(torch.from_numpy, load_cifar10(folder)))


def _moved(tensor: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
