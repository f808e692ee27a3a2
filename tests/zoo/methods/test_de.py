"""Differential evolution: a generation against plain loops, adaptation, archive, known points, walls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations, Known
from zoo.methods import de
from zoo.methods.de import DE, DEState, _parameters, _prepared
from zoo.problems import rastrigin, sphere

START = np.array([0.5, -1.0, 2.0])
INF = np.inf


def told(method: DE, state: DEState, fun: Any = sphere) -> DEState:
    asked = method.ask(state)
    return method.tell(state, Evaluations(to_numpy(fun(asked.rows(0, len(asked))))))


def run(method: DE, steps: int, fun: Any = sphere, **options: Any) -> DEState:
    state = method.init(options.pop("x0", START), key=Key(0), **options)
    for _ in range(steps):
        state = told(method, state, fun)
    return state


def numbers(state: DEState, stride: int) -> tuple[Any, Any]:
    """Return what the rows of a state's trials were made of: ten shares, and one for each coordinate."""
    width = 10 + state.frame.dim
    steps = max(1, 4096 // (stride * width))
    block, here = divmod(state.step, steps)
    drawn = state.frame.key.fold("de", block).uniform(0, steps * stride, width)
    rows = drawn[here * stride : (here + 1) * stride]
    return rows[:, :10], rows[:, 10:]


def pick(share: float, count: int, taken: list[int]) -> int:
    """Return one of the first `count` integers that are not taken."""
    free = [index for index in range(count) if index not in taken]
    return free[int(share * len(free))]


@pytest.mark.parametrize("strategy", de.STRATEGIES)
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(("size", "dim"), [(7, 3), (60, 80)])
def test_a_generation_is_what_plain_loops_make(strategy: str, bounded: bool, size: int, dim: int) -> None:
    method = DE(strategy, size, weight=0.75, crossover=0.6, best_share=0.4)
    box = Bounds(np.full(dim, -1.0), np.full(dim, 1.0)) if bounded else None
    state = run(method, 4, rastrigin, x0=np.linspace(-1, 1, dim), bounds=box)
    shares, crossed = numbers(state, size)
    pool, members = state.pool, state.pool[:size]
    assert (len(pool) > size) == (strategy == "shade")
    assert (np.diff(state.values) >= 0).all()
    outside = 0
    for i in range(size):
        one = pick(shares[i, 5], size, [i])
        two = pick(shares[i, 6], len(pool), [i, one])
        if strategy == "shade":
            weight, rate = state.weights[i], state.crossovers[i]
            guide = int(shares[i, 4] * max(2, round(0.4 * size)))
            mutant = (pool[one] - pool[two] + pool[guide] - members[i]) * weight + members[i]
        else:
            weight, rate = 0.75, 0.6
            guide = 0 if strategy == "best/1/bin" else pick(shares[i, 7], size, [i, one, two])
            mutant = (pool[one] - pool[two]) * weight + pool[guide]
        trial = members[i].copy()
        for j in range(dim):
            if crossed[i, j] < rate or j == int(shares[i, 8] * dim):
                trial[j] = mutant[j]
                if bounded and mutant[j] < -1.0:
                    trial[j], outside = -1.0 + (members[i, j] + 1.0) / 2, outside + 1
                if bounded and mutant[j] > 1.0:
                    trial[j], outside = 1.0 - (1.0 - members[i, j]) / 2, outside + 1
        assert_array_equal(state.trial[i], trial)
    assert bool(outside) == bounded
    assert_array_equal(method.ask(state).rows(0, size), state.trial)


def test_nobody_is_mixed_with_itself() -> None:
    """With a population of four, all members take part in every trial, each once."""
    method = DE("rand/1/bin", 4, weight=0.5, crossover=1.0)
    state = run(method, 3, rastrigin)
    for i in range(4):
        others = [index for index in range(4) if index != i]
        mixes = {
            tuple(state.pool[c] + 0.5 * (state.pool[a] - state.pool[b]))
            for a in others
            for b in others
            for c in others
            if len({a, b, c}) == 3
        }
        assert len(mixes) == 6
        assert min(np.abs(np.array(mix) - state.trial[i]).max() for mix in mixes) < 1e-12


def test_parameters_are_drawn_around_the_memory() -> None:
    shares = np.random.Generator(np.random.Philox(0)).random((5000, 10))
    memory = np.array([[0.05, 0.5, 1.0], [0.0, 0.9, -1.0]])
    weights, crossovers = _parameters(_prepared(shares, shares), memory)
    assert 0 < weights.min() < weights.max() == 1
    assert crossovers.min() == 0
    assert crossovers.max() == 1
    column = (shares[:, 0] * 3).astype(int)
    assert (crossovers[column == 2] == 0).all()
    inner = weights < 1
    # The share above a weight is that of the Cauchy distribution, over its part above 0.
    above = 0.5 - np.arctan((weights - memory[0, column]) / 0.1) / math.pi
    positive = 0.5 + np.arctan(memory[0, column] / 0.1) / math.pi
    assert_allclose(shares[inner, 3], (above / positive)[inner], rtol=1e-6, atol=1e-9)
    normal = (crossovers[column == 1] - 0.9) / 0.1
    normal = normal[crossovers[column == 1] < 1]
    assert abs((normal < 0).mean() - 0.5 / 0.8413447) < 6 * 0.5 / math.sqrt(len(normal))


def successes(before: DEState, values: Any) -> list[tuple[int, float, float]]:
    """Return (members passed, weight, rate) of the trials that are better than their members."""
    found = []
    for i, new in enumerate(values):
        if new < before.values[i] < INF:
            passed = sum(new <= value <= before.values[i] for value in before.values)
            found.append((passed, before.weights[i], before.crossovers[i]))
    return found


def test_memory_is_of_lehmer_means() -> None:
    method = DE(population_size=12, memory_size=3)
    state = run(method, 1, rastrigin)
    assert_array_equal(state.memory, np.full((2, 3), 0.5))
    for _ in range(9):
        values = rastrigin(state.trial)
        good, slot = successes(state, values), state.slot
        after = method.tell(state, Evaluations(values))
        expected = state.memory.copy()
        if good:
            for row in (0, 1):
                numbers = [(w, (f, cr)[row]) for w, f, cr in good]
                expected[row, slot] = sum(w * x * x for w, x in numbers) / sum(w * x for w, x in numbers)
            slot = (slot + 1) % 3
        assert_allclose(after.memory, expected, rtol=1e-12)
        assert after.slot == slot
        state = after
    assert not (state.memory == 0.5).any()


def test_a_rate_that_was_never_of_use_stays_at_0() -> None:
    from dataclasses import replace

    method = DE(population_size=8, memory_size=2)
    state = replace(run(method, 3), crossovers=np.zeros(8))
    state = method.tell(state, Evaluations(state.values / 2))
    assert state.memory[1, 0] == -1
    state = told(method, replace(state, memory=np.array([[0.5, 0.5], [-1.0, -1.0]])))
    assert (state.crossovers == 0).all()
    assert ((state.trial != state.pool[:8]).sum(1) <= 1).all()
    after = method.tell(replace(state, crossovers=np.ones(8)), Evaluations(state.values / 2))
    assert (after.memory[1] == -1).all()


def test_those_replaced_go_to_the_archive() -> None:
    method = DE(population_size=10, archive_rate=1.5)
    state = run(method, 1)
    assert len(state.pool) == 10, "the first ones replace nobody"
    held: list[bytes] = []
    for _ in range(4):
        values = sphere(state.trial)
        lost = [state.pool[i].tobytes() for i in range(10) if values[i] < state.values[i]]
        after = method.tell(state, Evaluations(values))
        archive = [row.tobytes() for row in after.pool[10:]]
        assert len(archive) == min(15, len(held) + len(lost))
        assert set(archive) <= {*held, *lost}
        if len(held) + len(lost) <= 15:
            assert archive == held + lost
        state, held = after, archive
    assert len(held) == 15
    assert len(run(DE(population_size=10, archive_rate=0), 5).pool) == 10


def test_late_ones_take_places_at_random() -> None:
    method = DE(population_size=10, archive_rate=1.0)
    state = run(method, 8)
    assert len(state.pool) == 20
    after = method.tell(state, Evaluations(state.values / 2))
    shares, _ = numbers(after, 10)
    expected = [row.tobytes() for row in state.pool[10:]]
    for i in range(10):
        expected[int(shares[i, 9] * 10)] = state.pool[i].tobytes()
    assert [row.tobytes() for row in after.pool[10:]] == expected


@pytest.mark.parametrize(("first", "last"), [(30, None), (30, 11), (9, 40)])
def test_the_population_shrinks_linearly_with_the_budget(first: int, last: int | None) -> None:
    method, budget = DE(population_size=first, final_population_size=last), 500
    state = method.init(START, key=Key(0), budget=budget)
    least = min(first, last or 4)
    while method.finished(state) is None:
        size = len(method.ask(state))
        after = told(method, state)
        assert after.nfev == state.nfev + size
        assert len(after.values) == round(first + (least - first) * after.nfev / budget)
        # The worst ones go, and no more of the archive is kept than what is left of its size.
        new = sphere(state.trial)
        new[size:] = INF
        assert_array_equal(after.values, np.sort(np.minimum(state.values, new))[: len(after.values)])
        assert len(after.pool) <= int(3.6 * len(after.values))
        state = after
    assert state.nfev == budget
    assert len(state.values) == least


@pytest.mark.parametrize("strategy", ["rand/1/bin", "best/1/bin"])
def test_the_classics_keep_their_population(strategy: str) -> None:
    assert len(run(DE(strategy, 10), 9, budget=100).values) == 10
    assert len(run(DE(strategy, 10, final_population_size=4), 9, budget=100).values) < 7


def test_number_of_members() -> None:
    for dim, budget, expected in (
        (3, None, 54),
        (10, None, 100),
        (1, 10**6, 18),
        (10, 10_000, 50),
        (10, 100, 8),
        (100, 10**6, 500),
    ):
        method = DE()
        assert len(method.ask(method.init(np.zeros(dim), key=Key(0), budget=budget))) == expected


def test_equal_values_are_accepted_and_are_no_success() -> None:
    method = DE(population_size=6)
    state = run(method, 1, lambda x: np.ones(len(x)))
    after = method.tell(state, Evaluations(np.ones(6)))
    assert_array_equal(after.pool, state.trial)
    assert_array_equal(after.memory, state.memory)


def test_failed_trials_are_never_accepted() -> None:
    method = DE(population_size=6)
    nobody = method.tell(method.init(START, key=Key(0)), Evaluations(np.full(6, np.nan)))
    assert_array_equal(method.recommend(nobody), START)
    assert (nobody.values == INF).all()
    one = method.tell(nobody, Evaluations([np.nan, np.nan, 4.0, np.nan, INF, -INF]))
    assert_array_equal(method.recommend(one), nobody.trial[2])
    assert one.values.tolist() == [4.0, *[INF] * 5]
    assert len(one.pool) == 6, "what had no value is no loss"
    after = method.tell(one, Evaluations(np.full(6, np.nan)))
    assert_array_equal(after.pool, one.pool)
    assert_array_equal(after.memory, one.memory)


def test_known_points_are_members() -> None:
    points = np.array([[3.0, 3.0, 3.0], [9.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    known = Known(points, [27.0, 0.0, 3.0, np.nan, 1.0])
    box = Bounds(np.full(3, -5.0), np.full(3, 5.0))
    method = DE(population_size=6)
    state = method.init(START, key=Key(0), bounds=box, known=known)
    assert_array_equal(state.pool[:3], points[[4, 2, 0]])  # one failed, and one is outside
    asked = method.ask(state)
    assert len(asked) == 3
    assert_array_equal(asked.rows(0, 1)[0], START)
    assert_array_equal(method.recommend(state), points[4])
    after = method.tell(state, Evaluations([5.0, 0.5, np.nan]))
    assert after.values.tolist() == [0.5, 1.0, 3.0, 5.0, 27.0, INF]
    assert (after.nfev, len(method.ask(after))) == (3, 6)


def test_enough_known_points_need_no_first_step() -> None:
    points = np.arange(15.0).reshape(5, 3)
    method = DE(population_size=4)
    state = method.init(START, key=Key(0), known=Known(points, [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert_array_equal(state.pool, points[:4])
    assert len(state.weights) == 4
    after = method.tell(state, Evaluations([0.5, 9.0, 9.0, 9.0]))
    assert_array_equal(after.pool[0], state.trial[0])
    assert_array_equal(after.pool[4], points[0])
    assert not (after.memory == 0.5).all()


def test_ends_when_the_population_has_shrunk_to_a_point() -> None:
    method = DE(population_size=12)
    state = method.init(START, key=Key(0))
    while method.finished(state) is None:
        state = told(method, state)
        assert state.step < 2000
    assert "tolx" in str(method.finished(state))
    assert sphere(method.recommend(state)) < 1e-20


def test_stays_finite_where_nothing_stops_it() -> None:
    method = DE("rand/1/bin", 8, weight=2.0)
    state = run(method, 400, lambda x: -x.astype(float).sum(-1), x0=START.astype(np.float32))
    assert np.isfinite(state.pool).all()
    assert state.pool.max() > 1e37


@pytest.mark.parametrize("strategy", de.STRATEGIES)
def test_torch_makes_the_same_kind_of_search(strategy: str) -> None:
    like = Like("torch", "float64")
    state = run(DE(strategy, 16), 80, x0=like.asarray(START))
    assert Like.of(state.pool) == Like.of(state.trial) == like
    assert float(state.values[0]) < 1e-6


def test_the_cache_changes_nothing() -> None:
    method = DE(population_size=6)
    kept = run(method, 9)
    state = method.init(START, key=Key(0))
    for _ in range(9):
        de.clear_cache()
        state = told(method, state)
    assert_array_equal(state.trial, kept.trial)


def test_diagnostics() -> None:
    method = DE(population_size=6)
    first = method.init(START, key=Key(0))
    assert math.isnan(method.diagnostics(first)["weight"])
    state = told(method, first)
    found = method.diagnostics(state)
    assert found["population"] == 6
    assert found["spread"] == (state.pool.max(0) - state.pool.min(0)).max()
    assert found["weight"] == state.weights.mean()
    assert found["crossover"] == state.crossovers.mean()


def test_wrong_arguments() -> None:
    for options, words in (
        ({"population_size": 3}, "`population_size` must be at least 4, got 3"),
        ({"final_population_size": 3}, "`final_population_size` must be at least 4, got 3"),
        ({"strategy": "shad"}, "`strategy` must be one of .* Did you mean 'shade'"),
        ({"crossover": 1.5}, "`crossover` must be at least 0 and at most 1, got 1.5"),
        ({"weight": -0.5}, "`weight` must be at least 0 and at most 2, got -0.5"),
    ):
        with pytest.raises(ValueError, match=words):
            DE(**options)
    with pytest.raises(ValueError, match="`evaluations` must hold the 4 values asked for, got 2"):
        DE(population_size=4).tell(DE(population_size=4).init(START, key=Key(0)), Evaluations([1.0, 2.0]))
