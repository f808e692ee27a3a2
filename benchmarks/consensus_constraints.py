"""Constraints in consensus-based optimization: penalties against what `cbo` is told, and walls.

    python benchmarks/consensus_constraints.py [--seeds 8] [--budget 2000] [--swarms 20]

First the six problems of CEC 2006 in `zoo.problems.constrained`, equalities to 1e-4, from the middle of the
box: the share of seeds that come within 1e-4 of the optimum, relatively, for

* `cbo-penalty`, which takes constraints itself (ours);
* `cbo` that is told the order of violations, without the models that the library has for up to 15 variables
  (the peer): the goal is that ours is at least level on the mean share;
* `cbo` as it comes, with the models, for the record.

Then 10 variables in a box, with the optimum inside, on five walls or in a corner, Rastrigin's function and
the sphere: the median value after 12,000 evaluations of `cbo`, as it is, clipped (ours), and mirrored at the
walls (the peer). The goal is that ours is at most the peer's or 1e-8 wherever the optimum is at a wall. One
JSON line per case, exit status 0 when all are within their goals.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import sys

import numpy as np

import zoo
import zoo.consensus.cbo as swarms
import zoo.wrappers.constrained as wrapper
from zoo.consensus.cbo import CBO
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.problems.constrained import PROBLEMS

WITHIN, DIM, EVALUATIONS, SMALL = 1e-4, 10, 12_000, 1e-8


def share(problem, method, seeds, budget, with_models=True):
    """Return the share of seeds that find the optimum."""
    most, found = wrapper.LARGEST_DIM, 0
    wrapper.LARGEST_DIM = most if with_models else 0
    try:
        for seed in range(seeds):
            result = zoo.minimize(
                problem.fun,
                bounds=problem.bounds,
                constraints=problem.constraints(1e-4),
                method=method,
                budget=budget,
                rng=seed,
            )
            found += result.maxcv == 0 and result.fun - problem.value <= WITHIN * abs(problem.value)
    finally:
        wrapper.LARGEST_DIM = most
    return found / seeds


def mirror(offsets, low, high):
    """Bring offsets between limits by mirrors, in place, instead of by clipping."""
    width = high - low
    away = np.remainder(offsets - low, 2 * width)
    offsets[...] = np.clip(low + np.minimum(away, 2 * width - away), low, high)


def median_value(fun, num_swarms):
    """Return the median value that swarms in a box end with."""
    method, box = CBO(tolx=0.0), Bounds(np.full(DIM, -3.0), np.full(DIM, 3.0))
    state = method.init_many(np.zeros(DIM), keys=[Key(seed) for seed in range(num_swarms)], bounds=box)
    for _ in range(EVALUATIONS // method.num_particles):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(fun(candidates.rows(0, len(candidates)))))
    return float(np.median(fun(method.recommend_many(state))))


def walls(num_swarms):
    """Return lines on clipping and mirroring."""
    inside = np.linspace(-1.3, 1.7, DIM)
    targets = {
        "inside": inside,
        "five walls": np.where(np.arange(DIM) < 5, inside, 3.0),
        "corner": np.full(DIM, 3.0),
    }
    functions = {
        "sphere": lambda x: (x**2).sum(1),
        "rastrigin": lambda x: (x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(1),
    }
    clip, lines = swarms.clip, []
    for name, fun in functions.items():
        for place, target in targets.items():
            ours = median_value(lambda x, fun=fun, target=target: fun(x - target), num_swarms)
            swarms.clip = mirror
            try:
                peer = median_value(lambda x, fun=fun, target=target: fun(x - target), num_swarms)
            finally:
                swarms.clip = clip
            is_fine = place == "inside" or ours <= max(peer, SMALL)
            lines.append(line(f"walls, {name}, {place}", ours, peer, "at most the peer's at walls", is_fine))
    return lines


def line(name, ours, peer, goal, ok, **more):
    ratio = ours / peer if peer else None
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal, "ok": bool(ok), **more}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--swarms", type=int, default=20)
    arguments = parser.parse_args()
    lines, seeds, budget = [], arguments.seeds, arguments.budget
    for name, problem in PROBLEMS.items():
        ours = share(problem, "cbo-penalty", seeds, budget)
        peer = share(problem, "cbo", seeds, budget, with_models=False)
        models = share(problem, "cbo", seeds, budget)
        lines.append(line(f"penalties, {name}", ours, peer, None, True, with_models=models))
        print(json.dumps(lines[-1]), flush=True)
    mean, peer = (float(np.mean([each[key] for each in lines])) for key in ("ours", "peer"))
    lines.append(line("penalties, mean", mean, peer, "at least the peer's", mean >= peer))
    print(json.dumps(lines[-1]), flush=True)
    for each in walls(arguments.swarms):
        lines.append(each)
        print(json.dumps(each), flush=True)
    return 0 if all(each["ok"] for each in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
