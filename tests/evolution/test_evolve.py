"""From the name of an environment to a champion."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evolution
import zoo
from evolution.environments.cart_pole import CartPole
from evolution.job import COLUMNS
from tests.evolution import environments_of_users as users
from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key, keyed_generators
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_config

SMALL = {"population_size": 24, "num_parents": 5, "sigma": 0.5, "elite_candidates": 2, "elite_episodes": 5}


def evolved(**changes: Any) -> evolution.Evolution:
    settings = {"options": SMALL, "generations": 3, "test_episodes": 6, "rng": 7} | changes
    return evolution.evolve("cart-pole", settings.pop("method", "deep-ga"), **settings)


def played(found: evolution.Evolution, seeds: range) -> list[float]:
    """Return the returns of a champion, played by hand."""
    environment, returns = CartPole(), []
    for seed in seeds:
        observations, total = environment.begin([seed]), 0.0
        actor = found.policy.actor(found.parameters[None], np.zeros(1, np.int64))
        while True:
            shown = observations if found.normalizer is None else found.normalizer(observations)
            step = environment.step(actor.act(shown))
            total, observations = total + float(step.rewards[0]), step.observations
            if step.ended[0]:
                break
        returns.append(total)
    return returns


def test_a_run_counts_what_it_does() -> None:
    found = evolved()
    steps = 3 * [24] + 3 * [10]
    assert (found.episodes, found.generations, found.test_episodes) == (sum(steps), 3, 6)
    history = found.history
    assert list(history) == list(COLUMNS)
    assert history["retrial"].tolist() == [0, 1] * 3
    assert history["episodes"].tolist() == np.cumsum([24, 10] * 3).tolist()
    assert found.frames == history["frames"][-1] > found.episodes
    assert (np.diff(history["frames"]) > 0).all()
    assert history["best"][-1] == found.best
    assert found.success
    assert found.message == "all 3 generations are done"


def test_the_same_seed_gives_the_same_champion() -> None:
    one, other, another = evolved(), evolved(), evolved(rng=8)
    assert np.array_equal(one.parameters, other.parameters)
    assert (one.score, one.frames) == (other.score, other.frames)
    assert not np.array_equal(one.parameters, another.parameters)


def test_a_champion_is_its_genome_and_scores_what_it_is_said_to() -> None:
    found = evolved(generations=1)
    assert found.genome is not None
    assert found.codec is not None
    assert np.array_equal(found.codec.decode(found.genome), found.parameters)
    returns = played(found, range(50))
    spread = np.std(returns) / np.sqrt(50)
    assert abs(np.mean(returns) - found.score) < 5 * np.hypot(spread, found.score_error)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"score": 30.0}, "the score of 30 is reached"),
        ({"frames": 2000}, "2000 frames are over"),
        ({"budget": 68}, "the budget of 68 episodes is used up"),
        ({"seconds": 1e-9}, "the 1e-09 seconds are over"),
    ],
    ids=["score", "frames", "budget", "seconds"],
)
def test_a_run_ends_when_it_is_told_to(limit: dict[str, Any], message: str) -> None:
    found = evolved(generations=50, **limit)
    assert found.message == message
    assert found.generations < 50
    if "budget" in limit:
        assert found.episodes == 68
    if "frames" in limit:
        assert (found.history["frames"][:-2] < 2000).all()
        assert found.frames >= 2000
        assert found.history["retrial"][-1] == 1


def test_what_is_observed_is_normalized_where_that_is_wanted() -> None:
    found = evolved(normalize=True)
    assert found.normalizer is not None
    assert (found.normalizer.deviation >= 0.1).all()
    again = evolved(normalize=True)
    assert np.array_equal(found.normalizer.mean, again.normalizer.mean)  # type: ignore[union-attr]
    assert played(found, range(3)) == played(again, range(3))
    assert evolved().normalizer is None


def test_methods_of_zoo_serve_as_they_are() -> None:
    found = evolved(
        method="sep-cma",
        options={"population_size": 8, "validation_every": 2, "validation_episodes": 4},
        generations=4,
        score=None,
    )
    assert found.genome is None
    assert found.history["retrial"].tolist() == [0, 0, 1, 0, 0, 1]
    assert found.episodes == 4 * 8 + 2 * 4


STRATEGY = {"population_size": 8, "sigma": 0.2, "learning_rate": 0.2, "validation_episodes": 4}


@pytest.mark.parametrize(
    ("limits", "retrials", "episodes"),
    [
        ({"generations": 3}, [0, 0, 1, 0, 1], 32),  # the last mean is tried, too
        ({"generations": None, "budget": 35}, [0, 0, 1, 0, 1], 32),
        ({"generations": None, "budget": 31}, [0, 0, 1], 20),  # there is no room for another generation
        ({"generations": None, "budget": 12}, [0, 1], 12),
        ({"generations": None, "frames": 1}, [0, 1], 12),
    ],
    ids=["generations", "budget", "tight", "tightest", "frames"],
)
def test_what_a_strategy_learnt_last_is_tried(
    limits: dict[str, Any], retrials: list[int], episodes: int, tmp_path: Path
) -> None:
    settings = {"method": "openai-es", "options": STRATEGY | {"validation_every": 2}, **limits}
    found = evolved(**settings, out=tmp_path / "whole")
    assert found.history["retrial"].tolist() == retrials
    assert found.episodes == episodes
    assert np.isfinite(found.best) == (1 in retrials)

    def stop(told: evolution.Generation) -> None:
        if told.step == len(retrials) - 1:
            raise StopIteration

    evolved(**settings, out=tmp_path / "part", callback=stop)
    evolution.resume(tmp_path / "part")
    assert digest_of_run(tmp_path / "part") == digest_of_run(tmp_path / "whole")


def test_a_champion_that_was_never_judged_sees_what_it_learnt_to_see() -> None:
    def stop(told: evolution.Generation) -> None:
        if told.step == 2:
            raise StopIteration

    options = STRATEGY | {"validation_every": 50}
    found = evolved(method="openai-es", options=options, normalize=True, callback=stop)
    assert found.history["retrial"].tolist() == [0, 0]
    assert found.normalizer is not None
    assert (found.normalizer.mean != 0).all()


def test_what_is_left_of_a_budget_is_said() -> None:
    found = evolved(generations=None, budget=60)
    assert found.message == (
        "the budget of 60 episodes is used up: the last 26 are too few to go on, which takes 34"
    )
    assert found.episodes == 34


def test_a_champion_whose_episodes_fail_is_no_success() -> None:
    class Failing(CartPole):
        """Breaks in every fresh episode, which no step of the search has."""

        begun = 0

        def begin(self, seeds: Any) -> Any:
            Failing.begun += len(seeds)
            return super().begin(seeds)

        def step(self, actions: Any) -> Any:
            done = super().step(actions)
            if Failing.begun > 24 + 10:
                done.rewards[:], done.ended[:] = np.nan, True
            return done

    found = evolution.evolve(Failing, options=SMALL, generations=1, test_episodes=5, rng=0)
    assert np.isnan(found.score)
    assert not found.success
    assert "none of its champion's fresh episodes had a return" in found.message


def test_a_run_that_only_time_ends_is_not_gone_on_with_for_ever(tmp_path: Path) -> None:
    evolved(generations=None, seconds=1e-9, out=tmp_path / "run")
    with pytest.raises(ValueError, match="`seconds` must be given: nothing else is sure to end the run"):
        evolution.resume(tmp_path / "run")
    assert evolution.resume(tmp_path / "run", seconds=1e-9).episodes == 34


def test_networks_of_torch_act() -> None:
    from torch import nn

    with keyed_generators(Key(0)):
        network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    found = evolved(policy=network, generations=1)
    assert found.parameters.shape == (4 * 3 + 3 + 3 * 2 + 2,)
    assert np.isfinite(found.score)


def test_callbacks_are_told_and_may_end_a_run() -> None:
    seen: list[evolution.Generation] = []

    def watch(told: evolution.Generation) -> None:
        seen.append(told)
        if told.generation == 2:
            raise StopIteration

    found = evolved(callback=watch)
    assert found.message == "the callback asked to stop"
    assert [(one.step, one.generation, one.retrial) for one in seen] == [
        (1, 1, False),
        (2, 1, True),
        (3, 2, False),
    ]
    assert [one.episodes for one in seen] == [24, 34, 58]
    assert np.isfinite(found.score)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    def stop(told: evolution.Generation) -> None:
        if told.step == 3:
            raise StopIteration

    whole = evolved(out=tmp_path / "whole")
    part = evolved(out=tmp_path / "part", callback=stop)
    assert part.episodes < whole.episodes
    rest = evolution.resume(tmp_path / "part")
    assert np.array_equal(rest.parameters, whole.parameters)
    assert (rest.score, rest.episodes, rest.frames) == (whole.score, whole.episodes, whole.frames)
    assert digest_of_run(tmp_path / "part") == digest_of_run(tmp_path / "whole")
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "part")]
    assert files[0] == files[1]
    again = evolution.resume(tmp_path / "whole")  # which is over
    assert again.score == whole.score
    assert again.episodes == whole.episodes


def test_every_generation_ends_in_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evolution.job.EvolutionJob.checkpoint_seconds", 0.0)  # generations here are short
    found: list[str] = []

    def look(told: evolution.Generation) -> None:
        found.append(max(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()))

    evolved(out=tmp_path / "run", callback=look)
    assert found == [f"step_{step:09}" for step in range(1, 7)]


def test_another_run_is_refused(tmp_path: Path) -> None:
    evolved(out=tmp_path / "run", generations=1)
    with pytest.raises(RunDirectoryError, match=r"holds another run: 'episodes' differs"):
        evolved(out=tmp_path / "run", generations=1, episodes=2)
    zoo.minimize(lambda x: float(x @ x), np.ones(2), budget=20, rng=0, out=tmp_path / "other")
    with pytest.raises(RunDirectoryError, match="holds a run of another kind"):
        evolution.resume(tmp_path / "other")
    with pytest.raises(RunDirectoryError, match="holds a run of another kind"):
        evolved(out=tmp_path / "other")


def test_objects_are_to_be_given_again(tmp_path: Path) -> None:
    from torch import nn

    with keyed_generators(Key(0)):
        network = nn.Sequential(nn.Linear(4, 2))
    first = evolved(out=tmp_path / "run", policy=network, generations=2)
    with pytest.raises(RunDirectoryError, match=r"object as `policy`, Sequential.* give it again"):
        evolution.resume(tmp_path / "run")
    again = evolution.resume(tmp_path / "run", policy=network)
    assert again.score == first.score


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
def test_workers_change_nothing(normalize: bool) -> None:
    alone, two = (evolved(normalize=normalize, workers=workers) for workers in (1, 2))
    assert alone.parameters.tobytes() == two.parameters.tobytes()
    assert (alone.score, alone.best, alone.frames) == (two.score, two.best, two.frames)
    assert (alone.normalizer is not None) == (two.normalizer is not None) == normalize
    if alone.normalizer is not None and two.normalizer is not None:
        assert alone.normalizer.mean.any()
        assert alone.normalizer.mean.tobytes() == two.normalizer.mean.tobytes()
        assert alone.normalizer.deviation.tobytes() == two.normalizer.deviation.tobytes()


def test_a_behaviour_of_ones_own_is_a_function_or_its_name(tmp_path: Path) -> None:
    def novel(behaviour: Any, out: Path | None = None) -> evolution.Evolution:
        return evolution.evolve(
            f"{users.__name__}:Walk",
            "novelty-ga",
            max_steps=4,
            behaviour=behaviour,
            options=SMALL | {"archive_probability": 1.0, "elite_candidates": 0},
            generations=2,
            test_episodes=2,
            rng=1,
            out=out,
        )

    path = tmp_path / "run"
    called, by_name = novel(users.last_two), novel(f"{users.__name__}:last_two", path)
    assert np.array_equal(called.state.archive.array, by_name.state.archive.array)
    assert np.array_equal(called.parameters, by_name.parameters)
    assert by_name.state.archive.array.tolist() != novel("observation").state.archive.array.tolist()
    config = read_config(path)[0]
    assert config["behaviour"] == f"{users.__name__}:last_two"
    assert config["objective"]["attributes"]["behaviour"] == "custom"
    assert evolution.resume(path).score == by_name.score
    with pytest.raises(ValueError, match=r"`behaviour` must be one of 'observation', got 'observatoin'"):
        novel("observatoin")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generations": None}, "`generations`, `budget`, `frames` or `seconds` must be given"),
        ({"episodes": 0}, "`episodes` must be at least 1"),
        ({"budget": 33}, "`budget` must be at least 34 episodes, 24 of a first generation, and 10 in which"),
        ({"score": float("nan")}, "`score` must be a number that can be reached"),
        ({"test_episodes": -1}, "`test_episodes` must be at least 0"),
        ({"method": "deep-gs"}, r"unknown method 'deep-gs'. Did you mean 'deep-ga'\?"),
        ({"behaviour": "position"}, "`behaviour` must be one of"),
        ({"policy": "mpl"}, r"`policy` must be one of .*Did you mean 'mlp'\?"),
        ({"options": {"population_size": 4, "num_parents": 5}}, "`num_parents` must be at most"),
        ({"noise_table": 100}, "must have from 226 numbers"),
    ],
    ids=[
        "endless",
        "episodes",
        "budget",
        "score",
        "test",
        "method",
        "behaviour",
        "policy",
        "parents",
        "table",
    ],
)
def test_bad_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evolved(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"sigme": 1.0}}, r"unknown option of method 'deep-ga': 'sigme'. Did you mean 'sigma'\?"),
        ({"policy_options": {"hiden": (3,)}}, r"unknown options of the policy 'mlp' 'hiden'"),
        ({"normalize": 1}, "`normalize` must be True or False"),
        ({"callback": 3}, "`callback` must be a function"),
        ({"score": "high"}, "`score` must be a number"),
        ({"rng": 1.5}, "`rng` must be an integer"),
    ],
    ids=["option", "policy", "normalize", "callback", "score", "rng"],
)
def test_bad_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        evolved(**changes)


def test_a_table_that_is_given_is_used_and_none_is_drawn_where_none_is_wanted() -> None:
    drawn, short = evolved(noise_table=0), evolved(noise_table=4096)
    assert not np.array_equal(drawn.parameters, short.parameters)
    assert drawn.codec is not None
    assert short.codec is not None
    assert np.array_equal(drawn.codec.decode(drawn.genome), drawn.parameters)  # type: ignore[arg-type]
    assert short.codec.noise.size == 4096  # type: ignore[union-attr]


def test_generators_may_seed_a_run() -> None:
    one = evolved(rng=np.random.default_rng(3), generations=1)
    other = evolved(rng=np.random.default_rng(3), generations=1)
    assert np.array_equal(one.parameters, other.parameters)
    assert np.array_equal(evolved(rng=Key(7)).parameters, evolved().parameters)


def test_a_search_may_start_from_a_champion(tmp_path: Path) -> None:
    champion = evolved(options=SMALL | {"population_size": 48}, generations=2)
    options = SMALL | {"sigma": 0.01, "elite_candidates": 0}
    near = evolved(options=options, start=champion.parameters, generations=1, out=tmp_path / "near")
    assert 0 < np.abs(near.parameters - champion.parameters).max() < 0.06
    again = evolution.resume(tmp_path / "near")
    assert np.array_equal(again.parameters, near.parameters)
    with pytest.raises(RunDirectoryError, match="'start' differs"):
        evolved(options=options, start=champion.parameters + 1, generations=1, out=tmp_path / "near")
    moved = evolved(
        method="openai-es", options={"population_size": 4, "sigma": 1e-6}, start=champion.parameters
    )
    assert np.abs(moved.parameters - champion.parameters).max() < 0.1
    with pytest.raises(ValueError, match=r"`start` must be the 226 finite parameters .* shape \(3,\)"):
        evolved(start=np.zeros(3))
    with pytest.raises(ValueError, match=r"`start` must be the 226 finite parameters .* not finite\.$"):
        evolved(start=np.full(226, np.nan))


def test_a_reference_batch_is_watched_where_none_is_given() -> None:
    settings: dict[str, Any] = {"policy": "atari-virtual-batch-norm", "max_steps": 3, "test_episodes": 1}
    options = {"population_size": 2, "num_parents": 1, "elite_candidates": 0}
    found = evolution.evolve(
        "ALE/Breakout-v5", "deep-ga", **settings, options=options, generations=1, rng=0, noise_table=2**20
    )
    assert found.frames == 2 * 3 * 4
