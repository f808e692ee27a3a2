"""What methods have in common whose points follow from seeds and numbers."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import numpy as np

from federated.algorithm import Problem
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.fingerprint import name_of
from zoo.core.types import Candidates
from zoo.estimators.directions import Directions, Draw
from zoo.estimators.finite_difference import chunks

LARGEST = 1e30
"""Of slopes that travel: single precision holds it, and sums of many."""

KNOWN: MutableMapping[tuple[str, Like], Array] = weakref.WeakValueDictionary()
"""Points that clients of this process hold, by digests of what has led there."""


class Fenced(Candidates):
    """Candidates, each at the nearest point inside a box.

    Args:
        inner: The candidates.
        bounds: The box.
    """

    __slots__ = ("bounds", "inner")

    def __init__(self, inner: Candidates, bounds: Bounds) -> None:
        self.inner, self.bounds = inner, bounds

    @property
    def decisive(self) -> bool:
        return self.inner.decisive

    @property
    def dim(self) -> int:
        return self.inner.dim

    def __len__(self) -> int:
        return len(self.inner)

    def rows(self, start: int, stop: int) -> Array:
        return self.bounds.map(self.inner.rows(start, stop), "clip")


class Some(Candidates):
    """Some candidates in a row, of others.

    Args:
        inner: The others.
        start: The first one of them.
        stop: One past the last.
    """

    __slots__ = ("inner", "start", "stop")

    def __init__(self, inner: Candidates, start: int, stop: int) -> None:
        self.inner, self.start, self.stop = inner, start, stop

    @property
    def decisive(self) -> bool:
        return self.inner.decisive

    @property
    def dim(self) -> int:
        return self.inner.dim

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self, start: int, stop: int) -> Array:
        return self.inner.rows(self.start + start, self.start + stop)


def root_of(method: object, said: Sequence[Any], x0: Array, problem: Problem, bounds: Bounds | None) -> str:
    """Return the digest of a run at its beginning: of all that points follow from but for messages.

    Args:
        method: The algorithm, of which its class counts.
        said: Its numbers and names that points depend on.
        x0: Where the run begins.
        problem: Of which the key counts.
        bounds: Box that points are kept in, or None.
    """
    known = repr((name_of(type(method)), *said, str(Like.of(x0)), str(problem.key), bounds is None))
    root = hashlib.blake2b(known.encode(), digest_size=16)
    for array in (to_numpy(x0), *(() if bounds is None else (bounds.lower, bounds.upper))):
        root.update(np.ascontiguousarray(array).tobytes())
    return root.hexdigest()


def followed(history: str, *events: bytes) -> str:
    """Return the digest of a history that has gone on."""
    digest = hashlib.blake2b(bytes.fromhex(history), digest_size=16)
    for event in events:
        digest.update(event)
    return digest.hexdigest()


def shared(history: str, like: Like, make: Callable[[], Array]) -> Array:
    """Return the point that a history has led to: the one that others hold, or else a new one.

    A thousand clients that are at the same point hold it once. Nobody may write to it.

    Args:
        history: Its digest.
        like: Kind of array.
        make: Works the point out.
    """
    known = KNOWN.get((history, like))
    if known is None:
        known = KNOWN[history, like] = make()
    return known


def combined(law: Directions, draw: Draw, amounts: Sequence[float], x: Array) -> Array:
    """Return the sum of amounts times directions, shape (dim,), the same bytes wherever it is formed.

    Args:
        law: A law without memory.
        draw: Which directions.
        amounts: One for each.
        x: An array of the kind wanted.
    """
    total = array_module(x).zeros_like(x)
    # One by one: a product of matrices may be rounded otherwise elsewhere.
    for start, stop in chunks(draw.count, draw.dim):
        rows = law.draw(draw, start, stop, None, None)
        for amount, row in zip(amounts[start:stop], rows, strict=True):
            if amount:
                total += amount * row
    return total
