"""Everything that can befall workers, row by row: nothing is lost, and the run ends in the same bytes.

Each fault is injected into a whole run of `zoo.minimize`, on a transport without processes. What befalls
drivers and files, and has other numbers in the table, stands in `test_faults`.
"""

import itertools
import threading

import numpy as np
import pytest

import zoo
from tests.cases import CASES
from tests.distributed import objectives
from tests.distributed.fake import Fake, Faults
from zoo.core.errors import EvaluationError, TooManyFailures, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.execution.executor import Serial
from zoo.execution.ledger import Account
from zoo.run import checkpoint
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events
from zoo.run.journal import SEARCH, read

START = np.array([0.75, -1.5, 2.0, 0.25])

all_methods = pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)


class Outcome:
    """A run in a directory, and all that it left there."""

    def __init__(self, path, fun=objectives.wave, workers=1, method="cma", budget=200, **options):
        self.path, self.executor, self.result, self.error = path, workers, None, None
        arguments = {"method": method, "budget": budget, "rng": 0, "workers": workers, "out": path, **options}
        try:
            self.result = zoo.minimize(fun, START, **arguments)
        except (EvaluationError, TooManyFailures, WorkerError) as error:
            self.error = error
        self.events = read_events(path)

    @property
    def digest(self):
        return digest_of_run(self.path).total

    @property
    def metrics(self):
        return (self.path / "metrics.jsonl").read_bytes()

    @property
    def values(self):
        """Values of the search's evaluations, by id."""
        found = {r.first_id + r.reply.start: r.reply.values for r in records(self.path) if r.kind == SEARCH}
        return np.concatenate([found[first] for first in sorted(found)])

    def count(self, event):
        return sum(entry["event"] == event for entry in self.events)

    def assert_same(self, other):
        assert self.digest == other.digest
        assert self.metrics == other.metrics
        assert (self.result.nfev, self.result.nit) == (other.result.nfev, other.result.nit)
        assert self.result.x.tobytes() == other.result.x.tobytes()
        assert self.result.fun == other.result.fun

    def assert_accounted(self):
        """What the result says of faults is what the events say, and every evaluation is on record once."""
        account, lost = self.result.account, [e for e in self.events if e["event"] == "worker lost"]
        assert account["evaluations"] == self.result.nfev
        assert account["restarts"] == len(lost) == self.count("worker restarted")
        assert account["lost"] == sum(event["units"] for event in lost)
        assert account["quarantined"] == self.count("quarantined")
        assert account["retries"] == self.count("evaluation raised")
        assert account["speculated"] == sum(e["units"] for e in self.events if e["event"] == "speculated")
        assert all(0 <= share <= 1 for share in account["busy"])
        assert self.count("ended") == 1
        assert self.events[-1]["account"] == {**account, "busy": list(account["busy"])}
        ids = [r.first_id + r.reply.start + i for r in records(self.path) for i in range(len(r.reply.values))]
        assert sorted(ids) == list(range(self.result.nfev))


def records(path):
    return list(read(path / "evaluations.bin"))


def points_of(method, budget):
    """Return the points that a run evaluates, by id."""
    points = []

    def fun(x):
        points.append(x.copy())
        return objectives.wave(x)

    zoo.minimize(fun, START, method=method, budget=budget, rng=0)
    return points


class At:
    """An objective that does something else at some points than at all others."""

    def __init__(self, what):
        self.what = {x.tobytes(): action for x, action in what}

    def __call__(self, x):
        return self.what.get(x.tobytes(), objectives.wave)(x)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("how", ["kill_before", "kill_after", "kill_idle"])
