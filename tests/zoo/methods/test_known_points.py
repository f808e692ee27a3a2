"""CMA-ES that begins with points evaluated before: formulas, units, walls, and what it saves."""

import math
import statistics

import numpy as np
import pytest

import zoo
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Known
from zoo.methods.cma_es import CMAES
from zoo.methods.restarts import BIPOPCMAES, IPOPCMAES
from zoo.methods.sep_cma_es import SepCMAES
from zoo.problems import ellipsoid, rosenbrock, sphere

BOTH = pytest.mark.parametrize("kind", [CMAES, SepCMAES])
ALL = pytest.mark.parametrize("kind", [CMAES, SepCMAES, BIPOPCMAES, IPOPCMAES])


def scattered(function, n, dim, key=0):
    points = 4 * Key(key).fold("known").uniform(0, n, dim) - 2
    return Known(points, function(points))


def covariance(state):
    if hasattr(state, "variances"):
        return np.diag(state.variances)
    upper = np.triu(state.covariance)
    return upper + np.triu(upper, 1).T


def evaluations(method, function, x0, target, **setting):
    """Return how many evaluations it takes to get below the target."""
    state = method.init(x0, **setting)
    while state.nfev < 20_000:
        values = function(method.ask(state).array)
        state = method.tell(state, Evaluations(values))
        if values.min() < target:
            return state.nfev
        if method.finished(state):
            break
    return math.inf


@BOTH
@pytest.mark.parametrize(("n", "count", "floor"), [(120, 12, 0.1), (57, 5, 0.2), (20, 2, 0.5)])
def test_first_distribution_is_that_of_the_best_tenth(kind, n, count, floor):
    sigma, scale = 0.5, np.array([1.0, 2.0, 0.25, 1.0])
    known = scattered(ellipsoid, n, 4)
    state = kind(sigma=sigma).init(np.full(4, 9.0), key=Key(0), scale=scale, known=known)
    best = known.points[np.argsort(known.values)[:count]]
    np.testing.assert_allclose(state.mean, best.mean(0), rtol=1e-12)
    y = (best - best.mean(0)) / (sigma * scale)
    expected = floor**2 * np.eye(4) + y.T @ y / count
    if kind is SepCMAES:
        expected = np.diag(expected.diagonal())
    np.testing.assert_allclose(
        (state.sigma / sigma) ** 2 * covariance(state), expected, rtol=1e-9, atol=1e-12
    )
    assert np.linalg.det(covariance(state)) == pytest.approx(1)
    assert 1 / 4 < state.condition / np.linalg.cond(expected) < 16  # an estimate


def test_factor_is_that_of_the_covariance():
    state = CMAES().init(np.zeros(5), key=Key(0), known=scattered(rosenbrock, 200, 5))
    np.testing.assert_allclose(state.factor.T @ state.factor, covariance(state), rtol=1e-9, atol=1e-12)
    assert (np.tril(state.factor, -1) == 0).all()


@ALL
def test_few_points_say_no_more_than_where_to_begin(kind):
    known = scattered(sphere, 9, 3)
    with_points = kind().init(known.best, key=Key(0), known=known, scale=0.5, budget=70)
    assert digest(with_points) == digest(kind().init(known.best, key=Key(0), scale=0.5, budget=70))


@BOTH
def test_points_that_failed_do_not_count(kind):
    known = scattered(sphere, 100, 3)
    points = np.concatenate([known.points, np.full((50, 3), 7.0)])
    more = Known(points, np.concatenate([known.values, np.full(50, np.nan)]))
    first, second = (kind().init(np.zeros(3), key=Key(0), known=told) for told in (known, more))
    assert digest(first) == digest(second)


