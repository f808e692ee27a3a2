"""Take nodes away from a Ray cluster under a run and give it others, kill the driver, share GPUs out.

    python benchmarks/cluster.py        two or three minutes, on one machine

The cluster is the one that Ray has for such tests: every node is a set of processes of its own on this
machine. The head has no CPU, each other node has one, and a run evaluates 200 points of 200 ms on two.
What it comes to is compared with the same run in one process.

Each line of the table is one thing that happens: how many evaluations were on record in the end, how many
were lost or made twice, how many workers were replaced, for how long nothing came in, and whether digest
and metrics are those of the undisturbed run. The last line is JSON; the exit status is 0 when all is well.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import zoo  # noqa: E402 - from the tree that this file is part of
from benchmarks import faults  # noqa: E402
from zoo.core.objective import as_objective  # noqa: E402
from zoo.problems import rosenbrock  # noqa: E402
from zoo.run import journal  # noqa: E402
from zoo.run.directory import read_events  # noqa: E402

BUDGET, SECONDS = 200, 0.2
_NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}


class Row(NamedTuple):
    """What came of one thing that happened."""

    name: str
    evaluated: int
    lost: int
    replaced: int
    pause: float
    equal: bool
    ok: bool


def slow_rosenbrock(x: np.ndarray[Any, Any]) -> float:
    """Take a while, or hang without letting go of Python's lock as long as there is a certain file."""
    if os.path.exists(os.environ["CLUSTER_HANG"]):
        ctypes.PyDLL(None).sleep(3600)
    time.sleep(SECONDS)
    return float(rosenbrock(x))


def gpu_and_process(_: np.ndarray[Any, Any]) -> float:
    """Return the number of the GPU that the worker sees, after that of its process."""
    time.sleep(SECONDS)
    return 10.0 * os.getpid() + float(os.environ["CUDA_VISIBLE_DEVICES"])


