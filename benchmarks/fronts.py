"""Several objectives: the hypervolume that our methods and optuna's NSGA-II reach with equal budgets.

    python benchmarks/fronts.py [--seeds 5] [--budget 5000]

ZDT1, ZDT2 and ZDT3 in 30 variables, and two spheres in 5; populations of 100. The hypervolume is that of all
points evaluated, below (1.1, 1.1) for the first three and (20, 20) for the spheres, as a share of what the
true front has. One JSON line per problem and method, `nsga2` and `cbo-pareto`: medians, the ratio (goal: at
least 1), and microseconds of CPU per evaluation. Exit status 0 when all are within their goals.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import functools
import json
import statistics
import sys
import time
import warnings

import numpy as np

import zoo
from zoo.problems import several

METHODS = ("nsga2", "cbo-pareto")
_T = np.linspace(0, 1, 20001)
PROBLEMS = {
    "zdt1": (30, (0.0, 1.0), (1.1, 1.1), np.stack([_T, 1 - np.sqrt(_T)], 1)),
    "zdt2": (30, (0.0, 1.0), (1.1, 1.1), np.stack([_T, 1 - _T**2], 1)),
    "zdt3": (30, (0.0, 1.0), (1.1, 1.1), np.stack([_T, 1 - np.sqrt(_T) - _T * np.sin(10 * np.pi * _T)], 1)),
    "schaffer": (5, (-4.0, 4.0), (20.0, 20.0), np.stack([5 * (2 * _T) ** 2, 5 * (2 - 2 * _T) ** 2], 1)),
}


def hypervolume(objectives, reference):
    """Return the area that some points of two objectives dominate, below a reference point."""
    inside = objectives[(objectives < reference).all(1)]
    area, lowest = 0.0, reference[1]
    for first, second in inside[np.lexsort(inside.T[::-1])]:
        if second < lowest:
            area += (reference[0] - first) * (lowest - second)
            lowest = second
    return area


def ours(method, name, dim, box, budget, seed):
    result = zoo.minimize(
        getattr(several, name), bounds=[box] * dim, method=method, budget=budget, rng=seed, vectorized=True
    )
    return result.front.fun


def peer(name, dim, box, budget, seed):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    function, seen = getattr(several, name), []

    def objective(trial):
        x = np.array([[trial.suggest_float(f"x{i}", *box) for i in range(dim)]])
        seen.append(function(x)[0])
        return tuple(seen[-1].tolist())

    sampler = optuna.samplers.NSGAIISampler(population_size=100, seed=seed)
    optuna.create_study(directions=["minimize"] * 2, sampler=sampler).optimize(objective, n_trials=budget)
    return np.array(seen)


def compare(name, seeds, budget):
    dim, box, reference, front = PROBLEMS[name]
    most = hypervolume(front, reference)
    runs = {method: functools.partial(ours, method) for method in METHODS} | {"peer": peer}
    shares, seconds = {who: [] for who in runs}, dict.fromkeys(runs, 0.0)
    for seed in range(seeds):
        for who, run in runs.items():
            began = time.process_time()
            found = run(name, dim, box, budget, seed)
            seconds[who] += time.process_time() - began
            shares[who].append(hypervolume(found, reference) / most)
    medians = {who: statistics.median(values) for who, values in shares.items()}
    costs = {who: round(1e6 * spent / seeds / budget, 1) for who, spent in seconds.items()}
    for method in METHODS:
        ratio = medians[method] / medians["peer"] if medians["peer"] else None
        yield {
            "name": f"fronts/{name}/{dim}/{method}",
            "ours": round(medians[method], 4),
            "peer": round(medians["peer"], 4),
            "ratio": None if ratio is None else round(ratio, 3),
            "goal": 1.0,
            "ok": ratio is None or bool(ratio >= 1),
            "unit": "share of the true front's hypervolume, median",
            "seeds": seeds,
            "us_per_evaluation": {"ours": costs[method], "peer": costs["peer"]},
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=5000)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    done = []
    for name in PROBLEMS:
        for case in compare(name, args.seeds, args.budget):
            done.append(case)
            print(json.dumps(case), flush=True)
    return 0 if all(case["ok"] for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
