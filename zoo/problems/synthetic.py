"""Functions with a known minimum.

All take points x of shape (..., dim), numpy or torch, and return their values, shape (...). The minimum is 0.
Where nothing else is said, it is at x = 0 and the functions are defined everywhere; the canyons have two
variables, all others as many as x has.

Sources: N. Hansen, S. Finck, R. Ros and A. Auger, Real-Parameter Black-Box Optimization Benchmarking 2009:
Noiseless Functions Definitions, https://inria.hal.science/inria-00362633, there shifted, rotated and made
irregular; ackley, griewank, levy, schwefel: M. Laguna and R. Martí, Experimental Testing of Advanced Scatter
Search Designs for Global Optimization of Multimodal Functions, 2005, https://doi.org/10.1007/s10898-004-1936-z;
canyon: K. Riedl, T. Klock, C. Geldhauser and M. Fornasier, Gradient is All You Need?, 2023,
https://arxiv.org/abs/2306.09778.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.core.device import Array, Like, is_torch


def sphere(x: Array) -> Any:
    """Return sum x_i^2.

    Example:
        >>> float(sphere(np.array([1.0, 2.0])))
        5.0
    """
    return (x * x).sum(-1)


def ellipsoid(x: Array) -> Any:
    """Return sum 10^(6 (i - 1) / (dim - 1)) x_i^2: axes evenly spread over a condition number of 10^6.

    Example:
        >>> float(ellipsoid(np.array([1.0, 1.0])))
        1000001.0
    """
    return (x * x * 10.0 ** (6 * _ramp(x))).sum(-1)


def cigar(x: Array) -> Any:
    """Return x_1^2 + 10^6 sum_{i > 1} x_i^2: one long axis.

    Example:
        >>> float(cigar(np.array([2.0, 1.0])))
        1000004.0
    """
    square = x * x
    return square[..., 0] + 1e6 * square[..., 1:].sum(-1)


def discus(x: Array) -> Any:
    """Return 10^6 x_1^2 + sum_{i > 1} x_i^2: one short axis.

    Example:
        >>> float(discus(np.array([1.0, 2.0])))
        1000004.0
    """
    square = x * x
    return 1e6 * square[..., 0] + square[..., 1:].sum(-1)


def different_powers(x: Array) -> Any:
    """Return sum |x_i|^(2 + 4 (i - 1) / (dim - 1)), not a quadratic near its minimum.

    Example:
        >>> float(different_powers(np.array([2.0, 2.0])))
        68.0
    """
    return (abs(x) ** (2 + 4 * _ramp(x))).sum(-1)


def rosenbrock(x: Array) -> Any:
    """Return sum_{i < dim} 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2: a bent valley.

    The minimum is at x = 1; dim must be at least 2, else the sum is empty. From 4 coordinates on there
    is a second minimum, of value near 4, close to (-1, 1, ..., 1).

    Example:
        >>> float(rosenbrock(np.array([-1.0, 1.0])))
        4.0
    """
    head, tail = x[..., :-1], x[..., 1:]
    return (100 * (tail - head * head) ** 2 + (1 - head) ** 2).sum(-1)


def rastrigin(x: Array) -> Any:
    """Return sum x_i^2 + 10 (1 - cos 2 pi x_i): minima near all whole numbers, in a bowl.

    Usually in [-5.12, 5.12]^dim.

    Example:
        >>> round(float(rastrigin(np.array([1.0, 0.5]))), 12)
        21.25
    """
    return (x * x + 10 * (1 - _module(x).cos(2 * math.pi * x))).sum(-1)


def ackley(x: Array) -> Any:
    """Return 20 + e - 20 exp(-0.2 rms(x)) - exp(mean cos 2 pi x_i).

    Rough and nearly flat far out, a funnel at 0. Usually in [-32.768, 32.768]^dim.

    Example:
        >>> abs(float(ackley(np.zeros(3)))) < 1e-12
        True
    """
    xp = _module(x)
    rms = xp.sqrt((x * x).mean(-1))
    return 20 * (1 - xp.exp(-0.2 * rms)) + (math.e - xp.exp(xp.cos(2 * math.pi * x).mean(-1)))


def griewank(x: Array) -> Any:
    """Return 1 + sum x_i^2 / 4000 - prod cos(x_i / sqrt(i)): many shallow minima; usually in [-600, 600]^dim.

    Example:
        >>> float(griewank(np.zeros(3)))
        0.0
    """
    root = _like(np.sqrt(np.arange(1.0, x.shape[-1] + 1)), x)
    return (x * x).sum(-1) / 4000 + (1 - _module(x).cos(x / root).prod(-1))


def levy(x: Array) -> Any:
    """Return a sine on parabolas.

    sin^2(pi w_1) + sum_{i < dim} (w_i - 1)^2 (1 + 10 sin^2(pi w_i + 1)) +
    (w_dim - 1)^2 (1 + sin^2 2 pi w_dim) with w = 1 + (x - 1) / 4; minimum at x = 1; usually in [-10, 10]^dim.

    Example:
        >>> float(levy(np.ones(3))) < 1e-12
        True
    """
    sin = _module(x).sin
    w = 1 + (x - 1) / 4
    head, last = w[..., :-1], w[..., -1]
    inner = ((head - 1) ** 2 * (1 + 10 * sin(math.pi * head + 1) ** 2)).sum(-1)
    return sin(math.pi * w[..., 0]) ** 2 + inner + (last - 1) ** 2 * (1 + sin(2 * math.pi * last) ** 2)


def schwefel(x: Array) -> Any:
    """Return sum 418.982887... - x_i sin sqrt |x_i|, within [-500, 500]^dim; minimum at x = 420.968746...

    The second best minimum is far from the best one. Outside the box values are lower still.

    Example:
        >>> abs(float(schwefel(np.full(2, 420.9687463)))) < 1e-9
        True
    """
    xp = _module(x)
    return (418.9828872724337 - x * xp.sin(xp.sqrt(abs(x)))).sum(-1)


def canyon(x: Array) -> Any:
    """Return a winding canyon of two variables with ripples on its floor, some of which hold back descent.

    With p = b - (a - 1) (a - 4)^2 / 8 - 2 and q = -a - 1.6 b for x = (a, b), it is
    25 (1 - exp(-1.4 p^2 exp(-0.002 a^4))) + 0.4 a^2 + 0.2 b^2
    + 1.1625 (2 - cos(3 pi a / 4) - cos(3 pi b / 4)) + 4 exp(1 - 2 p^4) (1 - exp(-9 q^2)) max(sign q, 0):
    walls, a bowl, ripples, and a step across the floor beyond its lowest point. Usually in [-2, 8]^2, from
    (8, 8).

    Example:
        >>> float(canyon(np.zeros(2))), round(float(canyon(np.array([8.0, 8.0]))), 2)
        (0.0, 39.01)
    """
    return _canyon(x, 1.1625)


def calm_canyon(x: Array) -> Any:
    """Return `canyon` with ripples of 0.25 for 1.1625, over which descent finds its way down to the minimum.

    Example:
        >>> x = np.array([1.0, 2.0])
        >>> float(canyon(x) - calm_canyon(x)) > 1
        True
    """
    return _canyon(x, 0.25)


def _canyon(x: Array, ripple: float) -> Any:
    xp = _module(x)
    a, b = x[..., 0], x[..., 1]
    p = b - (a - 1) * (a - 4) ** 2 / 8 - 2
    q = -a - 1.6 * b
    walls = 25 * (1 - xp.exp(-1.4 * p**2 * xp.exp(-0.002 * a**4)))
    bowl = 0.4 * a**2 + 0.2 * b**2
    ripples = ripple * (2 - xp.cos(0.75 * math.pi * a) - xp.cos(0.75 * math.pi * b))
    step = 4 * xp.exp(1 - 2 * p**4) * xp.where(q > 0, 1 - xp.exp(-9 * q**2), 0 * q)
    return walls + bowl + ripples + step


def _module(x: Array) -> Any:
    if is_torch(x):
        import torch

        return torch
    return np


def _like(row: np.ndarray[Any, Any], x: Array) -> Any:
    return Like.of(x).asarray(row)


def _ramp(x: Array) -> Any:
    """Return (i - 1) / (dim - 1) for i = 1, ..., dim."""
    return _like(np.linspace(0.0, 1.0, x.shape[-1]), x)
