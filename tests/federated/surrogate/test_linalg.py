"""Factors of matrices that gain and lose rows."""

import numpy as np
import pytest
import torch

from federated.surrogate import linalg
from zoo.core.rng import Key


def positive(size, key=0):
    root = Key(key).normal(0, size, 2 * size)
    return root @ root.T / size + np.eye(size)


def test_a_factor_is_a_lower_triangle_of_the_matrix():
    matrix = positive(9)
    factor = linalg.cholesky(matrix.copy())
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-14)
    assert linalg.cholesky(-matrix) is None


def test_solutions_are_those_of_the_matrix():
    matrix, right = positive(9), Key(1).normal(0, 9, 2)
    factor = linalg.cholesky(matrix.copy())
    np.testing.assert_allclose(
        linalg.solve(factor, right[:, 0]), np.linalg.solve(matrix, right[:, 0]), rtol=1e-12
    )
    np.testing.assert_allclose(factor @ linalg.half_solve(factor, right), right, rtol=1e-12)
    np.testing.assert_allclose(linalg.inverse(factor), np.linalg.inv(matrix), rtol=1e-11, atol=1e-13)


def test_torch_solves_as_numpy_does():
    matrix, right = positive(9), Key(1).normal(0, 9, 2)
    factor, other = linalg.cholesky(matrix.copy()), linalg.cholesky(torch.from_numpy(matrix))
    np.testing.assert_allclose(other.numpy(), factor, rtol=1e-13, atol=1e-15)
    for name, given in (("solve", right[:, 0]), ("half_solve", right)):
        found = getattr(linalg, name)(other, torch.from_numpy(given.copy()))
        np.testing.assert_allclose(found.numpy(), getattr(linalg, name)(factor, given), rtol=1e-12)
    np.testing.assert_allclose(linalg.inverse(other).numpy(), linalg.inverse(factor), rtol=1e-11, atol=1e-13)
    assert linalg.cholesky(-torch.from_numpy(matrix)) is None


@pytest.mark.parametrize(
    "gone",
    [[], [0], [29], [7], [20, 21], [0, 1, 2, 3], list(range(0, 30, 2)), list(range(1, 30))],
    ids=["none", "first", "last", "middle", "late", "four", "half", "most"],
)
def test_a_factor_without_rows_is_that_of_the_smaller_matrix(gone):
    matrix = positive(30)
    kept = np.setdiff1d(np.arange(30), gone)
    found = linalg.remove(linalg.cholesky(matrix.copy()), kept)
    wanted = linalg.cholesky(np.ascontiguousarray(matrix[np.ix_(kept, kept)]))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("old", [0, 1, 25])
def test_a_factor_with_more_rows_is_that_of_the_larger_matrix(old):
    matrix = positive(30)
    first = linalg.cholesky(matrix[:old, :old].copy()) if old else np.zeros((0, 0))
    found = linalg.append(first, matrix[:old, old:], matrix[old:, old:])
    np.testing.assert_allclose(found, linalg.cholesky(matrix.copy()), rtol=1e-13, atol=1e-15)


def test_rows_that_make_the_matrix_singular_are_refused():
    matrix = positive(5)
    factor = linalg.cholesky(matrix.copy())
    assert linalg.append(factor, matrix[:, 2:3], matrix[2:3, 2:3] - 1e-9) is None


def test_500_appended_and_deleted_rows_leave_the_factor_of_a_new_one():
    count, dim = 60, 20
    points, target = Key(0).uniform(0, count + 500, dim), Key(1).normal(0, 1, count)[0]

    def kernel(one, other):
        return np.exp(-((one[:, None] - other) ** 2).sum(2) / 8)

    rows = list(range(count))
    factor = linalg.cholesky(kernel(points[:count], points[:count]) + 1e-6 * np.eye(count))
    for step in range(500):
        kept = np.delete(np.arange(count), int(Key(2).integers(step, step + 1, 1, high=count)[0, 0]))
        rows = [rows[place] for place in kept]
        new = points[count + step : count + step + 1]
        corner = kernel(new, new) + 1e-6
        factor = linalg.append(linalg.remove(factor, kept), kernel(points[rows], new), corner)
        rows.append(count + step)
    fresh = linalg.cholesky(kernel(points[rows], points[rows]) + 1e-6 * np.eye(count))
    wanted, found = linalg.solve(fresh, target), linalg.solve(factor, target)
    assert np.linalg.norm(found - wanted) < 1e-6 * np.linalg.norm(wanted)
    np.testing.assert_allclose(factor, fresh, rtol=0, atol=1e-9)
