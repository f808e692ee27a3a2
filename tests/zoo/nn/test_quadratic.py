"""All that steps may be made of, on one quadratic: 100 coordinates, condition 10, 5000 queries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.estimators.finite_difference import FiniteDifference
from zoo.estimators.hizoo import HiZOO
from zoo.estimators.variance import ControlVariate
from zoo.estimators.votes import Votes
from zoo.methods.descent import Descent
from zoo.nn import descent
from zoo.nn.conservative import conservative_step_
from zoo.nn.gradient import Estimator, estimate_gradient_
from zoo.nn.seeded import Seeded
from zoo.nn.svrg import SVRG
from zoo.updates.adam import Adam
from zoo.updates.adamm import AdaMM
from zoo.updates.chain import Chain
from zoo.updates.momentum import Momentum
from zoo.updates.sign import Sign

DIM, QUERIES = 100, 5000
CURVATURES = np.geomspace(1, 10, DIM)
START = np.random.default_rng(0).permutation(np.linspace(-1, 1, DIM))
WORST = float(START**2 @ CURVATURES / 2)
RANDOM = FiniteDifference("gaussian", 8, 1e-3)


def loss(rows: Any) -> Any:
    return rows**2 @ CURVATURES / 2


def path(method: Descent) -> np.ndarray[Any, Any]:
    """Return the losses after every step, relative to that of the start."""
    state = method.init(START, key=Key(0))
    queries, losses = 0, []
    while queries + len(asked := method.ask(state)) <= QUERIES:
        queries += len(asked)
        state = method.tell(state, Evaluations(loss(asked.rows(0, len(asked)))))
        losses.append(float(loss(state.x)) / WORST)
    return np.array(losses)


@pytest.mark.parametrize(
    "method",
    [
        Descent(RANDOM, Chain(), 5e-3),
        Descent(RANDOM, Momentum(0.9), 5e-4),
        Descent(RANDOM, Adam(), 0.02),
        Descent(RANDOM, AdaMM(), 0.02),
        Descent(HiZOO("gaussian", 4, 1e-3), Chain(), 3e-3),
        Descent(HiZOO("axes", 8, 1e-3, rate=0.02), Chain(), 0.02),
        Descent(ControlVariate("gaussian", 8, 1e-3), Chain(), 5e-3),
        Descent(ControlVariate("axes", 8, 1e-3, returns="memory"), Chain(), 5e-3),
    ],
    ids=["sgd", "momentum", "adam", "adamm", "hizoo", "hizoo by axes", "control variate", "jaguar"],
)
def test_nine_tenths_are_gone(method: Descent) -> None:
    assert path(method)[-1] < 0.1


@pytest.mark.parametrize("estimator", [RANDOM, Votes("rademacher", 9, 1e-3)], ids=["sign", "votes"])
def test_signs_reach_a_neighbourhood(estimator: FiniteDifference) -> None:
    """Steps are of one length: they come near, and closer the shorter they are, but stay away."""
    ends = [path(Descent(estimator, Sign(), rate))[-50:] for rate in (0.04, 0.02)]
    assert ends[0].max() < 0.3
    assert ends[1].max() < ends[0].min()
    assert ends[1].min() > 1e-3


def test_every_coordinate_moves_by_the_learning_rate() -> None:
    """From 0 the difference of two iterates is exact."""
    method = Descent(RANDOM, Sign(), 0.01)
    state = method.init(np.zeros(DIM), key=Key(0))
    asked = method.ask(state)
    state = method.tell(state, Evaluations(asked.rows(0, 16) @ CURVATURES))
    assert set(np.abs(state.x)) == {0.01}


class Network(torch.nn.Module):
    """The same quadratic as a module; with batches, a mean of such with minima around 0."""

    def __init__(self, batches: int = 1) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor(START))
        self.curvatures = torch.tensor(CURVATURES)
        minima = torch.randn(batches, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.minima = minima - minima.mean(0)
        self.queries = 0

    def forward(self, batch: int | None = None) -> torch.Tensor:
        minima = self.minima if batch is None else self.minima[batch : batch + 1]
        self.queries += len(minima)
        return ((self.x - minima) ** 2 @ self.curvatures / 2).mean()

    def left(self) -> float:
        """Return the loss over all batches above its least, relative to that of the start."""
        return float(loss(self.x.detach().numpy())) / WORST


def test_conservative_steps_never_grow_the_loss() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    estimator = FiniteDifference("gaussian", 4, 1e-3, "forward")
    losses, choices, step = [network.left()], set(), 0
    while network.queries + 7 <= QUERIES:
        estimate = estimate_gradient_(network, network, estimator, Key(0), step)
        done = conservative_step_(network, network, optimizer, Key(0), step, value=estimate.value)
        losses.append(network.left())
        choices.add(done.choice)
        step += 1
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert choices >= {0, 1}
    assert losses[-1] < 0.1


def test_fzoo() -> None:
    network = Network()
    estimator = Seeded("rademacher", 8, 1e-4, "forward")
    update = descent.Descent(lambda step: 0.02 * (1 - step / 555), normalised=True)
    for step in range(555):
        estimate = estimator.estimate(network, network, Key(0), step)
        descent.apply_(network, estimate, update)
    assert network.queries <= QUERIES
    assert network.left() < 0.1


def test_svrg() -> None:
    """The batches' minima are as far from each other as the start is from theirs."""
    batches, step = 5, 0
    network = Network(batches)
    optimizer = torch.optim.SGD(network.parameters(), lr=5e-3)
    svrg = SVRG(RANDOM, 60, batches, full=FiniteDifference("axes", None, 1e-3, "forward"))
    while network.queries + 505 <= QUERIES:
        svrg.estimate_(network, lambda at=step % batches: network(at), network, Key(0), step)
        optimizer.step()
        step += 1
    assert svrg.queries == network.queries
    assert network.left() < 0.1


@pytest.mark.parametrize(
    "made",
    [
        ControlVariate("gaussian", 4, 1e-3),
        ControlVariate("axes", 4, 1e-3, returns="memory"),
        HiZOO("gaussian", 2, 1e-3, rate=1e-4),
        Votes("rademacher", 5, 1e-3),
    ],
    ids=["control variate", "jaguar", "hizoo", "votes"],
)
def test_a_network_gets_the_estimates_of_a_vector(made: FiniteDifference) -> None:
    network, estimator = Network(), Estimator(made)
    x = torch.tensor(START)
    state = made.init(x)
    for step in range(3):
        asked = made.ask(state, x, Key(0).fold("directions"), step)
        values = Evaluations(loss(asked.rows(0, len(asked)).numpy()))
        state, expected = made.estimate(state, x, values, Key(0).fold("directions"), step)
        found = estimate_gradient_(network, network, estimator, Key(0), step)
        torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-6, atol=1e-6)
        assert found.num_valid == expected.num_valid
    again = Estimator(made)
    again.load_state_dict(estimator.state_dict())
    found = [estimate_gradient_(network, network, one, Key(0), 3).gradient for one in (estimator, again)]
    assert torch.equal(*found)
