"""The command line as a whole: what goes where, and what is said where something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

import zoo as package
from zoo.cli.common import count

ROOT = Path(__file__).parents[3]
ROSENBROCK = ("zoo.problems:rosenbrock", "--x0", "0x4", "--budget", "400", "--seed", "1")


def process(*arguments, cwd):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "zoo", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_minimize_resume_and_digest(zoo):
    done = zoo("minimize", *ROSENBROCK, "--out", "run")
    assert done.status == 0
    assert done.json["nfev"] == 400
    assert zoo("resume", "run").json["x"] == done.json["x"]
    first = zoo("report", "--digest", "run").out
    assert first.split()[::2][:1] == ["state"]
    on_workers = zoo("minimize", *ROSENBROCK, "--out", "again", "--workers", 2)
    account = on_workers.json["account"]
    assert len(account["busy"]) == 2
    assert account["sent"] > account["received"] > 0
    assert f"zoo: {account['evaluations']} evaluations, 0 retried, " in on_workers.err
    ended = json.loads(Path("again/events.jsonl").read_text().splitlines()[-1])
    assert ended["account"] == account
    assert zoo("report", "--digest", "again").out == first


def test_the_users_own_module_and_a_program(zoo, model):
    done = zoo("minimize", "model:loss", "--x0", "1,2", "--bounds", "-3:3", "--budget", "6e1")
    assert (done.status, done.json["nfev"]) == (0, 60)
    program = f"{sys.executable} simulate.py"
    done = zoo("minimize", "--command", program, "--bounds", "-3:3x2", "--budget", 30)
    assert done.status == 0, done.err
    assert done.json["fun"] < 9
    assert len(done.json["x"]) == 2


def test_constraints(zoo):
    Path("limited.py").write_text(
        "import numpy as np\nimport zoo\nfrom scipy.optimize import LinearConstraint\n\n"
        "def area(x):\n    return float((x**2).sum())\n\n"
        "def right(x):\n    return x[0] - 1\n\n"
        "above = LinearConstraint([[0, 1]], 0.5, np.inf)\n\n"
        "class Both(zoo.Objective):\n    def __call__(self, x, *, key):\n"
        "        limits = np.stack([1 - x[:, 0], 0.5 - x[:, 1]], 1)\n"
        "        return zoo.Evaluations((x**2).sum(1), extras={'constraints': limits})\n"
    )
    common = ("--x0", "2,2", "--budget", 600, "--seed", 1)
    both = ("--constraint", "limited:right", "--constraint", "limited:above")
    for arguments in (("limited:area", *both), ("limited:Both()", "--constraint", "returned")):
        found = zoo("minimize", *arguments, *common).json
        assert found["fun"] == pytest.approx(1.25, abs=1e-4)
        assert found["maxcv"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_objective_prints_is_no_result(tmp_path, workers):
    (tmp_path / "loud.py").write_text(
        "print('here')\n\ndef loss(x):\n    print('hello')\n    return float((x * x).sum())\n"
    )
    arguments = ("--x0", "1,2", "--budget", "30", "--workers", workers)
    done = process("minimize", "loud:loss", *arguments, cwd=tmp_path)
    assert json.loads(done.stdout)["nfev"] == 30
    assert done.stderr.count("hello") == 30
    assert "here" in done.stderr


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2000", 2000),
        ("2e3", 2000),
        ("10_000", 10_000),
        ("5.0", 5),
        ("9007199254740993", 2**53 + 1),
        ("-1", -1),
    ],
)
def test_whole_numbers(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["1.5", "inf", "nan", "1e999", "", "many"])
def test_no_whole_numbers(text):
    with pytest.raises(typer.BadParameter, match="must be a whole number"):
        count(text)


def test_what_a_module_prints_is_no_result(tmp_path):
    (tmp_path / "loud.py").write_text("print('here')\n\ndef loss(x):\n    return float((x * x).sum())\n")
    (tmp_path / "loud.toml").write_text(
        'objective = {function = "loud:loss", x0 = "1x2"}\nstop = {budget = 30}\n'
    )
    for arguments in (
        ("run", "loud.toml", "--dry-run"),
        ("run", "loud.toml"),
        ("resume", "runs/loud"),
        ("bench", "loud:loss", "--x0", "1,2", "--budget", 30, "--seeds", 1, "--method", "random"),
    ):
        done = process(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "here\n"
        assert "here" not in done.stdout


def test_an_objective_that_fails_is_shown_and_goes_on_once_it_is_mended(zoo, model):
    Path("broken").touch()
    done = zoo("minimize", "model:loss", "--x0", "1,2", "--budget", 100, "--out", "a run", "--workers", 2)
    assert done.status == 3
    assert "evaluation 0 raised" in done.err
    assert "raise ArithmeticError('out of paper')" in done.err
    assert "cli/app.py" not in done.err
    assert "`zoo resume 'a run' --workers 2` goes on" in done.err
    Path("broken").unlink()
    assert zoo("resume", "a run").json["nfev"] == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("minimize zoo.problems:sphere --x0 0x3 --method cam", "Did you mean 'cma'"),
        ("minimize zoo.problems:sphere --x0 a,b", "`--x0` must be numbers"),
        ("minimize zoo.problems:sphere --x0 0x99999999999999", "with DIM up to 100000000, got '0x9999"),
        ("minimize zoo.problems:sphere --bounds 0:1x100000001", "with DIM up to 100000000, got '0:1x1"),
        (f"minimize zoo.problems:sphere --x0 0x3 --option sigma={'[' * 3000}", "`sigma` must be a number"),
        ("minimize zoo.problems:sphere --bounds 1", "`--bounds` must be LOWER:UPPER"),
        ("minimize zoo.problems:sphere --bounds 0:1,0:1x3", "`--bounds` must be LOWER:UPPER"),
        ("minimize zoo.problems:sphere --x0 0x3 --option x", "NAME=VALUE"),
        ("minimize zoo.problems:sphere --x0 0x3 --option sigme=1", "Did you mean 'sigma'"),
        ("minimize zoo.problems:sphere --x0 0x3 --budget 1.5", "must be a whole number"),
        ("minimize zoo.problems:sphere --x0 0x3 --progress panle", "Did you mean 'panel'"),
        ("minimize zoo.problems:sphere --x0 0x3 --method L-BFGS-B", "Did you mean 'l-bfgs-b'"),
        ("minimize zoo.problems:sphere --x0 0,9 --bounds 0:3", "got x0[1] = 9.0 and bounds[1] = (0.0, 3.0)."),
        ("minimize zoo.problems:sphere --x0 0x3 --log tensorbord", "`--log` must be one of"),
        ("minimize zoo.problems:sphere --x0 0x3 --log tensorbord", "Did you mean 'tensorboard'"),
        ("minimize zoo.problems:sphere --x0 0x3 --budgt 10", "no option --budgt. Did you mean --budget?"),
        ("minimize zoo.problems:sphere", "Give --x0 0x10 for ten zeros"),
        ("minimize zoo.problems:spher --x0 0x3", "has no 'spher'. Did you mean 'sphere'"),
        ("minimize model:los --x0 0x3", "has no 'los'. Did you mean 'loss'"),
        ("minimize model:fitness --x0 0x3", "has no 'fitness'. It has 'loss'."),
        ("minimize model:number --x0 0x3", "must name something to call, got 'model:number', which is 3"),
        ("minimize modl:loss --x0 0x3", "Did you mean 'model'"),
        ("minimize model.loss --x0 0x3", "Did you mean 'model:loss'"),
        ("minimize model.py:loss --x0 0x3", "Did you mean 'model:loss'"),
        ("minimize model.py --x0 0x3", "Did you mean 'model:function'"),
        ("minimize rosenbrock --x0 0x3", "Did you mean 'zoo.problems:rosenbrock'"),
        ("minimize zoo.problems:zdt1 --x0 0x3", "Did you mean 'zoo.problems.several:zdt1'"),
        ("minimize torn:loss --x0 0x3", "SyntaxError: '(' was never closed"),
        ("minimize needy:loss --x0 0x3", "No module named 'what_nobody_has'"),
        ("minimize zoo.problems:sphere --x0 0x3 --constraint modl:loss", "Did you mean 'model'"),
        ("minimize", "Missing argument"),
        ("minimize --command simulate.py", "Give --x0"),
        ("run experimen.toml", "Did you mean 'experiment.toml'"),
        ("run experiment.toml --set stop.budgt=3", "Did you mean `budget`"),
        ("run experiment.toml --set job.out=here", "here exists and is no run directory"),
        ("resume nowhere", "there is no directory nowhere"),
        ("report --digest here", "is no run directory"),
        ("bench rosenbrok", "Did you mean 'rosenbrock'"),
        ("bench zdt1", "several objectives"),
        ("bench g06 --dim 3", "has 2 variables"),
        ("bench sphere --bounds 0:1", "leave those options out"),
        ("bench sphere --method cma,dee", "Did you mean 'de'"),
        ("bench model:loss", "give --bounds"),
        ("list methds", "Did you mean 'methods'"),
        ("list cma de", "WHAT must be methods, problems, extras or one name, got 'cma'"),
        ("list methods cmaa", "Did you mean 'cma'"),
        ("minimise", "There is no command 'minimise'. Did you mean 'minimize'"),
        ("--versoin", "Did you mean --version"),
    ],
)
def test_wrong_arguments_are_explained(zoo, model, arguments, said):
    Path("here").mkdir()
    Path("here/notes").touch()
    Path("torn.py").write_text("def loss(x:\n")
    Path("needy.py").write_text("import what_nobody_has\n")
    done = zoo(*arguments.split())
    assert said in done.err
    assert done.err.startswith("zoo: ") or "experiment.toml" in done.err
    assert "Traceback" not in done.err
    assert (done.status, done.out) == (2, "")


def test_where_a_module_was_looked_for(zoo, tmp_path):
    assert f"in {tmp_path} or among what is installed" in zoo("minimize", "nothing:loss", "--x0", 1).err


def test_version(zoo):
    assert zoo("--version").out.strip() == package.__version__


def test_help_needs_next_to_nothing(tmp_path):
    heavy = {"numpy", "torch", "scipy", "matplotlib", "pydantic", "jinja2", "ray", "tomlkit"}
    code = f"""
