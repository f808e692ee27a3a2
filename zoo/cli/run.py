"""`zoo run`: an experiment that a file describes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import completion
from zoo.cli.common import (
    Json,
    Log,
    Progress,
    explained,
    point_to_export,
    results_alone,
    shows_panel,
    watchers,
)
from zoo.cli.output import print_code
from zoo.cli.results import print_result


def run(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Experiment file, TOML.", autocompletion=completion.files),
    ],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Say something else than the file; may be given again."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory to keep the run in, if not what the file says; runs/FILE by default."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be run, with all defaults; evaluate nothing."),
    ] = False,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Run the experiment that a file describes.

    Its directory is resumed where it holds this very experiment, and refused where it holds another one.
    Modules are looked for beside the file.

    \b
    # what would be run; what is wrong with the file is said with its line
    zoo run experiment.toml --dry-run
    zoo run experiment.toml
    # the same with another method, kept elsewhere
    zoo run experiment.toml --set method.name=de --out runs/de
    """  # noqa: D301 - \b is for the help page
    with explained():
        from zoo.experiment_file import read_experiment

        again = ["zoo", "run", str(file), *(word for one in change or () for word in ("--set", one))]
        if out is not None:
            again += ["--out", str(out)]
        with results_alone():
            experiment = read_experiment(file, change or (), out)
        if dry_run:
            print_code(experiment.toml(), "toml")
            return
    place, kind = experiment.out, experiment.kind
    with explained(shlex.join(again)):
        logs = list(dict.fromkeys([*experiment.log, *(log or [])]))
        with results_alone():
            watching = watchers(progress, logs, place, kind)
            result = experiment.run(watching)
        point_to_export(watching, logs, place)
        show = print_result if kind is None else kind.print_result
        show(result, as_json=as_json, out=place, shown=shows_panel(watching))
