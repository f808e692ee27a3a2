"""Methods beside each other on one task: each with each seed, every run an ordinary one.

In a directory, runs are in METHOD/seed-N. One that is finished is not made again, one that was interrupted
goes on. What a run cost is in a line of `costs.jsonl` beside them for each process that has worked on it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from federated.facade import Federation, federate
from federated.kind import telling_how_far
from federated.methods import find
from federated.network import Network
from federated.progress import Progress
from federated.setting import Setting, check_given, read_given, task_of
from zoo.core.errors import RunDirectoryError, ZooError
from zoo.core.rng import Key
from zoo.execution.executor import Executor, Serial
from zoo.facade import Interrupted
from zoo.kept import STATUS, plain
from zoo.loggers.csv import CSV
from zoo.run.directory import holds_run, read_config
from zoo.run.timings import Clock, whole_lines
from zoo.run.watching import Beginning, Watcher

_COSTS = "costs.jsonl"
_DONE = (STATUS["finished"], STATUS["target"])
_COUNTS = ("rounds", "queries", "up", "down")


@dataclass(frozen=True)
class Entrant:
    """A method that takes part.

    Attributes:
        label: What it is called, and the name of its directory: letters, digits, "_" and "-".
        method: Its name.
        options: Its options.

    Raises:
        ValueError: The label is no such name.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w-]*", self.label):
            raise ValueError(f"`label` must be letters, digits, _ and - alone, got {self.label!r}.")


