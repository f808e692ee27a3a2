"""Evaluation in this process, by ourselves and through the user's own map."""

import concurrent.futures
import signal
import time

import numpy as np
import pytest

from zoo.core.errors import EvaluationError, Interrupt
from zoo.core.objective import Objective, as_objective
from zoo.core.rng import Key
from zoo.core.types import Reply, Rows
from zoo.execution import interrupts
from zoo.execution.executor import Mapped, Serial
from zoo.execution.ledger import Ledger
from zoo.execution.processes import Processes


def points(n=20, dim=3):
    return Rows(np.arange(float(n * dim)).reshape(n, dim))


def total(x):
    return float(x.sum())


class Noisy(Objective):
    unit = 7

    def __call__(self, x, *, key):
        return x.sum(1) + key.normal(0, 1, 1)[0, 0] + len(x)


def backwards(function, items):
    return [function(item) for item in reversed(list(items))]


@pytest.mark.parametrize("executor", [Serial(), Mapped(map), Mapped(backwards)])
def test_values(executor):
    with executor.open(as_objective(total)):
        for n in (0, 1, 20):
            assert executor.evaluate(points(n), Key(0), 0).values.tolist() == points(n).array.sum(1).tolist()
    with pytest.raises(RuntimeError, match=r"inside `with executor\.open"):
        executor.evaluate(points(), Key(0), 0)


def test_units_key_and_step_decide():
    values = []
    for executor in (Serial(), Mapped(map), Mapped(backwards)):
        with executor.open(Noisy()):
            values.append(
                [executor.evaluate(points(), Key(k), s).values.tobytes() for k in (0, 1) for s in (0, 1)]
            )
    assert values[0] == values[1] == values[2]
    assert len(set(values[0])) == 4


def test_pools_of_others():
    objective = as_objective(total)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        executor = Mapped(threads.map)
        with executor.open(objective):
            assert executor.evaluate(points(), Key(0), 0).values.tolist() == points().array.sum(1).tolist()


def test_maps_that_are_none():
    objective = as_objective(total)
    executor = Mapped(lambda function, items: [function(items[0])])
    with executor.open(objective), pytest.raises(RuntimeError, match="got 1 for 20"):
        executor.evaluate(points(), Key(0), 0)
    executor = Mapped(lambda function, items: [1.0])
    with executor.open(objective), pytest.raises(TypeError, match=r"as `map` does; one of them is 1\.0"):
        executor.evaluate(points(), Key(0), 0)


@pytest.mark.parametrize("executor", [Serial(), Mapped(map), Mapped(backwards)])
def test_exceptions(executor):
    calls = []

    def function(x):
        calls.append(int(x[0]))
        if x[0] in (9, 15):
            raise ValueError(f"at {x[0]:g}")
        return x[0]

    candidates = points(8)
    with executor.open(as_objective(function)):
        values = executor.evaluate(candidates, Key(0), 0).values
        assert np.flatnonzero(np.isnan(values)).tolist() == [3, 5]
        assert sorted(calls) == sorted([*range(0, 24, 3), 9, 15])
        with pytest.raises(EvaluationError, match="evaluation 3 raised twice: ValueError: at 9"):
            executor.evaluate(candidates, Key(0), 0, Ledger(range(9), on_error="raise"))


def test_the_first_exception_is_raised_at_once():
    calls = []

    def function(x):
        calls.append(x[0])
        raise KeyError("no")

    executor = Serial()
    with executor.open(as_objective(function)), pytest.raises(EvaluationError, match="KeyError") as caught:
        executor.evaluate(points(), Key(0), 0)
    assert len(calls) == 1
    assert "in function" in caught.value.details


def test_records_come_early():
    """The first call is on record before the second, and later ones are not each on their own."""
    records = []
    executor = Serial()
    with executor.open(as_objective(total)):
        executor.evaluate(points(500), Key(0), 0, Ledger(range(501), record=records.append))
    assert len(records[0].values) == 1
    assert len(records) < 100
    assert sum(len(record.values) for record in records) == 500


def test_known_values_are_not_evaluated():
    calls = []

    def function(x):
        calls.append(int(x[0]))
        return 0.0

    for executor in (Serial(), Mapped(map)):
        calls.clear()
        with executor.open(as_objective(function)):
            known = [Reply(2, np.ones(3))]
            values = executor.evaluate(points(8, 1), Key(0), 0, Ledger(range(9), known=known)).values
        assert values.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
        assert sorted(calls) == [0, 1, 5, 6, 7]


