"""Whole runs on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import textwrap

import pytest

from tests.zoo.progress.runs import Terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pseudo-terminals as Linux has them")


@pytest.fixture
def program(tmp_path):
    """Return what writes a program, and gives the arguments that run it."""

    def write(text):
        path = tmp_path / "program.py"
        path.write_text(
            "import json, os, sys, time\nimport numpy as np\nimport zoo\n" + textwrap.dedent(text)
        )
        return [str(path)]

    return write


def test_panel_while_running_and_summary(program):
    source = """
        def fun(x):
            while not os.path.exists(sys.argv[0] + ".go"):
                time.sleep(0.01)
            return float((x**2).sum())

        result = zoo.minimize(fun, np.ones(3), budget=50, rng=0, callback=zoo.Progress())
        print(json.dumps({"nfev": result.nfev}))
    """
    arguments = program(source)
    with Terminal(arguments) as terminal:
        terminal.wait_for("no value yet")  # while the first evaluation is under way
        assert terminal.screen.lines[-9].startswith("╭─ cma · 3 variables ─")
        assert terminal.screen.lines[-1].startswith("╰─")
        open(arguments[0] + ".go", "w").close()
        code, out = terminal.finish()
    assert code == 0
    assert json.loads(out) == {"nfev": 50}
    assert terminal.screen.is_sane
    lines = terminal.screen.lines
    assert lines[0].startswith("╭─ cma · 3 variables ─")
    assert any("the budget of 50 evaluations is used up" in line for line in lines)
    assert not any("recommended" in line for line in lines)


def test_ctrl_c(program):
    source = """
        try:
            zoo.minimize(lambda x: time.sleep(60), np.ones(3), budget=50, callback=zoo.Progress())
        except KeyboardInterrupt as error:
            sys.exit(f"caught: {error}")
    """
    with Terminal(program(source)) as terminal:
        terminal.wait_for("no value yet")
        terminal.press("\x03")
        code, out = terminal.finish()
    assert (code, out) == (1, "")
    assert terminal.screen.is_sane
    text = terminal.screen.everything
    assert text.startswith("^C\n╭─ cma")
    assert "stopped by Ctrl-C" in text
    assert text.rstrip().endswith("caught: stopped by Ctrl-C")


def test_ctrl_c_twice_where_the_objective_heeds_none(program):
    source = """
        def fun(x):
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass

        zoo.minimize(fun, np.ones(3), budget=50, callback=zoo.Progress())
    """
    with Terminal(program(source)) as terminal:
        terminal.wait_for("no value yet")
        terminal.press("\x03")
        terminal.wait_for("asked again, it ends at once")
        assert terminal.screen.is_sane
        terminal.press("\x03")
        code, _ = terminal.finish()
    assert code == -2
    assert terminal.screen.is_sane


SLOW = "zoo.minimize(lambda x: time.sleep(600), np.ones(3), budget=50, callback=zoo.Progress())"


@pytest.mark.parametrize("how", ["key", "kill"])
def test_suspended(program, how):
    with Terminal(program(SLOW)) as terminal:
        for _ in range(2):
            terminal.wait_for("no value yet")
            if how == "key":
                terminal.press("\x1a")
            else:
                terminal.process.send_signal(signal.SIGTSTP)
            terminal.wait_until_sane()
            os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)
            assert "no value yet" not in "".join(terminal.screen.lines)
            terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for("no value yet")
        terminal.press("\x03")
        assert terminal.finish()[0] == 1
    assert terminal.screen.is_sane


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL, signal.SIGSEGV])
def test_ended_at_once(program, number):
    with Terminal(program(SLOW)) as terminal:
        terminal.wait_for("no value yet")
        assert not terminal.screen.is_sane
        if number == signal.SIGQUIT:
            terminal.press("\x1c")
        else:
            terminal.process.send_signal(number)
        code, _ = terminal.finish()
    assert code == -number
    assert terminal.screen.is_sane
    assert "no value yet" not in "".join(terminal.screen.lines)


def test_ctrl_z_is_as_it_was_after_a_run(program):
    source = """
        import signal

        zoo.minimize(lambda x: time.sleep(0.01) or x @ x, np.ones(3), budget=50, callback=zoo.Progress())
        print(signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL)
    """
    with Terminal(program(source)) as terminal:
        assert terminal.finish() == (0, "True\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_objective_prints(program, workers):
    source = f"""
        def fun(x):
            number = int(abs(x[0]) * 1e9)
            sys.stderr.write(f"out {{number}}\\n")
            os.write(2, f"raw {{number}}\\n".encode())
            time.sleep(0.01)
            return float((x**2).sum())

        result = zoo.minimize(fun, np.ones(3), budget=100, rng=0, workers={workers}, callback=zoo.Progress())
        print(result.nfev)
    """
    with Terminal(program(source)) as terminal:
        code, out = terminal.finish()
    assert (code, out) == (0, "100\n")
    assert terminal.screen.is_sane
    lines = terminal.screen.everything.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("╭"))
    assert start == 200
    assert [line for line in lines[:200] if not re.fullmatch(r"(out|raw) \d+", line)] == []
    assert "recommended" in terminal.raw  # there was a panel meanwhile


def test_no_colours(program):
    source = """
        zoo.minimize(lambda x: time.sleep(0.01) or x @ x, np.ones(3), budget=50, callback=zoo.Progress())
    """
    with Terminal(program(source), NO_COLOR="1") as terminal:
        assert terminal.finish()[0] == 0
    assert not re.search(r"\x1b\[[\d;]*(3\d|9\d)m", terminal.raw)
    with Terminal(program(source)) as terminal:
        assert terminal.finish()[0] == 0
    assert re.search(r"\x1b\[[\d;]*(3\d|9\d)m", terminal.raw)


def test_error_on_its_way(program):
    source = """
        def fun(x):
            time.sleep(0.05)
            return float((x**2).sum())

        def leave(intermediate_result):
            if intermediate_result.nfev > 20:
                sys.exit("leaving")

        zoo.minimize(fun, np.ones(3), budget=500, callback=[leave, zoo.Progress()])
    """
    with Terminal(program(source)) as terminal:
        code, _ = terminal.finish()
    assert code == 1
    assert terminal.screen.is_sane
    assert terminal.screen.everything.strip() == "leaving"


def test_resumed(program, tmp_path):
    source = f"""
        pause = 0

        def fun(x):
            time.sleep(pause)
            return float((x**2).sum())

        def stop(intermediate_result):
            if intermediate_result.nfev >= 70:
                raise StopIteration

        arguments = dict(budget=100, rng=0, out={str(tmp_path / "run")!r})
        zoo.minimize(fun, np.ones(3), **arguments, callback=stop)
        pause = 0.05
        zoo.minimize(fun, np.ones(3), **arguments, callback=zoo.Progress())
    """
    with Terminal(program(source)) as terminal:
        terminal.wait_for("found earlier")
        assert " of 100 " in "".join(terminal.screen.lines)
        assert terminal.finish()[0] == 0
    assert "100   in " in terminal.screen.everything


def test_tiny_terminal(program):
    source = """
        zoo.minimize(lambda x: time.sleep(0.01) or x @ x, np.ones(3), budget=50, callback=zoo.Progress())
    """
    with Terminal(program(source), columns=40, rows=5) as terminal:
        assert terminal.finish()[0] == 0
    assert terminal.screen.is_sane
    assert "evals" in terminal.screen.everything
