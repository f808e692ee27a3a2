"""What there is to choose from: the tasks, the methods, and their options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.output import print_facts, print_json, print_table, remark, say

if TYPE_CHECKING:
    from federated.methods import Method
    from federated.tasks.lookup import Entry


def print_choices(task: str | None, methods: Sequence[str], *, as_json: bool) -> None:
    """Print tasks and methods, or those that are named with their options.

    Args:
        task: Name of a task, or None.
        methods: Names of methods, perhaps behind labels.
        as_json: Whether to print JSON.

    Raises:
        ValueError: There is none of that name.
    """
    from federated.methods import find, list_methods
    from federated.tasks.lookup import TASKS

    if task is None and not methods:
        if as_json:
            print_json(
                {
                    "tasks": [_task(entry) for entry in TASKS.values()],
                    "methods": [_method(method) for method in list_methods().values()],
                }
            )
            return
        print_table(("task", "what it is"), [(one.name, _summary(one)) for one in TASKS.values()])
        say()
        rows = [(one.name, one.summary, one.paper) for one in list_methods().values()]
        print_table(("method", "what it is", "paper"), rows, spare=("paper",))
        remark("`zoo federate --list --method NAME` shows a method's options, with --task those of a task.")
        return
    tasks = [] if task is None else [_entry(task)]
    found = [find(name.rpartition("=")[2]) for name in dict.fromkeys(methods)]
    if as_json:
        said = [
            *({**_task(one), "options": _plain(one.options())} for one in tasks),
            *({**_method(one), "options": _plain(one.options())} for one in found),
        ]
        print_json(said[0] if len(said) == 1 else said)
        return
    chosen: list[Entry | Method] = [*tasks, *found]
    for number, one in enumerate(chosen):
        if number:
            say()
        _print_options(one)


def options_of_task(task: str) -> dict[str, Any] | None:
    """Return the options of a task by name, None where nobody knows."""
    from federated.tasks.lookup import TASKS

    if ":" not in task and task not in TASKS:
        return None  # which is refused later
    try:
        return _entry(task).options()
    except TypeError:  # of a task itself, which nobody calls
        return {}


def _entry(task: str) -> Entry:
    """Return a task by name, or one of the user's as an entry.

    Raises:
        ValueError: There is none of that name.
    """
    from federated.tasks.lookup import TASKS, Entry
    from zoo.core.named import named
    from zoo.core.validation import hint, listed

    if ":" in task:
        named("task", task)
        return Entry(task, task, "")
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}.{hint(task, TASKS)} Valid: {listed(sorted(TASKS))}.")
    return TASKS[task]


def _print_options(one: Entry | Method) -> None:
    from zoo.cli.described import inherited_meanings, summary_of

    factory = one.factory
    say(f"{one.name}: {summary_of(factory)}", "bold")
    print_facts({"paper": getattr(one, "paper", ""), "needs": _needs(getattr(one, "extra", ""))})
    said = inherited_meanings(factory)
    options = one.options()
    published = _published(factory)
    said.setdefault("published", "The defaults of the paper's own code; other options change single ones.")
    said.setdefault("num_clients", "How many clients there are; --clients says the same.")
    columns = ("option", "default", *(("published",) if published else ()), "what it is")
    rows = []
    for name, default in options.items():
        theirs = _written(published[name]) if name in published and published[name] != default else ""
        row = (name, str(_written(default)), *((str(theirs),) if published else ()), said.get(name, ""))
        rows.append(row)
    if rows:
        print_table(columns, rows)


def _published(factory: Any) -> Mapping[str, Any]:
    """Return what the published form of a method sets."""
    if not hasattr(factory, "published"):
        return {}
    made = factory.published()
    return {
        name: getattr(made, name) for name in inspect.signature(factory).parameters if hasattr(made, name)
    }


def _task(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "summary": entry.summary, "extra": entry.extra}


def _method(method: Method) -> dict[str, Any]:
    return {"name": method.name, "summary": method.summary, "paper": method.paper}


def _summary(entry: Entry) -> str:
    return entry.summary + (f" (needs {_needs(entry.extra)})" if entry.extra else "")


def _needs(extra: str) -> str:
    return f'pip install "gradfree[{extra}]"' if extra else ""


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _written(value) for name, value in options.items()}


def _written(value: object) -> object:
    if value is inspect.Parameter.empty:
        return "(needed)"
    if isinstance(value, tuple) and all(isinstance(one, (bool, int, float, str)) for one in value):
        return list(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
