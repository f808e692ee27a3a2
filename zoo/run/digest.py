"""A run's result in one line: equal digests mean equal bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from zoo.core.errors import CheckpointError, RunDirectoryError
from zoo.core.state import digest_of
from zoo.run import checkpoint
from zoo.run.directory import read_config
from zoo.run.journal import values_by_id


class Digest(NamedTuple):
    """Sha256 digests of a run at its newest checkpoint.

    Attributes:
        state: Of the whole state.
        values: Of the values of all evaluations told, in the order of their ids.
        counters: Steps, evaluations told and failed.
        total: Of the three.
    """

    state: str
    values: str
    counters: dict[str, int]
    total: str


def digest_of_run(path: Path) -> Digest:
    """Return the digests of the run in a directory.

    Nothing that depends on workers, faults or time goes into them.

    Raises:
        RunDirectoryError: There is no run, or nothing of it was saved.
    """
    read_config(path)
    loaded = checkpoint.load(path / "checkpoints")
    if loaded is None:
        raise RunDirectoryError(f"{path} holds no checkpoint yet.")
    step, tree, arrays = loaded
    try:
        fields: dict[str, Any] = tree["state"]["fields"]
        nfev, num_final, num_failed = (int(fields[name]) for name in ("nfev", "num_final", "num_failed"))
    except (LookupError, TypeError, ValueError):
        raise CheckpointError(f"the newest checkpoint in {path} is not that of a search.") from None
    counters = {"nit": step, "nfev": nfev + num_final, "num_failed": num_failed}
    state = digest_of(tree, arrays)
    told = values_by_id(path / "evaluations.bin", nfev)
    values = hashlib.sha256(told.astype("<f8").tobytes()).hexdigest()
    total = hashlib.sha256(f"{state} {values} {json.dumps(counters, sort_keys=True)}".encode()).hexdigest()
    return Digest(state, values, counters, total)
