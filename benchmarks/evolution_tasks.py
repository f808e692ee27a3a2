"""Episodes to a policy that holds up: CartPole, LunarLander and HalfCheetah.

    python benchmarks/evolution_tasks.py [--task NAME] [--seeds 5]

A task is solved when the best policy by re-evaluation has the score in fresh episodes: the search ends at
that score, and 100 episodes more, which nobody has selected by, say what it is worth. Episodes count from the
first one, those of re-evaluations among them; the 100 do not.

    cartpole-ga    CartPole-v1, 4-32-2, Deep GA, 64 members and 3 parents, a sigma of .5, 2 candidates of 30
                   episodes each: 475 within 1200 episodes by all seeds
    cartpole-es    the same by the evolution strategy of OpenAI, 32 pairs: within 4000 by all
    lunarlander    LunarLander-v3, 8-16-4, separable CMA-ES, two episodes a member: 200 within 20,000 by four
                   of five
    halfcheetah    HalfCheetah-v5, 17-32-6, the strategy of OpenAI with normalized observations: 1500 within
                   10 million steps, one seed

Searches end at a score somewhat above the bar, since the best of several means is a lucky one. Settings were
chosen on seeds from 100 on. With the 10 parents that are more usual in a generation of 64, cartpole-ga is
solved by all five seeds, too, with a median of 496 episodes, 1116 at most; with 5 candidates of 10 episodes
as well, of 456, 1140 at most.

One JSON line a task: "ours" is the median number of episodes (of steps for HalfCheetah), "goal" how many
there may be, and each seed's number, score and CPU seconds stand beside them. Exit status 0 when all are met.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evolution import evolve

TESTS = 100
PAIRS = {"population_size": 64, "sigma": 0.1, "learning_rate": 0.05}
TASKS = {
    "cartpole-ga": (
        "CartPole-v1",
        "deep-ga",
        {
            "options": {
                "population_size": 64,
                "num_parents": 3,
                "sigma": 0.5,
                "elite_candidates": 2,
                "elite_episodes": 30,
            },
            "score": 490,
            "budget": 1200,
        },
    ),
    "cartpole-es": (
        "CartPole-v1",
        "openai-es",
        {"options": {**PAIRS, "validation_every": 2, "weight_decay": 0.0}, "score": 490, "budget": 4000},
    ),
    "lunarlander": (
        "LunarLander-v3",
        "sep-cma",
        {
            "options": {"population_size": 40, "validation_every": 10, "validation_episodes": 50},
            "episodes": 2,
            "policy_options": {"hidden": (16,)},
            "score": 225,
            "budget": 20_000,
        },
    ),
    "halfcheetah": (
        "HalfCheetah-v5",
        "openai-es",
        {
            "options": {
                "population_size": 64,
                "sigma": 0.05,
                "learning_rate": 0.02,
                "validation_every": 10,
                "validation_episodes": 5,
                "weight_decay": 0.0,
            },
            "policy_options": {"hidden": (32,)},
            "normalize": True,
            "score": 1600,
            "frames": 10_000_000,
        },
    ),
}
BARS = {"cartpole-ga": 475, "cartpole-es": 475, "lunarlander": 200, "halfcheetah": 1500}
SHARES = {"lunarlander": 0.8}


def measured(task, seeds):
    environment, method, settings = TASKS[task]
    numbers, scores, errors, seconds = [], [], [], []
    for seed in range(1 if task == "halfcheetah" else seeds):
        began = time.process_time()
        done = evolve(environment, method, **settings, rng=seed, test_episodes=TESTS)
        seconds.append(round(time.process_time() - began, 1))
        numbers.append(done.frames if task == "halfcheetah" else done.episodes)
        scores.append(round(done.score, 1))
        errors.append(round(done.score_error, 1))
        print(task, seed, done, file=sys.stderr, flush=True)
    goal = settings.get("budget", settings.get("frames"))
    solved = sum(
        score >= BARS[task] and number <= goal for score, number in zip(scores, numbers, strict=True)
    )
    return {
        "name": f"evolution_tasks/{task}",
        "ours": statistics.median(numbers),
        "goal": goal,
        "ratio": round(statistics.median(numbers) / goal, 3),
        "solved": solved,
        "numbers": numbers,
        "scores": scores,
        "standard_errors": errors,
        "cpu_seconds": seconds,
        "ok": solved >= SHARES.get(task, 1.0) * len(scores),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    lines = []
    for task in given.task or TASKS:
        lines.append(measured(task, given.seeds))
        print(json.dumps(lines[-1]), flush=True)
    return 0 if all(line["ok"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
