"""The replicated step: workers run the method themselves, and the bytes stay those of `Serial`."""

import itertools
import json
import warnings
import zlib

import numpy as np
import pytest

import zoo
from tests.cases import CASES
from tests.distributed import objectives
from tests.distributed.fake import Fake, Faults
from tests.distributed.test_pool import interrupted
from zoo.core.errors import Interrupt, WorkerError, ZooWarning
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.execution import replicas
from zoo.execution.executor import Serial
from zoo.execution.ledger import Ledger
from zoo.registry import find
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events

START = np.array([0.75, -1.5, 2.0, 0.25])
LONG = np.linspace(-1.0, 1.0, 9000)  # of which a state takes more than is compared at every step

all_methods = pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)


class Search:
    """A method's way on an executor that is open."""

    def __init__(self, executor, method="cma", x0=START, options=None):
        self.executor, self.method, self.key = executor, find(method).build(options or {}), Key(0)
        self.state = self.method.init(x0, key=self.key.fold("search"))
        self.step, self.digests, self.failures, self.events = 0, [], [], []

    def run(self, steps):
        for _ in range(steps):
            candidates = self.method.ask(self.state)
            units = self.executor._objective.units(candidates)
            ledger = Ledger(units, event=self.events.append, succeeded=True)
            self.state, evaluations = self.executor.step(
                self.method, self.state, candidates, self.key.fold("evaluation"), self.step, ledger
            )
            self.digests.append(digest((self.state, evaluations.values)))
            self.failures += [(self.step, failure.row, failure.kind) for failure in evaluations.failures]
            self.step += 1
        return self


def run(executor, steps=20, fun=objectives.wave, **arguments):
    with executor.open(as_objective(fun)):
        return Search(executor, **arguments).run(steps)


def told(executor):
    """Return how many steps workers were told at once, in order; None where they were sent the state.

    They must be told what they missed if that is kept, and be sent the state otherwise.
    """
    reached, found = {}, []
    for worker, step, count in executor.transport.begun:
        behind = step - reached.get(worker, -100)
        assert count == (behind if behind <= replicas._BEHIND else None)
        reached[worker] = step
        found.append(count)
    return found


@all_methods
@pytest.mark.parametrize("num_workers", [1, 2])
def test_deaths_change_nothing(case, num_workers):
    expected = run(Serial(), method=case.method, options=case.options).digests
    faults = Faults(kill_before=(5, 18), kill_after=(12,), kill_all=(25,), duplicate=0.2, cut=0.2)
    executor = Fake(num_workers, seconds=0.02, faults=faults, replicated=True)
    assert run(executor, method=case.method, options=case.options).digests == expected
    assert told(executor).count(1) > 10


@all_methods
def test_large_states(case):
    """States of which nothing is compared but at every tenth step."""
    # Those of some grow faster, and so does their work.
    short = find(case.method).dims[1] <= 10_000
    x0 = LONG[::90] if short else LONG
    arguments = {"method": case.method, "x0": x0, "options": case.options}
    expected = run(Serial(), 11, **arguments)
    executor = Fake(2, faults=Faults(kill_before=(7,)), replicated=True)
    assert run(executor, 11, **arguments).digests == expected.digests
    told(executor)
    size = sum(array.nbytes for array in freeze(expected.state)[1].values())
    assert size > replicas._SMALL or (short and case.method != "cma")


def test_workers_that_fall_behind():
    """One worker does everything while evaluations are short, and dies; another one has to catch up."""
    found = set()
    for idle in range(1, 15):
        executor = Fake(2, replicated=True)
        with executor.open(as_objective(objectives.wave)):
            search = Search(executor)
            for _ in range(2):
                executor.transport.seconds = 1.0
                search.run(4)
                executor.transport.seconds = 1e-7
                search.run(idle)
                executor.transport.die(executor.transport.evaluated[-1][0])
        assert search.digests == run(Serial(), search.step).digests
        found.update(told(executor))
    assert found == {None, *range(1, replicas._BEHIND + 1)}


def test_another_state_than_expected():
    """One that was restored, another search, and an evaluation in between."""
    executor = Fake(2, replicated=True)
    with executor.open(as_objective(objectives.wave)):
        first, second = Search(executor), Search(executor, "zo-adam")
        first.run(4)
        tree, arrays = freeze(first.state)
        first.state = thaw(json.loads(json.dumps(tree)), arrays)
        first.run(4)
        for _ in range(3):
            first.run(1)
            second.run(2)
        executor.evaluate(objectives.points(), Key(7), 0)
        second.run(3)
        before = len(executor.transport.begun)
        second.run(3)
    assert first.digests == run(Serial(), 11).digests
    assert second.digests == run(Serial(), 12, method="zo-adam").digests
    assert {count for *_, count in executor.transport.begun[before:]} == {1}


