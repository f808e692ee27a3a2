"""Experiments as files: TOML tables of the kind "federated" that become the arguments of `federate`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from zoo.experiment_file import lines, values
from zoo.experiment_file.checks import of_execution, of_folders, of_limits, of_method_name, of_options
from zoo.experiment_file.experiment import folders_of, refusal, toml_of, without
from zoo.experiment_file.imports import make_importable
from zoo.experiment_file.reading import Document
from zoo.experiment_file.sentences import Finding, Scheme, findings
from zoo.experiment_file.tables import (
    AnyJob,
    Count,
    Finite,
    Must,
    Seconds,
    Table,
    Text,
    Texts,
    Whole,
    Workers,
    Wrong,
    choice,
)
from zoo.run.kinds import Kind, Written
from zoo.run.watching import Watcher

if TYPE_CHECKING:
    from federated.contest import Contest


def _share(value: Any) -> float:
    # 10 is a number of clients, and 1.0 is all of them: an integer is to stay one.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong
    if value < 1 if isinstance(value, int) else not 0 < value <= 1:
        raise Wrong
    return value


def _pairs(value: Any) -> list[list[float]]:
    if not isinstance(value, list):
        raise Wrong
    for number, pair in enumerate(value):
        numbers = isinstance(pair, list) and all(
            isinstance(one, (int, float)) and not isinstance(one, bool) for one in pair
        )
        if not numbers or len(pair) != 2:
            raise Wrong(number, words="a pair [client, factor]")
    return value


Share = Annotated[Any, Must("a share above 0 and at most 1.0, or a number of clients of at least 1", _share)]
Chance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Must("a probability, from 0 to 1")]
AtLeastNone = Annotated[float, Field(ge=0, allow_inf_nan=False), Must("a number of at least 0")]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False), Must("a number above 0")]


Seeds = Annotated[list[Whole], Field(min_length=1), Must("a list of whole numbers of at least 0")]


class Job(AnyJob):
    """What kind of run it is, and where it is kept."""

    kind: Annotated[str, choice("federated")] = Field(description="What is done.")
    seeds: Seeds | None = Field(
        default=None,
        description="Instead of `seed`: a run of each method with each of these, in `out`/METHOD/seed-N.",
        json_schema_extra={"absent": "one run; [1] where there are [[methods]]"},
    )


class Task(Table):
    """What clients have."""

    name: Text = Field(
        description='One of the tasks that `zoo federate --list` lists, or "module:name" of your own.'
    )
    path: Texts | None = Field(
        default=None,
        description="Folders in which modules are looked for first, relative to the file.",
        json_schema_extra={"absent": "those of the file and of what it includes"},
    )
    seed: Whole | None = Field(
        default=None,
        description="Seed of the task's own randomness, such as its data's and its start's.",
        json_schema_extra={"absent": "it follows from that of the run"},
    )
    options: dict[str, Any] = Field(
        default={}, description="Options of that task: `zoo federate --list --task NAME` lists them."
    )


class Method(Table):
    """How it is done."""

    name: Text = Field(default="fzoos", description="One of the methods that `zoo federate --list` lists.")
    options: dict[str, Any] = Field(
        default={}, description="Options of that method: `zoo federate --list --method NAME` lists them."
    )


class Entrant(Table):
    """One of several methods that are compared: a table `[[methods]]` for each."""

    name: Text = Field(description="One of the methods that `zoo federate --list` lists.")
    label: Text | None = Field(
        default=None,
        description="What it is called, and its directory.",
        json_schema_extra={"absent": "its name"},
    )
    options: dict[str, Any] = Field(default={}, description="Options of that method.")


class Network(Table):
    """How clients are reached, on a virtual clock: see `federated.Network`."""

    participation: Share = Field(
        default=1.0, description="Share of the clients that are asked in a round, or their number."
    )
    dropout: Chance = Field(default=0.0, description="Probability that a client vanishes in a round.")
    latency: AtLeastNone = Field(default=0.0, description="Median seconds of a client's reply.")
    spread: AtLeastNone = Field(
        default=0.0, description="How much clients differ in speed, as the deviation of its logarithm."
    )
    jitter: AtLeastNone = Field(default=0.0, description="How much trips of one client differ, likewise.")
    slow: Annotated[list[Any], Must("a list of pairs [client, factor]", _pairs)] = Field(
        default=[], description="Clients that take so many times as long."
    )
    seconds_per_query: AtLeastNone = Field(default=0.0, description="Of a client of ordinary speed.")
    bandwidth: Above | None = Field(
        default=None,
        description="Bytes a second, in both directions together.",
        json_schema_extra={"absent": "no limit"},
    )
    deadline: Seconds | None = Field(
        default=None, description="After this, nobody is waited for.", json_schema_extra={"absent": "none"}
    )
    wait_for: Share | None = Field(
        default=None,
        description="Share of the asked clients, or their number, whose answers are waited for.",
        json_schema_extra={"absent": "all"},
    )
    min_replies: Count = Field(default=1, description="With fewer answers, a round changes nothing.")
    duplicates: Chance = Field(default=0.0, description="Probability that a reply arrives twice.")


class Execution(Workers):
    """Where clients live: neither where that is nor by how many workers changes a result."""

    on_error: Annotated[str, choice("raise", "nan")] = Field(
        default="raise",
        description="What an exception of a client's function does after one retry: end the run, or be a "
        'failed query ("nan").',
    )


class Stop(Table):
    """When it ends."""

    rounds: Count | None = Field(
        default=None, description="Rounds at most.", json_schema_extra={"absent": "any number"}
    )
    budget: Count | None = Field(
        default=None,
        description="Queries at most, of all clients together: no round is begun that may exceed it.",
        json_schema_extra={"absent": "any number"},
    )
    traffic: Count | None = Field(
        default=None,
        description="Bytes, up and down, after which no further round is begun.",
        json_schema_extra={"absent": "any number"},
    )
    target: Finite | None = Field(
        default=None,
        description="It ends as soon as F is this or less.",
        json_schema_extra={"absent": "none"},
    )
    seconds: Seconds | None = Field(
        default=None,
        description="A run ends after the first round that is done later than this.",
        json_schema_extra={"absent": "none"},
    )
    measure_every: Whole = Field(
        default=1, description="Rounds from one look at F to the next; 0 for one at the end."
    )


class Tables(Table):
    """A whole experiment file."""

    job: Job
    task: Task
    method: Method = Method()
    methods: Annotated[list[Entrant], Field(min_length=1)] | None = None
    network: Network = Network()
    execution: Execution = Execution()
    stop: Stop = Stop()


_SCHEME: Scheme = {
    (): Tables,
    ("job",): Job,
    ("task",): Task,
    ("method",): Method,
    ("methods",): Entrant,
    ("network",): Network,
    ("execution",): Execution,
    ("stop",): Stop,
}
_LIMITS = ("rounds", "budget", "traffic", "seconds")


@dataclass(frozen=True)
class FederatedFile(Written):
    """What an experiment file says.

    Attributes:
        path: The file.
        tables: Its tables, with what included files and overrides say.
        folders: Where its modules are looked for first.
    """

    path: Path
    tables: Tables
    folders: tuple[Path, ...]

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """Of which kind it is."""
        from federated.kind import KIND

        return KIND

    @property
    def out(self) -> str:
        return self.tables.job.out or os.path.join("runs", self.path.stem)

    @property
    def log(self) -> Sequence[str]:
        return tuple(self.tables.job.log)

    @property
    def is_single(self) -> bool:
        """Whether it is one run, and not several that are compared."""
        return self.tables.methods is None and self.tables.job.seeds is None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `federated.federate`, without the method's where there are several."""
        said = self.tables
        method = {"method": said.method.name, "options": dict(said.method.options)}
        more = {**method, "rng": said.job.seed, "out": self.out, "seconds": said.stop.seconds}
        return {
            **given(said),
            "workers": values.executor(said.execution),
            **(more if self.is_single else {}),
        }

    def contest(self) -> Contest:
        """Return the runs that it describes, as if they were several, with seed 1 where nobody says it."""
        from federated.contest import Contest
        from federated.contest import Entrant as One
        from federated.methods import label_of

        said: Sequence[Method | Entrant] = self.tables.methods or [self.tables.method]
        entrants = tuple(
            One(getattr(one, "label", None) or label_of(one.name), one.name, dict(one.options))
            for one in said
        )
        seconds, workers = self.tables.stop.seconds, values.executor(self.tables.execution)
        return Contest(entrants, self._seeds, given(self.tables), workers, seconds, Path(self.out))

    @property
    def _seeds(self) -> tuple[int, ...]:
        job = self.tables.job
        return tuple(job.seeds if job.seeds is not None else [1 if job.seed is None else job.seed])

    def run(self, callback: Sequence[Watcher]) -> Any:
        from federated.facade import federate
        from federated.kind import telling_how_far

        with telling_how_far():
            if self.is_single:
                return federate(**self.arguments(), callback=list(callback))
            return self.contest().run(callback)

    def toml(self) -> str:
        from federated.methods import find

        said = self.tables
        folders = {"path": [str(folder) for folder in self.folders]}
        seeds = {} if self.is_single else {"seed": None, "seeds": list(self._seeds)}
        updates: dict[str, dict[str, Any]] = {
            "job": {"out": self.out, **seeds},
            "task": folders,
            "execution": {"backend": values.backend(said.execution)},
        }
        whole = said.model_copy(
            update={name: getattr(said, name).model_copy(update=update) for name, update in updates.items()}
        )
        content = whole.model_dump(exclude_none=True)
        options: dict[str, Any] = {"task": _task_options(said.task.name)}
        if said.methods is None:
            options["method"] = find(said.method.name).options()
        else:
            del content["method"]
            options["methods"] = [find(one.name).options() for one in said.methods]
        return toml_of(content, Tables, options, moot=("address", *(() if self.is_single else ("seed",))))


