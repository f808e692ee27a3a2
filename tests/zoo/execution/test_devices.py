"""Which worker gets which GPU, on machines that need not have any."""

import sys
import types

import pytest

from zoo.execution import devices
from zoo.execution.devices import check_gpus, explained, gpus_needed, shared_out, visible_gpus


@pytest.fixture
def see(monkeypatch):
    return lambda named: monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)


@pytest.mark.parametrize("value", [0, 0.25, 1 / 3, 1, 2.0])
def test_what_a_worker_may_have(value):
    assert check_gpus(value) == value


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), -0.5])
def test_what_no_worker_can_have(value):
    with pytest.raises(ValueError, match="`gpus_per_worker` must be 0, a fraction below 1 for workers that"):
        check_gpus(value)


@pytest.mark.parametrize("value", [True, "1", None])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="`gpus_per_worker` must be a number"):
        check_gpus(value)


@pytest.mark.parametrize(
    ("num_workers", "each", "needed"),
    [(8, 0, 0), (8, 0.25, 2), (9, 0.25, 3), (3, 1 / 3, 1), (10, 0.1, 1), (3, 0.4, 2), (3, 0.7, 3), (3, 2, 6)],
)
def test_how_many_it_takes(num_workers, each, needed):
    assert gpus_needed(num_workers, each) == needed


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("", []),
        ("0,1", ["0", "1"]),
        (" 2 , 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("NoDevFiles", []),
        ("GPU-8932f937,MIG-5e9f", ["GPU-8932f937", "MIG-5e9f"]),
    ],
)
def test_what_can_be_seen(see, named, found):
    see(named)
    assert visible_gpus() == found


def test_what_there_is_where_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "none")
    cuda = types.SimpleNamespace(device_count=lambda: 3)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert visible_gpus() == []
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(devices, "_DRIVER", tmp_path)
    assert visible_gpus() == ["0", "1"]


def test_they_are_shared_out_evenly(see):
    see("4,7")
    assert shared_out(8, 0.25) == ["4", "7"] * 4
    assert shared_out(3, 0.3) == ["4", "7", "4"]
    assert shared_out(2, 1) == ["4", "7"]
    assert shared_out(1, 2) == ["4,7"]
    assert shared_out(2, 0) == ["", ""]


@pytest.mark.parametrize(
    ("named", "num_workers", "each", "says"),
    [
        ("4,7", 3, 1, r"3 workers .* need 3 GPUs.* has 2 .*'4,7'\)\. Ask .* fewer .* gpus_per_worker=1/2\."),
        ("4,7", 9, 0.25, r"9 workers .* need 3 GPUs, and this machine has 2 .* gpus_per_worker=1/5\."),
        ("4,7", 2, 2, r"2 workers .* need 4 GPUs, and this machine has 2 .*Ask for fewer workers\.$"),
        ("", 1, 0.5, r"1 worker .* need 1 GPU, and this machine has none .*''\)\. Use gpus_per_worker=0"),
    ],
)
def test_too_few(see, named, num_workers, each, says):
    see(named)
    with pytest.raises(ValueError, match=says):
        shared_out(num_workers, each)


def test_advice(see):
    said = "RuntimeError: No CUDA GPUs are available\n\nTraceback"
    see("0")
    assert explained(said) == said
    see("")
    assert explained(said).startswith("RuntimeError: No CUDA GPUs are available (this worker has no GPU: ")
    assert explained(said).endswith(" by `gpus_per_worker`)\n\nTraceback")
    for other in (explained(said), "ValueError: seven", "ValueError: seven\n\n  in gpu.py"):
        assert explained(other) == other
