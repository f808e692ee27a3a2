"""Light and stiff
===============

A beam is to be light and to bend little. No beam is best at both: find all those that cannot be made better
at one without being worse at the other.

.. code-block:: sh

    python examples/light_and_stiff.py

The beam is fixed at one end, loaded at the other, and made of five pieces, each with a width and a height.
No piece may be stressed beyond what aluminium bears, or be four times as high as it is wide. ``nsga2``
takes several objectives at once; ``result.front`` holds the compromises that it found.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np

import zoo

LENGTH, LOAD = 1.0, 500.0  # metres, newtons
ELASTICITY, DENSITY, STRENGTH = 70e9, 2700.0, 1e8  # of aluminium: pascals, kilograms a cubic metre, pascals
ENDS = np.linspace(0, LENGTH, 6)  # of the five pieces, counted from the load
BOUNDS = [(0.01, 0.06)] * 5 + [(0.01, 0.15)] * 5  # widths and heights, metres


# %%
# Mass in kilograms and deflection in millimetres, and what may not be below 0. With ``vectorized=True``
# both take many beams at once.


def mass_and_deflection(x: np.ndarray) -> np.ndarray:
    width, height = x[:, :5], x[:, 5:]
    mass = DENSITY * LENGTH / 5 * (width * height).sum(1)
    inertia = width * height**3 / 12
    deflection = (LOAD * np.diff(ENDS**3) / (3 * ELASTICITY * inertia)).sum(1)
    return np.column_stack([mass, 1000 * deflection])


def margins(x: np.ndarray) -> np.ndarray:
    width, height = x[:, :5], x[:, 5:]
    stress = 6 * LOAD * ENDS[1:] / (width * height**2)
    return np.hstack([1 - stress / STRENGTH, 1 - height / (4 * width)])


def main(budget: int = 30_000) -> dict[str, np.ndarray]:
    """Return the front with its masses and deflections, and those of beams that do not taper."""
    front = zoo.minimize(
        mass_and_deflection,
        bounds=BOUNDS,
        constraints=margins,
        method="nsga2",
        budget=budget,
        vectorized=True,
        rng=4,
    ).front
    height = np.linspace(0.01, 0.15, 200)[:, None]
    plain = np.hstack([np.repeat(height / 4, 5, axis=1), np.repeat(height, 5, axis=1)])
    plain = plain[(margins(plain) > -1e-9).all(1) & (plain[:, 0] >= 0.01)]
    return {"x": front.x, "front": front.fun, "plain": mass_and_deflection(plain)}


# %%
# The front, and three of the beams that it is made of, seen from the side.


def draw(shown: dict[str, np.ndarray]) -> plt.Figure:
    """Draw masses and deflections, and three beams."""
    figure, panels = plt.subplot_mosaic(
        [["front", "light"], ["front", "middle"], ["front", "stiff"]],
        figsize=(9.6, 4.4),
        width_ratios=[1.35, 1],
    )
    axes = panels["front"]
    axes.plot(*shown["plain"].T, color="C5", linewidth=1.2, label="beams that do not taper")
    axes.scatter(*shown["front"].T, s=9, linewidths=0, alpha=0.8, label="front")
    for number, (name, mass) in enumerate({"light": 1.5, "middle": 3.0, "stiff": 6.0}.items()):
        index = int(np.abs(shown["front"][:, 0] - mass).argmin())
        colour, (mass, deflection) = f"C{number + 1}", shown["front"][index]
        axes.plot(mass, deflection, "o", markersize=10, color=colour, markeredgecolor="white")
        height = 1000 * shown["x"][index, 5:]
        side = panels[name]
        side.bar(ENDS[:-1], height, width=0.2, bottom=-height / 2, align="edge", color=colour, alpha=0.85)
        side.axvline(LENGTH, color="#555555", linewidth=6)
        side.annotate("", (0, height[0] / 2), (0, height[0] / 2 + 45), arrowprops={"arrowstyle": "->"})
        side.set(title=f"{mass:.1f} kg, bends {deflection:.1f} mm", xlim=(1.01, -0.03), ylim=(-75, 75))
        side.set(ylabel="mm", yticks=[-50, 0, 50], xticks=[])
        side.grid(False)
        side.spines["bottom"].set_visible(False)
    side.set_xlabel("from the wall to the load, 1 m")
    axes.set(xscale="log", yscale="log", xlabel="mass, kg", ylabel="deflection, mm")
    axes.set(title="at equal masses, beams that taper bend less")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_yticks([1, 10], ["1", "10"])
    axes.legend()
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=30_000, help="beams")
    shown = main(parser.parse_args().budget)
    draw(shown)
    (light, bends), (heavy, stays) = shown["front"][0], shown["front"][-1]
    print(f"{len(shown['front'])} compromises, from {light:.2f} kg that bend {bends:.1f} mm")
    print(f"to {heavy:.2f} kg that bend {stays:.2f} mm")
    plt.show()
