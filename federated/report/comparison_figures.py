"""The figures of a comparison of federated methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from federated.report.clients import MOST_BARS
from federated.report.curves import bytes_axis
from federated.report.material import Course
from zoo.report import style
from zoo.report.comparison_figures import (
    MOST_BANDS,
    Style,
    canvas_for,
    finals,
    legend_of,
    log_x,
)
from zoo.report.scales import Scale, scale_of
from zoo.report.statistics import quantiles
from zoo.report.style import Picture, count_axis, in_words, label, short

if TYPE_CHECKING:
    from federated.report.comparison import Trials

Array = np.ndarray[Any, Any]

MANY = 5  # runs of a method, from which on bands are between quartiles
_RATIO = 10.0  # of what methods took, from which on the x axis is logarithmic
_MOST = 600  # places at which runs are compared
_MARKS = "osD^vPX*"


def curves(
    groups: Sequence[Trials], gaps: bool, drawn: Mapping[str, Style], ending: str
) -> Iterator[Picture]:
    """Yield F, or its gap to the optimum, against rounds, queries, bytes and virtual time, and in the end."""

    def value(course: Course) -> Array:
        return course.columns["value"] - ((course.optimum or 0.0) if gaps else 0.0)

    quantity = "Gap to the optimum" if gaps else "F"
    every = np.concatenate([np.empty(0), *(value(course) for group in groups for course in group.courses)])
    if not np.isfinite(every).any():
        return
    scale = Scale("log") if gaps and (every[np.isfinite(every)] > 0).any() else scale_of(every)
    clock = any(course.last("clock") > 0 for group in groups for course in group.courses)
    for across in ("round", "queries", "bytes", *(("clock",) if clock else ())):
        yield _medians(groups, value, across, quantity, scale, drawn, f"{across}{ending}")
    ends = {
        group.name: np.array(
            [course.final - ((course.optimum or 0.0) if gaps else 0.0) for course in group.courses]
        )
        for group in groups
    }
    ends = {name: np.where(np.isfinite(values), values, np.inf) for name, values in ends.items()}
    yield finals(ends, scale, drawn, "gap" if gaps else "F", ending)


def measured(
    groups: Sequence[Trials], measures: Sequence[str], drawn: Mapping[str, Style], ending: str
) -> Iterator[Picture]:
    """Yield what the task measures, against queries."""
    for name in measures:
        values = [course.columns[name] for group in groups for course in group.courses]
        every = np.concatenate(values)
        if np.isfinite(every).any():
            heading = label(name.replace("_", " ").capitalize())
            yield _medians(
                groups, _column(name), "queries", heading, scale_of(every), drawn, f"{name}{ending}"
            )


def at_clients(group: Trials) -> Array | None:
    """Return f_i(x) of each client, the median over runs; None where it is not known."""
    found = [course.clients["value"] for course in group.courses if "value" in course.clients]
    if not found or len({len(one) for one in found}) != 1:
        return None
    table = np.where(np.isfinite(found), found, np.inf)
    middle = np.asarray(np.median(table, axis=0), float)
    return np.where(np.isfinite(middle), middle, np.nan)


def clients(groups: Sequence[Trials], drawn: Mapping[str, Style], ending: str) -> Picture | None:
    """Return what the methods' x are worth to each client, or to which share of them."""
    values = {group.name: at_clients(group) for group in groups}
    known = {name: one for name, one in values.items() if one is not None and np.isfinite(one).any()}
    if not known or max(map(len, known.values())) < 2:
        return None
    count = max(map(len, known.values()))
    few = count <= MOST_BARS
    scale = scale_of(*known.values())
    with style.styled():
        figure, axes = canvas_for(len(known))
        for at, (name, value) in enumerate(known.items()):
            look, own = drawn[name], value[np.isfinite(value)]
            if few:
                shift = 0.6 * ((at + 0.5) / len(known) - 0.5)
                mark = _MARKS[at % len(_MARKS)]
                x, y = np.arange(len(value)) + shift, value
                axes.plot(x, scale.shifted(y), mark, color=look.colour, ms=4, mew=0, label=label(name))
            else:
                x, y = 100 * (np.arange(len(own)) + 0.5) / len(own), np.sort(own)
                axes.plot(x, scale.shifted(y), look.dash, color=look.colour, lw=1.6, label=label(name))
        scale.apply(axes)
        axes.set_title("f_i(x) of each client" if few else "f_i(x) over clients")
        if few:
            axes.set_xlim(-0.6, count - 0.4)
            count_axis(axes.xaxis)
        else:
            axes.set_xlim(-1, 101)
        axes.set_xlabel("client" if few else "% of clients, the best ones first")
        legend_of(axes)
    words = "What x is worth to each client" if few else "What x is worth to clients, in the order of it"
    alt = "Highest f_i(x): " + ", ".join(f"{name} {short(np.nanmax(one))}" for name, one in known.items())
    return Picture(
        f"clients_values{ending}", "Clients", f"{words}: medians over runs; {scale.words}.", f"{alt}.", figure
    )


