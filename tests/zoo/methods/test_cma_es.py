"""Full and separable CMA-ES: invariances, failures, stopping, resuming, and that they find minima."""

import math

import numpy as np
import pytest
import torch

from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.methods import cma_es, sep_cma_es
from zoo.methods.cma_base import rates
from zoo.methods.cma_es import CMAES
from zoo.methods.sep_cma_es import SepCMAES
from zoo.problems import discus, ellipsoid, rosenbrock, sphere

BOTH = pytest.mark.parametrize("kind", [CMAES, SepCMAES])


def evaluate(method, state, function):
    """Return the state after a step, and the step's values."""
    candidates = method.ask(state)
    values = np.asarray(function(candidates.rows(0, len(candidates))), np.float64)
    return method.tell(state, Evaluations(values)), values


def search(method, function, x0, *, steps=10_000, target=-math.inf, key=0, **setting):
    """Run until a value is below `target`, the method has finished, or `steps` are done."""
    state = method.init(x0, key=Key(key), **setting)
    best = math.inf
    for _ in range(steps):
        state, values = evaluate(method, state, function)
        best = min(best, np.nanmin(values, initial=math.inf))
        if best < target or method.finished(state):
            break
    return state, best


def covariance(state):
    upper = np.triu(state.covariance)
    return upper + np.triu(upper, 1).T


# What the constants are.


@pytest.mark.parametrize(
    ("dim", "population_size"), [(1, None), (2, 2), (3, 3), (10, None), (40, 200), (1000, None)]
)
@pytest.mark.parametrize("separable", [False, True])
def test_rates_keep_the_covariance_positive(dim, population_size, separable):
    r = rates(dim, population_size, True, separable)
    assert r.weights[: r.mu].sum() == pytest.approx(1)
    assert (np.diff(r.weights) <= 0).all()
    assert (r.weights[r.mu :] <= 0).all()
    assert 0 < r.rank_one + r.rank_mu <= 1
    # Whatever the worse half does, with squares of length dim, this much of the covariance is left.
    assert r.decay + r.rank_mu * dim * r.weights[r.mu :].sum() >= -1e-12


def test_rates_are_those_of_the_cma_package():
    cma = pytest.importorskip("cma")
    for dim in (5, 10, 20, 100):  # below 5 the package has a smaller rate of the path of sigma
        theirs = cma.CMAEvolutionStrategy(dim * [0.0], 1, {"verbose": -10, "seed": np.nan})
        ours = rates(dim, None, True, False)
        assert ours.population_size == theirs.popsize
        np.testing.assert_allclose(ours.weights, theirs.sp.weights, rtol=1e-9)
        np.testing.assert_allclose((ours.rank_one, ours.rank_mu), (theirs.sp.c1, theirs.sp.cmu), rtol=1e-12)
        theirs.adapt_sigma.initialize(theirs)
        np.testing.assert_allclose(
            (ours.path_sigma, ours.damping), (theirs.adapt_sigma.cs, theirs.adapt_sigma.damps), rtol=1e-12
        )


# That it searches.


@pytest.mark.parametrize("function", [sphere, ellipsoid, discus, rosenbrock])
def test_full_method_solves(function):
    # pycma needs about 1300, 4100, 3700 and 5600 evaluations.
    state, best = search(CMAES(), function, np.full(10, 2.0), target=1e-9)
    assert best < 1e-9
    assert state.nfev < 7000


def test_covariance_becomes_the_inverse_hessian():
    state, _ = search(CMAES(tolfun=0, tolfunhist=0), ellipsoid, np.ones(6), target=1e-20)
    root = 10.0 ** np.linspace(0, 3, 6)  # of the Hessian
    assert np.linalg.cond(root[:, None] * covariance(state) * root) < 30
    assert 1e4 < state.condition < 1e9


def test_separable_method_solves_a_long_ellipsoid_quickly():
    state, best = search(SepCMAES(), ellipsoid, np.full(100, 2.0), target=1e-9)
    assert best < 1e-9
    assert state.nfev < 40_000  # the full method needs seven times as many


