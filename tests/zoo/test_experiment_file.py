"""Experiment files: what they become, and what is said of those that are wrong."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import tomlkit
from hypothesis import strategies as st

import zoo
from zoo.experiment_file import ExperimentFile, ExperimentFileError, read_experiment
from zoo.experiment_file.lines import lines_of
from zoo.experiment_file.tables import Tables

MODEL = """
SHIFT = 0.5

def loss(x):
    return float(((x - SHIFT) ** 2).sum())

def make():
    return loss

def small(x):
    return 2 - x.sum()

def mixed(point):
    return point["rate"] + point["depth"] + len(point["kind"])
"""
SHORT = """
    [job]
    seed = 1
    [objective]
    function = "ef_model:loss"
    x0 = "0x3"
    [stop]
    budget = 150
"""
SPACE = """
    [objective]
    function = "ef_model:mixed"
    [objective.space.rate]
    type = "float"
    lower = 0.001
    upper = 1
    log = true
    [objective.space.depth]
    type = "integer"
    lower = 1
    upper = 8
    [objective.space.kind]
    type = "categorical"
    choices = ["a", "bb"]
"""


@pytest.fixture(autouse=True)
def _own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a folder with a module of its own, and forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = {*sys.modules}
    write("ef_model.py", MODEL)
    yield
    for name in {*sys.modules} - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return path


def read(text: str, *overrides: str) -> ExperimentFile:
    return read_experiment(write("experiment.toml", text), overrides)


def said(path: str | Path, *overrides: str) -> list[str]:
    """Return the lines of the error that reading a file raises."""
    with pytest.raises(ExperimentFileError) as caught:
        read_experiment(path, overrides)
    return str(caught.value).splitlines()


def wrong(text: str, *overrides: str) -> list[str]:
    """Return what is said of a file, without its name."""
    path = write("experiment.toml", text)
    return [line.removeprefix("experiment.toml, ") for line in said(path, *overrides)]


# --- what a file becomes


def test_a_file_says_what_minimize_is_given() -> None:
    result = zoo.minimize(**read(SHORT).arguments())
    direct = zoo.minimize("ef_model:loss", [0.0] * 3, budget=150, rng=1)
    assert result.x.tobytes() == direct.x.tobytes()
    assert Path("runs/experiment/result.json").exists()


def test_every_argument_of_minimize_is_given_but_those_of_programs() -> None:
    assert {*read(SHORT).arguments()} == {*inspect.signature(zoo.minimize).parameters} - {"args", "callback"}


def test_values_become_arguments() -> None:
    given = read(
        """
        [job]
        seed = 7
        out = "elsewhere"
        noise = true
        log = ["csv", "wandb"]
        [objective]
        function = "ef_model:make()"
        vectorized = true
        x0 = [1, 0.5]
        bounds = [-inf, 2]
        scale = [0.1, 0.2]
        constraints = ["ef_model:small", "returned"]
        known.points = [[0, 0], [1, 1]]
        [method]
        name = "sep-cma"
        options = {population_size = 8}
        [execution]
        on_error = "nan"
        [stop]
        target = 1e-3
        seconds = 60
        """
    )
    assert given.log == ("csv", "wandb")
    assert given.arguments() == {
        "fun": "ef_model:make()",
        "x0": [1.0, 0.5],
        "bounds": [[-math.inf, 2.0], [-math.inf, 2.0]],
        "scale": [0.1, 0.2],
        "known": ([[0.0, 0.0], [1.0, 1.0]], None),
        "space": None,
        "method": "sep-cma",
        "options": {"population_size": 8},
        "constraints": ["ef_model:small", "returned"],
        "vectorized": True,
        "noise": True,
        "rng": 7,
        "budget": None,
        "target": 0.001,
        "seconds": 60.0,
        "workers": 1,
        "on_error": "nan",
        "out": "elsewhere",
    }


def test_space() -> None:
    result = zoo.minimize(**read(SPACE, "job.seed=1", "stop.budget=400").arguments())
    assert (result.x["depth"], result.x["kind"]) == (1, "a")
    given = read(SPACE, "objective.x0={rate=0.5,depth=2,kind='a'}").arguments()
    assert given["x0"] == {"rate": 0.5, "depth": 2, "kind": "a"}
    assert given["space"] == zoo.Space(
        {
            "rate": zoo.Float(0.001, 1.0, log=True),
            "depth": zoo.Integer(1, 8),
            "kind": zoo.Categorical(["a", "bb"]),
        }
    )


def test_command() -> None:
    given = read('[objective]\ncommand = ["cat", "-"]\nx0 = [1.0]')
    assert given.arguments()["fun"] == ["cat", "-"]
    assert wrong('[objective]\ncommand = ["no-such-program"]\nvectorized = true\nx0 = [1.0]') == [
        "line 2: `command`: no program 'no-such-program' is found.",
        "line 3: `vectorized` is for functions, and a `command` is given one point a line: drop it.",
    ]


@pytest.mark.parametrize(
    ("said", "backend", "expected"),
    [
        ("", "serial", None),
        ("workers = 2", "processes", {"executor": "Processes", "num_workers": 2}),
        ("timeout = 5", "processes", {"num_workers": 1, "timeout": 5.0}),
        ("workers = -1", "processes", {"num_workers": os.cpu_count()}),
        (
            'backend = "ray"\naddress = "auto"',
            "ray",
            {"executor": "Ray", "num_workers": 1, "address": "auto"},
        ),
        (
            "replicated = true\ngpus_per_worker = 0.5\nmax_attempts = 2\nthreads = 2",
            "processes",
            {"replicated": True, "gpus_per_worker": 0.5, "max_attempts": 2, "threads": 2},
        ),
    ],
)
def test_execution(said: str, backend: str, expected: dict[str, Any] | None) -> None:
    given = read(f"{textwrap.dedent(SHORT)}[execution]\n{said}")
    assert given.resolved()["execution"]["backend"] == backend
    workers = given.arguments()["workers"]
    if expected is None:
        assert workers == 1
    else:
        held = {"executor": type(workers).__name__, **vars(workers)}
        assert {name: held[name] for name in expected} == expected


def test_modules_beside_the_file_are_found_from_elsewhere_and_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("inner/ef_inner.py", MODEL)
    write("inner/experiment.toml", SHORT.replace("ef_model", "ef_inner"))
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    alone, together = (
        zoo.minimize(**read_experiment("../inner/experiment.toml", overrides).arguments())
        for overrides in ((), ("execution.workers=2", "job.out=two"))
    )
    assert alone.x.tobytes() == together.x.tobytes()
    assert len(together.account["busy"]) == 2
    assert (tmp_path / "away/runs/experiment/result.json").exists()


def test_resolved_file_is_the_same_experiment() -> None:
    first = read(SHORT, "execution.timeout=3", "method.options.sigma=0.5", "objective.bounds=[-1, inf]")
    write("elsewhere/other.toml", first.toml())
    again = read_experiment("elsewhere/other.toml")
    assert again.resolved() == first.resolved()
    assert first.resolved()["method"]["name"] == "cma"
    for stop, expected in (
        ("budget = 150", {"budget": 150}),
        ("", {"budget": 3000}),
        ("seconds = 9", {"seconds": 9.0}),
    ):
        assert read(SHORT.replace("budget = 150", stop)).resolved()["stop"] == expected
    spaced = read(SPACE, "objective.known.points=[{rate=0.5,depth=2,kind='a'}]")
    assert read(spaced.toml(), "job.out=runs/experiment").resolved() == spaced.resolved()
    assert spaced.resolved()["stop"] == {"budget": 3000}


VALID = st.fixed_dictionaries(
    {
        "job": st.fixed_dictionaries({"seed": st.integers(0, 2**63)}, optional={"noise": st.booleans()}),
        "objective": st.fixed_dictionaries(
            {
                "function": st.just("zoo.problems:sphere"),
                "x0": st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=4),
            },
            optional={"scale": st.floats(1e-300, 1e300)},
        ),
        "stop": st.fixed_dictionaries(
            {}, optional={"target": st.floats(-1e300, 1e300), "seconds": st.floats(1e-300, 1e300)}
        ),
        "execution": st.fixed_dictionaries({}, optional={"timeout": st.floats(1e-9, 1e9)}),
    }
)


@hypothesis.given(VALID)
@hypothesis.settings(max_examples=30, deadline=None)
def test_resolved_files_are_the_same_to_the_last_bit(data: dict[str, Any]) -> None:
    first = read(tomlkit.dumps(data))
    again = read(first.toml())
    assert repr(again.resolved()) == repr(first.resolved())
    assert np.array(again.arguments()["x0"]).tobytes() == np.array(data["objective"]["x0"]).tobytes()


# --- what files include, and what overrides them


def test_included_tables_are_merged_and_the_including_file_wins() -> None:
    write("shared/base.toml", SHORT.replace("ef_model", "ef_shared"))
    write("shared/ef_shared.py", MODEL)
    write("more.toml", "[method]\nname = 'snes'\n[stop]\nbudget = 5\ntarget = 3")
    given = read(
        """
        include = ["shared/base.toml", "more.toml"]
        [stop]
        target = 2
        """
    )
    assert given.resolved()["stop"] == {"budget": 5, "target": 2.0}
    arguments = given.arguments()
    assert (arguments["method"], arguments["rng"], arguments["fun"]) == ("snes", 1, "ef_shared:loss")
    # Wherever it is said: what includes wins over what is included.
    write("least.toml", 'include = "more.toml"\n' + textwrap.dedent(SHORT))
    assert read('include = "least.toml"').resolved()["stop"] == {"budget": 150, "target": 3.0}


def test_an_array_is_replaced_as_a_whole_and_so_are_its_lines() -> None:
    write("base.toml", textwrap.dedent(SHORT) + '[execution]\nworkers = "a"\n')
    assert wrong('include = "base.toml"\nobjective.x0 = [1,\n  "b"]') == [
        'base.toml, line 9: `workers` must be a whole number of at least 1, or -1 for one a core, got "a".',
        'line 3: `x0[1]` must be a number, got "b".',
    ]


def test_what_excludes_something_takes_its_place() -> None:
    write("base.toml", SHORT)
    given = read('include = "base.toml"\n[objective]\ncommand = ["cat"]').arguments()
    assert (given["fun"], given["budget"]) == (["cat"], 150)
    spaced = read(SPACE, "objective.bounds=[0, 1]", "objective.x0=[0.5]").arguments()
    assert (spaced["space"], spaced["bounds"]) == (None, [[0.0, 1.0]])
    bounded = SHORT.replace("x0 =", "scale = 3\n    bounds = [0, 1]\n    x0 =")
    write("bounded.toml", bounded)
    point = "x0 = {rate = 0.5, depth = 2, kind = 'a'}"
    spacious = SPACE.replace("[objective.space.rate]", f"{point}\n    [objective.space.rate]")
    again = read('include = "bounded.toml"\n' + textwrap.dedent(spacious))
    assert again.arguments()["scale"] is None
    # Options are those of a method.
    text = textwrap.dedent(SHORT) + "[method]\nname = 'cma'\noptions = {sigma = 0.5}"
    assert read(text, "method.name=snes").arguments()["options"] == {}
    assert read(text, "method.name=cma").arguments()["options"] == {"sigma": 0.5}
    assert read(text, "method.name=sep-cma", "method.options.sigma=1").arguments()["options"] == {"sigma": 1}
    write("method.toml", text)
    other = 'include = "method.toml"\n[method]\nname = "snes"\noptions = {population_size = 8}'
    assert read(other).arguments()["options"] == {"population_size": 8}
    # In one file it is a mistake.
    assert "cannot be given along with" in wrong(bounded.replace("x0", "command = ['cat']\n    x0"))[0]


def test_a_file_may_be_included_twice_but_not_by_itself() -> None:
    write("base.toml", SHORT)
    write("left.toml", 'include = "base.toml"')
    write("right.toml", 'include = "base.toml"')
    assert read('include = ["left.toml", "right.toml"]').arguments()["rng"] == 1
    write("a.toml", 'include = "sub/b.toml"')
    write("sub/b.toml", '# back\ninclude = "../a.toml"')
    assert said("a.toml") == [
        "sub/b.toml, line 2: `include` leads back to where it started: "
        "a.toml includes sub/b.toml includes a.toml."
    ]
    write("self.toml", 'include = "self.toml"')
    assert said("self.toml") == [
        "self.toml, line 1: `include` leads back to where it started: self.toml includes self.toml."
    ]


def test_files_are_read_once_however_many_ways_lead_to_them() -> None:
    names = [f"{number}.toml" for number in range(60)]
    for name, following in itertools.pairwise(names):  # 2 to the 59 ways to the last one
        write(name, f"include = ['{following}', './{following}']\n[method]\noptions.sigma = 0.5")
    write(names[-1], SHORT)
    write("other.toml", "[method]\nname = 'snes'")
    assert read_experiment("0.toml").arguments()["options"] == {"sigma": 0.5}
    # What is taken over from one file stays as it is in that one.
    write("left.toml", 'include = ["1.toml", "other.toml"]')
    assert read('include = ["left.toml", "1.toml"]').arguments()["options"] == {"sigma": 0.5}


def test_there_is_an_end_to_files_that_include_others() -> None:
    for number in range(100):
        write(f"{number}.toml", f"# on\ninclude = '{number + 1}.toml'")
    write("100.toml", SHORT)
    assert said("0.toml") == ["99.toml, line 2: `include` must lead to 100 files at most."]
    assert read_experiment("1.toml").arguments()["rng"] == 1
    assert wrong(f"include = {['none.toml', *(f'{number}.toml' for number in range(100, -1, -1))]}") == [
        "line 1: includes 'none.toml': there is no such file.",
        "line 1: `include` must lead to 100 files at most.",
    ]


def test_what_cannot_be_included() -> None:
    Path("folder").mkdir()
    write("broken.toml", "[stop]\nbudget = many")
    assert wrong('include = ["none.toml", 3,\n "folder", "broken.toml"]') == [
        "line 1: `include` must be the name of a file or a list of names, got 3.",
        "line 1: includes 'none.toml': there is no such file.",
        "line 2: includes 'folder': it is a directory, and must be an experiment file.",
        "broken.toml, line 2: no valid TOML: invalid value at column 10, in 'budget = many'; text has to be "
        "in quotes.",
    ]
    write("base.toml", SHORT)
    assert wrong('include = "bas.toml"') == [
        "line 1: includes 'bas.toml': there is no such file. Did you mean 'base.toml'?"
    ]
    assert wrong('[stop]\ninclude = "base.toml"')[0] == (
        "line 2: unknown key `include` in [stop]. It belongs at the top, before all tables."
    )


@pytest.mark.parametrize(
    ("override", "argument", "value"),
    [
        ("stop.budget=500", "budget", 500),
        ("method.name=snes", "method", "snes"),
        ('method.name = "snes"', "method", "snes"),
        ("objective.x0=2x4", "x0", [2.0] * 4),
        ("objective.x0=0x4", "x0", [0.0] * 4),
        ("objective.x0=-.5E-1x02", "x0", [-0.05] * 2),
        (f"objective.x0=1.x{'0' * 5000}1", "x0", [1.0]),
        ("objective.x0=[1, 2]", "x0", [1.0, 2.0]),
        ("objective.bounds=[-inf, inf]", "bounds", [[-math.inf, math.inf]] * 3),
        ("job.noise=true", "noise", True),
        ("job.out=a b=c", "out", "a b=c"),
        ("method.options.population_size=9", "options", {"population_size": 9}),
        ("job={seed = 4}", "rng", 4),
    ],
)
def test_overrides(override: str, argument: str, value: Any) -> None:
    assert read(SHORT, override).arguments()[argument] == value


def test_later_overrides_win() -> None:
    assert read(SHORT, "stop.budget=5", "stop.budget=6").arguments()["budget"] == 6


def test_overrides_mean_the_same_in_any_order() -> None:
    text = textwrap.dedent(SHORT) + "[method]\nname = 'cma'\noptions = {sigma = 0.5}"
    changes = ["method.name=sep-cma", "method.options.population_size=10"]
    for overrides in (changes, changes[::-1]):
        arguments = read(text, *overrides).arguments()
        assert (arguments["method"], arguments["options"]) == ("sep-cma", {"population_size": 10})
    for overrides in itertools.permutations(
        ["objective.function=ef_model:loss", "objective.command=['cat']"]
    ):
        assert wrong(SHORT, *overrides) == [
            "--set objective.command=['cat']: `command` cannot be given along with `function`: drop one."
        ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stop.bugdet=1", "unknown key `bugdet` in [stop]. Did you mean `budget`?"),
        ("stopp.budget=1", "unknown key `stopp` at the top. Did you mean `stop`?"),
        ("budget=1", "unknown key `budget` at the top. It belongs in [stop]."),
        ("objective.seed=1", "unknown key `seed` in [objective]. It belongs in [job]."),
        ("job.bugdet=1", "unknown key `bugdet` in [job]. Did you mean `budget` in [stop]?"),
        ("stop.zzz=1", "unknown key `zzz` in [stop]. Valid: `budget`, `target`, `seconds`."),
        ("stop.budget", "must have the form TABLE.KEY=VALUE, as in stop.budget=500 or method.name=cma."),
        ("a b.c=1", "must have the form TABLE.KEY=VALUE, as in stop.budget=500 or method.name=cma."),
        ("include=base.toml", "`include` can be said in files only."),
        ("stop.budget=0x10", '`budget` must be a whole number of at least 1, got "0x10".'),
        ("stop.budget.x=1", "`budget` must be a whole number of at least 1, got {x = 1}."),
        (
            "method.options.popsize=1",
            "unknown option `popsize` of method 'cma'. Did you mean `population_size`?",
        ),
        ("method.options=3", "[method.options] must be a table, got 3."),
        ("objective.path=['none']", '`path[0]` must be a folder, got "none": there is no {}/none.'),
    ],
)
def test_overrides_that_are_wrong(override: str, message: str) -> None:
    assert wrong(SHORT, override) == [f"--set {override}: {message.replace('{}', os.getcwd())}"]


# --- files that cannot be read


def test_files_that_cannot_be_read() -> None:
    write("first.toml", SHORT)
    assert said("frist.toml") == ["frist.toml: there is no such file. Did you mean 'first.toml'?"]
    assert said("nowhere/frist.toml") == ["nowhere/frist.toml: there is no such file."]
    assert said(".") == [".: it is a directory, and must be an experiment file."]
    assert said("first.toml/second.toml") == ["first.toml/second.toml: cannot be read: Not a directory."]
    Path("latin.toml").write_bytes(b"[job]\n# caf\xe9\n")
    assert said("latin.toml") == [
        "latin.toml, line 2: must be text in UTF-8, got the byte 0xe9. Save it as UTF-8."
    ]


def test_names_that_lead_nowhere() -> None:
    Path("loop.toml").symlink_to("loop.toml")
    Path("loop").symlink_to("loop")
    assert said("loop.toml") == ["loop.toml: cannot be read: Too many levels of symbolic links."]
    long = "a" * 300
    assert said(long) == [f"{long}: cannot be read: File name too long."]
    assert wrong(f"include = ['loop.toml', '{long}']\n" + textwrap.dedent(SHORT)) == [
        "line 1: includes 'loop.toml': cannot be read: Too many levels of symbolic links.",
        f"line 1: includes '{long}': cannot be read: File name too long.",
    ]
    (found,) = wrong(SHORT.replace("ef_model", long))
    assert found.startswith(f"line 4: `function` is '{long}:loss', and no module '{long}' is installed or in")
    for name in ("loop", long):
        rule = f'`path[0]` must be a folder, got "{name}": there is no {os.getcwd()}/{name}.'
        (found,) = wrong(SHORT.replace("x0", f"path = ['{name}']\n    x0"))
        assert found == f"line 5: {shortened(rule, name)}"
        (found,) = wrong(SHORT, f"objective.path=['{name}']")
        assert found == f"--set objective.path=['{name}']: {shortened(rule, name)}"


def shortened(message: str, name: str) -> str:
    return message.replace(f'"{name}"', f'"{name[:56]}...') if len(name) > 56 else message


def test_directory_of_a_run_is_told_from_others() -> None:
    zoo.minimize(**read(SHORT).arguments())
    assert said("runs/experiment") == [
        "runs/experiment: it is the directory of a run: go on with it by `zoo resume runs/experiment`."
    ]


@pytest.mark.parametrize(
    ("text", "line", "advice"),
    [
        ("[stop]\nbudget = many\n", 2, "in 'budget = many'; text has to be in quotes."),
        ("[stop]\nbudget = 1\nbudget = 2", 3, "in 'budget = 2'; this key is given a second time."),
        ("[job]\nout = 'a\n", 2, 'in "out = \'a".'),
        ("[job]\nlog = [\n", 2, "in 'log = ['."),
        ("\nseed", 1, "in 'seed'."),
        ("[job]\nseed = 1\n[job]\n", 3, "cannot declare [job] twice at column 5, in '[job]'."),
    ],
)
def test_syntax_errors_have_a_line(text: str, line: int, advice: str) -> None:
    (found,) = wrong(text)
    assert found.startswith(f"line {line}: no valid TOML: ")
    assert found.endswith(advice)


@pytest.mark.parametrize("depth", [49, 100, 3000])
def test_what_is_nested_too_deeply(depth: int) -> None:
    rule = "lists and tables must not be nested more than 50 deep."
    deep = f"{'[' * depth}{']' * depth}"
    assert wrong(f"# 1\n[method.options]\nx = [[1],\n {deep}]\n[stop]\n") == [f"line 4: {rule}"]
    assert wrong(f"[stop]\nbudget{'.a' * depth} = 1") == [f"line 2: {rule}"]
    assert wrong(SHORT, f"method.options.y={deep}") == [f"--set method.options.y={deep}: {rule}"]
    key = f"method.a{'.a' * depth}"
    assert wrong(SHORT, f"{key}=1") == [f"--set {key}=1: {rule}"]


def test_what_is_nested_as_deeply_as_may_be() -> None:
    (found,) = wrong(f"{textwrap.dedent(SHORT)}[execution]\ntimeout = {'[' * 49}{']' * 49}")
    assert found.startswith("line 9: `timeout` must be a number of seconds above 0, got [[[")


@pytest.mark.parametrize("number", ["1" * 6000, f"0x{'f' * 6000}"])
def test_numbers_that_are_too_long(number: str) -> None:
    rule = "integers must have 4000 digits at most."
    comment, quoted = "#" * 5000, "a" * 5000
    text = f"{comment}\n[job]\nout = '{quoted}'\n[method.options]\nx = [1,\n  {number}]\n"
    assert wrong(text) == [f"line 6: {rule}"]
    (found,) = wrong(SHORT, f"stop.budget={number}")
    assert "budget" in found
    longest = "9" * 4000
    assert wrong(SHORT, f"stop.target={longest}") == [
        f"--set stop.target={longest}: `target` must be a finite number, got {'9' * 57}...."
    ]


def test_a_byte_order_mark_is_no_error() -> None:
    Path("bom.toml").write_bytes(b"\xef\xbb\xbf" + textwrap.dedent(SHORT).encode())
    assert read_experiment("bom.toml").arguments()["rng"] == 1


# --- modules


BAD_IMPORTS = {
    "ef_model:los": "'ef_model' has no 'los'. Did you mean 'loss'?",
    "ef_modle:loss": "no module 'ef_modle' is installed or in {}. Did you mean 'ef_model'?",
    "unheard_of.sub:loss": "no module 'unheard_of' is installed or in {}.",
    "ef_raises:loss": "importing 'ef_raises' raised ZeroDivisionError: division by zero "
    "({}/ef_raises.py, line 2).",
    "ef_needs:loss": "importing 'ef_needs' raised ModuleNotFoundError: No module named 'ef_absent' "
    "({}/ef_needs.py, line 1).",
    "ef_deep:loss": "importing 'ef_deep' raised ZeroDivisionError: division by zero "
    "({}/ef_raises.py, line 2).",
    "ef_syntax:loss": "importing 'ef_syntax' raised SyntaxError: invalid syntax ({}/ef_syntax.py, line 1).",
    "ef_exits:loss": "importing 'ef_exits' raised SystemExit: 3 ({}/ef_exits.py, line 1).",
    "textwrap:loss": "another module 'textwrap' than {}/textwrap.py is in use here: give that file another "
    "name.",
}


@pytest.mark.parametrize("key", ["function", "constraints"])
@pytest.mark.parametrize("spec", BAD_IMPORTS)
def test_imports_that_fail(spec: str, key: str) -> None:
    write("ef_raises.py", "# zero\n1 / 0")
    write("ef_needs.py", "import ef_absent")
    write("ef_deep.py", "import ef_raises")
    write("ef_syntax.py", "def def")
    write("ef_exits.py", "raise SystemExit(3)")
    write("textwrap.py", "def loss(x): return 0.0")
    value = f"['{spec}']" if key == "constraints" else f"'{spec}'"
    with pytest.raises(ExperimentFileError) as caught:
        read(SHORT, f"objective.{key}={value}")
    (problem,) = caught.value.problems
    assert problem.message == f"`{key}` is {spec!r}, and {BAD_IMPORTS[spec].replace('{}', os.getcwd())}"


def test_what_is_no_function() -> None:
    assert wrong(SHORT.replace(":loss", ":SHIFT")) == [
        'line 4: `function` must be a function, "module:name", a list of strings or an Objective, got 0.5.'
    ]
    assert wrong(SHORT.replace(":loss", ":SHIFT()")) == [
        'line 4: `function` must name something to call, got "ef_model:SHIFT()", a 0.5.'
    ]
    (found,) = wrong(SHORT.replace("x0", "constraints = ['ef_model:SHIFT']\n    x0"))
    assert found.startswith("line 5: `constraints` must be functions")


def test_folders_of_modules() -> None:
    write("code/ef_code.py", MODEL)
    text = SHORT.replace("ef_model", "ef_code")
    assert "no module 'ef_code'" in said(write("sub/experiment.toml", text))[0]
    # Overrides are said in the current directory.
    overridden = read_experiment("sub/experiment.toml", ["objective.path=['code']"])
    given = read_experiment(write("sub/experiment.toml", text.replace("x0", "path = ['../code']\n    x0")))
    assert given.resolved()["objective"]["path"] == [str(Path("code").resolve())]
    assert given.folders == overridden.folders


# --- values


def test_all_problems_are_said_at_once_with_their_lines() -> None:
    assert wrong(
        """
        budget = 3
        [job]
        seed = -1
        log = ["csv",
               "tensorbord"]
        [objective]
        function = "ef_model:los"
        bounds = [[0, 1],
                  [0, "b"]]
        constraints = ["ef_modle:small"]
        known = {points = [[1, 2],
                           [3, true]], valuess = [1]}
        [objective.space]
        a.type = "flot"
        b = {type = "float", lower = 3, uper = 1}
        c = 3
        [method]
        name = "cma"
        [method.options]
        popsize = 3
        population_size = 1
        [stop]
        bugdet = 3
        budget = "many"
        [execution]
        workers = 3
        backend = "serial"
        timeout = 3
        """
    ) == [
        "line 1: unknown key `budget` at the top. It belongs in [stop].",
        "line 3: `seed` must be a whole number of at least 0, got -1.",
        'line 5: `log[1]` must be one of "csv", "tensorboard", "mlflow", "wandb", got "tensorbord". '
        'Did you mean "tensorboard"?',
        "line 7: `function` is 'ef_model:los', and 'ef_model' has no 'los'. Did you mean 'loss'?",
        'line 9: `bounds[1][1]` must be a number, got "b".',
        "line 10: `constraints` is 'ef_modle:small', and no module 'ef_modle' is installed or in "
        f"{os.getcwd()}. Did you mean 'ef_model'?",
        "line 12: `points[1][1]` must be a number, got true.",
        "line 12: unknown key `valuess` in [objective.known]. Did you mean `values`?",
        'line 14: `type` must be one of "float", "integer", "categorical", got "flot". Did you mean "float"?',
        "line 15: [objective.space.b] must have `upper`.",
        "line 15: unknown key `uper` in [objective.space.b]. Did you mean `upper`?",
        "line 16: [objective.space.c] must be a table, got 3.",
        "line 20: unknown option `popsize` of method 'cma'. Did you mean `population_size`?",
        "line 21: `population_size` must be at least 2, got 1.",
        "line 23: unknown key `bugdet` in [stop]. Did you mean `budget`?",
        'line 24: `budget` must be a whole number of at least 1, got "many".',
        'line 26: `workers` must be 1 where `backend` is "serial", got 3: drop one.',
        'line 28: `timeout` is a setting of workers, and `backend` is "serial": say backend = "processes".',
    ]


START = 'a list of numbers, VALUExDIM in quotes as in "0x10", or a point'
FUNCTION = 'of the form "module:name" or "module:name()"'


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("job.kind", '"train"', '"minimize", or a kind of another package such as "evolution"'),
        ("job.seed", "1.5", "a whole number of at least 0"),
        ("job.seed", "true", "a whole number of at least 0"),
        ("job.out", "3", "text in quotes"),
        ("job.out", '""', "text in quotes"),
        ("job.out", '"a\\u0000b"', "text without NUL"),
        ("job.noise", "1", "true or false"),
        ("job.log", '"csv"', "a list"),
        ("objective.function", '"loss"', FUNCTION),
        ("objective.function", '["ls"]', FUNCTION),
        ("objective.command", '"ls -l"', "a list of texts"),
        ("objective.command", "[]", "a list of texts"),
        ("objective.vectorized", '"yes"', "true or false"),
        ("objective.x0", '"3"', START),
        ("objective.x0", '"0x0"', START),
        ("objective.x0", '"..x2"', START),
        ("objective.x0", "[]", START),
        ("objective.bounds", "3", "[lower, upper] or a list of such pairs"),
        ("objective.bounds", "[1, 2, 3]", "[lower, upper] or a list of such pairs"),
        ("objective.scale", '"a"', "a number or a list of numbers"),
        ("objective.constraints", '"ef_model:small"', "a list"),
        ("objective.known.points", "3", "a list of points"),
        ("method.name", "3", "text in quotes"),
        ("execution.workers", "0", "a whole number of at least 1, or -1 for one a core"),
        ("execution.workers", "1.0", "a whole number of at least 1, or -1 for one a core"),
        ("execution.backend", '"dask"', 'one of "serial", "processes", "ray"'),
        ("execution.gpus_per_worker", "-1", "a number of at least 0"),
        ("execution.timeout", "0", "a number of seconds above 0"),
        ("execution.timeout", "inf", "a number of seconds above 0"),
        ("execution.max_attempts", "0", "a whole number of at least 1"),
        ("execution.threads", "0", "a whole number of at least 1"),
        ("execution.on_error", '"skip"', 'one of "raise", "nan"'),
        ("stop.budget", "0", "a whole number of at least 1"),
        ("stop.budget", "1000.0", "a whole number of at least 1"),
        ("stop.target", "nan", "a finite number"),
        ("stop.seconds", "-1", "a number of seconds above 0"),
    ],
)
def test_values_that_are_wrong(key: str, value: str, rule: str) -> None:
    name = key.rpartition(".")[2]
    assert wrong(SHORT, f"{key}={value}") == [f"--set {key}={value}: `{name}` must be {rule}, got {value}."]


@pytest.mark.parametrize("dim", ["100000001", "0x", "1" * 20, "1" * 5000])
def test_more_variables_than_fit_into_memory(dim: str) -> None:
    shown = f'"0x{dim}"' if len(dim) < 50 else f'"0x{"1" * 54}...'
    rule = "VALUExDIM with DIM up to 100000000" if dim.isdigit() else START
    assert wrong(SHORT.replace("0x3", f"0x{dim}")) == [f"line 5: `x0` must be {rule}, got {shown}."]


LOSS = "function = 'ef_model:loss'\n"
MIXED = "function = 'ef_model:mixed'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: [objective] must have `function` or `command`, as in function = "),
        (
            f"{LOSS}command = ['ls']\nx0 = [1]",
            "line 3: `command` cannot be given along with `function`: drop",
        ),
        (LOSS, "line 1: `x0` must be given, or `bounds` be finite on all sides"),
        (f"{LOSS}bounds = [0, 1]", "line 3: `bounds` must have a pair for each variable where there is no"),
        (f"{LOSS}x0 = [2]\nbounds = [0, 1]", "line 3: `x0` must lie inside `bounds`"),
        (f"{LOSS}x0 = [2]\nbounds = [3, 1]", "line 4: `bounds` must have lower <= upper"),
        (f"{LOSS}x0 = [2]\nscale = -1", "line 4: `scale` must be finite and above 0"),
        (f"{LOSS}x0 = [2]\nknown.points = [[1, 2]]", "line 4: `known` must hold points of 1"),
        (
            f"{LOSS}x0 = [2]\nknown = {{points = [[1]], values = [1]}}\nconstraints = ['ef_model:small']",
            "line 4: `known` must be (points, None) where there are `constraints`",
        ),
        (f"{MIXED}space.a = {{type = 'float', lower = 2, upper = 1}}", "line 3: `lower` must not be above"),
        (
            f"{MIXED}space.a = {{type = 'categorical', choices = [1, 1]}}",
            "line 3: `choices` must differ from",
        ),
        (f"{MIXED}space = {{}}", "line 3: `space` must hold one at least"),
        (
            f"{MIXED}space.a = {{type = 'float', lower = 1, upper = 2}}\nbounds = [0, 1]",
            "line 4: `bounds` cannot be given along with `space`, which says it: drop it.",
        ),
        (
            f"{MIXED}space.a = {{type = 'float', lower = 1, upper = 2}}\nx0 = {{b = 1}}",
            "line 4: `x0` must be a point of `space`: unknown variable 'b'.",
        ),
    ],
)
def test_what_does_not_fit_together(text: str, message: str) -> None:
    (found,) = wrong(f"[objective]\n{text}")
    assert found.startswith(message)


def test_an_empty_file_has_no_line() -> None:
    assert wrong("")[0].startswith("experiment.toml: [objective] must have `function` or `command`")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[method]\nname = "cmaa"', 'line 2: `name` must be a method, got "cmaa". Did you mean "cma"?'),
        (
            '[method]\nname = "L-BFGS-B"',
            'line 2: `name` must be a method, got "L-BFGS-B". Did you mean "l-bf',
        ),
        ('[method]\nname = "zz"', 'line 2: `name` must be a method, got "zz". Valid: cma, '),
        ("[method]\noptions = {sigma = -1}", "line 2: `sigma` must be"),
        ('[execution]\naddress = "auto"', "line 2: `address` is that of a Ray cluster, and `backend` is"),
        (
            '[execution]\nbackend = "processes"\ngpus_per_worker = 1.5',
            "line 3: `gpus_per_worker` must be 0, a",
        ),
    ],
)
def test_what_a_method_and_workers_cannot_be(text: str, message: str) -> None:
    (found,) = wrong(f"{text}\n{textwrap.dedent(SHORT)}")
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[method]\nname = "ch"', "line 2: `sharded` must be False but for .*, got 'ch'"),
        ("", "line 2: `sharded` must be False but for .*, got 'cma'"),
        (
            '[method]\nname = "cbo"\noptions.batch_size = 9',
            "line 5: `batch_size` must be None in shards, got 9",
        ),
        ('[job]\nnoise = true\n[method]\nname = "cbo"', "line 2: .* where `noise` is True"),
        (
            '[method]\nname = "cbo"\n[objective]\nconstraints = ["ef_model:small"]',
            "line 2: .* where there are `constraints`",
        ),
        (
            '[method]\nname = "cbo"\n[objective]\nknown = {points = [[0, 0, 0]]}',
            "line 2: .* where `known` has points without values",
        ),
    ],
)
def test_what_cannot_be_in_shards(text: str, message: str) -> None:
    text = f"[execution]\nsharded = true\n{text}\n"
    for table, lines in (("job", "seed = 1"), ("objective", 'function = "ef_model:loss"\nx0 = "0x3"')):
        head = f"[{table}]\n"
        text = text.replace(head, f"{head}{lines}\n") if head in text else f"{text}{head}{lines}\n"
    (found,) = wrong(text)
    assert re.match(message, found)


def test_a_swarm_in_shards() -> None:
    given = read(f'{textwrap.dedent(SHORT)}[method]\nname = "cbo"\n[execution]\nsharded = true\n')
    assert given.arguments()["workers"].sharded


JUNK = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-3, 3),
        st.floats(),
        st.sampled_from(["", "cma", "zoo.problems:sphere", "returned", "0x3", "float", "ray", "csv", "a:b"]),
        st.just(10**400),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "lower", "upper", "choices", "points", "a"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def junk_table(model: Any) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from([*model.model_fields, "other"]), JUNK, max_size=4) | JUNK


@hypothesis.given(
    st.fixed_dictionaries(
        {}, optional={name: junk_table(field.annotation) for name, field in Tables.model_fields.items()}
    )
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_nothing_but_our_own_error_is_ever_raised(data: dict[str, Any]) -> None:
    try:
        read(tomlkit.dumps(data)).toml()
    except ExperimentFileError as error:
        for problem in error.problems:
            assert problem.message[-1] in ".?"
            assert "Input" not in problem.message  # as pydantic has it


# --- where things stand


def test_lines() -> None:
    text = textwrap.dedent(
        """
        a.b = [1, # [not this
          2,
          {c = 3, d = "x#y"}]
        "q.x" = \"\"\"
        "k = 1\"\"\"\"\"
        [t.'u v']
        date = 1979-05-27 07:32:00 # c
        f = 1.5e3
        [[z]]
        k = 1
        [[z]]
        k = ''' '
        '''
        [z.m]
        n = [[1],
        [3, "]"]]
        """
    )
    assert set(lines_of(text)) == set(paths_of(tomllib.loads(text)))
    assert lines_of(text) == {
        ("a",): 2,
        ("a", "b"): 2,
        ("a", "b", 0): 2,
        ("a", "b", 1): 3,
        ("a", "b", 2): 4,
        ("a", "b", 2, "c"): 4,
        ("a", "b", 2, "d"): 4,
        ("q.x",): 5,
        ("t",): 7,
        ("t", "u v"): 7,
        ("t", "u v", "date"): 8,
        ("t", "u v", "f"): 9,
        ("z",): 10,
        ("z", 0): 10,
        ("z", 0, "k"): 11,
        ("z", 1): 12,
        ("z", 1, "k"): 13,
        ("z", 1, "m"): 15,
        ("z", 1, "m", "n"): 16,
        ("z", 1, "m", "n", 0): 16,
        ("z", 1, "m", "n", 0, 0): 16,
        ("z", 1, "m", "n", 1): 17,
        ("z", 1, "m", "n", 1, 0): 17,
        ("z", 1, "m", "n", 1, 1): 17,
    }


def paths_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=4)
DOCUMENTS = st.dictionaries(
    WORDS,
    st.recursive(
        st.one_of(st.integers(), st.floats(), st.booleans(), WORDS, st.dates(), st.datetimes()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
        max_leaves=8,
    ),
    max_size=4,
)


@hypothesis.given(DOCUMENTS)
@hypothesis.settings(max_examples=150, deadline=None)
def test_everything_in_a_document_has_a_line(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    found = lines_of(text)
    assert set(found) == set(paths_of(tomllib.loads(text)))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
