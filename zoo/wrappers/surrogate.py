"""Local quadratic models of a value and its constraints, and the points that they propose.

Sources: M. J. D. Powell, A Direct Search Optimization Method That Models the Objective and Constraint
Functions by Linear Interpolation, 1994, https://doi.org/10.1007/978-94-015-8330-5_4 (models of all functions,
a merit function, geometry before the radius); T. M. Ragonneau, Model-Based Derivative-Free Optimization
Methods and Software, 2023, https://optimization-online.org/?p=22120 (quadratic models of all of them).
Departure: models are fitted instead of interpolated, as a method's candidates lie around the best point in
any case.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from zoo.core.state import state

Matrix = np.ndarray[Any, Any]

LARGEST_DIM = 15
"""Variables beyond which a fit takes longer than it is worth, and more points than there are."""

FIRST_RADIUS, _LEAST_RADIUS = 0.1, 1e-9
_WAKES = 1e-6  # how far a better point must be from the centre of a search that has converged
_FIT = 1.5  # points of a fit, as a multiple of its unknowns
_KEPT = 3  # points kept, as a multiple of those
_RIDGE = 1e-7  # on second derivatives, where points and values are of size 1
_MOST_CONSTRAINTS = 200  # that a step looks at


@state
class Surrogate:
    """What is known near the best point, in coordinates in which the search is about 1 wide.

    Attributes:
        points: Shape (n, dim).
        values: Shape (n,).
        constraints: What may not be above 0, shape (n, m).
        centre: The best point by the merit, shape (dim,), None before there is one.
        radius: How far from it, in each coordinate, the models are trusted.
        multipliers: Of the constraints, shape (m,), with a memory for those that were active.
        margins: By how much the models have been too low of late, shape (m,).
        sparse: Whether the last step was no good, with too few points around to blame the radius.
        proposal: What is to be evaluated, or None.
        forecast: What models say of it, shape (1 + m,), None where it is to improve the models.
        weights: Of violations in the merit, shape (m,).
        merit: At the centre.
    """

    points: Matrix
    values: Matrix
    constraints: Matrix
    centre: Matrix | None
    radius: float
    multipliers: Matrix
    margins: Matrix
    sparse: bool
    proposal: Matrix | None
    forecast: Matrix | None
    weights: Matrix
    merit: float


class _Fit(NamedTuple):
    """Quadratic models around the centre, in which a radius is 1; row 0 is the value's, then constraints."""

    constants: Matrix
    slopes: Matrix
    curvatures: Matrix

    def at(self, t: Matrix) -> Matrix:
        quadratic: Matrix = (self.curvatures @ t) @ t
        return self.constants + self.slopes @ t + 0.5 * quadratic

    def slopes_at(self, t: Matrix) -> Matrix:
        return self.slopes + self.curvatures @ t


def empty(dim: int, num_constraints: int) -> Surrogate:
    """Return a surrogate that knows nothing."""
    none = np.zeros(num_constraints)
    return Surrogate(
        points=np.empty((0, dim)),
        values=np.empty(0),
        constraints=np.empty((0, num_constraints)),
        centre=None,
        radius=FIRST_RADIUS,
        multipliers=none,
        margins=none,
        sparse=False,
        proposal=None,
        forecast=None,
        weights=none,
        merit=math.inf,
    )


def judged(surrogate: Surrogate, value: float, constraints: Matrix) -> Surrogate:
    """Return the surrogate after its proposal was evaluated, with NaN where that failed.

    A step that lowers the merit by a tenth of what was foretold is a good one, and the radius may double.
    After any other, the radius is halved, unless there are too few points around to make the models right:
    then these come first.
    """
    forecast, centre, proposal, radius = (
        surrogate.forecast,
        surrogate.centre,
        surrogate.proposal,
        surrogate.radius,
    )
    if forecast is None or centre is None or proposal is None:
        return replace(surrogate, sparse=False, proposal=None)
    gain = surrogate.merit - float(value + np.maximum(constraints, 0) @ surrogate.weights)
    foretold = surrogate.merit - float(forecast[0] + np.maximum(forecast[1:], 0) @ surrogate.weights)
    margins = np.maximum(0.3 * surrogate.margins, np.nan_to_num(constraints - forecast[1:]))
    length = float(np.abs(proposal - centre).max())
    sparse = False
    if gain > max(0.1 * foretold, 1e-15 * abs(surrogate.merit)):
        if length > radius / 2 and gain > foretold / 2:
            radius = min(2 * radius, 1.0)
    else:
        near = np.abs(surrogate.points - centre).max(1) <= 2 * radius
        sparse = int(near.sum()) < _enough(len(centre))
        if not sparse:
            radius = min(radius / 2, max(length, radius / 1000))
    return replace(surrogate, radius=radius, margins=margins, sparse=sparse, proposal=None)


