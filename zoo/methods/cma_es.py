"""CMA-ES with a full covariance matrix."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg.blas import dsyrk, dtrmm
from scipy.linalg.lapack import dpotrf, dtrcon

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count
from zoo.methods.cma_base import CHECK_EVERY, LARGEST, SMALLEST, CMABase, CMAState, Matrix, Rates, rates

_BLOCK = 4096  # numbers drawn at once: at dim 10 a draw costs as much as the rest of `ask`
_TRIANGULAR = 150  # dim from which on it pays to spare the factor's zeros

_last: tuple[Matrix, Key, int, Matrix, Matrix] | None = None  # factor, key, step; z and y drawn with them


def clear_cache() -> None:
    """Forget the samples drawn last, which need not be drawn again; no result depends on it."""
    global _last
    _last = None
    _normals.cache_clear()


@state
class CMAESState(CMAState):
    """State of `CMAES`.

    Attributes:
        covariance: Shape (dim, dim), upper triangle.
        factor: Upper triangular, `factor.T @ factor` is the covariance of the last factorization.
        pending: Since then, for each step: decay of the covariance, rows whose squares are to be
            added, rows whose squares are to be taken away.
    """

    covariance: Matrix
    factor: Matrix
    pending: tuple[tuple[float, Matrix, Matrix], ...]


@dataclass(frozen=True)
class CMAES(CMABase):
    """Covariance matrix adaptation: a normal distribution that learns the shape of the objective.

    Each step draws `population_size` points x = mean + sigma * scale * y with y ~ N(0, C), ranks them by
    value, and with the weights w (positive for the better half and summing to 1, negative for the rest)
    updates

        mean    <-  mean + sigma * scale * sum_{w > 0} w y
        p_sigma <-  (1 - c_s) p_sigma + sqrt(c_s (2 - c_s) mu) sum_{w > 0} w z    where y = L z, C = L L'
        sigma   <-  sigma exp(c_s / d_s (|p_sigma| / E|N(0, I)| - 1))
        p_c     <-  (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu) sum_{w > 0} w y
        C       <-  (1 - c_1 - c_mu sum w) C + c_1 p_c p_c'
                    + c_mu (sum_{w > 0} w y y' + sum_{w < 0} w (dim / |z|^2) y y')

    with mu = 1 / sum_{w > 0} w^2, and h = 0 while p_sigma is very long, else 1. Only the order of the
    values counts, so the search is the same for f and for any increasing function of f.

    Coordinates that the box says are discrete keep a chance of 1 / (dim population_size) to change in a
    candidate, see `zoo.methods.margin`.

    Departures from the tutorial: L is a Cholesky factor instead of the symmetric root, which changes
    p_sigma by a rotation only and costs a tenth; it is taken anew every `update_period` steps. Failed
    evaluations rank last with weight 0. A step without any valid value leaves everything but sigma, which
    shrinks by a tenth. A covariance that rounding has made indefinite is mended by raising its
    smallest eigenvalues. The stopping rules are looked at every tenth step; noeffectaxis looks at columns
    of L instead of principal axes; tolx is relative to the first steps; tolfacupx is 1e10 and not 1e3,
    since nothing restarts the search with longer steps.

    With `known` points the search begins with what the best of them have in common. Of n that have a value,
    the best k = max(1, floor(n / 10)) make the first mean and covariance,

        mean = mean of x_i,    sigma^2 C = a^2 I + mean of (x_i - mean) (x_i - mean)',    a = max(.1, 1 / k)

    in units of `sigma` and `scale`, with det C = 1. So from 100 points on this is the mixture of normal
    distributions of the paper, which has a = .1; fewer points say less, and one point only where to begin.
    Points are taken out of the box first, by the inverse of the boundary map. x0 is not used then.

    Args:
        population_size: Candidates of a step; None for 4 + floor(3 log(dim)).
        sigma: First standard deviation, in units of the `scale` that `init` is given.
        active: Whether the worse half of a step makes the covariance smaller along its steps.
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        tolx: Stop when steps are this many times as long as the first ones; 0 for never, and so below.
        tolfun: Stop when values within the last step, and the best ones of the last 10 + 30 dim /
            population_size steps, differ by less.
        tolfunhist: Stop when the best values of that many steps differ by less.
        tolfacupx: Stop when steps are this many times as long as the first ones; inf for never, and so
            below.
        tolupsigma: Stop when sigma has grown this much more than the longest axis.
        tolstagnation: Stop when best and median values have not improved for about this many steps; None
            for 100 + 100 dim^1.5 / population_size, 0 for never.
        tolconditioncov: Stop when the condition number of the covariance is larger.
        update_period: Steps between two factorizations; None for floor(0.1 / ((c_1 + c_mu) dim)), at
            least 1: by then C has changed by about a tenth / dim.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = CMAES()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 7)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-9)
        True

    Source: N. Hansen, The CMA Evolution Strategy: A Tutorial, 2016, https://arxiv.org/abs/1604.00772.
    Stopping rules: N. Hansen, Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed, 2009,
    https://doi.org/10.1145/1570256.1570333. Known points: M. Nomura, S. Watanabe, Y. Akimoto, Y. Ozaki and M.
    Onishi, Warm Starting CMA-ES for Hyperparameter Optimization, 2021, https://arxiv.org/abs/2012.06932.
    """

    update_period: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_period is not None:
            check_count("update_period", self.update_period)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CMAESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or `known` is of another number of
                variables.
        """
        frame, mean = self._frame(x0, key, bounds, scale, budget)
        dim = len(mean)
        sigma, condition = float(self.sigma), 1.0
        try:
            covariance = factor = np.eye(dim)
            if known is not None:
                mean, steps, floor = self._learnt(frame, known)
                covariance, factor = _factorize(steps.T @ steps + floor**2 * covariance)
                size = math.exp(2 * float(np.log(factor.diagonal()).mean()))
                covariance, factor, sigma = (
                    covariance / size,
                    factor / math.sqrt(size),
                    sigma * math.sqrt(size),
                )
                condition = _condition(factor, self.tolconditioncov)
        except MemoryError:
            raise MemoryError(
                f"a covariance of {dim} variables takes {8e-9 * dim**2:.1f} GB, several times over; "
                'method="sep-cma" keeps its diagonal only.'
            ) from None
        return CMAESState(
            frame=frame,
            step=0,
            nfev=0,
            mean=mean,
            sigma=sigma,
            path_sigma=np.zeros(dim),
            path_c=np.zeros(dim),
            history=Log(),
            spread=math.inf,
            condition=condition,
            covariance=covariance,
            factor=factor,
            pending=(),
        )

    def ask(self, state: CMAESState) -> Rows:
        """Return the step's candidates; fewer where the budget ends."""
        _, y = self.sample(state)
        count = self._count(state, len(y))
        return Rows(self.place(state, y if count == len(y) else y[:count]))

    def tell(self, state: CMAESState, evaluations: Evaluations) -> CMAESState:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        return self.learn(state, evaluations, *self.sample(state))

    def sample(self, state: CMAESState) -> tuple[Matrix, Matrix]:
        """Return the step's z ~ N(0, I) and y = L z, shape (population_size, dim), not to be written to."""
        return _sample(state, self._rates(state))

    def place(self, state: CMAESState, y: Matrix) -> Array:
        """Return the candidates that steps y lead to, taken into the box."""
        u = y * self._spread(state)
        u += state.mean
        return self._place(state.frame, u)

    def learn(self, state: CMAESState, evaluations: Evaluations, z: Matrix, y: Matrix) -> CMAESState:
        """Do what `tell` does, for steps that need not all be those of `sample`.

        Args:
            state: As in `tell`.
            evaluations: As in `tell`.
            z: Shape (population_size, dim).
            y: L z, the same shape.
        """
        r, order, best, median, spread = self._rank(state, self._rates(state), evaluations)
        step, nfev = state.step + 1, state.nfev + len(evaluations)
        history = state.history.append((best, median))
        if best != best:
            sigma = max(0.9 * state.sigma, SMALLEST)
            return replace(state, step=step, nfev=nfev, sigma=sigma, history=history, spread=spread)
        z, y = z.take(order, 0), y.take(order, 0)
        y_mean = r.parents.dot(y)
        mean = self._spread(state) * y_mean
        mean += state.mean
        path_sigma, sigma, stalled = self._next_sigma(state, r, r.parents.dot(z))
        path_c = r.keep_c * state.path_c
        if not stalled:
            path_c += r.gain_c * y_mean

        # Rows whose squares go into the covariance, the path and the parents, and out of it, the others.
        rows, mu = np.empty((r.population_size + 1, r.dim)), r.mu
        np.multiply(path_c, r.root_path, out=rows[0])
        shares = r.roots_minus / np.sqrt(np.vecdot(z, z))
        shares += r.roots
        np.multiply(y, shares[:, None], out=rows[1:])
        update = r.decay + r.spared if stalled else r.decay, rows[: mu + 1], rows[mu + 1 :]

        pending = (*state.pending, update)
        covariance, factor, condition = state.covariance, state.factor, state.condition
        period = self.update_period or r.period
        if step % period == 0:
            covariance, factor = _factorize(_fold(covariance, pending))
            pending = ()
            if step % (CHECK_EVERY * period) == 0:
                condition = _condition(factor, self.tolconditioncov)
        after = CMAESState(
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
            covariance=covariance,
            factor=factor,
            pending=pending,
        )
        return self._within_margin(after)

    def _rates(self, state: CMAESState) -> Rates:
        return rates(len(state.mean), self.population_size, self.active, False)

    def _shape(self, state: CMAESState) -> tuple[Matrix, Matrix]:
        axis = state.factor[state.step // CHECK_EVERY % len(state.mean)]
        return np.sqrt(state.covariance.diagonal()), axis * state.frame.scale


def _sample(state: CMAESState, r: Rates) -> tuple[Matrix, Matrix]:
    """Return z ~ N(0, I) and y = L z, one row for each of the whole population; not to be written to."""
    global _last
    last = _last
    if last is not None and last[0] is state.factor and last[2] == state.step and last[1] == state.frame.key:
        z, y = last[3:]
        if len(z) == r.population_size:
            return z, y
    steps = max(1, _BLOCK // (r.population_size * r.dim))
    block, here = divmod(state.step, steps)
    start = here * r.population_size
    draw = _normals if steps > 1 else _normals.__wrapped__  # a step's numbers alone are kept with their y
    z = draw(state.frame.key, block, steps * r.population_size, r.dim)[start : start + r.population_size]
    y = z.dot(state.factor) if r.dim < _TRIANGULAR else dtrmm(1.0, state.factor.T, z.T, lower=1).T
    _last = (state.factor, state.frame.key, state.step, z, y)
    return z, y


@functools.lru_cache(maxsize=4)
def _normals(key: Key, block: int, rows: int, dim: int) -> Matrix:
    """Return the normal numbers of some steps on end."""
    z = to_numpy(key.fold("cma", block).normal(0, rows, dim))
    z.flags.writeable = False
    return z


def _fold(covariance: Matrix, pending: tuple[tuple[float, Matrix, Matrix], ...]) -> Matrix:
    """Return the covariance with pending updates, oldest first, carried out."""
    decay, plus, minus = pending[-1]
    if len(pending) > 1:
        added, removed = [plus], [minus]
        for earlier, plus, minus in reversed(pending[:-1]):
            fade = math.sqrt(decay)
            added.append(fade * plus)
            removed.append(fade * minus)
            decay *= earlier
        plus, minus = np.concatenate(added), np.concatenate(removed)
    # BLAS and LAPACK see the transposes: their lower triangle is our upper one.
    folded = dsyrk(1.0, plus.T, decay, covariance.T, lower=1)
    folded = dsyrk(-1.0, minus.T, 1.0, folded, lower=1, overwrite_c=1)
    upper: Matrix = folded.T
    return upper


def _factorize(covariance: Matrix) -> tuple[Matrix, Matrix]:
    """Return a covariance, mended if it has to be, and its upper triangular factor."""
    factor, info = dpotrf(covariance.T, lower=1)
    if info == 0:
        return covariance, factor.T
    upper = np.triu(covariance)
    values, vectors = np.linalg.eigh(upper + np.triu(upper, 1).T)
    floor = max(float(values[-1]) * 1e-14, 1 / LARGEST)
    root = vectors * np.sqrt(np.maximum(values, floor))
    factor = np.ascontiguousarray(np.linalg.qr(root.T, mode="r"))
    factor *= np.where(factor.diagonal() < 0, -1.0, 1.0)[:, None]
    return root @ root.T, factor


def _condition(factor: Matrix, limit: float) -> float:
    """Return the condition number, at most dim^2 times too large where that is far from the limit."""
    inverse, _ = dtrcon(factor.T, uplo="L")
    estimate = inverse**-2 if inverse > 1e-100 else math.inf
    if estimate > limit:
        values = np.linalg.svd(factor, compute_uv=False)
        estimate = float((values[0] / values[-1]) ** 2) if values[-1] > 0 else math.inf
    return float(estimate)
