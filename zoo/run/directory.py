"""The directory of a run: what it was, what it did, and where it is."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
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
from zoo.execution.ledger import Account
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

    def __init__(self, path: Path) -> None:
        with contextlib.ExitStack() as stack:
            self._lock = _locked(path)
            stack.callback(os.close, self._lock)
            self.path = path
            self.config, self.start = read_config(path)
            self._run = _digest(path)
            self.journal = Journal(path / "evaluations.bin")
            stack.callback(self.journal.close)
            self._events = stack.enter_context(open(path / "events.jsonl", "ab"))
            self._logs: dict[str, BinaryIO] = {}
            self._stack = stack.pop_all()

    @staticmethod
    def create(
        path: Path, config: Mapping[str, Any], start: dict[str, np.ndarray[Any, Any]], meta: Mapping[str, Any]
    ) -> RunDirectory:
        """Make a new run directory; it must not hold anything yet.

        Raises:
            RunDirectoryError: There is something at `path` already that is no run directory, or it
                cannot be written to.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / ".lock").exists():
                raise RunDirectoryError(f"{path} exists and is no run directory; nothing in it was touched.")
            lock = _locked(path)
            try:
                if (path / "config.json").exists():
                    raise RunDirectoryError(f"{path} was made by another process just now.")
                write_atomically(path / "start.safetensors", save_arrays(start))
                write_atomically(path / "meta.json", dump({**machine(), **meta}))
                # Written last: a directory with a configuration is a run.
                write_atomically(path / "config.json", dump({"schema": SCHEMA, **config}))
            finally:
                os.close(lock)
        except (FileExistsError, NotADirectoryError):
            raise RunDirectoryError(
                f"{path} cannot be a run directory: there is a file in its place."
            ) from None
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be written: {error.strerror}.") from error
        return RunDirectory.open(path)

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            RunDirectoryError: It is missing, damaged, newer than this version, or held by another process.
        """
        if not (path / "config.json").exists():
            read_config(path)  # says what is wrong, before a lock is left where no run is
        return RunDirectory(path)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has come of this run yet."""
        return not (self.path / "checkpoints").exists() and not self.journal.size

    def discard(self) -> None:
        """Remove the directory, in which nothing has happened yet."""
        self.close()
        shutil.rmtree(self.path)

    def note_resumption(self) -> None:
        """Put it on record that another process goes on, and warn if the same bytes cannot be promised."""
        now = machine()
        try:
            before = _decisive(json.loads((self.path / "meta.json").read_text()))
        except (OSError, ValueError, LookupError, TypeError):
            before = _decisive(now)
        changed = [
            f"{name} {before[name]} then, {value} now"
            for name, value in _decisive(now).items()
            if before[name] != value
        ]
        self.event({"event": "resumed", "versions": now["versions"], "processor": now["processor"]})
        (self.path / "result.json").unlink(missing_ok=True)  # of the process before
        if changed:
            warnings.warn(
                f"{self.path} was started elsewhere ({'; '.join(changed)}): it can go on, but the last bits "
                "may not be those of an undisturbed run.",
                ZooWarning,
                stacklevel=4,
            )

    def restore(self) -> tuple[int, Any, dict[str, np.ndarray[Any, Any]]] | None:
        """Return the newest sound checkpoint, with everything behind it put away."""
        checkpoints = self.path / "checkpoints"
        loaded = checkpoint.load(checkpoints, self._run)
        step = loaded[0] if loaded else 0
        checkpoint.sweep(checkpoints, step if loaded else None)
        for name in ("metrics.jsonl", "timings.jsonl"):
            _cut(self.path / name, step)
        self.journal.forget_before(step)
        return loaded

    def save(self, step: int, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Write a checkpoint, the logs first."""
        self.flush()
        checkpoint.save(self.path / "checkpoints", step, tree, arrays, self._run)

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
        write_atomically(self.path / "result.json", dump(result))

    def account(self) -> Account:
        """Return what faults have cost so far, over all processes, as `events.jsonl` tells it."""
        account = Account()
        for event in read_events(self.path):
            account.retries += event.get("event") == "evaluation raised"
            account.restarts += event.get("event") == "worker restarted"
            account.lost += event["units"] if event.get("event") == "worker lost" else 0
        return account

    def flush(self) -> None:
        """Hand what is logged so far to the operating system."""
        for file in self._logs.values():
            file.flush()

    def close(self) -> None:
        """Let go of the directory."""
        for file in self._logs.values():
            file.close()
        self._stack.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run; a torn last line is left out."""
    events = []
    with contextlib.suppress(OSError):
        for line in (path / "events.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return events


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return the configuration of a run and its arrays (start, bounds, scale).

    Raises:
        RunDirectoryError: There is no run at `path`, it is damaged, or of a newer version.
    """
    if not path.is_dir():
        raise RunDirectoryError(f"there is no directory {path}.")
    try:
        config = json.loads((path / "config.json").read_text())
        schema, _ = int(config.pop("schema")), config["objective"]["name"]
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
    try:
        handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}.") from error
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


def _digest(path: Path) -> str:
    """Return what tells this run from every other one."""
    content = (path / "config.json").read_bytes() + (path / "start.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()


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


def _decisive(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `machine` may change bytes or candidates; Ray carries values and computes none."""
    versions = {name: machine["versions"].get(name) for name in _VERSIONS if name != "ray"}
    return {**versions, "processor": machine["processor"]}


def _now() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="milliseconds")


def dump(content: Mapping[str, Any]) -> bytes:
    """Return what a JSON file is to hold."""
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
