"""Runs that are kept in a directory: what facades of all kinds of them have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zoo.arguments import as_key
from zoo.core.errors import RunDirectoryError
from zoo.core.modules import files_of, own_path
from zoo.core.rng import Key
from zoo.execution.executor import Executor
from zoo.experiment import differences
from zoo.facade import Interrupted
from zoo.run.directory import RunDirectory, holds_run, read_config
from zoo.run.job import Report
from zoo.run.loop import Run, Stop, run
from zoo.run.watching import Watcher

T = TypeVar("T")

STATUS = {"finished": 0, "target": 1, "seconds": 2, "callback": 3, "interrupted": 4, "failed": 5}
"""How a run ended, by `Run.status`, as `result.json` has it."""


def key_of(rng: Any, out: Any) -> Key:
    """Return the key of a run; without a seed, that of the one that is gone on with.

    Args:
        rng: Seed, generator, `Key`, or None.
        out: Directory of the run, or None.
    """
    if rng is None and out is not None and holds_run(Path(out)):
        return Key.parse(read_config(Path(out))[0]["key"])
    return as_key(rng)


def as_callbacks(callback: Any) -> tuple[list[Callable[[Any], None]], list[Watcher]]:
    """Return the functions and the watchers among what was given as `callback`.

    Raises:
        TypeError: Something is neither.
    """
    given = callback if isinstance(callback, (list, tuple)) else () if callback is None else (callback,)
    for one in given:
        if not (callable(one) or isinstance(one, Watcher)):
            raise TypeError(f"`callback` must be a function, a `Watcher` or a list of these, got {one!r}.")
    watchers = [one for one in given if isinstance(one, Watcher)]
    return [one for one in given if not isinstance(one, Watcher)], watchers


_LIMITS = ("rounds", "generations", "budget", "traffic")


def directory_of(
    path: Path,
    config: Mapping[str, Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    executor: Executor,
    names: Iterable[str],
    code: str,
) -> RunDirectory:
    """Return the directory of a run, made now or before.

    Args:
        path: Where it is.
        config: What the run is, as `config.json` is to hold it.
        arrays: What `start.safetensors` is to hold.
        executor: Who evaluates it.
        names: What was given by name, such as "module:function", whose files are looked up.
        code: What has code of its own, for messages.

    Raises:
        RunDirectoryError: It holds something else.
    """
    if not holds_run(path):
        places = {"modules": files_of(list(names)), "path": own_path(), "folder": os.getcwd()}
        return RunDirectory.create(path, config, arrays, {**executor.describe(), **places})
    directory = RunDirectory.open(path)
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)
        if directory.config.get("kind") != config["kind"]:
            raise RunDirectoryError(f"{path} holds a run of another kind; choose another directory.")
        differ = differences((config, arrays), (directory.config, directory.start))
        if directory.config["objective"] != config["objective"]:
            differ = differ or [f"the code of {code} differs"]
        limits = [one for one in differ if one.split("'")[1] in _LIMITS]
        if differ and len(limits) == len(differ):
            raise RunDirectoryError(
                f"{path} holds another run: {', '.join(differ)}. What a run is limited to is part of it, so "
                "none can be lengthened: choose another directory for a longer one."
            )
        if differ:
            raise RunDirectoryError(
                f"{path} holds another run: {', '.join(differ)}. Choose another directory; an existing "
                "run is resumed or refused, never overwritten."
            )
        stack.pop_all()
    return directory


def kept_run(
    job: Any,
    directory: RunDirectory | None,
    config: Mapping[str, Any],
    executor: Executor,
    *,
    stop: Stop,
    callbacks: Sequence[Callable[[Any, Report], None]],
    watchers: Sequence[Watcher],
    concluded: Callable[[Run[Any]], tuple[T, Mapping[str, Any]]],
    resumed_by: str,
) -> T:
    """Drive a job to its end, or go on with it, and return what came of it.

    Args:
        job: A job of a search; it is given the journal, the events and the account of the directory.
        directory: Where the run is kept, or None; it is closed.
        config: What the run is.
        executor: Who evaluates it.
        stop: When it ends before the job does.
        callbacks: As in `zoo.run.loop.run`.
        watchers: Likewise.
        concluded: Returns the result of a run, and what `result.json` is to hold.
        resumed_by: Name of the function that goes on with a run in a directory.

    Raises:
        EvaluationError: As the job does; `error.result` is what came of it until then.
        TooManyFailures: Likewise.
        Interrupted: SIGINT or SIGTERM.
    """
    with contextlib.ExitStack() as stack:
        if directory is not None:
            stack.callback(directory.close)
            job.journal, job.event, job.account = directory.journal, directory.event, directory.account()
        about: dict[str, Any] = (
            {"watchers": watchers, "config": config, "execution": executor.describe()} if watchers else {}
        )
        try:
            outcome = run(job, stop, callbacks, directory, **about)
        except (TypeError, ValueError):  # of what was given, so that there is nothing to go on with
            if directory is not None and directory.is_new and directory.is_untouched:
                directory.discard()
            raise
        result, entries = concluded(outcome)
        if directory is not None and not directory.result:
            directory.finish(entries)
    if outcome.status == "interrupted":
        where = "" if directory is None else f"; {resumed_by}({str(directory.path)!r}) goes on"
        raise Interrupted(outcome.reason + where, result, outcome.signal or 2)
    if outcome.error is not None:
        outcome.error.result = result  # type: ignore[attr-defined]
        raise outcome.error
    return result


def written(value: Any) -> Any:
    """Return an argument as a file may hold it: what is no plain value is only named, as {"given": name}."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [written(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): written(one) for name, one in value.items()}
    return {"given": getattr(value, "__qualname__", type(value).__qualname__)}


def plain(value: Any) -> Any:
    """Return lists as tuples, which is what states hold."""
    if isinstance(value, (list, tuple)):
        return tuple(plain(one) for one in value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value