class Nodes:
    """A cluster, and runs on it."""

    def __init__(self, parent: Path) -> None:
        from ray.cluster_utils import Cluster

        self.hang = parent / "hang"
        os.environ["CLUSTER_HANG"] = str(self.hang)  # workers have it from their nodes
        self.cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "num_cpus": 0})
        self.nodes = [self.cluster.add_node(**_NODE) for _ in range(2)]

    def close(self) -> None:
        self.cluster.shutdown()

    def add(self, **more: Any) -> None:
        self.nodes.append(self.cluster.add_node(**_NODE, **more))

    def remove(self) -> None:
        """End all processes of the oldest node at once."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def kill_raylet(self) -> None:
        """End the one process of the oldest node that all others depend on."""
        raylet(self.nodes.pop(0)).kill()

    def workers(self) -> list[Any]:
        """Return the processes of the run's workers."""
        children = [child for node in self.nodes for child in raylet(node).children()]
        return [child for child in children if child.name().startswith("ray::Actor")]

    def drive(self, out: Path) -> subprocess.Popen[bytes]:
        """Start a driver that begins a run, or goes on with it."""
        options = f"--x0 0x{faults.DIM} --method cma --budget {BUDGET} --seed 1 --workers 2".split()
        command = [sys.executable, "-c", "from zoo.cli import main; main()", "minimize"]
        command += ["benchmarks.cluster:slow_rosenbrock", *options, "--out", str(out)]
        return subprocess.Popen(
            [*command, "--address", self.cluster.address],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )

    def disturbed(self, name: str, *actions: Callable[[], None]) -> Row:
        """Let things happen to the nodes under a run, when a quarter, a half, ... of it are done."""
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent, "run")
            driver = self.drive(out)
            pauses = Pauses(out)
            for number, action in enumerate(actions, 1):
                pauses.watch(driver, BUDGET * number // 4)
                action()
            pauses.watch(driver, BUDGET)
            return compared(name, out, pauses.longest, driver.wait() == 0)

    def driver_killed(self) -> Row:
        """Kill a driver whose workers hold Python's lock; they end, the nodes stay, and the run goes on."""
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent, "run")
            driver = self.drive(out)
            Pauses(out).watch(driver, BUDGET // 2)
            self.hang.touch()
            time.sleep(1.0)
            workers = self.workers()
            driver.kill()
            driver.wait()
            began = time.monotonic()
            while any(worker.is_running() for worker in workers) and time.monotonic() < began + 60.0:
                time.sleep(0.01)
            pause = time.monotonic() - began
            self.hang.unlink()
            ok = len(workers) == 2 and pause < 15.0 and all(raylet(node).is_running() for node in self.nodes)
            return compared("driver killed", out, pause, ok and self.drive(out).wait() == 0)

    def gpus_shared(self) -> Row:
        """Have eight workers share the two GPUs of a node."""
        executor = zoo.Ray(8, gpus_per_worker=0.25, address=self.cluster.address)
        candidates, seen = zoo.Rows(np.zeros((64, 1))), set[float]()
        with executor.open(as_objective("benchmarks.cluster:gpu_and_process")):
            while len(seen) < 8:
                seen |= set(executor.evaluate(candidates, zoo.Key(0), 0).values.tolist())
        shares = Counter(value % 10 for value in seen)
        name = f"eight workers on two GPUs: {' and '.join(map(str, shares.values()))}"
        return Row(name, 64, 0, 0, 0.0, True, shares == {0: 4, 1: 4})


class Pauses:
    """For how long at most nothing is put on record of a run."""

    def __init__(self, out: Path) -> None:
        self.out, self.longest, self._count, self._since = out, 0.0, 0, time.monotonic()

    def watch(self, driver: subprocess.Popen[bytes], count: int) -> None:
        """Wait until so many evaluations are on record, or the driver has ended."""
        while self._count < count and driver.poll() is None:
            time.sleep(0.01)
            now = num_evaluated(self.out)
            if now > self._count:
                if self._count:  # before, it had to start
                    self.longest = max(self.longest, time.monotonic() - self._since)
                self._count, self._since = now, time.monotonic()


def compared(name: str, out: Path, pause: float, ok: bool) -> Row:
    row = faults.compare(name, 1, out, faults.undisturbed(budget=BUDGET))
    replaced = sum(event["event"] == "worker restarted" for event in read_events(out))
    evaluated = num_evaluated(out)
    ok &= row.ok and evaluated == BUDGET
    return Row(name, evaluated, row.lost, replaced, round(pause, 2), row.equal, ok)


def num_evaluated(out: Path) -> int:
    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


def raylet(node: Any) -> Any:
    import psutil

    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def rows() -> Iterator[Row]:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_AUTH_MODE="disabled")
    with tempfile.TemporaryDirectory() as parent, contextlib.closing(Nodes(Path(parent))) as nodes:
        yield nodes.disturbed("a node removed, another added", nodes.remove, nodes.add)
        yield nodes.disturbed("a raylet killed, a node added", nodes.kill_raylet, nodes.add)
        yield nodes.driver_killed()
        nodes.add(num_gpus=2)
        yield nodes.gpus_shared()


def main() -> int:
    """Run everything and print the table."""
    found = []
    for row in rows():
        found.append(row)
        print(f"{row.name}: {'ok' if row.ok else 'NOT OK'}", file=sys.stderr, flush=True)
    width = max(len(row.name) for row in found)
    print(f"{'what happened':<{width}}{'evaluated':>11}{'lost':>6}{'replaced':>10}{'pause':>8}  digest")
    for row in found:
        print(
            f"{row.name:<{width}}{row.evaluated:>11}{row.lost:>6}{row.replaced:>10}{row.pause:>6.1f} s  "
            f"{'equal' if row.equal else 'DIFFERENT'}"
        )
    ok = all(row.ok for row in found)
    print(json.dumps({"name": "cluster", "rows": [row._asdict() for row in found], "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
