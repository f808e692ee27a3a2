"""An experiment file that was found to be right."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tomlkit
import tomlkit.items
from pydantic import ValidationError

from zoo.arguments import as_executor
from zoo.core.objective import as_objective
from zoo.experiment import Experiment, experiment_of
from zoo.experiment_file import lines, values
from zoo.experiment_file.checks import Checks, finding_of
from zoo.experiment_file.imports import make_importable
from zoo.experiment_file.problems import ExperimentFileError, Problem, shown
from zoo.experiment_file.reading import Document, read_document
from zoo.experiment_file.sentences import Finding, findings
from zoo.experiment_file.tables import Table, Tables
from zoo.registry import find
from zoo.run import kinds
from zoo.run.kinds import Written
from zoo.run.watching import Watcher

_MOOT = ("function", "command", "known", "space", "address")  # nothing is missing without them


@dataclass(frozen=True)
class ExperimentFile(Written):
    """What an experiment file says.

    Attributes:
        path: The file.
        tables: Its tables, with what included files and overrides say.
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
        said = self.tables
        return {
            "fun": said.objective.function or said.objective.command,
            **values.region(said.objective, values.space(said.objective)),
            "method": said.method.name,
            "options": dict(said.method.options),
            "constraints": list(said.objective.constraints),
            "vectorized": said.objective.vectorized,
            "noise": said.job.noise,
            "rng": said.job.seed,
            "budget": said.stop.budget,
            "target": said.stop.target,
            "seconds": said.stop.seconds,
            "workers": values.executor(said.execution),
            "on_error": said.execution.on_error,
            "out": self.out,
        }

    def run(self, callback: Sequence[Watcher]) -> Any:
        from zoo.facade import minimize

        return minimize(**self.arguments(), callback=callback)

    def resolved(self) -> dict[str, Any]:
        """Return all tables with their defaults, as another file of the same experiment could say them.

        What has no value is left out, since TOML has no word for that.
        """
        said, experiment = self.tables, _experiment(self.arguments())
        updates: dict[str, dict[str, Any]] = {
            "job": {"out": self.out},
            "objective": {"path": [str(folder) for folder in self.folders]},
            "method": {"name": experiment.method},
            "execution": {"backend": values.backend(said.execution)},
            "stop": {"budget": experiment.budget},
        }
        tables = {name: getattr(said, name).model_copy(update=update) for name, update in updates.items()}
        return Tables(**tables).model_dump(exclude_none=True)

    def toml(self) -> str:
        """Return `resolved` as the text of an experiment file, with comments where there is no value.

        Raises:
            ValueError: The name of a directory is no text.
        """
        said = self.resolved()
        moot = (*_MOOT, *(("bounds", "scale") if "space" in said["objective"] else ()))
        return toml_of(said, Tables, {"method": find(said["method"]["name"]).options()}, moot)


def toml_of(
    said: Mapping[str, Any],
    model: type[Table],
    options: Mapping[str, Any],
    moot: Sequence[str] = (),
) -> str:
    """Return tables as the text of an experiment file, with comments where there is no value.

    Args:
        said: The tables by name, a list where there are several of one name.
        model: What they are tables of.
        options: By the name of a table with `options`, all there are with their defaults; likewise.
        moot: Keys of which nothing is said where they have no value.

    Raises:
        ValueError: The name of a directory is no text.
    """
    document = tomlkit.document()
    for name, content in said.items():
        fields = _inner(model.model_fields[name].annotation).model_fields
        if isinstance(content, list):
            several = tomlkit.aot()
            for one, valid in zip(content, options[name], strict=True):
                several.append(_table(one, fields, valid, moot))
            document.add(name, several)
        else:
            document.add(name, _table(content, fields, options.get(name, {}), moot))
    text = tomlkit.dumps(document)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.splitlines()[text.count("\n", 0, error.start)]
        raise ValueError(f"a file can hold names in UTF-8 only, got {line!r}.") from None
    return text


