"""Where modules are that are named by "module:name"."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def is_installed(path: str | os.PathLike[str]) -> bool:
    """Return whether a path belongs to the standard library or to installed packages."""
    place = Path(path)
    return bool({"site-packages", "dist-packages"} & set(place.parts)) or any(
        place.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")
    )


def files_of(names: Iterable[str]) -> dict[str, str]:
    """Return the files of the modules in "module:name" that are imported here and are the user's own.

    Example:
        >>> files_of(["zoo.problems:rosenbrock", "json:dumps"])
        {}
    """
    ours = __name__.partition(".")[0]
    found = {}
    for module in {name.partition(":")[0]: None for name in names if ":" in name}:
        file = getattr(sys.modules.get(module), "__file__", None)
        if module != "__main__" and module.partition(".")[0] != ours and file and not is_installed(file):
            found[module] = os.path.abspath(file)
    return found


def own_path() -> list[str]:
    """Return the folders of `sys.path` that are the user's own."""
    return [entry for entry in map(os.path.abspath, sys.path) if not is_installed(entry)]


def folder_of(module: str, file: str) -> Path:
    """Return the folder of `sys.path` in which a module was found.

    Example:
        >>> folder_of("models.spring", "/srv/models/spring.py").as_posix()
        '/srv'
    """
    return Path(file).parents[module.count(".") + Path(file).name.startswith("__init__.")]


def first_found(module: str, file: str) -> Path | None:
    """Return which file `sys.path` has for a module that once came from `file`; None if there is none."""
    inside = Path(file).relative_to(folder_of(module, file))
    return next((Path(entry, inside) for entry in sys.path if Path(entry, inside).is_file()), None)
