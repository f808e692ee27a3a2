"""The evolution strategy of OpenAI."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Known
from zoo.core.validation import check_choice, check_fraction, check_number, check_positive
from zoo.methods.es_base import ESState, RegeneratingStrategy, check_tolerance, rule
from zoo.methods.es_noise import Vector, moments, place
from zoo.updates.chain import Update
from zoo.updates.shaping import centred_ranks

UPDATES = ("adam", "sgd")


@state
class OpenAIESState(ESState):
    """State of `OpenAIES`.

    Attributes:
        memory: Of the update.
    """

    memory: Any


@dataclass(frozen=True)
class OpenAIES(RegeneratingStrategy):
    """Gradient descent on the mean of a normal distribution of fixed width, along centred ranks.

        x_i = mean +- sigma scale z_i,  z_i ~ N(0, I), in pairs
        g = 1 / n sum_i (r_i+ - r_i-) z_i + weight_decay mean / scale
        mean <- mean - learning_rate scale update(g)

    with ranks r from -1/2 for the lowest value of all n to 1/2 for the highest. Adam makes every step about
    `learning_rate` times `scale` long in each coordinate; "sgd" is g with heavy-ball momentum. Noise is drawn
    when candidates are built, and again, block by block, for the sum: time is n dim, memory a few times dim.

    Neither sigma nor the learning rate adapts: the search goes as near to the optimum as they are small.
    Give `decay` to have them fall.

    Departures from the paper: sigma and learning rate in units of `scale`; equal values have equal ranks, so
    that a constant objective moves nothing; both partners of a pair are left out where one failed.

    Args:
        population_size: Candidates of a step, n, even; None for 4 + 3 log(dim), made even.
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        noise_table: Length of a table that noise is read from instead of drawn, at least dim and better
            a hundred times that; None for none. See `zoo.core.rng.NoiseTable`.
        sigma: Standard deviation of the candidates, in units of the `scale` that `init` is given; None for
            sqrt(n / dim) / 2, at most 0.1: what can be learnt of a step's direction allows no longer steps.
        learning_rate: In the same units; None for sigma with Adam, sigma sqrt(n) / 4 with "sgd".
        update: "adam" or "sgd".
        beta1: Share of the past in the mean of gradients: of Adam, or of the momentum.
        beta2: Share of the past in Adam's mean of squares.
        weight_decay: How strongly the mean is drawn towards 0, at least 0.
        decay: What sigma and the learning rate are multiplied by at each step, above 0 and at most 1.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> import numpy as np
        >>> from zoo.core.types import Evaluations
        >>> method = OpenAIES(population_size=20)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 0.01)
        True

    References:
        Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
        reinforcement learning", 2017. https://arxiv.org/abs/1703.03864
    """

    sigma: float | None = None
    learning_rate: float | None = None
    update: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigma", "learning_rate"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_choice("update", self.update, UPDATES)
        check_fraction("beta1", self.beta1)
        check_fraction("beta2", self.beta2)
        check_tolerance("weight_decay", self.weight_decay)
        if not 0 < check_number("decay", self.decay) <= 1:
            raise ValueError(f"`decay` must be above 0 and at most 1, got {self.decay!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> OpenAIESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`. It starts at the best known point.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or the noise table is shorter than a row.
        """
        frame, mean, _ = self._framed(x0, key, bounds, scale, self.sigma, budget, known)
        return OpenAIESState(frame, 0, 0, mean, self._rule.init(mean))

    def _width(self, dim: int) -> float:
        """Return sigma before it decays."""
        return self.sigma or min(0.1, math.sqrt(self._size(dim) / dim) / 2)

    def _rate(self, dim: int) -> float:
        """Return the learning rate before it decays."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self._width(dim) * (1.0 if self.update == "adam" else math.sqrt(self._size(dim)) / 4)

    @property
    def _rule(self) -> Update:
        return rule(self.update, self.beta1, self.beta2)

    @property
    def _mirrored(self) -> bool:
        return True

    def _spread(self, state: OpenAIESState) -> Array | float:
        return state.frame.scale * (self._width(len(state.mean)) * self.decay**state.step)

    def _learn(self, state: OpenAIESState, values: Vector, step: int, nfev: int) -> OpenAIESState:
        return self.moved(state, centred_ranks(values), int((values == values).sum()), step, nfev)

    def moved(self, state: OpenAIESState, weights: Vector, valid: int, step: int, nfev: int) -> OpenAIESState:
        """Return the state after a step away from candidates of high weights.

        For those who weigh them by more than the order of their values.

        Args:
            state: That which asked for the candidates.
            weights: In place of the ranks r, shape (n,); 0 for both partners of a pair where one failed.
            valid: How many have not failed, at least 1.
            step: Steps told, this one among them.
            nfev: Evaluations told, these among them.
        """
        frame = state.frame
        first, _ = self._halves(weights)
        gradient, _ = moments(self._noise(state, len(weights)), first / valid, None)
        if self.weight_decay:
            gradient += self._pull(state) * (self.weight_decay / frame.scale)
        memory, direction = self._rule.update(state.memory, gradient)
        rate = self._rate(len(state.mean)) * self.decay**state.step
        mean = state.mean - direction * (frame.scale * rate)
        return OpenAIESState(frame, step, nfev, mean, memory)

    def _pull(self, state: OpenAIESState) -> Array:
        """Return the gradient of |x|^2 / 2 at the mean, through the boundary map where there is one."""
        frame, mean = state.frame, state.mean
        if frame.bounds is None:
            return mean
        spread = self._spread(state)
        x, ahead, back = (
            place(u[None], frame.work, frame.bounds, self.boundary, frame.work)[0]
            for u in (mean, mean + spread, mean - spread)
        )
        return x * ((ahead - back) / (2 * spread))  # the map's slope, over the width of the distribution

    def _fail(self, state: OpenAIESState, step: int, nfev: int) -> OpenAIESState:
        return OpenAIESState(state.frame, step, nfev, state.mean, state.memory)
