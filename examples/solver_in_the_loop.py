"""A network in the loop of a solver
=================================

A coarse solver of Burgers' equation smears shocks. A small network puts its state right after each step, and
the solver goes on from there. What the network does now changes what it will see later, so it should be
trained with the solver running; but the solver is a black box that hands back no gradient.

.. code-block:: sh

    python examples/solver_in_the_loop.py

So the gradient is estimated from values: 64 networks near by run together, each in its own loop, and their
errors say where to go. Training the same network on single steps, the solver left out, is what one can do
without; back-propagation through a solver written anew for it shows how much there is to be gained.

The fine solver here can be started from any state. Where that is so, single steps from its own states are
enough to train on, as ``benchmarks/solver_in_the_loop.py`` finds; measurements offer no such thing.

The task is that of Um, Brand, Fei, Holl and Thuerey, `Solver-in-the-loop
<https://arxiv.org/abs/2007.00016>`_, 2020; training from values for it, that of Chen et al., `DeepZero
<https://arxiv.org/abs/2310.02025>`_, 2024.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.estimators.finite_difference import FiniteDifference
from zoo.problems.correction import Correction

KEY = Key(0)
SHOWN = 3  # which of the flows held out is drawn
COLOURS = ("C5", "C1", "C0", "C2")


# %%
# The task is an error of many networks at a time, each given by its 417 weights: how far roll-outs of four
# steps, from four states of a fine solution, end up from that solution. All three trainings start at the
# same weights and move them by Adam. They differ in where the gradient comes from.


def descend(
    task: Correction, steps: int, gradient: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    x = torch.nn.Parameter(torch.from_numpy(task.start(KEY)).float())
    optimizer = torch.optim.Adam([x], lr=1e-2, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x.grad = gradient(x, step)
        optimizer.step()
        schedule.step()
    return x.detach()


# %%
# In the loop, from values alone: slopes along 32 random directions, forth and back.


def from_values(task: Correction, queries: int) -> torch.Tensor:
    estimator = FiniteDifference("rademacher", 32, smoothing=1e-2)
    state = estimator.init(torch.zeros(task.dim))

    def gradient(x: torch.Tensor, step: int) -> torch.Tensor:
        asked = estimator.ask(state, x.data, KEY, step)
        errors = task(asked.rows(0, len(asked)), key=KEY.fold("batches", step))
        values = Evaluations(errors.double().numpy())
        return estimator.estimate(state, x.data, values, KEY, step)[1].gradient

    return descend(task, queries // 64, gradient)


# %%
# Without the solver: what a single step got wrong, on frames that the coarse solver left to itself went
# through.


def on_single_steps(task: Correction, steps: int) -> torch.Tensor:
    after, wanted = (torch.from_numpy(part).float() for part in task.pairs())

    def gradient(x: torch.Tensor, step: int) -> torch.Tensor:
        chosen = KEY.fold("pairs", step).integers(0, 1, 128, high=len(after))[0]
        flux = task.flux(x[None], after[chosen])[0]
        change = task.coarse.dt * (flux - flux.roll(1, -1))
        return torch.autograd.grad((after[chosen] + change - wanted[chosen]).abs().mean(), x)[0]

    return descend(task, steps, gradient)


# %%
# In the loop, by back-propagation: possible only because this solver can also be run in torch.


def by_back_propagation(task: Correction, steps: int) -> torch.Tensor:
    def gradient(x: torch.Tensor, step: int) -> torch.Tensor:
        return torch.autograd.grad(task(x[None], key=KEY.fold("batches", step))[0], x)[0]

    return descend(task, steps, gradient)


def main(queries: int = 150_000, steps: int = 1000) -> dict[str, Any]:
    """Return the errors of roll-outs held out, and one of the flows as each sees it."""
    task = Correction(steps=4, batch_size=4, held_out=32)
    trained = {
        "coarse solver alone": None,
        "trained on single steps": on_single_steps(task, 2 * steps),
        "in the loop, from values": from_values(task, queries),
        "in the loop, by back-propagation": by_back_propagation(task, steps),
    }
    reference = task.reference("test")
    flow = reference[:, SHOWN : SHOWN + 1]
    return {
        "x": task.coarse.centres,
        "dt": task.coarse.dt,
        "reference": flow[:, 0],
        "flows": {name: task.run(x, flow[0], len(flow) - 1)[:, 0] for name, x in trained.items()},
        "errors": {name: task.errors(x) for name, x in trained.items()},
    }


# %%
# One of the flows held out when three units of time are over, what each solver gets wrong of it, and the
# error of all of them as time goes by: roll-outs are thirty times as long as those that were trained on.


def draw(shown: dict[str, Any], time: float = 3.0) -> plt.Figure:
    """Draw a flow at some time and what is wrong of it, and the mean error of all flows over time."""
    figure = plt.figure(figsize=(10, 4.6))
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    above, below = left.subplots(2, 1, sharex=True)
    step = round(time / shown["dt"])
    reference = shown["reference"][step]
    above.plot(shown["x"], reference, color="#222222", linewidth=6, alpha=0.2, label="fine solver")
    for flow, colour in zip(shown["flows"].values(), COLOURS, strict=True):
        above.plot(shown["x"], flow[step], color=colour, linewidth=1.5)
        below.plot(shown["x"], flow[step] - reference, color=colour, linewidth=1.5)
    above.legend(loc="lower left")
    above.set(title=f"u of a flow held out, at time {time:.0f}")
    below.set(title="what is wrong of it", xlabel="x")
    axes = right.subplots()
    for (name, errors), colour in zip(shown["errors"].items(), COLOURS, strict=True):
        times = shown["dt"] * np.arange(1, len(errors) + 1)
        axes.plot(times, errors, color=colour, label=f"{name}: {errors.mean():.4f}")
    axes.set(xlabel="time", title="mean absolute error of all flows held out")
    axes.set(yscale="log", ylim=(1.5e-3, 0.25))
    axes.set_yticks([0.002, 0.005, 0.01, 0.02, 0.05], [".002", ".005", ".01", ".02", ".05"])
    axes.legend(loc="upper left")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--queries", type=int, default=150_000, help="roll-outs of a network from values")
    parser.add_argument("--steps", type=int, default=1000, help="of back-propagation")
    arguments = parser.parse_args()
    shown = main(arguments.queries, arguments.steps)
    draw(shown)
    for name, errors in shown["errors"].items():
        print(f"{name:34} {errors.mean():.4f}")
    plt.show()
