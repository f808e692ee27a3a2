"""The far end of `zoo.execution.processes`: a worker in a process beside the driver.

Between the two runs one stream of frames in each direction: one byte for the kind, eight for the length,
and the body.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from typing import Any

from zoo.execution.packing import Message, decode, encode, encode_plain
from zoo.execution.worker import Worker, report, watch

HEADER = struct.Struct("<BQ")
DISPATCH = struct.Struct("<qqq")
"""Body of a dispatch of units: its number, first unit, one past the last unit."""

LOAD, BEGIN, EVALUATE, CALL = 1, 2, 3, 4  # from the driver: objective, step, units, number and task
READY, ANSWER, RESULT, FAILED = 1, 2, 3, 4  # to the driver: nothing, answers to both, why it cannot go on
_TASKS = {LOAD: "load the objective", BEGIN: "load the candidates", EVALUATE: "evaluate", CALL: "do its part"}


def joined(message: Message, *before: int) -> bytes:
    """Return some numbers and a message as the body of one frame."""
    sizes = [base.buffer.nbytes for base in message.bases]
    numbers = struct.pack(f"<{len(before)}qI{len(sizes)}Q", *before, len(sizes), *sizes)
    return b"".join([numbers, *(base.buffer for base in message.bases), message.body])


def parted(body: bytes, numbers: int = 0) -> tuple[Any, ...]:
    """Return the numbers and the value of which `joined` made the body of a frame."""
    before = struct.unpack_from(f"<{numbers}q", body)
    at = 8 * numbers
    (count,) = struct.unpack_from("<I", body, at)
    sizes = struct.unpack_from(f"<{count}Q", body, at + 4)
    at += 4 + 8 * count
    bases = []
    for size in sizes:
        bases.append(bytearray(body[at : at + size]))
        at += size
    return *before, decode(memoryview(body)[at:], bases)


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
            if kind == LOAD:
                worker = Worker(*parted(body))
                _release_errors(errors)
                _send(connection, READY, b"")
                continue
            assert worker is not None
            if kind == BEGIN:
                worker.begin(*parted(body))
            elif kind == EVALUATE:
                number, first, last = DISPATCH.unpack(body)
                answer = worker.evaluate(first, last)
                sys.stdout.flush()
                _send(connection, ANSWER, encode_plain((number, answer)))
            else:
                number, task = parted(body, 1)
                result = worker.call(task)
                sys.stdout.flush()
                _send(connection, RESULT, joined(encode(result), number))
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
