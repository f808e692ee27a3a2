"""What a run is: its arguments, what they stand for, and how they are written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evolution.environments.lookup import as_environment
from evolution.episodes import Episodic
from evolution.genome import Codec, DrawnNoise, Genome, SharedTable
from evolution.job import EvolutionJob
from evolution.lineage import Lineage
from evolution.methods import find
from evolution.policies.lookup import as_policy
from evolution.policies.policy import Policy
from evolution.rollouts import Rollouts
from zoo.core.device import to_numpy
from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import freeze, thaw
from zoo.core.validation import check_known, check_positive
from zoo.execution.executor import Executor
from zoo.kept import plain, written
from zoo.run.directory import dump, read_config

Array = np.ndarray[Any, Any]

KIND = "evolution"
"""What `config.json` says that the run is."""

_TABLE_SEED = 123
_LEAST_TABLE, _ROWS = 2**20, 16  # numbers of a table, and rows it should at least hold
_MOST_TABLE = 2**26  # numbers; more only where a row needs it
_MOST_SIGMA = 1e30  # noise is below 10, and sums of mutations are to be finite
NAMES = ("environment", "environment_options", "max_steps", "policy", "policy_options")
"""Of the arguments, those that a file of an individual holds, so that it can be played."""

_GIVEN = (
    "environment",
    "environment_options",
    "method",
    "options",
    "policy",
    "policy_options",
    "episodes",
    "max_steps",
    "behaviour",
    "normalize",
    "common",
    "generations",
    "budget",
    "frames",
    "score",
    "test_episodes",
    "noise_table",
    "on_error",
)


@dataclass(frozen=True, eq=False)
class Setting:
    """A run, apart from who does it: its arguments, and what they stand for.

    Attributes:
        given: Arguments of `evolve`, checked; "start" as an array or None.
        key: Where all randomness comes from.
        objective: The episodes.
        method: The method, bound to its codec.
        codec: What chains of seeds stand for, or None.
    """

    given: Mapping[str, Any]
    key: Key
    objective: Rollouts
    method: Any
    codec: Codec | None

    @staticmethod
    def of(given: Mapping[str, Any], key: Key) -> Setting:
        """Return what arguments stand for.

        Raises:
            TypeError: One is of a type that it cannot be.
            ValueError: It has a value that it cannot have, or they do not go together.
        """
        known = find(given["method"])
        options = dict(given["options"])
        check_known(f"option of method {known.name!r}:", options, known.options())
        is_of_seeds = "genomes" in known.traits
        # Methods with parameters draw first policies from seeds, and nothing else.
        if given["noise_table"] is not None and (not is_of_seeds or "parameters" in known.traits):
            has_own = "noise_table" in known.options()
            own = ": give its option of that name, for the noise of its perturbations" if has_own else ""
            raise ValueError(
                f"`noise_table` must be left out for the method {known.name!r}, which reads no mutations "
                f"from one{own}."
            )
        if is_of_seeds and "sigma" in known.options():
            _check_sigma(options.get("sigma", known.options()["sigma"]))
        source = as_environment(
            given["environment"],
            options=given["environment_options"],
            max_steps=given["max_steps"],
            behaviour=given["behaviour"],
        )
        built = source.build()
        try:
            policy = as_policy(given["policy"], built.spaces, given["policy_options"], built)
        finally:
            built.close()
        needed = "needs behaviour" in known.traits
        behaviour = _behaviour(given["behaviour"], source.behaviour, needed, known.name)
        start = _start(given["start"], policy)
        codec = None
        if is_of_seeds:
            settings = {**known.options(), **options}
            if start is not None and "sigma" not in settings:
                raise ValueError(f"`start` must be None for the method {known.name!r}, which mutates nobody.")
            codec = _codec(policy, given["noise_table"], start, settings.get("sigma", 0.0))
            options["codec"] = codec
        method = known.build(options)
        shared = SharedTable(codec.noise) if codec and isinstance(codec.noise, NoiseTable) else None
        objective = Rollouts(
            source, policy, behaviour=behaviour, normalized=given["normalize"], shared=shared
        )
        return Setting(given, key, objective, method, codec)

    @property
    def x0(self) -> Array:
        """Where methods without a codec start: what was given, or a first policy, drawn."""
        policy = self.objective.policy
        if self.given["start"] is not None:
            return _start(self.given["start"], policy)
        codec = self.codec or _codec(policy, 0)
        seed = codec.draw(self.key.fold("start"), 0, 1)
        return codec.decode(Genome(seed, np.ones(1, np.float32)))

    @property
    def names(self) -> dict[str, Any] | None:
        """What environment and policy are called, for files of individuals; None where one is an object."""
        try:
            found: dict[str, Any] = json.loads(json.dumps({name: self.given[name] for name in NAMES}))
        except TypeError:
            return None
        return found

    def family(self, state: Any) -> Lineage | None:
        """Return the champion and its ancestors by a state of the method; None where that knows none."""
        champion = self.method.best(state)[0] if hasattr(self.method, "genome") else -1
        found: Lineage | None = state.lineage.pruned([champion]) if champion >= 0 else None
        return found

    @property
    def arrays(self) -> dict[str, Array]:
        """What `start.safetensors` is to hold."""
        start = _start(self.given["start"], self.objective.policy)
        return {} if start is None else {"start": start}

    def config(self, threads: int) -> dict[str, Any]:
        """Return what `config.json` is to hold."""
        given = {name: written(value) for name, value in self.given.items() if name != "start"}
        config = {
            "kind": KIND,
            **given,
            "options": freeze(plain(given["options"]))[0],
            "objective": self.objective.identity(),
            "codec": None if self.codec is None else self.codec.digest,
            "key": str(self.key),
            "dim": self.objective.policy.dim,
            "like": ["numpy", "float32", "cpu"],
            "target": None,
            "noise": True,
            "threads": threads,
        }
        image: dict[str, Any] = json.loads(dump(config))
        return image

    def job(self, executor: Executor) -> EvolutionJob:
        """Return the job that does it."""
        given = self.given
        spaces = self.objective.policy.spaces
        size = getattr(spaces.observations, "size", None) if given["normalize"] else None
        episodic = Episodic(self.method, given["episodes"], size, given["common"])
        return EvolutionJob(
            episodic,
            self.objective,
            executor,
            self.x0,
            key=self.key,
            generations=given["generations"],
            budget=given["budget"],
            frames=given["frames"],
            score=given["score"],
            test_episodes=given["test_episodes"],
            on_error=given["on_error"],
            threads=executor.threads,
        )


def read_given(path: Path, again: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments that a run was started with.

    Args:
        path: Its directory.
        again: What is given again, by name; None for what is not.

    Raises:
        RunDirectoryError: There is no run of this kind, or something has to be given again.
    """
    config, arrays = read_config(path)
    if config.get("kind") != KIND:
        raise RunDirectoryError(f"{path} holds a run of another kind; zoo.resume goes on with it.")
    given = {}
    for name in _GIVEN:
        value = (again or {}).get(name)
        stored = config[name]
        if value is None and isinstance(stored, dict) and "given" in stored:
            raise RunDirectoryError(
                f"{path} was started with an object as `{name}`, {stored['given']}, which a directory does "
                f"not hold: give it again, as in evolution.resume({str(path)!r}, {name}=...)."
            )
        given[name] = stored if value is None else value
    given["options"] = thaw(config["options"], {})
    return {**given, "start": arrays.get("start")}


