"""Several methods on one task, over several seeds: how far they came with how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federated.report import comparison_figures as draw
from federated.report import levels
from federated.report.clients import MOST_ROWS, WORST, cell, summarised, whole
from federated.report.curves import amount
from federated.report.material import Course, course_of
from federated.setting import KIND
from zoo.core.errors import RunDirectoryError
from zoo.report.comparison import unequal
from zoo.report.comparison_figures import styles
from zoo.report.entries import Entry, Group, Section, entry_of, find_runs, read_all, sections_of
from zoo.report.style import Picture, duration, label
from zoo.report.tables import Table
from zoo.report.writing import write_page
from zoo.run.reading import Recording

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs of one method, with one setting.

    Attributes:
        name: What it is called.
        courses: How the runs went.
        cpu: Seconds of processors that they have taken, as far as somebody knows.
    """

    name: str
    courses: list[Course]
    cpu: tuple[float, ...] = ()

    def finals(self) -> Array:
        """Return F at the end of each run, infinite where it is not known."""
        return np.array([_or_infinite(course.final) for course in self.courses])

    def middle(self, of: Callable[[Course], float]) -> float:
        """Return the median of a number of each run, NaN where no run has it."""
        found = np.array([of(course) for course in self.courses])
        found = found[np.isfinite(found)]
        return float(np.median(found)) if len(found) else math.nan


@dataclass(frozen=True, eq=False)
class Contest:
    """Methods that had one task.

    Attributes:
        section: The runs, in groups.
        groups: The same, as federations; the least median of F in the end first.
        equal: The least number of queries above 0 that a run had in the end; 0 where none had any.
    """

    section: Section
    groups: list[Trials]
    equal: int

    @property
    def courses(self) -> list[Course]:
        """All runs in it."""
        return [course for group in self.groups for course in group.courses]

    @property
    def has_optimum(self) -> bool:
        """Whether the least F is known, of all runs."""
        return all(course.optimum is not None for course in self.courses)

    @property
    def measures(self) -> list[str]:
        """What the task measures, in all runs."""
        first, *others = self.courses
        return [name for name in first.measures if all(name in other.measures for other in others)]


def write_comparison(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    labels: Mapping[Path, str] | None = None,
    cpu: Mapping[Path, float] | None = None,
) -> Path:
    """Compare methods: write a page `compare.html` that holds all it needs, and PNG and CSV files beside it.

    Runs of one method that differ in their seeds alone belong together; runs on different tasks are not
    compared with each other, but have sections of their own. Runs may be under way.

    Args:
        folders: Run directories, or directories that have some below them.
        out: Where to put it.
        labels: What the method of a run is called, by its directory; where it is not said, methods have their
            names, and the options in which they differ.
        cpu: Seconds of processors that a run has taken, by its directory, where that is known.

    Returns:
        The page.

    Raises:
        RunDirectoryError: There is no run of a federation, or the page cannot be written.

    Example:
        >>> import tempfile, federated
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for method in ("fedzo", "fedprox"):
        ...         for seed in range(2):
        ...             how = dict(task_options={"dim": 5}, out=f"{folder}/{method}/{seed}")
        ...             found = federated.federate("quadratic", method, rounds=2, rng=seed, **how)
        ...     page = write_comparison([folder], f"{folder}/compared")
        ...     page.name, sorted(row["method"] for row in table([folder]))
        ('compare.html', ['fedprox', 'fedzo'])
    """
    contests = contests_of(folders, labels, cpu)
    drawn = styles(list(dict.fromkeys(group.name for one in contests for group in _by_name(one.groups))))
    sections: list[tuple[str, list[Picture | Table], str]] = []
    for number, one in enumerate(contests):
        ending = f"_{number + 1}" if len(contests) > 1 else ""
        sections += _sections(one, drawn, ending)
    courses = [course for one in contests for course in one.courses]
    unended = sum(not course.has_ended for course in courses)
    count = len(drawn)
    summary = f"{_plural(len(courses), 'run')} of {_plural(count, 'method')}"
    summary += f", on {len(contests)} tasks" if len(contests) > 1 else ""
    summary += f"; {unended} of them {'has' if unended == 1 else 'have'} not ended" if unended else ""
    shown = [one for _, found, _ in sections for one in found]
    content = {"title": "Federations compared", "summary": f"{summary}.", "sections": sections}
    return write_page(Path(out), "compare", shown, Path(out), content, template="sections")[0]


