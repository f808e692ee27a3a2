"""Count what faults cost: kill, stop, starve and damage runs, and compare their bytes with undisturbed ones.

    python benchmarks/faults.py                 all of it, some minutes
    python benchmarks/faults.py --ray           on Ray workers as well, a quarter of an hour
    python benchmarks/faults.py --kills 3       fewer of each everywhere

Each line of the table is one kind of fault: how many were injected, how many evaluations were lost or made
twice, and whether the final digest and `metrics.jsonl` are those of the undisturbed run. What else was not as
it must be stands below the table. The last line is JSON; the exit status is 0 when all is well.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import zoo  # noqa: E402 - from the tree that this file is part of
import zoo.run.loop  # noqa: E402
from zoo.core.errors import RunDirectoryError, ZooWarning  # noqa: E402
from zoo.problems import rosenbrock  # noqa: E402
from zoo.run import checkpoint, journal  # noqa: E402
from zoo.run.digest import digest_of_run  # noqa: E402
from zoo.run.directory import read_events  # noqa: E402

DIM, BUDGET = 6, 240
METHODS = ("cma", "zo-adam", "pycma")


class Row(NamedTuple):
    """What one kind of fault did.

    Attributes:
        name: Which kind.
        faults: How many were injected.
        lost: Evaluations that are not on record, or twice; of checkpoints, those that cannot be read.
        equal: Whether digest and metrics are those of the undisturbed run.
        wrong: What else was not as it must be.
    """

    name: str
    faults: int
    lost: int
    equal: bool
    wrong: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, nothing is different, and nothing else was wrong."""
        return self.equal and not self.lost and not self.wrong


# ---- objectives: one function under various circumstances, so that every run must have the same bytes


def slow_rosenbrock(x: np.ndarray[Any, Any]) -> float:
    """Take three milliseconds."""
    time.sleep(0.003)
    return float(rosenbrock(x))


def erratic_rosenbrock(x: np.ndarray[Any, Any]) -> float:
    """Take up to ten milliseconds, another time whenever it is evaluated."""
    time.sleep(0.01 * random.SystemRandom().random())
    return float(rosenbrock(x))


def stubborn_rosenbrock(x: np.ndarray[Any, Any]) -> float:
    """Have a child on every worker; and as long as there is a certain file, hang and heed no signal."""
    if os.environ.get("FAULTS_WHERE", "serial") != "serial":
        _child()
    while os.path.exists(os.environ.get("FAULTS_HANG", "")):
        with contextlib.suppress(ValueError):  # where it is not the main thread that evaluates
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(BaseException):
            _WAYS["native sleep"]()
    return slow_rosenbrock(x)


@functools.cache
def _child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def fatal_rosenbrock(x: np.ndarray[Any, Any], ways: Mapping[str, str]) -> float:
    """Come to grief at some points, at each in a way of its own."""
    point = x.tobytes().hex()
    if point in ways:
        _WAYS[ways[point]]()
    return slow_rosenbrock(x)


def _raising_rosenbrock(seen: dict[str, None], fatal: Sequence[str], x: np.ndarray[Any, Any]) -> float:
    """Take note of every point, and raise at some."""
    point = x.tobytes().hex()
    seen[point] = None
    if point in fatal:
        raise MemoryError
    return float(rosenbrock(x))


def _use_up_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))
    np.ones(2**28)


_WAYS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(1),
    "sleep": lambda: time.sleep(3600),
    "native sleep": lambda: ctypes.PyDLL(None).sleep(3600),  # which does not let go of Python's lock
    "memory": _use_up_memory,
}
_KINDS = {"exit": "crashed", "sleep": "hung", "native sleep": "hung", "memory": "raised"}


# ---- what a run has come to

Values: TypeAlias = dict[tuple[int, int, int], bytes]  # by kind, step and row


class Outcome(NamedTuple):
    """Digest and metrics of a run, and the values on its record."""

    digest: str
    metrics: bytes
    values: Values


