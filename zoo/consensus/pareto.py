"""Consensus-based optimization of several objectives: a weight for each particle, and a front of them all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus import dynamics, guard, noise, weights
from zoo.consensus.swarm import STARTS, Frame, begin, place, scatter
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.front import dominates
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_choice, check_count, check_number, check_positive, check_probability
from zoo.methods.population import beside, check_told, take

Matrix = np.ndarray[Any, Any]

NOISES = ("sampling", *dynamics.NOISES)
MEMORIES = ("none", "greedy", "shared")
POTENTIALS = ("none", "morse", "riesz")
_MOST = 40  # particles by default
_LEAST = 1e-3  # of a direction's entries: no objective counts for nothing
_FARTHEST = 1e6  # ranges above the ideal point, beyond which points are alike
_STEEPNESS = 20.0  # C of the Morse potential exp(-C r), r in ranges of the objectives
_NEAREST = 1e-3  # distance below which potentials grow no further
_REACH = 1e4  # units of scale that a particle moves in a step at most


@state
class ParetoState:
    """State of `ParetoCBO`.

    Attributes:
        frame: What the swarm was begun with.
        step: Steps told.
        nfev: Evaluations told.
        points: Where particles are, shape (n, dim), float64.
        directions: What of each objective a particle may have, rows of sum 1, shape (n, k); no rows before
            the first step. Its weights are their inverses.
        memory: What consensus points are means of, shape (n, dim): the best points under each particle's
            scalarisation, or the particles; no rows before there are any.
        objectives: There, shape (n, k).
        violations: By how much these violate the constraints, shape (n,).
        alpha: Inverse temperatures, shape (n,).
        sample_sizes: Effective sample sizes of the consensus points, shape (n,).
        spread: Mean standard deviation of a coordinate about them, in units of scale, shape ().
    """

    frame: Frame
    step: int
    nfev: int
    points: Array
    directions: Matrix
    memory: Array
    objectives: Matrix
    violations: Matrix
    alpha: Matrix
    sample_sizes: Matrix
    spread: Any


@dataclass(frozen=True)
class ParetoCBO:
    """Consensus-based optimization of several objectives by Tchebycheff scalarisations.

    Particle i has weights l_i of the objectives f_1, ..., f_k, and minimises

        g_i(x)  =  max_m l_im |f_m(x) - z_m| / r_m,

    with z the least objectives and r the ranges of the points that no other one dominates, among those
    remembered. Its consensus point and its step are

        c_i    =  sum_j w_ij y_j,    w_ij proportional to exp(-alpha_i g_i(y_j)), of sum 1,
        s_i^2  =  sum_j w_ij (y_j - c_i)^2,
        x_i    <- c_i + (y_i - c_i) (1 - drift dt) + sigma sqrt(dt) s_i xi_i

    coordinate by coordinate, with xi_i standard normal. So n evaluations a step serve n scalarisations. The y
    are remembered: of them and of the new points those are kept, one for each particle, for which the sum of
    all g_i is least. No point serves two particles, which keeps the front from thinning out.

    The weights are l_im proportional to 1 / d_im, where the directions d_i, points of the simplex, say which
    compromise particle i is to find: where the line z + t d_i r meets the front, all its l_im |f_m - z_m| are
    equal. Directions start out evenly. Then neighbours in the space of objectives repel each other,

        d_i  <- d_i - adaptation / n  sum_j grad U(h_i - h_j),    h = (f - z) / r,

    projected onto the simplex, with U(h) = exp(-20 |h|) ("morse") or |h|^(1 - k), for two objectives -log |h|
    ("riesz").

    A point that keeps to the constraints comes before all that do not, and of two that do not, the one that
    violates them less. Failed evaluations count for nothing. `result.front` of `zoo.minimize` holds all
    compromises found. A function with one objective is minimised as by consensus-based sampling.

    Args:
        num_particles: How many; None for 40, or a twentieth of the budget if that is less. Take more for a
            front of three objectives.
        sample_size: Effective sample size of a consensus point, which decides alpha_i.
        alpha: Inverse temperature, also infinite; None for what `sample_size` says.
        drift: Strength of the pull to the consensus point.
        sigma: Strength of the noise.
        dt: Length of a time step.
        noise: As strong as the swarm is wide about the consensus point c_i ("sampling"), or as the distance
            from there to y_i, of each coordinate ("anisotropic") or the whole one ("isotropic").
        memory: "shared", where all particles together keep the points that serve them best; "greedy", where
            each keeps the best one for itself that it has been at; or "none", where they keep where they are.
        potential: "morse", "riesz", or "none" for directions that stay where they are.
        adaptation: Step length of the directions.
        explorers: Probability of a particle to move otherwise: from y_i by `explorer_scale` times a normal
            number, in one coordinate.
        explorer_scale: How far, in units of `scale`.
        start: "normal" or "uniform", around x0; uniform in the box in any case where there is one.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Note:
        The papers have `memory="none"`, `noise="anisotropic"`, one alpha, weights that start evenly and are
        adapted themselves, and objectives as they are. Here it is the directions, along which a front is met
        where one looks for it: even weights crowd its ends. The noise is that of consensus-based sampling,
        which does not vanish for the particle that is its own consensus point.

    Example:
        >>> import zoo
        >>> result = zoo.minimize(
        ...     lambda x: (x[0] ** 2 + x[1] ** 2, (x[0] - 2) ** 2 + x[1] ** 2),
        ...     [0.5, 0.5], method="cbo-pareto", budget=1000, rng=0,
        ... )
        >>> front = result.front
        >>> bool(np.median(abs(front.x[:, 1])) < 0.05), len(front.x) > 30
        (True, True)

    Source: G. Borghi, M. Herty and L. Pareschi, A consensus-based algorithm for multi-objective optimization
    and its mean-field description, 2022, https://arxiv.org/abs/2203.16384, and An adaptive consensus based
    method for multi-objective optimization with uniform Pareto front approximation, 2023,
    https://doi.org/10.1007/s00245-023-10036-y. Noise: J. A. Carrillo, F. Hoffmann, A. M. Stuart and U. Vaes,
    Consensus-based sampling, 2022, https://doi.org/10.1111/sapm.12470.
    """

    num_particles: int | None = None
    sample_size: float = 5.0
    alpha: float | None = None
    drift: float = 1.0
    sigma: float = 10.0
    dt: float = 0.01
    noise: str = "sampling"
    memory: str = "shared"
    potential: str = "morse"
    adaptation: float = 0.005
    explorers: float = 0.1
    explorer_scale: float = 0.3
    start: str = "normal"

    recommends_evaluated = True

    def __post_init__(self) -> None:
        if self.num_particles is not None:
            check_count("num_particles", self.num_particles, minimum=2)
        check_positive("sample_size", self.sample_size)
        if self.sample_size < 1:
            raise ValueError(f"`sample_size` must be at least 1, got {self.sample_size!r}.")
        for name in ("drift", "dt", "explorer_scale"):
            check_positive(name, getattr(self, name))
        for name in ("sigma", "adaptation", *(() if self.alpha is None else ("alpha",))):
            if not check_number(name, getattr(self, name)) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}.")
        for name in ("sigma", "adaptation"):
            if math.isinf(getattr(self, name)):
                raise ValueError(f"`{name}` must be finite, got {getattr(self, name)!r}.")
        check_choice("noise", self.noise, NOISES)
        check_choice("memory", self.memory, MEMORIES)
        check_choice("potential", self.potential, POTENTIALS)
        check_probability("explorers", self.explorers)
        check_choice("start", self.start, STARTS)
        guard.check_drift(self.drift * self.dt, "euler-maruyama", None)
        if self.noise != "sampling":
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
    ) -> ParetoState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Of known points only the places are used: their values say nothing of several objectives.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, (key,), bounds, scale, budget)
        if self.noise == "isotropic" and self.memory == "none":
            u = self.sigma * math.sqrt(self.dt)
            guard.check_distance(self.drift * self.dt, u, frame.dim, None)
        size = self.num_particles
        if size is None:
            size = _MOST if budget is None else max(4, min(_MOST, budget // 20))
        points = scatter(frame, size, self.start, known)[0] + frame.x0
        none, empty = np.empty((0, 1)), np.empty(0)
        return ParetoState(
            frame, 0, 0, points, none, points[:0], none, empty, np.zeros(size), np.zeros(size), np.zeros(())
        )

    def ask(self, state: ParetoState) -> Rows:
        """Return where the particles are; fewer where the budget ends."""
        frame, points = state.frame, state.points[: self._count(state)]
        return Rows(place(frame.like, frame.bounds, points, points * 0))

    def tell(self, state: ParetoState, evaluations: Evaluations) -> ParetoState:
        """Return the state after the objectives of all particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        size, count = int(state.points.shape[0]), self._count(state)
        values = check_told(evaluations, count)
        after = replace(state, step=state.step + 1, nfev=state.nfev + count)
        rows = np.flatnonzero(np.isfinite(values))
        if len(rows):
            objectives = evaluations.extras.get("objectives", values[:, None])[rows]
            after = self._remember(after, rows, objectives, evaluations.violations[rows])
        if len(after.objectives):
            return self._move(after)
        again = replace(state.frame, keys=(state.frame.keys[0].fold("again", after.step),))
        return replace(after, points=scatter(again, size, self.start)[0] + state.frame.x0)

    def recommend(self, state: ParetoState) -> Array:
        """Return the compromise with the least mean of its objectives, or x0 before there is any."""
        frame, x = state.frame, state.frame.x0
        if len(state.objectives):
            order = np.lexsort((state.objectives.mean(1), state.violations))
            x = state.memory[int(order[0])]
        return place(frame.like, frame.bounds, x, x * 0)

    def finished(self, state: ParetoState) -> str | None:
        """Return that the budget is used up, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return None

    def diagnostics(self, state: ParetoState) -> dict[str, Any]:
        """Return how many particles no other one dominates, and how widely they search.

        Of the inverse temperatures, one for each particle, it is the median, of effective sample sizes the
        mean.
        """
        ahead = _ahead(state.objectives, state.violations)
        return {
            "first_front": int(np.count_nonzero(ahead)),
            "alpha": float(np.median(state.alpha)),
            "effective_sample_size": float(state.sample_sizes.mean()),
            "spread": float(state.spread),
        }

    def _count(self, state: ParetoState) -> int:
        budget, size = state.frame.budget, int(state.points.shape[0])
        return size if budget is None else max(0, min(size, budget - state.nfev))

    def _remember(
        self, state: ParetoState, rows: Matrix, objectives: Matrix, violations: Matrix
    ) -> ParetoState:
        """Return the state with what the particles at some rows turned out to be."""
        xp, size = array_module(state.points), int(state.points.shape[0])
        points = take(state.points, rows)
        directions = state.directions
        if not len(state.objectives):
            directions = even_directions(size, objectives.shape[1])
        elif self.memory != "none" or len(rows) < size:
            # Without a memory, a particle that failed is represented by what it was before.
            points = xp.concatenate([state.memory, points])
            objectives = np.concatenate([state.objectives, objectives])
            violations = np.concatenate([state.violations, violations])
        costs = scalarised(directions, objectives, violations)
        chosen = costs.argmin(1)
        if self.memory == "shared" and costs.shape[1] >= size and directions.shape[1] == 1:
            chosen = np.argsort(costs[0], kind="stable")[:size]  # any order costs the same: one of its own
        elif self.memory == "shared":
            from scipy.optimize import linear_sum_assignment

            particles, theirs = linear_sum_assignment(costs)
            chosen[particles] = theirs
        elif len(state.objectives):
            own, fresh = np.arange(size), np.full(size, -1)
            fresh[rows] = len(objectives) - len(rows) + np.arange(len(rows))
            better = fresh >= 0
            if self.memory == "greedy":
                better &= costs[own, fresh] <= costs[own, own]
            chosen = np.where(better, fresh, own)
        else:
            chosen[rows] = np.arange(len(rows))
        return replace(
            state,
            directions=directions,
            memory=take(points, chosen),
            objectives=objectives[chosen],
            violations=violations[chosen],
        )

    def _move(self, state: ParetoState) -> ParetoState:
        frame, size = state.frame, len(state.objectives)
        xp, y = array_module(state.points), state.memory
        costs = scalarised(state.directions, state.objectives, state.violations)
        alpha = np.full(size, self.alpha if self.alpha is not None else 0.0)
        if self.alpha is None:
            alpha = weights.alpha_of(costs, min(self.sample_size / size, 0.9), np.zeros(size))
        shares = weights.gibbs_weights(costs, alpha)
        w = beside(y, shares)
        middle = y.mean(0)
        near = y - middle
        consensus = w @ near
        deviations = xp.sqrt((w @ (near * near) - consensus * consensus).clip(min=0))
        consensus = consensus + middle
        a, u = self.drift * self.dt, self.sigma * math.sqrt(self.dt)
        xi = noise.normal(frame.keys, state.step, 0, size, size, frame.dim, frame.work)[0]
        jumps = self._jumps(state, xi) if self.explorers else None
        away = y - consensus
        if self.noise == "sampling":
            moved = away * (1 - a) + u * deviations * xi
        else:
            moved = dynamics.move(away, xi, a, u, self.noise, "euler-maruyama")
        if jumps is not None:
            chosen, jump = jumps
            moved = xp.where(chosen, away + jump, moved)
        reach = frame.work.asarray(_REACH * frame.scale)
        points = consensus + xp.minimum(xp.maximum(moved, -reach), reach)
        if frame.bounds is not None:
            points = frame.bounds.map(points, "clip")
        return replace(
            state,
            points=points,
            directions=self._adapted(state),
            alpha=alpha,
            sample_sizes=weights.effective_sample_size(shares),
            spread=(deviations / beside(deviations, frame.scale)).mean(),
        )

    def _jumps(self, state: ParetoState, xi: Array) -> tuple[Array, Array]:
        """Return which particles explore in this step, shape (n, 1), and where from where they are."""
        frame, size = state.frame, len(xi)
        key = frame.keys[0].fold("explorers", state.step)
        chosen = key.fold("which").uniform(0, size, 1) < self.explorers
        axes = key.fold("axes").integers(0, size, 1, high=frame.dim)
        along = (np.arange(frame.dim) == axes) * (self.explorer_scale * frame.scale)
        return beside(xi, chosen), beside(xi, along) * xi

    def _adapted(self, state: ParetoState) -> Matrix:
        if self.potential == "none" or not self.adaptation:
            return state.directions
        heights = normalised(state.objectives, state.violations)
        push = repulsion(heights, self.potential)
        return onto_simplex(state.directions + self.adaptation * push, _LEAST)


def normalised(objectives: Matrix, violations: Matrix) -> Matrix:
    """Return objectives less the ideal point, in units of the front's range, from 0 on.

    The front are the points that no other one dominates. An objective that is the same for all of them is
    measured by its range over all points.

    Args:
        objectives: Shape (n, k).
        violations: Shape (n,).

    Example:
        >>> objectives = np.array([[1.0, 30.0], [3.0, 10.0], [3.0, 50.0]])
        >>> normalised(objectives, np.zeros(3)).tolist()
        [[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]]
    """
    front = objectives[_ahead(objectives, violations)]
    ideal = front.min(0)
    with np.errstate(over="ignore"):  # halves, so that no range is too large for a number
        range_ = front.max(0) / 2 - ideal / 2
        whole = objectives.max(0) / 2 - np.minimum(objectives.min(0), ideal) / 2
        range_ = np.where(range_ > 0, range_, np.where(whole > 0, whole, 1.0))
        heights = (objectives / 2 - ideal / 2) / range_
    clipped: Matrix = np.clip(heights, 0.0, _FARTHEST)
    return clipped


def scalarised(directions: Matrix, objectives: Matrix, violations: Matrix) -> Matrix:
    """Return g_i of each point, shape (particles, points), lower is better.

    Points that violate constraints come behind all others, by how much they do.

    Args:
        directions: Shape (particles, k), above 0.
        objectives: Shape (points, k).
        violations: Shape (points,).

    Example:
        >>> directions = np.array([[0.25, 0.75], [0.5, 0.5]])
        >>> objectives = np.array([[0.0, 2.0], [2.0, 0.0], [0.5, 0.5]])
        >>> scalarised(directions, objectives, np.array([0.0, 0.0, 7.0])).round(2).tolist()
        [[0.5, 1.5, 3.5], [1.0, 1.0, 3.0]]
    """
    heights = normalised(objectives, violations)
    inverse = 1 / directions
    lambdas = inverse / inverse.sum(1, keepdims=True) * directions.shape[1]
    costs = np.zeros((len(directions), len(objectives)))
    for own, height in zip(lambdas.T, heights.T, strict=True):
        np.maximum(costs, own[:, None] * height, out=costs)
    bad = violations > 0
    if bad.any():
        largest = violations[bad & np.isfinite(violations)].max(initial=0.0)
        shares = np.minimum(violations[bad] / (largest or 1.0), 2.0)
        worst = costs[:, ~bad].max(1, initial=0.0)
        costs[:, bad] = worst[:, None] + 1 + shares
    return costs


def even_directions(count: int, num_objectives: int) -> Matrix:
    """Return points spread evenly over the simplex, its corners among them, shape (count, num_objectives).

    Example:
        >>> even_directions(3, 2).tolist()
        [[0.001, 0.999], [0.5, 0.5], [0.999, 0.001]]
    """
    if num_objectives == 1:
        return np.ones((count, 1))
    if num_objectives == 2:
        share = np.linspace(0, 1, count)
        return onto_simplex(np.stack([share, 1 - share], 1), _LEAST)
    # Gaps between sorted uniform numbers are uniform on the simplex; those of an additive recurrence are
    # evenly so. Its steps are powers of 1 / phi, the root of x^k = x + 1 (R. Roberts).
    phi = 2.0
    for _ in range(60):
        phi = (1 + phi) ** (1 / num_objectives)
    steps = phi ** -np.arange(1.0, num_objectives)
    numbers = np.sort((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1, axis=1)
    gaps = np.diff(numbers, axis=1, prepend=0.0, append=1.0)
    corners = min(count, num_objectives)
    gaps[:corners] = np.eye(num_objectives)[:corners]
    return onto_simplex(gaps, _LEAST)


def onto_simplex(points: Matrix, least: float = 0.0) -> Matrix:
    """Return the nearest points of sum 1 whose entries are at least `least`, shape (n, k).

    Example:
        >>> onto_simplex(np.array([[0.5, 1.5], [0.25, 0.25], [0.75, 0.25]])).tolist()
        [[0.0, 1.0], [0.5, 0.5], [0.75, 0.25]]
    """
    count = points.shape[1]
    free = 1 - count * least
    shifted = points - least
    ordered = -np.sort(-shifted, axis=1)
    surplus = (ordered.cumsum(1) - free) / np.arange(1, count + 1)
    active = (ordered > surplus).sum(1)
    level = surplus[np.arange(len(points)), active - 1]
    return np.maximum(shifted - level[:, None], 0.0) + least


def repulsion(heights: Matrix, potential: str) -> Matrix:
    """Return -1/n sum_j grad U(h_i - h_j): where points are driven that repel each other, shape (n, k).

    Args:
        heights: Shape (n, k).
        potential: "morse" or "riesz".

    Example:
        >>> repulsion(np.array([[0.0, 0.0], [0.1, 0.0]]), "morse").round(3).tolist()
        [[-1.353, 0.0], [1.353, 0.0]]
    """
    gaps = heights[:, None] - heights
    squares = (gaps * gaps).sum(2)
    distances = np.maximum(np.sqrt(squares), _NEAREST)
    if potential == "morse":
        slopes = _STEEPNESS * np.exp(-_STEEPNESS * distances)
    else:
        power = heights.shape[1] - 1
        slopes = max(power, 1) * distances ** -(power + 1.0) if power > 1 else 1 / distances
    driven: Matrix = ((slopes / distances)[..., None] * gaps).mean(1)
    return driven


def _ahead(objectives: Matrix, violations: Matrix) -> Matrix:
    """Return which points no other one dominates, of those that violate the constraints least."""
    if not len(violations):
        return np.zeros(0, bool)
    allowed = violations <= max(0.0, float(violations.min()))  # all that keep to them, if any does
    beaten = dominates(objectives[allowed], objectives).any(0)
    ahead: Matrix = allowed & ~beaten
    return ahead
