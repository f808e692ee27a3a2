"""`zoo compare`: which of several methods, or settings, did better."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.common import Json, explained
from zoo.cli.output import is_terminal, print_json, print_table, remark, say

if TYPE_CHECKING:
    from zoo.report.comparison import Comparison


def compare(
    directories: Annotated[
        list[Path],
        typer.Argument(
            help="Directories of runs, or directories above them.", autocompletion=completion.runs
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to put the page and the pictures.")] = Path("compare"),
    by: Annotated[
        str,
        typer.Option(
            help="What groups of runs differ in: options (method and options), method, objective, folder, "
            "budget or workers."
        ),
    ] = "options",
    targets: Annotated[
        str | None,
        typer.Option(
            help="Values to be reached, or scores, separated by commas; 51 between worst and best by default."
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html/--no-html", help="Whether to draw, or just to print the tables.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Compare runs: medians, when targets were reached, and whether a difference is more than luck.

    Runs with different objectives have a section each. Draws compare/compare.html, which holds all that it
    shows, and PNGs beside it.

    \b
    # what `zoo bench` left behind
    zoo compare runs/bench
    # two settings of a method, each with some seeds
    zoo compare runs/narrow runs/wide --by folder
    # evaluations to values of your own
    zoo compare runs/bench --targets 1,0.01,1e-4 --out compared
    """  # noqa: D301 - \b is for the help page
    with explained():
        from zoo.report.comparison import GUIDE, comparisons, write_comparison

        found = comparisons(directories, by, None if targets is None else _targets(targets))
        shown = is_terminal() and not as_json
        if shown:
            for one in found:
                _show(one)
            for better in dict.fromkeys(one.section.wording.better for one in found if one.pairs):
                say(GUIDE.format(better=better), "dim")
        else:
            print_json({"sections": [_plain(one.plain) for one in found]})
        if html:
            page, *pictures = write_comparison(found, out)
            if shown:
                remark(f"{page} and {len(pictures)} files beside it")


def _targets(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"`--targets` must be numbers separated by commas, got {text!r}.") from None


def _show(one: Comparison) -> None:
    from zoo.report.comparison import (
        PAIR_COLUMNS,
        about_target,
        columns_of,
        left_out,
        pair_rows_of,
        rows_of,
    )

    columns = columns_of(one)
    say(one.section.title, "bold")
    print_table(columns, rows_of(one), right=columns[1:], spare=("Quartiles", columns[5]))
    say(about_target(one), "dim")
    if one.unequal:
        say(one.unequal)
    if one.pairs:
        print_table(PAIR_COLUMNS, pair_rows_of(one), right=("A12", "p"))
    for words in (left_out(one), one.remark):
        if words:
            say(words, "dim")
    say()


def _plain(value: Any) -> Any:
    """Return something as JSON can hold it: null for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
