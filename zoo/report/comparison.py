"""The comparison of many runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.core.validation import check_number
from zoo.report import comparison_figures as draw
from zoo.report.entries import Entry, Section, find_runs, read_entries, sections_of
from zoo.report.statistics import (
    FEWEST,
    LEVEL,
    Pair,
    Summary,
    pairs_of,
    runs_needed,
    summary,
    targets_of,
)
from zoo.report.style import Picture, short
from zoo.report.writing import write_page
from zoo.run.kinds import PLAIN

COLUMNS = ("Group", "Runs", "Median", "Quartiles", "Best", "Evaluations", "To the target", "Reached it")
"""Of the table of a section; see `columns_of`."""

PAIR_COLUMNS = ("First", "Second", "A12", "p", "Final values")
_COUNTED = COLUMNS.index("Evaluations")
_MOST_PAIRS = 15  # in a table
GUIDE = (
    "A12 is how often a run of the first group ends {better} than one of the second, 0.5 for no difference. "
    "p is that of the two-sided Mann-Whitney test of final values, adjusted by Holm's method for all pairs "
    f"of a section: below {LEVEL}, luck alone hardly explains the difference."
)
"""What columns of pairs hold; `better` is what a better value is."""


def _arrays(entry: Entry, *names: str) -> tuple[bytes, ...]:
    return tuple(entry.start[name].tobytes() for name in names if name in entry.start)


_BUDGETS = ("budget", "generations", "frames", "rounds", "traffic")
_CIRCUMSTANCES: dict[str, Callable[[Entry], Any]] = {
    "bounds": lambda entry: (
        json.dumps(entry.config.get("space"), sort_keys=True),
        _arrays(entry, "lower", "upper"),
    ),
    "starts": lambda entry: _arrays(entry, "x0"),
    "budgets": lambda entry: tuple(entry.config.get(name) for name in _BUDGETS),
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What there is to say of the runs with one objective.

    Attributes:
        section: The runs.
        target: The value that `Summary.ert` is about; infinite where no run had a value, which is none.
        targets: The values that the distributions are about; none where the function is random.
        summaries: A row for each group, the lowest median first.
        pairs: All pairs of groups with enough runs.
        remark: What the pairs can and cannot say; empty where there is nothing to add.
        unequal: In what else than the groups' names runs differ; empty where they do not.
    """

    section: Section
    target: float
    targets: np.ndarray[Any, Any]
    summaries: list[Summary]
    pairs: list[Pair]
    remark: str
    unequal: str

    @property
    def plain(self) -> dict[str, Any]:
        """It in dictionaries and lists."""
        pairs = [{**pair._asdict(), "significant": pair.adjusted <= LEVEL} for pair in self.pairs]
        groups = [one._asdict() for one in self.summaries]
        sign = self.section.wording.sign
        if sign < 0:
            for row in groups:
                row |= {"median": 0.0 - row["median"], "best": 0.0 - row["best"]}
                row |= {"lower": 0.0 - row["upper"], "upper": 0.0 - row["lower"]}
        return {
            "objective": self.section.title,
            "better": self.section.wording.better,
            "target": sign * self.target,
            "groups": groups,
            "pairs": pairs,
            "remark": self.remark,
            "unequal": self.unequal,
        }


def compare(
    paths: Sequence[str | Path],
    out: str | Path = "compare",
    by: str = "options",
    targets: Sequence[float] | None = None,
) -> list[Path]:
    """Compare runs: write a page, `compare.html`, that holds all it needs, and PNGs beside it.

    Runs with different objectives are not compared with each other, but have a section each.

    Args:
        paths: Run directories, or directories that have some below them.
        out: Where to put it.
        by: What groups of runs differ in: "options" (method and options), "method", "objective",
            "folder" (the one they are in), "budget" or "workers".
        targets: Values to be reached, scores where runs have some; the best one is what expected evaluations
            are about. By default, 51 between the worst and the best value seen, and the target of the runs,
            or where they have none the median of what they ended with.

    Returns:
        The page, then the pictures.

    Raises:
        RunDirectoryError: There is no run, or the page cannot be written.
        ValueError: `by` is none of these, or `targets` holds no number.

    Example:
        >>> import tempfile, zoo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for method in ("cma", "random"):
        ...         for seed in range(2):
        ...             out = f"{folder}/{method}/{seed}"
        ...             how = dict(method=method, budget=60, rng=seed, out=out)
        ...             result = zoo.minimize(lambda x: (x**2).sum(), [1.0, 2.0], **how)
        ...     page, *pictures = compare([folder], f"{folder}/compared")
        ...     print(page.name, pictures[0].name)
        compare.html evaluations.png
    """
    return write_comparison(comparisons(paths, by, targets), Path(out))


