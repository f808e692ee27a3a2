"""The deep genetic algorithm, told values by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evolution.deep_ga import DeepGA, RandomPolicies
from evolution.genome import Codec
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations

CODEC = Codec(NoiseTable(1, 50_000), (Piece("x", (4,), 1.0),))


def started(method: DeepGA, seed: int = 0) -> Any:
    return method.init(np.zeros(CODEC.dim, np.float32), key=Key(seed))


def told(method: DeepGA, state: Any, values: Any) -> Any:
    return method.tell(state, Evaluations(np.asarray(values, np.float64)))


def test_a_generation_is_its_elite_and_children_of_its_parents() -> None:
    method = DeepGA(CODEC, population_size=10, num_parents=3, sigma=0.1, elite_candidates=0)
    state = started(method)
    first = method.ask(state).rows(0, 10)
    state = told(method, state, np.arange(10.0)[::-1])  # the last one is the best
    assert state.population[[9, 8, 7]].tolist() == state.parents.tolist()
    second = method.ask(state).rows(0, 10)
    assert np.array_equal(second[0], first[9])  # the elite, as it was
    distances = np.abs(second[1:, None] - first[[9, 8, 7]][None]).max(2)
    assert (distances.min(1) < 0.1 * 6).all()
    assert (distances.min(1) > 0).all()
    assert len({int(row.argmin()) for row in distances}) == 3  # all parents have children


def test_an_elite_is_found_by_trying_again() -> None:
    method = DeepGA(CODEC, population_size=8, num_parents=2, elite_candidates=3, elite_episodes=7)
    state = told(method, started(method), [5, 1, 4, 2, 3, 9, 9, 9])
    again = method.ask(state)
    assert (len(again), again.episodes) == (3, 7)
    rows = method.ask(started(method)).rows(0, 8)
    assert np.array_equal(again.rows(0, 3), rows[[1, 3, 4]])
    # The third is the best after all, and takes its place in front of the parents.
    state = told(method, state, [3.0, 3.0, 2.0])
    assert state.population[[4, 1]].tolist() == state.parents.tolist()
    assert (state.elite, state.elite_value) == (state.population[4], 2.0)
    assert np.array_equal(method.recommend(state), rows[4])


def test_later_candidates_are_the_elite_and_the_first_others() -> None:
    method = DeepGA(CODEC, population_size=8, num_parents=2, elite_candidates=3)
    state = told(method, told(method, started(method), np.arange(8.0)), [0.0, 1.0, 2.0])
    elite = state.elite
    state = told(method, state, [99, 7, 6, 5, 4, 3, 2, 1])  # the elite was unlucky
    assert state.candidates.tolist() == [elite, *state.population[[7, 6]]]
    assert elite not in state.parents
    state = told(method, state, [0.5, 0.5, 0.6])
    assert state.elite == elite  # of equal ones, that which was there
    assert state.parents.tolist() == [elite, state.population[7]]


def test_an_elite_is_judged_by_all_its_trials() -> None:
    method = DeepGA(CODEC, population_size=6, num_parents=2, elite_candidates=2)
    state = told(method, told(method, started(method), np.arange(6.0)), [1.0, 2.0])
    elite, row = state.elite, method.recommend(state)
    for value, mean in ((3.0, 2.0), (5.0, 3.0), (3.0, 3.0)):
        state = told(method, told(method, state, np.arange(6.0)), [value, 9.0])
        assert method.best(state) == (elite, mean)
    state = told(method, told(method, state, np.arange(6.0)), [np.nan, 9.0])  # it failed throughout
    assert state.elite != elite
    assert method.best(state)[1] == 9.0
    assert not np.array_equal(method.recommend(state), row)
    chain = method.genome(state)
    assert chain is not None
    assert np.array_equal(CODEC.decode(chain), method.recommend(state))


def test_calls_and_what_trying_again_is_good_for() -> None:
    """Noise is ten times as wide as the differences between neighbours in rank."""
    better = calls = 0
    for seed in range(10):
        truths = {}
        for candidates in (0, 10):
            method = DeepGA(
                CODEC, population_size=200, num_parents=20, sigma=0.1, elite_candidates=candidates
            )
            state, noise, gap = started(method, seed), Key(seed).fold("noise"), 0.0
            for step in range(4 if candidates else 2):
                members = method.ask(state)
                times = members.episodes or 1
                x = members.rows(0, len(members))
                truth = np.linalg.norm(x, axis=1)
                drawn = noise.fold(step).normal(0, len(members), times)
                calls += len(members) * times
                if members.episodes is None:
                    gap = np.ptp(truth) / 200
                state = told(method, state, truth + 10 * gap * drawn.mean(1))
            truths[candidates] = float(np.linalg.norm(method.recommend(state)))
        better += truths[10] <= truths[0]
    assert calls == 10 * (2 * 200 + 2 * (200 + 10 * 30))
    assert better >= 9


def test_ties_are_broken_by_lot() -> None:
    method = DeepGA(CODEC, population_size=40, num_parents=5, elite_candidates=0)
    chosen = []
    for seed in range(3):
        state = told(method, started(method, seed), np.zeros(40))
        chosen.append((state.parents - state.population[0]).tolist())
        assert told(method, started(method, seed), np.zeros(40)).parents.tolist() == state.parents.tolist()
    assert chosen[0] != chosen[1] != chosen[2]
    assert all(parents != list(range(5)) for parents in chosen)


def test_failed_members_have_no_children() -> None:
    method = DeepGA(CODEC, population_size=6, num_parents=4, elite_candidates=2)
    state = told(method, started(method), [np.nan, 2.0, np.nan, 1.0, np.nan, np.nan])
    assert state.parents.tolist() == state.population[[3, 1]].tolist()
    state = told(method, state, [np.nan, np.nan])
    assert state.elite == -1
    assert len(method.ask(state)) == 6


def test_a_generation_without_values_changes_no_parents() -> None:
    method = DeepGA(CODEC, population_size=6, num_parents=2, elite_candidates=0)
    state = told(method, started(method), np.arange(6.0))
    after = told(method, state, np.full(6, np.nan))
    assert after.parents.tolist() == state.parents.tolist()
    assert after.elite == state.elite
    assert not np.array_equal(method.ask(after).rows(1, 6), method.ask(state).rows(1, 6))
    nobody = told(method, started(method), np.full(6, np.nan))
    assert method.ask(nobody).rows(0, 6).shape == (6, 4)
    assert np.isfinite(method.recommend(nobody)).all()


def test_asking_changes_nothing_and_states_survive_being_written() -> None:
    method = DeepGA(CODEC, population_size=12, num_parents=3, elite_candidates=4)
    state = started(method)
    for step in range(7):
        before = digest(state)
        rows = method.ask(state).rows(0, 4)
        assert np.array_equal(rows, method.ask(state).rows(0, 4))
        assert np.array_equal(rows[2:4], method.ask(state).rows(2, 4))
        values = np.linalg.norm(method.ask(state).rows(0, len(method.ask(state))), axis=1)
        after = told(method, state, values)
        assert digest(state) == before, step
        state = thaw(*freeze(after))
        assert digest(state) == digest(after)


def test_the_lineage_keeps_only_what_is_needed() -> None:
    method = DeepGA(CODEC, population_size=30, num_parents=5, elite_candidates=0)
    state, sizes = started(method), []
    for step in range(120):
        rows = method.ask(state).rows(0, 30)
        state = told(method, state, np.linalg.norm(rows - step / 10, axis=1))
        sizes.append(len(state.lineage))
    assert max(sizes) < 120 + 5 * 30  # a stem, and some twigs


def test_random_policies_have_no_parents() -> None:
    method = RandomPolicies(CODEC, population_size=10, elite_candidates=0)
    state = told(method, started(method), np.arange(10.0))
    elite = method.recommend(state)
    state = told(method, state, np.arange(10.0))
    rows = method.ask(state).rows(0, 10)
    assert np.array_equal(rows[0], elite)
    assert len(np.unique(rows, axis=0)) == 10
    assert len(state.lineage) == 1  # the elite, and nobody that has nothing to pass on


def test_sigma_decays() -> None:
    method = DeepGA(CODEC, population_size=4, num_parents=4, sigma=1.0, sigma_decay=0.5, elite_candidates=0)
    state, widths = started(method), []
    for _ in range(5):
        widths.append(method.diagnostics(state)["sigma"])
        state = told(method, state, np.arange(4.0))
        youngest = state.lineage.sigmas[state.lineage.ids == state.population[-1]]
        assert youngest.tolist() == widths[-1:]
    assert widths == [1.0, 1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population_size": 1}, "`population_size` must be at least 2"),
        ({"population_size": 5, "num_parents": 6}, "`num_parents` must be at most `population_size`"),
        ({"sigma": 0.0}, "`sigma` must be a finite number above 0"),
        ({"sigma_decay": 1.5}, "`sigma_decay` must be above 0 and at most 1"),
        ({"elite_candidates": -1}, "`elite_candidates` must be at least 0"),
        ({"elite_candidates": 1}, "`elite_candidates` must be 0 or at least 2, got 1"),
        ({"elite_episodes": 0}, "`elite_episodes` must be at least 1"),
    ],
    ids=["size", "parents", "sigma", "decay", "candidates", "one candidate", "episodes"],
)
def test_bad_hyper_parameters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepGA(CODEC, **changes)


def test_a_start_of_another_length_is_refused() -> None:
    method = DeepGA(CODEC)
    with pytest.raises(ValueError, match="`x0` must have the 4 coordinates"):
        method.init(np.zeros(3), key=Key(0))
    with pytest.raises(ValueError, match="`codec` must say"):
        replace(method, codec=None).init(np.zeros(4), key=Key(0))
    with pytest.raises(ValueError, match="must hold the 1000 values"):
        told(method, started(method), np.zeros(3))
