"""The far end of `zoo.execution.processes`: a worker in a process beside the driver.

Between the two runs one stream of frames in each direction: one byte for the kind, eight for the length,
and the body. Open files come along with what the driver sends.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
from typing import Any

from zoo.execution.devices import explained
from zoo.execution.packing import decode, encode_plain, encode_whole
from zoo.execution.shared import Shelf
from zoo.execution.worker import Worker, report, watch

HEADER = struct.Struct("<BQ")
DISPATCH = struct.Struct("<qqq")
"""Body of a dispatch of units: its number, first unit, one past the last unit."""

LOAD, BEGIN, EVALUATE, CALL, END = 1, 2, 3, 4, 5  # from the driver: objective, step, units, task, no more
READY, ANSWERED, FAILED = 1, 2, 3  # to the driver: nothing, number and answer, why it cannot go on
_TASKS = {LOAD: "load the objective", BEGIN: "load the candidates", EVALUATE: "evaluate", CALL: "do its part"}
_FILES = socket.CMSG_SPACE(253 * array.array("i").itemsize)  # bytes that name all files that can come at once
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Lost(Exception):
    """The driver is gone."""


def main(descriptor: int, lifeline: int, parent: int, errors: int) -> None:
    """Serve the driver at the other end of a socket until it says that this is the end.

    Args:
        descriptor: The socket.
        lifeline: A pipe to which the driver alone holds the other end.
        parent: Process number of the driver.
        errors: Where standard error goes once the objective is loaded; until then it is kept in a
            file, from which the driver learns why a worker did not start.
    """
    watch(parent)
    _tie(lifeline)
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection:
        try:
            _serve(connection, errors)
        except _Lost:
            os.killpg(0, signal.SIGKILL)  # the driver is gone, and could not end what was started here


def _tie(lifeline: int) -> None:
    """Have the kernel end this group of processes once the other end of a pipe is closed.

    That also ends an objective inside native code which lets no thread of Python run.
    """
    os.set_inheritable(lifeline, False)
    if not hasattr(fcntl, "F_SETSIG"):
        return
    with contextlib.suppress(OSError):  # some kernels do not; what `watch` does is left then
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _serve(connection: socket.socket, errors: int) -> None:
    shelf = Shelf()
    worker: Worker | None = None
    while True:
        kind, body = _receive(connection, shelf)
        if kind == END:
            return
        try:
            if kind == EVALUATE:
                assert worker is not None
                number, first, last = DISPATCH.unpack(body)
                answer = worker.evaluate(first, last)
                _flush(sys.stdout)
                _send(connection, ANSWERED, encode_plain((number, answer)))
                continue
            number, forgotten, fresh, pickled, arrays = decode(body)
            if kind == LOAD:
                worker = Worker(decode(pickled, shelf.own(fresh, arrays)))
                _release_errors(errors)
                _send(connection, READY, b"")
                continue
            assert worker is not None
            shelf.change(fresh, forgotten)
            if kind == BEGIN:
                worker.begin(decode(pickled, shelf.read(arrays)))
            else:
                result = worker.call(decode(pickled, map(bytearray, shelf.read(arrays))))
                _flush(sys.stdout)
                _send(connection, ANSWERED, encode_whole((number, result)))
        except _Lost:
            raise
        except (Exception, SystemExit) as error:
            said = report(f"a worker could not {_TASKS[kind]}", error)
            _send(connection, FAILED, explained(said).encode())


def _receive(connection: socket.socket, shelf: Shelf) -> tuple[int, bytearray]:
    kind, size = HEADER.unpack(_read(connection, HEADER.size, shelf))
    return kind, _read(connection, size, shelf)


def _read(connection: socket.socket, size: int, shelf: Shelf) -> bytearray:
    """Read so many bytes, and take the open files that come along with them."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            got, ancillary, _, _ = connection.recvmsg_into([view], _FILES, _CLOSED_ON_EXEC)
        except ConnectionError as error:
            raise _Lost from error
        if not got:
            raise _Lost
        for _, _, descriptors in ancillary:
            shelf.files.extend(array.array("i", descriptors))
        view = view[got:]
    return data


def _send(connection: socket.socket, kind: int, body: bytes) -> None:
    try:
        connection.sendall(HEADER.pack(kind, len(body)) + body)
    except ConnectionError as error:
        raise _Lost from error


def _flush(stream: Any) -> None:
    """Have what was printed appear, if that can be: the objective may have closed or replaced the stream."""
    with contextlib.suppress(Exception):
        stream.flush()


def _release_errors(errors: int) -> None:
    """Let standard error go where the driver's goes, with what has gathered so far in front."""
    _flush(sys.stderr)
    gathered = os.pread(2, os.fstat(2).st_size, 0)
    os.dup2(errors, 2)
    os.close(errors)
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, gathered)
