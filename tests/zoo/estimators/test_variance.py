"""Control variates against exact identities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.zoo.estimators.test_directions import Given
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.estimators.directions import Axes
from zoo.estimators.finite_difference import FiniteDifference
from zoo.estimators.variance import ControlVariate

DIM = 6
X = np.random.default_rng(0).normal(size=DIM)
SLOPES = np.random.default_rng(1).normal(size=DIM)
OTHER = np.random.default_rng(2).normal(size=DIM)
LAWS = ("gaussian", "sphere", "rademacher", "axes", "orthonormal")
STENCILS = ("forward", "central")


def linear(rows: Any) -> Any:
    return to_numpy(rows).astype(np.float64) @ SLOPES


def curved(rows: Any) -> Any:
    rows = to_numpy(rows).astype(np.float64)
    return np.cos(rows).sum(1) + (rows**2).sum(1) * rows[:, 0]


def estimated(estimator: Any, fun: Any, state: Any, x: Any = X, step: int = 0, failed: Any = ()) -> Any:
    """Return the next state and the estimate, with some rows failed."""
    asked = estimator.ask(state, x, Key(0), step)
    values = fun(asked.rows(0, len(asked)))
    values[list(failed)] = np.nan
    return estimator.estimate(state, x, Evaluations(values), Key(0), step)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("law", LAWS)
def test_a_right_model_leaves_no_variance(law: str, stencil: str) -> None:
    estimator = ControlVariate(law, 2, 0.1, stencil, model=SLOPES)
    state = estimator.init(X)
    for step in range(3):
        state, estimate = estimated(estimator, linear, state, step=step)
        np.testing.assert_allclose(estimate.gradient, SLOPES, rtol=0, atol=1e-12)
        np.testing.assert_allclose(estimator.known(state), SLOPES, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("law", LAWS)
def test_estimates_are_those_of_the_rest_plus_the_model(law: str, stencil: str) -> None:
    """g[f] with a model h is h + g[f - h . x] without one, on the same directions."""
    estimator = ControlVariate(law, 3, 0.1, stencil, model=OTHER)
    plain = FiniteDifference(law, 3, 0.1, stencil)
    _, estimate = estimated(estimator, curved, estimator.init(X))
    _, rest = estimated(plain, lambda rows: curved(rows) - rows @ OTHER, plain.init(X))
    np.testing.assert_allclose(estimate.gradient, OTHER + rest.gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("law", LAWS)
def test_without_a_model_it_is_the_plain_estimate(law: str) -> None:
    estimator, plain = ControlVariate(law, 3, 0.1), FiniteDifference(law, 3, 0.1)
    _, estimate = estimated(estimator, curved, estimator.init(X))
    _, expected = estimated(plain, curved, plain.init(X))
    assert digest(tuple(estimate)) == digest(tuple(expected))
    assert len(estimator.ask(estimator.init(X), X, Key(0), 0)) == 6


@pytest.mark.parametrize("stencil", STENCILS)
def test_all_signs_are_unbiased_whatever_the_model(stencil: str) -> None:
    """The mean over the full Rademacher design: E[u u^T] = I exactly."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=DIM)))
    estimator = ControlVariate(Given(signs), len(signs), 0.1, stencil, model=OTHER)
    _, estimate = estimated(estimator, linear, estimator.init(X))
    np.testing.assert_allclose(estimate.gradient, SLOPES, rtol=0, atol=1e-12)


def test_variance_falls_with_the_square_of_what_the_model_misses() -> None:
    """Of a linear function, exactly: the error of an estimate is that of the rest, and that is linear."""
    errors = []
    for missing in (1.0, 0.1, 0.01):
        estimator = ControlVariate("gaussian", 2, 0.1, model=SLOPES + missing * OTHER, share=0.0)
        state = estimator.init(X)
        found = [estimated(estimator, linear, state, step=step)[1].gradient for step in range(5)]
        errors.append(np.stack(found) - SLOPES)
    np.testing.assert_allclose(errors[1], 0.1 * errors[0], rtol=1e-8)
    np.testing.assert_allclose(errors[2], 0.01 * errors[0], rtol=1e-7)


@pytest.mark.parametrize("law", ["axes", "orthonormal"])
def test_perpendicular_directions_take_over_the_slopes_along_them(law: str) -> None:
    estimator = ControlVariate(law, 2, 0.1, model=OTHER)
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 0)
    learned = estimator.known(estimated(estimator, linear, state)[0])
    basis = asked.along(0, 2) / np.linalg.norm(asked.along(0, 2), axis=1, keepdims=True)
    np.testing.assert_allclose(basis @ learned, basis @ SLOPES, rtol=0, atol=1e-12)
    rest = np.eye(DIM) - basis.T @ basis
    np.testing.assert_allclose(rest @ learned, rest @ OTHER, rtol=0, atol=1e-12)


def test_a_memory_of_coordinates_is_replaced_one_by_one() -> None:
    """JAGUAR: what is returned is the stored gradient, with the step's slopes in it."""
    cyclic = ControlVariate(Axes("cyclic"), 2, 0.1, model=OTHER, returns="memory")
    state = cyclic.init(X)
    for step in range(3):
        state, estimate = estimated(cyclic, linear, state, step=step)
        expected = np.where(np.arange(DIM) < 2 * (step + 1), SLOPES, OTHER)
        np.testing.assert_allclose(estimate.gradient, expected, rtol=0, atol=1e-12)
        assert estimate.gradient.tolist() == cyclic.known(state).tolist()


