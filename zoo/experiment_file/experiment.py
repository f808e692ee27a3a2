"""An experiment file that was found to be right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from zoo.arguments import as_region
from zoo.experiment_file import lines, values
from zoo.experiment_file.checks import Checks
from zoo.experiment_file.imports import make_importable
from zoo.experiment_file.problems import ExperimentFileError, Problem
from zoo.experiment_file.reading import Document, read_document
from zoo.experiment_file.sentences import sentences
from zoo.experiment_file.tables import Tables
from zoo.registry import find


@dataclass(frozen=True)
class ExperimentFile:
    """What an experiment file says.

    Attributes:
        path: The file.
        tables: Its tables, those of included files and overrides among them.
        folders: Where its modules are looked for first.
    """

    path: Path
    tables: Tables
    folders: tuple[Path, ...]

    @property
    def out(self) -> str:
        """The directory of the run."""
        return self.tables.job.out or os.path.join("runs", self.path.stem)

    @property
    def log(self) -> tuple[str, ...]:
        """Names of the loggers."""
        return tuple(self.tables.job.log)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `zoo.minimize`."""
        job, objective, method, execution, stop = (
            self.tables.job,
            self.tables.objective,
            self.tables.method,
            self.tables.execution,
            self.tables.stop,
        )
        return {
            "fun": objective.function or objective.command,
            **values.region(objective, values.space(objective)),
            "method": method.name,
            "constraints": list(objective.constraints),
            "budget": stop.budget,
            "target": stop.target,
            "seconds": stop.seconds,
            "rng": job.seed,
            "noise": job.noise,
            "vectorized": objective.vectorized,
            "workers": values.executor(execution),
            "on_error": execution.on_error,
            "out": self.out,
            "options": dict(method.options),
        }

    def resolved(self) -> dict[str, Any]:
        """Return all tables with the defaults filled in, as another experiment file could say them.

        What has no value is left out: TOML has no word for that.
        """
        said = self.tables
        space = values.space(said.objective)
        region = as_region(**values.region(said.objective, space))
        found = said.model_dump(exclude_none=True)
        found["job"]["out"] = self.out
        found["objective"]["path"] = [str(folder) for folder in self.folders]
        found["method"]["name"] = find(
            said.method.name, mixed=space is not None and space.grid is not None
        ).name
        found["execution"]["backend"] = values.backend(said.execution)
        if said.stop.budget is None and said.stop.seconds is None:
            found["stop"]["budget"] = 1000 * len(region["start"] if space is None else space)
        return found

    def toml(self) -> str:
        """Return what `resolved` does as a text: an experiment file of the same experiment."""
        return tomlkit.dumps(self.resolved())


def read_experiment(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ExperimentFile:
    """Read an experiment file, and find out whether it can be run.

    The folder of the file, and those of the files it includes, are put in front of `sys.path`, and the
    modules that it names are imported.

    Args:
        path: The file.
        overrides: What is to be taken for said at its end, as in "stop.budget=500" or "method.name=cma".
            Values are TOML, or else text.

    Raises:
        ExperimentFileError: Something is wrong with it: all that is found is said at once.
    """
    document = read_document(path, overrides)
    try:
        tables, wrong = Tables.model_validate(document.data), []
    except ValidationError as error:
        wrong = list(sentences(error))
        tables = _without(document, wrong)
    folders = _folders(document, tables)
    make_importable(folders)
    wrong += Checks(tables, folders, [where for where, _ in wrong]).problems
    if wrong:
        raise ExperimentFileError(
            sorted((Problem(document.place(where), message) for where, message in wrong), key=_order)
        )
    return ExperimentFile(Path(path), tables, tuple(folders))


def _without(document: Document, wrong: Sequence[tuple[lines.Path, str]]) -> Tables:
    """Return the tables with nothing in them of what is wrong, so that the rest can be looked at."""
    data = document.data
    for path, _ in wrong:
        # Of an array that has a wrong element nothing is left, and of a variable that lacks a key.
        depth = 3 if path[:2] == ("objective", "space") else 2
        data = _dropped(data, path[:depth])
    return Tables.model_validate(data)


def _dropped(data: dict[str, Any], path: lines.Path) -> dict[str, Any]:
    key, *rest = path
    if key not in data:
        return data
    if not rest or not isinstance(data[str(key)], dict):
        return {name: value for name, value in data.items() if name != key}
    return {**data, str(key): _dropped(data[str(key)], tuple(rest))}


def _folders(document: Document, tables: Tables) -> list[Path]:
    """Return where modules are looked for: where `path` says, and beside the files."""
    said = []
    for number, name in enumerate(tables.objective.path or ()):
        source = Path(document.place(("objective", "path", number)).source)
        base = source.resolve().parent if source.exists() else Path.cwd()
        said.append((base / name).resolve())
    return list(dict.fromkeys([*said, *document.folders]))


def _order(problem: Problem) -> tuple[bool, int]:
    return problem.place.line is None, problem.place.line or 0
