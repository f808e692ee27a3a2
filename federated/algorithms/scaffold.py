"""SCAFFOLD: local steps whose drift is corrected by what is known of everybody's gradients.

Both forms hold a control variate c_i on every client, and their mean c on the server. What a client sends is
by how much its c_i has changed, so the mean takes in clients that are absent as they were last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.algorithm import Answer, Local, Problem, Trip, Values, Work
from federated.algorithms.local_descent import Descended, DescentClient, Point, ZerothOrder, working
from federated.messages import Message
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.state import state


@dataclass(frozen=True, eq=False)
class Start(Message):
    """What a client needs for its local steps.

    Attributes:
        x: x_r, shape (dim,); None for the one it was told last.
        variate: c, shape (dim,).
        heard: Number of the client's last change of c_i that is part of c, -1 for none.
        number: Of the change that comes next.
    """

    x: Array | None
    variate: Array
    heard: int
    number: int


@dataclass(frozen=True, eq=False)
class Arrived(Message):
    """Where a round has led to.

    Attributes:
        x: x_(r+1), shape (dim,).
        number: Of the change of c_i that is asked for.
    """

    x: Array
    number: int


@dataclass(frozen=True, eq=False)
class Change(Message):
    """How a control variate has changed.

    Attributes:
        change: New c_i - c_i as it is part of c, shape (dim,); None where c_i stays as it is.
    """

    change: Array | None


@dataclass(frozen=True, eq=False)
class Moved(Change):
    """Where local steps have ended, and how a control variate has changed.

    Attributes:
        x: x_i, shape (dim,); None where no step was made.
    """

    x: Array | None


@state
class ScaffoldServer:
    """What the server knows.

    Attributes:
        x: Where it is, shape (dim,).
        variate: c, shape (dim,).
        number: Of the next change of control variates.
        heard: Number of each client's last change that is part of c, shape (num_clients,), -1 for none.
        current: Number of the change that clients were asked for along with this x, -1 for none.
        total: Weight of all clients.
        bounds: Box that x is to stay in, or None.
    """

    x: Array
    variate: Array
    number: int
    heard: np.ndarray[Any, Any]
    current: int
    total: float
    bounds: Bounds | None


@state
class ScaffoldClient:
    """What a client keeps.

    Attributes:
        steps: For its local steps.
        variate: c_i as it is part of c, shape (dim,).
        offered: c_i as it was sent last, and may be part of c by now or not; None for none.
        number: Of that change.
        x: The x it was told last, None where it need not know.
    """

    steps: DescentClient
    variate: Array
    offered: Array | None
    number: int
    x: Array | None

    def informed(self, heard: int) -> ScaffoldClient:
        """Return the client that knows which of its changes is part of c."""
        known = self.offered is not None and heard == self.number
        variate = self.offered if known else self.variate
        return dataclasses.replace(self, variate=variate, offered=None)

    def changed(self, found: Array | None, number: int) -> tuple[ScaffoldClient, Array | None]:
        """Return the client that offers another c_i, and the change; None, and None, for the one there is."""
        if found is None:
            return dataclasses.replace(self, offered=self.variate, number=number), None
        change = found - self.variate
        # Added up as the server does it, so that of one client c - c_i is 0 to the last bit.
        return dataclasses.replace(self, offered=self.variate + change, number=number), change


@dataclass(frozen=True)
class _Scaffold(ZerothOrder[ScaffoldServer, ScaffoldClient]):
    """What both forms share."""

    def server_init(self, x0: Array, problem: Problem) -> ScaffoldServer:
        count = problem.num_clients
        total = float(sum(problem.weights)) if problem.weights else float(count)
        return ScaffoldServer(x0, _zeros(x0), 0, np.full(count, -1), -1, total, problem.bounds)

    def client_init(self, x0: Array, problem: Problem, client: int) -> ScaffoldClient:
        return ScaffoldClient(self.fresh(x0, problem), _zeros(x0), None, -1, None)

    def _start(self, server: ScaffoldServer, clients: Sequence[int]) -> list[Start]:
        """Return one message for each client, the same object for those who are to hear the same."""
        made: dict[int, Start] = {}
        for heard in server.heard[list(clients)].tolist():
            if heard not in made:
                x = None if heard == server.current >= 0 else server.x
                made[heard] = Start(x, server.variate, heard, server.number)
        return [made[heard] for heard in server.heard[list(clients)].tolist()]

    def _steps(
        self, client: ScaffoldClient, message: Start, local: Local
    ) -> Generator[Any, Values, tuple[ScaffoldClient, Descended]]:
        """Do the local steps, g_i(x_i) - c_i + c."""
        client = client.informed(message.heard)
        correction = message.variate - client.variate
        x = client.x if message.x is None else message.x
        assert x is not None
        done = yield from self.descend(x, client.steps, local, lambda _: correction)
        return dataclasses.replace(client, steps=done.client, x=None), done

    def _with_changes(self, server: ScaffoldServer, answers: Sequence[Answer]) -> ScaffoldServer:
        """Return the server whose c has all changes in it."""
        variate, heard = server.variate, server.heard.copy()
        for answer in answers:
            if answer.message.change is not None:
                variate = variate + answer.weight / server.total * answer.message.change
            heard[answer.client] = server.number
        return dataclasses.replace(server, variate=variate, heard=heard, number=server.number + 1)


@dataclass(frozen=True)
class ScaffoldI(_Scaffold):
    """Local steps corrected by differences of values where the round begins.

        c_i = g_i(x_r),   c = sum_i w_i c_i / sum_i w_i        in a second trip, once x_r is known
        x_i <- x_i - learning_rate update(g_i(x_i) - c_i + c)  num_steps times, from x_r on
        x_(r+1) = x_r + server_rate (mean_i x_i - x_r)

    with g_i as in `FedZO`, from new directions each time. In the first round c and all c_i are 0.

    A client that does not answer the second trip keeps its c_i, from an earlier x, and c goes on containing
    it: with S those who have answered,

        c <- c + sum_(i in S) w_i (new c_i - c_i) / sum_i w_i,

    which for equal weights is the |S| / N mean_(i in S) of Karimireddy et al. A reply that is lost changes
    neither c nor, as far as c_i is concerned, the client: the server says which was the last one to arrive.

    A client asks for (T + 1) (q + 1) values a round, sends 2 dim numbers, and is sent 2 dim, or 3 dim where
    it has missed x_r.

    All arguments are those of `ZerothOrder`.

    Example:
        >>> ScaffoldI(num_steps=10, num_directions=20).most_queries(300, True)
        231

    References:
        Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: stochastic controlled averaging for
        federated learning", 2020. https://arxiv.org/abs/1910.06378
        In zeroth-order form: Shu, Lin, Dai and Low, "Federated zeroth-order optimization using
        trajectory-informed surrogate gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (
            Trip(self._start, self._step, self._merge),
            Trip(self._arrive, self._look_round, self._with_changes),
        )

    def most_queries(self, dim: int, first: bool) -> int:
        return super().most_queries(dim, first) + self.queries(dim)

    def undone(self, server: ScaffoldServer, before: ScaffoldServer) -> ScaffoldServer:
        """Return the server as it was, but that clients may hold another x than they were told before."""
        del server
        return dataclasses.replace(before, current=-1)

    def _step(self, client: ScaffoldClient, message: Start, local: Local) -> Work[ScaffoldClient]:
        client, done = yield from self._steps(client, message, local)
        return client, Point(done.x)

    def _merge(self, server: ScaffoldServer, answers: Sequence[Answer]) -> ScaffoldServer:
        x = self.merged(server.x, answers, server.bounds)
        return dataclasses.replace(server, x=x, current=server.number)

    def _arrive(self, server: ScaffoldServer, clients: Sequence[int]) -> Arrived:
        return Arrived(server.x, server.number)

    def _look_round(self, client: ScaffoldClient, message: Arrived, local: Local) -> Work[ScaffoldClient]:
        x = working(message.x).asarray(message.x)
        hidden = "all" if self.recorded else ""
        knows, found = yield from self.difference(x, client.steps.estimator, local, 0, hidden)
        steps = dataclasses.replace(client.steps, estimator=knows)
        client = dataclasses.replace(client, steps=steps, x=message.x)
        client, change = client.changed(found, message.number)
        return client, Change(change)


