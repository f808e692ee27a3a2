"""FedZO: queries, bytes, and what its estimates are."""

from __future__ import annotations

import numpy as np

from federated.algorithms.fedzo import FedZO
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values

TASK = Quadratic(dim=30, num_clients=3, heterogeneity=0.5)


def test_every_point_is_evaluated_once_by_default() -> None:
    method = FedZO(num_steps=4, num_directions=7)
    state = federated(method, TASK, rounds=3)
    assert state.queries.tolist() == [3 * 4 * 8] * 3
    assert method.most_queries(30, True) == 4 * 8
    assert state.hidden == 0
    assert state.up == state.down == 3 * 3 * 30 * 8


def test_published_queries() -> None:
    state = federated(FedZO.published(), Quadratic(dim=30, num_clients=3), rounds=2)
    assert state.queries.tolist() == [2 * 221] * 3
    assert state.nfev - state.hidden == 3 * 2 * 211
    assert FedZO.published().most_queries(30, True) == 221


def test_descends() -> None:
    found = values(federated(FedZO(), TASK, rounds=5))
    assert (np.diff(found) < 0).all()
