"""What is printed for people, and for other programs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import typer

from zoo.core.validation import printable

_WIDEST = 40  # characters that a column gets on a terminal before others are left out


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether somebody reads along; `stream` is standard output by default."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Return lines that no terminal takes for commands: names in run directories may be anybody's."""
    return "\n".join(map(printable, text.split("\n")))


def print_json(content: Any) -> None:
    """Print something as JSON."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    # JSON itself escapes the other characters that terminals obey.
    typer.echo(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table: drawn and coloured on a terminal, else as aligned columns.

    Args:
        columns: Their titles.
        rows: Their entries; the first one is the row's name.
        title: What it shows; on a terminal only.
        right: Columns whose entries are numbers.
        spare: Columns that a narrow terminal can do without, the first one first.
    """
    rows = [list(map(printable, row)) for row in rows]
    if not is_terminal():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            cells = (
                cell.rjust(width) if name in right else cell.ljust(width)
                for name, cell, width in zip(columns, row, widths, strict=True)
            )
            typer.echo("  ".join(cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    room = {
        name: min(_WIDEST, max(map(len, column))) + 3
        for name, *column in zip(columns, *([columns, *rows]), strict=True)
    }
    for name in spare:
        if sum(room.values()) > console.width:
            del room[name]
    fits = sum(room.values()) <= console.width
    kept = [number for number, name in enumerate(columns) if name in room]
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number in kept:
        table.add_column(
            columns[number],
            style="bold cyan" if number == 0 else None,
            no_wrap=fits and (number == 0 or columns[number] in right),  # else words go on below
            justify="right" if columns[number] in right else "left",
        )
    for row in rows:
        table.add_row(*(Text(row[number]) for number in kept))
    console.print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print what is known of something, each with its name; what is empty is left out."""
    shown = {printable(name): clean(value) for name, value in facts.items() if value}
    width = max(map(len, shown), default=0)
    if not is_terminal():
        for name, value in shown.items():
            typer.echo(f"  {name:{width}}  {value}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in shown.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(value))
    Console().print(table)


def say(text: str = "", style: str = "") -> None:
    """Print a line, wrapped and in colour where that is a terminal."""
    text = clean(text)
    if not is_terminal():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(text, style=style))


def remark(text: str) -> None:
    """Print a line that is for people only: not where something else reads."""
    if is_terminal():
        say(text, "dim")


def print_code(text: str, language: str) -> None:
    """Print text of some language, in colours on a terminal."""
    if not is_terminal():
        typer.echo(text.rstrip())
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text.rstrip(), language, theme="ansi_dark", word_wrap=True))
