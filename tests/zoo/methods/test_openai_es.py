"""OpenAI-ES: steps against the dense formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.zoo.methods.strategies import NAN, after, bowl, rows_of, told
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Known
from zoo.methods import es_noise
from zoo.methods.openai_es import OpenAIES
from zoo.updates.adam import Adam
from zoo.updates.shaping import centred_ranks

FULL = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]
SCALE = np.array([1.0, 0.5, 2.0, 1.0, 4.0])


def start(method: OpenAIES, like: Like = FULL[1], dim: int = 5, **options: Any) -> Any:
    return method.init(like.asarray(np.linspace(-1, 1, dim)), key=Key(0), **options)


def gradient(method: OpenAIES, state: Any, values: Any, spread: Any) -> Any:
    """Return g, row by row: partners have z and -z, so that the pairs of the docstring are all rows."""
    z = (rows_of(method, state) - to_numpy(state.mean)) / spread
    return centred_ranks(values) @ z / np.isfinite(values).sum()


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
@pytest.mark.parametrize("table", [None, 5000])
@pytest.mark.parametrize("scale", [2.0, SCALE], ids=["one scale", "scales"])
@pytest.mark.parametrize("like", FULL, ids=str)
def test_a_step_is_the_formula(
    like: Like, scale: Any, table: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    method = OpenAIES(12, noise_table=table, sigma=0.25, learning_rate=0.2, beta2=0.9, weight_decay=0.1)
    state = start(method, like, scale=scale)
    adam = Adam(0.9, 0.9)
    memory = adam.init(np.zeros(5))
    for _ in range(4):
        values = bowl(rows_of(method, state))
        values[2:4] = NAN
        mean = to_numpy(state.mean)
        g = gradient(method, state, values, 0.25 * scale) + 0.1 * mean / scale
        memory, direction = adam.update(memory, g)
        state = told(method, state, values)
        assert Like.of(state.mean) == Like.of(state.memory.first) == like
        np.testing.assert_allclose(
            to_numpy(state.mean), mean - 0.2 * scale * direction, rtol=0, atol=2000 * like.epsilon
        )


def test_without_adam_it_is_the_gradient_with_momentum() -> None:
    method = OpenAIES(16, update="sgd", beta1=0.5)
    state = start(method, scale=SCALE)
    memory = np.zeros(5)
    for _ in range(3):
        values = bowl(rows_of(method, state))
        memory = 0.5 * memory + gradient(method, state, values, 0.1 * SCALE)
        following = told(method, state, values)
        np.testing.assert_allclose(
            following.mean, state.mean - 0.1 * math.sqrt(16) / 4 * SCALE * memory, rtol=1e-12
        )
        state = following


def test_pairs_are_as_wide_as_sigma_and_narrow_as_it_decays() -> None:
    method = OpenAIES(2000, sigma=0.5, decay=0.8)
    state = start(method, scale=SCALE)
    for step in range(3):
        x = rows_of(method, state)
        np.testing.assert_allclose(x[::2] + x[1::2], np.tile(2 * state.mean, (1000, 1)), atol=1e-12)
        z = (x[::2] - state.mean) / (0.5 * 0.8**step * SCALE)
        assert np.abs((z**2).mean(0) - 1).max() < 6 * math.sqrt(2 / 1000)
        assert method.diagnostics(state)["largest_deviation"] == pytest.approx(2.0 * 0.8**step)
        state = after(method, state, 1)


def test_decay_is_of_the_learning_rate_too() -> None:
    plain, decayed = OpenAIES(12, learning_rate=0.3), OpenAIES(12, learning_rate=0.3, decay=0.5)
    state = after(plain, start(plain), 1)
    values = np.arange(12.0)
    steps = [told(method, state, values).mean - state.mean for method in (plain, decayed)]
    np.testing.assert_allclose(steps[1], 0.5 * steps[0], rtol=1e-12)


def test_weight_decay_draws_what_is_evaluated_to_the_origin() -> None:
    method = OpenAIES(8, weight_decay=1.0, learning_rate=0.05)
    state = start(method)
    for _ in range(60):
        state = told(method, state, np.ones(8))
    assert np.abs(state.mean).max() < 0.2
    # Where the box ends before the origin, so does the mean, wherever it is before the boundary map.
    box = Bounds(np.full(5, 1.0), np.full(5, 3.0))
    state = method.init(np.full(5, 2.0), key=Key(0), bounds=box)
    for _ in range(60):
        state = told(method, state, np.ones(8))
    assert np.abs(method.recommend(state) - 1.0).max() < 0.2


def test_equal_values_move_nothing() -> None:
    """Ranks by order alone would make a random step of them, which Adam makes a long one."""
    method = OpenAIES(8)
    state = start(method)
    for _ in range(3):
        state = told(method, state, np.full(8, 3.0))
    assert state.mean.tolist() == np.linspace(-1, 1, 5).tolist()


def test_failures_drop_pairs() -> None:
    method = OpenAIES(8)
    state = start(method)
    values = bowl(rows_of(method, state))
    both = values.copy()
    both[2:4] = NAN
    for half in (2, 3):
        failed = values.copy()
        failed[half] = NAN
        assert told(method, state, failed).mean.tobytes() == told(method, state, both).mean.tobytes()
    assert told(method, state, values).mean.tobytes() != told(method, state, both).mean.tobytes()
    nothing = told(method, state, [1.0, NAN] * 4)
    assert nothing.mean.tobytes() == state.mean.tobytes()
    assert nothing.memory.count == 0


def test_many_variables_are_found_in_single_precision() -> None:
    dim = 70_001
    method = OpenAIES(8, learning_rate=0.01)
    state = start(method, Like("torch", "float32"), dim=dim)
    values = bowl(rows_of(method, state))
    g = gradient(method, state, values, 0.1)
    step = to_numpy(told(method, state, values).mean) - np.linspace(-1, 1, dim)
    clear = np.abs(g) > 1e-3
    np.testing.assert_allclose(step[clear], -0.01 * np.sign(g[clear]), rtol=1e-3)


@pytest.mark.parametrize(("dim", "sigma"), [(5, 0.1), (400, 0.1), (40_000, 0.01)])
def test_default_widths_suit_the_dimension(dim: int, sigma: float) -> None:
    method = OpenAIES(16)
    assert method.diagnostics(start(method, dim=dim))["largest_deviation"] == pytest.approx(sigma)
    narrow = OpenAIES(16, sigma=0.02)
    assert narrow.diagnostics(start(narrow, dim=dim, scale=3.0))["smallest_deviation"] == pytest.approx(0.06)


def test_starts_at_the_best_known_point() -> None:
    known = Known(np.array([[1.0] * 5, [2.0] * 5, [3.0] * 5]), [5.0, NAN, 4.0])
    state = start(OpenAIES(), known=known)
    assert state.mean.tolist() == [3.0] * 5
    assert OpenAIES().recommend(state).tolist() == [3.0] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 3}, "`population_size` must be even"),
        ({"decay": 0.0}, "`decay` must be above 0 and at most 1, got 0.0"),
        ({"decay": 1.1}, "`decay` must be above 0 and at most 1, got 1.1"),
        ({"weight_decay": -1.0}, "`weight_decay` must be a finite number of at least 0"),
        ({"update": "adm"}, "`update` must be one of .*Did you mean 'adam'"),
        ({"beta2": 1.0}, "`beta2` must be at least 0 and below 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number above 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenAIES(**options)
