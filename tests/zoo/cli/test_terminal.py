"""What people see on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parents[3]


def terminal(*arguments, cwd, columns=100, until=None, then=None):
    """Run a command on a terminal; send a signal once something is read.

    Returns:
        Its exit status, and what it wrote without colours and the like.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("CI", "COLUMNS", "NO_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while data := os.read(ours, 1 << 16):
            said += data
            if until is not None and until in said:
                process.send_signal(then)
                until = None
    os.close(ours)
    status = process.wait(timeout=60)
    return status, re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])", "", said.decode()).replace("\r", "")


def test_a_result_for_people(tmp_path):
    arguments = ("minimize", "zoo.problems:sphere", "--x0", "1x20", "--budget", "300", "--seed", "1")
    status, said = terminal(*arguments, "--out", "a run", "--progress", "none", cwd=tmp_path)
    result = json.loads((tmp_path / "a run/result.json").read_text())
    assert status == 0
    assert "Ended: the budget of 300 evaluations is used up." in said
    assert f"  value        {result['fun']:.10g}" in said
    assert "... (20 variables)" in said
    assert "300 in" in said
    assert "`zoo report 'a run'`" in said
    status, said = terminal(*arguments, cwd=tmp_path)
    assert "Nothing is kept: with --out runs/NAME" in said
    assert "Ended:" not in said, "the panel has said it"
    status, said = terminal(*arguments, "--json", "--progress", "none", cwd=tmp_path)
    assert json.loads(said)["x"] == result["x"]


def test_ctrl_c_says_how_to_go_on(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\n\ndef loss(x):\n    time.sleep(0.01)\n    return float((x * x).sum())\n"
    )
    arguments = ("minimize", "slow:loss", "--x0", "1x3", "--out", "runs/x", "--progress", "panel")
    status, said = terminal(*arguments, cwd=tmp_path, until=b"evaluations", then=signal.SIGINT)
    assert status == 130
    assert re.search(r"zoo: stopped by Ctrl-C after \d+ evaluations", said)
    assert "zoo: `zoo resume runs/x` goes on" in said
    status, said = terminal(
        "minimize", "slow:loss", "--x0", "1x3", cwd=tmp_path, until=b"evaluations", then=15
    )
    assert status == 143
    assert "nothing is kept; --out DIRECTORY keeps a run" in said


def test_tables_fit(tmp_path):
    for columns, what in ((60, "methods"), (60, "problems"), (60, "cma"), (110, "methods")):
        status, said = terminal("list", what, cwd=tmp_path, columns=columns)
        assert status == 0
        assert max(map(len, said.splitlines())) <= columns
        assert "Options, as in --option" in said or what != "cma"


def test_a_bench_for_people(tmp_path):
    arguments = (
        "bench",
        "sphere",
        "--dim",
        "2",
        "--budget",
        "200",
        "--method",
        "random,lbfgs",
        "--seeds",
        "2",
    )
    status, said = terminal(*arguments, cwd=tmp_path)
    assert status == 0
    assert re.search(r"1 +lbfgs .* 2/2 .*\n +2 +random .* 0/2 ", said)
    assert "`zoo compare runs/bench/sphere`" in said


def test_a_dry_run_in_colours(tmp_path):
    (tmp_path / "some.toml").write_text('objective = {function = "zoo.problems:sphere", x0 = "0x3"}\n')
    status, said = terminal("run", "some.toml", "--dry-run", cwd=tmp_path)
    assert status == 0
    assert 'function = "zoo.problems:sphere"' in said


def test_what_no_panel_has_said_is_printed(tmp_path):
    run = ("minimize", "zoo.problems:sphere", "--x0", "1x3", "--budget", "60", "--seed", "1", "--out", "run")
    assert "Ended:" not in terminal(*run, cwd=tmp_path)[1]
    status, said = terminal("resume", "run", cwd=tmp_path)
    assert status == 0
    assert "Ended: the budget of 60 evaluations is used up." in said
    assert "60 in" in said
