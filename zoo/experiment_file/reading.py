"""An experiment file, what it includes and what overrides it, as one table with a place for each value."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.core.validation import hint
from zoo.experiment_file import lines
from zoo.experiment_file.problems import ExperimentFileError, Place, Problem, shown
from zoo.experiment_file.tables import TIMES

_MOST = 100  # files that one leads to
_LONGEST = 4000  # digits; Python writes no more than 4300
_TOO_LARGE = 10**_LONGEST
_DEEP = f"lists and tables must not be nested more than {lines.DEEPEST} deep."
_LONG = f"integers must have {_LONGEST} digits at most."
_NAME = ("method", "name")
# By what is said, what was said before, in a file that is included, and now means nothing.
_UNSAID = {
    ("objective", "function"): [("objective", "command")],
    ("objective", "command"): [("objective", "function"), ("objective", "vectorized")],
    ("objective", "space"): [("objective", "bounds"), ("objective", "scale")],
    ("objective", "bounds"): [("objective", "space")],
    ("objective", "scale"): [("objective", "space")],
    _NAME: [("method", "options")],
}


@dataclass
class Document:
    """What was said, and where.

    Attributes:
        data: The tables.
        places: Where each of their keys and values comes from.
        folders: Those of the files, the first one's first.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[lines.Path, Place] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)

    def place(self, path: lines.Path) -> Place:
        """Return where something was said, or what is around it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def take(self, other: Document) -> None:
        """Merge another one, and leave out what means nothing beside what that one says."""
        for path, rivals in _UNSAID.items():
            value = _said(other.data, path)
            if value is None or (path == _NAME and _said(self.data, _NAME) in (None, value)):
                continue
            for table, key in rivals:
                if _said(self.data, (table, key)) is not None:
                    del self.data[table][key]
        self.merge(other)

    def merge(self, other: Document) -> None:
        """Take over what another one says; where both say something, the other one is right."""
        replaced = set(_merge(self.data, other.data))
        kept = {
            path: place
            for path, place in self.places.items()
            if not any(path[:length] in replaced for length in range(1, len(path) + 1))
        }
        self.places = {**kept, **other.places}
        self.folders = [*other.folders, *(folder for folder in self.folders if folder not in other.folders)]


def read_document(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), out: str | None = None
) -> Document:
    """Return what a file says, with all it includes, once overrides are applied, and the directory is chosen.

    Raises:
        ExperimentFileError: A file is missing, unreadable or no TOML, files include each other in a
            circle, or an override has no form.
    """
    problems: list[Problem] = []
    document = _Reader(problems).read(Path(path), Place(str(path)))
    said = Document()
    for text in overrides:
        said.merge(_override(text, problems))
    if out is not None:
        said.merge(_only(("job", "out"), out, Place("--out")))
    document.take(said)
    if problems:
        raise ExperimentFileError(problems)
    document.places[()] = Place(str(path))
    return document


class _Reader:
    """Reads each file once, however many others include it."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._read: dict[str, Document] = {}
        self._open: dict[str, Path] = {}  # those that include what is read now, the first one first

    def read(self, path: Path, asked: Place) -> Document:
        """Return what a file says that is asked for somewhere, and all that it includes."""
        real = os.path.realpath(path)
        if real in self._open:
            circle = " includes ".join(map(str, (*self._open.values(), path)))
            self._problems.append(Problem(asked, f"`include` leads back to where it started: {circle}."))
            return Document()
        if real in self._read:
            return self._read[real]
        if len(self._read) + len(self._open) == _MOST:
            self._problems.append(Problem(asked, f"`include` must lead to {_MOST} files at most."))
            raise ExperimentFileError(self._problems)
        text = _text(path, asked, self._problems)
        if text is None:
            return Document()
        self._open[real] = path
        self._read[real] = self._document(path, text, [Path(real).parent])
        del self._open[real]
        return self._read[real]

    def _document(self, path: Path, text: str, folders: list[Path]) -> Document:
        whole = Document(folders=folders)
        try:
            own = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            self._problems.append(_syntax(path, text, error))
            return whole
        places = {where: Place(str(path), line) for where, line in lines.lines_of(text).items()}
        if unusable := [Problem(places[where], message) for where, message in _unusable(own)]:
            self._problems += unusable
            return whole
        for name, where in _included(own, places, self._problems):
            whole.take(self.read(Path(os.path.normpath(path.parent / name)), where))
        own.pop("include", None)
        whole.take(Document(own, places, folders))
        return whole


def _text(path: Path, asked: Place, problems: list[Problem]) -> str | None:
    """Return what a file holds, or None if it cannot be read."""
    is_first = asked.line is None  # nobody includes it
    begin = "" if is_first else f"includes {str(path)!r}: "
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        nearest = hint(path.stem, (one.stem for one in path.parent.glob("*.toml")), cutoff=0.6)
        message = f"there is no such file.{nearest[:-2]}.toml'?" if nearest else "there is no such file."
    except IsADirectoryError:
        message = "it is a directory, and must be an experiment file."
        if (path / "config.json").exists():
            message = f"it is the directory of a run: go on with it by `zoo resume {path}`."
    except UnicodeDecodeError as error:
        asked, begin = Place(str(path), error.object[: error.start].count(b"\n") + 1), ""
        message = f"must be text in UTF-8, got the byte {error.object[error.start]:#x}. Save it as UTF-8."
    except OSError as error:
        message = f"cannot be read: {error.strerror}."
    problems.append(Problem(asked, begin + message))
    return None