def test_separable_method_takes_many_variables():
    state, best = search(SepCMAES(), sphere, np.ones(100_000), steps=2)
    assert state.nfev == 2 * 38
    assert best < 2e5
    assert np.isfinite(state.mean).all()


def test_lazy_factorization_searches_as_well():
    # Period 1 is the default at this dimension; four steps are what it takes from 500 on.
    taken = {}
    for period in (1, 4):
        state, best = search(CMAES(update_period=period), sphere, np.ones(200), target=1e-3)
        assert best < 1e-3
        taken[period] = state.nfev
    assert 0.9 < taken[4] / taken[1] < 1.1


def test_lazy_factorization_learns_the_same_covariance():
    """Pending updates folded in at once are the updates done one by one."""
    key, dim = Key(3), 5
    cov = np.eye(dim)
    pending = []
    for step in range(3):
        plus, minus = (key.fold(name, step).normal(0, 4, dim) for name in ("plus", "minus"))
        minus *= 0.1
        pending.append((0.9 - 0.1 * step, plus, minus))
        cov = pending[-1][0] * cov + plus.T @ plus - minus.T @ minus
    folded = cma_es._fold(np.eye(dim), tuple(pending))
    np.testing.assert_allclose(np.triu(folded), np.triu(cov), rtol=1e-12)


def test_sample_is_that_of_the_factor():
    state, _ = search(CMAES(), ellipsoid, np.ones(5), steps=50)
    np.testing.assert_allclose(state.factor.T @ state.factor, covariance(state), rtol=1e-9, atol=1e-12)
    z, y = cma_es._sample(state, rates(5, None, True, False))
    np.testing.assert_allclose(y, z @ state.factor, rtol=1e-12)


def test_default_period_grows_with_the_dimension():
    periods = [rates(dim, None, True, False).period for dim in (10, 100, 500, 1000)]
    assert periods == [1, 1, 4, 7]


# Invariances.


@BOTH
def test_only_the_order_of_values_counts(kind):
    method = kind()
    plain = method.init(np.ones(5), key=Key(0))
    for _ in range(30):
        plain, _ = evaluate(method, plain, sphere)
    for change in (lambda v: 3 * v + 7, np.log, np.arctan):
        changed = method.init(np.ones(5), key=Key(0))
        for _ in range(30):
            changed, _ = evaluate(method, changed, lambda x, change=change: change(sphere(x)))
        for name in ("mean", "path_c", "path_sigma"):
            assert getattr(changed, name).tobytes() == getattr(plain, name).tobytes()
        assert changed.sigma == plain.sigma


@BOTH
def test_translation(kind):
    method, shift = kind(), np.array([64.0, -32.0, 8.0])  # powers of two: the shift costs few digits
    here, there = method.init(np.ones(3), key=Key(0)), method.init(np.ones(3) + shift, key=Key(0))
    for _ in range(40):
        here, _ = evaluate(method, here, ellipsoid)
        there, _ = evaluate(method, there, lambda x: ellipsoid(x - shift))
    np.testing.assert_allclose(there.mean - shift, here.mean, atol=1e-10)
    assert there.sigma == pytest.approx(here.sigma, rel=1e-6)


@BOTH
def test_scale_is_a_change_of_units(kind):
    """Powers of two change no digit, so the search in other units is the same to the bit."""
    method, units = kind(), np.array([4.0, 0.125, 1.0])
    plain, scaled = (
        method.init(np.ones(3), key=Key(0)),
        method.init(np.ones(3) * units, key=Key(0), scale=units),
    )
    for _ in range(40):
        plain, _ = evaluate(method, plain, ellipsoid)
        scaled, _ = evaluate(method, scaled, lambda x: ellipsoid(x / units))
    assert (scaled.mean / units).tobytes() == plain.mean.tobytes()
    assert scaled.sigma == plain.sigma


