"""FedAvg along exact gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.algorithms.fedavg import FedAvg
from federated.algorithms.scaffold import ScaffoldII
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values
from zoo.core.device import Array


def test_drifts_where_clients_differ() -> None:
    """Row 10: no gradient is wrong, and F goes up again nevertheless."""
    method = FedAvg.published()
    found = values(federated(method, Quadratic(heterogeneity=5.0), rounds=20))
    assert found.min() < 0.65
    assert found[20] > 0.85
    assert values(federated(method, Quadratic(heterogeneity=0.5), rounds=20))[20] < -0.024


def test_gradients_are_counted() -> None:
    state = federated(FedAvg(num_steps=3), Quadratic(10, 4), rounds=2)
    assert (state.nfev, state.gradients) == (0, 2 * 4 * 3)
    assert state.up == state.down == 2 * 4 * 80


def test_client_whose_gradient_is_not_finite_has_no_vote() -> None:
    class Cut(Quadratic):
        def gradient(self, client: int, x: Array) -> Any:
            return super().gradient(client, x) * (np.nan if client else 1)

    task = Cut(10, 2)
    x0 = np.full(10, 0.9)
    step = x0 - federated(FedAvg(num_steps=1, learning_rate=0.01), task, x0=x0).x
    assert step == pytest.approx(np.full(10, 0.01), rel=1e-5)


def test_needs_gradients() -> None:
    assert FedAvg.needs_gradient
    assert not ScaffoldII.needs_gradient
