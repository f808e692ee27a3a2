"""Objectives in every form a user may have them, and what becomes of those that go wrong."""

from __future__ import annotations

import functools
import math
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.core.command import Command, _Program
from zoo.core.device import Like, to_numpy
from zoo.core.errors import Interrupt
from zoo.core.objective import (
    Named,
    Objective,
    ScalarFunction,
    VectorizedFunction,
    _reply,
    as_number,
    as_objective,
    failure_of,
)
from zoo.core.rng import Key, keyed_generators
from zoo.core.types import Candidates, Evaluations, Failure, Reply, Rows

KEY = Key(0)


def sphere(x: Any) -> float:
    return float((x**2).sum())


def spheres(x: Any) -> Any:
    return (x**2).sum(1)


def shifted(x: Any, shift: float, power: int = 2) -> float:
    return float((abs(x - shift) ** power).sum())


def noisy(x: Any) -> float:
    return float(x.sum()) + random.random() + float(np.random.rand()) + float(torch.rand(()))


def slow_noisy(x: Any) -> float:
    first = noisy(x)
    time.sleep(0.002)
    return first + noisy(x)


class Scaled:
    """A function that is an instance."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> float:
        return self.factor * sphere(x)

    def method(self, x: Any) -> float:
        return self(x)


class Keyed(Objective):
    """Values that tell which key each call was given."""

    def __call__(self, x: Any, *, key: Key) -> Any:
        return np.full(len(x), float(key.seed(40)))


class Five(Objective):
    unit = 5

    def __call__(self, x: Any, *, key: Key) -> Any:
        return spheres(x)


class Streams(Rows):
    """Rows with noise streams of their own."""

    def __init__(self, array: Any, streams: list[int]) -> None:
        super().__init__(array)
        self.streams = np.array(streams)

    def noise(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return self.streams[start:stop]


def points(n: int = 5, dim: int = 3, like: Like | None = None) -> Rows:
    x = KEY.fold("points").normal(0, n, dim)
    return Rows(x if like is None else like.asarray(x))


def reply_of(objective: Objective, candidates: Candidates, key: Key = KEY, step: int = 0) -> Reply:
    return objective.evaluate_units(candidates, objective.units(candidates), key=key, step=step)


def reply_to(fun: Any, candidates: Candidates | None = None, **options: Any) -> Reply:
    return reply_of(as_objective(fun, **options), candidates or points())


EXPECTED = (points().array ** 2).sum(1)


# Forms.


def test_a_function_of_one_point():
    reply = reply_to(sphere)
    np.testing.assert_array_equal(reply.values, [sphere(x) for x in points().array])
    assert (reply.start, reply.stop, reply.failures) == (0, 5, ())
    assert reply.values.dtype == np.float64
    assert reply.seconds > 0


def test_a_function_of_many_points():
    reply = reply_to(spheres, vectorized=True)
    np.testing.assert_array_equal(reply.values, EXPECTED)
    assert reply.failures == ()


@pytest.mark.parametrize(
    "like",
    [
        Like("numpy", "float32"),
        Like("torch", "float32"),
        Like("torch", "float64"),
        Like("torch", "bfloat16"),
        Like("numpy", "float16"),
    ],
)
@pytest.mark.parametrize("vectorized", [False, True])
def test_points_and_values_may_be_of_any_kind(like, vectorized):
    seen = []

    def fun(x: Any) -> Any:
        seen.append(Like.of(x))
        return (x**2).sum(-1)  # a scalar of the same kind, of no dimensions

    reply = reply_to(fun, points(like=like), vectorized=vectorized)
    assert set(seen) == {like}
    assert reply.values.dtype == np.float64
    expected = (to_numpy(points(like=like).array).astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(reply.values, expected, rtol=8 * like.epsilon)


@pytest.mark.parametrize("vectorized", [False, True])
def test_values_may_carry_a_gradient(vectorized):
    weight = torch.ones(3, requires_grad=True)
    reply = reply_to(
        lambda x: (weight * x**2).sum(-1), points(like=Like("torch", "float64")), vectorized=vectorized
    )
    np.testing.assert_allclose(reply.values, EXPECTED)


@pytest.mark.gpu
@pytest.mark.parametrize("vectorized", [False, True])
def test_values_may_lie_on_a_gpu(vectorized):
    like = Like("torch", "float32", "cuda:0")
    reply = reply_to(lambda x: (x**2).sum(-1), points(like=like), vectorized=vectorized)
    np.testing.assert_allclose(reply.values, EXPECTED, rtol=1e-5)


VALUES = [
    1,
    True,
    np.True_,
    np.float64(1),
    np.float32(1),
    np.int8(1),
    np.array(1.0),
    torch.tensor(1.0),
    torch.tensor(1),
    torch.tensor(1.0, dtype=torch.bfloat16),
    torch.tensor(True),
]


@pytest.mark.parametrize(
    "value", VALUES, ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}"
)
def test_numbers_of_every_kind_are_values(value):
    assert as_number(value) == 1
    assert type(as_number(value)) is float
    assert reply_to(lambda x: value).values.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3, 4, 5],
        (1.0, 2.0, 3.0, 4.0, 5.0),
        np.arange(1, 6, dtype=np.uint8),
        torch.arange(1, 6),
        np.arange(1, 6, dtype=np.float16),
    ],
    ids=repr,
)
def test_rows_of_numbers_of_every_kind_are_values(values):
    assert reply_to(lambda x: values, vectorized=True).values.tolist() == [1, 2, 3, 4, 5]


def test_further_arguments_are_passed():
    expected = reply_to(lambda x: shifted(x, 2.0, 4)).values
    assert reply_to(shifted, args=(2.0, 4)).values.tolist() == expected.tolist()
    assert reply_to(f"{__name__}:shifted", args=(2.0, 4)).values.tolist() == expected.tolist()
    vectorized = reply_to(lambda x, shift: ((x - shift) ** 2).sum(1), args=(2.0,), vectorized=True)
    np.testing.assert_allclose(vectorized.values, reply_to(shifted, args=(2.0,)).values)


@pytest.mark.parametrize("fun", [shifted, f"{__name__}:shifted"])
def test_one_further_argument_needs_no_tuple(fun):
    """As in scipy; an array is one argument too."""
    expected = reply_to(shifted, args=(2.0,)).values.tolist()
    assert reply_to(fun, args=2.0).values.tolist() == expected
    assert reply_to(fun, args=np.full(3, 2.0)).values.tolist() == expected


@pytest.mark.parametrize("vectorized", [False, True])
def test_the_objective_may_write_to_its_points(vectorized):
    candidates = points()
    before = candidates.array.copy()

    def fun(x: Any) -> Any:
        value = (x**2).sum(-1)
        x[:] = np.nan
        return value

    np.testing.assert_allclose(reply_to(fun, candidates, vectorized=vectorized).values, EXPECTED)
    np.testing.assert_array_equal(candidates.array, before)


def test_an_objective_is_taken_as_it_is():
    objective = Five()
    assert as_objective(objective) is objective
    assert as_objective(objective, vectorized=True, noise=True) is objective
    np.testing.assert_array_equal(reply_to(objective).values, EXPECTED)


def test_a_method_an_instance_and_a_partial_are_functions():
    twice = [2 * sphere(x) for x in points().array]
    for fun in (Scaled(2.0), Scaled(2.0).method, functools.partial(Scaled(2.0))):
        assert reply_to(fun).values.tolist() == twice


@pytest.mark.parametrize("fun", [3, None, 1.5, object(), Objective, Five])
def test_what_is_no_objective_is_refused(fun):
    with pytest.raises(TypeError, match="`fun` must be a function"):
        as_objective(fun)


@pytest.mark.parametrize("fun", [[], [1], ["a", None], ()])
def test_what_is_no_command_is_refused(fun):
    with pytest.raises(TypeError, match="list of strings"):
        as_objective(fun)


def test_arguments_are_for_functions():
    for fun in (Five(), ["true"]):
        with pytest.raises(TypeError, match="`args` and `vectorized` are for plain functions"):
            as_objective(fun, args=(1,))
    with pytest.raises(TypeError, match="`args` and `vectorized` are for plain functions"):
        as_objective(["true"], vectorized=True)


def test_an_objective_without_call_says_what_is_missing():
    class Empty(Objective):
        pass

    reply = reply_to(Empty())
    assert reply.failures[0].message == "TypeError: Empty must define `__call__(self, x, *, key)`."


# What is no value.

BAD = {
    "None": (None, "got None. Does it end without `return`"),
    "complex": (1j, "must return a real number"),
    "numpy complex": (np.complex64(1), "must return a real number"),
    "vector": (np.zeros(3), r"one number, got an array of shape (3,). If it takes many points"),
    "one entry": (np.zeros(1), "shape (1,)"),
    "tensor": (torch.zeros(2), "shape (2,)"),
    "string": ("1.0", "must return a number, got '1.0'"),
    "bytes": (b"1", "must return a number"),
    "list": ([1.0], "must return a number, got [1.0]"),
    "object": (Five, "must return a number"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("noise", [False, True])
def test_what_is_no_number_is_an_exception(name, noise):
    value, message = BAD[name]
    reply = reply_to(lambda x: value, noise=noise)
    assert np.isnan(reply.values).all()
    assert [failure.row for failure in reply.failures] == list(range(5))
    assert {failure.kind for failure in reply.failures} == {"raised"}
    assert message in reply.failures[0].message
    assert "\n" not in reply.failures[0].message
    assert reply.failures[0].details == ""  # there is no line of the user's to show


BAD_ROWS = {
    "None": (None, "got None"),
    "number": (1.0, "shape (5,) for 5 points, got ()"),
    "column": (np.zeros((5, 1)), "shape (5,) for 5 points, got (5, 1)"),
    "short": (np.zeros(4), "shape (5,) for 5 points, got (4,)"),
    "complex": (np.zeros(5, np.complex64), "must return real numbers, got complex64"),
    "complex tensor": (torch.zeros(5, dtype=torch.complex64), "must return real numbers, got complex64"),
    "strings": (["a"] * 5, "must return numbers, got an array of <U1"),
    "objects": ([None] * 5, "must return numbers, got an array of object"),
    "evaluations": (Evaluations(np.zeros(4)), "must return 5 values for 5 points, got 4"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_what_is_no_row_of_numbers_is_an_exception(name):
    value, message = BAD_ROWS[name]
    reply = reply_to(lambda x: value, vectorized=True)
    assert np.isnan(reply.values).all()
    assert [failure.row for failure in reply.failures] == list(range(5))
    assert message in reply.failures[0].message


@pytest.mark.parametrize("vectorized", [False, True])
def test_nan_and_infinities_are_failures_that_are_named(vectorized):
    values = [1.0, float("nan"), float("inf"), float("-inf"), 1e308]
    candidates = Rows(np.arange(5.0)[:, None])

    def fun(x: Any) -> Any:
        return np.array(values)[x[..., 0].astype(int)]

    reply = reply_to(fun, candidates, vectorized=vectorized)
    np.testing.assert_array_equal(reply.values, [1.0, np.nan, np.nan, np.nan, 1e308])
    assert [(failure.row, failure.kind, failure.message) for failure in reply.failures] == [
        (1, "returned", "returned nan"),
        (2, "returned", "returned inf"),
        (3, "returned", "returned -inf"),
    ]


@pytest.mark.parametrize("vectorized", [False, True])
def test_values_whose_sum_overflows_are_values(vectorized):
    reply = reply_to(lambda x: np.full(len(x), 1.5e308) if vectorized else 1.5e308, vectorized=vectorized)
    assert reply.values.tolist() == [1.5e308] * 5
    assert reply.failures == ()


def test_evaluations_may_bring_failures_of_their_own():
    class Partly(Objective):
        unit = 3

        def __call__(self, x: Any, *, key: Key) -> Evaluations:
            values = spheres(x)
            values[1] = np.nan
            return Evaluations(values, (Failure(1, "returned", "did not converge"),))

    reply = reply_to(Partly())
    assert [(failure.row, failure.message) for failure in reply.failures] == [
        (1, "did not converge"),
        (4, "did not converge"),
    ]


# Exceptions.


def fails_deep_down(x: Any) -> float:
    try:
        return inner(x)
    except KeyError as error:
        raise RuntimeError("simulation failed\nsecond line") from error


def inner(x: Any) -> float:
    raise KeyError("mesh")


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_an_exception_is_told_with_the_users_frames_and_no_others(vectorized, noise, named):
    fun = f"{__name__}:fails_deep_down" if named else fails_deep_down
    reply = reply_to(fun, vectorized=vectorized, noise=noise)
    assert [failure.row for failure in reply.failures] == list(range(5))
    failure = reply.failures[0]
    assert (failure.kind, failure.message) == ("raised", "RuntimeError: simulation failed")
    assert failure.details.startswith("Traceback of the objective (most recent call last):\n")
    assert "Traceback (" not in failure.details
    assert "fails_deep_down" in failure.details
    assert "KeyError: 'mesh'" in failure.details
    assert "in inner" in failure.details
    assert "second line" in failure.details
    assert "direct cause" in failure.details
    files = {line.split('"')[1] for line in failure.details.splitlines() if line.startswith("  File ")}
    assert files == {__file__}


def misspelt_factory() -> Objective:
    return as_objective("no_such_module:f")


def test_causes_are_told_with_the_users_frames_and_no_others():
    objective = as_objective(f"{__name__}:misspelt_factory()")
    (failure,) = objective.evaluate_units(points(1), [0, 1], key=KEY, step=0).failures
    files = {line.split('"')[1] for line in failure.details.splitlines() if line.startswith("  File ")}
    assert files == {__file__}
    assert "ModuleNotFoundError" in failure.details


def test_one_exception_does_not_disturb_the_others():
    def fun(x: Any) -> float:
        if x[0] == 2:
            raise ValueError
        if x[0] == 3:
            sys.exit(4)
        return float(x[0])

    candidates = Rows(np.arange(6.0)[:, None])
    for noise in (False, True):
        reply = reply_to(fun, candidates, noise=noise)
        np.testing.assert_array_equal(reply.values, [0, 1, np.nan, np.nan, 4, 5])
        assert [(f.row, f.message) for f in reply.failures] == [(2, "ValueError"), (3, "SystemExit: 4")]


def test_one_failing_unit_does_not_disturb_the_others():
    class Picky(Objective):
        unit = 2

        def __call__(self, x: Any, *, key: Key) -> Any:
            if (x == 3).any():
                raise ValueError("three")
            return x[:, 0]

    reply = reply_to(Picky(), Rows(np.arange(7.0)[:, None]))
    np.testing.assert_array_equal(reply.values, [0, 1, np.nan, np.nan, 4, 5, 6])
    assert [f.row for f in reply.failures] == [2, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("vectorized", [False, True])
def test_what_is_meant_for_the_process_passes(error, vectorized):
    def fun(x: Any) -> float:
        raise error

    with pytest.raises(error):
        reply_to(fun, vectorized=vectorized)


@pytest.mark.parametrize("noise", [False, True])
def test_an_interrupt_leaves_what_was_evaluated(noise):
    def fun(x: Any) -> float:
        if x[0] == 3:
            raise Interrupt
        return float(x[0])

    reply = reply_to(fun, Rows(np.arange(6.0)[:, None]), noise=noise)
    assert (reply.start, reply.stop, reply.values.tolist()) == (0, 3, [0.0, 1.0, 2.0])
    assert reply.failures == ()


def test_an_interrupt_leaves_whole_units():
    class Slow(Objective):
        unit = 2

        def __call__(self, x: Any, *, key: Key) -> Any:
            if (x == 3).any():
                raise Interrupt
            return x[:, 0]

    reply = reply_to(Slow(), Rows(np.arange(7.0)[:, None]))
    assert reply.values.tolist() == [0.0, 1.0]


def test_an_interrupt_at_once_leaves_nothing():
    def fun(x: Any) -> float:
        raise Interrupt

    assert reply_to(fun).values.tolist() == []
    assert reply_to(fun, vectorized=True).values.tolist() == []


def test_a_syntax_error_is_told_with_its_place():
    with pytest.raises(SyntaxError) as caught:
        compile("a =\n", "broken.py", "exec")
    failure = failure_of(caught.value, 0)
    assert 'File "broken.py", line 1' in failure.details


# Units.


@pytest.mark.parametrize(("n", "size"), [(1, 64), (64, 64), (65, 64), (1024, 64), (1025, 65), (5000, 313)])
def test_units_of_a_batch_are_a_sixteenth_and_no_less_than_64(n, size):
    boundaries = as_objective(spheres, vectorized=True).units(Rows(np.zeros((n, 1))))
    assert list(boundaries) == [*range(0, n, size), n]
    assert len(boundaries) - 1 <= 16


def test_units_may_be_said_by_the_objective():
    assert list(Five().units(points(12))) == [0, 5, 10, 12]
    assert list(Five().units(points(10))) == [0, 5, 10]
    assert list(as_objective(sphere).units(points(3))) == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [1, 64, 70, 200])
def test_a_batch_is_evaluated_in_whole_units(n):
    sizes = []

    def fun(x: Any) -> Any:
        sizes.append(len(x))
        return spheres(x)

    objective = as_objective(fun, vectorized=True)
    candidates = points(n)
    boundaries = list(objective.units(candidates))
    reply_of(objective, candidates)
    assert sizes == np.diff(boundaries).tolist()


def test_some_units_are_evaluated_as_they_are_among_all():
    for objective in (as_objective(spheres, vectorized=True), as_objective(sphere), Keyed(), Five()):
        candidates = points(300)
        boundaries = objective.units(candidates)
        whole = reply_of(objective, candidates)
        middle = boundaries[1:-1]
        part = objective.evaluate_units(candidates, middle, key=KEY, step=0)
        assert part.start == middle[0]
        assert part.values.tobytes() == whole.values[middle[0] : middle[-1]].tobytes()


def test_long_points_are_made_a_few_at_a_time():
    class Counted(Rows):
        most = 0

        def rows(self, start: int, stop: int) -> Any:
            Counted.most = max(Counted.most, stop - start)
            return super().rows(start, stop)

    candidates = Counted(np.ones((50, 40_000)))
    assert reply_to(sphere, candidates).values.tolist() == [40_000.0] * 50
    assert Counted.most == 2**18 // 40_000


class Slow(Objective):
    """Many points at a time, the second unit slowly."""

    unit = 5

    def __call__(self, x: Any, *, key: Key) -> Any:
        time.sleep(0.05 if 5 in x[:, 0] else 0.0)
        return x[:, 0]


def slow(x: Any) -> float:
    time.sleep(0.05 if x[0] == 5 else 0.0)
    return float(x[0])


@pytest.mark.parametrize(
    ("objective", "done"),
    [
        (as_objective(slow), 6),
        (as_objective(slow, noise=True), 6),
        (as_objective(f"{__name__}:slow"), 6),
        (Slow(), 10),
    ],
)
def test_a_reply_is_cut_between_units_when_time_is_over(objective, done):
    candidates = Rows(np.arange(20.0)[:, None])
    boundaries = objective.units(candidates)
    reply = objective.evaluate_units(candidates, boundaries, key=KEY, step=0, limit=0.04)
    assert reply.values.tolist() == list(range(done))
    assert not reply.interrupted
    first = objective.evaluate_units(candidates, boundaries, key=KEY, step=0, limit=0.0)
    assert len(first.values) == boundaries[1]


def test_a_buffer_may_be_used_again():
    buffer = np.empty(100)

    def into(x: Any) -> Any:
        return np.sum(x**2, axis=1, out=buffer[: len(x)])

    objective = as_objective(into, vectorized=True)
    candidates = points(150)
    boundaries = objective.units(candidates)
    parts = [objective.evaluate_units(candidates, boundaries[i : i + 2], key=KEY, step=0) for i in range(3)]
    expected = (candidates.array**2).sum(1)
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), expected)
    np.testing.assert_array_equal(reply_of(objective, candidates).values, expected)

    class Own(Objective):
        unit = 7

        def evaluate(
            self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int
        ) -> Evaluations:
            return Evaluations(into(candidates.rows(start, stop)))

    np.testing.assert_array_equal(reply_of(Own(), candidates).values, expected)


def test_failures_of_an_interrupted_reply_have_a_value():
    """A signal may come between the two."""

    class Odd(Objective):
        unit = 1

        def __call__(self, x: Any, *, key: Key) -> Any:
            if x[0, 0] == 2:
                raise Interrupt
            return [float("nan")]

    reply = reply_of(Odd(), Rows(np.arange(4.0)[:, None]))
    assert reply.interrupted
    assert (reply.stop, [failure.row for failure in reply.failures]) == (2, [0, 1])
    cut = _reply(3, np.array([1.0]), [Failure(3, "raised", ""), Failure(4, "raised", "")], 0.0, True)
    assert [failure.row for failure in cut.failures] == [3]


# Noise.


def test_rows_are_grouped_by_noise_stream():
    streams = [0, 3, 0, 3, 7, 0]
    reply = reply_of(Keyed(), Streams(np.zeros((6, 2)), streams), step=4)
    assert reply.values.tolist() == [float(KEY.fold(4, stream).seed(40)) for stream in streams]
    common = reply_of(Keyed(), points(6), step=4)
    assert common.values.tolist() == [float(KEY.fold(4, 0).seed(40))] * 6


def test_failures_of_a_stream_are_at_their_rows():
    class Odd(Objective):
        def __call__(self, x: Any, *, key: Key) -> Evaluations:
            return Evaluations(
                np.full(len(x), np.nan), tuple(Failure(i, "returned", str(v)) for i, v in enumerate(x[:, 0]))
            )

    reply = reply_of(Odd(), Streams(np.arange(5.0)[:, None], [1, 0, 1, 0, 1]))
    assert sorted((failure.row, failure.message) for failure in reply.failures) == [
        (i, f"{i}.0") for i in range(5)
    ]


@pytest.mark.parametrize("form", ["scalar", "vectorized", "named"])
def test_noise_is_a_function_of_key_step_and_stream(form):
    fun: Any = {
        "scalar": noisy,
        "vectorized": lambda x: np.array([noisy(row) for row in x]),
        "named": f"{__name__}:noisy",
    }[form]
    objective = as_objective(fun, vectorized=form == "vectorized", noise=True)
    same = Streams(np.zeros((4, 2)), [0, 0, 1, 1])

    def values(key: Key, step: int) -> list[float]:
        return reply_of(objective, same, key, step).values.tolist()

    first = values(KEY, 0)
    assert values(KEY, 0) == first
    if form != "vectorized":  # which draws for its points one after the other
        assert first[0] == first[1]  # common random numbers within a stream
        assert first[2] == first[3]
    assert len({*first[::2], *values(KEY, 1)[::2], *values(Key(1), 0)[::2]}) == 6


def test_noise_does_not_depend_on_what_was_drawn_before():
    objective = as_objective(noisy, noise=True)
    first = reply_of(objective, points())
    with keyed_generators(Key(77)):
        noisy(np.zeros(2))
        second = reply_of(objective, points())
    assert first.values.tolist() == second.values.tolist()


def test_threads_do_not_disturb_each_others_noise():
    objective = as_objective(slow_noisy, noise=True)
    candidates = points(12)
    expected = reply_of(objective, candidates).values
    before = np.random.get_state()[1].tobytes()
    with ThreadPoolExecutor(3) as pool:
        replies = list(
            pool.map(lambda i: objective.evaluate_units(candidates, [i, i + 1], key=KEY, step=0), range(12))
        )
    assert [reply.values[0] for reply in replies] == expected.tolist()
    assert np.random.get_state()[1].tobytes() == before


def test_without_noise_the_generators_are_the_users():
    with keyed_generators(Key(0)):
        expected = [noisy(x) for x in points().array]
    with keyed_generators(Key(0)):
        assert reply_to(noisy).values.tolist() == expected


# By name.

FACTORY_CALLS = []


def factory() -> Callable[[Any], float]:
    FACTORY_CALLS.append(threading.get_ident())
    return sphere


def broken_factory() -> Any:
    raise OSError("no such file: weights.bin")


class Nested:
    """Something with a function inside."""

    @staticmethod
    def fun(x: Any) -> float:
        return sphere(x)


FIVE = Five()


@pytest.mark.parametrize("name", ["sphere", "Nested.fun", "factory()", "FIVE", "Five()"])
def test_named_objectives(name):
    reply = reply_to(f"{__name__}:{name}")
    np.testing.assert_allclose(reply.values, EXPECTED)
    assert as_objective(f"{__name__}:{name}").identity() == {"name": f"{__name__}:{name}"}


def test_named_functions_of_many_points():
    np.testing.assert_array_equal(reply_to(f"{__name__}:spheres", vectorized=True).values, EXPECTED)


def test_a_factory_is_called_once_in_each_process():
    objective = as_objective(f"{__name__}:factory()")
    FACTORY_CALLS.clear()
    reply_of(objective, points())
    reply_of(objective, points())
    assert len(FACTORY_CALLS) == 1
    again = pickle.loads(pickle.dumps(objective))
    assert again.spec == objective.spec
    reply_of(again, points())
    assert len(FACTORY_CALLS) == 2


def test_a_factory_that_raises_is_a_failure_of_each_point():
    objective = as_objective(f"{__name__}:broken_factory()")
    reply = objective.evaluate_units(points(), [1, 2, 3], key=KEY, step=0)
    assert [(f.row, f.message) for f in reply.failures] == [
        (i, "OSError: no such file: weights.bin") for i in (1, 2)
    ]
    assert "broken_factory" in reply.failures[0].details
    assert (reply.start, reply.stop) == (1, 3)


def test_a_module_that_is_missing_where_it_is_evaluated(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def fun(x):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    sent = pickle.dumps(as_objective("only_here:fun"))
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "only_here")
    reply = pickle.loads(sent).evaluate_units(points(), [0, 1], key=KEY, step=0)
    (failure,) = reply.failures
    assert failure.message.startswith("ValueError: `fun` must name a module that can be imported")
    assert failure.details == ""  # none of the frames is the user's


@pytest.mark.parametrize(
    "spec", ["sphere", ":sphere", "math:", "math:a b", "math:sin()()", "math:sin:cos", ":", "", "math:1"]
)
def test_specs_of_another_form_are_refused(spec):
    with pytest.raises(ValueError, match=r'`fun` must have the form "module:name" or "module:name\(\)"'):
        as_objective(spec)


@pytest.mark.parametrize(
    "spec", ["no_such_module:f", "zoo.no_such_module:f", "math.sin:f", "no.such.package:f()"]
)
def test_modules_that_cannot_be_imported_are_refused(spec):
    with pytest.raises(ValueError, match="`fun` must name a module that can be imported"):
        as_objective(spec)


def test_a_module_without_that_name_is_refused_and_the_nearest_said():
    with pytest.raises(ValueError, match=r"'zoo.problems' has no 'spere'. Did you mean 'sphere'\?"):
        as_objective("zoo.problems:spere")
    with pytest.raises(ValueError, match=r"has no 'Nested\.fn'. Did you mean 'fun'"):
        as_objective(f"{__name__}:Nested.fn")


def test_units_of_named_objectives():
    assert list(as_objective(f"{__name__}:sphere").units(points(3))) == [0, 1, 2, 3]
    assert list(as_objective(f"{__name__}:spheres", vectorized=True).units(points(70))) == [0, 64, 70]
    assert list(as_objective(f"{__name__}:FIVE").units(points(7))) == [0, 5, 7]
    assert list(as_objective(f"{__name__}:factory()").units(points(3))) == [0, 1, 2, 3]


class Expensive(Objective):
    """What only workers should build."""

    unit = 3
    built = 0

    def __init__(self) -> None:
        Expensive.built += 1
        self.unit = 4  # not an attribute of the class, so of no consequence

    def __call__(self, x: Any, *, key: Key) -> Any:
        return spheres(x)


def test_units_of_a_named_class_are_known_without_building_it():
    objective = as_objective(f"{__name__}:Expensive()")
    assert list(objective.units(points(7))) == [0, 3, 6, 7]
    assert Expensive.built == 0
    reply_of(objective, points(7))
    assert Expensive.built == 1
    assert list(objective.units(points(7))) == [0, 3, 6, 7]


# Commands.


def script(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


ONCE = script("print(sum(float(v) ** 2 for v in input().split()))")
ON_AND_ON = script("""
import sys
for number, line in enumerate(sys.stdin):
    print(sum(float(v) ** 2 for v in line.split()), flush=True)
