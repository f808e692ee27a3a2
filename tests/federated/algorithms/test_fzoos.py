"""FZooS."""

from __future__ import annotations

from federated.algorithms.fzoos import FZooS
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated


def test_it_asks_for_as_many_values_as_it_says():
    state = federated(FZooS(), Quadratic(20, 5), rounds=3)
    assert state.nfev == 5 * (3 * 107 + 10)
    assert state.hidden == 0
    assert [FZooS().most_queries(300, number) for number in (0, 1)] == [117, 107]
