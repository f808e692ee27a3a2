"""lq-CMA-ES: exact models, tau, the archive, batches, failures, resuming within a step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tests.zoo.methods.strategies import NAN, rows_of, told
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Known
from zoo.methods import lq_cma, quadratic_model
from zoo.methods.cma_es import CMAES
from zoo.methods.lq_cma import LQCMA
from zoo.methods.quadratic_model import Model, fit, kendall, minimum, num_coefficients
from zoo.problems import cigar, discus, ellipsoid, rastrigin, rosenbrock, sphere

Matrix = np.ndarray[Any, Any]


def draws(count: int, dim: int, name: str = "x") -> Matrix:
    return np.asarray(Key(0).fold(name).normal(0, count, dim))


def rotated(function: Any, dim: int) -> Any:
    turn, _ = np.linalg.qr(draws(dim, dim, "turn"))
    return lambda x: function(x @ turn)


def parabola(dim: int, kind: str) -> Any:
    """Return a random function of a kind, its gradient at 0 and half its Hessian."""
    g, root = draws(1, dim, "gradient")[0], draws(dim, dim, "root")
    h = {"linear": np.zeros((dim, dim)), "diagonal": np.diag(np.arange(1.0, dim + 1)), "full": root @ root.T}[
        kind
    ]
    return (lambda x: 3 + x @ g + np.einsum("ni,ij,nj->n", x, h, x)), g, h


def model_of(x: Matrix, values: Matrix, last: str | None = None, **where: Any) -> Model:
    dim = x.shape[1]
    where = {"center": np.zeros(dim), "factor": np.eye(dim), "deviations": np.ones(dim), **where}
    return fit(x, values, where["center"], where["factor"], where["deviations"], last)


def values_of(model: Model, x: Matrix) -> Matrix:
    return np.asarray(model.base + model.unit * model(x))


# The model.


def test_number_of_coefficients() -> None:
    assert [num_coefficients(20, kind) for kind in ("linear", "diagonal", "full")] == [21, 41, 231]
    assert [num_coefficients(1, kind) for kind in ("linear", "diagonal", "full")] == [2, 3, 3]


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("kind", ["linear", "diagonal", "full"])
def test_model_is_exact_on_functions_of_its_kind(kind: str, dim: int) -> None:
    function, _, _ = parabola(dim, kind)
    x = draws(num_coefficients(dim, kind) + 2, dim)
    model = model_of(x, function(x))
    new = 10 * draws(7, dim, "new")
    np.testing.assert_allclose(
        values_of(model, new), function(new), rtol=0, atol=1e-8 * np.ptp(function(new))
    )


def test_model_is_exact_far_away_and_in_any_units() -> None:
    """In coordinates of the distribution nothing is lost: values of 1e-12, 1e6 away from 0."""
    function, _, _ = parabola(4, "full")
    units = np.array([1e-6, 1e-3, 1.0, 1e3])
    center = 1e6 * units
    factor = np.triu(0.3 * draws(4, 4, "factor")) + np.eye(4)
    z = draws(40, 4)
    x = center + z @ factor * units
    model = model_of(
        x, 1e-12 * function((x - center) / units), center=center, factor=factor, deviations=units
    )
    new = center + draws(9, 4, "new") @ factor * units
    np.testing.assert_allclose(values_of(model, new), 1e-12 * function((new - center) / units), rtol=1e-6)


def test_richer_models_come_with_more_points() -> None:
    function, _, _ = parabola(3, "full")
    kinds = [model_of(x := draws(n, 3), function(x)).kind for n in range(2, 14)]
    assert kinds == ["linear"] * 7 + ["diagonal"] * 3 + ["full"] * 2


def test_a_full_model_has_to_be_better_than_the_diagonal_one() -> None:
    """With noise in the values and hardly more points than coefficients it is worse."""
    x = draws(24, 5)
    noisy = (x**2 * np.arange(1.0, 6)).sum(1) + draws(24, 1, "noise")[:, 0]
    assert model_of(x, noisy).kind == "diagonal"
    assert model_of(x, noisy, last="full").kind == "full"
    assert model_of(x, rotated(ellipsoid, 5)(x)).kind == "full"


def test_weighted_least_squares() -> None:
    """The best points and the near ones count most: the same as numpy's solution of the weighted rows."""
    n, dim = 12, 2
    x, values = draws(n, dim), draws(n, 1, "values")[:, 0]
    model = model_of(x, values, last="full")
    assert model.kind == "full"
    order = np.argsort(values)[: max(6 + 2 + 3, int(0.75 * (n + 1)))]
    x, values = x[order], values[order]
    weight = np.linspace(20, 1, len(order)) / (1 + (x**2).sum(1) / dim)
    rows = np.column_stack([np.ones(len(x)), x, x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2])
    c, gx, gy, xx, xy, yy = np.linalg.lstsq(rows * weight[:, None], values * weight, rcond=None)[0]
    np.testing.assert_allclose(model.base + model.unit * model.constant, c, rtol=1e-9)
    np.testing.assert_allclose(model.unit * model.gradient, [gx, gy], rtol=1e-9)
    np.testing.assert_allclose(model.unit * model.hessian, [[xx, xy / 2], [xy / 2, yy]], rtol=1e-9)


