"""`zoo federate`: an x that is good for all clients, from the command line alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from federated.cli import completion
from federated.cli.results import print_result
from federated.kind import KIND, telling_how_far
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
    count,
    explained,
    point_to_export,
    results_alone,
    resuming,
    shows_panel,
    watchers,
)
from zoo.cli.completion import on_error as on_error_completion

_WHAT, _HOW, _WHERE, _END, _KEPT = (
    "What is minimised",
    "How",
    "How clients are reached",
    "When to stop",
    "What is shown and kept",
)


def federate(
    task: Annotated[
        str | None,
        typer.Option(
            help="A task, such as quadratic, or module:name of your own; --list says which there are.",
            rich_help_panel=_WHAT,
            autocompletion=completion.tasks,
        ),
    ] = None,
    task_option: Annotated[
        list[str] | None,
        typer.Option(
            "--task-option",
            "-t",
            help="NAME=VALUE, an option of the task, as in heterogeneity=5; may be given again.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="How many clients there are: the task's option num_clients.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    task_seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the task's own randomness, such as its data and its start; by default it follows "
            "from --seed.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Name of the method, fzoos by default; --list says which there are.",
            rich_help_panel=_HOW,
            autocompletion=completion.methods,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="NAME=VALUE, an option of the method; may be given again.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed; a fresh one by default.", rich_help_panel=_HOW)
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(parser=count, metavar="<int>", help="Rounds at most.", rich_help_panel=_END),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Queries at most, of all clients together, as in 20000 or 2e4.",
            rich_help_panel=_END,
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after this time.", rich_help_panel=_END)] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise or nan: what an exception of a client's function does.",
            rich_help_panel=_END,
            autocompletion=on_error_completion,
        ),
    ] = "raise",
    workers: Workers = 1,
    ray: Ray = False,
    address: Address = None,
    gpus_per_worker: Gpus = 0,
    timeout: Timeout = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory to keep the run in; one that holds this very run is resumed.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Find an x that is good for all clients, each of which answers values of its own function alone.

    \b
    # a quadratic function in five parts
    zoo federate --task quadratic --method fzoos --clients 5 --rounds 20 --seed 1 --out runs/q
    """  # noqa: D301 - \b is for the help page
    who = (workers, ray, address, gpus_per_worker, timeout)
    with explained(resuming(out, *who)), telling_how_far():
        if task is None:
            raise ValueError("--task must be given, as in --task quadratic; --list says which there are.")
        from federated.facade import federate as federated
        from zoo.cli.minimize import options_of

        task_options: dict[str, Any] = options_of(task_option or [])
        if clients is not None:
            task_options["num_clients"] = clients
        chosen = chosen_workers(*who)
        watching = watchers(progress, log or [], out, KIND)
        with results_alone():
            result = federated(
                task,
                method or "fzoos",
                options=options_of(option or []),
                task_options=task_options,
                task_seed=task_seed,
                rounds=rounds,
                budget=budget,
                seconds=seconds,
                on_error=on_error,
                workers=chosen,
                rng=seed,
                callback=watching,
                out=out,
            )
        point_to_export(watching, log or [], out)
        print_result(result, as_json=as_json, out=out, shown=shows_panel(watching))
