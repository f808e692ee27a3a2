"""What the evolution strategies share: starts, budgets, failures, and when to stop."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.bounds import MODES, Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_number
from zoo.methods.es_noise import Noise, Sampled, Vector, place
from zoo.updates.adam import Adam
from zoo.updates.chain import Update
from zoo.updates.clip_up import ClipUp
from zoo.updates.momentum import Momentum

CHECK_EVERY = 10  # steps between two looks at the stopping rules
_LIMITS = {4: (1e-30, 1e30), 8: (1e-150, 1e150)}  # where deviations of so many bytes are held


@state
class Frame:
    """What a run was begun with and keeps.

    Attributes:
        key: Key of the run.
        like: Kind, dtype and device of the rows.
        work: Those of the mean and of what else is computed with: single precision where rows are of half.
        bounds: Box, or None.
        scale: How far the first candidates go, shape (dim,) in working precision, or one number for all.
        budget: Evaluations there will be, or None.
    """

    key: Key
    like: Like
    work: Like
    bounds: Bounds | None
    scale: Array | float
    budget: int | None


@state
class ESState:
    """The part of a state that all of them have.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        mean: Shape (dim,), before the boundary map, in working precision.
    """

    frame: Frame
    step: int
    nfev: int
    mean: Array


@dataclass(frozen=True)
class EvolutionStrategy(abc.ABC):
    """Hyper-parameters and rules common to all."""

    population_size: int | None = None
    boundary: str = "smooth"

    recommends_evaluated = False
    compares_within_steps = True

    def __post_init__(self) -> None:
        if self.population_size is not None:
            check_count("population_size", self.population_size, minimum=2)
            if self._mirrored and self.population_size % 2:
                raise ValueError(
                    "`population_size` must be even, as candidates come in mirrored pairs, "
                    f"got {self.population_size!r}."
                )
        check_choice("boundary", self.boundary, MODES)

    @property
    def _mirrored(self) -> bool:
        """Whether candidates come in pairs."""
        return False

    @abc.abstractmethod
    def _spread(self, state: Any) -> Array | float:
        """Return the standard deviation of each coordinate, or one for all."""

    @abc.abstractmethod
    def _learn(self, state: Any, values: Vector, step: int, nfev: int) -> Any:
        """Return the state after values some of which are no NaN; partners of failed ones are NaN."""

    @abc.abstractmethod
    def _fail(self, state: Any, step: int, nfev: int) -> Any:
        """Return the state after a step in which nothing could be used."""

    def tell(self, state: Any, evaluations: Evaluations) -> Any:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        values, count = evaluations.values, self._count(state)
        if len(values) != count:
            raise ValueError(f"`evaluations` must hold the {count} values asked for, got {len(values)}.")
        if self._mirrored:
            values = without_halves(values)
        step, nfev = state.step + 1, state.nfev + count
        if not np.count_nonzero(values == values):
            return self._fail(state, step, nfev)
        return self._learn(state, values, step, nfev)

    def recommend(self, state: Any) -> Array:
        """Return the mean of the distribution, taken into the box."""
        frame = state.frame
        return place(state.mean[None] + 0, frame.work, frame.bounds, self.boundary, frame.like)[0]

    def finished(self, state: Any) -> str | None:
        """Return that the budget is used up, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return None

    def diagnostics(self, state: Any) -> dict[str, Any]:
        """Return the smallest and largest deviation of a coordinate."""
        spread = self._spread(state)
        smallest, largest = (spread, spread) if isinstance(spread, float) else (spread.min(), spread.max())
        return {"smallest_deviation": float(smallest), "largest_deviation": float(largest)}

    def _begin(
        self,
        x0: Array,
        work: Like,
        bounds: Bounds | None,
        scale: Any,
        sigma: float,
        known: Known | None,
    ) -> tuple[Array, Array, Array]:
        """Return the scale, the first mean and the first deviations: sigma times the scale, or as known.

        The mean is the point that the boundary map takes to `x0`, or to the best known point. The
        deviations are those of the better half of the known points from it; where there are none, or fewer
        than eight points, they say nothing.
        """
        if x0.ndim != 1 or not len(x0):
            raise ValueError(f"`x0` must have shape (dim,), got {tuple(x0.shape)}.")
        wide = np.broadcast_to(np.asarray(to_numpy(scale), np.float64), (len(x0),))
        if not (np.isfinite(wide).all() and (wide > 0).all()):
            raise ValueError(f"`scale` must be finite and above 0 everywhere, got {scale!r}.")
        if known is None:
            points = work.asarray(x0)[None] + 0
        else:
            points = known.points[known.order[: max(1, len(known.order) // 2)]]
        if bounds is not None:
            points = bounds.inverse(bounds.map(points, "clip"), self.boundary)
        spread = sigma * wide
        if len(points) >= 4:
            deviations = np.sqrt(((points - points[0]) ** 2).mean(0))
            spread = np.where(deviations > 0, deviations, spread)
        return work.asarray(wide), work.asarray(points[0]), work.asarray(spread)

    def _size(self, dim: int) -> int:
        """Return the number of candidates of a whole step."""
        size = self.population_size or 4 + int(3 * math.log(dim))
        return size + size % 2 if self._mirrored else size

    def _count(self, state: Any) -> int:
        size, budget = self._size(len(state.mean)), state.frame.budget
        return size if budget is None else max(1, min(size, budget - state.nfev))

    def _sigma(self, sigma: float | None, dim: int) -> float:
        """Return a first deviation in units of the scale, by default one that suits the dimension."""
        return sigma or min(1.0, self._size(dim) / (3 * math.sqrt(dim)))


@dataclass(frozen=True)
class RegeneratingStrategy(EvolutionStrategy):
    """One whose noise is made again wherever it is needed: drawn, or read from a table."""

    noise_table: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_table is not None:
            check_count("noise_table", self.noise_table)

    def ask(self, state: Any) -> Sampled:
        """Return the step's candidates; fewer where the budget ends."""
        count = self._count(state)
        return Sampled(
            state.mean,
            self._spread(state),
            self._noise(state, count),
            count,
            mirrored=self._mirrored,
            bounds=state.frame.bounds,
            boundary=self.boundary,
            like=state.frame.like,
        )

    def _framed(
        self,
        x0: Array,
        key: Key,
        bounds: Bounds | None,
        scale: Any,
        sigma: float | None,
        budget: int | None,
        known: Known | None,
    ) -> tuple[Frame, Array, Array]:
        """Return what stays, the first mean and the first deviations."""
        like = Like.of(x0)
        work = Like(like.kind, like.working_dtype, like.device)
        units, mean, spread = self._begin(x0, work, bounds, scale, self._sigma(sigma, len(x0)), known)
        if self.noise_table is not None and self.noise_table < len(mean):
            raise ValueError(
                f"`noise_table` must be at least as long as a row, {len(mean)}, got {self.noise_table}."
            )
        first = units[0]
        alike = bool((units == first).all())
        return Frame(key, like, work, bounds, float(first) if alike else units, budget), mean, spread

    def _noise(self, state: Any, count: int) -> Noise:
        """Return the noise of a step of so many candidates."""
        frame, table = state.frame, None
        if self.noise_table is not None:
            table = NoiseTable(frame.key.fold("table").seed(63), self.noise_table)
        rows = -(-count // 2) if self._mirrored else count
        return Noise(frame.key, state.step, rows, len(state.mean), frame.work, table)

    def _halves(self, weights: Vector) -> tuple[Vector, Vector]:
        """Return what the noise and its square are weighted with, given the weights of the rows."""
        if not self._mirrored:
            return weights, weights
        if len(weights) % 2:
            weights = np.append(weights, 0.0)
        return weights[::2] - weights[1::2], weights[::2] + weights[1::2]


@functools.lru_cache(maxsize=64)
def rule(name: str, beta1: float, beta2: float) -> Update:
    """Return what makes steps of gradients: "adam", "sgd" with heavy-ball momentum, or "clip-up"."""
    if name == "adam":
        return Adam(beta1, beta2)
    return ClipUp(beta1) if name == "clip-up" else Momentum(beta1)


def without_halves(values: Vector) -> Vector:
    """Return values with NaN for both partners of a pair where either failed, or was not asked for."""
    even = len(values) // 2 * 2
    ahead, back = values[:even:2], values[1:even:2]
    failed = (ahead != ahead) | (back != back)
    if even == len(values) and not np.count_nonzero(failed):
        return values
    values = values.copy()
    values[:even][np.repeat(failed, 2)] = np.nan
    values[even:] = np.nan
    return values


def bounded(spread: Array) -> Array:
    """Return deviations held where neither they nor their squares leave the range of numbers."""
    return clipped(spread, *_LIMITS[spread.dtype.itemsize])


def clipped(x: Array, lower: float, upper: float) -> Array:
    """Return `x` held between two numbers."""
    if isinstance(x, np.ndarray):
        return np.minimum(np.maximum(x, lower), upper)  # in a fraction of the time of `clip`
    return x.clip(lower, upper)


def converged(state: ESState, spread: Callable[[], Array], first: float, tolx: float) -> str | None:
    """Return why a search with these deviations, at first `first`, has come to its end, or None."""
    if state.step == 0 or state.step % CHECK_EVERY:
        return None
    deviations = spread()
    if float(deviations.max()) < tolx * first:
        return f"tolx: steps are {tolx} times as long as the first ones in every coordinate"
    half_digit = state.frame.like.epsilon / 2 * abs(state.mean)
    if bool((0.2 * deviations < half_digit).all()):
        return "noeffect: steps vanish in rounding in every coordinate"
    return None


def check_tolerance(name: str, value: object) -> float:
    """Return `value` as a float, or raise unless it is a finite number of at least 0."""
    number = check_number(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")
    return number
