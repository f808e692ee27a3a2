"""Progress: what is shown of a federation while it runs, and of one among several."""

from __future__ import annotations

import io
import math
import sys
import time

import pytest
from rich.console import Console

import federated
import zoo
from federated.progress import FederatedTally, Progress

SMALL = {"dim": 6, "num_clients": 3}


class Looking(zoo.Watcher):
    """Looks at a tally after each round."""

    def __init__(self, width=100, height=None, of=None):
        self.width, self.height, self.of = width, height, of
        self.shown, self.lines, self.words = [], [], []

    def begin(self, run):
        self.tally = FederatedTally(run, time.monotonic(), self.of)
        self.look()

    def arrived(self, number):
        self.tally.arrived(number)

    def step(self, state, metrics):
        self.tally.step(state, metrics)
        self.look()

    def end(self, outcome):
        self.tally.end(outcome)
        self.look()

    def look(self):
        now = time.monotonic()
        self.tally.sample(now)
        console = Console(file=io.StringIO(), width=self.width, record=True)
        console.print(self.tally.panel(now, console.options, self.height))
        self.shown.append(console.export_text().splitlines())
        self.lines.append(self.tally.line(now))
        self.words.append(self.tally.words())


def watched(looking, **changes):
    settings = {"task_options": SMALL, "rounds": 3, "rng": 7} | changes
    return federated.federate("quadratic", settings.pop("method", "fedzo"), callback=looking, **settings)


def row(lines, name):
    found = next(line for line in lines if line[2:].startswith(f"{name} "))
    return found.strip("│ ").removeprefix(name).strip()


def test_a_line_says_what_the_history_has():
    looking = Looking()
    found = watched(looking, network={"participation": 2, "latency": 1.0}, target=-5.0)
    first, *rounds, end = looking.lines
    assert (first["round"], first["value"], first["answers"]) == (0, None, None)
    for number, line in enumerate(rounds, 1):
        there = {name: column[number] for name, column in found.history.items()}
        assert (line["round"], line["queries"]) == (number, there["queries"])
        assert (line["up"], line["down"], line["answers"]) == (there["up"], there["down"], 2)
        assert float(line["value"]) == pytest.approx(there["value"], rel=1e-5)
        assert float(line["worst"]) == pytest.approx(there["worst"], rel=1e-5)
        assert float(line["clock"]) == pytest.approx(there["clock"], rel=1e-4)
    assert float(end["best"]) == pytest.approx(found.best, rel=1e-5)
    assert looking.tally.beginning()["clients"] == 3
    assert row(looking.shown[0], "F").startswith("nobody has looked yet")
    assert "fedzo · quadratic · 3 clients · 6 variables" in looking.shown[0][0]
    assert row(looking.shown[2], "round").startswith("2 of 3   2 of 3 clients answered   2 s of the network")
    assert " above the optimum " in row(looking.shown[2], "F")
    assert " target -5" in row(looking.shown[2], "F")
    assert row(looking.shown[2], "bytes").endswith(" up, 192 B down")
    assert row(looking.shown[-1], "ended") == "all 3 rounds are done"
    assert looking.words[2].startswith("round 2, F ")


def test_what_went_wrong_on_the_network_is_said():
    looking = Looking()
    found = watched(looking, network={"dropout": 0.5, "duplicates": 0.5, "latency": 1.0}, rounds=5)
    faults = {name: times for name, times in found.faults.items() if times}
    assert faults.keys() >= {"absent", "duplicates"}
    assert {name: looking.lines[-1][name] for name in faults} == faults
    assert f"{faults['absent']} absent" in row(looking.shown[-1], "round")


def test_it_says_what_was_looked_at_last():
    looking = Looking()
    found = watched(looking, measure_every=2)
    one, two, three, end = looking.lines[1:]
    assert one["value"] is None
    assert two["value"] == three["value"]
    assert math.isnan(found.history["value"][3])
    assert float(end["value"]) == pytest.approx(found.value, rel=1e-5)
    assert float(end["value"]) < float(two["value"])


@pytest.mark.parametrize("width", [20, 45, 60, 100, 140])
def test_it_fits(width):
    looking = Looking(width, height=9)
    watched(looking, traffic=10**6, budget=10**6, method="fzoos")
    for lines in looking.shown:
        assert {len(line) for line in lines} == {min(width, 100)}
        assert len(lines) <= 9


def test_where_a_run_goes_on_it_begins_with_what_was_found(tmp_path):
    def stop(one):
        if one.round == 2:
            raise StopIteration

    watched(stop, out=tmp_path / "run")
    looking = Looking()
    found = federated.resume(tmp_path / "run", callback=looking)
    before = looking.lines[0]
    assert (before["round"], before["answers"]) == (2, 3)
    assert before["queries"] == found.history["queries"][2]
    assert float(before["value"]) == pytest.approx(found.history["value"][2], rel=1e-5)
    assert looking.lines[-1]["round"] == 3


def test_what_is_left():
    looking = Looking()
    watched(looking, traffic=1000)
    tally = looking.tally
    tally.outcome, tally.most_rounds, tally.rounds = None, 12, 3
    tally.most_traffic = None
    assert tally.left(tally.began + 30) == pytest.approx(90.0)
    tally.most_traffic = 2 * (tally.up + tally.down)
    assert tally.left(tally.began + 30) == pytest.approx(30.0)


def test_of_one_among_several_a_line_stays():
    looking = Looking(of="ours, seed 2 (3 of 6)")
    found = watched(looking)
    assert "ours, seed 2 (3 of 6) · quadratic" in looking.shown[0][0]
    (line,) = looking.shown[-1]
    assert line.startswith(
        f"ours, seed 2 (3 of 6)  F {found.value:.6g}  3 rounds, {found.queries:,} queries, "
    )


class Terminal(io.StringIO):
    def isatty(self):
        return False


def test_it_is_silent_where_nobody_reads(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress()
    watched(progress)
    assert sys.stderr.getvalue() == ""
    assert not progress.has_summary


def test_lines_go_to_a_log(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    watched(Progress("lines"))
    begins, ends = sys.stderr.getvalue().splitlines()
    assert " zoo begins method=fedzo task=quadratic clients=3 dim=6 rounds=3 executor=Serial" in begins
    assert " zoo finished method=fedzo round=3 value=" in ends
    assert ' reason="all 3 rounds are done"' in ends
    with pytest.raises(ValueError, match="Did you mean 'panel'"):
        Progress("panle")
