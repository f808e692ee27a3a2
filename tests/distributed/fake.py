"""A transport without processes: workers live in this one, time is a number, and faults come on order."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np

from zoo.core.objective import Objective
from zoo.core.state import freeze, thaw
from zoo.execution import crew, units
from zoo.execution.executor import LIMIT_SECONDS
from zoo.execution.packing import Message, decode, encode, encode_plain
from zoo.execution.pool import Pooled
from zoo.execution.transport import Answered, Died, Event, Failed, Ready, Transport
from zoo.execution.worker import Worker, report

_START_SECONDS = 0.3


class Kills(BaseException):
    """Raised by what a worker is called for: the worker dies of it."""


class Hangs(BaseException):
    """Raised by what a worker is called for: it never comes back from there."""


@dataclass
class Faults:
    """What is to go wrong. Dispatches and starts are counted from 0, over the whole run.

    Attributes:
        kill_before: Dispatches under which a worker dies before it has evaluated them.
        kill_after: Dispatches after whose evaluation a worker dies, taking the reply along.
        kill_idle: Dispatches whose worker is dead already when they are sent.
        kill_all: Dispatches at which all workers die.
        poison: Units that end any worker which evaluates them, as (step, unit).
        hang: Units that no worker comes back from, as (step, unit).
        slow: Seconds that units, as (step, unit), take the first time.
        failed_starts: Workers that die before they are ready.
        drift: Workers, by start, whose replica comes to another state at a step, as (start, step).
        duplicate: Share of replies delivered twice, the second time later.
        late: Share of dispatches under way that a worker still answers while it is ended.
        delay: Share of polls in which nothing is heard.
        cut: Share of dispatches of which a worker returns only a part.
        together: Seconds in which what happens may be heard at one poll.
        on_poll: Called at every poll.
    """

    kill_before: tuple[int, ...] = ()
    kill_after: tuple[int, ...] = ()
    kill_idle: tuple[int, ...] = ()
    kill_all: tuple[int, ...] = ()
    poison: tuple[tuple[int, int], ...] = ()
    hang: tuple[tuple[int, int], ...] = ()
    slow: dict[tuple[int, int], float] = field(default_factory=dict)
    failed_starts: tuple[int, ...] = ()
    drift: tuple[tuple[int, int], ...] = ()
    duplicate: float = 0.0
    late: float = 0.0
    delay: float = 0.0
    cut: float = 0.0
    together: float = 0.001
    on_poll: Callable[[], None] = lambda: None


class Clock:
    """What stands in for the module `time`: it goes on when a transport waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class _Task:
    """Something a worker was sent and will answer."""

    dispatch: int
    first: int | Message
    last: int | None
    number: int  # over the whole run
    alone: bool  # when it was sent
    sent: float


@dataclass
class _Seat:
    """A worker that exists only by name.

    Attributes:
        started: How many were started before it.
        due: When its next word arrives, None if that is not settled yet, infinite if it hangs.
        heard: When its last word arrived.
        free: When it is done with all that its words so far are about.
    """

    started: int
    due: float | None
    worker: Worker | None = None
    heard: float = 0.0
    free: float = 0.0
    seconds: float = 0.0
    inbox: deque[Message | _Task] = field(default_factory=deque)

    @property
    def tasks(self) -> list[_Task]:
        return [message for message in self.inbox if isinstance(message, _Task)]


