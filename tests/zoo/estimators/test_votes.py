"""Majority votes against a count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.estimators.votes import Votes
from zoo.updates.sign import Sign

DIM = 5
X = np.random.default_rng(0).normal(size=DIM)
SLOPES = np.array([4.0, -3.0, 2.0, -5.0, 6.0])


def estimated(estimator: Votes, failed: Any = (), outlier: float = 0.0) -> Any:
    state = estimator.init(X)
    asked = estimator.ask(state, X, Key(0), 0)
    values = asked.rows(0, len(asked)) @ SLOPES
    values[list(failed)] = np.nan
    values[1] += outlier
    return asked, estimator.estimate(state, X, Evaluations(values), Key(0), 0)[1]


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "axes", "orthonormal"])
@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_votes_are_counted(law: str, stencil: str) -> None:
    asked, estimate = estimated(Votes(law, 5, 0.1, stencil))
    u = asked.along(0, 5)
    np.testing.assert_allclose(estimate.gradient, np.sign(u @ SLOPES) @ np.sign(u) / 5, atol=1e-15)
    assert np.abs(estimate.gradient).max() <= 1
    assert estimate.queries == 10 if stencil == "central" else 6


def test_all_axes_elect_the_signs() -> None:
    estimate = estimated(Votes("axes", None, 0.1))[1]
    assert Sign().update(None, estimate.gradient)[1].tolist() == np.sign(SLOPES).tolist()


def test_one_huge_difference_is_one_vote() -> None:
    """Row 1 is the far side of the first pair, whose sign it settles; what else it says is ignored."""
    asked, estimate = estimated(Votes("gaussian", 9, 0.1), outlier=-1e12)
    u = asked.along(0, 9)
    votes = np.sign(u @ SLOPES)
    votes[0] = 1.0
    np.testing.assert_allclose(estimate.gradient, votes @ np.sign(u) / 9, atol=1e-15)


def test_absent_voters_are_not_counted() -> None:
    asked, estimate = estimated(Votes("rademacher", 7, 0.1), failed=[2, 5])
    u = np.delete(asked.along(0, 7), [1, 2], axis=0)
    np.testing.assert_allclose(estimate.gradient, np.sign(u @ SLOPES) @ u / 5, atol=1e-15)
    assert estimate.num_valid == 5
    assert not estimated(Votes("rademacher", 2, 0.1), failed=range(4))[1].gradient.any()
