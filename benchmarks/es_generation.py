"""CPU seconds and memory of a generation of an evolution strategy, the objective being free.

    python benchmarks/es_generation.py [--peers PYTHON] [--blocks 3] [--cases openai-es snes ...]

Large: 256 candidates x 1,000,000 variables in float32, the sphere function row by row, noise drawn again
("drawn") or read from a table of 25 million ("table"). `xnes`: 17 x 100 in double precision. `small`: 10 x
10, against pycma. A generation is ask, evaluation, tell and finished; building the table is not counted.
Memory is the process's `ru_maxrss` beyond that of one that only imports the same.

`floor` is what a large generation takes at the least: its random numbers at the rate of
`torch.Tensor.normal_` on blocks of 65536, or its reads of the table, and one write and one read of every
candidate at the rate of a copy, both as measured in this run.

With `--peers`, an interpreter that has evosax and evotorch, those take turns with ours, each in a process of
its own (the objective inside `jax.jit` for evosax; compilation is not counted). Without it, the figures of
the peers are PUBLISHED ones: taken on one thread of another machine, whose torch drew 117 million normal
numbers a second, and divided here by how many times as many this one draws. That flatters those peers whose
time does not go into random numbers of torch.

One thread, CPU time, medians. One JSON line a case; memory has a goal of .5 GB. Exit status 0 when all are
ok.
"""

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    JAX_PLATFORMS="cpu",
)

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POPULATION, DIM, TABLE = 256, 1_000_000, 25_000_000
GIGABYTES = 0.5
PUBLISHED_RATE = 117e6
PUBLISHED = {  # seconds a generation, and GB at the peak
    "openai-es": {"evox": (5.52, 3.42), "evosax": (6.96, 3.37)},
    "pgpe": {"evosax": (7.56, 3.42), "evotorch": (12.7, 3.17)},
    "snes": {"evotorch": (9.79, 5.62), "evox": (10.3, 6.38), "evosax": (15.2, 7.41)},
    "xnes": {"evox": (0.91e-3, None), "evotorch": (4.68e-3, None), "evosax": (5.29e-3, None)},
}
PEERS = {
    "openai-es": ("evosax",),
    "pgpe": ("evosax", "evotorch"),
    "snes": ("evosax", "evotorch"),
    "xnes": ("evosax", "evotorch"),
}
LARGE = ("openai-es", "pgpe", "snes")
SMALL = ("openai-es", "pgpe", "snes", "xnes")
GOALS = {
    ("openai-es", "drawn"): 2.7,
    ("pgpe", "drawn"): 2.7,
    ("snes", "drawn"): 4.2,
    ("openai-es", "table"): 1.2,
    ("pgpe", "table"): 1.2,
    ("snes", "table"): 1.2,
}
XNES_RATIO = 2.0  # times the best peer
SMALL_RATIO = 1 / 3  # of pycma's time


# What runs in a process of its own.


def ours(method, noise, shape, generations):
    """Return CPU seconds of each generation after the first."""
    import numpy as np
    import torch

    sys.path.insert(0, str(ROOT))
    from zoo.core.objective import Objective
    from zoo.core.rng import Key
    from zoo.core.types import Evaluations
    from zoo.registry import find

    torch.set_num_threads(1)
    large = shape == "large"

    class Sphere(Objective):
        unit = 2 if large else None

        def __call__(self, x, *, key):
            del key
            return torch.stack([row @ row for row in x]) if large else np.einsum("ij,ij->i", x, x)

    options = {"population_size": POPULATION} if large else {}
    options |= {"noise_table": TABLE} if noise == "table" else {}
    options |= {} if method == "openai-es" else {"tolx": 0.0}
    search, objective = find(method).build(options), Sphere()
    if generations == 0:
        return []
    start = torch.ones(DIM) if large else np.ones(100 if shape == "xnes" else 10)
    state, key = search.init(start, key=Key(0)), Key(1)

    def generation(state, step):
        asked = search.ask(state)
        reply = objective.evaluate_units(asked, objective.units(asked), key=key, step=step)
        state = search.tell(state, Evaluations(reply.values))
        search.finished(state)
        return state

    return timed(generation, state, generations)


def pycma(_method, _noise, _shape, generations):
    import cma
    import numpy as np

    if generations == 0:
        return []
    search = cma.CMAEvolutionStrategy(np.ones(10), 1.0, {"verbose": -9, "seed": 1, "popsize": 10})

    def generation(state, _number):
        x = search.ask()
        search.tell(x, np.einsum("ij,ij->i", x, x).tolist())
        search.stop()
        return state

    return timed(generation, None, generations)


