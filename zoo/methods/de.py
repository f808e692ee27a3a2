"""Differential evolution, by default with parameters that adapt themselves (L-SHADE)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_choice, check_count, check_number
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
    take,
)

STRATEGIES = ("shade", "rand/1/bin", "best/1/bin")

_SPREAD = 0.1  # of the normal and the Cauchy distribution that parameters are drawn from
_SHARES = 10  # numbers in [0, 1) that a row takes beside those of its crossover
_BLOCK = 4096  # numbers drawn at once: small populations take longer to begin a draw than to make it
_LEAST = 1e-9  # a weight that rounding would have made 0 or less
_NEVER = -1.0  # in place of a mean crossover rate: nothing but one coordinate has been worth crossing


@state
class DEState:
    """State of `DE`.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        first: Members before this one have no trial: in the first step, those whose values were known.
        pool: The members, best first, and behind them the archive, shape (population + archive, dim).
        values: Values of the members, infinite where one has none yet, shape (population,).
        trial: The candidate that is to replace each member, shape (population, dim).
        weights: Differential weight of each trial, empty in the first step, whose trials have none.
        crossovers: Crossover rate of each trial.
        memory: Means of successful weights and crossover rates, shape (2, memory_size).
        slot: Column of the memory that is written next.
    """

    frame: Frame
    step: int
    nfev: int
    first: int
    pool: Array
    values: Matrix
    trial: Array
    weights: Matrix
    crossovers: Matrix
    memory: Matrix
    slot: int


def clear_cache() -> None:
    """Forget the numbers drawn last, which need not be drawn again; no result depends on it."""
    _numpy_draws.cache_clear()


class _Trials(NamedTuple):
    rows: Array
    weights: Matrix
    crossovers: Matrix


class _Draws(NamedTuple):
    """What trials are made of, one row for each; numbers uniform in [0, 1) where nothing else is said.

    Attributes:
        column: Of the memory.
        rate: Standard normal, for the crossover rate.
        weight: For the differential weight.
        picks: For one of the best, the first, second and third member, and the coordinate always crossed.
        place: In the archive.
        crossed: One for each coordinate.
    """

    column: Matrix
    rate: Matrix
    weight: Matrix
    picks: Matrix
    place: Matrix
    crossed: Array


@dataclass(frozen=True)
class DE:
    """Differential evolution: each member of a population is challenged by a mix of others.

    A step makes a trial of every member x_i, and the trial takes its place if its value is not greater.
    In a trial, coordinates are those of a mutant v_i with probability CR_i (one of them always), else
    those of x_i. With a, b, c drawn from the population without repetition and without i,

        "shade"       v_i = x_i + F_i (p - x_i) + F_i (x_a - x_b)
        "rand/1/bin"  v_i = x_c + F (x_a - x_b)
        "best/1/bin"  v_i = x_best + F (x_a - x_b)

    where p is one of the best `best_share` of the members, and x_b may also come from an archive of
    members that were replaced. "shade" adapts: F_i is Cauchy and CR_i normal around a column of a memory,
    drawn at random (deviation .1; F_i above 0 and at most 1, CR_i within [0, 1]), and after each step
    the next column becomes

        sum w F^2 / sum w F    and    sum w CR^2 / sum w CR

    over the trials that were better than their members; w is the number of members whose values lie
    between the two, these included. Where such CR are all 0, a column's CR is 0 from then on. If the
    number of evaluations is known, the population shrinks linearly with those used, from
    `population_size` to `final_population_size`, by its worst members.

    A mutant's coordinate outside the box is put half the way from its member to the wall. Members start
    uniform in the box, else at x0 + scale * normal, the first one at x0 itself; points that are
    known are members with their values. Failed trials are never accepted. Only the order of values counts.

    Departures from L-SHADE: w there is the difference of the two values; F_i below 0 are drawn again there,
    and here drawn at once from the part above 0, which is the same; the population is smaller, since the
    paper's 18 dim is for 10,000 dim evaluations; when the archive shrinks, its last entries go.

    Args:
        strategy: "shade", "rand/1/bin" or "best/1/bin".
        population_size: Members at first; None for half the root of the budget, at least 8 and at most
            18 dim, or, without a budget, for 18 dim and at most 100.
        final_population_size: Members when the budget is used up; None for 4 with "shade", and for no
            reduction with the others. No reduction either where it is not below `population_size`.
        weight: F; with "shade", the memory's at first.
        crossover: CR; with "shade", the memory's at first. None for .5 there and for .9 with the others.
        best_share: Share of the members that trials are drawn to, but two at least; for "shade" alone, and
            so are the next two.
        archive_rate: Size of the archive in units of the population's.
        memory_size: Columns of the memory.
        tolx: Stop when the members are all within this, in units of `scale`, or within rounding; 0 for
            never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = DE(population_size=20)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-6)
        True

    Source: R. Storn and K. Price, Differential Evolution - A Simple and Efficient Heuristic for Global
    Optimization over Continuous Spaces, 1997, https://doi.org/10.1023/A:1008202821328; R. Tanabe and
    A. Fukunaga, Success-History Based Parameter Adaptation for Differential Evolution, 2013,
    https://doi.org/10.1109/CEC.2013.6557555, and Improving the Search Performance of SHADE Using Linear
    Population Size Reduction, 2014, https://doi.org/10.1109/CEC.2014.6900380.
    """

    strategy: str = "shade"
    population_size: int | None = None
    final_population_size: int | None = None
    weight: float = 0.5
    crossover: float | None = None
    best_share: float = 0.11
    archive_rate: float = 2.6
    memory_size: int = 6
    tolx: float = 1e-12

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, STRATEGIES)
        for name in ("population_size", "final_population_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), minimum=4)
        check_count("memory_size", self.memory_size)
        for name, least, most in (
            ("weight", 0, 2),
            ("crossover", 0, 1),
            ("best_share", 0, 1),
            ("archive_rate", 0, 100),
            ("tolx", 0, 1),
        ):
            value = getattr(self, name)
            if not (name == "crossover" and value is None) and not least <= check_number(name, value) <= most:
                raise ValueError(f"`{name}` must be at least {least} and at most {most}, got {value!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> DEState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, key, bounds, scale, budget)
        size = self._first_size(frame)
        pool, values = populate(frame, size, known)
        first = int(np.count_nonzero(np.isfinite(values)))
        adaptive, none = self.strategy == "shade", np.empty(0)
        memory = np.full((2, self.memory_size if adaptive else 0), 0.5)
        memory[0] = self.weight
        if self.crossover is not None:
            memory[1] = self.crossover
        trials = _Trials(pool, none, none)
        if first == size:
            trials, first = self._trials(frame, 0, pool, size, memory, _draw(frame, 0, size)), 0
        return DEState(frame, 0, 0, first, pool, values, *trials, memory, 0)

    def ask(self, state: DEState) -> Rows:
        """Return the trials; fewer where the budget ends."""
        count = remaining(state.frame, state.nfev, len(state.values) - state.first)
        return Rows(place(state.frame, state.trial[state.first : state.first + count]))

    def tell(self, state: DEState, evaluations: Evaluations) -> DEState:
        """Return the state after the values of all trials.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        frame, old, size, first = state.frame, state.values, len(state.values), state.first
        asked = remaining(frame, state.nfev, size - first)
        new = check_told(evaluations, asked)
        if asked < size:
            new = np.concatenate([np.full(first, np.nan), new, np.full(size - asked - first, np.nan)])
        step, nfev = state.step + 1, state.nfev + asked
        accepted = new <= old
        values = np.where(accepted, new, old)
        kept, draws = self._size(frame, nfev), _draw(frame, step, self._first_size(frame))
        order = values.argsort(kind="stable")[:kept]
        memory, slot, rows = state.memory, state.slot, order
        if self.strategy == "shade":
            # What has no value yet is no loss, and the first trials have come from nobody.
            better = new < old
            winners = (better if old[-1] < np.inf else better & (old < np.inf)).nonzero()[0]
            if len(winners):
                memory = memory.copy()
                memory[:, slot] = self._means(state, winners, new)
                slot = (slot + 1) % self.memory_size
            rows = np.concatenate([order, self._archive(state, winners, kept, draws.place)])
        pool = take(state.pool, rows)
        replaced = accepted[order].nonzero()[0]
        pool[beside(pool, replaced)] = take(state.trial, order[replaced])
        trials = self._trials(frame, step, pool, kept, memory, draws)
        return DEState(frame, step, nfev, 0, pool, values[order], *trials, memory, slot)

    def recommend(self, state: DEState) -> Array:
        """Return the best member, or x0 while none has a value."""
        return place(state.frame, (state.pool[0] if state.values[0] < np.inf else state.frame.x0) + 0)

    def finished(self, state: DEState) -> str | None:
        """Return which stopping rule holds, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        if state.step % CHECK_EVERY or not state.step:
            return None
        members = state.pool[: len(state.values)]
        if collapsed(state.frame, members, extent(members), self.tolx):
            return f"tolx: the population is within {self.tolx} of the scale, or rounding"
        return None

    def diagnostics(self, state: DEState) -> dict[str, Any]:
        """Return the population's size and widest range, and mean parameters."""
        size = len(state.values)
        return {
            "population": size,
            "spread": float(extent(state.pool[:size]).max()),
            "weight": float(state.weights.mean()) if len(state.weights) else math.nan,
            "crossover": float(state.crossovers.mean()) if len(state.crossovers) else math.nan,
        }

    def _first_size(self, frame: Frame) -> int:
        if self.population_size is not None:
            return self.population_size
        if frame.budget is None:
            return min(18 * frame.dim, 100)
        return max(8, min(18 * frame.dim, round(math.sqrt(frame.budget) / 2)))

    def _size(self, frame: Frame, nfev: int) -> int:
        """Return how many members there are after `nfev` evaluations."""
        first = self._first_size(frame)
        last = self.final_population_size or (4 if self.strategy == "shade" else first)
        if frame.budget is None or last >= first:
            return first
        return round(first + (last - first) * min(1.0, nfev / frame.budget))

    def _archive(self, state: DEState, losers: Matrix, kept: int, places: Matrix) -> Matrix:
        """Return which rows of the pool are in the next archive.

        Losers go behind, and where it is full, into places drawn at random.
        """
        size, room = len(state.values), int(self.archive_rate * kept)
        held = np.arange(size, min(len(state.pool), size + room))
        fit = room - len(held)
        if len(losers) <= fit:
            return np.concatenate([held, losers])
        archive, late = np.concatenate([held, losers[:fit]]), losers[fit:]
        if room:
            archive[(places[late] * room).astype(np.int64)] = late
        return archive

    def _means(self, state: DEState, winners: Matrix, new: Matrix) -> tuple[float, float]:
        """Return the means of the weights and crossover rates of trials better than their members."""
        old = state.values
        passed = old.searchsorted(old[winners], "right") - old.searchsorted(new[winners])
        passed = passed.astype(np.float64)  # which the products would do each time
        weights, crossovers = state.weights[winners], state.crossovers[winners]
        total = float(passed @ crossovers)
        never = total == 0 or state.memory[1, state.slot] == _NEVER
        return (
            float(passed @ weights**2) / float(passed @ weights),
            _NEVER if never else float(passed @ crossovers**2) / total,
        )

    def _trials(
        self, frame: Frame, step: int, pool: Array, size: int, memory: Matrix, draws: _Draws
    ) -> _Trials:
        """Return a trial for each of the first `size` rows of the pool."""
        members, row = pool[:size], np.arange(size)
        if size < len(draws.column):
            draws = _Draws(*(part[:size] for part in draws))
        adaptive, dim = self.strategy == "shade", frame.dim
        if adaptive:
            weights, crossovers = _parameters(draws, memory)
            counts = (max(2, round(self.best_share * size)), size - 1, len(pool) - 2, 0, dim)
        else:
            weights = np.full(size, float(self.weight))
            crossovers = np.full(size, 0.9 if self.crossover is None else float(self.crossover))
            counts = (1, size - 1, size - 2, size - 3, dim)
        guide, one, two, three, always = (draws.picks * counts).astype(np.int64).T
        one += one >= row
        low, high = np.minimum(row, one), np.maximum(row, one)
        two += two >= low
        two += two >= high
        if self.strategy == "rand/1/bin":
            low, middle, high = np.sort([row, one, two], 0)
            three += three >= low
            three += three >= middle
            three += three >= high
            guide = three
        scale = beside(pool, weights.astype(frame.work.dtype)[:, None])
        with np.errstate(over="ignore", invalid="ignore"):
            mutant = take(pool, one)
            mutant -= take(pool, two)
            if adaptive:
                mutant += take(pool, guide)
                mutant -= members
                mutant *= scale
                mutant += members
            else:
                mutant *= scale
                mutant += take(pool, guide)
            chosen = draws.crossed < beside(pool, crossovers.astype(frame.work.dtype)[:, None])
            chosen[beside(pool, row), beside(pool, always)] = True
            xp = array_module(pool)
            trial = xp.where(chosen, mutant, members)
            if frame.bounds is not None:
                lower, upper = frame.bounds.sides(trial)
                trial = xp.where(trial < lower, lower + (members - lower) / 2, trial)
                trial = xp.where(trial > upper, upper - (upper - members) / 2, trial)
                trial = frame.bounds.map(trial, "clip")
            if not is_finite(trial):
                trial = xp.where(xp.isfinite(trial), trial, members)
        return _Trials(trial, weights, crossovers)


