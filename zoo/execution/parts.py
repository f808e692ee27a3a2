"""Stateful parts: what a user writes, and what a worker does with them.

A part has a state that lasts from message to message: a client of a federation, an island of a population.
It lives on one worker. Should that die, another one makes the part anew, restores its last snapshot, and
has it handle once more what it has handled since, with the values on record in place of queries.
"""

from __future__ import annotations

import abc
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.core.device import Array, is_torch
from zoo.core.errors import Interrupt
from zoo.core.objective import Objective, failure_of
from zoo.core.rng import Key
from zoo.core.types import Candidates, Failure, Reply, Rows
from zoo.execution.executor import LIMIT_SECONDS
from zoo.execution.packing import decode, encode, encode_whole


class Part(abc.ABC):
    """Something with a state of its own that answers messages, wherever it lives.

    What it replies, queries and becomes may depend on its state, the message and the key alone: it may
    have to do the same again on another worker. Messages, replies and snapshots are anything that can be
    pickled, and copies: a part may keep a message, write to it, or reply with what it goes on changing.

    Example:
        >>> import zoo
        >>> class Walker(zoo.Part):
        ...     def __init__(self, index):
        ...         self.x, self.value = np.full(2, 1.0 + index), float("inf")
        ...
        ...     def handle(self, message, key, query):
        ...         x = self.x + message * key.normal(0, 1, 2)[0]
        ...         if (value := query(x)) < self.value:
        ...             self.x, self.value = x, value
        ...         return self.value
        ...
        ...     def snapshot(self):
        ...         return self.x, self.value
        ...
        ...     def restore(self, snapshot):
        ...         self.x, self.value = snapshot
        >>> from zoo.core.objective import as_objective
        >>> executor = zoo.Serial()
        >>> with executor.open(as_objective(lambda x: float(x @ x))):
        ...     walkers = executor.shards(Walker, 3)
        ...     for step in range(100):
        ...         replies = walkers.call([0.3] * 3, zoo.Key(0).fold(step))
        >>> all(reply.reply < 0.1 for reply in replies), walkers.num_queries
        (True, 300)
    """

    objective: Objective | None = None
    """What `query` evaluates, or None for the objective that the executor was opened with."""

    @abc.abstractmethod
    def handle(self, message: Any, key: Key, query: Query) -> Any:
        """Take a message, and return the reply.

        Args:
            message: What `Shards.call` was given for this part.
            key: Randomness of this part in this call.
            query: Evaluates points.
        """

    @abc.abstractmethod
    def snapshot(self) -> Any:
        """Return the state, as something that `restore` can bring back to the last bit."""

    @abc.abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Take on the state that a snapshot was taken of; the part was only just made."""


class PartReply(NamedTuple):
    """What came of one part's message.

    Attributes:
        reply: What `handle` returned.
        values: Values of its queries in their order, one float64 array for each, only to be read.
        failures: Why some values are NaN; rows are counted over all queries of the call.
        error: Why there is no reply, or None: `handle` raised ("raised"), the part ended every worker that
            tried ("crashed"), or took longer than is allowed ("hung"). Its row is the part's number. The
            part's state is what it was before the call.
    """

    reply: Any = None
    values: tuple[np.ndarray[Any, Any], ...] = ()
    failures: tuple[Failure, ...] = ()
    error: Failure | None = None

    @property
    def num_queries(self) -> int:
        """How many points were evaluated."""
        return sum(map(len, self.values))


class Query:
    """Evaluates points for a part: `query(x)`, with x of shape (k, dim), or (dim,) for one point.

    It returns float64 of shape (k,), or one float, NaN where the evaluation failed; x may also be
    `Candidates`, of a kind that the objective understands, say. A part that holds candidates of a search has
    `units` evaluate them, as the executor would.

    Attributes:
        objective: What is evaluated: that of the part, or else of the executor.
        values: Values of each query so far.

    Args:
        objective: What is evaluated.
        key: Randomness of the part in this call; each query folds in its number.
        known: Values on record, by query, which are not evaluated again.
        replayed: Whether all values must be on record.
        aside: Whether `units` is to evaluate nothing.
    """

    def __init__(
        self,
        objective: Objective | None,
        key: Key,
        known: Sequence[np.ndarray[Any, Any]] = (),
        *,
        replayed: bool = False,
        aside: bool = False,
    ) -> None:
        self.values: list[np.ndarray[Any, Any]] = []
        self.failures: list[Failure] = []
        self.retries = 0
        self.objective = objective
        self._key, self._known, self._replayed = key, known, replayed
        self._until = -math.inf if aside else None  # when `units` begins nothing more

    def __call__(self, x: Array | Candidates) -> Any:
        single = False
        if not isinstance(x, Candidates):
            x = x if is_torch(x) else np.asarray(x)
            if x.ndim not in (1, 2):
                raise ValueError(f"`x` must have shape (k, dim) or (dim,), got {tuple(x.shape)}.")
            single = x.ndim == 1
            x = Rows(x[None] if single else x)
        number = len(self.values)
        values = self._known[number] if number < len(self._known) else None
        if values is None and not self._replayed:
            values = self._evaluate(x, number)
        if values is None or len(values) != len(x):
            raise _off_the_record(number)
        self.values.append(values)
        return float(values[0]) if single else values.copy()

    def units(self, candidates: Candidates, boundaries: Sequence[int], *, key: Key, step: int) -> Reply:
        """Evaluate consecutive units of a step of a search, as the executor's own `evaluate` would.

        Their values depend on the key and the step alone, not on which part has them, and nothing is tried
        again here: an evaluation that raised is a failure of the reply, and what follows from it is up to
        whoever keeps the ledger of the step.

        Args:
            candidates: What holds these rows.
            boundaries: First row of each unit, and one past the last row.
            key: Randomness of the search's evaluations.
            step: Number of the step.

        Returns:
            The values of the first of these units, as many as there was time for; the first unit of a message
            in any case, unless the part is set aside (see `Executor.shards`). Failures are known only where
            the values were not on record.
        """
        number = len(self.values)
        start, began = boundaries[0], time.perf_counter()
        if number < len(self._known):
            values = self._known[number]
            if start + len(values) not in boundaries:
                raise _off_the_record(number)
            reply = Reply(start, values)
        elif self._replayed:
            raise _off_the_record(number)
        elif self._until is not None and began > self._until:
            reply = Reply(start, np.empty(0))
        else:
            if self._until is None:
                self._until = began + LIMIT_SECONDS
            reply = self._checked.evaluate_units(
                candidates, boundaries, key=key, step=step, limit=self._until - began
            )
            if reply.interrupted:
                raise Interrupt
            reply.values.flags.writeable = False
        before = sum(map(len, self.values)) - start
        self.failures += [failure._replace(row=before + failure.row) for failure in sorted(reply.failures)]
        self.values.append(reply.values)
        return reply

    @property
    def _checked(self) -> Objective:
        if not isinstance(self.objective, Objective):
            raise TypeError(
                "a part queries its `objective`, or else the one that the executor was opened with; it must "
                "be an Objective (`zoo.core.objective.as_objective` adapts functions), got "
                f"{self.objective!r}."
            )
        return self.objective

    def _evaluate(self, candidates: Candidates, number: int) -> np.ndarray[Any, Any]:
        """Evaluate points, and once more those of which the evaluation raises."""
        objective = self._checked
        boundaries = objective.units(candidates)

        def evaluated(part: Sequence[int]) -> Reply:
            reply = objective.evaluate_units(candidates, part, key=self._key.fold("query"), step=number)
            if reply.interrupted:
                raise Interrupt
            return reply

        first = evaluated(boundaries)
        values = np.array(first.values)
        failures = [failure for failure in first.failures if failure.kind != "raised"]
        raised = {bisect_right(boundaries, f.row) - 1 for f in first.failures if f.kind == "raised"}
        for unit in sorted(raised):
            second = evaluated(boundaries[unit : unit + 2])
            values[second.start : second.stop] = second.values
            failures += second.failures
        before = sum(map(len, self.values))
        self.failures += [failure._replace(row=before + failure.row) for failure in sorted(failures)]
        self.retries += len(raised)
        values.flags.writeable = False  # from here on they are a record
        return values


def _off_the_record(number: int) -> RuntimeError:
    return RuntimeError(
        f"query {number} is not the one that is on record. What a part queries may depend on its "
        "state, the message and the key alone, and `restore` must bring back all of its state."
    )


class Packed(NamedTuple):
    """A value as it travels and is kept, from which it is loaded as often as wanted, each time anew."""

    body: bytes
    bases: tuple[np.ndarray[Any, Any], ...] = ()

    @classmethod
    def of(cls, value: Any) -> Packed:
        """Pack what several parts are to have; what becomes of it afterwards makes no difference."""
        body, bases = encode(value)
        return cls(body, tuple(np.frombuffer(base.buffer, np.uint8).copy() for base in bases))

    @classmethod
    def whole(cls, value: Any) -> Packed:
        """Pack what belongs to one part alone, which is quicker."""
        return cls(encode_whole(value))

    def load(self) -> Any:
        """Return the value."""
        return decode(self.body, [bytearray(base) for base in self.bases])

    @property
    def size(self) -> int:
        """Bytes it takes."""
        return len(self.body) + sum(base.nbytes for base in self.bases)


class Logged(NamedTuple):
    """A message that was handled: itself, the key of the call, and the values of the queries it led to."""

    message: Packed
    key: Key
    values: tuple[np.ndarray[Any, Any], ...]


class History(NamedTuple):
    """How a part came to its state: its last snapshot, if there is one, and what it has handled since."""

    snapshot: Packed | None
    log: tuple[Logged, ...]


class Visit(NamedTuple):
    """What is wanted of a part.

    Attributes:
        part: Its number.
        message: What it is to handle, or None if only its state is wanted.
        history: What to make it from, or None if the worker has it.
        known: Values on record of its queries.
        snapshot: Whether to send its state along with the reply.
        aside: Whether its queries of units are to evaluate nothing.
    """

    part: int
    message: Packed | None
    history: History | None = None
    known: tuple[np.ndarray[Any, Any], ...] = ()
    snapshot: bool = False
    aside: bool = False


class Outcome(NamedTuple):
    """What came of a visit; with an error, the worker does not have the part any more."""

    part: int
    reply: Packed | None
    values: tuple[np.ndarray[Any, Any], ...]
    failures: tuple[Failure, ...]
    retries: int
    snapshot: Packed | None
    error: Failure | None


class Done(NamedTuple):
    """A worker's answer to a trip: what came of the first visits, and whether a signal ended them."""

    outcomes: list[Outcome]
    seconds: float
    interrupted: bool


