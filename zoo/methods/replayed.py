"""Methods made of somebody else's routine: what they know is the values told, from which it is run again."""

from __future__ import annotations

import abc
import hashlib
import math
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Candidates, Evaluations, Known, Rows
from zoo.methods import inversion
from zoo.methods.coordinates import Coordinates, Differences, difference_distance
from zoo.methods.inversion import Evaluate, Left, Routine
from zoo.methods.population import Frame, begin, scatter

Matrix = np.ndarray[Any, Any]

_SQUARABLE = 1e100
_NOTHING_FREE = "the bounds leave no variable free"


@state
class ReplayedState:
    """What a routine can be run again from, and what came of it.

    Attributes:
        frame: What the run was begun with.
        known: The best points that are known, in order, shape (n, dim), of those that can be of use.
        attempt: How often the routine was begun anew.
        start: Where the present attempt starts, shape (dim,).
        told: All values of the attempt; NaN is failed.
        history: Digest of everything above and of the method.
        nfev: Evaluations told so far.
        x: Best point so far; the start before there is one. Shape (dim,).
        value: Value there, infinite before there is one.
        reason: Why an attempt came to its end, None before that.
    """

    frame: Frame
    known: Matrix
    attempt: int
    start: Matrix
    told: Log
    history: str
    nfev: int
    x: Array
    value: float
    reason: str | None


class Replayed(abc.ABC):
    """An optimizer around a routine that calls a function of its own accord.

    Subclasses are frozen dataclasses of options and say in `run` what the routine is. The first attempt
    starts at x0, or at the best of the points that are known. When an attempt is over, or nothing
    of its first step had a value, another one starts: where the failed step had a value, if anywhere,
    else at a random point, uniform where both walls are finite and x0 + scale * normal elsewhere.
    """

    recommends_evaluated = True

    restarts: bool = False
    """Whether the method goes on when its routine has converged."""

    @abc.abstractmethod
    def run(self, attempt: Attempt) -> str | None:
        """Search; called in a thread of its own. Return why the search ended."""

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ReplayedState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, key, bounds, scale, budget)
        start = np.array(to_numpy(frame.x0), np.float64)
        points = np.empty((0, len(start)))
        if known is not None:
            points = known.points[known.order[: 16 * len(start)]]
            if bounds is not None:
                points = bounds.map(points, "clip")
            start = points[0].copy()
        history = hashlib.blake2b(digest_size=16)
        walls = () if bounds is None else (bounds.lower, bounds.upper)
        for part in (start, points, frame.scale, np.asarray(to_numpy(frame.x0)), *walls):
            history.update(part.tobytes())
        history.update(f"{self!r} {key} {frame.like} {budget}".encode())
        x = frame.like.asarray(start.copy())
        if bounds is not None:
            x = bounds.map(x, "clip")
        return ReplayedState(frame, points, 0, start, Log(), history.hexdigest(), 0, x, float("inf"), None)

    def ask(self, state: ReplayedState) -> Candidates:
        """Return what the routine waits for; the first of it where the budget ends."""
        if _left(state) == 0:
            return Rows(state.frame.like.asarray(np.empty((0, len(state.start)))))

        def turn() -> Candidates:
            routine = self._routine(state)
            candidates = _candidates(state, routine)
            inversion.keep(state.history, routine)
            return candidates

        return inversion.at_work(turn)

    def tell(self, state: ReplayedState, evaluations: Evaluations) -> ReplayedState:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        values = evaluations.values
        if _left(state) == 0:
            if len(values):
                raise ValueError(f"`evaluations` must hold the 0 values asked for, got {len(values)}.")
            return state
        return inversion.at_work(lambda: self._told(state, values))

    def recommend(self, state: ReplayedState) -> Array:
        """Return the best point evaluated; the start before any had a value."""
        return state.x + 0

    def finished(self, state: ReplayedState) -> str | None:
        """Return why the routine ended, unless it is started again, or that the budget is used up."""
        if _left(state) == 0:
            return f"the budget of {state.frame.budget} evaluations is used up"
        return None if self.restarts and state.reason != _NOTHING_FREE else state.reason

    def diagnostics(self, state: ReplayedState) -> dict[str, Any]:
        """Return how often the routine was begun anew."""
        return {"restarts": state.attempt}

    def _told(self, state: ReplayedState, values: Matrix) -> ReplayedState:
        """Return the state after values for all that the routine asked for, or the budget had left."""
        routine = self._routine(state)
        asked = _candidates(state, routine)
        if len(values) != len(asked):
            inversion.keep(state.history, routine)
            raise ValueError(f"`evaluations` must hold the {len(asked)} values asked for, got {len(values)}.")
        frame, nfev = state.frame, state.nfev + len(values)
        x, value = state.x, state.value
        index = _lowest(values)
        if index is not None and values[index] < value:
            x, value = asked.rows(index, index + 1)[0], float(values[index])
        history = hashlib.blake2b(bytes.fromhex(state.history) + values.tobytes(), digest_size=16)
        told = state.told.append(values)
        after = (history.hexdigest(), nfev, x, value)
        if len(values) >= _left(state):
            routine.close()
            return ReplayedState(frame, state.known, state.attempt, state.start, told, *after, state.reason)
        routine.tell(values)
        if routine.candidates is not None:
            inversion.keep(after[0], routine)
            return ReplayedState(frame, state.known, state.attempt, state.start, told, *after, state.reason)
        reason = state.reason if routine.reason is None else routine.reason
        # An attempt that could not begin gives no reason.
        attempt = state.attempt + 1
        if routine.reason is None and index is not None:
            start = asked.rows(index, index + 1)[0]
        else:
            start = scatter(frame, f"start {attempt}", 1)[0]
        start = np.array(to_numpy(start), np.float64)
        return ReplayedState(frame, state.known, attempt, start, Log(), *after, reason)

    def _routine(self, state: ReplayedState) -> Routine:
        """Take the routine of a state out of the cache, or run it again."""
        routine = inversion.take(state.history)
        if routine is None:
            routine = Routine(lambda evaluate: self._begun(Attempt(state, evaluate)), state.told.array)
        return routine

    def _begun(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame)
        if here.dim:
            return self.run(attempt)
        attempt.points(here, np.empty((1, 0)))
        return _NOTHING_FREE


