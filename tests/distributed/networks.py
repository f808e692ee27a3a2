"""A small network to be trained under various circumstances, always with the same bytes.

    python tests/distributed/networks.py OUT [WORKERS]

is a driver that can be killed.
"""

import os
import sys
import time

import torch
from torch import nn

import zoo
from zoo.core.rng import Key
from zoo.nn.deepzero import DeepZero
from zoo.nn.initialize import initialized
from zoo.nn.losses import cross_entropy
from zoo.nn.pruning import Grasp
from zoo.nn.training import train
from zoo.run import loop

STEPS = 6
SLOW = "NETWORKS_SECONDS"


class Patient(nn.Module):
    """Returns what it is given, where it is said to, after some time."""

    def forward(self, x):
        time.sleep(float(os.environ.get(SLOW, "0")))
        return x


def network():
    return initialized(
        lambda: nn.Sequential(
            nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.1), Patient(), nn.Linear(12, 4)
        ),
        Key(0),
    )


def examples():
    inputs = Key(1).normal(0, 100, 12)
    labels = inputs[:, :4].argmax(1)
    return torch.from_numpy(inputs).float(), torch.from_numpy(labels)


def run(out=None, workers=1, **more):
    """Train it for an epoch of five steps, and one more."""
    data = examples()
    method = DeepZero(sparsity=0.5, learning_rate=0.3, redraw=2, pruning=Grasp(24))
    options = {"method": method, "batch_size": 20, "steps": STEPS, "test": data, "test_every": 2, **more}
    return train(network(), cross_entropy, data, rng=5, out=out, workers=workers, **options)


def main():
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.1
    out, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    run(out, zoo.Processes(number) if number > 1 else 1)


if __name__ == "__main__":
    main()