def test_row_1_ten_deaths_of_workers_over_500_evaluations(tmp_path, num_workers, how):
    serial = Outcome(tmp_path / "serial", budget=500)
    assert serial.result.nfev == 500
    for replicated in (False, True):
        faults = Faults(**{how: tuple(range(7, 7 + 10 * 17, 17))})
        executor = Fake(num_workers, faults=faults, replicated=replicated)
        run = Outcome(tmp_path / f"faulty{replicated}", workers=executor, budget=500)
        run.assert_same(serial)
        run.assert_accounted()
        assert run.result.account["restarts"] == 10
        assert run.result.account["lost"] >= 10
        assert run.result.num_failed == 0


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_2_a_point_that_ends_every_worker(tmp_path, num_workers):
    """Three attempts alone, then it is a failed evaluation; the 199 others are exact."""
    expected = np.array([objectives.wave(x) for x in points_of("random", 200)])
    expected[64 + 20] = np.nan
    executor = Fake(num_workers, faults=Faults(poison=((1, 20),)), max_attempts=3)
    run = Outcome(tmp_path / "run", workers=executor, method="random")
    run.assert_accounted()
    assert run.values.tobytes() == expected.tobytes()
    assert (run.result.nfev, run.result.num_failed, run.result.fun) == (200, 1, np.nanmin(expected))
    (event,) = [event for event in run.events if event["event"] == "quarantined"]
    assert (event["id"], event["rows"], event["kind"]) == (84, 1, "crashed")
    assert event["message"] == "took its worker along 3 times"
    alone = [entry for entry in executor.transport.evaluated if entry[1] <= 20 < entry[2] and entry[3]]
    assert sum(last == first + 1 for _, first, last, _ in alone) >= 3
    assert 3 <= run.result.account["restarts"] <= 4


def test_row_2_a_point_that_ends_every_worker_is_what_a_point_without_a_value_is(tmp_path):
    points = points_of("cma", 200)
    nan = Outcome(tmp_path / "nan", At([(points[91], lambda x: float("nan"))]))
    run = Outcome(tmp_path / "run", workers=Fake(2, faults=Faults(poison=((11, 3),))))
    assert [e["id"] for e in run.events if e["event"] == "quarantined"] == [91]
    assert run.values.tobytes() == nan.values.tobytes()
    assert run.metrics == nan.metrics
    assert run.result.x.tobytes() == nan.result.x.tobytes()


def raising(x):
    raise LookupError(f"no data at {x[0]:.3f}")


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_3_exceptions_of_every_tenth_evaluation(tmp_path, num_workers):
    points = points_of("random", 200)
    fun = At((points[i], raising) for i in range(3, 200, 10))
    serial = Outcome(tmp_path / "serial", fun, method="random", on_error="nan")
    executor = Fake(num_workers, faults=Faults(delay=0.2, duplicate=0.3, cut=0.3))
    run = Outcome(tmp_path / "run", fun, executor, "random", on_error="nan")
    run.assert_same(serial)
    run.assert_accounted()
    assert run.result.num_failed == run.result.account["retries"] == 20
    expected = np.array([objectives.wave(x) for x in points])
    expected[3::10] = np.nan
    assert run.values.tobytes() == expected.tobytes()
    raised = sorted((e["id"], e["message"]) for e in run.events if e["event"] == "evaluation raised")
    assert raised == [(i, f"LookupError: no data at {points[i][0]:.3f}") for i in range(3, 200, 10)]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_3_exceptions_end_the_run_where_that_is_asked_for(tmp_path, num_workers):
    points = points_of("random", 200)
    fun = At((points[i], raising) for i in range(3, 200, 10))
    for seed in range(3):
        path = tmp_path / f"run{seed}"
        run = Outcome(path, fun, Fake(num_workers, seed=seed, faults=Faults(duplicate=0.3)), "random")
        assert isinstance(run.error, EvaluationError)
        assert run.error.evaluation == 3
        assert "evaluation 3 raised twice: LookupError: no data" in str(run.error)
        assert "in raising" in run.error.details
        assert run.error.result.account["retries"] >= 1
        assert run.events[-1]["status"] == "failed"
        assert checkpoint.load(path / "checkpoints")[0] == 0
    # Once its cause is gone, the run goes on, and nothing that was evaluated is so again.
    known = sum(len(record.reply.values) for record in records(path))
    executor = Fake(num_workers)
    result = zoo.resume(path, At([]), workers=executor)
    assert result.nfev == 200
    assert sum(last - first for _, first, last, _ in executor.transport.evaluated) == 200 - known


def test_row_3_more_than_a_fifth_of_exceptions_end_the_run(tmp_path):
    points = points_of("random", 200)
    fun = At((points[i], raising) for i in range(3, 200, 4))
    run = Outcome(tmp_path / "run", fun, Fake(2), "random", on_error="nan")
    assert isinstance(run.error, TooManyFailures)
    assert run.error.result.nfev == 64
    assert checkpoint.load(tmp_path / "run" / "checkpoints")[0] == 1


class Unpicklable(Exception):
    def __init__(self, x):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def unpicklable(x):
    raise Unpicklable(x)