def _lowest(values: Matrix) -> int | None:
    """Return where the lowest value is, None where there is none."""
    if len(values) == 1:
        return 0 if values[0] == values[0] else None
    finite = np.where(np.isnan(values), np.inf, values)
    index = int(finite.argmin()) if len(values) else 0
    return index if len(values) and finite[index] < np.inf else None


def _left(state: ReplayedState) -> float:
    """Return how many evaluations the budget has left, infinity without one."""
    return math.inf if state.frame.budget is None else max(0, state.frame.budget - state.nfev)


def _candidates(state: ReplayedState, routine: Routine) -> Candidates:
    candidates, left = routine.candidates, _left(state)
    assert candidates is not None
    return candidates if len(candidates) <= left else Rows(candidates.rows(0, int(left)))


class Attempt:
    """What a routine knows of its task, and how it has points evaluated.

    It is told finite numbers only: a failed evaluation gets a value that is worse than the worst of
    the attempt, by the range of the attempt's values. One whose first step has no value at all is ended.
    Where the first values are above 1e100, all are divided by a power of two: their squares must be numbers.

    Attributes:
        frame: What the run was begun with.
        number: How many attempts there were before.
        start: Where to start, shape (dim,).
        known: The best points that are known, in order, shape (n, dim).
        key: Where the attempt's randomness comes from.
    """

    def __init__(self, state: ReplayedState, evaluate: Evaluate) -> None:
        self.frame, self.number, self.start, self.known = state.frame, state.attempt, state.start, state.known
        self.key = state.frame.key.fold("attempt", state.attempt)
        self._ask, self._unit = evaluate, 0.0
        self._lowest, self._highest = np.inf, -np.inf

    def points(self, coordinates: Coordinates, z: Matrix) -> Matrix:
        """Return the values of rows of z, shape (k,), all finite."""
        _check_finite(z)
        return self._without_failures(self._evaluate(Rows(coordinates.rows(z))))

    def point(self, coordinates: Coordinates, z: Matrix) -> float:
        """Return the value of z, shape (n,)."""
        _check_finite(z)
        values = self._evaluate(Rows(coordinates.rows(z[None])))
        value = float(values[0])
        if self._lowest <= value <= self._highest:
            return value
        return float(self._without_failures(values)[0])

    def gradient(
        self, coordinates: Coordinates, z: Matrix, *, central: bool, distance: float | None
    ) -> tuple[float, Matrix]:
        """Return value and gradient at z, from one step.

        A slope that cannot be had is 0; so are all of them where z itself has no value.
        """
        _check_finite(z)
        reach = difference_distance(coordinates, z, central=central)
        if distance is not None:
            reach = np.full(len(z), distance)
        asked = Differences(coordinates, z, reach, central=central)
        values = self._evaluate(asked)
        if np.isnan(values[0]):
            return float(self._without_failures(values[:1])[0]), np.zeros(len(z))
        slopes = asked.gradient(values[1:], float(values[0]))
        self._without_failures(values[:1])
        return float(values[0]), np.where(np.isnan(slopes), 0, slopes)

    def _evaluate(self, candidates: Candidates) -> Matrix:
        values = self._ask(candidates)
        if not self._unit:
            largest = float(np.nanmax(np.abs(values), initial=0.0))
            self._unit = 2.0 ** math.frexp(largest)[1] if largest > _SQUARABLE else float(largest > 0)
        return values / self._unit if self._unit > 1 else values

    def _without_failures(self, values: Matrix) -> Matrix:
        failed = np.isnan(values)
        if not failed.all():
            self._lowest = min(self._lowest, float(np.nanmin(values)))
            self._highest = max(self._highest, float(np.nanmax(values)))
        elif self._highest < self._lowest:
            raise Left
        if failed.any():
            range_ = self._highest / 2 - self._lowest / 2
            worse = self._highest / 2 + (range_ if range_ > 0 else max(0.5, abs(self._highest) / 2))
            values[failed] = 2 * min(worse, 8e307)
        return values


def _check_finite(z: Matrix) -> None:
    if not math.isfinite(z.sum()) and not np.isfinite(z).all():
        raise Left("the routine asked for the value of a point that is not finite")
