"""The figures of one run. Every diagnostic that its method gives is drawn, whatever it is called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report import style
from zoo.report.scales import scale_of, scale_of_values
from zoo.report.style import Picture, canvas, count_axis, in_words, label, short, thinned
from zoo.run.reading import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

_STEP_SIZES = ("sigma", "step_size", "smallest_deviation", "largest_deviation")
_FEW = 40  # points of a line that are marked one by one
_MOST_LINES = 10  # of an array; a band beyond


def figures(recording: Recording) -> Iterator[Picture]:
    """Yield the figures of the search itself, most telling first."""
    if not recording.num_steps or not len(recording.columns.get("nfev", ())):
        return
    yield from _progress(recording)
    violation = recording.columns.get("violation")
    if violation is not None:
        yield _lines(
            recording,
            "violation",
            "Constraints",
            {"of the best point": violation},
            "The largest violation of a constraint at the best point so far; 0 where it keeps to all of them",
        )
    yield from _diagnostics(recording)


def _progress(recording: Recording) -> Iterator[Picture]:
    columns = recording.columns
    nothing = np.full(len(columns["nfev"]), np.nan)
    best, value, median = (columns.get(name, nothing) for name in ("best", "value", "median"))
    steps = np.concatenate([value, median])
    noisy = bool(recording.config.get("noise"))
    violation = columns.get("violation")
    allowed = best if violation is None else np.where(violation <= 0, best, np.nan)
    scale = scale_of_values(allowed, steps, is_noisy=noisy)
    clock, unit = _clock(recording)
    for name, heading, x, across in (
        ("value_evaluations", "Value against evaluations", columns["nfev"], "evaluations"),
        ("value_time", "Value against time", clock, f"{unit} of work"),
    ):
        if not np.isfinite(x).any():
            continue
        with style.styled():
            figure, axes = canvas(top=style.LEGEND)
            known = np.isfinite(x)
            for series, colour, width, what in (
                (median, "#c2c2c2", 0.8, "median of a step"),
                (value, style.PALETTE[4], 0.8, "lowest of a step"),
                (best if violation is not None else None, style.PALETTE[0], 1.0, "best, not allowed yet"),
                (allowed, style.PALETTE[0], 1.8, "best so far"),
            ):
                if (
                    series is None
                    or not np.isfinite(series).any()
                    or (what.endswith("yet") and not np.isfinite(best[np.isnan(allowed)]).any())
                ):
                    continue
                drawn = np.where(np.isnan(allowed), best, np.nan) if what.endswith("yet") else series
                _line(
                    axes,
                    x[known],
                    scale.shifted(drawn)[known],
                    colour,
                    what,
                    width,
                    "--" if what.endswith("yet") else "-",
                )
            target = recording.config.get("target")
            if isinstance(target, float) and _is_near(target, steps):
                axes.axhline(
                    float(scale.shifted(np.array([target]))[0]),
                    color=style.INK,
                    lw=0.8,
                    ls=":",
                    label="target",
                )
            _mark_failed(axes, x, value)
            if name == "value_time":
                for at in np.cumsum(recording.worked)[:-1] / _unit_size(unit):
                    axes.axvline(at, color=style.FAINT, lw=0.8, ls=":")
            _finish(axes, scale, "Value", across, x, ending=heading.removeprefix("Value"))
        words = [f"The best value so far, and the lowest and the median one of each step; {scale.words}"]
        if scale.offset:
            words.append(f", of what they are above the best one, {scale.offset:.9g}")
        if (recording.result or {}).get("front"):
            words.append(". A value is the mean of the objectives")
        if noisy:
            words.append(
                ". The function is random: the lowest value is a lucky one, not what its point is worth"
            )
        if name == "value_time" and len(recording.worked) > 1:
            words.append(". Dotted: another process went on")
        yield Picture(
            name, heading, "".join(words) + "." + _selection(recording), _summary(heading, best), figure
        )


def _diagnostics(recording: Recording) -> Iterator[Picture]:
    columns = dict(recording.diagnostics)
    sizes = {name: columns.pop(name) for name in _STEP_SIZES if name in columns}
    if any(np.isfinite(column).any() for column in sizes.values()):
        words = "Step size" if len(sizes) == 1 else "Step size and standard deviations of the search"
        yield _lines(recording, "step_size", "Step size", sizes, words)
    for name, column in columns.items():
        if not np.isfinite(column).any():
            continue
        yield _lines(recording, f"diagnostic_{name}", _readable(name), {name: column}, "")
    for name, arrays in recording.arrays.items():
        picture = _array_picture(recording, name, arrays)
        if picture is not None:
            yield picture


def _lines(recording: Recording, name: str, heading: str, lines: dict[str, Array], words: str) -> Picture:
    scale = scale_of(*lines.values())
    x = recording.columns["nfev"]
    with style.styled():
        figure, axes = canvas(height=2.4, top=style.LEGEND if len(lines) > 1 else style.TOP)
        for index, (what, line) in enumerate(lines.items()):
            if np.isfinite(line).any():
                colour, dash = (
                    style.PALETTE[index % len(style.PALETTE)],
                    "-" if index == 0 else style.DASHES[index % 4],
                )
                _line(axes, x, scale.shifted(line), colour, label(what.replace("_", " ")), 1.3, dash)
        _finish(axes, scale, label(_readable(heading)), "evaluations", x, legend=len(lines) > 1)
    caption = f"{words}; {scale.words}." if words else f"{scale.words.capitalize()}."
    return Picture(_slug(name), heading, caption, _summary(heading, *lines.values()), figure)


def _array_picture(recording: Recording, name: str, arrays: list[Array | None]) -> Picture | None:
    flat = [np.empty(0) if one is None else np.ravel(one) for one in arrays]
    longest = max(map(len, flat), default=0)
    if not any(np.isfinite(one).any() for one in flat):
        return None
    x = recording.columns["nfev"]
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
    scale = scale_of(*lines.values())
    with style.styled():
        rows = -(-len(lines) // 5) if 1 < longest <= _MOST_LINES else int(longest > 1)
        figure, axes = canvas(height=2.2 + 0.2 * rows, top=style.TOP + 0.2 * rows)
        if longest <= _MOST_LINES:
            for index, (what, line) in enumerate(lines.items()):
                colour, dash = (
                    style.PALETTE[index % len(style.PALETTE)],
                    style.DASHES[index // len(style.PALETTE)],
                )
                _line(axes, x, scale.shifted(line), colour, what, 1.1, dash)
        else:
            at, low, middle, high = thinned(x, *(scale.shifted(line) for line in lines.values()))
            axes.fill_between(at, low, high, color=style.PALETTE[0], alpha=0.22, lw=0, label="all entries")
            _line(axes, at, middle, style.PALETTE[0], "median", 1.4)
        _finish(axes, scale, label(_readable(name)), "evaluations", x, legend=len(lines) > 1, columns=5)
    return Picture(
        _slug(f"diagnostic_{name}"),
        _readable(name),
        f"{words}; {scale.words}.",
        _summary(name, *lines.values()),
        figure,
    )


def _line(axes: Axes, x: Array, y: Array, colour: str, what: str, width: float, dash: str = "-") -> None:
    count = np.isfinite(y).sum()
    marked = "o" if count <= 3 else "." if count <= _FEW else ""
    at, line = thinned(x, y)
    axes.plot(at, line, dash, color=colour, lw=width, marker=marked, label=what)


def _mark_failed(axes: Axes, x: Array, value: Array) -> None:
    """Mark the steps none of whose evaluations had a value."""
    failed = x[np.isnan(value)]
    if len(failed):
        (failed,) = thinned(failed)
        axes.plot(
            failed,
            np.full(len(failed), 0.02),
            "|",
            color=style.ALARM,
            transform=axes.get_xaxis_transform(),
            ms=7,
            label="steps without a value",
        )


def _finish(
    axes: Axes,
    scale: Any,
    quantity: str,
    across: str,
    x: Array,
    legend: bool = True,
    columns: int = 4,
    ending: str = "",
) -> None:
    scale.apply(axes)
    axes.set_title(scale.name(quantity) + ending)
    axes.set_xlabel(across)
    if across == "evaluations":
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


def _clock(recording: Recording) -> tuple[Array, str]:
    seconds = recording.seconds
    if not np.isfinite(seconds).any():
        return seconds, "seconds"
    size, unit = in_words(float(np.nanmax(seconds)))
    return seconds / size, unit


def _unit_size(unit: str) -> float:
    return {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}[unit]


def _is_near(target: float, values: Array) -> bool:
    """Whether a line may be drawn without pressing everything else together."""
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() - np.ptp(values) <= target <= values.max())


def _selection(recording: Recording) -> str:
    drawn = len(recording.columns["nfev"])
    return "" if drawn >= recording.num_steps else f" Drawn: {drawn:,} of {recording.num_steps:,} steps."


def _summary(heading: str, *lines: Array) -> str:
    """Return what a figure shows, in words."""
    parts = []
    for line in lines[:1]:
        known = line[np.isfinite(line)]
        parts.append(f"from {short(known[0])} to {short(known[-1])}" if len(known) else "no values")
    return f"{heading}: {', '.join(parts)}."


def _readable(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