""")


@pytest.mark.parametrize("argv", [ONCE, ON_AND_ON], ids=["once", "on and on"])
def test_commands(argv):
    objective = as_objective(argv)
    try:
        np.testing.assert_array_equal(
            reply_of(objective, points(3)).values, [sum(v**2 for v in x.tolist()) for x in points(3).array]
        )
    finally:
        objective.close()


def test_a_command_gets_every_coordinate_to_the_last_bit():
    objective = Command(
        script("""
import sys
for line in sys.stdin:
    print(float(line.split()[1]), flush=True)
""")
    )
    values = [0.1 + 0.2, 5e-324, -1.7976931348623157e308, 1 / 3]
    reply = reply_of(objective, Rows(np.array([[0.0, value] for value in values])))
    objective.close()
    assert reply.values.tolist() == values


def test_a_command_that_goes_on_is_started_once():
    objective = Command(
        script("""
import os, sys
for line in sys.stdin:
    print(os.getpid(), flush=True)
""")
    )
    reply = reply_of(objective, points(4))
    assert len(set(reply.values.tolist())) == 1
    pickled = pickle.loads(pickle.dumps(objective))  # the copy starts one of its own
    assert pickled.argv == objective.argv
    objective.close()
    objective.close()
    assert reply_of(objective, points(1)).values[0] != reply.values[0]
    objective.close()


def test_a_command_whose_answer_is_no_number_is_started_anew():
    """What it says later must not be taken for the answer to the next point."""
    objective = Command(
        script("""
