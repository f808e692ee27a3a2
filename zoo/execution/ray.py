"""Workers as Ray actors: the only file that imports Ray, and not before an executor of it is opened.

A cluster that is running in this process is used and left as it is; otherwise a small one is started on
this machine, or the one named by the environment variable RAY_ADDRESS is joined.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zoo.execution.pool import Answered, Died, Event, Failed, Pooled, Ready, Transport
from zoo.execution.threads import VARIABLES

_INLINE = 100_000  # bytes; what is longer goes through the object store, once
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",  # Ray's own choice of 15 starves workers beside anything else
}


class Ray(Pooled):
    """Evaluates on Ray: one actor with one CPU for each worker.

    If Ray is not running in this process, it is started when a run begins and shut down when it ends.
    What the objective prints goes to Ray's log files.

    Args:
        num_workers: How many actors.
        max_attempts: Deaths of an actor under one unit alone, after which its evaluations are failed.
        threads: Threads of numerical libraries in each actor. It belongs to the experiment: the last
            bits of sums may depend on it.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        TypeError: An argument is not an integer; at `open`, that the objective cannot be sent.
        ValueError: An argument is below 1; at `open`, that the cluster has fewer CPUs than workers.
        WorkerError: While evaluating: actors do not start, or the objective ends every one of them.
    """

    def __init__(self, num_workers: int, *, max_attempts: int = 3, threads: int = 1) -> None:
        super().__init__(num_workers, max_attempts=max_attempts, threads=threads)
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError(
                "`zoo.Ray` needs Ray, which is not installed: pip install ray. "
                "On one machine, zoo.Processes does the same without it."
            )

    def connect(self, objective: bytes) -> Transport:
        ray = _ray()
        # Ray replaces the handler of SIGTERM for good, and that of a thread cannot be read or set.
        handler = signal.getsignal(signal.SIGTERM) if _is_main() else None
        started = not ray.is_initialized()
        if started:
            with _environment(_QUIET):
                _start(self.num_workers)
        stop: Callable[[], None] = functools.partial(_stop, handler) if started else _leave
        try:
            cpus = int(ray.cluster_resources().get("CPU", 0))
            if cpus < self.num_workers:
                raise ValueError(
                    f"Ray({self.num_workers}) needs {self.num_workers} CPUs, one for each worker, and the "
                    f"cluster has {cpus}. Ask for fewer workers, or start Ray with more CPUs."
                )
            return _Actors(objective, self.threads, stop)
        except BaseException:
            stop()
            raise


class _Actors:
    """Transport over calls of actors. Ray neither restarts nor retries: that is the scheduler's part."""

    def __init__(self, objective: bytes, threads: int, stop: Callable[[], None]) -> None:
        self._ray = _ray()
        self._stop = stop
        self._class: Any = self._ray.remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": dict.fromkeys(VARIABLES, str(threads))},
        )(_actor_class())
        self._objective = self._packed(objective)
        self._actors: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._calls: dict[Any, tuple[int, int | None]] = {}  # reference -> (worker, dispatch)
        self._steps: dict[int, Any] = {}  # by worker, what goes with its next dispatch
        self._step: tuple[bytes, Any] = b"", None  # the last one, and what is sent for it

    def _packed(self, data: bytes) -> Any:
        return self._ray.put(data) if len(data) > _INLINE else data

    def start(self, worker: int) -> None:
        actor = self._actors[worker] = self._class.remote(sys.path)
        self._calls[actor.load.remote(self._objective)] = worker, None

    def begin(self, worker: int, step: bytes) -> None:
        if step is not self._step[0]:
            self._step = step, self._packed(step)
        self._steps[worker] = self._step[1]

    def submit(self, worker: int, dispatch: int, first: int, last: int) -> None:
        call = self._actors[worker].evaluate.remote(self._steps.pop(worker, None), first, last)
        self._calls[call] = worker, dispatch

    def poll(self, timeout: float) -> Sequence[Event]:
        calls = list(self._calls)
        done, _ = self._ray.wait(calls, timeout=timeout)
        if not done:
            return []
        done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        found: list[Event] = []
        for call in filter(set(done).__contains__, calls):  # in order: what came before a death counts
            if call in self._calls:
                found.append(self._event(call, *self._calls.pop(call)))
        return found

    def _event(self, call: Any, worker: int, dispatch: int | None) -> Event:
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(self._actors.pop(worker), no_restart=True)
            self._calls = {other: target for other, target in self._calls.items() if target[0] != worker}
            pid = self._pids.pop(worker, None)
            said = " ".join(str(error).split())  # it fills a page
            if len(said) > 600:
                said = f"{said[:250]} ... {said[-350:]}"
            return Died(worker, f"process {pid or 'unknown'} ended: {said}")
        if isinstance(answer, str):
            return Failed(worker, answer)
        if dispatch is None:
            self._pids[worker] = answer
            return Ready(worker)
        return Answered(worker, dispatch, answer)

    def pids(self) -> list[int]:
        return list(self._pids.values())

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor, no_restart=True)
        self._actors.clear()
        self._calls.clear()
        self._pids.clear()
        self._stop()


def _actor_class() -> type:
    # Defined in here, it is sent by value, and the library need not be importable before `path` is set.
    class Actor:
        def __init__(self, path: list[str]) -> None:
            sys.path[:0] = [entry for entry in path if entry not in sys.path]
            from zoo.execution.worker import watch

            with contextlib.suppress(ValueError):  # in another thread than the main one
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            watch(os.getppid())
            self._worker: Any = None

        def load(self, objective: bytes) -> int | str:
            from zoo.execution.worker import Worker, report

            try:
                self._worker = Worker(objective)
            except (Exception, SystemExit) as error:
                return report("a worker could not load the objective", error)
            return os.getpid()

        def evaluate(self, step: bytes | None, first: int, last: int) -> Any:
            from zoo.execution.worker import report

            try:
                if step is not None:
                    self._worker.begin(step)
                return self._worker.evaluate(first, last)
            except (Exception, SystemExit) as error:
                return report("a worker could not load the candidates, or evaluate", error)

    return Actor


def _start(num_workers: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if "RAY_ADDRESS" not in os.environ:
        options |= {"num_cpus": num_workers, "include_dashboard": False, "address": "local"}
        if os.path.isdir("/dev/shm"):
            # Ray would take 30 % of the memory, and fail where containers have little of it to share.
            quarter = shutil.disk_usage("/dev/shm").free // 4
            options["object_store_memory"] = max(80 * 2**20, min(quarter, 2**31))
    _ray().init(**options)


def _stop(handler: Any) -> None:
    _ray().shutdown()
    if handler is not None and _is_main():
        signal.signal(signal.SIGTERM, handler)


def _leave() -> None:
    """Leave a cluster that others started as it is."""


def _ray() -> Any:
    import ray

    return ray


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, those that are set already excepted."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
