"""`zoo federate`: an x that is good for all clients, from the command line alone."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    blaming,
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

if TYPE_CHECKING:
    from federated.contest import Entrant

_OURS = Path(__file__).parents[1]
_WHAT, _HOW, _REACHED, _END, _KEPT = (
    "What is minimised",
    "How",
    "How clients are reached, on a virtual clock",
    "When to stop",
    "What is shown and kept",
)
_FIRST_SEED = 1  # where several methods are compared and nobody says which


def _share(name: str) -> Callable[[str], float]:
    """Return what reads a share of the clients, or a number of them as an int."""

    def read(text: str) -> float:
        if text.strip() == "1":
            raise typer.BadParameter(f"must be 1.0 for all of them, or --network {name}=1 for a single one.")
        with contextlib.suppress(ValueError):
            return int(text)
        with contextlib.suppress(ValueError):
            return float(text)
        raise typer.BadParameter(
            f"must be a share, as in 0.5, or a number of clients, as in 10, got {text!r}."
        )

    return read


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
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Name of the method, fzoos by default; may be given again, to compare several. One that is "
            "to run twice needs labels, as in mine=fzoos.",
            rich_help_panel=_HOW,
            autocompletion=completion.methods,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="NAME=VALUE, an option of all methods that have it, or METHOD.NAME=VALUE, of one; may be "
            "given again.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Seed; a fresh one by default, 1 where methods are compared. May be given again, for a run "
            "of each.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many runs of each method, with seeds from --seed on, or from 1.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    participation: Annotated[
        float | None,
        typer.Option(
            parser=_share("participation"),
            metavar="<share>",
            help="Share of the clients that are asked in a round, as in 0.5, or their number, as in 10.",
            rich_help_panel=_REACHED,
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="Probability that a client vanishes in a round.", rich_help_panel=_REACHED),
    ] = None,
    wait_for: Annotated[
        float | None,
        typer.Option(
            parser=_share("wait_for"),
            metavar="<share>",
            help="Share of the asked clients, or their number, whose answers are waited for.",
            rich_help_panel=_REACHED,
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(help="Seconds after which nobody is waited for.", rich_help_panel=_REACHED),
    ] = None,
    latency: Annotated[
        float | None, typer.Option(help="Median seconds of a client's reply.", rich_help_panel=_REACHED)
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            help="How much clients differ in speed: deviation of its logarithm.", rich_help_panel=_REACHED
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            "-n",
            help="NAME=VALUE, any argument of federated.Network, as in bandwidth=1e6 or slow=[[0,5]]; may be "
            "given again.",
            rich_help_panel=_REACHED,
        ),
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
    traffic: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Bytes, up and down, after which no further round is begun.",
            rich_help_panel=_END,
        ),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="End as soon as F is this or less.", rich_help_panel=_END)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="End after this time; of several runs, each.", rich_help_panel=_END),
    ] = None,
    measure_every: Annotated[
        int,
        typer.Option(
            min=0, help="Rounds from one look at F to the next; 0 for one at the end.", rich_help_panel=_END
        ),
    ] = 1,
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
            help="Directory to keep the run in; several are in OUT/METHOD/seed-N. One that holds this very "
            "run is resumed.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="List tasks and methods, or with --task or --method the options of one, and end."
        ),
    ] = False,
) -> None:
    """Find an x that is good for all clients, each of which answers values of its own function alone.

    The same seed gives the same bytes, by any number of workers, also when it is stopped or killed and
    resumed. Several methods, or seeds, are compared: all have the same task and start where the seed is the
    same, and what is stopped goes on by the same command.

    \b
    # a quadratic function in five parts
    zoo federate --task quadratic --method fzoos --clients 5 --rounds 20 --seed 1 --out runs/quadratic
    zoo report runs/quadratic
    # three methods by the same number of queries, three runs of each
    zoo federate --task quadratic --clients 5 -m fzoos,fedzo,scaffold-2 --budget 5400 --seeds 3 --out runs/all
    # the same method in two forms
    zoo federate --task levy -m ours=fzoos -m theirs=fzoos -o theirs.published=true --rounds 5
    # half of a hundred clients each round, of which some vanish
    zoo federate --task ackley -t dim=50 --clients 100 -m fedzo --participation 0.5 --dropout 0.3 --rounds 20
    # tasks and methods, and the options of one
    zoo federate --list
    zoo federate --list --method fzoos
    """  # noqa: D301 - \b is for the help page
    if list_:
        with explained():
            from federated.cli.listing import print_choices

            print_choices(task, _names(method or []), as_json=as_json)
        return
    who = (workers, ray, address, gpus_per_worker, timeout)
    labels = _labels(method if method is not None else ["fzoos"])
    is_single = len(labels) == 1 and seeds is None and len(seed or ()) <= 1
    again = shlex.join(["zoo", *sys.argv[1:]]) if out is not None else None
    kept: dict[str, Any] = {"resume": resuming(out, *who), "out": out} if is_single else {"resume": again}
    with explained(**kept), telling_how_far():
        if task is None:
            raise ValueError("--task must be given, as in --task quadratic; --list says which there are.")
        if not labels:
            raise ValueError("--method must be given, as in --method fzoos; --list says which there are.")
        said = {
            "participation": participation,
            "dropout": dropout,
            "wait_for": wait_for,
            "deadline": deadline,
            "latency": latency,
            "spread": spread,
        }
        arguments: dict[str, Any] = {
            "task": task,
            "task_options": _task_options(task, task_option, clients),
            "task_seed": task_seed,
            "network": _network(network, {name: value for name, value in said.items() if value is not None}),
            "rounds": rounds,
            "budget": budget,
            "traffic": traffic,
            "target": target,
            "measure_every": measure_every,
            "on_error": on_error,
        }
        entrants, chosen_seeds = _entrants(labels, option or []), _seeds(seed, seeds)
        chosen = chosen_workers(*who)
        watching = watchers(progress, log or [], out, KIND)
        with results_alone(), blaming(task, _OURS):
            result: Any
            if is_single:
                from federated.facade import federate as federated

                result = federated(
                    **arguments,
                    method=entrants[0].method,
                    options=entrants[0].options,
                    seconds=seconds,
                    workers=chosen,
                    rng=seed[0] if seed else None,
                    callback=watching,
                    out=out,
                )
            else:
                from federated.contest import Contest

                contest = Contest(entrants, chosen_seeds, arguments, chosen, seconds, out)
                result = contest.run(watching)
        if is_single:
            point_to_export(watching, log or [], out)
        print_result(result, as_json=as_json, out=out, shown=shows_panel(watching))


def _names(given: Sequence[str]) -> list[str]:
    """Return the names of methods, of which several may be separated by commas."""
    return [name.strip() for names in given for name in names.split(",") if name.strip()]


def _labels(given: Sequence[str]) -> list[tuple[str, str]]:
    """Return labels and names of methods."""
    from federated.methods import label_of

    parted = [name.rpartition("=") for name in _names(given)]
    return [(label if equals else label_of(name), name) for label, equals, name in parted]


def _entrants(labels: Sequence[tuple[str, str]], options: Sequence[str]) -> tuple[Entrant, ...]:
    """Return the methods with their options.

    Raises:
        ValueError: A label is given twice, or an option reaches no method.
    """
    from federated.contest import Entrant
    from federated.methods import find
    from zoo.cli.minimize import options_of
    from zoo.core.validation import hint, listed

    names = [label for label, _ in labels]
    if twice := [label for number, label in enumerate(names) if label in names[:number]]:
        raise ValueError(
            f"`--method` {twice[0]} is given twice: call one of them something else, as in --method "
            f"other={twice[0]}."
        )
    known = {label: find(name).options() for label, name in labels}
    to_all: dict[str, dict[str, Any]] = {label: {} for label in names}
    to_one: dict[str, dict[str, Any]] = {label: {} for label in names}
    for name, value in options_of(list(options), "--option").items():
        label, dot, own = name.partition(".")
        if dot and label not in names:
            raise ValueError(
                f"`--option` {name} is for a method {label!r}, which does not take part.{hint(label, names)} "
                f"Valid: {listed(names)}."
            )
        reached = [label] if dot else [one for one in names if name in known[one] or len(names) == 1]
        if not reached:
            near = hint(name, {option for options in known.values() for option in options})
            raise ValueError(f"`--option` {name} is an option of none of {listed(names)}.{near}")
        for one in reached:
            (to_one if dot else to_all)[one][own if dot else name] = value
    return tuple(Entrant(label, name, {**to_all[label], **to_one[label]}) for label, name in labels)


def _seeds(given: Sequence[int] | None, number: int | None) -> tuple[int, ...]:
    """Return the seeds of the runs of each method."""
    from zoo.core.validation import check_count

    for one in given or ():
        check_count("--seed", one, minimum=0)
    if number is None:
        return tuple(given or (_FIRST_SEED,))
    if given and len(given) > 1:
        raise ValueError(
            "`--seeds` must be left out where several --seed say which, or give one to begin with."
        )
    first = given[0] if given else _FIRST_SEED
    return tuple(range(first, first + number))


def _task_options(task: str, given: list[str] | None, clients: int | None) -> dict[str, Any]:
    """Return the options of the task."""
    from federated.cli.listing import options_of_task
    from zoo.cli.minimize import options_of

    options = options_of(given or [], "--task-option")
    if clients is None:
        return options
    if "num_clients" in options:
        raise ValueError("`--clients` must be left out where `--task-option num_clients` says the same.")
    known = options_of_task(task)
    if known is not None and "num_clients" not in known:
        raise ValueError(f"`--clients` must be left out: {task} says itself how many there are.")
    return {**options, "num_clients": clients}


def _network(given: list[str] | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the network."""
    from zoo.cli.minimize import options_of

    options = options_of(given or [], "--network")
    for name in said:
        if name in options:
            raise ValueError(
                f"`--{name.replace('_', '-')}` must be left out where `--network {name}` says the same."
            )
    return {**options, **said}
