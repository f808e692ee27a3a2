"""Consensus under constraints, by penalties that adapt themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.consensus import penalty
from zoo.consensus.penalty import PenaltyCBO, PenaltyState
from zoo.core.bounds import Bounds
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations
from zoo.problems.constrained import G24

BOX = Bounds(np.zeros(3), np.full(3, 4.0))


def plane(x: Any) -> tuple[Any, Any]:
    """Return squared distances from 0, and what is to be at most 0: the sum is to be 3 at least."""
    return (x**2).sum(-1), (3 - x.sum(-1))[:, None]


def run(method: PenaltyCBO, fun: Any, x0: Any, steps: int, keys: int = 5, **more: Any) -> PenaltyState:
    state = method.init_many(np.asarray(x0, float), keys=[Key(seed) for seed in range(keys)], **more)
    for _ in range(steps):
        candidates = method.ask(state)
        values, constraints = fun(candidates.rows(0, len(candidates)))
        state = method.tell(state, Evaluations(values, extras={"constraints": constraints}))
    return state


def _step(method: PenaltyCBO, state: PenaltyState) -> PenaltyState:
    candidates = method.ask(state)
    values, constraints = plane(candidates.rows(0, len(candidates)))
    return method.tell(state, Evaluations(values, extras={"constraints": constraints}))


def test_solutions_on_the_boundary_are_found() -> None:
    method = PenaltyCBO()
    state = run(method, plane, np.full(3, 2.0), 120, bounds=BOX)
    found = method.recommend_many(state)
    assert (abs(found - 1).max(1) < 0.02).all()
    assert (plane(found)[1] < 1e-6).all()
    # The penalty is exact from the multiplier of the solution on, which is 2.
    assert state.penalties is not None
    assert (state.penalties.multipliers >= 2).all()


def test_a_step_is_what_the_formulas_say(monkeypatch: pytest.MonkeyPatch) -> None:
    xi = np.random.default_rng(1).standard_normal((1, 6, 3))
    monkeypatch.setattr(penalty.noise, "normal", lambda *_: xi.copy())
    scale = np.array([1.0, 2.0, 4.0])
    for law in ("isotropic", "anisotropic"):
        method = PenaltyCBO(
            num_particles=6, drift=0.8, dt=0.25, sigma=0.6, alpha=2.0, noise=law, penalty=0.5,
            penalty_growth=3.0, tolerance_growth=7.0,
        )  # fmt: skip
        state = method.init(np.full(3, 1.0), key=Key(0), scale=scale)
        x = state.swarm.points[0]
        values, constraints = plane(x)
        constraints = np.concatenate([constraints, np.full((6, 1), -1.0)], 1)
        values[2] = np.nan
        after = method.tell(state, Evaluations(values, extras={"constraints": constraints}))
        valid = np.isfinite(values)
        sizes = np.array([constraints[valid, 0].std(), 1.0])
        beta = 0.5 * values[valid].std() / sizes
        violations = np.maximum(constraints, 0)
        energies = np.where(valid, np.nan_to_num(values) + violations @ beta, np.inf)
        weights = np.exp(-2.0 * (energies - energies.min()))
        c = weights @ x / weights.sum()
        v = (x - c) / scale
        size = np.linalg.norm(v, axis=1)[:, None] if law == "isotropic" else v
        np.testing.assert_allclose(
            after.swarm.points[0], c + scale * (0.8 * v + 0.3 * size * xi[0]), atol=1e-12
        )
        np.testing.assert_allclose(method.recommend(after), c, rtol=1e-12)
        mean = weights @ violations / weights.sum()
        kept = mean <= sizes
        assert kept.tolist()[1]
        assert after.penalties is not None
        np.testing.assert_allclose(after.penalties.multipliers[0], np.where(kept, 1, 3) * beta, rtol=1e-12)
        np.testing.assert_allclose(after.penalties.theta[0], np.where(kept, 7, 1), rtol=1e-12)


def test_penalties_and_tolerances_follow_the_rule() -> None:
    method = PenaltyCBO(num_particles=8, penalty=1e-3, penalty_growth=1.3, tolerance_growth=1.2)
    state = run(method, plane, np.full(3, 2.0), 1, bounds=BOX)
    grown = 0
    for _ in range(60):
        before, points = state.penalties, state.swarm.points.reshape(-1, 3)
        values, constraints = plane(points)
        state = method.tell(state, Evaluations(values, extras={"constraints": constraints}))
        after = state.penalties
        assert before is not None
        assert after is not None
        violations = np.maximum(constraints, 0).reshape(5, 8, 1)
        energies = values.reshape(5, 8) + violations[..., 0] * before.multipliers
        best = violations[np.arange(5), energies.argmin(1)]
        is_kept = best <= before.sizes / np.sqrt(before.theta)
        np.testing.assert_array_equal(after.theta, np.where(is_kept, 1.2, 1.0) * before.theta)
        np.testing.assert_array_equal(after.multipliers, np.where(is_kept, 1.0, 1.3) * before.multipliers)
        grown += int((~is_kept).sum())
    assert grown > 50


@pytest.mark.parametrize("large", [1e4, 1e10, 1e300])
def test_a_few_large_violations_at_the_start_switch_no_constraint_off(large: float) -> None:
    calls = [0]

    def fun(x: Any) -> tuple[Any, Any]:
        values, constraints = plane(x)
        if not calls[0]:
            constraints[3::40] = large
        calls[0] += 1
        return values, constraints

    method = PenaltyCBO()
    found = method.recommend_many(run(method, fun, np.full(3, 2.0), 120))
    assert (abs(plane(found)[1]) < 0.01).all()


def test_the_first_penalty_is_of_the_size_of_the_values() -> None:
    def scaled(x: Any) -> tuple[Any, Any]:
        values, constraints = plane(x)
        return 2.0**20 * values, np.concatenate([constraints, 2.0**-30 * constraints], 1)

    plain = run(PenaltyCBO(), lambda x: (plane(x)[0], np.repeat(plane(x)[1], 2, 1)), np.full(3, 2.0), 20)
    other = run(PenaltyCBO(), scaled, np.full(3, 2.0), 20)
    assert plain.swarm.points.tobytes() == other.swarm.points.tobytes()


def test_variables_may_have_any_units() -> None:
    units = np.array([1.0, 2.0**20, 2.0**-20])
    plain = run(PenaltyCBO(), plane, np.full(3, 2.0), 20)
    other = run(PenaltyCBO(), lambda x: plane(x / units), 2 * units, 20, scale=units)
    np.testing.assert_allclose(other.swarm.points, units * plain.swarm.points, rtol=1e-9)


def test_constraints_that_are_kept_change_nothing() -> None:
    method = PenaltyCBO(num_particles=9)
    state, other = (method.init(np.ones(4), key=Key(0)) for _ in range(2))
    for _ in range(10):
        rows = method.ask(state).rows(0, 9)
        values, kept = (rows**2).sum(1), np.full((9, 2), -1.0)
        state = method.tell(state, Evaluations(values, extras={"constraints": kept}))
        other = method.tell(other, Evaluations(values))
        assert state.swarm.points.tobytes() == other.swarm.points.tobytes()
    assert "penalties" in method.diagnostics(state)
    assert "penalties" not in method.diagnostics(other)


def test_failures_teach_nothing() -> None:
    method = PenaltyCBO(num_particles=6)
    state = method.init(np.full(3, 2.0), key=Key(0), bounds=BOX)
    for extras in ({}, {"constraints": np.full((6, 1), np.nan)}):
        state = method.tell(state, Evaluations(np.full(6, np.nan), extras=extras))
        assert state.penalties is None
        assert (method.recommend(state) == 2).all()
    state = _step(method, state)
    known = state.penalties
    assert known is not None
    state = method.tell(state, Evaluations(np.full(6, np.nan)))
    assert state.penalties is known
    # A constraint that is no number makes an evaluation a failed one.
    constraints = np.full((6, 1), -1.0)
    constraints[0] = np.nan
    values = np.array([-1e9, 5.0, np.nan, 7.0, 8.0, 9.0])
    after = method.tell(state, Evaluations(values, extras={"constraints": constraints}))
    assert not (method.recommend(after) == state.swarm.points[0, 0]).all()
    assert (method.recommend(after) == state.swarm.points[0, 1]).all()


@pytest.mark.parametrize("magnitude", [1e-200, 1e200, 1e306])
def test_values_of_any_size(magnitude: float) -> None:
    def fun(x: Any) -> tuple[Any, Any]:
        values, constraints = plane(x)
        return magnitude * values, magnitude * constraints

    state = run(PenaltyCBO(num_particles=6), fun, np.full(3, 2.0), 20, bounds=BOX)
    assert np.isfinite(PenaltyCBO().recommend_many(state)).all()
    assert state.penalties is not None
    assert np.isfinite(state.penalties.multipliers).all()


def test_swarms_are_the_same_together_and_alone() -> None:
    method = PenaltyCBO(num_particles=7)
    together = run(method, plane, np.full(3, 2.0), 15, keys=3, bounds=BOX)
    for seed in range(3):
        alone = method.init(np.full(3, 2.0), key=Key(seed), bounds=BOX)
        for _ in range(15):
            alone = _step(method, alone)
        assert alone.swarm.points.tobytes() == together.swarm.points[seed].tobytes()
        assert alone.penalties is not None
        assert together.penalties is not None
        assert alone.penalties.multipliers.tobytes() == together.penalties.multipliers[seed].tobytes()


def test_minimize_hands_it_the_constraints() -> None:
    result = zoo.minimize(
        G24.fun, bounds=G24.bounds, constraints=G24.constraints(), method="cbo-penalty", budget=2000, rng=1
    )
    assert result.maxcv == 0
    assert result.fun - G24.value < 1e-3
    assert result.nfev <= 2000


def test_equalities_are_kept_to_within_their_tolerance() -> None:
    result = zoo.minimize(
        lambda x: (x**2).sum(), bounds=[(-2, 2)] * 2, method="cbo-penalty", budget=1200, rng=0,
        constraints=zoo.Constraint(lambda x: x[0] - x[1] ** 2 - 0.5, 0, 0, tol=1e-3),
    )  # fmt: skip
    assert result.maxcv == 0
    assert result.fun == pytest.approx(0.25, abs=5e-3)


def test_resumes_from_a_directory(tmp_path: Any) -> None:
    arguments: dict[str, Any] = {
        "bounds": [(0.0, 4.0)] * 3, "constraints": lambda x: x.sum() - 3, "method": "cbo-penalty", "rng": 0,
    }  # fmt: skip
    whole = zoo.minimize(lambda x: (x**2).sum(), **arguments, budget=200)
    assert whole.maxcv == 0
    kept = zoo.minimize(lambda x: (x**2).sum(), **arguments, budget=200, out=tmp_path / "run")
    assert kept.x.tobytes() == whole.x.tobytes()


def test_options_change_what_is_done() -> None:
    base = PenaltyCBO(num_particles=6)
    others: dict[str, Any] = {
        "penalty": 1e-3, "penalty_growth": 2.0, "tolerance_growth": 2.0, "num_particles": 7, "drift": 0.5,
        "sigma": 0.3, "dt": 0.2, "alpha": 1.0, "noise": "anisotropic",
    }  # fmt: skip

    def after(method: PenaltyCBO) -> str:
        return digest(run(method, plane, np.full(3, 2.0), 12, keys=1, bounds=BOX))

    changed = [replace(base, **{name: value}) for name, value in others.items()]
    assert len({after(method) for method in (base, *changed)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": 0.0}, "`penalty` must be a finite number above 0"),
        ({"penalty_growth": 0.9}, "`penalty_growth` must be finite and at least 1"),
        ({"tolerance_growth": math.inf}, "`tolerance_growth` must be finite and at least 1"),
        ({"sigma": -1.0}, "`sigma` must be finite and at least 0"),
        ({"dt": 2.0}, "`drift` \\* dt must be below 2"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PenaltyCBO(**options)


def test_constraints_must_not_disappear() -> None:
    method = PenaltyCBO(num_particles=6)
    state = run(method, plane, np.full(3, 2.0), 1, keys=1)
    with pytest.raises(ValueError, match='`evaluations` must hold extras\\["constraints"\\]'):
        method.tell(state, Evaluations(np.zeros(6)))
    with pytest.raises(ValueError, match="`evaluations` must hold the 6 values"):
        method.tell(state, Evaluations(np.zeros(5), extras={"constraints": np.zeros((5, 1))}))


def test_where_nothing_is_allowed_minimize_says_so() -> None:
    result = zoo.minimize(
        lambda x: (x**2).sum(), bounds=[(0, 4)] * 2, constraints=lambda x: -1 - x[0], method="cbo-penalty",
        budget=400, rng=0,
    )  # fmt: skip
    assert not result.success
    assert result.x[0] == 0
    assert result.maxcv == 1


def test_points_to_begin_with_and_noise() -> None:
    def noisy(x: Any) -> float:
        return float((x**2).sum() + 0.01 * np.random.standard_normal())

    arguments: dict[str, Any] = {"bounds": [(0.0, 4.0)] * 3, "constraints": lambda x: x.sum() - 3, "rng": 0}
    points = np.array([[1.0, 1.0, 1.2], [2.0, 2.0, 2.0]])
    exact = zoo.minimize(
        lambda x: (x**2).sum(), **arguments, method="cbo-penalty", budget=800, known=(points, None)
    )
    found = zoo.minimize(noisy, **arguments, method="cbo-penalty", budget=1500, noise=True)
    for result, within in ((exact, 0.1), (found, 0.3)):
        assert result.maxcv == 0
        assert abs(result.fun - 3) < within


def test_noise_with_which_swarms_fly_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fly apart\. Take a smaller `sigma` or `dt`\.$"):
        PenaltyCBO(sigma=2.5, noise="anisotropic")
    with pytest.warns(ZooWarning, match="contract slowly"):
        PenaltyCBO(sigma=2.0, noise="anisotropic")
    PenaltyCBO(sigma=2.2).init(np.zeros(1), key=Key(0))
    with pytest.raises(ValueError, match="in 20 variables makes the swarm fly apart"):
        PenaltyCBO(sigma=2.2).init(np.zeros(20), key=Key(0))
