"""Runs to be compared: where they are, how far each came when, and which of them belong together."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zoo.core.errors import CheckpointError, RunDirectoryError, ZooWarning
from zoo.core.validation import check_choice
from zoo.registry import list_methods
from zoo.report.about import objective_name, plain_options
from zoo.run.kinds import PLAIN, Kind, Wording, kind_of
from zoo.run.reading import Recording, read_recording

Array = np.ndarray[Any, Any]
T = TypeVar("T")

_STEPS = 2000  # of a run that are read
# Methods that do the same whatever their key is, unless they are told to begin again somewhere else.
_WITHOUT_DRAWS = {"bfgs", "cobyqa", "direct", "l-bfgs-b", "lbfgs", "nelder-mead", "powell"}


@dataclass(frozen=True, eq=False)
class Entry:
    """A run as far as it is compared with others.

    Attributes:
        path: Its directory.
        config: What it is.
        workers: How many evaluated it.
        evaluations: Numbers of evaluations, ascending.
        best: The lowest value by then; inf where there was none, or none that is allowed.
        seconds: Seconds of work by then.
        final: The value it ended with: by fresh evaluations where the function is random.
        has_ended: Whether its end is on record.
        start: Arrays that belong to what it is: "x0", "scale", "lower", "upper", and others.
        kind: Of which kind it is; None for one of this package.
    """

    path: Path
    config: Mapping[str, Any]
    workers: int
    evaluations: Array
    best: Array
    seconds: Array
    final: float
    has_ended: bool
    start: Mapping[str, Array]
    kind: Kind | None = None

    @property
    def wording(self) -> Wording:
        """How its numbers are shown; those here are values that are minimised."""
        return PLAIN if self.kind is None else self.kind.wording

    @property
    def options(self) -> dict[str, Any]:
        """The method's options, and what else was set."""
        return {**plain_options(self.config), **({} if self.kind is None else self.kind.options(self.config))}

    @property
    def length(self) -> int:
        """How many evaluations it made."""
        return int(self.evaluations[-1]) if len(self.evaluations) else 0

    @property
    def target(self) -> float | None:
        """The value at which it was to end, or None."""
        return self.config.get("target") if self.kind is None else self.kind.target(self.config)

    @property
    def score(self) -> float:
        """The value it ended with; the target for all that reached theirs, since they did not go on."""
        return self.final if self.target is None else max(self.final, self.target)

    @property
    def objective(self) -> str:
        """What tells its objective from another one."""
        if self.kind is not None:
            return json.dumps([self.config.get("kind"), self.kind.task(self.config)], sort_keys=True)
        identity = dict(self.config.get("objective") or {})
        identity.pop("attributes", None)
        return json.dumps([identity, self.config.get("dim"), self.config.get("noise")], sort_keys=True)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells it from runs that are evidence of their own, however far those went."""
        names = ("method", "options", "key")
        arrays = [(name, str(array.dtype), array.tobytes()) for name, array in sorted(self.start.items())]
        settings = json.dumps([self.config.get(name) for name in names], sort_keys=True)
        return (self.objective, settings, json.dumps(self.options, sort_keys=True), *arrays)

    @property
    def draws(self) -> bool:
        """Whether its method is known to draw random numbers."""
        if self.kind is not None:
            return True
        method, options = self.config.get("method"), plain_options(self.config)
        if method == "coordinate-descent":
            return options.get("num_directions") is not None and options.get("order") != "cyclic"
        if method == "hizoo" and options.get("directions", "axes") == "axes":
            return options.get("num_directions") is not None
        known = list_methods().get(str(method))
        is_ours = known is not None and known.target.startswith("zoo.")
        return is_ours and (method not in _WITHOUT_DRAWS or bool(options.get("restarts")))

    @property
    def title(self) -> str:
        """What its objective is called."""
        if self.kind is not None:
            return self.kind.title(self.config)
        dim = self.config.get("dim")
        return f"{objective_name(self.config)}, {dim} variable{'s' if dim != 1 else ''}"


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seeds alone, or in what is not asked about."""

    name: str
    entries: list[Entry]

    @property
    def finals(self) -> Array:
        """The values that they ended with."""
        return np.array([entry.final for entry in self.entries])

    @property
    def is_noisy(self) -> bool:
        """Whether equal points have different values."""
        return any(entry.config.get("noise") for entry in self.entries)

    @property
    def independent(self) -> Array:
        """What is tested: a score for each run, but for those that only repeat another one.

        They do so with the same key, and by a method that draws nothing where all else is the same, too.
        Equal values alone are no proof: random points may well have them.
        """
        longest = {entry.identity: entry for entry in sorted(self.entries, key=lambda entry: entry.length)}
        told = {
            entry.identity
            if entry.draws
            else (entry.evaluations.tobytes(), entry.best.tobytes()): entry.score
            for entry in longest.values()
        }
        return np.array(sorted(told.values()))


