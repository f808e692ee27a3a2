"""The genetic algorithm for novelty, told values and behaviours by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evolution.archive import Archive
from evolution.deep_ga import DeepGA
from evolution.genome import Codec
from evolution.novelty_ga import NoveltyGA
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.types import Evaluations

Array = np.ndarray[Any, Any]
CODEC = Codec(NoiseTable(1, 50_000), (Piece("x", (4,), 1.0),))
NAN = np.nan


def made(**options: Any) -> NoveltyGA:
    given = {"population_size": 8, "num_parents": 3, "sigma": 0.1, "elite_candidates": 0, "neighbours": 2}
    return NoveltyGA(CODEC, **{**given, **options})


def started(method: DeepGA, seed: int = 0) -> Any:
    return method.init(np.zeros(CODEC.dim, np.float32), key=Key(seed))


def told(method: DeepGA, state: Any, behaviours: Any, values: Any = None) -> Any:
    behaviours = np.asarray(behaviours, np.float64)
    if behaviours.ndim == 1:
        behaviours = behaviours[:, None]
    values = np.zeros(len(behaviours)) if values is None else np.asarray(values, np.float64)
    return method.tell(state, Evaluations(values, extras={"behaviour": behaviours}))


def test_parents_are_the_most_novel_and_the_first_of_them_goes_on() -> None:
    method = made(archive_probability=0.0)
    state = started(method)
    first = method.ask(state).rows(0, 8)
    places = [0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 30.0, -20.0]
    state = told(method, state, places, values=np.arange(8.0))
    expected = Archive.empty(1).novelty(np.array(places)[:, None], 2, np.array(places)[:, None])
    assert state.novelty.tolist() == expected.tolist()
    assert expected[[6, 7, 5]].tolist() == [23.5, 20.5, 5.5]
    assert state.parents.tolist() == state.population[[6, 7, 5]].tolist()
    second = method.ask(state).rows(0, 8)
    assert np.array_equal(second[0], first[6])
    assert method.diagnostics(state)["novelty"] == 23.5
    distances = np.abs(second[1:, None] - first[[6, 7, 5]][None]).max(2).min(1)
    assert ((distances > 0) & (distances < 0.1 * 6)).all()


def test_novelty_is_against_the_archive_too() -> None:
    method = made(archive_probability=1.0, neighbours=1)
    state = told(method, started(method), np.arange(8.0) * 10)
    assert state.archive.array[:, 0].tolist() == (np.arange(8.0) * 10).tolist()
    state = told(method, state, np.arange(8.0) * 10 + [0, 0, 0, 0, 0, 0, 1, 4])
    assert state.novelty.tolist() == [0.0] * 6 + [1.0, 4.0]
    assert len(state.archive) == 16


def test_members_enter_the_archive_by_lot() -> None:
    """By lots of the key, the generation and the member's place, so that nothing else has a say."""
    entries = []
    for seed, scale in ((0, 1.0), (0, -3.0), (1, 1.0)):
        method = made(population_size=200, archive_probability=0.1)
        state = started(method, seed)
        for generation in range(5):
            state = told(method, state, scale * (np.arange(200.0) + 1000 * generation), np.arange(200.0))
        entries.append((state.archive.array[:, 0] / scale).round(6).tolist())
    assert entries[0] == entries[1] != entries[2]
    assert 60 < len(entries[0]) < 140
    assert len({entry % 1000 for entry in entries[0]}) > 50, "other places in other generations"
    assert len(told(made(archive_probability=0.0), started(made()), np.arange(8.0)).archive) == 0


def test_the_champion_is_the_best_by_value_and_stays() -> None:
    method = made(archive_probability=0.0)
    state = started(method)
    row = method.ask(state).rows(4, 5)[0]
    state = told(method, state, [0, 9, 20, 40, 40, 40, 80, 99], [5.0, 4, 3, 2, 1, 2, 3, 4])
    champion = int(state.population[4])
    assert method.best(state) == (champion, 1.0)
    assert champion not in state.parents
    for _ in range(5):
        state = told(method, state, np.arange(8.0), np.arange(8.0) + 1)  # one is as good, which is no better
        assert method.best(state) == (champion, 1.0)
        assert np.array_equal(method.recommend(state), row)
    state = told(method, state, np.zeros(8), [9, 9, 9, 0.5, 9, 9, 9, 9])
    assert method.best(state) == (int(state.population[3]), 0.5)
    chain = method.genome(state)
    assert chain is not None
    assert np.array_equal(CODEC.decode(chain), method.recommend(state))