@pytest.mark.parametrize(
    "x",
    [np.zeros((30, 3)), np.tile([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]], (15, 1)), draws(30, 3) * [1.0, 1.0, 0.0]],
    ids=["one point", "two points", "a constant coordinate"],
)
def test_points_that_do_not_determine_the_model(x: Matrix) -> None:
    values = sphere(x)
    model = model_of(x, values)
    np.testing.assert_allclose(values_of(model, x), values, atol=1e-6)
    for part in (model.constant, model.gradient, model.hessian):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1e150, 1.5e308])
def test_values_of_any_size(size: float) -> None:
    x = draws(20, 2)
    values = np.tanh(ellipsoid(x)) * size
    values[0] = -size
    with np.errstate(over="raise", invalid="raise"):
        model = model_of(x, values)
    assert np.isfinite(model(x)).all()
    assert math.isfinite(model.unit)


def test_points_further_than_numbers_reach() -> None:
    x = np.vstack([draws(10, 2), 1e200 * draws(4, 2, "far")])
    model = model_of(x, np.arange(14.0))
    assert np.isfinite(model.hessian).all()
    assert np.isfinite(model(x[:10])).all()


# Its minimum.


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_minimum_of_a_bowl_is_exact(dim: int) -> None:
    function, g, h = parabola(dim, "full")
    x = draws(2 * num_coefficients(dim, "full"), dim)
    center, root = draws(1, dim, "center")[0], np.triu(draws(dim, dim, "other root")) + 3 * np.eye(dim)
    z = minimum(model_of(x, function(x)), center, root, 1e9)
    np.testing.assert_allclose(center + z @ root, np.linalg.solve(h, -g / 2), rtol=1e-7)


@pytest.mark.parametrize("signs", list(itertools.product([-1, 0, 1], repeat=2)), ids=str)
@pytest.mark.parametrize("gradient", [(1.0, -2.0), (0.0, 1.0), (0.0, 0.0), (1e-9, 0.0)], ids=str)
def test_minimum_in_a_ball_is_the_best_point_of_a_fine_grid(
    signs: tuple[int, int], gradient: tuple[float, float]
) -> None:
    g, h = np.array(gradient), np.diag(np.array(signs) * [1.0, 3.0])
    z = quadratic_model._in_ball(g, h, 1.5)
    assert z @ z <= 1.5**2 * (1 + 1e-3)
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, 1.5, 61))
    grid = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1, 2)
    values = grid @ g + np.einsum("ni,ij,nj->n", grid, h, grid)
    assert z @ g + z @ h @ z <= values.min() + 1e-3


def test_minimum_in_a_box_is_on_its_walls() -> None:
    """The free coordinates are where they are best with the others at the walls."""
    dim = 4
    function, g, h = parabola(dim, "full")
    x = draws(40, dim)
    best = np.linalg.solve(h, -g / 2)
    box = (
        np.where(np.arange(dim) % 2, best - 5, best + 0.25),
        np.where(np.arange(dim) % 2, best + 5, best + 5),
    )
    center = np.clip(best + 1, *box)
    z = minimum(model_of(x, function(x)), center, np.eye(dim), 1e6, box)
    found = center + z
    np.testing.assert_allclose(found[::2], box[0][::2], rtol=1e-9)
    free = np.array([1, 3])
    np.testing.assert_allclose((g + 2 * h @ found)[free], 0, atol=1e-6)


# Tau.


def test_tau_with_ties_is_that_of_scipy() -> None:
    for seed in range(20):
        a, b = np.random.default_rng(seed).integers(0, 5, (2, 9)).astype(float)
        assert kendall(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)


