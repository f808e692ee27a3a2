"""What a report says of a run in words and tables."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.report.faults import counts, spans
from zoo.report.style import duration
from zoo.run.reading import Recording

Row = tuple[str, str]

_MOST_VARIABLES = 60
_MOST_EVENTS = 40
_MOST_ALIKE = 3  # events that differ in numbers alone, each of which has a row
_MOST_LETTERS = 300


@dataclass(frozen=True)
class About:
    """What there is to say of a run."""

    title: str
    path: str
    status: str
    colour: str
    message: str
    summary: str
    steps: int
    numbers: list[Row]
    point_heading: str
    point: list[Row]
    counters: list[Row]
    experiment: list[Row]
    machine: list[Row]
    commands: list[Row]
    events: list[tuple[str, str, str]]
    events_caption: str


def about(recording: Recording) -> About:
    """Return what there is to say of a run."""
    config, result = recording.config, recording.result or {}
    status, colour, message = _status(recording)
    name = objective_name(config)
    noise = ", random" if config.get("noise") else ""
    budget = config.get("budget")
    summary = (
        f"{config.get('method')} on {_variables(recording)}{noise}, "
        f"{'no budget' if budget is None else f'a budget of {budget:,} evaluations'}, key {config.get('key')}"
    )
    heading, point = _point(recording)
    shown, caption = _events(recording)
    return About(
        title=f"{name}, minimised by {config.get('method')}",
        path=str(recording.path),
        status=status,
        colour=colour,
        message=message,
        summary=summary,
        steps=recording.num_steps,
        numbers=_numbers(recording, result),
        point_heading=heading,
        point=point,
        counters=_counters(recording, result),
        experiment=_experiment(recording),
        machine=_machine(recording),
        commands=_commands(recording),
        events=shown,
        events_caption=caption,
    )


def objective_name(config: Mapping[str, Any]) -> str:
    """Return what is minimised."""
    return str((config.get("objective") or {}).get("name", "an objective"))


def number(value: Any) -> str:
    """Return a value as a table holds it.

    Example:
        >>> number(0.1 + 0.2), number(None), number(1234567)
        ('0.3', 'none', '1,234,567')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text_of(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.10g}"


def text_of(value: Any) -> str:
    """Return anything as a text that is not too long."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _status(recording: Recording) -> tuple[str, str, str]:
    """Return what a run's state is in a word, its colour, and in a sentence."""
    result = recording.result
    if result is None:
        return (
            "not ended",
            "open",
            "It is under way, or its process was ended from outside: no result is on record.",
        )
    message = text_of(result.get("message", ""))
    if result.get("success"):
        return "done", "good", message
    # 5 is a failure; below it are ends that say nothing of the outcome.
    return ("failed", "bad", message) if result.get("status") == 5 else ("no success", "bad", message)


def _variables(recording: Recording) -> str:
    space = recording.space
    if space is not None:
        return f"{len(space)} variables of a space"
    dim = recording.config.get("dim")
    return f"{dim:,} variable{'s' if dim != 1 else ''}" if isinstance(dim, int) else "some variables"


def _numbers(recording: Recording, result: Mapping[str, Any]) -> list[Row]:
    noisy = bool(recording.config.get("noise"))
    budget, nfev = recording.config.get("budget"), result.get("nfev")
    done = nfev if isinstance(nfev, int) else _whole(recording.last("nfev"))
    best = result.get("fun") if result else recording.last("best")
    trained = recording.config.get("kind") == "training"
    what = "Value, of fresh evaluations" if noisy and result else "Best value"
    rows = [("Loss of the last step" if trained and result else what, number(best))]
    if result.get("test") is not None:
        rows.append(("Test", number(result["test"])))
    if result.get("fun_error") is not None:
        rows.append(("Its standard error", f"{result['fun_error']:.3g}"))
    if "maxcv" in result:
        rows.append(("Constraint violation", number(result["maxcv"])))
    rows.append(("Evaluations", f"{done:,}" + (f" of {budget:,}" if isinstance(budget, int) else "")))
    rows.append(("Steps", f"{recording.num_steps:,}"))
    failed = result.get("num_failed", _whole(recording.last("failed")))
    if failed:
        rows.append(("Failed", f"{failed:,}"))
    seconds = sum(recording.worked)
    if recording.worked:
        rows.append(("Time at work", duration(seconds)))
        if seconds > 0:
            rows.append(
                (
                    "Evaluations a second",
                    f"{done / seconds:,.0f}" if done > 100 * seconds else f"{done / seconds:.3g}",
                )
            )
    for name, column in recording.diagnostics.items():
        if len(column) and not np.isfinite(column).any():  # metrics have one word for both
            rows.append((text_of(name.replace("_", " ")), "infinite or no number: no figure"))
    if (processes := len(spans(recording))) > 1:
        rows.append(("Processes in turn", str(processes)))
    return rows


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0


