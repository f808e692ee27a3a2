"""What runs on a worker, whichever way messages reach it.

A worker is given the objective once, each step's candidates once, and then runs of units to evaluate.
It imports what the objective needs and nothing more: neither the user's `__main__` nor torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from zoo.core.objective import Named, Objective, reply_of
from zoo.core.rng import Key
from zoo.core.types import Candidates, Reply, arrived
from zoo.execution.devices import explained
from zoo.execution.executor import LIMIT_SECONDS
from zoo.execution.packing import summary


class Work(NamedTuple):
    """What the units of a step are, on a worker.

    Attributes:
        candidates: What to evaluate.
        boundaries: First row of each unit, and one past the last row.
        key: Randomness of the run's evaluations.
        step: Number of the step.
        digest: What the driver may compare with its own, or "".
    """

    candidates: Candidates
    boundaries: Sequence[int]
    key: Key
    step: int
    digest: str = ""


class Step(Protocol):
    """A step as it travels."""

    def work(self, memory: dict[str, Any]) -> Work:
        """Return what is to be evaluated; `memory` is the worker's, and lasts from step to step."""
        ...


class Given(NamedTuple):
    """A step whose candidates travel with it."""

    candidates: Candidates
    boundaries: Sequence[int]
    key: Key
    step: int

    def work(self, memory: dict[str, Any]) -> Work:
        """Return what came."""
        return Work(*self)


class Answer(NamedTuple):
    """What a worker says to a dispatch of units: their values, and the digest of what they belong to."""

    reply: Reply
    digest: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The name of one function in place of two: names are most of a short answer.
        return _answer, (self.reply.__reduce__()[1], self.digest)


def _answer(fields: tuple[Any, ...], digest: str) -> Answer:
    return Answer(arrived(*fields), digest)


class Worker:
    """Evaluates units of one objective, and keeps what has to last from one message to the next.

    Args:
        objective: What is evaluated, or None.
    """

    def __init__(self, objective: Objective | None) -> None:
        if objective is not None and not isinstance(objective, Objective):
            raise TypeError(f"a worker needs an Objective, got {objective!r}.")
        if isinstance(objective, Named):
            # Building is to count against no evaluation's timeout; what it raises, the first one will tell.
            with contextlib.suppress(Exception, SystemExit):
                _ = objective.built
        self._objective = objective
        self._memory: dict[str, Any] = {"objective": objective}
        self._work: Work | None = None

    @property
    def step(self) -> int | None:
        """Number of the current step."""
        return None if self._work is None else self._work.step

    def begin(self, step: Step) -> None:
        """Take the step to which the units that follow belong."""
        self._work = step.work(self._memory)

    def evaluate(self, first: int, last: int) -> Answer:
        """Evaluate units `first` to `last` of the current step, or the first of them if time runs out."""
        if self._work is None or self._objective is None:
            raise RuntimeError("`evaluate` needs an objective, and `begin` before it.")
        reply = _evaluated(self._objective, self._work, first, last)
        return Answer(_advised(reply), self._work.digest)

    def call(self, task: Callable[[dict[str, Any]], Any]) -> Any:
        """Return what a task makes of this worker's memory."""
        return task(self._memory)


def _evaluated(objective: Objective, work: Work, first: int, last: int) -> Reply:
    candidates, boundaries, key, step, _ = work
    part = boundaries[first : last + 1]
    began = time.perf_counter()
    try:
        return objective.evaluate_units(candidates, part, key=key, step=step, limit=LIMIT_SECONDS)
    except Exception:
        raise
    except BaseException as error:  # KeyboardInterrupt, say: nobody can mean to stop a worker by that
        if last - first > 1:
            return _evaluated(objective, work, first, first + 1)
        return reply_of(error, part[0], part[-1], began)


def _advised(reply: Reply) -> Reply:
    """Return a reply with advice on what failed for want of a GPU."""
    if not reply.failures:
        return reply
    failures = tuple(failure._replace(message=explained(failure.message)) for failure in reply.failures)
    return dataclasses.replace(reply, failures=failures)


def report(what: str, error: BaseException) -> str:
    """Return what a worker tells its driver before it gives up: one line, and the traceback below."""
    return f"{what}: {summary(error)}\n\n{''.join(traceback.format_exception(error)).rstrip()}"


def watch(parent: int) -> None:
    """End this process about a second after process `parent` stopped being its parent.

    If it leads a group of processes, the others end with it: programs that the objective has started.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=look, name="watch", daemon=True).start()
