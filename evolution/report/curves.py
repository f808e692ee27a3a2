"""Scores as they rose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.report import style
from zoo.report.scales import Scale
from zoo.report.style import Picture, canvas, count_axis, in_words, short, thinned
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]

_FEW = 40  # points of a line that are marked one by one


def curves(recording: Recording) -> Iterator[Picture]:
    """Yield scores against frames, and against time."""
    columns = recording.columns
    if not len(columns.get("frames", ())):
        return
    nothing = np.full(len(columns["frames"]), np.nan)
    highest, median, best = (-columns.get(name, nothing) for name in ("value", "median", "best"))
    is_retrial = columns.get("retrial", np.zeros(len(nothing))) > 0
    elite = -columns.get("elite", columns.get("recommended", nothing))
    size, unit = in_words(float(np.nanmax(recording.seconds, initial=0)))
    again, differs = is_retrial.any(), not np.array_equal(elite[is_retrial], best[is_retrial], equal_nan=True)
    words = "Highest and median return of each generation"
    if again:
        words += (
            ", and the mean of the best one in all episodes in which it was tried again. A highest return is "
            "that of one lucky episode"
        )
    words += "; red: what was tried again, whether or not it was better." if again and differs else "."
    for name, ending, x, across in (
        ("score_frames", " against frames", columns["frames"], "frames"),
        ("score_time", " against time", recording.seconds / size, f"{unit} of work"),
    ):
        known = np.isfinite(x)
        if not known.any():
            continue
        born, tried = known & ~is_retrial, known & is_retrial & np.isfinite(elite)
        with style.styled():
            figure, axes = canvas(height=3.1, top=style.LEGEND)
            _line(axes, x[born], median[born], "median", "#b5b5b5", 1.0)
            _line(axes, x[born], highest[born], "highest", style.PALETTE[4], 0.9)
            if tried.any() and differs:
                axes.plot(
                    *thinned(x[tried], elite[tried]), "o", ms=2.6, color=style.PALETTE[1], label="tried again"
                )
            _line(
                axes,
                x[known],
                best[known],
                "best, tried again" if again else "best so far",
                style.PALETTE[0],
                1.8,
                "steps-post",
            )
            _wanted(axes, recording, np.concatenate([highest, best]))
            Scale().apply(axes)
            axes.set_title(f"Score{ending}")
            axes.set_xlabel(across)
            if across == "frames":
                count_axis(axes.xaxis)
            axes.set_xlim(0, float(np.nanmax(x)) * 1.02 or 1)
            style.legend(axes, 5)
        yield Picture(name, f"Score{ending}", words, _summary(best), figure)


def _line(
    axes: Any, x: Array, y: Array, name: str, colour: str, width: float, drawstyle: str = "default"
) -> None:
    if not np.isfinite(y).any():
        return
    marker = "." if len(y) <= _FEW and drawstyle == "default" else ""
    axes.plot(*thinned(x, y), color=colour, lw=width, marker=marker, ms=3, label=name, drawstyle=drawstyle)


def _wanted(axes: Any, recording: Recording, scores: Array) -> None:
    """Draw the score at which the run ends, unless that would press all else together."""
    score = recording.config.get("score")
    known = scores[np.isfinite(scores)]
    if score is not None and len(known) and score <= known.max() + np.ptp(known):
        axes.axhline(score, color=style.INK, lw=0.8, ls=":", label="wanted")


def _summary(best: Array) -> str:
    known = best[np.isfinite(best)]
    if not len(known):
        return "Scores: no best one yet."
    return f"The best score: from {short(known[0])} to {short(known[-1])}."
