"""The derived Gaussian process: gradients of a function from its values along a trajectory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.surrogate import linalg
from federated.surrogate.kernels import KERNELS, Kernel, kernel
from federated.surrogate.window import Window
from zoo.core.device import Array, array_module, is_torch
from zoo.core.state import state
from zoo.core.validation import check_choice, check_count, check_number, check_positive

MEANS = ("zero", "fitted")
"""Names that `mean` knows."""

VARIANCES = ("unit", "fitted")
"""Names that `variance` knows."""

_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)
_BLOCK = 2**17  # numbers of the points worked on at once: a megabyte, which the cache of a processor holds
_KEPT = 2**21  # numbers of the points, at most, that a fit keeps a copy of, centred
_WIDE = (-4, 0, 4, 8, 12, 16, 20)  # half powers of two around the distance of points: 1/4 to 1024 times it
_NOISES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_ENOUGH = 20  # points for their noise to be fitted: of fewer, a slope may be taken for it
_LEAST = 1e-24  # variance of scaled values, where rounding leaves nothing of it
_SMALL = 100  # points, up to which the length scale is adjusted at every fit


@state
class Memory:
    """What fits of one client pass on to each other.

    Attributes:
        step: Length scale, as a half power of two; None before it was ever fitted.
        noise: Variance of the noise of scaled values, where it is fitted.
        fits: How many fits there were since lengths of all sizes were compared.
        points: How many points there were then.
    """

    step: int | None = None
    noise: float = 1e-6
    fits: int = 0
    points: int = 0


@dataclass(frozen=True)
class GaussianProcess:
    """A Gaussian process of a function, and so one of its gradient.

    Of the points X, n of them, with values y, scaled to t = (y - min y) / s with s = max y - min y, and a
    kernel k of length l, it is

        K = k(X, X) + noise I,  alpha = K^-1 (t - m)
        mu(x) = min y + s (m + sum_a alpha_a k(x, x_a))
        grad mu(x) = -s sum_a alpha_a c_a (x - x_a)

    with c of `Kernel` and a prior mean m: n dim operations, and no differences of values. How sure it is of
    the gradient, the trace of the posterior covariance of all derivatives, is for scaled values

        dim c(0) - sum_ab c_a c_b (K^-1)_ab (x - x_a)^T (x - x_b)

    of which the inner products follow from those of the points, so that many x cost n^2 operations each.

    The length l is the half power of two of the highest marginal likelihood, and the noise one of five sizes
    where it is fitted too. All sizes are compared at the first fit, then every `search_every` fits and where
    there are half as many points again; in between, the last l with its two neighbours every `adjust_every`
    fits. When both stay and the fit before is at hand, points that came and went change its factor of K in
    place of a new one, save for torch's, where a new one is the quicker. What a fit is depends on its
    arguments alone, to the last bit, `previous` among them: those who drop it at certain steps, and not when
    they happen to be stopped, get the same bytes however often they are.

    Departures from the paper's code: the gradient is exact where theirs is by differences; a grid in place
    of 20 restarts of L-BFGS; the covariance is of the kernel the process has, of all axes, and of the points
    of the fit.

    Args:
        kernel: "matern", of smoothness 5/2, or "rbf".
        noise: Variance of the noise of scaled values, at least 0. Raised to 1e-6, 1e-5, 1e-4 or 1e-3 where
            K is not positive definite. None to fit it where there are 20 points: one of 1e-10, 1e-8, 1e-6,
            1e-4 and 1e-2.
        nearest: How many points to go by, those nearest to x.
        mean: "zero", so that m = 0, the lowest value, or "fitted", its likeliest value
            m = 1^T K^-1 t / 1^T K^-1 1, with which gradients were nearer to the true ones in our runs. The
            covariance is that for a known m.
        variance: "unit", so that the variance of scaled values is 1, or "fitted", its likeliest value
            v = (t - m)^T K^-1 (t - m) / n, by which covariances and the noise are multiplied: longer l are
            found, and gradients were nearer to the true ones.
        length_scale: Fixed length l; None to fit it.
        search_every: Fits between comparisons of all sizes of l.
        adjust_every: Fits between comparisons of neighbouring sizes; every fit compares up to 100 points.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> x = np.linspace(-1, 1, 12)[:, None]
        >>> window = Window.empty(1, capacity=100).add(x, (x**2).sum(1))
        >>> fit, memory = GaussianProcess().fit(window, np.zeros(1))
        >>> fit.gradient(np.array([0.5])).round(2).tolist()
        [1.0]

    References:
        Shu, Dai, Sng, Verma, Jaillet and Low, "Zeroth-order optimization with trajectory-informed derivative
        estimation", 2023. https://openreview.net/forum?id=n1bLgxHW6jW
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    kernel: str = "matern"
    noise: float | None = 1e-6
    nearest: int = 150
    mean: str = "zero"
    variance: str = "unit"
    length_scale: float | None = None
    search_every: int = 20
    adjust_every: int = 5

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("mean", self.mean, MEANS)
        check_choice("variance", self.variance, VARIANCES)
        if self.noise is not None and not 0 <= check_number("noise", self.noise) < math.inf:
            raise ValueError(f"`noise` must be a finite number of at least 0, got {self.noise!r}.")
        for name in ("nearest", "search_every", "adjust_every"):
            check_count(name, getattr(self, name))
        if self.length_scale is not None:
            check_positive("length_scale", self.length_scale)

    def fit(
        self, window: Window, x: Array, memory: Memory | None = None, previous: Fit | None = None
    ) -> tuple[Fit, Memory]:
        """Return the process near a point, and what the next fit wants to know of this one.

        Args:
            window: Points and values; none are needed.
            x: Where the search is, shape (dim,).
            memory: That of the fit before, None at first. It belongs to a client's state.
            previous: The fit before, of a window that this one was made from, or None, which costs time
                alone but for the last digits. It belongs to no state: drop it where a run may be resumed, as
                at the start of a round.
        """
        memory = memory or Memory()
        data = _Data(window, window.nearest(x, self.nearest), x, previous)
        low, scale = 0.0, 0.0
        if len(data):
            chosen = window.values[data.rows]
            low = float(chosen.min())
            scale = float(chosen.max()) - low
            scale = scale if math.isfinite(scale) else 0.0
        target = (window.values[data.rows] - low) / scale if scale > 0 else np.zeros(len(data))
        search = _Search(
            kernel(self.kernel),
            data,
            data.on_device(target),
            self.mean == "fitted",
            self.variance == "fitted" and scale > 0,
        )
        memory = self._searched(search, memory, scale)
        length = 2 ** ((memory.step or 0) / 2) if self.length_scale is None else self.length_scale
        noise = memory.noise if self.noise is None else self.noise
        return Fit(search, search.at(length, noise, previous), low, scale), memory

    def _searched(self, search: _Search, memory: Memory, scale: float) -> Memory:
        """Return the memory with length and noise as they are for the data of this fit."""
        count, step = len(search.data), memory.step
        if count < 2 or scale <= 0:  # nothing is known of them
            return memory
        if self.length_scale is not None and self.noise is not None:
            return memory
        noise = memory.noise if self.noise is None else self.noise
        if (
            step is None
            or memory.fits >= self.search_every
            or (count >= 1.5 * memory.points and memory.points < count)
        ):
            steps = [round(2 * math.log2(search.data.distance)) + offset for offset in _WIDE]
            step = self._step(search, steps, noise)
            if self.noise is None and count >= _ENOUGH:
                noise = search.best([(self._length(step), noise) for noise in _NOISES])[1]
                step = self._step(search, [step, step - 4, step + 4], noise)
            step = self._step(search, [step, step - 2, step + 2], noise)
            step = self._step(search, [step, step - 1, step + 1], noise)
            return Memory(step, noise, 1, count)
        if count <= _SMALL or memory.fits % self.adjust_every == 0:
            step = self._step(search, [step, step - 1, step + 1], noise)
        return Memory(step, noise, memory.fits + 1, memory.points)

    def _length(self, step: int) -> float:
        return 2 ** (step / 2) if self.length_scale is None else self.length_scale

    def _step(self, search: _Search, steps: list[int], noise: float) -> int:
        """Return which of some half powers of two is the likeliest length, of equal ones the first."""
        if self.length_scale is not None:
            return steps[0]
        length = search.best([(2 ** (step / 2), noise) for step in steps])[0]
        return next(step for step in steps if 2 ** (step / 2) == length)


