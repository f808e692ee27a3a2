"""What pydantic found wrong, in sentences that name the key, the rule, the value and the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from zoo.core.validation import hint
from zoo.experiment_file import tables
from zoo.experiment_file.lines import Path
from zoo.experiment_file.problems import quoted, shown

Scheme: TypeAlias = Mapping[tuple[str, ...], type[tables.Table]]
"""Tables by their place, () being the whole file."""

_OWN: Scheme = {
    (): tables.Tables,
    ("job",): tables.Job,
    ("objective",): tables.Objective,
    ("objective", "known"): tables.Known,
    ("method",): tables.Method,
    ("execution",): tables.Execution,
    ("stop",): tables.Stop,
}
_VARIABLES: dict[Any, type[tables.Table]] = {
    "float": tables.Float,
    "integer": tables.Integer,
    "categorical": tables.Categorical,
}


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
        path: Where in the tables.
        message: What, by which rule, and what to do instead.
        lost: Whether what was to be said there is not known now; nothing is where a key means nothing.
    """

    path: Path
    message: str
    lost: bool = True


def findings(error: ValidationError, scheme: Scheme = _OWN) -> Iterator[Finding]:
    """Yield all that pydantic found wrong."""
    for one in error.errors():
        path, message = _sentence(one["type"], one["loc"], one["input"], one.get("ctx", {}), scheme)
        yield Finding(path, message, one["type"] != "extra_forbidden")


def _sentence(kind: str, loc: Path, value: Any, context: dict[str, Any], scheme: Scheme) -> tuple[Path, str]:
    path = _path(loc)
    if kind == "extra_forbidden":
        return path, unknown(path, _model(loc[:-1], scheme), scheme)
    if kind == "missing":
        return path[:-1], f"{table_name(path[:-1])} must have `{path[-1]}`."
    if kind == "must":
        for index in context["at"]:
            path, value = (*path, index), value[index]
        # Texts get what is near them; others are of the wrong type altogether.
        nearest = hint(value, context["choices"], '"') if isinstance(value, str) else ""
        return path, f"{key_name(path)} must be {context['words']}, got {shown(value)}.{nearest}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        listed = ", ".join(f'"{name}"' for name in _VARIABLES)
        if kind == "union_tag_not_found":
            return path, f"{table_name(path)} must have `type`, one of {listed}."
        tag = value["type"]
        nearest = hint(tag, _VARIABLES, '"') if isinstance(tag, str) else ""
        return (*path, "type"), f"`type` must be one of {listed}, got {shown(tag)}.{nearest}"
    if kind == "list_type":
        return path, f"{key_name(path)} must be a list, got {shown(value)}."
    return path, f"{table_name(path)} must be a table, got {shown(value)}."


def unknown(path: Path, model: type[tables.Table], scheme: Scheme = _OWN) -> str:
    """Return what to say of a key that a table does not know."""
    *table, key = path
    valid = list(model.model_fields)
    if not table:
        valid.append("include")
    where = f" in {table_name(tuple(table))}" if table else " at the top"
    said = f"unknown key `{key}`{where}."
    if table and key == "include":
        return f"{said} It belongs at the top, before all tables."
    inner = {name: other for name, other in scheme.items() if name}
    for name, other in inner.items():
        if key in other.model_fields:
            return f"{said} It belongs in {table_name(name)}."
    if nearest := hint(str(key), valid, "`"):
        return said + nearest
    for name, other in inner.items():
        if nearest := hint(str(key), other.model_fields, "`", cutoff=0.75):
            return f"{said}{nearest[:-1]} in {table_name(name)}?"
    return f"{said} Valid: {quoted(valid)}."


def key_name(path: Path) -> str:
    """Return the last key of a path as errors name it, with the indices behind it."""
    last = max((i for i, part in enumerate(path) if isinstance(part, str)), default=0)
    return f"`{path[last]}{''.join(f'[{index}]' for index in path[last + 1 :])}`"


def table_name(path: Path) -> str:
    """Return a table as errors name it; one of several with the same name is told by its line."""
    name = ".".join(part for part in path if isinstance(part, str))
    return f"[[{name}]]" if path and isinstance(path[-1], int) else f"[{name}]"


def _path(loc: Path) -> Path:
    """Return where something stands, where pydantic also says which of several types it has tried."""
    is_tagged = loc[:2] == ("objective", "space") and len(loc) > 3
    return (*loc[:3], *loc[4:]) if is_tagged else loc


def _model(loc: Path, scheme: Scheme) -> type[tables.Table]:
    if loc[:2] == ("objective", "space"):
        return _VARIABLES[loc[3]]
    place = tuple(part for part in loc if isinstance(part, str))  # tables in an array are all alike
    return scheme.get(place, scheme[()])