def test_the_model_is_learned_from_estimates() -> None:
    """Under a steady gradient the estimates of random directions converge to it."""
    plain, estimator = FiniteDifference("gaussian", 4, 0.1), ControlVariate("gaussian", 4, 0.1)
    state = estimator.init(X)
    for step in range(100):
        state, estimate = estimated(estimator, linear, state, step=step)
    missed = np.linalg.norm(estimate.gradient - SLOPES) / np.linalg.norm(SLOPES)
    _, other = estimated(plain, linear, plain.init(X), step=99)
    assert missed < 1e-6 < np.linalg.norm(other.gradient - SLOPES)
    fixed = ControlVariate("gaussian", 4, 0.1, model=OTHER, share=0.0)
    after, _ = estimated(fixed, linear, fixed.init(X))
    assert fixed.known(after).tolist() == OTHER.tolist()


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("failed", [[0], [1], [2, 3]])
def test_failures_are_missing_in_the_model_too(stencil: str, failed: list[int]) -> None:
    estimator = ControlVariate("gaussian", 5, 0.1, stencil, model=OTHER)
    plain = FiniteDifference("gaussian", 5, 0.1, stencil)
    _, estimate = estimated(estimator, curved, estimator.init(X), failed=failed)
    _, rest = estimated(plain, lambda rows: curved(rows) - (rows - X) @ OTHER, plain.init(X), failed=failed)
    np.testing.assert_allclose(estimate.gradient, OTHER + rest.gradient, rtol=0, atol=1e-10)
    assert estimate.num_valid == rest.num_valid


def test_nothing_is_known_when_nothing_is_left() -> None:
    estimator = ControlVariate("gaussian", 2, 0.1, model=OTHER)
    state, estimate = estimated(estimator, curved, estimator.init(X), failed=range(4))
    assert estimate.num_valid == 0
    assert not estimate.gradient.any()
    assert estimator.known(state).tolist() == OTHER.tolist()


@pytest.mark.parametrize("stencil", STENCILS)
def test_bounds_count_as_they_bend_directions(stencil: str) -> None:
    bounds = Bounds(np.zeros(DIM), np.ones(DIM))
    x = np.array([0.0, 1.0, 0.01, 0.99, 0.5, 0.3])
    estimator = ControlVariate("gaussian", 4, 0.1, stencil, model=OTHER)
    plain = FiniteDifference("gaussian", 4, 0.1, stencil)
    _, estimate = estimated(estimator, curved, estimator.init(x, bounds=bounds), x)
    _, rest = estimated(plain, lambda rows: curved(rows) - rows @ OTHER, plain.init(x, bounds=bounds), x)
    np.testing.assert_allclose(estimate.gradient, OTHER + rest.gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kind_and_dtype_follow(kind: str, dtype: str) -> None:
    like = Like(kind, dtype)
    x = like.asarray(X)
    estimator = ControlVariate("rademacher", 4, 0.1, model=SLOPES)
    state, estimate = estimated(estimator, linear, estimator.init(x), x)
    assert Like.of(estimate.gradient) == Like.of(estimator.known(state)) == like
    np.testing.assert_allclose(to_numpy(estimate.gradient), SLOPES, rtol=0, atol=100 * like.epsilon)


def test_states_go_through_files() -> None:
    estimator = ControlVariate("guided", 3, "auto")
    state = estimator.init(X)
    for step in range(3):
        again = thaw(*freeze(state))
        state, estimate = estimated(estimator, curved, state, step=step)
        other, same = estimated(estimator, curved, again, step=step)
        assert digest((state, tuple(estimate))) == digest((other, tuple(same)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ControlVariate(share=1.5), "`share` must be"),
        (lambda: ControlVariate(share=-0.1), "`share` must be"),
        (lambda: ControlVariate(returns="both"), "`returns` must be one of"),
        (lambda: ControlVariate(model=SLOPES * np.nan), "`model` must be a row of finite numbers"),
        (lambda: ControlVariate(model=SLOPES[:, None]), "`model` must be a row of finite numbers"),
        (lambda: ControlVariate(model=np.array(["a"])), "`model` must be a row of finite numbers"),
        (lambda: ControlVariate(model=SLOPES[:-1]).init(X), "`model` must have one entry per coordinate, 6"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_right_model_leaves_no_variance_in_half_precision(dtype: str, stencil: str) -> None:
    """The parameters move by what rounding leaves of a direction, here often nothing."""
    torch = pytest.importorskip("torch")
    from zoo.nn.gradient import Estimator, estimate_gradient_

    slopes = torch.from_numpy(np.random.default_rng(3).normal(size=50))
    start = Key(2).normal(0, 1, 50, like=torch.zeros(1))[0]
    weight = torch.nn.Parameter(start.to(getattr(torch, dtype)))
    law = ControlVariate("gaussian", 4, 1e-2, stencil, model=slopes.numpy(), share=0.0)
    estimator = Estimator(law)
    for step in range(2, 5):
        found = estimate_gradient_([weight], lambda: weight.double() @ slopes, estimator, Key(0), step)
        error = (found.gradient.double() - slopes).norm() / slopes.norm()
        assert float(error) < 1e-4
