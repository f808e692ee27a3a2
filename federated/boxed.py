"""Tasks whose box is not the unit box, as methods see them: in shares of its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.task import Task
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like
from zoo.core.rng import Key

Vector = np.ndarray[Any, Any]


class Boxed(Task):
    """A task in the coordinates u = (x - lower) / (upper - lower) of its box.

    Learning rates and distances of methods are in units of x, and their defaults are those of papers in which
    x is in [0, 1]. In shares of the box they are right whatever units the user's variables have. Coordinates
    that the box fixes stay as they are.

    Args:
        task: Its bounds are finite.
    """

    def __init__(self, task: Task) -> None:
        bounds = task.bounds
        assert bounds is not None
        self.task, self.box = task, bounds
        width = bounds.upper / 2 - bounds.lower / 2  # which is a number where the whole width is none
        self._half = np.where(width > 0, width, 0.5)
        self._known: dict[Like, tuple[Array, Array]] = {}
        self.num_clients, self.dim = task.num_clients, task.dim
        self.bounds = Bounds(np.zeros(task.dim), (width > 0).astype(np.float64))
        self.unit, self.joint, self.spacing = task.unit, task.joint, task.spacing
        self.measures, self.optimum = task.measures, task.optimum

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    def outward(self, u: Array) -> Array:
        """Return the task's own x of some points, shape (..., dim)."""
        lower, half = self._sides(u)
        return self.box.map(lower + u * half + u * half, "clip")

    def inward(self, x: Array) -> Array:
        """Return the points that some x of the task are, shape (..., dim)."""
        assert self.bounds is not None
        lower, half = self._sides(x)
        return self.bounds.map((x / 2 - lower / 2) / half, "clip")

    def start(self, key: Key) -> Array:
        return self.inward(self.task.start(key))

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        return self.task.values(client, self.outward(x), key=key)

    def joint_values(self, clients: Vector, x: Array, keys: Sequence[Key]) -> Any:
        return self.task.joint_values(clients, self.outward(x), keys)

    def gradient(self, client: int, x: Array) -> Array:
        half = self._sides(x)[1]
        return self.task.gradient(client, self.outward(x)) * half * 2

    @property
    def has_gradient(self) -> bool:
        return self.task.has_gradient

    def weight(self, client: int) -> float:
        return self.task.weight(client)

    def measure(self, client: int, x: Array) -> dict[str, float]:
        return self.task.measure(client, self.outward(x))

    def identity(self) -> Mapping[str, Any]:
        return self.task.identity()

    def _sides(self, x: Array) -> tuple[Array, Array]:
        """Return the lower walls, and half of the widths, as arrays like `x`."""
        like = Like.of(x)
        if like not in self._known:
            self._known[like] = like.asarray(self.box.lower), like.asarray(self._half)
        return self._known[like]


def boxed(task: Task) -> Task:
    """Return a task as methods are to see it: itself, unless it has a finite box other than [0, 1].

    Example:
        >>> from federated.tasks.functions import FunctionTask
        >>> wide = FunctionTask(lambda client, x: (x - client).sum(), 2, x0=[5.0], bounds=[(0, 10)])
        >>> boxed(wide).start(Key(0)).tolist()
        [0.5]
    """
    bounds = task.bounds
    if bounds is None or not bounds.finite or (not bounds.lower.any() and (bounds.upper == 1).all()):
        return task
    return Boxed(task)
