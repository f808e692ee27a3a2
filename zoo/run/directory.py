"""The directory of a run: what it was, what it did, and where it is."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.run import checkpoint
from zoo.run.checkpoint import write_atomically
from zoo.run.journal import Journal

SCHEMA = 1
_VERSIONS = ("gradfree", "numpy", "scipy", "torch", "ray", "cma")


class RunDirectory:
    """A run's directory, held by this process.

    `config.json` and `start.safetensors` say what the run is, `meta.json` where it was started,
    `evaluations.bin` what was evaluated (see `zoo.run.journal`), `checkpoints/` how far it came,
    `metrics.jsonl` what each step did (exact: a resumed run writes the same lines), `timings.jsonl`
    when, `events.jsonl` what went wrong, `result.json` the end.

    Use `create` or `open`.
    """

    def __init__(self, path: Path, config: dict[str, Any], start: dict[str, np.ndarray[Any, Any]]) -> None:
        self.path, self.config, self.start = path, config, start
        self._lock = _locked(path)
        self.journal = Journal(path / "evaluations.bin")
        self._events = open(path / "events.jsonl", "ab")  # noqa: SIM115 - closed in `close`
        self._logs: dict[str, BinaryIO] = {}

    @staticmethod
    def create(
        path: Path, config: dict[str, Any], start: dict[str, np.ndarray[Any, Any]], meta: dict[str, Any]
    ) -> RunDirectory:
        """Make a new run directory; it must not hold anything yet.

        Raises:
            RunDirectoryError: There is something at `path` already that is no run directory.
            TypeError: The configuration holds something that JSON cannot.
        """
        try:
            content = _dump({"schema": SCHEMA, **config})
        except TypeError as error:
            raise TypeError(
                f"`options` kept in a run directory must be plain numbers and names: {error}."
            ) from None
        if path.exists() and not _is_vacant(path):
            raise RunDirectoryError(f"{path} exists and is no run directory; nothing in it was touched.")
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "start.safetensors", save_arrays(start))
        write_atomically(path / "meta.json", _dump({**machine(), **meta}))
        # Written last: a directory with a configuration is a run.
        write_atomically(path / "config.json", content)
        return RunDirectory(path, config, start)

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            RunDirectoryError: It is missing, damaged, newer than this version, or held by another process.
        """
        config, start = read_config(path)
        return RunDirectory(path, config, start)

    def note_resumption(self) -> None:
        """Put it on record that another process goes on, and warn if the same bytes cannot be promised."""
        before, now = json.loads((self.path / "meta.json").read_text()), machine()
        changed = [
            f"{name} {old} then, {new} now"
            for name, old, new in (
                *(
                    (n, before["versions"].get(n), now["versions"].get(n))
                    for n in ("numpy", "scipy", "torch", "cma")
                ),
                ("processor", before["processor"], now["processor"]),
            )
            if old != new
        ]
        self.event({"event": "resumed", "versions": now["versions"], "processor": now["processor"]})
        if changed:
            warnings.warn(
                f"{self.path} was started elsewhere ({'; '.join(changed)}): it can go on, but the last bits "
                "may not be those of an undisturbed run.",
                ZooWarning,
                stacklevel=4,
            )

    def restore(self) -> tuple[int, Any, dict[str, np.ndarray[Any, Any]]] | None:
        """Return the newest sound checkpoint, with the logs cut back to it."""
        loaded = checkpoint.load(self.path / "checkpoints")
        step = loaded[0] if loaded else 0
        for name in ("metrics.jsonl", "timings.jsonl"):
            _cut(self.path / name, step)
        self.journal.forget_before(step)
        return loaded

    def save(self, step: int, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Write a checkpoint, the logs first."""
        self.flush()
        checkpoint.save(self.path / "checkpoints", step, tree, arrays)

    def log(self, name: str, entry: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl` or `timings.jsonl`."""
        if name not in self._logs:
            self._logs[name] = open(self.path / name, "ab")  # noqa: SIM115 - closed in `close`
        self._logs[name].write(json.dumps(_plain(entry), allow_nan=False).encode() + b"\n")

    def event(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `events.jsonl`, at once."""
        self._events.write(json.dumps({"time": _now(), **_plain(entry)}, allow_nan=False).encode() + b"\n")
        self._events.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        write_atomically(self.path / "result.json", _dump(result))

    def flush(self) -> None:
        """Hand what is logged so far to the operating system."""
        for file in self._logs.values():
            file.flush()

    def close(self) -> None:
        """Let go of the directory."""
        for file in (*self._logs.values(), self._events):
            file.close()
        self.journal.close()
        os.close(self._lock)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return the configuration of a run and its arrays (start, bounds, scale).

    Raises:
        RunDirectoryError: There is no run at `path`, it is damaged, or of a newer version.
    """
    if not path.exists():
        raise RunDirectoryError(f"there is no directory {path}.")
    try:
        config = json.loads((path / "config.json").read_text())
        schema = config.pop("schema")
        start = load_arrays((path / "start.safetensors").read_bytes())
    except FileNotFoundError as error:
        raise RunDirectoryError(
            f"{path} is no run directory: it has no {Path(error.filename).name}."
        ) from None
    except Exception as error:
        raise RunDirectoryError(f"{path} is damaged: its configuration cannot be read ({error}).") from error
    if schema > SCHEMA:
        raise RunDirectoryError(
            f"{path} was written by a newer version of gradfree (its format is {schema}, this one reads "
            f"up to {SCHEMA}). Update gradfree to use it."
        )
    return config, start


def _locked(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # The operating system lets go of it when the process ends, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunDirectoryError(f"{path} is in use by another process.") from None
    return handle


def _cut(path: Path, step: int) -> None:
    """Keep the first `step` whole lines of a log."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        kept = 0
        for _ in range(step):
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            kept += len(line)
        file.truncate(kept)


def _is_vacant(path: Path) -> bool:
    """Whether there is nothing, or only what a process left that was killed while it made the directory."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    return names <= {"start.safetensors", "meta.json"}


def machine() -> dict[str, Any]:
    """Return what the last bits of a run may depend on: versions and processors."""
    versions = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    processor, torch = "", sys.modules.get("torch")
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        processor = next(
            (line.partition(":")[2].strip() for line in file if line.startswith("model name")), ""
        )
    return {
        "started": _now(),
        "argv": sys.argv,
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "processor": processor or platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else None,
    }


def _now() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="milliseconds")


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