@BOTH
def test_sigma_multiplies_scale(kind):
    one = kind(sigma=0.5).init(np.zeros(4), key=Key(0))
    other = kind().init(np.zeros(4), key=Key(0), scale=0.5)
    assert (kind(sigma=0.5).ask(one).array == kind().ask(other).array).all()
    assert kind(sigma=0.5).ask(one).array.std() == pytest.approx(0.5, rel=0.5)


# The contract.


@BOTH
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("dim", [1, 4])
def test_every_state_survives_a_checkpoint(kind, bounded, dim):
    options = {"update_period": 3} if kind is CMAES else {}
    method = kind(**options)
    box = Bounds(np.zeros(dim), np.ones(dim)) if bounded else None
    state = method.init(np.full(dim, 0.25), key=Key(1), bounds=box, scale=0.2)
    for step in range(12):
        asked = method.ask(state)
        values = sphere(asked.array)
        if step == 5:
            values[1:] = np.nan
        if step == 6:
            values[:] = np.nan
        cma_es.clear_cache()
        sep_cma_es.clear_cache()
        revived = thaw(*freeze(state))
        assert digest(revived) == digest(state)
        assert method.ask(revived).array.tobytes() == asked.array.tobytes()
        before = digest(state)
        told = method.tell(state, Evaluations(values))
        assert digest(state) == before
        assert digest(method.tell(revived, Evaluations(values))) == digest(told)
        assert method.diagnostics(revived) == method.diagnostics(state)
        assert method.finished(revived) == method.finished(state)
        state = told


@BOTH
def test_telling_one_state_twice(kind):
    method = kind()
    state = method.init(np.ones(3), key=Key(0))
    values = sphere(method.ask(state).array)
    first, second = method.tell(state, Evaluations(values)), method.tell(state, Evaluations(-values))
    assert digest(first) != digest(second)
    method.ask(second)
    assert digest(method.tell(state, Evaluations(values))) == digest(first)


@BOTH
def test_rows_do_not_depend_on_the_slice(kind):
    method = kind()
    candidates = method.ask(method.init(np.ones(3), key=Key(0)))
    whole = candidates.rows(0, len(candidates))
    parts = np.concatenate([candidates.rows(i, i + 1) for i in range(len(candidates))])
    assert parts.tobytes() == whole.tobytes()
    whole[:] = 0  # the caller's own
    assert candidates.rows(0, 1).any()


@BOTH
def test_recommendation_belongs_to_the_caller(kind):
    state = kind().init(np.ones(3), key=Key(0))
    kind().recommend(state)[:] = 7
    assert (kind().recommend(state) == 1).all()


@BOTH
def test_kind_of_array_follows_the_start(kind):
    method, box = kind(boundary="clip"), Bounds(np.zeros(3), np.full(3, 0.1))
    for start in (
        np.full(3, 0.05, np.float32),
        torch.full((3,), 0.05),
        torch.full((3,), 0.05, dtype=torch.float64),
    ):
        state = method.init(start, key=Key(0), bounds=box)
        for _ in range(5):
            x = method.ask(state).rows(0, 7)
            assert type(x) is type(start)
            assert x.dtype == start.dtype
            assert box.contains(x)
            state = method.tell(state, Evaluations(np.asarray(sphere(x - 1))))
        best = method.recommend(state)
        assert type(best) is type(start)
        assert best.dtype == start.dtype
        assert box.contains(best)


@BOTH
@pytest.mark.parametrize("boundary", ["smooth", "reflect", "clip"])
def test_minimum_on_the_boundary_is_found(kind, boundary):
    box = Bounds(np.array([0.5, -1.0, -np.inf]), np.array([3.0, 2.0, 4.0]))
    method = kind(boundary=boundary)
    state = method.init(np.array([0.5, 1.0, 4.0]), key=Key(2), bounds=box)
    for _ in range(120):
        candidates = method.ask(state)
        assert box.contains(candidates.array)
        state = method.tell(state, Evaluations(sphere(candidates.array - np.array([-2.0, 1.0, 1.0]))))
    np.testing.assert_allclose(method.recommend(state), [0.5, 1.0, 1.0], atol=1e-3)


