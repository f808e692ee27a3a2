"""Reports of federations: what is drawn and said of one, and what of several beside each other."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import federated
import zoo
from federated.report import clients as drawn_clients
from federated.report.about import about
from federated.report.comparison import Trials, contests_of, table, value_at, write_comparison
from federated.report.comparison_figures import MANY, curves
from federated.report.levels import levels_of, reached
from federated.report.material import CLIENTS, Course, course_of
from federated.report.sections import sections
from federated.tasks.synthetic import Quadratic
from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.report import write_report
from zoo.report.comparison import comparisons
from zoo.report.comparison import write_comparison as compare_all
from zoo.report.comparison_figures import styles
from zoo.run.directory import checksum
from zoo.run.reading import read_recording

SMALL = {"dim": 4, "num_clients": 3}
LOSSY = {"participation": 0.6, "dropout": 0.2, "latency": 1.0, "spread": 0.6, "wait_for": 0.5}


class Measured(Quadratic):
    """A task that measures something beside its values, in which some clients count for more."""

    measures = ("accuracy",)

    def weight(self, client):
        return 1.0 + client

    def measure(self, client, x):
        value = super().measure(client, x)["value"]
        return {"value": value, "accuracy": 1 / (2 + value)}


class Silent(Quadratic):
    """A task whose second client never has a value for those who look on."""

    def measure(self, client, x):
        return {"value": float("nan")} if client == 1 else super().measure(client, x)


def made(out, task="quadratic", method="fedzo", rounds=3, seed=0, **more):
    """Do a small run in a directory, and return its result."""
    options = {} if method == "fedavg" else {"num_directions": 2, **more.pop("options", {})}
    options["num_steps"] = 2
    given = {"task_options": SMALL} if isinstance(task, str) else {}
    settings = {"options": options, **given, **more}
    return federated.federate(task, method, rounds=rounds, rng=seed, out=out, **settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return directories of some runs of one task, and their results, by method and seed."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for method, seeds, rounds in (("fedzo", 3, 4), ("scaffold-1", 2, 3), ("fedavg", 1, 2)):
        for seed in range(seeds):
            path = folder / method / str(seed)
            found[method, seed] = made(path, method=method, rounds=rounds, seed=seed)
    return folder, found


@pytest.fixture(scope="module")
def lossy(tmp_path_factory):
    """Return the directory of a run over a bad network, and its result."""
    path = tmp_path_factory.mktemp("lossy") / "run"
    return path, made(path, task_options={"dim": 4, "num_clients": 30}, rounds=6, network=LOSSY)


def words(page: Path) -> str:
    """Return what a page says, without its figures."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def rows_of(path: Path) -> list[list[str]]:
    """Return the rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.reader(file))


def course(values, *, queries=None, optimum=None, clients=None, measures=(), has_ended=True):
    """Return a course with these values of F, one query and ten bytes a round."""
    values = np.array(values, float)
    rounds = np.arange(len(values), dtype=float)
    columns = dict.fromkeys(("hidden", "clock", "answers", "worst", "spread"), np.zeros(len(values)))
    columns |= {"round": rounds, "queries": rounds if queries is None else np.array(queries, float)}
    columns |= {"up": 4 * rounds, "down": 6 * rounds, "bytes": 10 * rounds, "value": values}
    columns |= dict.fromkeys(measures, values)
    config = {"optimum": optimum, "measures": list(measures), "num_clients": 3}
    known = values[np.isfinite(values)]
    final = float(known[-1]) if len(known) else np.nan
    return Course(config, columns, clients or {}, len(values) - 1, final, 1.0, has_ended)


def test_a_course_begins_with_the_start(lossy):
    path, result = lossy
    found = course_of(read_recording(path))
    for name in ("round", "queries", "hidden", "up", "down", "clock", "value", "worst", "spread"):
        assert found.columns[name].tolist() == result.history[name].tolist()
    assert found.columns["bytes"].tolist() == (result.history["up"] + result.history["down"]).tolist()
    assert found.columns["answers"][1:].tolist() == result.history["answers"][1:].tolist()
    assert {name: column.tolist() for name, column in found.clients.items()} == {
        name: column.tolist() for name, column in result.clients.items()
    }
    assert (found.final, found.has_ended, found.as_of) == (result.value, True, 6)


def test_measures_have_a_start_as_well(tmp_path):
    result = made(tmp_path / "run", Measured(**SMALL))
    recording = read_recording(tmp_path / "run")
    found = course_of(recording)
    assert found.columns["accuracy"].tolist() == result.history["accuracy"].tolist()
    assert dict(about(recording).numbers)["Accuracy"] == f"{result.history['accuracy'][-1]:.6g}"
    names = [one.name for _, shown, _ in sections(recording) for one in shown]
    assert "measure_accuracy" in names
    (listed,) = [one for _, shown, _ in sections(recording) for one in shown if one.name == "clients"]
    assert listed.columns[-1] == "accuracy"
    assert [row[-1] for row in listed.rest] == result.clients["accuracy"].tolist()


@pytest.mark.parametrize(
    ("every", "known"), [(3, [True, False, False, True, True]), (0, [True, False, False, False, True])]
)
def test_where_nobody_looked_there_is_no_value_but_in_the_end(tmp_path, every, known):
    result = made(tmp_path / "run", rounds=4, measure_every=every)
    recording = read_recording(tmp_path / "run")
    found = course_of(recording)
    assert np.isfinite(found.columns["value"]).tolist() == known
    assert found.columns["value"][-1] == result.value
    assert found.columns["worst"][-1] == result.clients["value"].max()
    assert np.isfinite(recording.columns["median"]).tolist() == [every == 3 and at == 2 for at in range(4)]
    notes = {heading: note for heading, _, note in sections(recording)}
    assert notes["How it went"].startswith(f"F is known at {sum(known)} of 5 places")


def test_what_is_drawn_of_a_plain_run(runs):
    folder, _ = runs
    found = {heading: shown for heading, shown, _ in sections(read_recording(folder / "fedzo" / "0"))}
    assert [one.name for one in found["How it went"]] == [
        "value_rounds",
        "gap_rounds",
        "gap_queries",
        "gap_bytes",
    ]
    gap = found["How it went"][2].figure.axes[0]
    assert (gap.get_yscale(), gap.get_xlabel()) == ("log", "queries")
    assert [one.name for one in found["Clients"]] == ["clients_values", "spread", "clients"]
    assert found["What the network did"] == []
    assert found["What the task measures"] == []


def test_what_a_method_says_of_itself_is_drawn_against_rounds(tmp_path):
    federated.federate("quadratic", "decomfl", task_options=SMALL, rounds=3, rng=0, out=tmp_path / "run")
    found = {heading: shown for heading, shown, _ in sections(read_recording(tmp_path / "run"))}
    (picture,) = found["How the method searched"]
    axes = picture.figure.axes[0]
    assert (axes.get_title("left"), axes.get_xlabel()) == ("Rounds kept", "rounds")
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]


def test_bytes_are_drawn_in_each_direction(runs):
    folder, results = runs
    history = results["scaffold-1", 0].history
    found = sections(read_recording(folder / "scaffold-1" / "0"))
    (picture,) = [one for _, shown, _ in found for one in shown if one.name == "gap_bytes"]
    lines = {line.get_label(): line.get_xdata().tolist() for line in picture.figure.axes[0].lines}
    assert lines["sent by clients"] == history["up"].tolist()
    assert lines["sent by the server"] == history["down"].tolist()
    assert lines["both"] == (history["up"] + history["down"]).tolist()


def test_what_the_network_did_is_counted(lossy):
    path, result = lossy
    found = {heading: shown for heading, shown, _ in sections(read_recording(path))}
    assert found["How it went"][-1].name == "gap_clock"
    lost, answers = found["What the network did"]
    lines = {line.get_label(): line.get_ydata()[-1] for line in lost.figure.axes[0].lines}
    assert lines["trips without a reply"] == result.faults["absent"] > 0
    assert lines["late replies"] == result.faults["late"] > 0
    assert "second replies" not in lines
    assert "late replies: replies that were not waited for" in lost.caption
    (line,) = answers.figure.axes[0].lines
    assert line.get_ydata().tolist() == result.history["answers"][1:].tolist()


def test_what_is_said_of_a_run(lossy):
    path, result = lossy
    said = about(read_recording(path))
    numbers = dict(said.numbers)
    worst = int(result.clients["value"].argmax())
    assert said.title == "quadratic, minimised by fedzo"
    assert numbers["F"] == f"{result.value:.6g}"
    assert numbers["Gap to the optimum"] == f"{result.value - Quadratic(dim=4).optimum:.4g}"
    assert numbers[f"Worst client, {worst}"] == f"{result.clients['value'].max():.6g}"
    assert (numbers["Rounds"], numbers["Queries"]) == ("6 of 6", f"{result.queries:,}")
    assert dict(said.point)["queries, most"] == str(result.clients["queries"].max())
    counters = dict(said.counters)
    assert counters["Bytes sent by clients"] == f"{result.up:,}"
    assert counters["Late replies"] == str(result.faults["late"])
    experiment = dict(said.experiment)
    assert experiment["Network"] == ", ".join(f"{name}={value}" for name, value in LOSSY.items())
    assert "num_directions=2" in experiment["Options"]
    assert "learning_rate=" in experiment["Options"]
    assert "resume" not in " ".join(command for _, command in said.commands)


def test_a_page_holds_what_there_is(lossy, tmp_path):
    path, result = lossy
    page, *files = write_report(path, tmp_path / "out")
    text = words(page)
    assert "quadratic, minimised by fedzo" in text
    assert "The 10 clients that x is worst for" in text
    for file in files:
        assert file.suffix == ".csv" or file.read_bytes().startswith(b"\x89PNG")
    heads, *rows = rows_of(tmp_path / "out" / "report" / "clients.csv")
    assert heads == ["Client", "Queries", "Bytes sent", "Bytes received", "Rounds answered", "f_i(x)"]
    assert [int(row[1]) for row in rows] == result.clients["queries"].tolist()
    assert [float(row[-1]) for row in rows] == result.clients["value"].tolist()
    assert not (path / "report.html").exists()


def test_of_many_clients_the_worst_are_listed():
    values = np.array([np.nan if client == 7 else float(client % 100) for client in range(1000)])
    counts = {name: np.arange(1000.0) for name in ("queries", "sent", "received", "answered")}
    found = course([1.0, 0.5], clients={**counts, "value": values})
    listed = drawn_clients.table(found)
    assert [row[0] for row in listed.rows[:10]] == ["7", *(str(100 * at + 99) for at in range(9))]
    assert [row[0] for row in listed.rows[10:]] == ["all, least", "all, median", "all, most"]
    assert [row[-1] for row in listed.rows[10:]] == ["0", "50", "99"]
    assert [row[1] for row in listed.rows[10:]] == ["0", "500", "999"]
    assert len(listed.rest) == 1000
    picture = drawn_clients.picture(found)
    axes = picture.figure.axes[0]
    assert axes.get_xlabel() == "% of clients, the best ones first"
    assert axes.lines[0].get_ydata().tolist() == np.sort(values[np.isfinite(values)]).tolist()
    assert dict(drawn_clients.in_words(found))["without a value"] == "1"


def test_a_few_clients_are_drawn_one_by_one():
    counts = dict.fromkeys(("queries", "sent", "received", "answered"), np.ones(3))
    found = course([1.0, 0.5], clients={**counts, "value": np.array([0.25, 1.0, 0.25])})
    worst = drawn_clients.picture(found).figure.axes[0].lines[1]
    assert (worst.get_xdata().tolist(), worst.get_ydata().tolist()) == ([1], [1.0])
    said = dict(drawn_clients.in_words(found))
    assert (said["worst client"], said["highest f_i(x)"], said["lowest f_i(x)"]) == ("1", "1", "0.25")


def test_what_is_the_same_at_all_clients_is_not_said_of_each():
    columns = ("Client", "Queries", "Bytes sent", "Bytes received", "Rounds answered", "f_i(x)")
    measures = {"measures": ["accuracy", "size"], "shared_measures": ["accuracy"]}
    two = {name: np.ones(2) for name in (*CLIENTS, "accuracy", "size")}
    course = Course(measures, {}, two, 1, 1.0, 1.0, True)
    assert tuple(drawn_clients.table(course).columns) == (*columns, "size")


def test_one_client_is_no_picture_and_has_no_spread(tmp_path):
    made(tmp_path / "run", task_options={"dim": 1, "num_clients": 1})
    found = {heading: shown for heading, shown, _ in sections(read_recording(tmp_path / "run"))}
    assert [one.name for one in found["Clients"]] == ["clients"]
    assert [line.get_label() for line in found["How it went"][0].figure.axes[0].lines] == ["F"]


def test_of_a_client_without_a_value_f_is_that_of_the_others(tmp_path):
    result = made(tmp_path / "run", Silent(**SMALL))
    recording = read_recording(tmp_path / "run")
    found = {heading: (shown, note) for heading, shown, note in sections(recording)}
    words_of = "F is the mean of those clients that had a value: at the least 2 of 3."
    assert found["How it went"][1] == words_of
    told = dict(about(recording).numbers)
    assert (told["F"], told["F is over"]) == (f"{result.value:.6g}", "2 of 3 clients")
    values = result.clients["value"][[0, 2]]
    assert told[f"Worst client, {2 * int(values.argmax())}"] == f"{values.max():.6g}"
    assert found["Clients"][0][-1].rows[1][-1] == "none"
    (row,) = table([tmp_path / "run"])
    assert (row["value"], row["worst"]) == (result.value, values.max())


class Mute(Quadratic):
    """A task of which those who look on never learn anything."""

    def measure(self, client, x):
        return {"value": float("nan")}


def test_where_no_client_has_a_value_f_is_not_known(tmp_path):
    made(tmp_path / "run", Mute(**SMALL))
    recording = read_recording(tmp_path / "run")
    found = {heading: (shown, note) for heading, shown, note in sections(recording)}
    assert found["How it went"] == ([], "F is not known: no client had a value.")
    assert dict(about(recording).numbers)["F"] == "none"
    page = write_comparison([tmp_path / "run"], tmp_path / "out")
    assert "F is not known of any run." in words(page)
    assert table([tmp_path / "run"])[0]["value"] is None


def killed(tmp_path, monkeypatch):
    """Return the directory of a run as it is when killed after its second round of three."""
    monkeypatch.setattr("zoo.run.loop.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("federated.job.FederatedJob.checkpoint_seconds", 0)
    monkeypatch.setattr("zoo.run.directory._SECONDS", -1)  # lines of the log are written at once
    seen = []

    def keep(one):
        seen.append(one)
        if one.round == 2:
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    made(tmp_path / "run", callback=keep)
    return tmp_path / "killed", seen[1]


def test_a_run_under_way_is_reported_as_of_its_checkpoint(tmp_path, monkeypatch):
    path, seen = killed(tmp_path, monkeypatch)
    found = course_of(read_recording(path))
    assert (found.final, found.has_ended, found.as_of) == (seen.value, False, 2)
    assert found.clients["queries"].sum() == seen.queries
    assert found.clients["value"].mean() == pytest.approx(seen.value)
    page = write_report(path)[0]
    assert "As of round 2, the newest checkpoint." in words(page)
    assert f"zoo resume {path}" in words(page)
    shutil.rmtree(path / "checkpoints")
    assert course_of(read_recording(path)).clients == {}
    text = words(write_comparison([tmp_path / "killed", tmp_path / "run"], tmp_path / "out"))
    assert "2 runs of 1 method; 1 of them has not ended." in text
    assert "2, 1 ended" in text


def test_a_run_without_a_round_is_reported(tmp_path):
    made(tmp_path / "run")
    for file in ("result.json", "metrics.jsonl", "timings.jsonl"):
        (tmp_path / "run" / file).unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    page, *files = write_report(tmp_path / "run")
    assert files == []
    assert "No step is on record, so there is nothing to draw." in words(page)
    assert table([tmp_path / "run"])[0]["queries"] is None


def test_a_table_holds_medians_over_runs(runs):
    folder, results = runs
    rows = {row["method"]: row for row in table([folder])}
    assert [row["value"] for row in rows.values()] == sorted(row["value"] for row in rows.values())
    assert {name: row["runs"] for name, row in rows.items()} == {"fedzo": 3, "scaffold-1": 2, "fedavg": 1}
    least = min(one.queries for (method, _), one in results.items() if method != "fedavg")
    for method, row in rows.items():
        mine = [one for (name, _), one in results.items() if name == method]
        assert row["value"] == np.median([one.value for one in mine])
        assert (row["lowest"], row["highest"]) == (min(o.value for o in mine), max(o.value for o in mine))
        assert row["gap"] == np.median([one.value - Quadratic(**SMALL).optimum for one in mine])
        assert row["worst"] == np.median([one.clients["value"].max() for one in mine])
        assert row["spread"] == np.median([one.clients["value"].std() for one in mine])
        for name in ("rounds", "queries", "hidden", "up", "down", "clock"):
            assert row[name] == np.median([getattr(one, name) for one in mine])
        assert row["equal_queries"] == least
        then = [one.history["value"][one.history["queries"] <= least][-1] for one in mine]
        assert row["value_then"] == np.median(then)


def test_a_page_compares_methods(runs, tmp_path):
    folder, results = runs
    page = write_comparison([folder], tmp_path / "out")
    text, source = words(page), page.read_text()
    assert "6 runs of 3 methods." in text
    assert "Runs differ" in text or "Groups differ" in text
    assert "from its lowest to its highest run" in text
    assert "Not drawn, as there is nothing to draw: fedavg." in text
    assert "http://" not in re.sub(r'xmlns[^=]*="[^"]*"', "", source)
    beside = sorted(file.name for file in page.parent.iterdir() if file != page)
    assert beside == [
        "bytes.png",
        "clients.csv",
        "clients_values.png",
        "finals.png",
        "found.csv",
        "levels.csv",
        "queries.png",
        "round.png",
        "taken.csv",
    ]
    heads, *rows = rows_of(page.parent / "clients.csv")
    assert heads == ["Client", *(row["method"] for row in table([folder]))]
    mine = np.median([results["fedzo", seed].clients["value"] for seed in range(3)], axis=0)
    assert [float(row[heads.index("fedzo")]) for row in rows] == mine.tolist()


def test_settings_that_differ_are_methods_of_their_own(runs, tmp_path):
    folder, _ = runs
    made(tmp_path / "half", rounds=2, network={"participation": 0.5})
    made(tmp_path / "more", rounds=2, options={"num_directions": 3})
    made(
        tmp_path / "other",
        rounds=2,
        task_options={"dim": 5, "num_clients": 2},
        options={"scale": "published"},
    )
    here = [folder / "fedzo", tmp_path]
    first, second = contests_of(here)
    assert {group.name for group in first.groups} == {
        "fedzo (num_directions=2)",
        "fedzo (num_directions=2, participation=0.5)",
        "fedzo (num_directions=3)",
    }
    assert [group.name for group in second.groups] == ["fedzo"]
    assert second.section.title == "quadratic, 2 clients, 5 variables"
    page = write_comparison(here, tmp_path / "out")
    assert "on 2 tasks" in words(page)
    assert {"queries_1.png", "queries_2.png"} < {file.name for file in page.parent.iterdir()}


def test_runs_of_another_kind_are_left_out(runs, tmp_path):
    folder, _ = runs
    zoo.minimize(lambda x: (x**2).sum(), [1.0, 2.0], budget=20, rng=0, out=tmp_path / "sphere")
    with pytest.raises(RunDirectoryError, match="holds a run of another kind; zoo compare takes it"):
        table([tmp_path / "sphere"])
    with pytest.warns(ZooWarning, match="left out: .* holds a run of another kind"):
        rows = table([folder / "fedavg", tmp_path / "sphere"])
    assert [row["method"] for row in rows] == ["fedavg"]


def test_texts_of_others_are_escaped(runs, tmp_path):
    folder, _ = runs
    path = tmp_path / "run"
    shutil.copytree(folder / "fedzo" / "0", path)
    config = json.loads((path / "config.json").read_text())
    del config["sha256"]
    config |= {"method": "<b>bold", "measures": ["<i>"]}
    (path / "config.json").write_text(json.dumps({**config, "sha256": checksum(config)}))
    for page in (write_report(path)[0], write_comparison([path], tmp_path / "out")):
        assert "<b>bold" not in page.read_text()
        assert "&lt;b&gt;bold" in page.read_text()


@pytest.mark.parametrize(
    ("values", "optimum", "found"),
    [
        ([5.0, 0.02, 0.0009], 0.0, [1.0, 0.1, 0.01, 0.001]),
        ([3e4, 1e-3], 0.0, [1e4, 1e2, 1e-1, 1e-3]),
        ([2.0, 1.0], 0.0, [1.5, 1.25, 1.1, 1.03]),
        ([2.0, -2.0], None, [0.0, -1.0, -1.6, -1.9]),
        ([1.0, 1.0], 0.0, []),
        ([1.0, 2.0], 0.0, []),
        ([np.nan, np.nan], None, []),
    ],
    ids=["decades", "many decades", "no decade", "no optimum", "flat", "worse", "unknown"],
)
def test_levels_are_between_where_all_began_and_the_best_ended(values, optimum, found):
    assert levels_of([Trials("one", [course(values, optimum=optimum)])], optimum is not None) == found


def test_a_level_is_reached_where_somebody_first_saw_it():
    found = course([4.0, np.nan, 1.0, 2.0, 0.5], queries=[0, 10, 20, 30, 40])
    assert reached(found, 1.0, False) == (2.0, 20.0, 20.0)
    assert reached(found, 0.75, False) == (4.0, 40.0, 40.0)
    assert reached(found, 0.1, False) == (np.inf,) * 3


def test_the_value_by_so_many_queries_is_that_of_the_last_look():
    found = course([4.0, np.nan, 1.0, 2.0], queries=[0, 10, 20, 30])
    assert [value_at(found, queries) for queries in (0, 19, 20, 29, 1e9)] == [4.0, 4.0, 1.0, 1.0, 2.0]
    assert np.isnan(value_at(course([np.nan, 1.0]), 0))


def lines_of(picture):
    """Return the lines of a figure by name, as (x, y)."""
    axes = picture.figure.axes[0]
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in named}


def test_medians_are_of_lines_from_look_to_look():
    groups = [
        Trials("two", [course([4.0, 2.0], queries=[0, 10]), course([8.0, np.nan, 0.0], queries=[0, 5, 20])]),
        Trials("one", [course([4.0, 3.0, 3.5], queries=[0, 20, 30])]),
    ]
    _, picture, *_ = curves(groups, False, styles(["two", "one"]), "")
    lines = lines_of(picture)
    assert lines["two"] == ([0, 10, 20], [6.0, 3.0, 1.0])
    assert lines["one"] == ([0, 20, 30], [4.0, 3.0, 3.5])
    (band,) = picture.figure.axes[0].collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.tolist()} == {
        (0.0, 4.0),
        (0.0, 8.0),
        (10.0, 2.0),
        (10.0, 4.0),
        (20.0, 0.0),
        (20.0, 2.0),
    }
    assert "from its lowest to its highest run" in picture.caption


def test_gaps_are_drawn_on_a_logarithmic_scale_also_between_looks():
    groups = [
        Trials("a", [course([1.0, 0.01], queries=[0, 20]), course([1.0, 0.01, 0.0], queries=[0, 10, 20])])
    ]
    for one in groups[0].courses:
        one.config["optimum"] = 0.0
    _, picture, *_ = curves(groups, True, styles(["a"]), "")
    axes = picture.figure.axes[0]
    assert axes.get_yscale() == "log"
    x, y = lines_of(picture)["a"]
    assert x == [0, 10, 20]
    assert y == pytest.approx([1.0, (0.1 + 0.01) / 2, 0.01])  # none of 0, which has no place


def test_bands_of_many_runs_are_between_quartiles():
    few = [Trials("few", [course([4.0, 1.0 + seed]) for seed in range(MANY - 1)])]
    many = [Trials("many", [course([4.0, 1.0 + seed]) for seed in range(MANY)])]
    for groups, said in ((few, "from its lowest to its highest run"), (many, "between its quartiles")):
        picture = next(curves(groups, False, styles([groups[0].name]), ""))
        assert said in picture.caption
    band = picture.figure.axes[0].collections[0].get_paths()[0].vertices
    assert set(band[band[:, 0] == 1.0][:, 1]) == {2.0, 4.0}


def test_where_methods_take_very_different_amounts_the_axis_is_logarithmic():
    groups = [
        Trials("cheap", [course([4.0, 2.0, 1.0], queries=[0, 1, 2])]),
        Trials("dear", [course([4.0, 2.0, 1.0], queries=[0, 500, 1000])]),
    ]
    rounds, queries, *_ = curves(groups, False, styles(["cheap", "dear"]), "")
    assert rounds.figure.axes[0].get_xscale() == "linear"
    assert queries.figure.axes[0].get_xscale() == "log"
    assert lines_of(queries)["dear"] == ([500, 1000], [2.0, 1.0])


def test_zoo_compare_has_words_for_federations(runs, tmp_path):
    folder, results = runs
    (one,) = comparisons([folder / "fedzo", folder / "scaffold-1"])
    assert one.section.title == "quadratic, 3 clients, 4 variables"
    said = {group["name"]: group for group in one.plain["groups"]}
    assert said["fedzo"]["median"] == np.median([results["fedzo", seed].value for seed in range(3)])
    assert said["fedzo"]["best"] == min(results["fedzo", seed].value for seed in range(3))
    page, *_ = compare_all([one], tmp_path)
    text = words(page)
    assert "Queries: the median of a group. To the target: queries to reach" in text
    assert "Best F against queries" in text
    assert "The function is random" not in text
