"""When steps were done: the same to all who read it, whichever process did them, however slow it was."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import zoo
from zoo.loggers.base import recorded
from zoo.run.reading import read_recording
from zoo.run.timings import Clock
from zoo.serve.series import Series


def sphere(x):
    return float((x**2).sum())


def after(steps):
    count = itertools.count(1)

    def stop(xk):
        if next(count) == steps:
            raise StopIteration

    return stop


def rewrite(path, *clocks):
    """Have steps done by processes at these times, the earlier ones left as they are."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, seconds in zip(lines[-len(clocks) :], clocks, strict=True):
        line["seconds"] = seconds
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def resumed(out):
    """Return a run of three processes, each of whose clocks is ahead of the one before at its first step."""
    log = out / "timings.jsonl"
    zoo.minimize(sphere, np.ones(3), method="cma", budget=500, rng=0, out=out, callback=after(2))
    rewrite(log, 0.25, 0.5)
    zoo.resume(out, sphere, callback=after(1))
    rewrite(log, 2.0)
    zoo.resume(out, sphere, callback=after(2))
    rewrite(log, 4.0, 8.0)
    return log


def seen(out):
    """Return the times that reports, the live page and loggers see."""
    series = Series(out)
    while series.read() or series.more:
        pass
    logged = [when for _, when in recorded(out, None)]
    recording = read_recording(out)
    np.testing.assert_allclose(np.diff(logged), np.diff(recording.seconds))
    assert series.seconds == recording.seconds.tolist()
    assert series.last["seconds"] == series.seconds[-1]
    return series.seconds, recording.worked


def test_a_process_slower_than_the_one_before_adds_its_time(tmp_path):
    resumed(tmp_path)
    assert seen(tmp_path) == ([0.25, 0.5, 2.5, 6.5, 10.5], [0.5, 2.0, 8.0])


def test_a_session_that_is_opened_again_adds_its_time(tmp_path):
    for _ in range(2):
        with zoo.Session("random", np.ones(3), budget=500, rng=0, out=tmp_path) as session:
            session.tell({trial.id: sphere(trial.x) for trial in session.ask(1000)})
            session._save()  # or the next one would do this step again
        rewrite(tmp_path / "timings.jsonl", 3.0)
    assert seen(tmp_path) == ([3.0, 6.0], [3.0, 3.0])


def test_lines_of_earlier_versions_are_read_and_gone_on_from(tmp_path):
    log = resumed(tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    old = "".join(json.dumps({"step": line["step"], "seconds": line["seconds"]}) + "\n" for line in lines)
    log.write_text(old)
    assert seen(tmp_path) == ([0.25, 0.5, 2.0, 4.0, 8.0], [8.0])
    log.write_text(old.replace('"seconds": 4.0', '"seconds": 1.0'))
    assert seen(tmp_path) == ([0.25, 0.5, 2.0, 3.0, 10.0], [2.0, 8.0])
    zoo.resume(tmp_path, sphere, callback=after(1))
    assert json.loads(log.read_text().splitlines()[-1])["earlier"] == 10.0
    rewrite(log, 16.0)
    assert seen(tmp_path) == ([0.25, 0.5, 2.0, 3.0, 10.0, 26.0], [2.0, 8.0, 16.0])


@pytest.mark.parametrize(
    "damage",
    ["", "[1, 2]", "{}", '{"step": 2}', '{"step": 2, "seconds": null, "earlier": 0}', "[" * 10**5]
    + [f'{{"step": 2, "seconds": {a}, "earlier": {b}}}' for a, b in [("1e999", 0), (1, "1e999"), (1, "1-1")]],
)
@pytest.mark.parametrize("earlier", ["", ', "earlier": 7'])
def test_a_damaged_line_is_passed_over(damage, earlier):
    sound = '{{"step": {}, "seconds": {}' + earlier + "}}\n"
    rows = Clock().read((sound.format(1, 1.5) + damage + "\n" + sound.format(3, 2.5)).encode())
    assert np.isnan(rows[1]).all()
    assert rows[[0, 2]].tolist() == [[1, 1.5, 7 if earlier else 0], [3, 2.5, 7 if earlier else 0]]
