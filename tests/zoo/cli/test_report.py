"""`zoo report` and `zoo compare`, as processes of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.zoo.report import runs

ROOT = Path(__file__).parents[3]


def call(*arguments, cwd, terminal=False):
    """Run a command; on a terminal, if asked to, from which no more than its output is returned."""
    command = [sys.executable, "-c", "from zoo.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "110", "NO_COLOR": "1", "TERM": "xterm"}
    options = {"cwd": cwd, "env": environment, "text": True, "timeout": 100}
    if not terminal:
        return subprocess.run(command, capture_output=True, **options)
    ours, theirs = pty.openpty()
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, **options)
    os.close(theirs)
    read = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # which is how a terminal ends
            break
        read += piece
    os.close(ours)
    done.stdout = read.decode()
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    for method in ("cma", "random"):
        for seed in range(4):
            out = folder / "runs" / method / str(seed)
            zoo.minimize(runs.sphere, np.ones(2), method=method, budget=60, rng=seed, out=out)
    return folder


def test_report_prints_the_result_and_draws(folder):
    run = folder / "runs" / "cma" / "0"
    done = call("report", "runs/cma/0", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    result = json.loads((run / "result.json").read_text())
    assert printed == {"directory": "runs/cma/0", **result}
    assert (run / "report.html").exists()
    assert (run / "report" / "value_evaluations.png").exists()
    done = call("report", "runs/cma/1", "--no-html", cwd=folder)
    assert done.returncode == 0
    assert not (folder / "runs" / "cma" / "1" / "report.html").exists()


def test_report_of_a_run_without_an_end_says_how_far_it_came(tmp_path):
    runs.make("under way", tmp_path / "run")
    printed = json.loads(call("report", "run", "--out", "there", cwd=tmp_path).stdout)
    assert printed["message"] == "not finished"
    assert printed["nit"] > 50
    assert printed["fun_best"] < 1
    assert len(printed["x_best"]) > 1
    assert printed["nfev"] == 599  # and one that was kept for the end
    assert (tmp_path / "there" / "report.html").exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_report_of_a_folder_of_runs_names_one(folder):
    done = call("report", "runs", cwd=folder)
    assert done.returncode == 2
    assert "There are runs in it, such as runs/cma/0." in done.stderr


def test_report_on_a_terminal_is_for_people(folder):
    done = call("report", "runs/cma/2", cwd=folder, terminal=True)
    assert done.returncode == 0, done.stderr
    for words in ("minimised by cma", "Evaluations", "The point found", "x[1]", "report.html"):
        assert words in done.stdout
    assert "{" not in done.stdout
    json.loads(call("report", "--json", "--no-html", "runs/cma/2", cwd=folder, terminal=True).stdout)


def test_names_cannot_steer_a_terminal(tmp_path):
    clear = "\x1b[2J\x9b2J"
    kind = {"kind": "categorical", "choices": [f"a{clear}", "b", "c"], "ordered": False}
    space = {"names": [f"kind{clear}"], "variables": [kind]}
    run = runs.log(
        tmp_path,
        {"best": [3.0, 2.0], "x": [[0.1, 0.8, 0.2], [0.9, 0.1, 0.2]]},
        objective={"name": f"loss{clear}"},
        space=space,
        method=f"cma{clear}",
    )
    for command in ("report", "compare"):
        done = call(command, run, "--no-html", cwd=tmp_path, terminal=True)
        assert done.returncode == 0, done.stderr
        assert "cma\N{REPLACEMENT CHARACTER}[2J" in done.stdout
        assert "\x1b[2J" not in done.stdout
        assert "\x9b" not in done.stdout
    done = call("report", run, "--no-html", "--json", cwd=tmp_path, terminal=True)
    assert clear[4:] not in done.stdout
    assert clear in json.loads(done.stdout)["x_best"].popitem()[0]


def test_report_where_nothing_can_be_written(folder):
    (folder / "file").write_text("")
    done = call("report", "runs/cma/3", "--out", "file", cwd=folder)
    assert done.returncode == 2
    assert json.loads(done.stdout)["nfev"] == 60
    assert done.stderr.startswith("zoo: file/report.html cannot be written: ")
    assert "--out" in done.stderr
    done = call("report", "nowhere", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "zoo: there is no directory nowhere.\n"


def test_compare_prints_tables_and_draws(folder):
    done = call("compare", "runs", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (section,) = json.loads(done.stdout)["sections"]
    assert [group["name"] for group in section["groups"]] == ["cma", "random"]
    assert [group["runs"] for group in section["groups"]] == [4, 4]
    assert section["pairs"][0]["effect"] == 1.0
    assert section["pairs"][0]["significant"]
    assert (folder / "compare" / "compare.html").exists()
    assert (folder / "compare" / "evaluations.png").exists()


def test_compare_on_a_terminal_is_for_people(folder):
    done = call("compare", "runs", "--no-html", "--targets", "1,-5", cwd=folder, terminal=True)
    assert done.returncode == 0, done.stderr
    for words in ("Reached it", "0 of 4", "never", "cma is lower", "Mann-Whitney"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs", "--by", "methods"], "`by` must be one of"),
        (["runs", "--targets", "1,low"], "`--targets` must be numbers separated by commas, got '1,low'."),
        (["nowhere"], "there is no directory nowhere."),
        (["runs", "empty"], "there is no run in empty"),
    ],
)
def test_compare_says_what_is_wrong(folder, arguments, words):
    (folder / "empty").mkdir(exist_ok=True)
    done = call("compare", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