def _draw(frame: Frame, step: int, stride: int) -> _Draws:
    """Return what the trials of a step are made of; there are never more than `stride`."""
    key, dim = frame.key, frame.dim
    if frame.work.kind != "numpy":
        crossed = key.fold("crossover", step).uniform(0, stride, dim, like=frame.work)
        return _prepared(key.fold("de", step).uniform(0, stride, _SHARES), crossed)
    width = _SHARES + dim
    steps = max(1, _BLOCK // (stride * width))
    block, here = divmod(step, steps)
    if steps == 1:
        return _numpy_draws.__wrapped__(key, block, stride, width, frame.work)
    rows = slice(here * stride, (here + 1) * stride)
    return _Draws(*(part[rows] for part in _numpy_draws(key, block, steps * stride, width, frame.work)))


@functools.lru_cache(maxsize=4)
def _numpy_draws(key: Key, block: int, rows: int, width: int, like: Like) -> _Draws:
    """Return what the trials of some steps on end are made of."""
    drawn = key.fold("de", block).uniform(0, rows, width, like=like)
    return _prepared(drawn[:, :_SHARES], drawn[:, _SHARES:])


def _prepared(shares: Matrix, crossed: Array) -> _Draws:
    column, radius, angle, weight, *picks, place = np.ascontiguousarray(shares.T, np.float64)
    rate = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * math.pi * angle)
    return _Draws(column, rate, weight, np.stack(picks, 1), place, crossed)


def _parameters(draws: _Draws, memory: Matrix) -> tuple[Matrix, Matrix]:
    """Return weights and crossover rates around columns of the memory."""
    mean, rate = memory.take((draws.column * memory.shape[1]).astype(np.int64), 1)
    crossovers = np.minimum(np.maximum(rate + _SPREAD * draws.rate, 0.0), 1.0)
    crossovers[rate == _NEVER] = 0.0
    # Quantiles of the part of the Cauchy distribution that is above 0, as if others were drawn again.
    above = 0.5 + np.arctan(mean / _SPREAD) / math.pi
    weights = mean + _SPREAD * np.tan(math.pi * (0.5 - above * draws.weight))
    return np.minimum(np.maximum(weights, _LEAST), 1.0), crossovers
