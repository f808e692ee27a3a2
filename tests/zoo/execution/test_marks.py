"""Parts that are put back to where they were some calls ago."""

from __future__ import annotations

import pytest

import zoo


class Total(zoo.Part):
    def __init__(self, index: int) -> None:
        self.total = 100 * index

    def handle(self, message, key, query):
        self.total += message
        return self.total

    def snapshot(self):
        return self.total

    def restore(self, snapshot):
        self.total = snapshot


@pytest.mark.parametrize("before", [0, 3, 9], ids=["fresh", "logged", "with a snapshot"])
@pytest.mark.parametrize("after", [1, 12])
def test_parts_go_back_to_where_they_were(before: int, after: int) -> None:
    executor = zoo.Serial()
    with executor.open(None):
        parts = executor.shards(Total, 3)
        for step in range(before):
            parts.call([1, None, 1], zoo.Key(0).fold(step))
        mark = parts.mark()
        for step in range(after):
            parts.call([5, 5, None], zoo.Key(1).fold(step))
        parts.back_to(mark)
        parts.back_to(mark)
        replies = parts.call([1, 1, 1], zoo.Key(2))
        assert [reply.reply for reply in replies] == [before + 1, 101, before + 201]
        assert parts.snapshot() == [before + 1, 101, before + 201]
