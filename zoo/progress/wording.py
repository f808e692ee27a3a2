"""Numbers, times, points and curves as short words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_WIDE = 10.0  # ratio of values from which on their logarithms are drawn


def number(value: Any, digits: int = 6) -> str:
    """Return a number with so many digits.

    Example:
        >>> number(0.000123456789), number(7), number(True), number(float("nan"))
        ('0.000123457', '7', 'yes', 'nan')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return a duration as a clock shows it.

    Example:
        >>> duration(7.9), duration(3723), duration(200000)
        ('0:07', '1:02:03', '2 d 7:33:20')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days:,} d {hour}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def rate(per_second: float) -> str:
    """Return a rate in a unit that makes it at least 1 where there is one.

    Example:
        >>> rate(12345.6), rate(3.21), rate(0.05), rate(0.0004)
        ('12,300/s', '3.21/s', '3/min', '1.44/h')
    """
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_second * factor
        if value >= 1 or unit == "h":
            break
    exact = float(f"{value:.3g}")
    return f"{exact:,.0f}/{unit}" if exact >= 100 else f"{exact:g}/{unit}"


def words_of(point: Any) -> list[str]:
    """Return a point's values in turn, with their names where it has some.

    Example:
        >>> words_of([0.25, 1e-9]), words_of({"rate": 0.00123456, "kernel": "rbf"})
        (['0.25', '1e-09'], ['rate 0.001235', 'kernel rbf'])
    """
    if isinstance(point, Mapping):
        return [f"{name} {_value(value)}" for name, value in point.items()]
    return [_value(value) for value in point]


def _value(value: Any) -> str:
    text = number(value, 4) if isinstance(value, (int, float)) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"


def abridged(words: Sequence[str], count: int, width: int) -> str:
    """Return as many words as fit, and how many there are if they are not all.

    Args:
        words: The first of them, or all.
        count: How many there are.
        width: Characters there are for them.

    Example:
        >>> abridged(["1", "2", "3"], 3, 20), abridged(["1", "2", "3"], 1000, 20)
        ('1, 2, 3', '1, 2, … 1,000 in all')
    """
    whole = ", ".join(words)
    if len(words) >= count and len(whole) <= width:
        return whole
    for tail in (f"… {count:,} in all", "…"):
        kept = ""
        for word in words:
            if len(kept) + len(word) + 2 + len(tail) > width:
                break
            kept += f"{word}, "
        if kept:
            return kept + tail
    return whole[: max(0, width - 1)] + "…"


def curve(values: Sequence[float | None]) -> tuple[str, bool]:
    """Return values as a row of bars, and whether their heights are logarithms.

    Example:
        >>> curve([None, 4.0, 3.0, 2.0, 1.0]), curve([1e3, 1e-4, 1e-11])
        ((' █▆▃▁', False), ('█▅▁', True))
    """
    known = [value for value in values if value is not None]
    if not known:
        return "", False
    low, high = min(known), max(known)
    logarithmic = low > 0 and high / low > _WIDE
    height = math.log if logarithmic else float
    bottom, top = height(low), height(high)
    text = ""
    for value in values:
        if value is None:
            text += " "
        elif top > bottom:
            text += _BARS[round((height(value) - bottom) / (top - bottom) * (len(_BARS) - 1))]
        else:
            text += _BARS[0]
    return text, logarithmic
