"""`zoo resume` from another folder than the one in which the run began."""

from __future__ import annotations

import json
import re
import sys

import pytest

_MODEL = "def loss(x):\n    return float(((x - {0}) ** 2).sum())\n\n\ndef above(x):\n    return x[0] - 0.1\n"


@pytest.fixture
def begun(zoo, tmp_path, monkeypatch):
    """Return what begins a run in another folder, leaves it after some steps, and returns its directory."""

    def begin(module="model", *options):
        home = tmp_path / "home"
        file = home / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(parents=True)
        file.write_text(_MODEL.format(0.3))
        if file.parent != home:
            (file.parent / "__init__.py").touch()
        with monkeypatch.context() as patch:
            patch.chdir(home)
            command = ("minimize", f"{module}:loss", "--x0", "0x3", "--budget", "300", "--seed", "1")
            assert zoo(*command, "--seconds", "1e-9", "--out", "run", *options).status == 0
        zoo.forget()
        return home / "run"

    return begin


@pytest.mark.parametrize("module", ["model", "models.first"])
def test_a_module_is_found_where_it_was(zoo, begun, module):
    run = begun(module, "--constraint", f"{module}:above")
    done = zoo("resume", run)
    assert done.status == 0
    assert "warning" not in done.err
    assert "budget" in done.json["message"]
    assert done.json["x"] == pytest.approx([0.3] * 3, abs=1e-3)


def test_an_experiment_is_resumed_from_elsewhere(zoo, begun, tmp_path):
    run = begun()
    file = run.parent / "experiment.toml"
    file.write_text(
        'objective = {function = "model:loss", x0 = "0x3"}\nstop = {budget = 200, seconds = 1e-9}\n'
    )
    assert zoo("run", file, "--out", "made").status == 0
    zoo.forget()
    assert zoo("resume", "made").json["nfev"] == 200


@pytest.mark.filterwarnings("always::zoo.core.errors.ZooWarning")
def test_no_other_module_is_taken_in_silence(zoo, begun, tmp_path):
    run, other = begun(), tmp_path / "model.py"
    other.write_text(_MODEL.format(5))
    done = zoo("resume", run)
    assert done.json["x"] == pytest.approx([0.3] * 3, abs=1e-3)
    assert f"{other} is another one, and left aside" in done.err


@pytest.mark.filterwarnings("always::zoo.core.errors.ZooWarning")
def test_what_takes_the_place_of_a_module_that_is_gone_is_named(zoo, begun, tmp_path):
    run = begun()
    gone = run.parent / "model.py"
    gone.rename(tmp_path / "model.py")
    done = zoo("resume", run)
    assert done.json["nfev"] == 300
    assert f"the module 'model' of {gone}, and goes on with that of {tmp_path / 'model.py'}" in done.err


def test_a_module_that_is_nowhere_is_told_with_its_last_place(zoo, begun):
    run = begun()
    (run.parent / "model.py").unlink()
    done = zoo("resume", run)
    assert done.status == 2
    assert f"minimises 'model:loss', which was in {run.parent / 'model.py'}: there is no module" in done.err
    assert "Be where that module is found" in done.err


def test_a_remembered_folder_is_named_before_anything_of_it_is_run(zoo, begun):
    run = begun()
    (run.parent / "model.py").write_text(
        "import sys\n\nprint('runs', file=sys.stderr)\n" + _MODEL.format(0.3)
    )
    said = zoo("resume", run).err
    assert f"zoo: 'model' is that of {run.parent / 'model.py'}" in said.partition("runs")[0]


@pytest.mark.parametrize("place", ["run", "run/inner", "link", "other"])
def test_a_run_directory_brings_no_code(zoo, begun, tmp_path, place):
    run, real = begun(), tmp_path / "home/model.py"
    folder = tmp_path / "home" / place
    if place == "link":
        folder.symlink_to(run)
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text("open('ran', 'w')\n" + _MODEL.format(5))
    meta = json.loads((run / "meta.json").read_text())
    meta["path"] = [str(folder), str(real.parent)]
    if place != "other":  # there, a folder of the path comes before that of the file
        real.unlink()
        meta["modules"] = {"model": str(folder / "model.py")}
    (run / "meta.json").write_text(json.dumps(meta))
    done = zoo("resume", run)
    assert done.status == 2
    assert "there is no module 'model'" in done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("modules", ["missing", None, [], {"model": 3}, {"model": "model.py"}])
def test_directories_without_places_are_resumed_as_before(zoo, begun, monkeypatch, modules):
    run = begun()
    meta = json.loads((run / "meta.json").read_text())
    del meta["modules"]
    (run / "meta.json").write_text(json.dumps(meta if modules == "missing" else {**meta, "modules": modules}))
    assert zoo("resume", run).status == 2
    zoo.forget()
    monkeypatch.chdir(run.parent)
    assert zoo("resume", run).json["nfev"] == 300
    monkeypatch.chdir(run.parents[1])


@pytest.mark.parametrize("command", ["./simulate.py", f"{sys.executable} simulate.py"])
@pytest.mark.parametrize("other", [False, True])
def test_no_other_program_is_started(zoo, tmp_path, monkeypatch, command, other):
    home, name = tmp_path / "home", "simulate.py"
    home.mkdir()
    text = "while True:\n    print(sum(float(v) ** 2 for v in input().split()), flush=True)\n"
    for folder in (home, tmp_path) if other else (home,):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(home)
    options = ("--x0", "1x2", "--budget", 40, "--out", "run", "--seconds", "1e-9")
    assert zoo("minimize", "--command", command, *options).status == 0
    monkeypatch.chdir(tmp_path)
    refused = zoo("resume", "home/run")
    assert refused.status == 2
    assert f"in {home}, and {command.split()[-1]!r} is not the same file here" in refused.err
    monkeypatch.chdir(home)
    assert zoo("resume", "run").json["nfev"] == 40
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ("resume", "run"),
        ("minimize", "zoo.problems:sphere", "--x0", "1x3", "--budget", "60", "--seed", "1", "--out", "run"),
        ("run", "experiment.toml", "--out", "run"),
    ],
)
def test_how_to_log_what_had_ended_before(zoo, tmp_path, command):
    (tmp_path / "experiment.toml").write_text(
        'objective = {function = "zoo.problems:sphere", x0 = "1x3"}\nstop = {budget = 60}\njob = {seed = 1}\n'
    )
    assert "logged" not in zoo("run", "experiment.toml", "--log", "csv", "--out", "other").err
    zoo("run", "experiment.toml", "--out", "run")
    done = zoo(*command, "--log", "csv")
    advice = re.findall("nothing is logged; `zoo (.*)` does that", done.err)
    assert advice == ["export run --to csv --out run/steps.csv"]
    assert not (tmp_path / "run/steps.csv").exists()
    assert zoo(*advice[0].split()).status == 0
    assert (tmp_path / "run/steps.csv").read_text() == (tmp_path / "other/steps.csv").read_text()
    assert "logged" not in zoo(*command).err
