"""The deep genetic algorithm: truncation selection and mutation, on chains of seeds."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolution.descendants import Descendants
from evolution.genome import Codec, Genome
from evolution.lineage import Lineage
from evolution.members import Members
from evolution.selection import check_trials, judged, ranked
from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_count, check_positive

Ids = np.ndarray[Any, Any]

_NOBODY = np.empty(0, np.int64)


@state
class DeepGAState:
    """State of `DeepGA`.

    Attributes:
        key: Where all randomness comes from.
        generation: Generations told.
        lineage: The living and their ancestors.
        population: Ids of those told last, shape (n,).
        values: What they were told, shape (n,).
        parents: Ids of those that have children next, the best one first.
        candidates: Ids of those to be tried again before one of them becomes the elite; none in between.
        elite: Id of the elite, -1 before there is one.
        elite_value: Mean value of all its further trials; infinite before there is one.
        elite_trials: How often it was among the candidates.
    """

    key: Key
    generation: int
    lineage: Lineage
    population: Ids
    values: Ids
    parents: Ids
    candidates: Ids
    elite: int
    elite_value: float
    elite_trials: int


class Elitist(abc.ABC):
    """What `DeepGA` and `RandomPolicies` have in common: generations as chains of seeds, and one elite."""

    codec: Codec | None
    population_size: int
    num_parents: int
    elite_candidates: int
    elite_episodes: int

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("population_size", self.population_size, minimum=2)
        check_trials(self.elite_candidates, self.elite_episodes)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> DeepGAState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        First members follow from the codec, so of `x0` the length alone counts.

        Raises:
            ValueError: There is no codec, or it is of another length, or there are bounds.
        """
        codec = self._codec
        if len(x0) != codec.dim:
            raise ValueError(f"`x0` must have the {codec.dim} coordinates of `codec`, got {len(x0)}.")
        if bounds is not None:
            raise ValueError("`bounds` must be None: members are not kept inside a box.")
        none = _NOBODY
        return DeepGAState(key, 0, Lineage.empty(), none, np.empty(0), none, none, -1, float("inf"), 0)

    def ask(self, state: DeepGAState) -> Members:
        """Return the next generation, or those that are tried again for the elite."""
        if len(state.candidates):
            return Descendants.of(self._codec, state.lineage, state.candidates, self.elite_episodes)
        return Descendants.of(self._codec, *self._bred(state))

    def tell(self, state: DeepGAState, evaluations: Evaluations) -> DeepGAState:
        """Return the state after the values of everything asked for.

        Raises:
            ValueError: There are not as many values as members.
        """
        values = evaluations.values
        again = bool(len(state.candidates))
        asked = len(state.candidates) if again else self.population_size
        if len(values) != asked:
            raise ValueError(f"`evaluations` must hold the {asked} values asked for, got {len(values)}.")
        return self._crowned(state, values) if again else self._selected(state, values)

    def recommend(self, state: DeepGAState) -> Array:
        """Return the parameters of the elite; of a first member before there is one."""
        if state.elite >= 0:
            elite = np.array([state.elite], np.int64)
            row: Array = Descendants.of(self._codec, state.lineage, elite).rows(0, 1)[0]
            return row
        return self.ask(state).rows(0, 1)[0]

    def best(self, state: DeepGAState) -> tuple[int, float]:
        """Return the id and the mean value of the elite; -1 and infinity before there is one."""
        return state.elite, state.elite_value

    def genome(self, state: DeepGAState) -> Genome | None:
        """Return the chain of the elite, None before there is one."""
        return state.lineage.genome(state.elite) if state.elite >= 0 else None

    @property
    def reserve(self) -> int:
        """How many episodes of a budget are to be kept for finding the elite of a generation."""
        return self.elite_candidates * self.elite_episodes

    def finished(self, state: DeepGAState) -> str | None:
        """Return None: it can always go on."""
        return None

    def diagnostics(self, state: DeepGAState) -> dict[str, Any]:
        """Return the generation, the mean value of the elite, and how many are remembered."""
        return {
            "generation": state.generation,
            "elite": state.elite_value,
            "ancestors": len(state.lineage),
        }

    @property
    def _codec(self) -> Codec:
        if self.codec is None:
            raise ValueError("`codec` must say what a chain of seeds stands for, got None.")
        return self.codec

    @abc.abstractmethod
    def _sigma(self, generation: int) -> float:
        """Return the standard deviation of the mutations of a generation."""

    @abc.abstractmethod
    def _drawn_parents(self, state: DeepGAState, count: int) -> Ids:
        """Return the parent of each child, -1 for children without."""

    def _bred(self, state: DeepGAState) -> tuple[Lineage, Ids]:
        """Return the next generation: the lineage with it in, and its ids."""
        size, number = self.population_size, state.generation
        elite = np.array([state.elite] if state.elite >= 0 else [], np.int64)
        count = size - len(elite)
        seeds = self._codec.draw(state.key.fold("seeds", number), 0, count)
        parents, sigma = self._drawn_parents(state, count), self._sigma(number)
        sigmas = np.where(parents < 0, 1.0, sigma).astype(np.float32)
        lineage, born = state.lineage.born(parents, seeds, sigmas)
        return lineage, np.concatenate([elite, born])

    def _selected(self, state: DeepGAState, values: Array) -> DeepGAState:
        """Return the state after a generation was tried."""
        lineage, ids = self._bred(state)
        order = ranked(values, state.key.fold("ties", state.generation))
        told = replace(
            state, generation=state.generation + 1, lineage=lineage, population=ids, values=values + 0.0
        )
        if not len(order):  # nobody has a value: those who had children before have others
            return replace(told, lineage=lineage.pruned(self._living(state)))
        parents = ids[order[: self.num_parents]]
        if not self.elite_candidates:
            return self._led(replace(told, parents=parents), int(parents[0]), float(values[order[0]]))
        first = ids[order]
        if state.elite >= 0:
            others = first[first != state.elite][: self.elite_candidates - 1]
            first = np.concatenate([[state.elite], others])
        return replace(told, parents=parents, candidates=first[: self.elite_candidates])

    def _crowned(self, state: DeepGAState, values: Array) -> DeepGAState:
        """Return the state after candidates were tried again."""
        told = replace(state, candidates=_NOBODY)
        best = judged(values, state.elite_value, state.elite_trials)
        if best is None:
            return replace(told, lineage=state.lineage.pruned(self._living(told)))
        elite = int(state.candidates[best[0]])
        return self._led(told, elite, best[1], state.elite_trials + 1 if elite == state.elite else 1)

    def _led(self, state: DeepGAState, elite: int, value: float, trials: int = 1) -> DeepGAState:
        """Return the state with a new elite, in front of the parents if it is not among them."""
        parents = state.parents
        if elite not in parents:
            parents = np.concatenate([[elite], parents[: self.num_parents - 1]])
        led = replace(state, parents=parents, elite=elite, elite_value=value, elite_trials=trials)
        return replace(led, lineage=state.lineage.pruned(self._living(led)))

    def _living(self, state: DeepGAState) -> Ids:
        """Return the ids of those whose chains are needed."""
        elite = [state.elite] if state.elite >= 0 else []
        return np.unique(np.concatenate([state.parents, np.array(elite, np.int64)]))


