"""Consensus-based optimization in a box: no particle is ever outside, and walls and corners are reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.consensus.cbo import CBO
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.types import Evaluations

DIM = 4
# But for the second ones, which leave no room, none of the finite walls is a float32.
BOX = Bounds(np.array([-0.1, 0.25, -1e6, 7.1]), np.array([0.7, 0.25, 1e-9, np.inf]))
METHODS = {
    "default": CBO(),
    "without explorers": CBO(explorers=0.0),
    "strong noise": CBO(memory="none", sigma=11.0, num_coordinates=None, explorers=0.0, elitist=False),
    "isotropic": CBO(
        memory="none",
        noise="isotropic",
        sigma=0.5,
        dt=0.1,
        num_coordinates=None,
        explorers=0.0,
        elitist=False,
    ),
    "local memory": CBO(memory="local", sigma=7.0),
    "single precision": CBO(precision="single"),
}


def start(kind: str) -> Any:
    x0 = np.array([0.1, 0.25, -5.0, 8.0])
    if kind == "torch":
        return pytest.importorskip("torch").from_numpy(x0.astype(np.float32))
    return x0.astype(kind)


@pytest.mark.parametrize("kind", ["float64", "float32", "torch"])
@pytest.mark.parametrize("name", METHODS)
def test_no_particle_is_ever_outside(name: str, kind: str) -> None:
    method, rng = METHODS[name], np.random.default_rng(0)
    state = method.init(start(kind), key=Key(0), bounds=BOX, scale=10.0)
    for step in range(60):
        candidates = method.ask(state)
        x = np.asarray(candidates.rows(0, len(candidates))).astype(np.float64)
        assert ((x >= BOX.lower) & (x <= BOX.upper)).all()
        # At first it pulls through a wall, then into a corner; then there is nothing to go by.
        values = (
            ((x - [2.0, 0, -3, 0]) ** 2).sum(1)
            if step < 20
            else x.sum(1)
            if step < 40
            else rng.random(len(x))
        )
        state = method.tell(state, Evaluations(values))
        x = np.asarray(method.recommend(state)).astype(np.float64)
        assert ((x >= BOX.lower) & (x <= BOX.upper)).all()


@pytest.mark.parametrize("name", ["default", "without explorers", "strong noise"])
def test_a_corner_is_reached_to_the_last_digit(name: str) -> None:
    # Clipped particles are at walls, not near them. Mirrored ones only come closer, half the way at a time.
    method, box = METHODS[name], Bounds(np.zeros(DIM), np.array([1.1, 2.3, 0.7, 4.9]))
    corner = np.array([1.1, 0.0, 0.7, 4.9])
    state = method.init_many(np.full(DIM, 0.3), keys=[Key(seed) for seed in range(5)], bounds=box)
    for _ in range(150):
        candidates = method.ask(state)
        x = candidates.rows(0, len(candidates))
        state = method.tell(state, Evaluations(abs(x - corner - [1, -1, 0.1, 3]).sum(1)))
    assert (abs(method.recommend_many(state) - corner) < 1e-12).all()


def test_a_wall_is_reached_while_the_rest_converges() -> None:
    method, target = CBO(), np.array([0.3, 2.0, -3.0, -0.4])
    state = method.init(np.zeros(DIM), key=Key(0), bounds=Bounds(-np.ones(DIM), np.ones(DIM)))
    for _ in range(300):
        x = method.ask(state).rows(0, method.num_particles)
        state = method.tell(state, Evaluations(((x - target) ** 2).sum(1)))
    found = method.recommend(state)
    assert found[1:3].tolist() == [1.0, -1.0]
    np.testing.assert_allclose(found[[0, 3]], target[[0, 3]], atol=1e-5)
