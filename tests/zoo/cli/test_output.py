"""What is printed for people."""

from __future__ import annotations

import pytest

from zoo.cli import output

EVIL = "\x1b[2J\x9bHrbf"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_names_are_no_commands_to_the_terminal(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(output, "is_terminal", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    output.print_facts({"at": f"kernel = {EVIL}\n{EVIL} = 1", EVIL: "x"})
    output.print_table(("a", "b"), [(EVIL, EVIL)])
    output.say(f"Ended: {EVIL}")
    printed = capsys.readouterr().out
    assert printed.count("[2J\N{REPLACEMENT CHARACTER}Hrbf") == 6
    assert printed.replace("\n", "").isprintable()
