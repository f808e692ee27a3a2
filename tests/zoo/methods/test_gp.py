"""Bayesian optimization: the model against scikit-learn's, expected improvement, regions, known points."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from zoo.core.bounds import Bounds
from zoo.core.device import to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, digest
from zoo.core.types import Evaluations, Known
from zoo.methods.gp import (
    _GROWTH,
    GP,
    GPState,
    Model,
    _fit,
    _prior,
    _region,
    _scikit,
    _selected,
    _space,
    log_h,
    shaped,
)
from zoo.problems import sphere

START = np.array([0.5, -1.0, 2.0])
BOX = Bounds(np.array([-5.0, -2.0, 0.0]), np.array([5.0, 2.0, 3.0]))
INF = np.inf
CHEAP = {"num_candidates": 100, "num_refined": 1}


def told(method: GP, state: GPState, fun: Any = sphere) -> GPState:
    asked = method.ask(state)
    return method.tell(state, Evaluations(to_numpy(fun(asked.rows(0, len(asked))))))


def data(count: int = 15, dim: int = 3) -> tuple[Any, Any]:
    points = Key(1).uniform(0, count, dim)
    return points, shaped(np.sin(4 * points).sum(1) + 0.1 * Key(2).normal(0, count, 1)[:, 0])


def model(dim: int = 3) -> Model:
    points, values = data(dim=dim)
    return _fit(points, values, np.log([2.0, *np.linspace(0.3, 0.9, dim), 1e-3]), False)[1]


@pytest.mark.parametrize("dim", [1, 3])
def test_moments_are_those_of_scikit_learn(dim: int) -> None:
    kernels = _scikit().kernels

    points, values = data(dim=dim)
    kernel = kernels.ConstantKernel(2.0) * kernels.Matern(np.linspace(0.3, 0.9, dim), nu=2.5)
    reference = (
        _scikit().GaussianProcessRegressor(kernel, alpha=1e-3 + 1e-10, optimizer=None).fit(points, values)
    )
    elsewhere = Key(3).uniform(0, 20, dim)
    for x in (elsewhere, points):
        mean, deviation = model(dim).moments(x)
        expected = reference.predict(x, return_std=True)
        assert_allclose(mean, expected[0], atol=1e-10)
        assert_allclose(deviation, expected[1], rtol=1e-6)


def test_hyper_parameters_are_the_most_probable_ones() -> None:
    """No step along a coordinate makes likelihood times prior larger."""
    kernels = _scikit().kernels

    points, values = data(25, 2)
    theta, _ = _fit(points, values, _prior(2)[0], True)
    kernel = kernels.ConstantKernel() * kernels.Matern(np.ones(2), nu=2.5) + kernels.WhiteKernel()
    reference = _scikit().GaussianProcessRegressor(kernel, alpha=1e-10, optimizer=None).fit(points, values)
    mean, deviation = _prior(2)

    def worth(theta: Any) -> float:
        return float(reference.log_marginal_likelihood(theta) - (((theta - mean) / deviation) ** 2).sum() / 2)

    best = worth(theta)
    for index in range(4):
        for step in (-0.2, 0.2):
            assert worth(theta + step * np.eye(4)[index]) < best
    again, _ = _fit(points, values, theta, False)
    assert_array_equal(again, theta)


def test_the_gradient_is_that_of_the_loss() -> None:
    fitted = model()
    for x in (*Key(4).uniform(0, 5, 3), fitted.points[0] * fitted.lengths + 1e-3):
        value, slope = fitted.loss(x, -0.8)
        assert_allclose(value, -fitted.log_gain(x[None], -0.8)[0], rtol=1e-8)
        numerical = [
            (fitted.loss(x + step, -0.8)[0] - fitted.loss(x - step, -0.8)[0]) / 2e-6
            for step in 1e-6 * np.eye(3)
        ]
        assert_allclose(slope, numerical, rtol=1e-4, atol=1e-4)


def test_log_h_has_no_jumps_and_is_right_in_the_middle() -> None:
    from scipy.stats import norm

    u = np.linspace(-6, 6, 500)
    assert_allclose(np.exp(log_h(u)), norm.pdf(u) + u * norm.cdf(u), rtol=1e-7)
    for seam in (-1.0, -1e5):
        below, above = log_h(np.array([seam * (1 + 1e-12), seam * (1 - 1e-12)]))
        assert above >= below
        assert_allclose(above, below, rtol=1e-9)
    far = np.array([-1e2, -1e3, -1e4, -1e6])
    # phi(u) (1 / u^2 - 3 / u^4 + ...)
    expected = -(far**2) / 2 - math.log(2 * math.pi) / 2 - 2 * np.log(-far) + np.log1p(-3 / far**2)
    assert_allclose(log_h(far), expected, rtol=1e-9)


def test_believing_is_measuring_the_mean() -> None:
    points, values = data()
    theta = np.log([2.0, 0.3, 0.6, 0.9, 1e-3])
    before = _fit(points, values, theta, False)[1]
    x = np.array([0.2, 0.9, 0.4])
    mean = before.moments(x[None])[0]
    after = _fit(np.vstack([points, x]), np.append(values, mean), theta, False)[1]
    believed, elsewhere = before.believing(x), Key(5).uniform(0, 9, 3)
    for ours, expected in zip(believed.moments(elsewhere), after.moments(elsewhere), strict=True):
        assert_allclose(ours, expected, rtol=1e-7, atol=1e-10)
    assert believed.moments(x[None])[1] < 0.05 < before.moments(x[None])[1]


def test_what_is_fitted_keeps_the_order_and_draws_in_the_worse_half() -> None:
    values = np.array([3.0, -1.0, 0.5, np.nan, 1e30, 2.0, 0.5, 7.0, -INF])
    bent = shaped(values)
    valid = np.isfinite(values)
    order = np.argsort(values[valid], kind="stable")
    steps = np.diff(bent[valid][order])
    assert (steps >= 0).all()
    assert (steps == 0).sum() == 1
    assert bent[3] == bent[8] == bent[4] == bent.max() < 3
    assert abs(bent[valid].mean()) < 1e-12
    assert abs(bent[valid].std() - 1) < 1e-12
    # Up to the median it is a straight line.
    line = shaped(np.array([0.0, 1.0, 3.0, 50.0, 60.0]))
    assert_allclose((line[2] - line[1]) / (line[1] - line[0]), 2.0)
    assert_allclose(line, shaped(np.array([0.0, 1.0, 3.0, 500.0, 1e9])))
    assert_array_equal(shaped(2.0**20 * values), bent)
    assert (shaped(np.full(4, 2.5)) == 0).all()
    assert (shaped(np.zeros(4)) == 0).all()
    assert np.isfinite(shaped(np.array([1e308, -1e308, 0.0]))).all()


def test_begins_with_a_latin_hypercube_and_x0() -> None:
    method = GP()
    state = method.init(START, key=Key(0), bounds=BOX)
    rows = method.ask(state).rows(0, 8)
    assert len(method.ask(state)) == 8
    assert_array_equal(rows[0], START)
    cells = np.floor(8 * (rows[1:] - BOX.lower) / (BOX.upper - BOX.lower)).astype(int)
    for column in cells.T:
        assert len(set(column)) == 7
        assert 0 <= column.min() <= column.max() <= 7
    for budget, expected in ((1, 1), (3, 2), (10, 5), (100, 8)):
        assert len(method.ask(method.init(START, key=Key(0), bounds=BOX, budget=budget))) == expected
    assert len(GP(initial_size=5).ask(GP(initial_size=5).init(START, key=Key(0)))) == 5


def test_known_points_stand_in_for_the_design() -> None:
    points = np.array([[1.0, 1.0, 1.0], [9.0, 0.0, 0.0], [0.0, 0.0, 1.0], [2.0, 2.0, 2.0]])
    known = Known(points, [3.0, -50.0, 1.0, np.nan])
    method = GP(**CHEAP)
    state = method.init(START, key=Key(0), bounds=BOX, known=known)
    assert_array_equal(state.values.array, [3.0, 1.0, np.nan])  # one is outside
    assert len(method.ask(state)) == 5
    assert_array_equal(method.ask(state).rows(0, 1)[0], START)
    assert_array_equal(method.recommend(state), points[2])
    at_start = method.init(START, key=Key(0), bounds=BOX, known=Known([START, START / 2], [1.0, 2.0]))
    assert not (method.ask(at_start).rows(0, 6) == START).all(1).any()
    many = Known(BOX.map(Key(7).normal(0, 20, 3)), Key(8).uniform(0, 20, 1)[:, 0])
    ready = method.init(START, key=Key(0), bounds=BOX, known=many)
    assert (len(method.ask(ready)), ready.fitted, ready.nfev) == (1, 20, 0)
    assert told(method, ready).nfev == 1


def test_failures_count_as_the_worst_and_are_left_alone() -> None:
    method = GP(**CHEAP)
    state = method.init(START, key=Key(0), bounds=BOX)

    def fails(x: Any) -> Any:
        return np.where(x[:, 0] > 0, np.nan, sphere(x - [-1.0, 0.0, 1.0]))

    for _ in range(25):
        state = told(method, state, fails)
    points = state.points.array.reshape(-1, 3)
    assert_array_equal(points[np.isnan(state.values.array), 0] > 0, True)
    assert (points[-15:, 0] > 0).sum() <= 5, "the model has learnt where it fails"
    assert np.nanmin(state.values.array) < 0.01


def test_nothing_valid_is_searched_blindly() -> None:
    method = GP(batch_size=3)
    state = method.init(START, key=Key(0), bounds=BOX)
    for _ in range(4):
        state = method.tell(state, Evaluations(np.full(len(method.ask(state)), np.nan)))
        assert BOX.contains(method.ask(state).rows(0, 3))
        assert_array_equal(method.recommend(state), START)
    assert state.fitted == 0
    assert len(np.unique(state.points.array.reshape(-1, 3), axis=0)) == 8 + 3 * 3


def test_a_batch_is_spread() -> None:
    method = GP(batch_size=5)
    state = method.init(START, key=Key(0), bounds=BOX)
    for _ in range(3):
        state = told(method, state)
    rows = method.ask(state).rows(0, 5)
    apart = np.abs(rows[:, None] - rows) / (BOX.upper - BOX.lower)
    assert (apart.max(2)[~np.eye(5, dtype=bool)] > 1e-3).all()
    one = GP().tell(replace(state, trial=state.trial[:0]), Evaluations(np.empty(0)))
    assert len(GP().ask(one)) == 1


def test_the_region_follows_the_best_point_and_grows_at_its_edge() -> None:
    method = GP(**CHEAP)
    box = Bounds(np.array([-INF, -2.0, 0.0]), np.array([INF, 2.0, INF]))
    scale = np.array([10.0, 1.0, 0.5])
    first = method.init(START, key=Key(0), bounds=box, scale=scale)
    space = _space(first.frame)
    low, high = (space.origin + space.unit * side for side in _region(first, space, START))
    assert_allclose(low, [0.5 - 20, -2, 1])
    assert_allclose(high, [0.5 + 20, 2, 3])
    state = told(method, first)
    best = method.recommend(state)
    for share, wider in ((0.8, 1), (0.95, 2)):
        edge = best + np.array([share * 20, 0, 0])
        after = method.tell(replace(state, trial=edge[None]), Evaluations([-1.0]))
        assert after.reach == wider * state.reach
        low, high = (space.origin + space.unit * side for side in _region(after, space, edge))
        assert_allclose([low[0], high[0]], [edge[0] - wider * 20, edge[0] + wider * 20])
        assert_allclose([low[1], high[1], low[2]], [-2, 2, max(0, edge[2] - wider)], atol=1e-12)
    # In a coordinate with two walls nothing grows, nor for a point that is no better.
    for point, value in ((best * [1, 0, 1] + [0, 2, 0], -1.0), (best + np.array([19, 0, 0]), 1e9)):
        same = method.tell(replace(state, trial=np.array([point])), Evaluations([value]))
        assert same.reach == state.reach


def test_fixed_coordinates_are_no_coordinates() -> None:
    method, box = GP(**CHEAP), Bounds(np.array([-1.0, 0.25]), np.array([1.0, 0.25]))
    state = method.init(np.array([0.5, 0.25]), key=Key(0), bounds=box)
    for _ in range(4):
        assert (method.ask(state).rows(0, 6)[:, 1] == 0.25).all()
        state = told(method, state)
    assert len(state.theta) == 3
    nothing = Bounds(np.array([0.5, 0.25]), np.array([0.5, 0.25]))
    state = told(method, method.init(np.array([0.5, 0.25]), key=Key(0), bounds=nothing))
    assert_array_equal(method.ask(state).rows(0, 1), [[0.5, 0.25]])


def test_hyper_parameters_are_found_anew_when_there_are_more_points() -> None:
    method = GP(initial_size=30, **CHEAP)
    state = told(method, method.init(START, key=Key(0), bounds=BOX))
    assert state.fitted == 30
    for count in range(31, 35):
        theta, fitted = state.theta, state.fitted
        state = told(method, state)
        if count >= _GROWTH * fitted:
            assert state.fitted == count
        else:
            assert_array_equal(state.theta, theta)
    assert state.fitted == 34


def test_many_points_are_halved_into_the_best_and_the_latest() -> None:
    values = np.array([5.0, 0.0, 4.0, np.nan, 3.0, 1.0, 2.0, 6.0, 7.0, 8.0])
    assert_array_equal(np.sort(_selected(values, 6)), [1, 5, 6, 7, 8, 9])
    assert_array_equal(np.sort(_selected(values, 10)), np.arange(10))
    method = GP(max_points=10, **CHEAP)
    state = told(method, method.init(START, key=Key(0), bounds=BOX))
    for _ in range(8):
        state = told(method, state)
    # What is neither good nor late changes nothing.
    used = _selected(state.values.array, 10)
    spare = next(i for i in range(16) if i not in used and i != int(state.values.array.argmin()))
    moved = state.points.array.copy()
    moved[3 * spare : 3 * spare + 3] += 0.01
    other = replace(state, points=Log(moved))
    x = told(method, state).trial
    assert_array_equal(told(method, other).trial, x)


def test_finds_the_minimum_of_a_bent_valley() -> None:
    def branin(x: Any) -> Any:
        a, b = x[..., 0], x[..., 1]
        bowl = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
        return bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10 - 0.397887

    method = GP(batch_size=2, num_candidates=300, num_refined=2)
    box = Bounds(np.array([-5.0, 0.0]), np.array([10.0, 15.0]))
    state = method.init(np.array([9.0, 14.0]), key=Key(0), bounds=box, budget=40)
    while method.finished(state) is None:
        state = told(method, state, branin)
    assert state.nfev == 40
    assert method.finished(state) == "the budget of 40 evaluations is used up"
    assert branin(method.recommend(state)) < 0.01


def test_the_last_step_is_cut_and_nothing_is_suggested_after_it() -> None:
    method = GP(batch_size=4, **CHEAP)
    state = told(method, method.init(START, key=Key(0), bounds=BOX, budget=11))
    assert state.nfev == 5
    state = told(method, state)
    assert len(method.ask(state)) == 2
    state = told(method, state)
    assert (state.nfev, len(method.ask(state))) == (11, 0)


def test_a_state_says_all() -> None:
    method = GP(**CHEAP)
    first = method.init(START, key=Key(0), bounds=BOX)
    told_once, told_again = told(method, first), told(method, first)
    assert digest(told_once) == digest(told_again)
    found = method.diagnostics(told_once)
    lengths = np.exp(told_once.theta[1:-1])
    assert_allclose((found["shortest_length"], found["longest_length"]), (lengths.min(), lengths.max()))


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(ImportError, match=r"pip install 'gradfree\[gp\]'"):
        GP()


def test_wrong_arguments() -> None:
    for options, words in (
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"initial_size": 1}, "`initial_size` must be at least 2, got 1"),
        ({"max_points": 5}, "`max_points` must be at least 10, got 5"),
    ):
        with pytest.raises(ValueError, match=words):
            GP(**options)
    method = GP()
    with pytest.raises(ValueError, match="`evaluations` must hold the 8 values asked for, got 2"):
        method.tell(method.init(START, key=Key(0)), Evaluations([1.0, 2.0]))
