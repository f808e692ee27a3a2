"""Estimates that vary less because something is known of the objective: control variates."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.state import state
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


@dataclass(frozen=True, eq=False)
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
        model: What h is at first, shape (dim,): the gradient of a surrogate, say; None for zeros.
        share: By which share of the difference h follows an estimate, from 0 to 1; None for the best one
            under a steady gradient, 0 for a model that is given and stays.
        returns: "corrected" for g; or "memory" for the new h, with which g's variance is gone, and which is
            behind where the gradient changes. Under axes this is JAGUAR's gradient: each step replaces some
            coordinates of a stored one.

    Parameters of a network that are of half precision move by what rounding leaves of a direction, and the
    model is taken along the same: all coordinates are rounded as the coarsest parameters are, so that among
    parameters of several dtypes some noise remains.

    Raises:
        ValueError: An argument is out of range, or `model` is no row of finite numbers, one per coordinate.

    Example:
        A linear function whose gradient is known, by one random direction:

        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Evaluations
        >>> slopes, x = np.array([3.0, -1.0, 2.0]), np.zeros(3)
        >>> estimator = ControlVariate("gaussian", 1, smoothing=0.1, model=slopes)
        >>> state = estimator.init(x)
        >>> values = Evaluations(estimator.ask(state, x, Key(0), 0).rows(0, 2) @ slopes)
        >>> estimator.estimate(state, x, values, Key(0), 0)[1].gradient.round(9).tolist()
        [3.0, -1.0, 2.0]

    References:
        Hanzely, Mishchenko and Richtarik, "SEGA: variance reduction via gradient sketching", 2018.
        https://arxiv.org/abs/1809.03054
        Petrov et al., "Leveraging coordinate momentum in SignSGD and Muon: memory-optimized zero-order"
        (JAGUAR), 2025. https://arxiv.org/abs/2506.04430
    """

    model: Array | None = field(default=None, repr=False)
    share: float | None = None
    returns: str = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None:
            check_probability("share", self.share)
        check_choice("returns", self.returns, ("corrected", "memory"))
        if self.model is not None:
            model = to_numpy(self.model)
            is_real = model.dtype.kind in "fiu"
            if model.ndim != 1 or not is_real or not np.isfinite(model.astype(np.float64)).all():
                raise ValueError(f"`model` must be a row of finite numbers, got {self.model!r}.")
        object.__setattr__(self, "law", Modelled(self.law, self.model))

    def init(
        self, x: Array, *, bounds: Bounds | None = None, scale: Any = 1.0, coarsest: str | None = None
    ) -> FiniteDifferenceState:
        state = super().init(x, bounds=bounds, scale=scale, coarsest=coarsest)
        known, inner = state.memory
        return dataclasses.replace(state, memory=(dataclasses.replace(known, rounded=coarsest), inner))

    def known(self, state: FiniteDifferenceState) -> Array:
        """Return h, shape (dim,)."""
        model: Array = state.memory[0].model
        return model

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
        model, rounded = self.known(state), state.memory[0].rounded
        evaluated = asked if rounded is None else _rounded(asked, rounded)
        difference = gradient - self._explained(evaluated, values, model)
        learned = model + self._share(asked) * difference
        gradient = learned if self.returns == "memory" else model + difference
        state, estimate = super().conclude(state, asked, values, weights, gradient, symmetric)
        return dataclasses.replace(state, memory=(Known(learned, rounded), state.memory[1])), estimate

    def _explained(self, asked: Displaced, values: Any, model: Array) -> Array:
        """Return what this step's directions estimate the model's gradient to be."""
        parts = [
            (asked.draw.like.asarray(asked.rows(start, stop)) - asked.base) @ model
            for start, stop in chunks(len(asked), asked.dim)
        ]
        along = to_numpy(array_module(model).concatenate(parts)).astype(np.float64)
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


@state
class Known:
    """What is remembered.

    Attributes:
        model: h, shape (dim,).
        rounded: Name of the dtype that points are rounded to where they are evaluated; None for their own.
    """

    model: Array
    rounded: str | None


def _rounded(asked: Displaced, dtype: str) -> Displaced:
    """Return the same candidates, rounded to another dtype."""
    other = copy.copy(asked)
    other.rows_like = Like(asked.rows_like.kind, dtype, asked.rows_like.device)
    return other


@dataclass(frozen=True, eq=False)
class Modelled(Wrapped):
    """A law of directions beside which a linear model is remembered."""

    law: Directions
    model: Array | None = field(default=None, repr=False)

    def begin(self, x: Array) -> Known:
        if self.model is None:
            return Known(array_module(x).zeros_like(x), None)
        if len(self.model) != len(x):
            raise ValueError(f"`model` must have one entry per coordinate, {len(x)}, got {len(self.model)}.")
        return Known(Like.of(x).asarray(self.model), None)
