"""The choice of smoothing: its start, and what it learns about noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.zoo.estimators.test_finite_difference import curved, curved_gradient, estimated
from zoo.core.bounds import Bounds
from zoo.core.device import Like
from zoo.estimators.finite_difference import FiniteDifference
from zoo.estimators.precision import start_smoothing

STENCILS = ("forward", "central")


def test_starts_where_rounding_and_truncation_balance() -> None:
    """What a small network was measured to need in float32: 5e-3 forward, 2e-2 central."""
    single, double = Like("numpy", "float32"), Like("numpy", "float64")
    found = {
        (like.dtype, stencil): start_smoothing(like, stencil, norm=1, scale=1, size=1).start
        for like in (single, double)
        for stencil in STENCILS
    }
    assert found["float32", "forward"] == pytest.approx(5e-3, rel=0.05)
    assert found["float32", "central"] == pytest.approx(2e-2, rel=0.05)
    assert found["float64", "forward"] == pytest.approx(2e-7, rel=0.05)
    assert found["float64", "central"] == pytest.approx(2.4e-5, rel=0.05)
    assert start_smoothing(single, "central", norm=10, scale=1, size=1).start == pytest.approx(2e-3, rel=0.05)
    assert start_smoothing(single, "central", norm=10, scale=3, size=1).start == pytest.approx(6e-3, rel=0.05)
    assert start_smoothing(double, "forward", norm=1, scale=1, size=1e9).start == pytest.approx(
        7e-6, rel=0.05
    )
    assert start_smoothing(double, "forward", norm=1, scale=1e-3, size=1e16).start == 5e-4


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("law", ["axes", "orthonormal"])
def test_the_start_is_a_good_one(stencil: str, dtype: str, law: str) -> None:
    """At most 30 times the error of the best of all powers of 10, values being rounded to the dtype."""
    x = np.linspace(-1, 1, 8).astype(dtype)

    def error(smoothing: Any) -> float:
        _, estimate = estimated(
            FiniteDifference(law, None, smoothing, stencil), lambda r: curved(r).astype(dtype), x
        )
        return float(np.linalg.norm(estimate.gradient - curved_gradient(x.astype(np.float64))))

    best = min(error(10.0**power) for power in range(-9 if dtype == "float64" else -5, 1))
    assert error("auto") < 30 * best


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("noise", [1e-6, 1e-2])
@pytest.mark.parametrize("law", ["axes", "sphere"])
def test_grows_until_differences_stand_out(stencil: str, noise: float, law: str) -> None:
    """At a place of slope 1 per direction, over 20 steps; the noise found is right within a factor of 2."""
    rng = np.random.default_rng(0)
    x = np.zeros(10)
    estimator = FiniteDifference(law, None, "auto", stencil)
    state = estimator.init(x)
    start, cosines = state.smoothing, []
    for step in range(20):
        state, estimate = estimated(
            estimator, lambda r: r.sum(1) + noise * rng.normal(size=len(r)), x, state=state, step=step
        )
        cosines.append(estimate.gradient.sum() / np.linalg.norm(estimate.gradient) / np.sqrt(10))
    assert state.precision is not None
    assert noise / 2 < state.precision.noise < 2 * noise
    assert max(start, noise / 2) <= state.smoothing <= max(start, 20 * noise)
    assert np.mean(cosines[10:]) > (0.8 if law == "axes" else 0.6)


@pytest.mark.parametrize("stencil", STENCILS)
def test_stays_where_there_is_no_noise(stencil: str) -> None:
    x = np.linspace(-1, 1, 6)
    estimator = FiniteDifference("sphere", 4, "auto", stencil)
    state = estimator.init(x)
    for step in range(20):
        after, _ = estimated(estimator, curved, x, state=state, step=step)
        assert after.smoothing == state.smoothing
        state = after


def test_common_noise_is_no_noise() -> None:
    """What all rows of a step share drops out of every difference."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 6)
    estimator = FiniteDifference("sphere", 4)
    state = estimator.init(x)
    for step in range(10):
        after, _ = estimated(estimator, lambda r: curved(r) + rng.normal(), x, state=state, step=step)
        assert after.smoothing == state.smoothing
        state = after


def test_shrinks_again_where_the_slope_returns() -> None:
    rng = np.random.default_rng(0)
    x = np.zeros(10)
    estimator = FiniteDifference("axes")
    state = estimator.init(x)
    seen = []
    for step in range(40):
        slope = 0.1 if step < 20 else 100.0
        state, _ = estimated(
            estimator,
            lambda r, a=slope: a * r.sum(1) + 1e-3 * rng.normal(size=len(r)),
            x,
            state=state,
            step=step,
        )
        seen.append(state.smoothing)
    assert seen[19] > 20 * seen[39]


def test_never_exceeds_half_of_scale() -> None:
    rng = np.random.default_rng(0)
    estimator = FiniteDifference("axes")
    state = estimator.init(np.zeros(4), scale=0.01)
    for step in range(20):
        state, _ = estimated(
            estimator, lambda r: rng.normal(size=len(r)), np.zeros(4), state=state, step=step
        )
    assert state.smoothing == pytest.approx(0.005)


def test_walls_are_not_taken_for_noise() -> None:
    """Pairs pushed off a wall do not lie evenly about the base, and say nothing about second differences."""
    estimator = FiniteDifference("sphere", 4)
    x = np.zeros(5)
    state = estimator.init(x, bounds=Bounds(np.zeros(5), np.ones(5)))
    for step in range(10):
        after, _ = estimated(estimator, lambda r: r.sum(1) + 1, x, state=state, step=step)
        assert after.smoothing == state.smoothing
        state = after


def test_plateaus_are_left() -> None:
    """Steps of height 1 every tenth: at first nothing changes, which is said; then smoothing spans some."""
    estimator = FiniteDifference("sphere", 6)
    x = np.full(5, 0.512)
    state = estimator.init(x)
    steps = lambda r: np.floor(10 * r.sum(1))  # noqa: E731 - shorter than a function
    with pytest.warns(UserWarning, match="did not change"):
        state, estimate = estimated(estimator, steps, x, state=state)
    for step in range(1, 25):
        state, estimate = estimated(estimator, steps, x, state=state, step=step)
    assert 0.01 < state.smoothing <= 0.5
    assert estimate.gradient.sum() > 0
