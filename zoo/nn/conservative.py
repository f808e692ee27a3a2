"""Steps that are taken back when they do harm."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.nn.closures import Calls
from zoo.nn.isolation import isolated
from zoo.nn.parameters import Parameters


class ConservativeStep(NamedTuple):
    """What came of a step.

    Attributes:
        value: Loss where the parameters are now; NaN if none of the three was finite.
        choice: 1 for the step, -1 for the same step the other way, 0 for none.
        queries: Calls of the closure.
    """

    value: float
    choice: int
    queries: int


def conservative_step_(
    params: nn.Module | Parameters | Iterable[Any],
    closure: Callable[[], Any],
    optimizer: torch.optim.Optimizer,
    key: Key,
    step: int,
    *,
    value: float | None = None,
) -> ConservativeStep:
    """Take an optimizer's step only if it lowers the loss; else the same step the other way, or none.

    The loss is evaluated at x, at y = where `optimizer.step()` leads, and at 2 x - y, in each case with the
    same random numbers, and the lowest of the three is where the parameters end up; a tie leaves them where
    they are, to the last bit. So on a fixed batch the loss never grows. A loss that is NaN or infinite is
    never chosen. What the optimizer remembers goes on as if the step had been taken.

    Args:
        params: As for `estimate_gradient_`, which wrote the gradient before.
        closure: Takes nothing and returns the loss, of the same batch as the gradient's.
        optimizer: Of the same parameters.
        key: Key of the run: with that of the gradient's estimate, dropout masks are the same, too.
        step: Number of the step.
        value: The loss at x under this key and step, where it is known: a forward stencil's `value`. One
            query less.

    Raises:
        TypeError: An argument, or what the closure returns, is of the wrong type.
        ValueError: `step` is negative, the optimizer has trainable parameters that are not in `params`, or
            the loss is no scalar; and see `Parameters`.
        RuntimeError: The closure writes to a parameter.

    Example:
        >>> from zoo.estimators.finite_difference import FiniteDifference
        >>> from zoo.nn.gradient import estimate_gradient_
        >>> from zoo.nn.models.mlp import mlp
        >>> layer, x = mlp((2, 1), key=Key(0)), torch.eye(2)
        >>> def loss():
        ...     return layer(x).square().mean()
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
        >>> estimator, losses = FiniteDifference("gaussian", 1, 1e-2), []
        >>> for step in range(50):
        ...     _ = estimate_gradient_(layer, loss, estimator, Key(0), step)
        ...     losses.append(conservative_step_(layer, loss, optimizer, Key(0), step).value)
        >>> losses == sorted(losses, reverse=True), losses[-1] < losses[0] / 10
        (True, True)

    References:
        Zhang et al., "Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning: a
        benchmark" (ZO-SGD-Cons), 2024. https://arxiv.org/abs/2402.11592
    """
    if not callable(closure):
        raise TypeError(f"`closure` must be a function that returns the loss, got {closure!r}.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"`optimizer` must be an optimizer of torch, got {optimizer!r}.")
    if not isinstance(key, Key):
        raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
    step = check_count("step", step, minimum=0)
    if value is not None:
        value = _number(value)
    params = params if isinstance(params, Parameters) else Parameters(params)
    known = {id(tensor) for tensor in params.tensors}
    others = sum(
        tensor.requires_grad and id(tensor) not in known
        for group in optimizer.param_groups
        for tensor in group["params"]
    )
    if others:
        raise ValueError(
            f"`optimizer` must be one of `params` alone, got {others} trainable parameters more, whose step "
            "could not be taken back; add them to `params`, or make an optimizer of their own for them."
        )
    modules = () if params.module is None else (params.module,)
    before = best = params.flat()
    with params.restored(), isolated(key.fold("closure", step), modules) as isolation:
        calls = Calls(isolation, closure, params)
        value = float(calls()) if value is None else value
        lowest, choice = (value, 0) if math.isfinite(value) else (math.inf, 0)
        optimizer.step()
        after = params.flat()
        for sign, there in ((1, after), (-1, 2 * before - after)):
            params.write_(there)
            value = float(calls())
            if math.isfinite(value) and value < lowest:
                lowest, choice, best = value, sign, there
    if choice:
        params.write_(best)
    return ConservativeStep(lowest if math.isfinite(lowest) else math.nan, choice, calls.count)


def _number(value: Any) -> float:
    """Return a loss as a float; it may be NaN."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`value` must be a number, the loss where the parameters are, got {value!r}.")
    return float(value)
