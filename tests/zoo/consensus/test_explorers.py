"""Explorers: which coordinates they change, by how much, and that they do not depend on who asks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from zoo.consensus import choices, noise, weights
from zoo.consensus.cbo import CBO
from zoo.consensus.explorers import explore, jumps, partners
from zoo.consensus.swarm import begin
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations

Matrix = np.ndarray[Any, Any]
KEYS = tuple(Key(seed) for seed in range(3))
SCALE = np.array([1.0, 5.0, 0.2])


def frame_of(x0: Any, scale: Any = 1.0, keys: tuple[Key, ...] = KEYS) -> Any:
    return begin(x0, keys, None, scale, None)


@pytest.mark.parametrize("count", [7, 3000])
def test_what_explorers_draw_does_not_depend_on_who_else_is_asked_for(count: int) -> None:
    whole = jumps(KEYS, 4, 0, count, count, SCALE, 0.1, 3.0)
    choices.clear_cache()
    noise.clear_cache()
    part = jumps(KEYS[1:2], 4, 2, 6, count, SCALE, 0.1, 3.0)
    for all_of_it, some in zip(whole, part, strict=True):
        assert (all_of_it[1:2, 2:6] == some).all()


def test_jumps_have_the_scale_of_their_coordinate_and_the_law_that_is_said() -> None:
    axes, lengths, uniform = jumps(KEYS[:1], 0, 0, 60_000, 60_000, SCALE, 0.1, 3.0)
    assert uniform.shape == (1, 60_000, 3)
    assert 0 <= uniform.min() <= uniform.max() < 1
    # E s^2 of a log-uniform s, times E z^2 = 1.
    square = (3.0**2 - 0.1**2) / (2 * math.log(30))
    for axis in range(3):
        here = lengths[axes == axis] / SCALE[axis]
        assert len(here) == pytest.approx(20_000, abs=5 * math.sqrt(60_000 * 2 / 9))
        # The standard deviation of (s z)^2 is that of its mean times sqrt(20,000).
        fourth = 3 * (3.0**4 - 0.1**4) / (4 * math.log(30))
        assert (here**2).mean() == pytest.approx(square, abs=5 * math.sqrt(fourth / 20_000))
        # Whatever s is, |z| is below .6745 half of the time; log s has its middle at log sqrt(.3).
        assert np.mean(np.log(abs(here))) == pytest.approx(
            math.log(math.sqrt(0.3)) - (math.log(2) + np.euler_gamma) / 2, abs=0.05
        )


def test_jumps_of_one_length_are_normal() -> None:
    _, lengths, _ = jumps(KEYS[:1], 1, 0, 40_000, 40_000, np.ones(4), 2.0, 2.0)
    assert np.mean(abs(lengths) < 2 * 0.67449) == pytest.approx(0.5, abs=5 * 0.5 / 200)


@pytest.mark.parametrize("count", [2, 20, 64, 65, 1500])
def test_partners_are_two_of_the_block(count: int) -> None:
    start = count // 3
    drawn = np.random.default_rng(0).random((3, count - start, 2))
    one, other = partners(start, count, count, drawn)
    edges = np.array(weights.boundaries(count))
    block = np.searchsorted(edges, np.arange(start, count), "right") - 1
    sizes = np.diff(edges)[block]
    for part in (one, other):
        assert (np.searchsorted(edges, part, "right") - 1 == block).all()
    assert ((one != other) | (sizes == 1)).all()


def test_partners_are_any_two() -> None:
    drawn = np.random.default_rng(1).random((1, 30_000, 2))
    seen = np.zeros((4, 4))
    for first in range(0, 30_000, 4):
        one, other = partners(0, 4, 4, drawn[:, first : first + 4])
        np.add.at(seen, (one[0], other[0]), 1)
    assert (np.diag(seen) == 0).all()
    expected = 30_000 / 12
    assert (abs(seen[~np.eye(4, dtype=bool)] - expected) < 5 * math.sqrt(expected)).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_an_explorer_changes_one_coordinate_of_the_consensus_point(kind: str) -> None:
    frame = frame_of(Like(kind, "float64").asarray(np.zeros(3)), SCALE)
    points = frame.work.asarray(np.random.default_rng(2).random((3, 10, 3)))
    found = to_numpy(explore(frame, 5, (4, 10, 10), 6, (0.1, 3.0, 0.0), points, 0))
    axes, lengths, _ = jumps(KEYS, 5, 0, 6, 6, SCALE, 0.1, 3.0)
    assert found.shape == (3, 6, 3)
    assert ((found != 0).sum(2) == 1).all()
    assert (np.take_along_axis(found, axes[..., None], 2)[..., 0] == lengths).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("rows", [(4, 10), (5, 8)])
def test_differences_are_those_of_two_particles_and_else_a_jump(kind: str, rows: tuple[int, int]) -> None:
    frame = frame_of(Like(kind, "float64").asarray(np.zeros(3)), SCALE)
    points = np.random.default_rng(2).random((3, 10, 3))
    points[:, :, 1] = 0.25  # all alike: a difference would ask for the consensus point itself
    start, stop = rows
    found = to_numpy(explore(frame, 5, (start, stop, 10), 6, (0.1, 3.0, 1.0), frame.work.asarray(points), 0))
    axes, lengths, uniform = jumps(KEYS, 5, start - 4, stop - 4, 6, SCALE, 0.1, 3.0)
    one, other = partners(start, stop, 10, uniform[..., 1:])
    for m in range(3):
        for i in range(stop - start):
            axis = axes[m, i]
            difference = points[m, one[m, i], axis] - points[m, other[m, i], axis]
            expected = np.zeros(3)
            expected[axis] = difference if axis != 1 else lengths[m, i]
            assert (found[m, i] == expected).all()


def test_the_share_of_differences_is_what_is_said() -> None:
    count = 20_000
    frame = frame_of(np.zeros(2), keys=KEYS[:1])
    points = np.random.default_rng(3).random((1, count, 2)) * 1e-9
    found = explore(frame, 0, (0, count, count), count, (1.0, 1.0, 0.3), points, 0)
    share = (abs(found).max(2) < 2e-9).mean()
    assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / count))


def test_differences_need_the_whole_block() -> None:
    frame = frame_of(np.zeros(3))
    points = np.random.default_rng(2).random((3, 4, 3))
    with pytest.raises(ValueError, match="`points` must be all of a block"):
        explore(frame, 5, (6, 10, 10), 6, (0.1, 3.0, 1.0), points, 6)


def test_jumps_find_other_valleys_and_noise_alone_does_not() -> None:
    def rates(**options: Any) -> float:
        method = CBO(start="uniform", **options)
        keys = [Key(i) for i in range(40)]
        state = method.init_many(np.zeros(5), keys=keys, scale=3.0)
        while state.nfev < 2500:
            candidates = method.ask(state)
            z = candidates.rows(0, len(candidates)) - 1.37
            state = method.tell(state, Evaluations((z * z - 10 * np.cos(2 * np.pi * z) + 10).sum(1)))
        return float((abs(state.anchor - 1.37).max(1) < 0.25).mean())

    assert rates() >= 0.9  # .98 or more of a thousand
    assert rates(shortest_jump=0.01, longest_jump=0.01, differences=0.0) <= 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortest_jump": 0.0}, "`shortest_jump` must be"),
        ({"shortest_jump": 4.0}, "`longest_jump` must be finite and at least `shortest_jump`, 4.0"),
        ({"longest_jump": math.inf}, "`longest_jump` must be finite"),
        ({"differences": 1.5}, "`differences` must be"),
        ({"explorers": -0.1}, "`explorers` must be"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CBO(**options)
