"""A network trained from forward passes alone
===========================================

A convolutional network of 5002 parameters learns handwritten digits, from scratch. Nobody computes a
gradient: each step runs the network on one mini-batch, many times, every time with some of its parameters
changed a little, and goes down along the differences.

.. code-block:: sh

    python examples/train_a_network.py

Two ways to choose what is changed stand side by side. DeepZero changes one parameter at a time, a tenth of
the weights in a step, others in each. Random vectors change all parameters at once. They are far ahead while
forward passes are few, and coordinates come further in the end. A dashed line shows how far descent by
backward passes comes in as many steps as DeepZero takes.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import matplotlib.pyplot as plt
import torch

from zoo.core.rng import Key
from zoo.estimators.finite_difference import FiniteDifference
from zoo.nn.batches import Batches, CropAndFlip
from zoo.nn.data import Data, cifar10, digits
from zoo.nn.evaluate import accuracy, evaluating
from zoo.nn.gradient import estimate_gradient_
from zoo.nn.losses import cross_entropy
from zoo.nn.models.cnn import cnn, deepzero_cnn
from zoo.nn.parameters import Parameters
from zoo.nn.training import settle, train
from zoo.problems.cifar import DEVIATION, MEAN
from zoo.updates.schedules import Cosine, Warmup

KEY = Key(0)
torch.set_num_threads(1)  # the network is so small that threads would wait for each other

# %%
# What is to be learned. Weights and mini-batches follow from a key, so all ways begin alike and see the same
# images. CIFAR-10 has to be there already, in a folder, as its archives unpack; a step of its network takes
# seconds.


def task(folder: str | None) -> tuple[Data, Batches]:
    """Return images to learn and to test with, and mini-batches of them."""
    if folder is None:
        data, augment = digits(), None
    else:
        data = cifar10(folder)
        black = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
        augment = CropAndFlip(fill=black)
    size = min(64, len(data.inputs))
    return data, Batches(data.inputs, data.targets, size, key=KEY.fold("batches"), augment=augment)


def network(folder: str | None) -> torch.nn.Module:
    """Return the network as it begins."""
    if folder is None:
        return cnn(key=KEY.fold("network"), norm=True)
    return deepzero_cnn(2, key=KEY.fold("network"))


# %%
# DeepZero is a call. A query is one forward pass of one mini-batch.


def by_coordinates(data: Data, batches: Batches, model: torch.nn.Module, steps: int) -> dict[str, Any]:
    """Train by differences along a tenth of the weights."""
    done = train(
        model,
        cross_entropy,
        batches,
        options={"sparsity": 0.9, "learning_rate": 0.2},
        steps=steps,
        test=(data.test_inputs, data.test_targets),
        test_every=max(1, steps // 20),
        rng=KEY.fold("method"),
    )
    seen = done.history["test"] == done.history["test"]  # there is no test in most steps
    return {"queries": done.history["queries"][seen], "right": done.history["test"][seen]}


# %%
# Random vectors, in a loop of one's own. ``estimate_gradient_`` stands where ``loss.backward()`` would, and
# any optimizer of torch takes it from there.


def by_vectors(data: Data, batches: Batches, model: torch.nn.Module, steps: int) -> dict[str, Any]:
    """Train by differences along ten random vectors a step."""
    estimator = FiniteDifference("gaussian", 10, smoothing=1e-3, stencil="forward")
    return by_torch(
        data,
        batches,
        model,
        steps,
        0.004,
        lambda closure, step: estimate_gradient_(model, closure, estimator, KEY, step).queries,
    )


def by_backward_passes(data: Data, batches: Batches, model: torch.nn.Module, steps: int) -> dict[str, Any]:
    """Train as networks usually are."""

    def write_gradient_(closure: Any, step: int) -> int:
        del step
        model.zero_grad()
        closure().backward()
        return 1

    return by_torch(data, batches, model, steps, 0.2, write_gradient_)


def by_torch(
    data: Data, batches: Batches, model: torch.nn.Module, steps: int, rate: float, write_gradient_: Any
) -> dict[str, Any]:
    """Train by descent with momentum along gradients that a function writes."""
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    warmup = -(-6 * steps // 100)
    schedule = Warmup(warmup, Cosine(rate, max(1, steps - warmup)))
    queries, shown = 0, {"queries": [], "right": []}
    for step in range(steps):
        inputs, targets = batches.at(step)
        closure = lambda x=inputs, y=targets: cross_entropy(model(x), y).double().mean()  # noqa: E731
        queries += write_gradient_(closure, step)
        optimizer.param_groups[0]["lr"] = schedule.value(step)
        optimizer.step()
        if (step + 1) % max(1, steps // 20) == 0:
            settle(
                model, Parameters(model).flat(), batches
            )  # running statistics of the weights as they are now
            shown["queries"].append(queries)
            shown["right"].append(accuracy(model, data.test_inputs, data.test_targets))
    return shown


def main(steps: int = 200, folder: str | None = None) -> dict[str, Any]:
    """Return the curves of all ways, and what the network says of images that it has not seen."""
    data, batches = task(folder)
    curves = {}
    for name, way, count in (
        ("a tenth of the coordinates", by_coordinates, steps),
        ("10 random vectors", by_vectors, 3 * steps),
        ("backward passes", by_backward_passes, steps),
    ):
        model, began = network(folder), time.perf_counter()
        curves[name] = {**way(data, batches, model, count), "steps": count}
        curves[name]["seconds"] = time.perf_counter() - began
        if way is by_coordinates:
            with evaluating(model), torch.no_grad():
                said = model(data.test_inputs).argmax(1)
    return {"curves": curves, "images": data.test_inputs, "said": said, "labels": data.test_targets}


# %%
# Accuracy by queries, and 30 unseen images with what the network trained by DeepZero takes them for. What it
# gets wrong comes first, in red.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw accuracy by queries, and images with their labels."""
    figure = plt.figure(figsize=(9.6, 3.6))
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    axes = left.subplots()
    for name, curve in shown["curves"].items():
        if name == "backward passes":
            axes.axhline(curve["right"][-1], color="grey", linestyle="--", label=name)
        else:
            axes.semilogx(curve["queries"], curve["right"], label=f"{name}: {curve['right'][-1]:.1%}")
    axes.set(xlabel="forward passes", title="share of unseen images classified rightly", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    right.suptitle("what DeepZero's network reads, mistakes first", x=0, ha="left", fontsize="medium")
    wrong = shown["said"] != shown["labels"]
    first = torch.argsort(wrong.int(), descending=True, stable=True)
    for number, panel in zip(first.tolist(), right.subplots(5, 6).flat, strict=False):
        image = shown["images"][number].movedim(0, -1)
        image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
        panel.imshow(image.numpy(), cmap="gray_r")
        panel.set_title(
            str(int(shown["said"][number])), color="tab:red" if wrong[number] else "tab:green", pad=2
        )
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=200, help="of DeepZero")
    parser.add_argument("--cifar", metavar="FOLDER", help="learn CIFAR-10, which is in this folder")
    arguments = parser.parse_args()
    shown = main(arguments.steps, arguments.cifar)
    draw(shown)
    print(f"{'':28}{'steps':>6}{'queries':>9}{'accuracy':>10}{'seconds':>9}")
    for name, curve in shown["curves"].items():
        print(
            f"{name:28}{curve['steps']:6}{int(curve['queries'][-1]):9}"
            f"{curve['right'][-1]:10.1%}{curve['seconds']:9.1f}"
        )
    plt.show()
