"""How the driver and its workers reach each other: what a transport must do, and what it tells.

A transport starts and ends workers and carries messages; it decides nothing. Everything that is decided
(who does what, what is tried again, who is given up) stands in `zoo.execution.crew` and what is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from zoo.execution.packing import Message


class Ready(NamedTuple):
    """A worker has loaded the objective."""

    worker: int


class Answered(NamedTuple):
    """A worker has done a dispatch, or the first part of it."""

    worker: int
    dispatch: int
    answer: Any


class Died(NamedTuple):
    """A worker is no more, and `reason` says what is known of it; nothing follows from it any more."""

    worker: int
    reason: str


class Failed(NamedTuple):
    """A worker cannot do what it is there for, and no other would do better."""

    worker: int
    message: str


Event: TypeAlias = Ready | Answered | Died | Failed


class Transport(Protocol):
    """How messages reach workers. None of this may block, except `poll` up to its timeout.

    A worker is known by a number that is never given twice. It is sent the objective as it starts.
    Messages to one worker arrive in order; those to a dead one go nowhere, its death is told by `poll`.

    Attributes:
        sent: Bytes handed over for workers so far, an array that several of them share counted once.
        received: Bytes that came from workers so far.
    """

    sent: int
    received: int

    def start(self, worker: int) -> None:
        """Begin to start a worker; `Ready`, `Failed` or `Died` will tell of it."""
        ...

    def begin(self, worker: int, step: Message) -> None:
        """Send the step to which the evaluations that follow belong: `Worker.begin`."""
        ...

    def evaluate(self, worker: int, dispatch: int, first: int, last: int) -> None:
        """Have units `first` to `last` evaluated, or as many as there is time for: `Worker.evaluate`."""
        ...

    def call(self, worker: int, dispatch: int, task: Message) -> None:
        """Have a function called on the worker's memory: `Worker.call`."""
        ...

    def end(self, worker: int) -> None:
        """End a worker at once, whatever it does; `Died` will tell of it."""
        ...

    def poll(self, timeout: float) -> Sequence[Event]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        ...

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that are up."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
