"""What no single key can get wrong: keys that exclude each other, names of nothing, values that do not fit.

Wherever `zoo.minimize` has a check of its own, that one speaks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zoo.arguments import as_region
from zoo.core.constraints import RETURNED, as_constraints
from zoo.core.objective import as_objective
from zoo.core.space import Space, Variable
from zoo.experiment_file import lines, values
from zoo.experiment_file.imports import found
from zoo.experiment_file.problems import near, quoted, shown
from zoo.experiment_file.tables import Execution, Method, Objective, Tables
from zoo.registry import find, list_methods

_KEYS = {"fun": "function", "argv": "command", "num_workers": "workers", "option": "options"}


class Checks:
    """Looks at tables whose keys are right one by one.

    Args:
        tables: What is looked at.
        folders: Where modules are looked for first.
        broken: Paths of what was found wrong before, and is missing here.

    Attributes:
        problems: A path and a sentence for each thing that is wrong.
    """

    def __init__(self, tables: Tables, folders: Sequence[Path], broken: Sequence[lines.Path] = ()) -> None:
        self.problems: list[tuple[lines.Path, str]] = []
        self._folders, self._broken = folders, broken
        self._objective(tables.objective, tables.job.noise)
        space = self._space(tables.objective)
        self._region(tables.objective, space)
        self._method(tables.method, space)
        self._execution(tables.execution)

    def _say(self, path: lines.Path, message: str) -> None:
        self.problems.append((path, message))

    def _is_sound(self, *path: str) -> bool:
        """Whether nothing was found wrong in something, nor in what is around it."""
        return not any(one[: len(path)] == path[: len(one)] for one in self._broken)

    def _objective(self, said: Objective, noise: bool) -> None:
        if not (self._is_sound("objective", "function") and self._is_sound("objective", "command")):
            pass
        elif said.function is None and said.command is None:
            self._say(
                ("objective",), '[objective] must have `function = "module:name"` or `command = [...]`.'
            )
        elif said.function is not None and said.command is not None:
            self._say(("objective", "command"), "`command` cannot be given along with `function`: drop one.")
        elif said.command is not None:
            try:
                as_objective(said.command)
            except (TypeError, ValueError) as error:
                self._say(("objective", "command"), f"`command`: {error}")
            if said.vectorized:
                self._say(
                    ("objective", "vectorized"),
                    "`vectorized` is for functions, and a `command` is given one point a line: drop it.",
                )
        if said.function is not None:
            self._import(("objective", "function"), said.function, said.vectorized)
        for number, name in enumerate(said.constraints):
            if name != RETURNED:
                self._import(("objective", "constraints", number), name)

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
            self._say(path, _in_our_words(str(error)))

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
                self._say_of(("objective", "space", name), error)
        if len(variables) < len(said.space) or not self._is_sound("objective", "space"):
            return None
        try:
            return Space(variables)
        except ValueError as error:
            self._say(("objective", "space"), str(error).replace("`variables`", "`space`"))
        return None

    def _region(self, said: Objective, space: Space | None) -> None:
        parts = ("x0", "bounds", "scale", "known", "space")
        if any(not self._is_sound("objective", part) for part in parts):
            return
        if any(path[:2] == ("objective", part) for path, _ in self.problems for part in parts):
            return
        try:
            as_region(**values.region(said, space))
        except (TypeError, ValueError) as error:
            self._say_of(("objective",), error)

    def _method(self, said: Method, space: Space | None) -> None:
        if not self._is_sound("method"):
            return
        try:
            method = find(said.name, mixed=space is not None and space.grid is not None)
        except ValueError:
            names = [*list_methods(), "auto"]
            hint = near(said.name, names, '"') or f" Valid: {', '.join(names)}."
            self._say(("method", "name"), f"`name` must be a method, got {shown(said.name)}.{hint}")
            return
        try:
            valid = method.options()
        except ImportError as error:
            self._say(("method", "name"), str(error))
            return
        for name in said.options:
            if name not in valid:
                hint = near(name, valid) or f" Valid: {quoted(valid) or 'none'}."
                self._say(
                    ("method", "options", name), f"unknown option `{name}` of method {method.name!r}.{hint}"
                )
        options = {name: value for name, value in said.options.items() if name in valid}
        while True:  # with one option less each time, until what is left is right
            try:
                method.build(options)
                return
            except (TypeError, ValueError, ImportError) as error:
                named = [name for name in re.findall(r"`(\w+)`", str(error)) if name in options]
                if not named:
                    self._say(("method", "options" if options else "name"), str(error))
                    return
                self._say(("method", "options", named[0]), str(error))
                del options[named[0]]

    def _execution(self, said: Execution) -> None:
        if not self._is_sound("execution"):
            return
        backend = values.backend(said)
        if backend == "serial":
            if said.workers != 1:
                self._say(
                    ("execution", "workers"),
                    f'`workers` must be 1 where `backend` is "serial", got {said.workers}: drop the backend.',
                )
            for key in said.model_fields_set & values.SETTINGS:
                self._say(
                    ("execution", key),
                    f'`{key}` is a setting of workers, and `backend` is "serial": say backend = "processes".',
                )
            return
        if backend != "ray" and said.address is not None:
            self._say(
                ("execution", "address"),
                f'`address` is that of a Ray cluster, and `backend` is "{backend}": say backend = "ray".',
            )
            return
        try:
            values.executor(said)
        except (TypeError, ValueError, ImportError) as error:
            self._say_of(("execution",), error)

    def _say_of(self, table: lines.Path, error: Exception) -> None:
        """Report an error of an argument where that argument is said."""
        message = _in_our_words(str(error))
        key = re.search(r"`(\w+)", message)
        self._say(table if key is None else (*table, key[1]), message)


def _in_our_words(message: str) -> str:
    """Return a message about arguments with the names of our keys in it."""
    return re.sub(r"`(\w+)", lambda name: f"`{_KEYS.get(name[1], name[1])}", message)
