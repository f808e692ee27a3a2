"""Watchers: what they are told, and that a run is the same whether or not they fail."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import zoo
from zoo.loggers import CSV
from zoo.run.digest import digest_of_run


class Everything(zoo.Watcher):
    def __init__(self):
        self.calls, self.metrics = [], []

    def begin(self, run):
        self.calls.append("begin")
        self.beginning = run

    def arrived(self, number):
        self.calls.append(number)

    def step(self, state, metrics):
        self.calls.append("step")
        self.metrics.append(metrics)

    def end(self, outcome):
        self.calls.append("end")
        self.outcome = outcome


def sphere(x):
    return float((x**2).sum())


def test_it_is_told_what_happens(tmp_path):
    one, other, points = Everything(), Everything(), []
    result = zoo.minimize(
        sphere, np.ones(3), method="cma", budget=30, rng=1, out=tmp_path / "run",
        callback=[one, points.append, other],
    )  # fmt: skip
    assert one.calls == other.calls
    assert one.calls[0] == "begin"
    assert one.calls[-1] == "end"
    assert one.calls.count("step") == len(points) == result.nit
    assert sum(call for call in one.calls if isinstance(call, int)) == result.nfev
    assert one.outcome.state.nfev <= 30
    run = one.beginning
    assert (run.config["method"], run.config["budget"], run.config["dim"]) == ("cma", 30, 3)
    assert run.execution["executor"] == "Serial"
    assert run.path == tmp_path / "run"
    assert run.state.nfev == 0
    assert [m["nfev"] for m in one.metrics] == [7, 14, 21, 28, 29]
    assert all(("x" in m) == (m["value"] == m["best"]) for m in one.metrics)
    assert sphere(one.metrics[0]["x"]) == one.metrics[0]["best"]


def test_without_a_directory_and_resumed(tmp_path):
    alone, first, second = Everything(), Everything(), Everything()
    zoo.minimize(sphere, np.ones(3), method="cma", budget=40, rng=1, callback=alone)
    assert alone.beginning.path is None
    assert alone.beginning.config["method"] == "cma"

    def stop(intermediate_result):
        if intermediate_result.nit == 2:
            raise StopIteration

    arguments = {"method": "cma", "budget": 40, "rng": 1, "out": tmp_path / "run"}
    zoo.minimize(sphere, np.ones(3), **arguments, callback=[first, stop])
    zoo.resume(tmp_path / "run", sphere, callback=second)
    assert second.beginning.state.nfev == 14
    told = [m["best"] for m in first.metrics + second.metrics]
    assert told == [m["best"] for m in alone.metrics]
    assert first.outcome.status == "callback"


@pytest.mark.parametrize("name", ["begin", "arrived", "step", "end"])
def test_one_that_fails_is_left_alone(name, tmp_path):
    class Faulty(Everything):
        def fail(self, *arguments):
            self.calls.append("failed")
            raise OSError("no room")

    faulty, sound = Faulty(), Everything()
    setattr(Faulty, name, Faulty.fail)
    arguments = {"method": "cma", "budget": 40, "rng": 1}
    zoo.minimize(sphere, np.ones(3), **arguments, out=tmp_path / "alone")
    with pytest.warns(zoo.ZooWarning, match="Faulty failed and watches this run no longer.*no room"):
        zoo.minimize(sphere, np.ones(3), **arguments, out=tmp_path / "run", callback=[faulty, sound])
    assert faulty.calls.count("failed") == 1
    if name == "end":
        assert faulty.calls[-1] == "failed"
    else:
        assert faulty.calls[-2:] == ["failed", "end"]
        assert faulty.outcome is None
    assert sound.calls[-1] == "end"
    assert digest_of_run(tmp_path / "run") == digest_of_run(tmp_path / "alone")


def test_one_that_fails_leaves_nothing_open(tmp_path):
    class FullDisk(CSV):
        def write(self, line, when):
            raise OSError("no room")

    class Broken(zoo.Progress):
        def step(self, state, metrics):
            raise ValueError("of the display")

    log = FullDisk(tmp_path / "steps.csv")
    with pytest.warns(zoo.ZooWarning, match="Broken failed"), pytest.warns(zoo.ZooWarning, match="no room"):
        zoo.minimize(sphere, np.ones(3), budget=40, rng=1, callback=[log, Broken("lines")])
    assert log._rows.closed
    assert "zoo-progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("name", ["begin", "arrived", "step", "end"])
@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_a_failure_ends_the_run_which_goes_on_later(name, tmp_path):
    class Faulty(zoo.Watcher):
        """Fails."""

    def fail(self, *arguments):
        raise OSError("no room")

    setattr(Faulty, name, fail)
    arguments = {"method": "cma", "budget": 40, "rng": 1}
    other = Everything()
    zoo.minimize(sphere, np.ones(3), **arguments, out=tmp_path / "alone")
    with pytest.raises(zoo.ZooWarning, match="no room"):
        zoo.minimize(sphere, np.ones(3), **arguments, out=tmp_path / "run", callback=[Faulty(), other])
    assert other.calls[0] == "begin"
    assert other.calls.count("end") == 1
    zoo.resume(tmp_path / "run", sphere)
    assert digest_of_run(tmp_path / "run") == digest_of_run(tmp_path / "alone")


def test_it_is_told_of_an_end_by_an_error_that_is_not_the_objectives(tmp_path):
    watcher = Everything()

    def fail(x):
        raise KeyError("a mistake in the callback")

    with pytest.raises(KeyError):
        zoo.minimize(sphere, np.ones(3), budget=40, rng=1, callback=[watcher, fail])
    assert watcher.outcome is None
    assert watcher.calls[-1] == "end"


def test_arrivals_from_workers():
    watcher = Everything()
    result = zoo.minimize(sphere, np.ones(3), method="cma", budget=30, rng=1, workers=2, callback=watcher)
    assert sum(call for call in watcher.calls if isinstance(call, int)) == result.nfev
    assert watcher.beginning.execution["num_workers"] == 2


@pytest.mark.parametrize("callback", [3, "text", [3], [zoo.Watcher(), None]])
def test_what_is_no_callback_is_refused(callback):
    with pytest.raises(TypeError, match="`callback` must be a function, a `Watcher` or a list"):
        zoo.minimize(sphere, np.ones(3), budget=10, callback=callback)
