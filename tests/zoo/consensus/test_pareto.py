"""Consensus-based optimization of several objectives against its definition, and the fronts that it finds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import zoo
from zoo.consensus.pareto import (
    ParetoCBO,
    even_directions,
    normalised,
    onto_simplex,
    repulsion,
    scalarised,
)
from zoo.core.bounds import Bounds
from zoo.core.front import dominates
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.problems import several

BOX = Bounds(np.zeros(4), np.ones(4))


def told(method, state, fun, **extras):
    rows = np.asarray(method.ask(state).array)
    objectives = fun(rows)
    found = {name: extra(rows) for name, extra in extras.items()}
    return method.tell(state, Evaluations(objectives.mean(1), (), {"objectives": objectives, **found}))


def run(method, fun, steps, seed=0, bounds=BOX, x0=(0.5, 0.5, 0.5, 0.5), **extras):
    state = method.init(np.array(x0), key=Key(seed), bounds=bounds, scale=0.3)
    for _ in range(steps):
        state = told(method, state, fun, **extras)
    return state


def bent(x):
    """A front that even weights crowd at its ends, f2 = (1 - sqrt f1)^2."""
    g = 1 + x[:, 1:].mean(1)
    return np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g)) ** 2], 1)


def test_scalarisations_by_definition():
    objectives, directions = Key(0).normal(0, 25, 3), even_directions(7, 3)
    front = objectives[~dominates(objectives, objectives).any(0)]
    ideal, ranges = front.min(0), np.ptp(front, 0)
    np.testing.assert_allclose(
        normalised(objectives, np.zeros(25)), np.maximum((objectives - ideal) / ranges, 0)
    )
    found = scalarised(directions, objectives, np.zeros(25))
    for i, j in itertools.product(range(7), range(25)):
        lambdas = 1 / directions[i] / (1 / directions[i]).sum() * 3
        expected = max(lambdas[m] * max(objectives[j, m] - ideal[m], 0) / ranges[m] for m in range(3))
        assert found[i, j] == pytest.approx(expected, rel=1e-12)


def test_the_best_point_of_a_direction_is_where_it_meets_the_front():
    share = np.linspace(0, 1, 2001)
    front = np.stack([3 + 10 * share, -1 + 1e-3 * (1 - np.sqrt(share))], 1)  # of any units
    directions = even_directions(11, 2)
    best = normalised(front, np.zeros(len(front)))[scalarised(directions, front, np.zeros(2001)).argmin(1)]
    np.testing.assert_allclose(best / best.sum(1, keepdims=True), directions, atol=5e-3)


def test_what_violates_constraints_comes_behind_by_how_much_it_does():
    objectives = np.array([[1.0, 0.0], [0.0, 1.0], [50.0, 50.0], [-9.0, -9.0], [-9.0, -8.0], [0.0, 0.0]])
    violations = np.array([0.0, 0.0, 0.0, 2.0, 1.0, np.inf])
    costs = scalarised(even_directions(5, 2), objectives, violations)
    assert (costs[:, :3].max(1) < costs[:, 3:].min(1)).all()
    assert ((costs[:, 4] < costs[:, 3]) & (costs[:, 3] < costs[:, 5])).all()
    assert np.isfinite(costs).all()


@pytest.mark.parametrize("magnitude", [1e-200, 1.0, 1e200, 1e307])
def test_objectives_of_any_size_are_measured_by_their_ranges(magnitude):
    objectives = np.array([[0.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    expected = normalised(objectives, np.zeros(3))
    np.testing.assert_allclose(normalised(magnitude * objectives, np.zeros(3)), expected, rtol=1e-12)
    assert normalised(np.full((4, 2), magnitude), np.zeros(4)).tolist() == [[0.0, 0.0]] * 4


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_even_directions_lie_on_the_simplex_with_its_corners(k):
    directions = even_directions(40, k)
    assert directions.shape == (40, k)
    assert (directions >= 1e-3 * (k > 1)).all()
    np.testing.assert_allclose(directions.sum(1), 1, rtol=1e-12)
    if k > 1:
        assert (directions.max(0) > 0.99).all()
        apart = np.abs(directions[:, None] - directions).max(2) + np.eye(40)
        assert apart.min() > 0.01
    if k == 3:
        # Of uniform points, as many are where the first entry is below a as 1 - (1 - a)^2 says.
        for a in (0.2, 0.5):
            assert np.mean(directions[3:, 0] < a) == pytest.approx(1 - (1 - a) ** 2, abs=0.08)


def test_onto_the_simplex_is_the_nearest_point_there():
    points = 3 * Key(1).normal(0, 50, 4)
    for least in (0.0, 0.05):
        found = onto_simplex(points, least)
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
        assert found.min() >= least - 1e-15
        # The conditions of Karush, Kuhn and Tucker: one shift for all that are not at their limit.
        shift = points - found
        for row, moved in zip(found, shift, strict=True):
            free = row > least + 1e-12
            np.testing.assert_allclose(moved[free], moved[free][0], atol=1e-12)
            assert (moved[~free] <= moved[free][0] + 1e-12).all()


@pytest.mark.parametrize("potential", ["morse", "riesz"])
@pytest.mark.parametrize("k", [2, 3])
def test_repulsion_is_a_gradient_of_the_energy(potential, k):
    heights = Key(2).uniform(0, 6, k)

    def energy(h):
        total = 0.0
        for i, j in itertools.combinations(range(6), 2):
            r = math.dist(h[i], h[j])
            riesz = -math.log(r) if k == 2 else r ** (1 - k)
            total += math.exp(-20 * r) if potential == "morse" else riesz
        return total / 6

    found, step = repulsion(heights, potential), 1e-6
    for i, m in itertools.product(range(6), range(k)):
        ahead, behind = heights.copy(), heights.copy()
        ahead[i, m] += step
        behind[i, m] -= step
        assert found[i, m] == pytest.approx(
            -(energy(ahead) - energy(behind)) / (2 * step), rel=1e-4, abs=1e-6
        )
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-12)
    assert np.isfinite(repulsion(np.zeros((4, k)), potential)).all()


def gaps(state):
    """Return how uneven the distances between neighbours on the front are: deviation over mean."""
    heights = (state.objectives - state.objectives.min(0)) / np.ptp(state.objectives, 0)
    lengths = np.linalg.norm(np.diff(heights[np.argsort(heights[:, 0])], axis=0), axis=1)
    return lengths.std() / lengths.mean()


@pytest.mark.parametrize("potential", ["morse", "riesz"])
def test_repulsion_makes_the_front_more_even(potential):
    rate = 0.005 if potential == "morse" else 0.0005
    still = run(ParetoCBO(potential="none", num_particles=24), bent, 100)
    moved = run(ParetoCBO(potential=potential, adaptation=rate, num_particles=24), bent, 100)
    assert (still.directions == even_directions(24, 2)).all()
    assert gaps(moved) < 0.7 * gaps(still)


def test_a_step_by_definition():
    options = {"num_particles": 12, "alpha": 3.0, "explorers": 0.0, "drift": 2.0}
    method = ParetoCBO(**options)
    before = run(method, bent, 2)
    after = told(method, before, bent)
    costs = scalarised(before.directions, after.objectives, np.zeros(12))
    centres, deviations = [], []
    for row in costs:
        shares = np.exp(-3.0 * (row - row.min()))
        centre = np.average(after.memory, axis=0, weights=shares)
        centres.append(centre)
        deviations.append(np.sqrt(np.average((after.memory - centre) ** 2, axis=0, weights=shares)))
    still = told(ParetoCBO(**options, sigma=0.0), before, bent)
    expected = np.array(centres) + (after.memory - centres) * (1 - 2.0 * 0.01)
    np.testing.assert_allclose(still.points, np.clip(expected, 0, 1), rtol=0, atol=1e-12)
    spread = method.diagnostics(after)["spread"]
    assert spread == pytest.approx(np.mean(deviations) / 0.3, rel=1e-9)


@pytest.mark.parametrize("memory", ["greedy", "shared"])
def test_what_is_remembered_gets_no_worse(memory):
    method = ParetoCBO(num_particles=16, memory=memory, potential="none")
    state = method.init(np.full(4, 0.5), key=Key(0), bounds=BOX, scale=0.3)
    state = told(method, state, bent)
    for _ in range(15):
        before, rows = state, np.asarray(method.ask(state).array)
        state = told(method, state, bent)
        both = np.concatenate([before.objectives, bent(rows)])
        costs = scalarised(before.directions, both, np.zeros(32))
        kept = [both.tolist().index(row) for row in state.objectives.tolist()]
        now, own = costs[np.arange(16), kept], np.arange(16)
        if memory == "greedy":
            assert (now == np.minimum(costs[own, own], costs[own, 16 + own])).all()
        else:
            assert len(set(kept)) == 16, "no point serves two particles"
            assert now.sum() <= min(costs[own, own].sum(), costs[own, 16 + own].sum()) + 1e-12


def test_without_a_memory_particles_are_what_they_are():
    method = ParetoCBO(num_particles=10, memory="none")
    state = run(method, bent, 4)
    rows = np.asarray(method.ask(state).array)
    values = np.where(np.arange(10) < 3, np.nan, 1.0)
    objectives = np.where(np.isnan(values)[:, None], np.nan, bent(rows))
    after = method.tell(state, Evaluations(values, (), {"objectives": objectives}))
    assert (after.memory[3:] == rows[3:]).all()
    assert (after.memory[:3] == state.memory[:3]).all(), "who failed stays what it was"


OTHERS = {
    "num_particles": 21,
    "sample_size": 9.0,
    "alpha": 2.0,
    "drift": 20.0,
    "sigma": 5.0,
    "dt": 0.02,
    "noise": "isotropic",
    "memory": "greedy",
    "potential": "riesz",
    "adaptation": 0.5,
    "explorers": 0.6,
    "explorer_scale": 0.9,
    "start": "uniform",
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_option_does_something(name):
    digests = []
    for options in ({}, {name: OTHERS[name]}):
        method = ParetoCBO(**{"num_particles": 20} | options)
        state = run(method, several.schaffer, 6, bounds=None)
        digests.append(state.points.tobytes())
    assert digests[0] != digests[1]


@pytest.mark.parametrize("problem", ["zdt1", "zdt2"])
def test_a_front_of_many_variables(problem):
    """Most of the true front's hypervolume below (1.1, 1.1), where `nsga2` has .79 and .41."""
    share = np.linspace(0, 1, 2001)
    true = np.stack([share, 1 - np.sqrt(share) if problem == "zdt1" else 1 - share**2], 1)

    def volume(points):
        area, lowest = 0.0, 1.1
        for first, second in points[np.lexsort(points.T[::-1])]:
            if first < 1.1 and second < lowest:
                area, lowest = area + (1.1 - first) * (lowest - second), second
        return area

    front = zoo.minimize(
        getattr(several, problem),
        bounds=[(0, 1)] * 30,
        method="cbo-pareto",
        budget=5000,
        rng=0,
        vectorized=True,
    ).front
    assert volume(front.fun) > 0.8 * volume(true)


