"""What is known of a run under way: kept by the run itself at next to no cost, read by displays."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from zoo.core.space import Space
from zoo.progress.wording import number, rate, words_of
from zoo.run.loop import Run
from zoo.run.watching import OWN_METRICS, Beginning

if TYPE_CHECKING:
    from zoo.progress.drawing import ConsoleOptions, Panel, Text

_SAMPLES = 256  # of the past, at most
_APART = 0.01  # of the time so far, at least, between two of them
_RECENT = 0.25  # of the time so far: what the present rate is taken from
_SHORTEST, _LONGEST = 5.0, 900.0  # seconds of it
_FEW = 3  # evaluations from which on their rate means something
_PARTS, _STEADY = 8, 4  # of the time so far; the last ones, in which logarithms of values fell alike
_UNSTEADY = 3.0  # ratio of the largest fall to the smallest one from which on they did not
_STEP_SIZES = ("sigma", "step_size", "learning_rate")
_MOST_WORDS = 40  # of a point: more fit into no line


class Tally:
    """The numbers of one run.

    `step` and `arrived` are called by the run; all else may be called from another thread, which then sees
    the run as it was a moment ago.

    Args:
        run: What begins.
        now: The time, as `time.monotonic` has it.

    Attributes:
        metrics: Those of the last step, empty before the first one.
        nfev: Evaluations told.
        pending: Evaluations of the present step that came in.
        best: Lowest value, infinite before there is one.
        found: Evaluations told when it was found; None before, or if another process found it.
        found_at: The time then.
        error: With noise, the standard error of `best` at the end, which then is no luck.
        recommended: The point the method recommends, abridged, as words; empty before it was asked.
        outcome: How the run ended, None before.
    """

    unit = "evaluations"  # what is counted

    def __init__(self, run: Beginning, now: float) -> None:
        config, state = run.config, run.state
        self.method = str(config.get("method", type(run.job).__name__))
        self.dim: int | None = config.get("dim")
        self.space = None if config.get("space") is None else Space.read(config["space"])
        self.budget: int | None = config.get("budget")
        self.noise = bool(config.get("noise"))
        self.error: float | None = None
        self.target, self.limit = run.stop.target, run.stop.seconds
        self.path, self.job = run.path, run.job
        self.num_workers: int | None = run.execution.get("num_workers")
        self.executor = str(run.execution.get("executor", ""))
        self.began = self.found_at = now
        self.first = self.nfev = state.nfev
        self.num_steps: int = state.step
        self.pending = 0
        self.best: float = state.fun_best
        self.found: int | None = None
        self.failed: int = getattr(state, "num_failed", 0)
        self.metrics: Mapping[str, Any] = {}
        self.recommended: list[str] = []
        self.outcome: Run[Any] | None = None
        self._state = state
        self._counts = [(now, self.nfev)]
        self._bests: list[tuple[float, float]] = []

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Take note of a step."""
        self._state, self.metrics = state, metrics
        self.nfev = metrics["nfev"]
        self.pending = 0
        if metrics["best"] != self.best:
            self.best, self.found, self.found_at = metrics["best"], self.nfev, time.monotonic()
            if not self._bests or self.found_at - self._bests[-1][0] > _APART * (self.found_at - self.began):
                self._remember(self.found_at)

    def arrived(self, number: int) -> None:
        """Take note of evaluations."""
        self.pending += number

    def end(self, outcome: Run[Any]) -> None:
        """Take note of the end."""
        state = self._state = outcome.state
        self.outcome, self.best, self.nfev = outcome, state.fun_best, state.nfev + state.num_final
        self.pending, self.num_steps = 0, state.step
        if self.noise and state.x is not None:
            self.best, self.error = state.fun, state.fun_error
        self.failed = getattr(state, "num_failed", 0)
        point = state.x if state.x is not None else getattr(state, "x_best", None)
        self.recommended = [] if point is None else self._words_of(point)

    def recommend(self) -> None:
        """Ask the method what it recommends; to be called in the thread of the run."""
        # Methods may keep things beside their state, so this is nothing for another thread.
        optimizer = getattr(self.job, "optimizer", None)
        if optimizer is not None and self.metrics:
            self.recommended = self._words_of(optimizer.recommend(self._state.optimizer))

    def sample(self, now: float) -> None:
        """Remember how far it is, for rates and for the past; to be called in the thread of the run."""
        count = self.count
        if count != self._counts[-1][1]:
            self._counts = _thinned([*self._counts, (now, count)])
        if not self._bests or self.best != self._bests[-1][1]:
            self._remember(now)

    @property
    def count(self) -> int:
        """Evaluations made."""
        return self.nfev + self.pending

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self.metrics.get("step", self.num_steps))

    @property
    def num_failures(self) -> int:
        """Evaluations that failed."""
        return max(self.failed, int(self.metrics.get("failed", 0)))

    @property
    def has_value(self) -> bool:
        """Whether any evaluation had a value so far."""
        return math.isfinite(self.best)

    @property
    def violation(self) -> float:
        """By how much the best point violates the constraints."""
        name = "violation_best" if self._state.x is None else "violation"
        violation = getattr(self._state, name, 0.0)
        return float(violation) if self.has_value else 0.0

    @property
    def front(self) -> int | None:
        """How many points no other one dominates, where there are several objectives."""
        front = getattr(self._state, "front", None)
        return None if front is None else len(front[0])

    def elapsed(self, now: float) -> float:
        """Return the seconds since this process began with it."""
        return self.outcome.seconds if self.outcome is not None else now - self.began

    def rate(self, now: float) -> float | None:
        """Return evaluations a second, of late; None before any can be told."""
        if self.outcome is not None:
            done, seconds = self.count - self.first, self.outcome.seconds
        else:
            window = min(max(_RECENT * (now - self.began), _SHORTEST), _LONGEST)
            # A few slow evaluations say little: at least some are waited for, however long ago they were.
            last = self.count - _FEW
            since = [entry for entry in self._counts if entry[0] <= now - window and entry[1] <= last]
            start, before = since[-1] if since else self._counts[0]
            done, seconds = self.count - before, now - start
        return done / seconds if done > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Return the seconds until a limit ends it, None if nothing can be said; it may well end earlier."""
        ends = []
        rate = self.rate(now)
        if self.budget is not None and rate is not None and self.count >= self.first + _FEW:
            ends.append(max(0, self.budget - self.count) / rate)
        if self.limit is not None:
            ends.append(max(0.0, self.limit - self.elapsed(now)))
        return min(ends, default=None)

    def to_target(self, now: float) -> float | None:
        """Return in how many seconds the target is reached, None unless the search has long been steady."""
        past = self.past(now, _PARTS)[-_STEADY - 1 :]
        lowest = min((value for value in past if value is not None), default=0.0)
        if self.target is None or self.target <= 0 or lowest < self.target or None in past:
            return None
        logarithms = [math.log(value) for value in past if value is not None]
        falls = [before - after for before, after in pairwise(logarithms)]
        if min(falls) <= 0 or max(falls) > _UNSTEADY * min(falls):
            return None
        seconds = (now - self.began) / _PARTS
        return (logarithms[-1] - math.log(self.target)) / (sum(falls) / len(falls)) * seconds

    def past(self, now: float, width: int) -> list[float | None]:
        """Return the best value at evenly spaced times until now, None before the first."""
        found: list[float | None] = []
        at, bests = 0, self._bests
        for i in range(width):
            when = self.began + (now - self.began) * (i + 1) / width
            while at < len(bests) and bests[at][0] <= when:
                at += 1
            found.append(bests[at - 1][1] if at else None)
        return found

    def diagnostics(self) -> tuple[str | None, list[tuple[str, str]]]:
        """Return the method's step size, if it has one, and names and values of whatever else is a number."""
        size, others = None, []
        for name, value in self.metrics.items():
            if name in OWN_METRICS or not isinstance(value, (int, float)):
                continue
            if size is None and name in _STEP_SIZES:
                size = number(value, 3)
            else:
                others.append((name.replace("_", " "), number(value, 3)))
        return size, others

    def troubles(self) -> list[tuple[str, int]]:
        """Return what went wrong so far, and how often."""
        account = self.job.account
        found = {
            "failed": self.num_failures,
            "quarantined": account.quarantined,
            "lost": account.lost,
            "restarted": account.restarts,
            "retried": account.retries,
        }
        return [(name, times) for name, times in found.items() if times]

    def panel(self, now: float, options: ConsoleOptions, height: int | None = None) -> Panel | Text:
        """Return the panel; arguments are as in `zoo.progress.panel.drawn`."""
        from zoo.progress.panel import drawn

        return drawn(self, now, options, height)

    def beginning(self) -> dict[str, Any]:
        """Return what the first line of a log says, by name."""
        return {
            "dim": self.dim,
            "budget": self.budget,
            "nfev": self.nfev or None,
            "target": self.target,
            **self.execution,
        }

    @property
    def execution(self) -> dict[str, Any]:
        """Who evaluates, and where it is kept, for the first line of a log."""
        return {"executor": self.executor or None, "workers": self.num_workers, "directory": self.path}

    def line(self, now: float) -> dict[str, Any]:
        """Return what a line of a log says, by name."""
        size, _ = self.diagnostics()
        return {
            "nfev": self.count,
            "best": number(self.best, 7) if self.has_value else None,
            "found": self.found if self.error is None else None,  # a mean of fresh values was found nowhere
            "violation": number(self.violation, 3) if self.violation > 0 else None,
            "step_size": size,
            **self.times(now),
        }

    def times(self, now: float) -> dict[str, Any]:
        """Return the clock, what is left and the rate, for a line of a log."""
        pace, left = self.rate(now), None if self.outcome else self.left(now)
        return {
            "seconds": round(self.elapsed(now)),
            "left": None if left is None else round(left),
            "rate": None if pace is None else rate(pace),
            **dict(self.troubles()),
        }

    def words(self) -> str:
        """Return what stands beside a bar."""
        size, _ = self.diagnostics()
        parts = [f"best {number(self.best, 5)}" if self.has_value else "no value yet"]
        parts += [] if size is None else [f"step size {size}"]
        parts += [f"{times} {name}" for name, times in self.troubles()]
        return ", ".join(parts)

    def _remember(self, now: float) -> None:
        if self.has_value:
            self._bests = _thinned([*self._bests, (now, self.best)])

    def _words_of(self, point: Any) -> list[str]:
        """Return the first coordinates of a point, or of what stands for them in a space."""
        if self.space is None:
            return words_of([float(value) for value in point[:_MOST_WORDS].tolist()])
        return words_of(self.space.decode(point))


def until(most: int | None, now: int, first: int, elapsed: float) -> float | None:
    """Return the seconds until a count is at its limit, if it goes on as it went; None if nobody can say.

    Args:
        most: The limit, or None.
        now: The count.
        first: What it was when this process began with the run.
        elapsed: Seconds since then.

    Example:
        >>> until(20, 10, 5, 60.0), until(20, 5, 5, 60.0)
        (120.0, None)
    """
    if most is None or now <= first or elapsed <= 0:
        return None
    return max(0, most - now) * elapsed / (now - first)


def _thinned(entries: list[Any]) -> list[Any]:
    """Return every second entry but the last ones, if there are too many."""
    if len(entries) <= _SAMPLES:
        return entries
    return entries[: _SAMPLES // 2 : 2] + entries[_SAMPLES // 2 :]
