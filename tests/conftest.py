"""What holds in every test: one thread, no network, and global generators that nobody moves."""

from __future__ import annotations

import os

# Before numpy and torch are imported, here and in every process that a test starts.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    RAY_worker_niceness="0",
    RAY_USAGE_STATS_ENABLED="0",
    MPLBACKEND="Agg",
    HF_HUB_OFFLINE="1",
)

import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest


def global_generators() -> dict[str, Any]:
    """Return the state of every global generator that is loaded."""
    name, words, *rest = np.random.get_state()
    states: dict[str, Any] = {"python": random.getstate(), "numpy": (name, words.tobytes(), *rest)}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return states


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def global_generators_stay() -> Iterator[None]:
    """Fail a test after which a global generator is in another state than before."""
    before = global_generators()
    yield
    after = global_generators()
    moved = [name for name in before if before[name] != after[name]]
    assert not moved, f"the global generators of {', '.join(moved)} were used"
