"""Gibbs weights, the consensus point, and how both are put together from blocks of particles.

The consensus point of particles x_i with energies f_i at inverse temperature alpha is

    c = sum_i w_i x_i / sum_i w_i,    w_i = exp(-alpha (f_i - min f)).

The shift by the least energy changes no ratio, and leaves exponents of at most 0: nothing overflows, and
sum_i w_i lies between 1 and the number of particles, however large alpha is. Failed evaluations are infinite
energies and have weight 0. At alpha = inf only the best particles count, all of them alike; at alpha = 0 all
that have an energy.

Arrays of energies have shape (..., n): any number of swarms at once. They are float64 numpy arrays; what is
averaged may be of any kind.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from zoo.consensus.host import is_on_device, of_kind, on_host
from zoo.core.device import Array, array_module

Matrix = np.ndarray[Any, Any]

_BLOCKS = 16  # at most, of the particles of a swarm
_BLOCK_ROWS = 64  # particles of a block at least, but for the last
_FURTHEST = 350.0  # exponents from which on weights are 0
_FURTHEST_SINGLE = (
    57.5  # the same in sums of single precision: products with weights of 1e-25 may be next to 0
)
_ALIGNED = 256  # bytes, to which GPUs align memory; the kernel that multiplies may depend on it


@functools.lru_cache(maxsize=256)
def boundaries(num_particles: int) -> tuple[int, ...]:
    """Return the boundaries 0, ..., n of the blocks that sums over particles are made of.

    They depend on the number of particles alone, so that a swarm spread over workers adds up the same numbers
    in the same order. They are those between the calls of an objective of many points, too, so that a worker
    that has a block can evaluate it.

    Example:
        >>> boundaries(100), boundaries(1000)[:4], len(boundaries(10**6)) - 1
        ((0, 100), (0, 64, 128, 192), 16)
    """
    if num_particles <= 2 * _BLOCK_ROWS:
        return 0, num_particles
    height = max(_BLOCK_ROWS, -(-num_particles // _BLOCKS))
    return (*range(0, num_particles, height), num_particles)


@functools.lru_cache(maxsize=1024)
def edges_between(num_particles: int, start: int, stop: int) -> tuple[int, ...]:
    """Return the boundaries between two of them, counted from the first.

    Example:
        >>> edges_between(1000, 128, 256)
        (0, 64, 128)
    """
    return tuple(edge - start for edge in boundaries(num_particles) if start <= edge <= stop)


def energies_of(values: Matrix) -> Matrix:
    """Return values as energies: infinite where an evaluation failed; minus infinity is no value."""
    energies: Matrix = np.fmin(values, np.inf)  # of NaN and a number, the number
    if energies.size and energies.min() == -np.inf:
        energies[energies == -np.inf] = np.inf
    return energies


def boltzmann(energies: Matrix, lowest: Matrix, alpha: Matrix, furthest: float = _FURTHEST) -> Matrix:
    """Return exp(-alpha (energy - lowest)); 0 where an energy is infinite, or the exponent far from 0.

    Args:
        energies: Shape (..., n).
        lowest: Shape (...,), at most the least energy; or (..., n).
        alpha: Shape (...,), from 0 to infinity.
        furthest: Exponents from which on weights are 0.
    """
    alpha = alpha[..., None]
    if lowest.ndim < energies.ndim:
        lowest = lowest[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        exponents = lowest - energies
        exponents *= alpha
    least = np.minimum.reduce(exponents, None)
    if least > -furthest:
        return np.exp(exponents, out=exponents)
    if not least > -np.inf:
        # NaN is 0 times infinity here: of the best at alpha = inf, and at alpha = 0 of energies so far apart
        # that their difference overflows.
        exponents = np.where(np.isfinite(energies), np.where(np.isnan(exponents), 0.0, exponents), -np.inf)
    # Processors take fifty times as long for numbers of which the squares, or they themselves, are next to 0.
    near = exponents > -furthest
    weights = np.exp(np.maximum(exponents, -furthest, out=exponents), out=exponents)
    weights *= near
    return weights


def gibbs_weights(energies: Matrix, alpha: Any) -> Matrix:
    """Return the weights of particles, which add up to 1; all 0 where every energy is infinite.

    Args:
        energies: Shape (..., n); NaN and infinities count for nothing.
        alpha: Inverse temperature, a number or shape (...,).

    Example:
        >>> gibbs_weights(np.array([1.0, 1.0, np.nan, 3.0]), np.inf).tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    energies = energies_of(np.asarray(energies, np.float64))
    alpha = np.broadcast_to(np.asarray(alpha, np.float64), energies.shape[:-1])
    weights = boltzmann(energies, energies.min(-1), alpha)
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def weighted_sum(weights: Matrix, points: Array) -> Array:
    """Return sum_i w_i x_i of each swarm, as float64.

    Args:
        weights: Shape (m, n).
        points: Shape (m, n, dim).
    """
    if not is_on_device(points):
        return of_kind(points, _host_sum(weights, on_host(points)))
    import torch

    if points.data_ptr() % _ALIGNED:
        points = points.clone()  # so that a block among others is added up as it is alone
    row = torch.from_numpy(weights).to(device=points.device, dtype=points.dtype)[:, None]
    return torch.bmm(row, points)[:, 0].double()