class Home:
    """The parts that a worker has of some shards, and the visits that wait there."""

    def __init__(self, factory: Callable[[int], Part]) -> None:
        self.factory = factory
        self.parts: dict[int, Part] = {}
        self.call: int | None = None  # to which the visits belong
        self.waiting: dict[int, Visit] = {}

    def receive(self, visit: Visit, call_key: Key, objective: Objective | None) -> Outcome:
        """Have a part handle its message."""
        number, key = visit.part, call_key.fold("part", visit.part)
        query = Query(None, key)
        reply = snapshot = error = None
        blame = ""  # what an exception is due to, if it says too little by itself
        # Out of the list until it is done: what an exception has left behind is no state.
        part = self.parts.pop(number, None)
        try:
            if visit.history is not None:
                blame = f"`factory`, called as factory({number}), failed: "
                part = self._made(number)
                blame = ""
                self._bring_back(part, number, visit.history, objective)
            if part is None:
                raise LookupError(f"part {number} is not on this worker.")
            if visit.message is not None:
                own = objective if part.objective is None else part.objective
                query = Query(own, key, visit.known, aside=visit.aside)
                answer = part.handle(visit.message.load(), key, query)
                blame = "its reply cannot be pickled: "
                reply = Packed.whole(answer)
                blame = ""
            if visit.snapshot:
                state = part.snapshot()
                blame = "its snapshot cannot be pickled: "
                snapshot = Packed.whole(state)
            self.parts[number] = part
        except (Exception, SystemExit) as caught:
            error = failure_of(caught, number)
            details = error.details.replace("Traceback of the objective (", "Traceback of the part (")
            error = error._replace(message=blame + error.message, details=details)
        return Outcome(
            number, reply, tuple(query.values), tuple(query.failures), query.retries, snapshot, error
        )

    def _made(self, number: int) -> Part:
        part = self.factory(number)
        if not isinstance(part, Part):
            raise TypeError(f"it must return a Part, got {part!r}.")
        return part

    def _bring_back(self, part: Part, number: int, history: History, objective: Objective | None) -> None:
        objective = objective if part.objective is None else part.objective
        if history.snapshot is not None:
            part.restore(history.snapshot.load())
        for message, key, values in history.log:
            own = key.fold("part", number)
            part.handle(message.load(), own, Query(objective, own, values, replayed=True))


