"""FZooS: local steps along surrogates of trajectories, corrected by what all clients know."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from federated.algorithm import Answer, Hidden, Local, Problem, Trip, Values, Work
from federated.algorithms.local_descent import Estimating, LocalDescent, Point, weighted_mean, working
from federated.algorithms.queries import orthogonal, uncertain
from federated.messages import Message
from federated.surrogate.features import FourierFeatures
from federated.surrogate.gaussian_process import Fit, GaussianProcess, Memory
from federated.surrogate.kernels import KERNELS
from federated.surrogate.window import Window
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.validation import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_number,
    check_positive,
)
from zoo.updates.adam import Adam
from zoo.updates.chain import Update
from zoo.updates.schedules import as_schedule

GAMMAS = ("published", "adaptive")
MESSAGES = ("auto", "gradient", "features")
QUERIES = ("orthogonal", "box")

_FEWEST = 150  # points of a window, however few coordinates there are
_MOST = 1300
_DRAWN = 2**26  # bytes of a matrix of frequencies, at most, for it to be drawn
_BETA1, _BETA2 = 0.5, 0.9
_STEP_CANDIDATES, _ROUND_CANDIDATES = 100, 200
_CONFIDENCE = 0.1
_NOISE = 1e-6  # of features at least, which are not exact
_SLACK = 1.5  # points kept for each that a fit goes by, as the search may come back to where it was


@dataclass(frozen=True, eq=False)
class Go(Message):
    """What the server asks clients to take steps from.

    Attributes:
        x: x_r, shape (dim,).
        rate: What the learning rate is multiplied by.
        number: How often x was settled, by which a client knows whether what it said last was said of this x.
        surrogate: The mean of what clients have said of x, shape (dim,) or (M,); None where nobody has.
        deviation: Its standard deviation, where that matters, else None.
    """

    x: Array
    rate: float
    number: int
    surrogate: Array | None
    deviation: float | None


@dataclass(frozen=True, eq=False)
class Settled(Message):
    """Where the server is.

    Attributes:
        x: x_(r+1), shape (dim,).
        number: How often it was settled.
    """

    x: Array
    number: int


@dataclass(frozen=True, eq=False)
class Said(Message):
    """What a client knows of its function around x.

    Attributes:
        surrogate: The gradient there, shape (dim,), or the weights of features, shape (M,); None where it has
            seen no value.
        deviation: Of the gradient, the root of the sum of variances of all coordinates, where that matters,
            else None. Not the sum itself, which may be beyond the largest number where values are not.
    """

    surrogate: Array | None
    deviation: float | None


@dataclass(frozen=True, eq=False)
class Two(Message):
    """Two points to be compared.

    Attributes:
        before: Shape (dim,).
        after: Shape (dim,).
    """

    before: Array
    after: Array


@dataclass(frozen=True, eq=False)
class Compared(Message):
    """Values of two points.

    Attributes:
        before: Of the first.
        after: Of the second.
    """

    before: float
    after: float


@state
class FZooSServer:
    """What the server knows.

    Attributes:
        x: Where it is, shape (dim,).
        bounds: Box that x is to stay in, or None.
        number: How often x was settled.
        rate: What the learning rate is multiplied by.
        move: How x was last moved, shape (dim,); None before.
        proposed: Where clients have led to, while it is to be found out whether that is better.
        surrogate: The mean of what clients have said of x; None where nobody has.
        deviation: Its standard deviation, where that matters, else None.
        taken: The highest number that x ever had, also in rounds that came to nothing.
    """

    x: Array
    bounds: Bounds | None
    number: int = 0
    rate: float = 1.0
    move: Array | None = None
    proposed: Array | None = None
    surrogate: Array | None = None
    deviation: float | None = None
    taken: int = 0


@state
class FZooSClient:
    """What a client keeps.

    Attributes:
        window: What it has seen.
        memory: What fits pass on to each other.
        update: The memory of its update, None where that begins anew.
        shared: Randomness that clients share.
        direction: Number of its next direction.
        radius: How far it looks around.
        end: Where its steps of this round have ended, shape (dim,); None where they have not.
        said: What it last said of its surrogate, None where nothing.
        number: What it said that of, see `Settled`.
        started: Whether it has ever taken part.
        unit: What its gradients are divided by ahead of Adam; None before the first, and where Adam begins
            anew.
    """

    window: Window
    memory: Memory
    update: Any
    shared: Key
    direction: int
    radius: float
    end: Array | None = None
    said: Array | None = None
    number: int = -1
    started: bool = False
    unit: float | None = None


class _Known(NamedTuple):
    """What a client has gathered during a trip."""

    window: Window
    memory: Memory
    direction: int
    shared: Key
    radius: float
    started: bool
    fit: Any = None

    @staticmethod
    def by(client: FZooSClient) -> _Known:
        return _Known(
            client.window, client.memory, client.direction, client.shared, client.radius, client.started
        )


@dataclass(frozen=True)
class FZooS(LocalDescent[FZooSServer, FZooSClient]):
    """Local steps along the gradients of surrogates, which are learnt from all values along the way.

    A round has two trips. In the first one, client i starts from x = x_r and does `num_steps` times

        ask for f_i(x), and for some points around it
        mu_i: the Gaussian process of the points nearest to x, see `GaussianProcess`
        x <- clip(x - rate update(grad mu_i(x) + gamma (grad mu(x) - grad mu_i'(x))))

    then asks for f_i(x) and sends x. The server moves to the mean, x_(r+1). In the second trip the client
    asks for f_i(x_(r+1)) and for points around it, and says what it knows: either grad mu_i(x_(r+1)), dim
    numbers, or the weights of mu_i' in random Fourier features that all clients share, M numbers. The mean of
    what all have said is mu; what a client said itself is mu_i'. With gradients, both are constants during a
    round. The mean is of those who were heard in the round before. A client that was not takes for mu_i' what
    it would have said of x_r, by what it has seen. With one client the correction is 0.

    A client asks for 1 + T + a (T - 1) + 1 + b values a round, with a = `step_queries` and b =
    `round_queries`, and for `start_queries` more in the first round in which it takes part; with `accept`
    for 2 more a round. It sends dim numbers, then dim or M, and is sent as many, and dim.

    With "adaptive", gamma is what makes the expected square of the error least. The gradient of a client's
    function is off by D, whose square is that of the heterogeneity, and that of its surrogate by another
    V_i; the correction takes the share gamma of both away, as mu_i' has the error of mu_i, and brings as much
    of the error of mu, V = sum_j w_j^2 V_j:

        gamma = (D^2 + V_i) / (D^2 + V_i + V),  about  (|c|^2 + V) / (|c|^2 + 2 V)

    with c the correction, since |c|^2 is on average D^2 + V_i, but for a term of the size of V. It is from
    1/2 for clients that are alike up to 1. D^2 / (D^2 + V), where the error of mu_i' is taken for another
    than that of mu_i, was slower where clients differ.

    `FZooS.published()` is the form of the paper's code. By default, unlike there:

    * iterates are kept in the box of the task, outside of which a clipped objective has no gradient;
    * a fit goes by more points than there are coordinates;
    * clients ask in directions that are perpendicular to each other, and share them out, see
      `federated.algorithms.queries.sweep`; there, for the points of a box where the gradient is least known;
    * clients send the gradient where it is shorter than the weights;
    * mean, variance and noise of the process are fitted, where there they are the lowest value, the range,
      and 1e-6. On functions without noise, fitting that changes nothing; with noise of deviation 0.003 to
      0.03 on `federated.tasks.synthetic.Quadratic`, it mostly left 0.4 to 0.85 of the gap to the minimum;
    * gamma is adaptive, and Adam has a shorter memory;
    * the rate is multiplied by `decay` whenever the server turns back, that is, when its move has a negative
      inner product with the one before;
    * no move is tried out: there a move after which F is not lower is taken back, by 2 values a client that
      are not counted. Here they are, as hidden ones.

    What differs there from the code even so: features are fitted with `noise`, in place of 0; gradients are
    exact; candidates are weighed up by the kernel of the process, all coordinates, and the points of the fit;
    a client asks for its first points the first time it takes part, where there all do in the first round.

    Values may be of any size: a multiple of f is followed along the same path. With Adam, gradients are
    divided by the power of two below the range of the values of the first fit of a round (of all, without
    `restart`), or Adam's epsilon, 1e-8, would be a length of theirs. A gradient that is beyond the largest
    number even so, in single precision 1e38, counts as none.

    A client that has had no gradient at all in a round answers with no point; see `LocalDescent`. One whose
    first values are all the same warns (`ZooWarning`).

    Args:
        num_steps: See `LocalDescent`, likewise the next ones.
        learning_rate: Likewise.
        update: Likewise.
        restart: Likewise.
        server_rate: Likewise.
        bounded: Likewise.
        beta1: Of Adam, refused with another `update`: the share of the past in the mean of gradients; None
            for 0.5. It starts anew every round, so that 0.9 leaves the last of ten steps much of the first.
        beta2: Likewise, in the mean of squares; None for 0.9.
        gamma: Weight of the correction: a number of at least 0, "published", 1 / t in the t-th step of a
            round, or "adaptive".
        message: "gradient", "features", or "auto" for the shorter one.
        decay: What the rate is multiplied by when the server turns back, above 0 and at most 1.
        queries: "orthogonal" or "box".
        radius: Half of the width of the box that is asked in; None for the task's spacing, 0.01 if it does
            not say. Directions are followed for the root mean square distance of its points, radius
            sqrt(dim / 3).
        start_queries: Points that a client asks for first, the first time it takes part; None for dim / 2,
            at least 10, and at most half of what a fit or the memory has room for. A gradient that begins
            well saves whole rounds where clients differ.
        step_queries: Points after every step but the last.
        round_queries: Points in the second trip. Of these three, "orthogonal" asks for 2 dim at most.
        step_candidates: Points that "box" takes those of a step from, None for 100; refused with
            "orthogonal". The first points of all are taken as they are drawn.
        round_candidates: Likewise of the second trip, None for 200. Their box is half as wide as the mean
            distance, by coordinate, of x_(r+1) to where the client had come.
        window: Points that a fit goes by; None for 1.3 dim, at least 150 and at most 1300.
        window_bytes: Memory that the points of a client may take, which bounds their number.
        kernel: Of the process, "matern" or "rbf".
        noise: Variance of the noise of scaled values; None to have it fitted to them, see `GaussianProcess`.
        fitted: Whether mean and variance of the process are fitted to the values.
        num_features: M.
        feature_length: Length scale of their kernel; None for 0.3 sqrt(dim), about what processes find.
        feature_points: Points that weights are fitted to.
        orthogonal_features: Whether features are made orthogonal, which makes them more exact, and structured
            where a matrix of them would take more than 64 MB: see `FourierFeatures`.
        accept: Whether the server takes a move back after which F is not lower.
        virtual_steps: Steps that may follow each step without any query, on the same fit, as in ZoRD.
        confidence: They are made while the variance of the gradient is at most this share of what it is far
            from all points; None for 0.1. Refused without such steps.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> FZooS(num_steps=10).most_queries(300, True), FZooS(num_steps=10).most_queries(300, False)
        (243, 93)

    References:
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
        Shu, Dai, Sng, Verma, Jaillet and Low, "Zeroth-order optimization with trajectory-informed derivative
        estimation" (ZoRD), 2023. https://openreview.net/forum?id=n1bLgxHW6jW
    """

    learning_rate: Any = 0.02
    beta1: float | None = None
    beta2: float | None = None
    gamma: float | str = "adaptive"
    message: str = "auto"
    decay: float = 0.6
    queries: str = "orthogonal"
    radius: float | None = None
    start_queries: int | None = None
    step_queries: int = 8
    round_queries: int = 9
    step_candidates: int | None = None
    round_candidates: int | None = None
    window: int | None = None
    window_bytes: int = 2**26
    kernel: str = "matern"
    noise: float | None = None
    fitted: bool = True
    num_features: int = 10_000
    feature_length: float | None = None
    feature_points: int = 500
    orthogonal_features: bool = True
    accept: bool = False
    virtual_steps: int = 0
    confidence: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.gamma, str):
            check_choice("gamma", self.gamma, GAMMAS)
        elif not 0 <= check_number("gamma", self.gamma) < math.inf:
            raise ValueError(f"`gamma` must be a finite number of at least 0, got {self.gamma!r}.")
        check_choice("message", self.message, MESSAGES)
        if not 0 < check_number("decay", self.decay) <= 1:
            raise ValueError(f"`decay` must be above 0 and at most 1, got {self.decay!r}.")
        check_choice("queries", self.queries, QUERIES)
        check_choice("kernel", self.kernel, KERNELS)
        for name in ("start_queries", "step_queries", "round_queries", "virtual_steps"):
            if name != "start_queries" or self.start_queries is not None:
                check_count(name, getattr(self, name), minimum=0)
        for name in ("num_features", "feature_points"):
            check_count(name, getattr(self, name))
        self._check_needed("step_candidates", self.queries == "box", "`queries` is 'box'")
        self._check_needed("round_candidates", self.queries == "box", "`queries` is 'box'")
        self._check_needed("confidence", self.virtual_steps > 0, "`virtual_steps` is above 0")
        self._check_needed("beta1", self.update == "adam", "`update` is 'adam'")
        self._check_needed("beta2", self.update == "adam", "`update` is 'adam'")
        for name, usual in (("step", _STEP_CANDIDATES), ("round", _ROUND_CANDIDATES)):
            count, among = getattr(self, f"{name}_queries"), getattr(self, f"{name}_candidates")
            if among is not None:
                check_count(f"{name}_candidates", among)
            if self.queries == "box" and (among or usual) < count:
                raise ValueError(
                    f"`{name}_candidates` must be at least `{name}_queries`, {count}, got {among or usual}."
                )
        if self.window is not None:
            check_count("window", self.window, minimum=2)
        check_count("window_bytes", self.window_bytes)
        if self.radius is not None:
            check_positive("radius", self.radius)
        for name in ("feature_length", "confidence"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.noise is not None and not 0 <= check_number("noise", self.noise) < math.inf:
            raise ValueError(f"`noise` must be a finite number of at least 0, got {self.noise!r}.")
        check_flag("orthogonal_features", self.orthogonal_features)
        check_flag("accept", self.accept)
        check_flag("fitted", self.fitted)
        for name in ("beta1", "beta2"):
            if getattr(self, name) is not None:
                check_fraction(name, getattr(self, name))

    @classmethod
    def published(cls, **options: Any) -> Self:
        """Return the form of the paper's code; `options` are set on top of it."""
        own: dict[str, Any] = {
            "num_steps": 10,
            "learning_rate": 0.01,
            "update": "adam",
            "beta1": 0.9,
            "beta2": 0.999,
            "restart": True,
            "server_rate": 1.0,
            "bounded": False,
            "gamma": "published",
            "message": "features",
            "decay": 1.0,
            "queries": "box",
            "radius": 0.01,
            "start_queries": 10,
            "step_queries": 5,
            "round_queries": 50,
            "step_candidates": 100,
            "round_candidates": 200,
            "window": 150,
            "kernel": "matern",
            "noise": 1e-6,
            "fitted": False,
            "num_features": 10_000,
            "feature_length": 1.0,
            "feature_points": 500,
            "orthogonal_features": False,
            "accept": True,
            "virtual_steps": 0,
        }
        if options.get("update", "adam") != "adam":
            del own["beta1"], own["beta2"]
        if options.get("queries", "box") != "box":
            del own["step_candidates"], own["round_candidates"]
        return cls(**{**own, **options})

    def server_init(self, x0: Array, problem: Problem) -> FZooSServer:
        return FZooSServer(x0, problem.bounds)

    def client_init(self, x0: Array, problem: Problem, client: int) -> FZooSClient:
        """Return the first state of a client.

        Raises:
            ValueError: Not even two points fit into `window_bytes`.
        """
        dim = len(x0)
        points = self._nearest(dim)
        if self._sends_features(dim):
            points = max(points, self.feature_points)
        window = Window.empty(dim, math.ceil(_SLACK * points), like=x0, nbytes=self.window_bytes)
        work = working(x0)
        return FZooSClient(
            window,
            Memory(),
            None if self.restart else self.rule.init(work.asarray(x0)),
            problem.key,
            # Between them, the clients begin all over a basis.
            round(client * dim / problem.num_clients),
            self.radius or problem.spacing,
        )

    @property
    def rule(self) -> Update:
        if self.update != "adam":
            return super().rule
        return Adam(
            _BETA1 if self.beta1 is None else self.beta1, _BETA2 if self.beta2 is None else self.beta2
        )

    @property
    def trips(self) -> tuple[Trip, ...]:
        first = Trip(self._sent, self._walk, self._moved)
        last = Trip(self._told, self._say, self._heard)
        return (first, Trip(self._asked, self._compare, self._judged), last) if self.accept else (first, last)

    def most_queries(self, dim: int, first: bool) -> int:
        steps = self.num_steps
        most = 1 + steps + self._count(self.step_queries, dim) * (steps - 1)
        most += 1 + self._count(self.round_queries, dim) + (2 if self.accept else 0)
        return most + (self._count(self._started_with(dim), dim) if first else 0)

    def diagnostics(self, server: FZooSServer) -> dict[str, Any]:
        return {"share of the rate": server.rate}

    def undone(self, server: FZooSServer, before: FZooSServer) -> FZooSServer:
        """Return the server as it was, but that clients may have said what they know of a number since."""
        return dataclasses.replace(before, taken=server.taken)

    # The first trip

    def _sent(self, server: FZooSServer, clients: Sequence[int]) -> Go:
        return Go(server.x, server.rate, server.number, server.surrogate, server.deviation)

    def _walk(self, client: FZooSClient, message: Go, local: Local) -> Work[FZooSClient]:
        """Do the steps of a round."""
        like, rule, bounds = Like.of(message.x), self.rule, self._box(local)
        rate = as_schedule("learning_rate", self.learning_rate).value(local.round) * message.rate
        correction = self._correction(client, message)
        at = working(message.x).asarray(message.x)
        memory = rule.init(at) if self.restart else client.update
        unit = client.unit if self.update == "adam" else 1.0
        known, moved = _Known.by(client), False
        for step in range(self.num_steps):
            known, gradient = yield from self.estimate(at, known, local, step)
            if gradient is None:
                continue
            moved = True
            unit = _unit(known.fit.span) if unit is None else unit
            for number in range(1 + self.virtual_steps):
                if number:
                    if not self._is_sure(known.fit, at):
                        break
                    gradient = known.fit.gradient(at)
                corrected = gradient if correction is None else gradient + correction(at, step)
                memory, way = rule.update(memory, corrected if unit is None else corrected / unit)
                at = at - rate * way
                at = at if bounds is None else bounds.map(at, "clip")
        end = like.asarray(at)
        values = yield end[None]
        client = dataclasses.replace(
            client,
            window=known.window.add(end[None], values),
            memory=known.memory,
            update=None if self.restart else memory,
            direction=known.direction,
            end=end,
            started=True,
            unit=None if self.restart else unit,
        )
        return client, Point(end if moved else None)

    def estimate(self, x: Array, memory: _Known, local: Local, step: int) -> Estimating:
        """Ask for values at x and around it, and return the gradient of the surrogate, None without any."""
        count = self.step_queries
        if step == 0:
            count = 0 if memory.started else self._started_with(len(x))
        among = self.step_candidates or _STEP_CANDIDATES
        known = yield from self._look(memory, x, count, among, memory.radius, local, step)
        gradient = known.fit.gradient(x) if len(known.fit) else None
        return known, gradient if gradient is not None and _finite(gradient) else None

    def _is_sure(self, fit: Fit, x: Array) -> bool:
        return float(fit.uncertainty(x[None])[0]) <= (self.confidence or _CONFIDENCE) * fit.prior

    def _moved(self, server: FZooSServer, answers: Sequence[Answer]) -> FZooSServer:
        x = self.merged(server.x, answers, server.bounds)
        return dataclasses.replace(server, proposed=x) if self.accept else self._settled(server, x)

    def _settled(self, server: FZooSServer, x: Array) -> FZooSServer:
        move, rate = working(x).asarray(x) - working(x).asarray(server.x), server.rate
        if server.move is not None and float((move * server.move).sum()) < 0:
            rate *= self.decay
        number = server.taken + 1
        return FZooSServer(x, server.bounds, number, rate, move, taken=number)

    def _correction(self, client: FZooSClient, message: Go) -> Callable[[Array, int], Array] | None:
        """Return what is added to the gradient, as a function of x and the number of the step."""
        if message.surrogate is None:
            return None
        said = client.said
        if said is None or client.number != message.number:
            said = self._surrogate(client, message.x)[1]
        if said is None:  # it has seen nothing
            said = array_module(message.surrogate).zeros_like(message.surrogate)
        difference, features = message.surrogate - said, None
        if self._sends_features(len(message.x)):
            features = self._features(client, len(message.x))
        deviation = message.deviation or 0.0

        def correct(x: Array, step: int) -> Array:
            found = difference if features is None else features.gradient(difference, x)
            if self.gamma == "published":
                return found / (step + 1)
            if self.gamma != "adaptive":
                return found * self.gamma
            return found * _share(_norm(found), deviation)

        return correct

    # Whether to move at all

    def _asked(self, server: FZooSServer, clients: Sequence[int]) -> Two:
        return Two(server.x, server.proposed)

    def _compare(self, client: FZooSClient, message: Two, local: Local) -> Work[FZooSClient]:
        values = yield Hidden(array_module(message.before).stack([message.before, message.after]))
        return client, Compared(float(values[0]), float(values[1]))

    def _judged(self, server: FZooSServer, answers: Sequence[Answer]) -> FZooSServer:
        answers = [answer for answer in answers if _known(answer.message)]
        better = bool(answers) and weighted_mean(answers, "after") < weighted_mean(answers, "before")
        return self._settled(server, server.proposed if better else server.x)

    # The second trip

    def _told(self, server: FZooSServer, clients: Sequence[int]) -> Settled:
        return Settled(server.x, server.number)

    def _say(self, client: FZooSClient, message: Settled, local: Local) -> Work[FZooSClient]:
        """Look around x, and say what is known of it."""
        x, radius = message.x, client.radius
        if self.queries == "box" and client.end is not None:
            radius = float(abs(x - client.end).mean()) / 2
        known = _Known.by(client)
        if self.queries == "box":
            fit, memory = self._process(len(x)).fit(known.window, x, known.memory)
            known = known._replace(memory=memory, fit=fit)
        among = self.round_candidates or _ROUND_CANDIDATES
        known = yield from self._look(known, x, self.round_queries, among, radius, local, -1)
        client = dataclasses.replace(
            client, window=known.window, memory=known.memory, direction=known.direction
        )
        deviation, said = self._surrogate(client, x, known.fit)
        return dataclasses.replace(client, said=said, number=message.number, end=None), Said(said, deviation)

    def _heard(self, server: FZooSServer, answers: Sequence[Answer]) -> FZooSServer:
        """Take the mean of what clients have said, but for those who know nothing."""
        answers = [answer for answer in answers if answer.message.surrogate is not None]
        if not answers:
            return server
        deviation = None
        if self.gamma == "adaptive":
            total = sum(answer.weight for answer in answers)
            deviation = math.hypot(*(answer.weight / total * answer.message.deviation for answer in answers))
        return dataclasses.replace(server, surrogate=weighted_mean(answers, "surrogate"), deviation=deviation)

    def _surrogate(
        self, client: FZooSClient, x: Array, fit: Fit | None = None
    ) -> tuple[float | None, Array | None]:
        """Return what a client can say of x, deviation and surrogate; None where it has seen nothing."""
        window, varies = client.window, self.gamma == "adaptive"
        if not len(window):
            return (0.0 if varies else None), None
        if not self._sends_features(len(x)):
            if fit is None:
                fit = self._process(len(x)).fit(window, x, client.memory)[0]
            deviation = math.sqrt(float(fit.uncertainty(x[None])[0])) * fit.scale
            found = fit.gradient(working(x).asarray(x))
        else:
            rows = window.nearest(x, self.feature_points)
            features = self._features(client, len(x))
            noise = max(_NOISE, client.memory.noise) if self.noise is None else self.noise
            solved = features.solve(window.columns(rows), window.values[rows], noise)
            deviation = math.sqrt(float(solved.uncertainty(x))) * solved.scale if varies else 0.0
            found = solved.weights
        if not (math.isfinite(deviation) and _finite(found)):
            return (0.0 if varies else None), None
        return (deviation if varies else None), found

    # What both have in common

    def _look(
        self,
        known: _Known,
        x: Array,
        count: int,
        candidates: int,
        radius: float,
        local: Local,
        step: int,
    ) -> Generator[Any, Values, _Known]:
        """Ask for the value at x and around it, and fit the process there."""
        like, bounds = Like.of(known.window.blocks[0]), self._box(local)
        points, key = like.asarray(x)[None], local.key.fold("around", step + 1)
        count = self._count(count, len(x))
        if count:
            if self.queries == "orthogonal":
                distance = radius * math.sqrt(len(x) / 3)
                around = orthogonal(x, distance, count, known.direction, known.shared.fold("directions"), key)
            else:
                around = uncertain(x, radius, count, candidates, known.fit, key, bounds)
            around = around if bounds is None else bounds.map(around, "clip")
            points = array_module(points).concatenate([points, like.asarray(around)])
        values = yield points
        window = known.window.add(points, values, x)
        fit, memory = self._process(len(x)).fit(window, x, known.memory, known.fit)
        if not (known.started or fit.scale) and len(fit) > 1:
            warnings.warn(
                f"a client's values did not change among {len(fit)} points around x: f is constant there, or "
                f"`radius`, {radius:.1e}, is too small.",
                ZooWarning,
                stacklevel=2,
            )
        return known._replace(window=window, memory=memory, direction=known.direction + count, fit=fit)

    def _process(self, dim: int) -> GaussianProcess:
        return GaussianProcess(
            self.kernel,
            self.noise,
            self._nearest(dim),
            mean="fitted" if self.fitted else "zero",
            variance="fitted" if self.fitted else "unit",
        )

    def _nearest(self, dim: int) -> int:
        if self.window is not None:
            return self.window
        return min(max(_FEWEST, math.ceil(1.3 * dim)), _MOST)

    def _check_needed(self, name: str, needed: bool, when: str) -> None:
        """Refuse an option that would be without effect."""
        if getattr(self, name) is not None and not needed:
            raise ValueError(f"`{name}` is for when {when}, got {getattr(self, name)!r}: leave it out.")

    def _count(self, count: int, dim: int) -> int:
        """Return how many of some points are asked for: there are no more at one distance along a basis."""
        return min(count, 2 * dim) if self.queries == "orthogonal" else count

    def _started_with(self, dim: int) -> int:
        """Return how many points a client asks for first."""
        if self.start_queries is not None:
            return self.start_queries
        room = min(self._nearest(dim), self.window_bytes // (8 * dim))
        return max(10, min(dim // 2, room // 2))

    def _sends_features(self, dim: int) -> bool:
        return self.num_features <= dim if self.message == "auto" else self.message == "features"

    def _features(self, client: FZooSClient, dim: int) -> FourierFeatures:
        # A matrix that would be drawn anew at each use is not to be had in many dimensions.
        structured = self.orthogonal_features and 8 * self.num_features * dim > _DRAWN
        return FourierFeatures(
            client.shared.fold("features"),
            dim,
            self.num_features,
            self.feature_length or 0.3 * math.sqrt(dim),
            orthogonal=self.orthogonal_features and not structured,
            structured=structured,
        )


def _norm(x: Array) -> float:
    """Return the length of a vector, whatever its unit."""
    peak = float(abs(x).max())
    return peak * float(((x / peak) ** 2).sum()) ** 0.5 if peak > 0 else 0.0


def _share(norm: float, deviation: float) -> float:
    """Return (c^2 + V) / (c^2 + 2 V) of c and the root of V, 0 where c is."""
    if norm == 0:
        return 0.0
    if norm >= deviation:
        variance = (deviation / norm) ** 2
        return (1 + variance) / (1 + 2 * variance)
    square = (norm / deviation) ** 2
    return (square + 1) / (square + 2)


def _unit(span: float) -> float | None:
    """Return the power of two below a range of values, None where that is 0."""
    # A number that is not normal has no inverse.
    return math.ldexp(1.0, max(math.frexp(span)[1] - 1, -1000)) if span else None


def _finite(array: Array) -> bool:
    return bool(array_module(array).isfinite(array).all())


def _known(message: Compared) -> bool:
    return math.isfinite(message.before) and math.isfinite(message.after)
