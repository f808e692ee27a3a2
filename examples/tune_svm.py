"""Killed twice, the same bytes
============================

Tune a support-vector machine on two workers, lose one of them, be killed, go on, lose nothing.

.. code-block:: sh

    python examples/tune_svm.py

Twelve hyper-parameters (C, gamma, ten feature weights) of a model of the breast-cancer data are
tuned by CMA-ES. On the way a worker is killed, then the whole run; it is resumed, and compared with
an undisturbed run in one process, bit for bit, and with random search at the same budget.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.core.errors import WorkerError
from zoo.problems.tasks import SupportVectorTuning
from zoo.run.digest import digest_of_run

TASK = "zoo.problems.tasks:SupportVectorTuning()"
SEED = 3


# %%
# A run with ``zoo.minimize``, and the same on two workers of which one is killed, by a callback.


def tune(method: str, budget: int, out: Path, **more: Any) -> Any:
    """Tune the model with one method, keeping the run in `out`."""
    return zoo.minimize(
        TASK,
        SupportVectorTuning.start,
        bounds=SupportVectorTuning.bounds,
        method=method,
        budget=budget,
        rng=SEED,
        out=out,
        **more,
    )


def tune_on_workers(budget: int, out: Path, use_ray: bool, lose_worker: bool) -> None:
    """Tune on two workers; with `lose_worker`, kill one of them after a quarter of the budget."""
    executor: Any = zoo.Ray(2) if use_ray else zoo.Processes(2)
    lost = not lose_worker

    def kill_one(intermediate_result: Any) -> None:
        nonlocal lost
        if not lost and intermediate_result.nfev > budget / 4:
            lost = True
            pid = executor.pids()[0]
            os.kill(pid, signal.SIGKILL)
            say(f"  kill -9 {pid}: one of two workers, after {intermediate_result.nfev} evaluations")

    result = tune("cma", budget, out, workers=executor, callback=kill_one)
    say(f"  done: {result.message}")


def say(text: str) -> None:
    """Tell what is going on."""
    print(text, file=sys.stderr, flush=True)


# %%
# The run is to be killed as well, so it gets a process of its own.


def num_recorded(out: Path) -> int:
    """Return how many evaluations the run has on record."""
    from zoo.run import journal

    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


def in_a_process(out: Path, budget: int, use_ray: bool, until: Callable[[], bool] | None) -> int:
    """Tune in a process of its own, killed as soon as `until` says so; return its exit status."""
    command = [sys.executable, main.__code__.co_filename, "--child", str(out), "--budget", str(budget)]
    command += [] if use_ray else ["--processes"]
    command += ["--lose-worker"] if until else []
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    while child.poll() is None:
        if until is not None and until():
            say(f"  kill -9 {child.pid}: the run itself, after {num_recorded(out)} evaluations")
            child.kill()
            break
        time.sleep(0.02)
    return child.wait()


# %%
# The whole story: killed twice, resumed, and compared.


def main(budget: int = 600, use_ray: bool = True, out: Path | None = None) -> dict[str, Any]:
    """Run the whole story and return what it showed."""
    out = out or Path("runs", f"tune_svm-{time.strftime('%Y%m%d-%H%M%S')}")
    kind = "Ray" if use_ray else "local"
    say(f"1. CMA-ES, {budget} evaluations, on 2 {kind} workers, in {out / 'cma'}")
    status = in_a_process(out / "cma", budget, use_ray, lambda: num_recorded(out / "cma") > budget / 2)
    if status != -signal.SIGKILL:
        raise WorkerError(f"the run was to be killed, and ended with status {status} before that.")
    recorded = num_recorded(out / "cma")
    say(f"2. resume it: {recorded} evaluations are on record")
    status = in_a_process(out / "cma", budget, use_ray, None)
    if status:
        raise WorkerError(f"the resumed run ended with status {status}.")
    result = json.loads((out / "cma" / "result.json").read_text())
    say("3. the same in one process, undisturbed")
    tune("cma", budget, out / "undisturbed")
    say("4. random search at the same budget")
    chance = tune("random", budget, out / "random", workers=2)

    task = SupportVectorTuning()
    before = float(task(SupportVectorTuning.start[None], key=zoo.Key(0))[0])
    disturbed, undisturbed = (digest_of_run(out / name) for name in ("cma", "undisturbed"))
    print(f"{'':<24}{'log-loss':>10}{'accuracy':>10}{'evaluations':>13}")
    for name, value, x, nfev in (
        ("untuned", before, SupportVectorTuning.start, 1),
        ("random search", float(chance.fun), chance.x, chance.nfev),
        ("CMA-ES, killed twice", result["fun"], result["x"], result["nfev"]),
    ):
        print(f"{name:<24}{value:>10.4f}{task.accuracy(np.asarray(x)):>10.4f}{nfev:>13}")
    lost = budget - num_recorded(out / "cma")
    equal = disturbed.total == undisturbed.total
    events = [json.loads(line) for line in (out / "cma" / "events.jsonl").read_text().splitlines()]
    again = sum(event["units"] for event in events if event["event"] == "worker lost")
    print(f"workers killed: {sum(event['event'] == 'worker lost' for event in events)}, ", end="")
    print(f"evaluations under way on them and made again: {again}")
    print(f"runs killed: 1, evaluations found on record: {recorded}")
    print(f"evaluations lost: {lost}")
    print(f"digest, killed twice  {disturbed.total}")
    print(f"digest, undisturbed   {undisturbed.total}")
    print("the bytes are the same" if equal else "THE BYTES DIFFER")
    return {
        "fun": result["fun"],
        "random": float(chance.fun),
        "before": before,
        "lost": lost,
        "equal": equal,
        "recorded": recorded,
        "out": out,
    }


# %%
# The runs, from what is in their directories.


def draw(shown: dict[str, Any]) -> Any:
    """Draw the best values of both methods, and where the run was killed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    for name, label, colour in (("cma", "CMA-ES", "C0"), ("random", "random search", "C5")):
        lines = (shown["out"] / name / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines]
        axes.step([s["nfev"] for s in steps], [s["best"] for s in steps], colour, where="post", label=label)
    axes.axvline(shown["recorded"], color="C4", linewidth=1, linestyle="--")
    top = axes.get_ylim()[1]
    axes.annotate(" killed, and resumed", (shown["recorded"], top), va="top", color="C4")
    axes.set(title="tuning a support-vector machine", xlabel="evaluations", ylabel="log-loss, best so far")
    axes.legend(loc="upper right")
    return figure


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=600, help="evaluations of each method")
    parser.add_argument("--processes", action="store_true", help="use local processes instead of Ray")
    parser.add_argument("--out", type=Path, help="directory of the runs; a new one in runs/ if left out")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lose-worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        tune_on_workers(given.budget, given.child, not given.processes, given.lose_worker)
    else:
        shown = main(given.budget, not given.processes, given.out)
        draw(shown).savefig(shown["out"] / "tuning.png")
        if not shown["equal"] or shown["lost"] or shown["fun"] >= shown["random"]:
            sys.exit("this is not what was to be shown")
