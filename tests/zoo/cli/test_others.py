"""Commands of other distributions, and completion."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from zoo.cli import completion
from zoo.registry import list_methods

MODULE = '''
import typer

def greet(name: str, loud: bool = False) -> None:
    """Greet somebody.

    \\b
    # [quietly]
    zoo greet you
    """
    typer.echo(f"hello {name}{'!' if loud else ''}")

def Wild(size: int = 3, pace: float = 0.1):
    """Go anywhere.

    Args:
        size: How many at a time.
    """

app = typer.Typer(help="Tend a garden.")

@app.command()
def water() -> None:
    """Water it."""
    typer.echo("watered")

@app.command()
def weed() -> None:
    """Weed it."""
'''
ENTRIES = """[gradfree.commands]
greet = friendly:greet
garden = friendly:app
absent = friendly:nothing
torn = broken:run
list = friendly:greet
[gradfree.methods]
wild = friendly:Wild
ghost = friendly:Ghost
"""


@pytest.fixture
def others(tmp_path, monkeypatch):
    """Install a distribution that adds commands, two of which are broken."""
    site = tmp_path / "site"
    (site / "friendly-1.0.dist-info").mkdir(parents=True)
    (site / "friendly-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: friendly\nVersion: 1.0\n"
    )
    (site / "friendly-1.0.dist-info/entry_points.txt").write_text(ENTRIES)
    (site / "friendly.py").write_text(MODULE)
    (site / "broken.py").write_text("import what_nobody_has\n")
    monkeypatch.syspath_prepend(str(site))


def test_commands_of_other_distributions(zoo, others):
    assert zoo("greet", "you", "--loud").out == "hello you!\n"
    assert zoo("garden", "water").out == "watered\n"
    assert "Weed it." in zoo("garden", "--help").out
    assert re.search(r"# \[quietly\] *\n zoo greet you", zoo("greet", "--help").out)
    assert zoo("grete").err.startswith("zoo: There is no command 'grete'. Did you mean 'greet'?")


def test_broken_commands_break_nothing_else(zoo, others):
    page = zoo("--help")
    assert page.status == 0
    assert " From other packages " in page.out
    assert "Greet somebody." in page.out
    assert "Tend a garden." in page.out
    assert "cannot be loaded from broken:run: ModuleNotFoundError" in page.out
    done = zoo("torn", "--fast", "4")
    assert done.status == 2
    assert done.err == (
        "zoo: the command 'torn' cannot be loaded from broken:run: ModuleNotFoundError: No module named "
        "'what_nobody_has'\n"
    )
    assert "AttributeError" in zoo("absent").err
    assert zoo("list").out.startswith("method "), "our own commands come first"


def test_methods_of_other_distributions(zoo, others):
    list_methods.cache_clear()
    try:
        assert "from friendly" in zoo("list").out
        said = zoo("list", "wild").out
        assert said.startswith("wild: Go anywhere.\n")
        assert re.search(r"^size +3 +How many at a time.\npace +0.1\n", said, re.MULTILINE)
        broken = zoo("list", "ghost")
        assert broken.status == 2
        assert "zoo: the method 'ghost' cannot be loaded from friendly:Ghost: " in broken.err
    finally:
        list_methods.cache_clear()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("zoo mini", ["minimize"]),
        ("zoo gre", ["greet"]),
        ("zoo minimize --method lq", ["lq-cma"]),
        ("zoo bench sphere --method cma,lq", ["cma,lq-cma"]),
        ("zoo minimize mod", ["model:"]),
        ("zoo bench ros", ["rosenbrock"]),
        ("zoo list ser", ["serve"]),
        ("zoo resume runs/", ["runs/deep/er", "runs/first"]),
        ("zoo run exp", ["experiment.toml"]),
        ("zoo run ru", ["runs/"]),
        ("zoo minimize --progress l", ["lines"]),
        ("zoo minimize --log m", ["mlflow"]),
        ("zoo minimize --on-error n", ["nan"]),
    ],
)
def test_completion(zoo, others, model, monkeypatch, words, offered):
    for name in ("runs/first", "runs/deep/er", "runs/.hidden/run", "runs/first/inside"):
        Path(name).mkdir(parents=True)
        Path(name, "config.json").touch()
    monkeypatch.setenv("_ZOO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    done = zoo()
    assert done.out.split() == offered


def test_runs_are_looked_for_to_a_depth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a/b/c/d/e", "b/c/d/e", "b/c/d/e/f/g"):
        os.makedirs(name, exist_ok=True)
        Path(name, "config.json").touch()
    assert completion.runs("") == ["a", "b/c/d/e"]
