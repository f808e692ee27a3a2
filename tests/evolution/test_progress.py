"""Progress: what is shown of a run, with scores that are returns."""

from __future__ import annotations

import io
import math
import os
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

import evolution
import zoo
from evolution.job import history_of
from evolution.progress import EvolutionTally, Progress

SMALL = {"population_size": 12, "num_parents": 4, "sigma": 0.3, "elite_candidates": 2, "elite_episodes": 3}


class Looking(zoo.Watcher):
    """Looks at a tally after each step."""

    def __init__(self, width=80, height=None):
        self.width, self.height = width, height
        self.shown, self.lines, self.states = [], [], []

    def begin(self, run):
        self.tally = EvolutionTally(run, time.monotonic())
        self.look(run.state)

    def arrived(self, number):
        self.tally.arrived(number)

    def step(self, state, metrics):
        self.tally.step(state, metrics)
        self.look(state)

    def end(self, outcome):
        self.tally.end(outcome)
        self.look(outcome.state)

    def look(self, state):
        now = time.monotonic()
        self.tally.sample(now)
        console = Console(file=io.StringIO(), width=self.width, record=True)
        console.print(self.tally.panel(now, console.options, self.height))
        self.shown.append(console.export_text().splitlines())
        self.lines.append(self.tally.line(now))
        self.states.append(state)


def watched(looking, **changes):
    settings = {"options": SMALL, "generations": 3, "test_episodes": 4, "rng": 7, "score": 10_000} | changes
    return evolution.evolve("cart-pole", settings.pop("method", "deep-ga"), callback=looking, **settings)


def row(lines, name):
    found = next(line for line in lines if line[2:].startswith(f"{name} "))
    return found.strip("│ ").removeprefix(name).strip()


def test_scores_are_returns():
    looking = Looking(width=100)
    found = watched(looking)
    first, *steps, end = looking.lines
    assert first["best"] is None
    assert first["generation"] == 0
    for line, state in zip(steps, looking.states[1:], strict=False):
        own = {name: column[-1] for name, column in history_of(state).items()}
        assert line["episodes"] == own["episodes"]
        assert line["frames"] == own["frames"]
        if own["retrial"]:
            assert float(line["best"]) == pytest.approx(own["best"], rel=1e-5)
        else:
            assert float(line["highest"]) == pytest.approx(own["highest"], rel=1e-4)
            assert float(line["median"]) == pytest.approx(own["median"], rel=1e-4)
    assert [line["generation"] for line in steps] == [1, 1, 2, 2, 3, 3]
    assert float(end["best"]) == pytest.approx(found.score, rel=1e-5)
    assert end["episodes"] == found.episodes + 4
    assert row(looking.shown[0], "best").startswith("none evaluated again yet")
    assert "deep-ga · cart-pole · 226 parameters" in looking.shown[0][0]
    assert row(looking.shown[2], "generation").endswith("best evaluated again")
    assert " wanted 10000" in row(looking.shown[2], "best")
    assert "mean of fresh episodes" in row(looking.shown[-1], "score")
    assert row(looking.shown[-1], "ended") == "all 3 generations are done"


@pytest.mark.parametrize("width", [20, 45, 60, 100, 140])
def test_it_fits(width):
    looking = Looking(width, height=9)
    watched(looking, method="novelty-ga", options={**SMALL, "elite_candidates": 0}, budget=10**6)
    for lines in looking.shown:
        assert {len(line) for line in lines} == {min(width, 100)}
        assert len(lines) <= 9


def test_where_a_run_goes_on_it_begins_with_what_was_found(tmp_path):
    def stop(generation):
        if generation.generation == 2:
            raise StopIteration

    evolution.evolve("cart-pole", options=SMALL, generations=3, rng=7, callback=stop, out=tmp_path / "run")
    looking = Looking()
    found = evolution.resume(tmp_path / "run", callback=looking)
    before = looking.lines[0]
    assert before["generation"] == 2
    assert before["frames"] == found.history["frames"][2]
    assert float(before["best"]) == pytest.approx(found.history["best"][2], rel=1e-5)
    assert looking.lines[-1]["generation"] == 3


def test_frames_a_second_and_what_is_left():
    looking = Looking()
    watched(looking, generations=2)
    tally = looking.tally
    tally.outcome = None
    tally.began, tally.first, tally.first_frames = 100.0, 0, 0
    tally.pending, tally.budget, tally.most_frames, tally.most_generations = 0, None, 1000, None
    tally.frames, tally._frame_counts = 400, [(100.0, 0), (110.0, 400)]
    tally._counts, tally.nfev = [(100.0, 0), (110.0, 40)], 40
    assert tally.frame_rate(110.0) == 40.0
    assert tally.left(110.0) == 15.0
    tally.most_frames, tally.most_generations, tally.generations = None, 8, 2
    assert tally.left(110.0) == 30.0
    tally.most_generations = None
    assert tally.left(110.0) is None


def test_it_is_silent_in_a_pipe(monkeypatch):
    ends = os.pipe()
    with open(ends[0], "rb") as reader, open(ends[1], "w") as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        watched(Progress(), generations=1)
        writer.close()
        assert reader.read() == b""


def test_lines_and_a_bar(capfd):
    watched(Progress("lines"), generations=1)
    first, last = capfd.readouterr().err.splitlines()
    assert " zoo begins method=deep-ga env=cart-pole parameters=226 generations=1 score=10000 " in first
    assert " zoo finished method=deep-ga generation=1 best=" in last
    assert " frames=" in last
    watched(Progress("bar"), generations=1)
    assert "generation 1, best " in capfd.readouterr().err


def test_nothing_is_known_before_there_is_a_return():
    config = {"method": "deep-ga", "score": None, "dim": 3}
    looking = Looking()
    watched(looking, generations=1)
    state = looking.states[0]
    job = SimpleNamespace(account=looking.tally.job.account)
    stop = SimpleNamespace(target=None, seconds=None)
    run = SimpleNamespace(config=config, state=state, execution={}, job=job, path=None, stop=stop)
    tally = EvolutionTally(run, 0.0)
    assert math.isinf(tally.best)
    assert tally.words() == "generation 0, no score yet"
    assert tally.frame_rate(1.0) is None
