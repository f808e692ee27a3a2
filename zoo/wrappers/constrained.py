"""Constraints for methods that know nothing of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer, Rows
from zoo.core.validation import check_flag
from zoo.wrappers import merit
from zoo.wrappers.merit import Lagrangian
from zoo.wrappers.surrogate import FIRST_RADIUS, LARGEST_DIM, Surrogate, empty, extended, judged, proposing

Matrix = np.ndarray[Any, Any]

_LARGEST = 1e90  # value or constraint; squares and sums of such are numbers yet
_ALONE = 6  # steps on end that are a proposal and nothing else
_LAST = 20  # such steps at the end, as a multiple of what a linear model has unknowns


@state
class Frame:
    """What a run was begun with.

    Attributes:
        like: Kind, dtype and device of rows.
        bounds: Box, or None.
        origin: Where the surrogate's coordinates are 0, shape (dim,).
        width: What is 1 in them, shape (dim,).
        budget: Evaluations there will be, or None.
    """

    like: Like
    bounds: Bounds | None
    origin: Matrix
    width: Matrix
    budget: int | None


@state
class ConstrainedState:
    """Where a constrained search is.

    Attributes:
        frame: What it was begun with.
        inner: State of the method.
        nfev: Evaluations told.
        alone: Steps since the method was asked last.
        lagrangian: What the method is told by, if it compares within steps, once there are constraints.
        weights: What it is told by, if it goes by more than the order of values, once there are constraints.
        inside: Under noise: the best candidate of the last step of the method in which one kept to the
            constraints, shape (dim,); None before there is one.
        surrogate: Models around the best point, once there are constraints and unless there are too many
            variables, or several objectives.
    """

    frame: Frame
    inner: Any
    nfev: int = 0
    alone: int = 0
    lagrangian: Lagrangian | None = None
    weights: Matrix | None = None
    inside: Any = None
    surrogate: Surrogate | None = None


class Proposed(Candidates):
    """Candidates of a method, and one row behind them.

    Args:
        inner: The method's.
        row: Shape (1, dim), of the same kind.
    """

    __slots__ = ("inner", "row")

    def __init__(self, inner: Candidates, row: Array) -> None:
        self.inner, self.row = inner, row

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def decisive(self) -> bool:
        return self.inner.decisive

    def __len__(self) -> int:
        return len(self.inner) + 1

    def rows(self, start: int, stop: int) -> Array:
        own = len(self.inner)
        if stop <= own:
            return self.inner.rows(start, stop)
        if start >= own:
            return self.row[start - own : stop - own] + 0
        before = self.inner.rows(start, own)
        if isinstance(before, np.ndarray):
            return np.concatenate([before, self.row])
        import torch

        return torch.cat([before, self.row])

    def noise(self, start: int, stop: int) -> Matrix:
        own = len(self.inner)
        before = self.inner.noise(min(start, own), min(stop, own))
        return np.concatenate([before, np.zeros(stop - start - len(before), np.int64)])


@dataclass(frozen=True, eq=False)
class Constrained:
    """Keep a method to constraints, by what it is told and by points that models propose.

    Evaluations come with constraints g as `extras["constraints"]`, shape (n, m), and g <= 0 is wanted. What
    the method is told for f and g depends on what it does with values.

    * It compares those of one step with each other only (`compares_within_steps`, as an evolution strategy
      does): an augmented Lagrangian, which may change from step to step,

          f + sum_i [ l_i h_i + p_i h_i^2 / 2   where l_i + p_i h_i >= 0,   else - l_i^2 / (2 p_i) ].

      The multipliers l are those that leave the least variance of f + l g over the last candidates, with
      l >= 0, and 0 for constraints that are further away than two deviations. If candidates are close
      together, this is |grad f + l grad g| made least in the metric of their distribution: no multiplier
      has to be waited for. Penalties p_i are such that p_i Var(g_i) is what is left of the deviation of f,
      and change by a factor of at most e^.5 a step. h = g + c std(g), in which c grows by .1 with each step
      none of whose candidates keeps to all constraints, and shrinks by .7 with any other.
    * It goes by the order of values (`ranks`): f where all constraints are kept to, else 10^200 times the sum
      of the violations, so that any point inside comes before any outside.
    * It goes by the values themselves: f plus violations, weighted once and for all by the first values.

    With up to 15 variables, quadratic models of f and of each g are fitted to the points near the best one,
    and a step has another row, behind the method's: the least model value within the models of the
    constraints and a trust region, or one that makes the models better. Up to six steps on end hold this row
    alone; so do those after the method has finished. Once the trust region has shrunk to nothing, there is
    no such row until the method finds a better point elsewhere. Nor is there any for a method whose
    candidates keep to a set of their own (`keeps_to_set`), which models would leave.

    Args:
        optimizer: The method.
        ranks: Whether it goes by the order of values.
        noise: Whether values are random, so that what is recommended is the result. It is then the best
            candidate inside of the method's last step that has one: a mean may be a hair outside.

    Raises:
        TypeError: `ranks` or `noise` is not True or False.

    Example:
        >>> from zoo.methods.cma_es import CMAES
        >>> method = Constrained(CMAES())
        >>> state = method.init(np.array([2.0, 0.0]), key=Key(0))
        >>> for _ in range(100):
        ...     candidates = method.ask(state)
        ...     x = candidates.rows(0, len(candidates))
        ...     g = 1 - x.sum(1, keepdims=True)  # x_1 + x_2 >= 1
        ...     state = method.tell(state, Evaluations((x**2).sum(1), extras={"constraints": g}))
        >>> bool(abs(method.recommend(state) - 0.5).max() < 0.05)
        True

    Sources: for the Lagrangian, A. Atamna, A. Auger and N. Hansen, Linearly Convergent Evolution Strategies
    via Augmented Lagrangian Constraint Handling, 2017, https://hal.archives-ouvertes.fr/hal-01455379, where
    multipliers and penalties follow rules of their own, and the mean of the distribution is evaluated; for
    the order, `zoo.wrappers.merit`; for the models, `zoo.wrappers.surrogate`.
    """

    optimizer: Optimizer[Any]
    ranks: bool = False
    noise: bool = False

    def __post_init__(self) -> None:
        check_flag("ranks", self.ranks)
        check_flag("noise", self.noise)

    @property
    def recommends_evaluated(self) -> bool:
        """As of the method."""
        return self.optimizer.recommends_evaluated

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ConstrainedState:
        inner = self.optimizer.init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known)
        origin = np.array(to_numpy(x0), np.float64)
        # A third of the scale is the first radius: as far as a first step of most methods reaches.
        width = np.array(np.broadcast_to(np.asarray(scale, np.float64) / (3 * FIRST_RADIUS), origin.shape))
        if bounds is not None:
            boxed = np.isfinite(bounds.lower) & np.isfinite(bounds.upper) & (bounds.upper > bounds.lower)
            origin[boxed], width[boxed] = bounds.lower[boxed], (bounds.upper - bounds.lower)[boxed]
        return ConstrainedState(Frame(Like.of(x0), bounds, origin, width, budget), inner)

    def ask(self, state: ConstrainedState) -> Candidates:
        """Return the method's candidates and what is proposed, or one of the two alone."""
        row = self._proposal(state)
        if row is None:
            return self.optimizer.ask(state.inner)
        candidates = None if self._pauses(state) else self.optimizer.ask(state.inner)
        left = None if state.frame.budget is None else state.frame.budget - state.nfev
        if candidates is None or (left is not None and len(candidates) >= left > 0):
            # What is left of the budget is no whole step any more, and better spent one by one.
            return Rows(row)
        return Proposed(candidates, row)

    def tell(self, state: ConstrainedState, evaluations: Evaluations) -> ConstrainedState:
        """Return the state after the values and constraints of everything asked for.

        Raises:
            ValueError: There are not as many as candidates, or values without constraints.
        """
        candidates = self.ask(state)
        count = len(candidates)
        if len(evaluations) != count:
            raise ValueError(f"`evaluations` must hold the {count} values asked for, got {len(evaluations)}.")
        values, constraints = _split(evaluations)
        proposed = self._proposal(state) is not None
        own = count - proposed
        after = replace(state, nfev=state.nfev + count, alone=0 if own else state.alone + 1)
        if own:
            after = self._told(after, evaluations, values, constraints, own)
            if self.noise and constraints is not None:
                within = np.where((constraints[:own] <= 0).all(1), values[:own], np.nan)
                if np.isfinite(within).any():
                    best = int(np.nanargmin(within))
                    after = replace(after, inside=candidates.rows(best, best + 1)[0])
        modelled = (
            len(state.frame.width) <= LARGEST_DIM
            and "objectives" not in evaluations.extras
            and not getattr(self.optimizer, "keeps_to_set", False)
        )
        if constraints is None or not modelled:
            surrogate = after.surrogate
            if surrogate is not None and proposed:
                surrogate = judged(surrogate, np.nan, np.full(len(surrogate.margins), np.nan))
            return replace(after, surrogate=surrogate)
        surrogate = after.surrogate or empty(len(state.frame.width), constraints.shape[1])
        if proposed:
            surrogate = judged(surrogate, float(values[-1]), constraints[-1])
        valid = np.isfinite(values)
        frame = state.frame
        points = (to_numpy(candidates.rows(0, count)).astype(np.float64) - frame.origin) / frame.width
        surrogate = extended(surrogate, points[valid], values[valid], constraints[valid])
        return replace(after, surrogate=proposing(surrogate, *_walls(frame)))

    def recommend(self, state: ConstrainedState) -> Array:
        return self.optimizer.recommend(state.inner) if state.inside is None else state.inside + 0

    def finished(self, state: ConstrainedState) -> str | None:
        """Return the method's reason, once models have nothing to propose any more."""
        reason = self.optimizer.finished(state.inner)
        goes_on = self._proposal(state) is not None and state.alone < _LAST * (len(state.frame.width) + 1)
        return None if goes_on else reason

    def diagnostics(self, state: ConstrainedState) -> dict[str, Any]:
        """Return the method's, what it is told by, and how far models are trusted."""
        known = self.optimizer.diagnostics(state.inner)
        if state.lagrangian is not None:
            known["multipliers"] = state.lagrangian.multipliers.copy()
            known["penalties"] = np.exp(state.lagrangian.penalties)
        if state.surrogate is not None:
            known["radius"] = state.surrogate.radius
        return known

    def _proposal(self, state: ConstrainedState) -> Array | None:
        """Return the row proposed, shape (1, dim), or None."""
        surrogate, frame = state.surrogate, state.frame
        if surrogate is None or surrogate.proposal is None:
            return None
        row = frame.like.asarray((frame.origin + frame.width * surrogate.proposal)[None])
        return row if frame.bounds is None else frame.bounds.map(row, "clip")

    def _pauses(self, state: ConstrainedState) -> bool:
        """Whether the method is not asked, where there is a proposal."""
        return state.alone < _ALONE or self.optimizer.finished(state.inner) is not None

    def _told(
        self,
        state: ConstrainedState,
        evaluations: Evaluations,
        values: Matrix,
        constraints: Matrix | None,
        count: int,
    ) -> ConstrainedState:
        """Return the state after the method was told its rows, the first `count` of all."""
        values = values[:count]
        if constraints is None or not np.isfinite(values).any():
            told = np.full(count, np.nan)
        elif getattr(self.optimizer, "compares_within_steps", False):
            constraints, valid = constraints[:count], np.isfinite(values)
            lagrangian = state.lagrangian or merit.begin(constraints.shape[1])
            lagrangian = merit.learned(lagrangian, values[valid], constraints[valid])
            told = merit.told(lagrangian, values, constraints)
            state = replace(state, lagrangian=lagrangian)
        elif self.ranks:
            told = merit.ordered(values, constraints[:count])
        else:
            constraints, valid = constraints[:count], np.isfinite(values)
            weights = state.weights
            if weights is None:
                weights = merit.penalty_weights(values[valid], constraints[valid])
            told = merit.penalized(weights, values, constraints)
            state = replace(state, weights=weights)
        failures = tuple(failure for failure in evaluations.failures if failure.row < count)
        extras = {name: extra[:count] for name, extra in evaluations.extras.items()}
        return replace(state, inner=self.optimizer.tell(state.inner, Evaluations(told, failures, extras)))


def _walls(frame: Frame) -> tuple[Matrix, Matrix]:
    """Return the walls of the box in the surrogate's coordinates."""
    if frame.bounds is None:
        return np.full(len(frame.width), -np.inf), np.full(len(frame.width), np.inf)
    lower, upper = frame.bounds.lower, frame.bounds.upper
    return (lower - frame.origin) / frame.width, (upper - frame.origin) / frame.width


def _split(evaluations: Evaluations) -> tuple[Matrix, Matrix | None]:
    """Return values, NaN where a constraint is unknown, and the constraints, None if all have failed.

    Raises:
        ValueError: There are values, but no constraints.
    """
    values, constraints = evaluations.values, evaluations.extras.get("constraints")
    if constraints is None or constraints.ndim != 2 or not constraints.shape[1]:
        if np.isfinite(values).any():
            raise ValueError(
                '`evaluations` must hold extras["constraints"] of shape (n, m), as there are values: the '
                "objective returned none."
            )
        return values, None
    missing = np.isnan(constraints).any(1)
    values = np.where(missing, np.nan, values).clip(-_LARGEST, _LARGEST)
    return values, constraints.clip(-_LARGEST, _LARGEST) if np.isfinite(values).any() else None
