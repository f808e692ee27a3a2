"""Environments of Gymnasium, and the user's own that look like them: what is shown, taken and refused."""

import traceback
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from evolution.behaviour import Episode
from evolution.environments.checks import random_actions
from evolution.environments.gymnasium import GymnasiumEnvironment
from evolution.environments.lookup import as_environment
from evolution.environments.spaces import (
    Continuous,
    Discrete,
    Image,
    MultiBinary,
    MultiDiscrete,
    Spaces,
    Vector,
)
from evolution.episodes import Episodes
from evolution.members import HeldMembers
from evolution.policies.mlp import MLP
from evolution.rollouts import Rollouts
from tests.evolution import environments_of_users as users
from zoo.core.rng import Key


def play(environment, seeds, actions_seed=0):
    """Return what the first of some episodes showed and gave, all of them with the same random actions."""
    generator = np.random.default_rng(actions_seed)
    observations = environment.begin(seeds)
    is_vector = isinstance(environment.spaces.observations, Vector)
    shown, given, k = [], [], len(seeds)
    while True:
        shown.append((observations[:, 0] if is_vector else observations[0]).copy())
        actions = random_actions(environment.spaces.actions, 1, generator)
        done = environment.step(np.repeat(actions, k, -1))
        assert not done.errors
        given.append(done.rewards[0])
        if done.ended[0]:
            return np.array(shown), np.array(given)
        left = np.flatnonzero(~done.ended)
        observations = done.observations[:, left] if is_vector else done.observations[left]
        environment.keep(left)
        k = len(left)


def same(one, other):
    return one[0].tobytes() == other[0].tobytes() and one[1].tobytes() == other[1].tobytes()


FAMILIES = ["CartPole-v1", "LunarLander-v3", "HalfCheetah-v5", "BipedalWalker-v3", "Taxi-v4"]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_episode_is_the_same_after_ten_others_and_beside_others(name):
    alone = play(GymnasiumEnvironment(name, max_steps=60), [17])
    used = GymnasiumEnvironment(name, max_steps=60)
    for seed in range(10):
        play(used, [100 + seed, 200 + seed], actions_seed=seed)
    assert same(play(used, [17]), alone)
    assert same(play(used, [17, 3, 4]), alone)


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
def test_an_episode_is_that_of_the_bare_environment(name):
    environment = GymnasiumEnvironment(name)
    shown, given = play(environment, [5])
    bare = gymnasium.make(name)
    generator = np.random.default_rng(0)
    observation, _ = bare.reset(seed=5)
    for row, reward in zip(shown, given, strict=True):
        assert row.tobytes() == observation.astype(np.float32).tobytes()
        action = random_actions(environment.spaces.actions, 1, generator)[..., 0]
        observation, there, terminated, truncated, _ = bare.step(action)
        assert there == reward
    assert terminated or truncated
    assert len(given) <= environment.max_steps


def test_wrappers_that_only_count_are_left_out_and_others_stay():
    cart_pole = GymnasiumEnvironment("CartPole-v1")
    assert (cart_pole.max_steps, cart_pole.frames_per_step) == (500, 1)
    assert type(cart_pole._seats[0].outer) is cart_pole._seats[0].outer.unwrapped.__class__
    limited, doubled = GymnasiumEnvironment(users.limited), GymnasiumEnvironment(users.doubled)
    assert limited.max_steps == doubled.max_steps == 7
    assert isinstance(limited._seats[0].outer, users.Walk)
    assert isinstance(doubled._seats[0].outer, gymnasium.wrappers.TransformReward)
    (shown, given), (shown_again, twice) = play(limited, [0]), play(doubled, [0])
    assert shown.tobytes() == shown_again.tobytes()
    assert (2 * given).tobytes() == twice.tobytes()
    assert len(given) == 7


