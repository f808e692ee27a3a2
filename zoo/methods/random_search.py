"""Random search: no method at all, to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_count


@state
class RandomSearchState:
    """What a random search knows.

    Attributes:
        x0: Start, shape (dim,), in working precision.
        scale: Standard deviations where a side is open, shape (dim,).
        bounds: Box, or None.
        like: Kind, dtype and device of the rows.
        x: Best point so far, shape (dim,).
        value: Value there, infinite before any.
        key: Key of the run.
        nfev: Evaluations told so far.
        budget: Evaluations there will be, or None.
    """

    x0: Array
    scale: Array
    bounds: Bounds | None
    like: Like
    x: Array
    value: float
    key: Key
    nfev: int
    budget: int | None


class Scattered(Candidates):
    """Rows `first` and on of a search's endless list of points; row 0 of that is x0."""

    def __init__(self, state: RandomSearchState, first: int, count: int) -> None:
        self.state, self.first, self.count = state, first, count

    @property
    def dim(self) -> int:
        return len(self.state.x0)

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int, stop: int) -> Array:
        here = self.state
        work, first, last = Like.of(here.x0), self.first + start, self.first + stop
        rows = here.x0 + here.scale * here.key.fold("normal").normal(first, last, self.dim, like=work)
        if here.bounds is not None:
            xp = array_module(rows)
            lower, upper = here.bounds.sides(here.x0)
            boxed = xp.isfinite(lower) & xp.isfinite(upper)
            if boxed.any():
                shares = here.key.fold("uniform").uniform(first, last, self.dim, like=work)
                low, high = xp.where(boxed, lower, 0), xp.where(boxed, upper, 0)
                rows = xp.where(boxed, (1 - shares) * low + shares * high, rows)
            rows = here.bounds.map(rows)
        if first == 0 and last > 0:
            rows[0] = here.x0
        rows = here.like.asarray(rows)
        return rows if here.bounds is None or Like.of(here.x0) == here.like else here.bounds.map(rows, "clip")


@dataclass(frozen=True)
class RandomSearch:
    """Evaluate x0, then independent points: x_i uniform in the box, or x0 + scale * normal.

    A coordinate is uniform where both of its sides are finite; else it is normal around x0, mirrored at
    the one wall it may have. The last step is shortened to the budget.

    Args:
        population_size: Points a step.

    Raises:
        ValueError: `population_size` is below 1.

    Example:
        >>> from zoo.core.rng import Key
        >>> method = RandomSearch()
        >>> state = method.init(np.array([3.0, 4.0]), key=Key(0), budget=20)
        >>> points = method.ask(state).rows(0, 20)
        >>> state = method.tell(state, Evaluations((points**2).sum(1)))
        >>> bool((method.recommend(state) == points[(points**2).sum(1).argmin()]).all())
        True
    """

    population_size: int = 64

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("population_size", self.population_size)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> RandomSearchState:
        like = Like.of(x0)
        work = Like(like.kind, like.working_dtype, like.device)
        start = work.asarray(x0) + 0
        spread = work.asarray(np.broadcast_to(np.asarray(scale, np.float64), (len(start),)))
        return RandomSearchState(start, spread, bounds, like, like.asarray(start) + 0, np.inf, key, 0, budget)

    def ask(self, state: RandomSearchState) -> Scattered:
        size = self.population_size
        if state.budget is not None:
            size = max(1, min(size, state.budget - state.nfev))
        return Scattered(state, state.nfev, size)

    def tell(self, state: RandomSearchState, evaluations: Evaluations) -> RandomSearchState:
        asked = self.ask(state)
        if len(evaluations) != len(asked):
            raise ValueError(f"`evaluations` must have {len(asked)} values, got {len(evaluations)}.")
        values = evaluations.values
        x, value = state.x, state.value
        usable = np.where(np.isfinite(values), values, np.inf)
        index = int(usable.argmin())
        if usable[index] < value:
            x, value = asked.rows(index, index + 1)[0], float(usable[index])
        return RandomSearchState(
            state.x0,
            state.scale,
            state.bounds,
            state.like,
            x,
            value,
            state.key,
            state.nfev + len(values),
            state.budget,
        )

    def recommend(self, state: RandomSearchState) -> Array:
        return state.x + 0

    def finished(self, state: RandomSearchState) -> str | None:
        return None

    def diagnostics(self, state: RandomSearchState) -> dict[str, Any]:
        return {}
