"""The figures of one run. Every diagnostic that its method gives is drawn, whatever it is called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.report import style
from zoo.report.scales import Scale, scale_of, scale_of_values, steadied
from zoo.report.style import Picture, canvas, count_axis, in_words, label, short, thinned
from zoo.run.kinds import wording_of
from zoo.run.reading import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

STEP_SIZES = ("sigma", "step_size", "smallest_deviation", "largest_deviation")
_FEW = 40  # points of a line that are marked one by one
_MOST_LINES = 10  # of an array; a band beyond


class _Line(NamedTuple):
    what: str
    y: Array
    colour: str
    width: float
    dash: str = "-"


def figures(recording: Recording) -> Iterator[Picture]:
    """Yield the figures of the search itself, most telling first."""
    if not recording.num_steps or not len(recording.columns.get("nfev", ())):
        return
    yield from _progress(recording)
    violation = recording.columns.get("violation")
    if violation is not None:
        counted = wording_of(recording.config).evaluations
        yield _lines(
            recording.columns["nfev"],
            counted,
            "violation",
            "Constraints",
            {"of the best point": violation},
            "The largest violation of a constraint at the best point so far; 0 where it keeps to all of them",
        )
    yield from diagnostics(recording)


def _progress(recording: Recording) -> Iterator[Picture]:
    columns = recording.columns
    nothing = np.full(len(columns["nfev"]), np.nan)
    best, value, median = (columns.get(name, nothing) for name in ("best", "value", "median"))
    is_allowed = columns.get("violation", np.zeros(len(best))) <= 0
    lines = [
        _Line("median of a step", median, "#c2c2c2", 0.8),
        _Line("lowest of a step", value, style.PALETTE[4], 0.8),
        _Line("best, not allowed yet", np.where(is_allowed, np.nan, best), style.PALETTE[0], 1.0, "--"),
        _Line("best so far", np.where(is_allowed, best, np.nan), style.PALETTE[0], 1.8),
    ]
    is_noisy = bool(recording.config.get("noise"))
    scale = scale_of_values(lines[-1].y, np.concatenate([value, median]), is_noisy=is_noisy)
    words = f"The best value so far, and the lowest and the median one of each step; {scale.words}"
    if scale.offset:
        words += f", of what they are above the best one, {scale.offset:.9g}"
    if (recording.result or {}).get("front"):
        words += ". A value is the mean of the objectives"
    if is_noisy:
        words += ". The function is random: the lowest value is a lucky one, not what its point is worth"
    size, unit = in_words(float(np.nanmax(recording.seconds, initial=0)))
    for name, ending, x, across in (
        ("value_evaluations", " against evaluations", columns["nfev"], "evaluations"),
        ("value_time", " against time", recording.seconds / size, f"{unit} of work"),
    ):
        known = np.isfinite(x)
        if not known.any():
            continue
        with style.styled():
            figure, axes = canvas(top=style.LEGEND)
            for line in lines:
                if np.isfinite(line.y[known]).any():
                    _plot(axes, x[known], line._replace(y=line.y[known]), scale)
            target = recording.config.get("target")
            if target is not None and _is_near(target, value):
                at = float(scale.shifted(np.array([target]))[0])
                axes.axhline(at, color=style.INK, lw=0.8, ls=":", label="target")
            _mark_failed(axes, x[known & np.isnan(median)])
            if name == "value_time":
                for seconds in np.cumsum(recording.worked)[:-1]:
                    axes.axvline(seconds / size, color=style.FAINT, lw=0.8, ls=":")
            _finish(axes, scale, scale.name("Value") + ending, across, x)
        dotted = (
            ". Dotted: another process went on" if across != "evaluations" and recording.worked[1:] else ""
        )
        caption = f"{words}{dotted}.{_selection(recording)}"
        yield Picture(name, f"Value{ending}", caption, _summary("Value", best), figure)


def diagnostics(
    recording: Recording, left_out: Collection[str] = (), across: tuple[str, str] | None = None
) -> Iterator[Picture]:
    """Yield the figures of the method's own diagnostics.

    Args:
        recording: The run.
        left_out: Names of those that are not drawn.
        across: What they are drawn against: the name of a column, and what the axis is called; evaluations by
            default.
    """
    name, counted = across or ("nfev", wording_of(recording.config).evaluations)
    x = recording.columns[name]
    columns = {name: column for name, column in recording.diagnostics.items() if name not in left_out}
    sizes = {name: columns.pop(name) for name in STEP_SIZES if name in columns}
    if any(np.isfinite(column).any() for column in sizes.values()):
        words = "Step size" if len(sizes) == 1 else "Step size and standard deviations of the search"
        yield _lines(x, counted, "step_size", "Step size", sizes, words)
    for name, column in columns.items():
        if not np.isfinite(column).any():
            continue
        yield _lines(x, counted, f"diagnostic_{name}", _readable(name), {name: column}, "")
    for name, arrays in recording.arrays.items():
        picture = None if name in left_out else _array_picture(x, counted, name, arrays)
        if picture is not None:
            yield picture


def _lines(x: Array, counted: str, name: str, heading: str, lines: dict[str, Array], words: str) -> Picture:
    lines = dict(zip(lines, steadied(*lines.values()), strict=True))
    scale = scale_of(*lines.values())
    with style.styled():
        figure, axes = canvas(height=2.4, top=style.LEGEND if len(lines) > 1 else style.TOP)
        for index, (what, y) in enumerate(lines.items()):
            if np.isfinite(y).any():
                dash = style.DASHES[index % len(style.DASHES)]
                _plot(axes, x, _Line(what.replace("_", " "), y, style.PALETTE[index], 1.3, dash), scale)
        _finish(axes, scale, scale.name(label(heading)), counted, x, legend=len(lines) > 1)
    caption = f"{words}; {scale.words}." if words else f"{scale.words.capitalize()}."
    return Picture(_slug(name), heading, caption, _summary(heading, next(iter(lines.values()))), figure)


def _array_picture(x: Array, counted: str, name: str, arrays: list[Array | None]) -> Picture | None:
    flat = [np.empty(0) if one is None else np.ravel(one) for one in arrays]
    longest = max(map(len, flat), default=0)
    if not any(np.isfinite(one).any() for one in flat):
        return None
    lines: dict[str, Array]
    if longest <= _MOST_LINES:
        table = np.full((len(flat), longest), np.nan)
        for row, one in zip(table, flat, strict=True):
            row[: len(one)] = one
        lines = {f"[{index}]": table[:, index] for index in range(longest)}
        words = f"{name}, entry by entry"
    else:
        table = np.full((len(flat), 3), np.nan)
        for row, one in zip(table, flat, strict=True):
            if np.isfinite(one).any():
                row[:] = np.quantile(one[np.isfinite(one)], (0, 0.5, 1))
        lines = dict(zip(("lowest", "median", "highest"), table.T, strict=True))
        words = f"{name}: lowest, median and highest of up to {longest} entries"
    lines = dict(zip(lines, steadied(*lines.values()), strict=True))
    scale = scale_of(*lines.values())
    with style.styled():
        rows = -(-len(lines) // 5) if 1 < longest <= _MOST_LINES else int(longest > 1)
        figure, axes = canvas(height=2.2 + 0.2 * rows, top=style.TOP + 0.2 * rows)
        if longest <= _MOST_LINES:
            for index, (what, y) in enumerate(lines.items()):
                again, colour = divmod(index, len(style.PALETTE))
                _plot(axes, x, _Line(what, y, style.PALETTE[colour], 1.1, style.DASHES[again]), scale)
        else:
            at, low, high = thinned(x, scale.shifted(lines["lowest"]), scale.shifted(lines["highest"]))
            axes.fill_between(at, low, high, color=style.PALETTE[0], alpha=0.22, lw=0, label="all entries")
            _plot(axes, x, _Line("median", lines["median"], style.PALETTE[0], 1.4), scale)
        title = scale.name(label(_readable(name)))
        _finish(axes, scale, title, counted, x, legend=len(lines) > 1, columns=5)
    return Picture(
        _slug(f"diagnostic_{name}"),
        _readable(name),
        f"{words}; {scale.words}.",
        _summary(name, next(iter(lines.values()))),
        figure,
    )


def _plot(axes: Axes, x: Array, line: _Line, scale: Scale) -> None:
    count = np.isfinite(line.y).sum()
    marker = "o" if count <= 3 else "." if count <= _FEW else ""
    at, y = thinned(x, scale.shifted(line.y))
    axes.plot(at, y, line.dash, color=line.colour, lw=line.width, marker=marker, label=label(line.what))


def _mark_failed(axes: Axes, failed: Array) -> None:
    """Mark the steps none of whose evaluations had a value."""
    if len(failed):
        at = thinned(failed)[0]
        axes.plot(
            at,
            np.full(len(at), 0.02),
            "|",
            color=style.ALARM,
            ms=7,
            transform=axes.get_xaxis_transform(),
            label="steps without a value",
        )


def _finish(
    axes: Axes, scale: Scale, title: str, across: str, x: Array, *, legend: bool = True, columns: int = 4
) -> None:
    scale.apply(axes)
    axes.set_title(title)
    axes.set_xlabel(across)
    if not across.endswith(" of work"):
        count_axis(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=6)
    last = float(np.nanmax(x))
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines if line.get_marker() != "|"):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes, color=style.FAINT)
    if legend:
        style.legend(axes, columns)


def _is_near(target: float, values: Array) -> bool:
    """Whether a line may be drawn without pressing everything else together."""
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() - np.ptp(values) <= target <= values.max())


def _selection(recording: Recording) -> str:
    drawn = len(recording.columns["nfev"])
    return "" if drawn >= recording.num_steps else f" Drawn: {drawn:,} of {recording.num_steps:,} steps."


def _summary(heading: str, line: Array) -> str:
    """Return what a figure shows, in words."""
    known = line[np.isfinite(line)]
    return (
        f"{heading}: from {short(known[0])} to {short(known[-1])}."
        if len(known)
        else f"{heading}: no values."
    )


def _readable(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
