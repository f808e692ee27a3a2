"""What the page on experiment files says is so. As a script, this writes the tables of keys into it."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from zoo.experiment_file import tables
from zoo.experiment_file.problems import shown

PAGE = Path(__file__).parents[2] / "docs" / "experiment_files.md"
KEYS = re.compile(r"(<!-- keys: written by[^\n]*\n)(.*?)(<!-- end of keys -->)", re.DOTALL)

TABLES: dict[str, type[tables.Table]] = {
    "job": tables.Job,
    "objective": tables.Objective,
    "objective.known": tables.Known,
    'objective.space.NAME, type = "float"': tables.Float,
    'objective.space.NAME, type = "integer"': tables.Integer,
    'objective.space.NAME, type = "categorical"': tables.Categorical,
    "method": tables.Method,
    "execution": tables.Execution,
    "stop": tables.Stop,
}


def rules(annotation: Any) -> Iterator[str]:
    """Yield what a type says that its values must be."""
    if isinstance(annotation, tables.Must):
        yield annotation.words
    for inner in getattr(annotation, "__metadata__", ()):
        yield from rules(inner)
    found = [rule for inner in typing.get_args(annotation) for rule in rules(inner)]
    yield from [f"a list, each {rule}" for rule in found] if typing.get_origin(annotation) is list else found


def row(name: str, field: Any) -> str:
    """Return the line of a key."""
    found = [*(rule for inner in field.metadata for rule in rules(inner)), *rules(field.annotation)]
    rule = found[0] if found else "a table"
    if typing.get_origin(field.annotation) is typing.Literal:
        rule = shown(typing.get_args(field.annotation)[0])
    if field.default is PydanticUndefined:
        default = "must be said"
    elif field.default is None:
        default = field.json_schema_extra["absent"]
    else:
        default = f"`{shown(field.default)}`"
    return f"| `{name}` | {rule} | {default} | {field.description} |"


def text() -> str:
    """Return the tables of keys."""
    lines = ["`include`, before all tables, is a file or a list of files.", ""]
    for name, model in TABLES.items():
        table, _, rest = name.partition(", ")
        lines += [f"### `[{table}]`{f' with `{rest}`' if rest else ''}", "", model.__doc__ or "", ""]
        lines += ["| key | what it must be | default | meaning |", "|---|---|---|---|"]
        lines += [row(key, field) for key, field in model.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def complete() -> str:
    """Return the example that is to have every key."""
    (found,) = re.findall(
        r"^```toml\n(# complete\.toml\n.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(found)


def test_tables_of_keys_are_current() -> None:
    found = KEYS.search(PAGE.read_text())
    assert found is not None
    assert found[2] == text(), "run `python tests/documentation/test_experiment_files.py`"


def test_example_has_every_key() -> None:
    example = complete()
    for table, model in TABLES.items():
        for key in model.model_fields:
            assert re.search(rf"^(# )?{key} = |^(# )?\[{table}\.{key}\b", example, re.MULTILINE), (table, key)


if __name__ == "__main__":
    PAGE.write_text(KEYS.sub(lambda found: found[1] + text() + found[3], PAGE.read_text()))