def _host_sum(weights: Matrix, points: Matrix) -> Matrix:
    row = weights.astype(points.dtype, copy=False)[:, None]
    return np.matmul(row, points)[:, 0].astype(np.float64, copy=False)


def consensus_point(points: Array, values: Matrix, alpha: float) -> Array:
    """Return the consensus point of one swarm, shape (dim,), float64.

    Args:
        points: Shape (n, dim).
        values: Shape (n,); NaN is failed.
        alpha: Inverse temperature.

    Raises:
        ValueError: All evaluations failed.

    Example:
        >>> consensus_point(np.array([[0.0], [1.0], [5.0]]), np.array([2.0, 2.0, np.nan]), 10.0).tolist()
        [0.5]
    """
    weights = gibbs_weights(values, alpha)
    if not weights.any():
        raise ValueError("`values` must have a finite entry at least: all evaluations failed.")
    return weighted_sum(weights[None], points[None])[0]


def effective_sample_size(weights: Matrix) -> Matrix:
    """Return (sum w)^2 / sum w^2 over the last axis: how many particles the consensus point is a mean of."""
    total, squares = weights.sum(-1), (weights**2).sum(-1)
    return total**2 / np.where(squares > 0, squares, 1.0)


class Sums(NamedTuple):
    """What a block of particles adds to the consensus point; what is sent of it, whatever is spread.

    Several blocks in a row may be held together, in arrays of shape (m, b) and (m, b, dim).

    Attributes:
        lowest: Least energy of the block, infinite if all failed, shape (m,).
        total: Z = sum exp(-alpha (f - lowest)), shape (m,).
        squares: The sum of the squares of these, shape (m,).
        moment: S = sum exp(-alpha (f - lowest)) x, shape (m, dim), float64; of points on the host, numpy's.
    """

    lowest: Matrix
    total: Matrix
    squares: Matrix
    moment: Array


def block_sums(energies: Matrix, points: Array, alpha: Matrix) -> Sums:
    """Return the sums over one block, energies of shape (m, n) and points of shape (m, n, dim)."""
    sums = sums_between((0, energies.shape[1]), energies, points, alpha)
    return Sums(sums.lowest[:, 0], sums.total[:, 0], sums.squares[:, 0], sums.moment[:, 0])


