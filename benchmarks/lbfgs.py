"""Evaluations to 1e-8 and CPU per evaluation of `zoo.minimize(method="lbfgs")` and of scipy's L-BFGS-B.

    python benchmarks/lbfgs.py [--starts 9]

Scipy makes its own forward differences, remembers as many pairs as ours (30, three times its default), and
may not stop of its own accord (ftol = gtol = 0). Both start at the same normal points; a run that ends
without the target counts as `MOST` evaluations, and `failed` says how many did. Starts from which both
end in another local minimum are left out. CPU is that of the whole of the call, the functions being next to
free; the two take turns in one process on one thread. Medians over the starts; one JSON line per case; exit
status 0 when all are ok.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import contextlib
import json
import statistics
import sys
import time

import numpy as np
from scipy.optimize import minimize

import zoo

TARGET, MOST = 1e-8, 20_000
CASES = (
    ("rosenbrock", 5),
    ("rosenbrock", 10),
    ("rosenbrock", 20),
    ("ellipsoid", 10),
    ("rotated ellipsoid", 10),
)
GOALS = {"evaluations": 1.1, "microseconds": 3.0}


def function_of(name, dim):
    if name == "rosenbrock":
        return lambda x: float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())
    weights = 10.0 ** (6 * np.arange(dim) / (dim - 1))
    if name == "ellipsoid":
        return lambda x: float(weights @ (x * x))
    turn = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]
    return lambda x: float(weights @ (turn @ x) ** 2)


class Reached(Exception):
    """The target was."""


class Counted:
    """Count calls, and note the one that reaches the target."""

    def __init__(self, function, raising):
        self.function, self.raising = function, raising
        self.calls, self.reached = 0, None

    def __call__(self, x):
        self.calls += 1
        value = self.function(x)
        if value <= TARGET and self.reached is None:
            self.reached = self.calls
            if self.raising:
                raise Reached
        return value


def ours(function, start):
    zoo.minimize(function, start, method="lbfgs", budget=MOST, target=TARGET, rng=0)


def peer(function, start):
    options = {"maxcor": 30, "ftol": 0, "gtol": 0, "maxfun": MOST, "maxiter": MOST}
    with contextlib.suppress(Reached):
        minimize(function, start, method="L-BFGS-B", options=options)


def run(method, function, start):
    """Return evaluations to the target, CPU per evaluation in microseconds, and whether it was reached."""
    counted = Counted(function, method is peer)
    began = time.process_time()
    method(counted, start)
    spent = time.process_time() - began
    return counted.reached or MOST, 1e6 * spent / counted.calls, counted.reached is not None


def compare(name, dim, starts):
    function, generator = function_of(name, dim), np.random.default_rng(dim)
    found = {ours: [], peer: []}
    for _ in range(starts):
        start = generator.normal(size=dim)
        both = {method: run(method, function, start) for method in found}
        if any(reached for _, _, reached in both.values()):
            for method, result in both.items():
                found[method].append(result)
    lines = []
    for index, (unit, goal) in enumerate(GOALS.items()):
        mine, theirs = (statistics.median(result[index] for result in found[m]) for m in (ours, peer))
        line = {
            "name": f"{unit}, {name}, {dim} variables",
            "ours": round(mine, 1),
            "peer": round(theirs, 1),
            "ratio": round(mine / theirs, 3),
            "goal": goal,
            "starts": len(found[ours]),
            "failed": [sum(not result[2] for result in found[m]) for m in (ours, peer)],
            "ok": mine / theirs <= goal,
        }
        print(json.dumps(line), flush=True)
        lines.append(line)
    return all(line["ok"] for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=9)
    starts = parser.parse_args().starts
    for method in (ours, peer):
        method(lambda x: float((x**2).sum()), np.ones(2))  # imports are no part of it
    return 0 if min([compare(name, dim, starts) for name, dim in CASES]) else 1


if __name__ == "__main__":
    sys.exit(main())
