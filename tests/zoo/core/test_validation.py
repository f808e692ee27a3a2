"""Sentences for bad input, and exceptions that keep what they know."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

from zoo.core.errors import CheckpointError, EvaluationError, Interrupt, RunDirectoryError, ZooError
from zoo.core.validation import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_known,
    check_number,
    check_positive,
    hint,
    listed,
)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), Fraction(2)])
def test_numbers_of_every_kind_are_taken(value):
    for check in (check_number, check_positive):
        assert check("a", value) == 2.0
        assert type(check("a", value)) is float


@pytest.mark.parametrize("value", ["2", None, True, np.True_, 2j, [2.0], np.array([2.0])], ids=repr)
@pytest.mark.parametrize("check", [check_number, check_positive, check_fraction])
def test_what_is_no_number_is_refused(check, value):
    with pytest.raises(TypeError, match="`sigma` must be a number, got"):
        check("sigma", value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), -float("inf"), np.float64(0)])
def test_positive_means_finite_and_above_zero(value):
    with pytest.raises(ValueError, match="`sigma` must be a finite number above 0, got"):
        check_positive("sigma", value)


def test_counts():
    assert check_count("n", np.int64(3)) == 3
    assert type(check_count("n", np.int64(3))) is int
    assert check_count("n", 0, minimum=0) == 0
    for value in (1.0, True, "1", None, np.float64(1)):
        with pytest.raises(TypeError, match="`n` must be an integer, got"):
            check_count("n", value)
    with pytest.raises(ValueError, match=r"^`n` must be at least 1, got 0\.$"):
        check_count("n", 0)
    with pytest.raises(ValueError, match=r"^`n` must be at least 4, got 3\.$"):
        check_count("n", 3, minimum=4)


def test_fractions():
    assert check_fraction("beta", 0) == 0.0
    assert check_fraction("beta", 0.9) == 0.9
    for value in (1, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`beta` must be at least 0 and below 1, got"):
            check_fraction("beta", value)


def test_flags():
    assert check_flag("active", True) is True
    assert check_flag("active", False) is False
    for value in (1, None, "yes"):
        with pytest.raises(TypeError, match="`active` must be True or False, got"):
            check_flag("active", value)


def test_choices():
    assert check_choice("mode", "clip", ("reflect", "clip")) == "clip"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole sentence follows
        check_choice("mode", "reflekt", ("reflect", "clip"))
    assert str(caught.value) == (
        "`mode` must be one of 'reflect', 'clip', got 'reflekt'. Did you mean 'reflect'?"
    )
    with pytest.raises(ValueError, match=r"got None\.$"):
        check_choice("mode", None, ("reflect", "clip"))
    with pytest.raises(ValueError, match=r"got 3\.$"):
        check_choice("mode", 3, iter(["reflect"]))


def test_known_names():
    check_known("option", ["a"], ["a", "b"])
    check_known("option", [], [])
    with pytest.raises(
        TypeError, match=r"^unknown option 'sigm'\. Did you mean 'sigma'\? Valid: 'n', 'sigma'\.$"
    ):
        check_known("option", ["n", "sigm"], ["sigma", "n"])
    with pytest.raises(TypeError, match=r"^unknown option 'x'\. Valid: none\.$"):
        check_known("option", ["x"], [])


def test_hints():
    assert hint("populationsize", ["population_size", "sigma"]) == " Did you mean 'population_size'?"
    assert hint("zzz", ["population_size"]) == ""
    assert hint(None, []) == ""
    assert listed([]) == "none"
    assert listed(["a", 1]) == "'a', 1"


# Exceptions.


def test_evaluation_errors_show_the_objectives_traceback():
    error = EvaluationError("evaluation 3 raised: boom", evaluation=3, details="Traceback: boom\n")
    assert str(error) == "evaluation 3 raised: boom\n\nTraceback: boom"
    assert str(EvaluationError("boom")) == "boom"
    assert EvaluationError("boom").evaluation == -1


def test_evaluation_errors_travel_whole():
    error = pickle.loads(pickle.dumps(EvaluationError("boom", evaluation=3, details="line 1")))
    assert (str(error), error.evaluation, error.details) == ("boom\n\nline 1", 3, "line 1")


def test_errors_can_be_caught_by_what_they_are():
    assert issubclass(EvaluationError, ZooError)
    assert issubclass(CheckpointError, RunDirectoryError)
    assert issubclass(RunDirectoryError, RuntimeError)
    assert not issubclass(Interrupt, Exception)
