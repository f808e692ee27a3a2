"""Is gradient all you need?
=========================

Swarms that know nothing of gradients follow them, and get past what stops descent along them: consensus
hopping and consensus-based optimization beside gradient descent, after a paper of that name.

.. code-block:: sh

    python examples/gradient_is_all_you_need.py

A hop samples points around where the search is and moves to their mean, weighted by ``exp(-alpha f)``.
Nothing in it looks like a derivative. But with samples of width ``s`` and ``tau = alpha s^2``, the mean of
very many points is where an implicit gradient step of length ``tau`` leads, on ``f`` as it looks through the
sample: ``c - x = -tau E grad f``. Stein's identity says so, for every ``alpha`` and ``s``.

Source: K. Riedl, T. Klock, C. Geldhauser and M. Fornasier, *Gradient is All You Need?*, 2023,
https://arxiv.org/abs/2306.09778
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import zoo
from zoo.consensus.cbo import CBO
from zoo.consensus.hopping import ConsensusHopping
from zoo.problems import calm_canyon, canyon, rosenbrock
from zoo.report.swarms import draw_contour

START, BOX = np.array([8.0, 8.0]), ((-3.0, 9.5), (-3.0, 9.5))
WIDTH = 0.1  # of the samples whose hops are drawn as arrows
INK, HOP = "#222222", "#c8323c"


def slope(fun: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Return the gradient at each row of x, from differences."""
    x, axes = x[..., None, :], h * np.eye(x.shape[-1])
    return (fun(x + axes) - fun(x - axes)) / (2 * h)


def keys(count: int) -> list[zoo.Key]:
    """Return a key for each of several searches, which then go their own ways side by side."""
    return [zoo.Key(0).fold(run) for run in range(count)]


# %%
# One hop is a gradient step
# --------------------------
#
# From points in a canyon with a smooth floor. ``alpha`` is left to the method, which puts it where the mean
# is made of half of the sample, and tells by ``tau`` how long a gradient step that is. The two differ at the
# foot of steep walls: there the gradient step overshoots, and the hop, which is implicit, does not.


