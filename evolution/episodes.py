"""From members to episodes and back: each member is tried in some, and judged by their mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolution.members import Members
from evolution.moments import Normalizer, merged, no_moments
from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer
from zoo.core.validation import check_count

Matrix = np.ndarray[Any, Any]


class Episodes(Candidates):
    """The episodes of a step: row r is episode r % times of member r // times.

    Args:
        members: Who is tried.
        times: In how many episodes each.
        normalizer: What observations pass through, or None.
        common: Whether episode e of all members begins alike, so that they are compared under the same
            circumstances; else every row has circumstances of its own.
    """

    __slots__ = ("common", "members", "normalizer", "times")

    def __init__(self, members: Members, times: int, normalizer: Normalizer | None, common: bool) -> None:
        self.members, self.times, self.normalizer, self.common = members, times, normalizer, common

    @property
    def dim(self) -> int:
        return self.members.dim

    def __len__(self) -> int:
        return len(self.members) * self.times

    def rows(self, start: int, stop: int) -> Array:
        first = start // self.times
        rows = self.members.rows(first, -(-stop // self.times))
        return rows[np.arange(start, stop) // self.times - first]

    def noise(self, start: int, stop: int) -> Matrix:
        rows = np.arange(start, stop)
        return rows % self.times if self.common else rows


@state
class EpisodicState:
    """State of `Episodic`.

    Attributes:
        method: That of the method.
        moments: Of all observations so far, shape (1 + 2d,), or None.
        best_moments: Of those that the best member was judged with, or None.
        steps: Steps of environments so far.
    """

    method: Any
    moments: Any
    best_moments: Any
    steps: int


class _Slot:
    """The members that a state asked for last; a state is asked more than once."""

    __slots__ = ("asked", "state")

    def __init__(self) -> None:
        self.state: Any = None
        self.asked: Any = None


@dataclass(frozen=True)
class Episodic:
    """A method whose members are tried in episodes.

    A member's value is the mean over its episodes, of those that have one; so is its behaviour. With
    `observations`, these are normalized by the moments of all that was observed in the steps before:
    frozen during a step, and merged after it in the order of the episodes.

    Args:
        method: What asks for members.
        episodes: Episodes of a member, where the method does not want another number.
        observations: Numbers of an observation, to have them normalized; None not to.
        common: As in `Episodes`.

    Raises:
        ValueError: `episodes` is below 1.
    """

    method: Optimizer[Any]
    episodes: int = 1
    observations: int | None = None
    common: bool = True
    _slot: _Slot = field(default_factory=_Slot, init=False, repr=False, compare=False)

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> EpisodicState:
        """Return the first state; see `zoo.core.types.Optimizer.init`."""
        first = self.method.init(x0, key=key, bounds=bounds, scale=scale, known=known)
        none = None if self.observations is None else no_moments(self.observations)
        return EpisodicState(first, none, none, 0)

    def ask(self, state: EpisodicState) -> Episodes:
        """Return the episodes of the members that the method asks for."""
        members = self.members(state)
        normalizer = None if state.moments is None else Normalizer.of(state.moments)
        return Episodes(members, members.episodes or self.episodes, normalizer, self.common)

    def members(self, state: EpisodicState) -> Members:
        """Return what the method asks for."""
        slot = self._slot
        if slot.state is not state.method:
            asked: Any = self.method.ask(state.method)
            slot.state, slot.asked = state.method, asked
        members: Members = slot.asked
        return members

    def tell(self, state: EpisodicState, evaluations: Evaluations) -> EpisodicState:
        """Return the state after the episodes of all members.

        Raises:
            ValueError: There are not as many values as episodes.
        """
        members = self.members(state)
        times = members.episodes or self.episodes
        if len(evaluations) != len(members) * times:
            raise ValueError(
                f"`evaluations` must hold the {len(members) * times} values asked for, "
                f"got {len(evaluations)}."
            )
        extras = dict(evaluations.extras)
        moments = extras.pop("moments", None)
        steps = int(np.nansum(extras.get("steps", np.zeros(0))))
        told = Evaluations(
            mean_of_known(evaluations.values.reshape(-1, times)),
            extras={name: mean_of_known(_by_member(extra, times)) for name, extra in extras.items()},
        )
        before = self._best(state.method)
        method = self.method.tell(state.method, told)
        observed, best_moments = state.moments, state.best_moments
        if self._best(method) != before:
            best_moments = observed
        if observed is not None and moments is not None:
            observed = merged(observed, moments)
        return EpisodicState(method, observed, best_moments, state.steps + steps)

    def recommend(self, state: EpisodicState) -> Array:
        """Return the parameters that the method recommends."""
        return self.method.recommend(state.method)

    def normalizer(self, state: EpisodicState) -> Normalizer | None:
        """Return what observations are to pass through where the recommended parameters are used.

        It is what they were judged with; before any were, what is known by now.
        """
        if state.moments is None:
            return None
        best = self._best(state.method)
        is_judged = best is not None and best[0] >= 0
        return Normalizer.of(state.best_moments if is_judged else state.moments)

    def finished(self, state: EpisodicState) -> str | None:
        """Return why the method has nothing left to do, or None."""
        return self.method.finished(state.method)

    def diagnostics(self, state: EpisodicState) -> dict[str, Any]:
        """Return those of the method, and how much was observed."""
        observed = {} if state.moments is None else {"observations": int(state.moments[0])}
        return {**self.method.diagnostics(state.method), **observed}

    def _best(self, state: Any) -> Any:
        best: Any = getattr(self.method, "best", None)
        return None if best is None else best(state)


def mean_of_known(rows: Matrix) -> Matrix:
    """Return means over the second axis of what is not NaN; NaN where nothing is.

    Example:
        >>> mean_of_known(np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])).tolist()
        [2.0, 5.0, nan]
    """
    known = ~np.isnan(rows)
    counts = known.sum(1)
    totals = np.where(known, rows, 0.0).sum(1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _by_member(extra: Matrix, times: int) -> Matrix:
    return extra.reshape(-1, times, *extra.shape[1:])