def extended(surrogate: Surrogate, points: Matrix, values: Matrix, constraints: Matrix) -> Surrogate:
    """Return the surrogate with more points."""
    points = np.concatenate([surrogate.points, points])
    values = np.concatenate([surrogate.values, values])
    constraints = np.concatenate([surrogate.constraints, constraints])
    return replace(surrogate, points=points, values=values, constraints=constraints)


def proposing(surrogate: Surrogate, lower: Matrix, upper: Matrix) -> Surrogate:
    """Return the surrogate with what it wants evaluated next, None if it has converged or knows too little.

    Points far away from the best one are forgotten.

    Args:
        surrogate: The surrogate.
        lower: Lower walls of the box.
        upper: Upper walls.
    """
    surrogate = replace(_centred(surrogate), proposal=None, forecast=None)
    centre, radius = surrogate.centre, surrogate.radius
    if centre is None:
        return surrogate
    surrogate = _nearest(surrogate, centre)
    if radius < _LEAST_RADIUS:
        return surrogate
    distances = np.abs(surrogate.points - centre).max(1)
    if surrogate.sparse:
        corner = _furthest(surrogate.points[distances <= 2 * radius], centre, radius, lower, upper)
        if corner is not None:
            return replace(surrogate, proposal=corner)
    order = distances.argsort(kind="stable")[: _fitted(len(centre))]
    fit, deviations = _fit(surrogate, order, distances[order])
    low, high = np.maximum((lower - centre) / radius, -1), np.minimum((upper - centre) / radius, 1)
    t, multipliers = _step(fit, surrogate.margins / deviations[1:], low, high)
    proposal = np.clip(centre + radius * t, lower, upper)
    if (surrogate.points == proposal).all(1).any():
        return replace(surrogate, radius=radius / 10)
    multipliers = np.maximum(0.9 * surrogate.multipliers, multipliers * deviations[0] / deviations[1:])
    return replace(surrogate, proposal=proposal, forecast=fit.at(t) * deviations, multipliers=multipliers)


def _unknowns(dim: int) -> int:
    return (dim + 1) * (dim + 2) // 2


def _fitted(dim: int) -> int:
    return math.ceil(_FIT * _unknowns(dim)) + 2


def _enough(dim: int) -> int:
    """Return how many points around the centre make a failure the radius's fault."""
    return min(2 * dim + 1, _unknowns(dim))


def _centred(surrogate: Surrogate) -> Surrogate:
    """Return the surrogate with weights for violations, and the best point by them as its centre."""
    points, values, constraints = surrogate.points, surrogate.values, surrogate.constraints
    if len(points) < points.shape[1] + 2:
        return surrogate
    spread = constraints.std(0)
    spread = np.where(spread > 0, spread, np.maximum(abs(constraints[0]), 1.0))
    weights = np.maximum(2 * surrogate.multipliers, 0.1 * values.std() / spread)
    merits = values + np.maximum(constraints, 0) @ weights
    best = int(merits.argmin())
    centre, radius = points[best], surrogate.radius
    if surrogate.centre is not None:
        moved = float(np.abs(centre - surrogate.centre).max())
        if moved > max(radius, _WAKES):
            radius = max(radius, min(moved, FIRST_RADIUS))
    return replace(surrogate, centre=centre, radius=radius, weights=weights, merit=float(merits[best]))


def _nearest(surrogate: Surrogate, centre: Matrix) -> Surrogate:
    """Return the surrogate with no more points than are kept."""
    kept = _KEPT * _fitted(len(centre))
    if len(surrogate.points) <= kept:
        return surrogate
    near = np.sort(np.abs(surrogate.points - centre).max(1).argsort(kind="stable")[:kept])
    return replace(
        surrogate,
        points=surrogate.points[near],
        values=surrogate.values[near],
        constraints=surrogate.constraints[near],
    )


def _furthest(near: Matrix, centre: Matrix, radius: float, lower: Matrix, upper: Matrix) -> Matrix | None:
    """Return the point, one radius from the centre along an axis, that is furthest from those there are."""
    axes = radius * np.eye(len(centre))
    ends = np.clip(np.concatenate([centre + axes, centre - axes]), lower, upper)
    gaps = np.abs(ends[:, None] - near).max(2).min(1)
    best = int(gaps.argmax())
    return ends[best] if gaps[best] > 0.3 * radius else None


