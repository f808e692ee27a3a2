"""What the page says of one run: its status above all."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time

import numpy as np
import pytest

import zoo
from tests.zoo.serve.runs import age, event, finished, searching, step, under_way
from zoo.run import kinds
from zoo.serve.watched import Watched


def seen(path, run=None):
    run = run or Watched(path, path.name)
    run.look(1, time.time())
    json.dumps(run.summary, allow_nan=False)
    return run.summary


def test_a_finished_run(tmp_path):
    result = finished(tmp_path / "run")
    summary = seen(tmp_path / "run")
    assert summary["status"] == "finished"
    assert summary["note"] == "the budget of 60 evaluations is used up"
    assert summary["best"] == result.fun
    assert (summary["nfev"], summary["budget"], summary["dim"]) == (60, 60, 3)
    assert (summary["method"], summary["objective"]) == ("cma", "zoo.problems:sphere")
    assert summary["rate"] is summary["left"] is None


def test_a_run_at_work(tmp_path):
    summary = seen(under_way(tmp_path / "run", 4))
    assert summary["status"] == "running"
    assert (summary["nfev"], summary["best"]) == (40, 0.25)
    assert summary["rate"] == 20.0
    assert summary["left"] == (1000 - 40) / 20
    assert (summary["executor"], summary["workers"]) == ("Processes", 2)


def test_rate_is_that_of_the_last_looks(tmp_path):
    path = under_way(tmp_path / "run", 4)
    run = Watched(path, "run")
    seen(path, run)
    for number in range(5, 105):
        step(path, number, seconds=0.25)  # twice as fast
        seen(path, run)
    assert run.summary["rate"] == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("ended", "status"),
    [("finished", "finished"), ("target", "finished"), ("failed", "failed")]
    + [(name, "stopped") for name in ("seconds", "callback", "interrupted")],
)
def test_ends(tmp_path, ended, status):
    path = under_way(tmp_path / "run")
    event(path, event="ended", status=ended, reason="because")
    summary = seen(path)
    assert (summary["status"], summary["note"]) == (status, "because")
    event(path, event="resumed", versions={})
    assert seen(path)["status"] == "running"
    assert seen(path)["resumed"] == 1


def test_a_run_that_was_stopped_and_goes_on(tmp_path):
    path = tmp_path / "run"
    finished(path, budget=400, callback=lambda *, intermediate_result: stop_at(intermediate_result, 50))
    run = Watched(path, "run")
    assert seen(path, run)["status"] == "stopped"
    zoo.resume(path)
    assert seen(path, run)["status"] == "finished"
    assert run.summary["nfev"] == 400


def stop_at(result, nfev):
    if result.nfev >= nfev:
        raise StopIteration


def test_silence_means_stopped_unless_steps_take_long(tmp_path):
    path = under_way(tmp_path / "run")
    age(path, 50)
    assert seen(path)["status"] == "running"
    age(path, 100)
    assert seen(path)["status"] == "stopped"
    assert "zoo resume" in seen(path)["note"]
    slow = under_way(tmp_path / "slow", 0)
    step(slow, 1, 2, 3, seconds=40.0)
    age(slow, 100)
    assert seen(slow)["status"] == "running"
    age(slow, 200)
    assert seen(slow)["status"] == "stopped"


def test_time_at_work_is_that_of_all_processes(tmp_path):
    path = under_way(tmp_path / "run", 0)
    times = [{"step": n, "seconds": 1.0 * n} for n in range(1, 6)]
    times += [{"step": n, "seconds": n - 5.0, "earlier": 5.0} for n in range(6, 41)]
    for entry in times:
        step(path, entry["step"])
    (path / "timings.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in times))
    assert seen(path)["seconds"] == 40.0
    age(path, 100)  # far beyond the time that a step takes, though not beyond what all of them did
    assert seen(path)["status"] == "stopped"


def test_waiting_for_the_first_step(tmp_path):
    path = under_way(tmp_path / "run", 0)
    age(path, 1000)
    assert (seen(path)["status"], seen(path)["note"]) == ("waiting", "for an evaluation")
    (path / "evaluations.bin").write_bytes(b"0" * 1000)
    assert (seen(path)["status"], seen(path)["note"]) == ("waiting", "in the first step")


def test_a_session_waits_for_whoever_it_has_asked(tmp_path):
    with zoo.Session("cma", np.ones(3), budget=100, rng=0, out=tmp_path / "run") as session:
        for trial in session.ask(20):
            session.tell(trial.id, float((trial.x**2).sum()))
        session.ask(1)
    age(tmp_path / "run", 10_000)
    assert (seen(tmp_path / "run")["status"], seen(tmp_path / "run")["note"]) == (
        "waiting",
        "for values to be told",
    )


def test_faults_are_counted_and_the_last_events_shown(tmp_path):
    path = under_way(tmp_path / "run")
    for number in range(20):
        event(path, event="evaluation raised", id=number, message="ZeroDivisionError: division by zero")
    event(path, event="worker lost", worker=1, reason="killed by signal 9", units=2)
    event(path, event="worker restarted", worker=2, replaces=1)
    event(path, event="quarantined", id=7, rows=1, kind="crashed", message="m" * 1000)
    run = Watched(path, "run")
    summary = seen(path, run)
    counted = {name: summary[name] for name in ("retries", "lost", "restarts", "quarantined")}
    assert counted == {"retries": 20, "lost": 1, "restarts": 1, "quarantined": 1}
    events = run.detail("")["events"]
    assert len(events) == 12
    assert events[-2]["event"] == "worker restarted"
    assert events[-2]["text"] == "worker: 2, replaces: 1"
    assert len(events[-1]["text"]) <= 401


def test_torn_and_damaged_events_are_passed_over(tmp_path):
    path = under_way(tmp_path / "run")
    (path / "events.jsonl").write_bytes(
        b'\xff\n[1]\nnull\n{"event": 7}\n{"event": ["a"]}\n{"event": "ended", "sta'
    )
    assert seen(path)["status"] == "running"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "no config.json"),
        ('{"schema": 99}', "newer version"),
        ('{"schema"', "damaged"),
        ('{"schema": 1, "method": "cma", "sha256": "0"}', "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1, "sha256": 7, "a": NaN}', "damaged"),
    ],
)
def test_directories_that_cannot_be_read(tmp_path, config, said):
    path = under_way(tmp_path / "run")
    (path / "config.json").unlink()
    if config is not None:
        (path / "config.json").write_text(config)
    assert seen(path)["status"] == "unreadable"
    assert said in seen(path)["note"]


@pytest.mark.parametrize(
    "junk", ["", "{}", "null", '{"fun": {}, "nfev": "many", "x": {"a": [1]}}', '{"x": 3']
)
@pytest.mark.parametrize(
    "name", ["result.json", "meta.json", "metrics.jsonl", "timings.jsonl", "events.jsonl"]
)
def test_any_file_may_be_damaged(tmp_path, name, junk):
    path = under_way(tmp_path / "run")
    (path / name).write_text(junk + "\n")
    run = Watched(path, "run")
    assert seen(path, run)["status"] in ("running", "waiting", "stopped")
    json.dumps(run.detail(""), allow_nan=False)


def test_a_directory_that_is_replaced_is_another_run(tmp_path):
    path = under_way(tmp_path / "run", 30)
    run = Watched(path, "run")
    seen(path, run)
    cursor = run.curves().read() and run.curves().cursor
    path.rename(tmp_path / "away")
    under_way(path, 2, method="de")
    summary = seen(path, run)
    assert (summary["method"], summary["nfev"]) == ("de", 20)
    run.curves().read()
    detail = run.detail(cursor)
    assert detail["columns"]["step"] == [1, 2]


def test_the_best_point_has_the_names_of_its_space(tmp_path):
    space = zoo.Space(
        {"rate": zoo.Float(0, 1), "layers": zoo.Integer(1, 4), "kind": zoo.Categorical(["a", "b"])}
    )
    zoo.minimize(lambda point: point["rate"], space=space, budget=30, rng=0, out=tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    run = Watched(tmp_path / "run", "run")
    seen(run.path, run)
    run.curves().read()
    point = dict(run.detail("")["point"])
    assert point["kind"] in ("a", "b")
    assert isinstance(point["layers"], int)
    assert isinstance(point["rate"], float)


def test_the_best_point_of_a_run_at_work_is_the_newest_logged(tmp_path):
    path = under_way(tmp_path / "run", 3)
    run = Watched(path, "run")
    seen(path, run)
    run.curves().read()
    assert run.detail("")["point"] == [["x[0]", 3], ["x[1]", 0.5], ["x[2]", -1.0]]


def test_a_search_for_a_policy_is_shown_by_its_scores(tmp_path):
    path = searching(tmp_path / "run")
    run = Watched(path, "run")
    summary = seen(path, run)
    assert (summary["best"], summary["nfev"]) == (24.0, 30)
    words = summary["words"]
    assert (words["value"], words["evaluations"], words["sign"]) == ("score", "episodes", -1)
    run.curves().read()
    detail = run.detail("")
    assert detail["columns"]["best"] == detail["columns"]["elite"] == [8.0, 16.0, 24.0]
    assert detail["columns"]["value"] == [10.0, 20.0, 30.0]
    assert detail["columns"]["median"] == [2.0, 2.0, 2.0]
    assert detail["columns"]["nfev"] == [10, 20, 30]
    assert detail["columns"]["frames"] == [100, 200, 300]
    assert (detail["last"]["best"], detail["last"]["value"], detail["last"]["sigma"]) == (24.0, 30.0, 1 / 3)
    # Every column of scores is known as one, and no other.
    assert set(words["scores"]) & detail["columns"].keys() == {"best", "elite", "value", "median"}
    (path / "result.json").write_text(json.dumps({"fun": 0.0, "nfev": 40, "success": True}))
    assert str(seen(path, run)["best"]) == "0.0"
    (path / "result.json").write_text(json.dumps({"fun": -21.5, "nfev": 40, "success": True}))
    assert seen(path, run)["best"] == 21.5
    (path / "result.json").write_text(json.dumps({"fun": None, "nfev": 40, "success": True}))
    assert seen(path, run)["best"] is None


def test_another_kind_of_run_in_a_directory_is_shown_its_own_way(tmp_path):
    path = searching(tmp_path / "run")
    run = Watched(path, "run")
    seen(path, run)
    run.curves().read()
    path.rename(tmp_path / "away")
    under_way(path, 2)
    summary = seen(path, run)
    assert (summary["best"], "words" in summary) == (0.5, False)
    run.curves().read()
    assert run.detail("")["columns"]["best"] == [1.0, 0.5]
    path.rename(tmp_path / "further away")
    searching(path, 2)
    assert seen(path, run)["best"] == 16.0
    run.curves().read()
    assert run.detail("")["columns"]["best"] == [8.0, 16.0]


def test_a_kind_that_cannot_be_loaded_is_told(tmp_path, monkeypatch):
    entry = importlib.metadata.EntryPoint("evolution", "zoo.no_such_module:KIND", kinds.GROUP)
    monkeypatch.setattr(kinds, "_entries", lambda: {"evolution": entry})
    summary = seen(searching(tmp_path / "run"))
    assert summary["status"] == "unreadable"
    assert summary["note"].startswith("runs of the kind 'evolution' cannot be read: zoo.no_such_module:KIND")


# What the page is sent of a run of this package, written down before there were runs of other kinds.
SENT = (
    '{"name":"run","method":"cma","objective":"mine:loss","dim":3,"budget":1000,'
    '"started":"2026-01-02T03:04:05.000+00:00","executor":"Processes","workers":2,"step":2,"nfev":20,'
    '"best":0.5,"failed":0,"violation":null,"seconds":1.0,"restarts":0,"lost":0,"retries":0,"quarantined":0,'
    '"resumed":0,"updated":0,"status":"running","note":"","rate":20.0,"left":49.0}'
    '{"start":[0,0],"columns":{"step":[1,2],"nfev":[10,20],"best":[1.0,0.5],"value":[2.0,1.0],'
    '"median":[3.0,3.0],"failed":[0,0],"sigma":[1.0,0.5]},"seconds":[0.5,1.0],"last":{"step":2,"nfev":20,'
    '"best":0.5,"value":1.0,"median":3.0,"failed":0,"sigma":0.5,"seconds":1.0},"stride":1,"events":[],'
    '"point":[["x[0]",2],["x[1]",0.5],["x[2]",-1.0]]}'
)


def test_of_runs_of_this_package_the_same_is_sent(tmp_path):
    run = Watched(under_way(tmp_path / "run", 2), "run")
    summary = {**seen(run.path, run), "updated": 0}
    run.curves().read()
    detail = {name: value for name, value in run.detail("").items() if name != "cursor"}  # of this process
    assert "".join(json.dumps(part, separators=(",", ":")) for part in (summary, detail)) == SENT


def test_nothing_is_new_where_nothing_was_written(tmp_path):
    path = under_way(tmp_path / "run")
    run, now = Watched(path, "run"), time.time()
    assert run.look(1, now)
    assert not run.look(2, now)
    assert run.version == 1
    step(path, 4)
    assert run.look(3, now)
    assert run.version == 3


def test_old_runs_are_looked_at_less_often(tmp_path):
    path = under_way(tmp_path / "run")
    run, now = Watched(path, "run"), time.time()
    run.look(1, now)
    assert run.next_look <= now
    age(path, 10_000)
    run.look(2, now)
    assert now + 10 < run.next_look < now + 60


def test_looking_writes_nothing(tmp_path):
    path = tmp_path / "run"
    finished(path)
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()
    }
    for file in (path, *path.rglob("*")):
        os.chmod(file, 0o555 if file.is_dir() else 0o444)
    run = Watched(path, "run")
    seen(path, run)
    run.curves().read()
    run.detail("")
    assert contents(path) == before
    assert np.isfinite(run.summary["best"])


def contents(path):
    files = [file for file in path.rglob("*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
