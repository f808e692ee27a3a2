"""Which display there is where, and those that are no panel."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.zoo.progress.runs import BEGAN, MadeUp
from zoo.execution.ledger import Account
from zoo.progress.lines import LinesDisplay

RUN = "import zoo, numpy as np; print(zoo.minimize(lambda x: x @ x, np.ones(3), budget=50, rng=0, {}).nfev)"


def sphere(x):
    return float(x @ x)


def run(callback="callback=zoo.Progress()", stderr=subprocess.PIPE, **environment):
    inherited = {name: text for name, text in os.environ.items() if name != "CI"}
    return subprocess.run(
        [sys.executable, "-c", RUN.format(callback)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**inherited, **environment},
        cwd=Path(__file__).parents[3],
        timeout=100,
        check=True,
    )


def shown(mode="auto"):
    """Return how a run ended, and what came on standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        result = zoo.minimize(sphere, np.ones(3), budget=50, rng=0, callback=zoo.Progress(mode))
    return result, stream.getvalue()


def test_nothing_into_a_pipe():
    done = run()
    assert (done.stdout, done.stderr) == ("50\n", "")


@pytest.mark.parametrize("environment", [{}, {"CI": "true"}])
def test_lines_into_a_file(tmp_path, environment):
    with open(tmp_path / "log", "w") as log:
        assert run(stderr=log, **environment).stdout == "50\n"
    first, last = (tmp_path / "log").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d zoo"
    assert re.fullmatch(f"{stamp} begins method=cma dim=3 budget=50 executor=Serial", first)
    pattern = rf"{stamp} finished method=cma nfev=50 best=\S+ found=\d+ step_size=\S+ seconds=0 rate=\S+"
    assert re.fullmatch(f'{pattern} reason="the budget of 50 evaluations is used up"', last)


@pytest.mark.parametrize(
    ("mode", "text"), [("none", ""), ("lines", "zoo begins method=cma"), ("bar", "cma: 100%")]
)
def test_modes_that_are_forced(mode, text):
    _, found = shown(mode)
    assert text in found
    assert bool(found) == bool(text)


def test_panel_that_is_forced():
    assert "╭─ cma · 3 variables" in run("callback=zoo.Progress('panel')", COLUMNS="60").stderr


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"must be one of .* got 'pannel'\. Did you mean 'panel'\?"):
        zoo.Progress("pannel")


class Fake(io.StringIO):
    """A stream that claims to be a terminal or a file."""

    def __init__(self, descriptor):
        super().__init__()
        self._descriptor = descriptor

    def fileno(self):
        return self._descriptor

    def isatty(self):
        return os.isatty(self._descriptor)


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({"TERM": "xterm"}, "panel"),
        ({"TERM": "dumb"}, "lines"),
        ({"TERM": "xterm", "CI": "true"}, "none"),
        ({"TERM": "xterm", "CI": "false"}, "panel"),
    ],
)
def test_terminals(monkeypatch, environment, mode):
    monkeypatch.delenv("CI", raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    master, slave = os.openpty()
    assert zoo.progress.chosen(Fake(slave)) == mode
    os.close(master)
    os.close(slave)


def test_streams_that_are_no_files():
    closed = io.StringIO()
    closed.close()
    assert [zoo.progress.chosen(stream) for stream in (None, io.StringIO(), closed)] == ["none"] * 3


@pytest.fixture
def notebook(monkeypatch):
    shell = types.SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


@pytest.mark.usefixtures("notebook")
def test_bar_in_a_notebook(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **arguments):
            self.arguments, self.n, self.closed = arguments, arguments["initial"], False
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.postfix = text

        def refresh(self):
            pass

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "ipywidgets", types.ModuleType("ipywidgets"))
    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm=Bar))
    result, _ = shown()
    (bar,) = bars
    assert (bar.arguments["total"], bar.arguments["desc"]) == (50, "cma")
    assert bar.n == result.nfev == 50
    assert bar.closed
    assert bar.total == 50
    assert bar.postfix.startswith(f"best {result.fun:.5g}, step size ")


@pytest.mark.usefixtures("notebook")
def test_notebook_without_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    _, text = shown()
    assert "cma: 100%" in text
    assert "| 50/50 " in text


@pytest.mark.usefixtures("notebook")
def test_notebook_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.std", None)
    result, text = shown()
    assert text.endswith("\n")
    assert f"cma: 50 of 50 in 0:00, best {result.fun:.5g}, step size " in text.split("\r")[-1]


