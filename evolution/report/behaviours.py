"""Where everyone ended."""

from __future__ import annotations

from typing import Any

import numpy as np

from evolution.report.material import Ends
from zoo.report import style
from zoo.report.style import Picture, canvas, count_axis
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]

_BAR = 0.75  # inches for the scale of colours
_MOST_ARCHIVED = 3000  # entries that are drawn


def behaviour_map(recording: Recording, ends: Ends, archive: Array | None) -> Picture:
    """Return a picture of what episodes have come to, by generation, and of the archive.

    Args:
        recording: The run.
        ends: What they have come to.
        archive: Entries of the archive, shape (n, b), or None.
    """
    if archive is not None and (archive.shape[1:] != ends.behaviours.shape[1:] or not len(archive)):
        archive = None
    shown = None if archive is None else archive[np.unique(_evenly(len(archive), _MOST_ARCHIVED))]
    if (maze := _maze(recording)) is not None and ends.behaviours.shape[1] == 2:
        return _in_maze(maze, ends, shown)
    return _scattered(recording, ends, shown)


def _maze(recording: Recording) -> Any:
    """Return the maze that the run was in, None where it was elsewhere."""
    if recording.config.get("environment") != "maze":
        return None
    from evolution.environments.maze import HARD_MAZE, as_maze

    return as_maze((recording.config.get("environment_options") or {}).get("maze", HARD_MAZE))


def _in_maze(maze: Any, ends: Ends, archive: Array | None) -> Picture:
    from evolution.environments.maze_picture import draw_maze

    drawn = draw_maze(ends.behaviours, ends.generations, maze=maze, title="Where everyone ended")
    if archive is not None:
        with style.styled():
            _draw_archive(drawn.figure.axes[0], archive)
    ringed = " Red rings: these solved it." if maze.is_solved(ends.behaviours).any() else ""
    caption = f"{drawn.caption}{_selection(ends)}{ringed}{_of(archive)}"
    return Picture("behaviour_map", drawn.heading, caption, drawn.alt, drawn.figure)


def _scattered(recording: Recording, ends: Ends, archive: Array | None) -> Picture:
    points, entries, names, words = _flat(ends.behaviours, archive)
    one = ends.behaviours.shape[1] == 1
    if one:  # against the generation, where there is nothing to see on the other axis
        points = np.stack([ends.generations, points[:, 0]], axis=1)
        entries = None
    height = 3.6
    many = bool(ends.generations.min() < ends.generations.max())
    with style.styled():
        figure, axes = canvas(style.WIDTH, height)
        room = (_BAR if many and not one else 0.16) / style.WIDTH
        left = 0.62 / style.WIDTH
        axes.set_position((left, 0.5 / height, 1 - left - room, 1 - (0.5 + style.TOP) / height))
        order = np.argsort(ends.generations, kind="stable")
        cloud = axes.scatter(
            points[order, 0],
            points[order, 1],
            s=9 if len(points) < 2000 else 3,
            c=style.PALETTE[0] if one else ends.generations[order],
            cmap=None if one else style.COLOURS,
            lw=0,
            alpha=0.8,
            rasterized=len(points) > 2000,
        )
        if entries is not None:
            _draw_archive(axes, entries)
        axes.set_title("Where everyone ended")
        axes.set_xlabel("generation" if one else names[0])
        axes.set_ylabel(names[0] if one else names[1])
        if one:
            count_axis(axes.xaxis)
        elif many:
            beside = (1 - (_BAR - 0.12) / style.WIDTH, 0.5 / height, 0.1 / style.WIDTH)
            bar = figure.colorbar(
                cloud, cax=figure.add_axes((*beside, axes.get_position().height)), label="generation"
            )
            count_axis(bar.ax.yaxis)
            bar.outline.set_visible(False)
    what = (recording.config.get("objective") or {}).get("attributes", {}).get("behaviour", "behaviour")
    caption = f"What {len(points):,} episodes came to, by {what}{words}.{_selection(ends)}{_of(entries)}"
    alt = f"A map of what {len(points)} episodes came to."
    return Picture("behaviour_map", "Where everyone ended", caption, alt, figure)


def _flat(rows: Array, archive: Array | None) -> tuple[Array, Array | None, tuple[str, str], str]:
    """Return behaviours as points of a plane, names of its axes, and what is to be said of them."""
    size = rows.shape[1]
    if size <= 2:
        return rows, archive, ("first number" if size > 1 else "behaviour", "second number"), ""
    # The two directions in which they differ most.
    middle = rows.mean(0)
    _, spread, axes = np.linalg.svd(rows - middle, full_matrices=False)
    share = float((spread[:2] ** 2).sum() / max((spread**2).sum(), 1e-300))
    signs = np.sign(axes[:2, np.abs(axes[:2]).argmax(1)].diagonal())
    plane = (axes[:2] * np.where(signs == 0, 1, signs)[:, None]).T
    entries = None if archive is None else (archive - middle) @ plane
    words = f", in the two directions in which its {size} numbers differ most, {share:.0%} of the variance"
    return (rows - middle) @ plane, entries, ("first direction", "second direction"), words


def _draw_archive(axes: Any, entries: Array) -> None:
    axes.scatter(
        entries[:, 0],
        entries[:, 1],
        s=12,
        facecolors="none",
        edgecolors=style.INK,
        linewidths=0.6,
        zorder=2.5,
    )


def _of(archive: Array | None) -> str:
    return "" if archive is None else " Black rings: entries of the archive."


def _selection(ends: Ends) -> str:
    return (
        "" if len(ends.behaviours) >= ends.count else f" Drawn: {len(ends.behaviours):,} of {ends.count:,}."
    )


def _evenly(count: int, most: int) -> Array:
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
