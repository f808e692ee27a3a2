"""Swarms in shards: the bytes of the optimizer form, whoever has the particles and whatever befalls them."""

import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import zoo
from tests.distributed import objectives
from tests.distributed.fake import Fake, Faults, Hangs, Kills
from zoo.consensus.weights import boundaries
from zoo.core.errors import EvaluationError, WorkerError
from zoo.core.objective import Objective
from zoo.core.types import Evaluations
from zoo.execution import parts
from zoo.execution.executor import Serial
from zoo.execution.processes import Processes
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events
from zoo.run.journal import read, values_by_id

START = np.array([0.75, -1.5, 2.0, 0.25])
SIZE, STEPS = 150, 4  # three blocks
BUDGET = SIZE * STEPS + 77  # the last step is cut short


def waves(x):
    """Take many points at once."""
    return np.sin(x).sum(1) + (x * x).sum(1)


EVALUATED = []
SIGNAL_AT = None


def noted(x):
    """Take note of every call, and send this process a signal at one of them."""
    EVALUATED.append(x)
    if len(EVALUATED) == SIGNAL_AT:
        signal.raise_signal(signal.SIGINT)
    time.sleep(PAUSE)
    return objectives.wave(x)


def noted_together(x):
    EVALUATED.extend(x)
    return waves(x)


PAUSE = float(os.environ.get("TEST_PAUSE", "0"))


class Keyed(Objective):
    """Draws from its key, and lets the size of the batch show."""

    def __call__(self, x, *, key):
        return waves(x) + 1e-3 * key.normal(0, len(x), 1)[:, 0] + 1e-6 * x.sum()


class Rich(Objective):
    """Says more of every point than its value."""

    unit = 16

    def __call__(self, x, *, key):
        return Evaluations(waves(x), extras={"behaviour": x[:, :2] + 1, "constraints": x[:, :1] - 1})


class Run:
    """A run in a directory, and what it left there."""

    def __init__(self, path, workers=1, fun=objectives.wave, x0=START, method="cbo", **options):
        self.path, self.result, self.error = path, None, None
        own = {"num_particles": SIZE, **options.pop("options", {})}
        arguments = {"budget": BUDGET, "rng": 0, "workers": workers, "out": path, "options": own, **options}
        try:
            self.result = zoo.minimize(fun, x0, method=method, **arguments)
        except (EvaluationError, WorkerError, zoo.Interrupted) as error:
            self.error = error

    @property
    def outcome(self):
        """All that must not depend on who had the particles."""
        return {
            "digest": digest_of_run(self.path),
            "metrics": (self.path / "metrics.jsonl").read_text(),
            "error": None if self.error is None else str(self.error).splitlines()[0],
            "result": None if self.result is None else what_counts(self.result),
            "record": on_record(self.path),
        }

    def of(self, event):
        return [entry for entry in read_events(self.path) if entry["event"] == event]


def what_counts(result):
    return result.x.tolist(), repr(result.fun), result.nfev, result.nit, result.num_failed, result.message


def on_record(path):
    """Return what the journal says of every evaluation, by id: once of each."""
    found = {}
    for record in read(path / "evaluations.bin"):
        failures = {failure.row: failure[1:3] for failure in record.reply.failures}
        for i, value in enumerate(record.reply.values.tolist()):
            row = record.reply.start + i
            extras = {name: extra[i].tolist() for name, extra in record.reply.extras.items()}
            name = record.kind, record.first_id + row
            assert name not in found
            found[name] = (str(value), failures.get(row), extras)
    return found


def in_shards(executor=None):
    """Return an executor, this process by default, that keeps candidates where they are evaluated."""
    executor = executor or Serial()
    executor.sharded = True
    return executor


@pytest.fixture(autouse=True)
def whole_trips(monkeypatch):
    """However slow this machine is, parts do all they are asked for at once."""
    monkeypatch.setattr(parts, "LIMIT_SECONDS", 60.0)


