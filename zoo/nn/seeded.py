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
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count, check_positive
from zoo.nn.closures import Calls, gathered
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
from zoo.nn.perturbed import Copy, Perturbed, uncompiled

LAWS: dict[str, Callable[..., TensorLaw]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "lozo": Lozo,
    "subzero": SubZero,
}
_LARGEST = float(np.finfo(np.float32).max)
_CHECKED = 1000  # the closure is looked at in the first two steps of so many
# Spacings of a parameter to its neighbours in its dtype. On a network of bfloat16 for digits, slopes measured
# with a smoothing of 2 of them had a correlation of .9 with the exact ones, of 5 one of .99.
_LOST, _CLEAR = 2, 8
_DROWNED = 16  # spacings of a loss, below which a difference is mostly rounding
_UNSEEN = (
    "the closure computed with none of the parameters where functions of torch can be watched. TorchScript, "
    "CUDA graphs and other threads cannot be: let closures call the plain module, in this thread."
)


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
        """Return the direction of a number, a tensor for each parameter, of at least single precision.

        Raises:
            ValueError: There is no such direction.
        """
        if check_count("number", number, minimum=0) >= len(self.coefficients):
            raise ValueError(f"`number` must be below {len(self.coefficients)}, got {number}.")
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
        >>> from zoo.nn.models.mlp import mlp
        >>> model, x = mlp((2, 1), key=Key(0)), torch.linspace(-1, 1, 8).view(4, 2)
        >>> def closure():
        ...     return (model(x) - x.sum(1, keepdim=True)).square().mean()
        >>> estimator = Seeded(num_directions=4)
        >>> for step in range(50):
        ...     estimate = estimator.estimate(model, closure, Key(0), step)
        ...     applied = apply_(model, estimate, Descent(0.1))
        >>> estimate.queries, estimate.value < 1e-2
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
        back, without a graph of gradients. In the first two steps of every thousand it is called once more,
        at a point where it was before, and its answer and the smoothing are checked.

        Args:
            params: A module, or what `torch.optim` takes; see `zoo.nn.parameters`.
            closure: Returns the loss of the step's batch, a tensor with one element or a number.
            key: Key of the run's directions and of what the closure draws.
            step: Number of the step.

        Raises:
            TypeError: An argument, or what the closure returns, is of the wrong type.
            ValueError: `step` is negative, or the loss is several numbers; and see `Parameters`.
            RuntimeError: The closure writes to a parameter, or computes with none where it can be seen.

        Warns:
            ZooWarning: The closure returned two values for the same point, or did not compute with some of
                the parameters, or with their memory by way of other tensors; the smoothing is lost in
                rounding; or all losses failed.
        """
        if not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        if not callable(closure):
            raise TypeError(f"`closure` must be a function that returns the loss, got {closure!r}.")
        known, step = as_parameters(params), check_count("step", step, minimum=0)
        layout = layout_of(known)
        buffers = {dtype: _buffer(known, dtype) for dtype in {tensor.dtype for tensor in known.tensors}}
        versions = [tensor._version for tensor in known.tensors]
        modules = () if known.module is None else (known.module,)
        losses: list[Any] = []
        checked = step % _CHECKED < 2
        with isolated(key.fold("closure", step), modules) as isolation, uncompiled():
            perturbed = Perturbed(known.tensors, known.names, aliases=checked)

            def watched() -> Any:
                with perturbed:
                    return closure()

            calls = Calls(isolation, watched)
            evaluations = list(self._evaluations())
            for direction, sign in evaluations[:1] * checked + evaluations:
                distance = sign * self.smoothing
                perturbed.use(self._copying(known, key, step, direction, distance, buffers))
                losses.append(calls())
                if not perturbed.seen:
                    raise RuntimeError(_UNSEEN)
        _check_versions(known, versions)
        values = gathered(losses)
        values, again = values[checked:], values[:checked]
        differences = self._differences(values)
        valid = np.isfinite(differences)
        num_valid = int(valid.sum())
        if checked:
            self._warn(known, perturbed, differences[valid], values, again, calls)
        if not num_valid:
            warnings.warn(
                "every difference of the step failed, as losses were NaN or infinite: the step will change "
                "nothing. The parameters may have grown out of hand; lower the learning rate.",
                ZooWarning,
                stacklevel=2,
            )
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.clip(differences / (self.smoothing * max(1, num_valid)), -_LARGEST, _LARGEST)
        finite = values[np.isfinite(values)]
        value = values[0] if self.stencil == "forward" else finite.mean() if len(finite) else math.nan
        assert isinstance(self.law, TensorLaw)
        return SeededEstimate(
            key,
            step,
            self.law,
            tuple(np.where(valid, scaled, np.nan).astype(np.float32).tolist()),
            float(value),
            num_valid,
            calls.count,
            layout,
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

    def _copying(
        self,
        known: Parameters,
        key: Key,
        step: int,
        direction: int,
        distance: float,
        buffers: dict[torch.dtype, Tensor],
    ) -> Copy | None:
        """Return what writes the copy of a tensor at a distance along a direction; None at the base."""
        law: Any = self.law
        if distance == 0:
            return None

        def copy(number: int, made: Tensor) -> None:
            tensor = known.tensors[number].detach()
            buffer = buffers[tensor.dtype]
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

        return copy

    def _differences(self, values: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.stencil == "forward":
                return values[1:] - values[0]
            return values[::2] / 2 - values[1::2] / 2

    def _warn(
        self, known: Parameters, perturbed: Perturbed, differences: Any, values: Any, again: Any, calls: Calls
    ) -> None:
        """Say what is wrong with the closure and the smoothing."""
        if perturbed.aliased:
            name = known.names[min(perturbed.aliased)]
            warnings.warn(
                f"the closure computed with another tensor in the memory of the parameter {name!r}, a view "
                "that was made before, and there it is not perturbed: the estimate lacks that part. Make "
                "views where they are used, as with `.t()` in `forward`, or share the parameter itself.",
                ZooWarning,
                stacklevel=3,
            )
        missed = [name for number, name in enumerate(known.names) if number not in perturbed.seen]
        if missed:
            warnings.warn(
                f"the closure did not compute with {len(missed)} of {len(known)} parameters, {missed[0]!r} "
                "among them, or did so where it is not seen, as in TorchScript. Steps move them at random: "
                "set `requires_grad` to False for what is not to be trained.",
                ZooWarning,
                stacklevel=3,
            )
        share, needed = _lost(known, self.smoothing)
        if share > 0.5:
            warnings.warn(
                f"a smoothing of {self.smoothing:.1e} is lost in the rounding of the parameters: it moves "
                f"{100 * share:.0f} % of them by less than {_LOST} of their spacings in their dtype. Use "
                f"smoothing={needed:.1e} or more, or parameters of higher precision.",
                ZooWarning,
                stacklevel=3,
            )
        finite = values[np.isfinite(values)]
        if not len(differences) or not len(finite):
            return
        spacing = calls.spacing(finite)
        typical = float(np.sqrt(np.mean(differences**2))) * (2 if self.stencil == "central" else 1)
        if typical < _DROWNED * spacing:
            wider = f"{self.smoothing * _DROWNED * spacing / typical:.1e}" if typical else "more"
            warnings.warn(
                f"a smoothing of {self.smoothing:.1e} is lost in the rounding of the loss: two values along "
                f"a direction differ by {typical:.1e}, at a spacing of {spacing:.1e}. Use "
                f"smoothing={wider}, or compute the loss in higher precision.",
                ZooWarning,
                stacklevel=3,
            )
        noise = float(abs(values[0] - again[0]))
        if noise > _DROWNED * spacing:
            warnings.warn(
                f"the closure returned {again[0]:.9g} and then {values[0]:.9g} for the same parameters, a "
                f"noise of {noise:.1e}, where values along a direction differ by {typical:.1e}. Global "
                "generators and buffers are the same at every call, so something else changes: take the "
                "batch outside of the closure, and draw from generators of your own outside of it too.",
                ZooWarning,
                stacklevel=3,
            )


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
        """Write the entries from `start` on, one of `zoo.nn.laws.pieces`."""
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


def _check_versions(params: Parameters, versions: list[int]) -> None:
    for name, tensor, version in zip(params.names, params.tensors, versions, strict=True):
        if tensor._version != version:
            raise RuntimeError(
                f"the closure wrote to the parameter {name!r}. A closure must leave parameters as they are: "
                "compute with a changed copy, or do it outside the closure."
            )


def _lost(params: Parameters, smoothing: float) -> tuple[float, float]:
    """Return which share of entries a smoothing hardly moves, and the one with which half move far enough."""
    every = max(1, params.dim // 2**16)
    spacings = torch.cat(
        [
            torch.finfo(tensor.dtype).eps * in_memory_order(tensor).view(-1)[::every].abs().double()
            for tensor in params.tensors
        ]
    )
    return float((_LOST * spacings > smoothing).double().mean()), _CLEAR * float(spacings.median())