def test_an_interrupted_step_is_begun_again():
    for poll in range(5, 25, 3):
        executor = Fake(2, seed=poll, seconds=0.02, replicated=True)
        with executor.open(as_objective(objectives.wave)):
            search = Search(executor)
            with interrupted(executor, poll), pytest.raises(Interrupt):
                search.run(20)
            executor.faults.on_poll = lambda: None
            search.run(20 - search.step)
        assert search.digests == run(Serial()).digests


def raising(x):
    kind = zlib.crc32(x.tobytes()) % 5
    if kind == 3:
        raise ArithmeticError(f"{x[0]}")
    return float("nan") if kind == 4 else objectives.wave(x)


@all_methods
def test_failed_evaluations_are_told_as_well(case):
    serial, executor = Serial(), Fake(2, faults=Faults(kill_before=(9,)), replicated=True)
    arguments = {"fun": raising, "method": case.method, "options": case.options}
    expected, found = run(serial, 15, **arguments), run(executor, 15, **arguments)
    assert found.digests == expected.digests
    assert found.failures == expected.failures != []


def test_poison_and_hangs():
    faults = Faults(poison=((2, 3),), hang=((4, 0),))
    executor = Fake(2, faults=faults, timeout=2.0, replicated=True)
    found = run(executor)
    assert found.failures == [(2, 3, "crashed"), (4, 0, "hung")]
    assert found.digests == run(Fake(2, faults=faults, timeout=2.0)).digests


@pytest.mark.parametrize("seconds", [1e-4, 0.02, 0.3])
def test_a_worker_that_drifts_is_warned_of_once_and_set_right(seconds, tmp_path):
    """It comes to another state three times; only the first one is news, as from then on it is sent all."""
    serial = tmp_path / "serial"
    zoo.minimize(objectives.wave, START, method="cma", budget=200, rng=0, out=serial)
    for seed, num_workers in itertools.product(range(3), (1, 2, 3)):
        faults = Faults(drift=((0, 3), (0, 5), (0, 9)), cut=0.2, duplicate=0.2)
        executor = Fake(num_workers, seed=seed, seconds=seconds, faults=faults, replicated=True)
        out = tmp_path / f"run{seed}{num_workers}"
        arguments = {"method": "cma", "budget": 200, "rng": 0, "out": out, "workers": executor}
        if num_workers == 1:
            with pytest.warns(ZooWarning, match="worker 0 came to another state .* at step 3") as caught:
                zoo.minimize(objectives.wave, START, **arguments)
        else:  # it may not take part in the very step in which it would have drifted
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                zoo.minimize(objectives.wave, START, **arguments)
        assert digest_of_run(out).total == digest_of_run(serial).total
        events = [event for event in read_events(out) if event["event"] == "worker drifted"]
        assert [event["worker"] for event in events] == [0] * len(caught)
        assert len(caught) == 1 or num_workers > 1
        forms = [count for worker, _, count in executor.transport.begun if worker == 0]
        if caught:
            step = next(i for i, count in enumerate(forms) if i and count is None)
            assert set(forms[step:]) == {None}
        assert all(count != 0 for count in forms)


def test_a_worker_that_drifts_is_replaced_like_any_other():
    faults = Faults(drift=((0, 3),), kill_before=(20,))
    executor = Fake(1, faults=faults, replicated=True)
    with pytest.warns(ZooWarning, match="came to another state"):
        assert run(executor).digests == run(Serial()).digests
    assert [count for worker, _, count in executor.transport.begun if worker == 1].count(1) > 3


def test_a_large_state_that_drifts_is_noticed_at_the_tenth_step():
    executor = Fake(1, faults=Faults(drift=((0, 4),)), replicated=True)
    with pytest.warns(ZooWarning, match="worker 0 came to another state .* at step 10") as caught:
        found = run(executor, 13, method="random-descent", x0=LONG)
    assert len(caught) == 1
    assert [event["event"] for event in found.events] == ["worker drifted"]
    assert [count for *_, count in executor.transport.begun] == [None, *[1] * 10, *[None] * 3]


def test_a_worker_on_which_the_same_bytes_are_another_state(monkeypatch):
    def spoilt(tree, arrays):
        next(iter(arrays.values()))[...] += 1.0
        return thaw(tree, arrays)

    monkeypatch.setattr(replicas, "thaw", spoilt)
    executor = Fake(2, replicated=True)
    with (
        pytest.warns(ZooWarning, match="came to another state"),
        pytest.raises(WorkerError, match="was sent the state of the run, and still evaluates another one"),
    ):
        run(executor)


def test_only_values_travel():
    arguments = {"steps": 6, "method": "sep-cma", "x0": LONG}
    expected = run(Serial(), **arguments).digests
    plain, replicated = Fake(2), Fake(2, replicated=True)
    assert run(plain, **arguments).digests == run(replicated, **arguments).digests == expected
    rows = 6 * 31 * LONG.nbytes
    assert plain.transport.sent > rows
    # The first state once for both, and then some numbers a step for each.
    assert replicated.transport.sent < 0.05 * rows
    assert replicated.transport.received < 1.2 * plain.transport.received  # with the digest of a state