FORMS = {
    "default": {},
    "single precision": {"options": {"precision": "single"}},
    "many at once": {"fun": waves, "vectorized": True},
    "textbook": {"method": "cbo-textbook"},
    "isotropic": {
        "options": {"noise": "isotropic", "sigma": 1.0, "explorers": 0.0, "num_coordinates": None},
    },
    "effective sample size": {"options": {"alpha_schedule": "effective-sample-size", "alpha": 1.0}},
    "cooling": {"options": {"alpha_schedule": "cooling", "alpha": 10.0, "epoch": 2}},
    "corrected": {"options": {"correction": "smooth", "explorers": 0.0, "alpha": 30.0}},
    "local memory": {"options": {"memory": "local", "explorers": 0.0, "alpha": 30.0}},
    "no memory": {"options": {"memory": "none", "explorers": 0.0, "alpha": 30.0, "elitist": False}},
    "restarts": {"options": {"restart": 10.0, "alpha": 1e3}},
    "bounds": {"bounds": [(-2, 2), (-2, None), (None, 3), (0, 1)]},
    "known": {"known": (np.eye(4), [4.0, np.nan, 3.0, 2.0])},
    "target": {"target": -0.9},
    "keyed": {"fun": Keyed()},
    "rich": {"fun": Rich(), "constraints": ()},
    "less than a step": {"budget": 100},
    "one particle": {"options": {"num_particles": 1, "memory": "none", "explorers": 0.0}, "budget": 9},
    "one variable": {"x0": START[:1]},
    "no value": {"fun": lambda x: float("nan")},
    "converged": {"options": {"num_particles": 66, "tolx": 1e-2}, "budget": 4000},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_bytes_of_the_optimizer_form(tmp_path, form):
    expected = Run(tmp_path / "plain", **form).outcome
    executors = {
        "serial": in_shards(),
        "seven": Fake(7, seed=3, sharded=True, faults=Faults(duplicate=0.3, delay=0.2)),
    }
    for name, executor in executors.items():
        assert Run(tmp_path / name, executor, **form).outcome == expected, name


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_tensors(tmp_path, kind):
    import torch

    x0 = torch.tensor(START.tolist(), dtype=getattr(torch, kind))
    form = {"x0": x0, "fun": lambda x: (x * x + torch.sin(x)).sum(1), "vectorized": True}
    expected = Run(tmp_path / "plain", **form).outcome
    assert Run(tmp_path / "shards", Fake(2, sharded=True), **form).outcome == expected


def test_points_of_a_space(tmp_path):
    space = zoo.Space({"a": zoo.Float(-2.0, 2.0), "b": zoo.Integer(0, 9), "c": zoo.Categorical(["u", "v"])})

    def fun(point):
        return (point["a"] - 1) ** 2 + (point["b"] - 3) ** 2 + (point["c"] == "u")

    outcomes = []
    for name, executor in (("plain", 1), ("shards", Fake(2, sharded=True))):
        run = Run(tmp_path / name, executor, fun=fun, x0=None, space=space, budget=3 * SIZE)
        outcomes.append((digest_of_run(run.path), run.result.x, run.result.fun))
    assert outcomes[0] == outcomes[1]


DEATHS = {
    "before": Faults(kill_before=(5,)),
    "after": Faults(kill_after=(5,)),
    "idle": Faults(kill_idle=(6,)),
    "first": Faults(kill_before=(0,)),
    "again and again": Faults(kill_before=(2, 9), kill_after=(5, 12), kill_idle=(14,)),
    "all": Faults(kill_all=(4, 9)),
    "everything": Faults(kill_before=(4,), kill_after=(9,), failed_starts=(2,), duplicate=0.4, delay=0.3),
}


@pytest.mark.parametrize("faults", DEATHS.values(), ids=DEATHS.keys())
def test_deaths_of_workers_change_nothing(tmp_path, faults):
    expected = Run(tmp_path / "plain").outcome
    for number in (1, 3):
        run = Run(tmp_path / f"{number}", Fake(number, seed=number, faults=faults, sharded=True))
        assert run.outcome == expected
        account = run.result.account
        assert account["restarts"] == len(run.of("worker lost")) >= 1
        assert account["retries"] == account["quarantined"] == 0


def test_a_swarm_lives_long_and_is_made_anew_from_snapshots(tmp_path):
    small = {"options": {"num_particles": 66}, "budget": 66 * 70}
    expected = Run(tmp_path / "plain", **small).outcome
    faults = Faults(kill_idle=(40, 150, 151, 200))
    assert Run(tmp_path / "shards", Fake(2, faults=faults, sharded=True), **small).outcome == expected


def test_a_step_is_one_trip_to_each_worker_and_a_few_rows():
    number, dim, size, seen = 2, 50, 640, []
    executor = Fake(number, sharded=True)

    def mark(_x):
        transport = executor.transport
        seen.append((transport.dispatches, transport.sent + transport.received))

    budget, options = size * 9, {"num_particles": size, "precision": "single"}
    arguments = {"budget": budget, "rng": 0, "workers": executor, "callback": mark, "vectorized": True}
    zoo.minimize(waves, np.ones(dim), method="cbo", options=options, **arguments)
    trips, carried = np.diff(np.array(seen[2:]), axis=0).T
    assert (trips == number).all()
    blocks = len(boundaries(size)) - 1
    most = 8 * (size + (2 * blocks + number) * dim) + 1000 * (number + blocks)
    assert np.median(carried) < most < 0.7 * 4 * size * dim


@pytest.mark.parametrize("limit", [0.0, 1e-3])
def test_what_there_is_no_time_for_is_done_in_further_trips(tmp_path, monkeypatch, limit):
    form = {"options": {"num_particles": 70}, "budget": 160}
    expected = Run(tmp_path / "plain", **form).outcome
    monkeypatch.setattr(parts, "LIMIT_SECONDS", limit)
    for name, executor in (("serial", in_shards()), ("fake", Fake(2, sharded=True))):
        assert Run(tmp_path / name, executor, **form).outcome == expected


SEEN = set()


def fails(x):
    """Raise at some points always, at others the first time; some values are no numbers."""
    kind = (int(abs(x[0]) * 1e6) + 5) % 29
    again = x.tobytes() in SEEN
    SEEN.add(x.tobytes())
    if kind == 0 or (kind < 3 and not again):
        raise ArithmeticError(f"a bad point {kind}")
    return float("inf") if kind == 4 else objectives.wave(x)


def failing(*arguments, **form):
    SEEN.clear()
    return Run(*arguments, fun=fails, **form)


def test_failures_have_the_same_consequences(tmp_path):
    """What raises is tried again once; ids, counters and values are those of the optimizer form."""
    for form in ({}, {"options": {"alpha_schedule": "effective-sample-size", "alpha": 1.0}}):
        expected = failing(tmp_path / f"plain{len(form)}", on_error="nan", **form)
        assert expected.result.num_failed > 10
        assert expected.result.account["retries"] > 10
        for name, executor in (("serial", in_shards()), ("fake", Fake(3, sharded=True))):
            run = failing(tmp_path / f"{name}{len(form)}", executor, on_error="nan", **form)
            assert run.outcome == expected.outcome
            assert run.result.account["retries"] == expected.result.account["retries"]


def always_raises(x):
    raise ArithmeticError("a bug")


@pytest.mark.parametrize("run", [failing, functools.partial(Run, fun=always_raises)], ids=["late", "at once"])
def test_an_exception_ends_the_run_where_it_would(tmp_path, run):
    expected = run(tmp_path / "plain")
    assert expected.error is not None
    for name, executor in (("serial", in_shards()), ("fake", Fake(2, sharded=True))):
        ended = run(tmp_path / name, executor)
        assert str(ended.error) == str(expected.error)
        assert ended.error.evaluation == expected.error.evaluation
        assert digest_of_run(ended.path) == digest_of_run(expected.path)
        # What others had evaluated meanwhile is not lost.
        assert on_record(expected.path).items() <= on_record(ended.path).items()


class At:
    """Something else at one point."""

    def __init__(self, x, action):
        self.x, self.action = x.tobytes(), action

    def __call__(self, x):
        return self.action(x) if x.tobytes() == self.x else objectives.wave(x)


def raises(what):
    def action(x):
        raise what

    return action


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """The points of an undisturbed run, by id."""
    found = []

    def fun(x):
        found.append(x.copy())
        return objectives.wave(x)

    zoo.minimize(fun, START, method="cbo", budget=BUDGET, rng=0, options={"num_particles": SIZE})
    return found


@pytest.mark.parametrize(("how", "number"), [("poison", 1), ("poison", 3), ("hang", 2)])
def test_a_point_that_ends_or_outlasts_its_workers(tmp_path, points, how, number):
    """It is found among those of its part, and is a failed evaluation, as in the optimizer form."""
    step, row = 2, 100
    options = {"timeout": 5.0, "faults": Faults(**{how: ((step, row),)})}
    expected = Run(tmp_path / "plain", Fake(number, **options))
    assert expected.result.num_failed == 1
    fun = At(points[step * SIZE + row], raises(Kills() if how == "poison" else Hangs()))
    run = Run(tmp_path / "shards", Fake(number, sharded=True, **options), fun=fun)
    assert run.outcome["record"] == expected.outcome["record"]
    assert digest_of_run(run.path) == digest_of_run(expected.path)
    (event,) = run.of("quarantined")
    (same,) = expected.of("quarantined")
    assert {**event, "time": 0} == {**same, "time": 0}
    assert run.result.account["quarantined"] == 1


def test_a_part_that_cannot_go_on_is_named(tmp_path, monkeypatch):
    from zoo.consensus.cbo import CBO

    def move(*_):
        raise MemoryError("too large")

    monkeypatch.setattr(CBO, "move", move)
    run = Run(tmp_path / "run", in_shards())
    assert isinstance(run.error, WorkerError)
    assert str(run.error).startswith("part 0 of the swarm cannot go on, it raised: MemoryError: too large")


def stop_after(number):
    steps = itertools.count(1)

    def callback(_x):
        if next(steps) == number:
            raise StopIteration

    return callback


@pytest.mark.parametrize("form", ["default", "corrected", "single precision"])
@pytest.mark.parametrize("first", ["shards", "plain"])
def test_either_form_goes_on_where_the_other_stopped(tmp_path, form, first):
    form = FORMS[form]
    expected = Run(tmp_path / "plain", **form).outcome
    for stopped in (1, 2, STEPS):
        executors = [Fake(2, sharded=True), 1]
        before, after = executors if first == "shards" else executors[::-1]
        path = tmp_path / f"{stopped}"
        Run(path, before, **form, callback=stop_after(stopped))
        assert Run(path, after, **form).outcome == expected


@pytest.mark.filterwarnings("ignore:.*neither evaluations nor checkpoints")
def test_what_is_on_record_is_not_evaluated_again(tmp_path):
    """Whichever units of which steps a killed run had evaluated: here, from the journal alone."""
    for name, form in (("one", {"fun": noted}), ("many", {"fun": noted_together, "vectorized": True})):
        expected = Run(tmp_path / name, Fake(2, seed=5, faults=Faults(cut=0.5)), **form).outcome
        journal = (tmp_path / name / "evaluations.bin").read_bytes()
        for share in (0.0, 0.35, 1.0):
            path = tmp_path / f"{name}{share}"
            Run(path, in_shards(), **form, callback=stop_after(1))
            shutil.rmtree(path / "checkpoints")
            (path / "evaluations.bin").write_bytes(journal[: int(share * len(journal))])
            had = len(on_record(path)) if share else 0
            EVALUATED.clear()
            assert Run(path, in_shards(), **form).outcome == expected
            assert len(EVALUATED) == BUDGET - had


@pytest.mark.parametrize("where", ["objective", "callback"])
@pytest.mark.parametrize("make", [Serial, lambda: Fake(2)], ids=["serial", "fake"])
def test_a_signal_leaves_a_checkpoint(tmp_path, where, make):
    EVALUATED.clear()
    expected = Run(tmp_path / "plain", fun=noted).outcome
    EVALUATED.clear()
    when = 3 * SIZE + 50 if where == "objective" else None
    steps = itertools.count()

    def callback(_x):
        if next(steps) == 2 and when is None:
            signal.raise_signal(signal.SIGTERM)

    with mock.patch(f"{__name__}.SIGNAL_AT", when):
        stopped = Run(tmp_path / "run", in_shards(make()), fun=noted, callback=callback)
    assert isinstance(stopped.error, zoo.Interrupted)
    assert digest_of_run(tmp_path / "run").counters["nit"] == 3
    result = zoo.resume(tmp_path / "run", noted)
    assert digest_of_run(tmp_path / "run") == expected["digest"]
    assert what_counts(result) == expected["result"]


class Counts(zoo.Watcher):
    def __init__(self):
        self.number = 0

    def begin(self, run):
        pass

    def arrived(self, number):
        self.number += number


def test_watchers_and_callbacks_see_the_same():
    seen = []
    for executor in (1, Fake(2, sharded=True)):
        points, counts = [], Counts()

        def callback(intermediate_result, points=points):
            points.append((str(intermediate_result.x), intermediate_result.fun, intermediate_result.value))

        zoo.minimize(
            objectives.wave,
            START,
            method="cbo",
            budget=BUDGET,
            rng=0,
            workers=executor,
            callback=[callback, counts],
            options={"num_particles": SIZE},
        )
        seen.append((points, counts.number))
    assert seen[0] == seen[1]
    assert seen[0][1] >= BUDGET - 1


REFUSED = {
    "another method": ({"method": "pso"}, "`sharded` must be False but .*, got 'pso'"),
    "noise": ({"noise": True}, "`sharded` must be False where `noise` is True"),
    "constraints": ({"constraints": lambda x: x[0]}, "`sharded` must be False where there are `constraints`"),
    "points": ({"known": (np.eye(4), None)}, "`sharded` must be False where `known` has points without"),
    "batches": ({"options": {"batch_size": 50}}, "`batch_size` must be None in shards, got 50"),
    "reduction": ({"options": {"reduction": 0.2}}, "`reduction` must be 0.0 in shards, got 0.2"),
    "units": ({"fun": objectives.Batches()}, "`unit` of the objective must be None or a divisor of 64"),
}


@pytest.mark.parametrize(("form", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_in_shards_is_refused(tmp_path, form, message):
    if form.get("method") == "pso":
        form = {**form, "options": {}}
        with pytest.raises(ValueError, match=message):
            zoo.minimize(objectives.wave, START, method="pso", workers=Processes(2, sharded=True))
        return
    with pytest.raises(ValueError, match=message):
        Run(tmp_path / "run", Processes(2, sharded=True), **form)
    assert not (tmp_path / "run").exists()


def test_sharded_is_a_flag_and_not_for_replicas():
    with pytest.raises(ValueError, match="`replicated` and `sharded` must not both be True"):
        Processes(2, replicated=True, sharded=True)
    with pytest.raises(TypeError, match="`sharded`"):
        Processes(2, sharded=1)
    assert Processes(2, sharded=True).describe()["sharded"]


# Processes, for real.


@pytest.mark.parametrize("number", [1, 2, 3])
def test_processes_one_of_which_is_killed(tmp_path, number):
    def at_work(x):
        (tmp_path / f"{os.getpid()}.pid").touch()
        return objectives.wave(x)

    expected = Run(tmp_path / "plain", fun=at_work, budget=BUDGET).outcome
    executor, killed, steps = Processes(number, sharded=True), [], itertools.count()

    def kill(_x):
        if next(steps) == 1:  # one that holds particles: another may die before it is missed
            killed.extend(pid for pid in executor.pids() if (tmp_path / f"{pid}.pid").exists())
            os.kill(killed[0], signal.SIGKILL)

    run = Run(tmp_path / "run", executor, fun=at_work, callback=kill)
    assert killed
    assert run.outcome == expected
    assert run.result.account["restarts"] == 1


def test_a_process_killed_in_the_middle_of_a_step(tmp_path):
    def slow(x):
        time.sleep(5e-4)
        return objectives.wave(x)

    expected = Run(tmp_path / "plain", fun=slow).outcome
    executor = Processes(3, sharded=True)

    def kill(_x, timers=[]):  # noqa: B006 - one list for all calls
        pids = executor.pids()
        timers.append(threading.Timer(0.02, lambda: os.kill(pids[len(timers) % 3], signal.SIGKILL)))
        timers[-1].start()
        if len(timers) > 2:
            raise StopIteration

    Run(tmp_path / "run", executor, fun=slow, callback=kill)
    run = Run(tmp_path / "run", Processes(3, sharded=True), fun=slow)
    assert run.outcome["digest"] == expected["digest"]
    assert len(run.of("worker lost")) >= 2


def test_an_evaluation_that_ends_its_process(tmp_path, points):
    fun = At(points[SIZE + 90], lambda x: os._exit(3))
    outcomes = []
    for name, executor in (("plain", Processes(2)), ("shards", Processes(2, sharded=True))):
        run = Run(tmp_path / name, executor, fun=fun, budget=2 * SIZE + 1)
        outcomes.append((digest_of_run(run.path), on_record(run.path)))
        assert run.result.num_failed == run.result.account["quarantined"] == 1
    assert outcomes[0] == outcomes[1]


DRIVER = """
import sys, time
import numpy as np
import zoo
from tests.distributed.test_sharded_swarms import SIZE, START, noted
zoo.minimize(noted, START, method="cbo", budget=6 * SIZE, rng=0, out=sys.argv[1],
             workers=zoo.Processes(3, sharded=True), options={"num_particles": SIZE})
"""


def test_a_killed_driver_loses_nothing(tmp_path):
    """Workers end with it, and the run is resumed in either form."""
    form = {"fun": noted, "budget": 6 * SIZE}
    environment = {**os.environ, "TEST_PAUSE": "2e-4"}
    expected = Run(tmp_path / "plain", **form).outcome
    path, seen = tmp_path / "run", 0
    for share in (0.2, 0.6):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, path], cwd=Path(__file__).parents[2], env=environment
        )
        journal, until = path / "evaluations.bin", time.monotonic() + 60
        while time.monotonic() < until and driver.poll() is None:
            if journal.exists() and journal.stat().st_size > share * 6 * SIZE * 8:
                break
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        seen, before = sum(kind == 0 for kind, _ in on_record(path)), seen
        assert seen > before
    EVALUATED.clear()
    zoo.resume(path, noted, workers=in_shards())
    assert len(EVALUATED) == 6 * SIZE - seen
    found = digest_of_run(path)
    assert found.values == expected["digest"].values
    assert found == expected["digest"]
    assert values_by_id(path / "evaluations.bin", found.counters["nfev"]).shape == (6 * SIZE,)


def test_an_experiment_file_asks_for_it(tmp_path):
    from zoo.experiment_file.tables import Execution
    from zoo.experiment_file.values import backend, executor

    said = Execution(workers=2, sharded=True)
    assert backend(said) == "processes"
    assert executor(said).sharded


def test_actors(cluster, tmp_path):
    expected = Run(tmp_path / "plain").outcome
    executor, killed, steps = zoo.Ray(2, sharded=True), [], itertools.count()

    def kill(_x):
        if next(steps) == 1:
            killed.extend(executor.pids()[:1])
            os.kill(killed[0], signal.SIGKILL)

    run = Run(tmp_path / "run", executor, callback=kill)
    assert run.outcome == expected
    assert run.result.account["restarts"] == len(killed) == 1
