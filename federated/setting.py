"""What a run is: its arguments, what they stand for, and how they are written down."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federated.algorithm import FederatedAlgorithm
from federated.boxed import Boxed, boxed
from federated.checks import check_trips
from federated.job import FederatedJob
from federated.methods import find
from federated.network import Network
from federated.objective import ClientObjective
from federated.task import Task
from federated.tasks.lookup import as_task
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, is_torch, to_numpy
from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key
from zoo.core.state import freeze, thaw
from zoo.core.validation import check_choice, check_count, check_known, check_number, check_positive
from zoo.execution.executor import Executor
from zoo.kept import plain, written
from zoo.run.directory import dump, read_config

KIND = "federated"
"""What `config.json` says that the run is."""

_GIVEN = (
    "task",
    "task_options",
    "task_seed",
    "method",
    "options",
    "network",
    "rounds",
    "budget",
    "traffic",
    "target",
    "measure_every",
    "on_error",
)


@dataclass(frozen=True, eq=False)
class Setting:
    """A run, apart from who does it: its arguments, and what they stand for.

    Attributes:
        given: Arguments of `federate`, checked.
        key: Where all randomness comes from.
        task: What clients have.
        algorithm: What they do.
        network: How they are reached.
        x0: Where they begin.
    """

    given: Mapping[str, Any]
    key: Key
    task: Task
    algorithm: FederatedAlgorithm[Any, Any]
    network: Network
    x0: Array

    @staticmethod
    def of(given: Mapping[str, Any], key: Key) -> Setting:
        """Return what arguments stand for.

        Raises:
            TypeError: One is of a type that it cannot be.
            ValueError: It has a value that it cannot have, or they do not go together.
        """
        method = given["method"]
        known = isinstance(method, FederatedAlgorithm)
        if known and given["options"]:
            raise TypeError("`options` must be left out where `method` is an algorithm already.")
        if not known and not isinstance(method, str):
            instead = ""
            if isinstance(method, type) and issubclass(method, FederatedAlgorithm):
                instead = f" Call it: {method.__name__}()."
            elif isinstance(method, (list, tuple)):
                instead = " Several are compared by `federated.contest`."
            raise TypeError(f"`method` must be a name or a FederatedAlgorithm, got {method!r}.{instead}")
        algorithm = method if known else find(method).build(given["options"])
        check_trips(algorithm)
        task = task_of(given, key)
        _check_task(task)
        network = Network(**given["network"])
        network.check(task.num_clients)
        if algorithm.needs_gradient and not task.has_gradient:
            raise ValueError(
                f"`method` must do without exact gradients, which this task does not have, got {method!r}."
            )
        start = _start(task, _task_key(given, key).fold("start"))
        return Setting(given, key, task, algorithm, network, start)

    @property
    def name(self) -> str:
        """What the method is called."""
        method = self.given["method"]
        return method if isinstance(method, str) else type(method).__name__.lower()

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """What `start.safetensors` is to hold."""
        return {"x0": to_numpy(self.x0)}

    @property
    def may_never_end(self) -> bool:
        """Whether only a budget of queries is to end the run, and rounds need not take any."""
        if self.given["rounds"] is not None or self.given["traffic"] is not None:
            return False
        return self.network.dropout == 1 or not self.algorithm.most_queries(self.task.dim, True)

    def config(self, threads: int) -> dict[str, Any]:
        """Return what `config.json` is to hold."""
        like = Like.of(self.x0)
        given = {name: written(self.given[name]) for name in _GIVEN}
        method = self.given["method"]
        options = dict(self.given["options"])
        if not isinstance(method, str):
            options = {
                field.name: written(getattr(method, field.name))
                for field in dataclasses.fields(method)
                if field.init
            }
        config = {
            "kind": KIND,
            **given,
            "method": self.name,
            "method_object": not isinstance(method, str),
            "options": freeze(plain(options))[0],
            "task_options": freeze(plain(written(self.given["task_options"])))[0],
            "objective": ClientObjective(self.task).identity(),
            "num_clients": self.task.num_clients,
            "measures": list(self.task.measures),
            "shared_measures": list(self.task.shared_measures),
            "optimum": self.task.optimum,
            "key": str(self.key),
            "dim": self.task.dim,
            "like": [like.kind, like.dtype, like.device],
            "noise": False,  # of what is on record: `measure` answers without any
            "threads": threads,
        }
        image: dict[str, Any] = json.loads(dump(config))
        return image

    def outward(self, x: Array) -> Array:
        """Return the task's own x of one that the method has."""
        task = boxed(self.task)
        return task.outward(x) if isinstance(task, Boxed) else x

    def job(self, executor: Executor) -> FederatedJob:
        """Return the job that does it.

        Raises:
            ValueError: The budget is none for a single round.
        """
        given, task = self.given, boxed(self.task)
        job = FederatedJob(
            self.algorithm,
            ClientObjective(task),
            executor,
            task.inward(self.x0) if isinstance(task, Boxed) else self.x0,
            key=self.key,
            network=self.network,
            rounds=given["rounds"],
            budget=given["budget"],
            traffic=given["traffic"],
            measure_every=given["measure_every"],
            on_error=given["on_error"],
            threads=executor.threads,
        )
        if given["budget"] is not None and (reason := job.finished(job.init())) is not None:
            raise ValueError(f"`budget` must allow for a round: {reason}.")
        return job


