"""Many independent swarms at once: to know how often a method succeeds, or to take the best of many runs.

A step of a small swarm takes as long as its calls do, however little they work on. Here a hundred swarms are
moved by the same calls, and take a few times as long as one; each does what `zoo.minimize` does with its
seed, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zoo.arguments import as_key
from zoo.consensus.swarm import place, select
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.objective import VectorizedFunction
from zoo.core.types import Candidates, Evaluations
from zoo.core.validation import check_count
from zoo.execution.threads import limited
from zoo.experiment import Experiment, experiment_of

Matrix = np.ndarray[Any, Any]

_PIECE = 2**16  # coordinates handed to the objective in one call, about
_Z = 1.959963984540054  # half the width of the interval that holds 95 % of a normal distribution


class Rate(NamedTuple):
    """How often something happened, with the 95 % interval of Wilson.

    Attributes:
        rate: Share of the runs.
        low: Lower end.
        high: Upper end.
    """

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rate:.3g} ({self.low:.3g} to {self.high:.3g})"


def wilson(successes: int, runs: int) -> Rate:
    """Return the rate of successes with its 95 % interval.

    Args:
        successes: From 0 to `runs`.
        runs: At least 1.

    Raises:
        ValueError: They are not.

    Example:
        >>> print(wilson(98, 100))
        0.98 (0.93 to 0.994)

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
        https://doi.org/10.1080/01621459.1927.10502953
    """
    if runs < 1 or not 0 <= successes <= runs:
        raise ValueError(f"`successes` must be from 0 to `runs`, got {successes} of {runs}.")
    rate, part = successes / runs, _Z * _Z / runs
    middle = (rate + part / 2) / (1 + part)
    half = _Z / (1 + part) * math.sqrt(rate * (1 - rate) / runs + part / (4 * runs))
    low = 0.0 if successes == 0 else middle - half
    return Rate(rate, low, 1.0 if successes == runs else middle + half)


@dataclass(frozen=True, eq=False)
class Runs:
    """How M runs ended, or where they are.

    Attributes:
        x: The best point of each, shape (M, dim), of the kind of x0; x0 or what is recommended where nothing
            had a value.
        fun: Values there, shape (M,); NaN where nothing had a value.
        nfev: Evaluations of each, shape (M,).
        nit: Steps of each, shape (M,).
        consensus: The consensus points, shape (M, dim).
        message: Why each ended; empty where it has not.
    """

    x: Array
    fun: Matrix
    nfev: Matrix
    nit: Matrix
    consensus: Array
    message: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.fun)

    @property
    def best(self) -> int:
        """Which run found the least value; the first one if none has a value."""
        return int(np.where(np.isnan(self.fun), np.inf, self.fun).argmin())

    def success(self, where: Any, within: float = 0.25, of: str = "x") -> Rate:
        """Return the share of runs of which every coordinate ended near a place.

        Args:
            where: The place, shape (dim,) or a number; or several of which any will do, shape (k, dim).
            within: Largest distance of a coordinate, a number or shape (dim,).
            of: "x", or "consensus" for the consensus points, as most papers have it.

        Raises:
            ValueError: `of` is neither.
        """
        if of not in ("x", "consensus"):
            raise ValueError(f"`of` must be 'x' or 'consensus', got {of!r}.")
        points = np.asarray(to_numpy(self.x if of == "x" else self.consensus), np.float64)
        places = np.atleast_2d(np.asarray(to_numpy(where), np.float64))
        near = np.asarray((np.abs(points[:, None] - places) < within).all(2))
        return wilson(int(near.any(1).sum()), len(points))

    def below(self, value: float) -> Rate:
        """Return the share of runs that found a value below one."""
        return wilson(int((self.fun < value).sum()), len(self.fun))


def run(
    method: str,
    fun: Callable[..., Any],
    x0: Any = None,
    *,
    seeds: int | Iterable[Any] = 100,
    bounds: Any = None,
    known: Any = None,
    scale: Any = None,
    budget: int | None = None,
    target: float | None = None,
    options: dict[str, Any] | None = None,
    callback: Callable[[Runs], Any] | None = None,
) -> Runs:
    """Minimise a function by many independent runs of one method, all at once.

    Run m is bit for bit what `zoo.minimize(fun, x0, method=method, rng=seeds[m], vectorized=True, ...)` does,
    as long as `fun` gives a point the same value whatever points are beside it. It runs in this process,
    without a directory, and what `fun` raises ends it.

    Beside the particles, the random numbers of small swarms, drawn for many steps at once, take 130 to 260 KB
    a run, 610 KB with the explorers of `cbo`, and about 200 MB at most in all.

    Args:
        method: One that holds many swarms: "cbo", "cbo-textbook", "ch", "cbo-manifold", "cbo-mirror" or
            "cbo-penalty".
        fun: Takes points of shape (k, dim), those of several runs together, and returns shape (k,). NaN and
            infinities are failed evaluations.
        x0: Where all start; see `zoo.minimize` for this and the next ones.
        seeds: One for each run: integers or keys, as `rng` there; or how many, for the seeds 0, 1, 2, ...
        bounds: Box.
        known: Points and their values.
        scale: How far from x0 the optimum may be.
        budget: Evaluations of each run at most; 1000 times the number of variables by default.
        target: A run ends as soon as it has a value of this or less; the others go on.
        options: Options of the method.
        callback: Called after each step with the `Runs` so far; `StopIteration` ends all.

    Raises:
        ValueError: The method does not hold many swarms, there are no seeds, or an argument has a value that
            it cannot have.
        TypeError: An argument is of a type that it cannot be, or `fun` does not return k numbers.

    Example:
        >>> def rastrigin(x):
        ...     return (x * x - 10 * np.cos(2 * np.pi * x) + 10).sum(1)
        >>> runs = run("cbo", rastrigin, np.full(4, 1.7), seeds=range(20), budget=3000)
        >>> runs.success(0.0).rate > 0.9
        True
    """
    if not callable(fun):
        raise TypeError(f"`fun` must be a function, got {fun!r}.")
    experiment = experiment_of(
        lambda *_: VectorizedFunction(fun),
        method,
        x0,
        bounds=bounds,
        space=None,
        constraints=(),
        known=known,
        scale=scale,
        budget=budget,
        target=target,
        rng=0,
        noise=False,
        options=options,
        vectorized=True,
    )
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = range(check_count("seeds", seeds))
    if not isinstance(seeds, Iterable) or isinstance(seeds, str):
        raise TypeError(f"`seeds` must be a number of runs or hold one seed for each, got {seeds!r}.")
    keys = tuple(as_key(seed).fold("search") for seed in seeds)
    if not keys:
        raise ValueError("`seeds` must hold one seed at least.")
    if experiment.first is not None:
        raise ValueError("`known` must have a value for every point where there are many runs.")
    with limited(experiment.threads):
        return _Search(experiment, fun, keys).run(callback)


class _Search:
    """Runs that are under way.

    Those that have ended stay among the others for a while, without being evaluated, and are told that all
    has failed: to take one out costs a copy of all, and the random numbers drawn ahead.
    """

    def __init__(self, experiment: Experiment, fun: Callable[..., Any], keys: tuple[Any, ...]) -> None:
        from zoo.registry import find

        self.experiment, self.fun = experiment, fun
        self.method: Any = find(experiment.method).build(dict(experiment.options))
        if not hasattr(self.method, "init_many"):
            raise ValueError(
                "`method` must hold many swarms, as 'cbo', 'cbo-textbook', 'ch', 'cbo-manifold', "
                f"'cbo-mirror' and 'cbo-penalty' do, got {experiment.method!r}."
            )
        self.like, count, known = Like.of(experiment.start), len(keys), experiment.known
        assert experiment.budget is not None
        self.budget, self.kept = experiment.budget, 0 if self.method.recommends_evaluated else 1
        self.state = self.method.init_many(
            experiment.start,
            keys=keys,
            bounds=experiment.bounds,
            scale=experiment.scale,
            budget=self.budget - self.kept,
            known=known,
        )
        self.here = np.arange(count)  # which runs the swarms of the state are
        self.is_open = np.ones(count, bool)
        self.steps, self.nfev = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.fun_best = np.full(count, np.inf if known is None else np.nanmin(known.values))
        start = experiment.start if known is None else self.like.asarray(known.best)
        self.x_best = array_module(start).stack([start] * count)
        self.is_valued = np.full(count, known is not None)
        self.is_found = np.zeros(count, bool)  # whether an evaluation of its own had a value
        self.consensus = self.x_best + 0
        self.message = [""] * count

    def run(self, callback: Callable[[Runs], Any] | None) -> Runs:
        """Go on until all have ended."""
        while True:
            candidates = self._close()
            if not self.is_open.any():
                break
            self._step(candidates)
            if callback is not None:
                try:
                    callback(self.runs())
                except StopIteration:
                    for run in np.flatnonzero(self.is_open):
                        self.message[run] = "the callback asked to stop"
                    break
        self._note(self.here[self.is_open[self.here]])
        return self.runs()

    def runs(self) -> Runs:
        """Return where they are."""
        self._note(self.here[self.is_open[self.here]])
        fun = np.where(self.is_valued, self.fun_best, np.nan)
        return Runs(
            self.x_best + 0,
            fun,
            self.nfev.copy(),
            self.steps.copy(),
            self.consensus + 0,
            tuple(self._messages()),
        )

    def _messages(self) -> list[str]:
        """Return why runs have ended, as `zoo.minimize` says it."""
        nothing = "; no evaluation had a value"
        ends = zip(self.message, self.is_found, strict=True)
        return [end if valued or not end else end + nothing for end, valued in ends]

    def _close(self) -> Candidates:
        """End those runs that are at their end, and return what the others want evaluated."""
        swarms = np.flatnonzero(self.is_open[self.here])
        target = self.experiment.target
        if target is not None:
            reached = swarms[self.fun_best[self.here[swarms]] <= target]
            self._end(reached, [f"the target {target:g} is reached"] * len(reached))
            swarms = np.flatnonzero(self.is_open[self.here])
        candidates = self.method.ask(self.state)
        reasons = self._reasons(swarms, len(candidates) // len(self.here))
        ended = np.array([reason is not None for reason in reasons], bool)
        self._recommended(swarms[ended])
        self._end(swarms[ended], [reason for reason in reasons if reason is not None])
        left = np.flatnonzero(self.is_open[self.here])
        if len(left) and 2 * len(left) <= len(self.here):
            self.state, self.here = select(self.state, left), self.here[left]
            candidates = self.method.ask(self.state)
        return candidates

    def _reasons(self, swarms: Matrix, wanted: int) -> list[str | None]:
        """Return why some swarms have nothing left to do, None for each that has."""
        if not len(swarms):
            return []
        left = self.budget - self.kept - int(self.nfev[self.here[swarms[0]]])
        used_up = f"the budget of {self.budget} evaluations is used up"
        if left <= 0:
            return [used_up] * len(swarms)
        if hasattr(self.method, "finished_many"):
            all_reasons = self.method.finished_many(self.state)
            reasons = [all_reasons[swarm] for swarm in swarms]
        else:
            alone = (select(self.state, swarms[i : i + 1]) for i in range(len(swarms)))
            reasons = [self.method.finished(state) for state in alone]
        return [used_up if reason is None and wanted > left else reason for reason in reasons]

    def _step(self, candidates: Candidates) -> None:
        """Do a step of all swarms that are open."""
        wanted = len(candidates) // len(self.here)
        swarms = np.flatnonzero(self.is_open[self.here])
        values = np.full((len(self.here), wanted), np.nan)
        height = max(1, _PIECE // max(1, wanted * candidates.dim))
        first = 0
        while first < len(swarms):  # runs of neighbours that are open
            last = first + 1
            while last < len(swarms) and last - first < height and swarms[last] == swarms[last - 1] + 1:
                last += 1
            start, stop = int(swarms[first]), int(swarms[last - 1]) + 1
            rows = candidates.rows(start * wanted, stop * wanted)
            values[start:stop] = self._evaluated(rows).reshape(stop - start, wanted)
            first = last
        evaluations = Evaluations(values.reshape(-1))
        values = evaluations.values.reshape(values.shape)[swarms]
        runs = self.here[swarms]
        lowest = np.where(np.isnan(values), np.inf, values)
        index = lowest.argmin(1)
        lowest = lowest[np.arange(len(swarms)), index]
        for i in np.flatnonzero(lowest < self.fun_best[runs]):
            row = int(swarms[i]) * wanted + int(index[i])
            self.x_best[int(runs[i])] = candidates.rows(row, row + 1)[0]
            self.fun_best[runs[i]] = lowest[i]
        self.is_found[runs] |= np.isfinite(values).any(1)
        self.is_valued |= self.is_found
        self.state = self.method.tell(self.state, evaluations)
        self.nfev[runs] += wanted
        self.steps[runs] += 1

    def _evaluated(self, rows: Array) -> Matrix:
        count = len(rows)
        values = to_numpy(self.fun(rows))
        if values.shape != (count,) or values.dtype.kind not in "fiub":
            raise TypeError(
                f"the objective must return {count} real numbers for {count} points, got {values.dtype} of "
                f"shape {values.shape}."
            )
        return values

    def _recommended(self, swarms: Matrix) -> None:
        """Evaluate what some swarms recommend, where that is not among what they have evaluated."""
        runs = self.here[swarms]
        wanting = np.flatnonzero((self.kept > 0) | (self.nfev[runs] == 0))
        if not len(wanting):
            return
        points = self.method.recommend_many(self.state)
        for i in wanting:
            swarm, run = int(swarms[i]), int(runs[i])
            value = float(Evaluations(self._evaluated(points[swarm : swarm + 1] + 0)).values[0])
            self.nfev[run] += 1
            self.is_found[run] |= math.isfinite(value)
            if value < self.fun_best[run] or not self.is_valued[run]:
                self.x_best[run] = points[swarm]
            if value < self.fun_best[run]:
                self.fun_best[run], self.is_valued[run] = value, True

    def _end(self, swarms: Matrix, reasons: list[str]) -> None:
        runs = self.here[swarms]
        self._note(runs)
        self.is_open[runs] = False
        for run, reason in zip(runs, reasons, strict=True):
            self.message[run] = reason

    def _note(self, runs: Matrix) -> None:
        """Write down where the consensus points of some runs that are open are."""
        if not len(runs):
            return
        if hasattr(self.state, "anchor"):
            frame, anchor = self.state.frame, self.state.anchor
            points = place(frame.like, frame.bounds, anchor, frame.work.asarray(anchor * 0))
        else:  # on surfaces and behind maps the consensus point is what is recommended
            points = self.method.recommend_many(self.state)
        wanted = set(runs.tolist())
        for swarm, run in enumerate(self.here.tolist()):
            if run in wanted:
                self.consensus[run] = points[swarm]