import sys
from zoo.cli import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({heavy!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_whoever_reads_may_have_seen_enough(tmp_path):
    arguments = [sys.executable, "-m", "zoo", "list", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_log_beside_the_run(zoo):
    arguments = ("--budget", 70, "--seed", 1, "--log", "csv")
    zoo("minimize", "zoo.problems:sphere", "--x0", "1x3", *arguments, "--out", "run")
    rows = Path("run/steps.csv").read_text().splitlines()
    assert rows[0].startswith("step,nfev,best")
    assert len(rows) == 11
    zoo("minimize", "zoo.problems:sphere", "--x0", "1x3", *arguments)
    assert Path("steps.csv").read_text().splitlines() == rows


def test_progress_is_shown_on_standard_error(zoo):
    arguments = ("zoo.problems:sphere", "--x0", "1x3", "--budget", 70, "--progress")
    assert zoo("minimize", *arguments, "none").err == ""
    done = zoo("minimize", *arguments, "lines")
    assert "nfev=70" in done.err
    assert done.json["nfev"] == 70


def test_warnings_are_a_line(zoo, model):
    zoo("minimize", "model:loss", "--x0", "1x3", "--budget", 50, "--seconds", "1e-9", "--out", "run")
    meta = Path("run/meta.json")
    meta.write_text(re.sub(r'"numpy": "[^"]*"', '"numpy": "1.0"', meta.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = zoo("resume", "run")
    assert done.status == 0
    assert re.search(r"^zoo: warning: run was started elsewhere \(numpy 1.0 then.*$", done.err, re.MULTILINE)