def given(said: Tables) -> dict[str, Any]:
    """Return the arguments of `federated.federate` that say what a run is, but for its method."""
    return {
        "task": said.task.name,
        "task_options": dict(said.task.options),
        "task_seed": said.task.seed,
        "network": said.network.model_dump(),
        "rounds": said.stop.rounds,
        "budget": said.stop.budget,
        "traffic": said.stop.traffic,
        "target": said.stop.target,
        "measure_every": said.stop.measure_every,
        "on_error": said.execution.on_error,
    }


def read(document: Document, path: Path) -> FederatedFile:
    """Return what an experiment file says, once it was found that it can be run.

    Args:
        document: What it says.
        path: The file.

    Raises:
        ExperimentFileError: Something is wrong with it: all that is found is said at once.
    """
    wrong: list[Finding] = []
    data = document.data
    if "task" not in data:
        wrong.append(Finding((), '[task] must be there, with the name of one, as in name = "quadratic".'))
        data = {**data, "task": {"name": "quadratic"}}  # so that the rest can be looked at
    try:
        tables = Tables.model_validate(data)
    except ValidationError as error:
        found = [_worded(one) for one in findings(error, _SCHEME)]
        wrong, left = wrong + found, without(found, data)
        try:
            tables = Tables.model_validate(left)
        except ValidationError:  # what has no default is missing, or is what was wrong
            raise refusal(document, wrong) from None
    folders = folders_of(document, ("task", "path"), tables.task.path)
    wrong += of_folders("task", tables.task.path, folders)
    make_importable(folders)
    lost = {finding.path[:length] for finding in wrong for length in (1, 2, 3)}
    wrong += _of_job(tables)
    wrong += _of_methods(tables, data, lost)
    wrong += of_execution(tables.execution) if ("execution", "backend") not in lost else ()
    wrong += of_limits(tables.stop, _LIMITS, document) if ("stop",) not in lost else ()
    read = FederatedFile(path, tables, tuple(folders))
    if not wrong:
        wrong += _of_setting(read)
    if wrong:
        raise refusal(document, wrong)
    return read


