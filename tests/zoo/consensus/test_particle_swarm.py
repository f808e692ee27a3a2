"""`cbo-pso` is consensus-based optimization at no inertia, and contracts at any."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from zoo.consensus.cbo import CBO
from zoo.consensus.particle_swarm import ConsensusPSO
from zoo.core.bounds import Bounds
from zoo.core.device import to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations

X0 = np.array([0.5, -1.5, 2.0])


def waves(x: Any) -> Any:
    return (x**2 + 2.5 * (1 - np.cos(2 * np.pi * x))).sum(-1)


def walk(method: Any, steps: int, fun: Any = waves, x0: Any = X0, **options: Any) -> tuple[Any, list[Any]]:
    """Return the last state, and the rows asked for in each step."""
    state, asked = method.init(x0, key=Key(3), **options), []
    for _ in range(steps):
        candidates = method.ask(state)
        asked.append(to_numpy(candidates.rows(0, len(candidates))))
        state = method.tell(state, Evaluations(fun(asked[-1])))
    return state, asked


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("noise", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("alpha", [3.0, math.inf])
def test_without_inertia_it_is_consensus_based_optimization(memory: bool, noise: str, alpha: float) -> None:
    sigma = 2.0 if noise == "anisotropic" else 0.8
    options: Any = {"num_particles": 30, "sigma": sigma, "alpha": alpha, "dt": 0.02, "noise": noise}
    options |= {"memory_drift": 0.7, "memory_sigma": 0.5}
    ours = walk(ConsensusPSO(inertia=0.0, memory=memory, **options), 100)[1]
    plain: Any = {"num_coordinates": None, "explorers": 0.0, "differences": 0.0, "elitist": False}
    theirs = walk(CBO(memory="local" if memory else "none", **plain, **options), 100)[1]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)
    # And the limit is not the endpoint alone.
    near = walk(ConsensusPSO(inertia=1e-13, memory=memory, **options), 20)[1]
    np.testing.assert_allclose(near, theirs[:20], rtol=0, atol=1e-8)
    assert np.abs(ours[-1] - ours[0]).max() > 0.1


@pytest.mark.parametrize(("inertia", "dt"), [(0.0, 0.5), (0.2, 0.1), (0.8, 0.1), (0.5, 1.0)])
@pytest.mark.parametrize("memory", [False, True])
def test_contracts_without_noise(inertia: float, dt: float, memory: bool) -> None:
    method = ConsensusPSO(inertia=inertia, dt=dt, sigma=0.0, memory=memory)
    states = []
    for steps in (0, 1200):
        state, _ = walk(method, steps, lambda x: (x**2).sum(-1))
        states.append(method.diagnostics(state)["spread"])
    assert states[1] < 1e-5 * states[0]


def test_one_step_by_hand() -> None:
    # Two particles in one dimension, neither drawn anywhere by itself: the one at 0 is the consensus point.
    m, dt, drift = 0.25, 0.5, 0.8
    method = ConsensusPSO(num_particles=2, inertia=m, dt=dt, drift=drift, sigma=0.0, memory=False)
    state = method.init(np.zeros(1), key=Key(0))
    x = float(method.ask(state).rows(0, 2)[1, 0])  # x0 itself is the first
    v, values = 0.0, Evaluations([0.0, 1.0])
    for _ in range(5):
        state = method.tell(state, values)
        v = (m * v - drift * dt * x) / (m + (1 - m) * dt)
        x += dt * v
        assert method.ask(state).rows(0, 2).tolist() == [[0.0], [pytest.approx(x, abs=1e-15)]]


def test_what_is_remembered_only_gets_better() -> None:
    method = ConsensusPSO(num_particles=15, memory_sigma=0.4)
    state, before = method.init(X0, key=Key(0)), np.full((1, 15), np.inf)
    for step in range(100):
        x = method.ask(state).rows(0, 15)
        values = waves(x)
        values[step % 15] = np.nan
        state = method.tell(state, Evaluations(values))
        assert (state.remembered <= before).all()
        before = state.remembered
        finite = np.isfinite(before[0])
        points = (state.swarm.anchor[:, None] + state.memory)[0, finite]
        np.testing.assert_allclose(waves(points), before[0, finite], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory_drift", 0.5), ("memory_sigma", 0.5), ("memory", False), ("drift", 1.5), ("start", "uniform")],
)
def test_every_option_does_something(name: str, value: Any) -> None:
    plain = walk(ConsensusPSO(), 6)[1][-1]
    other = walk(ConsensusPSO(**{name: value}), 6)[1][-1]
    assert not np.allclose(plain, other)


def test_elitist() -> None:
    for elitist in (True, False):
        method = ConsensusPSO(elitist=elitist, alpha=2.0)
        state, asked = walk(method, 10)
        rows = np.concatenate(asked)
        best = rows[waves(rows).argmin()]
        assert method.recommends_evaluated is elitist
        assert (method.recommend(state) == best).all() == elitist


def test_stops_at_walls() -> None:
    bounds = Bounds(np.full(3, -3.0), np.full(3, -0.5))
    method = ConsensusPSO()
    state, _ = walk(method, 15, lambda x: (x**2).sum(-1), bounds=bounds, x0=np.full(3, -2.0))
    x = state.swarm.anchor + state.swarm.offsets[0]
    at_wall = np.abs(x + 0.5) < 1e-12
    assert at_wall.any()
    assert (state.velocity[0][at_wall] == 0).any()
    assert np.abs(method.recommend(state) + 0.5).max() < 0.1


def test_what_would_fly_apart_is_refused() -> None:
    ConsensusPSO(inertia=0.0, dt=0.01, sigma=14.9, memory=False)
    for options in (
        {"inertia": 0.0, "dt": 0.01, "sigma": 15.1, "memory": False},
        {"memory_sigma": 4.0},
        {"inertia": 0.9, "sigma": 0.8},
        {"sigma": 0.0, "drift": 100.0},
        {"inertia": 0.2, "dt": 0.01, "sigma": 6.6},
        {"inertia": 0.2, "dt": 0.01, "sigma": 6.6, "memory": False},
        {"inertia": 0.5, "dt": 0.1, "drift": 0.01, "sigma": 1.35, "memory": False},
    ):
        with pytest.raises(ValueError, match="`allow_divergence=True`"):
            ConsensusPSO(**options)
        ConsensusPSO(**options, allow_divergence=True)
    with pytest.raises(ValueError, match="fly apart"):
        ConsensusPSO(noise="isotropic", sigma=0.1, memory_sigma=50.0).init(np.zeros(20), key=Key(0))
    isotropic = ConsensusPSO(noise="isotropic", sigma=0.5)
    isotropic.init(X0, key=Key(0))
    with pytest.raises(ValueError, match="in 60 variables"):
        isotropic.init(np.zeros(60), key=Key(0))
    # What is refused does fly apart, and what is just within does not.
    grown = []
    for sigma in (1.6, 5.0):
        method = ConsensusPSO(sigma=sigma, memory=False, allow_divergence=True, tolx=0.0)
        state, _ = walk(method, 600, lambda x: (x**2).sum(-1))
        grown.append(method.diagnostics(state)["spread"])
    assert grown[0] < 1 < 100 < grown[1]
