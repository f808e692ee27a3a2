"""Episodes as an objective."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evolution.environments.environment import Environment, Step
from evolution.environments.spaces import Discrete, Image, Spaces, Vector
from evolution.episodes import Episodes
from evolution.members import HeldMembers
from evolution.moments import Normalizer
from evolution.policies.policy import Actor, Piece, Policy
from evolution.rollouts import Rollouts, episode_seed
from zoo.core.rng import Key
from zoo.core.types import Evaluations

KEY = Key(5)


class Counting(Environment):
    """Episode of seed s: lasts s % 5 + 1 steps, shows (s, step), pays the action."""

    spaces = Spaces(Vector(2), Discrete(100))
    max_steps = 5
    behaviours = {"where": 2}  # noqa: RUF012
    slots = 4

    def begin(self, seeds: Sequence[int]) -> Any:
        self.seeds, self.time = np.array(seeds), 0
        return self.shown()

    def shown(self) -> Any:
        return np.stack([self.seeds % 1000, np.full(len(self.seeds), self.time)]).astype(np.float32)

    def step(self, actions: Any) -> Step:
        self.time += 1
        ended = self.time > self.seeds % 5
        errors: dict[int, BaseException] = {}
        rewards = actions.astype(np.float64)
        for episode in np.flatnonzero(self.seeds % 7 == 3) if self.raising else ():
            errors[int(episode)] = RuntimeError("broken")
            ended, rewards[episode] = ended | (np.arange(len(ended)) == episode), np.nan
        return Step(self.shown(), rewards, ended, errors)

    raising = False

    def keep(self, which: Any) -> None:
        self.seeds = self.seeds[which]

    def behaviour(self, name: str) -> Any:
        return np.stack([self.seeds % 1000, np.full(len(self.seeds), self.time)], 1).astype(float)


class Raising(Counting):
    raising = True


class Constant(Policy):
    """Acts by its only parameter."""

    spaces = Counting.spaces
    pieces = (Piece("action", (1,), 1.0),)
    members = 2

    def actor(self, parameters: Any, of: Any) -> Actor:
        return ConstantActor(parameters[of, 0])

    def describe(self) -> dict[str, Any]:
        return {"name": "constant"}


class ConstantActor(Actor):
    shown: list[Any] = []  # noqa: RUF012

    def __init__(self, actions: Any) -> None:
        self.actions = actions.astype(np.int64)

    def act(self, observations: Any) -> Any:
        ConstantActor.shown.append(observations)
        assert observations.shape[1] == len(self.actions)
        return self.actions

    def keep(self, which: Any) -> None:
        self.actions = self.actions[which]


class Source:
    def __init__(self, kind: type[Environment] = Counting) -> None:
        self.kind = kind

    def build(self) -> Environment:
        return self.kind()

    def identity(self) -> dict[str, Any]:
        return {"name": self.kind.__name__}


MEMBERS = HeldMembers(np.arange(1, 7, dtype=np.float32)[:, None])


def evaluated(objective: Rollouts, episodes: Episodes, step: int = 3) -> Evaluations:
    cuts = objective.units(episodes)
    parts = [
        objective.evaluate(episodes, start, stop, key=KEY, step=step)
        for start, stop in itertools.pairwise(cuts)
    ]
    names = parts[0].extras
    return Evaluations(
        np.concatenate([part.values for part in parts]),
        tuple(failure for part in parts for failure in part.failures),
        {name: np.concatenate([part.extras[name] for part in parts]) for name in names},
    )


@pytest.mark.parametrize("common", [True, False], ids=["common", "own"])
def test_a_value_is_minus_the_return_of_the_row_and_its_stream(common: bool) -> None:
    objective = Rollouts(Source(), Constant(), behaviour="where")
    episodes = Episodes(MEMBERS, 3, None, common)
    found = evaluated(objective, episodes)
    seeds = np.array([episode_seed(KEY, 3, stream) for stream in episodes.noise(0, 18).tolist()])
    lengths = seeds % 5 + 1
    actions = np.repeat(np.arange(1, 7), 3)
    assert found.values.tolist() == (-actions * lengths).tolist()
    assert found.extras["steps"].tolist() == lengths.tolist()
    assert found.extras["behaviour"].tolist() == np.stack([seeds % 1000, lengths], 1).tolist()
    assert len(set(seeds.tolist())) == (3 if common else 18)


def test_other_steps_are_other_episodes() -> None:
    assert len({episode_seed(KEY, step, stream) for step in range(20) for stream in range(20)}) == 400


@pytest.mark.parametrize(
    ("times", "members", "slots", "units"),
    [
        (1, 2, 4, [0, 2, 4, 6]),  # as many members as the policy takes
        (2, 8, 4, [0, 4, 8, 12]),  # all that fit, with all their episodes
        (3, 8, 4, [0, 3, 6, 9, 12, 15, 18]),
        (10, 8, 4, [0, 4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 38, 40, 44, 48, 50, 54, 58, 60]),
        (1, 1, 1, [0, 1, 2, 3, 4, 5, 6]),
    ],
    ids=["policy", "slots", "whole", "many", "one"],
)
def test_what_runs_side_by_side(times: int, members: int, slots: int, units: list[int]) -> None:
    policy, source = Constant(), Source()
    policy.members = members
    objective = Rollouts(source, policy)
    objective.built.slots = slots
    assert list(objective.units(Episodes(MEMBERS, times, None, True))) == units


def test_an_episode_that_raises_fails_alone() -> None:
    objective = Rollouts(Source(Raising), Constant(), behaviour="where")
    episodes = Episodes(MEMBERS, 8, None, common=False)
    found = evaluated(objective, episodes)
    seeds = np.array([episode_seed(KEY, 3, stream) for stream in range(48)])
    failed = np.flatnonzero(seeds % 7 == 3)
    assert 0 < len(failed) < 48
    assert np.flatnonzero(np.isnan(found.values)).tolist() == failed.tolist()
    assert np.flatnonzero(np.isnan(found.extras["behaviour"]).all(1)).tolist() == failed.tolist()
    assert [failure.row for failure in found.failures] == failed.tolist()
    assert {failure.kind for failure in found.failures} == {"raised"}
    assert [failure.message for failure in found.failures] == [
        f"episode seed {seeds[row]}, member {row // 8}: RuntimeError: broken" for row in failed
    ]


def test_observations_are_counted_raw_and_shown_normalized() -> None:
    objective = Rollouts(Source(), Constant(), normalized=True)
    normalizer = Normalizer(np.array([500.0, 2.0], np.float32), np.array([250.0, 1.0], np.float32))
    ConstantActor.shown.clear()
    found = evaluated(objective, Episodes(MEMBERS, 1, normalizer, common=False))
    for row, moments in enumerate(found.extras["moments"]):
        seed, length = episode_seed(KEY, 3, row), int(found.extras["steps"][row])
        seen = np.array([[seed % 1000, time] for time in range(length)], float)
        expected = [length, *seen.mean(0), *((seen - seen.mean(0)) ** 2).sum(0)]
        np.testing.assert_allclose(moments, expected, rtol=1e-12, atol=1e-12)
    first = episode_seed(KEY, 3, 0) % 1000
    np.testing.assert_allclose(ConstantActor.shown[0][:, 0], [(first - 500) / 250, -2.0], rtol=1e-6)


def test_pictures_are_not_normalized() -> None:
    policy = Constant()
    policy.spaces = Spaces(Image(4, 84, 84), Discrete(2))
    with pytest.raises(ValueError, match="`normalized` must be False where observations are pictures"):
        Rollouts(Source(), policy, normalized=True)
