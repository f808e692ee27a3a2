"""What runs on a worker, whichever way messages reach it, and how a process beside the driver gets them.

A worker is given the objective once, each step's candidates once, and then runs of units to evaluate.
It imports what the objective needs and nothing more: neither the user's `__main__` nor torch.

Between a process and its driver runs one stream of frames in each direction: one byte for the kind,
eight for the length, and the body.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any

from zoo.core.objective import Objective
from zoo.core.types import Reply
from zoo.execution.executor import LIMIT_SECONDS

HEADER = struct.Struct("<BQ")
DISPATCH = struct.Struct("<qqq")
"""Body of a dispatch: its number, first unit, one past the last unit."""

LOAD, BEGIN, EVALUATE = 1, 2, 3  # from the driver: the objective, a step, a dispatch
READY, REPLY, FAILED = 1, 2, 3  # to the driver: nothing, (dispatch, reply), why it cannot go on
_MAIN = b"\x8c\x08__main__"  # how a pickle names the module of a function or class of the script
_TASKS = {LOAD: "load the objective", BEGIN: "load the candidates", EVALUATE: "evaluate"}


class Worker:
    """Evaluates units of one objective.

    Args:
        objective: What `encode` made of the objective.
    """

    def __init__(self, objective: bytes) -> None:
        loaded = decode(objective)
        if not isinstance(loaded, Objective):
            raise TypeError(f"a worker needs an Objective, got {loaded!r}.")
        self._objective = loaded
        self._step: tuple[Any, ...] | None = None

    def begin(self, step: bytes) -> None:
        """Take a step's candidates, boundaries of units, key and number, as `encode` packed them."""
        self._step = decode(step)

    def evaluate(self, first: int, last: int) -> Reply:
        """Evaluate units `first` to `last` of the current step, or the first of them if time runs out."""
        if self._step is None:
            raise RuntimeError("`evaluate` came before `begin`.")
        candidates, boundaries, key, step = self._step
        part = boundaries[first : last + 1]
        return self._objective.evaluate_units(candidates, part, key=key, step=step, limit=LIMIT_SECONDS)


def encode(value: Any) -> bytes:
    """Return `value` as bytes that another process can load, also where `__main__` defines what it needs."""
    try:
        import cloudpickle
    except ModuleNotFoundError:
        return _encode_by_name(value)
    data: bytes = cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return data


def _encode_by_name(value: Any) -> bytes:
    advice = "install cloudpickle to send it (pip install cloudpickle)"
    try:
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # picklers raise what they like
        raise pickle.PicklingError(f"{summary(error)}; if it is a function, {advice}") from error
    if _MAIN in data:
        raise pickle.PicklingError(f"it is defined in the script or notebook itself; {advice}")
    return data


def decode(data: bytes) -> Any:
    """Return what `encode` made bytes of, in another process of this run."""
    return pickle.loads(data)


def encode_objective(objective: Objective) -> bytes:
    """Return an objective as bytes, or say why it cannot be sent.

    Raises:
        TypeError: It holds something that cannot leave this process, such as a lock or an open file.
    """
    try:
        return encode(objective)
    except Exception as error:  # picklers raise what they like
        raise TypeError(
            f"`fun` cannot be sent to workers: {summary(error)}. Create what cannot be sent inside the "
            'function, give "module:name" or "module:name()" to have it built on the worker, or use '
            "workers=1."
        ) from error


def summary(error: BaseException) -> str:
    """Return an exception as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def report(what: str, error: BaseException) -> str:
    """Return what a worker tells its driver before it gives up: one line, and the traceback below."""
    return f"{what}: {summary(error)}\n\n{''.join(traceback.format_exception(error)).rstrip()}"


def watch(parent: int) -> None:
    """End this process about a second after process `parent` stopped being its parent.

    If it leads a group of processes, the others end with it: programs that the objective has started.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=look, name="watch", daemon=True).start()


def main(descriptor: int, parent: int, errors: int) -> None:
    """Serve the driver at the other end of a socket until it closes it.

    Args:
        descriptor: The socket.
        parent: Process number of the driver.
        errors: Where standard error goes once the objective is loaded; until then it is kept in a
            file, from which the driver learns why a worker did not start.
    """
    watch(parent)
    os.set_inheritable(descriptor, False)
    # Once the driver is gone or has closed its end, nobody is left who could be told.
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        _serve(connection, errors)


def _serve(connection: socket.socket, errors: int) -> None:
    stream = connection.makefile("rb")
    worker: Worker | None = None
    while True:
        kind, body = _receive(stream)
        try:
            if kind == EVALUATE:
                assert worker is not None
                number, first, last = DISPATCH.unpack(body)
                reply = worker.evaluate(first, last)
                sys.stdout.flush()
                _send(connection, REPLY, pickle.dumps((number, reply), pickle.HIGHEST_PROTOCOL))
            elif kind == BEGIN:
                assert worker is not None
                worker.begin(body)
            else:
                worker = Worker(body)
                _release_errors(errors)
                _send(connection, READY, b"")
        except ConnectionError:
            raise
        except (Exception, SystemExit) as error:
            _send(connection, FAILED, report(f"a worker could not {_TASKS[kind]}", error).encode())


def _receive(stream: Any) -> tuple[int, bytes]:
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    kind, size = HEADER.unpack(header)
    body: bytes = stream.read(size)
    if len(body) < size:
        raise EOFError
    return kind, body


def _send(connection: socket.socket, kind: int, body: bytes) -> None:
    connection.sendall(HEADER.pack(kind, len(body)) + body)


def _release_errors(errors: int) -> None:
    """Let standard error go where the driver's goes, with what has gathered so far in front."""
    sys.stderr.flush()
    gathered = os.pread(2, os.fstat(2).st_size, 0)
    os.dup2(errors, 2)
    os.close(errors)
    if gathered:
        os.write(2, gathered)
