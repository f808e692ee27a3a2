"""Runs that are made up, and real ones on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.zoo.progress.screen import Screen
from zoo.execution.ledger import Account
from zoo.progress.tally import Tally
from zoo.run.loop import Run, Stop
from zoo.run.watching import Beginning

BEGAN = 1000.0
DIAGNOSTICS = {"sigma": 0.25, "axis_ratio": 12.5, "weights": np.ones(3), "small": False}


class Clock:
    """Stands for the module `time` where progress reads it, and is set by hand."""

    now = BEGAN

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()


class MadeUp:
    """A run of which every number can be chosen."""

    def __init__(self, dim=3, space=None, account=None, target=None, seconds=None, path=None, execution=None,
                 state=None, point=None, **config):  # fmt: skip
        self.point = np.arange(dim) / 4 if point is None else point
        optimizer = SimpleNamespace(recommend=lambda _: self.point)
        self.job = SimpleNamespace(account=account or Account(), optimizer=optimizer)
        self.state = SimpleNamespace(
            **{"nfev": 0, "step": 0, "fun_best": float("inf"), "violation_best": 0.0, "num_failed": 0,
               "num_final": 0, "front": None, "x": None, "x_best": None, "optimizer": None, **(state or {})}
        )  # fmt: skip
        config = {"method": "cma", "dim": dim, "budget": 1000, "space": space, **config}
        about = Beginning(
            config, execution or {"executor": "Serial"}, self.job, self.state, Stop(target, seconds), path
        )
        self.tally = Tally(about, BEGAN)

    def step(self, nfev, best, failed=0, diagnostics=DIAGNOSTICS, **changes):
        self.state.__dict__.update(nfev=nfev, fun_best=best, step=self.state.step + 1, **changes)
        metrics = {"step": self.state.step, "nfev": nfev, "best": best, "value": best, "failed": failed}
        self.tally.step(self.state, metrics | diagnostics)
        self.tally.recommend()

    def end(
        self, status="finished", reason="the budget of 1000 evaluations is used up", seconds=4.0, **changes
    ):
        self.state.__dict__.update(changes)
        self.tally.end(Run(self.state, reason, status, seconds=seconds))


class Terminal:
    """A program whose standard input and error are a terminal, and its standard output a pipe."""

    def __init__(self, arguments: list[str], columns=80, rows=24, **environment: str) -> None:
        self.screen = Screen(columns, rows)
        self.raw = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        # As a shell does it: a session of its own, so that Ctrl-C there means this program.
        start = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        inherited = {name: text for name, text in os.environ.items() if name not in ("CI", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, sys.executable, *arguments],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
            cwd=Path(__file__).parents[3],
            env={**inherited, "TERM": "xterm-256color", **environment},
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._master)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text stands on the screen."""
        deadline = time.monotonic() + 60
        while text not in "\n".join(self.screen.lines):
            assert time.monotonic() < deadline, "\n".join(self.screen.lines)
            assert self._read(), "\n".join(self.screen.lines)

    def wait_until_sane(self) -> None:
        """Read until all of the screen scrolls and there is a cursor."""
        deadline = time.monotonic() + 20
        while not self.screen.is_sane:
            assert time.monotonic() < deadline, "\n".join(self.screen.lines)
            self._read()

    def finish(self) -> tuple[int, str]:
        """Read to the end; return the exit code and what came on standard output."""
        deadline = time.monotonic() + 60
        while self._read():
            assert time.monotonic() < deadline, "\n".join(self.screen.lines)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 60)
        assert ready, "\n".join(self.screen.lines)
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the program is gone
            return False
        self.raw += data.decode(errors="replace")
        self.screen.feed_bytes(data)
        return bool(data)
