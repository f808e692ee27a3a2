"""Modules that an experiment file names, found beside it and elsewhere."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.core.validation import hint


def make_importable(folders: Iterable[Path]) -> None:
    """Have modules in some folders found before all others, here and by workers, who take over `sys.path`."""
    first = [str(folder) for folder in folders]
    sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]


def found(key: str, spec: str, folders: Iterable[Path]) -> Any:
    """Return what "module:name" names.

    Args:
        key: The key that says it, for errors.
        spec: Its value, "()" at the end being left aside.
        folders: Where its module is looked for first.

    Raises:
        ValueError: There is nothing of that name, or the module raises.
    """
    module, _, name = spec.removesuffix("()").partition(":")
    place = _imported(key, spec, module, list(folders))
    for part in name.split("."):
        if not hasattr(place, part):
            nearest = hint(part, vars(place))
            raise ValueError(f"`{key}` is {spec!r}, and {module!r} has no {part!r}.{nearest}")
        place = getattr(place, part)
    return place


def _imported(key: str, spec: str, module: str, folders: list[Path]) -> Any:
    _check_origin(key, spec, module, folders)
    importlib.invalidate_caches()  # the file may be younger than the last look at its folder
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            names = (path.stem for folder in folders for path in folder.glob("*.py"))
            nearest = hint(module, names, cutoff=0.7)
            raise ValueError(
                f"`{key}` is {spec!r}, and no module {error.name!r} is installed or in "
                f"{', '.join(map(str, folders))}.{nearest}"
            ) from error
        raise ValueError(_raised(key, spec, module, error)) from error
    except (Exception, SystemExit) as error:
        raise ValueError(_raised(key, spec, module, error)) from error
    _check_origin(key, spec, module, folders)  # again: Python has modules that no folder comes before
    return imported


def _check_origin(key: str, spec: str, module: str, folders: list[Path]) -> None:
    """Refuse a module that is beside the file where another one of its name is loaded already."""
    top = module.partition(".")[0]
    paths = (os.path.join(folder, name) for folder in folders for name in (f"{top}.py", f"{top}/__init__.py"))
    path = next(filter(os.path.exists, paths), None)
    if path is None or top not in sys.modules:
        return
    loaded = getattr(sys.modules[top], "__file__", "")
    if loaded is None or os.path.realpath(loaded) != os.path.realpath(path):
        raise ValueError(
            f"`{key}` is {spec!r}, and another module {top!r} than {path} is in use here: give that file "
            "another name."
        )


def _raised(key: str, spec: str, module: str, error: BaseException) -> str:
    """Return what an import raised, and where."""
    said = traceback.format_exception_only(error)[-1].strip().removesuffix(".")
    where = ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__ and "importlib" not in frame.filename
        ]
        if frames:
            where = f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return f"`{key}` is {spec!r}, and importing {module!r} raised {said}{where}."
