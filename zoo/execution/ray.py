"""Workers as Ray actors: the only file that imports Ray, and not before an executor of it is opened.

A Ray that is running in this process is used and left as it is. Otherwise a cluster is joined, the one of
`address` or of the environment variable RAY_ADDRESS, or else a small Ray is started on this machine.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zoo.core.modules import is_installed, own_path
from zoo.execution.devices import VARIABLE as GPUS
from zoo.execution.devices import check_gpus, explained
from zoo.execution.packing import Base, Message, decode, encode_plain, encode_whole, summary
from zoo.execution.pool import Pooled
from zoo.execution.threads import VARIABLES
from zoo.execution.transport import Answered, Died, Event, Failed, Ready, Transport
from zoo.execution.worker import Worker, report

_UNITS = struct.Struct("<qq")  # first unit, one past the last one
_LONG = 2**18  # bytes; up to there, the object store costs more than it saves
_CONNECT_SECONDS = 10.0
_SILENT = {"log_to_driver": False, "logging_level": "ERROR"}
_SETTINGS = {
    # Death notices would be printed to standard output, whatever `log_to_driver` says.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died or was killed|node with node id|Raylet is terminated",
    "RAY_max_direct_call_object_size": str(_LONG + 2**10),
}
_SETTINGS_OF_NODES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_task_events_report_interval_ms": "0",  # nobody looks, and sending the last ones delays the end
    "RAY_worker_niceness": "0",  # Ray's own choice of 15 starves workers beside anything else
}


class Ray(Pooled):
    """Evaluates on Ray: one actor for each worker, on this machine or on the nodes of a cluster.

    If Ray is not running in this process, it is started, or the cluster joined, when a run begins; when the
    run ends, what was started is shut down, and a cluster is only left. Nodes need gradfree and what the
    objective needs installed, but not the user's own modules: those imported by then are sent along, unless
    `runtime_env` is given. Large arrays are sent once to each node, where its workers share them and can
    only read them. What the objective prints goes to Ray's log files.

    Args:
        num_workers: How many actors.
        gpus_per_worker: GPUs of an actor: 0, a share below 1 of one that several have in common, or a whole
            number. An actor without a GPU takes a CPU of the cluster and sees no GPU; for one that has any,
            "cuda" is its own, and there the objective is built.
        timeout: Seconds that one unit (a point, or a batch of a vectorized objective) may take before its
            actor is ended and its evaluations are failed, or None for any time.
        max_attempts: Deaths of an actor under one unit alone, after which its evaluations are failed.
        threads: Threads of numerical libraries in each actor. It belongs to the experiment: the last
            bits of sums may depend on it.
        replicated: Whether actors run the method themselves, so that only values travel: for candidates
            that are larger than the method is slow.
        sharded: Whether actors keep the candidates, of methods that can be put in shards ("cbo"). In a
            step as much as a few of them travels for each of at most 16 blocks. For many candidates that are
            large.
        address: Cluster to join, "host:port" as `ray start --head` prints it or "auto" for the one of this
            machine; "local" to start one all the same where RAY_ADDRESS is set.
        runtime_env: What workers run in, as `ray.init` takes it.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        TypeError: An argument is of the wrong type; at `open`, that the objective cannot be sent.
        ValueError: An argument is out of its range; at `open`, that the cluster has no room for as many
            workers, or that Ray is running in this process already, with another cluster.
        ConnectionError: At `open`: there is no cluster at the address.
        WorkerError: While evaluating: actors do not start, or the objective ends every one of them.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        gpus_per_worker: float = 0,
        timeout: float | None = None,
        max_attempts: int = 3,
        threads: int = 1,
        replicated: bool = False,
        sharded: bool = False,
        address: str | None = None,
        runtime_env: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            num_workers,
            timeout=timeout,
            max_attempts=max_attempts,
            threads=threads,
            replicated=replicated,
            sharded=sharded,
        )
        self.gpus_per_worker = check_gpus(gpus_per_worker)
        if address is not None and not (isinstance(address, str) and address):
            raise TypeError(f'`address` must be "host:port", "auto" or "local", got {address!r}.')
        if runtime_env is not None and not isinstance(runtime_env, dict):
            raise TypeError(f"`runtime_env` must be a dict, as `ray.init` takes it, got {runtime_env!r}.")
        self.address, self.runtime_env = address, runtime_env
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError(
                "`zoo.Ray` needs Ray, which is not installed: pip install ray. "
                "On one machine, zoo.Processes does the same without it."
            )

    def connect(self, objective: Message) -> Transport:
        # Ray replaces the handler of SIGTERM for good, and that of a thread cannot be read or set.
        handler = signal.getsignal(signal.SIGTERM) if _is_main() else None
        with _environment(_SETTINGS):
            ray = _ray()
            address = self.address or os.environ.get("RAY_ADDRESS") or "local"
            stop: Callable[[], None] = functools.partial(_stop, handler)
            runtime_env: dict[str, Any] = {}
            if ray.is_initialized():
                _check_address(self.address, ray.get_runtime_context().gcs_address)
                stop, runtime_env = _leave, self.runtime_env or {}
            elif address == "local":
                stop = functools.partial(_stop, handler, _start(self.num_workers, self.runtime_env))
            else:
                _join(address, self.runtime_env)
        try:
            self._check_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
            return _Actors(objective, self._actor(runtime_env), stop)
        except BaseException:
            stop()
            raise

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "gpus_per_worker": self.gpus_per_worker}

    def _check_room(self, nodes: Sequence[dict[str, float]]) -> None:
        """Raise `ValueError` if workers would wait for resources that no node has."""
        gpus, kind = self.gpus_per_worker, "GPU" if self.gpus_per_worker else "CPU"
        total = [int(node.get(kind, 0)) for node in nodes]
        if 0 < gpus < 1:  # Ray counts in shares of a ten-thousandth
            room = sum(total) * (10_000 // max(1, round(10_000 * gpus)))
        else:
            room = sum(number // int(gpus or 1) for number in total)
        if room < self.num_workers:
            raise ValueError(
                f"{self!r} needs {gpus or 1:g} {kind} for each worker, and the cluster has {sum(total)} on "
                f"{len(nodes)} nodes: room for {room} workers. Ask for fewer, or start Ray with more."
            )

    def _actor(self, runtime_env: dict[str, Any]) -> Any:
        """Return the class of this executor's actors. What may be restarted or retried is up to us."""
        variables = {**runtime_env.get("env_vars", {}), **dict.fromkeys(VARIABLES, str(self.threads))}
        if not self.gpus_per_worker:
            variables[GPUS] = ""  # Ray leaves every GPU of the node in sight
        return _ray().remote(
            num_cpus=0 if self.gpus_per_worker else 1,
            num_gpus=self.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={**runtime_env, "env_vars": variables},
        )(_actor_class())

    def __repr__(self) -> str:
        gpus = f", gpus_per_worker={self.gpus_per_worker:g}" if self.gpus_per_worker else ""
        return f"Ray({self.num_workers}{gpus})"


class _Actors:
    """Transport over calls of actors. Ray neither restarts nor retries: that is the scheduler's part."""

    def __init__(self, objective: Message, actor: Any, stop: Callable[[], None]) -> None:
        self._ray, self._class, self._stop = _ray(), actor, stop
        self.sent = self.received = 0
        self._actors: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._nodes: dict[int, set[str]] = {}  # by worker, those that were alive when it was started
        self._calls: dict[Any, tuple[int, int | None]] = {}  # reference -> (worker, dispatch)
        self._ended: list[Event] = []
        self._bases: dict[str, Any] = {}  # by digest, references to the large arrays in use
        self._used: dict[int, list[str]] = {}  # by worker, what the last message to it refers to
        self._steps: dict[int, tuple[Any, ...]] = {}  # by worker, what goes with its next dispatch
        self._last: tuple[Message, tuple[Any, ...]] = Message(b""), (b"",)  # and how it is sent
        self._path = own_path()
        self._objective = self._shipped(objective)

    def start(self, worker: int) -> None:
        self._nodes[worker] = self._alive()
        self._actors[worker] = self._class.remote()
        self._submit(worker, None, "load", self._path, *self._objective)

    def begin(self, worker: int, step: Message) -> None:
        self._steps[worker] = self._sent_to(worker, step)

    def evaluate(self, worker: int, dispatch: int, first: int, last: int) -> None:
        # The step travels with the first dispatch that belongs to it: one call costs less than two.
        self._submit(worker, dispatch, "evaluate", _UNITS.pack(first, last), *self._steps.pop(worker, ()))

    def call(self, worker: int, dispatch: int, task: Message) -> None:
        self._submit(worker, dispatch, "call", *self._sent_to(worker, task))

    def end(self, worker: int) -> None:
        if worker not in self._actors:
            return
        self._ended.append(Died(worker, "it was ended"))
        self._forget(worker)

    def poll(self, timeout: float) -> Sequence[Event]:
        found, self._ended = self._ended, []
        if not self._calls:
            time.sleep(0.0 if found else timeout)
            return found
        calls = list(self._calls)
        done, _ = self._ray.wait(calls, timeout=0.0 if found else timeout)
        if done and len(calls) > 1:
            done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in filter(set(done).__contains__, calls):  # in order: what came before a death counts
            if call in self._calls:
                found.extend(self._events(call, *self._calls.pop(call)))
        return found

    def pids(self) -> list[int]:
        return list(self._pids.values())

    def close(self) -> None:
        for worker in list(self._actors):
            self._forget(worker)
        self._bases.clear()
        self._stop()

    def _submit(self, worker: int, dispatch: int | None, method: str, *arguments: Any) -> None:
        if worker in self._actors:
            self.sent += sum(len(part) for part in arguments if isinstance(part, bytes | np.ndarray))
            call = getattr(self._actors[worker], method).remote(*arguments)
            self._calls[call] = worker, dispatch

    def _sent_to(self, worker: int, message: Message) -> tuple[Any, ...]:
        if message is not self._last[0]:
            self._last = message, self._shipped(message)
        self._used[worker] = [base.digest for base in message.bases]
        return self._last[1]

    def _shipped(self, message: Message) -> tuple[Any, ...]:
        """Return a message as arguments of a call: what is long by reference, put where all can get it."""
        for digest in self._bases.keys() - set().union(*self._used.values()):
            del self._bases[digest]
        body = message.body if len(message.body) <= _LONG else self._put(message.body, len(message.body))
        return body, *map(self._base, message.bases)

    def _base(self, base: Base) -> Any:
        array = np.frombuffer(base.buffer, np.uint8)
        if len(array) <= _LONG:
            return array
        if base.digest not in self._bases:
            self._bases[base.digest] = self._put(array, len(array))
        return self._bases[base.digest]

    def _put(self, value: Any, size: int) -> Any:
        self.sent += size
        return self._ray.put(value)

    def _events(self, call: Any, worker: int, dispatch: int | None) -> Iterator[Event]:
        """Yield what follows from a call that has ended."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(call)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            cause = getattr(error, "cause", None) or error
            yield Failed(worker, f"a worker could not be used: {summary(cause)}\n\n{error}")
        except errors.RayError as error:
            pid, nodes = self._pids.get(worker, "unknown"), self._nodes.get(worker, set())
            self._forget(worker)
            if dispatch is None and not nodes <= self._alive():
                self.start(worker)  # Ray had chosen a node that was about to be lost
                return
            said = " ".join(str(error).split())  # it fills a page
            if len(said) > 600:
                said = f"{said[:250]} ... {said[-350:]}"
            yield Died(worker, f"process {pid} ended: {said}")
        else:
            if isinstance(answer, str):
                yield Failed(worker, answer)
            elif dispatch is None:
                self._pids[worker] = answer
                yield Ready(worker)
            else:
                self.received += len(answer)
                yield Answered(worker, dispatch, decode(answer))

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _forget(self, worker: int) -> None:
        """End an actor, if it has not ended by itself; nothing follows from it any more."""
        self._ray.kill(self._actors.pop(worker), no_restart=True)
        self._calls = {call: target for call, target in self._calls.items() if target[0] != worker}
        for known in (self._pids, self._nodes, self._used, self._steps):
            known.pop(worker, None)


class _Far:
    """The far end: a worker inside an actor. What it returns as text says why it cannot go on."""

    def __init__(self) -> None:
        self._worker = Worker(None)

    def load(self, body: bytes, *bases: Any) -> int | str:
        try:
            self._worker = Worker(decode(body, bases))
        except (Exception, SystemExit) as error:
            return explained(report("a worker could not load the objective", error))
        return os.getpid()

    def evaluate(self, units: bytes, *step: Any) -> bytes | str:
        try:
            if step:
                self._worker.begin(decode(step[0], step[1:]))
            return encode_plain(self._worker.evaluate(*_UNITS.unpack(units)))
        except (Exception, SystemExit) as error:
            return explained(report("a worker could not load the candidates, or evaluate", error))

    def call(self, body: bytes, *bases: Any) -> bytes | str:
        try:
            return encode_whole(self._worker.call(decode(body, map(bytearray, bases))))
        except (Exception, SystemExit) as error:
            return explained(report("a worker could not do its part", error))


def _actor_class() -> type:
    # Defined in here, it is sent by value, and the library need not be importable before `path` is set.
    class Actor:
        def load(self, path: list[str], *arguments: Any) -> Any:
            with contextlib.suppress(ValueError):  # in another thread than the main one
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.path[:0] = [entry for entry in path if entry not in sys.path]
            from zoo.execution.ray import _Far

            self._far = _Far()
            return self._far.load(*arguments)

        def evaluate(self, *arguments: Any) -> Any:
            return self._far.evaluate(*arguments)

        def call(self, *arguments: Any) -> Any:
            return self._far.call(*arguments)

    return Actor


def _start(num_workers: int, runtime_env: dict[str, Any] | None) -> subprocess.Popen[bytes]:
    """Start a small Ray on this machine, and what ends Ray's agents as soon as this process is gone.

    Everything else that was started here ends then by itself, actors within seconds, whatever they are
    at. Agents take a minute over it.
    """
    options: dict[str, Any] = {"num_cpus": num_workers, "include_dashboard": False}
    if os.path.isdir("/dev/shm"):
        # Ray would take 30 % of the memory, and fail where containers have little of it to share. For the
        # least that it accepts, it finds room elsewhere.
        quarter = shutil.disk_usage("/dev/shm").free // 4
        options["object_store_memory"] = max(80 * 2**20, min(quarter, 2**31))
    with _environment(_SETTINGS_OF_NODES):
        _ray().init("local", runtime_env=runtime_env, **options, **_SILENT)
    psutil = importlib.import_module("psutil")  # which comes with Ray
    processes = psutil.Process().children(recursive=True)
    agents = [str(process.pid) for process in processes if process.name().startswith("ray::")]
    return subprocess.Popen(
        ["sh", "-c", f"read _; kill -9 {' '.join(agents)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _join(address: str, runtime_env: dict[str, Any] | None) -> None:
    """Join a cluster, and bring the user's modules there."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConnectionError(  # Ray would try for minutes
                f"there is no Ray cluster at {address!r}: {error}. Give `address` or RAY_ADDRESS as "
                '"host:port", the one that `ray start --head` has printed.'
            ) from error
    if runtime_env is None:
        runtime_env = {"py_modules": _own_modules()}
    _ray().init(address, runtime_env=runtime_env, **_SILENT)


def _check_address(wanted: str | None, running: str) -> None:
    """Raise `ValueError` unless the Ray of this process is the one that is wanted."""
    if wanted in (None, "auto", running):
        return
    host, _, port = str(wanted).rpartition(":")
    with contextlib.suppress(OSError):
        numbers = socket.gethostbyname(host), port
        if numbers in (("127.0.0.1", running.rpartition(":")[2]), tuple(running.split(":"))):
            return
    raise ValueError(
        f"`address` is {wanted!r}, and Ray is running in this process already, with the cluster at "
        f"{running!r}. Leave `address` out to use that one, or call ray.shutdown() before."
    )


def _own_modules() -> list[str]:
    """Return where the modules are that were imported from elsewhere than where packages are installed.

    Those that the objective needs are among them, and those which these need in turn.
    """
    found: dict[str, None] = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in ("__main__", "__mp_main__"):
            continue
        places = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
        for place in places:
            if place and not is_installed(place) and (os.path.isdir(place) or place.endswith(".py")):
                found[os.path.abspath(place)] = None
    return list(found)


def _stop(handler: Any, lifeline: subprocess.Popen[bytes] | None = None) -> None:
    if lifeline is not None:
        lifeline.kill()
        lifeline.communicate()
    ray = _ray()
    ray.shutdown()
    if tokens := getattr(ray._raylet, "AuthenticationTokenLoader", None):
        # A Ray that is started has a token; this process would ask for it in a cluster that has none.
        ray._raylet.Config.initialize("")
        tokens.instance().reset_cache()
    if handler is not None and _is_main():
        signal.signal(signal.SIGTERM, handler)


def _leave() -> None:
    """Leave a cluster that others started as it is."""


def _ray() -> Any:
    import ray

    return ray


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, those excepted that are set already.

    What is set inside is put back as well: Ray would change what `breakpoint()` does, and how clusters are
    joined from now on.
    """
    before = dict(os.environ)
    os.environ.update({name: variables[name] for name in variables.keys() - before.keys()})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
