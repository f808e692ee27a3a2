"""Momentum in the space that directions of low rank share: as small as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.core.validation import check_fraction
from zoo.nn.laws import Place, buffer_for, pieces
from zoo.nn.low_rank import Factors, Lozo, in_one_thread
from zoo.nn.seeded import SeededEstimate, Source, Sum, terms_of


class LowRankMomentum:
    """The momentum of LOZO-M: r numbers for each row of a matrix.

        N <- beta N + (1 - beta) sum_i c_i U_i,    and the step goes against N V^T / sqrt(r)

    while V stays; when it is drawn anew, N goes over to the new space first: N <- N V_old^T V_new / n.
    Tensors that are no matrices have the same momentum with all their entries, of which they have few. A step
    none of whose directions was valid leaves it as it is.

    It follows from the start and the estimates, so a trajectory brings it back.

    Args:
        beta: Share of the past that is kept, at least 0 and below 1.

    Raises:
        TypeError: `beta` is no number.
        ValueError: `beta` is out of range.

    Example:
        >>> from zoo.core.rng import Key
        >>> from zoo.nn.descent import Descent, apply_
        >>> from zoo.nn.seeded import Seeded
        >>> from zoo.nn.models.mlp import mlp
        >>> model, momentum = mlp((100, 30), key=Key(0)), LowRankMomentum(0.9)
        >>> estimator, x = Seeded("lozo"), torch.ones(1, 100)
        >>> estimate = estimator.estimate(model, lambda: model(x).sum(), Key(0), 0)
        >>> applied = apply_(model, estimate, Descent(0.1), momentum)
        >>> {name: tuple(tensor.shape) for name, tensor in momentum.state_dict()["tensors"].items()}
        {'0': (30, 2), '1': (30,)}

    References:
        Chen, Zhang, Cao, Yuan and Wen, "Enhancing zeroth-order fine-tuning for language models with low-rank
        structures", 2025. https://arxiv.org/abs/2410.07698
    """

    def __init__(self, beta: float = 0.9) -> None:
        self.beta = check_fraction("beta", beta)
        self._held: dict[int, Tensor] = {}
        self._steps: dict[int, int] = {}  # the last that each is of

    def source(
        self, estimate: SeededEstimate, number: int, tensor: Tensor, weights: Sequence[float]
    ) -> Source:
        """Take a step's estimate in, and return what a tensor is moved against.

        Raises:
            TypeError: The law of the estimate is not `Lozo`.
            ValueError: The estimate is of a step that is in already.
        """
        law = estimate.law
        if not isinstance(law, Lozo):
            raise TypeError(
                "`memory` takes estimates with directions of `zoo.nn.low_rank.Lozo`, which share a space, "
                f"got {law!r}."
            )
        last = self._steps.get(number)
        if last is not None and estimate.step <= last:
            raise ValueError(f"`estimate` is of step {estimate.step}, and step {last} is in already.")
        terms = terms_of(estimate, number, tensor, weights)
        buffer = buffer_for(tensor)
        self._steps[number] = estimate.step
        if tensor.ndim < 2:
            return _Whole(self._whole(number, Sum(law, terms, tensor), buffer, tensor))
        places = [place for place, _ in terms]
        new = sum(weight * law.plan(place, buffer).left for place, weight in terms)
        right = law.right(places[0], buffer)
        held = self._held.get(number)
        if held is None:
            held = torch.zeros_like(new)
        elif last is not None and last // law.period != estimate.step // law.period:
            old = law.right(_at(places[0], last), buffer)
            with in_one_thread():
                held = held @ (old.T @ right) / len(right)
        # The factors of a direction hold the 1 / sqrt(r).
        self._held[number] = held = self.beta * held + (1 - self.beta) * new
        return Factors(held, right)

    def state_dict(self) -> dict[str, Any]:
        """Return all there is to a momentum; it is not copied."""
        return {
            "beta": self.beta,
            "tensors": {str(number): tensor for number, tensor in self._held.items()},
            "steps": {str(number): step for number, step in self._steps.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: `state` is something else.
        """
        if not isinstance(state, dict) or set(state) != {"beta", "tensors", "steps"}:
            raise ValueError("`state` must be what `LowRankMomentum.state_dict` returned.")
        self.beta = check_fraction("beta", state["beta"])
        self._held = {int(number): tensor.clone() for number, tensor in state["tensors"].items()}
        self._steps = {int(number): step for number, step in state["steps"].items()}

    def _whole(self, number: int, source: Sum, buffer: Tensor, like: Tensor) -> Tensor:
        held = self._held.get(number)
        if held is None:
            held = self._held[number] = torch.zeros(like.numel(), dtype=buffer.dtype, device=like.device)
        for start, stop in pieces(like):
            part = buffer[: stop - start]
            source.fill_(part, start)
            held[start:stop].mul_(self.beta).add_(part, alpha=1 - self.beta)
        return held


class _Whole:
    """A tensor of which pieces are wanted."""

    def __init__(self, flat: Tensor) -> None:
        self._flat = flat

    def fill_(self, out: Tensor, start: int) -> None:
        out.copy_(self._flat[start : start + len(out)])


def _at(place: Place, step: int) -> Place:
    return place._replace(step=step)
