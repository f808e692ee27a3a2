"""What a report says of a federation in words and tables."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from federated.kind import changed, task_name
from federated.report import clients
from federated.report.curves import amount
from federated.report.material import FAULTS, Course, course_of
from zoo.report import about as reports
from zoo.report.about import About, Row, number, text_of
from zoo.report.faults import spans
from zoo.report.style import duration
from zoo.run.reading import Recording


def about(recording: Recording) -> About:
    """Return what there is to say of a run."""
    said, course = reports.about(recording), course_of(recording)
    config, result = recording.config, recording.result or {}
    name, method = text_of(task_name(config)), text_of(config.get("method"))
    dim, count = config.get("dim"), config.get("num_clients")
    size = f", {dim:,} variable{'s' if dim != 1 else ''}" if isinstance(dim, int) else ""
    told = f"{count:,} client{'s' if count != 1 else ''}" if isinstance(count, int) else "some clients"
    return replace(
        said,
        title=f"{name}, minimised by {method}",
        summary=f"{method} for {told}{size}, key {config.get('key')}",
        numbers=_numbers(recording, course, result),
        point_heading="Clients together",
        point=clients.in_words(course),
        counters=_counters(said.counters, result),
        experiment=_experiment(recording),
        commands=_commands(said, recording),
    )


def _numbers(recording: Recording, course: Course, result: Mapping[str, Any]) -> list[Row]:
    config, columns = recording.config, course.columns
    rows = [("F", f"{course.final:.6g}" if math.isfinite(course.final) else "none")]
    known, count = course.told
    if 0 < known < count:
        rows.append(("F is over", f"{known:,} of {count:,} clients"))
    if course.optimum is not None and math.isfinite(course.final):
        rows.append(("Gap to the optimum", f"{course.final - course.optimum:.4g}"))
    for name in course.measures:
        found = columns[name][np.isfinite(columns[name])]
        if len(found):
            rows.append((text_of(name.replace("_", " ").capitalize()), f"{found[-1]:.6g}"))
    value = course.clients.get("value", np.empty(0))
    if np.isfinite(value).sum() > 1:
        rows.append((f"Worst client, {int(np.nanargmax(value))}", f"{np.nanmax(value):.6g}"))
        rows.append(("Spread over clients", f"{np.nanstd(value):.3g}"))
    rows.append(("Rounds", number(recording.num_steps) + _of(config.get("rounds"))))
    queries = _whole(course.last("queries"))
    rows.append(("Queries", number(queries) + _of(config.get("budget"))))
    if hidden := _whole(course.last("hidden")):
        rows.append(("Of these, left out by papers", number(hidden)))
    up, down = course.last("up"), course.last("down")
    if math.isfinite(up + down):
        rows += [("Sent by clients", amount(up)), ("Sent by the server", amount(down))]
    clock = course.last("clock")
    if clock > 0:
        rows.append(("Virtual time", duration(clock)))
    if failed := result.get("num_failed", _whole(recording.last("failed"))):
        rows.append(("Failed queries", number(failed)))
    if recording.worked:
        rows.append(("Time at work", duration(course.seconds)))
    if (processes := len(spans(recording))) > 1:
        rows.append(("Processes in turn", str(processes)))
    return rows


def _counters(rows: list[Row], result: Mapping[str, Any]) -> list[Row]:
    """Return the counters, in the words of a federation."""
    words = {
        "Value": "F at the end",
        "Best value seen": "Least F seen",
        "Evaluations": "Queries",
        "Steps": "Rounds",
        "Failed evaluations": "Failed queries",
        "Evaluations on record": "Queries on record",
        "Bytes sent to workers": "Bytes to processes at work",
        "Bytes received from workers": "Bytes from processes at work",
    }
    own = {
        "hidden": "Queries left out by papers",
        "up": "Bytes sent by clients",
        "down": "Bytes sent by the server",
        "clock": "Virtual seconds",
        **{name: said for name, (said, _) in FAULTS.items()},
    }
    told = [(said, number(result[name])) for name, said in own.items() if result.get(name)]
    return [*((words.get(name, name), value) for name, value in rows), *told]


def _experiment(recording: Recording) -> list[Row]:
    config = recording.config
    named = {
        "rounds": "Rounds",
        "budget": "Queries",
        "traffic": "Bytes",
        "target": "Wanted F",
        "measure_every": "Rounds per look at F",
        "on_error": "On an exception",
        "task_seed": "Seed of the task",
        "key": "Key",
        "threads": "Threads",
    }
    network = changed(config.get("network"))
    return [
        ("Task", text_of(task_name(config))),
        *([("Its options", shown)] if (shown := _pairs(_inner(config.get("task_options")))) else []),
        ("Clients", number(config.get("num_clients"))),
        ("Variables", number(config.get("dim"))),
        *([("Least F there is", number(config["optimum"]))] if config.get("optimum") is not None else []),
        ("Method", text_of(config.get("method"))),
        ("Options", _pairs(_options(config)) or "none"),
        ("Network", _pairs(network) or "all clients answer, at once"),
        *((words, number(config[name])) for name, words in named.items() if config.get(name) is not None),
    ]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's options, with the defaults of this version where nothing was given."""
    from federated.methods import find

    given, defaults = reports.plain_options(config), dict[str, Any]()
    if not config.get("method_object") and not given.get("published"):
        with contextlib.suppress(ValueError, ImportError, AttributeError):  # of a package that is not here
            defaults = find(str(config.get("method"))).options()
            defaults.pop("published", None)
    return {**defaults, **given}


def _inner(options: Any) -> Any:
    return options.get("dict", options) if isinstance(options, Mapping) else options


def _pairs(options: Any) -> str:
    if not isinstance(options, Mapping):
        return "" if options is None else text_of(options)
    return text_of(", ".join(f"{name}={value}" for name, value in options.items()))


def _commands(said: About, recording: Recording) -> list[Row]:
    """Return how to do it again, and how to go on."""
    rows = [row for row in said.commands if not row[0].startswith("It goes on")]
    if recording.result is None or recording.result.get("status") not in (0, 1):
        place = str(recording.path)
        config = recording.config
        named = isinstance(config.get("task"), str) and not config.get("method_object")
        code = f"federated.resume({place!r}, task=..., method=...)"
        command = f"zoo resume {shlex.quote(place)}" if named else code
        rows.insert(len(rows) - 1, ("It goes on where it is with", command))
    return rows


def _of(limit: Any) -> str:
    return f" of {limit:,}" if isinstance(limit, int) else ""


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0
