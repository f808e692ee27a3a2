"""How many threads numerical libraries use: one, unless the experiment says otherwise.

The last bits of a sum depend on how many threads share it, so their number belongs to an experiment
and not to the machine that evaluates it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Hold numpy's, scipy's and torch's thread pools to `threads` inside the block.

    Pools loaded already are held by `threadpoolctl` where that is installed, torch's by torch, those
    still to be loaded by the environment.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch else 0
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(threads))
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(torch_threads)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
