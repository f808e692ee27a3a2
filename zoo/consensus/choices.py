"""What a step draws beside its noise: batches of particles, coordinates that move, axes that are tried.

Each is a function of a swarm's own key, the number of the move and the particle, so it does not depend on how
many swarms there are, nor on which particles are asked for. Small draws are made for several steps at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key

Matrix = np.ndarray[Any, Any]

_TOGETHER = 32768  # numbers drawn at once
_KEPT = 2**26  # bytes of draws kept by a thread


class _Local(threading.local):
    def __init__(self) -> None:
        self.drawn: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self.size = 0


_local = _Local()


def clear_cache() -> None:
    """Forget what was drawn for steps to come."""
    _local.drawn.clear()
    _local.size = 0


def _kept(name: tuple[Any, ...], draw: Callable[[], Any]) -> Any:
    drawn = _local.drawn.get(name)
    if drawn is None:
        drawn = _local.drawn[name] = draw()
        _local.size += _size(drawn)
        while _local.size > _KEPT and len(_local.drawn) > 1:
            _local.size -= _size(_local.drawn.popitem(last=False)[1])
    return drawn


def _size(drawn: Any) -> int:
    return 256 + int(getattr(drawn, "nbytes", 0)) if not isinstance(drawn, tuple) else 256 * (1 + len(drawn))


def batches(keys: Sequence[Key], step: int, count: int, size: int) -> Matrix:
    """Return the particles of a step's batch, in order, shape (m, size).

    A random order of all particles is walked through, batch by batch; then comes a new one. What is left over
    at its end, fewer than a batch, waits for the next order.
    """
    walk, place = divmod(step, count // size)

    def order(key: Key) -> Matrix:
        return key.fold("batch", count, walk).permutation(0, 1, count)[0]

    rows = slice(place * size, (place + 1) * size)
    orders = [_kept((key.digest, "batch", count, walk), lambda key=key: order(key)) for key in keys]  # type: ignore[misc]
    return np.sort(np.stack([order[rows] for order in orders]), 1)


def chosen(
    keys: Sequence[Key], step: int, start: int, stop: int, count: int, dim: int, share: float, like: Like
) -> Array:
    """Return which coordinates of some particles move, shape (m, stop - start, dim).

    Each does with probability `share`. Probabilities are rounded to multiples of 2^-16, upwards.
    """
    size = count * dim
    steps = max(1, _TOGETHER // size) if like.device == "cpu" else 1
    if steps == 1:
        drawn = [key.fold("coordinates", step).coarse(start, stop, dim, like=like) < share for key in keys]
        return array_module(drawn[0]).stack(drawn)

    def draw(key: Key) -> Array:
        whole = key.fold("coordinates", "steps", step // steps).coarse(0, steps, size, like=like)
        return (whole < share).reshape(steps, count, dim)

    name = "coordinates", step // steps, count, dim, share, like
    masks = [_kept((key.digest, *name), lambda key=key: draw(key))[step % steps] for key in keys]  # type: ignore[misc]
    if len(masks) == 1:
        return masks[0][None, start:stop]
    return array_module(masks[0]).stack(masks)[:, start:stop]


def uniform(
    keys: Sequence[Key], purpose: str, step: int, start: int, stop: int, count: int, columns: int
) -> Matrix:
    """Return some uniform numbers for each of some particles, shape (m, stop - start, columns)."""
    size = count * columns
    steps = max(1, _TOGETHER // (8 * size))
    if steps == 1:
        return np.stack([key.fold(purpose, step).uniform(start, stop, columns) for key in keys])
    name = purpose, step // steps, size

    def draw(key: Key) -> Matrix:
        return key.fold(purpose, "steps", step // steps).uniform(0, steps, size)

    drawn = [_kept((key.digest, *name), lambda key=key: draw(key))[step % steps] for key in keys]  # type: ignore[misc]
    return np.stack(drawn).reshape(len(keys), count, columns)[:, start:stop]


def folded(keys: tuple[Key, ...], purpose: str) -> tuple[Key, ...]:
    """Return the keys of a purpose, one for each swarm."""
    made: tuple[Key, ...] = _kept((keys, purpose), lambda: tuple(key.fold(purpose) for key in keys))
    return made