def _point(recording: Recording) -> tuple[str, list[Row]]:
    """Return the point that a run found: what there is to call it, and its variables."""
    result, space = recording.result, recording.space
    heading, x = "The point found", None if result is None else result.get("x")
    if result is not None and result.get("fun") is None:
        heading = "Where the search ended, without a value"
    if x is None and recording.points:
        heading = "The best point so far"
        x = recording.points[-1].x.tolist() if space is None else space.decode(recording.points[-1].x)
    if x is None:
        return "The point found", [("none", "no point is on record")]
    if isinstance(x, Mapping):
        rows = [(str(name), number(value)) for name, value in x.items()]
    else:
        rows = [(f"x[{index}]", number(value)) for index, value in enumerate(np.ravel(np.array(x, object)))]
    if len(rows) > _MOST_VARIABLES:
        more = len(rows) - _MOST_VARIABLES
        rows = [*rows[:_MOST_VARIABLES], ("…", f"{more:,} more in result.json")]
    return heading, rows


def _counters(recording: Recording, result: Mapping[str, Any]) -> list[Row]:
    names = {
        "fun": "Value",
        "fun_error": "Its standard error",
        "fun_best": "Best value seen",
        "maxcv": "Largest violation of a constraint",
        "nfev": "Evaluations",
        "nit": "Steps",
        "num_failed": "Failed evaluations",
    }
    rows = [(words, number(result[name])) for name, words in names.items() if name in result]
    if not result:
        rows = [
            ("Evaluations", number(_whole(recording.last("nfev")))),
            ("Steps", number(recording.num_steps)),
        ]
    account = result.get("account") or {}
    words = {
        "evaluations": "Evaluations on record",
        "retries": "Made again after an exception",
        "restarts": "Workers replaced",
        "lost": "Units under way on workers that died",
        "quarantined": "Units given up",
        "speculated": "Units given to a second worker",
        "sent": "Bytes sent to workers",
        "received": "Bytes received from workers",
    }
    noted = {name: value for name, value in account.items() if value and name != "busy"}
    return rows + [(words.get(name, name), number(value)) for name, value in noted.items()]


def _experiment(recording: Recording) -> list[Row]:
    config, start = recording.config, recording.start
    options = plain_options(config)
    objective = config.get("objective") or {}
    rows = [
        ("Objective", text_of(objective_name(config))),
        ("Method", text_of(config.get("method"))),
        ("Options", ", ".join(f"{name}={text_of(value)}" for name, value in options.items()) or "defaults"),
        ("Variables", _variables(recording)),
    ]
    if "lower" in start and "upper" in start:
        rows.append(("Bounds", _bounds(start["lower"], start["upper"])))
    if objective.get("constraints"):
        rows.append(
            ("Constraints", ", ".join(text_of(one.get("name", "?")) for one in objective["constraints"]))
        )
    named = {
        "budget": "Budget",
        "target": "Target",
        "noise": "Random",
        "vectorized": "Many points at once",
        "on_error": "On an exception",
        "key": "Key",
        "unit": "Points a call",
        "threads": "Threads",
    }
    return rows + [
        (words, number(config[name])) for name, words in named.items() if config.get(name) is not None
    ]


def plain_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's options; what is more than a number or a name stays as it is written down."""
    options = config.get("options") or {}
    inner = options.get("dict", options) if isinstance(options, Mapping) else {}
    return {str(name): value for name, value in inner.items()} if isinstance(inner, Mapping) else {}


