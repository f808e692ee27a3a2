"""The data that passes between methods, objectives and executors."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch

from zoo.core.types import Candidates, Evaluations, Failure, Reply, Rows


class Line(Candidates):
    """Multiples of one vector: a description of two numbers."""

    def __init__(self, n: int, dim: int) -> None:
        self.n, self._dim = n, dim

    @property
    def dim(self) -> int:
        return self._dim

    def __len__(self) -> int:
        return self.n

    def rows(self, start: int, stop: int) -> Any:
        return np.arange(start, stop)[:, None] * np.ones(self._dim)


def test_candidates_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Candidates()  # type: ignore[abstract]


def test_one_noise_stream_is_common_to_all_by_default():
    for candidates in (Line(5, 2), Rows(np.zeros((5, 2)))):
        noise = candidates.noise(1, 4)
        assert noise.tolist() == [0, 0, 0]
        assert noise.dtype == np.int64


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(4, 3), torch.arange(12.0).reshape(4, 3)], ids=["numpy", "torch"]
)
def test_rows_hold_an_array_and_give_copies_away(array):
    candidates = Rows(array)
    assert (len(candidates), candidates.dim) == (4, 3)
    part = candidates.rows(1, 3)
    assert type(part) is type(array)
    assert part.dtype == array.dtype
    assert part.tolist() == array[1:3].tolist()
    part[:] = -1
    assert candidates.rows(1, 3).tolist() == array[1:3].tolist()
    assert array.min() == 0
    assert tuple(candidates.rows(2, 2).shape) == (0, 3)
    again = pickle.loads(pickle.dumps(candidates))
    assert again.rows(0, 4).tolist() == array.tolist()
    assert not hasattr(candidates, "__dict__")


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([1, 2], np.uint8),
        np.array([1, 2], np.float32),
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ],
    ids=str,
)
def test_values_of_every_kind_become_float64(values):
    evaluations = Evaluations(values)
    assert type(evaluations.values) is np.ndarray
    assert evaluations.values.dtype == np.float64
    assert evaluations.values.tolist() == [1, 2]
    assert len(evaluations) == 2
    assert evaluations.failures == ()


def test_no_values_are_no_evaluations():
    assert len(Evaluations(np.zeros(0))) == 0


def test_infinities_have_failed():
    given = np.array([1.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(Evaluations(given).values, [1.0, np.nan, np.nan, np.nan])
    assert given[1] == np.inf  # what was given stays as it was


@pytest.mark.parametrize("values", [1.0, np.zeros((2, 2)), torch.zeros(2, 1)], ids=repr)
def test_values_of_another_shape_are_refused(values):
    with pytest.raises(ValueError, match="`values` must have one dimension, got shape"):
        Evaluations(values)


@pytest.mark.parametrize("values", [[1j], ["1"], [None], [1.0, None], np.zeros(1, np.complex64)], ids=repr)
def test_values_that_are_no_real_numbers_are_refused(values):
    with pytest.raises(TypeError, match="`values` must be real numbers"):
        Evaluations(values)


def test_evaluations_are_frozen():
    evaluations = Evaluations([1.0])
    with pytest.raises(FrozenInstanceError):
        evaluations.values = np.zeros(1)  # type: ignore[misc]


def test_replies_say_which_rows_they_hold_and_travel():
    reply = Reply(3, np.array([1.0, np.nan]), (Failure(4, "returned", "returned nan"),), 0.5)
    assert (reply.start, reply.stop) == (3, 5)
    again = pickle.loads(pickle.dumps(reply))
    assert (again.start, again.stop, again.failures, again.seconds) == (3, 5, reply.failures, 0.5)
    np.testing.assert_array_equal(again.values, reply.values)


def test_failures_are_ordered_by_row():
    failures = [Failure(2, "raised", "b", "x"), Failure(0, "returned", "c"), Failure(1, "crashed", "a")]
    assert [failure.row for failure in sorted(failures)] == [0, 1, 2]
    assert failures[1].details == ""
