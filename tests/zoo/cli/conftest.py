"""The command line within this process, which saves a second a call."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import warnings
from typing import NamedTuple

import pytest

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # which some services for tests ask for


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def zoo(tmp_path, monkeypatch, capfd):
    """Return a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    modules = set(sys.modules)

    def call(*arguments: object) -> Done:
        from zoo.cli import main

        state = random.getstate()  # rich numbers its styles by the global generator
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            patch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            random.setstate(state)
            out, err = capfd.readouterr()
            return Done(ended.value.code, COLOURS.sub("", out), err)

    yield call
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
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
