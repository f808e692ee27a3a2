"""What `zoo.minimize` keeps to with every method; see `tests/cases.py` for who is tested."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.cases import CASES, Case, Problem
from tests.contracts.functions import bowl, constant
from tests.contracts.test_contracts import START, all_methods, lacking, may_be_flat

# Methods that take differences say so where the objective is constant, which some tests mean it to be.
pytestmark = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")


class Counted:
    """An objective that keeps account of its calls."""

    def __init__(self, fun: Any = bowl) -> None:
        self.fun, self.points = fun, []

    def __call__(self, x: np.ndarray[Any, Any]) -> float:
        self.points.append(x.copy())
        return float(self.fun(x))


def same(first: Any, second: Any) -> bool:
    """Whether two results are equal to the last bit."""
    return bool(
        first.x.tobytes() == second.x.tobytes()
        and (first.fun == second.fun or (first.fun != first.fun and second.fun != second.fun))
        and (first.nfev, first.nit, first.message) == (second.nfev, second.nit, second.message)
    )


@all_methods
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 37])
def test_budget_is_never_exceeded(case: Case, budget: int) -> None:
    fun = Counted()
    result = zoo.minimize(fun, START, method=case.method, options=case.options, budget=budget, rng=0)
    assert result.nfev == len(fun.points) <= budget
    assert result.fun == bowl(result.x) == min(map(bowl, fun.points), default=np.nan)
    assert result.success
    assert "budget" in result.message


@all_methods
def test_budget_is_used(case: Case) -> None:
    # What is left at the end is less than a step, even of the largest.
    result = zoo.minimize(bowl, START, method=case.method, options=case.options, budget=100, rng=0)
    assert result.nfev >= 88


@all_methods
def test_x_is_the_better_of_the_recommendation_and_the_best(case: Case) -> None:
    fun = Counted()
    result = zoo.minimize(fun, START, method=case.method, options=case.options, budget=150, rng=0)
    assert result.fun == result.fun_best == min(map(bowl, fun.points))
    assert (result.x == result.x_best).all()


@all_methods
def test_noise_gives_the_recommendation_with_a_fresh_value(case: Case) -> None:
    def noisy(x: np.ndarray[Any, Any]) -> float:
        return bowl(x) + 0.1 * float(np.random.standard_normal())

    first, again = (
        zoo.minimize(noisy, START, method=case.method, options=case.options, budget=150, rng=0, noise=True)
        for _ in range(2)
    )
    assert same(first, again)
    assert first.nfev <= 150
    assert np.isfinite(first.fun)
    assert first.fun_best <= first.fun
    assert bowl(first.x) < bowl(START)


@all_methods
def test_all_failed_is_no_success(case: Case) -> None:
    result = zoo.minimize(lambda x: np.nan, START, method=case.method, options=case.options, budget=60, rng=0)
    assert not result.success
    assert np.isnan(result.fun)
    assert (result.x == START).all()
    assert result.num_failed == result.nfev <= 60
    assert "no evaluation had a value" in result.message


@all_methods
def test_minus_infinity_is_a_failure(case: Case) -> None:
    def fun(x: np.ndarray[Any, Any]) -> float:
        return bowl(x) if x[0] > 0.5 else -np.inf

    result = zoo.minimize(fun, START, method=case.method, options=case.options, budget=150, rng=0)
    assert np.isfinite(result.fun)
    assert result.x[0] > 0.5


@lacking("manifold")
def test_bounds(case: Case) -> None:
    fun = Counted()
    bounds = [(0.0, 0.9), (-2.0, None), (None, 2.0), (0.25, 0.25)]
    result = zoo.minimize(
        fun, START, method=case.method, options=case.options, bounds=bounds, budget=120, rng=0
    )
    points = np.array([*fun.points, result.x])
    assert (points >= [0.0, -2.0, -np.inf, 0.25]).all()
    assert (points <= [0.9, np.inf, 2.0, 0.25]).all()
    assert result.fun < bowl(START)


@all_methods
def test_callback_ends_the_run(case: Case) -> None:
    seen = []

    def callback(x: np.ndarray[Any, Any]) -> None:
        seen.append(x)
        if len(seen) == 3:
            raise StopIteration

    result = zoo.minimize(
        bowl, START, method=case.method, options=case.options, budget=500, rng=0, callback=callback
    )
    assert result.nit == len(seen) == 3
    assert "callback" in result.message


class Stop(BaseException):
    """What kills a run here; it is no `Exception`, so nothing catches it on the way."""


@all_methods
@may_be_flat
@pytest.mark.parametrize("fun", [bowl, constant])
def test_resumes_where_it_was_killed(case: Case, fun: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"method": case.method, "options": case.options, "budget": 60, "rng": 0}
    expected = zoo.minimize(fun, START, **arguments)
    made = deaths = 0

    def mortal(x: np.ndarray[Any, Any]) -> float:
        nonlocal made, deaths
        made += 1
        if made in (3, 20, 37):
            deaths += 1
            raise Stop
        return float(fun(x))

    result = None
    while result is None:
        with contextlib.suppress(Stop):
            result = zoo.minimize(mortal, START, out=tmp_path / "run", **arguments)
    assert same(result, expected)
    assert deaths >= 1
    # No more than the dispatch under way is made again.
    assert expected.nfev + deaths <= made <= expected.nfev + deaths * 10
    before = made
    again = zoo.resume(tmp_path / "run", mortal)
    assert same(again, expected)
    assert made == before


@all_methods
@pytest.mark.parametrize("like", ["float32", "torch"])
def test_x_is_like_the_start(case: Case, like: str) -> None:
    start: Any = START.astype(np.float32)
    if like == "torch":
        import torch

        start = torch.from_numpy(start)
    kinds = set()

    def fun(x: Any) -> float:
        kinds.add((type(x), x.dtype))
        return bowl(np.asarray(x))

    result = zoo.minimize(fun, start, method=case.method, options=case.options, budget=80, rng=0)
    assert kinds == {(type(start), start.dtype)} == {(type(result.x), result.x.dtype)}
    assert result.fun < bowl(START)


@cache
def best_by_chance(problem: Problem) -> float:
    """Return the best that random search finds with the budget, in five attempts."""
    return min(solved("random", problem))


def solved(method: str, problem: Problem, options: dict[str, Any] | None = None) -> list[float]:
    fun, x0 = f"zoo.problems:{problem.fun}", np.array(problem.x0)
    return [
        zoo.minimize(fun, x0, method=method, options=options, budget=problem.budget, rng=seed).fun
        for seed in range(5)
    ]


@pytest.mark.parametrize("case", [c for c in CASES if c.problem], ids=lambda case: case.method)
def test_beats_random_search(case: Case) -> None:
    assert case.problem is not None
    values = solved(case.method, case.problem, case.options)
    assert np.median(values) < best_by_chance(case.problem)
