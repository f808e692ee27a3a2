"""Drivers killed and stopped, disks that fill up, files that are damaged: the same bytes in the end.

Each kind of fault is one function of `benchmarks/faults.py`, which counts them in larger numbers. Kills of
workers and other faults of theirs have tests of their own beside this file.
"""

import io
import os

import pytest

import zoo
from benchmarks import faults
from zoo.core.errors import RunDirectoryError
from zoo.run import checkpoint, loop
from zoo.run.directory import RunDirectory, read_events


def check(row, count):
    assert row.wrong == ()
    assert (row.faults, row.lost, row.equal) == (count, 0, True)


def test_killed_three_times_a_driver_with_workers_loses_nothing():
    check(faults.driver_kills("cma", 3, budget=180, where="processes"), 3)


@pytest.mark.parametrize(("where", "count"), [("serial", 3), ("processes", 4)])
def test_stopped_by_any_signal_a_driver_leaves_a_checkpoint_and_no_process(where, count):
    check(faults.stops(where), count)


def test_killed_five_times_the_writer_of_checkpoints_leaves_a_sound_one():
    check(faults.checkpoint_kills(5), 5)


def test_out_of_memory_is_a_failed_evaluation():
    check(faults.fatal_evaluations("processes", "out of memory", "memory", "memory"), 2)


def test_damage_to_any_file_is_noticed_or_makes_no_difference():
    check(faults.damaged_files(40), 40)


def test_nothing_in_a_run_directory_is_ever_executed():
    check(faults.malicious_files(), 8)


class Disk:
    """A disk that, once it is full, has room for a few more bytes of the files of one name, and no more."""

    def __init__(self, monkeypatch, name, room):
        self.name, self.room, self.full = name, room, False
        written = os.write

        class File(io.FileIO):
            def write(file, data):  # noqa: N805 - `self` is the disk
                return self.take(file.name, data, super().write)

        def write(descriptor, data):
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            return self.take(name, data, lambda part: written(descriptor, part))

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(
            checkpoint, "open", lambda path, mode: io.BufferedWriter(File(path, mode)), raising=False
        )

    def take(self, path, data, write):
        if not self.full or self.name not in os.path.basename(path):
            return write(data)
        if not self.room:
            raise OSError(28, "No space left on device")
        count = write(memoryview(data)[: self.room])
        self.room -= count
        return count


@pytest.mark.parametrize("room", [0, 10])
@pytest.mark.parametrize(
    ("name", "where", "since"),
    [
        ("start.safetensors", "serial", 0),
        ("meta.json", "serial", 0),
        ("config.json", "serial", 0),
        ("evaluations.bin", "serial", 0),
        ("evaluations.bin", "serial", 7),
        ("evaluations.bin", "processes", 7),
        ("arrays.safetensors", "serial", 0),
        ("arrays.safetensors", "serial", 7),
        ("state.json", "serial", 7),
        ("metrics.jsonl", "serial", 7),
        ("timings.jsonl", "serial", 7),
        ("events.jsonl", "serial", 7),
        ("result.json", "serial", 7),
    ],
)
def test_a_full_disk_is_explained_and_costs_nothing(tmp_path, monkeypatch, name, where, since, room):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    out, disk = tmp_path / "run", Disk(monkeypatch, name, room)
    workers = zoo.Processes(2) if where == "processes" else 1

    def callback(intermediate_result):
        disk.full = disk.full or intermediate_result.nit == since

    def run():
        return faults.minimize(out, "zoo.problems:rosenbrock", workers=workers, callback=callback)

    disk.full = since == 0
    with pytest.raises(RunDirectoryError, match=r"No space left on device\. .*[Mm]ake room") as caught:
        run()
    site = "checkpoints/step_" if name in ("arrays.safetensors", "state.json") else name
    assert f"{out / site}" in str(caught.value)
    seen = {}
    if since:
        # The last good checkpoint is there, and what was evaluated is on record.
        assert checkpoint.load(out / "checkpoints")[0] >= since
        seen = faults.outcome(out).values
        assert len(seen) >= 9 * since
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
    disk.full, since = False, -1
    run()
    check(faults.compare(name, 1, out, faults.undisturbed(), seen=seen), 1)
    if where == "processes":
        assert workers.pids() == []


def test_a_checkpoint_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 3, {"dict": {"try": 1}}, {})
    renamed = os.rename

    def rename(source, target):
        if os.path.basename(target) == "step_000000003" and not source.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        renamed(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        checkpoint.save(tmp_path, 3, {"dict": {"try": 2}}, {})
    assert checkpoint.load(tmp_path) == (3, {"dict": {"try": 1}}, {})


def test_a_torn_event_costs_none_of_the_others(tmp_path):
    out = tmp_path / "run"
    faults.minimize(out, "zoo.problems:rosenbrock")
    events = read_events(out)
    with open(out / "events.jsonl", "a") as file:
        file.write('{"event": "evaluation ra')
    directory = RunDirectory.open(out)
    directory.event({"event": "evaluation raised"})
    directory.close()
    directory = RunDirectory.open(out)
    assert [event["event"] for event in read_events(out)] == [
        *(event["event"] for event in events),
        "evaluation raised",
    ]
    assert directory.account().retries == 1
    directory.close()
