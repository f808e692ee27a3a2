"""What counts, what is tried again and when a run ends, from replies in any order."""

import itertools
import time

import numpy as np
import pytest

from zoo.core.errors import EvaluationError
from zoo.core.types import Failure, Reply
from zoo.execution.ledger import Account, Ledger, summary

NAN = float("nan")


def answer(start, *values, raised=(), returned=()):
    """Return a reply; rows named in `raised` and `returned` are NaN for that reason."""
    failures = [Failure(row, "raised", f"ValueError: row {row}", f"traceback {row}") for row in raised]
    failures += [Failure(row, "returned", "returned nan") for row in returned]
    array = np.array(values, float)
    for failure in failures:
        array[failure.row - start] = NAN
    return Reply(start, array, tuple(failures))


def add_all(ledger, replies):
    """Add some replies, each once more where that is asked for."""
    for reply in replies:
        for _ in ledger.add(reply):
            ledger.add(reply)


def rows_of(records):
    """Return the rows in some replies, in the order of their recording."""
    return [row for record in records for row in range(record.start, record.stop)]


def test_everything_at_once():
    records = []
    ledger = Ledger(range(4), record=records.append)
    assert ledger.todo == [(0, 3)]
    assert not ledger.succeeded
    assert ledger.add(answer(0, 1, 2, 3)) == []
    assert ledger.todo == []
    assert ledger.succeeded
    assert ledger.evaluations().values.tolist() == [1, 2, 3]
    assert rows_of(records) == [0, 1, 2]


def test_in_any_order_and_twice():
    parts = [answer(0, 1, 2), answer(2, 3), answer(3, 4, 5, returned=[4])]
    for order in itertools.permutations(parts):
        records = []
        ledger = Ledger(range(6), record=records.append)
        for reply in order:
            ledger.add(reply)
            ledger.add(reply)
        done = ledger.evaluations()
        assert done.values.tobytes() == np.array([1, 2, 3, 4, NAN]).tobytes()
        assert [f.row for f in done.failures] == [4]
        assert sorted(rows_of(records)) == [0, 1, 2, 3, 4]
        assert ledger.account == Account()


def test_todo_between():
    ledger = Ledger(range(7))
    ledger.add(answer(2, 1))
    ledger.add(answer(5, 1))
    assert ledger.todo == [(0, 2), (3, 5)]
    ledger.add(answer(0, 1, 1))
    assert ledger.todo == [(3, 5)]


def test_no_candidates():
    ledger = Ledger([0])
    assert ledger.todo == []
    assert len(ledger.evaluations()) == 0


def test_units_of_several_rows():
    ledger = Ledger([0, 4, 8, 10])
    ledger.add(answer(4, 5, 6, 7, 8))
    assert ledger.todo == [(0, 1), (2, 3)]
    # One row that raised has the whole of its unit evaluated again, and none of the others.
    records = []
    ledger = Ledger([0, 4, 8, 10], record=records.append, succeeded=True)
    assert ledger.add(answer(0, *range(10), raised=[5, 6])) == [1]
    assert ledger.todo == [(1, 2)]
    assert rows_of(records) == [0, 1, 2, 3, 8, 9]
    assert ledger.add(answer(4, 4, 5, 6, 7, raised=[5])) == []
    assert ledger.evaluations().values.tobytes() == np.array([0, 1, 2, 3, 4, NAN, 6, 7, 8, 9]).tobytes()
    assert [f.row for f in ledger.evaluations().failures] == [5]
    assert ledger.account.retries == 1


def test_known_rows():
    records = []
    known = [answer(0, 1, 2, returned=[1]), answer(4, 5)]
    ledger = Ledger(range(6), known=known, record=records.append)
    assert ledger.todo == [(2, 4)]
    ledger.add(answer(1, 99, 3, 4, 99))
    assert ledger.evaluations().values.tobytes() == np.array([1, NAN, 3, 4, 5]).tobytes()
    assert rows_of(records) == [2, 3]
    assert [f.row for f in ledger.evaluations().failures] == [1]
    # Of a unit of which only a part is known, that part stays, but the call is made in full.
    ledger = Ledger([0, 3, 6], known=[answer(0, 1, 2)])
    assert ledger.todo == [(0, 2)]
    ledger.add(answer(0, 7, 7, 3, 4, 5, 6))
    assert ledger.evaluations().values.tolist() == [1, 2, 3, 4, 5, 6]
    whole = Ledger(range(3), known=[answer(0, 1, 2)], record=records.append)
    assert whole.todo == []
    whole.add(answer(0, 8, 9))
    assert whole.evaluations().values.tolist() == [1, 2]
    assert rows_of(records) == [2, 3]


def test_raised_once():
    events, account = [], Account()
    ledger = Ledger(range(4), event=events.append, succeeded=True, first_id=100, account=account)
    assert ledger.add(answer(0, 1, 2, 3, raised=[0, 2])) == [0, 2]
    assert ledger.todo == [(0, 1), (2, 3)]
    assert [(event["event"], event["id"]) for event in events] == [
        ("evaluation raised", 100),
        ("evaluation raised", 102),
    ]
    ledger.add(answer(0, 5))
    ledger.add(answer(2, 6))
    assert ledger.evaluations().values.tolist() == [5, 2, 6]
    assert ledger.evaluations().failures == ()
    assert account == Account(retries=2)


