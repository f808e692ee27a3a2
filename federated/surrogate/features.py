"""Random Fourier features: a function of many points, sent as one vector of fixed length."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.surrogate import linalg
from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag, check_number, check_positive

_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)
_CACHED = 2**28  # bytes of frequencies that are kept; more are drawn anew, block by block
_BLOCK = 2**22  # numbers of a block of frequencies
_NUMBERS = 2**20  # numbers of a block of features
_ORDER = 64  # of the Hadamard matrices that others are products of
_TALLEST = 512  # rows made orthogonal to each other, at most: their number squared is what it costs


@dataclass(frozen=True)
class FourierFeatures:
    """Features phi of which phi(x)^T phi(x') is, on average, the squared exponential kernel.

        phi_m(x) = sqrt(2 / M) cos(W_m^T x + b_m),  W_m ~ N(0, I / l^2),  b_m ~ U[0, 2 pi)

    All who have the same key have the same features, and so a vector w of M numbers says a function of x,
    phi(x)^T w. Of points X with values y, scaled to t as in `GaussianProcess`, and Phi of rows phi(x_a),

        w = s Phi^T (Phi Phi^T + noise I)^-1 t
        grad = -sqrt(2 / M) W [sin(W^T x + b) o w]

    Both are linear: weights of functions that are averaged are averaged, and the gradient of the difference
    of two functions is the gradient of the difference of their weights, at the cost of one. That error
    falls as M^(-1/2).

    W is drawn from the key by blocks, and the last one is kept where it takes at most 256 MB, so memory is
    bounded whatever M and dim are; a larger one is drawn again at each use, which takes about 15 seconds for
    a thousand million numbers. Structured ones are never written out: with Hadamard matrices H, H H^T = I,
    of D rows, the next power of two of dim, and diagonal matrices S of random signs, D features are

        W = sqrt(D) / l  H S_1 H S_2 H S_3

    of which the first dim columns are used, and M log D operations multiply by them. Their rows are all as
    long as drawn ones are on average, so they are for dimensions of a few dozens and more.

    Args:
        key: Of the features, the same for all who are to share them.
        dim: Length of a point.
        count: How many features, M.
        length_scale: Length l of the kernel.
        orthogonal: Whether the rows of W are made orthogonal by blocks of `dim` rows, at most 512, with the
            lengths they had: the kernel's error is then about half at the same M.
        structured: Whether W is structured, for dimensions in which a drawn one is not kept. Its rows are
            orthogonal.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> features = FourierFeatures(key=Key(0), dim=2, count=2000)
        >>> x = Key(1).uniform(0, 50, 2)
        >>> w = features.fit(x, (x**2).sum(1))
        >>> features.gradient(w, np.array([0.5, 0.25])).round(1).tolist()
        [1.0, 0.5]

    References:
        Rahimi and Recht, "Random features for large-scale kernel machines", 2007.
        https://papers.nips.cc/paper/3182-random-features-for-large-scale-kernel-machines
        Yu, Suresh, Choromanski, Holtmann-Rice and Kumar, "Orthogonal random features", 2016.
        https://arxiv.org/abs/1610.09072 (orthogonal and structured ones)
    """

    key: Key
    dim: int
    count: int = 10_000
    length_scale: float = 1.0
    orthogonal: bool = False
    structured: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.key, Key):
            raise TypeError(f"`key` must be a Key, got {self.key!r}.")
        check_count("dim", self.dim)
        check_count("count", self.count)
        check_positive("length_scale", self.length_scale)
        check_flag("orthogonal", self.orthogonal)
        check_flag("structured", self.structured)

    def at(self, points: Array) -> Array:
        """Return the features of some points in float64, shape (m, count)."""
        like = _double(points)
        phases, made = _phases(self, like), _zeros((len(points), self.count), like)
        for part, angles, _ in self._products(like.asarray(points), like):
            angles += phases[part]
            array_module(angles).cos(angles, out=angles)
            angles *= math.sqrt(2 / self.count)
            made[:, part] = angles
        return made

    def fit(self, points: Array, values: Any, noise: float = 1e-6) -> Array:
        """Return the weights w of points and their values, in float64; see `solve`."""
        return self.solve(points, values, noise).weights

    def solve(self, points: Array, values: Any, noise: float = 1e-6) -> FeatureFit:
        """Return the function of some points and their values.

        Args:
            points: Shape (n, dim), n of at least 1.
            values: Shape (n,), finite.
            noise: Variance of the noise of scaled values, at least 0. Raised to 1e-6, 1e-5, 1e-4 or 1e-3
                where there is no factor of the matrix.

        Raises:
            TypeError: `noise` is no number.
            ValueError: It is negative, or shapes do not fit.
        """
        if not 0 <= check_number("noise", noise) < math.inf:
            raise ValueError(f"`noise` must be a finite number of at least 0, got {noise!r}.")
        given = np.asarray(to_numpy(values), np.float64)
        if points.ndim != 2 or points.shape[1] != self.dim or given.shape != (len(points),) or not len(given):
            raise ValueError(
                f"`points` must have the shape (n, {self.dim}) and `values` (n,), n of at least 1, "
                f"got {tuple(points.shape)} and {given.shape}."
            )
        return FeatureFit(self, self.at(points), given, float(noise))

    def value(self, weights: Array, x: Array) -> Array:
        """Return phi(x)^T w at one point, shape (dim,), or at many, shape (m, dim)."""
        found = self.at(x if x.ndim == 2 else x[None]) @ weights
        return _as(found if x.ndim == 2 else found[0], x)

    def gradient(self, weights: Array, x: Array) -> Array:
        """Return the gradient of phi(x)^T w at one point.

        Args:
            weights: w, shape (count,), or the difference of two.
            x: Shape (dim,).

        Returns:
            Shape (dim,), of the dtype of x.
        """
        like = _double(x)
        phases, made = _phases(self, like), _zeros((self.dim,), like)
        for part, angles, back in self._products(like.asarray(x)[None], like):
            angles += phases[part]
            made += back(array_module(angles).sin(angles[0]) * weights[part])
        made *= -math.sqrt(2 / self.count)
        return _as(made, x)

    def _products(self, points: Array, like: Like) -> Iterator[tuple[slice, Array, Callable[[Array], Array]]]:
        """Yield products of some points with W by blocks of its rows.

        With each comes which rows these are, and the function that multiplies numbers by them from the left.
        """
        if self.structured:
            yield from self._structured(points, like)
            return
        width = max(64, _NUMBERS // max(1, len(points)))
        for part, rows in self._rows(like):
            for start in range(0, len(rows), width):
                some = rows[start : start + width]
                place = slice(part.start + start, part.start + start + len(some))
                yield place, points @ some.T, some.T.__matmul__

    def _structured(
        self, points: Array, like: Like
    ) -> Iterator[tuple[slice, Array, Callable[[Array], Array]]]:
        size = 1 << (self.dim - 1).bit_length()
        scale, at_once = math.sqrt(size) / self.length_scale, max(1, _BLOCK // size)
        for number, start in enumerate(range(0, self.count, size)):
            part = slice(start, min(start + size, self.count))
            signs = self.key.fold("signs", number).rademacher(0, 3, size, like=like)
            made = _zeros((len(points), part.stop - start), like)
            for first in range(0, len(points), at_once):
                some = points[first : first + at_once]
                padded = _zeros((len(some), size), like)
                padded[:, : self.dim] = some
                for sign in signs:
                    padded *= sign
                    padded = _hadamard(padded, like)
                made[first : first + at_once] = padded[:, : part.stop - start]
            made *= scale
            yield part, made, functools.partial(self._back, signs, like, scale)

    def _back(self, signs: Array, like: Like, scale: float, weights: Array) -> Array:
        """Return the product of a block's transpose with some numbers."""
        padded = _zeros((1, signs.shape[1]), like)
        padded[0, : len(weights)] = weights
        for number in (2, 1, 0):
            padded = _hadamard(padded, like)
            padded *= signs[number]
        return padded[0, : self.dim] * scale

    def _rows(self, like: Like) -> Iterator[tuple[slice, Array]]:
        """Yield blocks of W: which rows they are, and the rows, in float64."""
        if 8 * self.count * self.dim <= _CACHED:
            yield slice(0, self.count), _kept(self, like)
        else:
            yield from self._drawn(like)

    def _drawn(self, like: Like) -> Iterator[tuple[slice, Array]]:
        key, std = self.key.fold("frequencies"), 1 / self.length_scale
        height = min(self.dim, _TALLEST) if self.orthogonal else max(1, _BLOCK // self.dim)
        for start in range(0, self.count, height):
            stop = min(start + height, self.count)
            rows = key.normal(start, stop, self.dim, like=like)
            if self.orthogonal:
                rows = _orthogonal(rows)
            rows *= std
            yield slice(start, stop), rows


class FeatureFit:
    """A function of random Fourier features, with the points it was made of.

    Attributes:
        weights: w, shape (count,), float64.
        scale: s, by which scaled values are to be multiplied; 0 where all values are equal.
        noise: Variance of the noise that the matrix has, for scaled values.
    """

    def __init__(
        self, features: FourierFeatures, table: Array, values: np.ndarray[Any, Any], noise: float
    ) -> None:
        self.features, self._table = features, table
        low = float(values.min())
        self.scale = float(values.max()) - low
        self.scale = self.scale if math.isfinite(self.scale) else 0.0
        target = (values - low) / self.scale if self.scale > 0 else np.zeros(len(values))
        matrix = table @ table.T
        for self.noise in (noise, *(jitter for jitter in _JITTERS if jitter > noise)):
            noisy = matrix.clone() if is_torch(matrix) else matrix.copy()
            linalg.diagonal(noisy)[...] += self.noise
            factor = linalg.cholesky(noisy)
            if factor is not None:
                break
        else:
            raise FloatingPointError(f"no factor of the features of {len(values)} points.")
        self._factor = factor
        solved = linalg.solve(factor, table.new_tensor(target) if is_torch(table) else target)
        self.weights = (solved * self.scale) @ table

    def uncertainty(self, x: Array, probes: int = 8) -> Array:
        """Return an estimate of the trace of the posterior covariance of all derivatives at one point.

        It is that of w ~ N(0, I) given the scaled values; times the square of `scale`, that of the values:

            sum_m s_m^2 |W_m|^2 - sum_u |L^-1 Phi (s o W^T u)|^2 / probes,  s = sqrt(2 / M) sin(W^T x + b)

        with random signs u, which belong to the features. Its relative standard deviation is about
        sqrt(2 / (probes dim)) of the second term; `probes` times count times n operations.

        Args:
            x: Shape (dim,).
            probes: How many u.
        """
        like = _double(x)
        signs, squares = _probed(self.features, like, check_count("probes", probes))
        sines = _zeros((self.features.count,), like)
        for part, angles, _ in self.features._products(like.asarray(x)[None], like):
            sines[part] = angles[0]
        sines += _phases(self.features, like)
        sines = array_module(sines).sin(sines)
        half = linalg.half_solve(self._factor, self._table @ (signs * sines[:, None]))
        left = (sines * sines) @ squares - (half * half).sum() / probes
        return _as((left * (2 / self.features.count)).clip(0, None), x)


def _orthogonal(rows: Array) -> Array:
    """Return rows of the same lengths, orthogonal to each other.

    Their signs are not those of draws, which nobody sees: the kernel is even in each of them.
    """
    lengths = (rows * rows).sum(1) ** 0.5
    basis, _ = array_module(rows).linalg.qr(rows.T)
    return (basis * lengths).T


def _double(array: Array) -> Like:
    """Return the kind of an array, in float64."""
    like = Like.of(array)
    return Like(like.kind, "float64", like.device)


def _as(found: Array, like: Array) -> Array:
    return found.to(like.dtype) if is_torch(like) else found.astype(like.dtype, copy=False)


def _zeros(shape: tuple[int, ...], like: Like) -> Array:
    if like.kind == "numpy":
        return np.zeros(shape)
    import torch

    return torch.zeros(shape, dtype=like.torch_dtype, device=like.device)


@functools.lru_cache(maxsize=1)
def _kept(features: FourierFeatures, like: Like) -> Array:
    """Return W whole."""
    made = _zeros((features.count, features.dim), like)
    for part, rows in features._drawn(like):
        made[part] = rows
    return made


@functools.lru_cache(maxsize=4)
def _phases(features: FourierFeatures, like: Like) -> Array:
    made = features.key.fold("phases").uniform(0, 1, features.count, like=like)[0]
    return made * (2 * math.pi)


@functools.lru_cache(maxsize=2)
def _probed(features: FourierFeatures, like: Like, probes: int) -> tuple[Array, Array]:
    """Return W^T u for some random signs u, shape (count, probes), and |W_m|^2, shape (count,)."""
    signs = features.key.fold("probes").rademacher(0, probes, features.dim, like=like)
    made, squares = _zeros((features.count, probes), like), _zeros((features.count,), like)
    for part, products, _ in features._products(signs, like):
        made[part] = products.T
    if features.structured:
        squares += features.dim / features.length_scale**2  # of the whole rows it is exact
    else:
        for part, rows in features._rows(like):
            squares[part] = (rows * rows).sum(1)
    return made, squares


def _hadamard(rows: Array, like: Like) -> Array:
    """Return rows times the orthonormal Hadamard matrix of their length, a power of two."""
    size, done = rows.shape[1], 1
    while done < size:
        order = min(_ORDER, size // done)
        small = _small_hadamard(order, like)
        rows = (small @ rows.reshape(-1, order, done)).reshape(-1, size)
        done *= order
    return rows


@functools.lru_cache(maxsize=32)
def _small_hadamard(order: int, like: Like) -> Array:
    made = np.ones((1, 1))
    while len(made) < order:
        made = np.block([[made, made], [made, -made]])
    return like.asarray(made / math.sqrt(order))
