"""Run directories in bad condition: each ends in a clear message, or in the run as it would have been."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.core.errors import RunDirectoryError
from zoo.run import checkpoint, journal, loop
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_modules
from zoo.run.reading import read_recording

ARGUMENTS = {"method": "cma", "budget": 60, "rng": 1}
LEFT = 11  # evaluations that the run below has still to make


class Counted:
    """A sphere that counts its calls."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return float((x**2).sum())


def by_resume(out, fun):
    return zoo.resume(out, fun)


def by_minimize(out, fun):
    return zoo.minimize(fun, np.ones(3), out=out, **ARGUMENTS)


def by_session(out, fun):
    with zoo.Session.open(out, timeout=0.0) as session:
        session.requeue(session.pending)
        while not session.done:
            session.tell({trial.id: fun(trial.x) for trial in session.ask(100)})
        return session.result


WAYS = [by_resume, by_minimize, by_session]
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run as kill -9 leaves it: two checkpoints, and evaluations of two more steps."""
    parent = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)

        def watch(intermediate_result):
            if intermediate_result.nit == 5:
                patch.setattr(loop, "CHECKPOINT_SECONDS", np.inf)
            if intermediate_result.nit == 7:
                shutil.copytree(parent / "whole", parent / "run")

        zoo.minimize(Counted(), np.ones(3), out=parent / "whole", callback=watch, **ARGUMENTS)
    return parent


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Leave it to the operating system when the disk has it: no test pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def run(sound, tmp_path):
    shutil.copytree(sound / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def whole(sound):
    return sound / "whole"


def outcome(way, out):
    """Return what went wrong, or None, what was warned of, and how many evaluations were made."""
    fun, error = Counted(), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            way(out, fun)
        except RunDirectoryError as raised:
            error = str(raised)
    return error, " ".join(str(warning.message) for warning in caught), fun.calls


def assert_same(out, whole):
    assert digest_of_run(out) == digest_of_run(whole)
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


NEWEST, BEFORE = "checkpoints/step_000000005", "checkpoints/step_000000004"
FILES = [
    ".lock", "config.json", "start.safetensors", "meta.json", "evaluations.bin", "metrics.jsonl",
    "timings.jsonl", "events.jsonl", f"{NEWEST}/state.json", f"{NEWEST}/arrays.safetensors",
    f"{BEFORE}/state.json", f"{BEFORE}/arrays.safetensors",
]  # fmt: skip
ENTRIES = [*FILES, "checkpoints", NEWEST, BEFORE]


def test_the_run_is_what_the_tables_below_take_it_for(sound):
    found = [str(path.relative_to(sound / "run")) for path in (sound / "run").rglob("*")]
    assert sorted(found) == sorted(ENTRIES)


def wrong_without(gone, way):
    """Return what is to be said if entries are missing, None if the run can go on."""
    if "config.json" in gone:
        if way is by_minimize:
            return "is no run directory; nothing in it" if ".lock" in gone else "its config.json, which says"
        return "it has no config.json"
    if "start.safetensors" in gone:
        return "it has no start.safetensors. Put it back"
    damaged = {entry.rpartition("/")[0] for entry in gone if entry.count("/") == 2}
    there = {NEWEST, BEFORE} - gone if "checkpoints" not in gone else set()
    return "every checkpoint in" if there and there <= damaged else None


@pytest.mark.parametrize(
    ("way", "gone"),
    [
        *itertools.product(WAYS, [(entry,) for entry in ENTRIES]),
        *itertools.product([by_resume], itertools.combinations(ENTRIES, 2)),
    ],
)
def test_half_deleted(run, whole, way, gone):
    for entry in gone:
        remove(run / entry)
    error, warned, calls = outcome(way, run)
    wrong = wrong_without(set(gone), way)
    if wrong:
        assert wrong in error
        assert str(run) in error
        assert calls == 0
        return
    assert error is None
    has_checkpoint = "checkpoints" not in gone and not {NEWEST, BEFORE} <= set(gone)
    heeded = False
    if "evaluations.bin" in gone:
        said = "does not hold all that was evaluated" if has_checkpoint else "the run begins anew"
        # Logs that are gone as well give nothing away any more.
        assert said in warned or (not has_checkpoint and "metrics.jsonl" in gone)
        heeded = has_checkpoint
    else:
        assert calls == LEFT
    if "metrics.jsonl" in gone and has_checkpoint:
        assert "metrics.jsonl is damaged" in warned
        heeded = True
    if heeded:
        shutil.rmtree(run / "checkpoints")
        way(run, Counted())
    assert_same(run, whole)


@every_way
@pytest.mark.parametrize("entry", [entry for entry in FILES if entry != ".lock"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_cut_short(run, whole, entry, share, way):
    data = (run / entry).read_bytes()
    (run / entry).write_bytes(data[: int(share * len(data))])
    error, warned, calls = outcome(way, run)
    if entry in ("config.json", "start.safetensors"):
        assert "damaged" in error
        assert str(run) in error
        return
    assert error is None
    assert entry == "evaluations.bin" or calls == LEFT
    if entry.startswith(NEWEST):
        assert "is damaged (step_000000005: " in warned
    if entry in ("evaluations.bin", "metrics.jsonl"):
        assert str(run / entry) in warned
        shutil.rmtree(run / "checkpoints")
        way(run, Counted())
    assert_same(run, whole)


@every_way
@pytest.mark.parametrize(
    "entry", ["meta.json", "timings.jsonl", "events.jsonl", "asked.jsonl", "result.json"]
)
def test_nested_deeper_than_can_be_read(run, whole, tmp_path, entry, way):
    before = (run / entry).read_bytes() if entry.endswith("l") and (run / entry).exists() else b""
    (run / entry).write_bytes(b"[" * 200_000 + b"\n" + before)
    read_recording(run)
    zoo.loggers.CSV(tmp_path / "steps.csv").replay(run)
    assert read_modules(run) == ({}, []) or entry != "meta.json"
    assert outcome(way, run) == (None, "", LEFT)
    assert_same(run, whole)


@every_way
@pytest.mark.parametrize("entry", [entry for entry in FILES if entry.count("/") < 2])
def test_a_directory_in_the_place_of_a_file(run, whole, entry, way):
    (run / entry).unlink()
    (run / entry).mkdir()
    error, _, _ = outcome(way, run)
    if entry == "meta.json":  # which is only compared
        assert error is None
        assert_same(run, whole)
    else:
        assert str(run) in error
        assert re.search(r"cannot be (written|read)|is damaged", error)


@every_way
def test_a_file_in_the_place_of_checkpoints(run, way):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")
    error, _, _ = outcome(way, run)
    assert re.search(r"checkpoints/step_000000000 cannot be written: Not a directory\. .*resume", error)


def test_what_else_lies_beside_checkpoints_is_no_checkpoint(run, whole):
    shutil.copytree(run / BEFORE, run / "checkpoints/step_000000009.bak")
    shutil.copytree(run / BEFORE, run / "checkpoints/step_old")
    assert outcome(by_resume, run) == (None, "", LEFT)
    assert_same(run, whole)
    assert (run / "checkpoints/step_old").exists()


@every_way
@pytest.mark.parametrize("entry", ["config.json", f"{NEWEST}/state.json", "evaluations.bin"])
def test_of_a_newer_version(run, entry, way):
    data = (run / entry).read_bytes()
    newer = data.replace(b'"schema": 1', b'"schema": 2').replace(b"evaluations 2\n", b"evaluations 3\n")
    assert newer != data
    (run / entry).write_bytes(newer)
    error, _, calls = outcome(way, run)
    assert "newer version of gradfree" in error
    assert "Update gradfree" in error
    assert calls == 0
    assert (run / entry).read_bytes() == newer


@pytest.mark.parametrize(
    "state", [{}, [], {"class": "os:system", "fields": {"command": "true"}}, {"fields": 3}]
)
def test_a_checkpoint_of_something_else(run, state):
    """With all checksums right."""
    path = run / NEWEST / "state.json"
    content = {**json.loads(path.read_text()), "state": state}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": checkpoint.checksum(content)}))
    for way in (by_resume, by_session, lambda out, fun: digest_of_run(out)):
        error, _, _ = outcome(way, run)
        assert "checkpoint" in error


@every_way
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_the_journal_of_another_run(run, tmp_path, way, has_checkpoints):
    """As put back from the wrong place; of a run that differs by no more than the seed."""
    zoo.minimize(Counted(), np.ones(3), out=tmp_path / "other", **{**ARGUMENTS, "rng": 2})
    shutil.copy(tmp_path / "other/evaluations.bin", run)
    if not has_checkpoints:
        shutil.rmtree(run / "checkpoints")
    error, _, calls = outcome(way, run)
    assert "evaluations.bin holds the evaluations of another run" in error
    assert calls == 0


def test_values_of_another_experiment_are_not_taken_for_this_ones(run):
    """Where only what says whose they are is missing."""
    (run / "config.json").unlink()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunDirectoryError, match=r"holds evaluations, but its config\.json"):
        zoo.minimize(lambda x: float(((x - 1) ** 4).sum()), np.ones(3), out=run, **ARGUMENTS)
    with pytest.raises(RunDirectoryError, match=r"holds evaluations, but its config\.json"):
        zoo.Session("cma", np.ones(3), budget=60, rng=1, out=run)
    assert not (run / "config.json").exists()


NAMES = [
    "with space", "--out", "'\"$HOME`;&|<>*?[a]{b}", "new\nline", "\\back", "ünï 点 🎯", "\udcff",
    "%s %d {0}", "x" * 255, "a/" * 200 + "b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_paths(sound, whole, tmp_path, name):
    path = tmp_path / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(sound / "run", path)
    except (OSError, UnicodeError) as error:
        pytest.skip(f"this file system has no such names: {error}")
    assert outcome(by_resume, path) == (None, "", LEFT)
    assert_same(path, whole)
    shutil.rmtree(path)
    zoo.minimize(Counted(), np.ones(3), out=path, **ARGUMENTS)
    assert_same(path, whole)


def no_places(parent):
    (parent / "file").write_text("data")
    (parent / "loop").symlink_to(parent / "loop")
    (parent / "nowhere").symlink_to(parent / "missing")
    return {
        "too long": parent / ("x" * 256),
        "far too long": Path(parent, *["y" * 200] * 30),
        "NUL": parent / "a\0b",
        "file": parent / "file",
        "below a file": parent / "file" / "run",
        "loop": parent / "loop",
        "nowhere": parent / "nowhere",
    }


@pytest.mark.parametrize("way", [*WAYS, lambda out, fun: digest_of_run(out)])
def test_where_no_run_can_be(tmp_path, way):
    for name, path in no_places(tmp_path).items():
        error, _, calls = outcome(way, path)
        assert error is not None, name
        assert re.search(r"cannot be|there is no directory|there is a file", error), name
        assert calls == 0
    assert sorted(os.listdir(tmp_path)) == ["file", "loop", "nowhere"]


def test_a_name_that_is_nearly_right(run):
    with pytest.raises(RunDirectoryError, match=r"there is no directory .*runn\. Did you mean 'run'\?"):
        zoo.resume(run.with_name("runn"))


def test_a_link_to_a_run_is_that_run(run, whole, tmp_path):
    (tmp_path / "link").symlink_to(run)
    with zoo.Session.open(run):
        error, _, _ = outcome(by_resume, tmp_path / "link")
        assert "is in use in this process" in error
    assert outcome(by_resume, tmp_path / "link") == (None, "", LEFT)
    assert_same(run, whole)


def test_a_link_outlives_a_run_that_was_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="x0"):
        zoo.minimize(Counted(), np.ones(3), bounds=[(2, 3)] * 3, out=tmp_path / "link", **ARGUMENTS)
    zoo.minimize(Counted(), np.ones(3), out=tmp_path / "link", **ARGUMENTS)
    assert (tmp_path / "real/result.json").exists()


class Disk:
    """Refuses what this package writes from some operation on; of the first that it refuses, half is done."""

    def __init__(self, patch, number, because=errno.ENOSPC):
        self.number, self.because, self.done = number, because, 0
        for name in ("write", "fsync", "mkdir", "replace", "rename", "open"):
            patch.setattr(os, name, self.guarded(name, getattr(os, name)))

    def guarded(self, name, operation):
        def guard(*arguments, **more):
            frame = sys._getframe(1)
            while frame.f_globals["__name__"] == "pathlib":
                frame = frame.f_back
            is_read = name == "open" and not arguments[1] & os.O_CREAT
            if frame.f_globals["__name__"].startswith("zoo.run.") and not is_read:
                self.done += 1
                if self.done > self.number:
                    if name == "write" and self.done == self.number + 1:
                        operation(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    raise OSError(self.because, os.strerror(self.because), str(arguments[0]))
            return operation(*arguments, **more)

        return guard


def on_record(out):
    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


def test_a_full_disk_at_any_moment(tmp_path, monkeypatch):
    """From every single operation on; when there is room again, nothing that is on record is made again."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    arguments = {**ARGUMENTS, "budget": 20}
    whole = tmp_path / "whole"
    zoo.minimize(Counted(), np.ones(3), out=whole, **arguments)
    for number in itertools.count():
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            disk = Disk(patch, number)
            error, warned, _ = outcome(
                lambda out, fun: zoo.minimize(fun, np.ones(3), out=out, **arguments), out
            )
        if error is None:
            break
        assert re.search(r"/\d+(/[\w./]+)? cannot be written: No space left on device\. .*[a-z]", error)
        assert warned == ""
        kept, again = on_record(out), Counted()
        zoo.minimize(again, np.ones(3), out=out, **arguments)
        assert again.calls == 20 - kept
        assert_same(out, whole)
    assert number == disk.done > 50


