"""The figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.report import style
from zoo.report.entries import Entry, Section
from zoo.report.scales import Scale, scale_of
from zoo.report.statistics import attained, distribution, hits, quantiles
from zoo.report.style import Picture, canvas, in_words, label, short

Array = np.ndarray[Any, Any]

_GRID = 300  # places at which runs are compared
MOST_BANDS = 6  # beyond which nobody can tell one from the other
_LEGEND_ROWS = 2  # of names, this many beside each other


class Style(NamedTuple):
    """How a group is drawn, everywhere on a page."""

    colour: str
    dash: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each group."""
    count = len(style.PALETTE)
    return {
        name: Style(style.PALETTE[at % count], style.DASHES[at // count % len(style.DASHES)])
        for at, name in enumerate(names)
    }


def pictures(section: Section, targets: Array, drawn: Mapping[str, Style], ending: str) -> list[Picture]:
    """Return the figures of a section."""
    scale = _scale(section)
    found = [_medians(section, scale, drawn, ending, by_time=False)]
    if any(np.isfinite(entry.seconds).any() for entry in section.entries):
        found.append(_medians(section, scale, drawn, ending, by_time=True))
    if len(targets):
        found.append(_ecdf(section, targets, drawn, ending))
    if np.isfinite([entry.final for entry in section.entries]).any():
        found.append(_finals(section, scale, drawn, ending))
    return found


def together(sections: Sequence[tuple[Section, Array]], drawn: Mapping[str, Style]) -> list[Picture]:
    """Return the distribution over all objectives."""
    times: dict[str, list[Array]] = {}
    for section, targets in sections:
        for group in section.groups:
            for entry in group.entries:
                times.setdefault(group.name, []).append(hits(entry, targets) / (entry.config.get("dim") or 1))
    lines = {name: distribution(np.concatenate(parts)) for name, parts in times.items()}
    last = max(
        entry.length / (entry.config.get("dim") or 1) for section, _ in sections for entry in section.entries
    )
    with style.styled():
        figure, axes = canvas_for(len(lines))
        _draw_distributions(axes, lines, drawn, last)
        axes.set_xlabel("evaluations / variables")
        axes.set_title("Targets reached, all objectives")
        legend_of(axes)
    caption = (
        "Share of pairs of a run and a target that were reached after so many evaluations a variable, "
        f"over {len(sections)} objectives with the targets below."
    )
    return [Picture("all", "All objectives together", caption, _alt("Targets reached", lines), figure)]


def _scale(section: Section) -> Scale:
    """Return the scale on which the values of all groups are drawn."""
    curves = [entry.best[np.isfinite(entry.best)] for entry in section.entries]
    values = np.concatenate([np.empty(0), *curves])
    if not len(values) or section.wording.sign < 0:
        return Scale(sign=section.wording.sign)
    if section.is_noisy or (values.min() > 0 and values.max() > 100 * values.min()):
        return scale_of(values)
    gaps = np.array([curve[-1] for curve in curves if len(curve)]) - values.min()
    if np.median(gaps) < 1e-3 * np.ptp(values):
        return Scale("log", offset=float(values.min()))
    return scale_of(values)


def _medians(
    section: Section, scale: Scale, drawn: Mapping[str, Style], ending: str, by_time: bool
) -> Picture:
    size, unit = 1.0, section.wording.evaluations
    best, counted = f"Best {section.wording.value}", section.wording.evaluations
    if by_time:
        size, unit = in_words(max(float(np.nanmax(entry.seconds, initial=0)) for entry in section.entries))
    banded = len(section.groups) <= MOST_BANDS
    name = f"{'time' if by_time else 'evaluations'}{ending}"
    with style.styled():
        figure, axes = canvas_for(len(section.groups))
        first = last = max(
            float(np.nanmax(_positions(entry, by_time), initial=0)) for entry in section.entries
        )
        for group in section.groups:
            grid, table = _table(group.entries, last, by_time)
            if not len(grid):
                continue
            known = (np.where(np.isfinite(line), line, np.nan) for line in quantiles(table))
            lower, median, upper = map(scale.shifted, known)
            look = drawn[group.name]
            finite = np.isfinite(median)
            if len(group.entries) > 1 and banded:
                floor = np.nanmin(median) if finite.any() else np.nan
                lower = np.where(np.isnan(lower) & finite & np.isfinite(upper), floor, lower)
                axes.fill_between(grid / size, lower, upper, color=look.colour, alpha=0.16, lw=0)
            axes.plot(
                grid / size,
                median,
                look.dash,
                color=look.colour,
                lw=1.6,
                label=label(group.name),
            )
            ends = np.median(
                [_positions(entry, by_time)[-1] for entry in group.entries if len(entry.evaluations)]
            )
            at = min(int(np.searchsorted(grid, ends)), len(grid) - 1)
            axes.plot(grid[at : at + 1] / size, median[at : at + 1], "x", color=look.colour, ms=5)
            first = min(first, grid[0])
        scale.apply(axes)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.set(xlim=(0, last or 1), yticks=[])
            axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes, color=style.FAINT)
        elif last > 10 * first > 0:
            log_x(axes)
        axes.set_xlabel(f"{unit} of work" if by_time else unit)
        axes.set_title(f"{scale.name(best)} against {'time' if by_time else counted}")
        legend_of(axes)
    heading = f"{best} against {'time' if by_time else counted}"
    caption = (
        f"Median of the runs of a group{', and the band between its quartiles' if banded else ''}; "
        f"{scale.words}. There is no line where half of the runs had no value. A run that ended keeps its "
        "last value; the cross is where half of a group's had ended."
    )
    if section.wording.sign < 0:
        caption += " It is the best score by re-evaluation in the search, of methods that evaluate again."
    elif section.is_noisy:
        caption += " The function is random: the lowest value is a lucky one."
    alt = f"{heading}, of {', '.join(group.name for group in section.groups[:8])}."
    return Picture(name, heading, caption, alt, figure)


def _positions(entry: Entry, by_time: bool) -> Array:
    return entry.seconds if by_time else entry.evaluations


def _table(entries: Sequence[Entry], last: float, by_time: bool) -> tuple[Array, Array]:
    """Return places from where all runs had begun to the last one, and the best value of each run there."""
    known = [(_positions(entry, by_time), entry.best) for entry in entries if len(entry.evaluations)]
    known = [(x[np.isfinite(x)], best[np.isfinite(x)]) for x, best in known]
    known = [(x, best) for x, best in known if len(x)]
    if not known:
        return np.empty(0), np.empty((0, 0))
    first = max(float(x[0]) for x, _ in known)
    if not 0 < first < last:
        grid = np.array([last])
    else:
        grid = np.unique(np.concatenate([np.geomspace(first, last, _GRID), np.linspace(first, last, _GRID)]))
    return grid, np.array(
        [best[np.maximum(np.searchsorted(x, grid, side="right") - 1, 0)] for x, best in known]
    )


def _ecdf(section: Section, targets: Array, drawn: Mapping[str, Style], ending: str) -> Picture:
    lines = {group.name: attained(group.entries, targets) for group in section.groups}
    last = max(entry.length for entry in section.entries)
    with style.styled():
        figure, axes = canvas_for(len(lines))
        _draw_distributions(axes, lines, drawn, last)
        axes.set_xlabel(section.wording.evaluations)
        axes.set_title(f"Targets reached against {section.wording.evaluations}")
        legend_of(axes)
    span = (
        f"{len(targets)} targets, {short(targets[0])} to {short(targets[-1])}"
        if len(targets) > 1
        else f"the target {short(targets[0])}"
    )
    caption = f"Share of pairs of a run and a target that were reached: {span}."
    if len(targets) > 2:
        caption += (
            " They are evenly spaced on a logarithmic scale"
            if targets[-1] > 0 and targets[0] > 100 * targets[-1]
            else " Their distances to the best value seen are evenly spaced on a logarithmic scale"
        )
        caption += ", from the worst first value to the best one."
    return Picture(f"targets{ending}", "Targets reached", caption, _alt("Targets reached", lines), figure)


def _draw_distributions(
    axes: Any, lines: Mapping[str, tuple[Array, Array]], drawn: Mapping[str, Style], last: float
) -> None:
    first = last
    for name, (x, share) in lines.items():
        look = drawn[name]
        x, share = np.append(x, last), np.append(share, share[-1] if len(share) else 0.0)
        x, share = style.thinned(x, share)
        axes.step(x, share, look.dash, where="post", color=look.colour, lw=1.6, label=label(name))
        first = min(first, float(x[0]))
    axes.set_ylim(0, 1.02)
    if 0 < 10 * first < last:
        log_x(axes)


def _finals(section: Section, scale: Scale, drawn: Mapping[str, Style], ending: str) -> Picture:
    """Return every final value as a point, with the median of its group."""
    values = {group.name: group.finals for group in section.groups}
    return finals(values, scale, drawn, section.wording.value, ending)


def finals(
    values: Mapping[str, Array], scale: Scale, drawn: Mapping[str, Style], quantity: str, ending: str = ""
) -> Picture:
    """Return every final value of each group as a point, with the median of the group.

    Args:
        values: By the name of the group.
        scale: Of the y axis.
        drawn: How groups are drawn.
        quantity: What a value is called.
        ending: Of the name of the file.
    """
    count, missing = len(values), 0
    with style.styled():
        figure, axes = canvas(height=2.6 + (0.5 if count > 6 else 0))
        if count > 6:
            axes.set_position((0.62 / 4.6, 1.0 / 3.1, 1 - 0.78 / 4.6, 1.78 / 3.1))
        for at, (name, ends) in enumerate(values.items()):
            missing += int((~np.isfinite(ends)).sum())
            shown = scale.shifted(np.where(np.isfinite(ends), ends, np.nan))
            spread = np.linspace(-0.18, 0.18, len(ends)) if len(ends) > 1 else np.zeros(1)
            axes.plot(at + spread, shown, "o", color=drawn[name].colour, ms=3.5, alpha=0.7, mew=0)
            middle = float(quantiles(ends)[1])
            if np.isfinite(middle):
                axes.plot(
                    [at - 0.3, at + 0.3],
                    np.repeat(scale.shifted(np.array([middle])), 2),
                    "-",
                    color=style.INK,
                    lw=1.4,
                )
        scale.apply(axes)
        axes.set_xlim(-0.6, count - 0.4)
        crowded = count > 4
        names = [label(name, 16 if crowded else max(10, 44 // count)) for name in values]
        axes.set_xticks(
            range(count), names, rotation=30 if crowded else 0, ha="right" if crowded else "center"
        )
        axes.grid(False, axis="x")
        axes.set_title(f"{scale.name(f'Final {quantity}')} of each run")
    caption = f"Each point is where a run ended, the line the median of its group; {scale.words}."
    if missing:
        caption += f" {missing} without a value are left out."
    if scale.offset:
        caption += " Those at the best value itself have no place on this scale."
    heading = f"Final {quantity}{'s' if len(quantity) > 1 else ''}"  # a symbol has no plural
    return Picture(f"finals{ending}", heading, caption, f"{heading} of {count} groups.", figure)


def canvas_for(names: int) -> tuple[Any, Any]:
    """Return an empty figure and its axes, with room for so many names above them; use it within `styled`."""
    rows = -(-names // _LEGEND_ROWS)
    return canvas(height=2.6 + 0.19 * rows, top=style.TOP + 0.19 * rows + 0.05)


def legend_of(axes: Any) -> None:
    """Put the names of groups above the axes."""
    style.legend(axes, _LEGEND_ROWS)


def log_x(axes: Any) -> None:
    """Use a logarithmic scale for the x axis, on which everything is drawn already."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,), numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _alt(what: str, lines: Mapping[str, tuple[Array, Array]]) -> str:
    shares = ", ".join(
        f"{name} {100 * (share[-1] if len(share) else 0):.0f} %" for name, (_, share) in lines.items()
    )
    return f"{what} in the end: {shares}."
