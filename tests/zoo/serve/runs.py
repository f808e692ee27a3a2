"""Run directories for the tests of the live page."""

from __future__ import annotations

import json
import os
import time

import numpy as np

import zoo
from zoo.run.checkpoint import checksum
from zoo.run.directory import SCHEMA


def finished(path, **arguments):
    """Make a small run that has ended."""
    known = {"method": "cma", "budget": 60, "rng": 1}
    return zoo.minimize("zoo.problems:sphere", np.ones(3), out=path, **{**known, **arguments})


def under_way(path, num_steps=3, **config):
    """Write what a run that is at work has written, with any objective, names and numbers."""
    path.mkdir(parents=True)
    (path / ".lock").touch()
    content = {
        "schema": SCHEMA,
        "method": "cma",
        "objective": {"name": "mine:loss"},
        "dim": 3,
        "budget": 1000,
        **config,
    }
    (path / "config.json").write_text(json.dumps({**content, "sha256": checksum(content)}))
    (path / "meta.json").write_text(
        json.dumps({"started": "2026-01-02T03:04:05.000+00:00", "executor": "Processes", "num_workers": 2})
    )
    step(path, *range(1, num_steps + 1))
    return path


def step(path, *numbers, seconds=0.5, **own):
    """Append steps to the logs."""
    with open(path / "metrics.jsonl", "a") as metrics, open(path / "timings.jsonl", "a") as timings:
        for number in numbers:
            entry = {"step": number, "nfev": 10 * number, "best": 1 / number, "value": 2 / number}
            entry |= {"median": 3.0, "failed": 0, "x": [number, 0.5, -1.0], "sigma": 1 / number, **own}
            metrics.write(json.dumps(entry) + "\n")
            timings.write(json.dumps({"step": number, "seconds": seconds * number}) + "\n")


def event(path, **fields):
    """Append an event."""
    with open(path / "events.jsonl", "a") as file:
        file.write(json.dumps({"time": "2026-01-02T03:04:05.000+00:00", **fields}) + "\n")


def searching(path, num_steps=3, **config):
    """Write what a search for a policy that is at work has written: a score of 8 n in step n."""
    under_way(path, 0, kind="evolution", method="deep-ga", **config)
    for n in range(1, num_steps + 1):
        step(path, n, best=-8.0 * n, value=-10.0 * n, median=-2.0, elite=-8.0 * n, frames=100 * n)
    return path


def age(path, seconds):
    """Make all that a run wrote look as if that were so long ago."""
    then = time.time() - seconds
    for file in path.iterdir():
        os.utime(file, (then, then))
