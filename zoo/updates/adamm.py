"""Adaptive momentum whose second moments never fall."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.core.device import Array, array_module
from zoo.core.state import state
from zoo.core.validation import check_fraction, check_positive


@state
class AdaMMMemory:
    """Moments of the gradients so far.

    Attributes:
        first: Running mean, shape (dim,).
        second: Running mean of squares, shape (dim,).
        largest: The largest of these so far, entry by entry, shape (dim,).
    """

    first: Array
    second: Array
    largest: Array


@dataclass(frozen=True)
class AdaMM:
    """The mean of past gradients over the root of the largest mean of their squares that there was.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- max(w, v)
        direction = m / (sqrt(w) + epsilon)

    As w never falls, no coordinate's steps grow again for a while of small gradients, which is where Adam may
    diverge. As in the paper, and unlike in Adam, the means are not rid of their start at 0: after n like
    gradients the direction has entries (1 - beta1^n) / sqrt(1 - beta2^n), about 3 at first.

    Where points are confined to a set, the paper projects onto it in a norm weighted by sqrt(w). The weights
    are one for each coordinate, so in a box the nearest point is found coordinate by coordinate, whatever
    they are: that projection is clipping, which is what `zoo.methods.descent.Descent` does. Without bounds
    there is none.

    Args:
        beta1: Share of the past in the mean.
        beta2: Share of the past in the mean of squares.
        epsilon: Keeps the quotient finite; in units of the gradient, outside the root.

    Example:
        >>> import numpy as np
        >>> update = AdaMM(beta1=0.5, beta2=0.75)
        >>> memory, first = update.update(update.init(np.zeros(1)), np.array([4.0]))
        >>> memory, second = update.update(memory, np.zeros(1))
        >>> first.round(6).tolist(), second.round(6).tolist()
        ([1.0], [0.5])

    References:
        Chen, Liu, Xu, Li, Lin, Hong and Cox, "ZO-AdaMM: zeroth-order adaptive momentum method for black-box
        optimization", 2019. https://arxiv.org/abs/1910.06513
        Reddi, Kale and Kumar, "On the convergence of Adam and beyond" (AMSGrad), 2018.
        https://arxiv.org/abs/1904.09237
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_fraction("beta1", self.beta1)
        check_fraction("beta2", self.beta2)
        check_positive("epsilon", self.epsilon)

    def init(self, x: Array) -> AdaMMMemory:
        zeros = array_module(x).zeros_like(x)
        return AdaMMMemory(zeros, zeros, zeros)

    def update(self, memory: AdaMMMemory, gradient: Array) -> tuple[AdaMMMemory, Array]:
        xp = array_module(gradient)
        first = self.beta1 * memory.first + (1 - self.beta1) * gradient
        second = self.beta2 * memory.second + (1 - self.beta2) * (gradient * gradient)
        largest = xp.maximum(memory.largest, second)
        return AdaMMMemory(first, second, largest), first / (xp.sqrt(largest) + self.epsilon)