@BOTH
def test_equal_points_leave_only_the_floor(kind):
    known = Known(np.full((300, 3), 0.3), np.ones(300))
    state = kind().init(np.zeros(3), key=Key(0), known=known)
    assert (state.mean == 0.3).all()
    np.testing.assert_allclose(state.sigma**2 * covariance(state), 0.01 * np.eye(3), rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("function", [sphere, ellipsoid, rosenbrock])
def test_saves_evaluations_on_a_related_problem(function):
    """The points are those of an earlier search for a minimum that lay a little elsewhere."""
    dim = 6
    shift = 0.1 * Key(5).normal(0, 1, dim)[0]
    taken = {"known": [], "best point only": []}
    for key in range(5):
        source, points = CMAES(), []
        state = source.init(np.ones(dim), key=Key(50 + key))
        while len(points) < 1000:
            points.extend(source.ask(state).array)
            state = source.tell(state, Evaluations(function(source.ask(state).array - 1)))
        known = Known(points, function(np.array(points) - 1))
        for name, told in (("known", known), ("best point only", None)):
            nfev = evaluations(
                CMAES(), lambda x: function(x - 1 - shift), known.best, 1e-3, key=Key(key), known=told
            )
            taken[name].append(nfev)
    known, best_point = (statistics.median(nfev) for nfev in taken.values())
    assert known < 0.9 * best_point


@BOTH
def test_saves_evaluations_where_points_are_random(kind):
    taken = [
        [evaluations(kind(), sphere, known.best, 1e-4, key=Key(key), known=told) for told in (known, None)]
        for key in range(7)
        for known in [scattered(lambda x: sphere(x - 0.1), 300, 6, key)]
    ]
    assert statistics.median(told for told, _ in taken) < statistics.median(alone for _, alone in taken)


@ALL
def test_translation(kind):
    shift, known = np.array([64.0, -32.0, 8.0]), scattered(ellipsoid, 150, 3)
    method = kind()
    here = method.init(np.zeros(3), key=Key(0), known=known)
    there = method.init(shift, key=Key(0), known=Known(known.points + shift, known.values))
    for _ in range(30):
        rows = [to.rows(0, len(to)) for to in (method.ask(here), method.ask(there))]
        np.testing.assert_allclose(rows[1] - shift, rows[0], rtol=0, atol=1e-9)
        here, there = (
            method.tell(state, Evaluations(ellipsoid(x)))
            for state, x in ((here, rows[0]), (there, rows[1] - shift))
        )


@BOTH
def test_scale_is_a_change_of_units(kind):
    """Powers of two change no digit, so the search in other units is the same to the bit."""
    method, units, known = kind(), np.array([4.0, 0.125, 1.0]), scattered(ellipsoid, 150, 3)
    plain = method.init(np.zeros(3), key=Key(0), known=known)
    scaled = method.init(
        np.zeros(3), key=Key(0), known=Known(known.points * units, known.values), scale=units
    )
    for _ in range(20):
        x = method.ask(plain).array
        assert (method.ask(scaled).array / units).tobytes() == x.tobytes()
        plain, scaled = (method.tell(state, Evaluations(ellipsoid(x))) for state in (plain, scaled))


@ALL
def test_points_at_walls(kind):
    box = Bounds(np.array([0.0, -1.0, 0.25]), np.array([1.0, np.inf, 0.25]))
    corner = np.array([0.0, -1.0, 0.25])
    one = kind().init(corner, key=Key(0), bounds=box, known=Known([corner], [1.0]))
    np.testing.assert_allclose(kind().recommend(one), corner, atol=1e-15)
    points = box.map(4 * Key(0).normal(0, 200, 3), "clip")
    method = kind()
    state = method.init(corner, key=Key(0), bounds=box, scale=0.3, known=Known(points, sphere(points)))
    assert box.contains(method.recommend(state))
    for _ in range(30):
        x = method.ask(state).array
        assert box.contains(x)
        state = method.tell(state, Evaluations(sphere(x)))
    assert sphere(method.recommend(state)[:2]) < 1e-3


@ALL
def test_points_of_another_number_of_variables(kind):
    with pytest.raises(ValueError, match="`known` must hold points of 3 variables, got 2"):
        kind().init(np.zeros(3), key=Key(0), known=Known([[1.0, 2.0]], [0.0]))


def test_restarts_use_them_for_the_first_run_only():
    known = scattered(sphere, 200, 3)
    method = BIPOPCMAES()
    state = method.init(np.zeros(3), key=Key(0), known=known)
    size = state.schedule.population_size
    plain = CMAES(population_size=size, tolfacupx=1e3).init(np.zeros(3), key=Key(0), known=known)
    assert digest(state.inner) == digest(plain)
    while state.schedule.run == 0:
        state = method.tell(state, Evaluations(np.zeros(len(method.ask(state)))))
    assert state.inner.sigma == 1
    assert (state.inner.factor == np.eye(3)).all()


@pytest.mark.parametrize("name", ["cma", "sep-cma", "bipop-cma", "ipop-cma"])
def test_minimize_takes_them(name):
    known = scattered(sphere, 300, 4)
    found = zoo.minimize(
        lambda x: float(sphere(x)), method=name, known=(known.points, known.values), budget=400, rng=0
    )
    assert found.fun < 1e-4 * known.values.min()
