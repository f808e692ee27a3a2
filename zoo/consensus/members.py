"""Some particles of each swarm, and what they are told: what a consensus-based step passes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.core.device import Array, array_module
from zoo.core.state import state

Matrix = np.ndarray[Any, Any]


@state
class Members:
    """Some particles of each swarm, in a row.

    Attributes:
        start: Number of the first.
        offsets: Where they are, from the anchors, shape (m, k, dim).
        memory: The best points they have been at, from there too, shape (m, k, dim); no rows without memory.
        remembered: Values there, infinite where there is none yet, shape (m, k); no columns without memory.
        energies: Values of the last step, infinite where failed or not asked for, shape (m, k).
    """

    start: int
    offsets: Array
    memory: Array
    remembered: Matrix
    energies: Matrix

    @property
    def stop(self) -> int:
        """One past the number of the last."""
        return self.start + int(self.offsets.shape[1])

    @property
    def points(self) -> Array:
        """What takes part in the consensus."""
        return self.memory if self.memory.shape[1] else self.offsets

    @property
    def heights(self) -> Matrix:
        """Values of these points."""
        return self.remembered if self.memory.shape[1] else self.energies

    def cut(self, start: int, stop: int) -> Members:
        """Return those of some numbers; views."""
        if (start, stop) == (self.start, self.stop):
            return self
        rows = slice(start - self.start, stop - self.start)
        parts = (self.offsets, self.memory, self.remembered, self.energies)
        return Members(start, *(part[:, rows] for part in parts))


def join(parts: Sequence[Members]) -> Members:
    """Return members that follow each other as one."""
    xp = array_module(parts[0].offsets)
    return Members(
        parts[0].start,
        xp.concatenate([part.offsets for part in parts], 1),
        xp.concatenate([part.memory for part in parts], 1),
        np.concatenate([part.remembered for part in parts], 1),
        np.concatenate([part.energies for part in parts], 1),
    )


@state
class Move:
    """What all particles are told when they move.

    Attributes:
        number: Moves before this one.
        count: Particles of a swarm.
        anchor: The consensus points, from which particles are measured from now on, shape (m, dim), float64.
        shift: How far these have moved, shape (m, dim), float64.
        cooling: What the strength of noise is multiplied by.
        height: Values of the consensus points, shape (m,), where the drift is corrected by them; else empty.
        restart: Which swarms are shaken, shape (m,); empty where none is.
    """

    number: int
    count: int
    anchor: Array
    shift: Array
    cooling: float
    height: Matrix
    restart: Matrix
