"""Poles balanced many at a time are those of Gymnasium, bit for bit."""

import gymnasium
import numpy as np
import pytest

from evolution.environments.cart_pole import CartPole
from zoo.core.rng import Key


def lean(observations):
    """Push to where the pole falls, which balances it for hundreds of steps."""
    x, speed, angle, turn = observations
    return (angle + 0.5 * turn + 0.05 * speed + 0.02 * x > 0).astype(np.int64)


def played(seed, actions):
    """Return states, float64, and observations of Gymnasium's episode as far as it goes."""
    with gymnasium.make("CartPole-v1") as env:
        observation, _ = env.reset(seed=seed)
        states, seen, over = [env.unwrapped.state], [observation], False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(int(actions[len(seen) - 1]))
            states.append(env.unwrapped.state)
            seen.append(observation)
            over = terminated or truncated
            assert reward == 1.0
    return np.array(states), np.array(seen)


def test_episodes_are_those_of_gymnasium_bit_for_bit():
    # A third at random, a third balanced to the end, and a third balanced until it is not.
    count = 60
    seeds = [int(seed) for seed in Key(0).generator().integers(0, 2**32, count)]
    random = Key(1).generator().integers(0, 2, (500, count))
    until = np.where(np.arange(count) % 3 == 0, 0, np.where(np.arange(count) % 3 == 1, 500, 30))

    env = CartPole()
    observations = env.begin(seeds)
    alive, lengths = np.arange(count), np.zeros(count, int)
    actions = np.zeros((500, count), int)
    seen = [[observations[:, i].copy()] for i in range(count)]
    states = [[row] for row in env.behaviour("state")]
    while len(alive):
        step = int(lengths[alive[0]])
        chosen = np.where(step < until[alive], lean(observations), random[step, alive])
        actions[step, alive] = chosen
        done = env.step(chosen)
        assert (done.rewards == 1).all()
        assert done.rewards.dtype == np.float64
        lengths[alive] += 1
        now = env.behaviour("state")
        for column, episode in enumerate(alive.tolist()):
            seen[episode].append(done.observations[:, column].copy())
            states[episode].append(now[column])
        left = np.flatnonzero(~done.ended)
        observations = done.observations[:, left]
        if len(left) < len(alive):
            alive = alive[left]
            env.keep(left)

    assert lengths.min() < 20
    assert (lengths == 500).sum() >= 15
    for i, seed in enumerate(seeds):
        theirs, shown = played(seed, actions[:, i])
        assert len(theirs) == lengths[i] + 1
        np.testing.assert_array_equal(np.array(states[i]), theirs)
        np.testing.assert_array_equal(np.array(seen[i]), shown)
        assert np.array(seen[i]).dtype == shown.dtype


def test_an_episode_does_not_depend_on_what_runs_beside_or_before_it():
    env = CartPole()
    alone = [env.begin([7]).copy()]
    for action in (1, 1, 0, 1, 0):
        alone.append(env.step(np.array([action])).observations.copy())
    beside = [env.begin([3, 7, 5])[:, 1:2].copy()]
    for number, action in enumerate((1, 1, 0, 1, 0)):
        if number == 2:
            env.keep(np.array([1, 2]))
        place = 1 if number < 2 else 0
        others = np.full(3 if number < 2 else 2, 1 - action)
        others[place] = action
        beside.append(env.step(others).observations[:, place : place + 1].copy())
    np.testing.assert_array_equal(np.array(alone), np.array(beside))


def test_members_that_meet_the_same_episode_start_alike():
    env = CartPole()
    apart = np.concatenate([env.begin([seed]).copy() for seed in (7, 3, 7, 7)], axis=1)
    np.testing.assert_array_equal(env.begin([7, 3, 7, 7]), apart)


def test_unknown_behaviours_are_refused():
    with pytest.raises(ValueError, match="CartPole has no behaviour 'position'"):
        CartPole().behaviour("position")


def test_the_picture_leans_as_the_pole_does():
    env = CartPole()
    env.begin([0])
    for _ in range(12):
        env.step(np.array([1]))  # the cart goes right, so the pole falls to the left
    picture = env.render()
    assert picture.shape == (200, 400, 3)
    assert picture.dtype == np.uint8
    red, _, blue = (picture[:, :, channel].astype(int) for channel in range(3))
    rows, columns = np.nonzero(blue - red > 90)
    assert columns[rows < 70].mean() < columns[rows > 130].mean() - 20
