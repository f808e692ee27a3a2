"""What a run directory of this package says of a federation; nothing in it is changed or locked."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federated.job import FederatedState
from zoo.core.errors import CheckpointError
from zoo.core.state import thaw
from zoo.run import checkpoint
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]

FAULTS = {
    "absent": ("Trips without a reply", "trips to a client that nothing came back from"),
    "late": ("Late replies", "replies that were not waited for"),
    "stale": ("Stale replies", "replies to an earlier trip, put away"),
    "duplicates": ("Second replies", "replies that had come before, put away"),
    "invalid": ("Invalid replies", "replies with a number that is not finite, put away"),
    "void": ("Void rounds", "rounds that changed nothing, as too few have answered"),
}
"""Counters of a run by name: what they are called, and what they count."""

CLIENTS = ("queries", "sent", "received", "answered", "value")
"""What `result.json` says of each client, before what the task measures."""

_COUNTED = ("hidden", "up", "down", "clock", "answers", "said")
_LOOKED = ("value", "worst", "spread")


@dataclass(frozen=True, eq=False)
class Course:
    """How a run went.

    Attributes:
        config: What it is.
        columns: By name, an entry for the start and one for each round that is on record: "round", "queries",
            "hidden", "up", "down", "bytes" (both directions), "clock", "answers", "said" (how many clients
            F is over), "value", "worst", "spread", and what the task measures; NaN where it is not known.
        clients: By name, an entry for each client: those of `CLIENTS`, and what the task measures. Empty
            where none of it is on record.
        as_of: The round that `clients` is of.
        final: F at the end, or at the last look as long as there is none; NaN without any.
        seconds: Of work.
        has_ended: Whether its end is on record.
    """

    config: Mapping[str, Any]
    columns: Mapping[str, Array]
    clients: Mapping[str, Array]
    as_of: int
    final: float
    seconds: float
    has_ended: bool

    @property
    def measures(self) -> list[str]:
        """What the task measures beside F."""
        return measures_of(self.config)

    @property
    def own_measures(self) -> list[str]:
        """Those of them that clients differ in."""
        shared = self.config.get("shared_measures") or ()
        return [name for name in self.measures if name not in shared]

    @property
    def optimum(self) -> float | None:
        """The least F there is, where that is known."""
        return optimum_of(self.config)

    @property
    def told(self) -> tuple[int, int]:
        """How many clients F was over at the last look, and how many there are; 0 of 0 where nobody knows."""
        looked = self.columns["said"][np.isfinite(self.columns["said"])]
        value = self.clients.get("value", np.empty(0))
        if not len(value) and not len(looked):
            return 0, 0
        known = int(np.isfinite(value).sum()) if len(value) else int(looked[-1])
        return known, int(self.config.get("num_clients") or 0)

    def last(self, name: str) -> float:
        """Return the last entry of a column, NaN where there is none."""
        column = self.columns[name]
        return float(column[-1]) if len(column) else math.nan


def measures_of(config: Mapping[str, Any]) -> list[str]:
    """Return what a run's task measures beside F."""
    found = config.get("measures")
    return [str(name) for name in found] if isinstance(found, list) else []


def optimum_of(config: Mapping[str, Any]) -> float | None:
    """Return the least F of a run's task, None where it is not known."""
    found = config.get("optimum")
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not math.isfinite(found):
        return None
    return float(found)


def course_of(recording: Recording) -> Course:
    """Return how a run went, as far as it is on record."""
    config, result = recording.config, recording.result or {}
    measures, count = measures_of(config), len(recording.columns.get("step", ()))
    nothing = np.full(count, np.nan)
    columns = {
        "round": recording.columns.get("step", nothing),
        "queries": recording.columns.get("nfev", nothing),
        **{name: recording.columns.get(name, nothing) for name in (*_COUNTED, *_LOOKED, *measures)},
    }
    start = recording.arrays.get("start", [None])[0] if count else None
    if start is not None and len(start) == len(_LOOKED) + len(measures):
        known = dict(zip((*_LOOKED, *measures), start, strict=True))
        columns = {
            name: np.append(known.get(name, math.nan if name in ("answers", "said") else 0.0), column)
            for name, column in columns.items()
        }
    columns["bytes"] = columns["up"] + columns["down"]
    clients, as_of = _clients(recording)
    final = result.get("fun")
    looked = columns["value"][np.isfinite(columns["value"])]
    if final is not None and len(columns["value"]) and not math.isfinite(columns["value"][-1]):
        columns["value"] = np.append(columns["value"][:-1], final)
        at_clients = clients.get("value", nothing)
        at_clients = at_clients[np.isfinite(at_clients)]
        if len(at_clients):
            columns["worst"] = np.append(columns["worst"][:-1], at_clients.max())
            columns["spread"] = np.append(columns["spread"][:-1], at_clients.std())
    return Course(
        config,
        columns,
        clients,
        as_of,
        float(final) if final is not None else float(looked[-1]) if len(looked) else math.nan,
        float(sum(recording.worked)),
        recording.result is not None,
    )


def _clients(recording: Recording) -> tuple[dict[str, Array], int]:
    """Return what there is to say of each client, and as of which round."""
    result, count = recording.result or {}, recording.config.get("num_clients")
    names = (*CLIENTS, *measures_of(recording.config))
    told = result.get("clients")
    if isinstance(told, dict):
        found = {}
        for name in names:
            with contextlib.suppress(TypeError, ValueError):
                found[name] = np.array(told.get(name, ()), float)
        if all(found.get(name, np.empty(0)).shape == (count,) for name in names):
            return found, int(result.get("nit") or 0)
    state = state_of(recording.path, recording.config)
    if state is None or state.looked is None or state.looked.shape != (count, 1 + len(names) - len(CLIENTS)):
        return {}, 0
    counts = {name: np.asarray(getattr(state, name), float) for name in CLIENTS[:-1]}
    return {**counts, **dict(zip(names[len(CLIENTS) - 1 :], state.looked.T, strict=True))}, state.step


def state_of(path: Path, config: Mapping[str, Any]) -> FederatedState | None:
    """Return the state at the newest checkpoint of a run, None where there is none that can be read."""
    from federated.methods import find

    with contextlib.suppress(
        CheckpointError, ValueError, ImportError, LookupError, TypeError, AttributeError
    ):
        if not config.get("method_object"):
            # States are known once the module is imported that defines them.
            importlib.import_module(find(str(config.get("method"))).target.partition(":")[0])
        loaded = checkpoint.load(path / "checkpoints")
        if loaded is not None:
            found = thaw(*loaded[1:])
            return found if isinstance(found, FederatedState) else None
    return None