class Fit:
    """A Gaussian process with its data; see `GaussianProcess`.

    Attributes:
        length_scale: The kernel's length l.
        prior: Trace of the prior covariance of all derivatives, for scaled values.
        span: s, 0 where all values are equal.
        scale: s, or s sqrt(v), by which scaled values are to be multiplied; 0 where all values are equal.
        noise: Variance of the noise that K has, for scaled values.
        likelihood: Logarithm of the marginal likelihood of the scaled values.
    """

    def __init__(self, search: _Search, solved: _Solved, low: float, scale: float) -> None:
        self._kernel, self._data, self._factor = search.kernel, search.data, solved.factor
        self._alpha, self._low = solved.alpha / solved.spread, low + scale * solved.mean
        self._inverse: Array | None = None
        self._paired: Array | None = None
        self.length_scale, self.noise, self.likelihood = solved.length, solved.noise, solved.likelihood
        self.span, self.scale = scale, scale * float(solved.spread)
        self.prior = self._data.window.dim * self._kernel.prior(self.length_scale)

    def __len__(self) -> int:
        return len(self._data)

    def value(self, x: Array) -> Array:
        """Return mu(x) for one point, shape (dim,), or for many, shape (m, dim)."""
        many = x if x.ndim == 2 else x[None]
        found = self._data.zeros(len(many))
        if len(self):
            square, _, _ = self._data.to(many)
            found = self._kernel.value(square, self.length_scale) @ self._alpha * self.scale
        return self._as(found + self._low if x.ndim == 2 else found[0] + self._low, x)

    def gradient(self, x: Array) -> Array:
        """Return the gradient of mu at one point, shape (dim,), or at many, shape (m, dim)."""
        many = x if x.ndim == 2 else x[None]
        if not len(self):
            return array_module(x).zeros_like(x)
        square, _, _ = self._data.to(many)
        weights = self._kernel.slope(square, self.length_scale) * self._alpha
        # Last, as it may be near the largest number.
        found = self._as(self._data.weighted(weights, many) * self.scale, x)
        return found if x.ndim == 2 else found[0]

    def uncertainty(self, points: Array) -> Array:
        """Return the trace of the posterior covariance of all derivatives, for scaled values, of many points.

        Times `scale`^2 it is that of the values. It lies between 0 and `prior`.

        Args:
            points: Shape (m, dim).

        Returns:
            Shape (m,).
        """
        if not len(self):
            return self._as(self._data.zeros(len(points)) + self.prior, points)
        if self._inverse is None or self._paired is None:
            self._inverse = linalg.inverse(self._factor)
            self._paired = self._inverse * self._data.gram
        square, inner, norms = self._data.to(points)
        slopes = self._kernel.slope(square, self.length_scale)
        through = slopes @ self._inverse
        removed = norms * (slopes * through).sum(1)
        inner *= slopes
        inner *= through
        removed -= 2 * inner.sum(1)
        through = slopes @ self._paired
        through *= slopes
        removed += through.sum(1)
        return self._as((self.prior - removed).clip(0, None), points)

    def _as(self, found: Array, like: Array) -> Array:
        """Return numbers in the dtype of an array, infinite where that has no room for them."""
        if is_torch(like):
            return found.to(like.dtype)
        with np.errstate(over="ignore"):
            return found.astype(like.dtype, copy=False)


