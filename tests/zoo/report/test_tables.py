"""Tables among the figures of a page, and scales that leave no axis without numbers."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.report import style
from zoo.report.scales import Scale
from zoo.report.tables import Table
from zoo.report.writing import write_page


def test_a_table_is_in_the_page_and_all_of_it_in_a_file(tmp_path):
    rest = [("a <b>", "x", 0.1), ("c, d", "y", 2)]
    table = Table("rows", "Rows", "All & more", ("Name", "Kind", "F"), [("a <b>", "x", "0.1")], rest, words=2)
    content = {"title": "Tables", "summary": "One.", "sections": [("First", [table], "A note.")]}
    page, file = write_page(tmp_path, "page", [table], tmp_path, content, template="sections")
    assert (page.name, file.name) == ("page.html", "rows.csv")
    assert file.read_text() == 'Name,Kind,F\na <b>,x,0.1\n"c, d",y,2\n'
    text = page.read_text()
    assert '<th scope="row">a &lt;b&gt;</th><td class="short">x</td><td class="number short">0.1</td>' in text
    assert '<th scope="col">Kind</th><th scope="col" class="number">F</th>' in text
    assert "All &amp; more" in text
    assert "c, d" not in text


def test_without_more_rows_the_file_has_those_that_are_shown():
    assert Table("rows", "Rows", "", ("Name", "F"), [("a", "1")]).content() == b"Name,F\na,1\n"


@pytest.mark.parametrize("high", [1.3, 2.9, 7.0, 40.0, 1e9])
def test_a_logarithmic_axis_has_numbers_however_short_it_is(high):
    with style.styled():
        figure, axes = style.canvas()
        axes.plot([0, 1], [1.1, 1.1 * high])
        Scale("log").apply(axes)
        low, top = axes.get_ylim()
        shown = [tick for tick in axes.get_yticks() if low <= tick <= top]
        figure.canvas.draw()
    assert 2 <= len(shown) <= 8
    assert np.all(np.diff(shown) > 0)
