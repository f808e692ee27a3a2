"""The sections of a report."""

from __future__ import annotations

import math
from typing import Any

from evolution.archive import Archive
from evolution.job import EvolutionState
from evolution.report.behaviours import behaviour_map
from evolution.report.curves import curves
from evolution.report.family import family_tree
from evolution.report.material import ends_of, family_of, state_of
from evolution.report.moving import best_episode
from zoo.report import figures
from zoo.report.single import troubles
from zoo.run.reading import Recording

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
    return [
        ("How it went", list(curves(recording)), ""),
        ("Where everyone ended", ended, ""),
        ("The champion", champion, note),
        ("How the method searched", search, ""),
        ("Faults and workers", list(troubles(recording)), ""),
    ]


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