@dataclass(frozen=True, eq=False)
class Section:
    """What is compared with each other: groups of runs with one objective."""

    title: str
    groups: list[Group]

    @property
    def entries(self) -> list[Entry]:
        """All runs in it."""
        return [entry for group in self.groups for entry in group.entries]

    @property
    def wording(self) -> Wording:
        """How numbers of its runs are shown, the same of all of them."""
        return self.entries[0].wording

    @property
    def is_noisy(self) -> bool:
        """Whether equal points have different values."""
        return any(group.is_noisy for group in self.groups)


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Return the run directories among paths, and below them.

    Raises:
        RunDirectoryError: There is none at or below one of the paths.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunDirectoryError(f"there is no directory {path}.")
        before = len(found)
        known = 0
        for folder, inside, files in os.walk(path):
            inside.sort()
            if "config.json" in files:
                known += 1
                found.setdefault(Path(folder).resolve(), Path(folder))
                inside.clear()
        if len(found) == before and not known:
            raise RunDirectoryError(
                f"there is no run in {path}: neither it nor a directory below it has a config.json. Give the "
                "directories that `out` (--out) named, or one above them."
            )
    return list(found.values())


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read runs; one that cannot be read is warned of and left out.

    Raises:
        RunDirectoryError: None can be read.
    """
    return read_all(paths, entry_of)


def read_all(paths: Sequence[Path], make: Callable[[Recording], T]) -> list[T]:
    """Return what `make` makes of each run; one that cannot be read is warned of and left out.

    Raises:
        RunDirectoryError: None can be read.
    """
    made, problems = [], []
    for path in paths:
        try:
            made.append(make(read_recording(path, _STEPS)))
        except (RunDirectoryError, CheckpointError) as error:
            problems.append(str(error))
    if not made:
        raise RunDirectoryError(problems[0] if problems else "there is no run to compare.")
    for problem in problems:
        warnings.warn(f"left out: {problem}", ZooWarning, stacklevel=4)
    return made


def entry_of(recording: Recording) -> Entry:
    """Return what of a run is compared."""
    columns, result = recording.columns, recording.result or {}
    nothing = np.full(len(recording.seconds), np.nan)
    x, seconds = columns.get("nfev", nothing), recording.seconds
    best = columns.get("best", nothing)
    if "violation" in columns:
        best = np.where(columns["violation"] <= 0, best, np.nan)
    elif recording.points:  # exact, where the steps are a selection
        at = np.array([point.nfev for point in recording.points], float)
        best = np.concatenate([best, [point.fun for point in recording.points]])
        seconds = np.concatenate([seconds, np.interp(at, x, seconds) if len(x) else np.full(len(at), np.nan)])
        x = np.concatenate([x, at])
    noisy, allowed = recording.config.get("noise"), not (result.get("maxcv") or 0) > 0
    fun = result.get("fun")
    if fun is not None and allowed and not noisy:
        x = np.append(x, result.get("nfev", 0))
        best, seconds = np.append(best, fun), np.append(seconds, sum(recording.worked))
    order = np.argsort(x, kind="stable")
    best = np.minimum.accumulate(np.where(np.isfinite(best), best, np.inf)[order])
    final = (
        float(fun) if fun is not None and allowed else float(best[-1]) if len(best) and not noisy else np.inf
    )
    kind = kind_of(recording.config)
    if noisy and fun is None and len(best):
        final = recording.last("median" if kind is None else "best")
    return Entry(
        recording.path,
        recording.config,
        int(recording.meta.get("num_workers") or 1),
        x[order],
        best,
        seconds[order],
        final if np.isfinite(final) else np.inf,
        recording.result is not None,
        recording.start,
        kind,
    )


def sections_of(entries: Sequence[Entry], by: str = "options") -> list[Section]:
    """Return runs in groups, and those in sections of one objective each.

    Args:
        entries: The runs.
        by: What groups differ in: one of `WAYS`.

    Raises:
        ValueError: There is no such way.
    """
    name = WAYS[check_choice("by", by, WAYS)](entries)
    parts: dict[str, dict[str, list[Entry]]] = {}
    titles: dict[str, str] = {}
    for entry in entries:
        # What is minimised in one kind of run is no value of another.
        part = str(entry.config.get("kind")) if by == "objective" else entry.objective
        titles.setdefault(part, "All objectives" if by == "objective" else entry.title)
        parts.setdefault(part, {}).setdefault(name(entry), []).append(entry)
    sections, taken = [], set[str]()
    for part, groups in parts.items():
        title, number = titles[part], 2
        while title in taken:
            title, number = f"{titles[part]} ({number})", number + 1
        taken.add(title)
        sections.append(
            Section(title, [Group(name, groups[name]) for name in sorted(groups, key=_as_people_sort)])
        )
    return sections


def _as_people_sort(name: str) -> list[tuple[float, str]]:
    """Return what puts 2 before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if index % 2 else (-1.0, part) for index, part in enumerate(parts)]


