"""A table of all steps that every spreadsheet reads."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
from typing import Any, Literal, TextIO

from zoo.loggers.base import Line, Logger, Outcome, Subject

_FIRST = ("step,nfev", "step,episodes", "step,queries")  # of the kinds of runs there are


class CSV(Logger):
    """Writes one row a step into a file, at once; a resumed run leaves the rows of an undisturbed one.

    Columns are what the first step logs, then `x.0`, `x.1`, ... (or the names of a space), filled in where
    the best point improved. A column that comes later is added, and empty before. Numbers are exact (to
    read them so with pandas: `float_precision="round_trip"`), cells of what is not finite empty, arrays JSON.

    Args:
        path: The file. One that holds another log is written anew, any other is refused.

    Raises:
        ValueError: There is something else in the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        with contextlib.suppress(FileNotFoundError), open(self.path, newline="", errors="replace") as file:
            if (start := file.read(max(map(len, _FIRST)))) and not start.startswith(_FIRST):
                raise ValueError(
                    f"`path` must not hold anything but a log of steps, which {self.path} does not."
                )
        self._columns: list[str] = []
        self._rows: TextIO

    def open(self, subject: Subject) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = []
        self._rows = self._opened("w")
        return 0

    def write(self, line: Line, when: float) -> None:
        row = {name: value for name, value in line.items() if name != "x"}
        if "x" in line:
            row |= self.point(line["x"])
        if not self._columns:
            self._columns = list(dict.fromkeys([*row, *self._subject.coordinates]))
            self._writer().writerow(self._columns)
        elif not row.keys() <= set(self._columns):
            self._widen([name for name in row if name not in self._columns])
        self._writer().writerow([_cell(row.get(name)) for name in self._columns])

    def close(self, outcome: Outcome | None) -> None:
        self._rows.close()

    def _opened(self, mode: Literal["a", "w"]) -> TextIO:
        # A line is handed over as soon as it is whole; `close` closes the file.
        return open(self.path, mode, newline="", buffering=1)

    def _writer(self) -> Any:
        return csv.writer(self._rows, lineterminator="\n")

    def _widen(self, names: list[str]) -> None:
        self._rows.close()
        self._columns += names
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with open(self.path, newline="") as old, open(beside, "w", newline="") as self._rows:
            writer = self._writer()
            writer.writerow(self._columns)
            writer.writerows(row + [""] * len(names) for row in itertools.islice(csv.reader(old), 1, None))
        os.replace(beside, self.path)
        self._rows = self._opened("a")


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (bool, list, dict)) else value
