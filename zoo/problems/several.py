"""Problems with two objectives whose best compromises are known: functions of many points, shape (n, d)."""

from __future__ import annotations

from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]


def zdt1(x: Matrix) -> Matrix:
    """Return the objectives of ZDT1, shape (n, 2), for x in [0, 1]^d; compromises: f2 = 1 - sqrt(f1).

    Source: E. Zitzler, K. Deb and L. Thiele, Comparison of Multiobjective Evolutionary Algorithms: Empirical
    Results, 2000, https://doi.org/10.1162/106365600568202.
    """
    first, g = x[:, 0], _distance(x)
    return np.stack([first, g * (1 - np.sqrt(first / g))], 1)


def zdt2(x: Matrix) -> Matrix:
    """Return the objectives of ZDT2, shape (n, 2), for x in [0, 1]^d; compromises: f2 = 1 - f1^2."""
    first, g = x[:, 0], _distance(x)
    return np.stack([first, g * (1 - (first / g) ** 2)], 1)


def zdt3(x: Matrix) -> Matrix:
    """Return the objectives of ZDT3, shape (n, 2), for x in [0, 1]^d; five pieces of a curve below ZDT1's."""
    first, g = x[:, 0], _distance(x)
    return np.stack([first, g * (1 - np.sqrt(first / g) - first / g * np.sin(10 * np.pi * first))], 1)


def schaffer(x: Matrix) -> Matrix:
    """Return |x|^2 and |x - 2|^2, shape (n, 2); compromises: all x_i equal and from 0 to 2."""
    return np.stack([(x**2).sum(1), ((x - 2) ** 2).sum(1)], 1)


def _distance(x: Matrix) -> Matrix:
    return 1 + 9 * x[:, 1:].mean(1)
