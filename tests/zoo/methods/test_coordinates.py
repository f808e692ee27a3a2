"""Coordinates in units of scale, and differences along each of them."""

import math
import pickle

import numpy as np
import pytest
import torch

from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.methods.coordinates import Coordinates, Differences, Points, difference_distance
from zoo.methods.population import begin


def coordinates(x0, bounds=None, scale=1.0, smooth=False):
    return Coordinates(begin(x0, Key(0), bounds, scale, None), smooth)


def quadratic(dim):
    """A function with all second derivatives, in integers, so that differences over 1/4 have no rounding."""
    matrix = np.arange(dim * dim).reshape(dim, dim) % 5 - 2.0
    matrix = matrix + matrix.T
    return (lambda x: float(x @ matrix @ x / 2 + x.sum())), (lambda x: matrix @ x + 1)


def test_units_are_powers_of_two_and_round_nothing():
    x0 = np.array([0.1, 1 / 3, -7.3, math.pi])
    here = coordinates(x0, scale=np.array([0.3, 1000.0, 1e-7, 1.0]))
    assert here.unit.tolist() == [0.25, 1024.0, 2.0**-23, 1.0]
    assert here.rows(here.inverse(x0)[None])[0].tobytes() == x0.tobytes()
    np.testing.assert_allclose(here.ratio * here.unit, [0.3, 1000.0, 1e-7, 1.0], rtol=1e-15)
    assert (np.abs(np.log2(here.ratio)) <= 0.5).all()


def test_fixed_variables_are_no_coordinates():
    here = coordinates(np.array([1.0, 2.0, 3.0]), Bounds([0.0, 2.0, -np.inf], [4.0, 2.0, 3.5]), scale=2.0)
    assert here.dim == 2
    assert (here.lower.tolist(), here.upper.tolist()) == ([0.0, -np.inf], [2.0, 1.75])
    assert here.bounded
    assert here.rows(np.array([[0.5, -8.0], [9.0, 9.0]])).tolist() == [[1.0, 2.0, -16.0], [4.0, 2.0, 3.5]]
    assert not coordinates(np.ones(2), Bounds([-np.inf] * 2, [np.inf] * 2)).bounded


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_are_like_the_start_and_inside(kind):
    x0 = np.array([0.5, 0.5], np.float32)
    start = torch.from_numpy(x0) if kind == "torch" else x0
    here = coordinates(start, Bounds([0.1, -np.inf], [0.7, np.inf]))
    rows = here.rows(np.array([[0.1, 1e300], [0.7, -1e300], [0.3, 0.3]]))
    assert type(rows) is type(start)
    assert rows.dtype == start.dtype
    rows = np.asarray(rows, np.float64)
    assert np.isfinite(rows).all()
    assert (rows[:, 0] >= 0.1).all()
    assert (rows[:, 0] <= 0.7).all()
    assert here.seen(np.array([[0.3, 0.3]])).tolist() == [[np.float32(0.3), np.float32(0.3)]]


def test_smooth_coordinates_have_no_walls():
    box = Bounds([0.0, -np.inf], [1.0, 2.0])
    here = coordinates(np.array([0.02, 1.99]), box, smooth=True)
    assert not here.bounded
    np.testing.assert_allclose(here.rows(here.inverse(np.array([0.02, 1.99]))[None])[0], [0.02, 1.99])
    assert box.contains(here.rows(np.random.default_rng(0).normal(size=(50, 2)) * 9))


