"""What an executor is, and the two that need no workers of ours."""

from __future__ import annotations

import abc
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zoo.core.errors import Interrupt
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Optimizer, Reply
from zoo.execution import interrupts
from zoo.execution.ledger import Account, Ledger

if TYPE_CHECKING:
    from zoo.execution.parts import Part
    from zoo.execution.shards import Shards

DISPATCH_SECONDS = 0.1
"""What one dispatch should take: long against its overhead, short against what a death loses."""

LIMIT_SECONDS = 2 * DISPATCH_SECONDS
"""After which one begins no further unit: an objective may turn slow in the middle."""


class Executor(abc.ABC):
    """Evaluates candidates of one objective at a time, inside `with executor.open(objective)`.

    The values depend on the objective, the candidates, the key and the step; never on the executor.
    """

    threads: int = 1
    """Threads of numerical libraries where it evaluates. They belong to the experiment."""

    sharded: bool = False
    """Whether candidates are to stay where they are evaluated, of methods that can be put in shards."""

    @contextlib.contextmanager
    @abc.abstractmethod
    def open(self, objective: Objective | None) -> Iterator[None]:
        """Get ready for calls, and clean up behind them; without an objective, for `shards` alone.

        Raises:
            TypeError: The objective is something else.
            RuntimeError: This executor is open already.
        """
        yield

    @abc.abstractmethod
    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        """Return the values of all candidates.

        Args:
            candidates: What to evaluate.
            key: Where the randomness of the objective comes from.
            step: Number of the step, folded into `key`.
            ledger: Account of the step, holding what is known already; a fresh one by default.

        Raises:
            EvaluationError: The objective raised; see `Ledger` for when that ends a run.
            Interrupt: A signal asked to stop; what was evaluated is in the ledger, unless the objective
                may have taken the signal for an error of its own.
        """

    def step(
        self,
        optimizer: Optimizer[Any],
        state: Any,
        candidates: Candidates,
        key: Key,
        step: int,
        ledger: Ledger | None = None,
    ) -> tuple[Any, Evaluations]:
        """Return an optimizer's next state, and the values that were told to it.

        Args:
            optimizer: The method.
            state: Its state.
            candidates: What it asks for in this state.
            key: As in `evaluate`.
            step: As in `evaluate`.
            ledger: As in `evaluate`.
        """
        evaluations = self.evaluate(candidates, key, step, ledger)
        return optimizer.tell(state, evaluations), evaluations

    def shards(
        self,
        factory: Callable[[int], Part],
        n: int,
        *,
        on_error: str = "raise",
        event: Callable[[dict[str, Any]], None] | None = None,
        account: Account | None = None,
        logged: int = 8,
        lenient: bool = False,
    ) -> Shards:
        """Return stateful parts, which last until the executor is closed.

        Args:
            factory: Called as `factory(index)` where part `index` is to live, each time it is made anew.
            n: How many parts.
            on_error: "raise" to end a call when a part, or a query of it, has raised twice; "nan" to make
                the reply an error, and the value NaN.
            event: Called with what is worth a line in `events.jsonl`.
            account: Where losses are counted.
            logged: Messages that a part made anew may have to handle once more: after as many of them it is
                asked for a snapshot, or earlier where they are large.
            lenient: For parts that use `query.units` and can tell from a message what is left to be done: one
                that ended or outlasted its worker, alone on it, is visited once more with nothing evaluated,
                so that what it holds can be evaluated elsewhere. Those that have replied when a call ends by
                an exception stay what they became. And `timeout` leaves ten seconds for more than a unit.

        Raises:
            TypeError: The factory cannot be sent to workers, or this executor has nowhere to keep parts.
        """
        raise TypeError(
            f"{type(self).__name__} has no workers of its own that could keep parts; use zoo.Serial(), "
            "zoo.Processes(n) or zoo.Ray(n)."
        )

    def describe(self) -> dict[str, Any]:
        """Return what to write about this executor into `meta.json`."""
        return {"executor": type(self).__name__}


