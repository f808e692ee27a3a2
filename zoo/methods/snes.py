"""Separable natural evolution strategies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Known
from zoo.core.validation import check_flag, check_positive
from zoo.methods.es_base import ESState, RegeneratingStrategy, bounded, check_tolerance, converged
from zoo.methods.es_noise import Vector, moments
from zoo.updates.shaping import nes_utilities


@state
class SNESState(ESState):
    """State of `SNES`.

    Attributes:
        spread: Standard deviation of each coordinate, shape (dim,), in working precision.
        first: The largest of the first deviations.
    """

    spread: Array
    first: float


@dataclass(frozen=True)
class SNES(RegeneratingStrategy):
    """Natural gradient ascent on a normal distribution with a deviation for each coordinate.

        x_i = mean + spread z_i,  z_i ~ N(0, I),  i = 1, ..., n
        mean   <- mean + learning_rate spread sum_i u_i z_i
        spread <- spread exp(spread_rate / 2 sum_i u_i (z_i^2 - 1))

    with the utilities u_i of `zoo.updates.shaping.nes_utilities`, which depend on the order of the values
    only and sum to 0. All operations are coordinate by coordinate. Noise is drawn when candidates are
    built, and again, block by block, for the sums: time is n dim, memory a few times dim.

    Departures from the paper: failed evaluations are left out, as if fewer had been asked for; equal values
    have equal utilities; a step that fails altogether makes the spread a tenth smaller.

    Args:
        population_size: Candidates of a step, n, at least 2; None for 4 + floor(3 log(dim)).
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        noise_table: Length of a table that noise is read from instead of drawn, at least dim and better
            a hundred times that; None for none. See `zoo.core.rng.NoiseTable`.
        sigma: First standard deviation, in units of the `scale` that `init` is given; None for
            n / (3 sqrt(dim)), at most 1: with more, a first step of the mean would be longer than the way to
            an optimum `scale` away in each coordinate.
        learning_rate: Of the mean.
        spread_rate: Of the spread; None for (3 + log(dim)) / (5 sqrt(dim)).
        mirrored: Whether candidates come in pairs mean + spread z, mean - spread z: half the random numbers.
        tolx: The search ends when all deviations are below this many times the first; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> import numpy as np
        >>> from zoo.core.types import Evaluations
        >>> method = SNES()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 7)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-9)
        True

    References:
        Schaul, Glasmachers and Schmidhuber, "High dimensions and heavy tails for natural evolution
        strategies", 2011. https://doi.org/10.1145/2001576.2001692
    """

    sigma: float | None = None
    learning_rate: float = 1.0
    spread_rate: float | None = None
    mirrored: bool = False
    tolx: float = 1e-11

    def __post_init__(self) -> None:
        check_flag("mirrored", self.mirrored)
        super().__post_init__()
        for name in ("sigma", "spread_rate"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_tolerance("tolx", self.tolx)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> SNESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        What is known gives the first mean, its best point, and from eight points on the first spread, the
        deviations of the better half from it.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or the noise table is shorter than a row.
        """
        frame, mean, spread = self._framed(x0, key, bounds, scale, self.sigma, budget, known)
        return SNESState(frame, 0, 0, mean, spread, float(spread.max()))

    def finished(self, state: SNESState) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        return super().finished(state) or converged(state, lambda: state.spread, state.first, self.tolx)

    @property
    def _mirrored(self) -> bool:
        return self.mirrored

    def _spread(self, state: SNESState) -> Array:
        return state.spread

    def _learn(self, state: SNESState, values: Vector, step: int, nfev: int) -> SNESState:
        dim = len(state.mean)
        rate = self.spread_rate or (3 + math.log(dim)) / (5 * math.sqrt(dim))
        first, second = self._halves(nes_utilities(values))
        mean, change = moments(self._noise(state, len(values)), first, second)
        assert change is not None
        mean *= state.spread
        mean *= self.learning_rate
        mean += state.mean
        change *= rate / 2
        spread = bounded(state.spread * array_module(change).exp(change))
        return SNESState(state.frame, step, nfev, mean, spread, state.first)

    def _fail(self, state: SNESState, step: int, nfev: int) -> SNESState:
        return SNESState(state.frame, step, nfev, state.mean, bounded(0.9 * state.spread), state.first)