def test_tau_of_equal_orders() -> None:
    a = draws(15, 1)[:, 0]
    assert kendall(a, np.exp(a)) == 1
    assert kendall(a, -a) == -1
    assert kendall(a, np.zeros(15)) == kendall(np.ones(15), a) == 0


# Steps.


def start(method: LQCMA, dim: int = 5, **options: Any) -> Any:
    return method.init(np.linspace(1, 2, dim), key=Key(0), **options)


def searched(method: LQCMA, state: Any, function: Any, steps: int) -> Any:
    for _ in range(steps):
        state = told(method, state, function(rows_of(method, state)))
    return state


@pytest.mark.parametrize("function", [sphere, ellipsoid, cigar, discus])
def test_quadratics_are_solved_once_the_model_is_full(function: Any) -> None:
    """With two more points than coefficients; CMA-ES needs 700 evaluations and more."""
    method, turned = LQCMA(), rotated(function, 5)
    state = start(method)
    while (best := np.min(state.known, initial=math.inf)) > 1e-8:
        state = searched(method, state, turned, 1)
        assert state.nfev <= num_coefficients(5, "full") + 8, best


def test_one_evaluation_a_step_where_the_model_is_exact() -> None:
    method, turned = LQCMA(), rotated(ellipsoid, 4)
    state = start(method, 4)
    while state.model is None or state.model.kind != "full" or state.asked.any():
        state = searched(method, state, turned, 1)
    for _ in range(4):  # then values are as small as rounding
        before = state
        state = searched(method, state, turned, 1)
        assert state.nfev == before.nfev + 1
        assert state.inner.step == before.inner.step + 1
        assert state.tau >= method.tau


def test_batches_grow_and_the_first_ones_are_those_the_model_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no model ranks well a whole population is evaluated, in batches."""
    monkeypatch.setattr(lq_cma, "kendall", lambda first, second: 0.0)
    method = LQCMA(population_size=12)
    state = searched(method, start(method), ellipsoid, 8)
    while state.asked.any():
        state = searched(method, state, ellipsoid, 1)
    sizes, step = [], state.inner.step
    while state.inner.step == step:
        order = state.promised.argsort()
        x = rows_of(method, state)
        everything = np.asarray(method._candidates(state)[2])
        left = [row for row in order if not state.asked[row]]
        assert x.tobytes() == everything[left[: len(x)]].tobytes()
        sizes.append(len(x))
        state = told(method, state, draws(len(x), 1, f"batch {len(sizes)}")[:, 0])
    assert sizes == [1, 1, 1, 2, 3, 4]


def test_whole_population_evaluated_is_a_step_of_cma(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first step, which has no proposal, with values that the model does not rank."""
    monkeypatch.setattr(lq_cma, "kendall", lambda first, second: 0.0)
    method = LQCMA()
    state, plain = start(method), CMAES().init(np.linspace(1, 2, 5), key=Key(0))
    values = draws(8, 1, "values")[:, 0]
    while state.inner.step == 0:
        rows = method._rows(state)
        state = told(method, state, values[rows])
    expected = told(CMAES(), plain, values)
    assert state.inner.mean.tobytes() == expected.mean.tobytes()
    assert state.inner.sigma == expected.sigma
    assert state.nfev == 8


def test_values_that_the_strategy_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's, shifted so that the best is the best one found; failed ones stay failed."""
    method, turned = LQCMA(), rotated(ellipsoid, 4)
    state = start(method, 4)
    while state.model is None or state.model.kind != "full" or state.asked.any():
        state = searched(method, state, turned, 1)
    seen = []
    learn = CMAES.learn

    def watched(self: Any, state: Any, evaluations: Any, z: Any, y: Any) -> Any:
        seen.append(evaluations.values)
        return learn(self, state, evaluations, z, y)

    monkeypatch.setattr(CMAES, "learn", watched)
    everything = np.asarray(method._candidates(state)[2])
    rows = method._rows(state)
    failed = told(method, state, np.full(len(rows), NAN))
    assert not seen
    others = method._rows(failed)
    after = told(method, failed, turned(rows_of(method, failed)))
    assert after.inner.step == state.inner.step + 1
    learnt, model = seen[0], after.model(everything)
    assert np.isnan(learnt[rows]).all()
    usable = np.isfinite(learnt)
    assert usable.sum() >= len(learnt) - len(rows) - 1  # the proposal has no vote in the worse half
    np.testing.assert_allclose(
        learnt[usable], turned(everything[others]).min() + after.model.unit * (model - model.min())[usable]
    )