def test_start_inside_the_box_is_the_first_recommendation():
    box = Bounds(np.zeros(4), np.ones(4))
    start = np.array([0.0, 0.01, 0.5, 1.0])
    np.testing.assert_allclose(
        CMAES().recommend(CMAES().init(start, key=Key(0), bounds=box)), start, atol=1e-15
    )


@BOTH
def test_last_step_is_cut_to_the_budget(kind):
    method = kind()
    state = method.init(np.ones(5), key=Key(0), budget=19)
    sizes = []
    while not method.finished(state):
        sizes.append(len(method.ask(state)))
        state, _ = evaluate(method, state, sphere)
    assert sizes == [8, 8, 3]
    assert state.nfev == 19
    assert len(method.ask(state)) == 0
    assert "budget" in method.finished(state)


@BOTH
def test_number_of_values_is_checked(kind):
    state = kind().init(np.ones(5), key=Key(0))
    with pytest.raises(ValueError, match=r"8 values asked for, got 7"):
        kind().tell(state, Evaluations(np.zeros(7)))


# Failures.


@BOTH
def test_failed_rows_rank_last_and_have_no_vote(kind):
    method = kind(population_size=8)
    state = method.init(np.ones(4), key=Key(0))
    values = np.arange(8.0)
    values[[2, 5, 7]] = np.nan
    told = method.tell(state, Evaluations(values))
    y = method.ask(state).array - state.mean
    w = rates(4, 8, True, kind is SepCMAES).weights
    np.testing.assert_allclose(told.mean - state.mean, w[:4] @ y[[0, 1, 3, 4]], rtol=1e-12)
    assert np.isfinite(freeze(told)[1]["state.history"]).all()


@BOTH
def test_search_survives_many_failures(kind):
    def half_space(x):
        return np.where(x[:, 0] > 1.5, np.nan, sphere(x))

    state, best = search(kind(), half_space, np.full(5, 1.4), target=1e-8)
    assert best < 1e-8
    assert state.step < 300


@BOTH
def test_steps_without_any_value(kind):
    method = kind()
    state = method.init(np.ones(3), key=Key(0))
    for _ in range(3):
        state, _ = evaluate(method, state, sphere)
    before = state
    for _ in range(5):
        state, _ = evaluate(method, state, lambda x: np.full(len(x), np.nan))
    assert state.mean.tobytes() == before.mean.tobytes()
    assert state.sigma == pytest.approx(0.9**5 * before.sigma)
    assert method.finished(state) is None
    for _ in range(5002):
        state, _ = evaluate(method, state, lambda x: np.full(len(x), np.nan))
    assert state.sigma > 0
    assert np.isfinite(method.ask(state).array).all()
    assert method.finished(state).startswith("tolx")


