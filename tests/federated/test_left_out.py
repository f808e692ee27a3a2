"""Clients that raise as they work, end their worker or hang: who is left out, and what is counted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import federated
from tests.federated.dying import Dying, Stumbling
from tests.federated.test_job import with_events
from tests.federated.toys import Bowls, Descent
from zoo.core.errors import EvaluationError
from zoo.core.state import digest
from zoo.execution.processes import Processes
from zoo.run.journal import values_by_id


def test_one_that_raises_as_it_works_is_absent_and_no_other() -> None:
    state, events = with_events(Stumbling(clients=(2,), since=1), Bowls(40), on_error="nan")
    assert state.answered.tolist() == [1 if client == 2 else 3 for client in range(40)]
    assert (state.absent, state.lost, state.num_failed) == (2, (), 0)
    assert state.queries.tolist() == [3 * 4] * 40
    assert state.nfev == 40 * 3 * 4
    told = [event for event in events if event["event"] == "client raised"]
    assert [(one["client"], one["round"], one["message"]) for one in told] == [
        (2, 1, "RuntimeError: a bug"),
        (2, 2, "RuntimeError: a bug"),
    ]


def test_one_that_raises_as_it_works_ends_the_run_where_it_is_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"rounds": 4, "rng": 1, "out": tmp_path / "run"}
    with pytest.raises(EvaluationError, match="client 2 raised twice: RuntimeError: a bug") as caught:
        federated.federate(Bowls(5), Stumbling(clients=(2, 3), since=2), **given)
    assert "in _stumble" in caught.value.details
    assert caught.value.result.rounds == 2
    with pytest.raises(EvaluationError, match="client 2 raised twice: RuntimeError: a bug"):
        federated.resume(tmp_path / "run", task=Bowls(5), method=Stumbling(clients=(2, 3), since=2))
    # Nobody has done a trip that the server does not know of.
    monkeypatch.setattr(Stumbling, "_stumble", Stumbling.sound)
    mended = federated.resume(tmp_path / "run", task=Bowls(5), method=Stumbling(clients=(2, 3), since=2))
    sound = federated.federate(Bowls(5), Stumbling(), rounds=4, rng=1)
    assert digest(mended.state) == digest(sound.state)
    assert mended.clients["queries"].tolist() == sound.clients["queries"].tolist()


def test_all_that_raise_end_the_run_although_failures_are_allowed() -> None:
    with pytest.raises(
        EvaluationError, match=r"client 0 raised twice, as all did: TypeError: .*`reply` must"
    ):
        federated.federate(Bowls(5), Wrong(), budget=1000, rng=0, on_error="nan")


class Wrong(Descent):
    def _estimate(self, client: Any, message: Any, local: Any) -> Any:
        yield message.x.tolist()


def test_more_queries_than_an_algorithm_says_end_the_run() -> None:
    for on_error in ("raise", "nan"):
        with pytest.raises(EvaluationError, match=r"client 0 .*asked for .* values.* `most_queries`"):
            federated.federate(Bowls(5), Stumbling(too_many=True), budget=100, rng=0, on_error=on_error)


SPOILT = {
    "merge": (TypeError, "`merge` must return the server's new state, a Server, got None."),
    "recommend": (TypeError, "`recommend` must return a point of the kind of x0, got None."),
    "shape": (ValueError, "`recommend` must return shape (3,), that of x0, got (2,)."),
    "nan": (EvaluationError, "x has become infinite or NaN on the server"),
}


@pytest.mark.parametrize("spoils", SPOILT)
def test_what_a_server_comes_to_is_looked_at(spoils: str) -> None:
    kind, message = SPOILT[spoils]
    with pytest.raises(kind, match=re.escape(message)):
        federated.federate(Bowls(5), Stumbling(spoils=spoils), rounds=2, rng=0)


@pytest.mark.parametrize(
    ("name", "wrong", "timeout"),
    [("kills", [7, 8, 20], None), ("hangs", [7], 0.2)],
    ids=["kills", "hangs"],
)
def test_one_that_takes_its_worker_along_is_left_out_alone(
    name: str, wrong: list[int], timeout: float | None, tmp_path: Path
) -> None:
    marks, copy = tmp_path / "marks", tmp_path / "copy"
    task = Dying(40, **{name: wrong}, marks=str(marks))
    given: dict[str, Any] = {"rounds": 2, "rng": 1}

    def copied(one: federated.Round) -> None:
        if one.round == 1:
            shutil.copytree(tmp_path / "run", copy)

    workers = Processes(2, timeout=timeout)
    found = federated.federate(
        task, Descent(), **given, workers=workers, out=tmp_path / "run", callback=copied
    )
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sorted(one["client"] for one in events if one["event"] == "client lost") == wrong
    expected = [0 if client in wrong else 2 for client in range(40)]
    assert found.clients["answered"].tolist() == expected
    assert found.queries == found.clients["queries"].sum()
    values = values_by_id(tmp_path / "run" / "evaluations.bin", found.queries)
    assert np.isfinite(values).all()
    assert {int(line) for line in marks.read_text().split()} == set(wrong)
    died = marks.read_text()
    # The copy has but the journal of that round: who was given up is not tried again.
    again = federated.resume(copy, task=task, method=Descent(), workers=Processes(1, timeout=timeout))
    assert marks.read_text() == died
    assert digest(again.state) == digest(found.state)
    assert again.clients["queries"].tolist() == found.clients["queries"].tolist()
