"""Clients on a worker: a block of them, whose states stay there.

All clients of a block work side by side. Whenever each of them has said which points it wants, or is done,
these are evaluated, in one call where the task can; so what a block holds is as quick as what it wants.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from federated.algorithm import FederatedAlgorithm, Hidden, Local, Problem, Work
from federated.checks import end_of, points_of
from federated.messages import Message
from federated.objective import ClientObjective, ClientPoints, Request
from federated.task import Task
from zoo.core.device import Array
from zoo.core.objective import failure_of
from zoo.core.rng import Key
from zoo.core.types import Candidates, Failure
from zoo.execution.parts import Part, Query

BLOCKS = 16
"""Of clients at most: it belongs to the experiment, whatever the number of workers."""


def edges_of(num_clients: int) -> tuple[int, ...]:
    """Return the boundaries 0, ..., num_clients between blocks of clients."""
    blocks = min(BLOCKS, num_clients)
    return tuple(num_clients * block // blocks for block in range(blocks + 1))


class Errand(NamedTuple):
    """What all blocks hear in a trip, in one and the same object: it travels once to each worker.

    Attributes:
        round: Number of the round, from 0.
        trip: Number of the trip in it.
        key: Randomness of the trip.
        clients: Who takes part, ascending.
        messages: What they are told, each message once.
        which: For each of them, which message.
        most: For each of them, how many values it may still ask for in this round; None for no limit.
    """

    round: int
    trip: int
    key: Key
    clients: np.ndarray[Any, Any]
    messages: tuple[Message, ...]
    which: np.ndarray[Any, Any]
    most: np.ndarray[Any, Any] | None = None

    def only(self, place: int) -> Errand:
        """Return the part of it that one of the clients has."""
        span = slice(place, place + 1)
        most = None if self.most is None else self.most[span]
        return self._replace(
            clients=self.clients[span],
            messages=(self.messages[self.which[place]],),
            which=np.zeros(1, np.int64),
            most=most,
        )


class Told(NamedTuple):
    """What came of a client's trip.

    Attributes:
        client: Its number.
        message: What it answers, None where it has failed.
        nbytes: Bytes of it.
        is_finite: Whether every number in it is finite.
        queries: Values it asked for.
        hidden: Those of them that the paper leaves out of its count.
        gradients: Exact gradients it asked for.
        failure: Why it answers nothing and its state is what it was, or None; the row is its number, the
            kind "raised", or "asked" where it wanted more values than `most_queries` says.
    """

    client: int
    message: Message | None
    nbytes: int
    is_finite: bool
    queries: int
    hidden: int
    gradients: int
    failure: Failure | None = None


class AskedForTooManyError(ValueError):
    """A client asked for more values than its algorithm says that it does at most."""


@dataclass
class _At:
    """A client at work, or at the end of it: `points` or `told` says which."""

    client: int
    message: Message
    most: int | None
    local: Local
    work: Work[Any] | None = None
    points: Candidates | None = None
    is_hidden: bool = False
    hidden: int = 0
    queries: int = 0
    heard: list[np.ndarray[Any, Any]] = field(default_factory=list)
    state: Any = None
    told: Told | None = None


class Block(Part):
    """Some clients with numbers in a row.

    Args:
        algorithm: What they do.
        x0: Where everything starts, shape (dim,).
        problem: What they know beforehand.
        edges: Boundaries between all blocks.
        index: Number of this one.
    """

    def __init__(
        self,
        algorithm: FederatedAlgorithm[Any, Any],
        x0: Array,
        problem: Problem,
        edges: Sequence[int],
        index: int,
    ) -> None:
        self._algorithm, self._x0, self._problem = algorithm, x0, problem
        self._first, self._last = edges[index], edges[index + 1]
        self._states: dict[int, Any] = {}

    def handle(self, message: Errand, key: Key, query: Query) -> list[Told]:
        """Have clients make a trip.

        One that raises beside its function, as it works, does it once more from the beginning, with the
        values it has had; if it raises again, its state stays what it was, and the others go on.
        """
        objective = query.objective
        assert isinstance(objective, ClientObjective)
        states, told = dict(self._states), []
        for at in self._worked(message, objective.task, query):
            assert at.told is not None
            if at.told.failure is None:
                states[at.client] = at.state
            told.append(at.told)
        self._states = states
        return told

    def _worked(self, errand: Errand, task: Task, query: Query) -> list[_At]:
        """Return the clients that take part, all at the end of their trip."""
        first, last = np.searchsorted(errand.clients, (self._first, self._last))
        everyone: list[_At] = []
        for place in range(first, last):
            client, sent = int(errand.clients[place]), errand.messages[errand.which[place]]
            most = None if errand.most is None else int(errand.most[place])
            everyone.append(_At(client, sent, most, self._local(errand, task, client)))
            self._go_on(everyone[-1], errand, task)
        while waiting := [at for at in everyone if at.told is None]:
            requests = [
                Request(at.client, at.local.key.fold("query", len(at.heard)), at.points)
                for at in waiting
                if at.points is not None
            ]
            values = query(ClientPoints(requests))
            start = 0
            for at, request in zip(waiting, requests, strict=True):
                count = len(request.points)
                at.queries += count
                at.hidden += count if at.is_hidden else 0
                at.heard.append(values[start : start + count])
                self._go_on(at, errand, task)
                start += count
        return everyone

    def _local(self, errand: Errand, task: Task, client: int) -> Local:
        return Local(client, errand.round, errand.key.fold("client", client), task)

    def _go_on(self, at: _At, errand: Errand, task: Task) -> None:
        """Have a client work until it wants values again, or is done, or has failed."""
        try:
            self._send(at, errand, len(at.heard))
            return
        except (Exception, SystemExit):  # once, perhaps
            at.work, at.points = None, None
        at.local = self._local(errand, task, at.client)
        try:
            for number in range(len(at.heard) + 1):
                self._send(at, errand, number)
        except (Exception, SystemExit) as error:
            failure = failure_of(error, at.client, "client")
            if isinstance(error, AskedForTooManyError):
                failure = failure._replace(kind="asked")
            at.points = None
            at.told = Told(at.client, None, 0, True, at.queries, at.hidden, at.local.num_gradients, failure)

    def _send(self, at: _At, errand: Errand, number: int) -> None:
        """Have a client work on from the values of its last question, or those of an earlier one."""
        if at.told is not None or (number and at.points is None):
            raise RuntimeError("`reply` came to an end at another place when it was done again.")
        if number == 0:
            found = self._algorithm.trips[errand.trip].reply(self._state(at.client), at.message, at.local)
            if not isinstance(found, Generator):
                _end(at, found)
                return
            at.work = found
        assert at.work is not None
        values = at.heard[number - 1].copy() if number else None
        try:
            wanted = at.work.send(values)  # type: ignore[arg-type]
        except StopIteration as end:
            _end(at, end.value)
            return
        points = points_of(wanted, self._x0)
        if number < len(at.heard) and len(points) != len(at.heard[number]):
            raise RuntimeError("`reply` asked for other points when it was done again.")
        if at.most is not None and at.queries + len(points) > at.most and number == len(at.heard):
            raise AskedForTooManyError(
                f"it asked for {at.queries + len(points)} values, and `most_queries` leaves it {at.most} in "
                "this round."
            )
        at.points, at.is_hidden = points, isinstance(wanted, Hidden)

    def _state(self, client: int) -> Any:
        if client not in self._states:
            self._states[client] = self._algorithm.client_init(self._x0, self._problem, client)
        return self._states[client]

    def snapshot(self) -> Mapping[int, Any]:
        return self._states

    def restore(self, snapshot: Mapping[int, Any]) -> None:
        self._states = dict(snapshot)


def _end(at: _At, result: Any) -> None:
    """Take what a client has come to.

    Raises:
        TypeError: It is not that, or nothing that can be sent.
    """
    state, message = end_of(result)
    about = message.nbytes, message.is_finite, at.queries, at.hidden, at.local.num_gradients
    at.state, at.points, at.told = state, None, Told(at.client, message, *about)
