"""Particle swarm: the update as the docstring has it, neighbours, failures, known points, walls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from zoo.core.bounds import Bounds
from zoo.core.device import to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations, Known
from zoo.methods.population import Frame
from zoo.methods.pso import PSO, PSOState, _bounce
from zoo.problems import rastrigin, sphere

START = np.array([0.5, -1.0, 2.0])
INF = np.inf


def told(method: PSO, state: PSOState, fun: Any = sphere) -> PSOState:
    asked = method.ask(state)
    return method.tell(state, Evaluations(to_numpy(fun(asked.rows(0, len(asked))))))


def run(method: PSO, steps: int, fun: Any = sphere, **options: Any) -> PSOState:
    state = method.init(options.pop("x0", START), key=Key(0), **options)
    for _ in range(steps):
        state = told(method, state, fun)
    return state


@pytest.mark.parametrize("topology", ["ring", "global"])
@pytest.mark.parametrize(("size", "dim"), [(5, 3), (400, 90)])  # the second one is moved in blocks
def test_a_step_is_the_formula(topology: str, size: int, dim: int) -> None:
    method = PSO(size, topology, inertia=0.6, cognitive=1.25, social=1.75)
    before = run(method, 2, rastrigin, x0=np.linspace(-1, 1, dim))
    after = told(method, before, rastrigin)
    key = before.frame.key
    own, lead = (key.fold(name, 3).coarse(0, size, dim) for name in ("own", "lead"))
    new = rastrigin(before.position)
    best, values = before.best.copy(), before.values.copy()
    for i in range(size):
        if new[i] <= values[i]:
            best[i], values[i] = before.position[i], new[i]
    assert_array_equal(after.best, best)
    assert_array_equal(after.values, values)
    for i in range(size):
        around = [i, (i - 1) % size, (i + 1) % size] if topology == "ring" else range(size)
        leader = best[min(around, key=lambda j: values[j])]
        x = before.position[i]
        velocity = 0.6 * before.velocity[i]
        velocity += own[i] * 1.25 * (best[i] - x)
        velocity += lead[i] * 1.75 * (leader - x)
        assert_array_equal(after.velocity[i], velocity)
        assert_array_equal(after.position[i], x + velocity)


def test_number_of_particles() -> None:
    for dim, expected in ((1, 12), (9, 16), (100, 30)):
        assert len(PSO().ask(PSO().init(np.zeros(dim), key=Key(0)))) == expected


def test_starts_at_x0_and_moves_half_the_way_to_another_point() -> None:
    scale = np.array([1.0, 10.0, 0.1])
    state = PSO(5).init(START, key=Key(3), scale=scale)
    assert_array_equal(state.position[0], START)
    normal = Key(3).fold("start").fold("normal")
    assert_array_equal(state.position[1:], (scale * normal.normal(0, 5, 3) + START)[1:])
    goal = scale * Key(3).fold("velocity").fold("normal").normal(0, 5, 3) + START
    assert_array_equal(state.velocity, (goal - state.position) / 2)


def test_uniform_in_a_box() -> None:
    box = Bounds(np.array([0.0, -2.0, 1.0]), np.array([1.0, 2.0, INF]))
    state = PSO(2000).init(np.array([0.5, 0.0, 1.5]), key=Key(0), bounds=box, scale=0.1)
    shares = (state.position[1:, :2] - box.lower[:2]) / (box.upper - box.lower)[:2]
    assert np.abs(shares.mean(0) - 0.5).max() < 6 / np.sqrt(12 * 1999)
    assert box.contains(state.position)
    assert state.position[:, 2].max() < 1.5 + 0.6


def test_failed_particles_are_drawn_to_their_neighbours_only() -> None:
    method = PSO(6)
    first = method.init(START, key=Key(0))
    nobody = method.tell(first, Evaluations(np.full(6, np.nan)))
    np.testing.assert_allclose(nobody.velocity, method.inertia * first.velocity, rtol=1e-15)
    assert_array_equal(method.recommend(nobody), START)
    # Particle 3 alone has a value: 2 and 4 are drawn to it, and 0, 1 and 5 fly on.
    values = np.full(6, np.nan)
    values[3] = 1.0
    state = method.tell(first, Evaluations(values))
    for i in (0, 1, 5):
        assert_array_equal(state.velocity[i], method.inertia * first.velocity[i])
    pull = Key(0).fold("lead", 1).coarse(0, 6, 3)
    for i in (2, 4):
        expected = method.inertia * first.velocity[i]
        expected += pull[i] * method.social * (first.position[3] - first.position[i])
        assert_array_equal(state.velocity[i], expected)
    assert_array_equal(method.recommend(state), first.position[3])


def test_equal_values_move_the_best_point() -> None:
    method = PSO(4)
    first = method.init(START, key=Key(0))
    second = method.tell(first, Evaluations(np.ones(4)))
    third = method.tell(second, Evaluations([1.0, 2.0, 1.0, np.nan]))
    assert_array_equal(third.best[[0, 2]], second.position[[0, 2]])
    assert_array_equal(third.best[[1, 3]], second.best[[1, 3]])


def test_known_points_are_particles() -> None:
    points = np.array([[3.0, 3.0, 3.0], [9.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    known = Known(points, [27.0, 0.0, 3.0, np.nan, 1.0])
    box = Bounds(np.full(3, -5.0), np.full(3, 5.0))
    method = PSO(6)
    state = method.init(START, key=Key(0), bounds=box, known=known)
    assert_array_equal(state.best[:3], points[[4, 2, 0]])  # one failed, and one is outside
    assert_array_equal(state.values, [1.0, 3.0, 27.0, INF, INF, INF])
    assert_array_equal(method.ask(state).rows(0, 3)[0], START)
    assert len(method.ask(state)) == 3
    assert_array_equal(method.recommend(state), points[4])
    state = method.tell(state, Evaluations([5.0, 0.5, np.nan]))
    assert_array_equal(state.values, [1.0, 3.0, 27.0, 5.0, 0.5, INF])
    assert len(method.ask(state)) == 6
    assert state.nfev == 3


def test_enough_known_points_need_no_first_step() -> None:
    points = np.arange(12.0).reshape(4, 3)
    method = PSO(3)
    state = method.init(START, key=Key(0), known=Known(points, [1.0, 2.0, 3.0, 4.0]))
    assert_array_equal(state.best, points[:3])
    asked = method.ask(state).rows(0, 3)
    assert not (asked[:, None] == points).all(2).any()
    assert method.tell(state, Evaluations([0.5, 9.0, 9.0])).values.tolist() == [0.5, 2.0, 3.0]


def test_x0_that_is_known_is_not_evaluated_again() -> None:
    state = PSO(4).init(START, key=Key(0), known=Known([START, START + 1], [2.0, 1.0]))
    assert not (PSO(4).ask(state).rows(0, 2) == START).all(1).any()


def test_walls_turn_particles_around() -> None:
    box = Bounds(np.array([0.0, 0.0, 0.0, -INF, 0.0, 0.5]), np.array([1.0, 1.0, 1.0, 1.0, INF, 0.5]))
    x = np.array([[0.75, 0.25, 0.5, 0.5, 0.5, 0.5]])
    velocity = np.array([[0.5, -0.5, 0.25, -9.0, -1.0, 0.125]])
    moved, after = _bounce(box, x, velocity)
    assert moved.tolist() == [[0.75, 0.25, 0.75, -8.5, 0.5, 0.5]]
    assert after.tolist() == [[-0.25, 0.25, 0.25, -9.0, 0.5, 0.0]]
    moved, after = _bounce(box, x, 1e6 * velocity)
    assert box.contains(moved)
    assert np.abs(after[0, :3]).max() <= 1


def test_the_last_step_is_cut_to_the_budget() -> None:
    method = PSO(10)
    state = run(method, 2, budget=25)
    assert len(method.ask(state)) == 5
    assert method.finished(state) is None
    state = told(method, state)
    assert state.nfev == 25
    assert method.finished(state) == "the budget of 25 evaluations is used up"


def test_ends_when_the_swarm_has_shrunk_to_a_point() -> None:
    method = PSO(10, "global")
    state = method.init(START, key=Key(0))
    while method.finished(state) is None:
        state = told(method, state)
        assert state.step < 2000
    assert "tolx" in str(method.finished(state))
    assert sphere(method.recommend(state)) < 1e-12
    assert PSO(10, tolx=0).finished(state) is None


def test_stays_finite_where_nothing_stops_it() -> None:
    state = run(PSO(6), 600, lambda x: -x.sum(-1), x0=START.astype(np.float32))
    assert np.isfinite(state.position).all()
    assert state.best.max() > 1e30


def test_wrong_arguments() -> None:
    for options, words in (
        ({"population_size": 1}, "`population_size` must be at least 2, got 1"),
        (
            {"topology": "rings"},
            "`topology` must be one of 'ring', 'global', got 'rings'. Did you mean 'ring'",
        ),
        ({"inertia": 1.0}, "`inertia` must be at least 0 and below 1, got 1.0"),
        ({"social": -1}, "`social` must be finite and at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=words.replace("?", r"\?")):
            PSO(**options)
    with pytest.raises(ValueError, match=r"`x0` must have shape \(dim,\), got \(2, 2\)"):
        PSO().init(np.zeros((2, 2)), key=Key(0))
    with pytest.raises(ValueError, match="`scale` must be finite and above 0 everywhere, got 0"):
        PSO().init(START, key=Key(0), scale=0)
    with pytest.raises(ValueError, match="`evaluations` must hold the 3 values asked for, got 2"):
        PSO(3).tell(PSO(3).init(START, key=Key(0)), Evaluations([1.0, 2.0]))


def test_frame_is_what_was_given() -> None:
    frame: Frame = PSO().init(START, key=Key(5), scale=2.0, budget=7).frame
    assert (frame.dim, frame.budget, frame.key) == (3, 7, Key(5))
    assert_array_equal(frame.scale, [2.0, 2.0, 2.0])
