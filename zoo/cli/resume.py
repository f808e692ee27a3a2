"""`zoo resume`: go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    import zoo

    with explained():
        with results_alone():
            chosen = chosen_workers(workers, ray, address, gpus_per_worker, timeout)
            result = zoo.resume(directory, workers=chosen, seconds=seconds)
        print_result(result, chosen != 1)
