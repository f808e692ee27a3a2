"""`federate`: from a task to an x that is good for all clients."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from federated.algorithm import FederatedAlgorithm
from federated.job import FederatedState, history_of, history_value
from federated.network import Network
from federated.setting import Setting, check_given, read_given
from federated.task import Task
from zoo.arguments import as_executor
from zoo.core.device import Array
from zoo.core.rng import Key
from zoo.core.validation import check_positive
from zoo.execution.executor import Executor, Mapped
from zoo.kept import STATUS, as_callbacks, directory_of, kept_run, key_of
from zoo.run.directory import RunDirectory
from zoo.run.job import Report
from zoo.run.loop import Run, Stop


class Round(NamedTuple):
    """What a callback is told after each round.

    Attributes:
        round: Rounds so far.
        queries: Queries of all clients so far, hidden ones too.
        up: Bytes that clients have sent so far.
        down: Bytes that the server has sent so far.
        clock: Virtual seconds so far.
        answers: How many clients have answered this round to the end.
        value: F at x, or the mean over the clients that say, NaN if nobody has looked.
        x: Where the server is, shape (dim,); not to be written to.
    """

    round: int
    queries: int
    up: int
    down: int
    clock: float
    answers: int
    value: float
    x: Array


@dataclass(frozen=True, eq=False)
class Federation:
    """What came of a run.

    Attributes:
        x: Where the server is, shape (dim,).
        value: F there; where some clients do not say what x is worth to them, the mean of the others by
            weight.
        best: The least that was after any round, by the looks there were.
        rounds: Rounds done.
        queries: Queries of all clients, hidden ones too.
        hidden: Those that papers leave out of their count.
        gradients: Exact gradients, of methods that go by these.
        up: Bytes that clients have sent.
        down: Bytes that the server has sent.
        clock: Virtual seconds.
        num_failed: Queries that had no finite value.
        faults: Counts by name: "absent" trips to a client; "late", "stale", "duplicates" and "invalid"
            replies; "void" rounds.
        history: By name, one number for the start and after each round: see `federated.job.COLUMNS`, and what
            the task measures beside.
        clients: By name, one number for each client: "queries", "sent" and "received" bytes, "answered"
            rounds, "value", which is f_i(x), and what the task measures beside.
        message: Why it ended.
        success: Whether it ended as it was to, F is known, and any round has done something.
        seconds: Time this process spent on it.
        account: What was tried again or lost; see `zoo.execution.ledger.Account`.
        state: The server's own last state.
    """

    x: Array = field(repr=False)
    value: float
    best: float
    rounds: int
    queries: int
    hidden: int
    gradients: int
    up: int
    down: int
    clock: float
    num_failed: int
    faults: Mapping[str, int]
    history: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    clients: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    message: str
    success: bool
    seconds: float
    account: Mapping[str, Any] = field(repr=False)
    state: Any = field(repr=False)


def federate(
    task: str | Task | Callable[..., Task],
    method: str | FederatedAlgorithm[Any, Any] = "fzoos",
    *,
    options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    task_seed: int | None = None,
    network: Network | Mapping[str, Any] | None = None,
    rounds: int | None = None,
    budget: int | None = None,
    traffic: int | None = None,
    target: float | None = None,
    seconds: float | None = None,
    measure_every: int = 1,
    workers: int | Executor = 1,
    rng: int | np.random.Generator | Key | None = None,
    callback: Any = None,
    on_error: str = "raise",
    out: str | os.PathLike[str] | None = None,
) -> Federation:
    """Have clients minimise the mean of their functions, of which each answers its own values alone.

    The same arguments and the same `rng` give the same bytes, whatever the number of workers, also when
    workers die and when the run is killed and resumed (on one model of processor and one build of the
    numerical libraries). Clients live in up to 16 blocks of fixed membership on the workers, whose states
    stay there. Where a client hangs or ends its worker again and again, those of its block are visited one by
    one, and it alone is left out, for the rest of the run; what it has asked for in that trip is not counted.

    Where a task has finite bounds, methods see it in shares of their width: rates and distances among the
    options are in these. Without bounds, they are in units of x.

    Args:
        task: A name of `federated.list_tasks()`, "module:name" of your own, or a `Task`.
        method: A name of `federated.list_methods()`, "module:name" of your own, or a `FederatedAlgorithm`.
        options: Options of a method that is named.
        task_options: Options of a task that is named, such as {"num_clients": 10}.
        task_seed: Seed of the task's own randomness, such as its data's and its start's; by default it
            follows from `rng`, so that methods are compared on the same task where `rng` is the same.
        network: How clients are reached: who takes part, who vanishes, who is slow; a `Network` or a
            dictionary of its arguments.
        rounds: Rounds at most.
        budget: Queries at most, of all clients together; no round is begun that may exceed it.
        traffic: Bytes, in both directions, after which no further round is begun.
        target: End as soon as F is this or less.
        seconds: End after the first round that is done later than this; a run in a directory can go on.
        measure_every: Rounds from one look at F to the next; 0 for none but at the end. What is looked at
            counts for nothing, and no method sees it.
        workers: Number of processes (-1: one for each core), or an executor such as `zoo.Ray(8)`.
        rng: Seed, generator (one number is drawn from it), `Key`, or None for a fresh seed.
        callback: A function, called with a `Round` after each round, `StopIteration` ending the run; a
            `zoo.Watcher`; or a list of these.
        on_error: What an exception of a client's function does after the first success and one retry: "raise"
            ends the run, with a checkpoint, "nan" makes the query a failed one. What a client raises beside
            it, as it works, ends the run too, or leaves that client out of the trip.
        out: Directory to keep the run in. One that holds this very run is resumed, wherever it was stopped or
            killed; any other is refused.

    Raises:
        TypeError: An argument is of a type that it cannot be.
        ValueError: It has a value that it cannot have, or nothing would ever end the run.
        EvaluationError: A client raised; `error.result` is what was found until then.
        TooManyFailures: More than a fifth of the queries of the last rounds raised, crashed or hung: of as
            many rounds as have a hundred queries, and have asked every client once or so.
        RunDirectoryError: `out` cannot be used.
        Interrupted: SIGINT or SIGTERM; `error.result` is what was found until then.

    Example:
        >>> small = {"dim": 20, "num_clients": 3}
        >>> found = federate("quadratic", "fedzo", task_options=small, rounds=20, rng=0)
        >>> found.value < 0.5, found.rounds
        (True, 20)
    """
    given = check_given(
        seconds,
        task=task,
        task_options=task_options,
        task_seed=task_seed,
        method=method,
        options=options,
        network=network,
        rounds=rounds,
        budget=budget,
        traffic=traffic,
        target=target,
        measure_every=measure_every,
        on_error=on_error,
    )
    return _carried_out(given, key_of(rng, out), workers, seconds, callback, out)


def resume(
    out: str | os.PathLike[str],
    *,
    task: Any = None,
    method: Any = None,
    workers: int | Executor = 1,
    seconds: float | None = None,
    callback: Any = None,
) -> Federation:
    """Go on with a run that was stopped or killed; a finished one just returns its result.

    Args:
        out: The run's directory.
        task: The task, where it was not given by name: functions are never stored.
        method: The method, likewise.
        workers: As in `federate`; it need not be what it was.
        seconds: As in `federate`; it must be given where nothing else is sure to end the run.
        callback: As in `federate`.

    Raises:
        RunDirectoryError: The directory is missing, no run of this kind, in use, or something has to be given
            again.
        ValueError: `seconds` is needed.
        CheckpointError: Its checkpoints are damaged or newer than this version.
    """
    path = Path(out)
    given = read_given(path, {"task": task, "method": method})
    if seconds is None and all(given[name] is None for name in ("rounds", "budget", "traffic")):
        with contextlib.closing(RunDirectory.open(path)) as directory:
            is_over = directory.result.get("status") == STATUS["finished"]
        if not is_over:
            raise ValueError(f"`seconds` must be given: nothing else is sure to end the run in {path}.")
    return _carried_out(given, key_of(None, out), workers, seconds, callback, out)


def _carried_out(
    given: Mapping[str, Any], key: Key, workers: Any, seconds: Any, callback: Any, out: Any
) -> Federation:
    """Do a run, or go on with it."""
    executor = as_executor(workers)
    if isinstance(executor, Mapped):
        raise TypeError(
            f"`workers` must be a number of processes or an executor that can keep clients, got {workers!r}."
        )
    limit = None if seconds is None else check_positive("seconds", seconds)
    callbacks, watchers = as_callbacks(callback)
    setting = Setting.of(given, key)
    config = setting.config(executor.threads)
    if limit is None and setting.may_never_end:
        raise ValueError(
            "`rounds`, `traffic` or `seconds` must be given: rounds of this run may be without a query, so "
            "that `budget` is not sure to end it."
        )
    job = setting.job(executor)
    directory = None
    if out is not None:
        names = [value for value in (given["task"], given["method"]) if isinstance(value, str)]
        code = "the task"
        directory = directory_of(Path(out), config, setting.arrays, executor, names, code)

    def concluded(outcome: Run[FederatedState]) -> tuple[Federation, dict[str, Any]]:
        result = _result(setting, job, outcome)
        return result, _entries(setting, outcome, result)

    return kept_run(
        job,
        directory,
        config,
        executor,
        stop=Stop(given["target"], limit),
        callbacks=[_adapted(setting, one) for one in callbacks],
        watchers=watchers,
        concluded=concluded,
        resumed_by="federated.resume",
    )


_FAULTS = ("absent", "late", "stale", "duplicates", "invalid", "void")


def _result(setting: Setting, job: Any, outcome: Run[FederatedState]) -> Federation:
    state = outcome.state
    measures = setting.task.measures
    columns = {name: getattr(state, name) for name in ("queries", "sent", "received", "answered")}
    looked = dict(zip(("value", *measures), state.looked.T, strict=True))
    ended = outcome.status not in ("interrupted", "failed")
    answered = (state.num_failed < state.nfev or not state.nfev) and not 0 < state.step == state.void
    value = history_value(state) if state.x is None else state.fun
    return Federation(
        x=setting.outward(setting.algorithm.recommend(state.optimizer) if state.x is None else state.x),
        value=value,
        best=state.fun_best if math.isfinite(state.fun_best) else math.nan,
        rounds=state.step,
        queries=state.nfev,
        hidden=state.hidden,
        gradients=state.gradients,
        up=state.up,
        down=state.down,
        clock=state.clock,
        num_failed=state.num_failed,
        faults={name: getattr(state, name) for name in _FAULTS},
        history=history_of(state, measures),
        clients={**columns, **looked},
        message=outcome.reason,
        success=ended and answered and math.isfinite(value),
        seconds=outcome.seconds,
        account=job.account.entries(state.nfev),
        state=state.optimizer,
    )


def _entries(setting: Setting, outcome: Run[FederatedState], result: Federation) -> dict[str, Any]:
    """Return what `result.json` is to hold."""
    return {
        "fun": result.value,
        "fun_best": result.best,
        "nfev": result.queries,
        "nit": result.rounds,
        "hidden": result.hidden,
        "gradients": result.gradients,
        "up": result.up,
        "down": result.down,
        "clock": result.clock,
        **result.faults,
        "num_failed": result.num_failed,
        "said": int(np.isfinite(result.clients["value"]).sum()),
        "clients": {name: column.tolist() for name, column in result.clients.items()},
        "success": result.success,
        "status": STATUS[outcome.status],
        "message": result.message,
        "method": setting.name,
        "account": result.account,
        "seconds": result.seconds,
    }


def _adapted(setting: Setting, callback: Callable[[Round], None]) -> Callable[[Any, Report], None]:
    def call(state: FederatedState, report: Report) -> None:
        del report
        last = {name: column[-1] for name, column in history_of(state, setting.task.measures).items()}
        x = setting.outward(setting.algorithm.recommend(state.optimizer))
        callback(
            Round(
                state.step,
                state.nfev,
                state.up,
                state.down,
                state.clock,
                int(last["answers"]),
                float(last["value"]),
                x,
            )
        )

    return call