def table(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return a row for each method: medians over its runs, None for what is not known.

    Args:
        folders: As in `write_comparison`.

    Returns:
        Rows with "task", "method", "runs", "ended" (how many of them), "value" (F in the end), "lowest" and
        "highest" of it, "gap" (to the optimum), "equal_queries" (the least number of queries above 0 that a
        run on this task had in the end) and "value_then" (F by then), "worst" (the highest f_i(x)), "spread"
        (their deviation), "rounds", "queries", "hidden", "up", "down", "clock", "seconds", "cpu" (here None),
        and what the task measures under its own name. The least "value" comes first.

    Raises:
        RunDirectoryError: There is no run of a federation.
    """
    return [_row(one, group) for one in contests_of(folders) for group in one.groups]


def contests_of(
    folders: Sequence[str | Path],
    labels: Mapping[Path, str] | None = None,
    cpu: Mapping[Path, float] | None = None,
) -> list[Contest]:
    """Return what there is to compare; arguments are as in `write_comparison`.

    Raises:
        RunDirectoryError: There is no run of a federation.
    """
    read = read_all(find_runs(folders), _read)
    courses = {entry.path: course for entry, course in read}
    names = {path.resolve(): label for path, label in (labels or {}).items()}
    costs = {path.resolve(): seconds for path, seconds in (cpu or {}).items()}
    found = []
    for task in sections_of([entry for entry, _ in read]):
        # By themselves, so that names say only what runs on one task differ in.
        (part,) = sections_of(task.entries)
        section = Section(task.title, _labelled(part.groups, names))
        groups = [
            Trials(
                group.name,
                [courses[entry.path] for entry in group.entries],
                tuple(costs[path] for entry in group.entries if (path := entry.path.resolve()) in costs),
            )
            for group in section.groups
        ]
        ends = [course.last("queries") for group in groups for course in group.courses]
        equal = min((end for end in ends if end > 0), default=0)  # some methods go by gradients alone
        ranked = sorted(groups, key=lambda group: float(np.median(group.finals())))
        found.append(Contest(section, ranked, int(equal)))
    return found


def _labelled(groups: Sequence[Group], labels: Mapping[Path, str]) -> list[Group]:
    """Return groups, those of runs that have a label by these."""
    found: dict[str, list[Entry]] = {}
    for group in groups:
        for entry in group.entries:
            found.setdefault(labels.get(entry.path.resolve(), group.name), []).append(entry)
    return [Group(name, entries) for name, entries in found.items()]


def _read(recording: Recording) -> tuple[Entry, Course]:
    if recording.config.get("kind") != KIND:
        raise RunDirectoryError(f"{recording.path} holds a run of another kind; zoo compare takes it.")
    return entry_of(recording), course_of(recording)


def value_at(course: Course, queries: float) -> float:
    """Return F at the last look by so many queries, NaN where there was none."""
    x, y = course.columns["queries"], course.columns["value"]
    then = np.isfinite(x) & np.isfinite(y) & (x <= queries)
    return float(y[then][-1]) if then.any() else math.nan


def _row(one: Contest, group: Trials) -> dict[str, Any]:
    finals = group.finals()
    known = finals[np.isfinite(finals)]
    middle = float(np.median(finals))
    found = {
        "task": one.section.title,
        "method": group.name,
        "runs": len(group.courses),
        "ended": sum(course.has_ended for course in group.courses),
        "value": middle,
        "lowest": float(known.min()) if len(known) else math.nan,
        "highest": float(known.max()) if len(known) else math.nan,
        "gap": group.middle(
            lambda course: course.final - (math.nan if course.optimum is None else course.optimum)
        ),
        "equal_queries": one.equal,
        "value_then": group.middle(lambda course: value_at(course, one.equal)),
        "worst": group.middle(lambda course: _of_clients(course, np.max)),
        "spread": group.middle(lambda course: _of_clients(course, np.std)),
        "rounds": group.middle(lambda course: course.last("round")),
        **{name: group.middle(_last(name)) for name in ("queries", "hidden", "up", "down", "clock")},
        "seconds": group.middle(lambda course: course.seconds),
        "cpu": float(np.median(group.cpu)) if group.cpu else math.nan,
        **{name: group.middle(_known_last(name)) for name in one.measures},
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in found.items()
    }


def _last(name: str) -> Callable[[Course], float]:
    return lambda course: course.last(name)


def _known_last(name: str) -> Callable[[Course], float]:
    def last(course: Course) -> float:
        known = course.columns[name][np.isfinite(course.columns[name])]
        return float(known[-1]) if len(known) else math.nan

    return last


def _of_clients(course: Course, what: Callable[[Array], Any]) -> float:
    value = course.clients.get("value", np.empty(0))
    value = value[np.isfinite(value)]
    return float(what(value)) if len(value) else math.nan


def _sections(
    one: Contest, drawn: Mapping[str, Any], ending: str
) -> Iterable[tuple[str, list[Picture | Table], str]]:
    ordered = _by_name(one.groups)
    words = unequal(one.section)
    shown: list[Picture | Table] = list(draw.curves(ordered, one.has_optimum, drawn, ending))
    if not shown:
        words = f"F is not known of any run. {words}".rstrip()
    if len(one.groups) < 2:
        words = f"There is one method only, so there is nothing to hold it against. {words}".rstrip()
    yield one.section.title, shown, words
    rows = [_row(one, group) for group in one.groups]
    luck = "Whether a difference is more than luck, zoo compare says of the same directories."
    tables: list[Picture | Table] = [_found(one, rows, ending), _taken(rows, ending)]
    yield "Method by method", tables, luck if len(one.groups) > 1 else ""
    reached = levels.table(ordered, one.has_optimum, ending)
    if reached is not None:
        yield "How soon", [reached], ""
    measured: list[Picture | Table] = list(draw.measured(ordered, one.measures, drawn, ending))
    if measured:
        yield "What the task measures", measured, ""
    at_clients = _clients(one, ending)
    if at_clients is not None:
        picture = draw.clients(ordered, drawn, ending)
        yield "Clients", [*([] if picture is None else [picture]), at_clients], ""


def _found(one: Contest, rows: Sequence[Mapping[str, Any]], ending: str) -> Table:
    """Return the table of what methods have found."""
    heads = ["Method", "Runs", "F", "Lowest to highest"]
    heads += ["Gap"] if one.has_optimum else []
    heads += [f"F at {one.equal:,} queries", "Worst client", "Spread", *map(_readable, one.measures)]
    shown = []
    for row in rows:
        ended = "" if row["ended"] == row["runs"] else f", {row['ended']} ended"
        shown.append(
            [
                row["method"],
                f"{row['runs']}{ended}",
                _number(row["value"]),
                ""
                if row["runs"] == 1
                else "none"
                if row["lowest"] is None
                else f"{_number(row['lowest'])} to {_number(row['highest'])}",
                *([_number(row["gap"], 3)] if one.has_optimum else []),
                _number(row["value_then"]),
                _number(row["worst"]),
                _number(row["spread"], 3),
                *(_number(row[name]) for name in one.measures),
            ]
        )
    words = (
        "Medians over runs in the end, the least F first. "
        f"{one.equal:,} queries are the fewest that a run made: there, F is that of the last look by then. "
        "Worst client: the highest f_i(x); spread: the standard deviation of f_i(x) over clients."
    )
    return Table(f"found{ending}", "What they found", words, heads, shown)


def _taken(rows: Sequence[Mapping[str, Any]], ending: str) -> Table:
    """Return the table of what methods have taken."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "rounds": ("Rounds", whole),
        "queries": ("Queries", whole),
        "hidden": ("Hidden ones", whole),
        "up": ("Sent by clients", amount),
        "down": ("Sent by the server", amount),
        "clock": ("Virtual time", duration),
        "seconds": ("Time at work", duration),
        "cpu": ("CPU time", duration),
    }
    for name in ("hidden", "clock", "cpu"):
        if not any(row[name] for row in rows):
            del columns[name]
    shown = [[row["method"], *(_said(row[name], how) for name, (_, how) in columns.items())] for row in rows]
    words = "Medians over runs, of all clients together."
    if "hidden" in columns:
        words += " Hidden ones are those queries that papers leave out of their count."
    heads = ["Method", *(head for head, _ in columns.values())]
    return Table(f"taken{ending}", "What it took", words, heads, shown)


