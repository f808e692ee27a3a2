"""Environments of Gymnasium, and those of users that look like one."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evolution.behaviour import Behaviour, Episode, as_numbers
from evolution.environments.conversion import Mismatch, actions_of, observations_of
from evolution.environments.environment import Array, Environment, Step
from evolution.environments.spaces import Actions, Continuous, Discrete, MultiDiscrete, Spaces, Vector
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag

_MOST_PROBED = 1000  # steps of the episode that shows how many numbers a behaviour has
_FREE, _SLIDE = 0, 2  # kinds of joints in MuJoCo


class GymnasiumEnvironment(Environment):
    """Environments of Gymnasium side by side in one process, stepped one after the other.

    They are built as they are needed and used for one episode after the other, each begun by `reset(seed=...)`:
    that must take them back to a state that depends on the seed alone. One that raised is thrown away.

    Where nothing but the wrappers that `gymnasium.make` puts around all environments is around one, the
    environment itself is stepped, and the time limit counted here. Other wrappers stay.

    An episode fails, and the others go on, where the environment raises, a reward is no finite number, or an
    observation is not of the space, not finite, or of another shape than before.

    Args:
        make: An id, such as "CartPole-v1"; or a function that returns an environment: `reset(seed=...)`,
            `step(action)`, `observation_space` and `action_space` are what it needs, as in Gymnasium.
        options: What `make` is given besides.
        name: How it is called in errors; None for the id or the name of the function.
        max_steps: Steps after which episodes end; None for the time limit that the environment comes with.
        frames_per_step: What a step counts for where frames are counted.
        behaviour: What episodes are characterised by, besides "position" (of what MuJoCo lets slide or fly)
            and "observation" (the last one): a function of an `Episode` that returns a row of numbers, as many
            for every episode. It is known as "custom", and is the first one. It is called when an episode has
            ended; those under way have NaN.
        behaviour_size: How many numbers `behaviour` returns; None to find out by an episode of random actions.
        fresh: Whether to build a new environment for every episode, for those that `reset` does not take back.
        pictures: Whether `render` is to return pictures.
        spare: An environment that `make` has returned already.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: Policies are not served with its spaces; there is no time limit, and no `max_steps`; or
            `behaviour` returns something else.

    Example:
        >>> environment = GymnasiumEnvironment("CartPole-v1")
        >>> environment.begin([0, 1, 2]).shape
        (4, 3)
        >>> environment.step(np.array([0, 1, 0])).rewards.tolist()
        [1.0, 1.0, 1.0]

    References:
        Towers et al., "Gymnasium: a standard interface for reinforcement learning environments", 2024.
        https://arxiv.org/abs/2407.17032
    """

    slots = 8

    def __init__(
        self,
        make: str | Callable[..., Any],
        *,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        max_steps: int | None = None,
        frames_per_step: int = 1,
        behaviour: Behaviour | None = None,
        behaviour_size: int | None = None,
        fresh: bool = False,
        pictures: bool = False,
        spare: Any = None,
    ) -> None:
        if max_steps is not None:
            check_count("max_steps", max_steps)
        self.frames_per_step = check_count("frames_per_step", frames_per_step)
        self._make, self._options = make, dict(options or {})
        if check_flag("pictures", pictures):
            self._options["render_mode"] = "rgb_array"
        self._fresh, self._custom = check_flag("fresh", fresh), behaviour
        self.name = name or (make if isinstance(make, str) else getattr(make, "__name__", repr(make)))
        first = _Seat(self._made() if spare is None else spare, self.name)
        self._observation_space, self._action_space = first.observation_space, first.action_space
        observations, self._encode, self._blank = observations_of(self._observation_space, self.name)
        actions, self._decode = actions_of(self._action_space, self.name)
        self.spaces = Spaces(observations, actions)
        limit = max_steps if max_steps is not None else first.limit
        if limit is None:
            raise ValueError(f"`max_steps` must be given: {self.name} has no time limit of its own.")
        self.max_steps = int(limit)
        self._seats: list[_Seat | None] = [first]
        self._begin_with([], [])
        self.behaviours = self._built_in(first)
        if behaviour is not None:
            size = self._probed() if behaviour_size is None else check_count("behaviour_size", behaviour_size)
            self.behaviours = {"custom": size, **self.behaviours}

    def _begin_with(self, places: list[int], found: list[Any]) -> None:
        """Start with the environments at these places of `_seats`, and their first observations."""
        self._places, self._time = places, 0
        self._advance: list[Callable[[Any], Any]] = []
        self._seen = np.zeros((0, 0), np.float32)
        self._custom_rows = np.zeros((0, 0))
        self._tapes: list[_Tape] = []

    def _made(self) -> Any:
        with _quiet(self._make):
            if not isinstance(self._make, str):
                return self._make(**self._options)
            import gymnasium

            return gymnasium.make(self._make, disable_env_checker=True, **self._options)

    def begin(self, seeds: Sequence[int]) -> Array:
        k = len(seeds)
        self._seats += [None] * (k - len(self._seats))
        self._begin_with(list(range(k)), [])
        found = []
        for place, seed in enumerate(seeds):
            try:
                seat = self._seat(place)
                observation = seat.begin(int(seed), self.name)
                self._encode([observation])
                self._advance.append(seat.advance)
            except (Exception, SystemExit) as error:
                # There is no place for it in what `begin` returns: the first step raises it.
                self._advance.append(_Raising(self._said(error, "the first observation")))
                observation = self._blank
            found.append(observation)
        self._seen = self._encode(found)
        if self._custom is not None:
            self._tapes = [_Tape() for _ in seeds]
            self._custom_rows = np.full((k, self.behaviours.get("custom", 0)), np.nan)
            self._record_observations()
        return self._seen

    def step(self, actions: Array) -> Step:
        errors: dict[int, BaseException] = {}
        found: list[Any] = []
        rewards: list[Any] = []
        over: list[int] = []
        taken = self._decode(actions)
        self._time += 1
        for advance, action in zip(self._advance, taken, strict=True):
            result = None
            try:
                observation, reward, terminated, truncated, _ = result = advance(action)
                if reward.__class__ is np.ndarray:
                    reward = reward.item()
                if not math.isfinite(reward):
                    raise ValueError(f"{self.name}: step {self._time} gave the reward {reward}.")
                if terminated or truncated:
                    over.append(len(found))
            except (Exception, SystemExit) as error:
                errors[len(found)] = self._explained(error, result)
                observation, reward = self._blank, np.nan
            found.append(observation)
            rewards.append(reward)
        k = len(found)
        try:
            self._seen = self._encode(found)
        except Exception:
            self._seen = self._encode(self._checked(found, errors))
        values = np.array(rewards, np.float64)
        ended = np.zeros(k, bool)
        if over:
            ended[over] = True
        if self._time >= self.max_steps:
            ended[:] = True
        if self._custom is not None:
            self._record(taken, values, ended, errors)
        if errors:
            for i in errors:
                values[i] = np.nan
                ended[i] = True
                self._throw_away(i)
        return Step(self._seen, values, ended, errors)

    def keep(self, which: Array) -> None:
        left = which.tolist()
        self._places = [self._places[i] for i in left]
        self._advance = [self._advance[i] for i in left]
        self._seen = (
            self._seen[:, which] if isinstance(self.spaces.observations, Vector) else self._seen[which]
        )
        if self._custom is not None:
            self._tapes = [self._tapes[i] for i in left]
            self._custom_rows = self._custom_rows[which]

    def behaviour(self, name: str) -> Array:
        if name not in self.behaviours:
            return super().behaviour(name)
        if name == "custom":
            return self._custom_rows.copy()
        if name == "observation":
            return self._seen.T.astype(np.float64)
        size = self.behaviours[name]
        rows = np.full((len(self._places), size), np.nan)
        for row, place in zip(rows, self._places, strict=True):
            seat = self._seats[place]
            if seat is not None:  # it did not raise
                row[:] = seat.inner.data.qpos[:size]
        return rows

    def render(self) -> Array | None:
        seat = self._seats[self._places[0]] if self._places else None
        return None if seat is None or "render_mode" not in self._options else np.asarray(seat.outer.render())

    def close(self) -> None:
        for place in range(len(self._seats)):
            self._empty(place)
        self._begin_with([], [])

    def _seat(self, place: int) -> _Seat:
        """Return the environment at a place, built if there is none."""
        if self._fresh and self._time_used(place):
            self._empty(place)
        seat = self._seats[place]
        if seat is None:
            seat = _Seat(self._made(), self.name)
            seat.check(self._observation_space, self._action_space, self.name)
            self._seats[place] = seat
        return seat

    def _time_used(self, place: int) -> bool:
        seat = self._seats[place]
        return seat is not None and seat.is_used

    def _empty(self, place: int) -> None:
        seat, self._seats[place] = self._seats[place], None
        if seat is not None:
            with contextlib.suppress(Exception):  # it may have raised before, and is not needed any more
                seat.outer.close()

    def _throw_away(self, i: int) -> None:
        self._empty(self._places[i])

    def _explained(self, error: BaseException, result: Any) -> BaseException:
        """Return what went wrong in a step: what the environment raised, or what it should have returned."""
        place = error.__traceback__
        if result is None and (place is None or place.tb_next is not None):
            return error
        if isinstance(error, ValueError) and str(error).startswith(self.name):
            return error
        if not isinstance(result, tuple) or len(result) != 5:
            said = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"{type(result).__name__}"
            return ValueError(
                f"{self.name}: `step` must return (observation, reward, terminated, truncated, info), as in "
                f"Gymnasium; step {self._time} returned {said}."
            )
        return TypeError(
            f"{self.name}: a reward must be a number, and `terminated` and `truncated` True or False; step "
            f"{self._time} gave {result[1]!r}, {result[2]!r} and {result[3]!r}."
        )

    def _said(self, error: BaseException, what: str) -> BaseException:
        return ValueError(f"{self.name}: {what} {error}.") if isinstance(error, Mismatch) else error

    def _checked(self, found: list[Any], errors: dict[int, BaseException]) -> list[Any]:
        """Return the observations with those left out that cannot be served, which fail."""
        good = []
        for i, observation in enumerate(found):
            try:
                with np.errstate(all="ignore"):
                    self._encode([observation])
                good.append(observation)
            except Exception as error:
                errors[i] = self._said(error, f"the observation of step {self._time}")
                good.append(self._blank)
        return good

    def _built_in(self, seat: _Seat) -> dict[str, int]:
        found = {}
        if size := _root(seat.inner):
            found["position"] = size
        if isinstance(self.spaces.observations, Vector):
            found["observation"] = self.spaces.observations.size
        return found

    def _record_observations(self) -> None:
        columns = self._seen.T if isinstance(self.spaces.observations, Vector) else self._seen
        for tape, column in zip(self._tapes, columns, strict=True):
            tape.observations.append(column.copy())

    def _record(
        self, taken: Sequence[Any], rewards: Array, ended: Array, errors: dict[int, BaseException]
    ) -> None:
        self._record_observations()
        size = self.behaviours.get("custom")
        for i, (tape, action) in enumerate(zip(self._tapes, taken, strict=True)):
            tape.actions.append(action)
            tape.rewards.append(float(rewards[i]))
            if not ended[i] or i in errors or size is None or self._custom is None:
                continue
            try:
                self._custom_rows[i] = as_numbers(self._custom, self._episode(i), size)
            except (Exception, SystemExit) as error:
                errors[i] = error

    def _episode(self, i: int) -> Episode:
        tape, seat = self._tapes[i], self._seats[self._places[i]]
        assert seat is not None
        return Episode(np.array(tape.observations), tape.actions, np.array(tape.rewards), seat.inner)

    def _probed(self) -> int:
        """Return how many numbers the user's behaviour has."""
        assert self._custom is not None
        self.begin([0])
        generator = Key(0).fold("behaviour").generator()
        for _ in range(min(self.max_steps, _MOST_PROBED)):
            done = self.step(random_actions(self.spaces.actions, 1, generator))
            for error in done.errors.values():
                raise error
            if done.ended.all():
                break
        return len(as_numbers(self._custom, self._episode(0)))


