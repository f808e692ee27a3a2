"""Runs: the same bytes whether or not they were interrupted, and nothing evaluated twice."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import zoo
from benchmarks import faults
from zoo.core.errors import CheckpointError, EvaluationError, RunDirectoryError, TooManyFailures, ZooWarning
from zoo.problems import rosenbrock, sphere
from zoo.run import journal
from zoo.run.digest import digest_of_run
from zoo.run.directory import RunDirectory


def shifted(x, by=0.0):
    return float(((x - by) ** 2).sum())


class Counting:
    """Sphere, counting its calls; `fail(number, attempt)` says at which point, and how often, it raises."""

    def __init__(self, fail=lambda number, attempt: False):
        self.points, self.attempts, self.fail = [], {}, fail

    @property
    def calls(self):
        return len(self.points)

    def __call__(self, x):
        self.points.append(x)
        attempt = self.attempts[x.tobytes()] = self.attempts.get(x.tobytes(), 0) + 1
        if self.fail(list(self.attempts).index(x.tobytes()), attempt):
            raise OSError("the simulator is out of reach")
        return float(sphere(x))


def minimize(fun, out=None, **more):
    return zoo.minimize(fun, np.ones(4), **{"method": "cma", "budget": 200, "rng": 5, "out": out, **more})


def test_a_finished_run_is_returned_without_a_single_evaluation(tmp_path):
    fun = Counting()
    first = minimize(fun, tmp_path / "run")
    assert fun.calls == first.nfev == 200
    again = minimize(fun, tmp_path / "run")
    resumed = zoo.resume(tmp_path / "run", fun)
    assert fun.calls == 200
    assert first.x.tobytes() == again.x.tobytes() == resumed.x.tobytes()
    assert first.fun == again.fun == resumed.fun
    assert first.message == resumed.message


@pytest.mark.parametrize("target", [None, 0.5])
@pytest.mark.parametrize("noise", [False, True])
def test_a_finished_run_is_not_touched(tmp_path, target, noise):
    arguments = {"target": target, "noise": noise}
    first = minimize("zoo.problems:sphere", tmp_path / "run", workers=2, **arguments)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = minimize("zoo.problems:sphere", tmp_path / "run", **arguments)
    resumed = zoo.resume(tmp_path / "run")
    with zoo.Session.open(tmp_path / "run") as session:
        assert session.done
    assert {path: path.read_bytes() for path in before} == before
    assert first.seconds > 0
    assert first.account["sent"] > 0
    for result in (again, resumed):
        assert result.x.tobytes() == first.x.tobytes()
        assert result.account | {"busy": ()} == first.account | {"busy": ()}
        assert (result.seconds, result.status, result.message) == (first.seconds, first.status, first.message)


def test_without_its_result_a_finished_run_writes_it_anew(tmp_path):
    first = minimize(Counting(), tmp_path / "run")
    path = tmp_path / "run/result.json"
    path.write_text(path.read_text()[:100])
    zoo.resume(tmp_path / "run", Counting())
    assert json.loads(path.read_text())["fun"] == first.fun


def test_a_directory_changes_nothing(tmp_path):
    kept, unkept = minimize(Counting(), tmp_path / "run"), minimize(Counting())
    assert kept.x.tobytes() == unkept.x.tobytes()
    assert kept.nfev == unkept.nfev


@pytest.mark.parametrize(
    ("method", "stops"),
    [("random", (1,)), *itertools.product(["cma", "zo-adam", "pycma"], [(1,), (2, 3, 7), (5, 5, 6)])],
)
def test_stopped_by_the_callback_and_resumed_it_ends_the_same(tmp_path, method, stops):
    expected = minimize(Counting(), tmp_path / "undisturbed", method=method)
    fun = Counting()
    for stop in stops:
        steps = 0

        def halt(intermediate_result, stop=stop):
            nonlocal steps
            steps += 1
            if steps == stop:
                raise StopIteration

        part = minimize(fun, tmp_path / "run", method=method, callback=halt)
        assert part.status == 3
    result = zoo.resume(tmp_path / "run", fun)
    assert result.x.tobytes() == expected.x.tobytes()
    assert result.nfev == expected.nfev
    assert digest_of_run(tmp_path / "run") == digest_of_run(tmp_path / "undisturbed")
    for name in ("metrics.jsonl",):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_metrics_are_the_same_lines_with_other_workers(tmp_path):
    minimize("zoo.problems:rosenbrock", tmp_path / "one")
    minimize("zoo.problems:rosenbrock", tmp_path / "two", workers=2)
    assert (tmp_path / "one/metrics.jsonl").read_bytes() == (tmp_path / "two/metrics.jsonl").read_bytes()
    assert digest_of_run(tmp_path / "one") == digest_of_run(tmp_path / "two")


@pytest.mark.parametrize("method", ["cma", "zo-adam", "pycma"])
def test_killed_three_times_the_driver_loses_nothing(method):
    row = faults.driver_kills(method, kills=3, budget=150)
    assert row.faults == 3
    assert row.lost == 0
    assert row.equal


def test_without_checkpoints_a_run_is_replayed_from_its_journal(tmp_path):
    fun = Counting()
    expected = minimize(fun, tmp_path / "run")
    before = digest_of_run(tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").glob("*/*"):
        path.unlink()
    for path in (tmp_path / "run/checkpoints").glob("*"):
        path.rmdir()
    again = zoo.resume(tmp_path / "run", fun)
    assert fun.calls == 200
    assert again.x.tobytes() == expected.x.tobytes()
    assert digest_of_run(tmp_path / "run") == before


def test_with_the_newest_checkpoint_damaged_the_run_goes_on_from_the_one_before(tmp_path):
    expected = minimize(Counting(), tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints").iterdir())
    (newest / "arrays.safetensors").write_bytes(b"")
    fun = Counting()
    with pytest.warns(ZooWarning, match="damaged"):
        again = zoo.resume(tmp_path / "run", fun)
    assert fun.calls == 0
    assert again.x.tobytes() == expected.x.tobytes()


def test_with_every_checkpoint_damaged_it_is_an_error(tmp_path):
    minimize(Counting(), tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        (path / "state.json").write_text("")
    with pytest.raises(CheckpointError, match="Remove that directory"):
        zoo.resume(tmp_path / "run", Counting())


def test_seconds_stop_a_run_that_can_go_on(tmp_path):
    def slow(x):
        time.sleep(0.002)
        return float(sphere(x))

    part = minimize(slow, tmp_path / "run", seconds=0.05)
    assert part.status == 2
    assert part.nfev < 200
    assert part.fun == pytest.approx(sphere(part.x))
    result = zoo.resume(tmp_path / "run", slow)
    assert result.x.tobytes() == minimize(slow).x.tobytes()
    assert result.nfev == 200


def test_however_few_seconds_there_are_every_process_does_a_step(tmp_path):
    for step in (1, 2, 3):
        part = minimize(Counting(), tmp_path / "run", seconds=1e-9)
        assert (part.status, part.nit) == (2, step)
        assert part.fun == sphere(part.x)


def test_the_target_ends_a_run_at_once():
    result = minimize(Counting(), target=0.5, budget=5000)
    assert result.status == 1
    assert result.success
    assert result.fun <= 0.5
    assert result.nfev < 300


def test_an_objective_that_raises_at_once_is_a_bug_and_shown(tmp_path):
    fun = Counting(lambda number, attempt: True)
    with pytest.raises(EvaluationError, match=r"evaluation 0 raised.*out of reach") as caught:
        minimize(fun, tmp_path / "run")
    assert fun.calls == 1
    assert "simulator" in caught.value.details
    assert caught.value.result.nfev == 0
    assert not caught.value.result.success


def test_one_that_raises_once_in_a_while_is_asked_again():
    fun = Counting(lambda number, attempt: number == 49 and attempt == 1)
    result = minimize(fun)
    assert result.account["retries"] == 1
    assert result.num_failed == 0
    assert result.x.tobytes() == minimize(Counting()).x.tobytes()


def test_raised_twice_it_ends_the_run_with_a_checkpoint_and_goes_on_later(tmp_path):
    fun = Counting(lambda number, attempt: number == 49 and attempt <= 2)
    with pytest.raises(EvaluationError, match="evaluation 49 raised twice") as caught:
        minimize(fun, tmp_path / "run")
    assert caught.value.evaluation == 49
    assert caught.value.result.fun < 4
    kept = sum(len(record.reply.values) for record in journal.read(tmp_path / "run/evaluations.bin"))
    assert kept == fun.calls - 2
    result = zoo.resume(tmp_path / "run", fun)
    assert fun.calls == 202
    assert result.x.tobytes() == minimize(Counting()).x.tobytes()
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["evaluation raised", "ended", "resumed", "ended"]


def test_with_nan_for_errors_it_counts_as_failed():
    result = minimize(Counting(lambda number, attempt: number == 49), on_error="nan")
    assert result.num_failed == 1
    assert result.success
    assert result.nfev == 200


def test_too_many_errors_stop_the_run(tmp_path):
    with pytest.raises(TooManyFailures, match="more than a fifth") as caught:
        minimize(Counting(lambda number, attempt: number > 40), tmp_path / "run", on_error="nan")
    assert caught.value.result.nfev < 100
    assert np.isfinite(caught.value.result.fun)


def test_returned_nan_never_stops_a_run():
    result = minimize(lambda x: float("nan") if x[0] > -0.3 else float(sphere(x)))
    assert result.nfev == 200
    assert result.num_failed > 40
    assert np.isfinite(result.fun)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_if_all_fail_it_says_so(bad):
    result = minimize(lambda x: bad, budget=60)
    assert not result.success
    assert "no evaluation had a value" in result.message
    assert np.isnan(result.fun)
    assert np.isfinite(result.x).all()


def test_minus_infinity_is_never_the_best():
    result = minimize(lambda x: -np.inf if x[0] > 1.5 else float(sphere(x)))
    assert np.isfinite(result.fun)


def test_an_error_of_the_callback_leaves_a_checkpoint(tmp_path):
    fun = Counting()

    def broken(x):
        if fun.calls > 100:
            raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError):
        minimize(fun, tmp_path / "run", callback=broken)
    assert zoo.resume(tmp_path / "run", fun).nfev == 200
    assert fun.calls == 200


def test_noise_gives_a_fresh_value_of_the_recommendation():
    def noisy(x):
        return float(sphere(x) + 0.1 * np.random.standard_normal())

    first, again = minimize(noisy, noise=True), minimize(noisy, noise=True)
    assert first.x.tobytes() == again.x.tobytes()
    assert first.fun == again.fun
    assert first.fun != first.fun_best
    assert first.x.tobytes() != first.x_best.tobytes()
    assert minimize(noisy, noise=True, rng=6).fun != first.fun


_SCRIPT = """
import sys, time
import numpy as np
import zoo
def slow(x):
    time.sleep({pause})
    return float((x ** 2).sum())
