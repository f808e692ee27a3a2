"""What no file of the library does, and what every public name has."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zoo
from tests.architecture.test_imports import FILES, ROOT, module_of
from zoo.core.types import Optimizer
from zoo.run.job import Job
from zoo.updates.chain import Update

MODULES = [module_of(path) for path in FILES]
PROTOCOLS = (Job, Optimizer, Update)


def test_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", zoo.__version__)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_command_line_prints(path: Path) -> None:
    if module_of(path).startswith("zoo.cli"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        printing = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not printing, f"line {node.lineno} prints"


# What draws from, or seeds, a generator that is not keyed.
DRAWS = {
    "rand",
    "randn",
    "randint",
    "randperm",
    "rand_like",
    "randn_like",
    "randint_like",
    "normal",
    "bernoulli",
}
SEEDS = {"seed", "manual_seed", "manual_seed_all", "set_rng_state", "set_state", "fork_rng"}
IN_PLACE = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "cauchy_",
    "geometric_",
    "log_normal_",
}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_randomness_has_one_file(path: Path) -> None:
    if module_of(path) == "zoo.core.rng":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        bad = (
            # The class may be named, to accept a user's own generator.
            (owner in ("np.random", "numpy.random", "torch.random") and node.attr != "Generator")
            or (owner in ("torch", "torch.cuda") and node.attr in DRAWS | SEEDS)
            or node.attr in IN_PLACE
        )
        assert not bad, f"line {node.lineno} uses {ast.unparse(node)}; draw from a `Key`"


def test_no_file_names_a_place_on_a_machine() -> None:
    # The pattern is in pieces so that this file passes its own test.
    names_of_places = "|".join(["wo" + "rk", "ho" + "me", "ro" + "ot", "t" + "mp", "Us" + "ers"])
    places = re.compile(rf"(?<![\w.])/({names_of_places})/")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.returncode == 0 else [str(path) for path in FILES]
    for path in (ROOT / name for name in names if name):
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".ipynb", "") and path.is_file():
            found = places.search(path.read_text())
            assert not found, f"{path.relative_to(ROOT)} names {found.group()}" if found else ""


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public classes and functions that a module defines, and their public methods."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            yield name, thing
            for attribute, member in vars(thing).items():
                if (
                    not attribute.startswith("_")
                    and callable(getattr(thing, attribute))
                    and inspect.isroutine(member)
                ):
                    yield f"{name}.{attribute}", getattr(thing, attribute)
                elif not attribute.startswith("_") and isinstance(member, property):
                    yield f"{name}.{attribute}", member
        elif inspect.isroutine(thing):
            yield name, thing


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    assert module.__doc__, "the module has no docstring"
    # A method need not repeat what its base class, or the protocol it meets, says.
    said = {
        attribute for protocol in PROTOCOLS for attribute, m in vars(protocol).items() if inspect.getdoc(m)
    }
    bare = [
        path
        for path, thing in public(module)
        if not inspect.getdoc(thing) and path.rpartition(".")[2] not in said
    ]
    assert not bare, f"without a docstring: {', '.join(bare)}"


def test_everything_exported_exists() -> None:
    for name in zoo.__all__:
        thing = getattr(zoo, name)
        assert inspect.getdoc(thing), f"zoo.{name} has no docstring"
        assert name in dir(zoo)
