"""What an executor with two workers costs beyond the evaluations themselves.

    python benchmarks/executor_overhead.py [--ray] [--blocks 5] [--only free busy computing]

CPU seconds are those of the driver and of every process below it, all of Ray's included. Ours is
`zoo.Processes(2)`, or `zoo.Ray(2)` with `--ray`. Block by block it takes turns with `zoo.Serial` (the CPU
time of its one thread) and with pools of two workers that are sent fair chunks: `multiprocessing.Pool.map`
and `ProcessPoolExecutor.map`, or `ray.util.ActorPool` with `--ray`. Medians over the blocks.

`free`: CPU of `executor.evaluate` per evaluation of a function that returns x[0], nothing subtracted.
`busy`: share of their time that two workers spend in a function that sleeps 10 ms, in populations of 64, and
what `zoo.minimize` says of it in its account.
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
SLOW = zoo.Rows(np.zeros((64, 10)))
FEW = zoo.Rows(np.zeros((4 * WORKERS, 10)))
CASES = ["free", "busy", "computing"]


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

        by_futures(FEW.array)  # starts its processes, before there are other threads
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

    by_actors(FEW.array)
    yield {"actors": by_actors}
    for actor in made:
        ray.kill(actor)


class Contest:
    """One objective, evaluated by ours and by others.

    Attributes:
        runs: By name: what evaluates candidates, and the clock of the CPU time that takes.
        peer: Name of the first of the others.
    """

    def __init__(self, ours, serial, others):
        self.peer = next(iter(others))
        self.runs = {"ours": (evaluating(ours), seconds_of_all)}
        for name, mapped in others.items():
            self.runs[name] = (lambda c, _, mapped=mapped: mapped(c.rows(0, len(c)))), seconds_of_all
        self.runs["serial"] = evaluating(serial), time.thread_time

    def measure(self, sets, steps, blocks):
        """Return medians by name: seconds, CPU seconds, and the sum of values, each per evaluation."""
        spent = {name: [] for name in self.runs}
        count = itertools.count()
        for block in range(-1, blocks):
            for name, (run, clock) in self.runs.items():
                total = evaluated = 0
                before, began = clock(), time.perf_counter()
                for step in range(steps if block >= 0 else -(-steps // 10)):  # the first one warms up
                    candidates, number = sets[step % len(sets)], next(count)
                    candidates.array[0, 0] = number  # or what comes again would not be sent again
                    values = run(candidates, number)
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


class Bench:
    """What the command line asks for.

    Attributes:
        starts: Seconds from `open` of ours to its first answer, and CPU seconds until all workers were up.
    """

    def __init__(self, ray, blocks):
        self.ray, self.blocks = ray, blocks
        self.starts = []

    @property
    def ours(self):
        return zoo.Ray(WORKERS) if self.ray else zoo.Processes(WORKERS)

    @contextlib.contextmanager
    def contest(self, fun):
        objective, serial, ours = as_objective(fun), zoo.Serial(), self.ours
        with contextlib.ExitStack() as stack:
            stack.enter_context(serial.open(objective))
            if not self.ray:
                others = stack.enter_context(pools(fun))  # forked while there are no threads of ours
            began, before = time.perf_counter(), seconds_of_all()
            stack.enter_context(ours.open(objective))
            ours.evaluate(FEW, zoo.Key(0), 0)
            wall = time.perf_counter() - began
            while len(ours.pids()) < WORKERS:
                ours.evaluate(FEW, zoo.Key(0), 0)
            self.starts.append((wall, seconds_of_all() - before))
            if self.ray:
                others = stack.enter_context(actors(fun))  # in the Ray that ours has started
            yield Contest(ours, serial, others)

    def free_cases(self):
        with self.contest(free) as contest:
            for population, method, dim in itertools.product(FREE_GOALS, ("rows", "sep-cma"), DIMS):
                sets = candidates_of(method, population, dim)
                found = contest.measure(sets, FREE_STEPS[population], self.blocks)
                us = {name: cpu * 1e6 for name, (_, cpu, _) in found.items()}
                ours, peer, goal = us.pop("ours"), us.pop(contest.peer), FREE_GOALS[population]
                yield {
                    "name": f"free/{method}/{population}x{dim}",
                    "ours": round(ours, 1),
                    "peer": round(peer, 1),
                    "ratio": round(ours / peer, 3),
                    "goal": goal,
                    "ok": ours <= goal,
                    "unit": "us of CPU per evaluation; the goal is absolute",
                    **{name: round(value, 1) for name, value in us.items()},
                    "wall": round(found["ours"][0] * 1e6, 1),
                }

    def busy_cases(self):
        with self.contest(sleeping) as contest:
            found = contest.measure([SLOW], SLOW_STEPS, self.blocks)
        share = {name: slept / (WORKERS * wall) for name, (wall, _, slept) in found.items()}
        del share["serial"]  # has no workers
        ours, peer = share.pop("ours"), share.pop(contest.peer)
        result = zoo.minimize(
            sleeping,
            np.zeros(10),
            method="sep-cma",
            workers=self.ours,
            budget=len(SLOW) * SLOW_STEPS + 1,  # one is kept
            rng=0,
            options={"population_size": len(SLOW)},
        )
        yield {
            "name": f"busy/{len(SLOW)}x10",
            "ours": round(ours, 4),
            "peer": round(peer, 4),
            "ratio": round(ours / peer, 3),
            "goal": BUSY_GOAL,
            "ok": ours >= BUSY_GOAL and statistics.mean(result.account["busy"]) >= BUSY_GOAL,
            "unit": "share of two workers' time in a function of 10 ms; the goal is absolute",
            **{name: round(value, 4) for name, value in share.items()},
            "account": result.account["busy"],
        }

    def computing_cases(self):
        with self.contest(computing) as contest:
            found = contest.measure([SLOW], SLOW_STEPS, self.blocks)
        ms = {name: cpu * 1e3 for name, (_, cpu, _) in found.items()}
        ours, peer = ms.pop("ours"), ms.pop("serial")
        yield {
            "name": f"computing/{len(SLOW)}x10",
            "ours": round(ours, 3),
            "peer": round(peer, 3),
            "ratio": round(ours / peer, 4),
            "goal": COMPUTING_GOAL,
            "ok": ours <= COMPUTING_GOAL * peer,
            "unit": "ms of CPU per evaluation; the peer is Serial",
            **{name: round(value, 3) for name, value in ms.items()},
            "speedup": round(found["serial"][0] / found["ours"][0], 2),
        }

    def start_cases(self):
        wall, cpu = map(statistics.median, zip(*self.starts, strict=True))
        yield {
            "name": "start",
            "ours": round(wall, 2),
            "peer": None,
            "ratio": None,
            "goal": None,
            "ok": True,
            "unit": "s from open to the first answer",
            "cpu": round(cpu, 2),
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", action="store_true", help="zoo.Ray(2) instead of zoo.Processes(2)")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    args = parser.parse_args()
    bench, ok = Bench(args.ray, args.blocks), True
    for name in [*args.only, "start"]:
        for case in getattr(bench, f"{name}_cases")():
            case["name"] = f"executor_overhead/{'ray' if args.ray else 'processes'}/{case['name']}"
            print(json.dumps(case), flush=True)
            ok = ok and case["ok"]
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
