"""Executors with workers: one scheduler, over any transport."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Optimizer
from zoo.core.validation import check_count, check_flag, check_positive
from zoo.execution.crew import Crew, Hand
from zoo.execution.executor import Executor, check_open, opened
from zoo.execution.ledger import Account, Ledger
from zoo.execution.packing import Message, encode, encode_objective
from zoo.execution.parts import Part
from zoo.execution.replicas import Replicas
from zoo.execution.shards import Shards
from zoo.execution.transport import Transport
from zoo.execution.units import Evaluation, Pace, Source
from zoo.execution.worker import Given


class Pooled(Executor):
    """An executor whose workers are reached by a transport.

    Args:
        num_workers: How many workers.
        timeout: Seconds that one unit (a point, or a batch of a vectorized objective) may take before its
            worker is ended and its evaluations are failed, or None for any time.
        max_attempts: Deaths of a worker under one unit alone, after which its evaluations are failed.
        threads: Threads of numerical libraries in each worker. It belongs to the experiment: the last
            bits of sums may depend on it.
        replicated: Whether workers run the method themselves, so that only values travel: for
            candidates that are larger than the method is slow.
        sharded: Whether workers keep the candidates, of methods that can be put in shards ("cbo"). In a
            step as much as a few of them travels for each of at most 16 blocks.

    Raises:
        ValueError: An argument is out of range, or both `replicated` and `sharded` are asked for.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        timeout: float | None = None,
        max_attempts: int = 3,
        threads: int = 1,
        replicated: bool = False,
        sharded: bool = False,
    ) -> None:
        self.num_workers = check_count("num_workers", num_workers)
        self.timeout = None if timeout is None else check_positive("timeout", timeout)
        self.max_attempts = check_count("max_attempts", max_attempts)
        self.threads = check_count("threads", threads)
        self.replicated = check_flag("replicated", replicated)
        self.sharded = check_flag("sharded", sharded)
        if replicated and sharded:
            raise ValueError("`replicated` and `sharded` must not both be True. Leave one of them out.")
        self._crew: Crew | None = None
        self._objective: Objective | None = None
        self._transport: Transport | None = None
        self._pace, self._replicas, self._serial = Pace(), Replicas(), 0
        self._shards: list[Shards] = []

    @abc.abstractmethod
    def connect(self, objective: Message) -> Transport:
        """Return a transport to workers that are to load `objective`; none is started yet."""

    @contextlib.contextmanager
    def open(self, objective: Objective | None) -> Iterator[None]:
        check_open(self, objective, already=self._crew is not None)
        transport = self.connect(encode_objective(objective))
        self._objective, self._transport = objective, transport
        self._crew = Crew(transport, self.num_workers, self.max_attempts)
        self._pace, self._replicas = Pace(), Replicas()
        try:
            self._crew.start()
            yield
        finally:
            self._crew = self._objective = self._transport = None
            while self._shards:
                self._shards.pop().close()
            transport.close()

    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        ledger = ledger or Ledger(opened(self._objective).units(candidates))
        return self._evaluate(_Sent(candidates, key, step, ledger), ledger)

    def step(
        self,
        optimizer: Optimizer[Any],
        state: Any,
        candidates: Candidates,
        key: Key,
        step: int,
        ledger: Ledger | None = None,
    ) -> tuple[Any, Evaluations]:
        if not self.replicated:
            return super().step(optimizer, state, candidates, key, step, ledger)
        ledger = ledger or Ledger(opened(self._objective).units(candidates))
        evaluations = self._evaluate(self._replicas.begin(optimizer, state, key, step), ledger)
        return self._replicas.tell(evaluations), evaluations

    def _evaluate(self, source: Source, ledger: Ledger) -> Evaluations:
        opened(self._objective)
        assert self._crew is not None
        self._serial += 1
        evaluation = Evaluation(
            self._serial,
            source,
            ledger,
            self._pace,
            num_workers=self.num_workers,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
        )
        self._crew.drive(evaluation)
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
        if self._crew is None:
            raise RuntimeError("`shards` works inside `with executor.open(objective)` only.")
        made = Shards(
            self._crew,
            factory,
            n,
            name=f"shards {len(self._shards)}",
            timeout=self.timeout,
            on_error=on_error,
            event=event,
            account=account,
            logged=logged,
            lenient=lenient,
        )
        self._shards.append(made)
        return made

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that are up, on whichever machine."""
        return [] if self._transport is None else self._transport.pids()

    def describe(self) -> dict[str, Any]:
        return {
            "executor": type(self).__name__,
            "num_workers": self.num_workers,
            "threads": self.threads,
            "timeout": self.timeout,
            "replicated": self.replicated,
            "sharded": self.sharded,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_workers})"


class _Sent:
    """A step whose candidates are sent to every worker that has to do with it."""

    digest = ""

    def __init__(self, candidates: Candidates, key: Key, step: int, ledger: Ledger) -> None:
        self._given = Given(candidates, ledger.boundaries, key, step)
        self._message: Message | None = None

    def message(self, hand: Hand) -> Message:
        self._message = self._message or encode(self._given)
        return self._message

    def drifted(self, hand: Hand) -> None:
        raise RuntimeError(f"worker {hand.number} answered to another step than it was sent.")