def _worded(finding: Finding) -> Finding:
    """Return a finding in words that say what can be done."""
    if finding.path == ("methods",):
        return finding._replace(message="the methods that are compared must be tables [[methods]], one each.")
    if finding.path == ("stop", "queries"):
        return finding._replace(message="unknown key `queries` in [stop]: they are counted by `budget`.")
    if finding.path == ("task", "num_clients") or finding.path == ("task", "clients"):
        key = finding.path[-1]
        message = f"unknown key `{key}` in [task]. It is an option: [task.options] with num_clients = 5."
        return finding._replace(message=message)
    return finding


def _of_job(said: Tables) -> list[Finding]:
    """Return what is wrong with the seeds."""
    seeds = said.job.seeds
    if seeds is None:
        return []
    if said.job.seed is not None:
        return [Finding(("job", "seeds"), "`seeds` cannot be given along with `seed`: drop one.")]
    return [
        Finding(("job", "seeds", number), f"`seeds[{number}]` must not be given twice, got {seed} again.")
        for number, seed in enumerate(seeds)
        if seed in seeds[:number]
    ]


def _of_methods(said: Tables, data: dict[str, Any], lost: set[lines.Path]) -> list[Finding]:
    """Return what is wrong with methods and their options."""
    from federated.methods import find, label_of, list_methods

    if "methods" in data and "method" in data:
        return [Finding(("methods",), "[[methods]] cannot be given along with [method]: drop one.")]
    several: list[tuple[lines.Path, Method | Entrant]] = [(("method",), said.method)]
    if said.methods is not None:
        several = [(("methods", number), one) for number, one in enumerate(said.methods)]
    found: list[Finding] = []
    labels: list[str] = []
    for path, one in several:
        if (*path, "name") in lost or (*path, "options") in lost:
            continue
        if one.name not in list_methods() and ":" not in one.name:
            found.append(of_method_name(one.name, list_methods(), path))
            continue
        try:
            find(one.name)
        except (TypeError, ValueError) as error:  # "module:name"
            found.append(Finding((*path, "name"), str(error)))
            continue
        found += of_options(find(one.name), one.options, path)
        if path in lost:  # the label may be what is wrong
            continue
        label = getattr(one, "label", None)
        key = "name" if label is None else "label"
        label = label_of(one.name) if label is None else label
        if not re.fullmatch(r"\w[\w-]*", label):
            message = f"`{key}` must be letters, digits, _ and - alone, got {label!r}."
            found.append(Finding((*path, key), message))
        elif label in labels:
            message = f"`{key}` must be another one, got {label!r} again: a `label` tells methods apart."
            found.append(Finding((*path, key), message))
        labels.append(label)
    return found


