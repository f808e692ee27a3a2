"""What the README says is so. As a script, this writes the tables of methods into it and into the docs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch  # noqa: F401 - here, or its generator would not be among those that are put back

from tests.commands import commands
from zoo.core.rng import Key, keyed_generators
from zoo.registry import TRAITS, list_methods

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = re.escape("<!-- methods: written by"), re.escape("<!-- end of methods -->")
TABLE = re.compile(rf"({BEGIN}[^\n]*\n)(.*?)({END})", re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the README's blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def table() -> str:
    """Return the table of methods, from the registry."""
    lines = ["| name | what it is | paper |", "|---|---|---|"]
    lines += [f"| `{m.name}` | {m.summary} | {m.paper} |" for m in list_methods().values()]
    return "\n".join(lines) + "\n"


def detailed_table() -> str:
    """Return the table of the page on methods, from the registry."""
    lines = [
        "| method | variables | evaluations a step | cost of a step | good for | paper |",
        "|---|---|---|---|---|---|",
    ]
    for m in list_methods().values():
        most = f"{m.dims[1]:,}" if m.dims[1] < 10**8 else "any number"
        traits = ", ".join(m.traits) + (f" (extra `{m.extra}`)" if m.extra else "")
        lines.append(f"| `{m.name}` | {m.dims[0]} to {most} | {m.batch} | {m.cost} | {traits} | {m.paper} |")
    lines += ["", *(f"* {trait}: {meaning}" for trait, meaning in TRAITS.items())]
    return "\n".join(lines) + "\n"


TABLES = {README: table, ROOT / "docs" / "methods.md": detailed_table}


SHOWN = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_examples_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    found = SHOWN.findall(README.read_text())
    assert len(found) == len(blocks("python")) == 6
    for number, (block, shown) in enumerate(found):
        with keyed_generators(Key(0)):  # layers of torch take their first weights from there
            exec(compile(block, f"README.md, block {number}", "exec"), names)
        assert capsys.readouterr().out == shown


def test_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("toml"):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("zoo ")]
    assert len(lines) >= 4
    for zoo in commands(monkeypatch, capfd):
        for line in lines:
            done = zoo(*shlex.split(line)[1:])
            assert done.status == 0, done.err
            assert done.out


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_exist() -> None:
    text = README.read_text()
    named = re.findall(r"`((?:zoo|tests|examples|docs)/[\w./]+)`", text)
    for name in [*named, *re.findall(r"\]\(([\w./]+)\)", text)]:
        if name == "docs/_build/html":
            continue  # made by `make docs`
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.stem)
def test_tables_are_what_the_registry_holds(page: Path) -> None:
    found = TABLE.search(page.read_text())
    assert found is not None
    assert found[2] == TABLES[page](), "run `python tests/documentation/test_readme.py`"


def test_every_method_says_what_it_is_for() -> None:
    for method in list_methods().values():
        assert method.summary, method.name
        assert method.batch, method.name
        assert method.cost, method.name
        assert method.traits, method.name
        assert set(method.traits) <= set(TRAITS), method.name
        assert 1 <= method.dims[0] <= method.dims[1], method.name
        assert method.paper or method.name in ("random", "cbo-curvature"), method.name  # no paper's


if __name__ == "__main__":
    for page, made in TABLES.items():
        text = made()
        page.write_text(TABLE.sub(lambda found, text=text: found[1] + text + found[3], page.read_text()))
