"""Polarized consensus-based optimization: a consensus point for each particle, and several minima."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from zoo.consensus import dynamics, guard, noise, weights
from zoo.consensus.swarm import STARTS, Frame, begin, place, scatter
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_number,
    check_positive,
    check_probability,
)
from zoo.methods.population import CHECK_EVERY, beside, check_told

Matrix = np.ndarray[Any, Any]

SCHEDULES = ("constant", "multiply", "effective-sample-size")
_REACH = 1e4  # units of scale from its consensus point, which no particle goes beyond
_BLOCK = 2**18  # weights held at once: they stay in the processor's cache
_DEVICE_BLOCK = 2**26  # the same on a device, which wants more to do at a time
_MOST = 200  # particles by default
_TRIES = 10  # beside two for each variable, that have to fail where a minimum is
_LARGEST = np.finfo(np.float64).max / 4  # of a finite exponent: two of them can be added
_HOTTEST = 1e300  # stands for an infinite alpha: 0 times it is 0


@state
class PolarizedState:
    """State of `PolarizedCBO`.

    Attributes:
        frame: What the swarm was begun with.
        step: Steps told.
        nfev: Evaluations told.
        moves: Times that particles have moved.
        unit: What energies are measured in; 0 before any is known.
        points: Where particles are, shape (n, dim), float64.
        memory: The best points that they have been at, shape (n, dim).
        remembered: Values there, infinite where there is none yet, shape (n,).
        consensus: Their consensus points of the last step, shape (n, dim); x0 before there are any.
        alpha: Inverse temperature, in units of 1 / `unit`.
        sample_sizes: Effective sample sizes of the consensus points, shape (n,).
        num_minima: How many there were when they were counted last.
        failures: How often particles have tried another place since they last found a better one, (n,).
    """

    frame: Frame
    step: int
    nfev: int
    moves: int
    unit: float
    points: Array
    memory: Array
    remembered: Matrix
    consensus: Array
    alpha: float
    sample_sizes: Array
    num_minima: int
    failures: Array


class Minima(NamedTuple):
    """Several minima, the best one first.

    Attributes:
        x: Shape (k, dim).
        fun: Their values, shape (k,).
    """

    x: Array
    fun: Matrix


@dataclass(frozen=True)
class PolarizedCBO:
    """Polarized consensus-based optimization: particles agree with those near them, on several minima.

    Particle i moves about a consensus point of its own, in which those near it count for more:

        c_i  =  sum_j k_ij w_j x_j / sum_j k_ij w_j,    w_j = exp(-alpha f_j / u),
        k_ij =  exp(-|x_i - x_j|^2 / (2 kappa^2)),      distances in units of `scale`,
        x_i  <- c_i + (x_i - c_i) (1 - drift dt + sigma sqrt(dt) xi_i),

    with xi_i standard normal in each coordinate. With kappa = inf this is `CBO`. With a small one, particles
    gather at the minima of the valleys that they are in, and a valley keeps its particles as long as alpha
    times what it is worse by than another does not make up for the distance to that. A step of n particles
    takes about n^2 d operations, in products of matrices, and holds the weights of some rows at once.

    Where the minima are is read off the best points that the particles have been at: a point is a minimum if
    no better one is within kappa / 2 of it, if it has company, and if the particles there, within kappa / 10,
    have tried other places 10 + 2 d times since they last found a better one. The best point of all is the
    first in any case. They are `result.minima` of `zoo.minimize` (`x` and `fun`), `num_minima` in the log,
    and `minima` here. Nothing is evaluated for that, so their values are those that were found there.

    Particles do not go far: give bounds, or a scale with which the minima are where particles start. From 0
    with a scale of 1 and 10,000 evaluations they find none of the four minima of Himmelblau's function, which
    are 3.6 to 5 away, or one; with a scale of 3 all.

    Args:
        num_particles: How many; None for 200, or a fortieth of the budget if that is less.
        kappa: Width of the kernel, in units of `scale`, also infinite; None for 2 sqrt(d) n^(-1/d) with d the
            number of variables (but 2 in the exponent if there is one): about twice the distance to a
            particle's nearest neighbour at the start.
        kernel_alpha: Whether alpha multiplies the exponent of the kernel too, as CBXpy has it by default: c_i
            then tends to the particle that minimises f_j / u + |x_i - x_j|^2 / (2 kappa^2).
        drift: Strength of the pull to the consensus point.
        sigma: Strength of the noise; sigma sqrt(dt) must be at most 1.5.
        dt: Length of a time step.
        alpha: Inverse temperature, in units of 1 / u, also infinite.
        energy_unit: u; None for the difference between the median and the least value of the first step, with
            which a search for a f + b is the same as one for f.
        alpha_schedule: "constant"; "multiply", by `alpha_rate` in each step; or "effective-sample-size", at
            which the weights w_j without the kernel have that of `sample_share` of the particles.
        alpha_rate: What "multiply" multiplies alpha by.
        max_alpha: Where "multiply" ends.
        sample_share: Effective sample size over particles that is aimed at, above 0 and below 1.
        noise: "anisotropic", each coordinate by its own distance, or "isotropic", by the whole one.
        integrator: "euler-maruyama" or "exponential", which is exact for a still c_i.
        memory: "greedy", where the x_i and x_j on the right are the best points that particles have been at,
            or "none", as in the paper.
        num_coordinates: How many coordinates of a particle move in a step, on average; the others stay where
            they are. None for all.
        explorers: Probability of a particle to move otherwise: from where it is by `explorer_scale` times a
            normal number, in one coordinate.
        explorer_scale: How far, in units of `scale`.
        start: "normal" or "uniform", around x0; uniform in the box in any case where there is one.
        tolx: The search ends when all particles are this near to their consensus points, in units of `scale`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Note:
        The paper has neither memory nor explorers, moves all coordinates, and takes f as it is: that is
        `memory="none", explorers=0, num_coordinates=None, energy_unit=1`. Without a memory minima merge
        unless kappa is small, since a valley is lost when its last particle leaves. With a memory, particles
        of more than three variables that moved in all of them at once would hardly ever improve.

    Example:
        >>> import zoo
        >>> himmelblau = lambda x: (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2
        >>> found = zoo.minimize(
        ...     himmelblau, bounds=[(-5, 5)] * 2, method="cbo-polarized", budget=10_000, rng=0
        ... ).minima
        >>> len(found.x), bool(found.fun.max() < 0.01)
        (4, True)

    Source: L. Bungert, T. Roith and P. Wacker, Polarized consensus-based dynamics for optimization and
    sampling, 2024, https://doi.org/10.1007/s10107-024-02095-y.
    """

    num_particles: int | None = None
    kappa: float | None = None
    kernel_alpha: bool = False
    drift: float = 1.0
    sigma: float = 8.0
    dt: float = 0.01
    alpha: float = 10.0
    energy_unit: float | None = None
    alpha_schedule: str = "constant"
    alpha_rate: float = 1.05
    max_alpha: float = 1e15
    sample_share: float = 0.2
    noise: str = "anisotropic"
    integrator: str = "euler-maruyama"
    memory: str = "greedy"
    num_coordinates: int | None = 3
    explorers: float = 0.2
    explorer_scale: float = 0.1
    start: str = "normal"
    tolx: float = 1e-10

    recommends_evaluated = True

    def __post_init__(self) -> None:
        if self.num_particles is not None:
            check_count("num_particles", self.num_particles)
        if self.kappa is not None and not check_number("kappa", self.kappa) > 0:
            raise ValueError(f"`kappa` must be above 0, got {self.kappa!r}.")
        check_flag("kernel_alpha", self.kernel_alpha)
        for name in ("drift", "dt", "alpha_rate"):
            check_positive(name, getattr(self, name))
        for name in ("sigma", "alpha", "max_alpha", "tolx"):
            if not check_number(name, getattr(self, name)) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}.")
        if self.energy_unit is not None:
            check_positive("energy_unit", self.energy_unit)
        check_choice("alpha_schedule", self.alpha_schedule, SCHEDULES)
        if not check_fraction("sample_share", self.sample_share):
            raise ValueError(f"`sample_share` must be above 0, got {self.sample_share!r}.")
        check_choice("noise", self.noise, dynamics.NOISES)
        check_choice("integrator", self.integrator, dynamics.INTEGRATORS)
        check_choice("memory", self.memory, ("none", "greedy"))
        if self.num_coordinates is not None:
            check_count("num_coordinates", self.num_coordinates)
        check_probability("explorers", self.explorers)
        check_positive("explorer_scale", self.explorer_scale)
        check_choice("start", self.start, STARTS)
        guard.check_drift(self.drift * self.dt, self.integrator, None)
        guard.check_coordinates(self.sigma * math.sqrt(self.dt), None)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> PolarizedState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, (key,), bounds, scale, budget)
        if self.noise == "isotropic" and self.memory == "none" and self.integrator == "euler-maruyama":
            u = self.sigma * math.sqrt(self.dt)
            guard.check_distance(self.drift * self.dt, u, frame.dim, None)
        size = self.num_particles
        if size is None:
            size = _MOST if budget is None else max(4, min(_MOST, budget // 40))
        points = scatter(frame, size, self.start, known)[0] + frame.x0
        return PolarizedState(
            frame=frame,
            step=0,
            nfev=0,
            moves=0,
            unit=self.energy_unit or 0.0,
            points=points,
            memory=points,
            remembered=np.full(size, np.inf),
            consensus=points * 0 + frame.x0,
            alpha=float(self.alpha),
            sample_sizes=points[:, 0] * 0,
            num_minima=0,
            failures=points[:, 0] * 0,
        )

    def ask(self, state: PolarizedState) -> Rows:
        """Return where the particles are; fewer where the budget ends."""
        frame, points = state.frame, state.points[: self._count(state)]
        return Rows(place(frame.like, frame.bounds, points, points * 0))

    def tell(self, state: PolarizedState, evaluations: Evaluations) -> PolarizedState:
        """Return the state after the values of all particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        size, count = len(state.remembered), self._count(state)
        energies = np.full(size, np.inf)
        energies[:count] = weights.energies_of(check_told(evaluations, count))
        xp = array_module(state.points)
        improved = beside(state.points, energies <= state.remembered)[:, None]
        gained = beside(state.points, energies < state.remembered)
        failed = beside(state.points, np.isfinite(energies) & (energies > state.remembered))
        away = (state.points - state.memory) / beside(state.points, state.frame.scale)
        elsewhere = (away * away).sum(1) >= min(self._kappa(state) / 10, self.explorer_scale / 4) ** 2
        failures = xp.where(gained & elsewhere, 0.0, state.failures + (failed & elsewhere))
        after = replace(
            state,
            step=state.step + 1,
            nfev=state.nfev + count,
            memory=xp.where(improved, state.points, state.memory),
            remembered=np.minimum(energies, state.remembered),
            failures=failures,
            unit=state.unit or _unit(energies),
        )
        if after.step % CHECK_EVERY == 0:
            after = replace(after, num_minima=len(self.minima(after).fun))
        points, heights = state.points, energies
        if self.memory == "greedy":
            points, heights = after.memory, after.remembered
        if not np.isfinite(heights).any():
            return self._move(after, points, state.consensus)
        alpha = self._alpha(after, heights)
        with np.errstate(over="ignore"):
            heights = heights / (after.unit or 1.0)
        consensus, sizes = consensus_points(
            points, heights, alpha, self._kappa(after), after.frame.scale, self.kernel_alpha
        )
        return self._move(replace(after, alpha=alpha, sample_sizes=sizes), points, consensus)

    def minima(self, state: PolarizedState) -> Minima:
        """Return the minima found so far, the best one first; none before the first step."""
        frame = state.frame
        kappa, failures = self._kappa(state), np.asarray(to_numpy(state.failures))
        points = np.asarray(to_numpy(state.memory), np.float64) / frame.scale
        found = valleys(points, state.remembered, kappa / 2, 2)
        near = [((points - points[row]) ** 2).sum(1) <= (kappa / 10) ** 2 for row in found]
        settled = [failures[rows].sum() >= _TRIES + 2 * frame.dim for rows in near]
        best = np.flatnonzero(np.isfinite(state.remembered.min(keepdims=True))) + state.remembered.argmin()
        found = np.concatenate(
            [best, [r for r, is_one in zip(found, settled, strict=True) if is_one and r not in best]]
        )
        found = found.astype(int)
        rows = state.memory[beside(state.memory, found)]
        return Minima(place(frame.like, frame.bounds, rows, rows * 0), state.remembered[found])

    def recommend(self, state: PolarizedState) -> Array:
        """Return the best point so far, or x0 before there is any."""
        frame, best = state.frame, int(state.remembered.argmin())
        x = state.memory[best] if np.isfinite(state.remembered[best]) else frame.x0
        return place(frame.like, frame.bounds, x, x * 0)

    def finished(self, state: PolarizedState) -> str | None:
        """Return which stopping rule holds, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        if not state.step or state.step % CHECK_EVERY or not self.tolx:
            return None
        if np.isfinite(state.remembered).any() and float(self._distances(state).max()) <= self.tolx:
            return f"tolx: all particles are within {self.tolx} of the scale of their consensus points"
        return None

    def diagnostics(self, state: PolarizedState) -> dict[str, Any]:
        """Return how many minima there are, and how far particles are from agreeing on them."""
        distances = self._distances(state)
        return {
            "num_minima": state.num_minima,
            "alpha": state.alpha,
            "effective_sample_size": float(state.sample_sizes.mean()),
            "spread": float(((distances * distances).mean()) ** 0.5),
        }

    def _count(self, state: PolarizedState) -> int:
        budget, size = state.frame.budget, len(state.remembered)
        return size if budget is None else max(0, min(size, budget - state.nfev))

    def _kappa(self, state: PolarizedState) -> float:
        if self.kappa is not None:
            return self.kappa
        dim, size = state.frame.dim, len(state.remembered)
        return 2 * math.sqrt(dim) * size ** (-1 / max(dim, 2))

    def _alpha(self, state: PolarizedState, energies: Matrix) -> float:
        if self.alpha_schedule == "effective-sample-size":
            before = np.full(1, state.alpha / (state.unit or 1.0))
            found = float(weights.alpha_of(energies[None], self.sample_share, before)[0])
            return min(found * (state.unit or 1.0), _HOTTEST)
        if self.alpha_schedule == "multiply" and state.moves:
            return min(state.alpha * self.alpha_rate, self.max_alpha)
        return state.alpha

    def _distances(self, state: PolarizedState) -> Array:
        """Return how far particles are from their consensus points, in units of scale, shape (n, dim)."""
        points = state.memory if self.memory == "greedy" else state.points
        return abs(points - state.consensus) / beside(points, state.frame.scale)

    def _move(self, state: PolarizedState, points: Array, consensus: Array) -> PolarizedState:
        frame, size = state.frame, len(state.remembered)
        xp = array_module(points)
        a, u = self.drift * self.dt, self.sigma * math.sqrt(self.dt)
        xi = noise.normal(frame.keys, state.moves, 0, size, size, frame.dim, frame.work)[0]
        away = points - consensus
        jumps = self._jumps(state, xi) if self.explorers else None
        v = dynamics.move(away, xi, a, u, self.noise, self.integrator)
        if self.num_coordinates is not None and self.num_coordinates < frame.dim:
            shares = frame.keys[0].fold("coordinates", state.moves).coarse(0, size, frame.dim)
            v = xp.where(beside(points, shares < self.num_coordinates / frame.dim), v, away)
        if jumps is not None:
            chosen, jump = jumps
            v = xp.where(chosen, away + jump, v)
        reach = frame.work.asarray(_REACH * frame.scale)
        moved = consensus + xp.minimum(xp.maximum(v, -reach), reach)
        if frame.bounds is not None:
            moved = frame.bounds.map(moved, "clip")
        return replace(state, moves=state.moves + 1, points=moved, consensus=consensus)

    def _jumps(self, state: PolarizedState, xi: Array) -> tuple[Array, Array]:
        """Return which particles explore in this step, shape (n, 1), and where from where they are."""
        frame, size = state.frame, len(state.remembered)
        key = frame.keys[0].fold("explorers", state.moves)
        chosen = key.fold("which").uniform(0, size, 1) < self.explorers
        axes = key.fold("axes").integers(0, size, 1, high=frame.dim)
        along = (np.arange(frame.dim) == axes) * (self.explorer_scale * frame.scale)
        return beside(xi, chosen), beside(xi, along) * xi


def consensus_points(
    points: Array, energies: Matrix, alpha: float, kappa: float, scale: Matrix, kernel_alpha: bool = False
) -> tuple[Array, Array]:
    """Return the consensus point of each particle, and how many particles it is a mean of.

    Distances come from one product of matrices and means from another, some rows at a time. Of a row's
    exponents the largest is shifted to 0: however far away all others are, it has something to divide by.

    Args:
        points: Shape (n, dim), float64.
        energies: Shape (n,), one of them finite; the others have weight 0.
        alpha: Inverse temperature, at least 0, also infinite.
        kappa: Width of the kernel, also infinite.
        scale: What it is measured in, shape (dim,).
        kernel_alpha: Whether alpha multiplies the exponent of the kernel.

    Returns:
        Shapes (n, dim) and (n,).

    Example:
        >>> points = np.array([[0.0], [1.0], [10.0], [11.0]])
        >>> consensus, sizes = consensus_points(points, np.array([0.0, 0.0, 5.0, 5.0]), 1.0, 2.0, np.ones(1))
        >>> consensus.round(2).ravel().tolist(), sizes.round(1).tolist()
        ([0.47, 0.53, 10.44, 10.53], [2.0, 2.0, 2.0, 2.0])
    """
    xp, size = array_module(points), len(energies)
    alpha = min(alpha, _HOTTEST)
    with np.errstate(over="ignore"):
        above = np.where(np.isfinite(energies), energies, 0.0) - energies.min()
        exponents = -alpha * np.clip(above, 0.0, _LARGEST)
    exponents = np.where(np.isfinite(energies), np.maximum(exponents, -_LARGEST), -np.inf)
    beyond = beside(points, exponents)
    width = math.sqrt(2) * kappa
    # Scaled by the centre and the width, squares neither cancel far from the origin nor overflow.
    centre = points.mean(0)
    near = points - centre
    z = near / (beside(points, scale) * width)
    squares = (z * z).sum(1)
    means, sizes = [], []
    height = max(1, (_BLOCK if "cuda" not in str(getattr(points, "device", "")) else _DEVICE_BLOCK) // size)
    with np.errstate(over="ignore", under="ignore"):
        for first in range(0, size, height):
            last = min(size, first + height)
            w = z[first:last] @ z.T
            w *= 2
            w -= squares
            w -= squares[first:last, None]
            if kernel_alpha:
                w *= alpha
            w = w.clip(-_LARGEST, 0.0)  # rounding may leave a distance below 0
            w += beyond
            w -= xp.amax(w, 1)[:, None]
            w = xp.exp(w, out=w)
            total = w.sum(1)
            means.append(centre + (w @ near) / total[:, None])
            w *= w
            sizes.append(total * total / w.sum(1))
    return xp.concatenate(means), xp.concatenate(sizes)


def valleys(points: Matrix, values: Matrix, reach: float, company: int = 1) -> Matrix:
    """Return which points are the best of their valley: none that is better is within reach of them.

    Every other point belongs to the valley of the nearest better one.

    Args:
        points: Shape (n, dim).
        values: Shape (n,); those that are not finite do not count.
        reach: A distance.
        company: Points of a valley at least, if it is to count.

    Returns:
        Rows of the points, the best one first.

    Example:
        >>> points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]])
        >>> valleys(points, np.array([1.0, 0.5, 2.0, 0.0, 0.2, 9.0]), reach=1.0, company=2).tolist()
        [3, 1]
    """
    order = np.argsort(values, kind="stable")
    order = order[: int(np.isfinite(values).sum())]
    count = len(order)
    if not count:
        return order
    z = points[order] - points[order].mean(0)
    squares = (z * z).sum(1)
    head = np.arange(count)
    height = max(1, _BLOCK // count)
    for first in range(0, count, height):
        last = min(count, first + height)
        away = squares[first:last, None] + squares[:last] - 2 * (z[first:last] @ z[:last].T)
        rows = np.arange(first, last)
        away[np.arange(last) >= rows[:, None]] = np.inf
        nearest = away.argmin(1)
        is_near = away[np.arange(len(rows)), nearest] <= reach * reach
        head[rows] = np.where(is_near, nearest, rows)
    # All are behind their heads, so that one pass in order leads each to the end of its chain.
    for row in range(count):
        head[row] = head[head[row]]
    members = np.bincount(head, minlength=count)
    found: Matrix = order[np.flatnonzero(members >= company)]
    return found


def _unit(energies: Matrix) -> float:
    """Return the difference between the median and the least energy, 0 where there is none."""
    valid = energies[np.isfinite(energies)]
    if len(valid) < 2:
        return 0.0
    with np.errstate(over="ignore"):
        unit = float(np.median(valid / 2) - valid.min() / 2) * 2
    return min(unit, 1e307)
