"""Estimates that vary less because something is known of the objective: control variates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.device import Array, array_module, to_numpy
from zoo.core.validation import check_choice, check_probability
from zoo.estimators.directions import Directions
from zoo.estimators.displaced import Displaced
from zoo.estimators.finite_difference import (
    FiniteDifference,
    FiniteDifferenceState,
    GradientEstimate,
    Weights,
    chunks,
    weighted_sum,
)
from zoo.estimators.wrapped import Wrapped


@dataclass(frozen=True)
class ControlVariate(FiniteDifference):
    """Finite differences of what a linear model h leaves of the objective; h is added back.

        c = 1 / n * sum_i (slope_i - h . u_i) u_i        g = h + c        h <- h + share * c

    The differences are those of f(x) - h . x, so that noise of the estimate comes from what h does not
    explain. Where E[u u^T] = I, g is as unbiased as without h, and its variance falls with the square of
    |grad f - h|: to 0 where h is the gradient of a linear function. The model costs no query.

    By default h is learned from the estimates, each of which it follows by a share. Under a steady gradient
    the best constant share is one over the estimate's second moment: n / (n + d + 1) for Gaussian directions,
    n / d for axes and orthonormal ones. With this last share h takes over the new slopes along the step's
    directions and keeps the rest, and g is SEGA's estimate.

    Args:
        share: By which share of the difference h follows an estimate, from 0 to 1; None for the best one
            under a steady gradient. With 0 it stays as `with_model` gave it.
        returns: "corrected" for g; or "memory" for the new h, with which g's variance is gone, and which is
            behind where the gradient changes. Under axes this is JAGUAR's gradient: each step replaces some
            coordinates of a stored one.

    Raises:
        ValueError: An argument is out of range.

    Example:
        A linear function whose gradient is known, by one random direction:

        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Evaluations
        >>> slopes, x = np.array([3.0, -1.0, 2.0]), np.zeros(3)
        >>> estimator = ControlVariate("gaussian", 1, smoothing=0.1)
        >>> known = estimator.with_model(estimator.init(x), slopes)
        >>> values = Evaluations(estimator.ask(known, x, Key(0), 0).rows(0, 2) @ slopes)
        >>> estimator.estimate(known, x, values, Key(0), 0)[1].gradient.round(9).tolist()
        [3.0, -1.0, 2.0]

    References:
        Hanzely, Mishchenko and Richtarik, "SEGA: variance reduction via gradient sketching", 2018.
        https://arxiv.org/abs/1809.03054
        Petrov et al., "Leveraging coordinate momentum in SignSGD and Muon: memory-optimized zero-order"
        (JAGUAR), 2025. https://arxiv.org/abs/2506.04430
    """

    share: float | None = None
    returns: str = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None:
            check_probability("share", self.share)
        check_choice("returns", self.returns, ("corrected", "memory"))
        object.__setattr__(self, "law", Modelled(self.law))

    def model(self, state: FiniteDifferenceState) -> Array:
        """Return h, shape (dim,)."""
        known: Array = state.memory[0]
        return known

    def with_model(self, state: FiniteDifferenceState, model: Any) -> FiniteDifferenceState:
        """Return a state that knows another h, shape (dim,): the gradient of a surrogate, say.

        Raises:
            ValueError: `model` is of another shape, or not finite.
        """
        known = state.work.asarray(model)
        if known.shape != state.memory[0].shape or not np.isfinite(to_numpy(known)).all():
            raise ValueError(
                f"`model` must be {len(state.memory[0])} finite numbers, one per coordinate, got {model!r}."
            )
        return dataclasses.replace(state, memory=(known, state.memory[1]))

    def conclude(
        self,
        state: FiniteDifferenceState,
        asked: Displaced,
        values: Any,
        weights: Weights,
        gradient: Array,
        symmetric: Any,
    ) -> tuple[FiniteDifferenceState, GradientEstimate]:
        if not len(weights.differences):
            return super().conclude(state, asked, values, weights, gradient, symmetric)
        model = self.model(state)
        difference = gradient - self._explained(asked, values, model)
        learned = model + self._share(asked) * difference
        gradient = learned if self.returns == "memory" else model + difference
        state, estimate = super().conclude(state, asked, values, weights, gradient, symmetric)
        return dataclasses.replace(state, memory=(learned, state.memory[1])), estimate

    def _explained(self, asked: Displaced, values: Any, model: Array) -> Array:
        """Return what this step's directions estimate the model's gradient to be."""
        along = np.empty(len(asked))
        for start, stop in chunks(len(asked), asked.dim):
            rows = asked.draw.like.asarray(asked.rows(start, stop))
            along[start:stop] = to_numpy((rows - asked.base) @ model)
        # A row that failed is missing here as there.
        weights = self.weights(asked, np.where(np.isfinite(values), along, np.nan))
        if weights.peak == 0:
            return array_module(model).zeros_like(model)
        total, _ = weighted_sum(asked, weights.coefficients / weights.peak)
        return total * weights.scale

    def _share(self, asked: Displaced) -> float:
        if self.share is not None:
            return float(self.share)
        count, size = asked.draw.count, self.law.size(asked.dim)
        perpendicular = self.law.most(asked.dim) is not None
        return min(1.0, count / size if perpendicular else count / (count + size + 1))


@dataclass(frozen=True)
class Modelled(Wrapped):
    """A law of directions beside which a linear model is remembered."""

    law: Directions

    def begin(self, x: Array) -> Array:
        return array_module(x).zeros_like(x)
