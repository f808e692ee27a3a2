"""Environments by name: what users say, what travels to workers, and what is built there."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from evolution.behaviour import Behaviour
from evolution.environments.environment import Environment
from evolution.environments.spaces import Spaces
from evolution.named import described, named
from zoo.core.fingerprint import digest
from zoo.core.validation import check_choice, check_count

OWN = {
    "maze": "evolution.environments.maze:HardMaze",
    "cart-pole": "evolution.environments.cart_pole:CartPole",
}
"""Environments that come along, and step all episodes at once."""

_ATARI = "ALE/"


class EnvironmentSpec:
    """What an environment is built from, in every process that needs one. Made by `as_environment`.

    It is small, and equal to others that build the same.

    Attributes:
        name: How it is called.
        spaces: What it shows and takes.
        max_steps: Steps after which every episode has ended.
        frames_per_step: What a step counts for where frames are counted.
        behaviours: As those of the environment.
        behaviour: The name of the one that was asked for, else of the first, None where there is none.
    """

    def __init__(
        self,
        source: str | Callable[..., Any],
        options: Mapping[str, Any],
        max_steps: int | None,
        behaviour: str | Behaviour | None,
    ) -> None:
        self._source, self._options, self._max_steps = source, dict(options), max_steps
        self._custom: Any = None if _is_name(behaviour) else behaviour
        self.name = source if isinstance(source, str) else described(source)["name"]
        self._custom_size: int | None = None
        built = self.build()
        self.spaces: Spaces = built.spaces
        self.max_steps, self.frames_per_step = built.max_steps, built.frames_per_step
        self.behaviours = dict(built.behaviours)
        self._custom_size = self.behaviours.get("custom")
        self.behaviour: str | None = next(iter(self.behaviours), None)
        if isinstance(behaviour, str) and ":" not in behaviour:
            if not self.behaviours:
                raise ValueError(
                    f"`behaviour` must be a function of an episode, got {behaviour!r}: {self.name} has none of "
                    "its own."
                )
            self.behaviour = check_choice("behaviour", behaviour, self.behaviours)
        built.close()

    def build(self, *, pictures: bool = False) -> Environment:
        """Return a new environment.

        Args:
            pictures: Whether its `render` is to return pictures.
        """
        source = self._source
        if isinstance(source, str) and source.startswith(_ATARI):
            return self._atari()
        if isinstance(source, str) and not _is_module(source) and source not in OWN:
            return self._gymnasium(source, None, pictures)
        made_by = named("env", OWN.get(source, source)) if isinstance(source, str) else source
        if isinstance(made_by, type) and issubclass(made_by, Environment):
            return self._own(made_by)
        made = made_by(**self._options)
        if isinstance(made, Environment):
            return made
        return self._gymnasium(made_by, made, pictures)

    def identity(self) -> dict[str, Any]:
        """Return what tells it from other ones, for `config.json`."""
        return {"name": self.name}

    def _own(self, made_by: type[Environment]) -> Environment:
        return made_by(**self._options)

    def _atari(self) -> Environment:
        from evolution.environments.atari import AtariEnvironment

        limit = {} if self._max_steps is None else {"max_steps": self._max_steps}
        return AtariEnvironment(str(self._source), **{**self._options, **limit})

    def _gymnasium(self, make: Any, spare: Any, pictures: bool) -> Environment:
        from evolution.environments.gymnasium import GymnasiumEnvironment

        return GymnasiumEnvironment(
            make,
            options=self._options,
            name=self.name,
            max_steps=self._max_steps,
            behaviour=named("behaviour", self._custom) if isinstance(self._custom, str) else self._custom,
            behaviour_size=self._custom_size,
            pictures=pictures,
            spare=spare,
        )


def as_environment(
    spec: str | Callable[..., Any] | EnvironmentSpec,
    *,
    options: Mapping[str, Any] | None = None,
    max_steps: int | None = None,
    behaviour: str | Behaviour | None = None,
) -> EnvironmentSpec:
    """Return what an environment is built from."""
    if isinstance(spec, EnvironmentSpec):
        return spec
    if max_steps is not None:
        check_count("max_steps", max_steps)
    return EnvironmentSpec(spec, options or {}, max_steps, behaviour)


def _is_name(behaviour: Any) -> bool:
    return behaviour is None or (isinstance(behaviour, str) and ":" not in behaviour)


def _is_module(source: str) -> bool:
    """Whether it is module:name, and not an id of Gymnasium with the module that registers it in front."""
    return ":" in source and not re.search(r"-v\d+$", source)
