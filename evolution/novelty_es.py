"""Evolution strategies that look for what is new: NS-ES, NSR-ES and NSRA-ES."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolution.archive import Archive, behaviours_of
from evolution.es import FLOAT32, AsMembers, held
from evolution.genome import Codec, Genome
from evolution.members import HeldMembers, Members
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_positive, check_probability
from zoo.methods.es_base import without_halves
from zoo.methods.openai_es import OpenAIES, OpenAIESState
from zoo.updates.shaping import centred_ranks

Matrix = np.ndarray[Any, Any]

TURNS = ("novelty", "in turn")


@state
class NoveltyESState:
    """State of a `NoveltyES`.

    Attributes:
        key: Where all randomness comes from.
        phase: What is evaluated next: the means of all "agents", the "population" of the current one, or its
            new "mean".
        step: Updates so far.
        current: Number of the agent whose turn it is.
        agents: State of each agent's own strategy.
        behaviours: What each agent's mean came to last, shape (agents, b); None before any is known.
        archive: Behaviours that are kept; None before any is known.
        weight: Share of the values in what is climbed; the rest is that of novelty.
        stagnant: Updates since the best mean value was lowered, or since the weight was.
        value: Mean value of the mean evaluated last, NaN if it failed.
        best: Parameters of the mean of lowest mean value so far, or None.
        best_step: After how many updates it was found, -1 before there is one.
        best_value: Its mean value.
    """

    key: Key
    phase: str
    step: int
    current: int
    agents: tuple[OpenAIESState, ...]
    behaviours: Matrix | None
    archive: Archive | None
    weight: float
    stagnant: int
    value: float
    best: Array | None
    best_step: int
    best_value: float


@dataclass(frozen=True)
class NoveltyES(abc.ABC):
    """What the three have in common; see `NSES`."""

    codec: Codec | None = None
    population_size: int = 256
    agents: int = 5
    turns: str = "novelty"
    neighbours: int = 10
    behaviour_episodes: int = 5
    sigma: float = 0.02
    learning_rate: float = 0.01
    weight_decay: float = 0.005
    update: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    noise_table: int | None = None

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("agents", self.agents)
        check_choice("turns", self.turns, TURNS)
        check_count("neighbours", self.neighbours)
        check_count("behaviour_episodes", self.behaviour_episodes)
        check_count("population_size", self.population_size, minimum=2)
        check_positive("sigma", self.sigma)
        check_positive("learning_rate", self.learning_rate)
        self._made()

    @abc.abstractmethod
    def _first_weight(self) -> float:
        """Return the share of the values in what is climbed first."""

    def _reweighed(self, weight: float, stagnant: int, improved: bool) -> tuple[float, int]:
        """Return the weight, and the updates without improvement, after an update."""
        return weight, 0 if improved else stagnant + 1

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> NoveltyESState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        With a codec, agents begin as first policies that it draws, and of `x0` the length alone counts.
        Without, the first one begins at `x0`, and others at normal deviations of `scale` from it.

        Raises:
            ValueError: The codec is of another length than `x0`, or `scale` is not above 0.
        """
        like, strategy = Like.of(x0), self._made()
        if self.codec is not None:
            if len(x0) != self.codec.dim:
                raise ValueError(
                    f"`x0` must have the {self.codec.dim} coordinates of `codec`, got {len(x0)}."
                )
            seeds = self.codec.draw(key.fold("agents"), 0, self.agents)
            one = np.ones(1, np.float32)
            starts = [like.asarray(self.codec.decode(Genome(seed[None], one))) for seed in seeds]
        else:
            apart = key.fold("agents").normal(0, self.agents, len(x0), like=like) * like.asarray(scale)
            starts = [x0 if not number else x0 + apart[number] for number in range(self.agents)]
        begun = tuple(strategy.init(start, key=key, bounds=bounds, scale=scale) for start in starts)
        return NoveltyESState(
            key, "agents", 0, 0, begun, None, None, self._first_weight(), 0, np.nan, None, -1, np.inf
        )

    def ask(self, state: NoveltyESState) -> Members:
        """Return means of agents, or candidates around that of the current one."""
        strategy = self._made()
        if state.phase == "population":
            return AsMembers(strategy.ask(self._current(state)))
        if state.phase == "mean":
            return held(strategy.recommend(state.agents[state.current]), self.behaviour_episodes)
        means = [FLOAT32.asarray(to_numpy(strategy.recommend(agent))) for agent in state.agents]
        return HeldMembers(np.stack(means), self.behaviour_episodes)

    def tell(self, state: NoveltyESState, evaluations: Evaluations) -> NoveltyESState:
        """Return the state after the values of everything asked for.

        Raises:
            ValueError: There are not as many values as members, or no behaviours, or they have another length
                than those before.
        """
        asked = {"agents": self.agents, "mean": 1}.get(state.phase) or len(self.ask(state))
        if len(evaluations) != asked:
            raise ValueError(f"`evaluations` must hold the {asked} values asked for, got {len(evaluations)}.")
        behaviours = behaviours_of(evaluations)
        if behaviours is not None and state.archive is None:
            state = replace(state, archive=Archive.empty(behaviours.shape[1]))
        if state.phase == "population":
            return self._climbed(state, evaluations.values, behaviours)
        if behaviours is not None and state.archive is not None:
            state = replace(state, archive=state.archive.add(behaviours))
        if state.phase == "agents":
            return self._begun(state, evaluations.values, behaviours)
        return self._followed(state, float(evaluations.values[0]), behaviours)

    def recommend(self, state: NoveltyESState) -> Array:
        """Return the mean of lowest mean value so far; that of the first agent before there is one."""
        return (self._made().recommend(state.agents[0]) if state.best is None else state.best) + 0

    def best(self, state: NoveltyESState) -> tuple[int, float]:
        """Return after which update the best mean was found, and its mean value; -1 and infinity before."""
        return state.best_step, state.best_value

    @property
    def reserve(self) -> int:
        """How many episodes of a budget are to be kept for trying a new mean."""
        return self.behaviour_episodes

    def finished(self, state: NoveltyESState) -> str | None:
        """Return None: it can always go on."""
        return None

    def diagnostics(self, state: NoveltyESState) -> dict[str, Any]:
        """Return whose turn it is, the weight of values, the last mean's value, and those of the archive."""
        archive = {} if state.archive is None else state.archive.diagnostics()
        return {
            "agent": state.current,
            "value_weight": state.weight,
            "stagnant": state.stagnant,
            "recommended": state.value,
            **archive,
        }

    def _made(self) -> OpenAIES:
        """Return what each agent follows."""
        return OpenAIES(
            self.population_size,
            noise_table=self.noise_table,
            sigma=self.sigma,
            learning_rate=self.learning_rate,
            update=self.update,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
        )

    def _current(self, state: NoveltyESState) -> OpenAIESState:
        """Return the state of the agent whose turn it is; noise is of the update, whoever makes it."""
        return replace(state.agents[state.current], step=state.step)

    def _begun(self, state: NoveltyESState, values: Matrix, behaviours: Matrix | None) -> NoveltyESState:
        """Return the state after all means were tried."""
        told = replace(state, phase="population", behaviours=behaviours)
        if not np.isnan(values).all():
            number = int(np.nanargmin(values))
            told = self._kept(told, number, float(values[number]))
        return replace(told, current=self._next(told))

    def _climbed(self, state: NoveltyESState, values: Matrix, behaviours: Matrix | None) -> NoveltyESState:
        """Return the state after an update of the current agent."""
        step, agent = state.step + 1, self._current(state)
        if behaviours is not None and state.archive is not None:
            novelty = state.archive.novelty(behaviours, self.neighbours)
            values = without_halves(np.where(np.isnan(novelty), np.nan, values))
            known = np.isfinite(values)
            if known.any():
                newness = centred_ranks(np.where(known, -novelty, np.nan))
                weights = state.weight * centred_ranks(values) + (1 - state.weight) * newness
                agent = self._made().moved(agent, weights, int(known.sum()), step, agent.nfev + len(values))
        agents = (*state.agents[: state.current], agent, *state.agents[state.current + 1 :])
        return replace(state, phase="mean", step=step, agents=agents)

    def _followed(self, state: NoveltyESState, value: float, behaviours: Matrix | None) -> NoveltyESState:
        """Return the state after a new mean was tried."""
        improved = value < state.best_value
        weight, stagnant = self._reweighed(state.weight, state.stagnant, improved)
        told = replace(state, phase="population", weight=weight, stagnant=stagnant, value=value)
        if improved:
            told = self._kept(told, state.current, value)
        if behaviours is not None:
            known = np.full((self.agents, behaviours.shape[1]), np.nan)
            if state.behaviours is not None:
                known = state.behaviours.copy()
            known[state.current] = behaviours[0]
            told = replace(told, behaviours=known)
        return replace(told, current=self._next(told))

    def _kept(self, state: NoveltyESState, number: int, value: float) -> NoveltyESState:
        """Return the state with the mean of an agent as the best."""
        row = FLOAT32.asarray(to_numpy(self._made().recommend(state.agents[number]))) + 0
        return replace(state, best=row, best_step=state.step, best_value=value)

    def _next(self, state: NoveltyESState) -> int:
        """Return whose turn it is."""
        if self.turns == "in turn":
            return state.step % self.agents
        chances = np.ones(self.agents)
        if state.archive is not None and state.behaviours is not None:
            novelty = state.archive.novelty(state.behaviours, self.neighbours)
            known = np.isfinite(novelty)
            if novelty[known].any():
                chances = np.where(known, novelty, novelty[known].mean())
        share = state.key.fold("turn", state.step).uniform(0, 1, 1)[0, 0]
        steps = np.cumsum(chances)
        drawn = int(np.searchsorted(steps, share * steps[-1], side="right"))
        return min(drawn, self.agents - 1)  # where rounding led to the end


