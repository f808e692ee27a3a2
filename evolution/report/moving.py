"""The champion's best episode, as a picture that moves."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass
from typing import Any

from evolution.playing import Film, NotShown, best_of, champion_of, film, play
from zoo.core.errors import EvaluationError, ZooError
from zoo.report.style import short
from zoo.run.reading import Recording

_FEW = 3  # episodes that a champion plays which has not been tested yet
_INCH = 96  # pixels


@dataclass(frozen=True, eq=False)
class Moving:
    """A film in a page, and as a GIF file beside it; what a `zoo.report.style.Picture` is for figures.

    Attributes:
        name: Of its file.
        heading: Above it.
        caption: Below it.
        alt: What it shows, for those who cannot see it.
        gif: The content of the file.
        pixels: How wide it is.
        wide: Whether it is as wide as the page.
    """

    name: str
    heading: str
    caption: str
    alt: str
    gif: bytes
    pixels: int
    wide: bool = False

    ending = "gif"

    @property
    def inches(self) -> float:
        """How wide it is."""
        return self.pixels / _INCH

    def svg(self) -> str:
        """Return it as an element of a page."""
        data = base64.b64encode(self.gif).decode()
        width = self.pixels if self.pixels >= 300 else 2 * self.pixels
        pixelated = "; image-rendering: pixelated" if width != self.pixels else ""
        return (
            f'<img src="data:image/gif;base64,{data}" alt="" '
            f'style="display: block; width: {width}px; max-width: 100%{pixelated}">'
        )

    def content(self) -> bytes:
        """Return the content of its file."""
        return self.gif


def best_episode(recording: Recording) -> tuple[Moving | None, str]:
    """Return the champion's best episode, or none, and a sentence that says why there is none."""
    try:
        champion = champion_of(recording.path)
        tested = bool(champion.trials)
        trial = best_of(champion.trials or play(champion, _FEW))
        if trial is None:
            return None, "There is no film: no episode of the champion has a return."
        shot = film(champion, trial)
    except (NotShown, EvaluationError, ZooError) as error:
        return None, f"There is no film: {_first_line(error)}"
    except Exception as error:  # of an environment or a policy of the user, or a library that is missing
        return None, f"There is no film: {type(error).__name__}: {_first_line(error)}"
    of = f"its {len(champion.trials)} fresh episodes" if tested else f"{_FEW} episodes, as it is now"
    caption = f"The best of {of}: return {short(shot.score)} in {shot.steps:,} steps"
    if tested and abs(shot.score - trial.score) > 1e-6 * max(1.0, abs(trial.score)):
        caption += f" when it was played again; {short(trial.score)} in the run"
    moving = _moving(shot, f"{caption}.", champion.name)
    return moving, ""


def _moving(shot: Film, caption: str, name: str) -> Moving:
    alt = f"A film of the champion in {name}, which gets a return of {short(shot.score)}."
    return Moving(
        "best_episode", "The champion's best episode", caption, alt, shot.gif(), shot.pictures[0].shape[1]
    )


def _first_line(error: BaseException) -> str:
    text: Any = ""
    with contextlib.suppress(IndexError):
        text = str(error).strip().splitlines()[0]
    return f"{str(text).rstrip('.')}."