def test_raised_twice():
    twice = [answer(0, 1, 2, 3, raised=[1]), answer(1, 2, raised=[1])]
    ledger = Ledger(range(4))
    assert [ledger.add(reply) for reply in twice] == [[1], []]
    assert ledger.evaluations().values.tobytes() == np.array([1, NAN, 3]).tobytes()
    assert ledger.todo == []
    ledger = Ledger(range(4), on_error="raise", first_id=10)
    ledger.add(twice[0])
    with pytest.raises(EvaluationError, match="evaluation 11 raised twice: ValueError: row 1") as caught:
        ledger.add(twice[1])
    assert caught.value.evaluation == 11
    assert caught.value.details == "traceback 1"


def test_the_lowest_is_named():
    """Whichever comes first, the error is that of the lowest row, and what has a value is on record."""
    for order in itertools.permutations([1, 3, 4]):
        records = []
        ledger = Ledger(range(6), on_error="raise", record=records.append)
        assert ledger.add(answer(0, *range(5), raised=[1, 3, 4])) == [1, 3, 4]
        replies = [answer(row, 0, raised=[row]) for row in order]
        with pytest.raises(EvaluationError, match="evaluation 1 raised twice"):
            add_all(ledger, replies)
        assert rows_of(records) == [0, 2]


def test_retry_that_succeeds_uncovers_the_next():
    ledger = Ledger(range(4), on_error="raise")
    ledger.add(answer(0, 0, 1, 2, raised=[1, 2]))
    assert ledger.add(answer(2, 2, raised=[2])) == []
    with pytest.raises(EvaluationError, match="evaluation 2 raised twice"):
        ledger.add(answer(1, 1))


@pytest.mark.parametrize("on_error", ["nan", "raise"])
def test_first_evaluation_raises(on_error):
    ledger = Ledger(range(4), on_error=on_error)
    with pytest.raises(EvaluationError, match="evaluation 0 raised, and none before it had a value"):
        ledger.add(answer(0, 1, 2, 3, raised=[0]))


@pytest.mark.parametrize("on_error", ["nan", "raise"])
def test_first_exception_in_any_order(on_error):
    """It ends the run if nothing below has a value, which is known once all below have reported."""
    replies = [answer(0, 1, returned=[0]), answer(1, 1, returned=[1])]
    replies += [answer(2, 1, raised=[2]), answer(3, 1, raised=[3])]
    for order in itertools.permutations(replies):
        ledger = Ledger(range(5), on_error=on_error)
        with pytest.raises(EvaluationError, match="evaluation 2 raised, and none before"):
            add_all(ledger, order)
    replies[1], replies[3] = answer(1, 1), answer(3, 1)
    for order in itertools.permutations(replies):
        ledger = Ledger(range(5))
        add_all(ledger, order)
        assert ledger.evaluations().values.tobytes() == np.array([NAN, 1, NAN, 1]).tobytes()


def test_late_exception_of_what_has_a_value():
    events = []
    ledger = Ledger(range(3), event=events.append, on_error="raise")
    ledger.add(answer(0, 1, 2))
    assert ledger.add(answer(0, 1, 2, raised=[0, 1])) == []
    assert ledger.evaluations().values.tolist() == [1, 2]
    assert ledger.account == Account()
    assert events == []


def test_crash_below_an_exception():
    """A unit that crashed has reported, too."""
    events = []
    ledger = Ledger(range(3), event=events.append, first_id=5)
    ledger.add(answer(1, 1, raised=[1]))
    with pytest.raises(EvaluationError, match="evaluation 6 raised, and none before"):
        ledger.give_up(0, "crashed", "took its worker along 3 times")
    message = "took its worker along 3 times"
    assert events[-1] == {"event": "quarantined", "id": 5, "rows": 1, "kind": "crashed", "message": message}


def test_crashed():
    records = []
    ledger = Ledger([0, 2, 4], record=records.append)
    ledger.add(answer(0, 1, 2))
    ledger.give_up(1, "crashed", "took its worker along 3 times")
    done = ledger.evaluations()
    assert done.values.tobytes() == np.array([1, 2, NAN, NAN]).tobytes()
    assert [(f.row, f.kind) for f in done.failures] == [(2, "crashed"), (3, "crashed")]
    assert rows_of(records) == [0, 1, 2, 3]


def test_many_failures_are_quick():
    n = 20000
    rows = np.arange(n)
    began = time.perf_counter()
    for raised, returned in ((rows[1::2], ()), ((), rows), (rows[1::2], rows[::2])):
        ledger = Ledger(range(n + 1), succeeded=True)
        reply = answer(0, *rows, raised=raised.tolist() if len(raised) else (), returned=returned)
        assert len(ledger.add(reply)) == len(raised)
        for unit in list(raised)[:100]:
            ledger.add(answer(int(unit), 0.0))
    assert time.perf_counter() - began < 5


def test_account_in_words():
    account = Account(retries=1, lost=3, restarts=2, sent=1_234_567, received=999, busy=(0.914, 0.5))
    assert summary(account.entries(600)) == (
        "600 evaluations, 1 retried, 2 workers replaced, 3 units under way on them, "
        "0 quarantined, workers busy 91% 50%, 1.23 MB sent, 999 B received"
    )
    assert summary(Account().entries(5)).endswith("0 quarantined")
    assert account == Account(retries=1, lost=3, restarts=2)
    assert account != Account(retries=1, lost=3, restarts=2, quarantined=1)