def _fit(surrogate: Surrogate, order: Matrix, distances: Matrix) -> tuple[_Fit, Matrix]:
    """Return models through the centre, of standardized values, and the deviations that these are in.

    Least squares, in which points count less the further they are outside the radius, with a ridge that is
    for the second derivatives what a minimum norm is for interpolation.
    """
    assert surrogate.centre is not None
    dim, radius = surrogate.points.shape[1], surrogate.radius
    reach = max(float(distances[-1]), 1e-300)
    z = (surrogate.points[order] - surrogate.centre) / reach
    targets = np.column_stack([surrogate.values, surrogate.constraints])[order]
    deviations = targets.std(0)
    deviations[deviations == 0] = 1.0
    here = targets[0].copy()
    targets = (targets - here) / deviations
    i, j = np.triu_indices(dim)
    features = np.concatenate([np.ones((len(z), 1)), z, z[:, i] * z[:, j] * np.where(i == j, 0.5, 1.0)], 1)
    share = max(radius / reach, 1e-8)
    trust = ((share / (share + distances / reach)) ** 2)[:, None]
    ridge = np.concatenate([[1e-12], np.full(dim, 1e-10), np.full(len(i), _RIDGE)])
    matrix = np.concatenate([features * trust, np.diag(np.sqrt(ridge))])
    wanted = np.concatenate([targets * trust, np.zeros((len(ridge), targets.shape[1]))])
    q, r = np.linalg.qr(matrix)
    found = np.linalg.solve(r, q.T @ wanted)
    zoom = radius / reach
    slopes = zoom * found[1 : 1 + dim].T
    curvatures = np.zeros((targets.shape[1], dim, dim))
    curvatures[:, i, j] = curvatures[:, j, i] = zoom * zoom * found[1 + dim :].T
    return _Fit(here / deviations, slopes, curvatures), deviations


def _step(fit: _Fit, margins: Matrix, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix]:
    """Return where the model of the value is least within the box and the constraints, and multipliers there.

    Where constraints leave nothing of the box, they are relaxed by as little as it takes.
    """
    reached = fit.constants[1:] + np.abs(fit.slopes[1:]).sum(1) + np.abs(fit.curvatures[1:]).sum((1, 2)) / 2
    some = np.flatnonzero(reached + margins > 0)
    some = some[np.argsort(-reached[some], kind="stable")[:_MOST_CONSTRAINTS]]
    sizes = np.maximum(np.abs(fit.slopes[1:][some]).sum(1), 1e-300)
    cut = _Fit(*(np.concatenate([part[:1], part[1:][some]]) for part in fit))
    size = float(np.abs(cut.slopes[0]).sum() + np.abs(cut.curvatures[0]).sum()) or 1.0

    def value(t: Matrix) -> float:
        return float(cut.at(t)[0]) / size

    def slope(t: Matrix) -> Matrix:
        return cut.slopes_at(t)[0] / size

    def room(t: Matrix) -> Matrix:
        return -(cut.at(t)[1:] + margins[some]) / sizes

    def room_slope(t: Matrix) -> Matrix:
        return -cut.slopes_at(t)[1:] / sizes[:, None]

    start, relaxed = np.zeros(len(low)), 0.0
    if not len(some):
        return _minimised(value, slope, start, low, high), np.zeros(len(margins))
    t = _minimised(value, slope, start, low, high, room, room_slope)
    if room(t).min() < -1e-6:
        first = _relaxed(room, room_slope, low, high)
        before, least = (max(0.0, -float(room(at).min())) for at in (start, first))
        relaxed = least + 0.01 * max(before - least, 0.0) + 1e-9
        t = _minimised(value, slope, first, low, high, lambda t: room(t) + relaxed, room_slope)
        if room(t).min() < -relaxed - 1e-6:
            t = first
    multipliers = np.zeros(len(margins))
    active = room(t) < 1e-6 - relaxed
    free = (t > low + 1e-9) & (t < high - 1e-9)
    if active.any() and free.any():
        from zoo.wrappers.merit import nonnegative

        slopes = cut.slopes_at(t)[:, free]
        multipliers[some[active]] = nonnegative(slopes[1:][active].T, -slopes[0])
    return t, multipliers


def _relaxed(room: Any, room_slope: Any, low: Matrix, high: Matrix) -> Matrix:
    """Return where in the box the largest violation is least."""
    dim = len(low)
    worst = max(0.0, -float(room(np.zeros(dim)).min()))
    last = np.concatenate([np.zeros(dim), [1.0]])
    found = _minimised(
        lambda y: float(y @ last),
        lambda y: last + 0 * y,
        np.concatenate([np.zeros(dim), [worst]]),
        np.concatenate([low, [0.0]]),
        np.concatenate([high, [max(2 * worst, 1.0)]]),
        lambda y: room(y[:-1]) + y[-1],
        lambda y: np.column_stack([room_slope(y[:-1]), np.ones(len(room(y[:-1])))]),
    )
    return found[:-1]


def _minimised(
    value: Any,
    slope: Any,
    start: Matrix,
    low: Matrix,
    high: Matrix,
    room: Any = None,
    room_slope: Any = None,
) -> Matrix:
    from scipy.optimize import minimize

    constraints = () if room is None else {"type": "ineq", "fun": room, "jac": room_slope}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = minimize(
            value,
            np.clip(start, low, high),
            jac=slope,
            bounds=np.column_stack([low, high]),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": 60, "ftol": 1e-14},
        ).x
    return np.clip(np.where(np.isfinite(found), found, 0.0), low, high)