def minimize(out: Path, fun: Any = rosenbrock, args: Any = (), **more: Any) -> Any:
    """Do the one run that everything here is about, under some circumstances."""
    more = {"method": "cma", "budget": BUDGET, **more}
    return zoo.minimize(fun, np.zeros(DIM), args, rng=1, out=out, **more)


@functools.cache
def undisturbed(method: str = "cma", budget: int = BUDGET) -> Outcome:
    """Return what it comes to if nothing happens to it."""
    with tempfile.TemporaryDirectory() as parent:
        minimize(Path(parent, "run"), method=method, budget=budget)
        return outcome(Path(parent, "run"))


def outcome(out: Path) -> Outcome:
    """Return what the run in a directory has come to."""
    return Outcome(digest_of_run(out).total, (out / "metrics.jsonl").read_bytes(), _on_record(out)[0])


def _on_record(out: Path) -> tuple[Values, int]:
    """Return the values on record, and how many of them are there once more."""
    found: Values = {}
    again = 0
    for record in journal.read(out / "evaluations.bin"):
        for row, value in enumerate(record.reply.values, record.reply.start):
            place = record.kind, record.step, row
            again += place in found
            found.setdefault(place, value.tobytes())
    return found, again


def _num_evaluated(out: Path) -> int:
    path = out / "evaluations.bin"
    return sum(len(record.reply.values) for record in journal.read(path)) if path.exists() else 0


def compare(
    name: str,
    faults: int,
    out: Path,
    expected: Outcome,
    wrong: Sequence[str] = (),
    seen: Values | None = None,
) -> Row:
    """Return how a run compares, on whose record some values have been seen before."""
    now, again = _on_record(out)
    lost = {place for place, value in (expected.values | (seen or {})).items() if now.get(place) != value}
    return Row(name, faults, len(lost) + again, outcome(out)[:2] == expected[:2], tuple(wrong))


def _executor(where: str) -> type[Any]:
    return zoo.Ray if where == "Ray" else zoo.Processes


def _together(name: str, rows: Sequence[Row]) -> Row:
    wrong = [f"{row.name}: {said}" for row in rows for said in row.wrong]
    faults, lost = sum(row.faults for row in rows), sum(row.lost for row in rows)
    return Row(name, faults, lost, all(row.equal for row in rows), tuple(wrong))


# ---- drivers that are killed, stopped, or run out of disk

_OPTIONS = {"serial": ["--workers", "1"], "processes": ["--workers", "2"], "Ray": ["--workers", "2", "--ray"]}
_DRIVER = "import zoo.run.loop as loop; loop.CHECKPOINT_SECONDS = {}; from zoo.cli import main; main()"
_PROGRAM = f"""
import sys, numpy as np
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.faults import slow_rosenbrock
for line in sys.stdin:
    print(repr(slow_rosenbrock(np.array(line.split(), float))), flush=True)
"""


