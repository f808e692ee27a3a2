"""Federated optimization without gradients: clients that answer values, and a server that never sees them.

Start with `federated.federate`; `federated.resume` goes on with a run, `federated.list_methods` and
`federated.list_tasks` say what there is. It stands on `zoo` and never imports `evolution`.

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federated.algorithm import Answer as Answer
    from federated.algorithm import FederatedAlgorithm as FederatedAlgorithm
    from federated.algorithm import Hidden as Hidden
    from federated.algorithm import Local as Local
    from federated.algorithm import Problem as Problem
    from federated.algorithm import Trip as Trip
    from federated.facade import Federation as Federation
    from federated.facade import Round as Round
    from federated.facade import federate as federate
    from federated.facade import resume as resume
    from federated.messages import Message as Message
    from federated.methods import list_methods as list_methods
    from federated.network import Network as Network
    from federated.task import Task as Task
    from federated.tasks.lookup import list_tasks as list_tasks

_HOMES = {
    "federated.algorithm": ("Answer", "FederatedAlgorithm", "Hidden", "Local", "Problem", "Trip"),
    "federated.facade": ("Federation", "Round", "federate", "resume"),
    "federated.messages": ("Message",),
    "federated.methods": ("list_methods",),
    "federated.network": ("Network",),
    "federated.task": ("Task",),
    "federated.tasks.lookup": ("list_tasks",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
