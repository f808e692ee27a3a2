"""Time and bytes per step of `cbo-textbook` in shards, against workers that are sent particles, and none.

    python benchmarks/sharded_swarm.py [--particles 10000] [--dim 1000] [--steps 12] [--rounds 3]

Ours is `zoo.minimize(..., workers=zoo.Processes(2, sharded=True))`; it takes turns with `zoo.Processes(2)`,
in whose case one process moves the particles and sends them to be evaluated, and with `workers=1`. The
objective is Rastrigin's function of many points at once, in float32; particles are offsets in float32. Times
are medians of wall time over the steps of all rounds, the first two steps of a round, in which workers start
and get the particles, aside.

`time`: `ours` and `peer` are milliseconds of a step, the peer being the faster of the other two. `floor` is a
step that costs nothing beyond its work: the time without workers over their number, if each has a core.
`bytes`: MB that the transport carries in a step, both ways; ours over 64 steps, in which every part is asked
for one snapshot of its particles. The peer is `zoo.Processes(2)`.

One JSON line per case, exit status 0 when all are within their goals: the time of the peer, and a tenth of
its bytes.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import zoo

WORKERS = 2
GOALS = {"time": 1.0, "bytes": 0.1}
UNTIMED = 2  # steps of a round
SNAPSHOTS = 64  # steps, in which there is one of every part


def rastrigin(x):
    return (x * x + 10 * (1 - np.cos(np.float32(2 * np.pi) * x))).sum(1)


class Processes(zoo.Processes):
    """Processes that say what has been carried so far."""

    @property
    def carried(self):
        return self._transport.sent + self._transport.received


def steps(kind, particles, dim, number):
    """Return milliseconds of the steps of a run, and MB of one of them."""
    executor = 1 if kind == "serial" else Processes(WORKERS, sharded=kind == "sharded")
    marks = []

    def mark(_x):
        marks.append((time.perf_counter(), 0 if kind == "serial" else executor.carried))

    result = zoo.minimize(
        rastrigin,
        np.full(dim, 3.0, np.float32),
        method="cbo-textbook",
        budget=particles * number,
        rng=0,
        vectorized=True,
        workers=executor,
        callback=mark,
        options={"num_particles": particles, "precision": "single"},
    )
    assert len(marks) == number, result.message
    marks = marks[UNTIMED - 1 :]
    milliseconds = [1e3 * (b[0] - a[0]) for a, b in itertools.pairwise(marks)]
    return milliseconds, (marks[-1][1] - marks[0][1]) / (len(marks) - 1) / 1e6, result.fun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--particles", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    taken = {kind: [] for kind in ("sharded", "processes", "serial")}
    carried, values = {}, set()
    for _ in range(asked.rounds):
        for kind, milliseconds in taken.items():
            found, carried[kind], value = steps(kind, asked.particles, asked.dim, asked.steps)
            milliseconds += found
            values.add(value)
    assert len(values) == 1, "they came to different values"
    carried["sharded"] = steps("sharded", asked.particles, asked.dim, UNTIMED + SNAPSHOTS)[1]
    times = {kind: statistics.median(milliseconds) for kind, milliseconds in taken.items()}
    where = f"N={asked.particles} d={asked.dim}, {WORKERS} workers"
    peers = {kind: round(times[kind], 1) for kind in ("processes", "serial")}
    floor = {"floor": round(times["serial"] / WORKERS, 1)}
    ok = True
    for name, ours, peer, more in (
        ("time", times["sharded"], min(peers.values()), {**peers, **floor}),
        ("bytes", carried["sharded"], carried["processes"], {}),
    ):
        ratio, goal = ours / peer, GOALS[name]
        ok &= ratio <= goal
        line = {"name": f"sharded swarm, {name}, {where}", "ours": round(ours, 3), "peer": round(peer, 3)}
        line |= {"ratio": round(ratio, 3), "goal": goal, "ok": ratio <= goal, **more}
        print(json.dumps(line), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
