"""Live progress of a run, on standard error: `callback=federated.progress.Progress()`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import zoo.progress
from federated.job import COLUMNS, FederatedState, history_of
from federated.kind import FAULTS, task_name
from zoo.core.validation import printable
from zoo.execution.ledger import size
from zoo.progress.tally import Tally, until
from zoo.progress.wording import duration, number, rate
from zoo.run.loop import Run
from zoo.run.watching import OWN_METRICS, Beginning

if TYPE_CHECKING:
    from zoo.progress.drawing import ConsoleOptions, Panel, Text
    from zoo.progress.panel import Part, Row


class Progress(zoo.progress.Progress):
    """Shows on standard error how a run goes: give it as `callback`.

    What it says of F is what was looked at after a round: see `measure_every` of `federate`.

    Args:
        mode: As in `zoo.Progress`: "auto", "panel", "lines", "bar" or "none".

    Attributes:
        has_summary: Whether a panel that stays says how the last run went.
        of: What the next run is called, where it is one of several; it is said instead of its method, and
            all that stays of its panel is a line.

    Raises:
        ValueError: There is no such mode.

    Example:
        >>> from federated import federate
        >>> small = {"dim": 5, "num_clients": 2}
        >>> federate("quadratic", "fedzo", task_options=small, rounds=2, rng=0, callback=Progress()).rounds
        2
    """

    of: str | None = None

    def tally(self, run: Beginning, now: float) -> FederatedTally:
        return FederatedTally(run, now, self.of)


class FederatedTally(Tally):
    """The numbers of one run.

    Args:
        run: What begins.
        now: The time, as `time.monotonic` has it.
        of: What it is called, where it is one of several.

    Attributes:
        task: Its name.
        num_clients: How many clients there are.
        rounds: Rounds so far.
        most_rounds: How many there may be, or None.
        value: F at the last look, NaN before there is one.
        worst: The highest f_i then.
        said: Clients that F is over at the last look, None before there is one.
        answers: Clients that have answered the last round to the end, None before there is one.
        up: Bytes that clients have sent.
        down: Bytes that the server has sent.
        most_traffic: Bytes after which no further round is begun, or None.
        clock: Virtual seconds.
        measured: What the task measures beside, by name, at the last look.
        faults: What went wrong on the network, by name.
    """

    unit = "queries"

    def __init__(self, run: Beginning, now: float, of: str | None = None) -> None:
        super().__init__(run, now)
        config, state = run.config, run.state
        self._of = of
        if of is not None:
            self.method = of
        assert isinstance(state, FederatedState)
        self.task, self.num_clients = task_name(config), int(config.get("num_clients", 0))
        self.most_rounds: int | None = config.get("rounds")
        self.most_traffic: int | None = config.get("traffic")
        self.optimum: float | None = config.get("optimum")
        self._measures = tuple(config.get("measures") or ())
        self._first_rounds, self._first_bytes = state.step, state.up + state.down
        self.value = self.worst = math.nan
        self.measured: dict[str, float] = {}
        self.answers: int | None = None
        self.said: int | None = None
        self._take(state)

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Take note of a round."""
        best = metrics["best"]  # null before there is one, which is infinite here
        super().step(state, {**metrics, "best": math.inf if best is None else best})
        self.metrics = metrics
        self._take(state)

    def end(self, outcome: Run[Any]) -> None:
        """Take note of the end."""
        state = self._state = outcome.state
        self.outcome, self.best, self.nfev = outcome, state.fun_best, state.nfev
        self.pending, self.num_steps, self.failed = 0, state.step, state.num_failed
        self._take(state)
        if state.x is not None:
            self.value = state.fun
            self.best = min(self.best, state.fun) if math.isfinite(state.fun) else self.best

    def recommend(self) -> None:
        """Ask nothing: where the server is goes without asking, and is too long to be read."""

    def _take(self, state: FederatedState) -> None:
        """Take note of where it is."""
        self.rounds, self.up, self.down, self.clock = state.step, state.up, state.down, state.clock
        self.faults = {name: getattr(state, name) for name in FAULTS if getattr(state, name)}
        history = history_of(state, self._measures)
        if not len(history["value"]):
            return
        if state.step:
            self.answers = int(history["answers"][-1])
        if math.isfinite(history["value"][-1]):
            self.value, self.worst = float(history["value"][-1]), float(history["worst"][-1])
            self.said = int(history["said"][-1])
            self.measured = {name: float(history[name][-1]) for name in self._measures}

    def left(self, now: float) -> float | None:
        """Return the seconds until a limit ends it, None if nothing can be said; it may well end earlier."""
        elapsed, moved = self.elapsed(now), self.up + self.down
        ends = (
            super().left(now),
            until(self.most_rounds, self.rounds, self._first_rounds, elapsed),
            until(self.most_traffic, moved, self._first_bytes, elapsed),
        )
        return min((end for end in ends if end is not None), default=None)

    def diagnostics(self) -> tuple[str | None, list[tuple[str, str]]]:
        """Return names and values of what the method says of itself."""
        said = {*OWN_METRICS, *COLUMNS, *FAULTS, *self._measures}
        return None, [
            (name.replace("_", " "), number(value, 3))
            for name, value in self.metrics.items()
            if name not in said and isinstance(value, (int, float))
        ]

    def beginning(self) -> dict[str, Any]:
        """Return what the first line of a log says, by name."""
        return {
            "task": self.task,
            "clients": self.num_clients,
            "dim": self.dim,
            "rounds": self.most_rounds,
            "budget": self.budget,
            "traffic": self.most_traffic,
            "target": self.target,
            "queries": self.nfev or None,
            **self.execution,
        }

    def line(self, now: float) -> dict[str, Any]:
        """Return what a line of a log says, by name."""
        return {
            "round": self.rounds,
            "value": self._said(self.value),
            "best": self._said(self.best),
            "worst": self._said(self.worst),
            **{name: self._said(value) for name, value in self.measured.items()},
            "said": self.said if self.said != self.num_clients else None,
            "queries": self.count,
            "up": self.up,
            "down": self.down,
            "answers": self.answers,
            "clock": number(self.clock, 5) if self.clock else None,
            **self.times(now),
            **self.faults,
        }

    def words(self) -> str:
        """Return what stands beside a bar."""
        parts = [f"round {self.rounds}"]
        parts += [f"F {number(self.value, 5)}" if math.isfinite(self.value) else "F not known yet"]
        parts += [f"{size(self.up + self.down)}"]
        parts += [f"{times} {name}" for name, times in (*self.faults.items(), *self.troubles())]
        return ", ".join(parts)

    def panel(self, now: float, options: ConsoleOptions, height: int | None = None) -> Panel | Text:
        """Return the panel; arguments are as in `zoo.progress.panel.drawn`."""
        from zoo.progress.panel import framed

        if self._of is not None and self.outcome is not None:
            return self._in_a_line()
        clients = f"{self.num_clients:,} client{'s' * (self.num_clients != 1)}"
        variables = f"{self.dim:,} variable{'s' * (self.dim != 1)}" if self.dim is not None else ""
        subject = [part for part in (self.method, self.task, clients, variables) if part]
        rows_of = self._running if self.outcome is None else self._ended
        return framed(self, subject, lambda room: rows_of(now, room), options, height)

    def _in_a_line(self) -> Text:
        """Return what stays of a run that is one of several."""
        from zoo.progress.drawing import Text

        assert self.outcome is not None
        line = Text(no_wrap=True, overflow="ellipsis").append(printable(self.method), "bold")
        value = number(self.value, 6) if math.isfinite(self.value) else "not known"
        line.append(f"  F {value}", "green" if self.outcome.status in ("finished", "target") else "red")
        spent = (f"{self.rounds:,} rounds", f"{self.count:,} queries", size(self.up + self.down))
        return line.append(f"  {', '.join((*spent, duration(self.outcome.seconds)))}", "dim")

    def _running(self, now: float, room: int) -> list[Row]:
        from zoo.progress.panel import Row, count_of, past_of, workers_of

        _, others = self.diagnostics()
        details = [(f"{name} {value}", "") for name, value in others]
        method = [Row("method", "method", 7, details)] if details else []
        return [
            Row("F", "F", 0, self._value()),
            Row("round", "round", 1, self._round()),
            Row("queries", "quer", 2, count_of(self, room)),
            Row("bytes", "bytes", 4, self._bytes()),
            Row("time", "time", 3, self._time(now)),
            *method,
            Row("workers", "work", 6, workers_of(self)),
            Row("history", "past", 5, past_of(self, now, room)),
        ]

    def _ended(self, now: float, room: int) -> list[Row]:
        from zoo.progress.panel import Row, past_of, reason_of, spent_of, workers_of

        troubled = [Row("workers", "work", 5, workers_of(self))] if self.troubles() else []
        rows = [
            Row("F", "F", 0, self._value()),
            Row("round", "round", 3, self._round()),
            Row("queries", "quer", 2, spent_of(self, now)),
            Row("bytes", "bytes", 4, self._bytes()),
            *troubled,
            Row("history", "past", 6, past_of(self, now, room)),
            *reason_of(self, room),
        ]
        return [row for row in rows if row.parts]

    def _value(self) -> list[Part]:
        if not math.isfinite(self.value):
            words = "no client had a value" if self.outcome is not None else "nobody has looked yet"
            return [(words, "yellow")]
        parts = [(number(self.value, 6), "bold green")]
        if self.optimum is not None:
            parts.append((f"{number(self.value - self.optimum, 3)} above the optimum", ""))
        if self.said is not None and self.said < self.num_clients:
            parts.append((f"over {self.said:,} of {self.num_clients:,} clients", "yellow"))
        if self.best < self.value:
            parts.append((f"best {number(self.best, 5)}", ""))
        if math.isfinite(self.worst) and self.num_clients > 1:
            parts.append((f"worst client {number(self.worst, 4)}", ""))
        parts += [(f"{name} {number(value, 4)}", "") for name, value in self.measured.items()]
        if self.target is not None:
            parts.append((f"target {number(self.target, 4)}", "dim"))
        return parts

    def _round(self) -> list[Part]:
        of = "" if self.most_rounds is None else f" of {self.most_rounds:,}"
        parts = [(f"{self.rounds:,}{of}", "bold")]
        if self.answers is not None and self.answers < self.num_clients:
            parts.append((f"{self.answers:,} of {self.num_clients:,} clients answered", ""))
        if self.clock:
            parts.append((f"{number(self.clock, 4)} s of the network", ""))
        return [*parts, *((f"{times:,} {name}", "yellow") for name, times in self.faults.items())]

    def _bytes(self) -> list[Part]:
        moved = self.up + self.down
        of = "" if self.most_traffic is None else f" of {size(self.most_traffic)}"
        return [(f"{size(moved)}{of}", "bold"), (f"{size(self.up)} up, {size(self.down)} down", "")]

    def _time(self, now: float) -> list[Part]:
        parts = [(duration(self.elapsed(now)), "bold")]
        left, pace = self.left(now), self.rate(now)
        if left is not None:
            parts.append((f"at most {duration(left)} left", ""))
        if pace is not None:
            parts.append((rate(pace).replace("/", " queries/"), ""))
        if self.pending:
            parts.append((f"{self.pending:,} of this round", "dim"))
        return parts

    @staticmethod
    def _said(value: float) -> str | None:
        return number(value, 6) if math.isfinite(value) else None
