"""Experiments as files: TOML tables of the kind "evolution" that become the arguments of `evolve`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from zoo.core.rng import Key
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
    Flag,
    Seconds,
    Table,
    Text,
    Texts,
    Whole,
    Workers,
    choice,
)
from zoo.run.kinds import Kind, Written
from zoo.run.watching import Watcher


class Job(AnyJob):
    """What kind of run it is, and where it is kept."""

    kind: Annotated[str, choice("evolution")] = Field(description="What is done.")


class Environment(Table):
    """Where policies act."""

    name: Text = Field(
        description='An id of Gymnasium such as "CartPole-v1" or "ALE/Frostbite-v5"; "maze"; "cart-pole"; or '
        '"module:name" of your own.'
    )
    path: Texts | None = Field(
        default=None,
        description="Folders in which modules are looked for first, relative to the file.",
        json_schema_extra={"absent": "those of the file and of what it includes"},
    )
    max_steps: Count | None = Field(
        default=None,
        description="Steps after which an episode is over, if it is not before.",
        json_schema_extra={"absent": "as the environment says"},
    )
    behaviour: Text | None = Field(
        default=None,
        description='What novelty is measured in: "position", "observation", "ram" or "module:name".',
        json_schema_extra={"absent": "the environment's first one, for methods that need one"},
    )
    options: dict[str, Any] = Field(default={}, description="Arguments of the environment.")


class Policy(Table):
    """What acts."""

    name: Text | None = Field(
        default=None,
        description='"mlp", "recurrent", "atari-large", "atari-nature", "atari-small", or "module:name" of a '
        "torch module or of what makes one.",
        json_schema_extra={"absent": '"mlp", or "atari-large" where observations are pictures'},
    )
    normalize: Flag = Field(
        default=False, description="Whether observations are normalized by the moments of earlier ones."
    )
    options: dict[str, Any] = Field(default={}, description="Arguments of the policy.")


class Method(Table):
    """How policies are looked for."""

    name: Text = Field(default="deep-ga", description="One of the methods that `zoo evolve --list` lists.")
    episodes: Count = Field(default=1, description="Episodes that each member is tried in.")
    common: Flag = Field(
        default=True, description="Whether all members of a generation meet the same episodes."
    )
    noise_table: Whole | None = Field(
        default=None,
        description="Numbers of the table that mutations are read from; 0 to draw them anew.",
        json_schema_extra={"absent": "a power of two that holds sixteen policies, from 2^20 to 2^26"},
    )
    options: dict[str, Any] = Field(
        default={}, description="Options of that method: `zoo evolve --list --method NAME` lists them."
    )


class Execution(Workers):
    """Who plays the episodes: neither where that is nor by how many workers changes a result."""

    on_error: Annotated[str, choice("raise", "nan")] = Field(
        default="raise",
        description="What an exception of the environment does after one retry: end the run, or be a failed "
        'episode ("nan").',
    )


class Stop(Table):
    """When it ends."""

    generations: Count | None = Field(
        default=None, description="Generations at most.", json_schema_extra={"absent": "any number"}
    )
    budget: Count | None = Field(
        default=None,
        description="Episodes at most, those of re-evaluations among them.",
        json_schema_extra={"absent": "any number"},
    )
    frames: Count | None = Field(
        default=None,
        description="Frames after which no further generation is begun.",
        json_schema_extra={"absent": "any number"},
    )
    score: Finite | None = Field(
        default=None,
        description="It ends as soon as the best member has this mean return by re-evaluation.",
        json_schema_extra={"absent": "none"},
    )
    seconds: Seconds | None = Field(
        default=None,
        description="It ends after the first step that is done later than this.",
        json_schema_extra={"absent": "none"},
    )
    test_episodes: Whole = Field(
        default=30, description="Fresh episodes of the champion at the end, on top of these; 0 for none."
    )


class Tables(Table):
    """A whole experiment file."""

    job: Job
    environment: Environment
    policy: Policy = Policy()
    method: Method = Method()
    execution: Execution = Execution()
    stop: Stop = Stop()


_SCHEME: Scheme = {
    (): Tables,
    ("job",): Job,
    ("environment",): Environment,
    ("policy",): Policy,
    ("method",): Method,
    ("execution",): Execution,
    ("stop",): Stop,
}
# Where arguments of `evolve` that errors name are said here.
_PLACES: dict[str, lines.Path] = {
    "environment": ("environment", "name"),
    "env": ("environment", "name"),
    "max_steps": ("environment", "max_steps"),
    "behaviour": ("environment", "behaviour"),
    "policy": ("policy", "name"),
    "policy_options": ("policy", "options"),
    "normalize": ("policy", "normalize"),
    "normalized": ("policy", "normalize"),
    "episodes": ("method", "episodes"),
    "noise_table": ("method", "noise_table"),
    "noise": ("method", "noise_table"),
    "budget": ("stop", "budget"),
}
_LIMITS = ("generations", "budget", "frames", "seconds")


@dataclass(frozen=True)
class EvolutionFile(Written):
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
        from evolution.kind import KIND

        return KIND

    @property
    def out(self) -> str:
        return self.tables.job.out or os.path.join("runs", self.path.stem)

    @property
    def log(self) -> Sequence[str]:
        return tuple(self.tables.job.log)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `evolution.evolve`."""
        return {
            **given(self.tables),
            "seconds": self.tables.stop.seconds,
            "rng": self.tables.job.seed,
            "workers": values.executor(self.tables.execution),
            "out": self.out,
        }

    def run(self, callback: Sequence[Watcher]) -> Any:
        from evolution.facade import evolve

        arguments = self.arguments()
        return evolve(arguments.pop("environment"), **arguments, callback=callback)

    def toml(self) -> str:
        from evolution.methods import find

        said = self.tables
        folders = {"path": [str(folder) for folder in self.folders]}
        updates: dict[str, dict[str, Any]] = {
            "job": {"out": self.out},
            "environment": folders,
            "execution": {"backend": values.backend(said.execution)},
        }
        tables = {
            name: getattr(said, name).model_copy(update=updates.get(name, {})) for name in Tables.model_fields
        }
        content = Tables(**tables).model_dump(exclude_none=True)
        options = {"method": find(said.method.name).options()}
        return toml_of(content, Tables, options, moot=("address",))


