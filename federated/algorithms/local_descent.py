"""What the methods with local steps share: T steps on every client, and the mean of where they end."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from federated.algorithm import (
    Answer,
    FederatedAlgorithm,
    Hidden,
    Local,
    Problem,
    Trip,
    Values,
    Work,
)
from federated.messages import Message
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.state import state
from zoo.core.types import Evaluations
from zoo.core.validation import check_choice, check_count, check_flag, check_positive
from zoo.estimators.directions import Directions, as_directions
from zoo.estimators.finite_difference import (
    STENCILS,
    FiniteDifference,
    FiniteDifferenceState,
    GradientEstimate,
    weighted_sum,
)
from zoo.updates.adam import Adam
from zoo.updates.chain import Chain, Update
from zoo.updates.schedules import as_schedule

UPDATES = ("adam", "sgd")
SCALES = ("unbiased", "published")

S = TypeVar("S")
C = TypeVar("C")

Estimating = Generator[Any, Values, "tuple[Any, Array | None]"]
"""Work that ends with what the estimator knows by then, and the estimate, or None where there is none."""


@dataclass(frozen=True, eq=False)
class Point(Message):
    """A point.

    Attributes:
        x: Shape (dim,); None from a client that has found no direction to step in.
    """

    x: Array | None


@state
class DescentServer:
    """What the server knows.

    Attributes:
        x: Where it is, shape (dim,).
        bounds: Box that x is to stay in, or None.
    """

    x: Array
    bounds: Bounds | None


@state
class DescentClient:
    """What a client keeps from one round to the next.

    Attributes:
        estimator: What its estimator knows, None where that knows nothing.
        update: The memory of its update, None where that begins anew.
    """

    estimator: Any
    update: Any


class Descended(NamedTuple):
    """Where local steps have led to.

    Attributes:
        x: The last point, shape (dim,); None where no step was made.
        client: What the client keeps.
        mean: Of the estimates, without what they were corrected by, shape (dim,); None where there was none.
    """

    x: Array | None
    client: DescentClient
    mean: Array | None


@dataclass(frozen=True)
class LocalDescent(FederatedAlgorithm[S, C], Generic[S, C]):
    """Local steps, and the mean of where they end.

        x_i <- x_r;  num_steps times:  x_i <- clip(x_i - learning_rate update(g_i(x_i) + c_i(x_i)))
        x_(r+1) = clip(x_r + server_rate (sum_i w_i x_i / sum_i w_i - x_r))

    with the sums over the clients that have answered with a point, and g_i and c_i, an estimate of the
    gradient of f_i and a correction, as subclasses have them. A client that has had no estimate at all in a
    round, as no value was usable, does not answer with a point, and so does not hold the others back. Where
    nobody does, x stays.

    Args:
        num_steps: Local steps of a round, T.
        learning_rate: A number above 0, or a schedule of `zoo.updates.schedules` whose steps are rounds.
        update: "adam", "sgd", or an update of `zoo.updates`. Adam makes every coordinate's first step
            `learning_rate` long.
        restart: Whether the update forgets everything at the start of a round.
        server_rate: How far the server goes towards the mean, above 0.
        bounded: Whether all points are kept inside the bounds of the task.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.
    """

    num_steps: int = 10
    learning_rate: Any = 0.03
    update: str | Update = "adam"
    restart: bool = True
    server_rate: float = 1.0
    bounded: bool = True

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        if not hasattr(self.learning_rate, "value"):
            check_positive("learning_rate", self.learning_rate)
        if isinstance(self.update, str):
            check_choice("update", self.update, UPDATES)
        elif isinstance(self.update, type) or not callable(getattr(self.update, "update", None)):
            raise TypeError(
                f"`update` must be 'adam', 'sgd' or an update such as `zoo.updates.momentum.Momentum()`, got "
                f"{self.update!r}."
            )
        check_positive("server_rate", self.server_rate)
        check_flag("restart", self.restart)
        check_flag("bounded", self.bounded)

    @abc.abstractmethod
    def estimate(self, x: Array, memory: Any, local: Local, step: int) -> Estimating:
        """Work out an estimate of the gradient of the client's function.

        Args:
            x: Where, shape (dim,), in single precision at least.
            memory: What the estimator knows.
            local: What the client has at hand.
            step: Number of the estimate in this trip.
        """

    def remembered(self, x0: Array, problem: Problem) -> Any:
        """Return what the estimator knows at first."""
        del x0, problem

    def recommend(self, server: Any) -> Array:
        return server.x

    def fresh(self, x0: Array, problem: Problem) -> DescentClient:
        """Return what a client keeps, before the first round."""
        work = working(x0)
        memory = None if self.restart else self.rule.init(work.asarray(x0))
        return DescentClient(self.remembered(x0, problem), memory)

    @property
    def rule(self) -> Update:
        """The update."""
        if isinstance(self.update, str):
            return Adam() if self.update == "adam" else Chain()
        return self.update

    def descend(
        self,
        x: Array,
        client: DescentClient,
        local: Local,
        correction: Callable[[Array], Array] | None = None,
    ) -> Generator[Any, Values, Descended]:
        """Do the local steps of a round. Where there is no estimate at all, none is made.

        Args:
            x: Where they begin, shape (dim,).
            client: What the client has kept.
            local: What it has at hand.
            correction: What is added to the estimate, as a function of where it was made; None for nothing.
        """
        like, rule, bounds = Like.of(x), self.rule, self._box(local)
        rate = as_schedule("learning_rate", self.learning_rate).value(local.round)
        at = working(x).asarray(x)
        memory = rule.init(at) if self.restart else client.update
        knows = client.estimator
        total, count = None, 0
        for step in range(self.num_steps):
            knows, gradient = yield from self.estimate(at, knows, local, step)
            if gradient is None:
                continue
            total, count = gradient if total is None else total + gradient, count + 1
            memory, way = rule.update(memory, gradient if correction is None else gradient + correction(at))
            at = _inside(at - rate * way, bounds)
            yield from self.arrived(at)
        end = _inside(like.asarray(at), bounds) if count else None
        kept = DescentClient(knows, None if self.restart else memory)
        return Descended(end, kept, None if total is None else total / count)

    def merged(self, x: Array, answers: Sequence[Answer], bounds: Bounds | None) -> Array:
        """Return x_(r+1) of x_r and messages with a field `x`, where steps have ended, or None."""
        answers = telling(answers, "x")
        if not answers:
            return x
        work = working(x)
        here = work.asarray(x)
        moved = here + self.server_rate * (weighted_mean(answers, "x") - here)
        return _inside(Like.of(x).asarray(moved), bounds if self.bounded else None)

    def arrived(self, x: Array) -> Generator[Any, Values, None]:
        """Ask for what is wanted at the end of a local step beside its estimate: nothing."""
        del x
        yield from ()

    def _box(self, local: Local) -> Bounds | None:
        return local.bounds if self.bounded else None


@dataclass(frozen=True)
class Averaging(LocalDescent[DescentServer, DescentClient]):
    """Local steps in a round of one trip: x_r down, x_i up."""

    def server_init(self, x0: Array, problem: Problem) -> DescentServer:
        return DescentServer(x0, problem.bounds)

    def client_init(self, x0: Array, problem: Problem, client: int) -> DescentClient:
        return self.fresh(x0, problem)

    def correction(self, start: Array) -> Callable[[Array], Array] | None:
        """Return what is added to the estimate, as a function of where it was made; None for nothing.

        Args:
            start: x_r.
        """
        del start
        return None

    @property
    def trips(self) -> tuple[Trip, ...]:
        return (Trip(self._request, self._reply, self._merge),)

    def _request(self, server: DescentServer, clients: Sequence[int]) -> Point:
        return Point(server.x)

    def _reply(self, client: DescentClient, message: Point, local: Local) -> Work[DescentClient]:
        done = yield from self.descend(message.x, client, local, self.correction(message.x))
        return done.client, Point(done.x)

    def _merge(self, server: DescentServer, answers: Sequence[Answer]) -> DescentServer:
        return DescentServer(self.merged(server.x, answers, server.bounds), server.bounds)


@dataclass(frozen=True)
class ZerothOrder(LocalDescent[S, C], Generic[S, C]):
    """Local steps along estimates made of differences of values; see `zoo.FiniteDifference`.

    At a wall, differences are taken about a point a little inside, at 4 root mean squares of a coordinate's
    displacement, since displacements that are turned round at walls would no longer be independent.

    A direction whose value is missing is left out of its estimate. Where all are, the step is.

    The defaults of `learning_rate`, `restart` and `num_directions` are one setting for all methods, chosen
    on `federated.tasks.synthetic.Quadratic` (dim 300, 5 clients, C of 0.5 and of 5, 3 seeds) from a grid of
    seven rates from 0.02 to 0.1, both kinds of `restart`, and 5 or 20 directions, with Adam. Two things were
    measured: how far F is from its minimum after 5400 queries, and after how many rounds it is 0.2. In the
    geometric mean of all methods the defaults come to 1.2 times what each method does at its best in the
    first, and to 2.3 times in the second; 20 directions with the same rate, to 6.5 and 1.02 times. So where
    rounds cost more than queries, have 20.

    Plain steps (`update="sgd"`) come about as far with rates that suit them, 0.05 to 0.4 there, and with 20
    directions to 0.2 a round sooner; but their rate has the unit of x squared over that of f, so that no one
    of them is right elsewhere.

    Args:
        num_steps: See `LocalDescent`, likewise the next ones.
        learning_rate: Likewise.
        update: Likewise.
        restart: Likewise.
        server_rate: Likewise.
        bounded: Likewise.
        num_directions: Directions of an estimate, q.
        smoothing: Distance from x to the points displaced from it, as its root mean square where lengths
            differ; None for the task's spacing, 0.01 if it does not say; or "auto", see
            `zoo.FiniteDifference`.
        directions: A law, or its name: "orthonormal", "sphere", "gaussian", "rademacher" and so on.
        stencil: "forward", q + 1 queries an estimate, or "central", 2 q.
        scale: "unbiased", or "published" for estimates divided by dim as in the code of Shu et al., whose
            mean is the gradient divided by dim.
        recorded: Whether queries are made as in that code, which evaluates every point that a local step
            starts from or ends at by itself, to keep it on record, and once more for the differences, which
            it does not count: T + 1 queries more.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.
    """

    learning_rate: Any = 0.05
    restart: bool = False
    num_directions: int = 5
    smoothing: float | str | None = None
    directions: str | Directions = "orthonormal"
    stencil: str = "forward"
    scale: str = "unbiased"
    recorded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_directions", self.num_directions)
        as_directions(self.directions)
        if isinstance(self.smoothing, str):
            check_choice("smoothing", self.smoothing, ("auto",))
        elif self.smoothing is not None:
            check_positive("smoothing", self.smoothing)
        check_choice("stencil", self.stencil, STENCILS)
        check_choice("scale", self.scale, SCALES)
        if check_flag("recorded", self.recorded) and self.stencil != "forward":
            raise ValueError("`recorded` needs the stencil 'forward', got 'central'.")

    def remembered(self, x0: Array, problem: Problem) -> FiniteDifferenceState:
        return self._differences(len(x0), problem.spacing).init(x0)

    def estimate(self, x: Array, memory: Any, local: Local, step: int) -> Estimating:
        return (yield from self.difference(x, memory, local, step, "bases" if self.recorded else ""))

    def difference(
        self, x: Array, memory: FiniteDifferenceState, local: Local, step: int, hidden: str = ""
    ) -> Estimating:
        """Work out an estimate of the gradient from differences.

        Args:
            x: Where, shape (dim,).
            memory: What the estimator knows.
            local: What the client has at hand.
            step: Number of the estimate in this trip.
            hidden: Which of its queries are hidden: "bases", "all", or none.
        """
        estimator, key = self._differences(len(x)), local.key.fold("directions")
        # The box would be in each client's checkpoint.
        known = dataclasses.replace(memory, bounds=self._box(local))
        if known.bounds is not None:
            x = _away_from_walls(x, known.bounds, known.smoothing)
        asked = estimator.ask(known, x, key, step)
        if hidden == "bases":
            rows = asked.rows(0, len(asked))
            base = yield Hidden(rows[:1])
            values = np.concatenate([base, (yield rows[1:])])
        else:
            values = yield Hidden(asked) if hidden else asked
        values = Evaluations(values).values
        # Not `estimator.estimate`, which would draw the directions a second time.
        weights = estimator.weights(asked, values)
        if weights.peak:
            total, symmetric = weighted_sum(asked, weights.coefficients / weights.peak)
            total = total * weights.scale
        else:
            total, symmetric = array_module(asked.base).zeros_like(asked.base), None
        known, found = estimator.conclude(known, asked, values, weights, total, symmetric)
        known = dataclasses.replace(known, bounds=None)
        return known, self._scaled(found)

    def queries(self, dim: int) -> int:
        """Return how many values an estimate takes."""
        estimator = self._differences(dim)
        return estimator.queries(estimator.count(dim))

    def most_queries(self, dim: int, first: bool) -> int:
        del first
        return self.num_steps * self.queries(dim) + (self.num_steps + 1 if self.recorded else 0)

    def descend(
        self,
        x: Array,
        client: DescentClient,
        local: Local,
        correction: Callable[[Array], Array] | None = None,
    ) -> Generator[Any, Values, Descended]:
        if self.recorded:
            yield x[None]
        return (yield from super().descend(x, client, local, correction))

    def arrived(self, x: Array) -> Generator[Any, Values, None]:
        if self.recorded:
            yield x[None]

    def _differences(self, dim: int, spacing: float = 1.0) -> FiniteDifference:
        """Return the estimator; what it was at first told of spacing, its state knows."""
        smoothing, law = self.smoothing or spacing, as_directions(self.directions)
        return FiniteDifference(
            law,
            self.num_directions,
            smoothing if isinstance(smoothing, str) else smoothing / law.norm(dim),
            self.stencil,
        )

    def _scaled(self, found: GradientEstimate) -> Array | None:
        if not found.num_valid:
            return None
        return found.gradient / len(found.gradient) if self.scale == "published" else found.gradient

    @classmethod
    def published(cls, **options: Any) -> Self:
        """Return it as the code of Shu et al. has it, with all constants and queries but for some options.

        Estimates lack their factor dim, iterates may leave the box, and every iterate is evaluated twice.
        That code also has the server evaluate F and undo a round that has not lowered it; this does not.
        """
        constants: dict[str, Any] = {
            "num_steps": 10,
            "learning_rate": 0.01,
            "update": "adam",
            "restart": True,
            "server_rate": 1.0,
            "bounded": False,
            "num_directions": 20,
            "smoothing": 0.01,
            "directions": "orthonormal",
            "stencil": "forward",
            "scale": "published",
            "recorded": True,
        }
        return cls(**{**constants, **options})


def telling(answers: Sequence[Answer], name: str) -> list[Answer]:
    """Return the answers in which a field is not None."""
    return [answer for answer in answers if getattr(answer.message, name) is not None]


def weighted_mean(answers: Sequence[Answer], name: str) -> Array:
    """Return the mean of a field by weight over the messages that have it, in single precision at least.

    Args:
        answers: In one of them at least, the field is not None; others do not count.
        name: Of the field.
    """
    answers = telling(answers, name)
    total = sum(answer.weight for answer in answers)
    found: Array = 0.0
    for answer in answers:
        part = getattr(answer.message, name)
        found = found + answer.weight / total * working(part).asarray(part)
    return found


def working(x: Array) -> Like:
    """Return the kind of array to compute with: single precision where `x` is of half."""
    like = Like.of(x)
    return Like(like.kind, like.working_dtype, like.device)


def _away_from_walls(x: Array, bounds: Bounds, smoothing: float) -> Array:
    """Return the nearest point from which displacements of `smoothing` a coordinate hardly leave the box."""
    xp = array_module(x)
    lower, upper = bounds.sides(x)
    margin = (upper / 2 - lower / 2).clip(max=min(4.0, len(x) ** 0.5) * smoothing)
    return xp.minimum(xp.maximum(x, lower + margin), upper - margin)


def _inside(x: Array, bounds: Bounds | None) -> Array:
    return x if bounds is None else bounds.map(x, "clip")
