"""Jobs: what the loop drives. A search is an optimizer, an objective and an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.errors import TooManyFailures
from zoo.core.front import chosen, extended
from zoo.core.huge import restored, unit_of
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.state import freeze, state, thaw
from zoo.core.types import Candidates, Evaluations, Known, Optimizer, Reply, Rows
from zoo.execution.executor import Executor
from zoo.execution.ledger import Account, Ledger
from zoo.execution.threads import limited
from zoo.run.journal import FINAL, SEARCH, Journal

S = TypeVar("S")

_REPEATS = 30  # evaluations of what a noisy search recommends; with fewer, their spread is a rough guess
WINDOW, WINDOW_START, MOST_FAILURES = 100, 50, 0.2
MOST_LOGGED = 100  # variables of a point that is written into every line of the log where it is new
HARD = ("raised", "crashed", "hung")


class Report(NamedTuple):
    """What one step did.

    Attributes:
        value: Lowest value of the step, NaN if all failed.
        evaluations: All of them.
        improved: Whether the best point is one of this step.
    """

    value: float
    evaluations: Evaluations
    improved: bool = False


class Job(Protocol[S]):
    """Something that goes step by step and can be stopped and resumed between any two.

    Its state has at least `step` (steps done), `nfev` (evaluations told), `fun_best` (lowest value), `x`
    (None until `finish`) and `num_final` (evaluations that `finish` made, on top of `nfev`).

    Attributes:
        account: What it cost so far beyond its evaluations.
        arrived: Called with the number of evaluations whenever some come in, where anybody wants to know.
        checkpoint_seconds: From one checkpoint to the next, at least, if that is less than the loop's ten.
    """

    account: Account
    checkpoint_seconds: float
    arrived: Callable[[int], None] | None

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Get ready for `step`, and clean up behind it."""
        ...

    def init(self) -> S:
        """Return the state before the first step."""
        ...

    def step(self, state: S) -> tuple[S, Report]:
        """Do one step; `state` may not be used afterwards."""
        ...

    def finished(self, state: S) -> str | None:
        """Return why no further step is to be done, or None."""
        ...

    def finish(self, state: S) -> S:
        """Do what comes after the last step; no further step follows on the state returned."""
        ...

    def cut_short(self, state: S) -> S:
        """Return what to report of a job that was stopped before its end and can go on."""
        ...

    def metrics(self, state: S, report: Report) -> dict[str, Any]:
        """Return a step's line for the log: exact, so without times or anything that depends on workers."""
        ...

    def snapshot(self, state: S) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
        """Return the state as a JSON tree and arrays."""
        ...

    def restore(self, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> S:
        """Return the state that a snapshot was taken of."""
        ...


@state
class SearchState:
    """Where a search is.

    Attributes:
        optimizer: The method's own state.
        step: Steps done.
        nfev: Evaluations told.
        num_failed: How many of them failed.
        failures: Ids of those among the last hundred that raised, crashed or hung.
        x_best: Point of the lowest value evaluated, None before there is one. Where there are constraints,
            points that keep to them come before all others, and those by how little they violate them.
        fun_best: That value, infinite before there is one.
        violation_best: By how much that point violates the constraints.
        constraints_best: What may not be above 0 there, shape (m,), or None.
        front: With several objectives: of the points that keep to the constraints, those that no other one
            dominates, shape (n, dim), and their objectives, shape (n, k); None before there is one.
        x: After the end: the point to use.
        fun: Its value; with noise, the mean of several.
        fun_error: With noise, the standard error of `fun`.
        violation: By how much `x` violates the constraints; with noise, their means.
        constraints: What may not be above 0 there, or None.
        num_final: After the end: evaluations that took, on top of `nfev`.
    """

    optimizer: Any
    step: int = 0
    nfev: int = 0
    num_failed: int = 0
    failures: tuple[int, ...] = ()
    x_best: Any = None
    fun_best: float = float("inf")
    violation_best: float = float("inf")
    constraints_best: Any = None
    front: Any = None
    x: Any = None
    fun: float = float("nan")
    fun_error: float = float("nan")
    violation: float = float("inf")
    constraints: Any = None
    num_final: int = 0


class _Finalists(Rows):
    """A few points several times over, each time under another noise stream, common to them."""

    __slots__ = ("count",)

    def __init__(self, points: Sequence[Array], times: int) -> None:
        self.count = len(points)
        stacked = array_module(points[0]).stack(tuple(points) * times)
        super().__init__(stacked)

    def noise(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return np.arange(start, stop) // self.count


class SearchJob:
    """Minimise an objective with a method, on an executor.

    Args:
        optimizer: The method.
        objective: What is minimised.
        executor: Where it is evaluated.
        x0: Start, shape (dim,).
        key: Where all randomness comes from.
        bounds: Box of the candidates, or None.
        scale: How far from `x0` the first candidates go, per coordinate.
        budget: Evaluations there may be, or None. One is kept for the method's recommendation, unless
            the method recommends points it has evaluated.
        known: Points whose values are known from elsewhere, or None.
        noise: Whether equal points may have different values: the recommendation is then the result,
            and evaluated afresh, up to 30 times and with up to a hundredth of the budget.
        on_error: "raise" or "nan", for evaluations that raise.
        threads: Threads of numerical libraries during the run.
    """

    checkpoint_seconds = float("inf")

    def __init__(
        self,
        optimizer: Optimizer[Any],
        objective: Objective,
        executor: Executor,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
        noise: bool = False,
        on_error: str = "raise",
        threads: int = 1,
    ) -> None:
        self.optimizer, self.objective, self.executor = optimizer, objective, executor
        self.journal: Journal | None = None
        self.event: Callable[[dict[str, Any]], None] | None = None
        self.arrived: Callable[[int], None] | None = None
        self.account = Account()
        self._x0, self._bounds, self._scale, self._budget = x0, bounds, scale, budget
        self._known, self._noise, self._on_error, self._threads = known, noise, on_error, threads
        self._kept = 0 if optimizer.recommends_evaluated else 1
        if noise:
            self._kept = _REPEATS if budget is None else max(1, min(_REPEATS, budget // 100))
        self._search_key, self._evaluation_key = key.fold("search"), key.fold("evaluation")
        self._asked: tuple[Any, Candidates] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the threads and open the executor."""
        with limited(self._threads), self.executor.open(self.objective):
            yield

    def init(self) -> SearchState:
        """Return the state before the first step."""
        budget = None if self._budget is None else self._budget - self._kept
        with limited(self._threads):
            first = self.optimizer.init(
                self._x0,
                key=self._search_key,
                bounds=self._bounds,
                scale=self._scale,
                budget=budget,
                known=self._known,
            )
        if self._known is None or self._noise:
            return SearchState(first)
        best = Like.of(self._x0).asarray(self._known.best)
        return SearchState(
            first, x_best=best, fun_best=float(np.nanmin(self._known.values)), violation_best=0.0
        )

    def finished(self, state: SearchState) -> str | None:
        """Return why the search is at its end: the method's own reason, or the budget.

        Raises:
            TooManyFailures: More than a fifth of the last hundred evaluations raised, crashed or hung.
        """
        if fails_too_often(state):
            raise too_many_failures(state)
        left = None if self._budget is None else self._budget - self._kept - state.nfev
        if left is None or left > 0:
            reason = self.optimizer.finished(state.optimizer)
            if reason is not None or left is None or len(self.ask(state)) <= left:
                return reason
        return f"the budget of {self._budget} evaluations is used up"

    def ask(self, state: SearchState) -> Candidates:
        """Return what the next step wants evaluated."""
        # `finished` has to look at the candidates as well, and a state is told only once.
        if self._asked is None or self._asked[0] is not state.optimizer:
            self._asked = state.optimizer, self.optimizer.ask(state.optimizer)
        return self._asked[1]

    def step(self, state: SearchState) -> tuple[SearchState, Report]:
        """Ask, evaluate, tell.

        Raises:
            EvaluationError: The objective raised, and the policy says that this ends the run.
            Interrupt: A signal asked to stop.
        """
        candidates = self.ask(state)
        told, evaluations = self.executor.step(
            self.optimizer,
            state.optimizer,
            candidates,
            self.key(SEARCH),
            state.step,
            self.ledger(candidates, state, SEARCH),
        )
        return self.after(state, told, evaluations)

    def tell(self, state: SearchState, evaluations: Evaluations) -> tuple[SearchState, Report]:
        """Do a step whose candidates were evaluated elsewhere."""
        return self.after(state, self.optimizer.tell(state.optimizer, evaluations), evaluations)

    def after(
        self, state: SearchState, optimizer: Any, evaluations: Evaluations
    ) -> tuple[SearchState, Report]:
        """Return the state after a step, and what the step did.

        Args:
            state: Where the search was.
            optimizer: State of the method when told the evaluations.
            evaluations: Values of what `state` asks for.
        """
        candidates = self.ask(state)
        values, nfev = evaluations.values, state.nfev + len(evaluations)
        x_best, fun_best, violation_best = state.x_best, state.fun_best, state.violation_best
        constraints_best, front = state.constraints_best, state.front
        num_failed, failures = state.num_failed + len(evaluations.failures), state.failures
        if evaluations.failures or failures:
            failures = lately_failed(state, evaluations)
        index = int(values.argmin())
        value = float(values[index])
        if value != value and not np.isnan(values).all():
            index = int(np.nanargmin(values))
            value = float(values[index])
        if not evaluations.extras:
            if value < fun_best:
                x_best, fun_best, violation_best = candidates.rows(index, index + 1)[0], value, 0.0
        else:
            violations = np.where(np.isnan(values), np.inf, evaluations.violations)
            index = int(np.lexsort((values, violations))[0])
            found = float(violations[index]), float(values[index])
            if found < (violation_best, fun_best):
                x_best, (violation_best, fun_best) = candidates.rows(index, index + 1)[0], found
                constraints_best = _constraints(evaluations, index)
            if "objectives" in evaluations.extras:
                kept = np.flatnonzero(violations <= 0)
                found_there = evaluations.extras["objectives"][kept]
                points = candidates.rows(0, len(values))
                front = extended(front, chosen(points, kept), found_there) if len(kept) else front
        after = SearchState(
            optimizer,
            state.step + 1,
            nfev,
            num_failed,
            failures,
            x_best,
            fun_best,
            violation_best,
            constraints_best,
            front,
        )
        return after, Report(value, evaluations, x_best is not state.x_best)

    def final(self, state: SearchState) -> Candidates | None:
        """Return what is to be evaluated after the last step, None if nothing is."""
        if not self._kept and state.nfev:
            return None
        times = self._kept or 1
        if self._budget is not None:
            times = min(times, self._budget - state.nfev)
        points = self._finalists(state)[:times]
        return _Finalists(points, times // len(points))

    def finish(self, state: SearchState) -> SearchState:
        """Settle `x` and `fun`: the better of the recommendation and the best point evaluated.

        With noise it is the recommendation, with a value of its own: the best value seen was lucky. If there
        are constraints, the best point that kept to them is evaluated again as well, and the better of the
        two is taken: a mean of points that keep to constraints need not do so itself.
        """
        if state.x is not None:
            return state
        final = self.final(state)
        if final is None:
            return self.settle(state, None)
        ledger = self.ledger(final, state, FINAL)
        return self.settle(state, self.executor.evaluate(final, self.key(FINAL), state.step, ledger))

    def settle(self, state: SearchState, evaluations: Evaluations | None) -> SearchState:
        """Return the state at the end, given the values of what `final` asks for."""
        x, fun, violation, error = state.x_best, state.fun_best, state.violation_best, float("nan")
        constraints, num_failed, num_final = state.constraints_best, state.num_failed, 0
        best = x, fun, violation, constraints
        if evaluations is not None:
            num_final, num_failed = len(evaluations), num_failed + len(evaluations.failures)
            points = self._finalists(state)[:num_final]
            ends = [_mean(evaluations, points[i], i, len(points)) for i in range(len(points))]
            end = min(ends, key=lambda end: (end.violation, end.value))
            if np.isfinite(end.value):
                again = end.point, end.value, end.violation, end.constraints
                if (end.violation, end.value) < (violation, fun):
                    best = again
                if self._noise or (end.violation, end.value) < (violation, fun):
                    x, fun, violation, constraints = again
                    error = end.error
            elif self._noise:
                x, fun, violation, constraints = points[0], float("nan"), float("inf"), None
        if x is None:
            x, fun = self.optimizer.recommend(state.optimizer), float("nan")
        return replace(
            state,
            num_failed=num_failed,
            x_best=best[0],
            fun_best=best[1],
            violation_best=best[2],
            constraints_best=best[3],
            x=x,
            fun=fun,
            fun_error=error,
            violation=violation,
            constraints=constraints,
            num_final=num_final,
        )

    def _finalists(self, state: SearchState) -> list[Array]:
        """Return the recommendation and, where it may have to be stood in for, the best point evaluated."""
        points = [self.optimizer.recommend(state.optimizer)]
        if self._noise and state.constraints_best is not None and state.violation_best <= 0:
            points.append(state.x_best)
        return points

    def cut_short(self, state: SearchState) -> SearchState:
        """Return what to report of a search that could go on.

        Without a budget nothing is in the way of the last evaluation, and with noise there is no other way
        to a value. Otherwise it would be one that the search, going on, has no budget for.
        """
        return self.finish(state) if self._noise or self._budget is None else state

    def metrics(self, state: SearchState, report: Report) -> dict[str, Any]:
        """Return the step's numbers and the method's own diagnostics."""
        values = report.evaluations.values
        finite = values[np.isfinite(values)]
        return {
            "step": state.step,
            "nfev": state.nfev,
            "best": state.fun_best,
            "value": report.value,
            "median": float(np.median(finite)) if len(finite) else None,
            "failed": state.num_failed,
            **({} if state.constraints_best is None else {"violation": state.violation_best}),
            **({"x": to_numpy(state.x_best)} if report.improved and len(self._x0) <= MOST_LOGGED else {}),
            **self.optimizer.diagnostics(state.optimizer),
        }

    def snapshot(self, state: SearchState) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
        """Return the state as a JSON tree and arrays."""
        return freeze(state)

    def restore(self, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> SearchState:
        """Return the state that a snapshot was taken of."""
        restored = thaw(tree, arrays)
        if not isinstance(restored, SearchState):
            raise ValueError(f"it holds a {type(restored).__name__}, not the state of a search")
        return self.forgive(restored)

    def forgive(self, state: SearchState) -> SearchState:
        """Return a state that goes on after too many failures, presumably as their cause is gone."""
        return replace(state, failures=()) if fails_too_often(state) else state

    def key(self, kind: int) -> Key:
        """Return the randomness of the objective in a step, or in what `final` asks for."""
        return self._evaluation_key if kind == SEARCH else self._evaluation_key.fold("final")

    def ledger(self, candidates: Candidates, state: SearchState, kind: int) -> Ledger:
        """Return the account of a step, or of what `final` asks for, with what the journal knows of it."""
        journal, arrived, first_id = self.journal, self.arrived, state.nfev

        def record(reply: Reply) -> None:
            if journal is not None:
                journal.append(state.step, first_id, kind, reply)
            if arrived is not None:
                arrived(len(reply.values))

        return Ledger(
            self.objective.units(candidates),
            known=journal.known(kind, state.step) if journal else (),
            record=record if journal or arrived else None,
            event=self.event,
            on_error=self._on_error if kind == SEARCH else "nan",
            succeeded=state.num_failed < state.nfev,
            first_id=first_id,
            account=self.account,
        )


def lately_failed(state: SearchState, evaluations: Evaluations) -> tuple[int, ...]:
    """Return the ids of those among the last hundred, a step included, that raised, crashed or hung."""
    ids = *state.failures, *(state.nfev + f.row for f in evaluations.failures if f.kind in HARD)
    return tuple(number for number in ids if number >= state.nfev + len(evaluations) - WINDOW)


def fails_too_often(state: SearchState) -> bool:
    """Return whether more than a fifth of the last hundred evaluations raised, crashed or hung."""
    return state.nfev >= WINDOW_START and len(state.failures) > MOST_FAILURES * min(state.nfev, WINDOW)


def too_many_failures(state: SearchState) -> TooManyFailures:
    """Return the error that ends such a run."""
    return TooManyFailures(
        f"{len(state.failures)} of the last {min(state.nfev, WINDOW)} evaluations raised, crashed "
        f"or hung, the last one being evaluation {state.failures[-1]}; a run stops when more than a "
        "fifth do."
    )


def _constraints(evaluations: Evaluations, row: int) -> np.ndarray[Any, Any] | None:
    constraints = evaluations.extras.get("constraints")
    return None if constraints is None else constraints[row].copy()


class _End(NamedTuple):
    """What the evaluations of one finalist come to; its value is NaN if all of them failed."""

    point: Array
    value: float
    violation: float
    constraints: Any
    error: float


def _mean(evaluations: Evaluations, point: Array, first: int, stride: int) -> _End:
    """Return the means over every `stride`-th row from `first` on, and the standard error of the value."""
    values = evaluations.values[first::stride]
    valued = np.isfinite(values)
    values = values[valued]
    if not len(values):
        return _End(point, float("nan"), float("inf"), None, float("nan"))
    extras = {name: extra[first::stride][valued].mean(0)[None] for name, extra in evaluations.extras.items()}
    unit = unit_of(values)
    values = values / unit
    mean = Evaluations(restored(values.mean(), unit)[None], (), extras)
    spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    error = float(restored(np.asarray(spread), unit))
    return _End(point, float(mean.values[0]), float(mean.violations[0]), _constraints(mean, 0), error)
