"""A law of directions that carries the memory of an estimator beside that of another law."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from zoo.core.device import Array
from zoo.estimators.directions import Directions, Draw


class Wrapped(Directions):
    """Another law as it is; subclasses say what is remembered beside it, and what that changes.

    The memory is a pair: what is remembered here, and the memory of the other law.
    """

    law: Directions

    @abc.abstractmethod
    def begin(self, x: Array) -> Any:
        """Return what is remembered at the start of a run."""

    def size(self, dim: int) -> int:
        return self.law.size(dim)

    def norm(self, dim: int) -> float:
        return self.law.norm(dim)

    def factor(self, dim: int) -> float:
        return self.law.factor(dim)

    def most(self, dim: int) -> int | None:
        return self.law.most(dim)

    def available(self, draw: Draw) -> int:
        return self.law.available(draw)

    def groups(self, draw: Draw, plan: Any) -> tuple[np.ndarray[Any, Any], list[float]]:
        return self.law.groups(draw, plan)

    def init(self, x: Array) -> tuple[Any, Any]:
        return self.begin(x), self.law.init(x)

    def shipped(self, memory: Any) -> Any:
        return self.law.shipped(memory[1])

    def plan(self, draw: Draw, memory: Any) -> Any:
        return self.law.plan(draw, memory)

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return self.law.draw(draw, start, stop, memory, plan)

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        return self.law.part(draw, index, memory, plan)

    def project(self, gradient: Array, memory: Any) -> Array:
        return self.law.project(gradient, memory[1])

    def learn(self, memory: Any, x: Array, gradient: Array) -> Any:
        return memory[0], self.law.learn(memory[1], x, gradient)
