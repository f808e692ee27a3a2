"""`zoo evolve` and what goes on with its runs: what goes where, and what is said where something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import evolution
from evolution.playing import champion_of
from tests.commands import commands
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_config

ROOT = Path(__file__).parents[2]
SMALL = ("-o", "population_size=12", "-o", "num_parents=4", "-o", "sigma=0.3", "-o", "elite_candidates=2")
LIMITS = ("--generations", 3, "--test-episodes", 4, "--noise-table", 5000, "--seed", 1)
FEW = (*SMALL, "-o", "elite_episodes=3", *LIMITS)
STOPPING = """
import os
import signal
from pathlib import Path

from evolution.environments.cart_pole import CartPole


class Pole(CartPole):
    def begin(self, seeds):
        if len(seeds) > 3 and os.path.exists("stop"):  # in a generation: environments are tried out first
            os.remove("stop")
            os.kill(os.getpid(), getattr(signal, Path("how").read_text()))
        return super().begin(seeds)


class Slow(CartPole):
    max_steps = 60


class Raising(CartPole):
    def begin(self, seeds):
        raise ArithmeticError("out of poles")
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch, capfd):
    """Return a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poles.py").write_text(STOPPING)
    yield from commands(monkeypatch, capfd)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the digest of the run that `FEW` says, when nothing disturbs it."""
    options = {"population_size": 12, "num_parents": 4, "sigma": 0.3, "elite_candidates": 2}
    path = tmp_path_factory.mktemp("whole") / "run"
    evolution.evolve(
        "cart-pole", options={**options, "elite_episodes": 3}, generations=3, test_episodes=4,
        noise_table=5000, rng=1, out=path,
    )  # fmt: skip
    return digest_of_run(path)


def test_a_run_is_kept_and_resumed_and_reported(zoo, whole):
    done = zoo("evolve", "--env", "cart-pole", *FEW, "--out", "run", "--progress", "lines")
    assert done.status == 0, done.err
    assert done.json["generations"] == 3
    assert done.json["test_episodes"] == 4
    assert done.json["score"] > 0
    assert " zoo begins method=deep-ga env=cart-pole parameters=226 generations=3 " in done.err
    assert " zoo finished method=deep-ga generation=3 best=" in done.err
    # Once it is done, the same command and `resume` say what came of it.
    for again in (("evolve", "--env", "cart-pole", *FEW, "--out", "run"), ("resume", "run")):
        found = zoo(*again).json
        assert {**found, "seconds": 0} == {**done.json, "seconds": 0}
    told = zoo("report", "run", "--no-html").json
    assert told["score"] == done.json["score"]
    assert told["frames"] == done.json["frames"]
    kept = json.loads(Path("run/result.json").read_text())
    for name in ("score", "score_error", "best", "generations", "frames", "num_failed", "message"):
        assert kept[name] == done.json[name]
    assert zoo("report", "--digest", "run").out.split()[-1] == whole.total


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_and_it_ends_as_if_nothing_had_happened(zoo, whole, how):
    arguments = ("--env", "poles:Pole", *FEW)
    Path("stop").touch()
    Path("how").write_text(how)
    stopped = zoo("evolve", *arguments, "--out", "a part")
    assert stopped.status == 128 + getattr(signal, how)
    assert stopped.out == ""
    assert " after 0 episodes\n" in stopped.err
    assert "zoo: `zoo resume 'a part'` goes on\n" in stopped.err
    assert zoo("resume", "a part").json["generations"] == 3
    assert digest_of_run(Path("a part")) == whole


