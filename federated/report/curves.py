"""F, and what a task measures, as a federation went on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from federated.report.material import FAULTS, Course
from zoo.report import style
from zoo.report.scales import Scale, scale_of
from zoo.report.style import Picture, canvas, count_axis, in_words, label, short, thinned
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]

_FEW = 40  # points of a line that are marked one by one


def curves(course: Course) -> Iterator[Picture]:
    """Yield F, and how far it is from the optimum, against rounds, queries, bytes and virtual seconds."""
    columns, optimum = course.columns, course.optimum
    rounds, value = columns["round"], columns["value"]
    if not np.isfinite(value).any():
        return
    lines = {"worst client": columns["worst"], "F": value}
    if (course.config.get("num_clients") or 1) == 1 or not np.isfinite(columns["worst"]).any():
        del lines["worst client"]
    words = "The mean of all clients' values by weight"
    if len(lines) > 1:
        words += ", and the highest of them"
    # Where there is an optimum, the next figure has the small numbers.
    plain = None if optimum is None else Scale()
    yield _picture("value_rounds", "F", rounds, "rounds", lines, words, plain)
    quantity, y, scale = "F", value, None
    if optimum is not None:
        quantity, y = "Gap to the optimum", value - optimum
        scale = Scale("log") if (y[np.isfinite(y)] > 0).any() else None
        words = f"What F is above {optimum:.6g}, the least there is"
        yield _picture("gap_rounds", quantity, rounds, "rounds", {"gap": y}, words, scale)
    words = words if optimum is not None else "The mean of all clients' values by weight"
    name = "value" if optimum is None else "gap"
    told = f"{words}, against queries of all clients together"
    if columns["hidden"][-1] > 0:
        told += "; those are with it that papers leave out"
    yield _picture(f"{name}_queries", quantity, columns["queries"], "queries", {name: y}, told, scale)
    several = {what: columns[what] for what in ("up", "down", "bytes")}
    if columns["bytes"][-1] > 0:
        told = f"{words}, against bytes of messages: sent by clients, sent by the server, and both"
        yield _over_bytes(f"{name}_bytes", quantity, several, y, told, scale)
    if columns["clock"][-1] > 0:
        size, unit = in_words(float(columns["clock"][-1]))
        told = f"{words}, against the virtual clock of the network"
        x, across = columns["clock"] / size, f"virtual {unit}"
        yield _picture(f"{name}_clock", quantity, x, across, {name: y}, told, scale)


def measured(course: Course) -> Iterator[Picture]:
    """Yield what the task measures beside F, against rounds."""
    for name in course.measures:
        column = course.columns[name]
        if np.isfinite(column).any():
            words = "The mean of all clients by weight, at x after each round"
            heading = label(name.replace("_", " ").capitalize())
            yield _picture(
                f"measure_{name}", heading, course.columns["round"], "rounds", {name: column}, words
            )


def spread(course: Course) -> Picture | None:
    """Return how much clients' values differ, None where that is not known."""
    column = course.columns["spread"]
    if course.config.get("num_clients") == 1 or not np.isfinite(column).any():
        return None
    words = "The standard deviation of clients' values at x after each round"
    return _picture(
        "spread", "Spread over clients", course.columns["round"], "rounds", {"spread": column}, words
    )


def faults(recording: Recording) -> Iterator[Picture]:
    """Yield what was lost on the way, counted, and how many clients answered each round."""
    columns = recording.columns
    found = {
        name: columns[name] for name in FAULTS if np.nanmax(columns.get(name, np.zeros(1)), initial=0) > 0
    }
    if not found:
        return
    rounds = columns["step"]
    told = {FAULTS[name][0].lower(): column for name, column in found.items()}
    words = "; ".join(f"{FAULTS[name][0].lower()}: {FAULTS[name][1]}" for name in found)
    yield _counts("faults", "Lost on the way, so far", rounds, told, f"{words[:1].upper()}{words[1:]}.")
    answers = columns.get("answers", np.empty(0))
    if np.isfinite(answers).any():
        words = "Clients whose replies to the last trip of a round counted."
        yield _counts("answers", "Clients that answered a round", rounds, {"answers": answers}, words)


