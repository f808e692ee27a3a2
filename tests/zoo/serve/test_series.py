"""Logs as they grow: read once, thinned, begun anew where they were cut back, whatever is in them."""

from __future__ import annotations

import json
import os

import pytest

from zoo.serve import series as series_module
from zoo.serve import tail as tail_module
from zoo.serve.series import MOST, Series
from zoo.serve.tail import Tail, last_lines


def append(path, name, entries):
    with open(path / name, "a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def steps(first, last, **own):
    return [{"step": i, "nfev": 5 * i, "best": 1 / i, "failed": 0, **own} for i in range(first, last + 1)]


def times(first, last, since=0.0):
    return [{"step": i, "seconds": since + 0.5 * (i - first + 1)} for i in range(first, last + 1)]


def read(series):
    while series.read() or series.more:
        pass
    return series


def test_only_new_lines_are_read_and_only_whole_ones(tmp_path):
    file = tmp_path / "log"
    tail = Tail(file)
    assert tail.read() == b""
    file.write_bytes(b"one\ntwo\nthr")
    assert tail.read() == b"one\ntwo\n"
    assert tail.read() == b""
    with open(file, "ab") as log:
        log.write(b"ee\nfour\n")
    assert tail.read() == b"three\nfour\n"
    assert not tail.began_anew


def test_a_log_that_was_cut_back_begins_anew(tmp_path):
    file = tmp_path / "log"
    tail = Tail(file)
    file.write_bytes(b"one\ntwo\nthree\n")
    tail.read()
    os.truncate(file, 4)
    assert tail.read() == b"one\n"
    assert tail.began_anew
    with open(file, "ab") as log:
        log.write(b"2\n")
    assert tail.read() == b"2\n"
    assert not tail.began_anew


def test_a_log_that_is_longer_but_another_one_begins_anew(tmp_path):
    file = tmp_path / "log"
    tail = Tail(file)
    file.write_bytes(b"one\ntwo\n")
    tail.read()
    file.write_bytes(b"one\n222\nthree\n")
    assert tail.read() == b"one\n222\nthree\n"
    assert tail.began_anew


def test_large_logs_come_in_chunks_and_long_lines_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tail_module, "CHUNK", 10)
    file = tmp_path / "log"
    lines = [b"a" * n + b"\n" for n in (3, 4, 50, 2, 9, 10)]
    file.write_bytes(b"".join(lines))
    tail, found = Tail(file), []
    while data := tail.read():
        assert data.endswith(b"\n")
        found.append(data)
    assert b"".join(found) == b"".join(lines)
    assert len(found) > 1
    assert not tail.more


def test_what_never_ends_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tail_module, "CHUNK", 8)
    monkeypatch.setattr(tail_module, "_LONGEST", 64)
    file = tmp_path / "log"
    file.write_bytes(b"x" * 1000 + b"\nfine\n")
    tail, found = Tail(file), b""
    for _ in range(100):
        found += tail.read()
    assert found.endswith(b"\nfine\n")
    assert len(found) < 100


@pytest.mark.parametrize("before", [b"", b"one\ntwo\n"])
def test_a_line_that_is_too_long_is_passed_over_once(tmp_path, monkeypatch, before):
    monkeypatch.setattr(tail_module, "CHUNK", 100)
    monkeypatch.setattr(tail_module, "_LONGEST", 800)
    file = tmp_path / "log"
    tail = Tail(file)
    file.write_bytes(before)
    assert tail.read() == before
    with open(file, "ab") as log:
        log.write(b"z" * 5000)
    for _ in range(7):
        assert tail.read() == b""
        assert not tail.began_anew
    assert not tail.more
    with open(file, "ab") as log:
        log.write(b"z\nthree\n")
    found = b""
    while (data := tail.read()) or tail.more:
        found += data
    assert found.endswith(b"z\nthree\n")
    assert len(found) < 1000
    file.write_bytes(b"other\n")
    assert tail.read() == b"other\n"
    assert tail.began_anew


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_nothing_but_plain_files_is_opened(tmp_path, kind):
    (tmp_path / "secret").write_text("secret\n")
    file = tmp_path / "log"
    if kind == "link":
        file.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    assert Tail(file).read() == b""
    assert last_lines(file) == []


def test_last_lines(tmp_path):
    file = tmp_path / "log"
    assert last_lines(file) == []
    file.write_bytes(b"torn")
    assert last_lines(file) == []
    file.write_bytes(b"one\ntwo\ntorn")
    assert last_lines(file) == [b"one", b"two"]
    file.write_bytes(b"a" * 100_000 + b"\n" + b"b" * 50_000 + b"\n")
    assert last_lines(file)[-1] == b"b" * 50_000


