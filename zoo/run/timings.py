"""`timings.jsonl`: when each step was done, whichever process did it, for all who read it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 23  # bytes of a log that are in memory at a time
_NUMBERS = bytes(c if chr(c) in "0123456789.+-e" else 32 for c in range(256))
_NAMES = (b'"step": ', b'"seconds": ', b'"earlier": ')


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield what a log holds in parts of whole lines; nothing where there is none, or of a torn last line."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        rest = b""
        while data := file.read(_CHUNK):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            yield data[:cut]
            rest = data[cut:]


def read_timings(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Yield what `Clock.read` makes of a log, part by part."""
    clock = Clock()
    return (clock.read(lines) for lines in whole_lines(path))


class Clock:
    """Reads the lines of a log in their order, all of them or some, in as many parts as it takes."""

    def __init__(self) -> None:
        self._seconds = self._earlier = 0.0

    @property
    def total(self) -> float:
        """Seconds of work up to the last line, without the time between a stop and a resume."""
        return self._earlier + self._seconds

    def read(self, lines: bytes) -> np.ndarray[Any, Any]:
        """Return a row for each line, NaN if it is damaged: step, seconds of its process, of those before."""
        rows = _rows(lines)
        rows[np.isinf(rows).any(1) | np.isnan(rows[:, :2]).any(1)] = np.nan
        sound = rows[~np.isnan(rows[:, 0])]
        if np.isnan(sound[:, 2]).any():
            rows[:, 2] = [self._before(*row) for row in rows.tolist()]
        elif len(sound):
            _, self._seconds, self._earlier = sound[-1].tolist()
        return rows

    def _before(self, step: float, seconds: float, earlier: float) -> float:
        """Return how long the processes before had worked, also if the line does not say.

        Every process counts from 0. Lines of versions before this one show a new one only by a clock that
        falls, which it does not if the new process was slower than the one before.
        """
        if math.isnan(step):
            return step
        if not math.isnan(earlier):
            self._earlier = earlier
        elif seconds < self._seconds:
            self._earlier += self._seconds
        self._seconds = seconds
        return self._earlier


def _rows(lines: bytes) -> np.ndarray[Any, Any]:
    """Return the numbers of each line: all in one go, since there may be millions, or else one by one."""
    count = lines.count(b"\n")
    present = [lines.count(name) for name in _NAMES]
    if present in ([count, count, count], [count, count, 0]):
        numbers = lines.translate(_NUMBERS).replace(b" e ", b" ").split()
        with contextlib.suppress(ValueError):
            rows = np.array(numbers, float).reshape(count, 3 if present[2] else 2)
            return rows if present[2] else np.column_stack([rows, np.full(count, np.nan)])
    return np.array([_row(line) for line in lines.split(b"\n")[:-1]], float).reshape(-1, 3)


def _row(line: bytes) -> tuple[float, float, float]:
    try:  # suppressing errors by a context manager takes as long as reading a line
        entry = json.loads(line)
        return float(entry["step"]), float(entry["seconds"]), float(entry.get("earlier", math.nan))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return math.nan, math.nan, math.nan
