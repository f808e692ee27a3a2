"""CMA-ES that starts again when it has converged: IPOP and BIPOP."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count, check_number
from zoo.methods.cma_base import Frame, Matrix, Settings
from zoo.methods.cma_es import CMAES, CMAESState

FIRST, LARGE, SMALL = "first", "large", "small"


class Plan(NamedTuple):
    """What a run is to be.

    Attributes:
        regime: "first", "large" or "small".
        population_size: Its candidates a step.
        sigma: Its first standard deviation, in units of `scale`.
        limit: Evaluations that it may take, or None.
    """

    regime: str
    population_size: int
    sigma: float
    limit: int | None = None


@state
class Schedule:
    """What stays as it is throughout a run.

    Attributes:
        frame: What the search was begun with.
        start: x0, shape (dim,).
        run: Number of the run, from 0.
        regime: As in `Plan`, and so are the next three.
        population_size: As there.
        sigma: As there.
        limit: As there.
        spent: Evaluations of the runs before.
        smallest: Population size of the first run.
        largest: Population size of the last run that was not small.
        last_large: Evaluations of the last run of the large regime, 0 before any.
        large: Evaluations of all runs of the large regime that have ended.
        small: Evaluations of the first run and of those of the small regime that have ended.
        mean: Mean that the best of the runs before ended with, before the boundary map.
        value: Median of the last step there, infinite before any.
    """

    frame: Frame
    start: Matrix
    run: int
    regime: str
    population_size: int
    sigma: float
    limit: int | None
    spent: int
    smallest: int
    largest: int
    last_large: int
    large: int
    small: int
    mean: Matrix
    value: float


@state
class RestartsState:
    """State of `IPOPCMAES` and `BIPOPCMAES`.

    Attributes:
        schedule: What stays throughout the run under way.
        inner: The run under way.
    """

    schedule: Schedule
    inner: CMAESState

    @property
    def nfev(self) -> int:
        """Evaluations told."""
        return self.schedule.spent + self.inner.nfev


@dataclass(frozen=True)
class Restarts(Settings, abc.ABC):
    """What both have in common; see `BIPOPCMAES` for the arguments."""

    tolfacupx: float = 1e3
    update_period: int | None = None
    max_steps: int | None = None
    restart_radius: float = 2.0
    _engines: dict[tuple[int, float], CMAES] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    recommends_evaluated = False
    compares_within_steps = True  # the search does; only what is recommended compares runs

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("update_period", "max_steps"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if not 0 <= check_number("restart_radius", self.restart_radius) < math.inf:
            raise ValueError(f"`restart_radius` must be finite and at least 0, got {self.restart_radius!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> RestartsState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        start, sigma = np.array(to_numpy(x0), np.float64), float(self.sigma)
        size = self.population_size or 4 + int(3 * math.log(max(1, start.size)))
        inner = self._engine(size, sigma).init(
            x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known
        )
        schedule = Schedule(
            frame=inner.frame,
            start=start,
            run=0,
            regime=FIRST,
            population_size=size,
            sigma=sigma,
            limit=None,
            spent=0,
            smallest=size,
            largest=size,
            last_large=0,
            large=0,
            small=0,
            mean=inner.mean,
            value=math.inf,
        )
        return RestartsState(schedule, inner)

    def ask(self, state: RestartsState) -> Rows:
        """Return the step's candidates; fewer where the budget ends."""
        return self._engine_of(state.schedule).ask(state.inner)

    def tell(self, state: RestartsState, evaluations: Evaluations) -> RestartsState:
        """Return the state after a step's values, which may be that before the first step of the next run.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        schedule = state.schedule
        engine = self._engine_of(schedule)
        inner = engine.tell(state.inner, evaluations)
        ended = self._is_spent(schedule, inner) or engine.converged(inner) is not None
        return self._restarted(schedule, inner) if ended else RestartsState(schedule, inner)

    def recommend(self, state: RestartsState) -> Array:
        """Return a mean: of the run under way if its last median is below those all others ended with."""
        schedule, inner = state.schedule, state.inner
        mean = inner.mean if _last_median(inner) < schedule.value else schedule.mean
        return self._place(schedule.frame, mean.copy())  # the caller's to write to

    def finished(self, state: RestartsState) -> str | None:
        """Return that the budget is used up, or None: without one it goes on."""
        budget = state.schedule.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return None

    def diagnostics(self, state: RestartsState) -> dict[str, Any]:
        """Return the run's: those of `CMAES`, its number, whether it is a small one, its population size."""
        schedule = state.schedule
        return {
            **self._engine_of(schedule).diagnostics(state.inner),
            "run": schedule.run,
            "small": schedule.regime == SMALL,
            "population_size": schedule.population_size,
        }

    @abc.abstractmethod
    def _plan(self, ended: Schedule, key: Key) -> Plan:
        """Return the plan of the next run.

        Args:
            ended: The schedule, its counts with the run that has ended just now.
            key: Of the next run.
        """

    def _engine_of(self, schedule: Schedule) -> CMAES:
        return self._engine(schedule.population_size, schedule.sigma)

    def _engine(self, population_size: int, sigma: float) -> CMAES:
        """Return the method of a run, kept since making it takes as long as a step."""
        engine = self._engines.get((population_size, sigma))
        if engine is None:
            shared = {f.name: getattr(self, f.name) for f in fields(CMAES)}
            shared.update(population_size=population_size, sigma=sigma)
            # Both are relative to the first steps, and mean lengths that do not depend on the run.
            shared.update(tolx=self.tolx * self.sigma / sigma, tolfacupx=self.tolfacupx * self.sigma / sigma)
            while len(self._engines) >= 8:
                self._engines.pop(next(iter(self._engines)), None)
            engine = self._engines[population_size, sigma] = CMAES(**shared)
        return engine

    def _is_spent(self, schedule: Schedule, inner: CMAESState) -> bool:
        n = schedule.population_size
        if schedule.limit is not None and inner.nfev + n > schedule.limit:
            return True
        return inner.step >= (self.max_steps or 100 + int(150 * (len(inner.mean) + 3) ** 2 / math.sqrt(n)))

    def _restarted(self, schedule: Schedule, inner: CMAESState) -> RestartsState:
        """Return the state before the first step of the next run."""
        value = _last_median(inner)
        large = schedule.regime == LARGE
        ended = replace(
            schedule,
            spent=schedule.spent + inner.nfev,
            last_large=inner.nfev if large else schedule.last_large,
            large=schedule.large + (inner.nfev if large else 0),
            small=schedule.small + (0 if large else inner.nfev),
            mean=inner.mean if value < schedule.value else schedule.mean,
            value=min(value, schedule.value),
        )
        run, frame = schedule.run + 1, schedule.frame
        key = frame.key.fold("restart", run)
        plan = self._plan(ended, key)
        began = replace(
            ended,
            run=run,
            regime=plan.regime,
            population_size=plan.population_size,
            sigma=plan.sigma,
            limit=plan.limit,
            largest=ended.largest if plan.regime == SMALL else plan.population_size,
        )
        first = self._engine_of(began).init(
            self._somewhere(frame, schedule.start, key),
            key=key,
            bounds=frame.bounds,
            scale=frame.scale,
            budget=None if frame.budget is None else max(0, frame.budget - ended.spent),
        )
        return RestartsState(began, first)

    def _somewhere(self, frame: Frame, start: Matrix, key: Key) -> Array:
        """Return where a run begins."""
        share = to_numpy(key.fold("start").uniform(0, 1, len(start)))[0]
        x = start + (2 * share - 1) * self.restart_radius * frame.scale
        if frame.bounds is None:
            return frame.like.asarray(x)
        lower, upper = frame.bounds.lower, frame.bounds.upper
        boxed = np.isfinite(lower) & np.isfinite(upper)
        between = (1 - share) * np.where(boxed, lower, 0) + share * np.where(boxed, upper, 0)
        # Mirrored at the one wall that a coordinate may have; then a shorter dtype may round it outside.
        return frame.bounds.map(frame.like.asarray(frame.bounds.map(np.where(boxed, between, x))), "clip")


