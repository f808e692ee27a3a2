"""The 24 noiseless functions of BBOB: methods of ours and of others, in evaluations and in CPU time.

    python benchmarks/bbob.py bipop-cma cma.bipop [--dims 2 5 20] [--instances 1 2 3] [--seeds 1 2 3]
        [--functions 1 ... 24] [--budget 1000] [--processes 2] [--out FILE] [--plot FILE] [--groups]
    python benchmarks/bbob.py --compare bipop-cma cma.bipop [...]

A method is a name of `zoo.list_methods()`, with options if need be, as in
`cma:population_size=20,active=False`, and with `@box` at its end to give it the bounds [-5, 5]^dim; or one of
the peers:

* cma.bipop: `cma.fmin2` with `bipop=True`, which begins every run at x0; cma.bipop-uniform: the same, but
  each run begins somewhere in [-4, 4]^dim; cma.fmin2: without restarts;
* scipy.lbfgsb, scipy.nelder-mead: restarted somewhere in [-4, 4]^dim;
* scipy.de, scipy.dual-annealing (begun again when they end), numpy.uniform (random search): in the box
  [-5, 5]^dim.

All get the same x0, uniform in [-4, 4]^dim, and where they take one, a standard deviation of 2. Those of
which nothing is said here are told of no box. The budget is in multiples of dim. A run ends when f_opt + 1e-8
is reached.

Each run appends one line to the file: evaluations at which each of 51 targets f_opt + 10^2 ... 10^-8 was
reached, evaluations, CPU seconds. Runs that are there are not made again, so a method that has changed needs
another file. Printed for each method and dimension:

* solved: share of the targets reached, over functions, instances and seeds;
* area: mean over the targets of 1 - log(evaluations / dim) / log(budget), 0 for those not reached,
  evaluations being dim at least: the area under the curve of the share reached over the logarithm of
  evaluations / dim;
* all: share of runs that reached all;
* microseconds: CPU time per evaluation, the function and its 1 to 4 microseconds included.

`--compare OURS PEER` prints one line, of the difference in `solved` between runs from the same starts:
functions and instances are drawn again 10,000 times, in pairs and pooled over the dimensions. Exit status 0
if the lower end of 95 % of the differences is at least -.03 and ours takes at most half of the CPU time per
evaluation in every dimension.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import ast
import concurrent.futures
import contextlib
import json
import math
import multiprocessing
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import zoo
from zoo.core.rng import Key
from zoo.registry import find

TARGETS = 10.0 ** np.linspace(2, -8, 51)
GROUPS = {
    "separable": range(1, 6),
    "moderate": range(6, 10),
    "ill-conditioned": range(10, 15),
    "multimodal": range(15, 20),
    "weak structure": range(20, 25),
}
RESULTS = Path(__file__).parent / "results"
LEAST, CPU_RATIO = -0.03, 0.5


class Done(Exception):
    """Raised in the middle of a peer's run that has nothing left to do."""


class Counted:
    """A function that writes down when it reached what, and ends runs that cannot be told to end."""

    def __init__(self, function, dim, instance, limit):
        import ioh

        self.problem = ioh.get_problem(function, instance, dim, ioh.ProblemClass.BBOB)
        self.levels = [self.problem.optimum.y + target for target in TARGETS]
        self.limit, self.evaluations, self.hits = limit, 0, []
        self.next = self.levels[0]

    def __call__(self, x):
        if self.evaluations >= self.limit:
            raise Done
        self.evaluations += 1
        value = self.problem(x)
        if value <= self.next:
            while len(self.hits) < len(self.levels) and value <= self.levels[len(self.hits)]:
                self.hits.append(self.evaluations)
            self.next = -math.inf if self.solved else self.levels[len(self.hits)]
        return value

    @property
    def solved(self):
        return len(self.hits) == len(self.levels)

    def or_done(self, x):
        """As a call, for those that have no target."""
        value = self(x)
        if self.solved:
            raise Done
        return value


def ours(name):
    name, at, box = name.partition("@")
    if at and box != "box":
        raise ValueError(f"`@box` is all that may follow a method, got {box!r}.")
    method, _, written = name.partition(":")
    options = {}
    for part in filter(None, written.split(",")):
        option, _, value = part.partition("=")
        try:
            options[option] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[option] = value  # a word
    find(method).build(options)

    def run(counted, x0, key):
        target = counted.levels[-1]
        zoo.minimize(
            counted,
            x0,
            method=method,
            bounds=[(-5.0, 5.0)] * len(x0) if box else None,
            scale=2.0,
            budget=counted.limit,
            target=target,
            rng=key,
            options=options,
        )

    return run


def fmin2(x0_of, **arguments):
    def run(counted, x0, key):
        import cma

        options = {"verbose": -9, "seed": key.seed(31) + 1, "ftarget": counted.levels[-1]}
        options["maxfevals"] = counted.limit
        cma.fmin2(counted, x0_of(x0, key.generator()), 2.0, options, **arguments)

    return run


