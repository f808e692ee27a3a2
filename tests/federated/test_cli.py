"""`zoo federate` and what goes on with its runs: what goes where, and what is said of what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import federated
from federated.cli import completion
from tests.commands import commands
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_config

SMALL = ("-t", "dim=6", "--clients", 3)
FEW = ("--rounds", 3, "--seed", 1)
OWN = """
import os
import signal
from pathlib import Path

import numpy as np

from federated.tasks.synthetic import Quadratic


class Bowl(Quadratic):
    joint = False

    def __init__(self, num_clients=3, *, key=None):
        super().__init__(6, num_clients, key=key)

    def values(self, client, x, *, key):
        if client == 1 and os.path.exists("stop"):
            if int(Path("stop").read_text()) == 0:
                os.remove("stop")
                os.kill(os.getpid(), getattr(signal, Path("how").read_text()))
            else:
                Path("stop").write_text(str(int(Path("stop").read_text()) - 1))
        return super().values(client, x, key=key)


class Raising(Bowl):
    def values(self, client, x, *, key):
        raise ArithmeticError("out of clients")


class Shy(Bowl):
    def measure(self, client, x):
        return {"value": float("nan")} if client == 1 else super().measure(client, x)


class Silent(Bowl):
    def measure(self, client, x):
        return {"value": float("nan")}


def broken():
    return {}["data"]


def early():
    os.kill(os.getpid(), signal.SIGINT)
    return Bowl()


bowl = Bowl()
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch, capfd):
    """Return a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bowls.py").write_text(OWN)
    yield from commands(monkeypatch, capfd)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the digest of the run that `FEW` says of bowls, when nothing disturbs it."""
    path = tmp_path_factory.mktemp("whole") / "run"
    options = {"dim": 6, "num_clients": 3}
    federated.federate("quadratic", "fedzo", task_options=options, rounds=3, rng=1, out=path)
    return digest_of_run(path)


@pytest.fixture
def _unpaged(monkeypatch):
    """Have no pages drawn, which takes a second each."""
    monkeypatch.setattr("federated.report.comparison.write_comparison", lambda _, out, **told: out / "page")


