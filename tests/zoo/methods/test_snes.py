"""SNES: steps against the dense formula, starts, ends."""

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
from zoo.methods.snes import SNES
from zoo.updates.shaping import nes_utilities

FULL = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]
SCALE = np.array([1.0, 0.5, 2.0, 1.0, 4.0])


def start(method: SNES, like: Like = FULL[1], dim: int = 5, **options: Any) -> Any:
    return method.init(like.asarray(np.linspace(-1, 1, dim)), key=Key(0), **options)


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
@pytest.mark.parametrize("table", [None, 5000])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("like", FULL, ids=str)
def test_a_step_is_the_formula(
    like: Like, mirrored: bool, table: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    method = SNES(12, noise_table=table, mirrored=mirrored, learning_rate=0.7, spread_rate=0.4)
    state = start(method, like, scale=SCALE)
    close = {"rtol": 0, "atol": 100 * like.epsilon}
    for _ in range(3):
        x, mean, spread = rows_of(method, state), to_numpy(state.mean), to_numpy(state.spread)
        values = bowl(x)
        values[3] = NAN
        z, usable = (x - mean) / spread, values.copy()
        if mirrored:
            np.testing.assert_allclose(x[::2] + x[1::2], np.tile(2 * mean, (6, 1)), **close)
            usable[2] = NAN
        u = nes_utilities(usable)
        state = told(method, state, values)
        assert Like.of(state.mean) == Like.of(state.spread) == like
        np.testing.assert_allclose(to_numpy(state.mean), mean + 0.7 * spread * (u @ z), **close)
        np.testing.assert_allclose(
            to_numpy(state.spread), spread * np.exp(0.2 * (u @ (z**2 - 1))), rtol=200 * like.epsilon
        )


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
def test_many_variables(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    like, method = Like("torch", "float32"), SNES(8)
    state = start(method, like, dim=70_001)
    x, spread = rows_of(method, state), to_numpy(state.spread)
    z = (x - to_numpy(state.mean)) / spread
    u = nes_utilities(bowl(x))
    rate = (3 + math.log(70_001)) / (5 * math.sqrt(70_001))
    state = told(method, state, bowl(x))
    np.testing.assert_allclose(to_numpy(state.mean) - np.linspace(-1, 1, 70_001), spread * (u @ z), atol=1e-6)
    np.testing.assert_allclose(to_numpy(state.spread), spread * np.exp(rate / 2 * (u @ z**2)), rtol=1e-5)


def test_defaults_are_those_of_the_paper() -> None:
    state = start(SNES())
    assert len(SNES().ask(state)) == 4 + int(3 * math.log(5))
    x = rows_of(SNES(), state)
    z, u = (x - state.mean) / state.spread, nes_utilities(bowl(x))
    rate = (3 + math.log(5)) / (5 * math.sqrt(5))
    expected = state.spread * np.exp(rate / 2 * (u @ z**2))
    np.testing.assert_allclose(told(SNES(), state, bowl(x)).spread, expected, rtol=1e-12)


def test_first_deviations() -> None:
    assert start(SNES(sigma=0.5), scale=SCALE).spread.tolist() == (0.5 * SCALE).tolist()
    assert start(SNES(), scale=2.0).spread.tolist() == [2.0] * 5, "8 of 3 sqrt(5), so at most 1"
    np.testing.assert_allclose(start(SNES(12), dim=100).spread, 0.4)


def test_a_step_that_fails_altogether_narrows_the_search() -> None:
    state = after(SNES(), start(SNES()), 2)
    failed = told(SNES(), state, [NAN] * 8)
    np.testing.assert_allclose(failed.spread, 0.9 * state.spread)
    assert failed.mean.tobytes() == state.mean.tobytes()
    assert rows_of(SNES(), failed).tobytes() != rows_of(SNES(), state).tobytes()


def test_one_value_alone_decides_nothing() -> None:
    state = start(SNES())
    alone = told(SNES(), state, [NAN, 2.0] + [NAN] * 6)
    assert alone.mean.tobytes() == state.mean.tobytes()
    assert alone.spread.tobytes() == state.spread.tobytes()


def test_the_last_step_is_cut_to_the_budget() -> None:
    for mirrored in (False, True):
        method = SNES(8, mirrored=mirrored)
        whole, cut = start(method), start(method, budget=5)
        assert len(method.ask(cut)) == 5
        assert rows_of(method, cut).tobytes() == rows_of(method, whole)[:5].tobytes()
        done = after(method, cut, 1)
        assert "budget of 5" in str(method.finished(done))
        assert method.finished(cut) is None


@pytest.mark.parametrize("boundary", ["smooth", "reflect", "clip"])
def test_walls_do_not_stop_the_search(boundary: str) -> None:
    """The optimum is at a corner, and its neighbourhood is found whichever map it is."""
    box = Bounds(np.full(5, 0.3), np.full(5, 4.0))
    method = SNES(20, boundary=boundary)
    state = method.init(np.full(5, 2.0), key=Key(0), bounds=box)
    state = after(method, state, 150)
    x = method.recommend(state)
    assert box.contains(x)
    assert bowl(x[None])[0] < 1e-4


def test_starts_at_the_best_known_point() -> None:
    known = Known(np.array([[1.0] * 5, [2.0] * 5, [3.0] * 5]), [5.0, NAN, 4.0])
    state = start(SNES(), known=known)
    assert state.mean.tolist() == [3.0] * 5
    assert state.spread.tolist() == [1.0] * 5, "too few to say how far"


def test_starts_as_wide_as_the_better_half_of_the_known_points() -> None:
    points = np.zeros((9, 5))
    points[:4, :4] = [[1, 1, 1, 1], [1, 2, 1, 3], [1, 1, 4, 1], [1, 4, 5, 1]]
    state = start(SNES(sigma=0.5), known=Known(points, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, NAN]))
    assert state.mean.tolist() == [1, 1, 1, 1, 0]
    np.testing.assert_allclose(state.spread, [0.5, math.sqrt(10 / 4), math.sqrt(25 / 4), 1.0, 0.5])


def test_known_points_outside_the_box_count_at_its_walls() -> None:
    box = Bounds(np.zeros(5), np.ones(5))
    method = SNES()
    state = method.init(
        np.full(5, 0.5), key=Key(0), bounds=box, known=Known([[3.0, -1.0, 0.5, 0.5, 2.0]], [1.0])
    )
    np.testing.assert_allclose(method.recommend(state), [1.0, 0.0, 0.5, 0.5, 1.0], atol=1e-12)


def test_ends_when_it_has_converged() -> None:
    method = SNES(20, tolx=0.01)
    state = after(method, start(method), 60)
    assert "tolx: steps are 0.01 times" in str(method.finished(state))
    assert SNES(20, tolx=0).finished(state) is None


def test_ends_when_steps_vanish_in_rounding() -> None:
    method = SNES(20)
    state = after(
        method,
        method.init(np.full(5, 1.3e5, np.float32), key=Key(0), scale=0.5),
        60,
        fun=lambda x: ((x - 1.3e5) ** 2).sum(1),
    )
    assert "vanish in rounding" in str(method.finished(state))


def test_diagnostics_are_the_deviations() -> None:
    state = start(SNES(sigma=1.0), scale=SCALE)
    assert SNES().diagnostics(state) == {"smallest_deviation": 0.5, "largest_deviation": 4.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 1}, "`population_size` must be at least 2, got 1"),
        ({"population_size": 7, "mirrored": True}, "`population_size` must be even, as candidates come in"),
        ({"sigma": 0.0}, "`sigma` must be a finite number above 0, got 0.0"),
        ({"spread_rate": -1.0}, "`spread_rate` must be a finite number above 0"),
        ({"learning_rate": 0}, "`learning_rate` must be a finite number above 0"),
        ({"tolx": -1.0}, "`tolx` must be a finite number of at least 0, got -1.0"),
        ({"noise_table": 0}, "`noise_table` must be at least 1, got 0"),
        ({"boundary": "smoth"}, "`boundary` must be one of .*Did you mean 'smooth'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SNES(**options)


def test_wrong_starts() -> None:
    with pytest.raises(ValueError, match=r"`x0` must have shape \(dim,\), got \(2, 2\)"):
        SNES().init(np.zeros((2, 2)), key=Key(0))
    with pytest.raises(ValueError, match="`scale` must be finite and above 0 everywhere"):
        start(SNES(), scale=0.0)
    with pytest.raises(ValueError, match="`noise_table` must be at least as long as a row, 5, got 4"):
        start(SNES(noise_table=4))
