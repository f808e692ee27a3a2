"""The account of one step: which evaluations are known, and what follows from those that failed.

Executors differ in who evaluates and when. What counts, what is tried again and when a run must end
is decided here, from rows and replies alone, so that it is the same under every executor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.errors import EvaluationError
from zoo.core.types import Evaluations, Failure, Reply


@dataclass(slots=True)
class Account:
    """What a run cost beyond its evaluations; unlike values, it depends on what went wrong and when.

    Attributes:
        retries: Evaluations made again after the objective had raised.
        lost: Units that were under way on a worker that died, and were issued again.
        restarts: Workers replaced.
    """

    retries: int = 0
    lost: int = 0
    restarts: int = 0


class Ledger:
    """One step's evaluations.

    Args:
        boundaries: Units: unit u holds rows boundaries[u] to boundaries[u + 1].
        known: What is known already, from the journal of a resumed run.
        record: Called with every reply, or part of one, that counts; whole units, each row once.
        event: Called with what is worth a line in `events.jsonl`.
        on_error: "raise" to end the step when an evaluation has raised twice, "nan" to make it NaN.
        succeeded: Whether an earlier step had a value; if none had, the first exception is a bug
            in the objective and is raised at once.
        first_id: Id of row 0, counted over the whole run.
        account: Where retries are counted.
    """

    def __init__(
        self,
        boundaries: Sequence[int],
        *,
        known: Sequence[Reply] = (),
        record: Callable[[Reply], None] | None = None,
        event: Callable[[dict[str, Any]], None] | None = None,
        on_error: str = "nan",
        succeeded: bool = False,
        first_id: int = 0,
        account: Account | None = None,
    ) -> None:
        self.boundaries = boundaries
        self.num_rows = boundaries[-1]
        self.values = np.full(self.num_rows, np.nan)
        self.account = Account() if account is None else account
        self._have: np.ndarray[Any, Any] | bool = False  # True for all rows, False for none
        self._failures: list[Failure] = []
        self._record, self._event, self._on_error = record, event, on_error
        self._succeeded, self._first_id = succeeded, first_id
        self._raised: dict[int, Failure] = {}  # by row: raised once, to be tried again
        for reply in known:
            self._accept(reply, recorded=True)

    @property
    def todo(self) -> list[tuple[int, int]]:
        """Runs of consecutive units without values, as (first unit, one past the last)."""
        units = len(self.boundaries) - 1
        if isinstance(self._have, bool):
            return [] if self._have or not units else [(0, units)]
        missing = ~np.asarray([self._have[a:b].all() for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]])))
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def add(self, reply: Reply) -> list[int]:
        """Take a worker's answer; return the units of it that must be evaluated once more.

        Rows that have a value already are ignored: an evaluation counts once, however often it was made.

        Raises:
            EvaluationError: The run must end here.
        """
        if not reply.failures:
            self._accept(reply)
            if self._raised:
                self._judge()
            return []
        again: list[int] = []
        raised = {failure.row: failure for failure in reply.failures if failure.kind == "raised"}
        start = reply.start
        while start < reply.stop:
            unit = self._unit_of(start)
            stop = self.boundaries[unit + 1]
            failure = next((raised[row] for row in range(start, stop) if row in raised), None)
            part = _part(reply, start, stop)
            if failure is None or self._is_known(start):
                self._accept(part)
            elif start not in self._raised:
                self._raised[start] = failure
                self._tell("evaluation raised", failure)
                again.append(unit)
            elif self._on_error == "nan":
                self._accept(part)
            else:
                raise self._error(failure, "raised twice")
            start = stop
        self._judge()
        self.account.retries += len(again)
        return again

    def crashed(self, unit: int, attempts: int) -> None:
        """Give up on a unit that has taken its worker along `attempts` times: its values become NaN."""
        start, stop = self.boundaries[unit], self.boundaries[unit + 1]
        message = f"took its worker along {attempts} times"
        failures = tuple(Failure(row, "crashed", message) for row in range(start, stop))
        self._tell("evaluation crashed", failures[0])
        self._accept(Reply(start, np.full(stop - start, np.nan), failures))

    def event(self, **fields: Any) -> None:
        """Report something worth a line in `events.jsonl`."""
        if self._event is not None:
            self._event(fields)

    def evaluations(self) -> Evaluations:
        """Return the step's values, all of which must be known by now."""
        return Evaluations(self.values, tuple(sorted(self._failures)))

    def _unit_of(self, row: int) -> int:
        return int(np.searchsorted(self.boundaries, row, side="right")) - 1

    def _is_known(self, row: int) -> bool:
        return self._have if isinstance(self._have, bool) else bool(self._have[row])

    def _accept(self, reply: Reply, *, recorded: bool = False) -> None:
        start, stop = reply.start, reply.stop
        if self._have is False and start == 0 and stop == self.num_rows:
            self._have, self.values = True, reply.values
            self._failures = list(reply.failures)
        else:
            if isinstance(self._have, bool):
                self._have = np.full(self.num_rows, self._have)
            unknown = ~self._have[start:stop]
            if not unknown.all():
                # Units are whole, so a reply's known rows come in runs: take the others run by run.
                edges = np.flatnonzero(np.diff(np.concatenate([[False], unknown, [False]])))
                for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                    self._accept(_part(reply, start + a, start + b), recorded=recorded)
                return
            self._have[start:stop] = True
            self.values[start:stop] = reply.values
            self._failures.extend(reply.failures)
            for row in [row for row in self._raised if start <= row < stop]:
                del self._raised[row]
        if self._record is not None and not recorded:
            self._record(reply)

    def _judge(self) -> None:
        """Raise the first exception of a run in which nothing with a lower id has a value."""
        if self._succeeded or not self._raised:
            return
        first = min(self._raised)
        if isinstance(self._have, bool):
            lower = np.full(first, self._have)
        else:
            lower = self._have[:first]
        if lower.all() and not np.isfinite(self.values[:first]).any():
            raise self._error(self._raised[first], "raised, and none before it had a value")

    def _error(self, failure: Failure, how: str) -> EvaluationError:
        number = self._first_id + failure.row
        return EvaluationError(
            f"evaluation {number} {how}: {failure.message}", evaluation=number, details=failure.details
        )

    def _tell(self, event: str, failure: Failure) -> None:
        self.event(event=event, id=self._first_id + failure.row, message=failure.message)


def _part(reply: Reply, start: int, stop: int) -> Reply:
    values = reply.values[start - reply.start : stop - reply.start]
    failures = tuple(failure for failure in reply.failures if start <= failure.row < stop)
    return Reply(start, values, failures, reply.seconds)
