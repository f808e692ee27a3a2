"""Reports of runs: what is drawn, and who descends from whom."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection

import evolution
import zoo
from evolution.environments.cart_pole import CartPole
from evolution.report.about import about
from evolution.report.behaviours import behaviour_map
from evolution.report.family import family_tree
from evolution.report.material import Ends, ends_of, family_of, state_of
from evolution.report.sections import sections
from zoo.report import write_report
from zoo.report.comparison import comparisons, rows_of, verdict, write_comparison
from zoo.run.journal import read
from zoo.run.reading import read_recording

SMALL = {"population_size": 12, "num_parents": 4, "sigma": 0.3, "elite_candidates": 2, "elite_episodes": 3}
TAKEN = {"generations": 4, "test_episodes": 3, "rng": 2, "noise_table": 5000}


class Blind(CartPole):
    """An environment without pictures."""

    def render(self):
        return None


class Populations(zoo.Watcher):
    """Notes of everybody in which generation it was first seen, and its mean return then."""

    def begin(self, run):
        self.first, self.episodes = {}, run.config["episodes"]

    def step(self, state, metrics):
        if metrics["retrial"]:
            return
        own, generation = state.optimizer.method, metrics["generation"]
        for number, value in zip(own.population.tolist(), own.values.tolist(), strict=True):
            self.first.setdefault(number, (generation, -value))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a run of each of some methods, by name, with who was seen in them."""
    folder, found = tmp_path_factory.mktemp("report"), {}
    for name, more in {
        "deep-ga": {"episodes": 2, "behaviour": "state"},
        "novelty-ga": {"options": {**SMALL, "elite_candidates": 0, "archive_probability": 0.3}},
        "openai-es": {
            "options": {"population_size": 8, "validation_every": 2, "validation_episodes": 3},
            "noise_table": None,
        },
    }.items():
        seen = Populations() if name != "openai-es" else None
        settings = {"options": SMALL, **TAKEN, **more}
        evolution.evolve("cart-pole", name, **settings, callback=seen, out=folder / name)
        found[name] = (folder / name, seen)
    return found


