"""A run's result in one line: equal digests mean equal bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from zoo.core.errors import RunDirectoryError
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
    fields: dict[str, Any] = tree["state"]["fields"]
    counters = {"nit": step, "nfev": fields["nfev"] + fields["num_final"], "num_failed": fields["num_failed"]}
    state = digest_of(tree, arrays)
    told = values_by_id(path / "evaluations.bin", fields["nfev"])
    values = hashlib.sha256(told.astype("<f8").tobytes()).hexdigest()
    total = hashlib.sha256(f"{state} {values} {json.dumps(counters, sort_keys=True)}".encode()).hexdigest()
    return Digest(state, values, counters, total)