zoo.minimize(slow, np.ones(4), method="cma", budget=3000, rng=5, out={out!r}, workers={workers})
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("number", "pause"), [(signal.SIGINT, 0.004), (signal.SIGTERM, 0.004), (signal.SIGINT, 30)]
)
def test_a_signal_stops_a_run_with_a_checkpoint(tmp_path, number, pause, workers):
    out = tmp_path / "run"
    script = _SCRIPT.format(pause=pause, out=str(out), workers=workers)
    wanted = 40 if pause < 1 else 0
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as child:
        while not (out / "checkpoints").exists() or faults._num_evaluated(out) < wanted:
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.01)
        time.sleep(0.3)
        child.send_signal(number)
        said = child.communicate(timeout=10)[1]
        status = child.returncode
    assert "Interrupted" in said
    assert "goes on" in said
    assert status != 0
    digest = digest_of_run(out)
    assert digest.counters["nfev"] <= faults._num_evaluated(out)
    assert faults._num_evaluated(out) >= wanted


def test_one_process_at_a_time(tmp_path):
    minimize(Counting(), tmp_path / "run")
    held = RunDirectory.open(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="in use"):
        zoo.resume(tmp_path / "run", Counting())
    held.close()
    zoo.resume(tmp_path / "run", Counting())


def test_a_checkpoint_of_another_method_or_start_is_refused(tmp_path):
    def halt(xk):
        raise StopIteration

    minimize(Counting(), tmp_path / "run", callback=halt)
    for name, change in (("method", {"method": "zo-adam"}), ("start", {"scale": 3.0})):
        minimize(Counting(), tmp_path / name, callback=halt, **change)
        shutil.rmtree(tmp_path / "run/checkpoints")
        shutil.copytree(tmp_path / name / "checkpoints", tmp_path / "run/checkpoints")
        with pytest.raises(CheckpointError, match="of another run"):
            zoo.resume(tmp_path / "run", Counting())


