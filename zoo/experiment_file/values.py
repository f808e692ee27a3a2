"""From the tables of an experiment file to arguments of `zoo.minimize`."""

from __future__ import annotations

import os
from typing import Any

import zoo.core.space as spaces
from zoo.execution.executor import Executor
from zoo.experiment_file.tables import Float, Integer, Objective, Variable, Workers, spread

_SETTINGS = ("gpus_per_worker", "timeout", "max_attempts", "threads", "replicated", "sharded")


def variable(said: Variable) -> spaces.Variable:
    """Return a variable of a space.

    Raises:
        TypeError: See `zoo.Float`, `zoo.Integer` and `zoo.Categorical`.
        ValueError: See there.
    """
    if isinstance(said, Float):
        return spaces.Float(said.lower, said.upper, said.log)
    if isinstance(said, Integer):
        return spaces.Integer(said.lower, said.upper, said.log)
    return spaces.Categorical(said.choices, said.ordered)


def space(said: Objective) -> spaces.Space | None:
    """Return the space, or None where there is none."""
    if said.space is None:
        return None
    return spaces.Space({name: variable(table) for name, table in said.space.items()})


def region(said: Objective, space: spaces.Space | None) -> dict[str, Any]:
    """Return the arguments that say where is searched."""
    x0, bounds, known = spread(said.x0), said.bounds, said.known
    if bounds is not None and not isinstance(bounds[0], list):
        bounds = [bounds] * _dim(x0, None if known is None else known.points)
    return {
        "x0": x0,
        "bounds": bounds,
        "scale": said.scale,
        "known": None if known is None else (known.points, known.values),
        "space": space,
    }


def _dim(x0: Any, points: Any) -> int:
    """Return the number of variables of a start or of known points."""
    for row in (x0, None if points is None else points[0]):
        if isinstance(row, list):
            return len(row)
    raise ValueError(
        "`bounds` must have a pair for each variable where there is no `x0`: one pair does not say how many "
        "there are."
    )


def settings(said: Workers) -> list[str]:
    """Return the keys that ask for something that only workers can do."""
    fields = type(said).model_fields
    known = [key for key in (*_SETTINGS, "address") if key in fields]
    return [key for key in known if getattr(said, key) != fields[key].default]


def backend(said: Workers) -> str:
    """Return who evaluates, chosen by what else is said where nobody says it."""
    if said.backend is not None:
        return said.backend
    return "serial" if said.workers == 1 and not settings(said) else "processes"


def executor(said: Workers) -> int | Executor:
    """Return who evaluates, as `zoo.minimize` takes it.

    Raises:
        ModuleNotFoundError: It is to be Ray, which is not installed.
        ValueError: A setting has a value that it cannot have.
    """
    chosen = backend(said)
    if chosen == "serial":
        return 1
    asked = {key: getattr(said, key) for key in _SETTINGS if key in type(said).model_fields}
    number = (os.cpu_count() or 1) if said.workers == -1 else said.workers
    if chosen == "ray":
        from zoo.execution.ray import Ray

        return Ray(number, address=said.address, **asked)
    from zoo.execution.processes import Processes

    return Processes(number, **asked)