def _of_setting(said: FederatedFile) -> list[Finding]:
    """Return what is wrong with task and network, or with how they go with the methods."""
    try:
        said.contest().check()
    except (TypeError, ValueError, ImportError) as error:
        return [_finding_of(str(error), said.tables)]
    except Exception as error:  # of a task of the user
        return [Finding(("task", "name"), f"`name`: {type(error).__name__}: {error}")]
    return []


def _finding_of(message: str, said: Tables) -> Finding:
    """Return an error of an argument as one of the key that says it."""
    names = re.findall(r"[`'](\w+)", message)
    for name in names:
        if name in said.task.options:
            return Finding(("task", "options", name), message)
        for table in ("network", "stop"):
            if name in type(getattr(said, table)).model_fields:
                return Finding((table, name), message)
        if name == "method":
            label = message.partition(":")[0]
            for number, one in enumerate(said.methods or ()):
                if label in (one.label, one.name):
                    return Finding(("methods", number), message)
            return Finding(("method",), message)
    return Finding(("task", "options") if "option" in message else ("task", "name"), message)


def _task_options(name: str) -> dict[str, Any]:
    """Return the options of a task with their defaults; nothing of one that needs none."""
    from federated.cli.listing import options_of_task

    return {
        option: default
        for option, default in (options_of_task(name) or {}).items()
        if isinstance(default, (bool, int, float, str, tuple, list))
    }
