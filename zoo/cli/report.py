"""`zoo report`: where a run is, and how it got there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.common import explained


def report(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.")],
    digest: Annotated[
        bool, typer.Option("--digest", help="Print sha256 digests of state, values and counters.")
    ] = False,
) -> None:
    """Say where a run is.

    \b
    zoo report runs/first
    zoo report --digest runs/first
    """  # noqa: D301 - \b is for the help page
    from zoo.run.digest import digest_of_run

    with explained():
        found = digest_of_run(directory)
        if digest:
            typer.echo(f"state     {found.state}")
            typer.echo(f"values    {found.values}")
            typer.echo("counters  " + " ".join(f"{name}={count}" for name, count in found.counters.items()))
            typer.echo(f"digest    {found.total}")
            return
        ended = directory / "result.json"
        content: dict[str, Any] = (
            json.loads(ended.read_text()) if ended.exists() else {"message": "not finished"}
        )
        typer.echo(json.dumps({"directory": str(directory), **found.counters, **content}, indent=2))
