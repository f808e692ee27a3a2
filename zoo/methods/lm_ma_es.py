"""Matrix adaptation with limited memory, for thousands to millions of variables."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.blas import dgemm, sgemm
from scipy.linalg.lapack import dtrtri

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Known
from zoo.core.validation import check_count, check_positive
from zoo.methods.es_base import ESState, RegeneratingStrategy, check_tolerance, converged
from zoo.methods.es_noise import Noise, Vector, moments, place

_BLOCK = 2**22  # numbers that are transformed at once, if eight rows are not more
_BY_ROW = 2**15  # length from which on memory is renewed vector by vector, in the processor's cache
_LIMITS = (1e-150, 1e150)  # where sigma is held

_last: tuple[Noise, Array, int, Array] | None = None  # noise, memory, first row and the block made of them


def clear_cache() -> None:
    """Forget the block of candidates made last; no result depends on it."""
    global _last
    _last = None


class Constants(NamedTuple):
    """Constants of a run.

    Attributes:
        weights: By rank, of all candidates; 0 for the worse half, else summing to 1.
        mass: Effective number of parents.
        path_sigma: Learning rate of the path of sigma.
        stretches: By vector, its share in the transformation, c_d.
        rates: By vector, its learning rate, c_c.
    """

    weights: Vector
    mass: float
    path_sigma: float
    stretches: Vector
    rates: Vector


@functools.lru_cache(maxsize=64)
def constants(dim: int, population_size: int, memory: int) -> Constants:
    """Return the constants for a dimension, a population size and a number of vectors."""
    mu = population_size // 2
    raw = np.maximum(math.log(mu + 0.5) - np.log(np.arange(1, population_size + 1)), 0.0)
    raw[mu:] = 0.0
    weights = raw / raw.sum()
    vectors = np.arange(memory)
    return Constants(
        weights=weights,
        mass=1 / float((weights**2).sum()),
        path_sigma=min(1.0, 2 * population_size / dim),
        stretches=min(0.5, 1 / dim) / 1.5**vectors,
        rates=min(1.0, population_size / dim) / 4.0**vectors,
    )


@state
class LMMAESState(ESState):
    """State of `LMMAES`.

    Attributes:
        spread: First deviations, shape (dim,) in working precision, or one number for all.
        sigma: Overall standard deviation, in units of these.
        path: Path of sigma, shape (dim,).
        memory: The vectors m_j, shape (memory, dim), those that learn fastest first.
        gram: Their products m_j' m_k, shape (memory, memory), float64.
    """

    spread: Array | float
    sigma: float
    path: Array
    memory: Array
    gram: Vector


@dataclass(frozen=True)
class LMMAES(RegeneratingStrategy):
    """CMA-ES for many variables: a few vectors stand for the shape of the distribution.

    Candidates are x_i = mean + sigma spread d_i, where d_i is z_i ~ N(0, I) stretched along m vectors,

        d <- z, and for j = 1, ..., m:  d <- (1 - c_dj) d + c_dj m_j (m_j' d),   c_dj = 1 / (1.5^(j-1) dim)

    and with the weights w_i of the better half, w_i ~ log((n + 1) / 2) - log(rank), which sum to 1,

        mean  <-  mean + sigma spread sum_i w_i d_i
        p     <-  (1 - c_s) p + sqrt(mu c_s (2 - c_s)) sum_i w_i z_i,            c_s = 2 n / dim
        m_j   <-  (1 - c_cj) m_j + sqrt(mu c_cj (2 - c_cj)) sum_i w_i z_i,       c_cj = n / (4^(j-1) dim)
        sigma <-  sigma exp(c_s / 2 (|p|^2 / dim - 1))

    with mu = 1 / sum_i w_i^2. Vector j takes part from step j on.

    The product of all stretches is worked out as one matrix a (I + M' T M), with T of shape (m, m), so that
    candidates are two products of matrices. Noise is drawn when candidates are built, at least eight at a
    time, and again for the sums. Time of a step is n m dim, memory m dim and eight candidates.

    Departures from the paper: c_s and c_c1 are at most 1 and c_d1 at most 1/2, for few variables and large
    populations; failed evaluations rank last with weight 0; a step that fails altogether makes sigma a tenth
    smaller; vectors are forgotten where they would stretch further than a number has digits; sigma begins as
    in `SNES`.

    Args:
        population_size: Candidates of a step, n, at least 2; None for 4 + floor(3 log(dim)).
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        noise_table: Length of a table that noise is read from instead of drawn, at least dim and better
            a hundred times that; None for none. See `zoo.core.rng.NoiseTable`.
        sigma: First standard deviation, in units of the `scale` that `init` is given; None for
            n / (3 sqrt(dim)), at most 1.
        memory: Vectors, m; None for 4 + floor(3 log(dim)).
        tolx: The search ends when the longest steps are this many times as long as the first; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo.core.types import Evaluations
        >>> method = LMMAES()
        >>> state = method.init(np.ones(50), key=Key(0))
        >>> for _ in range(300):
        ...     x = method.ask(state).rows(0, 15)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-6)
        True

    Source: I. Loshchilov, T. Glasmachers and H.-G. Beyer, Large Scale Black-Box Optimization by
    Limited-Memory Matrix Adaptation, 2019, https://arxiv.org/abs/1705.06693.
    """

    sigma: float | None = None
    memory: int | None = None
    tolx: float = 1e-11

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None:
            check_positive("sigma", self.sigma)
        if self.memory is not None:
            check_count("memory", self.memory)
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
    ) -> LMMAESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        What is known gives the first mean, its best point, and from eight points on the first deviations,
        those of the better half from it.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or the noise table is shorter than a row.
        """
        frame, mean, spread = self._framed(x0, key, bounds, scale, self.sigma, budget, known)
        xp, dim = array_module(mean), len(mean)
        alike = bool((spread == spread[0]).all())
        memory = self.memory or 4 + int(3 * math.log(dim))
        return LMMAESState(
            frame=frame,
            step=0,
            nfev=0,
            mean=mean,
            spread=float(spread[0]) if alike else spread,
            sigma=1.0,
            path=xp.zeros_like(mean),
            memory=frame.work.asarray(np.zeros((memory, dim), frame.work.dtype)),
            gram=np.zeros((memory, memory)),
        )

    def ask(self, state: LMMAESState) -> Stretched:  # type: ignore[override]
        """Return the step's candidates; fewer where the budget ends."""
        count = self._count(state)
        return Stretched(state, self._noise(state, count), self._transformation(state), self.boundary)

    def finished(self, state: LMMAESState) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        largest = state.spread if isinstance(state.spread, float) else float(state.spread.max())
        return super().finished(state) or converged(state, lambda: self._spread(state), largest, self.tolx)

    def diagnostics(self, state: LMMAESState) -> dict[str, Any]:
        """Return sigma, and by what the direction that is stretched most is stretched."""
        return {"sigma": state.sigma, "stretch": longest(self._transformation(state), state.gram)}

    def _spread(self, state: LMMAESState) -> Array:
        """Return first deviations times sigma and the longest stretch: no coordinate's is larger."""
        far = state.sigma * longest(self._transformation(state), state.gram)
        spread = state.spread
        return (
            state.frame.work.asarray(np.array([spread])) * far if isinstance(spread, float) else spread * far
        )

    def _constants(self, state: LMMAESState) -> Constants:
        dim = len(state.mean)
        return constants(dim, self._size(dim), len(state.memory))

    def _transformation(self, state: LMMAESState) -> Transformation:
        """Return how the step's noise becomes candidates."""
        active = min(state.step, len(state.memory))
        return transformation(state.gram[:active, :active], self._constants(state).stretches[:active])

    def _learn(self, state: LMMAESState, values: Vector, step: int, nfev: int) -> LMMAESState:
        c, dim = self._constants(state), len(state.mean)
        order = values.argsort(kind="stable")[: np.count_nonzero(values == values)]
        weights = np.zeros(len(values))
        weights[order] = c.weights[: len(order)]
        z, _ = moments(self._noise(state, len(values)), weights, None)
        step_mean = self._transformation(state).applied(z[None] + 0, state.memory)[0]
        step_mean *= state.sigma
        step_mean *= state.spread
        step_mean += state.mean

        path = (1 - c.path_sigma) * state.path
        path += math.sqrt(c.mass * c.path_sigma * (2 - c.path_sigma)) * z
        length = float(path @ path) / dim
        change = min(1.0, c.path_sigma / 2 * (length - 1))
        memory = renewed(state.memory, c.rates, c.mass, z)
        gram = np.asarray(to_numpy(memory @ memory.T), np.float64)
        if not transformation(gram, c.stretches).change(gram) < 1 / state.frame.work.epsilon:
            memory, gram = array_module(memory).zeros_like(memory), np.zeros_like(gram)
        return LMMAESState(
            frame=state.frame,
            step=step,
            nfev=nfev,
            mean=step_mean,
            spread=state.spread,
            sigma=min(max(state.sigma * math.exp(change), _LIMITS[0]), _LIMITS[1]),
            path=path,
            memory=memory,
            gram=gram,
        )

    def _fail(self, state: LMMAESState, step: int, nfev: int) -> LMMAESState:
        return replace(state, step=step, nfev=nfev, sigma=max(0.9 * state.sigma, _LIMITS[0]))


class Transformation(NamedTuple):
    """The linear map a (I + M' T M), where the rows of M are some vectors.

    Attributes:
        mixing: T, shape (k, k), lower triangular.
        shrink: a.
    """

    mixing: Vector
    shrink: float

    def applied(self, z: Array, memory: Array) -> Array:
        """Return the rows of `z` transformed, in its place.

        Args:
            z: Shape (n, dim), to be overwritten.
            memory: At least k vectors, of which the first k are used, shape (..., dim).
        """
        if not len(self.mixing):
            return z
        vectors = memory[: len(self.mixing)]
        along = z @ vectors.T @ Like.of(memory).asarray(self.mixing.T)
        if is_torch(z):
            return z.addmm_(along, vectors, beta=self.shrink, alpha=self.shrink)
        multiply = dgemm if z.dtype == np.float64 else sgemm
        # BLAS sees the transposes, and z is where its result goes.
        turned = multiply(self.shrink, vectors.T, along.T, self.shrink, z.T, overwrite_c=1)
        return turned.T

    def change(self, gram: Vector) -> float:
        """Return the root of the sum of squares of M' T M; NaN or infinite if numbers do not reach so far.

        Args:
            gram: m_j' m_k, at least that of the first k, shape (..., ...).
        """
        t, gram = self.mixing, gram[: len(self.mixing), : len(self.mixing)]
        with np.errstate(over="ignore", invalid="ignore"):
            square = float(((t @ gram @ t.T) * gram).sum())
        return math.sqrt(square) if square > 0 else square  # below 0 by rounding alone


def transformation(gram: Vector, stretches: Vector) -> Transformation:
    """Return the product of all (1 - c_j) I + c_j m_j m_j', the first one to the right.

    It is prod (1 - c_j) times that of I + s_j m_j m_j' with s_j = c_j / (1 - c_j), which is I + M' T M
    for the inverse T of diag(1 / s) - L, L being the products m_j' m_k below the diagonal.

    Args:
        gram: m_j' m_k, shape (k, k).
        stretches: c_j, above 0 and below 1, shape (k,).

    Example:
        >>> m = np.array([[3.0, 0.0], [1.0, 2.0]])
        >>> c = np.array([0.5, 0.25])
        >>> found = transformation(m @ m.T, c)
        >>> first, second = (np.eye(2) * (1 - cj) + cj * np.outer(mj, mj) for cj, mj in zip(c, m))
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> bool(np.allclose(found.applied(z, m), (second @ first).T))
        True
    """
    if not len(stretches):
        return Transformation(np.zeros((0, 0)), 1.0)
    below = np.diag((1 - stretches) / stretches) - np.tril(gram, -1)
    mixing, _ = dtrtri(below, lower=1)
    return Transformation(np.tril(mixing), float(np.prod(1 - stretches)))


def longest(turn: Transformation, gram: Vector) -> float:
    """Return the length of the longest image of a vector of length 1, NaN if numbers do not reach so far."""
    t = turn.mixing
    if not len(t):
        return turn.shrink
    gram = gram[: len(t), : len(t)]
    # A A' / a^2 - I = M' (T + T' + T G T') M has the eigenvalues of (T + T' + T G T') G, and 0.
    with np.errstate(over="ignore", invalid="ignore"):
        product = (t + t.T + t @ gram @ t.T) @ gram
    if not np.isfinite(product).all():
        return math.nan
    return turn.shrink * math.sqrt(max(1.0, 1 + float(np.linalg.eigvals(product).real.max())))


def renewed(memory: Array, rates: Vector, mass: float, z: Array) -> Array:
    """Return (1 - c_j) m_j + sqrt(mass c_j (2 - c_j)) z for each of the vectors."""
    keep, gain = 1 - rates, np.sqrt(mass * rates * (2 - rates))
    if len(z) <= _BY_ROW or Like.of(z).device != "cpu":
        like = Like.of(memory)
        new = memory * like.asarray(keep)[:, None]
        new += like.asarray(gain)[:, None] * z
        return new
    new = array_module(memory).empty_like(memory)
    for j in range(len(memory)):
        row = new[j]
        array_module(memory).multiply(memory[j], float(keep[j]), out=row)
        row += float(gain[j]) * z
    return new


class Stretched(Candidates):
    """Points mean + sigma spread d_i; with bounds, what the boundary map makes of them.

    Args:
        state: The state that asks.
        source: Where the noise comes from.
        turn: Makes d_i of it.
        boundary: See `Bounds.map`.
    """

    __slots__ = ("boundary", "bounds", "like", "mean", "memory", "sigma", "source", "spread", "turn")

    def __init__(self, state: LMMAESState, source: Noise, turn: Transformation, boundary: str) -> None:
        self.mean, self.spread, self.sigma = state.mean, state.spread, state.sigma
        self.memory, self.turn, self.source = state.memory, turn, source
        self.bounds, self.like, self.boundary = state.frame.bounds, state.frame.like, boundary

    @property
    def dim(self) -> int:
        return self.source.dim

    def __len__(self) -> int:
        return self.source.count

    def rows(self, start: int, stop: int) -> Array:
        height = max(8, _BLOCK // self.dim)
        parts = []
        for first in range(start // height * height, stop, height):
            block = self._block(first, min(first + height, len(self)))
            parts.append(block[max(0, start - first) : stop - first])
        d = array_module(self.mean).concatenate(parts) if len(parts) > 1 else parts[0]
        points = d * (self.spread * self.sigma)
        points += self.mean
        return place(points, self.source.like, self.bounds, self.boundary, self.like)

    def _block(self, start: int, stop: int) -> Array:
        """Return some d_i, always the same ones together: a product of fewer rows may round differently."""
        global _last
        last = _last
        if last is not None and last[2] == start and last[1] is self.memory and last[0] == self.source:
            return last[3]
        if self.source.is_held:
            z = self.source.held()[start:stop] + 0
        else:
            shape = stop - start, self.dim
            z = self.mean.new_empty(shape) if is_torch(self.mean) else np.empty(shape, self.mean.dtype)
            for rows, columns, part in self.source.blocks(start, stop):
                z[rows, columns] = part
        block = self.turn.applied(z, self.memory)
        _last = (self.source, self.memory, start, block)
        return block
