"""Large arrays that the driver and the workers beside it have in common.

What is new in a message is written once, to a file that exists in memory only and that nobody can change
any more: a segment. Every worker that needs it is passed the open file over its socket, and maps it. Driver
and worker know a segment by its number, and the driver says which ones to forget. It keeps what was sent
lately, so that an array which comes again need not be written again.

Where a system has no such files, arrays travel inside the frames.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zoo.execution.packing import Base, Message

_KEPT_BYTES = 2**26  # in segments that the last message does not need
_KEPT = 16  # such segments
_SPREAD = 8  # segments that the arrays of one message may lie in; else they are written together again
_ALIGNED = 64  # bytes, at multiples of which arrays begin


class Place(NamedTuple):
    """Where an array lies: the number of a segment, and the bytes in it."""

    segment: int
    start: int
    stop: int


class Segment:
    """A file in memory that holds some arrays and cannot be changed; closed with the last use of this.

    Args:
        number: Its number, never given twice.
        bases: The arrays.

    Raises:
        OSError: There is no memory, or no file to be had.
    """

    def __init__(self, number: int, bases: Iterable[Base]) -> None:
        self.number, self.size = number, 0
        self.places: dict[str, Place] = {}
        self._file = os.memfd_create("gradfree", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self._file)
        for digest, buffer in bases:
            start = -(-self.size // _ALIGNED) * _ALIGNED
            self.size = start + buffer.nbytes
            self.places[digest] = Place(number, start, self.size)
            while start < self.size:
                start += os.pwrite(self._file, buffer[start - self.size :], start)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)

    def fileno(self) -> int:
        """Return the descriptor of the open file."""
        return self._file


class Parcel(NamedTuple):
    """A message with its arrays put where workers find them.

    Attributes:
        body: The pickle.
        arrays: For each array in order its place, or itself.
        segments: What the arrays lie in.
    """

    body: bytes
    arrays: tuple[Place | bytes, ...]
    segments: tuple[Segment, ...] = ()


class Store:
    """The driver's segments.

    Attributes:
        written: Bytes written to segments so far.
    """

    def __init__(self) -> None:
        self.written = 0
        self._numbers = itertools.count()
        self._segments: dict[int, Segment] = {}  # the ones used last come last
        self._places: dict[str, Place] = {}
        self._lasting: set[int] = set()

    @property
    def numbers(self) -> set[int]:
        """Segments that may be needed again."""
        return set(self._segments)

    def put(self, message: Message, *, lasting: bool = False) -> Parcel:
        """Write what is new of a message's arrays, and forget what has not been needed for long.

        Args:
            message: The message.
            lasting: Whether its arrays are never to be forgotten.
        """
        bases = dict(message.bases)
        known = {digest: self._places[digest] for digest in bases if digest in self._places}
        if len({place.segment for place in known.values()}) >= _SPREAD:
            known = {}
        fresh = [Base(digest, buffer) for digest, buffer in bases.items() if digest not in known]
        if fresh and not self._write(fresh):
            return Parcel(message.body, tuple(bytes(base.buffer) for base in message.bases))
        places = tuple(self._places[base.digest] for base in message.bases)
        used = dict.fromkeys(place.segment for place in places)
        for number in used:
            self._segments[number] = self._segments.pop(number)
        if lasting:
            self._lasting.update(used)
        segments = tuple(self._segments[number] for number in used)
        self._forget([n for n in self._segments if n not in used and n not in self._lasting])
        return Parcel(message.body, places, segments)

    def _write(self, bases: Sequence[Base]) -> bool:
        """Return whether a segment could be made."""
        if not hasattr(os, "memfd_create"):
            return False
        try:
            segment = Segment(next(self._numbers), bases)
        except OSError:  # what is missing here may be there for the next message
            return False
        self.written += sum(base.buffer.nbytes for base in bases)
        self._segments[segment.number] = segment
        self._places |= segment.places
        return True

    def _forget(self, idle: list[int]) -> None:
        left = sum(self._segments[number].size for number in idle)
        gone = 0
        while len(idle) - gone > _KEPT or left > _KEPT_BYTES:
            left -= self._segments.pop(idle[gone]).size
            gone += 1
        if gone:
            self._places = {d: place for d, place in self._places.items() if place.segment in self._segments}


class Shelf:
    """A worker's segments.

    Attributes:
        files: Open files that were passed to it, for messages still to be read.
    """

    def __init__(self) -> None:
        self.files: deque[int] = deque()
        self._segments: dict[int, memoryview] = {}

    def change(self, fresh: Iterable[int], forgotten: Iterable[int]) -> None:
        """Map the next of `files` under new numbers, and forget others; arrays in use stay what they are."""
        for number in forgotten:
            del self._segments[number]
        for number in fresh:
            self._segments[number] = self._mapped(mmap.PROT_READ)

    def read(self, arrays: Iterable[Place | bytes]) -> list[memoryview]:
        """Return arrays that are only to be read, as others read them too."""
        return [_part(self._segments, array) for array in arrays]

    def own(self, fresh: Iterable[int], arrays: Iterable[Place | bytes]) -> list[memoryview]:
        """Return arrays in the next of `files`, a page of which is copied as it is written to."""
        segments = {number: self._mapped(mmap.PROT_READ | mmap.PROT_WRITE) for number in fresh}
        views = [_part(segments, array) for array in arrays]
        return [memoryview(bytearray(view)) if view.readonly else view for view in views]

    def _mapped(self, protection: int) -> memoryview:
        file = self.files.popleft()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, file)
            return memoryview(mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=protection))


def _part(segments: dict[int, memoryview], array: Place | bytes) -> memoryview:
    if isinstance(array, bytes):
        return memoryview(array)
    return segments[array.segment][array.start : array.stop]