def sums_between(edges: Sequence[int], energies: Matrix, points: Array, alpha: Matrix) -> Sums:
    """Return the sums over some blocks in a row: `block_sums` of each, to the last bit, in fewer calls.

    Args:
        edges: Where the blocks begin, and where the last one ends, from 0 to n.
        energies: Shape (m, n).
        points: Shape (m, n, dim).
        alpha: Shape (m,).

    Example:
        >>> energies, points, alpha = np.arange(200.0)[None], np.eye(200)[None], np.ones(1)
        >>> sums = sums_between((0, 64, 128, 192, 200), energies, points, alpha)
        >>> alone = block_sums(energies[:, 64:128], points[:, 64:128], alpha)
        >>> bool(sums.total[:, 1] == alone.total), bool((sums.moment[:, 1] == alone.moment).all())
        (True, True)
    """
    starts, blocks, even = _layout(tuple(edges))
    lowest = np.minimum.reduceat(energies, starts, 1)
    furthest = _FURTHEST_SINGLE if points.dtype.itemsize < 8 else _FURTHEST
    weights = boltzmann(energies, lowest if len(starts) == 1 else lowest.take(blocks, 1), alpha, furthest)
    # By `reduceat` even for a single block: it adds up in another order than `sum` does.
    total, squares = np.add.reduceat(weights, starts, 1), np.add.reduceat(weights * weights, starts, 1)
    if is_on_device(points):
        moments = [weighted_sum(weights[:, a:b], points[:, a:b])[:, None] for a, b in pairwise(edges)]
        return Sums(lowest, total, squares, _joined(moments))
    host = on_host(points)
    shares, first = weights.astype(host.dtype)[:, None], 0
    if len(starts) == 1:
        return Sums(lowest, total, squares, np.matmul(shares, host).astype(np.float64))
    moment = np.empty((len(energies), len(starts), host.shape[2]))
    if len(energies) == 1 and even > 1:
        # Blocks of one swarm are added up as if they were swarms.
        first, whole, height = even, edges[even], edges[1]
        swarms = host[0, :whole].reshape(even, height, -1)
        moment[0, :even] = np.matmul(shares[0, 0, :whole].reshape(even, 1, height), swarms)[:, 0]
    for block in range(first, len(starts)):
        a, b = edges[block : block + 2]
        moment[:, block] = np.matmul(shares[:, :, a:b], host[:, a:b])[:, 0]
    return Sums(lowest, total, squares, moment)


@functools.lru_cache(maxsize=256)
def _layout(edges: tuple[int, ...]) -> tuple[Matrix, Matrix, int]:
    """Return where blocks begin, the block of each particle, and how many are as high as the first."""
    heights = np.diff(edges)
    even = int(np.append(heights != heights[0], True).argmax())
    return np.array(edges[:-1]), np.repeat(np.arange(len(heights)), heights), even


def merge(parts: Sequence[Sums], alpha: Matrix) -> Sums:
    """Return the sums over several blocks, in their order.

    Example:
        >>> energies, points = np.array([[3.0, 1.0, 2.0]]), np.array([[[1.0], [2.0], [4.0]]])
        >>> alpha = np.ones(1)
        >>> whole = block_sums(energies, points, alpha)
        >>> parts = [block_sums(energies[:, i : i + 1], points[:, i : i + 1], alpha) for i in range(3)]
        >>> bool(np.allclose(merge(parts, alpha).moment, whole.moment, atol=1e-15))
        True
    """
    swarms = len(parts[0].lowest)
    if len(parts) == 1 and parts[0].lowest.size == swarms:  # its share is 1
        whole = parts[0]
        if whole.lowest.ndim == 1:
            return whole
        return Sums(whole.lowest[:, 0], whole.total[:, 0], whole.squares[:, 0], whole.moment[:, 0])
    lowests, totals, squares, moments = parts[0]
    if len(parts) > 1:
        lowests, totals, squares = (
            _joined([part[i].reshape(swarms, -1) for part in parts]) for i in range(3)
        )
        moments = _joined([part.moment.reshape(swarms, -1, parts[0].moment.shape[-1]) for part in parts])
    lowest = np.minimum.reduce(lowests, -1)
    shares = boltzmann(lowests, lowest, alpha)
    total, square = np.add.reduce(shares * totals, -1), np.add.reduce(shares * shares * squares, -1)
    return Sums(lowest, total, square, weighted_sum(shares, moments))


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts, 1)