import sys
print("ready", flush=True)
for line in sys.stdin:
    print(float(line), flush=True)
""")
    )
    reply = reply_of(objective, Rows(np.array([[1.0], [2.0], [3.0]])))
    assert np.isnan(reply.values).all()
    assert {f.message for f in reply.failures} == {
        f"ValueError: {sys.executable!r} must answer with one number, got 'ready'."
    }


def test_a_command_that_is_interrupted_is_started_anew():
    objective = Command(ON_AND_ON)

    def interrupted(program: _Program, line: str) -> bytes:
        _Program.ask(program, line)
        raise Interrupt  # the answer has been given, and nobody has taken it

    reply_of(objective, points(1))
    (program,) = objective._programs
    program.ask = functools.partial(interrupted, program)
    reply = reply_of(objective, points(2))
    assert reply.values.tolist() == []
    assert reply.interrupted
    assert program.process.poll() is not None
    np.testing.assert_allclose(reply_of(objective, points(2)).values, EXPECTED[:2])
    objective.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "ended with status 3 and gave no answer"),
        ("input(); print()", "must answer with one number, got ''"),
        ("input(); print('1 2')", "must answer with one number, got '1 2'"),
        ("input(); print('1_000')", "must answer with one number, got '1_000'"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n')", "must answer with one number, got '\ufffd'"),
        ("input(); print('nan')", "returned nan"),
    ],
)
def test_commands_that_go_wrong(code, message):
    reply = reply_to(script(code), points(1))
    assert np.isnan(reply.values).all()
    assert message in reply.failures[0].message


def test_a_command_that_is_not_there():
    with pytest.raises(ValueError, match="no program 'no-such-program-anywhere' is found"):
        as_objective(["no-such-program-anywhere"])


@pytest.mark.parametrize(
    "rest",
    [
        "print(sum(x)); print(0, flush=True)",
        "print(sum(x), flush=True); print(0, flush=True)",
        "print(sum(x), flush=True); time.sleep(0.005); print(0, flush=True)",
        "print(sum(x), flush=True); number += 1; number > 1 and print(0, flush=True)",
    ],
    ids=["at once", "soon", "late", "not at first"],
)
def test_a_command_that_prints_more_than_its_answers(rest):
    """Which answer belongs to which point can no longer be known, not even for a fresh process."""
    objective = Command(
        script(f"""
