"""What a call to stateful parts costs beyond what they do.

    python benchmarks/shards.py [--ray] [--calls 40]

Ours is `Shards.call` on `zoo.Processes(2)`, or on `zoo.Ray(2)` with `--ray`; every part holds 300 numbers.
Call by call it takes turns with `multiprocessing.Pool(2).map`, to which the states travel along and come back
changed, and with a plain loop over parts in this process. Medians of wall time; MB are those of one call of
ours, and `floor` is what it takes to pickle and unpickle the same messages and replies, one list for each
worker.

`empty`: a small message to each part, no reply.
`echo`: 300 numbers to each part, its own, and back.
`broadcast`: one array of 1 MB to all, no reply.
`killed`: `empty`, a worker being killed as the call begins; for information.

One JSON line per case; exit status 0 when all are ok.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import multiprocessing
import pickle
import signal
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import zoo

WORKERS = 2
GOALS = {100: 0.05, 1000: 0.25}  # by parts, seconds of an empty call
DIM = 300
KEY = zoo.Key(0)


class Client(zoo.Part):
    def __init__(self, index):
        self.x, self.calls = np.full(DIM, float(index)), 0

    def handle(self, message, _key, _query):
        self.calls += 1
        return message if isinstance(message, np.ndarray) and len(message) == DIM else None

    def snapshot(self):
        return self.x, self.calls

    def restore(self, snapshot):
        self.x, self.calls = snapshot


def shipped(item):
    """Handle a message in a process that has nothing: the state comes with it, and goes back."""
    index, state, message = item
    part = Client(index)
    part.restore(state)
    reply = part.handle(message, KEY, None)
    return part.snapshot(), reply


def messages_of(case, parts, call):
    """Return new messages, as every round has."""
    if case == "broadcast":
        return [np.full(2**17, float(call))] * parts
    if case == "echo":
        return list(np.full((parts, DIM), float(call)))
    return [call] * parts


def seconds_of(function, *arguments):
    began = time.perf_counter()
    value = function(*arguments)
    return time.perf_counter() - began, value


def travelling(messages, replies):
    """Pickle and unpickle what has to reach the workers and come back."""
    for share in (messages, replies):
        half = len(share) // WORKERS
        for first in range(0, len(share), half):
            pickle.loads(pickle.dumps(share[first : first + half], pickle.HIGHEST_PROTOCOL))


def measure(executor, pool, case, parts, calls):
    """Return the case's line, without name and goal."""
    shards = executor.shards(Client, parts)
    states = [Client(index).snapshot() for index in range(parts)]
    here = [Client(index) for index in range(parts)]
    spent = {"ours": [], "pool": [], "loop": [], "floor": []}
    for call in range(calls + 5):
        messages = messages_of(case, parts, call)
        if call == 5:
            before = shards.account.sent + shards.account.received
        ours, replies = seconds_of(shards.call, messages, KEY.fold(call))
        items = list(zip(range(parts), states, messages, strict=True))
        pooled, answers = seconds_of(pool.map, shipped, items)
        states = [state for state, _ in answers]
        loop, _ = seconds_of(
            lambda m=messages: [p.handle(i, KEY, None) for p, i in zip(here, m, strict=True)]
        )
        floor, _ = seconds_of(travelling, messages, [reply.reply for reply in replies])
        if call >= 5:  # the first ones warm up
            for name, seconds in zip(spent, (ours, pooled, loop, floor), strict=True):
                spent[name].append(seconds)
    moved = (shards.account.sent + shards.account.received - before) / calls
    assert [state[1] for state in shards.snapshot()] == [state[1] for state in states] == [calls + 5] * parts
    ms = {name: round(1e3 * statistics.median(each), 3) for name, each in spent.items()}
    return {
        "ours": ms["ours"],
        "peer": ms["pool"],
        "ratio": round(ms["ours"] / ms["pool"], 3),
        "unit": "ms a call; the peer is the pool, the goal is absolute",
        "loop": ms["loop"],
        "floor": ms["floor"],
        "mb": round(moved / 1e6, 3),
    }


def killed(executor, parts, calls):
    """Return the line of calls in which a worker is killed."""
    shards = executor.shards(Client, parts)
    spent = []
    for call in range(calls):
        while len(executor.pids()) < WORKERS:
            shards.call([0] * parts, KEY)
        os.kill(executor.pids()[call % WORKERS], signal.SIGKILL)
        spent.append(seconds_of(shards.call, [0] * parts, KEY)[0])
    shards.snapshot()
    return {
        "ours": round(1e3 * statistics.median(spent), 1),
        "peer": None,
        "ratio": None,
        "unit": f"ms a call, {shards.account.lost} parts having been under way at a death",
        "worst": round(1e3 * max(spent), 1),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", action="store_true", help="zoo.Ray(2) instead of zoo.Processes(2)")
    parser.add_argument("--calls", type=int, default=40)
    args = parser.parse_args()
    kind = zoo.Ray if args.ray else zoo.Processes
    ok = True
    with multiprocessing.Pool(WORKERS) as pool:  # forked while no threads of others are about
        executor = kind(WORKERS)
        with executor.open(None):
            for case in ("empty", "echo", "broadcast", "killed"):
                for parts in GOALS:
                    if case == "killed":
                        line = killed(executor, parts, 5)
                    else:
                        line = measure(executor, pool, case, parts, args.calls)
                    goal = GOALS[parts] * 1e3 if case == "empty" else None
                    fine = goal is None or line["ours"] <= goal
                    ok &= fine
                    name = f"shards/{kind.__name__.lower()}/{case}/{parts}"
                    print(json.dumps({"name": name, **line, "goal": goal, "ok": fine}), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