class FakeTransport:
    """Delivers what happens in the order of a clock; how long messages travel is drawn by the seed."""

    def __init__(self, objective: Message, seed: int, faults: Faults, seconds: float, clock: Clock) -> None:
        self.objective, self.faults, self.seconds, self.clock = objective, faults, seconds, clock
        self.sent = self.received = 0
        self.random = random.Random(seed)
        self.slow = dict(faults.slow)
        self.seats: dict[int, _Seat] = {}
        self.told: deque[Event] = deque()  # to be heard at once
        self.again: deque[Event] = deque()  # to be heard a second time
        self.arrays: set[str] = set()  # by digest, sent already
        self.evaluated: list[tuple[int, int, int, bool]] = []  # worker, first, last, whether alone
        self.done: list[tuple[int, int]] = []  # first, last
        self.lost: list[tuple[int, int]] = []  # first, last
        self.begun: list[tuple[int, int, int | None]] = []  # worker by start, step, steps told with it
        self.ended: list[int] = []  # workers, by the driver
        self.most = 0  # dispatches one worker had at once
        self.starts = self.dispatches = 0
        self.silence = 0  # polls since something was heard
        self.closed = False

    def start(self, worker: int) -> None:
        assert worker not in self.seats
        self.seats[worker] = _Seat(self.starts, self.clock.now + _START_SECONDS * (1 + self.random.random()))
        self.starts += 1

    def begin(self, worker: int, step: Message) -> None:
        self._count(step)
        if worker in self.seats:
            self.seats[worker].inbox.append(step)

    def evaluate(self, worker: int, dispatch: int, first: int, last: int) -> None:
        self._submit(worker, dispatch, first, last)

    def call(self, worker: int, dispatch: int, task: Message) -> None:
        self._count(task)
        self._submit(worker, dispatch, task, None)

    def end(self, worker: int) -> None:
        self.ended.append(worker)
        while (seat := self.seats.get(worker)) and seat.inbox and seat.due not in (None, np.inf):
            if self.random.random() >= self.faults.late:
                break
            self.told.extend(self._work(worker, seat))
            self._settle(seat)
        self.die(worker)

    def _count(self, message: Message) -> None:
        new = [base for base in message.bases if base.digest not in self.arrays]
        self.arrays.update(base.digest for base in new)
        self.sent += len(message.body) + sum(base.buffer.nbytes for base in new)

    def _submit(self, worker: int, dispatch: int, first: int | Message, last: int | None) -> None:
        number, self.dispatches = self.dispatches, self.dispatches + 1
        if number in self.faults.kill_idle:
            self.die(worker)
        if number in self.faults.kill_all:
            for other in list(self.seats):
                self.die(other)
        if worker in self.seats:
            seat = self.seats[worker]
            waiting = len(seat.tasks)
            seat.inbox.append(_Task(dispatch, first, last, number, not waiting, self.clock.now))
            self.most = max(self.most, waiting + 1)

    def die(self, worker: int) -> None:
        seat = self.seats.pop(worker, None)
        if seat is not None:
            self.lost += [(task.first, task.last) for task in seat.tasks if task.last is not None]
            self.told.append(Died(worker, "killed by the test"))

    def poll(self, timeout: float) -> Sequence[Event]:
        self.faults.on_poll()
        if self.random.random() < self.faults.delay:
            self.clock.now += 0.001
            return []
        found = self._events(self.clock.now + timeout)
        self.silence = 0 if found else self.silence + 1
        assert self.silence < 10_000, "it waits for something that will never happen"
        if not found:
            self.clock.now += timeout
        while found and (not timeout or self.random.random() < 0.3):
            more = self._events(self.clock.now + min(timeout, self.faults.together))
            if not more:
                break
            found += more
        return found

    def _events(self, until: float) -> list[Event]:
        """Return what happens next, and let the time come when it does; nothing if that is too late."""
        if self.told:
            return [self.told.popleft()]
        if self.again and self.random.random() < 0.3:
            return [self.again.popleft()]
        for seat in self.seats.values():
            self._settle(seat)
        due, worker = min(
            ((seat.due, w) for w, seat in self.seats.items() if seat.due is not None), default=(np.inf, 0)
        )
        if due > until:
            return []
        self.clock.now = max(self.clock.now, due)
        seat = self.seats[worker]
        return self._work(worker, seat) if seat.worker else self._get_ready(worker, seat)

    def _get_ready(self, worker: int, seat: _Seat) -> list[Event]:
        if seat.started in self.faults.failed_starts:
            self.die(worker)
            return []
        seat.due, seat.free = None, self.clock.now
        try:
            seat.worker = Worker(_loaded(self.objective))
        except ImportError as error:
            return [Failed(worker, report("a worker could not load the objective", error))]
        return [Ready(worker)]

    def _settle(self, seat: _Seat) -> None:
        """Have a worker turn to its next task, if there is one, and settle when it will be heard of."""
        if seat.worker is None or seat.due is not None:
            return
        while seat.inbox and isinstance(seat.inbox[0], Message):
            self._begin(seat, _loaded(seat.inbox.popleft()))
        if not seat.inbox:
            return
        task = seat.inbox[0]
        seat.seconds = self.seconds
        if task.last is not None:
            seat.seconds = 0.0
            for unit in range(task.first, task.last):
                seat.seconds += self.slow.pop((seat.worker.step, unit), self.seconds)
                if (seat.worker.step, unit) in self.faults.hang:
                    seat.seconds = np.inf
                if seat.seconds > LIMIT_SECONDS:
                    task.last = unit + 1
                    break
        seat.free = max(seat.free, task.sent) + seat.seconds
        seat.due = seat.heard = max(seat.heard, seat.free + 0.3 * seat.seconds * self.random.random())

    def _begin(self, seat: _Seat, step: object) -> None:
        place, told = getattr(step, "place", None), getattr(step, "evaluations", None)
        replica = seat.worker._memory.get("replica")
        spoilt = place is not None and replica is not None and (seat.started, place.step) in self.faults.drift
        if spoilt:
            replica.optimizer = _Spoiling(replica.optimizer)
        seat.worker.begin(step)
        if spoilt:
            replica.optimizer = replica.optimizer.optimizer
        self.begun.append((seat.started, seat.worker.step, None if told is None else len(told)))

    def _work(self, worker: int, seat: _Seat) -> list[Event]:
        task, seat.due = seat.inbox[0], None
        first, last, number = task.first, task.last, task.number
        done = set() if last is None else {(seat.worker.step, unit) for unit in range(first, last)}
        self.evaluated.append((worker, first, last, task.alone and len(seat.inbox) == 1))
        if number in self.faults.kill_before or done & set(self.faults.poison):
            self.die(worker)
            return []
        if last is None:
            try:
                answer = _loaded(encode(seat.worker.call(_loaded(first))))
            except Kills:
                self.die(worker)
                return []
            except Hangs:
                seat.due = np.inf
                return []
        else:
            if self.faults.cut and self.random.random() < self.faults.cut:
                last = self.random.randint(first + 1, last)
            answer = seat.worker.evaluate(first, last)
        if number in self.faults.kill_after:
            self.die(worker)
            return []
        seat.inbox.popleft()
        if last is not None:
            self.done.append((first, last))
            until_now = self.clock.now - (seat.free - seat.seconds)  # it may be ended before it is done
            seconds = min(seat.seconds, max(0.0, until_now)) * (last - first) / (task.last - first)
            answer = answer._replace(reply=replace(answer.reply, seconds=seconds))
        event = Answered(worker, task.dispatch, answer)
        self.received += len(encode_plain(answer))
        if self.random.random() < self.faults.duplicate:
            self.again.append(event)
        return [event]

    def pids(self) -> list[int]:
        return list(self.seats)

    def close(self) -> None:
        self.closed = True
        self.seats.clear()


