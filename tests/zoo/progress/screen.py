"""A terminal's screen, as far as the panel and what is printed above it need one."""

from __future__ import annotations

import codecs
import re

_TOKEN = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|\x1b([78D])|([\n\r\b\x07])|([^\x1b\n\r\b\x07])")


class Screen:
    """What stands on a screen, and what has left it at the top.

    Attributes:
        lines: What stands there.
        gone: What has scrolled away.
        cursor_is_shown: Whether there is a cursor.
        region: First and last line that scroll.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.gone: list[str] = []
        self.row = self.column = 0
        self.wraps = False  # the next character goes to the next line
        self.region = (0, rows - 1)
        self.cursor_is_shown = True
        self._saved = (0, 0, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def everything(self) -> str:
        """What has scrolled away and what stands there, in lines."""
        return "\n".join([*self.gone, *self.lines])

    @property
    def is_sane(self) -> bool:
        return self.cursor_is_shown and self.region == (0, self.rows - 1)

    def feed_bytes(self, data: bytes) -> None:
        """Take what was read, which may end anywhere."""
        self.feed(self._decoder.decode(data))

    def feed(self, text: str) -> None:
        text, at = self._rest + text, 0
        self._rest = ""
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                self._rest = text[at:]
                assert len(self._rest) < 20, f"unknown sequence {self._rest[:20]!r}"
                return
            private, numbers, command, escape, control, character = found.groups()
            if character:
                self._put(character)
            elif control:
                self._control(control)
            elif escape:
                self._escape(escape)
            else:
                self._command(private, [int(n or 0) for n in numbers.split(";")], command)
            at = found.end()

    def _put(self, character: str) -> None:
        if self.wraps:
            self.column = 0
            self._down()
        self.cells[self.row][self.column] = character
        self.wraps = self.column == self.columns - 1
        self.column += not self.wraps

    def _down(self) -> None:
        self.wraps = False
        top, bottom = self.region
        if self.row == bottom:
            line = self.cells.pop(top)
            if top == 0:
                self.gone.append("".join(line).rstrip())
            self.cells.insert(bottom, [" "] * self.columns)
        else:
            self.row = min(self.row + 1, self.rows - 1)

    def _control(self, control: str) -> None:
        if control == "\n":
            self._down()
        elif control == "\r":
            self.column, self.wraps = 0, False
        elif control == "\b":
            self.column = max(0, self.column - 1)

    def _escape(self, escape: str) -> None:
        if escape == "7":
            self._saved = self.row, self.column, self.wraps
        elif escape == "8":
            self.row, self.column, self.wraps = self._saved
        elif escape == "D":
            self._down()
        else:
            raise AssertionError(f"unknown escape {escape}")

    def _command(self, private: str, numbers: list[int], command: str) -> None:
        first = numbers[0]
        if private:
            assert command in "hl", command
            if first == 25:
                self.cursor_is_shown = command == "h"
        elif command == "r":
            last = numbers[1] if len(numbers) > 1 else self.rows
            self.region = (max(first, 1) - 1, last - 1)
            assert 0 <= self.region[0] < self.region[1] < self.rows
            self.row, self.column, self.wraps = 0, 0, False
        elif command == "A":
            self.row, self.wraps = max(0, self.row - max(1, first)), False
        elif command == "H":
            column = numbers[1] if len(numbers) > 1 else 1
            self.row, self.column = max(1, first) - 1, max(1, column) - 1
            assert self.row < self.rows
            self.wraps = False
        elif command == "K":
            assert first == 2
            self.cells[self.row] = [" "] * self.columns
        elif command == "J":
            assert first == 0
            self.cells[self.row][self.column :] = [" "] * (self.columns - self.column)
            for row in range(self.row + 1, self.rows):
                self.cells[row] = [" "] * self.columns
        else:
            assert command == "m", f"unknown command {command}"