def test_archive_keeps_the_last_points_and_the_best_of_a_step_first() -> None:
    method = LQCMA(tau=1.0)
    state, dim = start(method, 2), 2
    capacity = 2 * num_coefficients(dim, "full")
    points, values = np.empty((0, dim)), np.empty(0)
    fresh, batch = 0, 0
    for _ in range(40):
        x, batch = rows_of(method, state), batch + 1
        new = draws(len(x), 1, f"values {batch}")[:, 0]
        new[0] = NAN if batch % 5 == 0 else new[0]
        valid = np.isfinite(new)
        points, values = np.vstack([x[valid], points]), np.concatenate([new[valid], values])
        fresh += int(valid.sum())
        order = np.arange(len(values))
        order[:fresh] = values[:fresh].argsort(kind="stable")
        points, values = points[order][:capacity], values[order][:capacity]
        step = state.inner.step
        state = told(method, state, new)
        fresh = fresh if state.inner.step == step else 0
        assert state.points.tobytes() == points.tobytes()
        assert state.known.tobytes() == values.tobytes()
    assert len(state.known) == capacity


def test_large_models_are_not_fitted_for_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lq_cma, "_FIT_EVERY", 5)  # 15 coefficients: every third point
    method, turned = LQCMA(), rotated(ellipsoid, 4)
    state = start(method, 4)
    while state.model is None or state.model.kind != "full":
        state = searched(method, state, turned, 1)
    models = []
    for _ in range(9):
        state = searched(method, state, turned, 1)
        models.append(state.model)
    assert [one is other for one, other in itertools.pairwise(models)].count(False) == 3


# Proposals.


def test_proposal_is_the_first_candidate() -> None:
    method, turned = LQCMA(), rotated(ellipsoid, 3)
    state = searched(method, start(method, 3), turned, 5)
    while state.asked.any():
        state = searched(method, state, turned, 1)
    z, y, x = method._candidates(state)
    assert state.proposal is not None
    assert (z[0] == state.proposal[0]).all()
    np.testing.assert_allclose(y[0], z[0] @ state.inner.factor)
    center = state.inner.mean
    best = minimum(state.model, center, state.inner.factor * state.inner.sigma, state.radius * math.sqrt(3))
    np.testing.assert_allclose(x[0], center + best @ (state.inner.factor * state.inner.sigma), rtol=1e-12)
    assert state.promise == pytest.approx(state.model.base + state.model.unit * state.model(x)[0], abs=1e-12)


def test_radius_grows_with_promises_that_are_kept() -> None:
    """On a slope they always are, and the search goes as far as it may."""
    method = LQCMA()
    state = start(method, 3)
    while state.radius < 1e3:
        x = rows_of(method, state)
        state = told(method, state, x.sum(1))
        assert state.nfev < 20
    broken = state
    while broken.inner.step == state.inner.step:
        broken = told(method, broken, np.full(len(method.ask(broken)), 1e30))
    assert broken.radius == state.radius / 10


def test_strategy_never_learns_from_a_longer_step_than_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = []
    learn = CMAES.learn

    def watched(self: Any, state: Any, evaluations: Any, z: Any, y: Any) -> Any:
        longest.append(float(z[0] @ z[0]))
        np.testing.assert_allclose(y, z @ state.factor, rtol=1e-9, atol=1e-12)
        return learn(self, state, evaluations, z, y)

    monkeypatch.setattr(CMAES, "learn", watched)
    method = LQCMA()
    searched(method, start(method, 3), lambda x: x.sum(1), 25)
    assert max(longest[1:]) <= 3 * (1 + 1e-9)


# Failures, budgets, resuming.


def test_failed_evaluations_never_enter_the_model() -> None:
    method = LQCMA()

    def half(x: Matrix) -> Matrix:
        return np.where(x[:, 0] > 1.2, NAN, sphere(x))

    state = start(method, 4)
    for _ in range(80):
        state = searched(method, state, half, 1)
        assert np.isfinite(state.known).all()
        assert len(state.points) == len(state.known)
    assert state.known.min() < 1e-8


