"""What drawing under a key costs over drawing from the bare generator.

    python benchmarks/keyed_noise.py [--blocks 15]

Normal numbers, in matrices of at least 100,000: numpy's in float64 and float32 against one Philox that simply
goes on; torch's in float32 on the CPU, rows of 64 and more, against `torch.randn` (shorter rows are drawn by
numpy's Philox and converted, so against that). The goal is 1.25 times. A 10 x 10 matrix may take 10 us. One
JSON line per case, CPU time, median over blocks in which both take turns; exit status 0 when all are ok.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import sys
import time

import numpy as np
import torch

from zoo.core.device import Like
from zoo.core.rng import Key

GOAL = 1.25
SMALL_GOAL = 10.0
SHAPES = ((10_000, 10), (1_000, 100), (100, 1_000), (10, 10_000), (1, 100_000), (100, 10_000), (1, 1_000_000))
NUMBERS = 4_000_000  # of a block


def numpy_case(dtype):
    generator = np.random.Generator(np.random.Philox(key=1))
    like = Like("numpy", dtype)
    return like, lambda rows, dim: generator.standard_normal((rows, dim), dtype=dtype)


def torch_case():
    generator = torch.Generator().manual_seed(1)
    _, philox = numpy_case("float32")

    def bare(rows, dim):
        return philox(rows, dim) if dim < 64 else torch.randn(rows, dim, generator=generator)

    return Like("torch", "float32"), bare


def seconds(draw, repeats):
    began = time.process_time()
    for index in range(repeats):
        draw(index)
    return (time.process_time() - began) / repeats


def compare(name, like, bare, rows, dim, blocks):
    repeats = max(1, NUMBERS // (rows * dim))
    key = Key(0)
    draws = {
        "ours": lambda index: key.fold("noise", index).normal(0, rows, dim, like=like),
        "peer": lambda _: bare(rows, dim),
    }
    spent = {who: [] for who in draws}
    for _ in range(blocks):
        for who, draw in draws.items():
            spent[who].append(seconds(draw, repeats))
    mine, theirs = (statistics.median(times) for times in spent.values())
    return {
        "name": f"keyed_noise/{name}/{rows}x{dim}",
        "ours": round(rows * dim / mine / 1e6, 1),
        "peer": round(rows * dim / theirs / 1e6, 1),
        "ratio": round(mine / theirs, 3),
        "goal": GOAL,
        "ok": mine <= GOAL * theirs,
        "unit": "million numbers a second; the ratio is of times",
    }


def small(like, bare, blocks):
    key = Key(0)
    ours = [seconds(lambda index: key.fold(index).normal(0, 10, 10, like=like), 2000) for _ in range(blocks)]
    peer = [seconds(lambda _: bare(10, 10), 2000) for _ in range(blocks)]
    mine, theirs = statistics.median(ours) * 1e6, statistics.median(peer) * 1e6
    return {
        "name": f"keyed_noise/{like.kind}-{like.dtype}/10x10",
        "ours": round(mine, 2),
        "peer": round(theirs, 2),
        "ratio": round(mine / theirs, 2),
        "goal": SMALL_GOAL,
        "ok": mine <= SMALL_GOAL,
        "unit": "us a draw, its key included; the goal is absolute",
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    for like, bare in (numpy_case("float64"), numpy_case("float32"), torch_case()):
        for rows, dim in SHAPES:
            done.append(compare(f"{like.kind}-{like.dtype}", like, bare, rows, dim, args.blocks))
            print(json.dumps(done[-1]), flush=True)
    for like, bare in (numpy_case("float64"), numpy_case("float32")):
        done.append(small(like, bare, args.blocks))
        print(json.dumps(done[-1]), flush=True)
    return 0 if all(case["ok"] for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
