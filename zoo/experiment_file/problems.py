"""What is wrong with an experiment file, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 60  # characters of a value that is repeated to its author


@dataclass(frozen=True)
class Place:
    """Where something was said.

    Attributes:
        source: The file, as it was named, or the override as it was given.
        line: Line of the file, or None.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}, line {self.line}"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        place: Where.
        message: What, by which rule, and what to do instead: whole sentences.
    """

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class ExperimentFileError(ValueError):
    """An experiment file cannot be used; the message has a line for each problem.

    Attributes:
        problems: All that was found, in the order of the files and their lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def quoted(names: Iterable[str]) -> str:
    """Return keys as errors name them."""
    return ", ".join(f"`{name}`" for name in names)


def shown(value: Any) -> str:
    """Return a value as it is written in TOML, shortened if it is long."""
    text = _written(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_written(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
