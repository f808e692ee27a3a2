"""What the page asks for again and again: what is new since it asked before."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.serve.folders import MOST_FOLDERS, Folders
from zoo.serve.watched import Watched

INTERVAL = 2.0  # seconds from an answer to the next question
MOST_CHOSEN = 16
_SLICE = 0.3  # seconds of work for one answer; what is left is done for the next one
_KEPT = 120.0  # seconds for which the curves of a run are kept that nobody asks for


class Overview:
    """All runs in some directories. Nothing is done unless somebody asks."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._folders = Folders(directories)
        self._runs: dict[str, Watched] = {}
        self._chosen: dict[str, float] = {}  # when somebody last asked for the curves of a run
        self._session = secrets.token_hex(4)  # numbers are this process's own
        self._number = self._last_change = 0
        self._lock = threading.Lock()

    def since(self, since: str, chosen: Mapping[str, str]) -> dict[str, Any] | None:
        """Return what is new, None if nothing is.

        Args:
            since: "since" of the answer before, empty for all.
            chosen: For each run whose curves are wanted, by id, what is there already: its "cursor".
        """
        with self._lock:
            session, _, number = since.partition("-")
            is_known = session == self._session and number.isdecimal() and len(number) < 16
            return self._answer(int(number) if is_known else -1, dict(list(chosen.items())[:MOST_CHOSEN]))

    def _answer(self, since: int, chosen: dict[str, str]) -> dict[str, Any] | None:
        until = time.monotonic() + _SLICE
        self._number += 1
        self._find()
        more = self._look(chosen, until)
        details: dict[str, Any] = {}
        for key, cursor in chosen.items():
            run = self._runs.get(key)
            if run is None or not run.summary:
                continue
            self._chosen[key] = time.monotonic()
            curves = run.curves()
            while curves.read() and curves.more and time.monotonic() < until:
                pass
            more = more or curves.more
            if run.version > since or cursor != curves.cursor:
                details[key] = run.detail(cursor)
        self._forget()
        runs = {key: run.summary for key, run in self._runs.items() if run.summary and run.version > since}
        if not (runs or details or more or self._last_change > since):
            return None
        return {
            "since": f"{self._session}-{self._number}",
            "now": time.time(),
            "interval": INTERVAL,
            "more": more,
            "folders": [str(path) for path in self._folders.given],
            "limit": MOST_FOLDERS if self._folders.is_cut_short else None,
            "ids": [key for key, run in self._runs.items() if run.summary]
            if self._last_change > since
            else None,
            "runs": runs,
            "details": details,
        }

    def _find(self) -> None:
        self._folders.scan()
        places = self._folders.places
        for key in self._runs.keys() - places.keys():
            del self._runs[key]
            self._last_change = self._number
        for key, place in places.items():
            if key not in self._runs:
                self._runs[key] = Watched(*place)

    def _look(self, chosen: Mapping[str, str], until: float) -> bool:
        """Look at the runs that may have changed; return whether some have not been looked at yet."""
        now = time.time()
        for key, run in sorted(self._runs.items(), key=lambda item: item[1].looked):
            if now >= run.next_look or key in chosen:
                if run.looked < 0:
                    self._last_change = self._number
                run.look(self._number, now)
                if time.monotonic() > until:
                    break
        return any(run.looked < 0 for run in self._runs.values())

    def _forget(self) -> None:
        oldest = time.monotonic() - _KEPT
        for key in [key for key, asked in self._chosen.items() if asked < oldest]:
            del self._chosen[key]
            if key in self._runs:
                self._runs[key].series = None
