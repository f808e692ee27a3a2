"""One start of Ray for all tests that need it."""

import pytest


@pytest.fixture(scope="session")
def cluster():
    """Run Ray with three CPUs and two GPUs that do not exist, and have it shut down at the end."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=3,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield ray
    ray.shutdown()
