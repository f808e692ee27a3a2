"""Whole runs of every method on local processes: the directory of a run is that of a run without workers."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.cases import CASES, Case
from tests.contracts.functions import Function, bowl, delayed
from tests.contracts.test_contracts import START
from zoo.core.objective import Objective, as_objective
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations
from zoo.execution.executor import Executor
from zoo.execution.ledger import Ledger
from zoo.execution.processes import Processes
from zoo.registry import find
from zoo.run.digest import Digest, digest_of_run
from zoo.run.directory import read_events


class Opened(Executor):
    """Workers, of one kind or another, that were started before and serve one run after the other."""

    def __init__(self, executor: Any) -> None:
        self.executor, self.threads = executor, executor.threads

    @contextlib.contextmanager
    def open(self, objective: Objective) -> Iterator[None]:
        yield

    def evaluate(
        self, candidates: Candidates, key: Key, step: int, ledger: Ledger | None = None
    ) -> Evaluations:
        return self.executor.evaluate(candidates, key, step, ledger)

    def step(self, *arguments: Any) -> tuple[Any, Evaluations]:
        return self.executor.step(*arguments)

    def kill(self) -> int:
        """Kill the worker that was started first, and return its process number."""
        pid = self.executor.pids()[0]
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid


WORKERS: dict[str, Callable[[], Processes]] = {
    "1": partial(Processes, 1),
    "2": partial(Processes, 2),
    "3": partial(Processes, 3),
    "2, replicated": partial(Processes, 2, replicated=True),
}


@pytest.fixture(scope="module", params=WORKERS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Workers for all methods."""
    executor = WORKERS[request.param]()
    with executor.open(as_objective(delayed)):
        yield Opened(executor)


def outcome(fun: Function, case: Case, out: Path, **more: Any) -> tuple[int, Digest, bytes]:
    """Return what of a run must not depend on workers."""
    arguments: dict[str, Any] = {"method": case.method, "options": case.options, "budget": 90, "rng": 0}
    result = zoo.minimize(fun, START, out=out, **arguments, **more)
    return result.nfev, digest_of_run(out), (out / "metrics.jsonl").read_bytes()


@cache
def without_workers(method: str) -> tuple[int, Digest, bytes]:
    case = next(case for case in CASES if case.method == method)
    with tempfile.TemporaryDirectory() as parent:
        return outcome(bowl, case, Path(parent, "run"))


# The shared workers evaluate a plain function; one with several objectives is adapted in another way, and
# tests/zoo/core/test_front.py does the same with workers of its own.
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if "objectives" not in find(case.method).traits],
    ids=lambda case: case.method,
)
def test_same_directory_with_workers(case: Case, opened: Opened, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(x: np.ndarray[Any, Any]) -> None:
        if opened.executor.replicated and not killed:
            killed.append(opened.kill())

    run = tmp_path / "run"
    found = outcome(delayed, case, run, workers=opened, callback=kill_one)
    assert found == without_workers(case.method)
    lost = [event["reason"] for event in read_events(run) if event["event"] == "worker lost"]
    assert lost == [f"process {pid} was ended by signal 9 (SIGKILL)" for pid in killed]
