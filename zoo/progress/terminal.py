"""The panel on its terminal."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from typing import Any, TextIO

from zoo.execution import interrupts
from zoo.progress.display import Display
from zoo.progress.dock import Dock
from zoo.progress.refresher import Refresher
from zoo.progress.tally import Tally

_PERIOD = 0.2  # seconds between pictures
_SHARE = 0.01  # of one core that pictures may take
_LOWEST, _NARROWEST = 8, 20  # lines and columns that a terminal must have for a panel
_ASCII = str.maketrans("━─·…±", "=--~~")

_panel_is_up = threading.Lock()


class PanelDisplay(Display):
    """A panel at the bottom of the terminal, redrawn by a thread, which stays as a summary at the end.

    Args:
        tally: What to show.
        stream: The terminal.

    Attributes:
        has_summary: Whether the summary is there.
    """

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        from zoo.progress.drawing import Console

        self._tally, self._stream = tally, stream
        encoding = stream.encoding or "utf-8"
        # It only makes text: the stream may be in the middle of what another thread writes.
        nowhere = io.TextIOWrapper(io.BytesIO(), encoding)
        self._console = Console(
            file=nowhere, force_terminal=stream.isatty() or None, highlight=False, emoji=False
        )
        self._dock = Dock(stream.fileno(), encoding)
        self._refresher = Refresher(self._tick, delay=_PERIOD)
        self._has_terminal = self.has_summary = False
        self._drawing = threading.RLock()  # a handler of signals may come upon its own thread
        self._owner = os.getpid()

    def begin(self) -> None:
        self._lines(80, None)  # what this imports is not to be imported by a thread
        # A run inside another one's objective leaves the terminal to that one.
        self._has_terminal = _panel_is_up.acquire(blocking=False)
        if self._has_terminal:
            if _takes_suspension():
                signal.signal(signal.SIGTSTP, self._suspend)
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
                return
            for stream in (sys.stdout, self._stream):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            self._tally.sample(time.monotonic())
            lines = self._lines(self._dock.size.columns, None)
            self._dock.leave("".join(f"{line}\n" for line in lines))
            self.has_summary = True
        finally:
            self._dock.close()
            if _takes_suspension(self._suspend):
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._has_terminal = False
            _panel_is_up.release()

    def _suspend(self, *_: Any) -> None:
        """Stop this process, as Ctrl-Z asks for, with the terminal free; the panel comes back after it."""
        if os.getpid() != self._owner:  # of a process that the objective has forked
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        with self._drawing:
            self._dock.remove()
            os.kill(os.getpid(), signal.SIGSTOP)

    def _tick(self) -> float | None:
        with self._drawing:
            return self._draw()

    def _draw(self) -> float | None:
        if interrupts.pending():
            # From here on a second signal may end the process at once, with the terminal as it is.
            self._dock.leave("zoo: asked to stop; asked again, it ends at once\n")
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
        from zoo.progress.drawing import ConsoleDimensions

        self._console.size = ConsoleDimensions(columns, 24)
        panel = self._tally.panel(time.monotonic(), self._console.options, height)
        with self._console.capture() as capture:
            self._console.print(panel)
        text = capture.get()
        return (text.translate(_ASCII) if self._console.options.ascii_only else text).splitlines()


def _takes_suspension(handler: Any = signal.SIG_DFL) -> bool:
    """Whether Ctrl-Z does what this handler does, and may be given another one here."""
    return (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTSTP) == handler
    )
