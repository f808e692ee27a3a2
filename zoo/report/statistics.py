"""What many runs say together: when targets were reached, and whether a difference is more than luck."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.report.entries import Entry, Group, Section

Array = np.ndarray[Any, Any]

NUM_TARGETS = 51
FEWEST = 4  # runs of a group, below which nothing is claimed of it
LEVEL = 0.05
_MOST_PERMUTATIONS = 20_000


class Pair(NamedTuple):
    """Two groups held against each other.

    Attributes:
        first: Name of a group.
        second: Name of another one.
        effect: Vargha and Delaney's A12: how often a run of the first one ends lower than one of the
            second, draws counted as half.
        p: Of the two-sided test of Mann and Whitney.
        adjusted: That p by Holm's method, for all pairs of the section.
    """

    first: str
    second: str
    effect: float
    p: float
    adjusted: float


class Summary(NamedTuple):
    """The runs of a group in numbers.

    `ert` is infinite where the target was never reached. It and `successes` are None where there is nothing
    to be said.
    """

    name: str
    runs: int
    median: float
    lower: float
    upper: float
    best: float
    evaluations: float
    successes: int | None
    ert: float | None


def targets_of(section: Section) -> Array:
    """Return values to be reached, from the worst to the best one that was seen.

    The worst is the highest first value of a run, and they are even on a logarithmic scale. Where all values
    are positive and range over more than two decades, they themselves are; else their distances to the best
    one, of which the smallest is that of the second best end of a run.
    """
    best = [entry.best[np.isfinite(entry.best)] for entry in section.entries]
    best = [one for one in best if len(one)]
    if not best:
        return np.empty(0)
    high, low = float(max(one[0] for one in best)), float(min(one[-1] for one in best))
    if high == low:
        return np.array([low])
    if low > 0 and high > 100 * low:
        return np.geomspace(high, low, NUM_TARGETS)
    gaps = np.array([one[-1] for one in best]) - low
    gaps = gaps[gaps > 1e-8 * (high - low)]
    smallest = float(gaps.min()) if len(gaps) else 1e-8 * (high - low)
    return low + np.geomspace(high - low, min(smallest, 0.5 * (high - low)), NUM_TARGETS)


def hits(entry: Entry, targets: Array) -> Array:
    """Return after how many evaluations a run reached each target, infinity for never."""
    targets = np.asarray(targets, float)
    index = np.searchsorted(-entry.best, -targets, side="left")
    reached = np.append(entry.evaluations.astype(float), np.inf)
    return np.where(np.isfinite(targets), reached[index], np.inf)  # no value is no target


def attained(entries: Sequence[Entry], targets: Array, divided: bool = False) -> tuple[Array, Array]:
    """Return the distribution of when pairs of a run and a target were reached, as (evaluations, share).

    Args:
        entries: The runs.
        targets: The values.
        divided: Whether to divide evaluations by the number of variables.
    """
    times = [hits(entry, targets) / (entry.config.get("dim") or 1 if divided else 1) for entry in entries]
    return distribution(np.concatenate(times))


def distribution(times: Array) -> tuple[Array, Array]:
    """Return when which share of some things had happened, infinity for never."""
    finite = np.sort(times[np.isfinite(times)])
    return finite, np.arange(1, len(finite) + 1) / max(len(times), 1)


def expected_evaluations(entries: Sequence[Entry], target: float) -> tuple[float, int]:
    """Return COCO's expected running time to a target, and how many runs reached it.

    All evaluations made before the target or in vain, over the runs that reached it.
    """
    when = np.array([hits(entry, np.array([target]))[0] for entry in entries])
    reached = np.isfinite(when)
    spent = np.where(reached, when, [entry.length for entry in entries]).sum()
    return (float(spent / reached.sum()) if reached.any() else math.inf), int(reached.sum())


def summary(group: Group, target: float) -> Summary:
    """Return a group in numbers, with the evaluations it takes to a target; infinite, it is none.

    Where the function is random, runs are counted that ended as low, and nothing is said of when: their logs
    hold single values, the lowest of which says little of the point.
    """
    finals = group.finals
    ert: float | None = None
    successes: int | None = None
    if math.isfinite(target) and group.is_noisy:
        successes = int((finals <= target).sum())
    elif math.isfinite(target):
        ert, successes = expected_evaluations(group.entries, target)
    lower, median, upper = quantiles(finals)
    length = float(np.median([entry.length for entry in group.entries]))
    return Summary(group.name, len(finals), median, lower, upper, float(finals.min()), length, successes, ert)


def quantiles(values: Array, axis: int = 0) -> tuple[Any, Any, Any]:
    """Return lower quartile, median and upper quartile; values may be infinite."""
    with np.errstate(invalid="ignore"):
        found = np.quantile(values, (0.25, 0.5, 0.75), axis=axis)
    safe = np.quantile(values, (0.25, 0.5, 0.75), axis=axis, method="higher")
    lower, median, upper = np.where(np.isnan(found), safe, found)
    return lower, median, upper


def pairs_of(section: Section) -> list[Pair]:
    """Return all pairs of groups that have enough runs, the clearest difference first."""
    samples = {group.name: group.independent for group in section.groups}
    samples = {name: finals for name, finals in samples.items() if len(finals) >= FEWEST}
    found = []
    for (one, mine), (other, theirs) in itertools.combinations(samples.items(), 2):
        statistic, p = _tested(mine, theirs)
        effect = 1 - statistic / (len(mine) * len(theirs))
        found.append(Pair(one, other, effect, 1.0 if math.isnan(p) else p, 1.0))
    found.sort(key=lambda pair: pair.p)
    adjusted = holm([pair.p for pair in found])
    return [pair._replace(adjusted=p) for pair, p in zip(found, adjusted, strict=True)]


def _tested(one: Array, other: Array) -> tuple[float, float]:
    """Return the statistic of Mann and Whitney and its two-sided p: exact, with ties, too, of few runs."""
    from scipy.stats import PermutationMethod, mannwhitneyu

    tied = len(np.unique([*one, *other])) < len(one) + len(other)
    exact = tied and math.comb(len(one) + len(other), len(one)) <= _MOST_PERMUTATIONS
    method = PermutationMethod(n_resamples=_MOST_PERMUTATIONS) if exact else "auto"
    found = mannwhitneyu(one, other, alternative="two-sided", method=method)
    return float(found.statistic), float(found.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return ascending p-values adjusted for being so many, by Holm's method.

    Example:
        >>> holm([0.01, 0.02, 0.9])
        [0.03, 0.04, 0.9]
    """
    scaled = [min(1.0, p * (len(ps) - index)) for index, p in enumerate(ps)]
    return list(itertools.accumulate(scaled, max))


def runs_needed(num_pairs: int) -> int:
    """Return how many runs of each group it takes until a clear difference can be significant.

    Example:
        >>> runs_needed(1), runs_needed(6)
        (4, 5)
    """
    runs = FEWEST
    while 2 / math.comb(2 * runs, runs) * num_pairs > LEVEL:
        runs += 1
    return runs
