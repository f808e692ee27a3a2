"""Scipy's methods behind our contract: whose search it is, and what is added to it."""

import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import scipy.optimize
import torch

import zoo
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations, Known
from zoo.methods import inversion
from zoo.methods.scipy import (
    BFGS,
    COBYQA,
    LBFGSB,
    DifferentialEvolution,
    Direct,
    DualAnnealing,
    NelderMead,
    Powell,
)
from zoo.problems import rastrigin, rosenbrock, sphere

X0 = np.array([-1.25, 1.0, 0.5])
WALLS = Bounds([-2.0, 0.25, -np.inf], [0.5, np.inf, 0.75])
LOCAL = (NelderMead(), Powell(), COBYQA(), LBFGSB(), BFGS())
ALL = (*LOCAL, DifferentialEvolution(popsize=3), DualAnnealing(), Direct())


def named(method):
    return type(method).__name__


def fun(x):
    """Rosenbrock's valley, in a form whose bytes do not depend on how many points there are."""
    return float(100 * ((x[1:] - x[:-1] ** 2) ** 2).sum() + ((1 - x[:-1]) ** 2).sum())


class Recorded:
    """A function that keeps the points it is called with."""

    def __init__(self, function=fun):
        self.function, self.points = function, []

    def __call__(self, x):
        self.points.append(np.array(x))
        return self.function(x)


class Run:
    """A method, its states, and the points it asked for."""

    def __init__(self, method, function=fun, x0=X0, *, seed=0, steps=10**6, **options):
        self.method, self.function, self.points, self.sizes = method, function, [], []
        self.state = method.init(x0, key=Key(seed), **options)
        for _ in range(steps):
            if method.finished(self.state):
                break
            self.step()

    def step(self):
        candidates = self.method.ask(self.state)
        rows = candidates.rows(0, len(candidates))
        self.points.extend(np.asarray(rows))
        self.sizes.append(len(rows))
        values = np.array([self.function(x) for x in rows], np.float64)
        self.state = self.method.tell(self.state, Evaluations(values))

    @property
    def reason(self):
        return self.method.finished(self.state)


def same(ours, theirs):
    return np.array(ours).tobytes() == np.array(theirs).tobytes()


def with_differences(function, walls=None):
    """Return a function with its gradient by forward differences, as scipy takes it."""

    def both(x):
        value, slopes = function(x), np.empty(len(x))
        for index in range(len(x)):
            ahead = x.copy()
            ahead[index] += 14 * 2.0**-26
            if walls is not None and ahead[index] > walls.upper[index]:
                ahead[index] = x[index] - 14 * 2.0**-26
            slopes[index] = (function(ahead) - value) / (ahead[index] - x[index])
        return value, slopes

    return both


ENDLESS = {"maxiter": 10**9, "maxfev": 10**9}
DIRECTLY = {
    "NelderMead": ("Nelder-Mead", {"initial_simplex": np.vstack([X0, X0 + np.eye(3)]), **ENDLESS}),
    "Powell": ("Powell", ENDLESS),
    "COBYQA": ("COBYQA", ENDLESS),
    "LBFGSB": ("L-BFGS-B", {}),
    "BFGS": ("BFGS", {}),
}


@pytest.mark.parametrize("method", LOCAL, ids=named)
@pytest.mark.parametrize("walls", [None, WALLS], ids=["free", "box"])
def test_it_is_the_search_of_scipy(method, walls):
    if walls is not None and isinstance(method, BFGS):
        pytest.skip("scipy's knows no bounds")
    name, options = DIRECTLY[named(method)]
    if walls is not None and isinstance(method, NelderMead):
        # X0 + 1 is beyond the last wall.
        options = options | {"initial_simplex": np.vstack([X0, X0 + np.diag([1.0, 1.0, -1.0])])}
    recorded = Recorded()
    differs = isinstance(method, (LBFGSB, BFGS))
    result = scipy.optimize.minimize(
        with_differences(recorded, walls) if differs else recorded,
        X0,
        method=name,
        jac=differs or None,
        bounds=None if walls is None else scipy.optimize.Bounds(walls.lower, walls.upper),
        options=options,
    )
    ours = Run(method, bounds=walls)
    assert same(ours.points, recorded.points)
    assert ours.reason == result.message
    assert ours.state.value <= result.fun


