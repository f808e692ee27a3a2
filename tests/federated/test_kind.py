"""What commands of `zoo` ask of a federation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import federated
import zoo
from federated.kind import KIND
from zoo.facade import Interrupted
from zoo.loggers import CSV
from zoo.report.comparison import columns_of, comparisons
from zoo.report.entries import entry_of, sections_of
from zoo.run import kinds
from zoo.run.directory import read_config
from zoo.run.reading import read_recording
from zoo.serve.watched import Watched

SMALL = {"dim": 5, "num_clients": 2}


def run(path, seed=0, **changes):
    settings = {"method": "fedzo", "task_options": SMALL, "rounds": 2} | changes
    return federated.federate("quadratic", **settings, rng=seed, out=path)


def test_it_is_found_by_its_name():
    assert kinds.find("federated") is KIND
    assert "federated" in kinds.names()


def test_runs_of_other_seeds_are_of_one_task_and_those_of_other_options_are_not(tmp_path):
    settings = {
        "first": {}, "second": {"seed": 1}, "other": {"task_options": {**SMALL, "heterogeneity": 5.0}},
        "network": {"network": {"dropout": 0.5}}, "method": {"method": "fedprox"},
    }  # fmt: skip
    configs = {}
    for name, changes in settings.items():
        run(tmp_path / name, **changes)
        configs[name] = read_config(tmp_path / name)[0]
    tasks = {name: KIND.task(config) for name, config in configs.items()}
    assert [name for name in tasks if tasks[name] != tasks["first"]] == ["other"]
    options = {name: KIND.options(config) for name, config in configs.items()}
    assert [name for name in options if options[name] != options["first"]] == ["network"]
    assert KIND.title(configs["first"]) == "quadratic, 2 clients, 5 variables"
    entries = [entry_of(read_recording(tmp_path / name)) for name in ("first", "second", "network", "method")]
    (section,) = sections_of(entries, "options")
    assert sorted(len(group.entries) for group in section.groups) == [1, 1, 2]
    (one,) = comparisons([tmp_path / "first", tmp_path / "method"])
    assert columns_of(one)[2:6] == ("Median F", "Quartiles", "Best F", "Queries")


def test_a_target_is_that_of_the_run(tmp_path):
    run(tmp_path / "run", target=-0.5)
    assert KIND.target(read_config(tmp_path / "run")[0]) == -0.5
    run(tmp_path / "none")
    assert KIND.target(read_config(tmp_path / "none")[0]) is None


def test_loggers_call_things_by_their_names(tmp_path):
    found = run(tmp_path / "run")
    CSV(tmp_path / "steps.csv").replay(tmp_path / "run")
    header, *rows = (tmp_path / "steps.csv").read_text().splitlines()
    columns = [dict(zip(header.split(","), row.split(","), strict=False)) for row in rows]
    assert header.startswith("step,queries,best,value,")
    assert [int(row["queries"]) for row in columns] == found.history["queries"][1:].tolist()
    assert [float(row["value"]) for row in columns] == found.history["value"][1:].tolist()
    CSV(tmp_path / "steps.csv").replay(tmp_path / "run")  # a log of steps may be written anew


def test_zoo_resumes_it_and_an_interruption_says_how_far_it_came(tmp_path):
    def stop(one):
        if one.round == 1:
            raise StopIteration

    whole = run(tmp_path / "whole")
    run(tmp_path / "part", callback=stop)
    found = zoo.resume(tmp_path / "part")
    assert found.x.tolist() == whole.x.tolist()
    error = Interrupted("stopped by Ctrl-C", found, 2)
    from federated.kind import telling_how_far

    with pytest.raises(Interrupted), telling_how_far():
        raise error
    assert error.so_far == f"after 2 rounds and {found.queries:,} queries, F being {found.value:.6g}"
    error.so_far = "in another one"
    with pytest.raises(Interrupted), telling_how_far():
        raise error
    assert error.so_far == "in another one"


def test_a_page_that_follows_runs_calls_it_by_its_task_and_its_numbers_by_theirs(tmp_path):
    run(tmp_path / "run")
    watched = Watched(tmp_path / "run", "run")
    watched.look(0, 0.0)
    assert watched.summary["objective"] == "quadratic"
    words = watched.summary["words"]
    assert (words["value"], words["values"], words["evaluations"]) == ("F", "F", "queries")
    assert words["lines"] == {"worst": "worst client", "value": "F"}
    curves = watched.curves()
    curves.read()
    columns = watched.detail("")["columns"]
    assert {*words["lines"], *words["quiet"]} - {"gradients"} <= columns.keys()
    assert columns["absent"] == columns["hidden"] == [0, 0]  # which is not drawn


def test_it_is_light():
    code = "import federated.kind, federated.cli.federate, sys; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
