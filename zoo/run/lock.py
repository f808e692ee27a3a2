"""The lock of a run directory: `flock` of a file in it, which the dead do not hold, nor what they started."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import warnings
from pathlib import Path

from zoo.core.errors import RunDirectoryError, ZooWarning

_PAUSE = 0.002  # seconds between two looks whether a lock is free
_GRACE = 0.2  # seconds for which a child that was just forked may have it after its parent was killed
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_locks: dict[int, tuple[int, int]] = {}  # by descriptor, which file it is


def locked(path: Path, wait: float) -> int:
    """Lock a directory for this process, and return what `unlock` is given.

    Args:
        path: The directory.
        wait: Seconds for which another process may go on holding it.

    Raises:
        RunDirectoryError: It cannot be written, or is in use for longer.
    """
    try:
        handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be written: {error.strerror}. A run needs a directory that it may write to: copy "
            "this one, or choose another; `zoo report --out ELSEWHERE` shows it as it is."
        ) from error
    status = os.fstat(handle)
    file = status.st_dev, status.st_ino
    until = time.monotonic() + (wait if file in _locks.values() else max(wait, _GRACE))
    while True:
        try:
            # The operating system lets go of it when the process ends, however it ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_PAUSE)
                continue
            os.close(handle)
            who = "by another process"
            if file in _locks.values():
                who = "in this process, by a session or run that was not closed"
            raise RunDirectoryError(
                f"{path} is in use {who}. Wait until that has ended, or end it; the dead hold nothing."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise RunDirectoryError(f"{path} cannot be locked: {error.strerror}.") from error
            # To refuse would leave nothing to run on where whole clusters share such a file system.
            warnings.warn(
                f"{path} cannot be locked, as its file system has no locks ({error.strerror}): make sure "
                "that no other process uses it.",
                ZooWarning,
                stacklevel=5,
            )
        _locks[handle] = file
        return handle


def unlock(handle: int) -> None:
    """Let go of a directory."""
    if handle in _locks:  # which a forked child's are not
        del _locks[handle]
        with contextlib.suppress(OSError):  # of a file system without locks
            fcntl.flock(handle, fcntl.LOCK_UN)  # also where such a child has not closed its copy yet
        os.close(handle)


def _forget_locks() -> None:
    for handle in _locks:
        os.close(handle)
    _locks.clear()


# A forked child would hold on to the lock when its parent is long gone.
os.register_at_fork(after_in_child=_forget_locks)
