"""What many runs say together, against numbers known from elsewhere."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.registry import list_methods
from zoo.report.entries import Entry, Group, Section
from zoo.report.statistics import (
    attained,
    expected_evaluations,
    hits,
    holm,
    pairs_of,
    quantiles,
    runs_needed,
    summary,
    targets_of,
)

KEYS = itertools.count()
START = {"x0": np.zeros(2)}


def entry(best, evaluations=None, final=None, **config):
    best = np.array(best, float)
    evaluations = np.arange(1, len(best) + 1) * 10 if evaluations is None else np.array(evaluations)
    final = final if final is not None else best[-1] if len(best) else np.inf
    config = {"method": "cma", "key": str(next(KEYS)), **config}
    return Entry(Path("run"), config, 1, evaluations, best, evaluations / 1e3, float(final), True, START)


def section(**groups):
    return Section("f", [Group(name, entries) for name, entries in groups.items()])


def ends(*values):
    """Runs that begin differently and end with these values."""
    return [entry([10 + index, value]) for index, value in enumerate(values)]


def test_a_target_is_hit_at_the_first_value_that_is_as_low():
    run = entry([np.inf, 5, 5, 2, 1])
    assert hits(run, [6, 5, 4.9, 2, 1, 0.5]).tolist() == [20, 20, 40, 40, 50, np.inf]
    assert hits(entry([]), [1.0]).tolist() == [np.inf]
    assert hits(entry([np.inf, np.inf]), [1.0, np.inf]).tolist() == [np.inf, np.inf]


def test_expected_evaluations_are_those_of_coco():
    # Two runs reach 1 after 20 and 40 evaluations, one gives up after 60: (20 + 40 + 60) / 2.
    runs = [entry([3, 1]), entry([4, 3, 2, 1, 0]), entry([5] * 6)]
    assert expected_evaluations(runs, 1.0) == (60.0, 2)
    assert expected_evaluations(runs, -1.0) == (math.inf, 0)


def test_distribution_counts_pairs_of_runs_and_targets():
    runs = [entry([3, 1], dim=2), entry([2, 2], dim=2)]
    x, share = attained(runs, np.array([3.0, 1.0]))
    assert x.tolist() == [10, 10, 20]
    assert share.tolist() == [0.25, 0.5, 0.75]
    assert attained(runs, np.array([0.0]))[0].tolist() == []


@pytest.mark.parametrize("offset", [0.0, -37.5, 1e3])
def test_targets_go_from_the_worst_to_the_best(offset):
    runs = [entry(offset + np.array([1e2, 1e-1, 1e-4])), entry(offset + np.array([1e3, 1.0, 1e-2]))]
    targets = targets_of(section(one=runs))
    assert len(targets) == 51
    assert targets[0] == pytest.approx(offset + 1e3)
    assert (np.diff(targets) < 0).all()
    ratios = targets[1:] / targets[:-1] if offset == 0 else np.diff(targets - targets[-1])[:1]
    assert np.allclose(ratios, ratios[0])
    assert targets[-1] >= offset + 1e-4 * (1 - 1e-9)
    assert np.isfinite(hits(runs[0], targets)).all()


def test_targets_where_there_is_nothing_to_choose():
    assert targets_of(section(one=[entry([]), entry([np.inf])])).tolist() == []
    assert targets_of(section(one=[entry([2.0, 2.0])])).tolist() == [2.0]


def test_effect_and_p_of_groups_without_overlap():
    (pair,) = pairs_of(section(low=ends(1, 2, 3, 4), high=ends(5, 6, 7, 8)))
    assert pair[:3] == ("low", "high", 1.0)
    assert pair.p == pytest.approx(2 / math.comb(8, 4))


def test_effect_counts_draws_as_half_and_p_of_ties_is_exact():
    one, other = [1, 2, 2, 3], [2, 3, 4, 5, 5]
    (pair,) = pairs_of(section(one=ends(*one), other=ends(*other)))
    wins = [(a < b) + 0.5 * (a == b) for a in one for b in other]
    assert pair.effect == pytest.approx(np.mean(wins))
    pool, sums = one + other, []
    for chosen in itertools.combinations(range(9), 4):
        mine, theirs = [pool[i] for i in chosen], [pool[i] for i in range(9) if i not in chosen]
        sums.append(sum((a < b) + 0.5 * (a == b) for a in mine for b in theirs))
    tail = np.mean(np.array(sums) >= sum(wins))
    assert pair.p == pytest.approx(2 * tail)


def test_runs_that_ended_without_a_value_are_the_worst():
    low, high = ends(1, 2, 3, 4), [entry([np.inf], [10 * k]) for k in (1, 2, 3, 4)]
    (pair,) = pairs_of(section(low=low, high=high))
    assert pair.effect == 1.0
    assert pair.p < 0.05


def test_all_equal_is_no_difference():
    (pair,) = pairs_of(section(one=ends(1, 1, 1, 1), other=ends(1, 1, 1, 1)))
    assert (pair.effect, pair.p) == (0.5, 1.0)


def test_few_runs_and_copies_are_not_tested():
    three, four = ends(1, 2, 3), ends(5, 6, 7, 8)
    assert pairs_of(section(three=three, four=four)) == []
    copies = [entry([9, 1])] * 10
    assert Group("copies", copies).independent.tolist() == [1]
    assert pairs_of(section(copies=copies, four=four)) == []


def test_equal_values_of_unequal_keys_are_evidence_where_numbers_are_drawn():
    def independent(**config):
        return Group("equal", [entry([3, 1], **config) for _ in range(5)]).independent.tolist()

    assert independent(method="cma") == [1] * 5
    assert independent(method="cma", key="same") == [1]
    assert independent(method="nelder-mead") == [1]
    assert independent(method="nelder-mead", options={"dict": {"restarts": True}}) == [1] * 5
    assert independent(method="coordinate-descent") == [1]
    assert independent(method="coordinate-descent", options={"dict": {"num_directions": 1}}) == [1] * 5
    cyclic = {"dict": {"num_directions": 1, "order": "cyclic"}}
    assert independent(method="coordinate-descent", options=cyclic) == [1]
    assert independent(method="of:somebody") == [1]


def test_of_runs_with_one_key_the_longest_counts():
    runs = [entry([3, 2, 1], key="same"), entry([3, 2], key="same"), entry([4, 4], key="other")]
    assert Group("budgets", runs).independent.tolist() == [1, 4]
    moved = dataclasses.replace(runs[1], start={"x0": np.ones(2)})
    assert Group("starts", [runs[0], moved]).independent.tolist() == [1, 2]


@pytest.mark.parametrize("method", [name for name, one in list_methods().items() if one.target[:4] == "zoo."])
def test_methods_without_draws_are_those_that_do_the_same_with_any_key(method):
    def points(key):
        found = []
        zoo.minimize(
            lambda x: found.append(x.tolist()) or float(((x - 0.3) ** 2).sum()),
            [1.0, 2.0],
            bounds=None if method == "cbo-manifold" else [(-3, 3)] * 2,
            method=method,
            budget=40,
            rng=key,
        )
        return found

    assert (points(0) != points(1)) == entry([1.0], method=method).draws


def test_reaching_the_target_is_a_draw():
    quick = [entry([9, 0.01 * k], target=0.1) for k in (1, 2, 3, 4)]
    slow = [entry([9, 5, 0.02 * k + 0.001], target=0.1) for k in (1, 2, 3, 4)]
    (pair,) = pairs_of(section(quick=quick, slow=slow))
    assert pair.effect == 0.5


def test_holm_never_goes_down_nor_above_1():
    # An example of Holm's own procedure: sorted p times the number of those left, made monotone.
    assert holm([0.01, 0.02, 0.022, 0.09]) == pytest.approx([0.04, 0.06, 0.06, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_fewest_runs_that_can_show_anything():
    for pairs in (1, 3, 10, 45):
        runs = runs_needed(pairs)
        assert 2 / math.comb(2 * runs, runs) * pairs <= 0.05
        assert runs == 4 or 2 / math.comb(2 * runs - 2, runs - 1) * pairs > 0.05


def test_quantiles_of_what_may_be_infinite():
    assert [float(q) for q in quantiles(np.array([1.0, 2.0, 3.0, 4.0]))] == [1.75, 2.5, 3.25]
    assert [float(q) for q in quantiles(np.array([1.0, np.inf, np.inf]))][1:] == [np.inf, np.inf]
    found = quantiles(np.array([[1.0, np.inf], [3.0, np.inf]]))
    assert [one.tolist() for one in found] == [[1.5, np.inf], [2.0, np.inf], [2.5, np.inf]]


def test_summary_of_a_group():
    row = summary(Group("g", [entry([3, 1]), entry([4, 3, 2, 1, 0.5]), entry([5] * 6)]), 1.0)
    assert row == ("g", 3, 1.0, 0.75, 3.0, 0.5, 50.0, 2, 60.0)