def test_stops_cost_no_evaluation_beyond_the_budget(tmp_path):
    def halt(xk):
        raise StopIteration

    fun = Counting()
    while minimize(fun, tmp_path / "run", callback=halt).status == 3:
        assert fun.calls <= 200
    assert fun.calls == 200


def test_a_target_that_nothing_has_reached_yet_does_not_end_a_run():
    result = minimize(Counting(), target=1e300)
    assert result.status == 1
    assert result.nfev > 0
    assert result.success


@pytest.mark.parametrize("method", ["zo-adam", "random"])
def test_if_the_method_cannot_begin_the_start_itself_is_evaluated(method):
    result = zoo.minimize(lambda x: 1.0, np.full(2, 1e308), method=method, budget=1, rng=0)
    assert result.nfev == 1
    assert result.fun == 1.0


def test_what_faults_cost_is_counted_over_all_processes(tmp_path):
    fun = Counting(lambda number, attempt: number == 5 and attempt == 1)

    def halt(intermediate_result):
        if intermediate_result.nit == 3:
            raise StopIteration

    minimize(fun, tmp_path / "run", callback=halt)
    assert zoo.resume(tmp_path / "run", fun).account["retries"] == 1
    assert zoo.resume(tmp_path / "run", fun).account["retries"] == 1


