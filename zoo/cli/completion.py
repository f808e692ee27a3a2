"""What a shell offers when TAB is pressed."""

from __future__ import annotations

import os
from pathlib import Path

_DEEPEST = 4  # levels under the working directory, as in runs/bench/rosenbrock/cma


def methods(incomplete: str) -> list[str]:
    """Return names of methods, of the last one where several are separated by commas."""
    from zoo.registry import list_methods

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in ["auto", *list_methods()] if name.startswith(last)]


def problems(incomplete: str) -> list[str]:
    """Return names of problems."""
    from zoo.cli.problems import PROBLEMS

    return [name for name in PROBLEMS if name.startswith(incomplete)]


def bench(incomplete: str) -> list[str]:
    """Return what `zoo bench` can be given."""
    from zoo.cli.problems import PROBLEMS

    names = [*_modules(), *(name for name, problem in PROBLEMS.items() if not problem.several)]
    return [name for name in names if name.startswith(incomplete)]


def objectives(incomplete: str) -> list[str]:
    """Return objectives that come along, and the modules in the working directory."""
    from zoo.cli.problems import PROBLEMS

    names = [*_modules(), *(problem.spec for problem in PROBLEMS.values())]
    return [name for name in names if name.startswith(incomplete)]


def _modules() -> list[str]:
    return [f"{path.stem}:" for path in sorted(Path.cwd().glob("*.py"))]


def progress(incomplete: str) -> list[str]:
    """Return how progress can be shown."""
    return [name for name in ("auto", "panel", "lines", "bar", "none") if name.startswith(incomplete)]


def on_error(incomplete: str) -> list[str]:
    """Return what an exception may do."""
    return [name for name in ("raise", "nan") if name.startswith(incomplete)]


def loggers(incomplete: str) -> list[str]:
    """Return where can be logged."""
    from zoo.loggers import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


def files(incomplete: str) -> list[str]:
    """Return experiment files, and folders on the way to them."""
    folder = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    found = [*folder.glob("*.toml"), *(path for path in folder.glob("[!.]*") if path.is_dir())]
    names = (f"{path}/" if path.is_dir() else str(path) for path in sorted(found))
    return [name for name in names if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Return run directories."""
    found = []
    for folder, inside, files in os.walk("."):
        name = os.path.relpath(folder)
        if "config.json" in files:
            found.append(name)
        hidden = [one for one in inside if one.startswith(".")]
        is_end = "config.json" in files or name.count(os.sep) >= _DEEPEST
        inside[:] = [] if is_end else sorted(set(inside) - set(hidden))
    return [name for name in sorted(found) if name.startswith(incomplete)]


def listable(incomplete: str) -> list[str]:
    """Return what `zoo list` can be given."""
    from zoo.cli.extras import EXTRAS

    names = ["methods", "problems", "extras", *methods("")[1:], *problems(""), *EXTRAS]
    return [name for name in names if name.startswith(incomplete)]
