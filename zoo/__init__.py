"""Optimization without gradients: any black box, on any number of workers, with the same bytes as result.

Start with `zoo.minimize`. What else there is: `zoo.Session` for a loop of your own, `zoo.resume`,
`zoo.scipy_method`, `zoo.list_methods`, the executors `zoo.Processes` and `zoo.Ray`, `zoo.Part` for what keeps
a state on workers, `zoo.Objective` and `zoo.Command` for objectives that are more than a function,
`zoo.Space` and `zoo.Constraint` for what may be evaluated, `zoo.Key` for randomness, `zoo.FiniteDifference`
and its directions for gradients without derivatives, `zoo.nn` for networks, `zoo.loggers` for TensorBoard and
the like.

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import loggers as loggers
    from zoo import nn as nn
    from zoo.core.bounds import Bounds as Bounds
    from zoo.core.command import Command as Command
    from zoo.core.constraints import Constraint as Constraint
    from zoo.core.errors import CheckpointError as CheckpointError
    from zoo.core.errors import EvaluationError as EvaluationError
    from zoo.core.errors import RunDirectoryError as RunDirectoryError
    from zoo.core.errors import TooManyFailures as TooManyFailures
    from zoo.core.errors import WorkerError as WorkerError
    from zoo.core.errors import ZooError as ZooError
    from zoo.core.errors import ZooWarning as ZooWarning
    from zoo.core.objective import Objective as Objective
    from zoo.core.rng import Key as Key
    from zoo.core.space import Categorical as Categorical
    from zoo.core.space import Float as Float
    from zoo.core.space import Integer as Integer
    from zoo.core.space import Space as Space
    from zoo.core.types import Candidates as Candidates
    from zoo.core.types import Evaluations as Evaluations
    from zoo.core.types import Optimizer as Optimizer
    from zoo.core.types import Rows as Rows
    from zoo.estimators.finite_difference import FiniteDifference as FiniteDifference
    from zoo.execution.executor import Serial as Serial
    from zoo.execution.parts import Part as Part
    from zoo.execution.processes import Processes as Processes
    from zoo.execution.ray import Ray as Ray
    from zoo.facade import Interrupted as Interrupted
    from zoo.facade import minimize as minimize
    from zoo.facade import resume as resume
    from zoo.facade import scipy_method as scipy_method
    from zoo.progress import Progress as Progress
    from zoo.registry import list_methods as list_methods
    from zoo.run.watching import Watcher as Watcher
    from zoo.session import Session as Session
    from zoo.session import Trial as Trial

__version__ = "0.1.0"

_HOMES = {
    "zoo.core.bounds": ("Bounds",),
    "zoo.core.errors": (
        "CheckpointError",
        "EvaluationError",
        "RunDirectoryError",
        "TooManyFailures",
        "WorkerError",
        "ZooError",
        "ZooWarning",
    ),
    "zoo.core.command": ("Command",),
    "zoo.core.constraints": ("Constraint",),
    "zoo.core.objective": ("Objective",),
    "zoo.core.rng": ("Key",),
    "zoo.core.space": ("Categorical", "Float", "Integer", "Space"),
    "zoo.core.types": ("Candidates", "Evaluations", "Optimizer", "Rows"),
    "zoo.estimators.finite_difference": ("FiniteDifference",),
    "zoo.execution.executor": ("Serial",),
    "zoo.execution.parts": ("Part",),
    "zoo.execution.processes": ("Processes",),
    "zoo.execution.ray": ("Ray",),
    "zoo.facade": ("Interrupted", "minimize", "resume", "scipy_method"),
    "zoo.progress": ("Progress",),
    "zoo.registry": ("list_methods",),
    "zoo.run.watching": ("Watcher",),
    "zoo.session": ("Session", "Trial"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in ("loggers", "nn"):
        return importlib.import_module(f"zoo.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
