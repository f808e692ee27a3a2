"""The normal numbers of a step, for any number of swarms: keyed by swarm, step and particle.

A swarm's numbers are a function of its own key, so what it does is the same among a hundred others as it is
alone, and those of a particle are the same whatever range of particles is asked for. Those of a small swarm
are drawn for several steps at once: to set a generator up takes longer than to draw a thousand numbers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key

_SMALL = 8192  # numbers a step, up to which several steps are drawn together
_TOGETHER = 32768  # numbers drawn together
_LARGE = 2**16  # numbers a step, from which on torch's generator draws for numpy as well: thrice as fast
_KEPT = 2**24  # numbers kept, over all swarms of a thread


class _Local(threading.local):
    def __init__(self) -> None:
        self.drawn: OrderedDict[tuple[bytes, int, int, Like], Array] = OrderedDict()


_local = _Local()


def clear_cache() -> None:
    """Forget what was drawn for steps to come."""
    _local.drawn.clear()


def normal(keys: Sequence[Key], step: int, start: int, stop: int, count: int, dim: int, like: Like) -> Array:
    """Return standard normal numbers for some particles of each swarm, the caller's to write to.

    Args:
        keys: One for each of m swarms.
        step: Number of the step.
        start: First particle.
        stop: One past the last.
        count: Particles of a swarm.
        dim: Coordinates of a particle.
        like: Kind, dtype and device of the numbers.

    Returns:
        Shape (m, stop - start, dim).
    """
    size = count * dim
    if size > _SMALL or like.device != "cpu":
        source = Like("torch", like.dtype) if like.kind == "numpy" and _is_large(size, dim, like) else like
        rows = [key.fold("noise", step).normal(start, stop, dim, like=source) for key in keys]
        rows = rows if source is like else [row.numpy() for row in rows]
        return rows[0][None] if len(rows) == 1 else array_module(rows[0]).stack(rows)
    steps = _TOGETHER // size
    drawn = [_block(key, step // steps, steps, size, like)[step % steps] for key in keys]
    whole = array_module(drawn[0]).stack(drawn).reshape(len(keys), count, dim)
    return whole if stop - start == count else whole[:, start:stop]


def _is_large(size: int, dim: int, like: Like) -> bool:
    return like.dtype == "float32" and size >= _LARGE and dim >= 64


def _block(key: Key, number: int, steps: int, size: int, like: Like) -> Array:
    """Return the numbers of some steps in a row, shape (steps, size), not to be written to."""
    name = key.digest, number, size, like
    drawn = _local.drawn.get(name)
    if drawn is None:
        drawn = _local.drawn[name] = key.fold("noise", "steps", number).normal(0, steps, size, like=like)
        while len(_local.drawn) * _TOGETHER > _KEPT:
            _local.drawn.popitem(last=False)
    return drawn


def signs(keys: Sequence[Key], purpose: str, step: int, count: int, dim: int) -> np.ndarray:
    """Return uniform numbers of numpy for each swarm, shape (m, count, dim), for choices of coordinates."""
    return np.stack([key.fold(purpose, step).coarse(0, count, dim) for key in keys])
