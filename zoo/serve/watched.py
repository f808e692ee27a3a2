"""One run directory as the page shows it: what it is, how far it is, and whether it is still at work."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np

from zoo.core.errors import RunDirectoryError
from zoo.core.space import Space
from zoo.run.checkpoint import checksum
from zoo.run.directory import SCHEMA
from zoo.run.kinds import PLAIN, Wording, kind_of
from zoo.serve.series import Series, finite, json_object, of_columns
from zoo.serve.tail import Tail, content, last_lines

_STATUSES = {"finished": "finished", "target": "finished", "failed": "failed"}  # any other is stopped
_LOOKED_AT = (
    "config.json",
    "metrics.jsonl",
    "timings.jsonl",
    "events.jsonl",
    "result.json",
    "evaluations.bin",
    "asked.jsonl",  # of a session, of which whoever has been asked may take all the time in the world
)
_COUNTED = {
    "worker restarted": "restarts",
    "worker lost": "lost",
    "evaluation raised": "retries",
    "quarantined": "quarantined",
    "resumed": "resumed",
}
_NOT_SHOWN = ("time", "event", "account", "versions", "processor")
_FEW = 8  # steps by which one tells how long they take
_MOST_EVENTS = 12
_MOST_VARIABLES = 100
_LONGEST_TEXT = 400
_QUIET = 60.0  # seconds without a sign of life that are no reason for doubt; several steps are none either
_SLOWEST_LOOK = 30.0


class Watched:
    """A run that may be under way in another process, at which one looks again and again.

    Attributes:
        path: Its directory.
        name: What it is called on the page.
        looked: The number of the last look, -1 if there was none.
        version: The number of the last look that found something new.
        summary: What the list of runs has of it, as JSON.
        next_look: When it is worth another look; a run that stopped long ago hardly changes.
        series: Its curves, None as long as nobody wants to see them.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.looked = self.version = -1
        self.next_look = 0.0
        self.summary: dict[str, Any] = {}
        self.series: Series | None = None
        self._wording = PLAIN
        self._signature: Any = None
        self._identity: tuple[int, int, int] | None = None

    def _begin(self) -> None:
        self._config, self._problem = _read_config(self.path)
        self._wording = PLAIN
        objective = self._config.get("objective")
        self._subject = objective.get("name") if isinstance(objective, dict) else None
        try:
            kind = kind_of(self._config)
            if kind is not None:
                self._wording, self._subject = of_columns(kind.wording), kind.subject(self._config)
        except RunDirectoryError as error:
            self._problem = _text(error)
        self._meta = _read(self.path / "meta.json")
        self._result: dict[str, Any] = {}
        self._progress: deque[tuple[float, float]] = deque(maxlen=40)  # seconds of work, evaluations
        self._begin_events()
        if self.series is not None:
            self.series = Series(self.path, self._wording)

    def _begin_events(self) -> None:
        self._events = Tail(self.path / "events.jsonl")
        self._last_events: deque[dict[str, str]] = deque(maxlen=_MOST_EVENTS)
        self._counts = Counter(dict.fromkeys(_COUNTED.values(), 0))
        self._ended: dict[str, Any] | None = None

    def look(self, number: int, now: float) -> bool:
        """See what is new, and return whether anything is.

        Args:
            number: Of this look.
            now: Seconds since 1970.
        """
        self.looked = number
        found = {name: _status_of(self.path / name) for name in _LOOKED_AT}
        signature = tuple(found.values())
        changed = max((status[2] for status in signature if status), default=0) / 1e9
        self.next_look = now + min(max(0.0, (now - changed) / 20 - 3), _SLOWEST_LOOK)
        if signature != self._signature or self._events.more:
            if self._signature is None or found["config.json"] != self._identity:
                self._identity = found["config.json"]
                self._begin()
            self._signature = signature
            self._read_events()
            self._result = _read(self.path / "result.json") if found["result.json"] else {}
            self._facts, self._pace = self._read_logs()
            self._facts["updated"] = round(changed)
            evaluations = found["evaluations.bin"]
            self._is_evaluating = evaluations is not None and evaluations[1] > 100
            self._is_asking = found["asked.jsonl"] is not None
        summary = {**self._facts, **self._condition(now - changed)}
        if summary == self.summary:
            return False
        self.summary, self.version = summary, number
        return True

    def detail(self, cursor: str) -> dict[str, Any]:
        """Return what is shown of a run that was chosen, its curves since `cursor`."""
        series = self.curves()
        point = self._result.get("x", series.row)
        return {
            **series.since(cursor),
            "events": list(self._last_events),
            "point": _point(point, None if self._result else self._config.get("space")),
        }

    def curves(self) -> Series:
        """Return its curves, which are kept from now on."""
        if self.series is None:
            self.series = Series(self.path, self._wording)
        return self.series

    def _read_events(self) -> None:
        data = self._events.read()
        if self._events.began_anew:
            self._begin_events()
            data = self._events.read()
        for line in data.splitlines():
            event = json_object(line)
            name = _text(event.get("event"))
            if name in ("ended", "resumed"):
                self._ended = event if name == "ended" else None
            if name in _COUNTED:
                self._counts[_COUNTED[name]] += 1
            if event:
                self._last_events.append(_event(event))

    def _read_logs(self) -> tuple[dict[str, Any], float]:
        """Return what there is to say whatever the time of day, and how long its steps take at most."""
        lines = last_lines(self.path / "metrics.jsonl")
        last = json_object(lines[-1]) if lines else {}
        step, nfev, best = (finite(last.get(name)) for name in ("step", "nfev", "best"))
        times = [json_object(line) for line in last_lines(self.path / "timings.jsonl")[-_FEW:]]
        clock = [(finite(t.get("seconds")) or 0.0) + (finite(t.get("earlier")) or 0.0) for t in times]
        if times and step and nfev:
            # Either log may be ahead of the other: what waits in the memory of the run is not here yet.
            self._note_progress(clock[-1], nfev / step * (finite(times[-1].get("step")) or step))
        is_whole = bool(times) and times[0].get("step") == 1
        known = [0.0, *clock] if is_whole else clock
        pace = max((b - a for a, b in itertools.pairwise(known)), default=0.0)
        if self._result:
            nfev, best = (finite(self._result.get(name)) for name in ("nfev", "fun"))
        if best is not None and self._wording.sign < 0:
            best = 0.0 - best
        return {
            "name": self.name,
            "method": _text(self._config.get("method")),
            "objective": _text(self._subject),
            "dim": finite(self._config.get("dim")),
            "budget": finite(self._config.get("budget")),
            "started": _text(self._meta.get("started")),
            "executor": _text(self._meta.get("executor")),
            "workers": finite(self._meta.get("num_workers")),
            "step": step,
            "nfev": nfev,
            "best": best,
            "failed": finite(last.get("failed")),
            "violation": finite(last.get("violation")),
            "seconds": clock[-1] if clock else None,
            **self._counts,
            **_words(self._wording),
        }, pace

    def _note_progress(self, seconds: float, nfev: float) -> None:
        if self._progress and (seconds < self._progress[-1][0] or nfev < self._progress[-1][1]):
            self._progress.clear()  # another process went back to the checkpoint
        if not self._progress and not self._counts["resumed"]:
            self._progress.append((0.0, 0.0))
        if not self._progress or self._progress[-1][0] < seconds:
            self._progress.append((seconds, nfev))

    def _condition(self, quiet: float) -> dict[str, Any]:
        """Return the status of a run of which nothing was heard for so many seconds."""
        if self._problem:
            return {"status": "unreadable", "note": self._problem, "rate": None, "left": None}
        if self._ended or self._result:
            ended = self._ended or {}
            how = "finished" if self._result.get("success") and not ended else str(ended.get("status"))
            status = _STATUSES.get(how, "stopped")
            note = _text(ended.get("reason") or self._result.get("message"))
        elif self._is_asking and quiet > _QUIET:
            status, note = "waiting", "for values to be told"
        elif self._facts["step"] is None:
            status, note = "waiting", "in the first step" if self._is_evaluating else "for an evaluation"
        elif quiet > max(_QUIET, 4 * self._pace):
            status, note = "stopped", "no sign of life; if it was killed, zoo resume goes on with it"
        else:
            status, note = "running", ""
        rate = left = None
        if status == "running" and len(self._progress) > 1:
            (began, before), (now, nfev) = self._progress[0], self._progress[-1]
            rate = (nfev - before) / (now - began)
            if rate > 0 and self._facts["budget"] is not None and self._facts["nfev"] is not None:
                left = max(0.0, self._facts["budget"] - self._facts["nfev"]) / rate
        return {"status": status, "note": note, "rate": rate, "left": left}