def _start(start: Any, policy: Policy) -> Any:
    """Return parameters to start from, float32, None for none.

    Raises:
        ValueError: They are not those of the policy.
    """
    if start is None:
        return None
    found = np.ascontiguousarray(to_numpy(start), np.float32)
    if found.shape != (policy.dim,) or not np.isfinite(found).all():
        instead = "some that are not finite."
        if found.shape != (policy.dim,):
            instead = f"an array of shape {found.shape}; one of a champion fits its own environment."
        raise ValueError(
            f"`start` must be the {policy.dim} finite parameters of the policy in a row, got {instead}"
        )
    return found


def _codec(policy: Policy, noise_table: int | None, start: Any = None, sigma: float = 0.0) -> Codec:
    """Return what chains of seeds stand for; roots are mutations of `start` where that is given."""
    dim, pieces = policy.dim, policy.pieces
    if start is not None:
        pieces = tuple(replace(piece, std=sigma) for piece in pieces)
    if noise_table is not None and noise_table != 0 and not dim <= noise_table <= 2**32:
        raise ValueError(
            f"`noise_table` must have from {dim} numbers, which a row of this policy has, to 2^32, got "
            f"{noise_table}: better some ten times as many as a row, or 0 for noise that is drawn anew."
        )
    if noise_table == 0:
        return Codec(DrawnNoise(_TABLE_SEED), pieces, start)
    size = noise_table
    if size is None:
        size = max(_LEAST_TABLE, min(_MOST_TABLE, _ROWS * dim), 2 * dim)
        size = 1 << (size - 1).bit_length()
    return Codec(NoiseTable(_TABLE_SEED, size), pieces, start)


def _check_sigma(sigma: Any) -> None:
    """Raise unless mutations of such a deviation are numbers.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0, or too large.
    """
    if check_positive("sigma", sigma) > _MOST_SIGMA:
        raise ValueError(
            f"`sigma` must be at most {_MOST_SIGMA:g}, as parameters are float32, got {sigma!r}."
        )


def _behaviour(given: Any, chosen: str | None, needed: bool, method: str) -> str | None:
    """Return the name of the behaviour that episodes are to be characterised by."""
    if given is None and not needed:
        return None
    if chosen is None:
        raise ValueError(
            f"`behaviour` must be given for the method {method!r}, as the environment offers none: a "
            "function of an episode that returns some numbers."
        )
    return chosen
