"""`zoo play`: a champion at work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.common import Json, explained, results_alone
from zoo.cli.output import is_terminal, print_facts, print_json, remark, say

if TYPE_CHECKING:
    from evolution.playing import Champion, Trial

_MOST = 30  # returns that are printed one by one


def play(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Directory of a run, or a file that --export has written.",
            autocompletion=completion.runs,
        ),
    ],
    member: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The id of somebody else than the champion, of methods with chains of seeds: a parent, or "
            "an ancestor. A number that is nobody's has the parents listed.",
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Where the seeds of the episodes come from.")] = 0,
    gif: Annotated[Path | None, typer.Option(help="Write the best of the episodes to this GIF file.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the champion to this safetensors file, with what it was bred in."),
    ] = None,
    window: Annotated[
        bool | None,
        typer.Option(
            "--window/--no-window",
            help="Whether to show the best of the episodes in a window; where there is a screen by default, "
            "unless --gif or --export is given.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the champion of a run: play some fresh episodes, and look at the best of them.

    The run may be under way. Where there is no screen, what would be seen is written to a GIF file.

    \b
    # returns of five episodes, and the best of them in a window
    zoo play runs/pole
    # a hundred of them, and the best one as a picture that moves
    zoo play runs/pole --episodes 100 --gif pole.gif
    # the champion as a file of its own, which can be played elsewhere
    zoo play runs/pole --export pole.safetensors
    zoo play pole.safetensors
    """  # noqa: D301 - \b is for the help page
    with explained():
        from evolution.playing import best_of, champion_of, has_screen
        from evolution.playing import play as played

        if not place.exists():
            raise FileNotFoundError(f"there is no directory or file {place}.")
        with results_alone():
            if place.is_dir():
                _find_modules(place)
            champion = champion_of(place, member)
            trials = played(champion, episodes, seed)
            best = best_of(trials)
            written: dict[str, str] = {}
            if export is not None:
                written["export"] = str(champion.save(export))
            shows = window if window is not None else has_screen() and gif is None and export is None
            # Who asked for nothing wants to see something, as far as that can be.
            target = gif
            if gif is None and window is None and export is None and not has_screen() and is_terminal():
                target = (place if place.is_dir() else place.parent) / "champion.gif"
            if best is not None and target is not None:
                written |= _write_film(champion, best, target, must=gif is not None)
            if best is not None and shows:
                _show(champion, best, must=window is True)
        _print(champion, trials, best, written, as_json)


def _find_modules(directory: Path) -> None:
    """Have modules of the user found where they were when the run began."""
    from zoo.cli.resume import find_modules_again

    find_modules_again(directory)


def _write_film(champion: Champion, best: Trial, target: Path, *, must: bool) -> dict[str, str]:
    """Write an episode as a GIF, or say why that cannot be."""
    from evolution.playing import NotShown, film
    from zoo.run.checkpoint import write_atomically

    try:
        shot = film(champion, best)
    except NotShown as error:
        if must:
            raise ValueError(str(error)) from error
        typer.echo(f"zoo: {error}", err=True)
        return {}
    write_atomically(target, shot.gif())
    return {"gif": str(target)}


def _show(champion: Champion, best: Trial, *, must: bool) -> None:
    """Show an episode in a window, or say why that cannot be."""
    from evolution.playing import NotShown
    from evolution.window import show

    try:
        show(champion, best)
    except NotShown as error:
        if must:
            raise ValueError(str(error)) from error
        typer.echo(f"zoo: {error}", err=True)


def _print(
    champion: Champion, trials: list[Trial], best: Trial | None, written: dict[str, str], as_json: bool
) -> None:
    import numpy as np

    scores = np.array([trial.score for trial in trials])
    error = float(scores.std(ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else math.nan
    if as_json or not is_terminal():
        content: dict[str, Any] = {
            "env": champion.name,
            "score": float(scores.mean()),
            "score_error": error if math.isfinite(error) else None,
            "best": None if best is None else best.score,
            "returns": scores.tolist(),
            "steps": [trial.steps for trial in trials],
            "parameters": champion.policy.dim,
            **written,
        }
        print_json(content)
        return
    say(f"{champion.name}, {champion.policy.dim:,} parameters", "bold")
    shown = " ".join(f"{score:.6g}" for score in scores[:_MOST])
    said = f" ± {error:.2g}" if math.isfinite(error) else ""
    print_facts(
        {
            "mean return": f"{scores.mean():.6g}{said}",
            "returns": shown if len(scores) <= _MOST else f"{shown} ... ({len(scores)} episodes)",
            "in the run": f"{champion.score:.6g}" if math.isfinite(champion.score) else "",
            "film": written.get("gif", ""),
            "champion": written.get("export", ""),
        }
    )
    if "gif" in written:
        remark("The film shows the best of these episodes.")
