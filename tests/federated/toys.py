"""A small algorithm of two trips, and clients with a bowl each; some of them misbehave.

    python tests/federated/toys.py OUT WORKERS

is a driver that can be killed.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import federated
from federated.algorithm import (
    Answer,
    FederatedAlgorithm,
    Hidden,
    Local,
    Problem,
    Trip,
    Work,
    mean_of,
)
from federated.messages import Message
from federated.task import Task
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state

SLOW = "TOYS_SECONDS"


@dataclass(frozen=True, eq=False)
class At(Message):
    """Where to begin, or where a client has come to."""

    x: Any


@dataclass(frozen=True, eq=False)
class Along(Message):
    """Where to begin, and in which direction."""

    x: Any
    direction: Any


@state
class Server:
    x: Any
    direction: Any
    merged: int = 0


@state
class Client:
    momentum: Any
    trips: int = 0


@dataclass(frozen=True)
class Descent(FederatedAlgorithm[Server, Client]):
    """A gradient from differences in the first trip, a step along the mean of all in the second.

    `spoilt` clients send NaN in their second answer; `hidden` points are evaluated there and hidden.
    """

    directions: int = 2
    hidden: int = 1
    rate: float = 0.1
    spoilt: tuple[int, ...] = ()

    def server_init(self, x0: Array, problem: Problem) -> Server:
        return Server(x0, 0 * x0)

    def client_init(self, x0: Array, problem: Problem, client: int) -> Client:
        return Client(0 * x0)

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (
            Trip(self._ask, self._estimate, self._take_directions),
            Trip(self._tell, self._walk, self._take_places),
        )

    def _ask(self, server: Server, clients: Sequence[int]) -> Message:
        return At(server.x)

    def _estimate(self, client: Client, message: At, local: Local) -> Work[Client]:
        x = message.x
        z = local.key.normal(0, self.directions, len(x), like=Like.of(x))
        values = yield x + 0.01 * z
        base = yield x[None]
        slopes = np.nan_to_num((values - base[0]) / 0.01)
        found = 0 * x
        for slope, row in zip(slopes.tolist(), z, strict=True):
            found = found + slope / self.directions * row
        momentum = 0.5 * client.momentum + found
        return Client(momentum, client.trips + 1), At(momentum)

    def _take_directions(self, server: Server, answers: Sequence[Answer]) -> Server:
        return Server(server.x, mean_of(answers, "x"), server.merged + len(answers))

    def _tell(self, server: Server, clients: Sequence[int]) -> list[Message]:
        even, odd = Along(server.x, server.direction), Along(server.x, 0.5 * server.direction)
        return [odd if client % 2 else even for client in clients]

    def _walk(self, client: Client, message: Along, local: Local) -> Work[Client]:
        x = message.x - self.rate * message.direction / (1 + float(abs(message.direction).sum()))
        if self.hidden:
            values = yield Hidden(x + 0.01 * local.key.normal(0, self.hidden, len(x), like=Like.of(x)))
            x = x - 1e-3 * float(np.nansum(values))
        if local.client in self.spoilt:
            x = x * float("nan")
        return Client(client.momentum, client.trips + 1), At(x)

    def _take_places(self, server: Server, answers: Sequence[Answer]) -> Server:
        return Server(mean_of(answers, "x"), server.direction, server.merged + len(answers))

    def recommend(self, server: Server) -> Array:
        return server.x

    def most_queries(self, dim: int, first: bool) -> int:
        return self.directions + 1 + self.hidden

    def diagnostics(self, server: Server) -> dict[str, Any]:
        return {"merged": server.merged}


@dataclass(frozen=True)
class Echo(FederatedAlgorithm[Server, Client]):
    """One trip without a query: everybody says what the server has said."""

    def server_init(self, x0: Array, problem: Problem) -> Server:
        return Server(x0, None)

    def client_init(self, x0: Array, problem: Problem, client: int) -> Client:
        return Client(None)

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (Trip(self._ask, self._echo, self._take),)

    def _ask(self, server: Server, clients: Sequence[int]) -> Message:
        return At(server.x)

    def _echo(self, client: Client, message: At, local: Local) -> tuple[Client, Message]:
        return Client(None, client.trips + 1), At(message.x)

    def _take(self, server: Server, answers: Sequence[Answer]) -> Server:
        return Server(answers[0].message.x, None, server.merged + len(answers))

    def recommend(self, server: Server) -> Array:
        return server.x

    def most_queries(self, dim: int, first: bool) -> int:
        return 0


class Bowls(Task):
    """f_i(x) = |x - i / 10|^2, with noise where it is asked for; weights 1, 2, 1, 2, ...

    Args:
        num_clients: How many.
        dim: Length of x.
        noise: Deviation of values.
        like: Kind, dtype and device of x.
        wrong: By client, as a dictionary or pairs, what goes wrong: "raises", "nan", "inf", "short", "hangs";
            or what `measure` does: "blind" (raises), "mute" (says nothing), "sees nan".
    """

    measures = ("distance",)

    def __init__(
        self,
        num_clients: int = 6,
        dim: int = 3,
        *,
        noise: float = 0.0,
        like: tuple[str, str, str] = ("numpy", "float64", "cpu"),
        wrong: Any = (),
    ) -> None:
        self.num_clients, self.dim = num_clients, dim
        self.noise, self.like, self.wrong = noise, tuple(like), dict(wrong)
        self.bounds = Bounds(np.full(dim, -2.0), np.full(dim, 2.0))

    def start(self, key: Key) -> Array:
        return Like(*self.like).asarray(np.linspace(0.5, 1.0, self.dim))

    def weight(self, client: int) -> float:
        return 1.0 + client % 2

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        if SLOW in os.environ:
            time.sleep(float(os.environ[SLOW]))
        wrong = self.wrong.get(client)
        if wrong == "raises":
            raise RuntimeError(f"no answer at x[0] = {float(x[0, 0]):.1f}")
        if wrong == "hangs":
            time.sleep(3600)
        found = ((x - client / 10) ** 2).sum(1)
        if self.noise:
            found = found + self.noise * key.normal(0, len(x), 1, like=Like.of(x))[:, 0]
        if wrong in ("nan", "inf"):
            found = found * float(wrong)
        return found[:-1] if wrong == "short" else found

    def measure(self, client: int, x: Array) -> dict[str, float]:
        wrong = self.wrong.get(client)
        if wrong == "blind":
            raise RuntimeError("nothing to be seen")
        if wrong == "mute":
            return {}
        distance = float(((to_numpy(x).astype(float) - client / 10) ** 2).sum())
        return {"value": float("nan") if wrong == "sees nan" else distance, "distance": distance**0.5}


class Together(Bowls):
    """The same, with the points of several clients in one call."""

    joint = True

    def joint_values(self, clients: np.ndarray, x: Array, keys: Sequence[Key]) -> Any:
        starts = [0, *(np.flatnonzero(np.diff(clients)) + 1).tolist(), len(clients)]
        parts = [
            np.asarray(self.values(int(clients[first]), x[first:last], key=keys[first]))
            for first, last in itertools.pairwise(starts)
        ]
        return np.concatenate(parts)


ROUNDS = 50
UNRELIABLE = {
    "participation": 0.8,
    "dropout": 0.3,
    "latency": 1.0,
    "spread": 0.5,
    "jitter": 0.5,
    "seconds_per_query": 0.1,
    "bandwidth": 100.0,
    "wait_for": 0.7,
    "deadline": 5.0,
    "duplicates": 0.2,
}


def unreliable(**more: Any) -> federated.Federation:
    """Do 50 rounds over a network in which everything happens that can."""
    given = {"task": f"{HERE}:Bowls", "task_options": {"num_clients": 7, "noise": 0.1}}
    run = {"method": Descent(), "network": UNRELIABLE, "rounds": ROUNDS, "rng": 3}
    return federated.federate(**{**given, **run, **more})


HERE = "tests.federated.toys"

if __name__ == "__main__":
    from tests.federated import toys

    toys.unreliable(out=sys.argv[1], workers=int(sys.argv[2]))
