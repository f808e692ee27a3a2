"""Fine-tuning in the memory of inference
=======================================

A classifier of upright digits learns to read turned ones from forward passes alone, in half precision:
without a gradient, without the state of an optimizer and without a copy of the weights. What it has learned
is a file of a few kilobytes.

.. code-block:: sh

    python examples/fine_tune_in_the_memory_of_inference.py

A step draws eight directions of random signs, and asks how much the loss changes along each. Directions
follow from a seed, so all that has to be kept of a step are eight numbers, and the weights after any step
follow from the weights before the first and the numbers in between.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from zoo.core.rng import Key
from zoo.nn.batches import Batches
from zoo.nn.descent import Descent, apply_
from zoo.nn.evaluate import accuracy
from zoo.nn.models.mlp import mlp
from zoo.nn.seeded import Seeded
from zoo.nn.trajectory import Trajectory, replay_

ANGLE = 35  # degrees
TRAINED = 1200  # of 1797 images


def digits(angle: float) -> tuple[Tensor, Tensor]:
    """Return images (1797, 8, 8), turned by an angle, and their labels."""
    images, labels = load_digits(return_X_y=True)
    turned = rotate(images.reshape(-1, 8, 8) / 16, angle, axes=(1, 2), reshape=False, order=1)
    return torch.tensor(turned, dtype=torch.float32), torch.tensor(labels)


# %%
# First the classifier that there is to begin with, and what gradients would make of it.


def with_gradients(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> None:
    """Train with Adam."""
    batches = Batches(images[:TRAINED], labels[:TRAINED], 128, key=Key(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    for step in range(steps):
        x, y = batches.at(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()


# %%
# Now with forward passes. ``Seeded`` moves no weight: functions of torch are handed perturbed copies, one
# tensor at a time. ``apply_`` draws the directions again and takes the step. A weight of bfloat16 has three
# digits, and most steps are smaller than the last of them: they are rounded up or down by chance, so that
# they are right in the mean. The steps are normalised, as in FZOO, and go down to 0.


def with_forward_passes(model: nn.Module, images: Tensor, labels: Tensor, steps: int, log: Path) -> int:
    """Train with estimates of eight directions, and return the number of forward passes."""
    batches = Batches(images[:TRAINED], labels[:TRAINED], 256, key=Key(2))
    estimator = Seeded("rademacher", num_directions=8, smoothing=1e-2, stencil="forward")
    descent = Descent(lambda step: 0.02 * (1 - step / steps), normalised=True)
    queries = 0
    with Trajectory.create(log, model, estimator, descent, Key(0)) as trajectory:
        for step in range(steps):
            x, y = batches.at(step)

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                return functional.cross_entropy(model(x).float(), y)

            estimate = estimator.estimate(model, closure, Key(0), step)
            trajectory.append(estimate, apply_(model, estimate, descent))
            queries += estimate.queries
    return queries


# %%
# Memory shows in networks that are larger than this one. Here it is four layers of 2000 x 2000, 64 MB of
# weights, in a fresh process: the peak on top of the weights, of what takes least first. Linux knows it;
# elsewhere nothing is measured.

MEMORY = """
import torch
from zoo.core.rng import Key
from zoo.nn.descent import Descent, apply_
from zoo.nn.seeded import Seeded

def peak():  # in kilobytes, of this process alone: `ru_maxrss` may be that of the one it was started by
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0])

def take(width):
    model, x = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(4))), torch.ones(32, width)
    optimizer = torch.optim.Adam(model.parameters())
    loss = lambda: model(x).square().mean()
    yield peak()
    with torch.inference_mode():
        loss()
    yield peak()
    estimate = Seeded(num_directions=2, smoothing=1e-2).estimate(model, loss, Key(0), 2)
    apply_(model, estimate, Descent(1e-6))
    yield peak()
    loss().backward()
    optimizer.step()
    yield peak()

