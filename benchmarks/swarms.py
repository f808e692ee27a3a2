"""CPU time per generation of `pso` and `de`, the objective being free, against evosax or scipy.

    python benchmarks/swarms.py [--peer-python /path/to/python] [--blocks 7]

With the interpreter of an environment that has evosax (and so jax), its PSO and DifferentialEvolution are
the peers, their objective compiled along with them; they run in a process of their own, and blocks of
ours and of theirs take turns. Else the peer of `de` is scipy's differential evolution, vectorised, and
`pso` has none. Either way evox's figures, 2.66 and 3.52 ms, measured on a machine with 117 million
torch normals per second, are put in proportion to what this one has, and named so; the peer to be
compared with is the fastest of those there are. float32, one thread, medians. `floor` is what a
generation cannot do without: its random numbers, and one pass over memory for each array that it
reads or writes. One JSON line per case, exit status 0 when all are within their goals: at 1000 x 100
twice the peer, at 40 x 10 100 us.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES = {"large": (1000, 100), "small": (40, 10)}
GENERATIONS = {"large": 50, "small": 500}
ELSEWHERE = {"pso": 2.66, "de": 3.52}  # evox, ms a generation of 1000 x 100
NORMALS = 117e6  # per second, where that was measured
GOAL, MICROSECONDS = 2.0, 100.0


def timed(call, generations):
    began = time.process_time()
    call(generations)
    return (time.process_time() - began) / generations * 1e3


def evosax(name, size):
    """Return a function that makes generations of evosax's method."""
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import PSO, DifferentialEvolution

    population, dim = SIZES[size]
    method = {"pso": PSO, "de": DifferentialEvolution}[name](population, jnp.zeros(dim))
    params, key = method.default_params, jax.random.key(0)
    start = jax.random.uniform(key, (population, dim), minval=-5.0, maxval=5.0)
    state = method.init(key, start, (start**2).sum(1), params)

    @jax.jit
    def generation(key, state):
        key, asking, telling = jax.random.split(key, 3)
        points, state = method.ask(asking, state, params)
        state, _ = method.tell(telling, points, (points**2).sum(1), state, params)
        return key, state

    def run(generations):
        nonlocal key, state
        for _ in range(generations):
            key, state = generation(key, state)
        jax.block_until_ready(state)

    return run


def serve():
    """Time blocks of a peer's generations, as told on stdin."""
    made = {}
    for line in sys.stdin:
        name, size = line.split()
        if line not in made:
            made[line] = evosax(name, size)
            made[line](3)
        print(timed(made[line], GENERATIONS[size]), flush=True)


def scipy_de(population, dim):
    """Return a function that makes generations of scipy's method, which prepares little beside them."""
    from scipy.optimize import differential_evolution

    def run(generations):
        differential_evolution(
            lambda x: np.einsum("ij,ij->j", x, x),
            [(-5.0, 5.0)] * dim,
            init=np.random.default_rng(0).uniform(-5, 5, (population, dim)),
            maxiter=generations,
            tol=0,
            polish=False,
            vectorized=True,
            updating="deferred",
            rng=0,
        )

    return run


def ours(name, population, dim, dtype):
    """Return a function that makes generations of ours."""
    import zoo
    from zoo.core.types import Evaluations

    options = {"topology": "global"} if name == "pso" else {}  # as evosax does
    method = zoo.list_methods()[name].build({"population_size": population, **options})
    state = method.init(np.ones(dim, dtype), key=zoo.Key(0))

    def run(generations):
        nonlocal state
        for _ in range(generations):
            x = method.ask(state).rows(0, population)
            state = method.tell(state, Evaluations(np.einsum("ij,ij->i", x, x)))

    return run


def floor(name, population, dim, dtype):
    """Return a function that draws a generation's numbers and passes over what it reads and writes."""
    generator = np.random.Generator(np.random.Philox(0))
    # pso: position, velocity and best point, in and out; de: trial, member and archive, and three to mix.
    arrays = np.ones((6 if name == "pso" else 9, population, dim), dtype)
    numbers = np.empty(((2 if name == "pso" else 1) * population, dim), dtype)
    out = np.empty((population, dim), dtype)

    def run(generations):
        for _ in range(generations):
            generator.random(dtype=dtype, out=numbers)
            for array in arrays:
                np.copyto(out, array)

    return run


def normals_per_second():
    import torch

    torch.set_num_threads(1)
    block = torch.empty(10**6)
    return 1e6 / statistics.median(timed(lambda _: block.normal_(), 1) / 1e3 for _ in range(9))


def compare(name, size, server, blocks):
    population, dim = SIZES[size]
    dtype = np.float32 if size == "large" else np.float64
    runs = {"ours": ours(name, population, dim, dtype), "floor": floor(name, population, dim, dtype)}
    if server is None and name == "de":
        runs["scipy"] = scipy_de(population, dim)
    for run in runs.values():
        run(5)
    spent = {peer: [] for peer in (*runs, *(["evosax"] if server else []))}
    for _ in range(blocks):
        for peer, times in spent.items():
            if peer == "evosax":
                server.stdin.write(f"{name} {size}\n")
                server.stdin.flush()
                times.append(float(server.stdout.readline()))
            else:
                times.append(timed(runs[peer], GENERATIONS[size] if peer != "scipy" else 10))
    medians = {peer: statistics.median(times) for peer, times in spent.items()}
    mine, least = medians.pop("ours"), medians.pop("floor")
    if size == "large":
        medians["evox, measured elsewhere, in proportion to normals per second"] = (
            ELSEWHERE[name] * NORMALS / normals_per_second()
        )
    peer = min(medians, key=medians.get) if medians else None
    goal = GOAL if size == "large" else None
    ratio = mine / medians[peer] if peer else None
    return {
        "name": f"swarms/{name}/{population}x{dim}",
        "ours": round(mine, 4),
        "peer": round(medians[peer], 4) if peer else None,
        "ratio": round(ratio, 3) if peer else None,
        "goal": goal,
        "ok": ratio <= goal if goal else mine * 1e3 <= MICROSECONDS,
        "unit": "ms per generation",
        "absolute_goal": None if goal else MICROSECONDS / 1e3,
        "compared_with": peer,
        "peers": {other: round(value, 4) for other, value in medians.items()},
        "floor": round(least, 4),
        "over_floor": round(mine / least, 2),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter that has evosax")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    server = None
    if args.peer_python:
        command = [args.peer_python, __file__, "--serve"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    done = []
    for name in ("pso", "de"):
        for size in SIZES:
            done.append(compare(name, size, server, args.blocks))
            print(json.dumps(done[-1]), flush=True)
    if server:
        server.stdin.close()
        server.wait()
    return 0 if all(case["ok"] for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
