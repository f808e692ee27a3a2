"""Who may import whom, and how little `import zoo` needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "evolution", "federated")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# From the bottom up: a file imports from its own row and from rows above it in this list only.
ROWS = (
    "zoo.core",
    "zoo.estimators",
    "zoo.updates",
    "zoo.methods",
    "zoo.consensus",
    "zoo.wrappers",
    "zoo.registry",
    "zoo.execution",
    "zoo.run",
    "zoo.problems",
    "zoo.arguments",
    "zoo.told",
    "zoo.experiment",
    "zoo.consensus.many",
    "zoo.facade",
    "zoo.kept",
    "zoo.nn",
    "zoo.session",
    "zoo.optuna",
    "zoo.loggers",
    "zoo.progress",
    "zoo.report",
    "zoo.serve",
    "zoo.experiment_file",
    "zoo",
    "zoo.cli",
    "zoo.__main__",
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row_of(module: str) -> str:
    return max((row for row in ROWS if f"{module}.".startswith(f"{row}.")), key=len)


@cache
def imports(path: Path) -> frozenset[str]:
    """Return every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from zoo.core import bounds` imports a module, `from zoo.core.bounds import Bounds` a name.
            found.update(name for name in names if is_module(name))
            if not all(map(is_module, names)):
                found.add(str(node.module))
    return frozenset(found)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def importers(*roots: str) -> list[str]:
    """Return the files that import one of some top-level modules."""
    return [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] in roots for name in imports(path))
    ]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_upwards(path: Path) -> None:
    here = module_of(path)
    for name in imports(path):
        top = name.split(".")[0]
        if top not in PACKAGES:
            continue
        if here.startswith("zoo"):
            assert top == "zoo", f"{here} imports {name}, which stands on it"
            assert ROWS.index(row_of(name)) <= ROWS.index(row_of(here)), (
                f"{here} imports {name} from a row below"
            )
        else:
            assert top in ("zoo", here.split(".")[0]), f"{here} imports {name}"


def test_one_file_imports_ray() -> None:
    assert importers("ray") == ["zoo/execution/ray.py"]


def test_one_file_pickles() -> None:
    # What travels to workers is pickled in one place; what is written to files never is.
    assert importers("pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib") == [
        "zoo/execution/packing.py"
    ]


def test_nobody_imports_python_random() -> None:
    assert importers("random") == []


def test_every_package_is_listed() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(module_of(path) for path in FILES if path.name == "__init__.py")
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
        patterns = project["tool"]["setuptools"]["package-data"][package]
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix != ".py"]
        distributed = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
        assert {path for path in files if "__pycache__" not in path.parts} == distributed


def test_import_is_light() -> None:
    code = """
import sys, zoo
heavy = {"ray", "torch", "scipy.optimize", "cma", "typer", "pydantic", "sklearn", "cloudpickle", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""
    assert python(code) == "[]"


ONLY_FOUR = """
import sys

class OnlyFour:
    # The four, and what torch itself requires.
    allowed = {"numpy", "torch", "torchgen", "scipy", "safetensors", "zoo", "sympy", "mpmath",
               "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "typing_extensions"}

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in self.allowed or top in sys.stdlib_module_names or top.startswith("_sysconfigdata"):
            return None
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)

sys.meta_path.insert(0, OnlyFour())
import numpy as np
import zoo
"""


def test_source_tree_works_with_four_libraries(tmp_path: Path) -> None:
    code = (
        ONLY_FOUR
        + """
def sphere(x):
    return float((x ** 2).sum())

for method in ("cma", "sep-cma", "zo-adam", "spsa", "random"):
    print(zoo.minimize(sphere, np.ones(3), method=method, budget=100, rng=0).fun < 3)
import torch
print(type(zoo.minimize(sphere, torch.ones(3), budget=100, rng=0).x).__name__)
print(zoo.minimize(sphere, np.ones(3), budget=100, rng=0, out=sys.argv[1]).nfev <= 100)
try:
    zoo.minimize(sphere, np.ones(3), method="pycma", budget=100, rng=0)
except ImportError as error:
    print("cma" in str(error))
"""
    )
    assert python(code, str(tmp_path / "run")).split() == [*["True"] * 5, "Tensor", "True", "True"]


def python(code: str, *arguments: str) -> str:
    """Run some code in a fresh interpreter at the root of the source tree, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