def centre(sums: Sums) -> Array:
    """Return the weighted mean, shape (m, dim), float64; 0 where all evaluations failed.

    On the host it is numpy's, as moments are.
    """
    safe = np.maximum(sums.total, 1.0)[:, None]  # the best has weight 1
    moment = sums.moment
    if is_on_device(moment):
        safe = array_module(moment).from_numpy(safe).to(moment.device)
    return moment / safe


def alpha_of(energies: Matrix, share: float, before: Matrix) -> Matrix:
    """Return the inverse temperature at which the effective sample size is a share of the particles.

    It falls as alpha grows, from the number of particles that have an energy to that of the best ones, and
    the equation is solved in log alpha, for energies of any scale: by Newton's steps, in units that are a
    power of 2, so that energies twice as large have half the alpha to the last bit.

    Args:
        energies: Shape (m, n).
        share: Of the particles that have an energy, above 0 and below 1.
        before: What to return where any alpha would do, or none, shape (m,).

    Example:
        >>> energies = 1e8 * np.random.default_rng(0).random((1, 1000))
        >>> alpha = alpha_of(energies, 0.5, np.ones(1))
        >>> round(float(effective_sample_size(gibbs_weights(energies, alpha))[0]), 6)
        500.0
    """
    valid = np.isfinite(energies)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        above = np.where(valid, energies - energies.min(-1, keepdims=True), np.inf)
        above = np.where(valid, np.minimum(above, 1e307), np.inf)
        exponent = np.frexp(np.where(valid, above, 0.0).max(-1))[1]
        above = np.ldexp(above, -exponent[..., None])
        widest = np.where(valid, above, 0.0).max(-1)
        least = np.where(above > 0, above, np.inf).min(-1)
    wanted = np.log(np.where(valid.any(-1), share * valid.sum(-1), 1.0))
    solvable = np.isfinite(least) & (widest > 0)
    low = np.log(np.where(solvable, 1e-9, 1.0)) - np.log(np.where(solvable, widest, 1.0))
    high = np.minimum(np.log(800.0) - np.log(np.where(solvable, least, 1.0)), 709.0)  # exp of it is finite
    away, nothing = np.where(valid, above, 0.0), np.zeros(len(energies))
    mean = away.sum(-1) / np.maximum(valid.sum(-1), 1)
    at = np.clip(-np.log(np.where(solvable, mean, 1.0)), low, high)
    done = ~solvable
    # Newton's steps where they stay between the bounds found so far, which else are halved. A swarm's own end
    # ends it, so that its alpha does not depend on the others.
    for _ in range(100):
        alpha = np.exp(at)
        weights = boltzmann(above, nothing, alpha)
        squares = weights * weights
        total, power = (np.where(solvable, part.sum(-1), 1.0) for part in (weights, squares))
        excess = 2 * np.log(total) - np.log(power) - wanted
        with np.errstate(over="ignore", invalid="ignore"):
            slope = 2 * alpha * ((squares * away).sum(-1) / power - (weights * away).sum(-1) / total)
            ahead = at - excess / np.where(slope < 0, slope, -1.0)
        low, high = np.where(excess > 0, at, low), np.where(excess > 0, high, at)
        ahead = np.where((slope < 0) & (ahead > low) & (ahead < high), ahead, (low + high) / 2)
        done |= (abs(excess) < 1e-13) | (high - low <= 1e-13 * abs(at))
        if done.all():
            break
        at = np.where(done, at, ahead)
    with np.errstate(over="ignore"):
        return np.where(solvable, np.ldexp(np.exp(at), -exponent), before)