def test_differential_evolution_is_scipys():
    box, recorded = [(-2.0, 2.0)] * 3, Recorded()
    result = scipy.optimize.differential_evolution(
        lambda z: np.array([recorded(x) for x in z.T]),
        box,
        x0=X0,
        rng=Key(0).fold("attempt", 0).generator(),
        popsize=5,
        tol=1.0,
        polish=False,
        vectorized=True,
        updating="deferred",
    )
    method = DifferentialEvolution(popsize=5, tol=1.0, polish=False)
    ours = Run(method, bounds=Bounds(*np.transpose(box)))
    assert same(ours.points, recorded.points)
    assert set(ours.sizes) == {15}
    assert ours.reason == result.message
    assert same(ours.method.recommend(ours.state), result.x)
    polished = Run(DifferentialEvolution(popsize=5, tol=1.0), bounds=Bounds(*np.transpose(box)))
    assert same(polished.points[: len(ours.points)], ours.points)
    assert polished.state.value < 1e-6 * ours.state.value


@pytest.mark.parametrize("no_local_search", [True, False])
def test_dual_annealing_is_scipys(no_local_search):
    box, recorded = [(-2.0, 2.0)] * 3, Recorded(rastrigin)
    local = {}
    if not no_local_search:

        def descend(_, x, **__):
            bounds = scipy.optimize.Bounds(*np.transpose(box))
            walls = Bounds(*np.transpose(box))
            return scipy.optimize.minimize(
                with_differences(recorded, walls),
                x,
                method="L-BFGS-B",
                jac=True,
                bounds=bounds,
                options={"maxiter": 100},
            )

        local = {"minimizer_kwargs": {"method": descend}}
    scipy.optimize.dual_annealing(
        recorded,
        box,
        x0=X0,
        rng=Key(0).fold("attempt", 0).generator(),
        maxiter=30,
        no_local_search=no_local_search,
        **local,
    )
    ours = Run(
        DualAnnealing(no_local_search=no_local_search),
        rastrigin,
        bounds=Bounds(*np.transpose(box)),
        steps=200,
    )
    count = min(len(ours.points), len(recorded.points))
    assert count >= 150
    assert same(ours.points[:count], recorded.points[:count])


@pytest.mark.parametrize("locally_biased", [True, False])
def test_direct_is_scipys(locally_biased):
    box, recorded = [(-2.0, 2.5)] * 3, Recorded()
    result = scipy.optimize.direct(recorded, box, locally_biased=locally_biased, maxfun=3000, vol_tol=1e-9)
    ours = Run(
        Direct(locally_biased=locally_biased, vol_tol=1e-9), bounds=Bounds(*np.transpose(box)), budget=3000
    )
    assert same(ours.points, recorded.points)
    assert ours.reason == result.message
    assert ours.state.value == result.fun


@pytest.mark.parametrize("method", LOCAL, ids=named)
def test_scale_is_a_change_of_units(method):
    scale = np.array([2.0**7, 0.25, 1.0])
    plain = Run(method, steps=60)
    scaled = Run(method, lambda x: fun(x / scale), X0 * scale, scale=scale, steps=60)
    assert same(np.array(scaled.points) / scale, plain.points)


def test_first_steps_reach_as_far_as_scale():
    scale = np.array([3.0, 0.7, 100.0])
    simplex = np.array(Run(NelderMead(), scale=scale, steps=1).points)
    np.testing.assert_allclose(simplex[1:] - simplex[0], np.diag(scale), rtol=1e-15)
    model = np.array(Run(COBYQA(), scale=3.0, steps=3).points)
    np.testing.assert_allclose(np.abs(model[1:] - model[0]).max(1), 3.0, rtol=1e-12)
    line = np.array(Run(Powell(), scale=scale, steps=3).points)
    np.testing.assert_allclose(line[2] - line[0], [3.0, 0, 0], rtol=1e-12)


