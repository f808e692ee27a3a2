"""The account of one step: which evaluations are known, and what follows from those that failed.

Executors differ in who evaluates and when. What counts, what is tried again and when a run must end
is decided here, from rows and replies alone, so that it is the same under every executor.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.errors import EvaluationError
from zoo.core.types import Evaluations, Failure, Reply, join_extras


@dataclass(slots=True)
class Account:
    """What a run cost beyond its evaluations; unlike values, it depends on what went wrong and when.

    Two accounts are equal if the same went wrong.

    Attributes:
        retries: Evaluations made again after the objective had raised.
        lost: Units that were under way on workers as they died; all but those given up were issued again.
        restarts: Workers replaced.
        quarantined: Units given up, since they ended or outlasted every worker that tried them.
        speculated: Units given to a second worker, since the first one took so long over them.
        sent: Bytes handed over for workers by this process, arrays that they share counted once.
        received: Bytes that came back to it.
        busy: Share of its time that each worker evaluated, by place; a replacement takes the place it fills.
    """

    retries: int = 0
    lost: int = 0
    restarts: int = 0
    quarantined: int = 0
    speculated: int = field(default=0, compare=False)
    sent: int = field(default=0, compare=False)
    received: int = field(default=0, compare=False)
    busy: tuple[float, ...] = field(default=(), compare=False)

    def entries(self, num_evaluations: int) -> dict[str, Any]:
        """Return the account by name, with the number of evaluations in front, as it is written down."""
        return {"evaluations": num_evaluations, **dataclasses.asdict(self)}


def summary(account: Mapping[str, Any]) -> str:
    """Return the entries of an account as a line to read."""
    parts = [
        f"{account['evaluations']} evaluations",
        f"{account['retries']} retried",
        f"{account['restarts']} workers replaced, {account['lost']} units under way on them",
        f"{account['quarantined']} quarantined",
    ]
    if account["busy"]:
        parts.append("workers busy " + " ".join(f"{100 * share:.0f}%" for share in account["busy"]))
        parts.append(f"{size(account['sent'])} sent, {size(account['received'])} received")
    return ", ".join(parts)


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
        self.values = np.empty(0)  # all of them once one is known
        self._extras: list[tuple[slice, Mapping[str, np.ndarray[Any, Any]]]] = []
        self.account = Account() if account is None else account
        self._have: np.ndarray[Any, Any] | bool = False  # True for all rows, False for none
        self._failures: list[Failure] = []
        self._record, self._event, self._on_error = record, event, on_error
        self._succeeded, self._first_id = succeeded, first_id
        self._raised: dict[int, Failure] = {}  # by unit: its first exception
        self._hopeless: dict[int, Failure] = {}  # by unit: its second one, where that ends the run
        for reply in known:
            self._accept(reply, recorded=True)

    @property
    def todo(self) -> list[tuple[int, int]]:
        """Runs of consecutive units without values, as (first unit, one past the last)."""
        units = len(self.boundaries) - 1
        if isinstance(self._have, bool):
            return [] if self._have or not units else [(0, units)]
        return _runs(~np.logical_and.reduceat(self._have, np.asarray(self.boundaries[:-1])))

    @property
    def complete(self) -> bool:
        """Whether every value is known."""
        return self._have if isinstance(self._have, bool) else bool(self._have.all())

    def knows(self, unit: int) -> bool:
        """Whether the values of a unit are known."""
        return self._is_known(self.boundaries[unit])

    @property
    def succeeded(self) -> bool:
        """Whether any evaluation of the run has had a value so far."""
        return self._succeeded or bool(np.isfinite(self.values).any())

    def add(self, reply: Reply) -> list[int]:
        """Take a worker's answer; return the units of it that must be evaluated once more.

        Rows that have a value already are ignored: an evaluation counts once, however often it was made.
        Which error ends a run does not depend on the order of the replies.

        Raises:
            EvaluationError: The run must end here.
        """
        if not (reply.failures or self._raised or self._hopeless):
            self._accept(reply)
            return []
        raised: dict[int, Failure] = {}  # by unit, the first of each
        for failure in sorted(reply.failures):
            if failure.kind == "raised":
                raised.setdefault(self._unit_of(failure.row), failure)
        again: list[int] = []
        accepted: list[tuple[int, int]] = []
        row = reply.start
        for unit, failure in raised.items():
            start, stop = self.boundaries[unit], self.boundaries[unit + 1]
            if self._is_known(start) or (unit in self._raised and self._on_error == "nan"):
                continue
            if unit in self._raised:
                self._hopeless[unit] = failure
            else:
                self._raised[unit] = failure
                self._tell("evaluation raised", failure)
                again.append(unit)
            accepted.append((row, start))
            row = stop
        accepted.append((row, reply.stop))
        for part in _cut(reply, accepted) if again or self._hopeless else [reply]:
            self._accept(part)
        self.account.retries += len(again)
        self._judge()
        return again

    def give_up(self, unit: int, kind: str, message: str) -> None:
        """Quarantine a unit that ends ("crashed") or outlasts ("hung") its workers: its values become NaN."""
        start, stop = self.boundaries[unit], self.boundaries[unit + 1]
        failures = tuple(Failure(row, kind, message) for row in range(start, stop))
        self.account.quarantined += 1
        first = self._first_id + start
        self.event(event="quarantined", id=first, rows=stop - start, kind=kind, message=message)
        self._accept(Reply(start, np.full(stop - start, np.nan), failures))
        self._judge()

    def event(self, **fields: Any) -> None:
        """Report something worth a line in `events.jsonl`."""
        if self._event is not None:
            self._event(fields)

    def evaluations(self) -> Evaluations:
        """Return the step's values, all of which must be known by now."""
        extras = join_extras(self._extras, self.num_rows) if self._extras else {}
        return Evaluations(self.values, tuple(sorted(self._failures)) if self._failures else (), extras)

    def _unit_of(self, row: int) -> int:
        return bisect_right(self.boundaries, row) - 1

    def _is_known(self, row: int) -> bool:
        return self._have if isinstance(self._have, bool) else bool(self._have[row])

    def _accept(self, reply: Reply, *, recorded: bool = False) -> None:
        start, stop = reply.start, reply.stop
        if start == stop:
            return  # a signal came before the first of its units was done
        if self._have is False and start == 0 and stop == self.num_rows:
            self._have, self.values = True, reply.values
            self._failures = list(reply.failures)
        else:
            if isinstance(self._have, bool):
                self.values = self.values if self._have else np.full(self.num_rows, np.nan)
                self._have = np.full(self.num_rows, self._have)
            unknown = ~self._have[start:stop]
            if not unknown.all():
                for part in _cut(reply, [(start + a, start + b) for a, b in _runs(unknown)]):
                    self._accept(part, recorded=recorded)
                return
            self._have[start:stop] = True
            self.values[start:stop] = reply.values
            self._failures.extend(reply.failures)
        if reply.extras:
            self._extras.append((slice(start, stop), reply.extras))
        if self._record is not None and not recorded:
            self._record(reply)

    def _judge(self) -> None:
        """End the run if it must, once everything below the unit to blame has reported."""
        if self._raised and not self._succeeded:
            unit = min(self._raised)
            if self._knows_below(unit):
                if not np.isfinite(self.values[: self.boundaries[unit]]).any():
                    raise self._error(self._raised[unit], "raised, and none before it had a value")
                self._succeeded = True
        if self._hopeless:
            unit = min(self._hopeless)
            if self._knows_below(unit):
                raise self._error(self._hopeless[unit], "raised twice")

    def _knows_below(self, unit: int) -> bool:
        row = self.boundaries[unit]
        return row == 0 or (self._have if isinstance(self._have, bool) else bool(self._have[:row].all()))

    def _error(self, failure: Failure, how: str) -> EvaluationError:
        number = self._first_id + failure.row
        return EvaluationError(
            f"evaluation {number} {how}: {failure.message}", evaluation=number, details=failure.details
        )

    def _tell(self, event: str, failure: Failure) -> None:
        self.event(event=event, id=self._first_id + failure.row, message=failure.message)


def size(count: int) -> str:
    """Return a number of bytes to read.

    Example:
        >>> size(2400)
        '2.4 kB'
    """
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"


def _cut(reply: Reply, runs: Sequence[tuple[int, int]]) -> Iterator[Reply]:
    """Yield the parts of a reply that hold these runs of rows, but no empty ones."""
    failures = sorted(reply.failures)
    rows = [failure.row for failure in failures]
    for start, stop in runs:
        if start < stop:
            here = slice(start - reply.start, stop - reply.start)
            part = failures[bisect_left(rows, start) : bisect_left(rows, stop)]
            extras = {name: extra[here] for name, extra in reply.extras.items()}
            yield Reply(start, reply.values[here], tuple(part), reply.seconds, extras=extras)


def _runs(mask: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """Return where consecutive entries are True, as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