@pytest.mark.parametrize("executor", [Serial(), Mapped(map)])
def test_a_signal_during_an_evaluation(executor):
    """What was evaluated before it is on record; in this process it breaks into the call itself."""
    sent = []

    def function(x):
        if x[0] == 5 and not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)
        return x[0]

    records = []
    ledger = Ledger(range(9), record=records.append)
    with executor.open(as_objective(function)), interrupts.handled(), pytest.raises(Interrupt):
        executor.evaluate(points(8, 1), Key(0), 0, ledger)
    known = np.concatenate([record.values for record in records])
    assert known.tolist() == list(range(5 if isinstance(executor, Serial) else 6))
    # A later run takes up from there.
    with executor.open(as_objective(function)):
        assert executor.evaluate(points(8, 1), Key(0), 0, ledger).values.tolist() == list(range(8))


def test_a_signal_inside_a_batch():
    class Batch(Objective):
        unit = 4

        def __call__(self, x, *, key):
            if x[0, 0] == 4:
                signal.raise_signal(signal.SIGINT)
            return x[:, 0]

    records, executor = [], Serial()
    ledger = Ledger([0, 4, 8], record=records.append)
    with executor.open(Batch()), interrupts.handled(), pytest.raises(Interrupt):
        executor.evaluate(points(8, 1), Key(0), 0, ledger)
    assert [(record.start, record.stop) for record in records] == [(0, 4)]


@pytest.mark.parametrize("swallowed", [True, False])
def test_a_signal_that_has_become_a_value_is_not_on_record(swallowed):
    sent = []

    def function(x):
        try:
            if x[0] == 25 and not sent:
                sent.append(True)
                signal.raise_signal(signal.SIGINT)
        except:  # noqa: E722 - as people write it
            if not swallowed:
                raise
            return -1.0
        return x[0]

    records, executor = [], Serial()
    ledger = Ledger(range(41), record=records.append)
    with executor.open(as_objective(function)):
        with interrupts.handled(), pytest.raises(Interrupt):
            executor.evaluate(points(40, 1), Key(0), 0, ledger)
        values = np.concatenate([record.values for record in records])
        assert values.tolist() == list(range(len(values)))
        assert len(values) < 25 if swallowed else len(values) == 25
        assert executor.evaluate(points(40, 1), Key(0), 0, ledger).values.tolist() == list(range(40))


@pytest.mark.parametrize("executor", [Serial(), Mapped(map)])
def test_a_signal_to_a_run_inside_the_objective(executor):
    """Which ends in a `KeyboardInterrupt`, as inner runs do; without a signal it is the objective's own."""

    def function(x):
        with interrupts.handled():
            if signals:
                signal.raise_signal(signals[0])
            try:
                interrupts.check()
            except Interrupt:
                raise KeyboardInterrupt from None
        if x[0] == 5:
            raise KeyboardInterrupt
        return x[0]

    with executor.open(as_objective(function)), interrupts.handled():
        signals = []
        with pytest.raises(KeyboardInterrupt):
            executor.evaluate(points(8, 1), Key(0), 0)
        signals = [signal.SIGTERM]
        with pytest.raises(Interrupt):
            executor.evaluate(points(8, 1), Key(0), 0)
        assert interrupts.requested() == signal.SIGTERM


def test_what_is_done_is_put_on_record_when_the_objective_turns_slow():
    """At most one evaluation is not on record at any time, once they take longer than a dispatch."""
    ends = []
    unrecorded = []

    def function(x):
        unrecorded.append(len(ends) - sum(len(record.values) for record in records))
        if x[0] >= 200:
            time.sleep(0.25)
        ends.append(time.perf_counter())
        return x[0]

    records, executor = [], Serial()
    with executor.open(as_objective(function)):
        ledger = Ledger(range(206), record=records.append)
        values = executor.evaluate(points(205, 1), Key(0), 0, ledger).values
    assert values.tolist() == list(range(205))
    assert len(ends) == 205
    assert unrecorded[201:] == [0, 0, 0, 0]


@pytest.mark.parametrize("executor", [Serial(), Mapped(map), Processes(2)])
def test_opened_with_what_is_no_objective(executor):
    with (
        pytest.raises(TypeError, match=r"zoo\.core\.objective\.as_objective.*got 'abc'"),
        executor.open("abc"),
    ):
        pytest.fail("it is open")


@pytest.mark.parametrize("executor", [Serial(), Mapped(map)])
def test_what_is_open_is_not_opened_again(executor):
    with executor.open(as_objective(total)):
        with pytest.raises(RuntimeError, match="is open already; make another one"), executor.open(None):
            pytest.fail("it is open twice")
        assert executor.evaluate(points(2), Key(0), 0).values.tolist() == [3.0, 12.0]
    with executor.open(None), pytest.raises(RuntimeError, match="is open already"), executor.open(None):
        pytest.fail("it is open twice")


def test_describe():
    assert Serial().describe() == {"executor": "Serial"}
    assert Mapped(map).describe() == {"executor": "Mapped"}
