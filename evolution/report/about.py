"""What a report says of a run in words and tables."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evolution.report.material import family_of, state_of
from zoo.report import about as reports
from zoo.report.about import About, Row, number, text_of
from zoo.report.faults import spans
from zoo.report.style import duration, short
from zoo.run.reading import Recording

_MOST_ANCESTORS = 60


def about(recording: Recording) -> About:
    """Return what there is to say of a run."""
    said = reports.about(recording)
    config, result = recording.config, recording.result or {}
    name, method = environment_name(config), str(config.get("method"))
    policy = _attributes(config).get("policy") or {}
    what = str(policy.get("name", "a policy")) if isinstance(policy, Mapping) else "a policy"
    dim = config.get("dim")
    size = f", {dim:,} parameters" if isinstance(dim, int) else ""
    heading, line = _line(recording)
    return replace(
        said,
        title=f"{name}, evolved by {method}",
        summary=f"{method} on {what}{size}, key {config.get('key')}",
        numbers=_numbers(recording, result),
        point_heading=heading,
        point=line,
        counters=_counters(said.counters, result),
        experiment=_experiment(recording),
        commands=_commands(said, recording),
    )


def environment_name(config: Mapping[str, Any]) -> str:
    """Return the name of the environment."""
    named = _attributes(config).get("environment") or {}
    return text_of(named.get("name", "an environment") if isinstance(named, Mapping) else named)


def _attributes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (config.get("objective") or {}).get("attributes")
    return found if isinstance(found, Mapping) else {}


def _numbers(recording: Recording, result: Mapping[str, Any]) -> list[Row]:
    config = recording.config
    rows = []
    score, error = result.get("score"), result.get("score_error")
    if isinstance(score, (int, float)):
        around = f" ± {error:.2g}" if isinstance(error, (int, float)) else ""
        rows.append(("Score of the champion", f"{score:.6g}{around}"))
    best = result.get("best") if result else -recording.last("best")
    is_known = isinstance(best, (int, float)) and math.isfinite(best)
    rows.append(("Best in the search", f"{best:.6g}" if is_known else "none yet"))
    generations = int((recording.columns.get("retrial", np.empty(0)) == 0).sum())
    rows.append(
        ("Generations", number(result.get("generations", generations)) + _of(config.get("generations")))
    )
    episodes = _whole(recording.last("nfev"))
    rows.append(("Episodes", number(episodes) + _of(config.get("budget"))))
    frames = result.get("frames", _whole(recording.last("frames")))
    rows.append(("Frames", number(frames) + _of(config.get("frames"))))
    failed = result.get("num_failed", _whole(recording.last("failed")))
    if failed:
        rows.append(("Failed episodes", number(failed)))
    seconds = sum(recording.worked)
    if recording.worked:
        rows.append(("Time at work", duration(seconds)))
        if seconds > 0:
            rows.append(("Episodes a second", f"{episodes / seconds:,.3g}"))
            rows.append(("Frames a second", f"{frames / seconds:,.0f}"))
    if (processes := len(spans(recording))) > 1:
        rows.append(("Processes in turn", str(processes)))
    return rows


def _line(recording: Recording) -> tuple[str, list[Row]]:
    """Return the champion's ancestors, as far as they are known."""
    state = state_of(recording.path)
    family = None if state is None else family_of(recording, state)
    if family is None:
        return "The champion", [("parameters", number(recording.config.get("dim")))]
    line = family.line.tolist()
    rows = []
    for place in line[-_MOST_ANCESTORS:]:
        score = family.scores[place]
        value = short(score) if math.isfinite(score) else "unknown"
        rows.append((f"generation {family.generations[place]}", value))
    left_out, older = len(line) - len(rows), f"{len(line) - 1} ancestor{'s' * (len(line) != 2)}"
    rows = [("…", f"{left_out:,} before these"), *rows] if left_out else rows
    if len(line) == 1:
        return "The champion, which has no ancestors, by its return at birth", rows
    return f"The champion's line: {older} and itself, by their return at birth", rows


def _counters(rows: list[Row], result: Mapping[str, Any]) -> list[Row]:
    """Return the counters, with scores for values."""
    words = {
        "Evaluations": "Episodes, with fresh ones at the end",
        "Steps": "Steps of the method, with trials",
        "Failed evaluations": "Failed episodes",
        "Evaluations on record": "Episodes on record",
    }
    kept = [row for row in rows if row[0] not in ("Value", "Its standard error", "Best value seen")]
    scores = {
        "score": "Score",
        "score_error": "Its standard error",
        "best": "Best in the search",
        "frames": "Frames",
    }
    first = [(said, number(result[name])) for name, said in scores.items() if name in result]
    return [*first, *((words.get(name, name), value) for name, value in kept)]


def _experiment(recording: Recording) -> list[Row]:
    config, attributes = recording.config, _attributes(recording.config)
    named = {
        "behaviour": "Behaviour",
        "normalize": "Observations normalized",
        "episodes": "Episodes of a member",
        "common": "The same episodes for all",
        "max_steps": "Steps of an episode",
        "generations": "Generations",
        "budget": "Episodes",
        "frames": "Frames",
        "score": "Wanted score",
        "test_episodes": "Fresh episodes at the end",
        "noise_table": "Numbers of the noise table",
        "on_error": "On an exception",
        "key": "Key",
        "threads": "Threads",
    }
    values = {**config, "behaviour": attributes.get("behaviour")}
    return [
        ("Environment", environment_name(config)),
        *(
            [("Its options", _pairs(config["environment_options"]))]
            if config.get("environment_options")
            else []
        ),
        ("Policy", _pairs(attributes.get("policy") or {})),
        ("Parameters", number(config.get("dim"))),
        ("Method", text_of(config.get("method"))),
        ("Options", _pairs(_options(config)) or "none"),
        *((words, number(values[name])) for name, words in named.items() if values.get(name) is not None),
    ]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's options, with the defaults of this version where nothing was given."""
    from evolution.methods import find

    defaults: dict[str, Any] = {}
    with contextlib.suppress(ValueError, ImportError, AttributeError):  # of a package that is not here
        defaults = find(str(config.get("method"))).options()
    return {**defaults, **reports.plain_options(config)}


def _pairs(options: Any) -> str:
    if not isinstance(options, Mapping):
        return text_of(options)
    return text_of(", ".join(f"{name}={value}" for name, value in options.items()))


def _commands(said: About, recording: Recording) -> list[Row]:
    """Return how to do it again, how to go on, and how to look at the champion."""
    place = shlex.quote(str(recording.path))
    rows = [row for row in said.commands if not row[0].startswith("It goes on")]
    more = [("The champion is to be seen with", f"zoo play {place}")]
    if recording.result is None or recording.result.get("status") not in (0, 1):
        more.insert(0, ("It goes on where it is with", f"zoo resume {place}"))
    return [*rows[:-1], *more, *rows[-1:]]


def _of(limit: Any) -> str:
    return f" of {limit:,}" if isinstance(limit, int) else ""


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0