def test_after_too_many_failures_every_step_has_its_line_and_a_mended_objective_goes_on(tmp_path):
    broken = [True]
    fun = Counting(lambda number, attempt: broken[0] and number > 40)
    with pytest.raises(TooManyFailures):
        minimize(fun, tmp_path / "run", on_error="nan")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    broken[0] = False
    result = zoo.resume(tmp_path / "run", fun)
    assert result.nfev == 200
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == list(range(1, result.nit + 1))
    assert len(metrics) > len(lines)


def test_options_come_back_as_they_were(tmp_path):
    options = {"tolfacupx": float("inf"), "population_size": 9}
    first = minimize(Counting(), tmp_path / "run", options=options)
    assert minimize(Counting(), tmp_path / "run", options=options).x.tobytes() == first.x.tobytes()
    more = {"options": {"CMA_mirrors": 0, "tolx": 1e-9}}
    first = minimize(Counting(), tmp_path / "pycma", method="pycma", options=more)
    assert minimize(Counting(), tmp_path / "pycma", method="pycma", options=more).fun == first.fun


def test_other_threads_are_refused(tmp_path):
    minimize("zoo.problems:sphere", tmp_path / "run", workers=zoo.Processes(2, threads=2))
    assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == 2
    with pytest.raises(RunDirectoryError, match="2 threads, not 1"):
        zoo.resume(tmp_path / "run")


