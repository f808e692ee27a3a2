"""How many threads numerical libraries use: one, unless the experiment says otherwise.

The last bits of a sum depend on how many threads share it, so their number belongs to an experiment
and not to the machine that evaluates it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_lock = threading.Lock()
_counts: list[int] = []  # one for each block that is under way, the last one first to be left, as a rule
_common = contextlib.ExitStack()  # puts back what all threads of this process share


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Hold numpy's, scipy's and torch's thread pools to `threads` inside the block.

    Pools loaded already are held by `threadpoolctl` where that is installed, torch's by torch, those
    still to be loaded by the environment. Most of this belongs to the whole process: where blocks of
    several threads overlap, the one entered last decides, and the one left last puts things back.
    """
    global _common
    with contextlib.ExitStack() as own:
        with _lock:
            pools = _pools()
            if not _counts:
                _common = _remembered(pools)
            if pools is not None:
                # OpenMP's count is that of one thread. This comes first, to be left last: what it ends as
                # well is the right of this thread to set OpenBLAS's.
                own.enter_context(pools.select(user_api="openmp").limit(limits=threads))
            _counts.append(threads)
            own.callback(_leave, threads)
            _hold(threads, pools)
        yield


def _leave(threads: int) -> None:
    with _lock:
        del _counts[len(_counts) - 1 - _counts[::-1].index(threads)]
        if not _counts:
            _common.close()
        elif _counts[-1] != threads:
            _hold(_counts[-1], _pools())


def _pools() -> Any:
    """Return the controller of the pools there are, or None where `threadpoolctl` is missing."""
    return _pools_of(len(sys.modules))


@functools.lru_cache(1)
def _pools_of(_modules: int) -> Any:
    # Looking for libraries takes a millisecond, and new ones come with new modules.
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def _remembered(pools: Any) -> contextlib.ExitStack:
    """Return what puts everything that threads share back to how it is now."""
    stack = contextlib.ExitStack()
    for name in VARIABLES:
        stack.callback(_set_variable, name, os.environ.get(name))
    torch = sys.modules.get("torch")
    if torch:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
    if pools is not None:
        stack.callback(pools.select(user_api="blas").limit(limits=None).restore_original_limits)
    return stack


def _hold(threads: int, pools: Any) -> None:
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    if pools is not None:
        pools.select(user_api="blas").limit(limits=threads)
    torch = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(threads)


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
