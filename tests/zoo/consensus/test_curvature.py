"""Consensus along the axes of curvature: what is measured, when the axes turn, and what that is good for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.consensus.curvature import CurvatureCBO, Stencil, are_axes, hessian, stencil_size
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations, Known

Matrix = np.ndarray[Any, Any]
DOUBLE = Like("numpy", "float64")


def rotation(dim: int, seed: int = 3) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def rastrigin(x: Matrix) -> Matrix:
    return (x * x - 10 * np.cos(2 * np.pi * x) + 10).sum(1)


def told(method: CurvatureCBO, state: Any, fun: Any) -> Any:
    candidates = method.ask(state)
    return method.tell(state, Evaluations(fun(to_numpy(candidates.rows(0, len(candidates))))))


def run(method: CurvatureCBO, state: Any, fun: Any, nfev: int) -> Any:
    while state.nfev < nfev and not method.finished(state):
        state = told(method, state, fun)
    return state


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_stencil_gives_the_second_derivatives_of_a_quadratic(dim: int) -> None:
    rng = np.random.default_rng(dim)
    matrix = rng.standard_normal((dim, dim))
    matrix = matrix + matrix.T
    stencil = Stencil(DOUBLE, rng.standard_normal(dim), rng.uniform(0.1, 0.2, dim))
    assert len(stencil) == stencil_size(dim)
    x = stencil.rows(0, len(stencil))
    assert len(np.unique(x, axis=0)) == len(x)
    values = np.einsum("ki,ij,kj->k", x, matrix, x) / 2 + x.sum(1) + 3
    assert np.allclose(hessian(values, stencil.steps), matrix, atol=1e-11)


@pytest.mark.parametrize("like", [DOUBLE, Like("torch", "float32")], ids=str)
def test_rows_of_the_stencil_are_the_same_in_any_slice(like: Like) -> None:
    stencil = Stencil(like, np.arange(4.0), np.full(4, 0.125))
    whole = to_numpy(stencil.rows(0, len(stencil)))
    for start in range(len(stencil)):
        for stop in range(start, len(stencil) + 1):
            assert (to_numpy(stencil.rows(start, stop)) == whole[start:stop]).all()


def test_what_needs_a_failed_evaluation_counts_as_no_curvature() -> None:
    stencil = Stencil(DOUBLE, np.zeros(3), np.full(3, 0.1))
    x = stencil.rows(0, len(stencil))
    values = (x[:, 0] + 2 * x[:, 1] + 3 * x[:, 2]) ** 2
    whole = hessian(values, stencil.steps)
    values[2] = np.nan  # one step along the second axis
    part = hessian(values, stencil.steps)
    lost = np.zeros((3, 3), bool)
    lost[1] = lost[:, 1] = True
    assert (part[lost] == 0).all()
    assert (part[~lost] == whole[~lost]).all()
    assert (hessian(np.full(len(x), np.nan), stencil.steps) == 0).all()


def test_axes_are_kept_where_they_do_not_interact() -> None:
    turn = rotation(4)
    curvature = turn @ np.diag([1.0, 1.0, 100.0, -3.0]) @ turn.T
    assert are_axes(turn, curvature)
    assert not are_axes(np.eye(4), curvature)
    assert are_axes(np.eye(4), np.zeros((4, 4)))
    assert are_axes(np.eye(2), np.array([[4.0, 0.19], [0.19, 1.0]]))  # a correlation of .095
    assert not are_axes(np.eye(2), np.array([[4.0, 0.21], [0.21, 1.0]]))
    assert are_axes(np.eye(2), 1e300 * np.diag([1.0, 2.0]))


def test_one_measurement_undoes_a_rotation() -> None:
    turn, method = rotation(6), CurvatureCBO()
    state = method.init(np.zeros(6), key=Key(0), scale=2.0)
    assert len(method.ask(state)) == stencil_size(6)
    state = told(method, state, lambda x: rastrigin((x - 1.37) @ turn))
    assert (state.measurements, state.turns, state.nfev) == (1, 1, stencil_size(6))
    # Each learnt axis is one of the function's, up to its sign.
    assert np.allclose(abs(turn.T @ state.axes).max(0), 1, atol=1e-3)
    assert np.allclose(state.axes.T @ state.axes, np.eye(6), atol=1e-12)


def test_where_axes_are_right_they_stay_and_are_measured_half_as_often() -> None:
    method = CurvatureCBO(interval=2.0, num_particles=10)
    state = method.init(np.zeros(3), key=Key(1), scale=2.0)
    size, at = stencil_size(3), []
    while len(at) < 4:
        before = state
        state = told(method, state, lambda x: rastrigin(x - 1.37))
        if state.measurements > before.measurements:
            at.append(state.nfev)
    assert state.turns == 0
    assert (state.axes == np.eye(3)).all()
    # After each measurement the swarm's steps fill 2, 4 and 8 times what one takes.
    swarm = np.diff(at) - size
    assert (swarm >= np.array([2, 4, 8]) * size).all()
    assert (swarm < np.array([2, 4, 8]) * size + 10).all()


def test_turning_leaves_particles_and_the_best_where_they_are() -> None:
    turn, method = rotation(4), CurvatureCBO(interval=1.0)

    def valley(x: Matrix) -> Matrix:
        z = x @ turn
        return (100 * (z[:, 1:] - z[:, :-1] ** 2) ** 2 + (1 - z[:, :-1]) ** 2).sum(1)

    state = method.init(np.full(4, 0.3), key=Key(2))
    turned = 0
    for _ in range(60):
        before, state = state, told(method, state, valley)
        if state.turns > before.turns and before.measurements:
            turned += 1
            old, new = before.swarm, state.swarm
            for one, other in (
                (old.anchor, new.anchor),
                (old.best, new.best),
                (old.anchor + old.members.memory[0], new.anchor + new.members.memory[0]),
                (old.anchor + old.members.offsets[0], new.anchor + new.members.offsets[0]),
            ):
                assert np.allclose(one @ before.axes.T, other @ state.axes.T, atol=1e-12)
    assert turned > 3


def test_rotated_and_plain_functions_are_solved_alike() -> None:
    turn, found = rotation(5), {}
    for name, fun in (("plain", rastrigin), ("turned", lambda z: rastrigin(z @ turn))):
        hits = 0
        for seed in range(3):
            method = CurvatureCBO()
            state = method.init(np.zeros(5), key=Key(seed), scale=2.0, budget=4000)
            state = run(method, state, lambda x, fun=fun: fun(x - 1.37), 4000)
            hits += abs(method.recommend(state) - 1.37).max() < 0.25
        found[name] = hits
    assert found == {"plain": 3, "turned": 3}


@pytest.mark.parametrize("x0", [0.0, 3.9])
def test_particles_are_where_their_images_in_the_box_are(x0: float) -> None:
    turn, bounds = rotation(3), Bounds([-4.0] * 3, [4.0] * 3)
    method = CurvatureCBO()
    state = method.init(np.full(3, x0), key=Key(5), bounds=bounds, scale=3.0)
    for _ in range(60):
        candidates = method.ask(state)
        x = candidates.rows(0, len(candidates))
        assert bounds.contains(x)
        before, state = state, method.tell(state, Evaluations((((x - 1) @ turn * [1, 30, 900]) ** 2).sum(1)))
        if not len(before.centre):
            kept = state.swarm.anchor + state.swarm.members.memory[0]
            there = kept @ state.axes.T * 3.0 + x0
            assert (abs(there) <= 4 + 1e-9).all()


def test_no_measurement_is_made_that_the_budget_has_no_room_for() -> None:
    method = CurvatureCBO()
    for budget, measured in ((4 * stencil_size(10), True), (4 * stencil_size(10) - 1, False)):
        state = method.init(np.zeros(10), key=Key(0), budget=budget)
        assert (len(state.centre) > 0) == measured
    state = method.init(np.zeros(10), key=Key(0), budget=50)
    state = run(method, state, rastrigin, 50)
    assert (state.nfev, state.measurements) == (50, 0)
    assert method.finished(state) == "the budget of 50 evaluations is used up"


def test_one_measurement_alone() -> None:
    method = CurvatureCBO(interval=math.inf)
    state = method.init(np.zeros(3), key=Key(0))
    state = run(method, state, lambda x: rastrigin(x - 1.37), 3000)
    assert state.measurements == 1


def test_measurements_that_fail_change_nothing() -> None:
    method = CurvatureCBO()
    state = method.init(np.ones(3), key=Key(0))
    state = method.tell(state, Evaluations(np.full(stencil_size(3), np.nan)))
    assert (state.measurements, state.turns) == (1, 0)
    assert (method.recommend(state) == 1).all()
    state = run(method, replace(state, due=0.0), lambda x: np.full(len(x), np.nan), 200)
    assert state.measurements == 1  # there is nothing to measure about


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_values_of_any_size_have_axes(size: float) -> None:
    turn, method = rotation(3), CurvatureCBO()
    state = method.init(np.zeros(3), key=Key(0), scale=2.0)
    state = told(method, state, lambda x: size * rastrigin((x - 1.37) @ turn))
    assert np.allclose(abs(turn.T @ state.axes).max(0), 1, atol=1e-3)


def test_measured_points_count_as_found_and_known_ones_begin_the_swarm() -> None:
    method = CurvatureCBO(num_particles=4)
    state = method.init(np.zeros(2), key=Key(0), scale=2.0, known=Known([[1.0, 2.0], [3.0, 4.0]], [5.0, 4.0]))
    candidates = method.ask(state)
    points = candidates.rows(0, len(candidates))
    state = method.tell(state, Evaluations(((points - points[3]) ** 2).sum(1)))
    assert (method.recommend(state) == points[3]).all()
    first = method.ask(state).rows(0, 4)
    assert np.allclose(first[:2], [[3.0, 4.0], [1.0, 2.0]], atol=1e-12)


def test_diagnostics_count_measurements_and_turns() -> None:
    method = CurvatureCBO()
    state = method.init(np.zeros(3), key=Key(0), scale=2.0)
    state = told(method, state, lambda x: rastrigin((x - 1.37) @ rotation(3)))
    found = method.diagnostics(state)
    assert (found["measurements"], found["turns"]) == (1, 1)
    assert {"alpha", "effective_sample_size", "spread"} <= set(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0.0}, "`interval` must be above 0, got 0.0"),
        ({"smoothing": 0.0}, "`smoothing` must be"),
        ({"num_particles": 0}, "`num_particles` must be"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurvatureCBO(**options)


def test_a_rotation_is_undone_where_the_box_is_not_quite_a_cube() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((10, 10)))

    def fun(x: Any) -> Any:
        y = (x - 0.3) @ turn
        return (y**2 + 10 * (1 - np.cos(2 * np.pi * y))).sum(1)

    bounds = [(-5, 5)] * 5 + [(-4, 4)] * 5
    for seed in range(3):
        found = zoo.minimize(
            fun, bounds=bounds, method="cbo-curvature", budget=5000, rng=seed, vectorized=True
        )
        assert found.fun < 0.5


def test_units_that_differ_are_kept() -> None:
    for scale, kept in (([1.0, 9.0], [3.0, 3.0]), ([1.0, 1e3], [1.0, 1e3])):
        state = CurvatureCBO().init(np.zeros(2), key=Key(0), scale=scale)
        np.testing.assert_allclose(state.scale, kept)
