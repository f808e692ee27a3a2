"""Anchors and offsets: where rows come from, and how far particles may go."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.consensus import swarm
from zoo.consensus.cbo import CBO
from zoo.consensus.hopping import ConsensusHopping
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations

KINDS = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float64", "float32")]


@pytest.mark.parametrize("like", [*KINDS, Like("torch", "bfloat16")], ids=str)
@pytest.mark.parametrize("work", ["float32", "float64"])
@pytest.mark.parametrize("is_boxed", [False, True])
def test_rows_are_anchor_plus_offset_whatever_the_slice(like: Like, work: str, is_boxed: bool) -> None:
    rng, bounds = np.random.default_rng(0), None
    if is_boxed:
        bounds = Bounds(np.full(5, -0.3), np.array([0.4, 0.5, np.inf, 0.1, 0.2]))
    anchor = Like(like.kind, "float64").asarray(rng.normal(size=(3, 5)))
    offsets = Like(like.kind, work).asarray(rng.normal(size=(3, 7, 5)))
    particles = swarm.Particles(like, bounds, anchor, offsets)
    whole = particles.rows(0, 21)
    assert Like.of(whole) == like
    assert len(particles) == len(whole) == 21
    expected = (to_numpy(anchor)[:, None] + to_numpy(offsets)).reshape(21, 5)
    if bounds is not None:
        assert bounds.contains(whole)
        expected = bounds.map(expected, "clip")
    np.testing.assert_allclose(to_numpy(whole), expected, atol=8 * like.epsilon)
    for start in range(22):
        for stop in range(start, 22):
            part = particles.rows(start, stop)
            assert part.shape == (stop - start, 5)
            assert (part == whole[start:stop]).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_are_the_callers(kind: str) -> None:
    like = Like(kind, "float32")
    particles = swarm.Particles(
        like, None, Like(kind, "float64").asarray(np.zeros((2, 3))), like.asarray(np.ones((2, 4, 3)))
    )
    for start, stop in ((0, 8), (0, 4), (1, 3), (2, 7)):
        particles.rows(start, stop)[...] = 5
        assert (particles.rows(start, stop) == 1).all()


@pytest.mark.parametrize("like", KINDS, ids=str)
def test_limits(like: Like) -> None:
    x0 = like.asarray(np.array([0.0, 1.0]))
    precision = "single" if like.dtype == "float32" else "double"
    keys = (Key(0), Key(1))
    bounds = Bounds([-1.0, -np.inf], [2.0, np.inf])
    anchor = Like(like.kind, "float64").asarray(np.array([[0.0, 1.0], [1.5, -3.0]]))
    for box, scale, low, high in (
        (None, 0.5, [[-50, -50]] * 2, [[50, 50]] * 2),
        (None, [0.5, 2.0], [[-50, -200]] * 2, [[50, 200]] * 2),
        (bounds, 0.5, [[-1, -50], [-2.5, -50]], [[2, 50], [0.5, 50]]),
        (bounds, 0.01, [[-1, -1], [-1, -1]], [[1, 1], [0.5, 1]]),
    ):
        frame = swarm.begin(x0, keys, box, scale, None, precision)
        walls = swarm.limits(frame, anchor, 100)
        offsets = like.asarray(np.array([-1e6, 1e6])[:, None] * np.ones((2, 2, 2)))
        swarm.clip(offsets, *walls)
        assert to_numpy(offsets[:, 0]).tolist() == low
        assert to_numpy(offsets[:, 1]).tolist() == high
        for m in range(2):
            for j in range(2):
                one = like.asarray(np.array([[[-1e6], [1e6]]]))
                at = slice(m, m + 1), slice(j, j + 1)
                swarm.clip(one, *(swarm.part(wall, *at) for wall in walls))
                assert to_numpy(one).ravel().tolist() == [low[m][j], high[m][j]]


def test_limits_in_single_precision_leave_nobody_outside() -> None:
    """Rounding of offsets may carry a row over a wall by a unit in the last place; `place` clips it."""
    wall = np.nextafter(0.1, 1)
    bounds, like = Bounds([-np.inf], [wall]), Like("numpy", "float64")
    anchor, offsets = np.array([[0.1 / 3]]), np.full((1, 1, 1), 5, np.float32)
    frame = swarm.begin(np.zeros(1), (Key(0),), bounds, 1.0, None, "single")
    swarm.clip(offsets, *swarm.limits(frame, anchor, 1e4))
    assert swarm.place(like, bounds, anchor[:, None], offsets) <= wall


def test_changed_is_replace() -> None:
    state = CBO().init(np.ones(3), key=Key(0))
    changes: dict[str, Any] = {"step": 7, "anchor": np.zeros((1, 3))}
    one, other = swarm.changed(state, **changes), dataclasses.replace(state, **changes)
    assert type(one) is type(other)
    assert digest(one) == digest(other)
    assert state.step == 0


@pytest.mark.parametrize(
    "method", [CBO(), CBO(memory="none", num_coordinates=None), ConsensusHopping()], ids=str
)
@pytest.mark.parametrize("start", [np.full(4, 0.5), torch.full((4,), 0.5)], ids=["numpy", "torch"])
def test_selected_swarms_go_on_as_before(method: Any, start: Any) -> None:
    def go(state: Any, steps: int) -> Any:
        for _ in range(steps):
            candidates = method.ask(state)
            x = to_numpy(candidates.rows(0, len(candidates)))
            state = method.tell(state, Evaluations((x**2).sum(1)))
        return state

    keys = tuple(Key(seed) for seed in range(6))
    before = go(method.init_many(start, keys=keys), 3)
    chosen = np.array([4, 1])
    some = swarm.select(before, chosen)
    assert digest(some) == digest(go(method.init_many(start, keys=(keys[4], keys[1])), 3))
    assert digest(go(some, 4)) == digest(swarm.select(go(before, 4), chosen))


@pytest.mark.parametrize("method", ["cbo", "cbo-textbook", "ch"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_points_of_half_precision_are_finite(method: str, kind: str) -> None:
    x0 = Like(kind, "float16").asarray(np.full(3, 2.0))
    largest = []

    def fun(x: Any) -> Any:
        largest.append(float(abs(x).max()))
        return (to_numpy(x).astype(np.float64) ** 2).sum(1)

    result = zoo.minimize(fun, x0, method=method, budget=400, rng=0, vectorized=True, scale=3e4)
    assert max(largest) == 65504
    assert np.isfinite(to_numpy(result.x)).all()
