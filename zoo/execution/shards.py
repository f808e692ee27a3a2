"""Stateful parts on workers, as the driver sees them: where each lives, and how it came to its state.

A call visits its parts where they live, all of one worker's in one trip; a worker that has been at it for
long returns what it has done, and is sent for the rest. Nothing is final before the call is over: if it
ends by an exception, every part is again what it was before.

For each part the driver keeps a snapshot, and the messages since with the values they led to. So any
worker can make it anew, and does when the one it lived on has died: the first that has nothing else to do
and does not have its fair share of parts already. What a dead worker was at is suspect, and tried again
one part at a time, each alone on its worker; only such an attempt counts against a part.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from zoo.core.errors import EvaluationError, Interrupt, WorkerError
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Failure
from zoo.core.validation import check_choice, check_count, check_flag
from zoo.execution import interrupts
from zoo.execution.crew import Crew, Dispatch, Hand, Plan
from zoo.execution.executor import LIMIT_SECONDS
from zoo.execution.ledger import Account
from zoo.execution.packing import encode, summary
from zoo.execution.parts import Done, History, Logged, Outcome, Packed, Part, PartReply, Trip, Visit
from zoo.execution.transport import Transport

LOGGED = 8
"""Messages, after which a part is asked for a snapshot."""

_PATIENCE = 4  # times as many deaths as under other parts, after which one that is set aside is given up
_LENIENT_SECONDS = 10.0  # that lenient parts may take over a message beyond what a unit may
_LOGGED_BYTES = 2**20  # of log, from which on one is asked for earlier, if it is not larger itself


@dataclass(slots=True, eq=False)
class _Track:
    """A part, as the driver knows it.

    Attributes:
        number: Which one it is.
        home: Worker that has its state, if that is still up.
        snapshot: A state it was in, None for that in which it was made.
        log: What it has handled since.
        weight: Bytes of the log; a message that several parts were sent is shared out among them.
        handled: Messages it has handled, over all.
    """

    number: int
    home: int | None = None
    snapshot: Packed | None = None
    log: list[Logged] = field(default_factory=list)
    weight: int = 0
    handled: int = 0

    def is_due(self, weight: int, most: int) -> bool:
        """Return whether a snapshot is to come with the reply to a message of that weight."""
        largest = max(_LOGGED_BYTES, self.snapshot.size if self.snapshot else 0)
        # Not of all parts in the same call.
        return (self.handled + self.number) % most == 0 or self.weight + weight > largest

    def settle(self, snapshot: Packed) -> None:
        """Take a snapshot of the state it is in."""
        self.snapshot, self.log, self.weight = snapshot, [], 0

    def add(self, logged: Logged, weight: int) -> None:
        """Take note that a message was handled."""
        self.log.append(logged)
        self.weight += weight + sum(values.nbytes for values in logged.values)


@dataclass(slots=True, eq=False)
class _Abroad:
    """What the driver knows of some shards at one worker.

    Attributes:
        furnished: Whether it has the factory.
        call: Number of the last call it was sent something of.
        waiting: Parts whose visits of that call wait there.
        forget: Parts it has, and need not keep.
    """

    furnished: bool = False
    call: int = 0
    waiting: set[int] = field(default_factory=set)
    forget: list[int] = field(default_factory=list)


class _Common(NamedTuple):
    """What all calls of some shards have in common."""

    name: str
    factory: Packed | Callable[[int], Part]
    tracks: list[_Track]
    timeout: float | None
    max_attempts: int
    event: Callable[[dict[str, Any]], None] | None
    account: Account
    lenient: bool

    def abroad(self, hand: Hand) -> _Abroad:
        """Return what is known of these shards at a worker."""
        known: _Abroad = hand.memory.setdefault(self.name, _Abroad())
        return known


class Call(Plan):
    """One call: which parts are still to be visited, and what came of the others.

    Args:
        common: Whose call it is.
        number: Which one.
        key: Its randomness.
        visits: What is wanted of each part.
        known: What is on record of their queries.
        on_error: "raise" or "nan".
        record: Called with what came of a part, if that adds to what is on record.
    """

    def __init__(
        self,
        common: _Common,
        number: int,
        key: Key,
        visits: Iterable[Visit],
        *,
        known: Mapping[int, PartReply] | None = None,
        on_error: str = "raise",
        record: Callable[[int, PartReply], None] | None = None,
    ) -> None:
        self.account = common.account
        self.replies: dict[int, PartReply] = {}
        self.snapshots: dict[int, Packed] = {}
        self.reached: set[int] = set()
        self._common, self._number, self._key = common, number, key
        self._on_error, self._record = on_error, record
        self._visits = {visit.part: visit for visit in visits}
        self._recorded, self._known = known or {}, dict(known or {})
        self._suspects: deque[int] = deque()
        self._attempts: Counter[int] = Counter()  # deaths of a worker under this part alone
        self._raised: set[int] = set()
        self._hopeless: dict[int, EvaluationError] = {}
        self._queues: dict[int | None, list[int]] = {None: []}  # by home, those without one under None
        for part in self._visits:
            self._queues.setdefault(common.tracks[part].home, []).append(part)

    @property
    def done(self) -> bool:
        return len(self.replies) == len(self._visits)

    @property
    def succeeded(self) -> bool:
        return any(reply.error is None for reply in self.replies.values()) or any(
            track.handled for track in self._common.tracks
        )

    def next(self, hand: Hand, crew: Crew) -> Dispatch | None:
        return self.take(hand, crew.hands)

    def take(self, hand: Hand, hands: Mapping[int, Hand]) -> Dispatch | None:
        """Return a trip to a worker, if there is anything to do for it."""
        if hand.under_way or (self._suspects and not hand.heard):
            return None
        parts = [self._suspects.popleft()] if self._suspects else self._queued(hand, hands)
        if not parts:
            return None
        self.reached.update(parts)
        for part in parts:
            track, visit = self._common.tracks[part], self._visits[part]
            if track.home != hand.number:
                self._visits[part] = visit._replace(history=History(track.snapshot, tuple(track.log)))
                track.home = hand.number
        return Dispatch(self, parts, len(parts), allowance=self._allowance(parts))

    def trip(self, parts: list[int], hand: Hand) -> Trip:
        """Return what a worker has to be told to visit some parts."""
        common, abroad = self._common, self._common.abroad(hand)
        if abroad.call != self._number:
            abroad.call, abroad.waiting = self._number, set()
        visits = tuple(self._visits[part] for part in parts if part not in abroad.waiting)
        abroad.waiting.update(parts)
        factory = None if abroad.furnished else common.factory
        forget, abroad.furnished, abroad.forget = tuple(abroad.forget), True, []
        return Trip(common.name, factory, self._number, self._key, forget, visits, tuple(parts))

    def send(self, dispatch: Dispatch, number: int, hand: Hand, transport: Transport) -> None:
        transport.call(hand.number, number, encode(self.trip(dispatch.what, hand)))

    def answered(self, dispatch: Dispatch, answer: Done, hand: Hand) -> None:
        if rest := dispatch.what[len(answer.outcomes) :]:
            self._queues[hand.number] = rest
        self._common.abroad(hand).waiting.difference_update(outcome.part for outcome in answer.outcomes)
        for outcome in answer.outcomes:
            self._take(outcome, hand)
        self._judge()

    def seconds(self, answer: Done) -> float:
        return answer.seconds

    def lost(self, dispatches: list[Dispatch], *, alone: bool) -> None:
        parts = [part for dispatch in dispatches for part in dispatch.what]
        for part in parts:
            self._attempts[part] += alone and len(parts) == 1
            if self._attempts[part] and self._set_aside(part):
                self._suspects.append(part)
            elif self._attempts[part] >= self._most_attempts(part):
                self._give_up(part, "crashed", f"took its worker along {self._attempts[part]} times")
            else:
                self._suspects.append(part)

    def hung(self, dispatch: Dispatch, queued: list[Dispatch]) -> None:
        if dispatch.size > 1:
            self._suspects.extend(dispatch.what)
        elif self._set_aside(dispatch.what[0]):
            self._suspects.append(dispatch.what[0])
        else:
            self._give_up(dispatch.what[0], "hung", f"took more than {self._common.timeout:g} s")

    def event(self, **fields: Any) -> None:
        if self._common.event is not None:
            self._common.event(fields)

    def _most_attempts(self, part: int) -> int:
        """Return after how many deaths under it alone a part is given up; more where it evaluates nothing."""
        return self._common.max_attempts * (_PATIENCE if self._visits[part].aside else 1)

    def _set_aside(self, part: int) -> bool:
        """Have a part visited once more without evaluating anything, if that is allowed and not tried yet."""
        visit = self._visits[part]
        if not self._common.lenient or visit.aside:
            return False
        self._visits[part] = visit._replace(aside=True)
        self._attempts[part] = 0
        return True

    def _queued(self, hand: Hand, hands: Mapping[int, Hand]) -> list[int]:
        """Return the parts that wait for a worker, or some that it is to make anew."""
        orphans = self._queues[None]
        for home in [home for home in self._queues if home is not None and home not in hands]:
            orphans += self._queues.pop(home)
        mine = self._queues.pop(hand.number, [])
        if mine or not orphans:
            return mine
        up = sum(other.ready for other in hands.values())
        homes = Counter(track.home for track in self._common.tracks)
        room = max(0, -(-len(self._common.tracks) // up) - homes[hand.number])
        if up < len(hands):
            room = min(room, -(-len(orphans) // (2 * len(hands))))  # the others may get ready soon
        self._queues[None] = orphans[room:]
        return orphans[:room]

    def _allowance(self, parts: list[int]) -> float:
        if self._common.timeout is None:
            return math.inf
        # To be made anew may take as long as to handle each message of the log, and to be made.
        histories = [history for part in parts if (history := self._visits[part].history) is not None]
        most = max((2 + len(history.log) for history in histories), default=1)
        # Others of the trip may come first; lenient parts do more than evaluate one unit.
        return most * self._common.timeout + (_LENIENT_SECONDS if self._common.lenient else LIMIT_SECONDS)

    def _take(self, outcome: Outcome, hand: Hand) -> None:
        part, error, known = outcome.part, outcome.error, self._known.get(outcome.part, PartReply())
        self.account.retries += outcome.retries
        if len(outcome.values) >= len(known.values):
            known = PartReply(None, outcome.values, known.failures + outcome.failures)
        raised = [failure for failure in outcome.failures if failure.kind == "raised"]
        if raised and self._on_error == "raise":
            self._hopeless[part] = _error(f"a query of part {part} raised twice", raised[0])
        elif error is None:
            reply = None if outcome.reply is None else outcome.reply.load()
            self._finish(part, known._replace(reply=reply), outcome.snapshot)
        else:
            self._common.tracks[part].home = None
            if part not in self._raised:
                self._raised.add(part)
                self.event(event="part raised", part=part, message=error.message)
                self._known[part] = known
                self._visits[part] = self._visits[part]._replace(known=known.values)
                self._queues.setdefault(hand.number, []).append(part)
            elif self._on_error == "raise":
                self._hopeless[part] = _error(f"part {part} raised twice", error)
            else:
                self._finish(part, known._replace(error=error))

    def _give_up(self, part: int, kind: str, message: str) -> None:
        self.account.quarantined += 1
        self.event(event="quarantined", part=part, kind=kind, message=message)
        self._finish(part, PartReply(error=Failure(part, kind, message)))
        self._judge()

    def _finish(self, part: int, reply: PartReply, snapshot: Packed | None = None) -> None:
        self.replies[part] = reply
        if snapshot is not None:
            self.snapshots[part] = snapshot
        adds = len(reply.values) > len(self._recorded.get(part, PartReply()).values)
        if self._record is not None and (adds or reply.error is not None):
            self._record(part, reply)

    def _judge(self) -> None:
        """End the call if it must, once all parts below the one to blame have replied."""
        if self._hopeless:
            lowest = min(self._hopeless)
            if all(part in self.replies for part in self._visits if part < lowest):
                raise self._hopeless[lowest]


class Shards:
    """A number of stateful parts, spread over the workers of an executor: what `Executor.shards` returns.

    Parts answer messages; which worker a part lives on, how many there are and which of them die changes
    neither replies nor states. The number of parts belongs to the experiment. What the executor was told
    of units holds for parts: `timeout` is for one message (and again for each that a part handles once more
    as it is made anew), and one that ends `max_attempts` workers, alone on each, is left out of the call.

    Attributes:
        num_queries: Points that parts have had evaluated, in calls that are done; each counted once.
        account: What it cost beyond that; for parts, `lost` and `quarantined` count those.

    Example:
        >>> import zoo
        >>> class Sum(zoo.Part):
        ...     def __init__(self, index):
        ...         self.total = 100 * index
        ...
        ...     def handle(self, message, key, query):
        ...         self.total += message
        ...         return self.total
        ...
        ...     def snapshot(self):
        ...         return self.total
        ...
        ...     def restore(self, snapshot):
        ...         self.total = snapshot
        >>> executor = zoo.Serial()
        >>> with executor.open(None):
        ...     sums = executor.shards(Sum, 3)
        ...     first = sums.call([1, 1, 1], zoo.Key(0).fold(0))
        ...     second = sums.call([5, None, 5], zoo.Key(0).fold(1))
        ...     states = sums.snapshot()
        >>> [reply and reply.reply for reply in second], states
        ([6, None, 206], [6, 101, 206])
    """

    def __init__(
        self,
        crew: Crew | Alone,
        factory: Callable[[int], Part],
        n: int,
        *,
        name: str = "shards",
        timeout: float | None = None,
        on_error: str = "raise",
        event: Callable[[dict[str, Any]], None] | None = None,
        account: Account | None = None,
        logged: int = LOGGED,
        lenient: bool = False,
    ) -> None:
        self.num_queries = 0
        if account is not None and not isinstance(account, Account):
            raise TypeError(f"`account` must be an Account or None, got {account!r}.")
        if event is not None and not callable(event):
            raise TypeError(f"`event` must be callable as event(fields) or None, got {event!r}.")
        self.account = Account() if account is None else account
        self._on_error = check_choice("on_error", on_error, ("raise", "nan"))
        self._crew, self._calls, self._closed = crew, 0, False
        self._tracks = [_Track(part) for part in range(check_count("n", n))]
        if not callable(factory):
            raise TypeError(f"`factory` must be callable as factory(index), got {factory!r}.")
        sent = factory if isinstance(crew, Alone) else _packed("`factory`", factory)
        self._logged = check_count("logged", logged)
        lenient = check_flag("lenient", lenient)
        self._common = _Common(
            name, sent, self._tracks, timeout, crew.max_attempts, event, self.account, lenient
        )

    def __len__(self) -> int:
        return len(self._tracks)

    def call(
        self,
        messages: Sequence[Any],
        key: Key,
        *,
        known: Mapping[int, PartReply] | None = None,
        record: Callable[[int, PartReply], None] | None = None,
    ) -> list[PartReply | None]:
        """Send every part its message, and return the replies in the order of the parts.

        If it raises, no part has handled anything.

        Args:
            messages: A list or tuple of one for each part, None for those that are left out. One that is the
                same object for many parts travels once to each worker.
            key: Randomness of the call; part i is given `key.fold("part", i)`.
            known: By part, what `record` was given in an earlier attempt at this very call: queries that are
                on record are not evaluated again, and a part that was given up is not tried again.
            record: Called as soon as a part is done, unless all that came of it is known.

        Returns:
            None for the parts that were left out.

        Raises:
            EvaluationError: A part, or a query of it, has raised twice, and `on_error` is "raise".
            ValueError: There are more or fewer messages than parts.
            TypeError: `messages` or `key` is something else, or a message cannot be sent.
            WorkerError: Workers do not start, or parts end every one of them.
            Interrupt: A signal asked to stop; what came in until then has been recorded.
        """
        if not isinstance(messages, (list, tuple)):
            raise TypeError(
                f"`messages` must be a list or tuple with one message for each part, got {messages!r}."
            )
        if not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as zoo.Key(0).fold(step), got {key!r}.")
        if len(messages) != len(self._tracks):
            raise ValueError(
                f"`messages` must be one for each of the {len(self._tracks)} parts (None to leave one out), "
                f"got {len(messages)}."
            )
        messages, known = list(messages), known or {}  # a list, whose items are the same objects each time
        given_up = {
            part: reply for part, reply in known.items() if reply.error and messages[part] is not None
        }
        copies = Counter(id(message) for message in messages)
        packed: dict[int, Packed] = {}
        weights: dict[int, int] = {}
        visits: list[Visit] = []
        for part, message in enumerate(messages):
            if message is None or part in given_up:
                continue
            if id(message) not in packed:
                packed[id(message)] = _packed(f"the message of part {part}", message)
            body = packed[id(message)]
            weights[part] = body.size // copies[id(message)]
            values = known[part].values if part in known else ()
            due = self._tracks[part].is_due(weights[part], self._logged)
            visits.append(Visit(part, body, None, values, due))
        self._rebalance()
        call = self._drive(visits, key, weights, known=known, on_error=self._on_error, record=record)
        self._settle(call, visits, key, weights)
        replies = {**given_up, **call.replies}
        self.num_queries += sum(reply.num_queries for reply in replies.values())
        return [replies.get(part) for part in range(len(messages))]

    def snapshot(self) -> list[Any]:
        """Return the states of all parts, as `Part.snapshot` gave them.

        Raises:
            EvaluationError: A part has raised twice.
            WorkerError: A part ended its worker three times, or took too long.
        """
        visits = [
            Visit(track.number, None, snapshot=True)
            for track in self._tracks
            if track.log or track.snapshot is None
        ]
        call = self._drive(visits, Key(0), {})
        for part, reply in sorted(call.replies.items()):
            if reply.error is not None:
                raise WorkerError(f"there is no snapshot of part {part}: it {reply.error.message}.")
            self._tracks[part].settle(call.snapshots[part])
        return [track.snapshot.load() for track in self._tracks if track.snapshot is not None]

    def restore(self, states: Sequence[Any]) -> None:
        """Put all parts into states that `snapshot` returned."""
        if len(states) != len(self._tracks):
            raise ValueError(
                f"`states` must be one for each of the {len(self._tracks)} parts, got {len(states)}."
            )
        for track, packed in zip(
            self._tracks, [_packed("a state", state, Packed.whole) for state in states], strict=True
        ):
            self._release(track)
            track.settle(packed)

    def mark(self) -> Any:
        """Return where all parts are, for `back_to`; it takes no trip."""
        return [replace(track, log=list(track.log)) for track in self._tracks]

    def back_to(self, mark: Any) -> None:
        """Have parts be again what they were when `mark` was taken, whatever they have handled since."""
        for track, before in zip(self._tracks, mark, strict=True):
            if track.handled != before.handled:
                self._release(track)
                track.snapshot, track.log = before.snapshot, list(before.log)
                track.weight, track.handled = before.weight, before.handled

    def close(self) -> None:
        """Take no more calls: the executor is closed, and with its workers the parts are gone."""
        self._closed = True

    def _settle(self, call: Call, visits: list[Visit], key: Key, weights: Mapping[int, int]) -> None:
        """Take note of what parts have handled."""
        for visit in visits:
            reply, track = call.replies[visit.part], self._tracks[visit.part]
            if reply.error is None and visit.message is not None:
                track.handled += 1
                if visit.part in call.snapshots:
                    track.settle(call.snapshots[visit.part])
                else:
                    track.add(Logged(visit.message, key, reply.values), weights[visit.part])

    def _drive(self, visits: list[Visit], key: Key, weights: Mapping[int, int], **options: Any) -> Call:
        if self._closed:
            raise RuntimeError("these shards went with the executor that kept them, which is closed.")
        self._calls += 1
        call = Call(self._common, self._calls, key, visits, **options)
        try:
            self._crew.drive(call)
        except BaseException:
            done = call.replies.keys() if self._common.lenient else set()
            self._settle(call, [visit for visit in visits if visit.part in done], key, weights)
            for part in call.reached - done:
                self._release(self._tracks[part])
            raise
        return call

    def _rebalance(self) -> None:
        """Take parts from workers that have too many, if one has far too few; it will make them anew."""
        up = [hand.number for hand in self._crew.hands.values() if hand.ready]
        homes = Counter(track.home for track in self._tracks)
        if not up or 4 * min(homes[worker] for worker in up) >= 3 * (len(self._tracks) // len(up)):
            return
        fair = -(-len(self._tracks) // len(up))
        for track in sorted(self._tracks, key=lambda track: len(track.log)):
            if homes[track.home] > fair and track.home in up:
                homes[track.home] -= 1
                self._release(track)

    def _release(self, track: _Track) -> None:
        """Have a part be made anew when it is next wanted."""
        hand = None if track.home is None else self._crew.hands.get(track.home)
        if hand is not None:
            self._common.abroad(hand).forget.append(track.number)
        track.home = None


class Alone:
    """This process, in place of a crew: parts live here.

    Args:
        objective: What parts query that have none of their own, or None.
    """

    max_attempts = 1

    def __init__(self, objective: Objective | None) -> None:
        self.hands = {0: Hand(0, 0, ready=True)}
        self._memory: dict[str, Any] = {"objective": objective}

    def drive(self, call: Call) -> None:
        """Carry out a call."""
        hand = self.hands[0]
        while not call.done:
            interrupts.check()
            dispatch = call.take(hand, self.hands)
            assert dispatch is not None
            trip = call.trip(dispatch.what, hand)
            try:
                with interrupts.interruptible():
                    done = trip(self._memory)
            except KeyboardInterrupt:
                interrupts.check()  # the end of a run inside a part is that of this one
                raise
            if not done.interrupted:
                interrupts.check()  # a signal that was swallowed, by a bare `except`, has become a reply
            call.answered(dispatch, done, hand)
            if done.interrupted:
                interrupts.check()
                raise Interrupt


def _packed(what: str, value: Any, pack: Callable[[Any], Packed] = Packed.of) -> Packed:
    try:
        return pack(value)
    except Exception as error:  # picklers raise what they like
        raise TypeError(f"{what} cannot be sent to workers: {summary(error)}.") from error


def _error(what: str, failure: Failure) -> EvaluationError:
    return EvaluationError(f"{what}: {failure.message}", details=failure.details)
