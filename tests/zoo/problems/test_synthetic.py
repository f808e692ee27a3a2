"""The synthetic problems: their minima, and the kinds of array they take."""

import numpy as np
import pytest
import torch

import zoo.problems
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.problems import synthetic

MINIMA = {
    "ackley": 0.0,
    "calm_canyon": 0.0,
    "canyon": 0.0,
    "cigar": 0.0,
    "different_powers": 0.0,
    "discus": 0.0,
    "ellipsoid": 0.0,
    "griewank": 0.0,
    "levy": 1.0,
    "rastrigin": 0.0,
    "rosenbrock": 1.0,
    "schwefel": 420.96874635998194,
    "sphere": 0.0,
}
OF_TWO = {"calm_canyon", "canyon"}  # variables; the others take any number


def test_every_problem_is_covered():
    functions = {
        name
        for name, thing in vars(synthetic).items()
        if getattr(thing, "__module__", "") == synthetic.__name__
    }
    assert {name for name in functions if not name.startswith("_")} == set(MINIMA) <= set(vars(zoo.problems))


@pytest.mark.parametrize("name", MINIMA)
def test_minimum_is_zero_and_where_the_docstring_says(name):
    function, at = getattr(zoo.problems, name), MINIMA[name]
    dim = 2 if name in OF_TWO else 5
    assert abs(function(np.full(dim, at))) < 1e-9
    near = at + Key(0).fold(name).normal(0, 200, dim) * np.logspace(-3, 0, 200)[:, None]
    assert (function(near) > 0).all()


@pytest.mark.parametrize("name", MINIMA)
def test_shapes_and_kinds_agree(name):
    function = getattr(zoo.problems, name)
    dim = 2 if name in OF_TWO else 4
    x = Key(1).fold(name).normal(0, 6, dim).reshape(2, 3, dim)
    values = function(x)
    assert values.shape == (2, 3)
    single = np.array([[function(row) for row in plane] for plane in x])
    np.testing.assert_allclose(values, single, rtol=1e-14)
    np.testing.assert_allclose(function(torch.from_numpy(x)).numpy(), values, rtol=1e-12)
    half = function(x.astype(np.float32))
    assert half.dtype == np.float32
    assert function(torch.from_numpy(x).float()).dtype == torch.float32
    np.testing.assert_allclose(half, values, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(set(MINIMA) - OF_TWO))
def test_one_coordinate(name):
    assert np.isfinite(getattr(zoo.problems, name)(np.array([0.5])))


def slope(function, x, h=1e-6):
    return np.stack([(function(x + h * axis) - function(x - h * axis)) / (2 * h) for axis in np.eye(2)], -1)


def test_descent_is_held_back_in_the_canyon_and_not_in_the_calm_one():
    start = np.array([8.0, 8.0])
    assert round(float(zoo.problems.canyon(start)), 2) == 39.01
    ends = {}
    for name in OF_TWO:
        x = start
        for _ in range(10_000):
            x = x - 1e-3 * slope(getattr(zoo.problems, name), x)
        ends[name] = float(np.hypot(*x))
    assert ends["calm_canyon"] < 1e-2
    assert round(ends["canyon"], 2) == 3.40


def test_problems_can_be_named():
    objective = as_objective("zoo.problems:rosenbrock", vectorized=True)
    assert objective(np.ones((2, 3)), key=Key(0)).tolist() == [0.0, 0.0]