def read_experiment(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> Written:
    """Read an experiment file, and find out whether it can be run.

    The folder of the file and those of the files it includes are put in front of `sys.path`, and the
    modules that it names are imported.

    Args:
        path: The file.
        overrides: What is to be taken for said at its end, as in "stop.budget=500" or "method.name=cma".
            Values are TOML, or else text.
        out: Directory of the run, if not what is said; any name that a directory can have.

    Returns:
        What it says, an `ExperimentFile` unless its kind is that of another package.

    Raises:
        ExperimentFileError: Something is wrong with it: all that is found is said at once.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "first.toml")
        ...     _ = path.write_text('objective = {function = "zoo.problems:sphere", x0 = "0x5"}')
        ...     experiment = read_experiment(path, ["stop.budget=500"])
        >>> experiment.arguments()["budget"], experiment.resolved()["method"]
        (500, {'name': 'cma', 'options': {}})
    """
    document = read_document(path, overrides, None if out is None else os.fspath(out))
    job = document.data.get("job")
    if isinstance(job, dict) and (kind := kinds.find(job.get("kind"))) is not None:
        return kind.read(document, Path(path))
    wrong: list[Finding] = []
    try:
        tables = Tables.model_validate(document.data)
    except ValidationError as error:
        wrong += findings(error)
        if unclear := [finding for finding in wrong if finding.path in (("kind",), ("job", "kind"))]:
            raise refusal(document, unclear) from None  # what else is right depends on the kind
        tables = Tables.model_validate(without(wrong, document.data))
    folders = folders_of(document, ("objective", "path"), tables.objective.path)
    make_importable(folders)
    wrong += Checks(tables, folders, [finding.path for finding in wrong if finding.lost]).findings
    experiment = ExperimentFile(Path(path), tables, tuple(folders))
    if not wrong:
        try:
            _experiment(experiment.arguments()).written()
        except (TypeError, ValueError) as error:
            wrong.append(finding_of(error))
    if wrong:
        raise refusal(document, wrong)
    return experiment


def refusal(document: Document, wrong: Sequence[Finding]) -> ExperimentFileError:
    """Return what is wrong as an error, in the order in which it stands in files."""
    found = [Problem(document.place(finding.path), finding.message) for finding in wrong]
    return ExperimentFileError(sorted(found, key=_order))


def _experiment(arguments: dict[str, Any]) -> Experiment:
    """Return what `zoo.minimize` makes of arguments before it begins."""
    given = {**arguments}
    fun, executor, seconds, _ = (given.pop(name) for name in ("fun", "workers", "seconds", "out"))
    vectorized, noise = given["vectorized"], given["noise"]
    return experiment_of(
        lambda space, several: as_objective(
            fun, vectorized=vectorized, noise=noise, space=space, several=several
        ),
        threads=as_executor(executor).threads,
        is_endless=seconds is not None,
        **given,
    )


def _table(
    content: Mapping[str, Any], fields: Mapping[str, Any], options: Mapping[str, Any], moot: Sequence[str]
) -> tomlkit.items.Table:
    table = tomlkit.table()
    for key, field in fields.items():
        if key == "options":
            table.add(key, _options(options, content[key]))
        elif key in content:
            table.add(key, _quick(content[key]))
        elif key not in moot:
            table.add(tomlkit.comment(f"{key}: {field.json_schema_extra['absent']}"))
    return table


def _inner(annotation: Any) -> type[Table]:
    """Return what a key is a table of, or a list of tables, or None."""
    while not (isinstance(annotation, type) and issubclass(annotation, Table)):
        annotation = get_args(annotation)[0]
    return annotation


def _options(valid: Mapping[str, Any], said: Mapping[str, Any]) -> tomlkit.items.Table:
    """Return the options of a method, those that nobody has said as comments."""
    table = tomlkit.table()
    for name, value in said.items():
        table.add(name, _quick(value))
    for name, value in valid.items():
        if name not in said:
            table.add(tomlkit.comment(f"{name} = {shown(value)}"))
    return table


def _quick(value: Any) -> Any:
    """Return tables with lists of numbers in a form that takes tomlkit a time linear in their length."""
    if isinstance(value, dict):
        return {name: _quick(inner) for name, inner in value.items()}
    return tomlkit.value(repr(value)) if isinstance(value, list) and _is_numeric(value) else value


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def without(wrong: Sequence[Finding], data: dict[str, Any]) -> dict[str, Any]:
    """Return the tables without what is wrong in them, so that the rest can be looked at."""
    for path, _, lost in wrong:
        # An array with a wrong element goes as a whole, as does a variable with a wrong key.
        depth = 3 if path[:2] == ("objective", "space") else 2
        data = _dropped(data, path[:depth] if lost else path)
    return data


def _dropped(data: dict[str, Any], path: lines.Path) -> dict[str, Any]:
    key, *rest = path
    if key not in data:
        return data
    inner = data[str(key)]
    if len(rest) > 1 and isinstance(inner, list) and isinstance(inner[int(rest[0])], dict):
        number, *place = rest
        inner = [_dropped(one, tuple(place)) if i == number else one for i, one in enumerate(inner)]
        return {**data, str(key): inner}
    if not rest or not isinstance(inner, dict):
        return {name: value for name, value in data.items() if name != key}
    return {**data, str(key): _dropped(inner, tuple(rest))}


def folders_of(document: Document, path: lines.Path, names: Sequence[str] | None) -> list[Path]:
    """Return where modules are looked for: where a key says, or else beside the files.

    Args:
        document: What was said.
        path: That of the key.
        names: What it says, relative to the file that says it.
    """
    if not names:
        return document.folders
    found = []
    for number, name in enumerate(names):
        place = document.place((*path, number))
        base = "" if place.line is None else os.path.dirname(os.path.realpath(place.source))
        found.append(Path(os.path.realpath(os.path.join(base, name))))
    return found


def _order(problem: Problem) -> tuple[bool, str, int]:
    place = problem.place
    return (True, "", 0) if place.line is None else (False, place.source, place.line)
