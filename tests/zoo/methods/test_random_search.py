"""Random search: where its points are, and that it is the same however many a step has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.methods.random_search import RandomSearch

START = np.array([0.5, -1.0, 2.0, 0.0])
INF = np.inf


def rows_of(x0: Any = START, *, count: int = 4000, **options: Any) -> Any:
    method = RandomSearch(count)
    asked = method.ask(method.init(x0, key=Key(0), **options))
    assert len(asked) == count
    return asked.rows(0, count)


def test_starts_at_x0() -> None:
    assert rows_of(count=3)[0].tobytes() == START.tobytes()


def test_normal_around_the_start() -> None:
    """Mean and deviation within 6 deviations of theirs."""
    scale = np.array([1.0, 0.1, 10.0, 2.0])
    z = (rows_of(scale=scale)[1:] - START) / scale
    assert np.abs(z.mean(0)).max() < 6 / np.sqrt(len(z))
    assert np.abs(z.std(0) - 1).max() < 6 / np.sqrt(2 * len(z))


def test_uniform_in_the_box() -> None:
    """Shares of the width have mean 1/2 and variance 1/12, within 6 deviations."""
    lower, upper = np.array([0.0, -1.0, 1.0, 0.0]), np.array([1.0, 3.0, 2.5, 0.0])
    rows = rows_of(bounds=Bounds(lower, upper))
    assert ((rows >= lower) & (rows <= upper)).all()
    assert (rows[:, 3] == 0).all()
    shares = (rows[1:, :3] - lower[:3]) / (upper - lower)[:3]
    assert np.abs(shares.mean(0) - 0.5).max() < 6 / np.sqrt(12 * len(shares))
    assert shares.min() < 0.01
    assert shares.max() > 0.99


def test_mirrored_at_a_single_wall() -> None:
    bounds = Bounds(np.array([0.5, -INF, 0.0, -INF]), np.array([INF, 0.0, 3.0, INF]))
    rows = rows_of(bounds=bounds)
    assert bounds.contains(rows)
    free = rows_of()
    np.testing.assert_array_equal(rows[:, 0], 0.5 + np.abs(free[:, 0] - 0.5))
    np.testing.assert_array_equal(rows[:, 3], free[:, 3])


@pytest.mark.parametrize("bounds", [None, Bounds(START - 1, START + 2)], ids=["free", "boxed"])
def test_points_do_not_depend_on_the_size_of_a_step(bounds: Bounds | None) -> None:
    found = []
    for size in (1, 7, 40):
        method = RandomSearch(size)
        state = method.init(START, key=Key(0), bounds=bounds, budget=100)
        rows = []
        while state.nfev < 100:
            asked = method.ask(state)
            rows.append(asked.rows(0, len(asked)))
            state = method.tell(state, Evaluations((rows[-1] ** 2).sum(1)))
        found.append(np.concatenate(rows))
        assert len(found[-1]) == 100
        best = found[-1][(found[-1] ** 2).sum(1).argmin()]
        assert method.recommend(state).tobytes() == best.tobytes()
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_kinds_of_arrays(kind: str, dtype: str) -> None:
    like = Like(kind, dtype)
    bounds = Bounds(np.array([0.1, -1.7, -INF, -0.3]), np.array([0.7, -0.1, INF, 0.3]))
    rows = rows_of(like.asarray(START), bounds=bounds, count=200)
    assert Like.of(rows) == like
    wide = to_numpy(rows).astype(np.float64)
    assert ((wide >= bounds.lower) & (wide <= bounds.upper)).all()


def test_failures_are_never_best() -> None:
    method = RandomSearch(4)
    state = method.tell(method.init(START, key=Key(0)), Evaluations([np.nan] * 4))
    assert method.recommend(state).tobytes() == START.tobytes()
    row = method.ask(state).rows(2, 3)[0]
    state = method.tell(state, Evaluations([np.nan, 2.0, 1.0, -np.inf]))
    assert method.recommend(state).tobytes() == row.tobytes()
    assert method.finished(state) is None


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="`population_size` must be at least 1, got 0"):
        RandomSearch(0)
    method = RandomSearch(3)
    with pytest.raises(ValueError, match="`evaluations` must have 3 values, got 2"):
        method.tell(method.init(START, key=Key(0)), Evaluations([1.0, 2.0]))