import sys, time
number = 0
for line in sys.stdin:
    x = list(map(float, line.split()))
    {rest}
""")
    )
    replies = []
    for _ in range(4):
        replies.append(reply_of(objective, points(1)))
        time.sleep(0.05)
    assert len(replies[0].failures) == ("number" not in rest)
    for reply in replies[2:]:
        assert "printed more than one line for a point" in reply.failures[0].message


def test_threads_ask_processes_of_their_own():
    objective = Command(
        script(
            "import sys, time\nfor line in sys.stdin: time.sleep(0.01); print(float(line) ** 2, flush=True)"
        )
    )
    rows = np.arange(20.0)[:, None]
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda x: objective(x[None], key=KEY)[0], rows))
        assert 1 < len(objective._programs) <= 4
        assert values == (rows[:, 0] ** 2).tolist()
        processes = [program.process for program in objective._programs]
        objective.close()
        assert all(process.returncode is not None for process in processes)
        assert pool.submit(objective, rows[3:4], key=KEY).result().tolist() == [9.0]


def test_a_command_that_does_not_heed_a_request_is_killed():
    objective = Command(
        script("""
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin: print(1.0, flush=True)
time.sleep(60)
""")
    )
    reply_of(objective, points(1))
    (program,) = objective._programs
    began = time.monotonic()
    objective.close()
    assert time.monotonic() - began < 10
    assert program.process.returncode == -signal.SIGKILL


def test_a_command_ends_with_its_objective():
    objective = Command(ON_AND_ON)
    reply_of(objective, points(1))
    (process,) = [program.process for program in objective._programs]
    assert process.poll() is None
    del objective
    assert process.poll() is not None


# Identity.


def test_identities_tell_objectives_apart():
    assert as_objective(sphere).identity()["name"] == f"{__name__}:sphere"
    assert as_objective(sphere).identity() == ScalarFunction(sphere).identity()
    assert as_objective(math.sin).identity() == {"name": "math:sin"}
    assert as_objective(["sh", "b c"]).identity() == {"name": "command sh 'b c'"}
    lambdas = [
        lambda x: x.sum(),
        lambda x: x.mean(),
        lambda x: x.sum() + 1,
        lambda x: x.sum() + 2,
        lambda x: sum(v + 1 for v in x),
        lambda x: sum(v + 2 for v in x),
        lambda x: max(x, key=lambda v: v + 1),
        lambda x: max(x, key=lambda v: v + 2),
        lambda x: x.sum(axis=(0,)),
        lambda x: x.sum(axis=(1,)),
    ]
    assert len({as_objective(fun).identity()["code"] for fun in lambdas}) == len(lambdas)


@pytest.mark.parametrize(
    "fun",
    [
        Scaled(2.0),
        functools.partial(shifted, shift=1.0),
        functools.partial(math.pow, 2),
        functools.partial(functools.partial(shifted), 1.0),
        Five(),
        Scaled(1.0).method,
    ],
)
def test_what_a_name_does_not_bring_back_has_more_than_a_name(fun):
    """So that a run of it is resumed with the function at hand, and not with what its name stands for."""
    assert len(as_objective(fun).identity()) > 1


def test_names_of_instances_and_partials_are_those_of_what_is_called():
    assert as_objective(Scaled(1.0)).identity()["name"] == f"{__name__}:Scaled"
    assert as_objective(functools.partial(shifted, shift=1.0)).identity()["name"] == f"{__name__}:shifted"
    assert as_objective(Five()).identity()["name"] == f"{__name__}:Five"


def test_identities_are_the_same_in_every_process():
    code = """
