"""What commands share: their options, their errors, their output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

Workers = Annotated[int, typer.Option(help="Processes that evaluate; -1 for one a core.")]
Ray = Annotated[bool, typer.Option("--ray", help="Evaluate on Ray workers instead of local processes.")]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to join, as in auto or HOST:PORT; implies --ray.")
]
Gpus = Annotated[float, typer.Option(help="GPUs of each worker: 0, a fraction, or a whole number.")]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds after which an evaluation has failed and its worker is ended.")
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, also on a terminal.")]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors into one message and an exit code."""
    from zoo.core.errors import RunDirectoryError, ZooError
    from zoo.facade import Interrupted

    try:
        yield
    except Interrupted as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(128 + error.signal) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, ConnectionError, ModuleNotFoundError, RunDirectoryError) as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(2) from None
    except ZooError as error:
        typer.echo(f"zoo: {error}", err=True)
        raise typer.Exit(3) from None


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
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


def print_result(result: Any, with_workers: bool) -> None:
    """Print a result as JSON, and on standard error what it cost, where there were workers."""
    from zoo.execution.ledger import summary
    from zoo.run.directory import dump

    if with_workers:
        typer.echo(f"zoo: {summary(result.account)}", err=True)
    typer.echo(dump(result).decode().rstrip())


def chosen_workers(
    number: int, ray: bool, address: str | None, gpus_per_worker: float, timeout: float | None
) -> Any:
    """Return what `workers=` is given."""
    import zoo

    if not (ray or address or gpus_per_worker) and timeout is None:
        return number
    number = (os.cpu_count() or 1) if number == -1 else number
    if ray or address:
        return zoo.Ray(number, gpus_per_worker=gpus_per_worker, timeout=timeout, address=address)
    return zoo.Processes(number, gpus_per_worker=gpus_per_worker, timeout=timeout)
