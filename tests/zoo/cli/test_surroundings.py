"""Commands where a stream is closed or full, or the working directory is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

RUN = ("minimize", "zoo.problems:sphere", "--x0", "1x3", "--budget", "60", "--seed", "1", "--out", "run")


def shell(redirection, *arguments, cwd):
    """Run a command as a shell does with this redirection."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m zoo "$@" {redirection}', sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(tmp_path, closed):
    done = shell(closed, *RUN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")
    assert json.loads((tmp_path / "run/result.json").read_text())["nfev"] == 60


def test_a_working_directory_that_is_gone(zoo, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir("gone")
        (tmp_path / "gone").rmdir()
        done = zoo(*RUN)
    assert (done.status, done.out) == (2, "")
    assert done.err == "zoo: the working directory is gone: change to one that is there\n"


def test_errors_and_warnings_are_no_commands_to_the_terminal(zoo, tmp_path):
    (tmp_path / "evil.py").write_text(
        "import warnings\nimport zoo.core.errors\n\ndef loss(x):\n"
        "    warnings.warn('\\x1b[1mtake heed', zoo.core.errors.ZooWarning)\n"
        "    raise ValueError('\\x1b[2J')\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = zoo("minimize", "evil:loss", "--x0", "1x3")
    assert "warning: \N{REPLACEMENT CHARACTER}[1mtake heed" in done.err
    assert "ValueError: \N{REPLACEMENT CHARACTER}[2J" in done.err
    assert "\x1b" not in done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("command", [RUN, ("list", "methods"), ("list", "--json")])
def test_a_full_disk_is_no_wrong_usage(tmp_path, command):
    done = shell("> /dev/full", *command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "zoo: cannot write: [Errno 28] No space left on device\n"
