"""What a run is: everything that decides its bytes, and how that is written down and compared."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.arguments import as_key, as_method, as_region, as_space, as_target
from zoo.consensus import sharded
from zoo.core.bounds import Bounds
from zoo.core.constraints import RETURNED, ConstrainedObjective, constrain
from zoo.core.device import Array, Like, to_numpy
from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.modules import files_of
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.space import Space
from zoo.core.state import freeze, thaw
from zoo.core.types import Known
from zoo.core.validation import check_choice, check_count, check_flag
from zoo.execution.executor import Executor
from zoo.registry import find
from zoo.run.directory import dump
from zoo.run.job import SearchJob
from zoo.run.sharded import ShardedSearch
from zoo.told import Told
from zoo.wrappers.constrained import Constrained
from zoo.wrappers.primed import Primed
from zoo.wrappers.reevaluated import Reevaluated

_OPTION = "option:"  # in front of the names of arrays that options hold
_ARGUMENT = {  # of arrays and entries that have another name than what the user gave
    "key": "rng",
    "lower": "bounds",
    "upper": "bounds",
    "known_points": "known",
    "known_values": "known",
    "first": "known",
    "from_best": "x0",
}

# Entries that are told with their values where two runs differ in them.
_SHORT = ("method", "budget", "target", "noise", "vectorized", "on_error", "threads", "dim")


@dataclass(frozen=True, eq=False)
class Experiment:
    """A search, apart from who evaluates it and when it is stopped from outside.

    Attributes:
        method: Name of the method.
        options: Its options.
        objective: What is minimised.
        start: Where it starts, shape (dim,).
        bounds: Box of the candidates, or None.
        scale: How far from the start the first candidates go, shape (dim,).
        space: What rows stand for, or None; `start` and all other points here are rows.
        key: Where all randomness comes from.
        budget: Evaluations there may be, or None.
        target: Value at which the run ends, or None.
        known: Points whose values are known from elsewhere, or None.
        first: Points to be evaluated before the method begins, shape (n, dim), or None.
        from_best: Whether the method is to start at the best of them rather than at `start`.
        noise: Whether equal points may have different values.
        vectorized: Whether a plain function takes many points at once.
        on_error: What an exception of the objective does.
        threads: Threads of numerical libraries.
    """

    method: str
    options: Mapping[str, Any]
    objective: Objective
    start: Array
    bounds: Bounds | None
    scale: np.ndarray[Any, Any]
    space: Space | None
    key: Key
    budget: int | None
    target: float | None
    known: Known | None
    first: np.ndarray[Any, Any] | None
    from_best: bool
    noise: bool
    vectorized: bool
    on_error: str
    threads: int

    @property
    def is_constrained(self) -> bool:
        """Whether evaluations come with constraints."""
        return isinstance(self.objective, ConstrainedObjective)

    def job(self, executor: Executor) -> SearchJob:
        """Return the job that does it.

        Raises:
            ValueError: The executor asks for shards, and the search cannot be put in shards.
        """
        optimizer = find(self.method).build(dict(self.options))
        if executor.sharded:
            sharded.check(optimizer, self.method)
            sharded.check_search(
                is_primed=self.first is not None, is_constrained=self.is_constrained, noise=self.noise
            )
        if self.first is not None:
            optimizer = Primed(optimizer, self.first, self.from_best)
        traits = find(self.method).traits
        if self.is_constrained and not {"objectives", "constraints"} & set(traits):
            optimizer = Constrained(optimizer, "ranks" in traits, self.noise)
        if self.noise:
            optimizer = Reevaluated(optimizer)
        return (ShardedSearch if executor.sharded else SearchJob)(
            optimizer,
            self.objective,
            executor,
            self.start,
            key=self.key,
            bounds=self.bounds,
            scale=self.scale,
            budget=self.budget,
            known=self.known,
            noise=self.noise,
            on_error=self.on_error,
            threads=self.threads,
        )

    def written(self) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Return it as `config.json` and `start.safetensors` hold it; the objective as its identity.

        Raises:
            TypeError: An option is neither number, name, array nor made of those.
        """
        like = Like.of(self.start)
        arrays = {"x0": to_numpy(self.start), "scale": self.scale}
        if self.bounds is not None and self.space is None:
            arrays |= {"lower": self.bounds.lower, "upper": self.bounds.upper}
        if self.known is not None:
            arrays |= {"known_points": self.known.points, "known_values": self.known.values}
        if self.first is not None:
            arrays |= {"first": self.first}
        try:
            options, held = freeze(_without_lists(dict(self.options)))
        except TypeError as error:
            raise TypeError(f"an option cannot be kept in a run directory: {error}") from None
        arrays |= {_OPTION + name: array for name, array in held.items()}
        config = {
            "method": self.method,
            "options": options,
            "objective": self.objective.identity(),
            "space": None if self.space is None else self.space.describe(),
            "key": str(self.key),
            "dim": len(self.start),
            "like": [like.kind, like.dtype, like.device],
            "budget": self.budget,
            "target": self.target,
            "from_best": self.from_best,
            "noise": self.noise,
            "vectorized": self.vectorized,
            "on_error": self.on_error,
            "unit": self.objective.unit,
            "threads": self.threads,
        }
        image: dict[str, Any] = json.loads(dump(config))
        return image, arrays

    @staticmethod
    def read(
        config: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]], objective: Objective
    ) -> Experiment:
        """Return what `written` wrote, with the objective given again."""
        held = {
            name.removeprefix(_OPTION): array for name, array in arrays.items() if name.startswith(_OPTION)
        }
        space = None if config.get("space") is None else Space.read(config["space"])
        box = Bounds(arrays["lower"], arrays["upper"]) if "lower" in arrays else None
        return Experiment(
            method=config["method"],
            options=thaw(config["options"], held),
            objective=objective,
            start=Like(*config["like"]).asarray(arrays["x0"]),
            bounds=box if space is None else space.bounds,
            scale=arrays["scale"],
            space=space,
            key=Key.parse(config["key"]),
            budget=config["budget"],
            target=config["target"],
            known=Known(arrays["known_points"], arrays["known_values"]) if "known_points" in arrays else None,
            first=arrays.get("first"),
            from_best=config["from_best"],
            noise=config["noise"],
            vectorized=config["vectorized"],
            on_error=config["on_error"],
            threads=config["threads"],
        )


