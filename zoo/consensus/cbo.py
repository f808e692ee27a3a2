"""Consensus-based optimization: particles that drift towards a consensus point and diffuse around it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus import dynamics, noise, weights
from zoo.consensus.swarm import STARTS, Frame, Particles, begin, confine, place, scatter, spread_of
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_number,
    check_positive,
)
from zoo.methods.population import CHECK_EVERY

Matrix = np.ndarray[Any, Any]

SCHEDULES = ("constant", "multiply", "effective-sample-size", "cooling")
_REACH = 1e4  # units of scale from the consensus point, which no particle goes beyond


@state
class CBOState:
    """State of `CBO`, of m swarms of n particles.

    Attributes:
        frame: What the swarms were begun with.
        step: Steps told.
        nfev: Evaluations told, of each swarm.
        moves: Times that particles have moved.
        anchor: The consensus points, shape (m, dim), float64; x0 before there are any.
        offsets: Where the particles are from there, shape (m, n, dim).
        memory: The best points that they have been at, from there too, shape (m, n, dim); no rows without memory.
        remembered: Values there, infinite where there is none yet, shape (m, n).
        best: The best point of each swarm, shape (m, dim), float64.
        best_value: Its value, infinite before there is one, shape (m,).
        alpha: Inverse temperatures, shape (m,).
        sample_size: Effective sample sizes of the last consensus points, shape (m,).
        energies: What is kept while the values of the consensus points are awaited, shape (m, n); else no rows.
    """

    frame: Frame
    step: int
    nfev: int
    moves: int
    anchor: Array
    offsets: Array
    memory: Array
    remembered: Matrix
    best: Array
    best_value: Matrix
    alpha: Matrix
    sample_size: Matrix
    energies: Matrix


@dataclass(frozen=True)
class CBO:
    """Consensus-based optimization.

    TO BE WRITTEN BY ITS OWNER.
    """

    num_particles: int = 20
    drift: float = 1.0
    sigma: float = 8.0
    dt: float = 0.01
    alpha: float = math.inf
    alpha_schedule: str = "constant"
    alpha_rate: float = 1.05
    max_alpha: float = 1e15
    sample_share: float = 0.5
    noise: str = "anisotropic"
    integrator: str = "euler-maruyama"
    truncation: float = math.inf
    memory: str = "greedy"
    num_coordinates: int | None = 3
    explorers: float = 0.5
    explorer_scale: float = 0.6
    elitist: bool = True
    start: str = "normal"
    precision: str = "double"
    tolx: float = 1e-12
    allow_divergence: bool = False

    recommends_evaluated = False

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        for name in ("drift", "dt"):
            check_positive(name, getattr(self, name))
        for name in ("sigma", "alpha", "truncation", "explorer_scale", "tolx"):
            if not check_number(name, getattr(self, name)) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}.")
        check_choice("alpha_schedule", self.alpha_schedule, SCHEDULES)
        check_number("alpha_rate", self.alpha_rate)
        check_number("max_alpha", self.max_alpha)
        check_fraction("sample_share", self.sample_share)
        check_choice("noise", self.noise, dynamics.NOISES)
        check_choice("integrator", self.integrator, dynamics.INTEGRATORS)
        check_choice("memory", self.memory, ("none", "greedy"))
        if self.num_coordinates is not None:
            check_count("num_coordinates", self.num_coordinates)
        if not 0 <= check_number("explorers", self.explorers) <= 1:
            raise ValueError(f"`explorers` must be from 0 to 1, got {self.explorers!r}.")
        check_flag("elitist", self.elitist)
        check_choice("start", self.start, STARTS)
        check_choice("precision", self.precision, ("single", "double"))
        check_flag("allow_divergence", self.allow_divergence)
        if self.noise == "anisotropic" and self.integrator == "euler-maruyama":
            self._check_noise(self.sigma * math.sqrt(self.dt))

    def _check_noise(self, u: float) -> None:
        if u > dynamics.LARGEST_NOISE and not self.allow_divergence:
            raise ValueError(
                f"`sigma` * sqrt(dt) must be at most {dynamics.LARGEST_NOISE}, got {u:.3g}: the swarm may fly "
                "apart. Take a smaller `sigma` or `dt`, or say `allow_divergence=True`."
            )
        if u > dynamics.LARGE_NOISE:
            warnings.warn(
                f"`sigma` * sqrt(dt) is {u:.3g}; above {dynamics.LARGE_NOISE} swarms contract slowly, above 1.57 "
                "they fly apart.",
                ZooWarning,
                stacklevel=4,
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
    ) -> CBOState:
        return self.init_many(x0, keys=(key,), bounds=bounds, scale=scale, budget=budget, known=known)

    def init_many(
        self,
        x0: Array,
        *,
        keys: Sequence[Key],
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CBOState:
        """Return the first state of as many swarms as there are keys; each goes its own way."""
        frame = begin(x0, keys, bounds, scale, budget, self.precision)
        offsets = scatter(frame, self.num_particles, self.start, known)
        anchor = array_module(offsets).stack([frame.x0] * len(keys))
        count = len(keys)
        has_memory = self.memory != "none"
        return CBOState(
            frame,
            0,
            0,
            0,
            anchor,
            offsets,
            offsets if has_memory else offsets[:, :0],
            np.full((count, self.num_particles if has_memory else 0), np.inf),
            anchor,
            np.full(count, np.inf),
            np.full(count, float(self.alpha)),
            np.zeros(count),
            np.empty((count, 0)),
        )

    def ask(self, state: CBOState) -> Candidates:
        frame, count = state.frame, self._count(state)
        return Particles(frame.like, frame.bounds, state.anchor, state.offsets[:, :count])

    def _count(self, state: CBOState) -> int:
        budget, count = state.frame.budget, int(state.offsets.shape[1])
        return count if budget is None else max(0, min(count, budget - state.nfev))

    def tell(self, state: CBOState, evaluations: Evaluations) -> CBOState:
        swarms, size = len(state.anchor), int(state.offsets.shape[1])
        count = self._count(state)
        if len(evaluations) != swarms * count:
            raise ValueError(
                f"`evaluations` must hold the {swarms * count} values asked for, got {len(evaluations)}."
            )
        energies = np.full((swarms, size), np.inf)
        energies[:, :count] = weights.energies_of(evaluations.values.reshape(swarms, count))
        state = replace(state, step=state.step + 1, nfev=state.nfev + count)
        state = self._remember(state, energies)
        points, heights = state.offsets, energies
        if self.memory != "none":
            points, heights = state.memory, state.remembered
        alpha = self._alpha(state, heights)
        edges = weights.boundaries(size)
        sums = weights.merge(
            [weights.block_sums(heights[:, a:b], points[:, a:b], alpha) for a, b in zip(edges, edges[1:])], alpha
        )
        shift = weights.centre(sums)
        squares = np.where(sums.squares > 0, sums.squares, 1.0)
        state = replace(state, alpha=alpha, sample_size=sums.total**2 / squares)
        return self._move(state, shift)

    def _remember(self, state: CBOState, energies: Matrix) -> CBOState:
        """Return the state with the best points brought up to date."""
        index = energies.argmin(1)
        lowest = energies[np.arange(len(index)), index]
        better = np.flatnonzero(lowest < state.best_value)
        best = state.best + 0
        for m in better.tolist():
            best[m] = state.anchor[m] + state.offsets[m, int(index[m])]
        state = replace(state, best=best, best_value=np.minimum(lowest, state.best_value))
        if self.memory == "none":
            return state
        improved = energies <= state.remembered
        xp = array_module(state.offsets)
        mask = improved[..., None]
        if xp is not np:
            mask = xp.from_numpy(mask).to(state.offsets.device)
        return replace(
            state,
            memory=xp.where(mask, state.offsets, state.memory),
            remembered=np.minimum(energies, state.remembered),
        )

    def _alpha(self, state: CBOState, energies: Matrix) -> Matrix:
        if self.alpha_schedule == "effective-sample-size":
            return weights.alpha_of(energies, self.sample_share, state.alpha)
        if self.alpha_schedule == "multiply" and state.moves:
            return np.minimum(state.alpha * self.alpha_rate, self.max_alpha)
        return state.alpha

    def _move(self, state: CBOState, shift: Array) -> CBOState:
        frame, size = state.frame, int(state.offsets.shape[1])
        xp = array_module(state.offsets)
        anchor = state.anchor + shift
        shift = frame.work.asarray(shift)[:, None]
        origin = state.memory if self.memory == "greedy" else state.offsets
        v = origin - shift
        a, u = self.drift * self.dt, self.sigma * math.sqrt(self.dt)
        xi = noise.normal(frame.keys, state.moves, 0, size, size, frame.dim, frame.work)
        jump = xi + 0 if self.explorers else xi
        moved = dynamics.move(v, xi, a, u, self.noise, self.integrator, self.truncation)
        if self.num_coordinates is not None and self.num_coordinates < frame.dim:
            shares = noise.signs(frame.keys, "coordinates", state.moves, size, frame.dim)
            chosen = frame.work.asarray((shares < self.num_coordinates / frame.dim) * 1.0)
            moved = xp.where(chosen > 0, moved, v)
        num_explorers = round(self.explorers * size)
        if num_explorers:
            axes = np.stack([
                key.fold("axes", state.moves).integers(0, num_explorers, 1, high=frame.dim)[:, 0]
                for key in frame.keys
            ])
            hot = frame.work.asarray((np.arange(frame.dim) == axes[..., None]) * (self.explorer_scale * frame.scale))
            moved[:, size - num_explorers :] = hot * jump[:, size - num_explorers :]
        reach = frame.work.asarray(_REACH * frame.scale)
        moved = xp.minimum(xp.maximum(moved, -reach), reach)
        memory = state.memory - shift if self.memory != "none" else state.memory
        return replace(
            state,
            moves=state.moves + 1,
            anchor=anchor,
            offsets=confine(frame, anchor, moved),
            memory=memory,
        )

    def recommend(self, state: CBOState) -> Array:
        """Return the consensus point, or with `elitist` the best point so far."""
        return self.recommend_many(state)[0]

    def recommend_many(self, state: CBOState) -> Array:
        frame = state.frame
        points = state.best if self.elitist else state.anchor
        return place(frame.like, frame.bounds, points, frame.work.asarray(points * 0))

    def finished(self, state: CBOState) -> str | None:
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        if not state.step or state.step % CHECK_EVERY or not self.tolx:
            return None
        return None

    def diagnostics(self, state: CBOState) -> dict[str, Any]:
        points = state.memory if self.memory != "none" else state.offsets
        return {
            "alpha": float(state.alpha[0]),
            "sample_size": float(state.sample_size[0]),
            "spread": float(spread_of(points)[0]),
        }