def test_simplex_turns_round_at_walls():
    box = Bounds([-2.0, 0.75, 0.25], [-1.0, 1.25, 4.0])
    simplex = np.array(Run(NelderMead(), bounds=box, steps=1).points)
    # No room for 1: downwards by 1 only as far as -2; to the wall at 1.25 or .75, as far; upwards.
    assert (simplex[1:] - simplex[0]).tolist() == [[-0.75, 0, 0], [0, 0.25, 0], [0, 0, 1.0]]


def test_steps_are_as_large_as_the_method_lets_them():
    assert Run(NelderMead(), steps=5).sizes == [4, 1, 1, 1, 1]
    assert set(Run(LBFGSB(), steps=5).sizes) == {4}
    assert set(Run(LBFGSB(stencil="central"), steps=5).sizes) == {7}
    assert set(Run(BFGS(), steps=5).sizes) == {4}
    assert set(Run(DifferentialEvolution(), steps=3).sizes) == {45}
    assert {1, 4} == set(Run(DualAnnealing(), steps=300).sizes)
    for method in (Powell(), COBYQA(), Direct()):
        assert set(Run(method, steps=5).sizes) == {1}


@pytest.mark.parametrize("method", ALL, ids=named)
def test_the_budget_ends_it(method):
    endless = Run(method, steps=30)
    ours = Run(method, budget=25)
    assert sum(ours.sizes) == len(ours.points) == ours.state.nfev == 25
    assert "budget of 25" in ours.reason
    if not isinstance(method, Direct):  # whose budget is no more than the room it makes
        assert same(ours.points, endless.points[:25])
    assert fun(ours.method.recommend(ours.state)) == min(map(fun, ours.points)) == ours.state.value
    assert len(ours.method.ask(ours.state)) == 0


@pytest.mark.parametrize("method", ALL, ids=named)
def test_values_are_all_that_is_kept(method):
    """A state that went through a file, without any live routine, goes on to the last bit."""
    ours = Run(method, steps=12)
    inversion.clear_cache()
    state = thaw(*freeze(ours.state))
    for _ in range(3):
        candidates = method.ask(state)
        expected = method.ask(ours.state)
        assert same(candidates.rows(0, len(candidates)), expected.rows(0, len(expected)))
        ours.step()
        inversion.clear_cache()
        state = method.tell(state, Evaluations([fun(x) for x in candidates.rows(0, len(candidates))]))
        assert digest(state) == digest(ours.state)


@pytest.mark.parametrize("method", LOCAL, ids=named)
def test_failed_evaluations_do_not_stop_it(method):
    def holed(x):
        return math.nan if x[0] < -1.5 or abs(x[2]) > 0.9 else fun(x)

    ours = Run(method, holed, budget=600)
    assert np.isfinite(ours.points).all()
    assert ours.state.value < 0.05 * fun(X0)


def test_failed_evaluations_leave_scipys_best_what_it_is():
    def holed(x):
        return math.nan if x[0] > 0 else float(((x + 1) ** 2).sum())

    box = [(-2, 2)] * 3
    for method in ("scipy-de", "direct", "dual-annealing"):
        result = zoo.minimize(holed, X0, bounds=box, method=method, budget=1500, rng=0)
        assert result.fun < 1e-2, method
    theirs = scipy.optimize.differential_evolution(holed, box, rng=0, maxiter=20, polish=False)
    assert not np.isfinite(theirs.fun) or theirs.fun > 0.1, "no longer needed"


def test_a_start_without_a_value_is_left():
    tried = []

    def fails(x):
        tried.append(x)
        return math.nan if len(tried) <= 3 else fun(x)

    ours = Run(Powell(), fails, steps=3)
    assert ours.state.attempt == 3
    assert same(tried[0], X0)
    assert len({x.tobytes() for x in tried}) == 3
    assert same(ours.method.recommend(ours.state), X0)
    # Where only x0 fails, the search begins where the step had a value.
    ours = Run(LBFGSB(), lambda x: math.nan if same(x, X0) else fun(x), steps=1)
    assert ours.state.attempt == 1
    ours.step()
    assert same(ours.points[4], min(ours.points[1:4], key=fun))


