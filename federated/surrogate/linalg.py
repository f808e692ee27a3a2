"""Factorizations of small symmetric matrices, for numpy by LAPACK and for torch where its tensors are.

Factors are lower triangles L in C order. LAPACK, which wants columns, sees the upper triangle of L^T in the
same memory, so nothing is copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import Array, array_module, is_torch

_MOST_RUNS = 20


def cholesky(matrix: Array) -> Array | None:
    """Return L with L L^T = `matrix`, or None where that is not positive definite.

    Args:
        matrix: Symmetric, shape (n, n), C order, float64; it may be overwritten.
    """
    if is_torch(matrix):
        factor, info = array_module(matrix).linalg.cholesky_ex(matrix)
        return None if int(info) else factor
    upper, info = _lapack().dpotrf(matrix.T, lower=0, clean=1, overwrite_a=1)
    return None if info else upper.T


def solve(factor: Array, right: Array) -> Array:
    """Return (L L^T)^-1 `right` for a vector, shape (n,), or a matrix, shape (n, k)."""
    if is_torch(factor):
        column = right if right.ndim == 2 else right[:, None]
        found = array_module(factor).cholesky_solve(column, factor)
        return found if right.ndim == 2 else found[:, 0]
    return _lapack().dpotrs(factor.T, right, lower=0)[0]


def half_solve(factor: Array, right: Array) -> Array:
    """Return L^-1 `right` for a matrix, shape (n, k)."""
    if is_torch(factor):
        return array_module(factor).linalg.solve_triangular(factor, right, upper=False)
    return _lapack().dtrtrs(factor.T, right, lower=0, trans=1)[0]


def inverse(factor: Array) -> Array:
    """Return (L L^T)^-1."""
    if is_torch(factor):
        return array_module(factor).cholesky_inverse(factor)
    made = _lapack().dpotri(factor.T, lower=0)[0]
    made += np.triu(made, 1).T
    return made


def diagonal(matrix: Array) -> Array:
    """Return the diagonal of a matrix, a view of it."""
    return matrix.diagonal() if is_torch(matrix) else np.einsum("ii->i", matrix)


def not_negative(array: Array) -> Array:
    """Put 0 in the place of numbers below, and return the array."""
    return array.clamp_(min=0) if is_torch(array) else np.maximum(array, 0, out=array)


def part(
    matrix: np.ndarray[Any, Any], kept: np.ndarray[Any, Any], size: int | None = None
) -> np.ndarray[Any, Any]:
    """Return some rows and the same columns of a matrix, in the corner of a new one that is else empty.

    Args:
        matrix: Square.
        kept: Indices of the rows, ascending.
        size: Rows of the new matrix, None for as many as are kept.
    """
    made = np.empty((size or len(kept),) * 2)
    ends = np.flatnonzero(np.diff(kept) != 1) + 1
    if len(ends) > _MOST_RUNS:
        made[: len(kept), : len(kept)] = matrix[np.ix_(kept, kept)]
        return made
    # Slices copy several times as fast as indices do.
    runs = [(int(run[0]), len(run)) for run in np.split(kept, ends) if len(run)]
    row = 0
    for start, height in runs:
        column = 0
        for first, width in runs:
            into = made[row : row + height, column : column + width]
            into[...] = matrix[start : start + height, first : first + width]
            column += width
        row += height
    return made


def remove(factor: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the factor of the matrix without some of its rows and columns.

    L without these rows is [C, V] up to the order of its columns, C square and still lower triangular, and
    C C^T + V V^T is wanted: the triangle of a QR decomposition of C^T on top of V^T, which costs 2 n^2
    operations for each row that goes. Rows ahead of the first of them stay as they are.

    Args:
        factor: L, shape (n, n).
        kept: Indices of the rows that stay, ascending, shape (m,).
    """
    made = part(factor, kept)
    gone = np.setdiff1d(np.arange(len(factor)), kept, assume_unique=True)
    same = int(gone[0]) if len(gone) else len(kept)
    if same == len(kept):
        return made
    same = same if same > len(kept) // 4 else 0  # few rows are not worth a copy of all others
    below = factor[kept[same:]][:, gone].T
    corner = np.ascontiguousarray(made[same:, same:])
    upper, _, _, _ = _lapack().dtpqrt(0, min(16, len(corner)), corner.T, below, overwrite_a=1)
    upper *= np.where(np.einsum("ii->i", upper) < 0, -1.0, 1.0)[:, None]
    if not same:
        return upper.T
    made[same:, same:] = upper.T
    return made


def append(
    factor: np.ndarray[Any, Any], cross: np.ndarray[Any, Any], corner: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any] | None:
    """Return the factor of the matrix with rows and columns added at its end, or None as `cholesky` does.

    Args:
        factor: L, shape (n, n).
        cross: New columns in old rows, shape (n, k).
        corner: New columns in new rows, shape (k, k).
    """
    old, new = cross.shape
    half = half_solve(factor, cross) if old else cross
    last = cholesky(np.ascontiguousarray(corner - half.T @ half))
    if last is None:
        return None
    made = np.zeros((old + new, old + new))
    made[:old, :old] = factor
    made[old:, :old] = half.T
    made[old:, old:] = last
    return made


def _lapack() -> Any:
    from scipy.linalg import lapack

    return lapack
