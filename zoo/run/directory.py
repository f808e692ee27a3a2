"""The directory of a run: what it was, what it did, and where it is."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import stat
import sys
import time
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from zoo.core.device import is_torch, to_numpy
from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.validation import hint
from zoo.execution.ledger import Account
from zoo.run import checkpoint
from zoo.run.checkpoint import checksum, write_atomically, writing
from zoo.run.journal import Journal
from zoo.run.lock import locked, unlock
from zoo.run.timings import Clock

SCHEMA = 1
_WAITING = 1 << 13  # bytes of a log at most before they are handed to the operating system
_SECONDS = 1.0  # after which they are in any case, with the next line: somebody may look on
# All that lies in a run of which nothing has come; the lock goes last, as what says whose the others are.
_OF_NO_STEP = (
    "config.json",
    "meta.json",
    "start.safetensors",
    "evaluations.bin",
    "events.jsonl",
    "asked.jsonl",
    ".lock",
)
# What a process leaves that is killed while it makes a run, the file last begun perhaps beside its place.
_BEGUN = re.compile(
    r"\.lock|start\.safetensors|meta\.json|\.(start\.safetensors|meta\.json|config\.json)\.\d+"
)
_VERSIONS = ("gradfree", "numpy", "scipy", "torch", "ray", "cma")


class RunDirectory:
    """A run's directory, held by this process.

    `config.json` and `start.safetensors` say what the run is, `meta.json` where it was started,
    `evaluations.bin` what was evaluated (see `zoo.run.journal`), `checkpoints/` how far it came,
    `metrics.jsonl` what each step did (exact: a resumed run writes the same lines), `timings.jsonl`
    when, `events.jsonl` what went wrong, `asked.jsonl` which points of a session are out (see
    `zoo.run.handout`), `result.json` the end.

    Use `create` or `open`; `is_new` tells which it was. One that nobody closes is let go of with the last
    reference to it; what was not flushed by then belongs to steps after the last checkpoint, and comes again.
    """

    def __init__(self, path: Path, wait: float = 0.0) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(unlock, locked(path, wait))
            self.path, self.is_new = path, False
            self.config, self.start = read_config(path)
            self._run = _digest(path)
            self.journal = Journal(path / "evaluations.bin", self._run)
            stack.callback(self.journal.close)
            self._events = _Lines(path / "events.jsonl")
            stack.callback(self._events.close)
            self._logs: dict[str, _Lines] = {}
            self._earlier = 0.0  # seconds of work of the processes before
            self._metrics = ""  # digest of `metrics.jsonl`: of each line, and of all before it
            self._stack = stack.pop_all()
            self._finalizer = weakref.finalize(self, self._stack.close)

    @staticmethod
    def create(
        path: Path,
        config: Mapping[str, Any],
        start: dict[str, np.ndarray[Any, Any]],
        meta: Mapping[str, Any],
        wait: float = 0.0,
    ) -> RunDirectory:
        """Make a new run directory; it must not hold anything yet. `wait` is as in `open`.

        Raises:
            RunDirectoryError: There is something at `path` already that is no run directory, or it
                cannot be written to.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not _may_be_ours({entry.name for entry in path.iterdir()}):
                raise RunDirectoryError(f"{path} exists and is no run directory; nothing in it was touched.")
            lock = locked(path, wait)
            try:
                if (path / "config.json").exists():
                    raise RunDirectoryError(f"{path} was made by another process just now.")
                if any((path / name).exists() for name in ("evaluations.bin", "checkpoints")):
                    # They may be those of another experiment, whose values would pass for this one's.
                    raise RunDirectoryError(
                        f"{path} holds evaluations, but its config.json, which says of what, is missing. "
                        "Put that back, or choose another directory."
                    )
                arrays = save_arrays(start)
                content = json.loads(dump({"schema": SCHEMA, **config, "start": _sha256(arrays)}))
                for name, data in (
                    ("start.safetensors", arrays),
                    ("meta.json", dump({**machine(), **meta})),
                    # Written last: a directory with a configuration is a run.
                    ("config.json", dump({**content, "sha256": checksum(content)})),
                ):
                    with writing(path / name, "Make room, or choose another directory."):
                        write_atomically(path / name, data)
            finally:
                unlock(lock)
        except (FileExistsError, NotADirectoryError):
            raise RunDirectoryError(
                f"{path} cannot be a run directory: there is a file in its place."
            ) from None
        except OSError as error:
            raise RunDirectoryError(
                f"{path} cannot be written: {error.strerror}. Choose another directory."
            ) from error
        made = RunDirectory.open(path, wait)
        made.is_new = True
        return made

    @staticmethod
    def open(path: Path, wait: float = 0.0) -> RunDirectory:
        """Open an existing run.

        Args:
            path: The directory.
            wait: Seconds for which another process may go on holding it.

        Raises:
            RunDirectoryError: It is missing, damaged, newer than this version, or held by another process.
        """
        if not holds_run(path):
            read_config(path)  # says what is wrong, before a lock is left where no run is
        return RunDirectory(path, wait)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has come of this run yet."""
        return not (self.path / "checkpoints").exists() and not self.journal.size

    @property
    def result(self) -> dict[str, Any]:
        """What `result.json` holds, empty where there is none, or it is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            return dict(json.loads((self.path / "result.json").read_text()))
        return {}

    def discard(self) -> None:
        """Remove the directory, in which nothing has happened yet, but for what is not this run's own."""
        self.close()
        with contextlib.suppress(OSError):  # what anybody put there meanwhile stays, and so does a link
            for name in _OF_NO_STEP:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def note_resumption(self) -> None:
        """Put it on record that another process goes on, and warn if the same bytes cannot be promised."""
        now = machine()
        self.event({"event": "resumed", "versions": now["versions"], "processor": now["processor"]})
        self.compare_machine(stacklevel=6)

    def compare_machine(self, stacklevel: int = 4) -> None:
        """Forget the result of the process before, and warn if the same bytes cannot be promised."""
        now = _decisive(machine())
        try:
            before = _decisive(json.loads((self.path / "meta.json").read_text()))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            before = now
        changed = [
            f"{name} {before[name]} then, {value} now" for name, value in now.items() if before[name] != value
        ]
        with writing(self.path / "result.json"):
            (self.path / "result.json").unlink(missing_ok=True)
        if changed:
            warnings.warn(
                f"{self.path} was started elsewhere ({'; '.join(changed)}): it can go on, but the last bits "
                "may not be those of an undisturbed run.",
                ZooWarning,
                stacklevel=stacklevel,
            )

    def restore(self) -> tuple[int, Any, dict[str, np.ndarray[Any, Any]]] | None:
        """Return the newest sound checkpoint, with everything behind it put away."""
        checkpoints = self.path / "checkpoints"
        loaded = checkpoint.load(checkpoints, self._run)
        step = loaded[0] if loaded else 0
        self._compare_journal(loaded[1] if loaded else None)
        checkpoint.sweep(checkpoints, step if loaded else None)
        clock = Clock()
        clock.read(b"".join(_cut(self.path / "timings.jsonl", step)))
        self._earlier = clock.total
        found = functools.reduce(_folded, _cut(self.path / "metrics.jsonl", step), "")
        self._metrics = checkpoint.metrics_of(checkpoints, step) if loaded else ""
        if found != self._metrics:
            warnings.warn(
                f"{self.path / 'metrics.jsonl'} is damaged: it does not hold what the first {step} steps "
                "logged. The search is not concerned. To have it written anew, remove the directory "
                "`checkpoints` and resume: the run is then replayed from evaluations.bin.",
                ZooWarning,
                stacklevel=5,
            )
        self.journal.forget_before(step)
        return loaded

    def _compare_journal(self, tree: Any) -> None:
        """Warn if the journal holds less than the checkpoint, or the logs, were made of."""
        journal, logged, num_evaluations = self.path / "evaluations.bin", self.path / "metrics.jsonl", 0
        with contextlib.suppress(LookupError, TypeError, ValueError):  # of which `Job.restore` will complain
            num_evaluations = int(tree["state"]["fields"]["nfev"])
        if not self.journal.holds(num_evaluations):
            warnings.warn(
                f"{journal} does not hold all that was evaluated before the newest checkpoint. The search is "
                "not concerned. To have it evaluated again, remove the directory `checkpoints` and resume.",
                ZooWarning,
                stacklevel=6,
            )
        elif tree is None and not self.journal.size and logged.exists() and logged.stat().st_size:
            warnings.warn(
                f"{self.path} has neither evaluations nor checkpoints any more: the run begins anew.",
                ZooWarning,
                stacklevel=6,
            )

    def save(self, step: int, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Write a checkpoint, the logs first."""
        self.flush()
        checkpoint.save(self.path / "checkpoints", step, tree, arrays, self._run, self._metrics)

    def flush(self) -> None:
        """Write the lines of the logs that still wait."""
        for log in self._logs.values():
            log.flush()

    def log_step(self, metrics: Mapping[str, Any], seconds: float) -> None:
        """Append a step to `metrics.jsonl` and, by the clock of this process, to `timings.jsonl`."""
        times = {"seconds": round(seconds, 6), "earlier": round(self._earlier, 6)}
        self.log("metrics.jsonl", metrics)
        self.log("timings.jsonl", {"step": metrics["step"], **times})

    def log(self, name: str, entry: Mapping[str, Any]) -> None:
        """Append a line to a log."""
        if name not in self._logs:
            self._logs[name] = _Lines(self.path / name)
            self._stack.callback(self._logs[name].close)
        line = json.dumps(plain(entry), allow_nan=False).encode() + b"\n"
        if name == "metrics.jsonl":
            self._metrics = _folded(self._metrics, line)
        self._logs[name].append(line)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `events.jsonl`, at once."""
        self._events.append(json.dumps({"time": _now(), **plain(entry)}, allow_nan=False).encode() + b"\n")
        self._events.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        with writing(self.path / "result.json"):
            write_atomically(self.path / "result.json", dump(result))

    def account(self) -> Account:
        """Return what faults have cost so far, over all processes, as `events.jsonl` tells it."""
        account = Account()
        for event in read_events(self.path):
            account.retries += event.get("event") == "evaluation raised"
            account.restarts += event.get("event") == "worker restarted"
            account.quarantined += event.get("event") == "quarantined"
            account.lost += event.get("units", 0) if event.get("event") == "worker lost" else 0
        return account

    def close(self) -> None:
        """Let go of the directory."""
        self._finalizer()


class _Lines:
    """A log: lines wait here until the disk has taken them, so that a full one tears and loses none."""

    def __init__(self, path: Path) -> None:
        self._path, self._waiting, self._due = path, bytearray(), 0.0
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._waiting += b"\n"  # the last line is torn: the next one is to stand for itself

    def append(self, line: bytes) -> None:
        self._waiting += line
        if len(self._waiting) > _WAITING or time.monotonic() > self._due:
            self.flush()

    def flush(self) -> None:
        self._due = time.monotonic() + _SECONDS
        with writing(self._path):
            while self._waiting:
                del self._waiting[: os.write(self._file, self._waiting)]

    def close(self) -> None:
        """Close the file; lines that still wait belong to steps after the last checkpoint, and come again."""
        os.close(self._file)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run; damaged lines are left out."""
    events = []
    with contextlib.suppress(OSError):
        for line in (path / "events.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                events.append(dict(json.loads(line)))
    return events


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return the configuration of a run and its arrays (start, bounds, scale).

    Raises:
        RunDirectoryError: There is no run at `path`, it is damaged, or of a newer version.
    """
    if not _is_directory(path):
        raise RunDirectoryError(f"there is no directory {path}.{_nearest(path)}")
    try:
        config = json.loads((path / "config.json").read_text())
        schema, arrays = int(config["schema"]), (path / "start.safetensors").read_bytes()
        if schema <= SCHEMA:
            if config.pop("sha256") != checksum(config) or config.pop("start") != _sha256(arrays):
                raise ValueError("it does not have its checksum")
            del config["schema"]
            start = load_arrays(arrays)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        advice = " Put it back: nothing else says where the run began."
        advice = _inside(path) if name == "config.json" else advice
        raise RunDirectoryError(f"{path} is no run directory: it has no {name}.{advice}") from None
    except Exception as error:
        raise RunDirectoryError(f"{path} is damaged: its configuration cannot be read ({error}).") from error
    if schema > SCHEMA:
        raise RunDirectoryError(
            f"{path} was written by a newer version of gradfree (its format is {schema}, this one reads "
            f"up to {SCHEMA}). Update gradfree to use it."
        )
    return config, start


def read_folder(path: Path) -> Path | None:
    """Return the folder in which a run was started; None if it is not known."""
    try:
        folder = Path(json.loads((path / "meta.json").read_text())["folder"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return folder if folder.is_absolute() else None


def read_modules(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the files of the modules that a run names and `sys.path`, as they were when it was started."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        modules = {str(name): str(file) for name, file in meta["modules"].items() if Path(file).is_absolute()}
        return modules, [str(folder) for folder in meta["path"] if Path(folder).is_absolute()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}, []


def holds_run(path: Path) -> bool:
    """Return whether there is a run in a directory, of whatever kind and in whatever condition.

    Raises:
        RunDirectoryError: There can be none, as of a name that is too long.
    """
    return _is_directory(path) and (path / "config.json").exists()


def _may_be_ours(names: set[str]) -> bool:
    """Return whether a folder that holds these is empty, or a run, whole or in part."""
    if names & {"config.json", "evaluations.bin", "checkpoints"}:
        return ".lock" in names  # `create` refuses it by a reason of its own
    # Written after `start.safetensors`, a `meta.json` without it is somebody else's.
    is_in_order = "meta.json" not in names or "start.safetensors" in names
    return not names or (".lock" in names and is_in_order and all(map(_BEGUN.fullmatch, names)))


def _is_directory(path: Path) -> bool:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            os.stat(path / "config.json")
            return True
    except FileNotFoundError:
        return path.is_dir()
    except NotADirectoryError:
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunDirectoryError(f"{str(path)!r} cannot be a run directory: {reason}.") from None
    raise RunDirectoryError(f"{path} cannot be a run directory: there is a file in its place.")


def _nearest(path: Path) -> str:
    with contextlib.suppress(OSError):
        return hint(path.name, (other.name for other in path.parent.iterdir() if other.is_dir()))
    return ""


def _inside(path: Path) -> str:
    """Say which runs are in a directory, one or two levels down."""
    with contextlib.suppress(OSError):
        found = sorted(one.parent for one in [*path.glob("*/config.json"), *path.glob("*/*/config.json")])
        return f" There are runs in it, such as {found[0]}." if found else ""
    return ""


def _cut(path: Path, step: int) -> list[bytes]:
    """Keep the first `step` whole lines of a log, and return them."""
    if not path.exists():
        return []
    with writing(path), open(path, "r+b") as file:
        lines = [line for line in itertools.islice(file, step) if line.endswith(b"\n")]
        file.truncate(sum(map(len, lines)))
    return lines


def _folded(digest: str, line: bytes) -> str:
    return _sha256(digest.encode() + line)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(path: Path) -> str:
    """Return what tells this run from every other one."""
    return _sha256((path / "config.json").read_bytes() + (path / "start.safetensors").read_bytes())


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def machine() -> dict[str, Any]:
    """Return what the last bits of a run may depend on: versions and processors."""
    processor, torch = "", sys.modules.get("torch")
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        processor = next(
            (line.partition(":")[2].strip() for line in file if line.startswith("model name")), ""
        )
    return {
        "started": _now(),
        "argv": sys.argv,
        "python": platform.python_version(),
        "versions": _versions(),
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
    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) or is_torch(value):
        return plain(to_numpy(value).tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
