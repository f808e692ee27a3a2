"""What the panel says, and that it fits."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import zoo
from tests.zoo.progress.runs import BEGAN, CLOCK, MadeUp
from zoo.execution.ledger import Account
from zoo.progress.bar import BarDisplay
from zoo.progress.lines import LinesDisplay
from zoo.progress.panel import drawn, past_of
from zoo.progress.terminal import PanelDisplay

pytestmark = pytest.mark.usefixtures("clock")


def lines_of(made, now=10.0, width=80, height=None):
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(drawn(made.tally, BEGAN + now, console.options, height))
    return console.export_text().splitlines()


def row(lines, name):
    found = next(line for line in lines if line[2:].startswith(f"{name} "))
    return found.strip("│ ").removeprefix(name).strip()


def steady(made, num_steps=40, rate=10, path=lambda i: 1000 * 0.8**i):
    """Let a run go on for a second a step."""
    for i in range(num_steps):
        CLOCK.now = BEGAN + i + 1
        made.step(rate * (i + 1), path(i))
        made.tally.sample(BEGAN + i + 1)


@pytest.mark.parametrize("width", [20, 31, 40, 59, 60, 80, 120, 300])
def test_it_fits(width):
    account = Account(retries=12345, lost=23456, restarts=34567, quarantined=45678)
    execution = {"executor": "Processes", "num_workers": 1000}
    made = MadeUp(
        dim=10**6, path=Path("runs") / ("long" * 40), account=account, execution=execution,
        budget=10**9, target=1e-300, method="method-of-a-very-long-name" * 3,
    )  # fmt: skip
    for now in (0.0, 50.0):
        for height in (None, 3, 7):
            lines = lines_of(made, now, width, height)
            assert {len(line) for line in lines} == {min(width, 100)}
            assert height is None or len(lines) <= height
        steady(made)
    made.end("failed", "evaluation 7 raised: " + "a long story " * 100 + "\nwith lines", x=np.zeros(10**6))
    assert {len(line) for line in lines_of(made, 50.0, width)} == {min(width, 100)}


def test_before_the_first_value():
    made = MadeUp()
    lines = lines_of(made)
    assert row(lines, "best") == "no value yet"
    assert row(lines, "recommended") == "nothing yet"
    assert "0 of 1,000   0 %" in row(lines, "evaluations")
    assert "left" not in "".join(lines)
    assert row(lines, "time") == "0:10   step 0"
    made.step(5, float("inf"), failed=5)
    made.tally.arrived(2)
    lines = lines_of(made)
    assert row(lines, "best") == "no value yet"
    assert row(lines, "workers") == "this process   5 failed"
    assert row(lines, "time").endswith("step 1 + 2 evaluations")
    assert "7 of 1,000" in row(lines, "evaluations")


def test_under_way():
    execution = {"executor": "Processes", "num_workers": 2}
    account = Account(retries=1, lost=2, restarts=3, quarantined=4)
    made = MadeUp(path=Path("runs/first"), execution=execution, account=account, target=1e-9)
    steady(made)
    lines = lines_of(made, 42.5)
    assert lines[0].startswith("╭─ cma · 3 variables · runs/first ─")
    assert row(lines, "best") == "0.1661535   found at 400   0:02 ago   target 1e-09"
    assert row(lines, "recommended") == "0, 0.25, 0.5"
    assert row(lines, "evaluations") == "━" * 12 + "─" * 18 + "   400 of 1,000   40 %"
    assert row(lines, "time").startswith("0:42   at most 1:")
    assert row(lines, "step size") == "0.25   axis ratio 12.5   small no"
    assert row(lines, "workers") == "2 processes   4 quarantined   2 lost   3 restarted   1 retried"
    assert row(lines, "history").endswith("1e+03 to 0.166 (log)")
    assert "█" in row(lines, "history")


def test_all_of_the_budget():
    made = MadeUp()
    made.step(1000, 1.0)
    assert row(lines_of(made), "evaluations") == "━" * 30 + "   1,000 of 1,000   100 %"


def test_narrow():
    made = MadeUp()
    steady(made)
    lines = lines_of(made, 40.0, 40)
    assert [line[2:8].strip() for line in lines[1:-1]] == [
        "best",
        "x",
        "evals",
        "time",
        "size",
        "work",
        "past",
    ]
    assert row(lines, "best") == "0.1661535  found at 400"
    assert row(lines, "evals") == "400 of 1,000  40 %"


def test_low():
    made = MadeUp()
    steady(made)
    assert [line[2:9].strip() for line in lines_of(made, height=5)[1:-1]] == ["best", "evaluat", "time"]


def test_ascii():
    made = MadeUp()
    steady(made)
    master, slave = os.openpty()
    with open(slave, "w", encoding="ascii") as stream:
        lines = PanelDisplay(made.tally, stream)._lines(80, None)
    os.close(master)
    text = "\n".join(lines)
    assert text.isascii()
    assert "============------------------   400 of 1,000" in re.sub("\x1b[^m]*m", "", text)
    assert "history" not in text


def test_points_of_a_space():
    space = zoo.Space({"rate": zoo.Float(0.0, 1.0), "kernel": zoo.Categorical(["linear", "rbf", "poly"])})
    made = MadeUp(dim=space.dim, space=space.describe(), point=space.encode({"rate": 0.25, "kernel": "rbf"}))
    made.step(10, 1.0)
    lines = lines_of(made)
    assert "cma · 2 variables" in lines[0]
    assert row(lines, "recommended") == "rate 0.25, kernel rbf"


EVIL = "\x1b[2J\x1b[31mrbf\n\x9bH"


def test_names_are_no_commands_to_the_terminal():
    space = zoo.Space({EVIL: zoo.Float(0.0, 1.0), "kernel": zoo.Categorical(["linear", EVIL])})
    point = space.encode({EVIL: 0.25, "kernel": EVIL})
    made = MadeUp(dim=space.dim, space=space.describe(), point=point, path=Path(EVIL), method=EVIL)
    made.step(50, 0.5, diagnostics={EVIL: 1.0})
    made.end("failed", f"raised {EVIL}", x=point)
    text = "\n".join(lines_of(made))
    assert "[2J\N{REPLACEMENT CHARACTER}[31mrbf" in text
    assert text.replace("\n", "").isprintable()
    for display in (LinesDisplay, lambda *arguments: BarDisplay(*arguments, False)):
        stream = io.StringIO()
        shown = display(made.tally, stream)
        shown.end()
        assert stream.getvalue().strip().isprintable()
        assert "[2J" in stream.getvalue()


def test_many_variables():
    made = MadeUp(dim=10**6)
    made.step(10, 1.0)
    assert row(lines_of(made), "recommended").endswith(", … 1,000,000 in all")


def test_method_without_a_step_size():
    made = MadeUp()
    made.step(10, 1.0, diagnostics={"restarts": 2})
    assert row(lines_of(made), "method") == "restarts 2"
    made.step(20, 1.0, diagnostics={})
    assert not [line for line in lines_of(made) if "method" in line or "step size" in line]


def test_numbers_that_are_none():
    made = MadeUp()
    made.step(10, 1.0, diagnostics={"sigma": float("nan"), "noise": float("inf"), "none": None})
    assert row(lines_of(made), "step size") == "nan   noise inf"


def test_constraints_and_several_objectives():
    made = MadeUp()
    made.step(10, 1.0, violation_best=0.25, front=(np.zeros((7, 3)), np.zeros((7, 2))))
    shown = row(lines_of(made), "best")
    assert shown.startswith("1   violates constraints by 0.25   7 best compromises")


def test_resumed():
    made = MadeUp(state={"nfev": 500, "step": 50, "fun_best": 0.5, "num_failed": 3})
    lines = lines_of(made)
    assert row(lines, "best") == "0.5   found earlier"
    assert "500 of 1,000   50 %" in row(lines, "evaluations")
    assert row(lines, "workers") == "this process   3 failed"
    made.step(510, 0.5)
    assert made.tally.rate(BEGAN + 10) == 1.0  # of this process
    assert row(lines_of(made), "best") == "0.5   found earlier"


def test_noise():
    made = MadeUp(noise=True)
    made.step(10, 0.01)
    assert "a lucky value, under noise" in row(lines_of(made), "best")
    made.end(x=np.zeros(3), fun=0.5, fun_error=0.012, violation=0.0)
    assert row(lines_of(made), "best") == "0.5   ± 0.012   mean of fresh values"
    made = MadeUp(noise=True)
    made.step(10, 0.01)
    made.end("interrupted", "stopped by Ctrl-C")
    assert row(lines_of(made), "best") == "0.01   a lucky value, under noise   found at 10"


@pytest.mark.parametrize("width", [40, 80])
def test_end(width):
    made = MadeUp(account=Account(restarts=2))
    steady(made)
    made.end(seconds=80.0, x=np.ones(3), fun=0.1, violation=0.0, num_final=1)
    lines = lines_of(made, 80.0, width)
    text = "\n".join(lines)
    assert row(lines, "best").startswith("0.1661535")
    assert "1, 1, 1" in text
    assert "401" in text
    assert "in 1:20" in text
    assert "2 restarted" in text
    assert "used up" in text


def test_end_without_a_value():
    made = MadeUp()
    made.step(1000, float("inf"), failed=1000)
    made.end(x=None)
    assert row(lines_of(made), "best") == "no evaluation had a value"
    assert row(lines_of(made), "at") == "nothing yet"


def test_time_left():
    made = MadeUp(budget=None)
    steady(made)
    assert made.tally.left(BEGAN + 40) is None
    assert MadeUp(seconds=60.0).tally.left(BEGAN + 40) == pytest.approx(20)
    made = MadeUp()
    assert made.tally.left(BEGAN + 40) is None  # nothing has come in
    made.tally.arrived(2)
    assert made.tally.left(BEGAN + 40) is None  # nor does this say much
    steady(made)
    assert made.tally.left(BEGAN + 40) == pytest.approx(60)
    made.tally.arrived(500)
    assert made.tally.left(BEGAN + 40) < 15


def test_time_to_the_target():
    def to_target(target, path):
        made = MadeUp(target=target)
        steady(made, 80, path=path)
        return made.tally.to_target(BEGAN + 80)

    assert to_target(1000 * 0.8**160, lambda i: 1000 * 0.8**i) == pytest.approx(80, rel=0.05)
    assert to_target(0.0, lambda i: 1000 * 0.8**i) is None  # nothing falls exponentially to 0 in finite time
    assert to_target(-1.0, lambda i: 50 - i) is None
    assert to_target(1e-9, lambda i: 1 + 1000 * 0.8**i) is None  # it is stuck at 1


def test_rate_is_of_late():
    made = MadeUp()
    for i in range(100):
        made.step(100 * (i + 1), 1.0)
        made.tally.sample(BEGAN + i + 1)
    for i in range(100):
        made.step(10000 + i + 1, 1.0)
        made.tally.sample(BEGAN + 101 + i)
    assert made.tally.rate(BEGAN + 200) == pytest.approx(1.0)


def test_memory_is_bounded():
    made = MadeUp()
    steady(made, 5000)
    assert len(made.tally._counts) <= 256
    assert len(made.tally._bests) <= 256
    assert made.tally.past(BEGAN + 5000, 10)[-1] == made.tally.best


@pytest.mark.parametrize(
    ("values", "words"),
    [([None, None], "nothing yet"), ([None, -3.0, -3.0], "-3 so far")],
    ids=["none", "one"],
)
def test_a_history_without_a_change_says_what_there_is(values, words):
    tally = SimpleNamespace(past=lambda now, room: values, outcome=None)
    assert past_of(tally, 0.0, 40) == [(words, "dim")]
    tally.outcome = "ended"
    assert past_of(tally, 0.0, 40) == []