def restarted(method, **options):
    def run(counted, x0, key):
        from scipy.optimize import minimize

        generator = key.generator()
        while True:
            minimize(counted.or_done, x0, method=method, options=options)
            x0 = generator.uniform(-4, 4, len(x0))

    return run


def in_the_box(name):
    def run(counted, x0, key):
        import scipy.optimize

        box = [(-5.0, 5.0)] * len(x0)
        while True:
            key = key.fold("again")
            getattr(scipy.optimize, name)(counted.or_done, box, x0=x0, rng=key.generator())

    return run


def at_random(counted, x0, key):
    generator = key.generator()
    while True:
        for x in generator.uniform(-5, 5, (100, len(x0))):
            counted.or_done(x)


PEERS = {
    "cma.bipop": fmin2(lambda x0, _: x0, restarts=9, bipop=True),
    "cma.bipop-uniform": fmin2(lambda x0, g: lambda: g.uniform(-4, 4, len(x0)), restarts=9, bipop=True),
    "cma.fmin2": fmin2(lambda x0, _: x0),
    "scipy.lbfgsb": restarted("L-BFGS-B", maxfun=10**9, maxiter=10**9, ftol=1e-15, gtol=1e-12),
    "scipy.nelder-mead": restarted("Nelder-Mead", maxfev=10**9, maxiter=10**9, fatol=1e-11, xatol=1e-11),
    "scipy.de": in_the_box("differential_evolution"),
    "scipy.dual-annealing": in_the_box("dual_annealing"),
    "numpy.uniform": at_random,
}


warm = set()


def identity(run):
    return run["method"], run["function"], run["dim"], run["instance"], run["seed"], run["budget"]


def made(task):
    """Make one run, and return its line."""
    method, function, dim, instance, seed, budget = task
    if method not in warm:
        warm.add(method)  # imports are no part of a run
        made((method, 1, 2, 1, 0, 50))
    counted = Counted(function, dim, instance, budget * dim)
    place = Key(seed).fold("bbob", function, dim, instance)
    x0 = 8 * place.fold("start").uniform(0, 1, dim)[0] - 4
    search = PEERS[method] if method in PEERS else ours(method)
    began = time.process_time()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.suppress(Done):
            search(counted, x0, place.fold("search"))
    return {
        "method": method,
        "function": function,
        "dim": dim,
        "instance": instance,
        "seed": seed,
        "budget": budget,
        "evaluations": counted.evaluations,
        "seconds": round(time.process_time() - began, 6),
        "hits": counted.hits,
    }


def read(path):
    """Return the runs of a file by what they are; a line that was cut off is left out."""
    runs = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.endswith("}"):
            run = json.loads(line)
            runs[identity(run)] = run
    return runs


def make(tasks, path, processes):
    """Make those runs that are not in the file yet, and return all that were asked for."""
    runs = read(path)
    missing = [task for task in tasks if task not in runs]
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        with (
            path.open("a") as file,
            concurrent.futures.ProcessPoolExecutor(processes, context) as pool,
        ):
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write("\n")
            for number, run in enumerate(pool.map(made, missing), 1):
                file.write(json.dumps(run) + "\n")
                file.flush()
                runs[identity(run)] = run
                if sys.stderr.isatty():
                    print(f"\r{number} of {len(missing)} runs", end="", file=sys.stderr, flush=True)
    return [runs[task] for task in tasks]


def shares(run):
    """Return which share of the targets a run reached, and its area."""
    dim, whole = run["dim"], math.log(run["budget"])
    area = sum(1 - math.log(max(1.0, hit / dim)) / whole for hit in run["hits"])
    return len(run["hits"]) / len(TARGETS), area / len(TARGETS)


def microseconds(runs):
    return 1e6 * sum(run["seconds"] for run in runs) / sum(run["evaluations"] for run in runs)


def summary(method, dim, runs, groups):
    solved, area = np.mean([shares(run) for run in runs], axis=0)
    line = {
        "name": f"bbob/{method}/{dim}",
        "solved": round(float(solved), 3),
        "area": round(float(area), 3),
        "all": round(float(np.mean([len(run["hits"]) == len(TARGETS) for run in runs])), 3),
        "microseconds": round(microseconds(runs), 1),
        "runs": len(runs),
    }
    for group, functions in GROUPS.items() if groups else ():
        of_group = [shares(run) for run in runs if run["function"] in functions]
        if of_group:
            line[group] = np.mean(of_group, axis=0).round(3).tolist()
    return line


