"""`zoo run`: experiments from files."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from zoo.registry import find


def test_a_dry_run_prints_what_would_be_run(zoo, model):
    done = zoo("run", "experiment.toml", "--dry-run", "--set", "method.name=de")
    assert done.status == 0, done.err
    assert not Path("runs").exists()
    Path("whole.toml").write_text(done.out, encoding="utf-8")
    assert zoo("run", "whole.toml", "--dry-run").out == done.out
    assert zoo("run", "whole.toml").json["method"] == "de"
    assert Path("runs/experiment/result.json").exists()


def test_a_dry_run_says_what_nobody_has_said(zoo, model):
    said = zoo("run", "experiment.toml", "--dry-run", "--set", "method.options.sigma=2").out
    options = said.partition("[method.options]\n")[2].partition("\n\n")[0].splitlines()
    assert options[:3] == ["sigma = 2", "# population_size = None", "# active = true"]
    assert {line.strip("# ").split(" = ")[0] for line in options} == {*find("cma").options()}
    for comment in ("# bounds: none", "# scale: .3 of the width of `bounds`, else 1", "# seconds: none"):
        assert f"\n{comment}\n" in f"{said}\n"
    assert "# seed" not in said
    space = 'objective = {function = "model:loss", space.a = {type = "float", lower = 0, upper = 1}}'
    Path("space.toml").write_text(space)
    said = zoo("run", "space.toml", "--dry-run").out
    assert "# seed: a fresh one\n" in said
    assert "# x0: the middle of `bounds` or `space`\nconstraints = []\n" in said


def test_a_dry_run_evaluates_nothing_and_imports_all(zoo, model):
    Path("broken").touch()
    assert zoo("run", "experiment.toml", "--dry-run").status == 0
    done = zoo("run", "experiment.toml", "--dry-run", "--set", "objective.function=model:fitness")
    assert done.status == 2
    assert "'model' has no 'fitness'" in done.err


def test_a_run_is_resumed_and_another_one_refused(zoo, model):
    first = zoo("run", "experiment.toml", "--progress", "lines")
    assert first.status == 0
    assert "directory=runs/experiment" in first.err
    assert zoo("run", "experiment.toml").json["x"] == first.json["x"]
    refused = zoo("run", "experiment.toml", "--set", "stop.budget=300")
    assert refused.status == 2
    assert "runs/experiment holds another run: 'budget' differ" in refused.err
    elsewhere = zoo("run", "experiment.toml", "--set", "stop.budget=300", "--out", "runs/longer")
    assert elsewhere.json["nfev"] == 300
    assert Path("runs/longer").is_dir()


@pytest.mark.parametrize("name", ["runs/\N{GRINNING FACE}", '"1\\n" = 2', os.fsdecode(b"caf\xe9")])
def test_a_directory_may_have_any_name(zoo, model, name):
    assert zoo("run", "experiment.toml", "--set", "job.out=elsewhere", "--out", name).status == 0
    assert Path(name, "result.json").exists()
    assert not Path("elsewhere").exists()
    done = zoo("run", "experiment.toml", "--dry-run", "--out", name)
    if name.isprintable():
        Path("whole.toml").write_text(done.out, encoding="utf-8")
        assert tomllib.loads(done.out)["job"]["out"] == name
        assert zoo("run", "whole.toml", "--dry-run").out == done.out
    else:
        assert done.err == "zoo: a file can hold names in UTF-8 only, got 'out = \"caf\\udce9\"'.\n"
        assert done.status == 2


def test_an_objective_that_fails_goes_on_by_the_same_command(zoo, model):
    Path("broken").touch()
    done = zoo("run", "experiment.toml", "--set", "stop.budget=90", "--out", "a run")
    assert done.status == 3
    assert "`zoo run experiment.toml --set stop.budget=90 --out 'a run'` goes on" in done.err
    Path("broken").unlink()
    assert zoo("run", "experiment.toml", "--set", "stop.budget=90", "--out", "a run").json["nfev"] == 90


def test_logs_that_the_file_and_the_command_ask_for(zoo, model):
    zoo("run", "experiment.toml", "--set", "job.log=['csv']", "--log", "csv")
    assert len(Path("runs/experiment/steps.csv").read_text().splitlines()) > 10
