"""SIGINT and SIGTERM during a run: the first asks it to stop with a checkpoint, the second leaves at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from zoo.core.errors import Interrupt

_requested: int | None = None
_inside = False


def requested() -> int | None:
    """Return the number of the signal that asked the run to stop, or None."""
    return _requested


def check() -> None:
    """Raise `Interrupt` if a signal asked the run to stop."""
    if _requested is not None:
        raise Interrupt


class interruptible:  # noqa: N801 - used as a function is, but at half the cost of a generator
    """Let a signal break into the block with `Interrupt`, instead of waiting for its end."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _inside
        _inside = True
        try:
            check()  # one that came just before would find nobody to break into
        except Interrupt:
            _inside = False
            raise

    def __exit__(self, *exception: object) -> None:
        global _inside
        _inside = False


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Catch SIGINT and SIGTERM inside the block; elsewhere than in the main thread, do nothing.

    It must be entered after the workers are started: Ray sets handlers of its own.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested = None
    numbers = signal.SIGINT, signal.SIGTERM
    before: dict[int, Any] = {number: signal.signal(number, _handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _requested = None


def _handle(number: int, _frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _requested = number
    if _inside:
        raise Interrupt
