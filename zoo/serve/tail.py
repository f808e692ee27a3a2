"""Files of a run as they grow: read only, and only what is new in them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20  # bytes of a log that are in memory at a time
_LONGEST = 1 << 26  # bytes of a line at most; more is damage
_MARK = 512  # bytes before the place read up to, by which another file is told from the same one
_LAST = 1 << 13  # bytes from the end in which to look for the last lines


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a plain file for reading; links are not followed, since they may lead anywhere.

    Raises:
        OSError: There is none, or something else in its place.
    """
    # Without O_NONBLOCK a pipe in its place would wait for somebody to write.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(f"{path} is no plain file")
        yield file
    finally:
        os.close(file)


def content(path: Path, most: int = 1 << 24) -> bytes:
    """Return what a small file holds.

    Raises:
        OSError: It cannot be read, or is larger than `most`.
    """
    with opened(path) as file:
        if os.fstat(file).st_size > most:
            raise OSError(f"{path.name} has more than {most} bytes")
        return os.read(file, most)


def last_lines(path: Path) -> list[bytes]:
    """Return some whole lines from the end of a log, empty if there are none."""
    with contextlib.suppress(OSError), opened(path) as file:
        size, length = os.fstat(file).st_size, _LAST
        while True:
            start = max(0, size - length)
            lines = os.pread(file, size - start, start).split(b"\n")
            whole = lines[:-1] if start == 0 else lines[1:-1]
            if whole or start == 0 or length >= _LONGEST:
                return whole
            length *= 8
    return []


class Tail:
    """The lines of a log, each read once and when it is whole.

    Attributes:
        began_anew: Whether what the last `read` returned is the file's beginning: it was cut back, or is
            another one. What was read before is void.
        more: Whether there is more to read at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._offset, self._mark = 0, b""
        self.began_anew = self.more = False

    def read(self) -> bytes:
        """Return whole lines that are new, about `CHUNK` bytes at most; empty if there are none."""
        self.began_anew = False
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except OSError:
            self.more = False
            return b""
        seen = status.st_ino, status.st_size, status.st_mtime_ns
        if seen == self._seen and not self.more:
            return b""
        try:
            with opened(self._path) as file:
                found = self._next(file)
        except OSError:  # it vanished just now, or may not be read
            found, self.more = b"", False
        self._seen = seen
        return found

    def _next(self, file: int) -> bytes:
        start = self._offset - len(self._mark)
        if os.pread(file, len(self._mark), start) != self._mark:
            self._offset, self._mark, self.began_anew = 0, b"", True
        length = CHUNK
        data = os.pread(file, length, self._offset)
        while b"\n" not in data and len(data) == length < _LONGEST:
            length *= 8
            data = os.pread(file, length, self._offset)
        self.more = len(data) == length
        whole = data[: data.rfind(b"\n") + 1]
        passed = data if not whole and self.more else whole  # of a line that is too long, no more is read
        self._offset += len(passed)
        self._mark = (self._mark + passed)[-_MARK:]
        return whole
