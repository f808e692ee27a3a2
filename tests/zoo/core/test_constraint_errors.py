"""What goes wrong in constraints, and who is blamed for it."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint

import zoo
from zoo.core.errors import EvaluationError


def sphere(x):
    return float((x**2).sum())


@pytest.mark.parametrize(
    "where", [{"x0": [1.0, 1.0]}, {"space": zoo.Space({"a": zoo.Float(0, 1), "b": zoo.Integer(0, 5)})}]
)
def test_a_linear_constraint_of_other_variables_is_found_before_anything_is_evaluated(where):
    def expensive(x):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match="one column for each of the 2 variables, got 3"):
        zoo.minimize(expensive, **where, constraints=LinearConstraint([[1, 1, 1]], 1, 3), budget=10)
    kept = zoo.minimize(sphere, [1.0, 1.0], constraints=LinearConstraint([[1, 1]], 1, 3), budget=300, rng=0)
    assert kept.maxcv == 0


def test_what_a_constraint_raises_is_told_as_the_constraints():
    def divides(x):
        return 1 / 0

    with pytest.raises(EvaluationError, match="a constraint raised ZeroDivisionError") as caught:
        zoo.minimize(sphere, [1.0, 1.0], constraints=divides, budget=10)
    details = caught.value.details
    assert "Traceback of the constraint (" in details
    assert "in divides" in details
    assert "zoo/core" not in details.replace("tests/zoo/core", "")


def test_what_the_objective_raises_stays_the_objectives():
    with pytest.raises(EvaluationError) as caught:
        zoo.minimize(lambda x: 1 / 0, [1.0, 1.0], constraints=lambda x: x[0], budget=10)
    assert "a constraint raised" not in str(caught.value)
    assert "Traceback of the objective (" in caught.value.details


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_constraint_must_return_something(vectorized):
    def values(x):
        return (x**2).sum(-1)

    def empty(x):
        return np.empty((*x.shape[:-1], 0))

    with pytest.raises(EvaluationError, match=r"the constraint .* must return one number at least"):
        zoo.minimize(values, np.ones(2), constraints=empty, vectorized=vectorized, budget=10)


def test_nan_among_constraints_fails_the_evaluation_whoever_returns_it():
    def g(x):
        return np.where(x[:, :1] > 1, np.nan, 0.5 - x[:, :1])

    def returns(x):
        return zoo.Evaluations((x**2).sum(1), extras={"constraints": g(x)})

    def flat(x):
        return zoo.Evaluations((x**2).sum(1), extras={"constraints": g(x)[:, 0]})

    def beside(x):
        return (x**2).sum(1)

    options = {"budget": 60, "method": "cma", "rng": 0, "vectorized": True}
    runs = [zoo.minimize(fun, np.ones(2), constraints="returned", **options) for fun in (returns, flat)]
    runs.append(zoo.minimize(beside, np.ones(2), constraints=zoo.Constraint(g, upper=0.0), **options))
    assert runs[0].num_failed == runs[1].num_failed == runs[2].num_failed > 0
    assert runs[0].fun == runs[1].fun == runs[2].fun

    never = zoo.minimize(
        lambda x: zoo.Evaluations((x**2).sum(1), extras={"constraints": np.full((len(x), 1), np.nan)}),
        np.ones(2),
        constraints="returned",
        **options,
    )
    assert never.num_failed == never.nfev
    assert not never.success
