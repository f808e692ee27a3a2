"""What a run directory of this package says beyond its logs; nothing in it is changed or locked."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evolution.job import EvolutionState, history_of
from evolution.lineage import Lineage
from zoo.core.errors import CheckpointError, RunDirectoryError
from zoo.core.state import thaw
from zoo.run import checkpoint, journal
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]

_MOST_ENDS = 20_000  # behaviours that are drawn


@dataclass(frozen=True, eq=False)
class Ends:
    """What episodes of generations have come to.

    Attributes:
        behaviours: Shape (n, b), float64.
        generations: Of each, counted from 1, int64, shape (n,).
        scores: Of each, shape (n,).
        count: Of how many they are a selection.
    """

    behaviours: Array
    generations: Array
    scores: Array
    count: int


@dataclass(frozen=True, eq=False)
class Family:
    """Who descends from whom.

    Attributes:
        lineage: The living and their ancestors.
        champion: Its id.
        generations: By row of the table, in which generation it was born, counted from 1; all 0 where that is
            not known.
        scores: The same, its mean return then, NaN where that is not known.
    """

    lineage: Lineage
    champion: int
    generations: Array
    scores: Array

    @property
    def line(self) -> Array:
        """Rows of the table of the champion's ancestors, from the first one to itself."""
        return self.lineage.places(self.lineage.ancestors(self.champion))


def state_of(path: Path) -> EvolutionState | None:
    """Return the state at the newest checkpoint of a run, None where there is none that can be read."""
    from evolution.methods import find
    from zoo.run.directory import read_config

    # States are known once the modules are imported that define them.
    for name in ("evolution.archive", "evolution.episodes", "evolution.es"):
        importlib.import_module(name)
    with contextlib.suppress(CheckpointError, ValueError, ImportError, LookupError, TypeError):
        _ = find(read_config(path)[0]["method"]).factory
        loaded = checkpoint.load(path / "checkpoints")
        if loaded is not None:
            found = thaw(*loaded[1:])
            return found if isinstance(found, EvolutionState) else None
    return None


def ends_of(recording: Recording, state: EvolutionState) -> Ends | None:
    """Return what episodes have come to, evenly chosen where they are many; None where that is unknown."""
    generations = _generations(state)
    stride = max(1, math.ceil(state.nfev / _MOST_ENDS))
    found: list[tuple[Array, Array, Array]] = []
    count = 0
    file = recording.path / "evaluations.bin"
    for record in journal.read(file) if file.exists() else ():
        rows = record.reply.extras.get("behaviour")
        number = generations.get(record.step)
        if rows is None or number is None or record.kind != journal.SEARCH:
            continue
        count += len(rows)
        ids = record.first_id + record.reply.start + np.arange(len(rows))
        chosen = ids % stride == 0
        behaviours = np.asarray(rows, np.float64).reshape(len(rows), -1)[chosen]
        found.append((behaviours, np.full(chosen.sum(), number), -record.reply.values[chosen]))
    if not count or len({part[0].shape[1] for part in found}) != 1:
        return None
    behaviours, born, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    known = np.isfinite(behaviours).all(axis=1)
    return Ends(behaviours[known], born[known], scores[known], count) if known.any() else None


def family_of(recording: Recording, state: EvolutionState) -> Family | None:
    """Return who descends from whom, None for methods without a lineage."""
    own: Any = state.optimizer.method
    lineage, method = getattr(own, "lineage", None), _method(recording.config)
    champion = method.best(own)[0] if hasattr(method, "best") else -1
    if not isinstance(lineage, Lineage) or champion < 0:
        return None
    born = _born(recording, state, lineage)
    if born is None:
        return Family(lineage, champion, np.zeros(len(lineage), np.int64), np.full(len(lineage), np.nan))
    generations, first_rows, times = born
    scores = np.full(len(lineage), np.nan)
    with contextlib.suppress(RunDirectoryError):
        values = journal.values_by_id(recording.path / "evaluations.bin", state.nfev)
        for place, first in enumerate(first_rows.tolist()):
            known = values[first : first + times]
            known = known[np.isfinite(known)]
            scores[place] = -known.mean() if len(known) else np.nan
    return Family(lineage, champion, generations, scores)


def _method(config: Mapping[str, Any]) -> Any:
    """Return the method, which can say of its states who is the champion; it cannot decode anybody."""
    from evolution.methods import find

    return find(config["method"]).build(thaw(config["options"], {}))


def _generations(state: EvolutionState) -> dict[int, int]:
    """Return the number of the generation that a step was, of those that were no re-evaluations."""
    steps = np.flatnonzero(history_of(state)["retrial"] == 0)
    return {int(step): number for number, step in enumerate(steps, 1)}


def _born(recording: Recording, state: EvolutionState, lineage: Lineage) -> tuple[Array, Array, int] | None:
    """Return the generation of each in the table, the number of its first episode, and how many it had.

    In a generation of n, n are born, or n - 1 once there is an elite, which comes first. So what the table
    has counted says since when there is one. None where that does not come out even.
    """
    history = history_of(state)
    is_generation = history["retrial"] == 0
    totals = history["episodes"].astype(np.int64)
    starts = np.concatenate([[0], totals[:-1]])[is_generation]
    sizes = np.diff(np.concatenate([[0], totals]))[is_generation]
    times = int(recording.config.get("episodes") or 1)
    if not len(sizes) or len(set(sizes.tolist())) != 1 or sizes[0] % times:
        return None
    size, count = int(sizes[0]) // times, len(sizes)
    with_elite = count * size - lineage.next_id
    if not 0 <= with_elite < count or size < 2:
        return None
    without, ids = count - with_elite, lineage.ids
    late = ids - without * size
    is_late = late >= 0
    generation = np.where(is_late, without + late // (size - 1), ids // size)
    row = np.where(is_late, 1 + late % (size - 1), ids % size)
    return 1 + generation, starts[generation] + row * times, times
