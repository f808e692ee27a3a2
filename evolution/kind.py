"""What the commands of `zoo` ask of a run of this package, by the entry point group `gradfree.kinds`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.run.kinds import Kind, Wording, Written
from zoo.run.watching import Watcher

if TYPE_CHECKING:  # numpy with it, which a help page is not to wait for
    from zoo.run.reading import Recording


class EvolutionKind(Kind):
    """Runs of `evolution.evolve`."""

    wording = Wording(
        value="score",
        evaluations="episodes",
        sign=-1,
        names={"nfev": "episodes", "value": "highest", "fun": "score"},
        negated=frozenset({"best", "value", "median", "elite", "best_elite", "recommended", "fun"}),
    )

    def title(self, config: Mapping[str, Any]) -> str:
        from evolution.report.about import environment_name

        attributes = _attributes(config)
        policy = attributes.get("policy") or {}
        what = policy.get("name", "a policy") if isinstance(policy, Mapping) else policy
        steps = config.get("max_steps")
        limit = "" if steps is None else f" for {steps} steps"
        return f"{environment_name(config)}{limit}, {what} of {config.get('dim')} parameters"

    def task(self, config: Mapping[str, Any]) -> Any:
        attributes = _attributes(config)
        told = [config.get(name) for name in ("environment", "environment_options", "max_steps", "dim")]
        return [*told, attributes.get("environment"), attributes.get("policy")]

    def options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        names = ("episodes", "common", "normalize", "noise_table")
        return {
            **{name: config.get(name) for name in names},
            "behaviour": _attributes(config).get("behaviour"),
        }

    def target(self, config: Mapping[str, Any]) -> float | None:
        score = config.get("score")
        return None if score is None else -float(score)

    def read(self, document: Any, path: Path) -> Written:
        from evolution.experiment_file import read

        return read(document, path)

    def resume(self, path: Path, *, workers: Any, seconds: float | None, callback: Any) -> Any:
        from evolution.facade import resume

        with telling_how_far():
            return resume(path, workers=workers, seconds=seconds, callback=callback)

    def progress(self, mode: str) -> Watcher:
        from evolution.progress import Progress

        return Progress(mode)

    def print_result(self, result: Any, *, as_json: bool, out: Path | str | None, shown: bool) -> None:
        from evolution.cli.results import print_result

        print_result(result, as_json=as_json, out=out, shown=shown)

    def about(self, recording: Recording) -> Any:
        from evolution.report.about import about

        return about(recording)

    def sections(self, recording: Recording) -> Sequence[tuple[str, Sequence[Any], str]]:
        from evolution.report.sections import sections

        return sections(recording)


def _attributes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (config.get("objective") or {}).get("attributes")
    return found if isinstance(found, Mapping) else {}


@contextlib.contextmanager
def telling_how_far() -> Iterator[None]:
    """Have an interruption say how far the run came."""
    from zoo.facade import Interrupted

    try:
        yield
    except Interrupted as error:
        result: Any = error.result
        error.so_far = f"after {result.episodes:,} episodes"
        if math.isfinite(result.best):
            error.so_far += f", the best score being {result.best:.6g}"
        raise


KIND = EvolutionKind()
"""The one there is."""
