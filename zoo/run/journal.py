"""`evaluations.bin`: every finished dispatch, appended before anything is made of it.

It is what makes a kill cost nothing: a resumed run starts at its last checkpoint, asks for the same
candidates again, and finds their values here.

Layout: a first line, then records of
    mark                  four bytes, by which records behind a damaged one are found again
    length, checksums     three 32-bit unsigned numbers: length and crc-32 of the rest, crc-32 of this head
    step, first id        two 64-bit numbers; the id of row 0 of the step
    kind, start, count    three 32-bit numbers; kind 0 is a step of the search, 1 the last evaluation, 2 is
                          the first record, whose failures are the one entry [0, "run", DIGEST], and 3 is what
                          a stateful part asked for in a call: start is its number, step that of the call, and
                          the first id that of the first part's
    length                of the failures, a 32-bit number
    values                count float64 numbers, NaN where failed
    failures              JSON, a list of [row, kind, message]; empty where there are none
    extras                safetensors, what else was found, by name; empty where there is nothing
all little-endian. A torn last record is cut off; damaged ones elsewhere are skipped, and what they held is
evaluated again where the search still needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.types import Failure, Reply
from zoo.run.checkpoint import reading, write_all, writing

_HEADER = b"gradfree evaluations 2\n"
_VERSION = re.compile(rb"gradfree evaluations (\d+)\n")
_MARK = b"\xabGF\x01"
_FRAME = struct.Struct("<4sII")
_CHECK = struct.Struct("<I")
_HEAD = struct.Struct("<qqiiii")

SEARCH, FINAL, _WHOSE, PARTS = 0, 1, 2, 3


class Record(NamedTuple):
    """One dispatch as it stands in the journal."""

    step: int
    first_id: int
    kind: int
    reply: Reply


class Journal:
    """The journal of one run, open for appending.

    Args:
        path: The file; made where there is none, read and mended where there is one.
        run: Digest of what the run is, by which a journal of another one is known.

    Raises:
        RunDirectoryError: The file is not a journal, of another run or a newer version, or cannot be written.
    """

    def __init__(self, path: Path, run: str = "") -> None:
        self._path = path
        self._known: dict[tuple[int, int], list[Reply]] = {}
        self._first_ids: dict[tuple[int, int], int] = {}  # by kind and step
        self._begin = end = 0  # of the records of evaluations, and behind all of them
        if path.exists():
            for record, behind in _scan(path):
                end = behind
                if record.kind == _WHOSE:
                    self._begin = behind
                    if [failure.message for failure in record.reply.failures] != [run]:
                        raise RunDirectoryError(
                            f"{path} holds the evaluations of another run. Put that of this run back."
                        )
                    continue
                self._known.setdefault((record.kind, record.step), []).append(record.reply)
                self._first_ids[record.kind, record.step] = record.first_id
        whose = _packed(-1, 0, _WHOSE, Reply(0, np.empty(0), (Failure(0, "run", run),))) if run else b""
        self._begin = self._begin or len(_HEADER) + (0 if end else len(whose))
        with writing(path), contextlib.ExitStack() as stack:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            stack.callback(os.close, self._file)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            if not end:
                write_all(self._file, _HEADER + whose)
            stack.pop_all()

    @property
    def size(self) -> int:
        """Bytes of records of evaluations."""
        return os.fstat(self._file).st_size - self._begin

    def known(self, kind: int, step: int) -> list[Reply]:
        """Hand out what an earlier process evaluated of a step; each step is asked for once."""
        return self._known.pop((kind, step), []) if self._known else []

    def holds(self, num_evaluations: int) -> bool:
        """Return whether all evaluations of the search are on record, up to this one."""
        if num_evaluations * 8 > self.size:
            return False
        have = np.zeros(num_evaluations, bool)
        for (kind, step), first_id in self._first_ids.items():
            for first, values in _by_id(kind, first_id, self._known.get((kind, step), ())):
                have[first : first + len(values)] = True
        return bool(have.all())

    def forget_before(self, step: int) -> None:
        """Drop what is known of steps that the checkpoint has behind it."""
        self._known = {
            key: replies for key, replies in self._known.items() if key[0] == FINAL or key[1] >= step
        }

    def append(self, step: int, first_id: int, kind: int, reply: Reply) -> None:
        """Put a reply on record; when this returns, a kill of this process cannot lose it."""
        data = _packed(step, first_id, kind, reply)
        with writing(self._path):
            write_all(self._file, data)

    def sync(self) -> None:
        """Wait until the disk has everything, which not even a power failure can then lose."""
        with writing(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._file)


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a journal that may be open elsewhere; nothing is written."""
    for record, _ in _scan(path):
        if record.kind != _WHOSE:
            yield record


