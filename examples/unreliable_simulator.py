"""A simulator that crashes and hangs
==================================

Tune a controller with a simulator that crashes for some settings and never ends for others.

.. code-block:: sh

    python examples/unreliable_simulator.py

The simulator runs a motor under a PID controller until it has settled at its target, and prints what that
took. Settings under which the motor sticks or swings keep it busy for ever, and settings under which it
runs away end it without an answer. Two workers, a deadline and `on_error="nan"` are all it takes to tune it
all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import matplotlib.pyplot as plt

import zoo
from zoo.execution.ledger import summary

SIMULATOR = """
import math, sys
for line in sys.stdin:
    kp, ki, kd = map(float, line.split())
    position = speed = integral = seconds = effort = 0.0
    quiet = 0
    while quiet < 100:  # one second without moving away from the target
        error = 1.0 - position
        integral += 0.01 * error
        force = kp * error + ki * integral - kd * speed
        if abs(force) < 0.12 and abs(speed) < 0.01:
            force = speed = 0.0  # it sticks
        speed += 0.01 * (force - 0.2 * speed)
        position += 0.01 * speed
        if sys.argv[1:]:
            print(position)
        seconds += 0.01
        effort += 0.01 * force**2
        quiet = quiet + 1 if abs(error) < 0.02 and abs(speed) < 0.05 else 0
        if abs(position) > 1e3:
            sys.exit(1)
    print(seconds + 0.02 * effort, flush=True)
"""
BOUNDS = [(0, 20), (0, 8), (0, 12)]
START = [8.0, 1.0, 4.0]


def main(budget: int = 300, workers: Any = None) -> Any:
    """Tune the three gains, and return the result."""
    return zoo.minimize(
        [sys.executable, "-c", SIMULATOR],
        START,
        bounds=BOUNDS,
        method="cma",
        budget=budget,
        rng=2,
        on_error="nan",
        workers=workers or zoo.Processes(2, timeout=1.0),
    )


# %%
# How the motor moves, before and after.


def response(gains: Any) -> list[float]:
    """Return the positions that the simulator goes through under some gains, every hundredth of a second."""
    line = " ".join(str(gain) for gain in gains)
    program = [sys.executable, "-c", SIMULATOR, "positions"]
    done = subprocess.run(program, input=line, capture_output=True, text=True, check=True)
    return [float(position) for position in done.stdout.split()[:-1]]


def draw(result: Any) -> plt.Figure:
    """Draw the way to the target under the first gains and under the best."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    axes.axhline(1.0, color="#9a9a9a", linewidth=1, linestyle="--")
    for gains, name, colour in ((START, "before", "C1"), (result.x, "tuned", "C0")):
        positions = response(gains)
        axes.plot([0.01 * step for step in range(len(positions))], positions, color=colour, label=name)
        axes.plot(0.01 * (len(positions) - 1), positions[-1], "o", color=colour, markersize=6)
    axes.set(title="from 0 to the target, until it has settled", xlabel="seconds", ylabel="position")
    axes.legend(loc="lower right")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=300, help="simulations")
    result = main(parser.parse_args().budget)
    draw(result)
    print(f"gains {', '.join(f'{gain:.3g}' for gain in result.x)}: cost {result.fun:.3f}")
    print(f"{result.num_failed} of {result.nfev} simulations failed")
    print(summary(result.account))
    plt.show()