def test_a_refused_run_leaves_no_directory(tmp_path):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent"):
        minimize(lambda x: float(sphere(x)) if lock else 0.0, tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


def test_a_stale_result_is_gone_while_a_run_goes_on(tmp_path):
    def halt(xk):
        raise StopIteration

    seen = []
    minimize(Counting(), tmp_path / "run", callback=halt)
    assert (tmp_path / "run/result.json").exists()
    zoo.resume(
        tmp_path / "run",
        Counting(),
        callback=lambda xk: seen.append((tmp_path / "run/result.json").exists()),
    )
    assert not any(seen)
    assert (tmp_path / "run/result.json").exists()


def test_damage_outside_checkpoints_is_explained_and_leaves_no_lock_behind(tmp_path):
    minimize(Counting(), tmp_path / "run")
    for content in ("{", "{}", "[]"):
        (tmp_path / "run/meta.json").write_text(content)
        zoo.resume(tmp_path / "run", Counting())
    journal_file = tmp_path / "run/evaluations.bin"
    data = journal_file.read_bytes()
    for _ in range(2):
        journal_file.write_bytes(b"nonsense")
        with pytest.raises(RunDirectoryError, match="not a journal"):
            zoo.resume(tmp_path / "run", Counting())
    journal_file.write_bytes(data)
    zoo.resume(tmp_path / "run", Counting())
    (tmp_path / "run/config.json").write_text('{"schema": "a"}')
    with pytest.raises(RunDirectoryError, match="damaged"):
        zoo.resume(tmp_path / "run", Counting())
    with pytest.raises(RunDirectoryError, match="a file in its place"):
        minimize(Counting(), journal_file)
    with pytest.raises(RunDirectoryError, match="a file in its place"):
        minimize(Counting(), journal_file / "below")


def test_what_is_no_run_directory_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(RunDirectoryError, match="no run directory"):
        minimize(Counting(), tmp_path)
    with pytest.raises(RunDirectoryError, match="no run directory"):
        zoo.resume(tmp_path)
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        zoo.resume(tmp_path / "missing")
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_a_directory_that_was_being_made_when_its_process_was_killed_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").write_bytes(b"")
    (tmp_path / "run/start.safetensors").write_bytes(b"")
    (tmp_path / "run/.config.json.123").write_bytes(b"{")
    assert minimize(Counting(), tmp_path / "run").nfev == 200


@pytest.mark.parametrize("name", ["thesis.txt", "meta.json"])
def test_a_lock_alone_makes_no_folder_a_run(tmp_path, name):
    (tmp_path / ".lock").touch()
    (tmp_path / name).write_text("years of work")
    with pytest.raises(RunDirectoryError, match="no run directory; nothing in it was touched"):
        minimize(Counting(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", name]
    assert (tmp_path / name).read_text() == "years of work"


def test_a_refused_run_removes_nothing_but_itself(tmp_path, monkeypatch):
    def refuse(self, *_):
        (self.path / "thesis.txt").write_text("years of work")
        raise TypeError("of the workers")

    monkeypatch.setattr(RunDirectory, "restore", refuse)
    with pytest.raises(TypeError, match="of the workers"):
        minimize(Counting(), tmp_path / "run")
    assert os.listdir(tmp_path / "run") == ["thesis.txt"]


def test_what_json_cannot_hold_leaves_no_directory(tmp_path):
    with pytest.raises(TypeError, match="an option cannot be kept in a run directory"):
        minimize(Counting(), tmp_path / "run", options={"sigma": Fraction(1)})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["gradfree", "numpy", "torch"])
def test_resumed_with_other_versions_it_warns(tmp_path, name):
    minimize(Counting(), tmp_path / "run", seconds=1e-6)
    path = tmp_path / "run/meta.json"
    meta = json.loads(path.read_text())
    meta["versions"][name] = "1.0a0"
    path.write_text(json.dumps(meta))
    with pytest.warns(ZooWarning, match=rf"{name} 1\.0a0 then"):
        zoo.resume(tmp_path / "run", Counting())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "random"}, "method"),
        ({"rng": 6}, "rng"),
        ({"budget": 300}, "budget"),
        ({"bounds": [(-2, 2)] * 4}, "bounds"),
        ({"scale": 2.0}, "scale"),
        ({"options": {"population_size": 9}}, "options"),
        ({"noise": True}, "noise"),
    ],
)
def test_another_experiment_is_refused_and_named(tmp_path, change, named):
    fun = Counting()
    minimize(fun, tmp_path / "run")
    with pytest.raises(RunDirectoryError, match=f"another run: .*{named}"):
        minimize(fun, tmp_path / "run", **change)