def test_steps_are_limited_by_the_user_before_all_else():
    assert GymnasiumEnvironment("CartPole-v1", max_steps=3).max_steps == 3
    assert len(play(GymnasiumEnvironment("MountainCar-v0", max_steps=3), [0])[1]) == 3
    assert len(play(GymnasiumEnvironment("MountainCar-v0", max_steps=250), [0])[1]) == 250
    assert len(play(GymnasiumEnvironment(users.limited, max_steps=9), [0])[1]) == 9
    with pytest.raises(ValueError, match=r"`max_steps` must be given, such as 1000: Plain has no time limit"):
        GymnasiumEnvironment(users.Plain)
    with pytest.raises(ValueError, match=r"`max_steps` must be at least 1, got 0"):
        GymnasiumEnvironment("CartPole-v1", max_steps=0)
    assert GymnasiumEnvironment("CartPole-v1", frames_per_step=4).frames_per_step == 4


def test_what_looks_like_an_environment_is_one():
    plain = GymnasiumEnvironment(users.Plain, max_steps=12)
    assert plain.spaces == Spaces(Vector(1), Discrete(3))
    assert plain.begin([0, 1]).shape == (1, 2)
    before = plain._seen.copy()
    done = plain.step(np.array([0, 2]))
    assert not done.errors
    assert (done.observations - before).tolist() == [[-1.0, 1.0]]


def box(low, high, shape, dtype=np.float32):
    return spaces.Box(low, high, shape, dtype)


PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)

OBSERVATIONS = {
    "row": (box(-1, 1, (3,)), np.array([0.5, 0.25, -1]), Vector(3), [0.5, 0.25, -1]),
    "list": (box(-1, 1, (2,)), [0.5, 0.25], Vector(2), [0.5, 0.25]),
    "number": (box(-1, 1, ()), np.float64(0.5), Vector(1), [0.5]),
    "matrix": (box(-1, 1, (2, 2)), np.array([[1, 2], [3, 4.0]]), Vector(4), [1, 2, 3, 4]),
    "memory": (box(0, 255, (3,), np.uint8), np.array([0, 128, 255], np.uint8), Vector(3), [0, 128, 255]),
    "category": (spaces.Discrete(4), 2, Vector(4), [0, 0, 1, 0]),
    "category-start": (spaces.Discrete(3, start=5), np.int64(5), Vector(3), [1, 0, 0]),
    "categories": (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), Vector(5), [0, 1, 0, 0, 1]),
    "categories-start": (
        spaces.MultiDiscrete([2, 2], start=[1, -1]),
        np.array([1, 0]),
        Vector(4),
        [1, 0, 0, 1],
    ),
    "table": (
        spaces.MultiDiscrete([[2, 2], [2, 2]]),
        np.eye(2, dtype=int),
        Vector(8),
        [0, 1, 1, 0, 1, 0, 0, 1],
    ),
    "switches": (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), Vector(3), [1, 0, 1]),
    "channels-last": (box(0, 255, (4, 6, 3), np.uint8), PICTURE, Image(3, 4, 6), PICTURE.transpose(2, 0, 1)),
    "channels-first": (
        box(0, 255, (3, 4, 6), np.uint8),
        PICTURE.reshape(3, 4, 6),
        Image(3, 4, 6),
        PICTURE.reshape(3, 4, 6),
    ),
    "grey": (box(0, 255, (4, 6), np.uint8), PICTURE[:, :, 0], Image(1, 4, 6), PICTURE[None, :, :, 0]),
    "stack": (
        box(0, 255, (2, 4, 6, 3), np.uint8),
        np.stack([PICTURE, PICTURE[::-1]]),
        Image(6, 4, 6),
        np.concatenate([PICTURE.transpose(2, 0, 1), PICTURE[::-1].transpose(2, 0, 1)]),
    ),
}


@pytest.mark.parametrize("case", OBSERVATIONS)
def test_observations_are_shown_as_policies_want_them(case):
    space, seen, kind, shown = OBSERVATIONS[case]
    environment = GymnasiumEnvironment(
        users.Noted, options={"observation_space": space, "seen": seen}, max_steps=2
    )
    assert environment.spaces.observations == kind
    for observations in (
        environment.begin([0, 1]),
        environment.step(np.zeros((1, 2), np.float32)).observations,
    ):
        assert observations.flags.c_contiguous
        if isinstance(kind, Vector):
            assert observations.dtype == np.float32
            assert observations.tolist() == [[number, number] for number in shown]
        else:
            assert observations.dtype == np.uint8
            assert np.array_equal(observations, np.stack([shown, shown]))
    assert environment.behaviours == ({"observation": kind.size} if isinstance(kind, Vector) else {})


