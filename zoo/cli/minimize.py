"""`zoo minimize`: a black box from the command line alone."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

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
    count,
    explained,
    point_to_export,
    results_alone,
    resuming,
    shows_panel,
    watchers,
)
from zoo.cli.naming import check_name
from zoo.cli.results import print_result
from zoo.core.validation import MOST_VARIABLES

_WHERE, _HOW, _END = "Where to search", "How to search", "When to stop"


def minimize(
    objective: Annotated[
        str,
        typer.Argument(
            metavar="OBJECTIVE",
            help='module:function, or "module:factory()"; with --command, a program and its arguments.',
            autocompletion=completion.objectives,
        ),
    ],
    x0: Annotated[
        str | None,
        typer.Option(
            help="Start: numbers separated by commas, or VALUExDIM, as in 0x10 for ten zeros.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="LOWER:UPPER for all variables, or one pair for each, separated by commas; without --x0, "
            "LOWER:UPPERxDIM says how many there are.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="How far from x0 the optimum may be.", rich_help_panel=_WHERE)
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help="module:function whose value is to be at least 0, may be given again; or the word returned, "
            "if OBJECTIVE returns them itself.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Name of the method; `zoo list` says which there are.",
            rich_help_panel=_HOW,
            autocompletion=completion.methods,
        ),
    ] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, an option of the method; may be given again. `zoo list METHOD` says which.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed; a fresh one by default.", rich_help_panel=_HOW)
    ] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="The function is random.", rich_help_panel=_HOW)
    ] = False,
    vectorized: Annotated[
        bool,
        typer.Option("--vectorized", help="The function takes many points at once.", rich_help_panel=_HOW),
    ] = False,
    command: Annotated[
        bool,
        typer.Option(
            "--command", help="OBJECTIVE is a program, given one line per point.", rich_help_panel=_HOW
        ),
    ] = False,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Evaluations at most, as in 2000 or 2e3; 1000 times the dimension by default.",
            rich_help_panel=_END,
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="End as soon as a value is this or less.", rich_help_panel=_END),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after this time.", rich_help_panel=_END)] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise or nan: what an exception in the function does.",
            rich_help_panel=_END,
            autocompletion=completion.on_error,
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
            help="Directory to keep the run in; one that holds it is resumed.",
            rich_help_panel="What is shown and kept",
        ),
    ] = None,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Minimise a black box: a Python function, or a program.

    The function is given a numpy array and returns a number; its module is looked for in the working
    directory, too. Integers, categories and logarithmic scales are for experiment files (`zoo run`), which
    can say all of this and are there tomorrow.

    \b
    # a function of two variables, of your own: loss in model.py
    zoo minimize model:loss --x0 1,0.5 --bounds 0:10,0:1 --budget 500
    # a problem that comes along, kept in a directory, by two processes
    zoo minimize zoo.problems:rosenbrock --x0 0x5 --workers 2 --out runs/first
    # a program that reads a point from a line and prints its value
    zoo minimize --command "python3 simulate.py" --bounds -1:1x3 --budget 100
    """  # noqa: D301 - \b is for the help page
    import zoo

    who = (workers, ray, address, gpus_per_worker, timeout)
    with explained(resuming(out, *who), out=out):
        box = None if bounds is None else bounds_of(bounds)
        start = None if x0 is None else start_of(x0)
        if box is not None and len(box) == 1 and start is not None:
            box = box * len(start)
        chosen = chosen_workers(*who)
        watching = watchers(progress, log or [], out)
        with results_alone():
            if not command:
                check_name("OBJECTIVE", objective)
            for name in constraint or ():
                if name != "returned":
                    check_name("--constraint", name, is_called=False)
            result = zoo.minimize(
                shlex.split(objective) if command else objective,
                start,
                method=method,
                bounds=box,
                constraints=constraint or (),
                scale=scale,
                budget=budget,
                target=target,
                seconds=seconds,
                rng=seed,
                noise=noise,
                vectorized=vectorized,
                workers=chosen,
                on_error=on_error,
                callback=watching,
                out=out,
                options=options_of(option or []),
            )
        point_to_export(watching, log or [], out)
        print_result(result, as_json=as_json, out=out, shown=shows_panel(watching))


def start_of(text: str) -> list[float]:
    """Return the point that `--x0` says."""
    value, times, dim = text.partition("x")
    try:
        return [float(value)] * _dim(dim) if times else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            "`--x0` must be numbers separated by commas, or VALUExDIM with DIM up to "
            f"{MOST_VARIABLES}, got {text!r}."
        ) from None


def bounds_of(text: str) -> list[tuple[float, float]]:
    """Return the pairs that `--bounds` says."""
    single, times, dim = text.partition("x")
    try:
        pairs = [part.split(":") for part in single.split(",")]
        found = [(float(lower), float(upper)) for lower, upper in pairs]
        if times and len(found) > 1:
            raise ValueError
        return found * _dim(dim) if times else found
    except ValueError:
        raise ValueError(
            "`--bounds` must be LOWER:UPPER pairs separated by commas (inf for no limit), or LOWER:UPPERxDIM "
            f"with DIM up to {MOST_VARIABLES}, got {text!r}."
        ) from None


def _dim(text: str) -> int:
    dim = int(text)
    if dim > MOST_VARIABLES:
        raise ValueError
    return dim


# As Python and `zoo list METHOD` write them, beside what JSON has.
_WORDS = {"None": None, "inf": math.inf, "True": True, "False": False}


def options_of(given: Iterable[str], argument: str = "--option") -> dict[str, Any]:
    """Return the options that several NAME=VALUE say.

    Args:
        given: These.
        argument: Where they were said, for errors.

    Raises:
        ValueError: One has another form.

    Example:
        >>> options_of(["alpha=inf", "sigma=2.5", "memory=none", "batch_size=None", "elitist=False"])
        {'alpha': inf, 'sigma': 2.5, 'memory': 'none', 'batch_size': None, 'elitist': False}
    """
    options: dict[str, Any] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise ValueError(f"`{argument}` must have the form NAME=VALUE, got {entry!r}.")
        try:
            options[name] = _WORDS[text] if text in _WORDS else json.loads(text)
        except (ValueError, RecursionError):
            options[name] = text
    return options
