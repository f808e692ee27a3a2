"""Evaluations and CPU time that `lq-cma` and pycma's lq-CMA-ES need to bring five functions below 1e-8.

    python benchmarks/surrogate.py [--dims 5 10 20] [--seeds 5] [--functions cigar ...] [--without-cma]

Quadratics are rotated and begun at a point uniform in [-3, 3]^dim with a standard deviation of 1,
Rosenbrock's function at 0 with .5; there are no bounds. Pycma's is `fitness_models.SurrogatePopulation`,
used as `cma.fmin_lq_surr` does. A run that stops above the target counts as infinitely long. `plain` is
what `cma` needs without a model.

One JSON line per case: median evaluations, and CPU time per evaluation over all seeds, the objective's
included; then one for their geometric means. `floor_ms` is what the two large steps of one fit of a full
model of p coefficients to n = 1.5 p points would take, p^2 n + p^3 / 3 operations at the speed that this
machine multiplies matrices with. Exit status 0 when the means are within the goals.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import math
import statistics
import sys
import time
import warnings

import numpy as np

import zoo.problems
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.methods.cma_es import CMAES
from zoo.methods.lq_cma import LQCMA

TARGET = 1e-8
GOALS = {"evaluations": 1.1, "seconds": 0.2}
FUNCTIONS = ("sphere", "ellipsoid", "cigar", "discus", "rosenbrock")


def problem(name, dim, seed):
    """Return a function of one point, a start and a first standard deviation."""
    function = getattr(zoo.problems, name)
    if name == "rosenbrock":
        return function, np.zeros(dim), 0.5
    turned, _ = np.linalg.qr(Key(seed).fold("rotation").normal(0, dim, dim))
    start = 6 * Key(seed).fold("start").uniform(0, 1, dim)[0] - 3
    return lambda x: function(x @ turned), start, 1.0


def ours(method, name, dim, seed, limit):
    function, start, sigma = problem(name, dim, seed)
    state = method.init(start, key=Key(seed), scale=sigma)
    while state.nfev < limit:
        candidates = method.ask(state)
        values = [float(function(x)) for x in candidates.rows(0, len(candidates))]
        state = method.tell(state, Evaluations(values))
        if min(values) < TARGET:
            return state.nfev, state.nfev
        if method.finished(state):
            break
    return math.inf, state.nfev


def peer(name, dim, seed, limit):
    import cma
    from cma.fitness_models import SurrogatePopulation

    function, start, sigma = problem(name, dim, seed)
    surrogate = SurrogatePopulation(lambda x: float(function(np.asarray(x))))
    es = cma.CMAEvolutionStrategy(start, sigma, {"verbose": -9, "seed": seed + 1})
    while surrogate.evaluations < limit:
        points = es.ask()
        es.tell(points, surrogate(points))
        es.inject([surrogate.model.xopt])
        es.countevals = surrogate.evaluations
        if np.nanmin(surrogate.evals.fvalues) < TARGET:
            return surrogate.evaluations, surrogate.evaluations
        if es.stop():
            break
    return math.inf, surrogate.evaluations


def compare(name, dim, seeds, plain):
    limit = 2000 * dim
    runs = {
        "ours": lambda seed: ours(LQCMA(), name, dim, seed, limit),
        "peer": lambda seed: peer(name, dim, seed, limit),
    }
    if plain:
        runs["plain"] = lambda seed: ours(CMAES(), name, dim, seed, limit)
    taken, told, seconds = ({who: [] for who in runs} for _ in range(3))
    for seed in range(seeds):
        for who, run in runs.items():
            began = time.process_time()
            needed, done = run(seed)
            seconds[who].append(time.process_time() - began)
            taken[who].append(needed)
            told[who].append(done)
    needed = {who: statistics.median(each) for who, each in taken.items()}
    each = {who: 1e3 * sum(seconds[who]) / sum(told[who]) for who in ("ours", "peer")}
    return {
        "name": f"surrogate/{name}/{dim}",
        **{who: count if count < math.inf else None for who, count in needed.items()},
        "ratio": round(needed["ours"] / needed["peer"], 3) if needed["ours"] < math.inf else None,
        "goal": GOALS["evaluations"],
        "ok": needed["ours"] <= GOALS["evaluations"] * needed["peer"] and needed["ours"] < math.inf,
        "unit": "evaluations, median",
        "misses": {who: sum(count == math.inf for count in counts) for who, counts in taken.items()},
        "ms_per_evaluation": {who: round(time, 3) for who, time in each.items()},
        "ms_ratio": round(each["ours"] / each["peer"], 3),
        "ms_goal": GOALS["seconds"],
        "floor_ms": round(floor(dim), 4),
    }


def floor(dim):
    """Return the milliseconds of one fit of a full model to 1.5 times as many points as coefficients."""
    p = 1 + dim + dim * (dim + 1) // 2
    a = np.ones((256, 256))
    a.dot(a)
    began, count = time.process_time(), 0
    while time.process_time() - began < 0.3:
        a.dot(a)
        count += 1
    speed = count * 2 * 256**3 / (time.process_time() - began)
    return 1e3 * (1.5 * p**3 + p**3 / 3) / speed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--without-cma", action="store_true", help="leave out what plain CMA-ES needs")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    peer("sphere", 3, 0, 20), ours(LQCMA(), "sphere", 3, 0, 20)  # imports
    done = []
    for dim in args.dims:
        for name in args.functions:
            done.append(compare(name, dim, args.seeds, not args.without_cma))
            print(json.dumps(done[-1]), flush=True)
    solved = [case for case in done if case["ratio"] is not None]
    ratio = statistics.geometric_mean(case["ratio"] or 1e-9 for case in solved)
    ms_ratio = statistics.geometric_mean(case["ms_ratio"] for case in done)
    within = len(solved) == len(done) and ratio <= GOALS["evaluations"] and ms_ratio <= GOALS["seconds"]
    summary = {
        "name": "surrogate",
        "ours": None,
        "peer": None,
        "ratio": round(ratio, 3),
        "goal": GOALS["evaluations"],
        "ok": within,
        "unit": "evaluations, geometric mean of ratios",
        "ms_ratio": round(ms_ratio, 3),
        "ms_goal": GOALS["seconds"],
    }
    print(json.dumps(summary))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
