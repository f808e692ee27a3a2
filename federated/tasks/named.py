"""What users give by name, "module:name"."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from zoo.core.validation import hint, listed


def named(argument: str, spec: str) -> Any:
    """Import what "module:name" stands for.

    Args:
        argument: Where it was said, for errors.
        spec: The name.

    Raises:
        ValueError: It has another form, its module cannot be found, or has nothing of that name.

    Example:
        >>> named("task", "math:sqrt")(4)
        2.0
    """
    module, _, name = spec.partition(":")
    if module.endswith(".py"):
        instead = ".".join(Path(module).with_suffix("").parts) + spec[len(module) :]
        raise ValueError(f"`{argument}` must name a module, not a file, got {spec!r}: write {instead!r}.")
    if not all(re.fullmatch(r"\w+(\.\w+)*", part) for part in (module, name)):
        raise ValueError(f'`{argument}` must have the form "module:name", got {spec!r}.')
    try:
        place = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that theirs imports
        here = [path.stem for path in Path.cwd().glob("*.py")]
        raise ValueError(
            f"`{argument}` is {spec!r}, and there is no module {error.name!r} in {Path.cwd()} or among what "
            f"is installed.{hint(error.name, here)}"
        ) from None
    for part in name.split("."):
        if not hasattr(place, part):
            own = [one for one, value in vars(place).items() if getattr(value, "__module__", None) == module]
            near = hint(part, vars(place)) or (f" It has {listed(own[:10])}." if own else "")
            raise ValueError(f"`{argument}` is {spec!r}, and {module!r} has no {part!r}.{near}")
        place = getattr(place, part)
    return place