def _picture(
    name: str,
    quantity: str,
    x: Array,
    across: str,
    lines: Mapping[str, Array],
    words: str,
    scale: Scale | None = None,
) -> Picture:
    """Return lines over x, the last one the most telling."""
    scale = scale or scale_of(*lines.values())
    heading = f"{quantity} against {across}"
    with style.styled():
        figure, axes = _canvas(len(lines))
        colours = _colours(lines)
        for index, (what, y) in enumerate(lines.items()):
            is_main = index == len(lines) - 1
            _line(axes, x, scale.shifted(y), what, colours[what], 1.7 if is_main else 1.0, "-")
        _finish(axes, scale, heading, across, float(np.nanmax(x)), len(lines))
    return Picture(
        name, heading, f"{words}; {scale.words}.", _summary(quantity, [*lines.values()][-1]), figure
    )


def _counts(name: str, heading: str, rounds: Array, lines: Mapping[str, Array], words: str) -> Picture:
    """Return counts over rounds, from 0 on."""
    most = max(float(np.nanmax(y)) for y in lines.values())
    with style.styled():
        figure, axes = _canvas(len(lines))
        for index, (what, y) in enumerate(lines.items()):
            _line(axes, rounds, y, what, style.PALETTE[index], 1.4, style.DASHES[index % len(style.DASHES)])
        _finish(axes, Scale(), heading, "rounds", float(np.nanmax(rounds)), len(lines))
        axes.set_ylim(0, 1.06 * most or 1)
        count_axis(axes.yaxis)
    alt = ", ".join(f"{what} {y[-1]:,.0f}" for what, y in lines.items())
    return Picture(name, heading, words, f"{heading}: {alt} in the end.", figure)


def _over_bytes(
    name: str, quantity: str, several: Mapping[str, Array], y: Array, words: str, scale: Scale | None
) -> Picture:
    """Return one line over bytes in each direction, and in both."""
    scale = scale or scale_of(y)
    named = {"up": "sent by clients", "down": "sent by the server", "bytes": "both"}
    heading = f"{quantity} against bytes"
    with style.styled():
        figure, axes = _canvas(3)
        # Dashes above a line show both where clients send as much as the server does.
        looks = {"down": (style.PALETTE[1], 1.2, "-"), "up": (style.PALETTE[2], 1.2, "--")}
        for which, (colour, width, dash) in {**looks, "bytes": (style.PALETTE[0], 1.7, "-")}.items():
            _line(axes, several[which], scale.shifted(y), named[which], colour, width, dash)
        _finish(axes, scale, heading, "bytes", float(several["bytes"].max()), 3)
        bytes_axis(axes.xaxis)
    return Picture(name, heading, f"{words}; {scale.words}.", _summary(quantity, y), figure)


def bytes_axis(axis: Any, is_log: bool = False) -> None:
    """Write numbers of bytes on an axis as 20 kB or 1 MB; one that is logarithmic keeps its places."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if not is_log:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axis.set_major_formatter(EngFormatter(unit="B"))


def amount(count: float) -> str:
    """Return a number of bytes to read.

    Example:
        >>> amount(512), amount(80_000), amount(12_345_678)
        ('512 B', '80 kB', '12.3 MB')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B"


def _colours(lines: Mapping[str, Array]) -> dict[str, str]:
    """Return a colour for each line: the same one for F everywhere."""
    if len(lines) == 2 and "worst client" in lines:
        return dict(zip(lines, (style.PALETTE[1], style.PALETTE[0]), strict=True))
    return {name: style.PALETTE[index % len(style.PALETTE)] for index, name in enumerate(lines)}


def _canvas(count: int) -> tuple[Any, Any]:
    rows = -(-count // 3) if count > 1 else 0
    return canvas(height=2.6 + 0.19 * rows, top=style.TOP + 0.19 * rows + (0.05 if rows else 0))


def _line(axes: Any, x: Array, y: Array, name: str, colour: str, width: float, dash: str) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    if known.any():
        marker = "." if known.sum() <= _FEW else ""
        axes.plot(
            *thinned(x[known], y[known]), dash, color=colour, lw=width, marker=marker, ms=4, label=label(name)
        )


def _finish(axes: Any, scale: Scale, title: str, across: str, last: float, count: int) -> None:
    scale.apply(axes)
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    if across.startswith("virtual"):
        axes.locator_params(axis="x", nbins=6)
    else:
        count_axis(axes.xaxis)
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes, color=style.FAINT)
    if count > 1:
        style.legend(axes, 3)


def _summary(quantity: str, line: Array) -> str:
    known = line[np.isfinite(line)]
    return (
        f"{quantity}: from {short(known[0])} to {short(known[-1])}."
        if len(known)
        else f"{quantity}: no values."
    )
