"""Tables among the figures of a page, with all of their rows in a file beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Table:
    """A table in a page, and as a CSV file beside it; what a `zoo.report.style.Picture` is for figures.

    Attributes:
        name: Of its file.
        heading: Above it.
        caption: Below it.
        columns: What columns are called; the first one holds what rows are called.
        rows: What is shown.
        rest: Rows of the file; those that are shown where there are no others.
        rules: Rows before which a line is drawn, by their place.
        words: How many of the first columns are words; the others are numbers, set to the right.

    Example:
        >>> table = Table("clients", "Clients", "", ("Client", "F"), [("0", "1.5")], [(0, 1.5), (1, 0.25)])
        >>> table.content().decode().split()
        ['Client,F', '0,1.5', '1,0.25']
    """

    name: str
    heading: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    rest: Sequence[Sequence[Any]] = ()
    rules: frozenset[int] = field(default_factory=frozenset)
    words: int = 1

    ending = "csv"

    def content(self) -> bytes:
        """Return the content of its file."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rest or self.rows)
        return buffer.getvalue().encode("utf-8", "replace")
