"""The sections of a report."""

from __future__ import annotations

from typing import Any

import numpy as np

from federated.report import clients, curves
from federated.report.material import FAULTS, Course, course_of
from zoo.report import figures
from zoo.report.single import troubles
from zoo.run.reading import Recording

_SAID = (*FAULTS, "hidden", "up", "down", "clock", "answers", "said", "worst", "spread", "start")


def sections(recording: Recording) -> list[tuple[str, list[Any], str]]:
    """Return headings, their pictures and tables, and a sentence where there is something to say beside."""
    if not recording.num_steps or not len(recording.columns.get("step", ())):
        return [("Faults and workers", list(troubles(recording)), "")]
    course = course_of(recording)
    shown = [clients.picture(course), curves.spread(course), clients.table(course)]
    hidden = {*_SAID, *course.measures}
    method = figures.diagnostics(recording, hidden, ("step", "rounds"))
    lost = list(curves.faults(recording))
    return [
        ("How it went", list(curves.curves(course)), _unlooked(course)),
        ("What the task measures", list(curves.measured(course)), ""),
        ("Clients", [one for one in shown if one is not None], ""),
        ("What the network did", lost, ""),
        ("How the method searched", list(method), ""),
        ("Faults and workers", list(troubles(recording)), ""),
    ]


def _unlooked(course: Course) -> str:
    """Return what is to be said where F is not known everywhere, or not over all clients."""
    value, said = course.columns["value"], course.columns["said"]
    known, count = int(np.isfinite(value).sum()), int(course.config.get("num_clients") or 0)
    if not known:
        return "F is not known: no client had a value."
    least = int(said[np.isfinite(said)].min(initial=count))
    few = f"F is the mean of those clients that had a value: at the least {least:,} of {count:,}."
    words = [few] if least < count else []
    if known < len(value):
        words.insert(0, f"F is known at {known:,} of {len(value):,} places: where it was looked at.")
    return " ".join(words)