def test_curves_grow(tmp_path):
    series = Series(tmp_path)
    assert not series.read()
    append(tmp_path, "metrics.jsonl", steps(1, 3, sigma=2.0))
    append(tmp_path, "timings.jsonl", times(1, 2))
    first = read(series).since("")
    assert first["columns"]["step"] == [1, 2, 3]
    assert first["columns"]["sigma"] == [2.0, 2.0, 2.0]
    assert first["seconds"] == [0.5, 1.0]
    assert "seconds" not in first["last"]
    append(tmp_path, "metrics.jsonl", steps(4, 5, sigma=1.0))
    append(tmp_path, "timings.jsonl", times(3, 5, 1.0))
    more = read(series).since(first["cursor"])
    assert more["start"] == [3, 2]
    assert more["columns"]["sigma"] == [1.0, 1.0]
    assert more["seconds"] == [1.5, 2.0, 2.5]
    assert more["last"] == {"step": 5, "nfev": 25, "best": 0.2, "failed": 0, "sigma": 1.0, "seconds": 2.5}
    assert read(series).since(more["cursor"])["columns"]["best"] == []


@pytest.mark.parametrize("chunk", [1 << 20, 1000, 77])
def test_long_runs_are_thinned_evenly_however_they_are_read(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(tail_module, "CHUNK", chunk)
    count = 2 * MOST + 51
    append(tmp_path, "metrics.jsonl", steps(1, count))
    append(tmp_path, "timings.jsonl", times(1, count))
    series = read(Series(tmp_path))
    assert series.stride == 4
    kept = list(range(1, count + 1, 4))
    assert series.columns["step"] == kept
    assert series.columns["best"] == [1 / step for step in kept]
    assert series.seconds == [0.5 * step for step in kept]
    assert series.last["step"] == count
    assert series.last["seconds"] == 0.5 * count


def test_thinning_tells_readers_to_begin_anew(tmp_path):
    append(tmp_path, "metrics.jsonl", steps(1, MOST))
    series = read(Series(tmp_path))
    cursor = series.cursor
    append(tmp_path, "metrics.jsonl", steps(MOST + 1, MOST + 1))
    again = read(series).since(cursor)
    assert again["start"] == [0, 0]
    assert again["columns"]["step"] == list(range(1, MOST + 2, 2))


def test_time_goes_on_where_a_run_is_resumed(tmp_path):
    append(tmp_path, "metrics.jsonl", steps(1, 5))
    append(tmp_path, "timings.jsonl", times(1, 3))
    series = read(Series(tmp_path))
    append(tmp_path, "timings.jsonl", times(4, 5))
    assert read(series).seconds == [0.5, 1.0, 1.5, 2.0, 2.5]
    append(tmp_path, "timings.jsonl", times(6, 7))
    assert read(series).seconds == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert read(Series(tmp_path)).seconds == series.seconds


def test_a_run_that_was_killed_and_resumed_is_read_anew(tmp_path):
    append(tmp_path, "metrics.jsonl", steps(1, 8))
    append(tmp_path, "timings.jsonl", times(1, 8))
    series = read(Series(tmp_path))
    cursor = series.cursor
    for name in ("metrics.jsonl", "timings.jsonl"):
        whole = (tmp_path / name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(whole[:4]))
    append(tmp_path, "metrics.jsonl", steps(5, 9))
    append(tmp_path, "timings.jsonl", times(5, 9))
    again = read(series).since(cursor)
    assert again["start"] == [0, 0]
    assert again["columns"]["step"] == list(range(1, 10))
    assert again["seconds"] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]


def test_another_diagnostic_on_the_way(tmp_path):
    append(tmp_path, "metrics.jsonl", [{"step": 1}, {"step": 2, "tau": 0.5}, {"step": 3}])
    assert read(Series(tmp_path)).columns["tau"] == [None, 0.5, None]


def test_what_is_no_number_is_a_gap_and_damage_is_passed_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "a": NaN, "b": Infinity, "c": null, "d": "text", "e": [1, 2], "f": true, "x": [1]}\n'
        b"\x00\xff garbage\n"
        b"[1, 2]\n" + b"[" * 100_000 + b'\n{"step": 5, "a": 1e999, "c": 1' + b"0" * 400 + b"}\n"
    )
    (tmp_path / "timings.jsonl").write_bytes(b'{"step": 1, "seconds": 1.5}\ngarbage\n{"seconds": 1-1}\n')
    series = read(Series(tmp_path))
    assert series.columns == {
        "step": [1, None, None, None, 5],
        "a": [None] * 5,
        "b": [None] * 5,
        "c": [None] * 5,
        "f": [1, None, None, None, None],
    }
    assert len(series.seconds) == 3
    assert series.row == [1]
    json.dumps(series.since(""), allow_nan=False)


def test_columns_are_limited(tmp_path):
    append(tmp_path, "metrics.jsonl", [{f"{i}-{j}": 1 for j in range(50)} for i in range(50)])
    assert len(read(Series(tmp_path)).columns) == series_module._MOST_COLUMNS


@pytest.mark.parametrize(
    "cursor", ["", "0", "0.0", "x.y.z", "0.1.1.1", "-1.0.0", "7.1.1", "٣.1.1", "0.99999999999999.1"]
)
def test_a_cursor_that_is_none_stands_for_the_beginning(tmp_path, cursor):
    append(tmp_path, "metrics.jsonl", steps(1, 3))
    assert read(Series(tmp_path)).since(cursor)["start"] == [0, 0]