ACTIONS = {
    "choice": (spaces.Discrete(3), Discrete(3), [0, 2], [0, 2]),
    "choice-start": (spaces.Discrete(3, start=-1), Discrete(3), [0, 2], [-1, 1]),
    "box": (box(-2, 2, (2,)), Continuous((-2, -2), (2, 2)), [[1, -1], [2, 0.5]], [[1, 2], [-1, 0.5]]),
    "no-walls": (
        box(-np.inf, np.inf, (1,)),
        Continuous((-np.inf,), (np.inf,)),
        [[1e6, -1e6]],
        [[1e6], [-1e6]],
    ),
    "matrix": (
        box(0, 1, (1, 2), np.float64),
        Continuous((0, 0), (1, 1)),
        [[1, 0], [0.5, 0.25]],
        [[[1, 0.5]], [[0, 0.25]]],
    ),
    "whole": (box(0, 9, (1,), np.int32), Continuous((0,), (9,)), [[1.4, 8.6]], [[1], [9]]),
    "choices": (spaces.MultiDiscrete([2, 3]), MultiDiscrete((2, 3)), [[0, 1], [2, 0]], [[0, 2], [1, 0]]),
    "choices-start": (
        spaces.MultiDiscrete([2, 3], start=[5, -1]),
        MultiDiscrete((2, 3)),
        [[0, 1], [2, 0]],
        [[5, 1], [6, -1]],
    ),
    "switches": (spaces.MultiBinary(2), MultiBinary(2), [[0, 1], [1, 1]], [[0, 1], [1, 1]]),
    "table": (
        spaces.MultiBinary([2, 1]),
        MultiBinary(2),
        [[0, 1], [1, 1]],
        [[[0], [1]], [[1], [1]]],
    ),
}


@pytest.mark.parametrize("case", ACTIONS)
def test_actions_are_handed_over_as_environments_want_them(case):
    space, kind, chosen, taken = ACTIONS[case]
    environment = GymnasiumEnvironment(users.Noted, options={"action_space": space}, max_steps=2)
    assert environment.spaces.actions == kind
    environment.begin([0, 1])
    actions = np.array(chosen, np.float32 if isinstance(kind, Continuous) else np.int64)
    environment.step(actions)
    for seat, action in zip(environment._seats, taken, strict=True):
        got = seat.inner.taken[0]
        assert np.array(got).tolist() == action
        assert space.contains(got)
        assert not np.shares_memory(got, actions)


@pytest.mark.parametrize("case", ACTIONS)
def test_random_actions_are_of_their_space(case):
    kind = ACTIONS[case][1]
    actions = random_actions(kind, 50, np.random.default_rng(0))
    if isinstance(kind, Continuous):
        assert actions.shape == (kind.size, 50)
        assert actions.dtype == np.float32
        assert (np.array(kind.low)[:, None] <= actions).all()
        assert (actions <= np.array(kind.high)[:, None]).all()
    else:
        counts = {Discrete: "count", MultiDiscrete: "counts"}
        most = np.array(getattr(kind, counts[type(kind)])) if type(kind) in counts else np.full(kind.size, 2)
        assert actions.shape == ((50,) if isinstance(kind, Discrete) else (len(most), 50))
        assert set(np.unique(actions)) <= set(range(most.max()))
        assert np.less(actions.T, most).all()
    assert len(np.unique(actions)) > 1


REFUSED = {
    "dict": (
        spaces.Dict({"a": box(0, 1, (2,)), "b": spaces.Discrete(2)}),
        r"(?s)observations of Noted must be an array.*got Dict: .*gymnasium\.wrappers\.FlattenObservation",
    ),
    "tuple": (spaces.Tuple([spaces.Discrete(2)]), r"(?s)got Tuple: .*FlattenObservation.*module:function"),
    "text": (spaces.Text(5), r"got Text: .*ObservationWrapper"),
    "empty": (box(0, 1, (0,)), r"must have some numbers"),
    "too-many": (spaces.Discrete(10**6), r"have 1000000 categories, and at most 4096"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_observations_that_no_policy_takes_are_refused_with_advice(case):
    space, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        GymnasiumEnvironment(users.Noted, options={"observation_space": space}, max_steps=2)


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple([spaces.Discrete(2)])]
)
def test_actions_that_no_policy_has_are_refused_with_advice(space):
    with pytest.raises(ValueError, match=r"actions of Noted must be Discrete.*ActionWrapper"):
        GymnasiumEnvironment(users.Noted, options={"action_space": space}, max_steps=2)


