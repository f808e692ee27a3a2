"""Who may watch a run: displays and loggers. One that fails does not change it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.core.errors import ZooWarning

if TYPE_CHECKING:
    from zoo.run.job import Job
    from zoo.run.loop import Run, Stop


OWN_METRICS = ("step", "nfev", "best", "value", "median", "failed", "violation", "x")
"""Names in a step's metrics that no method may give to a diagnostic."""


class Beginning(NamedTuple):
    """What there is to know as a run begins, or goes on.

    Attributes:
        config: What the run is, as `config.json` holds it: "method", "options", "dim", "budget", ...
        execution: Who evaluates it, as `meta.json` holds it: "executor", "num_workers", ...
        job: What is done; its `account` says at any time what went wrong so far.
        state: Where it begins: `state.step` and `state.nfev` are not 0 where it goes on.
        stop: When it is to end before its time.
        path: Directory it is kept in, or None.
    """

    config: Mapping[str, Any]
    execution: Mapping[str, Any]
    job: Job[Any]
    state: Any
    stop: Stop
    path: Path | None


class Watcher:
    """Watches a run: give one, or several, as `callback`.

    Override what is needed. The methods are called in the process and thread of the run, which waits for
    them. One that raises is warned of, told of an end, and left alone from then on; the run goes on.
    What they are given is the run's own, not a copy: to read it changes nothing, to write to it may.

    Example:
        >>> import zoo
        >>> class Steps(zoo.Watcher):
        ...     def begin(self, run):
        ...         print("minimised by", run.config["method"])
        ...     def step(self, state, metrics):
        ...         print(metrics["nfev"], metrics["best"] < 3)
        >>> result = zoo.minimize(lambda x: (x**2).sum(), np.ones(3), budget=15, rng=0, callback=Steps())
        minimised by cma
        7 True
        14 True
    """

    def begin(self, run: Beginning) -> None:
        """Be told what begins."""

    def arrived(self, number: int) -> None:
        """Be told that so many evaluations of the present step came in."""

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Be told where the run is after a step.

        Args:
            state: The job's state.
            metrics: The step's line of `metrics.jsonl`: "step", "nfev", "best", "value" (lowest of the step),
                "median", "failed" (so far), where it improved "x" (the best point, up to 100 variables),
                and the diagnostics of the method.
        """

    def end(self, outcome: Run[Any] | None) -> None:
        """Be told how the run ended, or None if it has not: an error, not the objective's, is on its way.

        It may have been an error of this watcher, which watches no longer then.
        """


class Watchers:
    """Several watchers, of which any may fail."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)

    def __bool__(self) -> bool:
        return bool(self._watchers)

    @property
    def counts_arrivals(self) -> bool:
        """Whether one of them is interested in single evaluations."""
        return any(type(watcher).arrived is not Watcher.arrived for watcher in self._watchers)

    def begin(self, run: Beginning) -> None:
        """Tell all of them what begins."""
        self._call("begin", run)

    def arrived(self, number: int) -> None:
        """Tell all of them that so many evaluations came in."""
        self._call("arrived", number)

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Tell all of them where the run is after a step."""
        self._call("step", state, metrics)

    def end(self, outcome: Run[Any] | None) -> None:
        """Tell all of them how the run ended."""
        self._call("end", outcome)

    def _call(self, name: str, *arguments: Any) -> None:
        failed = []
        for watcher in tuple(self._watchers):
            try:
                getattr(watcher, name)(*arguments)
            except Exception as error:
                self._watchers.remove(watcher)
                failed.append((watcher, error))
                if name != "end":
                    with contextlib.suppress(Exception):  # of which the first one is told
                        watcher.end(None)
        for watcher, because in failed:  # after all are told, since a filter may make it an error
            warnings.warn(
                f"{type(watcher).__name__} failed and watches this run no longer, which goes on: "
                f"{type(because).__name__}: {because}",
                ZooWarning,
                stacklevel=2,
            )