def test_known_points_are_started_from():
    known = Known([[0.0, 0, 0], [1.0, 0.5, 0.25], [3.0, 0, 0]], [3.0, 2.0, math.nan])
    for method in LOCAL:
        assert same(Run(method, known=known, steps=1).points[0], [1.0, 0.5, 0.25])
    points = np.array(Run(DifferentialEvolution(), known=known, steps=1).points)
    np.testing.assert_allclose(points[:3], [[1.0, 0.5, 0.25], [0, 0, 0], X0], atol=1e-14)
    assert len(np.unique(points, axis=0)) == 45


@pytest.mark.parametrize("method", ALL, ids=named)
def test_variables_without_room_stay(method):
    box = Bounds([-2.0, 1.0, 0.0], [2.0, 1.0, 1.0])
    ours = Run(method, bounds=box, budget=60)
    assert (np.array(ours.points)[:, 1] == 1.0).all()
    assert box.contains(np.array(ours.points))
    fixed = Run(method, bounds=Bounds(X0, X0), budget=60)
    assert same(fixed.points, [X0])
    assert fixed.reason == "the bounds leave no variable free"


def test_restarts():
    once = Run(NelderMead())
    again = Run(NelderMead(restarts=True), budget=1200)
    assert same(again.points[: len(once.points)], once.points)
    assert len(once.points) < 600
    assert again.state.attempt >= 2
    assert "budget" in again.reason
    assert again.method.diagnostics(again.state)["restarts"] == again.state.attempt
    # Each starts somewhere else, as far from x0 as scale says.
    box = Bounds([-2.0, 0.5, -np.inf], [2.0, 1.5, 1.0])
    boxed = Run(NelderMead(restarts=True), bounds=box, scale=0.1, budget=2000)
    assert boxed.state.attempt >= 2
    assert box.contains(np.array(boxed.points))


def test_bfgs_leaves_a_wall_and_comes_to_another():
    box = Bounds([0.0, 0.0, -np.inf], [1.0, 1.0, 0.0])
    ours = Run(BFGS(), lambda x: float(((x - [0.25, 2.0, -5.0]) ** 2).sum()), np.zeros(3), bounds=box)
    assert box.contains(np.array(ours.points))
    np.testing.assert_allclose(ours.method.recommend(ours.state), [0.25, 1.0, -5.0], atol=1e-3)


def test_central_differences_are_finer():
    forward, central = (Run(LBFGSB(stencil=s, ftol=0.0, gtol=1e-9)) for s in ("forward", "central"))
    assert central.state.value < 1e-3 * forward.state.value
    coarse = Run(LBFGSB(eps=0.125), steps=1)
    assert (np.array(coarse.points[1:]) - X0).tolist() == (np.eye(3) / 8).tolist()


@pytest.mark.parametrize("method", LOCAL, ids=named)
def test_short_floats(method):
    for start in (X0.astype(np.float32), torch.from_numpy(X0.astype(np.float32))):
        ours = Run(method, lambda x: fun(np.asarray(x, np.float64)), start, budget=400)
        best = method.recommend(ours.state)
        assert type(best) is type(start)
        assert best.dtype == start.dtype
        assert fun(np.asarray(best, np.float64)) < 0.05 * fun(X0)


def test_values_too_large_to_square():
    for method in LOCAL:
        ours = Run(method, lambda x: fun(x) * 2.0**1000, budget=150)
        assert ours.state.value < 0.1 * 2.0**1000 * fun(X0)


def test_options_belong_to_the_history():
    first, second = (NelderMead(xatol=x).init(X0, key=Key(0)) for x in (1e-4, 1e-5))
    assert first.history != second.history