def comparisons(
    paths: Sequence[str | Path], by: str = "options", targets: Sequence[float] | None = None
) -> list[Comparison]:
    """Return what `compare` writes, without writing it."""
    chosen = None
    if targets is not None:
        chosen = np.array(sorted({check_number("targets", value) for value in targets}, reverse=True))
        if not len(chosen) or not np.isfinite(chosen).all():
            raise ValueError(f"`targets` must be finite numbers, at least one, got {list(targets)!r}.")
    sections = sections_of(read_entries(find_runs(paths)), by)
    return [_comparison(section, chosen) for section in sections]


def _comparison(section: Section, chosen: np.ndarray[Any, Any] | None) -> Comparison:
    if chosen is not None:
        chosen = np.sort(section.wording.sign * chosen)[::-1]
    targets = targets_of(section) if chosen is None else chosen
    if section.is_noisy:
        targets = targets[:0]
    finals = np.array([entry.final for entry in section.entries])
    finals = finals[np.isfinite(finals)]
    asked = {entry.target for entry in section.entries}
    if chosen is not None:
        target = float(chosen[-1])
    elif len(asked) == 1 and None not in asked:
        target = float(asked.pop() or 0.0)
    else:
        target = float(np.median(finals)) if len(finals) else np.inf
    summaries = sorted((summary(group, target) for group in section.groups), key=lambda one: one.median)
    pairs = pairs_of(section) if len(section.groups) > 1 else []
    return Comparison(section, target, targets, summaries, pairs, _remark(section, pairs), unequal(section))


def unequal(section: Section) -> str:
    """Return in a sentence in which circumstances runs differ, and whether all groups have the same ones."""
    alike: list[str] = []
    uneven: list[str] = []
    for name, value in _CIRCUMSTANCES.items():
        held = [{value(entry) for entry in group.entries} for group in section.groups]
        count = len(set[Any]().union(*held))
        if count > 1:
            (alike if all(one == held[0] for one in held) else uneven).append(f"{name} ({count} of them)")
    if len(section.groups) == 1 and alike:
        return (
            f"Runs differ in {' and '.join(alike)}: one median of all is of problems that are not the same."
        )
    sentences = []
    if uneven:
        sentences.append(f"Groups differ in {' and '.join(uneven)}: what tells them apart may be that alone.")
    if alike:
        sentences.append(f"Runs differ in {' and '.join(alike)}, which are the same ones in each group.")
    return " ".join(sentences)


