"""The curves of a run, thinned as they grow: what is kept of a million steps is what a picture can show."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from zoo.run.kinds import PLAIN, Wording
from zoo.run.timings import Clock
from zoo.serve.tail import Tail

MOST = 1200  # points of a curve, which is a few hundred pixels wide
_MOST_COLUMNS = 120
_LONGEST_NAME = 200
_LARGEST = 10**300
_LINE_BREAK = ord("\n")
_HAS_POINT = b'"x": ['
_ASKED_FOR = ("step", "nfev", "best", "value", "median")  # by these names, whatever the page calls them
_generations = itertools.count()  # of all runs: a cursor of one that is gone fits no other
_CURSOR = re.compile(r"(\d{1,12})\.(\d{1,12})\.(\d{1,12})")


class Series:
    """Every scalar of `metrics.jsonl` and the times of `timings.jsonl`, at every `stride`-th step.

    Only the lines that are kept are parsed, and the last one. As soon as there are more than `MOST`, every
    other one is dropped: the same steps are kept however often somebody looks.

    Args:
        path: Directory of the run.
        wording: How its numbers are shown, as `of_columns` returns it.

    Attributes:
        generation: Another number as soon as what was kept before is void.
        stride: Steps from one that is kept to the next.
        columns: A number, or None, for each of the steps that are kept, by name.
        seconds: When each of them was done, without the time between a stop and a resume. May be shorter, or
            longer, than the columns: the two logs are written one after the other.
        last: The last step of all, with its "seconds" where they are known.
        row: The best point so far, None where it is not logged.
    """

    def __init__(self, path: Path, wording: Wording = PLAIN) -> None:
        self._path, self._wording = path, wording
        self._begin()

    def _begin(self) -> None:
        self._metrics, self._timings = Tail(self._path / "metrics.jsonl"), Tail(self._path / "timings.jsonl")
        self.generation = next(_generations)
        self.stride = 1
        self.columns: dict[str, list[float | None]] = {}
        self.seconds: list[float | None] = []
        self.last: dict[str, float | None] = {}
        self.row: list[Any] | None = None
        self._steps = self._times = 0  # lines of the two logs so far
        self._kept = 0
        self._clock = Clock()

    @property
    def more(self) -> bool:
        """Whether there is more to read at once."""
        return self._metrics.more or self._timings.more

    @property
    def cursor(self) -> str:
        """What stands for all that there is by now."""
        return f"{self.generation}.{self._kept}.{len(self.seconds)}"

    def read(self) -> bool:
        """Read some of what is new; return whether there was anything."""
        metrics, timings = self._metrics.read(), self._timings.read()
        if self._metrics.began_anew or self._timings.began_anew:
            self._begin()
            self.read()
            return True
        if metrics:
            self._add_steps(_Lines(metrics))
        if timings:
            self._add_times(_Lines(timings))
        if self._steps == self._times and (metrics or timings):
            self.last["seconds"] = finite(round(self._clock.total, 3))
        return bool(metrics or timings)

    def since(self, cursor: str) -> dict[str, Any]:
        """Return what somebody lacks who has what `cursor` stands for; of another generation, all."""
        points = times = 0
        if (match := _CURSOR.fullmatch(cursor)) and int(match[1]) == self.generation:
            points, times = int(match[2]), int(match[3])
        return {
            "cursor": self.cursor,
            "start": [points, times],
            "columns": {name: column[points:] for name, column in self.columns.items()},
            "seconds": self.seconds[times:],
            "last": self.last,
            "stride": self.stride,
        }

    def _add_steps(self, lines: _Lines) -> None:
        for index in range(-self._steps % self.stride, len(lines), self.stride):
            self._keep(self._wording.shown(_numbers(lines[index])))
        self._steps += len(lines)
        best, self.last = self.last.get("best"), self._wording.shown(_numbers(lines[-1]))
        if (self.row is None or self.last.get("best") != best) and (found := lines.last_with(_HAS_POINT)):
            row = json_object(found).get("x")
            self.row = row if isinstance(row, list) else self.row
        while self._kept > MOST:
            self._thin()

    def _keep(self, entry: dict[str, float | None]) -> None:
        if not entry.keys() <= self.columns.keys():
            for name in entry:
                if name not in self.columns and len(self.columns) < _MOST_COLUMNS:
                    self.columns[name] = [None] * self._kept
            if self._kept:
                self.generation = next(_generations)
        for name, column in self.columns.items():
            column.append(entry.get(name))
        self._kept += 1

    def _add_times(self, lines: _Lines) -> None:
        kept = range(-self._times % self.stride, len(lines), self.stride)
        # The last one too: it may be the last of all, or of its process.
        rows = self._clock.read(b"".join(lines[index] + b"\n" for index in (*kept, len(lines) - 1)))
        self.seconds.extend(
            None if math.isnan(clock) else round(earlier + clock, 3)
            for _, clock, earlier in rows[:-1].tolist()
        )
        self._times += len(lines)

    def _thin(self) -> None:
        self.stride *= 2
        self.generation = next(_generations)
        self.columns = {name: column[::2] for name, column in self.columns.items()}
        self.seconds = self.seconds[::2]
        self._kept = (self._kept + 1) // 2


class _Lines:
    """Whole lines, of which few are made strings: most are neither parsed nor kept."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _LINE_BREAK)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        index %= len(self._ends)
        return self._data[self._ends[index - 1] + 1 if index else 0 : self._ends[index]]

    def last_with(self, part: bytes) -> bytes | None:
        """Return the last line that holds `part`, None if none does."""
        place = self._data.rfind(part)
        return None if place < 0 else self[int(np.searchsorted(self._ends, place))]


def of_columns(wording: Wording) -> Wording:
    """Return a wording that leaves the columns their names for which the page asks."""
    names = {name: other for name, other in wording.names.items() if name not in _ASKED_FOR}
    return dataclasses.replace(wording, names=names)


def json_object(data: bytes) -> dict[str, Any]:
    """Return what a line or a file holds, empty if it is damaged."""
    try:  # suppressing errors by a context manager takes as long as reading a line
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def finite(value: Any) -> float | None:
    """Return a number as JSON can hold it, None for all else: NaN, infinity, an integer beyond floats."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST else None
    return None


def _numbers(line: bytes) -> dict[str, float | None]:
    """Return the scalars of a line; the best point is none, nor are lists."""
    return {
        name[:_LONGEST_NAME]: finite(value)
        for name, value in json_object(line).items()
        if value is None or isinstance(value, (int, float))
    }
