"""IPOP and BIPOP: their schedules, starts, budgets and what they recommend."""

import math

import numpy as np
import pytest

import zoo
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.methods.cma_es import CMAES
from zoo.methods.restarts import BIPOPCMAES, IPOPCMAES
from zoo.problems import rastrigin, sphere

BOTH = pytest.mark.parametrize("kind", [BIPOPCMAES, IPOPCMAES])


def constant(x):
    return np.zeros(len(x))


def failing(x):
    return np.full(len(x), np.nan)


def step(method, state, function):
    rows = method.ask(state)
    return method.tell(state, Evaluations(function(rows.rows(0, len(rows)))))


def runs(method, function, x0, number, key=0, **setting):
    """Return, of each run but the last, its schedule and evaluations, and the last state."""
    state = method.init(x0, key=Key(key), **setting)
    ended = []
    while state.schedule.run < number and not method.finished(state):
        before, nfev = state.schedule, state.nfev
        state = step(method, state, function)
        if state.schedule is not before:
            ended.append((before, state.nfev - before.spent))
            assert state.inner.nfev == 0
            assert state.nfev > nfev
    return ended, state


# Schedules.


def test_ipop_doubles_the_population():
    ended, _ = runs(IPOPCMAES(), constant, np.ones(3), 6)
    assert [run.population_size for run, _ in ended] == [7, 14, 28, 56, 112, 224]
    assert {run.sigma for run, _ in ended} == {1.0}
    assert {run.limit for run, _ in ended} == {None}
    ended, _ = runs(IPOPCMAES(population_size=5), constant, np.ones(3), 3)
    assert [run.population_size for run, _ in ended] == [5, 10, 20]


@pytest.mark.parametrize("first", [None, 10])
def test_bipop_follows_the_formulas(first):
    method, dim, key = BIPOPCMAES(population_size=first, sigma=0.5), 4, 3
    ended, _ = runs(method, constant, np.ones(dim), 40, key=key)
    smallest = first or 4 + int(3 * math.log(dim))
    assert (ended[0][0].regime, ended[0][0].population_size) == ("first", smallest)
    assert ended[1][0].regime == "large"
    largest, spent, small, large, last_large = smallest, 0, 0, 0, None
    regimes = []
    for number, (run, nfev) in enumerate(ended):
        assert (run.run, run.spent) == (number, spent)
        u, v = Key(key).fold("restart", number).fold("small").uniform(0, 1, 2)[0]
        if number == 0:
            expected = smallest, 0.5, None
        elif last_large is None or small >= large:
            largest *= 2
            expected = largest, 0.5, None
        else:
            size = math.floor(smallest * (0.5 * largest / smallest) ** (u**2))
            expected = size, 0.5 * 10 ** (-2 * v), last_large // 2
            assert nfev <= last_large / 2
        assert (run.population_size, run.limit) == (expected[0], expected[2])
        assert run.sigma == pytest.approx(expected[1], rel=1e-12)
        spent += nfev
        if run.regime == "large":
            large, last_large = large + nfev, nfev
        else:
            small += nfev
        regimes.append(run.regime)
    assert regimes.count("large") >= 5
    assert regimes.count("small") >= 20


def test_regimes_share_the_evaluations():
    ended, _ = runs(BIPOPCMAES(), lambda x: rastrigin(x - 1), np.ones(2), 30)
    spent = {"first": 0, "small": 0, "large": 0}
    for run, nfev in ended:
        spent[run.regime] += nfev
    most = max(nfev for _, nfev in ended)
    assert abs(spent["first"] + spent["small"] - spent["large"]) <= most


def test_small_runs_end_at_their_limit():
    def decreasing(x):  # for ever, by steps too small for a rule to take them for convergence
        return x[:, 0]

    method = BIPOPCMAES(population_size=6, tolfacupx=math.inf, tolupsigma=math.inf, max_steps=31)
    ended, _ = runs(method, decreasing, np.ones(2), 3)
    assert [(run.regime, nfev) for run, nfev in ended] == [
        ("first", 6 * 31),
        ("large", 12 * 31),
        ("small", 6 * 31),
    ]
    assert ended[2][0].limit == 6 * 31


def test_default_number_of_steps():
    method = BIPOPCMAES(tolfacupx=math.inf, tolupsigma=math.inf, tolx=0, tolfun=0, tolfunhist=0)
    ended, _ = runs(method, lambda x: x[:, 0], np.ones(1), 1)
    (_, nfev), n = ended[0], 4
    assert nfev == n * (100 + int(150 * 4**2 / math.sqrt(n)))


@BOTH
def test_rules_are_looked_at_in_every_step(kind):
    ended, _ = runs(kind(population_size=7), constant, np.ones(2), 1)
    assert ended[0][1] == 7 * (10 + math.ceil(30 * 2 / 7))  # flat over the whole window