def test_recommendation_belongs_to_the_caller():
    ours = Run(Powell(), steps=3)
    ours.method.recommend(ours.state)[:] = 7
    assert not (ours.method.recommend(ours.state) == 7).any()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NelderMead(xatol=-1.0), "`xatol` must be a finite number of at least 0"),
        (lambda: COBYQA(final_tr_radius=2.0), "`final_tr_radius` must be at most `initial_tr_radius`, 1.0"),
        (lambda: BFGS(c1=0.95), "`c1` must be below `c2`, 0.9"),
        (lambda: BFGS(c2=1.0), "`c2` must be above 0 and below 1"),
        (lambda: LBFGSB(stencil="centre"), "`stencil` must be one of .* Did you mean 'central'"),
        (lambda: DifferentialEvolution(strategy="best1"), "Did you mean 'best1"),
        (lambda: DifferentialEvolution(mutation=(0.5, 2.0)), "`mutation` must be a number of at least 0"),
        (lambda: DualAnnealing(visit=4.0), "`visit` must be between 1 and 3"),
        (lambda: Direct(vol_tol=2.0), "`vol_tol` must be between 0 and 1"),
    ],
)
def test_bad_options(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_all_strategies_run():
    from zoo.methods.scipy import STRATEGIES

    for strategy in STRATEGIES:
        assert len(Run(DifferentialEvolution(strategy=strategy, mutation=0.7), steps=2).points) == 90


def test_as_a_user_of_scipy_calls_it():
    result = zoo.minimize(rosenbrock, [-1.2, 0.0], method="nelder-mead", bounds=[(-2, 2), (None, 0.5)])
    assert result.success
    assert "terminated successfully" in result.message
    assert result.nfev < 200
    np.testing.assert_allclose(result.x, [0.71, 0.5], atol=1e-2)
    tight = zoo.minimize(rosenbrock, [-1.2, 1.0], method="l-bfgs-b", options={"gtol": 1e-9, "ftol": 0.0})
    assert tight.fun < 1e-8
    theirs = scipy.optimize.minimize(
        rosenbrock, [-1.2, 1.0], method=zoo.scipy_method("powell"), options={"maxfev": 50}
    )
    assert theirs.nfev == 50


def test_filters_of_warnings_stay_and_none_is_forgotten():
    """BFGS's line search changes the filters of the process, and is left in the middle of it."""
    seen = []

    def warns(x):
        warnings.warn("mine", UserWarning, stacklevel=1)
        return fun(x)

    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("default")
        warnings.showwarning = lambda *arguments: seen.append(str(arguments[0]))
        before = list(warnings.filters), warnings.showwarning
        for method in (BFGS(gtol=1e-14), COBYQA()):
            ours = Run(method, warns, bounds=WALLS, budget=200)
            assert (list(warnings.filters), warnings.showwarning) == before
            assert len(ours.points) > 20
    # Once, and once more where scipy itself made Python forget.
    assert set(seen) == {"mine"}
    assert len(seen) < 5


def test_others_may_run_cobyqa_meanwhile():
    """Scipy lets one at a time, and ours is left in the middle of it."""
    outer = Run(COBYQA(), steps=5)
    done = []
    for step in range(3):
        thread = threading.Thread(
            target=lambda: done.append(scipy.optimize.minimize(sphere, X0, method="COBYQA").fun), daemon=True
        )
        thread.start()
        thread.join(30)
        assert len(done) == step + 1
        Run(COBYQA(), seed=step, steps=5)
        outer.step()
    inversion.clear_cache()
    assert scipy.optimize.minimize(sphere, X0, method="COBYQA").fun < 1e-8


SCRIPT = """
import os, sys, threading
import numpy as np
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.methods import scipy

states = []
for method in (scipy.NelderMead(), scipy.COBYQA(), scipy.BFGS(), scipy.Direct(), scipy.DualAnnealing()):
    state = method.init(np.ones(3), key=Key(0))
    for _ in range(7):
        candidates = method.ask(state)
        rows = candidates.rows(0, len(candidates))
        state = method.tell(state, Evaluations((rows**2).sum(1)))
    states.append((method, state, method.ask(state).rows(0, 1).tobytes()))
print(threading.active_count())
if "fork" in sys.argv:
    child = os.fork()
    same = [method.ask(state).rows(0, 1).tobytes() == row for method, state, row in states]
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not all(same))
    sys.exit(3 * (not all(same) or threading.active_count() != 6))
"""


@pytest.mark.parametrize("how", ["exit", "fork"])
def test_nothing_is_in_the_way_of_the_end(how):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, how], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
