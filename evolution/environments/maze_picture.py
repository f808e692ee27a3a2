"""A picture of where everyone ended in a maze."""

from __future__ import annotations

from typing import Any

import numpy as np

from evolution.environments.environment import Array
from evolution.environments.maze import HARD_MAZE, RADIUS, Maze, as_maze
from zoo.report.style import ALARM, COLOURS, FAINT, INK, TOP, WIDTH, Picture, canvas, count_axis, styled

_ROOM = 10.0  # around the walls, in pixels of the maze
_LEFT, _BOTTOM, _RIGHT, _BAR = 0.5, 0.45, 0.12, 0.75  # inches beside the axes; _BAR with the scale of colours
_SPARSE = 2000  # points that still have room to be large


def draw_maze(ends: Any, generations: Any = None, *, maze: Maze = HARD_MAZE, title: str = "") -> Picture:
    """Return a picture of walls, start, goal, and where episodes ended.

    Those of the last generations are drawn last and lightest; those that solved the maze have a ring. It
    needs matplotlib; `.png()` of what is returned is the content of a file, `.svg()` an element of a page.

    Args:
        ends: x and y of each, shape (n, 2); rows with NaN, of episodes that failed, are left out.
        generations: By end, the generation it is of, shape (n,); None for one colour.
        maze: Where they were.
        title: Above the picture.

    Raises:
        ValueError: `ends` is not of shape (n, 2), or `generations` has another length.

    Example:
        >>> draw_maze([[31.0, 25.0], [90.0, 150.0]], [1, 0]).caption
        'Where 2 episodes ended; 1 of them solved the maze.'
    """
    maze = as_maze(maze)
    points = np.array(ends, np.float64).reshape(-1, 2) if len(ends) == 0 else np.array(ends, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`ends` must have shape (n, 2), got {points.shape}.")
    born = None if generations is None else np.array(generations, np.float64).ravel()
    if born is not None and len(born) != len(points):
        raise ValueError(f"`generations` must be as many as `ends`, {len(points)}, got {len(born)}.")
    ended = np.isfinite(points).all(axis=1)
    points, born = points[ended], None if born is None else born[ended]
    if born is not None:
        order = np.argsort(born, kind="stable")
        points, born = points[order], born[order]
    solved = maze.is_solved(points)
    count = int(solved.sum())
    many = "episode" if len(points) == 1 else "episodes"
    found = f"{count or 'none'} of them solved the maze"
    with styled():
        figure = _figure(points, born, solved, maze, title)
    return Picture(
        name="maze",
        heading="Where everyone ended",
        caption=f"Where {len(points)} {many} ended; {found}.",
        alt=f"A map of the maze with the ends of {len(points)} {many}; {found}.",
        figure=figure,
    )


def _figure(points: Array, born: Array | None, solved: Array, maze: Maze, title: str) -> Any:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    corners = np.concatenate([np.array(maze.walls).reshape(-1, 2), [maze.start, maze.goal]])
    low, high = corners.min(axis=0) - _ROOM, corners.max(axis=0) + _ROOM
    has_bar = born is not None and len(born) > 0 and bool(born.min() < born.max())
    across = WIDTH - _LEFT - (_BAR if has_bar else _RIGHT)
    height = across * (high[1] - low[1]) / (high[0] - low[0]) + _BOTTOM + TOP
    figure, axes = canvas(WIDTH, height)
    axes.set_position(
        (_LEFT / WIDTH, _BOTTOM / height, across / WIDTH, (height - _BOTTOM - TOP) / height), which="both"
    )
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(high[1], low[1])  # as on a screen, and in the paper
    axes.grid(visible=False)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_title(title)
    axes.add_patch(Circle(maze.goal, maze.goal_radius, facecolor="none", edgecolor=ALARM, linestyle="--"))
    axes.add_patch(Circle(maze.start, RADIUS, facecolor="none", edgecolor=FAINT, linestyle="--"))
    for place, name, colour, lift in ((maze.start, "start", FAINT, 12), (maze.goal, "goal", ALARM, -24)):
        said = axes.annotate(
            name, place, (0, lift), textcoords="offset points", ha="center", color=colour, zorder=5
        )
        said.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    size = 9.0 if len(points) <= _SPARSE else 3.0
    shown = axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        c=INK if born is None else born,
        cmap=None if born is None else COLOURS,
        linewidths=0,
        alpha=0.8,
        rasterized=len(points) > _SPARSE,
        zorder=2,
    )
    axes.scatter(
        points[solved, 0],
        points[solved, 1],
        s=30,
        facecolors="none",
        edgecolors=ALARM,
        linewidths=1,
        zorder=4,
    )
    walls = np.array(maze.walls).reshape(-1, 2, 2)
    axes.add_collection(LineCollection(list(walls), colors=INK, linewidths=1.6, capstyle="round", zorder=3))
    if has_bar:
        beside = (
            (WIDTH - _BAR + 0.12) / WIDTH,
            _BOTTOM / height,
            0.1 / WIDTH,
            (height - _BOTTOM - TOP) / height,
        )
        bar = figure.colorbar(shown, cax=figure.add_axes(beside), label="generation")
        count_axis(bar.ax.yaxis)
        bar.outline.set_visible(False)
    return figure
