"""Members and their episodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evolution.episodes import Episodes, Episodic, mean_of_known
from evolution.members import HeldMembers
from evolution.moments import Normalizer
from zoo.core.rng import Key
from zoo.core.types import Evaluations

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_rows_are_members_as_often_as_each_is_tried() -> None:
    episodes = Episodes(HeldMembers(ROWS), 5, None, common=True)
    assert (len(episodes), episodes.dim) == (20, 3)
    assert np.array_equal(episodes.rows(0, 20), np.repeat(ROWS, 5, 0))
    assert np.array_equal(episodes.rows(3, 12), np.repeat(ROWS, 5, 0)[3:12])


def test_members_meet_the_same_episodes_or_their_own() -> None:
    common = Episodes(HeldMembers(ROWS), 2, None, common=True)
    assert common.noise(1, 5).tolist() == [1, 0, 1, 0]
    assert Episodes(HeldMembers(ROWS), 2, None, common=False).noise(1, 5).tolist() == [1, 2, 3, 4]


@dataclass(frozen=True)
class Told:
    """A method that asks for the same members again and again, and keeps what it was told."""

    episodes: int | None = None

    def init(self, x0: Any, **_: Any) -> tuple[Evaluations, ...]:
        return ()

    def ask(self, state: Any) -> HeldMembers:
        return HeldMembers(ROWS, self.episodes)

    def tell(self, state: Any, evaluations: Evaluations) -> tuple[Evaluations, ...]:
        return (*state, evaluations)

    def recommend(self, state: Any) -> np.ndarray:
        return ROWS[0]

    def best(self, state: Any) -> tuple[int, float]:
        return (len(state), 0.0) if len(state) != 2 else (1, 0.0)  # the second generation has nobody better

    def finished(self, state: Any) -> str | None:
        return None

    def diagnostics(self, state: Any) -> dict[str, Any]:
        return {}


def test_a_value_is_the_mean_of_the_episodes_that_have_one() -> None:
    search: Any = Episodic(Told(), episodes=2)
    state = search.init(ROWS[0], key=Key(0))
    values = [1.0, 3.0, np.nan, 5.0, np.nan, np.nan, 2.0, 2.0]
    extras = {"behaviour": np.arange(16.0).reshape(8, 2), "steps": np.arange(8.0)}
    state = search.tell(state, Evaluations(values, extras=extras))
    (told,) = state.method
    np.testing.assert_array_equal(told.values, [2.0, 5.0, np.nan, 2.0])
    assert told.extras["behaviour"].tolist() == [[1, 2], [5, 6], [9, 10], [13, 14]]
    assert state.steps == 28
    with pytest.raises(ValueError, match="must hold the 8 values"):
        search.tell(state, Evaluations(values[:4]))


def test_a_method_may_want_other_numbers_of_episodes() -> None:
    search: Any = Episodic(Told(episodes=7), episodes=2)
    assert len(search.ask(search.init(ROWS[0], key=Key(0)))) == 28


def test_moments_are_frozen_in_a_step_and_the_best_keeps_those_it_was_judged_with() -> None:
    search: Any = Episodic(Told(), episodes=1, observations=1)
    state = search.init(ROWS[0], key=Key(0))
    seen = []
    for value in (2.0, 4.0, 9.0):
        seen.append(search.ask(state).normalizer)
        rows = np.tile([10.0, value, 0.0], (4, 1))
        state = search.tell(state, Evaluations(np.zeros(4), extras={"moments": rows}))
        assert "moments" not in state.method[-1].extras
    assert [one.mean.tolist() for one in seen] == [[0.0], [2.0], [3.0]]
    # The best after the third step was judged in it, with the moments of the first two.
    kept = search.normalizer(state)
    assert isinstance(kept, Normalizer)
    assert kept.mean.tolist() == [3.0]
    assert search.diagnostics(state) == {"observations": 120}


def test_means_of_what_is_known() -> None:
    rows = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, 5.0]])
    np.testing.assert_array_equal(mean_of_known(rows), [1.0, np.nan, 4.0])


def test_numbers_of_episodes_are_checked() -> None:
    with pytest.raises(ValueError, match="`episodes` must be at least 1"):
        Episodic(Told(), episodes=0)  # type: ignore[arg-type]
