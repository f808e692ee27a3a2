"""The units of a step: who evaluates which, and what happens when one of them ends or outlasts its worker.

Units travel in dispatches: runs of consecutive units worth about a tenth of a second by a running
estimate, but no more than a fair share of what is left. A worker that has taken too long returns what it
has, and the rest is issued again. Replies are taken in any order; the values are those of `Serial`, to
the last bit.

Everything that a dead worker had not answered is suspect and issued again one unit at a time, each alone
on its worker, so that a unit which takes its worker along is told from those that were merely near it.
Only such a solitary attempt counts against a unit.

At the end of a step, what a worker has been at for three times as long as is usual also goes to one that
has nothing to do, and the first answer counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, deque
from typing import NamedTuple, Protocol

from zoo.core.errors import WorkerError
from zoo.execution.crew import DEPTH, Crew, Dispatch, Hand, Plan
from zoo.execution.executor import DISPATCH_SECONDS, LIMIT_SECONDS, first_left
from zoo.execution.ledger import Ledger
from zoo.execution.packing import Message
from zoo.execution.transport import Transport
from zoo.execution.worker import Answer

_LEAST_SECONDS = 0.001  # below that, a dispatch costs more than sharing it out would save
_SHARES = 3  # dispatches into which each worker's part of what is left is cut, at least
_STRAGGLING = 3.0  # times the usual duration
_LOOK_SECONDS = 0.05  # between looks at all workers for what is straggling
_FEW = 5  # durations, from which on the usual one is known


class Pace:
    """How long units take, from step to step."""

    def __init__(self) -> None:
        self.seconds: float | None = None  # by a running estimate
        self._recent: deque[float] = deque(maxlen=64)

    def learn(self, seconds: float) -> None:
        """Take note of what a unit took."""
        # A geometric mean: a first call that imported half of the world is forgotten in a few replies.
        seconds = max(seconds, 1e-7)
        self.seconds = seconds if self.seconds is None else (self.seconds * seconds) ** 0.5
        self._recent.append(seconds)

    @property
    def usual(self) -> float:
        """The median of what units took lately, infinite as long as there are few."""
        return statistics.median(self._recent) if len(self._recent) >= _FEW else math.inf


class Source(Protocol):
    """Where workers get a step from."""

    digest: str
    """What an answer must carry to be of this step, or "" if that is not looked at."""

    def message(self, hand: Hand) -> Message:
        """Return what a worker has to be sent before it can evaluate units of the step."""
        ...

    def drifted(self, hand: Hand) -> None:
        """Take note that an answer of this worker was of something else, for the first time."""
        ...


class Units(NamedTuple):
    """A run of consecutive units, and whether another worker is at them already."""

    first: int
    last: int
    copied: bool = False


class Evaluation(Plan):
    """The evaluation of what a ledger does not know yet.

    Args:
        serial: Number that tells this step from every other one the workers were sent.
        source: Where workers get its candidates from.
        ledger: The account of the step.
        pace: What is known of how long units take.
        num_workers: Among how many they are shared out.
        max_attempts: Deaths of a worker under a unit alone, after which that unit is given up.
        timeout: Seconds that a unit may take.
    """

    def __init__(
        self,
        serial: int,
        source: Source,
        ledger: Ledger,
        pace: Pace,
        *,
        num_workers: int,
        max_attempts: int,
        timeout: float | None,
    ) -> None:
        self._serial, self._source, self._ledger, self._pace = serial, source, ledger, pace
        self._num_workers, self._max_attempts, self._timeout = num_workers, max_attempts, timeout
        self._pending = deque(ledger.todo)
        self._left = sum(last - first for first, last in self._pending)
        self._out = 0  # units under way, over all workers
        self._looked = -math.inf  # when nothing was found to be straggling
        self._suspects: deque[int] = deque()
        self._attempts: Counter[int] = Counter()  # deaths of a worker under this unit alone
        self.account = ledger.account

    @property
    def done(self) -> bool:
        return self._ledger.complete

    @property
    def succeeded(self) -> bool:
        return self._ledger.succeeded

    def next(self, hand: Hand, crew: Crew) -> Dispatch | None:
        while self._suspects and self._ledger.knows(self._suspects[0]):
            self._suspects.popleft()  # another one had it as well, and has answered
        if self._suspects:
            # Workers are left to run empty meanwhile: a suspect is to be alone on its worker, and on one that
            # may be dead as well an attempt would say nothing. A replacement is on its way in any case.
            if hand.under_way or not hand.heard:
                return None
            unit = self._suspects.popleft()
            return self._dispatch(Units(unit, unit + 1), alone=True)
        if self._left:
            size = self._size(hand)
            return self._dispatch(self._take(size)) if size else None
        return None if hand.under_way else self._straggling(hand, crew)

    def send(self, dispatch: Dispatch, number: int, hand: Hand, transport: Transport) -> None:
        if hand.memory.get("step") != self._serial:
            transport.begin(hand.number, self._source.message(hand))
            hand.memory["step"] = self._serial
            dispatch.allowance *= 2  # to get there, and ready, the step may take as long as a unit
        transport.evaluate(hand.number, number, dispatch.what.first, dispatch.what.last)

    def answered(self, dispatch: Dispatch, answer: Answer, hand: Hand) -> None:
        units, reply = dispatch.what, answer.reply
        self._out -= dispatch.size
        if answer.digest != self._source.digest:
            self._drifted(hand)
            self._issue_again(units.first, units.last)
            return
        end = first_left(self._ledger.boundaries, units.first, reply)
        self._pace.learn(reply.seconds / (end - units.first))
        self._issue_again(end, units.last)
        for unit in self._ledger.add(reply):
            self._issue_again(unit, unit + 1)

    def seconds(self, answer: Answer) -> float:
        return answer.reply.seconds

    def lost(self, dispatches: list[Dispatch], *, alone: bool) -> None:
        units = [unit for d in dispatches for unit in range(d.what.first, d.what.last)]
        self._out -= len(units)
        for unit in units:
            if self._ledger.knows(unit):
                continue
            self._attempts[unit] += alone and len(units) == 1
            if self._attempts[unit] >= self._max_attempts:
                self._ledger.give_up(unit, "crashed", f"took its worker along {self._attempts[unit]} times")
            else:
                self._suspects.append(unit)

    def hung(self, dispatch: Dispatch, queued: list[Dispatch]) -> None:
        self._out -= dispatch.size
        for other in queued:
            self._out -= other.size
            self._issue_again(other.what.first, other.what.last)
        if dispatch.size > 1:
            self._suspects.extend(range(dispatch.what.first, dispatch.what.last))
        elif not self._ledger.knows(dispatch.what.first):
            self._ledger.give_up(dispatch.what.first, "hung", f"took more than {self._timeout:g} s")

    def event(self, **fields: object) -> None:
        self._ledger.event(**fields)

    def _dispatch(self, units: Units, alone: bool = False) -> Dispatch:
        size = units.last - units.first
        allowance = math.inf
        if self._timeout is not None:
            # A worker begins no further unit after its limit.
            allowance = self._timeout + (LIMIT_SECONDS if size > 1 else 0.0)
        self._out += size
        return Dispatch(self, units, size, alone, allowance)

    def _size(self, hand: Hand) -> int:
        seconds = self._pace.seconds
        if seconds is None:
            return int(not hand.under_way)  # each may take minutes, and what waits behind one, twice that
        share = -(-self._left // (_SHARES * self._num_workers))
        if hand.under_way:
            # What it has already counts, or it would still be at it when the others are done.
            mine = sum(dispatch.size for dispatch in hand.under_way.values())
            share = min(share, (self._left + self._out) // self._num_workers - mine)
        return max(int(_LEAST_SECONDS / seconds), min(share, max(1, int(DISPATCH_SECONDS / seconds))))

    def _take(self, size: int) -> Units:
        first, last = self._pending.popleft()
        end = min(first + size, last)
        if end < last:
            self._pending.appendleft((end, last))
        self._left -= end - first
        return Units(first, end)

    def _issue_again(self, first: int, last: int) -> None:
        if first < last and not all(map(self._ledger.knows, range(first, last))):
            self._pending.appendleft((first, last))
            self._left += last - first

    def _drifted(self, hand: Hand) -> None:
        answers = hand.memory["drifted"] = hand.memory.get("drifted", 0) + 1
        if answers == 1:
            hand.memory.pop("step", None)  # it is to be sent the step once more
            self.event(event="worker drifted", worker=hand.number)
            self._source.drifted(hand)
        elif answers > DEPTH:
            raise WorkerError(
                f"worker {hand.number} was sent the state of the run, and still evaluates another one. Use "
                "the same versions of libraries on all machines, or replicated=False."
            )

    def _straggling(self, hand: Hand, crew: Crew) -> Dispatch | None:
        """Return what another worker has been at for long, or has waiting behind that."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return None
        usual = self._pace.usual
        for other in crew.others(hand):
            head = other.head
            if head is None or head.plan is not self:
                continue
            if now - head.since < _STRAGGLING * max(usual * head.size, DISPATCH_SECONDS):
                continue
            for dispatch in reversed(other.under_way.values()):  # what it has not begun is best taken over
                units = dispatch.what
                if not units.copied and not all(map(self._ledger.knows, range(units.first, units.last))):
                    dispatch.what = units._replace(copied=True)
                    self.account.speculated += dispatch.size
                    self.event(
                        event="speculated", worker=hand.number, beside=other.number, units=dispatch.size
                    )
                    return self._dispatch(dispatch.what)
        self._looked = now
        return None
