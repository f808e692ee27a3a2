"""`federate` and `resume`: what they take, what they return, and what they leave in a directory."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import federated
import zoo
from federated.facade import Federation, Round
from tests.federated.toys import HERE, Bowls, Descent, Echo
from zoo.core.errors import EvaluationError, RunDirectoryError, TooManyFailures
from zoo.core.rng import Key
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events

NAME = f"{HERE}:Bowls"


def toy(path: Path | None = None, **more: Any) -> Federation:
    given: dict[str, Any] = {"task": NAME, "method": Descent(), "rounds": 3, "rng": 0, "out": path}
    return federated.federate(**{**given, **more})


def image(found: Federation) -> dict[str, Any]:
    """Return all of a result that is not about time and workers."""
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    plain = {name: fields[name] for name in fields if name not in ("seconds", "account", "state", "message")}
    for name in ("history", "clients"):
        plain[name] = {key: column.tobytes() for key, column in plain[name].items()}
    return {**plain, "x": plain["x"].tolist(), "faults": dict(plain["faults"])}


def test_what_comes_back() -> None:
    found = toy(rounds=5)
    task = Bowls()
    assert found.value == found.history["value"][-1] == pytest.approx(task.value(found.x), rel=1e-12)
    assert found.best == found.history["value"].min()
    assert (found.rounds, found.queries, found.hidden, found.num_failed) == (5, 5 * 6 * 4, 5 * 6, 0)
    assert (found.up, found.down, found.clock) == (5 * 6 * 48, 5 * 6 * 72, 0.0)
    assert found.faults == dict.fromkeys(("absent", "late", "stale", "duplicates", "invalid", "void"), 0)
    assert found.clients["queries"].tolist() == [20] * 6
    assert found.clients["value"].tolist() == [task.measure(client, found.x)["value"] for client in range(6)]
    assert found.history["queries"].tolist() == [0, 24, 48, 72, 96, 120]
    assert (found.message, found.success) == ("all 5 rounds are done", True)
    assert found.state.merged == 5 * 2 * 6
    assert "x=" not in repr(found)


@pytest.mark.parametrize(
    "rng", [7, np.random.default_rng(3), Key(5), None], ids=["seed", "generator", "key", "none"]
)
def test_randomness(rng: Any) -> None:
    again = (
        Key(5) if isinstance(rng, Key) else np.random.default_rng(3) if rng is not None and rng != 7 else rng
    )
    first, second = toy(rng=rng), toy(rng=again)
    assert (first.x.tolist() == second.x.tolist()) is (rng is not None)


def test_a_task_of_its_own_seed() -> None:
    options = {"dim": 5, "num_clients": 3}
    found = [
        toy(task="quadratic", task_options=options, rng=rng, task_seed=seed, method=Echo()).history["value"][
            0
        ]
        for rng, seed in ((0, 4), (1, 4), (0, None), (1, None))
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3


GIVEN = {
    "name": (NAME, {"num_clients": 4}),
    "class": (Bowls, {"num_clients": 4}),
    "factory": (functools.partial(Bowls, num_clients=4), {}),
    "object": (Bowls(4), {}),
}


@pytest.mark.parametrize(("task", "options"), GIVEN.values(), ids=GIVEN.keys())
def test_a_task_may_be_given_in_any_way_and_again(tmp_path: Path, task: Any, options: dict[str, Any]) -> None:
    expected = image(toy(task=Bowls(4), rounds=4))
    out = tmp_path / "run"
    found = toy(out, task=task, task_options=options, rounds=4, seconds=1e-9)
    assert (found.rounds, found.message) == (1, "the 1e-09 seconds are over")
    again = None if isinstance(task, str) else task
    if again is not None:
        with pytest.raises(RunDirectoryError, match=r"was started with an object as `task`.*task=\.\.\."):
            federated.resume(out, method=Descent())
    with pytest.raises(RunDirectoryError, match=r"was started with an object as `method`.*method=\.\.\."):
        federated.resume(out, task=again)
    assert image(federated.resume(out, task=again, method=Descent())) == expected
    # A finished one just returns its result.
    before = digest_of_run(out)
    assert image(federated.resume(out, task=again, method=Descent(), workers=2)) == expected
    assert digest_of_run(out) == before


def stops_after(number: int) -> Any:
    def callback(one: Round) -> None:
        if one.round == number:
            raise StopIteration

    return callback


def test_another_task_or_method_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "run"
    toy(out, task=Bowls(4), callback=stops_after(1))
    wrong = {
        "task": {"task": Bowls(5), "method": Descent()},
        "options": {"task": Bowls(4), "method": Descent(rate=0.2)},
        "method": {"task": Bowls(4), "method": Echo()},
    }
    for given in wrong.values():
        with pytest.raises(RunDirectoryError, match="holds another run"):
            federated.resume(out, **given)
    with pytest.raises(RunDirectoryError, match=r"another run: 'rounds' differs.* none can be lengthened"):
        toy(out, task=Bowls(4), rounds=7)
    with pytest.raises(RunDirectoryError, match="holds another run"):
        toy(out, task=Bowls(4), rng=1)
    assert federated.resume(out, task=Bowls(4), method=Descent()).rounds == 3


def test_runs_of_other_kinds(tmp_path: Path) -> None:
    zoo.minimize(lambda x: float(x @ x), np.ones(2), budget=20, out=tmp_path / "search", rng=0)
    with pytest.raises(RunDirectoryError, match="another kind"):
        federated.resume(tmp_path / "search")
    with pytest.raises(RunDirectoryError, match="another kind"):
        toy(tmp_path / "search")
    with pytest.raises(RunDirectoryError):
        federated.resume(tmp_path / "nothing")


def test_named_methods_need_nothing_again(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "task": "quadratic",
        "method": "fedzo",
        "task_options": {"dim": 5, "num_clients": 3},
        "options": {"num_steps": 2},
    }
    toy(tmp_path / "run", **given, callback=stops_after(2), network={"slow": ((0, 2.0),), "latency": 1})
    found = federated.resume(tmp_path / "run")
    assert found.rounds == 3
    assert image(found) == image(toy(**given, network={"slow": ((0, 2.0),), "latency": 1.0}))


def test_callbacks_are_told_each_round(tmp_path: Path) -> None:
    seen: list[Round] = []
    found = toy(callback=seen.append, network={"participation": 0.5})
    assert [one.round for one in seen] == [1, 2, 3]
    for name in ("queries", "up", "down", "clock", "value"):
        assert [getattr(one, name) for one in seen] == found.history[name][1:].tolist()
    assert [one.answers for one in seen] == [3, 3, 3]
    assert seen[-1].x.tolist() == found.x.tolist()
    stopped = toy(tmp_path / "run", callback=[stops_after(2)])
    assert (stopped.rounds, stopped.message) == (2, "the callback asked to stop")
    assert stopped.value == found.value if stopped.rounds == 3 else math.isfinite(stopped.value)


def test_a_target() -> None:
    every = toy(rounds=6)
    target = every.history["value"][3]
    found = toy(rounds=6, target=target)
    assert (found.rounds, found.value, found.best, found.success) == (3, target, target, True)
    assert "target" in found.message
    assert toy(rounds=6, target=target, measure_every=2).rounds == 4
    assert toy(rounds=2, target=-1.0).message == "all 2 rounds are done"


def test_a_target_that_is_reached_stays_so(tmp_path: Path) -> None:
    target = toy(rounds=6).history["value"][3]
    found = toy(tmp_path / "run", rounds=6, target=target)
    before = digest_of_run(tmp_path / "run")
    assert image(federated.resume(tmp_path / "run", method=Descent())) == image(found)
    assert digest_of_run(tmp_path / "run") == before


def test_lines_of_the_log_between_looks_say_nothing_of_clients(tmp_path: Path) -> None:
    toy(tmp_path / "run", measure_every=2, rounds=4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("value", "median", "worst", "spread", "distance"):
        seen = [line[name] is not None and math.isfinite(line[name]) for line in lines]
        assert seen == [False, True, False, True], name


def test_looks_at_the_end_count_among_the_best() -> None:
    found = toy(measure_every=0)
    assert found.best == found.value == toy().value
    assert np.isnan(found.history["value"][1:]).all()


def test_limits() -> None:
    assert toy(rounds=None, budget=50).queries == 48
    assert toy(rounds=None, traffic=1).rounds == 1
    assert toy(rounds=None, seconds=1e-9).rounds == 1
    assert toy(rounds=None, budget=50).message == (
        "the budget of 50 queries is used up: the last 2 are too few for a round, which takes up to 24"
    )
    assert toy(rounds=None, budget=48).message == "the budget of 48 queries is used up"


def test_without_a_limit(tmp_path: Path) -> None:
    out = tmp_path / "run"
    toy(out, rounds=None, seconds=1e-9)
    with pytest.raises(ValueError, match="`seconds` must be given: nothing else is sure to end the run in"):
        federated.resume(out, method=Descent())
    found = federated.resume(out, method=Descent(), seconds=1e-9)
    assert found.rounds == 2


REFUSED = {
    "no limit": ({"rounds": None}, ValueError, "`rounds`, `budget`, `traffic` or `seconds` must be given"),
    "budget for nothing": (
        {"rounds": None, "budget": 23},
        ValueError,
        "`budget` must allow for a round: the budget of 23 queries is too few for a round, which takes up to "
        "24",
    ),
    "no queries": (
        {"rounds": None, "budget": 100, "method": Echo()},
        ValueError,
        "`rounds`, `traffic` or `seconds` must be given: rounds of this run may be without a query",
    ),
    "nobody there": (
        {"rounds": None, "budget": 100, "network": {"dropout": 1.0}},
        ValueError,
        "may be without a query",
    ),
    "rounds": ({"rounds": 0}, ValueError, "`rounds` must be at least 1"),
    "traffic": ({"traffic": 1.5}, TypeError, "`traffic` must be an integer"),
    "seconds": ({"seconds": 0}, ValueError, "`seconds` must be a finite number above 0"),
    "target": ({"target": math.nan}, ValueError, "`target` must be a number that can be reached"),
    "a target nobody sees": (
        {"target": 1.0, "measure_every": 0},
        ValueError,
        "`measure_every` must be at least 1 where there is a `target`",
    ),
    "measure_every": ({"measure_every": -1}, ValueError, "`measure_every` must be at least 0"),
    "on_error": ({"on_error": "ignore"}, ValueError, "`on_error` must be"),
    "task_seed": ({"task_seed": -1}, ValueError, "`task_seed` must be at least 0"),
    "task": ({"task": "quadartic"}, ValueError, "quadratic"),
    "keys that a file turns into others": (
        {"task_options": {"wrong": {2: "raises"}}},
        TypeError,
        "`task_options` must have strings as keys, also within, got 2",
    ),
    "task option": ({"task_options": {"clients": 3}}, TypeError, "clients"),
    "method": ({"method": "fedzoo"}, ValueError, "unknown method 'fedzoo'. Did you mean 'fedzo'"),
    "no method": ({"method": Bowls()}, TypeError, "`method` must be a name or a FederatedAlgorithm"),
    "options of an object": (
        {"options": {"rate": 1}},
        TypeError,
        "`options` must be left out where `method`",
    ),
    "option": ({"method": "fedzo", "options": {"step": 1}}, TypeError, "'step'"),
    "network": ({"network": {"participate": 1}}, TypeError, "'participate'"),
    "no network": ({"network": 3}, TypeError, "`network` must be a Network or a dictionary of its arguments"),
    "too many asked": ({"network": {"participation": 7}}, ValueError, "at most the 6 clients there are"),
    "exact gradients": ({"method": "fedavg"}, ValueError, "`method` must do without exact gradients"),
    "workers": (
        {"workers": map},
        TypeError,
        "`workers` must be a number of processes or an executor that can",
    ),
    "callback": ({"callback": 3}, TypeError, "`callback` must be"),
}


@pytest.mark.parametrize(("given", "kind", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_arguments(tmp_path: Path, given: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        toy(tmp_path / "run", **given)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_client_that_raises_at_once(tmp_path: Path) -> None:
    wrong = {"wrong": ((2, "raises"),)}
    with pytest.raises(EvaluationError, match="client 2: RuntimeError: no answer") as caught:
        toy(tmp_path / "run", task_options=wrong)
    result = caught.value.result  # type: ignore[attr-defined]
    assert (result.rounds, result.success) == (0, False)
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert told["status"] == 5
    with pytest.raises(EvaluationError):
        federated.resume(tmp_path / "run", method=Descent())


def test_too_many_failures(tmp_path: Path) -> None:
    given: dict[str, Any] = {"task_options": {"wrong": ((2, "raises"), (3, "raises"))}, "on_error": "nan"}
    with pytest.raises(TooManyFailures) as caught:
        toy(tmp_path / "run", rounds=9, **given)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.num_failed == result.queries / 3 > 0
    assert not result.success


def test_a_run_none_of_whose_rounds_did_anything_is_no_success(tmp_path: Path) -> None:
    found = toy(tmp_path / "run", network={"dropout": 1.0})
    assert (found.faults["void"], found.success) == (3, False)
    assert set(found.history["value"]) == {found.value}
    assert found.message == "all 3 rounds are done; too few clients have answered in any round"
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (told["success"], told["message"]) == (False, found.message)
    some = toy(network={"dropout": 0.5}, rounds=8)
    assert 0 < some.faults["void"] < 8 or some.faults["absent"]
    assert (some.success, some.message) == (True, "all 8 rounds are done")


def test_a_client_that_fails_for_good_hides_nothing_of_the_others(tmp_path: Path) -> None:
    wrong = {"num_clients": 10, "wrong": ((4, "sees nan"),)}
    found = toy(tmp_path / "run", task_options=wrong)
    task = Bowls(10)
    weights = np.array([task.weight(client) for client in range(10)])
    values = np.array([task.measure(client, found.x)["value"] for client in range(10)])
    weights[4] = 0.0
    assert found.value == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-12)
    assert found.history["said"].tolist() == [9] * 4
    assert found.success
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["said"] for line in lines] == [9] * 3
    assert json.loads((tmp_path / "run" / "result.json").read_text())["said"] == 9
    target = found.history["value"][2]
    assert toy(task_options=wrong, target=target).rounds == 2


def test_without_a_single_value_it_is_no_success() -> None:
    found = toy(task_options={"num_clients": 2, "wrong": ((0, "nan"), (1, "nan"))})
    assert found.num_failed == found.queries > 0
    assert not found.success


def test_a_signal(tmp_path: Path) -> None:
    def callback(one: Round) -> None:
        if one.round == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(zoo.Interrupted, match=r"federated\.resume\(.*\) goes on") as caught:
        toy(tmp_path / "run", rounds=5, callback=callback)
    result = caught.value.result  # type: ignore[attr-defined]
    assert (result.rounds, result.success) == (2, False)
    assert math.isfinite(result.value)
    assert image(federated.resume(tmp_path / "run", method=Descent())) == image(toy(rounds=5))


def test_what_a_directory_says(tmp_path: Path) -> None:
    found = toy(tmp_path / "run", network={"participation": 1, "dropout": 0.9}, rounds=8)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    for name in ("value", "worst", "spread", "distance", "hidden", "up", "down", "clock", "answers"):
        assert [line[name] for line in lines] == found.history[name][1:].tolist()
    assert [line["nfev"] for line in lines] == found.history["queries"][1:].tolist()
    assert lines[-1]["void"] == found.faults["void"] > 0
    assert lines[-1]["merged"] == found.state.merged
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (told["fun"], told["nfev"], told["up"]) == (found.value, found.queries, found.up)
    assert told["clients"]["answered"] == found.clients["answered"].tolist()
    said = [entry for entry in read_events(tmp_path / "run") if entry["event"] == "too few answers"]
    assert len(said) >= found.faults["void"]


@pytest.mark.parametrize(("dtype", "workers"), [("float32", 2), ("float64", 1)])
def test_tensors_stay_tensors(tmp_path: Path, dtype: str, workers: int) -> None:
    import torch

    like = ("torch", dtype, "cpu")
    found = toy(tmp_path / "run", task_options={"like": like}, callback=stops_after(2), workers=workers)
    assert torch.is_tensor(found.x)
    found = federated.resume(tmp_path / "run", method=Descent())
    assert found.x.dtype == getattr(torch, dtype)
    assert found.up == 3 * 6 * 2 * 3 * (4 if dtype == "float32" else 8)
    alone = toy(task_options={"like": like})
    assert alone.x.tolist() == found.x.tolist()
    assert alone.value == found.value < alone.history["value"][0]


def test_numbers_of_single_precision() -> None:
    found = toy(task_options={"like": ("numpy", "float32", "cpu")})
    assert found.x.dtype == np.float32
    assert found.up == 3 * 6 * 2 * 3 * 4
