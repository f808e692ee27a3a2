"""xNES: steps against the dense formula, whichever way the exponential is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from tests.zoo.methods.strategies import NAN, after, bowl, rows_of, told
from zoo.core.bounds import Bounds
from zoo.core.device import Like
from zoo.core.rng import Key
from zoo.core.types import Known
from zoo.methods.xnes import XNES, turned
from zoo.updates.shaping import nes_utilities


def start(method: XNES, dim: int = 5, **options: Any) -> Any:
    return method.init(np.linspace(-1, 1, dim), key=Key(0), **options)


@pytest.mark.parametrize(("n", "dim"), [(4, 1), (6, 2), (5, 9), (5, 10), (5, 11), (17, 40), (40, 17), (7, 7)])
def test_the_exponential_is_exact(n: int, dim: int) -> None:
    generator = np.random.default_rng(n)
    z, u = generator.normal(size=(n, dim)), nes_utilities(generator.normal(size=n))
    shape = generator.normal(size=(dim, dim))
    m = (z.T * u) @ z - u.sum() * np.eye(dim)
    t = np.trace(m) / dim
    expected = shape @ expm(0.3 * (m - t * np.eye(dim)))
    np.testing.assert_allclose(turned(shape, z, u, t, 0.3), expected, rtol=1e-9, atol=1e-9)


def test_dependent_rows_are_no_trouble() -> None:
    """Their Gram matrix has no Cholesky factor."""
    z = np.random.default_rng(0).normal(size=(4, 20))
    z = np.concatenate([z, -z])
    u = nes_utilities(np.arange(8.0))
    expected = expm(0.2 * (z.T * u) @ z)
    np.testing.assert_allclose(turned(np.eye(20), z, u, 0.0, 0.2), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [5, 30])
def test_a_step_is_the_formula(dim: int) -> None:
    method = XNES(12, learning_rate=0.7, sigma_rate=0.3, shape_rate=0.2)
    scale = np.linspace(0.5, 2, dim)
    state = start(method, dim, scale=scale)
    identity = np.eye(dim)
    for _ in range(3):
        x = rows_of(method, state)
        z = np.linalg.solve(state.shape, ((x - state.mean) / (state.sigma * scale)).T).T
        values = bowl(x)
        values[3] = NAN
        u = nes_utilities(values)
        m = sum(u[i] * (np.outer(z[i], z[i]) - identity) for i in range(12))
        t = np.trace(m) / dim
        following = told(method, state, values)
        np.testing.assert_allclose(
            following.mean, state.mean + 0.7 * scale * state.sigma * (state.shape @ (u @ z)), atol=1e-12
        )
        np.testing.assert_allclose(following.sigma, state.sigma * math.exp(0.15 * t), rtol=1e-12)
        np.testing.assert_allclose(following.shape, state.shape @ expm(0.1 * (m - t * identity)), atol=1e-10)
        np.testing.assert_allclose(np.linalg.det(following.shape), 1.0, rtol=1e-9)
        state = following


def test_defaults_are_those_of_the_paper() -> None:
    method = XNES()
    state = start(method, 20)
    x = rows_of(method, state)
    assert len(x) == 4 + int(3 * math.log(20))
    z, u = (x - state.mean) / state.sigma, nes_utilities(bowl(x))
    np.testing.assert_allclose(state.sigma, 12 / (3 * math.sqrt(20)))
    rate = (9 + 3 * math.log(20)) / (5 * 20 * math.sqrt(20))
    m = (z.T * u) @ z
    t = np.trace(m) / 20
    moved = told(method, state, bowl(x))
    np.testing.assert_allclose(moved.sigma, state.sigma * math.exp(rate / 2 * t), rtol=1e-10)
    np.testing.assert_allclose(moved.shape, expm(rate / 2 * (m - t * np.eye(20))), atol=1e-10)


def test_learns_dependencies_between_variables() -> None:
    """In the plane of a long narrow valley, turned by 45 degrees, the longest axis ends up along it."""

    def valley(x: Any) -> Any:
        return 1e4 * (x[:, 0] - x[:, 1]) ** 2 + (x[:, 0] + x[:, 1]) ** 2

    method = XNES()
    state = after(method, method.init(np.array([3.0, 1.0]), key=Key(0)), 150, valley)
    values, vectors = np.linalg.eigh(state.shape @ state.shape.T)
    assert abs(vectors[:, 1] @ np.array([1, 1]) / math.sqrt(2)) > 0.999
    assert values[1] / values[0] > 1e3
    assert valley(method.recommend(state)[None])[0] < 1e-9


@pytest.mark.parametrize(
    "like", [Like("torch", "float32"), Like("numpy", "float16"), Like("torch", "float64")], ids=str
)
def test_rows_are_like_the_start_and_the_search_is_in_double_precision(like: Like) -> None:
    method = XNES()
    state = method.init(like.asarray(np.ones(5)), key=Key(0))
    plain = method.init(np.ones(5), key=Key(0))
    assert Like.of(method.ask(state).rows(0, 3)) == like == Like.of(method.recommend(state))
    np.testing.assert_allclose(rows_of(method, state), rows_of(method, plain), rtol=0, atol=8 * like.epsilon)
    values = np.arange(8.0)
    assert told(method, state, values).shape.tobytes() == told(method, plain, values).shape.tobytes()


def test_a_step_that_fails_altogether_narrows_the_search() -> None:
    method = XNES()
    state = after(method, start(method), 2)
    failed = told(method, state, [NAN] * 8)
    assert failed.sigma == 0.9 * state.sigma
    assert failed.mean.tobytes() == state.mean.tobytes()
    assert failed.shape.tobytes() == state.shape.tobytes()


def test_shapes_of_a_run_that_nobody_stops_stay_finite() -> None:
    method = XNES(shape_rate=50.0, sigma_rate=50.0)
    state = after(method, start(method, 3), 100, fun=lambda x: x[:, 0])
    assert np.isfinite(state.shape).all()
    assert 0 < state.sigma < math.inf


def test_starts_from_what_is_known() -> None:
    points = np.zeros((9, 3))
    points[:4] = [[1, 1, 1], [1, 2, 1], [1, 1, 4], [1, 4, 5]]
    scale = np.array([2.0, 1.0, 4.0])
    known = Known(points, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, NAN])
    state = start(XNES(sigma=0.5), 3, known=known, scale=scale)
    assert state.mean.tolist() == [1, 1, 1]
    deviations = state.sigma * scale * state.shape.diagonal()
    np.testing.assert_allclose(deviations, [1.0, math.sqrt(10 / 4), math.sqrt(25 / 4)])
    np.testing.assert_allclose(np.linalg.det(state.shape), 1.0)
    assert (state.shape == np.diag(state.shape.diagonal())).all()
    assert XNES().diagnostics(state)["smallest_deviation"] == pytest.approx(1.0)


def test_ends_when_it_has_converged() -> None:
    method = XNES(tolx=1e-3)
    state = after(method, start(method, 2), 200)
    assert "tolx" in str(method.finished(state))


def test_walls_do_not_stop_the_search() -> None:
    box = Bounds(np.full(5, 0.3), np.full(5, 4.0))
    method = XNES(20)
    state = after(method, method.init(np.full(5, 2.0), key=Key(0), bounds=box), 200)
    assert bowl(method.recommend(state)[None])[0] < 1e-4


@pytest.mark.parametrize("name", ["sigma", "learning_rate", "sigma_rate", "shape_rate"])
def test_wrong_options(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number above 0, got -1.0"):
        XNES(**{name: -1.0})


def test_too_many_variables_for_a_covariance() -> None:
    with pytest.raises(MemoryError, match=r'8000 GB.*method="snes"'):
        XNES().init(np.zeros(1_000_000), key=Key(0))


def test_wrong_starts() -> None:
    with pytest.raises(ValueError, match=r"`x0` must have shape \(dim,\), got \(2, 2\)"):
        XNES().init(np.zeros((2, 2)), key=Key(0))
    with pytest.raises(ValueError, match=r"`x0` must have shape \(dim,\), got \(\)"):
        XNES().init(np.zeros(()), key=Key(0))
