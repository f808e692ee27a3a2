"""The workers' life: who is there, what each has under way, who is late or gone, and what that costs.

What is to be done is a plan's affair (units of a step in `zoo.execution.units`, stateful parts in
`zoo.execution.shards`); here it is sent, waited for, and told lost when its worker died. Two dispatches are
under way per worker, so that none waits for the driver. A worker that dies is replaced; one that is at a
dispatch for longer than that is allowed to take is ended, and so dies.

Clocks and luck decide who does what and when, never what comes out.
"""

from __future__ import annotations

import abc
import math
import time
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zoo.core.errors import Interrupt, WorkerError, ZooWarning
from zoo.execution import interrupts
from zoo.execution.executor import LIMIT_SECONDS
from zoo.execution.ledger import Account
from zoo.execution.transport import Answered, Died, Event, Failed, Ready, Transport

WAIT_SECONDS = 0.2
"""Longest wait without a look at signals, deadlines and stragglers."""

DEPTH = 2
"""Dispatches under way per worker."""

_LOOK_SECONDS = 0.05  # between looks at all deadlines
_STARTS = 3  # workers that may die in a row before one of them got ready, or one more than there are to be
_PATIENCE_SECONDS = 60.0  # without any worker, before a warning
_DRAIN_SECONDS = LIMIT_SECONDS + 0.3  # in which a run that was asked to stop still takes answers
_STALE_SECONDS = 10.0  # that a worker may go on with what others have done meanwhile


@dataclass(slots=True, eq=False)
class Dispatch:
    """Something under way on a worker.

    Attributes:
        plan: Whose it is.
        what: What it is, which is the plan's own business.
        size: Units or parts in it.
        alone: Whether nothing else may be under way on the same worker.
        allowance: Seconds it may take.
        since: When its worker began with it, infinite as long as something else comes first.
    """

    plan: Plan
    what: Any
    size: int
    alone: bool = False
    allowance: float = math.inf
    since: float = math.inf


@dataclass(slots=True, eq=False)
class Hand:
    """A worker, as the driver knows it.

    Attributes:
        number: Its number, never given twice.
        seat: Its place among the workers there are to be; a replacement takes the place it fills.
        ready: Whether it has loaded the objective.
        heard: Whether it has said anything since another one died. Where many die at once the driver hears of
            them one by one, and one that is silent may be dead as well.
        under_way: Its dispatches by number, in the order in which it does them.
        memory: Notes of plans on what they have left with the worker.
    """

    number: int
    seat: int
    ready: bool = False
    heard: bool = True
    under_way: dict[int, Dispatch] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> Dispatch | None:
        """What it is at."""
        return next(iter(self.under_way.values()), None)


@dataclass(slots=True)
class _Seat:
    """How long a place among the workers was taken, and how long of that there was work at it."""

    busy: float = 0.0
    taken: float = 0.0
    since: float | None = None  # when its worker got ready


