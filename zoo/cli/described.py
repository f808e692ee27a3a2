"""What docstrings say about the options of methods."""

from __future__ import annotations

import inspect
import re
from typing import Any

from zoo.registry import list_methods

_ENTRY = re.compile(r"    (\w+): (.*)")
_REFERENCE = re.compile(r"(?:See `(?P<name>\w+)`|As there)(?:, but (?P<but>[^.;]*))?")
_SAME = re.compile(r"arguments are those of `(\w+)`")


def summary_of(factory: Any) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((inspect.getdoc(factory) or "").partition("\n\n")[0].split())


def meanings(factory: Any) -> dict[str, str]:
    """Return what the section "Args" of a docstring says, by argument.

    Where it refers to another method ("See `CMAES`", "As there"), what is said there is returned.
    """
    text = inspect.getdoc(factory) or ""
    if same := _SAME.search(text):
        return _elsewhere(same[1])
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("\nArgs:\n")[2].partition("\n\n")[0].splitlines():
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] += " " + line.strip()
    there: dict[str, str] = {}
    for name, said in found.items():
        if reference := _REFERENCE.match(said):
            there = _elsewhere(reference["name"]) if reference["name"] else there
            but = f" But {reference['but']}." if reference["but"] else ""
            found[name] = there[name] + but
    return found


def _elsewhere(name: str) -> dict[str, str]:
    return next(
        meanings(method.factory) for method in list_methods().values() if method.target.endswith(f":{name}")
    )
