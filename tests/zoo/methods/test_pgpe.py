"""PGPE: steps against the dense formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.zoo.methods.strategies import NAN, after, bowl, rows_of, told
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Known
from zoo.methods import es_noise
from zoo.methods.pgpe import PGPE
from zoo.updates.shaping import centred_ranks

FULL = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]
SCALE = np.array([1.0, 0.5, 2.0, 1.0, 4.0])


def start(method: PGPE, like: Like = FULL[1], dim: int = 5, **options: Any) -> Any:
    return method.init(like.asarray(np.linspace(-1, 1, dim)), key=Key(0), **options)


def gradients(method: PGPE, state: Any, values: Any) -> tuple[Any, Any]:
    """Return g and h, pair by pair as in the docstring."""
    x, mean, spread = rows_of(method, state), to_numpy(state.mean), to_numpy(state.spread)
    z, ranks = (x - mean) / spread, centred_ranks(values)
    valid = np.isfinite(values).sum()
    g, h = np.zeros(len(mean)), np.zeros(len(mean))
    for pair in range(len(x) // 2):
        ahead, back = ranks[2 * pair], ranks[2 * pair + 1]
        g += (ahead - back) * z[2 * pair] / valid
        h += (ahead + back) * (z[2 * pair] ** 2 - 1) / valid
    return g, h


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
@pytest.mark.parametrize("table", [None, 5000])
@pytest.mark.parametrize("like", FULL, ids=str)
def test_a_step_is_the_formula(
    like: Like, table: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    method = PGPE(12, noise_table=table, learning_rate=0.2, spread_rate=0.3)
    state = start(method, like, scale=SCALE)
    velocity = np.zeros(5)
    for _ in range(4):
        values = bowl(rows_of(method, state))
        values[2:4] = NAN
        mean, spread = to_numpy(state.mean), to_numpy(state.spread)
        g, h = gradients(method, state, values)
        velocity = 0.9 * velocity + 0.5 * g / np.linalg.norm(g)
        velocity /= max(1.0, np.linalg.norm(velocity))
        state = told(method, state, values)
        assert Like.of(state.mean) == Like.of(state.spread) == Like.of(state.memory) == like
        close = {"rtol": 0, "atol": 300 * like.epsilon}
        np.testing.assert_allclose(
            to_numpy(state.mean), mean - 0.2 * math.sqrt(5) * spread * velocity, **close
        )
        np.testing.assert_allclose(
            to_numpy(state.spread), spread * (1 - np.clip(0.3 * h, -0.2, 0.2)), **close
        )


def test_a_step_is_never_longer_than_the_speed_limit() -> None:
    method = PGPE(40, learning_rate=0.1, spread_rate=0.0)
    state = start(method, scale=2.0)
    steps = []
    for _ in range(20):
        following = after(method, state, 1, fun=lambda x: x.sum(1))
        steps.append(np.linalg.norm((following.mean - state.mean) / state.spread) / math.sqrt(5))
        state = following
    assert max(steps) <= 0.1 * (1 + 1e-12)
    np.testing.assert_allclose(steps[-1], 0.1)
    assert (state.spread == 2.0).all(), "without a rate it stays as it is"


@pytest.mark.parametrize("fun", [lambda x: (x**2).sum(1), lambda x: -(x**2).sum(1)])
def test_deviations_change_by_no_more_than_a_share(fun: Any) -> None:
    method = PGPE(12, spread_rate=100.0, max_change=0.2)
    state = start(method)
    changed = after(method, state, 1, fun).spread / state.spread
    assert changed.min() >= 0.8
    assert changed.max() <= 1.2
    assert np.isclose(changed, 0.8).any()
    assert np.isclose(changed, 1.2).any()


def test_failures_drop_pairs() -> None:
    """The step is as if the pair had not been asked for."""
    method = PGPE(8)
    state = start(method)
    values = bowl(rows_of(method, state))
    for half in (2, 3):
        failed = values.copy()
        failed[half] = NAN
        both = values.copy()
        both[2:4] = NAN
        assert told(method, state, failed).mean.tobytes() == told(method, state, both).mean.tobytes()
    g, _ = gradients(method, state, both)
    step = state.mean - told(method, state, both).mean
    np.testing.assert_allclose(step / np.linalg.norm(step), g / np.linalg.norm(g), rtol=1e-10)


def test_a_step_without_a_whole_pair_moves_nothing() -> None:
    method = PGPE(8)
    state = after(method, start(method), 3)
    failed = told(method, state, [1.0, NAN, NAN, 2.0, 3.0, NAN, NAN, 4.0])
    assert failed.mean.tobytes() == state.mean.tobytes()
    assert failed.memory.tobytes() == state.memory.tobytes()
    np.testing.assert_allclose(failed.spread, 0.9 * state.spread)


@pytest.mark.parametrize("update", ["clip-up", "adam", "sgd"])
def test_every_update_finds_the_minimum(update: str) -> None:
    method = PGPE(20, update=update)
    state = after(method, start(method), 200)
    assert bowl(method.recommend(state)[None])[0] < 1e-6


def test_updates_differ_only_in_what_they_make_of_the_gradient() -> None:
    state = {update: start(PGPE(12, update=update)) for update in ("clip-up", "adam", "sgd")}
    moved = {update: after(PGPE(12, update=update), begun, 1) for update, begun in state.items()}
    g, _ = gradients(PGPE(12), state["sgd"], bowl(rows_of(PGPE(12), state["sgd"])))
    step = {update: (state[update].mean - moved[update].mean) / state[update].spread for update in moved}
    np.testing.assert_allclose(step["sgd"], math.sqrt(12) / 8 * g, rtol=1e-12)
    np.testing.assert_allclose(step["adam"], 0.3 * np.sign(g), rtol=1e-5)
    np.testing.assert_allclose(step["clip-up"], 0.15 * math.sqrt(5) * 0.5 * g / np.linalg.norm(g), rtol=1e-12)
    assert (
        moved["sgd"].spread.tobytes() == moved["adam"].spread.tobytes() == moved["clip-up"].spread.tobytes()
    )


def test_population_is_even_and_known_points_count() -> None:
    assert len(PGPE().ask(start(PGPE(), dim=3))) == 8, "7, made even"
    state = start(PGPE(), known=Known(np.ones((1, 5)), [2.0]))
    assert state.mean.tolist() == [1.0] * 5
    assert state.memory.tolist() == [0.0] * 5


def test_ends_when_it_has_converged() -> None:
    method = PGPE(20, tolx=1e-3)
    state = after(method, start(method), 200)
    assert "tolx" in str(method.finished(state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"population_size": 7},
            "`population_size` must be even, as candidates come in mirrored pairs, got 7",
        ),
        ({"max_change": 1.0}, "`max_change` must be at least 0 and below 1, got 1.0"),
        ({"spread_rate": -0.1}, "`spread_rate` must be a finite number of at least 0"),
        ({"update": "clipup"}, "`update` must be one of .*Did you mean 'clip-up'"),
        ({"beta1": 1.0}, "`beta1` must be at least 0 and below 1"),
        ({"learning_rate": -1.0}, "`learning_rate` must be a finite number above 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGPE(**options)
