"""Lines for a log."""

from __future__ import annotations

import contextlib
import datetime
import time
from typing import Any, TextIO

from zoo.core.validation import printable
from zoo.progress.display import Display
from zoo.progress.refresher import Refresher
from zoo.progress.tally import Tally

_FIRST, _LAST, _GROWTH = 10.0, 1800.0, 0.2  # seconds between lines: at first, at most; of the time so far


class LinesDisplay(Display):
    """A line at the beginning, at growing intervals, and at the end.

    Args:
        tally: What to show.
        stream: Where they go.
    """

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        self._tally, self._stream = tally, stream
        self._refresher = Refresher(self._tick, delay=_FIRST)

    def begin(self) -> None:
        self._write("begins", **self._tally.beginning())
        self._refresher.start()

    def look(self) -> None:
        if self._refresher.error is not None:
            raise self._refresher.error
        self._tally.sample(time.monotonic())

    def end(self) -> None:
        self._refresher.stop()
        outcome = self._tally.outcome
        if outcome is not None:
            self._report(outcome.status, reason=outcome.reason.partition("\n")[0])

    def _tick(self) -> float:
        self._report("running")
        return max(_FIRST, min(_GROWTH * self._tally.elapsed(time.monotonic()), _LAST))

    def _report(self, event: str, **more: Any) -> None:
        self._write(event, **self._tally.line(time.monotonic()), **more)

    def _write(self, event: str, **fields: Any) -> None:
        stamp = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        text = "".join(f" {name}={_quoted(value)}" for name, value in fields.items() if value is not None)
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed file: the run goes on
            self._stream.write(f"{stamp} zoo {event} method={_quoted(self._tally.method)}{text}\n")
            self._stream.flush()


def _quoted(value: Any) -> str:
    text = " ".join(printable(value).split())
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text
