"""Estimates of gradients: exact identities first, closed-form bands where chance cannot be avoided."""

from __future__ import annotations

import itertools
import math
import pickle
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest

from tests.zoo.estimators.test_directions import Given
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.estimators import finite_difference
from zoo.estimators.directions import Axes, Gaussian, Masked, Rademacher
from zoo.estimators.finite_difference import FiniteDifference, GradientEstimate

DIM = 6
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(DIM, DIM))
MATRIX = MATRIX @ MATRIX.T
LINEAR = RNG.normal(size=DIM)
X = RNG.normal(size=DIM)
GRADIENT = MATRIX @ X + LINEAR


def quadratic(rows: Any) -> Any:
    return (rows @ MATRIX * rows).sum(1) / 2 + rows @ LINEAR


def linear(rows: Any) -> Any:
    return rows @ LINEAR


def curved(rows: Any) -> Any:
    return np.exp(rows @ np.linspace(0.5, 1, rows.shape[1]) / 3) + np.sin(rows).sum(1)


def curved_gradient(x: Any) -> Any:
    weights = np.linspace(0.5, 1, len(x))
    return np.exp(x @ weights / 3) * weights / 3 + np.cos(x)


def estimated(
    estimator: FiniteDifference,
    fun: Any,
    x: Any = X,
    *,
    key: Key = Key(0),  # noqa: B008 - keys never change
    step: int = 0,
    state: Any = None,
    values: Any = None,
    bounds: Bounds | None = None,
    scale: Any = 1.0,
    **options: Any,
) -> tuple[Any, GradientEstimate]:
    if state is None:
        state = estimator.init(x, bounds=bounds, scale=scale)
    asked = estimator.ask(state, x, key, step, **options)
    if values is None:
        values = fun(to_numpy(asked.rows(0, len(asked))).astype(np.float64))
    return estimator.estimate(state, x, Evaluations(values), key, step, **options)


SIGNS = Given(np.array(list(itertools.product([-1.0, 1.0], repeat=DIM))))


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("smoothing", [1e-2, 1.0])
def test_all_sign_vectors_give_the_gradient(stencil: str, smoothing: float) -> None:
    """Odd moments of the whole design vanish, so the curvature of a quadratic cancels in both stencils."""
    estimator = FiniteDifference(SIGNS, 2**DIM, smoothing, stencil)
    _, estimate = estimated(estimator, quadratic)
    np.testing.assert_allclose(estimate.gradient, GRADIENT, rtol=0, atol=1e-11)
    assert estimate.num_valid == 2**DIM
    assert estimate.queries == (2 if stencil == "central" else 1) * 2**DIM + (stencil == "forward")


@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 1.0, 10.0])
def test_central_differences_along_axes_are_exact_on_quadratics(smoothing: float) -> None:
    _, estimate = estimated(FiniteDifference("axes", smoothing=smoothing), quadratic)
    np.testing.assert_allclose(estimate.gradient, GRADIENT, rtol=1e-10)


@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 1.0])
def test_forward_differences_along_axes_are_off_by_the_curvature(smoothing: float) -> None:
    _, estimate = estimated(FiniteDifference("axes", None, smoothing, "forward"), quadratic)
    expected = GRADIENT + smoothing / 2 * np.diag(MATRIX)
    np.testing.assert_allclose(estimate.gradient, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("stencil", "order"), [("forward", 1), ("central", 2)])
