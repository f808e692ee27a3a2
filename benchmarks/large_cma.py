"""CPU time of a step of `lm-ma-es`, of `sep-cma` and of pycma's separable CMA-ES in many variables.

    python benchmarks/large_cma.py [--dims 1000 10000 100000] [--blocks 5]

All have the default population, and the sphere for an objective. `lm-ma-es` works on numpy arrays of double
precision up to 1000 variables and on torch tensors of single precision from then on; the other two always
on double precision. They take turns in one process on one thread; medians over the blocks.

`floor` is what `lm-ma-es` cannot do without, at this machine's speed: its n dim random numbers once, the
4 n m dim + 2 m^2 dim operations of its products of matrices, and 9 passes over m dim numbers.
One JSON line per case; exit status 0 when all are within the goals.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import math
import statistics
import sys
import time
import warnings

import numpy as np
import torch

from zoo.core.device import to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.methods.lm_ma_es import LMMAES
from zoo.methods.sep_cma_es import SepCMAES

torch.set_num_threads(1)
STEPS = {1000: 200, 10_000: 30, 100_000: 4}  # of a block
GOAL = 1.0  # of pycma's step, which has a diagonal to learn and no dependencies
FLOOR_GOAL = 3.0


def start(dim):
    return np.ones(dim) if dim <= 1000 else torch.ones(dim)


def ours(method, x0):
    state = method.init(x0, key=Key(0))

    def step():
        nonlocal state
        asked = method.ask(state)
        x = asked.rows(0, len(asked))
        state = method.tell(state, Evaluations(to_numpy((x * x).sum(1))))

    return step


def peer(dim):
    import cma

    es = cma.CMAEvolutionStrategy(dim * [1.0], 1.0, {"CMA_diagonal": True, "verbose": -9, "seed": 1})

    def step():
        points = es.ask()
        es.tell(points, [float(x.dot(x)) for x in points])

    return step


def floor(dim):
    """Return milliseconds."""
    n, m = (4 + int(3 * math.log(dim)) for _ in range(2))
    like = start(dim)
    kind = torch if dim > 1000 else np
    a, b = Key(0).normal(0, n, dim, like=like), Key(1).normal(0, m, dim, like=like)
    product = a @ b.T

    def draw():
        Key(2).normal(0, n, dim, like=like)

    def multiply():
        kind.matmul(a, b.T)
        kind.matmul(product, b)
        kind.matmul(b, b.T)

    def passes():
        b.copy() if kind is np else b.clone()  # two of nine

    return seconds(draw) * 1e3 + seconds(multiply) * 1e3 + 4.5e3 * seconds(passes)


def seconds(work):
    work()
    count, began = 0, time.process_time()
    while time.process_time() - began < 0.2:
        work()
        count += 1
    return (time.process_time() - began) / count


def compare(dim, blocks):
    runs = {
        "ours": ours(LMMAES(), start(dim)),
        "sep": ours(SepCMAES(), np.ones(dim)),
        "peer": peer(dim),
    }
    spent = {who: [] for who in runs}
    for step in runs.values():
        for _ in range(3):
            step()
    for _ in range(blocks):
        for who, step in runs.items():
            began = time.process_time()
            for _ in range(STEPS[dim]):
                step()
            spent[who].append((time.process_time() - began) / STEPS[dim] * 1e3)
    mine, separable, theirs = (statistics.median(spent[who]) for who in ("ours", "sep", "peer"))
    least = floor(dim)
    return {
        "name": f"large_cma/{dim}",
        "ours": round(mine, 3),
        "peer": round(theirs, 3),
        "ratio": round(mine / theirs, 3),
        "goal": GOAL,
        "ok": mine <= GOAL * theirs and mine <= FLOOR_GOAL * least,
        "unit": "ms per step",
        "sep_cma": round(separable, 3),
        "floor": round(least, 3),
        "floor_ratio": round(mine / least, 2),
        "floor_goal": FLOOR_GOAL,
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
        done.append(compare(dim, args.blocks))
        print(json.dumps(done[-1]), flush=True)
    return 0 if all(case["ok"] for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
