"""FedProx: local steps that are drawn back to where the round began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from federated.algorithms.fedzo import FedZO
from zoo.core.device import Array, Like
from zoo.core.validation import check_number


@dataclass(frozen=True)
class FedProx(FedZO):
    """`FedZO` on f_i(x) + proximal / 2 |x - x_r|^2, whose second part is known and takes no queries.

        x_i <- x_i - learning_rate update(g_i(x_i) + proximal (x_i - x_r))

    The code of Shu et al. sets `proximal` to 1 and divides g_i by dim, by which the proximal term counts for
    dim times as much; so it hardly moves. Here both are in the same units.

    Args:
        proximal: The weight of the second part, at least 0; with 0 this is `FedZO`. All other arguments are
            those of `ZerothOrder`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> FedProx(proximal=0.1).most_queries(300, True)
        60

    References:
        Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, "Federated optimization in heterogeneous networks",
        2020. https://arxiv.org/abs/1812.06127
        In zeroth-order form: Shu, Lin, Dai and Low, "Federated zeroth-order optimization using
        trajectory-informed surrogate gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    proximal: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= check_number("proximal", self.proximal) < float("inf"):
            raise ValueError(f"`proximal` must be finite and at least 0, got {self.proximal!r}.")

    @classmethod
    def published(cls, **options: Any) -> Self:
        return super().published(**{"proximal": 1.0, **options})

    def correction(self, start: Array) -> Callable[[Array], Array]:
        return lambda x: self.proximal * (x - Like.of(x).asarray(start))
