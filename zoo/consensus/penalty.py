"""Consensus-based optimization under constraints, by exact penalties that grow where they are too weak."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus.cbo import CBO, CBOState
from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_number, check_positive

Matrix = np.ndarray[Any, Any]

_LARGEST = 1e90  # value or violation; sums of products of such are numbers yet
_MOST = 1e60  # by which a violation is multiplied at most


@state
class Learnt:
    """What constraints have told, of m swarms of n particles under k constraints.

    Attributes:
        multipliers: What violations are multiplied by, shape (m, k).
        sizes: What is 1 for each violation, shape (m, k).
        theta: Tolerances are theta^(-1/2) of these, shape (m, k).
        values: At the particles' best points, infinite where there is none, shape (m, n).
        violations: There, shape (m, n, k).
        best_value: At the best point of each swarm, infinite before there is one, shape (m,).
        best_violations: There, shape (m, k).
    """

    multipliers: Matrix
    sizes: Matrix
    theta: Matrix
    values: Matrix
    violations: Matrix
    best_value: Matrix
    best_violations: Matrix


@state
class PenaltyState:
    """State of `PenaltyCBO`.

    Attributes:
        inner: The swarms, whose energies are penalized.
        learnt: None until the first constraints are told.
    """

    inner: CBOState
    learnt: Learnt | None = None


@dataclass(frozen=True)
class PenaltyCBO:
    """Consensus-based optimization of a value and its constraints, by penalties that adapt themselves.

    Evaluations come with constraints g as `extras["constraints"]`, shape (n, k), and g <= 0 is wanted. The
    swarm is that of `CBO`, on the energies

        f(x) + sum_j beta_j max(g_j(x), 0),

    for which a solution of the constrained problem is one of this as soon as beta is large enough, not only
    in the limit. After each step, of the best point under these energies and for each j,

        theta_j  <-  tolerance_growth theta_j     if max(g_j, 0) <= size_j / sqrt(theta_j),
        beta_j   <-  penalty_growth beta_j        else,

    so that a penalty grows until its constraint is kept to within a tolerance, and the tolerance falls from
    then on. Sizes are the deviations of the g_j over the first particles. What particles remember is weighed
    anew when penalties change. Without constraints this is `CBO`.

    Args:
        penalty: beta at the beginning, in units of the deviation of f over the first particles, for each
            size of a violation.
        penalty_growth: How fast penalties grow, at least 1.
        tolerance_growth: How fast tolerances fall, at least 1.
        num_particles: See `CBO`, as for all that follow.
        drift: See there.
        sigma: See there.
        dt: See there.
        alpha: See there.
        num_coordinates: See there.
        explorers: See there.
        tolx: See there.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = PenaltyCBO()
        >>> state = method.init(np.array([2.0, 0.0]), key=Key(0))
        >>> for _ in range(200):
        ...     candidates = method.ask(state)
        ...     x = candidates.rows(0, len(candidates))
        ...     g = 1 - x.sum(1, keepdims=True)  # x_1 + x_2 >= 1
        ...     state = method.tell(state, Evaluations((x**2).sum(1), extras={"constraints": g}))
        >>> bool(abs(method.recommend(state) - 0.5).max() < 0.05)
        True

    Source: G. Borghi, M. Herty and L. Pareschi, Constrained Consensus-Based Optimization, 2023,
    https://arxiv.org/abs/2111.10571. There, one beta multiplies the sum of all violations, and particles have
    no memory.
    """

    penalty: float = 1.0
    penalty_growth: float = 1.1
    tolerance_growth: float = 1.1
    num_particles: int = 20
    drift: float = 1.0
    sigma: float = 8.0
    dt: float = 0.01
    alpha: float = math.inf
    num_coordinates: int | None = 3
    explorers: float = 0.8
    tolx: float = 1e-12

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_positive("penalty", self.penalty)
        for name in ("penalty_growth", "tolerance_growth"):
            if not 1 <= check_number(name, getattr(self, name)) < math.inf:
                raise ValueError(f"`{name}` must be finite and at least 1, got {getattr(self, name)!r}.")
        _ = self._swarm  # which refuses what it cannot be made of

    @functools.cached_property
    def _swarm(self) -> CBO:
        return CBO(
            num_particles=self.num_particles,
            drift=self.drift,
            sigma=self.sigma,
            dt=self.dt,
            alpha=self.alpha,
            num_coordinates=self.num_coordinates,
            explorers=self.explorers,
            tolx=self.tolx,
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
    ) -> PenaltyState:
        """Return the first state; see `CBO.init`."""
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
    ) -> PenaltyState:
        """Return the first state of as many swarms as there are keys; each goes its own way."""
        return PenaltyState(
            self._swarm.init_many(x0, keys=keys, bounds=bounds, scale=scale, budget=budget, known=known)
        )

    def ask(self, state: PenaltyState) -> Candidates:
        """Return the particles; fewer where the budget ends."""
        return self._swarm.ask(state.inner)

    def tell(self, state: PenaltyState, evaluations: Evaluations) -> PenaltyState:
        """Return the state after the values and constraints of all particles.

        Raises:
            ValueError: There are not as many as candidates, or values without constraints where there were
                some before.
        """
        swarm, inner, learnt = self._swarm, state.inner, state.learnt
        values, constraints = evaluations.values, evaluations.extras.get("constraints")
        if constraints is None:
            if learnt is not None and np.isfinite(values).any():
                raise ValueError(
                    '`evaluations` must hold extras["constraints"] as before, where there are values.'
                )
            return replace(state, inner=swarm.tell(inner, evaluations))
        m, count = len(inner.anchor), swarm.wanted(inner)
        if len(evaluations) != m * count:
            raise ValueError(
                f"`evaluations` must hold the {m * count} values asked for, got {len(evaluations)}."
            )
        found = np.maximum(constraints, 0.0).clip(max=_LARGEST).reshape(m, count, -1)
        failed = np.isnan(found).any(2) | np.isnan(values.reshape(m, count))
        heights = np.where(failed, np.inf, values.reshape(m, count).clip(-_LARGEST, _LARGEST))
        found[failed] = 0.0
        if learnt is None:
            if failed.all():
                return replace(state, inner=swarm.tell(inner, evaluations))
            learnt = self._begun(heights, constraints.reshape(m, count, -1), self.num_particles)
        energies = penalized(heights, found, learnt.multipliers)
        remembered = penalized(learnt.values, learnt.violations, learnt.multipliers)
        best = penalized(learnt.best_value[:, None], learnt.best_violations[:, None], learnt.multipliers)[
            :, 0
        ]
        members = replace(inner.members, remembered=remembered)
        told = np.where(np.isfinite(energies), energies, np.nan).reshape(-1)
        inner = swarm.tell(replace(inner, members=members, best_value=best), Evaluations(told))
        learnt = _kept(learnt, heights, found, energies <= remembered[:, :count], energies, best)
        return PenaltyState(inner, self._adapted(learnt))

    def _begun(self, heights: Matrix, constraints: Matrix, size: int) -> Learnt:
        """Return what is known of constraints when the first of them are told, shape (m, count, k)."""
        m, _, k = constraints.shape
        sizes, weights = np.ones((m, k)), np.ones(m)
        for swarm in range(m):
            valid = np.isfinite(heights[swarm])
            if valid.any():
                sizes[swarm] = _size(constraints[swarm][valid].clip(-_LARGEST, _LARGEST))
                weights[swarm] = _size(heights[swarm][valid])
        multipliers = np.minimum(self.penalty * weights[:, None] / sizes, _MOST)
        infinite = np.full((m, size), np.inf)
        return Learnt(
            multipliers,
            sizes,
            np.ones((m, k)),
            infinite,
            np.zeros((m, size, k)),
            np.full(m, np.inf),
            np.zeros((m, k)),
        )

    def _adapted(self, learnt: Learnt) -> Learnt:
        """Return it with penalties or tolerances changed, in swarms that have a best point."""
        is_known = np.isfinite(learnt.best_value)[:, None]
        is_kept = learnt.best_violations <= learnt.sizes / np.sqrt(learnt.theta)
        theta = np.where(is_known & is_kept, learnt.theta * self.tolerance_growth, learnt.theta)
        grown = np.minimum(learnt.multipliers * self.penalty_growth, np.maximum(learnt.multipliers, _MOST))
        multipliers = np.where(is_known & ~is_kept, grown, learnt.multipliers)
        return replace(learnt, theta=np.minimum(theta, 1e300), multipliers=multipliers)

    def recommend(self, state: PenaltyState) -> Array:
        """Return the best point so far under the penalties, or x0 before there is any."""
        return self._swarm.recommend(state.inner)

    def recommend_many(self, state: PenaltyState) -> Array:
        """Return what is recommended of each swarm, shape (m, dim)."""
        return self._swarm.recommend_many(state.inner)

    def finished(self, state: PenaltyState) -> str | None:
        """Return which stopping rule holds, or None."""
        return self._swarm.finished(state.inner)

    def diagnostics(self, state: PenaltyState) -> dict[str, Any]:
        """Return those of `CBO`, and with constraints the penalties."""
        found = self._swarm.diagnostics(state.inner)
        if state.learnt is not None:
            found["penalties"] = state.learnt.multipliers[0].copy()
        return found


def penalized(values: Matrix, violations: Matrix, multipliers: Matrix) -> Matrix:
    """Return f + sum_j beta_j violation_j; infinite where f is.

    Args:
        values: Shape (m, n).
        violations: At least 0, shape (m, n, k).
        multipliers: Shape (m, k).
    """
    return values + (violations * multipliers[:, None]).sum(2)


def _size(numbers: Matrix) -> Matrix:
    """Return the deviation over the first axis, or where there is none what they are, or 1."""
    deviation, size = numbers.std(0), abs(numbers).mean(0)
    return np.where(deviation > 1e-12 * size, deviation, np.where(size > 0, size, 1.0))


def _kept(
    learnt: Learnt, values: Matrix, violations: Matrix, improved: Matrix, energies: Matrix, best: Matrix
) -> Learnt:
    """Return it with what particles remember brought up to date, as `CBO` does with the points."""
    count = values.shape[1]
    kept, there = learnt.values.copy(), learnt.violations.copy()
    kept[:, :count] = np.where(improved, values, kept[:, :count])
    there[:, :count] = np.where(improved[..., None], violations, there[:, :count])
    learnt = replace(learnt, values=kept, violations=there)
    if not count:
        return learnt
    index = energies.argmin(1)[:, None]
    better = np.take_along_axis(energies, index, 1)[:, 0] < best
    value = np.take_along_axis(values, index, 1)[:, 0]
    violation = np.take_along_axis(violations, index[..., None], 1)[:, 0]
    return replace(
        learnt,
        best_value=np.where(better, value, learnt.best_value),
        best_violations=np.where(better[:, None], violation, learnt.best_violations),
    )
