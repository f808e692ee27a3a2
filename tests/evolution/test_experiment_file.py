"""Experiment files of evolution: what they become, and what is said of those that are wrong."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

import evolution
from evolution.environments.cart_pole import CartPole
from zoo.experiment_file import ExperimentFileError, read_experiment
from zoo.run.directory import read_config

SHORT = """
    [job]
    kind = "evolution"
    seed = 1
    [environment]
    name = "cart-pole"
    [method.options]
    population_size = 10
    num_parents = 3
    elite_candidates = 0
    [stop]
    generations = 2
    test_episodes = 2
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("beside", None)


def read(text, *overrides):
    Path("pole.toml").write_text(text)
    return read_experiment("pole.toml", overrides)


def said(text, *overrides):
    with pytest.raises(ExperimentFileError) as caught:
        read(text, *overrides)
    return str(caught.value).splitlines()


def test_a_short_file_has_the_defaults_of_evolve():
    arguments = read(SHORT).arguments()
    assert arguments.pop("options") == {"population_size": 10, "num_parents": 3, "elite_candidates": 0}
    assert (arguments.pop("environment"), arguments.pop("out")) == ("cart-pole", "runs/pole")
    assert (arguments.pop("rng"), arguments.pop("generations"), arguments.pop("test_episodes")) == (1, 2, 2)
    defaults = {name: evolution.evolve.__kwdefaults__[name] for name in arguments if name != "method"}
    assert arguments.pop("method") == "deep-ga"
    assert {name: value or None for name, value in arguments.items()} == {
        name: value or None for name, value in defaults.items()
    }


def test_all_can_be_said():
    Path("beside.py").write_text("from evolution.environments.cart_pole import CartPole as Pole\n")
    experiment = read(
        SHORT,
        'environment.name="beside:Pole"', "environment.behaviour=state",
        "policy.name=mlp", "policy.options.hidden=[4, 4]", "policy.normalize=true",
        "method.name=novelty-ga", "method.episodes=2", "method.common=false", "method.noise_table=5000",
        "execution.workers=2", "execution.timeout=9", 'execution.on_error="nan"',
        "stop.budget=100", "stop.frames=200", "stop.score=3.5", "stop.seconds=7", 'job.log=["csv"]',
    )  # fmt: skip
    found = experiment.arguments()
    assert experiment.log == ("csv",)
    workers = found.pop("workers")
    assert (workers.num_workers, workers.timeout) == (2, 9)
    assert found == {
        "environment": "beside:Pole", "environment_options": {}, "behaviour": "state", "max_steps": None,
        "policy": "mlp", "policy_options": {"hidden": [4, 4]}, "normalize": True,
        "method": "novelty-ga", "options": found["options"],
        "episodes": 2, "common": False, "noise_table": 5000,
        "generations": 2, "budget": 100, "frames": 200, "score": 3.5, "seconds": 7, "test_episodes": 2,
        "on_error": "nan", "rng": 1, "out": "runs/pole",
    }  # fmt: skip


def test_the_resolved_file_is_the_same_experiment():
    experiment = read(SHORT, "policy.options.hidden=[5]", "method.episodes=2")
    text = experiment.toml()
    again = read(text)
    assert again.arguments() == experiment.arguments()
    assert tomllib.loads(again.toml()) == tomllib.loads(text)
    assert "# sigma = 0.002" in text
    assert "# behaviour: the environment's first one, for methods that need one" in text


def test_a_file_is_run():
    found = read(SHORT).run([])
    assert found.generations == 2
    assert read_config(Path("runs/pole"))[0]["environment"] == "cart-pole"
    direct = evolution.evolve("cart-pole", **_arguments(), rng=1)
    assert found.parameters.tolist() == direct.parameters.tolist()


def test_a_behaviour_of_ones_own_is_named_in_a_file():
    Path("beside.py").write_text("def ends(episode):\n    return episode.observations[-1, :1]\n")
    experiment = read(
        SHORT,
        "environment.name=tests.evolution.environments_of_users:Walk", "environment.max_steps=3",
        "environment.behaviour=beside:ends",
        "method.name=novelty-ga", "method.options.archive_probability=1.0",
    )  # fmt: skip
    assert experiment.run([]).state.archive.array.shape == (20, 1)


def _arguments():
    options = {"population_size": 10, "num_parents": 3, "elite_candidates": 0}
    return {"options": options, "generations": 2, "test_episodes": 2}


