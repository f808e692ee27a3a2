"""The journal: nothing on record is lost, whatever happens to the file's end."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.types import Failure, Reply
from zoo.run.journal import FINAL, SEARCH, Journal, read, values_by_id


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evaluations.bin"


def write(path, steps=3, rows=4):
    journal = Journal(path)
    for step in range(steps):
        values = np.arange(rows, dtype=float) + 10 * step
        journal.append(step, step * rows, SEARCH, Reply(0, values[:2]))
        journal.append(step, step * rows, SEARCH, Reply(2, values[2:]))
    journal.close()


def test_what_was_appended_is_known_to_the_next_process(path):
    write(path)
    journal = Journal(path)
    replies = journal.known(SEARCH, 1)
    assert [(r.start, r.values.tolist()) for r in replies] == [(0, [10.0, 11.0]), (2, [12.0, 13.0])]
    assert journal.known(FINAL, 1) == []
    journal.close()


def test_failures_come_back_with_their_reasons(path):
    journal = Journal(path)
    journal.append(0, 0, SEARCH, Reply(0, np.array([np.nan, 1.0]), (Failure(0, "raised", "E: no", "trace"),)))
    journal.close()
    (reply,) = Journal(path).known(SEARCH, 0)
    assert reply.failures == (Failure(0, "raised", "E: no"),)
    assert np.isnan(reply.values[0])
    assert reply.values[1] == 1.0


@pytest.mark.parametrize("missing", range(1, 60))
def test_a_torn_tail_costs_only_the_records_it_tears(path, missing):
    write(path)
    whole = list(read(path))
    data = path.read_bytes()
    path.write_bytes(data[:-missing])
    kept = list(read(path))
    assert 4 <= len(kept) < len(whole)
    for before, after in zip(whole, kept, strict=False):
        assert before[:3] == after[:3]
        assert before.reply.values.tobytes() == after.reply.values.tobytes()
    journal = Journal(path)
    journal.append(9, 90, SEARCH, Reply(0, np.array([1.5])))
    journal.close()
    records = list(read(path))
    assert records[-1].step == 9
    assert len(records) == len(kept) + 1


@pytest.mark.parametrize("place", range(23, 83))
def test_a_damaged_record_is_skipped_and_said(path, place):
    """Whichever byte of the first record it is: mark, length, checksums or body."""
    write(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)
    with pytest.warns(ZooWarning, match="damaged in 1 places"):
        assert len(list(read(path))) == 5
    with pytest.warns(ZooWarning, match="evaluated again"):
        journal = Journal(path)
    assert [r.start for r in journal.known(SEARCH, 0)] == [2]
    journal.close()
    assert path.stat().st_size == len(data)


def test_a_file_cut_inside_its_first_line_is_begun_anew(path):
    path.write_bytes(b"gradfree ev")
    journal = Journal(path)
    journal.append(0, 0, SEARCH, Reply(0, np.array([2.0])))
    journal.close()
    assert [record.reply.values.tolist() for record in read(path)] == [[2.0]]


def test_another_kind_of_file_is_refused_and_left_alone(path):
    path.write_bytes(b"something else entirely, of some length")
    with pytest.raises(RunDirectoryError, match="not a journal"):
        Journal(path)
    assert path.read_bytes().startswith(b"something else")


def test_values_are_ordered_by_id_and_counted_once(path):
    journal = Journal(path)
    journal.append(0, 0, SEARCH, Reply(2, np.array([2.0, 3.0])))
    journal.append(0, 0, SEARCH, Reply(0, np.array([0.0, 1.0])))
    journal.append(0, 0, SEARCH, Reply(0, np.array([9.0])))
    journal.append(0, 4, FINAL, Reply(0, np.array([7.0])))
    journal.close()
    assert values_by_id(path, 4).tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(RunDirectoryError, match="evaluation 4"):
        values_by_id(path, 5)


def test_steps_behind_the_checkpoint_are_forgotten(path):
    write(path)
    journal = Journal(path)
    journal.forget_before(2)
    assert journal.known(SEARCH, 1) == []
    assert len(journal.known(SEARCH, 2)) == 2
    journal.close()
