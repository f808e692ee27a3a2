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
   f(x + hu) + f(x - hu) - 2 f(x) of mean square 6 nu^2 plus what curvature adds, which grows like h^4. So
   nu^2 is a sixth of it, averaged over about the last 64 pairs, leaving out those that came with a wider h
   and are larger in proportion: noise does not know about h. Values that are rounded to eps have
   nu >= eps |f| in any case. The slope is the root mean square of the differences over h.
3. *Widen* until a difference stands out: smoothing = max(start, 5 e / slope), e being the error of a
   difference, sqrt(2) nu forward and nu / sqrt(2) for half a central one. A difference below 2.5 e says
   nothing about the slope, and smoothing grows 16-fold; that is also the most it grows in a step, as a
   quarter is the least it falls to. It never exceeds half of `scale`. When all values of a step are the
   same there is nothing to measure and the next smoothing is 10 times the last.
"""

from __future__ import annotations

import dataclasses
import math

from zoo.core.device import Like
from zoo.core.state import state

_STAND_OUT = 5.0  # times its error a difference is to be: a slope is then known to a fifth
_JUMP = 16.0  # the most by which smoothing grows in one step
_PAIRS = 64.0  # second differences that are remembered
_HUGE = 1e300  # slopes are kept between 1 / this and this, where they can be divided by


@state
class Precision:
    """What is known about the precision of a run.

    Attributes:
        start: Smoothing that the dtype asks for.
        largest: Smoothing that is never exceeded.
        noise: Standard deviation of one value, 0 before anything was measured.
        pairs: How many second differences speak for it.
        measured_at: Smoothing of the last of them.
        slope: Typical slope along a direction, 0 before anything was measured.
    """

    start: float
    largest: float
    noise: float = 0.0
    pairs: float = 0.0
    measured_at: float = 0.0
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
    known: Precision,
    smoothing: float,
    *,
    stencil: str,
    difference: float,
    second: float,
    pairs: int,
    rounding: float,
) -> tuple[Precision, float]:
    """Return what is known after a step, and the next smoothing.

    Args:
        known: What was known before.
        smoothing: Smoothing of the step.
        stencil: "forward" or "central".
        difference: Root mean square of f(x + hu) - f(x), or of half of f(x + hu) - f(x - hu).
        second: Root mean square of the second differences.
        pairs: How many there were.
        rounding: Error that a value has from rounding alone.
    """
    if difference == 0:
        return known, smoothing
    if pairs:
        known = _measured(known, smoothing, second / math.sqrt(6), pairs)
    error = max(known.noise, rounding) * (math.sqrt(2) if stencil == "forward" else math.sqrt(0.5))
    if difference < _STAND_OUT / 2 * error:
        # It says nothing about the slope.
        return known, min(_JUMP * smoothing, known.largest)
    slope = min(max(difference / smoothing, 1 / _HUGE), _HUGE)
    if known.slope > 0:
        # A mean that is far above what is found now came with a smaller distance, and was noise.
        slope = min(math.hypot(known.slope, slope) / math.sqrt(2), 4 * slope)
    wanted = max(known.start, _STAND_OUT * error / slope, smoothing / 4)
    smoothing = min(wanted, _JUMP * smoothing, known.largest)
    return dataclasses.replace(known, slope=slope), smoothing


def _measured(known: Precision, smoothing: float, noise: float, pairs: int) -> Precision:
    if known.pairs and smoothing > 2 * known.start:
        wider = smoothing / known.measured_at
        if noise > max(wider, 1.5) * known.noise:
            return known
    total = min(known.pairs, _PAIRS) + pairs
    share = math.sqrt(pairs / total)
    noise = math.hypot(known.noise * math.sqrt(1 - share**2), noise * share)
    return dataclasses.replace(known, noise=noise, pairs=total, measured_at=smoothing)
