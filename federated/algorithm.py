"""What a federated algorithm is: a server, clients, and the trips between them.

A round consists of one or more trips. In each, the server sends a message to every client that takes part,
the client answers with another one, and the server merges what came back. To write an algorithm is to
write its states, its messages and its trips, in one file; who computes a client, what its points are worth,
which replies are lost on the way and what is counted is the business of others.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from federated.messages import Message
from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key

if TYPE_CHECKING:
    from federated.task import Task

S = TypeVar("S")
C = TypeVar("C")

Values: TypeAlias = np.ndarray[Any, Any]


class Hidden(NamedTuple):
    """Points that a client evaluates, and that a paper leaves out of its count; here they are counted.

    Attributes:
        points: Shape (k, dim).
    """

    points: Any


Work: TypeAlias = Generator[Any, Values, tuple[C, Message]]
"""A client at work: it yields points, shape (k, dim), or `Hidden` ones, or `Candidates`, and is sent their
values, float64 of shape (k,), NaN where an evaluation failed. In the end it returns its new state and what it
answers. Points of one `yield` are evaluated under common random numbers."""


class Answer(NamedTuple):
    """What a client has answered, as the server sees it.

    Attributes:
        client: Its number.
        message: What it said.
        weight: What it counts for, see `Task.weight`.
    """

    client: int
    message: Any
    weight: float


class Problem(NamedTuple):
    """What server and clients know beforehand.

    Attributes:
        num_clients: How many clients there are.
        bounds: Box that x is to stay in, or None.
        key: Randomness that server and clients share: what is drawn from it need not be sent.
        weights: What each client counts for, see `Task.weight`; empty where all count the same.
        spacing: How far apart points should lie for their values to tell a slope, see `Task.spacing`.
    """

    num_clients: int
    bounds: Bounds | None
    key: Key
    weights: tuple[float, ...] = ()
    spacing: float = 0.01


class Local:
    """What a client has at hand in a trip, beside its state and the message.

    Attributes:
        client: Its number.
        round: Number of the round, from 0.
        key: Its own randomness in this trip.
        num_gradients: Exact gradients it has asked for in this trip.
    """

    __slots__ = ("_task", "client", "key", "num_gradients", "round")

    def __init__(self, client: int, round: int, key: Key, task: Task) -> None:  # noqa: A002
        self.client, self.round, self.key = client, round, key
        self.num_gradients = 0
        self._task = task

    @property
    def bounds(self) -> Bounds | None:
        """Box that x is to stay in, or None."""
        return self._task.bounds

    def gradient(self, x: Array) -> Array:
        """Return the exact gradient of the client's function, shape (dim,), for methods of reference."""
        self.num_gradients += 1
        return self._task.gradient(self.client, x)


class Trip(NamedTuple):
    """From the server to clients and back.

    Attributes:
        request: `request(server, clients)`, given the numbers of the clients it is for, returns a message to
            all of them, or a list of one message for each.
        reply: `reply(client, message, local)` is what a client does: `Work`, or, where it asks for no values,
            a function that returns its new state and what it answers.
        merge: `merge(server, answers)` returns the server's new state, given one answer or more, in the order
            of the clients. It is not called where none has come.
    """

    request: Callable[[Any, Sequence[int]], Message | Sequence[Message]]
    reply: Callable[[Any, Any, Local], Any]
    merge: Callable[[Any, Sequence[Answer]], Any]


class FederatedAlgorithm(abc.ABC, Generic[S, C]):
    """An algorithm: a frozen dataclass of hyper-parameters; states are `zoo.core.state.state` dataclasses.

    Server and clients know nothing of each other but what messages say, and the `Problem`. All transitions
    are pure: they return new states, and leave what they are given as it is.
    """

    needs_gradient: bool = False
    """Whether clients go by exact gradients."""

    @abc.abstractmethod
    def server_init(self, x0: Array, problem: Problem) -> S:
        """Return the server's first state; x0 has shape (dim,)."""

    @abc.abstractmethod
    def client_init(self, x0: Array, problem: Problem, client: int) -> C:
        """Return the first state of a client."""

    @property
    @abc.abstractmethod
    def trips(self) -> tuple[Trip, ...]:
        """The trips of a round, in their order; the same ones in every round."""

    @abc.abstractmethod
    def recommend(self, server: S) -> Array:
        """Return the point to use if the run ended here, shape (dim,)."""

    @abc.abstractmethod
    def most_queries(self, dim: int, first: bool) -> int:
        """Return how many values a client asks for in a round at most, hidden ones too.

        Args:
            dim: Length of x.
            first: Whether it has never answered in a trip.
        """

    def finished(self, server: S) -> str | None:
        """Return why nothing is left to be done, or None."""
        return None

    def undone(self, server: S, before: S) -> S:
        """Return the server after a round in a trip of which too few have answered.

        It is to be where it was before. By default it is just that; an algorithm whose clients cannot tell
        that a round came to nothing may have to keep something of it, such as which numbers are taken.

        Args:
            server: What it had come to in that round.
            before: What it was before.
        """
        del server
        return before

    def diagnostics(self, server: S) -> dict[str, Any]:
        """Return numbers worth a line in the log, by name."""
        return {}


def mean_of(answers: Sequence[Answer], name: str) -> Array:
    """Return the mean of a field of all messages by weight, added up in the order of the clients.

    Args:
        answers: At least one.
        name: Of the field: an array.
    """
    total = sum(answer.weight for answer in answers)
    parts = [answer.weight / total * getattr(answer.message, name) for answer in answers]
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return found
