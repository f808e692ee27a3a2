"""CPU time of an environment step in a whole neuroevolution run, against EvoTorch.

    python benchmarks/evolution_vs_evotorch.py [--peer-python PYTHON] [--cases cart-pole ...] [--blocks 5]

Ours is `evolution.evolve` with `deep-ga`, theirs a `GymNE` searched by `Cosyne`, the faster of its searchers:
the same environment, a perceptron of the same layers, the same population, one episode a member, two
workers each, no normalization of observations, no re-evaluation, and one thread a process. Gymnasium's
environments are stepped one by one; ours has eight of them begun at a time. Both runs are kept going in
processes of their own, and blocks of generations of the one and of the other take turns. CPU seconds are
those of the driver and of every process below it, all of Ray's included, between the first and the last
moment of a block, so that no start-up counts; divided by the steps that were made in it; medians.

`CartPole-v1`: through Gymnasium, 64 members, a policy of 4-32-2. Goals: 30 us, and a fifth of EvoTorch's.
`cart-pole/64`, `cart-pole/256`: many poles at once, 64 and 256 members in a call. Goals: 2 us and .6 us. The
peer is EvoTorch in `CartPole-v1`. `floor` is what the arithmetic alone takes: four calls of numpy for the
policies and the environment's own step, with no episode ended.
`HalfCheetah-v5`: 64 members, 17-64-64-6. From both is subtracted what a replay of its recorded actions takes
in the bare environment, which is nearly all there is; goal: a fifth of what is then left of EvoTorch's.

EvoTorch pins packages of its own. Make it an environment, and name its interpreter:

    python -m venv evotorch-venv && evotorch-venv/bin/pip install evotorch "gymnasium[mujoco]"
    python benchmarks/evolution_vs_evotorch.py --peer-python evotorch-venv/bin/python

EvoTorch is not seeded: in 0.6.1 a seeded problem cannot have actors. One JSON line per case, exit status 0
when all are within their goals.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import contextlib
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
WORKERS = 2
# Environment of ours, of the peer; hidden layers; members; generations before and in a block, ours, theirs.
CASES = {
    "CartPole-v1": ("CartPole-v1", "CartPole-v1", (32,), 64, (12, 4), (12, 2)),
    "cart-pole/64": ("cart-pole", "CartPole-v1", (32,), 64, (12, 8), (12, 2)),
    "cart-pole/256": ("cart-pole", "CartPole-v1", (32,), 256, (12, 8), (6, 1)),
    "HalfCheetah-v5": ("HalfCheetah-v5", "HalfCheetah-v5", (64, 64), 64, (1, 1), (1, 1)),
}
GOAL = 1 / 5
MICROSECONDS = {"CartPole-v1": 30.0, "cart-pole/64": 2.0, "cart-pole/256": 0.6}
MOST_REPLAYED = 16  # episodes, of as many members
MARK = "spent:"


def seconds_of_all():
    """CPU seconds of this process and all below it, those included that were waited for."""
    ended, children = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
                ended[int(entry)] = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    total, found = 0.0, [os.getpid()]
    while found:
        process = found.pop()
        with contextlib.suppress(OSError):
            # The clock that `clock_getcpuclockid` names; the file above counts in hundredths of a second.
            total += time.clock_gettime((~process << 3) | 2) + ended[process]
        found += children.get(process, ())
    return total


def recorded(name, directory, **options):
    """Return an environment that leaves the actions of every episode in a file."""
    import gymnasium

    class Recorded(gymnasium.Wrapper):
        def reset(self, **given):
            self.actions = []
            return self.env.reset(**given)

        def step(self, action):
            self.actions.append(np.array(action))
            result = self.env.step(action)
            if result[2] or result[3]:
                np.save(Path(directory, f"{time.time_ns()}-{os.getpid()}.npy"), np.array(self.actions))
            return result

    return Recorded(gymnasium.make(name, **options))


class Blocks:
    """Generations on demand: a number comes in; CPU seconds, steps and seconds go out."""

    def __init__(self):
        self._left, self._began = 0, None

    def after_generation(self, steps):
        """Return whether there is to be another one."""
        self._left -= 1
        if self._left > 0:
            return True
        if self._began is not None:
            now = (seconds_of_all(), steps, time.perf_counter())
            spent = [end - start for end, start in zip(now, self._began, strict=True)]
            print(MARK, json.dumps(spent), flush=True)
        asked = sys.stdin.readline()
        if not asked.strip():
            return False
        self._left = int(asked)
        self._began = (seconds_of_all(), steps, time.perf_counter())
        return True


def serve_ours(case, directory):
    import evolution

    environment, _, hidden, members, *_ = CASES[case]
    blocks = Blocks()

    def callback(generation):
        if not blocks.after_generation(generation.frames):
            raise StopIteration

    where = {"environment": environment}
    if directory:
        members = MOST_REPLAYED
        options = {"name": environment, "directory": directory}
        where = {"environment": "evolution_vs_evotorch:recorded", "environment_options": options}
    evolution.evolve(
        **where,
        method="deep-ga",
        policy="mlp",
        policy_options={"hidden": hidden},
        options={"population_size": members, "num_parents": 10, "sigma": 0.1, "elite_candidates": 0},
        generations=10**6,
        test_episodes=0,
        workers=WORKERS,
        rng=0,
        callback=callback,
    )


def serve_peer(case, directory):
    import evolution_vs_evotorch  # by this name workers find it
    from evotorch.algorithms import Cosyne
    from evotorch.neuroevolution import GymNE

    _, environment, hidden, members, *_ = CASES[case]
    sizes = ["obs_length", *map(str, hidden), "act_length"]
    layers = [f"Linear({a}, {b})" for a, b in itertools.pairwise(sizes)]
    env, config = environment, None
    if directory:
        members = MOST_REPLAYED
        env, config = evolution_vs_evotorch.recorded, {"name": environment, "directory": directory}
    problem = GymNE(
        env,
        " >> Tanh() >> ".join(layers),
        env_config=config,
        observation_normalization=False,
        num_actors=WORKERS,
        initial_bounds=(-0.3, 0.3),
    )
    searcher = Cosyne(problem, popsize=members, tournament_size=4, mutation_stdev=0.3, num_elites=2)
    blocks = Blocks()
    while True:
        searcher.step()
        if not blocks.after_generation(int(searcher.status["total_interaction_count"])):
            break


def serve_replay(environment, directory):
    import gymnasium

    files = sorted(Path(directory).glob("*.npy"))[-MOST_REPLAYED:]
    episodes = [np.load(file) for file in files]
    bare = gymnasium.make(environment, disable_env_checker=True).unwrapped
    blocks, steps = Blocks(), 0
    while blocks.after_generation(steps):
        for seed, actions in enumerate(episodes):
            bare.reset(seed=seed)
            for action in actions:
                bare.step(action)
            steps += len(actions)


class Server:
    """A run in a process of its own."""

    def __init__(self, python, *arguments):
        paths = [str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [python, str(HERE), "--serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "--quiet" in sys.argv else None,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def begin(self, generations):
        self._process.stdin.write(f"{generations}\n")
        self._process.stdin.flush()

    def end(self):
        """Return CPU seconds, steps and seconds of the block that was begun."""
        for line in self._process.stdout:  # EvoTorch and Ray talk as well
            if line.startswith(MARK):
                return np.array(json.loads(line.removeprefix(MARK)))
        raise SystemExit(f"{' '.join(self._process.args)} ended early, with {self._process.wait()}.")

    def close(self):
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.wait()


def block(servers, generations):
    """Return CPU seconds, steps and seconds of these processes together."""
    for server in servers:
        server.begin(generations)
    return sum(server.end() for server in servers)


def replays_of(stack, interpreter, side, case, directory, generations):
    """Return processes, as many as there are workers, that replay what a run does."""
    own = Path(directory, side)
    own.mkdir()
    server = Server(interpreter, side, case, str(own))
    block([server], generations)
    server.close()
    servers = [Server(sys.executable, "replay", CASES[case][1], str(own)) for _ in range(WORKERS)]
    for server in servers:
        stack.callback(server.close)
    return servers


def compare(case, python, blocks):
    environment, members = CASES[case][1], CASES[case][3]
    sides = ("ours", "peer")
    interpreters = dict(zip(sides, (sys.executable, python), strict=True))
    before, during = (dict(zip(sides, counts, strict=True)) for counts in zip(*CASES[case][4:], strict=True))
    is_excess = case not in MICROSECONDS
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        runs = {}
        if is_excess:
            for side, python in interpreters.items():
                runs[f"bare, {side}"] = replays_of(stack, python, side, case, directory, before[side])
        for side, python in interpreters.items():
            runs[side] = [Server(python, side, case)]
            stack.callback(runs[side][0].close)
        for name, servers in runs.items():
            block(servers, before.get(name, 1))
        found = {name: [] for name in runs}
        seconds, lengths = {side: [] for side in sides}, {side: [] for side in sides}
        for _ in range(blocks):
            for name, servers in runs.items():
                cpu, steps, wall = block(servers, during.get(name, 1))
                found[name].append(cpu / steps * 1e6)
                if name in sides:
                    seconds[name].append(wall / during[name])
                    lengths[name].append(steps / during[name])
    spent = {side: np.array(found[side]) for side in sides}
    if is_excess:
        spent = {side: values - found[f"bare, {side}"] for side, values in spent.items()}
    mine, theirs = (float(np.median(spent[side])) for side in sides)
    most = MICROSECONDS.get(case)
    ratio = mine / theirs
    line = {
        "name": f"evolution/{case}",
        "ours": round(mine, 3),
        "peer": round(theirs, 3),
        "ratio": round(ratio, 4),
        "goal": GOAL,
        "ok": ratio <= GOAL and (most is None or mine <= most),
        "unit": "us of CPU per step" + (", beyond the bare environment" if is_excess else ""),
        "absolute_goal": most,
        "times_faster": round(theirs / mine, 1),
        "members": members,
        "compared_with": f"EvoTorch, GymNE of {environment}, Cosyne, {WORKERS} actors",
        "blocks": {name: [round(value, 3) for value in values] for name, values in found.items()},
        "steps_a_generation": {side: round(statistics.median(values)) for side, values in lengths.items()},
        "seconds_a_generation": {
            side: round(statistics.median(values), 4) for side, values in seconds.items()
        },
    }
    if case.startswith("cart-pole"):
        line |= floor(members)
    return line


def floor(members):
    """Return what the arithmetic of a step takes, in the arrays that it takes least in."""
    from evolution.environments.cart_pole import CartPole

    generator = np.random.default_rng(0)
    first = generator.standard_normal((5, 32, members)).astype(np.float32)
    second = generator.standard_normal((33, 2, members)).astype(np.float32)
    seen, layer = np.ones((5, members), np.float32), np.ones((33, members), np.float32)
    outputs, sums = np.empty((2, members), np.float32), layer[:32]
    environment, actions = CartPole(), np.zeros(members, np.int64)

    def policies():
        np.einsum("iok,ik->ok", first, seen, out=sums)
        np.tanh(sums, out=sums)
        np.einsum("iok,ik->ok", second, layer, out=outputs)
        np.greater(outputs[1], outputs[0])

    def timed(call, times=300):
        began = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - began) / times * 1e6 / members

    def poles():
        environment.begin(range(members))
        return timed(lambda: environment.step(actions))

    parts = {
        "policy": statistics.median(timed(policies) for _ in range(15)),
        "environment": statistics.median(poles() for _ in range(15)),
    }
    return {
        "floor": round(sum(parts.values()), 3),
        "floor_parts": {name: round(value, 3) for name, value in parts.items()},
        "arithmetic_of_a_policy": {"products": 226, "tanh": 32, "calls_for_all": 4},
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter that has EvoTorch; this one by default")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--quiet", action="store_true", help="no messages of EvoTorch and Ray")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, case, directory = [*args.serve, None][:3]
        {"ours": serve_ours, "peer": serve_peer, "replay": serve_replay}[side](case, directory)
        return 0
    if args.peer_python is None and importlib.util.find_spec("evotorch") is None:
        parser.error(
            "this interpreter has no EvoTorch. Make an environment that has, python -m venv evotorch-venv && "
            'evotorch-venv/bin/pip install evotorch "gymnasium[mujoco]", and give --peer-python '
            "evotorch-venv/bin/python."
        )
    done = []
    for case in args.cases:
        done.append(compare(case, args.peer_python or sys.executable, args.blocks))
        print(json.dumps(done[-1]), flush=True)
    return 0 if all(line["ok"] for line in done) else 1


if __name__ == "__main__":
    sys.exit(main())
