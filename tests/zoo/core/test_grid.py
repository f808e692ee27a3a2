"""Discrete coordinates: where one value ends and the next begins."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.core.bounds import Bounds
from zoo.core.grid import Grid
from zoo.core.state import digest, freeze, thaw


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.floats(1, 1e6),
)
def test_centres_lie_in_their_cells(cell: tuple[int, int], ratio: float) -> None:
    count, index = cell
    grid = Grid([count], [ratio], [-1])
    number = np.array([index])
    low, high = grid.cell(grid.centre(number))
    assert grid.index(grid.centre(number)) == number
    assert low == grid.edge(number)
    assert low < grid.centre(number) < high
    assert high == grid.edge(number + 1)


def test_cells_fill_the_box() -> None:
    grid = Grid([5, 5], [1.0, 100.0], [-1, -1])
    edges = grid.edge(np.arange(6)[:, None])
    assert edges[:, 0].tolist() == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert edges[[0, 5], 1].tolist() == [0.0, 1.0]
    # On a logarithmic scale: of i + a with (5 + a) / a = 100.
    a = 5 / 99
    assert edges[1:5, 1] == pytest.approx(np.log((np.arange(1, 5) + a) / a) / np.log(100))


def test_ends_and_whatever_lies_beyond_them_are_in_the_last_cells() -> None:
    grid = Grid([4], [1.0], [-1])
    assert [int(grid.index(np.array([x]))[0]) for x in (-1.0, 0.0, 0.25, 0.2501, 1.0, 2.0)] == [
        0,
        0,
        0,
        1,
        3,
        3,
    ]


def test_coordinates_without_cells() -> None:
    grid = Grid([0, 0, 0], [1.0] * 3, [-1, 7, 7])
    x = np.array([0.1, 0.2, 0.3])
    assert grid.index(x).tolist() == [0, 0, 0]
    assert [edge.tolist() for edge in grid.cell(x)] == [[-np.inf] * 3, [np.inf] * 3]
    assert grid.centre(grid.index(x)).tolist() == [0.5] * 3
    assert [members.tolist() for members in grid.members] == [[1, 2]]
    assert not grid.celled.any()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([1, 2], [1.0], [-1]), "equal length"),
        (([[1]], [[1.0]], [[-1]]), "equal length"),
        (([-1], [1.0], [-1]), "at least 0"),
        (([1], [0.5], [-1]), "at least 1"),
        (([1], [float("nan")], [-1]), "at least 1"),
        (([0], [1.0], [-2]), "at least -1"),
        (([0, 3], [1.0, 1.0], [0, 0]), "coordinate 1 must have cells or a group"),
    ],
)
def test_refuses(parts: tuple[list, list, list], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(*parts)


def test_bounds_with_a_grid() -> None:
    grid = Grid([3, 0], [1.0, 1.0], [-1, -1])
    with pytest.raises(ValueError, match="must have 3 coordinates"):
        Bounds(np.zeros(3), np.ones(3), grid)
    with pytest.raises(ValueError, match="must be 0 and 1"):
        Bounds(np.zeros(2), np.full(2, 2.0), grid)
    with pytest.raises(ValueError, match="must be 0 and 1"):
        Bounds(np.array([0.0, -1.0]), np.ones(2), grid)
    assert Bounds(np.zeros(2), np.ones(2)).grid is None


def test_grids_travel_and_are_written_down() -> None:
    box = Bounds(np.zeros(3), np.ones(3), Grid([3, 0, 0], [1.5, 1.0, 1.0], [-1, 4, 4]))
    for copy in (pickle.loads(pickle.dumps(box)), thaw(*freeze(box))):
        assert copy.grid is not None
        assert copy.grid.counts.tolist() == [3, 0, 0]
        assert copy.grid.ratios.tolist() == [1.5, 1.0, 1.0]
        assert copy.grid.groups.tolist() == [-1, 4, 4]
        assert digest(copy) == digest(box)
    assert digest(box) != digest(Bounds(np.zeros(3), np.ones(3)))
    plain = thaw(*freeze(Bounds(np.zeros(3), np.ones(3))))
    assert plain.grid is None
