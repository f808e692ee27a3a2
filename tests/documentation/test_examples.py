"""Every file in `examples/` runs with a small budget, and reaches what it is there to show."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sklearn.svm  # noqa: F401 - here, since importing it moves the generator of `random`

from tests.architecture.test_imports import ROOT

# For each example, what its `main` is called with, and what has to be true of what it returns.
OUTCOMES: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "laboratory": (
        {"budget": 60},
        lambda shown: shown["equal"] and shown["days"] > 1 and shown["result"].num_failed == 1,
    ),
    "tune_svm": (
        {"budget": 60, "use_ray": False},
        lambda shown: shown["equal"] and shown["lost"] == 0 and shown["fun"] < shown["before"],
    ),
    "unreliable_simulator": (
        {"budget": 60},
        lambda result: result.fun < 5 and result.num_failed and result.account["quarantined"],
    ),
}


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example as a script's neighbours would."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_an_outcome() -> None:
    assert sorted(path.stem for path in (ROOT / "examples").glob("*.py")) == sorted(OUTCOMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(ROOT / "examples" / f"{name}.py", monkeypatch)
    monkeypatch.chdir(tmp_path)
    arguments, reached = OUTCOMES[name]
    assert module.__doc__, "the example does not say what it shows"
    shown = module.main(**arguments)
    assert reached(shown), shown
