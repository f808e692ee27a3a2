"""On which scale numbers are drawn, so that what matters can be seen, and how that is said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.style import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

_DECADES = 100.0  # ratio from which on numbers are drawn on a logarithmic scale
_GAPS = 1e3  # the same for distances to the lowest value
_LARGEST = 1e150
_FLAT = 1e-3  # share of numbers by which they differ, below which that is what the axis shows
_SHARED = 1e-4  # the same, below which what they share is written beside the axis
_STEADY = 1e-4  # the same, below which a diagnostic is a constant


@dataclass(frozen=True)
class Scale:
    """A scale of the y axis.

    Attributes:
        kind: "linear", "log", or "symlog": logarithmic but for a linear part around 0.
        offset: Subtracted from what is drawn.
        linear: Where the linear part ends.
        sign: -1 where what is drawn is minus the values.
    """

    kind: str = "linear"
    offset: float = 0.0
    linear: float = 0.0
    sign: int = field(default=1, repr=False)

    @property
    def words(self) -> str:
        """What to say of it."""
        if self.kind == "log":
            return "logarithmic scale"
        if self.kind == "symlog":
            return f"logarithmic scale, linear within ±{short(self.linear)}"
        return "linear scale"

    def name(self, quantity: str) -> str:
        """Return what the axis is called."""
        if not self.offset:
            return quantity
        return f"{quantity} {'-' if self.offset > 0 else '+'} {abs(self.offset):.6g}"

    def shifted(self, values: Array) -> Array:
        """Return what is drawn: what a logarithm has no place for is left out."""
        values = clipped(self.sign * (np.asarray(values, float) - self.offset))
        return np.where(values > 0, values, np.nan) if self.kind == "log" else values

    def apply(self, axes: Axes) -> None:
        """Use it for the y axis, on which everything is drawn already."""
        from matplotlib.ticker import (
            FuncFormatter,
            LogLocator,
            MaxNLocator,
            NullLocator,
            SymmetricalLogLocator,
        )

        if self.kind == "linear":
            _apply_linear(axes)
            return
        if self.kind == "log":
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            narrow = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]) if high < 3 * low else None
            subs = (1.0, 2.0, 5.0) if high < 50 * low else (1.0,)
            axes.yaxis.set_major_locator(narrow or LogLocator(subs=subs, numticks=7))
        else:
            axes.set_yscale("symlog", linthresh=self.linear, linscale=0.5)
            locator = SymmetricalLogLocator(base=10, linthresh=self.linear)
            locator.set_params(numticks=7)
            axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(short))


def _apply_linear(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([np.empty(0), *drawn])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if low == high:
        axes.set_yticks([low], [short(low)])
        axes.set_ylim(low - (abs(low) or 1), high + (abs(high) or 1))
    elif high - low > _FLAT * max(abs(low), abs(high)):
        axes.yaxis.set_major_locator(
            MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=bool((values % 1 == 0).all()))
        )
        axes.yaxis.set_major_formatter(FuncFormatter(short))
    elif high - low > _SHARED * max(abs(low), abs(high)):
        digits = 2 - math.floor(math.log10((high - low) / max(abs(low), abs(high))))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}g}"))
    else:
        axes.yaxis.get_offset_text().set(x=1, ha="right")  # what is common to all numbers


def scale_of(*series: Array) -> Scale:
    """Return the scale for numbers that may be anything.

    Example:
        >>> scale_of(np.array([1e-6, 1.0])).kind, scale_of(np.array([0.0, 1e-6, 1.0])).kind
        ('log', 'symlog')
        >>> scale_of(np.array([1.0, 2.0, np.nan])).kind, scale_of(np.array([-1.0, 1.0])).kind
        ('linear', 'linear')
    """
    values = _finite(*series)
    sizes = np.abs(values[values != 0])
    if not len(sizes) or sizes.max() <= _DECADES * sizes.min():
        return Scale()
    if values.min() > 0:
        return Scale("log")
    # Where sizes differ this much, most numbers would lie on one line of a linear scale; unless they just
    # pass through 0, as angles do.
    spread = np.quantile(sizes, 0.05)
    if sizes.max() <= _DECADES * spread and values.min() < 0:
        return Scale()
    return Scale("symlog", linear=_power(max(spread, sizes.max() * 1e-12)))


def steadied(*series: Array) -> list[Array]:
    """Return diagnostics, without what rounding and tolerances do to those that stay the same.

    Example:
        >>> steadied(np.array([20 - 1e-11, np.nan, 20.0]), np.array([1.0, 1.1]))
        [array([20., nan, 20.]), array([1. , 1.1])]
        >>> steadied(np.array([3.0, 3.0]), np.array([3.0, 3 + 1e-9]))  # which differ by nothing either
        [array([3., 3.]), array([3., 3.])]
    """
    every = _finite(*series)
    common = [every if _is_steady(every) else _finite(one) for one in series]
    return [
        np.where(np.isfinite(one), level[0], one) if _is_steady(level) else one
        for one, level in zip(series, common, strict=True)
    ]


def _is_steady(values: Array) -> bool:
    return bool(len(values) and np.ptp(values) <= _STEADY * np.abs(values).max())


def scale_of_values(best: Array, others: Array, *, is_noisy: bool) -> Scale:
    """Return the scale for the values of a run.

    Args:
        best: The lowest ones so far, where they may be drawn at all.
        others: More that are to be drawn.
        is_noisy: Whether equal points have different values.

    Example:
        >>> scale_of_values(2 + 10.0 ** -np.arange(20), np.empty(0), is_noisy=False)
        Scale(kind='log', offset=2.0, linear=0.0)
    """
    values, best, others = _finite(best, others), _finite(best), _finite(others)
    if not len(values):
        return Scale()
    if is_noisy:
        return _scale_of_noisy(values, others)
    if len(best) and best.min() > 0 and values.min() > 0 and best.max() > _DECADES * best.min():
        return Scale("log")
    if len(best) > 2 and values.min() >= best.min():
        # What a search that closes in on something gains is lost on every other scale. One that was still on
        # its way as it ended would seem to fall off a cliff.
        gaps = best - best.min()
        small = gaps[0] / _GAPS
        if gaps[int(0.8 * len(gaps))] < small and (gaps[gaps > 0] < small).any():
            return Scale("log", offset=float(best.min()))
    return scale_of(values)


def _scale_of_noisy(values: Array, others: Array) -> Scale:
    """Return a scale on which noise around 0 stays what it is."""
    late = np.abs(others[len(others) // 2 :])
    level = late.max() if len(late) else 0.0
    if values.min() > 0:
        return Scale("log") if values.max() > _DECADES * values.min() else Scale()
    if not level or np.abs(values).max() <= _DECADES * level:
        return Scale()
    return Scale("symlog", linear=10 * _power(level))


def _finite(*series: Array) -> Array:
    values = np.concatenate([np.empty(0), *map(np.ravel, series)])
    return clipped(values[np.isfinite(values)])


def clipped(values: Array) -> Array:
    """Return values that leave room for the margins of a figure before numbers end."""
    return np.clip(values, -_LARGEST, _LARGEST)


def _power(value: float) -> float:
    return float(10.0 ** math.floor(math.log10(value)))
