"""What a run directory says about a run, for reports and pages; nothing in it is changed or locked."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.core.errors import RunDirectoryError
from zoo.core.space import Space
from zoo.run.directory import read_config, read_events
from zoo.run.timings import read_timings, whole_lines
from zoo.run.watching import OWN_METRICS

_MOST_POINTS = 300
_HAS_POINT = re.compile(rb'"x": \[')
_NUMBER = (int, float, type(None))
# What entries are, so that whoever reads on need not ask; those that are something else are left out.
_RESULT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("fun", "fun_best", "fun_error", "maxcv", "seconds"), _NUMBER),
    **dict.fromkeys(("nfev", "nit", "num_failed", "status", "success"), int),
    **dict.fromkeys(("message", "method"), str),
    **dict.fromkeys(("x", "x_best"), (list, dict)),
    **dict.fromkeys(("account", "front", "minima"), dict),
    "constr": list,
}
_META: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("started", "python", "platform", "processor", "executor"), str),
    "gpu": (str, type(None)),
    "num_workers": int,
    "argv": list,
    "versions": dict,
}


class Improvement(NamedTuple):
    """A point that was the best one when it was found; `x` is a row, shape (dim,)."""

    step: int
    nfev: int
    fun: float
    x: np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Recording:
    """A run as its directory tells it, thinned where there are very many steps.

    Attributes:
        path: The directory.
        config: `config.json`: what the run is.
        start: Arrays that belong to it: "x0", "scale", and others.
        meta: `meta.json`: where it was started, by what; empty where it is missing.
        result: `result.json`, or None as long as there is none.
        events: Lines of `events.jsonl`.
        num_steps: Steps done, of which those below are a selection in their order.
        columns: A number for each of them by name, NaN where there is none: "step", "nfev", "best", "value",
            "median", "failed", and the method's diagnostics.
        arrays: Diagnostics that are arrays, one for each of these steps, None where there is none.
        seconds: When each of them was done, in seconds of work, without the time between a stop and a resume.
        worked: How many seconds each process in turn spent on the steps that are left of it.
        points: Points that were the best one for a while, at most some hundred, the last ones among them.
    """

    path: Path
    config: dict[str, Any]
    start: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]
    result: dict[str, Any] | None
    events: list[dict[str, Any]]
    num_steps: int
    columns: dict[str, np.ndarray[Any, Any]]
    arrays: dict[str, list[np.ndarray[Any, Any] | None]]
    seconds: np.ndarray[Any, Any]
    worked: list[float]
    points: list[Improvement]

    @property
    def space(self) -> Space | None:
        """The space its points are of, or None where rows are points."""
        return None if self.config.get("space") is None else Space.read(self.config["space"])

    @property
    def diagnostics(self) -> dict[str, np.ndarray[Any, Any]]:
        """The columns that are the method's own."""
        return {name: column for name, column in self.columns.items() if name not in OWN_METRICS}

    def last(self, name: str) -> float:
        """Return the last entry of a column, NaN where there is none."""
        column = self.columns.get(name)
        return float("nan") if column is None or not len(column) else float(column[-1])


def read_recording(path: Path, most: int = 4000) -> Recording:
    """Read a run that may be under way in another process.

    Args:
        path: Its directory.
        most: How many steps to pick, evenly, where there are more.

    Raises:
        RunDirectoryError: There is no run, it is damaged, or of a newer version.
    """
    with _reading(path):
        return _read(path, most)


def _read(path: Path, most: int) -> Recording:
    config, start = read_config(path)
    log = path / "metrics.jsonl"
    ends, with_point = _lines(log)
    picked = _evenly(len(ends), most)
    improved = np.union1d(with_point[_evenly(len(with_point), _MOST_POINTS)], with_point[-_MOST_POINTS:])
    wanted = np.union1d(picked, improved)
    steps: list[dict[str, Any]] = []
    points = []
    for chosen, entry in zip(np.isin(wanted, picked), _entries(log, ends, wanted), strict=True):
        if entry is None:
            continue
        if (point := _array(entry.get("x"))) is not None and len(point) == config.get("dim"):
            points.append(Improvement(entry["step"], entry["nfev"], _number(entry.get("best")), point))
        if chosen:
            steps.append(entry)
    columns, arrays = _columns(steps)
    at, seconds, worked = _timings(path / "timings.jsonl")
    return Recording(
        path,
        config,
        start,
        _json(path / "meta.json", _META) or {},
        _json(path / "result.json", _RESULT),
        read_events(path),
        len(ends),
        columns,
        arrays,
        _looked_up(columns.get("step", np.empty(0)), at, seconds),
        worked,
        points,
    )


