"""The tasks there are, by name; a task's file is imported when it is first asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federated.task import Task
from zoo.core.named import named
from zoo.core.rng import Key
from zoo.core.validation import check_known, hint, listed


@dataclass(frozen=True, slots=True)
class Entry:
    """A task with a name.

    Attributes:
        name: What users write.
        target: "module:factory"; the factory's arguments, aside from `key`, are the task's options.
        summary: One line.
        extra: The extra that installs what it needs, empty where nothing more is needed.
    """

    name: str
    target: str
    summary: str
    extra: str = ""

    @property
    def factory(self) -> Any:
        """The factory itself."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def options(self) -> dict[str, Any]:
        """Return the options there are, with their defaults; `inspect.Parameter.empty` where one is needed.

        Example:
            >>> TASKS["quadratic"].options()["heterogeneity"]
            0.5
        """
        return _options(self.factory)


_ALL = (
    Entry(
        "quadratic",
        "federated.tasks.synthetic:Quadratic",
        "quadratic functions that differ, with a mean that is always the same",
    ),
    Entry(
        "ackley",
        "federated.tasks.synthetic:Ackley",
        "Ackley's function with scales and places that differ: many minima around a funnel",
    ),
    Entry(
        "levy",
        "federated.tasks.synthetic:Levy",
        "Levy's function with scales and places that differ: a sine on parabolas",
    ),
    Entry(
        "attack",
        "federated.tasks.attack:attack",
        "a perturbation of an image that misleads classifiers of clients with skewed data",
        "gp",
    ),
    Entry(
        "metric",
        "federated.tasks.metric:MetricTask",
        "weights of a classifier by its F1, precision, recall or Jaccard index, which have no gradients",
        "gp",
    ),
)

TASKS = {entry.name: entry for entry in _ALL}
"""The tasks by name."""

_FUNCTIONS = " Functions that clients evaluate make one by `federated.tasks.functions.FunctionTask`."


def list_tasks() -> dict[str, Entry]:
    """Return the tasks that have a name, by it.

    Example:
        >>> list(list_tasks())[:2]
        ['quadratic', 'ackley']
    """
    return dict(TASKS)


def as_task(given: Any, options: Mapping[str, Any] | None = None, *, key: Key | None = None) -> Task:
    """Return the task that a name, a factory or a task stands for.

    Args:
        given: A name of `TASKS`; "module:name" of a `Task`, of a subclass of it or of a function that returns
            one; or one of these three themselves.
        options: Arguments of the factory, `num_clients` among them.
        key: Randomness of the task, such as its data's; Key(0) by default. It is given to factories that have
            an argument `key`.

    Raises:
        TypeError: `given` is nothing of the kind, a factory returns something else than a task, or an option
            is unknown or missing.
        ValueError: There is nothing of that name, or an option has a value that it cannot have.

    Example:
        >>> as_task("quadratic", {"dim": 10, "num_clients": 3}).num_clients
        3
    """
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"`options` must be a dictionary, got {options!r}.")
    options = dict(options or {})
    name, factory = _factory(given)
    if isinstance(factory, Task):
        if options:
            raise TypeError(
                f"`options` must be left out where `task` is a task already, got {listed(options)}: give "
                "them to its class."
            )
        return factory
    if not callable(factory):
        raise TypeError(
            f"`task` must be a name, a Task or a function that returns one, got {factory!r}.{_FUNCTIONS}"
        )
    parameters = inspect.signature(factory).parameters
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        check_known(f"option of task {name!r}:", options, _options(factory))
    missing = [
        one
        for one, default in _options(factory).items()
        if default is inspect.Parameter.empty and one not in options
    ]
    if missing:
        own = "" if name in TASKS or isinstance(factory, type) else _FUNCTIONS
        raise TypeError(f"task {name!r} needs the option {missing[0]!r}.{own}")
    if "key" in parameters:
        options["key"] = Key(0) if key is None else key
    made = factory(**options)
    if not isinstance(made, Task):
        raise TypeError(f"`task` must be a Task or return one, and {name!r} returned {made!r}.{_FUNCTIONS}")
    return made


def _factory(given: Any) -> tuple[str, Any]:
    """Return a task or what makes one, and what it is called."""
    if not isinstance(given, str):
        return getattr(given, "__qualname__", type(given).__qualname__), given
    if ":" in given:
        return given, named("task", given)
    if given not in TASKS:
        raise ValueError(
            f"unknown task {given!r}.{hint(given, TASKS)} Valid: {listed(sorted(TASKS))}, or "
            '"module:name" of your own.'
        )
    return given, TASKS[given].factory


def _options(factory: Any) -> dict[str, Any]:
    return {
        name: one.default
        for name, one in inspect.signature(factory).parameters.items()
        if name != "key" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
