"""What is known about kinds of arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.core.device import NUMPY, Like, array_module, is_torch, to_numpy

DTYPES = ["float16", "float32", "float64"]


def test_kinds_of_arrays():
    assert is_torch(torch.zeros(1))
    assert is_torch(torch.nn.Parameter(torch.zeros(1)))
    assert not is_torch(np.zeros(1))
    assert not is_torch([1.0])
    assert array_module(torch.zeros(1)) is torch
    assert array_module(np.zeros(1)) is np


def test_like_reads_off_an_array():
    for dtype in DTYPES:
        assert Like.of(np.zeros(2, dtype)) == Like("numpy", dtype, "cpu")
        assert Like.of(torch.zeros(2, dtype=getattr(torch, dtype))) == Like("torch", dtype, "cpu")
    assert Like.of(torch.zeros(2, dtype=torch.bfloat16)) == Like("torch", "bfloat16")
    assert Like.of(torch.zeros(2, device="meta")) == Like("torch", "float32", "meta")
    assert Like.of([1.0, 2.0]) == NUMPY


@pytest.mark.parametrize(
    "like",
    [*(Like(kind, dtype) for kind in ("numpy", "torch") for dtype in DTYPES), Like("torch", "bfloat16")],
    ids=str,
)
def test_like_makes_arrays(like):
    strided = np.arange(6.0)[::-2]
    for value in (
        strided,
        torch.arange(6.0)[[5, 3, 1]],
        [5.0, 3.0, 1.0],
        torch.tensor([5.0, 3, 1], requires_grad=True),
    ):
        made = like.asarray(value)
        assert Like.of(made) == like
        assert to_numpy(made).tolist() == [5.0, 3.0, 1.0]
    again = like.asarray(made)
    assert again is made or np.shares_memory(to_numpy(again), to_numpy(made))


def test_like_makes_writable_arrays_of_read_only_ones():
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    made = Like("torch", "float64").asarray(frozen)
    made[:] = 1
    assert not frozen.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_epsilon_is_the_spacing_at_one(dtype):
    for kind in ("numpy", "torch"):
        assert Like(kind, dtype).epsilon == np.finfo(dtype).eps
        assert Like(kind, dtype).epsilon == torch.finfo(getattr(torch, dtype)).eps
    assert Like("torch", "bfloat16").epsilon == torch.finfo(torch.bfloat16).eps


def test_half_precision_works_in_single():
    assert Like("torch", "bfloat16").working_dtype == "float32"
    assert Like("numpy", "float16").working_dtype == "float32"
    assert Like("numpy", "float32").working_dtype == "float32"
    assert NUMPY.working_dtype == "float64"


def test_names_of_torch_dtypes():
    assert Like("torch", "bfloat16").torch_dtype is torch.bfloat16
    assert Like("torch", "float64").torch_dtype is torch.float64


def test_numpy_arrays_of_everything():
    array = np.zeros(2)
    assert to_numpy(array) is array
    for tensor in (
        torch.tensor([0.5, 1.5], requires_grad=True),
        torch.tensor([0.5, 1.5], dtype=torch.bfloat16),
        torch.tensor([[0.5, 1.5]]).T[:, 0],
    ):
        assert type(to_numpy(tensor)) is np.ndarray
        assert to_numpy(tensor).tolist() == [0.5, 1.5]
    assert to_numpy(torch.tensor(0.5, dtype=torch.bfloat16)).shape == ()


def test_numpy_runs_do_not_load_torch():
    code = """
import sys
import numpy as np
from zoo.core.device import Like, array_module, is_torch, to_numpy
x = np.zeros(3, np.float32)
assert not is_torch(x)
assert array_module(x) is np
assert Like.of(x).asarray(to_numpy(x)) is x
print("torch" in sys.modules)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, text=True, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_there_and_back_from_a_gpu(dtype):
    like = Like("torch", dtype, "cuda:0")
    made = like.asarray(np.array([0.5, 1.5]))
    assert Like.of(made) == like
    assert to_numpy(made).tolist() == [0.5, 1.5]
