"""Which runs there are, and what is new since a page asked before."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.zoo.serve.runs import step, under_way
from zoo.serve import folders as folders_module
from zoo.serve import overview as overview_module
from zoo.serve.folders import Folders
from zoo.serve.overview import Overview


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Look into folders whenever a page asks."""
    monkeypatch.setattr(folders_module, "_INTERVAL", 0.0)
    monkeypatch.setattr(folders_module, "_TIME_SHARE", 0)


def names(*directories):
    folders = Folders(directories)
    folders.scan()
    return sorted(place.name for place in folders.places.values())


def test_a_directory_may_be_a_run_or_hold_runs_at_any_depth(tmp_path):
    under_way(tmp_path / "first")
    under_way(tmp_path / "deep" / "er" / "second")
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == ["deep/er/second", "first"]
    assert names(tmp_path / "first") == ["first"]
    assert names(tmp_path / "first", tmp_path / "deep") == ["deep/er/second", "first"]
    under_way(tmp_path / "other" / "deep")
    assert names(tmp_path / "deep", tmp_path / "other" / "deep") == [
        f"{tmp_path}/deep/er/second",
        f"{tmp_path}/other/deep",
    ]
    assert names(tmp_path / "nowhere") == []


def test_what_is_no_run_is_left_alone(tmp_path):
    under_way(tmp_path / ".hidden" / "run")
    under_way(tmp_path / "run" / "inside")
    under_way(tmp_path / "a/b/c/d/e/run")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "file").touch()
    shutil.copy(tmp_path / "run/inside/config.json", tmp_path / "run")
    (tmp_path / "run" / ".lock").touch()
    assert names(tmp_path) == ["run"]


def test_links_lead_nowhere(tmp_path):
    under_way(tmp_path / "outside" / "run")
    given = tmp_path / "given"
    given.mkdir()
    (given / "link").symlink_to(tmp_path / "outside")
    (given / "run").symlink_to(tmp_path / "outside" / "run")
    (given / "again").symlink_to(given)
    assert names(given) == []
    # Unless somebody says so.
    assert names(given / "link") == ["run"]


def test_half_deleted_runs_are_found(tmp_path):
    under_way(tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    assert names(tmp_path) == ["run"]


def test_runs_come_and_go(tmp_path):
    folders = Folders([tmp_path / "runs"])
    folders.scan()
    assert folders.places == {}
    under_way(tmp_path / "runs" / "one")
    folders.scan()
    (one,) = folders.places
    under_way(tmp_path / "runs" / "two")
    folders.scan()
    assert len(folders.places) == 2
    assert one in folders.places
    shutil.rmtree(tmp_path / "runs" / "two")
    folders.scan()
    assert list(folders.places) == [one]


def test_folders_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    for number in range(5):
        path = under_way(tmp_path / "runs" / str(number))
        os.utime(path, (1, 1))
    os.utime(tmp_path / "runs", (1, 1))
    folders = Folders([tmp_path / "runs"])
    folders.scan()
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} was read"))
    folders.scan()
    assert len(folders.places) == 5


def test_there_is_a_limit_to_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folders_module, "MOST_FOLDERS", 4)
    for number in range(10):
        under_way(tmp_path / str(number))
    folders = Folders([tmp_path])
    folders.scan()
    assert folders.is_cut_short
    assert len(folders.places) == 3


def test_only_what_is_new_is_told(tmp_path):
    one, _two = under_way(tmp_path / "one"), under_way(tmp_path / "two")
    overview = Overview([tmp_path])
    first = overview.since("", {})
    by_name = {summary["name"]: key for key, summary in first["runs"].items()}
    assert sorted(by_name) == ["one", "two"]
    assert sorted(first["ids"]) == sorted(by_name.values())
    assert overview.since(first["since"], {}) is None
    step(one, 4)
    second = overview.since(first["since"], {})
    assert list(second["runs"]) == [by_name["one"]]
    assert second["ids"] is None
    assert second["details"] == {}
    assert overview.since(first["since"], {})["runs"] == second["runs"]


def test_curves_are_told_from_where_they_were(tmp_path):
    path = under_way(tmp_path / "one", 3)
    overview = Overview([tmp_path])
    first = overview.since("", {})
    (key,) = first["runs"]
    second = overview.since(first["since"], {key: ""})
    assert second["details"][key]["columns"]["step"] == [1, 2, 3]
    cursor = second["details"][key]["cursor"]
    assert overview.since(second["since"], {key: cursor}) is None
    step(path, 4)
    third = overview.since(second["since"], {key: cursor})
    assert third["details"][key]["columns"]["step"] == [4]
    assert third["details"][key]["start"] == [3, 3]


def test_runs_that_vanish_are_told(tmp_path):
    under_way(tmp_path / "one")
    gone = under_way(tmp_path / "two")
    overview = Overview([tmp_path])
    first = overview.since("", {})
    key = next(key for key, summary in first["runs"].items() if summary["name"] == "two")
    shutil.rmtree(gone)
    second = overview.since(first["since"], {key: ""})
    assert key not in second["ids"]
    assert len(second["ids"]) == 1
    assert second["details"] == {}
    under_way(tmp_path / "two", 7)
    third = overview.since(second["since"], {key: ""})
    assert third["runs"][key]["nfev"] == 70
    assert third["details"][key]["columns"]["step"] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("since", ["", "0-5", "abcdefgh-99999", "x", "-", "9" * 500])
def test_answers_of_another_server_count_for_nothing(tmp_path, since):
    under_way(tmp_path / "one")
    overview = Overview([tmp_path])
    overview.since("", {})
    assert len(overview.since(since, {"nobody": "0.0.0"})["runs"]) == 1


def test_no_runs_yet(tmp_path):
    overview = Overview([tmp_path / "runs"])
    first = overview.since("", {})
    assert first["ids"] == []
    assert first["folders"] == [str(tmp_path / "runs")]
    under_way(tmp_path / "runs" / "one")
    assert len(overview.since(first["since"], {})["ids"]) == 1


def test_one_answer_does_not_take_for_ever(tmp_path, monkeypatch):
    for number in range(6):
        under_way(tmp_path / str(number))
    monkeypatch.setattr(overview_module, "_SLICE", 0.0)
    overview, since, answers = Overview([tmp_path]), "", []
    while len(answers) < 10 and (not answers or answers[-1]["more"]):
        answers.append(overview.since(since, {}))
        since = answers[-1]["since"]
    assert [len(answer["ids"]) for answer in answers] == [1, 2, 3, 4, 5, 6]


def test_curves_that_nobody_asks_for_are_let_go(tmp_path, monkeypatch):
    under_way(tmp_path / "one")
    overview = Overview([tmp_path])
    (key,) = overview.since("", {})["runs"]
    overview.since("", {key: ""})
    assert overview._runs[key].series is not None
    monkeypatch.setattr(overview_module, "_KEPT", -1.0)
    overview.since("", {})
    assert overview._runs[key].series is None
