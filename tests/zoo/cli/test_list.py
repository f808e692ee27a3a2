"""`zoo list`: what there is to choose from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from zoo import problems
from zoo.cli.described import meanings
from zoo.cli.extras import EXTRAS, find
from zoo.cli.problems import PROBLEMS
from zoo.registry import list_methods

ROOT = Path(__file__).parents[3]
SYNTHETIC = [name for name, one in PROBLEMS.items() if one.spec.startswith("zoo.problems:")]


def test_methods(zoo):
    lines = zoo("list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(list_methods())
    assert lines == zoo("list", "methods").out.splitlines()
    found = zoo("list", "--json").json
    assert [one["name"] for one in found] == list(list_methods())
    assert {one["name"]: one["extra"] for one in found}["gp"] == "gp"


def test_a_method(zoo):
    said = zoo("list", "de").out
    assert "Tanabe and Fukunaga 2014" in said
    assert re.search(r"^archive_rate +2\.6 +Size of the archive", said, re.MULTILINE)
    options = {one["name"]: one for one in zoo("list", "methods", "de", "--json").json["options"]}
    assert options["weight"] == {
        "name": "weight",
        "default": 0.5,
        "meaning": 'F; with "shade", the memory\'s at first.',
    }


@pytest.mark.parametrize("name", ["cma", "de", "bipop-cma", "l-bfgs-b"])
def test_defaults_can_be_given(zoo, name):
    rows = zoo("list", name).out.partition("meaning\n")[2].splitlines()
    defaults = [row.split()[:2] for row in rows]
    assert len(defaults) == len(list_methods()[name].options())
    given = [word for option, default in defaults for word in ("--option", f"{option}={default}")]
    problem = ("zoo.problems:sphere", "--x0", "1x3", "--method", name, "--budget", 60, "--seed", 1)
    assert zoo("minimize", *problem, *given).json["x"] == zoo("minimize", *problem).json["x"]


@pytest.mark.parametrize("name", list_methods())
def test_every_option_has_a_meaning(name):
    method = list_methods()[name]
    said = meanings(method.factory)
    for option in method.options():
        assert len(said[option].split()) > 1, option
        alone = r"\bas above|\bsee (there|`zoo.consensus)|^As (there|in)|The map\."
        assert not re.search(alone, said[option], re.IGNORECASE), option


def test_where_what_was_asked_for_is_listed(zoo):
    for words in (("options", "cbo"), ("problems", "cbo"), ("cbo", "options")):
        done = zoo("list", *words)
        assert done.status == 2
        assert "`zoo list cbo`" in done.err


def test_problems(zoo):
    lines = zoo("list", "problems").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PROBLEMS)
    assert {one["name"]: one["minimum"] for one in zoo("list", "problems", "--json").json}["g11"] == 0.75
    assert re.search("at +14.095, 0.842961", zoo("list", "g06").out)
    assert zoo("list", "problems", "rosenbrock", "--json").json["bounds"] == [[-5.0, 5.0]]


def test_all_functions_are_listed():
    functions = {name for name, thing in vars(problems).items() if callable(thing)}
    assert functions == set(SYNTHETIC)


@pytest.mark.parametrize(
    "name", [name for name, one in PROBLEMS.items() if one.spec.startswith("zoo.problems:")]
)
def test_minima_are_where_they_are_said_to_be(name):
    one = PROBLEMS[name]
    fun, at = getattr(problems, name), float(one.at.removeprefix("all "))
    assert fun(np.full(4, at)) == pytest.approx(one.minimum, abs=1e-9)
    assert fun(np.full(4, at) + 0.1) > one.minimum


def test_extras_are_those_of_the_project():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {
        extra: tuple(sorted({re.match(r"[\w-]+", one)[0] for one in required}))
        for extra, required in said.items()
        if extra not in ("dev", "all")
    }
    assert names == {name: tuple(sorted(parts)) for name, (_, parts) in EXTRAS.items()}


def test_extras(zoo, monkeypatch):
    assert find("optuna").is_installed
    monkeypatch.setitem(EXTRAS, "magic", ("wonders", ("no-such-distribution", "numpy")))
    one = zoo("list", "magic", "--json").json
    assert (one["installed"], one["versions"]["no-such-distribution"]) == (False, None)
    assert one["versions"]["numpy"] == np.__version__
    assert re.fullmatch(r'pip install (-e )?".*\[magic\]"', one["install"])
    assert "no-such-distribution  missing" in zoo("list", "extras", "magic").out
    assert zoo("list", "extras").out.splitlines()[-1].split()[0] == "magic"