def test_a_full_disk_at_any_moment_of_a_session(sound, whole, tmp_path, monkeypatch):
    for number in itertools.count():
        out = tmp_path / str(number)
        shutil.copytree(sound / "run", out)
        with monkeypatch.context() as patch:
            disk = Disk(patch, number)
            error, _, _ = outcome(by_session, out)
        if error is None:
            break
        assert "cannot be written: No space left on device. " in error
        kept = on_record(out)
        error, _, calls = outcome(by_session, out)
        assert (error, calls) == (None, 60 - kept)
        assert_same(out, whole)
    assert number == disk.done > 20


@every_way
@pytest.mark.parametrize("because", [errno.EROFS, errno.EACCES])
def test_a_directory_that_may_only_be_read(run, whole, monkeypatch, because, way):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        Disk(patch, 0, because)
        error, _, calls = outcome(way, run)
        digest = digest_of_run(run)
    assert str(run) in error
    assert os.strerror(because) in error
    assert "`zoo report --out ELSEWHERE` shows it" in error
    assert calls == 0
    assert digest.counters["nit"] == 5
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert outcome(way, run) == (None, "", LEFT)
    assert_same(run, whole)


@pytest.mark.parametrize("because", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_warned_of(run, whole, monkeypatch, because):
    """As NFS without its lock service: to refuse would leave nothing to run on."""

    def flock(*arguments):
        raise OSError(because, os.strerror(because))

    monkeypatch.setattr(fcntl, "flock", flock)
    error, warned, calls = outcome(by_resume, run)
    assert (error, calls) == (None, LEFT)
    assert "make sure that no other process uses it" in warned
    assert_same(run, whole)


def test_a_lock_that_fails_for_another_reason_is_an_error(run, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    monkeypatch.setattr(fcntl, "flock", flock)
    error, _, _ = outcome(by_resume, run)
    assert "cannot be locked: Input/output error" in error
    assert not before or len(os.listdir("/proc/self/fd")) == before


HOLDER = """
import multiprocessing, os, subprocess, sys, time
import numpy as np
import zoo

def watch(intermediate_result):
    if intermediate_result.nit == 3:
        # What outlives the run, and inherits what is not closed.
        started = [subprocess.Popen(["sleep", "100"], close_fds=False, start_new_session=True).pid]
        if not (child := os.fork()):
            time.sleep(100)
            os._exit(0)
        other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
        other.start()
        print(*started, child, other.pid, flush=True)
        time.sleep(100)

out, arguments = sys.argv[1], {"method": "cma", "budget": 60, "rng": 1}
zoo.minimize("zoo.problems:sphere", np.ones(3), out=out, callback=watch, **arguments)
"""


def test_a_lock_is_that_of_a_living_process_alone(tmp_path):
    """Neither what it has started, nor its corpse, holds it."""
    out, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    zoo.minimize("zoo.problems:sphere", np.ones(3), out=undisturbed, **ARGUMENTS)
    with subprocess.Popen([sys.executable, "-c", HOLDER, out], stdout=subprocess.PIPE, text=True) as holder:
        started = list(map(int, holder.stdout.readline().split()))
        try:
            for way in WAYS:
                error, _, _ = outcome(way, out)
                assert "is in use by another process. Wait until that has ended, or end it" in error
            holder.kill()
            # Not waited for, it stays as a zombie.
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
            zoo.resume(out)
            assert len(started) == 3
            for pid in started:
                os.kill(pid, 0)
        finally:
            holder.kill()
            for pid in started:
                os.kill(pid, signal.SIGKILL)
    assert_same(out, undisturbed)
    assert on_record(out) == 60


def zoo_says(capsys, monkeypatch, *arguments):
    """Return the exit code of a command, what it printed and what it said."""
    from zoo.cli import main

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        patch.setattr(warnings, "filters", [("always", None, Warning, None, 0)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code, *capsys.readouterr()


COMMANDS = [["resume"], ["report", "--no-html"], ["report", "--digest"], ["export"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("bad", [*FILES, "missing", "file", "newer", "long"])
def test_commands_end_in_a_message(run, capsys, monkeypatch, command, bad):
    config = json.loads((run / "config.json").read_text())
    path = run
    if bad in FILES:
        (run / bad).write_bytes(b"\0nonsense")
    elif bad == "newer":
        (run / "config.json").write_text(json.dumps({**config, "schema": 2}))
    else:
        path = {"missing": run / "missing", "file": run / "config.json", "long": run / ("x" * 256)}[bad]
    code, out, said = zoo_says(capsys, monkeypatch, *command, path)
    assert "Traceback" not in said
    if code:
        assert (code, out) == (2, "")
        assert str(path) in said