@dataclass(frozen=True)
class NSES(NoveltyES):
    """NS-ES: climbs novelty, with a few agents in turn.

        weight_i = w rank(f_i) + (1 - w) rank(-novelty_i)
        g = 1 / n sum_i (weight_i+ - weight_i-) z_i + weight_decay mean / scale
        mean <- mean - learning_rate scale Adam(g)

    for pairs x_i = mean +- sigma scale z_i around the mean of the agent whose turn it is, with w = 0 here,
    1/2 in `NSRES`, and one that adapts in `NSRAES`. Ranks go from -1/2 for the lowest value, or the highest
    novelty, of all n to 1/2, as in `zoo.methods.openai_es.OpenAIES`. Novelty is the mean distance of a
    behaviour to the `neighbours` nearest in the archive.

    Before the first update all means are tried, in `behaviour_episodes` episodes, and what they came to, the
    mean over these, enters the archive; after each update the new mean is, and does. The next agent is drawn
    with chances proportional to the novelty of what their means came to last; one whose mean failed has the
    mean chance of the others, 1 / `agents`. What is recommended is the mean of lowest value ever tried.

    It needs "behaviour" among the extras: a row of numbers of one length for each member.

    As in the authors' code, and other than in the paper, g has no factor 1 / sigma, which matters to
    Adam only beside the weight decay; and the archive holds the agents' own behaviours, at distance 0, when
    their chances are worked out. Departures from the code: equal values have equal ranks; observations, where
    they are normalized, are by what all agents saw; both partners of a pair are left out where one failed.

    Args:
        codec: What first policies are drawn by, one for each agent; None to start around `x0`.
        population_size: Candidates of an update, n, even. The paper has thousands.
        agents: How many means there are.
        turns: "novelty", or "in turn".
        neighbours: How many nearest neighbours count.
        behaviour_episodes: Episodes in which a mean is tried.
        sigma: Standard deviation of the candidates, in units of the `scale` that `init` is given.
        learning_rate: In the same units.
        weight_decay: How strongly means are drawn towards 0, at least 0.
        update: "adam", or "sgd" with heavy-ball momentum.
        beta1: Share of the past in the mean of gradients.
        beta2: Share of the past in Adam's mean of squares.
        noise_table: Length of a table that noise is read from instead of drawn; None for none.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = NSES(population_size=20, agents=2, neighbours=3, sigma=0.1, learning_rate=0.1)
        >>> state = method.init(np.zeros(3, np.float32), key=Key(0))
        >>> for _ in range(200):
        ...     members = method.ask(state)
        ...     x = members.rows(0, len(members))
        ...     state = method.tell(state, Evaluations((x**2).sum(1), extras={"behaviour": x[:, :2]}))
        >>> len(state.archive), bool(np.abs(state.archive.array).max() > 3)
        (101, True)

    References:
        Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, "Improving exploration in evolution
        strategies for deep reinforcement learning via a population of novelty-seeking agents", 2018.
        https://arxiv.org/abs/1712.06560
    """

    def _first_weight(self) -> float:
        return 0.0


