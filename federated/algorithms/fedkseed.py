"""FedKSeed: x is where so many fixed directions lead to, each gone by an amount that everybody knows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.algorithm import Answer, FederatedAlgorithm, Local, Problem, Trip, Work
from federated.algorithms.local_descent import telling, working
from federated.algorithms.seeded import LARGEST, Fenced, Some, combined, followed, root_of, shared
from federated.messages import Message
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like
from zoo.core.rng import Key
from zoo.core.state import SHARED, state
from zoo.core.types import Candidates, Evaluations
from zoo.core.validation import check_choice, check_count, check_flag, check_positive
from zoo.estimators.directions import Directions, Draw
from zoo.estimators.finite_difference import FiniteDifference, FiniteDifferenceState

LAWS = ("gaussian", "rademacher", "sphere")


@dataclass(frozen=True, eq=False)
class Amounts(Message):
    """Where x is.

    Attributes:
        amounts: Of each direction, shape (num_seeds,), float64.
    """

    amounts: np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Walked(Message):
    """What a client has found.

    Attributes:
        seeds: Number of the direction of each of its steps, shape (num_steps,), int32; None where no
            step was made.
        slopes: Along these, shape (num_steps,), float32; likewise.
    """

    seeds: np.ndarray[Any, Any] | None
    slopes: np.ndarray[Any, Any] | None


@state
class FedKSeedServer:
    """What the server knows.

    Attributes:
        start: Where everything began, shape (dim,), in single precision at least.
        x: Where it is, likewise.
        amounts: Of each direction, shape (num_seeds,).
        key: Of the directions.
        like: Kind of array of all points that are evaluated.
        bounds: Box that x is to stay in, or None.
    """

    start: Array
    x: Array
    amounts: np.ndarray[Any, Any]
    key: Key
    like: Like
    bounds: Bounds | None


@state
class FedKSeedClient:
    """What a client keeps.

    Attributes:
        start: Where everything began, shape (dim,), not to be written to.
        root: Digest of that, and of all else that points follow from.
        key: Of the directions.
        estimator: What its estimator knows.
    """

    start: Array = dataclasses.field(metadata=SHARED)
    root: str
    key: Key
    estimator: FiniteDifferenceState


@dataclass(frozen=True)
class FedKSeed(FederatedAlgorithm[FedKSeedServer, FedKSeedClient]):
    """Local steps along directions of a fixed set, and the server adds up how far each of them was gone.

    With directions z_1 ... z_K that never change, drawn under a key that all share, and h the smoothing in
    each coordinate,

        x = clip(x_0 - learning_rate sum_j a_j z_j)
        client:  y = x;  num_steps times:  j uniform,  g = (f_i(y + h z_j) - f_i(y - h z_j)) / (2 h)
                                           y <- clip(y - learning_rate g z_j)
        server:  a_j <- a_j + sum_i w_i (sum of the client's g at j) / sum_i w_i

    However long a client was absent, K numbers tell it where x is; what it takes to work x out is K draws of
    dim numbers. x stays in a set of K dimensions about x_0, so K is to be large.

    A client asks for 2 num_steps values a round, is sent 8 K bytes, and sends 8 num_steps, whatever dim is.
    Memory is a few times dim; clients of one process share x.

    Departures from the paper: all directions are equally likely (its FedKSeed); weights of clients; bounds.
    Where a value is missing, the step is left out; a client that can make none has no vote. Points outside
    the box are evaluated at the nearest one inside.

    Args:
        num_seeds: Directions, K.
        num_steps: Local steps of a round.
        learning_rate: A number above 0. Directions have a length of about sqrt(dim), and a step goes along
            one of them alone: it is to be less than 2 / (dim times the curvature).
        smoothing: Root mean square distance from x to points displaced from it: h sqrt(dim); None for the
            task's spacing, 0.01 if it does not say.
        directions: "gaussian", "rademacher" or "sphere".
        bounded: Whether all points are kept inside the bounds of the task.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> FedKSeed(num_steps=50).most_queries(10**9, True)
        100

    References:
        Qin, Chen, Qian, Ding, Li and Deng, "Federated full-parameter tuning of billion-sized language models
        with communication cost under 18 kilobytes", 2024. https://arxiv.org/abs/2312.06353
    """

    num_seeds: int = 1024
    num_steps: int = 50
    learning_rate: float = 0.01
    smoothing: float | None = None
    directions: str = "gaussian"
    bounded: bool = True

    def __post_init__(self) -> None:
        check_count("num_seeds", self.num_seeds)
        check_count("num_steps", self.num_steps)
        check_positive("learning_rate", self.learning_rate)
        if self.smoothing is not None:
            check_positive("smoothing", self.smoothing)
        check_choice("directions", self.directions, LAWS)
        check_flag("bounded", self.bounded)

    def server_init(self, x0: Array, problem: Problem) -> FedKSeedServer:
        start = working(x0).asarray(x0)
        bounds = problem.bounds if self.bounded else None
        key = problem.key.fold("seeds")
        return FedKSeedServer(start, start, np.zeros(self.num_seeds), key, Like.of(x0), bounds)

    def client_init(self, x0: Array, problem: Problem, client: int) -> FedKSeedClient:
        said, work = (self.num_seeds, self.learning_rate, self.directions), working(x0)
        root = root_of(self, said, x0, problem, problem.bounds if self.bounded else None)
        start = shared(root, work, lambda: work.asarray(x0))
        knows = self._differences(len(x0), problem.spacing).init(x0)
        return FedKSeedClient(start, root, problem.key.fold("seeds"), knows)

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (Trip(self._request, self._reply, self._merge),)

    def recommend(self, server: FedKSeedServer) -> Array:
        x = server.like.asarray(server.x)
        return x if server.bounds is None else server.bounds.map(x, "clip")

    def most_queries(self, dim: int, first: bool) -> int:
        return 2 * self.num_steps

    def diagnostics(self, server: FedKSeedServer) -> dict[str, Any]:
        """Return how many directions were gone along."""
        return {"directions": int(np.count_nonzero(server.amounts))}

    def located(self, start: Array, amounts: np.ndarray[Any, Any], key: Key, bounds: Bounds | None) -> Array:
        """Return x, the same bytes wherever it is worked out.

        Args:
            start: x_0, shape (dim,).
            amounts: a, shape (num_seeds,).
            key: Of the directions.
            bounds: Box that x is to stay in, or None.
        """
        total = combined(*self._directions(start, key), amounts.tolist(), start)
        return _inside(start - self.learning_rate * total, bounds)

    def _request(self, server: FedKSeedServer, clients: Sequence[int]) -> Amounts:
        return Amounts(server.amounts)

    def _reply(self, client: FedKSeedClient, message: Amounts, local: Local) -> Work[FedKSeedClient]:
        bounds, start = local.bounds if self.bounded else None, client.start
        y = shared(
            followed(client.root, client.key.digest, message.amounts.tobytes()),
            Like.of(start),
            lambda: self.located(start, message.amounts, client.key, bounds),
        )
        estimator, (law, draw) = self._differences(len(start)), self._directions(start, client.key)
        seeds = local.key.fold("steps").integers(0, 1, self.num_steps, high=self.num_seeds)[0]
        slopes, knows = np.zeros(self.num_steps, np.float32), False
        for step, number in enumerate(seeds.tolist()):
            pair: Candidates = Some(
                estimator.ask(client.estimator, y, client.key, 0), 2 * number, 2 * number + 2
            )
            values = Evaluations((yield pair if bounds is None else Fenced(pair, bounds))).values
            slope = (values[0] / 2 - values[1] / 2) / client.estimator.smoothing
            if math.isfinite(slope):
                slopes[step], knows = min(max(slope, -LARGEST), LARGEST), True
                way = float(slopes[step]) * law.draw(draw, number, number + 1, None, None)[0]
                y = _inside(y - self.learning_rate * way, bounds)
        return client, Walked(seeds.astype(np.int32), slopes) if knows else Walked(None, None)

    def _merge(self, server: FedKSeedServer, answers: Sequence[Answer]) -> FedKSeedServer:
        answers = telling(answers, "slopes")
        if not answers:
            return server
        total = sum(answer.weight for answer in answers)
        amounts = server.amounts.copy()
        for answer in answers:
            slopes = answer.weight / total * answer.message.slopes.astype(np.float64)
            np.add.at(amounts, answer.message.seeds, slopes)
        x = self.located(server.start, amounts, server.key, server.bounds)
        return dataclasses.replace(server, x=x, amounts=amounts)

    def _directions(self, x: Array, key: Key) -> tuple[Directions, Draw]:
        """Return all directions, those of the finite differences."""
        law = self._differences(len(x)).law
        return law, Draw(key.fold(0), 0, self.num_seeds, len(x), Like.of(x))

    def _differences(self, dim: int, spacing: float = 1.0) -> FiniteDifference:
        """Return the estimator; what it was at first told of spacing, its state knows."""
        smoothing = (self.smoothing or spacing) / math.sqrt(dim)
        return FiniteDifference(self.directions, self.num_seeds, smoothing, "central")


def _inside(x: Array, bounds: Bounds | None) -> Array:
    return x if bounds is None else bounds.map(x, "clip")
