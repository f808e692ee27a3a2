"""A laboratory, late answers
==========================

Find the best recipe of a dye in a laboratory, whose answers come late and not in order.

.. code-block:: sh

    python examples/laboratory.py

Three benches take a few samples each and need hours for them. One sample is spilt. Every evening the program
ends, whatever is still on the benches, and in the morning it is started again. None of this changes a single
sample that is asked for: they are those of a simulator that answers at once.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

import zoo

SEARCH: dict[str, Any] = {
    "method": "cma",
    "space": zoo.Space(
        {
            "temperature": zoo.Float(20.0, 90.0),  # degrees
            "minutes": zoo.Float(5.0, 240.0, log=True),
            "salt": zoo.Float(0.0, 2.0),  # grams a litre
        }
    ),
    "rng": 3,
}
SPILT = 17  # the sample that is lost


def fading(recipe: dict[str, float]) -> float:
    """Return how much of its colour a dyed cloth loses, in percent."""
    hot = (recipe["temperature"] - 62.0) / 20.0
    uptake = math.log(recipe["minutes"] / 50.0) + 0.8 * hot
    return 4.0 + 9.0 * hot**2 + 6.0 * uptake**2 + 5.0 * (recipe["salt"] - 0.7 - 0.3 * hot) ** 2


class Bench:
    """Takes as many samples as it has places, and has all of their values some hours later."""

    def __init__(self, places: int, hours: float) -> None:
        self.places, self.hours = places, hours
        self.samples: list[zoo.Trial] = []
        self.ready = math.inf

    def start(self, samples: list[zoo.Trial], now: float) -> None:
        """Take samples, if there are any."""
        self.samples = samples
        self.ready = now + self.hours * len(samples) ** 0.5 if samples else math.inf

    def values(self) -> dict[int, float]:
        """Hand out the values, the last sample first, and be free again."""
        values = {sample.id: fading(sample.x) for sample in reversed(self.samples)}
        self.samples, self.ready = [], math.inf
        return values


# %%
# One day. The session is opened in the morning, with what is still on the benches, and closed in the evening.


def work(
    directory: Path, budget: int, benches: list[Bench], morning: float, evening: float, log: list[Any]
) -> zoo.Session:
    """Do one day's work: what the program does from its start to its end."""
    now = morning
    with zoo.Session(**SEARCH, budget=budget, out=directory) as session:
        while not session.done and now < evening:
            for bench in benches:
                if not bench.samples:
                    bench.start(session.ask(bench.places), now)
            first = min(benches, key=lambda bench: bench.ready)
            if first.ready > evening:
                break
            now, values = max(now, first.ready), first.values()
            if SPILT in values:
                del values[SPILT]
                session.abandon(SPILT, "spilt")
            session.tell(values)
            log += [(now, benches.index(first), value) for value in values.values()]
    return session


def main(budget: int = 120) -> dict[str, Any]:
    """Look for the recipe day by day, and compare with a simulator that answers at once."""
    benches, log = [Bench(2, 1.5), Bench(3, 4.0), Bench(4, 2.5)], []
    with tempfile.TemporaryDirectory() as folder:
        for day in itertools.count(1):
            session = work(Path(folder), budget, benches, 24.0 * day + 9, 24.0 * day + 17, log)
            if session.done:
                break
    calls = itertools.count()
    at_once = zoo.minimize(
        lambda recipe: math.nan if next(calls) == SPILT else fading(recipe), **SEARCH, budget=budget
    )
    return {"days": day, "result": session.result, "equal": session.result.x == at_once.x, "log": log}


# %%
# When which bench had its values.


def draw(shown: dict[str, Any]) -> plt.Figure:
    """Draw the values as they came in, and the best of them."""
    figure, axes = plt.subplots(figsize=(8.4, 3.8))
    log = sorted(shown["log"])
    for day in range(1, shown["days"] + 1):
        axes.axvspan(day + 9 / 24, day + 17 / 24, color="#f1f1f1", linewidth=0)
    for bench in range(3):
        times, values = zip(*((now / 24, value) for now, which, value in log if which == bench), strict=True)
        axes.plot(times, values, ".", color=f"C{bench}", markersize=8, alpha=0.75, label=f"bench {bench + 1}")
    best = list(itertools.accumulate((value for _, _, value in log), min))
    axes.step(
        [now / 24 for now, _, _ in log], best, "#555555", where="post", linewidth=1.2, label="best so far"
    )
    axes.set(title="samples as they came in; working hours are grey", xlabel="day", ylabel="fading, percent")
    axes.set(yscale="log", xlim=(1.3, shown["days"] + 0.8))
    axes.set_xticks([day + 0.54 for day in range(1, shown["days"] + 1)], range(1, shown["days"] + 1))
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=2)
    return figure


# %%


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=120, help="samples")
    shown = main(parser.parse_args().budget)
    draw(shown)
    result = shown["result"]
    print(f"after {shown['days']} days and {result.nfev} samples, {result.num_failed} of them lost:")
    print(", ".join(f"{name} {value:.3g}" for name, value in result.x.items()), f"fades {result.fun:.2f} %")
    print("the same as without benches, days and spilling:", shown["equal"])
    plt.show()
