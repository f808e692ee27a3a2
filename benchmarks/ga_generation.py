"""CPU seconds and memory of a generation of a genetic algorithm on large networks, the objective being free.

    python benchmarks/ga_generation.py [--peers PYTHON] [--blocks 3] [--cases drawn table decode]

1000 members of 100,000 numbers, 20 parents: `DeepGA`, its noise drawn again for each child ("drawn") or read
from a table of 2^25 numbers ("table"). A generation is all of it: ask, build every child four rows at a
time, the sphere function of each, tell, the ten best tried again, tell. They are never all held; parents
are built again. Building the table is not counted in time, but is in memory, which is the process's
`ru_maxrss` beyond that of one that only imports the same.

`floor` is what a generation takes at the least: its numbers at the rate of `Key.fill_quick`, or reads of the
table, one read of the parents, one write and one read of each child at the rate of a copy, as measured in
this run. Where what is read lies in a cache, it can be undercut.

`decode`: one mutation of a network of 4,052,658 parameters: from the table, and drawn by a seeded Philox.

With `--peers`, an interpreter that has evosax and evotorch, those take turns with ours, each in a process of
its own: evosax's `SimpleGA` with 20 parents, no crossover and normal mutations, inside `jax.jit`
(compilation not counted); evotorch's `GeneticAlgorithm` with tournaments of 4, one-point crossover, normal
mutations and no second evaluation of parents. They hold what they work on. Without it, the figures of
the peers are PUBLISHED ones: taken on one thread of another machine, whose torch drew 117 million normal
numbers a second, and divided here by how many times as many this one draws. That flatters those peers whose
time does not go into random numbers of torch.

One thread, CPU time, medians. One JSON line a case; exit status 0 when all are ok.
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
sys.path.insert(0, str(ROOT))

from benchmarks.es_generation import PUBLISHED_RATE, rates, timed  # noqa: E402 - from this tree

MEMBERS, PARENTS, DIM, TABLE = 1000, 20, 100_000, 2**25
AT_ONCE = 4
ATARI = 4_052_658
GOALS = {"drawn": 1.3, "table": 0.4}
GIGABYTES = 0.4
DECODE_GOAL, DECODE_RATIO = 15e-3, 1 / 5
PUBLISHED = {"evosax": (3.96, 2.30), "evotorch": (12.4, 4.20), "pymoo": (29.5, 8.11)}  # seconds, GB


# What runs in a process of its own.


def ours(noise, generations):
    """Return CPU seconds of each generation after the second."""
    import numpy as np
    import torch

    from evolution.deep_ga import DeepGA
    from evolution.genome import Codec, DrawnNoise
    from evolution.policies.policy import Piece
    from zoo.core.rng import Key, NoiseTable
    from zoo.core.types import Evaluations

    torch.set_num_threads(1)
    DrawnNoise(0).columns(0, 0, 100)
    if generations == 0:
        return []
    source = NoiseTable(0, TABLE) if noise == "table" else DrawnNoise(0)
    codec = Codec(source, (Piece("weight", (100, 999), 0.1), Piece("bias", (100,), 0.0)))
    method = DeepGA(codec, population_size=MEMBERS, num_parents=PARENTS, sigma=0.02)

    def step(state):
        asked, values = method.ask(state), []
        for first in range(0, len(asked), AT_ONCE):
            values += [row @ row for row in asked.rows(first, min(first + AT_ONCE, len(asked)))]
        return method.tell(state, Evaluations(np.array(values)))

    def generation(state, _number):
        state = step(state)
        return step(state) if len(state.candidates) else state

    start = method.init(np.zeros(DIM, np.float32), key=Key(0))
    return timed(generation, generation(start, 0), generations)


def evosax(_noise, generations):
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import SimpleGA

    if generations == 0:
        return []
    strategy = SimpleGA(population_size=MEMBERS, solution=jnp.zeros(DIM))
    strategy.elite_ratio = PARENTS / MEMBERS
    params, key = strategy.default_params, jax.random.key(0)
    first = 0.1 * jax.random.normal(key, (MEMBERS, DIM))
    state = strategy.init(key, first, (first * first).sum(-1), params)
    del first

    @jax.jit
    def step(state, number):
        ask, tell = jax.random.split(jax.random.fold_in(key, number))
        x, state = strategy.ask(ask, state, params)
        return strategy.tell(tell, x, (x * x).sum(-1), state, params)[0]

    return timed(lambda state, number: jax.block_until_ready(step(state, number)), state, generations)


def evotorch(_noise, generations):
    import torch
    from evotorch import Problem
    from evotorch.algorithms import GeneticAlgorithm
    from evotorch.decorators import vectorized
    from evotorch.operators import GaussianMutation, OnePointCrossOver

    torch.set_num_threads(1)
    if generations == 0:
        return []

    @vectorized
    def sphere(x):
        return (x * x).sum(-1)

    problem = Problem(
        "min", sphere, solution_length=DIM, initial_bounds=(-0.1, 0.1), dtype=torch.float32, seed=1
    )
    operators = [OnePointCrossOver(problem, tournament_size=4), GaussianMutation(problem, stdev=0.02)]
    searcher = GeneticAlgorithm(problem, operators=operators, popsize=MEMBERS, re_evaluate=False)

    def step(state, _number):
        searcher.step()
        return state

    return timed(step, None, generations)


def quick(_noise, _generations):
    """Return how many numbers a second `Key.fill_quick` draws, in stretches of 65536."""
    import torch

    from zoo.core.rng import QUICK, Key

    torch.set_num_threads(1)
    memory, found = torch.empty(QUICK + 16), []
    memory = memory[-memory.data_ptr() // 4 % 16 :][:QUICK]
    for block in range(7):
        began = time.process_time()
        for number in range(100):
            Key(block).fold(number).fill_quick(memory, size=QUICK)
        found.append(100 * QUICK / (time.process_time() - began))
    return statistics.median(found)


def decode(_noise, blocks):
    """Return seconds of a mutation of a large network: from a table, and from a seeded Philox."""
    import numpy as np

    from evolution.genome import Codec
    from evolution.policies.policy import Piece
    from zoo.core.rng import NoiseTable

    codec = Codec(NoiseTable(0, TABLE), (Piece("weight", (ATARI,), 0.1),))
    row, drawn = np.zeros(ATARI, np.float32), np.empty(ATARI, np.float32)
    rng, sigma = np.random.default_rng(0), np.float32(0.002)
    spent = {"table": [], "philox": []}
    for number in range(10 * blocks + 1):
        seeds = rng.integers(0, TABLE - ATARI, 1, dtype=np.uint64)
        began = time.process_time()
        codec.advance(row, seeds, sigma[None])
        spent["table"].append(time.process_time() - began)
        began = time.process_time()
        np.random.Generator(np.random.Philox(number)).standard_normal(dtype=np.float32, out=drawn)
        drawn *= sigma
        row += drawn
        spent["philox"].append(time.process_time() - began)
    return [statistics.median(spent[name][1:]) for name in ("table", "philox")]


# What runs them.


def child(python, who, noise="drawn", number=2):
    """Return (what the child found, its peak in bytes)."""
    task = json.dumps([who, noise, number])
    done = subprocess.run([python, __file__, "--child", task], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} {noise} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(runs, blocks):
    """Return {name: (median seconds, peak GB)} of runs (python, who, noise) that take turns."""
    spent, peak, idle = {}, {}, {}
    for _ in range(blocks):
        for name, (python, who, noise) in runs.items():
            if name not in idle:
                idle[name] = child(python, who, noise, 0)[1]
            seconds, most = child(python, who, noise, 3)
            spent.setdefault(name, []).append(statistics.median(seconds))
            peak[name] = max(peak.get(name, 0), most - idle[name])
    return {name: (statistics.median(times), peak[name] / 1e9) for name, times in spent.items()}


def generations(args, cases):
    (rate, bandwidth), drawn = child(sys.executable, "rates")[0], child(sys.executable, "quick")[0]
    print(
        json.dumps(
            {
                "name": "ga_generation/rates",
                "normals": round(rate / 1e6),
                "quick": round(drawn / 1e6),
                "copy": round(bandwidth / 1e9, 1),
            }
        ),
        flush=True,
    )
    runs = {noise: (sys.executable, "ours", noise) for noise in cases}
    if args.peers:
        runs |= {peer: (args.peers, peer, "") for peer in ("evosax", "evotorch")}
    found = measured(runs, args.blocks)
    peers = {f"{name}, measured": found[name] for name in ("evosax", "evotorch") if name in found}
    if not peers:
        scale = PUBLISHED_RATE / rate
        peers = {f"{name}, published": (seconds * scale, gb) for name, (seconds, gb) in PUBLISHED.items()}
    who = min(peers, key=lambda name: peers[name][0])
    theirs, memory = peers[who]
    for noise in cases:
        seconds, gigabytes = found[noise]
        moved, numbers = 3 * 4 * MEMBERS * DIM, MEMBERS * DIM
        floor = moved / bandwidth + (numbers / drawn if noise == "drawn" else 4 * numbers / bandwidth)
        yield {
            "name": f"ga_generation/{noise}",
            "ours": round(seconds, 3),
            "peer": round(theirs, 2),
            "ratio": round(seconds / theirs, 3),
            "goal": GOALS[noise],
            "ok": seconds <= GOALS[noise] and gigabytes <= GIGABYTES,
            "unit": f"CPU seconds a generation of {MEMBERS} x {DIM}",
            "peer_is": who,
            "floor": round(floor, 3),
            "over_floor": round(seconds / floor, 2),
            "gigabytes": round(gigabytes, 3),
            "peer_gigabytes": round(memory, 2),
            "peers": {name: [round(s, 2), round(gb, 2)] for name, (s, gb) in peers.items()},
        }


def one_mutation(args):
    table, philox = child(sys.executable, "decode", number=args.blocks)[0]
    return {
        "name": f"ga_generation/decode/{ATARI}",
        "ours": round(table * 1e3, 2),
        "peer": round(philox * 1e3, 2),
        "ratio": round(table / philox, 3),
        "goal": DECODE_GOAL * 1e3,
        "ok": table <= DECODE_GOAL and table <= DECODE_RATIO * philox,
        "unit": "CPU milliseconds a mutation",
        "peer_is": "a seeded Philox of numpy, measured",
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["drawn", "table", "decode"]
    parser.add_argument("--peers", help="interpreter with evosax and evotorch")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        who, *task = json.loads(args.child)
        known = {"ours": ours, "evosax": evosax, "evotorch": evotorch, "decode": decode, "quick": quick}
        numbers = rates() if who == "rates" else known[who](*task)
        print(json.dumps([numbers, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
        return 0
    done = []
    drawn = [name for name in args.cases if name != "decode"]
    for line in (
        *(generations(args, drawn) if drawn else ()),
        *([one_mutation(args)] if "decode" in args.cases else ()),
    ):
        done.append(line["ok"])
        print(json.dumps(line), flush=True)
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