@dataclass(frozen=True)
class DeepGA(Elitist):
    """A genetic algorithm for networks of any size: truncation, mutation, one elite; no crossover.

        theta_i = phi(tau_i)                                    in the first generation
        theta_i = theta_p + sigma eps(tau_i),  p ~ U{parents}   later, but for the elite, which stays as it is

    Parents are the `num_parents` members of lowest value. A value is that of one noisy episode, so the
    lowest is a lucky one: the elite is the best, by the mean over `elite_episodes` further episodes, of the
    elite before and the first `elite_candidates` - 1 of the generation (in the first one, of its first
    `elite_candidates`). It is put in front of the parents if it is not among them, and recommended.

    A member is written down as the chain of its seeds, a few bytes for each ancestor, whatever its size; see
    `evolution.genome.Codec`.

    Departures from the paper: equal values are put in order by lot; of candidates whose means are equal the
    elite before comes first; and its mean is over all episodes that it was ever tried again in, since the
    best of ten means of a generation is a lucky one again. Unless a run says otherwise (`common=False`), all
    members of a generation meet the same episodes, where in the paper each has its own: so luck in where they
    begin decides less between them, at the price that a whole generation may be lucky, or fail, together.

    Args:
        codec: What a chain of seeds stands for.
        population_size: Members of a generation, the elite among them.
        num_parents: Members that have children.
        sigma: Standard deviation of a mutation.
        sigma_decay: What sigma is multiplied by after each generation of mutations, the first of which has
            `sigma`; above 0 and at most 1.
        elite_candidates: How many are tried again for the elite, from 2 on; 0 to take the first member as it
            is, as for environments without chance.
        elite_episodes: In how many episodes each.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or parents are more than members.

    Example:
        >>> from evolution.policies.policy import Piece
        >>> from zoo.core.rng import NoiseTable
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("x", (3,), 1.0),))
        >>> method = DeepGA(codec, population_size=20, num_parents=5, sigma=0.3, elite_candidates=0)
        >>> state = method.init(np.zeros(3), key=Key(0))
        >>> for _ in range(60):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 0.1)
        True

    References:
        Such, Madhavan, Conti, Lehman, Stanley and Clune, "Deep neuroevolution: genetic algorithms are a
        competitive alternative for training deep neural networks for reinforcement learning", 2017.
        https://arxiv.org/abs/1712.06567
    """

    codec: Codec | None = None
    population_size: int = 1000
    num_parents: int = 20
    sigma: float = 0.002
    sigma_decay: float = 1.0
    elite_candidates: int = 10
    elite_episodes: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_parents", self.num_parents)
        if self.num_parents > self.population_size:
            raise ValueError(
                f"`num_parents` must be at most `population_size`, which is {self.population_size}, "
                f"got {self.num_parents!r}."
            )
        check_positive("sigma", self.sigma)
        if not check_positive("sigma_decay", self.sigma_decay) <= 1:
            raise ValueError(f"`sigma_decay` must be above 0 and at most 1, got {self.sigma_decay!r}.")

    def diagnostics(self, state: DeepGAState) -> dict[str, Any]:
        """Return the generation, the mean value of the elite, sigma, and how many are remembered."""
        return {**super().diagnostics(state), "sigma": self._sigma(state.generation)}

    def _sigma(self, generation: int) -> float:
        return self.sigma * self.sigma_decay ** max(0, generation - 1)  # those of generation 0 are drawn

    def _drawn_parents(self, state: DeepGAState, count: int) -> Ids:
        """Return the parent of each child, -1 for children without."""
        if not len(state.parents):
            return np.full(count, -1, np.int64)
        drawn = state.key.fold("parents", state.generation).integers(0, 1, count, high=len(state.parents))[0]
        chosen: Ids = state.parents[drawn]
        return chosen