def test_tolerances_of_steps_mean_the_same_length_in_every_run():
    method = BIPOPCMAES(sigma=2.0, tolx=1e-6, tolfun=0, tolfunhist=0, tolstagnation=0)
    seen = set()
    state = method.init(np.full(2, 3.0), key=Key(1))
    while state.schedule.run < 4:
        before, values = state, rastrigin(method.ask(state).array)
        state = method.tell(state, Evaluations(values))
        if state.schedule is not before.schedule and not before.schedule.limit:
            seen.add(before.schedule.regime)
            largest = before.inner.sigma * math.sqrt(np.diag(before.inner.covariance).max())
            assert 0.3e-6 * 2 < largest < 1e-5 * 2
        if state.schedule.limit:
            engine = method._engine_of(state.schedule)
            assert engine.tolx * state.schedule.sigma == pytest.approx(1e-6 * 2)
            assert engine.tolfacupx * state.schedule.sigma == pytest.approx(1e3 * 2)
            seen.add("small")
    assert seen == {"first", "large", "small"}


# Runs.


@BOTH
def test_first_run_is_plain_cma_to_the_byte(kind):
    plain, method = CMAES(tolfacupx=1e3), kind()
    one, other = plain.init(np.ones(3), key=Key(4)), method.init(np.ones(3), key=Key(4))
    while other.schedule.run == 0:
        rows = plain.ask(one).array
        assert method.ask(other).array.tobytes() == rows.tobytes()
        one, other = (
            m.tell(state, Evaluations(rastrigin(rows))) for m, state in ((plain, one), (method, other))
        )
    assert plain.converged(one)
    assert other.nfev == one.nfev > 300
    assert method.recommend(other).tobytes() == plain.recommend(one).tobytes()


@BOTH
def test_goes_on_for_ever_without_a_budget(kind):
    method = kind()
    state = method.init(np.zeros(2), key=Key(0))
    while state.nfev < 20_000:
        state = step(method, state, constant)
        assert method.finished(state) is None
    assert state.schedule.run >= 6


@BOTH
@pytest.mark.parametrize("bounded", [False, True])
def test_resumes_in_the_middle_of_the_second_run(kind, bounded):
    method = kind()
    box = Bounds(np.full(2, -3.0), np.full(2, 4.0)) if bounded else None
    _, state = runs(method, rastrigin, np.full(2, 2.5), 1, bounds=box)
    for _ in range(7):
        state = step(method, state, rastrigin)
    revived, other = thaw(*freeze(state)), kind()
    for _ in range(200):
        assert digest(revived) == digest(state)
        assert method.recommend(state).tobytes() == other.recommend(revived).tobytes()
        state, revived = step(method, state, rastrigin), step(other, revived, rastrigin)
    assert state.schedule.run > 1


@BOTH
@pytest.mark.parametrize("budget", [1, 5, 119, 120, 121, 700])
def test_budget_is_used_up_and_never_exceeded(kind, budget):
    method = kind()
    state = method.init(np.ones(2), key=Key(0), budget=budget)
    total = 0
    while not method.finished(state):
        rows = method.ask(state)
        assert len(rows) > 0
        total += len(rows)
        state = method.tell(state, Evaluations(constant(rows.array)))
        assert state.nfev == total
    assert total == budget
    assert len(method.ask(state)) == 0
    assert str(budget) in method.finished(state)


@BOTH
def test_number_of_values_is_checked_in_every_run(kind):
    method = kind()
    _, state = runs(method, constant, np.ones(2), 1)
    with pytest.raises(ValueError, match="12 values asked for, got 6"):
        method.tell(state, Evaluations(np.zeros(6)))


@BOTH
def test_one_variable(kind):
    method = kind()
    ended, state = runs(method, lambda x: rastrigin(x - 0.25), np.array([9.0]), 8)
    assert len(ended) == 8
    assert method.recommend(state) == pytest.approx(0.25, abs=1e-6)


@BOTH
@pytest.mark.parametrize(("dim", "budget", "needed"), [(2, 6000, 6), (3, 15_000, 5)])
def test_solves_what_one_run_does_not(kind, dim, budget, needed):
    def solved(method):
        hits = 0
        for key in range(6):
            state = method.init(np.full(dim, 3.0), key=Key(key), budget=budget)
            while not method.finished(state):
                state = step(method, state, rastrigin)
            hits += rastrigin(method.recommend(state)) < 1e-8
        return hits

    assert solved(CMAES()) <= 1
    assert solved(kind()) >= needed


# Starts.


