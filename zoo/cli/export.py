"""`zoo export`: a run's log in the form that another tool reads."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import completion
from zoo.cli.common import PLACES, explained


def export(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.", autocompletion=completion.runs)],
    to: Annotated[
        str, typer.Option(help="csv, tensorboard, mlflow or wandb.", autocompletion=completion.loggers)
    ] = "csv",
    out: Annotated[
        str | None,
        typer.Option(
            help="Where to write: for csv a file, standard output by default; for the others a directory, "
            "logs, mlruns and . by default; for mlflow a tracking URI will do as well."
        ),
    ] = None,
) -> None:
    """Write a run's log as another tool reads it, with every step.

    What is written is what the logger of that name would have written while the run was under way.

    \b
    # a table
    zoo export runs/first > first.csv
    # look at it with: tensorboard --logdir logs
    zoo export runs/first --to tensorboard --out logs
    """  # noqa: D301 - \b is for the help page
    with explained():
        import zoo.loggers
        from zoo.core.validation import check_choice

        check_choice("--to", to, zoo.loggers.NAMES)
        if to == "csv" and out is None:
            with tempfile.TemporaryDirectory() as beside:
                path = Path(beside) / "steps.csv"
                zoo.loggers.make(to, path).replay(directory)
                with open(path) as file, contextlib.suppress(BrokenPipeError):  # as of `head`
                    shutil.copyfileobj(file, sys.stdout)
                    sys.stdout.flush()
            return
        place = out or PLACES[to]
        zoo.loggers.make(to, place).replay(directory)
        typer.echo(f"zoo: {directory} is now in {place}", err=True)
