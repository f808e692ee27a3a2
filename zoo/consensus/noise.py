"""The normal numbers of a step, for any number of swarms: keyed by swarm, step and particle.

A swarm's numbers are a function of its own key, so what it does is the same among a hundred others as it is
alone, and those of a particle are the same whatever range of particles is asked for. Those of a small swarm
are drawn for several steps at once: to set a generator up takes longer than to draw a thousand numbers.

All but small numpy swarms of double precision get numbers of single precision, whatever precision they are in
themselves: it is four to seven times as fast, and a factor with noise in it needs no more than seven digits.
On the CPU they are those of `Key.fill_quick`, which says how they are drawn: a stretch of up to 65536 by each
key. No such number is beyond 6.8, as one in 10^11 would be. Double precision, rows longer than that, and
other devices get those of `Key.fill_normal`; none of single precision is then beyond 5.8, as one in 10^8
would be.

The law, for a swarm of `key` in step t, with `count` particles of `dim` numbers:

* count dim <= 8192: with s = 32768 // (count dim) steps drawn together, the numbers of step t begin with
  number (t mod s) count dim of those of `key.fold("noise", "steps", t // s)`, in a stretch of s count dim.
* else, dim <= 65536: with groups of h particles, about equal and as large as 65536 numbers allow, those of
  particle i begin with number (i mod h) dim of those of `key.fold("noise", t).fold(i // h)`, in a stretch of
  h dim.
* longer rows are those of `key.fold("noise", t)`.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from zoo.core.device import Array, Like
from zoo.core.rng import QUICK, Key, whole_stretch

_SMALL = 8192  # numbers a step, up to which several steps are drawn together
_TOGETHER = 32768  # numbers of a swarm drawn together
_LARGE = 2**16  # numbers a step, from which on torch draws for numpy as well; it takes a second to import
_PIECE = 32768  # numbers of several swarms worked on together
_DEVICE_PIECE = 2**22  # numbers of a swarm on a device worked on together
_LONG_ROW = QUICK  # numbers of a swarm drawn by one key, at most; longer rows are drawn in pieces
_SINGLE = Like("torch", "float32")
_KEPT = 2**27  # bytes kept, over all swarms of a thread
_MOST = 2**26  # bytes of swarms that go together; where they need more, fewer steps are kept


_Place: TypeAlias = tuple[int, int, tuple[Key, ...]]


class _Local(threading.local):
    def __init__(self) -> None:
        self.drawn: OrderedDict[Any, tuple[tuple[int, int, tuple[Key, ...]], Array, list[Array]]] = (
            OrderedDict()
        )
        self.size = 0
        self.spare: dict[tuple[int, int], tuple[Array, Array]] = {}  # memory of a group used last, if any


_local = _Local()


def clear_cache() -> None:
    """Forget what was drawn for steps to come."""
    _local.drawn.clear()
    _local.spare.clear()
    _local.size = 0


def empty(shape: tuple[int, ...], like: Like) -> Array:
    """Return an array of a kind, with anything in it."""
    if like.kind == "numpy":
        return np.empty(shape, like.dtype)
    import torch

    return torch.empty(shape, dtype=like.torch_dtype, device=like.device)


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

    Example:
        >>> keys, like = [Key(0), Key(1)], Like("numpy", "float64")
        >>> both, second = normal(keys, 7, 0, 5, 5, 3, like), normal(keys[1:], 7, 2, 4, 5, 3, like)
        >>> bool((second[0] == both[1, 2:4]).all())
        True
    """
    out = empty((len(keys), stop - start, dim), like)
    for swarms, rows, columns, numbers in blocks(keys, step, start, stop, count, dim, like):
        out[swarms, rows, columns] = numbers
    return out