def hops_and_slopes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one hop from each of some points, and the gradient steps of the same tau."""
    method = ConsensusHopping(num_particles=1000, sigma=WIDTH)
    state = method.init_many(np.zeros(2), keys=keys(len(points)))
    y = method.ask(state).rows(0, 1000 * len(points)).reshape(len(points), 1000, 2)
    told = method.tell(state, zoo.Evaluations(calm_canyon(points[:, None] + y).ravel()))
    return method.recommend_many(told), -(told.alpha * WIDTH**2)[:, None] * slope(calm_canyon, points)


# %%
# How near the two are depends on how many points there are, and on ``r = tau |grad f| / s``, the length of
# the gradient step in widths of the sample. If it is small, the step drowns in the noise of the mean; if it
# is large, it leads out of the sample, and the mean is made of a few points only. Here in 20 variables, for
# hops, and for the consensus point of a swarm whose coordinates are of different widths: that one goes along
# the gradient times the swarm's covariance.

REACHES = np.geomspace(0.03, 8, 17)
DIM, NARROW = 20, 0.003


def cosines(method: Any, widths: np.ndarray, count: int) -> np.ndarray:
    """Return the cosines between steps of the consensus and gradient steps, from random points."""
    points = zoo.Key(1).uniform(0, count, DIM) * 2 - 1
    slopes = slope(rosenbrock, points, 1e-6)
    units = np.linalg.norm(slopes * widths, axis=1)  # in which r is alpha
    state = method.init_many(np.zeros(DIM), keys=keys(count), scale=widths)
    y = method.ask(state).rows(0, method.num_particles * count).reshape(count, -1, DIM)
    values = rosenbrock(points[:, None] + y) / units[:, None]
    told = method.tell(state, zoo.Evaluations(values.ravel()))
    steps, expected = told.anchor / widths, -slopes * widths  # both as a sphere sees them
    return (steps * expected).sum(1) / np.linalg.norm(steps, axis=1) / np.linalg.norm(expected, axis=1)


def angles(starts: int) -> dict[str, np.ndarray]:
    """Return median cosines over random points, for each r, by who takes the step."""
    even, uneven = np.full(DIM, NARROW), NARROW * np.geomspace(0.2, 1, DIM)
    found: dict[str, list[float]] = {}
    for reach in REACHES:
        for number in (30, 300, 3000):
            hops = ConsensusHopping(num_particles=number, sigma=1.0, alpha=float(reach), mirrored=False)
            found.setdefault(f"hop, {number} points", []).append(np.median(cosines(hops, even, starts)))
        swarm = textbook(num_particles=300, alpha=float(reach), sigma=0.1, dt=0.01)
        found.setdefault("swarm, 300 particles", []).append(np.median(cosines(swarm, uneven, starts)))
    return {name: np.array(row) for name, row in found.items()}


def textbook(**options: Any) -> CBO:
    """Return consensus-based optimization as it was first published."""
    plain = {"noise": "isotropic", "memory": "none", "num_coordinates": None, "elitist": False}
    return CBO(drift=1.0, explorers=0.0, **plain, **options)


# %%
# The canyon
# ----------
#
# Its floor has ripples. Descent ends in one of them, and descent with noise that falls over time, Langevin
# dynamics, gets over some. A hop sees the floor through its sample: a narrow one has the same ripples, a wide
# one has none.


def descend(runs: int, noises: tuple[float, ...], steps: int = 10_000, dt: float = 1e-3) -> np.ndarray:
    """Return paths of descent with noise that falls with log(step), shape (noises, 251, runs, 2)."""
    strength = np.array(noises)[:, None, None] * np.sqrt(dt)
    x = np.broadcast_to(START + 0.5 * zoo.Key(2).normal(0, runs, 2), (len(noises), runs, 2))
    path, z = [x], zoo.Key(3).normal(0, steps, 2 * runs).reshape(steps, runs, 2)
    for step in range(1, steps + 1):
        x = x - dt * slope(canyon, x) + strength / np.log(step + 1) * z[step - 1]
        if step % (steps // 250) == 0:
            path.append(x)
    return np.stack(path, 1)


def search(method: Any, runs: int, scale: float = 1.0, steps: int = 250) -> np.ndarray:
    """Return where several searches are after every step, shape (steps + 1, runs, 2)."""
    state = method.init_many(START, keys=keys(runs), scale=scale)
    path = [method.recommend_many(state)]
    for _ in range(steps):
        candidates = method.ask(state)
        state = method.tell(state, zoo.Evaluations(canyon(candidates.rows(0, len(candidates)))))
        path.append(method.recommend_many(state))
    return np.array(path)


def hopping(width: float) -> ConsensusHopping:
    """Return consensus hopping as in the paper."""
    return ConsensusHopping(num_particles=200, sigma=width, alpha=100.0, mirrored=False, decay=1.0)


def main(runs: int = 50, starts: int = 60) -> dict[str, Any]:
    """Take all steps and paths; return them with the share of paths that end near the minimum."""
    points = np.stack(np.meshgrid(np.linspace(-2, 8.5, 7), np.linspace(-2, 8.5, 7)), -1).reshape(-1, 2)
    descent, langevin = descend(runs, (0.0, 10.0))
    paths = {
        "gradient descent": descent,
        "Langevin dynamics": langevin,
        "hopping, s = 0.4": search(hopping(0.4), runs),
        "hopping, s = 0.6": search(hopping(0.6), runs),
        "hopping, s = 0.7": search(hopping(0.7), runs),
        "consensus-based": search(textbook(num_particles=200, sigma=1.6, dt=0.01, alpha=100.0), runs, 0.5),
    }
    arrived = {name: float((np.hypot(*path[-1].T) < 0.5).mean()) for name, path in paths.items()}
    arrows = (points, *hops_and_slopes(points))
    return {"arrows": arrows, "angles": angles(starts), "paths": paths, "arrived": arrived}


# %%
# The pictures.


def draw_steps(shown: dict[str, Any]) -> plt.Figure:
    """Draw hops beside gradient steps, and how near they are."""
    figure, (plane, near) = plt.subplots(1, 2, figsize=(9.6, 4.4), width_ratios=[1, 1.1])
    draw_contour(plane, calm_canyon, BOX, vectorized=True)
    points, hops, slopes = shown["arrows"]
    style = {
        "angles": "xy",
        "scale_units": "xy",
        "scale": 1 / 12,
        "headwidth": 3,
        "headlength": 3,
        "headaxislength": 2.7,
    }
    broad = {"width": 0.011, "color": "white", "edgecolor": INK, "linewidth": 0.7}
    plane.quiver(*points.T, *slopes.T, label="gradient step", **broad, **style)
    plane.quiver(*points.T, *hops.T, color=HOP, width=0.005, label="hop", **style)
    plane.set(
        title="arrows are twelve times as long as the steps",
        xlabel="first variable",
        ylabel="second variable",
    )
    plane.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)

    near.axvspan(REACHES[0], 1.5, color="#eef3f8", zorder=0)
    near.annotate("r up to 1.5", (1.4, 0.02), ha="right", color="#555555", fontsize=9)
    lines = zip(shown["angles"].items(), ("#f2b8a0", "#e0735c", HOP, "#1f5fa8"), strict=True)
    for (name, cosine), colour in lines:
        marker = {"marker": "o", "linestyle": ""} if name.startswith("swarm") else {}
        near.semilogx(REACHES, cosine, color=colour, label=name, markersize=5, **marker)
    near.set(title="20 variables", ylim=(0, 1.02), xlabel="r: gradient step in widths of the sample")
    near.set_ylabel("cosine of the angle to the gradient step")
    near.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw all paths in the canyon."""
    figure, panels = plt.subplots(2, 3, figsize=(9.6, 7.0), sharex=True, sharey=True)
    warm = plt.get_cmap("YlOrRd").resampled(256)
    colours = ListedColormap(warm(np.linspace(0.2, 1, 256)))
    for axes, (name, path) in zip(panels.flat, shown["paths"].items(), strict=True):
        draw_contour(axes, canyon, BOX, vectorized=True)
        when = np.repeat(np.arange(len(path)), path.shape[1])
        dots = axes.scatter(*path.reshape(-1, 2).T, c=when, cmap=colours, s=3, linewidths=0, alpha=0.8)
        axes.plot(*START, "o", color="white", markeredgecolor=INK, markersize=6)
        axes.plot(0, 0, "x", color=INK, markersize=8, markeredgewidth=2)
        count = path.shape[1]
        axes.set(xticks=[0, 4, 8], yticks=[0, 4, 8])
        axes.set_title(f"{name}: {round(shown['arrived'][name] * count)} of {count} arrive")
    bar = figure.colorbar(dots, ax=panels, location="bottom", shrink=0.4, aspect=40, pad=0.02)
    bar.set_ticks([0, 250], labels=["start (white circle)", "end; the cross is the minimum"])
    bar.outline.set_visible(False)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=50)
    shown = main(parser.parse_args().runs)
    draw_steps(shown)
    draw(shown)
    for name, share in shown["arrived"].items():
        print(f"{name}: {share:.0%}")
    plt.show()
