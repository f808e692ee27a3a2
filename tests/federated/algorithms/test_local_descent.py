"""What methods with local steps share: estimates, steps, failed values, kinds of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.algorithms.fedavg import FedAvg
from federated.algorithms.fedprox import FedProx
from federated.algorithms.fedzo import FedZO
from federated.algorithms.scaffold import ScaffoldI, ScaffoldII
from federated.network import Network
from federated.task import Task
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.rng import Key
from zoo.updates.adam import Adam
from zoo.updates.momentum import Momentum
from zoo.updates.schedules import StepDecay

METHODS = [FedZO, FedProx, ScaffoldI, ScaffoldII]


class Slopes(Task):
    """Linear functions, whose differences are exact but for rounding; those of `broken` clients fail."""

    def __init__(self, slopes: Any, bounds: Bounds | None = None, broken: tuple[int, ...] = ()) -> None:
        self.slopes, self.bounds, self.broken = np.asarray(slopes, np.float64), bounds, broken
        self.num_clients, self.dim = self.slopes.shape

    def start(self, key: Key) -> Array:
        return np.full(self.dim, 0.5)

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        slope = Like.of(x).asarray(self.slopes[client])
        return (x * slope).sum(-1) * (np.nan if client in self.broken else 1)

    def gradient(self, client: int, x: Array) -> Array:
        return Like.of(x).asarray(self.slopes[client])

    def weight(self, client: int) -> float:
        return 1.0 + client


SLOPES = Key(1).normal(0, 3, 6)


def sgd(method: Any, **options: Any) -> Any:
    return method(update="sgd", learning_rate=0.01, num_directions=6, **options)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_all_directions_give_the_gradient(method: Any) -> None:
    """One step on linear functions with as many directions as coordinates is one along exact gradients."""
    task = Slopes(SLOPES)
    x = federated(sgd(method, num_steps=1), task).x
    exact = federated(FedAvg(num_steps=1, update="sgd", learning_rate=0.01), task).x
    np.testing.assert_allclose(x, exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(exact, 0.5 - 0.01 * np.average(SLOPES, axis=0, weights=[1, 2, 3]), atol=1e-15)


def test_fewer_directions_give_a_projection() -> None:
    """Scaled as published, a step along q perpendicular directions is dim / q times a projection, / dim."""
    step = (
        0.5
        - federated(
            FedZO(num_steps=1, update="sgd", learning_rate=1.0, num_directions=2, scale="published"),
            Slopes(SLOPES[:1]),
        ).x
    )
    assert (2 * step) @ (2 * step) == pytest.approx(2 * step @ SLOPES[0], rel=1e-9)
    assert (2 * step) @ (2 * step) < 0.9 * SLOPES[0] @ SLOPES[0]


@pytest.mark.parametrize("directions", ["orthonormal", "sphere", "gaussian"])
def test_estimates_are_unbiased(directions: str) -> None:
    """Row 20: the mean of many estimates is the gradient, with dim as factor."""
    dim, reps = 50, 800
    slope = Key(3).normal(0, 1, dim)
    task = Slopes(np.repeat(slope, reps, 0))
    task.weight = lambda client: 1.0  # type: ignore[method-assign]
    method = FedZO(num_steps=1, update="sgd", learning_rate=1.0, num_directions=10, directions=directions)
    mean = 0.5 - federated(method, task, measure_every=0).x
    # E|g|^2 <= (q + d + 1) / q |grad f|^2, so the mean is off by .087 |grad f| or less, mostly.
    assert np.linalg.norm(mean - slope[0]) < 0.1 * np.linalg.norm(slope)
    assert mean @ slope[0] == pytest.approx(slope[0] @ slope[0], rel=0.05)
    published = 0.5 - federated(FedZO(**{**vars(method), "scale": "published"}), task, measure_every=0).x
    np.testing.assert_allclose(published * dim, mean, rtol=1e-9, atol=1e-12)


def test_prox_of_weight_zero_is_fedzo() -> None:
    task = Quadratic(20, 3)
    one, two = federated(FedProx(proximal=0.0), task, rounds=3), federated(FedZO(), task, rounds=3)
    assert one.x.tobytes() == two.x.tobytes()
    assert federated(FedProx(proximal=0.5), task, rounds=3).x.tobytes() != two.x.tobytes()


def test_prox_draws_back() -> None:
    """On a linear function x_(t+1) - x_r = (1 - rate proximal) (x_t - x_r) - rate slope."""
    method = sgd(FedProx, num_steps=3, proximal=10.0)
    assert federated(method, Slopes(SLOPES[:1])).x == pytest.approx(
        0.5 - 0.01 * SLOPES[0] * (1 + 0.9 + 0.81), abs=1e-11
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_failed_client_has_no_vote(method: Any) -> None:
    task = Slopes(SLOPES, broken=(0, 1, 2))
    x = federated(sgd(method, num_steps=2), task, rounds=2).x
    assert (x == 0.5).all()
    options = {"proximal": 0.0} if method is FedProx else {}
    x = federated(sgd(method, num_steps=2, **options), Slopes(SLOPES, broken=(0,)), rounds=1).x
    assert x == pytest.approx(0.5 - 0.02 * (2 * SLOPES[1] + 3 * SLOPES[2]) / 5, abs=1e-11)


def test_failed_directions_are_left_out() -> None:
    class Half(Slopes):
        def values(self, client: int, x: Array, *, key: Key) -> Any:
            values = super().values(client, x, key=key)
            values[1:4] = np.nan
            return values

    method = sgd(FedZO, num_steps=1, scale="published")
    step = (0.5 - federated(method, Half(SLOPES[:1])).x) / 0.01
    assert 3 * step @ step == pytest.approx(step @ SLOPES[0], rel=1e-9)  # a third of a projection


@pytest.mark.parametrize("method", [*METHODS, FedAvg], ids=lambda method: method.__name__)
@pytest.mark.parametrize(
    "like",
    [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float16", "float32", "float64")]
    + [Like("torch", "bfloat16")],
    ids=str,
)
def test_kinds(method: Any, like: Like) -> None:
    task = Quadratic(20, 3)
    x0 = like.asarray(task.start(Key(0)))
    seen = []
    inner = task.joint_values

    def joint(clients: Any, x: Any, keys: Any) -> Any:
        seen.append(Like.of(x))
        return inner(clients, x, keys)

    task.joint_values = joint  # type: ignore[method-assign]
    # Of few directions, none may change a value that bfloat16 holds.
    made = method() if method is FedAvg else method(num_directions=20)
    state = federated(made, task, x0=x0, rounds=3)
    assert Like.of(state.x) == like
    assert set(seen) <= {like}
    assert state.fun < 0.9 * task.value(to_numpy(x0).astype(np.float64))
    trips = 2 if method in (ScaffoldI, ScaffoldII) else 1
    assert state.up >= 3 * 3 * 20 * array_module(x0).finfo(x0.dtype).bits // 8 * trips


@pytest.mark.parametrize("method", [*METHODS, FedAvg], ids=lambda method: method.__name__)
def test_one_coordinate(method: Any) -> None:
    task = Quadratic(1, 2)
    state = federated(method(), task, rounds=5)
    assert state.fun < 0.6 * task.value(task.start(Key(0)))
    assert state.nfev == 5 * 2 * method().most_queries(1, True)


def test_points_stay_in_the_box() -> None:
    class Fenced(Slopes):
        def values(self, client: int, x: Array, *, key: Key) -> Any:
            assert self.bounds is not None
            if not self.bounds.contains(x):
                raise ValueError("outside")
            return super().values(client, x, key=key)

    task = Fenced(np.repeat(SLOPES[:1], 3, 0), Bounds(np.full(6, 0.4), np.full(6, 0.55)))
    for method in METHODS:
        x = federated(method(server_rate=2.0, num_directions=6), task, rounds=4).x
        assert set(x) == {0.4, 0.55}
    with pytest.raises(Exception, match="outside"):
        federated(FedZO(bounded=False), task, rounds=2)


def test_estimates_hold_in_a_corner() -> None:
    """Displacements turned round at walls would all point inside, where the sum of the slopes is above 0."""
    slope = np.where(np.arange(50) < 10, -1.0, 0.5)
    task = Slopes(np.repeat(slope[None], 100, 0), Bounds(np.full(50, 0.5), np.full(50, 1.0)))
    method = FedZO(num_steps=1, update="sgd", learning_rate=1e-4, num_directions=10)
    x = federated(method, task, measure_every=0).x
    assert ((x - 0.5)[:10] > 0.8e-4).all()


def test_memory_of_the_update() -> None:
    """Momentum that is kept goes on from round to round; one that restarts does not."""
    kept = sgd(FedZO, num_steps=1)
    rule = Momentum(0.5)
    x = federated(FedZO(**{**vars(kept), "update": rule, "restart": False}), Slopes(SLOPES[:1]), rounds=2).x
    assert x == pytest.approx(0.5 - 0.01 * SLOPES[0] * 2.5, abs=1e-11)
    x = federated(FedZO(**{**vars(kept), "update": rule, "restart": True}), Slopes(SLOPES[:1]), rounds=2).x
    assert x == pytest.approx(0.5 - 0.01 * SLOPES[0] * 2, abs=1e-11)


def test_learning_rate_by_round() -> None:
    method = FedZO(num_steps=2, update="sgd", learning_rate=StepDecay(0.01, 1, 0.1), num_directions=6)
    x = federated(method, Slopes(SLOPES[:1]), rounds=2).x
    assert x == pytest.approx(0.5 - 2 * 0.011 * SLOPES[0], abs=1e-11)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("options", [{"stencil": "central"}, {"smoothing": "auto"}], ids=str)
def test_most_queries_is_exact(method: Any, options: dict[str, Any]) -> None:
    made = method(num_steps=3, num_directions=4, **options)
    state = federated(made, Quadratic(10, 2), rounds=2)
    assert state.queries.tolist() == [2 * made.most_queries(10, True)] * 2


@pytest.mark.parametrize("method", [*METHODS, FedAvg], ids=lambda method: method.__name__)
def test_published_constants(method: Any) -> None:
    made = method.published(num_steps=3)
    assert (made.num_steps, made.learning_rate, made.bounded, made.restart) == (3, 0.01, False, True)
    assert getattr(made, "scale", "published") == "published"
    assert getattr(made, "proximal", 1.0) == 1.0
    chosen = (0.03, True) if method is FedAvg else (0.05, False)
    assert (method().learning_rate, method().restart, method().bounded) == (*chosen, True)
    if method is not FedAvg:
        assert (made.num_directions, method().num_directions) == (20, 5)


def test_absent_clients_weigh_nothing() -> None:
    network = Network(participation=1)
    state = federated(sgd(FedZO, num_steps=1), Slopes(SLOPES), network=network)
    client = int(state.answered.argmax())
    assert state.x == pytest.approx(0.5 - 0.01 * SLOPES[client], abs=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "`num_steps` must be at least 1, got 0"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` must be a finite number above 0"),
        ({"update": "adm"}, ValueError, "Did you mean 'adam'"),
        ({"update": 3}, TypeError, "`update` must be 'adam', 'sgd' or an update"),
        ({"update": Adam}, TypeError, "`update` must be 'adam', 'sgd' or an update"),
        ({"server_rate": -1}, ValueError, "`server_rate` must be"),
        ({"restart": 1}, TypeError, "`restart` must be True or False"),
        ({"num_directions": 1.5}, TypeError, "`num_directions` must be an integer"),
        ({"smoothing": 0.0}, ValueError, "`smoothing` must be"),
        ({"smoothing": "aut"}, ValueError, "Did you mean 'auto'"),
        ({"directions": "gausian"}, ValueError, "Did you mean 'gaussian'"),
        ({"stencil": "backward"}, ValueError, "`stencil` must be one of"),
        ({"scale": 2}, ValueError, "`scale` must be one of"),
        ({"recorded": True, "stencil": "central"}, ValueError, "`recorded` needs the stencil 'forward'"),
        ({"proximal": -0.1}, ValueError, "`proximal` must be finite and at least 0"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FedProx(**options)
