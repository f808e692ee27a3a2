"""Checkpoints are whole or not there, and a damaged one is noticed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.core.errors import CheckpointError, RunDirectoryError, ZooWarning
from zoo.run import checkpoint


def save(directory, step):
    arrays = {"a": np.full(100, float(step)), "b": np.arange(3, dtype=np.int64)}
    return checkpoint.save(directory, step, {"dict": {"step": step, "x": {"float": "nan"}}}, arrays)


def test_the_newest_is_loaded_and_two_are_kept(tmp_path):
    for step in (1, 5, 12):
        save(tmp_path, step)
    step, tree, arrays = checkpoint.load(tmp_path)
    assert (step, tree["dict"]["step"]) == (12, 12)
    assert (arrays["a"] == 12).all()
    assert arrays["b"].dtype == np.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000005", "step_000000012"]


def test_none_at_all_is_no_error(tmp_path):
    assert checkpoint.load(tmp_path / "nothing") is None


def test_a_step_may_be_saved_twice(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 3)
    assert checkpoint.load(tmp_path)[0] == 3


@pytest.mark.parametrize("name", ["state.json", "arrays.safetensors"])
@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damage_anywhere_is_noticed_and_the_one_before_taken(tmp_path, name, place, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    if damage == "flip":
        data[at] ^= 0x10
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:at])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.warns(ZooWarning, match="is damaged"):
        assert checkpoint.load(tmp_path)[0] == 1


def test_all_damaged_is_an_error_that_says_what_to_do(tmp_path):
    (save(tmp_path, 1) / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step_000000001: state.json.*evaluations\.bin"):
        checkpoint.load(tmp_path)


def test_a_newer_format_is_refused_rather_than_guessed_at(tmp_path):
    path = save(tmp_path, 1) / "state.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema": checkpoint.SCHEMA + 1}))
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoint.load(tmp_path)


def test_what_a_kill_left_unfinished_is_swept_up(tmp_path):
    save(tmp_path, 1)
    stray = tmp_path / ".step_000000002.999999"
    stray.mkdir()
    (stray / "arrays.safetensors").write_bytes(b"half")
    assert checkpoint.load(tmp_path)[0] == 1
    assert stray.exists(), "looking at a run that is under way must not disturb it"
    checkpoint.sweep(tmp_path, 1)
    assert not stray.exists()


def test_damaged_ones_are_put_aside_and_do_not_count_among_those_kept(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_text("")
    with pytest.warns(ZooWarning):
        step = checkpoint.load(tmp_path)[0]
    checkpoint.sweep(tmp_path, step)
    save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000000001", "step_000000002"]
    assert (tmp_path / "damaged_step_000000002").exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, {"dict": {}}, {"a": np.zeros(1)}, run="one")
    assert checkpoint.load(tmp_path, "one")[0] == 1
    with pytest.raises(CheckpointError, match="another run"):
        checkpoint.load(tmp_path, "other")


def test_a_number_that_is_none_counts_as_damage(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "state.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": NaN'))
    with pytest.warns(ZooWarning, match="is damaged"):
        assert checkpoint.load(tmp_path)[0] == 1


def test_a_full_disk_leaves_the_one_before_and_no_litter(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000001"]


def test_a_pickle_in_the_place_of_arrays_is_refused_unread(tmp_path):
    path = save(tmp_path, 1) / "arrays.safetensors"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "pwned").exists()
