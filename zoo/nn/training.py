"""Networks trained on any number of workers: `train`, and what comes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from zoo.arguments import as_executor
from zoo.core.device import Array, Like, to_numpy
from zoo.core.errors import EvaluationError, RunDirectoryError, ZooWarning
from zoo.core.fingerprint import describe, digest
from zoo.core.rng import Key
from zoo.core.types import Optimizer
from zoo.core.validation import check_choice, check_count, check_positive, hint
from zoo.execution.executor import Executor
from zoo.experiment import differences
from zoo.facade import Interrupted
from zoo.kept import STATUS, as_callbacks, key_of
from zoo.nn.batches import Augment, Batches, check_examples
from zoo.nn.changes import Changes
from zoo.nn.deepzero import DeepZero
from zoo.nn.evaluate import accuracy
from zoo.nn.losses import Loss
from zoo.nn.masks import Layers
from zoo.nn.network_loss import BatchSource, NetworkLoss
from zoo.nn.training_job import (
    COLUMNS,
    Test,
    TrainingJob,
    TrainingState,
    history_of,
    judged,
    number_of,
    settle,
)
from zoo.registry import Method, find
from zoo.run.directory import RunDirectory, dump, holds_run
from zoo.run.job import Report
from zoo.run.loop import Run, Stop, run

_TESTS = 10  # in a run whose epochs nobody knows
_BATCH = 128  # examples, where nobody says how many
_TRIED = 2  # examples that a test is tried on
# Not in the registry: what it asks for are changes of single parameters, which networks alone understand.
_DEEPZERO = Method("deepzero", "zoo.nn.deepzero:DeepZero", "sparse coordinate-wise differences")
_FORWARD, _CENTRAL = 5e-3, 1e-2  # smoothing that is best in single precision


class TrainingStep(NamedTuple):
    """What a callback is told after each step.

    Attributes:
        step: Steps of training so far.
        queries: Evaluations so far.
        loss: Of the mini-batch, at the parameters before the step where a step evaluates them, as forward
            differences do, else the mean of all that it evaluates; NaN if there is none.
        test: What the test gave, NaN where there was none.
        x: Parameters after the step, shape (dim,); not to be written to.
    """

    step: int
    queries: int
    loss: float
    test: float
    x: Array


@dataclass(frozen=True, eq=False)
class Training:
    """What came of a training.

    Attributes:
        model: The network, with its new parameters, and running statistics that belong to them.
        x: Its parameters, shape (dim,).
        loss: Of the last step, as in `TrainingStep`.
        test: What the test says of the network, NaN without one.
        steps: Steps of training.
        queries: Evaluations of a network on a mini-batch: all that the method asked for. Tests, and passes
            for running statistics, are not among them.
        num_failed: Evaluations that had no finite value.
        history: By name, one number for each step of the run: "step", "queries", "loss", "test". Steps that
            a DeepZero takes for its scores come first, with the number 0.
        message: Why it ended.
        success: Whether it ended as it was to.
        seconds: Time this process spent on it.
        account: What was tried again or lost; see `zoo.execution.ledger.Account`.
    """

    model: nn.Module = field(repr=False)
    x: Array = field(repr=False)
    loss: float
    test: float
    steps: int
    queries: int
    num_failed: int
    history: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    message: str
    success: bool
    seconds: float
    account: Mapping[str, Any] = field(repr=False)


def train(
    model: nn.Module | Callable[[], nn.Module] | str,
    loss: Loss,
    data: tuple[Tensor, Tensor] | BatchSource,
    *,
    batch_size: int | None = None,
    augment: Augment | None = None,
    method: str | Optimizer[Any] = "deepzero",
    options: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    budget: int | None = None,
    seconds: float | None = None,
    test: tuple[Tensor, Tensor] | Test | None = None,
    test_every: int | None = None,
    workers: int | Executor | Callable[..., Any] = 1,
    rng: int | np.random.Generator | Key | None = None,
    callback: Any = None,
    out: str | os.PathLike[str] | None = None,
    stages: Callable[[nn.Module], Sequence[nn.Module]] | None = None,
    device: str | None = None,
    on_error: str = "raise",
) -> Training:
    """Train a network from forward passes alone.

    The same arguments and the same `rng` give the same bytes, whatever the number of workers, also when
    workers die and when the run is killed and resumed (on one model of processor and one build of torch).

    Each worker builds the network once; from then on parameters travel to it once a step, and losses back.
    With `workers=zoo.Processes(n, replicated=True)`, or `zoo.Ray` likewise, losses alone travel. Workers take
    runs of units worth a tenth of a second by what units took before: who evaluates which depends on the
    clock, what comes out does not.

    Args:
        model: The network, whose parameters and running statistics are changed at the end; or a function or
            "module:name()" that builds it, its weights following from `rng`, see
            `zoo.nn.network_loss.NetworkLoss`.
        loss: One number for each example; see `zoo.nn.losses`.
        data: Inputs and targets, both n of them; or mini-batches, such as `zoo.nn.batches.Batches`.
        batch_size: Examples of a mini-batch, if `data` are inputs and targets; 128, or all of fewer.
        augment: Likewise, what is done to the inputs of a mini-batch.
        method: "deepzero" or any other name of `zoo.list_methods()`; or a method itself, such as a
            `zoo.nn.deepzero.DeepZero` or a `zoo.methods.descent.Descent`. A DeepZero without `layers` is
            given those of the network, and without `steps` those of the training.
        options: Options of a method that is named.
        epochs: Passes through the data.
        steps: Steps of training; one of the two, or a budget, must be given, unless `method` is a DeepZero
            that has `steps` of its own.
        budget: Evaluations of a network on a mini-batch, at most.
        seconds: End after the first step that is done later than this.
        test: Inputs and labels, for the share of them that is right; or a function of the network, which is
            in evaluation mode, returning a number. It is tried before the first step: the share on two
            examples, a function as a whole.
        test_every: Steps from test to test; an epoch by default, or a tenth of the run. The network is tested
            at the end in any case.
        workers: Number of processes (-1: one for each core), an executor such as `zoo.Ray(8)`, or a map-like
            callable.
        rng: Seed, generator (one number is drawn from it), `Key`, or None for a fresh seed.
        callback: A function, called with a `TrainingStep` after each step, `StopIteration` ending the run; a
            `zoo.Watcher`; or a list of these.
        out: Directory to keep the run in. One that holds this very training is resumed, wherever it was
            stopped or killed; any other is refused.
        stages: As in `NetworkLoss`.
        device: As in `NetworkLoss`.
        on_error: What an exception in the network does after the first success and one retry: "raise" ends
            the run, with a checkpoint, "nan" makes the evaluation a failed one.

    Raises:
        TypeError: An argument is of a type that it cannot be.
        ValueError: It has a value that it cannot have; or the loss is not one finite number for each example.
        EvaluationError: The network raised, or `test` after the first step, or a network whose running
            statistics were to be found out; `error.result` is what came of it until then.
        RunDirectoryError: `out` cannot be used.
        Interrupted: SIGINT or SIGTERM; `error.result` is what came of it until then.

    Warns:
        ZooWarning: A change by `smoothing` is lost to rounding.

    Example:
        >>> import torch
        >>> from zoo.nn.losses import squared_error
        >>> inputs = torch.linspace(-1, 1, 32)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 1))
        >>> options = {"sparsity": 0.0, "learning_rate": 0.2}
        >>> done = train(model, squared_error, (inputs, 3 * inputs), steps=60, options=options, rng=0)
        >>> bool(abs(model[0].weight.item() - 3) < 0.1), done.queries
        (True, 180)
    """
    key, executor = key_of(rng, out), as_executor(workers)
    batches = _as_batches(data, batch_size, augment, key)
    objective = NetworkLoss(model, loss, batches, stages=stages, device=device, key=key.fold("network"))
    x0 = objective.parameters.flat()
    planned = _as_steps(epochs, steps, budget, batches, _own_steps(method, options))
    optimizer = _as_optimizer(method, options, planned, objective)
    if budget is not None:
        check_count("budget", budget)
    check_choice("on_error", on_error, ("raise", "nan"))
    judge = _as_test(test)
    every = _as_test_every(test_every, planned, batches)
    limit = None if seconds is None else check_positive("seconds", seconds)
    callbacks, watchers = as_callbacks(callback)
    objective.check(x0)
    _check_smoothing(objective, x0, optimizer)
    _try_test(test, judge, objective)
    config, arrays = _written(
        optimizer, objective, x0, key, planned, budget, test, every, on_error, executor.threads
    )
    directory = None if out is None else _directory(Path(out), config, arrays, executor)
    with contextlib.ExitStack() as stack:
        if directory is not None:
            stack.callback(directory.close)
        job = TrainingJob(
            optimizer,
            objective,
            executor,
            x0,
            key=key,
            steps=planned,
            budget=budget,
            test=judge,
            test_every=every,
            on_error=on_error,
            threads=executor.threads,
        )
        if directory is not None:
            job.journal, job.event, job.account = directory.journal, directory.event, directory.account()
        about: dict[str, Any] = (
            {"watchers": watchers, "config": config, "execution": executor.describe()} if watchers else {}
        )
        steps_told = [_adapted(job, one) for one in callbacks]
        try:
            outcome = run(job, Stop(None, limit), steps_told, directory, **about)
        except (TypeError, ValueError):  # of what was given, so that there is nothing to go on with
            if directory is not None and directory.is_new and directory.is_untouched:
                directory.discard()
            raise
        result, untested = _result(model, job, outcome)
        if directory is not None and not directory.result and untested is None:
            directory.finish(_entries(job, outcome, result))
    if outcome.status == "interrupted":
        where = f"; train(..., out={str(out)!r}) goes on" if out is not None else ""
        raise Interrupted(outcome.reason + where, result, outcome.signal or 2)
    error = outcome.error or untested
    if error is not None:
        error.result = result  # type: ignore[attr-defined]
        raise error
    return result


def _result(
    model: Any, job: TrainingJob, outcome: Run[TrainingState]
) -> tuple[Training, EvaluationError | None]:
    """Return what came of a run, and what went wrong after it; its parameters are written into the model."""
    done = job.finish(outcome.state)
    trained = model if isinstance(model, nn.Module) else job.objective.network()
    columns = history_of(done)
    # `finished` of the method says whether the loss could be computed at all.
    lost = getattr(done.optimizer, "lost", 0) > 0
    test, untested = math.nan, None
    try:
        settle(trained, done.x, job.objective.batches)
        test = job.tested(done.optimizer)
    except EvaluationError as error:
        untested = error
    except Exception as error:  # of mini-batches that no step has seen
        untested = EvaluationError(f"running statistics cannot be found out, {type(error).__name__}: {error}")
    ended = outcome.status not in ("interrupted", "failed") and untested is None
    result = Training(
        model=trained,
        x=done.x,
        loss=done.fun,
        test=test,
        steps=number_of(done),
        queries=done.nfev,
        num_failed=done.num_failed,
        history=columns,
        message=outcome.reason,
        success=ended and not lost and math.isfinite(done.fun),
        seconds=outcome.seconds,
        account=job.account.entries(done.nfev),
    )
    return result, untested


def _entries(job: TrainingJob, outcome: Run[TrainingState], result: Training) -> dict[str, Any]:
    """Return what `result.json` is to hold."""
    return {
        "fun": result.loss,
        "fun_best": outcome.state.fun_best,
        "test": result.test,
        "nfev": result.queries,
        "nit": outcome.state.step,
        "num_failed": result.num_failed,
        "success": result.success,
        "status": STATUS[outcome.status],
        "message": result.message,
        "method": _name(job.optimizer),
        "account": result.account,
        "seconds": result.seconds,
    }


def _written(
    optimizer: Optimizer[Any],
    objective: NetworkLoss,
    x0: Array,
    key: Key,
    steps: int | None,
    budget: int | None,
    test: Any,
    test_every: int,
    on_error: str,
    threads: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return the training as `config.json` and `start.safetensors` hold it."""
    like = Like.of(x0)
    config = {
        "kind": "training",
        "method": _name(optimizer),
        "options": {"dict": _options(optimizer)},
        "objective": objective.identity(),
        "key": str(key),
        "dim": len(x0),
        "like": [like.kind, like.dtype, like.device],
        "steps": steps,
        "budget": budget,
        "target": None,
        "test": digest(describe(test) if callable(test) else test),
        "test_every": test_every,
        "noise": False,
        "on_error": on_error,
        "threads": threads,
    }
    image: dict[str, Any] = json.loads(dump(config))
    return image, {"x0": to_numpy(x0)}


