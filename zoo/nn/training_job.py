"""The training of a network as a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.core.device import Array
from zoo.core.errors import EvaluationError
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Candidates, Evaluations, Optimizer, Rows
from zoo.execution.executor import Executor
from zoo.nn.calibrate import calibrate_, is_calibrated
from zoo.nn.changes import OnBatch
from zoo.nn.evaluate import evaluating
from zoo.nn.network_loss import BatchSource, NetworkLoss
from zoo.nn.parameters import Parameters
from zoo.run.job import Report, SearchJob, SearchState, lately_failed

Test = Callable[[nn.Module], float]

COLUMNS = ("step", "queries", "loss", "test")
"""Of the history of a training."""

_CALIBRATION = 16  # mini-batches that running statistics are taken over before a test


@state
class TrainingState(SearchState):
    """Where a training is.

    Attributes:
        history: For each step in turn: its number among the steps of training, evaluations so far, loss, and
            what the test gave, NaN where there was none.
    """

    history: Log = dataclasses.field(default_factory=Log)


class TrainingJob(SearchJob):
    """Train a network: a search without bounds that ends where it is, rather than at the best it has seen.

    The loss of a mini-batch says little of that of another one, so nothing is evaluated again at the end.

    Args:
        optimizer: The method.
        objective: The loss.
        executor: Where it is evaluated.
        x0: Parameters, shape (dim,).
        key: Where all randomness comes from.
        steps: Steps of training, or None.
        budget: Evaluations there may be, or None.
        test: What to find out about the network, in evaluation mode, or None.
        test_every: After how many steps.
        on_error: "raise" or "nan", for evaluations that raise.
        threads: Threads of numerical libraries during the run.
    """

    objective: NetworkLoss

    def __init__(
        self,
        optimizer: Optimizer[Any],
        objective: NetworkLoss,
        executor: Executor,
        x0: Array,
        *,
        key: Key,
        steps: int | None = None,
        budget: int | None = None,
        test: Test | None = None,
        test_every: int = 1,
        on_error: str = "raise",
        threads: int = 1,
    ) -> None:
        super().__init__(
            optimizer, objective, executor, x0, key=key, budget=budget, on_error=on_error, threads=threads
        )
        self._kept = 0
        self._steps, self._test, self._test_every = steps, test, test_every
        self._judged: nn.Module | None = None

    def init(self) -> TrainingState:
        return TrainingState(super().init().optimizer)

    def finished(self, state: SearchState) -> str | None:
        reason = super().finished(state)
        if reason is None and self._steps is not None and number_of(state) >= self._steps:
            return f"all {self._steps} steps are done"
        return reason

    def after(
        self, state: SearchState, optimizer: Any, evaluations: Evaluations
    ) -> tuple[SearchState, Report]:
        """Return the state after a step, and what the step did."""
        assert isinstance(state, TrainingState)
        loss, nfev = loss_of(self.ask(state), evaluations), state.nfev + len(evaluations)
        values = evaluations.values
        lowest = float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")
        before = number_of(state)
        told = replace(
            state,
            optimizer=optimizer,
            step=state.step + 1,
            nfev=nfev,
            num_failed=state.num_failed + len(evaluations.failures),
            failures=lately_failed(state, evaluations),
            fun_best=lowest if lowest < state.fun_best else state.fun_best,
            violation_best=0.0,
        )
        number = number_of(told)
        test = float("nan")
        if number > before and (number % self._test_every == 0 or number == self._steps):
            test = self.tested(optimizer)
        told = replace(told, history=state.history.append([number, nfev, loss, test]))
        return told, Report(lowest, evaluations, told.fun_best < state.fun_best)

    def tested(self, optimizer: Any) -> float:
        """Return what the test says of the network in a state of the method, NaN without a test.

        Raises:
            EvaluationError: The test raised.
        """
        if self._test is None:
            return float("nan")
        if self._judged is None:
            self._judged = self.objective.network()
        settle(self._judged, self.optimizer.recommend(optimizer), self.objective.batches)
        try:
            return judged(self._judged, self._test)
        except Exception as error:  # what was trained until then is not to be lost
            raise EvaluationError(f"`test` raised {type(error).__name__}: {error}") from error

    def finish(self, state: SearchState) -> SearchState:
        """Settle for where the method is."""
        if state.x is not None:
            return state
        rows = history_of(state)["loss"]
        known = rows[np.isfinite(rows)]
        x = self.optimizer.recommend(state.optimizer)
        return replace(state, x=x, fun=float(known[-1]) if len(known) else float("nan"))

    def cut_short(self, state: SearchState) -> SearchState:
        """Return the state as it is: nothing more is to be evaluated."""
        return state

    def metrics(self, state: SearchState, report: Report) -> dict[str, Any]:
        """Return the step's numbers and the method's own diagnostics."""
        history = history_of(state)
        values = report.evaluations.values
        finite = values[np.isfinite(values)]
        return {
            "step": state.step,
            "nfev": state.nfev,
            "best": state.fun_best,
            "value": report.value,
            "median": float(np.median(finite)) if len(finite) else None,
            "failed": state.num_failed,
            **self.optimizer.diagnostics(state.optimizer),
            "loss": float(history["loss"][-1]),
            **({} if self._test is None else {"test": float(history["test"][-1])}),
        }


def number_of(state: SearchState) -> int:
    """Return how many steps of training are done: methods may count what else they do apart."""
    return int(getattr(state.optimizer, "step", state.step))


def history_of(state: SearchState) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of a state's history by name."""
    assert isinstance(state, TrainingState)
    table = state.history.array.reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True))


def loss_of(candidates: Candidates, evaluations: Evaluations) -> float:
    """Return the loss at the point that candidates lie around.

    It is that of row 0 where that is the point itself, else the mean of all, NaN where there is none.
    """
    inner = candidates.candidates if isinstance(candidates, OnBatch) else candidates
    values = evaluations.values
    if getattr(inner, "lead", False) or (isinstance(inner, Rows) and len(inner) <= 2):
        return float(values[0])
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def judged(model: nn.Module, test: Test) -> float:
    """Return what a test says of a network, in evaluation mode.

    Raises:
        TypeError: It says no number.
    """
    with evaluating(model), torch.no_grad():
        said = test(model)
    try:
        return float(said)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`test` must return a number, got {said!r}.") from error


def settle(model: nn.Module, x: Array, batches: BatchSource) -> None:
    """Give a network parameters, and running statistics that belong to them.

    Layers in evaluation mode keep the statistics that they normalize by.

    Args:
        model: The network.
        x: Parameters, shape (dim,).
        batches: Where the statistics come from: the inputs of the first 16 mini-batches.
    """
    params = Parameters(model)
    params.write_(params.like.asarray(x))
    if any(is_calibrated(module) for module in model.modules()):
        device = params.like.device
        calibrate_(model, (batches.at(number)[0].to(device) for number in range(_CALIBRATION)))