@dataclass(frozen=True)
class NSRES(NoveltyES):
    """NSR-ES: climbs the mean of the ranks of novelty and of values; see `NSES` for the rest.

    Example:
        >>> NSRES(agents=3).diagnostics(NSRES(agents=3).init(np.zeros(2), key=Key(0)))["value_weight"]
        0.5

    References:
        Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, "Improving exploration in evolution
        strategies for deep reinforcement learning via a population of novelty-seeking agents", 2018.
        https://arxiv.org/abs/1712.06560
    """

    def _first_weight(self) -> float:
        return 0.5


@dataclass(frozen=True)
class NSRAES(NoveltyES):
    """NSRA-ES: climbs values while they improve, and novelty the more the longer they do not; see `NSES`.

        w <- min(1, w + weight_step)   when the new mean is better than all means before
        w <- max(0, w - weight_step)   after each `patience` updates without that

    Args:
        codec: As in `NSES`, and so on.
        weight: What w is at first, from 0 to 1.
        weight_step: How far it goes at a time.
        patience: Updates in which nothing improves before it falls.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = NSRAES(agents=3)
        >>> method.diagnostics(method.init(np.zeros(2), key=Key(0)))["value_weight"]
        1.0

    References:
        Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, "Improving exploration in evolution
        strategies for deep reinforcement learning via a population of novelty-seeking agents", 2018.
        https://arxiv.org/abs/1712.06560
    """

    weight: float = 1.0
    weight_step: float = 0.05
    patience: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("weight", self.weight)
        check_probability("weight_step", self.weight_step)
        check_count("patience", self.patience)

    def _first_weight(self) -> float:
        return float(self.weight)

    def _reweighed(self, weight: float, stagnant: int, improved: bool) -> tuple[float, int]:
        if improved:
            return min(1.0, weight + self.weight_step), 0
        if stagnant + 1 < self.patience:
            return weight, stagnant + 1
        return max(0.0, weight - self.weight_step), 0