def test_three_objectives():
    def sphere(x):
        angles = x[:, :2] * np.pi / 2
        g = 1 + (x[:, 2:] - 0.5).__pow__(2).sum(1)
        first = np.cos(angles[:, 0])
        rows = [first * np.cos(angles[:, 1]), first * np.sin(angles[:, 1]), np.sin(angles[:, 0])]
        return g[:, None] * np.stack(rows, 1)

    state = run(ParetoCBO(num_particles=60), sphere, 80)
    assert np.abs(np.linalg.norm(state.objectives, axis=1) - 1).max() < 0.02
    assert (state.objectives.max(0) > 0.9).all()
    assert not dominates(state.objectives, state.objectives).any(0).sum() > 3


def test_constraints_are_kept():
    state = run(
        ParetoCBO(num_particles=20), lambda x: several.schaffer(4 * x), 60,
        constraints=lambda x: np.stack([0.3 - x[:, 0], x[:, 1] - 0.2], 1),
    )  # fmt: skip
    assert (state.violations == 0).all()
    assert (state.memory[:, 0] >= 0.3).all()
    assert (state.memory[:, 1] <= 0.2).all()
    hopeless = run(ParetoCBO(num_particles=20), bent, 30, constraints=lambda x: 2 - x[:, :1])
    assert hopeless.violations.max() < 1.05, "nearest to what cannot be reached"