class Driver:
    """`zoo minimize` into one run directory, in as many processes as it takes.

    Args:
        parent: Where the directory is made.
        where: Who evaluates: "serial", "processes" or "Ray".
        objective: As the command line takes it.
        method: Name of the method.
        budget: Number of evaluations.
        every: Seconds between checkpoints.

    Attributes:
        wrong: What was not as it must be.
    """

    def __init__(
        self,
        parent: Path,
        where: str,
        *objective: str,
        method: str = "cma",
        budget: int = BUDGET,
        every: float = 0.05,
    ) -> None:
        self.out, self.hang = parent / "run", parent / "hang"
        self.wrong: list[str] = []
        self._said, self._mark = parent / "said", uuid.uuid4().hex
        self._seen: Values = {}
        self._expected = undisturbed(method, budget)
        options = f"--x0 0x{DIM} --method {method} --budget {budget} --seed 1".split()
        self._command = [sys.executable, "-c", _DRIVER.format(every), "minimize", *objective, *options]
        self._command += ["--out", str(self.out), *_OPTIONS[where]]
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FAULTS_MARK": self._mark,
            "FAULTS_WHERE": where,
            "FAULTS_HANG": str(self.hang),
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process that begins the run, or goes on with it."""
        with open(self._said, "wb") as said:
            return subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    def reaches(self, process: subprocess.Popen[bytes], count: float) -> bool:
        """Wait until so many evaluations are on record; return whether the process is there to see it."""
        while process.poll() is None and _num_evaluated(self.out) < count:
            time.sleep(0.01)
        return process.poll() is None

    def ends(self, process: subprocess.Popen[bytes], *statuses: int, seconds: float = 120.0) -> int:
        """Wait for the end of a process and return its status, which is to be one of some.

        Also look whether the newest checkpoint is sound, and remember what is on record.
        """
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"a driver was still there after {seconds:g} s")
            process.kill()
            status = process.wait()
        else:
            if status not in statuses:
                self.wrong.append(f"a driver ended with status {status}: {self.said()[-2000:]}")
        with warnings.catch_warnings(action="error", category=ZooWarning):
            try:
                checkpoint.load(self.out / "checkpoints")
            except (ZooWarning, RunDirectoryError) as error:
                self.wrong.append(str(error))
        self._seen.update(_on_record(self.out)[0])
        return status

    def said(self) -> str:
        """Return what the last process wrote to standard error."""
        return self._said.read_text()

    def leaves_nothing(self, seconds: float = 15.0) -> None:
        """See that everything is gone that the processes have started, however far down."""
        if not _until(lambda: not self._processes(), seconds):
            for pid, command in self._processes().items():
                self.wrong.append(f"an orphan after {seconds:g} s: {command[:200]}")
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> dict[int, str]:
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ").strip()
        return found

    def row(self, name: str, faults: int) -> Row:
        """Return what has come of the run."""
        self.leaves_nothing()
        return compare(name, faults, self.out, self._expected, self.wrong, self._seen)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, up to some time; return whether it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def driver_kills(method: str, kills: int, budget: int = 400, where: str = "serial", seed: int = 0) -> Row:
    """Kill the driver at random moments, and resume it each time until the run is done."""
    gaps = np.random.default_rng(seed).uniform(0.3, 1.1, kills) * budget / (kills + 1)
    with tempfile.TemporaryDirectory() as parent:
        objective = "benchmarks.faults:slow_rosenbrock"
        driver = Driver(Path(parent), where, objective, method=method, budget=budget)
        hit = done = 0
        while True:
            process = driver.start()
            if hit < kills and driver.reaches(process, done + gaps[hit]):
                process.kill()
                hit += 1
            if driver.ends(process, 0, -signal.SIGKILL) != -signal.SIGKILL:
                return driver.row(f"driver killed, {where}, {method}", hit)
            done = _num_evaluated(driver.out)


def stops(where: str) -> Row:
    """Stop a run by one signal after the other, each time some evaluations further on, and finish it then.

    A second Ctrl-C and SIGKILL come while the objective hangs. There are children besides the workers: one
    of the objective on each of them, or, without workers, a program that is the objective.
    """
    stubborn = ["benchmarks.faults:stubborn_rosenbrock"]
    command = [shlex.join([sys.executable, "-c", _PROGRAM]), "--command"]
    if where == "serial":
        rows = [stopped(where, command, "TERM", "INT"), stopped(where, stubborn, "INT twice")]
    else:
        rows = [stopped(where, stubborn, "TERM", "INT", "INT twice", "KILL")]
    return _together(f"signals, {where}", rows)


def stopped(where: str, objective: Sequence[str], *signals: str) -> Row:
    """Stop a run by some signals, one after the other, and finish it then."""
    with tempfile.TemporaryDirectory() as parent:
        driver = Driver(Path(parent), where, *objective)
        for count, name in enumerate(signals, 1):
            number, hangs = signal.Signals["SIG" + name.split()[0]], name in ("INT twice", "KILL")
            process = driver.start()
            driver.reaches(process, BUDGET * count / 5)
            if hangs:
                driver.hang.touch()
                time.sleep(0.5)
            for _ in range(1 + name.endswith("twice")):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)  # as a terminal does
                time.sleep(0.05)
            if hangs:
                driver.ends(process, 128 + number, -number, seconds=5.0)
            else:
                if not _until(functools.partial(_is_stopped, driver.out), 10.0):
                    driver.wrong.append(f"{name}: no checkpoint after 10 s")
                driver.ends(process, 128 + number, seconds=30.0)
            driver.leaves_nothing()
            driver.hang.unlink(missing_ok=True)
        zoo.resume(driver.out)
        return driver.row(" ".join(signals), len(signals))


def _is_stopped(out: Path) -> bool:
    """Whether a run has been interrupted, which it puts on record after its checkpoint."""
    events = read_events(out)
    return bool(events) and events[-1].get("status") == "interrupted"


def full_disks(times: int, seed: int = 0) -> Row:
    """Fill a disk of 1 MB at random moments, make room when the driver has given up, and go on."""
    generator = np.random.default_rng(seed)
    sites: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as parent, _small_disk(Path(parent, "disk")) as disk:
        objective = "benchmarks.faults:slow_rosenbrock"
        driver = Driver(Path(parent), "serial", objective, budget=200 * times, every=0.3)
        (disk / "run").mkdir()
        driver.out.symlink_to(disk / "run")
        full = done = 0
        while True:
            process = driver.start()
            if full < times and driver.reaches(process, done + generator.integers(10, 50)):
                _fill(disk / "filler", but=int(generator.integers(3)))
                full += 1
            if driver.ends(process, 0, 2) != 2:
                found = ", ".join(f"{site} {count}" for site, count in sorted(sites.items()))
                return driver.row(f"disk full ({found})", full)
            told = re.search(r"run/(\w+).* cannot be written: No space left .*: make room", driver.said())
            if told is None:
                driver.wrong.append(f"a full disk was not explained: {driver.said()[-2000:]}")
            else:
                sites[told[1]] += 1
            (disk / "filler").unlink()
            done = _num_evaluated(driver.out)


@contextlib.contextmanager
def _small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def _fill(path: Path, but: int) -> None:
    """Fill a disk but for some pages."""
    with open(path, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - 4096 * but)


# ---- workers that die, hang, or run out of memory, while the driver goes on


def worker_kills(where: str, kills: int, together: bool = False, budget: int = 600, seed: int = 0) -> Row:
    """Kill a worker, or all of them together, at random moments of one run.

    The moments are numbers of evaluations, so that the run gets on between two kills: three kills of the
    very same evaluation would rightly count against it.
    """
    executor = _executor(where)(2)
    generator = np.random.default_rng(seed)
    moments = np.sort(generator.uniform(0.05, 0.9, kills)) * budget
    killed: list[int] = []
    over = threading.Event()

    def kill(out: Path) -> None:
        for moment in moments:
            while not over.is_set():
                pids = [pid for pid in executor.pids() if pid not in killed]
                if len(pids) >= (executor.num_workers if together else 1) and _num_evaluated(out) >= moment:
                    chosen = pids if together else [int(generator.choice(pids))]
                    for pid in chosen:
                        os.kill(pid, signal.SIGKILL)
                    killed.extend(chosen)
                    break
                time.sleep(0.01)

    with tempfile.TemporaryDirectory() as parent:
        out = Path(parent, "run")
        thread = threading.Thread(target=kill, args=[out])
        thread.start()
        try:
            minimize(out, slow_rosenbrock, budget=budget, workers=executor)
        finally:
            over.set()
            thread.join()
        name = f"{'all workers' if together else 'worker'} killed, {where}"
        done = len(killed) // (executor.num_workers if together else 1)
        wrong = [] if done == kills else [f"only {done} of {kills} kills came about"]
        deaths = sum(event["event"] == "worker lost" for event in read_events(out))
        wrong += [] if deaths == len(killed) else [f"{deaths} deaths are on record, not {len(killed)}"]
        return compare(name, done, out, undisturbed("cma", budget), wrong)


def fatal_evaluations(where: str, name: str, *ways: str, **options: Any) -> Row:
    """Evaluate points at which the objective comes to grief: NaN there, and all else as it must be."""
    with tempfile.TemporaryDirectory() as parent:
        # Each point is the one at a certain place of a run that has failed at those before.
        fatal: dict[str, str] = {}
        for number, way in enumerate((*ways, "")):
            whole, seen = Path(parent, f"whole {number}"), dict[str, None]()
            minimize(whole, functools.partial(_raising_rosenbrock, seen, tuple(fatal)), on_error="nan")
            if way:
                fatal[list(seen)[60 * number + 37]] = way
        out = Path(parent, "run")
        executor = _executor(where)(2, **options)
        result = minimize(out, fatal_rosenbrock, (fatal,), workers=executor, on_error="nan")
        wrong = [] if result.num_failed == len(ways) else [f"{result.num_failed} evaluations failed"]
        wrong += [] if result.seconds < 30 else [f"it took {result.seconds:.0f} s"]
        told = [event for event in read_events(out) if event["event"] in ("quarantined", "evaluation raised")]
        if sorted(event.get("kind", "raised") for event in told) != sorted(_KINDS[way] for way in ways):
            wrong.append(f"the events are {told}")
        return compare(f"{name}, {where}", len(ways), out, outcome(whole), wrong)


def worker_counts(where: str) -> Row:
    """Evaluate on one, two and three workers with random delays, for three methods."""
    rows = []
    for method in METHODS:
        for count in (1, 2, 3):
            with tempfile.TemporaryDirectory() as parent:
                out = Path(parent, "run")
                minimize(out, erratic_rosenbrock, method=method, workers=_executor(where)(count))
                rows.append(compare(f"{method} on {count}", 1, out, undisturbed(method)))
    return _together(f"delays on 1 to 3 workers, {where}", rows)


# ---- files that are torn, damaged, or made up

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from zoo.run import checkpoint
for step in range(int(sys.argv[2]), 1000000):
    checkpoint.save(Path(sys.argv[1]), step, {"dict": {"step": step}}, {"a": np.full(1000000, float(step))})
    print(step, flush=True)
"""