def _directory(
    path: Path,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    executor: Executor,
) -> RunDirectory:
    """Return the directory of this training, made now or before.

    Raises:
        RunDirectoryError: It holds something else.
    """
    if not holds_run(path):
        return RunDirectory.create(path, config, arrays, {**executor.describe(), "folder": os.getcwd()})
    directory = RunDirectory.open(path)
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)
        there = directory.config
        if there.get("kind") != "training":
            raise RunDirectoryError(f"{path} holds a run that is no training; choose another directory.")
        _compare(path, there["objective"], config["objective"])
        differ = differences((config, arrays), (there, directory.start))
        if differ:
            raise RunDirectoryError(
                f"{path} holds another training: {', '.join(differ)}. Choose another directory; an existing "
                "run is resumed or refused, never overwritten."
            )
        stack.pop_all()
    return directory


def _compare(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to go on with another network or other data, and warn of another loss.

    Raises:
        RunDirectoryError: They are others.
    """
    before, now = there["attributes"], here["attributes"]
    names = {
        "model": "another network",
        "mode": "other modules in training mode",
        "data": "other data",
        "stages": "other stages",
        "device": "another device",
    }
    other = [words for name, words in names.items() if before.get(name) != now[name]]
    if other or there["name"] != here["name"]:
        raise RunDirectoryError(
            f"{path} holds the training of a {there['name']!r} with {' and '.join(other) or 'another loss'}. "
            "Choose another directory; an existing run is resumed or refused, never overwritten."
        )
    if before.get("loss") != now["loss"]:
        warnings.warn(
            f"the code of {there['name']!r} changed since {path} was started: if it computes something else "
            "now, choose another directory.",
            ZooWarning,
            stacklevel=4,
        )


def _name(optimizer: Any) -> str:
    return "deepzero" if isinstance(optimizer, DeepZero) else type(optimizer).__name__.lower()


def _options(optimizer: Any) -> dict[str, Any]:
    """Return the hyper-parameters of a method, what is more than a number or a name as it is written."""
    if not dataclasses.is_dataclass(optimizer):
        return {}
    found = {
        field.name: getattr(optimizer, field.name) for field in dataclasses.fields(optimizer) if field.init
    }
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
        for name, value in found.items()
    }


def _as_batches(data: Any, batch_size: int | None, augment: Augment | None, key: Key) -> BatchSource:
    if callable(getattr(data, "at", None)):
        if batch_size is not None or augment is not None:
            raise ValueError(
                "`batch_size` and `augment` must be left out where `data` are mini-batches already, got "
                f"batch_size={batch_size!r} and augment={augment!r}."
            )
        source: BatchSource = data
        return source
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"`data` must be (inputs, targets) or have a method `at(step)`, got {type(data).__name__}."
        )
    inputs, targets = data
    if batch_size is None and isinstance(inputs, Tensor) and inputs.ndim:
        batch_size = max(1, min(_BATCH, len(inputs)))
    return Batches(
        inputs,
        targets,
        _BATCH if batch_size is None else batch_size,
        key=key.fold("batches"),
        augment=augment,
    )


def _own_steps(method: Any, options: Any) -> Any:
    """Return after how many steps a method ends by itself, or None."""
    if isinstance(method, DeepZero):
        return method.steps
    is_named = method == _DEEPZERO.name and isinstance(options, Mapping)
    return options.get("steps") if is_named else None


def _as_steps(epochs: Any, steps: Any, budget: Any, batches: BatchSource, own: Any) -> int | None:
    if epochs is not None and steps is not None:
        raise ValueError(f"`epochs` and `steps` must not both be given, got {epochs!r} and {steps!r}.")
    if steps is not None:
        return check_count("steps", steps)
    if epochs is not None:
        each = getattr(batches, "steps_per_epoch", None)
        if each is None:
            raise ValueError(
                f"`epochs` is {epochs!r}, and `data` does not say by `steps_per_epoch` how many steps that "
                "makes: give `steps`."
            )
        return check_count("epochs", epochs) * int(each)
    if budget is not None:
        return None
    if own is None:
        raise ValueError("`steps`, `epochs` or `budget` must be given: nothing else ends a training.")
    return check_count("steps", own)


def _as_optimizer(method: Any, options: Any, steps: int | None, objective: NetworkLoss) -> Optimizer[Any]:
    if isinstance(method, type):
        raise TypeError(f"`method` must be a method, and {method!r} is a class: call it.")
    if isinstance(method, str):
        given = dict(options or {})
        made = _named(method).build(given)
    elif options is not None:
        raise ValueError(f"`options` must be left out where `method` is no name, got {options!r}.")
    else:
        made = method
    if not all(callable(getattr(made, name, None)) for name in ("init", "ask", "tell", "recommend")):
        raise TypeError(f"`method` must be a name or a method with `ask` and `tell`, got {method!r}.")
    if isinstance(made, DeepZero):
        made = replace(made, steps=steps if made.steps is None else made.steps)
        if made.layers is None and made.sparsity > 0:
            made = replace(made, layers=Layers.of(objective.network()))
    optimizer: Optimizer[Any] = made
    return optimizer


def _named(name: str) -> Method:
    """Return the method of a name."""
    if name == _DEEPZERO.name:
        return _DEEPZERO
    try:
        return find(name)
    except ValueError as error:
        suggested = hint(name, [_DEEPZERO.name])
        raise ValueError(f"{error}{suggested or f' And {_DEEPZERO.name!r}.'}") from None


def _as_test(test: Any) -> Test | None:
    if test is None or callable(test):
        return test
    if not isinstance(test, (tuple, list)) or len(test) != 2:
        raise TypeError(f"`test` must be (inputs, labels) or a function of the network, got {test!r}.")
    inputs, labels = test
    check_examples(inputs, labels, ("test[0]", "test[1]"))

    def share(model: nn.Module) -> float:
        device = next(model.parameters()).device
        return accuracy(model, inputs.to(device), labels.to(device))

    return share


def _try_test(test: Any, judge: Test | None, objective: NetworkLoss) -> None:
    """Raise what a test raises, rather than after an epoch."""
    if judge is None:
        return
    brief = judge
    if not callable(test):
        inputs, labels = test
        tried = _as_test((inputs[:_TRIED], labels[:_TRIED]))
        assert tried is not None
        brief = tried
    judged(objective.network(), brief)


def _as_test_every(test_every: Any, steps: int | None, batches: BatchSource) -> int:
    if test_every is not None:
        return check_count("test_every", test_every)
    each = getattr(batches, "steps_per_epoch", None)
    return int(each) if each is not None else max(1, (steps or _TESTS) // _TESTS)


def _adapted(job: TrainingJob, callback: Callable[[TrainingStep], None]) -> Callable[[Any, Report], None]:
    def call(state: TrainingState, report: Report) -> None:
        del report
        number, queries, loss, test = state.history.array[-len(COLUMNS) :].tolist()
        x = job.optimizer.recommend(state.optimizer)
        callback(TrainingStep(int(number), int(queries), loss, test, x))

    return call


def _check_smoothing(objective: NetworkLoss, x0: Array, optimizer: Any) -> None:
    """Warn where a change of the parameters would not be felt, and raise where none can be made."""
    if isinstance(optimizer, DeepZero):
        objective.units(Changes(x0, None, optimizer.smoothing, optimizer.stencil, 0))
    owner = optimizer if isinstance(optimizer, DeepZero) else getattr(optimizer, "estimator", None)
    h, stencil = getattr(owner, "smoothing", None), getattr(owner, "stencil", "forward")
    if not isinstance(h, float):
        return
    single = Like("torch", "float32").epsilon
    least, best = 0.0, 0.0
    for tensor in objective.parameters.tensors:
        epsilon = Like.of(tensor).epsilon
        size = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
        needed = right = 8 * epsilon * size
        if isinstance(optimizer, DeepZero):  # what a single coordinate does to the loss is little
            needed = max(needed, 1000 * epsilon)
            root, at_single = (1 / 3, _CENTRAL) if stencil == "central" else (1 / 2, _FORWARD)
            right = max(needed, at_single * (epsilon / single) ** root)
        least, best = max(least, needed), max(best, right)
    if h < least:
        warnings.warn(
            f"`smoothing` is {h:.3g}, and differences of that size are lost to the rounding of parameters "
            f"and losses; take about {best:.1g}.",
            ZooWarning,
            stacklevel=3,
        )
