"""Checkpoints: `checkpoints/step_*/{state.json, arrays.safetensors}`, whole or not there.

A checkpoint is written beside its place and renamed into it, so a kill leaves the one before. Both
files are checked by sha256 on loading; the newest sound one is taken. Nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from zoo.core.errors import CheckpointError, RunDirectoryError, ZooWarning

SCHEMA = 1
KEPT = 2
_NAME = re.compile(r"step_\d+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save(
    directory: Path,
    step: int,
    tree: Any,
    arrays: dict[str, np.ndarray[Any, Any]],
    run: str = "",
    metrics: str = "",
) -> Path:
    """Write a checkpoint of `step` below `directory` and remove all but the newest two.

    Args:
        directory: The run's `checkpoints` directory.
        step: Number of steps done.
        tree: JSON tree of the state, as `zoo.core.state.freeze` returns it.
        arrays: The arrays of the state.
        run: Digest of what the run is, by which `load` knows its own checkpoints.
        metrics: Digest of the metrics of those steps, by which `metrics_of` tells whether they are whole.

    Raises:
        RunDirectoryError: It cannot be written; what was there is there still.
    """
    final = directory / f"step_{step:09d}"
    beside = directory / f".{final.name}.{os.getpid()}"
    data = save_arrays(arrays)
    content = {
        "schema": SCHEMA,
        "run": run,
        "step": step,
        "metrics": metrics,
        "arrays": hashlib.sha256(data).hexdigest(),
        "state": tree,
    }
    text = json.dumps({**content, "sha256": checksum(content)}, allow_nan=False)
    aside = beside.with_name(f"{beside.name}.old")
    with writing(final):
        try:
            beside.mkdir(parents=True)
            write_durably(beside / "arrays.safetensors", data)
            write_durably(beside / "state.json", text.encode())
            if final.exists():
                os.rename(final, aside)
            os.rename(beside, final)
            _sync_directory(directory)
        except OSError:
            if aside.exists() and not final.exists():
                os.rename(aside, final)
            shutil.rmtree(beside, ignore_errors=True)
            raise
    shutil.rmtree(aside, ignore_errors=True)
    for old in _all(directory)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def sweep(directory: Path, newest: int | None) -> None:
    """Remove what kills left unfinished; call what is newer than the checkpoint that was loaded damaged."""
    for stray in directory.glob(".step_*"):
        shutil.rmtree(stray, ignore_errors=True)
    for path in _all(directory):
        if newest is not None and _step(path) > newest:
            shutil.rmtree(path.with_name(f"damaged_{path.name}"), ignore_errors=True)
            with writing(path):
                os.rename(path, path.with_name(f"damaged_{path.name}"))


def load(directory: Path, run: str = "") -> tuple[int, Any, dict[str, np.ndarray[Any, Any]]] | None:
    """Return (step, tree, arrays) of the newest sound checkpoint, or None where there is none at all.

    Nothing is changed, so a run that is under way may be looked at.

    Raises:
        CheckpointError: All are damaged, or the newest belongs to another run or a newer version.
    """
    found, damage = _all(directory), []
    for path in reversed(found):
        try:
            loaded = _load(path, run)
        except _DamagedError as error:
            damage.append(f"{path.name}: {error}")
            continue
        if damage:
            warnings.warn(
                f"a checkpoint in {directory} is damaged ({'; '.join(damage)}); taking the one before.",
                ZooWarning,
                stacklevel=3,
            )
        return loaded
    if found:
        raise CheckpointError(
            f"every checkpoint in {directory} is damaged ({'; '.join(damage)}). Remove that directory and "
            "resume: the run is then replayed from evaluations.bin, and evaluates only what is not there."
        )
    return None


def _all(directory: Path) -> list[Path]:
    """Return the checkpoints there are, the newest last; what else lies there is nobody's business here."""
    return sorted((path for path in directory.glob("step_*") if _NAME.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def metrics_of(directory: Path, step: int) -> str:
    """Return the digest of the metrics that was saved with the checkpoint of a step."""
    digest: str = json.loads((directory / f"step_{step:09d}" / "state.json").read_text())["metrics"]
    return digest


class _DamagedError(Exception):
    """What is wrong with a checkpoint."""


def _load(path: Path, run: str) -> tuple[int, Any, dict[str, np.ndarray[Any, Any]]]:
    try:
        content = json.loads((path / "state.json").read_text())
        data = (path / "arrays.safetensors").read_bytes()
    except OSError as error:
        raise _DamagedError(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"state.json: {error}") from error
    if not isinstance(content, dict):
        raise _DamagedError("state.json holds no object")
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise CheckpointError(
            f"{path} was written by a newer version of gradfree (its format is {schema}, this one reads "
            f"up to {SCHEMA}). Update gradfree to resume it."
        )
    try:
        sound = content.pop("sha256", None) == checksum(content)
    except ValueError as error:
        raise _DamagedError(f"state.json: {error}") from error
    if not sound:
        raise _DamagedError("state.json does not have its checksum")
    if run and content["run"] != run:
        raise CheckpointError(
            f"{path} is a checkpoint of another run: of another method, objective or start."
        )
    if hashlib.sha256(data).hexdigest() != content["arrays"]:
        raise _DamagedError("arrays.safetensors does not have its checksum")
    try:
        arrays = load_arrays(data)
    except SafetensorError as error:
        raise _DamagedError(str(error)) from error
    return content["step"], content["state"], arrays


def checksum(content: dict[str, Any]) -> str:
    """Return the sha256 of what a JSON file holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def write_all(file: int, data: bytes) -> None:
    """Write to a descriptor until nothing is left."""
    while data:
        data = data[os.write(file, data) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, a kill or a full disk leaves the old content or the new."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_durably(beside, data)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Say which file it was that could not be written, and what to do.

    Raises:
        RunDirectoryError: Instead of any `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        remedy = "make room" if error.errno in _FULL else "mend that"
        advice = advice or f"What was evaluated before is on record: {remedy} and resume the run."
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}. {advice}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file it was that could not be read.

    Raises:
        RunDirectoryError: Instead of any `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be read: {error.strerror}. Put it back as it was and resume the run."
        ) from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
