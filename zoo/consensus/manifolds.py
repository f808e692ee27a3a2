"""Surfaces for particles to live on: the nearest point of one, and what of a vector is tangent to it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from zoo.core.device import Array, array_module, to_numpy


class Manifold(Protocol):
    """A surface in the space of the variables.

    A step along the surface is x' = nearest(x + t) with t tangent at x. Then

        nearest(x + t) = x + t - x |t|^2 / (2 radius^2) + O(|t|^3)     on a sphere,
        nearest(X + Z) = X + Z - X Z^T Z / 2 + O(|Z|^3)                 among orthonormal matrices,

    the second terms of the geodesics that leave along t and Z. With t random, their means are the terms
    normal to the surface that Ito's formula wants of a diffusion that stays on it: with t of covariance
    s^2 dt in every tangent direction, (dim - 1) s^2 dt / (2 radius^2) x, and (2 n - k - 1) s^2 dt / 4 X. So
    nothing has to be subtracted for them.
    """

    def nearest(self, x: Array) -> Array:
        """Return the points of the surface nearest to some points, shape (..., dim)."""
        ...

    def tangent(self, x: Array, v: Array) -> Array:
        """Return the tangent parts, at points x of the surface, of vectors v of the same shape."""
        ...

    def turn(self, x: Array, squares: Array) -> Array:
        """Return the tangent drift of noise whose variance differs from coordinate to coordinate.

        Noise tangent(x, D o dB), in the sense of Stratonovich with D held still, is noise in that of Ito and
        a drift: one part of it is normal, the other one is tangent(x, turn(x, D^2)).

        Args:
            x: Points of the surface.
            squares: D^2, of the same shape.
        """
        ...

    def __contains__(self, x: Array) -> bool:
        """Whether a point, shape (dim,), is on the surface, but for a few roundings."""
        ...


class Sphere(Manifold):
    """All x with |x| = radius.

        nearest(x) = radius x / |x|,    tangent(x, v) = v - x (x . v) / radius^2

    The nearest point to the centre is taken to be (radius, 0, ..., 0).

    Example:
        >>> Sphere(2.0).nearest(np.array([[3.0, 0.0], [0.0, 0.0]])).tolist()
        [[2.0, 0.0], [2.0, 0.0]]
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def nearest(self, x: Array) -> Array:
        xp = array_module(x)
        # By the largest entry first: squares of what is far out or close by are no numbers.
        largest = xp.amax(abs(x), -1)[..., None]
        x = x / xp.where(largest > 0, largest, 1.0)
        pole = xp.zeros_like(x)
        pole[..., 0] = 1.0
        x = xp.where(largest > 0, x, pole)
        x = x / xp.sqrt((x * x).sum(-1))[..., None]
        return self.radius * x

    def tangent(self, x: Array, v: Array) -> Array:
        return v - x * ((x * v).sum(-1)[..., None] / self.radius**2)

    def turn(self, x: Array, squares: Array) -> Array:
        return squares * x / (-2 * self.radius**2)

    def __contains__(self, x: Array) -> bool:
        with np.errstate(over="ignore"):
            return abs(float((to_numpy(x) ** 2).sum()) / self.radius**2 - 1) < 1e-14 * len(x)


class Stiefel(Manifold):
    """All X of shape (n, k) with orthonormal columns, X^T X = I, as vectors of length n k, row after row.

        nearest(X) = U V^T of the singular value decomposition X = U S V^T,
        tangent(X, Z) = Z - X (X^T Z + Z^T X) / 2

    Args:
        num_columns: k.

    Example:
        >>> orthonormal = Stiefel(2).nearest(np.array([[2.0, 0.0, 0.0, 3.0, 0.0, 0.0]]))
        >>> abs(orthonormal).round(12).tolist()
        [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, num_columns: int) -> None:
        self.num_columns = num_columns

    def _matrices(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.num_columns, self.num_columns)

    def nearest(self, x: Array) -> Array:
        left, _, right = array_module(x).linalg.svd(self._matrices(x), full_matrices=False)
        return (left @ right).reshape(x.shape)

    def tangent(self, x: Array, v: Array) -> Array:
        matrix, vectors = self._matrices(x), self._matrices(v)
        product = matrix.swapaxes(-1, -2) @ vectors
        return (vectors - matrix @ (product + product.swapaxes(-1, -2)) / 2).reshape(x.shape)

    def turn(self, x: Array, squares: Array) -> Array:
        # The derivative of the projection: -(sum over entries ab of D_ab^2 E_ab sym(X^T E_ab)) / 2.
        rows = self._matrices(squares).sum(-1)[..., None]
        return (squares * x + (rows * self._matrices(x)).reshape(x.shape)) / -4

    def __contains__(self, x: Array) -> bool:
        matrix = self._matrices(to_numpy(x))
        return bool((abs(matrix.T @ matrix - np.eye(self.num_columns)) < 1e-14 * len(x)).all())