def test_a_champion_may_be_found_by_trying_again() -> None:
    method = made(elite_candidates=3, elite_episodes=7)
    state = told(method, started(method), np.arange(8.0) ** 2, [5, 1, 4, 2, 3, 9, 9, 9])
    again = method.ask(state)
    assert (len(again), again.episodes) == (3, 7)
    assert state.candidates.tolist() == state.population[[1, 3, 4]].tolist()
    parents, elite = state.parents.tolist(), state.elite
    state = method.tell(state, Evaluations(np.array([3.0, NAN, 2.0])))  # of which no behaviour is wanted
    champion = int(state.population[4])
    assert method.best(state) == (champion, 2.0)
    assert (state.parents.tolist(), state.elite) == (parents, elite)
    assert method.ask(state).episodes is None
    state = told(method, state, np.arange(8.0) ** 2, np.arange(8.0))
    assert state.candidates.tolist() == [champion, *state.population[:2]]
    state = method.tell(state, Evaluations(np.array([6.0, 9.0, 8.0])))
    assert method.best(state) == (champion, 4.0)  # by all its trials


def test_by_default_nobody_is_crowned_by_one_lucky_episode() -> None:
    method = NoveltyGA(CODEC, population_size=12, num_parents=3)
    state = told(method, started(method), np.arange(12.0), np.arange(12.0))
    assert method.best(state) == (-1, np.inf)
    again = method.ask(state)
    assert (len(again), again.episodes) == (10, 30)
    state = method.tell(state, Evaluations(np.array([9.0, 8.0, *[10.0] * 8])))
    assert method.best(state) == (int(state.population[1]), 8.0)


def test_failed_members_have_no_children_and_leave_no_trace() -> None:
    method = made(archive_probability=1.0)
    values = [NAN, 1.0, 2.0, 3.0, NAN, 4.0, 0.0, NAN]
    places = [500.0, 0.0, 1.0, 2.0, 900.0, NAN, np.inf, NAN]
    state = told(method, started(method), places, values)
    assert np.isfinite(state.novelty).tolist() == [False, True, True, True] + [False] * 4
    assert state.novelty[1:4].tolist() == [1.5, 1.0, 1.5]
    assert set(state.parents) == set(state.population[1:4])
    assert state.archive.array[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert method.best(state)[1] == 0.0  # it came to nothing that can be compared, but it has a score
    parents = state.parents.tolist()
    state = told(method, state, np.full(8, NAN), np.arange(8.0) - 5)
    assert state.parents.tolist() == parents
    assert method.best(state)[1] == -5.0


def test_equally_novel_ones_are_put_in_order_by_lot() -> None:
    method = made(population_size=40, num_parents=5)
    chosen = [
        (state.parents - state.population[0]).tolist()
        for state in (told(method, started(method, seed), np.zeros(40)) for seed in (0, 0, 1, 2))
    ]
    assert chosen[0] == chosen[1]
    assert len({tuple(parents) for parents in chosen}) == 3
    assert all(parents != list(range(5)) for parents in chosen)


def test_it_walks_past_a_dead_end() -> None:
    """The value leads to 0 and is far lower beyond 4, of which it says nothing on the way."""

    def best_of(kind: type[DeepGA], **more: Any) -> float:
        method = kind(CODEC, 30, num_parents=6, sigma=0.3, elite_candidates=0, **more)
        state = started(method)
        for _ in range(40):
            x = method.ask(state).rows(0, 30)[:, 0].astype(np.float64)
            state = told(method, state, x, np.where(np.abs(x) < 4, x**2, -1.0))
        return method.best(state)[1]

    assert best_of(NoveltyGA, neighbours=5, archive_probability=0.05) == -1.0
    assert 0.0 <= best_of(DeepGA) < 1e-3


def test_the_lineage_keeps_only_what_is_needed() -> None:
    method, sizes = made(), []
    state = started(method)
    for step in range(60):
        rows = method.ask(state).rows(0, 8)
        state = told(method, state, rows, np.linalg.norm(rows, axis=1) + (step > 0))
        sizes.append(len(state.lineage))
        assert method.best(state)[0] in state.lineage.ids
    assert max(sizes) < 60 + 3 * 10


def test_bad_input_is_refused() -> None:
    for changes, message in (
        ({"neighbours": 0}, "`neighbours` must be at least 1, got 0"),
        ({"archive_probability": 1.5}, "`archive_probability` must be from 0 to 1, got 1.5"),
        ({"num_parents": 9}, "`num_parents` must be at most `population_size`"),
        ({"elite_candidates": 1}, "`elite_candidates` must be 0 or at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**changes)
    method = made()
    state = told(method, started(method), np.zeros((8, 2)))
    with pytest.raises(ValueError, match="have 3 numbers each, and those of the archive 2"):
        told(method, state, np.zeros((8, 3)))
    with pytest.raises(ValueError, match="\"behaviour\" among their extras, got 'steps': choose a behaviour"):
        method.tell(state, Evaluations(np.zeros(8), extras={"steps": np.zeros(8)}))
    with pytest.raises(ValueError, match=r'"behaviour" must have shape \(n, b\), got \(8,\)'):
        method.tell(state, Evaluations(np.zeros(8), extras={"behaviour": np.zeros(8)}))