class _Data:
    """Points of a fit, centred, and their inner products.

    Attributes:
        window: Where they are from.
        rows: Which of its points they are.
        serials: Their numbers.
        origin: What is subtracted from all of them, shape (dim,), float64.
        gram: Their inner products, shape (n, n).
        old: Places that those known to the fit before had there, which come first.
    """

    serials: np.ndarray[Any, Any]
    origin: Array
    gram: Array

    def __init__(self, window: Window, rows: np.ndarray[Any, Any], x: Array, previous: Fit | None) -> None:
        self.window = window
        self._torch = is_torch(x)
        self._points: Array | None = None
        before = None if previous is None or self._torch else previous._data
        if before is not None and 2 * len(before) > len(rows):
            # What stays goes first, in the order it had.
            there = window.serials[rows]
            stay = np.isin(before.serials, there, assume_unique=True)
            self.old = np.flatnonzero(stay)
            place = dict(zip(there.tolist(), rows.tolist(), strict=True))
            known = [place.pop(serial) for serial in before.serials[stay].tolist()]
            self.rows = np.array(known + list(place.values()), np.int64)
            self.origin = before.origin
            self.gram = self._grown(before.gram)
        else:
            self.rows, self.old = rows, rows[:0]
            self.origin = x.double() if self._torch else x.astype(np.float64)
            self.gram = self._products()
        self.serials = window.serials[self.rows]
        self.norms = linalg.diagonal(self.gram)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def distance(self) -> float:
        """Root of the mean squared distance of different points."""
        count = len(self)
        total = 2 * (count * float(self.norms.sum()) - float(self.gram.sum()))
        return max(math.sqrt(max(total, 0.0) / (count * (count - 1))), 1e-150)

    def squares(self) -> Array:
        """Return all squared distances."""
        made = self.gram * -2
        made += self.norms
        made += self.norms[:, None]
        return linalg.not_negative(made)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield columns and the points there, centred."""
        dim = self.window.dim
        size = max(1, _BLOCK // max(1, len(self)))
        keep = dim * len(self) <= _KEPT
        if keep:
            if self._points is None:
                self._points = self.window.columns(self.rows) - self.origin
            yield slice(0, dim), self._points
            return
        for start in range(0, dim, size):
            part = slice(start, min(start + size, dim))
            yield part, self.window.columns(self.rows, part.start, part.stop) - self.origin[part]

    def to(self, points: Array) -> tuple[Array, Array, Array]:
        """Return squared distances and inner products of some points with the data, and their norms."""
        centred = points - self.origin
        inner = self.zeros(len(points), len(self))
        for part, data in self.blocks():
            inner += centred[:, part] @ data.T
        norms = (centred * centred).sum(1)
        square = inner * -2
        square += self.norms
        square += norms[:, None]
        return linalg.not_negative(square), inner, norms

    def weighted(self, weights: Array, points: Array) -> Array:
        """Return sum_a w_a (x_a - x) for each of some points, in float64."""
        made = self.zeros(*points.shape)
        total = weights.sum(1)[:, None]
        for part, data in self.blocks():
            made[:, part] = weights @ data - total * (points[:, part] - self.origin[part])
        return made

    def zeros(self, *shape: int) -> Array:
        """Return zeros of float64 where the points are."""
        if not self._torch:
            return np.zeros(shape)
        return self.origin.new_zeros(shape)

    def on_device(self, values: np.ndarray[Any, Any]) -> Array:
        """Return numbers of the host where the points are."""
        return self.origin.new_tensor(values) if self._torch else values

    def _products(self) -> Array:
        gram = self.zeros(len(self), len(self))
        for _, data in self.blocks():
            gram += data @ data.T
        return gram

    def _grown(self, before: Array) -> Array:
        """Return the inner products of all, from those of the fit before."""
        count = len(self.old)
        if count == len(self) == len(before):
            return before
        gram = linalg.part(before, self.old, len(self))
        gram[count:] = 0
        for _, data in self.blocks():
            gram[count:] += data[count:] @ data.T
        gram[:count, count:] = gram[count:, :count].T
        return gram


@dataclass(frozen=True, slots=True)
class _Solved:
    """K of some length, factorized."""

    length: float
    noise: float
    factor: Array
    alpha: Array
    mean: Array | float
    spread: Array | float
    likelihood: float


class _Search:
    """The data of a fit, and what lengths and noise make of it."""

    def __init__(self, kernel: Kernel, data: _Data, target: Array, mean: bool, variance: bool) -> None:
        self.kernel, self.data, self.target = kernel, data, target
        self._right = target[:, None]
        self._variance = variance
        if mean:
            self._right = array_module(target).stack([target, target * 0 + 1], 1)
        self._squares: Array | None = None
        self._solved: dict[tuple[float, float], _Solved] = {}

    def best(self, pairs: list[tuple[float, float]]) -> tuple[float, float]:
        """Return which of some lengths with their noise is the likeliest, of equal ones the first."""
        new = [pair for pair in pairs if pair not in self._solved]
        if is_torch(self.target) and len(new) > 1:
            self._together(new)
        return max(pairs, key=lambda pair: self.at(*pair).likelihood)

    def at(self, length: float, noise: float, previous: Fit | None = None) -> _Solved:
        """Return K of a length, factorized, from the fit before where that is of use."""
        pair = (length, noise)
        if pair not in self._solved:
            self._solved[pair] = self._updated(length, noise, previous) or self._new(length, noise)
        return self._solved[pair]

    def _new(self, length: float, noise: float) -> _Solved:
        if not len(self.data):
            nothing = self.data.zeros(0)
            return _Solved(length, noise, self.data.zeros(0, 0), nothing, 0.0, 1.0, 0.0)
        matrix = self._matrix(length)
        for jitter in (noise, *(jitter for jitter in _JITTERS if jitter > noise)):
            noisy = matrix.clone() if is_torch(matrix) else matrix.copy()
            linalg.diagonal(noisy)[...] += jitter
            factor = linalg.cholesky(noisy)
            if factor is not None:
                return self._solve(length, jitter, factor)
        raise FloatingPointError(
            f"no factor of the kernel matrix of {len(self.data)} points with length scale {length!r}."
        )

    def _together(self, pairs: list[tuple[float, float]]) -> None:
        """Solve several on a device that is then waited for once."""
        xp = array_module(self.target)
        matrices = xp.stack([self._matrix(length) for length, _ in pairs])
        matrices.diagonal(dim1=1, dim2=2).add_(self.data.on_device(np.array(pairs)[:, 1:]))
        factors, failed = xp.linalg.cholesky_ex(matrices)
        solutions = xp.cholesky_solve(self._right.expand(len(pairs), *self._right.shape), factors)
        solved = [self._fitted(factor, solution) for factor, solution in zip(factors, solutions, strict=True)]
        likelihoods = xp.stack([likelihood for _, _, _, likelihood in solved])
        found = xp.stack([failed.double(), likelihoods]).cpu().numpy()
        for place, (length, noise) in enumerate(pairs):
            if not found[0, place]:
                alpha, mean, spread, _ = solved[place]
                level = self._level(found[1, place])
                made = _Solved(length, noise, factors[place], alpha, mean, spread, level)
                self._solved[length, noise] = made

    def _updated(self, length: float, noise: float, previous: Fit | None) -> _Solved | None:
        """Return K from that of the fit before, or None where a new one is cheaper or safer."""
        old = len(self.data.old)
        if (
            previous is None
            or previous._kernel is not self.kernel
            or previous.length_scale != length
            or previous.noise != noise
            or not old
            or 2 * old < len(self.data)
            or 4 * (len(previous) - old) > len(previous)
        ):
            return None
        factor = linalg.remove(previous._factor, self.data.old) if old < len(previous) else previous._factor
        if old < len(self.data):
            gram, norms = self.data.gram[:, old:], self.data.norms
            square = linalg.not_negative(norms[:, None] + norms[old:] - 2 * gram)
            column = self.kernel.value(square, length)
            linalg.diagonal(column[old:])[...] += noise
            factor = linalg.append(factor, column[:old], column[old:])
        if factor is None or np.einsum("ii->i", factor).min() ** 2 < 0.5 * noise:
            return None
        return self._solve(length, noise, factor)

    def _matrix(self, length: float) -> Array:
        if self._squares is None:
            self._squares = self.data.squares()
        return self.kernel.value(self._squares, length)

    def _solve(self, length: float, noise: float, factor: Array) -> _Solved:
        alpha, mean, spread, likelihood = self._fitted(factor, linalg.solve(factor, self._right))
        return _Solved(length, noise, factor, alpha, mean, spread, self._level(likelihood))

    def _fitted(self, factor: Array, solutions: Array) -> tuple[Array, Array | float, Array | float, Array]:
        """Return alpha, mean, root of the variance, and the likelihood's logarithm but for a constant."""
        target, alpha, mean = self.target, solutions[:, 0], 0.0
        if solutions.shape[1] > 1:
            mean = alpha.sum() / solutions[:, 1].sum()
            target, alpha = target - mean, alpha - mean * solutions[:, 1]
        logarithms = array_module(factor).log(linalg.diagonal(factor))
        square, count = (target * alpha).sum(), len(self.data)
        if not self._variance:
            return alpha, mean, 1.0, -0.5 * square - logarithms.sum()
        variance = (square / count).clip(_LEAST, None)
        likelihood = -0.5 * count * (1 + array_module(factor).log(variance)) - logarithms.sum()
        return alpha, mean, variance**0.5, likelihood

    def _level(self, likelihood: Array | float) -> float:
        """Return the logarithm of a likelihood with the constant that belongs to it."""
        whole = float(likelihood) - 0.5 * len(self.data) * math.log(2 * math.pi)
        return whole if math.isfinite(whole) else -math.inf