@dataclass(frozen=True)
class RandomPolicies(Elitist):
    """Fresh random policies, the best of them by re-evaluation: what a method has to be better than.

    As `DeepGA`, with children of nobody: every generation is drawn as the first one is, but for the elite.

    Args:
        codec: What a chain of seeds stands for.
        population_size: Members of a generation, the elite among them.
        elite_candidates: As in `DeepGA`, and so on.
        elite_episodes: In how many episodes each.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from evolution.policies.policy import Piece
        >>> from zoo.core.rng import NoiseTable
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("x", (3,), 1.0),))
        >>> method = RandomPolicies(codec, population_size=20)
        >>> state = method.init(np.zeros(3), key=Key(0))
        >>> method.ask(state).rows(0, 2).shape
        (2, 3)

    References:
        Such, Madhavan, Conti, Lehman, Stanley and Clune, "Deep neuroevolution: genetic algorithms are a
        competitive alternative for training deep neural networks for reinforcement learning", 2017.
        https://arxiv.org/abs/1712.06567
    """

    codec: Codec | None = None
    population_size: int = 1000
    elite_candidates: int = 10
    elite_episodes: int = 30

    num_parents = 1  # of nobody, so that one is remembered

    def _sigma(self, generation: int) -> float:
        return 1.0

    def _drawn_parents(self, state: DeepGAState, count: int) -> Ids:
        return np.full(count, -1, np.int64)
