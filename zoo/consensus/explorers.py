"""Explorers: particles that ask what one coordinate of the consensus point had better be.

An explorer is the consensus point but for one coordinate j, drawn at random, to which it adds

    s z             z standard normal, s log-uniform between two lengths in units of scale_j
    y_aj - y_bj     for two particles a, b of its block, drawn at random, where that is not 0

The first finds valleys that are far away. It has to be told about how far, and is drawn from more than a
decade of lengths so that a rough idea will do. The second learns lengths from where particles are: it shrinks
along with them, coordinate by coordinate, and leads from valley to valley where these are evenly spaced. Both
gain where coordinates can be set one by one, and nowhere else; see `zoo.consensus.curvature`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.consensus import choices, noise, weights
from zoo.consensus.swarm import Frame
from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key

Matrix = np.ndarray[Any, Any]


def jumps(
    keys: tuple[Key, ...],
    step: int,
    start: int,
    stop: int,
    count: int,
    scale: Matrix,
    shortest: float,
    longest: float,
) -> tuple[Matrix, Matrix, Matrix]:
    """Return what some explorers draw: coordinates, jumps along them, and three uniform numbers each.

    Args:
        keys: One for each of m swarms.
        step: Number of the move.
        start: First explorer.
        stop: One past the last.
        count: Explorers of a swarm.
        scale: Shape (dim,).
        shortest: Least length of a jump, in units of scale.
        longest: Largest.

    Returns:
        Shapes (m, stop - start), the same, and (m, stop - start, 3).

    Example:
        >>> axes, lengths, _ = jumps((Key(0),), 7, 0, 10_000, 10_000, np.array([1.0, 5.0]), 1.0, 1.0)
        >>> [round(float(lengths[axes == j].std()), 1) for j in (0, 1)]
        [1.0, 5.0]
    """
    drawn = choices.uniform(keys, "explorers", step, start, stop, count, 5)
    axes = (drawn[..., 0] * len(scale)).astype(np.int64)
    law = choices.folded(keys, "explorers")
    z = noise.normal(law, step, start, stop, count, 1, Like("numpy", "float64"))[..., 0]
    lengths = np.exp(math.log(shortest) + drawn[..., 1] * math.log(longest / shortest))
    return axes, z * lengths * scale[axes], drawn[..., 2:]


def blocks(start: int, stop: int, count: int) -> tuple[Any, Any]:
    """Return where each particle's block of `weights.boundaries` begins, and how many particles it has."""
    edges = weights.boundaries(count)
    if len(edges) == 2:
        return 0, count
    place, begins = np.searchsorted(edges, np.arange(start, stop), "right"), np.array(edges)
    return begins[place - 1], begins[place] - begins[place - 1]


def partners(start: int, stop: int, count: int, drawn: Matrix) -> tuple[Matrix, Matrix]:
    """Return two different particles for each of some, out of its block of `weights.boundaries`.

    Both are the particle itself where its block has no other.

    Args:
        start: Number of the first.
        stop: One past the last.
        count: Particles of a swarm.
        drawn: Uniform in [0, 1), shape (m, stop - start, 2).
    """
    first, height = blocks(start, stop, count)
    one = (drawn[..., 0] * height).astype(np.int64)
    step = 1 + (drawn[..., 1] * (height - 1)).astype(np.int64)
    return first + one, first + (one + step) % height


def explore(
    frame: Frame,
    step: int,
    rows: tuple[int, int, int],
    num_explorers: int,
    lengths: tuple[float, float, float],
    points: Array,
    first: int,
) -> Array:
    """Return the offsets of some explorers from the consensus points, shape (m, stop - start, dim).

    Explorers are the last particles of a swarm.

    Args:
        frame: What the swarms were begun with.
        step: Number of the move.
        rows: Number of the first among all particles, one past the last, and particles of a swarm.
        num_explorers: Explorers of a swarm.
        lengths: Shortest and longest jump, in units of scale, and the probability that a difference is tried.
        points: What differences are taken of, shape (m, k, dim): all of the explorers' blocks.
        first: Number of the first of these.

    Raises:
        ValueError: `points` are too few.
    """
    (start, stop, count), (shortest, longest, differences) = rows, lengths
    keys, work, before = frame.keys, frame.work, count - num_explorers
    axes, drawn, uniform = jumps(
        keys, step, start - before, stop - before, num_explorers, frame.scale, shortest, longest
    )
    along = work.asarray(drawn)
    if differences:
        begins, heights = blocks(start, stop, count)
        if np.min(begins) < first or np.max(begins + heights) > first + points.shape[1]:
            raise ValueError(
                "`points` must be all of a block of particles, where explorers take differences."
            )
        pairs = partners(start, stop, count, uniform[..., 1:])
        steps = _at(points, pairs[0] - first, axes) - _at(points, pairs[1] - first, axes)
        tried = work.asarray((uniform[..., 0] < differences) * 1.0)
        along = array_module(along).where((tried > 0) & (steps != 0), steps, along)
    if work.kind == "numpy":
        return np.where(np.arange(frame.dim) == axes[..., None], along[..., None], along.dtype.type(0))
    import torch

    index = torch.from_numpy(axes).to(along.device)[..., None]
    return along.new_zeros((*along.shape, frame.dim)).scatter(2, index, along[..., None])


def _at(points: Array, rows: Matrix, columns: Matrix) -> Array:
    """Return one coordinate each of some rows of every swarm, shape (m, k)."""
    if isinstance(points, np.ndarray):
        return points[np.arange(len(rows))[:, None], rows, columns]
    import torch

    place = torch.from_numpy(rows * points.shape[2] + columns).to(points.device)
    return points.reshape(len(points), -1).gather(1, place)
