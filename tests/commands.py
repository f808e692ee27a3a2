"""The command line within this process, which saves a second a call."""

from __future__ import annotations

import json
import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # which some services for tests ask for


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Commands:
    """Runs commands in the present directory; `forget` forgets the modules that they imported from there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd
        self._modules, self._place = set(sys.modules), str(Path.cwd())

    def __call__(self, *arguments: object) -> Done:
        from zoo.cli import main

        state = random.getstate()  # rich numbers its styles by the global generator
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            patch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
            self._capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            random.setstate(state)
            out, err = self._capfd.readouterr()
            return Done(ended.value.code, COLOURS.sub("", out), err)

    def forget(self) -> None:
        """Have commands import modules of the present directory again, as other processes would."""
        for name in set(sys.modules) - self._modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(self._place):
                del sys.modules[name]


def commands(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Commands]:
    """Yield what runs commands in the present directory, for a fixture."""
    monkeypatch.setenv("COLUMNS", "160")
    runner = Commands(monkeypatch, capfd)
    yield runner
    runner.forget()
