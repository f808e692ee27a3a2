"""Stateful parts: whatever dies, hangs or raises, replies and states are those of parts in one process."""

import itertools
import os
import signal
import threading
from collections import Counter

import numpy as np
import pytest

import zoo
from tests.distributed import parts
from tests.distributed.fake import Fake, Faults, Hangs, Kills
from tests.distributed.parts import Client, Noisy
from zoo.core.errors import EvaluationError, Interrupt, WorkerError
from zoo.core.rng import Key
from zoo.execution import interrupts
from zoo.execution import parts as library
from zoo.execution.executor import Mapped, Serial
from zoo.execution.ledger import Account
from zoo.execution.parts import PartReply
from zoo.execution.processes import Processes

PARTS, CALLS = 7, 9
KEY = Key(3)


@pytest.fixture(autouse=True)
def forget():
    """Every test begins without faults, and counts from 0."""
    for noted in (parts.EVALUATED, parts.HANDLED, parts.FAULTS):
        noted.clear()


def messages_of(call, n=PARTS):
    """Return some parts' own messages, the same one for others, and none for the rest."""
    common = {"call": call, "x": np.full(3, 0.1 * call)}
    own = [{"call": call, "x": np.full(3, float(part - call))} for part in range(n)]
    kinds = [own, [common] * n, [None] * n]
    return [
        kinds[0 if (part + call) % 5 == 0 else 2 if (part + call) % 4 == 0 else 1][part] for part in range(n)
    ]