from zoo.core.objective import as_objective
print(as_objective(lambda x: sum(v in {"a", "b", "c", "d"} for v in x) + 1.5).identity()["code"])
"""
    root = Path(__file__).parents[3]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            text=True,
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


# Sending.


def test_functions_and_their_settings_travel():
    for objective in (
        as_objective(shifted, args=(2.0,)),
        as_objective(spheres, vectorized=True, noise=True),
        as_objective(f"{__name__}:sphere"),
        as_objective(ONCE),
        Five(),
    ):
        again = pickle.loads(pickle.dumps(objective))
        assert type(again) is type(objective)
        assert again.identity() == objective.identity()
        assert reply_of(again, points(2)).values.tolist() == reply_of(objective, points(2)).values.tolist()


def test_what_cannot_travel_works_here():
    lock = threading.Lock()

    def fun(x: Any) -> float:
        with lock:
            return sphere(x)

    assert reply_to(fun).values.tolist() == reply_to(sphere).values.tolist()
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        pickle.dumps(as_objective(fun))


def test_options_are_kept():
    scalar, batch, named = (
        as_objective(sphere, noise=True),
        as_objective(spheres, vectorized=True, noise=True),
        as_objective("zoo.problems:sphere", (), vectorized=True, noise=True),
    )
    assert isinstance(scalar, ScalarFunction)
    assert isinstance(batch, VectorizedFunction)
    assert isinstance(named, Named)
    assert scalar.noisy
    assert batch.noisy
    assert named.noisy
    assert named.vectorized
    assert isinstance(named.built, VectorizedFunction)


class Speechless(Exception):
    """An exception that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_told_is_a_failure_like_others() -> None:
    def raises(x: Any) -> float:
        raise Speechless

    reply = as_objective(raises).evaluate_units(Rows(np.ones((1, 2))), (0, 1), key=KEY, step=0)
    assert [failure.message for failure in reply.failures] == ["Speechless"]
    assert "in raises" in reply.failures[0].details
