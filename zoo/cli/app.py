"""The command `zoo`, put together from its parts.

Results go to standard output as JSON, progress to standard error.
Exit codes: 0 done, 2 usage, 3 the objective or the workers failed, 130 and 143 stopped by SIGINT and SIGTERM
with a checkpoint.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import zoo
from zoo.cli.minimize import minimize
from zoo.cli.report import report
from zoo.cli.resume import resume

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Optimization without gradients: minimise any black box, stop it at any time, resume it.",
)
for command in (minimize, resume, report):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # so that module:function finds the user's own module
    app()


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(zoo.__version__)
        raise typer.Exit
