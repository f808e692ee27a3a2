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
from federated.messages import Message
from federated.objective import ClientObjective, ClientPoints, Request
from federated.task import Task
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.types import Candidates, Rows
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
    """

    round: int
    trip: int
    key: Key
    clients: np.ndarray[Any, Any]
    messages: tuple[Message, ...]
    which: np.ndarray[Any, Any]


class Told(NamedTuple):
    """What came of a client's trip.

    Attributes:
        client: Its number.
        message: What it answers.
        nbytes: Bytes of it.
        is_finite: Whether every number in it is finite.
        queries: Values it asked for.
        hidden: Those of them that the paper leaves out of its count.
        gradients: Exact gradients it asked for.
    """

    client: int
    message: Message
    nbytes: int
    is_finite: bool
    queries: int
    hidden: int
    gradients: int


@dataclass
class _At:
    """A client at work."""

    local: Local
    work: Work[Any]
    points: Candidates | None = None
    hidden: int = 0
    queries: int = 0
    asked: int = 0
    done: tuple[Any, Message] | None = None
    is_hidden: bool = field(default=False)


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
        objective = query.objective
        assert isinstance(objective, ClientObjective)
        states, told = dict(self._states), []
        for at in self._worked(message, objective.task, query):
            assert at.done is not None
            client = at.local.client
            states[client], answer = at.done
            about = answer.nbytes, answer.is_finite
            told.append(Told(client, answer, *about, at.queries, at.hidden, at.local.num_gradients))
        self._states = states
        return told

    def _worked(self, errand: Errand, task: Task, query: Query) -> list[_At]:
        """Return the clients that take part, all at the end of their trip."""
        reply = self._algorithm.trips[errand.trip].reply
        first, last = np.searchsorted(errand.clients, (self._first, self._last))
        everyone: list[_At] = []
        for client, which in zip(
            errand.clients[first:last].tolist(), errand.which[first:last].tolist(), strict=True
        ):
            local = Local(client, errand.round, errand.key.fold("client", client), task)
            work = reply(self._state(client), errand.messages[which], local)
            at = _At(local, work)
            if isinstance(work, Generator):
                _go_on(at, None)
            else:
                at.done = _ended(work)
            everyone.append(at)
        while waiting := [at for at in everyone if at.done is None]:
            requests = [
                Request(at.local.client, at.local.key.fold("query", at.asked), at.points)
                for at in waiting
                if at.points is not None
            ]
            values = query(ClientPoints(requests))
            start = 0
            for at, request in zip(waiting, requests, strict=True):
                count = len(request.points)
                at.asked += 1
                at.queries += count
                at.hidden += count if at.is_hidden else 0
                _go_on(at, values[start : start + count])
                start += count
        return everyone

    def _state(self, client: int) -> Any:
        if client not in self._states:
            self._states[client] = self._algorithm.client_init(self._x0, self._problem, client)
        return self._states[client]

    def snapshot(self) -> Mapping[int, Any]:
        return self._states

    def restore(self, snapshot: Mapping[int, Any]) -> None:
        self._states = dict(snapshot)


def _go_on(at: _At, values: Any) -> None:
    """Have a client work until it wants values again, or is done."""
    try:
        wanted = at.work.send(values)
    except StopIteration as end:
        at.done, at.points = _ended(end.value), None
        return
    at.is_hidden = isinstance(wanted, Hidden)
    points = wanted.points if isinstance(wanted, Hidden) else wanted
    at.points = points if isinstance(points, Candidates) else Rows(points)


def _ended(result: Any) -> tuple[Any, Message]:
    """Return what a client has come to.

    Raises:
        TypeError: It is not that.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Message)):
        raise TypeError(f"`reply` must return a client's new state and a Message, got {result!r}.")
    return result
