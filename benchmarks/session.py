"""What asking and telling costs: CPU of `zoo.Session`, beside that of optuna's `study.ask` and `study.tell`.

In memory, all in one process; and kept in files that are opened anew for every ask and for every tell, as
workers do who share them. The peer draws at random, which is the least it can do, and ours is CMA-ES.

    python benchmarks/session.py
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna

import zoo

DIM, GOAL = 10, 0.5


def value_of(x: np.ndarray) -> float:
    return float((x**2).sum())


def ours_in_memory(count: int, _: Path) -> None:
    session = zoo.Session("cma", np.ones(DIM), budget=count + 50, rng=0)
    for _number in range(count):
        (trial,) = session.ask()
        session.tell(trial.id, value_of(trial.x))


def ours_on_disk(count: int, folder: Path) -> None:
    zoo.Session("cma", np.ones(DIM), budget=count + 50, rng=0, out=folder / "run").close()
    for _number in range(count):
        with zoo.Session.open(folder / "run") as session:
            (trial,) = session.ask()
        with zoo.Session.open(folder / "run") as session:
            session.tell(trial.id, value_of(trial.x))


def suggested(trial: optuna.Trial) -> np.ndarray:
    return np.array([trial.suggest_float(f"x{i}", -2, 2) for i in range(DIM)])


def peer_in_memory(count: int, _: Path) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _number in range(count):
        trial = study.ask()
        study.tell(trial, value_of(suggested(trial)))


def peer_on_disk(count: int, folder: Path) -> None:
    def opened() -> optuna.Study:
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal"))
        return optuna.create_study(
            study_name="run",
            storage=optuna.storages.JournalStorage(backend),
            sampler=optuna.samplers.RandomSampler(seed=0),
            load_if_exists=True,
        )

    for _number in range(count):
        trial = opened().ask()
        x = suggested(trial)
        opened().tell(trial.number, value_of(x))


def milliseconds(what: Callable[[int, Path], None], count: int) -> float:
    """Return the CPU time of one evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        what(count, Path(folder))
        return 1e3 * (time.process_time() - before) / count


def main() -> int:
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.simplefilter("ignore")  # of features that the peer calls experimental
    ok = True
    for name, ours, peer, count, repeats in (
        ("in memory", ours_in_memory, peer_in_memory, 1000, 3),
        ("on disk, 100 of them", ours_on_disk, peer_on_disk, 100, 3),
        ("on disk, 300 of them", ours_on_disk, peer_on_disk, 300, 1),
    ):
        for warm in (ours, peer):
            milliseconds(warm, 10)
        pairs = [(milliseconds(ours, count), milliseconds(peer, count)) for _ in range(repeats)]
        mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        row = {"name": f"session: ms an evaluation, {name}", "ours": round(mine, 3), "peer": round(theirs, 3)}
        row |= {"ratio": round(mine / theirs, 3), "goal": GOAL, "ok": mine <= GOAL * theirs}
        ok &= row["ok"]
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
