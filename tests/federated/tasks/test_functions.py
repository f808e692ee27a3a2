"""Functions of the user's on clients, in all their forms."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from federated.tasks.functions import FunctionTask
from tests.federated import functions
from zoo.core.rng import Key

NAME = "tests.federated.functions"
X = np.array([[1.0, 5.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    "given",
    [functions.ENDS, tuple(functions.ENDS), f"{NAME}:ENDS", f"{NAME}:make_ends()"],
    ids=["list", "tuple", "name", "factory"],
)
def test_one_function_for_each_client(given: object) -> None:
    task = FunctionTask(given, x0=np.zeros(2))  # type: ignore[arg-type]
    assert (task.num_clients, task.dim, task.unit, task.bounds) == (2, 2, 1, None)
    assert task.values(0, X, key=Key(0)).tolist() == [1, 2]
    assert task.values(1, X, key=Key(0)).tolist() == [5, 3]
    assert task.measure(1, X[0]) == {"value": 5.0}


@pytest.mark.parametrize("given", [functions.distance, f"{NAME}:distance"], ids=["function", "name"])
def test_one_function_for_all_clients(given: object) -> None:
    task = FunctionTask(given, 3, bounds=[(0, 4), (0, 2)], weights=[1, 1, 2])  # type: ignore[arg-type]
    assert task.start(Key(0)).tolist() == [2, 1]
    assert task.values(2, X, key=Key(0)).tolist() == [10, 1]
    assert [task.weight(client) for client in range(3)] == [1, 1, 2]
    assert task.value(np.zeros(2)) == (0 + 2 + 2 * 8) / 4


def test_a_name_travels_as_a_name() -> None:
    task = FunctionTask(f"{NAME}:ENDS", x0=np.zeros(2))
    assert b"first" not in pickle.dumps(task)
    assert pickle.loads(pickle.dumps(task)).values(0, X, key=Key(0)).tolist() == [1, 2]


def test_many_points_at_once_and_arguments() -> None:
    task = FunctionTask(
        [lambda x, by: by * x.sum(1)], x0=torch.zeros(2, dtype=torch.float32), vectorized=True, args=(3,)
    )
    assert task.unit is None
    assert task.start(Key(0)).dtype == torch.float32
    assert task.values(0, torch.from_numpy(X), key=Key(0)).tolist() == [18, 15]


def test_a_function_may_write_to_its_point() -> None:
    def spoil(x: np.ndarray) -> float:
        x[:] += 1
        return float(x.sum())

    task, x = FunctionTask([spoil], x0=np.zeros(2)), X.copy()
    assert task.values(0, x, key=Key(0)).tolist() == [8, 7]
    assert (x == X).all()
    start = task.start(Key(0))
    start += 1
    assert task.start(Key(0)).tolist() == [0, 0]


def test_what_a_function_draws_follows_from_the_key() -> None:
    task = FunctionTask([lambda x: random.random() + np.random.rand()], x0=np.zeros(2), noise=True)
    before = random.getstate()
    one, two = task.values(0, X, key=Key(0))
    assert one == two == task.values(0, X[:1], key=Key(0))[0]
    assert task.values(0, X, key=Key(1))[0] != one
    assert random.getstate() == before


def test_what_a_function_raises_reaches_the_caller() -> None:
    def explode(x: np.ndarray) -> float:
        raise ArithmeticError("no such point")

    with pytest.raises(ArithmeticError, match="no such point"):
        FunctionTask([explode], x0=np.zeros(2)).values(0, X[:1], key=Key(0))


def test_identity_tells_functions_starts_and_bounds_apart() -> None:
    def identity(given: object, x0: object = (0.0, 0.0), **options: object) -> object:
        return FunctionTask(given, x0=np.array(x0), **options).identity()  # type: ignore[arg-type]

    usual = identity([functions.first, functions.last])
    assert usual == identity(f"{NAME}:ENDS")
    others = [
        identity([functions.last, functions.first]),
        identity(functions.ENDS, (0.0, 1.0)),
        identity(functions.ENDS, bounds=[(0, 1), (0, 1)]),
        identity(functions.ENDS, weights=[1, 2]),
        identity(functions.ENDS, noise=True),
    ]
    assert all(other != usual for other in others)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "`functions` must be at least one"),
        ([functions.first, 3], {}, r"functions\[1\] = 3"),
        (3, {}, "`functions` must be a list of functions"),
        (functions.distance, {}, "`num_clients` must be given"),
        (functions.distance, {"num_clients": 0}, "`num_clients` must be at least 1"),
        (functions.ENDS, {"num_clients": 3}, "`num_clients` must be the number of functions, 2"),
        (functions.ENDS, {"weights": [1.0]}, "`weights` must be one for each of 2"),
        (functions.ENDS, {"weights": [1.0, 0.0]}, "`weights` must be a finite number above 0"),
        (functions.ENDS, {"args": 3}, r"write \(3,\)"),
        (functions.ENDS, {"vectorized": 1}, "`vectorized` must be True or False"),
        (functions.ENDS, {"x0": None}, "`x0` must be given, or `bounds` be finite"),
        (functions.ENDS, {"bounds": [(0, 1)]}, "`bounds` must have one pair for each"),
        (f"{NAME}:ENDZ", {}, "Did you mean 'ENDS'"),
        ("ENDS", {}, 'must have the form "module:name"'),
    ],
)
def test_wrong_arguments_are_refused(given: object, options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FunctionTask(given, **{"x0": np.zeros(2), **options})  # type: ignore[arg-type]


def test_spacing_may_be_given() -> None:
    given, plain = (FunctionTask(functions.ENDS, x0=np.zeros(2), **more) for more in ({"spacing": 0.5}, {}))
    assert (given.spacing, plain.spacing) == (0.5, FunctionTask.spacing)
    assert given.identity() != plain.identity()
    with pytest.raises(ValueError, match="`spacing` must be a finite number above 0, got nan"):
        FunctionTask(functions.ENDS, x0=np.zeros(2), spacing=float("nan"))
