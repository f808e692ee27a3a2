"""Sets of examples as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.nn.data import cifar10, digits
from zoo.problems.digits import Digits

pytest.importorskip("sklearn.datasets")  # here, since importing it moves the generator of `random`


def test_digits_are_split_as_the_problem_splits_them() -> None:
    data = digits()
    x, y, test_x, test_y = Digits()._on("cpu")
    assert torch.equal(data.inputs.flatten(1), x[:, :-1])
    assert torch.equal(data.test_inputs.flatten(1), test_x[:, :-1])
    assert torch.equal(data.targets, y)
    assert torch.equal(data.test_targets, test_y)
    assert float(data.inputs.max()) == 1


def test_only_numbers_of_floating_point_change_their_dtype(tmp_path: Path) -> None:
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        np.zeros((2, 3073), np.uint8).tofile(tmp_path / f"{name}.bin")
    data = cifar10(tmp_path)
    assert tuple(data.inputs.shape) == (10, 3, 32, 32)
    moved = data.to(dtype=torch.float64)
    assert moved.inputs.dtype == moved.test_inputs.dtype == torch.float64
    assert moved.targets.dtype == moved.test_targets.dtype == torch.int64
    assert data.to("meta").targets.is_meta
