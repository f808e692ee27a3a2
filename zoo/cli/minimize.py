"""`zoo minimize`: a black box from the command line alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.common import (
    Address,
    Gpus,
    Ray,
    Timeout,
    Workers,
    chosen_workers,
    explained,
    print_result,
    results_alone,
)


def minimize(
    objective: Annotated[
        str,
        typer.Argument(
            help='module:function, or "module:factory()"; with --command, a program and its arguments.'
        ),
    ],
    x0: Annotated[
        str | None, typer.Option(help="Start: numbers separated by commas, or VALUExDIM, as in 0x10.")
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(help="LOWER:UPPER for all variables, or one pair for each, separated by commas."),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="module:function whose value is to be at least 0; may be given again."),
    ] = None,
    method: Annotated[str, typer.Option(help="Name of the method.")] = "auto",
    budget: Annotated[
        int | None, typer.Option(help="Evaluations at most; 1000 times the dimension by default.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="End as soon as a value is this or less.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after this time.")] = None,
    scale: Annotated[float | None, typer.Option(help="How far from x0 the optimum may be.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; a fresh one by default.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, an option of the method; may be given again.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory to keep the run in; one that holds it is resumed.")
    ] = None,
    workers: Workers = 1,
    ray: Ray = False,
    address: Address = None,
    gpus_per_worker: Gpus = 0,
    timeout: Timeout = None,
    vectorized: Annotated[
        bool, typer.Option("--vectorized", help="The function takes many points at once.")
    ] = False,
    noise: Annotated[bool, typer.Option("--noise", help="The function is random.")] = False,
    on_error: Annotated[
        str, typer.Option(help="raise or nan: what an exception in the function does.")
    ] = "raise",
    command: Annotated[
        bool, typer.Option("--command", help="OBJECTIVE is a program, given one line per point.")
    ] = False,
) -> None:
    """Minimise a black box.

    \b
    zoo minimize zoo.problems:rosenbrock --x0 0x6 --budget 3000 --seed 1
    zoo minimize mymodule:loss --x0 1,0.5 --bounds 0:10,0:1 --out runs/first --workers 2
    zoo minimize --command "./simulate --fast" --bounds -1:1,-1:1,0:5
    """  # noqa: D301 - \b is for the help page
    import zoo

    with explained():
        box = None if bounds is None else _bounds(bounds)
        start = None if x0 is None else _start(x0)
        if box is not None and len(box) == 1 and start is not None:
            box = box * len(start)
        with results_alone():
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
                workers=(chosen := chosen_workers(workers, ray, address, gpus_per_worker, timeout)),
                on_error=on_error,
                out=out,
                options=_options(option or []),
            )
        print_result(result, chosen != 1)


def _start(text: str) -> list[float]:
    value, times, count = text.partition("x")
    try:
        return [float(value)] * int(count) if times else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"`--x0` must be numbers separated by commas, or VALUExDIM, got {text!r}.") from None


def _bounds(text: str) -> list[tuple[float, float]]:
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return [(float(lower), float(upper)) for lower, upper in pairs]
    except ValueError:
        raise ValueError(
            f"`--bounds` must be LOWER:UPPER pairs separated by commas (inf for no limit), got {text!r}."
        ) from None


def _options(given: list[str]) -> dict[str, Any]:
    options = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ValueError(f"`--option` must have the form NAME=VALUE, got {entry!r}.")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
