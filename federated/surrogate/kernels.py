"""Kernels of a Gaussian process and what its derivatives need of them, all by squared distance."""

from __future__ import annotations

import abc

from zoo.core.device import Array, array_module
from zoo.core.validation import check_choice


class Kernel(abc.ABC):
    """A kernel k(x, x') of amplitude 1 that depends on the distance r of its arguments and a length l.

    With delta = x - x' its derivatives are

        d k / dx = -c delta,    d^2 k / dx dx'^T = c I - h delta delta^T

    so that both are known from r^2 alone, whatever the dimension.
    """

    name: str
    """As users write it."""

    @abc.abstractmethod
    def value(self, square: Array, length: float) -> Array:
        """Return k for squared distances, an array of one dimension or more."""

    @abc.abstractmethod
    def slope(self, square: Array, length: float) -> Array:
        """Return c for squared distances."""

    @abc.abstractmethod
    def curvature(self, square: Array, length: float) -> Array:
        """Return h for squared distances."""

    @abc.abstractmethod
    def prior(self, length: float) -> float:
        """Return the prior variance of a derivative along one axis, c at distance 0."""


class Matern(Kernel):
    """The Matern kernel of smoothness 5/2.

        k = (1 + u + u^2 / 3) exp(-u),  u = sqrt(5) r / l
        c = 5 / (3 l^2) (1 + u) exp(-u),  h = 25 / (3 l^4) exp(-u)

    Example:
        >>> import numpy as np
        >>> Matern().value(np.array([0.0, 1.0]), 2.0).round(4).tolist(), Matern().prior(1.0)
        ([1.0, 0.8286], 1.6666666666666667)
    """

    name = "matern"

    def value(self, square: Array, length: float) -> Array:
        xp = array_module(square)
        u = square * (5 / length**2)
        xp.sqrt(u, out=u)
        factor = u * (1 / 3)
        factor += 1
        factor *= u
        factor += 1
        u *= -1
        factor *= xp.exp(u, out=u)
        return factor

    def slope(self, square: Array, length: float) -> Array:
        xp = array_module(square)
        u = square * (5 / length**2)
        xp.sqrt(u, out=u)
        factor = u + 1
        u *= -1
        factor *= xp.exp(u, out=u)
        factor *= self.prior(length)
        return factor

    def curvature(self, square: Array, length: float) -> Array:
        xp = array_module(square)
        return xp.exp(-xp.sqrt(square * (5 / length**2))) * (25 / (3 * length**4))

    def prior(self, length: float) -> float:
        return 5 / (3 * length**2)


class RBF(Kernel):
    """The squared exponential kernel: k = exp(-r^2 / (2 l^2)), c = k / l^2, h = k / l^4.

    Example:
        >>> import numpy as np
        >>> RBF().value(np.array([0.0, 1.0]), 2.0).round(4).tolist(), RBF().prior(2.0)
        ([1.0, 0.8825], 0.25)
    """

    name = "rbf"

    def value(self, square: Array, length: float) -> Array:
        return array_module(square).exp(square * (-0.5 / length**2))

    def slope(self, square: Array, length: float) -> Array:
        return self.value(square, length) * self.prior(length)

    def curvature(self, square: Array, length: float) -> Array:
        return self.value(square, length) * self.prior(length) ** 2

    def prior(self, length: float) -> float:
        return 1 / length**2


_KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (Matern(), RBF())}

KERNELS = tuple(_KERNELS)
"""Names that `kernel` knows."""


def kernel(name: str) -> Kernel:
    """Return the kernel of a name.

    Raises:
        ValueError: There is none of that name.
    """
    return _KERNELS[check_choice("kernel", name, KERNELS)]
