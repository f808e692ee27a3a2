"""Count what faults cost: kill drivers, workers and checkpoint writers, and compare digests.

    python benchmarks/faults.py                 all of it, several minutes
    python benchmarks/faults.py --ray           with Ray workers as well
    python benchmarks/faults.py --kills 3       fewer kills everywhere

Each line of the table is one kind of fault: how many were injected, how many evaluations were lost,
and whether the final digest is that of the undisturbed run. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import zoo  # noqa: E402 - from the tree that this file is part of
from zoo.core.errors import CheckpointError  # noqa: E402
from zoo.problems import rosenbrock  # noqa: E402
from zoo.run import checkpoint, journal  # noqa: E402
from zoo.run.digest import digest_of_run  # noqa: E402

DIM = 6


class Row(NamedTuple):
    """What one kind of fault did."""

    name: str
    faults: int
    lost: int
    equal: bool


def slow_rosenbrock(x: np.ndarray[Any, Any]) -> float:
    """Rosenbrock's function, taking three milliseconds over it."""
    time.sleep(0.003)
    return float(rosenbrock(x))


def undisturbed(method: str, budget: int, directory: Path) -> str:
    """Return the digest of a run that nothing happens to."""
    zoo.minimize(
        "benchmarks.faults:slow_rosenbrock", np.zeros(DIM), method=method, budget=budget, rng=1, out=directory
    )
    return digest_of_run(directory).total


_DRIVER = """
import sys
import numpy as np
import zoo, zoo.run.loop
zoo.run.loop.CHECKPOINT_SECONDS = 0.05
method, budget, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
fun = "benchmarks.faults:slow_rosenbrock"
zoo.minimize(fun, np.zeros({dim}), method=method, budget=budget, rng=1, out=out)
"""


def driver_kills(method: str, kills: int, budget: int = 400, seed: int = 0) -> Row:
    """Kill the driver at random moments, resume it each time, and compare with an undisturbed run."""
    gaps = np.random.default_rng(seed).uniform(0.3, 1.1, kills) * budget / (kills + 1)
    with tempfile.TemporaryDirectory() as parent:
        expected = undisturbed(method, budget, Path(parent, "undisturbed"))
        out = Path(parent, "disturbed")
        command = [sys.executable, "-c", _DRIVER.format(dim=DIM), method, str(budget), str(out)]
        done = hit = evaluated = 0
        while True:
            child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
            if hit < kills:
                wanted = done + gaps[hit]
                while child.poll() is None and _num_evaluated(out) < wanted:
                    time.sleep(0.002)
                if child.poll() is None:
                    child.kill()
                    hit += 1
            status = child.wait()
            done = _num_evaluated(out)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise SystemExit(f"the driver ended with status {status}")
            evaluated = max(evaluated, done)
        digest = digest_of_run(out)
        lost = max(0, evaluated - digest.counters["nfev"]) + _evaluated_twice(out)
        return Row(f"driver killed, {method}", hit, lost, digest.total == expected)


def worker_kills(executor: Any, name: str, kills: int, budget: int = 500, seed: int = 0) -> Row:
    """Kill workers at random moments of one run, and compare with a run without workers.

    The moments are numbers of evaluations, so that the run gets on between two kills: three kills of the
    very same evaluation would rightly count against it.
    """
    generator = np.random.default_rng(seed)
    moments = np.sort(generator.uniform(0.05, 0.95, kills)) * budget
    killed: list[int] = []
    over = threading.Event()

    def kill(out: Path) -> None:
        for moment in moments:
            while not over.is_set():
                pids = [pid for pid in executor.pids() if pid not in killed]
                if pids and _num_evaluated(out) >= moment:
                    killed.append(int(generator.choice(pids)))
                    os.kill(killed[-1], signal.SIGKILL)
                    break
                time.sleep(0.01)

    with tempfile.TemporaryDirectory() as parent:
        expected = undisturbed("cma", budget, Path(parent, "undisturbed"))
        out = Path(parent, "disturbed")
        thread = threading.Thread(target=kill, args=[out])
        thread.start()
        try:
            result = zoo.minimize(
                "benchmarks.faults:slow_rosenbrock",
                np.zeros(DIM),
                method="cma",
                budget=budget,
                rng=1,
                out=out,
                workers=executor,
            )
        finally:
            over.set()
            thread.join()
        digest = digest_of_run(out)
        lost = result.num_failed + budget - digest.counters["nfev"]
        return Row(f"worker killed, {name}", len(killed), lost, digest.total == expected)


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from zoo.run import checkpoint
for step in range(int(sys.argv[2]), 1000000):
    checkpoint.save(Path(sys.argv[1]), step, {"dict": {"step": step}}, {"a": np.full(1000000, float(step))})
    print(step, flush=True)
"""


def checkpoint_kills(kills: int, seed: int = 0) -> Row:
    """Kill a process that writes checkpoints of 8 MB without a pause; each time the newest must load."""
    generator = np.random.default_rng(seed)
    unreadable = 0
    with tempfile.TemporaryDirectory() as parent:
        directory, step = Path(parent, "checkpoints"), 0
        for _ in range(kills):
            command = [sys.executable, "-c", _WRITER, str(directory), str(step)]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
            ) as child:
                assert child.stdout is not None
                said = int(child.stdout.readline())
                time.sleep(generator.uniform(0, 0.15))
                child.kill()
                said = max([said, *(int(line) for line in child.stdout.read().splitlines() if line.strip())])
            try:
                loaded = checkpoint.load(directory)
                sound = loaded is not None and loaded[0] >= said and bool((loaded[2]["a"] == loaded[0]).all())
            except CheckpointError:
                sound = False
            unreadable += not sound
            step = said + 1
    return Row("checkpoint writer killed", kills, unreadable, unreadable == 0)


def _num_evaluated(out: Path) -> int:
    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


def _evaluated_twice(out: Path) -> int:
    """Count the evaluations on record more than once: a resumed run should have found them there."""
    seen: set[tuple[int, int, int]] = set()
    twice = 0
    for record in journal.read(out / "evaluations.bin"):
        for row in range(record.reply.start, record.reply.stop):
            place = record.kind, record.step, row
            twice += place in seen
            seen.add(place)
    return twice


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--kills", type=int, default=None, help="kills of each kind, instead of 20, 40 and 10"
    )
    parser.add_argument("--ray", action="store_true", help="kill Ray workers as well")
    given = parser.parse_args()
    kills = given.kills or 20
    rows = [driver_kills(method, kills, 60 * kills) for method in ("cma", "zo-adam", "pycma")]
    rows.append(checkpoint_kills(given.kills or 40))
    rows.append(worker_kills(zoo.Processes(2), "processes", given.kills or 10))
    if given.ray:
        rows.append(worker_kills(zoo.Ray(2), "Ray", given.kills or 10))
    print(f"{'fault':<28}{'injected':>9}{'lost':>6}  digest")
    for row in rows:
        print(f"{row.name:<28}{row.faults:>9}{row.lost:>6}  {'equal' if row.equal else 'DIFFERENT'}")
    ok = all(row.equal and not row.lost for row in rows)
    print(json.dumps({"name": "faults", "rows": [row._asdict() for row in rows], "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
