"""What every method of the family says of itself in the log."""

from __future__ import annotations

import math

import numpy as np
import pytest

import zoo
from zoo.consensus.hopping import ConsensusHopping
from zoo.consensus.pareto import ParetoCBO
from zoo.core.types import Evaluations

FAMILY = [name for name in zoo.list_methods() if name.startswith("cb") or name == "ch"]


@pytest.mark.parametrize("name", FAMILY)
def test_temperature_sample_size_and_spread_are_reported(name: str) -> None:
    method = zoo.list_methods()[name].build({})
    state = method.init(np.full(4, 0.5), key=zoo.Key(0))
    for _ in range(4):
        found = method.diagnostics(state)
        assert {"alpha", "effective_sample_size", "spread"} <= set(found)
        assert found["alpha"] >= 0
        assert math.isfinite(found["spread"])
        candidates = method.ask(state)
        state = method.tell(state, Evaluations((candidates.rows(0, len(candidates)) ** 2).sum(1)))
    assert found["effective_sample_size"] >= 1


def test_the_family_is_whole() -> None:
    assert len(FAMILY) == 13


def test_the_spread_of_hops_is_that_of_their_points() -> None:
    method = ConsensusHopping(num_particles=4000)
    state = method.init(np.zeros(3), key=zoo.Key(1), scale=np.array([1.0, 2.0, 3.0]))
    for _ in range(2):
        points = method.ask(state).rows(0, 4000)
        state = method.tell(state, Evaluations((points**2).sum(1)))
    assert method.diagnostics(state)["spread"] == pytest.approx(math.sqrt(points.var(0).mean()), rel=0.02)


def test_the_temperature_of_a_front_is_that_of_its_middle_particle() -> None:
    method = ParetoCBO(num_particles=5, alpha=3.0)
    state = method.init(np.zeros(3), key=zoo.Key(1))
    points = method.ask(state).rows(0, 5)
    state = method.tell(state, Evaluations((points**2).sum(1)))
    assert method.diagnostics(state)["alpha"] == 3.0
