"""Local workers on GPUs: numpy, torch, scipy, safetensors and pytest are all that this file needs.

python -m pytest tests/distributed/test_gpu.py
"""

import os
import signal

import numpy as np
import pytest

import zoo
from zoo.core.errors import EvaluationError, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution.executor import Serial
from zoo.execution.processes import Processes

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
HERE = "tests.distributed.test_gpu"
INPUTS, HIDDEN, BATCH = 8, 16, 64
DIM = (INPUTS + 1) * HIDDEN


class Network(zoo.Objective):
    """The error of a small network, built on the device of the worker."""

    unit = 8

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(BATCH, INPUTS, generator=generator).to(DEVICE)
        self.targets = torch.sin(self.inputs.sum(1))

    def __call__(self, x, *, key):
        x = torch.as_tensor(x, device=DEVICE, dtype=torch.float32)
        first, second = x.split([INPUTS * HIDDEN, HIDDEN], 1)
        hidden = torch.tanh(self.inputs @ first.reshape(-1, INPUTS, HIDDEN))
        return ((hidden @ second[:, :, None])[..., 0] - self.targets).square().mean(1)


def visible(x):
    """Return how many GPUs there are, here."""
    return float(torch.cuda.device_count())


def moves(x):
    """Move to a GPU what lies on the CPU."""
    return float(torch.ones(3).to(DEVICE).sum())


def start_on(device):
    return torch.as_tensor(0.1 * Key(0).normal(0, 1, DIM)[0], dtype=torch.float32, device=device)


def found(method, device, executor, callback=None):
    """Return what a run found, as bytes."""
    result = zoo.minimize(
        f"{HERE}:Network()",
        start_on(device),
        method=method,
        budget=400,
        rng=0,
        workers=executor,
        callback=callback,
    )
    assert result.nfev == 400
    assert result.num_failed == 0
    assert result.x.device.type == device
    return result.x.cpu().numpy().tobytes(), np.float64(result.fun).tobytes()


@pytest.mark.parametrize("device", [DEVICE, "cpu"])
@pytest.mark.parametrize("method", ["sep-cma", "zo-adam"])
def test_two_workers_on_one_gpu_find_the_bytes_of_one(method, device):
    one = found(method, device, Processes(1, gpus_per_worker=0.5))
    assert found(method, device, Processes(2, gpus_per_worker=0.5)) == one
    assert found(method, device, Serial()) == one


def test_a_killed_worker_changes_nothing():
    executor, killed = Processes(2, gpus_per_worker=0.5), []

    def kill(intermediate_result):
        if not killed:
            killed.append(executor.pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    assert found("sep-cma", DEVICE, executor, kill) == found("sep-cma", DEVICE, Serial())
    assert killed


def test_who_sees_a_gpu():
    for gpus, seen in ((0, 0.0), (0.5, 1.0), (1, 1.0)):
        executor = Processes(1, gpus_per_worker=gpus)
        with executor.open(as_objective(f"{HERE}:visible")):
            assert executor.evaluate(Rows(np.zeros((1, 1))), Key(0), 0).values.tolist() == [seen]


def test_without_a_gpu_it_is_said_what_to_do():
    with pytest.raises(EvaluationError, match=r"CUDA.*\(.* by `gpus_per_worker`\)"):
        zoo.minimize(f"{HERE}:moves", np.zeros(2), method="random", budget=4, workers=Processes(1))
    with pytest.raises(WorkerError, match=r"could not load the candidates: .* by `gpus_per_worker`"):
        zoo.minimize(f"{HERE}:visible", start_on(DEVICE), method="sep-cma", budget=40, workers=Processes(1))
    with pytest.raises(ValueError, match=r"100 workers .* need 100 GPUs"):
        zoo.minimize(f"{HERE}:visible", np.zeros(2), budget=4, workers=Processes(100, gpus_per_worker=1))
