"""What worker processes are sent in tests of genomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evolution.genome import Codec, SharedTable
from zoo.core.device import Like
from zoo.core.objective import Objective
from zoo.core.rng import Key


class Carried(Objective):
    """The sum of a row, plus 1e6 where the numbers of the table are not in memory that is mapped from a file.

    Args:
        codec: What rows are made by.
        shared: Its table, or None to leave it to each process to draw it.
    """

    unit = 5

    def __init__(self, codec: Codec, shared: SharedTable | None) -> None:
        self.codec, self.shared = codec, shared

    def __call__(self, x: np.ndarray[Any, Any], *, key: Key) -> np.ndarray[Any, Any]:
        address = self.codec.noise.array(Like("numpy", "float32")).ctypes.data
        return x.astype(np.float64).sum(1) + (0 if is_mapped(address) else 1e6)


def is_mapped(address: int) -> bool:
    """Return whether what lies there in memory is that of the driver, see `zoo.execution.shared`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return "gradfree" in line
    return False
