"""Workers as processes beside the driver: what `workers=2` means."""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from typing import IO, Any

from zoo.execution.devices import VARIABLE as GPUS
from zoo.execution.devices import check_gpus, shared_out
from zoo.execution.packing import Message, decode, encode_plain
from zoo.execution.pool import Pooled
from zoo.execution.serve import BEGIN, CALL, DISPATCH, END, EVALUATE, FAILED, HEADER, LOAD, READY
from zoo.execution.shared import Parcel, Segment, Store
from zoo.execution.threads import VARIABLES
from zoo.execution.transport import Answered, Died, Event, Failed, Ready, Transport

_LOOK_SECONDS = 0.2  # between looks at whether processes live: a child of theirs can hold their socket open
_GRACE_SECONDS = 1.0  # for an orderly end
_LAST_SECONDS = 0.05  # between the end of a connection and that of its process, to learn what it died of
_PAUSE_SECONDS = (
    1.0  # after a start for which the system had nothing left: another one may let go of something
)
_CHUNK = 1 << 18  # bytes read at once
_BUFFERS = 64  # written at once
_BUSY = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)  # the last two if many open files are on their way


class Processes(Pooled):
    """Evaluates in processes on this machine, started in about a second.

    They are fresh interpreters which import what the objective needs but not the script that started
    the run, so scripts need no `if __name__ == "__main__"`. Functions defined in a script or notebook,
    lambdas and closures are sent by value. Output of the objective goes where the driver's goes. The
    processes end with the run, and with a driver that was killed (on Linux at once, elsewhere when the
    objective lets go of Python's lock), and with each ends whatever the objective has started there.

    Large arrays of the objective and of a step are in memory once, whatever the number of processes.
    The objective may write to its own, of which each process then has a copy; those of a step are only
    to be read.

    Args:
        num_workers: How many processes.
        gpus_per_worker: How many GPUs each has for itself; a fraction below 1 if several are to share
            one, whose memory nobody divides among them. A process sees no other GPU, and without any
            it cannot open one by accident.
        timeout: Seconds that one unit (a point, or a batch of a vectorized objective) may take before its
            process is ended and its evaluations are failed, or None for any time.
        max_attempts: Deaths of a process under one unit alone, after which its evaluations are failed.
        threads: Threads of numerical libraries in each process. It belongs to the experiment: the last
            bits of sums may depend on it.
        replicated: Whether processes run the method themselves, so that only values travel: for
            candidates that are larger than the method is slow.
        sharded: Whether processes keep the candidates, of methods that can be put in shards ("cbo"). In a
            step as much as a few of them travels for each of at most 16 blocks. For many candidates that are
            large.

    Raises:
        TypeError: An argument is of the wrong type; at `open`, that the objective cannot be sent.
        ValueError: An argument is out of range; at `open`, that there are too few GPUs.
        WorkerError: While evaluating: processes do not start, or the objective ends every one of them.

    Example:
        >>> import numpy as np
        >>> from zoo.core.objective import as_objective
        >>> from zoo.core.rng import Key
        >>> from zoo.core.types import Rows
        >>> executor = Processes(2)
        >>> with executor.open(as_objective(lambda x: float(x @ x))):
        ...     executor.evaluate(Rows(np.array([[1.0, 2.0], [3.0, 0.0]])), Key(0), step=0).values.tolist()
        [5.0, 9.0]
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

    def connect(self, objective: Message) -> Transport:
        return _Processes(objective, self.threads, shared_out(self.num_workers, self.gpus_per_worker))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "gpus_per_worker": self.gpus_per_worker}


class _Process:
    """One process and the bytes on their way to and from it.

    Attributes:
        gpus: The GPUs it sees, as CUDA_VISIBLE_DEVICES names them.
        known: Numbers of the segments it has, or will have once it has read what it was sent.
        busy: How many dispatches it has not answered.
    """

    def __init__(self, threads: int, gpus: str) -> None:
        self.gpus = gpus
        self.known: set[int] = set()
        self.busy = 0
        self.outgoing: deque[memoryview] = deque()
        self.passing: list[Segment] = []  # to go with the next bytes, ahead of the frames that need them
        self.incoming = bytearray()
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as passed:
            self.errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            self.socket, theirs = socket.socketpair()
            stack.callback(self.socket.close)
            passed.callback(theirs.close)
            self.socket.setblocking(False)
            lifeline, self.lifeline = os.pipe()  # nothing is sent there: the worker ends as it closes
            stack.callback(os.close, self.lifeline)
            passed.callback(os.close, lifeline)
            errors = os.dup(2)
            passed.callback(os.close, errors)
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _bootstrap(theirs.fileno(), lifeline, errors)],
                stdin=subprocess.DEVNULL,
                stderr=self.errors,
                pass_fds=(theirs.fileno(), lifeline, errors),
                env={**os.environ, **dict.fromkeys(VARIABLES, str(threads)), GPUS: gpus},
                start_new_session=True,
            )
            stack.pop_all()  # they live as long as the process, the errors until it is ready

    def push(self, kind: int, body: bytes) -> None:
        header = HEADER.pack(kind, len(body))
        if len(body) < 1024:
            self.outgoing.append(memoryview(header + body))
        else:
            self.outgoing.extend((memoryview(header), memoryview(body)))

    def flush(self) -> None:
        """Write what the socket takes without blocking."""
        try:
            while self.outgoing:
                files = array.array("i", [segment.fileno() for segment in self.passing])
                along = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)] if files else []
                sent = self.socket.sendmsg(itertools.islice(self.outgoing, _BUFFERS), along)
                self.passing.clear()
                while sent:
                    head = self.outgoing.popleft()
                    if sent < len(head):
                        self.outgoing.appendleft(head[sent:])
                    sent -= min(sent, len(head))
        except ConnectionError:
            self.outgoing.clear()  # it is dead, which reading will show
        except OSError as error:
            if error.errno not in _BUSY:
                raise

    def read(self) -> bool:
        """Read what there is; return whether more can come."""
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.incoming += data
        return bool(data)

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the messages that have arrived in full."""
        found = []
        at, buffer = 0, self.incoming
        while len(buffer) - at >= HEADER.size:
            kind, size = HEADER.unpack_from(buffer, at)
            if len(buffer) - at - HEADER.size < size:
                break
            at += HEADER.size + size
            with memoryview(buffer) as view:
                found.append((kind, bytes(view[at - size : at])))
        del buffer[:at]
        return found

    def reason(self) -> str:
        """Return what is known of its end."""
        status = self.popen.returncode
        how = f"ended with status {status}"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                how = f"was ended by signal {-status} ({signal.Signals(-status).name})"
        said = ""
        if not self.errors.closed:
            self.errors.seek(0)
            said = self.errors.read()[-4000:].decode(errors="replace").strip()
        return f"process {self.popen.pid} {how}" + (f"\n\n{said}" if said else "")

    def end(self, deadline: float) -> None:
        """Wait for its end, and bring it about at the deadline; what it has started ends with it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.kill()
        self.popen.wait()
        self.socket.close()
        os.close(self.lifeline)


class _Processes:
    """Transport over a socket to each process. Nothing here blocks, however slow a reader is."""

    def __init__(self, objective: Message, threads: int, gpus: list[str]) -> None:
        self.sent = self.received = 0
        self._store = Store()
        self._objective = self._put(objective, lasting=True)
        self._threads = threads
        self._free = deque(gpus)  # those of workers that are still to be started
        self._processes: dict[int, _Process] = {}
        self._unborn: deque[tuple[float, Died]] = (
            deque()
        )  # workers that could not be started, and when to say so
        self._selector = selectors.DefaultSelector()
        self._looked = time.monotonic()

    def start(self, worker: int) -> None:
        gpus = self._free.popleft()
        try:
            process = self._processes[worker] = _Process(self._threads, gpus)
        except OSError as error:
            self._free.append(gpus)
            self._unborn.append((time.monotonic() + _PAUSE_SECONDS, Died(worker, _not_started(error))))
            return
        self._selector.register(process.socket, selectors.EVENT_READ, worker)
        self._send(worker, LOAD, self._objective)

    def begin(self, worker: int, step: Message) -> None:
        self._send(worker, BEGIN, self._put(step))

    def evaluate(self, worker: int, dispatch: int, first: int, last: int) -> None:
        self._processes[worker].busy += 1
        self._push(worker, EVALUATE, DISPATCH.pack(dispatch, first, last))

    def call(self, worker: int, dispatch: int, task: Message) -> None:
        self._processes[worker].busy += 1
        self._send(worker, CALL, self._put(task), dispatch)

    def end(self, worker: int) -> None:
        self._processes[worker].popen.kill()

    def _put(self, message: Message, *, lasting: bool = False) -> Parcel:
        before = self._store.written
        parcel = self._store.put(message, lasting=lasting)
        self.sent += self._store.written - before
        return parcel

    def _send(self, worker: int, kind: int, parcel: Parcel, number: int = 0) -> None:
        process = self._processes[worker]
        fresh = [segment for segment in parcel.segments if segment.number not in process.known]
        forgotten = process.known - self._store.numbers
        if kind != LOAD:  # the worker keeps its objective's segments to itself
            process.known -= forgotten
            process.known.update(segment.number for segment in fresh)
        process.passing += fresh
        numbers = [segment.number for segment in fresh]
        body = encode_plain((number, forgotten, numbers, parcel.body, parcel.arrays))
        self._push(worker, kind, body)

    def _push(self, worker: int, kind: int, body: bytes) -> None:
        self.sent += len(body)
        process = self._processes[worker]
        process.push(kind, body)
        process.flush()  # so that it is on its way while the next one is encoded

    def poll(self, timeout: float) -> Sequence[Event]:
        for worker, process in self._processes.items():
            process.flush()
            interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.outgoing else 0)
            if self._selector.get_key(process.socket).events != interest:
                self._selector.modify(process.socket, interest, worker)
        if self._unborn:
            timeout = min(timeout, max(0.0, self._unborn[0][0] - time.monotonic()))
        found: list[Event] = []
        for key, mask in self._selector.select(timeout):
            if mask & selectors.EVENT_READ:
                self._read(key.data, found)
        while self._unborn and time.monotonic() >= self._unborn[0][0]:
            found.append(self._unborn.popleft()[1])
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            for worker in [w for w, process in self._processes.items() if process.popen.poll() is not None]:
                while self._read(worker, found):
                    pass
        return found

    def _read(self, worker: int, found: list[Event]) -> bool:
        """Turn what there is to read into events; return whether there may be more at once."""
        process = self._processes[worker]
        before = len(process.incoming)
        alive = process.read()
        grown = len(process.incoming) > before
        for kind, body in process.frames():
            self.received += len(body)
            if kind == READY:
                process.errors.close()
                found.append(Ready(worker))
            elif kind == FAILED:
                found.append(Failed(worker, body.decode()))
            else:
                process.busy -= 1
                found.append(Answered(worker, *decode(body)))
        if alive and (grown or process.popen.poll() is None):
            return grown
        self._selector.unregister(process.socket)
        del self._processes[worker]
        process.end(time.monotonic() + _LAST_SECONDS)
        found.append(Died(worker, process.reason()))
        process.errors.close()
        self._free.append(process.gpus)
        return False

    def pids(self) -> list[int]:
        return [process.popen.pid for process in self._processes.values()]

    def close(self) -> None:
        for process in self._processes.values():
            if process.busy or not process.errors.closed:
                process.popen.terminate()  # it would not read soon
            else:
                process.push(END, b"")
                process.flush()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes.values():
            process.end(deadline)
            process.errors.close()
        self._processes.clear()
        self._selector.close()


def _not_started(error: OSError) -> str:
    advice = ""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        advice = "; use fewer workers, or a higher limit of open files (ulimit -n)"
    elif error.errno in (errno.EAGAIN, errno.ENOMEM):
        advice = "; use fewer workers, or have the system allow for more memory or processes (ulimit -u)"
    return f"it could not be started: {error}{advice}"


def _bootstrap(connection: int, lifeline: int, errors: int) -> str:
    """Return the program of a worker: it finds modules where the driver does."""
    # A worker is in a session of its own, which Ctrl-C does not reach; whatever else sends the signal to
    # all processes, what it means is for the driver to decide.
    return (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"sys.path[:] = {[*map(str, sys.path)]!r}; "
        f"from zoo.execution.serve import main; main({connection}, {lifeline}, {os.getpid()}, {errors})"
    )