def _by_options(entries: Sequence[Entry]) -> Callable[[Entry], str]:
    """Name the method, and those of its options that are not the same in all its runs."""
    seen: dict[str, dict[str, set[str]]] = {}
    for entry in entries:
        for option, value in entry.options.items():
            seen.setdefault(str(entry.config.get("method")), {}).setdefault(option, set()).add(_short(value))
    counts: dict[str, int] = {}
    given: dict[tuple[str, str], int] = {}
    for entry in entries:
        method = str(entry.config.get("method"))
        counts[method] = counts.get(method, 0) + 1
        for option in entry.options:
            given[method, option] = given.get((method, option), 0) + 1

    def name(entry: Entry) -> str:
        method = str(entry.config.get("method"))
        options = entry.options
        told = [
            f"{option}={_short(options[option])}"
            for option, values in sorted(seen.get(method, {}).items())
            if option in options and (len(values) > 1 or given[method, option] < counts[method])
        ]
        return f"{method} ({', '.join(told)})" if told else method

    return name


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _by_entry(name: str) -> Callable[[Sequence[Entry]], Callable[[Entry], str]]:
    return lambda _: lambda entry: f"{name} {entry.config.get(name)}"


WAYS: dict[str, Callable[[Sequence[Entry]], Callable[[Entry], str]]] = {
    "options": _by_options,
    "method": lambda _: lambda entry: str(entry.config.get("method")),
    "objective": lambda _: lambda entry: entry.title,
    "folder": lambda _: lambda entry: entry.path.resolve().parent.name,
    "budget": _by_entry("budget"),
    "workers": lambda _: lambda entry: f"{entry.workers} worker{'s' if entry.workers != 1 else ''}",
}
"""What groups may differ in: method and options, or one of these alone."""
