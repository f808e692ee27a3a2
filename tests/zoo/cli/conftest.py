"""An empty directory for commands, and what examples speak of."""

from __future__ import annotations

import os

import pytest

from tests.commands import commands


@pytest.fixture
def zoo(tmp_path, monkeypatch, capfd):
    """Return a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    yield from commands(monkeypatch, capfd)
    assert os.getcwd() == str(tmp_path)


@pytest.fixture
def model(tmp_path):
    """Write the module that examples speak of."""
    (tmp_path / "model.py").write_text(
        "import os\n\n\n"
        "def loss(x):\n"
        "    if os.path.exists('broken'):\n"
        "        raise ArithmeticError('out of paper')\n"
        "    return float(((x - 0.3) ** 2).sum())\n\n\n"
        "number = 3\n"
    )
    (tmp_path / "simulate.py").write_text(
        "while True:\n    print(sum(float(v) ** 2 for v in input().split()), flush=True)\n"
    )
    (tmp_path / "experiment.toml").write_text(
        'objective = {function = "model:loss", x0 = "0x3"}\nstop = {budget = 200}\njob = {seed = 1}\n'
    )
