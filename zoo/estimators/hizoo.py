"""Directions in the shape of a diagonal Hessian that is learned from the same values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.validation import check_probability
from zoo.estimators.directions import Directions, Draw
from zoo.estimators.displaced import Displaced
from zoo.estimators.finite_difference import (
    FiniteDifference,
    FiniteDifferenceState,
    GradientEstimate,
    Weights,
    chunks,
)
from zoo.estimators.wrapped import Wrapped


@dataclass(frozen=True)
class HiZOO(FiniteDifference):
    """Central differences along directions divided by the root of an estimated diagonal Hessian H.

        u_i = z_i / sqrt(H)
        g = 1 / n * sum_i (f(x + h u_i) - f(x - h u_i)) / (2 h) * u_i
        H <- (1 - rate) H + rate / n * sum_i |f(x + h u_i) + f(x - h u_i) - 2 f(x)| / (2 h^2) * H z_i^2

    Steps along steep and flat coordinates become like long: E[u u^T] = 1 / H, so that g estimates the
    gradient divided by H, and moves like Newton's method as far as H is known. H starts at 1. A step takes
    2 n + 1 queries; H is one more vector of memory.

    With "auto" as smoothing, directions are z_i sqrt(min(H) / H), so that the distance gone does not depend
    on the size of H, and it begins with what suits second differences, 4 epsilon^(1/4) for a direction of
    length 1. g and H are what they would be without, up to the finite difference's error.

    Args:
        rate: How fast H follows, from 0 to 1. The default is for networks of many million parameters: with
            Gaussian or Rademacher directions the factor of H in the sum is about half the trace of the
            Hessian divided by H, so that H grows by leaps unless the rate is far below 2 over that.
        num_directions: Directions a step.

    Raises:
        ValueError: An argument is out of range, or the stencil is not "central".

    Note:
        With z normal and f a quadratic with Hessian A, the sum is H / 2 (tr(A / H) + 2 diag(A) / H) in the
        mean, at rest where H is (d + 2) / 2 times diag(A): the shape is right, the size is not, and learning
        rates have to make up for it. Along axes it is diag(A) / 2, without noise. A random direction's
        second difference holds the whole trace, so learning the shape takes about d^2 / 2 of them: unless d
        is small or the run is long, what H learns in a run is its size.

    Example:
        All axes at once know the diagonal of a quadratic's Hessian after one step; the estimate is the
        gradient divided by it:

        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Evaluations
        >>> estimator, x = HiZOO("axes", None, 0.1, rate=1.0), np.array([1.0, 1.0])
        >>> state = estimator.init(x)
        >>> for step in range(2):
        ...     values = estimator.ask(state, x, Key(0), step).rows(0, 5) ** 2 @ np.array([2.0, 50.0])
        ...     state, estimate = estimator.estimate(state, x, Evaluations(values), Key(0), step)
        >>> estimator.hessian(state).round(9).tolist(), estimate.gradient.round(9).tolist()
        ([2.0, 50.0], [2.0, 2.0])

    References:
        Zhao, Dang, Ye, Dai, Qian and Tsang, "Second-order fine-tuning without pain for LLMs: a Hessian
        informed zeroth-order optimizer", 2025. https://arxiv.org/abs/2402.15173

        There n is 1. Here H stays the same within a step, and enters the next one's directions; entries of
        which a step says nothing, as no direction moves them, stay.
    """

    num_directions: int | None = 1
    smoothing: float | str = 1e-3
    rate: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("rate", self.rate)
        if self.stencil != "central":
            raise ValueError(f"`stencil` must be 'central', got {self.stencil!r}.")
        object.__setattr__(self, "law", Scaled(self.law, self.smoothing == "auto"))

    def init(
        self, x: Array, *, bounds: Bounds | None = None, scale: Any = 1.0, coarsest: str | None = None
    ) -> FiniteDifferenceState:
        state = super().init(x, bounds=bounds, scale=scale, coarsest=coarsest)
        if state.precision is None:
            return state
        rounded = state.like if coarsest is None else Like(state.like.kind, coarsest, state.like.device)
        # From epsilon^(1/3), which suits slopes, to epsilon^(1/4).
        start = min(state.precision.start * rounded.epsilon ** (-1 / 12), state.precision.largest)
        precision = dataclasses.replace(state.precision, start=start)
        return dataclasses.replace(state, smoothing=start, precision=precision)

    def hessian(self, state: FiniteDifferenceState) -> Array:
        """Return H, shape (dim,)."""
        known: Array = state.memory[0]
        return known

    def conclude(
        self,
        state: FiniteDifferenceState,
        asked: Displaced,
        values: Any,
        weights: Weights,
        gradient: Array,
        symmetric: Any,
    ) -> tuple[FiniteDifferenceState, GradientEstimate]:
        hessian = self._followed(state, asked, values, symmetric)
        if weights.peak:
            gradient = gradient / self._unit(state)
        state, estimate = super().conclude(state, asked, values, weights, gradient, symmetric)
        return dataclasses.replace(state, memory=(hessian, state.memory[1])), estimate

    def _followed(self, state: FiniteDifferenceState, asked: Displaced, values: Any, symmetric: Any) -> Array:
        hessian = self.hessian(state)
        with np.errstate(over="ignore", invalid="ignore"):
            second = np.abs((values[1::2] - values[0]) + (values[2::2] - values[0]))
            curvature = second / 2 / asked.smoothing**2
        valid = np.isfinite(curvature) if symmetric is None else np.isfinite(curvature) & symmetric
        if not valid.any():
            return hessian
        relative, factor = self.shares(asked, valid)
        unit = self._unit(state)
        coefficients = np.where(valid, curvature / unit * relative * factor, 0)
        total = array_module(hessian).zeros_like(hessian)
        for start, stop in chunks(len(coefficients), asked.dim):
            rows = asked.along(start, stop)
            total = total + state.work.asarray(coefficients[start:stop]) @ (rows * rows)
        # With u = z sqrt(unit / H), H z^2 is H^2 u^2 / unit.
        with np.errstate(over="ignore", invalid="ignore"):
            followed = (1 - self.rate) * hessian + self.rate * hessian * (hessian / unit) * total
        xp = array_module(hessian)
        return xp.where(xp.isfinite(followed) & (total > 0), followed, hessian)

    def _unit(self, state: FiniteDifferenceState) -> float:
        """Return what H is divided by where directions are divided by its root."""
        return float(self.hessian(state).min()) if state.precision is not None else 1.0

    def _extra(self, num_directions: int, base: bool) -> tuple[bool, bool]:
        return True, False


@dataclass(frozen=True)
class Scaled(Wrapped):
    """Directions of another law, divided by the root of a diagonal that is remembered.

    Args:
        law: The other law.
        relative: Whether the diagonal is divided by its least entry before.
    """

    law: Directions
    relative: bool = False

    def begin(self, x: Array) -> Array:
        return array_module(x).ones_like(x)

    def shipped(self, memory: Any) -> Any:
        unit = memory[0].min() if self.relative else 1.0
        return (unit / memory[0]) ** 0.5, self.law.shipped(memory[1])

    def plan(self, draw: Draw, memory: Any) -> Any:
        return self.law.plan(draw, memory[1])

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return self.law.draw(draw, start, stop, memory[1], plan) * memory[0]

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        start, part = self.law.part(draw, index, memory[1], plan)
        return start, part * memory[0][start : start + len(part)]
