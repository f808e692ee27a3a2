"""Limited-memory BFGS on differences along all coordinates, as a method that is asked and told."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Rows
from zoo.core.validation import check_choice, check_count, check_flag, check_fraction
from zoo.estimators.precision import Precision, next_smoothing, start_smoothing
from zoo.methods.coordinates import Coordinates, Differences, Points
from zoo.methods.population import Frame, begin, scatter

Matrix = np.ndarray[Any, Any]

STENCILS = ("auto", "forward", "central")
_SUFFICIENT = 1e-4  # share of the slope by which a step must lower the value
_PATIENCE = 4  # batches along one direction, and estimates without any slope
_NOTHING_FREE = "the bounds leave no variable free"


@state
class LBFGSState:
    """What a search knows; z are the free variables in units of scale (`zoo.methods.coordinates`).

    Attributes:
        frame: What the run was begun with.
        attempt: How often the search was begun anew.
        z: Where it is, shape (n,).
        value: Value there, in units of `unit`; NaN before there is one.
        gradient: Gradient there, shape (n,), of these values; None where it is due.
        direction: Where the next points lie, shape (n,); None where the gradient is due.
        length: Longest step of the next points, in units of `direction`.
        tries: Batches along `direction`, or estimates at z, that led nowhere.
        steps: Last changes of z, shape (m, n), the newest behind.
        changes: Changes of the gradient that came with them, shape (m, n).
        before: z and gradient of the last estimate, shape (2, n), None before any.
        central: Whether differences are central now.
        noisy: Whether the value of a point changes when it is evaluated again; None where unknown.
        precision: What is known of noise and slopes.
        smoothing: Distance of differences.
        first: First value of the attempt.
        unit: Power of two that values are divided by; 0 before there were any.
        nfev: Evaluations told so far.
        x: Best point so far, the start before there is one, shape (dim,).
        best: Value there, infinite before there is one.
        reason: Why a search came to its end, None before that.
    """

    frame: Frame
    attempt: int
    z: Matrix
    value: float
    gradient: Matrix | None
    direction: Matrix | None
    length: float
    tries: int
    steps: Matrix
    changes: Matrix
    before: Matrix | None
    central: bool
    noisy: bool | None
    precision: Precision
    smoothing: float
    first: float
    unit: float
    nfev: int
    x: Array
    best: float
    reason: str | None


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with several lengths of each step tried at once.

    Two kinds of step take turns. One estimates the gradient g at z from differences along all
    coordinates: dim evaluations, or 2 dim with the central stencil. The other evaluates

        P(z + t d)    for num_trials lengths t,    d = -H g,

    where P projects onto the box and H is the inverse Hessian that BFGS makes of the last `memory` pairs
    s = change of z and y = change of g, from (s y / y y) I on, by the two-loop recursion. Coordinates that
    g only pushes against a wall are left out of it. z moves to the lowest of the values that are below
    f(z) + 1e-4 g (P(z + t d) - z). The lengths are 1, 1/2, 2, 1/4, 4, ... with a memory, else 1, 1/4,
    1/16, ... |d|; if none of them will do, shorter ones are tried, around what a parabola suggests, and after
    four batches the memory is cleared. Pairs without positive curvature are not remembered.

    With the stencil "auto" differences are forward until they lead no further, then central. If the first
    point that is evaluated again has another value, the function counts as noisy: from then on differences
    are central, every step evaluates z as well, and the distance of differences follows the noise
    (`zoo.estimators.precision`).

    A failed evaluation is a slope of 0, or a length that will not do. The search starts at x0, or at the best
    point that is known. When the start has no value, or no slope is to be had, and after its end, it begins
    anew: where the failed step had a value, if anywhere, else at a random point, uniform where both walls
    are finite and x0 + scale * normal elsewhere.

    Args:
        memory: Pairs that are remembered.
        num_trials: Lengths that are tried at once; None for 3, or 1 where there are less than 8 variables.
        stencil: "auto", "forward" or "central".
        ftol: Ends where -g d / 2, the decrease that the model promises, is this share of what was
            gained so far, or lost in the rounding or the noise of values.
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> from zoo.problems import rosenbrock
        >>> minimize(rosenbrock, np.zeros(5), method="lbfgs").fun < 1e-12
        True

    Sources: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989,
    https://doi.org/10.1007/BF01589116; for the projection Schmidt, van den Berg, Friedlander and Murphy,
    Optimizing costly functions with simple constraints, 2009,
    https://proceedings.mlr.press/v5/schmidt09a.html. Trying several lengths at once is ours, as is
    the change of stencils.
    """

    memory: int = 30
    num_trials: int | None = None
    stencil: str = "auto"
    ftol: float = 1e-18
    restarts: bool = False

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("memory", self.memory)
        if self.num_trials is not None:
            check_count("num_trials", self.num_trials)
        check_choice("stencil", self.stencil, STENCILS)
        check_fraction("ftol", self.ftol)
        check_flag("restarts", self.restarts)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> LBFGSState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, key, bounds, scale, budget)
        start = frame.like.asarray((frame.x0 if known is None else known.best) + 0)
        if bounds is not None:
            start = bounds.map(start, "clip")
        return self._begun(frame, start, 0, 0, start, math.inf, None)

    def ask(self, state: LBFGSState) -> Candidates:
        """Return what a gradient or a line search needs; the first of it where the budget ends."""
        asked, count = self._wanted(state), self._count(state)
        return asked if count == len(asked) else Rows(asked.rows(0, count))

    def tell(self, state: LBFGSState, evaluations: Evaluations) -> LBFGSState:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        asked, values = self._wanted(state), evaluations.values
        if len(values) != self._count(state):
            raise ValueError(
                f"`evaluations` must hold the {self._count(state)} values asked for, got {len(values)}."
            )
        finite = np.where(np.isnan(values), np.inf, values)
        index = int(finite.argmin()) if len(values) else 0
        if len(values) and finite[index] < state.best:
            state = replace(state, x=asked.rows(index, index + 1)[0], best=float(finite[index]))
        state = replace(state, nfev=state.nfev + len(values))
        if state.frame.budget is not None and state.nfev >= state.frame.budget:
            return state
        if not len(state.z):
            return self._again(state, _NOTHING_FREE)
        if not state.unit and np.isfinite(finite).any():
            largest = float(np.nanmax(np.abs(values)))
            state = replace(state, unit=2.0 ** min(math.frexp(largest)[1], 1023) if largest else 1.0)
        values = values / (state.unit or 1.0)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if isinstance(asked, Differences):
                return self._estimated(state, asked, values)
            return self._tried(state, asked.z, values)

    def recommend(self, state: LBFGSState) -> Array:
        """Return the best point evaluated; the start before any had a value."""
        return state.x + 0

    def finished(self, state: LBFGSState) -> str | None:
        """Return why the search ended, unless it is started again, or that the budget is used up."""
        if state.frame.budget is not None and state.nfev >= state.frame.budget:
            return f"the budget of {state.frame.budget} evaluations is used up"
        return None if self.restarts and state.reason != _NOTHING_FREE else state.reason

    def diagnostics(self, state: LBFGSState) -> dict[str, Any]:
        """Return pairs remembered, how differences are made, and the number of restarts."""
        return {
            "pairs": len(state.steps),
            "smoothing": state.smoothing,
            "central": state.central,
            "restarts": state.attempt,
        }

    def _begun(
        self, frame: Frame, start: Array, attempt: int, nfev: int, x: Array, best: float, reason: str | None
    ) -> LBFGSState:
        here = _coordinates(frame)
        central = self.stencil == "central"
        precision = _precision(frame, central)
        z = here.seen(here.inverse(start))
        none = np.empty((0, here.dim))
        return LBFGSState(
            frame=frame,
            attempt=attempt,
            z=z,
            value=math.nan,
            gradient=None,
            direction=None,
            length=1.0,
            tries=0,
            steps=none,
            changes=none,
            before=None,
            central=central,
            noisy=None,
            precision=precision,
            smoothing=precision.start,
            first=math.nan,
            unit=0.0,
            nfev=nfev,
            x=x,
            best=best,
            reason=reason,
        )

    def _again(self, state: LBFGSState, reason: str | None, start: Array | None = None) -> LBFGSState:
        """Return the state with which another attempt begins, somewhere unless it is said where."""
        attempt, frame = state.attempt + 1, state.frame
        if start is None:
            start = scatter(frame, f"start {attempt}", 1)[0]
        reason = state.reason if reason is None else reason
        new = self._begun(frame, start, attempt, state.nfev, state.x, state.best, reason)
        return replace(_sharing(new, state), unit=state.unit) if state.noisy else new

    def _wanted(self, state: LBFGSState) -> Differences | Points:
        here = _coordinates(state.frame)
        if not here.dim:
            return Points(here, np.empty((1, 0)))
        if state.direction is not None:
            return Points(here, self._trials(state))
        reach = np.maximum(state.smoothing, 32 * state.frame.like.epsilon * np.abs(state.z))
        return Differences(here, state.z, reach, central=state.central, base=_has_base(state))

    def _count(self, state: LBFGSState) -> int:
        """Return how many evaluations the next step has: fewer than it wants where the budget ends."""
        dim = len(state.z)
        if not dim:
            count = 1
        elif state.direction is not None:
            count = self._num_trials(state) + bool(state.noisy)
        else:
            count = (2 if state.central else 1) * dim + _has_base(state)
        left = count if state.frame.budget is None else state.frame.budget - state.nfev
        return max(0, min(count, left))

    def _num_trials(self, state: LBFGSState) -> int:
        if self.num_trials is not None:
            return self.num_trials
        return 3 if len(state.z) >= 8 else 1

    def _lengths(self, state: LBFGSState) -> Matrix:
        """Return the lengths of the steps to try, in units of the direction."""
        number = np.arange(self._num_trials(state))
        if len(state.steps) or state.tries:
            return state.length * 2.0 ** ((number + 1) // 2 * np.where(number % 2, -1, 1))
        return state.length * 0.25**number

    def _trials(self, state: LBFGSState) -> Matrix:
        """Return the points of a line search, and z before them if values are noisy."""
        here, direction = _coordinates(state.frame), state.direction
        z = state.z + self._lengths(state)[:, None] * direction
        z = here.seen(np.minimum(np.maximum(z, here.lower), here.upper))
        return np.vstack([state.z, z]) if state.noisy else z

    def _estimated(self, state: LBFGSState, asked: Differences, values: Matrix) -> LBFGSState:
        value, noisy, precision = state.value, state.noisy, state.precision
        before = state.value
        if asked.base:
            value = float(values[0])
            if math.isnan(value) and math.isnan(state.value):
                index = int(np.where(np.isnan(values), np.inf, values).argmin())
                start = None if math.isnan(values[index]) else asked.rows(index, index + 1)[0]
                return self._again(state, None, start)
            if math.isnan(value):
                value = state.value
            elif math.isfinite(state.value) and noisy is None:
                noisy = value != state.value
        slopes = asked.gradient(values[int(asked.base) :], value)
        valid = np.isfinite(slopes)
        if not valid.any():
            if state.tries >= _PATIENCE:
                return self._again(state, None)
            return replace(state, value=value, smoothing=state.smoothing / 16, tries=state.tries + 1)
        gradient = np.where(valid, slopes, 0)
        smoothing = state.smoothing
        if noisy:
            state = replace(state, value=value, noisy=True)
            if self.stencil == "auto" and not state.central:
                return self._finer(state)
            second = asked.second_differences(values[1:], value)
            if not state.central and math.isfinite(before):
                second = np.array([math.sqrt(3) * (value - before)])  # of as much noise, and no curvature
            precision, smoothing = next_smoothing(
                precision,
                smoothing,
                stencil="central" if state.central else "forward",
                difference=float(np.sqrt((gradient[valid] ** 2).mean())) * smoothing,
                second=float(np.sqrt((second**2).mean())) if len(second) else 0.0,
                pairs=len(second),
                rounding=state.frame.like.epsilon * abs(value),
            )
            if smoothing > 4 * state.smoothing:  # these differences were noise
                return replace(state, precision=precision, smoothing=smoothing, before=None)
        steps, changes = state.steps, state.changes
        if state.before is not None:
            step, change = state.z - state.before[0], gradient - state.before[1]
            if self._is_telling(state, step, change):
                keep = slice(-self.memory, None)
                steps, changes = np.vstack([steps, step])[keep], np.vstack([changes, change])[keep]
        state = replace(
            state,
            value=value,
            gradient=gradient,
            noisy=noisy,
            precision=precision,
            smoothing=smoothing,
            steps=steps,
            changes=changes,
            before=np.stack([state.z, gradient]),
            tries=0,
            first=value if math.isnan(state.first) else state.first,
        )
        return self._directed(state)

    def _is_telling(self, state: LBFGSState, step: Matrix, change: Matrix) -> bool:
        """Whether a pair has positive curvature, and stands out of the noise."""
        size = math.sqrt(float(change @ change))
        # A slope has the error of a difference, by its distance; a change that of two slopes.
        error = state.precision.noise * (1.0 if state.central else 2.0) / state.smoothing
        if state.noisy and size < 2 * error * math.sqrt(len(change)):
            return False
        return float(step @ change) > 1e-10 * math.sqrt(float(step @ step)) * size

    def _directed(self, state: LBFGSState) -> LBFGSState:
        """Return the state with a direction for the next points, or the one after the end."""
        here, gradient = _coordinates(state.frame), state.gradient
        assert gradient is not None
        held = ((state.z <= here.lower) & (gradient > 0)) | ((state.z >= here.upper) & (gradient < 0))
        gradient = np.where(held, 0, gradient)
        direction = -two_loop(gradient, state.steps * ~held, state.changes * ~held)
        decrease = -float(gradient @ direction) / 2
        norm = math.sqrt(float(direction @ direction))
        if len(state.steps) and not (
            math.isfinite(norm) and decrease > 1e-12 * norm * np.sqrt(gradient @ gradient)
        ):
            return self._directed(_forgetful(state))
        gained = max(state.first - state.value, 0.0)
        rounding = max(state.frame.like.epsilon * abs(state.value) / 4, state.precision.noise / 2)
        if len(state.steps) and decrease <= max(self.ftol * gained, rounding):
            return self._exhausted(state, "the decrease that the model promises is negligible")
        if not norm > 0:
            return self._exhausted(state, "the projected gradient is zero")
        return replace(state, direction=direction, length=1.0 if len(state.steps) else 1 / norm, tries=0)

    def _exhausted(self, state: LBFGSState, reason: str) -> LBFGSState:
        """Return the state in which finer differences are asked for, or after the end if there are none."""
        if self.stencil != "auto" or state.central:
            return self._again(state, reason)
        return self._finer(state)

    def _finer(self, state: LBFGSState) -> LBFGSState:
        """Return the state in which central differences are asked for."""
        precision = _precision(state.frame, True)
        finer = replace(
            state,
            central=True,
            precision=precision,
            smoothing=precision.start,
            direction=None,
            before=None,
            tries=0,
        )
        return _sharing(finer, state) if state.noisy else finer

    def _tried(self, state: LBFGSState, trials: Matrix, values: Matrix) -> LBFGSState:
        value = state.value
        if state.noisy:
            value = float(values[0]) if math.isfinite(values[0]) else value
            trials, values = trials[1:], values[1:]
        promised = np.minimum((trials - state.z) @ state.gradient, 0)
        good = values <= value + _SUFFICIENT * promised
        good &= values < value
        if good.any():
            index = int(np.where(good, values, np.inf).argmin())
            return replace(
                state, z=trials[index], value=float(values[index]), gradient=None, direction=None, tries=0
            )
        if state.tries + 1 < _PATIENCE:
            lengths = self._lengths(state)
            last = int(lengths.argmin())
            # Where the parabola through value and slope at z and the value of the shortest step is lowest.
            rise = float(values[last] - value - promised[last])
            share = -float(promised[last]) / (2 * rise) if rise > 0 else 0.125
            share = min(max(share, 0.1 if len(state.steps) else 1e-3), 0.5)
            return replace(state, length=share * float(lengths[last]), tries=state.tries + 1)
        if self.stencil == "auto" and not state.central:
            return self._exhausted(state, "")
        if len(state.steps) > 1:
            return self._directed(replace(state, steps=state.steps[-1:], changes=state.changes[-1:]))
        return self._exhausted(state, "no step along the gradient lowers the value")


def two_loop(gradient: Matrix, steps: Matrix, changes: Matrix) -> Matrix:
    """Return H g for the inverse Hessian H that BFGS makes of pairs, the newest behind.

    H is (s y / y y) I of the newest pair, updated by every pair (s, y) in turn:
    H <- (I - s y' / s y) H (I - y s' / s y) + s s' / s y. Pairs with s y <= 0 are left out.

    Args:
        gradient: g, shape (n,).
        steps: Rows s, shape (m, n).
        changes: Rows y, shape (m, n).

    Example:
        >>> two_loop(np.array([2.0, 4.0]), np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]])).tolist()
        [1.0, 2.0]
    """
    q = gradient.copy()
    curvatures = np.einsum("ij,ij->i", steps, changes)
    used = np.flatnonzero(curvatures > 0)
    pairs = [(steps[index], changes[index], float(curvatures[index])) for index in used.tolist()]
    shares = []
    for step, change, curvature in reversed(pairs):
        share = float(step.dot(q)) / curvature
        q -= share * change
        shares.append(share)
    if pairs:
        _, change, curvature = pairs[-1]
        q *= curvature / float(change.dot(change))
    for (step, change, curvature), share in zip(pairs, reversed(shares), strict=True):
        q += (share - float(change.dot(q)) / curvature) * step
    return q


def clear_cache() -> None:
    """Forget the coordinates of past runs; no result depends on it."""
    _coordinates.cache_clear()


@functools.lru_cache(maxsize=64)
def _coordinates(frame: Frame) -> Coordinates:
    return Coordinates(frame)


def _precision(frame: Frame, central: bool) -> Precision:
    return start_smoothing(frame.like, "central" if central else "forward", norm=1.0, scale=1.0, size=0.0)


def _has_base(state: LBFGSState) -> bool:
    """Whether a gradient needs the value at z."""
    # Once more when there is one already, to see whether it is the same again.
    return state.noisy is not False or math.isnan(state.value)


def _forgetful(state: LBFGSState) -> LBFGSState:
    return replace(state, steps=state.steps[:0], changes=state.changes[:0])


def _sharing(new: LBFGSState, old: LBFGSState) -> LBFGSState:
    """Return a state with what another one has learnt of the noise."""
    known = {name: getattr(old.precision, name) for name in ("noise", "pairs", "measured_at", "slope")}
    smoothing = max(new.smoothing, old.smoothing)
    return replace(
        new,
        central=new.central or old.central,
        noisy=True,
        precision=replace(new.precision, **known),
        smoothing=smoothing,
    )
