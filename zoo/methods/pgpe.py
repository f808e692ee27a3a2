"""Policy gradients with parameter-based exploration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Known
from zoo.core.validation import check_choice, check_fraction, check_positive
from zoo.methods.es_base import (
    ESState,
    RegeneratingStrategy,
    bounded,
    check_tolerance,
    clipped,
    converged,
    rule,
)
from zoo.methods.es_noise import Vector, moments
from zoo.updates.chain import Update
from zoo.updates.shaping import centred_ranks

UPDATES = ("clip-up", "adam", "sgd")


@state
class PGPEState(ESState):
    """State of `PGPE`.

    Attributes:
        spread: Standard deviation of each coordinate, shape (dim,), in working precision.
        first: The largest of the first deviations.
        memory: Of the update.
    """

    spread: Array
    first: float
    memory: Any


@dataclass(frozen=True)
class PGPE(RegeneratingStrategy):
    """Gradient descent on mean and deviations of a normal distribution, from pairs of mirrored candidates.

        x_i+- = mean +- spread z_i,  z_i ~ N(0, I),  i = 1, ..., n / 2
        g = 1 / n sum_i (r_i+ - r_i-) z_i
        h = 1 / n sum_i (r_i+ + r_i-) (z_i^2 - 1)
        mean   <- mean - learning_rate spread update(g)
        spread <- spread (1 - spread_rate h), by no more than the share `max_change`

    with ranks r from -1/2 for the lowest value of all n to 1/2 for the highest. `update` is ClipUp:
    momentum, and a limit on the length of a step. Noise is drawn when candidates are built, and again, block
    by block, for the sums: time is n dim, memory a few times dim.

    Departures from the papers: steps of the mean, their limit too, are in units of the present spread, not of
    the first one, so that the search converges; ranks in the place of values; both partners of a pair are
    left out where one failed; a step that fails altogether makes the spread a tenth smaller.

    Args:
        population_size: Candidates of a step, n, even; None for 4 + 3 log(dim), made even.
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        noise_table: Length of a table that noise is read from instead of drawn, at least dim and better
            a hundred times that; None for none. See `zoo.core.rng.NoiseTable`.
        sigma: First standard deviation, in units of the `scale` that `init` is given; None for
            n / (3 sqrt(dim)), at most 1.
        learning_rate: With ClipUp the longest step of the mean over the length of the spread, None for
            0.15; else the step per unit of update(g), None for 0.3 with Adam, sqrt(n) / 8 with "sgd".
        spread_rate: Of the spread, at least 0.
        max_change: Largest relative change of a deviation in a step, at least 0 and below 1.
        update: "clip-up", "adam", or "sgd", which is g with heavy-ball momentum.
        beta1: Share of the past in the mean of gradients, or in the momentum.
        beta2: Share of the past in Adam's mean of squares.
        tolx: The search ends when all deviations are below this many times the first; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> import numpy as np
        >>> from zoo.core.types import Evaluations
        >>> method = PGPE(population_size=20)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-6)
        True

    References:
        Sehnke, Osendorfer, Rückstieß, Graves, Peters and Schmidhuber, "Parameter-exploring policy gradients",
        2010. https://doi.org/10.1016/j.neunet.2009.12.004
        Toklu, Liskowski and Srivastava, "ClipUp: a simple and powerful optimizer for distribution-based
        policy evolution", 2020. https://arxiv.org/abs/2008.02387
    """

    sigma: float | None = None
    learning_rate: float | None = None
    spread_rate: float = 0.6
    max_change: float = 0.2
    update: str = "clip-up"
    beta1: float = 0.9
    beta2: float = 0.999
    tolx: float = 1e-11

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigma", "learning_rate"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_tolerance("spread_rate", self.spread_rate)
        check_choice("update", self.update, UPDATES)
        for name in ("max_change", "beta1", "beta2"):
            check_fraction(name, getattr(self, name))
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
    ) -> PGPEState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        What is known gives the first mean, its best point, and from eight points on the first spread, the
        deviations of the better half from it.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or the noise table is shorter than a row.
        """
        frame, mean, spread = self._framed(x0, key, bounds, scale, self.sigma, budget, known)
        return PGPEState(frame, 0, 0, mean, spread, float(spread.max()), self._rule.init(mean))

    def finished(self, state: PGPEState) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        reason = super().finished(state)
        return reason or converged(state, lambda: state.spread, state.first, self.tolx)

    @property
    def _rule(self) -> Update:
        return rule(self.update, self.beta1, self.beta2)

    @property
    def _mirrored(self) -> bool:
        return True

    def _spread(self, state: PGPEState) -> Array:
        return state.spread

    def _rate(self, dim: int) -> float:
        """Return what the update's direction is multiplied by, in units of the spread."""
        if self.update == "clip-up":
            return (self.learning_rate or 0.15) * math.sqrt(dim)
        return self.learning_rate or (0.3 if self.update == "adam" else math.sqrt(self._size(dim)) / 8)

    def _learn(self, state: PGPEState, values: Vector, step: int, nfev: int) -> PGPEState:
        valid = int((values == values).sum())
        first, second = self._halves(centred_ranks(values) / valid)
        gradient, change = moments(self._noise(state, len(values)), first, second)
        assert change is not None
        memory, direction = self._rule.update(state.memory, gradient)
        mean = state.mean - direction * (state.spread * self._rate(len(state.mean)))
        change *= -self.spread_rate
        spread = bounded(state.spread * (1 + clipped(change, -self.max_change, self.max_change)))
        return PGPEState(state.frame, step, nfev, mean, spread, state.first, memory)

    def _fail(self, state: PGPEState, step: int, nfev: int) -> PGPEState:
        spread = bounded(0.9 * state.spread)
        return PGPEState(state.frame, step, nfev, state.mean, spread, state.first, state.memory)
