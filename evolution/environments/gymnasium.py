"""Environments of Gymnasium, and those of users that look like one."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evolution.behaviour import Behaviour, Episode, as_numbers
from evolution.environments.checks import random_actions
from evolution.environments.conversion import Mismatch, actions_of, observations_of
from evolution.environments.environment import Array, Environment, Step
from evolution.environments.spaces import Spaces, Vector
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag

_MOST_PROBED = 1000  # steps of an episode that shows how many numbers a behaviour has
_TRIES = 5  # episodes, as environments may raise
_FREE, _SLIDE = 0, 2  # kinds of joints in MuJoCo
_NOTHING = object()  # as an environment may return None

# Those whose `reset` goes on with the same Box2D world, in which contacts of old bodies leave traces.
_NEVER_AS_NEW = ("gymnasium.envs.box2d.bipedal_walker", "gymnasium.envs.box2d.car_racing")


class GymnasiumEnvironment(Environment):
    """Environments of Gymnasium side by side in one process, stepped one after the other.

    They are built as they are needed and used for one episode after the other, each begun by
    `reset(seed=...)`: that must take them back to a state that depends on the seed alone, or `fresh` be said.
    One that raised is thrown away.

    Where nothing but the wrappers that `gymnasium.make` puts around all environments is around one, the
    environment itself is stepped, and the time limit counted here. Other wrappers stay.

    Rows of numbers, categories and pictures are shown as `conversion.observations_of` says.

    An episode fails, and the others go on, where the environment raises, a reward is no finite number, an
    observation is not finite or not of the shape that the space says, or the spaces are others than before.

    Args:
        make: An id, such as "CartPole-v1", or the `EnvSpec` of one; or a function that returns an
            environment: `reset(seed=...)`, `step(action)`, `observation_space` and `action_space` as in
            Gymnasium are what it needs.
        options: What `make` is given besides.
        name: How it is called in errors; None for the id or the name of the function.
        max_steps: Steps after which episodes end; None for the time limit that the environment comes with.
        frames_per_step: What a step counts for where frames are counted.
        behaviour: What episodes are characterised by, besides "position" (of what MuJoCo lets slide or fly)
            and "observation" (the last one): a function of an `Episode` that returns a row of numbers, as
            many for every episode. It is known as "custom", and comes first. It is called when an episode has
            ended; those under way have NaN.
        behaviour_size: How many numbers `behaviour` returns; None to find out by an episode of random
            actions.
        fresh: Whether to build a new environment for every episode; None to do so for those of Gymnasium
            that are known not to be as new after `reset`.
        pictures: Whether `render` is to return pictures.
        spare: An environment that `make` has returned already.

    Raises:
        TypeError: An argument has the wrong type, or what `make` returns is no environment.
        ValueError: Policies are not served with its spaces; there is no time limit, and no `max_steps`; or
            `behaviour` returns something else than a row of finite numbers.

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
        make: Any,
        *,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        max_steps: int | None = None,
        frames_per_step: int = 1,
        behaviour: Behaviour | None = None,
        behaviour_size: int | None = None,
        fresh: bool | None = None,
        pictures: bool = False,
        spare: Any = None,
    ) -> None:
        if max_steps is not None:
            check_count("max_steps", max_steps)
        self.frames_per_step = check_count("frames_per_step", frames_per_step)
        if behaviour is not None and not callable(behaviour):
            raise TypeError(f"`behaviour` must be a function of an episode, got {behaviour!r}.")
        self._make, self._options, self._custom = make, dict(options or {}), behaviour
        if pictures and (isinstance(make, str) or _is_spec(make) or _takes(make, "render_mode")):
            self._options["render_mode"] = "rgb_array"
        self._pictures = check_flag("pictures", pictures)
        called = make if isinstance(make, str) else getattr(make, "__name__", repr(make))
        self.name = name or str(called)
        first = _Seat(self._made() if spare is None else spare, self.name)
        said = getattr(first.outer, "metadata", None)
        pace = said.get("render_fps") if isinstance(said, Mapping) else None
        self.pictures_per_second = float(pace or self.pictures_per_second)
        is_known = type(first.inner).__module__ in _NEVER_AS_NEW
        self._fresh = is_known if fresh is None else check_flag("fresh", fresh)
        self._observation_space, self._action_space = first.observation_space, first.action_space
        observations, self._encode, self._blank = observations_of(self._observation_space, self.name)
        actions, self._decode = actions_of(self._action_space, self.name)
        self.spaces = Spaces(observations, actions)
        self._is_vector = isinstance(observations, Vector)
        limit = first.limit if max_steps is None else max_steps
        if limit is None:
            raise ValueError(
                f"`max_steps` must be given, such as 1000: {self.name} has no time limit of its own, and an "
                "episode may go on for ever."
            )
        self.max_steps = limit
        self._seats: list[_Seat | None] = [first]
        self._start(0)
        self.behaviours = self._built_in(first)
        if behaviour is not None:
            size = self._probed() if behaviour_size is None else check_count("behaviour_size", behaviour_size)
            self.behaviours = {"custom": size, **self.behaviours}

    def _start(self, k: int) -> None:
        """Begin with the first k environments, none of which is ready yet."""
        self._places, self._time = list(range(k)), 0
        self._seats += [None] * (k - len(self._seats))
        self._advance: list[Callable[[Any], Any]] = []
        self._seen = np.zeros((0, 0), np.float32)
        self._tapes: list[_Tape] = []

    def _made(self) -> Any:
        with _quiet(self._make):
            if callable(self._make) and not _is_spec(self._make):
                return self._make(**self._options)
            import gymnasium

            return gymnasium.make(self._make, disable_env_checker=True, **self._options)

    def begin(self, seeds: Sequence[int]) -> Array:
        self._start(len(seeds))
        found = []
        for place, seed in enumerate(seeds):
            try:
                seat = self._seat(place)
                observation = seat.begin(int(seed), self.name)
                self._encode([observation])
                self._advance.append(seat.advance)
            except (Exception, SystemExit) as error:
                # What `begin` returns has no place for it: the first step raises it.
                self._advance.append(_Raising(self._told(error, "the first observation")))
                observation = self._blank
            found.append(observation)
        self._seen = self._encode(found)
        if self._custom is not None:
            self._tapes = [_Tape() for _ in seeds]
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
            result = _NOTHING
            try:
                result = advance(action)
                observation, reward, terminated, truncated, _ = result
                if reward.__class__ is np.ndarray:
                    reward = reward.item()
                if not math.isfinite(reward):
                    raise Mismatch(f"is {reward}")
                if terminated or truncated:
                    over.append(len(found))
            except (Exception, SystemExit) as error:
                errors[len(found)] = self._explained(error, result)
                observation, reward = self._blank, math.nan
            found.append(observation)
            rewards.append(reward)
        try:
            self._seen = self._encode(found)
        except Exception:
            self._seen = self._encode(self._those_that_fit(found, errors))
        values = np.array(rewards, np.float64)
        ended = np.zeros(len(found), bool)
        if over:
            ended[over] = True
        if self._time == self.max_steps:
            ended[:] = True
        if self._custom is not None:
            self._record(taken, values, ended, errors)
        for i in errors:
            values[i], ended[i] = math.nan, True
            self._empty(self._places[i])
        return Step(self._seen, values, ended, errors)

    def keep(self, which: Array) -> None:
        left = which.tolist()
        self._places = [self._places[i] for i in left]
        self._advance = [self._advance[i] for i in left]
        self._seen = self._seen[:, which] if self._is_vector else self._seen[which]
        if self._custom is not None:
            self._tapes = [self._tapes[i] for i in left]

    def behaviour(self, name: str) -> Array:
        if name not in self.behaviours:
            return super().behaviour(name)
        size = self.behaviours[name]
        rows = np.full((len(self._places), size), np.nan)
        for i, place in enumerate(self._places):
            seat = self._seats[place]
            if seat is None:  # its episode failed
                continue
            if name == "custom":
                rows[i] = self._tapes[i].behaviour
            elif name == "observation":
                rows[i] = self._seen[:, i]
            else:
                rows[i] = seat.inner.data.qpos[:size]
        return rows

    def render(self) -> Array | None:
        seat = self._seats[self._places[0]] if self._places else None
        if seat is None or not self._pictures:
            return None
        with _quiet(self._make):
            try:
                picture = np.asarray(seat.outer.render())
            except (AttributeError, NotImplementedError):  # it has no `render`, or that of `gymnasium.Env`
                return None
        is_picture = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        return picture if is_picture else None

    def close(self) -> None:
        for place in range(len(self._seats)):
            self._empty(place)
        self._start(0)

    def _seat(self, place: int) -> _Seat:
        """Return the environment at a place, built if there is none."""
        seat = self._seats[place]
        if seat is not None and seat.is_used and self._fresh:
            self._empty(place)
            seat = None
        if seat is None:
            seat = _Seat(self._made(), self.name)
            seat.check(self._observation_space, self._action_space, self.name)
            self._seats[place] = seat
        return seat

    def _empty(self, place: int) -> None:
        seat, self._seats[place] = self._seats[place], None
        if seat is not None and callable(close := getattr(seat.outer, "close", None)):
            with contextlib.suppress(Exception):  # it may be broken, and nobody needs it any more
                close()

    def _explained(self, error: BaseException, result: Any) -> BaseException:
        """Return what went wrong in a step: what the environment raised, or what it should have returned."""
        if isinstance(error, Mismatch):
            return self._told(error, f"the reward of step {self._time}")
        if result is _NOTHING:
            return _from_theirs(error)
        if not isinstance(result, tuple) or len(result) != 5:
            said = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            return ValueError(
                f"{self.name}: `step` must return (observation, reward, terminated, truncated, info), as in "
                f"Gymnasium, and step {self._time} returned {said}."
            )
        _, reward, terminated, truncated, _ = result
        return TypeError(
            f"{self.name}: the reward must be a number, and `terminated` and `truncated` True or False; step "
            f"{self._time} gave {reward!r}, {terminated!r} and {truncated!r}."
        )

    def _told(self, error: BaseException, what: str) -> BaseException:
        return ValueError(f"{self.name}: {what} {error}.") if isinstance(error, Mismatch) else error

    def _those_that_fit(self, found: list[Any], errors: dict[int, BaseException]) -> list[Any]:
        """Return the observations, blank ones for those that cannot be shown: their episodes fail."""
        good = []
        for i, observation in enumerate(found):
            try:
                with np.errstate(all="ignore"):
                    self._encode([observation])
                good.append(observation)
            except Exception as error:
                what = f"the observation of step {self._time}"
                errors[i] = (
                    self._told(error, what)
                    if isinstance(error, Mismatch)
                    else ValueError(f"{self.name}: {what} is not of its space: {error}.")
                )
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
        rows = self._seen.T if self._is_vector else self._seen
        for tape, row in zip(self._tapes, rows, strict=True):
            tape.observations.append(row.copy())

    def _record(
        self, taken: Sequence[Any], rewards: Array, ended: Array, errors: dict[int, BaseException]
    ) -> None:
        """Write down what happened in a step, and call the user's function where an episode ended."""
        self._record_observations()
        size = self.behaviours.get("custom")
        for i, (tape, action) in enumerate(zip(self._tapes, taken, strict=True)):
            tape.actions.append(action)
            tape.rewards.append(float(rewards[i]))
            if ended[i] and i not in errors and size is not None and self._custom is not None:
                try:
                    tape.behaviour = as_numbers(self._custom, self._episode(i), size)
                except (Exception, SystemExit) as error:
                    errors[i] = _from_theirs(error)

    def _episode(self, i: int) -> Episode:
        tape, seat = self._tapes[i], self._seats[self._places[i]]
        assert seat is not None
        return Episode(np.array(tape.observations), tape.actions, np.array(tape.rewards), seat.inner)

    def _probed(self) -> int:
        """Return how many numbers the user's function returns: of the first episode that does not fail."""
        assert self._custom is not None
        failed: BaseException | None = None
        for seed in range(_TRIES):
            self.begin([seed])
            generator = Key(0).fold("behaviour", seed).generator()
            for _ in range(min(self.max_steps, _MOST_PROBED)):
                done = self.step(random_actions(self.spaces.actions, 1, generator))
                if done.ended[0]:
                    break
            if not done.errors:
                return len(as_numbers(self._custom, self._episode(0)))
            failed = done.errors[0]
        raise ValueError(
            f"{self.name}: `behaviour` could not be tried, as {_TRIES} of {_TRIES} episodes failed, the last "
            f"one with {failed}"
        ) from failed


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
                    f"{name} must make an environment as in Gymnasium, and what it returned, "
                    f"{type(environment).__name__}, has no `{needed}`."
                )
        if hasattr(environment, "num_envs"):
            raise TypeError(
                f"{name} must make one environment, and {type(environment).__name__} is several: as many as "
                "are needed are made where they are needed."
            )
        self.outer, self.limit = _peeled(environment)
        self.inner = getattr(self.outer, "unwrapped", self.outer)
        self.observation_space, self.action_space = self.outer.observation_space, self.outer.action_space
        self.is_used = False
        self.advance = self.outer.step
        if not _takes(self.outer.reset, "seed"):
            raise TypeError(
                f"{name}: `reset` must take a seed, as in Gymnasium: "
                "def reset(self, *, seed=None, options=None)."
            )

    def check(self, observations: Any, actions: Any, name: str) -> None:
        """Raise unless it has these spaces."""
        for what, before, now in (
            ("observations", observations, self.outer.observation_space),
            ("actions", actions, self.outer.action_space),
        ):
            if now is not before and now != before:
                raise ValueError(f"{name}: the space of {what} changed from {before} to {now}.")

    def begin(self, seed: int, name: str) -> Any:
        """Start an episode and return the first observation."""
        self.is_used = True
        result = self.outer.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            said = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            raise ValueError(f"{name}: `reset` must return (observation, info), as in Gymnasium, got {said}.")
        self.check(self.observation_space, self.action_space, name)
        return result[0]


