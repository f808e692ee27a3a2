"""Gradient estimates from differences of values along directions."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations
from zoo.core.validation import check_choice, check_count, check_fraction, check_positive
from zoo.estimators.directions import Directions, Draw, as_directions
from zoo.estimators.displaced import Displaced, cast
from zoo.estimators.precision import Precision, next_smoothing, start_smoothing

STENCILS = ("forward", "central")
_CHUNK = 2**18  # elements of directions held at once


class GradientEstimate(NamedTuple):
    """What one step says about the gradient.

    Attributes:
        gradient: Shape (dim,); zeros when no direction could be used.
        value: Value at the base, NaN if it failed; where the base was not asked for, the mean of all values.
        num_valid: Directions that entered.
        queries: Evaluations that the step asked for.
    """

    gradient: Array
    value: float
    num_valid: int
    queries: int


class Weights(NamedTuple):
    """With which weights the directions of a step enter its estimate.

    Attributes:
        coefficients: Shape (count,); 0 for directions that were dropped.
        peak: Largest of them in absolute value.
        scale: What the sum of coefficients / peak times displacements, in units of the smoothing, is
            multiplied by.
        differences: Of the directions that entered, as the stencil has them.
    """

    coefficients: np.ndarray[Any, Any]
    peak: float
    scale: float
    differences: np.ndarray[Any, Any]


@state
class FiniteDifferenceState:
    """What an estimator knows.

    Attributes:
        smoothing: Smoothing of the next step.
        precision: How it came about; None where it is fixed.
        memory: The law's own.
        bounds: Box that no row leaves, or None.
        stretch: How far a direction reaches along each coordinate, shape (dim,), 1 at most; None for 1.
        like: Kind, dtype and device of the rows.
        warned: Whether it was said already that nothing changes.
    """

    smoothing: float
    precision: Precision | None
    memory: Any
    bounds: Bounds | None
    stretch: Array | None
    like: Like
    warned: bool

    @property
    def work(self) -> Like:
        """Kind of array that is computed with: single precision where rows are of half."""
        return Like(self.like.kind, self.like.working_dtype, self.like.device)

    def cast(self, rows: Array) -> Array:
        """Return rows as they are evaluated: of the dtype wanted, and inside the bounds all the same."""
        return cast(rows, self.like, self.bounds)


@dataclass(frozen=True)
class FiniteDifference:
    """The mean of (slope along u) * u over directions u.

        forward:  g = c / n * sum_i (f(x + h u_i) - f(x)) / h * u_i             n + 1 evaluations
        central:  g = c / n * sum_i (f(x + h u_i) - f(x - h u_i)) / (2 h) * u_i   2 n evaluations

    Central differences are what is elsewhere called antithetic sampling: each u_i comes with -u_i.

    n counts the directions whose evaluations succeeded, h is the smoothing, and c is 1 but for laws of
    directions that are not normalised (d for axes). The displacement that enters is the actual one, after
    bounds and rounding: u_i is replaced by what was gone in its stead, lengthened to |u_i|.

    A failed evaluation drops its direction, both partners of a pair. When a forward stencil's base failed,
    the mean of the displaced values takes its place, times n / (n - 1) as each is part of it; that needs two
    of them, and under axes it loses the mean slope. When nothing is left, the estimate is zero and
    `num_valid` is 0.

    Args:
        directions: A law, or its name: "gaussian", "sphere", "rademacher", "axes", "orthonormal", "blocks",
            "guided", "subspace".
        num_directions: Directions a step, n; None for as many as coordinates move, which is
            also the most that axes and orthonormal directions can be.
        smoothing: The distance h, in units of x; or "auto": chosen by dtype, measured noise and the scale of
            the run (`zoo.estimators.precision`), for one evaluation a step more: the base of a central
            stencil, the mirror image of a forward stencil's first row.
        stencil: "forward" or "central".
        smoothing_decay: With a number as smoothing, step k, counted from 0, takes
            h / (k + 1)^smoothing_decay.

    Raises:
        ValueError: An argument is out of range.

    Warns:
        ZooWarning: All values of a step are the same; said once a run.

    Example:
        Central differences along the axes are exact for every quadratic function:

        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Evaluations
        >>> estimator = FiniteDifference("axes", smoothing=0.5, stencil="central")
        >>> x = np.array([1.0, -2.0])
        >>> memory = estimator.init(x)
        >>> points = estimator.ask(memory, x, Key(0), 0).rows(0, 4)
        >>> values = Evaluations((points**2).sum(1))
        >>> memory, estimate = estimator.estimate(memory, x, values, Key(0), 0)
        >>> estimate.gradient.tolist()
        [2.0, -4.0]

    References:
        Nesterov and Spokoiny, "Random gradient-free minimization of convex functions", 2017.
        https://doi.org/10.1007/s10208-015-9296-2
        Chen et al., "DeepZero: scaling up zeroth-order optimization for deep model training", 2024.
        https://arxiv.org/abs/2310.02025
    """

    directions: str | Directions = "gaussian"
    num_directions: int | None = None
    smoothing: float | str = "auto"
    stencil: str = "central"
    smoothing_decay: float = 0.0
    law: Directions = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", as_directions(self.directions))
        if self.num_directions is not None:
            check_count("num_directions", self.num_directions)
        if isinstance(self.smoothing, str):
            check_choice("smoothing", self.smoothing, ("auto",))
        else:
            check_positive("smoothing", self.smoothing)
        check_choice("stencil", self.stencil, STENCILS)
        if check_fraction("smoothing_decay", self.smoothing_decay) and self.smoothing == "auto":
            raise ValueError(
                "`smoothing_decay` needs a number as `smoothing`, got 'auto', which says itself how it "
                "goes on; give a number, or leave `smoothing_decay` out."
            )

    def init(
        self, x: Array, *, bounds: Bounds | None = None, scale: Any = 1.0, coarsest: str | None = None
    ) -> FiniteDifferenceState:
        """Return the first state.

        Args:
            x: Start, shape (dim,).
            bounds: Box that no row may leave.
            scale: Distance over which the objective is expected to change, a number or shape (dim,). Where
                it differs between coordinates, directions are stretched in proportion to it, and the
                estimate is the gradient with respect to the coordinates so stretched. An entry of 0, as
                a fixed coordinate may have, counts as the largest.
            coarsest: The dtype that some coordinates are rounded to where they are evaluated, if that is
                coarser than the one of x: what `smoothing="auto"` starts from.
        """
        like = Like.of(x)
        x = Like(like.kind, like.working_dtype, like.device).asarray(x)
        stretch, largest = None, 1.0
        if not isinstance(scale, float) or scale != 1:
            scales = np.asarray(to_numpy(scale), np.float64)
            largest = float(scales.max()) or 1.0
            scales = np.where(scales > 0, scales, largest)
            stretched = scales.ndim and (scales != largest).any()
            stretch = Like.of(x).asarray(scales / largest) if stretched else None
        precision = None
        if self.smoothing == "auto":
            size = float(abs(x).max())
            norm = self.law.norm(len(x))
            rounded = like if coarsest is None else Like(like.kind, coarsest, like.device)
            precision = start_smoothing(rounded, self.stencil, norm=norm, scale=largest, size=size)
        smoothing = precision.start if precision is not None else float(self.smoothing)
        return FiniteDifferenceState(smoothing, precision, self.law.init(x), bounds, stretch, like, False)

    def count(self, dim: int) -> int:
        """Return the number of directions of a step."""
        count = self.law.size(dim) if self.num_directions is None else self.num_directions
        return min(count, self.law.most(dim) or count)

    def queries(self, num_directions: int, *, base: bool = False) -> int:
        """Return the number of evaluations of a step with so many directions; see `ask` for `base`."""
        lead, mirror = self._extra(num_directions, base)
        return lead + mirror + num_directions * (2 if self.stencil == "central" else 1)

    def ask(
        self,
        state: FiniteDifferenceState,
        x: Array,
        key: Key,
        step: int,
        *,
        num_directions: int | None = None,
        base: bool = False,
        held: Array | None = None,
    ) -> Displaced:
        """Return what has to be evaluated.

        Args:
            state: The estimator's state.
            x: Where the gradient is wanted, shape (dim,).
            key: Key of the run's directions; the step's own is derived here.
            step: Number of the step.
            num_directions: Fewer directions than usual, for one step; 0 leaves the base alone.
            base: Whether the base has to be among the rows, as row 0, in any case.
            held: Which coordinates stay where they are in this step, shape (dim,); None for none.
        """
        count = self.count(len(x)) if num_directions is None else num_directions
        draw = Draw(key.fold(step), step, count, len(x), state.work)
        available = self.law.available(draw)
        if available < count:
            draw = dataclasses.replace(draw, count=available)
        lead, mirror = self._extra(available, base)
        fixed = state.precision is None
        smoothing = state.smoothing / (step + 1) ** self.smoothing_decay if fixed else state.smoothing
        return Displaced(
            state.work.asarray(x),
            draw,
            self.law,
            self.law.shipped(state.memory),
            smoothing,
            self.stencil,
            rows_like=state.like,
            lead=lead,
            mirror=mirror,
            bounds=state.bounds,
            stretch=state.stretch,
            held=held,
        )

    def estimate(
        self,
        state: FiniteDifferenceState,
        x: Array,
        evaluations: Evaluations,
        key: Key,
        step: int,
        *,
        num_directions: int | None = None,
        base: bool = False,
        held: Array | None = None,
    ) -> tuple[FiniteDifferenceState, GradientEstimate]:
        """Return the next state and the estimate; the arguments must be those of `ask`.

        Never holds more than about 2^18 elements of directions at once, or one direction.
        """
        asked = self.ask(state, x, key, step, num_directions=num_directions, base=base, held=held)
        if len(evaluations) != len(asked):
            raise ValueError(f"`evaluations` must have {len(asked)} values, got {len(evaluations)}.")
        weights = self.weights(asked, evaluations.values)
        if weights.peak == 0:
            gradient, symmetric = array_module(asked.base).zeros_like(asked.base), None
        else:
            total, symmetric = weighted_sum(asked, weights.coefficients / weights.peak)
            gradient = total * weights.scale
        return self.conclude(state, asked, evaluations.values, weights, gradient, symmetric)

    def weights(self, asked: Displaced, values: Any) -> Weights:
        """Return with which weights directions enter an estimate.

        Args:
            asked: What was asked for.
            values: Shape (n,), float64, NaN where an evaluation failed.
        """
        differences, centre = _differences(asked, values)
        valid = np.isfinite(differences)
        relative, factor = self.shares(asked, valid)
        coefficients = np.where(valid, np.where(valid, differences, 0) * relative, 0)
        # The sum is formed with coefficients of at most 1: float32 may not hold the slopes' squares.
        peak = float(np.abs(coefficients).max()) if len(coefficients) else 0.0
        slope = min(peak / asked.smoothing, largest_slope(asked.draw.like))
        return Weights(coefficients, peak, slope * centre * factor, differences[valid])

    def shares(self, asked: Displaced, valid: Any) -> tuple[np.ndarray[Any, Any], float]:
        """Return what each direction counts for if the `valid` ones do, relative to the most, and that."""
        groups, factors = self.law.groups(asked.draw, asked.plan)
        if len(factors) == 1:
            return np.ones(len(valid)), factors[0] / max(int(np.count_nonzero(valid)), 1)
        counts = np.bincount(groups[valid], minlength=len(factors))
        shares = np.asarray(factors) / np.maximum(counts, 1)
        largest = int(np.argmax(np.where(counts > 0, shares, 0)))
        return (shares / shares[largest])[groups], factors[largest] / max(int(counts[largest]), 1)

    def conclude(
        self,
        state: FiniteDifferenceState,
        asked: Displaced,
        values: Any,
        weights: Weights,
        gradient: Array,
        symmetric: Any,
    ) -> tuple[FiniteDifferenceState, GradientEstimate]:
        """Return the next state and the estimate, of a sum that was formed by the caller.

        Args:
            state: The estimator's state.
            asked: What was asked for.
            values: As in `weights`.
            weights: What `weights` returned.
            gradient: weights.scale / weights.peak times the sum of weights.coefficients[i] times the
                displacement of direction i, in units of the smoothing; zeros if the peak is 0.
            symmetric: Which pairs lie evenly about the base, shape (count,); None for no second differences.
        """
        gradient = self.law.project(gradient, state.memory) if weights.peak else gradient
        second = _second_differences(asked, values, symmetric)
        state = self._learned(state, asked, values, weights.differences, second, gradient)
        value = float(values[0]) if asked.lead else _mean(values)
        return state, GradientEstimate(gradient, value, len(weights.differences), len(asked))

    def _learned(
        self,
        state: FiniteDifferenceState,
        asked: Displaced,
        values: Any,
        differences: Any,
        second: Any,
        gradient: Array,
    ) -> FiniteDifferenceState:
        memory, warned = state.memory, state.warned
        precision, smoothing = state.precision, state.smoothing
        if len(differences):
            memory = self.law.learn(memory, asked.base, gradient)
            finite = values[np.isfinite(values)]
            constant = bool((finite == finite[0]).all())
            if constant and not warned:
                warned = True
                warnings.warn(
                    f"the objective did not change under any of {len(differences)} perturbations of size "
                    f"{asked.smoothing:.1e}: it is constant there, or `smoothing` is too small.",
                    ZooWarning,
                    stacklevel=2,
                )
            if precision is not None and constant:
                smoothing = min(10 * smoothing, precision.largest)
            elif precision is not None:
                precision, smoothing = next_smoothing(
                    precision,
                    smoothing,
                    stencil=self.stencil,
                    difference=_rms(differences),
                    second=_rms(second),
                    pairs=len(second),
                    rounding=asked.rows_like.epsilon * _rms(finite),
                )
        return FiniteDifferenceState(
            smoothing, precision, memory, state.bounds, state.stretch, state.like, warned
        )

    def _extra(self, num_directions: int, base: bool) -> tuple[bool, bool]:
        measure = self.smoothing == "auto" and num_directions > 0
        return base or measure or self.stencil == "forward", measure and self.stencil == "forward"


def _differences(asked: Displaced, values: Any) -> tuple[Any, float]:
    """Return f(x + hu) - f(x), or half of f(x + hu) - f(x - hu), per direction, and a correction factor."""
    ahead = values[asked.first :]
    with np.errstate(over="ignore"):
        if asked.stencil == "central":
            return _finite(ahead[::2] / 2 - ahead[1::2] / 2), 1.0
        if math.isfinite(values[0]):
            return _finite(ahead - values[0]), 1.0
        valid = np.isfinite(ahead)
        count = int(valid.sum())
        if count < 2:
            return np.full(len(ahead), np.nan), 1.0
        return _finite(ahead - _mean(ahead)), count / (count - 1)


def weighted_sum(asked: Displaced, coefficients: Any) -> tuple[Array, Any]:
    """Return sum_i coefficients_i w_i, and which pairs lie evenly about the base.

    w_i is the displacement actually made, in units of the smoothing, lengthened to |u_i|.
    """
    like = asked.draw.like
    xp = array_module(asked.base)
    total = xp.zeros_like(asked.base)
    symmetric = np.ones(len(coefficients), bool)
    for start, stop in chunks(len(coefficients), asked.dim):
        wanted = asked.along(start, stop)
        if asked.stencil == "central":
            ahead, back = (asked.rounded(rows) for rows in asked.pairs(wanted))
            actual = (ahead - back) / 2
            if asked.bounds is not None:
                shift = xp.abs(ahead / 2 + back / 2 - asked.base)
                symmetric[start:stop] = to_numpy((shift <= xp.abs(actual) / 16).all(1))
        else:
            actual = asked.rounded(asked.ahead(wanted)) - asked.rounded(asked.base)
        actual = actual / asked.smoothing
        if asked.stretch is not None:
            actual = actual / asked.stretch
        went = (actual * actual).sum(1)
        scale = (wanted * wanted).sum(1) / xp.where(went > 0, went, 1)
        weights = like.asarray(coefficients[start:stop]) * xp.where(went > 0, scale, 0)
        total = total + weights @ actual
    return total, symmetric


def _second_differences(asked: Displaced, values: Any, symmetric: Any) -> Any:
    """Return f(x + hu) + f(x - hu) - 2 f(x) for all pairs that lie evenly about an evaluated base."""
    if symmetric is None or not asked.lead or not (asked.stencil == "central" or asked.mirror):
        return np.empty(0)
    with np.errstate(over="ignore"):
        if asked.stencil == "central":
            second = ((values[1::2] - values[0]) + (values[2::2] - values[0]))[symmetric]
        else:
            second = (values[1:2] - values[0]) + (values[2:3] - values[0])
    return second[np.isfinite(second)]


def chunks(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yield where chunks of `count` rows begin and end."""
    height = max(1, _CHUNK // dim)
    for start in range(0, count, height):
        yield start, min(start + height, count)


def _finite(values: Any) -> Any:
    return np.where(np.isfinite(values), values, np.nan)


def _mean(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float((finite / len(finite)).sum()) if len(finite) else math.nan


def _rms(values: Any) -> float:
    peak = float(np.abs(values).max()) if len(values) else 0.0
    return peak * math.sqrt(float(((values / peak) ** 2).mean())) if peak > 0 else 0.0


def largest_slope(like: Like) -> float:
    """Return the size to which slopes are cut."""
    # Its square is still a number, also summed over all coordinates.
    return 1e150 if like.dtype == "float64" else 1e17
