"""`cbo-frozen` solves a step about a consensus point held still exactly, and ends in consensus hopping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from zoo.consensus import noise, weights
from zoo.consensus.freezing import FrozenCBO
from zoo.consensus.hopping import ConsensusHopping
from zoo.core.device import Like
from zoo.core.rng import Key
from zoo.core.types import Evaluations

LIKE = Like("numpy", "float64")
X0 = np.array([0.5, -1.5, 2.0])


def walk(method: Any, steps: int, fun: Any, x0: Any = X0, **options: Any) -> Any:
    state = method.init(x0, key=Key(3), **options)
    for _ in range(steps):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(fun(candidates.rows(0, len(candidates)))))
    return state


def ball(x: Any) -> Any:
    return (x**2).sum(-1)


def moved(method: FrozenCBO, count: int, dim: int, shift: float = 1.0) -> tuple[Any, Any]:
    """Return offsets from a consensus point that is held still, before an interval and after it."""
    state = method.init(np.zeros(dim), key=Key(1), scale=2.0)
    before = state.swarm.offsets[0] - state.swarm.offsets[0, 0]
    values = np.ones(count)
    values[0] = 0.0  # the only one that counts, at alpha = inf
    return before, method.tell(state, Evaluations(values)).swarm.offsets[0]


def numbers(count: int, dim: int, purpose: str | None = None, step: int = 0) -> Any:
    key = Key(1) if purpose is None else Key(1).fold(purpose)
    return noise.normal((key,), step, 0, count, count, dim, LIKE)[0]


def test_the_solution_of_each_equation_alone() -> None:
    options: Any = {"num_particles": 30, "alpha": math.inf, "drift": 0.7, "dt": 0.9, "num_frozen": 4}
    v, after = moved(FrozenCBO(sigma=0.0, delta=1.3, **options), 30, 3)
    width = 1.3 * 2.0 * math.sqrt((1 - math.exp(-2 * 0.7 * 3.6)) / (2 * 0.7))
    np.testing.assert_allclose(after, math.exp(-0.7 * 3.6) * v + width * numbers(30, 3, "delta"), atol=1e-13)
    v, after = moved(FrozenCBO(sigma=1.5, delta=0.0, **options), 30, 3)
    growth = np.exp(-(0.7 + 1.5**2 / 2) * 3.6 + 1.5 * math.sqrt(3.6) * numbers(30, 3))
    np.testing.assert_allclose(after, v * growth, atol=1e-13)


@pytest.mark.parametrize(("sigma", "delta"), [(0.0, 1.0), (1.2, 0.0)])
def test_steps_put_together_are_one_step(sigma: float, delta: float) -> None:
    # Along one path of the noise: what a long step draws is made of what short ones draw.
    drift, dt, count = 0.8, 0.35, 5
    short = FrozenCBO(sigma=sigma, delta=delta, drift=drift, dt=dt)
    long = FrozenCBO(sigma=sigma, delta=delta, drift=drift, dt=dt * count)
    swarm = short.init(X0, key=Key(1)).swarm
    v = swarm.offsets
    for step in range(count):
        v = short._step(swarm, v, step, dt)
    purpose = "delta" if delta else None
    xi = np.stack([numbers(swarm.size, 3, purpose, step) for step in range(count)])
    if delta:
        faded = np.exp(-drift * dt * np.arange(count)[::-1])[:, None, None] * short._reach(dt)
        end = math.exp(-drift * dt * count) * swarm.offsets + (faded * xi).sum(0)
        np.testing.assert_allclose(math.hypot(*faded.ravel()), long._reach(dt * count), rtol=1e-13)
    else:
        total = xi.sum(0) / math.sqrt(count)
        end = swarm.offsets * np.exp(
            -(drift + sigma**2 / 2) * dt * count + sigma * math.sqrt(dt * count) * total
        )
    np.testing.assert_allclose(v, end, atol=1e-12)


@pytest.mark.parametrize("dt", [0.3, 3.0])
def test_mean_and_variance_are_exact_with_both_noises(dt: float) -> None:
    # E v' = v e^(-drift dt); E v'^2 = v^2 e^(-r dt) + delta^2 (1 - e^(-r dt)) / r, r = 2 drift - sigma^2.
    drift, sigma, delta, count = 1.0, 0.6, 0.5, 50_000
    method = FrozenCBO(num_particles=count, drift=drift, sigma=sigma, delta=delta, dt=dt)
    swarm = method.init(np.zeros(1), key=Key(2)).swarm
    after = method._step(swarm, np.ones((1, count, 1)), 0, dt)[0, :, 0]
    r = 2 * drift - sigma**2
    second = math.exp(-r * dt) + delta**2 * (1 - math.exp(-r * dt)) / r
    assert abs(after.mean() - math.exp(-drift * dt)) < 4 * after.std() / math.sqrt(count)
    assert abs((after**2).mean() - second) < 4 * (after**2).std() / math.sqrt(count)


@pytest.mark.parametrize("dt", [0.4, 1e3, math.inf])
def test_settles_to_a_normal_law_that_is_known(dt: float) -> None:
    # 40 steps at alpha = 0 about the mean of 2000 particles: a chi squared of 6000 degrees of freedom.
    method = FrozenCBO(num_particles=2000, drift=0.5, delta=0.8, dt=dt, alpha=0.0, final_delta=1.0, tolx=0.0)
    state = walk(method, 40, ball)
    variance = 0.8**2 / (2 * 0.5)
    measured = (state.swarm.offsets - state.swarm.offsets.mean(1, keepdims=True)).var()
    assert measured == pytest.approx(variance, rel=4 * math.sqrt(2 / 6000))


def test_is_stable_for_any_step() -> None:
    for dt in (0.01, 1.0, 1e6):
        state = walk(FrozenCBO(sigma=1.0, delta=0.1, dt=dt, num_particles=30), 30, ball)
        assert np.isfinite(state.swarm.offsets).all()
        assert np.abs(state.swarm.offsets).max() < 30
    with pytest.raises(ValueError, match="overshoot"):
        FrozenCBO(integrator="euler-maruyama", dt=3.0)
    FrozenCBO(integrator="euler-maruyama", dt=3.0, allow_divergence=True)


def test_endless_intervals_are_consensus_hopping() -> None:
    # By hand, with the same numbers: y = c + s z, c <- sum w y / sum w.
    drift, delta, alpha, count = 0.5, 0.7, 4.0, 40
    width = delta / math.sqrt(2 * drift)
    method = FrozenCBO(count, drift, 0.0, delta, 1.0, math.inf, alpha=alpha)
    state = method.init(X0, key=Key(1))
    points = np.array(method.ask(state).rows(0, count))
    for step in range(30):
        values = ball(points) + np.cos(4 * points).sum(1)
        state = method.tell(state, Evaluations(values))
        c = weights.consensus_point(points, values, alpha)
        points = c + width * numbers(count, 3, "delta", step)
        np.testing.assert_allclose(method.ask(state).rows(0, count), points, atol=1e-12)


def test_endless_intervals_hop_as_consensus_hopping_does() -> None:
    # On a quadratic both go to (I + tau K)^-1 x, tau = alpha s^2, each off by some s / sqrt(ESS).
    curvature, count, alpha, width = np.array([0.5, 2.0, 8.0]), 20_000, 20.0, 0.1

    def fun(x: Any) -> Any:
        return (curvature * x**2).sum(-1) / 2

    x = np.array([0.2, -0.2, 0.05])
    hopping = ConsensusHopping(num_particles=count, sigma=width, alpha=alpha, mirrored=False)
    theirs = hopping.recommend(walk(hopping, 1, fun, x))
    ours = FrozenCBO(count, 1.0, 0.0, width * math.sqrt(2), 1.0, math.inf, alpha=alpha, elitist=False)
    state = ours.init(x, key=Key(3))
    point = ours.recommend(ours.tell(state, Evaluations([0.0] + [np.nan] * (count - 1))))  # x itself
    np.testing.assert_array_equal(point, x)
    state = walk(ours, 1, lambda y: np.where((y == x).all(1), 0.0, np.nan), x)
    state = ours.tell(state, Evaluations(fun(ours.ask(state).rows(0, count))))
    exact = x / (1 + alpha * width**2 * curvature)
    band = 4 * width / math.sqrt(state.swarm.sample_size)
    assert np.abs(theirs - exact).max() < band
    assert np.abs(ours.recommend(state) - exact).max() < band


def test_frozen_steps_cost_no_evaluations() -> None:
    for count in (1, 7):
        state = walk(FrozenCBO(20, sigma=1.0, delta=1.0, dt=0.1, num_frozen=count), 10, ball)
        assert state.swarm.nfev == 200


def test_short_steps_of_euler_maruyama_come_near() -> None:
    options: Any = {"num_particles": 10, "sigma": 0.0, "delta": 0.0, "alpha": math.inf}
    exact = moved(FrozenCBO(dt=1.0, **options), 10, 3)[1]
    coarse, fine = (
        moved(FrozenCBO(integrator="euler-maruyama", dt=1 / n, num_frozen=n, **options), 10, 3)[1]
        for n in (4, 400)
    )
    assert np.abs(fine - exact).max() < 0.02 * np.abs(coarse - exact).max()


def test_delta_falls_with_the_budget() -> None:
    method = FrozenCBO(20, final_delta=0.01, alpha=math.inf)
    for steps, budget, expected in ((0, 1000, 1.0), (25, 1000, 0.1), (50, 1000, 0.01), (300, None, 0.01)):
        state = walk(method, steps, ball, budget=budget)
        assert method.diagnostics(state)["delta"] == pytest.approx(expected)


def test_solves_a_rotated_function_of_many_valleys() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))

    def fun(x: Any) -> Any:
        y = (x - 0.3) @ turn.T
        return (y**2 + 10 * (1 - np.cos(2 * np.pi * y))).sum(-1)

    method = FrozenCBO(num_particles=100)
    state = walk(method, 120, fun, np.zeros(8), budget=12_000, scale=1.5)
    assert fun(method.recommend(state)) < 2.1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dt": 0.0}, "`dt` must be above 0"),
        ({"dt": math.inf, "sigma": 1.0}, "`dt` must be finite unless"),
        ({"final_delta": 0.0}, "`final_delta` must be above 0"),
        ({"num_frozen": 0}, "`num_frozen` must be at least 1"),
        ({"sample_share": 0.0}, "`sample_share` must be above 0"),
    ],
)
def test_refuses(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FrozenCBO(**options)


def test_noise_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="distances would be no numbers"):
        FrozenCBO(sigma=30.0, dt=1.0)