class _Seat:
    """One environment.

    Attributes:
        outer: What is stepped.
        inner: The environment in the middle of all wrappers.
        limit: After how many steps its episodes end, or None.
        is_used: Whether an episode was begun in it.
    """

    def __init__(self, environment: Any, name: str) -> None:
        for needed in ("reset", "step", "observation_space", "action_space"):
            if not hasattr(environment, needed):
                raise TypeError(
                    f"{name} must be an environment as in Gymnasium, and there is no `{needed}` in "
                    f"{type(environment).__name__}."
                )
        if hasattr(environment, "num_envs"):
            raise TypeError(
                f"{name} must be a single environment, got {type(environment).__name__}, which is several: "
                "return one, several are built where they are needed."
            )
        self.outer, self.limit = _peeled(environment)
        self.inner = getattr(self.outer, "unwrapped", self.outer)
        self.observation_space, self.action_space = self.outer.observation_space, self.outer.action_space
        self.is_used = False
        self.advance = self.outer.step

    def check(self, observations: Any, actions: Any, name: str) -> None:
        for what, before, now in (
            ("observations", observations, self.outer.observation_space),
            ("actions", actions, self.outer.action_space),
        ):
            if now is not before and now != before:
                raise ValueError(f"{name} changed its space of {what} from {before} to {now}.")

    def begin(self, seed: int, name: str) -> Any:
        self.is_used = True
        self.check(self.observation_space, self.action_space, name)
        result = self.outer.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(
                f"{name}: `reset` must return (observation, info), as in Gymnasium, got {type(result).__name__}."
            )
        self.check(self.observation_space, self.action_space, name)
        return result[0]


