"""What messages weigh, and what is none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from federated.messages import Message


@dataclasses.dataclass(frozen=True, eq=False)
class Pair(Message):
    one: Any
    other: Any = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Nothing(Message):
    pass


WEIGHTS = {
    "float64": (np.zeros((3, 4)), 96),
    "float32": (np.zeros(300, np.float32), 1200),
    "booleans": (np.zeros(5, bool), 5),
    "integers": (np.zeros(5, np.uint8), 5),
    "no entries": (np.zeros((0, 3)), 0),
    "a view": (np.zeros(100)[::10], 80),
    "numpy scalar": (np.float32(1.0), 4),
    "float": (1.5, 8),
    "int": (7, 8),
    "flag": (True, 1),
    "none": (None, 1),
    "tuple": ((np.zeros(2), 1, None, (2.0, False)), 34),
}


@pytest.mark.parametrize(("value", "nbytes"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights(value: Any, nbytes: int) -> None:
    assert Pair(value).nbytes == nbytes
    assert Pair(value, value).nbytes == 2 * nbytes
    assert Pair(value).is_finite


def test_nothing_weighs_nothing() -> None:
    assert Nothing().nbytes == 0
    assert Nothing().is_finite


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors(dtype: str) -> None:
    import torch

    value = torch.zeros(10, dtype=getattr(torch, dtype))
    assert Pair(value).nbytes == 10 * value.element_size()
    assert Pair(value).is_finite
    value[3] = float("inf")
    assert not Pair((1, value)).is_finite


@pytest.mark.parametrize("value", ["text", b"bytes", [1.0], {"a": 1}, object(), np])
def test_what_cannot_be_sent(value: Any) -> None:
    with pytest.raises(TypeError, match="`other` of a message must be an array, a number, None or a tuple"):
        _ = Pair(1, (2, value)).nbytes


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("-inf"), np.array([1.0, np.nan]), np.float64("inf"), (1, (np.array([np.inf]),))],
    ids=["nan", "inf", "array", "scalar", "tuple"],
)
def test_what_is_not_finite(value: Any) -> None:
    assert not Pair(0, value).is_finite