@BOTH
def test_runs_begin_around_x0(kind):
    center, scale = np.array([5.0, -5.0]), np.array([1.0, 0.01])
    _, state = runs(kind(), constant, center, 1, scale=scale)
    starts = []
    for key in range(300):
        fake = thaw(*freeze(state))
        starts.append(kind()._somewhere(fake.schedule.frame, fake.schedule.start, Key(key)))
    starts = (np.array(starts) - center) / scale
    assert (np.abs(starts) <= 2).all()
    np.testing.assert_allclose(starts.mean(0), 0, atol=0.2)
    np.testing.assert_allclose(starts.std(0), 2 / math.sqrt(3), rtol=0.1)
    assert (np.abs((state.inner.mean - center) / scale) <= 2).all()
    assert not (state.inner.mean == center).any()
    _, state = runs(kind(restart_radius=0), constant, center, 1, scale=scale)
    assert (state.inner.mean == center).all()


@BOTH
def test_runs_begin_anywhere_in_a_box(kind):
    box = Bounds(np.array([0.0, 0.0, 2.0]), np.array([100.0, np.inf, 2.0]))
    method = kind()
    state = method.init(np.array([1.0, 1.0, 2.0]), key=Key(0), bounds=box)
    frame = state.schedule.frame
    starts = np.array([method._somewhere(frame, state.schedule.start, Key(key)) for key in range(200)])
    assert box.contains(starts)
    np.testing.assert_allclose(starts[:, 0].mean(), 50, atol=8)
    assert starts[:, 0].min() < 5 < 95 < starts[:, 0].max()
    assert starts[:, 1].max() <= 3
    assert (starts[:, 2] == 2).all()


@BOTH
def test_short_dtypes_begin_inside(kind):
    box = Bounds(np.array([0.1, -1.7]), np.array([0.9, -1.3]))  # none of these is a float32
    frame = kind().init(np.array([0.5, -1.5], np.float32), key=Key(0), bounds=box).schedule.frame
    for key in range(200):
        x = kind()._somewhere(frame, np.array([0.5, -1.5]), Key(key))
        assert x.dtype == np.float32
        assert box.contains(x.astype(np.float64))


# What is recommended.


@BOTH
def test_recommends_the_run_that_ended_lowest(kind):
    method = kind()
    ended, state = runs(method, rastrigin, np.full(2, 3.0), 3)
    assert len(ended) == 3
    kept = method.recommend(state)
    assert rastrigin(kept) == pytest.approx(state.schedule.value, abs=1e-9)
    lowest = state.schedule.value
    for _ in range(120):
        state = step(method, state, rastrigin)
        assert state.schedule.value <= lowest
        assert rastrigin(method.recommend(state)) <= lowest + 1e-9
        lowest = state.schedule.value


@BOTH
def test_failures_alone_recommend_the_start(kind):
    method, start = kind(), np.array([3.0, 4.0])
    ended, state = runs(method, failing, start, 2)
    assert len(ended) == 2
    assert (method.recommend(state) == start).all()
    assert np.isfinite(method.ask(state).array).all()
    state = step(method, state, sphere)
    assert not (method.recommend(state) == start).all()
    last = method.recommend(state)
    state = step(method, state, failing)
    assert (method.recommend(state) == last).all()


@BOTH
def test_recommendation_belongs_to_the_caller(kind):
    _, state = runs(kind(), sphere, np.ones(2), 1)
    before = digest(state)
    kind().recommend(state)[:] = 7
    assert digest(state) == before


def test_diagnostics_name_the_run():
    method = BIPOPCMAES()
    ended, state = runs(method, constant, np.ones(2), 3)
    diagnostics = method.diagnostics(state)
    assert diagnostics["run"] == 3
    assert diagnostics["population_size"] == len(method.ask(state))
    assert diagnostics["small"] == (state.schedule.regime == "small")
    assert diagnostics["sigma"] == state.schedule.sigma
    assert [run.regime for run, _ in ended[:2]] == ["first", "large"]


def test_minimize_restarts_until_the_budget_ends():
    found = zoo.minimize(rastrigin, np.full(3, 3.0), method="bipop-cma", budget=30_000, target=1e-9, rng=0)
    assert found.fun <= 1e-9
    assert found.status == 1
    plain = zoo.minimize(rastrigin, np.full(3, 3.0), method="cma", budget=30_000, target=1e-9, rng=0)
    assert plain.fun > 0.9
    assert plain.nfev < 3000
    whole = zoo.minimize(rastrigin, np.full(3, 3.0), method="ipop-cma", budget=3000, rng=0)
    assert whole.nfev == 3000


# Bad input.


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1"),
        ({"update_period": 1.5}, TypeError, "`update_period` must be an integer"),
        ({"restart_radius": -1}, ValueError, "`restart_radius` must be finite and at least 0"),
        ({"restart_radius": math.inf}, ValueError, "`restart_radius` must be finite"),
        ({"population_size": 1}, ValueError, "at least 2"),
    ],
)
def test_bad_hyperparameters(kind, options, error, text):
    with pytest.raises(error, match=text):
        kind(**options)


@BOTH
def test_bad_start(kind):
    for start in (np.ones((2, 2)), np.ones(0), np.float64(3)):
        with pytest.raises(ValueError, match="`x0` must have shape"):
            kind().init(start, key=Key(0))
