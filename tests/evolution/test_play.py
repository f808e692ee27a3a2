"""Champions at work: returns, films, windows and files."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evolution
from evolution import playing
from evolution.environments.cart_pole import CartPole
from tests.commands import commands
from zoo.core.errors import RunDirectoryError
from zoo.core.state import digest

SMALL = {"population_size": 12, "num_parents": 4, "sigma": 0.3, "elite_candidates": 2, "elite_episodes": 3}


class Blind(CartPole):
    """An environment without pictures."""

    def render(self):
        return None


class Raising(CartPole):
    """An environment that cannot be drawn where it is."""

    def render(self):
        raise OSError("no light\nhere")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a run, and its result."""
    path = tmp_path_factory.mktemp("play") / "run"
    found = evolution.evolve(
        "cart-pole", options=SMALL, generations=4, test_episodes=5, normalize=True, rng=1, out=path
    )
    return path, found


@pytest.fixture
def zoo(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    yield from commands(monkeypatch, capfd)


def test_a_champion_is_the_one_that_was_found(run):
    path, found = run
    champion = playing.champion_of(path)
    assert np.array_equal(champion.parameters, found.parameters)
    assert champion.genome == found.genome
    assert champion.score == found.score
    assert champion.normalizer is not None
    assert len(champion.trials) == 5
    assert np.mean([trial.score for trial in champion.trials]) == pytest.approx(found.score)


def test_a_film_is_the_episode_that_was_tried(run):
    champion = playing.champion_of(run[0])
    for trial in champion.trials[:1]:
        shot = playing.film(champion, trial)
        assert (shot.score, shot.steps) == (trial.score, trial.steps)
        # A hundredth of a second is the unit of time in GIF files.
        assert len(shot.pictures) * shot.seconds == pytest.approx(trial.steps / 50, abs=2 * shot.seconds)
    best = playing.best_of(champion.trials)
    assert best is not None
    assert best.score == max(trial.score for trial in champion.trials)
    image = Image.open(io.BytesIO(shot.gif()))
    assert image.format == "GIF"
    assert image.width <= 320
    assert image.n_frames > 1
    assert image.info["loop"] == 0


def test_long_episodes_lose_pictures_and_not_their_end(run):
    champion = playing.champion_of(run[0])
    trial = playing.Trial(champion.trials[0].seed, 0.0, 10**6)  # as if it had been that long
    assert len(playing.film(champion, trial).pictures) == 2
    whole = [scene.steps for scene in playing.scenes(champion, trial.seed)]
    assert whole == list(range(champion.trials[0].steps + 1))
    some = [scene.steps for scene in playing.scenes(champion, trial.seed, 7)]
    assert some[-1] == whole[-1]
    assert some[:-1] == whole[: whole[-1] : 7]


def test_the_same_seed_plays_the_same_episodes(run):
    champion = playing.champion_of(run[0])
    one, other = playing.play(champion, 4, seed=3), playing.play(champion, 4, seed=4)
    assert playing.play(champion, 4, seed=3) == one
    assert {trial.seed for trial in one}.isdisjoint(trial.seed for trial in other)
    assert [trial.score for trial in one] == [float(trial.steps) for trial in one]


def test_a_run_under_way_has_a_champion(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.run.loop.CHECKPOINT_SECONDS", 0)
    best = {}

    def keep(generation):
        if generation.retrial:
            best[generation.step] = generation.best
            shutil.copytree(tmp_path / "run", tmp_path / str(generation.step))

    settings = {"options": SMALL, "generations": 2, "test_episodes": 3, "rng": 1}
    evolution.evolve("cart-pole", **settings, callback=keep, out=tmp_path / "run")
    assert len(best) == 2
    for step, score in best.items():
        champion = playing.champion_of(tmp_path / str(step))
        assert champion.trials == ()
        assert champion.score == score


def test_a_stopped_run_has_the_champion_that_was_returned(tmp_path):
    settings = {"options": SMALL, "budget": 500, "test_episodes": 3, "rng": 1}

    def at(steps):
        def stop(generation):
            if generation.step == steps:
                raise StopIteration

        return stop

    evolution.evolve("cart-pole", **settings, callback=at(2), out=tmp_path / "a")
    found = evolution.evolve("cart-pole", **settings, callback=at(4), out=tmp_path / "a")
    champion = playing.champion_of(tmp_path / "a")
    assert len(champion.trials) == 3  # and not those of the first stop as well
    assert champion.score == found.score == pytest.approx(np.mean([one.score for one in champion.trials]))
    assert np.array_equal(champion.parameters, found.parameters)


@pytest.mark.parametrize("method", ["deep-ga", "openai-es"])
def test_where_nothing_was_learnt_there_is_no_champion(zoo, tmp_path, monkeypatch, method):
    kept = tmp_path / "killed"

    def keep(generation):
        if generation.step == 1:
            shutil.copytree(tmp_path / "run", kept)

    options = SMALL if method == "deep-ga" else {"population_size": 4}
    settings = {"options": options, "generations": 2, "test_episodes": 3, "rng": 1}
    evolution.evolve("cart-pole", method, **settings, callback=keep, out=tmp_path / "run")
    done = zoo("play", "killed")
    assert done.status == 2
    assert "killed has no champion yet: its newest checkpoint, of step 0, " in done.err
    assert "`zoo resume killed` goes on" in done.err
    assert zoo("play", "run", "--episodes", 1).status == 0


def test_play_prints_returns(zoo, run):
    done = zoo("play", run[0], "--episodes", 3)
    assert done.status == 0, done.err
    assert len(done.json["returns"]) == 3
    assert done.json["score"] == pytest.approx(np.mean(done.json["returns"]))
    assert done.json["best"] == max(done.json["returns"])
    assert list(Path().iterdir()) == []


def test_play_writes_films_and_champions(zoo, run):
    done = zoo("play", run[0], "--episodes", 3, "--gif", "pole.gif", "--export", "pole.safetensors")
    assert done.json["gif"] == "pole.gif"
    with Image.open("pole.gif") as image:
        assert image.n_frames > 1
    again = zoo("play", "pole.safetensors", "--episodes", 3)
    assert again.json["returns"] == done.json["returns"]
    champion = playing.champion_of("pole.safetensors")
    assert champion.genome == playing.champion_of(run[0]).genome
    assert champion.family is not None


def test_a_reference_batch_is_collected_again_for_a_file(tmp_path):
    options = {"population_size": 2, "validation_every": 1, "validation_episodes": 1}
    environment = "tests.evolution.environments_of_users:Pictured"
    evolution.evolve(
        environment,
        "openai-es",
        policy="atari-virtual-batch-norm",
        options=options,
        generations=1,
        test_episodes=1,
        rng=1,
        out=tmp_path / "run",
    )
    champion = playing.champion_of(tmp_path / "run")
    again = playing.champion_of(champion.save(tmp_path / "file"))
    assert again.policy.describe() == champion.policy.describe()
    assert playing.play(again, 2) == playing.play(champion, 2)


def test_a_result_can_be_saved_and_played(run, tmp_path):
    path, found = run
    champion, again = playing.champion_of(path), playing.champion_of(found.save(tmp_path / "champion"))
    assert np.array_equal(again.parameters, found.parameters)
    assert (again.genome, again.codec) == (found.genome, found.codec)
    assert digest(again.family) == digest(champion.family)
    assert digest(again.normalizer) == digest(found.normalizer)
    assert (again.score, again.names) == (found.score, champion.names)
    assert playing.play(again, 3) == playing.play(champion, 3)
    assert (tmp_path / "champion").read_bytes() == champion.save(tmp_path / "other").read_bytes()


def test_members_of_the_lineage_can_be_had(zoo, run, tmp_path):
    path, found = run
    lineage = found.state.lineage
    for member in (*found.state.parents.tolist(), int(lineage.ids[0])):
        one = playing.champion_of(path, member)
        assert one.genome == lineage.genome(member)
        assert np.array_equal(one.parameters, found.codec.decode(one.genome))
        assert one.normalizer is not None
        assert playing.champion_of(one.save(tmp_path / "one")).genome == one.genome
    done = zoo("play", path, "--member", member, "--episodes", 2, "--export", "one.safetensors")
    assert done.json["returns"] == [trial.score for trial in playing.play(one, 2)]
    assert evolution.load_individual("one.safetensors").genome == one.genome


def test_who_is_gone_or_was_never_there_is_said(zoo, run):
    path, found = run
    done = zoo("play", path, "--member", 10**6)
    assert done.status == 2
    parents = ", ".join(map(str, sorted(found.state.parents.tolist())))
    assert f"got 1000000. Parents: {parents}; they" in " ".join(done.err.split())
    found.save("file")
    assert "`member` must be left out for a file" in zoo("play", "file", "--member", 1).err
    evolution.evolve(
        "cart-pole",
        "openai-es",
        options={"population_size": 2},
        generations=1,
        rng=1,
        out="es",
        test_episodes=0,
    )
    assert "its method keeps no chains of seeds" in " ".join(zoo("play", "es", "--member", 1).err.split())


@pytest.mark.parametrize("method", ["openai-es", "deep-ga"])
def test_a_result_of_objects_can_be_saved(tmp_path, method):
    options = {**SMALL, "elite_candidates": 0} if method == "deep-ga" else {"population_size": 2}
    found = evolution.evolve(CartPole, method, options=options, generations=1, test_episodes=0, rng=1)
    assert found.names is None
    again = evolution.load_individual(found.save(tmp_path / "champion"), found.policy)
    assert np.array_equal(again.parameters, found.parameters)
    assert (again.genome, again.environment) == (found.genome, {})
    np.testing.assert_equal(again.score, found.best)


def test_what_cannot_be_played_is_said(zoo, run, tmp_path):
    assert "there is no directory or file nowhere." in zoo("play", "nowhere").err
    Path("text").write_text("nothing")
    assert zoo("play", "text").status == 2
    zoo("minimize", "zoo.problems:sphere", "--x0", "0x2", "--budget", 10, "--out", "sphere")
    assert "no champion to be seen" in zoo("play", "sphere").err
    evolution.evolve(Blind, options=SMALL, generations=1, test_episodes=1, rng=1, out=tmp_path / "object")
    done = zoo("play", "object")
    assert done.status == 2
    assert "was started with an object as `environment`" in done.err


def test_an_environment_without_pictures_is_said(run):
    champion = playing.champion_of(run[0])
    for kind, said in ((Blind, "Blind draws no pictures."), (Raising, "cannot be drawn here: no light.")):
        other = evolution.playing.Champion(
            kind.__name__, _Source(kind), champion.policy, champion.parameters, champion.normalizer
        )
        with pytest.raises(playing.NotShown, match=said):
            playing.film(other, champion.trials[0])


class _Source:
    def __init__(self, kind):
        self.kind = kind

    def build(self, *, pictures=False):
        return self.kind()


def test_a_window_shows_the_episode(run, monkeypatch):
    pygame = pytest.importorskip("pygame")
    from evolution import window

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(window.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(window, "scenes", lambda *given: itertools.islice(playing.scenes(*given), 12))
    shown = []
    monkeypatch.setattr(pygame.display, "flip", lambda: shown.append(pygame.display.get_caption()[0]))
    champion = playing.champion_of(run[0])
    window.show(champion, champion.trials[0])
    assert shown == ["cart-pole"] * 12
    assert not pygame.display.get_init()


def test_no_run_no_champion(tmp_path):
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        playing.champion_of(tmp_path / "nowhere")
