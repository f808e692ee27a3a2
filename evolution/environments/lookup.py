"""Environments by name: what users say, what travels to workers, and what is built there."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evolution.behaviour import Behaviour
from evolution.environments.checks import try_out
from evolution.environments.environment import Environment
from evolution.environments.spaces import Spaces
from zoo.core.fingerprint import digest
from zoo.core.named import described, imported, named
from zoo.core.validation import check_choice, check_count, check_flag, check_known, listed

OWN = {
    "maze": "evolution.environments.maze:HardMaze",
    "cart-pole": "evolution.environments.cart_pole:CartPole",
}
"""Environments that come along, and step all episodes at once."""

INSTALL = (
    'Environments of Gymnasium come with `pip install "gradfree[rl]"`, Atari games with '
    '`pip install "gradfree[atari]"`.'
)

_ATARI = "ALE/"
_NEAR = 0.6  # how alike names must be for the one to be suggested for the other
_MOST_NEAR = 3


class EnvironmentSpec:
    """What an environment is built from, in every process that needs one; `as_environment` makes it.

    It is small, holds no environment, and equals those that build the same.

    Attributes:
        name: How it is called: as it was said, or module:name of a function or class.
        spaces: What it shows and takes.
        max_steps: Steps after which every episode has ended.
        frames_per_step: What a step counts for where frames are counted.
        behaviours: By name, how many numbers they are, as those of the environment.
        behaviour: The name of the one that was asked for, else of the first; None where there is none.
    """

    name: str
    spaces: Spaces
    max_steps: int
    frames_per_step: int
    behaviours: dict[str, int]
    behaviour: str | None

    def __init__(
        self,
        source: str | Callable[..., Any],
        options: Mapping[str, Any],
        max_steps: int | None,
        behaviour: str | Behaviour | None,
        frames_per_step: int | None,
        fresh: bool | None,
    ) -> None:
        self._source, self._options = source, dict(options)
        self._limit, self._frames, self._fresh = max_steps, frames_per_step, fresh
        is_own = isinstance(behaviour, str) and ":" not in behaviour  # of the environment
        self._custom = None if is_own else behaviour
        self._custom_size: int | None = None
        self._expected: Spaces | None = None
        self.name = source if isinstance(source, str) else described(source)["name"]
        self._entry = _entry(source) if _is_id(source) else None
        if _is_atari(source):
            _check_game(str(source))
        built = self.build()
        self.spaces = self._expected = built.spaces
        self.max_steps, self.frames_per_step = built.max_steps, built.frames_per_step
        self.behaviours = dict(built.behaviours)
        self._custom_size = self.behaviours.get("custom")
        self.behaviour = next(iter(self.behaviours), None)
        if isinstance(behaviour, str) and is_own:
            self.behaviour = check_choice("behaviour", behaviour, self.behaviours)
        if not self._is_ours():
            changes = try_out(built, self.build, self.name)
            self._fresh = (changes or None) if fresh is None else fresh
        built.close()

    def build(self, *, pictures: bool = False) -> Environment:
        """Return a new environment.

        Args:
            pictures: Whether its `render` is to return pictures; those of Gymnasium must know beforehand.

        Raises:
            ValueError: Its spaces are others than those of the first one.
        """
        built = self._built(pictures)
        if self._expected is not None and built.spaces != self._expected:
            raise ValueError(
                f"{self.name} changed its spaces: they were {self._expected} when the run began, and are "
                f"{built.spaces} in this process."
            )
        return built

    def identity(self) -> dict[str, Any]:
        """Return what tells it from other ones, for `config.json`.

        Returns:
            "name"; "max_steps"; "options", those that are not numbers and names as digests; "code" of the
            user's own, and of a "behaviour" of the user's.
        """
        found: dict[str, Any] = {"name": self.name, "max_steps": self.max_steps}
        if self._options:
            found["options"] = {name: _plain(value) for name, value in sorted(self._options.items())}
        if self._entry is not None or not (_is_id(self._source) or _is_atari(self._source)):
            entry = self._source if self._entry is None else self._entry.entry_point
            told = described(_found(entry))
            found |= {key: told[key] for key in ("code", "arguments", "attributes") if key in told}
        if self._frames is not None:
            found["frames_per_step"] = self._frames
        if self._custom is not None:
            found["behaviour"] = described(_behaviour(self._custom))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvironmentSpec) and other.identity() == self.identity()

    def __hash__(self) -> int:
        return hash(digest(self.identity()))

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"<environment {self.name}{options}>"

    def _built(self, pictures: bool) -> Environment:
        source = self._source
        if _is_atari(source):
            from evolution.environments.atari import AtariEnvironment

            return self._our_own(AtariEnvironment, (source,))
        if _is_id(source):
            return self._of_gymnasium(self._entry or source, None, pictures)
        maker = _found(source)
        if isinstance(maker, type) and issubclass(maker, Environment):
            return self._our_own(maker)
        _check_options(maker, self._options, self.name, 0)
        made = maker(**self._options)
        if isinstance(made, Environment):
            self._refuse_ours()
            return made
        # One that is to make pictures has to be told so, and is another one.
        return self._of_gymnasium(maker, None if pictures else made, pictures)

    def _our_own(self, maker: type[Environment], given: tuple[Any, ...] = ()) -> Environment:
        """Return an instance of a class that is built on `Environment`."""
        options = dict(self._options)
        if self._limit is not None:
            if "max_steps" not in inspect.signature(maker).parameters:
                raise ValueError(
                    f"`max_steps` must be None for {self.name}, whose {maker.__name__} takes none, got "
                    f"{self._limit}."
                )
            options["max_steps"] = self._limit
        self._refuse_ours(is_class=True)
        _check_options(maker, options, self.name, len(given))
        return maker(*given, **options)

    def _refuse_ours(self, *, is_class: bool = False) -> None:
        """Raise where something was asked for that only environments of Gymnasium are given here."""
        refused = {"behaviour": self._custom, "frames_per_step": self._frames, "fresh": self._fresh}
        if not is_class:
            refused["max_steps"] = self._limit
        for name, value in refused.items():
            if value is not None and value is not False:
                instead = "one of its own by name" if name == "behaviour" else "left out"
                raise ValueError(
                    f"`{name}` must be {instead} for {self.name}, which is not of Gymnasium but an "
                    f"`Environment` that says so itself, got {value!r}."
                )

    def _of_gymnasium(self, make: Any, spare: Any, pictures: bool) -> Environment:
        try:
            from evolution.environments.gymnasium import GymnasiumEnvironment

            return GymnasiumEnvironment(
                make,
                options=self._options,
                name=self.name,
                max_steps=self._limit,
                frames_per_step=self._frames or 1,
                behaviour=None if self._custom is None else _behaviour(self._custom),
                behaviour_size=self._custom_size,
                fresh=self._fresh,
                pictures=pictures,
                spare=spare,
            )
        except TypeError as error:
            if not _is_id(self._source) or "unexpected keyword argument" not in str(error):
                raise
            raise TypeError(f"`options` must be what {self.name} takes: {error}.") from error
        except Exception as error:
            if not _is_id(self._source) or not _is_missing(error):
                raise
            raise ModuleNotFoundError(
                f"{self.name} needs a package that is not installed: {error}. {INSTALL}"
            ) from error

    def _is_ours(self) -> bool:
        """Whether it comes along, and is tested where it was written."""
        return _is_atari(self._source) or self._source in OWN


def as_environment(
    spec: str | Callable[..., Any] | EnvironmentSpec,
    *,
    options: Mapping[str, Any] | None = None,
    max_steps: int | None = None,
    behaviour: str | Behaviour | None = None,
    frames_per_step: int | None = None,
    fresh: bool | None = None,
) -> EnvironmentSpec:
    """Return what an environment is built from.

    It is built once to see its spaces, and the user's own and Gymnasium's are tried for a few steps. An
    environment whose episodes are others after others is built anew for every episode.

    Args:
        spec: An id of Gymnasium, such as "CartPole-v1", with the module that registers it and a colon in
            front if need be; an Atari game, such as "ALE/Frostbite-v5", see `AtariEnvironment`; "maze" or
            "cart-pole", which step all episodes at once; or a class, or a function, or "module:name" of
            one, that returns an `Environment` or what looks like one of Gymnasium: `reset(seed=...)`, `step`,
            `observation_space` and `action_space`.
        options: What it is given, by name.
        max_steps: Steps after which episodes end; None for its own limit.
        behaviour: The name of one of its `behaviours`; or, for those of Gymnasium, a function of an
            `evolution.behaviour.Episode` that returns a row of numbers, or "module:name" of one.
        frames_per_step: What a step counts for where frames are counted, for those of Gymnasium.
        fresh: Whether to build a new environment for every episode, for those of Gymnasium; None to find out.

    Raises:
        ModuleNotFoundError: A package is missing; what to install is said.
        TypeError: An argument has the wrong type, or an option is unknown.
        ValueError: Nothing has that name; policies are not served with its spaces; there is no limit of
            steps; or no episode gets further than its first step.

    Example:
        >>> spec = as_environment("CartPole-v1", max_steps=200)
        >>> spec.spaces.actions, spec.behaviours
        (Discrete(count=2), {'observation': 4})
        >>> spec.build().begin([0]).shape
        (4, 1)
    """
    if isinstance(spec, EnvironmentSpec):
        given = {"options": options, "max_steps": max_steps, "behaviour": behaviour}
        for name, value in {**given, "frames_per_step": frames_per_step, "fresh": fresh}.items():
            if value is not None:
                raise TypeError(f"`{name}` must be said where the environment is, got {value!r} besides one.")
        return spec
    if not isinstance(spec, str) and not callable(spec):
        instead = ""
        if hasattr(spec, "step"):
            called = _id_of(getattr(spec, "spec", None))
            other = f"its id, {called!r}, or " if called else ""
            instead = (
                f" Several are needed, in several processes: give {other}a function that makes one, as in "
                f"lambda: {f'gymnasium.make({called!r})' if called else f'{type(spec).__name__}()'}."
            )
        elif called := _id_of(spec):
            instead = f" Give its id, {called!r}."
        raise TypeError(
            f"`environment` must be a name, or a class or function that returns an environment, got {spec!r}."
            f"{instead}"
        )
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"`options` must be a dictionary, got {options!r}.")
    if behaviour is not None and not isinstance(behaviour, str) and not callable(behaviour):
        raise TypeError(f"`behaviour` must be a name or a function of an episode, got {behaviour!r}.")
    if max_steps is not None:
        check_count("max_steps", max_steps)
    if frames_per_step is not None:
        check_count("frames_per_step", frames_per_step)
    if fresh is not None:
        check_flag("fresh", fresh)
    return EnvironmentSpec(spec, options or {}, max_steps, behaviour, frames_per_step, fresh)


def _id_of(spec: Any) -> str | None:
    """Return the id of what Gymnasium keeps about an environment; None for anything else."""
    found = getattr(spec, "id", None) if hasattr(spec, "entry_point") else None
    return found if isinstance(found, str) else None


def near_names(name: str, among: Iterable[str]) -> list[str]:
    """Return up to three names that are near another one, the nearest first.

    Letters are compared regardless of case, and without what stands before a slash and the version; of
    several versions the last one is returned.

    Example:
        >>> near_names("cartpole", ["CartPole-v0", "CartPole-v1", "Pendulum-v1"])
        ['CartPole-v1']
    """
    latest: dict[str, str] = {}
    for one in sorted(among, key=_rank):
        latest[_bare(one)] = one
    return [latest[bare] for bare in difflib.get_close_matches(_bare(name), latest, _MOST_NEAR, _NEAR)]


def _bare(name: str) -> str:
    return re.sub(r"-v\d+$", "", name.rpartition("/")[2]).casefold().replace("-", "").replace("_", "")


def _rank(name: str) -> tuple[int, int]:
    """Return what makes one of several names of the same environment the one to suggest."""
    version = re.search(r"-v(\d+)$", name)
    kind = 2 if name.startswith(_ATARI) else 1 if "/" not in name else 0
    return kind, int(version[1]) if version else 0


def _is_atari(source: Any) -> bool:
    return isinstance(source, str) and source.startswith(_ATARI)


def _is_id(source: Any) -> bool:
    """Whether it is an id of Gymnasium, perhaps with the module that registers it in front."""
    if not isinstance(source, str) or source in OWN or _is_atari(source):
        return False
    return ":" not in source or re.search(r"-v\d+$", source) is not None


def _found(source: str | Callable[..., Any]) -> Any:
    return named("environment", OWN.get(source, source)) if isinstance(source, str) else source


def _behaviour(custom: str | Behaviour) -> Behaviour:
    return named("behaviour", custom) if isinstance(custom, str) else custom


def _entry(source: Any) -> Any:
    """Return what is registered under an id, where workers may not know it; None if they do.

    Raises:
        ModuleNotFoundError: Gymnasium is not installed.
        ValueError: Nothing has that id.
    """
    try:
        import gymnasium
    except ImportError:
        raise ModuleNotFoundError(
            f'{source!r} is looked for in Gymnasium, which is not installed: `pip install "gradfree[rl]"`. '
            f'Without it, there are {listed(OWN)}, and your own as "module:name".'
        ) from None
    module, _, name = source.rpartition(":")
    if module:
        imported("environment", source)
    if name not in gymnasium.registry:
        known = _playable(gymnasium)
        if name not in known:
            raise _unknown(source, [*near_names(name, OWN), *near_names(name, known)])
    spec = gymnasium.registry[name]
    return None if str(spec.entry_point).startswith("gymnasium.envs.") else spec


def _check_game(name: str) -> None:
    """Raise unless there is an Atari game of that id, as Gymnasium knows it."""
    from evolution.environments.atari import games, id_of

    known = [id_of(game) for game in games()]
    if name not in known:
        raise _unknown(name, near_names(name, known))


def _unknown(source: str, near: list[str]) -> ValueError:
    instead = f" Did you mean {' or '.join(map(repr, near[:_MOST_NEAR]))}?" if near else ""
    return ValueError(
        f"`environment` must be one that is known, got {source!r}.{instead} {INSTALL} Give those of "
        'other packages as "package:Name-v0", and your own as "module:name".'
    )


def _playable(gymnasium: Any) -> list[str]:
    """Return the ids that there are, with those of Atari games if they are installed."""
    try:
        import ale_py

        gymnasium.register_envs(ale_py)
    except ImportError:
        pass
    return [name for name in gymnasium.registry if not name.startswith("GymV2")]  # which wrap what is older


def _check_options(maker: Any, options: Mapping[str, Any], name: str, given: int) -> None:
    """Raise where a class or function takes no option of a name."""
    try:
        parameters = list(inspect.signature(maker).parameters.values())[given:]
    except (TypeError, ValueError):  # it is not written in Python
        return
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        check_known(f"option of {name}", options, [one.name for one in parameters])


def _is_missing(error: Exception) -> bool:
    """Whether an exception is about a package; Gymnasium has its own kind."""
    return isinstance(error, ImportError) or type(error).__name__ == "DependencyNotInstalled"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else digest(value)
