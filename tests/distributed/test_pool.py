"""The scheduler on a fake transport: whatever dies, comes late or twice, the values stay the same."""

import contextlib
import itertools
import signal
from collections import Counter

import numpy as np
import pytest

from tests.distributed import objectives
from tests.distributed.fake import Fake, Faults
from tests.distributed.objectives import points
from zoo.core.errors import EvaluationError, Interrupt, WorkerError, ZooWarning
from zoo.core.objective import Objective, as_objective
from zoo.core.rng import Key
from zoo.core.types import Reply
from zoo.execution import crew, interrupts
from zoo.execution.executor import Serial
from zoo.execution.ledger import Account, Ledger
from zoo.execution.units import Pace

WAVE = as_objective(objectives.wave)
UNITS = 24
STALE = "it was ended, still at what others had done meanwhile"


class Run:
    """Some steps of an executor, and everything there is to know about them."""

    def __init__(self, executor, objective=WAVE, steps=3, known=(), **options):
        self.executor, self.account, self.events, self.records = executor, Account(), [], []
        self.values, self.failures = [], []
        with executor.open(objective):
            for step in range(steps):
                candidates = points(UNITS, seed=step)
                ledger = Ledger(
                    objective.units(candidates),
                    known=known if step == 0 else (),
                    record=self.records.append,
                    event=self.events.append,
                    account=self.account,
                    **options,
                )
                done = executor.evaluate(candidates, Key(1), step, ledger)
                self.values.append(done.values)
                self.failures += [(step, f.row, f.kind) for f in done.failures]

    @property
    def digest(self):
        return b"".join(values.tobytes() for values in self.values)

    def count(self, event):
        return sum(entry["event"] == event for entry in self.events)


def serial(objective=WAVE, **options):
    return Run(Serial(), objective, **options).digest


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("seconds", [1e-6, 0.03, 5.0])
def test_same_bytes_in_any_order(num_workers, seconds):
    for objective in (WAVE, objectives.Batches()):
        expected = serial(objective)
        for seed in range(4):
            faults = Faults(duplicate=0.3, delay=0.2)
            run = Run(Fake(num_workers, seed=seed, seconds=seconds, faults=faults), objective)
            assert run.digest == expected
            assert run.account == Account()
            assert sum(len(record.values) for record in run.records) == 3 * UNITS


