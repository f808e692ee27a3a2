"""SIGINT and SIGTERM during a run: the first asks it to stop with a checkpoint, the second leaves at once.

Signals reach the main thread alone, so only a run there is asked. Where such runs are nested, the signal
is for all of them: the inner one ends, and then the outer one.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enumerations, at ten times the cost
import contextlib
import os
import signal
from collections.abc import Iterator
from threading import current_thread, get_ident, main_thread
from types import FrameType
from typing import Any

from zoo.core.errors import Interrupt

_NUMBERS = signal.SIGINT, signal.SIGTERM
_RAISING = *_NUMBERS, signal.SIGALRM  # those whose handlers are known to raise

_owner: int | None = None  # the thread inside `handled`; no other one touches what follows
_requested: int | None = None
_heeded = False  # whether somebody was told, by an `Interrupt`
_inside = False
_overlooked = False  # whether what a stop still needs is being done
_mask: set[Any] | None = None  # of signals, before a fork that is under way
_before: dict[int, Any] = {}  # the handlers there were before the outermost `handled`


def requested() -> int | None:
    """Return the number of the signal that asked this thread's run to stop, or None."""
    return _requested if _owner == get_ident() else None


def pending() -> bool:
    """Return whether a signal asked any run of this process to stop, whichever thread wants to know."""
    return _requested is not None


def check() -> None:
    """Raise `Interrupt` if a signal asked this thread's run to stop."""
    global _heeded
    if _requested is not None and _owner == get_ident() and not _overlooked:
        _heeded = True
        raise Interrupt


@contextlib.contextmanager
def overlooked() -> Iterator[None]:
    """Let what a stop needs be done by workers: in the block, a signal that asked for it raises nothing.

    One that is the first and comes in the block does, soon after it; a second one leaves at once, as always.
    """
    global _overlooked
    if _owner != get_ident():
        yield
        return
    before, _overlooked = _overlooked, True
    try:
        yield
    finally:
        _overlooked = before


class interruptible:  # noqa: N801 - used as a function is, but at half the cost of a generator
    """Let a signal break into the block with `Interrupt`, instead of waiting for its end."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _inside
        if _owner == get_ident() and not _overlooked:
            _inside = True
            if _requested is not None:  # just before, when there was nobody to break into
                _inside = False
                check()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        global _heeded, _inside
        if _owner == get_ident():
            _inside = False
            if kind is not None and issubclass(kind, Interrupt):
                _heeded = True


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Catch SIGINT and SIGTERM inside the block; elsewhere than in the main thread, do nothing.

    A signal of which nobody inside was told goes, at the end, to the handlers there were before.
    The block must be entered after the workers are started: Ray sets handlers of its own.
    """
    global _owner, _requested, _heeded, _inside
    if current_thread() is not main_thread():
        yield
        return
    outer = _owner, _inside, _heeded
    asked_before = _requested
    _owner, _inside, _heeded = get_ident(), False, False
    before: dict[int, Any] = {number: signal.signal(number, _handle) for number in _NUMBERS}
    if outer[0] is None:
        _before.update(before)
    try:
        yield
    except (Interrupt, KeyboardInterrupt):
        _heeded = True  # on its way up, it tells whoever is concerned
        raise
    finally:
        try:
            _put_back(before)
        finally:
            missed = None if _heeded or asked_before is not None else _requested
            _owner, _inside, _heeded = outer
            if _owner is None or missed is not None:
                _requested = None
        if missed is not None:
            signal.raise_signal(missed)


class postponed:  # noqa: N801 - as above
    """Let no signal break into the block: those that come meanwhile go to their handlers at its end.

    Elsewhere than in the main thread there is nothing to do, as handlers do not run there.
    """

    __slots__ = "_before", "_over", "_waiting"

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {}
        self._waiting: list[int] = []
        self._over = False
        if current_thread() is main_thread():
            try:
                for number in _RAISING:
                    handler = _signal.getsignal(number)
                    if callable(handler):  # the others end the process or do nothing
                        self._before[number] = handler
                        _signal.signal(number, self._wait)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        try:
            # That of SIGINT comes last, since it raises: the others would stay as they are.
            for number in reversed(self._before):
                _signal.signal(number, self._before[number])
        finally:
            self._over = True
            if self._waiting:
                with contextlib.ExitStack() as stack:  # all of them, though the first one raises
                    for number in reversed(self._waiting):
                        stack.callback(signal.raise_signal, number)

    def _wait(self, number: int, _frame: FrameType | None) -> None:
        if self._over:  # another handler has raised before this one could be put back
            _signal.signal(number, self._before[number])
            signal.raise_signal(number)
        elif number not in self._waiting:
            self._waiting.append(number)


def _put_back(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _hold() -> None:
    """Keep signals waiting while the objective forks, or what is for the child could be lost in between."""
    global _mask
    if _owner == get_ident():
        _mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _let_go() -> None:
    global _mask
    if _owner == get_ident() and _mask is not None:
        mask, _mask = _mask, None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _forget() -> None:
    """Leave a process that the objective forked to whoever started it: no run is to be stopped there."""
    global _owner, _requested, _heeded, _inside, _overlooked
    if _owner is not None:
        _put_back(_before)
        _let_go()
        _owner, _requested, _heeded, _inside, _overlooked = None, None, False, False, False


def _handle(number: int, _frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _requested = number
    if _inside:
        raise Interrupt


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