class Trip(NamedTuple):
    """A call to one worker about some of its parts.

    Attributes:
        shards: What the worker knows these shards by.
        factory: What makes parts, for a worker that does not have it.
        call: Number of the call; what still waits from another one is dropped.
        key: Randomness of the call.
        forget: Parts that the worker need not keep.
        visits: What the worker has not been told of yet.
        parts: Which to visit, as many as there is time for.
    """

    shards: str
    factory: Packed | Callable[[int], Part] | None
    call: int
    key: Key
    forget: tuple[int, ...]
    visits: tuple[Visit, ...]
    parts: tuple[int, ...]

    def __call__(self, memory: dict[str, Any]) -> Done:
        """Make the trip, on the worker."""
        began = time.perf_counter()
        if self.factory is not None:
            factory = self.factory.load() if isinstance(self.factory, Packed) else self.factory
            memory[self.shards] = Home(factory)
        home: Home = memory[self.shards]
        if home.call != self.call:
            home.call, home.waiting = self.call, {}
        for part in self.forget:
            home.parts.pop(part, None)
        home.waiting.update((visit.part, visit) for visit in self.visits)
        outcomes: list[Outcome] = []
        interrupted = False
        try:
            for part in self.parts:
                outcomes.append(home.receive(home.waiting.pop(part), self.key, memory["objective"]))
                if time.perf_counter() - began > LIMIT_SECONDS:
                    break
        except Interrupt:
            interrupted = True
        return Done(outcomes, time.perf_counter() - began, interrupted)
