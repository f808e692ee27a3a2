"""`zoo report`: where a run is, and how it got there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.common import Json, explained
from zoo.cli.output import is_terminal, print_facts, print_json, remark, say

if TYPE_CHECKING:
    from zoo.run.reading import Recording

_MOST_VARIABLES = 12


def report(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.", autocompletion=completion.runs)],
    digest: Annotated[
        bool,
        typer.Option("--digest", help="Print sha256 digests of state, values and counters; draw nothing."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where to put the page and the pictures; DIRECTORY by default.")
    ] = None,
    html: Annotated[
        bool, typer.Option("--html/--no-html", help="Whether to draw at all, or just to say where it is.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say where a run is, and draw how it got there: report.html, and PNGs in report/.

    The run may be under way in another process, which is not disturbed. The page holds all that it shows,
    so it can be sent to somebody as it is.

    \b
    # writes runs/first/report.html
    zoo report runs/first
    # elsewhere, as for a run that may only be read
    zoo report runs/first --out elsewhere
    # two runs with the same digest have the same bytes
    zoo report --digest runs/first
    """  # noqa: D301 - \b is for the help page
    with explained():
        if digest:
            _print_digest(directory)
            return
        from zoo.run.reading import read_recording

        recording = read_recording(directory)
        shown = is_terminal() and not as_json
        if shown:
            _show(recording)
        else:
            _print(recording)
        if html:
            from zoo.report.single import draw_report

            page, *pictures = draw_report(recording, directory if out is None else out)
            remark(f"{page} and {len(pictures)} files beside it") if shown else None


def _print_digest(directory: Path) -> None:
    from zoo.run.digest import digest_of_run

    found = digest_of_run(directory)
    typer.echo(f"state     {found.state}")
    typer.echo(f"values    {found.values}")
    typer.echo("counters  " + " ".join(f"{name}={count}" for name, count in found.counters.items()))
    typer.echo(f"digest    {found.total}")


def _print(recording: Recording) -> None:
    """Print the result, or how far a run came that has none yet."""
    from zoo.run.kinds import kind_of

    counters = {
        "nit": recording.num_steps,
        "nfev": recording.last("nfev"),
        "num_failed": recording.last("failed"),
    }
    so_far = {name: int(count) if count == count else 0 for name, count in counters.items()}
    content = recording.result or {**_best(recording), "message": "not finished"}
    kind = kind_of(recording.config)
    found = {**so_far, **content}
    print_json({"directory": str(recording.path), **(found if kind is None else kind.entries(found))})


def _best(recording: Recording) -> dict[str, Any]:
    """Return the best of what is logged, as `result.json` has it."""
    from zoo.run.directory import plain
    from zoo.run.kinds import PLAIN, wording_of

    if not recording.points:
        wording = wording_of(recording.config)
        found = plain({"best": recording.last("best")})
        return {} if wording == PLAIN else wording.shown(found)
    last, space = recording.points[-1], recording.space
    found = plain({"x_best": last.x if space is None else space.decode(last.x), "fun_best": last.fun})
    return found


def _show(recording: Recording) -> None:
    from zoo.report.about import about
    from zoo.run.kinds import kind_of

    kind = kind_of(recording.config)
    said = about(recording) if kind is None else kind.about(recording)
    say(said.title, "bold")
    say(f"{said.status}: {said.message}", {"good": "green", "bad": "red"}.get(said.colour, "yellow"))
    say(said.summary, "dim")
    print_facts(dict(said.numbers))
    if len(said.point) <= _MOST_VARIABLES:
        say(said.point_heading, "bold")
        print_facts(dict(said.point))
    for words, command in said.commands:
        say(f"{words}:", "dim")
        say(f"  {command}")
