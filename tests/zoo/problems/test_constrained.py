"""The constrained problems: their optima are where they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.core.constraints import as_constraints
from zoo.problems.constrained import PROBLEMS

all_problems = pytest.mark.parametrize("name", PROBLEMS)


@all_problems
def test_the_optimum_keeps_to_everything_and_has_its_value(name):
    problem, x = PROBLEMS[name], np.array(PROBLEMS[name].x)
    lower, upper = np.array(problem.bounds).T
    assert ((lower <= x) & (x <= upper)).all()
    assert float(problem.fun(x)) == pytest.approx(problem.value, rel=1e-13)
    for constraint in as_constraints(problem.constraints(tol=0)):
        assert constraint.evaluate(x[None]).max() < 1e-12


@all_problems
def test_nothing_near_the_optimum_is_better(name):
    problem = PROBLEMS[name]
    x = np.array(problem.x) + 1e-3 * np.random.default_rng(0).standard_normal((20000, len(problem.x)))
    x = np.clip(x, *np.array(problem.bounds).T)
    entries = [one.evaluate(x) for one in problem.constraints(vectorized=True)]
    inside = np.concatenate(entries, 1).max(1) <= 0
    assert (problem.fun(x)[inside] >= problem.value - 1e-5).all()  # an equality may be 1e-6 off
    assert inside.any() or problem.equalities is not None


@all_problems
def test_torch_and_numpy_agree(name):
    torch = pytest.importorskip("torch")
    problem = PROBLEMS[name]
    x = np.random.default_rng(1).uniform(*np.array(problem.bounds).T, (5, len(problem.x)))
    for function in (problem.fun, problem.limits, problem.equalities):
        if function is not None:
            assert function(torch.from_numpy(x)).numpy() == pytest.approx(function(x), rel=1e-12)