def leaving(x):
    raise SystemExit(3)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_4_exceptions_that_cannot_be_sent_and_attempts_to_leave(tmp_path, num_workers):
    points = points_of("random", 200)
    fun = At([(points[50], unpicklable), (points[150], leaving)])
    serial = Outcome(tmp_path / "serial", fun, method="random", on_error="nan")
    run = Outcome(tmp_path / "run", fun, Fake(num_workers), "random", on_error="nan")
    run.assert_same(serial)
    run.assert_accounted()
    assert [(e["id"], e["message"]) for e in run.events if e["event"] == "evaluation raised"] == [
        (50, "Unpicklable: holds a lock"),
        (150, "SystemExit: 3"),
    ]
    assert run.result.account["restarts"] == 0
    raised = Outcome(tmp_path / "raised", fun, Fake(num_workers), "random")
    assert "in unpicklable" in raised.error.details


NO_VALUES = {
    "NaN": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "None": None,
    "complex": 1j,
    "shape": np.zeros(2),
}


@pytest.mark.parametrize("method", ["random", "cma", "zo-adam", "spsa"])
def test_row_5_values_that_are_none(tmp_path, method):
    """Each kind at 5 % of 300 points: none is ever best, and none gets into the state."""
    wrong, kinds = list(NO_VALUES.values()), {}

    def known(x):
        kind = kinds[x.tobytes()]
        return wrong[kind - 1] if 0 < kind <= len(wrong) else objectives.wave(x)

    def fun(x):
        kinds.setdefault(x.tobytes(), 7 * len(kinds) % 20)
        return known(x)

    serial = Outcome(tmp_path / "serial", fun, method=method, on_error="nan", budget=300)
    run = Outcome(tmp_path / "run", known, Fake(2), method, on_error="nan", budget=300)
    run.assert_same(serial)
    run.assert_accounted()
    assert np.isfinite(run.result.fun)
    assert np.isfinite(run.result.x).all()
    assert run.result.num_failed == np.isnan(run.values).sum() > 50  # some points come twice
    assert run.result.fun <= np.nanmin(run.values)
    _, _, arrays = checkpoint.load(tmp_path / "run" / "checkpoints")
    assert all(np.isfinite(array).all() for array in arrays.values())
    messages = "".join(event["message"] for event in run.events if event["event"] == "evaluation raised")
    for said in ("got None", "got 1j", "shape (2,)"):
        assert said in messages
    if method == "random":
        failures = [f.message for record in records(tmp_path / "run") for f in record.reply.failures]
        assert {text: failures.count(f"returned {text.lower()}") for text in ("NaN", "inf", "-inf")} == {
            "NaN": 15,
            "inf": 15,
            "-inf": 15,
        }


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_6_two_evaluations_that_hang(tmp_path, num_workers):
    expected = np.array([objectives.wave(x) for x in points_of("random", 200)])
    expected[[5, 64 + 63]] = np.nan
    for late in (0.0, 1.0):
        executor = Fake(num_workers, faults=Faults(hang=((0, 5), (1, 63)), late=late), timeout=2.0)
        run = Outcome(tmp_path / f"run{late}", workers=executor, method="random")
        run.assert_accounted()
        assert run.values.tobytes() == expected.tobytes()
        assert (run.result.nfev, run.result.num_failed) == (200, 2)
        quarantined = [event for event in run.events if event["event"] == "quarantined"]
        assert [(e["id"], e["kind"], e["message"]) for e in quarantined] == [
            (5, "hung", "took more than 2 s"),
            (127, "hung", "took more than 2 s"),
        ]
        assert executor.clock.now < 30
        assert run.result.account["restarts"] == len(executor.transport.ended) >= 2


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_8_all_workers_lost_three_times(tmp_path, num_workers):
    serial = Outcome(tmp_path / "serial")
    for replicated in (False, True):
        executor = Fake(num_workers, faults=Faults(kill_all=(10, 30, 50)), replicated=replicated)
        run = Outcome(tmp_path / f"run{replicated}", workers=executor)
        run.assert_same(serial)
        run.assert_accounted()
        assert 3 <= run.result.account["restarts"] <= 3 * num_workers