def blocks(
    keys: Sequence[Key],
    step: int,
    start: int,
    stop: int,
    count: int,
    dim: int,
    like: Like,
    whole_rows: bool = False,
    moments: tuple[float, float] = (0.0, 1.0),
) -> Iterator[tuple[slice, slice, slice, Array]]:
    """Draw the numbers of `normal` a piece at a time, for work that stays in the processor's cache.

    Args:
        keys: As the following ones, see `normal`.
        step: Number of the step.
        start: First particle.
        stop: One past the last.
        count: Particles of a swarm.
        dim: Coordinates of a particle.
        like: Kind, dtype and device.
        whole_rows: Whether rows longer than 65536 must come whole, too.
        moments: Mean and standard deviation of the numbers, which cost nothing here.

    Yields:
        Which swarms, which particles counted from `start`, which coordinates, and their numbers: not to be
        written to, of single or double precision, and there until the next piece is asked for. Pieces are
        whole rows, but for very long ones.
    """
    size = count * dim
    source = _source(like, size)
    if size <= _SMALL:
        whole = _of_small(tuple(keys), step, count, dim, like, source, moments)
        height = max(1, _PIECE // size)
        if stop - start == count and height >= len(keys):
            yield slice(0, len(keys)), slice(0, count), slice(0, dim), whole
            return
        for first in range(0, len(keys), height):
            swarms = slice(first, min(first + height, len(keys)))
            yield swarms, slice(0, stop - start), slice(0, dim), whole[swarms, start:stop]
        return
    for index, key in enumerate(keys):
        swarms = slice(index, index + 1)
        law = key.fold("noise", step)
        if dim > _LONG_ROW:
            pieces = _long_rows(law, start, stop, dim, source, whole_rows, moments)
        elif _is_quick(source):
            pieces = _quick_groups(law, start, stop, _height(count, dim, 1), dim, moments)
        else:
            pieces = _groups(law, start, stop, _height(count, dim, 16), dim, source, moments)
        for rows, columns, numbers in pieces:
            drawn = numbers.numpy() if like.kind == "numpy" and source.kind == "torch" else numbers
            yield swarms, rows, columns, drawn


@functools.lru_cache(maxsize=64)
def _source(like: Like, size: int) -> Like:
    """Return by which generator numbers are drawn, for swarms of so many a step."""
    if like.kind == "numpy" and like.dtype == "float64" and size < _LARGE:
        return like
    return Like("torch", "float32", like.device)


def _is_quick(source: Like) -> bool:
    """Return whether `Key.fill_quick` draws for a source."""
    return source.kind == "torch" and source.device == "cpu"


def _quick_groups(
    law: Key, start: int, stop: int, height: int, dim: int, moments: tuple[float, float]
) -> Iterator[tuple[slice, slice, Array]]:
    """Draw rows in groups of a height, each by a key of its own, into the same memory."""
    size, (mean, std) = height * dim, moments
    spare = _local.spare
    # Those of a generator that is still being read are not there.
    memory, whole = spare.pop((height, dim)) if (height, dim) in spare else _room(height, dim)
    try:
        for group in range(start // height, -(-stop // height)):
            begin = group * height
            top, bottom = max(start, begin) - begin, min(stop, begin + height) - begin
            key, rows = law.fold(group), slice(begin + top - start, begin + bottom - start)
            if bottom - top == height:
                key.fill_quick(memory, size=size, mean=mean, std=std)
                yield rows, slice(0, dim), whole
            else:
                part = memory[top * dim : bottom * dim]
                key.fill_quick(part, top * dim, size=size, mean=mean, std=std)
                yield rows, slice(0, dim), part.view(1, -1, dim)
    finally:
        spare.clear()
        spare[height, dim] = memory, whole


def _room(height: int, dim: int) -> tuple[Array, Array]:
    """Return memory for a stretch of so many rows, and these in it, shape (1, height, dim)."""
    memory = empty((whole_stretch(height * dim),), _SINGLE)
    return memory, memory[: height * dim].view(1, height, dim)


def _groups(
    law: Key, start: int, stop: int, height: int, dim: int, like: Like, moments: tuple[float, float]
) -> Iterator[tuple[slice, slice, Array]]:
    """Draw rows in groups of a height, each by a key of its own, on a device or in double precision."""
    on_device, size = like.device != "cpu", height * dim
    # A device's numbers depend on how many are drawn, and it wants more to do at a time.
    together = max(1, _DEVICE_PIECE // size) if on_device else 1
    first, last = start // height, -(-stop // height)
    memory = empty((min(together, max(0, last - first)), size), like)
    for begin in range(first, last, together):
        end = min(begin + together, last)
        for group in range(begin, end):
            drawn = size if on_device else min(size, (stop - group * height) * dim)
            part = memory[group - begin : group - begin + 1, :drawn]
            law.fold(group).fill_normal(part, mean=moments[0], std=moments[1])
        top, bottom = max(start, begin * height), min(stop, end * height)
        numbers = memory.reshape(-1, dim)[top - begin * height : bottom - begin * height]
        yield slice(top - start, bottom - start), slice(0, dim), numbers[None]


@functools.lru_cache(maxsize=256)
def _height(count: int, dim: int, multiple: int) -> int:
    """Return how many particles are drawn by one key: about equal groups of at most 65536 numbers.

    If it can be done, a group is to hold a multiple of some number of them.
    """
    even = multiple // math.gcd(dim, multiple)
    most = max(1, _LONG_ROW // dim)
    most = most // even * even or most
    height = -(-count // -(-count // most))
    return min(most, -(-height // even) * even)


def _long_rows(
    law: Key, start: int, stop: int, dim: int, like: Like, whole_rows: bool, moments: tuple[float, float]
) -> Iterator[tuple[slice, slice, Array]]:
    """Draw rows of more than 65536 numbers, in pieces or whole."""
    mean, std = moments
    if not whole_rows:
        for rows, columns, drawn in law.normal_blocks(start, stop, dim, like=like, mean=mean, std=std):
            yield rows, columns, drawn[None]
        return
    numbers = empty((1, dim), like)
    for row in range(start, stop):
        law.fill_normal(numbers, row, mean=mean, std=std)
        yield slice(row - start, row - start + 1), slice(0, dim), numbers[None]


def _of_small(
    keys: tuple[Key, ...],
    step: int,
    count: int,
    dim: int,
    like: Like,
    source: Like,
    moments: tuple[float, float],
) -> Array:
    """Return the numbers of a step of small swarms, shape (m, count, dim), not to be written to."""
    size = count * dim
    steps = _TOGETHER // size
    number, within = divmod(step, steps)
    parts = -(-steps * len(keys) * size * (4 if source.dtype == "float32" else 8) // _MOST)
    height = -(-steps // min(parts, steps))
    place = number, within // height, keys
    # Not by all keys: it takes time to hash them.
    name = keys[0], keys[-1], len(keys), count, dim, like, moments
    known = _local.drawn.get(name)
    if known is None or known[0] != place:
        memory = None
        if known is not None:
            memory = _local.drawn.pop(name)[1]
            _local.size -= memory.nbytes
        first = place[1] * height
        last = min(first + height, steps)
        drawn = _draw(keys, number, first, last, size, source, memory, moments)
        numbers = drawn.numpy() if like.kind == "numpy" and source.kind == "torch" else drawn
        numbers = numbers[:, : (last - first) * size].reshape(len(keys), last - first, count, dim)
        known = _local.drawn[name] = place, drawn, [numbers[:, index] for index in range(last - first)]
        _local.size += drawn.nbytes
        while _local.size > _KEPT:
            _local.size -= _local.drawn.popitem(last=False)[1][1].nbytes
    return known[2][within % height]


def _draw(
    keys: tuple[Key, ...],
    number: int,
    first: int,
    last: int,
    size: int,
    like: Like,
    memory: Array,
    moments: tuple[float, float],
) -> Array:
    """Return the numbers of some steps in a row, at least, a row for each swarm, in old memory if it fits."""
    (mean, std), steps, wanted = moments, _TOGETHER // size, (last - first) * size
    is_quick = _is_quick(like)
    if is_quick and wanted == steps * size:
        wanted = whole_stretch(wanted)
    shape = len(keys), wanted
    out = memory if memory is not None and tuple(memory.shape) == shape else empty(shape, like)
    for row, key in zip(out, keys, strict=True):
        law = key.fold("noise", "steps", number)
        if is_quick:
            law.fill_quick(row, first * size, size=steps * size, mean=mean, std=std)
        else:
            law.fill_normal(row.reshape(-1, size), first, mean=mean, std=std)
    return out