@dataclass(frozen=True)
class IPOPCMAES(Restarts):
    """CMA-ES that starts again with twice the population whenever it has converged.

    Run 0 is that of `zoo.methods.cma_es.CMAES`, to the byte. When a stopping rule holds, run k begins
    somewhere else with population_size 2^k candidates a step, and with sigma and covariance as at first.
    Large populations see the coarse shape of an objective rather than its small valleys.

    Where runs begin, what is recommended, departures and arguments are those of `BIPOPCMAES`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = IPOPCMAES()
        >>> state = method.init(np.full(2, 3.0), key=Key(1))
        >>> for _ in range(150):
        ...     x = method.ask(state).rows(0, 100)
        ...     state = method.tell(state, Evaluations((x**2 + 10 - 10 * np.cos(2 * np.pi * x)).sum(1)))
        >>> found = method.recommend(state)
        >>> method.diagnostics(state)["population_size"], bool(np.allclose(found, 0, atol=1e-3))
        (12, True)

    Source: A. Auger and N. Hansen, A Restart CMA Evolution Strategy With Increasing Population Size, 2005,
    https://doi.org/10.1109/CEC.2005.1554902.
    """

    def _plan(self, ended: Schedule, key: Key) -> Plan:
        return Plan(LARGE, 2 * ended.largest, float(self.sigma))