def task_of(given: Mapping[str, Any], key: Key) -> Task:
    """Return the task that arguments stand for, of a run with this key.

    Raises:
        TypeError: One of them is of a type that it cannot be.
        ValueError: It has a value that it cannot have.
    """
    return as_task(given["task"], given["task_options"], key=_task_key(given, key).fold("task"))


def _check_task(task: Task) -> None:
    """Look at what a task says of itself.

    Raises:
        TypeError: It lacks something, or that is of a type that it cannot be.
        ValueError: It has a value that it cannot have.
    """
    for name in ("num_clients", "dim"):
        if not hasattr(task, name):
            raise TypeError(f"{type(task).__name__} must have an attribute `{name}`, an integer above 0.")
        check_count(name, getattr(task, name))
    check_positive("spacing", task.spacing)
    if task.unit is not None:
        check_count("unit", task.unit)
    names = task.measures
    if not isinstance(names, tuple) or not all(isinstance(one, str) for one in names) or "value" in names:
        raise TypeError(
            '`measures` of the task must be a tuple of the names beside "value", such as ("accuracy",), got '
            f"{names!r}."
        )


def _task_key(given: Mapping[str, Any], key: Key) -> Key:
    seed = given["task_seed"]
    return key if seed is None else Key(seed)


def _start(task: Task, key: Key) -> Array:
    """Return where a task begins.

    Raises:
        TypeError: It is no array of floating-point numbers, or the bounds are none.
        ValueError: It has another shape, is not finite, or not inside the bounds.
    """
    x0, bounds = task.start(key), task.bounds
    if not (isinstance(x0, np.ndarray) or is_torch(x0)) or "float" not in Like.of(x0).dtype:
        raise TypeError(
            f"`start` of the task must return an array or a tensor of floating-point numbers, got {x0!r}."
        )
    if tuple(x0.shape) != (task.dim,):
        raise ValueError(
            f"`start` of the task must return shape ({task.dim},), its `dim`, got {tuple(x0.shape)}."
        )
    if not np.isfinite(to_numpy(x0)).all():
        raise ValueError(f"`start` of the task must return finite numbers, got {x0!r}.")
    if bounds is None:
        return x0
    if not isinstance(bounds, Bounds):
        raise TypeError(f"`bounds` of the task must be Bounds or None, got {bounds!r}.")
    if bounds.dim != task.dim:
        raise ValueError(
            f"`bounds` of the task must have {task.dim} coordinates, its `dim`, got {bounds.dim}."
        )
    if not bounds.contains(x0):
        raise ValueError(f"`start` of the task must return a point inside its bounds, got {x0!r}.")
    return x0


