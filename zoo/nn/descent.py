"""Steps along gradient estimates that are seeds and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_flag, check_number
from zoo.nn.half import HALF, round_stochastically
from zoo.nn.laws import buffer_for, in_memory_order, pieces
from zoo.nn.parameters import Parameters
from zoo.nn.seeded import SeededEstimate, Source, Sum, as_parameters, check_layout, terms_of


@dataclass(frozen=True)
class Descent:
    """The plain step: x <- x - lr (g + decay x), g being the estimate.

    Args:
        learning_rate: A number, or one for each parameter group; or a function of the step's number that
            returns either.
        weight_decay: The share decay of a weight that a step of learning rate 1 takes off, decoupled from the
            estimate; a number, or one for each group.
        decayed: Which parameters decay: "matrices", those of two and more dimensions, so neither biases nor
            the scales of normalization layers; "all"; or a function of name and tensor.
        sign: Whether each entry of g is replaced by its sign: all move by the learning rate.
        normalised: Whether g is divided by n times the standard deviation of its coefficients, so that
            neither the size of the loss nor the smoothing matters: with Rademacher directions and a forward
            stencil this is FZOO,

                x <- x - lr sum_i (L_i - L_0) / (n sigma) z_i,    sigma the standard deviation of the L_i.

            Directions that all say the same leave x where it is.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Example:
        >>> Descent(lambda step: 0.1 / (1 + step)).rates(4, 2)
        (0.02, 0.02)

    References:
        Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
        https://arxiv.org/abs/1711.05101
        Dang et al., "FZOO: fast zeroth-order optimizer for fine-tuning large language models towards
        Adam-scale speed", 2025. https://arxiv.org/abs/2506.09034
    """

    learning_rate: float | Sequence[float] | Callable[[int], Any] = 1e-3
    weight_decay: float | Sequence[float] = 0.0
    decayed: str | Callable[[str, Tensor], bool] = "matrices"
    sign: bool = False
    normalised: bool = False

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            _per_group("learning_rate", self.learning_rate, None)
        _per_group("weight_decay", self.weight_decay, None)
        if not callable(self.decayed):
            check_choice("decayed", self.decayed, ("matrices", "all"))
        check_flag("sign", self.sign)
        check_flag("normalised", self.normalised)
        if self.sign and self.normalised:
            raise ValueError("`normalised` has no effect on signs; give one of `sign` and `normalised`.")

    def rates(self, step: int, num_groups: int) -> tuple[float, ...]:
        """Return the learning rate of each parameter group."""
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        return _per_group("learning_rate", rate, num_groups)

    def decays(self, params: Parameters) -> tuple[float, ...]:
        """Return the weight decay of each tensor."""
        each = _per_group("weight_decay", self.weight_decay, num_groups(params))
        return tuple(
            each[group] if each[group] and self._decays(name, tensor) else 0.0
            for name, tensor, group in zip(params.names, params.tensors, params.groups, strict=True)
        )

    def weights(self, estimate: SeededEstimate) -> tuple[float, ...]:
        """Return what each direction of an estimate is multiplied by; NaN for those that are dropped.

        Raises:
            ValueError: An estimate of one direction is to be normalised.
        """
        if not self.normalised:
            return estimate.coefficients
        if len(estimate.coefficients) < 2:
            raise ValueError("`normalised` takes estimates of at least 2 directions, got one of 1.")
        coefficients = np.array(estimate.coefficients, np.float64)
        valid = np.isfinite(coefficients)
        spread = float(coefficients[valid].std()) if valid.any() else 0.0
        if spread == 0:
            return (math.nan,) * len(coefficients)
        return tuple((coefficients / (int(valid.sum()) * spread)).tolist())

    def _decays(self, name: str, tensor: Tensor) -> bool:
        if callable(self.decayed):
            return bool(self.decayed(name, tensor))
        return self.decayed == "all" or tensor.ndim > 1


class Applied(NamedTuple):
    """What a step did.

    Attributes:
        moved: Share of all entries that are another number now. In half precision a step far below the
            distance between two numbers moves few, each by far more.
        learning_rates: Of each parameter group.
        decays: Weight decay of each tensor.
        update: The kind of step.
        beta: Share of the past that the memory keeps; None for steps without one.
    """

    moved: float
    learning_rates: tuple[float, ...]
    decays: tuple[float, ...]
    update: Descent
    beta: float | None = None


class Memory(Protocol):
    """What a kind of step remembers of the steps before.

    Attributes:
        beta: Which share of it is kept in a step.
    """

    beta: float

    def source(
        self, estimate: SeededEstimate, number: int, tensor: Tensor, weights: Sequence[float]
    ) -> Source:
        """Take a step's estimate in, and return what a tensor is moved against."""
        ...


def apply_(params: Any, estimate: SeededEstimate, update: Descent, memory: Memory | None = None) -> Applied:
    """Take a step, drawing the directions of an estimate again, a piece at a time.

    Weights of half precision are rounded stochastically (`zoo.nn.half`), so that steps below the distance
    between two numbers are right in the mean. With a learning rate of 0, or an estimate none of whose
    directions is valid, every bit stays as it was. A step that is interrupted has moved some tensors and not
    others: go on from weights that were saved, or from a log (`zoo.nn.trajectory`).

    Args:
        params: What the estimate was made of.
        estimate: From `zoo.nn.seeded.Seeded`.
        update: What kind of step.
        memory: For steps that have one, `zoo.nn.low_rank_momentum.LowRankMomentum`; it is changed in place.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The parameters are not those of the estimate, or a value of `update` is out of range.
    """
    if not isinstance(estimate, SeededEstimate):
        raise TypeError(f"`estimate` must be what `Seeded.estimate` returned, got {estimate!r}.")
    if not isinstance(update, Descent):
        raise TypeError(f"`update` must be a Descent, such as Descent(1e-3), got {update!r}.")
    if memory is not None and not (callable(getattr(memory, "source", None)) and hasattr(memory, "beta")):
        raise TypeError(f"`memory` must be a LowRankMomentum or None, got {memory!r}.")
    known = as_parameters(params)
    check_layout(estimate, known)
    rates = update.rates(estimate.step, num_groups(known))
    return move_(known, estimate, update, rates, update.decays(known), memory)