@pytest.mark.parametrize("law", ["axes", "orthonormal"])
def test_order_of_convergence(law: str, stencil: str, order: int) -> None:
    errors = []
    for smoothing in (2e-3, 1e-3):
        _, estimate = estimated(FiniteDifference(law, None, smoothing, stencil), curved)
        errors.append(np.linalg.norm(estimate.gradient - curved_gradient(X)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.02)


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("count", [1, 3, DIM])
def test_orthonormal_directions_give_the_projection(stencil: str, count: int) -> None:
    estimator = FiniteDifference("orthonormal", count, 0.1, stencil)
    state, estimate = estimated(estimator, linear)
    basis = estimator.ask(state, X, Key(0), 0).along(0, count) / math.sqrt(DIM)
    expected = DIM / count * basis.T @ (basis @ LINEAR)
    np.testing.assert_allclose(estimate.gradient, expected, rtol=0, atol=1e-11)
    if count == DIM:
        np.testing.assert_allclose(estimate.gradient, LINEAR, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_agree(dtype: str) -> None:
    """They draw the same signs, and may round differently."""
    found = []
    for kind in ("numpy", "torch"):
        x = Like(kind, dtype).asarray(X)
        _, estimate = estimated(FiniteDifference("rademacher", 5, 0.1), quadratic, x)
        assert Like.of(estimate.gradient) == Like(kind, dtype)
        found.append(to_numpy(estimate.gradient))
    np.testing.assert_allclose(*found, rtol=1e-12 if dtype == "float64" else 1e-4)


MOMENTS = {  # E|g|^2 / |grad f|^2 over n directions in d dimensions
    "gaussian": lambda n, d: (n + d + 1) / n,
    "rademacher": lambda n, d: (n + d - 1) / n,
    "sphere": lambda n, d: (n + d - 1) / n,
    "orthonormal": lambda n, d: d / n,
    "axes": lambda n, d: d / n,
}


@pytest.mark.parametrize("law", MOMENTS)
def test_estimates_have_the_moments_of_their_law(law: str) -> None:
    """Mean within 6 deviations of the gradient; mean square within 6 deviations, as found in the sample."""
    dim, count, steps = 10, 4, 1500
    gradient = np.linspace(1, 2, dim)
    estimator = FiniteDifference(law, count, 1.0)
    x = np.zeros(dim)
    state = estimator.init(x)
    estimates = np.stack(
        [
            estimated(estimator, lambda rows: rows @ gradient, x, state=state, step=k)[1].gradient
            for k in range(steps)
        ]
    )
    moment = MOMENTS[law](count, dim)
    squares = (estimates**2).sum(1) / (gradient @ gradient)
    assert abs(squares.mean() - moment) < 6 * squares.std() / math.sqrt(steps) + 1e-12
    miss = np.linalg.norm(estimates.mean(0) - gradient) / np.linalg.norm(gradient)
    assert miss < 6 * math.sqrt((moment - 1) / steps)


def test_orthonormal_directions_vary_less_than_independent_ones() -> None:
    spread, gradient = {}, np.ones(20)
    for law in ("orthonormal", "gaussian"):
        estimator = FiniteDifference(law, 4, 1.0)
        state = estimator.init(np.zeros(20))
        found = [
            estimated(estimator, lambda rows: rows.sum(1), np.zeros(20), state=state, step=k)[1].gradient
            for k in range(800)
        ]
        spread[law] = ((np.stack(found) - gradient) ** 2).sum(1).mean()
    assert spread["orthonormal"] < 0.9 * spread["gaussian"]


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("smoothing", [0.1, "auto"])
@pytest.mark.parametrize("base", [False, True])
def test_rows_and_queries(stencil: str, smoothing: Any, base: bool) -> None:
    estimator = FiniteDifference("rademacher", 3, smoothing, stencil)
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 2, base=base)
    auto = smoothing == "auto"
    expected = 6 + (base or auto) if stencil == "central" else 4 + auto
    assert len(asked) == estimator.queries(3, base=base) == expected
    rows = asked.rows(0, len(asked))
    if asked.lead:
        assert rows[0].tobytes() == X.tobytes()
    steps = asked.along(0, 3) * state.smoothing
    if stencil == "central":
        np.testing.assert_allclose(rows[asked.first :: 2], X + steps, rtol=1e-15)
        np.testing.assert_allclose(rows[asked.first + 1 :: 2], X - steps, rtol=1e-15)
    else:
        np.testing.assert_allclose(rows[asked.first :], X + steps, rtol=1e-15)
        if auto:
            np.testing.assert_allclose(rows[1], X - steps[0], rtol=1e-12)
    assert (asked.noise(0, len(asked)) == 0).all(), "all rows of a step see the same noise"
    for start in range(len(asked)):
        for stop in range(start + 1, len(asked) + 1):
            assert asked.rows(start, stop).tobytes() == rows[start:stop].tobytes()
    travelled = pickle.loads(pickle.dumps(asked))
    assert travelled.rows(0, len(asked)).tobytes() == rows.tobytes()
    rows += 1
    assert asked.rows(0, 1).tobytes() != rows[:1].tobytes()


def test_candidates_are_described_not_shipped() -> None:
    estimator = FiniteDifference("gaussian", 1000)
    x = np.zeros(1000)
    assert len(pickle.dumps(estimator.ask(estimator.init(x), x, Key(0), 0))) < 8 * 1000 + 2000


@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_memory_does_not_grow_with_the_number_of_directions(stencil: str) -> None:
    x = np.zeros(2**16)
    estimator = FiniteDifference("rademacher", 64, 1e-3, stencil)
    state = estimator.init(x)
    values = np.random.default_rng(0).normal(size=estimator.queries(64))
    tracemalloc.start()
    try:
        estimator.estimate(state, x, Evaluations(values), Key(0), 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * x.nbytes / 2


@pytest.mark.parametrize("law", ["gaussian", "orthonormal", "axes"])
def test_chunks_add_up(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = FiniteDifference(law, 5, 0.1)
    whole = estimated(estimator, quadratic)[1].gradient
    monkeypatch.setattr(finite_difference, "_CHUNK", 2 * DIM)
    np.testing.assert_allclose(estimated(estimator, quadratic)[1].gradient, whole, rtol=1e-13)


@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_failed_directions_are_dropped(stencil: str) -> None:
    """Both partners of a pair go, and the sum is divided by what is left."""
    estimator = FiniteDifference(SIGNS, 8, 0.5, stencil)
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 0)
    values = quadratic(asked.rows(0, len(asked)))
    values[asked.first + (3 if stencil == "central" else 1)] = np.nan
    _, estimate = estimated(estimator, None, state=state, values=values)
    left = [0, 2, 3, 4, 5, 6, 7]
    expected = estimated(FiniteDifference(Given(SIGNS.rows[left]), 7, 0.5, stencil), quadratic)[1]
    assert estimate.num_valid == 7
    np.testing.assert_allclose(estimate.gradient, expected.gradient, rtol=1e-13)


def test_failed_base_is_replaced_by_the_mean() -> None:
    """On average over all sign vectors the mean of the others does as well, to the last digits."""
    estimator = FiniteDifference(SIGNS, 2**DIM, 0.5, "forward")
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 0)
    values = quadratic(asked.rows(0, len(asked)))
    values[0] = np.nan
    _, estimate = estimated(estimator, None, state=state, values=values)
    assert estimate.num_valid == 2**DIM
    assert math.isnan(estimate.value)
    np.testing.assert_allclose(estimate.gradient, GRADIENT * 64 / 63, rtol=1e-10)
    values[2:] = np.nan
    assert estimated(estimator, None, state=state, values=values)[1].num_valid == 0


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("smoothing", [0.1, "auto"])
def test_nothing_is_left(stencil: str, smoothing: Any) -> None:
    estimator = FiniteDifference("guided", 3, smoothing, stencil)
    state = estimator.init(X)
    after, estimate = estimated(estimator, lambda rows: np.full(len(rows), np.nan), state=state)
    assert (estimate.gradient == 0).all()
    assert estimate.num_valid == 0
    assert math.isnan(estimate.value)
    assert digest(after) == digest(state)


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("law", ["axes", "gaussian", "orthonormal"])
@pytest.mark.parametrize("like", [Like("numpy", "float64"), Like("torch", "float32")], ids=str)
def test_bounds_hold_and_actual_displacements_enter(stencil: str, law: str, like: Like) -> None:
    """The base is in a corner, on an edge, in a box narrower than the smoothing, on a fixed coordinate."""
    lower = X - np.array([0.0, 0.0, 1.0, 0.01, 0.0, 5.0])
    upper = X + np.array([1.0, 1.0, 0.0, 0.02, 0.0, 5.0])
    bounds = Bounds(lower, upper)
    x = bounds.map(like.asarray(X), "clip")
    estimator = FiniteDifference(law, 400 if law == "gaussian" else None, 0.1, stencil)
    state = estimator.init(x, bounds=bounds)
    asked = estimator.ask(state, x, Key(0), 0)
    rows = asked.rows(0, len(asked))
    assert bounds.contains(rows)
    _, estimate = estimated(estimator, linear, x, state=state)
    free = np.array([0, 1, 2, 3, 5])
    gradient = to_numpy(estimate.gradient)
    if law == "axes":
        np.testing.assert_allclose(
            gradient[free], LINEAR[free], rtol=1e-4 if like.dtype == "float32" else 1e-9
        )
    else:
        assert gradient @ LINEAR > 0
    assert gradient[4] == 0


def test_pairs_keep_their_distance_at_a_wall() -> None:
    bounds = Bounds(np.zeros(2), np.ones(2))
    estimator = FiniteDifference("axes", 2, 0.1)
    x = np.array([0.0, 0.95])
    asked = estimator.ask(estimator.init(x, bounds=bounds), x, Key(0), 0)
    rows = asked.rows(0, 4)
    np.testing.assert_allclose(np.abs(rows[::2] - rows[1::2]).max(1), 0.2)
    assert bounds.contains(rows)


def test_stretched_directions() -> None:
    """The estimate is the gradient in the coordinates divided by scale / max(scale)."""
    scale = np.array([1.0, 10.0, 5.0, 2.0, 1.0, 0.0])
    state, estimate = estimated(FiniteDifference("axes", None, 0.1), quadratic, scale=scale)
    stretch = np.array([0.1, 1.0, 0.5, 0.2, 0.1, 1.0])
    np.testing.assert_allclose(state.stretch, stretch)
    np.testing.assert_allclose(estimate.gradient, GRADIENT * stretch, rtol=1e-9)
    assert estimated(FiniteDifference("axes"), quadratic, scale=np.full(DIM, 3.0))[0].stretch is None


def test_masked_coordinates_stay() -> None:
    mask = np.array([True, False, True, True, False, True])
    estimator = FiniteDifference(Masked(Axes(), mask), smoothing=0.1)
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 0)
    assert len(asked) == 8
    assert (asked.rows(0, 8)[:, ~mask] == X[~mask]).all()
    _, estimate = estimated(estimator, quadratic)
    np.testing.assert_allclose(estimate.gradient, np.where(mask, GRADIENT, 0), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rows_count_as_they_are(dtype: str) -> None:
    like = Like("torch", dtype)
    x = like.asarray(X)
    estimator = FiniteDifference("axes", None, 0.05)
    state = estimator.init(x)
    asked = estimator.ask(state, x, Key(0), 0)
    rows = asked.rows(0, len(asked))
    assert Like.of(rows) == like
    _, estimate = estimated(estimator, linear, x)
    assert Like.of(estimate.gradient).dtype == "float32"
    np.testing.assert_allclose(to_numpy(estimate.gradient), LINEAR, rtol=1e-4)


@pytest.mark.parametrize("law", ["gaussian", "guided", "subspace"])
def test_states_go_through_files(law: str) -> None:
    estimator = FiniteDifference(law, 3)
    state = estimator.init(X)
    for step in range(5):
        again = thaw(*freeze(state))
        x = X + step
        first, second = (estimated(estimator, quadratic, x, state=s, step=step) for s in (state, again))
        assert digest(first[0]) == digest(second[0])
        assert first[1].gradient.tobytes() == second[1].gradient.tobytes()
        state = first[0]


def test_says_once_that_nothing_changes() -> None:
    estimator = FiniteDifference("gaussian", 3)
    state = estimator.init(X)
    with pytest.warns(ZooWarning, match="did not change under any of 3 perturbations"):
        after, estimate = estimated(estimator, lambda rows: np.ones(len(rows)), state=state)
    assert (estimate.gradient == 0).all()
    assert estimate.num_valid == 3
    assert after.smoothing == pytest.approx(10 * state.smoothing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(20):
            after, _ = estimated(estimator, lambda rows: np.ones(len(rows)), state=after, step=step)
    assert after.smoothing == 0.5
    fixed = FiniteDifference("gaussian", 3, 0.1)
    with pytest.warns(ZooWarning, match="of size 1.0e-01"):
        state, _ = estimated(fixed, lambda rows: np.ones(len(rows)))
    assert state.smoothing == 0.1


def test_a_symmetric_minimum_is_no_constant() -> None:
    estimator = FiniteDifference("axes", smoothing=0.5)
    _, estimate = estimated(estimator, lambda rows: (rows**2).sum(1), np.zeros(3), base=True)
    assert (estimate.gradient == 0).all()


def test_smoothing_may_decay() -> None:
    estimator = FiniteDifference(Rademacher(), 1, 0.4, "central", smoothing_decay=0.5)
    state = estimator.init(X)
    pair = estimator.ask(state, X, Key(0), 3).rows(0, 2)
    np.testing.assert_allclose(np.abs(pair[0] - pair[1]), 2 * 0.4 / 2, rtol=1e-12)
    _, estimate = estimated(FiniteDifference(SIGNS, 2**DIM, 0.4, "central", 0.5), quadratic, step=3)
    np.testing.assert_allclose(estimate.gradient, GRADIENT, rtol=1e-10)


def test_base_alone() -> None:
    for stencil in ("forward", "central"):
        estimator = FiniteDifference("axes", stencil=stencil)
        _, estimate = estimated(estimator, quadratic, num_directions=0, base=True)
        assert estimate.queries == 1
        assert estimate.value == quadratic(X[None])[0]
        assert estimate.num_valid == 0


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_of_any_size(size: float, dtype: str) -> None:
    """Nothing overflows, and what fits the dtype is right."""
    _, estimate = estimated(FiniteDifference("axes"), lambda r: size * quadratic(r), X.astype(dtype))
    assert np.isfinite(estimate.gradient).all()
    if size in (1e-30, 1e30) and dtype == "float64":
        np.testing.assert_allclose(estimate.gradient / size, GRADIENT, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": "gaus"}, "`directions` must be one of"),
        ({"num_directions": 0}, "`num_directions` must be at least 1, got 0"),
        ({"smoothing": 0.0}, "`smoothing` must be a finite number above 0"),
        ({"smoothing": "large"}, "`smoothing` must be one of 'auto'"),
        ({"stencil": "centre"}, "Did you mean 'central'"),
        ({"smoothing_decay": 1.0}, "`smoothing_decay` must be at least 0 and below 1"),
        ({"smoothing": "auto", "smoothing_decay": 0.1}, "`smoothing_decay` needs a number as `smoothing`"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FiniteDifference(**options)


def test_another_number_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match="`evaluations` must have 3 values, got 2"):
        estimated(FiniteDifference("gaussian", 1), None, values=np.zeros(2))


def test_equal_estimators_are_equal() -> None:
    assert FiniteDifference("gaussian") == FiniteDifference("gaussian")
    assert FiniteDifference("gaussian").law == FiniteDifference(Gaussian()).law
    assert "law=" not in repr(FiniteDifference())