torch.set_num_threads(1)
list(take(20))  # loads what is needed
before, *peaks = take(2000)
print(*(1024 * (peak - before) / 1e6 for peak in peaks))
"""
WAYS = ("inference", "a step of forward passes", "a step of Adam")


def memories() -> dict[str, float]:
    """Return the peak megabytes that each way takes on top of the weights."""
    if not Path("/proc/self/status").exists():
        return dict.fromkeys(WAYS, float("nan"))
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(WAYS, map(float, done.stdout.split()), strict=True))


# %%
# The curve of the picture is drawn from the log: the weights of a step are those it is replayed to.


def main(steps: int = 500) -> dict[str, Any]:
    """Return accuracies on turned digits, the curve on the way, bytes of the log, and memories."""
    upright, labels = digits(0)
    turned, _ = digits(ANGLE)
    unseen = turned[TRAINED:], labels[TRAINED:]
    start = mlp((64, 128, 64, 10), key=Key(0))
    with_gradients(start, upright, labels, 200)
    shown: dict[str, Any] = {
        "upright": accuracy(start, upright[TRAINED:], labels[TRAINED:]),
        "before": accuracy(start, *unseen),
    }
    first_order = mlp((64, 128, 64, 10), key=Key(0))
    first_order.load_state_dict(start.state_dict())
    with_gradients(first_order, turned, labels, 200)
    shown["with gradients"] = accuracy(first_order, *unseen)

    halves = [mlp((64, 128, 64, 10), key=Key(0)) for _ in range(2)]
    for model in halves:
        model.load_state_dict(start.state_dict())
        model.to(torch.bfloat16)
    trained, replayed = halves
    unseen = unseen[0].bfloat16(), unseen[1]
    log = Path(tempfile.mkdtemp()) / "trajectory"
    shown["queries"] = with_forward_passes(trained, turned.bfloat16(), labels, steps, log)
    shown["after"] = accuracy(trained, *unseen)
    shown["bytes"] = log.stat().st_size
    stops = [steps * part // 20 for part in range(21)]
    shown["curve"] = [accuracy(replayed, *unseen)]
    for begin, end in itertools.pairwise(stops):
        replay_(replayed, log, start=begin, stop=end)
        shown["curve"].append(accuracy(replayed, *unseen))
    pairs = zip(trained.parameters(), replayed.parameters(), strict=True)
    shown["equal"] = all(torch.equal(one, two) for one, two in pairs)
    shown["memory"] = memories()
    return shown


# %%


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw accuracy over forward passes, and memory."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 3.4), width_ratios=[1.5, 1], layout="constrained"
    )
    passes = [shown["queries"] * part / 20 for part in range(21)]
    left.plot(passes, shown["curve"], label=f"forward passes: {shown['after']:.0%}", marker=".")
    left.axhline(
        shown["with gradients"], color="C1", ls="--", label=f"gradients: {shown['with gradients']:.0%}"
    )
    left.set(xlabel="forward passes", title="turned digits classified rightly", ylim=(0, 1))
    left.legend(loc="lower right")
    names = list(shown["memory"])
    bars = right.barh(names, [shown["memory"][name] for name in names], color=["C2", "C0", "C1"])
    right.bar_label(bars, fmt="%.0f MB", padding=3)
    right.set(title="memory on top of 64 MB of weights", xlim=(0, 1.3 * max(shown["memory"].values())))
    right.invert_yaxis()
    right.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=500, help="with forward passes")
    shown = main(parser.parse_args().steps)
    draw(shown)
    print(f"upright digits {shown['upright']:.1%}; turned ones {shown['before']:.1%}")
    print(f"after {shown['queries']} forward passes {shown['after']:.1%}; with gradients", end=" ")
    print(f"{shown['with gradients']:.1%}")
    print(f"log {shown['bytes']} bytes; replayed to the same bits: {shown['equal']}")
    print(json.dumps({way: f"{value:.0f} MB" for way, value in shown["memory"].items()}))
    plt.show()
