"""Kinds of runs that other packages add, and what commands ask of them.

`config.json` and `[job]` in an experiment file say of which kind a run is. Those of other packages are found
through the entry point group `gradfree.kinds`: a name, and "module:attribute" of a `Kind`.
"""

from __future__ import annotations

import abc
import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.errors import RunDirectoryError
from zoo.run.watching import Watcher

if TYPE_CHECKING:  # numpy with it, which a help page is not to wait for
    from zoo.run.reading import Recording

GROUP = "gradfree.kinds"


class Written(abc.ABC):
    """What an experiment file says, once it was found to be right.

    Attributes:
        kind: Of which kind it is; None for one of this package.
    """

    kind: Kind | None = None

    @property
    @abc.abstractmethod
    def out(self) -> str:
        """The directory of the run."""

    @property
    @abc.abstractmethod
    def log(self) -> Sequence[str]:
        """Names of the loggers."""

    @abc.abstractmethod
    def toml(self) -> str:
        """Return all of it with its defaults, as the text of an experiment file."""

    @abc.abstractmethod
    def run(self, callback: Sequence[Watcher]) -> Any:
        """Run it, and return the result."""


@dataclass(frozen=True)
class Wording:
    """How numbers of a run are shown. Its directory holds values that are minimised, whatever they stand for.

    Attributes:
        value: What a value is called.
        evaluations: What evaluations are called.
        sign: -1 where what is shown is minus the value, so that higher is better; else 1.
        names: Names under which entries of `metrics.jsonl` and `result.json` are shown elsewhere, where they
            are others.
        negated: Entries that are shown with their sign turned, by their names in these files.
        values: What values are called, where that is not `value` with an s.
        lines: Entries that `zoo serve` draws beside the best value of a run, and what it calls them there;
            where there are none, the median and the lowest value of a step.
        quiet: Entries that it does not draw as long as they are 0.

    Example:
        >>> words = Wording(names={"value": "highest"}, negated=frozenset({"value"}))
        >>> words.shown({"step": 1, "value": -3.0, "median": None})
        {'step': 1, 'highest': 3.0, 'median': None}
    """

    value: str = "value"
    evaluations: str = "evaluations"
    sign: int = 1
    names: Mapping[str, str] = field(default_factory=dict)
    negated: frozenset[str] = frozenset()
    values: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)
    quiet: frozenset[str] = frozenset()

    @property
    def better(self) -> str:
        """What a better value is."""
        return "higher" if self.sign < 0 else "lower"

    @property
    def counter(self) -> str:
        """The name under which "nfev" is shown."""
        return self.names.get("nfev", "nfev")

    def shown(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return entries as they are to be shown."""
        return {
            self.names.get(name, name): 0.0 - value
            if name in self.negated and isinstance(value, (int, float))
            else value
            for name, value in line.items()
        }


PLAIN = Wording()
"""That of the runs of this package."""


class Kind(abc.ABC):
    """A kind of run.

    Attributes:
        wording: How its numbers are shown.
    """

    wording: Wording = PLAIN

    @abc.abstractmethod
    def title(self, config: Mapping[str, Any]) -> str:
        """Return what a run was about, for people; `config` is `config.json`."""

    def subject(self, config: Mapping[str, Any]) -> str:
        """Return what is minimised, in a word or two."""
        objective = config.get("objective")
        return str(objective.get("name")) if isinstance(objective, Mapping) else ""

    @abc.abstractmethod
    def task(self, config: Mapping[str, Any]) -> Any:
        """Return what tells that from another one, as JSON has it: only runs of one task are compared."""

    @abc.abstractmethod
    def options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what was set beside method and task; runs that differ in it are groups of their own."""

    def entries(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what `result.json` holds under the names that commands have for it."""
        return found

    @abc.abstractmethod
    def target(self, config: Mapping[str, Any]) -> float | None:
        """Return the value, of those that are minimised, at which a run is to end, or None."""

    @abc.abstractmethod
    def read(self, document: Any, path: Path) -> Written:
        """Return what an experiment file says.

        Args:
            document: A `zoo.experiment_file.reading.Document`.
            path: The file.

        Raises:
            ExperimentFileError: Something is wrong with it.
        """

    @abc.abstractmethod
    def resume(self, path: Path, *, workers: Any, seconds: float | None, callback: Any) -> Any:
        """Go on with a run and return its result; arguments are as in `zoo.resume`."""

    @abc.abstractmethod
    def progress(self, mode: str) -> Watcher:
        """Return what shows on standard error how a run goes; modes are those of `zoo.Progress`."""

    @abc.abstractmethod
    def print_result(self, result: Any, *, as_json: bool, out: Path | str | None, shown: bool) -> None:
        """Print a result; arguments are as in `zoo.cli.results.print_result`."""

    @abc.abstractmethod
    def about(self, recording: Recording) -> Any:
        """Return what there is to say of a run, a `zoo.report.about.About`."""

    @abc.abstractmethod
    def sections(self, recording: Recording) -> Sequence[tuple[str, Sequence[Any], str]]:
        """Return the sections of a report: a heading, pictures, and a sentence or nothing."""


def names() -> list[str]:
    """Return the names of the kinds that other packages add."""
    return sorted(_entries())


def find(name: object) -> Kind | None:
    """Return a kind that another package adds, None where none has this name.

    Raises:
        RunDirectoryError: It is there, and cannot be loaded.
    """
    entry = _entries().get(name) if isinstance(name, str) else None
    if entry is None:
        return None
    try:
        kind = entry.load()
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise RunDirectoryError(
            f"runs of the kind {name!r} cannot be read: {entry.value} raised {type(error).__name__}: "
            f"{lines[0]}"
        ) from error
    if not isinstance(kind, Kind):
        raise RunDirectoryError(f"runs of the kind {name!r} cannot be read: {entry.value} is no `Kind`.")
    return kind


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """Return the kind of a run that another package added, None for one of this package.

    Raises:
        RunDirectoryError: It is there, and cannot be loaded.
    """
    return find(config.get("kind"))


def wording_of(config: Mapping[str, Any]) -> Wording:
    """Return how the numbers of a run are shown.

    Raises:
        RunDirectoryError: Its kind cannot be loaded.
    """
    kind = kind_of(config)
    return PLAIN if kind is None else kind.wording


@functools.cache
def _entries() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
