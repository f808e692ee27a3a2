"""Consensus-based optimization along axes that are learnt from the function's curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.consensus.cbo import CBO, CBOState
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Rows
from zoo.core.validation import check_number, check_positive

Matrix = np.ndarray[Any, Any]

_AFFORDABLE = 0.25  # of the evaluations that are left, at most, for one measurement
_ALIGNED = 0.1  # correlation of curvature along two axes, up to which they count as axes of the function
_ALIKE = 10.0  # ratio of scales up to which variables are taken to be measured in one unit
_ROUNDING = 1e-6  # of the largest curvature, below which a curvature says nothing


class Stencil(Candidates):
    """The points of a measurement: a centre, a step either way along each axis, both steps of each pair.

    Args:
        like: Kind, dtype and device of rows.
        centre: Shape (dim,).
        steps: Lengths of the steps, shape (dim,).
        bounds: Box that rows are clipped to, or None; what rounding moves out of it.
    """

    __slots__ = ("bounds", "centre", "like", "steps")

    def __init__(self, like: Like, centre: Matrix, steps: Matrix, bounds: Bounds | None = None) -> None:
        self.like, self.centre, self.steps, self.bounds = like, centre, steps, bounds

    @property
    def decisive(self) -> bool:
        return False

    @property
    def dim(self) -> int:
        return len(self.centre)

    def __len__(self) -> int:
        return stencil_size(self.dim)

    def rows(self, start: int, stop: int) -> Array:
        dim, numbers = self.dim, np.arange(start, stop)
        points = np.repeat(self.centre[None], stop - start, 0)
        for sign, before in ((1, 1), (-1, 1 + dim)):
            rows = np.flatnonzero((numbers >= before) & (numbers < before + dim))
            axes = numbers[rows] - before
            points[rows, axes] += sign * self.steps[axes]
        rows = np.flatnonzero(numbers > 2 * dim)
        for axes in np.triu_indices(dim, 1):
            there = axes[numbers[rows] - 2 * dim - 1]
            points[rows, there] += self.steps[there]
        x = self.like.asarray(points)
        return x if self.bounds is None else self.bounds.map(x, "clip")


def stencil_size(dim: int) -> int:
    """Return how many evaluations a measurement takes: 1 + 2 dim + dim (dim - 1) / 2."""
    return 1 + 2 * dim + dim * (dim - 1) // 2


def hessian(values: Matrix, steps: Matrix) -> Matrix:
    """Return the matrix of second derivatives from the values of a `Stencil`.

    Entries that need a failed evaluation are 0.

    Args:
        values: In the order of its rows; NaN is failed.
        steps: Shape (dim,); in the units that derivatives are wanted in.

    Example:
        >>> stencil = Stencil(Like("numpy", "float64"), np.array([1.0, 2.0]), np.full(2, 0.1))
        >>> x = stencil.rows(0, len(stencil))
        >>> hessian(3 * x[:, 0] ** 2 + x[:, 0] * x[:, 1], stencil.steps).round(9).tolist()
        [[6.0, 1.0], [1.0, 0.0]]
    """
    dim = len(steps)
    middle, up, down = values[0], values[1 : dim + 1], values[dim + 1 : 2 * dim + 1]
    rows, columns = np.triu_indices(dim, 1)
    matrix = np.zeros((dim, dim))
    with np.errstate(all="ignore"):
        matrix[np.diag_indices(dim)] = ((up - middle) + (down - middle)) / steps**2
        mixed = (values[2 * dim + 1 :] - up[rows] - up[columns] + middle) / (steps[rows] * steps[columns])
    matrix[rows, columns] = matrix[columns, rows] = mixed
    return np.where(np.isfinite(matrix), matrix, 0.0)


def are_axes(axes: Matrix, curvature: Matrix) -> bool:
    """Whether some axes are, up to a tenth, those of a function in which they do not interact.

    Args:
        axes: As columns, shape (dim, dim).
        curvature: The matrix of second derivatives.

    Example:
        >>> are_axes(np.eye(2), np.diag([1.0, 1e4])), are_axes(np.eye(2), np.array([[2.0, 1.0], [1.0, 2.0]]))
        (True, False)
    """
    along = axes.T @ curvature @ axes
    along /= np.abs(along).max() or 1.0
    size = np.abs(np.diag(along)) + _ROUNDING
    across = along - np.diag(np.diag(along))
    return bool((np.abs(across) <= _ALIGNED * np.sqrt(np.outer(size, size))).all())


@state
class CurvatureCBOState:
    """State of `CurvatureCBO`.

    Attributes:
        like: Kind, dtype and device of candidates.
        bounds: Box, or None.
        x0: Start, shape (dim,), float64.
        scale: Shape (dim,), float64.
        budget: Evaluations there will be, or None.
        step: Steps told, measurements included.
        nfev: Evaluations told.
        swarm: The swarm, in coordinates z.
        axes: Q, so that x = x0 + scale * (Q z), shape (dim, dim).
        centre: Where curvature is measured now, shape (dim,); empty while the swarm is asked for.
        due: Evaluations after which it is measured again.
        wait: The same, counted from one measurement to the next, in evaluations that one takes.
        measurements: How many there were.
        turns: How many of them have changed the axes.
        best: The best point so far, shape (dim,), as `like`; x0 before there is one.
        best_value: Its value, infinite before there is one.
    """

    like: Like
    bounds: Bounds | None
    x0: Matrix
    scale: Matrix
    budget: int | None
    step: int
    nfev: int
    swarm: CBOState
    axes: Matrix
    centre: Matrix
    due: float
    wait: float
    measurements: int
    turns: int
    best: Array
    best_value: float


@dataclass(frozen=True)
class CurvatureCBO:
    """Consensus-based optimization along the axes of the function's curvature.

    The noise, the sparse moves and the explorers of `CBO` act on coordinates one by one. Here coordinates are
    those of a frame Q that is learnt: the swarm minimizes z -> f(x0 + scale * (Q z)), where

        Q  <-  eigenvectors of the matrix of second derivatives of f, by finite differences
               unless that matrix is diagonal in the present frame up to a tenth

    first at a random point about x0, scale / 2 away, then at the best point, again and again: `interval`
    times as many evaluations later as a measurement takes, 1 + 2 dim + dim (dim - 1) / 2, and twice as many
    each time that the frame was found to be right.

    Where f is a sum of functions of one variable each, turned by whatever rotation, the matrix at almost any
    point has that rotation's axes for eigenvectors, however many valleys there are: one measurement undoes
    the rotation. At the bottom of a valley it may say nothing, since all curvatures may be equal there;
    hence the point at random. In a bent valley the frame follows.

    Scales that differ by less than a factor of 10, those of a box that is not quite a cube say, are replaced
    by their geometric mean: else a rotation of x would be none of z.

    It takes a smooth f without noise, and differences of values count: unlike for `CBO`, the search is not
    the same for an increasing function of f. Measurements that would take more than a quarter of what is
    left of the budget are not made. Candidates are mirrored into the box.

    The gain on rotated functions is lost where x is in single precision, whose differences are too coarse;
    where f is a small difference from a number 1e7 times as large; and where the minimum is next to a wall.

    Args:
        num_particles: Particles of the swarm.
        sigma: Strength of the noise; a tenth of it is its ratio to the distance from the consensus point.
        num_coordinates: Coordinates of a particle that move in a step, on average; None for all.
        explorers: Share of particles that explore.
        shortest_jump: Least standard deviation of their jumps, in units of `scale`.
        longest_jump: Largest one.
        differences: Probability that a jump is the difference of two particles instead.
        interval: Evaluations between two measurements, in evaluations of one; infinite for one measurement.
        smoothing: Step of the finite differences in units of `scale`; None for the rounding error of
            candidates to the power of .3, 2e-5 in double precision.
        tolx: Stop when the particles, explorers aside, are all within this, in units of `scale`, or within
            rounding; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = CurvatureCBO()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(200):
        ...     candidates = method.ask(state)
        ...     x = candidates.rows(0, len(candidates))
        ...     values = 1e6 * (x[:, 0] - x[:, 1]) ** 2 + x.sum(1) ** 2 + x[:, 2] ** 2
        ...     state = method.tell(state, Evaluations(values))
        >>> bool(abs(method.recommend(state)).max() < 1e-3)
        True

    Source: ours. That coordinates are turned into those of the function is the idea of H. H. Rosenbrock, An
    Automatic Method for Finding the Greatest or Least Value of a Function, 1960,
    https://doi.org/10.1093/comjnl/3.3.175, and of I. Loshchilov, M. Schoenauer and M. Sebag, Adaptive
    Coordinate Descent, 2011, https://doi.org/10.1145/2001576.2001697, who learn them from steps.
    """

    num_particles: int = 20
    sigma: float = 8.0
    num_coordinates: int | None = 3
    explorers: float = 0.8
    shortest_jump: float = 0.1
    longest_jump: float = 3.0
    differences: float = 0.3
    interval: float = 3.0
    smoothing: float | None = None
    tolx: float = 1e-12

    inner: CBO = field(init=False, repr=False, compare=False)

    recommends_evaluated = True

    def __post_init__(self) -> None:
        if not check_number("interval", self.interval) > 0:
            raise ValueError(f"`interval` must be above 0, got {self.interval!r}.")
        if self.smoothing is not None:
            check_positive("smoothing", self.smoothing)
        object.__setattr__(
            self,
            "inner",
            CBO(
                num_particles=self.num_particles,
                sigma=self.sigma,
                num_coordinates=self.num_coordinates,
                explorers=self.explorers,
                shortest_jump=self.shortest_jump,
                longest_jump=self.longest_jump,
                differences=self.differences,
                tolx=self.tolx,
            ),
        )

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CurvatureCBOState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        plain = self.inner.init(x0, key=key, bounds=bounds, scale=scale).frame  # checks them
        start, spread = np.array(to_numpy(plain.x0)), _unit(np.array(plain.scale))
        if known is not None:
            known = Known((known.points - start) / spread, known.values)
        blank = Like(plain.like.kind, "float64", plain.like.device).asarray(np.zeros(len(start)))
        first = CurvatureCBOState(
            plain.like,
            bounds,
            start,
            spread,
            budget,
            0,
            0,
            self.inner.init(blank, key=key.fold("swarm"), known=known),
            np.eye(len(start)),
            np.empty(0),
            0.0,
            self.interval,
            0,
            0,
            plain.like.asarray(plain.x0) + 0,
            math.inf,
        )
        return self._plan(first, key)

    def _plan(self, state: CurvatureCBOState, key: Key | None = None) -> CurvatureCBOState:
        """Return the state with a centre to be measured about, if it is time for that and there is room."""
        dim = len(state.x0)
        size = stencil_size(dim)
        left = math.inf if state.budget is None else state.budget - state.nfev
        if state.nfev < state.due or size > _AFFORDABLE * left:
            return replace(state, centre=np.empty(0))
        if key is not None:
            centre = state.x0 + state.scale * key.fold("measure").normal(0, 1, dim)[0] / 2
        elif math.isinf(state.best_value):
            return replace(state, centre=np.empty(0), due=state.nfev + size)
        else:
            centre = np.array(to_numpy(state.best), np.float64)
        if state.bounds is not None:
            lower, upper = state.bounds.lower, state.bounds.upper
            room = self._steps(state)
            centre = np.clip(state.bounds.map(centre), lower + room, upper - room)
        return replace(state, centre=centre)

    def _steps(self, state: CurvatureCBOState) -> Matrix:
        smoothing = state.like.epsilon**0.3 if self.smoothing is None else self.smoothing
        steps = smoothing * state.scale
        if state.bounds is None:
            return steps
        return np.minimum(steps, (state.bounds.upper - state.bounds.lower) / 4)

    def ask(self, state: CurvatureCBOState) -> Candidates:
        """Return the points of a measurement, or the particles; of these fewer where the budget ends."""
        if len(state.centre):
            return Stencil(state.like, state.centre, self._steps(state), state.bounds)
        x = state.like.asarray(self._points(state)[: self._count(state)])
        return Rows(x if state.bounds is None else state.bounds.map(x, "clip"))

    def _count(self, state: CurvatureCBOState) -> int:
        count = self.inner.wanted(state.swarm)
        return count if state.budget is None else max(0, min(count, state.budget - state.nfev))

    def _points(self, state: CurvatureCBOState) -> Array:
        """Return where the particles are, in the box, shape (num_particles, dim), float64."""
        return self._placed(state, state.swarm.anchor + state.swarm.members.offsets[0])

    def _placed(self, state: CurvatureCBOState, z: Array) -> Array:
        """Return points in the coordinates of x, in the box, shape (n, dim), float64."""
        wide = Like.of(z)
        points = z @ wide.asarray(state.axes.T * state.scale) + wide.asarray(state.x0)
        return points if state.bounds is None else state.bounds.map(points)

    def _swarm_inside(self, state: CurvatureCBOState) -> CBOState:
        """Return the swarm with particles where their images in the box are.

        Beyond a wall the function is a mirror image, whose axes are others.
        """
        swarm = state.swarm
        if state.bounds is None:
            return swarm
        points = self._points(state)
        wide = Like.of(points)
        z = ((points - wide.asarray(state.x0)) / wide.asarray(state.scale)) @ wide.asarray(state.axes)
        offsets = swarm.frame.work.asarray(z - swarm.anchor)[None]
        return replace(swarm, members=replace(swarm.members, offsets=offsets))

    def tell(self, state: CurvatureCBOState, evaluations: Evaluations) -> CurvatureCBOState:
        """Return the state after the values of what was asked for.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        candidates = self.ask(state)
        if len(evaluations) != len(candidates):
            raise ValueError(
                f"`evaluations` must hold the {len(candidates)} values asked for, got {len(evaluations)}."
            )
        values = evaluations.values
        state = replace(state, step=state.step + 1, nfev=state.nfev + len(values))
        finite = np.where(np.isfinite(values), values, np.inf)
        index = int(finite.argmin()) if len(finite) else 0
        if len(finite) and finite[index] < state.best_value:
            best = candidates.rows(index, index + 1)[0]
            state = replace(state, best=best, best_value=float(finite[index]))
        if len(state.centre):
            return self._turn(state, values)
        whole = np.full(self.inner.wanted(state.swarm), np.nan)
        whole[: len(values)] = values
        swarm = self.inner.tell(self._swarm_inside(state), Evaluations(whole))
        return self._plan(replace(state, swarm=swarm))

    def _turn(self, state: CurvatureCBOState, values: Matrix) -> CurvatureCBOState:
        """Return the state with the swarm in the frame that a measurement says."""
        size = np.abs(np.where(np.isfinite(values), values, 0.0)).max()
        curvature = hessian(values / (size or 1.0), self._steps(state) / state.scale)
        right = are_axes(state.axes, curvature)
        wait = 2 * state.wait if right and state.measurements else self.interval
        state = replace(
            state,
            centre=np.empty(0),
            due=state.nfev + wait * len(values),
            wait=wait,
            measurements=state.measurements + 1,
        )
        if right:
            return state
        axes = np.linalg.eigh(curvature)[1]
        swarm = _turned(state.swarm, state.axes.T @ axes)
        return replace(state, axes=axes, swarm=swarm, turns=state.turns + 1)

    def recommend(self, state: CurvatureCBOState) -> Array:
        """Return the best point so far, or x0 before there is any."""
        return state.best + 0

    def consensus(self, state: CurvatureCBOState) -> Array:
        """Return the consensus point of the swarm in the coordinates of x."""
        return state.like.asarray(self._placed(state, state.swarm.anchor)[0])

    def finished(self, state: CurvatureCBOState) -> str | None:
        """Return which stopping rule holds, or None."""
        if state.budget is not None and state.nfev >= state.budget:
            return f"the budget of {state.budget} evaluations is used up"
        return None if len(state.centre) else self.inner.finished(state.swarm)

    def diagnostics(self, state: CurvatureCBOState) -> dict[str, Any]:
        """Return what `CBO` does, how often curvature was measured, and how often the axes were turned."""
        found = self.inner.diagnostics(state.swarm)
        return {**found, "measurements": state.measurements, "turns": state.turns}


def _unit(scale: Matrix) -> Matrix:
    """Return scales of one length if they are about equal, so that turns of z are turns of x."""
    if scale.max() > _ALIKE * scale.min():
        return scale
    return np.full(len(scale), float(np.exp(np.log(scale).mean())))


def _turned(swarm: CBOState, rotation: Matrix) -> CBOState:
    """Return a swarm whose rows z have become z @ rotation."""
    turn = swarm.frame.work.asarray(rotation)
    wide = swarm.frame.wide.asarray(rotation)
    members = swarm.members
    return replace(
        swarm,
        anchor=swarm.anchor @ wide,
        shift=swarm.shift @ wide,
        best=swarm.best @ wide,
        members=replace(members, offsets=members.offsets @ turn, memory=members.memory @ turn),
    )