def test_failures_count_for_nothing_and_a_failed_beginning_is_begun_again():
    method = ParetoCBO(num_particles=8)
    state = method.init(np.full(4, 0.5), key=Key(0), bounds=BOX)
    first = method.ask(state).array
    state = method.tell(state, Evaluations(np.full(8, np.nan)))
    second = method.ask(state).array
    assert not (first[1:] == second[1:]).any()
    values = np.where(np.arange(8) < 5, np.nan, bent(second).mean(1))
    objectives = np.where(np.isnan(values)[:, None], np.nan, bent(second))
    state = method.tell(state, Evaluations(values, (), {"objectives": objectives}))
    assert state.memory.shape == (8, 4)
    assert np.isfinite(state.objectives).all()
    assert np.isfinite(method.ask(told(method, state, bent)).array).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 1}, "`num_particles` must be at least 2, got 1"),
        ({"sample_size": 0.5}, "`sample_size` must be at least 1, got 0.5"),
        ({"noise": "anisotropic", "sigma": 20.0}, "must be at most 1.5, got 2: .* Take a smaller"),
        ({"alpha": -1.0}, "`alpha` must be at least 0, got -1.0"),
        ({"adaptation": math.inf}, "`adaptation` must be finite, got inf"),
        ({"potential": "newton"}, "`potential` must be one of"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ParetoCBO(**options)


def test_noise_with_which_swarms_fly_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="`drift` \\* dt must be below 2, got 10"):
        ParetoCBO(drift=1000.0)
    with pytest.raises(ValueError, match="in 20 variables makes the swarm fly apart"):
        ParetoCBO(noise="isotropic", sigma=8.0, memory="none").init(np.zeros(20), key=Key(0))
