"""What a run looks like while it is under way: as a panel, as lines, as a bar."""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
import threading
import time
from typing import Any, Protocol, TextIO

from zoo.execution import interrupts
from zoo.progress.dock import Dock
from zoo.progress.refresher import Refresher
from zoo.progress.tally import Tally
from zoo.progress.wording import duration, number, rate

_PERIOD = 0.2  # seconds between pictures
_SHARE = 0.01  # of one core that pictures may take
_LOWEST, _NARROWEST = 8, 20  # lines and columns that a terminal must have for a panel
_FIRST, _LAST, _GROWTH = 10.0, 1800.0, 0.2  # seconds between lines: at first, at most; of the time so far

_panel_is_up = threading.Lock()


class Display(Protocol):
    """Shows a run; all of it is called in the thread of the run."""

    def begin(self) -> None:
        """Show that it begins."""
        ...

    def look(self) -> None:
        """Be told, some times a second at most, that something has happened."""
        ...

    def end(self) -> None:
        """Show how it ended, if the tally has an outcome; else go away."""
        ...


class PanelDisplay:
    """A panel at the bottom of the terminal, redrawn by a thread, which stays as a summary at the end.

    Args:
        tally: What to show.
        stream: The terminal.
    """

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        from rich.console import Console

        self._tally, self._stream = tally, stream
        self._console = Console(file=stream, highlight=False, emoji=False)
        self._dock = Dock(stream.fileno())
        self._refresher = Refresher(self._tick, delay=_PERIOD)
        self._has_terminal = False

    def begin(self) -> None:
        # A run inside another one's objective leaves the terminal to that one.
        self._has_terminal = _panel_is_up.acquire(blocking=False)
        if self._has_terminal:
            self._lines(80, None)  # what this imports is not to be imported by a thread
            self._refresher.start()

    def look(self) -> None:
        if self._refresher.error is not None:
            raise self._refresher.error
        self._tally.sample(time.monotonic())
        self._tally.recommend()

    def end(self) -> None:
        if not self._has_terminal:
            return
        try:
            self._refresher.stop()
            if self._tally.outcome is None or self._dock.in_background:
                self._dock.remove()
                return
            for stream in (sys.stdout, self._stream):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            self._tally.sample(time.monotonic())
            lines = self._lines(self._dock.size.columns, None)
            self._dock.leave("".join(f"{line}\n" for line in lines))
        finally:
            self._has_terminal = False
            _panel_is_up.release()

    def _tick(self) -> float | None:
        if interrupts.pending():
            # From here on a second signal may end the process at once, with the terminal as it is.
            self._dock.leave("zoo: stopping; Ctrl-C again leaves at once\n")
            return None
        if self._dock.in_background:
            self._dock.remove()
            return 1.0
        began = time.thread_time()
        size = self._dock.size
        if size.lines < _LOWEST or size.columns < _NARROWEST:
            self._dock.remove()
        else:
            self._dock.show(self._lines(size.columns, size.lines // 2), size)
        return max(_PERIOD, (time.thread_time() - began) / _SHARE)

    def _lines(self, columns: int, height: int | None) -> list[str]:
        from rich.console import ConsoleDimensions

        from zoo.progress.panel import drawn

        self._console.size = ConsoleDimensions(columns, 24)
        panel = drawn(self._tally, time.monotonic(), self._console.options, height)
        with self._console.capture() as capture:
            self._console.print(panel)
        return capture.get().splitlines()


class LinesDisplay:
    """A line at the beginning, at growing intervals, and at the end.

    Args:
        tally: What to show.
        stream: Where they go.
    """

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        self._tally, self._stream = tally, stream
        self._refresher = Refresher(self._tick, delay=_FIRST)

    def begin(self) -> None:
        tally = self._tally
        self._write(
            "begins",
            dim=tally.dim,
            budget=tally.budget,
            nfev=tally.nfev or None,
            target=tally.target,
            executor=tally.executor or None,
            workers=tally.num_workers,
            directory=tally.path,
        )
        self._refresher.start()

    def look(self) -> None:
        if self._refresher.error is not None:
            raise self._refresher.error
        self._tally.sample(time.monotonic())

    def end(self) -> None:
        self._refresher.stop()
        outcome = self._tally.outcome
        if outcome is not None:
            self._report(outcome.status, reason=outcome.reason)

    def _tick(self) -> float:
        self._report("running")
        return max(_FIRST, min(_GROWTH * self._tally.elapsed(time.monotonic()), _LAST))

    def _report(self, event: str, **more: Any) -> None:
        tally, now = self._tally, time.monotonic()
        size, _ = tally.diagnostics()
        pace, left = tally.rate(now), None if tally.outcome else tally.left(now)
        self._write(
            event,
            nfev=tally.count,
            best=number(tally.best, 7) if tally.has_value else None,
            found=tally.found,
            violation=number(tally.violation, 3) if tally.violation > 0 else None,
            step_size=size,
            elapsed=duration(tally.elapsed(now)),
            left=None if left is None else duration(left),
            rate=None if pace is None else rate(pace),
            **dict(tally.troubles()),
            **more,
        )

    def _write(self, event: str, **fields: Any) -> None:
        stamp = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        text = "".join(f" {name}={_quoted(value)}" for name, value in fields.items() if value is not None)
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed file: the run goes on
            self._stream.write(f"{stamp} zoo {event} method={self._tally.method}{text}\n")
            self._stream.flush()


def _quoted(value: Any) -> str:
    text = " ".join(str(value).split())
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text


class BarDisplay:
    """A bar of tqdm's: a widget in notebooks that can show them; without tqdm, one line rewritten in place.

    Args:
        tally: What to show.
        stream: Where it goes, if it is text.
        in_notebook: Whether there are widgets.
    """

    def __init__(self, tally: Tally, stream: TextIO, in_notebook: bool) -> None:
        self._tally, self._stream = tally, stream
        self._in_notebook = in_notebook
        self._bar: Any = None

    def begin(self) -> None:
        tally = self._tally
        kind = _bar_kind(self._in_notebook)
        if kind is not None:
            self._bar = kind(
                total=tally.budget,
                initial=tally.nfev,
                desc=tally.method,
                unit="evaluation",
                file=self._stream,
            )

    def look(self) -> None:
        tally = self._tally
        tally.sample(time.monotonic())
        if self._bar is None:
            self._rewrite()
            return
        self._bar.set_postfix_str(self._words(), refresh=False)
        self._bar.update(tally.count - self._bar.n)
        self._bar.refresh()

    def end(self) -> None:
        if self._tally.outcome is not None:
            self.look()
        if self._bar is not None:
            self._bar.close()
        else:
            self._print("\n")

    def _words(self) -> str:
        tally = self._tally
        size, _ = tally.diagnostics()
        parts = [f"best {number(tally.best, 5)}" if tally.has_value else "no value yet"]
        parts += [] if size is None else [f"step size {size}"]
        parts += [f"{times} {name}" for name, times in tally.troubles()]
        return ", ".join(parts)

    def _rewrite(self) -> None:
        tally, now = self._tally, time.monotonic()
        of = "" if tally.budget is None else f" of {tally.budget:,}"
        self._print(
            f"\r{tally.method}: {tally.count:,}{of} in {duration(tally.elapsed(now))}, {self._words()}"
        )

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def _bar_kind(in_notebook: bool) -> Any:
    """Return tqdm's bar that can be shown, or None without tqdm."""
    try:
        if in_notebook:
            with contextlib.suppress(ImportError):
                import ipywidgets  # noqa: F401
                from tqdm.notebook import tqdm as widget

                return widget
        from tqdm.std import tqdm
    except ImportError:
        return None
    return tqdm
