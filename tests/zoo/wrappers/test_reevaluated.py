"""Means of as many evaluations as it takes: what is told, what is asked again, and how that number moves."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

import zoo
from tests.cases import CASES
from tests.contracts.test_contracts import copy_of
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Rows
from zoo.methods.cma_es import CMAES
from zoo.registry import find
from zoo.wrappers.reevaluated import Reevaluated, Repeated, _tau

START = np.array([0.75, -1.5, 2.0, 0.25])
NAN = float("nan")


def sphere(x):
    return (np.asarray(x, np.float64) ** 2).sum(1)


def noisy(candidates, key, level=0.3):
    """Values whose noise depends on the point and on its noise stream."""
    count = len(candidates)
    streams = candidates.noise(0, count)
    draws = [key.fold(row, int(stream)).normal(0, 1, 1)[0, 0] for row, stream in enumerate(streams)]
    return sphere(candidates.rows(0, count)) + level * np.array(draws)


def steps(method, state, count, values):
    for number in range(count):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(values(candidates, number)))
    return state


class Streams(Rows):
    __slots__ = ()

    def noise(self, start, stop):
        return np.arange(start, stop) // 2


def test_repetitions_are_rows_under_streams_of_their_own():
    inner = Streams(np.arange(8.0).reshape(4, 2))
    repeated = Repeated(inner, np.array([1, 3]), 5, 3)
    assert (len(repeated), repeated.dim) == (6, 2)
    whole = repeated.rows(0, 6)
    assert whole.tolist() == [[2.0, 3.0], [6.0, 7.0]] * 3
    assert (repeated.noise(0, 6) - [0, 1] * 3 == np.repeat([5, 6, 7], 2) * 2**32).all()
    for start in range(6):
        for stop in range(start, 7):
            assert repeated.rows(start, stop).tolist() == whole[start:stop].tolist()
            assert (repeated.noise(start, stop) == repeated.noise(0, 6)[start:stop]).all()
    whole += 1
    assert repeated.rows(0, 1).tolist() == [[2.0, 3.0]]
    assert pickle.loads(pickle.dumps(repeated)).rows(0, 6).tolist() == repeated.rows(0, 6).tolist()


def test_the_first_evaluation_is_what_it_would_be_without():
    method = Reevaluated(CMAES())
    plain, state = CMAES().init(START, key=Key(0)), method.init(START, key=Key(0))
    asked, expected = method.ask(state), CMAES().ask(plain)
    assert asked.rows(0, len(asked)).tobytes() == expected.rows(0, len(expected)).tobytes()
    assert (asked.noise(0, len(asked)) == 0).all()


def test_the_method_is_told_means_without_what_the_rounds_have_in_common():
    method = Reevaluated(CMAES())
    state = method.init(START, key=Key(0))
    first = np.array([5.0, 1.0, 4.0, 2.0, 8.0, 3.0, 7.0, 6.0])
    state = method.tell(state, Evaluations(first))
    assert state.chosen.tolist() == [1, 2, 3, 5]  # the better half
    assert len(method.ask(state)) == 4
    second = first[[1, 2, 3, 5]] + 100 + np.array([0.5, -0.5, 0.25, -0.25])
    state = method.tell(state, Evaluations(second))
    told = first.copy()
    told[[1, 2, 3, 5]] += np.array([0.5, -0.5, 0.25, -0.25]) / 2
    expected = CMAES().tell(CMAES().init(START, key=Key(0)), Evaluations(told))
    assert digest(state.inner) == digest(expected)
    assert state.nfev == 12
    assert state.agreement == _tau(first[[1, 2, 3, 5]], second) == 1


def test_extras_are_averaged_as_well():
    method = Reevaluated(CMAES())

    class Recording(CMAES):
        def tell(self, state, evaluations):
            told.append(evaluations.extras["constraints"])
            return super().tell(state, evaluations)

    told = []
    method = Reevaluated(Recording())
    state = method.init(START, key=Key(0))
    values = np.arange(8.0)
    state = method.tell(state, Evaluations(values, extras={"constraints": values[:, None]}))
    state = method.tell(state, Evaluations(values[:4], extras={"constraints": np.full((4, 1), 10.0)}))
    assert told[0].ravel().tolist() == [5.0, 5.5, 6.0, 6.5, 4.0, 5.0, 6.0, 7.0]


def test_where_order_is_chance_evaluations_grow_and_where_it_is_not_they_shrink():
    method = Reevaluated(CMAES())
    chance = steps(
        method, method.init(START, key=Key(0)), 60, lambda c, n: Key(n).normal(0, len(c), 1).ravel()
    )
    assert chance.times > 5
    assert chance.agreement < 0.4
    assert len(method.ask(chance)) == 8 * round(chance.times)
    exact = steps(method, chance, 160, lambda c, n: sphere(c.rows(0, len(c))))
    assert exact.times == 1
    assert exact.agreement > 0.9


def test_noise_common_to_all_candidates_is_no_noise():
    method = Reevaluated(CMAES())

    def common(candidates, number):
        shifts = {
            int(s): float(Key(number).fold(int(s)).normal(0, 1, 1)[0, 0]) for s in candidates.noise(0, 999)
        }
        streams = candidates.noise(0, len(candidates))
        return sphere(candidates.rows(0, len(candidates))) + [100 * shifts[int(s)] for s in streams]

    state = steps(method, method.init(START, key=Key(0)), 60, common)
    assert state.times == 1
    assert sphere(method.recommend(state)[None])[0] < 1e-2
    assert method.diagnostics(state)["agreement"] > 0.9


@pytest.mark.parametrize("name", ["cma", "zo-adam", "random"])
def test_keeps_the_contract_of_methods(name):
    method = Reevaluated(find(name).build())
    state = other = method.init(START, key=Key(0), budget=4000)
    for number in range(40):
        before = digest(state)
        candidates = method.ask(state)
        rows = candidates.rows(0, len(candidates))
        assert candidates.rows(1, 2).tobytes() == rows[1:2].tobytes()
        values = Evaluations(noisy(candidates, Key(1).fold(number)))
        method.tell(state, Evaluations(values.values[::-1]))
        state, told = method.tell(state, values), state
        assert digest(told) == before
        other = method.tell(copy_of(other), values)
        assert digest(other) == digest(state)
        method.recommend(state), method.diagnostics(state), method.finished(state)


def test_failures_are_left_out():
    method = Reevaluated(CMAES())
    state = method.init(START, key=Key(0))
    values = np.array([NAN, 1.0, 4.0, NAN, 8.0, 3.0, 7.0, 6.0])
    state = method.tell(state, Evaluations(values))
    assert state.chosen.tolist() == [1, 2, 5, 7]
    state = method.tell(state, Evaluations([1.0, NAN, 4.0, 7.0]))
    told = values.copy()
    told[[1, 5, 7]] = np.array([1.0, 3.0, 6.0]) + (np.array([0.0, 1.0, 1.0]) - 2 / 3) / 2
    expected = CMAES().tell(CMAES().init(START, key=Key(0)), Evaluations(told))
    np.testing.assert_allclose(state.inner.mean, expected.mean, rtol=1e-15)
    state = method.tell(state, Evaluations(np.full(8, NAN)))
    assert state.first is None
    assert method.recommend(state).tobytes() == CMAES().recommend(expected).tobytes()
    state = method.tell(state, Evaluations([NAN] * 7 + [1.0]))
    assert state.first is None, "one value alone cannot be ranked"


def test_values_next_to_the_largest_numbers_have_means():
    method = Reevaluated(CMAES())
    state = method.init(START, key=Key(0))
    first = np.array([5.0, 1.0, 4.0, 2.0, 8.0, 3.0, 7.0, 6.0]) * 2.0**1020
    again = np.array([2.0, 1.0, 5.0, 4.0]) * 2.0**1020
    told = method.tell(method.tell(state, Evaluations(first)), Evaluations(again))
    small = method.tell(method.tell(state, Evaluations(first / 2.0**1020)), Evaluations(again / 2.0**1020))
    assert told.inner.mean.tobytes() == small.inner.mean.tobytes()
    assert (told.times, told.agreement) == (small.times, small.agreement)
    state = replace(state, times=3.0)
    state = method.tell(state, Evaluations(np.tile([1.7e308, -1.7e308] * 4, 3)))
    assert state.first == pytest.approx(np.array([1.7e308, -1.7e308] * 4))
    state = method.tell(state, Evaluations(np.tile([-1.7e308, 1.7e308] * 2, 3)))
    assert np.isfinite(method.recommend(state)).all()


def test_a_search_among_the_largest_numbers_has_a_value_and_an_error():
    def steep(x):
        return 1e308 * (1 + np.minimum(((x - 0.3) ** 2).sum(1), 40) / 100)

    for method in ("cbo", "ch"):
        result = zoo.minimize(
            steep, np.full(4, 1.3), method=method, budget=600, rng=0, vectorized=True, noise=True
        )
        assert result.fun == pytest.approx(1e308, rel=0.03)
        assert result.fun_error < 1e294


def test_kendalls_tau():
    assert _tau(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 9.0])) == 1
    assert _tau(np.array([1.0, 2.0, 3.0]), np.array([9.0, 6.0, 5.0])) == -1
    assert _tau(np.array([1.0, 2.0, 3.0]), np.array([6.0, 5.0, 9.0])) == pytest.approx(1 / 3)
    assert _tau(np.array([1.0, 1.0]), np.array([6.0, 5.0])) == 0


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`most` must be at least 1, got 0"):
        Reevaluated(CMAES(), most=0)
    with pytest.raises(ValueError, match="`share` must be at least 0 and below 1, got 1"):
        Reevaluated(CMAES(), share=1.0)
    method = Reevaluated(CMAES())
    with pytest.raises(ValueError, match="the 8 values asked for, got 3"):
        method.tell(method.init(START, key=Key(0)), Evaluations(np.zeros(3)))


def made():
    """Return an objective, defined in a function so that it travels to workers by value."""

    class Noisy(Objective):
        def __call__(self, x, *, key):
            places = [key.fold(*np.frombuffer(row.tobytes(), np.int64).tolist()) for row in x]
            noise = np.array([place.normal(0, 1, 1)[0, 0] for place in places])
            return (x**2).sum(1) + self.level * noise

        def __init__(self, level):
            self.level = level

    return Noisy


Noisy = made()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_every_method_keeps_to_the_budget_and_says_how_sure_it_is(case):
    result = zoo.minimize(
        Noisy(0.1), START, method=case.method, options=case.options, budget=211, rng=0, noise=True
    )
    assert result.nfev <= 211
    assert 0 < result.fun_error < 0.5
    assert abs(result.fun - (result.x**2).sum()) < 5 * result.fun_error + 0.1
    assert np.isfinite(result.x).all()


def test_same_bytes_with_workers_and_after_a_stop(tmp_path):
    arguments = {"method": "cma", "budget": 900, "rng": 3, "noise": True}
    expected = zoo.minimize(Noisy(0.5), START, **arguments)
    parallel = zoo.minimize(Noisy(0.5), START, **arguments, workers=2)
    assert parallel.x.tobytes() == expected.x.tobytes()
    assert (parallel.fun, parallel.fun_error) == (expected.fun, expected.fun_error)

    def stop(intermediate_result):
        if intermediate_result.nit in (7, 8, 20):
            raise StopIteration

    cut = zoo.minimize(Noisy(0.5), START, **arguments, out=tmp_path / "run", callback=stop)
    assert cut.status == 3
    assert cut.fun_error > 0
    for _ in range(3):
        resumed = zoo.resume(tmp_path / "run", Noisy(0.5), callback=stop)
    assert resumed.x.tobytes() == expected.x.tobytes()
    assert resumed.fun == expected.fun


def test_a_noisy_sphere_is_reached_ten_times_of_ten():
    x0 = np.random.default_rng(0).uniform(-3, 3, 10)
    start = float((x0**2).sum())
    for seed in range(10):
        result = zoo.minimize(Noisy(0.01 * start), x0, method="cma", budget=4000, rng=seed, noise=True)
        assert (result.x**2).sum() < 0.01 * start
        assert result.fun_error < 0.005 * start


def test_a_standard_error_covers_the_true_value_as_often_as_it_should():
    inside = 0
    for seed in range(60):
        result = zoo.minimize(Noisy(1.0), START, method="random", budget=300, rng=seed, noise=True)
        inside += abs(result.fun - (result.x**2).sum()) < 2 * result.fun_error
    # Of 60, 95 % are expected; from Student's law with the two degrees of freedom of three repetitions, 82 %.
    assert inside >= 60 * 0.82 - 3 * math.sqrt(60 * 0.82 * 0.18)
