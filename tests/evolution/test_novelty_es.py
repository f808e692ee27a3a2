"""NS-ES, NSR-ES and NSRA-ES: updates against the dense formula, whose turn it is, and the weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from evolution.archive import Archive
from evolution.genome import Codec, Genome
from evolution.novelty_es import NSES, NSRAES, NSRES, NoveltyES
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import digest
from zoo.core.types import Evaluations
from zoo.methods.openai_es import OpenAIES
from zoo.updates.adam import Adam

Array = np.ndarray[Any, Any]
NAN = np.nan
START = np.array([1.0, -2.0, 0.5, 3.0, -1.0])
SMALL: dict[str, Any] = {"population_size": 12, "agents": 3, "neighbours": 2, "behaviour_episodes": 4}
KINDS = [NSES, NSRES, NSRAES]


def started(method: NoveltyES, x0: Array = START, seed: int = 0) -> Any:
    return method.init(x0, key=Key(seed))


def rows_of(method: NoveltyES, state: Any) -> Array:
    members = method.ask(state)
    return members.rows(0, len(members)).astype(np.float64)


def told(method: NoveltyES, state: Any, values: Any = None, behaviours: Any = None) -> Any:
    """Return the state after values, of a bowl by default, and behaviours, two parameters by default."""
    rows = rows_of(method, state)
    values = (rows**2).sum(1) if values is None else np.asarray(values, np.float64)
    behaviours = rows[:, :2] if behaviours is None else np.asarray(behaviours, np.float64)
    return method.tell(state, Evaluations(values, extras={"behaviour": behaviours}))


def ranks(values: Array) -> Array:
    """Return centred ranks as scipy ranks: equal values have the mean of theirs."""
    return (rankdata(values) - 1) / (len(values) - 1) - 0.5


def test_first_all_means_then_a_population_and_its_mean_in_turn() -> None:
    method = NSRES(**SMALL)
    state = started(method)
    asked = []
    for _ in range(7):
        members = method.ask(state)
        asked.append((state.phase, len(members), members.episodes))
        archived = 0 if state.archive is None else len(state.archive)
        state = told(method, state)
        assert len(state.archive) - archived == {"agents": 3, "population": 0, "mean": 1}[asked[-1][0]]
    assert asked == [("agents", 3, 4), *[("population", 12, None), ("mean", 1, 4)] * 3]
    assert state.step == 3


def test_what_the_means_came_to_is_what_enters_the_archive() -> None:
    method = NSES(**SMALL)
    state = told(method, started(method), np.zeros(3), [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    agent = state.current
    state = told(method, told(method, state), [0.0], [[9.0, 9.0]])
    assert state.archive.array.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [9.0, 9.0]]
    assert state.behaviours[agent].tolist() == [9.0, 9.0]
    assert (
        np.delete(state.behaviours, agent, 0).tolist()
        == np.delete([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], agent, 0).tolist()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_the_formula(kind: type[NoveltyES]) -> None:
    """Values and novelty are ranked apart and mixed; pairs of which one failed are left out."""
    method = kind(**SMALL, sigma=0.3, learning_rate=0.1, weight_decay=0.05)
    if isinstance(method, NSRAES):
        method = replace(method, weight=0.7)
    share = {NSES: 0.0, NSRES: 0.5, NSRAES: 0.7}[kind]
    state = told(method, started(method))
    adam = Adam()
    memories = [adam.init(START)] * 3
    for update in range(5):
        agent = state.current
        mean = state.agents[agent].mean
        rows = rows_of(method, state)
        z = (rows[::2] - rows[1::2]) / 2 / 0.3
        values, behaviours = (rows**2).sum(1), rows[:, 1:3].round(1)
        known = np.ones(12, bool)
        if update == 2:
            values[3], behaviours[8, 1] = NAN, NAN
            known[[2, 3, 8, 9]] = False
        novelty = np.array(
            [np.sort(np.linalg.norm(state.archive.array - one, axis=1))[:2].mean() for one in behaviours]
        )
        weights = np.zeros(12)
        weights[known] = share * ranks(values[known]) + (1 - share) * ranks(-novelty[known])
        gradient = (weights[::2] - weights[1::2]) @ z / known.sum() + 0.05 * mean
        memories[agent], direction = adam.update(memories[agent], gradient)
        others = [digest(one) for number, one in enumerate(state.agents) if number != agent]
        state = told(method, state, values, behaviours)
        np.testing.assert_allclose(state.agents[agent].mean, mean - 0.1 * direction, rtol=0, atol=1e-5)
        assert [digest(one) for number, one in enumerate(state.agents) if number != agent] == others
        state = told(method, state, behaviours=rows[:1, 1:3])


@pytest.mark.parametrize("table", [None, 1000])
def test_with_all_weight_on_values_it_is_the_strategy_of_openai(table: int | None) -> None:
    """To the last bit, and so it is in the first update of NSRA-ES."""
    x0 = START.astype(np.float32)
    shared: dict[str, Any] = {
        "population_size": 12,
        "sigma": 0.1,
        "learning_rate": 0.05,
        "weight_decay": 0.01,
        "noise_table": table,
    }
    method, plain = NSRAES(agents=1, **shared), OpenAIES(**shared)
    state, other = told(method, started(method, x0)), plain.init(x0, key=Key(0))
    for _ in range(4):
        rows = plain.ask(other).rows(0, 12)
        assert method.ask(state).rows(0, 12).tobytes() == rows.tobytes()
        values = (rows.astype(np.float64) ** 2).sum(1)
        other = plain.tell(other, Evaluations(values))
        state = told(method, told(method, state, values), [0.0])
        assert state.agents[0].mean.tobytes() == other.mean.tobytes()
        state = replace(state, weight=1.0)


def test_novelty_alone_does_not_look_at_values() -> None:
    method = NSES(**SMALL)
    state = told(method, started(method))
    states = [told(method, state, values).agents for values in (np.arange(12.0), np.zeros(12))]
    assert digest(states[0]) == digest(states[1]) != digest(state.agents)
    both = NSRES(**SMALL)
    state = told(both, started(both))
    states = [
        told(both, state, values).agents for values in (np.arange(12.0), np.arange(12.0) ** 3, np.zeros(12))
    ]
    assert digest(states[0]) == digest(states[1]) != digest(states[2])


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_is_equal_nothing_moves(kind: type[NoveltyES]) -> None:
    method = kind(**SMALL, weight_decay=0.0)
    state = told(method, started(method))
    for _ in range(3):
        means = [agent.mean.tobytes() for agent in state.agents]
        state = told(method, state, np.full(12, 3.0), np.ones((12, 2)))
        assert [agent.mean.tobytes() for agent in state.agents] == means
        state = told(method, state, [3.0], np.ones((1, 2)))


def test_agents_have_chances_proportional_to_their_novelty() -> None:
    method = NSES(**{**SMALL, "neighbours": 3})
    places = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
    state = told(method, started(method), np.zeros(3), places)
    novelty = Archive.empty(2).add(places).novelty(places, 3)
    assert novelty.tolist() == [10 / 3, 3.0, 17 / 3]  # each of them beside itself
    drawn = np.array([method._next(replace(state, step=step)) for step in range(3000)])
    shares = np.bincount(drawn, minlength=3) / 3000
    np.testing.assert_allclose(shares, novelty / novelty.sum(), atol=5 * 0.5 / np.sqrt(3000))
    alike = told(method, started(method), np.zeros(3), np.zeros((3, 2)))
    drawn = np.array([method._next(replace(alike, step=step)) for step in range(300)])
    assert np.bincount(drawn, minlength=3).min() > 60
    assert state.current == method._next(state)


def test_an_agent_whose_mean_failed_has_the_chance_of_the_others() -> None:
    method = NSES(**{**SMALL, "agents": 4, "neighbours": 3})
    places = np.array([[NAN, 0.0], [1.0, 0.0], [2.0, 0.0], [5.0, 0.0]])
    for behaviours, values in ((places, np.zeros(4)), (np.nan_to_num(places), [NAN, 0.0, 0.0, 0.0])):
        state = told(method, started(method), values, behaviours)
        drawn = np.array([method._next(replace(state, step=step)) for step in range(3000)])
        novelty = np.array([NAN, 5 / 3, 4 / 3, 7 / 3])
        novelty[0] = novelty[1:].mean()
        shares = np.bincount(drawn, minlength=4) / 3000
        np.testing.assert_allclose(shares, novelty / novelty.sum(), atol=5 * 0.5 / np.sqrt(3000))
    nobody = told(method, started(method), np.full(4, NAN), np.zeros((4, 2)))
    assert {method._next(replace(nobody, step=step)) for step in range(100)} == {0, 1, 2, 3}


def test_agents_may_take_turns() -> None:
    method = NSES(**SMALL, turns="in turn")
    state, turns = started(method), []
    for _ in range(14):
        state = told(method, state)
        turns.append(state.current)
    assert turns[::2] == [0, 1, 2, 0, 1, 2, 0]


def trace(method: NSRAES, values: list[float]) -> list[float]:
    """Return the weight after each of some updates, whose means have these values."""
    state = told(method, started(method), np.full(method.agents, 10.0))
    weights = []
    for value in values:
        state = told(method, told(method, state), [value])
        weights.append(state.weight)
    return weights


def test_the_weight_follows_a_scripted_trace() -> None:
    method = NSRAES(population_size=2, agents=2, neighbours=1)
    # Up by one improvement, but not above 1; down once in 50 updates without.
    weights = trace(method, [9.0, *[9.0] * 49, 9.0, 9.0, *[9.5] * 48, 9.0, 8.0, *[8.0] * 50, NAN])
    assert weights[:50] == [1.0] * 50
    assert weights[50:100] == [0.95] * 50
    assert weights[100] == 0.95 - 0.05
    assert weights[101] == pytest.approx(0.95)
    assert weights[102:151] == [weights[101]] * 49
    assert weights[151:] == [weights[101] - 0.05] * 2
    # Down to 0 and no further; from there up again, one step for each improvement.
    low = trace(replace(method, patience=1, weight=0.12), [10.0] * 5 + [3.0, 2.0, 1.0])
    assert low == pytest.approx([0.07, 0.02, 0.0, 0.0, 0.0, 0.05, 0.1, 0.15])
    assert min(low) == 0.0
    assert trace(replace(method, weight_step=0.5, patience=2), [10.0] * 6) == [1.0, 0.5, 0.5, 0.0, 0.0, 0.0]


def test_the_best_mean_is_kept() -> None:
    method = NSRES(**SMALL)
    state = started(method)
    assert method.best(state) == (-1, np.inf)
    assert np.array_equal(method.recommend(state), START)
    rows = method.ask(state).rows(0, 3)
    state = told(method, state, [5.0, 4.0, NAN])
    assert method.best(state) == (0, 4.0)
    assert np.array_equal(method.recommend(state), rows[1])
    for value, best in ((6.0, (0, 4.0)), (3.0, (2, 3.0)), (NAN, (2, 3.0)), (3.0, (2, 3.0))):
        state = told(method, state)
        row = method.ask(state).rows(0, 1)[0]
        state = told(method, state, [value])
        assert method.best(state) == best
        assert np.array_equal(method.recommend(state), row) == (value == 3.0 and state.step == 2)


def test_agents_begin_apart() -> None:
    method = NSES(**SMALL)
    rows = rows_of(method, method.init(START, key=Key(0), scale=0.1))
    assert np.array_equal(rows[0], START.astype(np.float32))
    assert 0 < np.abs(rows[1:] - START).max() < 0.5
    assert not np.array_equal(rows[1], rows[2])
    codec = Codec(NoiseTable(1, 5000), (Piece("w", (5,), 1.0),))
    rows = rows_of(replace(method, codec=codec), started(replace(method, codec=codec)))
    seeds = codec.draw(Key(0).fold("agents"), 0, 3)
    assert np.array_equal(rows, [codec.decode(Genome([seed], [1.0])) for seed in seeds])
    with pytest.raises(ValueError, match="`x0` must have the 5 coordinates of `codec`, got 4"):
        started(replace(method, codec=codec), np.zeros(4))


def test_it_goes_where_nobody_was() -> None:
    """Values lead to 0; the archive covers more of the plane the less they count."""
    covered = []
    for kind in (NSES, NSRAES):
        method = kind(
            population_size=20, agents=2, neighbours=5, sigma=0.2, learning_rate=0.2, weight_decay=0.0
        )
        state = started(method, np.zeros(2))
        for _ in range(240):
            state = told(method, state)
        covered.append(state.archive.coverage(-10, 10, 10))
    assert covered[0] > 2 * covered[1] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population_size": 7}, "`population_size` must be even"),
        ({"agents": 0}, "`agents` must be at least 1, got 0"),
        (
            {"turns": "inturn"},
            "`turns` must be one of 'novelty', 'in turn', got 'inturn'. Did you mean 'in turn'",
        ),
        ({"neighbours": 0}, "`neighbours` must be at least 1, got 0"),
        ({"behaviour_episodes": 0}, "`behaviour_episodes` must be at least 1, got 0"),
        ({"sigma": 0}, "`sigma` must be a finite number above 0, got 0"),
        ({"learning_rate": -1}, "`learning_rate` must be a finite number above 0, got -1"),
        ({"weight_decay": -1}, "`weight_decay` must be a finite number of at least 0, got -1"),
        ({"weight": 2}, "`weight` must be from 0 to 1, got 2"),
        ({"weight_step": -0.1}, "`weight_step` must be from 0 to 1, got -0.1"),
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_hyper_parameters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NSRAES(**changes)


def test_behaviours_are_needed_and_of_one_length() -> None:
    method = NSES(**SMALL)
    state = started(method)
    with pytest.raises(ValueError, match='"behaviour" among their extras, got none'):
        method.tell(state, Evaluations(np.zeros(3)))
    state = told(method, state)
    with pytest.raises(ValueError, match="have 3 numbers each, and those of the archive 2"):
        told(method, state, np.zeros(12), np.zeros((12, 3)))
