"""Figures of points: the best ones in parallel coordinates, and the front of several objectives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.space import Categorical, Space, Variable
from zoo.report import style
from zoo.report.scales import clipped
from zoo.report.style import Picture, canvas, label, short
from zoo.run.reading import Improvement, Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

_Column = tuple[str, Variable | None, list[Any]]

_MOST_POINTS = 100
_MOST_AXES = 30
_MOST_CHOICES = 8  # of a category that are written out
_A_ROW = 12  # axes beside each other
_WIDE = 9.2  # inches, of more than half a row


def parallel_coordinates(recording: Recording) -> Picture | None:
    """Return the last points that were the best ones, a line for each; None where none is known."""
    points = [point for point in recording.points if np.isfinite(point.fun)][-_MOST_POINTS:]
    if not points:
        return None
    title = f"The last {len(points)} best points" if len(points) > 1 else "The best point"
    figure, num_columns, total, is_wide = _lines(recording.space, points, title)
    caption = f"The only point that was the best one, of value {short(points[0].fun)}."
    if len(points) > 1:
        caption = (
            f"Each line is a point that was the best one for a while, values {short(points[0].fun)} to "
            f"{short(points[-1].fun)}, from light (old) to dark (new); the best one is black. Each axis goes "
            "from the lowest to the highest of them."
        )
    if total > num_columns:
        caption += f" The first {num_columns} of {total} variables."
    alt = f"Parallel coordinates of {len(points)} points in {num_columns} variables."
    return Picture("best_points", "The best points", caption, alt, figure, wide=is_wide)


def minima(recording: Recording) -> Picture | None:
    """Return several minima, a line for each; None without any, or if variables are no numbers."""
    found = (recording.result or {}).get("minima") or {}
    rows: Array = np.empty(0)
    values: Array = np.empty(0)
    with contextlib.suppress(TypeError, ValueError):
        rows, values = np.array(found.get("x", ()), float), np.array(found.get("fun", ()), float)
    if rows.ndim != 2 or not rows.size or values.shape != rows.shape[:1] or not np.isfinite(rows).all():
        return None
    best = [Improvement(0, 0, float(fun), x) for x, fun in zip(rows, values, strict=True)][:_MOST_POINTS]
    figure, num_columns, total, is_wide = _lines(None, best[::-1], f"{len(values)} minima")
    caption = f"Each line is a minimum, from light (the worst, {short(best[-1].fun)}) to dark; the best one, "
    caption += f"{short(best[0].fun)}, is black."
    if len(values) > len(best):
        caption += f" The best {len(best)} of {len(values)}."
    if total > num_columns:
        caption += f" The first {num_columns} of {total} variables."
    alt = f"Parallel coordinates of {len(best)} minima in {num_columns} variables."
    return Picture("minima", "The minima", caption, alt, figure, wide=is_wide)


def _lines(space: Space | None, points: list[Improvement], title: str) -> tuple[Figure, int, int, bool]:
    """Return points in parallel coordinates, in how many of how many, and whether the figure is wide."""
    columns = _columns(space, points)
    total, columns = len(columns), columns[:_MOST_AXES]
    ranks = np.linspace(0.0, 1.0, len(points)) if len(points) > 1 else np.ones(1)
    rows = -(-len(columns) // _A_ROW)
    with style.styled():
        import matplotlib
        from matplotlib.figure import Figure

        colours = matplotlib.colormaps[style.COLOURS](0.05 + 0.87 * (1 - ranks))
        width, height = style.WIDTH if len(columns) <= _A_ROW // 2 else _WIDE, 0.35 + 2.5 * rows
        figure = Figure(figsize=(width, height))
        figure.text(0.2 / width, 1 - 0.12 / height, title, va="top", size=9.5)
        for row, part in enumerate(np.array_split(np.arange(len(columns)), rows)):
            bottom = (height - 0.35 - 2.5 * (row + 1) + 0.35) / height
            axes = figure.add_axes((0.1 / width, bottom, 1 - 0.2 / width, 2.15 / height))
            _draw(axes, [columns[at] for at in part], colours)
    return figure, len(columns), total, width > style.WIDTH


def _draw(axes: Axes, columns: list[_Column], colours: Array) -> None:
    """Draw all points in some variables."""
    heights = np.array(
        [_draw_axis(axes, at, variable, values) for at, (_, variable, values) in enumerate(columns)]
    )
    across = np.arange(len(columns))
    last = len(colours) - 1
    for index, colour in enumerate(colours[:-1]):
        axes.plot(across, heights[:, index], color=colour, lw=0.8, alpha=0.75)
    axes.plot(across, heights[:, last], "o-", color=style.INK, lw=2.0, ms=3.5, zorder=3)
    names = [label(name, 14 if len(columns) <= 6 else 11) for name, *_ in columns]
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.13, 1.13), yticks=[])
    axes.set_xticks(across, names)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _columns(space: Space | None, points: list[Improvement]) -> list[_Column]:
    """Return name, variable and values of each variable."""
    rows = np.stack([point.x for point in points])
    if space is None:
        return [(f"x[{index}]", None, column.tolist()) for index, column in enumerate(rows.T)]
    names = space.names or [f"[{index}]" for index in range(len(space.variables))]
    values = zip(*space.values(rows), strict=True)
    return [
        (name, variable, list(one))
        for name, variable, one in zip(names, space.variables, values, strict=True)
    ]


def _draw_axis(axes: Axes, at: int, variable: Variable | None, values: list[Any]) -> Array:
    """Draw one axis with what its ends are, and return the heights of the points on it."""
    axes.axvline(at, 0.13 / 1.26, 1.13 / 1.26, color=style.FAINT, lw=0.7, zorder=1)
    if isinstance(variable, Categorical):
        choices = list(variable.choices)
        heights = np.array([choices.index(value) for value in values]) / max(len(choices) - 1, 1)
        if len(choices) <= _MOST_CHOICES:
            for index, choice in enumerate(choices):
                _write(axes, at + 0.05, index / max(len(choices) - 1, 1), label(choice, 10), ha="left")
        return heights
    numbers = clipped(np.array(values, float))
    log = bool(getattr(variable, "log", False))
    drawn = np.log(numbers) if log else numbers
    low, high = float(drawn.min()), float(drawn.max())
    _write(axes, at, -0.07, short(float(numbers.min())))
    if high > low:
        _write(axes, at, 1.07, short(float(numbers.max())) + (" log" if log else ""))
    result: Array = (drawn - low) / (high - low) if high > low else np.full(len(drawn), 0.5)
    return result


def _write(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    axes.text(
        x,
        y,
        text,
        ha=ha,
        va="center",
        fontsize=7.5,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )


def front(recording: Recording) -> Picture | None:
    """Return the front of a run with several objectives, in all pairs of its first ones; None without one."""
    found = (recording.result or {}).get("front") or {}
    objectives: Array = np.empty(0)
    with contextlib.suppress(TypeError, ValueError):
        objectives = np.array(found.get("fun", ()), float)
    if objectives.ndim != 2 or not objectives.size or not np.isfinite(objectives).all():
        return None
    count = objectives.shape[1]
    with style.styled():
        if count == 2:
            figure, axes = canvas(height=3.3)
            axes.plot(objectives[:, 0], objectives[:, 1], ".", color=style.PALETTE[0], ms=5)
            axes.set_title("The front: second objective against first")
            axes.set_xlabel("first objective")
            words = "Each point is a compromise that no other one found is better than in both objectives"
        else:
            figure, axes = canvas(height=3.3)
            low, high = objectives.min(0), objectives.max(0)
            heights = (objectives - low) / np.where(high > low, high - low, 1)
            axes.plot(np.arange(count), heights.T, color=style.PALETTE[0], lw=0.7, alpha=0.5)
            for at in range(min(count, _MOST_AXES)):
                _write(axes, at, -0.06, short(low[at]))
                _write(axes, at, 1.06, short(high[at]))
            axes.set(ylim=(-0.12, 1.12), yticks=[])
            axes.set_xticks(np.arange(count), [f"f[{at}]" for at in range(count)])
            axes.set_title("The front: objectives, each from its lowest to its highest")
            words = "Each line is a compromise that no other one found is better than in all objectives"
    alt = f"The front of {count} objectives, {len(objectives)} points."
    return Picture("front", "The front", f"{words}; {len(objectives)} of them.", alt, figure)
