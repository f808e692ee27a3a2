"""Methods beside each other on one problem: many runs, each an ordinary run directory, and what came of them.

A run that is finished is not made again, one that was interrupted goes on: everything is read from the
directories, but what a run cost, for which there is a line a run in `costs.jsonl` beside them.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.core.errors import RunDirectoryError, WorkerError
from zoo.run.watching import Beginning, Watcher

_COSTS = "costs.jsonl"
_DONE = (0, 1)  # statuses of runs that came to their end: by themselves, or at the target
_LOOK, _PATIENCE = 0.1, 10.0  # seconds between looks, and until a process that was asked to end is killed


@dataclass(frozen=True)
class Race:
    """A run to make.

    Attributes:
        method: Its method.
        seed: Its seed.
        folder: Where the runs of all methods are.
        arguments: What else `zoo.minimize` is given.
        settings: What these were made of; a run that was made of the same need not be made again.
    """

    method: str
    seed: int
    folder: Path
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The directory of the run."""
        return self.folder / self.method / f"seed-{self.seed}"

    @property
    def costs(self) -> Path:
        """The file that says what runs cost."""
        return self.folder / _COSTS

    @property
    def result(self) -> dict[str, Any] | None:
        """How it ended, or None if it has not."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.path / "result.json").read_text()))
        return None

    @property
    def is_done(self) -> bool:
        """Whether this very run has been made."""
        result = self.result
        return (
            result is not None
            and result["status"] in _DONE
            and any(
                note["method"] == self.method
                and note["seed"] == self.seed
                and note["settings"] == self.settings
                for note in _read(self.costs)
            )
        )


@dataclass(frozen=True)
class Standing:
    """How a method did.

    Attributes:
        method: Its name.
        values: Final values of its runs, sorted; infinite where nothing was found.
        reached: Runs that reached the target.
        evaluations: Evaluations of all its runs.
        to_target: Evaluations of all runs for each that reached the target; infinite where none did.
        milliseconds: CPU time of an evaluation with all that belongs to it, the median of the runs; None
            where it is not known.
    """

    method: str
    values: tuple[float, ...]
    reached: int
    evaluations: int
    to_target: float
    milliseconds: float | None

    def quantile(self, share: float) -> float:
        """Return the value that this share of the runs reached."""
        if not self.values:
            return math.nan
        index = share * (len(self.values) - 1)
        low, high = self.values[math.floor(index)], self.values[math.ceil(index)]
        return low if low == high else low + (index - math.floor(index)) * (high - low)


class _Clock(Watcher):
    """Takes the processor time of a run, and counts its evaluations."""

    def __init__(self) -> None:
        self.seconds, self.evaluations = 0.0, 0

    def begin(self, run: Beginning) -> None:
        self._nfev, self._began = run.state.nfev, time.process_time()

    def end(self, outcome: Any) -> None:
        self.seconds = time.process_time() - self._began
        if outcome is not None:
            self.evaluations = outcome.state.nfev - self._nfev


def run(race: Race) -> None:
    """Make a run, or go on with it, and note what it cost; one that is finished is left alone."""
    import zoo

    if race.is_done:
        return
    clock, is_made = _Clock(), False
    try:
        zoo.minimize(**race.arguments, method=race.method, rng=race.seed, out=race.path, callback=clock)
        is_made = True
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{str(error).partition(' Choose')[0]} Give --out another one.") from None
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"{race.method} cannot be run here: {error}") from None
    finally:
        if is_made or clock.evaluations:
            note = {"method": race.method, "seed": race.seed, "settings": race.settings}
            _append(race.costs, {**note, "seconds": clock.seconds, "evaluations": clock.evaluations})


def run_all(races: Sequence[Race], workers: int, done: Callable[[Race], None]) -> None:
    """Make runs, several at a time if there are workers.

    Args:
        races: What to run.
        workers: Processes; with 1, this one alone.
        done: Called with every run that has ended.

    Raises:
        WorkerError: A process has died.
    """
    if workers == 1:
        for race in races:
            run(race)
            done(race)
        return
    context = multiprocessing.get_context("spawn")
    taken, ended = context.Value("i", 0), context.SimpleQueue()
    processes = [context.Process(target=_work, args=(races, taken, ended)) for _ in range(workers)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in handlers.items():
            if handler != signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, lambda number, _: sys.exit(128 + number))
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes) or not ended.empty():
            while not ended.empty():
                number, error = ended.get()
                if error is not None:
                    raise error
                done(races[number])
            time.sleep(_LOOK)
        if codes := [process.exitcode for process in processes if process.exitcode]:
            raise WorkerError(f"a process that made runs has died, with exit code {codes[0]}")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _end([process for process in processes if process.pid is not None])


def _work(races: Sequence[Race], taken: Any, ended: Any) -> None:
    """Make runs until there are none left, in a process of its own."""
    os.setsid()  # Ctrl-C is for the process that started this one, which then ends it
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))  # between runs; a run has handlers of its own
    threading.Thread(target=_follow, daemon=True).start()
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(races):
            return
        error = None
        try:
            run(races[number])
        except KeyboardInterrupt:
            os._exit(143)
        except Exception as caught:
            error = caught
        ended.put((number, error))


def _follow() -> None:
    """End this process once the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


def _end(processes: Sequence[Any]) -> None:
    """End processes, each with a checkpoint of its run if it has the time."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()
        process.join()


def standings(races: Sequence[Race], target: float | None) -> list[Standing]:
    """Return how each method did, the best one first.

    Those that reached the target come first, by evaluations for each time they did; the others by the
    median of their final values.
    """
    costs: dict[tuple[str, int], list[float]] = {}  # seconds and evaluations, where there is a note
    for note in _read(races[0].costs):
        cost = costs.setdefault((note["method"], note["seed"]), [0.0, 0])
        cost[0] += note["seconds"]
        cost[1] += note["evaluations"]
    found = []
    for method in dict.fromkeys(race.method for race in races):
        own = [race for race in races if race.method == method]
        results = [result for race in own if (result := race.result) is not None]
        known = [costs.get((method, race.seed), (0.0, 0)) for race in own]
        evaluations = sum(result["nfev"] for result in results)
        reached = sum(_value(result) <= target for result in results) if target is not None else 0
        speeds = [1e3 * seconds / evaluations for seconds, evaluations in known if evaluations]
        found.append(
            Standing(
                method,
                tuple(sorted(map(_value, results))),
                reached,
                evaluations,
                evaluations / reached if reached else math.inf,
                statistics.median(speeds) if speeds else None,
            )
        )
    return sorted(found, key=lambda one: (one.to_target, one.quantile(0.5)))


def _value(result: Mapping[str, Any]) -> float:
    """Return the value that counts: none that breaks a constraint."""
    value = result["fun"]
    return float(value) if value is not None and result["success"] else math.inf


def _append(path: Path, note: Mapping[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(note) + "\n")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
