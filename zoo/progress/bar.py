"""A bar, for notebooks."""

from __future__ import annotations

import contextlib
import time
from typing import Any, TextIO

from zoo.core.validation import printable
from zoo.progress.display import Display
from zoo.progress.tally import Tally
from zoo.progress.wording import duration


class BarDisplay(Display):
    """A bar of tqdm's: a widget in notebooks that can show them; without tqdm, one line rewritten in place.

    Args:
        tally: What to show.
        stream: Where it goes, if it is text.
        in_notebook: Whether there are widgets.
    """

    def __init__(self, tally: Tally, stream: TextIO, in_notebook: bool) -> None:
        self._tally, self._stream = tally, stream
        self._in_notebook = in_notebook
        self._bar: Any = None
        self._width = 0

    def begin(self) -> None:
        tally = self._tally
        kind = _bar_kind(self._in_notebook)
        if kind is not None:
            self._bar = kind(
                total=tally.budget,
                initial=tally.nfev,
                desc=printable(tally.method),
                unit=f" {tally.unit}",
                file=self._stream,
            )

    def look(self) -> None:
        tally = self._tally
        tally.sample(time.monotonic())
        if self._bar is None:
            self._rewrite()
            return
        self._bar.set_postfix_str(self._words(), refresh=False)
        self._bar.n = tally.count
        self._bar.refresh()

    def end(self) -> None:
        outcome = self._tally.outcome
        if outcome is not None:
            if self._bar is not None and outcome.status in ("finished", "target"):
                self._bar.total = self._tally.count  # what ended before the budget did is no failure
            self.look()
        if self._bar is not None:
            self._bar.close()
        else:
            self._print("\n")

    def _words(self) -> str:
        return printable(self._tally.words())

    def _rewrite(self) -> None:
        tally, now = self._tally, time.monotonic()
        of = "" if tally.budget is None else f" of {tally.budget:,}"
        spent = f"{tally.count:,}{of} in {duration(tally.elapsed(now))}"
        text = f"{printable(tally.method)}: {spent}, {self._words()}"
        self._print(f"\r{text:<{self._width}}")
        self._width = len(text)

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def _bar_kind(in_notebook: bool) -> Any:
    """Return tqdm's bar that can be shown, or None without tqdm."""
    try:
        if in_notebook:
            with contextlib.suppress(ImportError):
                import ipywidgets  # noqa: F401
                from tqdm.notebook import tqdm as widget

                return widget
        from tqdm.std import tqdm
    except ImportError:
        return None
    return tqdm
