"""DeComFL: seeds go down, single numbers come up, and every client redoes the steps that it has missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.algorithm import Answer, FederatedAlgorithm, Local, Problem, Trip, Work
from federated.algorithms.local_descent import telling, working
from federated.algorithms.seeded import KNOWN, LARGEST, Fenced, combined, followed, root_of, shared
from federated.messages import Message
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like
from zoo.core.rng import Key
from zoo.core.state import SHARED, state
from zoo.core.types import Evaluations
from zoo.core.validation import check_choice, check_count, check_flag, check_positive
from zoo.estimators.directions import Draw
from zoo.estimators.finite_difference import STENCILS, FiniteDifference, FiniteDifferenceState
from zoo.updates.schedules import as_schedule

LAWS = ("gaussian", "rademacher", "sphere")


@dataclass(frozen=True, eq=False)
class Missed(Message):
    """What a client has to redo, and the seed of the round.

    Attributes:
        first: Number of the first round to redo.
        seeds: Of these rounds, shape (m,), int64.
        slopes: Means over the clients, shape (m, num_steps, num_directions), float32.
        seed: Of the round that begins.
    """

    first: int
    seeds: np.ndarray[Any, Any]
    slopes: np.ndarray[Any, Any]
    seed: int


@dataclass(frozen=True, eq=False)
class Present(Message):
    """Where the server is, and the seed of the round.

    Attributes:
        x: There, shape (dim,).
        number: Rounds that have led there.
        history: Digest of these, shape (16,), uint8, by which clients of one process share x.
        seed: Of the round that begins.
    """

    x: Array
    number: int
    history: np.ndarray[Any, Any]
    seed: int


@dataclass(frozen=True, eq=False)
class Slopes(Message):
    """What a client has found.

    Attributes:
        slopes: Along each direction, shape (num_steps, num_directions), float32; None where no value was
            usable.
    """

    slopes: np.ndarray[Any, Any] | None


@state
class DeComFLServer:
    """What the server knows.

    Attributes:
        x: Where it is, shape (dim,), in single precision at least.
        like: Kind of array of all points that are evaluated.
        bounds: Box that x is to stay in, or None.
        key: Where seeds come from.
        number: Rounds that have changed x.
        history: Digest of these.
        synced: How many of these each client knows of at least, shape (num_clients,).
        first: Number of the first round that is kept.
        seeds: Of the rounds from there on, shape (m,), int64.
        slopes: Likewise, shape (m, num_steps, num_directions), float32.
    """

    x: Array
    like: Like
    bounds: Bounds | None
    key: Key
    number: int
    history: str
    synced: np.ndarray[Any, Any]
    first: int
    seeds: np.ndarray[Any, Any]
    slopes: np.ndarray[Any, Any]


@state
class DeComFLClient:
    """What a client keeps.

    Attributes:
        x: The server's x as it was after `number` rounds, shape (dim,), not to be written to.
        number: How many it knows of.
        history: Digest of these.
        estimator: What its estimator knows.
    """

    x: Array = dataclasses.field(metadata=SHARED)
    number: int
    history: str
    estimator: FiniteDifferenceState


@dataclass(frozen=True)
class DeComFL(FederatedAlgorithm[DeComFLServer, DeComFLClient]):
    """Local steps along random directions that a seed says, so that only slopes have to travel.

    With directions z_kp, k = 1 ... K and p = 1 ... P, drawn from the seed of the round, and h the smoothing
    in each coordinate,

        client:  y = x_r;  for each k:  g_kp = (f_i(y + h z_kp) - f_i(y)) / h
                                        y <- clip(y - learning_rate / P sum_p g_kp z_kp)
        server:  G_kp = sum_i w_i g_kp / sum_i w_i
                 x <- x_r;  for each k:  x <- clip(x - learning_rate / P sum_p G_kp z_kp);  x_(r+1) = x

    A client forgets y, and stays at the last x it knows. When it is asked the next time, it is sent the
    seeds and slopes G of all rounds that it has missed, and redoes them, which leads to the server's x to the
    last bit.

    A client is sent 16 + (8 + 4 K P) m bytes, for m missed rounds, and sends 4 K P, whatever dim is, as long
    as (8 + 4 K P) m is at most the size of x in bytes: 4 dim or 8 dim. A client that has missed more is sent
    x itself, and 32 bytes, and redoes nothing. So no message is longer than x by more, and what the server
    keeps of past rounds never weighs more than x. A client misses one round, the last, by taking part in it;
    it hears x every time only if dim is so small that one round weighs more.

    Slopes travel, and count, in single precision. Memory is a few times dim: of directions, about 2^18
    numbers are held at once, or one direction; and clients of one process that are at the same x share it.

    A direction whose value is missing is left out, and others count for as much more; where all of a step
    are, its slopes are 0; and a client without any has no vote. Points outside the box are
    evaluated at the nearest one inside: where x is at a wall, slopes across it are halved.

    Departures from the paper: one seed a round instead of K, as a `Key` has any number of directions; weights
    of clients; central differences, and other directions, where wanted.

    Args:
        num_steps: Local steps of a round, K.
        num_directions: Directions of a step, P.
        learning_rate: A number above 0, or a schedule of `zoo.updates.schedules` whose steps are rounds.
        smoothing: Root mean square distance from x to points displaced from it: h sqrt(dim); None for the
            task's spacing, 0.01 if it does not say.
        directions: "gaussian", "rademacher" or "sphere".
        stencil: "forward", P + 1 queries a step, or "central", 2 P.
        bounded: Whether all points are kept inside the bounds of the task.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> DeComFL(num_steps=2, num_directions=5).most_queries(10**9, True)
        12

    References:
        Li, Ying, Liu, Dong and Yang, "Achieving dimension-free communication in federated learning via
        zeroth-order optimization", 2025. https://arxiv.org/abs/2405.15861
    """

    num_steps: int = 5
    num_directions: int = 20
    learning_rate: Any = 0.1
    smoothing: float | None = None
    directions: str = "gaussian"
    stencil: str = "forward"
    bounded: bool = True

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        check_count("num_directions", self.num_directions)
        if not hasattr(self.learning_rate, "value"):
            check_positive("learning_rate", self.learning_rate)
        if self.smoothing is not None:
            check_positive("smoothing", self.smoothing)
        check_choice("directions", self.directions, LAWS)
        check_choice("stencil", self.stencil, STENCILS)
        check_flag("bounded", self.bounded)

    def server_init(self, x0: Array, problem: Problem) -> DeComFLServer:
        return DeComFLServer(
            working(x0).asarray(x0),
            Like.of(x0),
            problem.bounds if self.bounded else None,
            problem.key.fold("seeds"),
            0,
            self._root(x0, problem),
            np.zeros(problem.num_clients, np.int64),
            0,
            np.empty(0, np.int64),
            np.empty((0, self.num_steps, self.num_directions), np.float32),
        )

    def client_init(self, x0: Array, problem: Problem, client: int) -> DeComFLClient:
        history, work = self._root(x0, problem), working(x0)
        x = shared(history, work, lambda: work.asarray(x0))
        return DeComFLClient(x, 0, history, self._differences(len(x0), problem.spacing).init(x0))

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (Trip(self._request, self._reply, self._merge),)

    def recommend(self, server: DeComFLServer) -> Array:
        x = server.like.asarray(server.x)
        return x if server.bounds is None else server.bounds.map(x, "clip")

    def most_queries(self, dim: int, first: bool) -> int:
        del first
        return self.num_steps * self._differences(dim).queries(self.num_directions)

    def diagnostics(self, server: DeComFLServer) -> dict[str, Any]:
        """Return for how many rounds the server keeps seeds and slopes."""
        return {"rounds kept": len(server.seeds)}

    def _request(self, server: DeComFLServer, clients: Sequence[int]) -> list[Missed | Present]:
        seed = server.key.fold(server.number).seed(63)
        firsts = server.synced[list(clients)].tolist()
        made: dict[int, Missed | Present] = {}
        history = np.frombuffer(bytes.fromhex(server.history), np.uint8)
        present = Present(server.x, server.number, history, seed)
        for first in set(firsts):
            kept = first - server.first
            made[first] = (
                present if kept < 0 else Missed(first, server.seeds[kept:], server.slopes[kept:], seed)
            )
        return [made[first] for first in firsts]

    def _reply(self, client: DeComFLClient, message: Missed | Present, local: Local) -> Work[DeComFLClient]:
        bounds = local.bounds if self.bounded else None
        client = self.caught_up(client, message, bounds)
        estimator, key = self._differences(len(client.x)), Key(message.seed)
        slopes, knows = np.zeros((self.num_steps, self.num_directions), np.float32), False
        rate = self._rate(client.number)
        y = client.x
        for step in range(self.num_steps):
            asked = estimator.ask(client.estimator, y, key, step)
            values = Evaluations((yield asked if bounds is None else Fenced(asked, bounds))).values
            weights = estimator.weights(asked, values)
            if weights.peak:
                # The mean is over the directions that have a value, and the one of the step is over all.
                scale = weights.scale * self.num_directions
                found = weights.coefficients / weights.peak * scale
                slopes[step] = np.clip(found, -LARGEST, LARGEST)
                y = self._stepped(y, message.seed, step, slopes[step], rate, bounds)
            knows = knows or len(weights.differences) > 0
        return client, Slopes(slopes if knows else None)

    def _merge(self, server: DeComFLServer, answers: Sequence[Answer]) -> DeComFLServer:
        votes = telling(answers, "slopes")
        total = sum(answer.weight for answer in votes)
        mean = np.zeros((self.num_steps, self.num_directions))
        for answer in votes:
            mean += answer.weight / total * answer.message.slopes
        slopes, seed = mean.astype(np.float32), server.key.fold(server.number).seed(63)
        synced = server.synced.copy()
        synced[[answer.client for answer in answers]] = server.number
        most = server.x.nbytes // (8 + slopes.nbytes)
        past = max(int(synced.min()), server.number + 1 - most) - server.first
        return dataclasses.replace(
            server,
            x=self._redone(server.x, seed, slopes, server.number, server.bounds),
            number=server.number + 1,
            history=self._followed(server.history, seed, slopes, server.number),
            synced=synced,
            first=server.first + past,
            seeds=np.append(server.seeds, seed)[past:],
            slopes=np.concatenate([server.slopes, slopes[None]])[past:],
        )

    def caught_up(
        self, client: DeComFLClient, message: Missed | Present, bounds: Bounds | None
    ) -> DeComFLClient:
        """Return the client that has redone the rounds it did not know of, or was told where they lead.

        Args:
            client: The client.
            message: What the server has sent. The client may know of some of it already, if its last answer
                came too late for the server.
            bounds: Box that x is to stay in, or None.
        """
        like = Like.of(client.x)
        if isinstance(message, Present):
            history, told = message.history.tobytes().hex(), message.x
            x = shared(history, like, lambda: told)
            return dataclasses.replace(client, x=x, number=message.number, history=history)
        skip = client.number - message.first
        rounds = list(zip(message.seeds[skip:].tolist(), message.slopes[skip:], strict=True))
        histories = [client.history]
        for number, (seed, slopes) in enumerate(rounds, client.number):
            histories.append(self._followed(histories[-1], seed, slopes, number))
        done, x = 0, client.x
        for count in range(len(rounds), 0, -1):
            known = KNOWN.get((histories[count], like))
            if known is not None:
                done, x = count, known
                break
        for count in range(done, len(rounds)):
            x = self._redone(x, *rounds[count], client.number + count, bounds)
        end = x
        return dataclasses.replace(
            client,
            x=shared(histories[-1], like, lambda: end),
            number=client.number + len(rounds),
            history=histories[-1],
        )

    def _redone(
        self, x: Array, seed: int, slopes: np.ndarray[Any, Any], number: int, bounds: Bounds | None
    ) -> Array:
        """Return x after the steps of a round; number r is the one that leads from x_r to x_(r+1)."""
        rate = self._rate(number)
        for step in range(self.num_steps):
            x = self._stepped(x, seed, step, slopes[step], rate, bounds)
        return x

    def _stepped(
        self,
        x: Array,
        seed: int,
        step: int,
        slopes: np.ndarray[Any, Any],
        rate: float,
        bounds: Bounds | None,
    ) -> Array:
        """Return x after one step, whose directions are those of the finite differences under the seed."""
        law = self._differences(len(x)).law
        draw = Draw(Key(seed).fold(step), step, self.num_directions, len(x), Like.of(x))
        total = combined(law, draw, slopes.tolist(), x)
        x = x - rate / self.num_directions * total
        return x if bounds is None else bounds.map(x, "clip")

    def _root(self, x0: Array, problem: Problem) -> str:
        said = (self.num_steps, self.num_directions, self.directions)
        return root_of(self, said, x0, problem, problem.bounds if self.bounded else None)

    def _followed(self, history: str, seed: int, slopes: np.ndarray[Any, Any], number: int) -> str:
        """Return the digest of a history with one more round; number r is that of x_r to x_(r+1)."""
        rate = np.float64(self._rate(number))
        return followed(history, seed.to_bytes(8, "little"), slopes.tobytes(), rate.tobytes())

    def _differences(self, dim: int, spacing: float = 1.0) -> FiniteDifference:
        """Return the estimator; what it was at first told of spacing, its state knows."""
        return FiniteDifference(
            self.directions, self.num_directions, (self.smoothing or spacing) / dim**0.5, self.stencil
        )

    def _rate(self, number: int) -> float:
        return as_schedule("learning_rate", self.learning_rate).value(number)
