"""Who evaluates which units, and what happens when a worker dies: scheduling, over any transport.

Units travel in dispatches: runs of consecutive units worth about a tenth of a second by a running
estimate, but no more than a fair share of what is left; two are under way per worker, so that none
waits for the driver. A worker that has taken too long returns what it has, and the rest is issued again.
Replies are taken in any order.
Clocks and luck decide who evaluates a unit and when; the values are those of `Serial`, to the last bit.

A worker that dies is replaced. Everything it had not answered is suspect and issued again one unit at
a time, each alone on its worker, so that a unit which takes its worker along is told from those that
were merely near it. Only such a solitary attempt counts against a unit.
"""

from __future__ import annotations

import abc
import contextlib
import math
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from zoo.core.errors import WorkerError, ZooWarning
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Reply
from zoo.core.validation import check_count
from zoo.execution import interrupts
from zoo.execution.executor import DISPATCH_SECONDS, Executor, first_left, opened
from zoo.execution.ledger import Ledger
from zoo.execution.worker import encode, encode_objective

WAIT_SECONDS = 0.2
"""Longest wait without a look at whether a signal asked to stop."""

_LEAST_SECONDS = 0.001  # below that, a dispatch costs more than sharing it out would save
_DEPTH = 2  # dispatches under way per worker
_STARTS = 3  # workers that may die in a row before one of them got ready
_PATIENCE_SECONDS = 60.0  # without any worker, before a warning


class Ready(NamedTuple):
    """A worker has loaded the objective."""

    worker: int


class Answered(NamedTuple):
    """A worker has evaluated a dispatch, or the first units of it."""

    worker: int
    dispatch: int
    reply: Reply


class Died(NamedTuple):
    """A worker is no more, and `reason` says what is known of it; nothing follows from it any more."""

    worker: int
    reason: str


class Failed(NamedTuple):
    """A worker cannot do what it is there for, and no other would do better."""

    worker: int
    message: str


Event: TypeAlias = Ready | Answered | Died | Failed


class Transport(Protocol):
    """How messages reach workers. None of this may block, except `poll` up to its timeout.

    A worker is known by a number that is never given twice. It is sent the objective as it starts.
    Messages to one worker arrive in order; those to a dead one go nowhere, its death is told by `poll`.
    """

    def start(self, worker: int) -> None:
        """Begin to start a worker; `Ready`, `Failed` or `Died` will tell of it."""
        ...

    def begin(self, worker: int, step: bytes) -> None:
        """Send the step to which the dispatches that follow belong."""
        ...

    def submit(self, worker: int, dispatch: int, first: int, last: int) -> None:
        """Have units `first` to `last` evaluated, or as many as there is time for."""
        ...

    def poll(self, timeout: float) -> Sequence[Event]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        ...

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that are up."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Dispatch(NamedTuple):
    """Units under way: `first` to `last` of step number `serial`."""

    serial: int
    first: int
    last: int


@dataclass(slots=True)
class _Worker:
    ready: bool = False
    serial: int = -1  # of the step it was sent last
    under_way: dict[int, Dispatch] = field(default_factory=dict)


@dataclass(slots=True)
class _Step:
    """What is still to be done in a step."""

    serial: int
    message: bytes
    ledger: Ledger
    pending: deque[tuple[int, int]]  # runs of units
    left: int = 0  # units in `pending`
    suspects: deque[int] = field(default_factory=deque)
    attempts: Counter[int] = field(default_factory=Counter)  # deaths of a worker under this unit alone

    def add(self, first: int, last: int) -> None:
        self.pending.append((first, last))
        self.left += last - first

    def add_first(self, first: int, last: int) -> None:
        self.pending.appendleft((first, last))
        self.left += last - first

    def take(self, size: int) -> tuple[int, int]:
        first, last = self.pending.popleft()
        end = min(first + size, last)
        if end < last:
            self.pending.appendleft((end, last))
        self.left -= end - first
        return first, end


