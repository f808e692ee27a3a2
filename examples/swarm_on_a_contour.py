"""A swarm on a contour
====================

What particles do: a swarm of consensus-based optimization in a winding canyon, at four steps, and as a film.

.. code-block:: sh

    python examples/swarm_on_a_contour.py
    python examples/swarm_on_a_contour.py --film swarm.gif

The particles drift towards their consensus point, the mean of all weighted by ``exp(-alpha f)``, and diffuse
the more the farther they are from it. So the swarm stays wide while it does not agree, and closes in where it
does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import zoo
from zoo.problems import canyon
from zoo.report.swarms import SwarmFilm, animate_swarm, draw_swarm

BOX, STILLS = ((-3.0, 9.5), (-3.0, 9.5)), (0, 30, 100, 240)

# %%
# A ``SwarmFilm`` is a watcher: given as ``callback``, it takes down where the particles are at every step, of
# any method that asks for points of two variables. Where ``--film`` says so, it is animated, as a GIF or as
# a page with buttons.


def main(num_particles: int = 200, steps: int = 250, film: Path | None = None) -> dict[str, Any]:
    """Search, and return the result with what was filmed."""
    watched = SwarmFilm()
    options = {"num_particles": num_particles, "sigma": 1.6, "dt": 0.01, "alpha": 100.0, "noise": "isotropic"}
    result = zoo.minimize(
        canyon,
        np.array([8.0, 8.0]),
        method="cbo-textbook",
        scale=0.5,
        budget=steps * num_particles,
        rng=1,
        vectorized=True,
        callback=watched,
        options=options,
    )
    if film is not None:
        animate_swarm(canyon, watched, film, box=BOX, minimum=(0, 0), vectorized=True, frames=125)
    return {"film": watched, "result": result}


# %%
# Four stills. The star is where the particles of the step before agreed to go, and the line where that was
# until then.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw the swarm at four steps."""
    film = shown["film"]
    figure, panels = plt.subplots(2, 2, figsize=(7.6, 8.2), sharex=True, sharey=True)
    for axes, step in zip(panels.flat, STILLS, strict=True):
        step = min(step, len(film.particles) - 1)
        path = np.array(film.consensus[: step + 1])
        height = f"f = {canyon(path[-1]):.3g} at the consensus point"
        draw_swarm(
            canyon,
            film.particles[step],
            path,
            box=BOX,
            minimum=(0, 0),
            vectorized=True,
            axes=axes,
            title=f"step {step}: {height}",
        )
        axes.set(xticks=[0, 4, 8], yticks=[0, 4, 8])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--film", type=Path, help="where to write the film: a path ending in .gif or .html")
    shown = main(film=parser.parse_args().film)
    draw(shown)
    print("after", shown["result"].nfev, "evaluations x =", shown["result"].x.round(3))
    plt.show()
