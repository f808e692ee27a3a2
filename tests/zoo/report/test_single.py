"""The report of one run."""

from __future__ import annotations

import datetime
import errno
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.zoo.report import runs
from zoo.core.errors import RunDirectoryError
from zoo.report import figures, write_report
from zoo.report.figures import _finish as finish

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of each kind, made when it is asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def get(kind):
        path = folder / kind.replace(" ", "_")
        return path if path.exists() else runs.make(kind, path)

    return get


class Elements(html.parser.HTMLParser):
    """All elements of a page, with their attributes, and all text in it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def names_of(pictures):
    return [picture.stem for picture in pictures]


@pytest.mark.parametrize("kind", runs.KINDS)
def test_every_kind_of_run_is_reported(made, kind, tmp_path):
    page, *pictures = write_report(made(kind), tmp_path)
    assert page == tmp_path / "report.html"
    drawn = Elements(page.read_text())
    figures = drawn.all("figure")
    assert len(figures) == len(pictures) == len(drawn.all("svg")) == len(drawn.all("figcaption"))
    alts = [one["aria-label"] for one in drawn.all("div") if one.get("role") == "img"]
    assert len(alts) == len(figures)
    assert all(len(alt) > 10 for alt in alts)
    for picture in pictures:
        assert picture.parent == tmp_path / "report"
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert ("value_evaluations" in names_of(pictures)) == (kind != "no step")
    assert ("violation" in names_of(pictures)) == (kind == "constrained")
    assert ("front" in names_of(pictures)) == (kind == "several")
    assert ("failures" in names_of(pictures)) == (kind in ("failing", "all failed"))
    assert ("best_points" in names_of(pictures)) == (kind not in ("all failed", "no step", "many variables"))
    assert ("not ended" in drawn.text) == (kind == "under way")


@pytest.mark.parametrize("kind", ["smooth", "failing", "mixed"])
def test_a_page_holds_all_that_it_shows(made, kind, tmp_path):
    text = write_report(made(kind), tmp_path)[0].read_text()
    page = Elements(text)
    assert page.all("script") == page.all("img") == page.all("iframe") == []
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\((?!#|&quot;#|\"#)", text)
    assert page.all("meta")[1] == {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    assert referred <= set(identifiers)


def test_a_report_has_the_same_bytes_each_time(made, tmp_path):
    one, other = (write_report(made("smooth"), tmp_path / name) for name in ("one", "other"))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def test_it_lies_in_the_directory_of_the_run_which_goes_on(tmp_path):
    import zoo

    run = tmp_path / "run"
    zoo.minimize(runs.sphere, np.ones(3), budget=50, rng=0, out=run)
    page, *pictures = write_report(run)
    assert page == run / "report.html"
    assert all(picture.parent == run / "report" for picture in pictures)
    assert zoo.resume(run, runs.sphere).nfev == 50
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} == {".lock"}


def test_every_diagnostic_is_drawn_whatever_it_is_called(tmp_path):
    steps = 60
    columns = {
        "best": list(np.geomspace(10, 1e-6, steps)),
        "value": [3.0] * steps,
        "effective_sample_size": [5.0] * steps,
        "../up/a&b": [10.0 ** (index % 5) for index in range(steps)],
        "never": [None] * steps,
        "few": [[1.0, 2.0, None]] * steps,
        "many": [list(np.arange(float(index % 20 + 11))) for index in range(steps)],
        "single": [[0.5]] * steps,
        "empty": [[]] * steps,
        "broken": [None if index % 2 else -1e308 * (index % 4 - 1) for index in range(steps)],
        "A": [0.0] * steps,
        "a": [1] * steps,
    }
    page, *pictures = write_report(runs.log(tmp_path, columns))
    names = names_of(pictures)
    assert names[:2] == ["value_evaluations", "value_time"]
    expected = {"effective_sample_size", "_up_a_b", "few", "many", "single", "broken", "A", "a_2"}
    assert {name.removeprefix("diagnostic_") for name in names[2:]} == expected
    text = Elements(page.read_text()).text
    assert "up to 30 entries" in text
    assert "../up/a&b" in text


def test_what_stays_the_same_is_drawn_as_a_constant(tmp_path, monkeypatch):
    axes = []
    monkeypatch.setattr(
        figures, "_finish", lambda *given, **also: (finish(*given, **also), axes.append(given[0]))
    )
    columns = {
        "best": [1.0] * 50,
        "effective_sample_size": [20 + 1e-11 * (index % 3) for index in range(50)],
        "alpha": [None] * 50,
        "rate": [2 + 1e-3 * index / 50 for index in range(50)],
        "pair": [[3.0, 3 + 1e-9 * index] for index in range(50)],
    }
    page, *pictures = write_report(runs.log(tmp_path, columns))
    drawn = {}
    for one in axes:
        one.figure.canvas.draw()
        ticks = [label.get_text() for label in one.get_yticklabels()]
        drawn[one.get_title("left")] = ticks, one.yaxis.get_offset_text().get_text(), one.get_ylim()
    assert drawn["Effective sample size"] == (["20"], "", pytest.approx((0, 40)))
    assert drawn["Pair"] == (["3"], "", (0, 6))
    ticks, offset, (low, high) = drawn["Rate"]
    assert offset == ""
    assert 1.999 < low < 2 < high < 2.002
    assert {"2", "2.0005"} <= set(ticks)
    assert len(set(ticks)) == len(ticks)
    assert "diagnostic_alpha" not in names_of(pictures)
    assert "alphainfinite or no number: no figure" in re.sub(r"\s*\n\s*", "", Elements(page.read_text()).text)


@pytest.mark.parametrize(
    "best",
    [
        [None, None, None],
        [None, 1.0, None],
        [float("inf"), -1e308, 1e308],
        [-1.0, -2.0, -3.0],
        [0.0, 0.0, 0.0],
        [1e-320, 1e-320, 0.0],
        [1e300, 1e-300, -1e300],
        [5.0],
    ],
)
def test_values_may_be_anything(tmp_path, best):
    columns = {"best": best, "value": best, "median": best[::-1]}
    _, *pictures = write_report(runs.log(tmp_path, columns))
    assert "value_evaluations" in names_of(pictures)


def test_whatever_text_there_is_is_escaped(tmp_path):
    space = {
        "names": [HOSTILE, "$x_2^{3$", "a\nb\x00\x1b[31m", "変数" * 40],
        "variables": [
            {"kind": "categorical", "choices": [HOSTILE, "'\"&", None], "ordered": False},
            *[{"kind": "float", "lower": 0.0, "upper": 1.0, "log": False}] * 3,
        ],
    }
    columns = {
        "best": [3.0, 2.0],
        "x": [[0.1, 0.8, 0.2, 0.5, 0.5, 0.5], [0.9, 0.8, 0.2, 0.4, 0.5, 0.5]],
        HOSTILE: [1.0, 2.0],
    }
    events = [
        {"event": HOSTILE, "message": HOSTILE},
        {"event": "worker lost", "reason": "</table>" + HOSTILE},
    ]
    objective = {"name": HOSTILE, "constraints": [{"name": HOSTILE}]}
    run = runs.log(
        tmp_path, columns, events=events, objective=objective, space=space, dim=6, method=HOSTILE, key=HOSTILE
    )
    page, *pictures = write_report(run)
    text = page.read_text()
    drawn = Elements(text)
    assert "<script" not in text.lower()
    assert drawn.text.count(HOSTILE) >= 8
    assert "best_points" in names_of(pictures)
    assert not re.search("[\x00\x1b]", "".join(re.findall("<svg.*?</svg>", text, re.DOTALL)))


def test_what_happened_is_told(made, tmp_path):
    text = Elements(write_report(made("failing"), tmp_path)[0].read_text()).text
    assert "evaluation raised" in text
    assert "too <b>large</b>" in text
    events = [
        {"event": "worker lost", "worker": number, "reason": "gone", "units": 1} for number in range(90)
    ]
    named = [f"client {chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(60)]
    raised = [{"event": "evaluation raised", "message": name} for name in [*named, *named[:3]]]
    events = [events[0], *raised, *events[1:]]
    ended = {"event": "ended", "account": {"busy": [0.25, 0.75]}}
    page, *pictures = write_report(runs.log(tmp_path / "log", {"best": [1.0, 0.5]}, events=[*events, ended]))
    assert {"time_line", "workers"} <= set(names_of(pictures))
    text = Elements(page.read_text()).text
    assert "90 x worker lost" in text
    # What differs in numbers alone is one row, where it is more than three.
    assert "At last: worker: 89, reason: gone, units: 1" in text
    assert text.count("reason: gone") == 1
    assert text.count("client ac") == 1
    assert "The last 40 rows of 65. All of them are in events.jsonl." in text


def test_very_many_events_make_no_large_page(tmp_path):
    run = runs.make("one step", tmp_path / "run")
    started = datetime.datetime.fromisoformat(json.loads((run / "meta.json").read_text())["started"])
    later = [started + datetime.timedelta(seconds=second / 10) for second in range(20_000)]
    lines = [json.dumps({"time": time.isoformat(), "event": "evaluation raised"}) for time in later]
    (run / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    page, *pictures = write_report(run)
    assert "time_line" in names_of(pictures)
    assert page.stat().st_size < 1_000_000
    assert "evaluation raised (20000)" in page.read_text()


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "evaluations.bin",
        "events.jsonl",
        "meta.json",
        "metrics.jsonl",
        "result.json",
        "timings.jsonl",
    ],
)
def test_half_of_a_directory_is_reported(made, name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made("smooth"), run)
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    page, *pictures = write_report(run)
    assert page.exists()
    assert bool(pictures) == (name != "metrics.jsonl")


@pytest.mark.parametrize("name", ["config.json", "start.safetensors"])
def test_what_is_no_run_any_more_says_so(made, name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made("smooth"), run)
    (run / name).unlink()
    with pytest.raises(RunDirectoryError, match=f"it has no {name}"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_full_disk_leaves_the_report_before(made, tmp_path, monkeypatch):
    before = [path.read_bytes() for path in write_report(made("smooth"), tmp_path)]
    written = []

    def full(path, data):
        written.append(path)
        if path.suffix == ".html":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zoo.report.writing.write_atomically", full)
    with pytest.raises(RunDirectoryError, match=r"report\.html cannot be written: No space left.*--out"):
        write_report(made("smooth"), tmp_path)
    assert written[-1] == tmp_path / "report.html"
    monkeypatch.undo()
    monkeypatch.setattr("zoo.run.checkpoint.os.fsync", lambda _: full(tmp_path / "x.html", b""))
    with pytest.raises(RunDirectoryError, match="No space left"):
        write_report(made("smooth"), tmp_path)
    monkeypatch.undo()
    after = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in after if path.name.startswith(".")] == []
    assert [path.read_bytes() for path in [tmp_path / "report.html"]] == before[:1]


def test_a_directory_that_may_only_be_read_asks_for_another_place(made, tmp_path, monkeypatch):
    def refused(*_args, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("zoo.report.writing.Path.mkdir", refused)
    with pytest.raises(RunDirectoryError, match=r"cannot be written: Read-only file system.*--out"):
        write_report(made("smooth"))
    monkeypatch.undo()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunDirectoryError, match="cannot be written: File exists"):
        write_report(made("smooth"), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_pictures_are_not_written_through_a_link(made, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match=r"run/report is a link: .* Remove it, or .*--out"):
        write_report(made("one step"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert write_report(made("one step"), tmp_path / "link")[0].exists()


def test_the_users_own_style_and_pyplot_stay_as_they_are(made, tmp_path):
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9.0, "text.usetex": True, "figure.facecolor": "red"}):
        kept = dict(matplotlib.rcParams)
        plain = write_report(made("one step"), tmp_path / "one")
        assert dict(matplotlib.rcParams) == kept
    again = write_report(made("one step"), tmp_path / "other")
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in again]


def test_a_report_needs_little(made, tmp_path):
    code = """
import sys
from zoo.report import compare, write_report
write_report(sys.argv[1], sys.argv[2])
heavy = {"torch", "ray", "scipy.stats", "scipy.optimize", "matplotlib.pyplot", "cma"}
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-W", "error", "-c", code, str(made("constrained")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stderr
