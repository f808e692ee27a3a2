"""Gradient estimates that are seeds and numbers: training in the memory of inference.

A direction is a place in the run (`zoo.nn.laws`), from which its entries can be drawn again at any time. So
an estimate is one number for each direction, and neither a gradient nor a direction is ever held:

    estimate:  c_i = (L(x + h z_i) - L(x - h z_i)) / (2 h n)    central, 2 n forward passes
               c_i = (L(x + h z_i) - L(x)) / (h n)              forward, n + 1 forward passes
    apply:     x <- x - lr (sum_i c_i z_i + decay x)

Functions of torch see perturbed copies of the weights, made for the call and freed after it
(`zoo.nn.perturbed`), so a forward pass takes the memory of inference and that of one tensor, and weights are
written to by `apply_` alone.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.core.device import Like
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count, check_positive
from zoo.nn.isolation import isolated
from zoo.nn.laws import (
    Gaussian,
    Place,
    Rademacher,
    TensorLaw,
    buffer_for,
    draw,
    in_memory_order,
    pieces,
)
from zoo.nn.low_rank import Lozo, SubZero
from zoo.nn.parameters import Parameters
from zoo.nn.perturbed import Perturbed, uncompiled

LAWS: dict[str, Callable[..., TensorLaw]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "lozo": Lozo,
    "subzero": SubZero,
}
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class SeededEstimate:
    """What one step says about the gradient, as seeds and numbers.

    Attributes:
        key: Key of the run's directions.
        step: Number of the step.
        law: The law of the directions.
        coefficients: For each direction, what it enters the gradient with, a number of single precision; NaN
            where it was dropped.
        value: Loss at the base; with a central stencil the mean of all losses.
        num_valid: Directions that entered.
        queries: Forward passes that it took.
        layout: Digest of the names, shapes and dtypes of the parameters.
    """

    key: Key
    step: int
    law: TensorLaw
    coefficients: tuple[float, ...]
    value: float
    num_valid: int
    queries: int
    layout: str

    def direction(self, params: Any, number: int) -> list[Tensor]:
        """Return the direction of a number, a tensor for each parameter, of at least single precision."""
        known = as_parameters(params)
        check_layout(self, known)
        return [draw(self.law, place, tensor) for place, tensor in _places(self, known, number)]

    def dense(self, params: Any) -> list[Tensor]:
        """Return the gradient, a tensor for each parameter, of at least single precision.

        It is for models that have the memory, and for tests: an optimizer of torch can be given these.
        """
        known = as_parameters(params)
        check_layout(self, known)
        dense = []
        for number, tensor in enumerate(known.tensors):
            source = Sum(self.law, terms_of(self, number, tensor, self.coefficients), tensor)
            whole = torch.empty_like(tensor, dtype=source.dtype, requires_grad=False)
            flat = in_memory_order(whole).view(-1)
            for start, stop in pieces(tensor):
                source.fill_(flat[start:stop], start)
            dense.append(whole)
        return dense


@dataclass(frozen=True)
class Seeded:
    """An estimator of gradients that keeps no direction.

    Args:
        law: Of the directions, each tensor by itself: "gaussian", "rademacher", "lozo", "subzero", or a law
            of `zoo.nn.laws` and `zoo.nn.low_rank`.
        num_directions: Directions a step, n.
        smoothing: The distance h, in units of the weights.
        stencil: "central" or "forward".

    A direction whose losses are not finite is dropped, and the sum divided by what is left; when the base of
    a forward stencil is not finite, all are.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Example:
        >>> from zoo.nn.descent import Descent, apply_
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.randn(8, 2), torch.randn(8, 1)
        >>> def closure():
        ...     return (layer(x) - y).square().mean()
        >>> estimator = Seeded(num_directions=4)
        >>> for step in range(50):
        ...     estimate = estimator.estimate(layer, closure, Key(0), step)
        ...     applied = apply_(layer, estimate, Descent(0.05))
        >>> estimate.queries, bool(estimate.value < 2)
        (8, True)

    References:
        Malladi et al., "Fine-tuning language models with just forward passes", 2023.
        https://arxiv.org/abs/2305.17333
        Dang et al., "FZOO: fast zeroth-order optimizer for fine-tuning large language models towards
        Adam-scale speed", 2025. https://arxiv.org/abs/2506.09034
    """

    law: str | TensorLaw = "gaussian"
    num_directions: int = 1
    smoothing: float = 1e-3
    stencil: str = "central"
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", as_law(self.law))
        check_count("num_directions", self.num_directions)
        check_positive("smoothing", self.smoothing)
        check_choice("stencil", self.stencil, ("central", "forward"))

    @property
    def queries(self) -> int:
        """Forward passes of a step."""
        return 2 * self.num_directions if self.stencil == "central" else self.num_directions + 1

    def estimate(self, params: Any, closure: Callable[[], Any], key: Key, step: int) -> SeededEstimate:
        """Return an estimate of the gradient of what a closure returns; nothing else changes.

        The closure is called as in `zoo.nn.isolation`: each time with the same dropout masks, buffers put
        back, without a graph of gradients.

        Args:
            params: A module, or what `torch.optim` takes; see `zoo.nn.parameters`.
            closure: Returns the loss of the step's batch, a tensor with one element or a number.
            key: Key of the run's directions and of what the closure draws.
            step: Number of the step.

        Raises:
            TypeError: The closure returned something that is no single real number.
            RuntimeError: The closure wrote to a parameter, or computed with none where it can be seen.

        Warns:
            ZooWarning: Some parameters were never computed with; or the smoothing is lost to rounding.
        """
        known = as_parameters(params)
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"`step` must be an integer of at least 0, got {step!r}.")
        assert isinstance(self.law, TensorLaw)
        self._check_weights(known)
        buffers = {dtype: _buffer(known, dtype) for dtype in {tensor.dtype for tensor in known.tensors}}
        versions = [tensor._version for tensor in known.tensors]
        losses: list[Any] = []
        with isolated(key.fold("closure", step)) as isolation, uncompiled():
            for direction, sign in self._evaluations():
                perturbed = self._perturbed(known, key, step, direction, sign * self.smoothing, buffers)

                def call(perturbed: Perturbed = perturbed) -> Any:
                    with perturbed:
                        return closure()

                losses.append(_loss(isolation.call(call)))
                perturbed.forget()
                if len(losses) == 1:
                    self._check_seen(known, perturbed.seen)
        for name, tensor, version in zip(known.names, known.tensors, versions, strict=True):
            if tensor._version != version:
                raise RuntimeError(
                    f"the closure wrote to the parameter {name!r}. A closure must leave parameters as they "
                    "are: compute with a changed copy, or do it outside the closure."
                )
        values, epsilon = _numbers(losses)
        differences = self._differences(values)
        valid = np.isfinite(differences)
        num_valid = int(valid.sum())
        self._check_differences(differences[valid], values, epsilon)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.clip(differences / (self.smoothing * max(1, num_valid)), -_LARGEST, _LARGEST)
        finite = values[np.isfinite(values)]
        value = values[0] if self.stencil == "forward" else finite.mean() if len(finite) else math.nan
        return SeededEstimate(
            key,
            step,
            self.law,
            tuple(scaled.astype(np.float32).tolist()),
            float(value),
            num_valid,
            len(values),
            layout_of(known),
        )

    def described(self) -> dict[str, Any]:
        """Return all arguments as plain values."""
        assert isinstance(self.law, TensorLaw)
        return {
            "law": self.law.described(),
            "num_directions": self.num_directions,
            "smoothing": self.smoothing,
            "stencil": self.stencil,
        }

    def _evaluations(self) -> Iterator[tuple[int, int]]:
        """Yield the direction and the sign of every forward pass; sign 0 is the base."""
        if self.stencil == "forward":
            yield 0, 0
        for direction in range(self.num_directions):
            yield direction, 1
            if self.stencil == "central":
                yield direction, -1

    def _perturbed(
        self,
        known: Parameters,
        key: Key,
        step: int,
        direction: int,
        distance: float,
        buffers: dict[torch.dtype, Tensor],
    ) -> Perturbed:
        law: Any = self.law

        def copy(number: int) -> Tensor:
            tensor = known.tensors[number].detach()
            if distance == 0:
                return tensor
            made, buffer = torch.empty_like(tensor), buffers[tensor.dtype]
            source, flat = in_memory_order(tensor), in_memory_order(made).view(-1)
            place = Place(key, step, direction, number, tuple(source.shape))
            plan, source = law.plan(place, buffer), source.view(-1)
            for start, stop in pieces(tensor):
                part = buffer[: stop - start]
                law.fill_(part, place, plan, start)
                if tensor.dtype == part.dtype:
                    torch.add(source[start:stop], part, alpha=distance, out=flat[start:stop])
                else:
                    flat[start:stop] = part.mul_(distance).add_(source[start:stop])
            return made

        return Perturbed(known.tensors, known.names, copy)

    def _differences(self, values: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.stencil == "forward":
                return values[1:] - values[0]
            return values[::2] / 2 - values[1::2] / 2

    def _check_seen(self, known: Parameters, seen: set[int]) -> None:
        missed = [name for number, name in enumerate(known.names) if number not in seen]
        if not seen:
            raise RuntimeError(
                "the closure computed with none of the parameters where torch functions can be watched. "
                "TorchScript, CUDA graphs and other threads cannot be: let closures call the plain module, "
                "in this thread."
            )
        if missed and "seen" not in self._warned:
            self._warned.add("seen")
            warnings.warn(
                f"the closure did not compute with {len(missed)} of {len(known)} parameters, {missed[0]!r} "
                "among them, or did so in TorchScript, where perturbations are not seen. Steps move them at "
                "random: set `requires_grad` to False for what is not to be trained.",
                ZooWarning,
                stacklevel=3,
            )

    def _check_weights(self, known: Parameters) -> None:
        if not known.is_half or "weights" in self._warned:
            return
        self._warned.add("weights")

    def _check_differences(self, differences: Any, values: Any, epsilon: float) -> None:
        del differences, values, epsilon


class Source(Protocol):
    """What a tensor is moved against, a piece at a time."""

    def fill_(self, out: Tensor, start: int) -> None:
        """Write the entries from `start` on, one of `zoo.nn.laws.pieces`."""
        ...


class Sum:
    """A weighted sum of directions of one tensor, a piece at a time.

    Args:
        law: Of the directions.
        terms: Places and weights.
        like: The tensor.
    """

    def __init__(self, law: TensorLaw, terms: Sequence[tuple[Place, float]], like: Tensor) -> None:
        self._law, self._buffer = law, buffer_for(like)
        self.dtype = self._buffer.dtype
        self._terms = [(place, weight, law.plan(place, self._buffer)) for place, weight in terms]

    def fill_(self, out: Tensor, start: int) -> None:
        if not self._terms:
            out.zero_()
        for number, (place, weight, plan) in enumerate(self._terms):
            part = out if number == 0 else self._buffer[: len(out)]
            self._law.fill_(part, place, plan, start)
            if number == 0:
                out.mul_(weight)
            else:
                out.add_(part, alpha=weight)


def as_law(law: str | TensorLaw) -> TensorLaw:
    """Return a law by its name, or as it is."""
    if isinstance(law, TensorLaw):
        return law
    if not isinstance(law, str):
        raise TypeError(f"`law` must be a law of zoo.nn.laws or the name of one, got {law!r}.")
    return LAWS[check_choice("law", law, LAWS)]()


def as_parameters(params: Any) -> Parameters:
    """Return the trainable parameters of a module, or as they are."""
    return params if isinstance(params, Parameters) else Parameters(params)


def layout_of(params: Parameters) -> str:
    """Return a digest of the names, shapes, dtypes and order in memory of parameters."""
    total = hashlib.sha256()
    for name, tensor in zip(params.names, params.tensors, strict=True):
        shape = tuple(in_memory_order(tensor).shape)
        total.update(f"{name!r} {tuple(tensor.shape)} {shape} {tensor.dtype};".encode())
    return total.hexdigest()[:16]


def _places(estimate: SeededEstimate, params: Parameters, direction: int) -> Iterator[tuple[Place, Tensor]]:
    for number, tensor in enumerate(params.tensors):
        shape = tuple(in_memory_order(tensor).shape)
        yield Place(estimate.key, estimate.step, direction, number, shape), tensor


def terms_of(
    estimate: SeededEstimate, number: int, tensor: Tensor, weights: Iterable[float]
) -> list[tuple[Place, float]]:
    """Return the directions of a tensor that enter a sum, and their weights; NaN drops one."""
    shape = tuple(in_memory_order(tensor).shape)
    return [
        (Place(estimate.key, estimate.step, direction, number, shape), weight)
        for direction, weight in enumerate(weights)
        if math.isfinite(weight)
    ]


def check_layout(estimate: SeededEstimate, params: Parameters) -> None:
    """Raise ValueError if an estimate was made of other parameters."""
    if layout_of(params) != estimate.layout:
        raise ValueError(
            "`params` must be what the estimate was made of, in the same order and form: they have other "
            "names, shapes or dtypes."
        )


def _buffer(params: Parameters, dtype: torch.dtype) -> Tensor:
    """Return memory for a piece of any of the parameters of a dtype."""
    return max(
        (buffer_for(tensor) for tensor in params.tensors if tensor.dtype == dtype), key=lambda made: len(made)
    )


def _loss(value: Any) -> Any:
    """Return what a closure returned, off the memory of whatever it was computed with."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            raise TypeError(
                "the closure must return a single real number, got a tensor of shape "
                f"{tuple(value.shape)} and {value.dtype}; take its mean in double precision."
            )
        return value.detach().reshape(())
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"the closure must return a single real number, got {type(value).__name__}.")
    return float(value)


def _numbers(losses: list[Any]) -> tuple[Any, float]:
    """Return losses as float64, with one copy off a device, and the rounding of their dtype."""
    if not all(isinstance(loss, Tensor) for loss in losses):
        return np.array([float(loss) for loss in losses]), 2.0**-52
    coarsest = max((Like.of(loss).epsilon for loss in losses if loss.is_floating_point()), default=2.0**-52)
    return torch.stack([loss.double() for loss in losses]).cpu().numpy(), coarsest
