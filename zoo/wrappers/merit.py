"""One number in the place of a value and its constraints, for methods that can use no more than that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.core.state import state

Matrix = np.ndarray[Any, Any]

_ROWS = 4  # evaluations from which moments are worth something
_MEMORY = 2.0  # evaluations that moments remember, as a multiple of what a regression has unknowns
_FLOOR = 0.03  # least share of the values' deviation that penalties are to match
_FASTEST = 0.5  # by how much the logarithm of a penalty changes in a step
_REACH = 2.0  # deviations within which a constraint may be active
_GROW, _SHRINK, _WIDEST = 0.1, 0.7, 3.0  # of the margin, and what it may be
_TINY = 1e-300
_OUTSIDE, _LEAST, _MOST = 1e200, 1e-90, 1e90  # where violations lie among the values
_HIGHEST = 1e300


@state
class Lagrangian:
    """An augmented Lagrangian that adapts itself.

    Attributes:
        block: Values and constraints that are too few yet to learn from, shape (k, 1 + m).
        moments: Covariance of the value and the constraints over the last steps, None before the first.
        multipliers: Shape (m,).
        penalties: Their logarithms, shape (m,).
        margin: By how many deviations of a step it keeps inside.
    """

    block: Matrix
    moments: Matrix | None
    multipliers: Matrix
    penalties: Matrix
    margin: float


def ordered(values: Matrix, constraints: Matrix) -> Matrix:
    """Return values of which a lower one is always better: those inside first, then by the violation.

    Args:
        values: Shape (n,), NaN where failed.
        constraints: Shape (n, m).

    Returns:
        Values as they are inside; outside, 10^200 times the sum of the violations, so that no value lies
        in between, and no violation is lost in rounding.

    Source: K. Deb, An Efficient Constraint Handling Method for Genetic Algorithms, 2000,
    https://doi.org/10.1016/S0045-7825(99)00389-8.
    """
    violation = np.maximum(constraints, 0.0).sum(1)
    outside = _OUTSIDE * violation.clip(_LEAST, _MOST)
    inside = values.clip(-_MOST, _MOST)
    return np.where(np.isnan(values), np.nan, np.where(violation > 0, outside, inside))


def penalty_weights(values: Matrix, constraints: Matrix) -> Matrix:
    """Return weights by which `penalized` adds violations to values, judged by the first values there are.

    Ten times the deviation of the values for one of the constraint; where there are fewer than four, ten
    times one size for the other.
    """
    measure = np.std if len(values) >= _ROWS else (lambda x, axis=None: abs(x).mean(axis))
    size, sizes = float(measure(values)), measure(constraints, axis=0)
    return np.where(sizes > 0, 10 * (size or 1.0) / np.where(sizes > 0, sizes, 1.0), 10 * (size or 1.0))


def penalized(weights: Matrix, values: Matrix, constraints: Matrix) -> Matrix:
    """Return values + violations @ weights; NaN where a value is."""
    with np.errstate(over="ignore"):
        return _finite(values + np.maximum(constraints, 0.0) @ weights, np.isfinite(values))


def begin(num_constraints: int) -> Lagrangian:
    """Return a Lagrangian that knows nothing."""
    none = np.zeros(num_constraints)
    return Lagrangian(np.empty((0, 1 + num_constraints)), None, none, none, 0.0)


def learned(lagrangian: Lagrangian, values: Matrix, constraints: Matrix) -> Lagrangian:
    """Return the Lagrangian after a step with these values and constraints, all finite."""
    inside = bool((constraints <= 0).all(1).any())
    margin = _SHRINK * lagrangian.margin if inside else min(lagrangian.margin + _GROW, _WIDEST)
    block = np.concatenate([lagrangian.block, np.column_stack([values, constraints])])
    if len(block) < _ROWS:
        return replace(lagrangian, block=block, margin=margin)
    centred = block - block.mean(0)
    moments, old = centred.T @ centred / len(block), lagrangian.moments
    if old is not None:
        share = min(1.0, (len(block) - 1) / (_MEMORY * (constraints.shape[1] + 2)))
        # Steps have become shorter or longer since: what was learned is brought to the size of now.
        ratios = moments.diagonal()[1:] / np.maximum(old.diagonal()[1:], _TINY)
        moments = (1 - share) * float(ratios.mean().clip(1e-8, 1e8)) * old + share * moments
    deviations = np.sqrt(np.maximum(moments.diagonal(), _TINY))
    multipliers = _multipliers(moments, deviations, block[:, 1:].mean(0))
    weights = np.concatenate([[1.0], multipliers])
    rest = math.sqrt(max(float(weights @ moments @ weights), 0.0))
    rest = max(rest, _FLOOR * float(deviations[0]), _TINY)
    penalties = math.log(rest) - 2 * np.log(deviations[1:])
    if old is not None:
        change = penalties - lagrangian.penalties
        penalties = lagrangian.penalties + change.clip(-_FASTEST, _FASTEST)
    return Lagrangian(block[:0], moments, multipliers, penalties, margin)


def told(lagrangian: Lagrangian, values: Matrix, constraints: Matrix) -> Matrix:
    """Return what stands for values and constraints of a step; NaN where a value is."""
    if lagrangian.moments is None:
        return ordered(values, constraints)
    valid = np.isfinite(values)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        multipliers, penalties = lagrangian.multipliers, np.exp(lagrangian.penalties)
        shifted = constraints + lagrangian.margin * constraints[valid].std(0)
        active = shifted * (multipliers + 0.5 * penalties * shifted)
        inactive = -(multipliers**2) / (2 * penalties)
        terms = np.where(multipliers + penalties * shifted >= 0, active, inactive)
        return _finite(values + terms.sum(1), valid)


def nonnegative(matrix: Matrix, target: Matrix) -> Matrix:
    """Return the x >= 0 that makes |A x - b| least; 0 where that cannot be found."""
    from scipy.optimize import nnls

    try:
        found: Matrix = nnls(matrix, target)[0]
    except RuntimeError:  # it has gone round in circles
        found = np.zeros(matrix.shape[1])
    return found


def _finite(values: Matrix, valid: Matrix) -> Matrix:
    """Return values as finite numbers where they are to be, NaN elsewhere."""
    return np.where(valid, np.nan_to_num(values, nan=_HIGHEST, posinf=_HIGHEST, neginf=-_HIGHEST), np.nan)


def _multipliers(moments: Matrix, deviations: Matrix, mean: Matrix) -> Matrix:
    """Return the multipliers >= 0 that make the variance of the Lagrangian least, for constraints nearby."""
    multipliers = np.zeros(len(mean))
    near = np.flatnonzero(mean > -_REACH * deviations[1:])
    if len(near):
        correlations = moments / np.outer(deviations, deviations)
        matrix = correlations[1:, 1:][np.ix_(near, near)] + 1e-10 * np.eye(len(near))
        factor = np.linalg.cholesky(matrix)
        target = np.linalg.solve(factor, -correlations[0, 1:][near])
        multipliers[near] = nonnegative(factor.T, target) * deviations[0] / deviations[1:][near]
    return multipliers
