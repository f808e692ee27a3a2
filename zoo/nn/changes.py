"""Candidates that differ from one point in a single coordinate each, and the mini-batch they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zoo.core.device import Array, Like
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations
from zoo.nn.masks import Masks


@dataclass(frozen=True)
class Choice:
    """Coordinates that masks let through in a period; what travels is how to draw them.

    Attributes:
        masks: How many of which layer.
        key: Where they come from.
        period: Which draw it is.
    """

    masks: Masks
    key: Key
    period: int

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """Which coordinates, ascending."""
        return self.masks.indices(self.key, self.period)


class Differences(NamedTuple):
    """What the values of `Changes` say.

    Attributes:
        gradient: Shape (dim,), of the base's kind: 0 wherever no difference is known.
        value: Value at the base; where it was not asked for, the mean of all values; NaN if there is none.
        num_valid: Coordinates whose difference is known.
    """

    gradient: Array
    value: float
    num_valid: int


class Changes(Candidates):
    """A base, and the base with one coordinate changed by h, for some coordinates.

    Rows of the forward stencil: the base, then x + h e_i for every coordinate i in ascending order. Of the
    central one: x + h e_i for all of them, then x - h e_i for all of them.

    Args:
        base: Shape (dim,); not to be written to afterwards.
        choice: Which coordinates, or None for all.
        smoothing: The distance h.
        stencil: "forward" or "central".
        batch: Number of the mini-batch that they are for.

    Example:
        >>> changes = Changes(np.zeros(2), None, 0.5, "forward", batch=0)
        >>> changes.rows(0, 3).tolist()
        [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]
        >>> changes.estimate(Evaluations([1.0, 1.5, float("nan")])).gradient.tolist()
        [1.0, 0.0]
    """

    __slots__ = ("base", "batch", "choice", "smoothing", "stencil")

    def __init__(
        self, base: Array, choice: Choice | None, smoothing: float, stencil: str, batch: int
    ) -> None:
        self.base, self.choice, self.smoothing = base, choice, smoothing
        self.stencil, self.batch = stencil, batch

    @property
    def decisive(self) -> bool:
        return False

    @property
    def dim(self) -> int:
        return len(self.base)

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """Which coordinates change, ascending."""
        return np.arange(self.dim) if self.choice is None else self.choice.indices

    @property
    def count(self) -> int:
        """How many coordinates change."""
        return self.dim if self.choice is None else self.choice.masks.num_active

    @property
    def lead(self) -> int:
        """Rows in front of the changed ones: 1 for the base, or 0."""
        return int(self.stencil == "forward")

    def __len__(self) -> int:
        return self.count * 2 if self.stencil == "central" else self.count + 1

    def signs(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return by how many h each row is changed: 1 or -1, and 0 for the base."""
        rows = np.arange(start, stop)
        if self.stencil == "central":
            return np.where(rows < self.count, 1, -1)
        return np.where(rows > 0, 1, 0)

    def coordinates(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return which coordinate is changed in each row; for the base, any."""
        places = (np.arange(start, stop) - self.lead) % self.count
        return places if self.choice is None else self.choice.indices[places]

    def rows(self, start: int, stop: int) -> Array:
        like = Like.of(self.base)
        out = like.asarray(np.empty((stop - start, self.dim), like.working_dtype))
        out[:] = self.base
        places = np.arange(stop - start), self.coordinates(start, stop)
        steps = like.asarray(self.smoothing * self.signs(start, stop).astype(np.float64))
        out[places] = out[places] + steps
        return out

    def estimate(self, evaluations: Evaluations) -> Differences:
        """Return the gradient that the values of all rows give.

            forward:  g_i = (f(x + h e_i) - f(x)) / h
            central:  g_i = (f(x + h e_i) - f(x - h e_i)) / (2 h)

        A failed evaluation drops its coordinate, and that of the base drops all of them.

        Raises:
            ValueError: There is not a value for every row.
        """
        if len(evaluations) != len(self):
            raise ValueError(f"`evaluations` must have {len(self)} values, got {len(evaluations)}.")
        values, count = evaluations.values, self.count
        if self.stencil == "central":
            slopes = (values[:count] - values[count:]) / (2 * self.smoothing)
            known = values[np.isfinite(values)]
            value = float(known.mean()) if len(known) else float("nan")
        else:
            slopes, value = (values[1:] - values[0]) / self.smoothing, float(values[0])
        like = Like.of(self.base)
        gradient = like.asarray(np.zeros(self.dim))
        valid = np.isfinite(slopes)
        places = self.indices.copy()  # torch warns of an index that may not be written to
        gradient[places] = like.asarray(np.where(valid, slopes, 0.0))
        return Differences(gradient, value, int(valid.sum()))


class OnBatch(Candidates):
    """Candidates that are all for one mini-batch, whatever step of the run asks for them.

    Args:
        candidates: The candidates.
        batch: Number of the mini-batch.
    """

    __slots__ = ("batch", "candidates")

    def __init__(self, candidates: Candidates, batch: int) -> None:
        self.candidates, self.batch = candidates, batch

    @property
    def decisive(self) -> bool:
        return self.candidates.decisive

    @property
    def dim(self) -> int:
        return self.candidates.dim

    def __len__(self) -> int:
        return len(self.candidates)

    def rows(self, start: int, stop: int) -> Array:
        return self.candidates.rows(start, stop)

    def noise(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return self.candidates.noise(start, stop)
