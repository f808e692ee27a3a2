"""Adam."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.core.device import Array, array_module
from zoo.core.state import state
from zoo.core.validation import check_fraction, check_positive


@state
class AdamMemory:
    """Moments of the gradients so far.

    Attributes:
        first: Running mean, shape (dim,).
        second: Running mean of squares, shape (dim,).
        count: Number of gradients.
    """

    first: Array
    second: Array
    count: int


@dataclass(frozen=True)
class Adam:
    """The mean of past gradients over the root of the mean of their squares, both rid of their start at 0.

        m <- beta1 m + (1 - beta1) g          m' = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) g^2        v' = v / (1 - beta2^t)
        direction = m' / (sqrt(v') + epsilon)

    Args:
        beta1: Share of the past in the mean.
        beta2: Share of the past in the mean of squares.
        epsilon: Keeps the quotient finite; in units of the gradient, outside the root.

    Example:
        >>> import numpy as np
        >>> adam = Adam()
        >>> adam.update(adam.init(np.zeros(2)), np.array([2.0, -0.1]))[1].round(6).tolist()
        [1.0, -1.0]

    References:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015. https://arxiv.org/abs/1412.6980
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_fraction("beta1", self.beta1)
        check_fraction("beta2", self.beta2)
        check_positive("epsilon", self.epsilon)

    def init(self, x: Array) -> AdamMemory:
        zeros = array_module(x).zeros_like(x)
        return AdamMemory(zeros, zeros, 0)

    def update(self, memory: AdamMemory, gradient: Array) -> tuple[AdamMemory, Array]:
        count = memory.count + 1
        first = self.beta1 * memory.first + (1 - self.beta1) * gradient
        second = self.beta2 * memory.second + (1 - self.beta2) * (gradient * gradient)
        root = array_module(gradient).sqrt(second / (1 - self.beta2**count))
        return AdamMemory(first, second, count), first / (1 - self.beta1**count) / (root + self.epsilon)
