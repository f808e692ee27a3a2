"""What evaluations find beside their values reaches the method whole, whoever evaluates."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import zoo
from zoo.core.errors import EvaluationError
from zoo.core.objective import Objective, VectorizedFunction, as_objective
from zoo.core.types import Evaluations, Failure, Known, Reply, Rows, join_extras
from zoo.execution.executor import Mapped, Serial
from zoo.execution.ledger import Ledger
from zoo.execution.processes import Processes
from zoo.run.journal import SEARCH, Journal

POINTS = np.random.default_rng(0).normal(size=(200, 3))
NAN = float("nan")


def made():
    """Return things by name, made in a function so that they travel to workers by value."""

    def both(x):
        """Values, a vector and a number beside them; rows with x[0] > 1.5 fail."""
        values = np.where(x[:, 0] > 1.5, np.nan, (x**2).sum(1))
        return Evaluations(values, extras={"constraints": x[:, :2] - 0.5, "steps": x[:, 2]})

    class Streams(Rows):
        __slots__ = ()

        def noise(self, start, stop):
            return np.arange(start, stop) % 3

    class Both(Objective):
        unit = 7

        def __call__(self, x, *, key):
            return both(x)

    return both, Streams, Both


both, Streams, Both = made()


@pytest.mark.parametrize("rows", [Rows, Streams])
@pytest.mark.parametrize("objective", [Both, lambda: VectorizedFunction(both)])
@pytest.mark.parametrize("executor", [Serial, lambda: Mapped(map), lambda: Processes(2)])
def test_through_every_executor(executor, objective, rows):
    opened = executor()
    with opened.open(objective()):
        done = opened.evaluate(rows(POINTS), zoo.Key(0), 0)
    expected = both(POINTS)
    np.testing.assert_array_equal(done.values, expected.values)
    assert sorted(done.extras) == ["constraints", "steps"]
    for name, extra in done.extras.items():
        assert extra.tobytes() == expected.extras[name].tobytes(), name


def test_through_the_journal(tmp_path):
    journal = Journal(tmp_path / "evaluations.bin")
    extras = {"constraints": POINTS[2:4], "steps": np.array([4.0, NAN])}
    failures = (Failure(3, "returned", "returned nan"),)
    journal.append(0, 0, SEARCH, Reply(2, np.array([1.0, NAN]), failures, extras=extras))
    journal.append(0, 0, SEARCH, Reply(0, np.array([1.0, 2.0]), extras={"constraints": POINTS[0:8:4]}))
    journal.close()
    first, second = Journal(tmp_path / "evaluations.bin").known(SEARCH, 0)
    assert first.failures == failures
    for name, extra in extras.items():
        np.testing.assert_array_equal(first.extras[name], extra)
    np.testing.assert_array_equal(second.extras["constraints"], POINTS[0:8:4])
    assert list(second.extras) == ["constraints"]


def test_the_ledger_cuts_what_it_knows_already():
    records = []
    ledger = Ledger(
        range(5), record=records.append, known=[Reply(1, np.ones(1), extras={"a": np.array([[7.0]])})]
    )
    ledger.add(Reply(0, np.zeros(4), extras={"a": np.arange(4.0)[:, None], "b": np.arange(4.0)}))
    done = ledger.evaluations()
    assert done.extras["a"].tolist() == [[0.0], [7.0], [2.0], [3.0]]
    np.testing.assert_array_equal(done.extras["b"], [0.0, NAN, 2.0, 3.0])
    assert [record.extras["a"].tolist() for record in records] == [[[0.0]], [[2.0], [3.0]]]


def test_a_part_without_them_is_filled():
    joined = join_extras([(slice(0, 2), {}), (np.array([3, 2]), {"a": np.array([1.0, 2.0])})], 4)
    np.testing.assert_array_equal(joined["a"], [NAN, NAN, 2.0, 1.0])
    with pytest.raises(EvaluationError, match="must have as many a, got 2 and 3"):
        join_extras([(slice(0, 1), {"a": np.zeros((1, 2))}), (slice(1, 2), {"a": np.zeros((1, 3))})], 2)


def test_violations_are_the_largest_entry_above_zero():
    constraints = [[-1.0, 0.0], [0.5, 2.0], [NAN, -1.0]]
    assert Evaluations(np.zeros(3), extras={"constraints": constraints}).violations.tolist() == [0, 2, np.inf]
    assert Evaluations(np.zeros(2)).violations.tolist() == [0, 0]
    assert Evaluations(np.zeros(2), extras={"constraints": np.empty((2, 0))}).violations.tolist() == [0, 0]


def test_of_another_length_they_are_refused():
    with pytest.raises(ValueError, match=r"`extras` must have 2 rows each, got 'a' of shape \(3,\)"):
        Evaluations(np.zeros(2), extras={"a": np.zeros(3)})


def bounded(x):
    """The sphere where x[0] is at least 1."""
    return Evaluations((x**2).sum(1), extras={"constraints": 1 - x[:, :1]})


def test_a_search_prefers_points_that_keep_to_the_constraints(tmp_path):
    arguments = {"method": "random", "budget": 500, "rng": 0, "vectorized": True, "bounds": [(-2, 2)] * 2}
    result = zoo.minimize(bounded, [-1.0, 0.0], **arguments)
    assert result.x[0] >= 1
    assert result.fun == pytest.approx((result.x**2).sum())
    assert result.fun > 1
    calls = []

    def stopped(x):
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return bounded(x)

    stopped.__qualname__ = bounded.__qualname__
    with contextlib.suppress(KeyboardInterrupt):
        zoo.minimize(stopped, [-1.0, 0.0], **arguments, out=tmp_path / "run")
    with pytest.warns(zoo.ZooWarning, match="the code"):
        resumed = zoo.resume(tmp_path / "run", bounded)
    assert resumed.x.tobytes() == result.x.tobytes()


def test_a_target_counts_where_the_constraints_are_kept():
    assert (
        zoo.minimize(bounded, [0.1, 0.0], method="random", budget=200, vectorized=True, target=0.5).nfev
        == 200
    )


def test_none_keeps_to_the_constraints_and_the_least_violated_is_best():
    def never(x):
        return Evaluations(x[:, 0], extras={"constraints": 1 + (x**2).sum(1, keepdims=True)})

    result = zoo.minimize(never, [3.0, 1.0], method="random", budget=200, vectorized=True, rng=0)
    assert (result.x**2).sum() < 1


class TestKnown:
    def test_order_and_best(self):
        known = Known([[0.0], [1.0], [2.0]], [3.0, NAN, 1.0])
        assert known.order.tolist() == [2, 0]
        assert known.best.tolist() == [2.0]

    @pytest.mark.parametrize(
        ("points", "values", "message"),
        [
            ([[0.0], [1.0]], [1.0], "as many values"),
            (np.empty((0, 2)), [], "n of at least 1"),
            ([[np.inf]], [1.0], "finite points"),
            ([[0.0]], [NAN], "one finite value"),
        ],
    )
    def test_what_is_refused(self, points, values, message):
        with pytest.raises(ValueError, match=message):
            Known(points, values)


def sphere(x):
    return float((x**2).sum())


class TestMinimizeWithKnown:
    def test_a_known_point_may_be_the_result(self):
        result = zoo.minimize(
            sphere, np.ones(2), known=([[0.0, 0.0]], [-5.0]), method="random", budget=5, rng=0
        )
        assert result.fun == -5
        assert result.x.tolist() == [0, 0]
        assert result.nfev == 5

    def test_without_x0_the_search_starts_at_the_best(self):
        seen = []

        def fun(x):
            seen.append(x)
            return sphere(x)

        zoo.minimize(fun, known=([[1.0, 2.0], [0.5, 0.25]], [5.0, 0.3]), method="random", budget=3, rng=0)
        assert seen[0].tolist() == [0.5, 0.25]

    def test_points_without_a_value_are_evaluated_first_and_in_one_step(self, tmp_path):
        seen = []

        def fun(x):
            seen.append(x)
            return sphere(x)

        known = ([[1.0, 2.0], [0.5, 0.25], [3.0, 3.0]], [5.0, None, None])
        arguments = {"known": known, "method": "cma", "budget": 60, "rng": 0}
        result = zoo.minimize(fun, **arguments, out=tmp_path / "run")
        assert [x.tolist() for x in seen[:2]] == [[0.5, 0.25], [3.0, 3.0]]
        assert result.nfev == 60 == len(seen)
        again = zoo.minimize(lambda x: float((x**2).sum()), **arguments, workers=2)
        assert again.x.tobytes() == result.x.tobytes()
        first = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]
        assert '"nfev": 2' in first

    def test_fewer_than_the_points_are_evaluated_where_the_budget_ends(self):
        known = ([[1.0, 2.0], [0.5, 0.25], [3.0, 3.0]], None)
        result = zoo.minimize(sphere, known=known, method="random", budget=2)
        assert result.nfev == 2
        assert result.x.tolist() == [0.5, 0.25]

    def test_points_that_fail_do_no_harm(self):
        def fun(x):
            return NAN if x[0] == 3 else sphere(x)

        result = zoo.minimize(fun, [1.0, 1.0], known=([[3.0, 3.0]], None), budget=200, rng=0)
        assert result.fun < 1e-3
        assert result.num_failed == 1

    def test_a_directory_holds_them(self, tmp_path):
        arguments = {"method": "random", "budget": 40, "rng": 0, "out": tmp_path / "run"}
        zoo.minimize(sphere, [1.0, 1.0], known=([[2.0, 2.0]], [8.0]), **arguments)
        with pytest.raises(zoo.RunDirectoryError, match="'known' differ"):
            zoo.minimize(sphere, [1.0, 1.0], known=([[2.0, 2.0]], [9.0]), **arguments)
        with pytest.raises(zoo.RunDirectoryError, match="'known' differ"):
            zoo.minimize(sphere, [1.0, 1.0], known=([[2.0, 2.0]], None), **arguments)
        assert zoo.resume(tmp_path / "run", sphere).nfev == 40

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            ([[0.0, 1.0]], r"must be \(points, values\)"),
            (([0.0, 1.0], [1.0]), r"must be \(points, values\)"),
            (([[0.0, 1.0]], [1.0, 2.0]), r"must be \(points, values\)"),
            (([[0.0, 1.0, 2.0]], [1.0]), "points of 2 variables, got 3"),
            (([[0.0, np.inf]], None), "finite points"),
            (([[0.0, 9.0]], None), "inside `bounds`"),
        ],
    )
    def test_what_is_refused(self, known, message):
        with pytest.raises(ValueError, match=message):
            zoo.minimize(sphere, [1.0, 1.0], known=known, bounds=[(-2, 2)] * 2, budget=5)


def test_an_objective_may_find_things_point_by_point():
    # Each unit is a point of its own, and what it finds is put together again.
    class One(Objective):
        unit = 1

        def __call__(self, x, *, key):
            return Evaluations((x**2).sum(1), extras={"a": x})

    with (serial := Serial()).open(as_objective(One())):
        done = serial.evaluate(Rows(POINTS), zoo.Key(0), 0)
    assert done.extras["a"].tobytes() == POINTS.tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_under_noise_a_point_that_keeps_to_the_constraints_stands_in(seed):
    def noisy(x):
        return float((x**2).sum() + 0.02 * np.random.standard_normal())

    def constraint(x):
        return x.sum() - 1

    arguments = {"method": "cma", "noise": True, "budget": 1500, "rng": seed}
    result = zoo.minimize(noisy, np.ones(3), constraints=constraint, **arguments)
    assert result.success
    assert result.maxcv == 0 <= constraint(result.x)
    assert 0 < result.fun_error < 0.02
    assert abs(result.fun - 1 / 3) < 0.05
    assert result.nfev <= 1500
