"""NSGA-II: several objectives at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.front import dominates
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count, check_positive, check_probability
from zoo.methods.population import Frame, Matrix, begin, check_told, place, populate, remaining

_REACH = 3.0  # units of `scale` on either side, for mutations where a coordinate has no walls


@state
class NSGA2State:
    """State of `NSGA2`.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        known: Points to begin with, shape (n, dim), or None.
        points: The population, shape (n, dim), float64; no rows before the first step.
        objectives: Shape (n, k).
        violations: By how much each point violates the constraints, shape (n,).
        ranks: Number of the front that a point is in, from 0, shape (n,).
        crowding: Crowding distances, shape (n,); more is lonelier.
    """

    frame: Frame
    step: int
    nfev: int
    known: Any
    points: Matrix
    objectives: Matrix
    violations: Matrix
    ranks: Matrix
    crowding: Matrix


@dataclass(frozen=True)
class NSGA2:
    """Non-dominated sorting genetic algorithm: a population that spreads along the Pareto front.

    A step makes as many children as there are parents. Parents are winners of tournaments of two: of lower
    rank, or of equal rank and more distance to their neighbours. Two of them, y1 < y2 in a
    coordinate, have the children

        (y1 + y2) / 2 -+ beta (y2 - y1) / 2,    beta = (u a)^(1 / (eta_c + 1)) if u <= 1 / a,
                                                       (2 - u a)^(-1 / (eta_c + 1)) otherwise,

    with u uniform and a = 2 - b^-(eta_c + 1), where b is the beta at which the child would be at the wall
    (simulated binary crossover). Then each coordinate is moved with probability 1 / dim (polynomial
    mutation with index eta_m); in a child that is still a copy of its parent, one is. Of parents and
    children together the best half lives on: front by front, and of the last front that fits in part
    those of most crowding distance, which is the sum over objectives of the gap between a point's
    neighbours in its front over the range of the front.

    One point dominates another if none of its objectives is larger and one is smaller. Where evaluations have
    constraints, a point that keeps to them dominates all that do not, and of two that do not, the one
    that violates them less. Failed evaluations die at once. Without walls, mutations reach as far as 3
    units of `scale`. A function with one objective is minimised as by any genetic algorithm.

    Args:
        population_size: Points, an even number; None for 100, or a twentieth of the budget if that is less.
        crossover: Probability that two parents are crossed, else they are copied.
        crossover_index: eta_c; larger ones keep children nearer to their parents.
        mutation: Probability of each coordinate to be moved; None for 1 / dim.
        mutation_index: eta_m, in the same sense.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> import zoo
        >>> result = zoo.minimize(
        ...     lambda x: (x[0] ** 2 + x[1] ** 2, (x[0] - 2) ** 2 + x[1] ** 2),
        ...     [0.5, 0.5], method="nsga2", budget=1000, rng=0,
        ... )
        >>> front = result.front
        >>> bool(np.median(abs(front.x[:, 1])) < 0.05), len(front.x) > 30
        (True, True)

    Source: K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A fast and elitist multiobjective genetic
    algorithm: NSGA-II, 2002, https://doi.org/10.1109/4235.996017.
    """

    population_size: int | None = None
    crossover: float = 0.9
    crossover_index: float = 15.0
    mutation: float | None = None
    mutation_index: float = 20.0

    recommends_evaluated = True

    def __post_init__(self) -> None:
        if self.population_size is not None:
            check_count("population_size", self.population_size, minimum=4)
            if self.population_size % 2:
                raise ValueError(f"`population_size` must be even, got {self.population_size}.")
        check_probability("crossover", self.crossover)
        check_positive("crossover_index", self.crossover_index)
        if self.mutation is not None:
            check_probability("mutation", self.mutation)
        check_positive("mutation_index", self.mutation_index)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> NSGA2State:
        """Return the first state; the first population holds x0 and the best of the known points.

        Their values are not used: they say nothing of several objectives.
        """
        frame = begin(x0, key, bounds, scale, budget)
        points = None if known is None else known.points[known.order]
        empty = np.empty(0)
        none = np.empty((0, frame.dim))
        return NSGA2State(frame, 0, 0, points, none, np.empty((0, 1)), empty, empty, empty)

    def ask(self, state: NSGA2State) -> Rows:
        frame = state.frame
        rows = self._children(state) if len(state.points) else self._first(state)
        return Rows(place(frame, frame.work.asarray(rows[: remaining(frame, state.nfev, len(rows))])))

    def tell(self, state: NSGA2State, evaluations: Evaluations) -> NSGA2State:
        asked = self.ask(state)
        values = check_told(evaluations, len(asked))
        after = replace(state, step=state.step + 1, nfev=state.nfev + len(values))
        valid = np.isfinite(values)
        if not valid.any():
            return after
        objectives = evaluations.extras.get("objectives", values[:, None])[valid]
        points = np.asarray(to_numpy(asked.array), np.float64)[valid]
        violations = evaluations.violations[valid]
        if len(state.points):
            points = np.concatenate([state.points, points])
            objectives = np.concatenate([state.objectives, objectives])
            violations = np.concatenate([state.violations, violations])
        ranks = front_ranks(objectives, violations)
        crowding = np.empty(len(points))
        for rank in range(int(ranks.max()) + 1):
            here = ranks == rank
            crowding[here] = crowding_distances(objectives[here])
        size = self._size(state.frame)
        chosen = np.lexsort((-crowding, ranks))[:size]
        return replace(
            after,
            points=points[chosen],
            objectives=objectives[chosen],
            violations=violations[chosen],
            ranks=ranks[chosen],
            crowding=crowding[chosen],
        )

    def recommend(self, state: NSGA2State) -> Array:
        """Return the point of the first front with the least mean of its objectives, or else x0."""
        if not len(state.points):
            return state.frame.like.asarray(state.frame.x0) + 0
        first = np.flatnonzero(state.ranks == 0)
        best = first[int(state.objectives[first].mean(1).argmin())]
        return place(state.frame, state.frame.work.asarray(state.points[best].copy()))

    def finished(self, state: NSGA2State) -> str | None:
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return None

    def diagnostics(self, state: NSGA2State) -> dict[str, Any]:
        """Return how many points of the population are in its first front."""
        return {"first_front": int(np.count_nonzero(state.ranks == 0))}

    def _size(self, frame: Frame) -> int:
        if self.population_size is not None:
            return self.population_size
        return 100 if frame.budget is None else max(8, min(100, frame.budget // 40 * 2))

    def _first(self, state: NSGA2State) -> Matrix:
        frame, size = state.frame, self._size(state.frame)
        known = None if state.known is None else Known(state.known, np.arange(float(len(state.known))))
        here = replace(frame, key=frame.key.fold("first", state.step))
        return np.asarray(to_numpy(populate(here, size, known)[0]), np.float64)

    def _children(self, state: NSGA2State) -> Matrix:
        frame, key = state.frame, state.frame.key.fold("nsga2", state.step)
        pairs = self._size(frame) // 2
        picks = key.fold("tournaments").integers(0, pairs, 4, high=len(state.points))
        one, two = (
            self._winners(state, picks[:, 0], picks[:, 1]),
            self._winners(state, picks[:, 2], picks[:, 3]),
        )
        lower, upper = np.full(frame.dim, -np.inf), np.full(frame.dim, np.inf)
        if frame.bounds is not None:
            lower, upper = frame.bounds.lower, frame.bounds.upper
        mother, father = state.points[one], state.points[two]
        parents = np.concatenate([mother, father])
        children = np.concatenate(self._crossed(key, mother, father, lower, upper))
        return self._mutated(key, children, (children == parents).all(1), frame, lower, upper)

    def _winners(self, state: NSGA2State, one: Matrix, other: Matrix) -> Matrix:
        ranks, crowding = state.ranks, state.crowding
        better = (ranks[one] < ranks[other]) | (
            (ranks[one] == ranks[other]) & (crowding[one] >= crowding[other])
        )
        return np.where(better, one, other)

    def _crossed(
        self, key: Key, one: Matrix, two: Matrix, lower: Matrix, upper: Matrix
    ) -> tuple[Matrix, Matrix]:
        pairs, dim = one.shape
        pair = key.fold("pairs").uniform(0, pairs, 1) < self.crossover
        each = key.fold("coordinates").uniform(0, pairs, dim) < 0.5
        swap = key.fold("swaps").uniform(0, pairs, dim) < 0.5
        u = key.fold("crossover").uniform(0, pairs, dim)
        low, high = np.minimum(one, two), np.maximum(one, two)
        gap = high - low
        crossed = pair & each & (gap > 1e-14 * np.maximum(np.abs(low), np.abs(high)))
        safe = np.where(crossed, gap, 1.0)
        middle = low + gap / 2
        below = middle - _spread(u, 1 + 2 * (low - lower) / safe, self.crossover_index) * gap / 2
        above = middle + _spread(u, 1 + 2 * (upper - high) / safe, self.crossover_index) * gap / 2
        below, above = np.clip(below, lower, upper), np.clip(above, lower, upper)
        first, second = np.where(swap, above, below), np.where(swap, below, above)
        return np.where(crossed, first, one), np.where(crossed, second, two)

    def _mutated(
        self, key: Key, x: Matrix, copies: Matrix, frame: Frame, lower: Matrix, upper: Matrix
    ) -> Matrix:
        count, dim = x.shape
        probability = 1 / dim if self.mutation is None else self.mutation
        shares = key.fold("moved").uniform(0, count, dim)
        moved = shares < probability
        moved[np.flatnonzero(copies), shares[copies].argmin(1)] = True
        u = key.fold("mutation").uniform(0, count, dim)
        power = self.mutation_index + 1
        boxed = np.isfinite(lower) & np.isfinite(upper)
        width = np.where(
            boxed, np.where(boxed, upper, 0) - np.where(boxed, lower, 0), 2 * _REACH * frame.scale
        )
        room_below = np.clip(
            np.where(np.isfinite(lower), x - lower, width) / np.where(width > 0, width, 1), 0, 1
        )
        room_above = np.clip(
            np.where(np.isfinite(upper), upper - x, width) / np.where(width > 0, width, 1), 0, 1
        )
        down = (2 * u + (1 - 2 * u) * (1 - room_below) ** power) ** (1 / power) - 1
        up = 1 - (2 * (1 - u) + (2 * u - 1) * (1 - room_above) ** power) ** (1 / power)
        moves = np.where(u < 0.5, down, up) * width
        return np.clip(np.where(moved, x + moves, x), lower, upper)


def front_ranks(objectives: Matrix, violations: Matrix) -> Matrix:
    """Return the number of the front that each point is in: 0 where none dominates it, and so on.

    Args:
        objectives: Shape (n, k).
        violations: Shape (n,); of points that do not keep to the constraints, less is better.

    Example:
        >>> objectives = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
        >>> front_ranks(objectives, violations=np.array([0.0, 0.0, 0.0, 1.0])).tolist()
        [0, 0, 1, 2]
    """
    feasible = violations <= 0
    better = dominates(objectives, objectives) & feasible[:, None] & feasible
    better |= violations[:, None] < violations
    left, ranks, rank = better.sum(0), np.full(len(violations), -1), 0
    while (ranks < 0).any():
        front = (left == 0) & (ranks < 0)
        ranks[front] = rank
        left = left - better[front].sum(0)
        rank += 1
    return ranks


def crowding_distances(objectives: Matrix) -> Matrix:
    """Return the crowding distance of each point of a front, infinite for the outermost ones.

    Example:
        >>> crowding_distances(np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0]])).tolist()
        [inf, 2.0, inf]
    """
    count, distances = len(objectives), np.zeros(len(objectives))
    for column in objectives.T:
        order = column.argsort(kind="stable")
        ordered = column[order]
        distances[order[[0, count - 1]]] = math.inf
        width = float(ordered[-1] / 2 - ordered[0] / 2)
        if width > 0:
            distances[order[1:-1]] += (ordered[2:] / 2 - ordered[:-2] / 2) / width
    return distances


def _spread(u: Matrix, most: Matrix, index: float) -> Matrix:
    """Return the spread factor of simulated binary crossover, `most` where the child would be at the wall."""
    power = index + 1
    a = 2 - most**-power
    near, far = u * a, np.maximum(2 - u * a, 1e-300)
    factor: Matrix = np.where(near <= 1, np.maximum(near, 0) ** (1 / power), far ** (-1 / power))
    return factor
