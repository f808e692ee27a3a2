"""The box, with walls of every kind, in every kind of array; any warning is an error here."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from zoo.core.bounds import MODES, Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.state import digest, freeze, thaw

INF = np.inf
LOWER = np.array([0.0, -1.0, -INF, -INF, 2.0, 0.1, -1e308, 0.0, -1e9])
UPPER = np.array([1.0, INF, 3.0, INF, 2.0, 0.1, 1e308, 1e-12, 0.3])
KINDS = [Like("numpy", d) for d in ("float32", "float64")]
KINDS += [Like("torch", d) for d in ("float32", "float64", "bfloat16", "float16")]

all_modes = pytest.mark.parametrize("mode", MODES)
all_kinds = pytest.mark.parametrize("like", KINDS, ids=lambda like: f"{like.kind}-{like.dtype}")


@pytest.fixture
def box() -> Bounds:
    return Bounds(LOWER, UPPER)


@pytest.fixture
def points() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(50, 9)) * 3, rng.normal(size=(20, 9)) * 1e4
    walls = np.where(np.isfinite(LOWER), LOWER, 0.0)[None]
    return np.concatenate([near, far, walls.clip(-1e4, 1e4)])


@all_modes
@all_kinds
def test_points_come_inside_as_they_were(
    box: Bounds, points: np.ndarray[Any, Any], mode: str, like: Like
) -> None:
    x = like.asarray(points)
    mapped = box.map(x, mode)
    assert Like.of(mapped) == like
    assert mapped.shape == x.shape
    assert np.isfinite(to_numpy(mapped)).all()
    assert box.contains(mapped)
    inside = to_numpy(mapped).astype(np.float64)
    held = [
        0,
        1,
        2,
        3,
        4,
        6,
        8,
    ]  # between the walls 0.1 and 0.1, and 0 and 1e-12, not every dtype has a number
    assert ((inside >= LOWER) & (inside <= UPPER))[:, held].all()
    x[:] = 0
    assert np.array_equal(to_numpy(mapped).astype(np.float64), inside), "the result shares memory"


@all_modes
def test_largest_numbers(box: Bounds, mode: str) -> None:
    for size in (1.7e308, -1.7e308):
        mapped = box.map(np.full(9, size), mode)
        assert np.isfinite(mapped).all()
        assert box.contains(mapped)


@all_modes
@all_kinds
def test_map_takes_the_inverse_back(box: Bounds, points: np.ndarray[Any, Any], mode: str, like: Like) -> None:
    x = box.map(like.asarray(points), mode)
    again = box.map(box.inverse(x, mode), mode)
    assert Like.of(again) == like
    wide = to_numpy(x).astype(np.float64)
    size = np.maximum(np.abs(wide), np.where(np.isfinite(LOWER), np.abs(LOWER.clip(-1e9)), 1)).max(0)
    error = np.abs(to_numpy(again).astype(np.float64) - wide).max(0)
    assert (error <= 4 * like.epsilon * size).all()


def test_reflect_is_the_identity_inside_to_the_bit() -> None:
    box = Bounds(np.array([0.1, -INF]), np.array([0.7, 0.3]))
    x = np.random.default_rng(0).uniform([0.1, -9], [0.7, 0.3], size=(100, 2))
    assert box.map(x).tobytes() == x.tobytes()
    mixed = np.concatenate([x, x + 1])
    assert box.map(mixed)[:100].tobytes() == x.tobytes()


def test_reflect_is_a_triangle_wave() -> None:
    box = Bounds(np.array([1.0]), np.array([3.0]))
    x = np.array([[-4.0], [-3.0], [-2.0], [0.5], [1.0], [2.0], [3.5], [5.0], [6.0], [8.25]])
    assert box.map(x)[:, 0].tolist() == [2.0, 1.0, 2.0, 1.5, 1.0, 2.0, 2.5, 1.0, 2.0, 1.75]


def test_one_wall_mirrors_once() -> None:
    box = Bounds(np.array([1.0, -INF]), np.array([INF, 1.0]))
    assert box.map(np.array([-5.0, 7.0])).tolist() == [7.0, -5.0]


def test_smooth_is_smooth() -> None:
    """Its slope changes by no more than the parabola's curvature allows, at the walls and at the margins."""
    box = Bounds(np.array([0.0]), np.array([1.0]))
    u = np.linspace(-0.3, 1.3, 16001)[:, None]
    slope = np.diff(box.map(u, "smooth")[:, 0]) / 1e-4
    assert np.abs(np.diff(slope)).max() < 1.01e-4 / (2 * 0.05)
    middle = (u > 0.05) & (u < 0.95)
    assert (box.map(u, "smooth")[middle] == u[middle]).all()


def test_smooth_reaches_the_walls() -> None:
    box = Bounds(np.array([0.0, -INF]), np.array([1.0, 3.0]))
    assert box.map(np.array([-0.05, 3.2]), "smooth").tolist() == [0.0, 3.0]
    assert box.inverse(np.array([0.0, 3.0]), "smooth").tolist() == pytest.approx([-0.05, 3.2])


@all_kinds
def test_walls_between_numbers_round_inwards(like: Like) -> None:
    box = Bounds(np.array([0.1, -0.7]), np.array([0.7, -0.1]))
    lower, upper = (to_numpy(side).astype(np.float64) for side in box.sides(like.asarray(np.zeros(2))))
    assert ((lower >= box.lower) & (upper <= box.upper)).all()
    assert ((lower - box.lower <= like.epsilon) & (box.upper - upper <= like.epsilon)).all()


def test_states_hold_bounds(box: Bounds) -> None:
    again = thaw(*freeze(box))
    assert digest(again) == digest(box)
    assert (again.lower == LOWER).all()
    assert digest(pickle.loads(pickle.dumps(box))) == digest(box)
    box.map(np.zeros(9))
    assert len(pickle.dumps(box)) < 1000, "what is derived does not travel"


def test_owns_its_walls() -> None:
    lower = np.zeros(2)
    box = Bounds(lower, np.ones(2))
    lower += 5
    assert (box.lower == 0).all()
    with pytest.raises(ValueError, match="read-only"):
        box.lower[0] = 1


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0], [1.0, 2.0], "equal length"),
        ([[0.0]], [[1.0]], "equal length"),
        ([0.0, np.nan], [1.0, 1.0], r"lower\[1\] = nan"),
        ([0.0, 2.0], [1.0, 1.0], r"lower\[1\] = 2.0 and upper\[1\] = 1.0"),
        ([INF], [INF], "lower <= upper"),
        ([-INF], [-INF], "lower <= upper"),
    ],
)
def test_impossible_bounds_are_refused(lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bounds(np.array(lower), np.array(upper))


def test_unknown_mode_is_refused(box: Bounds) -> None:
    with pytest.raises(ValueError, match="`mode` must be one of 'reflect', 'clip', 'smooth'"):
        box.map(np.zeros(9), "mirror")