class _Spoiling:
    """An optimizer on another model of processor: it rounds otherwise."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer

    def ask(self, state: object) -> object:
        return self.optimizer.ask(state)

    def tell(self, state: object, evaluations: object) -> object:
        tree, arrays = freeze(self.optimizer.tell(state, evaluations))
        for array in arrays.values():
            if array.dtype.kind == "f" and array.size:
                array.reshape(-1).view(np.uint8)[0] ^= 1
                return thaw(tree, arrays)
        raise AssertionError("a state without numbers")


def _loaded(message: Message) -> object:
    return decode(message.body, [memoryview(bytes(base.buffer)) for base in message.bases])


class Fake(Pooled):
    """An executor over `FakeTransport`; `seconds` is what a unit takes."""

    def __init__(
        self,
        num_workers: int,
        *,
        seed: int = 0,
        faults: Faults | None = None,
        seconds: float = 0.03,
        **options: object,
    ) -> None:
        super().__init__(num_workers, **options)
        self.seed, self.faults, self.seconds = seed, faults or Faults(), seconds
        self.clock = Clock()
        self.transport: FakeTransport | None = None

    @contextlib.contextmanager
    def open(self, objective: Objective) -> Iterator[None]:
        with (
            mock.patch.object(crew, "time", self.clock),
            mock.patch.object(units, "time", self.clock),
            super().open(objective),
        ):
            yield

    def connect(self, objective: Message) -> Transport:
        self.transport = FakeTransport(objective, self.seed, self.faults, self.seconds, self.clock)
        return self.transport
