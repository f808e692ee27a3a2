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
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# A shell starts what goes to the background with these ignored, and so would be all that a test starts.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling


def global_generators() -> dict[str, Any]:
    """Return the state of every global generator that is loaded."""
    name, words, *rest = np.random.get_state()
    states: dict[str, Any] = {"python": random.getstate(), "numpy": (name, words.tobytes(), *rest)}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return states


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that share one start of Ray for the end, when hardly anything else runs."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Run a file, or a group that is marked as one, in one process: it may share what is dear to start."""
    from xdist.scheduler import LoadGroupScheduling

    class Files(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            return nodeid.partition("::")[0] if scope == nodeid else scope

    return Files(config, log) if config.getvalue("dist") == "loadgroup" else None


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
