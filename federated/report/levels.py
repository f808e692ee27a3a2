"""How soon methods came down to some levels of F."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from federated.report.clients import whole
from federated.report.curves import amount
from federated.report.material import Course
from zoo.report.tables import Table

if TYPE_CHECKING:
    from federated.report.comparison import Trials

Array = np.ndarray[Any, Any]

_MOST = 4  # levels
_SHARES = (0.5, 0.75, 0.9, 0.97)  # of what was gained, where there is no optimum
_AGAINST = ("round", "queries", "bytes")


def levels_of(groups: Sequence[Trials], gaps: bool) -> list[float]:
    """Return levels that the best of the methods comes down to, the highest first.

    Args:
        groups: The methods.
        gaps: Whether levels are gaps to the optimum, and even on a logarithmic scale.

    Example:
        >>> from federated.report.comparison import Trials
        >>> columns = {"value": np.array([2.0, 0.3, 0.004])}
        >>> course = Course({"optimum": 0.0}, columns, {}, 2, 0.004, 1.0, True)
        >>> levels_of([Trials("a method", [course])], gaps=True)
        [1.0, 0.1, 0.01]
    """
    starts, ends = [], []
    for group in groups:
        curves = [curve[np.isfinite(curve)] for curve in (values_of(one, gaps) for one in group.courses)]
        curves = [curve for curve in curves if len(curve)]
        starts += [float(curve[0]) for curve in curves]
        if curves:
            ends.append(float(np.median([curve.min() for curve in curves])))
    if not starts:
        return []
    top, bottom = float(np.median(starts)), min(ends)
    if not bottom < top:
        return []
    if gaps and bottom > 0 and top >= 10 * bottom:
        low, high = math.ceil(math.log10(bottom)), math.ceil(math.log10(top)) - 1
        powers = [10.0**power for power in range(high, low - 1, -1)]
        picked = np.unique(np.linspace(0, len(powers) - 1, min(_MOST, len(powers))).round().astype(int))
        return [powers[at] for at in picked]
    found = [top - share * (top - bottom) for share in _SHARES]
    digits = max(2, 2 + math.ceil(math.log10(max(abs(top), abs(bottom)) / (top - bottom))))
    rounded = [float(f"{level:.{digits}g}") for level in found]
    return list(dict.fromkeys(level for level in rounded if bottom <= level < top))


def values_of(course: Course, gaps: bool) -> Array:
    """Return F over the run, or its gap to the optimum."""
    return course.columns["value"] - (course.optimum or 0.0 if gaps else 0.0)


def reached(course: Course, level: float, gaps: bool) -> tuple[float, ...]:
    """Return after how many rounds, queries and bytes a level was reached, infinity for never."""
    values = values_of(course, gaps)
    at = np.flatnonzero(np.where(np.isfinite(values), values, np.inf) <= level)
    if not len(at):
        return (math.inf,) * len(_AGAINST)
    return tuple(float(course.columns[name][at[0]]) for name in _AGAINST)


def table(groups: Sequence[Trials], gaps: bool, ending: str) -> Table | None:
    """Return how soon each method came down to each level, None where there is none."""
    levels = levels_of(groups, gaps)
    if not levels:
        return None
    rows: list[list[str]] = []
    rules = set[int]()
    for level in levels:
        found = []
        for group in groups:
            times = np.array([reached(course, level, gaps) for course in group.courses])
            count = int(np.isfinite(times[:, 1]).sum())
            found.append((*np.median(times, axis=0).tolist(), group.name, count, len(times)))
        rules.add(len(rows))
        for place, (rounds, queries, traffic, name, count, runs) in enumerate(
            sorted(found, key=lambda one: (one[1], one[3]))
        ):
            rows.append(
                [
                    f"{level:.6g}" if not place else "",
                    name,
                    f"{count} of {runs}",
                    *(
                        _said(value, how)
                        for value, how in ((rounds, whole), (queries, whole), (traffic, amount))
                    ),
                ]
            )
    words = (
        f"When {'the gap to the optimum' if gaps else 'F'} was first seen at a level or below: medians over "
        "runs, never where half of them never were; the fewest queries first."
    )
    heads = ["Gap" if gaps else "F", "Method", "Runs there", "Rounds", "Queries", "Bytes"]
    name, ruled = f"levels{ending}", frozenset(rules - {0})
    return Table(name, "To come down to a level", words, heads, rows, rules=ruled, words=2)


def _said(value: float, how: Any) -> str:
    return str(how(value)) if math.isfinite(value) else "never"
