"""Methods of `zoo` for policies: what they recommend is tried in further episodes, and the best is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolution.members import HeldMembers, Members
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer
from zoo.core.validation import check_count

FLOAT32 = Like("numpy", "float32")


class AsMembers(Members):
    """Candidates of any method as members: rounded to single precision, and put where they are used.

    Args:
        candidates: The candidates.
        episodes: Episodes of each; None for as many as the run says.
    """

    __slots__ = ("candidates", "episodes")

    def __init__(self, candidates: Candidates, episodes: int | None = None) -> None:
        self.candidates, self.episodes = candidates, episodes

    @property
    def dim(self) -> int:
        return self.candidates.dim

    def __len__(self) -> int:
        return len(self.candidates)

    def rows_on(self, device: str, start: int, stop: int) -> Any:
        rows = self.candidates.rows(start, stop)
        if device == "cpu":
            return np.asarray(to_numpy(rows), np.float32)
        return Like("torch", "float32", device).asarray(rows)


def held(row: Array, episodes: int | None) -> HeldMembers:
    """Return one row of parameters as a member."""
    return HeldMembers(np.array(to_numpy(row), np.float32)[None], episodes)


@state
class ValidatedState:
    """State of `Validated`.

    Attributes:
        method: That of the method.
        step: Steps of it so far.
        is_due: Whether what it recommends is tried next.
        tried: After how many steps that was done last, 0 before.
        value: Mean value of what was recommended then, NaN before there is one.
        best: Parameters of the best so far, float32, or None.
        best_step: After which step they were recommended, -1 before there are any.
        best_value: Their mean value.
    """

    method: Any
    step: int
    is_due: bool
    tried: int
    value: float
    best: Array | None
    best_step: int
    best_value: float


@dataclass(frozen=True)
class Validated:
    """A method that searches by noisy values, told apart from what its recommendations are worth.

    Every `validation_every` steps, and at the end of the run, what the method recommends is tried in
    `validation_episodes` episodes. The method is told nothing of these. What is recommended is the
    best of them, so that it has a score that is the mean of many episodes and not the luck of one.

    Args:
        method: Any optimizer.
        validation_every: Steps from one such trial to the next.
        validation_episodes: Episodes of each.

    Raises:
        TypeError: A number is no integer.
        ValueError: It is below 1.

    Example:
        >>> from zoo.methods.openai_es import OpenAIES
        >>> method = Validated(OpenAIES(population_size=20), validation_every=5)
        >>> state = method.init(np.ones(3, np.float32), key=Key(0))
        >>> for _ in range(120):
        ...     members = method.ask(state)
        ...     x = members.rows(0, len(members))
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> step, value = method.best(state)
        >>> state.step, value < 0.01
        (100, True)
    """

    method: Optimizer[Any]
    validation_every: int = 10
    validation_episodes: int = 30

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("validation_every", self.validation_every)
        check_count("validation_episodes", self.validation_episodes)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ValidatedState:
        """Return the first state; see `zoo.core.types.Optimizer.init`."""
        first = self.method.init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known)
        return ValidatedState(first, 0, False, 0, np.nan, None, -1, np.inf)

    def ask(self, state: ValidatedState) -> Members:
        """Return the method's candidates, or what it recommends."""
        if state.is_due:
            return held(self.method.recommend(state.method), self.validation_episodes)
        return AsMembers(self.method.ask(state.method))

    def tell(self, state: ValidatedState, evaluations: Evaluations) -> ValidatedState:
        """Return the state after the values of everything asked for.

        Raises:
            ValueError: There are not as many values as members.
        """
        if not state.is_due:
            told, step = self.method.tell(state.method, evaluations), state.step + 1
            is_due = step % self.validation_every == 0 or self.method.finished(told) is not None
            return replace(state, method=told, step=step, is_due=is_due)
        if len(evaluations) != 1:
            raise ValueError(f"`evaluations` must hold the 1 value asked for, got {len(evaluations)}.")
        value = float(evaluations.values[0])
        tried = replace(state, is_due=False, tried=state.step, value=value)
        if not value < state.best_value:
            return tried
        row = FLOAT32.asarray(to_numpy(self.method.recommend(state.method))) + 0
        return replace(tried, best=row, best_step=state.step, best_value=value)

    def recommend(self, state: ValidatedState) -> Array:
        """Return the best that was tried; what the method recommends before anything was."""
        return (self.method.recommend(state.method) if state.best is None else state.best) + 0

    def best(self, state: ValidatedState) -> tuple[int, float]:
        """Return the step and the mean value of the best that was tried; -1 and infinity before."""
        return state.best_step, state.best_value

    @property
    def reserve(self) -> int:
        """How many episodes of a budget are to be kept for a trial."""
        return self.validation_episodes

    def closing(self, state: ValidatedState) -> ValidatedState | None:
        """Return the state with a last trial due, None if what is recommended was tried already."""
        return None if state.is_due or state.tried == state.step else replace(state, is_due=True)

    def finished(self, state: ValidatedState) -> str | None:
        """Return why the method has nothing left to do, or None."""
        return None if state.is_due else self.method.finished(state.method)

    def diagnostics(self, state: ValidatedState) -> dict[str, Any]:
        """Return those of the method, and the mean value of what it recommended last."""
        return {**self.method.diagnostics(state.method), "recommended": state.value}
