"""The loop: every run of every job goes through here."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from zoo.core.errors import (
    CheckpointError,
    EvaluationError,
    Interrupt,
    RunDirectoryError,
    TooManyFailures,
    WorkerError,
)
from zoo.execution import interrupts
from zoo.run.directory import RunDirectory
from zoo.run.job import Job, Report
from zoo.run.watching import Beginning, Watcher, Watchers

S = TypeVar("S")

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stop:
    """When a run ends before its job does.

    Attributes:
        target: As soon as the job's best value is this or less.
        seconds: At the end of the first step of this process that is done later than this, by its own clock.
    """

    target: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Run(Generic[S]):
    """How a run ended.

    Attributes:
        state: The job's last state.
        reason: Why it ended, as a sentence without its full stop.
        status: "finished" (the job itself), "target", "seconds", "callback", "interrupted" or "failed".
        error: What ended it, for "failed".
        signal: What ended it, for "interrupted".
        seconds: Time this process spent on it.
    """

    state: S
    reason: str
    status: str
    error: Exception | None = None
    signal: int | None = None
    seconds: float = 0.0


def run(
    job: Job[Any],
    stop: Stop | None = None,
    callbacks: Sequence[Callable[[Any, Report], None]] = (),
    out: RunDirectory | None = None,
    watchers: Sequence[Watcher] = (),
    config: Mapping[str, Any] | None = None,
    execution: Mapping[str, Any] | None = None,
) -> Run[Any]:
    """Drive a job to its end.

    With a directory, the job goes on from the newest checkpoint there, a checkpoint is written every ten
    seconds, or as often as the job says, and at the end, and what is evaluated is journalled. A job that is
    at its end there already is not even opened, and nothing is written.
    Signals and errors of the objective end the run, with a checkpoint, and are returned rather than raised.

    Args:
        job: What to run.
        stop: When to end before the job does.
        callbacks: Called after every step with (state, report); one that raises `StopIteration` ends the run.
        out: Where to keep it.
        watchers: Told what happens; see `Watcher`.
        config: What they are told that the run is.
        execution: What they are told of who evaluates it.
    """
    stop, watching = stop or Stop(), Watchers(watchers)
    began = time.monotonic()
    saved = out.restore() if out else None
    state = job.init() if saved is None else restored(job, *saved[1:])
    if saved is not None and (over := _over(job, state, stop)) is not None:
        return Run(state, over[1], over[0])
    if out is not None and not out.is_new:
        out.note_resumption()
    with job.open(), interrupts.handled(), contextlib.ExitStack() as stack:
        saved_at = time.monotonic()
        if watching:
            path = None if out is None else out.path
            not_told = stack.enter_context(contextlib.ExitStack())
            not_told.callback(watching.end, None)
            watching.begin(Beginning(config or {}, execution or {}, job, state, stop, path))
            job.arrived = watching.arrived if watching.counts_arrivals else None
        if out and not saved:
            out.save(state.step, *job.snapshot(state))
        error: Exception | None = None
        try:
            due = Stop(stop.target)  # however late it is: workers may take longer to start than there is time
            while (end := ended(job, state, due, began)) is None:
                state, report = job.step(state)
                due = stop
                metrics = job.metrics(state, report) if out is not None or watching else {}
                if out is not None:
                    out.log_step(metrics, time.monotonic() - began)
                    if time.monotonic() - saved_at > min(CHECKPOINT_SECONDS, job.checkpoint_seconds):
                        out.save(state.step, *job.snapshot(state))
                        saved_at = time.monotonic()
                if watching:
                    watching.step(state, metrics)
                if (end := _called(callbacks, state, report)) is not None:
                    break
                interrupts.check()
            status, reason = end
            # What is reported of a run cut short is no part of the search: it goes on from where it was.
            resumable = state
            if status == "finished":
                state = resumable = job.finish(state)
            elif status != "target":
                state = job.cut_short(state)
        except Interrupt:
            status, resumable = "interrupted", state
            reason = "stopped by Ctrl-C" if interrupts.requested() == signal.SIGINT else "stopped by SIGTERM"
        except (EvaluationError, TooManyFailures) as caught:
            resumable = state
            status, reason, error = "failed", str(caught), caught
        except BaseException:
            if out is not None:
                with contextlib.suppress(RunDirectoryError, WorkerError):  # the first error is to be told
                    out.save(state.step, *job.snapshot(state))
            raise
        if out is not None:
            out.save(resumable.step, *job.snapshot(resumable))
            account = job.account.entries(state.nfev + state.num_final)
            out.event({"event": "ended", "status": status, "reason": reason, "account": account})
        outcome = Run(state, reason, status, error, interrupts.requested(), time.monotonic() - began)
        if watching:
            not_told.pop_all()
            watching.end(outcome)
        return outcome


def restored(job: Job[Any], tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Return the state that a checkpoint holds.

    Raises:
        CheckpointError: It was written by another version.
    """
    try:
        return job.restore(tree, arrays)
    except Exception as error:  # whatever it is that a file of another version, or of an enemy, holds
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"this version cannot read the newest checkpoint: {reason}") from error


def ended(job: Job[Any], state: Any, stop: Stop, began: float) -> tuple[str, str] | None:
    """Return whether and why a run is at its end, as (status, reason)."""
    if stop.target is not None and state.violation_best <= 0 and state.fun_best <= stop.target:
        return "target", f"the target {stop.target:g} is reached"
    reason = job.finished(state)
    if reason is not None:
        return "finished", reason
    if stop.seconds is not None and time.monotonic() - began > stop.seconds:
        return "seconds", f"the {stop.seconds:g} seconds are over"
    return None


def _over(job: Job[Any], state: Any, stop: Stop) -> tuple[str, str] | None:
    """Return why nothing is left to be done, not even a last evaluation, as (status, reason)."""
    if state.x is not None:
        return "finished", job.finished(state) or "the run is finished"
    end = ended(job, state, Stop(stop.target), 0.0)
    return end if end is not None and end[0] == "target" else None


def _called(
    callbacks: Sequence[Callable[[Any, Report], None]], state: Any, report: Report
) -> tuple[str, str] | None:
    try:
        for callback in callbacks:
            callback(state, report)
    except StopIteration:
        return "callback", "the callback asked to stop"
    return None
