"""A guard for a classifier that only answers
==========================================

A classifier of handwritten digits is a black box: images go in, scores come out, and nobody may look inside.
It was never meant for noisy images, and gets many of them wrong. A small network in front of it, a denoiser,
learns to make them readable for it, by nothing but asking.

.. code-block:: sh

    python examples/black_box_defence.py

What is gained is more than a picture that looks better. Let the classifier vote on many noisy copies of an
image: from how clear the vote is follows a radius within which no change of the image whatsoever can turn it.
The curves show which share of unseen digits is read rightly with such a guarantee.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from zoo.core.rng import Key
from zoo.estimators.finite_difference import FiniteDifference
from zoo.nn.batches import Batches
from zoo.nn.black_box import BlackBox
from zoo.nn.certify import GaussianNoise, Smoothed
from zoo.nn.data import digits
from zoo.nn.deepzero import DeepZero
from zoo.nn.gradient import estimate_gradient_
from zoo.nn.losses import cross_entropy
from zoo.nn.models.cnn import cnn
from zoo.nn.models.denoiser import denoiser
from zoo.nn.training import train
from zoo.updates.schedules import Cosine, Warmup

KEY = Key(0)
SIGMA = 0.35  # of the noise, where pixels are from 0 to 1
RADII = np.linspace(0, 0.5, 51)
DATA = digits()

# %%
# The classifier learns clean images, in the usual way. `descend` is torch's descent along gradients that come
# from wherever they may.


def descend(
    model: nn.Module, batches: Batches, rate: float, steps: int, write_gradient_: Callable[[Any, int], int]
) -> int:
    """Train a network, and return how many forward passes that took."""
    warmup = -(-6 * steps // 100)
    schedule, queries = Warmup(warmup, Cosine(rate, max(1, steps - warmup))), 0
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    for step in range(steps):
        inputs, targets = batches.at(step)
        closure = lambda x=inputs, y=targets: cross_entropy(model(x), y).double().mean()  # noqa: E731
        optimizer.zero_grad()
        queries += write_gradient_(closure, step)
        optimizer.param_groups[0]["lr"] = schedule.value(step)
        optimizer.step()
    return queries


def backward(closure: Any, step: int) -> int:
    """Write gradients as usual."""
    del step
    closure().backward()
    return 1


def classifier() -> nn.Module:
    """Return a network that reads clean digits."""
    model = cnn(key=KEY.fold("classifier"), channels=(4, 8), hidden=32)
    batches = Batches(DATA.inputs, DATA.targets, 64, key=KEY.fold("clean"))
    descend(model, batches, 0.1, 400, backward)
    return model.eval().requires_grad_(False)


# %%
# What the denoiser is to achieve: noisy images are to be called what the classifier calls them without noise.
# It begins as the identity, so that all that it ever learns comes from answers.


def noisy_batches(model: nn.Module) -> Batches:
    """Return mini-batches of noisy images with what the classifier says of them without noise."""
    answers = BlackBox(model)(DATA.inputs).argmax(1)
    return Batches(DATA.inputs, answers, 64, key=KEY.fold("noisy"), augment=GaussianNoise(SIGMA))


def front() -> nn.Sequential:
    """Return the denoiser as it begins, 205 parameters."""
    return denoiser(key=KEY.fold("denoiser"), channels=4, depth=2, size=5)


# %%
# DeepZero changes one parameter of the denoiser at a time, and asks the classifier each time. Random vectors
# change all of them at once, as often. Backward passes, which look into the box, are there for comparison.


def by_coordinates(model: nn.Module, steps: int) -> tuple[nn.Sequential, int]:
    """Train a denoiser by differences along single parameters."""
    method = DeepZero(learning_rate=0.004, weight_decay=0.0, sparsity=0.0)
    found = front()
    guarded = nn.Sequential(*found, BlackBox(model))
    done = train(guarded, cross_entropy, noisy_batches(model), method=method, steps=steps, rng=KEY)
    return found, done.queries


def by_vectors(model: nn.Module, steps: int) -> tuple[nn.Sequential, int]:
    """Train a denoiser by differences along random vectors."""
    estimator = FiniteDifference("gaussian", 205, smoothing=1e-3, stencil="forward")
    found = front()
    guarded = nn.Sequential(*found, BlackBox(model))

    def write_gradient_(closure: Any, step: int) -> int:
        return estimate_gradient_(guarded, closure, estimator, KEY, step).queries

    return found, descend(guarded, noisy_batches(model), 0.002, steps, write_gradient_)


def by_backward_passes(model: nn.Module, steps: int) -> tuple[nn.Sequential, int]:
    """Train a denoiser with the box open."""
    found = front()
    return found, descend(nn.Sequential(*found, model), noisy_batches(model), 0.004, steps, backward)


def nothing(model: nn.Module, steps: int) -> tuple[nn.Sequential, int]:
    """Return no denoiser."""
    del model, steps
    return nn.Sequential(), 0


# %%
# Each way with its certificates: of each unseen image, what the vote says, and how far around it that holds.
# A certificate is wrong with a probability of .001 at most.


def main(steps: int = 80, copies: int = 300) -> dict[str, Any]:
    """Return the shares that are certified, and some images before and after the denoiser."""
    model, ways = classifier(), {}
    for name, way in (
        ("no denoiser", nothing),
        ("coordinates", by_coordinates),
        ("random vectors", by_vectors),
        ("backward passes", by_backward_passes),
    ):
        began = time.perf_counter()
        found, queries = way(model, steps)
        seconds = time.perf_counter() - began
        smoothed = Smoothed(nn.Sequential(*found, model), SIGMA, num_samples=copies)
        certificates = smoothed.certify(DATA.test_inputs, KEY.fold("certify"))
        shares = certificates.accuracy(DATA.test_targets, RADII.tolist())
        ways[name] = {
            "shares": np.array([[share.share, share.lower, share.upper] for share in shares]),
            "queries": queries,
            "seconds": seconds,
        }
        if way is by_coordinates:
            trained = found
    noisy = GaussianNoise(SIGMA)(DATA.test_inputs, KEY.fold("shown"))
    with torch.no_grad():
        rows = {"clean": DATA.test_inputs, "noisy": noisy, "denoised": trained(noisy)}
        said = {name: model(row).argmax(1) for name, row in rows.items()}
    return {"ways": ways, "rows": rows, "said": said, "labels": DATA.test_targets}


# %%
# Digits as they are, with noise, and as the denoiser hands them on, each with what the classifier takes it
# for, and the share of all unseen digits that it reads rightly; and the share that is certified, with an
# interval for what it would be of other digits of the kind.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw images, and certified accuracy by radius."""
    figure = plt.figure(figsize=(9.6, 3.6))
    left, right = figure.subfigures(1, 2, width_ratios=[1.2, 1])
    panels = left.subplots(3, 7, gridspec_kw={"hspace": 0.05, "wspace": 0.05})
    for (name, images), row in zip(shown["rows"].items(), panels, strict=True):
        right_ones = (shown["said"][name] == shown["labels"]).double().mean()
        row[0].set_ylabel(f"{name}\n{right_ones:.0%} right")
        read = zip(images, shown["said"][name].tolist(), shown["labels"].tolist(), strict=True)
        for (image, said, label), panel in zip(read, row, strict=False):  # the first ones
            panel.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            panel.set_title(str(said), color="tab:green" if said == label else "tab:red", pad=2)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
    axes = right.subplots()
    for name, way in shown["ways"].items():
        share, lower, upper = way["shares"].T
        if name == "backward passes":
            axes.plot(RADII, share, color="grey", linestyle="--", label=f"{name}, the box open")
            continue
        axes.plot(RADII, share, label=name)
        axes.fill_between(RADII, lower, upper, alpha=0.15, linewidth=0)
    axes.set(xlabel="radius", ylim=(0, 1), xlim=(0, RADII[-1]))
    axes.set_title("share certified to be read rightly within a radius")
    axes.legend(loc="upper right")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=80, help="of training a denoiser")
    parser.add_argument("--copies", type=int, default=300, help="noisy ones of each image, to be voted on")
    arguments = parser.parse_args()
    shown = main(arguments.steps, arguments.copies)
    draw(shown)
    print(f"{'':18}{'queries':>9}{'seconds':>9}{'r = 0':>8}{'r = .25':>9}{'r = .5':>8}")
    for name, way in shown["ways"].items():
        at = [f"{way['shares'][number, 0]:.1%}" for number in (0, 25, 50)]
        print(f"{name:18}{way['queries']:9}{way['seconds']:9.1f}{at[0]:>8}{at[1]:>9}{at[2]:>8}")
    plt.show()
