"""Consensus-based optimization: options against their formulas, and what swarms do in the end."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zoo.consensus import choices, noise, weights
from zoo.consensus.cbo import CBO, REACH, CBOState
from zoo.consensus.members import join
from zoo.consensus.textbook import TextbookCBO
from zoo.core.bounds import Bounds
from zoo.core.device import to_numpy
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Known

Matrix = np.ndarray[Any, Any]

PLAIN: dict[str, Any] = {"memory": "none", "explorers": 0.0, "num_coordinates": None, "elitist": False}


def bowl(x: Matrix) -> Matrix:
    return ((x - 0.7) ** 2).sum(1)


def rastrigin(x: Matrix) -> Matrix:
    return (x * x - 10 * np.cos(2 * np.pi * x) + 10).sum(1)


def ackley(x: Matrix) -> Matrix:
    radius, waves = np.sqrt((x * x).mean(1)), np.cos(2 * np.pi * x).mean(1)
    return -20 * np.exp(-0.2 * radius) - np.exp(waves) + 20 + math.e


def asked(method: CBO, state: CBOState) -> Matrix:
    candidates = method.ask(state)
    return to_numpy(candidates.rows(0, len(candidates)))


def run(method: CBO, state: CBOState, fun: Any, steps: int) -> CBOState:
    for _ in range(steps):
        state = method.tell(state, Evaluations(fun(asked(method, state))))
    return state


def begun(method: CBO, dim: int = 5, x0: float = 0.0, swarms: int = 1, **options: Any) -> CBOState:
    keys = [Key(i) for i in range(swarms)]
    return method.init_many(np.full(dim, x0), keys=keys, **options)


def successes(method: CBO, fun: Any, dim: int, swarms: int, nfev: int, shift: float) -> float:
    state = begun(method, dim, swarms=swarms, scale=3.0)
    while state.nfev < nfev:
        state = method.tell(state, Evaluations(fun(asked(method, state) - shift)))
    return float((abs(method.recommend_many(state) - shift).max(1) < 0.25).mean())


# One step, against the formulas written out particle by particle.

STEPS = [
    {},
    {"noise": "isotropic"},
    {"integrator": "exponential"},
    {"integrator": "exponential", "noise": "isotropic"},
    {"truncation": 0.3},
    {"truncation": 0.3, "noise": "isotropic"},
    {"truncation": 0.3, "integrator": "exponential"},
    {"correction": "heaviside"},
    {"correction": "heaviside", "truncation": 0.3},
    {"correction": "smooth", "correction_width": 2.0},
    {"correction": "smooth", "correction_width": 2.0, "integrator": "exponential"},
    {"correction": "smooth", "correction_width": 2.0, "integrator": "exponential", "noise": "isotropic"},
    {"memory": "local"},
    {"memory": "local", "memory_sigma": 3.0, "noise": "isotropic", "correction": "heaviside"},
    {"memory": "local", "integrator": "exponential", "memory_drift": 3.0},
    {"memory": "greedy"},
    {"memory": "greedy", "correction": "smooth", "correction_width": 2.0},
    {"batch_size": 5},
    {"batch_size": 5, "batch_moves": "batch"},
    {"batch_size": 5, "memory": "greedy", "correction": "heaviside"},
    {"batch_size": 5, "memory": "local", "batch_moves": "batch", "correction": "smooth"},
    {"num_coordinates": 2},
    {"num_coordinates": 2, "memory": "greedy"},
    {"elitist": True},
    {"alpha": math.inf},
    {"alpha": 0.0},
]


def increment(v: Matrix, xi: Matrix, a: float, u: float, method: CBO) -> Matrix:
    """Return where a particle at offset v is after a step with drift a and noise u."""
    exact = method.integrator == "exponential"
    size = np.full_like(v, np.linalg.norm(v)) if method.noise == "isotropic" else v
    if math.isinf(method.truncation) and exact and method.noise == "anisotropic":
        return v * np.exp(-a - u * u / 2 + u * xi)
    size = np.clip(size, -method.truncation, method.truncation)
    return v * (math.exp(-a) if exact else 1 - a) + u * size * xi


@pytest.mark.parametrize("options", STEPS, ids=str)
@pytest.mark.filterwarnings("ignore::zoo.core.errors.ZooWarning")
def test_steps_keep_to_the_formula(options: dict[str, Any]) -> None:
    chosen: dict[str, Any] = {
        **PLAIN,
        "num_particles": 12,
        "alpha": 2.0,
        "drift": 3.0,
        "sigma": 4.0,
        "dt": 0.05,
    }
    method = CBO(**{**chosen, **options, "allow_divergence": True})
    state = begun(method, 4)
    x = state.anchor[0] + state.members.offsets[0]
    y, fy = x.copy(), np.full(12, np.inf)
    best, f_best = np.zeros(4), np.inf
    for number in range(3):
        batch = np.arange(12)
        if method.batch_size:
            batch = choices.batches(state.frame.keys, number, 12, method.batch_size)[0]
        np.testing.assert_allclose(asked(method, state), x[batch], rtol=0, atol=1e-12)
        f = np.full(12, np.inf)
        f[batch] = bowl(x[batch])
        state = method.tell(state, Evaluations(f[batch]))
        y[f <= fy] = x[f <= fy]
        fy = np.minimum(f, fy)
        if f.min() < f_best:
            best, f_best = x[f.argmin()].copy(), f.min()
        points, heights = (x, f) if method.memory == "none" else (y, fy)
        points, heights = points[batch], heights[batch]
        if method.elitist and method.memory == "none":
            points, heights = np.vstack([points, best]), np.append(heights, f_best)
        c = weights.consensus_point(points, heights, method.alpha)
        share = np.ones(12)
        if method.correction != "none":
            np.testing.assert_allclose(asked(method, state), c[None], rtol=0, atol=1e-12)
            assert state.awaits
            fc = bowl(c[None])[0]
            state = method.tell(state, Evaluations([fc]))
            above = (fy if method.memory == "greedy" else f) - fc
            share = (above > 0) * 1.0
            if method.correction == "smooth":
                share = 0.5 + 0.5 * np.tanh(above / method.correction_width)
        xi = noise.normal(state.frame.keys, number, 0, 12, 12, 4, state.frame.work)[0]
        zeta = noise.normal(
            choices.folded(state.frame.keys, "memory"), number, 0, 12, 12, 4, state.frame.work
        )[0]
        a, u = method.drift * method.dt, method.sigma * math.sqrt(method.dt)
        moving = np.ones((12, 4), bool)
        if method.num_coordinates is not None:
            moving = choices.chosen(state.frame.keys, number, 0, 12, 12, 4, 0.5, state.frame.work)[0]
            assert 0 < moving.mean() < 1
        for i in range(12):
            if method.batch_moves == "batch" and i not in batch:
                continue
            v = (y if method.memory == "greedy" else x)[i] - c
            new = increment(v, xi[i], a * share[i], u, method)
            if method.memory == "local":
                own = x[i] - y[i]
                sigma = method.memory_sigma or method.memory_drift * method.sigma
                strength = sigma * math.sqrt(method.dt)
                new = new + increment(own, zeta[i], method.memory_drift * method.dt, strength, method) - own
            x[i] = c + np.where(moving[i], new, v)
        np.testing.assert_allclose(state.anchor[0] + state.members.offsets[0], x, rtol=1e-11, atol=1e-11)


@pytest.mark.filterwarnings("ignore::zoo.core.errors.ZooWarning")
@pytest.mark.parametrize(("noise_law", "factor"), [("anisotropic", 0.92050), ("isotropic", 1.08250)])
def test_variance_changes_by_the_known_factor(noise_law: str, factor: float) -> None:
    """About the mean of N particles: (1 - a)^2 + u^2 (1 - 1/N), d u^2 with isotropic noise."""
    method = CBO(
        **PLAIN, num_particles=50_000, sigma=0.6, dt=0.05, alpha=0.0, noise=noise_law, allow_divergence=True
    )
    state = begun(method, 10)
    before = float((state.members.offsets**2).mean())
    state = run(method, state, lambda x: np.zeros(len(x)), 8)
    after = float((state.members.offsets**2).mean())
    assert (after / before) ** (1 / 8) == pytest.approx(factor, abs=1e-3)


@pytest.mark.parametrize("dim", [2, 20, 200])
@pytest.mark.filterwarnings("ignore::zoo.core.errors.ZooWarning")
def test_only_isotropic_noise_depends_on_the_number_of_variables(dim: int) -> None:
    for law, strength in (("anisotropic", 1), ("isotropic", dim)):
        method = CBO(
            **PLAIN,
            num_particles=40_000 // dim,
            sigma=0.3,
            dt=0.02,
            alpha=0.0,
            noise=law,
            allow_divergence=True,
        )
        state = begun(method, dim)
        before = float((state.members.offsets**2).mean())
        after = float((run(method, state, lambda x: np.zeros(len(x)), 1).members.offsets ** 2).mean())
        assert after / before == pytest.approx(0.98**2 + strength * 0.3**2 * 0.02, rel=0.01)


# Ranges of particles, and several swarms.

FORMS = [
    {},
    {"explorers": 0.0, "precision": "single"},
    {**PLAIN, "alpha": 30.0, "alpha_schedule": "multiply"},
    {"memory": "local", "explorers": 0.3, "truncation": 0.5},
    {"alpha_schedule": "effective-sample-size", "batch_size": 100},
    {"batch_size": 50, "batch_moves": "batch", "alpha": 10.0, "correction": "smooth"},
    {**PLAIN, "noise": "isotropic", "sigma": 0.5, "integrator": "exponential", "correction": "heaviside"},
    {"restart": 0.1, "memory": "none", "explorers": 0.0, "alpha": 1.0},
    {"alpha_schedule": "effective-sample-size", "memory": "none", "explorers": 0.0, "sigma": 3.0},
    {"alpha_schedule": "cooling", "epoch": 3, "alpha": 2.0, "sigma": 3.0},
]


def in_parts(method: CBO, state: CBOState, fun: Any, steps: int, num_parts: int) -> CBOState:
    """Return what `run` does, by way of particles in parts."""
    edges = weights.boundaries(state.count)
    cuts = [edges[round(i * (len(edges) - 1) / num_parts)] for i in range(num_parts + 1)]
    parts = [state.members.cut(a, b) for a, b in itertools.pairwise(cuts)]
    state = replace(state, members=state.members.cut(0, 0))
    for _ in range(steps):
        values = fun(asked(method, replace(state, members=join(parts)))).reshape(len(state.anchor), -1)
        state = replace(state, step=state.step + 1, nfev=state.nfev + method.wanted(state))
        height = values[:, 0]
        if not state.awaits:
            energies = method.energies(state, values)
            taken = [method.take(state, part, energies[:, part.start : part.stop]) for part in parts]
            parts = [part for part, _ in taken]
            state = replace(state, accepted=sum(accepted for _, accepted in taken))
            state = method.elect(state, [method.best_of(state, part) for part in parts])
            state = method.heat(state, np.concatenate([method.heights(state, part) for part in parts], 1))
            state = method.agree(state, [sums for part in parts for sums in method.weigh(state, part)])
            height = np.empty(0)
            if state.awaits:
                continue
        state, told = method.order(state, height)
        parts = [method.move(state.frame, part, told) for part in parts]
    return replace(state, members=join(parts))


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_parts_and_swarms_do_the_same_to_the_last_bit(options: dict[str, Any]) -> None:
    method = CBO(**{"num_particles": 331, **options})
    alone = run(method, method.init(np.full(7, 2.0), key=Key(1), scale=1.3), rastrigin, 5)
    for num_parts in (2, 6):
        parts = in_parts(method, method.init(np.full(7, 2.0), key=Key(1), scale=1.3), rastrigin, 5, num_parts)
        assert digest(parts) == digest(alone)
    among = run(method, begun(method, 7, 2.0, swarms=3, scale=1.3), rastrigin, 5)
    for name in ("anchor", "shift", "best", "best_value", "alpha", "sample_size", "still", "accepted"):
        assert getattr(among, name)[1].tobytes() == getattr(alone, name)[0].tobytes(), name
    for name in ("offsets", "memory", "remembered", "energies"):
        assert getattr(among.members, name)[1].tobytes() == getattr(alone.members, name)[0].tobytes(), name
    assert method.recommend_many(among)[1].tobytes() == method.recommend(alone).tobytes()


@pytest.mark.parametrize("precision", ["double", "single"])
def test_large_swarms_do_the_same(precision: str) -> None:
    """Their numbers are drawn in blocks, and their particles moved in pieces."""
    method = CBO(**PLAIN, num_particles=1700, alpha=30.0, precision=precision)
    start = method.init(np.full(66, 2.0), key=Key(1))
    after = run(method, start, rastrigin, 1)
    xi = noise.normal(start.frame.keys, 0, 0, 1700, 1700, 66, start.frame.work)[0]
    expected = (start.members.offsets[0] - after.shift[0]) * (0.99 + 0.8 * xi)
    tolerance = 1e-12 if precision == "double" else 1e-4
    np.testing.assert_allclose(after.members.offsets[0], expected, rtol=tolerance, atol=tolerance)
    among = run(method, begun(method, 66, 2.0, swarms=2), rastrigin, 1)
    assert among.members.offsets[1].tobytes() == after.members.offsets[0].tobytes()
    for num_parts in (2, 5):
        assert digest(in_parts(method, start, rastrigin, 1, num_parts)) == digest(after)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_torch_swarms_are_each_their_own(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    method, start = (
        CBO(**{"num_particles": 70, **options, "batch_size": None}),
        torch.full((3,), 2.0).double(),
    )
    alone = run(method, method.init(start, key=Key(1)), rastrigin, 3)
    among = run(method, method.init_many(start, keys=[Key(0), Key(1)]), rastrigin, 3)
    assert torch.equal(among.members.offsets[1], alone.members.offsets[0])
    assert torch.equal(method.recommend_many(among)[1], method.recommend(alone))


@pytest.mark.parametrize("noise_law", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("truncation", [math.inf, 0.5])
def test_no_drift_is_too_much_for_the_exact_scheme(noise_law: str, dtype: str, truncation: float) -> None:
    options = {"noise": noise_law, "integrator": "exponential", "truncation": truncation}
    method = CBO(**PLAIN, **options, drift=1e5, sigma=1.0, alpha=0.0, correction="heaviside")
    state = method.init(np.full(3, 2.2, dtype), key=Key(0))
    before = run(method, state, rastrigin, 1)
    state = run(method, before, rastrigin, 1)
    height, v = rastrigin(asked(method, before))[0], before.members.offsets[0] - before.shift
    drawn = noise.normal((Key(0),), 0, 0, 20, 20, 3, before.frame.work)[0]
    above = before.members.energies[0] > height
    u = 0.1
    for i in range(20):
        expected = increment(v[i], drawn[i], 1e5 if above[i] else 0.0, u, method)
        assert state.members.offsets[0, i] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert above.any()
    assert not above.all()


# Noise that is too strong.


def test_strong_noise_is_warned_of_and_stronger_noise_refused() -> None:
    with pytest.warns(ZooWarning, match=r"is 1\.3;.*contract slowly"):
        CBO(sigma=13.0)
    for sigma in (15.1, 16.1, 20.0):
        with pytest.raises(
            ValueError, match=r"`sigma` \* sqrt\(dt\) must be at most 1\.5, got .*allow_divergence"
        ):
            CBO(sigma=sigma)
    with pytest.warns(ZooWarning, match="fly apart"):
        CBO(sigma=16.1, allow_divergence=True)
    with pytest.raises(ValueError, match="must be at most"):
        CBO(memory="local", sigma=14.9, memory_sigma=8.0)
    CBO(sigma=40.0, integrator="exponential")
    CBO(sigma=40.0, truncation=1.0)
    with pytest.raises(ValueError, match=r"`drift` \* dt must be below 2"):
        CBO(drift=200.0)


def test_drifts_add_up() -> None:
    for options in ({"memory_drift": 1e3}, {"drift": 150.0, "memory_drift": 150.0, "sigma": 0.0}):
        with pytest.raises(
            ValueError, match=r"\(`drift` \+ `memory_drift`\) \* dt must.* Take smaller drifts"
        ):
            CBO(memory="local", **options)
        CBO(memory="local", integrator="exponential", **options)
    CBO(memory_drift=1e3)
    method = CBO(**{**PLAIN, "memory": "local"}, drift=100.0, memory_drift=95.0, sigma=0.0, alpha=1.0)
    state = run(method, begun(method, 3, 2.2), bowl, 400)
    assert abs(state.members.offsets).max() < 1


@pytest.mark.parametrize("noise_law", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("integrator", ["euler-maruyama", "exponential"])
def test_truncated_noise_that_is_too_strong_leaves_a_cloud(noise_law: str, integrator: str) -> None:
    options: dict[str, Any] = {**PLAIN, "noise": noise_law, "integrator": integrator, "alpha": 0.0}
    method = CBO(**options, drift=20.0, sigma=50.0, truncation=0.1, num_particles=400)
    a = 0.2 if integrator == "euler-maruyama" else -math.expm1(-0.2)
    width = 0.5 / math.sqrt(a * (2 - a))
    state = run(method, begun(method, 5), bowl, 200)
    assert state.members.offsets.std() == pytest.approx(width, rel=0.1)
    with pytest.warns(ZooWarning, match="stays a cloud, .* wide where `scale` is 1"):
        begun(replace(method, truncation=0.2 / width), 5)
    with pytest.raises(ValueError, match=r"stays a cloud, .*Take a smaller `truncation`"):
        begun(replace(method, truncation=1.1 / width), 5)
    begun(replace(method, truncation=1.1 / width), 5, scale=11.0)
    for truncation in (1e3, 1e300):
        with pytest.raises(ValueError, match="stays a cloud"):
            begun(replace(method, truncation=truncation), 5)
        with pytest.warns(ZooWarning, match="stays a cloud"):
            begun(replace(method, truncation=truncation, allow_divergence=True), 5)
        begun(replace(method, truncation=truncation, sigma=1.0), 5)


def test_isotropic_noise_is_judged_by_the_number_of_variables() -> None:
    method = CBO(**PLAIN, noise="isotropic", sigma=5.1)
    begun(method, 1)
    with pytest.raises(ValueError, match="isotropic noise in 20 variables makes the swarm fly apart"):
        begun(method, 20)
    with pytest.raises(ValueError, match="fly apart"):
        begun(replace(method, integrator="exponential"), 20)
    with pytest.warns(ZooWarning, match="isotropic noise in 20 variables"):
        begun(replace(method, allow_divergence=True), 20)
    begun(replace(method, truncation=0.2), 20)
    begun(replace(method, memory="greedy"), 20)


@pytest.mark.parametrize(
    "options", [{}, {"noise": "isotropic"}, {"elitist": True}, {"memory": "local"}], ids=str
)
@pytest.mark.filterwarnings("ignore::zoo.core.errors.ZooWarning")
def test_no_swarm_is_ever_far_away(options: dict[str, Any]) -> None:
    method = CBO(**{**PLAIN, "sigma": 1e3, "alpha": 30.0, "allow_divergence": True, **options})
    state = begun(method, 6, scale=0.1)
    for _ in range(100):
        state = run(method, state, bowl, 1)
        assert abs(state.members.offsets).max() <= REACH * 0.1 * (1 + 1e-12)
    # They reach it; and the consensus point is a mean of what was near the one before.
    assert abs(state.members.offsets).max() > REACH * 0.099
    assert abs(asked(method, state)).max() < 1e6


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 21}, "`batch_size` must be at most `num_particles`, 20, got 21"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"alpha": -1.0}, "`alpha` must be at least 0"),
        (
            {"alpha_schedule": "multiply"},
            "`alpha` must be finite and above 0 with `alpha_schedule='multiply'`",
        ),
        ({"alpha_schedule": "multiply", "alpha": 0.0}, "`alpha` must be finite and above 0"),
        ({"sample_share": 0.0}, "`sample_share` must be above 0"),
        ({"sample_share": 1.0}, "`sample_share` must be at least 0 and below 1"),
        ({"reduction": 1.0}, "`reduction` must be at least 0 and below 1"),
        ({"memory": "both"}, "`memory` must be one of 'none', 'greedy', 'local'"),
        ({"correction": "sharp"}, "`correction` must be one of"),
        ({"restart": math.inf}, "`restart` must be finite and at least 0"),
        ({"sigma": math.inf}, "`sigma` must be finite"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CBO(**options)


def test_several_swarms_cannot_lose_particles() -> None:
    with pytest.raises(ValueError, match="`reduction` must be 0 for several swarms"):
        begun(CBO(reduction=0.2), swarms=2)


ODD = [{}, PLAIN, {"memory": "local"}, {"correction": "smooth"}, {"batch_size": 1}, {"explorers": 1.0}]


@pytest.mark.parametrize("options", ODD, ids=str)
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0, math.inf])
def test_small_swarms_in_few_variables(options: dict[str, Any], size: int, dim: int, alpha: float) -> None:
    method = CBO(**{**options, "num_particles": size, "alpha": alpha})
    state = run(method, begun(method, dim), bowl, 12)
    assert np.isfinite(asked(method, state)).all()
    if method.elitist and not method.batch_size:  # x0 is evaluated in the first step
        assert bowl(method.recommend(state)[None]) <= bowl(np.zeros((1, dim)))


def test_a_single_particle_says_that_it_stands_still() -> None:
    method = CBO(**PLAIN, num_particles=1)
    state = run(method, begun(method), bowl, 10)
    assert (asked(method, state) == 0).all()
    assert "tolx" in str(method.finished(state))
    alone = CBO(num_particles=1)
    state = run(alone, begun(alone), bowl, 300)
    assert bowl(alone.recommend(state)[None]) < 0.2
    assert alone.finished(state) is None


@pytest.mark.parametrize("options", [*ODD, {"alpha_schedule": "effective-sample-size"}], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 3.0, math.inf])
def test_extreme_values(options: dict[str, Any], alpha: float) -> None:
    method = CBO(**{"num_particles": 6, **options, "alpha": alpha})
    state = begun(method)
    rng = np.random.default_rng(0)
    for step in range(20):
        values = rng.choice(
            [1e308, -1e308, 5e-324, 0.0, 1.0, np.nan, np.inf, -np.inf], len(method.ask(state))
        )
        state = method.tell(state, Evaluations(values * (np.nan if step == 7 else 1.0)))
        for found in (asked(method, state), method.recommend(state), state.sample_size, state.anchor):
            assert np.isfinite(found).all()
        assert all(np.isfinite(value) or name == "alpha" for name, value in method.diagnostics(state).items())


@pytest.mark.parametrize("options", [{}, PLAIN, {"memory": "local"}], ids=str)
def test_failed_particles_have_no_weight(options: dict[str, Any]) -> None:
    method = CBO(**{**options, "alpha": 1.0, "explorers": 0.0})
    state = begun(method)
    x, values = asked(method, state), np.full(20, np.nan)
    values[[3, 8]] = 1.0, 2.0
    expected = weights.consensus_point(x[[3, 8]], values[[3, 8]], 1.0)
    told = method.tell(state, Evaluations(values))
    np.testing.assert_allclose(told.anchor[0], expected, rtol=0, atol=1e-14)
    assert method.tell(state, Evaluations(np.full(20, np.nan))).anchor.tobytes() == state.anchor.tobytes()


# Counting.


@pytest.mark.parametrize(
    ("options", "per_step"),
    [
        ({}, [20]),
        ({"batch_size": 7}, [7]),
        ({"batch_size": 20}, [20]),
        ({"correction": "heaviside"}, [20, 1]),
        ({"correction": "smooth", "batch_size": 6, "memory": "local"}, [6, 1]),
    ],
    ids=str,
)
def test_evaluations_are_counted_exactly(options: dict[str, Any], per_step: list[int]) -> None:
    method = CBO(**options)
    for budget, swarms in ((None, 1), (45, 1), (45, 3)):
        state, count = begun(method, swarms=swarms, budget=budget), 0
        for wanted in itertools.islice(itertools.cycle(per_step), 16):
            if method.finished(state):
                break
            expected = wanted if budget is None else min(wanted, budget - count)
            assert len(method.ask(state)) == expected * swarms
            state = run(method, state, bowl, 1)
            count += expected
            assert state.nfev == count
        assert budget is None or count == budget
        assert budget is None or "budget of 45" in str(method.finished(state))


def test_batches_walk_through_all_particles() -> None:
    method = CBO(**PLAIN, num_particles=20, batch_size=6)
    state = begun(method, swarms=2)
    for _ in range(3):
        seen: list[Matrix] = []
        for _ in range(3):
            rows = choices.batches(state.frame.keys, state.moves, 20, 6)
            offsets = np.stack([state.members.offsets[m, rows[m]] for m in range(2)])
            np.testing.assert_array_equal(
                asked(method, state), (state.anchor[:, None] + offsets).reshape(12, 5)
            )
            seen.append(rows)
            state = run(method, state, bowl, 1)
        for rows in np.concatenate(seen, 1):
            assert len(set(rows.tolist())) == 18


def test_particles_outside_the_batch_stay_where_they_are() -> None:
    method = CBO(**PLAIN, alpha=1.0, batch_size=6, batch_moves="batch")
    state = begun(method)
    before = state.anchor[0] + state.members.offsets[0]
    batch = choices.batches(state.frame.keys, 0, 20, 6)[0]
    state = run(method, state, bowl, 1)
    moved = abs(state.anchor[0] + state.members.offsets[0] - before).max(1) > 1e-9
    assert sorted(np.flatnonzero(moved).tolist()) == batch.tolist()


# Memory and elitism.


@pytest.mark.parametrize("memory", ["greedy", "local"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 8, "correction": "smooth"}], ids=str)
def test_memories_never_get_worse(memory: str, options: dict[str, Any]) -> None:
    method = CBO(memory=memory, **options)
    state = begun(method, swarms=2)
    for _ in range(40):
        after = run(method, state, rastrigin, 1)
        assert (after.members.remembered <= state.members.remembered).all()
        state = after
    for m in range(2):
        known = np.isfinite(state.members.remembered[m])
        points = state.anchor[m] + state.members.memory[m][known]
        np.testing.assert_allclose(rastrigin(points), state.members.remembered[m][known], rtol=0, atol=1e-9)
        assert state.best_value[m] <= state.members.remembered[m].min()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", [{}, PLAIN, {"correction": "heaviside", "memory": "none"}], ids=str)
def test_what_is_recommended_was_evaluated(dtype: str, options: dict[str, Any]) -> None:
    method = CBO(**{**options, "elitist": True})
    assert method.recommends_evaluated
    bounds = Bounds(np.full(3, -0.1), np.full(3, 0.6))
    for box in (None, bounds):
        state = method.init(np.zeros(3, dtype), key=Key(0), bounds=box)
        seen, values = [], []
        for _ in range(30):
            x = asked(method, state)
            seen += [row.tobytes() for row in x]
            values += bowl(x.astype(np.float64)).tolist()
            state = method.tell(state, Evaluations(bowl(x.astype(np.float64))))
        assert method.recommend(state).tobytes() == seen[int(np.argmin(values))]


def test_without_elitism_the_consensus_point_is_recommended() -> None:
    method = CBO(**PLAIN, alpha=3.0)
    assert not method.recommends_evaluated
    state = run(method, begun(method), bowl, 5)
    assert method.recommend(state).tobytes() == state.anchor[0].tobytes()


def test_known_points_come_first_and_are_evaluated_again() -> None:
    known = Known(np.array([[5.0] * 5, [6.0] * 5, [7.0] * 5]), np.array([2.0, 1.0, 3.0]))
    for method in (CBO(), CBO(**PLAIN)):
        state = begun(method, known=known)
        assert asked(method, state)[:4, 0].tolist() == [6.0, 5.0, 7.0, 0.0]
        assert state.best_value[0] == math.inf


# Schedules, restarts and the end.


def test_collapsed_swarms_say_so_and_go_on_with_restarts() -> None:
    for method in (CBO(tolx=1e-6), CBO(**PLAIN, tolx=1e-6)):
        state = begun(method)
        while not (reason := method.finished(state)):
            state = run(method, state, bowl, 10)
            assert state.step < 3000
        assert reason.startswith("tolx: particles are within 1e-06 of the scale")
        assert np.ptp(state.members.points[0, :4], 0).max() <= 1e-6
    assert replace(method, tolx=0.0).finished(state) is None
    assert replace(method, restart=1e-9).finished(state) is None


def test_a_swarm_that_stands_still_is_shaken() -> None:
    method = CBO(**PLAIN, sigma=2.0, alpha=math.inf, restart=1e-5, patience=3, num_particles=400)
    state = begun(method, 4, scale=2.0)
    assert not (run(method, state, bowl, 2).still >= 3).any()
    flat = replace(
        state, members=replace(state.members, offsets=state.members.offsets * 0), anchor=state.anchor + 0.7
    )
    still = run(method, flat, bowl, 2)
    assert still.still.tolist() == [2]
    assert not still.members.offsets.any()
    shaken = run(method, still, bowl, 1)
    assert shaken.still.tolist() == [0]
    # sigma sqrt(dt) scale, a normal number for each coordinate
    assert shaken.members.offsets.std() == pytest.approx(2.0 * 0.1 * 2.0, rel=0.1)


def test_swarms_that_are_not_shaken_keep_their_bytes() -> None:
    method = CBO(**PLAIN, sigma=2.0, restart=1e-5)
    state = begun(method, 4, swarms=2)
    offsets = state.members.offsets.copy()
    offsets[:, :2] = -0.0
    members = replace(state.members, offsets=offsets)
    for frozen in (0, 1):
        shift = np.ones((2, 4))
        shift[frozen] = 0.0
        _, told = method.order(replace(state, shift=shift * 0), np.empty(0))
        told = replace(told, restart=shift[:, 0] == 0)
        _, calm = method.order(replace(state, shift=shift * 0), np.empty(0))
        calm = replace(calm, restart=np.zeros(2, bool))
        found = method.move(state.frame, members, told).offsets
        plain = method.move(state.frame, members, calm).offsets
        assert found[1 - frozen].tobytes() == plain[1 - frozen].tobytes()
        assert found[frozen].tobytes() != plain[frozen].tobytes()


def test_order_decides_where_a_consensus_is_of_few() -> None:
    method = CBO(**PLAIN, sigma=3.0, alpha=1.0)
    state = begun(method, swarms=2)
    assert not method.ask(state).decisive
    state = run(method, state, bowl, 1)
    for sizes, decisive in (([9.0, 3.9], True), ([4.0, 20.0], False), ([0.0, 9.0], True)):
        told = replace(state, sample_size=np.array(sizes))
        assert method.ask(told).decisive is decisive
        for options in ({"alpha": math.inf}, {"elitist": True}, {"memory": "greedy"}):
            assert replace(method, **options).ask(told).decisive


def test_alpha_multiplies() -> None:
    method = CBO(**PLAIN, alpha=30.0, alpha_schedule="multiply", alpha_rate=2.0, max_alpha=100.0)
    state, found = begun(method), []
    for _ in range(4):
        state = run(method, state, bowl, 1)
        found.append(method.diagnostics(state)["alpha"])
    assert found == [30.0, 60.0, 100.0, 100.0]


def test_cooling_doubles_alpha_and_weakens_the_noise() -> None:
    method = CBO(**PLAIN, alpha=50.0, alpha_schedule="cooling", epoch=2, max_alpha=150.0)
    state, alphas, factors = begun(method), [], []
    for _ in range(7):
        taken, _ = method.take(state, state.members, bowl(asked(method, state))[None])
        hot = method.heat(state)
        _, told = method.order(method.agree(hot, method.weigh(hot, taken)), np.empty(0))
        alphas.append(float(hot.alpha[0]))
        factors.append(told.cooling)
        state = run(method, state, bowl, 1)
    assert alphas == [50.0, 50.0, 100.0, 100.0, 150.0, 150.0, 150.0]
    assert factors == [1 / math.log2(2 + epoch) for epoch in (0, 0, 1, 1, 2, 2, 3)]


def test_the_sample_size_follows_its_schedule() -> None:
    method = CBO(
        **PLAIN, sigma=3.0, num_particles=100, alpha_schedule="effective-sample-size", sample_share=0.3
    )
    for fun in (bowl, lambda x: 1e-6 * bowl(x)):
        state = run(method, begun(method), fun, 20)
        assert state.sample_size[0] == pytest.approx(30.0, abs=0.1)
        assert method.diagnostics(state)["effective_sample_size"] == state.sample_size[0]


def test_the_sample_size_counts_the_best_point_where_it_takes_part() -> None:
    method = CBO(
        **{**PLAIN, "elitist": True}, sigma=3.0, num_particles=99, alpha_schedule="effective-sample-size"
    )
    state = begun(method, x0=2.2, swarms=3)
    for _ in range(100):
        state = run(method, state, rastrigin, 1)
        assert state.sample_size == pytest.approx(50.0, abs=0.01)


@pytest.mark.parametrize("options", [{}, {**PLAIN, "batch_size": 40}, PLAIN], ids=str)
def test_narrow_swarms_lose_particles(options: dict[str, Any]) -> None:
    method = CBO(**options, num_particles=60, reduction=0.3, epoch=5)
    state, nfev = begun(method), 0
    counts = []
    for _ in range(30):
        expected = method.batch_size or state.count
        assert len(method.ask(state)) == expected
        nfev += expected
        counts.append(state.count)
        state = run(method, state, bowl, 1)
    assert state.nfev == nfev
    assert len(set(counts[:5])) == 1
    assert all(0.7 * before <= after <= before for before, after in itertools.pairwise(counts))
    assert state.count < 60 if method.batch_size is None else state.count >= 40
    assert state.members.offsets.shape[1] == state.count == method.diagnostics(state)["particles"]


@pytest.mark.parametrize("memory", ["greedy", "local"])
def test_who_remembers_the_best_point_stays(memory: str) -> None:
    method = CBO(num_particles=100, reduction=0.5, epoch=10, memory=memory)
    state, reductions = begun(method, 20, 2.2), 0
    for _ in range(150):
        before = state.count
        state = run(method, state, rastrigin, 1)
        reductions += state.count < before
        best = state.members.remembered[0].argmin()
        assert state.members.remembered[0, best] == state.best_value[0]
        there = state.anchor[0] + state.members.memory[0, best]
        assert there == pytest.approx(state.best[0], abs=1e-12)
    assert reductions >= 2


def test_diagnostics() -> None:
    method = CBO()
    state = run(method, begun(method), bowl, 1)
    found = method.diagnostics(state)
    # In the first step whatever has a value is accepted.
    assert found["explorers_accepted"] == round(20 * method.explorers)
    rows = state.members.memory[0]
    assert found["spread"] == pytest.approx(math.sqrt((rows**2).mean()))
    assert set(CBO(**PLAIN).diagnostics(state)) == {"alpha", "effective_sample_size", "spread"}


# What swarms do in the end; the rates over many runs are in the benchmarks.


def test_rastrigin_with_explorers() -> None:
    assert successes(CBO(start="uniform"), rastrigin, 10, 20, 6000, 1.37) >= 0.9


@pytest.mark.parametrize("shift", [1.37, -0.63])
def test_rastrigin_by_noise_alone(shift: float) -> None:
    greedy = CBO(start="uniform", explorers=0.0, num_particles=30)
    assert successes(greedy, rastrigin, 8, 20, 20_000, shift) >= 0.8
    assert successes(TextbookCBO(start="uniform", num_particles=40), rastrigin, 6, 20, 30_000, shift) >= 0.7


def test_textbook_on_ackley() -> None:
    method = TextbookCBO(num_particles=60, sigma=7.0, alpha=1e5, alpha_rate=1.0, start="uniform")
    assert successes(method, ackley, 20, 8, 60 * 500, 1.37) >= 0.9


def test_textbook_is_the_plain_method() -> None:
    method = TextbookCBO(elitist=False)
    expected = CBO(**PLAIN, num_particles=16, sigma=11.4, alpha=30.0, alpha_schedule="multiply")
    assert method == expected
    assert TextbookCBO(alpha=math.inf, alpha_rate=1.0).alpha_schedule == "constant"


@pytest.mark.parametrize("precision", ["double", "single"])
def test_no_origin_bias(precision: str) -> None:
    """Coordinates rounded onto the consensus point would stay there; only whole particles may be on it."""
    for minimum in (0.0, 2.0):
        method = CBO(**PLAIN, sigma=7.0, precision=precision, tolx=0.0)
        state = run(method, begun(method, 8, 1.0), lambda x, at=minimum: ((x - at) ** 2).sum(1), 250)
        assert abs(state.anchor - minimum).max() < 0.3
        offsets = state.members.offsets[0]
        zeros = (offsets == 0).sum(1)
        assert set(zeros.tolist()) <= {0, 8}
        assert np.median(abs(offsets)) < 1e-3