class _Tape:
    """What has happened in an episode so far."""

    __slots__ = ("actions", "behaviour", "observations", "rewards")

    def __init__(self) -> None:
        self.observations: list[Array] = []
        self.actions: list[Any] = []
        self.rewards: list[float] = []
        self.behaviour: Any = math.nan


class _Raising:
    """A step that raises what came up before it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, action: Any) -> Any:
        raise self.error


@contextlib.contextmanager
def _quiet(make: Any) -> Iterator[None]:
    """Build environments without the warnings of their packages: of old versions, of their models.

    MuJoCo would write some of them to a file in the working directory.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(make, str) or _is_spec(make):  # what users wrote themselves may warn
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _load(make)
        mujoco = sys.modules.get("mujoco")
        if mujoco is not None:
            stack.callback(mujoco.set_mju_user_warning, mujoco.get_mju_user_warning())
            mujoco.set_mju_user_warning(_ignore)
        yield


def _is_spec(make: Any) -> bool:
    gymnasium = sys.modules.get("gymnasium")
    return gymnasium is not None and isinstance(make, gymnasium.envs.registration.EnvSpec)


def _load(make: Any) -> None:
    """Import the module of an environment, and with it what it is made of."""
    from gymnasium.envs import registration

    if isinstance(make, str):
        module, _, make = make.rpartition(":")
        if module:
            importlib.import_module(module)
    entry = (registration.spec(make) if isinstance(make, str) else make).entry_point
    if isinstance(entry, str):
        registration.load_env_creator(entry)


