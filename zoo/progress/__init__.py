"""Live progress of a run, on standard error: `callback=zoo.Progress()`."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from zoo.core.validation import hint
from zoo.progress.bar import BarDisplay
from zoo.progress.display import Display
from zoo.progress.lines import LinesDisplay
from zoo.progress.tally import Tally
from zoo.progress.terminal import PanelDisplay
from zoo.run.loop import Run
from zoo.run.watching import Beginning, Watcher

MODES = ("auto", "panel", "lines", "bar", "none")
_PERIOD = 0.2  # seconds between looks
_SHARE = 0.01  # of the run's time that looks may take


class Progress(Watcher):
    """Shows on standard error how a run goes: give it as `callback`.

    Args:
        mode: "panel" for one on a terminal, "lines" for a log, "bar" for a notebook, "none" for nothing;
            "auto" for the panel where standard error is a terminal, lines where it is a file, the bar in a
            notebook, and nothing where it is a pipe. With TERM=dumb there are lines on a terminal, with
            CI=true nothing.

    Attributes:
        has_summary: Whether a panel that stays says how the last run went.

    Raises:
        ValueError: There is no such mode.

    Example:
        >>> import numpy as np, zoo
        >>> zoo.minimize(lambda x: (x**2).sum(), np.ones(3), budget=60, rng=0, callback=zoo.Progress()).nfev
        60
    """

    def __init__(self, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}.{hint(mode, MODES)}")
        self.mode, self.has_summary = mode, False
        self._tally: Tally | None = None
        self._display: Display | None = None
        self._due = 0.0

    def tally(self, run: Beginning, now: float) -> Tally:
        """Return what is to be told of the run, and says what is to be shown of it."""
        return Tally(run, now)

    def begin(self, run: Beginning) -> None:
        stream = sys.stderr
        mode = chosen(stream) if self.mode == "auto" else self.mode
        self._tally = self._display = None
        self.has_summary = False
        if mode == "none" or stream is None:
            return
        self._tally, self._due = self.tally(run, time.monotonic()), 0.0
        if mode == "panel":
            self._display = PanelDisplay(self._tally, stream)
        elif mode == "lines":
            self._display = LinesDisplay(self._tally, stream)
        else:
            self._display = BarDisplay(self._tally, stream, in_notebook())
        self._display.begin()

    def arrived(self, number: int) -> None:
        if self._tally is not None:
            self._tally.arrived(number)
            if time.monotonic() >= self._due:
                self._look()

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        if self._tally is not None:
            self._tally.step(state, metrics)
            if time.monotonic() >= self._due:
                self._look()

    def end(self, outcome: Run[Any] | None) -> None:
        if self._tally is not None and self._display is not None:
            if outcome is not None:
                self._tally.end(outcome)
            self._display.end()
            self.has_summary = isinstance(self._display, PanelDisplay) and self._display.has_summary
        self._tally = self._display = None

    def _look(self) -> None:
        if self._display is None:
            return
        began = time.monotonic()
        try:
            self._display.look()
        except BaseException:
            self._display.end()  # nothing may stay behind on the terminal
            self._display = None
            raise
        ended = time.monotonic()
        self._due = ended + max(_PERIOD, (ended - began) / _SHARE)


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def chosen(stream: TextIO | None) -> str:
    """Return the mode that "auto" means where standard error is this stream."""
    if in_notebook():
        return "bar"
    try:
        if stream is None:
            return "none"
        mode = os.fstat(stream.fileno()).st_mode
        is_terminal = stream.isatty()
    except (OSError, ValueError):  # it is no file at all, or closed
        return "none"
    if is_terminal:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            return "none"
        return "lines" if os.environ.get("TERM", "") in ("dumb", "unknown", "") else "panel"
    return "lines" if stat.S_ISREG(mode) else "none"