def test_round_that_fails_changes_no_recommendation_even_where_it_ends_the_step() -> None:
    method = LQCMA(tau=1.0)
    state = start(method)
    noise = itertools.count()
    while np.count_nonzero(state.asked) != 5:  # of 8: the next batch is the last
        x = rows_of(method, state)
        state = told(method, state, draws(len(x), 1, f"noise {next(noise)}")[:, 0])
    before = method.recommend(state)
    failed = told(method, state, np.full(3, NAN))
    assert failed.inner.step == state.inner.step + 1
    assert failed.inner.mean.tobytes() != state.inner.mean.tobytes()
    assert method.recommend(failed).tobytes() == before.tobytes()


@pytest.mark.parametrize("budget", [1, 4, 5, 6, 17])
def test_budget_is_kept_to_the_last_evaluation(budget: int) -> None:
    method = LQCMA()
    state = start(method, budget=budget)
    while method.finished(state) is None:
        state = searched(method, state, rosenbrock, 1)
    assert state.nfev == budget
    assert len(method.ask(state)) == 0
    assert "budget" in str(method.finished(state))


def test_resumes_within_a_step() -> None:
    method, within = LQCMA(), 0
    state = start(method, bounds=Bounds(np.full(5, -1.0), np.full(5, 3.0)))
    for _ in range(60):
        lq_cma.clear_cache()
        revived = thaw(*freeze(state))
        assert digest(revived) == digest(state)
        x = rows_of(method, state)
        lq_cma.clear_cache()
        assert rows_of(method, revived).tobytes() == x.tobytes()
        state = told(method, state, rastrigin(x))
        assert digest(told(method, revived, rastrigin(x))) == digest(state)
        within += bool(state.asked.any())
    assert within > 10


def test_batch_is_at_least_as_large_as_asked_for() -> None:
    method = LQCMA(batch=4)
    state = searched(method, start(method), sphere, 10)
    while state.asked.any():
        state = searched(method, state, sphere, 1)
    assert len(method.ask(state)) == 4


# Starts and boxes.


def test_known_points_make_the_first_model() -> None:
    turned = rotated(ellipsoid, 4)
    points = draws(20, 4) + 1
    method = LQCMA()
    state = method.init(np.zeros(4), key=Key(0), known=Known(points, turned(points)))
    assert state.model is not None
    assert state.model.kind == "full"
    assert state.inner.mean.tolist() == points[turned(points).argmin()].tolist()
    assert state.nfev == 0
    x = rows_of(method, state)
    assert len(x) == 1
    assert turned(x)[0] < 0.5 * turned(points).min()
    state = searched(method, state, turned, 6)
    assert state.known.min() < 1e-10


def test_one_known_point_is_a_start() -> None:
    state = LQCMA().init(np.zeros(2), key=Key(0), known=Known([[3.0, 4.0]], [1.0]))
    assert state.model is None
    assert state.inner.mean.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("boundary", ["smooth", "reflect", "clip"])
def test_minimum_on_the_walls_is_found(boundary: str) -> None:
    """The model sees points as they are evaluated, so walls do not bend it."""
    dim = 4
    function, g, h = parabola(dim, "full")
    best = np.linalg.solve(h, -g / 2)
    lower = np.where(np.arange(dim) % 2, best - 2, best + 0.25)
    box = Bounds(lower, lower + 4)
    method = LQCMA(boundary=boundary)
    state = method.init(lower + 1, key=Key(0), bounds=box, scale=0.5)
    while state.nfev < 120:
        x = rows_of(method, state)
        assert box.contains(x)
        state = told(method, state, function(x))
    found = state.points[state.known.argmin()]
    # No move inside the box is downhill.
    slope = g + 2 * h @ found
    at_wall = found < box.lower + 1e-9
    assert at_wall.any()
    assert (slope[at_wall] > 0).all()
    np.testing.assert_allclose(slope[~at_wall], 0, atol=1e-3)


# Not harmful.


def test_not_much_worse_than_cma_where_no_model_fits() -> None:
    def reached(method: Any) -> float:
        bests = []
        for seed in range(7):
            state = method.init(np.full(4, 2.2), key=Key(seed), scale=2.0)
            best = math.inf
            while state.nfev < 800 and method.finished(state) is None:
                values = rastrigin(rows_of(method, state))
                state, best = told(method, state, values), min(best, float(values.min()))
            bests.append(best)
        return float(np.median(bests))

    assert reached(LQCMA(population_size=20)) <= reached(CMAES(population_size=20)) + 1