def _from_theirs(error: BaseException) -> BaseException:
    """Return an exception whose traceback begins at the first line that is the user's."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename in (
        __file__,
        as_numbers.__code__.co_filename,
    ):
        place = place.tb_next
    return error.with_traceback(place)


def _ignore(message: str) -> None:
    """Take a warning."""


def _peeled(environment: Any) -> tuple[Any, int | None]:
    """Return an environment without wrappers that only count or check, and after how many steps it ends."""
    from gymnasium import Wrapper, wrappers

    limits, inner = [], environment
    while isinstance(inner, Wrapper):
        if isinstance(inner, wrappers.TimeLimit):
            limits.append(int(inner._max_episode_steps))
        inner = inner.env
    while type(environment) in (wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker):
        environment = environment.env
    return environment, min(limits, default=None)


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument by name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return True
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _root(inner: Any) -> int:
    """Return how many numbers say where a body of MuJoCo is on the ground: those of its first joints."""
    model: Any = getattr(inner, "model", None)
    kinds = getattr(model, "jnt_type", None)
    if kinds is None or not hasattr(inner, "data") or not len(kinds):
        return 0
    if kinds[0] == _FREE:
        return 2
    size = 0
    for axis in ((1, 0, 0), (0, 1, 0)):
        slides = size < len(kinds) and kinds[size] == _SLIDE and not model.jnt_limited[size]
        if not (slides and np.array_equal(model.jnt_axis[size], axis)):
            break
        size += 1
    return size
