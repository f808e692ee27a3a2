"""The archive: neighbours against brute force, what is left out, and the tree that nothing depends on."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from evolution import archive as module
from evolution.archive import Archive
from zoo.core.state import digest, freeze, thaw

Array = np.ndarray[Any, Any]
NAN = np.nan


def brute(entries: Array, queries: Array, k: int, others: Array | None = None) -> Array:
    """Return the novelty by the definition, one by one; `others` is the population the queries are of."""
    found = []
    for query in queries:
        distances = np.sqrt(((entries - query) ** 2).sum(1)).tolist()
        if others is not None:
            beside = np.sqrt(((others - query) ** 2).sum(1)).tolist()
            if 0.0 in beside:
                beside.remove(0.0)
            distances += beside
        nearest = sorted(distances)[:k]
        found.append(sum(nearest) / len(nearest) if nearest else 0.0)
    return np.array(found)


def some(count: int, size: int, seed: int, kind: str) -> Array:
    """Return behaviours: on a coarse grid, so that many are equal; apart, one very far away; in two heaps."""
    draw = np.random.default_rng(seed)
    if kind == "duplicates":
        return draw.integers(0, 4 if size < 10 else 2, (count, size)).astype(np.float64) * (
            np.arange(size) < 6
        )
    rows = draw.normal(size=(count, size))
    if kind == "outlier":
        rows[1:2] *= 1e30
    return 1e3 + 1e-8 * rows + (np.arange(count) % 2)[:, None] if kind == "heaps" else rows


@pytest.mark.parametrize("kind", ["apart", "duplicates", "heaps", "outlier"])
@pytest.mark.parametrize("entries", [0, 3, 40, 700], ids=lambda count: f"{count} entries")
@pytest.mark.parametrize("size", [1, 2, 8, 9, 128])
def test_novelty_is_that_of_brute_force(size: int, entries: int, kind: str) -> None:
    past, people = some(entries, size, 0, kind), some(30, size, 1, kind)
    people[:2] = past[:2] if entries else people[2:4]
    archive = Archive.empty(size).add(past)
    for k in (1, 10, 1000):
        np.testing.assert_allclose(archive.novelty(people, k), brute(past, people, k), rtol=1e-9)
        np.testing.assert_allclose(
            archive.novelty(people[:7], k, people), brute(past, people[:7], k, people), rtol=1e-9
        )


def test_nobody_is_its_own_neighbour_but_its_twins_are() -> None:
    people = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    alone = Archive.empty(2)
    assert alone.novelty(people, 1, people).tolist() == [0.0, 0.0, 0.0, 5.0]
    assert alone.novelty(people, 3, people).tolist() == [5 / 3, 5 / 3, 5 / 3, 5.0]
    # What is in the archive has been there before: as far as the same row of the population is, not at all.
    assert alone.add(people[3:]).novelty(people, 1, people).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_few_neighbours_are_averaged_over_as_many_as_there_are() -> None:
    archive = Archive.empty(1)
    assert archive.novelty([[7.0]], 5).tolist() == [0.0]
    assert archive.novelty([[7.0]], 5, [[7.0]]).tolist() == [0.0]
    assert archive.add([[1.0], [2.0]]).novelty([[0.0]], 5).tolist() == [1.5]


@pytest.mark.parametrize("size", [2, 20])
def test_failed_episodes_are_left_out(size: int) -> None:
    rows = some(12, size, 0, "apart")
    rows[3, 1], rows[5, 0], rows[7, 1] = NAN, np.inf, -1e300
    fine = np.delete(rows, [3, 5, 7], axis=0)
    archive = Archive.empty(size).add(rows)
    assert archive.array.tolist() == fine.tolist()
    found = archive.novelty(rows, 4, rows)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5, 7]
    np.testing.assert_allclose(found[np.isfinite(found)], brute(fine, fine, 4, fine), rtol=1e-12)
    assert archive.add(np.full((2, size), NAN)) is archive
    assert np.isnan(archive.novelty(np.full((2, size), NAN), 3, np.full((2, size), NAN))).all()


def test_an_archive_is_a_value_and_shares_its_memory() -> None:
    short = Archive.empty(2).add([[1.0, 2.0]])
    long = short.add([[3.0, 4.0]])
    other = short.add([[5.0, 6.0]])
    assert short.array.tolist() == [[1.0, 2.0]]
    assert long.array.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert other.array.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert np.shares_memory(short.array, long.array)
    assert not np.shares_memory(long.array, other.array)
    with pytest.raises(ValueError, match="read-only"):
        long.array[0, 0] = 0.0


def test_nothing_depends_on_the_tree_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was resumed has none of its trees, and must go on to the last bit as one that was not."""
    grown: list[int] = []
    plant = module._grown

    def watched(points: Array) -> Any:
        grown.append(len(points))
        return plant(points)

    monkeypatch.setattr(module, "_grown", watched)
    draw, archive = np.random.default_rng(0), Archive.empty(3)
    for _ in range(60):
        people = draw.normal(size=(25, 3)).round(1)
        archive = archive.add(people)
        kept = archive.novelty(people, 9, people)
        again = thaw(*freeze(archive))
        module.clear_cache()
        assert again.novelty(people, 9, people).tobytes() == kept.tobytes()
        assert archive.novelty(people, 9, people).tobytes() == kept.tobytes()
    assert max(grown) == 1280  # of 1500: those that came since are looked at as they are
    grown.clear()
    assert archive.novelty(people, 9).tobytes() == archive.novelty(people, 9).tobytes()
    assert grown == [220, 220]


