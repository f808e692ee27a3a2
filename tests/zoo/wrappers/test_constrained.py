"""Constrained searches: what a method is told, what models propose, and that they are methods as well."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.cases import CASES
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations, Rows
from zoo.methods.cma_es import CMAES
from zoo.methods.pso import PSO
from zoo.methods.random_search import RandomSearch
from zoo.wrappers import merit, surrogate
from zoo.wrappers.constrained import Constrained, Proposed

pytestmark = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")

START = np.array([2.0, 0.5])


def evaluations(x):
    """F = |x|^2 with x_1 >= 1 and x_2 <= 3: the optimum is (1, 0), and the multiplier 2."""
    x = np.asarray(x, np.float64)
    return Evaluations((x**2).sum(1), extras={"constraints": np.stack([1 - x[:, 0], x[:, 1] - 3], 1)})


class Search:
    def __init__(self, method, start=START, fun=evaluations, **more):
        self.method, self.fun, self.rows = method, fun, []
        self.state = method.init(start, key=Key(0), **more)

    def step(self):
        candidates = self.method.ask(self.state)
        rows = candidates.rows(0, len(candidates))
        self.rows.append(rows)
        self.state = self.method.tell(self.state, self.fun(rows))

    def run(self, steps):
        for _ in range(steps):
            self.step()
        return self


METHODS = [CMAES(), PSO(population_size=5), RandomSearch(population_size=5)]
all_kinds = pytest.mark.parametrize(
    "method",
    [Constrained(METHODS[0]), Constrained(METHODS[1], ranks=True), Constrained(METHODS[2])],
    ids=["lagrangian", "order", "penalty"],
)


# What a method is told.


def test_the_order_puts_points_inside_first_and_loses_no_violation():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(50) * 10.0 ** rng.uniform(-80, 80, 50), [np.nan, 0, -0.0]])
    constraints = rng.standard_normal((53, 3)) * 10.0 ** rng.uniform(-30, 30, (53, 3))
    constraints[:20] = -abs(constraints[:20])
    told = merit.ordered(values, constraints)
    violation = np.maximum(constraints, 0).sum(1)
    assert np.isnan(told).tolist() == np.isnan(values).tolist()
    assert np.isfinite(told[~np.isnan(told)]).all()
    valid = np.flatnonzero(~np.isnan(values))
    keys = [(violation[i], values[i] if violation[i] == 0 else 0.0) for i in valid]
    for i, key in zip(valid, keys, strict=True):
        for j, other in zip(valid, keys, strict=True):
            assert (told[i] < told[j]) == (key < other)
    assert told[:20].tolist() == values[:20].tolist()


def test_multipliers_are_exact_for_linear_functions():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 4))
    constraints = x[:, :3]
    values = 7 - 2 * x[:, 0] - 0.5 * x[:, 1] + x[:, 2]  # no multiplier keeps the third one active
    learned = merit.learned(merit.begin(3), values, constraints)
    assert learned.multipliers[2] == 0
    rest = np.linalg.lstsq(
        constraints[:, :2] - constraints[:, :2].mean(0), values - values.mean(), rcond=None
    )
    assert learned.multipliers[:2] == pytest.approx(-rest[0])
    exact = merit.learned(merit.begin(2), 7 - 2 * x[:, 0] - 0.5 * x[:, 1], constraints[:, :2])
    assert exact.multipliers == pytest.approx([2, 0.5])
    far = merit.learned(merit.begin(2), 7 - 2 * x[:, 0] - 0.5 * x[:, 1], constraints[:, :2] - [0, 100])
    assert far.multipliers[1] == 0


def test_the_lagrangian_has_its_formula():
    multipliers, penalties = np.array([2.0, 0.0]), np.array([3.0, 5.0])
    lagrangian = merit.Lagrangian(np.empty((0, 3)), np.eye(3), multipliers, np.log(penalties), 0.0)
    constraints = np.array([[0.5, -1.0], [-2.0, 0.5], [np.nan, 0.0]])
    told = merit.told(lagrangian, np.array([1.0, 2.0, np.nan]), constraints)
    assert told[:2] == pytest.approx([1 + 2 * 0.5 + 1.5 * 0.25, 2 - 4 / 6 + 2.5 * 0.25])
    assert np.isnan(told[2])


def test_the_margin_grows_until_something_is_inside():
    state = merit.begin(1)
    outside, inside = np.ones((4, 1)), -np.ones((4, 1))
    values = np.arange(4.0)
    for margin in (0.1, 0.2, 0.3):
        state = merit.learned(state, values, outside + values[:, None])
        assert state.margin == pytest.approx(margin)
    assert merit.learned(state, values, inside).margin == pytest.approx(0.21)


def test_too_few_rows_are_kept_until_there_are_enough():
    rng = np.random.default_rng(0)
    values, constraints = rng.standard_normal(6), rng.standard_normal((6, 2))
    at_once = merit.learned(merit.begin(2), values, constraints)
    bit_by_bit = merit.begin(2)
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        assert bit_by_bit.moments is None
        bit_by_bit = merit.learned(bit_by_bit, values[part], constraints[part])
    assert bit_by_bit.multipliers.tobytes() == at_once.multipliers.tobytes()
    assert bit_by_bit.penalties.tobytes() == at_once.penalties.tobytes()


def test_penalties_are_judged_by_the_first_values():
    values, constraints = np.array([1.0, 3.0, 1.0, 3.0]), np.array([[0.5, 0.0]] * 2 + [[-0.5, 0.0]] * 2)
    weights = merit.penalty_weights(values, constraints)
    assert weights.tolist() == [20.0, 10.0]
    assert merit.penalized(weights, values, constraints).tolist() == [11.0, 13.0, 1.0, 3.0]
    assert merit.penalty_weights(values[1:2], constraints[:1]).tolist() == [60.0, 30.0]


@all_kinds
def test_whatever_is_told_is_finite_or_nan(method):
    extremes = np.array([0.0, -0.0, 1e-300, -1e-300, 1.0, 1e300, -1e300, 1e200, -1e200])

    class Recorded(type(method.optimizer)):
        def tell(self, state, given):
            told.append(given.values)
            return super().tell(state, given)

    told = []
    inner = Recorded(**{name: getattr(method.optimizer, name) for name in ("population_size",)})
    wrapped = Constrained(inner, method.ranks)
    rng = np.random.default_rng(0)

    def fun(rows):
        values = rng.choice([*extremes, np.nan, np.inf], len(rows))
        constraints = rng.choice([*extremes, np.inf, -np.inf, np.nan], (len(rows), 2))
        expected = np.isfinite(values) & ~np.isnan(constraints).any(1)
        wanted.append(expected)
        return Evaluations(values, extras={"constraints": constraints})

    wanted = []
    search = Search(wrapped, fun=fun)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(30):
            count = len(told)
            candidates = search.method.ask(search.state)
            search.step()
            if len(told) > count:
                own = len(told[-1])
                assert len(candidates) - own in (0, 1)
                assert np.isfinite(told[-1]).tolist() == wanted[-1][:own].tolist()
    assert told


# What models propose.


def modelled(points, values, constraints, low=-1.0, high=1.0):
    known = surrogate.empty(points.shape[1], constraints.shape[1])
    known = surrogate.extended(known, points, values, constraints)
    return surrogate.proposing(known, np.full(points.shape[1], low), np.full(points.shape[1], high))


def test_models_of_quadratic_functions_propose_the_minimum():
    rng = np.random.default_rng(0)
    points = 0.05 * rng.standard_normal((40, 3))
    values = (points - [0.03, -0.02, 0.01]) ** 2 @ [1.0, 2.0, 3.0]
    free = modelled(points, values, -np.ones((40, 1)))
    assert free.proposal == pytest.approx([0.03, -0.02, 0.01], abs=1e-6)
    assert free.forecast[0] == pytest.approx(0, abs=1e-8)
    wall = modelled(points, values, points[:, :1])  # x_1 <= 0
    assert wall.proposal == pytest.approx([0.0, -0.02, 0.01], abs=1e-6)
    assert wall.multipliers == pytest.approx([0.06], rel=1e-3)
    curved = modelled(points, values, (points**2).sum(1, keepdims=True) - 1e-4)
    assert (curved.proposal**2).sum() == pytest.approx(1e-4, rel=1e-3)


def test_models_stay_within_the_box_and_the_radius():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (40, 3))
    known = modelled(points, points @ [1.0, 2.0, 3.0], -np.ones((40, 1)), low=-0.08)
    assert known.proposal == pytest.approx([-0.08] * 3)
    far = modelled(points, points @ [1.0, 2.0, 3.0], -np.ones((40, 1)), low=-np.inf)
    assert far.proposal == pytest.approx(far.centre - surrogate.FIRST_RADIUS)


def test_where_nothing_is_inside_the_radius_the_least_violation_is_proposed():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (40, 2))
    known = modelled(points, (points**2).sum(1), 1 - points[:, :1])  # x_1 >= 1
    # But for a hundredth of what can be gained, with which the value is made less.
    assert known.proposal[0] == pytest.approx(known.centre[0] + 0.99 * surrogate.FIRST_RADIUS, abs=1e-6)


def test_the_radius_follows_what_steps_are_worth():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (40, 2))
    known = modelled(points, points[:, 0], -np.ones((40, 1)))
    good = surrogate.judged(known, float(known.proposal[0]), -np.ones(1))
    assert good.radius == 2 * known.radius
    poor = surrogate.judged(known, 1.0, -np.ones(1))
    assert (poor.radius, poor.sparse) == (known.radius / 2, False)
    failed = surrogate.judged(known, np.nan, np.full(1, np.nan))
    assert failed.radius == known.radius / 2
    few = modelled(points[:4], points[:4, 0], -np.ones((4, 1)))
    poor = surrogate.judged(few, 1.0, -np.ones(1))
    assert (poor.radius, poor.sparse) == (few.radius, True)
    mended = surrogate.proposing(poor, np.full(2, -1.0), np.full(2, 1.0))
    assert mended.forecast is None
    assert sorted(abs(mended.proposal - mended.centre)) == pytest.approx([0, mended.radius])


def test_models_sleep_once_converged_and_wake_for_a_better_point():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (40, 2))
    known = modelled(points, (points**2).sum(1), -np.ones((40, 1)))
    walls = np.full(2, -1.0), np.full(2, 1.0)
    asleep = surrogate.proposing(replace(known, radius=1e-10), *walls)
    assert asleep.proposal is None
    woken = surrogate.extended(asleep, np.array([[0.5, 0.5]]), np.array([-1.0]), -np.ones((1, 1)))
    woken = surrogate.proposing(woken, *walls)
    assert woken.radius == surrogate.FIRST_RADIUS
    assert woken.proposal is not None


def test_many_points_are_not_kept():
    known = surrogate.empty(2, 1)
    for step in range(20):
        points = np.random.default_rng(step).uniform(-1, 1, (50, 2))
        known = surrogate.extended(known, points, (points**2).sum(1), -np.ones((50, 1)))
        known = surrogate.proposing(known, np.full(2, -1.0), np.full(2, 1.0))
    assert len(known.points) == 33
    assert (abs(known.points - known.centre).max(1) < 0.3).all()


# The wrapper as a method.


@all_kinds
def test_it_finds_the_optimum(method):
    search = Search(method).run(40)
    rows = np.concatenate(search.rows)
    inside = rows[evaluations(rows).violations == 0]
    assert (inside**2).sum(1).min() == pytest.approx(1, abs=1e-6)


@all_kinds
def test_asking_changes_nothing_and_rows_belong_to_the_caller(method):
    search = Search(method)
    for _ in range(12):
        before = digest(search.state)
        candidates = search.method.ask(search.state)
        count = len(candidates)
        rows = candidates.rows(0, count)
        copy = rows.copy()
        rows += 1
        again = search.method.ask(search.state)
        assert again.rows(0, count).tobytes() == copy.tobytes()
        for start in range(count + 1):
            parts = [again.rows(0, start), again.rows(start, count)]
            assert np.concatenate(parts).tobytes() == copy.tobytes()
            assert len(again.noise(start, count)) == count - start
        assert digest(search.state) == before
        search.step()


@all_kinds
def test_telling_is_pure_and_a_state_survives_a_file(method):
    search, other = Search(method), Search(method)
    for _ in range(15):
        tree, arrays = freeze(other.state)
        other.state = thaw(json.loads(json.dumps(tree)), {name: a.copy() for name, a in arrays.items()})
        before = digest(search.state)
        candidates = search.method.ask(search.state)
        given = evaluations(candidates.rows(0, len(candidates)))
        first, second = search.method.tell(search.state, given), search.method.tell(search.state, given)
        assert digest(search.state) == before
        assert digest(first) == digest(second) != before
        search.state = first
        other.step()
        assert digest(other.state) == digest(search.state)


@all_kinds
def test_another_number_of_values_is_refused(method):
    search = Search(method).run(3)
    wrong = np.zeros((len(search.method.ask(search.state)) + 1, 2))
    with pytest.raises(ValueError, match="`evaluations` must hold"):
        search.method.tell(search.state, evaluations(wrong))


@all_kinds
def test_values_without_constraints_are_refused_and_failures_are_not(method):
    search = Search(method)
    count = len(search.method.ask(search.state))
    with pytest.raises(ValueError, match=r'must hold extras\["constraints"\] of shape'):
        search.method.tell(search.state, Evaluations(np.ones(count)))
    failed = search.method.tell(search.state, Evaluations(np.full(count, np.nan)))
    assert failed.surrogate is None
    search.state = failed
    search.run(10)
    search.state = search.method.tell(
        search.state, Evaluations(np.full(len(search.method.ask(search.state)), np.nan))
    )
    search.run(20)
    rows = np.concatenate(search.rows)
    assert (rows[evaluations(rows).violations == 0] ** 2).sum(1).min() == pytest.approx(1, abs=1e-6)


@all_kinds
def test_the_search_moves_along_and_scales_with_the_problem(method):
    """By powers of two, so that no rounding is different; penalties hold logarithms, and are rounded."""

    def scaled(rows):
        given = evaluations(rows)
        constraints = given.extras["constraints"] * [4.0, 0.5]
        return Evaluations(8 * given.values, extras={"constraints": constraints})

    one, other = Search(method).run(6), Search(method, fun=scaled).run(6)
    assert np.concatenate(other.rows) == pytest.approx(np.concatenate(one.rows), rel=1e-6, abs=1e-6)


@all_kinds
def test_a_budget_is_kept_and_its_end_is_not_wasted(method):
    for budget in (1, 2, 7, 30, 61):
        search = Search(method, budget=budget)
        used = 0
        while True:
            candidates = search.method.ask(search.state)
            reason = search.method.finished(search.state)
            if reason is not None or len(candidates) > budget - used or not len(candidates):
                break
            search.step()
            used += len(candidates)
        assert used <= budget
        assert used >= budget - 6


def test_steps_are_a_proposal_alone_six_times_of_seven():
    search = Search(Constrained(CMAES(population_size=8)))
    lengths = []
    for _ in range(15):
        candidates = search.method.ask(search.state)
        lengths.append(len(candidates))
        assert isinstance(candidates, Rows if len(candidates) in (1, 8) else Proposed)
        search.step()
    assert lengths == [8, 1, 1, 1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 9]


def test_after_the_method_has_finished_models_go_on_to_their_end():
    class Short(CMAES):
        def finished(self, state):
            return "it is short" if state.step >= 2 else None

    search = Search(Constrained(Short()))
    steps = 0
    while search.method.finished(search.state) is None:
        search.step()
        steps += 1
    assert search.method.finished(search.state) == "it is short"
    rows = np.concatenate(search.rows)
    assert (rows[evaluations(rows).violations == 0] ** 2).sum(1).min() == pytest.approx(1, abs=1e-12)
    assert steps < 80


def test_with_many_variables_there_are_no_models():
    def fun(rows):
        return Evaluations((rows**2).sum(1), extras={"constraints": 1 - rows[:, :1]})

    search = Search(Constrained(CMAES()), start=np.full(16, 2.0), fun=fun).run(400)
    assert search.state.surrogate is None
    assert search.state.lagrangian.multipliers == pytest.approx([2], rel=1e-3)
    rows = np.concatenate(search.rows)
    assert (rows[rows[:, 0] >= 1] ** 2).sum(1).min() == pytest.approx(1, rel=1e-3)


def test_several_active_constraints_leave_points_inside():
    # Of points normal around the optimum, one in a thousand would keep to all ten.
    def fun(rows):
        return Evaluations((rows**2).sum(1), extras={"constraints": 1 - rows[:, :10]})

    search = Search(Constrained(CMAES()), start=np.full(16, 3.0), fun=fun).run(500)
    late = np.concatenate(search.rows[-50:])
    assert (late[:, :10] >= 1).all(1).mean() > 0.02
    best = min((late[(late[:, :10] >= 1).all(1)] ** 2).sum(1))
    assert best == pytest.approx(10, rel=1e-3)


def test_rows_are_of_the_kind_of_the_start_and_inside_the_box():
    torch = pytest.importorskip("torch")
    box = Bounds(np.array([0.3, 0.0]), np.array([2.0, 0.1]))

    def fun(rows):
        assert rows.dtype == torch.float32
        assert box.contains(rows)
        return evaluations(rows.numpy())

    start = torch.tensor([1.5, 0.05])
    search = Search(Constrained(CMAES()), start=start, fun=fun, bounds=box).run(20)
    best = min((row for rows in search.rows for row in rows.tolist() if row[0] >= 1), key=lambda row: row[0])
    assert best == pytest.approx([1, 0], abs=1e-3)


def test_under_noise_a_candidate_inside_is_recommended():
    rng = np.random.default_rng(0)

    def fun(rows):
        given = evaluations(rows)
        return Evaluations(given.values + 0.01 * rng.standard_normal(len(rows)), extras=given.extras)

    search = Search(Constrained(CMAES(), noise=True), fun=fun).run(100)
    assert search.method.recommend(search.state)[0] >= 1
    assert search.state.inside.tobytes() == search.method.recommend(search.state).tobytes()
    quiet = Search(Constrained(CMAES()), fun=evaluations).run(100)
    inner = quiet.method.optimizer.recommend(quiet.state.inner)
    assert quiet.method.recommend(quiet.state).tobytes() == inner.tobytes()


def test_wrong_flags_are_refused():
    with pytest.raises(TypeError, match="`ranks`"):
        Constrained(CMAES(), 1)
    with pytest.raises(TypeError, match="`noise`"):
        Constrained(CMAES(), noise=0)


def test_diagnostics_say_what_the_method_is_told_by():
    known = Search(Constrained(CMAES())).run(60)
    diagnostics = known.method.diagnostics(known.state)
    assert diagnostics["multipliers"] == pytest.approx([2, 0], rel=0.2)
    assert len(diagnostics["penalties"]) == 2
    assert 0 < diagnostics["radius"] <= 1
    assert "sigma" in diagnostics


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_methods_say_truly_that_they_compare_within_steps(case):
    """Adding a number to each value, another one in each step, changes nothing then."""
    method = case.build()
    if not getattr(method, "compares_within_steps", False) or case.method == "lq-cma":
        return  # lq-cma has a model of earlier values, but heeds it only where it orders those of a step

    def rows(shift):
        state, found = method.init(np.array([1.0, -2.0, 0.5]), key=Key(0)), []
        for step in range(12):
            candidates = method.ask(state)
            x = candidates.rows(0, len(candidates))
            found.append(x)
            state = method.tell(state, Evaluations((x**2).sum(1) + shift * 2.0 ** (step % 5)))
        return np.concatenate(found)

    assert rows(1.0) == pytest.approx(rows(0.0), rel=1e-6, abs=1e-6)
