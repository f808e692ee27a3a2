"""What `zoo report` takes for a run of a million evaluations: CPU seconds and peak memory of the process.

It has one thread, so that seconds by the clock (`wall`) are as many where nothing else runs.

Two such runs: 100,000 steps of ten evaluations, and at worst a million steps of one. Their files are what
`zoo.minimize` writes, through the logs of the run directory, with numbers that look like those of a search;
making them takes a minute or so, so they are kept in a folder if one is named.

    python benchmarks/report.py [FOLDER]
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import zoo
from zoo.core.types import Reply
from zoo.run.directory import RunDirectory

EVALUATIONS, DIM = 1_000_000, 10
SECONDS, MEGABYTES = 5.0, 500.0


def make(path: Path, per_step: int) -> None:
    """Write a run of so many evaluations a step, beginning with a real one for what does not grow."""
    zoo.minimize("zoo.problems:sphere", np.ones(DIM), method="cma", budget=20, rng=0, out=path)
    for name in ("metrics.jsonl", "timings.jsonl", "evaluations.bin"):
        (path / name).unlink()
    directory = RunDirectory.open(path)
    rng = np.random.default_rng(0)
    best, failed = math.inf, 0
    for step in range(1, EVALUATIONS // per_step + 1):
        nfev = step * per_step
        values = (rng.chisquare(DIM, per_step) + 0.01) * 10.0 ** (-12 * nfev / EVALUATIONS)
        if step % 1000 == 0:
            values[:], failed = math.nan, failed + per_step
        directory.journal.append(step - 1, nfev - per_step, 0, Reply(0, values))
        known = values[np.isfinite(values)]
        lowest, middle = (known.min(), np.median(known)) if len(known) else (math.nan, math.nan)
        point = {"x": rng.standard_normal(DIM)} if lowest < best else {}
        best = min(best, lowest) if len(known) else best
        entry = {
            "step": step,
            "nfev": nfev,
            "best": best,
            "value": lowest,
            "median": middle,
            "failed": failed,
        }
        sigma = 10.0 ** (-6 * nfev / EVALUATIONS) * (1 + 0.1 * math.sin(step))
        entry |= {**point, "sigma": sigma, "smallest_deviation": sigma / 3, "largest_deviation": sigma * 3}
        directory.log("metrics.jsonl", {**entry, "condition": 9.0 + math.sin(step / 9)})
        directory.log("timings.jsonl", {"step": step, "seconds": round(3e-4 * nfev, 6)})
    directory.flush()
    directory.close()


def spent() -> float:
    """Return the CPU time of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    ok = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        for per_step in (10, 1):
            path = folder / f"by_{per_step}"
            if not (path / "config.json").exists():
                make(path, per_step)
            command = [sys.executable, "-c", "from zoo.cli import main; main()", "report", str(path)]
            began, used = time.monotonic(), spent()
            done = subprocess.run(command, capture_output=True, text=True)
            wall, seconds = time.monotonic() - began, spent() - used
            # Of the largest child so far: the second run is the larger one.
            megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            drawn = done.returncode == 0 and (path / "report.html").exists()
            row = {
                "name": f"report: {EVALUATIONS:,} evaluations, {per_step} a step",
                "seconds": round(seconds, 2),
            }
            row |= {"wall": round(wall, 2), "megabytes": round(megabytes), "goal": [SECONDS, MEGABYTES]}
            row["ok"] = drawn and seconds < SECONDS and megabytes < MEGABYTES
            ok &= row["ok"]
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stderr.write(done.stderr)
            sys.stdout.flush()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