def compare(ours, peer, runs):
    """Return the line that says whether ours is as good as the peer, and cheaper."""
    mine, theirs = ({identity(run)[1:]: run for run in runs if run["method"] == who} for who in (ours, peer))
    differences = {}
    for place, run in mine.items():
        function, _, instance, *_ = place
        difference = shares(run)[0] - shares(theirs[place])[0]
        differences.setdefault((function, instance), []).append(difference)
    means = np.array([np.mean(values) for values in differences.values()])
    drawn = (len(means) * Key(0).uniform(0, 10_000, len(means))).astype(int)
    lower = float(np.quantile(means[drawn].mean(1), 0.025))
    ratios, solved, area = {}, {}, {}
    for dim in sorted({run["dim"] for run in runs}):
        both = [[run for run in which.values() if run["dim"] == dim] for which in (mine, theirs)]
        ratios[dim] = round(microseconds(both[0]) / microseconds(both[1]), 3)
        solved[dim], area[dim] = (
            [round(float(np.mean([shares(run)[column] for run in some])), 3) for some in both]
            for column in (0, 1)
        )
    return {
        "name": f"bbob/{ours}/{peer}",
        "ours": round(float(np.mean([shares(run)[0] for run in mine.values()])), 4),
        "peer": round(float(np.mean([shares(run)[0] for run in theirs.values()])), 4),
        "difference": round(float(means.mean()), 4),
        "lower": round(lower, 4),
        "goal": LEAST,
        "ratio": max(ratios.values()),
        "ratio_goal": CPU_RATIO,
        "ok": lower >= LEAST and max(ratios.values()) <= CPU_RATIO,
        "unit": "share of targets; CPU time per evaluation",
        "runs": len(mine),
        "solved": solved,
        "area": area,
        "ratios": ratios,
    }


def plot(runs, methods, path):
    """Draw the share of targets reached over evaluations / dim, a panel for each dimension."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    dims = sorted({run["dim"] for run in runs})
    figure, panels = pyplot.subplots(
        1, len(dims), figsize=(1 + 3.6 * len(dims), 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, dim in zip(panels[0], dims, strict=True):
        for method in methods:
            some = [run for run in runs if run["dim"] == dim and run["method"] == method]
            hits = np.sort([hit / dim for run in some for hit in run["hits"]])
            reached = np.arange(1, len(hits) + 1) / (len(some) * len(TARGETS))
            end = max(run["budget"] for run in some)
            panel.step(
                [1 / dim, *hits, end],
                [0, *reached, len(hits) / (len(some) * len(TARGETS))],
                where="post",
                label=method,
                linewidth=1.1 if method in PEERS else 2.2,
            )
        panel.set(
            xscale="log",
            xlim=(1, max(run["budget"] for run in runs)),
            ylim=(0, 1),
            xlabel="evaluations / dim",
        )
        panel.set_title(f"{dim} variables", fontsize="medium")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("share of targets reached")
    panels[0][0].legend(fontsize="small", loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def check():
    """Refuse to measure with functions that two implementations do not agree on."""
    import cocoex
    import ioh

    suite = cocoex.Suite("bbob", "instances: 1-3", "dimensions: 2,5,20")
    for function in range(1, 25):
        for dim, instance in ((2, 1), (5, 2), (20, 3)):
            ioh_s = ioh.get_problem(function, instance, dim, ioh.ProblemClass.BBOB)
            coco_s = suite.get_problem_by_function_dimension_instance(function, dim, instance)
            for x in 10 * Key(function).uniform(0, 3, dim) - 5:
                a, b = ioh_s(x), coco_s(x)
                if abs(a - b) > 1e-9 * max(1.0, abs(b)):
                    sys.exit(f"f{function} of instance {instance} is {a} in ioh and {b} in coco at {x}")
            coco_s.free()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--compare", nargs=2, metavar=("OURS", "PEER"))
    parser.add_argument("--functions", type=int, nargs="+", default=list(range(1, 25)))
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 5, 20])
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--budget", type=int, default=1000, help="evaluations over dim")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "bbob_runs.jsonl")
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--groups", action="store_true", help="[solved, area] of the groups of functions as well"
    )
    args = parser.parse_args()
    methods = list(dict.fromkeys([*args.methods, *(args.compare or ())]))
    if not methods:
        parser.error("name one method at least")
    for method in methods:
        if method not in PEERS:
            ours(method)
    check()
    # Methods in turn at each place, so that they share whatever else the machine has to do.
    tasks = [
        (method, function, dim, instance, seed, args.budget)
        for dim in args.dims
        for seed in args.seeds
        for instance in args.instances
        for function in args.functions
        for method in methods
    ]
    runs = make(tasks, args.out, args.processes)
    if args.plot:
        plot(runs, methods, args.plot)
    if args.compare:
        line = compare(*args.compare, runs)
        print(json.dumps(line))
        return 0 if line["ok"] else 1
    for dim in args.dims:
        for method in methods:
            some = [run for run in runs if run["dim"] == dim and run["method"] == method]
            print(json.dumps(summary(method, dim, some, args.groups)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
