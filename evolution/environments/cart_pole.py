"""A cart that balances a pole: CartPole-v1 for many episodes at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evolution.environments.drawing import BLUE, FAINT, INK, RED, blank, line
from evolution.environments.environment import Array, Environment, Step
from evolution.environments.spaces import Discrete, Spaces, Vector
from zoo.core.rng import seeded_generator

TAU = 0.02  # seconds a step
GRAVITY = 9.8
MASS = 0.1 + 1.0  # of pole and cart; rounds to another number than 1.1
HALF_MOMENT = 0.1 * 0.5  # mass of the pole times half its length
FORCE = 10.0
LIMITS = ((2.4,), (12 * 2 * math.pi / 360,))  # of position and angle; beyond them the episode is over
HEIGHT, WIDTH, POLE = 200, 400, 120  # of pictures, in pixels


class CartPole(Environment):
    """Balance a pole on a cart by pushing the cart left (0) or right (1); a step is worth 1.

    Shows position, velocity, angle and angular velocity. An episode is over when the cart is beyond 2.4 from
    the middle, the pole beyond 12 degrees from upright, or after 500 steps. Every episode is bit for bit that
    of Gymnasium's CartPole-v1 with this seed and these actions: the same operations in the same order in
    float64, but for powers of two.

    The observations that `begin` and `step` return are written over by the next step.

    Example:
        >>> import numpy as np
        >>> cart_pole = CartPole()
        >>> cart_pole.begin([0, 1]).shape
        (4, 2)
        >>> cart_pole.step(np.array([0, 1])).rewards
        array([1., 1.])

    References:
        Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult learning control
        problems", 1983. https://doi.org/10.1109/TSMC.1983.6313077
        Farama Foundation, "Gymnasium: Cart Pole".
        https://gymnasium.farama.org/environments/classic_control/cart_pole/
    """

    spaces = Spaces(Vector(4), Discrete(2))
    max_steps = 500
    slots = 256
    pictures_per_second = 50.0
    behaviours: Mapping[str, int] = {"state": 4}

    def __init__(self) -> None:
        self._arrange(np.empty((4, 0)))

    def _arrange(self, state: Array) -> None:
        """Go on from these states; what a step needs is cut out of the memory once, not in every step."""
        k = state.shape[1]
        self._state = state
        self._slow, self._fast = state[0::2], state[1::2]  # position and angle; their velocities
        self._theta, self._omega = state[2], state[3]
        self._change = np.empty((4, k))
        self._slow_change = self._change[0::2]
        self._acceleration, self._angular = self._change[1], self._change[3]
        self._sin, self._cos, self._pull, self._work = np.empty((4, k))
        self._size = np.empty((2, k))
        self._beyond = np.empty((2, k), bool)
        self._limits = np.broadcast_to(LIMITS, (2, k)).copy()
        self._rewards = np.ones(k)
        self._seen = state.astype(np.float32)

    def begin(self, seeds: Sequence[int]) -> Array:
        self._steps = 0
        # Members of a generation may meet the same episode, and a generator takes as long as a hundred steps.
        places: dict[int, int] = {}
        where = [places.setdefault(seed, len(places)) for seed in seeds]
        drawn = np.empty((4, len(places)))
        for seed, place in places.items():
            drawn[:, place] = seeded_generator(int(seed)).uniform(-0.05, 0.05, 4)
        self._arrange(drawn.take(where, axis=1))
        return self._seen

    def step(self, actions: Array) -> Step:
        sin, cos, pull, work, angular = self._sin, self._cos, self._pull, self._work, self._angular
        np.sin(self._theta, sin)
        np.cos(self._theta, cos)

        # pull = (force + HALF_MOMENT omega^2 sin) / MASS
        np.square(self._omega, work)
        np.multiply(work, HALF_MOMENT, work)
        np.multiply(work, sin, work)
        np.multiply(actions, 2 * FORCE, pull)
        np.subtract(pull, FORCE, pull)
        np.add(pull, work, pull)
        np.divide(pull, MASS, pull)

        # angular = (GRAVITY sin - cos pull) / (0.5 (4/3 - 0.1 cos^2 / MASS)), the 0.5 taken inside
        np.square(cos, work)
        np.multiply(work, 0.05, work)
        np.divide(work, MASS, work)
        np.subtract(2.0 / 3.0, work, work)
        np.multiply(sin, GRAVITY, sin)
        np.multiply(cos, pull, angular)
        np.subtract(sin, angular, angular)
        np.divide(angular, work, angular)

        # acceleration = pull - HALF_MOMENT angular cos / MASS
        np.multiply(angular, HALF_MOMENT, work)
        np.multiply(work, cos, work)
        np.divide(work, MASS, work)
        np.subtract(pull, work, self._acceleration)

        np.copyto(self._slow_change, self._fast)
        np.multiply(self._change, TAU, self._change)
        np.add(self._state, self._change, self._state)

        np.copyto(self._seen, self._state, "same_kind")
        np.absolute(self._slow, self._size)
        np.greater(self._size, self._limits, self._beyond)
        ended = np.logical_or(self._beyond[0], self._beyond[1])
        self._steps += 1
        if self._steps == self.max_steps:
            ended[:] = True
        return Step(self._seen, self._rewards, ended)

    def keep(self, which: Array) -> None:
        self._arrange(np.ascontiguousarray(self._state[:, which]))

    def behaviour(self, name: str) -> Array:
        if name != "state":
            return super().behaviour(name)
        return self._state.T.copy()

    def render(self) -> Array:
        x, _, theta, _ = self._state[:, 0].tolist()
        picture = blank(HEIGHT, WIDTH)
        middle, ground = WIDTH / 2 + x * WIDTH / 4.8, 0.75 * HEIGHT
        line(picture, (0.0, ground), (float(WIDTH), ground), 1.0, FAINT)
        for side in (-1, 1):
            end = WIDTH / 2 * (1 + side)
            line(picture, (end, ground - 8), (end, ground + 8), 3.0, RED)
        line(picture, (middle - 15, ground), (middle + 15, ground), 20.0, INK)
        top = middle + POLE * math.sin(theta), ground - POLE * math.cos(theta)
        line(picture, (middle, ground), top, 7.0, BLUE)
        return picture