class Race(NamedTuple):
    """A run to make: a method, a seed, and where it is kept, or None."""

    entrant: Entrant
    seed: int
    path: Path | None

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.entrant.label}, seed {self.seed}"


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        race: The run.
        value: F at the end.
        best: The least F there was after any round.
        rounds: Rounds done.
        queries: Queries of all clients, hidden ones too.
        hidden: Those that papers leave out of their count.
        up: Bytes that clients have sent.
        down: Bytes that the server has sent.
        clock: Virtual seconds.
        num_failed: Queries that had no finite value.
        success: Whether it ended as it was to.
        message: Why it ended.
        seconds: Time that processes have worked on it.
        cpu: Seconds of processors, of workers too; None where nobody knows, as of workers of Ray.
    """

    race: Race
    value: float
    best: float
    rounds: int
    queries: int
    hidden: int
    up: int
    down: int
    clock: float
    num_failed: int
    success: bool
    message: str
    seconds: float
    cpu: float | None

    @property
    def entries(self) -> dict[str, Any]:
        """What JSON says of it."""
        own = {name: value for name, value in vars(self).items() if name != "race"}
        where = None if self.race.path is None else str(self.race.path)
        return {"seed": self.race.seed, "directory": where, **own}


@dataclass(frozen=True)
class Standing:
    """How a method did.

    Attributes:
        entrant: The method.
        runs: Its runs, one for each seed.
    """

    entrant: Entrant
    runs: tuple[Ended, ...]

    def median(self, name: str) -> float:
        """Return the median over the seeds of one of the numbers of `Ended`, NaN if one is not known."""
        known = [getattr(run, name) for run in self.runs]
        return math.nan if any(value is None for value in known) else float(np.median(known))

    @property
    def best(self) -> float:
        """The least F at the end of any run."""
        return min((run.value for run in self.runs if math.isfinite(run.value)), default=math.nan)

    @property
    def entries(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {
            "label": self.entrant.label,
            "method": self.entrant.method,
            "options": dict(self.entrant.options),
            "median": self.median("value"),
            "best": self.best,
            **{name: self.median(name) for name in (*_COUNTS, "seconds", "cpu")},
            "runs": [run.entries for run in self.runs],
        }


@dataclass(frozen=True)
class Comparison:
    """What came of all runs.

    Attributes:
        standings: How each method did, the one with the least median of F first.
        task: Name of the task.
        seeds: The seeds.
        page: The page that compares them, None where nothing is kept.
    """

    standings: tuple[Standing, ...]
    task: str
    seeds: tuple[int, ...]
    page: Path | None

    @property
    def entries(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {
            "task": self.task,
            "seeds": list(self.seeds),
            "methods": [one.entries for one in self.standings],
            "report": None if self.page is None else str(self.page),
        }


@dataclass(frozen=True)
class Contest:
    """Runs to make.

    Args:
        entrants: The methods, of different labels.
        seeds: Seeds, each for a run of each method: of one seed, all have the same task, start and network.
        arguments: The other arguments of `federate` that say what a run is, `task` among them.
        workers: As in `federate`, for each run in turn.
        seconds: Likewise.
        out: Directory for all runs, or None.

    Raises:
        TypeError: An argument is of a type that it cannot be.
        ValueError: There is no method or seed, or one twice, or nothing would ever end a run.
    """

    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    arguments: Mapping[str, Any]
    workers: int | Executor = 1
    seconds: float | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        for name, given in (("method", [one.label for one in self.entrants]), ("seed", self.seeds)):
            if not given:
                raise ValueError(f"`{name}` must be given.")
            if twice := [one for number, one in enumerate(given) if one in given[:number]]:
                raise ValueError(f"`{name}` must not be given twice, got {twice[0]!r} again.")
        self._given(self.entrants[0])

    @property
    def races(self) -> list[Race]:
        """All runs: every method with the first seed, then with the next one."""
        return [
            Race(one, seed, None if self.out is None else self.out / one.label / f"seed-{seed}")
            for seed in self.seeds
            for one in self.entrants
        ]

    def run(self, callback: Sequence[Watcher] = ()) -> Comparison:
        """Make the runs that are not there yet, and say what came of all.

        Args:
            callback: Who watches, one run after another.

        Raises:
            RunDirectoryError: A directory holds something else; nothing is begun then.
            ValueError: A method cannot be run; nothing is begun then.
            ZooError: A run has failed; it is kept, as are those before it.
            Interrupted: SIGINT or SIGTERM, likewise.
        """
        self.check_directories()
        self.check()
        races, ended = self.races, []
        for number, race in enumerate(races, 1):
            of = f"{race.name} ({number} of {len(races)})"
            with _named(of), telling_how_far():
                kept = self._kept(race)
                ended.append(self._made(race, of, callback) if kept is None else self._read(race, kept))
        found = [
            Standing(one, tuple(run for run in ended if run.race.entrant is one)) for one in self.entrants
        ]
        ranked = tuple(sorted(found, key=lambda one: (math.isnan(one.median("value")), one.median("value"))))
        return Comparison(ranked, self._task, self.seeds, self._page(ended))

    def check(self) -> None:
        """Find out whether all of it can be run, before anything is.

        Raises:
            TypeError: An argument is of a type that it cannot be.
            ValueError: It has a value that it cannot have.
        """
        for one in self.entrants:
            with _named(one.label):
                find(one.method).build(one.options)
        key = Key(self.seeds[0])
        given = self._given(self.entrants[0])
        task = task_of(given, key)
        Network(**given["network"]).check(task.num_clients)
        for one in self.entrants:
            with _named(one.label):  # with this very task: to make one may take a while
                Setting.of({**self._given(one), "task": task, "task_options": {}}, key).job(Serial())

    def check_directories(self) -> None:
        """Find out whether what is there already are some of these runs.

        Raises:
            RunDirectoryError: A directory holds something else.
        """
        if self.out is not None and holds_run(self.out):
            raise RunDirectoryError(
                f"{self.out} holds a single run, and several are kept in METHOD/seed-N: choose another "
                "directory."
            )
        for race in self.races:
            self._kept(race)

    @property
    def _task(self) -> str:
        task = self.arguments["task"]
        return task if isinstance(task, str) else type(task).__name__

    def _given(self, entrant: Entrant) -> dict[str, Any]:
        """Return the arguments of a run as its setting has them."""
        own = {"method": entrant.method, "options": dict(entrant.options)}
        return check_given(self.seconds, **self.arguments, **own)

    def _kept(self, race: Race) -> dict[str, Any] | None:
        """Return the result of a run that is finished, None of any other.

        Raises:
            RunDirectoryError: Its directory holds another one.
        """
        path = race.path
        if path is None or not holds_run(path):
            return None
        config, theirs = read_config(path)[0], read_given(path)
        differ = [name for name, value in self._given(race.entrant).items() if plain(value) != theirs[name]]
        differ += ["seed"] if config["key"] != str(Key(race.seed)) else []
        if differ:
            raise RunDirectoryError(
                f"{path} holds another run: {', '.join(f'{name!r} differs' for name in differ)}. Choose "
                "another directory; an existing run is resumed or refused, never overwritten."
            )
        with contextlib.suppress(OSError, ValueError):
            result: dict[str, Any] = json.loads((path / "result.json").read_text())
            if result["status"] in _DONE:
                return result
        return None

    def _made(self, race: Race, name: str, callback: Sequence[Watcher]) -> Ended:
        """Make a run, or go on with it."""
        watch = _Watch()
        mine = [_for_race(one, race, name) for one in callback]
        given = {**self.arguments, "options": dict(race.entrant.options), "workers": self.workers}
        before = os.times()
        try:
            found = federate(
                **given,
                method=race.entrant.method,
                seconds=self.seconds,
                rng=race.seed,
                callback=[watch, *mine],
                out=race.path,
            )
        finally:
            after = os.times()
            workers = after.children_user + after.children_system
            workers -= before.children_user + before.children_system
            cpu = None if watch.is_elsewhere else watch.cpu + workers
            if race.path is not None and watch.rounds is not None:
                self._note(race, watch.rounds, cpu)
        if race.path is None:
            return _of_federation(race, found, cpu)
        return self._read(race, json.loads((race.path / "result.json").read_text()))

    def _note(self, race: Race, rounds: int, cpu: float | None) -> None:
        """Write down what rounds of a run have cost."""
        assert self.out is not None
        note = {"run": _key(race), "rounds": rounds, "cpu": cpu}
        with open(self.out / _COSTS, "a") as file:
            file.write(json.dumps(note) + "\n")

    def _read(self, race: Race, result: Mapping[str, Any]) -> Ended:
        """Return how a run ended that is kept."""
        assert self.out is not None
        assert race.path is not None
        clock = Clock()
        for lines in whole_lines(race.path / "timings.jsonl"):
            clock.read(lines)
        notes = [note for note in _notes(self.out / _COSTS) if note["run"] == _key(race)]
        costs = [note["cpu"] for note in notes]
        # What a process has done that was killed is in no note.
        is_known = sum(note["rounds"] for note in notes) == result["nit"] and None not in costs
        cpu = math.fsum(costs) if is_known else None
        numbers = {name: math.nan if result[name] is None else result[name] for name in ("fun", "fun_best")}
        return Ended(
            race,
            value=numbers["fun"],
            best=numbers["fun_best"],
            rounds=result["nit"],
            queries=result["nfev"],
            **{name: result[name] for name in ("hidden", "up", "down", "clock", "num_failed")},
            success=result["success"],
            message=result["message"],
            seconds=clock.total,
            cpu=cpu,
        )

    def _page(self, ended: Sequence[Ended]) -> Path | None:
        """Write the page that compares all runs."""
        if self.out is None:
            return None
        from federated.report.comparison import write_comparison

        kept = {one.race.path: one for one in ended if one.race.path is not None}
        labels = {path: one.race.entrant.label for path, one in kept.items()}
        cpu = {path: one.cpu for path, one in kept.items() if one.cpu is not None}
        return write_comparison(list(kept), self.out, labels=labels, cpu=cpu)


class _Watch(Watcher):
    """Takes the processor's time of a run in this process, and counts its rounds."""

    def __init__(self) -> None:
        self.rounds: int | None = None  # until it has ended, in whatever way
        self.cpu, self.is_elsewhere = 0.0, False

    def begin(self, run: Beginning) -> None:
        self.is_elsewhere = run.execution.get("executor") == "Ray"
        self._first, self._began = run.state.step, time.process_time()

    def end(self, outcome: Any) -> None:
        self.cpu = time.process_time() - self._began
        if outcome is not None:
            self.rounds = outcome.state.step - self._first


def _key(race: Race) -> str:
    """Return what notes call a run."""
    return f"{race.entrant.label}/seed-{race.seed}"


def _of_federation(race: Race, found: Federation, cpu: float | None) -> Ended:
    names = [one.name for one in fields(Ended) if one.name not in ("race", "cpu")]
    return Ended(race, **{name: getattr(found, name) for name in names}, cpu=cpu)


def _for_race(watcher: Watcher, race: Race, name: str) -> Watcher:
    """Return who is to watch a run, of those who watch all."""
    if isinstance(watcher, Progress):
        watcher.of = name
    if isinstance(watcher, CSV):  # one table for each
        if race.path is not None:
            return CSV(race.path / watcher.path.name)
        return CSV(watcher.path.with_stem(f"{watcher.path.stem}-{race.entrant.label}-{race.seed}"))
    return watcher


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of an error, or of an interruption, in which run it was."""
    try:
        yield
    except Interrupted as error:
        error.so_far = f"in {name}, {error.so_far}"
        raise
    except RunDirectoryError:
        raise  # which says its place
    except (ValueError, TypeError, ZooError) as error:
        error.args = (f"{name}: {error.args[0]}", *error.args[1:]) if error.args else (name,)
        raise


def _notes(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
