"""Environments as users write them, good and bad, which worker processes can import.

Most are this: the state is a number that starts at random, to which actions are added; rewards are minus its
size.
"""

import time
from types import MappingProxyType

import gymnasium
import numpy as np
from gymnasium import spaces

from evolution.environments.environment import Environment, Step
from evolution.environments.spaces import Continuous, Discrete, Image, Spaces, Vector


class Walk(gymnasium.Env):
    """It ends when the state is beyond 3, or after `limit` steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, limit=20, start=1.0):
        self.limit, self.start = limit, start
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.uniform(-self.start, self.start), 0
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        self.state += float(action[0])
        return self._seen(), -abs(self.state), abs(self.state) > 3, self.steps >= self.limit, {}

    def _seen(self):
        return np.array([self.state, self.steps])

    def close(self):
        self.closed = True


class Plain:
    """It knows nothing of Gymnasium but its spaces."""

    def __init__(self):
        self.observation_space = spaces.Box(-10, 10, (1,), np.float32)
        self.action_space = spaces.Discrete(3, start=-1)

    def reset(self, seed=None):
        self.state = int(np.random.default_rng(seed).integers(-5, 5))
        return np.array([self.state], np.float32), {}

    def step(self, action):
        assert action in (-1, 0, 1)
        self.state += action
        return np.array([self.state], np.float32), float(self.state == 0), False, False, {}


class Noted(Walk):
    """It keeps what it was given, and shows what it was told to."""

    def __init__(self, observation_space=None, action_space=None, seen=None, **options):
        super().__init__(**options)
        if observation_space is not None:
            self.observation_space = observation_space
        if action_space is not None:
            self.action_space = action_space
        self.seen, self.taken = seen, []

    def step(self, action):
        self.taken.append(action)
        return self._seen(), 1.0, False, False, {}

    def _seen(self):
        return super()._seen() if self.seen is None else self.seen


class Raising(Walk):
    """It raises at step `at` of episodes whose start is positive, and counts how many were built."""

    built = 0

    def __init__(self, at=3, where="step", what=ValueError):
        super().__init__()
        self.at, self.where, self.what = at, where, what
        type(self).built += 1

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.is_bad = self.state > 0
        if self.is_bad and self.where == "reset":
            raise self.what("no start")
        return result

    def step(self, action):
        if self.is_bad and self.where == "step" and self.steps + 1 == self.at:
            raise self.what("the arm is broken")
        return super().step(action)


class Giving(Walk):
    """At step `at` it gives something else than it should: by name, of `observation`, `reward` or `end`."""

    def __init__(self, at=3, every=False, **given):
        super().__init__()
        self.at, self.every, self.given = at, every, given

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        is_bad = self.every or self.is_bad
        if is_bad and self.steps == self.at:
            observation = self.given.get("observation", observation)
            reward = self.given.get("reward", reward)
            terminated = self.given.get("end", terminated)
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.is_bad = self.state > 0
        return result


class Drawn(Walk):
    """It draws where it is told so when it is made, a line as long as the steps."""

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        assert self.render_mode == "rgb_array"
        picture = np.zeros((4, 20, 3), np.uint8)
        picture[:, : self.steps] = 255
        return picture


class Old(Walk):
    """As environments of Gym were, before Gymnasium."""

    def __init__(self, reset=True, step=True):
        super().__init__()
        self.old_reset, self.old_step = reset, step

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        return result[0] if self.old_reset else result

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.old_step:
            return observation, reward, terminated or truncated, info
        return observation, reward, terminated, truncated, info


class Seedless(Walk):
    def reset(self):
        return super().reset(seed=0)


class Changing(Walk):
    """Its spaces change: when it is built anew, or at the second episode."""

    built = 0

    def __init__(self, when="built", what="observation_space"):
        super().__init__()
        type(self).built += 1
        self.when, self.what, self.episodes = when, what, 0
        if when == "built" and self.built > 1:
            self._change()

    def _change(self):
        if self.what == "action_space":
            self.action_space = spaces.Discrete(4)
        else:
            self.observation_space = spaces.Box(-1, 1, (5,))

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        if self.when == "second" and self.episodes == 2:
            self._change()
        return super().reset(seed=seed)


class Remembering(Walk):
    """`reset` does not take all of it back: an episode goes on where the last one ended."""

    def reset(self, *, seed=None, options=None):
        before = getattr(self, "state", 0.0)
        super().reset(seed=seed)
        self.state += before
        return self._seen(), {}


class Unseeded(Walk):
    """It draws from a generator of its own."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.random.default_rng().uniform(-1, 1)
        return self._seen(), {}


class Hanging(Walk):
    """It takes a minute at step `at`."""

    def __init__(self, at=3):
        super().__init__()
        self.at = at

    def step(self, action):
        if self.steps + 1 == self.at:
            time.sleep(60)
        return super().step(action)


class Own(Environment):
    """Of the kind that steps all episodes at once: a state that actions are added to."""

    spaces = Spaces(Vector(1), Continuous((-1.0,), (1.0,)))
    behaviours = MappingProxyType({"state": 1, "steps": 1})

    def __init__(self, max_steps=5, start=0.0):
        self.max_steps, self.start = max_steps, start

    def begin(self, seeds):
        self.state = np.array([[self.start + seed % 7 for seed in seeds]], np.float32)
        self.steps = 0
        return self.state

    def step(self, actions):
        self.state = self.state + actions
        self.steps += 1
        k = self.state.shape[1]
        return Step(
            self.state, -np.abs(self.state[0]).astype(np.float64), np.full(k, self.steps == self.max_steps)
        )

    def keep(self, which):
        self.state = self.state[:, which]

    def behaviour(self, name):
        if name == "steps":
            return np.full((self.state.shape[1], 1), float(self.steps))
        return self.state.T.astype(np.float64)


class Unfinished(Own):
    """What it says about itself is not so."""

    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


class Pictured(Environment):
    """It shows pictures of noise, and rewards the first of three actions."""

    spaces = Spaces(Image(2, 20, 18), Discrete(3))
    max_steps = 40

    def begin(self, seeds):
        self.numbers = [np.random.default_rng(seed) for seed in seeds]
        self.steps = 0
        return self._seen()

    def step(self, actions):
        self.steps += 1
        k = len(self.numbers)
        return Step(self._seen(), (actions == 0).astype(np.float64), np.full(k, self.steps == self.max_steps))

    def keep(self, which):
        self.numbers = [self.numbers[i] for i in which]

    def _seen(self):
        return np.stack([one.integers(0, 256, (2, 20, 18), np.uint8) for one in self.numbers])


def limited(limit=7):
    """Return one whose time limit is a wrapper's."""
    return gymnasium.wrappers.TimeLimit(Walk(limit=100, start=0.1), limit)


def doubled():
    """Return one in a wrapper that changes something."""
    return gymnasium.wrappers.TransformReward(limited(), lambda reward: 2 * reward)


def own(start=3.0):
    return Own(start=start)


def nothing():
    return None


def several():
    return gymnasium.make_vec("CartPole-v1", num_envs=2)


def with_spaces(observations=None, actions=None, seen=None):
    return Noted(observations, actions, seen)


def last_two(episode):
    """Return the last two states, a behaviour."""
    return episode.observations[-2:, 0]


def whole(episode):
    """Return all states, which are more or fewer."""
    return episode.observations[:, 0]


NOT_CALLABLE = 3