def evosax(method, _noise, shape, generations):
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import PGPE, SNES, Open_ES, xNES

    classes = {"openai-es": Open_ES, "pgpe": PGPE, "snes": SNES, "xnes": xNES}
    if generations == 0:
        return []
    rows, dim = (POPULATION, DIM) if shape == "large" else (17, 100)
    strategy = classes[method](population_size=rows, solution=jnp.zeros(dim))
    params, key = strategy.default_params, jax.random.key(0)
    state = strategy.init(key, jnp.ones(dim), params)

    @jax.jit
    def step(state, number):
        ask, tell = jax.random.split(jax.random.fold_in(key, number))
        x, state = strategy.ask(ask, state, params)
        return strategy.tell(tell, x, (x * x).sum(-1), state, params)[0]

    return timed(lambda state, number: jax.block_until_ready(step(state, number)), state, generations)


def evotorch(method, _noise, shape, generations):
    import torch
    from evotorch import Problem
    from evotorch.algorithms import PGPE, SNES, XNES
    from evotorch.decorators import vectorized

    torch.set_num_threads(1)
    if generations == 0:
        return []
    rows, dim = (POPULATION, DIM) if shape == "large" else (17, 100)

    @vectorized
    def sphere(x):
        return (x * x).sum(-1)

    problem = Problem(
        "min", sphere, solution_length=dim, initial_bounds=(0.9, 1.1), dtype=torch.float32, seed=1
    )
    searcher = {
        "snes": lambda: SNES(problem, stdev_init=1.0, popsize=rows),
        "xnes": lambda: XNES(problem, stdev_init=1.0, popsize=rows),
        "pgpe": lambda: PGPE(
            problem,
            popsize=rows,
            center_learning_rate=0.1,
            stdev_learning_rate=0.1,
            stdev_init=1.0,
            optimizer="clipup",
            optimizer_config={"max_speed": 0.2},
        ),
    }[method]()

    def step(state, _number):
        searcher.step()
        return state

    return timed(step, None, generations)


def timed(generation, state, generations):
    """Return CPU seconds of generations; small ones are counted ten at a time."""
    at_once = 1 if generations <= 3 else generations // 5
    state, spent, number = generation(state, 0), [], 1
    while number <= generations:
        began = time.process_time()
        for _ in range(at_once):
            state = generation(state, number)
            number += 1
        spent.append((time.process_time() - began) / at_once)
    return spent


def rates(*_):
    """Return normal numbers a second, and bytes a second of a copy, read and written."""
    import torch

    torch.set_num_threads(1)
    block, large, generator = torch.empty(65536), torch.ones(2**25), torch.Generator()
    other = torch.empty_like(large)
    drawn, copied = [], []
    for _ in range(7):
        began = time.process_time()
        for _ in range(100):
            block.normal_(generator=generator)
        drawn.append(100 * len(block) / (time.process_time() - began))
        began = time.process_time()
        for _ in range(3):
            other.copy_(large)
        copied.append(3 * 8 * len(large) / (time.process_time() - began))
    return [statistics.median(drawn), statistics.median(copied)]


# What runs them.


def child(python, who, method="", noise="drawn", shape="large", generations=2):
    """Return (the child's numbers, its peak in bytes)."""
    task = json.dumps([who, method, noise, shape, generations])
    done = subprocess.run([python, __file__, "--child", task], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} {method} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(runs, blocks, generations, shape):
    """Return {name: (median seconds, peak GB)} of runs (python, who, method, noise) that take turns."""
    spent, peak, idle = {}, {}, {}
    for _ in range(blocks):
        for name, (python, who, method, noise) in runs.items():
            if name not in idle:
                idle[name] = child(python, who, method, noise, shape, 0)[1]
            seconds, most = child(python, who, method, noise, shape, generations)
            spent.setdefault(name, []).append(statistics.median(seconds))
            peak[name] = max(peak.get(name, 0), most - idle[name])
    return {name: (statistics.median(times), peak[name] / 1e9) for name, times in spent.items()}


def floor_of(method, noise, rate, bandwidth):
    """Return the seconds that a large generation takes at the least."""
    rows = POPULATION if method == "snes" else POPULATION // 2
    numbers, candidates = 2 * rows * DIM, 2 * 4 * POPULATION * DIM
    if noise == "table":
        return (4 * numbers + candidates) / bandwidth
    return numbers / rate + candidates / bandwidth


