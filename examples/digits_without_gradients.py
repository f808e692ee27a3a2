"""Digits without gradients
========================

A classifier of handwritten digits, trained by looking at its errors alone: no gradient is computed, and none
is estimated.

.. code-block:: sh

    python examples/digits_without_gradients.py

A hundred particles, each a set of 650 weights, see the same 60 images in every step. Their mean, weighted by
how few errors they make, is the consensus point: the particles drift towards it, and look around on the
way. When they have all come together there, they are shaken apart.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import zoo
from zoo.problems.digits import Digits

PARTICLES = 100
FINAL = 30  # evaluations of the result, on batches that the search has not seen


# %%
# The consensus point of a search under way is what its method would recommend. A watcher is told of every
# step.


class Accuracy(zoo.Watcher):
    """How well the consensus point does on the 360 images that are not trained on."""

    def __init__(self, task: Digits, every: int) -> None:
        self.task, self.every = task, every
        self.evaluations, self.right = [], []

    def begin(self, beginning: Any) -> None:
        self.method = beginning.job.optimizer

    def step(self, state: Any, metrics: dict[str, Any]) -> None:
        if state.step % self.every == 0:
            self.evaluations.append(metrics["nfev"])
            self.right.append(self.task.accuracy(self.method.recommend(state.optimizer)))


# %%
# The value of a point is a mean over 60 images drawn anew in every step, so it is said to be noisy: the
# result is then the consensus point, and not whichever particle had the easiest images. With
# ``batch_size`` the particles vote in turns, and only those whose turn it is are evaluated.


def train(evaluations: int, batch_size: int | None = None) -> dict[str, Any]:
    """Return the weights found, their accuracy, and that of the consensus points on the way."""
    task = Digits(batch_size=60)
    accuracy = Accuracy(task, every=evaluations // (batch_size or PARTICLES) // 50)
    result = zoo.minimize(
        task,
        torch.zeros(task.dim),
        method="cbo",
        options={
            "num_particles": PARTICLES,
            "batch_size": batch_size,
            "sigma": 0.55,
            "dt": 0.3,
            "alpha": 200.0,
            "memory": "none",
            "explorers": 0.0,
            "num_coordinates": None,
            "elitist": False,
            "restart": 2e-3,
        },
        scale=0.5,
        budget=evaluations + FINAL,
        noise=True,
        callback=accuracy,
        rng=0,
    )
    return {
        "x": result.x.numpy(),
        "right": task.accuracy(result.x),
        "curve": (accuracy.evaluations, accuracy.right),
    }


def main(evaluations: int = 200_000) -> dict[str, dict[str, Any]]:
    """Return what is found when all particles vote, and when 50 of them do in turns."""
    return {
        "all 100 particles vote": train(evaluations),
        "50 of them in turns": train(evaluations, batch_size=50),
    }


# %%
# Accuracy on the way, and the weights of the ten labels as pictures: what speaks for a label is blue, what
# speaks against it red.


def draw(shown: dict[str, dict[str, Any]]) -> plt.Figure:
    """Draw accuracy over evaluations, and the weights of the first result."""
    figure = plt.figure(figsize=(9.6, 3.5))
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])
    axes = left.subplots()
    for name, found in shown.items():
        axes.plot(*found["curve"], label=f"{name}: {found['right']:.1%}")
    axes.set(xlabel="evaluations", title="share of unseen digits classified rightly", ylim=(0, 1))
    axes.legend(loc="lower right")
    weights = next(iter(shown.values()))["x"].reshape(10, 65)[:, :64].reshape(10, 8, 8)
    largest = np.quantile(np.abs(weights), 0.99)
    for label, panel in enumerate(right.subplots(2, 5).flat):
        panel.imshow(weights[label], cmap="RdBu", vmin=-largest, vmax=largest)
        panel.set(title=str(label), xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--evaluations", type=int, default=200_000, help="of each of the two")
    shown = main(parser.parse_args().evaluations)
    draw(shown)
    for name, found in shown.items():
        print(f"{name}: {found['right']:.1%} of unseen digits")
    plt.show()
