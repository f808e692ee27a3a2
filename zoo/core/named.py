"""What users give by name, "module:name", and what tells it from other things of that name."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from zoo.core.fingerprint import describe, digest
from zoo.core.modules import is_installed
from zoo.core.validation import hint, listed


def named(argument: str, spec: str) -> Any:
    """Import what "module:name" stands for.

    Args:
        argument: Where it was said, for errors.
        spec: The name.

    Raises:
        ValueError: It has another form, its module cannot be imported, or has nothing of that name.

    Example:
        >>> named("policy", "math:sqrt")(4)
        2.0
    """
    module, _, name = spec.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise ValueError(f'`{argument}` must have the form "module:name", got {spec!r}.')
    place = imported(argument, spec)
    for part in name.split("."):
        if not hasattr(place, part):
            own = [one for one, value in vars(place).items() if getattr(value, "__module__", None) == module]
            near = hint(part, vars(place)) or (f" It has {listed(own[:10])}." if own else "")
            raise ValueError(f"`{argument}` is {spec!r}, and {module!r} has no {part!r}.{near}")
        place = getattr(place, part)
    return place


def imported(argument: str, spec: str) -> Any:
    """Import the module in "module:name".

    Args:
        argument: Where it was said, for errors.
        spec: The name; what is behind the colon is not looked at.

    Raises:
        ValueError: There is no such module.
    """
    module = spec.partition(":")[0]
    if module.endswith(".py"):
        instead = ".".join(Path(module).with_suffix("").parts) + spec[len(module) :]
        raise ValueError(f"`{argument}` must name a module, not a file, got {spec!r}: write {instead!r}.")
    if not re.fullmatch(r"\w+(\.\w+)*", module):
        raise ValueError(f'`{argument}` must have the form "module:name", got {spec!r}.')
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that theirs imports
        here = [path.stem for path in Path.cwd().glob("*.py")]
        raise ValueError(
            f"`{argument}` is {spec!r}, and there is no module {error.name!r} in {Path.cwd()} or among what "
            f"is installed.{hint(error.name, here)}"
        ) from None


def described(thing: Any) -> dict[str, Any]:
    """Return what tells a function or a class from other ones, for `config.json`.

    Returns:
        What `zoo.core.fingerprint.describe` does; of a class, "code" is a digest of its methods, and of
        those it inherits from classes that are the user's own.
    """
    if not isinstance(thing, type):
        return describe(thing)
    return {"name": f"{thing.__module__}:{thing.__qualname__}", "code": code_of(thing)}


def code_of(kind: type) -> str:
    """Return a digest of the methods of a class, and of those it inherits from the user's own classes."""
    return digest(
        [
            [name, value]
            for one in kind.__mro__
            if one is kind or not is_of_others(one)
            for name, value in sorted(vars(one).items())
            if isinstance(value, FunctionType)
        ]
    )


def is_of_others(one: type) -> bool:
    """Whether a class belongs to Python, to an installed package or to this one."""
    if one.__module__.partition(".")[0] in ("builtins", "zoo", "evolution", "federated"):
        return True
    file = getattr(sys.modules.get(one.__module__), "__file__", None)
    return one.__module__ != "__main__" and (file is None or is_installed(file))
