"""A transport without processes: workers live in this one, and everything goes wrong on order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zoo.core.types import Reply
from zoo.execution.packing import Message, decode, encode_plain
from zoo.execution.pool import Pooled
from zoo.execution.transport import Answered, Died, Event, Failed, Ready, Transport
from zoo.execution.worker import Worker, report


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
        failed_starts: Workers that die before they are ready.
        duplicate: Share of replies delivered twice, the second time later.
        delay: Share of polls in which a worker's next event is held back.
        cut: Share of dispatches of which a worker returns only a part.
        on_poll: Called at every poll.
    """

    kill_before: tuple[int, ...] = ()
    kill_after: tuple[int, ...] = ()
    kill_idle: tuple[int, ...] = ()
    kill_all: tuple[int, ...] = ()
    poison: tuple[tuple[int, int], ...] = ()
    hang: tuple[tuple[int, int], ...] = ()
    failed_starts: tuple[int, ...] = ()
    duplicate: float = 0.0
    delay: float = 0.0
    cut: float = 0.0
    on_poll: Callable[[], None] = lambda: None


@dataclass
class _Seat:
    """A worker that exists only by name."""

    started: int
    ready: bool = False
    worker: Worker | None = None
    hangs: bool = False
    inbox: deque[tuple[object, ...]] = field(default_factory=deque)


class FakeTransport:
    """Delivers one event per poll, of a worker drawn by the seed."""

    def __init__(self, objective: Message, seed: int, faults: Faults, seconds: float) -> None:
        self.objective, self.faults, self.seconds = objective, faults, seconds
        self.sent = self.received = 0
        self.random = random.Random(seed)
        self.seats: dict[int, _Seat] = {}
        self.dead: list[Event] = []
        self.late: list[Event] = []
        self.evaluated: list[tuple[int, int, int, bool]] = []  # worker, first, last, whether alone
        self.done: list[tuple[int, int]] = []  # first, last
        self.lost: list[tuple[int, int]] = []  # first, last
        self.ended: list[int] = []  # workers, by the driver
        self.most = 0  # dispatches one worker had at once
        self.starts = self.dispatches = 0
        self.closed = False

    def start(self, worker: int) -> None:
        assert worker not in self.seats
        self.seats[worker] = _Seat(self.starts)
        self.starts += 1

    def begin(self, worker: int, step: Message) -> None:
        self.sent += step.size
        if worker in self.seats:
            self.seats[worker].inbox.append(("begin", step))

    def evaluate(self, worker: int, dispatch: int, first: int, last: int) -> None:
        self._submit(worker, dispatch, first, last)

    def call(self, worker: int, dispatch: int, task: Message) -> None:
        self.sent += task.size
        self._submit(worker, dispatch, task, None)

    def end(self, worker: int) -> None:
        self.ended.append(worker)
        self.die(worker)

    def _submit(self, worker: int, dispatch: int, *what: object) -> None:
        number, self.dispatches = self.dispatches, self.dispatches + 1
        if number in self.faults.kill_idle:
            self.die(worker)
        if number in self.faults.kill_all:
            for other in list(self.seats):
                self.die(other)
        if worker in self.seats:
            inbox = self.seats[worker].inbox
            waiting = sum(message[0] == "evaluate" for message in inbox)
            inbox.append(("evaluate", dispatch, *what, number, waiting))
            self.most = max(self.most, waiting + 1)

    def die(self, worker: int) -> None:
        seat = self.seats.pop(worker, None)
        if seat is not None:
            self.lost += [message[2:4] for message in seat.inbox if message[0] == "evaluate"]
            self.dead.append(Died(worker, "killed by the test"))

    def poll(self, timeout: float) -> Sequence[Event]:
        self.faults.on_poll()
        if self.dead:
            return [self.dead.pop(0)]
        if self.late and self.random.random() < 0.3:
            return [self.late.pop(0)]
        busy = [w for w, seat in self.seats.items() if (seat.inbox or not seat.ready) and not seat.hangs]
        if not busy or self.random.random() < self.faults.delay:
            return []
        worker = self.random.choice(busy)
        seat = self.seats[worker]
        if not seat.ready:
            return self._get_ready(worker, seat)
        return self._work(worker, seat)

    def _get_ready(self, worker: int, seat: _Seat) -> list[Event]:
        if seat.started in self.faults.failed_starts:
            self.die(worker)
            return []
        try:
            seat.worker, seat.ready = Worker(_loaded(self.objective)), True
        except ImportError as error:
            return [Failed(worker, report("a worker could not load the objective", error))]
        return [Ready(worker)]

    def _work(self, worker: int, seat: _Seat) -> list[Event]:
        while seat.inbox[0][0] == "begin":
            _, step = seat.inbox.popleft()
            seat.worker.begin(_loaded(step))
        _, dispatch, first, last, number, waiting = seat.inbox[0]
        is_call = last is None
        units = set() if is_call else {(seat.worker.step, unit) for unit in range(first, last)}
        self.evaluated.append((worker, first, last, waiting == 0 and len(seat.inbox) == 1))
        if number in self.faults.kill_before or units & set(self.faults.poison):
            self.die(worker)
            return []
        if units & set(self.faults.hang):
            seat.hangs = True
            return []
        if not is_call and self.faults.cut and self.random.random() < self.faults.cut:
            last = self.random.randint(first + 1, last)
        answer = seat.worker.call(_loaded(first)) if is_call else seat.worker.evaluate(first, last)
        if number in self.faults.kill_after:
            self.die(worker)
            return []
        seat.inbox.popleft()
        if not is_call:
            self.done.append((first, last))
            reply = answer.reply
            seconds = self.seconds * (last - first)
            answer = answer._replace(reply=Reply(reply.start, reply.values, reply.failures, seconds))
        event = Answered(worker, dispatch, answer)
        self.received += len(encode_plain(answer))
        if self.random.random() < self.faults.duplicate:
            self.late.append(event)
        return [event]

    def pids(self) -> list[int]:
        return list(self.seats)

    def close(self) -> None:
        self.closed = True
        self.seats.clear()


def _loaded(message: Message) -> object:
    return decode(message.body, [memoryview(bytes(base.buffer)) for base in message.bases])


class Fake(Pooled):
    """An executor over `FakeTransport`; `seconds` is what a unit is said to take."""

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
        self.transport: FakeTransport | None = None

    def connect(self, objective: Message) -> Transport:
        self.transport = FakeTransport(objective, self.seed, self.faults, self.seconds)
        return self.transport