def words(page: Path) -> str:
    """Return what a page says, without films."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


@pytest.mark.parametrize("name", ["deep-ga", "novelty-ga"])
def test_the_family_is_who_was_born_when(runs, name):
    path, seen = runs[name]
    recording, state = read_recording(path), state_of(path)
    family = family_of(recording, state)
    lineage = family.lineage
    assert len(lineage) > len(family.line)
    for number, generation, score in zip(
        lineage.ids.tolist(), family.generations.tolist(), family.scores.tolist(), strict=True
    ):
        assert (generation, score) == (seen.first[number][0], pytest.approx(seen.first[number][1]))
    line = lineage.ids[family.line]
    assert line[-1] == family.champion
    assert lineage.parents[family.line[0]] == -1
    assert (lineage.parents[family.line[1:]] == line[:-1]).all()


def test_ends_are_those_of_generations_alone(runs):
    path, _ = runs["deep-ga"]
    ends = ends_of(read_recording(path), state_of(path))
    assert np.bincount(ends.generations).tolist() == [0, *[24] * 4]
    assert (ends.count, ends.behaviours.shape) == (96, (96, 4))
    first = next(record for record in read(path / "evaluations.bin"))
    assert ends.behaviours[: len(first.reply.values)].tolist() == first.reply.extras["behaviour"].tolist()
    assert ends.scores[: len(first.reply.values)].tolist() == (-first.reply.values).tolist()


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("novelty-ga", ["score_frames", "score_time", "behaviour_map", "family_tree", "best_episode"]),
        ("openai-es", ["score_frames", "score_time", "best_episode"]),
    ],
)
def test_a_report_holds_what_there_is(runs, tmp_path, name, drawn):
    path, _ = runs[name]
    page, *pictures = write_report(path, tmp_path / "out")
    assert [picture.stem for picture in pictures][: len(drawn)] == drawn
    for picture in pictures:
        begin = {"png": b"\x89PNG", "gif": b"GIF89a"}[picture.suffix[1:]]
        assert picture.read_bytes().startswith(begin)
    hidden = {"diagnostic_elite", "diagnostic_frames", "diagnostic_recommended", "value_evaluations"}
    assert hidden.isdisjoint(picture.stem for picture in pictures)
    text = words(page)
    assert f"cart-pole, evolved by {name}" in text
    assert "Score of the champion" in text
    assert "The best of its 3 fresh episodes: return " in text
    assert f"zoo play {path}" in text
    assert "evaluations.bin" not in text
    assert page.read_text().count('<img src="data:image/gif;base64,') == 1
    assert not (path / "report.html").exists()


def test_what_is_said_of_a_run(runs):
    path, _ = runs["deep-ga"]
    recording = read_recording(path)
    said = about(recording)
    numbers = dict(said.numbers)
    assert numbers["Generations"] == "4 of 4"
    assert numbers["Episodes"] == f"{recording.last('nfev'):,.0f}"
    assert numbers["Score of the champion"].startswith(f"{recording.result['score']:.6g} ± ")
    assert said.colour == "good"
    assert said.point_heading.endswith(" and itself, by their return at birth")
    assert dict(said.experiment)["Episodes of a member"] == "2"
    assert "resume" not in " ".join(command for _, command in said.commands)


def test_tables_say_what_it_is_in_full(runs):
    path, _ = runs["deep-ga"]
    said = about(read_recording(path))
    options = dict(said.experiment)["Options"]
    assert "population_size=12" in options
    assert "parent_selection=" in options or "sigma_decay=" in options
    counters = dict(said.counters)
    assert counters["Steps of the method, with trials"] == "8"
    episodes = int(dict(said.numbers)["Episodes"].replace(",", ""))
    assert counters["Episodes, with fresh ones at the end"] == f"{episodes + 3:,}"


def test_what_stayed_the_same_is_a_sentence_and_no_figure(runs):
    found = {heading: rest for heading, *rest in sections(read_recording(runs["deep-ga"][0]))}
    pictures, note = found["How the method searched"]
    assert note == "Step size: 0.3 all the time."
    assert [picture.name for picture in pictures] == ["diagnostic_ancestors"]
    assert pictures[0].caption.startswith("Individuals that are remembered")
    assert pictures[0].caption.endswith("; linear scale.")
    assert pictures[0].figure.axes[0].get_xlabel() == "episodes"
    found = {heading: rest for heading, *rest in sections(read_recording(runs["openai-es"][0]))}
    pictures, note = found["How the method searched"]
    assert (pictures, note) == ([], "Step size: 0.02 all the time.")


def test_a_champion_without_ancestors_has_none(tmp_path):
    options = {"population_size": 6, "elite_candidates": 2, "elite_episodes": 2}
    evolution.evolve("cart-pole", "random", options=options, **TAKEN, out=tmp_path / "run")
    recording = read_recording(tmp_path / "run")
    assert about(recording).point_heading == "The champion, which has no ancestors, by its return at birth"
    tree = family_tree(family_of(recording, state_of(tmp_path / "run")), np.nan)
    assert tree.caption.startswith("Return at birth of the champion, and of all others")


def killed(tmp_path, monkeypatch, steps, seconds):
    """Return the directory of a run as it is when killed after so many steps."""
    monkeypatch.setattr("zoo.run.loop.CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr("evolution.job.EvolutionJob.checkpoint_seconds", seconds)
    monkeypatch.setattr("zoo.run.directory._SECONDS", -1)  # lines of the log are written at once

    def keep(generation):
        if generation.step == steps:
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    evolution.evolve("cart-pole", options=SMALL, **TAKEN, callback=keep, out=tmp_path / "run")
    return tmp_path / "killed"


def test_a_run_under_way_is_reported(tmp_path, monkeypatch):
    path = killed(tmp_path, monkeypatch, 4, 0)
    page, *pictures = write_report(path)
    assert "The best of 3 episodes, as it is now: return " in words(page)
    assert "As of step" not in words(page)
    assert f"zoo resume {path}" in words(page)
    assert (path / "report" / "best_episode.gif") in pictures


def test_a_report_says_what_no_checkpoint_holds_yet(tmp_path, monkeypatch):
    page, *pictures = write_report(killed(tmp_path, monkeypatch, 4, 1e9))
    said = "As of step 0, the newest checkpoint, of 4 on record: the champion, its family and where everyone"
    assert f"{said} ended are left out until there is another." in words(page)
    assert {"best_episode", "family_tree"}.isdisjoint(picture.stem for picture in pictures)


def test_how_far_a_run_came_is_told_by_its_score(tmp_path, monkeypatch, capsys):
    path = killed(tmp_path, monkeypatch, 4, 0)
    from zoo.cli.report import _print

    _print(recording := read_recording(path))
    told = json.loads(capsys.readouterr().out)
    assert told["best"] == -recording.last("best") > 0
    assert told["message"] == "not finished"


def test_a_stopped_run_shows_the_trials_that_were_made_then(tmp_path):
    def stop(generation):
        if generation.generation == 2:
            raise StopIteration

    path = tmp_path / "run"
    evolution.evolve("cart-pole", options=SMALL, **TAKEN, callback=stop, out=path)
    assert "The best of its 3 fresh episodes: return " in words(write_report(path)[0])


def test_a_run_without_a_step_is_reported(tmp_path):
    def stop(generation):
        raise StopIteration

    path = tmp_path / "run"
    evolution.evolve("cart-pole", options=SMALL, **TAKEN, callback=stop, out=path)
    for file in ("result.json", "metrics.jsonl", "timings.jsonl"):
        (path / file).unlink()
    for folder in (path / "checkpoints").iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    page, *pictures = write_report(path)
    assert pictures == []
    assert "No step is on record, so there is nothing to draw." in words(page)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("evolution.environments.cart_pole:CartPole", ""),
        (f"{__name__}:Blind", "There is no film: "),
        (Blind, "There is no film: "),
    ],
    ids=["drawn", "blind", "object"],
)
def test_where_no_film_can_be_the_report_says_why(tmp_path, environment, said):
    evolution.evolve(environment, options=SMALL, **TAKEN | {"generations": 1}, out=tmp_path / "run")
    found = {
        heading: (pictures, note) for heading, pictures, note in sections(read_recording(tmp_path / "run"))
    }
    pictures, note = found["The champion"]
    assert note.startswith(said)
    assert ("best_episode" in [picture.name for picture in pictures]) == (not said)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_behaviours_of_any_size_are_drawn(runs, size):
    recording = read_recording(runs["deep-ga"][0])
    rows = np.random.default_rng(0).normal(size=(60, size)) * np.arange(1, size + 1)
    ends = Ends(rows, np.repeat(np.arange(3), 20), rows[:, 0], 600)
    picture = behaviour_map(recording, ends, rows[:5])
    assert picture.png().startswith(b"\x89PNG")
    assert "Drawn: 60 of 600." in picture.caption
    assert ("its 7 numbers differ most" in picture.caption) == (size == 7)
    assert ("Black rings: entries of the archive." in picture.caption) == (size > 1)
    alone = behaviour_map(recording, Ends(rows, np.zeros(60, int), rows[:, 0], 60), None)
    assert "rings" not in alone.caption
    assert "Drawn" not in alone.caption


def test_equal_returns_have_no_error(several):
    recording = read_recording(several / "any" / "0")
    assert recording.result["score_error"] == 0.0
    assert dict(about(recording).numbers)["Score of the champion"].endswith(" ± 0")


def test_a_maze_is_drawn_with_its_walls(tmp_path):
    options = {"population_size": 10, "num_parents": 3, "elite_candidates": 0, "archive_probability": 0.5}
    found = evolution.evolve(
        "maze", "novelty-ga", options=options, generations=2, test_episodes=1, rng=0, out=tmp_path / "run"
    )
    assert found.state.archive is not None
    recording, state = read_recording(tmp_path / "run"), state_of(tmp_path / "run")
    picture = behaviour_map(recording, ends_of(recording, state), found.state.archive.array)
    assert picture.caption.startswith("Where 20 episodes ended; ")
    assert picture.caption.endswith(" Black rings: entries of the archive.")
    (walls,) = [one for one in picture.figure.axes[0].collections if isinstance(one, LineCollection)]
    assert len(walls.get_segments()) == 13


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Return a directory of runs of two methods in one environment, and of one of them in another."""
    folder = tmp_path_factory.mktemp("several")
    plain = {"population_size": 6, "elite_candidates": 2, "elite_episodes": 2}
    named = {"ga": ("deep-ga", 60), "any": ("random", 60), "short": ("random", 20)}
    for seed in range(4):
        settings = TAKEN | {"generations": 2, "rng": seed, "test_episodes": 30}
        for name, (method, steps) in named.items():
            options = {**plain, "num_parents": 2} if method == "deep-ga" else plain
            out = folder / name / str(seed)
            evolution.evolve("maze", method, options=options, **settings, max_steps=steps, out=out)
    return folder