def starts(count, is_bad):
    """Return seeds of starts that are positive, which odd environments fail at, or negative."""
    walk = users.Walk()
    found = [seed for seed in range(100) if (walk.reset(seed=seed)[0][0] > 0) == is_bad]
    return found[:count]


STILL = np.zeros((1, 1), np.float32)


def fail(environment, steps=3):
    """Return what came of the last of some steps of a bad episode between two good ones."""
    (good, other), (bad,) = starts(2, False), starts(1, True)
    environment.begin([good, bad, other])
    for _ in range(steps):
        done = environment.step(np.repeat(STILL, 3, 1))
    return done


def lines(error):
    """Return the places in the traceback of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.name}" for frame in frames]


def check_only_one_failed(environment, done):
    assert list(done.errors) == [1]
    assert done.ended.tolist() == [False, True, False]
    assert np.isnan(done.rewards).tolist() == [False, True, False]
    environment.keep(np.array([0, 2]))
    steps = 3
    while True:
        done = environment.step(np.repeat(STILL, 2, 1))
        steps += 1
        assert not done.errors
        assert np.isfinite(done.rewards).all()
        if done.ended.any():
            break
    assert done.ended.tolist() == [True, True]
    assert steps == 20
    good = starts(1, False)
    assert same(play(environment, good), play(GymnasiumEnvironment(users.Walk, max_steps=20), good))


@pytest.mark.parametrize("what", [ValueError, SystemExit, AssertionError])
def test_an_environment_that_raises_fails_its_episode_and_is_thrown_away(what):
    environment = GymnasiumEnvironment(users.Raising, options={"what": what}, max_steps=20)
    fail(environment, 2)
    broken = environment._seats[1].inner
    done = environment.step(np.repeat(STILL, 3, 1))
    assert type(done.errors[1]) is what
    assert str(done.errors[1]) == "the arm is broken"
    assert lines(done.errors[1]) == ["environments_of_users.py:step"]
    assert broken.closed
    check_only_one_failed(environment, done)
    environment.begin([0, 1, 2])
    assert environment._seats[1].inner is not broken


def test_an_environment_that_does_not_start_fails_its_episode():
    environment = GymnasiumEnvironment(users.Raising, options={"where": "reset"}, max_steps=20)
    done = fail(environment, 1)
    assert str(done.errors[1]) == "no start"
    assert lines(done.errors[1]) == ["environments_of_users.py:reset"]
    assert done.ended.tolist() == [False, True, False]
    environment.keep(np.array([0, 2]))
    for _ in range(2):
        done = environment.step(np.repeat(STILL, 2, 1))
    assert not done.errors


def test_interrupts_pass():
    environment = GymnasiumEnvironment(users.Raising, options={"what": KeyboardInterrupt}, max_steps=20)
    with pytest.raises(KeyboardInterrupt):
        fail(environment)


GIVEN = {
    "nan-reward": ({"reward": np.nan}, r"^Giving: the reward of step 3 is nan\.$"),
    "infinite-reward": ({"reward": -np.inf}, r"^Giving: the reward of step 3 is -inf\.$"),
    "no-reward": (
        {"reward": None},
        r"^Giving: the reward must be a number.*step 3 gave None, False and False",
    ),
    "rewards": ({"reward": np.zeros(2)}, r"^Giving: the reward must be a number.*step 3 gave array"),
    "no-end": ({"end": np.zeros(2)}, r"`terminated` and `truncated` True or False"),
    "longer": (
        {"observation": np.zeros(3)},
        r"^Giving: the observation of step 3 has shape \(3,\), and the space says \(2,\)\.$",
    ),
    "deeper": ({"observation": np.zeros((1, 2))}, r"has shape \(1, 2\), and the space says \(2,\)"),
    "single": ({"observation": np.float64(3)}, r"has shape \(\), and the space says \(2,\)"),
    "nan": ({"observation": np.array([0, np.nan])}, r"^Giving: the observation of step 3 is nan at 1\.$"),
    "infinite": ({"observation": np.array([np.inf, 0])}, r"the observation of step 3 is inf at 0"),
    "too-large": ({"observation": np.array([1e300, 0])}, r"the observation of step 3 is inf at 0"),
    "none": ({"observation": None}, r"^Giving: the observation of step 3 "),
    "text": ({"observation": "no"}, r"^Giving: the observation of step 3 is not of its space"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_cannot_be_served_fails_its_episode_and_names_the_step(case):
    given, said = GIVEN[case]
    environment = GymnasiumEnvironment(users.Giving, options=given, max_steps=20)
    done = fail(environment)
    with pytest.raises((ValueError, TypeError), match=said):
        raise done.errors[1]
    assert np.isfinite(done.observations).all()
    check_only_one_failed(environment, done)


def test_numbers_of_other_kinds_are_rewards_too():
    for reward in (2, np.float32(2), np.int64(2), np.array(2.0), np.array([2.0]), True + 1):
        environment = GymnasiumEnvironment(users.Giving, options={"reward": reward}, max_steps=20)
        done = fail(environment)
        assert not done.errors
        assert done.rewards[1] == 2.0
        assert done.rewards.dtype == np.float64


def test_pictures_that_change_fail_their_episode():
    space = box(0, 255, (4, 6, 3), np.uint8)
    environment = GymnasiumEnvironment(
        users.Noted, options={"observation_space": space, "seen": PICTURE}, max_steps=9
    )
    environment.begin([0, 1])
    for wrong, said in (
        (PICTURE[:3], r"the observation of step 1 has shape \(3, 6, 3\), and the space says \(4, 6, 3\)"),
        (PICTURE / 255, r"the observation of step 1 is an array of float64, and the space says uint8"),
    ):
        environment.begin([0, 1])
        environment._seats[1].inner.seen = wrong
        done = environment.step(np.repeat(STILL, 2, 1))
        with pytest.raises(ValueError, match=said):
            raise done.errors[1]
        assert np.array_equal(done.observations[0], PICTURE.transpose(2, 0, 1))


@pytest.mark.parametrize("seen", [4, -1, 0.5])
def test_categories_beyond_the_space_fail_their_episode(seen):
    environment = GymnasiumEnvironment(
        users.Noted, options={"observation_space": spaces.Discrete(4), "seen": 3}, max_steps=9
    )
    environment.begin([0])
    environment._seats[0].inner.seen = seen
    done = environment.step(STILL)
    with pytest.raises(ValueError, match=r"beyond 0 to 3|an array of float64, and the space says integers"):
        raise done.errors[0]


def test_old_environments_are_told_what_to_return():
    environment = GymnasiumEnvironment(users.Old, options={"reset": False}, max_steps=20)
    environment.begin([0])
    with pytest.raises(ValueError, match=r"`step` must return \(observation.*step 1 returned a tuple of 4"):
        raise environment.step(STILL).errors[0]
    environment = GymnasiumEnvironment(users.Old, max_steps=20)
    environment.begin([0])
    with pytest.raises(ValueError, match=r"`reset` must return \(observation, info\).*got ndarray"):
        raise environment.step(STILL).errors[0]
    with pytest.raises(TypeError, match=r"Seedless: `reset` must take a seed"):
        GymnasiumEnvironment(users.Seedless, max_steps=20)


def test_what_is_no_environment_is_refused():
    with pytest.raises(TypeError, match=r"nothing must make an environment .*NoneType, has no `reset`"):
        GymnasiumEnvironment(users.nothing)
    with pytest.raises(
        TypeError, match=r"several must make one environment, and CartPoleVectorEnv is several"
    ):
        GymnasiumEnvironment(users.several, max_steps=3)


@pytest.mark.parametrize("what", ["observation_space", "action_space"])
@pytest.mark.parametrize("when", ["built", "second"])
def test_spaces_that_change_fail_the_episode(monkeypatch, when, what):
    monkeypatch.setattr(users.Changing, "built", 0)
    environment = GymnasiumEnvironment(users.Changing, options={"when": when, "what": what}, max_steps=20)
    for _ in range(2):
        environment.begin([0, 1])
        done = environment.step(np.repeat(STILL, 2, 1))
        if done.errors:
            break
    kind = "observations" if what == "observation_space" else "actions"
    with pytest.raises(
        ValueError, match=rf"Changing: the space of {kind} changed from Box.* to (Box|Discrete)"
    ):
        raise done.errors[1]
    assert (0 in done.errors) == (when == "second")


def test_an_environment_that_remembers_may_be_built_for_every_episode():
    alone = play(GymnasiumEnvironment(users.Remembering, max_steps=5), [1])
    used = GymnasiumEnvironment(users.Remembering, max_steps=5)
    play(used, [0])
    assert not same(play(used, [1]), alone)
    fresh = GymnasiumEnvironment(users.Remembering, max_steps=5, fresh=True)
    play(fresh, [0])
    assert same(play(fresh, [1]), alone)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("HalfCheetah-v5", 1),
        ("Hopper-v5", 1),
        ("Swimmer-v5", 2),
        ("Ant-v5", 2),
        ("Reacher-v5", 0),
        ("InvertedPendulum-v5", 0),
    ],
)
def test_the_position_is_that_of_what_slides_or_flies(name, size):
    environment = GymnasiumEnvironment(name, max_steps=5)
    assert environment.behaviours.get("position", 0) == size
    assert next(iter(environment.behaviours)) == ("position" if size else "observation")
    if not size:
        with pytest.raises(ValueError, match="has no behaviour 'position'"):
            environment.behaviour("position")
        return
    environment.begin([0, 1])
    for _ in range(5):
        done = environment.step(random_actions(environment.spaces.actions, 2, np.random.default_rng(0)))
    assert done.ended.all()
    there = [seat.inner.data.qpos[:size].tolist() for seat in environment._seats]
    assert environment.behaviour("position").tolist() == there
    assert there[0] != there[1]


def test_the_last_observation_is_a_behaviour():
    environment = GymnasiumEnvironment("CartPole-v1", max_steps=4)
    environment.begin([0, 1, 2])
    done = environment.step(np.array([0, 1, 1]))
    environment.keep(np.array([0, 2]))
    assert environment.behaviour("observation").tolist() == done.observations[:, [0, 2]].T.tolist()
    assert environment.behaviour("observation").dtype == np.float64


def test_a_behaviour_of_the_user_is_given_the_whole_episode():
    episodes = []

    def last(episode):
        episodes.append(episode)
        return [*episode.observations[-1], len(episode.rewards), episode.rewards.sum()]

    environment = GymnasiumEnvironment(users.Walk, max_steps=20, behaviour=last)
    assert environment.behaviours == {"custom": 4, "observation": 2}
    episodes.clear()
    shown = [environment.begin([0, 1])]
    actions, given = [], []
    for step in range(20):
        push = np.array([[1.0, 0.0]], np.float32) if len(environment._places) == 2 else STILL
        done = environment.step(push)
        shown.append(done.observations)
        actions.append(push[0, -1])
        given.append(done.rewards[-1])
        if done.ended.tolist() == [True, False]:
            rows = environment.behaviour("custom")
            assert np.isnan(rows[1]).all()
            assert rows[0, 2] == step + 1 == len(episodes[0].actions)
            environment.keep(np.array([1]))
    (first, second) = episodes
    assert isinstance(second, Episode)
    assert second.observations.tobytes() == np.array([row[:, -1] for row in shown]).tobytes()
    assert [float(action[0]) for action in second.actions] == actions
    assert second.rewards.tolist() == given
    assert isinstance(second.environment, users.Walk)
    assert len(first.observations) == len(first.rewards) + 1
    assert environment.behaviour("custom").tolist() == [[second.observations[-1, 0], 20, 20, sum(given)]]


def test_a_behaviour_of_varying_length_fails_the_episode_and_names_both_lengths():
    environment = GymnasiumEnvironment(users.Walk, max_steps=6, behaviour=users.whole)
    assert environment.behaviours["custom"] == 7
    environment.begin([0, 1])
    for _ in range(6):
        done = environment.step(np.array([[1.0, 0.0]], np.float32))
        if done.ended.any():
            break
    assert done.ended.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"whole returned 7 of a first one, and [345] of one of [234] steps"):
        raise done.errors[0]
    assert np.isnan(done.rewards[0])
    assert np.isnan(environment.behaviour("custom")).all()


def test_a_behaviour_that_raises_fails_the_episode():
    def late(episode):
        assert len(episode.rewards) > 4, "too short"
        return [1.0]

    environment = GymnasiumEnvironment(users.Walk, max_steps=6, behaviour=late)
    environment.begin([0, 1])
    for _ in range(6):
        done = environment.step(np.array([[1.0, 0.0]], np.float32))
        if done.ended.any():
            break
    assert str(done.errors[0]).startswith("too short")
    assert lines(done.errors[0]) == ["test_gymnasium.py:late"]
    assert done.ended.tolist() == [True, False]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, r"`behaviour` must return a row of numbers, and .* returned"),
        ("a", r"returned 'a'"),
        (3.0, r"returned an array of shape \(\)"),
        ([], r"returned an array of shape \(0,\)"),
        ([[1.0]], r"returned an array of shape \(1, 1\)"),
        ([0.0, np.nan], r"must return finite numbers, and .* returned nan at 1"),
    ],
)
def test_a_behaviour_that_is_no_row_of_numbers_is_refused_at_once(returned, said):
    with pytest.raises((TypeError, ValueError), match=said):
        GymnasiumEnvironment(users.Walk, max_steps=3, behaviour=lambda episode: returned)


def test_a_behaviour_that_cannot_be_tried_says_why():
    with pytest.raises(
        ValueError, match=r"`behaviour` could not be tried, as 5 of 5 .* reward of step 1 is nan"
    ):
        GymnasiumEnvironment(
            users.Giving,
            options={"at": 1, "every": True, "reward": np.nan},
            max_steps=3,
            behaviour=users.last_two,
        )


def test_pictures_are_made_where_they_were_asked_for():
    assert GymnasiumEnvironment("CartPole-v1").render() is None
    silent = GymnasiumEnvironment("CartPole-v1")
    silent.begin([0])
    assert silent.render() is None
    shown = GymnasiumEnvironment("CartPole-v1", pictures=True)
    shown.begin([0])
    picture = shown.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert len(np.unique(picture)) > 1
    without = GymnasiumEnvironment(users.Walk, max_steps=3, pictures=True)
    without.begin([0])
    assert without.render() is None
    plain = GymnasiumEnvironment(users.Plain, max_steps=3, pictures=True)
    plain.begin([0])
    assert plain.render() is None


def test_nothing_is_written_or_said_while_building(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    GymnasiumEnvironment("HalfCheetah-v5").begin([0])
    GymnasiumEnvironment("Taxi-v4").begin([0])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("where", ["reset", "step"])
def test_failed_episodes_leave_no_trace_in_moments(where):
    spec = as_environment(users.Raising, options={"where": where}, max_steps=20)
    policy = MLP(spec.spaces)
    rollouts = Rollouts(spec, policy, normalized=True, behaviour="observation")
    candidates = Episodes(HeldMembers(np.zeros((8, policy.dim), np.float32)), 1, None, False)
    done = rollouts.evaluate(candidates, 0, 8, key=Key(1), step=0)
    failed = np.isnan(done.values)
    assert 0 < failed.sum() < 8
    assert [failure.row for failure in done.failures] == np.flatnonzero(failed).tolist()
    assert np.isnan(done.extras["moments"]).all(1).tolist() == failed.tolist()
    assert np.isnan(done.extras["behaviour"]).any(1).tolist() == failed.tolist()
    assert (done.extras["steps"][~failed] == 20).all()


def test_closing_lets_go_of_environments():
    environment = GymnasiumEnvironment(users.Walk, max_steps=5)
    environment.begin([0, 1])
    inside = [seat.inner for seat in environment._seats]
    environment.close()
    assert all(one.closed for one in inside)
    assert environment.begin([0]).shape == (2, 1)
