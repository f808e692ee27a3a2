"""The points that a client has seen."""

import numpy as np
import pytest
import torch

from federated.surrogate.window import Window
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw


def filled(count, dim=3, capacity=1000, like=None):
    points = Key(0).normal(0, count, dim)
    window = Window.empty(dim, capacity, like=like)
    if like is not None and isinstance(like, torch.Tensor):
        points = torch.from_numpy(points).to(like.dtype)
    return window.add(points, np.arange(float(count))), points


def test_points_and_values_are_kept_in_order():
    window, points = filled(5)
    more = window.add(points[:1] + 1, [9.0])
    assert len(window) == 5
    assert len(more) == 6
    np.testing.assert_array_equal(more.points, np.concatenate([points, points[:1] + 1]))
    assert more.values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 9.0]
    assert more.serials.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_window_stays_as_it_was_when_others_grow_from_it():
    window, points = filled(5)
    before = digest(window)
    one, other = window.add(points[:2], [5.0, 6.0]), window.add(points[:1] + 1, [7.0])
    assert digest(window) == before
    assert one.values.tolist() == [2.5, 3.5, 2.0, 3.0, 4.0]
    assert other.values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 7.0]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_value_of_a_point_seen_again_is_the_mean(kind):
    window, points = filled(4, like=torch.zeros(1) if kind == "torch" else None)
    given = points[[1, 2, 1, 1]]
    window = window.add(given, [7.0, 5.0, 4.0, np.nan])
    assert window.values.tolist() == [0.0, 4.0, 3.5, 3.0]
    assert window.counts.tolist() == [1, 3, 2, 1]
    fresh = Window.empty(3, 10, like=points).add(given, [1.0, 2.0, 3.0, 8.0])
    assert fresh.values.tolist() == [4.0, 2.0]
    assert len(fresh.points) == 2


def test_0_and_minus_0_are_one_point():
    window = Window.empty(2, 10).add(np.array([[0.0, 1.0], [-0.0, 1.0]]), [1.0, 3.0])
    assert window.values.tolist() == [2.0]


def test_points_that_differ_in_one_bit_or_in_order_are_different():
    x = np.array([1.0, 2.0, 3.0])
    points = np.array([x, x[::-1], np.nextafter(x, 4), x * -1, x * 2])
    assert len(Window.empty(3, 10).add(points, np.arange(5.0))) == 5


def test_failed_values_are_left_out():
    window, points = filled(3)
    after = window.add(points + 1, [np.nan, np.inf, -np.inf])
    assert digest(after) == digest(window)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_farthest_go_when_it_is_full(kind):
    line = np.arange(16.0)[:, None]
    window = Window.empty(1, 16).add(line, line[:, 0])
    new = np.array([[20.0]])
    if kind == "torch":
        window = Window.empty(1, 16, like=torch.zeros(1)).add(torch.from_numpy(line).float(), line[:, 0])
        new = torch.tensor([[20.0]])
    after = window.add(new, [20.0])
    assert after.points[:, 0].tolist() == [3.0, *range(4, 16), 20.0]
    assert window.add(new, [20.0], centre=new[0] * 0).points[:, 0].tolist() == [float(at) for at in range(14)]


def test_bytes_bound_the_number_of_points():
    assert Window.empty(100_000, 400, nbytes=2**26).capacity == 83
    assert Window.empty(100_000, 400, like=torch.zeros(1), nbytes=2**26).capacity == 167
    with pytest.raises(ValueError, match="`nbytes` must be at least 1600000, room for two points"):
        Window.empty(100_000, 400, nbytes=10**6)


def test_it_never_holds_more_than_its_capacity():
    window = Window.empty(2, 20)
    for step in range(50):
        points = Key(step).normal(0, 3, 2)
        window = window.add(points, points.sum(1))
        assert len(window) <= 20
        np.testing.assert_array_equal(window.points.sum(1), window.values)
        assert (np.diff(window.serials) > 0).all()
    assert window.next_serial == 150


def test_many_small_additions_do_not_leave_many_blocks():
    window = Window.empty(2, 1000)
    points = Key(0).normal(0, 200, 2)
    for row in range(200):
        window = window.add(points[row : row + 1], [0.0])
    assert len(window.blocks) < 40
    np.testing.assert_array_equal(window.points, points)


@pytest.mark.parametrize("rows", [[3, 4, 11], [11, 0, 5], list(range(12)), [2]], ids=str)
def test_columns_are_those_of_the_points(rows):
    window, points = filled(5, dim=7)
    more = Key(1).normal(0, 7, 7)
    window = window.add(more[:3], [0.0] * 3).add(more[3:], [0.0] * 4)
    found = window.columns(np.array(rows), 2, 6)
    np.testing.assert_array_equal(found, np.concatenate([points, more])[rows, 2:6])


def test_the_nearest_are_found_and_of_equals_the_newest():
    line = np.array([[-2.0], [1.0], [-1.0], [3.0], [2.0]])
    window = Window.empty(1, 10).add(line, np.zeros(5))
    assert window.nearest(np.zeros(1), 3).tolist() == [1, 2, 4]
    assert window.nearest(np.zeros(1), 9).tolist() == [0, 1, 2, 3, 4]


def test_distances_in_many_dimensions_are_summed_in_parts():
    points = Key(0).normal(0, 2, 200_000)
    window = Window.empty(200_000, 10).add(points, np.zeros(2))
    assert window.nearest(points[0] + 0.001, 1).tolist() == [0]
    assert window.nearest(points[1], 1).tolist() == [1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_window_read_back_goes_on_to_the_same_bytes(dtype):
    window = Window.empty(2, 20, like=np.zeros(1, dtype))
    for step in range(30):
        points = Key(step).normal(0, 3, 2).astype(dtype)
        other = thaw(*freeze(window)).add(points, points.sum(1))
        window = window.add(points, points.sum(1))
        assert digest(other) == digest(window)
    assert window.points.dtype == dtype


@pytest.mark.parametrize(
    ("points", "values", "sentence"),
    [
        (np.zeros((2, 4)), [0.0, 1.0], r"`points` must have the shape \(k, 3\), got \(2, 4\)"),
        (np.zeros(3), [0.0], r"`points` must have the shape \(k, 3\), got \(3,\)"),
        (np.zeros((2, 3)), [0.0], r"`values` must have the shape \(2,\), got \(1,\)"),
    ],
    ids=["width", "vector", "values"],
)
def test_shapes_that_do_not_fit_are_refused(points, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Window.empty(3, 10).add(points, values)


def test_a_window_needs_a_dimension_and_room():
    with pytest.raises(ValueError, match="`dim` must be at least 1"):
        Window.empty(0, 10)
    with pytest.raises(ValueError, match="`capacity` must be at least 1"):
        Window.empty(3, 0)