class _Tape:
    """What has happened in an episode so far."""

    __slots__ = ("actions", "observations", "rewards")

    def __init__(self) -> None:
        self.observations: list[Array] = []
        self.actions: list[Any] = []
        self.rewards: list[float] = []


class _Raising:
    """A step that raises what came up before it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, action: Any) -> Any:
        raise self.error


def random_actions(actions: Actions, count: int, generator: np.random.Generator) -> Array:
    """Return actions for `count` episodes: uniform between walls that are finite, else normal within them."""
    if isinstance(actions, Discrete):
        return generator.integers(actions.count, size=count)
    if isinstance(actions, MultiDiscrete):
        return generator.integers(np.array(actions.counts)[:, None], size=(len(actions.counts), count))
    if isinstance(actions, Continuous):
        low, high = (np.array(walls, np.float64)[:, None] for walls in (actions.low, actions.high))
        with np.errstate(invalid="ignore", over="ignore"):
            inside = low + generator.random((actions.size, count)) * (high - low)
        normal = np.clip(generator.standard_normal((actions.size, count)), low, high)
        return np.where(np.isfinite(inside), inside, normal).astype(np.float32)
    return generator.integers(2, size=(actions.size, count))


@contextlib.contextmanager
def _quiet(make: str | Callable[..., Any]) -> Iterator[None]:
    """Build environments without the warnings of their packages: of old versions, of their models.

    MuJoCo would write some of them to a file in the working directory.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(make, str):  # what users wrote themselves may warn
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _load(make)
        mujoco = sys.modules.get("mujoco")
        if mujoco is not None:
            stack.callback(mujoco.set_mju_user_warning, mujoco.get_mju_user_warning())
            mujoco.set_mju_user_warning(_ignore)
        yield