def test_indefinite_covariance_is_mended():
    broken = np.array(
        [[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    )  # upper triangle; eigenvalues -1, 1, 3
    mended, factor = cma_es._factorize(broken)
    full = np.triu(mended) + np.triu(mended, 1).T
    values = np.linalg.eigvalsh(full)
    np.testing.assert_allclose(values[1:], [1.0, 3.0], atol=1e-9)
    assert values[0] > -1e-9
    assert (np.tril(factor, -1) == 0).all()
    assert (factor.diagonal() > 0).all()
    assert factor.flags.c_contiguous
    np.testing.assert_allclose(factor.T @ factor, full, atol=1e-9)


def test_search_goes_on_from_a_broken_covariance():
    method = CMAES()
    state, _ = search(method, sphere, np.ones(3), steps=5)
    tree, arrays = freeze(state)
    arrays["state.covariance"] = np.diag([1.0, 1.0, -1.0])
    state = thaw(tree, arrays)
    for _ in range(150):
        state, values = evaluate(method, state, sphere)
    assert np.isfinite(state.factor).all()
    assert values.min() < 1e-6


# Stopping.


@BOTH
@pytest.mark.parametrize(
    ("word", "function", "options"),
    [
        ("flat", lambda x: np.zeros(len(x)), {}),
        ("tolfun:", sphere, {}),
        ("tolfunhist", lambda x: np.round(sphere(x), 6) + 1e3 * (x[:, 0] > 0.01), {"tolfun": 0}),
        ("tolx", sphere, {"tolfun": 0, "tolfunhist": 0}),
        ("tolfacupx", lambda x: x.sum(1), {}),
        ("noeffect", lambda x: sphere(x - 1e3), {"tolfun": 0, "tolfunhist": 0, "tolx": 0}),
    ],
)
def test_reasons_to_stop(kind, word, function, options):
    state, _ = search(kind(**options), function, np.full(3, 0.5), steps=3000)
    assert kind(**options).finished(state).startswith(word)


def test_stops_on_the_condition_number():
    state, _ = search(
        CMAES(tolfun=0, tolfunhist=0, tolx=0),
        lambda x: x[:, 0] ** 2 + 1e16 * x[:, 1] ** 2,
        np.ones(2),
        steps=3000,
    )
    assert CMAES().finished(state).startswith("conditioncov")


def test_condition_number_is_exact_near_the_limit_and_above_it_elsewhere():
    factor = np.linalg.qr(Key(0).normal(0, 30, 30))[1] * np.logspace(0, 3, 30)[:, None]
    true = np.linalg.cond(factor) ** 2
    assert cma_es._condition(factor, 1.0) == pytest.approx(true, rel=1e-6)
    assert true / 30 < cma_es._condition(factor, math.inf) < true * 30**2
    assert cma_es._condition(np.diag([1.0, 0.0]), 1e14) == math.inf


def test_stagnation():
    """Noise alone: values do not improve, and the other rules see no end."""
    method = CMAES(tolstagnation=60, tolx=0, tolfacupx=math.inf)

    def noise(x):
        return Key(int(abs(float(x.sum())) * 1e6) % 10**9).uniform(0, len(x), 1)[:, 0]

    state, _ = search(method, noise, np.ones(2), steps=3000)
    assert method.finished(state).startswith("stagnation")
    assert state.step < 2000


def test_short_dtypes_stop_when_their_digits_end():
    def offset(x):
        return sphere(x - 1000)

    state, _ = search(CMAES(tolfun=0, tolfunhist=0), offset, np.full(3, 999, np.float32), steps=2000)
    assert CMAES().finished(state).startswith("noeffectcoord")
    assert state.sigma > 1e-7


def test_zero_tolerances_never_stop():
    zero = dict.fromkeys(("tolx", "tolfun", "tolfunhist", "tolstagnation"), 0)
    never = CMAES(**zero, **dict.fromkeys(("tolfacupx", "tolupsigma", "tolconditioncov"), math.inf))
    state, _ = search(never, lambda x: np.round(sphere(x), 2), np.full(3, 5.0), steps=200)
    assert state.step == 200


# Bad input.


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"population_size": 1}, ValueError, "at least 2"),
        ({"population_size": 5.0}, TypeError, "must be an integer"),
        ({"sigma": 0}, ValueError, "above 0"),
        ({"boundary": "smoth"}, ValueError, "Did you mean 'smooth'"),
        ({"tolx": -1}, ValueError, "at least 0"),
        ({"tolupsigma": 1}, ValueError, "above 1"),
        ({"tolstagnation": -1}, ValueError, "at least 0"),
    ],
)
def test_bad_hyperparameters(kind, options, error, text):
    with pytest.raises(error, match=text):
        kind(**options)


def test_bad_start_scale_and_period():
    with pytest.raises(ValueError, match="update_period"):
        CMAES(update_period=0)
    with pytest.raises(ValueError, match="`x0` must have shape"):
        CMAES().init(np.ones((2, 2)), key=Key(0))
    for scale in (0, -1.0, np.nan, np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match="`scale` must be finite and above 0"):
            CMAES().init(np.ones(2), key=Key(0), scale=scale)