def test_a_tree_is_of_its_own_archive() -> None:
    one, other = (Archive.empty(2).add(some(600, 2, seed, "apart")) for seed in range(2))
    people = some(5, 2, 9, "apart")
    for archive in (one, other, one):
        np.testing.assert_allclose(archive.novelty(people, 3), brute(archive.array, people, 3), rtol=1e-12)
    # Two that go on from one prefix, and one whose memory was given to another.
    for archive in (one.add(other.array), one.add(some(600, 2, 5, "apart"))):
        np.testing.assert_allclose(archive.novelty(people, 3), brute(archive.array, people, 3), rtol=1e-12)


def test_an_archive_is_written_down_and_read_again() -> None:
    archive = Archive.empty(2).add([[1.0, 2.0], [3.0, 4.0]])
    again = thaw(*freeze(archive))
    assert isinstance(again, Archive)
    assert digest(again) == digest(archive) != digest(archive.add([[5.0, 6.0]]))
    assert digest(pickle.loads(pickle.dumps(archive))) == digest(archive)


def test_coverage_counts_cells() -> None:
    archive = Archive.empty(2).add(
        [[0.0, 0.0], [0.9, 0.9], [10.0, 10.0], [9.5, 9.5], [5.0, 2.0], [11.0, 5.0]]
    )
    assert archive.coverage(0, 10) == 3 / 100
    assert archive.coverage([0, 0], [10, 20], cells=[2, 1]) == 1.0
    assert archive.coverage(0, 10, cells=10_000) == 5 / 10_000**2
    assert archive.coverage(10.5, 11.5, cells=1) == 0.0
    assert Archive.empty(2).coverage(0, 1) == 0.0
    assert Archive.empty(200).add(np.ones((1, 200))).coverage(0, 1) == pytest.approx(1e-200)


def test_diagnostics_say_how_many_and_how_far_apart() -> None:
    archive = Archive.empty(2)
    assert archive.diagnostics() == {"archive_size": 0, "archive_spread": 0.0, "coverage": 0.0}
    two = archive.add([[0.0, 0.0], [6.0, 8.0]])
    assert two.diagnostics() == {"archive_size": 2, "archive_spread": 5.0, "coverage": 0.02}
    assert two.add([[6.0, 8.0], [0.5, 0.5], [0.6, 0.8]]).diagnostics()["coverage"] == 0.03


@pytest.mark.parametrize("size", [1, 2, 3])
def test_coverage_in_the_log_is_of_the_range_there_is(size: int) -> None:
    rows = some(12, size, 3, "apart")
    archive = Archive.empty(size).add(rows)
    shown = archive.diagnostics()["coverage"]
    assert shown == archive.coverage(rows.min(0), rows.max(0))
    assert 0.0 < shown < 1.0
    assert archive.add(rows[:1] + 1e3).diagnostics()["coverage"] < shown / 2
    one = Archive.empty(size).add(np.full((2, size), -1e99))  # there is no range
    assert one.diagnostics()["coverage"] == pytest.approx(0.1**size)
    one = Archive.empty(size).add(np.zeros((1, size)))
    assert one.diagnostics()["coverage"] == pytest.approx(0.1**size)


def test_behaviours_of_many_numbers_have_no_grid_in_the_log() -> None:
    assert set(Archive.empty(4).add(np.eye(4)).diagnostics()) == {"archive_size", "archive_spread"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a: a.add([[1.0, 2.0, 3.0]]), "`behaviours` have 3 numbers each, and those of the archive 2"),
        (lambda a: a.novelty([[1.0]], 3), "`behaviours` have 1 numbers each, and those of the archive 2"),
        (lambda a: a.novelty([[1.0, 2.0]], 3, [[1.0]]), "`others` have 1 numbers each"),
        (lambda a: a.add([1.0, 2.0]), r"`behaviours` must have shape \(n, 2\), got \(2,\)"),
        (lambda a: a.novelty([[1.0, 2.0]], 0), "`k` must be at least 1, got 0"),
        (lambda a: Archive.empty(0), "`size` must be at least 1, got 0"),
        (lambda a: a.coverage(1, 1), "`lower` must be finite and below `upper` everywhere, got 1 and 1"),
        (lambda a: a.coverage(0, 1, cells=0), "`cells` must be at least 1, got 0"),
        (lambda a: a.coverage(0, 1, cells=[1, 2, 3]), r"`cells` must be one number or 2 of them, got 3"),
    ],
    ids=["add", "novelty", "others", "one row", "k", "size", "grid", "cells", "several cells"],
)
def test_what_does_not_fit_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(Archive.empty(2))
