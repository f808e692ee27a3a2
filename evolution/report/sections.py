"""The sections of a report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from evolution.archive import Archive
from evolution.job import EvolutionState
from evolution.report.behaviours import behaviour_map
from evolution.report.curves import curves
from evolution.report.family import family_tree
from evolution.report.material import ends_of, family_of, state_of
from evolution.report.moving import best_episode
from zoo.report import figures
from zoo.report.single import troubles
from zoo.report.style import Picture
from zoo.run.reading import Recording

_DESCRIBED = {
    "step_size": "What mutations, or perturbations, are scaled by",
    "ancestors": "Individuals that are remembered: the living and whom they descend from",
    "novelty": "The highest novelty of a generation: the mean distance to the nearest behaviours",
    "median_novelty": "The median novelty of a generation",
    "archive_size": "Behaviours in the archive",
    "archive_spread": "The root mean square distance of behaviours in the archive from their centre",
    "coverage": "The share of a grid over the archive, ten cells along each number, that is taken",
    "observations": "Observations that the normalization is made of",
    "agent": "The agent whose turn it was",
    "value_weight": "The weight of scores; the rest is that of novelty",
    "stagnant": "Updates since a better score",
}

# Scores, which other figures show with their sign, and what is said elsewhere.
_SAID = ("elite", "best_elite", "recommended", "frames", "retrial", "generation")


def sections(recording: Recording) -> list[tuple[str, list[Any], str]]:
    """Return headings, their pictures, and a sentence where there is something to say instead of one."""
    state = state_of(recording.path)
    ended: list[Any] = []
    champion: list[Any] = []
    note = ""
    if state is not None and state.nfev:
        if (ends := ends_of(recording, state)) is not None:
            own = getattr(state.optimizer.method, "archive", None)
            archive = own.array if isinstance(own, Archive) and len(own) else None
            ended.append(behaviour_map(recording, ends, archive))
        best = -state.fun_best if math.isfinite(state.fun_best) else math.nan
        family = family_of(recording, state)
        if family is not None and (tree := family_tree(family, best)) is not None:
            champion.append(tree)
        moving, note = best_episode(recording)
        champion += [] if moving is None else [moving]
    if behind := _behind(recording, state):
        note = f"{behind} {note}".rstrip()
    drawn = figures.figures(recording)
    hidden = {f"diagnostic_{name}" for name in _SAID}
    search = [one for one in drawn if not one.name.startswith("value_") and one.name not in hidden]
    constant = _constants(recording)
    search = [_described(one) for one in search if one.name.removeprefix("diagnostic_") not in constant]
    return [
        ("How it went", list(curves(recording)), ""),
        ("Where everyone ended", ended, ""),
        ("The champion", champion, note),
        ("How the method searched", search, " ".join(constant.values())),
        ("Faults and workers", list(troubles(recording)), ""),
    ]


def _constants(recording: Recording) -> dict[str, str]:
    """Return what is to be said of what stayed the same all the time, by the name of its picture."""
    held: dict[str, dict[str, Any]] = {}
    for name, column in recording.diagnostics.items():
        if name not in _SAID and np.isfinite(column).any():
            picture = "step_size" if name in figures.STEP_SIZES else name
            held.setdefault(picture, {})[name] = column[np.isfinite(column)]
    found = {}
    for picture, columns in held.items():
        level = next(iter(columns.values()))[0]
        if all((column == level).all() for column in columns.values()):
            found[picture] = f"{picture.replace('_', ' ').capitalize()}: {level:.6g} all the time."
    return found


def _described(picture: Picture) -> Picture:
    """Return a picture with what it shows as its caption."""
    words = _DESCRIBED.get(picture.name.removeprefix("diagnostic_"))
    scale = picture.caption[picture.caption.rfind("; ") + 1 :].strip().lower()
    return picture if words is None else replace(picture, caption=f"{words}; {scale}")


def _behind(recording: Recording, state: EvolutionState | None) -> str:
    """Return what is not told of the last steps, which no checkpoint holds yet; nothing if one does."""
    last = recording.last("step")
    if not math.isfinite(last) or (state is not None and state.step >= last):
        return ""
    if state is None:
        return "No checkpoint can be read: nothing is told of the champion, its family and where all ended."
    of = f"As of step {state.step:,}, the newest checkpoint, of {last:,.0f} on record"
    if not state.nfev:
        return f"{of}: the champion, its family and where everyone ended are left out until there is another."
    return f"{of}: the champion, its family and where everyone ended, above, are those of that step."