def _clients(one: Contest, ending: str) -> Table | None:
    """Return the table of clients: what the methods' x are worth to each."""
    told = [(group.name, draw.at_clients(group)) for group in one.groups]
    values = {name: value for name, value in told if value is not None}
    if len({len(value) for value in values.values()}) != 1:
        return None
    table = np.array(list(values.values()))
    count = table.shape[1]
    worst = np.where(np.isfinite(table), table, -np.inf).max(0)
    many = count > MOST_ROWS
    listed = np.argsort(-worst, kind="stable")[:WORST] if many else np.arange(count)
    rows = [
        [str(client), *(cell("value", value) for value in table[:, client])] for client in listed.tolist()
    ]
    rules = frozenset({len(rows)}) if count > 1 else frozenset[int]()
    rows += summarised([("value", value) for value in table]) if count > 1 else []
    said = "f_i(x) of each client, for the x of each method: the median over runs. "
    if many:
        said += f"The {WORST} clients that the worst x for them is worst for; clients.csv has all {count:,}."
    rest = [[client, *map(float, table[:, client])] for client in range(count)]
    words = (
        f"{said.strip()} Where each seed has a task of its own, a number stands for another client in each."
    )
    return Table(
        f"clients{ending}", "Client by client", words, ["Client", *map(label, values)], rows, rest, rules
    )


def _by_name(groups: Sequence[Trials]) -> list[Trials]:
    return sorted(groups, key=lambda group: group.name)


def _number(value: float | None, digits: int = 5) -> str:
    return "none" if value is None else f"{value:.{digits}g}"


def _said(value: float | None, how: Callable[[float], str]) -> str:
    return "none" if value is None else how(value)


def _readable(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' if count != 1 else ''}"


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