@pytest.mark.parametrize("number", range(26, 60, 6))
def test_row_8_dead_workers_not_heard_of_yet_count_against_nobody(tmp_path, number):
    """All die at once and are heard of one by one: what is handed to the last of them is not to blame."""
    run = Outcome(tmp_path / "run", workers=Fake(12, faults=Faults(kill_all=(number,)), max_attempts=2))
    run.assert_accounted()
    assert run.result.account["quarantined"] == 0


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_8_all_workers_lost_for_good(tmp_path, num_workers):
    """A clear error, with a checkpoint from which other workers go on."""
    serial = Outcome(tmp_path / "serial")
    faults = Faults(kill_all=(40,), failed_starts=tuple(range(num_workers, 100)))
    run = Outcome(tmp_path / "run", workers=Fake(num_workers, faults=faults))
    assert isinstance(run.error, WorkerError)
    assert "workers in a row ended before they were ready" in str(run.error)
    assert run.executor.clock.now < 60
    step, *_ = checkpoint.load(tmp_path / "run" / "checkpoints")
    assert step > 0
    known = sum(len(record.reply.values) for record in records(tmp_path / "run"))
    executor = Fake(num_workers)
    zoo.resume(tmp_path / "run", objectives.wave, workers=executor)
    assert run.digest == serial.digest
    assert run.metrics == serial.metrics
    assert sum(last - first for _, first, last, _ in executor.transport.evaluated) == 200 - known


def states(case, executor):
    """Return the digests of all states and values of 20 steps, or of as many as take a short time."""
    method, key, found = case.build(), Key(0), []
    with executor.open(as_objective(objectives.wave)):
        state = method.init(START, key=key.fold("search"))
        for step in range(8 if case.method == "gp" else 20):
            state, evaluations = executor.step(method, state, method.ask(state), key.fold("evaluation"), step)
            found.append(digest((state, evaluations.values)))
    return found


@all_methods
def test_row_16_any_number_of_workers_dispatches_of_any_size_and_any_order(case):
    expected = states(case, Serial())
    faults = Faults(delay=0.1, duplicate=0.1, cut=0.1, together=0.05)
    forms = [*itertools.product((1, 2, 3), (1, 7, 25), (False,)), (1, 7, True), (2, 1, True), (3, 25, True)]
    for seed, (num_workers, size, replicated) in enumerate(forms):
        executor = Fake(num_workers, seed=seed, seconds=0.1 / size, faults=faults, replicated=replicated)
        assert states(case, executor) == expected, (num_workers, size, replicated)


@all_methods
def test_row_17_stopped_after_each_of_20_steps(case, tmp_path):
    """Resumed with another number of workers each time: the same state, and the same lines in the log."""

    def after(steps):
        left = iter(range(steps))

        def stop(x):
            if next(left) == steps - 1:
                raise StopIteration

        return stop

    options = {"method": case.method, "options": case.options, "budget": 100_000}
    serial = Outcome(tmp_path / "serial", callback=after(20), **options)
    run = Outcome(tmp_path / "run", callback=after(1), workers=Fake(2), **options)
    for step in range(1, 20):
        executor = Fake(1 + step % 3, seed=step, seconds=0.01, replicated=step % 2 == 0)
        run.result = zoo.resume(run.path, objectives.wave, workers=executor, callback=after(1))
        assert run.result.nit == step + 1
    run.assert_same(serial)


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_row_18_what_is_answered_twice_or_late_counts_once(tmp_path, num_workers, replicated):
    """All replies come twice, 50 evaluations are slow, and some answers come while their worker is ended."""
    serial = Outcome(tmp_path / "serial", budget=400)
    slow = {(step, step % 8): 7.0 for step in range(50)}
    faults = Faults(duplicate=1.0, slow=slow, late=1.0)
    executor = Fake(num_workers, faults=faults, replicated=replicated, timeout=5.0)
    run = Outcome(tmp_path / "run", workers=executor, budget=400)
    run.assert_same(serial)
    run.assert_accounted()
    assert len(executor.transport.slow) == 0
    assert run.result.account["restarts"] >= 5
    assert run.result.account["speculated"] > 0 or num_workers == 1


def test_a_run_without_faults_has_an_empty_account(tmp_path):
    """So that none of the above is found where nothing happened."""
    run = Outcome(tmp_path / "run", workers=Fake(2))
    account = Account(**{name: value for name, value in run.result.account.items() if name != "evaluations"})
    assert account == Account()
    assert [event["event"] for event in run.events] == ["ended"]
    assert account.sent > 0 < account.received
