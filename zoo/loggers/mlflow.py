"""Runs in MLflow's store: a directory, without a server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zoo.core.rng import Key, keyed_generators
from zoo.loggers.base import Line, Logger, Outcome, Subject, required

_ALLOW = "MLFLOW_ALLOW_FILE_STORE"
_RUN = "gradfree.run"
_NO_NAME = re.compile(r"[^\w\-. :]")  # what MLflow has in no name
_MOST, _MOST_PARAMETERS, _LONGEST = 1000, 100, 6000  # its limits: in one request, and of a parameter


class MLflow(Logger):
    """Writes the numbers of a step, against the evaluations made, to MLflow, and of arrays their statistics.

    One run there is one run here, found by its tag `gradfree.run` when it goes on, or is exported again.
    Look at a directory with `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri PATH`, which also
    needs the package `mlflow`.

    Args:
        path: Directory of the store, or any tracking URI; those of databases need the package `mlflow`.
        name: What to call the run: as its directory by default, else by the time.
        experiment: The experiment it belongs to.

    Raises:
        ImportError: There is no mlflow.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str | None = None, *, experiment: str = "gradfree"
    ) -> None:
        super().__init__(path, name)
        # What is kept on this disk is no reason to tell its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow, self._entities = required("mlflow", "mlflow"), required("mlflow.entities", "mlflow")
        self._uri = str(path) if "://" in str(path) else self.path.resolve().as_uri()
        self._experiment = experiment
        self._waiting: list[Any] = []
        self._nfev = 0

    def open(self, subject: Subject) -> int:
        with _allowed():
            self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            with keyed_generators(Key(int(subject.id, 16))):  # or it would draw from the global ones
                experiment = self._client.create_experiment(self._experiment)
        else:
            experiment = found.experiment_id
        there = self._client.search_runs([experiment], f"tags.`{_RUN}` = '{subject.id}'", max_results=1)
        if there:
            self._run, self._there = there[0].info.run_id, there[0].data.metrics
            self._client.update_run(self._run, "RUNNING")
            return int(self._there.get("step", 0))
        tags = {_RUN: subject.id}
        self._run = self._client.create_run(experiment, run_name=subject.name, tags=tags).info.run_id
        self._there = {}
        parameters = [
            self._entities.Param(_NO_NAME.sub("_", name), str(value)[:_LONGEST])
            for name, value in subject.config.items()
        ]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_PARAMETERS])
        return 0

    def write(self, line: Line, when: float) -> None:
        numbers, arrays = self.numbers(line)
        for name, values in arrays.items():
            numbers[f"{name}.min"], numbers[f"{name}.max"] = min(values), max(values)
            numbers[f"{name}.mean"] = sum(values) / len(values)
        # By the number of the last step another process knows where to go on: it is there when all else is.
        numbers["step"] = numbers.pop("step")
        self._nfev = line[self._subject.wording.counter]
        self._add(numbers, when)
        if len(self._waiting) >= _MOST:
            self._flush()

    def close(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            results = {f"result.{name}": value for name, value in outcome.numbers.items()}
            fresh = {name: value for name, value in results.items() if self._there.get(name) != value}
            self._add(fresh, time.time())
        self._flush()
        is_complete = outcome is not None and outcome.is_complete
        self._client.set_terminated(self._run, "FINISHED" if is_complete else "KILLED")

    def _add(self, numbers: dict[str, float], when: float) -> None:
        milliseconds = int(1000 * when)
        self._waiting += [
            self._entities.Metric(_NO_NAME.sub("_", name), value, milliseconds, self._nfev)
            for name, value in numbers.items()
        ]

    def _flush(self) -> None:
        for start in range(0, len(self._waiting), _MOST):
            self._client.log_batch(self._run, metrics=self._waiting[start : start + _MOST])
        self._waiting.clear()


@contextmanager
def _allowed() -> Iterator[None]:
    # MLflow would rather have a database, which its small distribution cannot open.
    before = os.environ.get(_ALLOW)
    os.environ[_ALLOW] = "true"
    try:
        yield
    finally:
        del os.environ[_ALLOW]
        if before is not None:
            os.environ[_ALLOW] = before