def test_a_run_is_kept_and_resumed_and_reported(zoo):
    arguments = ("federate", "--task", "quadratic", *SMALL, "-m", "fedzo", *FEW, "--out", "run")
    done = zoo(*arguments, "--progress", "lines")
    assert done.status == 0, done.err
    found = done.json
    direct = federated.federate(
        "quadratic", "fedzo", task_options={"dim": 6, "num_clients": 3}, rounds=3, rng=1
    )
    assert found["value"] == direct.value
    assert found["clients"]["value"] == direct.clients["value"].tolist()
    assert (found["rounds"], found["queries"], found["up"]) == (3, direct.queries, direct.up)
    assert " zoo begins method=fedzo task=quadratic clients=3 dim=6 rounds=3 " in done.err
    assert " zoo finished method=fedzo round=3 value=" in done.err
    # Once it is done, the same command and `resume` say what came of it.
    for again in (arguments, ("resume", "run")):
        assert {**zoo(*again).json, "seconds": 0} == {**found, "seconds": 0}
    assert zoo("report", "run", "--no-html").json["value"] == found["value"]
    assert zoo("report", "--digest", "run").out.split()[-1] == digest_of_run(Path("run")).total
    exported = zoo("export", "run", "--to", "csv", "--out", "steps.csv")
    assert exported.status == 0, exported.err
    assert Path("steps.csv").read_text().startswith("step,queries,best,value,")
    assert len(Path("steps.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_and_it_ends_as_if_nothing_had_happened(zoo, whole, how):
    Path("stop").write_text("12")
    Path("how").write_text(how)
    stopped = zoo("federate", "--task", "bowls:Bowl", "-m", "fedzo", *FEW, "--out", "a part")
    assert stopped.status == 128 + getattr(signal, how)
    assert stopped.out == ""
    assert " after 1 round and 180 queries, F being " in stopped.err
    assert "zoo: `zoo resume 'a part'` goes on\n" in stopped.err
    assert zoo("resume", "a part").json["rounds"] == 3
    assert digest_of_run(Path("a part")) == whole


def test_stopped_before_there_is_a_run_it_begins_anew(zoo):
    command = ("federate", "--task", "bowls:early", "-m", "fedzo", *FEW, "--out", "run")
    stopped = zoo(*command)
    assert stopped.status == 130
    assert stopped.err == "zoo: stopped by Ctrl-C; nothing was kept yet: the same command begins anew\n"
    zoo("federate", "--task", "bowls:Bowl", *command[3:])
    assert zoo(*command).err == "zoo: stopped by Ctrl-C; `zoo resume run` goes on\n"


COMPARED = (
    *("--task", "bowls:Bowl", "-m", "fedzo,fedprox", "--rounds", 2, "--seeds", 2, "-o", "num_steps=3"),
    *("-n", "slow=[[0,5]]"),
)


def test_methods_are_compared(zoo, request):
    done = zoo("federate", *COMPARED, "-o", "fedzo.num_directions=4", "--out", "runs", "--json")
    assert done.status == 0, done.err
    told = done.json
    assert (told["task"], told["seeds"]) == ("bowls:Bowl", [1, 2])
    assert [method["label"] for method in told["methods"]] == ["fedprox", "fedzo"]
    assert told["methods"][1]["options"] == {"num_steps": 3, "num_directions": 4}
    assert Path(told["report"]).is_file()
    for method in told["methods"]:
        values = []
        for run, seed in zip(method["runs"], (1, 2), strict=True):
            path = Path("runs", method["label"], f"seed-{seed}")
            assert run["directory"] == str(path)
            result = json.loads((path / "result.json").read_text())
            names = {"value": "fun", "best": "fun_best", "rounds": "nit", "queries": "nfev", "up": "up"}
            assert {name: run[name] for name in names} == {name: result[own] for name, own in names.items()}
            assert run["seconds"] > 0
            assert run["cpu"] > 0
            values.append(run["value"])
        assert method["median"] == sum(values) / 2
        assert method["best"] == min(values)
    # All of a seed have one task and one start, those of different seeds have not.
    starts = {path: read_config(Path("runs", path))[1]["x0"].tolist() for path in _paths("fedzo", "fedprox")}
    assert starts["fedzo/seed-1"] == starts["fedprox/seed-1"] != starts["fedzo/seed-2"]
    assert "fedprox" in Path(told["report"]).read_text()
    request.getfixturevalue("_unpaged")
    # The same command says the same, and makes nothing again; one more method is added.
    before = {path: (Path("runs", path) / "timings.jsonl").stat().st_mtime_ns for path in starts}
    more = zoo("federate", *COMPARED, "-o", "fedzo.num_directions=4", "-m", "scaffold-2", "--out", "runs")
    assert [one for one in more.json["methods"] if one["label"] != "scaffold-2"] == told["methods"]
    assert {path: (Path("runs", path) / "timings.jsonl").stat().st_mtime_ns for path in starts} == before
    # With other options it is refused before anything is begun.
    other = zoo("federate", *COMPARED, "--out", "runs", "-m", "decomfl")
    assert "runs/fedzo/seed-1 holds another run: 'options' differs. Choose" in other.err
    assert not Path("runs/decomfl").exists()


def _paths(*methods):
    return [f"{method}/seed-{seed}" for method in methods for seed in (1, 2)]


@pytest.mark.usefixtures("_unpaged")
def test_without_a_directory_methods_are_compared_all_the_same(zoo):
    kept = zoo("federate", *COMPARED, "--out", "runs").json
    found = zoo("federate", *COMPARED, "--progress", "lines", "--log", "csv")
    assert found.json["report"] is None
    for one, other in zip(found.json["methods"], kept["methods"], strict=True):
        assert one["median"] == other["median"]
        assert one["runs"][0]["directory"] is None
    begun = [line for line in found.err.splitlines() if " zoo begins " in line]
    assert [line.partition(" task=")[0].partition("method=")[2] for line in begun] == [
        f'"{method}, seed {seed} ({number} of 4)"'
        for number, (seed, method) in enumerate(
            [(1, "fedzo"), (1, "fedprox"), (2, "fedzo"), (2, "fedprox")], 1
        )
    ]
    tables = ("steps-fedzo-1.csv", "steps-fedzo-2.csv", "steps-fedprox-1.csv", "steps-fedprox-2.csv")
    assert all(len(Path(table).read_text().splitlines()) == 3 for table in tables)


@pytest.mark.usefixtures("_unpaged")
def test_a_comparison_that_was_stopped_goes_on_by_the_same_command(zoo):
    undisturbed = zoo("federate", *COMPARED, "--out", "whole").json
    Path("stop").write_text("8")  # three evaluations of a client in a round, and two rounds in a run
    Path("how").write_text("SIGINT")
    stopped = zoo("federate", *COMPARED, "--out", "part")
    assert stopped.status == 130
    assert "in fedprox, seed 1 (2 of 4), after 0 rounds and " in stopped.err
    assert "zoo: `zoo federate --task bowls:Bowl -m fedzo,fedprox --rounds 2 --seeds 2 " in stopped.err
    assert "--out part` goes on\n" in stopped.err
    assert not Path("part/fedzo/seed-2").exists()
    done = zoo("federate", *COMPARED, "--out", "part").json
    for one, other in zip(done["methods"], undisturbed["methods"], strict=True):
        assert one["median"] == other["median"]
        assert all(run["cpu"] > 0 for run in one["runs"])
    for path in _paths("fedzo", "fedprox"):
        assert digest_of_run(Path("part", path)) == digest_of_run(Path("whole", path))
    # Of what was done by a process that left no note, nobody knows what it has cost.
    notes = Path("part/costs.jsonl").read_text().splitlines(keepends=True)
    assert '"fedzo/seed-1"' in notes[0]
    Path("part/costs.jsonl").write_text("".join(notes[1:]))
    fedzo = next(
        one for one in zoo("federate", *COMPARED, "--out", "part").json["methods"] if one["label"] == "fedzo"
    )
    assert [run["cpu"] is None for run in fedzo["runs"]] == [True, False]
    assert fedzo["cpu"] is None


@pytest.mark.usefixtures("_unpaged")
def test_a_method_that_fails_ends_it_and_what_was_done_is_kept(zoo):
    done = zoo(
        "federate", "--task", "bowls:Raising", "-m", "fedzo", "-m", "fedprox", "--rounds", 1, "--out", "o"
    )
    assert done.status == 3
    assert "\nzoo: fedzo, seed 1 (1 of 2): a query of " in done.err
    assert "ArithmeticError: out of clients" in done.err
    assert (
        "zoo: what was evaluated is kept: once it is mended, `zoo federate --task bowls:Raising " in done.err
    )
    assert Path("o/fedzo/seed-1/result.json").exists()
    assert not Path("o/fedprox").exists()


@pytest.mark.usefixtures("_unpaged")
def test_f_is_over_those_clients_that_have_a_value(zoo):
    done = zoo("federate", "--task", "bowls:Shy", "-m", "fedzo", *FEW, "--progress", "lines")
    values = done.json["clients"]["value"]
    assert (done.json["said"], values[1]) == (2, None)
    assert done.json["value"] == pytest.approx((values[0] + values[2]) / 2)
    assert " said=2 " in done.err


@pytest.mark.usefixtures("_unpaged")
def test_a_run_that_came_to_nothing_has_a_status_of_its_own(zoo):
    command = ("federate", "--task", "bowls:Silent", "-m", "fedzo", "--rounds", 2, "--out", "run")
    for again in (command, ("resume", "run")):
        done = zoo(*again)
        assert (done.status, done.json["success"], done.json["rounds"]) == (3, False, 2)
        assert done.err.endswith("zoo: without success: all 2 rounds are done\n")
    several = zoo(*command[:-1], "runs", "--seeds", 2)
    assert (several.status, len(several.json["methods"][0]["runs"])) == (3, 2)
    assert several.err.endswith("zoo: without success: fedzo, seed 1; fedzo, seed 2\n")


def test_labels_tell_two_forms_of_a_method_apart(zoo):
    forms = ("-m", "ours=fedzo", "-m", "theirs=fedzo", "-o", "theirs.published=true", "-o", "num_steps=2")
    done = zoo("federate", "--task", "quadratic", *SMALL, *forms, "--rounds", 2, "--out", "runs", "--seed", 7)
    assert done.status == 0, done.err
    found = {method["label"]: method for method in done.json["methods"]}
    assert found["theirs"]["options"] == {"num_steps": 2, "published": True}
    assert found["theirs"]["method"] == found["ours"]["method"] == "fedzo"
    assert found["theirs"]["queries"] > found["ours"]["queries"]
    assert Path("runs/ours/seed-7").is_dir()
    page = Path(done.json["report"]).read_text()
    for heading in ("ours", "theirs"):
        assert f'<th scope="row">{heading}</th>' in page
    assert "fedzo (" not in page
    assert ">CPU time</th>" in page


def test_all_that_federate_takes_can_be_said(zoo):
    done = zoo(
        *("federate", "--task", "levy", "-t", "heterogeneity=5", "-t", "dim=4", "--clients", "1e1"),
        *("--task-seed", 4, "--method", "decomfl", "--option", "num_steps=2", "--seed", 3),
        *("--participation", "0.5", "--dropout", 0.3, "--wait-for", 3, "--deadline", 9, "--latency", 1),
        *("--spread", 0.5, "--network", "slow=[[0,5]]", "-n", "bandwidth=1e6"),
        *("--rounds", 4, "--budget", "1e5", "--traffic", "1e6", "--target", -9, "--seconds", 50),
        *("--measure-every", 2, "--on-error", "nan", "--workers", 2, "--timeout", 30),
        *("--out", "run", "--log", "csv", "--json"),
    )
    assert done.status == 0, done.err
    config = read_config(Path("run"))[0]
    network = {
        "participation": 0.5,
        "dropout": 0.3,
        "wait_for": 3,
        "deadline": 9,
        "latency": 1,
        "spread": 0.5,
    }
    assert {name: config["network"][name] for name in network} == network
    assert config["network"]["slow"] == [[0, 5.0]]
    assert config["network"]["bandwidth"] == 1e6
    said = {"rounds": 4, "budget": 10**5, "traffic": 10**6, "target": -9, "measure_every": 2, "task_seed": 4}
    assert {name: config[name] for name in said} == said
    assert (config["num_clients"], config["dim"], config["on_error"]) == (10, 4, "nan")
    assert done.json["clock"] > 0
    assert Path("run/steps.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("quadratic --rounds 3", "(quadratic): only options can be given, such as --task."),
        ("--rounds 3", "--task must be given, as in --task quadratic"),
        ("--task quadratic", "must be given: nothing else is sure to end a run."),
        ("--task quadratik --rounds 3", "Did you mean 'quadratic'"),
        ("--task quadratic -m fedzzo --rounds 3", "Did you mean 'fedzo'?"),
        ("--task quadratic -t heterogenity=3 --rounds 3", "Did you mean 'heterogeneity'?"),
        ("--task quadratic -t =3 --rounds 3", "`--task-option` must have the form NAME=VALUE"),
        ("--task quadratic --clients 2.5 --rounds 3", "must be a whole number"),
        ("--task quadratic --clients 4 -t num_clients=3 --rounds 3", "`--clients` must be left out where"),
        ("--task bowls:bowl --clients 4 --rounds 3", "bowls:bowl says itself how many there are"),
        ("--task bowls:Bow --rounds 3", "has no 'Bow'"),
        ("--task quadratic -m fedzo -o num_stps=3 --rounds 3", "Did you mean 'num_steps'?"),
        ("--task quadratic -m fedzo -o num_steps --rounds 3", "must have the form NAME=VALUE, got"),
        ("--task quadratic -m fedzo,fzoos -o gama=3 --rounds 3", "Did you mean 'gamma'?"),
        ("--task quadratic -m fedzo,fzoos -o fzos.gamma=3 --rounds 3", "Did you mean 'fzoos'?"),
        ("--task quadratic -m fedzo,fzoos -o gamma=-3 --rounds 3", "zoo: fzoos: `gamma` must be"),
        ("--task quadratic -m fedzo -m fedzo --rounds 3", "as in --method other=fedzo."),
        ("--task quadratic -m a/b=fedzo --seeds 2 --rounds 3", "letters, digits, _ and - alone, got 'a/b'"),
        ("--task quadratic -m , --rounds 3", "--method must be given, as in --method fzoos"),
        ("--task quadratic -m fedzo --seed 1 --seed 1 --rounds 3", "`seed` must not be given twice, got 1"),
        ("--task quadratic -m fedzo --seed -1 --rounds 3", "`--seed` must be at least 0, got -1."),
        ("--task quadratic --seed 1 --seed 2 --seeds 3 --rounds 3", "`--seeds` must be left out"),
        ("--task quadratic -m fedzo,fzoos --budget 9", "zoo: fedzo: `budget` must allow for a round"),
        ("--task quadratic --participation 1 --rounds 3", "or --network participation=1 for a single"),
        ("--task quadratic --participation half --rounds 3", "must be a share, as in 0.5"),
        ("--task quadratic -m fedzo --participation 9 --rounds 3", "at most the 5 clients there are, got 9"),
        ("--task quadratic -m fedzo,fzoos --wait-for 9 --rounds 3", "zoo: `wait_for` must be at most the 5"),
        ("--task quadratic --dropout .1 -n dropout=.2 --rounds 3", "`--dropout` must be left out"),
        ("--task quadratic -n dropuot=.2 --rounds 3", "Did you mean 'dropout'?"),
        ("--task quadratic --round 3", "no option --round. Did you mean --rounds?"),
        ("--task quadratic --progress panle --rounds 3", "zoo: `--progress` must be one of"),
        ("--task quadratic --progress panle --rounds 3", "Did you mean 'panel'"),
        ("--list --task quadratik", "Did you mean 'quadratic'?"),
        ("--list --method fedzzo", "Did you mean 'fedzo'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(zoo, arguments, said):
    done = zoo("federate", *arguments.split(), "--out", "run")
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert not Path("run").exists()


def test_a_task_that_raises_is_shown(zoo):
    done = zoo("federate", "--task", "bowls:broken", "--rounds", 1)
    assert done.status == 3
    assert "bowls:broken raised as it was tried out" in done.err
    assert "KeyError: 'data'" in done.err
    assert "cli/app.py" not in done.err


def test_a_directory_holds_one_run_or_several(zoo):
    assert zoo("federate", "--task", "bowls:Bowl", "-m", "fedzo", *FEW, "--out", "run").status == 0
    several = zoo("federate", *COMPARED, "--out", "run")
    assert "run holds a single run, and several are kept in METHOD/seed-N" in several.err
    other = zoo("federate", "--task", "bowls:Bowl", "-m", "fedprox", *FEW, "--out", "run")
    assert "run holds another run: 'method' differs" in other.err


def test_tasks_and_methods_are_listed(zoo):
    listed = zoo("federate", "--list").out
    assert "\nquadratic  " in listed
    assert "\nfzoos " in listed
    one = zoo("federate", "--list", "--method", "fedzo").out
    assert "num_directions  5" in one
    assert "Directions of an estimate, q." in one
    task = zoo("federate", "--list", "--task", "quadratic").out
    assert "heterogeneity  0.5      C, at least 0" in task
    whole = zoo("federate", "--list", "--json").json
    assert [method["name"] for method in whole["methods"]][:2] == ["fzoos", "fedzo"]
    assert whole["tasks"][0]["name"] == "quadratic"
    mine = zoo("federate", "--list", "--task", "bowls:Bowl", "-m", "x=fedzo", "--json").json
    assert mine[0]["options"] == {"num_clients": 3}
    assert mine[1]["options"]["num_steps"] == 10


def test_a_shell_completes_names():
    assert completion.methods("fedz") == ["fedzo"]
    assert completion.methods("mine=fedz") == ["mine=fedzo"]
    assert "quadratic" in completion.tasks("q")


def test_a_run_that_has_not_ended_says_how_far_it_is(zoo):
    Path("stop").write_text("12")
    Path("how").write_text("SIGINT")
    zoo("federate", "--task", "bowls:Bowl", "-m", "fedzo", *FEW, "--out", "run")
    Path("run/result.json").unlink(missing_ok=True)
    told = zoo("report", "run", "--no-html").json
    assert (told["rounds"], told["queries"], told["message"]) == (1, 180, "not finished")
    assert told["best"] > 0


def test_help_needs_no_numpy():
    code = (
        "import sys\n"
        "from zoo.cli import main\n"
        "try:\n"
        "    main(['federate', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([name for name in ('numpy', 'torch', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--participation" in done.stdout
