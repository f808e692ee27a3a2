"""Figures of what went wrong, when, and how busy workers were."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from zoo.report import style
from zoo.report.style import Picture, canvas, count_axis, in_words, label
from zoo.run.kinds import wording_of
from zoo.run.reading import Recording

_COLOURS = {"resumed": style.PALETTE[0], "worker restarted": style.PALETTE[2]}
_MOST_KINDS = 12
_MOST_BARS = 64
_PLACES = 1000  # across a figure, at which marks are told apart


class Span(NamedTuple):
    """A process of the run: when it began and ended, in seconds since the first one began; NaN if unknown."""

    start: float
    stop: float


def when(text: Any) -> float:
    """Return a time of a log in seconds since 1970, NaN if there is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return float("nan")


def spans(recording: Recording) -> list[Span]:
    """Return the processes of a run, as far as they are known."""
    zero = when(recording.meta.get("started"))
    if not np.isfinite(zero):
        return []
    starts, last = [0.0], [0.0]
    for event in recording.events:
        at = when(event.get("time")) - zero
        if event.get("event") == "resumed":
            starts.append(at)
            last.append(at)
        elif np.isfinite(at):
            last[-1] = max(last[-1], at)
    if len(recording.worked) == len(starts):  # else one left no step behind
        last = [
            max(end, start + done) for end, start, done in zip(last, starts, recording.worked, strict=True)
        ]
    return [Span(start, stop) for start, stop in zip(starts, last, strict=True)]


def time_line(recording: Recording) -> Picture | None:
    """Return what happened when, by the clock on the wall; None where nothing did."""
    zero = when(recording.meta.get("started"))
    found: dict[str, list[float]] = {}
    for event in recording.events:
        at, kind = when(event.get("time")) - zero, str(event.get("event"))
        if kind != "ended" and np.isfinite(at):
            found.setdefault(kind, []).append(at)
    if not found:
        return None
    kinds = sorted(found, key=lambda kind: (kind != "resumed", -len(found[kind])))[:_MOST_KINDS]
    worked = spans(recording)
    end = max([span.stop for span in worked] + [max(times) for times in found.values()])
    size, unit = in_words(end)
    with style.styled():
        figure, axes = canvas(height=1.4 + 0.3 * len(kinds), left=1.75)
        for span in worked:
            axes.barh(
                0,
                max(span.stop - span.start, end / 300) / size,
                left=span.start / size,
                height=0.45,
                color=style.PALETTE[0],
                alpha=0.35,
                lw=0,
            )
        for row, kind in enumerate(kinds, 1):
            times = _apart(np.array(found[kind]), end) / size
            axes.plot(
                times, np.full(len(times), row), "|", ms=10, mew=1.2, color=_COLOURS.get(kind, style.ALARM)
            )
        names = ["at work", *(f"{label(kind)} ({len(found[kind])})" for kind in kinds)]
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(kinds) + 0.6, -0.6), xlim=(0, end / size * 1.02 or 1))
        axes.set_xlabel(f"{unit} since it was started")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=6)
        axes.set_title("What happened when", x=0)
    counts = ", ".join(f"{len(found[kind])} x {kind}" for kind in kinds)
    caption = (
        "By the clock on the wall, pauses between processes included. Evaluations that failed by returning "
        "NaN are not in it."
    )
    return Picture("time_line", "What happened when", caption, f"Time line: {counts}.", figure)


def _apart(times: np.ndarray[Any, Any], end: float) -> np.ndarray[Any, Any]:
    """Return times without those that would be drawn on top of another one."""
    places = np.round(times / (end or 1.0) * _PLACES)
    return times[np.unique(places, return_index=True)[1]]


def failures(recording: Recording) -> Picture | None:
    """Return failed evaluations over the run; None where there are none."""
    failed, x = recording.columns.get("failed"), recording.columns.get("nfev")
    if failed is None or x is None or not len(failed) or not np.nanmax(failed, initial=0) > 0:
        return None
    counted = wording_of(recording.config).evaluations
    with style.styled():
        figure, axes = canvas(height=2.4)
        at, line = style.thinned(x, np.minimum(failed, x))
        axes.plot(at, line, color=style.ALARM, marker="." if len(x) < 40 else "")
        axes.set_title(f"Failed {counted} so far")
        axes.set_xlabel(counted)
        count_axis(axes.xaxis)
        count_axis(axes.yaxis)
        axes.set(xlim=(0, float(x[-1]) * 1.02), ylim=(0, None))
    total = int(np.nanmax(np.minimum(failed, x)))
    caption = (
        f"{total:,} of {int(x[-1]):,} {counted} of the search had no value: they raised, crashed, hung, or "
        "returned NaN or infinity."
    )
    return Picture("failures", "Failures", caption, f"Failed {counted}: {total} in all.", figure)


def workers(recording: Recording) -> Picture | None:
    """Return how busy each worker was in the last process that ended; None where there were none."""
    accounts = [event.get("account") for event in recording.events if event.get("event") == "ended"]
    busy = [account["busy"] for account in accounts if isinstance(account, dict) and account.get("busy")]
    if not busy or not isinstance(busy[-1], list) or not all(isinstance(share, float) for share in busy[-1]):
        return None
    shares = np.array(busy[-1][:_MOST_BARS])
    with style.styled():
        figure, axes = canvas(height=1.05 + 0.25 * len(shares), left=0.9)
        axes.barh(np.arange(len(shares)), 100 * shares, height=0.6, color=style.PALETTE[0])
        axes.set_yticks(np.arange(len(shares)), [f"worker {place}" for place in range(len(shares))])
        axes.set(xlim=(0, 100), ylim=(len(shares) - 0.4, -0.6))
        axes.set_xlabel("% of its time spent evaluating")
        axes.grid(False, axis="y")
        axes.set_title("How busy workers were")
        axes.tick_params(axis="y", length=0)
    caption = "Share of its time that each place among the workers evaluated, replacements included"
    caption += ", in the last process that ended." if len(accounts) > 1 else "."
    if len(busy[-1]) > len(shares):
        caption += f" The first {len(shares)} of {len(busy[-1])}."
    alt = "Busy shares: " + ", ".join(f"{100 * share:.0f} %" for share in shares[:16]) + "."
    return Picture("workers", "Workers", caption, alt, figure)


def counts(recording: Recording) -> Counter[str]:
    """Return how often each kind of event happened."""
    return Counter(str(event.get("event")) for event in recording.events)