def best_peer(method, found, scale):
    """Return the fastest peer's name, seconds and GB: measured, or published and scaled."""
    here = {name: found[name] for name in PEERS[method] if name in found}
    if here:
        name = min(here, key=lambda peer: here[peer][0])
        return f"{name}, measured", *here[name]
    name, (seconds, gigabytes) = min(PUBLISHED[method].items(), key=lambda item: item[1][0])
    return f"{name}, published", seconds * scale, gigabytes


def large(method, args, rate, bandwidth):
    runs = {noise: (sys.executable, "ours", method, noise) for noise in ("drawn", "table")}
    if args.peers:
        runs |= {peer: (args.peers, peer, method, "drawn") for peer in PEERS[method]}
    found = measured(runs, args.blocks, 2, "large")
    who, theirs, memory = best_peer(method, found, PUBLISHED_RATE / rate)
    for noise in ("drawn", "table"):
        seconds, gigabytes = found[noise]
        floor, goal = floor_of(method, noise, rate, bandwidth), GOALS[method, noise]
        yield {
            "name": f"es_generation/{method}/{noise}",
            "ours": round(seconds, 3),
            "peer": round(theirs, 2),
            "ratio": round(seconds / theirs, 3),
            "goal": goal,
            "ok": seconds <= goal and gigabytes <= GIGABYTES,
            "unit": "CPU seconds a generation of 256 x 1e6",
            "peer_is": who,
            "floor": round(floor, 3),
            "over_floor": round(seconds / floor, 2),
            "gigabytes": round(gigabytes, 3),
            "peer_gigabytes": None if memory is None else round(memory, 2),
        }


def xnes(args, rate):
    runs = {"ours": (sys.executable, "ours", "xnes", "drawn")}
    if args.peers:
        runs |= {peer: (args.peers, peer, "xnes", "drawn") for peer in PEERS["xnes"]}
    found = measured(runs, args.blocks, 500, "xnes")
    who, theirs, _ = best_peer("xnes", found, PUBLISHED_RATE / rate)
    # The fastest of the published ones counts even where others are measured.
    published = min(seconds for seconds, _ in PUBLISHED["xnes"].values()) * PUBLISHED_RATE / rate
    mine, goal = found["ours"][0], XNES_RATIO * min(theirs, published)
    yield {
        "name": "es_generation/xnes/17x100",
        "ours": round(mine * 1e3, 3),
        "peer": round(theirs * 1e3, 3),
        "ratio": round(mine / theirs, 3),
        "goal": round(goal * 1e3, 3),
        "ok": mine <= goal,
        "unit": "CPU milliseconds a generation",
        "peer_is": who,
        "fastest_published": round(published * 1e3, 3),
    }


def small(args):
    runs = {method: (sys.executable, "ours", method, "drawn") for method in SMALL}
    runs["pycma"] = (sys.executable, "pycma", "", "")
    found = measured(runs, args.blocks, 2000, "small")
    theirs, _ = found.pop("pycma")
    for method, (seconds, _) in found.items():
        yield {
            "name": f"es_generation/{method}/10",
            "ours": round(seconds * 1e6, 1),
            "peer": round(theirs * 1e6, 1),
            "ratio": round(seconds / theirs, 3),
            "goal": round(SMALL_RATIO, 3),
            "ok": seconds <= SMALL_RATIO * theirs,
            "unit": "CPU microseconds a generation; the goal is of the ratio",
            "peer_is": "pycma, measured",
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*LARGE, "xnes", "small"]
    parser.add_argument("--peers", help="interpreter with evosax and evotorch")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        who, *task = json.loads(args.child)
        known = {"ours": ours, "pycma": pycma, "evosax": evosax, "evotorch": evotorch, "rates": rates}
        numbers = known[who](*task)
        print(json.dumps([numbers, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
        return 0
    rate, bandwidth = child(sys.executable, "rates")[0]
    print(
        json.dumps(
            {"name": "es_generation/rates", "normals": round(rate / 1e6), "copy": round(bandwidth / 1e9, 1)}
        )
    )
    done = []
    for case in args.cases:
        lines = (
            xnes(args, rate)
            if case == "xnes"
            else small(args)
            if case == "small"
            else large(case, args, rate, bandwidth)
        )
        for line in lines:
            done.append(line["ok"])
            print(json.dumps(line), flush=True)
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