def check_given(seconds: Any, **given: Any) -> dict[str, Any]:
    """Return the arguments of a run, each of which is right by itself.

    Args:
        seconds: Limit of its time, which is none of its own.
        **given: The arguments of `federate` that say what the run is, all of them.

    Raises:
        TypeError: One is of a type that it cannot be.
        ValueError: It has a value that it cannot have, or nothing would ever end the run.
    """
    limits = {name: given[name] for name in ("rounds", "budget", "traffic")}
    if all(limit is None for limit in (*limits.values(), seconds)):
        raise ValueError(
            "`rounds`, `budget`, `traffic` or `seconds` must be given: nothing else is sure to end a run."
        )
    seed, target = given["task_seed"], given["target"]
    if target is not None and math.isnan(check_number("target", target)):
        raise ValueError("`target` must be a number that can be reached, got nan.")
    if target is not None and given["measure_every"] == 0:
        raise ValueError("`measure_every` must be at least 1 where there is a `target`, got 0.")
    for name in ("options", "task_options"):
        if given[name] is not None and not isinstance(given[name], Mapping):
            raise TypeError(f"`{name}` must be a dictionary of options by name, got {given[name]!r}.")
        _check_keys(name, given[name])
    return {
        **given,
        "task_options": dict(given["task_options"] or {}),
        "task_seed": None if seed is None else check_count("task_seed", seed, minimum=0),
        "options": dict(given["options"] or {}),
        "network": check_network(given["network"]),
        **{name: None if limit is None else check_count(name, limit) for name, limit in limits.items()},
        "target": None if target is None else check_number("target", target),
        "measure_every": check_count("measure_every", given["measure_every"], minimum=0),
        "on_error": check_choice("on_error", given["on_error"], ("raise", "nan")),
    }


def _check_keys(name: str, value: Any) -> None:
    """Raise `TypeError` where `config.json` would give other keys back than it is given."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"`{name}` must have strings as keys, also within, got {key!r}.")
    inner = value.values() if isinstance(value, Mapping) else value
    for one in inner if isinstance(value, (Mapping, list, tuple)) else ():
        _check_keys(name, one)


def check_network(given: Mapping[str, Any] | Network | None) -> dict[str, Any]:
    """Return the arguments of a `Network`.

    Raises:
        TypeError: It is neither that nor a dictionary of them, or one of them is unknown.
        ValueError: One has a value that it cannot have.
    """
    if isinstance(given, Network):
        return dataclasses.asdict(given)
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"`network` must be a Network or a dictionary of its arguments, got {given!r}.")
    arguments = dict(given or {})
    check_known("argument of `network`:", arguments, [field.name for field in dataclasses.fields(Network)])
    return dataclasses.asdict(Network(**arguments))


def read_given(path: Path, again: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments that a run was started with.

    Args:
        path: Its directory.
        again: What is given again, by name; None for what is not.

    Raises:
        RunDirectoryError: There is no run of this kind, or something has to be given again.
    """
    config, _ = read_config(path)
    if config.get("kind") != KIND:
        raise RunDirectoryError(f"{path} holds a run of another kind; zoo.resume goes on with it.")
    given = {name: config[name] for name in _GIVEN}
    for name in ("options", "task_options"):
        given[name] = thaw(config[name], {})
    given["network"] = {**config["network"], "slow": tuple(map(tuple, config["network"]["slow"]))}
    again = again or {}
    for name in ("task", "method"):
        if again.get(name) is not None:
            given[name] = again[name]
            if isinstance(again[name], (FederatedAlgorithm, Task)):  # options are in it
                given["options" if name == "method" else "task_options"] = {}
        elif isinstance(given[name], dict) or (name == "method" and config["method_object"]):
            raise RunDirectoryError(
                f"{path} was started with an object as `{name}`, which a directory does not hold: give it "
                f"again, as in federated.resume({str(path)!r}, {name}=...)."
            )
    return given