def plain(value):
    """Return a value as something that can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, PartReply):
        failures = [(failure.row, failure.kind, failure.message) for failure in value.failures]
        return plain(value.reply), [plain(item) for item in value.values], failures, value.error
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class Run:
    """Some calls, and everything there is to know about them."""

    def __init__(
        self, executor, *, factory=Client, objective=None, calls=CALLS, before=(), without=(), **options
    ):
        self.executor, self.account, self.events, self.replies = executor, Account(), [], []
        with executor.open(objective or Noisy()):
            shards = executor.shards(
                factory, PARTS, event=self.events.append, account=self.account, **options
            )
            for call in range(calls):
                for when, do in before:
                    if when == call:
                        do()
                messages = messages_of(call)
                for part, when in without:
                    if when == call:
                        messages[part] = None
                self.replies.append(shards.call(messages, KEY.fold(call)))
            self.states = shards.snapshot()
            self.num_queries = shards.num_queries

    @property
    def outcome(self):
        return plain(self.replies), plain(self.states), self.num_queries

    def of(self, event):
        return [entry for entry in self.events if entry["event"] == event]


def serial(**options):
    outcome = Run(Serial(), **options).outcome
    parts.EVALUATED.clear()
    return outcome


def test_a_run_of_many_kinds_of_messages():
    """What the other tests compare with: all that is there to go wrong is there."""
    run = Run(Serial())
    flat = [reply for replies in run.replies for reply in replies]
    assert {reply is None for reply in flat} == {True, False}
    assert run.num_queries == len(parts.EVALUATED) == len(set(parts.EVALUATED))
    assert run.num_queries == sum(
        3 + part % 3 for replies in run.replies for part, r in enumerate(replies) if r
    )
    for replies in run.replies:
        for reply in filter(None, replies):
            assert reply.num_queries == len(reply.values[0]) + 1
            assert reply.values[0].tobytes() == reply.reply["values"].tobytes()
            assert reply.error is None
            assert reply.failures == ()
    assert [state["calls"] for state in run.states] == [
        sum(replies[part] is not None for replies in run.replies) for part in range(PARTS)
    ]
    assert run.account == Account()
    assert run.events == []


class Tells(parts.Client):
    def handle(self, message, key, query):
        query(np.zeros((2, 3)))[:] = 7.0
        query(np.ones(3))
        return self.index, str(key), message


@pytest.mark.parametrize("make", [Serial, lambda: Fake(2)])
def test_keys_and_order(make):
    executor = make()
    with executor.open(Noisy()):
        shards = executor.shards(Tells, 4)
        for call in range(2):
            replies = shards.call(list(np.arange(8.0).reshape(4, 2) + call), KEY.fold(call))
            for part, (index, key, message) in enumerate(reply.reply for reply in replies):
                own = KEY.fold(call).fold("part", part)
                assert (index, key, message.tolist()) == (
                    part,
                    str(own),
                    [2.0 * part + call, 2.0 * part + call + 1],
                )
                assert 7.0 not in replies[part].values[0]
                assert not replies[part].values[0].flags.writeable
                evaluated = {str(own.fold("query").fold(0, 0)), str(own.fold("query").fold(1, 0))}
                assert evaluated < {key for key, _ in parts.EVALUATED}


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("limit", [0.0, 60.0], ids=["a part a trip", "all in a trip"])
def test_same_replies_and_states_as_in_one_process(num_workers, limit, monkeypatch):
    monkeypatch.setattr(library, "LIMIT_SECONDS", limit)
    expected = serial()
    for seed in range(4):
        parts.EVALUATED.clear()
        run = Run(Fake(num_workers, seed=seed, faults=Faults(duplicate=0.3, delay=0.2)))
        assert run.outcome == expected
        assert (run.account, run.events) == (Account(), [])
        assert len(parts.EVALUATED) == len(set(parts.EVALUATED)) == run.num_queries


DEATHS = {
    "before": Faults(kill_before=(3,)),
    "after": Faults(kill_after=(3,)),
    "idle": Faults(kill_idle=(3,)),
    "first": Faults(kill_before=(0,)),
    "twice": Faults(kill_before=(3,), kill_after=(4,)),
    "again and again": Faults(kill_before=(2, 5, 9, 14), kill_after=(7, 20), kill_idle=(11, 27)),
    "all": Faults(kill_all=(5,)),
    "all, in turn": Faults(kill_all=(4, 12, 30)),
    "starts": Faults(failed_starts=(0, 1, 4, 6), kill_before=(4, 8)),
    "everything": Faults(kill_before=(4,), kill_after=(9,), failed_starts=(2,), duplicate=0.4, delay=0.3),
}


@pytest.mark.parametrize("faults", DEATHS.values(), ids=DEATHS.keys())
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_deaths_change_nothing(num_workers, faults, monkeypatch):
    expected = serial()
    for seed in range(4):
        monkeypatch.setattr(library, "LIMIT_SECONDS", 0.0 if seed % 2 else 60.0)
        parts.EVALUATED.clear()
        run = Run(Fake(num_workers, seed=seed, faults=faults))
        assert run.outcome == expected
        assert run.account.restarts == len(run.of("worker lost")) == len(run.of("worker restarted")) >= 1
        assert run.account.lost == sum(event["units"] for event in run.of("worker lost"))
        assert run.account.retries == run.account.quarantined == 0
        assert {event["event"] for event in run.events} == {"worker lost", "worker restarted"}
        # What was in flight is evaluated again, as exactly what it was.
        assert len(set(parts.EVALUATED)) == run.num_queries


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_parts_are_made_anew_without_a_query(num_workers):
    expected = serial()
    executor = Fake(num_workers)

    def die():
        for worker in list(executor.transport.seats)[:2]:
            executor.transport.die(worker)

    run = Run(executor, before=[(4, die), (8, die)])
    assert run.outcome == expected
    assert len(parts.EVALUATED) == run.num_queries  # nobody was at anything


def test_little_is_handled_again(monkeypatch):
    """However long a part has lived, and however large its messages are."""
    executor = Fake(1)
    with executor.open(Noisy()):
        shards = executor.shards(Client, 3)
        large = 0
        for call in range(60):
            message = {"call": call, "x": np.zeros(3), "much": np.zeros(large)}
            shards.call([message] * 3, KEY.fold(call))
            parts.HANDLED.clear()
            if call % 7 == 6:
                executor.transport.die(next(iter(executor.transport.seats)))
                message = {"call": 1000 + call, "x": np.zeros(3), "much": np.zeros(large)}
                shards.call([message] * 3, KEY.fold(1000 + call))
                again = Counter(part for part, handled in parts.HANDLED if handled < 1000)
                assert max(again.values(), default=0) <= 8
                assert large == 0 or sum(again.values()) <= 12
                large = 2**16
        assert [state["calls"] for state in shards.snapshot()] == [68] * 3


def test_a_part_that_ends_its_workers_is_left_out_of_the_call():
    expected = serial(without=[(3, 4)])
    for num_workers, seed in itertools.product([1, 2, 3], range(3)):
        parts.FAULTS[3, 4] = itertools.repeat(Kills())
        run = Run(Fake(num_workers, seed=seed))
        reply = run.replies[4][3]
        assert (reply.reply, reply.values, reply.error.row, reply.error.kind) == (None, (), 3, "crashed")
        run.replies[4][3] = None
        assert run.outcome == expected
        assert [(e["part"], e["kind"]) for e in run.of("quarantined")] == [(3, "crashed")]
        assert run.account.quarantined == 1
        assert 3 <= run.account.restarts <= 4  # once among others, three times alone


def test_nobody_is_blamed_for_having_been_near():
    expected = serial(without=[(3, 4)])
    for seed in range(3):
        parts.FAULTS[3, 4] = itertools.repeat(Kills())
        run = Run(Fake(2, seed=seed, max_attempts=1))
        assert run.replies[4][3].error.message == "took its worker along 1 times"
        run.replies[4][3] = None
        assert run.outcome == expected
        assert run.account.quarantined == 1


def test_a_part_that_takes_too_long_is_left_out_of_the_call():
    expected = serial(without=[(3, 4)])
    for num_workers, seed in itertools.product([1, 2, 3], range(3)):
        parts.FAULTS[3, 4] = itertools.repeat(Hangs())
        run = Run(Fake(num_workers, seed=seed, timeout=5.0))
        reply = run.replies[4][3]
        assert (reply.reply, reply.values, reply.error.row, reply.error.kind) == (None, (), 3, "hung")
        run.replies[4][3] = None
        assert run.outcome == expected
        assert [(e["part"], e["kind"]) for e in run.of("quarantined")] == [(3, "hung")]
        assert 1 <= run.account.restarts <= 2


def test_a_part_may_take_longer_to_be_made_anew():
    """What was handled in time before is not too late now, because there is more of it."""
    executor = Fake(1, timeout=1.0)
    with executor.open(Noisy()):
        shards = executor.shards(Client, 1)
        for call in range(6):
            shards.call([{"call": call, "x": np.zeros(3)}], KEY)
        executor.transport.die(next(iter(executor.transport.seats)))
        executor.transport.seconds = 5.0  # six messages, of which each may take a second
        parts.HANDLED.clear()
        (reply,) = shards.call([{"call": 6, "x": np.zeros(3)}], KEY)
        assert reply.error is None
        assert len(parts.HANDLED) == 6  # the first one is in the snapshot
        (reply,) = shards.call([{"call": 7, "x": np.zeros(3)}], KEY)
        assert reply.error.kind == "hung"


def test_a_part_that_raises_once_is_rolled_back():
    expected = serial()
    for executor in (Serial(), Fake(1), Fake(2)):
        parts.FAULTS[3, 4] = iter([ValueError("seven")])
        parts.EVALUATED.clear()
        run = Run(executor)
        assert run.outcome == expected
        assert run.of("part raised") == [{"event": "part raised", "part": 3, "message": "ValueError: seven"}]
        assert len(parts.EVALUATED) == run.num_queries  # what it had queried before is known


def test_a_part_that_raises_twice_ends_the_call_or_is_left_out_of_it():
    expected = serial(without=[(3, 4)])
    for executor in (Serial(), Fake(1), Fake(2), Fake(3)):
        parts.FAULTS[3, 4] = itertools.repeat(ValueError("seven"))
        run = Run(executor, on_error="nan")
        reply = run.replies[4][3]
        assert (reply.reply, reply.error.row, reply.error.kind) == (None, 3, "raised")
        assert "raise_due" in reply.error.details
        assert reply.num_queries == 2  # which it had made, and which count
        run.replies[4][3], run.num_queries = None, run.num_queries - 2
        assert run.outcome == expected
        with pytest.raises(EvaluationError, match="part 3 raised twice: ValueError: seven") as caught:
            Run(executor)
        assert "raise_due" in caught.value.details


def test_the_lowest_part_that_raised_is_named(monkeypatch):
    monkeypatch.setattr(library, "LIMIT_SECONDS", 0.0)
    for num_workers, seed in itertools.product([1, 2, 3], range(4)):
        for part in (2, 5, 6):
            parts.FAULTS[part, 1] = itertools.repeat(ValueError(f"it is {part}"))
        with pytest.raises(EvaluationError, match="part 2 raised twice: ValueError: it is 2"):
            Run(Fake(num_workers, seed=seed, faults=Faults(kill_before=(5,), delay=0.2)))


@pytest.mark.parametrize("make", [Serial, lambda: Fake(1), lambda: Fake(2), lambda: Fake(3)])
def test_a_call_that_ends_by_an_error_has_not_happened(make, monkeypatch):
    monkeypatch.setattr(library, "LIMIT_SECONDS", 0.0)  # some parts are done, others not begun
    expected = serial()
    executor, replies = make(), []
    with executor.open(Noisy()):
        shards = executor.shards(Client, PARTS)
        for call in range(CALLS):
            if call in (2, 5):
                part = max(p for p, message in enumerate(messages_of(call)) if message is not None)
                parts.FAULTS[part, call] = iter([ValueError("no")] * 2)
                with pytest.raises(EvaluationError, match="raised twice"):
                    shards.call(messages_of(call), KEY.fold(call))
            replies.append(shards.call(messages_of(call), KEY.fold(call)))
        assert (plain(replies), plain(shards.snapshot()), shards.num_queries) == expected


class Failing(Noisy):
    """Raises for some points once, for others always; some values are no numbers."""

    unit = 1

    def __call__(self, x, *, key):
        values = super().__call__(x, key=key)
        kind = int(abs(values[0]) * 1e6) % 7
        if kind == 0 or (kind == 1 and parts.EVALUATED.count(parts.EVALUATED[-1]) == 1):
            raise ArithmeticError("a bad point")
        return np.array([np.inf]) if kind == 2 else values


class Lenient(Client):
    """A client to whom a failed value is the worst one."""

    def handle(self, message, key, query):
        values = query(key.normal(0, 6, 3))
        one = query(np.ones(3))
        self.calls += 1
        return {"values": np.append(values, one), "calls": self.calls}


def test_queries_that_fail():
    parts.EVALUATED.clear()
    expected = Run(Serial(), factory=Lenient, objective=Failing(), on_error="nan")
    flat = [reply for replies in expected.replies for reply in replies if reply]
    assert {failure.kind for reply in flat for failure in reply.failures} == {"raised", "returned"}
    for reply in flat:
        values = np.concatenate(reply.values)
        assert np.flatnonzero(np.isnan(values)).tolist() == [failure.row for failure in reply.failures]
        assert plain(values) == plain(reply.reply["values"])
    twice = {evaluation for evaluation, count in Counter(parts.EVALUATED).items() if count == 2}
    assert len(twice) == expected.account.retries > 0
    for num_workers in (1, 2):
        parts.EVALUATED.clear()
        run = Run(Fake(num_workers), factory=Lenient, objective=Failing(), on_error="nan")
        assert run.outcome == expected.outcome
        assert run.account.retries == expected.account.retries
    for executor in (Serial(), Fake(2)):
        parts.EVALUATED.clear()
        with pytest.raises(EvaluationError, match=r"a query of part \d raised twice: ArithmeticError: a bad"):
            Run(executor, factory=Lenient, objective=Failing())


def test_parts_with_objectives_of_their_own():
    expected = serial(factory=parts.Own)
    assert expected != serial()
    assert Run(Fake(2, faults=Faults(kill_before=(5,))), factory=parts.Own).outcome == expected
    with Serial().open(None) as _, pytest.raises(RuntimeError, match="inside"):
        Serial().shards(Client, 1)
    executor = Fake(2)
    with executor.open(None):
        shards = executor.shards(parts.Own, PARTS)
        own = [part for part in range(PARTS) if part != 1]
        messages = [{"call": 0, "x": np.zeros(3)} if part in own else None for part in range(PARTS)]
        assert [part for part, reply in enumerate(shards.call(messages, KEY)) if reply] == own
        with pytest.raises(EvaluationError, match=r"part 1 raised twice: .* must be an Objective"):
            shards.call([{"call": 1, "x": np.zeros(3)}] * PARTS, KEY)
        with pytest.raises(RuntimeError, match="inside"):
            executor.evaluate(zoo.Rows(np.zeros((1, 3))), KEY, 0)


class Recorded:
    """Calls of which everything is put on record, with what is known from before."""

    def __init__(self, executor, known=None, calls=3, **options):
        self.records, self.replies = [{} for _ in range(calls)], []
        with executor.open(Noisy()):
            self.shards = executor.shards(Client, PARTS, **options)
            for call in range(calls):
                self.replies.append(
                    self.shards.call(
                        messages_of(call),
                        KEY.fold(call),
                        known=known[call] if known else None,
                        record=self.records[call].__setitem__,
                    )
                )
            self.outcome = plain(self.replies), plain(self.shards.snapshot()), self.shards.num_queries


def test_known_values_are_not_evaluated_again():
    parts.FAULTS[2, 1] = itertools.repeat(ValueError("seven"))
    first = Recorded(Fake(2), on_error="nan")
    for replies, records in zip(first.replies, first.records, strict=True):
        assert sorted(records) == [part for part, reply in enumerate(replies) if reply]
    known = [{part: reply._replace(reply=None) for part, reply in record.items()} for record in first.records]
    parts.FAULTS.clear()
    for executor in (Serial(), Fake(1), Fake(3, faults=Faults(kill_before=(1,), kill_after=(4,)))):
        parts.EVALUATED.clear()
        again = Recorded(executor, known, on_error="nan")
        assert again.outcome == first.outcome  # the part that was given up is so again
        assert parts.EVALUATED == []
        assert again.records == [{}, {}, {}]
    some = [dict(itertools.islice(record.items(), 3)) for record in known]
    for record in some:
        part, reply = next(iter(record.items()))
        record[part] = reply._replace(values=reply.values[:1])
    parts.EVALUATED.clear()
    parts.FAULTS[2, 1] = itertools.repeat(ValueError("seven"))
    again = Recorded(Fake(2), some, on_error="nan")
    assert again.outcome == first.outcome
    old = sum(reply.num_queries for record in some for reply in record.values())
    assert len(parts.EVALUATED) == again.shards.num_queries - old
    assert [len(record) for record in again.records] == [len(record) - 2 for record in first.records]


def test_known_failures_are_not_forgotten():
    def call(known=None, record=None):
        executor = Fake(2)
        with executor.open(Failing()):
            shards = executor.shards(Lenient, PARTS, on_error="nan")
            return shards.call([{"call": 0}] * PARTS, KEY, known=known, record=record)

    record = {}
    replies = call(record=record.__setitem__)
    assert sum(len(reply.failures) for reply in replies) > 3
    parts.EVALUATED.clear()
    assert plain(call(record)) == plain(replies)
    assert parts.EVALUATED == []
    for part, reply in record.items():
        failures = tuple(failure for failure in reply.failures if failure.row < len(reply.values[0]))
        record[part] = reply._replace(values=reply.values[:1], failures=failures)
    assert plain(call(record)) == plain(replies)
    assert len(set(parts.EVALUATED)) == PARTS


class Forgetful(zoo.Part):
    """Its snapshot holds less than its state."""

    def __init__(self, index):
        self.queries = 3

    def handle(self, message, key, query):
        self.queries -= 1
        for _ in range(self.queries):
            query(np.zeros(3))

    def snapshot(self):
        return None

    def restore(self, snapshot):
        """Leave everything as it was made."""


def test_a_part_that_queries_otherwise_than_before():
    def call(executor, known):
        with executor.open(Noisy()):
            return executor.shards(Client, 1).call([{"call": 0, "x": np.zeros(3)}], KEY, known=known)

    for executor in (Serial(), Fake(1)):
        with pytest.raises(EvaluationError, match="query 0 is not the one that is on record"):
            call(executor, {0: PartReply(None, (np.zeros(5),))})
    executor = Fake(1)
    with executor.open(Noisy()):
        shards = executor.shards(Forgetful, 1)
        shards.call(["once"], KEY)  # the one after which there is a snapshot
        shards.call(["once"], KEY)
        executor.transport.die(next(iter(executor.transport.seats)))
        with pytest.raises(
            EvaluationError, match=r"part 0 raised twice: .*query 1 is not the one .* on record"
        ):
            shards.call(["once"], KEY)


def test_a_signal_leaves_all_parts_as_they_were(monkeypatch):
    monkeypatch.setattr(library, "LIMIT_SECONDS", 0.0)
    expected = serial(calls=2)
    for poll in range(2, 5):
        executor, record, replies = Fake(2), {}, []
        with executor.open(Noisy()):
            shards = executor.shards(Client, PARTS)
            replies.append(shards.call(messages_of(0), KEY.fold(0)))
            parts.EVALUATED.clear()
            polls = iter([lambda: None] * poll + [lambda: signal.raise_signal(signal.SIGTERM)])
            executor.faults.on_poll = lambda polls=polls: next(polls, lambda: None)()
            with interrupts.handled(), pytest.raises(Interrupt):
                shards.call(messages_of(1), KEY.fold(1), record=record.__setitem__)
            assert record
            replies.append(shards.call(messages_of(1), KEY.fold(1), known=record))
            # On record is all that was evaluated, but for what a second worker was still at.
            assert len(parts.EVALUATED) <= sum(reply.num_queries for reply in replies[1] if reply) + 5
            assert (plain(replies), plain(shards.snapshot()), shards.num_queries) == expected


def test_a_signal_in_this_process():
    expected = serial(calls=2)
    executor, record, replies = Serial(), {}, []
    with executor.open(Noisy()):
        shards = executor.shards(Client, PARTS)
        replies.append(shards.call(messages_of(0), KEY.fold(0)))

        def stop():
            signal.raise_signal(signal.SIGINT)
            yield ValueError("never raised")

        parts.FAULTS[4, 1] = stop()
        with interrupts.handled(), pytest.raises(Interrupt):
            shards.call(messages_of(1), KEY.fold(1), record=record.__setitem__)
        parts.FAULTS.clear()
        assert sorted(record) == [0, 1, 2, 5, 6]  # before part 4, which was nowhere yet
        replies.append(shards.call(messages_of(1), KEY.fold(1), known=record))
        assert (plain(replies), plain(shards.snapshot()), shards.num_queries) == expected


class Stopping(Noisy):
    """A signal comes while it is evaluated."""

    def __call__(self, x, *, key):
        signal.raise_signal(signal.SIGINT)
        return super().__call__(x, key=key)


class Querying(Client):
    """Queries, and has more to do."""

    def handle(self, message, key, query):
        query(np.zeros((1, 3)))
        parts.HANDLED.append((self.index, 0))


class Swallowing(Client):
    """A signal comes while it is at work, and it goes on."""

    def handle(self, message, key, query):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            self.x = self.x + 1.0
        return "as if nothing had happened"


@pytest.mark.parametrize(("factory", "objective"), [(Querying, Stopping()), (Swallowing, Noisy())])
def test_a_signal_becomes_no_reply(factory, objective):
    executor, record = Serial(), {}
    with executor.open(objective):
        shards = executor.shards(factory, 2)
        with interrupts.handled(), pytest.raises(Interrupt):
            shards.call([None, {"call": 0, "x": np.zeros(3)}], KEY, record=record.__setitem__)
    assert record == {}
    assert parts.EVALUATED == parts.HANDLED == []


@pytest.mark.parametrize("make", [Serial, lambda: Fake(2, faults=Faults(kill_before=(9,)))])
def test_snapshots_are_gone_on_from_anywhere(make):
    expected = Run(Serial())
    executor = make()
    with executor.open(Noisy()):
        shards, states = executor.shards(Client, PARTS), []
        for call in range(CALLS):
            states.append(shards.snapshot())
            shards.call(messages_of(call), KEY.fold(call))
        assert plain(shards.snapshot()) == plain(expected.states)
    executor = make()
    with executor.open(Noisy()):
        shards = executor.shards(Client, PARTS)
        for begin in (6, 3, 0):
            shards.restore(states[begin])
            replies = [shards.call(messages_of(call), KEY.fold(call)) for call in range(begin, CALLS)]
            assert plain(replies) == plain(expected.replies[begin:])
            assert plain(shards.snapshot()) == plain(expected.states)
        with pytest.raises(ValueError, match="`states` must be one for each of the 7 parts"):
            shards.restore(states[0][:3])


class Keeps(zoo.Part):
    """Keeps what it is sent, replies with what it keeps, and then writes to it."""

    def __init__(self, index):
        self.kept = np.zeros(20_000)

    def handle(self, message, key, query):
        self.kept += message
        message[:] = -1.0
        self.message = message
        return self.kept

    def snapshot(self):
        return self.kept

    def restore(self, snapshot):
        self.kept = snapshot


def test_nobody_writes_to_what_is_others():
    for executor in (Serial(), Fake(2)):
        with executor.open(None):
            shards = executor.shards(Keeps, 4)
            for call in range(12):
                message = np.ones(20_000)
                replies = [reply.reply for reply in shards.call([message] * 4, KEY)]
                assert all((reply == 1.0 + call).all() for reply in replies)
                assert (message == 1.0).all()
                message[:] = 9.0  # what was sent is on record as it was
                replies[0][:] = 7.0
                if call % 5 == 0:
                    shards.snapshot()[0][:] = 7.0
                if isinstance(executor, Fake):
                    executor.transport.die(next(iter(executor.transport.seats)))


def test_what_is_the_same_for_many_travels_once():
    executor = Fake(2)
    with executor.open(None):
        shards = executor.shards(Keeps, 50)
        shards.call([None] * 49 + [np.zeros(1)], KEY)
        before = executor.transport.sent
        shards.call([np.ones(20_000)] * 50, KEY)
        assert 160_000 < executor.transport.sent - before < 200_000  # large arrays: once for all
    executor = Fake(2)
    with executor.open(None):
        shards = executor.shards(Forgets, 50)
        before = executor.transport.sent
        shards.call([b"1" * 160_000] * 50, KEY)
        assert 160_000 < executor.transport.sent - before < 1_400_000  # in every trip, not for every part


@pytest.mark.parametrize("limit", [0.0, 60.0], ids=["a part a trip", "all in a trip"])
def test_a_message_travels_once_however_long_its_part_has_to_wait(limit, monkeypatch):
    monkeypatch.setattr(library, "LIMIT_SECONDS", limit)
    executor = Fake(2)
    with executor.open(None):
        shards = executor.shards(Forgets, 20)
        shards.call([b""] * 20, KEY)
        before = executor.transport.sent
        shards.call([bytes([part]) * 10_000 for part in range(20)], KEY)
        assert 200_000 < executor.transport.sent - before < 240_000


def test_what_many_share_is_no_reason_for_snapshots():
    """The log of each is long in bytes, and yet they take little in all."""
    executor = Serial()
    with executor.open(None):
        shards = executor.shards(Saves, 16)
        message = b"1" * 2**20
        for call in range(17):
            replies = shards.call([message] * 16, KEY.fold(call))
        assert max(reply.reply for reply in replies) <= 3  # in 16 calls
        own = [bytes([part]) * 2**20 for part in range(16)]
        for call in range(16):
            replies = shards.call(own, KEY.fold(call))
        assert min(reply.reply for reply in replies) >= 8


class Forgets(Keeps):
    def __init__(self, index):
        self.kept = index

    def handle(self, message, key, query):
        return len(message)


class Saves(zoo.Part):
    """Replies how often it was asked for its state."""

    def __init__(self, index):
        self.snapshots = 0

    def handle(self, message, key, query):
        return self.snapshots

    def snapshot(self):
        self.snapshots += 1
        return self.snapshots

    def restore(self, snapshot):
        self.snapshots = snapshot


def spread(shards):
    """Return how many parts each worker has, the most first."""
    homes = Counter(track.home for track in shards._tracks)
    return sorted((homes[hand.number] for hand in shards._crew.hands.values()), reverse=True)


def test_parts_are_spread_evenly_also_after_deaths():
    for num_workers, seed in itertools.product([2, 3], range(5)):
        executor, calls = Fake(num_workers, seed=seed, seconds=1e-3), itertools.count()
        with executor.open(None):
            shards = executor.shards(Forgets, 24)

            def call(times, executor=executor, shards=shards, calls=calls):
                for _ in range(times):
                    executor.clock.now += 1.0
                    shards.call([b""] * 24, KEY.fold(next(calls)))

            call(4)
            assert spread(shards) == [24 // num_workers] * num_workers
            for worker in list(executor.transport.seats)[1:]:
                executor.transport.die(worker)
            shards.call([b""] * 24, KEY)
            assert spread(shards) == [24] + [0] * (num_workers - 1)  # nobody waited for the others
            call(3)
            assert spread(shards) == [24 // num_workers] * num_workers
            call(1)
            kept = [len(seat.worker._memory["shards 0"].parts) for seat in executor.transport.seats.values()]
            assert kept == [24 // num_workers] * num_workers  # nobody keeps what lives elsewhere now


def test_when_every_part_ends_its_worker():
    for part in range(PARTS):
        parts.FAULTS[part, 0] = itertools.repeat(Kills())
    with pytest.raises(WorkerError, match="no evaluation has succeeded"):
        Run(Fake(2))


class Unsound(Client):
    """Raises where it is told to."""

    def __init__(self, index, where):
        super().__init__(index)
        if where == "factory":
            raise ValueError("from the factory")
        self.where = where

    def handle(self, message, key, query):
        if self.where == "shape":
            query(np.zeros((1, 1, 1)))
        return threading.Lock() if self.where == "reply" else 0

    def snapshot(self):
        if self.where == "snapshot":
            raise ValueError("from the snapshot")
        if self.where == "state":
            return threading.Lock()
        return super().snapshot()


@pytest.mark.parametrize("make", [Serial, lambda: Fake(2)])
def test_what_is_wrong_is_said(make):
    executor, lock, message = make(), threading.Lock(), {"call": 0}

    def call(where):
        return executor.shards(lambda index: Unsound(index, where), 2).call([None, message], KEY)

    def failed(part):
        return rf"part {part} raised twice: `factory`, called as factory\({part}\), failed: "

    with executor.open(Noisy()):
        with pytest.raises(EvaluationError, match=failed(1) + "ValueError: from the factory") as caught:
            call("factory")
        assert caught.value.details.startswith("Traceback of the part")
        with pytest.raises(EvaluationError, match=r"part 1 raised twice: .* must have shape \(k, dim\)"):
            call("shape")
        with pytest.raises(
            EvaluationError, match="1 raised twice: its reply cannot be pickled: TypeError: can"
        ):
            call("reply")
        with pytest.raises(EvaluationError, match="part 0 raised twice: ValueError: from the snapshot"):
            executor.shards(lambda index: Unsound(index, "snapshot"), 2).snapshot()
        with pytest.raises(
            EvaluationError, match="0 raised twice: its snapshot cannot be pickled: TypeError"
        ):
            executor.shards(lambda index: Unsound(index, "state"), 2).snapshot()
        for factory, sentence in (
            (lambda index: index, "TypeError: it must return a Part, got 1"),
            (lambda: Client(0), "TypeError: .* takes 0 positional arguments"),
            (lambda index: zoo.Part(), "TypeError: Can't instantiate abstract class"),
        ):
            with pytest.raises(EvaluationError, match=failed(1) + sentence):
                executor.shards(factory, 2).call([None, message], KEY)
        with pytest.raises(TypeError, match="`factory` must be callable"):
            executor.shards(3, 2)
        with pytest.raises(ValueError, match="`n` must be at least 1"):
            executor.shards(Client, 0)
        with pytest.raises(ValueError, match="`on_error` must be one of"):
            executor.shards(Client, 1, on_error="ignore")
        with pytest.raises(TypeError, match="`account` must be an Account or None, got 3"):
            executor.shards(Client, 1, account=3)
        with pytest.raises(TypeError, match=r"`event` must be callable as event\(fields\) or None, got 3"):
            executor.shards(Client, 1, event=3)
        shards = executor.shards(Client, 2)
        assert len(shards) == 2
        with pytest.raises(ValueError, match=r"`messages` must be one for each of the 2 parts .* got 3"):
            shards.call([message] * 3, KEY)
        for wrong in (None, 5, {0: message, 1: message}):
            with pytest.raises(TypeError, match="`messages` must be a list or tuple"):
                shards.call(wrong, KEY)
        for wrong in (0, None):
            with pytest.raises(TypeError, match=rf"`key` must be a Key, such as .* got {wrong}"):
                shards.call([message] * 2, wrong)
        with pytest.raises(TypeError, match="the message of part 1 cannot be sent to workers"):
            shards.call([None, lock], KEY)
        assert shards.call([None, None], KEY) == [None, None]
    with pytest.raises(RuntimeError, match="went with the executor"):
        shards.call([message, message], KEY)
    with pytest.raises(RuntimeError, match="inside"):
        executor.shards(Client, 2)


def test_who_has_nowhere_to_keep_parts():
    executor = Mapped(map)
    with executor.open(Noisy()), pytest.raises(TypeError, match="Mapped has no workers of its own"):
        executor.shards(Client, 2)


def test_several_shards_and_evaluations_beside_them():
    expected = serial(calls=3)
    for executor in (Serial(), Fake(2, faults=Faults(kill_before=(6,)))):
        with executor.open(Noisy()):
            pairs = [(executor.shards(Client, PARTS), []) for _ in range(2)]
            for call in range(3):
                for shards, replies in pairs:
                    replies.append(shards.call(messages_of(call), KEY.fold(call)))
                    executor.evaluate(zoo.Rows(np.ones((4, 3))), KEY, call)
            for shards, replies in pairs:
                assert (plain(replies), plain(shards.snapshot()), shards.num_queries) == expected


def real(executor, path, before=(), during=(), factory=Client):
    """Run some calls, with kills before and during them, and count what was evaluated in a file."""
    with executor.open(parts.Counted(path)):
        shards, replies = executor.shards(factory, 24), []
        for call in range(8):
            timer = None
            if call in before:
                before[call]()
            if call in during:
                timer = threading.Timer(0.03, during[call])
                timer.start()
            replies.append(shards.call(messages_of(call, 24), KEY.fold(call)))
            if timer is not None:
                timer.join()
        outcome = plain(replies), plain(shards.snapshot()), shards.num_queries
    return outcome, shards.account, path.read_text().splitlines() if path.exists() else []


def test_processes_killed_between_and_during_calls(tmp_path):
    expected, _, evaluated = real(Serial(), tmp_path / "serial")
    assert len(evaluated) == expected[2]

    executor = Processes(2)

    def kill(*which):
        for pid in [executor.pids()[index] for index in which]:
            os.kill(pid, signal.SIGKILL)

    outcome, account, _ = real(Processes(3), tmp_path / "three")
    assert (outcome, account) == (expected, Account())
    between = {2: lambda: kill(0), 5: lambda: kill(0, 1)}
    outcome, account, evaluated = real(executor, tmp_path / "between", between)
    assert outcome == expected
    assert account.restarts == 3
    assert len(evaluated) == expected[2]  # none a second time
    during = {3: lambda: kill(0), 6: lambda: kill(0, 1)}
    outcome, account, evaluated = real(executor, tmp_path / "during", during=during)
    assert outcome == expected
    assert account.restarts == 3
    assert account.lost > 0
    assert len(set(evaluated)) == expected[2] <= len(evaluated)


def test_processes_that_parts_end_and_stop():
    executor = Processes(2, timeout=0.5, max_attempts=2)
    with executor.open(None):
        shards = executor.shards(parts.Ends, 6)
        shards.call([0] * 6, KEY)
        replies = shards.call([0, 0, 0, "die", 0, 0], KEY)
        assert [reply.error and reply.error.kind for reply in replies] == [None] * 3 + ["crashed"] + [
            None
        ] * 2
        replies = shards.call([0, "hang", 0, 0, 0, None], KEY)
        assert [reply and reply.error and reply.error.kind for reply in replies] == [None, "hung"] + [
            None
        ] * 4
        assert shards.account.quarantined == 2
        assert [reply.reply for reply in shards.call([0] * 6, KEY)] == [4, 3, 4, 3, 4, 3]


@pytest.mark.ray
def test_ray(cluster, tmp_path):
    expected, _, _ = real(Serial(), tmp_path / "serial")
    executor = zoo.Ray(2)

    def kill():
        os.kill(executor.pids()[0], signal.SIGKILL)

    outcome, account, evaluated = real(executor, tmp_path / "ray", {2: kill}, {5: kill})
    assert outcome == expected
    assert account.restarts == 2
    assert len(set(evaluated)) == expected[2]