def test_all_that_is_wrong_is_said_with_its_line():
    text = SHORT.replace("seed", "sead").replace("num_parents = 3", "num_parens = 3\n    sigma = -1")
    text = text.replace("population_size = 10", "").replace("generations = 2", "generations = 0")
    assert said(text) == [
        "pole.toml, line 4: unknown key `sead` in [job]. Did you mean `seed`?",
        "pole.toml, line 9: unknown option `num_parens` of method 'deep-ga'. Did you mean `num_parents`?",
        "pole.toml, line 10: `sigma` must be a finite number above 0, got -1.",
        "pole.toml, line 13: `generations` must be a whole number of at least 1, got 0.",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("job.kind=evolutoin", '"minimize", or a kind of another package such as "evolution", got'),
        ("environment.name=CartPol-v1", "Did you mean 'cart-pole' or 'CartPole-v1'?"),
        ("environment.name=beside:Nothing", "there is no module 'beside'"),
        ("environment.options.speed=3", "`speed`|'speed'"),
        ("environment.behaviour=positio", "`behaviour` must be one of 'state'"),
        ('environment.path=["nowhere"]', "`path[0]` must be a folder, got"),
        ("environment.maxsteps=3", "Did you mean `max_steps`?"),
        ("policy.name=mpl", "Did you mean 'mlp'?"),
        ("policy.options.hiden=[3]", "Did you mean 'hidden'?"),
        ("policy.options.hidden=[0]", "`hidden"),
        ("policy.population_size=3", "unknown key `population_size` in [policy]."),
        ("method.name=deep-gq", 'Did you mean "deep-ga"?'),
        ("method.noise_table=3", "must have from 226 numbers"),
        ("method.generations=3", "It belongs in [stop]."),
        ("execution.backend=serial", None),
        ("execution.address=auto", 'say backend = "ray"'),
        ("execution.sharded=true", "unknown key `sharded` in [execution]."),
        ("stop.episodes=3", "unknown key `episodes` in [stop]: they are counted by `budget`."),
        ("objective.function=a:b", "unknown key `objective` at the top."),
    ],
)
def test_what_is_wrong_is_said(override, words):
    if words is None:
        assert read(SHORT, override).arguments()["workers"] == 1
        return
    (problem, *more) = said(SHORT, override)
    assert problem.startswith(f"--set {override}: ") or "kind" in override, problem
    assert any(word in problem or any(word in one for one in more) for word in words.split("|")), problem


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('kind = "evolution"\n[job]', "line 1: unknown key `kind` at the top. It belongs in [job]."),
        (
            '[job]\nkind = "evolutions"',
            'line 2: `kind` must be "minimize", or a kind of another package',
        ),
        ("[job]\nkind = 3", 'line 2: `kind` must be "minimize", or a kind of another package'),
    ],
    ids=["at-the-top", "unknown", "number"],
)
def test_nothing_else_is_said_of_a_file_whose_kind_is_not_known(head, words):
    (problem,) = said(f'{head}\nseed = 1\n[environment]\nname = "cart-pole"\n[stop]\ngenerations = 3\n')
    assert words in problem


def test_what_is_missing_is_said():
    assert said('[job]\nkind = "evolution"\n[method]\nname = 3\n[stop]\ngenerations = 3\n') == [
        "pole.toml, line 4: `name` must be text in quotes, got 3.",
        'pole.toml: [environment] must be there, with the name of one, as in name = "CartPole-v1".',
    ]
    assert said(SHORT.replace('name = "cart-pole"', "")) == [
        "pole.toml, line 5: [environment] must have `name`."
    ]
    (endless,) = said(SHORT.replace("generations = 2", ""))
    assert endless.startswith("pole.toml, line 11: [stop] must have `generations`, `budget`, `frames`, ")


def test_a_pole_that_raises_is_said():
    Path("beside.py").write_text(
        "from evolution.environments.cart_pole import CartPole\n\n\n"
        "class Pole(CartPole):\n    def begin(self, seeds):\n        raise KeyError('no pole')\n"
    )
    (problem,) = said(SHORT, "environment.name=beside:Pole")
    assert problem == "--set environment.name=beside:Pole: `name`: KeyError: 'no pole'"
    assert CartPole().slots > 1  # and ours is none of theirs
