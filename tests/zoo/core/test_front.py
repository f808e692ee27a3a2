"""Several objectives: what functions may return, and which points no other one dominates."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.core.front import SeveralObjectives, dominates, extended
from zoo.core.rng import Key
from zoo.problems.several import schaffer, zdt1


def plain_front(objectives):
    """The rows that no other one dominates, the first of equals, by definition."""
    kept = []
    for i, mine in enumerate(objectives):
        worse = any((other <= mine).all() and (other < mine).any() for other in objectives)
        again = any((other == mine).all() for other in objectives[:i])
        if not (worse or again):
            kept.append(i)
    return kept


@pytest.mark.parametrize("kinds", [4, 1000])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_front_of_all_points_is_found_step_by_step(k, kinds):
    drawn = Key(0).integers(0, 120, k, high=kinds).astype(float)
    points = np.arange(120.0)[:, None]
    front = None
    for start in range(0, 120, 15):
        front = extended(front, points[start : start + 15], drawn[start : start + 15])
    expected = plain_front(drawn)
    assert sorted(front[0].ravel().tolist()) == [float(i) for i in expected]
    for point, row in zip(front[0].ravel(), front[1], strict=True):
        assert (drawn[int(point)] == row).all()


def test_a_front_of_tensors_stays_one():
    front = extended(None, torch.tensor([[1.0], [2.0]]), np.array([[1.0, 2.0], [2.0, 1.0]]))
    front = extended(front, torch.tensor([[3.0]]), np.array([[0.5, 1.5]]))
    assert isinstance(front[0], torch.Tensor)
    assert sorted(front[0].ravel().tolist()) == [2.0, 3.0]


def test_dominance_is_strict_and_antisymmetric():
    rows = Key(1).integers(0, 40, 3, high=3).astype(float)
    better = dominates(rows, rows)
    assert not better.diagonal().any()
    assert not (better & better.T).any()
    assert better.any()


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: (x[0], x[1] + 1),
        lambda x: [float(x[0]), np.float32(x[1] + 1)],
        lambda x: np.array([x[0], x[1] + 1]),
        lambda x: torch.tensor([x[0], x[1] + 1]),
        lambda x: (torch.tensor(x[0]), x[1] + 1),
    ],
)
def test_a_row_may_be_anything_that_holds_numbers(returned):
    done = SeveralObjectives(returned)(np.array([[1.0, 2.0], [3.0, 4.0]]), key=Key(0))
    assert done.extras["objectives"].tolist() == [[1.0, 3.0], [3.0, 5.0]]
    assert done.values.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "got None"),
        ("ab", "must return a number, got 'ab'"),
        ((1.0, None), "got None"),
        (np.zeros((2, 2)), r"row of numbers for each of 1 points, got shape \(1, 2, 2\)"),
        ([], r"row of numbers for each of 1 points, got shape \(1, 0\)"),
        (1j, "real number"),
    ],
)
def test_anything_else_is_refused(returned, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SeveralObjectives(lambda x: returned)(np.zeros((1, 2)), key=Key(0))
    with pytest.raises(zoo.EvaluationError):
        zoo.minimize(lambda x: returned, [0.0, 0.0], method="nsga2", budget=8)


def test_one_that_is_no_number_fails_the_row():
    done = SeveralObjectives(lambda x: (1.0, np.nan) if x[0] else (1.0, 2.0))(
        np.array([[0.0], [1.0]]), key=Key(0)
    )
    assert done.values.tolist()[0] == 1.5
    assert np.isnan(done.values[1])
    assert np.isnan(done.extras["objectives"][1]).all()


def test_a_method_for_one_objective_says_what_to_take():
    with pytest.raises(zoo.EvaluationError, match=r"several objectives.*nsga2"):
        zoo.minimize(lambda x: np.array([1.0, 2.0]), [0.0, 0.0], method="cma", budget=8)


ARGUMENTS = {"method": "nsga2", "bounds": [(-4, 4)] * 3, "budget": 600, "rng": 0, "vectorized": True}


class TestTheFrontInTheResult:
    def test_is_what_was_evaluated_and_nothing_dominates_it(self):
        seen = []

        def fun(x):
            seen.append(schaffer(x))
            return seen[-1]

        result = zoo.minimize(fun, **ARGUMENTS)
        everything = np.concatenate(seen)
        assert result.nfev == len(everything) <= 600
        expected = everything[plain_front(everything)]
        order = np.lexsort(expected.T[::-1])
        assert result.front.fun.tolist() == expected[order].tolist()
        assert schaffer(result.front.x).tolist() == result.front.fun.tolist()
        assert result.fun == result.front.fun.mean(1).min()
        assert result.x.tolist() in result.front.x.tolist()
        assert (np.diff(result.front.fun[:, 0]) > 0).all()

    def test_is_the_same_with_workers_and_after_a_stop(self, tmp_path):
        fun = "zoo.problems.several:schaffer"
        expected = zoo.minimize(fun, **ARGUMENTS)
        assert zoo.minimize(fun, **ARGUMENTS, workers=2).front.x.tobytes() == expected.front.x.tobytes()

        def stop(intermediate_result):
            if intermediate_result.nit == 5:
                raise StopIteration

        zoo.minimize(fun, **ARGUMENTS, out=tmp_path / "run", callback=stop)
        resumed = zoo.resume(tmp_path / "run")
        assert resumed.front.x.tobytes() == expected.front.x.tobytes()
        written = json.loads((tmp_path / "run" / "result.json").read_text())
        assert written["front"]["fun"] == expected.front.fun.tolist()

    def test_points_in_it_keep_to_the_constraints(self):
        def outside(x):
            return x[0] - 0.5

        arguments = {**ARGUMENTS, "vectorized": False, "budget": 1500}
        constraints = [{"type": "ineq", "fun": outside}]
        result = zoo.minimize(lambda x: schaffer(x[None])[0], **arguments, constraints=constraints)
        assert len(result.front.x) > 20
        assert (result.front.x[:, 0] >= 0.5).all()
        assert (abs(result.front.x[:, 0] - 0.5) < 0.05).any()

    def test_points_of_a_space(self):
        space = zoo.Space({"x": zoo.Float(0, 1), "kind": zoo.Categorical(["a", "b"])})

        def fun(point):
            worse = point["kind"] == "b"
            return point["x"] + worse, 1 - point["x"] + worse

        result = zoo.minimize(fun, space=space, method="nsga2", budget=400, rng=0)
        assert {point["kind"] for point in result.front.x} == {"a"}
        assert len(result.front.x) == len(result.front.fun) > 20

    def test_of_tensors(self):
        x0 = torch.zeros(2)
        result = zoo.minimize(
            lambda x: (float((x**2).sum()), float(((x - 2) ** 2).sum())),
            x0,
            method="nsga2",
            budget=200,
            rng=0,
        )
        assert isinstance(result.front.x, torch.Tensor)
        assert result.front.x.dtype == torch.float32

    def test_with_noise(self):
        def noisy(x):
            return schaffer(x) + np.random.default_rng().normal(size=(1, 2))

        result = zoo.minimize(noisy, **ARGUMENTS, noise=True)
        assert result.fun_error > 0
        assert len(result.front.x)

    def test_near_the_true_one(self):
        result = zoo.minimize(zdt1, bounds=[(0, 1)] * 10, method="nsga2", budget=8000, rng=0, vectorized=True)
        first, second = result.front.fun.T
        assert (second - (1 - np.sqrt(first))).max() < 0.05
        assert np.diff(first).max() < 0.05
