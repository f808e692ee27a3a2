"""What a run is, and how it is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import federated
from federated.network import Network
from federated.setting import KIND, Setting, check_given, check_network, read_given
from tests.federated.toys import HERE, Bowls, Descent
from zoo.core.bounds import Bounds
from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key

NAMED: dict[str, Any] = {
    "task": "quadratic",
    "task_options": {"dim": 4, "num_clients": 3},
    "task_seed": 3,
    "method": "fedzo",
    "options": {"num_steps": 2},
    "network": {"slow": ((0, 2.0), (2, 3.0)), "participation": 2, "latency": 0.5},
    "rounds": 4,
    "budget": 1000,
    "traffic": None,
    "target": -1.0,
    "measure_every": 2,
    "on_error": "nan",
}


def setting(**more: Any) -> Setting:
    return Setting.of(check_given(None, **{**NAMED, **more}), Key(0))


def test_arguments_come_back_from_a_directory(tmp_path: Path) -> None:
    federated.federate(**NAMED, rng=0, out=tmp_path / "run")
    given = read_given(tmp_path / "run")
    expected = {**NAMED, "network": check_network(NAMED["network"])}
    assert given == expected
    assert type(given["network"]["participation"]) is int
    assert setting(**given).config(1) == setting().config(1)


def test_what_is_written_is_json_and_says_what_the_run_is() -> None:
    config = setting().config(2)
    assert json.loads(json.dumps(config)) == config
    assert config["kind"] == KIND
    assert (config["task"], config["method"], config["method_object"]) == ("quadratic", "fedzo", False)
    assert (config["num_clients"], config["dim"], config["threads"]) == (3, 4, 2)
    assert config["like"] == ["numpy", "float64", "cpu"]
    assert config["key"] == str(Key(0))
    assert config["network"]["slow"] == [[0, 2.0], [2, 3.0]]


def test_objects_are_only_named() -> None:
    config = setting(task=Bowls(3), method=Descent(rate=0.5), task_options={}, options={}).config(1)
    assert config["task"] == {"given": "Bowls"}
    assert (config["method"], config["method_object"]) == ("descent", True)
    assert config["options"]["dict"]["rate"] == 0.5
    assert config["measures"] == ["distance"]


def test_settings_differ_where_runs_would() -> None:
    plain = setting().config(1)
    for more in (
        {"options": {"num_steps": 3}},
        {"task_options": {"dim": 4, "num_clients": 4}},
        {"task_seed": 4},
        {"network": {**NAMED["network"], "dropout": 0.1}},
        {"rounds": 5},
    ):
        assert setting(**more).config(1) != plain


@pytest.mark.parametrize("given", [None, {}, Network()], ids=["none", "empty", "object"])
def test_a_network_may_be_given_in_any_way(given: Any) -> None:
    assert Network(**check_network(given)) == Network()
    filled = check_network({"slow": [[1, 2]], "dropout": 0.5})
    assert Network(**filled) == Network(slow=((1, 2.0),), dropout=0.5)
    assert check_network(Network(**filled)) == filled


STARTS = {
    "a list": (
        [0.0] * 3,
        TypeError,
        "`start` of the task must return an array or a tensor of floating-point",
    ),
    "integers": (np.zeros(3, int), TypeError, "floating-point"),
    "shape": (
        np.zeros(4),
        ValueError,
        r"`start` of the task must return shape \(3,\), its `dim`, got \(4,\)",
    ),
    "a row": (np.zeros((1, 3)), ValueError, r"shape \(3,\)"),
    "not finite": (np.array([0, np.nan, 0]), ValueError, "must return finite numbers"),
    "outside": (np.array([0, 0, 2.5]), ValueError, "must return a point inside its bounds"),
}


@pytest.mark.parametrize(("start", "kind", "message"), STARTS.values(), ids=STARTS.keys())
def test_starts_that_are_none(start: Any, kind: type[Exception], message: str) -> None:
    class Elsewhere(Bowls):
        def start(self, key: Key) -> Any:
            return start

    with pytest.raises(kind, match=message):
        setting(task=Elsewhere(3), task_options={})


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("num_clients", 0, ValueError, "`num_clients` must be at least 1"),
        ("num_clients", 3.0, TypeError, "`num_clients` must be an integer"),
        ("dim", 0, ValueError, "`dim` must be at least 1"),
        ("bounds", [(-1, 1)] * 3, TypeError, "`bounds` of the task must be Bounds or None"),
        (
            "bounds",
            Bounds(-np.ones(2), np.ones(2)),
            ValueError,
            "`bounds` of the task must have 3 coordinates",
        ),
    ],
)
def test_tasks_that_are_none(name: str, value: Any, kind: type[Exception], message: str) -> None:
    task = Bowls(3)
    setattr(task, name, value)
    with pytest.raises(kind, match=message):
        setting(task=task, task_options={})


def test_start_on_the_wall_is_inside() -> None:
    class Corner(Bowls):
        def start(self, key: Key) -> Any:
            return np.full(3, 2.0)

    assert setting(task=Corner(3), task_options={}).x0.tolist() == [2.0] * 3


def test_what_a_name_has_is_not_asked_for_again(tmp_path: Path) -> None:
    federated.federate(f"{HERE}:Bowls", Descent(), rounds=1, rng=0, out=tmp_path / "run")
    given = read_given(tmp_path / "run", {"method": Descent()})
    assert given["task"] == f"{HERE}:Bowls"
    assert given["options"] == {}
    with pytest.raises(RunDirectoryError, match="as `method`"):
        read_given(tmp_path / "run")
