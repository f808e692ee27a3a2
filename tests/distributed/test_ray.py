"""Workers as Ray actors, for real."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import objectives
from tests.distributed.objectives import points
from zoo.core.errors import EvaluationError, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution.executor import Serial
from zoo.execution.ledger import Ledger
from zoo.execution.ray import Ray

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray


def steps(executor, objective, count=2, n=24):
    """Return the values of some steps as bytes."""
    with executor.open(objective):
        return [executor.evaluate(points(n, seed=i), Key(1), i).values.tobytes() for i in range(count)]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_same_bytes_as_serial(cluster, num_workers):
    slow, wave = as_objective(objectives.slow_wave), as_objective(objectives.wave)
    batches = objectives.Batches()
    assert steps(Ray(num_workers), slow) == steps(Serial(), wave)
    assert steps(Ray(num_workers), batches) == steps(Serial(), batches)
    assert cluster.is_initialized()


def test_killed_workers_change_nothing(cluster):
    executor, objective, events, ledgers = Ray(2), as_objective(objectives.slow_wave), [], []
    with executor.open(objective):
        for step in range(6):
            if step % 2 == 0 and step:
                pids = executor.pids()
                timer = threading.Timer(0.15, os.kill, [pids[0], signal.SIGKILL])
                timer.start()
            elif step == 1:
                os.kill(executor.pids()[0], signal.SIGKILL)
            ledger = Ledger(range(41), event=events.append)
            executor.evaluate(points(40, seed=step), Key(1), step, ledger)
            if step % 2 == 0 and step:
                timer.join()
            ledgers.append(ledger)
    assert [ledger.values.tobytes() for ledger in ledgers] == steps(
        Serial(), as_objective(objectives.wave), 6, 40
    )
    assert not any(ledger.evaluations().failures for ledger in ledgers)
    assert sum(ledger.account.restarts for ledger in ledgers) == 3
    assert sum(ledger.account.lost for ledger in ledgers) > 0
    assert [event["event"] for event in events] == ["worker lost", "worker restarted"] * 3


def test_poison_and_exceptions(cluster):
    executor = Ray(2)
    with executor.open(as_objective(objectives.ends_at_seven)):
        done = executor.evaluate(points(24), Key(0), 0)
    expected = np.array([objectives.wave(x) for x in points(24).array])
    expected[7] = np.nan
    assert done.values.tobytes() == expected.tobytes()
    assert [(f.row, f.kind) for f in done.failures] == [(7, "crashed")]
    with (
        executor.open(as_objective(objectives.raises_at_seven)),
        pytest.raises(EvaluationError, match="evaluation 7 raised twice: ValueError: seven") as caught,
    ):
        executor.evaluate(points(24), Key(0), 0, Ledger(range(25), on_error="raise"))
    assert "raises_at_seven" in caught.value.details


def test_what_cannot_be_sent_or_loaded(cluster):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="`fun` cannot be sent to workers"):
        steps(Ray(1), as_objective(lambda x: lock))
    with pytest.raises(WorkerError, match=r"could not load the objective: ImportError: libfoo"):
        steps(Ray(1), objectives.Unloadable())


def test_more_workers_than_cpus(cluster):
    with pytest.raises(ValueError, match=r"Ray\(4\) needs 1 CPU for each worker, .* room for 3"):
        steps(Ray(4), as_objective(objectives.wave))


def test_large_candidates_and_threads(cluster):
    rows = Rows(np.arange(1e6).reshape(40, 25000))
    executor = Ray(2)
    with executor.open(as_objective(lambda x: float(x[0]))):
        assert executor.evaluate(rows, Key(0), 0).values.tolist() == rows.array[:, 0].tolist()
    executor = Ray(1, threads=2)
    with executor.open(as_objective(objectives.variables)):
        assert executor.evaluate(points(1), Key(0), 0).values.tolist() == [222.0]


def test_started_and_shut_down_by_the_executor(tmp_path):
    """A script without a guard, with Ray of its own: quiet, and nothing is left behind."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        import numpy as np
        import zoo.execution.ray
        assert "ray" not in sys.modules
        from zoo.core.objective import as_objective
        from zoo.core.rng import Key
        from zoo.core.types import Rows

        def helper(x):
            return 1.0

        handler = signal.getsignal(signal.SIGTERM)
        executor = zoo.execution.ray.Ray(2)
        with executor.open(as_objective(lambda x: float(x[0]) + helper(x))):
            print(executor.evaluate(Rows(np.arange(3.0)[:, None]), Key(0), 0).values.tolist())
            print(*executor.pids())
            print(*{os.getpriority(os.PRIO_PROCESS, pid) for pid in executor.pids()})
        assert signal.getsignal(signal.SIGTERM) is handler
        assert not {"RAY_worker_niceness", "RAY_enable_metrics_collection"} & os.environ.keys()
        """
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.run(
        [sys.executable, path],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    values, pids, niceness = process.stdout.splitlines()
    assert values == "[1.0, 2.0, 3.0]"
    assert niceness == "0"
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids.split()):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_without_ray(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"`zoo\.Ray` needs Ray, which is not installed"):
        Ray(2)