def _remark(section: Section, pairs: Sequence[Pair]) -> str:
    """Return what the tests can and cannot say."""
    groups = section.groups
    if len(groups) < 2:
        return "There is one group only, so there is nothing to hold it against."
    counts = {group.name: len(group.independent) for group in groups}
    needed = runs_needed(len(groups) * (len(groups) - 1) // 2)
    sentences = []
    copies = [group.name for group in groups if len(group.entries) > counts[group.name]]
    if copies:
        sentences.append(
            f"Some runs of {', '.join(copies)} only repeat others: they have the same key and start, or a "
            "method that draws no random numbers. They count as one here."
        )
    if any(entry.target is not None and entry.final <= entry.target for entry in section.entries):
        sentences.append(
            "Runs that reached their target ended there: here they are draws, whoever was faster."
        )
    few = [f"{name} has {count}" for name, count in counts.items() if count < FEWEST]
    if few:
        sentences.append(
            f"Nothing is claimed of groups with fewer than {FEWEST} runs: {', '.join(few)}. With "
            f"{len(groups)} groups, {needed} runs of each are the fewest that can show a difference between "
            "any two; 10 to 20 are usual."
        )
    tested = [count for count in counts.values() if count >= FEWEST]
    if pairs and min(tested) < runs_needed(len(pairs)):
        sentences.append(
            f"With so few runs hardly any difference can be significant: it takes {needed} of each group."
        )
    return " ".join(sentences)


def write_comparison(found: Sequence[Comparison], out: Path) -> list[Path]:
    """Write the page of comparisons and the pictures on it."""
    names = list(dict.fromkeys(group.name for one in found for group in one.section.groups))
    styles = draw.styles(names)
    parts = []
    pictures: list[Picture] = []
    for number, one in enumerate(found):
        ending = f"_{number + 1}" if len(found) > 1 else ""
        shown = draw.pictures(one.section, one.targets, styles, ending)
        pictures += shown
        parts.append(
            {
                "comparison": one,
                "pictures": shown,
                "columns": columns_of(one),
                "counted": columns_of(one)[_COUNTED],
                "guide": GUIDE.format(better=one.section.wording.better),
                "rows": rows_of(one),
                "about_target": about_target(one),
                "pairs": pair_rows_of(one),
                "left_out": left_out(one),
            }
        )
    together = []
    with_targets = [(one.section, one.targets) for one in found if len(one.targets)]
    if len(with_targets) > 1 and len(names) > 1:
        together = draw.together(with_targets, styles)
        pictures = together + pictures
    runs = sum(len(one.section.entries) for one in found)
    unended = sum(not entry.has_ended for one in found for entry in one.section.entries)
    about = f"{runs} runs in {len(names)} group{'s' if len(names) != 1 else ''}"
    about += f", on {len(found)} objectives" if len(found) > 1 else ""
    about += f"; {unended} of them have not ended" if unended else ""
    content = {
        "title": "Runs compared",
        "pair_columns": PAIR_COLUMNS,
        "summary": f"{about}.",
        "parts": parts,
        "together": together,
    }
    return write_page(out, "compare", pictures, out, content)


def columns_of(one: Comparison) -> tuple[str, ...]:
    """Return the heads of the table of a section, in the words of the kind of its runs."""
    wording = one.section.wording
    own = {"Evaluations": wording.evaluations.capitalize()}
    if wording.value != PLAIN.value:
        own |= {head: f"{head} {wording.value}" for head in ("Median", "Best")}
    return tuple(own.get(head, head) for head in COLUMNS)


def rows_of(one: Comparison) -> list[tuple[str, ...]]:
    """Return the table of a section, with as many digits as tell its medians apart."""
    digits = _digits(np.array([row.median for row in one.summaries]))

    sign = one.section.wording.sign

    def value(number: float) -> str:
        return f"{sign * number + 0.0:.{digits}g}" if np.isfinite(number) else "none"

    def quartiles(row: Summary) -> str:
        if not np.isfinite(row.lower):
            return "none"
        return " to ".join(value(end) for end in (row.lower, row.upper)[::sign])

    return [
        (
            row.name,
            str(row.runs),
            value(row.median),
            quartiles(row),
            value(row.best),
            f"{row.evaluations:,.0f}",
            "none" if row.ert is None else f"{row.ert:,.0f}" if np.isfinite(row.ert) else "never",
            "none" if row.successes is None else f"{row.successes} of {row.runs}",
        )
        for row in one.summaries
    ]


def about_target(one: Comparison) -> str:
    """Return what the columns of the target hold, or why there is nothing in them."""
    if not np.isfinite(one.target):
        return (
            "To the target, and who reached it: not computed. There is no target, since no run found a point "
            "that has a value and keeps to the constraints."
        )
    wording = one.section.wording
    target = wording.sign * one.target
    if one.section.is_noisy:
        words = (
            f"Reached it: runs that ended at {target:.6g} or {wording.better}, by fresh "
            f"{wording.evaluations}. When a target was reached is neither computed nor drawn: "
        )
        words += (
            "episodes are random, and the best of many in the search is a lucky one."
            if wording.sign < 0
            else "the function is random, and the lowest of the single values in the log is a lucky one."
        )
        unended = sum(not entry.has_ended for entry in one.section.entries)
        by = "the best one in the search" if wording.sign < 0 else "the median of the last step"
        return words + (f" {unended} without an end: by {by}." if unended else "")
    return (
        f"To the target: {wording.evaluations} to reach {one.target:.6g}, all that were made before it or in "
        "vain, over the runs that reached it (the expected running time of COCO)."
    )


def _digits(values: np.ndarray[Any, Any]) -> int:
    values = np.unique(values[np.isfinite(values)])
    gaps = np.diff(values)
    if not len(gaps):
        return 5
    return int(np.clip(2 + np.ceil(np.log10(np.abs(values).max() / gaps.min())), 5, 12))


def pair_rows_of(one: Comparison) -> list[tuple[str, ...]]:
    """Return the table of pairs, the clearest differences first."""
    return [
        (
            pair.first,
            pair.second,
            f"{pair.effect:.2f}",
            short(pair.adjusted),
            verdict(pair, one.section.wording.better),
        )
        for pair in one.pairs[:_MOST_PAIRS]
    ]


def left_out(one: Comparison) -> str:
    """Return what there is to say of pairs that are not in the table; nothing if there are none."""
    rest = one.pairs[_MOST_PAIRS:]
    if not rest:
        return ""
    lowest = rest[0].adjusted
    return f"Of {len(rest)} more pairs, p is {short(lowest)}{' or more' if lowest < 1 else ''}."


def verdict(pair: Pair, better: str = "lower") -> str:
    """Return what a test says, in words, of which a better value is "lower" or "higher"."""
    if pair.adjusted > LEVEL:
        return "no difference shown"
    return f"{pair.first if pair.effect > 0.5 else pair.second} is {better}"