class Plan(abc.ABC):
    """What is to be done, and what follows from what was done or lost."""

    account: Account
    """Where losses are counted."""

    @property
    @abc.abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to wait for."""

    @property
    @abc.abstractmethod
    def succeeded(self) -> bool:
        """Whether anything was ever done without taking its worker along."""

    @abc.abstractmethod
    def next(self, hand: Hand, crew: Crew) -> Dispatch | None:
        """Return what to give to a worker now, or None."""

    @abc.abstractmethod
    def send(self, dispatch: Dispatch, number: int, hand: Hand, transport: Transport) -> None:
        """Hand a dispatch to the transport."""

    @abc.abstractmethod
    def answered(self, dispatch: Dispatch, answer: Any, hand: Hand) -> None:
        """Take an answer."""

    @abc.abstractmethod
    def seconds(self, answer: Any) -> float:
        """Return the seconds of work that went into an answer."""

    @abc.abstractmethod
    def lost(self, dispatches: list[Dispatch], *, alone: bool) -> None:
        """Take note that a worker died over these, one of them `alone` on it or not."""

    @abc.abstractmethod
    def hung(self, dispatch: Dispatch, queued: list[Dispatch]) -> None:
        """Take note that a worker was ended over the first, and had not begun the others."""

    @abc.abstractmethod
    def event(self, **fields: Any) -> None:
        """Report something worth a line in `events.jsonl`."""


class Crew:
    """A number of workers, kept up, and driven through one plan after the other.

    Args:
        transport: How to reach them.
        num_workers: How many there are to be.
        max_attempts: Deaths of a worker under a unit alone, after which that unit is given up.
    """

    def __init__(self, transport: Transport, num_workers: int, max_attempts: int) -> None:
        self.num_workers, self.max_attempts = num_workers, max_attempts
        self.hands: dict[int, Hand] = {}
        self._transport = transport
        self._seats = [_Seat() for _ in range(num_workers)]
        self._started = 0  # workers, over all
        self._dispatched = 0  # dispatches, over all
        self._heard: deque[Event] = deque()  # not acted on yet
        self._late: dict[int, Dispatch] = {}  # by worker that was ended for it
        self._looked = -math.inf  # at all deadlines
        self._failed_starts = 0  # in a row
        self._deaths = 0  # since the last answer
        self._warn_at = time.monotonic() + _PATIENCE_SECONDS  # unless a worker gets ready before

    def start(self) -> None:
        """Begin to start the workers that are missing."""
        if len(self.hands) == self.num_workers:
            return
        taken = {hand.seat for hand in self.hands.values()}
        for seat in range(self.num_workers):
            if seat not in taken:
                number, self._started = self._started, self._started + 1
                self._transport.start(number)
                self.hands[number] = Hand(number, seat)

    def drive(self, plan: Plan) -> None:
        """Have a plan carried out.

        Raises:
            WorkerError: Starting yet another worker would be in vain.
            Interrupt: A signal asked to stop; what came in soon after is with the plan.
        """
        self.start()
        try:
            self._listen(0.0)  # who died since the last plan is not to be given anything
            self._act(plan)
            while not plan.done:
                self._fill(plan)
                self._listen(WAIT_SECONDS)
                self._act(plan)
                self._end_the_late()
                try:
                    interrupts.check()
                except Interrupt:
                    self._drain(plan)
                    raise
                self._warn()
        finally:
            self._abandon()
            self._settle(plan.account)

    def others(self, hand: Hand) -> Iterator[Hand]:
        """Yield the workers that are up, but for one."""
        return (other for other in self.hands.values() if other is not hand and other.ready)

    def _fill(self, plan: Plan) -> None:
        # One for each worker before a second one for any: at the end of a step there may be few.
        for depth in range(DEPTH):
            for hand in self.hands.values():
                if not hand.ready or len(hand.under_way) != depth or hand.number in self._late:
                    continue
                if any(dispatch.alone or dispatch.plan is not plan for dispatch in hand.under_way.values()):
                    continue
                dispatch = plan.next(hand, self)
                if dispatch is not None:
                    plan.send(dispatch, self._dispatched, hand, self._transport)
                    dispatch.since = math.inf if hand.under_way else time.monotonic()
                    hand.under_way[self._dispatched] = dispatch
                    self._dispatched += 1

    def _listen(self, seconds: float) -> None:
        began = time.monotonic()
        self._heard.extend(self._transport.poll(seconds))
        halted = time.monotonic() - began - seconds - WAIT_SECONDS
        if halted > 0:
            # This process or all of the machine was stopped for a while: that is nobody's working time.
            for hand in self.hands.values():
                if hand.head is not None:
                    hand.head.since += halted

    def _act(self, plan: Plan) -> None:
        # What is not acted on here, since something before it ended the step, is so in the next one.
        while self._heard:
            self._take(self._heard.popleft(), plan)

    def _take(self, event: Event, plan: Plan) -> None:
        hand = self.hands.get(event.worker)
        if hand is None:
            return  # a late word from one that is dead already
        if isinstance(event, Answered):
            dispatch = hand.under_way.pop(event.dispatch, None)
            if dispatch is None:
                return  # an answer that came twice
            hand.heard = True
            if (head := hand.head) is not None and head.since == math.inf:
                head.since = time.monotonic()
            self._deaths = 0
            self._seats[hand.seat].busy += dispatch.plan.seconds(event.answer)
            if dispatch.plan is plan:  # else it belongs to a step that is over
                plan.answered(dispatch, event.answer, hand)
        elif isinstance(event, Ready):
            hand.ready = hand.heard = True
            self._seats[hand.seat].since = time.monotonic()
            self._failed_starts, self._warn_at = 0, math.inf
        elif isinstance(event, Failed):
            self._transport.end(event.worker)
            raise WorkerError(event.message)
        else:
            self._replace(self.hands.pop(event.worker), event.reason, plan)

    def _replace(self, hand: Hand, reason: str, plan: Plan) -> None:
        self._leave(hand)
        late = self._late.pop(hand.number, None)
        mine = [dispatch for dispatch in hand.under_way.values() if dispatch.plan is plan]
        size = sum(dispatch.size for dispatch in mine)
        plan.account.lost += size
        if late is not None:
            reason = (
                f"it was at one dispatch for more than {late.allowance:.3g} s, and was ended for it"
                if late.plan is plan
                else "it was ended, still at what others had done meanwhile"
            )
        plan.event(event="worker lost", worker=hand.number, reason=reason, units=size)
        if late is None:
            self._judge(hand, reason, plan)
            for other in self.hands.values():
                other.heard = False
            if mine:
                plan.lost(mine, alone=len(hand.under_way) == 1)
        elif late.plan is plan and late is hand.head:
            plan.hung(late, mine[1:])
        elif mine:  # it answered that one after all, as its end was under way
            plan.lost(mine, alone=False)
        plan.account.restarts += 1
        plan.event(event="worker restarted", worker=self._started, replaces=hand.number)
        self.start()
        if math.isinf(self._warn_at) and not any(other.ready for other in self.hands.values()):
            self._warn_at = time.monotonic() + _PATIENCE_SECONDS

    def _leave(self, hand: Hand) -> None:
        seat = self._seats[hand.seat]
        if seat.since is not None:
            seat.taken += time.monotonic() - seat.since
            seat.since = None

    def _judge(self, hand: Hand, reason: str, plan: Plan) -> None:
        """Raise `WorkerError` if starting yet another worker would be in vain."""
        if not hand.ready:
            self._failed_starts += 1
            if self._failed_starts >= max(_STARTS, self.num_workers + 1):
                raise WorkerError(
                    f"{self._failed_starts} workers in a row ended before they were ready, the last one: "
                    f"{reason}\nCheck that the objective can be imported in a fresh process and that "
                    "there is memory for it, or use workers=1."
                )
        elif hand.under_way:
            self._deaths += 1
            if self._deaths >= 4 * self.max_attempts and not plan.succeeded:
                raise WorkerError(
                    f"{self._deaths} workers ended while they evaluated, and no evaluation has succeeded "
                    f"yet; the last one: {reason}\nThe objective seems to end its process: use "
                    "workers=1 to see how."
                )

    def _end_the_late(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for hand in self.hands.values():
            head = hand.head
            if head is not None and now - head.since > head.allowance and hand.number not in self._late:
                self._late[hand.number] = head
                self._transport.end(hand.number)

    def _abandon(self) -> None:
        """Let workers go on for a little only with what others have done meanwhile."""
        now = time.monotonic()
        for hand in self.hands.values():
            for dispatch in hand.under_way.values():
                dispatch.allowance = min(dispatch.allowance, max(0.0, now - dispatch.since) + _STALE_SECONDS)

    def _drain(self, plan: Plan) -> None:
        """Take what is about to be answered: a run that stops should lose as little as can be."""
        awaited = {number for hand in self.hands.values() for number in list(hand.under_way)[:1]}
        until = time.monotonic() + _DRAIN_SECONDS
        while awaited and (left := until - time.monotonic()) > 0:
            for event in self._transport.poll(left):
                if isinstance(event, Answered):
                    awaited.discard(event.dispatch)
                    self._take(event, plan)
                    continue
                self._heard.append(event)
                if isinstance(event, Died) and event.worker in self.hands:
                    awaited -= self.hands[event.worker].under_way.keys()

    def _warn(self) -> None:
        if time.monotonic() > self._warn_at:
            self._warn_at = math.inf
            warnings.warn(
                f"no worker has got ready for {_PATIENCE_SECONDS:g} s. The objective may take long to "
                "load; if the workers belong to a cluster, see whether it has CPUs to spare.",
                ZooWarning,
                stacklevel=2,
            )

    def _settle(self, account: Account) -> None:
        """Write down what the transport carried, and how busy every place among the workers was."""
        account.sent, account.received = self._transport.sent, self._transport.received
        now = time.monotonic()
        taken = [seat.taken + (now - seat.since if seat.since is not None else 0.0) for seat in self._seats]
        account.busy = tuple(
            round(seat.busy / time_taken, 4) if time_taken > 0 else 0.0
            for seat, time_taken in zip(self._seats, taken, strict=True)
        )
