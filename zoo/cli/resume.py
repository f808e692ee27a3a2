"""`zoo resume`: go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import completion
from zoo.cli.common import (
    Address,
    Gpus,
    Json,
    Log,
    Progress,
    Ray,
    Timeout,
    Workers,
    chosen_workers,
    explained,
    results_alone,
    resuming,
    shows_panel,
    watchers,
)
from zoo.cli.naming import check_name
from zoo.cli.results import print_result


def resume(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Directory of the run.", autocompletion=completion.runs),
    ],
    workers: Workers = 1,
    ray: Ray = False,
    address: Address = None,
    gpus_per_worker: Gpus = 0,
    timeout: Timeout = None,
    seconds: Annotated[float | None, typer.Option(help="Stop again after this time.")] = None,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed.

    It ends with the result that it would have had, to the last bit, whatever the number of workers. One
    that is finished is not touched: its result is printed again.

    \b
    # go on, and print the result
    zoo resume runs/first
    # on two processes, a minute at most
    zoo resume runs/first --workers 2 --seconds 60
    """  # noqa: D301 - \b is for the help page
    import zoo

    who = (workers, ray, address, gpus_per_worker, timeout)
    with explained(resuming(directory, *who)):
        chosen = chosen_workers(*who)
        watching = watchers(progress, log or [], directory)
        with results_alone():
            _check_objective(directory)
            result = zoo.resume(directory, workers=chosen, seconds=seconds, callback=watching)
        print_result(result, as_json=as_json, out=directory, shown=shows_panel(progress))


def _check_objective(directory: Path) -> None:
    """Say where to be, if the module of a run's objective cannot be found from here."""
    from zoo.run.directory import read_config

    identity = read_config(directory)[0]["objective"]
    name = identity["name"]
    if set(identity) <= {"name", "constraints"} and not name.startswith("command "):
        try:
            check_name("the objective", name)
        except ValueError as error:
            raise ValueError(
                f"{directory} minimises {name!r}: {error} Be where that module is found, or go on by "
                "`zoo run` if it is beside an experiment file."
            ) from None
