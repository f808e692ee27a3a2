"""What the commands of `zoo` ask of a run of this package, by the entry point group `gradfree.kinds`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.run.kinds import Kind, Wording, Written
from zoo.run.watching import Watcher

if TYPE_CHECKING:  # numpy with it, which a help page is not to wait for
    from zoo.run.reading import Recording

FAULTS = ("absent", "late", "stale", "duplicates", "invalid", "void")
"""Counters of what goes wrong on the network, by the names that they have in logs."""


class FederatedKind(Kind):
    """Runs of `federated.federate`."""

    wording = Wording(
        value="F",
        evaluations="queries",
        names={"nfev": "queries", "fun": "value"},
        values="F",
        lines={"worst": "worst client", "value": "F"},
        quiet=frozenset({"hidden", "gradients", "clock", *FAULTS}),
    )

    def title(self, config: Mapping[str, Any]) -> str:
        return f"{task_name(config)}, {config.get('num_clients')} clients, {config.get('dim')} variables"

    def subject(self, config: Mapping[str, Any]) -> str:
        return task_name(config)

    def task(self, config: Mapping[str, Any]) -> Any:
        # Of a task with a name, what follows from the seed, such as its data, is not what it is.
        named = isinstance(config.get("task"), str)
        names = ("task", "task_options", "task_seed", "num_clients", "dim", "like")
        return [*map(config.get, names), None if named else config.get("objective")]

    def options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(config.get("network"))

    def entries(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        names = {"fun": "value", "fun_best": "best", "nit": "rounds", "nfev": "queries"}
        return {names.get(name, name): value for name, value in found.items()}

    def target(self, config: Mapping[str, Any]) -> float | None:
        target = config.get("target")
        return None if target is None else float(target)

    def read(self, document: Any, path: Path) -> Written:
        from federated.experiment_file import read

        return read(document, path)

    def resume(self, path: Path, *, workers: Any, seconds: float | None, callback: Any) -> Any:
        from federated.facade import resume

        with telling_how_far():
            return resume(path, workers=workers, seconds=seconds, callback=callback)

    def progress(self, mode: str) -> Watcher:
        from federated.progress import Progress

        return Progress(mode)

    def print_result(self, result: Any, *, as_json: bool, out: Path | str | None, shown: bool) -> None:
        from federated.cli.results import print_result

        print_result(result, as_json=as_json, out=out, shown=shown)

    def about(self, recording: Recording) -> Any:
        from federated.report.about import about

        return about(recording)

    def sections(self, recording: Recording) -> Sequence[tuple[str, Sequence[Any], str]]:
        from federated.report.sections import sections

        return sections(recording)


def task_name(config: Mapping[str, Any]) -> str:
    """Return what a task is called."""
    task = config.get("task")
    return str(task.get("given", "a task")) if isinstance(task, Mapping) else str(task)


def changed(network: Any) -> dict[str, Any]:
    """Return the arguments of a network, as `config.json` has them, that are not the default ones."""
    from federated.network import Network

    default = dataclasses.asdict(Network())
    default["slow"] = []
    given = network if isinstance(network, Mapping) else {}
    return {str(name): value for name, value in given.items() if value != default.get(name)}


@contextlib.contextmanager
def telling_how_far() -> Iterator[None]:
    """Have an interruption say how far the run came."""
    from zoo.facade import Interrupted

    try:
        yield
    except Interrupted as error:
        if error.so_far is not None:
            raise  # by who was nearer
        result: Any = error.result
        plural = "" if result.rounds == 1 else "s"
        error.so_far = f"after {result.rounds:,} round{plural} and {result.queries:,} queries"
        if math.isfinite(result.value):
            error.so_far += f", F being {result.value:.6g}"
        raise


KIND = FederatedKind()
"""The one there is."""