def _syntax(path: Path, text: str, error: Exception) -> Problem:
    """Return what a parser said, as a problem."""
    where = r"(.*) \((?:at line (\d+), column (\d+)|at end of document)\)"
    found = re.fullmatch(where, str(error), re.DOTALL)
    if found is None:  # it says so only of what is beyond it, and not where that is
        what = _DEEP if isinstance(error, RecursionError) else _LONG
        return Problem(Place(str(path), lines.line_beyond(text, lines.DEEPEST, _LONGEST)), what)
    what, line, column = found.groups()
    # Where the parser has a tuple of keys, we have a table.
    what = re.sub(r"\(([^()]*)\)", _table, what)
    number = int(line) if line else max(1, text.rstrip("\n").count("\n") + 1)
    where = f"at column {column}" if column else "at the end"
    source, advice = text.split("\n")[number - 1], ""
    if what == "Invalid value" and column and source[int(column) - 1 :][:1].isalpha():
        advice = "; text has to be in quotes"
    elif what == "Cannot overwrite a value":
        advice = "; this key is given a second time"
    return Problem(
        Place(str(path), number),
        f"no valid TOML: {what[0].lower()}{what[1:]} {where}, in {source.strip()!r}{advice}.",
    )


def _unusable(data: Mapping[str, Any]) -> Iterator[tuple[lines.Path, str]]:
    """Yield what nothing can work with, though it is valid TOML, and its place."""
    pending: list[tuple[lines.Path, Any]] = [((), data)]
    for path, value in pending:  # which grows on the way
        if len(path) > lines.DEEPEST:
            yield path, _DEEP
        elif isinstance(value, dict):
            pending += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [((*path, number), item) for number, item in enumerate(value)]
        elif isinstance(value, int) and abs(value) >= _TOO_LARGE:
            yield path, _LONG


def _table(keys: re.Match[str]) -> str:
    names = re.findall("[^', ]+", keys[1])
    return f"[{'.'.join(names)}]"


def _included(
    own: Mapping[str, Any], places: Mapping[lines.Path, Place], problems: list[Problem]
) -> list[tuple[str, Place]]:
    """Return the names of the files that a file includes, and where it does."""
    given = own.get("include", [])
    names = given if isinstance(given, list) else [given]
    found = []
    for number, name in enumerate(names):
        where = places.get(("include", number), places[("include",)])
        if isinstance(name, str) and name and "\0" not in name:
            found.append((name, where))
        else:
            problems.append(
                Problem(where, f"`include` must be the name of a file or a list of names, got {shown(name)}.")
            )
    return found


def _override(text: str, problems: list[Problem]) -> Document:
    """Return what an override such as "stop.budget=500" says."""
    where = Place(f"--set {text}")
    name, equals, said = text.partition("=")
    try:
        path = lines.key_of(name)
    except ValueError:
        equals = ""
    if not equals:
        problems.append(
            Problem(where, "must have the form TABLE.KEY=VALUE, as in stop.budget=500 or method.name=cma.")
        )
        return Document()
    if path[0] == "include":
        problems.append(Problem(where, "`include` can be said in files only."))
        return Document()
    try:
        found = _only(path[: lines.DEEPEST + 1], _value(said.strip()), where)
        unusable = [Problem(where, message) for _, message in _unusable(found.data)]
    except RecursionError:
        unusable = [Problem(where, _DEEP)]
    problems += unusable
    return Document() if unusable else found


def _only(path: tuple[str, ...], value: Any, where: Place) -> Document:
    """Return a document that says nothing but one value."""
    for key in reversed(path):
        value = {key: value}
    return Document(value, {path[:length]: where for length in range(1, len(path) + 1)})


def _value(text: str) -> Any:
    """Return the value that TOML sees in a text, else the text itself."""
    if TIMES.fullmatch(text):  # TOML would read 0x10 as a hexadecimal number
        return text
    try:
        found = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return found["value"] if len(found) == 1 else text


def _said(data: Mapping[str, Any], path: tuple[str, str]) -> Any:
    """Return a value, or None if it is not said."""
    table = data.get(path[0])
    return table.get(path[1]) if isinstance(table, dict) else None


def _merge(data: dict[str, Any], other: Mapping[str, Any], path: lines.Path = ()) -> Iterator[lines.Path]:
    """Merge tables into others, and yield the paths of what is not merged but replaced."""
    for key, value in other.items():
        if not isinstance(value, dict):
            yield (*path, key)
            data[key] = value
            continue
        if not isinstance(data.get(key), dict):
            yield (*path, key)
            data[key] = {}
        yield from _merge(data[key], value, (*path, key))
