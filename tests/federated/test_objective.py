"""The functions of all clients as one objective."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import federated
from federated.objective import ClientObjective, ClientPoints, Look, Request
from federated.task import Task
from tests.federated.toys import Bowls, Together
from zoo.core.errors import EvaluationError
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Rows

KEY = Key(7)


def points(*counts: int, dim: int = 3) -> ClientPoints:
    """Return so many points of clients 0, 2, 4, ..."""
    return ClientPoints(
        [
            Request(2 * i, KEY.fold("client", i), Rows(np.arange(count * dim).reshape(count, dim) / 10 + i))
            for i, count in enumerate(counts)
        ]
    )


def evaluated(task: Task, candidates: Any) -> Any:
    objective: Objective = ClientObjective(task)
    return objective.evaluate_units(candidates, objective.units(candidates), key=KEY, step=0)


def test_rows_are_those_of_the_clients_in_turn() -> None:
    candidates = points(2, 0, 3, 1)
    assert (len(candidates), candidates.dim) == (6, 3)
    every = np.concatenate([request.points.rows(0, len(request.points)) for request in candidates.requests])
    for start in range(7):
        for stop in range(start + 1, 7):
            assert candidates.rows(start, stop).tolist() == every[start:stop].tolist()


@pytest.mark.parametrize("counts", [(3,), (1, 1), (2, 0, 3, 1), (0, 0, 2), (2, 0)])
@pytest.mark.parametrize("kind", [Bowls, Together])
def test_every_client_answers_its_own_points(counts: tuple[int, ...], kind: type[Bowls]) -> None:
    task, candidates = kind(9, noise=0.5), points(*counts)
    expected = [
        task.values(request.client, request.points.rows(0, len(request.points)), key=request.key)
        for request in candidates.requests
        if len(request.points)
    ]
    found = evaluated(task, candidates)
    assert found.values.tolist() == np.concatenate(expected).tolist()
    assert not found.failures


def test_nothing_asked_is_nothing_answered() -> None:
    for kind in (Bowls, Together):
        assert len(evaluated(kind(9), points(0, 0)).values) == 0


@pytest.mark.parametrize(
    ("unit", "expected"),
    [(None, [0, 3, 4, 9]), (2, [0, 2, 3, 4, 6, 8, 9]), (1, list(range(10))), (9, [0, 3, 4, 9])],
)
def test_units_are_of_one_client_each(unit: int | None, expected: list[int]) -> None:
    task = Bowls(9)
    task.unit = unit
    assert list(ClientObjective(task).units(points(3, 0, 1, 5))) == expected
    found = evaluated(task, points(3, 0, 1, 5))
    assert found.values.tolist() == evaluated(Bowls(9), points(3, 0, 1, 5)).values.tolist()


def test_joint_points_are_one_unit() -> None:
    assert list(ClientObjective(Together(9)).units(points(3, 0, 1, 5))) == [0, 9]


WRONG = {
    "raises": ("raised", "client 2: RuntimeError: no answer at x[0] = 1.0"),
    "short": ("raised", "client 2: TypeError: `values` must return shape (3,) for 3 points, got (2,)."),
    "nan": ("returned", "returned nan"),
    "inf": ("returned", "returned nan"),
}


@pytest.mark.parametrize(("wrong", "why"), WRONG.items(), ids=WRONG.keys())
@pytest.mark.parametrize("kind", [Bowls, Together])
def test_one_client_does_not_spoil_what_others_answer(
    kind: type[Bowls], wrong: str, why: tuple[str, str]
) -> None:
    found = evaluated(kind(9, wrong={2: wrong}), points(2, 3, 1))
    sound = evaluated(kind(9), points(2, 3, 1))
    assert np.isnan(found.values).tolist() == [False] * 2 + [True] * 3 + [False]
    assert found.values[[0, 1, 5]].tolist() == sound.values[[0, 1, 5]].tolist()
    assert [failure[:3] for failure in found.failures] == [(row, *why) for row in (2, 3, 4)]


@pytest.mark.parametrize("kind", ["list", "float32", "tensor", "integers"])
def test_values_may_be_any_row_of_numbers(kind: str) -> None:
    import torch

    class Converts(Bowls):
        def values(self, client: int, x: Any, *, key: Key) -> Any:
            values = np.round(super().values(client, x, key=key))
            made = {"list": list, "float32": np.float32, "tensor": torch.tensor, "integers": np.int64}
            return made[kind](values)

    found = evaluated(Converts(9), points(2, 3)).values
    assert found.dtype == np.float64
    assert found.tolist() == np.round(evaluated(Bowls(9), points(2, 3)).values).tolist()


def test_a_look_is_at_one_point_by_every_client() -> None:
    x = np.array([0.5, 0.25, 1.0])
    task = Bowls(6)
    found = evaluated(task, Look(x, 6))
    expected = [task.measure(client, x) for client in range(6)]
    assert found.values.tolist() == [one["value"] for one in expected]
    assert found.extras["distance"].tolist() == [[one["distance"]] for one in expected]


@pytest.mark.parametrize("wrong", ["blind", "mute"])
def test_whoever_does_not_say_is_nan(wrong: str) -> None:
    found = evaluated(Bowls(4, wrong={1: wrong}), Look(np.ones(3), 4))
    assert np.isnan(found.values).tolist() == [False, True, False, False]
    assert np.isnan(found.extras["distance"]).ravel().tolist() == [False, True, False, False]


def test_what_tells_tasks_apart_is_what_tells_objectives_apart() -> None:
    assert ClientObjective(Bowls(4)).identity() == dict(Bowls(4).identity())
    assert ClientObjective(Bowls(4)).identity() != ClientObjective(Bowls(5)).identity()


ROWS: dict[str, tuple[Any, str]] = {
    "scalar": (lambda x: 1.0, "got (): x has shape (k, dim), a point in each row."),
    "none": (lambda x: None, "got None."),
    "a column": (lambda x: x[:, :1], "got (1, 1): leave out the last axis, as in values[:, 0]."),
    "rows": (lambda x: x, "got (1, 3)."),
    "too many": (lambda x: np.ones(2), "got (2,)."),
}


@pytest.mark.parametrize("case", ROWS)
def test_what_is_no_row_of_values_is_told_alike_of_looks_and_answers(case: str) -> None:
    function, message = ROWS[case]

    class Odd(Task):
        num_clients, dim = 2, 3

        def start(self, key: Key) -> Any:
            return np.zeros(3)

        def values(self, client: int, x: Any, *, key: Key) -> Any:
            return function(x)

    expected = f"`values` must return shape (1,) for 1 points, {message}"
    looked = evaluated(Odd(), Look(np.ones(3), 2))
    asked = evaluated(Odd(), points(1))
    assert [one.message for one in looked.failures] == [f"TypeError: {expected}"] * 2
    assert [one.message for one in asked.failures] == [f"client 0: TypeError: {expected}"]
    with pytest.raises(EvaluationError, match=re.escape(expected)):
        federated.federate(Odd(), "fedzo", rounds=1, rng=0)


MEASURED: dict[str, tuple[Any, str]] = {
    "missing": ({"value": 1.0}, "`measure` must return 'value', 'acc', got 'value': 'acc' is missing."),
    "no value": ({"acc": 1.0}, "`measure` must return 'value', 'acc', got 'acc': 'value' is missing."),
    "extra": (
        {"value": 1.0, "acc": 0.5, "f1": 0.5},
        "all that `measure` returns: add 'f1', as in measures = ('acc', 'f1').",
    ),
    "a number": (1.0, '`measure` must return a dictionary with "value", got 1.0.'),
    "an array": ({"value": 1.0, "acc": np.ones(2)}, "`measure` must return one number as 'acc', got array("),
}  # fmt: skip


@pytest.mark.parametrize("case", MEASURED)
def test_what_a_task_measures_is_what_it_says(case: str) -> None:
    answer, message = MEASURED[case]

    class Misfit(Bowls):
        measures = ("acc",)

        def measure(self, client: int, x: Any) -> Any:
            return answer

    with pytest.raises(EvaluationError, match="TypeError: .*" + re.escape(message)):
        federated.federate(Misfit(3), "fedzo", rounds=1, rng=0)


@pytest.mark.parametrize("name", ["num_clients", "dim"])
def test_a_task_that_lacks_an_attribute(name: str) -> None:
    class Bare(Task):
        def start(self, key: Key) -> Any:
            return np.zeros(2)

        def values(self, client: int, x: Any, *, key: Key) -> Any:
            return x.sum(1)

    task = Bare()
    setattr(task, {"num_clients": "dim", "dim": "num_clients"}[name], 2)
    with pytest.raises(TypeError, match=f"Bare must have an attribute `{name}`"):
        federated.federate(task, "fedzo", rounds=1, rng=0)
