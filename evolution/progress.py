"""Live progress of a run, on standard error: `callback=evolution.Progress()`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import zoo.progress
from evolution.job import COLUMNS, EvolutionState, generations_of, history_of
from zoo.progress.tally import Tally, until
from zoo.progress.wording import duration, number, rate
from zoo.run.loop import Run
from zoo.run.watching import OWN_METRICS, Beginning

if TYPE_CHECKING:
    from zoo.progress.drawing import ConsoleOptions, Panel
    from zoo.progress.panel import Part, Row

_RECENT, _SHORTEST, _LONGEST = 0.25, 5.0, 900.0  # as for rates of episodes
_SAMPLES = 256
# Scores, which are said elsewhere with their sign, and counts.
_UNSAID = (
    "generation",
    "elite",
    "best_elite",
    "recommended",
    "frames",
    "retrial",
    "ancestors",
    "observations",
)


class Progress(zoo.progress.Progress):
    """Shows on standard error how a run goes: give it as `callback`.

    Scores are returns, so the higher the better. `best` is the best member by re-evaluation, the mean of many
    episodes; the highest return of a generation is that of a single lucky one.

    Args:
        mode: As in `zoo.Progress`: "auto", "panel", "lines", "bar" or "none".

    Attributes:
        has_summary: Whether a panel that stays says how the last run went.

    Raises:
        ValueError: There is no such mode.

    Example:
        >>> from evolution import evolve
        >>> small = {"population_size": 8, "num_parents": 2, "elite_candidates": 2}
        >>> evolve("cart-pole", options=small, generations=2, rng=0, callback=Progress()).generations
        2
    """

    def tally(self, run: Beginning, now: float) -> EvolutionTally:
        return EvolutionTally(run, now)


class EvolutionTally(Tally):
    """The numbers of one run; those that are values elsewhere are scores here.

    Attributes:
        environment: Its name.
        generations: Steps that were no re-evaluations.
        most_generations: How many there may be, or None.
        frames: Frames so far.
        highest: Highest return of a single episode of the last generation, NaN before there is one.
        median: Median return of that generation.
        elite: Mean score of the last re-evaluation, NaN where the method has none.
        is_retrial: Whether the last step was a re-evaluation.
    """

    unit = "episodes"

    def __init__(self, run: Beginning, now: float) -> None:
        super().__init__(run, now)
        config, state = run.config, run.state
        assert isinstance(state, EvolutionState)
        named = config.get("objective", {}).get("attributes", {}).get("environment", {})
        self.environment = str(named.get("name", "an environment"))
        self.target: float | None = config.get("score")
        self.most_generations: int | None = config.get("generations")
        self.most_frames: int | None = config.get("frames")
        self.best = -self.best
        self.frames = self.first_frames = state.frames
        self.generations = self._first_generations = generations_of(state)
        self.highest = self.median = self.elite = math.nan
        self.is_retrial = False
        self._frame_counts = [(now, self.frames)]

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Take note of a step."""
        now = time.monotonic()
        own = dict(zip(COLUMNS, (column[-1] for column in history_of(state).values()), strict=True))
        # What the tally above compares and keeps is the best, which has another sign here.
        best = float(own["best"]) if math.isfinite(own["best"]) else -math.inf
        super().step(state, {**metrics, "best": best})
        self.metrics = metrics
        self.frames, self.is_retrial = state.frames, bool(own["retrial"])
        if not self.is_retrial:
            self.generations += 1
            self.highest, self.median = float(own["highest"]), float(own["median"])
        elite = metrics.get("elite", metrics.get("recommended"))
        self.elite = -elite if isinstance(elite, float) and math.isfinite(elite) else math.nan
        self._frame_counts.append((now, self.frames))
        if len(self._frame_counts) > _SAMPLES:
            self._frame_counts = self._frame_counts[: _SAMPLES // 2 : 2] + self._frame_counts[_SAMPLES // 2 :]

    def end(self, outcome: Run[Any]) -> None:
        """Take note of the end."""
        state = self._state = outcome.state
        self.outcome, self.nfev = outcome, state.nfev + state.num_final
        self.best = -state.fun_best
        self.pending, self.num_steps, self.failed = 0, state.step, state.num_failed
        self.frames, self.generations = state.frames, generations_of(state)
        if state.num_final and math.isfinite(state.fun):
            self.best, self.error = -state.fun, state.fun_error

    def recommend(self) -> None:
        """Ask nothing: nobody can read so many parameters."""

    def frame_rate(self, now: float) -> float | None:
        """Return frames a second, of late; None before any can be told."""
        if self.outcome is not None:
            done, seconds = self.frames - self.first_frames, self.outcome.seconds
        else:
            counts = self._frame_counts
            window = min(max(_RECENT * (now - self.began), _SHORTEST), _LONGEST)
            since = [entry for entry in counts[:-1] if entry[0] <= now - window]
            start, before = since[-1] if since else counts[0]
            done, seconds = counts[-1][1] - before, counts[-1][0] - start
        return done / seconds if done > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Return the seconds until a limit ends it, None if nothing can be said; it may well end earlier."""
        pace = self.frame_rate(now)
        ends = [
            super().left(now),
            until(self.most_generations, self.generations, self._first_generations, self.elapsed(now)),
        ]
        if self.most_frames is not None and pace is not None:
            ends.append(max(0, self.most_frames - self.frames) / pace)
        return min((end for end in ends if end is not None), default=None)

    def diagnostics(self) -> tuple[str | None, list[tuple[str, str]]]:
        """Return names and values of what the method says of itself, apart from scores."""
        found = []
        for name, value in self.metrics.items():
            if name in OWN_METRICS or name in _UNSAID or not isinstance(value, (int, float)):
                continue
            found.append((name.replace("_", " "), number(value, 3)))
        return None, found

    def beginning(self) -> dict[str, Any]:
        """Return what the first line of a log says, by name."""
        return {
            "env": self.environment,
            "parameters": self.dim,
            "budget": self.budget,
            "generations": self.most_generations,
            "frames": self.most_frames,
            "score": None if self.target is None else number(self.target),
            "episodes": self.nfev or None,
            **self.execution,
        }

    def line(self, now: float) -> dict[str, Any]:
        """Return what a line of a log says, by name."""
        pace = self.frame_rate(now)
        return {
            "generation": self.generations,
            "best": self._said(self.best, 6),
            "error": None if self.error is None else self._said(self.error, 2),
            "highest": self._said(self.highest),
            "median": self._said(self.median),
            "elite": self._said(self.elite),
            "episodes": self.count,
            "frames": self.frames,
            **self.times(now),
            "frame_rate": None if pace is None else rate(pace),
        }

    def words(self) -> str:
        """Return what stands beside a bar."""
        parts = [f"generation {self.generations}"]
        parts += [f"best {number(self.best, 5)}" if self.has_value else "no score yet"]
        parts += [f"median {number(self.median, 4)}"] if math.isfinite(self.median) else []
        parts += [f"{times} {name}" for name, times in self.troubles()]
        return ", ".join(parts)

    def panel(self, now: float, options: ConsoleOptions, height: int | None = None) -> Panel:
        """Return the panel; arguments are as in `zoo.progress.panel.drawn`."""
        from zoo.progress.panel import framed

        parameters = f"{self.dim:,} parameters" if self.dim is not None else ""
        subject = [part for part in (self.method, self.environment, parameters) if part]
        rows_of = self._running if self.outcome is None else self._ended
        return framed(self, subject, lambda room: rows_of(now, room), options, height)

    def _running(self, now: float, room: int) -> list[Row]:
        from zoo.progress.panel import Row, count_of, past_of, workers_of

        _, others = self.diagnostics()
        details = [(f"{name} {value}", "") for name, value in others]
        method = [Row("method", "method", 6, details)] if details else []
        return [
            Row("best", "best", 0, self._best(now)),
            Row("generation", "gen", 1, self._generation()),
            Row("episodes", "epis", 2, count_of(self, room)),
            Row("frames", "frames", 4, self._frames(now)),
            Row("time", "time", 3, self._time(now)),
            *method,
            Row("workers", "work", 5, workers_of(self)),
            Row("history", "past", 7, past_of(self, now, room)),
        ]

    def _ended(self, now: float, room: int) -> list[Row]:
        from zoo.progress.panel import Row, past_of, reason_of, spent_of, workers_of

        troubled = [Row("workers", "work", 5, workers_of(self))] if self.troubles() else []
        rows = [
            Row("score" if self.error is not None else "best", "best", 0, self._best(None)),
            Row("generation", "gen", 4, self._generation()),
            Row("episodes", "epis", 2, spent_of(self, now)),
            Row("frames", "frames", 3, self._frames(now)),
            *troubled,
            Row("history", "past", 6, past_of(self, now, room)),
            *reason_of(self, room),
        ]
        return [row for row in rows if row.parts]

    def _best(self, now: float | None) -> list[Part]:
        if not self.has_value:
            return [("none evaluated again yet" if now is not None else "no episode had a return", "yellow")]
        parts = [(number(self.best, 6), "bold green")]
        if self.error is not None:
            if math.isfinite(self.error):
                parts.append((f"± {number(self.error, 2)}", "green"))
            parts.append(("mean of fresh episodes", "dim"))
        elif self.found is not None:
            parts.append((f"found at {self.found:,} episodes", ""))
            if now is not None:
                ago = now - self.found_at
                parts.append((f"{duration(ago)} ago" if ago >= 1 else "just now", "dim"))
        elif now is not None:
            parts.append(("found earlier", "dim"))
        if math.isfinite(self.elite) and self.elite != self.best and self.outcome is None:
            parts.append((f"elite {number(self.elite, 5)}", ""))
        if self.target is not None:
            parts.append((f"wanted {number(self.target, 5)}", "dim"))
        return parts

    def _generation(self) -> list[Part]:
        of = "" if self.most_generations is None else f" of {self.most_generations:,}"
        parts = [(f"{self.generations:,}{of}", "bold")]
        if math.isfinite(self.highest):
            parts += [(f"highest {number(self.highest, 5)}", ""), (f"median {number(self.median, 5)}", "")]
        if self.outcome is None and self.is_retrial:
            parts.append(("best evaluated again", "dim"))
        return parts

    def _frames(self, now: float) -> list[Part]:
        of = "" if self.most_frames is None else f" of {self.most_frames:,}"
        pace = self.frame_rate(now)
        return [(f"{self.frames:,}{of}", "bold"), *([] if pace is None else [(rate(pace), "")])]

    def _time(self, now: float) -> list[Part]:
        parts = [(duration(self.elapsed(now)), "bold")]
        left, pace = self.left(now), self.rate(now)
        if left is not None:
            parts.append((f"at most {duration(left)} left", ""))
        if pace is not None:
            parts.append((f"{rate(pace).replace('/', ' episodes/')}", ""))
        if self.pending:
            parts.append((f"{self.pending:,} of this step", "dim"))
        return parts

    @staticmethod
    def _said(value: float, digits: int = 5) -> str | None:
        return number(value, digits) if math.isfinite(value) else None
