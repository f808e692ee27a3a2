"""Consensus-based sampling: particles whose noise has the shape of the swarm's own covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.consensus import noise, single, weights
from zoo.consensus.single import Swarm, check_from_zero
from zoo.consensus.swarm import STARTS, Particles, place
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_flag, check_number
from zoo.methods.population import beside

Matrix = np.ndarray[Any, Any]

MODES = ("optimization", "sampling")
ROOTS = ("auto", "particles", "triangular")


@state
class CBSState:
    """State of `CBS`.

    Attributes:
        swarm: Where the particles are, and what they have told.
    """

    swarm: Swarm


@dataclass(frozen=True)
class CBS:
    """Consensus-based sampling: for optimization, and for samples of the density exp(-f).

    With weights w_i proportional to exp(-alpha f(x_i)) that add up to 1,

        c = sum_i w_i x_i,   V = sum_i w_i (x_i - c)(x_i - c)^T,   b = exp(-dt)
        x_i  <-  c + b (x_i - c) + sqrt((1 - b^2) / s) V^(1/2) xi_i,   xi_i ~ N(0, I)

    which solves dX = -(X - c) dt + sqrt(2 V / s) dB exactly for c and V held still. Noise has the shape of
    the swarm: unlike other consensus methods this one does the same after any linear change of variables.

    * mode "optimization", s = 1: the swarm contracts where it lies about the minimum, V being narrower than
      the swarm there. alpha is chosen in each step so that the effective sample size is `sample_share` of
      the particles, unless it is given.
    * mode "sampling", s = 1 / (1 + alpha): the swarm stays as wide as exp(-f) is. Where that is a normal
      density it is kept exactly, for many particles; where it is not, the swarm becomes the normal density
      N(c, (1 + alpha) V) that repeats itself under these weights: an approximation, the nearer to Laplace's
      at the highest mode the larger alpha is. f has to be the negative logarithm of the density, up to an
      additive constant. `particles` returns the samples.

    Let a swarm that is to sample begin wide rather than narrow: one that has far to go compared with its
    width takes very many steps. As long as the effective sample size would be less than `sample_share`, alpha
    is lowered: a normal density is kept by every alpha, and a swarm that is a mean of few cannot travel. An
    alpha in `diagnostics` that is far below 1 says that it has not arrived, or that n is small for so many
    variables. Samples of several steps that lie 5 / dt apart, at least 1, may be put together.

    V^(1/2) xi needs no root of V: sum_j sqrt(w_j) (x_j - c) zeta_ij with zeta_ij ~ N(0, 1) has the same law,
    and takes n^2 dim operations. With more particles than variables, R^T xi with the triangular factor of the
    particles, sqrt(w) (x - c) = Q R, takes n dim^2, and never forms V, which would square its condition.

    A step asks for the values of all particles. Failed evaluations have weight 0; where all fail, other
    points are tried, spread alike.

    Departures from the paper: alpha is lowered in sampling as said above, and V is divided by 1 - sum_i w_i^2
    there, without which a swarm of 50 is 7 % too narrow in variance. In optimization V is taken about the
    plain mean m of the particles instead of c, so that it is wider by (c - m)(c - m)^T and a swarm grows
    along its way; and it is multiplied by 1 + 1.75 (dim / J)^2, at most 1.5, with J the effective sample
    size, since the covariance of few points is flat in some direction. Without these the swarm of the default
    narrows down before it arrives: sum x_j^2 from x_j = 3 ended at 2.4 in 2 variables, in 20 at 55.

    Args:
        num_particles: Particles; None for 10 per variable, from 20 to 1000.
        mode: "optimization" or "sampling".
        alpha: Inverse temperature; None for one that follows `sample_share`. In sampling it is an upper
            limit, None for 1, and finite.
        sample_share: Effective sample size over the number of particles, above 0 and below 1. In sampling it
            is what there is at least.
        dt: Length of a step; infinite to draw all particles anew.
        root: "particles", "triangular", or "auto" for the cheaper one of the two.
        elitist: Recommend the best point evaluated; else the consensus point, as is better under noise.
        start: Law of the first particles, "normal" or "uniform" about x0, in units of `scale`.
        tolx: Stop when all particles are within this of the consensus point, in units of `scale`, or within
            rounding; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        A posterior of two variables, correlated, and its mean and covariance from a swarm of 1000:

        >>> def energy(x):  # minus the logarithm of the density
        ...     return x[:, 0] ** 2 + 2 * (x[:, 1] - x[:, 0] - 1) ** 2
        >>> method = CBS(num_particles=1000, mode="sampling")
        >>> state = method.init(np.zeros(2), key=Key(0))
        >>> for _ in range(30):
        ...     state = method.tell(state, Evaluations(energy(method.ask(state).rows(0, 1000))))
        >>> samples = method.particles(state)
        >>> bool(np.abs(samples.mean(0) - [0, 1]).max() < 0.15)
        True
        >>> bool(np.abs(np.cov(samples.T) - [[0.5, 0.5], [0.5, 0.75]]).max() < 0.15)
        True

    Source: J. A. Carrillo, F. Hoffmann, A. M. Stuart and U. Vaes, Consensus-based sampling, 2022,
    https://arxiv.org/abs/2106.02519.
    """

    num_particles: int | None = None
    mode: str = "optimization"
    alpha: float | None = None
    sample_share: float = 0.35
    dt: float = 2.0
    root: str = "auto"
    elitist: bool = True
    start: str = "normal"
    tolx: float = 1e-12

    def __post_init__(self) -> None:
        if self.num_particles is not None:
            check_count("num_particles", self.num_particles)
        check_choice("mode", self.mode, MODES)
        if self.alpha is not None:
            check_from_zero("alpha", self.alpha, infinite=self.mode != "sampling")
        if not 0 < check_number("sample_share", self.sample_share) < 1:
            raise ValueError(f"`sample_share` must be above 0 and below 1, got {self.sample_share!r}.")
        if not check_number("dt", self.dt) > 0:
            raise ValueError(f"`dt` must be above 0, got {self.dt!r}.")
        check_choice("root", self.root, ROOTS)
        check_flag("elitist", self.elitist)
        check_choice("start", self.start, STARTS)
        check_from_zero("tolx", self.tolx)

    @property
    def recommends_evaluated(self) -> bool:
        """Whether the recommended point has been evaluated."""
        return self.elitist

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CBSState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        count = self.num_particles or min(max(20, 10 * len(x0)), 1000)
        alpha = 1.0 if self.alpha is None else float(self.alpha)
        return CBSState(single.start(x0, key, bounds, scale, budget, known, count, self.start, alpha))

    def ask(self, state: CBSState) -> Particles:
        """Return the particles; fewer where the budget ends."""
        return single.ask(state.swarm)

    def tell(self, state: CBSState, evaluations: Evaluations) -> CBSState:
        """Return the state after the values of the particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        swarm, energies = single.hear(state.swarm, evaluations)
        if not np.isfinite(energies).any():
            # Other points are tried, as many and as widely spread.
            return self._move(swarm, swarm.anchor, np.full(energies.shape, 1 / swarm.size), 1.0)
        middle = None
        if self.mode == "sampling":
            told, shift = single.gather(swarm, energies, 1.0 if self.alpha is None else float(self.alpha))
            if told.sample_size < self.sample_share * np.isfinite(energies).sum():
                alpha = single.alpha_at(energies, self.sample_share, swarm.alpha)
                told, shift = single.gather(swarm, energies, alpha)
            factor = (1 + told.alpha) / (1 - 1 / max(told.sample_size, 2.0))
        else:
            solved = self.alpha is None
            alpha = single.alpha_at(energies, self.sample_share, swarm.alpha) if solved else swarm.alpha
            told, shift = single.gather(swarm, energies, alpha)
            valid = np.isfinite(energies)
            middle = weights.weighted_sum(valid / valid.sum(), swarm.offsets)
            # The logarithms of the variances of J points fall short by dim / (2 J). To make up for all of it
            # where J is large would keep a swarm from narrowing down among many valleys.
            factor = 1 + min(0.5, 1.75 * (swarm.frame.dim / told.sample_size) ** 2)
        shares = weights.gibbs_weights(energies, told.alpha)
        return self._move(told, told.anchor + shift, shares, factor, middle)

    def _move(
        self, swarm: Swarm, anchor: Array, shares: Matrix, factor: float, middle: Array | None = None
    ) -> CBSState:
        """Return the state with all particles moved about an anchor, with factor V for a covariance.

        V is taken about the anchor, or about the offset `middle`, shape (1, dim).
        """
        away = swarm.offsets - (anchor - swarm.anchor)[:, None]
        around = away if middle is None else swarm.offsets - middle[:, None]
        kept = math.exp(-self.dt)
        width = math.sqrt((1 - kept * kept) * factor)
        moved = kept * away + width * self._noise(swarm, around, shares)
        return CBSState(single.advance(swarm, anchor, moved))

    def _noise(self, swarm: Swarm, away: Array, shares: Matrix) -> Array:
        """Return V^(1/2) xi for all particles, shape (1, n, dim)."""
        frame, size = swarm.frame, swarm.size
        factor = self._factor(away, shares)
        rank = int(factor.shape[1])
        return noise.normal(frame.keys, swarm.moves, 0, size, size, rank, frame.work) @ factor

    def _factor(self, away: Array, shares: Matrix) -> Array:
        """Return a matrix A with V = A^T A, shape (1, n, dim) or (1, min(n, dim), dim)."""
        _, size, dim = away.shape
        rows = beside(away, np.sqrt(shares)[..., None]) * away
        if self.root == "particles" or (self.root == "auto" and size < dim):
            return rows
        xp = array_module(away)
        return np.linalg.qr(rows, mode="r") if xp is np else xp.linalg.qr(rows, mode="r")[1]

    def particles(self, state: CBSState) -> Array:
        """Return where the particles are: samples of exp(-f) in mode "sampling", once they have settled.

        Returns:
            Shape (num_particles, dim), of the kind of x0.
        """
        swarm = state.swarm
        return place(swarm.frame.like, swarm.frame.bounds, swarm.anchor[0], swarm.offsets[0])

    def recommend(self, state: CBSState) -> Array:
        """Return the best point so far, or the consensus point unless `elitist`; x0 before there is any."""
        return single.recommend(state.swarm, self.elitist)

    def finished(self, state: CBSState) -> str | None:
        """Return which stopping rule holds, or None."""
        return single.finished(state.swarm, self.tolx)

    def diagnostics(self, state: CBSState) -> dict[str, Any]:
        """Return the temperature, the effective sample size, and the spread of the particles."""
        return single.report(state.swarm)
