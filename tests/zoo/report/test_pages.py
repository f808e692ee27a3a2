"""Reports in a real browser: on a wide window, on a telephone, and printed."""

from __future__ import annotations

import pytest

from tests.browser import Browser, needs_chromium
from tests.zoo.report import runs
from zoo.report import compare, write_report

pytestmark = [needs_chromium, pytest.mark.slow]

OVERFLOW = """
[...document.querySelectorAll('body *')].filter(one => {
  if (one.closest('.scroll, .hidden, pre') !== null && !one.matches('.scroll, pre')) return false;
  return one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5;
}).map(one => one.outerHTML.slice(0, 200))
"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of runs of several kinds, with long names in some, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    made = {kind: runs.make(kind, folder / kind) for kind in ("constrained", "mixed", "failing", "no step")}
    made["long"] = runs.log(
        folder / "long",
        {"best": [3.0, 2.0, 1.0], "value": [4.0, 2.0, 1.0], "x": [[float(i) for i in range(40)]] * 3},
        events=[{"event": "worker lost", "reason": "because/" * 40}],
        objective={"name": "module_" * 30 + ":function"},
        dim=40,
        method="a_method_" * 12,
    )
    found = {kind: write_report(path)[0] for kind, path in made.items()}
    paths = [
        runs.log(folder / f"{method}{seed}", {"best": [3.0, 2.0 + seed / 8]}, method=method, key=str(seed))
        for method in ("cma", "a method with a long name and more", "random")
        for seed in range(4)
    ]
    found["comparison"] = compare(paths, folder / "compared")[0]
    return found


@pytest.mark.parametrize("kind", ["constrained", "mixed", "failing", "no step", "long", "comparison"])
def test_pages(browser, pages, kind):
    page = browser.open(pages[kind].as_uri())
    for width in (1280, 400):
        page.resize(width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOW) == []
    page.emulate(printed=True)
    page.resize(720)
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert [url for url in page.requests if url.startswith("file:")] == [pages[kind].as_uri()]
    page.close()
