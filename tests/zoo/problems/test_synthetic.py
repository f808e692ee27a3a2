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
    assert abs(function(np.full(5, at))) < 1e-9
    near = at + Key(0).fold(name).normal(0, 200, 5) * np.logspace(-3, 0, 200)[:, None]
    assert (function(near) > 0).all()


@pytest.mark.parametrize("name", MINIMA)
def test_shapes_and_kinds_agree(name):
    function = getattr(zoo.problems, name)
    x = Key(1).fold(name).normal(0, 6, 4).reshape(2, 3, 4)
    values = function(x)
    assert values.shape == (2, 3)
    single = np.array([[function(row) for row in plane] for plane in x])
    np.testing.assert_allclose(values, single, rtol=1e-14)
    np.testing.assert_allclose(function(torch.from_numpy(x)).numpy(), values, rtol=1e-12)
    half = function(x.astype(np.float32))
    assert half.dtype == np.float32
    assert function(torch.from_numpy(x).float()).dtype == torch.float32
    np.testing.assert_allclose(half, values, rtol=1e-3)


@pytest.mark.parametrize("name", MINIMA)
def test_one_coordinate(name):
    assert np.isfinite(getattr(zoo.problems, name)(np.array([0.5])))


def test_problems_can_be_named():
    objective = as_objective("zoo.problems:rosenbrock", vectorized=True)
    assert objective(np.ones((2, 3)), key=Key(0)).tolist() == [0.0, 0.0]
