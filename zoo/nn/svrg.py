"""Estimates on mini-batches, corrected by what is known at an anchor: SVRG without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.estimators.finite_difference import FiniteDifference, GradientEstimate
from zoo.nn.gradient import estimate_gradient_
from zoo.nn.parameters import Parameters


class SVRG:
    """Estimates of g_B(x) - g_B(anchor) + g(anchor), where g_B is of a mini-batch and g of all examples.

    Every `period` steps the anchor is where the parameters are, and the gradient over all examples is
    estimated there. In between, two estimates on the step's mini-batch, with the same directions and the same
    dropout masks, say by how much the gradient differs from that. Both the noise of the batch and that of the
    directions go to 0 as x comes close to the anchor; what stays until the next anchor is the error of the
    estimate there, so it is worth more queries than a step.

    A step takes the queries of two estimates; one that sets an anchor takes those of one over all examples,
    and returns that, as the other two would be equal.

    Args:
        estimator: What to evaluate in a step. It has to know its smoothing, and a law of directions without
            memory.
        period: Steps from one anchor to the next.
        batches: How many mini-batches all examples are: what a call of the full closure counts for.
        full: What to evaluate at an anchor; None for the same as in a step.

    Attributes:
        queries: Forward passes of one mini-batch so far.

    Raises:
        TypeError: An estimator is no `FiniteDifference`.
        ValueError: An argument is out of range, or an estimator has something to learn.

    Example:
        >>> import torch
        >>> from zoo.nn.models.mlp import mlp
        >>> x, y = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(64)
        >>> layer = mlp((3, 1), key=Key(0))
        >>> def loss(rows=slice(None)):
        ...     return (layer(x[rows])[:, 0] - y[rows]).square().mean()
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> exact = FiniteDifference("axes", smoothing=1e-2)
        >>> svrg = SVRG(FiniteDifference("gaussian", 4, 1e-2), period=10, batches=8, full=exact)
        >>> for step in range(30):
        ...     rows = slice(8 * (step % 8), 8 * (step % 8) + 8)
        ...     estimate = svrg.estimate_(layer, lambda: loss(rows), loss, Key(0), step)
        ...     optimizer.step()
        >>> bool(loss() < 0.05)
        True

    References:
        Liu, Kailkhura, Chen, Ting, Chang and Amini, "Zeroth-order stochastic variance reduction for nonconvex
        optimization" (ZO-SVRG), 2018. https://arxiv.org/abs/1805.10367
        Gautam, Park, Zhou, Raman and Ha, "Variance-reduced zeroth-order methods for fine-tuning language
        models" (MeZO-SVRG), 2024. https://arxiv.org/abs/2404.08080
    """

    def __init__(
        self,
        estimator: FiniteDifference,
        period: int,
        batches: int,
        *,
        full: FiniteDifference | None = None,
    ) -> None:
        self.estimator, self.full = estimator, estimator if full is None else full
        for name, made in (("estimator", self.estimator), ("full", self.full)):
            if not isinstance(made, FiniteDifference):
                raise TypeError(f"`{name}` must be a FiniteDifference, got {made!r}.")
            if made.smoothing == "auto":
                raise ValueError(f"`{name}` must have a number as `smoothing`, got 'auto'.")
        self.period, self.batches = check_count("period", period), check_count("batches", batches)
        self.queries = 0
        self._anchor: Tensor | None = None
        self._gradient: Tensor | None = None

    def estimate_(
        self,
        params: nn.Module | Parameters | Iterable[Any],
        batch: Callable[[], Any],
        full: Callable[[], Any],
        key: Key,
        step: int,
    ) -> GradientEstimate:
        """Estimate the gradient and write it to `.grad`, as `zoo.nn.gradient.estimate_gradient_` does.

        Args:
            params: As there.
            batch: Takes nothing and returns the loss of the step's mini-batch.
            full: Takes nothing and returns the mean loss of all examples. It is called in steps that set an
                anchor: the first one, and those whose number `period` divides.
            key: Key of the run.
            step: Number of the step, from 0.

        Returns:
            The estimate. `value` is of the mini-batch, or of all examples where an anchor was set; `queries`
            counts mini-batches. Where either estimate has nothing valid the gradient is 0, and `num_valid`.

        Raises:
            TypeError: See `estimate_gradient_`.
            ValueError: So here, or the parameters are other ones than those of the anchor.
        """
        for name, closure in (("batch", batch), ("full", full)):
            if not callable(closure):
                raise TypeError(f"`{name}` must be a function that returns the loss, got {closure!r}.")
        if not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        step = check_count("step", step, minimum=0)
        params = params if isinstance(params, Parameters) else Parameters(params)
        if self._anchor is None:
            self._check_memory(params.flat())
        if self._anchor is None or step % self.period == 0:
            estimate = estimate_gradient_(params, full, self.full, key.fold("anchor"), step)
            estimate = estimate._replace(queries=self.batches * estimate.queries)
            self.queries += estimate.queries
            if estimate.num_valid:
                self._anchor, self._gradient = params.flat(), estimate.gradient.clone()
            return estimate
        assert self._gradient is not None
        if len(self._anchor) != params.dim:
            raise ValueError(
                f"`params` must be {len(self._anchor)} numbers as at the anchor, got {params.dim}."
            )
        here = estimate_gradient_(params, batch, self.estimator, key, step)
        gradient = here.gradient.clone()
        with params.restored():
            params.write_(self._anchor.to(gradient))
            there = estimate_gradient_(params, batch, self.estimator, key, step)
        if here.num_valid and there.num_valid:
            gradient += self._gradient.to(gradient) - there.gradient
        else:
            gradient.zero_()
        params.write_gradient_(gradient)
        queries = here.queries + there.queries
        self.queries += queries
        return GradientEstimate(gradient, here.value, min(here.num_valid, there.num_valid), queries)

    def _check_memory(self, x: Tensor) -> None:
        for made in (self.estimator, self.full):
            if made.init(x).memory is not None:
                raise ValueError(f"`estimator` must have a law without memory, got {made.law!r}.")

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered, as plain types and tensors, which `torch.save` takes."""
        return {"queries": self.queries, "anchor": self._anchor, "gradient": self._gradient}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: It is nothing of the kind.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != {"queries", "anchor", "gradient"}:
            raise ValueError("`state_dict` must be what `SVRG.state_dict` returned.")
        self.queries = int(state_dict["queries"])
        self._anchor, self._gradient = state_dict["anchor"], state_dict["gradient"]
