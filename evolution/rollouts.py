"""Episodes as an objective: policies act in an environment, and minus the return is the value."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from evolution.environments.environment import Environment
from evolution.environments.spaces import Vector
from evolution.episodes import Episodes
from evolution.moments import Normalizer, Tally
from evolution.policies.policy import Policy
from zoo.core.objective import Objective, failure_of
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Failure

Array = np.ndarray[Any, Any]


class Source(Protocol):
    """What builds an environment where it is needed; it travels to workers."""

    def build(self) -> Environment:
        """Return a new one."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what tells it from other ones."""
        ...


class Rollouts(Objective):
    """Minus the return of an episode, for each of some.

    An episode is a function of its policy and its noise stream: its seed is folded from the key, the step and
    the stream. Which episodes run side by side, and whether policies are computed one by one, across members,
    or over several episodes of one member, is decided by sizes alone; see `units`.

    Extras are "steps", "behaviour" where one is asked for, and "moments" of the observations where these are
    normalized (see `evolution.moments`).

    Args:
        environment: Builds the environment, on each worker once.
        policy: What rows of parameters stand for.
        behaviour: Name of what episodes are characterised by, or None; see `Environment.behaviours`.
        normalized: Whether observations are normalized, and so their moments wanted.
        shared: What is to travel with it to workers, such as a noise table; not used here.

    Raises:
        ValueError: Observations are pictures, and `normalized`.
    """

    def __init__(
        self,
        environment: Source,
        policy: Policy,
        *,
        behaviour: str | None = None,
        normalized: bool = False,
        shared: Any = None,
    ) -> None:
        if normalized and not isinstance(policy.spaces.observations, Vector):
            raise ValueError(
                "`normalized` must be False where observations are pictures, which are divided by 255."
            )
        self.environment, self.policy, self.behaviour = environment, policy, behaviour
        self.normalized, self.shared = normalized, shared
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._built: Environment | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_built")}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)
        self._begin()
        # On a worker, building is to count against no episode's timeout; what it raises, the first will tell.
        with contextlib.suppress(Exception):
            _ = self.built

    @property
    def built(self) -> Environment:
        """The environment of this process."""
        with self._lock:
            if self._built is None:
                self._built = self.environment.build()
            return self._built

    def units(self, candidates: Candidates) -> Sequence[int]:
        """Return the boundaries between what runs side by side.

        As many episodes as the environment has slots for: of as many members as the policy computes side by
        side, all their episodes; or, where one member has more episodes than that, of it alone.
        """
        times = candidates.times if isinstance(candidates, Episodes) else 1
        slots, members = self.built.slots, self.policy.members
        count = len(candidates)
        if times > slots:
            inside = [*range(0, times, slots)]
            return [*(first + cut for first in range(0, count, times) for cut in inside), count]
        size = max(1, min(members, slots // times)) * times
        return [*range(0, count, size), count]

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        assert isinstance(candidates, Episodes)
        times = candidates.times
        first = start // times
        parameters = candidates.members.rows_on(self.policy.device, first, -(-stop // times))
        of = np.arange(start, stop) // times - first
        streams = candidates.noise(start, stop).tolist()
        drawn = {stream: episode_seed(key, step, stream) for stream in set(streams)}
        seeds = [drawn[stream] for stream in streams]
        with self._lock:
            found = self._run(parameters, of, seeds, candidates.normalizer, start)
        failures = tuple(
            one._replace(
                message=f"episode seed {seeds[one.row - start]}, member {one.row // times}: {one.message}"
            )
            for one in found.failures
        )
        return replace(found, failures=failures) if failures else found

    def _run(
        self, parameters: Any, of: Array, seeds: Sequence[int], normalizer: Normalizer | None, start: int
    ) -> Evaluations:
        environment, count = self.built, len(seeds)
        actor = self.policy.actor(parameters, of)
        returns, steps = np.zeros(count), np.zeros(count)
        name = self.behaviour
        behaviours = None if name is None else np.full((count, environment.behaviours[name]), np.nan)
        failures: list[Failure] = []
        observations = environment.begin(seeds)
        is_vector = isinstance(environment.spaces.observations, Vector)
        tally = Tally(observations) if self.normalized else None
        moments = np.full((count, 1 + 2 * len(observations)), np.nan) if self.normalized else None
        act, advance = actor.act, environment.step
        under_way, totals, time = np.arange(count), np.zeros(count), 0
        while True:
            if tally is not None:
                tally.add(observations)
            done = advance(act(observations if normalizer is None else normalizer(observations)))
            totals += done.rewards
            time += 1
            over = done.ended.nonzero()[0]  # an eighth of the time of `any` and `flatnonzero`
            if over.size:
                rows = under_way[over]
                returns[rows], steps[rows] = totals[over], time
                if behaviours is not None and name is not None:
                    behaviours[rows] = environment.behaviour(name)[over]
                if moments is not None and tally is not None:
                    moments[rows] = tally.rows(over)
                for episode, error in done.errors.items():
                    row = int(under_way[episode])
                    returns[row] = np.nan
                    if behaviours is not None:
                        behaviours[row] = np.nan  # it has come to nothing
                    if moments is not None:
                        moments[row] = np.nan  # it may have shown nothing but a blank
                    failures.append(failure_of(error, start + row, "environment"))
                if len(over) == len(under_way):
                    break
                left = (~done.ended).nonzero()[0]
                environment.keep(left)
                actor.keep(left)
                under_way, totals = under_way[left], totals[left]
                observations = done.observations[:, left] if is_vector else done.observations[left]
                if tally is not None:
                    tally.keep(left)
            else:
                observations = done.observations
        extras: dict[str, Array] = {"steps": steps}
        if behaviours is not None:
            extras["behaviour"] = behaviours
        if moments is not None:
            extras["moments"] = moments
        return Evaluations(-returns, tuple(failures), extras)

    def identity(self) -> dict[str, Any]:
        return {
            "name": "return of an episode",
            "attributes": {
                "environment": self.environment.identity(),
                "policy": self.policy.describe(),
                "behaviour": self.behaviour,
                "normalized": self.normalized,
            },
        }


def episode_seed(key: Key, step: int, stream: int) -> int:
    """Return the seed of an episode, from 0 to 2^32 - 1.

    Args:
        key: Randomness of the run's evaluations.
        step: Number of the step.
        stream: Noise stream of the row.
    """
    return key.fold(step, stream).seed(32)