class Serial(Executor):
    """Evaluates in this process, one unit after the other."""

    def __init__(self) -> None:
        self._objective: Objective | None = None
        self._size = 1  # units a dispatch
        self._open = False
        self._shards: list[Shards] = []

    @contextlib.contextmanager
    def open(self, objective: Objective | None) -> Iterator[None]:
        check_open(self, objective, already=self._open)
        self._objective, self._size, self._open = objective, 1, True
        try:
            yield
        finally:
            self._objective, self._open = None, False
            while self._shards:
                self._shards.pop().close()

    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        objective = opened(self._objective)
        ledger = ledger or Ledger(objective.units(candidates))
        boundaries = ledger.boundaries
        while todo := ledger.todo:
            for first, last in todo:
                while first < last:
                    end = min(last, first + self._size)
                    part = boundaries[first : end + 1]
                    try:
                        with interrupts.interruptible():
                            reply = objective.evaluate_units(
                                candidates, part, key=key, step=step, limit=LIMIT_SECONDS
                            )
                    except KeyboardInterrupt:
                        interrupts.check()  # the end of a run inside the objective is that of this one
                        raise
                    if not reply.interrupted:
                        # A signal that was swallowed, by a bare `except`, has become a value.
                        interrupts.check()
                    ledger.add(reply)
                    if reply.interrupted:
                        interrupts.check()
                        raise Interrupt
                    if reply.stop < boundaries[end]:
                        end = first_left(boundaries, first, reply)
                    # Timing decides only how often a result is put on record, never what is evaluated.
                    fits = DISPATCH_SECONDS / max(reply.seconds, 1e-9) * (end - first)
                    self._size = max(1, min(int(fits), 4 * self._size))
                    first = end
        return ledger.evaluations()

    def shards(
        self,
        factory: Callable[[int], Part],
        n: int,
        *,
        on_error: str = "raise",
        event: Callable[[dict[str, Any]], None] | None = None,
        account: Account | None = None,
        logged: int = 8,
        lenient: bool = False,
    ) -> Shards:
        from zoo.execution.shards import Alone, Shards  # which stand on this file

        if not self._open:
            raise RuntimeError("`shards` works inside `with executor.open(objective)` only.")
        made = Shards(
            Alone(self._objective),
            factory,
            n,
            on_error=on_error,
            event=event,
            account=account,
            logged=logged,
            lenient=lenient,
        )
        self._shards.append(made)
        return made


class Mapped(Executor):
    """Evaluates through a map-like callable, as `pool.map` of any pool there is.

    Args:
        mapper: Called as `mapper(function, items)` with a list of items, one for each unit; returns the
            function's results in any order.
    """

    def __init__(self, mapper: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]) -> None:
        self._map = mapper
        self._objective: Objective | None = None
        self._open = False

    @contextlib.contextmanager
    def open(self, objective: Objective | None) -> Iterator[None]:
        check_open(self, objective, already=self._open)
        self._objective, self._open = objective, True
        try:
            yield
        finally:
            self._objective, self._open = None, False

    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        objective = opened(self._objective)
        ledger = ledger or Ledger(objective.units(candidates))
        call = _UnitCall(objective, candidates, ledger.boundaries, key, step)
        while todo := ledger.todo:
            interrupts.check()
            units = [unit for first, last in todo for unit in range(first, last)]
            answers = 0
            try:
                for reply in self._map(call, units):
                    if not isinstance(reply, Reply):
                        raise TypeError(
                            "`workers` must return the function's results, as `map` does; one of them is "
                            f"{reply!r}."
                        )
                    ledger.add(reply)
                    answers += 1
                    interrupts.check()
            except KeyboardInterrupt:
                interrupts.check()  # as in `Serial`
                raise
            if answers != len(units):
                raise RuntimeError(
                    "`workers` must return one result per item, as `map` does, "
                    f"got {answers} for {len(units)}."
                )
        return ledger.evaluations()


class _UnitCall:
    """One unit's evaluation as a function of the unit's number, which pools can send to their workers."""

    def __init__(
        self, objective: Objective, candidates: Candidates, boundaries: Sequence[int], key: Key, step: int
    ) -> None:
        self._arguments = objective, candidates, list(boundaries), key, step

    def __call__(self, unit: int) -> Reply:
        objective, candidates, boundaries, key, step = self._arguments
        return objective.evaluate_units(candidates, boundaries[unit : unit + 2], key=key, step=step)


def first_left(boundaries: Sequence[int], first: int, reply: Reply) -> int:
    """Return the first unit after those that a reply to units from `first` on holds.

    Raises:
        RuntimeError: It holds none.
    """
    unit = bisect_right(boundaries, reply.stop) - 1
    if unit <= first:
        raise RuntimeError("`evaluate_units` must return the values of at least one unit.")
    return unit


def check_open(executor: Executor, objective: object, *, already: bool) -> None:
    """Raise unless an executor can be opened with an objective."""
    if already:
        raise RuntimeError(f"this {type(executor).__name__} is open already; make another one.")
    if objective is not None and not isinstance(objective, Objective):
        raise TypeError(
            "`objective` must be an Objective or None (`zoo.core.objective.as_objective` adapts functions), "
            f"got {objective!r}."
        )


def opened(objective: Objective | None) -> Objective:
    """Return the objective an executor was opened with, or raise `RuntimeError`."""
    if objective is None:
        raise RuntimeError("`evaluate` works inside `with executor.open(objective)` only.")
    return objective