def checkpoint_kills(kills: int, seed: int = 0) -> Row:
    """Kill a process that writes checkpoints of 8 MB without a pause; each time the newest must load."""
    generator = np.random.default_rng(seed)
    unreadable, strays, wrong = 0, 0, []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as parent:
        directory, step = Path(parent, "checkpoints"), 0
        for _ in range(kills):
            command = [sys.executable, "-c", _WRITER, str(directory), str(step)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
                assert process.stdout is not None
                said = int(process.stdout.readline())
                time.sleep(generator.uniform(0, 0.15))
                process.kill()
                said = max([said, *map(int, process.stdout.read().split())])
            with warnings.catch_warnings(action="error", category=ZooWarning):
                try:
                    loaded = checkpoint.load(directory)
                    assert loaded is not None
                    unreadable += loaded[0] < said or bool((loaded[2]["a"] != loaded[0]).any())
                except (ZooWarning, RunDirectoryError):
                    unreadable += 1
            strays += len(list(directory.glob(".*")))
            checkpoint.sweep(directory, None)
            wrong += [f"{path.name} was not swept up" for path in directory.glob(".*")]
            step = said + 1
    name = f"checkpoint writer killed ({strays} strays)"
    return Row(name, kills, unreadable, not unreadable, tuple(wrong))


@functools.cache
def _killed_run() -> tempfile.TemporaryDirectory[str]:
    """Return a run as a kill in its middle leaves it, its newest checkpoint some steps old."""
    parent = tempfile.TemporaryDirectory()
    before = zoo.run.loop.CHECKPOINT_SECONDS

    def look(intermediate_result: Any) -> None:
        if intermediate_result.nit == 8:
            zoo.run.loop.CHECKPOINT_SECONDS = before
        elif intermediate_result.nit == 12:
            shutil.copytree(Path(parent.name, "whole"), Path(parent.name, "run"))

    zoo.run.loop.CHECKPOINT_SECONDS = 0.0
    try:
        minimize(Path(parent.name, "whole"), "zoo.problems:rosenbrock", callback=look)
    finally:
        zoo.run.loop.CHECKPOINT_SECONDS = before
    return parent


def _files(out: Path) -> tuple[list[str], str]:
    """Return the files of a run that hold something, and the place of its newest checkpoint."""
    newest = max(out.glob("checkpoints/step_*")).relative_to(out).as_posix()
    found = [path for path in out.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path.relative_to(out).as_posix() for path in found), newest


def damaged_files(count: int, seed: int = 0) -> Row:
    """Damage a file of a run that was killed, and resume it."""
    generator = np.random.default_rng(seed)
    sound = Path(_killed_run().name, "run")
    names, newest = _files(sound)
    plan = [(name, how) for name in names for how in ("torn", "flipped", "missing")]
    plan += [(name, "newer") for name in ("config.json", "evaluations.bin", f"{newest}/state.json")]
    rows, noticed = [], 0
    for number in range(count):
        if number % len(plan) == 0:
            generator.shuffle(plan)
        name, how = plan[number % len(plan)]
        data = bytearray((sound / name).read_bytes())
        at, bit = int(generator.integers(len(data))), 1 << int(generator.integers(8))
        if how == "torn":
            del data[at:]
        elif how == "flipped":
            data[at] ^= bit
        elif how == "newer":
            data = data.replace(b'"schema": 1', b'"schema": 2').replace(b"evaluations 1", b"evaluations 2")
        row, said = _resumed(f"{name} {how} at {at}", {name: None if how == "missing" else bytes(data)})
        if said and name.startswith(newest) and how != "newer" and "taking the one before" not in said:
            row = row._replace(wrong=(*row.wrong, f"the checkpoint before was not taken: {said}"))
        rows.append(row)
        noticed += bool(said)
    return _together(f"file damaged ({noticed} noticed, {count - noticed} harmless)", rows)


def _resumed(name: str, changes: Mapping[str, bytes | None]) -> tuple[Row, str]:
    """Resume a run that was killed, after changes to its files; None takes one away.

    Return what has come of it in the end, and what was said. If nothing was, the bytes must be those of the
    undisturbed run; if something was, they must be so when it has been heeded.
    """
    sound = Path(_killed_run().name, "run")
    with tempfile.TemporaryDirectory() as parent:
        out = Path(parent, "run")
        shutil.copytree(sound, out)
        for file, data in changes.items():
            (out / file).unlink()
            if data is not None:
                (out / file).write_bytes(data)
        said = ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                zoo.resume(out)
                digest_of_run(out)
            except RunDirectoryError as error:
                said = str(error)
            said += "".join(str(warning.message) for warning in caught)
            if re.search("[Rr]emov", said):
                shutil.rmtree(out / "checkpoints")
                zoo.resume(out)
            elif not (out / "result.json").exists():
                shutil.copytree(sound, out, dirs_exist_ok=True)
                zoo.resume(out)
            equal = outcome(out)[:2] == undisturbed()[:2]
        return Row(name, 1, 0, equal, () if equal or said else ("damage went unnoticed",)), said


class _Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def malicious_files() -> Row:
    """Put what would be executed by a careless reader in the place of files, with all checksums right."""
    sound = Path(_killed_run().name, "run")
    _, newest = _files(sound)
    arrays, text = f"{newest}/arrays.safetensors", f"{newest}/state.json"
    with tempfile.TemporaryDirectory() as parent:
        executed = Path(parent, "executed")
        bomb, archive = pickle.dumps(_Bomb(executed)), io.BytesIO()
        np.savez(archive, x=np.array([_Bomb(executed)], object))
        call = {"state": {"class": "os:system", "fields": {"command": f"touch {executed}"}}}
        attempts = {
            "pickle as arrays": {arrays: bomb, text: _signed(sound / text, arrays=_sha256(bomb))},
            "npz as arrays": {
                arrays: archive.getvalue(),
                text: _signed(sound / text, arrays=_sha256(archive.getvalue())),
            },
            "call as state": {text: _signed(sound / text, state=call)},
            "pickle as state": {text: bomb},
            "bottomless state": {text: b"[" * 10**6},
            "pickle as start": {
                "start.safetensors": bomb,
                "config.json": _signed(sound / "config.json", start=_sha256(bomb)),
            },
            "pickle as configuration": {"config.json": bomb},
            "pickle as journal": {"evaluations.bin": bomb},
        }
        rows = []
        for name, changes in attempts.items():
            row, said = _resumed(name, changes)
            wrong = [*row.wrong, *([] if said else ["it was taken"])]
            wrong += ["it was executed"] if executed.exists() else []
            executed.unlink(missing_ok=True)
            rows.append(row._replace(wrong=tuple(wrong)))
    return _together("malicious file", rows)


def _signed(path: Path, **changes: Any) -> bytes:
    """Return a JSON file with some entries changed and the checksum made to fit."""
    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    return json.dumps({**content, "sha256": checkpoint.checksum(content)}).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- all of it


def local(kills: int | None) -> Iterator[Row]:
    """Yield the rows that need no Ray."""
    most = kills or 20
    for method in METHODS:
        yield driver_kills(method, most, 60 * most)
    yield driver_kills("cma", most, 60 * most, "processes")
    yield stops("serial")
    yield stops("processes")
    yield from on_workers("processes", kills)
    if os.geteuid() == 0:  # it takes the right to mount one
        yield full_disks(kills or 10)
    yield checkpoint_kills(kills or 100)
    yield damaged_files(kills or 50)
    yield malicious_files()


def on_ray(kills: int | None) -> Iterator[Row]:
    """Yield the rows that need Ray; drivers start their own, all else shares one."""
    import ray

    most = kills or 20
    yield driver_kills("cma", most, 60 * most, "Ray")
    yield stops("Ray")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    with contextlib.redirect_stdout(sys.stderr):  # Ray reports every death there is
        try:
            yield from on_workers("Ray", kills)
        finally:
            ray.shutdown()


def on_workers(where: str, kills: int | None) -> Iterator[Row]:
    """Yield the rows that are about workers."""
    yield worker_kills(where, kills or 10)
    yield worker_kills(where, min(kills or 3, 3), together=True)
    yield fatal_evaluations(where, "poison", "exit")
    yield fatal_evaluations(where, "hang", "sleep", "native sleep", timeout=2.0)
    yield fatal_evaluations(where, "out of memory", "memory", "memory")
    yield worker_counts(where)


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, help="faults of each kind at most, instead of 3 to 100")
    parser.add_argument("--ray", action="store_true", help="the same on Ray workers")
    given = parser.parse_args()
    rows = []
    began = time.monotonic()
    for row in itertools.chain(local(given.kills), on_ray(given.kills) if given.ray else ()):
        rows.append(row)
        print(f"{time.monotonic() - began:6.0f} s  {row.name}", file=sys.stderr, flush=True)
    width = max(len(row.name) for row in rows)
    print(f"{'fault':<{width}}{'injected':>10}{'lost':>6}  digest")
    for row in rows:
        print(f"{row.name:<{width}}{row.faults:>10}{row.lost:>6}  {'equal' if row.equal else 'DIFFERENT'}")
    for row in rows:
        for wrong in row.wrong:
            print(f"{row.name}: {wrong}")
    ok = all(row.ok for row in rows)
    print(json.dumps({"name": "faults", "rows": [row._asdict() for row in rows], "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