@dataclass(frozen=True)
class BIPOPCMAES(Restarts):
    """CMA-ES that starts again in two ways, which get the same number of evaluations.

    Run 0 is that of `zoo.methods.cma_es.CMAES`, to the byte. When a stopping rule holds, a run of the regime
    that has used fewer evaluations begins, run 0 counting among those of the small one; run 1 is large.

        large:  lambda_large <- 2 lambda_large, sigma
        small:  lambda = floor(lambda_0 (lambda_large / (2 lambda_0))^(U^2)),  sigma 10^(-2 V),
                half of the evaluations of the last large run at most

    with lambda_0 = `population_size`, lambda_large that of the last large run, and U and V uniform in [0, 1).
    Large populations see the coarse shape of an objective, small ones with short steps search many
    valleys.

    Runs begin anywhere between the bounds where both are finite, else within `restart_radius` times `scale`
    of x0, all uniformly. What is recommended is a mean: that of the run under way once the median of its
    last step is lower than those that all runs before ended with, and else the mean that the best of these
    ended with.

    Departures from the paper: where there are no bounds, starts are around x0. The stopping rules are those
    of `CMAES`, looked at in every step, with tolfacupx 1e3; tolx and tolfacupx are relative to `sigma` also
    in runs that begin with shorter steps. The number of restarts is not limited.

    Args:
        population_size: Candidates of a step of run 0; None for 4 + floor(3 log(dim)).
        sigma: First standard deviation, in units of the `scale` that `init` is given.
        active: See `CMAES`, for this and all that follow up to `update_period`.
        boundary: As there.
        tolx: As there, but a run ends and not the search; so with all rules.
        tolfun: As there.
        tolfunhist: As there.
        tolfacupx: As there.
        tolupsigma: As there.
        tolstagnation: As there.
        tolconditioncov: As there.
        update_period: As there.
        max_steps: Steps of a run at most; None for 100 + floor(150 (dim + 3)^2 / sqrt(lambda)).
        restart_radius: How far from x0 runs begin, in units of `scale`, where bounds are not finite; 0 for
            at x0.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = BIPOPCMAES()
        >>> state = method.init(np.full(2, 3.0), key=Key(1))
        >>> for _ in range(150):
        ...     x = method.ask(state).rows(0, 100)
        ...     state = method.tell(state, Evaluations((x**2 + 10 - 10 * np.cos(2 * np.pi * x)).sum(1)))
        >>> found = method.recommend(state)
        >>> method.diagnostics(state)["run"], bool(np.allclose(found, 0, atol=1e-3))
        (1, True)

    Source: N. Hansen, Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed, 2009,
    https://doi.org/10.1145/1570256.1570333.
    """

    def _plan(self, ended: Schedule, key: Key) -> Plan:
        sigma = float(self.sigma)
        if not ended.last_large or ended.small >= ended.large:
            return Plan(LARGE, 2 * ended.largest, sigma)
        u, v = to_numpy(key.fold("small").uniform(0, 1, 2))[0].tolist()
        smallest = ended.smallest
        size = int(smallest * (ended.largest / (2 * smallest)) ** u**2)
        return Plan(SMALL, size, sigma * 10 ** (-2 * v), ended.last_large // 2)


def _last_median(inner: CMAESState) -> float:
    """Return the median of the last step that had a value, infinite before any."""
    for median in inner.history.array[::-2]:
        if median == median:
            return float(median)
    return math.inf
