"""FedAvg: local steps along exact gradients, for reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from federated.algorithm import Local
from federated.algorithms.local_descent import Averaging, Estimating
from zoo.core.device import Array, array_module


@dataclass(frozen=True)
class FedAvg(Averaging):
    """Local steps along exact gradients, and the mean of where they end.

        x_i <- x_i - learning_rate update(grad f_i(x_i)),      num_steps times, from x_r on
        x_(r+1) = x_r + server_rate (mean_i x_i - x_r)

    This shows what heterogeneous clients do to local steps where no estimate is to blame: each goes towards a
    minimum of its own, and Adam's steps keep their length there, so that the mean stays away from the minimum
    of F.

    It asks for no values, and for `num_steps` gradients a round, which are counted by themselves. A gradient
    that is not finite makes no step.

    All arguments are those of `LocalDescent`.

    Example:
        >>> FedAvg().most_queries(300, True)
        0

    References:
        McMahan, Moore, Ramage, Hampson and Arcas, "Communication-efficient learning of deep networks from
        decentralized data", 2017. https://arxiv.org/abs/1602.05629
    """

    needs_gradient = True

    def estimate(self, x: Array, memory: Any, local: Local, step: int) -> Estimating:
        yield from ()
        gradient = local.gradient(x)
        return memory, gradient if bool(array_module(gradient).isfinite(gradient).all()) else None

    def most_queries(self, dim: int, first: bool) -> int:
        return 0

    @classmethod
    def published(cls, **options: Any) -> Self:
        """Return it as the code of Shu et al. has it, where iterates may leave the box, but for some options.

        That code also has the server undo a round that has not lowered F; this does not.
        """
        return cls(**{"num_steps": 10, "learning_rate": 0.01, "bounded": False, **options})
