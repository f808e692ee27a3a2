"""Points that the user wants to see evaluated before a method begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer, Rows


@state
class PrimedState:
    """Where a primed search is.

    Attributes:
        x0: Start of the method.
        key: Key of the search.
        bounds: Box, or None.
        scale: How far from `x0` the first candidates go.
        budget: Evaluations there will be, or None.
        points: Points known from before, shape (n, dim).
        values: Their values, shape (n,).
        inner: State of the method, None until the points are evaluated.
    """

    x0: Array
    key: Key
    bounds: Bounds | None
    scale: Any
    budget: int | None
    points: Any
    values: Any
    inner: Any


@dataclass(frozen=True, eq=False)
class Primed:
    """Evaluate some points in a first step, and begin the method with what they turned out to be.

    The method is given these points and those that were known already as `known`, and starts at `x0`, or
    at the best of them all if `from_best` says so.

    Args:
        optimizer: The method.
        points: Shape (n, dim), inside the box; as many of them as the budget allows are evaluated.
        from_best: Whether the method is to start at the best point rather than at `x0`.

    Example:
        >>> from zoo.methods.random_search import RandomSearch
        >>> method = Primed(RandomSearch(), np.array([[1.0, 1.0], [2.0, 2.0]]))
        >>> state = method.init(np.zeros(2), key=Key(0))
        >>> method.ask(state).rows(0, 2).tolist()
        [[1.0, 1.0], [2.0, 2.0]]
    """

    optimizer: Optimizer[Any]
    points: np.ndarray[Any, Any]
    from_best: bool = False

    @property
    def recommends_evaluated(self) -> bool:
        """As of the method."""
        return self.optimizer.recommends_evaluated

    @property
    def compares_within_steps(self) -> bool:
        """As of the method."""
        return getattr(self.optimizer, "compares_within_steps", False)

    @property
    def keeps_to_set(self) -> bool:
        """As of the method."""
        return getattr(self.optimizer, "keeps_to_set", False)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> PrimedState:
        points = self.points if known is None else np.concatenate([known.points, self.points])
        if hasattr(self.optimizer, "check_known"):
            # Before any is evaluated, and from wherever the method may come to start.
            for start in points if self.from_best else [x0]:
                self.optimizer.check_known(Like.of(x0).asarray(start), points)
        return PrimedState(
            x0=x0 + 0,
            key=key,
            bounds=bounds,
            scale=scale,
            budget=budget,
            points=None if known is None else known.points,
            values=None if known is None else known.values,
            inner=None,
        )

    def ask(self, state: PrimedState) -> Candidates:
        if state.inner is not None:
            return self.optimizer.ask(state.inner)
        rows = Like.of(state.x0).asarray(self.points[: state.budget].copy())
        return Rows(rows if state.bounds is None else state.bounds.map(rows, "clip"))

    def tell(self, state: PrimedState, evaluations: Evaluations) -> PrimedState:
        if state.inner is not None:
            return replace(state, inner=self.optimizer.tell(state.inner, evaluations))
        count = len(self.points[: state.budget])
        if len(evaluations) != count:
            raise ValueError(f"`evaluations` must hold the {count} values asked for, got {len(evaluations)}.")
        points, values = self.points[:count], evaluations.values
        if state.points is not None:
            points, values = np.concatenate([state.points, points]), np.append(state.values, values)
        known = Known(points, values) if np.isfinite(values).any() else None
        like, left = Like.of(state.x0), None if state.budget is None else state.budget - count
        from_best = self.from_best and known is not None
        inner = self.optimizer.init(
            like.asarray(known.best.copy()) if from_best and known else state.x0,
            key=state.key,
            bounds=state.bounds,
            scale=state.scale,
            budget=left,
            known=known,
        )
        return replace(state, points=points, values=values, inner=inner)

    def recommend(self, state: PrimedState) -> Array:
        if state.inner is not None:
            return self.optimizer.recommend(state.inner)
        if state.values is None:
            return state.x0 + 0
        best: Array = Like.of(state.x0).asarray(state.points[int(np.nanargmin(state.values))].copy())
        return best

    def finished(self, state: PrimedState) -> str | None:
        return None if state.inner is None else self.optimizer.finished(state.inner)

    def diagnostics(self, state: PrimedState) -> dict[str, Any]:
        return {} if state.inner is None else self.optimizer.diagnostics(state.inner)