def test_another_objective_is_refused(tmp_path):
    minimize("zoo.problems:sphere", tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="another objective"):
        zoo.resume(tmp_path / "run", rosenbrock)
    with pytest.raises(RunDirectoryError, match="another objective"):
        minimize(lambda x: 0.0, tmp_path / "run")
    minimize(lambda x: float((x**2).sum()), tmp_path / "lambda")
    with pytest.raises(RunDirectoryError, match="another objective"):
        zoo.resume(tmp_path / "lambda", lambda x: float((x**4).sum()))
    with pytest.raises(RunDirectoryError, match="give it again"):
        zoo.resume(tmp_path / "lambda")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(shifted, by=1.0), partial(shifted, by=2.0)),
        (lambda x, by=1.0: shifted(x, by), lambda x, by=2.0: shifted(x, by)),
    ],
)
def test_the_same_function_with_other_arguments_is_refused(tmp_path, first, second):
    minimize(first, tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="with other arguments"):
        minimize(second, tmp_path / "run")
    minimize(shifted, tmp_path / "args", args=(1.0,))
    with pytest.raises(RunDirectoryError, match="with other arguments"):
        zoo.resume(tmp_path / "args", shifted, (2.0,))
    zoo.resume(tmp_path / "args", shifted, (1.0,))


def test_what_may_be_another_objective_is_warned_of(tmp_path):
    class Model:
        def __init__(self, at):
            self.at = at

        def __call__(self, x):
            return shifted(x, self.at)

    minimize(Model(1.0), tmp_path / "run")
    with pytest.warns(ZooWarning, match="'at' changed since"):
        zoo.resume(tmp_path / "run", Model(2.0))


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    minimize(Counting(), tmp_path / "run")
    path = tmp_path / "run/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(RunDirectoryError, match="newer version"):
        zoo.resume(tmp_path / "run", Counting())


def test_a_checkpoint_of_a_state_that_is_not_known_is_refused(tmp_path, monkeypatch):
    def halt(x):
        raise StopIteration

    out = tmp_path / "run"
    minimize(sphere, out, callback=halt)
    monkeypatch.setattr("zoo.core.state._CLASSES", {})
    with pytest.raises(CheckpointError, match=r"cannot read the newest checkpoint: no state of the name"):
        zoo.resume(out, sphere)


def test_torch_states_survive(tmp_path):
    torch = pytest.importorskip("torch")

    def fun(x):
        return (x**2).sum()

    x0 = torch.ones(4)
    whole = zoo.minimize(fun, x0, method="zo-adam", budget=60, rng=1)

    def halt(intermediate_result):
        if intermediate_result.nit == 2:
            raise StopIteration

    zoo.minimize(fun, x0, method="zo-adam", budget=60, rng=1, out=tmp_path / "run", callback=halt)
    result = zoo.resume(tmp_path / "run", fun)
    assert result.x.dtype == torch.float32
    assert torch.equal(result.x, whole.x)
