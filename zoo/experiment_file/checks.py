"""What no single key can get wrong: keys that exclude each other, names of nothing, values that do not fit.

Wherever `zoo.minimize` has a check of its own, that one speaks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.arguments import as_region
from zoo.consensus import sharded
from zoo.core.constraints import RETURNED, as_constraints
from zoo.core.objective import as_objective
from zoo.core.space import Space, Variable
from zoo.core.validation import hint
from zoo.experiment_file import lines, values
from zoo.experiment_file.imports import found
from zoo.experiment_file.problems import quoted, shown
from zoo.experiment_file.reading import Document
from zoo.experiment_file.sentences import Finding
from zoo.experiment_file.tables import Execution, Method, Objective, Table, Tables, Workers
from zoo.registry import find, list_methods

_KEYS = {
    "fun": "function",
    "argv": "command",
    "variables": "space",
    "num_workers": "workers",
    "method": "name",
    "rng": "seed",
}


class Checks:
    """Looks at tables whose keys are right one by one.

    Args:
        tables: What is looked at.
        folders: Where modules are looked for first.
        lost: Paths of what was found wrong before, and is missing here.

    Attributes:
        findings: All that is wrong.
    """

    def __init__(self, tables: Tables, folders: Sequence[Path], lost: Sequence[lines.Path] = ()) -> None:
        self.findings: list[Finding] = []
        self._folders, self._lost = folders, lost
        space = self._space(tables.objective)
        self._objective(tables.objective, space)
        self._region(tables.objective, space)
        self._method(tables.method, space)
        self._execution(tables.execution)
        self._shards(tables, space)

    def _say(self, path: lines.Path, message: str) -> None:
        self.findings.append(Finding(path, message))

    def _is_known(self, table: str, *keys: str) -> bool:
        """Whether nothing was found wrong with any of some keys, nor with their table as a whole."""
        paths = [*self._lost, *(finding.path for finding in self.findings)]
        return not any((table, key)[: len(path)] == path[:2] for path in paths for key in keys)

    def _objective(self, said: Objective, space: Space | None) -> None:
        self.findings += of_folders("objective", said.path, self._folders)
        if self._is_known("objective", "path"):
            if said.function is not None:
                self._import(("objective", "function"), said.function, said.vectorized)
            for number, name in enumerate(said.constraints):
                if name != RETURNED:
                    self._import(("objective", "constraints", number), name)
        if not self._is_known("objective", "function", "command"):
            return
        if said.function is not None and said.command is not None:
            self._say(("objective", "command"), "`command` cannot be given along with `function`: drop one.")
        elif said.function is None and said.command is None:
            self._say(
                ("objective",),
                '[objective] must have `function` or `command`, as in function = "module:name".',
            )
        elif said.command is not None:
            try:
                as_objective(said.command, space=space)
            except ValueError as error:
                self._say(("objective", "command"), f"`command`: {error}")
            if said.vectorized:
                self._say(
                    ("objective", "vectorized"),
                    "`vectorized` is for functions, and a `command` is given one point a line: drop it.",
                )

    def _import(self, path: lines.Path, spec: str, vectorized: bool | None = None) -> None:
        try:
            thing = found(str(path[1]), spec, self._folders)
            if vectorized is None:
                as_constraints([spec])
            elif not spec.endswith("()"):
                as_objective(spec, vectorized=vectorized)
            elif not callable(thing):
                raise TypeError(f"`function` must name something to call, got {shown(spec)}, a {thing!r}.")
        except (TypeError, ValueError) as error:
            self._say(path, in_our_words(error))

    def _space(self, said: Objective) -> Space | None:
        if said.space is None:
            return None
        for key in ("bounds", "scale"):
            if getattr(said, key) is not None:
                self._say(
                    ("objective", key), f"`{key}` cannot be given along with `space`, which says it: drop it."
                )
        variables: dict[str, Variable] = {}
        for name, table in said.space.items():
            try:
                variables[name] = values.variable(table)
            except (TypeError, ValueError) as error:
                self._say(("objective", "space", name, *re.findall(r"^`(\w+)", str(error))), str(error))
        if not self._is_known("objective", "space"):
            return None
        try:
            return Space(variables)
        except ValueError as error:
            self._say(("objective", "space"), in_our_words(error))
        return None

    def _region(self, said: Objective, space: Space | None) -> None:
        if self._is_known("objective", "x0", "bounds", "scale", "known", "space"):
            try:
                as_region(**values.region(said, space))
            except (TypeError, ValueError) as error:
                self.findings.append(finding_of(error))

    def _method(self, said: Method, space: Space | None) -> None:
        if not self._is_known("method", "name"):
            return
        try:
            method = find(said.name, mixed=space is not None and space.grid is not None)
        except ValueError:
            names = [*list_methods(), "auto"]
            self.findings.append(of_method_name(said.name, names))
            return
        self.findings += of_options(method, said.options)

    def _execution(self, said: Execution) -> None:
        if self._is_known("execution", "backend"):
            self.findings += of_execution(said)

    def _shards(self, tables: Tables, space: Space | None) -> None:
        """Refuse what cannot be in shards."""
        said, objective, options = tables.execution, tables.objective, tables.method.options
        known = ("job", "noise"), ("objective", "known", "constraints"), ("method", "name", "options")
        if not said.sharded or not all(self._is_known(table, *keys) for table, *keys in known):
            return
        method = find(tables.method.name, mixed=space is not None and space.grid is not None)
        try:
            sharded.check(method.build(dict(options)), method.name)
            sharded.check_search(
                is_primed=objective.known is not None and objective.known.values is None,
                is_constrained=bool(objective.constraints),
                noise=tables.job.noise,
            )
        except ValueError as error:
            named = [name for name in re.findall(r"`(\w+)", str(error)) if name in options]
            path = ("method", "options", named[0]) if named else ("execution", "sharded")
            self._say(path, in_our_words(error))


def of_folders(table: str, names: Sequence[str] | None, folders: Sequence[Path]) -> list[Finding]:
    """Return what is wrong with folders that modules are looked for in.

    Args:
        table: The table whose key `path` they are.
        names: What it says.
        folders: Where these are.
    """
    return [
        Finding(
            (table, "path", number),
            f"`path[{number}]` must be a folder, got {shown(name)}: there is no {folders[number]}.",
        )
        for number, name in enumerate(names or ())
        if not os.path.isdir(folders[number])  # without an error for a name that is too long
    ]


def of_method_name(name: str, valid: Iterable[str], path: lines.Path = ("method",)) -> Finding:
    """Return what is wrong with the name of a method that is not there."""
    valid = list(valid)
    nearest = hint(name, valid, '"') or f" Valid: {', '.join(valid)}."
    return Finding((*path, "name"), f"`name` must be a method, got {shown(name)}.{nearest}")


def of_options(method: Any, said: Mapping[str, Any], path: lines.Path = ("method",)) -> list[Finding]:
    """Return what is wrong with the options of a method.

    Args:
        method: The method, which has a `name`, `options()` and `build(options)`.
        said: Its options.
        path: The table that says so.
    """
    valid, found = method.options(), []
    for name in said:
        if name not in valid:
            nearest = hint(name, valid, "`") or f" Valid: {quoted(valid) or 'none'}."
            message = f"unknown option `{name}` of method {method.name!r}.{nearest}"
            found.append(Finding((*path, "options", name), message))
    options = {name: value for name, value in said.items() if name in valid}
    while True:  # with one option less each time, until what is left is right
        try:
            method.build(options)
            return found
        except (TypeError, ValueError, ImportError) as error:
            every = re.findall(r"`(\w+)", str(error))
            named = [name for name in every if name in options]
            if found and every[:1] != named[:1]:  # a default does not fit, which was not to be one
                return found
            if not named:
                found.append(Finding((*path, "options" if options else "name"), str(error)))
                return found
            found.append(Finding((*path, "options", named[0]), str(error)))
            del options[named[0]]


def of_limits(said: Table, limits: Sequence[str], document: Document) -> list[Finding]:
    """Return that [stop] has none of its keys that are sure to end a run, if so."""
    if any(getattr(said, name) is not None for name in limits):
        return []
    message = f"[stop] must have {quoted(limits)}, or some of these: nothing else is sure to end a run."
    return [Finding(("stop",) if "stop" in document.data else (), message)]


def of_execution(said: Workers) -> list[Finding]:
    """Return what is wrong with who is to evaluate."""
    backend = values.backend(said)
    if backend == "serial":
        found = [
            Finding(
                ("execution", key),
                f'`{key}` is a setting of workers, and `backend` is "serial": say backend = "processes".',
            )
            for key in values.settings(said)
        ]
        if said.workers != 1:
            message = f'`workers` must be 1 where `backend` is "serial", got {said.workers}: drop one.'
            found.insert(0, Finding(("execution", "workers"), message))
        return found
    if backend != "ray" and said.address is not None:
        message = f'`address` is that of a Ray cluster, and `backend` is "{backend}": say backend = "ray".'
        return [Finding(("execution", "address"), message)]
    try:
        values.executor(said)
    except (TypeError, ValueError, ImportError) as error:
        return [finding_of(error, ("execution", "backend"))]
    return []


def finding_of(error: Exception, path: lines.Path = ("objective",)) -> Finding:
    """Return an error of an argument as one of the key that says it, or of `path` if it names none."""
    message = in_our_words(error)
    for key in re.findall(r"`(\w+)", message):
        for table, model in Tables.model_fields.items():
            if key in model.annotation.model_fields:  # type: ignore[union-attr]
                return Finding((table, key), message)
    return Finding(path, message)


def in_our_words(error: Exception) -> str:
    """Return what an error says about arguments, with the names of our keys."""
    return re.sub(r"`(\w+)", lambda name: f"`{_KEYS.get(name[1], name[1])}", str(error))
