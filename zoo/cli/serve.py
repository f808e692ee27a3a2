"""`zoo serve`: runs as they go, on a page of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.common import explained


def serve(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DIR", help="Runs, and folders of runs; the current folder by default."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the page: 0 for any; the first free one from 8050 by default.")
    ] = None,
) -> None:
    """Show runs as they go, on a page that only this machine can see.

    Runs are found again and again; a directory that does not exist yet may come. They are only read, so the
    page can neither disturb a run nor change it. Ctrl-C ends it.

    \b
    zoo serve runs
    zoo serve runs/first runs/second --port 8080
    """  # noqa: D301 - \b is for the help page
    import contextlib

    from zoo.serve.server import Server, plotly

    with explained():
        server = Server(directories or [Path()], port)
    typer.echo(f"Runs are shown on {server.url} - Ctrl-C ends it.")
    for path in directories or ():
        if not path.is_dir():
            typer.echo(f"zoo: there is no directory {path} yet; it is waited for.", err=True)
    if plotly() is None:
        typer.echo("zoo: there are no plots without plotly: pip install 'gradfree[serve]'", err=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
