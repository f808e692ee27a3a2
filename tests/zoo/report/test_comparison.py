"""The comparison of many runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from tests.zoo.report import runs
from tests.zoo.report.test_single import HOSTILE, Elements
from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.report import compare, comparison_figures
from zoo.report.comparison import comparisons, rows_of
from zoo.report.entries import find_runs, read_entries, sections_of


def rosenbrock(x):
    return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two objectives, two methods, five seeds, and two settings of one method."""
    folder = tmp_path_factory.mktemp("bench")
    for seed in range(5):
        for name, fun in (("sphere", runs.sphere), ("rosenbrock", rosenbrock)):
            for method in ("cma", "random"):
                out = folder / name / method / f"seed-{seed}"
                zoo.minimize(fun, np.ones(2) * 2, method=method, budget=100 + 20 * seed, rng=seed, out=out)
        out = folder / "sphere" / "wide" / f"seed-{seed}"
        zoo.minimize(
            runs.sphere, np.ones(2) * 2, budget=100, rng=seed, out=out, options={"population_size": 12}
        )
    return folder


def test_groups_and_sections(folder):
    entries = read_entries(find_runs([folder]))
    found = sections_of(entries)
    assert [section.title.partition(":")[2] for section in found] == [
        "rosenbrock, 2 variables",
        "sphere, 2 variables",
    ]
    assert [group.name for group in found[0].groups] == ["cma", "random"]
    assert [group.name for group in found[1].groups] == ["cma", "cma (population_size=12)", "random"]
    assert [len(group.entries) for group in found[1].groups] == [5, 5, 5]
    assert [group.name for group in sections_of(entries, "method")[1].groups] == ["cma", "random"]
    assert [group.name for group in sections_of(entries, "folder")[1].groups] == ["cma", "random", "wide"]
    (one,) = sections_of(entries, "objective")
    assert [len(group.entries) for group in one.groups] == [15, 10]
    assert len(sections_of(entries, "budget")[0].groups) == 5
    assert [group.name for group in sections_of(entries, "workers")[0].groups] == ["1 worker"]


def test_what_is_compared_is_what_runs_did(folder):
    path = folder / "sphere" / "cma" / "seed-3"
    (entry,) = read_entries([path])
    result = json.loads((path / "result.json").read_text())
    assert entry.final == entry.best[-1] == result["fun"]
    assert entry.length == result["nfev"]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        at = np.searchsorted(entry.evaluations, line["nfev"], side="right") - 1
        assert entry.best[at] == line["best"]


def test_page_and_pictures(folder, tmp_path):
    page, *pictures = compare([folder], tmp_path / "out")
    drawn = Elements(page.read_text())
    assert page == tmp_path / "out" / "compare.html"
    assert len(drawn.all("figure")) == len(pictures) == 9
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "25 runs in 3 groups, on 2 objectives." in drawn.text
    assert "cma is lower" in drawn.text
    assert "<script" not in page.read_text()


def test_a_difference_is_found_and_said(folder):
    found = comparisons([folder / "sphere" / "cma", folder / "sphere" / "random"])
    (pair,) = found[0].pairs
    assert (pair.first, pair.second, pair.effect) == ("cma", "random", 1.0)
    assert pair.adjusted == pair.p == pytest.approx(2 / 252)
    assert [row.name for row in found[0].summaries] == ["cma", "random"]
    assert found[0].target == pytest.approx(np.median([entry.final for entry in found[0].section.entries]))
    json.dumps(found[0].plain)


def test_too_few_runs_say_how_many_it_takes(folder, tmp_path):
    paths = [folder / "sphere" / method / f"seed-{seed}" for method in ("cma", "random") for seed in (0, 1)]
    (found,) = comparisons(paths)
    assert found.pairs == []
    assert "fewer than 4 runs: cma has 2, random has 2" in found.remark
    assert "4 runs of each are the fewest" in found.remark
    (alone,) = comparisons([folder / "sphere" / "cma"])
    assert "one group only" in alone.remark
    compare(paths[:1], tmp_path)


