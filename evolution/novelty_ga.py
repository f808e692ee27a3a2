"""The genetic algorithm that looks for what is new."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from evolution.archive import Archive, behaviours_of
from evolution.deep_ga import DeepGA, DeepGAState
from evolution.genome import Genome
from evolution.selection import judged, ranked
from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_count, check_probability

Matrix = np.ndarray[Any, Any]


@state
class NoveltyGAState(DeepGAState):
    """State of `NoveltyGA`.

    Here the elite is the most novel member, `elite_value` is minus its novelty, and `candidates` are those
    to be tried again before one of them becomes the champion.

    Attributes:
        champion: Id of the best by value, -1 before there is one.
        champion_value: Its mean value; infinite before there is one.
        champion_trials: How often it was among the candidates.
        archive: Behaviours that are kept, None before any is known.
        behaviours: What those told last came to, shape (n, b), NaN where they failed; None where all did.
        novelty: Their novelty, shape (n,), NaN where they failed.
    """

    champion: int
    champion_value: float
    champion_trials: int
    archive: Archive | None
    behaviours: Matrix | None
    novelty: Matrix


@dataclass(frozen=True)
class NoveltyGA(DeepGA):
    """`DeepGA` with novelty in place of values: for tasks where to do better is to walk into a dead end.

        novelty_i = mean distance from behaviour i to the `neighbours` nearest, of all others of the
                    generation and of the archive

    Parents are the `num_parents` members of highest novelty, the first of which goes on unchanged, as the
    elite. Then each member enters the archive with a chance of `archive_probability`. Values play no part in
    this; they say which member is the champion, which is what is recommended: the one that `DeepGA` would
    make its elite, by further episodes. These are for nothing where environments have no chance, as in the
    maze of the paper: with an `elite_candidates` of 0, the champion is the member of the lowest value.

    It needs "behaviour" among the extras: a row of numbers of one length for each member. One that failed,
    by its value or its behaviour, has no children and does not enter the archive.

    Departures from the paper: members of equal novelty are put in order by lot. The defaults are those of its
    maze, apart from the further episodes and the numbers of members and parents, 20,000 and 61 there.

    Args:
        codec: What a chain of seeds stands for.
        population_size: Members of a generation, the elite among them.
        num_parents: Members that have children.
        sigma: Standard deviation of a mutation.
        sigma_decay: What sigma is multiplied by after each generation of mutations, above 0 and at most 1.
        elite_candidates: How many are tried again for the champion, from 2 on; 0 to go by the value they
            have, as for environments without chance.
        elite_episodes: In how many episodes each.
        neighbours: How many nearest neighbours count.
        archive_probability: Chance of a member to enter the archive, from 0 to 1.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or parents are more than members.

    Example:
        >>> from evolution.genome import Codec
        >>> from evolution.policies.policy import Piece
        >>> from zoo.core.rng import NoiseTable
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("x", (3,), 1.0),))
        >>> options = {"sigma": 0.5, "elite_candidates": 0, "archive_probability": 0.1}
        >>> method = NoveltyGA(codec, population_size=20, num_parents=5, **options)
        >>> state = method.init(np.zeros(3), key=Key(0))
        >>> for _ in range(60):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1), extras={"behaviour": x[:, :2]}))
        >>> bool(np.abs(state.archive.array).max() > 5)
        True

    References:
        Such, Madhavan, Conti, Lehman, Stanley and Clune, "Deep neuroevolution: genetic algorithms are a
        competitive alternative for training deep neural networks for reinforcement learning", 2017.
        https://arxiv.org/abs/1712.06567
        Lehman and Stanley, "Abandoning objectives: evolution through the search for novelty alone", 2011.
        https://doi.org/10.1162/EVCO_a_00025
    """

    sigma: float = 0.005
    neighbours: int = 25
    archive_probability: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("neighbours", self.neighbours)
        check_probability("archive_probability", self.archive_probability)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> NoveltyGAState:
        """Return the first state; see `DeepGA.init`."""
        first = super().init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known)
        shared = {field.name: getattr(first, field.name) for field in fields(first)}
        return NoveltyGAState(
            **shared,
            champion=-1,
            champion_value=np.inf,
            champion_trials=0,
            archive=None,
            behaviours=None,
            novelty=np.empty(0),
        )

    def tell(self, state: Any, evaluations: Evaluations) -> NoveltyGAState:
        """Return the state after the values of everything asked for.

        Raises:
            ValueError: There are not as many values as members, or no behaviours, or they have another length
                than those before.
        """
        values = evaluations.values
        if len(state.candidates) or len(values) != self.population_size:
            tried: Any = super().tell(state, evaluations)
            again: NoveltyGAState = tried
            return again
        behaviours = behaviours_of(evaluations)
        lineage, ids = self._bred(state)
        number, key = state.generation, state.key
        told: NoveltyGAState = replace(
            state,
            generation=number + 1,
            lineage=lineage,
            population=ids,
            values=values + 0.0,
            behaviours=behaviours,
            novelty=np.full(len(values), np.nan),
        )
        if behaviours is None:  # nobody has a value: those who had children before have others
            return self._pruned(told)
        archive = Archive.empty(behaviours.shape[1]) if state.archive is None else state.archive
        novelty = archive.novelty(behaviours, self.neighbours, behaviours)
        enters = key.fold("archive", number).uniform(0, 1, len(values))[0] < self.archive_probability
        told = replace(told, archive=archive.add(behaviours[enters]), novelty=novelty)
        order = ranked(-novelty, key.fold("ties", number))
        if len(order):
            parents = ids[order[: self.num_parents]]
            told = replace(
                told, parents=parents, elite=int(parents[0]), elite_value=-float(novelty[order[0]])
            )
        by_value = ranked(values, key.fold("champion", number))
        first = ids[by_value]
        if not self.elite_candidates:
            lowest = float(values[by_value[0]])
            if lowest < state.champion_value:
                told = replace(told, champion=int(first[0]), champion_value=lowest, champion_trials=1)
            return self._pruned(told)
        if state.champion >= 0:
            others = first[first != state.champion][: self.elite_candidates - 1]
            first = np.concatenate([[state.champion], others])
        return replace(told, candidates=first[: self.elite_candidates])

    def recommend(self, state: Any) -> Array:
        """Return the parameters of the champion; of a first member before there is one."""
        chain = self.genome(state)
        return self.ask(state).rows(0, 1)[0] if chain is None else self._codec.decode(chain)

    def best(self, state: Any) -> tuple[int, float]:
        """Return the id and the mean value of the champion; -1 and infinity before there is one."""
        return state.champion, state.champion_value

    def genome(self, state: Any) -> Genome | None:
        """Return the chain of the champion, None before there is one."""
        return state.lineage.genome(state.champion) if state.champion >= 0 else None

    def diagnostics(self, state: Any) -> dict[str, Any]:
        """Return those of `DeepGA`, the champion's value for the elite's; novelties; those of the archive."""
        found = {**super().diagnostics(state), "elite": state.champion_value}
        known = state.novelty[np.isfinite(state.novelty)]
        highest, median = (known.max(), np.median(known)) if len(known) else (np.nan, np.nan)
        archive = {} if state.archive is None else state.archive.diagnostics()
        return {
            **found,
            "novelty": float(highest),
            "median_novelty": float(median),
            **archive,
        }

    def _crowned(self, state: Any, values: Array) -> NoveltyGAState:
        told = replace(state, candidates=state.candidates[:0])
        best = judged(values, state.champion_value, state.champion_trials)
        if best is not None:
            champion = int(state.candidates[best[0]])
            trials = state.champion_trials + 1 if champion == state.champion else 1
            told = replace(told, champion=champion, champion_value=best[1], champion_trials=trials)
        return self._pruned(told)

    def _living(self, state: Any) -> Matrix:
        champion = np.array([state.champion] if state.champion >= 0 else [], np.int64)
        return np.union1d(super()._living(state), champion)

    def _pruned(self, state: NoveltyGAState) -> NoveltyGAState:
        return replace(state, lineage=state.lineage.pruned(self._living(state)))