def _load(name: str) -> None:
    """Import the module of an environment, and what it is made of."""
    import gymnasium

    entry = gymnasium.spec(name).entry_point
    if isinstance(entry, str):
        gymnasium.envs.registration.load_env_creator(entry)


def _ignore(message: str) -> None:
    """Take a warning."""


def _peeled(environment: Any) -> tuple[Any, int | None]:
    """Return an environment without the wrappers that count or check only, and after how many steps it ends."""
    from gymnasium import Wrapper, wrappers

    limits = []
    inner = environment
    while isinstance(inner, Wrapper):
        if isinstance(inner, wrappers.TimeLimit):
            limits.append(inner._max_episode_steps)
        inner = inner.env
    while type(environment) in (wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker):
        environment = environment.env
    return environment, min(limits, default=None)


def _root(inner: Any) -> int:
    """Return how many numbers say where a body of MuJoCo is on the ground: of its first joints."""
    model = getattr(inner, "model", None)
    kinds = getattr(model, "jnt_type", None)
    if kinds is None or not hasattr(inner, "data") or not len(kinds):
        return 0
    if kinds[0] == _FREE:
        return 2
    size = 0
    for axis in ((1, 0, 0), (0, 1, 0)):
        is_free = size < len(kinds) and kinds[size] == _SLIDE and not model.jnt_limited[size]
        if not (is_free and np.array_equal(model.jnt_axis[size], axis)):
            break
        size += 1
    return size
