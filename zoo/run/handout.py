"""Which evaluations of the step under way somebody has been asked for: `asked.jsonl`.

A line is {"time": ..., "asked": [ids]} or {"requeued": [ids]}. The file begins anew with every step, as all
of the steps before were told. What is told is in `evaluations.bin`, not here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.run.checkpoint import writing


class Handout:
    """The evaluations of one step after the other, from asked for to told.

    Args:
        path: File in which to keep what is out, read where there is one; None for nowhere.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.out: dict[int, float] = {}  # when each of those asked for was given out, in seconds since 1970
        self._requeued: set[int] = set()
        self._path, self._file, self._stale = path, -1, False
        self._next = self._stop = 0
        self._is_told: Callable[[int], bool] = bool
        if path is not None:
            for line in path.read_bytes().splitlines() if path.exists() else ():
                # A kill may have torn it.
                with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
                    self._read(json.loads(line))
            with writing(path):
                self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._finalizer = weakref.finalize(self, os.close, self._file)  # for who forgets to close it

    def begin(self, first: int, count: int, is_told: Callable[[int], bool]) -> None:
        """Turn to the step whose evaluations are `first` to `first + count`."""
        self._next, self._stop, self._is_told = first, first + count, is_told
        # A session that was opened just now may have some steps to do again before it is where it was.
        self.out = {
            number: since
            for number, since in self.out.items()
            if number >= self._stop or (number >= first and not is_told(number))
        }
        self._requeued &= self.out.keys()
        self._stale = not self.out

    def free(self, n: int) -> list[int]:
        """Return at most `n` evaluations to be given out next, those that were given back first."""
        while self._next < self._stop and (self._next in self.out or self._is_told(self._next)):
            self._next += 1
        chosen, number = sorted(self._requeued)[:n], self._next
        while number < self._stop and len(chosen) < n:
            if number not in self.out and not self._is_told(number):
                chosen.append(number)
            number += 1
        return chosen

    def give(self, numbers: Sequence[int]) -> None:
        """Put it on record that evaluations are out."""
        if numbers:
            entry = {"time": time.time(), "asked": list(numbers)}
            self._write(entry)
            self._read(entry)

    def requeue(self, numbers: Iterable[int]) -> None:
        """Put it on record that evaluations that are out are to be given out again."""
        entry = {"requeued": sorted(numbers)}
        if entry["requeued"]:
            self._write(entry)
            self._read(entry)

    def told(self, numbers: Iterable[int]) -> None:
        """Forget those that have a value now."""
        for number in numbers:
            self.out.pop(number, None)
            self._requeued.discard(number)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            self._finalizer()
            self._file = -1

    def _read(self, entry: dict[str, Any]) -> None:
        if "asked" in entry:
            asked = [int(number) for number in entry["asked"]]
            self.out.update(dict.fromkeys(asked, float(entry["time"])))
            self._requeued.difference_update(asked)
        else:
            self._requeued.update(int(number) for number in entry["requeued"])

    def _write(self, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        with writing(self._path):
            if self._stale:
                os.ftruncate(self._file, 0)
                self._stale = False
            line = b"\n" + json.dumps(entry).encode() + b"\n"  # of its own, whatever a kill has left before
            while line:
                line = line[os.write(self._file, line) :]
