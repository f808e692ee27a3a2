"""NSGA-II against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.core.bounds import Bounds
from zoo.core.front import dominates
from zoo.core.rng import Key
from zoo.core.types import Evaluations, Known
from zoo.methods.nsga2 import NSGA2, _spread, crowding_distances, front_ranks
from zoo.problems.several import schaffer

START = np.array([0.5, -1.0, 2.0])


def told(method, state, fun=schaffer, **extras):
    rows = method.ask(state).array
    objectives = fun(rows)
    found = {name: extra(rows) for name, extra in extras.items()}
    return method.tell(state, Evaluations(objectives.mean(1), (), {"objectives": objectives, **found}))


def plain_ranks(objectives, violations):
    """Peel fronts off, by definition."""

    def better(i, j):
        if violations[i] > 0 or violations[j] > 0:
            return violations[i] < violations[j]
        return (objectives[i] <= objectives[j]).all() and (objectives[i] < objectives[j]).any()

    left, ranks, rank = set(range(len(objectives))), np.full(len(objectives), -1), 0
    while left:
        front = [j for j in left if not any(better(i, j) for i in left)]
        ranks[front] = rank
        left -= set(front)
        rank += 1
    return ranks


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kinds", [3, 100])
def test_ranks_by_definition(k, kinds):
    objectives = Key(0).integers(0, 60, k, high=kinds).astype(float)
    violations = np.maximum(Key(1).integers(0, 60, 1, high=5).ravel() - 2.0, 0)
    assert front_ranks(objectives, violations).tolist() == plain_ranks(objectives, violations).tolist()


def test_crowding_distances_by_hand():
    objectives = np.array([[0.0, 10.0], [2.0, 4.0], [3.0, 3.0], [10.0, 0.0]])
    assert crowding_distances(objectives).tolist() == [np.inf, 0.3 + 0.7, 0.8 + 0.4, np.inf]
    assert crowding_distances(np.array([[1.0, 2.0]])).tolist() == [np.inf]
    assert crowding_distances(np.full((3, 1), 2.0)).tolist() == [np.inf, 0, np.inf]


def test_the_spread_has_its_density():
    # Without walls: P(beta <= 1) = 1/2, and beta^(eta + 1) / 2 = u below.
    u = np.array([0.0, 0.125, 0.5, 0.875])
    far = np.full(4, np.inf)
    np.testing.assert_allclose(_spread(u, far, 1.0), [0, 0.5, 1, 2])
    assert _spread(np.array([1.0]), np.array([3.0]), 15.0) == pytest.approx(3.0), "the wall is the limit"
    assert _spread(np.array([0.7]), np.array([1.0]), 15.0) <= 1


def test_parents_and_children_compete_and_fronts_come_first():
    method = NSGA2(population_size=12)
    state = told(method, method.init(START, key=Key(0)))
    before = np.concatenate([state.objectives, schaffer(method.ask(state).array)])
    after = told(method, state)
    ranks = plain_ranks(before, np.zeros(24))
    kept = [before.tolist().index(row) for row in after.objectives.tolist()]
    assert len(set(kept)) == 12
    assert max(ranks[kept]) <= min([*ranks[sorted(set(range(24)) - set(kept))], 99])
    last = ranks[kept].max()
    outside = [i for i in range(24) if i not in kept and ranks[i] == last]
    if outside:
        front = np.flatnonzero(ranks == last)
        distances = dict(zip(front, crowding_distances(before[front]), strict=True))
        inside = [i for i in kept if ranks[i] == last]
        assert min(distances[i] for i in inside) >= max(distances[i] for i in outside)


def test_what_violates_less_survives():
    method = NSGA2(population_size=20)
    state = method.init(START, key=Key(0), bounds=Bounds(np.full(3, -4.0), np.full(3, 4.0)))
    worst = []
    for _ in range(40):
        state = told(method, state, constraints=lambda x: np.stack([1 - x[:, 0], x[:, 1]], 1))
        worst.append(state.violations.max())
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] == 0
    assert (state.points[:, 0] >= 1).all()
    front = state.objectives[state.ranks == 0]
    assert not dominates(front, front).any()


def test_the_first_population_holds_x0_and_what_is_known():
    method = NSGA2(population_size=8)
    known = Known([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], [5.0, 3.0])
    rows = method.ask(method.init(START, key=Key(0), known=known)).array
    assert rows[:3].tolist() == [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0], START.tolist()]


def test_failures_die_and_a_failed_beginning_is_begun_again():
    method = NSGA2(population_size=8)
    state = method.init(START, key=Key(0))
    first = method.ask(state).array
    state = method.tell(state, Evaluations(np.full(8, np.nan)))
    second = method.ask(state).array
    assert not (first[1:] == second[1:]).any()
    values = np.where(np.arange(8) < 3, np.nan, schaffer(second).mean(1))
    objectives = np.where(np.isnan(values)[:, None], np.nan, schaffer(second))
    state = method.tell(state, Evaluations(values, (), {"objectives": objectives}))
    assert len(state.points) == 5
    assert np.isfinite(state.objectives).all()
    assert len(method.ask(state)) == 8
    assert len(told(method, state).points) == 8


def test_mutations_reach_about_as_far_as_scale():
    method = NSGA2(population_size=40, crossover=0.0, mutation=1.0)
    for scale in (1e-3, 1e3):
        state = told(method, method.init(START, key=Key(0), scale=scale))
        moves = np.abs(method.ask(state).array[:, None] - state.points).min(1).max()
        assert 1e-3 * scale < moves < 6 * scale


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 7}, "`population_size` must be even, got 7"),
        ({"population_size": 2}, "at least 4, got 2"),
        ({"crossover": 1.5}, "`crossover` must be from 0 to 1, got 1.5"),
        ({"mutation": -0.1}, "`mutation` must be from 0 to 1"),
        ({"mutation_index": 0}, "above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        NSGA2(**options)
