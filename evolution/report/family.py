"""Where the champion comes from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from evolution.report.material import Family
from zoo.report import style
from zoo.report.scales import Scale
from zoo.report.style import Picture, canvas, count_axis, short

Array = np.ndarray[Any, Any]


def family_tree(family: Family, best: float) -> Picture | None:
    """Return a picture of the living and their ancestors, and of the champion's line among them.

    Args:
        family: Who descends from whom.
        best: The champion's mean return by re-evaluation, NaN where there is none.
    """
    if not np.isfinite(family.scores).any():
        return None
    x, y, above = family.generations, family.scores, family.lineage.above
    children = np.flatnonzero(above >= 0)
    line = family.line
    # Where chance has no part, nobody is tried again.
    is_judged = math.isfinite(best) and best != y[line[-1]]
    with style.styled():
        from matplotlib.collections import LineCollection

        figure, axes = canvas(height=3.1, top=style.LEGEND)
        ends = np.stack(
            [np.stack([x[above[children]], y[above[children]]], 1), np.stack([x[children], y[children]], 1)],
            1,
        )
        ends = ends[np.isfinite(ends).all(axis=(1, 2))]
        axes.add_collection(LineCollection(list(ends), colors="#c9c9c9", linewidths=0.7, zorder=1))
        others = np.setdiff1d(np.arange(len(x)), line)
        if len(others):
            axes.plot(x[others], y[others], "o", ms=2.6, color="#a5a5a5", zorder=2, label="others")
        axes.plot(
            x[line],
            y[line],
            "o-",
            ms=3.4,
            lw=1.6,
            color=style.PALETTE[0],
            zorder=3,
            label="champion's line",
        )
        if is_judged:
            at = x[line[-1]]
            axes.plot([at, at], [y[line[-1]], best], ":", color=style.PALETTE[1], lw=1, zorder=3)
            axes.plot([at], [best], "*", ms=9, color=style.PALETTE[1], zorder=4, label="champion, again")
        Scale().apply(axes)
        axes.set_title("The champion's family")
        axes.set_xlabel("generation of birth")
        axes.set_xlim(0.5, max(float(x.max()), 2) + 0.5)
        count_axis(axes.xaxis)
        style.legend(axes, 3)
    older = f", of its {len(line) - 1} ancestor{'s' * (len(line) != 2)}" if len(line) > 1 else ""
    caption = (
        f"Return at birth of the champion{older}, and of all others that can have children, with theirs; "
        "lines lead from parents to children."
    )
    if is_judged:
        caption += f" The star is the mean of the champion's later trials, {short(best)}."
    alt = f"A family tree over {len(line)} generations of ancestors, {len(x)} individuals in all."
    return Picture("family_tree", "The champion's family", caption, alt, figure)
