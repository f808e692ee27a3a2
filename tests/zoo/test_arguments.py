"""What arguments stand for: values known before, whole numbers, objectives of odd lengths."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import zoo
from zoo.arguments import as_known, as_region
from zoo.core.errors import EvaluationError, RunDirectoryError


def sphere(x):
    return float((x**2).sum())


def test_only_none_is_evaluated_first_and_nan_has_failed():
    told, first = as_known(([[1.0], [2.0], [3.0]], [4.0, np.nan, None]))
    assert told.points.tolist() == [[1.0], [2.0]]
    assert np.isnan(told.values).tolist() == [False, True]
    assert first.tolist() == [[3.0]]
    seen = []
    known = ([[5.0, 5.0], [3.0, 3.0], [2.0, 2.0]], [50.0, np.nan, None])
    zoo.minimize(lambda x: seen.append(x.tolist()) or sphere(x), known=known, budget=20, rng=0)
    assert seen[0] == [2.0, 2.0]
    assert [3.0, 3.0] not in seen


def test_failed_points_alone_say_nothing():
    told, first = as_known(([[1.0], [2.0]], [np.inf, None]))
    assert told is None
    assert first.tolist() == [[2.0]]
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="one finite value at least"):
            zoo.minimize(sphere, known=([[1.0, 1.0]], [value]), budget=20)


@pytest.mark.parametrize("values", [None, [2.0, 1.0]])
def test_without_x0_the_start_is_of_the_kind_of_the_known_points(values):
    for points in (torch.ones(2, 3), list(torch.ones(2, 3))):
        start = as_region(None, None, None, (points, values))["start"]
        assert start.dtype == torch.float32
        assert start.tolist() == [1.0] * 3
    assert as_region(None, None, None, (np.ones((2, 3), np.float32), values))["start"].dtype == np.float32
    assert as_region(None, None, None, ([[1, 1, 1]] * 2, values))["start"].dtype == np.float64
    kinds = set()
    known = (torch.ones(2, 3), values)
    zoo.minimize(lambda x: kinds.add(type(x)) or float((x**2).sum()), known=known, budget=20, rng=0)
    assert kinds == {torch.Tensor}


@pytest.mark.parametrize("budget", [1e3, np.float64(1000)])
def test_a_whole_float_is_no_budget_and_it_is_said_what_to_write(budget):
    with pytest.raises(TypeError, match=r"`budget` must be an integer, got .*1000.0\)?: write 1000\."):
        zoo.minimize(sphere, np.ones(2), budget=budget)


@pytest.mark.parametrize("budget", [10.5, float("nan"), float("inf"), "10", True])
def test_what_is_no_whole_number_is_not_made_one(budget):
    with pytest.raises(TypeError, match=r"`budget` must be an integer, got [^:]*\.$"):
        zoo.minimize(sphere, np.ones(2), budget=budget)


def test_objectives_of_differing_length():
    def odd(x):
        return [x[0], x[1], 1.0][: 2 if x[0] > 0 else 3]

    with pytest.raises(EvaluationError, match=r"must have as many objectives, got [23] and [23]"):
        zoo.minimize(odd, np.zeros(2), method="nsga2", budget=100, rng=0)


def test_an_edited_lambda_is_told_by_its_code(tmp_path):
    one, other = (lambda x: sphere(x)), (lambda x: 2 * sphere(x))
    zoo.minimize(one, np.ones(2), budget=20, rng=0, out=tmp_path / "run")
    for again in (
        lambda: zoo.resume(tmp_path / "run", other),
        lambda: zoo.minimize(other, np.ones(2), budget=20, rng=0, out=tmp_path / "run"),
    ):
        with pytest.raises(RunDirectoryError, match="lambda>' whose code is not that of `fun`, another obj"):
            again()


def test_the_package_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
