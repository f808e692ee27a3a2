"""What a run directory says about a run, whatever has happened to it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from zoo.core.errors import RunDirectoryError
from zoo.run.directory import RunDirectory
from zoo.run.reading import read_recording


def sphere(x):
    return float((x**2).sum())


@pytest.fixture
def run(tmp_path):
    """A run of 20 steps of 7 evaluations."""
    zoo.minimize(sphere, np.ones(3), budget=141, rng=0, out=tmp_path / "run")
    return tmp_path / "run"


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def test_columns_arrays_and_points_are_what_was_logged(run):
    recording, lines = read_recording(run), lines_of(run / "metrics.jsonl")
    assert recording.num_steps == len(lines) == 20
    for name in ("step", "nfev", "best", "value", "median", "failed", "sigma", "condition"):
        assert recording.columns[name].tolist() == [line[name] for line in lines]
    assert set(recording.diagnostics) == {"sigma", "smallest_deviation", "largest_deviation", "condition"}
    improved = [line for line in lines if "x" in line]
    assert [point.x.tolist() for point in recording.points] == [line["x"] for line in improved]
    assert [point.fun for point in recording.points] == [line["best"] for line in improved]
    assert recording.seconds.tolist() == [line["seconds"] for line in lines_of(run / "timings.jsonl")]
    assert recording.worked == [recording.seconds[-1]]
    assert recording.result["nfev"] == 141
    assert recording.events[-1]["event"] == "ended"
    assert recording.last("nfev") == 140


def test_time_goes_on_where_a_process_ended(run):
    write_lines(
        run / "timings.jsonl",
        [{"step": step, "seconds": seconds} for step, seconds in enumerate([1, 2.5, 0.5, 3, 0.25, 0.75], 1)],
    )
    recording = read_recording(run)
    assert recording.seconds[:6].tolist() == [1, 2.5, 3, 5.5, 5.75, 6.25]
    assert np.isnan(recording.seconds[6:]).all()
    assert recording.worked == [2.5, 3, 0.75]


def test_a_resumed_run_has_as_many_processes_as_worked_on_it(tmp_path):
    def stop_soon(intermediate_result):
        if intermediate_result.nit == 3:
            raise StopIteration

    arguments = {"x0": np.ones(3), "budget": 141, "rng": 0, "out": tmp_path}
    zoo.minimize(sphere, callback=stop_soon, **arguments)
    # A clock of which the second process cannot be at 9 seconds already.
    write_lines(tmp_path / "timings.jsonl", [{"step": step, "seconds": 3.0 * step} for step in (1, 2, 3)])
    zoo.minimize(sphere, **arguments)
    recording = read_recording(tmp_path)
    assert recording.num_steps == 20
    assert len(recording.worked) == 2
    assert recording.worked[0] == 9
    assert (np.diff(recording.seconds) > 0).all()
    assert [event["event"] for event in recording.events] == ["ended", "resumed", "ended"]


def test_a_torn_last_line_is_left_out(run):
    whole = read_recording(run)
    for name in ("metrics.jsonl", "timings.jsonl", "events.jsonl"):
        with open(run / name, "a") as file:
            file.write('{"step": 21, "nfev": 14')
    recording = read_recording(run)
    assert recording.num_steps == 20
    assert recording.columns["nfev"].tolist() == whole.columns["nfev"].tolist()
    assert recording.seconds.tolist() == whole.seconds.tolist()
    assert recording.events == whole.events


@pytest.mark.parametrize(
    "damage",
    [
        "\n",
        "\0\0\0\0\n",
        "[1, 2]\n",
        "{}\n",
        '{"step": 5\n',
        '{"step": null, "nfev": 3}\n',
        '{"step": "5", "nfev": 35}\n',
        '{"step": 5, "nfev": 35.5}\n',
        '{"step": 5, "nfev": ' + "9" * 400 + "}\n",
        "[" * 100_000 + "\n",
        "\udcff\udcfe\n",
    ],
)
def test_damaged_lines_are_left_out(run, damage):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[4] = damage
    (run / "metrics.jsonl").write_text("".join(lines), errors="surrogateescape")
    times = (run / "timings.jsonl").read_text().splitlines(keepends=True)
    times[7] = damage
    (run / "timings.jsonl").write_text("".join(times), errors="surrogateescape")
    recording = read_recording(run)
    assert recording.columns["step"].tolist() == [1, 2, 3, 4, *range(6, 21)]
    missing = np.isnan(recording.seconds)
    assert recording.columns["step"][missing].tolist() == [8]


def test_null_and_what_is_no_number_is_nan(tmp_path, run):
    lines = lines_of(run / "metrics.jsonl")
    lines[0] |= {"best": None, "sigma": None, "condition": "large", "extra": [1, None, 3]}
    lines[1] |= {"extra": None, "huge": int("9" * 400), "flag": True, "note": "text", "ragged": [[1], [2, 3]]}
    lines[1] |= {"x": [1.0, None, 2.0]}
    lines[2] |= {"x": [1.0, 2.0]}  # of a space of another dimension
    write_lines(run / "metrics.jsonl", lines)
    recording = read_recording(run)
    for name in ("best", "sigma", "condition"):
        assert np.isnan(recording.columns[name][0])
        assert recording.columns[name][1] == lines[1][name]
    np.testing.assert_array_equal(recording.arrays["extra"][0], [1, np.nan, 3])
    assert recording.arrays["extra"][1] is None
    assert recording.columns["huge"][1] == np.inf
    assert recording.columns["flag"][1] == 1
    assert "note" not in recording.columns
    assert recording.arrays["ragged"][1] is None or np.isnan(recording.arrays["ragged"][1]).all()
    np.testing.assert_array_equal(recording.points[1].x, [1, np.nan, 2])
    assert all(len(point.x) == 3 for point in recording.points)


def test_every_evaluation_failed(tmp_path):
    zoo.minimize(lambda x: float("nan"), np.ones(3), budget=50, rng=0, out=tmp_path)
    recording = read_recording(tmp_path)
    assert np.isnan(recording.columns["best"]).all()
    assert recording.points == []
    assert recording.columns["failed"][-1] == 49


def test_many_steps_are_thinned_but_their_ends_and_last_points_are_there(tmp_path):
    zoo.minimize(sphere, np.ones(3), method="nelder-mead", budget=401, rng=0, out=tmp_path)
    whole, thin = read_recording(tmp_path), read_recording(tmp_path, most=10)
    assert thin.num_steps == whole.num_steps > 100
    steps = thin.columns["step"]
    assert len(steps) == 10
    assert steps[0] == 1
    assert steps[-1] == whole.num_steps
    assert np.isin(steps, whole.columns["step"]).all()
    np.testing.assert_array_equal(thin.seconds, whole.seconds[steps.astype(int) - 1])
    assert [point.nfev for point in thin.points] == [point.nfev for point in whole.points]


def test_logs_longer_than_what_is_held_in_memory(run, monkeypatch):
    whole = read_recording(run)
    monkeypatch.setattr("zoo.run.timings._CHUNK", 50)
    pieces = read_recording(run)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(pieces.columns[name], column)
    np.testing.assert_array_equal(pieces.seconds, whole.seconds)
    assert [point.step for point in pieces.points] == [point.step for point in whole.points]


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "timings.jsonl", "events.jsonl", "result.json", "meta.json"]
)
def test_a_file_that_is_missing_or_empty(run, name):
    (run / name).write_text("")
    empty = read_recording(run)
    (run / name).unlink()
    missing = read_recording(run)
    for recording in (empty, missing):
        assert recording.config["method"] == "cma"
        assert (recording.result is None) == (name == "result.json")
        assert (recording.meta == {}) == (name == "meta.json")
        assert (recording.events == []) == (name == "events.jsonl")
        assert (recording.num_steps == 0) == (name == "metrics.jsonl")
        assert (recording.worked == []) == (name == "timings.jsonl")
        assert len(recording.seconds) == recording.num_steps
    for content in ("5", "[1]", '"text"', "\0\0"):
        (run / name).write_text(content)
        assert read_recording(run).config["method"] == "cma"


def test_what_is_no_run_says_so(run, tmp_path):
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        read_recording(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match=r"is no run directory: it has no config\.json"):
        read_recording(tmp_path / "empty")
    (run / "start.safetensors").rename(run / "aside")
    with pytest.raises(RunDirectoryError, match=r"it has no start\.safetensors"):
        read_recording(run)
    (run / "aside").rename(run / "start.safetensors")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "budget": 7}))
    with pytest.raises(RunDirectoryError, match="is damaged"):
        read_recording(run)
    (run / "config.json").write_text(json.dumps({**config, "schema": 99}))
    with pytest.raises(RunDirectoryError, match="newer version"):
        read_recording(run)


def test_a_directory_in_the_place_of_a_log(run):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot be read: .*metrics\.jsonl"):
        read_recording(run)


def test_a_run_of_a_session(tmp_path):
    with zoo.Session("cma", np.ones(3), budget=40, rng=0, out=tmp_path) as session:
        for _ in range(3):
            for trial in session.ask(7):
                session.tell(trial.id, sphere(trial.x))
        recording = read_recording(tmp_path)
        assert recording.result is None
        assert recording.num_steps <= 3  # the last lines may wait for a second to be written
        assert len(recording.seconds) == recording.num_steps
        while not session.done:
            for trial in session.ask(7):
                session.tell(trial.id, sphere(trial.x))
    recording = read_recording(tmp_path)
    assert recording.last("nfev") == recording.result["nfev"] - 1
    assert len(recording.points) > 1


def test_points_of_a_space_are_rows_that_it_decodes(tmp_path):
    space = zoo.Space({"rate": zoo.Float(1e-3, 1, log=True), "kind": zoo.Categorical(["a", "b", "c"])})
    result = zoo.minimize(
        lambda p: p["rate"] + (p["kind"] != "b"), space=space, budget=80, rng=0, out=tmp_path
    )
    recording = read_recording(tmp_path)
    assert recording.space == space
    assert recording.space.decode(recording.points[-1].x) == result.x_best


def test_reading_takes_no_lock_and_changes_nothing(run):
    directory = RunDirectory.open(run)
    try:
        before = {path: path.stat().st_mtime_ns for path in [run, *run.rglob("*")]}
        assert read_recording(run).num_steps == 20
        assert {path: path.stat().st_mtime_ns for path in [run, *run.rglob("*")]} == before
    finally:
        directory.close()
