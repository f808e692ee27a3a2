"""What the pages in `docs/` say is so."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import sklearn.svm  # noqa: F401 - here, since importing it moves the generator of `random`

from tests.commands import commands

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FILE = re.compile(r"# (\w+\.(?:py|toml))\n")  # in the first line of a block that is a file of that name


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for block in [*blocks(page, "python"), *blocks(page, "toml")]:
        if named := FILE.match(block):
            (tmp_path / named[1]).write_text(block)
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True), names)
    # What needs a cluster or a GPU is marked "py": it can at least be read.
    for number, block in enumerate(blocks(page, "py")):
        compile(block, f"{page.name}, block {number} of those not run", "exec")
    for zoo in commands(monkeypatch, capfd):
        for line in "\n".join(blocks(page, "sh")).splitlines():
            done = zoo(*shlex.split(line)[1:])
            assert done.status == 0, done.err


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md", ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_listed() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page.name for page in PAGES if f"({page.name})" not in index] == ["index.md"]
