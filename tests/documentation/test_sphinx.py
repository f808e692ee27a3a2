"""The documentation builds without a warning, names everything there is, and needs no network to be read."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import evolution
import federated
import zoo
from zoo.registry import list_methods

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Pages that Sphinx makes, and no table of contents has.
MADE = {"genindex.html", "py-modindex.html", "search.html"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pages, without running the gallery, from a copy: some of it is written beside the sources."""
    copy = tmp_path_factory.mktemp("documentation")
    for name in ("docs", "examples", "benchmarks"):
        made = shutil.ignore_patterns("_build", "gallery", "__pycache__", "*_runs.jsonl")
        shutil.copytree(ROOT / name, copy / name, ignore=made)
    shutil.copy(ROOT / "CHANGELOG.md", copy)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-D",
        "plot_gallery=0",
        "docs",
        "html",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return copy / "html"


class Page(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag."""
        given = {name: value or "" for name, value in attrs}
        self.names.add(given.get("id", ""))
        self.loads += [given[name] for name in ("src", "srcset", "poster", "data") if name in given]
        if "href" in given and tag != "a":
            self.loads.append(given["href"])
        elif "href" in given:
            self.links.append(given["href"])


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages, sheets = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 20
    assert sheets
    for page in pages:
        assert [url for url in Page(page).loads if re.match(r"(https?:)?//", url)] == [], page
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", page.read_text()), page
    for sheet in sheets:
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_every_page_is_reachable(site: Path) -> None:
    reached, left = set(), {site / "index.html"}
    while left:
        page = left.pop()
        reached.add(page)
        targets = (
            unquote(link.partition("#")[0]) for link in Page(page).links if not link.startswith("http")
        )
        found = {(page.parent / target).resolve() for target in targets if target.endswith(".html")}
        assert all(target.is_file() for target in found), page
        left |= found - reached
    pages = {path for path in site.rglob("*.html") if path.name not in MADE}
    assert pages <= reached, sorted(str(path.relative_to(site)) for path in pages - reached)


def test_the_reference_has_every_public_name(site: Path) -> None:
    names = {name for page in (site / "reference").glob("*.html") for name in Page(page).names}
    assert [name for name in zoo.__all__ if f"zoo.{name}" not in names] == []
    for package in (evolution, federated):
        assert [name for name, home in package._HOME.items() if f"{home}.{name}" not in names] == []
    assert [name for name in list_methods() if f"method-{name}" not in names] == []


def test_docstrings_are_shown_as_they_are_written(site: Path) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference" / "minimize.html").read_text()))
    assert ">>> result = zoo.minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(4), budget=800, rng=0)" in page
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference" / "methods.html").read_text()))
    assert "sigma   <-  sigma exp(c_s / d_s (|p_sigma| / E|N(0, I)| - 1))" in page
    assert "x = mean + sigma * scale * y with y ~ N(0, C)" in page
