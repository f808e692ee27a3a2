"""Lines at the bottom of a terminal, and whatever else is printed there."""

from __future__ import annotations

import os

import pytest

from tests.zoo.progress.screen import Screen
from zoo.progress.dock import Dock

SIZE = os.terminal_size((30, 10))


@pytest.fixture
def terminal(monkeypatch):
    """Return a screen, and a dock that writes there."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "10")
    screen, (reader, writer) = Screen(*SIZE), os.pipe()
    dock = Dock(writer)
    write = dock.write

    def written(text):
        write(text)
        screen.feed(os.read(reader, 1 << 16).decode())

    dock.write = written
    yield screen, dock
    dock.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("before", [0, 3, 7, 30])
def test_everything_scrolls_above(terminal, before):
    screen, dock = terminal
    printed = [f"before {i}" for i in range(before)]
    screen.feed("".join(f"{line}\r\n" for line in printed))
    for i in range(20):
        dock.show([f"first {i}", f"second {i}"], SIZE)
        assert screen.lines[-2:] == [f"first {i}", f"second {i}"]
        assert screen.cursor_is_shown
        screen.feed(f"line {i}\r\n")
        printed.append(f"line {i}")
    dock.remove()
    assert screen.is_sane
    assert screen.everything.split("\n") == printed + [""] * (len(screen.gone) + 10 - len(printed))
    assert (screen.row, screen.column) == (len(printed) - len(screen.gone), 0)


def test_half_a_line_and_colours(terminal):
    screen, dock = terminal
    screen.feed("\x1b[31mhalf ")
    dock.show(["panel"], SIZE)
    screen.feed("a li")
    dock.show(["panel"], SIZE)
    screen.feed("ne\x1b[0m")
    assert screen.lines[0] == "half a line"
    dock.leave("summary\n")
    assert screen.lines[:3] == ["half a line", "summary", ""]
    assert screen.is_sane


def test_a_full_line(terminal):
    screen, dock = terminal
    dock.show(["panel"], SIZE)
    screen.feed("x" * 30)
    dock.show(["panel"], SIZE)
    screen.feed("y\r\n")
    assert screen.lines[:2] == ["x" * 30, "y"]
    dock.leave("summary")
    assert screen.lines[:3] == ["x" * 30, "y", "summary"]


def test_summary_follows_what_was_printed(terminal):
    screen, dock = terminal
    screen.feed("printed\r\n")
    dock.leave("summary")
    assert screen.lines[:2] == ["printed", "summary"]


def test_another_height_and_another_size(terminal):
    screen, dock = terminal
    screen.feed("printed\r\n")
    dock.show(["a", "b", "c"], os.terminal_size((30, 8)))
    assert screen.lines[5:] == ["a", "b", "c", "", ""]
    dock.show(["a", "b", "c"], SIZE)
    assert screen.lines == ["printed", *[""] * 6, "a", "b", "c"]
    dock.show(["d"], SIZE)
    assert screen.lines == ["printed", *[""] * 8, "d"]
    assert screen.region == (0, 8)


def test_a_screen_that_another_program_has_changed(terminal):
    screen, dock = terminal
    dock.show(["panel"], SIZE)
    screen.feed("\x1b[r\x1b[1;1H\x1b[J")
    dock.show(["panel"], SIZE)
    assert screen.region == (0, 8)
    assert screen.lines[-1] == "panel"


def test_size_without_a_terminal(terminal, monkeypatch):
    _, dock = terminal
    assert dock.size == (30, 10)
    monkeypatch.setenv("LINES", "many")
    monkeypatch.delenv("COLUMNS")
    assert dock.size == (80, 24)
    assert not dock.in_background


def test_a_terminal_that_is_gone():
    reader, writer = os.pipe()
    os.close(reader)
    dock = Dock(writer)
    dock.show(["panel"], SIZE)
    os.close(writer)
    dock.leave("summary")
    dock.close()