def test_copies_are_not_taken_for_evidence(tmp_path):
    for seed in range(4):
        for method in ("nelder-mead", "cma"):
            zoo.minimize(
                runs.sphere, np.ones(2), method=method, budget=60, rng=seed, out=tmp_path / method / str(seed)
            )
    (found,) = comparisons([tmp_path])
    assert found.pairs == []
    assert "Some runs of nelder-mead only repeat others" in found.remark
    assert "nelder-mead has 1" in found.remark


def test_targets_of_ones_own(folder):
    (found,) = comparisons([folder / "sphere" / "cma"], targets=[1e-2, 1.0, 1e-2])
    assert found.targets.tolist() == [1.0, 1e-2]
    assert found.target == 1e-2
    assert found.summaries[0].successes == 5
    for targets in ([], [float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="`targets` must be finite numbers"):
            comparisons([folder], targets=targets)
    with pytest.raises(ValueError, match=r"`by` must be one of .* Did you mean 'method'"):
        comparisons([folder], by="methods")


@pytest.mark.parametrize("kind", ["noisy", "constrained", "several", "all failed", "no step", "under way"])
def test_every_kind_of_run_is_compared(kind, tmp_path):
    made = runs.make(kind, tmp_path / "run")
    page, *pictures = compare([made], tmp_path / "out")
    (entry,) = read_entries([made])
    assert page.exists()
    assert "evaluations.png" in {picture.name for picture in pictures}
    assert np.isfinite(entry.final) == (kind != "all failed")
    assert (np.diff(entry.best[np.isfinite(entry.best)]) <= 0).all()
    assert entry.has_ended == (kind != "under way")


def test_what_keeps_to_no_constraint_has_no_value(tmp_path):
    zoo.minimize(
        runs.sphere, np.zeros(2), budget=30, rng=0, out=tmp_path / "run",
        constraints={"type": "ineq", "fun": lambda x: -1.0},
    )  # fmt: skip
    (entry,) = read_entries([tmp_path / "run"])
    assert entry.final == np.inf
    assert np.isinf(entry.best).all()


def test_where_nothing_has_a_value_no_target_is_reached(tmp_path):
    for seed in range(4):
        for method in ("cma", "random"):
            zoo.minimize(
                runs.sphere, np.zeros(2), method=method, budget=30, rng=seed,
                out=tmp_path / method / str(seed),
                constraints={"type": "ineq", "fun": lambda x: -1.0 - x[0] ** 2},
            )  # fmt: skip
    (found,) = comparisons([tmp_path])
    assert found.target == np.inf
    assert {(row.successes, row.ert) for row in found.summaries} == {(None, None)}
    assert {row[-2:] for row in rows_of(found)} == {("none", "none")}
    text = Elements(compare([tmp_path], tmp_path / "out")[0].read_text()).text
    assert "There is no target, since no run found a point that has a value" in text
    assert "inf" not in text
    (found,) = comparisons([tmp_path], targets=[1.0])
    assert {row[-2:] for row in rows_of(found)} == {("never", "0 of 4")}


def test_lucky_values_reach_no_target(tmp_path):
    paths = [
        runs.log(
            tmp_path / f"{method}{seed}",
            {"best": [9.0, -1.0], "median": [9.0, 2.0 + seed]},
            method=method,
            key=str(seed),
            noise=True,
        )
        for method in ("cma", "random")
        for seed in range(4)
    ]
    (found,) = comparisons(paths, targets=[3.0])
    assert [(row.successes, row.ert) for row in found.summaries] == [(2, None)] * 2
    assert {row[-2:] for row in rows_of(found)} == {("none", "2 of 4")}
    page, *pictures = compare(paths, tmp_path / "out")
    assert "targets.png" not in {picture.name for picture in pictures}
    text = Elements(page.read_text()).text
    assert "ended at 3.5 or lower, by fresh evaluations" in text
    assert "neither computed nor drawn: the function is random" in text
    assert "without an end: by the median of the last step" in text


def test_unequal_problems_are_said_to_be(tmp_path):
    def one(name, start, width, budget, **how):
        bounds = [(start - width, start + width)] * 2
        zoo.minimize(runs.sphere, [start] * 2, bounds=bounds, budget=budget, out=tmp_path / name, **how)
        return tmp_path / name

    near = [one("cma/0", 1.0, 5, 30, rng=0), one("cma/1", 2.0, 5, 30, rng=1)]
    (found,) = comparisons(near)
    assert "Runs differ in bounds (2 of them) and starts (2 of them): one median" in found.unequal
    near += [one(f"random/{seed}", 1.0 + seed, 5, 30, rng=seed, method="random") for seed in (0, 1)]
    (found,) = comparisons(near)
    assert found.unequal == (
        "Runs differ in bounds (2 of them) and starts (2 of them), which are the same ones in each group."
    )
    (found,) = comparisons([*near, one("random/2", 1.0, 5, 40, rng=2, method="random")])
    assert "Groups differ in budgets (2 of them): what tells them apart may be that alone." in found.unequal
    assert found.plain["unequal"] == found.unequal
    text = Elements(compare([tmp_path], tmp_path / "out")[0].read_text()).text
    assert "Groups differ in budgets" in text
    (found,) = comparisons([tmp_path / "cma" / "0", tmp_path / "random" / "0"])
    assert found.unequal == ""


def test_lines_begin_where_there_are_values(tmp_path):
    columns = {"best": [0.1, 900.0, 40.0, 1.0], "violation": [1.0, 0.0, 0.0, 0.0]}
    late = [runs.log(tmp_path / str(seed), columns, key=str(seed)) for seed in range(3)]
    never = [runs.log(tmp_path / "never", {"best": [0.1, 0.1], "violation": [1.0, 1.0]}, method="random")]
    for paths, known in ((late, [900, 40, 1]), (late + never, [900, 40, 1]), (never, [])):
        (found,) = comparisons(paths)
        styles = comparison_figures.styles([group.name for group in found.section.groups])
        axes = comparison_figures.pictures(found.section, found.targets, styles, "")[0].figure.axes[0]
        drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
        assert set(drawn[np.isfinite(drawn)]) == set(known)
        assert [text.get_text() for text in axes.texts] == ([] if known else ["no value"])


def test_runs_are_found_once_and_nothing_else(folder, tmp_path):
    assert len(find_runs([folder, folder / "sphere", folder / "sphere" / "cma" / "seed-0"])) == 25
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        find_runs([folder, tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="there is no run in"):
        find_runs([folder, tmp_path / "empty"])


def test_a_damaged_run_is_left_out_with_a_warning(tmp_path):
    runs.make("one step", tmp_path / "runs" / "sound")
    runs.make("one step", tmp_path / "runs" / "damaged")
    (tmp_path / "runs" / "damaged" / "start.safetensors").unlink()
    with pytest.warns(ZooWarning, match=r"left out: .*damaged is no run directory"):
        compare([tmp_path / "runs"], tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="is no run directory"):
        compare([tmp_path / "runs" / "damaged"], tmp_path / "out")


def test_whatever_text_there_is_is_escaped(tmp_path):
    paths = [
        runs.log(
            tmp_path / f"{method}{seed}",
            {"best": [3.0, 2.0 + seed]},
            method=method,
            key=str(seed),
            objective={"name": HOSTILE},
        )
        for method in (HOSTILE, "$a_{b$")
        for seed in range(4)
    ]
    text = compare(paths, tmp_path / "out")[0].read_text()
    assert "<script" not in text
    assert Elements(text).text.count(HOSTILE) > 4


def test_many_groups(tmp_path):
    paths = [
        runs.log(
            tmp_path / f"{number}-{run}",
            {"best": [9.0 + run, -7.5 + 1e-6 * number + 1e-9 * run]},
            method=f"no. {number}",
            key=str(run),
        )
        for number in (10, 9, 2, 20, 1, 3, 4)
        for run in range(4)
    ]
    page, *pictures = compare(paths, tmp_path / "out")
    assert len(pictures) == 4
    text = Elements(page.read_text()).text
    places = [text.index(f"no. {number}") for number in (1, 2, 3, 4, 9, 10, 20)]
    assert places == sorted(places)
    assert "-7.499991" in text  # digits enough to tell one median from another
    assert "Of 6 more pairs, p is" in text
    (found,) = comparisons(paths)
    assert [group.name for group in found.section.groups] == [f"no. {n}" for n in (1, 2, 3, 4, 9, 10, 20)]
