"""On which line of a TOML document each of its keys and values stands.

The parsers of TOML that there are do not say. A document that one of them has accepted is read here once
more, with no look at what its values are.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the top of a document down to a value."""

DEEPEST = 50
"""Keys and indices that a path may have: what is further down is refused, and where it stands is cut off."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotes may stand inside, right before the end
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*|\n|[ \t\r]+|[][{}=,.]"
    r"|[^][{}=,.#\"'\s]+",
    re.DOTALL,
)
_ENDS = {"\n", ",", "]", "}", ""}  # of a value that is neither array nor table


def lines_of(text: str) -> Mapping[Path, int]:
    r"""Return the line, counted from 1, of every table, key and element of an array.

    Args:
        text: A valid TOML document.

    Example:
        >>> lines_of('[stop]\nbudget = 100\n')
        {('stop',): 1, ('stop', 'budget'): 2}
    """
    return _Reader(text).read()


def line_beyond(text: str, depth: int, length: int) -> int:
    r"""Return the first line with too many brackets around something, or with a word that is too long.

    Args:
        text: A document, valid or not.
        depth: How many brackets may be open.
        length: How many characters a word may have.

    Returns:
        The line, counted from 1; the last one if there is none.

    Example:
        >>> line_beyond("a = [1]\nb = [[2]]\nc = 3", 1, 9)
        2
    """
    line, opened = 1, 0
    for token in _TOKEN.findall(text.rstrip("\n")):
        opened += (token in ("[", "{")) - (token in ("]", "}"))
        if opened > depth or (len(token) > length and token[0] not in "\"'#" and not token.isspace()):
            return line
        line += token.count("\n")
    return line


def key_of(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key.

    Raises:
        ValueError: It is none.

    Example:
        >>> key_of('method.options."a.b"')
        ('method', 'options', 'a.b')
    """
    table = tomllib.loads(f"{text} = 0")
    parts = []
    while isinstance(table, dict):
        if len(table) != 1:
            raise ValueError(f"{text!r} is more than one key.")
        ((part, table),) = table.items()
        parts.append(part)
    return tuple(parts)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at, self._line = 0, 1
        self._found: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # of the tables in each array of tables

    def read(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip():
            if self._peek() == "[":
                table = self._header()
            else:
                self._assignment(table)
        return self._found

    def _header(self) -> Path:
        line = self._line
        self._next()
        is_array = self._peek() == "["
        if is_array:
            self._next()
        *parents, last = self._key()
        while self._peek() == "]":
            self._next()
        path: Path = ()
        for part in parents:
            path = self._last((*path, part))
            self._found.setdefault(path, line)
        path = (*path, last)
        self._found.setdefault(path, line)
        if is_array:
            self._counts[path] = self._counts.get(path, 0) + 1
            path = self._last(path)
        self._found[path] = line
        return path

    def _last(self, path: Path) -> Path:
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _assignment(self, table: Path) -> None:
        line, path = self._line, table
        for part in self._key():
            path = (*path, part)
            self._found.setdefault(path, line)
        self._skip()
        self._next()  # the equals sign
        self._skip()
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while self._skip() and (token := self._peek()) not in ("=", "]"):
            self._next()
            if token != ".":
                parts.append(_unquoted(token))
        return parts[: DEEPEST + 1]  # paths of all parts would be quadratic in their number

    def _value(self, path: Path) -> None:
        self._found.setdefault(path, self._line)
        opened = self._peek()
        if opened not in ("[", "{"):
            while self._peek() not in _ENDS and not self._peek().startswith("#"):
                self._next()
            return
        self._next()
        number, end = 0, "]" if opened == "[" else "}"
        while self._skip() and self._peek() != end:
            if self._peek() == ",":
                self._next()
            elif opened == "{":
                self._assignment(path)
            else:
                self._value((*path, number))
                number += 1
        self._next()

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> None:
        self._line += self._peek().count("\n")
        self._at += 1

    def _skip(self) -> bool:
        """Pass over what says nothing; return whether something follows."""
        while (token := self._peek()) and (token.isspace() or token.startswith("#")):
            self._next()
        return bool(token)


def _unquoted(token: str) -> str:
    if token[0] not in "\"'":
        return token
    text: str = tomllib.loads(f"key = {token}")["key"]
    return text