@pytest.mark.parametrize(
    "z", [[0.5, 0.5, 0.5], [0.0, 1.0, 0.5], [0.125, 0.875, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
)
def test_central_differences_are_exact_for_quadratics_also_at_walls(z):
    fun, gradient = quadratic(3)
    here, z = coordinates(np.full(3, 0.5), Bounds(np.zeros(3), np.ones(3))), np.array(z)
    asked = Differences(here, z, np.full(3, 0.25), central=True)
    rows = asked.rows(0, 7)
    assert rows[0].tolist() == z.tolist()
    assert (rows >= 0).all()
    assert (rows <= 1).all()
    values = np.array([fun(x) for x in rows])
    assert asked.gradient(values[1:], values[0]).tolist() == gradient(z).tolist()


def test_forward_differences_turn_round_at_walls():
    here = coordinates(np.full(3, 0.5), Bounds(np.zeros(3), [1.0, 1.0, 0.625]))
    asked = Differences(here, np.array([0.5, 0.875, 0.375]), np.full(3, 0.25), central=False, base=False)
    assert asked.rows(0, 3).tolist() == [[0.75, 0.875, 0.375], [0.5, 0.625, 0.375], [0.5, 0.875, 0.625]]
    wide = Differences(here, np.array([0.5, 0.875, 0.375]), np.full(3, 2.0), central=False)
    # The farther wall, where there is no room on either side.
    assert np.diag(wide.rows(1, 4)).tolist() == [1.0, 0.0, 0.0]


def test_slices_and_copies():
    here = coordinates(np.zeros(4, np.float32), scale=3.0)
    for central in (False, True):
        asked = Differences(here, np.arange(4.0), np.full(4, 0.01), central=central)
        whole = asked.rows(0, len(asked))
        assert len(asked) == len(np.unique(whole, axis=0)) == 1 + 4 * (1 + central)
        again = pickle.loads(pickle.dumps(asked))
        for start in range(len(asked)):
            for stop in range(start + 1, len(asked) + 1):
                assert again.rows(start, stop).tobytes() == whole[start:stop].tobytes()
    points = Points(here, np.arange(8.0).reshape(2, 4))
    assert pickle.loads(pickle.dumps(points)).rows(1, 2).tobytes() == points.rows(0, 2)[1:].tobytes()


def test_the_displacement_that_counts_is_the_rounded_one():
    """Slopes of a linear function are exact only if they are of the points that were seen."""
    here = coordinates(np.full(2, 1000.0, np.float32))
    asked = Differences(here, np.full(2, 1000.1), np.full(2, 1e-3), central=False)
    rows = asked.rows(0, 3).astype(np.float64)
    values = 3 * rows[:, 0] - rows[:, 1]
    np.testing.assert_allclose(asked.gradient(values[1:], values[0]), [3.0, -1.0], rtol=1e-9)


def test_what_is_left_when_evaluations_fail():
    fun, gradient = quadratic(3)
    here, z, nan = coordinates(np.zeros(3)), np.array([1.0, 2.0, -1.0]), math.nan
    central = Differences(here, z, np.full(3, 0.25), central=True)
    values = np.array([fun(x) for x in central.rows(0, 7)])
    exact, curvature = gradient(z), np.diag([gradient(e) - 1 for e in np.eye(3)])
    assert central.gradient(values[1:], nan).tolist() == exact.tolist()
    # The slopes between the base and one of the two.
    failed = np.where([1, 0, 0, 1, 0, 0], nan, values[1:])
    assert central.gradient(failed, values[0]).tolist() == (exact + [-0.125, 0.125, 0] * curvature).tolist()
    both = np.where([1, 1, 0, 0, 0, 0], nan, values[1:])
    assert np.isnan(central.gradient(both, values[0])).tolist() == [True, False, False]
    forward = Differences(here, z, np.full(3, 0.25), central=False)
    values = np.array([fun(x) for x in forward.rows(0, 4)])
    assert forward.gradient(values[1:], values[0]).tolist() == (exact + 0.125 * curvature).tolist()
    failed = np.where([0, 1, 0], nan, values[1:])
    assert np.isnan(forward.gradient(failed, values[0])).tolist() == [False, True, False]
    assert np.isnan(forward.gradient(values[1:], nan)).all()


def test_second_differences():
    fun, gradient = quadratic(3)
    here = coordinates(np.zeros(3), Bounds(np.full(3, -1.0), np.full(3, 1.0)))
    asked = Differences(here, np.array([0.0, 1.0, 0.5]), np.full(3, 0.25), central=True)
    values = np.array([fun(x) for x in asked.rows(0, 7)])
    curvature = np.diag([gradient(e) - 1 for e in np.eye(3)])
    # None at the wall, where the two lie on one side.
    assert asked.second_differences(values[1:], values[0]).tolist() == (curvature[[0, 2]] / 16).tolist()
    forward = Differences(here, np.zeros(3), np.full(3, 0.25), central=False)
    assert len(forward.second_differences(np.zeros(3), 0.0)) == 0


def test_distance_follows_the_dtype_and_the_size_of_z():
    z = np.array([0.0, 1e12])
    for dtype, epsilon in ((np.float64, 2.0**-52), (np.float32, 2.0**-23)):
        here = coordinates(np.zeros(2, dtype))
        forward, central = (difference_distance(here, z, central=c) for c in (False, True))
        np.testing.assert_allclose(forward, [14 * epsilon**0.5, 32 * epsilon * 1e12])
        np.testing.assert_allclose(central, [4 * epsilon ** (1 / 3), 32 * epsilon * 1e12])