def _bounds(lower: np.ndarray[Any, Any], upper: np.ndarray[Any, Any]) -> str:
    pairs = list(
        dict.fromkeys(
            f"{low:g} to {high:g}" for low, high in zip(np.ravel(lower), np.ravel(upper), strict=True)
        )
    )
    return text_of(
        pairs[0] if len(pairs) == 1 else "; ".join(pairs[:12]) + ("; …" if len(pairs) > 12 else "")
    )


def _machine(recording: Recording) -> list[Row]:
    meta = recording.meta
    if not meta:
        return [("unknown", "meta.json is missing or damaged")]
    versions = meta.get("versions") or {}
    rows = [
        (
            "Versions",
            ", ".join(
                [f"Python {meta.get('python')}", *(f"{name} {value}" for name, value in versions.items())]
            ),
        )
    ]
    named = {
        "processor": "Processor",
        "gpu": "GPU",
        "platform": "System",
        "started": "Started",
        "executor": "Evaluated by",
        "num_workers": "Workers",
        "timeout": "Seconds an evaluation may take",
    }
    return rows + [(words, text_of(meta[name])) for name, words in named.items() if meta.get(name)]


def _commands(recording: Recording) -> list[Row]:
    """Return how to do it again, and how to go on."""
    argv = [str(word) for word in recording.meta.get("argv") or []]
    rows = []
    if argv:
        program = Path(argv[0]).name
        is_ours = program in ("zoo", "__main__.py", "-c", "-m")
        again = ["zoo" if is_ours else "python", *([] if is_ours else argv[:1]), *argv[1:]]
        rows.append(("It was started by", shlex.join(again)))
    objective = recording.config.get("objective") or {}
    named = objective_name(recording.config)
    path = str(recording.path)
    is_named = (":" in named and not set(objective) - {"name", "constraints"}) or named.startswith("command ")
    go_on = f"zoo resume {shlex.quote(path)}" if is_named else f"zoo.resume({path!r}, fun)"
    if recording.config.get("kind") == "training":
        go_on = f"zoo.nn.train(..., out={path!r})"
    if recording.result is None or recording.result.get("status") not in (0, 1):
        rows.append(("It goes on where it is with", go_on))
    rows.append(
        ("Its digest, to compare with that of another run", f"zoo report --digest {shlex.quote(path)}")
    )
    return rows


def _events(recording: Recording) -> tuple[list[tuple[str, str, str]], str]:
    """Return when what happened, what is alike in one row where it is often, and what is said of all."""
    told: list[tuple[str, str, str]] = []
    alike: dict[tuple[str, str], list[int]] = {}
    for number, event in enumerate(recording.events):
        hidden = ("time", "event", "account", "versions", "processor")
        details = text_of(", ".join(f"{k}: {v}" for k, v in event.items() if k not in hidden))
        time, kind = str(event.get("time", ""))[:19].replace("T", " "), text_of(event.get("event"))
        told.append((time, kind, details))
        alike.setdefault((kind, re.sub(r"\d+", "0", details)), []).append(number)
    rows = []
    for same in alike.values():
        if len(same) <= _MOST_ALIKE:
            rows += [(number, told[number]) for number in same]
            continue
        (first, kind, _), (last, _, details) = told[same[0]], told[same[-1]]
        times = first if first == last else f"{first} to {last[11:] if first[:10] == last[:10] else last}"
        at_last = f"At last: {details}" if details else ""
        rows.append((same[-1], (times, f"{kind}, {len(same):,} times", at_last)))
    shown = [row for _, row in sorted(rows)][-_MOST_EVENTS:]
    kinds = ", ".join(f"{count} x {text_of(kind)}" for kind, count in counts(recording).most_common(12))
    if [kind for _, kind, _ in shown] == ["ended"]:
        return [], ""  # which the top of the page says
    words = f"{kinds}."
    if len(shown) < len(rows):
        words += f" The last {len(shown)} rows of {len(rows):,}."
    return shown, words + (" All of them are in events.jsonl." if len(shown) < len(told) else "")
