"""Particle swarm optimization."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_choice, check_count, check_fraction, check_number
from zoo.methods.population import (
    CHECK_EVERY,
    Frame,
    Matrix,
    begin,
    beside,
    check_told,
    collapsed,
    extent,
    is_finite,
    place,
    populate,
    remaining,
    scatter,
    take,
)

_BLOCK = 16384  # numbers worked on at once, so that they stay in the cache from draw to sum
_BOUNCE = -0.5  # what a velocity is multiplied by at a wall


@state
class PSOState:
    """State of `PSO`.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        first: Particles before this one are not asked for: their values were known.
        position: Where the particles are, shape (population_size, dim).
        velocity: Their last moves, of the same shape.
        best: The best point that each particle has been at, of the same shape.
        values: Values there, infinite where a particle has none yet, shape (population_size,).
    """

    frame: Frame
    step: int
    nfev: int
    first: int
    position: Array
    velocity: Array
    best: Array
    values: Matrix


@dataclass(frozen=True)
class PSO:
    """Particle swarm: points with a velocity, drawn to where they and their neighbours were best.

    With p_i the best point that particle i has been at, l_i the best one among its neighbours' (itself
    included), and r, r' uniform in [0, 1), with 16 bits, for every particle, coordinate and step,

        v_i  <-  inertia v_i + cognitive r (p_i - x_i) + social r' (l_i - x_i)
        x_i  <-  x_i + v_i

    The default factors are those of the constriction of Clerc and Kennedy. At a wall of the box a
    coordinate is mirrored and its velocity turned around and halved; none is faster than the box is
    wide. Particles start uniform in the box, else at x0 + scale * normal, the first one at x0 itself;
    each moves first half the way to another such point. Points that are known are particles with their
    values. A particle that has failed so far has no best point: it is drawn to its neighbours' only, and
    flies on if they have none. Equal values count as better, so that particles move on plateaus. Only
    the order of values counts.

    Args:
        population_size: Particles; None for 10 + 2 sqrt(dim).
        topology: Who is whose neighbour: "ring" (the particles before and behind it) or "global" (all).
            The ring looks around for longer, the other one converges faster.
        inertia: Share of the velocity that is kept, below 1.
        cognitive: Pull of the particle's own best point.
        social: Pull of the neighbours' best point.
        tolx: Stop when the best points and the velocities are all within this, in units of `scale`, or
            within rounding; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = PSO(population_size=20)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-6)
        True

    Source: J. Kennedy and R. Eberhart, Particle Swarm Optimization, 1995,
    https://doi.org/10.1109/ICNN.1995.488968; M. Clerc and J. Kennedy, The Particle Swarm - Explosion,
    Stability, and Convergence in a Multidimensional Complex Space, 2002, https://doi.org/10.1109/4235.985692.
    Number of particles: M. Clerc, Standard Particle Swarm Optimisation, 2012,
    https://hal.science/hal-00764996.
    """

    population_size: int | None = None
    topology: str = "ring"
    inertia: float = 0.7298
    cognitive: float = 1.49618
    social: float = 1.49618
    tolx: float = 1e-12

    recommends_evaluated = True

    def __post_init__(self) -> None:
        if self.population_size is not None:
            check_count("population_size", self.population_size, minimum=2)
        check_choice("topology", self.topology, ("ring", "global"))
        check_fraction("inertia", self.inertia)
        for name in ("cognitive", "social", "tolx"):
            value = check_number(name, getattr(self, name))
            if not 0 <= value < np.inf:
                raise ValueError(f"`{name}` must be finite and at least 0, got {value!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> PSOState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, key, bounds, scale, budget)
        size = self.population_size or int(10 + 2 * math.sqrt(frame.dim))
        position, values = populate(frame, size, known)
        velocity = (scatter(frame, "velocity", size) - position) / 2
        first = int(np.count_nonzero(np.isfinite(values)))
        ready = PSOState(frame, 0, 0, first, position, velocity, position, values)
        return ready if first < size else self._move(ready)

    def ask(self, state: PSOState) -> Rows:
        """Return the particles' positions; fewer where the budget ends."""
        wanted = len(state.values) - state.first
        count = remaining(state.frame, state.nfev, wanted)
        return Rows(place(state.frame, state.position[state.first : state.first + count]))

    def tell(self, state: PSOState, evaluations: Evaluations) -> PSOState:
        """Return the state after the values of all positions.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        size = len(state.values)
        asked = remaining(state.frame, state.nfev, size - state.first)
        values = check_told(evaluations, asked)
        if asked < size:
            values = np.concatenate(
                [np.full(state.first, np.nan), values, np.full(size - asked - state.first, np.nan)]
            )
        better = values <= state.values
        values = np.where(better, values, state.values)
        best, rows = state.best + 0, better.nonzero()[0]  # in most steps few are better
        best[beside(best, rows)] = take(state.position, rows)
        return self._move(
            PSOState(
                state.frame,
                state.step + 1,
                state.nfev + asked,
                0,
                state.position,
                state.velocity,
                best,
                values,
            )
        )

    def recommend(self, state: PSOState) -> Array:
        """Return the best point so far, or x0 before there is any."""
        index = int(state.values.argmin())
        found = state.best[index] if np.isfinite(state.values[index]) else state.frame.x0
        return place(state.frame, found + 0)

    def finished(self, state: PSOState) -> str | None:
        """Return which stopping rule holds, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        if state.step % CHECK_EVERY or not state.step:
            return None
        xp = array_module(state.velocity)
        widest = np.maximum(extent(state.best), to_numpy(xp.amax(abs(state.velocity), 0)))
        if collapsed(state.frame, state.best, widest, self.tolx):
            return f"tolx: best points and velocities are within {self.tolx} of the scale, or rounding"
        return None

    def diagnostics(self, state: PSOState) -> dict[str, Any]:
        """Return the largest range of a coordinate over the best points."""
        return {"spread": float(extent(state.best).max())}

    def _move(self, state: PSOState) -> PSOState:
        """Return the state with every particle moved on."""
        frame, size = state.frame, len(state.values)
        leaders = self._leaders(state.values)
        keys = frame.key.fold("own", state.step), frame.key.fold("lead", state.step)
        height = max(1, _BLOCK // frame.dim) if frame.work.kind == "numpy" else size
        if height >= size:
            moved, velocity = self._fly(state, leaders, keys, 0, size)
            return replace(state, position=moved, velocity=velocity, first=0)
        moved, velocity = np.empty_like(state.position), np.empty_like(state.velocity)
        for start in range(0, size, height):
            rows = slice(start, min(start + height, size))
            moved[rows], velocity[rows] = self._fly(state, leaders, keys, rows.start, rows.stop)
        return replace(state, position=moved, velocity=velocity, first=0)

    def _fly(
        self, state: PSOState, leaders: Matrix, keys: tuple[Key, Key], start: int, stop: int
    ) -> tuple[Array, Array]:
        """Return where some particles are next, and how fast."""
        frame, x, leaders = state.frame, state.position[start:stop], leaders[start:stop]
        own, lead = state.best[start:stop], take(state.best, leaders)
        valued = state.values[start:stop] < np.inf
        if np.count_nonzero(valued) < len(valued):
            xp = array_module(x)
            own = xp.where(beside(x, valued[:, None]), own, x)
            lead = xp.where(beside(x, (state.values[leaders] < np.inf)[:, None]), lead, x)
        with np.errstate(over="ignore", invalid="ignore"):
            velocity = self.inertia * state.velocity[start:stop]
            for key, point, factor in zip(keys, (own, lead), (self.cognitive, self.social), strict=True):
                pull = key.coarse(start, stop, frame.dim, like=frame.work)
                pull *= factor
                pull *= point - x
                velocity += pull
            if frame.bounds is None:
                moved = x + velocity
            else:
                moved, velocity = _bounce(frame.bounds, x, velocity)
            if not is_finite(moved):
                xp = array_module(x)
                kept = xp.isfinite(moved)
                moved, velocity = xp.where(kept, moved, x), xp.where(kept, velocity, 0)
        return moved, velocity

    def _leaders(self, values: Matrix) -> Matrix:
        """Return for each particle the index of its best neighbour."""
        if self.topology == "global":
            return np.full(len(values), values.argmin())
        around = _ring(len(values))
        return around[around[:, 0], values.take(around).argmin(1)]


@functools.lru_cache(maxsize=64)
def _ring(size: int) -> Matrix:
    """Return each particle's neighbours, itself first, shape (size, 3)."""
    own = np.arange(size)
    around = np.stack([own, (own - 1) % size, (own + 1) % size], 1)
    around.flags.writeable = False
    return around


def _bounce(bounds: Bounds, x: Array, velocity: Array) -> tuple[Array, Array]:
    """Move points inside a box; return where they are then, and how fast."""
    xp = array_module(x)
    lower, upper = bounds.sides(x)
    width = upper - lower
    velocity = xp.minimum(xp.maximum(velocity, -width), width)
    ahead = x + velocity
    nearest = xp.minimum(xp.maximum(ahead, lower), upper)
    back = nearest - ahead  # one mirror is enough: nobody goes further than the box is wide
    moved = xp.minimum(xp.maximum(nearest + back, lower), upper)
    return moved, xp.where(back == 0, velocity, _BOUNCE * velocity)
