"""CPU time per evaluation of `zoo.minimize(method="cma")` and of pycma, the objective being free.

    python benchmarks/cma_overhead.py [--dims 10 40 100 500 1000] [--blocks 5]

Ours is the whole of `zoo.minimize`; `loop` is its ask, objective, tell and finished alone. Pycma's is ask,
objective, tell and stop. They take turns in one process on one thread; medians over the blocks. One JSON
line per case; `ok` is for the ratio and for the absolute goal. Exit status 0 when all are.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import sys
import time
import warnings

import cma
import numpy as np

import zoo
from zoo.core.types import Evaluations
from zoo.methods.cma_es import CMAES

STEPS = {10: 1000, 40: 500, 100: 200, 500: 40, 1000: 28}  # of a block; whole periods of the factorization
RATIO = {10: 1 / 5, 40: 1 / 5, 100: 1 / 5, 500: 1 / 4, 1000: 1 / 4}
MICROSECONDS = {10: 15.0, 40: 18.0, 100: 30.0, 1000: 10_000 / 24}  # per evaluation; 10 ms a step of 24
UNENDING = {"tolx": 0, "tolfun": 0, "tolfunhist": 0}


def scalar(x):
    return float(x.dot(x))


def vectorized(x):
    return np.einsum("ij,ij->i", x, x)


def ours(function, start, evaluations):
    found = zoo.minimize(
        function,
        start,
        method="cma",
        budget=evaluations,
        rng=0,
        vectorized=function is vectorized,
        options=UNENDING,
    )
    return found.nfev


def loop(function, start, evaluations):
    method = CMAES(**UNENDING)
    state = method.init(start, key=zoo.Key(0))
    while state.nfev < evaluations:
        x = method.ask(state).rows(0, evaluations)
        values = vectorized(x) if function is vectorized else [scalar(row) for row in x]
        state = method.tell(state, Evaluations(values))
        method.finished(state)
    return state.nfev


def peer(function, start, evaluations):
    es = cma.CMAEvolutionStrategy(start, 1.0, {"verbose": -9, "seed": 1})
    while es.countevals < evaluations:
        x = es.ask()
        es.tell(
            x, vectorized(np.asarray(x)).tolist() if function is vectorized else [scalar(row) for row in x]
        )
        es.stop()
    return es.countevals


def compare(dim, function, blocks):
    start = np.ones(dim)
    evaluations = STEPS[dim] * (4 + int(3 * np.log(dim)))
    spent = {run: [] for run in (ours, loop, peer)}
    for run in spent:
        run(function, start, evaluations // 10)  # imports and caches
    for _ in range(blocks):
        for run, times in spent.items():
            began = time.process_time()
            done = run(function, start, evaluations)
            times.append((time.process_time() - began) / done * 1e6)
    mine, bare, theirs = (statistics.median(times) for times in spent.values())
    absolute = MICROSECONDS.get(dim)
    return {
        "name": f"cma_overhead/{function.__name__}/{dim}",
        "ours": round(mine, 2),
        "peer": round(theirs, 2),
        "ratio": round(mine / theirs, 4),
        "goal": RATIO[dim],
        "ok": mine <= theirs * RATIO[dim] and (absolute is None or mine <= absolute),
        "unit": "us per evaluation",
        "absolute_goal": absolute and round(absolute, 1),
        "loop": round(bare, 2),
        "ms_per_step": round(mine * evaluations / STEPS[dim] / 1e3, 3),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", choices=sorted(STEPS), default=sorted(STEPS))
    parser.add_argument("--blocks", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    done = []
    for dim in args.dims:
        for function in (scalar, vectorized):
            done.append(compare(dim, function, args.blocks))
            print(json.dumps(done[-1]), flush=True)
    return 0 if all(case["ok"] for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
