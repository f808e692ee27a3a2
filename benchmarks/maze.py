"""Whether novelty leads out of a dead end that better scores lead into: the hard maze of Lehman and Stanley.

Networks of 11-16-2 with tanh, 210 parameters, in generations of 250, 25 of whom have children, with mutations
of .1 and one elite. Novelty search (15 neighbours, a chance of .02 to enter the archive) ends when someone
comes within 10 of the goal, and has 100,000 evaluations to do so; so have the genetic algorithm that goes by
the score, minus the distance to the goal at the end, and policies drawn at random. Seeds are 0 to 4, and 0
for random policies.

Seconds are those of CPU that 100,000 evaluations take in all, 40 million steps: the mean of the runs that had
as many. `maze` is what the steps of the environment take of these, and `policy` the networks, measured beside
it; the rest is breeding, archive and bookkeeping.

    python benchmarks/maze.py [FOLDER]

With a folder, maps of where everyone ended are drawn there, of seed 0 of novelty search and of the genetic
algorithm.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import evolution
from evolution.environments.environment import Step
from evolution.environments.maze import HardMaze
from evolution.environments.maze_picture import draw_maze
from evolution.policies.mlp import MLP
from zoo.core.rng import Key

SEEDS, BUDGET, SIZE = range(5), 100_000, 250
HIDDEN = (16,)
ANYBODY = {"population_size": SIZE, "elite_candidates": 0}  # the maze has no chance: nobody is tried again
SELECTED = {**ANYBODY, "num_parents": 25, "sigma": 0.1}
OPTIONS = {
    "novelty-ga": {**SELECTED, "neighbours": 15, "archive_probability": 0.02},
    "deep-ga": SELECTED,
    "random": ANYBODY,
}
SOLVED, MEDIAN, STUCK, SECONDS = 4, 15_000, (38.0, 40.0), 90.0

ends: list[np.ndarray] = []


class Recorded(HardMaze):
    """The maze, with a note of where the members of each generation ended."""

    def step(self, actions: np.ndarray) -> Step:
        done = super().step(actions)
        if done.ended.all() and len(done.ended) == SIZE:
            ends.append(self.behaviour("position"))
        return done


def searched(method: str, seed: int) -> tuple[int, float, float, np.ndarray]:
    """Return evaluations, the least distance to the goal, CPU seconds, and ends by generation."""
    ends.clear()
    began = time.process_time()
    found = evolution.evolve(
        Recorded,
        method,
        policy_options={"hidden": HIDDEN},
        options=OPTIONS[method],
        budget=BUDGET,
        score=HardMaze().solved,
        test_episodes=0,
        rng=seed,
    )
    return found.episodes, -found.best, time.process_time() - began, np.array(ends)


def cells(places: np.ndarray) -> int:
    """Return in how many squares of 10 by 10 somebody ended."""
    return len(np.unique((places.reshape(-1, 2) // 10).astype(int), axis=0))


def alone() -> tuple[float, float]:
    """Return CPU seconds of 40 million steps, of the maze and of the networks; medians of nine times 400."""
    maze, policy = HardMaze(), MLP(HardMaze.spaces, hidden=HIDDEN)
    rows = np.asarray(Key(0).normal(0, SIZE, policy.dim), np.float32) / 3
    inside, outside = [], []
    for _ in range(9):
        actor = policy.actor(rows, np.arange(SIZE))
        observations = maze.begin(range(SIZE))
        actions = []
        outside.append(0.0)
        for _step in range(maze.max_steps):
            began = time.process_time()
            actions.append(actor.act(observations).copy())
            outside[-1] += time.process_time() - began
            observations = maze.step(actions[-1]).observations
        maze.begin(range(SIZE))
        began = time.process_time()
        for action in actions:
            maze.step(action)
        inside.append(time.process_time() - began)
    return statistics.median(inside) * BUDGET / SIZE, statistics.median(outside) * BUDGET / SIZE


def say(row: dict) -> bool:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
    return row["ok"]


def compared(folder: Path | None) -> bool:
    """Say how the methods do, and return whether all are as they should be."""
    ok, spent = True, []
    for method, seeds in (("novelty-ga", SEEDS), ("deep-ga", SEEDS), ("random", range(1))):
        taken, distances, squares = [], [], []
        for seed in seeds:
            evaluations, distance, seconds, places = searched(method, seed)
            taken.append(evaluations if distance < 10 else math.inf)
            distances.append(round(distance, 1))
            squares.append(cells(places))
            if evaluations >= BUDGET:
                spent.append(seconds * BUDGET / evaluations)
            if folder and seed == 0 and method != "random":
                born = np.repeat(np.arange(len(places)), SIZE)
                title = f"{method}, {evaluations:,} evaluations"
                picture = draw_maze(places.reshape(-1, 2), born, title=title)
                (folder / f"maze_{method}.png").write_bytes(picture.png())
        solved, middle = sum(map(math.isfinite, taken)), statistics.median(taken)
        row = {
            "name": f"maze/{method}",
            "solved": solved,
            "of": len(seeds),
            "median": middle if math.isfinite(middle) else None,
            "evaluations": [n if math.isfinite(n) else None for n in taken],
            "distance": distances,
            "cells": squares,
        }
        if method == "novelty-ga":
            row |= {"goal": [SOLVED, MEDIAN], "ok": solved >= SOLVED and middle <= MEDIAN}
        else:
            stuck = all(STUCK[0] <= distance <= STUCK[1] for distance in distances)
            row |= {"goal": STUCK, "ok": solved == 0 and (stuck or method == "random")}
        ok &= say(row)
    seconds = statistics.mean(spent)
    maze, policy = alone()
    row = {"name": "maze/seconds", "seconds": round(seconds, 1), "maze": round(maze, 1)}
    row |= {"policy": round(policy, 1), "goal": SECONDS, "ok": seconds <= SECONDS}
    return say(row) and ok


if __name__ == "__main__":
    sys.exit(0 if compared(Path(sys.argv[1]) if len(sys.argv) > 1 else None) else 1)
