"""Functions with a dial for heterogeneity: their mean, their gradients, and what noise follows from."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from federated.tasks.synthetic import Ackley, Levy, Quadratic, Synthetic
from zoo.core.rng import Key
from zoo.problems.synthetic import ackley, levy

CLASSES = {"quadratic": Quadratic, "ackley": Ackley, "levy": Levy}


def points(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Return points inside and outside the box."""
    return 1.4 * Key(seed).uniform(0, count, dim) - 0.2


@pytest.fixture(params=CLASSES)
def task(request: pytest.FixtureRequest) -> Synthetic:
    return CLASSES[request.param](dim=7, num_clients=4, heterogeneity=2.0, sigma=0.3, key=Key(5))


@pytest.mark.parametrize("heterogeneity", [0.0, 0.5, 5.0, 50.0])
@pytest.mark.parametrize("num_clients", [1, 5, 40])
def test_the_mean_of_quadratics_is_independent_of_heterogeneity(
    heterogeneity: float, num_clients: int
) -> None:
    task = Quadratic(dim=30, num_clients=num_clients, heterogeneity=heterogeneity, key=Key(3))
    a, b = task._deviations(np.zeros(1))
    assert np.abs(a.mean(0)).max() < 1e-12
    assert np.abs(b.mean(0)).max() < 1e-12
    for x in points(5, 30):
        u = 20 * np.clip(x, 0, 1) - 10
        assert task.value(x) == pytest.approx(0.1 / 30 * ((u**2).sum() + u.sum() + 1), rel=1e-12, abs=1e-12)
    assert task.optimum == -0.025 + 0.1 / 30
    assert task.value(np.full(30, 0.475)) == pytest.approx(task.optimum, rel=0, abs=1e-12)


def test_clients_differ_as_the_dial_says() -> None:
    shares = Quadratic(dim=200, heterogeneity=1.0)._deviations(np.zeros(1))[0] + 0.2
    assert shares.shape == (5, 200)
    assert shares.min() >= -1e-15
    # Of the symmetric Dirichlet distribution with 1/5, a share has the variance 1/5 4/5 / 2.
    assert shares.var(1).mean() == pytest.approx(0.08, rel=0.1)
    twice = Quadratic(dim=200, heterogeneity=2.0)._deviations(np.zeros(1))[0]
    np.testing.assert_allclose(twice, 2 * (shares - 0.2), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("kind", "function"), [(Ackley, ackley), (Levy, levy)])
def test_scaled_functions_by_hand(kind: type[Synthetic], function: object) -> None:
    task = kind(dim=6, num_clients=3, heterogeneity=1.5, key=Key(1))
    a, b = task._deviations(np.zeros(1))
    for client in range(3):
        for x in points(4, 6):
            u = 20 * np.clip(x, 0, 1) - 10
            expected = function((0.1 + a[client]) * (u - b[client]))  # type: ignore[operator]
            assert task.measure(client, x)["value"] == pytest.approx(expected, rel=1e-12)


def test_gradients_are_those_of_autograd(task: Synthetic) -> None:
    for client in range(task.num_clients):
        for x in points(6, 7, seed=2):
            along = torch.from_numpy(x).requires_grad_()
            task._exact(np.array([client]), along[None])[0].backward()
            np.testing.assert_allclose(task.gradient(client, x), along.grad, rtol=1e-9, atol=1e-12)
            moved = task.gradient(client, torch.from_numpy(x))
            np.testing.assert_allclose(moved, along.grad, rtol=1e-9, atol=1e-12)


def test_no_gradient_is_infinite_where_a_root_is_zero() -> None:
    assert (Ackley(dim=3, heterogeneity=0.0).gradient(0, np.full(3, 0.5)) == 0).all()


def test_answers_together_are_those_of_each_client(task: Synthetic) -> None:
    x = points(12, 7)
    clients = np.repeat([0, 2, 3], [5, 1, 6])
    keys = [Key(1).fold(client) for client in range(4)]
    together = task.joint_values(clients, x, [keys[client] for client in clients])
    alone = [task.values(client, x[clients == client], key=keys[client]) for client in (0, 2, 3)]
    assert (together == np.concatenate(alone)).all()


def test_values_are_the_same_whatever_lies_beside_a_point(task: Synthetic) -> None:
    x = np.asfortranarray(points(40, 7))
    whole = task._exact(np.full(40, 1), x)
    assert all(task.measure(1, row)["value"] == value for row, value in zip(x, whole, strict=True))


def test_noise_follows_from_the_key_and_has_its_width() -> None:
    task = Quadratic(dim=3, sigma=0.5)
    x = np.full((2000, 3), 0.3)
    noise = task.values(1, x, key=Key(7)) - task.measure(1, x[0])["value"]
    assert (task.values(1, x, key=Key(7)) == task.values(1, x, key=Key(7))).all()
    assert (task.values(1, x, key=Key(8)) != task.values(1, x, key=Key(7))).all()
    assert noise.std() == pytest.approx(0.5, rel=0.06)
    assert abs(noise.mean()) < 0.04
    quiet = Quadratic(dim=3)
    assert (quiet.values(1, x, key=Key(7)) == quiet.measure(1, x[0])["value"]).all()


def test_values_are_of_the_kind_of_the_points(task: Synthetic) -> None:
    x = points(3, 7)
    found = task.values(1, torch.from_numpy(x).float(), key=Key(0))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, task.values(1, x, key=Key(0)), rtol=1e-4, atol=1e-5)
    assert task.values(1, x.astype(np.float32), key=Key(0)).dtype == np.float32


def test_a_task_follows_from_its_key_in_any_process(task: Synthetic) -> None:
    x = points(3, 7)
    expected = task.values(1, x, key=Key(0))
    sent = pickle.loads(pickle.dumps(task))
    assert not sent._known
    assert (sent.values(1, x, key=Key(0)) == expected).all()
    assert sent.identity() == task.identity()
    other = type(task)(dim=7, num_clients=4, heterogeneity=2.0, sigma=0.3, key=Key(6))
    assert (other.values(1, x, key=Key(0)) != expected).all()
    assert other.identity() != task.identity()


def test_a_start_is_inside_and_follows_from_its_key(task: Synthetic) -> None:
    start = task.start(Key(1))
    assert start.shape == (7,)
    assert task.bounds is not None
    assert task.bounds.contains(start)
    assert (task.start(Key(1)) == start).all()
    assert (task.start(Key(2)) != start).all()


def test_the_optimum_is_known_where_it_can_be() -> None:
    for kind, best in ((Ackley, 0.5), (Levy, 1.0)):
        assert kind(dim=4).optimum is None
        for task in (kind(dim=4, heterogeneity=0.0), kind(dim=4, num_clients=1)):
            assert task.optimum == 0
            assert abs(task.value(np.full(4, best))) < 1e-12


def test_one_variable_and_one_client() -> None:
    task = Quadratic(dim=1, num_clients=1)
    assert task.value(np.array([0.5])) == pytest.approx(0.1)
    assert task.optimum == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "`dim` must be at least 1"),
        ({"num_clients": 0}, "`num_clients` must be at least 1"),
        ({"num_clients": 2.0}, "write 2"),
        ({"heterogeneity": -1.0}, "`heterogeneity` must be finite and at least 0, got -1.0"),
        ({"sigma": float("nan")}, "`sigma` must be finite"),
        ({"key": 3}, "`key` must be a Key"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Quadratic(**options)  # type: ignore[arg-type]