def scores(folder):
    return [read_recording(path).result["score"] for path in sorted(folder.iterdir())]


def test_runs_of_one_environment_alone_are_compared_by_score(several, tmp_path):
    both, short = comparisons([several / "any", several / "ga", several / "short"])
    assert both.section.title == "maze for 60 steps, mlp of 450 parameters"
    assert short.section.title == "maze for 20 steps, mlp of 450 parameters"
    said = {group["name"]: group for group in both.plain["groups"]}
    for name, folder in (("deep-ga", "ga"), ("random", "any")):
        found = scores(several / folder)
        assert said[name]["best"] == max(found)
        assert said[name]["median"] == pytest.approx(np.median(found))
        assert said[name]["lower"] <= said[name]["median"] <= said[name]["upper"]
    every = scores(several / "any") + scores(several / "ga")
    assert both.plain["target"] == pytest.approx(np.median(every))
    ((*_, reached),) = [row for row in rows_of(both) if row[0] == "random"]
    count = sum(score >= both.plain["target"] for score in scores(several / "any"))
    assert reached == f"{count} of 4"
    (pair,) = both.pairs
    pairs = [(one > other) + (one == other) / 2 for one in every[4:] for other in every[:4]]
    assert (pair.first, pair.effect) == ("deep-ga", pytest.approx(np.mean(pairs)))
    assert (
        verdict(pair._replace(effect=1.0, adjusted=0.01), both.section.wording.better) == "deep-ga is higher"
    )
    page, *pictures = write_comparison([both, short], tmp_path)
    text = words(page)
    assert "Best score against episodes" in text
    assert " or higher, by fresh episodes." in text
    assert "lower" not in text
    assert "Evaluations" not in text
    assert len(pictures) == 6


def test_targets_of_scores_are_scores(several):
    found = sorted(scores(several / "short"))
    (one,) = comparisons([several / "short"], targets=[-1e4, found[1], -2e4])
    assert one.plain["target"] == found[1]
    (row,) = rows_of(one)
    assert row[-1] == f"{sum(score >= found[1] for score in found)} of 4"


def test_other_settings_are_other_groups(several, tmp_path):
    settings = TAKEN | {"generations": 2, "normalize": True, "max_steps": 60}
    options = {"population_size": 6, "elite_candidates": 2, "elite_episodes": 2}
    evolution.evolve("maze", "random", options=options, **settings, out=tmp_path / "run")
    (one,) = comparisons([several / "any", tmp_path / "run"])
    names = [group.name for group in one.section.groups]
    assert names == ["random (normalize=False)", "random (normalize=True)"]


def test_runs_of_another_kind_are_never_in_one_table(several, tmp_path):
    zoo.minimize(lambda x: (x**2).sum(), [1.0, 2.0], budget=20, rng=0, out=tmp_path / "sphere")
    found = comparisons([several / "short", tmp_path / "sphere"], by="objective")
    assert [one.section.wording.better for one in found] == ["higher", "lower"]
