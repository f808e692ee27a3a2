"""Swarms held as points, for variants whose particles live on a surface or behind a map.

Elsewhere particles are offsets from an anchor that moves with the consensus point. On a surface, or where
points are images of other ones, there is no such shift, and points are kept as they are, in double precision.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from zoo.consensus import weights
from zoo.consensus.host import of_kind
from zoo.consensus.swarm import Frame, Particles
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.state import state
from zoo.core.types import Evaluations
from zoo.methods.population import CHECK_EVERY, beside

Matrix = np.ndarray[Any, Any]

_ROUNDED = 1e-6  # how far off a set, relatively, points may be for having been written in single precision


@state
class Swarm:
    """m swarms of n particles.

    Attributes:
        frame: What they were begun with.
        step: Steps told.
        nfev: Evaluations told, of each swarm.
        points: Where the particles are, shape (m, n, dim), float64.
        consensus: The consensus points, shape (m, dim), float64; x0 before there are any.
        sample_size: Effective sample sizes of these, shape (m,); 0 before there are any.
    """

    frame: Frame
    step: int
    nfev: int
    points: Array
    consensus: Array
    sample_size: Matrix


def swarm_of(frame: Frame, points: Array) -> Swarm:
    """Return swarms of which nothing is known yet."""
    count = len(frame.keys)
    start = array_module(points).stack([frame.x0] * count)
    return Swarm(frame, 0, 0, points, start, np.zeros(count))


def asked(swarm: Swarm) -> int:
    """Return how many particles of each swarm the budget has room for."""
    budget, count = swarm.frame.budget, int(swarm.points.shape[1])
    return count if budget is None else max(0, min(count, budget - swarm.nfev))


def rows_of(swarm: Swarm, bounds: Bounds | None = None) -> Particles:
    """Return the particles that are to be evaluated, clipped to a box if there is one."""
    return Particles(swarm.frame.like, bounds, swarm.consensus * 0, swarm.points[:, : asked(swarm)])


def energies_of(swarm: Swarm, evaluations: Evaluations) -> Matrix:
    """Return the energies told, shape (m, n); infinite where one failed or was not asked for.

    Raises:
        ValueError: There are not as many values as candidates.
    """
    swarms, size = swarm.points.shape[:2]
    count = asked(swarm)
    if len(evaluations) != swarms * count:
        raise ValueError(
            f"`evaluations` must hold the {swarms * count} values asked for, got {len(evaluations)}."
        )
    energies = np.full((swarms, size), np.inf)
    energies[:, :count] = weights.energies_of(evaluations.values.reshape(swarms, count))
    return energies


def gibbs_mean(energies: Matrix, points: Array, alpha: float, before: Array) -> tuple[Array, Matrix]:
    """Return consensus points, shape (m, dim), and their effective sample sizes, shape (m,).

    Args:
        energies: Shape (m, n).
        points: Shape (m, n, dim).
        alpha: Inverse temperature.
        before: What to return of swarms all of whose energies are infinite, shape (m, dim).
    """
    alphas, edges = np.full(len(energies), alpha), weights.boundaries(energies.shape[1])
    parts = [
        weights.block_sums(energies[:, first:last], points[:, first:last], alphas)
        for first, last in itertools.pairwise(edges)
    ]
    sums = weights.merge(parts, alphas)
    mean = of_kind(points, weights.centre(sums))
    if not sums.total.all():
        mean = array_module(points).where(column(sums.total > 0, points), mean, before)
    squares = np.where(sums.squares > 0, sums.squares, 1.0)
    return mean, sums.total**2 / squares


def told(
    swarm: Swarm, evaluations: Evaluations, points: Array, consensus: Array, sample_size: Matrix
) -> Swarm:
    """Return the swarms after a step that took them to `points`."""
    num = len(evaluations) // len(sample_size)
    return Swarm(swarm.frame, swarm.step + 1, swarm.nfev + num, points, consensus, sample_size)


def check_on_set(away: Array, where: str, remedy: str) -> None:
    """Refuse points known that are off the set, where no particle goes: their values would not be allowed.

    Args:
        away: Distance of each from the set, as a share of the size of the point or of the set, shape (n,).
        where: The set.
        remedy: What to do.

    Raises:
        ValueError: One is further away than by rounding.
    """
    away = np.asarray(to_numpy(away), np.float64)
    if not (away <= _ROUNDED).all():
        row = int((~(away <= _ROUNDED)).argmax())
        raise ValueError(f"`known` must hold points {where}, got one in row {row} that is not. {remedy}")


def column(numbers: Matrix, like: Array) -> Array:
    """Return numbers or flags of shape (m,) as a column that goes with an array, on its device."""
    return beside(like, numbers[:, None])


def finished(swarm: Swarm, tolx: float) -> str | None:
    """Return why the swarms have nothing left to do, or None; every few steps they are looked at."""
    budget = swarm.frame.budget
    if budget is not None and swarm.nfev >= budget:
        return f"the budget of {budget} evaluations is used up"
    if swarm.step % CHECK_EVERY or not swarm.step or tolx == 0 or not swarm.sample_size.all():
        return None
    away = abs(swarm.points - swarm.consensus[:, None])
    widest = np.asarray(to_numpy(array_module(away).amax(away, 1)))
    rounding = 4 * swarm.frame.like.epsilon * np.abs(to_numpy(swarm.consensus))
    if (widest <= np.maximum(tolx * swarm.frame.scale, rounding)).all():
        return f"tolx: all particles are within {tolx} of the scale of the consensus, or within rounding"
    return None