class Pool:
    """Schedules the units of one step after the other on a number of workers.

    Args:
        transport: How to reach them.
        num_workers: How many there are to be.
        max_attempts: Deaths of a worker under a unit alone, after which that unit is given up.
    """

    def __init__(self, transport: Transport, num_workers: int, max_attempts: int) -> None:
        self._transport, self._num_workers, self._max_attempts = transport, num_workers, max_attempts
        self._workers: dict[int, _Worker] = {}
        self._started = 0  # workers, over all
        self._dispatched = 0  # dispatches, over all
        self._serial = 0
        self._seconds: float | None = None  # a unit takes, by a running estimate
        self._failed_starts = 0  # in a row
        self._warn_at = time.monotonic() + _PATIENCE_SECONDS  # unless a worker gets ready before
        self._deaths = 0  # since the last reply

    def start(self) -> None:
        """Begin to start all workers."""
        while len(self._workers) < self._num_workers:
            self._workers[self._started] = _Worker()
            self._transport.start(self._started)
            self._started += 1

    def evaluate(self, candidates: Candidates, key: Key, step: int, ledger: Ledger) -> Evaluations:
        """Evaluate what the ledger does not know yet."""
        self._serial += 1
        todo = ledger.todo
        message = encode((candidates, ledger.boundaries, key, step)) if todo else b""
        state = _Step(self._serial, message, ledger, deque())
        for first, last in todo:
            state.add(first, last)
        while state.left or state.suspects or self._is_under_way():
            self._fill(state)
            for event in self._transport.poll(WAIT_SECONDS):
                self._take(event, state)
            interrupts.check()
            if time.monotonic() > self._warn_at:
                self._warn_at = math.inf
                warnings.warn(
                    f"no worker has got ready for {_PATIENCE_SECONDS:g} s. The objective may take long to "
                    "load; if the workers belong to a cluster, see whether it has CPUs to spare.",
                    ZooWarning,
                    stacklevel=2,
                )
        return ledger.evaluations()

    def _is_under_way(self) -> bool:
        serial = self._serial
        return any(d.serial == serial for worker in self._workers.values() for d in worker.under_way.values())

    def _fill(self, state: _Step) -> None:
        # One for each worker before a second one for any: at the end of a step there may be few.
        for depth in range(_DEPTH):
            for number, worker in self._workers.items():
                if not worker.ready or len(worker.under_way) != depth:
                    continue
                if state.suspects:
                    # Workers are left to run empty meanwhile: a suspect is to be alone on its worker.
                    if depth == 0:
                        unit = state.suspects.popleft()
                        self._submit(number, worker, state, unit, unit + 1)
                elif state.left and not self._has_suspect(worker, state):
                    self._submit(number, worker, state, *state.take(self._size(state.left)))

    def _has_suspect(self, worker: _Worker, state: _Step) -> bool:
        return any(dispatch.first in state.attempts for dispatch in worker.under_way.values())

    def _size(self, left: int) -> int:
        if self._seconds is None:
            return 1
        share = -(-left // (_DEPTH * self._num_workers))
        return max(1, int(_LEAST_SECONDS / self._seconds), min(share, int(DISPATCH_SECONDS / self._seconds)))

    def _submit(self, number: int, worker: _Worker, state: _Step, first: int, last: int) -> None:
        if worker.serial != state.serial:
            self._transport.begin(number, state.message)
            worker.serial = state.serial
        worker.under_way[self._dispatched] = Dispatch(state.serial, first, last)
        self._transport.submit(number, self._dispatched, first, last)
        self._dispatched += 1

    def _take(self, event: Event, state: _Step) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return  # a late word from one that is dead already
        if isinstance(event, Answered):
            dispatch = worker.under_way.pop(event.dispatch, None)
            if dispatch is None:
                return  # an answer that came twice
            self._deaths = 0
            if dispatch.serial != state.serial:
                return  # to a step that was abandoned
            end = first_left(state.ledger.boundaries, dispatch.first, event.reply)
            self._learn(event.reply.seconds / (end - dispatch.first))
            if end < dispatch.last:
                state.add_first(end, dispatch.last)
            for unit in state.ledger.add(event.reply):
                state.add(unit, unit + 1)
        elif isinstance(event, Ready):
            worker.ready = True
            self._failed_starts, self._warn_at = 0, math.inf
        elif isinstance(event, Failed):
            raise WorkerError(event.message)
        else:
            self._replace(event, self._workers.pop(event.worker), state)

    def _learn(self, seconds: float) -> None:
        # A geometric mean: a first call that imported half of the world is forgotten in a few replies.
        seconds = max(seconds, 1e-7)
        self._seconds = seconds if self._seconds is None else (self._seconds * seconds) ** 0.5

    def _replace(self, death: Died, worker: _Worker, state: _Step) -> None:
        ledger = state.ledger
        lost = [dispatch for dispatch in worker.under_way.values() if dispatch.serial == state.serial]
        units = [unit for dispatch in lost for unit in range(dispatch.first, dispatch.last)]
        ledger.account.lost += len(units)
        ledger.event(event="worker lost", worker=death.worker, reason=death.reason, units=len(units))
        self._judge(death, worker, ledger)
        alone = len(worker.under_way) == len(units) == 1
        for unit in units:
            state.attempts[unit] += alone
            if state.attempts[unit] >= self._max_attempts:
                ledger.crashed(unit, state.attempts[unit])
            else:
                state.suspects.append(unit)
        ledger.account.restarts += 1
        ledger.event(event="worker restarted", worker=self._started, replaces=death.worker)
        self.start()

    def _judge(self, death: Died, worker: _Worker, ledger: Ledger) -> None:
        """Raise `WorkerError` if starting yet another worker would be in vain."""
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise WorkerError(
                    f"{self._failed_starts} workers in a row ended before they were ready, the last one: "
                    f"{death.reason}\nCheck that the objective can be imported in a fresh process and that "
                    "there is memory for it, or use workers=1."
                )
        elif worker.under_way:
            self._deaths += 1
            if self._deaths >= 4 * self._max_attempts and not ledger.succeeded:
                raise WorkerError(
                    f"{self._deaths} workers ended while they evaluated, and no evaluation has succeeded "
                    f"yet; the last one: {death.reason}\nThe objective seems to end its process: use "
                    "workers=1 to see how."
                )


class Pooled(Executor):
    """An executor whose workers are reached by a transport.

    Args:
        num_workers: How many workers.
        max_attempts: Deaths of a worker under one unit alone, after which its evaluations are failed.
        threads: Threads of numerical libraries in each worker. It belongs to the experiment: the last
            bits of sums may depend on it.
    """

    def __init__(self, num_workers: int, *, max_attempts: int = 3, threads: int = 1) -> None:
        self.num_workers = check_count("num_workers", num_workers)
        self.max_attempts = check_count("max_attempts", max_attempts)
        self.threads = check_count("threads", threads)
        self._objective: Objective | None = None
        self._pool: Pool | None = None
        self._transport: Transport | None = None

    @abc.abstractmethod
    def connect(self, objective: bytes) -> Transport:
        """Return a transport to workers that are to load `objective`; none is started yet."""

    @contextlib.contextmanager
    def open(self, objective: Objective) -> Iterator[None]:
        if self._pool is not None:
            raise RuntimeError(f"this {type(self).__name__} is open already; make another one.")
        transport = self.connect(encode_objective(objective))
        self._objective, self._transport = objective, transport
        self._pool = Pool(transport, self.num_workers, self.max_attempts)
        try:
            self._pool.start()
            yield
        finally:
            self._objective = self._pool = self._transport = None
            transport.close()

    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        objective = opened(self._objective)
        assert self._pool is not None
        return self._pool.evaluate(candidates, key, step, ledger or Ledger(objective.units(candidates)))

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that are up, on whichever machine."""
        return [] if self._transport is None else self._transport.pids()

    def describe(self) -> dict[str, Any]:
        return {"executor": type(self).__name__, "num_workers": self.num_workers, "threads": self.threads}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_workers})"