def test_a_killed_run_ends_as_if_nothing_had_happened(zoo, whole):
    arguments = ("--env", "poles:Pole", *FEW)
    Path("stop").touch()
    Path("how").write_text("SIGKILL")
    killed = subprocess.run(
        [sys.executable, "-m", "zoo", "evolve", *map(str, arguments), "--out", "part"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert zoo("resume", "part").json["generations"] == 3
    assert digest_of_run(Path("part")) == whole


def test_an_environment_that_raises_is_shown(zoo):
    done = zoo("evolve", "--env", "poles:Raising", *FEW, "--out", "run")
    assert done.status == 3
    assert "ArithmeticError: out of poles" in done.err
    assert "cli/app.py" not in done.err


def test_another_run_is_refused(zoo):
    assert zoo("evolve", "--env", "cart-pole", *FEW, "--out", "run").status == 0
    other = zoo("evolve", "--env", "cart-pole", *FEW, "-o", "sigma=0.4", "--out", "run")
    assert other.status == 2
    assert "run holds another run: 'options' differs." in other.err
    zoo("minimize", "zoo.problems:sphere", "--x0", "0x2", "--budget", 10, "--out", "sphere")
    assert "sphere holds a run of another kind" in zoo("evolve", "--env", "maze", *FEW, "--out", "sphere").err


def test_all_that_evolve_takes_can_be_said(zoo):
    done = zoo(
        *("evolve", "--env", "poles:Slow", "--policy", "mlp", "--policy-option", "hidden=[4]"),
        *("--method", "novelty-ga", "-o", "population_size=8", "-o", "num_parents=3"),
        *("-o", "elite_candidates=0"),
        *("--episodes", 2, "--no-common", "--behaviour", "state", "--normalize", "--noise-table", "2e5"),
        *("--budget", "1e2", "--frames", "1e6", "--score", 1000, "--seconds", 50, "--test-episodes", 2),
        *("--on-error", "nan", "--seed", 3, "--out", "run", "--log", "csv", "--json"),
    )
    assert done.status == 0, done.err
    assert done.json["message"].startswith("the budget of 100 episodes is used up")
    config = read_config(Path("run"))[0]
    said = {"episodes": 2, "common": False, "normalize": True, "noise_table": 200_000, "frames": 10**6}
    assert {name: config[name] for name in said} == said
    assert config["objective"]["attributes"]["behaviour"] == "state"
    assert Path("run/steps.csv").exists()


def test_a_search_starts_from_a_champion(zoo):
    assert zoo("evolve", "--env", "cart-pole", *FEW, "--out", "first").status == 0
    assert zoo("evolve", "--env", "cart-pole", *FEW, "--start", "first", "--out", "second").status == 0
    start = read_config(Path("second"))[1]["start"]
    assert start.tolist() == champion_of("first").parameters.tolist()
    assert "`--start` must be a directory or a file" in zoo("evolve", "--env", "maze", "--start", "no").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("CartPole-v1 --generations 3", "(CartPole-v1): only options can be given, such as --env."),
        ("--generations 3", "--env must be given, as in --env CartPole-v1"),
        ("--env cart-pole", "must be given: nothing else is sure to end a run."),
        ("--env cart-pol --generations 3", "Did you mean 'cart-pole'"),
        ("--env cart-pole --method deep-gq --generations 3", "Did you mean 'deep-ga'?"),
        ("--env cart-pole -o population_sise=3 --generations 3", "Did you mean 'population_size'?"),
        ("--env cart-pole -o population_size --generations 3", "must have the form NAME=VALUE, got"),
        ("--env cart-pole --policy-option hiden=3 --generations 3", "Did you mean 'hidden'?"),
        ("--env cart-pole --env-option =3 --generations 3", "`--env-option` must have the form NAME=VALUE"),
        ("--env cart-pole --policy mpl --generations 3", "Did you mean 'mlp'?"),
        ("--env cart-pole --generations 1.5", "must be a whole number"),
        ("--env cart-pole --generation 3", "no option --generation. Did you mean --generations?"),
        ("--env poles:Pol --generations 3", "has no 'Pol'"),
        ("--env cart-pole --progress panle --generations 3", "Did you mean 'panel'"),
        ("--list --method deep-gq", "Did you mean 'deep-ga'?"),
    ],
)
def test_what_is_wrong_is_said(zoo, arguments, said):
    done = zoo("evolve", *arguments.split())
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_methods_are_listed(zoo):
    listed = zoo("evolve", "--list").out
    assert listed.splitlines()[1].startswith("deep-ga ")
    assert "novelty-ga" in listed
    assert ", openai-es, " in listed
    one = zoo("evolve", "--list", "--method", "novelty-ga").out
    assert "num_parents" in one
    assert "How many nearest neighbours count." in one
    validated = zoo("evolve", "--list", "--method", "openai-es", "--json").json
    assert validated["options"]["validation_every"] == 10
    assert [method["name"] for method in zoo("evolve", "--list", "--json").json][:2] == ["deep-ga", "random"]


def test_an_experiment_file_is_run_and_resumed(zoo, whole):
    Path("pole.toml").write_text(
        '[job]\nkind = "evolution"\nseed = 1\n[environment]\nname = "cart-pole"\n'
        "[method.options]\npopulation_size = 12\nnum_parents = 4\nsigma = 0.3\nelite_candidates = 2\n"
        "elite_episodes = 3\n[method]\nnoise_table = 5000\n[stop]\ngenerations = 3\ntest_episodes = 4\n"
    )
    done = zoo("run", "pole.toml")
    assert done.status == 0, done.err
    assert digest_of_run(Path("runs/pole")) == whole
    Path("resolved.toml").write_text(zoo("run", "pole.toml", "--dry-run").out)
    assert zoo("run", "resolved.toml").json["score"] == done.json["score"]
    assert zoo("resume", "runs/pole").json["score"] == done.json["score"]
    wrong = zoo("run", "pole.toml", "--set", "method.options.sigma=-1")
    assert wrong.status == 2
    assert wrong.err.startswith("zoo: --set method.options.sigma=-1: `sigma` must be ")
