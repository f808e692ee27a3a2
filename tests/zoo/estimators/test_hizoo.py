"""HiZOO against its formulas, and where its Hessian comes to rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.estimators.finite_difference import FiniteDifference
from zoo.estimators.hizoo import HiZOO

DIM = 4
X = np.random.default_rng(0).normal(size=DIM)
CURVATURES = np.array([1.0, 2.0, 5.0, 10.0])


def quadratic(rows: Any) -> Any:
    return to_numpy(rows).astype(np.float64) ** 2 @ CURVATURES / 2 + 3


def saddle(rows: Any) -> Any:
    return to_numpy(rows).astype(np.float64) ** 2 @ (CURVATURES * [1, -1, 1, -1]) / 2


def estimated(estimator: Any, state: Any, x: Any = X, step: int = 0, fun: Any = quadratic) -> Any:
    asked = estimator.ask(state, x, Key(0), step)
    return estimator.estimate(state, x, Evaluations(fun(asked.rows(0, len(asked)))), Key(0), step)


def with_hessian(estimator: HiZOO, hessian: Any, x: Any = X) -> Any:
    state = estimator.init(x)
    tree, arrays = freeze(state)
    arrays = {name: hessian if array.shape == (DIM,) else array for name, array in arrays.items()}
    return thaw(tree, arrays)


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_step_is_the_papers(law: str, count: int) -> None:
    estimator = HiZOO(law, count, 0.1, rate=0.25)
    hessian = np.array([0.5, 1.0, 4.0, 9.0])
    state = with_hessian(estimator, hessian)
    z = FiniteDifference(law, count, 0.1)
    z = z.ask(z.init(X), X, Key(0), 0).along(0, count)
    asked = estimator.ask(state, X, Key(0), 0)
    assert len(asked) == estimator.queries(count) == 2 * count + 1
    rows = asked.rows(0, len(asked))
    np.testing.assert_allclose(rows[0], X, rtol=0)
    np.testing.assert_allclose(rows[1::2], X + 0.1 * z / np.sqrt(hessian), rtol=1e-13)
    np.testing.assert_allclose(rows[2::2], X - 0.1 * z / np.sqrt(hessian), rtol=1e-13)
    values = quadratic(rows)
    state, estimate = estimator.estimate(state, X, Evaluations(values), Key(0), 0)
    slopes = (values[1::2] - values[2::2]) / 0.2
    np.testing.assert_allclose(estimate.gradient, slopes @ (z / np.sqrt(hessian)) / count, rtol=1e-9)
    assert (estimate.queries, estimate.value) == (2 * count + 1, values[0])
    second = np.abs(values[1::2] + values[2::2] - 2 * values[0]) / (2 * 0.1**2)
    followed = 0.75 * hessian + 0.25 * (second @ (hessian * z**2)) / count
    np.testing.assert_allclose(estimator.hessian(state), followed, rtol=1e-9)


def test_axes_learn_half_the_diagonal_at_once() -> None:
    estimator = HiZOO("axes", None, 0.1, rate=1.0)
    state, first = estimated(estimator, estimator.init(X))
    np.testing.assert_allclose(first.gradient, CURVATURES * X, rtol=1e-9)
    np.testing.assert_allclose(estimator.hessian(state), CURVATURES / 2, rtol=1e-9)
    state, second = estimated(estimator, state, step=1)
    np.testing.assert_allclose(second.gradient, 2 * X, rtol=1e-9)
    np.testing.assert_allclose(estimator.hessian(state), CURVATURES / 2, rtol=1e-9)


def test_negative_curvature_counts_by_its_size() -> None:
    estimator = HiZOO("axes", None, 0.1, rate=1.0)
    state, _ = estimated(estimator, estimator.init(X), fun=saddle)
    np.testing.assert_allclose(estimator.hessian(state), CURVATURES / 2, rtol=1e-9)


def test_the_shape_of_the_diagonal_is_where_normal_directions_come_to_rest() -> None:
    """The mean over z is H / 2 (tr(A / H) + 2 diag(A / H)), which is H itself at (d + 2) / 2 diag(A)."""
    steps = 4000
    estimator = HiZOO("gaussian", steps, 0.1, rate=1.0)
    for hessian in (np.ones(DIM), (DIM + 2) / 2 * CURVATURES):
        state, _ = estimated(estimator, with_hessian(estimator, hessian))
        relative = CURVATURES / hessian
        expected = hessian * (relative.sum() + 2 * relative) / 2
        # The variance of z^T B z z_j^2 / 2 is at most E (z^T B z)^2 z_j^4 / 4 <= 105 / 4 (tr B)^2.
        band = 6 * hessian * relative.sum() * np.sqrt(105 / 4 / steps)
        assert (np.abs(estimator.hessian(state) - expected) < band).all()
    np.testing.assert_allclose(expected, hessian)


@pytest.mark.parametrize("size", [1e-100, 1.0, 1e100])
def test_with_auto_the_distance_does_not_depend_on_the_size_of_the_objective(size: float) -> None:
    estimator = HiZOO("axes", None, rate=1.0, smoothing="auto")
    state = estimator.init(X)
    for step in range(3):
        asked = estimator.ask(state, X, Key(0), step)
        gone = np.abs(asked.rows(0, len(asked)) - X).max(0)
        shape = 1.0 if step == 0 else np.sqrt(CURVATURES[0] / CURVATURES)
        np.testing.assert_allclose(gone, asked.smoothing * shape, rtol=1e-5)
        assert 1e-4 < asked.smoothing < 1e-2
        state, estimate = estimated(estimator, state, step=step, fun=lambda rows: size * quadratic(rows))
    np.testing.assert_allclose(estimator.hessian(state) / size, CURVATURES / 2, rtol=1e-5)
    np.testing.assert_allclose(estimate.gradient, 2 * X, rtol=1e-5)


def test_failed_pairs_teach_nothing() -> None:
    estimator = HiZOO("axes", None, 0.1, rate=1.0)
    state = estimator.init(X)
    values = quadratic(estimator.ask(state, X, Key(0), 0).rows(0, 9))
    values[0] = np.nan
    state, estimate = estimator.estimate(state, X, Evaluations(values), Key(0), 0)
    np.testing.assert_allclose(estimate.gradient, CURVATURES * X, rtol=1e-9)
    assert estimator.hessian(state).tolist() == [1.0] * DIM
    values[:] = np.nan
    state, estimate = estimator.estimate(state, X, Evaluations(values), Key(0), 0)
    assert not estimate.gradient.any()
    assert estimator.hessian(state).tolist() == [1.0] * DIM


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kind_and_dtype_follow(kind: str, dtype: str) -> None:
    like, estimator = Like(kind, dtype), HiZOO("rademacher", 2, 0.1, rate=0.5)
    x = like.asarray(X)
    state, estimate = estimated(estimator, estimator.init(x), x)
    expected = estimated(estimator, estimator.init(X))
    assert Like.of(estimate.gradient) == Like.of(estimator.hessian(state)) == like
    tolerance = 1e4 * like.epsilon
    np.testing.assert_allclose(to_numpy(estimate.gradient), expected[1].gradient, rtol=tolerance)
    np.testing.assert_allclose(
        to_numpy(estimator.hessian(state)), estimator.hessian(expected[0]), rtol=tolerance
    )


def test_states_go_through_files() -> None:
    estimator = HiZOO("guided", 2, rate=0.1)
    state = estimator.init(X)
    for step in range(3):
        again = thaw(*freeze(state))
        state, estimate = estimated(estimator, state, step=step)
        other, same = estimated(estimator, again, step=step)
        assert digest((state, tuple(estimate))) == digest((other, tuple(same)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HiZOO(rate=1.5), "`rate` must be"),
        (lambda: HiZOO(rate=-1e-8), "`rate` must be"),
        (lambda: HiZOO(stencil="forward"), "`stencil` must be 'central'"),
        (lambda: HiZOO("gauss"), "`directions` must be one of"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
