"""Seconds that one and two local workers take on one GPU, and whether they come to the same bytes.

    python benchmarks/gpu_workers.py [--steps 30] [--blocks 3] [--device cuda]

`zoo.minimize(method="sep-cma")` with a population of 256 over the weights of a small network, of which 64
at a time are tried on one batch: four units a step. Each run starts its workers, `zoo.Processes(1,
gpus_per_worker=.5)` or `(2, ...)`; the clock starts after the first step, when they are up. Medians over the
blocks. Ours are two workers, the peer is one. Exit status 0 when the bytes are the same; without a GPU it
says so, and measures nothing.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import hashlib
import json
import statistics
import sys
import time

import torch

import zoo

INPUTS, HIDDEN, OUTPUTS, BATCH = 784, 128, 10, 512
DIM = INPUTS * HIDDEN + HIDDEN * OUTPUTS
POPULATION, UNIT = 256, 64


class Network(zoo.Objective):
    """Cross entropy of a network with one hidden layer, on the device of its points."""

    unit = UNIT

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(BATCH, INPUTS, generator=generator)
        self.labels = torch.randint(OUTPUTS, (BATCH,), generator=generator)

    def __call__(self, x, *, key):  # noqa: ARG002
        self.inputs, self.labels = self.inputs.to(x.device), self.labels.to(x.device)
        first, second = x.split([INPUTS * HIDDEN, HIDDEN * OUTPUTS], 1)
        hidden = torch.relu(self.inputs @ first.reshape(-1, INPUTS, HIDDEN))
        scores = (hidden @ second.reshape(-1, HIDDEN, OUTPUTS)).log_softmax(-1)
        labels = self.labels.expand(len(x), BATCH)[..., None]
        return -scores.gather(-1, labels).mean((1, 2))


def run(num_workers, steps, device):
    """Return seconds a step, the value found, and the digest of the point."""
    ends = []
    result = zoo.minimize(
        "gpu_workers:Network()",
        torch.zeros(DIM, device=device),
        method="sep-cma",
        scale=0.05,
        budget=POPULATION * steps,
        rng=0,
        workers=zoo.Processes(num_workers, gpus_per_worker=0.5 if device == "cuda" else 0),
        callback=lambda _: ends.append(time.perf_counter()),
        options={"population_size": POPULATION},
    )
    digest = hashlib.sha256(result.x.cpu().numpy().tobytes()).hexdigest()
    return (ends[-1] - ends[0]) / (len(ends) - 1), result.fun, digest


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    line = {"name": f"gpu_workers/{args.device}/{POPULATION}x{DIM}"}
    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({**line, "ok": True, "skipped": "there is no GPU here"}))
        return 0
    runs = [(run(1, args.steps, args.device), run(2, args.steps, args.device)) for _ in range(args.blocks)]
    one, two = (statistics.median(block[i][0] for block in runs) for i in range(2))
    equal = len({found[1:] for block in runs for found in block}) == 1
    print(
        json.dumps(
            {
                **line,
                "ours": round(two, 4),
                "peer": round(one, 4),
                "ratio": round(two / one, 3),
                "goal": "equal bytes",
                "ok": equal,
                "unit": "s a step; ours are two workers on one GPU, the peer is one",
                "equal": equal,
                "fun": runs[0][0][1],
                "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
                "torch": torch.__version__,
            }
        )
    )
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
