"""Experiment files: what they become, and what is said of those that are wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from zoo.experiment_file import ExperimentFileError, read_experiment

MODEL = """
def loss(x):
    return float(((x - 0.5) ** 2).sum())
"""


@pytest.fixture(autouse=True)
def _own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a folder with a module of its own, and forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = {*sys.modules}
    (tmp_path / "ef_model.py").write_text(MODEL)
    yield
    for name in {*sys.modules} - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def said(path: str | Path, *overrides: str) -> list[str]:
    """Return the lines of the error that reading a file raises."""
    with pytest.raises(ExperimentFileError) as caught:
        read_experiment(path, overrides)
    return str(caught.value).splitlines()


SHORT = """
    [job]
    seed = 1
    [objective]
    function = "ef_model:loss"
    x0 = "0x3"
    [stop]
    budget = 150
"""


def test_a_file_says_what_minimize_is_given() -> None:
    result = zoo.minimize(**read_experiment(write("short.toml", SHORT)).arguments())
    direct = zoo.minimize("ef_model:loss", [0.0] * 3, budget=150, rng=1)
    assert result.x.tobytes() == direct.x.tobytes()
    assert Path("runs/short/result.json").exists()


def test_all_problems_are_said_at_once() -> None:
    write(
        "wrong.toml",
        """
        [objective]
        function = "ef_model:loss"
        x0 = [0, "a"]
        [stop]
        bugdet = 1
        budget = "many"
        """,
    )
    assert said("wrong.toml") == [
        'wrong.toml, line 3: `x0[1]` must be a number, got "a".',
        "wrong.toml, line 5: unknown key `bugdet` in [stop]. Did you mean `budget`?",
        'wrong.toml, line 6: `budget` must be a whole number of at least 1, got "many".',
    ]
