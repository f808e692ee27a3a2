"""`zoo minimize`, `zoo resume` and `zoo report`.

Results go to standard output as JSON, progress to standard error where that is a terminal.
Exit codes: 0 done, 2 usage, 3 the objective or the workers failed, 130 and 143 stopped by SIGINT and SIGTERM
with a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo.core.errors import RunDirectoryError, ZooError
from zoo.execution.ledger import summary
from zoo.facade import Interrupted
from zoo.run.directory import dump

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Optimization without gradients: minimise any black box, stop it at any time, resume it.",
)

Workers = Annotated[int, typer.Option(help="Processes that evaluate; -1 for one a core.")]
Ray = Annotated[bool, typer.Option("--ray", help="Evaluate on Ray workers instead of local processes.")]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to join, as in auto or HOST:PORT; implies --ray.")
]
Gpus = Annotated[float, typer.Option(help="GPUs of each worker: 0, a fraction, or a whole number.")]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds after which an evaluation has failed and its worker is ended.")
]


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # so that module:function finds the user's own module
    app()


@app.command()
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
    with _explained():
        box = None if bounds is None else _bounds(bounds)
        start = None if x0 is None else _start(x0)
        if box is not None and len(box) == 1 and start is not None:
            box = box * len(start)
        with _results_alone(), _progress() as callback:
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
                workers=(chosen := _workers(workers, ray, address, gpus_per_worker, timeout)),
                on_error=on_error,
                callback=callback,
                out=out,
                options=_options(option or []),
            )
        _print(result, chosen != 1)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.")],
    workers: Workers = 1,
    ray: Ray = False,
    address: Address = None,
    gpus_per_worker: Gpus = 0,
    timeout: Timeout = None,
    seconds: Annotated[float | None, typer.Option(help="Stop again after this time.")] = None,
) -> None:
    """Go on with a run that was stopped or killed.

    \b
    zoo resume runs/first
    """  # noqa: D301 - \b is for the help page
    with _explained():
        with _results_alone(), _progress() as callback:
            chosen = _workers(workers, ray, address, gpus_per_worker, timeout)
            result = zoo.resume(directory, workers=chosen, seconds=seconds, callback=callback)
        _print(result, chosen != 1)


@app.command()
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

    with _explained():
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


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(zoo.__version__)
        raise typer.Exit


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn errors into one message and an exit code."""
    try:
        yield
    except Interrupted as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(128 + error.signal) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (ValueError, TypeError, ConnectionError, ModuleNotFoundError, RunDirectoryError) as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(2) from None
    except ZooError as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(3) from None


@contextlib.contextmanager
def _results_alone() -> Iterator[None]:
    """Send what the objective prints to standard error, here and in workers: results are to be parsed."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[..., None] | None]:
    """Yield a callback that keeps one line on the terminal up to date, or None where there is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = 0.0

    def show(intermediate_result: Any) -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            line = f"{intermediate_result.nfev} evaluations, best {intermediate_result.fun:.6g}"
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")


def _print(result: Any, with_workers: bool) -> None:
    if with_workers:
        typer.echo(f"zoo: {summary(result.account)}", err=True)
    typer.echo(dump(result).decode().rstrip())


def _workers(
    number: int, ray: bool, address: str | None, gpus_per_worker: float, timeout: float | None
) -> Any:
    if not (ray or address or gpus_per_worker) and timeout is None:
        return number
    number = (os.cpu_count() or 1) if number == -1 else number
    if ray or address:
        return zoo.Ray(number, gpus_per_worker=gpus_per_worker, timeout=timeout, address=address)
    return zoo.Processes(number, gpus_per_worker=gpus_per_worker, timeout=timeout)


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