def _status_of(path: Path) -> tuple[int, int, int] | None:
    """Return which file it is, its size and when it was written to; None if there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, empty if there is none or it is damaged."""
    with contextlib.suppress(OSError):
        return json_object(content(path))
    return {}


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration of a run, and what is wrong with it.

    The arrays that belong to it may be large and are not read.
    """
    try:
        config = json_object(content(path / "config.json"))
    except FileNotFoundError:
        return {}, "there is no config.json: it is no run directory, or half-deleted"
    except OSError as error:
        return {}, f"its config.json cannot be read: {error.strerror or error}"
    schema = config.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        return {}, f"written by a newer version of gradfree (its format is {schema}, this one reads {SCHEMA})"
    expected = config.pop("sha256", None)
    with contextlib.suppress(ValueError):
        if expected is not None and expected == checksum(config):
            return config, ""
    return {}, "damaged: its config.json does not have its checksum"


def _words(wording: Wording) -> dict[str, Any]:
    """Return what the page needs to know of a wording, nothing of the one that it assumes."""
    if wording == PLAIN:
        return {}
    return {
        "words": {
            "value": wording.value,
            "evaluations": wording.evaluations,
            "sign": wording.sign,
            "scores": sorted(wording.names.get(name, name) for name in wording.negated),
            "quiet": sorted(wording.quiet),
            **({"values": wording.values} if wording.values else {}),
            **({"lines": dict(wording.lines)} if wording.lines else {}),
        }
    }


def _event(event: dict[str, Any]) -> dict[str, str]:
    """Return an event as the page shows it."""
    rest = [f"{name}: {value}" for name, value in event.items() if name not in _NOT_SHOWN]
    return {
        "time": _text(event.get("time")),
        "event": _text(event.get("event")),
        "text": _text(", ".join(rest)),
    }


def _point(point: Any, space: Any) -> list[list[Any]]:
    """Return the variables of a point by name, at most `_MOST_VARIABLES`."""
    if space is not None and isinstance(point, list):
        try:
            point = Space.read(space).decode(np.array(point, float))
        except Exception:  # of a damaged log, or another version's space: rows can be shown as they are
            point = list(point)
    if isinstance(point, dict):
        named = list(point.items())
    elif isinstance(point, (list, tuple)):
        named = [(f"x[{index}]", value) for index, value in enumerate(point)]
    else:
        return []
    shown = [[_text(name), value.item() if isinstance(value, np.generic) else value] for name, value in named]
    return [
        [name, _text(value) if finite(value) is None else value] for name, value in shown[:_MOST_VARIABLES]
    ]


def _text(value: Any) -> str:
    """Return something to read, not too long."""
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
