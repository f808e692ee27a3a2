"""The command line, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ZOO = [sys.executable, "-c", "from zoo.cli import main; main()"]


def zoo(*arguments, cwd=None):
    import pathlib

    root = pathlib.Path(__file__).parents[3]
    return subprocess.run(
        [*ZOO, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd or root,
        env={**__import__("os").environ, "PYTHONPATH": str(root)},
        timeout=60,
    )


def test_minimize_resume_and_digest(tmp_path):
    out = tmp_path / "run"
    problem = ("zoo.problems:rosenbrock", "--x0", "0x4", "--budget", "400", "--seed", "1")
    done = zoo("minimize", *problem, "--out", out)
    assert done.returncode == 0
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["nfev"] == 400
    resumed = zoo("resume", out)
    assert json.loads(resumed.stdout)["x"] == result["x"]
    first = zoo("report", "--digest", out).stdout
    assert first.split()[::2][:1] == ["state"]
    again = tmp_path / "again"
    on_workers = zoo("minimize", *problem, "--out", again, "--workers", "2")
    assert on_workers.returncode == 0
    account = json.loads(on_workers.stdout)["account"]
    assert len(account["busy"]) == 2
    assert account["sent"] > account["received"] > 0
    assert on_workers.stderr.startswith(f"zoo: {account['evaluations']} evaluations, 0 retried, ")
    ended = json.loads((again / "events.jsonl").read_text().splitlines()[-1])
    assert ended["account"] == account
    assert zoo("report", "--digest", again).stdout == first
    assert json.loads(zoo("report", out).stdout)["fun"] == result["fun"]


def test_the_users_own_module_and_a_program(tmp_path):
    (tmp_path / "mine.py").write_text("def loss(x):\n    return float((x * x).sum())\n")
    done = zoo("minimize", "mine:loss", "--x0", "1,2", "--bounds", "-3:3", "--budget", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "loss.py").write_text(
        "while True: print(sum(float(v) ** 2 for v in input().split()), flush=True)\n"
    )
    program = f"{sys.executable} loss.py"
    done = zoo("minimize", "--command", program, "--bounds", "-3:3,-1:1", "--budget", "30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fun"] < 9


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_objective_prints_is_no_result(tmp_path, workers):
    (tmp_path / "loud.py").write_text("def loss(x):\n    print('hello')\n    return float((x * x).sum())\n")
    done = zoo("minimize", "loud:loss", "--x0", "1,2", "--budget", "30", "--workers", workers, cwd=tmp_path)
    assert json.loads(done.stdout)["nfev"] == 30
    assert done.stderr.count("hello") == 30


def test_an_objective_that_fails_is_shown(tmp_path):
    (tmp_path / "bad.py").write_text("def loss(x):\n    return 1 / 0\n")
    done = zoo("minimize", "bad:loss", "--x0", "1,2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 3
    assert "evaluation 0 raised" in done.stderr
    assert "1 / 0" in done.stderr
    assert "cli/app.py" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("minimize", "zoo.problems:sphere", "--x0", "0x3", "--method", "cam"), 2, "Did you mean 'cma'"),
        (("minimize", "zoo.problems:sphere", "--x0", "a,b"), 2, "`--x0` must be numbers"),
        (("minimize", "zoo.problems:sphere", "--bounds", "1"), 2, "`--bounds` must be LOWER:UPPER"),
        (("minimize", "zoo.problems:spher", "--x0", "0x3"), 2, "has no 'spher'. Did you mean 'sphere'"),
        (("minimize", "zoo.problems:sphere", "--x0", "0x3", "--option", "x"), 2, "NAME=VALUE"),
        (
            ("minimize", "zoo.problems:sphere", "--x0", "0x3", "--option", "sigme=1"),
            2,
            "Did you mean 'sigma'",
        ),
        (("resume", "nowhere"), 2, "there is no directory nowhere"),
        (("report", "--digest", "zoo"), 2, "is no run directory"),
        (("minimise",), 2, "There is no command 'minimise'. Did you mean 'minimize'"),
    ],
)
def test_wrong_arguments_are_explained(arguments, status, said):
    done = zoo(*arguments)
    assert said in done.stderr
    assert "Traceback" not in done.stderr.replace("Traceback of the objective", "")
    assert done.returncode == status
    assert done.stdout == ""


def test_version():
    import zoo as package

    assert zoo("--version").stdout.strip() == package.__version__