def move_(
    params: Parameters,
    estimate: SeededEstimate,
    update: Descent,
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    memory: Memory | None,
) -> Applied:
    """Take a step with learning rates of the groups and weight decays of the tensors as they are given."""
    weights = update.weights(estimate)
    counts = []
    for number, tensor in enumerate(params.tensors):
        terms = terms_of(estimate, number, tensor, weights)
        if not terms:
            continue
        source: Source = Sum(estimate.law, terms, tensor)
        if memory is not None:
            source = memory.source(estimate, number, tensor, weights)
        rate = rates[params.groups[number]]
        if rate == 0:
            continue
        rounding = estimate.key.fold("rounding", estimate.step, number)
        counts.append(_move_(tensor, source, rate, decays[number], update.sign, rounding))
    moved = int(torch.stack(counts).sum()) / params.dim if counts else 0.0
    return Applied(moved, rates, decays, update, None if memory is None else memory.beta)


class SeededSGD(torch.optim.Optimizer):
    """Steps of `apply_` as an optimizer of torch, for its schedulers, parameter groups and `state_dict`.

    Args:
        params: Tensors, (name, tensor) pairs, or groups of them, which may have an "lr" and a "weight_decay"
            of their own.
        lr: Learning rate.
        weight_decay: See `Descent`, as for `decayed`, `sign` and `normalised`.
        decayed: Which parameters decay.
        sign: Whether each entry moves by the learning rate.
        normalised: Whether the estimate is divided by the spread of its coefficients.

    Attributes:
        parameters: What estimates are made of.

    Example:
        >>> from zoo.nn.seeded import Seeded
        >>> from zoo.nn.models.mlp import mlp
        >>> model = mlp((2, 1), key=Key(0))
        >>> estimator, x = Seeded(), torch.ones(1, 2)
        >>> optimizer = SeededSGD(model.named_parameters(), lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        >>> for step in range(2):
        ...     estimate = estimator.estimate(optimizer.parameters, lambda: model(x).sum(), Key(0), step)
        ...     applied = optimizer.step(estimate)
        ...     scheduler.step()
        >>> applied.learning_rates
        (0.05,)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        *,
        decayed: str | Callable[[str, Tensor], bool] = "matrices",
        sign: bool = False,
        normalised: bool = False,
    ) -> None:
        Descent(lr, weight_decay, decayed, sign, normalised)
        self._kind = (decayed, sign, normalised)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @property
    def parameters(self) -> Parameters:
        """The trainable ones among the parameters of all groups."""
        groups = []
        for group in self.param_groups:
            members = group["params"]
            names = group.get("param_names")
            groups.append({"params": list(zip(names, members, strict=True)) if names else members})
        return Parameters(groups)

    @property
    def update(self) -> Descent:
        """The step as its groups have it now."""
        rates, decays = (
            [float(group[name]) for group in self.param_groups] for name in ("lr", "weight_decay")
        )
        trained = num_groups(self.parameters)  # the last groups may be frozen
        return Descent(rates[:trained], decays[:trained], *self._kind)

    def step(self, estimate: SeededEstimate) -> Applied:  # type: ignore[override]
        """Take a step; see `apply_`."""
        return apply_(self.parameters, estimate, self.update)


def num_groups(params: Parameters) -> int:
    """Return how many parameter groups there are."""
    return max(params.groups) + 1


def _move_(tensor: Tensor, source: Source, rate: float, decay: float, sign: bool, rounding: Key) -> Tensor:
    """Move a tensor against a sum of directions; return how many entries changed, as a tensor."""
    flat = in_memory_order(tensor).view(-1)
    buffer = buffer_for(tensor)
    changed = torch.zeros((), dtype=torch.int64, device=tensor.device)
    kept = 1 - rate * decay
    for start, stop in pieces(tensor):
        part, here = buffer[: stop - start], flat[start:stop]
        source.fill_(part, start)
        if sign:
            part.sign_()
        part.mul_(-rate).add_(here if kept == 1 else here.to(part.dtype) * kept)
        if tensor.dtype in HALF:
            part = round_stochastically(part, tensor.dtype, rounding.fold(start))
        changed += torch.count_nonzero(here - part)  # half the time of `!=`
        here.copy_(part)
    return changed


def _per_group(name: str, value: Any, num_groups: int | None) -> tuple[float, ...]:
    """Return a number for each group, or raise."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value] * (num_groups or 1)
    if not numbers:
        raise ValueError(f"`{name}` must be a number, or one for each group, got {value!r}.")
    for number in numbers:
        if not (math.isfinite(check_number(name, number)) and number >= 0):
            raise ValueError(f"`{name}` must be a finite number of at least 0, got {number!r}.")
    if num_groups is not None and len(numbers) != num_groups:
        raise ValueError(
            f"`{name}` must be one number or one for each of {num_groups} groups, got {value!r}."
        )
    return tuple(float(number) for number in numbers)
