"""Descent along estimated gradients: the one class that every such method is a choice of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Rows
from zoo.core.validation import check_choice, check_fraction, check_number, check_positive
from zoo.estimators.finite_difference import FiniteDifference, FiniteDifferenceState
from zoo.updates.chain import Chain, Update

_GROW, _SHRINK = 2.0, 0.5  # their product is 1: where noise alone decides, the step size stays
_PATIENCE = 3  # tries along one direction
_LONGEST = 1e8  # first step sizes: where nothing ends the descent, no number overflows


@state
class DescentState:
    """What a descent knows.

    Attributes:
        x: Where the search is, shape (dim,), in working precision.
        value: Value there, infinite where there is none.
        direction: Where it goes next: -direction, of length 1; None where the gradient is due.
        first: Length of the first step.
        step_size: Length of the next step.
        failures: Tries along `direction` so far, none of them better.
        estimates: Estimates so far.
        estimator: The estimator's state.
        update: The update's memory.
        key: Key of the run.
        step: Number of the next step.
        nfev: Evaluations told so far.
        budget: Evaluations there will be, or None.
    """

    x: Array
    value: float
    direction: Array | None
    first: float
    step_size: float
    failures: int
    estimates: int
    estimator: FiniteDifferenceState
    update: Any
    key: Key
    step: int
    nfev: int
    budget: int | None


@dataclass(frozen=True)
class Descent:
    """Steps against estimated gradients, in one of two ways.

    With a number as learning rate, the textbook's: after each estimate g at step k = 0, 1, ...

        x <- project(x - learning_rate / (k + 1 + delay)^decay * update(g))

    With "auto", a search that needs no knowledge of the objective's scale. Two kinds of step take turns. One
    estimates g at x and takes d = update(g / |g|), made to length 1. The other evaluates x and x - s d in
    one step, so that both see the same noise. If the latter is lower, x moves there, s doubles, and the
    gradient is due again; if not, s is halved and the same d tried again, up to three times, after which
    the update's memory is cleared and the gradient estimated anew. s starts at half of `scale` per
    coordinate. So x never gets worse, multiplying the objective by a number changes nothing, and neither
    does adding one, up to rounding.

    Bounds: x is projected onto the box, candidates are turned round at its walls
    (`zoo.estimators.displaced.Displaced`), and under "auto" a gradient loses the coordinates in
    which it would only push x against a wall. Every other estimate then holds coordinates that are at a
    wall, as slopes across walls may drown those along them in an estimate from few directions. Where
    `scale` differs between coordinates, the descent happens in coordinates divided by it.

    A step without any usable difference moves nothing; under "auto" it halves s. Towards the end of the
    budget a step has fewer directions, down to one.

    Args:
        estimator: Where gradients come from.
        update: What is made of them; the gradient itself by default.
        learning_rate: Length of a step per unit of update(g), or "auto".
        decay: How fast the learning rate falls, at least 0 and below 1; 0 for never.
        delay: Steps by which the fall is put off, at least 0.

    Raises:
        ValueError: An argument is out of range, or `decay` or `delay` come with "auto".

    Example:
        >>> from zoo.estimators.finite_difference import FiniteDifference
        >>> method = Descent(FiniteDifference("axes", smoothing=1e-3), learning_rate=0.25)
        >>> state = method.init(np.array([1.0, -2.0]), key=Key(0))
        >>> for _ in range(20):
        ...     points = method.ask(state).rows(0, 4)
        ...     state = method.tell(state, Evaluations((points**2).sum(1)))
        >>> bool(abs(method.recommend(state)).max() < 1e-5)
        True
    """

    estimator: FiniteDifference = field(default_factory=FiniteDifference)
    update: Update = field(default_factory=Chain)
    learning_rate: float | str = "auto"
    decay: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.learning_rate, str):
            check_choice("learning_rate", self.learning_rate, ("auto",))
        else:
            check_positive("learning_rate", self.learning_rate)
        check_fraction("decay", self.decay)
        if not 0 <= check_number("delay", self.delay) < math.inf:
            raise ValueError(f"`delay` must be a finite number of at least 0, got {self.delay!r}.")
        if self.learning_rate == "auto" and (self.decay or self.delay):
            raise ValueError("`decay` and `delay` need a number as `learning_rate`, got 'auto'.")

    compares_within_steps = True

    @property
    def recommends_evaluated(self) -> bool:
        """Whether what is recommended has been evaluated: under "auto"."""
        return self.learning_rate == "auto"

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> DescentState:
        estimator = self.estimator.init(x0, bounds=bounds, scale=scale)
        x = estimator.work.asarray(x0) + 0
        length = float(np.max(to_numpy(scale))) * math.sqrt(self.estimator.law.size(len(x))) / 2
        return DescentState(
            x, math.inf, None, length, length, 0, 0, estimator, self.update.init(x), key, 0, 0, budget
        )

    def ask(self, state: DescentState) -> Candidates:
        if state.direction is not None:
            return Rows(self._pair(state))
        return self.estimator.ask(
            state.estimator,
            state.x,
            state.key.fold("directions"),
            state.step,
            num_directions=self._num_directions(state),
            base=self.recommends_evaluated,
            held=self._held(state),
        )

    def tell(self, state: DescentState, evaluations: Evaluations) -> DescentState:
        if state.direction is not None:
            return self._compared(state, evaluations)
        estimator, estimate = self.estimator.estimate(
            state.estimator,
            state.x,
            evaluations,
            state.key.fold("directions"),
            state.step,
            num_directions=self._num_directions(state),
            base=self.recommends_evaluated,
            held=self._held(state),
        )
        known = {
            "estimator": estimator,
            "estimates": state.estimates + 1,
            "nfev": state.nfev + len(evaluations),
        }
        if not self.recommends_evaluated:
            return self._moved(state, estimate.gradient, estimate.num_valid, known)
        value = estimate.value if math.isfinite(estimate.value) else state.value
        if estimate.num_valid == 0 and len(evaluations) > 1:
            return _next(state, step_size=state.step_size * _SHRINK, value=value, **known)
        gradient = _normalized(self._free(state, estimate.gradient))
        if gradient is None:
            return _next(state, value=value, **known)
        memory, direction = self.update.update(state.update, gradient)
        direction = _normalized(self._free(state, direction))
        return _next(state, value=value, update=memory, direction=direction, failures=0, **known)

    def recommend(self, state: DescentState) -> Array:
        return state.estimator.cast(state.x[None])[0]

    def finished(self, state: DescentState) -> str | None:
        if self.recommends_evaluated and state.step_size < 1e-3 * state.estimator.work.epsilon * (
            float(abs(state.x).max()) + 1e-200
        ):
            return "the step size is lost in the rounding of x"
        return None

    def diagnostics(self, state: DescentState) -> dict[str, Any]:
        known = {"current_value": state.value, "smoothing": state.estimator.smoothing}
        if self.recommends_evaluated:
            known["step_size"] = state.step_size
        if state.estimator.precision is not None:
            known["noise"] = state.estimator.precision.noise
        return known

    def _num_directions(self, state: DescentState) -> int:
        """Return how many directions a step has: fewer where the budget ends, at least 1 if any fits."""
        count = self.estimator.count(len(state.x))
        if state.budget is None:
            return count
        search = self.recommends_evaluated
        left = state.budget - state.nfev - (2 if search else 0)  # a direction is worth nothing untried
        one, two = (self.estimator.queries(n, base=search) for n in (1, 2))
        fitting = 1 + (left - one) // (two - one)
        return min(count, max(fitting, 0 if search else 1))

    def _pair(self, state: DescentState) -> Array:
        """Return the rows of a comparison: x and the target; the latter alone for the last evaluation."""
        rows = array_module(state.x).stack([state.x, self._target(state)])
        alone = state.budget is not None and state.budget - state.nfev < 2
        return state.estimator.cast(rows[1:] if alone else rows)

    def _target(self, state: DescentState) -> Array:
        assert state.direction is not None
        step = state.direction * state.step_size
        if state.estimator.stretch is not None:
            step = step * state.estimator.stretch
        return self._projected(state, state.x - step)

    def _compared(self, state: DescentState, evaluations: Evaluations) -> DescentState:
        asked = len(self._pair(state))
        if len(evaluations) != asked:
            raise ValueError(f"`evaluations` must have {asked} values, got {len(evaluations)}.")
        *before, after = evaluations.values.tolist()
        value = before[0] if before and math.isfinite(before[0]) else state.value
        nfev = state.nfev + asked
        if after < value:
            length = min(state.step_size * _GROW, state.first * _LONGEST)
            due = self._affords(state, nfev)
            return _next(
                state,
                x=self._target(state),
                value=after,
                direction=None if due else state.direction,
                step_size=length,
                failures=0,
                nfev=nfev,
            )
        failures, length = state.failures + 1, state.step_size * _SHRINK
        if failures < _PATIENCE or not self._affords(state, nfev):
            return _next(state, value=value, step_size=length, failures=failures, nfev=nfev)
        memory = self.update.init(state.x)
        return _next(
            state, value=value, update=memory, direction=None, step_size=length, failures=0, nfev=nfev
        )

    def _affords(self, state: DescentState, nfev: int) -> bool:
        """Return whether another estimate, and a step along it, fit into the budget."""
        return state.budget is None or self.estimator.queries(1, base=True) + 2 <= state.budget - nfev

    def _moved(
        self, state: DescentState, gradient: Array, num_valid: int, known: dict[str, Any]
    ) -> DescentState:
        if num_valid == 0:
            return _next(state, **known)
        memory, direction = self.update.update(state.update, gradient)
        step = direction * (float(self.learning_rate) / (state.step + 1 + self.delay) ** self.decay)
        if state.estimator.stretch is not None:
            step = step * state.estimator.stretch
        return _next(state, x=self._projected(state, state.x - step), update=memory, **known)

    def _held(self, state: DescentState) -> Array | None:
        """Return which coordinates stay where they are in the next estimate, or None for none."""
        bounds = state.estimator.bounds
        if bounds is None or not self.recommends_evaluated or state.estimates % 2 == 0:
            return None
        lower, upper = bounds.sides(state.x)
        held = (state.x <= lower) | (state.x >= upper)
        return held if held.any() and not held.all() else None

    def _free(self, state: DescentState, gradient: Array) -> Array:
        """Return the gradient without what would only push x against a wall that it is at."""
        bounds = state.estimator.bounds
        if bounds is None:
            return gradient
        lower, upper = bounds.sides(state.x)
        blocked = ((state.x <= lower) & (gradient > 0)) | ((state.x >= upper) & (gradient < 0))
        return array_module(gradient).where(blocked, 0, gradient)

    def _projected(self, state: DescentState, x: Array) -> Array:
        bounds = state.estimator.bounds
        return x if bounds is None else bounds.map(x, "clip")


def _next(state: DescentState, **changes: Any) -> DescentState:
    fields = {name: getattr(state, name) for name in DescentState.__dataclass_fields__}
    return DescentState(**{**fields, "step": state.step + 1, **changes})


def _normalized(gradient: Array) -> Array | None:
    """Return the gradient made to length 1, or None where it has no direction."""
    peak = float(abs(gradient).max())  # divided out first: squares overflow, or vanish
    if not 0 < peak < math.inf:
        return None
    gradient = gradient / peak
    return gradient / float((gradient * gradient).sum()) ** 0.5