def _medians(
    groups: Sequence[Trials],
    value: Callable[[Course], Array],
    across: str,
    quantity: str,
    scale: Scale,
    drawn: Mapping[str, Style],
    name: str,
) -> Picture:
    """Return the medians of groups over x, with bands."""
    lasts = [course.last(across) for group in groups for course in group.courses]
    lasts = [last for last in lasts if last > 0]
    size, unit = in_words(max(lasts, default=1.0)) if across == "clock" else (1.0, across)
    words = {"round": "rounds", "clock": f"virtual {unit}"}.get(across, across)
    is_log = bool(lasts) and max(lasts) > _RATIO * min(lasts) and across != "round"
    banded = len(groups) <= MOST_BANDS and any(len(group.courses) > 1 for group in groups)
    quartiles = any(len(group.courses) >= MANY for group in groups)
    heading, without = f"{quantity} against {words}", list[str]()
    with style.styled():
        figure, axes = canvas_for(len(groups))
        for group in groups:
            grid, rows = _rows(group.courses, value, across, scale, is_log)
            if not len(grid) or not grid[-1] > 0:
                without.append(group.name)
                continue
            lower, middle, upper = quantiles(rows)
            if not quartiles:
                lower, upper = rows.min(0), rows.max(0)
            lower, middle, upper = (
                np.where(np.isfinite(line), line, np.nan) for line in (lower, middle, upper)
            )
            look = drawn[group.name]
            if len(group.courses) > 1 and banded:
                axes.fill_between(grid / size, lower, upper, color=look.colour, alpha=0.16, lw=0)
            axes.plot(grid / size, middle, look.dash, color=look.colour, lw=1.6, label=label(group.name))
            ends = np.median([course.last(across) for course in group.courses])
            at = min(int(np.searchsorted(grid, ends)), len(grid) - 1)
            axes.plot(grid[at : at + 1] / size, middle[at : at + 1], "x", color=look.colour, ms=5)
        scale.apply(axes)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.set(yticks=[])
            axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes, color=style.FAINT)
        if is_log:
            log_x(axes)
        else:
            axes.set_xlim(0, 1.02 * max(lasts, default=1.0) / size)
            if across != "clock":
                count_axis(axes.xaxis)
        if across == "bytes":
            bytes_axis(axes.xaxis, is_log)
        axes.set_xlabel(f"{words}{', both ways' if across == 'bytes' else ''}")
        axes.set_title(heading)
        legend_of(axes)
    between = "between its quartiles" if quartiles else "from its lowest to its highest run"
    caption = f"Median of the runs of a method{f', and the band {between}' if banded else ''}; {scale.words}"
    caption += ", and so is that of the other axis" if is_log else ""
    caption += (
        ". A run that is over keeps its last value; the cross is where half of a method's runs were over."
    )
    if without:
        caption += f" Not drawn, as there is nothing to draw: {', '.join(without)}."
    return Picture(name, heading, caption, f"{heading}, of {', '.join(g.name for g in groups[:8])}.", figure)


def _rows(
    courses: Sequence[Course], value: Callable[[Course], Array], across: str, scale: Scale, is_log: bool
) -> tuple[Array, Array]:
    """Return places, and the value of each run there: between looks that of the line from one to the next.

    Infinite before there is one; the least of the run's that has a place where the scale has none for it.
    """
    known = []
    for course in courses:
        x, y = course.columns[across], value(course)
        here = np.isfinite(x) & np.isfinite(y)
        if here.any():
            known.append((x[here], y[here]))
    if not known:
        return np.empty(0), np.empty((0, 0))
    grid = np.unique(np.concatenate([x for x, _ in known]))
    grid = grid[grid > 0] if is_log else grid
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(len(grid), _MOST)).round().astype(int))]
    rows = np.full((len(courses), len(grid)), np.inf)
    for row, (x, y) in zip(rows, known, strict=False):
        if scale.kind == "log":
            shown = scale.shifted(y)
            least = np.nanmin(shown) if np.isfinite(shown).any() else 1.0
            row[:] = np.exp(np.interp(grid, x, np.log(np.where(np.isnan(shown), least, shown))))
        else:
            row[:] = np.interp(grid, x, y)
        row[grid < x[0]] = np.inf
    return grid, rows


def _column(name: str) -> Callable[[Course], Array]:
    return lambda course: course.columns[name]
