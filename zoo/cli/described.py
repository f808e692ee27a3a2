"""What docstrings say about the options of methods."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from zoo.registry import list_methods

_ENTRY = re.compile(r"    (\w+): (.*)")
_REFERENCE = re.compile(r"(?:(?:See|As in) `(?P<name>\w+)`|As there|Likewise)(?:, but (?P<but>[^.;]*))?")
_SAME = re.compile(r"arguments are those of `(\w+)`")


def summary_of(factory: Any) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((inspect.getdoc(factory) or "").partition("\n\n")[0].split())


def meanings(factory: Any) -> dict[str, str]:
    """Return what the section "Args" of a docstring says, by argument.

    Where it refers to a base class, something else in its module or another method ("See `CMAES`", "As in
    `CMAES`", "As there", "Likewise"), what is said there is returned.
    """
    text = inspect.getdoc(factory) or ""
    if same := _SAME.search(text):
        return _elsewhere(same[1], factory)
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
            there = _elsewhere(reference["name"], factory) if reference["name"] else there
            but = f" But {reference['but']}." if reference["but"] else ""
            found[name] = there.get(name, said) + but
    return found


def inherited_meanings(factory: Any) -> dict[str, str]:
    """Return what docstrings of a class and of those that it is made of say, by argument."""
    found: dict[str, str] = {}
    for base in reversed(getattr(factory, "__mro__", (factory,))):
        if base.__doc__:
            found |= meanings(base)
    return found


def _elsewhere(name: str, factory: Any) -> dict[str, str]:
    """Return what something else of this name says: a base class, a neighbour, or a method."""
    neighbour = getattr(sys.modules.get(getattr(factory, "__module__", "")), name, None)
    methods = (one for one in list_methods().values() if one.target.endswith(f":{name}"))
    for base in getattr(factory, "__mro__", ())[1:]:
        if base.__name__ == name:
            return inherited_meanings(base)
    if callable(neighbour) and neighbour is not factory:
        return inherited_meanings(neighbour)
    return next((meanings(method.factory) for method in methods), {})