def test_lines_of_a_week(clock):
    made = MadeUp(budget=None, account=Account(restarts=1))
    stream = io.StringIO()
    display = LinesDisplay(made.tally, stream)
    waits, week = [], 7 * 24 * 3600
    while clock.now - BEGAN < week:
        made.step(int(clock.now - BEGAN) + 1, 1.0)
        display.look()
        waits.append(display._tick())
        clock.now += waits[-1]
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(waits) < 400
    assert (min(waits), max(waits)) == (10.0, 1800.0)
    assert waits == sorted(waits)
    assert lines[-1].endswith(" seconds=603891 rate=1/s restarted=1")


def test_a_mean_of_fresh_values_was_found_nowhere(clock):
    stream, made = io.StringIO(), MadeUp(noise=True)
    made.step(50, 0.001)
    display = LinesDisplay(made.tally, stream)
    display._tick()
    assert "best=0.001 found=50" in stream.getvalue()
    made.end(x=np.zeros(3), fun=0.5, fun_error=0.25)
    display.end()
    assert "best=0.5 step_size" in stream.getvalue().splitlines()[-1]


def test_a_full_disk():
    class Full(Fake):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with contextlib.redirect_stderr(Full(2)):
        assert zoo.minimize(sphere, np.ones(3), budget=50, rng=0, callback=zoo.Progress("lines")).nfev == 50


@contextlib.contextmanager
def terminal():
    """Make standard error a terminal; yield what reads all that was written there."""
    master, slave = os.openpty()
    with open(slave, "w") as stream, contextlib.redirect_stderr(stream):
        yield lambda: os.read(master, 1 << 16).decode()
    os.close(master)


def test_failing_look_leaves_the_terminal(monkeypatch):
    """Whatever goes wrong here is a warning, and the terminal is given back."""

    def recommend(self):
        raise RuntimeError("it went wrong")

    with terminal() as read:
        with monkeypatch.context() as patched:
            patched.setattr("zoo.progress.tally.Tally.recommend", recommend)
            with pytest.warns(zoo.ZooWarning, match="Progress failed and watches this run no longer"):
                zoo.minimize(sphere, np.ones(3), budget=50, rng=0, callback=zoo.Progress("panel"))
        zoo.minimize(sphere, np.ones(3), budget=50, rng=0, callback=zoo.Progress("panel"))
        assert "used up" in read()


def test_failing_picture_leaves_the_terminal(monkeypatch):
    """A failure of the thread is one of the watcher."""

    def slow(x):
        time.sleep(0.01)
        return sphere(x)

    def tick(self):
        raise RuntimeError("it went wrong")

    with terminal():
        monkeypatch.setattr("zoo.progress.terminal.PanelDisplay._tick", tick)
        with pytest.warns(zoo.ZooWarning, match="RuntimeError: it went wrong"):
            zoo.minimize(slow, np.ones(3), budget=100, rng=0, callback=zoo.Progress("panel"))


def test_in_the_background(monkeypatch):
    """The terminal is somebody else's there."""
    with terminal() as read:
        with monkeypatch.context() as patched:
            patched.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)
            zoo.minimize(
                sphere, np.ones(3), budget=50, rng=0, method="random", callback=zoo.Progress("panel")
            )
        zoo.minimize(sphere, np.ones(3), budget=50, rng=0, method="cma", callback=zoo.Progress("panel"))
        text = read()
    assert "cma" in text
    assert "random" not in text


def test_run_inside_a_run():
    """The terminal belongs to the outer one."""

    def outer(x):
        inner = zoo.minimize(sphere, x, budget=20, rng=0, method="random", callback=zoo.Progress("panel"))
        return inner.fun

    with terminal() as read:
        zoo.minimize(outer, np.ones(3), budget=20, rng=0, method="cma", callback=zoo.Progress("panel"))
        text = read()
    assert "cma" in text
    assert "random" not in text


def test_it_changes_nothing(tmp_path):
    with open(tmp_path / "log", "w") as log, contextlib.redirect_stderr(log):
        watched = zoo.minimize(sphere, np.ones(3), budget=60, rng=3, callback=zoo.Progress("lines"))
    alone = zoo.minimize(sphere, np.ones(3), budget=60, rng=3)
    assert watched.x.tobytes() == alone.x.tobytes()


def test_it_draws_from_no_global_generator():
    """Not even where it is the first one to import what does."""
    code = f"import random; before = random.getstate(); {RUN}; print(random.getstate() == before)"
    done = subprocess.run(
        [sys.executable, "-c", code.format("callback=zoo.Progress('panel')")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=100,
        check=True,
    )
    assert done.stdout == "50\nTrue\n"