def experiment_of(
    objective: Callable[[Space | None, bool], Objective],
    method: Any,
    x0: Any,
    *,
    bounds: Any,
    space: Any,
    constraints: Any,
    known: Any,
    scale: Any,
    budget: Any,
    target: Any,
    rng: Any,
    noise: Any,
    options: Any,
    vectorized: Any = False,
    on_error: Any = "raise",
    threads: int = 1,
    is_endless: bool = False,
) -> Experiment:
    """Return what the arguments of `zoo.minimize` stand for, once they are found to be right.

    Here `objective` makes what is minimised, given the space and whether there are several objectives, and
    without `is_endless` there is a budget in any case.

    Raises:
        TypeError: An argument is of a type that it cannot be.
        ValueError: It has a value that it cannot have.
    """
    space = as_space(space)
    name = as_method(method, options, space)
    region = as_region(x0, bounds, scale, known, space)
    check_flag("vectorized", vectorized)
    check_flag("noise", noise)
    made = objective(space, "objectives" in find(name).traits)
    num_variables = len(region["start"] if space is None else space)
    made = constrain(
        made, constraints, vectorized=vectorized, noise=noise, space=space, num_variables=num_variables
    )
    if isinstance(made, ConstrainedObjective) and region["known"] is not None:
        raise ValueError(
            "`known` must be (points, None) where there are `constraints`: a value says nothing of them, and "
            "the points are to be evaluated first."
        )
    if budget is None and not is_endless:
        budget = 1000 * num_variables
    return Experiment(
        method=name,
        options=dict(options or {}),
        objective=made,
        **region,
        space=space,
        key=as_key(rng),
        budget=None if budget is None else check_count("budget", budget),
        target=None if target is None else as_target(target),
        noise=noise,
        vectorized=vectorized,
        on_error=check_choice("on_error", on_error, ("raise", "nan")),
        threads=threads,
    )


def differences(
    one: tuple[Mapping[str, Any], Mapping[str, np.ndarray[Any, Any]]],
    other: tuple[Mapping[str, Any], Mapping[str, np.ndarray[Any, Any]]],
) -> list[str]:
    """Return what differs between an experiment here and one there as `written`, but for the objectives."""
    configs, arrays = (one[0], other[0]), (one[1], other[1])
    differ = {}
    for name in sorted({*configs[0], *configs[1]} - {"objective"}):
        here, there = configs[0].get(name), configs[1].get(name)
        if here != there:
            is_short = name in _SHORT and name in configs[0] and name in configs[1]
            differ[_ARGUMENT.get(name, name)] = f" ({there!r} there, {here!r} here)" if is_short else ""
    for name in sorted({*arrays[0], *arrays[1]}):
        mine, theirs = arrays[0].get(name), arrays[1].get(name)
        if mine is None or theirs is None or mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
            differ[_ARGUMENT.get(name, name.removeprefix(_OPTION))] = ""
    return [f"{name!r} differs{values}" for name, values in differ.items()]


