"""Pages of federations in a real browser: on a wide window, on a telephone, and printed."""

from __future__ import annotations

import pytest

import federated
from federated.report.comparison import write_comparison
from tests.browser import Browser, needs_chromium
from tests.zoo.report.test_pages import OVERFLOW
from zoo.report import write_report

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the report of a run with many clients over a bad network, and a comparison of several runs."""
    folder = tmp_path_factory.mktemp("pages")
    network = {"dropout": 0.3, "latency": 1.0, "spread": 0.5, "wait_for": 0.6, "duplicates": 0.3}
    settings = {"task_options": {"dim": 4, "num_clients": 50}, "rounds": 3, "network": network}
    for directions in range(2, 8):
        options = {"num_directions": directions, "num_steps": 1, "learning_rate": 0.01 * directions}
        for seed in range(2):
            out = folder / str(directions) / str(seed)
            federated.federate("quadratic", "fedzo", options=options, rng=seed, out=out, **settings)
    return {"report": write_report(out)[0], "comparison": write_comparison([folder], folder / "compared")}


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_pages(pages, kind):
    with Browser() as browser:
        page = browser.open(pages[kind].as_uri())
        for width in (1280, 400):
            page.resize(width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(OVERFLOW) == []
        page.emulate(printed=True)
        page.resize(720)
        assert page.evaluate("document.documentElement.scrollWidth") <= 720
        assert page.errors == []
        assert page.requests == [pages[kind].as_uri()]
