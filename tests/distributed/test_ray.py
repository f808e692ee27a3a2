"""Workers as Ray actors, for real."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import faults
from tests.contracts.test_workers import Opened
from tests.distributed import objectives
from tests.distributed.objectives import points
from tests.distributed.test_shards import Run, serial
from zoo.core.errors import EvaluationError, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution.executor import Serial
from zoo.execution.ledger import Ledger
from zoo.execution.packing import encode
from zoo.execution.ray import Ray
from zoo.execution.transport import Answered, Died, Ready
from zoo.execution.worker import Given

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def steps(executor, objective, count=2, n=24):
    """Return the values of some steps as bytes."""
    with executor.open(objective):
        return [executor.evaluate(points(n, seed=i), Key(1), i).values.tobytes() for i in range(count)]


def test_same_bytes_as_serial(cluster):
    slow, wave = as_objective(objectives.slow_wave), as_objective(objectives.wave)
    batches = objectives.Batches()
    assert steps(Ray(3), slow) == steps(Serial(), wave)
    assert steps(Ray(1), batches) == steps(Serial(), batches)
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


def test_all_workers_killed_at_once(cluster):
    row = faults.worker_kills("Ray", 1, together=True)
    assert (row.faults, row.lost, row.equal, row.wrong) == (1, 0, True, ())


def test_hung_evaluations_end_at_the_deadline(cluster):
    row = faults.fatal_evaluations("Ray", "hang", "sleep", "native sleep", timeout=0.5)
    assert (row.faults, row.lost, row.equal, row.wrong) == (2, 0, True, ())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_same_bytes_on_one_to_three_workers(cluster, tmp_path, number):
    executor = Ray(number, replicated=number == 3)
    with executor.open(as_objective(faults.erratic_rosenbrock)):
        for method in faults.METHODS:
            options = {"method": method, "budget": 90, "workers": Opened(executor)}
            faults.minimize(tmp_path / method, faults.erratic_rosenbrock, **options)
            assert faults.outcome(tmp_path / method)[:2] == faults.undisturbed(method, 90)[:2]


def started(executor, objective=None):
    """Return a transport whose workers are all ready."""
    transport = executor.connect(encode(objective))
    for worker in range(executor.num_workers):
        transport.start(worker)
    wait_for(transport, Ready, executor.num_workers)
    return transport


def wait_for(transport, kind, count, seconds=60.0):
    """Return so many events, all of one kind."""
    events, end = [], time.monotonic() + seconds
    while len(events) < count and time.monotonic() < end:
        events += transport.poll(0.1)
    assert [type(event) for event in events] == [kind] * count
    return events


def answers(transport, task, num_workers):
    """Return what a function of the worker's memory gives on every worker, in their order."""
    for worker in range(num_workers):
        transport.call(worker, worker, encode(task))
    events = wait_for(transport, Answered, num_workers)
    return [event.answer for event in sorted(events)]


def visible_gpus(memory):
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_four_workers_share_two_gpus(cluster):
    executor = Ray(4, gpus_per_worker=0.5)
    transport = started(executor)
    assert Counter(answers(transport, visible_gpus, 4)) == {"0": 2, "1": 2}
    transport.close()
    assert executor.describe()["gpus_per_worker"] == 0.5


def test_workers_without_gpus_see_none(cluster, monkeypatch):
    transport = started(Ray(1, runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": "0", "GREETING": "hello"}}))
    seen = answers(transport, lambda memory: (visible_gpus(memory), os.environ["GREETING"]), 1)
    assert seen == [("", "hello")]
    transport.close()


@pytest.mark.parametrize(
    ("executor", "says"),
    [
        (
            lambda: Ray(4),
            r"Ray\(4\) needs 1 CPU for each worker, and the cluster has 3 .* room for 3 workers",
        ),
        (lambda: Ray(9, gpus_per_worker=0.25), "needs 0.25 GPU .* the cluster has 2 .* room for 8 workers"),
        (lambda: Ray(3, gpus_per_worker=0.6), "room for 2 workers"),
        (lambda: Ray(1, gpus_per_worker=3), "needs 3 GPU .* room for 0 workers"),
        (lambda: Ray(1, address="192.0.2.9:6379"), "`address` is '192.0.2.9:6379', and Ray is running"),
        (lambda: Ray(1, address="local"), "call ray.shutdown"),
    ],
)
def test_what_the_cluster_cannot_give(cluster, executor, says):
    with pytest.raises(ValueError, match=says):
        executor().connect(encode(None))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"gpus_per_worker": 1.5}, ValueError, "`gpus_per_worker` must be 0, a fraction below 1"),
        ({"address": 6379}, TypeError, '`address` must be "host:port"'),
        ({"runtime_env": "numpy"}, TypeError, "`runtime_env` must be a dict"),
        ({"timeout": 0}, ValueError, "`timeout` must be a finite number above 0"),
    ],
)
def test_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        Ray(2, **arguments)


