"""Experiment files of federations: what they become, and what is said of those that are wrong."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from pathlib import Path

import pytest

import federated
from federated.experiment_file import Network
from federated.network import Network as Reached
from zoo.experiment_file import ExperimentFileError, read_experiment
from zoo.run.directory import read_config

SHORT = """
    [job]
    kind = "federated"
    seed = 1
    [task]
    name = "quadratic"
    [task.options]
    dim = 6
    num_clients = 3
    [method]
    name = "fedzo"
    [stop]
    rounds = 2
"""
SEVERAL = """
    [job]
    kind = "federated"
    seeds = [3, 4]
    [task]
    name = "quadratic"
    options = {dim = 6, num_clients = 3}
    [[methods]]
    name = "fedzo"
    options = {num_steps = 2}
    [[methods]]
    name = "fedzo"
    label = "theirs"
    options = {num_steps = 2, published = true}
    [stop]
    rounds = 1
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("beside", None)


def read(text, *overrides):
    Path("bowl.toml").write_text(text)
    return read_experiment("bowl.toml", overrides)


def said(text, *overrides):
    with pytest.raises(ExperimentFileError) as caught:
        read(text, *overrides)
    return str(caught.value).splitlines()


def test_a_short_file_has_the_defaults_of_federate():
    arguments = read(SHORT).arguments()
    assert arguments.pop("task_options") == {"dim": 6, "num_clients": 3}
    assert (arguments.pop("task"), arguments.pop("method")) == ("quadratic", "fedzo")
    assert (arguments.pop("out"), arguments.pop("rng"), arguments.pop("rounds")) == ("runs/bowl", 1, 2)
    network = arguments.pop("network")
    assert Reached(**network) == Reached()
    defaults = {name: federated.federate.__kwdefaults__[name] for name in arguments}
    assert {name: value or None for name, value in arguments.items()} == {
        name: value or None for name, value in defaults.items()
    }


def test_a_network_has_all_there_is():
    assert {name: field.default for name, field in Network.model_fields.items()} == {
        field.name: [] if field.default == () else field.default for field in dataclasses.fields(Reached)
    }


def test_all_can_be_said():
    Path("beside.py").write_text("from federated.tasks.synthetic import Levy as Hills\n")
    network = {
        "participation": 2, "dropout": 0.1, "latency": 1.0, "spread": 0.5, "jitter": 0.2, "slow": [[0, 2.0]],
        "seconds_per_query": 0.1, "bandwidth": 1e6, "deadline": 30.0, "wait_for": 0.5, "min_replies": 1,
        "duplicates": 0.25,
    }  # fmt: skip
    experiment = read(
        SHORT,
        "task.name=beside:Hills", "task.seed=9", "task.options.sigma=0.5",
        "method.name=decomfl", "method.options.num_steps=3",
        *(f"network.{name}={value}" for name, value in network.items()),
        "execution.workers=2", "execution.timeout=9", 'execution.on_error="nan"',
        "stop.budget=10000", "stop.traffic=20000", "stop.target=-3.5", "stop.seconds=7",
        "stop.measure_every=2", 'job.log=["csv"]',
    )  # fmt: skip
    found = experiment.arguments()
    assert experiment.log == ("csv",)
    workers = found.pop("workers")
    assert (workers.num_workers, workers.timeout) == (2, 9)
    assert isinstance(found["network"]["participation"], int)
    assert found == {
        "task": "beside:Hills", "task_options": {"dim": 6, "num_clients": 3, "sigma": 0.5}, "task_seed": 9,
        "method": "decomfl", "options": {"num_steps": 3}, "network": network,
        "rounds": 2, "budget": 10000, "traffic": 20000, "target": -3.5, "seconds": 7, "measure_every": 2,
        "on_error": "nan", "rng": 1, "out": "runs/bowl",
    }  # fmt: skip


@pytest.mark.parametrize("text", [SHORT, SEVERAL], ids=["one", "several"])
def test_the_resolved_file_is_the_same_experiment(text):
    experiment = read(text, "network.participation=2")
    resolved = experiment.toml()
    again = read(resolved)
    assert again.arguments() == experiment.arguments()
    assert again.contest() == experiment.contest()
    assert tomllib.loads(again.toml()) == tomllib.loads(resolved)
    assert "# num_directions = 5" in resolved
    assert "# heterogeneity = 0.5" in resolved
    assert "# deadline: none" in resolved


def test_a_file_is_run():
    found = read(SHORT).run([])
    options = {"dim": 6, "num_clients": 3}
    direct = federated.federate("quadratic", "fedzo", task_options=options, rounds=2, rng=1)
    assert found.x.tolist() == direct.x.tolist()
    assert read_config(Path("runs/bowl"))[0]["task"] == "quadratic"


def test_a_file_of_several_methods_is_run(monkeypatch):
    monkeypatch.setattr("federated.report.comparison.write_comparison", lambda _, out, **told: out / "page")
    found = read(SEVERAL).run([])
    assert found.page == Path("runs/bowl/page")
    assert {one.entrant.label: len(one.runs) for one in found.standings} == {"fedzo": 2, "theirs": 2}
    for one in found.standings:
        for run in one.runs:
            config = read_config(Path("runs/bowl", one.entrant.label, f"seed-{run.race.seed}"))[0]
            assert config["options"]["dict"] == one.entrant.options
    theirs = next(one for one in found.standings if one.entrant.label == "theirs")
    options = {"dim": 6, "num_clients": 3}
    arguments = {"options": {"num_steps": 2, "published": True}, "task_options": options}
    direct = federated.federate("quadratic", "fedzo", **arguments, rounds=1, rng=4)
    assert theirs.runs[1].value == direct.value


