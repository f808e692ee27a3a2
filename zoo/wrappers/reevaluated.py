"""Noise: evaluate again what decides, as often as it takes for the order of values to mean something."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, is_torch
from zoo.core.huge import restored, unit_of
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known, Optimizer
from zoo.core.validation import check_count, check_fraction

Matrix = np.ndarray[Any, Any]

_STREAM = 2**32  # between the noise streams of two evaluations of a row
_MEMORY = 0.2  # share of a step in the agreement measured so far
_GROW, _SHRINK = 1.5, 1.1  # of the number of evaluations, in a step
_STEPS = 30  # steps that the budget has to suffice for
_SMALL = 10  # candidates; steps of fewer, which take many more steps, are counted as so many


class Repeated(Candidates):
    """Some rows of other candidates, several times over, each time under noise streams of its own.

    Args:
        inner: The candidates.
        chosen: Which of their rows, shape (k,), ascending.
        first: Number of the first repetition.
        times: How many repetitions; all rows of one come before those of the next.
    """

    def __init__(self, inner: Candidates, chosen: Matrix, first: int, times: int) -> None:
        self.inner, self.chosen, self.first, self.times = inner, chosen, first, times

    @property
    def dim(self) -> int:
        return self.inner.dim

    def __len__(self) -> int:
        return len(self.chosen) * self.times

    def rows(self, start: int, stop: int) -> Array:
        count, first = len(self.chosen), start % max(1, len(self.chosen))
        if count == len(self.inner) and first + stop - start <= count:
            return self.inner.rows(first, first + stop - start)  # all of them, in order
        wanted = self.chosen[np.arange(start, stop) % count]
        if not len(wanted):
            return self.inner.rows(0, 0)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        rows, here = self.inner.rows(low, high), wanted - low
        if is_torch(rows):
            import torch

            return rows[torch.from_numpy(here).to(rows.device)]
        return rows[here]

    def noise(self, start: int, stop: int) -> Matrix:
        index = np.arange(start, stop)
        wanted, repetition = self.chosen[index % len(self.chosen)], self.first + index // len(self.chosen)
        streams = self.inner.noise(0, len(self.inner))[wanted]
        return streams + _STREAM * repetition


@state
class ReevaluatedState:
    """Where a search under noise is.

    Attributes:
        inner: State of the method.
        budget: Evaluations there will be, or None.
        nfev: Evaluations told.
        times: How often each candidate is evaluated; rounded where it is used.
        agreement: Kendall's tau between the two evaluations of what decides, over the last steps.
        weight: How much of it was measured.
        first: What the candidates' first evaluations of this step gave, shape (n,), or None before that.
        extras: What else they gave.
        chosen: Which of them are due a second time.
    """

    inner: Any
    budget: int | None
    nfev: int
    times: float
    agreement: float
    weight: float
    first: Any
    extras: Any
    chosen: Any


@dataclass(frozen=True)
class Reevaluated:
    """Any method, on values that are means of as many evaluations as the noise makes necessary.

    A step of the method takes two rounds, unless the method goes by differences of its values and not by
    their order (`Candidates.decisive`). In the first, every candidate is evaluated r times. In the second,
    the better half of them, which decides where the search goes, is evaluated r times more. Both rounds
    rank that half; Kendall's tau of the two rankings, averaged over the last steps, tells order from
    chance. Where it is below 1.2 / sqrt(m) for m candidates in that half (.6 at most), r grows by half,
    else it shrinks by a tenth. Large steps need less agreement, since they average over candidates.

    The method is told means: of 2 r evaluations for the better half, else of r. All candidates of a round
    see the same noise streams, so what their noise has in common cancels; between the two rounds, the mean
    difference is taken away before averaging. A failed evaluation is left out of the mean. With several
    objectives, all candidates take part in the second round.

    Args:
        optimizer: The method.
        most: Evaluations of a candidate in a round at most; fewer where the budget would not suffice for
            30 such steps.
        share: Share of the candidates that is evaluated a second time.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo.methods.cma_es import CMAES
        >>> method = Reevaluated(CMAES())
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> len(method.ask(state))
        7

    Source: N. Hansen, A. Niederberger, L. Guzzella and P. Koumoutsakos, A Method for Handling Uncertainty in
    Evolutionary Optimization With an Application to Feedback Control of Combustion, 2009,
    https://doi.org/10.1109/TEVC.2008.924423. There, rows to be evaluated again are drawn at random and
    changes of rank are compared with limits from their distribution; here it is the better half and tau.
    """

    optimizer: Optimizer[Any]
    most: int = 1000
    share: float = 0.5

    def __post_init__(self) -> None:
        check_count("most", self.most)
        check_fraction("share", self.share)

    @property
    def recommends_evaluated(self) -> bool:
        """As of the method."""
        return self.optimizer.recommends_evaluated

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ReevaluatedState:
        return ReevaluatedState(
            inner=self.optimizer.init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known),
            budget=budget,
            nfev=0,
            times=1.0,
            agreement=0.0,
            weight=0.0,
            first=None,
            extras=None,
            chosen=None,
        )

    def ask(self, state: ReevaluatedState) -> Repeated:
        """Return the candidates of a round; where the budget ends, each of them fewer times."""
        inner = self.optimizer.ask(state.inner)
        if state.first is None:
            times = self._times(state, len(inner)) if inner.decisive else 1
            return Repeated(inner, np.arange(len(inner)), 0, times)
        times = self._times(state, len(state.chosen))
        return Repeated(inner, state.chosen, self.most, times)

    def tell(self, state: ReevaluatedState, evaluations: Evaluations) -> ReevaluatedState:
        """Return the state after a round's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        asked = self.ask(state)
        if len(evaluations) != len(asked):
            raise ValueError(
                f"`evaluations` must hold the {len(asked)} values asked for, got {len(evaluations)}."
            )
        values, extras = _means(evaluations, len(asked.chosen))
        nfev = state.nfev + len(evaluations)
        if state.first is None:
            share = 1.0 if "objectives" in extras else self.share  # which mean says nothing of what decides
            chosen = self._decisive(values, share)
            state = replace(state, nfev=nfev, first=values, extras=extras, chosen=chosen)
            left = math.inf if state.budget is None else state.budget - nfev
            again = asked.inner.decisive and 0 < len(state.chosen) <= left
            return state if again else self._told(state)
        first, chosen, weight = state.first[state.chosen], state.chosen, state.weight
        both = np.isfinite(first) & np.isfinite(values)
        unit = unit_of(first[both], values[both])
        a, b = first[both] / unit, values[both] / unit
        if len(a) > 1:
            difference = b - a
            common = float(difference.mean())
            share = max(_MEMORY, 1 / (1 + weight / _MEMORY))
            agreement = (1 - share) * state.agreement + share * _tau(a, b)
            wanted = min(0.6, 1.2 / math.sqrt(len(a)))
            change = _GROW if agreement < wanted else 1 / _SHRINK
            merged = state.first.copy()
            merged[chosen[both]] = restored(a + (difference - common) / 2, unit)
            merged_extras = {}
            for name, extra in state.extras.items():
                merged_extras[name] = extra.copy()
                merged_extras[name][chosen[both]] = extra[chosen[both]] / 2 + extras[name][both] / 2
            state = replace(
                state,
                first=merged,
                extras=merged_extras,
                times=min(self._most(state, len(state.first)), max(1.0, state.times * change)),
                agreement=agreement,
                weight=weight + share,
            )
        return self._told(replace(state, nfev=nfev))

    def recommend(self, state: ReevaluatedState) -> Array:
        return self.optimizer.recommend(state.inner)

    def finished(self, state: ReevaluatedState) -> str | None:
        return self.optimizer.finished(state.inner) if state.first is None else None

    def diagnostics(self, state: ReevaluatedState) -> dict[str, Any]:
        """Return the method's, and how often candidates are evaluated and how well rounds agree."""
        return {
            **self.optimizer.diagnostics(state.inner),
            "evaluations_each": round(state.times),
            "agreement": state.agreement,
        }

    def _times(self, state: ReevaluatedState, rows: int) -> int:
        times = round(state.times)
        if state.budget is not None and rows:
            times = min(times, (state.budget - state.nfev) // rows)
        return max(1, times)

    def _most(self, state: ReevaluatedState, rows: int) -> float:
        """Return how often a candidate may be evaluated in a round of so many."""
        if state.budget is None:
            return float(self.most)
        return max(1.0, min(self.most, state.budget / (_STEPS * (1 + self.share) * max(rows, _SMALL))))

    def _decisive(self, values: Matrix, share: float) -> Matrix:
        """Return the better part of the rows that have a value, or none where there is nothing to rank."""
        valid = int(np.isfinite(values).sum())
        count = min(valid, max(2, math.ceil(share * len(values))))
        if count < 2:
            return np.empty(0, np.int64)
        return np.sort(values.argsort(kind="stable")[:count])

    def _told(self, state: ReevaluatedState) -> ReevaluatedState:
        inner = self.optimizer.tell(state.inner, Evaluations(state.first, (), state.extras))
        return replace(state, inner=inner, first=None, extras=None, chosen=None)


def _means(evaluations: Evaluations, rows: int) -> tuple[Matrix, dict[str, Matrix]]:
    """Return the mean of each row's evaluations that have a value."""
    valid = np.isfinite(evaluations.values).reshape(-1, rows)

    def mean(array: Matrix) -> Matrix:
        repeated = array.reshape(-1, rows, *array.shape[1:])
        unit = unit_of(repeated)
        kept = np.where(valid.reshape(valid.shape + (1,) * (array.ndim - 1)), repeated / unit, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows of which all evaluations failed
            return restored(np.nanmean(kept, axis=0), unit)

    return mean(evaluations.values), {name: mean(extra) for name, extra in evaluations.extras.items()}


def _tau(a: Matrix, b: Matrix) -> float:
    """Return Kendall's tau: the share of pairs in the same order minus that of pairs in the other one."""
    upper = np.triu_indices(len(a), 1)
    same = np.sign(a[:, None] - a)[upper] * np.sign(b[:, None] - b)[upper]
    return float(same.mean())
