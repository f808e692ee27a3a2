"""What all loggers share: who a run is to its tool, and its steps from memory or from its directory."""

from __future__ import annotations

import abc
import contextlib
import datetime
import hashlib
import importlib
import itertools
import json
import math
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from zoo.core.space import Space
from zoo.run.directory import plain, read_config
from zoo.run.job import MOST_LOGGED
from zoo.run.kinds import Wording, wording_of
from zoo.run.loop import Run
from zoo.run.timings import read_timings
from zoo.run.watching import Beginning, Watcher

Line = Mapping[str, Any]
"""A step as a line of `metrics.jsonl` has it, in its run's wording: numbers, text, lists; None for what is
not finite."""


class Subject(NamedTuple):
    """What is logged.

    Attributes:
        id: What tells this run from every other one, the same in every process that goes on with it; a
            directory that was removed and made anew holds another run.
        name: What to call it.
        config: What it is, without nesting: strings and finite numbers by dotted names.
        coordinates: What to call the variables, where there are few enough to be logged.
        space: What the points are of, or None.
        wording: How numbers are shown: under which name evaluations are counted, among others.
    """

    id: str
    name: str
    config: dict[str, str | float]
    coordinates: list[str]
    space: Space | None
    wording: Wording


class Outcome(NamedTuple):
    """How a run ended: its numbers, and whether it came to an end of its own."""

    numbers: dict[str, float]
    is_complete: bool


class Logger(Watcher, abc.ABC):
    """Passes on what a run logs.

    A run that goes on is told to the tool as if it had never been stopped: `open` says how many steps are
    there already, and what is missing comes from `metrics.jsonl`, which the run has cut back to where it
    goes on. Override `open`, `write` and `close`.

    Args:
        path: Where to write.
        name: What to call the run; by default as its directory is called, else by the time.
    """

    def __init__(self, path: Any, name: str | None = None) -> None:
        self.path, self._name = Path(path), name
        self._steps_there = 0
        self._subject: Subject

    @abc.abstractmethod
    def open(self, subject: Subject) -> int:
        """Get ready, and return the number of the last step that need not be written again."""

    @abc.abstractmethod
    def write(self, line: Line, when: float) -> None:
        """Write a step down; `when` it was done, in seconds since 1970."""

    @abc.abstractmethod
    def close(self, outcome: Outcome | None) -> None:
        """Write the end down, None if nothing is known of it, and let go of everything."""

    def begin(self, run: Beginning) -> None:
        self._open(run.path, run.config)
        # Without a directory no run goes on; and what is in one that begins is from a try before it.
        if run.path is not None and run.state.step:
            self._catch_up(run.path, run.state.step)

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        self._write(plain(metrics), time.time())

    def end(self, outcome: Run[Any] | None) -> None:
        if outcome is None:
            return self.close(None)
        state = outcome.state
        numbers = {
            "fun": state.fun_best if state.x is None else state.fun,
            "nfev": state.nfev + state.num_final,
            "nit": state.step,
        }
        shown = _finite(self._subject.wording.shown(plain(numbers)))
        self.close(Outcome(shown, outcome.status not in ("interrupted", "failed")))

    def replay(self, path: Path) -> None:
        """Write down a run that is in a directory, as if it had been watched.

        Raises:
            RunDirectoryError: There is no run, it is damaged, or of a newer version.
        """
        config, _ = read_config(path)
        result: dict[str, Any] | None = None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            result = json.loads((path / "result.json").read_text())
        outcome = None
        self._open(path, config)
        try:
            self._catch_up(path, None)
            if result is not None:
                numbers = {name: result.get(name) for name in ("fun", "nfev", "nit")}
                shown = _finite(self._subject.wording.shown(numbers))
                outcome = Outcome(shown, result.get("status") in range(4))
        finally:
            self.close(outcome)

    def point(self, row: Any) -> dict[str, Any]:
        """Return a point by the names of its coordinates: numbers, and choices of a space as they are."""
        space = self._subject.space
        values = row if space is None else space.values(np.array(row, float)[None])[0]
        return dict(zip(self._subject.coordinates, plain(list(values)), strict=True))

    def numbers(self, line: Line) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Return the numbers of a line but that of evaluations, those of its point, and its arrays, flat."""
        found = {
            name: value for name, value in line.items() if name not in (self._subject.wording.counter, "x")
        }
        if "x" in line:
            found |= self.point(line["x"])
        arrays = {name: _flat(value) for name, value in found.items() if isinstance(value, list)}
        return _finite(found), {name: values for name, values in arrays.items() if values}

    def _open(self, path: Path | None, config: Mapping[str, Any]) -> None:
        name = self._name or (path.resolve().name if path else time.strftime("%Y%m%d-%H%M%S", time.gmtime()))
        name = name.encode(errors="replace").decode()  # a path may hold bytes that are no text
        space = None if config.get("space") is None else Space.read(config["space"])
        names: Iterable[Any] = range(dim if (dim := config["dim"]) <= MOST_LOGGED else 0)
        if space is not None and names:
            names = space.names or range(len(space.variables))
        coordinates = [f"x.{name}" for name in names]
        self._subject = Subject(
            identity(path), name, dict(_flattened(config)), coordinates, space, wording_of(config)
        )
        self._steps_there = self.open(self._subject)

    def _catch_up(self, path: Path, steps: int | None) -> None:
        for line, when in recorded(path, steps):
            self._write(line, when)

    def _write(self, line: Line, when: float) -> None:
        # What is there already came from a process that got further before it was killed: it is the same.
        if line["step"] > self._steps_there:
            self.write(self._subject.wording.shown(line), when)


def required(module: str, extra: str) -> ModuleType:
    """Return a module of a tool, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"logging to {extra} needs a package that is not installed ({error.name}): "
            f'pip install "gradfree[{extra}]"'
        ) from error


def identity(path: Path | None) -> str:
    """Return what tells the run in a directory from every other one; a new name where there is none."""
    if path is None:
        return secrets.token_hex(8)
    digest = hashlib.sha256()
    for name in ("config.json", "start.safetensors", "meta.json"):
        with contextlib.suppress(FileNotFoundError):
            digest.update((path / name).read_bytes())
    return digest.hexdigest()[:16]


def recorded(path: Path, steps: int | None) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the lines of `metrics.jsonl`, so many at most, and when they were written as far as is known."""
    clock = _times(path)
    with contextlib.suppress(FileNotFoundError), open(path / "metrics.jsonl", "rb") as file:
        for text in itertools.islice(file, steps):
            when = next(clock)
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if text.endswith(b"\n") and isinstance(line, dict) and {"step", "nfev"} <= set(line):
                    yield line, when


def _times(path: Path) -> Iterator[float]:
    """Yield when each step was done, as if the run had never been stopped; without end."""
    start, now = time.time(), 0.0
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        started = json.loads((path / "meta.json").read_text())["started"]
        start = datetime.datetime.fromisoformat(started).timestamp()
    with contextlib.suppress(OSError):
        for rows in read_timings(path / "timings.jsonl"):
            for done in (rows[:, 1] + rows[:, 2]).tolist():
                now = now if math.isnan(done) else done
                yield start + now
    while True:
        yield start + now


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | float]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and list(value) == ["dict"]:  # as a state's own dictionaries are kept
            value = value["dict"]
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        elif isinstance(value, (str, bool, int, float)):
            yield prefix + name, value
        elif value is not None:
            yield prefix + name, json.dumps(plain(value))


def _finite(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if isinstance(value, (bool, int, float))}


def _flat(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for item in value for number in _flat(item)]
    return [value] if isinstance(value, (bool, int, float)) else []
