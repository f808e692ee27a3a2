"""Discrete coordinates under CMA-ES: that they never freeze, and what that costs the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import zoo
from zoo.core.bounds import Bounds
from zoo.core.grid import Grid
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.methods.cma_es import CMAES
from zoo.methods.margin import kept_near, num_discrete, widened
from zoo.methods.sep_cma_es import SepCMAES

BOTH = pytest.mark.parametrize("kind", [CMAES, SepCMAES])
SHARE = 0.02


def box(*counts: int, groups: tuple[int, ...] | None = None) -> Bounds:
    dim = len(counts)
    return Bounds(np.zeros(dim), np.ones(dim), Grid(counts, np.ones(dim), groups or (-1,) * dim))


def test_either_neighbour_is_reached() -> None:
    mean, narrow = np.array([0.55, 0.45, 0.5]), np.full(3, 1e-9)
    wide = widened(box(5, 5, 0), "reflect", mean, narrow, SHARE)
    # The further edge, .4 and .6, is reached by just half the share, the nearer one by more.
    assert norm.cdf(0.4, mean[0], wide[0]) == pytest.approx(SHARE / 2)
    assert norm.sf(0.6, mean[1], wide[1]) == pytest.approx(SHARE / 2)
    assert norm.sf(0.6, mean[0], wide[0]) > SHARE / 2
    assert wide[2] == narrow[2]


def test_what_is_wide_enough_stays() -> None:
    mean, deviations = np.array([0.55, 0.5, 0.05]), np.array([0.1, 0.3, 1e-9])
    # The third lies in the first cell, which has one neighbour: `kept_near` sees to it.
    assert (widened(box(5, 5, 5), "reflect", mean, deviations, SHARE) == deviations).all()
    assert (kept_near(box(5, 5, 0), "reflect", mean, deviations, SHARE) == mean).all()


def test_the_last_cells_stay_near_their_edge() -> None:
    deviations = np.full(4, 1e-3)
    mean = np.array([0.05, 0.95, 0.1, 0.501])
    moved = kept_near(box(5, 5, 2, 2), "reflect", mean, deviations, SHARE)
    assert norm.sf(0.2, moved[0], 1e-3) == pytest.approx(SHARE)
    assert norm.cdf(0.8, moved[1], 1e-3) == pytest.approx(SHARE)
    assert norm.sf(0.5, moved[2], 1e-3) == pytest.approx(SHARE)
    assert moved[3] == mean[3]
    index = box(5, 5, 2, 2).grid.index  # type: ignore[union-attr]
    assert (index(moved) == index(mean)).all()


def test_groups_stay_together() -> None:
    deviations = np.array([1e-3, 2e-3, 1e-3, 0.1])
    mean = np.array([0.9, 0.1, 0.8995, 0.3])
    moved = kept_near(box(0, 0, 0, 0, groups=(0, 0, 0, -1)), "reflect", mean, deviations, SHARE)
    assert moved[[0, 2, 3]].tolist() == mean[[0, 2, 3]].tolist()
    assert norm.sf(0, moved[1] - moved[0], math.hypot(1e-3, 2e-3)) == pytest.approx(SHARE / 2)
    assert moved[:3].argmax() == 0


def test_means_beyond_a_wall_are_taken_back() -> None:
    moved = kept_near(box(4, 0), "smooth", np.array([-0.3, -0.3]), np.full(2, 0.5), SHARE)
    assert 0 <= moved[0] <= 1
    assert moved[1] == -0.3


def test_counts_what_is_discrete() -> None:
    assert num_discrete(None) == num_discrete(Bounds(np.zeros(2), np.ones(2))) == 0
    assert num_discrete(box(3, 0, 0, 0, groups=(-1, 1, 1, -1))) == 3


def values(rows: np.ndarray[Any, Any], bounds: Bounds, best: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A sum of squares, in whole cells where there are any."""
    grid = bounds.grid
    assert grid is not None
    seen = np.where(grid.celled, grid.centre(grid.index(rows)), rows)
    return ((seen - best) ** 2).sum(1)


@BOTH
def test_narrow_distributions_go_on_changing_cells(kind: Any) -> None:
    bounds = box(9, 9, 2, 0, 0)
    method = kind(sigma=1e-6, tolx=0, tolfun=0, tolfunhist=0)
    state = method.init(np.array([0.5, 0.05, 0.8, 0.5, 0.5]), key=Key(0), bounds=bounds)
    rows = []
    for _ in range(300):
        candidates = method.ask(state)
        rows.append(candidates.rows(0, len(candidates)))
        state = method.tell(state, Evaluations(np.zeros(len(candidates))))
    index = bounds.grid.index(np.concatenate(rows))  # type: ignore[union-attr]
    # A hundredth of 2400 candidates and more, in each of them: the share is 1 / (8 * 5).
    changed = (np.diff(index, axis=0) != 0).sum(0)
    assert (changed[:3] > 24).all()


@BOTH
@pytest.mark.parametrize("key", range(3))
def test_integers_and_floats_are_found_together(kind: Any, key: int) -> None:
    bounds = box(21, 21, 0, 0, 2)
    grid = bounds.grid
    assert grid is not None
    best = np.where(grid.celled, grid.centre(np.array([3, 17, 0, 0, 1])), 0.2)
    method = kind()
    state = method.init(np.full(5, 0.6), key=Key(key), bounds=bounds, scale=0.3)
    lowest = math.inf
    while not method.finished(state) and state.nfev < 3000:
        candidates = method.ask(state)
        found = values(candidates.rows(0, len(candidates)), bounds, best)
        lowest = min(lowest, float(found.min()))
        state = method.tell(state, Evaluations(found))
    assert lowest < 1e-10
    assert (grid.index(method.recommend(state)) == grid.index(best)).all()


def test_a_box_without_a_grid_is_searched_as_before() -> None:
    # The same start and key, once with a grid that has no discrete coordinates.
    searches = []
    for bounds in (Bounds(np.zeros(3), np.ones(3)), box(0, 0, 0)):
        state = CMAES().init(np.full(3, 0.4), key=Key(0), bounds=bounds, scale=0.3)
        for _ in range(40):
            rows = CMAES().ask(state).rows(0, 7)
            state = CMAES().tell(state, Evaluations(((rows - 0.3) ** 2).sum(1)))
        searches.append(state.mean.tobytes())
    assert searches[0] == searches[1]


@BOTH
def test_plateaus_do_not_end_a_search_early(kind: Any) -> None:
    # All values are equal until each discrete coordinate has been changed several times.
    bounds = box(*(21,) * 6)
    method = kind()
    state = method.init(np.full(6, 0.5), key=Key(0), bounds=bounds, scale=0.3)
    plain = method.init(np.full(6, 0.5), key=Key(0), bounds=Bounds(np.zeros(6), np.ones(6)), scale=0.3)
    steps = {}
    for name, started in (("grid", state), ("plain", plain)):
        while not method.finished(started):
            started = method.tell(started, Evaluations(np.zeros(len(method.ask(started)))))
        assert "flat" in method.finished(started)
        steps[name] = started.step
    assert steps["grid"] >= steps["plain"] + 60


def test_a_search_on_integers_alone_finds_them() -> None:
    space = zoo.Space([zoo.Integer(-20, 20)] * 4)
    target = (3, -7, 12, 0)
    for method in ("cma", "sep-cma"):
        result = zoo.minimize(
            lambda x: sum((a - b) ** 2 for a, b in zip(x, target, strict=True)),
            space=space,
            method=method,
            budget=1500,
            rng=0,
        )
        assert result.x == target
