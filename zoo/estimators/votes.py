"""Votes of directions on the sign of every coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.device import Array, array_module
from zoo.estimators.displaced import Displaced
from zoo.estimators.finite_difference import (
    FiniteDifference,
    FiniteDifferenceState,
    GradientEstimate,
    Weights,
    chunks,
)


@dataclass(frozen=True)
class Votes(FiniteDifference):
    """The mean of sign(slope along u) * sign(u) over directions u: how each direction votes on each sign.

    Entries lie between -1 and 1: the margin by which a sign won. Taking the sign of those
    (`zoo.updates.sign.Sign`) is ZO-signSGD with majority vote. A slope counts for its sign alone, so that one
    direction with a huge difference decides no more than any other, and one bit per direction is all that
    whoever evaluates it has to report.

    Args:
        num_directions: Voters; an odd number leaves no ties where directions have no zeros.

    Example:
        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Evaluations
        >>> estimator, x = Votes("rademacher", 101, 0.1), np.zeros(3)
        >>> state = estimator.init(x)
        >>> points = estimator.ask(state, x, Key(0), 0).rows(0, 202)
        >>> values = Evaluations(points @ np.array([3.0, -2.0, 0.0]))
        >>> votes = estimator.estimate(state, x, values, Key(0), 0)[1].gradient
        >>> bool(votes[0] > 0.9), bool(abs(votes[2]) < 0.2)
        (True, True)

    References:
        Liu, Chen, Chen and Hong, "signSGD via zeroth-order oracle", 2019.
        https://openreview.net/forum?id=BJe-DsC5Fm
    """

    def conclude(
        self,
        state: FiniteDifferenceState,
        asked: Displaced,
        values: Any,
        weights: Weights,
        gradient: Array,
        symmetric: Any,
    ) -> tuple[FiniteDifferenceState, GradientEstimate]:
        if weights.peak:
            votes = np.sign(weights.coefficients) / len(weights.differences)
            xp = array_module(gradient)
            gradient = xp.zeros_like(gradient)
            for start, stop in chunks(len(votes), asked.dim):
                gradient = gradient + state.work.asarray(votes[start:stop]) @ xp.sign(
                    asked.along(start, stop)
                )
        return super().conclude(state, asked, values, weights, gradient, symmetric)
