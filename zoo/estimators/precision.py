"""How far apart the points of a difference should be: the rule behind `smoothing="auto"`.

A difference over a distance h carries two errors. Truncation grows with h: like h for the forward stencil,
like h^2 for the central one. Noise shrinks like nu / h, nu being the error of a single value, from rounding
or from the objective itself. The rule has three parts.

1. *Start* where rounding and truncation balance for a smooth function whose values, slopes and curvatures are
   about as large as each other over a distance `scale`: h = 14 eps^(1/2) scale forward and 4 eps^(1/3) scale
   central, with eps the spacing of the dtype at 1. The factors put float32 where a small network was measured
   to be best, 5e-3 and 2e-2. h is the length of the whole displacement, so it means the same for one
   coordinate and for all of them, and smoothing = h / |u|; at least 32 eps |x|, as less does not change x.
2. *Measure* nu and the slope. A pair of points mirrored at the base gives a second difference
   f(x + hu) + f(x - hu) - 2 f(x) of variance 6 nu^2 plus what curvature adds, so its root mean square over
   sqrt(6) is at least nu; of all distances tried the smallest answer is the best. Values that are rounded
   to eps have nu >= eps |f| in any case. The slope is the root mean square of the differences over h.
3. *Widen* until a difference stands out: smoothing = max(start, 4 nu / slope). A difference below 2 nu
   says nothing about the slope, and smoothing grows 16-fold; that is also the most it grows in a step, as a
   quarter is the least it falls to. It never exceeds half of `scale`. When all values of a step are the
   same there is nothing to measure and the next smoothing is 10 times the last.
"""

from __future__ import annotations

import math

from zoo.core.device import Like
from zoo.core.state import state

_STAND_OUT = 4.0  # differences are to be this many times the noise: a quarter of the slope's error is left
_JUMP = 16.0  # the most by which smoothing grows in one step
_HUGE = 1e300  # slopes are kept between 1 / this and this, where they can be divided by


@state
class Precision:
    """What is known about the precision of a run.

    Attributes:
        start: Smoothing that the dtype asks for.
        largest: Smoothing that is never exceeded.
        noise: Standard deviation of one value, 0 before anything was measured.
        slope: Typical slope along a direction, 0 before anything was measured.
    """

    start: float
    largest: float
    noise: float = 0.0
    slope: float = 0.0


def start_smoothing(like: Like, stencil: str, *, norm: float, scale: float, size: float) -> Precision:
    """Return the precision before anything was measured.

    Args:
        like: Its dtype says how values and points are rounded.
        stencil: "forward" or "central".
        norm: Length of a direction.
        scale: Distance over which the objective is expected to change.
        size: Largest entry of x in absolute value.
    """
    epsilon = like.epsilon
    distance = 14 * epsilon**0.5 if stencil == "forward" else 4 * epsilon ** (1 / 3)
    start = min(max(distance * scale / norm, 32 * epsilon * size), scale / 2)
    return Precision(start, max(start, scale / 2))


def next_smoothing(
    known: Precision, smoothing: float, *, difference: float, second: float, rounding: float
) -> tuple[Precision, float]:
    """Return what is known after a step, and the next smoothing.

    Args:
        known: What was known before.
        smoothing: Smoothing of the step.
        difference: Root mean square of f(x + hu) - f(x), or of half of f(x + hu) - f(x - hu).
        second: Root mean square of the second differences, NaN when there were none.
        rounding: Error that a value has from rounding alone.
    """
    if difference == 0:
        return known, smoothing
    noise = known.noise
    if math.isfinite(second):
        measured = second / math.sqrt(6)
        if noise == 0:
            noise = measured
        elif smoothing > 2 * known.start:
            noise = min(noise, measured)
        else:
            noise = math.hypot(noise, measured) / math.sqrt(2)
    error = max(noise, rounding)
    if difference < 2 * error:
        # It says nothing about the slope.
        known = Precision(known.start, known.largest, noise, known.slope)
        return known, min(_JUMP * smoothing, known.largest)
    slope = min(max(difference / smoothing, 1 / _HUGE), _HUGE)
    if known.slope > 0:
        slope = math.hypot(known.slope, slope) / math.sqrt(2)
    wanted = max(known.start, _STAND_OUT * error / slope, smoothing / 4)
    smoothing = min(wanted, _JUMP * smoothing, known.largest)
    return Precision(known.start, known.largest, noise, slope), smoothing
