"""`cbs` keeps normal densities, and does the same in any coordinates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss, hermeval

import zoo
from zoo.consensus import weights
from zoo.consensus.sampling import CBS
from zoo.core.rng import Key
from zoo.core.types import Evaluations

MEAN, VARIANCE = np.array([1.0, -2.0]), np.array([1.0, 0.25])


def energy(x: Any) -> Any:
    return ((x - MEAN) ** 2 / VARIANCE).sum(-1) / 2


def walk(method: CBS, steps: int, fun: Any, x0: Any, scale: Any = 1.0, seed: int = 0) -> Any:
    state = method.init(x0, key=Key(seed), scale=scale)
    for _ in range(steps):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(fun(candidates.rows(0, len(candidates)))))
    return state


def deviations(alpha: float, b: float, count: int) -> tuple[float, float]:
    """Return the standard deviations of mean and variance of a swarm at rest in a normal density.

    In two variables: averages of the Hermite polynomials He_n(x) He_m(y) over the particles decay by
    b^(n + m) in a step, on which new noise of variance n! m! (1 - b^(2 n + 2 m)) / count comes. c and V are
    averages of x w and x^2 w, sums of these to first order; c moves the first mode and V the second.
    """
    nodes, masses = hermegauss(120)
    masses = masses / masses.sum()
    w = np.exp(-alpha * nodes**2 / 2)
    top = 24

    def coefficients(g: Any) -> Any:
        """Of w g in Hermite polynomials, over the mean of w."""
        basis = [hermeval(nodes, np.eye(top)[n]) for n in range(top)]
        return (
            np.array([(masses * w * g * he).sum() / math.factorial(n) for n, he in enumerate(basis)])
            / (masses * w).sum()
        )

    plain = coefficients(1.0)
    found = []
    for first, g in ((1, nodes), (2, (1 + alpha) * nodes**2 - 1)):
        along = coefficients(g)
        gain = 1 - b**first
        rho = b**first + gain * along[first] * plain[0]
        noise = math.factorial(first) * (1 - b ** (2 * first)) / count
        covariance = power = 0.0
        for n in range(top):
            for m in range(top):
                a, decay = along[n] * plain[m], b ** (n + m)
                if (n, m) == (first, 0) or n + m == 0:
                    continue
                size = math.factorial(n) * math.factorial(m) / count
                covariance += a * gain * a * decay * size / (1 - rho * decay)
                power += a * a * size
        found.append(math.sqrt((gain**2 * power + 2 * rho * gain * covariance + noise) / (1 - rho**2)))
    return found[0], found[1]


@pytest.mark.parametrize(("dt", "steps"), [(0.01, 1500), (0.5, 60), (2.0, 40)])
def test_samples_a_normal_density(dt: float, steps: int) -> None:
    method = CBS(num_particles=1000, mode="sampling", dt=dt)
    samples = method.particles(walk(method, steps, energy, np.zeros(2), seed=1))
    of_mean, of_variance = deviations(1.0, math.exp(-dt), 1000)
    assert 0.02 < of_mean < 0.08
    assert 0.04 < of_variance < 0.12
    assert (np.abs(samples.mean(0) - MEAN) < 4 * of_mean * np.sqrt(VARIANCE)).all()
    assert (np.abs(samples.var(0) / VARIANCE - 1) < 4 * of_variance).all()
    assert abs(np.corrcoef(samples.T)[0, 1]) < 4 * of_variance


def test_fluctuates_as_computed() -> None:
    # 30 swarms, 20 looks each, twice as far apart as they remember: bands of chi squared with 600 degrees.
    method, dt = CBS(num_particles=300, mode="sampling", dt=1.0, sample_share=0.01), 1.0
    looks = []
    for seed in range(30):
        state = walk(method, 12, energy, MEAN, np.sqrt(VARIANCE), seed)
        for _ in range(20):
            for _ in range(4):
                values = energy(method.ask(state).rows(0, 300))
                state = method.tell(state, Evaluations(values))
            samples = (method.particles(state) - MEAN) / np.sqrt(VARIANCE)
            looks.append([samples[:, 0].mean(), samples[:, 0].var()])
    measured = np.std(looks, 0)
    np.testing.assert_allclose(measured, deviations(1.0, math.exp(-dt), 300), rtol=4 / math.sqrt(2 * 600))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_keeps_a_normal_density_in_expectation(alpha: float) -> None:
    # The points of a Gauss rule, with its weights as energies, stand for infinitely many particles.
    nodes, masses = hermegauss(120)
    with np.errstate(divide="ignore"):
        shares = weights.gibbs_weights((alpha * nodes**2 / 2 - np.log(masses))[None], 1.0)[0]
    mean = shares @ nodes
    kept = math.exp(-0.7)
    after = kept**2 * 1.0 + (1 - kept**2) * (1 + alpha) * (shares @ (nodes - mean) ** 2)
    assert (mean, after) == (pytest.approx(0, abs=1e-12), pytest.approx(1, abs=1e-12))


@pytest.mark.parametrize("mode", ["optimization", "sampling"])
@pytest.mark.parametrize("count", [5, 40])
def test_does_the_same_after_a_linear_change_of_variables(mode: str, count: int) -> None:
    change = np.random.default_rng(0).standard_normal((6, 6)) + 3 * np.eye(6)
    move = np.arange(6.0)
    method = CBS(num_particles=count, mode=mode, dt=0.3, root="particles", tolx=0.0)

    def fun(x: Any) -> Any:
        return (x**2).sum(-1) + np.cos(3 * x).sum(-1)

    # The first particles are independent normal in either coordinates; here they are put where they belong.
    plain = method.init(np.zeros(6), key=Key(0))
    other = method.init(np.zeros(6), key=Key(0))
    swarm = other.swarm
    other = replace(other, swarm=replace(swarm, anchor=swarm.anchor + move, offsets=swarm.offsets @ change.T))
    for _ in range(15):
        x, y = method.particles(plain), method.particles(other)
        np.testing.assert_allclose(y, x @ change.T + move, atol=1e-9)
        plain = method.tell(plain, Evaluations(fun(x)))
        other = method.tell(other, Evaluations(fun(np.linalg.solve(change, (y - move).T).T)))


@pytest.mark.parametrize("root", ["particles", "triangular"])
@pytest.mark.parametrize(("count", "dim"), [(30, 3), (4, 7)])
def test_noise_has_the_covariance_of_the_particles(root: str, count: int, dim: int) -> None:
    # Whatever a is, the covariance of xi @ factor given the factor is factor^T factor: it must be V.
    method = CBS(num_particles=count, root=root)
    swarm = method.init(np.zeros(dim), key=Key(0)).swarm
    shares = weights.gibbs_weights(np.random.default_rng(0).random((1, count)), 3.0)
    centre = shares @ swarm.offsets[0]
    away = swarm.offsets - centre[:, None]
    covariance = (shares[0][:, None] * away[0]).T @ away[0]
    factor = method._factor(away, shares)[0]
    np.testing.assert_allclose(factor.T @ factor, covariance, atol=1e-13)
    assert len(factor) == (count if root == "particles" else min(count, dim))


def test_auto_takes_the_cheaper_root() -> None:
    for count, root in ((3, "particles"), (20, "triangular")):
        states = [walk(CBS(num_particles=count, root=r), 5, energy6, np.zeros(6)) for r in ("auto", root)]
        assert (states[0].swarm.offsets == states[1].swarm.offsets).all()


def energy6(x: Any) -> Any:
    return (x**2).sum(-1)


def test_draws_anew_when_dt_is_infinite() -> None:
    endless, long = (walk(CBS(dt=dt), 20, energy6, np.ones(6)) for dt in (math.inf, 60.0))
    np.testing.assert_allclose(endless.swarm.offsets, long.swarm.offsets, rtol=1e-9, atol=1e-15)


def test_travels_where_the_start_is_far_off() -> None:
    method = CBS(num_particles=500, mode="sampling", dt=0.5)
    state = walk(method, 1, energy, np.full(2, 15.0), 3.0)
    assert method.diagnostics(state)["alpha"] < 0.1
    state = walk(method, 60, energy, np.full(2, 15.0), 3.0)
    assert method.diagnostics(state)["alpha"] == 1
    assert np.abs(method.particles(state).mean(0) - MEAN).max() < 0.3


def test_optimization_holds_the_effective_sample_size() -> None:
    for share in (0.1, 0.5):
        state = walk(CBS(num_particles=200, sample_share=share), 5, energy6, np.ones(6))
        assert state.swarm.sample_size == pytest.approx(200 * share, rel=1e-6)


@pytest.mark.parametrize(
    ("dim", "x0", "budget"), [(1, 9.0, 3000), (2, 3.0, 6000), (5, 2.0, 6000), (10, 3.0, 9000)]
)
def test_travels_to_a_minimum_that_is_wide_of_the_start(dim: int, x0: float, budget: int) -> None:
    for seed in range(10 if dim < 5 else 4):
        found = zoo.minimize(
            energy6, np.full(dim, x0), method="cbs", budget=budget, rng=seed, vectorized=True
        )
        assert found.success
        assert found.fun < 1e-9


def test_a_swarm_grows_along_a_slope_rather_than_across() -> None:
    method = CBS(num_particles=400, dt=math.inf)
    state = method.init(np.zeros(2), key=Key(0))
    spreads = []
    for _ in range(12):
        x = method.particles(state)
        spreads.append(x.std(0))
        state = method.tell(state, Evaluations(x[:, 0]))
    assert spreads[-1][0] > 20 * spreads[0][0]
    assert spreads[-1][1] < 0.2 * spreads[-1][0]


def test_solves_a_rotated_function_of_many_valleys() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))

    def fun(x: Any) -> Any:
        y = (x - 0.3) @ turn.T
        return (y**2 + 10 * (1 - np.cos(2 * np.pi * y))).sum(-1)

    method = CBS(num_particles=300)
    reached = [method.recommend(walk(method, 60, fun, np.zeros(8), 1.5, seed)) for seed in range(3)]
    assert np.median([fun(x) for x in reached]) < 1.1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "both"}, "`mode` must be one of"),
        ({"alpha": math.inf, "mode": "sampling"}, "`alpha` must be finite"),
        ({"dt": 0.0}, "`dt` must be above 0"),
        ({"sample_share": 1.0}, "`sample_share` must be above 0"),
    ],
)
def test_refuses(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CBS(**options)