def read(document: Document, path: Path) -> EvolutionFile:
    """Return what an experiment file says, once it was found that it can be run.

    Args:
        document: What it says.
        path: The file.

    Raises:
        ExperimentFileError: Something is wrong with it: all that is found is said at once.
    """
    wrong: list[Finding] = []
    data = document.data
    if "environment" not in data:
        message = '[environment] must be there, with the name of one, as in name = "CartPole-v1".'
        wrong.append(Finding((), message))
        data = {**data, "environment": {"name": "cart-pole"}}  # so that the rest can be looked at
    try:
        tables = Tables.model_validate(data)
    except ValidationError as error:
        found = [_worded(one) for one in findings(error, _SCHEME)]
        wrong, left = wrong + found, without(found, data)
        try:
            tables = Tables.model_validate(left)
        except ValidationError:  # what has no default is missing, or is what was wrong
            raise refusal(document, wrong) from None
    folders = folders_of(document, ("environment", "path"), tables.environment.path)
    wrong += of_folders("environment", tables.environment.path, folders)
    make_importable(folders)
    lost = {finding.path[:2] for finding in wrong}
    wrong += _of_method(tables.method) if not lost & {("method", "name"), ("method", "options")} else ()
    wrong += of_execution(tables.execution) if ("execution", "backend") not in lost else ()
    wrong += (
        of_limits(tables.stop, _LIMITS, document) if not any(path[:1] == ("stop",) for path in lost) else ()
    )
    if not wrong:
        wrong += _of_setting(tables)
    if wrong:
        raise refusal(document, wrong)
    return EvolutionFile(path, tables, tuple(folders))


def _worded(finding: Finding) -> Finding:
    """Return a finding, of a key that stands elsewhere for something else with what stands for it here."""
    if finding.path != ("stop", "episodes"):
        return finding
    return finding._replace(message="unknown key `episodes` in [stop]: they are counted by `budget`.")


def given(said: Tables) -> dict[str, Any]:
    """Return the arguments of `evolution.evolve` that say what the run is."""
    return {
        "environment": said.environment.name,
        "environment_options": dict(said.environment.options),
        "method": said.method.name,
        "options": dict(said.method.options),
        "policy": said.policy.name,
        "policy_options": dict(said.policy.options),
        "episodes": said.method.episodes,
        "max_steps": said.environment.max_steps,
        "behaviour": said.environment.behaviour,
        "normalize": said.policy.normalize,
        "common": said.method.common,
        "generations": said.stop.generations,
        "budget": said.stop.budget,
        "frames": said.stop.frames,
        "score": said.stop.score,
        "test_episodes": said.stop.test_episodes,
        "noise_table": said.method.noise_table,
        "on_error": said.execution.on_error,
    }


def _of_method(said: Method) -> list[Finding]:
    """Return what is wrong with the method and its options."""
    from evolution.methods import find, list_methods

    if said.name not in list_methods():
        return [of_method_name(said.name, list_methods())]
    return of_options(find(said.name), said.options)


def _of_setting(said: Tables) -> list[Finding]:
    """Return what is wrong with environment and policy, or with how they go together."""
    from evolution.setting import Setting

    try:
        Setting.of({**given(said), "start": None}, Key(0))
    except (TypeError, ValueError, ImportError) as error:
        return [_finding_of(error, said)]
    except Exception as error:  # of an environment or a policy of the user
        return [Finding(("environment", "name"), f"`name`: {type(error).__name__}: {error}")]
    return []


def _finding_of(error: Exception, said: Tables) -> Finding:
    """Return an error of an argument as one of the key that says it."""
    message = str(error)
    for name in re.findall(r"[`'](\w+)", message):
        for table in ("policy", "environment"):
            if name in getattr(said, table).options:
                return Finding((table, "options", name), message)
        if name in _PLACES:
            *_, key = _PLACES[name]
            return Finding(_PLACES[name], message.replace(f"`{name}`", f"`{key}`"))
    place = ("policy", "options") if "of the policy" in message else ("environment", "name")
    return Finding(place, message)
