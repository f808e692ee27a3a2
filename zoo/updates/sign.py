"""Signs of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.core.device import Array, array_module


@dataclass(frozen=True)
class Sign:
    """The sign of every entry: each coordinate moves equally far, however large its slope.

    Example:
        >>> import numpy as np
        >>> Sign().update(None, np.array([3.0, 0.0, -0.5]))[1].tolist()
        [1.0, 0.0, -1.0]

    References:
        Liu, Chen, Chen and Hong, "signSGD via zeroth-order oracle", 2019.
        https://openreview.net/forum?id=BJe-DsC5Fm
    """

    def init(self, x: Array) -> Any:
        del x

    def update(self, memory: Any, gradient: Array) -> tuple[Any, Array]:
        return memory, array_module(gradient).sign(gradient)
