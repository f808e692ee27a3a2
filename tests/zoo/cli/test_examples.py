"""Examples in the help pages are what people type first."""

from __future__ import annotations

import re
import shlex

import pytest

from zoo.cli.app import COMMANDS

NAMES = [name for group in COMMANDS.values() for name in group]
ENDLESS = ("serve",)  # it is stopped by Ctrl-C; its own tests start it


def examples(page: str) -> list[str]:
    """Return the examples that a help page ends with."""
    _, _, shown = page.partition(" Examples")
    return [line.strip() for line in shown.splitlines() if line.strip().startswith("zoo ")]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_examples_run(name, zoo, model, tmp_path):
    done = zoo(*name.split(), "--help")
    assert done.status == 0
    lines = examples(done.out)
    assert len(lines) >= 2, f"zoo {name} --help has {len(lines)} examples"
    made = {place for line in lines for place in re.findall(r"--out (\S+)", line)}
    for place in {one for line in lines for one in re.findall(r"\bruns/\w+\b", line)} - made:
        zoo("minimize", "zoo.problems:sphere", "--x0", "1x3", "--budget", 200, "--seed", 1, "--out", place)
    for line in lines:
        if line.split()[1] in ENDLESS:
            continue
        command, _, file = line.partition(" > ")
        done = zoo(*shlex.split(command)[1:])
        assert done.status == 0, f"{line}\n{done.err}"
        assert done.out or done.err
        if file:
            (tmp_path / file).write_text(done.out)


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_a_terminal_of_80_columns(name, zoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    wide = examples(zoo(*name.split(), "--help").out)
    monkeypatch.setenv("COLUMNS", "80")
    assert examples(zoo(*name.split(), "--help").out) == wide


def test_help_comes_in_panels(zoo):
    page = zoo().out
    assert page == zoo("--help").out
    panels = re.findall(r"─ (\w+) ─", page)
    assert panels == ["Options", *COMMANDS]
    assert all(re.search(rf"│ {name} ", page) for name in NAMES)
