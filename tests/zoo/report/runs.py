"""Runs of all kinds, to be reported and compared."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np

import zoo
from zoo.core.errors import ZooError
from zoo.run.directory import RunDirectory


def sphere(x):
    return float((x**2).sum())


def noisy(x):
    return sphere(x) + 0.1 * np.random.standard_normal()


def fails_at_times(x):
    if x[0] > 0.9:
        raise ValueError("too <b>large</b>")
    return math.nan if x[1] < 0.2 else sphere(x)


def mixed(point):
    return point["rate"] + (point["kind"] != "b") + point["<i>depth</i>"]


def make(kind: str, out: Path) -> Path:
    """Make a run of some kind."""
    start = np.ones(3)
    if kind == "smooth":
        zoo.minimize(sphere, start, budget=600, rng=0, out=out)
    elif kind == "noisy":
        zoo.minimize(noisy, start, noise=True, budget=200, rng=0, out=out)
    elif kind == "constrained":
        constraint = {"type": "ineq", "fun": lambda x: x.sum() - 1}
        zoo.minimize(sphere, np.zeros(3), constraints=constraint, budget=150, rng=0, out=out)
    elif kind == "mixed":
        variables = {
            "rate": zoo.Float(1e-3, 1, log=True),
            "kind": zoo.Categorical(["a", "b", "c"]),
            "<i>depth</i>": zoo.Integer(0, 4),
        }
        zoo.minimize(mixed, space=zoo.Space(variables), budget=120, rng=0, out=out)
    elif kind == "several":
        zoo.minimize(lambda x: (sphere(x), sphere(x - 1)), start, method="nsga2", budget=200, rng=0, out=out)
    elif kind == "failing":
        with contextlib.suppress(ZooError):
            zoo.minimize(fails_at_times, start * 0.6, scale=0.3, on_error="nan", budget=200, rng=0, out=out)
    elif kind == "all failed":
        zoo.minimize(lambda x: math.nan, start, budget=40, rng=0, out=out)
    elif kind == "one step":
        zoo.minimize(sphere, start, budget=8, rng=0, out=out)
    elif kind == "no step":
        zoo.minimize(sphere, start, budget=1, rng=0, out=out)
    elif kind == "all equal":
        zoo.minimize(lambda x: -2.5, start, budget=60, rng=0, out=out)
    elif kind == "many variables":
        zoo.minimize(sphere, np.ones(120), method="sep-cma", budget=200, rng=0, out=out)
    elif kind == "under way":
        make("smooth", out)
        (out / "result.json").unlink()
        (out / "events.jsonl").unlink()
    return out


KINDS = (
    "smooth",
    "noisy",
    "constrained",
    "mixed",
    "several",
    "failing",
    "all failed",
    "one step",
    "no step",
    "all equal",
    "many variables",
    "under way",
)


def log(out: Path, columns: dict[str, list], *, events=(), **config) -> Path:
    """Write a run that logged these columns, with `config` in the place of what it was."""
    zoo.minimize(sphere, np.ones(3), budget=1, rng=0, out=out / "made")
    directory = RunDirectory.open(out / "made")
    settings, start = directory.config, directory.start
    directory.close()
    meta = json.loads((out / "made" / "meta.json").read_text())
    directory = RunDirectory.create(out / "run", {**settings, **config}, start, meta)
    steps = range(1, len(next(iter(columns.values()))) + 1)
    for step, values in zip(steps, zip(*columns.values(), strict=True), strict=True):
        entry = {"step": step, "nfev": 10 * step, **dict(zip(columns, values, strict=True))}
        directory.log("metrics.jsonl", entry)
        directory.log("timings.jsonl", {"step": step, "seconds": 0.5 * step})
    for event in events:
        directory.event(event)
    directory.flush()
    directory.close()
    return out / "run"