def values_by_id(path: Path, num_evaluations: int) -> np.ndarray[Any, Any]:
    """Return the values of the search's evaluations 0 to `num_evaluations`, NaN where failed.

    Raises:
        RunDirectoryError: One of them is not on record.
    """
    values, have = np.full(num_evaluations, np.nan), np.zeros(num_evaluations, bool)
    for first, found in _told(path) if path.exists() else ():
        part = slice(first, min(first + len(found), num_evaluations))
        count = max(0, part.stop - first)
        fresh = ~have[part]
        values[part][fresh] = found[:count][fresh]
        have[part] = True
    if not have.all():
        raise RunDirectoryError(
            f"{path} has no sound record of evaluation {int(have.argmin())}. The state does not depend on it "
            "any more; removing the directory `checkpoints` and resuming evaluates it again."
        )
    return values


def _told(path: Path) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield evaluations of the search: the id of the first, and the values of it and of those behind it."""
    steps: dict[tuple[int, int], tuple[int, list[Reply]]] = {}
    for record in read(path):
        steps.setdefault((record.kind, record.step), (record.first_id, []))[1].append(record.reply)
    for (kind, _), (first_id, replies) in steps.items():
        yield from _by_id(kind, first_id, replies)


def _by_id(kind: int, first_id: int, replies: Iterable[Reply]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield the ids of the first values of replies to one step, and the values; of what is a search alone."""
    if kind == SEARCH:
        yield from ((first_id + reply.start, reply.values) for reply in replies)
    elif kind == PARTS:
        last = {reply.start: reply.values for reply in replies}  # with all that one before it had
        for _, values in sorted(
            last.items(), key=lambda item: item[0]
        ):  # ids of a part are behind those of the parts before it
            yield first_id, values
            first_id += len(values)


def _scan(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield (record, position behind it)."""
    with reading(path):
        data = path.read_bytes()
    if not data.startswith(_HEADER):
        if _HEADER.startswith(data):
            return  # killed while the first line was written
        found = _VERSION.match(data)
        if found and int(found[1]) > int(_HEADER.split()[-1]):
            raise RunDirectoryError(
                f"{path} was written by a newer version of gradfree. Update gradfree to use it."
            )
        raise RunDirectoryError(
            f"{path} is not a journal of this version of gradfree. Put it back as it was; without it, "
            "everything is evaluated again."
        )
    position, damaged = len(_HEADER), 0
    while position < len(data):
        body = _body(data, position)
        if body is None:
            # Torn, if nothing sound follows; else damaged, and the next mark shows where to go on.
            position = data.find(_MARK, position + 1)
            while position >= 0 and _body(data, position) is None:
                position = data.find(_MARK, position + 1)
            if position < 0:
                break
            damaged += 1
            continue
        position += _FRAME.size + _CHECK.size + len(body)
        step, first_id, kind, start, count, length = _HEAD.unpack_from(body)
        values = np.frombuffer(body, "<f8", count, _HEAD.size).astype(np.float64)
        rest = body[_HEAD.size + 8 * count :]
        failures = tuple(Failure(*entry) for entry in json.loads(rest[:length])) if length else ()
        extras = load_arrays(rest[length:]) if len(rest) > length else {}
        yield Record(step, first_id, kind, Reply(start, values, failures, extras=extras)), position
    if damaged:
        warnings.warn(
            f"{path} is damaged in {damaged} places; the records there are left out, and evaluated again "
            "where the search needs them.",
            ZooWarning,
            stacklevel=2,
        )


def _packed(step: int, first_id: int, kind: int, reply: Reply) -> bytes:
    failures = json.dumps([f[:3] for f in reply.failures]).encode() if reply.failures else b""
    found = {name: np.ascontiguousarray(extra) for name, extra in reply.extras.items()}
    extras = save_arrays(found) if found else b""
    head = _HEAD.pack(step, first_id, kind, reply.start, len(reply.values), len(failures))
    body = head + np.ascontiguousarray(reply.values, "<f8").tobytes() + failures + extras
    frame = _FRAME.pack(_MARK, len(body), zlib.crc32(body))
    return frame + _CHECK.pack(zlib.crc32(frame)) + body


def _body(data: bytes, position: int) -> bytes | None:
    """Return the body of the record at a position, or None if there is no sound one."""
    behind = position + _FRAME.size + _CHECK.size
    if behind > len(data):
        return None
    mark, length, checksum = _FRAME.unpack_from(data, position)
    (check,) = _CHECK.unpack_from(data, position + _FRAME.size)
    if mark != _MARK or zlib.crc32(data[position : position + _FRAME.size]) != check:
        return None
    body = data[behind : behind + length]
    return body if len(body) == length and zlib.crc32(body) == checksum else None
