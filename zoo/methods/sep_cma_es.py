"""CMA-ES with a diagonal covariance matrix, for many variables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Evaluations, Known, Rows
from zoo.methods.cma_base import CHECK_EVERY, LARGEST, SMALLEST, CMABase, CMAState, Matrix, Rates, rates

_last: tuple[Key, int, Matrix] | None = None  # the normal numbers drawn last, and where


def clear_cache() -> None:
    """Forget the sample drawn last, which `tell` otherwise need not draw again; no result depends on it."""
    global _last
    _last = None


@state
class SepCMAESState(CMAState):
    """State of `SepCMAES`.

    Attributes:
        variances: Diagonal of the covariance, shape (dim,).
    """

    variances: Matrix


@dataclass(frozen=True)
class SepCMAES(CMABase):
    """Separable CMA-ES: the scale of each coordinate is learnt, but no dependence between coordinates.

    As `zoo.methods.cma_es.CMAES` with C diagonal and L its square root, and with learning rates c_1 and
    c_mu that are (dim + 2) / 3 times as large, since there are so many fewer numbers to learn. Time and
    memory of a step are population_size x dim. Better than the full method where coordinates do not depend on
    each other much, where evaluations are fewer than about 100 dim, or where dim is beyond a few thousand.

    Of `known` points the variances are learnt in the same way as the full covariance is there.

    Departures from the paper: negative weights for the worse half, as in the full method; failed
    evaluations as there.

    Args:
        population_size: Candidates of a step; None for 4 + floor(3 log(dim)).
        sigma: First standard deviation, in units of the `scale` that `init` is given.
        active: Whether the worse half of a step makes the variances smaller along its steps.
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        tolx: See `CMAES`, for this and all that follow.
        tolfun: As there.
        tolfunhist: As there.
        tolfacupx: As there.
        tolupsigma: As there.
        tolstagnation: As there.
        tolconditioncov: As there.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = SepCMAES()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 7)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-9)
        True

    Source: R. Ros and N. Hansen, A Simple Modification in CMA-ES Achieving Linear Time and Space
    Complexity, 2008, https://inria.hal.science/inria-00287367.
    """

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> SepCMAESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or `known` is of another number of
                variables.
        """
        frame, mean = self._frame(x0, key, bounds, scale, budget)
        dim = len(mean)
        sigma, variances = float(self.sigma), np.ones(dim)
        if known is not None:
            mean, steps, floor = self._learnt(frame, known)
            variances = floor**2 + (steps * steps).sum(0)
            size = math.exp(float(np.log(variances).mean()))
            variances, sigma = variances / size, sigma * math.sqrt(size)
        return SepCMAESState(
            frame=frame,
            step=0,
            nfev=0,
            mean=mean,
            sigma=sigma,
            path_sigma=np.zeros(dim),
            path_c=np.zeros(dim),
            history=Log(),
            spread=math.inf,
            condition=float(variances.max()) / float(variances.min()),
            variances=variances,
        )

    def ask(self, state: SepCMAESState) -> Rows:
        """Return the step's candidates; fewer where the budget ends."""
        r = self._rates(state)
        u = _sample(state, r) * (self._spread(state) * np.sqrt(state.variances))
        u += state.mean
        return Rows(self._place(state.frame, u[: self._count(state, r.population_size)]))

    def tell(self, state: SepCMAESState, evaluations: Evaluations) -> SepCMAESState:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        r, order, best, median, spread = self._rank(state, self._rates(state), evaluations)
        step, nfev = state.step + 1, state.nfev + len(evaluations)
        history = state.history.append((best, median))
        if best != best:
            sigma = max(0.9 * state.sigma, SMALLEST)
            return replace(state, step=step, nfev=nfev, sigma=sigma, history=history, spread=spread)
        z = _sample(state, r)
        weights = np.empty(r.population_size)
        weights[order] = r.weights
        z_mean = np.maximum(weights, 0.0) @ z
        y_mean = np.sqrt(state.variances) * z_mean
        mean = state.mean + self._spread(state) * y_mean
        path_sigma, sigma, stalled = self._next_sigma(state, r, z_mean)
        path_c = r.keep_c * state.path_c
        if not stalled:
            path_c += r.gain_c * y_mean

        decay = r.decay + r.spared if stalled else r.decay
        squares = z * z
        weights *= np.where(weights < 0, r.dim / squares.sum(1), 1.0)
        variances = state.variances * (decay + r.rank_mu * (weights @ squares)) + r.rank_one * path_c**2
        np.clip(variances, 1 / LARGEST, LARGEST, out=variances)
        condition = state.condition
        if step % CHECK_EVERY == 0:
            condition = float(variances.max()) / float(variances.min())
        after = SepCMAESState(
            frame=state.frame,
            step=step,
            nfev=nfev,
            mean=mean,
            sigma=sigma,
            path_sigma=path_sigma,
            path_c=path_c,
            history=history,
            spread=spread,
            condition=condition,
            variances=variances,
        )
        return self._within_margin(after)

    def _rates(self, state: SepCMAESState) -> Rates:
        return rates(len(state.mean), self.population_size, self.active, True)

    def _shape(self, state: SepCMAESState) -> tuple[Matrix, None]:
        return np.sqrt(state.variances), None


def _sample(state: SepCMAESState, r: Rates) -> Matrix:
    """Return z ~ N(0, I), one row for each of the whole population; not to be written to."""
    global _last
    last = _last
    shape = (r.population_size, r.dim)
    if last is not None and last[1] == state.step and last[2].shape == shape and last[0] == state.frame.key:
        return last[2]
    z = to_numpy(state.frame.key.fold("sep-cma", state.step).normal(0, *shape))
    _last = (state.frame.key, state.step, z)
    return z
