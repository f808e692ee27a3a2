"""Linear and quadratic models of an objective, fitted to what was evaluated.

A model is m(x) = c + g z + z' H z in coordinates z that suit the search: a step of its length is 1 in
every direction. So the fit is well conditioned whatever the shape of the objective.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dpotrs, dsyev, dtrtrs

from zoo.core.state import state
from zoo.methods.cma_base import Matrix

_BEST_WEIGHT = 20.0  # of the best point, that of the worst one being 1
_SHARE = 0.75  # of many points, those with the lowest values are enough
_FARTHEST = 1e100  # |z| whose square is a number still
_SPARE = 0.5  # of the number of coefficients, points beyond it that are used before any is left out


@state
class Model:
    """A fitted model, m(x) = base + unit (c + g z + z' H z).

    Attributes:
        kind: "linear" for H = 0, "diagonal" or "full".
        center: x where z = 0, shape (dim,).
        root: z root = x - center, upper triangular, shape (dim, dim); its diagonal alone, shape (dim,),
            where the model is not full.
        constant: c.
        gradient: g, shape (dim,).
        hessian: H, shape (dim, dim).
        base: Lowest value that it was fitted to.
        unit: Range of values that it was fitted to.
    """

    kind: str
    center: Matrix
    root: Matrix
    constant: float
    gradient: Matrix
    hessian: Matrix
    base: float
    unit: float

    def __call__(self, x: Matrix) -> Matrix:
        """Return m for points of shape (n, dim), in units of `unit` above `base`."""
        z = whiten(x - self.center, self.root)
        values: Matrix = self.gradient.dot(z)
        values += self.constant
        if self.kind != "linear":
            values += np.einsum("ij,ij->j", z, self.hessian.dot(z))
        return values


def num_coefficients(dim: int, kind: str) -> int:
    """Return how many numbers a model has."""
    return {"linear": 1 + dim, "diagonal": 1 + 2 * dim, "full": 1 + dim + dim * (dim + 1) // 2}[kind]


def fit(
    x: Matrix, values: Matrix, center: Matrix, factor: Matrix, deviations: Matrix, last: str | None = None
) -> Model:
    """Fit the richest model that the number of points bears.

    That is one with two coefficients less than there are points. A full model that is new has to do
    better than the diagonal one by generalized cross-validation, (residual / (1 - coefficients / points))^2,
    until there are twice as many points as coefficients.

    Of n points, 3/4 are used, those with the lowest values, or 1 1/2 times the number of coefficients where
    that is more. The residual of a point has the weight r / (1 + |z|^2 / dim), where r falls evenly over the
    ranks from 20 to 1.

    Args:
        x: Points, shape (n, dim), n of at least 2.
        values: Shape (n,), finite.
        center: Where z is 0.
        factor: Upper triangular; rows of z times `factor` times `deviations` are steps of the search.
        deviations: Shape (dim,).
        last: Kind of the model that was fitted before, or None.

    Returns:
        The model. Coefficients that points do not determine are near 0.
    """
    n, dim = x.shape
    order = values.argsort(kind="stable")
    x, values = x[order] - center, values[order]
    kind = next((k for k in ("full", "diagonal") if n >= num_coefficients(dim, k) + 2), "linear")
    model, error = _fit(x, values, center, factor, deviations, kind)
    if kind == "full" and last != "full" and n < 2 * num_coefficients(dim, kind):
        other, other_error = _fit(x, values, center, factor, deviations, "diagonal")
        if other_error() < error():
            return other
    return model


@functools.lru_cache(maxsize=16)
def _ranks(count: int) -> Matrix:
    """Return the weights of points by rank; not to be written to."""
    return np.linspace(_BEST_WEIGHT, 1.0, count)


@functools.lru_cache(maxsize=16)
def _places(dim: int) -> tuple[Matrix, Matrix]:
    """Return where in a full model's coefficients each entry of H is, and its share in that coefficient."""
    places = np.zeros((dim, dim), np.intp)
    places[np.triu_indices(dim)] = np.arange(dim + 1, num_coefficients(dim, "full"))
    places += np.triu(places, 1).T
    return places, 0.5 + 0.5 * np.eye(dim)


def whiten(steps: Matrix, root: Matrix) -> Matrix:
    """Return z, one column for each of the steps z root; see `Model` for the two shapes of `root`."""
    if root.ndim == 1:
        return (steps / root).T
    z: Matrix = dtrtrs(root.T, steps.T, lower=1)[0]
    return z


def _fit(
    steps: Matrix, values: Matrix, center: Matrix, factor: Matrix, deviations: Matrix, kind: str
) -> tuple[Model, Callable[[], float]]:
    """Fit one kind to points relative to `center`, best first; return a way to its error as well."""
    n, dim = steps.shape
    size = num_coefficients(dim, kind)
    used = min(n, max(size + 2 + int(_SPARE * size), int(_SHARE * (n + 1))))
    root = (
        factor * deviations if kind == "full" else deviations * np.sqrt(np.einsum("ij,ij->j", factor, factor))
    )
    z = whiten(steps[:used], root)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->j", z, z)
    if not math.isfinite(
        float(squares.sum())
    ):  # steps so small that some points are further than numbers reach
        z = np.clip(np.nan_to_num(z), -_FARTHEST, _FARTHEST)
        squares = np.einsum("ij,ij->j", z, z)

    base, unit = float(values[0]), float(values[used - 1]) - float(values[0])
    if unit < math.inf:
        y = (values[:used] - base) / (unit or 1.0)
    else:
        y, unit = values[:used] / 4 - base / 4, sys.float_info.max
        y /= y[-1]

    # Each row (1, z, z z') times its weight, from z times the root of it.
    weight = _ranks(used) / (1 + squares / dim)
    rows = _features(z, weight, kind)
    y *= weight
    normal = dsyrk(1.0, rows.T, trans=1, lower=1)
    factored = _cholesky(normal)
    found, _ = dpotrs(factored, rows.dot(y), lower=1)
    residual = y - found.dot(rows)
    correction, _ = dpotrs(factored, rows.dot(residual), lower=1)
    found += correction  # makes up for the squared condition number of the normal equations

    hessian: Matrix
    if kind == "full":
        places, halves = _places(dim)
        hessian = found.take(places)
        hessian *= halves
    else:
        hessian = np.zeros((dim, dim))
        if kind == "diagonal":
            np.einsum("ii->i", hessian)[:] = found[dim + 1 :]

    model = Model(
        kind=kind,
        center=center,
        root=root,
        constant=float(found[0]),
        gradient=found[1 : dim + 1],
        hessian=hessian,
        base=base,
        unit=unit or 1.0,
    )

    def error() -> float:
        left = y - found.dot(rows)
        mean = math.sqrt(float(left.dot(left)) / float(weight.dot(weight)))
        return model.unit * mean / (1 - size / used)

    return model, error


def minimum(
    model: Model, center: Matrix, root: Matrix, radius: float, box: tuple[Matrix, Matrix] | None = None
) -> Matrix:
    """Return the z of length `radius` at most whose x = center + z root has the least m(x).

    With a box, coordinates of x that would leave it are held at its walls, and the others found again, until
    none leaves it; z may then be longer.

    Args:
        model: The model.
        center: Inside the box, shape (dim,).
        root: Upper triangular, shape (dim, dim); need not be that of the model.
        radius: Above 0.
        box: Lower and upper walls of x, each of shape (dim,), or None.
    """
    turn = whiten(root, model.root).T
    offset = whiten((center - model.center)[None], model.root)[:, 0]
    gradient = turn.dot(model.gradient + 2 * model.hessian.dot(offset))
    hessian = turn.dot(model.hessian).dot(turn.T)
    z = _in_ball(gradient, hessian, radius)
    if box is None:
        return z
    held = np.zeros(len(center), bool)
    while True:
        x = center + z.dot(root)
        inside = np.clip(x, *box)
        beyond = (x != inside) & ~held
        if not beyond.any():
            return z
        held |= beyond
        basis, corner = np.linalg.qr(root[:, held], mode="complete")
        num_held = corner.shape[1]
        first = basis[:, :num_held].dot(np.linalg.solve(corner[:num_held].T, (inside - center)[held]))
        free = basis[:, num_held:]
        left = math.sqrt(max(0.0, radius**2 - first.dot(first)))
        within = _in_ball(free.T.dot(gradient + 2 * hessian.dot(first)), free.T.dot(hessian).dot(free), left)
        z = first + free.dot(within)


def _in_ball(gradient: Matrix, hessian: Matrix, radius: float) -> Matrix:
    """Return the z of length `radius` at most with the least g z + z' H z."""
    if radius == 0 or not len(gradient):
        return np.zeros(len(gradient))
    if not hessian.any():
        steepness = math.sqrt(gradient.dot(gradient))
        return gradient * (-radius / steepness) if steepness else np.zeros(len(gradient))
    factored, info = dpotrf(hessian, lower=1)
    if info == 0:
        z: Matrix = dpotrs(factored, -0.5 * gradient, lower=1)[0]
        if z.dot(z) <= radius**2:
            return z
    # It lies on the sphere: z = -(H + shift I)^-1 g / 2, where Newton's method on 1 / |z| finds the shift
    # from below. J. J. More and D. C. Sorensen, Computing a Trust Region Step, 1983.
    values, vectors, _ = dsyev(hessian)
    slopes = vectors.T.dot(gradient) / 2
    largest = max(float(np.abs(values).max()), float(np.abs(slopes).max()) / radius)
    shift = max(float((np.abs(slopes) / radius - values).max()), -float(values[0])) + 1e-14 * largest
    for _ in range(20):
        along = slopes / (values + shift)
        square = float(along.dot(along))
        length = math.sqrt(square)
        if length <= radius * (1 + 1e-4):
            break
        shift += square / float((along * along / (values + shift)).sum()) * (length / radius - 1)
    if length < radius and values[0] < 0:  # hardly any gradient along the most negative curvature
        rest = square - float(along[0]) ** 2
        along[0] = math.copysign(math.sqrt(max(0.0, radius**2 - rest)), along[0])
    on_sphere: Matrix = -vectors.dot(along)
    return on_sphere


def kendall(first: Matrix, second: Matrix) -> float:
    """Return Kendall's rank correlation tau-b of two rows of numbers, 0 where one of them is constant.

    Ties in either row count neither as concordant nor as discordant pairs; tau is the difference of these two
    over the geometric mean of the numbers of pairs that are not tied in the one row and in the other.

    Example:
        >>> kendall(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == 4 / 6
        True

    Source: M. G. Kendall, The Treatment of Ties in Ranking Problems, 1945.
    """
    one = np.sign(first[:, None] - first).ravel()
    other = np.sign(second[:, None] - second).ravel()
    pairs = math.sqrt(float(one.dot(one)) * float(other.dot(other)))
    return float(one.dot(other)) / pairs if pairs else 0.0


def _features(z: Matrix, weight: Matrix, kind: str) -> Matrix:
    """Return (1, z, z z') times the weight, one column for each of z."""
    dim, n = z.shape
    rows = np.empty((num_coefficients(dim, kind), n))
    rows[0] = weight
    scaled = np.multiply(z, weight, out=rows[1 : dim + 1])
    if kind == "diagonal":
        np.multiply(z, scaled, out=rows[dim + 1 :])
    elif kind == "full":
        first = dim + 1
        for i in range(dim):
            last = first + dim - i
            np.multiply(scaled[i], z[i:], out=rows[first:last])
            first = last
    return rows


def _cholesky(normal: Matrix) -> Matrix:
    """Return the factor of a matrix, given its lower triangle, raising its diagonal as far as it takes."""
    diagonal = np.einsum("ii->i", normal)
    diagonal *= 1 + 1e-14
    factored: Matrix
    factored, info = dpotrf(normal, lower=1, clean=0)
    ridge, largest = 1e-14, float(diagonal.max())
    while info:
        ridge *= 100
        diagonal += ridge * diagonal + largest * (1e-3 * ridge)
        factored, info = dpotrf(normal, lower=1, clean=0)
    return factored
