"""DeepZero on workers that die and under drivers that are killed: the same bytes in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.distributed import networks
from tests.distributed.fake import Fake, Faults
from zoo.core.errors import RunDirectoryError
from zoo.estimators.finite_difference import FiniteDifference
from zoo.methods.descent import Descent
from zoo.run import checkpoint, journal
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events
from zoo.updates.momentum import Momentum

ROOT = Path(__file__).parents[2]
QUERIES = 2 * 25 + networks.STEPS * (96 + 40 + 1)  # for the scores, and of half of the weights and all else


def outcome(out):
    """Return what a run has come to: its digest, and the lines of its log."""
    return digest_of_run(out).total, (out / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what the training comes to in one process to which nothing happens, and its parameters."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    result = networks.run(out)
    assert result.success
    assert result.queries == QUERIES
    return outcome(out), result.x


@pytest.mark.parametrize(("number", "replicated"), [(1, True), (2, True), (3, False)])
def test_any_number_of_workers_in_any_order(tmp_path, undisturbed, number, replicated):
    faults = Faults(kill_before=(4, 13), kill_after=(9,), kill_all=(17,), duplicate=0.2, cut=0.2, delay=0.1)
    result = networks.run(tmp_path / "run", Fake(number, faults=faults, replicated=replicated))
    assert outcome(tmp_path / "run") == undisturbed[0]
    assert torch.equal(result.x, undisturbed[1])
    assert result.account["restarts"] >= 4


@pytest.mark.parametrize("number", [1, 3])
def test_processes(tmp_path, undisturbed, number):
    result = networks.run(tmp_path / "run", zoo.Processes(number))
    assert outcome(tmp_path / "run") == undisturbed[0]
    assert torch.equal(result.x, undisturbed[1])
    assert result.account["restarts"] == 0


def test_killed_workers_change_nothing(tmp_path, undisturbed):
    executor, killed = zoo.Processes(2, replicated=True), []

    def kill(step):
        if step.step in (1, 4):
            killed.append(executor.pids()[0])
            os.kill(killed[-1], signal.SIGKILL)

    result = networks.run(tmp_path / "run", executor, callback=kill)
    assert outcome(tmp_path / "run") == undisturbed[0]
    assert len(killed) == result.account["restarts"] == 2
    lost = [event for event in read_events(tmp_path / "run") if event["event"] == "worker lost"]
    assert len(lost) == 2


def test_a_killed_driver_loses_nothing(tmp_path, undisturbed):
    out = tmp_path / "run"
    for workers, share in ((2, 0.2), (1, 0.6)):
        process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "distributed" / "networks.py", out, str(workers)],
            env={**os.environ, "PYTHONPATH": str(ROOT), networks.SLOW: "0.002"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        until = time.monotonic() + 90
        while num_evaluated(out) < share * QUERIES and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read().decode()
        process.kill()
        process.communicate()
    reached = checkpoint.load(out / "checkpoints")[0]
    assert reached < networks.STEPS + 2
    on_record = num_evaluated(out)
    result = networks.run(out)
    assert outcome(out) == undisturbed[0]
    assert torch.equal(result.x, undisturbed[1])
    assert num_evaluated(out) == result.queries > on_record  # nothing was evaluated twice


def num_evaluated(out):
    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_anywhere_in_an_epoch_it_goes_on(tmp_path, undisturbed, stop):
    def callback(step):
        if step.step == stop:
            raise StopIteration

    first = networks.run(tmp_path / "run", callback=callback)
    assert (first.steps, first.message) == (stop, "the callback asked to stop")
    result = networks.run(tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed[0]
    assert torch.equal(result.x, undisturbed[1])
    assert result.history["step"].tolist() == [0, 0, *range(1, networks.STEPS + 1)]


def test_a_finished_run_is_read_and_another_refused(tmp_path, undisturbed):
    done = networks.run(tmp_path / "run")
    again = networks.run(tmp_path / "run")
    assert torch.equal(again.x, done.x)
    assert again.queries == done.queries
    assert np.array_equal(again.history["test"], done.history["test"], equal_nan=True)
    assert outcome(tmp_path / "run") == undisturbed[0]
    with pytest.raises(RunDirectoryError, match=r"holds another training: .*'steps' differs"):
        networks.run(tmp_path / "run", steps=networks.STEPS + 1)
    with pytest.raises(RunDirectoryError, match="with other data"):
        networks.run(tmp_path / "run", batch_size=10)
    zoo.minimize(lambda x: float(x @ x), np.ones(2), budget=20, rng=0, out=tmp_path / "other")
    with pytest.raises(RunDirectoryError, match="holds a run that is no training"):
        networks.run(tmp_path / "other")


@pytest.mark.parametrize("replicated", [False, True])
def test_random_vectors_go_through_the_same_loop(tmp_path, replicated):
    estimator = FiniteDifference("rademacher", 20, smoothing=1e-3, stencil="central")
    method = Descent(estimator, update=Momentum(0.9), learning_rate=0.01)
    outcomes = []
    for name, workers in (
        ("serial", 1),
        ("fake", Fake(3, faults=Faults(kill_before=(3, 9), duplicate=0.2), replicated=replicated)),
    ):
        result = networks.run(tmp_path / name, workers, method=method)
        assert result.queries == 40 * networks.STEPS
        outcomes.append((outcome(tmp_path / name), result.x.numpy().tobytes()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.ray
def test_ray(cluster, tmp_path, undisturbed):
    executor = zoo.Ray(2)
    killed = []

    def kill(step):
        if step.step == 3:
            killed.append(executor.pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    result = networks.run(tmp_path / "run", executor, callback=kill)
    assert outcome(tmp_path / "run") == undisturbed[0]
    assert result.account["restarts"] == len(killed) == 1
