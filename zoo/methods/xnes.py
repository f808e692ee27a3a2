"""Exponential natural evolution strategies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dsyevd, dtrtrs

from zoo.core.bounds import Bounds
from zoo.core.device import NUMPY, Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Known, Rows
from zoo.core.validation import check_positive
from zoo.methods.es_base import ESState, EvolutionStrategy, Frame, check_tolerance, converged
from zoo.methods.es_noise import Noise, Vector, place
from zoo.updates.shaping import nes_utilities

Matrix = np.ndarray[Any, Any]

_LARGEST = 1e100  # entries of the shape, which a run that nobody stops does not go beyond


@state
class XNESState(ESState):
    """State of `XNES`.

    Attributes:
        sigma: Overall standard deviation, in units of the scale.
        shape: Square root of the covariance over sigma^2, of determinant 1, shape (dim, dim).
        first: The largest of the first deviations.
    """

    sigma: float
    shape: Matrix
    first: float


@dataclass(frozen=True)
class XNES(EvolutionStrategy):
    """Natural gradient ascent on a normal distribution with a full covariance, in exponential coordinates.

        x_i = mean + sigma B z_i,  z_i ~ N(0, I),  i = 1, ..., n
        M = sum_i u_i (z_i z_i^T - I),  t = trace(M) / dim
        mean  <- mean + learning_rate sigma B sum_i u_i z_i
        sigma <- sigma exp(sigma_rate / 2 t)
        B     <- B exp(shape_rate / 2 (M - t I))

    with the utilities u_i of `zoo.updates.shaping.nes_utilities`, which depend on the order of the values
    only and sum to 0. The matrix exponential is exact: M is the sum of a multiple of I and of a matrix of
    rank n, whose eigenvectors span what the z_i do. So a step takes 6 n dim^2 operations where n is at most
    dim / 2, some 30 dim^3 else. Computed in double precision by numpy, wherever x0 is.

    Departures from the paper: candidates are drawn in coordinates divided by `scale`; rates are at most 1, in
    one dimension; failed evaluations are left out, as if fewer had been asked for; equal values have equal
    utilities; a step that fails altogether makes sigma a tenth smaller.

    Args:
        population_size: Candidates of a step, n, at least 2; None for 4 + floor(3 log(dim)).
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        sigma: First standard deviation, in units of the `scale` that `init` is given; None for
            n / (3 sqrt(dim)), at most 1: with more, a first step of the mean would be longer than the way to
            an optimum `scale` away in each coordinate.
        learning_rate: Of the mean.
        sigma_rate: Of sigma; None for (9 + 3 log(dim)) / (5 dim sqrt(dim)).
        shape_rate: Of B; None for the same.
        tolx: The search ends when all deviations are below this many times the first; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo.core.types import Evaluations
        >>> method = XNES()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 7)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-9)
        True

    References:
        Glasmachers, Schaul, Sun, Wierstra and Schmidhuber, "Exponential natural evolution strategies", 2010.
        https://doi.org/10.1145/1830483.1830557
    """

    sigma: float | None = None
    learning_rate: float = 1.0
    sigma_rate: float | None = None
    shape_rate: float | None = None
    tolx: float = 1e-11

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigma", "sigma_rate", "shape_rate"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_tolerance("tolx", self.tolx)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> XNESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        What is known gives the first mean, its best point, and from eight points on the first deviations
        along the coordinates, those of the better half from it.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
            MemoryError: There are too many variables for a covariance.
        """
        start = np.array(to_numpy(x0), np.float64)
        sigma = self._sigma(self.sigma, len(start)) if start.ndim else 1.0
        units, mean, spread = self._begin(start, NUMPY, bounds, scale, sigma, known)
        relative = np.log(spread / units)
        sigma = math.exp(relative.mean())
        try:
            shape = np.diag(np.exp(relative) / sigma)
        except MemoryError:
            raise MemoryError(
                f"a covariance of {len(start)} variables takes {8e-9 * len(start) ** 2:.0f} GB, several "
                'times over; method="snes" keeps its diagonal only.'
            ) from None
        frame = Frame(key, Like.of(x0), NUMPY, bounds, units, budget)
        return XNESState(frame, 0, 0, mean, sigma, shape, float(spread.max()))

    def ask(self, state: XNESState) -> Rows:
        """Return the step's candidates; fewer where the budget ends."""
        frame = state.frame
        points = self._noise(state, self._count(state)).held() @ state.shape.T
        points *= state.sigma * frame.scale
        points += state.mean
        return Rows(place(points, NUMPY, frame.bounds, self.boundary, frame.like))

    def finished(self, state: XNESState) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        reason = super().finished(state)
        return reason or converged(state, lambda: self._spread(state), state.first, self.tolx)

    def _spread(self, state: XNESState) -> Vector:
        deviations: Vector = np.sqrt(np.vecdot(state.shape, state.shape))
        return deviations * (state.sigma * state.frame.scale)

    def _learn(self, state: XNESState, values: Vector, step: int, nfev: int) -> XNESState:
        dim = len(state.mean)
        rate = min(1.0, (9 + 3 * math.log(dim)) / (5 * dim * math.sqrt(dim)))
        utilities = nes_utilities(values)
        z = self._noise(state, len(values)).held()
        mean = state.shape @ (utilities @ z)
        mean *= self.learning_rate * state.sigma * state.frame.scale
        mean += state.mean
        trace = float(utilities @ np.vecdot(z, z)) / dim
        sigma = state.sigma * math.exp((self.sigma_rate or rate) / 2 * trace)
        shape = turned(state.shape, z, utilities, trace, (self.shape_rate or rate) / 2)
        if not float(abs(shape).max()) < _LARGEST:
            shape = state.shape
        return XNESState(state.frame, step, nfev, mean, held(sigma), shape, state.first)

    def _fail(self, state: XNESState, step: int, nfev: int) -> XNESState:
        sigma = held(0.9 * state.sigma)
        return XNESState(state.frame, step, nfev, state.mean, sigma, state.shape, state.first)

    def _noise(self, state: XNESState, count: int) -> Noise:
        return Noise(state.frame.key, state.step, count, len(state.mean), NUMPY, None)


def turned(shape: Matrix, z: Matrix, weights: Vector, trace: float, rate: float) -> Matrix:
    """Return B exp(rate (sum_i u_i z_i z_i^T - t I)) for weights u_i.

    With Z of rows z_i and Z Z^T = L L^T, the columns of Q = Z^T L^-T are orthonormal, and the sum is
    Q (L^T diag(u) L) Q^T. With the eigenvalues l and eigenvectors V of the matrix inside, its exponential
    is I + Q V (exp(rate l) - 1) V^T Q^T.

    Args:
        shape: B, shape (dim, dim).
        z: Shape (n, dim).
        weights: Shape (n,).
        trace: The number t.
        rate: What the exponent is multiplied by.
    """
    n, dim = z.shape
    shrink = math.exp(-rate * trace)
    if 2 * n <= dim:
        lower, info = dpotrf(z @ z.T, lower=1, clean=1)
        if info == 0:
            values, vectors, _ = dsyevd(lower.T @ (weights[:, None] * lower))
            axes = z.T @ dtrtrs(lower, vectors, lower=1, trans=1)[0]
            return shrink * (shape + ((shape @ axes) * np.expm1(rate * values)) @ axes.T)
    values, vectors, _ = dsyevd((z.T * weights) @ z)
    return ((shape @ vectors) * (shrink * np.exp(rate * values))) @ vectors.T


def held(sigma: float) -> float:
    """Return sigma held where it does not leave the range of numbers."""
    return min(max(sigma, 1e-150), 1e150)
