"""Constraints for methods that know nothing of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer

Matrix = np.ndarray[Any, Any]

_ROWS = 4  # evaluations from which moments are worth something
_MEMORY = 2.0  # evaluations that moments remember, as a multiple of what a regression has unknowns
_FLOOR = 0.03  # least share of the values' deviation that penalties are to match
_FASTEST = 0.5  # by how much the logarithm of a penalty changes in a step
_REACH = 2.0  # deviations within which a constraint may be active
_INSIDE = (0.1, 0.7, 3.0)  # how the margin grows, shrinks, and what it may be
_TINY = 1e-300
_OUTSIDE, _LEAST, _MOST = 1e200, 1e-90, 1e90  # where violations lie among the values


@state
class ConstrainedState:
    """Where a constrained search is.

    Attributes:
        inner: State of the method.
        block: Values and constraints of the last evaluations, which are too few yet, shape (k, 1 + m).
        moments: Covariance of the value and the constraints over the last steps, shape (1 + m, 1 + m).
        multipliers: Shape (m,).
        penalties: Logarithms, shape (m,).
        margin: By how many deviations the method is told to keep off the constraints.
    """

    inner: Any
    block: Matrix
    moments: Matrix
    multipliers: Matrix
    penalties: Matrix
    margin: float


@dataclass(frozen=True, eq=False)
class Constrained:
    """Turn values and constraints into one value that a method can go by.

    Args:
        optimizer: The method.
    """

    optimizer: Optimizer[Any]

    @property
    def recommends_evaluated(self) -> bool:
        """As of the method."""
        return self.optimizer.recommends_evaluated

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ConstrainedState:
        inner = self.optimizer.init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known)
        none = np.empty(0)
        return ConstrainedState(inner, np.empty((0, 0)), np.empty((0, 0)), none, none, 0.0)

    def ask(self, state: ConstrainedState) -> Candidates:
        return self.optimizer.ask(state.inner)

    def tell(self, state: ConstrainedState, evaluations: Evaluations) -> ConstrainedState:
        values, constraints = _split(evaluations)
        if constraints is None:
            inner = self.optimizer.tell(state.inner, Evaluations(values, evaluations.failures))
            return replace(state, inner=inner)
        if getattr(self.optimizer, "compares_within_steps", False):
            state = _learned(state, values, constraints)
            told = _lagrangian(state, values, constraints)
        else:
            told = _ordered(values, constraints)
        inner = self.optimizer.tell(state.inner, Evaluations(told, evaluations.failures))
        return replace(state, inner=inner)

    def recommend(self, state: ConstrainedState) -> Array:
        return self.optimizer.recommend(state.inner)

    def finished(self, state: ConstrainedState) -> str | None:
        return self.optimizer.finished(state.inner)

    def diagnostics(self, state: ConstrainedState) -> dict[str, Any]:
        """Return the method's, and multipliers and penalties where there are any."""
        own: dict[str, Any] = {}
        if len(state.multipliers):
            own = {"multipliers": state.multipliers.copy(), "penalties": np.exp(state.penalties)}
        return {**self.optimizer.diagnostics(state.inner), **own}


def _split(evaluations: Evaluations) -> tuple[Matrix, Matrix | None]:
    """Return values, NaN where a constraint is unknown, and the constraints, None if all have failed.

    Raises:
        ValueError: There are values, but no constraints.
    """
    values, constraints = evaluations.values, evaluations.extras.get("constraints")
    if constraints is None or not constraints.shape[1]:
        if np.isfinite(values).any():
            raise ValueError(
                '`evaluations` must hold extras["constraints"], as there are values: the objective returned '
                "none."
            )
        return values, None
    constraints = constraints.clip(-_MOST, _MOST)
    values = np.where(np.isnan(constraints).any(1), np.nan, values)
    return values, constraints if np.isfinite(values).any() else None


def _ordered(values: Matrix, constraints: Matrix) -> Matrix:
    """Return values of which a lower one is always better: those inside first, then by the violation."""
    violation = np.maximum(constraints, 0.0).sum(1)
    outside = _OUTSIDE * violation.clip(_LEAST, _MOST)
    return np.where(np.isnan(values), np.nan, np.where(violation > 0, outside, values))


def _learned(state: ConstrainedState, values: Matrix, constraints: Matrix) -> ConstrainedState:
    valid = np.isfinite(values)
    rows = np.column_stack([values, constraints])[valid]
    count = constraints.shape[1]
    if not len(state.moments):
        state = replace(state, multipliers=np.zeros(count), penalties=np.full(count, -math.inf))
        state = replace(state, block=np.empty((0, 1 + count)))
    inside = bool((rows[:, 1:] <= 0).all(1).any())
    grow, shrink, most = _INSIDE
    margin = shrink * state.margin if inside else min(state.margin + grow, most)
    state = replace(state, margin=margin, block=np.concatenate([state.block, rows]))
    if len(state.block) < _ROWS:
        return state
    block = state.block
    centred = block - block.mean(0)
    fresh = centred.T @ centred / len(block)
    moments = fresh
    if len(state.moments):
        share = min(1.0, (len(block) - 1) / (_MEMORY * (count + 2)))
        spread = np.maximum(state.moments.diagonal()[1:], _TINY)
        scale = float(np.clip((fresh.diagonal()[1:] / spread).mean(), 1e-8, 1e8))
        moments = (1 - share) * scale * state.moments + share * fresh
    deviations = np.sqrt(np.maximum(moments.diagonal(), _TINY))
    multipliers = _regressed(moments, deviations, block[:, 1:].mean(0))
    weights = np.concatenate([[1.0], multipliers])
    rest = math.sqrt(max(float(weights @ moments @ weights), 0.0))
    rest = max(rest, _FLOOR * float(deviations[0]), _TINY)
    wanted = np.log(rest) - 2 * np.log(deviations[1:])
    penalties = np.where(
        np.isfinite(state.penalties),
        state.penalties + (wanted - state.penalties).clip(-_FASTEST, _FASTEST),
        wanted,
    )
    return replace(state, block=block[:0], moments=moments, multipliers=multipliers, penalties=penalties)


def _regressed(moments: Matrix, deviations: Matrix, mean: Matrix) -> Matrix:
    from scipy.optimize import nnls

    multipliers = np.zeros(len(mean))
    near = mean > -_REACH * deviations[1:]
    if not near.any():
        return multipliers
    correlations = moments / np.outer(deviations, deviations)
    matrix = correlations[1:, 1:][np.ix_(near, near)] + 1e-10 * np.eye(int(near.sum()))
    factor = np.linalg.cholesky(matrix)
    target = np.linalg.solve(factor, -correlations[0, 1:][near])
    try:
        found, _ = nnls(factor.T, target)
    except RuntimeError:
        return multipliers
    multipliers[near] = found * deviations[0] / deviations[1:][near]
    return multipliers


def _lagrangian(state: ConstrainedState, values: Matrix, constraints: Matrix) -> Matrix:
    if not len(state.moments):
        return _ordered(values, constraints)
    penalties = np.exp(state.penalties)
    shifted = constraints
    if state.margin:
        valid = np.isfinite(values)
        shifted = constraints + state.margin * constraints[valid].std(0)
    pull = state.multipliers + penalties * shifted
    inactive = -(state.multipliers**2) / (2 * penalties)
    terms = np.where(pull >= 0, state.multipliers * shifted + 0.5 * penalties * shifted * shifted, inactive)
    told: Matrix = values + terms.sum(1)
    return told
