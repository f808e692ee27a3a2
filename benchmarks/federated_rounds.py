"""Seconds of an empty round of a federation, against Flower's simulation.

    python benchmarks/federated_rounds.py [--flower-venv FOLDER | --no-peer] [--clients 10 100] [--blocks 2]

Every client is sent 300 numbers and sends them back; nothing is evaluated, and nobody looks at x. Ours is
`federated.federate` on two workers, processes (`ours`) and Ray's (`ours_ray`), theirs `grid.send_and_receive`
in a `ServerApp`, one CPU for each client and two actors. Each is run in a process of its own, and block by
block they take turns, so that nobody idles beside another one. A round is from the end of the one before to
its own; the first three are left out, the first of which, with the start of workers, is told as `first`; the
median of the others counts.

Goals: .02 s for 10 clients, .08 s for 100, .5 s for 1000, on either kind of worker.

Flower pins packages of its own. Make it an environment, and say where:

    python -m venv flower-venv && flower-venv/bin/pip install "flwr[simulation]"
    python benchmarks/federated_rounds.py --flower-venv flower-venv

With `--no-peer` ours runs alone, and `peer` is what Flower 1.41 took on another occasion on two cores;
`peer_is_measured` tells. One JSON line for each number of clients, exit status 0 when all are within their
goals.
"""

from __future__ import annotations

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    RAY_worker_niceness="0",  # else Ray's workers wait for everything else on the machine
    RAY_USAGE_STATS_ENABLED="0",
    FLWR_TELEMETRY_ENABLED="0",
)

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import federated
import zoo
from zoo.core.state import state

HERE = Path(__file__).resolve()
DIM, WORKERS, LEFT_OUT = 300, 2, 3
GOALS = {10: 0.02, 100: 0.08, 1000: 0.5}  # by clients, seconds
ELSEWHERE = {10: 0.105, 100: 0.79, 1000: 10.0}
ROUNDS = {"ours": {10: 300, 100: 200, 1000: 60}, "peer": {10: 40, 100: 13, 1000: 6}}  # of a block
MARK = "ends:"


@dataclasses.dataclass(frozen=True, eq=False)
class Vector(federated.Message):
    x: Any


@state
class Kept:
    x: Any


@dataclasses.dataclass(frozen=True)
class Echo(federated.FederatedAlgorithm):
    """Clients send back what they are sent."""

    def server_init(self, x0, _problem):
        return Kept(x0)

    def client_init(self, _x0, _problem, _client):
        return Kept(None)

    @property
    def trips(self):
        return (federated.Trip(self._ask, self._echo, self._take),)

    def _ask(self, server, _clients):
        return Vector(server.x)

    def _echo(self, client, message, _local):
        return client, Vector(message.x)

    def _take(self, _server, answers):
        return Kept(answers[-1].message.x)

    def recommend(self, server):
        return server.x

    def most_queries(self, _dim, _first):
        return 0


class Silent(federated.Task):
    """Clients that nobody asks."""

    def __init__(self, num_clients):
        self.num_clients, self.dim = num_clients, DIM

    def start(self, key):
        return key.normal(0, 1, DIM)[0]

    def values(self, _client, x, **_):
        return np.zeros(len(x))


# For an interpreter that has Flower, and nothing of ours.
PEER = """
import json, sys, time
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

clients, rounds, dim, workers = map(int, sys.argv[1:])
client_app, server_app = ClientApp(), ServerApp()

@client_app.train()
def train(message, context):
    return Message(content=RecordDict({"x": message.content["x"]}), reply_to=message)

@server_app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < clients:
        time.sleep(0.1)
    x, ends = [np.random.default_rng(0).standard_normal(dim)], []
    ends.append(time.perf_counter())
    for number in range(rounds):
        content = RecordDict({"x": ArrayRecord(x)})
        replies = list(grid.send_and_receive([Message(content, node, "train") for node in nodes]))
        assert len(replies) == clients and not any(reply.has_error() for reply in replies)
        x = replies[-1].content["x"].to_numpy_ndarrays()
        ends.append(time.perf_counter())
    print("ends:", json.dumps(ends), flush=True)

run_simulation(
    server_app, client_app, clients,
    backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": workers}},
)
"""


