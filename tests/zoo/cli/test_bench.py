"""`zoo bench`: methods beside each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zoo.cli.bench import region
from zoo.cli.problems import PROBLEMS
from zoo.run.digest import digest_of_run

SMALL = ("rosenbrock", "--method", "lbfgs,random", "--dim", 2, "--budget", 300, "--seeds", 3)


def test_the_better_method_comes_first(zoo):
    found = zoo("bench", *SMALL, "--method", "nelder-mead").json
    assert (found["objective"], found["dim"], found["budget"]) == ("zoo.problems:rosenbrock", 2, 300)
    methods = found["methods"]
    assert methods[0]["method"] == "lbfgs"
    assert methods[-1]["method"] == "random"
    best, worst = methods[0], methods[-1]
    assert best["reached"] == 3
    assert max(best["values"]) <= 1e-8
    assert best["evaluations_to_target"] == best["evaluations"] / 3 < 300
    assert (worst["reached"], worst["evaluations"], worst["evaluations_to_target"]) == (0, 900, None)
    values = worst["values"]
    assert worst["median"] == values[1]
    assert worst["quartiles"] == pytest.approx([np.quantile(values, 0.25), np.quantile(values, 0.75)])
    assert all(one["cpu_milliseconds"] > 0 for one in methods)


def test_runs_are_ordinary_ones_and_made_once(zoo):
    first = zoo("bench", *SMALL)
    runs = [run for one in first.json["methods"] for run in one["runs"]]
    assert len(runs) == 6
    assert "runs/bench/rosenbrock/lbfgs/seed-3" in runs
    assert zoo("resume", runs[0]).json["success"]
    before = {run: Path(run, "result.json").stat().st_mtime_ns for run in runs}
    again = zoo("bench", *SMALL, "--workers", 2)
    assert again.out == first.out
    assert before == {run: Path(run, "result.json").stat().st_mtime_ns for run in runs}
    longer = zoo("bench", *SMALL[:-1], 4).json["methods"]
    assert [len(one["values"]) for one in longer] == [4, 4]
    for _ in range(2):
        refused = zoo("bench", *SMALL, "--budget", 400)
        assert refused.status == 2
        assert "another run: 'budget' differs (300 there, 400 here). Give --out another one." in refused.err


def test_functions_may_raise_at_some_points(zoo, tmp_path):
    (tmp_path / "fragile.py").write_text(
        "def loss(x):\n    assert x[0] * 1e6 % 1 > 0.1\n    return float(x @ x)\n"
    )
    bench = ("bench", "fragile:loss", "--bounds", "-1:1x2", "--method", "cma", "--seeds", 1, "--budget", 60)
    raised = zoo(*bench)
    assert raised.status == 3
    assert "in a run with on_error=nan, points at which it raises are failed evaluations" in raised.err
    assert zoo(*bench, "--on-error", "nan", "--out", "runs/other").status == 0
    assert "`--on-error` must be one of" in zoo(*bench, "--on-error", "nn").err


def test_what_was_interrupted_goes_on(zoo, tmp_path):
    """Two processes, Ctrl-C in the middle; the end is that of an undisturbed bench, to the byte."""
    (tmp_path / "slow.py").write_text(
        "import os, time\n\ndef loss(x):\n"
        "    if os.path.exists('wait'):\n        time.sleep(0.05)\n"
        "    return float((x * x).sum())\n"
    )
    (tmp_path / "wait").touch()
    arguments = ("bench", "slow:loss", "--bounds=-1:2x2", "--method", "cma,random", "--seeds", "2")
    arguments += ("--budget", "100", "--workers", "2")
    root = Path(__file__).parents[3]
    begun = subprocess.Popen(
        [sys.executable, "-m", "zoo", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "runs/bench/slow-loss"
    while not all(
        path.exists() and path.stat().st_size
        for path in (folder / method / "seed-1/evaluations.bin" for method in ("cma", "random"))
    ):
        assert begun.poll() is None
        time.sleep(0.02)
    begun.send_signal(signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130
    assert f"`zoo {' '.join(arguments)}` goes on" in said
    assert not list(folder.glob("*/seed-2/result.json"))
    (tmp_path / "wait").unlink()
    done = zoo(*arguments)
    assert done.status == 0, done.err
    assert [len(one["values"]) for one in done.json["methods"]] == [2, 2]
    zoo(*arguments, "--workers", 1, "--out", "alone")
    for method in ("cma", "random"):
        for seed in ("seed-1", "seed-2"):
            there, alone = folder / method / seed, tmp_path / "alone/slow-loss" / method / seed
            assert digest_of_run(there).values == digest_of_run(alone).values


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_the_bench(tmp_path, number):
    """Whoever holds the end of its pipe is alive: a terminal that is closed, and a kill, end all of them."""
    (tmp_path / "stuck.py").write_text(
        "import os, pathlib, time\n\ndef loss(x):\n"
        "    pathlib.Path(f'{os.getpid()}.pid').touch()\n    time.sleep(600)\n"
    )
    arguments = ("--x0=1,2", "--method=cma,random", "--budget=9", "--workers=2")
    # What a shell ignores, as under `nohup`, its programs ignore.
    heeds = "import signal, zoo.cli; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    begun = subprocess.Popen(
        [sys.executable, "-c", f"{heeds}; zoo.cli.main()", "bench", "stuck:loss", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
    )
    try:
        while len(list(tmp_path.glob("*.pid"))) < 2:
            assert begun.poll() is None
            time.sleep(0.02)
        begun.send_signal(number)
        begun.communicate(timeout=30)
    finally:
        begun.kill()
        for path in tmp_path.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.stem), signal.SIGKILL)
    assert begun.returncode == (129 if number == signal.SIGHUP else -9)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_that_fails(zoo, model, workers):
    Path("broken").touch()
    arguments = ("model:loss", "--x0", "1,2", "--method", "cma,random", "--seeds", 1, "--budget", 50)
    done = zoo("bench", *arguments, "--workers", workers)
    assert done.status == 3
    assert "raise ArithmeticError('out of paper')" in done.err
    Path("broken").unlink()
    assert zoo("bench", *arguments, "--workers", workers).status == 0


def test_a_process_that_dies_is_told_of(zoo, tmp_path):
    (tmp_path / "deadly.py").write_text("import os\n\ndef loss(x):\n    os._exit(7)\n")
    done = zoo("bench", "deadly:loss", "--x0", "1,2", "--method", "cma,random", "--workers", 2)
    assert done.status == 3
    assert "has died, with exit code 7" in done.err


@pytest.mark.parametrize(
    "name", [name for name, one in PROBLEMS.items() if not one.several and name != "svm"]
)
def test_every_problem_with_one_objective(zoo, name):
    done = zoo("bench", name, "--method", "random", "--budget", 20, "--seeds", 1)
    assert done.status == 0, done.err
    assert done.json["methods"][0]["evaluations"] == 20


def test_constraints_count(zoo):
    """A value that breaks them is none, however low; most of the box of g06 does."""
    done = zoo("bench", "g06", "--method", "random", "--budget", 20, "--seeds", 2)
    assert done.json["methods"][0]["values"] == [None, None]
    assert done.json["methods"][0]["median"] is None


def test_starts_belong_to_seeds_and_minima_stay_in_the_box():
    for name in ("sphere", "rosenbrock", "rastrigin"):
        found = [region(PROBLEMS[name], 5, seed, None) for seed in range(1, 40)]
        assert len({tuple(one["x0"]) for one in found}) == 39
        optimum = 1.0 if name == "rosenbrock" else 0.0
        for one in found:
            assert all(lower < optimum < upper for lower, upper in one["bounds"])
            assert all(lower < x < upper for (lower, upper), x in zip(one["bounds"], one["x0"], strict=True))
        middles = np.array([np.mean(one["bounds"], 1) for one in found])
        assert (np.abs(middles) > 1e-3).mean() > 0.9
    assert np.array_equal(region(PROBLEMS["schwefel"], 2, 1, None)["bounds"], [(-500, 500)] * 2)


def test_progress_of_a_bench(zoo):
    done = zoo("bench", *SMALL, "--progress", "lines")
    assert done.err.count("zoo: lbfgs, seed ") == 3
    assert zoo("bench", *SMALL, "--progress", "none").err == ""
