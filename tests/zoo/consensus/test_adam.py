"""`cbo-adam` moves as Adam does, with the way from the consensus point for a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from zoo.consensus import noise
from zoo.consensus.adam import AdamCBO
from zoo.core.device import Like
from zoo.core.rng import Key
from zoo.core.types import Evaluations

X0 = np.array([0.5, -1.5, 2.0])


def walk(method: AdamCBO, steps: int, fun: Any, x0: Any = X0, **options: Any) -> Any:
    state = method.init(x0, key=Key(3), **options)
    for _ in range(steps):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(fun(candidates.rows(0, len(candidates)))))
    return state


def waves(x: Any) -> Any:
    return (x**2 + 2.5 * (1 - np.cos(2 * np.pi * x))).sum(-1)


def test_moves_as_adam_does() -> None:
    # By the sums that the recursions stand for; c is held at the first particle, which stays where it is.
    rate, beta1, beta2, scale = 0.05, 0.8, 0.95, 2.0
    method = AdamCBO(8, rate, sigma=0.0, final=1.0, beta1=beta1, beta2=beta2, alpha=math.inf, start="uniform")
    state = method.init(X0, key=Key(0), scale=scale)
    x, ways = np.array(method.ask(state).rows(0, 8)), []
    for _ in range(30):
        state = method.tell(state, Evaluations(np.arange(8.0)))
        ways.append(x - X0)
        age = np.arange(len(ways))[::-1, None, None]
        mean = (beta1**age * ways).sum(0) / (beta1**age).sum(0)
        square = (beta2**age * np.square(ways)).sum(0) / (beta2**age).sum(0)
        x[1:] -= (rate * scale * mean / np.sqrt(np.maximum(square, 1e-300)))[1:]
        np.testing.assert_allclose(method.ask(state).rows(0, 8), x, atol=1e-12)


def test_the_first_move_is_as_long_for_all() -> None:
    # Without the correction of the bias it would be sqrt(1 - beta2) / (1 - beta1) times as long.
    method = AdamCBO(num_particles=20, learning_rate=0.3, sigma=0.0)
    state = method.init(X0, key=Key(0), scale=2.0)
    before = method.ask(state).rows(0, 20)
    after = method.ask(method.tell(state, Evaluations(waves(before)))).rows(0, 20)
    np.testing.assert_allclose(np.abs(after - before), 0.6, rtol=1e-12)


def test_noise_is_as_wide_as_said() -> None:
    method = AdamCBO(num_particles=20, learning_rate=1e-12, sigma=0.7)
    state = method.init(X0, key=Key(0), scale=2.0)
    before = method.ask(state).rows(0, 20)
    after = method.ask(method.tell(state, Evaluations(waves(before)))).rows(0, 20)
    xi = noise.normal((Key(0),), 0, 0, 20, 20, 3, Like("numpy", "float64"))[0]
    np.testing.assert_allclose(after - before, 0.7 * 2.0 * xi, atol=1e-11)


@pytest.mark.parametrize(("sigma", "rate"), [(0.5, 0.5), (0.2, 0.1)])
def test_the_swarm_is_as_wide_as_the_balance_says(sigma: float, rate: float) -> None:
    # With beta1 = 0 and beta2 near 1: x <- (1 - rate / s) x + sigma xi, of which
    # s = (sigma^2 + rate^2) / (2 rate) is the width. The mean square is of the past, hence the tenth.
    method = AdamCBO(500, rate, sigma, 1.0, 0.0, 0.99, alpha=0.0, tolx=0.0)
    state = walk(method, 500, waves)
    away = state.swarm.offsets - state.swarm.offsets.mean(1, keepdims=True)
    assert away.std() == pytest.approx((sigma**2 + rate**2) / (2 * rate), rel=0.1)


def test_both_fade_with_the_budget() -> None:
    method = AdamCBO(20, final=0.01, alpha=math.inf)
    for steps, budget, expected in ((0, 1000, 1.0), (25, 1000, 0.1), (50, 1000, 0.01), (300, None, 0.01)):
        state = walk(method, steps, waves, budget=budget)
        assert method.diagnostics(state)["cooling"] == pytest.approx(expected)
    spreads = [
        method.diagnostics(walk(method, steps, waves, budget=6000))["spread"] for steps in (100, 200, 300)
    ]
    assert spreads[0] > 2.5 * spreads[1] > 6.25 * spreads[2]


def test_solves_a_rotated_function_of_many_valleys() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))

    def fun(x: Any) -> Any:
        y = (x - 0.3) @ turn.T
        return (y**2 + 10 * (1 - np.cos(2 * np.pi * y))).sum(-1)

    method = AdamCBO(num_particles=60)
    state = walk(method, 200, fun, np.zeros(6), budget=12_000, scale=1.5)
    assert fun(method.recommend(state)) < 2.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta1", 0.8),
        ("beta2", 0.5),
        ("final", 0.5),
        ("alpha", 3.0),
        ("sample_share", 0.5),
        ("start", "uniform"),
    ],
)
def test_every_option_does_something(name: str, value: Any) -> None:
    plain, other = (walk(AdamCBO(**options), 5, waves) for options in ({}, {name: value}))
    assert not np.allclose(plain.swarm.offsets, other.swarm.offsets)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number above 0"),
        ({"beta1": 1.0}, "`beta1` must be at least 0 and below 1"),
        ({"final": 1.5}, "`final` must be above 0 and at most 1"),
        ({"sigma": -1.0}, "`sigma` must be finite and at least 0"),
        ({"alpha": -1.0}, "`alpha` must be at least 0"),
    ],
)
def test_refuses(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AdamCBO(**options)