def _lines(log: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return where each whole line ends, and the numbers of those that hold a point."""
    ends, marks, position = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for whole in whole_lines(log):
        ends.append(np.flatnonzero(np.frombuffer(whole, np.uint8) == 10) + position + 1)
        marks.append(np.array([m.start() + position for m in _HAS_POINT.finditer(whole)], np.int64))
        position += len(whole)
    found = np.concatenate(ends)
    return found, np.searchsorted(found, np.concatenate(marks), side="right")


def _entries(
    log: Path, ends: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]
) -> Iterator[dict[str, Any] | None]:
    """Yield the lines of these numbers, None for one that is damaged."""
    if not len(wanted):
        return
    with open(log, "rb") as file:
        for index in wanted:
            start = int(ends[index - 1]) if index else 0
            entry = None
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(os.pread(file.fileno(), int(ends[index]) - start, start))
            yield entry if isinstance(entry, dict) and _is_step(entry) else None


def _is_step(entry: dict[str, Any]) -> bool:
    return all(type(entry.get(name)) is int and 0 <= entry[name] < 2**63 for name in ("step", "nfev"))


def _columns(
    steps: list[dict[str, Any]],
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, list[np.ndarray[Any, Any] | None]]]:
    columns: dict[str, np.ndarray[Any, Any]] = {}
    arrays: dict[str, list[np.ndarray[Any, Any] | None]] = {}
    for name in dict.fromkeys(name for entry in steps for name in entry if name != "x"):
        found = [entry.get(name) for entry in steps]
        if any(isinstance(value, list) for value in found):
            arrays[name] = [_array(value) for value in found]
        elif any(isinstance(value, (bool, int, float)) for value in found) or all(
            value is None for value in found
        ):
            columns[name] = np.array([_number(value) for value in found])
    return columns, arrays


def _timings(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[float]]:
    """Return the steps of a log, how long the run had worked by then, and how long each of its processes."""
    rows = np.concatenate([np.empty((0, 3)), *read_timings(path)])
    at, clock, earlier = rows[np.isfinite(rows).all(1)].T
    last = np.append(np.flatnonzero(np.diff(earlier)), np.arange(len(at))[-1:])
    return at, earlier + clock, clock[last].tolist()


def _looked_up(
    steps: np.ndarray[Any, Any], at: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return when steps were done, NaN where the log does not say."""
    if not len(at):
        return np.full(len(steps), np.nan)
    index = np.minimum(np.searchsorted(at, steps), len(at) - 1)
    return np.where(at[index] == steps, seconds[index], np.nan)


def _evenly(count: int, most: int) -> np.ndarray[Any, Any]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _number(value: Any) -> float:
    """Return a number of a log, NaN for what is none."""
    with contextlib.suppress(OverflowError):
        return float(value) if isinstance(value, (bool, int, float)) else float("nan")
    return float("inf") if value > 0 else -float("inf")


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """Return the numbers of an array, or None if it is none."""
    if not isinstance(value, list):
        return None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return np.array(value, float)
    with contextlib.suppress(ValueError):  # rows of different lengths
        return np.array([_number(item) for item in np.ravel(np.array(value, object))])
    return None


def _json(path: Path, kinds: dict[str, type | tuple[type, ...]]) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, RecursionError):
        content = dict(json.loads(path.read_text()))
        return {name: v for name, v in content.items() if isinstance(v, kinds.get(name, object))}
    return None


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which run it is whose files cannot be read, and why.

    Raises:
        RunDirectoryError: Instead of any `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}.") from error
