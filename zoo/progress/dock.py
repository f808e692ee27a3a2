"""Lines docked to the bottom of a terminal, above which everything else scrolls.

The terminal itself keeps the two apart, by its scrolling region. So whatever writes there (the objective,
its workers, programs they start, a debugger) need not be known of nor redirected, and nothing of it is lost.
Every change is one write: nobody else's output comes in between.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence

from zoo.progress.guard import Guard

_SAVE, _RESTORE = "\x1b7", "\x1b8"  # the cursor
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_WHOLE = "\x1b[r"  # the scrolling region is all of the screen, and the cursor at its top
_ERASE_BELOW, _ERASE_LINE = "\x1b[J", "\x1b[2K"
_FREE = f"{_SAVE}{_WHOLE}{_RESTORE}{_ERASE_BELOW}{_SHOW}"
_DOWN = "\x1bD"  # by a line, with scrolling, in the same column


class Dock:
    """The bottom lines of a terminal.

    Args:
        descriptor: The terminal. Where it is none, there is a screen of 80 times 24 or of what COLUMNS
            and LINES say.
        encoding: Of text on it.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self._descriptor, self._encoding = descriptor, encoding
        self._docked: tuple[os.terminal_size, int] | None = None  # the screen, and lines held of it
        self._guard: Guard | None = None

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal, which may change at any time."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._descriptor)
            if size.columns and size.lines:
                return size
        found = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
        columns, lines = (
            int(text) if text.isdecimal() and int(text) else default
            for text, default in zip(found, (80, 24), strict=True)
        )
        return os.terminal_size((columns, lines))

    @property
    def in_background(self) -> bool:
        """Whether the terminal belongs to another job of its shell at the moment."""
        with contextlib.suppress(OSError, AttributeError):
            return os.tcgetpgrp(self._descriptor) != os.getpgrp()
        return False

    def show(self, lines: Sequence[str], size: os.terminal_size) -> None:
        """Show lines, each of at most one line of the terminal, at the bottom of a screen of this size."""
        first = size.lines - len(lines) + 1
        text = _HIDE
        if self._docked != (size, len(lines)):
            text += f"{_SAVE}{_WHOLE}{_RESTORE}"
            if self._docked is not None:
                text += _ERASE_BELOW  # which is where the old ones are, wherever a new size has put them
            text += f"{_DOWN * len(lines)}\x1b[{len(lines)}A"
        # The region is set every time: a program that was run in between may have changed it.
        text += f"{_SAVE}\x1b[1;{first - 1}r"
        for i, line in enumerate(lines):
            text += f"\x1b[{first + i};1H{_ERASE_LINE}{line}"
        if self._docked is None:
            self._guard = self._guard or Guard(self._descriptor, _FREE)
            self._guard.watch(True)
        self._docked = size, len(lines)
        self.write(f"{text}{_RESTORE}{_SHOW}")

    def remove(self) -> None:
        """Give the lines back."""
        if self._docked is not None:
            self._docked = None
            self.write(_FREE)
            if self._guard is not None:
                self._guard.watch(False)

    def close(self) -> None:
        """Give the lines back for good."""
        self.remove()
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def leave(self, text: str) -> None:
        """Give the lines back, and write a text that stays, from the start of a line on."""
        self.remove()
        # As many blanks as there are columns lead to the next line, except from the first column.
        self.write(f"{' ' * self.size.columns}\r{_ERASE_BELOW}{text}")

    def write(self, text: str) -> None:
        """Write all of a text; where the terminal is gone, nobody is left to read it."""
        data = text.encode(self._encoding, errors="replace")
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [], 1.0)
