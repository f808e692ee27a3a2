"""Methods by name: those there are, and your own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import federated
from federated.algorithms.fedzo import FedZO
from federated.methods import find, list_methods
from federated.tasks.functions import FunctionTask
from tests.federated import toys
from tests.federated.toys import Bowls, Descent
from zoo.core.state import digest

HERE = "tests.federated.toys"


def make(rate: float = 0.2, *, directions: int) -> Descent:
    return Descent(directions, rate=rate)


READY = Descent(rate=0.3)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that has a function and an algorithm."""
    monkeypatch.setattr(toys, "make", make, raising=False)
    monkeypatch.setattr(toys, "READY", READY, raising=False)
    monkeypatch.setattr(toys, "NUMBER", 3, raising=False)
    monkeypatch.setattr(toys, "nothing", lambda: None, raising=False)
    return HERE


def test_every_method_makes_an_algorithm_with_trips() -> None:
    for name, method in list_methods().items():
        assert find(name) is method
        assert len(method.build().trips) >= 1


def test_your_own_by_class_function_or_instance(own: str) -> None:
    assert find(f"{own}:Descent").build({"rate": 0.5}) == Descent(rate=0.5)
    assert find(f"{own}:Descent").options() == {"directions": 2, "hidden": 1, "rate": 0.1, "spoilt": ()}
    assert find(f"{own}:make").build({"directions": 4}) == Descent(4, rate=0.2)
    assert find(f"{own}:READY").build() is READY
    assert find(f"{own}:READY").options() == {}


def test_your_own_by_name_runs_and_is_resumed(own: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"rounds": 4, "rng": 2}
    plain = federated.federate(Bowls(3), Descent(rate=0.5), **given)
    out = tmp_path / "run"
    more: dict[str, Any] = {"options": {"rate": 0.5}, "out": out}

    def halt(one: federated.Round) -> None:
        if one.round == 2:
            raise StopIteration

    named = federated.federate(f"{own}:Bowls", f"{own}:Descent", **given, **more, task_options={"num_clients": 3}, callback=halt)  # fmt: skip  # noqa: E501
    assert named.rounds == 2
    assert digest(federated.resume(out).state) == digest(plain.state)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no such name": ("fedzoo", {}, ValueError, "unknown method 'fedzoo'. Did you mean 'fedzo'? Valid: "),
    "module:name": ("slopes", {}, ValueError, ', or "module:name" of your own.'),
    "no module": ("nowhere:Slopes", {}, ValueError, "there is no module 'nowhere'"),
    "no such thing": (f"{HERE}:Descend", {}, ValueError, "Did you mean 'Descent'?"),
    "no algorithm": (f"{HERE}:NUMBER", {}, TypeError, "which is no FederatedAlgorithm, and no function"),
    "returns none": (f"{HERE}:nothing", {}, TypeError, "must be or return a FederatedAlgorithm, got None"),
    "option": (f"{HERE}:Descent", {"rat": 1}, TypeError, "Did you mean 'rate'?"),
    "option of an instance": (f"{HERE}:READY", {"rate": 1}, TypeError, "`options` must be left out where"),
    "option missing": (f"{HERE}:make", {}, TypeError, "needs the option 'directions'"),
    "class": (FedZO, {}, TypeError, "Call it: FedZO()."),
    "list": (["fedzo", "fzoos"], {}, TypeError, "Several are compared by `federated.contest`."),
    "options": ("fedzo", [1], TypeError, "`options` must be a dictionary of options by name, got [1]."),
}  # type: ignore[assignment]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_method(case: str, own: str) -> None:
    method, options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=re.escape(message)):
        federated.federate(Bowls(3), method, options=options, rounds=1, rng=0)


TRIPS = {
    "none": ((), ValueError, "`trips` of the method must be at least one Trip, got an empty tuple."),
    "functions": ((min,), TypeError, "`trips` of the method must be a tuple of Trip, got "),
}


@pytest.mark.parametrize("case", TRIPS)
def test_trips_that_are_none(case: str) -> None:
    trips, kind, message = TRIPS[case]
    algorithm = type("Tripless", (Descent,), {"trips": trips})()
    with pytest.raises(kind, match=re.escape(message)):
        federated.federate(Bowls(3), algorithm, rounds=1, rng=0)


def test_options_of_a_task_that_are_no_dictionary() -> None:
    with pytest.raises(
        TypeError, match="`task_options` must be a dictionary of options by name, got 'dim=3'"
    ):
        federated.federate("quadratic", "fedzo", task_options="dim=3", rounds=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [0, -1.0, float("nan"), float("inf"), "a", None])
def test_spacing_is_looked_at_before_anything_is_asked(spacing: Any) -> None:
    task = FunctionTask(lambda client, x: float(x @ x), 2, x0=[1.0, 2.0])
    task.spacing = spacing
    with pytest.raises((TypeError, ValueError), match="`spacing` must be a "):
        federated.federate(task, "fedzo", rounds=1, rng=0)