@dataclass(frozen=True)
class ScaffoldII(_Scaffold):
    """Local steps corrected by what the estimates of the client's last round were in the mean.

        x_i <- x_i - learning_rate update(g_i(x_i) - c_i + c)  num_steps times, from x_r on
        c_i <- mean of g_i over these steps,   c <- sum_i w_i c_i / sum_i w_i
        x_(r+1) = x_r + server_rate (mean_i x_i - x_r)

    with g_i as in `FedZO`. In the first round c and all c_i are 0. Of clients that are absent, or whose
    reply is lost, c goes on containing the last c_i that has arrived, as in `ScaffoldI`.

    A client asks for T (q + 1) values a round, sends 2 dim numbers, and is sent 2 dim.

    All arguments are those of `ZerothOrder`.

    Example:
        >>> ScaffoldII(num_steps=10, num_directions=20).most_queries(300, True)
        210

    References:
        Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: stochastic controlled averaging for
        federated learning", 2020. https://arxiv.org/abs/1910.06378
        In zeroth-order form: Shu, Lin, Dai and Low, "Federated zeroth-order optimization using
        trajectory-informed surrogate gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (Trip(self._start, self._reply, self._merge),)

    def _reply(self, client: ScaffoldClient, message: Start, local: Local) -> Work[ScaffoldClient]:
        client, done = yield from self._steps(client, message, local)
        client, change = client.changed(done.mean, message.number)
        return client, Moved(change, done.x)

    def _merge(self, server: ScaffoldServer, answers: Sequence[Answer]) -> ScaffoldServer:
        x = self.merged(server.x, answers, server.bounds)
        return self._with_changes(dataclasses.replace(server, x=x), answers)


def _zeros(x0: Array) -> Array:
    x = working(x0).asarray(x0)
    return array_module(x).zeros_like(x)
