"""Small policies that are evolved under various circumstances, always with the same bytes.

    python tests/distributed/evolving.py NAME OUT [WORKERS]

is a driver that can be killed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import zoo
import zoo.core.state
from evolution.environments.cart_pole import CartPole
from evolution.environments.environment import Environment, Step
from evolution.environments.maze import HardMaze
from evolution.environments.spaces import Discrete, Spaces, Vector
from evolution.episodes import Episodes
from evolution.facade import Evolution, evolve
from evolution.members import Members
from evolution.policies.policy import Actor, Piece, Policy
from evolution.rollouts import Rollouts
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.run import loop

HERE = "tests.distributed.evolving"
SLOW = "EVOLVING_SECONDS"
GENERATIONS = 5


class Poles(CartPole):
    """Few poles at a time, so that there is something to share out; slow where that is asked for."""

    slots = 4
    max_steps = 60

    def begin(self, seeds: Sequence[int]) -> np.ndarray:
        time.sleep(float(os.environ.get(SLOW, "0")))
        return super().begin(seeds)


class Robots(HardMaze):
    """Few robots at a time, on short errands."""

    slots = 4

    def __init__(self) -> None:
        super().__init__(max_steps=40)

    def begin(self, seeds: Sequence[int]) -> np.ndarray:
        time.sleep(float(os.environ.get(SLOW, "0")))
        return super().begin(seeds)


class Errand(Environment):
    """An episode of one step, which may be given something to do. Its return is the first observation."""

    spaces = Spaces(Vector(2), Discrete(2))
    max_steps = 1

    behaviours: Mapping[str, int] = {"position": 2}

    def begin(self, seeds: Sequence[int]) -> np.ndarray:
        self._seeds = [int(seed) for seed in seeds]
        self._seen = np.array([[seed % 97 / 97, seed % 89 / 89] for seed in self._seeds], np.float32).T
        return self._seen

    def step(self, actions: np.ndarray) -> Step:
        for seed in self._seeds:
            self.do(seed)
        count = len(self._seeds)
        return Step(self._seen, self._seen[0] + actions, np.ones(count, bool))

    def do(self, seed: int) -> None:
        """Do nothing."""

    def behaviour(self, name: str) -> np.ndarray:
        return self._seen.T.astype(np.float64)

    def keep(self, which: np.ndarray) -> None:
        raise AssertionError("all episodes end together")


def network(spaces: Spaces) -> Any:
    """A network of the user's own, in torch."""
    from torch import nn

    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))


class Hangs(Errand):
    """Never comes back from every twentieth episode."""

    def do(self, seed: int) -> None:
        if seed % 20 == 7:
            time.sleep(3600)


@dataclass(frozen=True)
class Idle(Policy):
    """As many parameters as the network of the papers on Atari games has, and always the same action."""

    spaces: Spaces = Errand.spaces
    pieces: tuple[Piece, ...] = (Piece("weights", (4_052_658,), 0.01),)

    def actor(self, parameters: Any, of: np.ndarray) -> Actor:
        return _Same(len(of))

    def describe(self) -> dict[str, Any]:
        return {"name": "idle"}


class _Same(Actor):
    def __init__(self, count: int) -> None:
        self.count = count

    def act(self, observations: Any) -> np.ndarray:
        return np.zeros(self.count, np.int64)

    def keep(self, which: np.ndarray) -> None:
        self.count = len(which)


class Unseen(Members):
    """As many members as others, every one of them zero: what it takes to decode those is not the point."""

    def __init__(self, like: Members) -> None:
        self._shape = len(like), like.dim

    @property
    def dim(self) -> int:
        return self._shape[1]

    def __len__(self) -> int:
        return self._shape[0]

    def rows_on(self, device: str, start: int, stop: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (stop - start, self.dim))


class Undecoded(Rollouts):
    """Episodes of networks that nobody decodes, but for the first one of a step."""

    def evaluate(self, candidates: Any, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        if start:
            members = Unseen(candidates.members)
            candidates = Episodes(members, candidates.times, candidates.normalizer, candidates.common)
        return super().evaluate(candidates, start, stop, key=key, step=step)


GA: dict[str, Any] = {"num_parents": 5, "elite_candidates": 3, "elite_episodes": 7}
RUNS: dict[str, dict[str, Any]] = {
    "deep-ga, poles": {
        "environment": f"{HERE}:Poles",
        "options": {**GA, "population_size": 22, "sigma": 0.3},
    },
    "deep-ga, maze": {
        "environment": f"{HERE}:Robots",
        "options": {**GA, "population_size": 22, "sigma": 0.1, "elite_candidates": 0},
    },
    "novelty-ga, maze": {
        "environment": f"{HERE}:Robots",
        "method": "novelty-ga",
        "options": {**GA, "population_size": 22, "sigma": 0.1, "elite_candidates": 0}
        | {"neighbours": 5, "archive_probability": 0.4},
    },
    "novelty-ga, poles": {
        "environment": f"{HERE}:Poles",
        "method": "novelty-ga",
        "options": {**GA, "population_size": 22, "sigma": 0.3, "neighbours": 5, "archive_probability": 0.4},
    },
    "normalized, poles": {
        "environment": f"{HERE}:Poles",
        "options": {**GA, "population_size": 22, "sigma": 0.3},
        "episodes": 3,
        "normalize": True,
        "common": False,
    },
    "openai-es, poles": {
        "environment": f"{HERE}:Poles",
        "method": "openai-es",
        "options": {"population_size": 22, "sigma": 0.1, "learning_rate": 0.05, "validation_episodes": 10},
        "normalize": True,
    },
}


class Digests(zoo.Watcher):
    """Takes the digests of each generation: of the next parameters, of values, of the archive, of all."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str, str]] = []

    def begin(self, run: Any) -> None:
        self._job = run.job

    def step(self, state: Any, metrics: Any) -> None:
        asked, method = self._job.ask(state).members, state.optimizer.method
        archive = getattr(method, "archive", None)
        parts = (
            asked.rows(0, len(asked)),
            getattr(method, "values", np.empty(0)),
            np.empty(0) if archive is None else archive.array,
        )
        found = [hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in parts]
        self.found.append((*found, zoo.core.state.digest(state)))


def grown(name: str, workers: Any = 1, **more: Any) -> Evolution:
    """Do one of `RUNS`."""
    given = {"generations": GENERATIONS, "test_episodes": 5, "rng": 3, **RUNS[name], **more}
    return evolve(**given, workers=workers)


def generations(name: str, workers: Any = 1, **more: Any) -> list[tuple[str, str, str, str]]:
    """Return the digests of all generations of a run."""
    digests = Digests()
    watchers = [digests, *more.pop("callback", [])]
    grown(name, workers, callback=watchers, **more)
    return digests.found


def main() -> None:
    loop.CHECKPOINT_SECONDS = 0.0
    name, out = sys.argv[1:3]
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    grown(name, zoo.Processes(number) if number > 1 else 1, out=out, generations=10)


if __name__ == "__main__":
    main()