FAULTS = {
    "before": Faults(kill_before=(3,)),
    "after": Faults(kill_after=(3,)),
    "idle": Faults(kill_idle=(3,)),
    "first": Faults(kill_before=(0,)),
    "twice": Faults(kill_before=(3,), kill_after=(4,)),
    "again and again": Faults(kill_before=(2, 5, 9, 14), kill_after=(7, 20), kill_idle=(11,)),
    "all": Faults(kill_all=(5,)),
    "all, in turn": Faults(kill_all=(5, 12, 30)),
    "start": Faults(failed_starts=(0, 1), kill_before=(4,)),
    "starts": Faults(failed_starts=(0, 1, 4, 6), kill_before=(4, 8)),
    "everything": Faults(
        kill_before=(4,), kill_after=(9,), failed_starts=(2,), duplicate=0.4, delay=0.3, cut=0.5
    ),
    "cut": Faults(kill_before=(3, 8), kill_after=(5,), cut=0.9),
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_deaths_change_nothing(num_workers, faults):
    expected = serial()
    for seed in range(5):
        # Some of these hit the same unit time and again; that does not make it poison.
        run = Run(Fake(num_workers, seed=seed, faults=faults, max_attempts=7))
        assert run.digest == expected
        assert run.failures == []
        assert run.account.restarts == run.count("worker lost") == run.count("worker restarted") >= 1
        assert run.account.lost == sum(e["units"] for e in run.events if e["event"] == "worker lost")
        assert run.account.retries == 0
        assert sorted(row for record in run.records for row in range(record.start, record.stop)) == sorted(
            3 * list(range(UNITS))
        )
        assert run.executor.transport.closed


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("seconds", [1e-6, 0.03])
def test_what_is_left_of_a_dispatch_is_issued_again(num_workers, seconds):
    for objective in (WAVE, objectives.Batches()):
        expected = serial(objective)
        for seed in range(4):
            faults = Faults(cut=0.7, duplicate=0.3, delay=0.2)
            run = Run(Fake(num_workers, seed=seed, seconds=seconds, faults=faults), objective)
            assert run.digest == expected
            assert run.account == Account()
            done = sorted(unit for first, last in run.executor.transport.done for unit in range(first, last))
            assert done == sorted(3 * list(range(len(objective.units(points(UNITS))) - 1)))


def test_what_is_left_of_a_dispatch_is_not_suspect():
    """A worker returns a part, and dies under its next dispatch."""
    faults = Faults(cut=1.0, poison=((2, 20),))
    run = Run(Fake(1, seconds=0.005, faults=faults, max_attempts=1))
    assert run.failures == [(2, 20, "crashed")]
    lost = [unit for first, last in run.executor.transport.lost for unit in range(first, last)]
    assert run.account.lost == len(lost) < 20


def test_a_worker_that_does_nothing():
    class Idle(Objective):
        def evaluate_units(self, candidates, boundaries, *, key, step, limit):
            return Reply(boundaries[0], np.empty(0))

    for executor in (Fake(2), Serial()):
        with pytest.raises(RuntimeError, match="must return the values of at least one unit"):
            Run(executor, Idle())


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("seconds", [1e-6, 0.03])
def test_poison_is_given_up_after_three_solitary_attempts(num_workers, seconds):
    poison = ((0, 0), (1, 7), (1, 8), (2, UNITS - 1))
    for seed in range(5):
        executor = Fake(num_workers, seed=seed, faults=Faults(poison=poison), seconds=seconds)
        run = Run(executor)
        expected = np.frombuffer(serial()).reshape(3, UNITS).copy()
        for step, unit in poison:
            expected[step, unit] = np.nan
        assert run.digest == expected.tobytes()
        assert run.failures == [(step, unit, "crashed") for step, unit in poison]
        assert run.count("quarantined") == 4
        # Three deaths alone for each, and some before it was known whose fault it was.
        assert 12 <= run.account.restarts <= 16


def test_poison_does_not_blame_its_neighbours():
    """A worker has two dispatches of several units when it dies; only attempts alone count."""
    executor = Fake(2, faults=Faults(poison=((2, 5),)), max_attempts=1, seconds=1e-6)
    run = Run(executor)
    assert run.failures == [(2, 5, "crashed")]
    deaths = [entry for entry in executor.transport.evaluated if entry[1] <= 5 < entry[2]][-1]
    assert deaths[1:] == (5, 6, True)


def test_suspects_are_alone_on_their_worker():
    for seed in range(10):
        run = Run(Fake(2, seed=seed, faults=Faults(kill_before=(4,)), seconds=0.01), steps=1)
        transport = run.executor.transport
        suspects = {unit for first, last in transport.lost for unit in range(first, last)}
        assert run.account.lost == len(suspects) > 1
        alone = {first for _, first, last, alone in transport.evaluated if alone and last == first + 1}
        assert suspects <= alone


def test_all_units_poisonous():
    with pytest.raises(
        WorkerError, match="no evaluation has succeeded yet; the last one: killed by the test"
    ):
        Run(Fake(2, faults=Faults(poison=tuple((0, unit) for unit in range(UNITS)))))
    # Not so late in a run: then they are failed evaluations, and what follows is for the run to decide.
    run = Run(Fake(2, faults=Faults(poison=tuple((2, unit) for unit in range(UNITS)))), succeeded=True)
    assert np.isnan(run.values[2]).all()
    assert np.isfinite(run.values[1]).all()


def test_workers_that_never_start():
    with pytest.raises(
        WorkerError, match="3 workers in a row ended before they were ready, the last one: killed"
    ):
        Run(Fake(2, faults=Faults(failed_starts=tuple(range(10)))))
    executor = Fake(2)
    with pytest.raises(WorkerError, match="libfoo"):
        Run(executor, objectives.Unloadable())
    assert executor.transport.closed


def test_long_silence_is_warned_of(monkeypatch):
    monkeypatch.setattr(crew, "_PATIENCE_SECONDS", 0.0)
    with pytest.warns(ZooWarning, match="no worker has got ready"):
        Run(Fake(2, faults=Faults(delay=0.9)))


def test_dispatches():
    """Single units while nothing is known, then worth a tenth of a second, then fair shares of the rest."""
    run = Run(Fake(2, seconds=0.03), steps=2)
    sizes = [last - first for _, first, last, _ in run.executor.transport.evaluated]
    assert sizes[0] == 1
    assert max(sizes) == 3
    assert sizes[-1] == 1
    assert run.executor.transport.most == 2
    # So short that it is not worth while to share them out.
    run = Run(Fake(2, seconds=1e-7), steps=2)
    assert [entry[1:3] for entry in run.executor.transport.evaluated][-1] == (0, UNITS)
    run = Run(Fake(2, seconds=7.0), steps=2)
    assert {last - first for _, first, last, _ in run.executor.transport.evaluated} == {1}


def test_a_slow_first_call_is_forgotten():
    pace = Pace()
    for seconds in [3.0, *[1e-5] * 12]:
        pace.learn(seconds)
    assert pace.seconds < 2e-5
    assert pace.usual == 1e-5


def test_known_units_are_not_evaluated_again():
    values = np.arange(8.0)
    known = [Reply(3, values[:5]), Reply(20, values[5:])]
    run = Run(Fake(2), steps=1, known=known)
    evaluated = Counter(u for _, a, b, _ in run.executor.transport.evaluated for u in range(a, b))
    assert evaluated == Counter([*range(3), *range(8, 20), 23])
    assert run.values[0][3:8].tolist() == values[:5].tolist()
    assert run.values[0][20:23].tolist() == values[5:].tolist()
    whole = Run(Fake(2), steps=1, known=[Reply(0, np.arange(float(UNITS)))])
    assert whole.executor.transport.dispatches == 0


def raising(x):
    if x[0] in (7, 13):
        raise ValueError(f"row {x[0]:g}")
    return objectives.wave(x)


def raising_from_the_start(x):
    if x[0] < 2:
        return float("nan")
    raise ValueError(f"row {x[0]:g}")


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_exceptions(num_workers):
    expected = serial(as_objective(raising))
    for seed in range(5):
        executor = Fake(num_workers, seed=seed, faults=Faults(duplicate=0.5, delay=0.2))
        run = Run(executor, as_objective(raising))
        assert run.digest == expected
        assert run.failures == [(step, row, "raised") for step in range(3) for row in (7, 13)]
        assert run.account.retries == run.count("evaluation raised") == 6
        evaluated = Counter(u for _, a, b, _ in executor.transport.evaluated for u in range(a, b))
        assert evaluated == Counter({u: 6 if u in (7, 13) else 3 for u in range(UNITS)})


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_exceptions_that_end_the_run(num_workers):
    """The same one is named in whatever order the replies come."""
    for seed in range(8):
        faults = Faults(duplicate=0.5, delay=0.2, kill_before=(6,))
        with pytest.raises(EvaluationError, match="evaluation 7 raised twice: ValueError: row 7") as caught:
            Run(Fake(num_workers, seed=seed, faults=faults), as_objective(raising), on_error="raise")
        assert caught.value.evaluation == 7
        assert "in raising" in caught.value.details
        for on_error in ("nan", "raise"):
            with pytest.raises(EvaluationError, match="evaluation 2 raised, and none before it had a value"):
                Run(
                    Fake(num_workers, seed=seed, faults=faults),
                    as_objective(raising_from_the_start),
                    on_error=on_error,
                )


def test_wrong_length_of_a_batch():
    def short(x):
        return x[:, 0] if x[0, 0] < 10 else x[1:, 0]

    objective = as_objective(short, vectorized=True)
    objective.unit = 4
    run = Run(Fake(2, seed=3), objective, steps=1)
    expected = np.arange(float(UNITS))
    expected[12:] = np.nan
    assert run.values[0].tobytes() == expected.tobytes()
    assert {kind for _, _, kind in run.failures} == {"raised"}
    with pytest.raises(EvaluationError, match=r"evaluation 12 raised twice: .*shape \(4,\).*got \(3,\)"):
        Run(Fake(2, seed=3), objective, on_error="raise")


def test_an_abandoned_step_is_forgotten():
    """Replies to a step that was left by an exception do not count in the next one."""
    executor = Fake(2, faults=Faults(delay=0.3))
    objective = as_objective(objectives.raises_at_seven)
    with executor.open(objective):
        for step in range(6):
            ledger = Ledger(range(UNITS + 1), on_error="raise")
            with pytest.raises(EvaluationError):
                executor.evaluate(points(UNITS, seed=step), Key(1), step, ledger)
            # Whatever the first step left under way comes in during this one.
            candidates = points(7, seed=50 + step)
            values = executor.evaluate(candidates, Key(1), step).values
            assert values.tolist() == [objectives.wave(x) for x in candidates.array]


def test_death_under_an_abandoned_step_is_nobodys_fault():
    def account(**faults):
        executor = Fake(1, faults=Faults(**faults), max_attempts=1)
        ledger = Ledger(range(3))
        with executor.open(as_objective(objectives.raises_at_seven)):
            with pytest.raises(EvaluationError):
                executor.evaluate(points(UNITS), Key(1), 0, Ledger(range(UNITS + 1), on_error="raise"))
            last = executor.transport.dispatches - 1  # given to the worker in that step, and not done in it
            values = executor.evaluate(points(2, seed=1), Key(1), 1, ledger).values
        assert values.tolist() == [objectives.wave(x) for x in points(2, seed=1).array]
        assert not ledger.evaluations().failures
        return last, ledger.account

    last, undisturbed = account()
    assert undisturbed == Account()
    assert account(kill_before=(last,)) == (last, Account(restarts=1))


def assert_all_serve(executor):
    """Every worker that is up takes part in a long step, whose values are right."""
    candidates, before = points(100, seed=9), len(executor.transport.evaluated)
    values = executor.evaluate(candidates, Key(1), 9).values
    assert values.tolist() == [objectives.wave(x) for x in candidates.array]
    assert {worker for worker, *_ in executor.transport.evaluated[before:]} >= set(executor.pids())


def test_death_between_steps_is_nobodys_fault():
    executor, account = Fake(2, seconds=3.0, max_attempts=1), Account()
    with executor.open(WAVE):
        for step in range(4):
            ledger = Ledger(range(UNITS + 1), account=account)
            done = executor.evaluate(points(UNITS, seed=step), Key(1), step, ledger)
            assert not done.failures
            for worker in executor.pids():
                executor.transport.die(worker)
    assert account == Account(restarts=6)


def test_what_is_heard_along_with_the_end_of_a_step():
    """A death, a start or an answer may be told together with the one that ends the step."""

    def objective(x):
        if x[0] == 200:
            raise ValueError("200")
        return objectives.wave(x)

    for seed in range(20):
        faults = Faults(kill_before=(7, 8, 9, 14, 15, 16), duplicate=0.2, together=0.3)
        executor = Fake(3, seed=seed, faults=faults, max_attempts=9)
        with executor.open(as_objective(objective)):
            for step in range(3):
                candidates = points(UNITS, seed=step)
                candidates.array[7, 0] = 200
                with pytest.raises(EvaluationError):
                    executor.evaluate(candidates, Key(1), step, Ledger(range(UNITS + 1), on_error="raise"))
            assert_all_serve(executor)


@contextlib.contextmanager
def interrupted(executor, poll):
    """Have a signal ask to stop during a poll, and take note when that is."""
    polls, when = iter(range(10**6)), []

    def stop():
        if next(polls) == poll:
            when.append(executor.clock.now)
            signal.raise_signal(signal.SIGTERM)

    executor.faults.on_poll = stop
    with interrupts.handled():
        yield when


def test_interrupt_keeps_what_was_evaluated():
    executor, records = Fake(2), []
    ledger = Ledger(range(UNITS + 1), record=records.append)
    with executor.open(WAVE), interrupted(executor, 5), pytest.raises(Interrupt):
        executor.evaluate(points(UNITS), Key(1), 0, ledger)
    assert executor.transport.closed
    values = np.concatenate([record.values for record in records])
    assert 0 < len(values) < UNITS
    again = Run(Fake(2), steps=1, known=records)
    assert again.digest == serial(steps=1)


def test_an_interrupt_waits_for_answers_but_not_for_long():
    for hang, poll in itertools.product(((), ((0, 3),)), range(4, 18)):
        executor = Fake(2, seed=poll, seconds=0.2, faults=Faults(hang=hang))
        with executor.open(WAVE), interrupted(executor, poll) as when:
            with pytest.raises(Interrupt):
                executor.evaluate(points(UNITS), Key(1), 0)
            # A poll may end .2 s later, and evaluations take .3 s on their way; some never come.
            waited = executor.clock.now - when[0]
            assert waited <= (0.7 if hang else 0.5) + 1e-9


def test_after_an_interrupt_the_workers_serve_on():
    """What is heard while the last answers are waited for is not forgotten."""
    for seed, poll in itertools.product(range(3), range(3, 13)):
        executor = Fake(2, seed=seed, seconds=0.2, faults=Faults(failed_starts=(1,), kill_before=(2, 4)))
        with executor.open(WAVE):
            with interrupted(executor, poll), pytest.raises(Interrupt):
                executor.evaluate(points(UNITS), Key(1), 0)
            executor.faults.on_poll = lambda: None
            assert_all_serve(executor)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_deadlines(num_workers):
    """Two units hang, wherever they are: among others or alone, at the start or at the end."""
    hang = ((0, 3), (2, UNITS - 1))
    expected = np.frombuffer(serial()).reshape(3, UNITS).copy()
    expected[0, 3] = expected[2, -1] = np.nan
    for seconds in (0.001, 0.03, 0.3):
        for seed in range(4):
            executor = Fake(num_workers, seed=seed, seconds=seconds, faults=Faults(hang=hang), timeout=2.0)
            run = Run(executor)
            assert run.digest == expected.tobytes()
            assert run.failures == [(0, 3, "hung"), (2, UNITS - 1, "hung")]
            assert run.count("quarantined") == run.account.quarantined == 2
            reasons = {e["reason"] for e in run.events if e["event"] == "worker lost"}
            assert any("more than 2 s" in reason for reason in reasons)
            assert all("more than" in reason or reason == STALE for reason in reasons)
            # Each hangs at least once, at most among others and alone, and beside each a copy.
            assert 2 <= run.account.restarts == len(executor.transport.ended) <= 8
            assert executor.clock.now < 60


def test_what_is_answered_although_its_worker_was_ended():
    """The answer counts, and what was under way behind it is not forgotten."""
    slow = {(0, 4): 30.0, (1, 9): 30.0, (1, 10): 30.0, (2, UNITS - 1): 30.0}
    for seed in range(20):
        faults = Faults(slow=slow, late=1.0)
        run = Run(Fake(2, seed=seed, seconds=0.02, faults=faults, timeout=3.0))
        assert run.digest == serial()
        assert run.failures == []
        assert run.account.restarts >= 1
        run = Run(Fake(2, seed=seed, seconds=0.02, faults=Faults(slow=slow, late=0.5), timeout=3.0))
        known = np.isfinite(np.frombuffer(run.digest))
        assert (np.frombuffer(run.digest)[known] == np.frombuffer(serial())[known]).all()
        assert {(step, row) for step, row, kind in run.failures if kind == "hung"} <= slow.keys()
        assert len(run.failures) == (~known).sum()


def test_time_to_bring_a_step_to_a_worker_is_not_that_of_a_unit():
    late = Faults(slow={(0, 0): 1.5})
    assert Run(Fake(1, faults=late, timeout=1.0)).failures == []
    late = Faults(slow={(0, 0): 2.5, (1, UNITS - 1): 1.5})
    assert Run(Fake(1, faults=late, timeout=1.0)).failures == [(0, 0, "hung"), (1, UNITS - 1, "hung")]


def test_time_in_which_the_driver_was_halted_does_not_count():
    executor = Fake(2, timeout=1.0)
    polls = iter(range(10**6))

    def halt():
        if next(polls) % 7 == 6:
            executor.clock.now += 500.0

    executor.faults.on_poll = halt
    run = Run(executor)
    assert run.digest == serial()
    assert run.failures == []
    assert executor.clock.now > 1000


def test_stragglers_are_given_to_another_worker():
    """Twice the first time, and what waits behind them; the first answer counts."""
    slow = {(0, 22): 900.0, (1, 5): 900.0, (2, 7): 900.0}
    for num_workers in (2, 3):
        for seed in range(5):
            executor = Fake(num_workers, seed=seed, faults=Faults(slow=slow, duplicate=0.3))
            run = Run(executor)
            assert run.digest == serial()
            assert run.account.speculated == sum(e["units"] for e in run.events if e["event"] == "speculated")
            assert run.account.speculated >= 3
            assert sum(len(record.values) for record in run.records) == 3 * UNITS
            assert executor.clock.now < 100
            # A worker may go on with what others have done for ten seconds, and is then replaced.
            reasons = {e["reason"] for e in run.events if e["event"] == "worker lost"}
            assert reasons <= {STALE}
            assert run.account.lost == run.account.quarantined == 0
    alone = Fake(1, faults=Faults(slow=slow))
    assert Run(alone).digest == serial()
    assert alone.clock.now > 2700


@pytest.mark.parametrize(
    "faults",
    [
        {"kill_before": tuple(range(12, 60, 5))},
        {"kill_after": tuple(range(13, 60, 6))},
        {"cut": 0.9},
        {"cut": 0.5, "duplicate": 0.5, "kill_before": (15, 30), "kill_after": (20, 40)},
    ],
    ids=["deaths", "late deaths", "parts", "everything"],
)
def test_stragglers_and_their_copies_under_faults(faults):
    slow = {(step, unit): 20.0 for step in range(3) for unit in (6, 7, 15, 16, 17, 22)}
    for num_workers in (2, 3):
        for timeout in (None, 5.0):
            for seed in range(6):
                executor = Fake(
                    num_workers,
                    seed=seed,
                    seconds=0.02,
                    faults=Faults(slow=slow, late=0.3, **faults),
                    timeout=timeout,
                    max_attempts=9,
                )
                run = Run(executor)
                values = np.frombuffer(run.digest)
                hung = {(step, row) for step, row, kind in run.failures if kind == "hung"}
                assert len(hung) == len(run.failures) == np.isnan(values).sum()
                assert not hung if timeout is None else hung <= slow.keys()
                known = np.isfinite(values)
                assert (values[known] == np.frombuffer(serial())[known]).all()
                assert sum(len(record.values) for record in run.records) == 3 * UNITS


def test_exceptions_of_a_straggler_and_its_copy():
    """Both raise, which is no more than the retry that there is anyway."""
    objective = as_objective(raising)
    expected = serial(objective)
    slow = {(step, unit): 20.0 for step in range(3) for unit in (7, 13)}
    for seed in range(10):
        run = Run(Fake(2, seed=seed, faults=Faults(slow=dict(slow))), objective)
        assert run.digest == expected
        assert run.failures == [(step, row, "raised") for step in range(3) for row in (7, 13)]
        assert run.account.retries == 6
        with pytest.raises(EvaluationError, match="evaluation 7 raised twice"):
            Run(Fake(2, seed=seed, faults=Faults(slow=dict(slow))), objective, on_error="raise")


def test_stragglers_that_end_their_worker():
    """A unit is given up after three deaths, be they its own or its copy's."""
    for seed in range(10):
        poison = {(0, 20), (1, 3)}
        faults = Faults(poison=tuple(poison), slow=dict.fromkeys(poison, 20.0))
        run = Run(Fake(3, seed=seed, faults=faults))
        assert run.failures == [(0, 20, "crashed"), (1, 3, "crashed")]
        assert run.account.quarantined == 2
        assert 6 <= run.account.restarts <= 12


def test_no_worker_waits_behind_the_first_evaluation_of_all():
    executor = Fake(2, seconds=60.0)
    with executor.open(WAVE):
        executor.evaluate(points(3), Key(1), 0)
    assert executor.transport.most == 1
    assert executor.clock.now < 200


def test_shares_of_busy_time():
    for num_workers in (1, 2, 3):
        for faults in (Faults(), Faults(kill_before=(9, 17), kill_after=(12,), duplicate=0.3, cut=0.3)):
            run = Run(Fake(num_workers, faults=faults), steps=6)
            assert len(run.account.busy) == num_workers
            assert all(0.3 < share <= 1 for share in run.account.busy)
    executor, ledger = Fake(2), Ledger(range(2))
    with executor.open(WAVE):
        executor.evaluate(points(1), Key(1), 0, ledger)
    assert min(ledger.account.busy) == 0


def test_bytes_on_their_way():
    account = Run(Fake(2)).account
    assert account.sent > 2 * 3 * UNITS * 5 * 8  # every step to every worker
    assert account.received > 3 * UNITS * 8


def test_silence_later_on_is_warned_of(monkeypatch):
    monkeypatch.setattr(crew, "_PATIENCE_SECONDS", 0.1)
    with pytest.warns(ZooWarning, match="no worker has got ready") as caught:
        assert Run(Fake(1, seed=3, faults=Faults(kill_all=(5, 20)))).digest == serial()
    assert len(caught) == 3


def test_as_many_workers_may_fail_to_start_as_there_are():
    run = Run(Fake(6, faults=Faults(failed_starts=(0, 1, 2, 3, 4, 5))))
    assert run.digest == serial()
    assert run.account == Account(restarts=6)
    with pytest.raises(WorkerError, match="7 workers in a row"):
        Run(Fake(6, faults=Faults(failed_starts=tuple(range(7)))))


def test_what_cannot_be_loaded_cannot_be_loaded_the_second_time():
    executor = Fake(2)
    with executor.open(objectives.Unloadable()):
        for step in range(3):
            with pytest.raises(WorkerError, match="libfoo"):
                executor.evaluate(points(), Key(0), step)


def test_outside_of_open():
    with pytest.raises(RuntimeError, match="inside"):
        Fake(2).evaluate(points(), Key(0), 0)
    assert Fake(2).pids() == []
