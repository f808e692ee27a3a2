"""Routines that call for values, turned into ones that are asked for points and told values.

A routine is a function of one argument, `evaluate`, which it calls with candidates and which returns their
values. It runs in a thread of its own, in strict turns with whoever drives it: `evaluate` hands the
candidates over and waits for the values, so at any moment only one of the two is at work.

A routine in the middle of its work cannot be written down. It is rebuilt by running it again on the values
told; in between it is kept in a small cache under the digest of its history.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from zoo.core.types import Candidates

Vector = np.ndarray[Any, Any]
Evaluate = Callable[[Candidates], Vector]

T = TypeVar("T")

_CACHED = 16  # routines kept alive, each a thread that waits
_FILTERS = [name for name in ("filters", "showwarning", "_showwarnmsg_impl") if hasattr(warnings, name)]
# Of every warning, and of a form that nobody else's filters have: so what was left behind is known again.
_SILENT: Any = ("ignore", None, object, None, 0)
_AT_EXIT = 1.0  # seconds to wait for a thread that is at work as the interpreter ends

_WARNINGS = vars(warnings)
_lock = threading.Lock()
_outside: dict[str, Any] = {}  # what belongs to the process of `warnings`, while it is a routine's turn
_live: OrderedDict[str, Routine] = OrderedDict()  # by the digest of their history


class Left(BaseException):
    """Ends a routine from inside `evaluate`; nobody's `except Exception` is in its way.

    Args:
        reason: Why, or None where there is nothing to say about it.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class Routine:
    """A routine at work; to be used under `at_work`.

    Args:
        body: Called with `evaluate`; returns why it ended. `evaluate` takes candidates and returns an
            array of its own, as long as they are.
        told: Values with which the work begins, of which nobody is asked again.

    Attributes:
        candidates: What it waits for the values of, None after its end.
        reason: Why it ended, None before that or where there is nothing to say.
    """

    def __init__(self, body: Callable[[Evaluate], str | None], told: Vector) -> None:
        self.candidates: Candidates | None = None
        self.reason: str | None = None
        self._body, self._told, self._used, self._called = body, told, 0, False
        self._values: SimpleQueue[Vector | None] = SimpleQueue()
        self._asked: SimpleQueue[Candidates | BaseException | None] = SimpleQueue()
        # A daemon, since the interpreter would wait for others before it says that it ends.
        self._thread = threading.Thread(target=self._run, name="gradfree-routine", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # a signal's
            self._values.put(None)
            raise
        self._wait()
        if self.candidates is None:
            raise RuntimeError(f"the routine ended before it had to be told anything: {self.reason}")

    def tell(self, values: Vector) -> None:
        """Give the values of `candidates`, and wait for the next ones or the end."""
        self._values.put(values)
        self._wait()

    def close(self) -> None:
        """End the thread, wherever the routine is."""
        self._values.put(None)
        self._thread.join()

    def _wait(self) -> None:
        try:
            got = self._asked.get()
        except BaseException:  # a signal's
            self.close()
            raise
        if isinstance(got, BaseException):
            self._thread.join()
            raise got
        self.candidates = got
        if got is None:
            self._thread.join()

    def _run(self) -> None:
        last: BaseException | None
        try:
            with np.errstate(all="ignore"):
                self.reason, last = self._body(self._evaluate), None
        except Left as left:
            self.reason, last = left.reason, None
        except (ArithmeticError, ValueError) as error:  # what numerical routines meet where values are odd
            last = None if self._called else error
            self.reason = f"the routine gave up: {error}"
        except BaseException as error:
            last = error
        self._asked.put(last)

    def _evaluate(self, candidates: Candidates) -> Vector:
        self._called = True
        end = self._used + len(candidates)
        if end <= len(self._told):
            values = self._told[self._used : end].copy()
            self._used = end
            return values
        self._asked.put(candidates)
        told = self._values.get()
        if told is None:
            raise Left
        return told.copy()


def at_work(turn: Callable[[], T]) -> T:
    """Return what `turn` returns, which may use routines: nobody else does, and the user hears no warning.

    Filters of warnings belong to the whole process, and scipy's routines change them around calls of
    their objective. So they are put back by hand, to what they were when it was not a routine's turn.
    (`warnings.catch_warnings` would also make Python forget which warnings the user has seen already.)

    A signal may raise wherever a function of Python's begins, so no such function stands between the end of a
    turn and what has to be undone. A routine that outlives its turn, as after two signals, may still leave
    its filters behind: the next turn puts them right.
    """
    global _outside
    with _lock:
        if _SILENT not in warnings.filters or not _outside:
            _outside = {name: getattr(warnings, name) for name in _FILTERS}
        try:
            warnings.filters = [_SILENT]
            return turn()
        finally:
            _WARNINGS.update(_outside)


def take(history: str) -> Routine | None:
    """Return the routine kept under a digest, which is kept no longer; under `at_work`."""
    return _live.pop(history, None)


def keep(history: str, routine: Routine) -> None:
    """Keep a routine under the digest of its history; under `at_work`."""
    if routine.candidates is None:
        return
    other = _live.pop(history, None)
    if other is not None:
        other.close()
    _live[history] = routine
    while len(_live) > _CACHED:
        _live.popitem(last=False)[1].close()


def clear_cache() -> None:
    """End all routines, so that the next step runs them again on the values told; no result depends on it."""
    at_work(_end_all)


def _end_all() -> None:
    while _live:
        _live.popitem()[1].close()


def _end() -> None:
    """End all routines as the interpreter ends, unless a thread is at work, which then ends with it."""
    if _lock.acquire(timeout=_AT_EXIT):
        try:
            _end_all()
        finally:
            _lock.release()


def _forget() -> None:
    """Leave to the parent, after a fork, what is the parent's: no thread came along."""
    global _lock
    _lock = threading.Lock()
    _live.clear()
    if _SILENT in warnings.filters:
        _WARNINGS.update(_outside)


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
