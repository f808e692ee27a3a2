"""Points evaluated before a method begins: its own run is the same as if it had been told of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.test_contracts import copy_of
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Known
from zoo.methods.cma_es import CMAES
from zoo.wrappers.primed import Primed

POINTS = np.array([[1.0, 1.0], [0.5, 2.0], [3.0, -1.0]])


def sphere(x):
    return (x**2).sum(1)


def told(method, state):
    rows = method.ask(state)
    return method.tell(state, Evaluations(sphere(rows.rows(0, len(rows)))))


@pytest.mark.parametrize("from_best", [False, True])
def test_the_method_is_told_of_them(from_best):
    x0 = np.array([5.0, 5.0])
    method = Primed(CMAES(), POINTS, from_best)
    state = copy_of(method.init(x0, key=Key(0), budget=50))
    assert method.recommend(state).tolist() == [5.0, 5.0]
    assert method.finished(state) is None
    state = copy_of(told(method, state))
    start = np.array([1.0, 1.0]) if from_best else x0
    alone = CMAES().init(start, key=Key(0), budget=47, known=Known(POINTS, sphere(POINTS)))
    assert digest(state.inner) == digest(alone)
    for _ in range(3):
        state, alone = told(method, state), told(CMAES(), alone)
    assert digest(state.inner) == digest(alone)
    assert method.recommend(state).tobytes() == CMAES().recommend(alone).tobytes()
    assert method.diagnostics(state) == CMAES().diagnostics(alone)


def test_they_join_those_known_before():
    method = Primed(CMAES(), POINTS)
    state = method.init(np.zeros(2), key=Key(0), known=Known([[9.0, 9.0], [0.0, 0.5]], [100.0, 0.25]))
    assert method.recommend(state).tolist() == [0.0, 0.5]
    state = told(method, state)
    assert state.points.tolist() == [[9.0, 9.0], [0.0, 0.5], *POINTS.tolist()]
    assert state.values[:2].tolist() == [100.0, 0.25]


def test_nothing_but_failures_leaves_the_method_as_it_was():
    method = Primed(CMAES(), POINTS, from_best=True)
    state = method.init(np.ones(2), key=Key(0))
    state = method.tell(state, Evaluations(np.full(3, np.nan)))
    assert digest(state.inner) == digest(CMAES().init(np.ones(2), key=Key(0)))


def test_rows_are_inside_and_another_number_of_values_is_refused():
    method = Primed(CMAES(), np.array([[0.1]]))
    box = Bounds(np.array([0.1]), np.array([0.2]))
    state = method.init(np.array([0.15], np.float32), key=Key(0), bounds=box)
    row = method.ask(state).rows(0, 1)
    assert row.dtype == np.float32
    assert row[0, 0].astype(np.float64) >= 0.1
    with pytest.raises(ValueError, match="the 1 values asked for, got 2"):
        method.tell(state, Evaluations([1.0, 2.0]))


def test_methods_are_asked_about_points_before_any_is_evaluated():
    asked = []

    class Choosy(CMAES):
        def check_known(self, x0, points):
            asked.append((x0.tolist(), points.tolist()))
            if points.min() < -1:
                raise ValueError("`known` must be right")

    x0, known = np.array([5.0, 5.0]), Known(np.array([[7.0, 7.0]]), np.array([1.0]))
    Primed(Choosy(), POINTS).init(x0, key=Key(0), known=known)
    both = [[7.0, 7.0], *POINTS.tolist()]
    assert asked == [([5.0, 5.0], both)]
    asked.clear()
    Primed(Choosy(), POINTS, from_best=True).init(x0, key=Key(0), known=known)
    assert asked == [(start, both) for start in both], "any of them may be the best"
    with pytest.raises(ValueError, match="must be right"):
        Primed(Choosy(), -2 * POINTS).init(x0, key=Key(0))
