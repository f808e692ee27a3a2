"""A clock that is set by hand."""

from __future__ import annotations

import pytest

from tests.zoo.progress.runs import BEGAN, CLOCK, Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    for module in ("tally", "lines", "bar"):
        monkeypatch.setattr(f"zoo.progress.{module}.time", CLOCK)
    monkeypatch.setattr(CLOCK, "now", BEGAN)
    return CLOCK