def test_methods_without_seeds_have_one():
    experiment = read(SEVERAL.replace("seeds = [3, 4]", ""))
    assert experiment.contest().seeds == (1,)
    assert "seeds = [1]" in experiment.toml()
    assert read(SEVERAL.replace("seeds = [3, 4]", "seed = 8")).contest().seeds == (8,)


def test_all_that_is_wrong_is_said_with_its_line():
    text = SHORT.replace("seed", "sead").replace(
        '"fedzo"', '"fedzo"\n    options = {num_stps = 3, smoothing = -1}'
    )
    text = text.replace("rounds = 2", "rounds = 0").replace(
        "[stop]", "[network]\n    dropuot = 0.5\n    [stop]"
    )
    assert said(text) == [
        "bowl.toml, line 4: unknown key `sead` in [job]. Did you mean `seed`?",
        "bowl.toml, line 12: unknown option `num_stps` of method 'fedzo'. Did you mean `num_steps`?",
        "bowl.toml, line 12: `smoothing` must be a finite number above 0, got -1.",
        "bowl.toml, line 14: unknown key `dropuot` in [network]. Did you mean `dropout`?",
        "bowl.toml, line 16: `rounds` must be a whole number of at least 1, got 0.",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("job.kind=federatd", '"minimize", or a kind of another package such as "evolution", got'),
        ("job.seeds=[1]", "`seeds` cannot be given along with `seed`: drop one."),
        ("task.name=quadratik", "Did you mean 'quadratic'?"),
        ("task.name=beside:Nothing", "there is no module 'beside'"),
        ("task.options.heterogenity=3", "Did you mean 'heterogeneity'?"),
        ("task.options.heterogeneity=-3", "`heterogeneity` must be finite and at least 0, got -3."),
        ("task.clients=3", "It is an option: [task.options] with num_clients = 5."),
        ('task.path=["nowhere"]', "`path[0]` must be a folder, got"),
        ("method.name=fedzzo", 'Did you mean "fedzo"?'),
        ("method.nmae=3", "unknown key `nmae` in [method]. Did you mean `name`?"),
        ("methods.name=fedzo", "the methods that are compared must be tables [[methods]], one each."),
        ("network.participation=1.5", "`participation` must be a share above 0 and at most 1.0, or a number"),
        ("network.participation=9", "`participation` must be at most the 3 clients there are, got 9."),
        ("network.dropout=2", "`dropout` must be a probability, from 0 to 1, got 2."),
        ("network.slow=[[1, 2], 3]", "`slow[1]` must be a pair [client, factor], got 3."),
        ("network.slow=[[7, 2]]", "`slow` must name clients from 0 to 2, got 7."),
        ("stop.queries=300", "they are counted by `budget`."),
        ("stop.budget=3", "`budget` must allow for a round"),
        ("execution.backend=ray_", 'must be one of "serial", "processes", "ray", got'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(override, words):
    assert words in "\n".join(said(SHORT, override))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seeds = [3, 4]", "seeds = [3, 3]", 4, "`seeds[1]` must not be given twice, got 3 again."),
        ('label = "theirs"', "", 12, "`name` must be another one, got 'fedzo' again: a `label` tells"),
        ('label = "theirs"', 'label = "a/b"', 13, "`label` must be letters, digits, _ and - alone, got"),
        ('label = "theirs"', 'lable = "theirs"', 13, "unknown key `lable` in [[methods]]. Did you mean"),
        ("num_steps = 2, p", "num_stps = 2, p", 14, "unknown option `num_stps` of method 'fedzo'. Did"),
        ('name = "fedzo"\n    label', "label", 11, "[[methods]] must have `name`."),
        ("[stop]", "[method]\n    [stop]", 8, "[[methods]] cannot be given along with [method]: drop one."),
        ('"quadratic"', '"federated.tasks.synthetic:X"', 6, "has no 'X'"),
        ("rounds = 1", "budget = 50", 16, "theirs: `budget` must allow for a round"),
    ],
)
def test_what_is_wrong_among_several_is_said(old, new, line, words):
    (found,) = said(new.join(SEVERAL.rsplit(old, 1)))
    assert found.startswith(f"bowl.toml, line {line}: ")
    assert words in found


def test_what_must_be_there_is_asked_for():
    found = said('[job]\nkind = "federated"')
    assert len(found) == 2
    assert "[stop] must have `rounds`, `budget`, `traffic`, `seconds`, or some of these" in "".join(found)
    assert '[task] must be there, with the name of one, as in name = "quadratic".' in "".join(found)


def test_a_task_that_raises_is_said():
    Path("beside.py").write_text('def broken():\n    return {}["data"]\n')
    text = (
        SHORT.replace('"quadratic"', '"beside:broken"').replace("dim = 6", "").replace("num_clients = 3", "")
    )
    assert said(text) == ["bowl.toml, line 6: `name`: KeyError: 'data'"]


def test_methods_of_your_own_by_module_and_name():
    own = ("method.name=tests.federated.toys:Descent", "method.options.rate=0.2")
    assert read(SHORT, *own).arguments()["method"] == "tests.federated.toys:Descent"
    (entrant,) = read(SHORT, *own).contest().entrants
    assert (entrant.label, entrant.options) == ("Descent", {"rate": 0.2})
    assert "Did you mean 'Descent'?" in said(SHORT, "method.name=tests.federated.toys:Descend")[0]
    assert "Did you mean `rate`?" in said(SHORT, own[0], "method.options.rat=0.2")[0]