def named_objective(path: Path, identity: dict[str, Any]) -> Any:
    """Return the objective that a run names.

    Raises:
        RunDirectoryError: It must be given.
    """
    name = identity["name"]
    if name.startswith("command "):
        return shlex.split(name.removeprefix("command "))
    if set(identity) - {"name", "constraints"} or ":" not in name:
        what = "with arguments, which" if "arguments" in identity else "a function that"
        raise RunDirectoryError(
            f"{path} minimises {name!r}, {what} a directory does not hold: give it again, as in "
            f"zoo.resume({str(path)!r}, fun)."
        )
    return name


def named_constraints(path: Path, identity: dict[str, Any]) -> Any:
    """Return the constraints that a run names.

    Raises:
        RunDirectoryError: They must be given.
    """
    if "constraints" not in identity:
        return ()
    for one in identity["constraints"]:
        if set(one) != {"name"}:
            raise RunDirectoryError(
                f"{path} has the constraint {one['name']!r}, which a directory cannot hold: give all "
                f"constraints again, as in zoo.resume({str(path)!r}, fun, constraints=constraints)."
            )
    return [one["name"] for one in identity["constraints"]] or RETURNED


def names_in(identity: Mapping[str, Any]) -> list[str]:
    """Return what of an objective and its constraints is named, as "module:name" among others."""
    return [one["name"] for one in (identity, *identity.get("constraints", ()))]


def compare_modules(path: Path, identity: Mapping[str, Any], before: Mapping[str, str]) -> None:
    """Warn where a module that a run names is not the file that it was when the run began."""
    for module, file in files_of(names_in(identity)).items():
        if module in before and Path(file).resolve() != Path(before[module]).resolve():
            warnings.warn(
                f"{path} was started with the module {module!r} of {before[module]}, and goes on with that "
                f"of {file}: if it computes something else, choose another directory.",
                ZooWarning,
                stacklevel=3,
            )


def check_objective(path: Path, there: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse another objective than the run's, and other constraints.

    Raises:
        RunDirectoryError: It is another one.
    """
    name = given["name"]
    is_told = Told.NAME in (name, there["name"])  # of a session: whatever tells the values
    code_differs = "<lambda>" in name and there.get("code") != given.get("code")
    if not is_told and there["name"] == name and code_differs:
        raise RunDirectoryError(
            f"{path} minimises a {name!r} whose code is not that of `fun`, another objective."
        )
    if not is_told and there["name"] != name:
        raise RunDirectoryError(
            f"{path} minimises {there['name']!r}, and `fun` is {name!r}, another objective."
        )
    if not is_told and there.get("arguments") != given.get("arguments"):
        raise RunDirectoryError(f"{path} minimises {name!r} with other arguments, another objective.")
    before, now = there.get("constraints"), given.get("constraints")
    if before is not None and now is not None and len(before) == len(now):
        before, now = ([_essence(one) for one in constraints] for constraints in (before, now))
    if before != now:
        raise RunDirectoryError(f"{path} minimises {name!r} under other constraints.")


def _essence(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a function from another one for sure: its code may have been edited."""
    ignored = ("attributes",) if "<lambda>" in identity["name"] else ("attributes", "code")
    return {name: value for name, value in identity.items() if name not in ignored}


def compare_objective(path: Path, there: dict[str, Any], given: dict[str, Any], stacklevel: int = 3) -> None:
    """Warn where it, or a constraint, may be another one than the run's."""
    for one, other in zip(there.get("constraints", ()), given.get("constraints", ()), strict=True):
        compare_objective(path, one, other, stacklevel + 1)
    if Told.NAME in (there["name"], given["name"]):
        return
    before, now = there.get("attributes", {}), given.get("attributes", {})
    changed = [f"{key!r}" for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    changed += ["the code"] if there.get("code") != given.get("code") else []
    if changed:
        warnings.warn(
            f"of {given['name']!r}, {' and '.join(changed)} changed since {path} was started: if it computes "
            "something else now, choose another directory.",
            ZooWarning,
            stacklevel=stacklevel,
        )


def _without_lists(value: Any) -> Any:
    """Return lists as tuples, all the way down: JSON does not tell one from the other."""
    if isinstance(value, (list, tuple)):
        return tuple(_without_lists(item) for item in value)
    if isinstance(value, dict):
        return {name: _without_lists(item) for name, item in value.items()}
    return value
