"""What a step of seed-coded descent takes, against a loop that perturbs weights in place.

    python benchmarks/seeded_step.py [--blocks 9]

A network of ten linear layers of 1000 x 1000, 10 million weights, and a batch of 16. The peer is the loop
that is published as MeZO, written for this network: one seed a step, `torch.normal` tensor by tensor, weights
moved by +h, -2h and +h in place, and then by the step, which draws four times. Ours perturbs copies, which
draws three times and leaves the weights alone. One JSON line, CPU time, median over blocks in which both take
turns; exit status 0 when ours takes at most 1.2 times as long. Beside it, Rademacher directions, eight of
them (FZOO, nine forward passes), and the memory that a step takes beyond a forward pass, in units of
the largest weight: the peak of a fresh process after five steps, less that after one forward pass, which
Linux tells.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from zoo.core.rng import Key
from zoo.nn.descent import Descent, apply_
from zoo.nn.seeded import Seeded

GOAL = 1.2
MOST_MEMORY = 1.5
SMOOTHING, RATE = 1e-3, 1e-6


def network(width, depth, dtype=torch.float32):
    return nn.Sequential(
        *(layer for _ in range(depth) for layer in (nn.Linear(width, width, dtype=dtype), nn.ReLU()))
    )


def loss_of(model, x):
    return lambda: model(x).float().square().mean()


def peer_step(model, closure, step):
    generator = torch.Generator()

    def move(distance):
        generator.manual_seed(step)
        for parameter in model.parameters():
            z = torch.normal(0.0, 1.0, parameter.shape, generator=generator)
            parameter.data.add_(z, alpha=distance)

    with torch.inference_mode():
        move(SMOOTHING)
        ahead = float(closure())
        move(-2 * SMOOTHING)
        back = float(closure())
        move(SMOOTHING)
        move(-RATE * (ahead - back) / (2 * SMOOTHING))


def our_step(estimator, descent, model, closure, step):
    apply_(model, estimator.estimate(model, closure, Key(0), step), descent)


def seconds(take, repeats):
    began = time.process_time()
    for step in range(repeats):
        take(step)
    return (time.process_time() - began) / repeats


def peak():
    """Return the peak memory of this process in kilobytes; `ru_maxrss` may be that of its parent."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def memory(dtype):
    """Print the peak memory of five steps beyond that of a forward pass, over that of the largest weight."""
    width = 4000
    model, x = network(width, 3, getattr(torch, dtype)), torch.ones(1, width, dtype=getattr(torch, dtype))
    closure, estimator, descent = loss_of(model, x), Seeded(num_directions=2, smoothing=1e-2), Descent(RATE)
    small = network(10, 1, getattr(torch, dtype))  # what is loaded with the first step
    our_step(estimator, descent, small, loss_of(small, x[:, :10]), 0)
    with torch.inference_mode():
        closure()
    before = peak()
    for step in range(5):
        our_step(estimator, descent, model, closure, step)
    after = peak()
    weight = model[0].weight
    print(1024 * (after - before) / (weight.numel() * weight.element_size()))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--memory", choices=("float32", "bfloat16"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        return memory(args.memory)
    model, x = network(1000, 10), torch.randn(16, 1000)
    closure, descent = loss_of(model, x), Descent(RATE)
    plain, signs = Seeded(), Seeded("rademacher")
    fzoo, normalised = Seeded("rademacher", 8, 1e-4, "forward"), Descent(RATE, normalised=True)
    takes = {
        "ours": lambda step: our_step(plain, descent, model, closure, step),
        "peer": lambda step: peer_step(model, closure, step),
        "rademacher": lambda step: our_step(signs, descent, model, closure, step),
        "fzoo": lambda step: our_step(fzoo, normalised, model, closure, step),
        "forward": lambda _: torch.inference_mode()(closure)(),
    }
    spent = {who: [] for who in takes}
    for block in range(args.blocks + 1):
        for who, take in takes.items():
            one = seconds(take, 1 if who == "fzoo" else 3)
            if block:  # the first one warms up
                spent[who].append(one)
    ms = {who: 1e3 * statistics.median(times) for who, times in spent.items()}
    extra = {}
    for dtype in ("float32", "bfloat16"):
        command = [sys.executable, __file__, "--memory", dtype]
        extra[dtype] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ok = ms["ours"] <= GOAL * ms["peer"] and max(extra.values()) <= MOST_MEMORY
    line = {
        "name": "seeded_step/10M",
        **{who: round(value, 1) for who, value in ms.items()},
        "ratio": round(ms["ours"] / ms["peer"], 3),
        "goal": GOAL,
        "memory": {dtype: round(value, 2) for dtype, value in extra.items()},
        "most_memory": MOST_MEMORY,
        "ok": ok,
        "unit": "CPU ms a step; memory in largest weights",
    }
    print(json.dumps(line))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
