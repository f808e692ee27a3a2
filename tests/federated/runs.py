"""Runs of algorithms on tasks, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from federated.algorithm import FederatedAlgorithm
from federated.job import FederatedJob, FederatedState, history_of
from federated.network import Network
from federated.objective import ClientObjective
from federated.task import Task
from zoo.core.rng import Key
from zoo.execution.executor import Executor, Serial
from zoo.run.loop import run


def federated(
    algorithm: FederatedAlgorithm[Any, Any],
    task: Task,
    *,
    rounds: int = 1,
    x0: Any = None,
    seed: int = 0,
    network: Network | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> FederatedState:
    """Return the state after some rounds; `options` are those of `FederatedJob`."""
    job = FederatedJob(
        algorithm,
        ClientObjective(task),
        executor or Serial(),
        task.start(Key(seed)) if x0 is None else x0,
        key=Key(seed),
        network=network or Network(),
        rounds=rounds,
        **options,
    )
    done = run(job)
    if done.error is not None:
        raise done.error
    return done.state


def values(state: FederatedState) -> np.ndarray[Any, Any]:
    """Return F at the start and after every round."""
    return history_of(state)["value"]
