"""Whether "module:function" names something; what to write instead where it does not."""

from __future__ import annotations

import importlib
import os
import re
import traceback
from pathlib import Path
from typing import Any

from zoo.core.validation import hint, listed


def check_name(argument: str, spec: str, *, is_called: bool = True) -> None:
    """Import what a name stands for.

    Args:
        argument: Where it was said, for errors.
        spec: "module:function" or "module:factory()".
        is_called: Whether it must be something to call.

    Raises:
        ValueError: There is nothing of that name, or its module raises.
    """
    module, _, name = spec.removesuffix("()").partition(":")
    instead = _instead(module, name)
    if instead or not (name and re.fullmatch(r"\w+(\.\w+)*", module)):
        raise ValueError(
            f'{argument} must be module:function, or "module:factory()", got {spec!r}.'
            + (f" Did you mean {instead!r}?" if instead else "")
        )
    place: Any = _imported(spec, module)
    for part in name.split("."):
        if not hasattr(place, part):
            near = hint(part, vars(place)) or _known(part)
            own = [one for one, value in vars(place).items() if _is_own(value, module)]
            there = f" It has {listed(own[:10])}." if own and not near else ""
            raise ValueError(f"module {module!r} ({_file(module)}) has no {part!r}.{near}{there}")
        place = getattr(place, part)
    if is_called and not callable(place):
        raise ValueError(f"{argument} must name something to call, got {spec!r}, which is {place!r}.")


def _imported(spec: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            here = [path.stem for path in Path.cwd().glob("*.py")]
            here += [path.parent.name for path in Path.cwd().glob("*/__init__.py")]
            raise ValueError(
                f"there is no module {error.name!r}, of {spec!r}, in {os.getcwd()} or among what is "
                f"installed.{hint(error.name, here)}"
            ) from None
        raise ValueError(f"importing {module!r} raised {_said(error)}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module!r} raised {_said(error)}") from None


def _said(error: BaseException) -> str:
    """Return what an import raised, and the lines of the user's that led there."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    where = "".join(traceback.format_list(theirs))
    return f"an exception:\n\n{where}{''.join(traceback.format_exception_only(error))}".rstrip()


def _instead(module: str, name: str) -> str:
    """Return what was probably meant: a file for a module, or a dot for the colon."""
    path = Path(module)
    if name and path.suffix == ".py":
        return (
            f"{path.stem}:{name}"
            if path.parent == Path()
            else f"{'.'.join(path.with_suffix('').parts)}:{name}"
        )
    if not name and path.suffix == ".py":
        return f"{path.stem}:function"
    before, _, last = module.rpartition(".")
    if name:
        return ""
    return f"{before}:{last}" if before else _spec(module)


def _spec(name: str) -> str:
    """Return the objective of a problem that comes along, or nothing."""
    from zoo.cli.problems import PROBLEMS

    return PROBLEMS[name].spec if name in PROBLEMS else ""


def _known(name: str) -> str:
    return f" Did you mean {_spec(name)!r}?" if _spec(name) else ""


def _is_own(value: Any, module: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module


def _file(module: str) -> str:
    return getattr(importlib.import_module(module), "__file__", None) or "built in"
