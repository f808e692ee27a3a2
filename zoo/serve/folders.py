"""Where the runs are: found again and again, cheaply, however many there are."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_DEPTH = 4  # folders between one that was given and a run in it
MOST_FOLDERS = 20_000
_SETTLED = 2.0  # seconds after which the time of a folder's last change tells it from the next one
_TIME_SHARE = 200  # a scan may take one part in so many of the time between two
_INTERVAL = 2.0  # seconds between two scans at least
_LONGEST_INTERVAL = 10.0
_IS_RUN = frozenset(("config.json",))
_OF_RUN = frozenset((".lock", "evaluations.bin", "metrics.jsonl", "meta.json"))
_HALF_DELETED = frozenset(("evaluations.bin", "metrics.jsonl"))


class Place(NamedTuple):
    """A run directory: its path, and what it is called on the page."""

    path: Path
    name: str


class _Folder(NamedTuple):
    changed: int
    is_run: bool
    folders: tuple[str, ...]


class Folders:
    """Finds runs in directories, each of which may be a run itself.

    Links inside of them are not followed, nor are hidden folders and what is in a run.

    Attributes:
        places: The runs that were found, by an id that is the same next time.
        is_cut_short: Whether there were more folders than one looks into.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self.given = [Path(os.path.abspath(path)) for path in given]
        self.places: dict[str, Place] = {}
        self.is_cut_short = False
        self._known: dict[str, _Folder] = {}
        self._next = 0.0

    def scan(self) -> None:
        """Look for runs that are new or gone, unless that was done just now."""
        began = time.monotonic()
        if began < self._next:
            return
        known: dict[str, _Folder] = {}
        places: dict[str, Place] = {}
        short = [root.name for root in self.given]
        for root in self.given:
            label = root.name if short.count(root.name) == 1 else str(root)
            self._walk(str(root), label, known, places)
        self.is_cut_short = len(known) >= MOST_FOLDERS
        self._known, self.places = known, places
        now = time.monotonic()
        self._next = now + min(_LONGEST_INTERVAL, max(_INTERVAL, _TIME_SHARE * (now - began)))

    def _walk(self, top: str, label: str, known: dict[str, _Folder], places: dict[str, Place]) -> None:
        prefix = f"{label}/" if len(self.given) > 1 else ""
        waiting = [(top, 0)]
        while waiting and len(known) < MOST_FOLDERS:
            path, depth = waiting.pop()
            folder = self._folder(path, is_given=path == top)
            if folder is None or path in known:
                continue
            known[path] = folder
            if folder.is_run:
                name = label if path == top else prefix + path[len(top) + 1 :]
                number = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
                places[number] = Place(Path(path), name)
            elif depth < _DEPTH:
                waiting += [(f"{path}/{name}", depth + 1) for name in folder.folders]

    def _folder(self, path: str, is_given: bool) -> _Folder | None:
        """Return what a folder holds, None if it is none; read only if it has changed."""
        try:
            status = os.stat(path, follow_symlinks=is_given)
            changed = status.st_mtime_ns
            known = self._known.get(path)
            if known is not None and known.changed == changed:
                return known
            if not stat.S_ISDIR(status.st_mode):
                return None
            names, folders = set(), []
            with os.scandir(path) as entries:
                for entry in entries:
                    names.add(entry.name)
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
        except OSError:
            return None
        is_run = bool((names >= _IS_RUN and names & _OF_RUN) or names & _HALF_DELETED)
        if changed / 1e9 > time.time() - _SETTLED:
            changed = 0
        return _Folder(changed, is_run, tuple(sorted(folders, reverse=True)))
