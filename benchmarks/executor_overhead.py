"""What an executor with two workers costs beyond the evaluations themselves.

    python benchmarks/executor_overhead.py [--ray] [--blocks 5] [--only free busy computing]

CPU seconds are those of the driver and of every process below it, all of Ray's included. Ours is
`zoo.Processes(2)`, or `zoo.Ray(2)` with `--ray`. Block by block it takes turns with `zoo.Serial` (the CPU
time of its one thread) and with pools of two workers that are sent fair chunks: `multiprocessing.Pool.map`
and `ProcessPoolExecutor.map`, or `ray.util.ActorPool` with `--ray`. Medians over the blocks.

`free`: CPU of `executor.evaluate` per evaluation of a function that returns x[0], nothing subtracted.
`busy`: share of their time that two workers spend in a function that sleeps 10 ms, in populations of 64.
`computing`: CPU per evaluation of a function that computes for 10 ms, in populations of 64, against Serial.
`start`: from `open` to the first answer, and the CPU time until all workers are up; for information.

One JSON line per case; exit status 0 when all are ok.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import concurrent.futures
import contextlib
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import zoo
from zoo.core.objective import as_objective
from zoo.methods.sep_cma_es import SepCMAES

WORKERS = 2
SECONDS = 0.01  # of an evaluation that sleeps or computes
FREE_GOALS = {16: 300.0, 64: 150.0, 256: 50.0}  # by population, us of CPU per evaluation
FREE_STEPS = {16: 500, 64: 250, 256: 100}  # of a block
DIMS = 10, 1000
BUSY_GOAL = 0.9
COMPUTING_GOAL = 1.15
SLOW_STEPS = 10  # of a block
SLOW_POPULATION = 64


def free(x):
    return float(x[0])


def sleeping(_):
    began = time.perf_counter()
    time.sleep(SECONDS)
    return time.perf_counter() - began


def computing(x):
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        x = x * 0.5
    return float(x[0])


def seconds_of_all():
    """CPU seconds of this process and all below it, those included that were waited for."""
    ended, children = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
                ended[int(entry)] = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    total, found = 0.0, [os.getpid()]
    while found:
        process = found.pop()
        with contextlib.suppress(OSError):
            # The clock that `clock_getcpuclockid` names; the file above counts in hundredths of a second.
            total += time.clock_gettime((~process << 3) | 2) + ended[process]
        found += children.get(process, ())
    return total


def evaluating(executor):
    key = zoo.Key(0)
    return lambda candidates, step: executor.evaluate(candidates, key, step).values


@contextlib.contextmanager
def pools(fun):
    """Yield what maps `fun` over rows in two processes, sharing them out as `Pool.map` does by itself."""
    with multiprocessing.Pool(WORKERS) as pool, concurrent.futures.ProcessPoolExecutor(WORKERS) as futures:

        def by_futures(rows):
            return list(futures.map(fun, rows, chunksize=-(-len(rows) // (4 * WORKERS))))

        by_futures(np.zeros((SLOW_POPULATION, 1)))  # starts its processes, before there are other threads
        yield {"pool": lambda rows: pool.map(fun, rows), "futures": by_futures}


class Values:
    """Actor of the Ray pool."""

    def __init__(self, fun):
        self.fun = fun

    def of(self, rows):
        return [self.fun(row) for row in rows]


@contextlib.contextmanager
def actors(fun):
    """Yield what maps `fun` over rows in two actors of the Ray that runs."""
    import ray
    from ray.util import ActorPool

    made = [ray.remote(num_cpus=0)(Values).remote(fun) for _ in range(WORKERS)]
    pool = ActorPool(made)

    def by_actors(rows):
        chunks = np.array_split(rows, min(4 * WORKERS, len(rows)))
        return list(itertools.chain(*pool.map(lambda actor, chunk: actor.of.remote(chunk), chunks)))

    by_actors(np.zeros((SLOW_POPULATION, 1)))
    yield {"actors": by_actors}
    for actor in made:
        ray.kill(actor)


class Bench:
    """One objective on everything that is compared.

    Attributes:
        runs: By name: what evaluates candidates, and the clock of the CPU time that takes.
        peer: Name of the first of the others.
        start: Seconds from `open` of ours to its first answer, and CPU seconds until all its workers were up.
    """

    def __init__(self, fun, kind, stack):
        serial = zoo.Serial()
        stack.enter_context(serial.open(as_objective(fun)))
        # Processes are forked while no threads of others are about; actors need the Ray that ours starts.
        others = {} if kind is zoo.Ray else stack.enter_context(pools(fun))
        executor = kind(WORKERS)
        began, before = time.perf_counter(), seconds_of_all()
        stack.enter_context(executor.open(as_objective(fun)))
        ours, few = evaluating(executor), zoo.Rows(np.zeros((4 * WORKERS, 1)))
        ours(few, 0)
        wall = time.perf_counter() - began
        while len(executor.pids()) < WORKERS:
            ours(few, 0)
        self.start = wall, seconds_of_all() - before
        if kind is zoo.Ray:
            others = stack.enter_context(actors(fun))
        self.runs = {"ours": (ours, seconds_of_all)}
        for name, mapped in others.items():
            self.runs[name] = (lambda c, _, mapped=mapped: mapped(c.rows(0, len(c)))), seconds_of_all
        self.runs["serial"] = evaluating(serial), time.thread_time
        self.peer = next(iter(others))

    def measure(self, sets, steps, blocks):
        """Return medians by name: seconds, CPU seconds, and the sum of values, each per evaluation."""
        spent = {name: [] for name in self.runs}
        count = itertools.count()
        for block in range(-1, blocks):
            for name, (run, clock) in self.runs.items():
                total = evaluated = 0
                before, began = clock(), time.perf_counter()
                for step in range(steps if block >= 0 else -(-steps // 10)):  # the first one warms up
                    values = run(sets[step % len(sets)], next(count))
                    total += float(np.sum(values))
                    evaluated += len(values)
                wall, cpu = time.perf_counter() - began, clock() - before
                if block >= 0:
                    spent[name].append((wall / evaluated, cpu / evaluated, total / evaluated))
        return {
            name: [statistics.median(column) for column in zip(*each, strict=True)]
            for name, each in spent.items()
        }


def candidates_of(method, population, dim):
    """Return the candidates of a few steps."""
    if method == "rows":
        return [zoo.Rows(zoo.Key(seed).normal(0, population, dim)) for seed in range(8)]
    optimizer = SepCMAES(population_size=population)
    state = optimizer.init(np.ones(dim), key=zoo.Key(0))
    sets = []
    for _ in range(8):
        sets.append(optimizer.ask(state))
        state = optimizer.tell(state, zoo.Evaluations((sets[-1].rows(0, population) ** 2).sum(1)))
    return sets


def free_cases(bench, blocks):
    for population, method, dim in itertools.product(FREE_GOALS, ("rows", "sep-cma"), DIMS):
        found = bench.measure(candidates_of(method, population, dim), FREE_STEPS[population], blocks)
        us = {name: round(cpu * 1e6, 1) for name, (_, cpu, _) in found.items()}
        ours, goal = us.pop("ours"), FREE_GOALS[population]
        yield {
            "name": f"free/{method}/{population}x{dim}",
            "ours": ours,
            "peer": us.pop(bench.peer),
            "ratio": round(found["ours"][1] / found[bench.peer][1], 3),
            "goal": goal,
            "ok": ours <= goal,
            "unit": "us of CPU per evaluation; the goal is absolute",
            **us,
            "wall_us": round(found["ours"][0] * 1e6, 1),
        }


def busy_cases(bench, blocks):
    found = bench.measure([zoo.Rows(np.zeros((SLOW_POPULATION, 10)))], SLOW_STEPS, blocks)
    share = {name: round(slept / (WORKERS * wall), 4) for name, (wall, _, slept) in found.items()}
    del share["serial"]  # has no workers
    ours, peer = share.pop("ours"), share.pop(bench.peer)
    yield {
        "name": f"busy/{SLOW_POPULATION}x10",
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 3),
        "goal": BUSY_GOAL,
        "ok": ours >= BUSY_GOAL,
        "unit": "share of two workers' time inside a function of 10 ms; the goal is absolute",
        **share,
    }


def computing_cases(bench, blocks):
    found = bench.measure([zoo.Rows(np.zeros((SLOW_POPULATION, 10)))], SLOW_STEPS, blocks)
    ms = {name: cpu * 1e3 for name, (_, cpu, _) in found.items()}
    ours, peer = ms.pop("ours"), ms.pop("serial")
    yield {
        "name": f"computing/{SLOW_POPULATION}x10",
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(ours / peer, 4),
        "goal": COMPUTING_GOAL,
        "ok": ours <= COMPUTING_GOAL * peer,
        "unit": "ms of CPU per evaluation; the peer is Serial",
        **{name: round(value, 3) for name, value in ms.items()},
        "speedup": round(found["serial"][0] / found["ours"][0], 2),
    }


CASES = {
    "free": (free, free_cases),
    "busy": (sleeping, busy_cases),
    "computing": (computing, computing_cases),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", action="store_true", help="zoo.Ray(2) instead of zoo.Processes(2)")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    kind = zoo.Ray if args.ray else zoo.Processes
    prefix = f"executor_overhead/{kind.__name__.lower()}"
    starts, ok = [], True
    for name in args.only:
        fun, cases = CASES[name]
        with contextlib.ExitStack() as stack:
            bench = Bench(fun, kind, stack)
            starts.append(bench.start)
            for case in cases(bench, args.blocks):
                case["name"] = f"{prefix}/{case['name']}"
                ok &= case["ok"]
                print(json.dumps(case), flush=True)
    wall, cpu = map(statistics.median, zip(*starts, strict=True))
    start = {"name": f"{prefix}/start", "ours": round(wall, 2), "peer": None, "ratio": None, "goal": None}
    print(json.dumps({**start, "ok": True, "unit": "s to the first answer", "cpu_s": round(cpu, 2)}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