def serve(kind, clients, rounds):
    """Do a run of ours and print when its rounds were over."""
    import federated_rounds as own  # by this name workers find it

    ends = [time.perf_counter()]
    found = federated.federate(
        own.Silent(clients),
        own.Echo(),
        rounds=rounds,
        measure_every=0,
        workers=zoo.Ray(WORKERS) if kind == "ours_ray" else zoo.Processes(WORKERS),
        rng=0,
        callback=lambda _: ends.append(time.perf_counter()),
    )
    assert found.up == found.down == rounds * clients * DIM * 8
    print(MARK, json.dumps(ends), flush=True)


def seconds_of(kind, clients, peer_python, quiet):
    """Return the seconds of each round of a block, in a process of its own."""
    rounds = ROUNDS["peer" if kind == "peer" else "ours"][clients]
    if kind == "peer":
        call = [peer_python, "-c", PEER, str(clients), str(rounds), str(DIM), str(WORKERS)]
        paths = []
    else:
        call = [sys.executable, str(HERE), "--serve", kind, str(clients), str(rounds)]
        paths = [str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "FLWR_HOME": home}
        done = subprocess.run(
            call,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            env=env,
            cwd=home,
            check=False,
        )
    for line in done.stdout.splitlines():
        if MARK in line:
            return np.diff(json.loads(line.partition(MARK)[2])).tolist()
    raise SystemExit(f"the run of {kind} with {clients} clients ended with {done.returncode} and no times.")


def compare(clients, peer_python, blocks, quiet):
    """Return the line of a case."""
    kinds = ["ours", "ours_ray", *(["peer"] if peer_python else [])]
    taken = {kind: [] for kind in kinds}
    for _ in range(blocks):
        for kind in kinds:
            taken[kind].append(seconds_of(kind, clients, peer_python, quiet))
    medians = {
        kind: statistics.median(second for block in found for second in block[LEFT_OUT:])
        for kind, found in taken.items()
    }
    peer = medians.get("peer", ELSEWHERE[clients])
    most = max(medians["ours"], medians["ours_ray"])
    return {
        "name": f"federated_rounds/{clients}",
        "ours": round(medians["ours"], 5),
        "peer": round(peer, 5),
        "ratio": round(medians["ours"] / peer, 4),
        "goal": GOALS[clients],
        "ok": most <= GOALS[clients],
        "unit": "s per round",
        "ours_ray": round(medians["ours_ray"], 5),
        "peer_is_measured": peer_python is not None,
        "compared_with": f"Flower simulation, {WORKERS} actors",
        "first": {kind: round(statistics.median(b[0] for b in found), 3) for kind, found in taken.items()},
        "blocks": {
            kind: [round(statistics.median(block[LEFT_OUT:]), 5) for block in found]
            for kind, found in taken.items()
        },
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower-venv", type=Path, help="folder of an environment that has Flower")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--clients", nargs="*", type=int, choices=GOALS, default=list(GOALS))
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="no messages of Flower and Ray")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        kind, clients, rounds = args.serve
        serve(kind, int(clients), int(rounds))
        return 0
    if (args.flower_venv is None) != args.no_peer:
        parser.error(
            "give either --no-peer or --flower-venv FOLDER, made by: python -m venv FOLDER && "
            'FOLDER/bin/pip install "flwr[simulation]"'
        )
    python = None if args.no_peer else str((args.flower_venv / "bin" / "python").absolute())
    done = []
    for clients in args.clients:
        done.append(compare(clients, python, args.blocks, args.quiet))
        print(json.dumps(done[-1]), flush=True)
    return 0 if all(line["ok"] for line in done) else 1


if __name__ == "__main__":
    sys.exit(main())
