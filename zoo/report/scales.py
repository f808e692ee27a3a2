"""On which scale numbers are drawn, so that what matters can be seen, and how that is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.style import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = 100.0  # ratio from which on numbers are drawn on a logarithmic scale
_GAPS = 1e3  # the same for distances to the lowest value
_FLOOR = 1e-15  # of the largest number: what is smaller is rounding


@dataclass(frozen=True)
class Scale:
    """A scale of the y axis.

    Attributes:
        kind: "linear", "log", or "symlog": logarithmic but for a linear part around 0.
        offset: Subtracted from what is drawn.
        linear: Where the linear part ends.
    """

    kind: str = "linear"
    offset: float = 0.0
    linear: float = 0.0

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
        return f"{quantity} - {self.offset:.6g}" if self.offset else quantity

    def shifted(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what is drawn: what a logarithm has no place for is left out."""
        values = np.asarray(values, float) - self.offset
        return np.where(values > 0, values, np.nan) if self.kind == "log" else values

    def apply(self, axes: Axes) -> None:
        """Use it for the y axis."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

        if self.kind == "linear":
            return
        if self.kind == "log":
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=7))
        else:
            axes.set_yscale("symlog", linthresh=self.linear, linscale=0.5)
            locator = SymmetricalLogLocator(base=10, linthresh=self.linear)
            locator.set_params(numticks=7)
            axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(short))


def scale_of(*series: np.ndarray[Any, Any]) -> Scale:
    """Return the scale for numbers that may be anything.

    Example:
        >>> scale_of(np.array([1e-6, 1.0])).kind, scale_of(np.array([0.0, 1e-6, 1.0])).kind
        ('log', 'symlog')
        >>> scale_of(np.array([1.0, 2.0, np.nan])).kind, scale_of(np.array([-1.0, 1.0])).kind
        ('linear', 'linear')
    """
    values = np.concatenate([np.ravel(one) for one in series]) if series else np.empty(0)
    values = values[np.isfinite(values)]
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


def scale_of_values(best: np.ndarray[Any, Any], others: np.ndarray[Any, Any], *, is_noisy: bool) -> Scale:
    """Return the scale for the values of a run.

    Args:
        best: The lowest ones so far, where they may be drawn at all.
        others: More that are to be drawn.
        is_noisy: Whether equal points have different values; the distance to the lowest means little then.

    Example:
        >>> scale_of_values(2 + 10.0 ** -np.arange(6), np.empty(0), is_noisy=False)
        Scale(kind='log', offset=2.00001, linear=0.0)
    """
    values = np.concatenate([best, others])
    values = values[np.isfinite(values)]
    if not len(values):
        return Scale()
    if values.min() > 0 and values.max() > _DECADES * values.min():
        return Scale("log")
    best = best[np.isfinite(best)]
    if len(best) > 2 and not is_noisy:
        gaps = best - best.min()
        gaps = gaps[gaps > _FLOOR * max(np.abs(best).max(), math.ulp(0.0))]
        if len(gaps) and gaps.max() > _GAPS * gaps.min():
            return Scale("log", offset=float(best.min()))
    return scale_of(values)


def _power(value: float) -> float:
    return float(10.0 ** math.floor(math.log10(value)))