def test_large_arrays_are_sent_once_and_not_kept(cluster):
    size, key = 200_000, Key(0)
    rows = Rows(np.arange(2.0 * size).reshape(2, size))
    address = cluster.get_runtime_context().gcs_address
    executor = Ray(2, address=f"localhost:{address.rpartition(':')[2]}")
    transport = started(executor, as_objective(lambda x: float(x[1]) + 100 * x.base.flags.writeable))
    before = transport.sent
    for step in range(4):
        rows.array[:, 1] = step // 2  # what is the same as in the step before is not sent again
        message = encode(Given(rows, range(3), key, step))
        for worker in range(2):
            transport.begin(worker, message)
            transport.evaluate(worker, worker, worker, worker + 1)
        values = [event.answer.reply.values.tolist() for event in wait_for(transport, Answered, 2)]
        assert values == [[100.0 + step // 2]] * 2  # rows are the objective's own to write to
    assert 2 * rows.array.nbytes < transport.sent - before < 2.01 * rows.array.nbytes
    large = np.arange(30_000.0)
    sums = answers(transport, lambda memory, large=large: large.cumsum(out=large), 2)
    assert all((array == np.arange(30_000.0).cumsum()).all() for array in sums)
    assert transport.received > sum(array.nbytes for array in sums)
    for worker in range(2):
        transport.begin(worker, message)
    assert len(transport._bases) == 1
    transport.close()


def test_parts_of_killed_workers_are_the_same_elsewhere(cluster):
    executor = Ray(2)

    def kill():
        os.kill(executor.pids()[0], signal.SIGKILL)

    run = Run(executor, before=[(2, kill), (5, kill)])
    assert run.outcome == serial()
    assert run.account.restarts == 2


def test_an_ended_worker_is_told_dead(cluster):
    transport = started(Ray(2))
    transport.call(0, 0, encode(lambda memory: time.sleep(60)))
    for worker in range(2):  # one that is busy, and one that is not
        transport.end(worker)
        transport.end(worker)
    assert wait_for(transport, Died, 2) == [Died(0, "it was ended"), Died(1, "it was ended")]
    assert transport.pids() == []
    transport.evaluate(0, 1, 0, 1)
    assert transport.poll(0.0) == []
    transport.close()


def script(path, text):
    """Run a script with a Ray of its own, and return what it prints, to standard error as well."""
    path.write_text(textwrap.dedent(text))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.run(
        [sys.executable, path],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines(), process.stderr


@needs_ray
def test_started_and_shut_down_by_the_executor(tmp_path):
    """A script without a guard, with Ray of its own in little shared memory: quiet, and nothing is left."""
    (values, pids, niceness), errors = script(
        tmp_path / "script.py",
        """
        import os, signal, sys, time
        import numpy as np
        import zoo.execution.ray
        assert "ray" not in sys.modules
        from zoo.core.objective import as_objective
        from zoo.core.rng import Key
        from zoo.core.types import Rows

        def helper(x):
            return 1.0

        def start(*arguments, start=zoo.execution.ray._start):
            import ray._private.utils
            ray._private.utils.get_shared_memory_bytes = lambda: 64 * 2**20
            start(*arguments)

        zoo.execution.ray._start = start
        handler, variables = signal.getsignal(signal.SIGTERM), dict(os.environ)
        executor = zoo.execution.ray.Ray(2)
        candidates = Rows(np.arange(3e5).reshape(3, 100_000))
        with executor.open(as_objective(lambda x: float(x[0]) + helper(x))):
            assert dict(os.environ) == variables
            executor.evaluate(candidates, Key(0), 0)
            killed = executor.pids()[0]
            os.kill(killed, signal.SIGKILL)
            print(executor.evaluate(candidates, Key(0), 0).values.tolist())
            while killed in executor.pids() or len(executor.pids()) < 2:
                executor.evaluate(candidates, Key(0), 0)
            print(*executor.pids())
            print(*{os.getpriority(os.PRIO_PROCESS, pid) for pid in executor.pids()})
        assert signal.getsignal(signal.SIGTERM) is handler
        """,
    )
    assert values == "[1.0, 100001.0, 200001.0]"
    assert niceness == str(os.getpriority(os.PRIO_PROCESS, 0))
    assert errors == ""
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids.split()):
        assert time.monotonic() < end
        time.sleep(0.1)


@needs_ray
def test_joined_and_left(tmp_path):
    """The user's modules come along, and the cluster lives on."""
    modules = tmp_path / "modules"
    (modules / "tasks").mkdir(parents=True)
    (modules / "tasks" / "__init__.py").write_text("")
    (modules / "tasks" / "shift.py").write_text(
        "from beside import SHIFT\ndef loss(x): return x[0] + SHIFT\n"
    )
    (modules / "beside.py").write_text("SHIFT = 100.0\n")
    (joined, environment, again), _ = script(
        tmp_path / "script.py",
        """
        import os, sys
        import numpy as np
        import zoo
        from zoo.core.objective import as_objective
        from ray.cluster_utils import Cluster

        def value(**arguments):
            executor = zoo.Ray(1, **arguments)
            with executor.open(objective):
                return executor.evaluate(zoo.Rows(np.ones((1, 2))), zoo.Key(0), 0).values[0]

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        sys.path.insert(0, "modules")
        objective = as_objective("tasks.shift:loss")
        del sys.path[0]  # elsewhere the directory does not exist
        os.environ["RAY_ADDRESS"] = cluster.address
        print(value())
        try:
            value(runtime_env={"env_vars": {}})
        except zoo.EvaluationError as error:
            print(error)
        del os.environ["RAY_ADDRESS"]
        print(value(address=cluster.address))
        cluster.shutdown()
        """,
    )
    assert joined == again == "101.0"
    assert environment.endswith("no module 'tasks'.")


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(300)  # it starts Ray four times
def test_drivers_stopped_and_killed_lose_nothing_and_leave_nothing():
    """When a driver is killed, the objective holds Python's lock on every worker, and has a child there."""
    row = faults.stopped("Ray", ["benchmarks.faults:stubborn_rosenbrock"], "TERM", "KILL", "INT", "KILL")
    assert (row.faults, row.lost, row.equal, row.wrong) == (4, 0, True, ())


def test_without_ray(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"`zoo\.Ray` needs Ray, which is not installed"):
        Ray(2)
