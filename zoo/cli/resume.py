"""`zoo resume`: go on with a run."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
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
    point_to_export,
    results_alone,
    resuming,
    shows_panel,
    watchers,
)
from zoo.cli.naming import check_name
from zoo.cli.results import print_result
from zoo.core.validation import printable


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
    that is finished is not touched: its result is printed again. A module is looked for where it was.

    \b
    # go on, and print the result
    zoo resume runs/first
    # on two processes, a minute at most
    zoo resume runs/first --workers 2 --seconds 60
    """  # noqa: D301 - \b is for the help page
    import zoo
    from zoo.run.directory import read_config
    from zoo.run.kinds import kind_of

    who = (workers, ray, address, gpus_per_worker, timeout)
    with explained(resuming(directory, *who)):
        chosen = chosen_workers(*who)
        kind = kind_of(read_config(directory)[0])
        watching = watchers(progress, log or [], directory, kind)
        with results_alone():
            _check_objective(directory)
            result = zoo.resume(directory, workers=chosen, seconds=seconds, callback=watching)
        point_to_export(watching, log or [], directory)
        show = print_result if kind is None else kind.print_result
        show(result, as_json=as_json, out=directory, shown=shows_panel(watching))


def _check_objective(directory: Path) -> None:
    """Have modules found where they were when the run began; say where to be, if they cannot be found."""
    from zoo.run.directory import read_config, read_modules

    identity, modules = read_config(directory)[0]["objective"], read_modules(directory)[0]
    find_modules_again(directory)
    name = identity["name"]
    if name.startswith("command "):
        _check_command(directory, shlex.split(name.removeprefix("command ")))
    if set(identity) <= {"name", "constraints"} and not name.startswith("command "):
        try:
            check_name("the objective", name)
        except ValueError as error:
            was = modules.get(name.partition(":")[0])
            place = f", which was in {was}" if was else ""
            raise ValueError(
                f"{directory} minimises {name!r}{place}: {error} Be where that module is found, or go on by "
                "`zoo run` if it is beside an experiment file."
            ) from None


def find_modules_again(directory: Path) -> None:
    """Have modules found where they were when the run began."""
    from zoo.run.directory import read_modules

    modules, path = read_modules(directory)
    for module, file in modules.items():
        _find_again(directory, module, file, path)


def _check_command(directory: Path, words: list[str]) -> None:
    """Refuse a program, or a file that is named to it, that is another one here than where the run began."""
    from zoo.run.directory import read_folder

    folder = read_folder(directory)
    for word in words if folder else ():
        there, here = Path(folder or "", word), Path(word)
        if there.is_file() and not (here.is_file() and here.samefile(there)):
            raise ValueError(
                f"{directory} runs {shlex.join(words)!r} in {folder}, and {word!r} is not the same "
                "file here: go on from that folder."
            )


def _find_again(directory: Path, module: str, file: str, path: list[str]) -> None:
    """Have a module found in the file that it was in, if there still is one, and no other one in silence.

    Nothing is taken from inside the run directory: it may have come from somebody else, as data do.
    """
    from zoo.core.errors import ZooWarning
    from zoo.core.modules import first_found

    here, inside = first_found(module, file), directory.resolve()
    is_foreign = Path(file).resolve().is_relative_to(inside)
    if is_foreign or not Path(file).is_file() or (here and here.samefile(file)):
        return
    # All of the path, since what the module imports may be in another folder of it.
    there = [one for one in path if os.path.isdir(one) and not Path(one).resolve().is_relative_to(inside)]
    before = sys.path[:]
    sys.path[:] = [*there, *(entry for entry in sys.path if entry not in there)]
    found = first_found(module, file)
    if not (found and found.samefile(file)):
        sys.path[:] = before
        return
    folders = ", ".join(one for one in there if one not in before)
    said = f"{module!r} is that of {file}, by meta.json; imports look in {folders} first"
    typer.echo(f"zoo: {printable(said)}", err=True)
    if here:
        warnings.warn(
            f"{directory} was started with the module {module!r} of {file}, and goes on with it; {here} is "
            "another one, and left aside.",
            ZooWarning,
            stacklevel=2,
        )
