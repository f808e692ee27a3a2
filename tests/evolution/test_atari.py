"""Atari games: pictures and rewards against ale-py's own, starts, ends, and what an episode depends on."""

import numpy as np
import pytest

from evolution import evolve
from evolution.environments.atari import AtariEnvironment, game_of, games, id_of
from evolution.environments.lookup import as_environment
from evolution.environments.spaces import Discrete, Image

pytest.importorskip("ale_py")

GAME = "ALE/Frostbite-v5"


@pytest.fixture(scope="module")
def used():
    """An environment that other tests use as well: an episode in it is as one in a new one, see below."""
    return AtariEnvironment(GAME)


def random_actions(count, seed=0, high=18):
    return np.random.default_rng(seed).integers(0, high, count)


def played(environment, seeds, count=12, first=0):
    """Return everything that is shown and given in some steps, the same actions in each episode."""
    shown, rewards = [environment.begin(seeds)], []
    for action in random_actions(count, first):
        step = environment.step(np.full(len(seeds), action))
        shown.append(step.observations)
        rewards.append(step.rewards)
    return np.stack(shown), np.stack(rewards)


# Against ale-py.


@pytest.mark.parametrize(
    ("game", "fire"),
    [("frostbite", False), ("breakout", True), ("pooyan", False), ("air_raid", False)],
    ids=["210-lines", "fire", "220-lines", "250-lines"],
)
def test_pictures_and_rewards_are_those_of_the_vectorized_environment(game, fire):
    """With screens of 210, 220 and 250 lines, and of colours that shrink to halves."""
    from ale_py.vector_env import AtariVectorEnv

    ours = AtariEnvironment(game, noops=0, fire_reset=fire, full_action_space=True)
    theirs = AtariVectorEnv(
        game,
        1,
        num_threads=1,
        noop_max=0,
        use_fire_reset=fire,
        full_action_space=True,
        reward_clipping=False,
    )
    seen = ours.begin([5])
    expected, _ = theirs.reset(seed=np.array([5]))
    np.testing.assert_array_equal(seen, expected)
    total = 0.0
    for action in random_actions(120):
        step = ours.step(np.array([action]))
        expected, reward, over, _, _ = theirs.step(np.array([action]))
        np.testing.assert_array_equal(step.observations, expected)
        assert step.rewards[0] == reward[0]
        assert step.ended[0] == over[0]
        total += step.rewards[0]
        if over[0]:
            break


def test_rewards_are_points_and_not_clipped():
    environment = AtariEnvironment(GAME, noops=0)
    environment.begin([0])
    rewards = [environment.step(np.array([action])).rewards[0] for action in random_actions(250)]
    assert max(rewards) == 10.0


def test_a_step_skips_frames_and_shows_the_larger_of_the_last_two():
    """Two environments that take one and four frames a step; the larger pixels are those before shrinking."""
    once, four = AtariEnvironment(GAME, noops=0, frame_skip=1), AtariEnvironment(GAME, noops=0)
    once.begin([0])
    four.begin([0])
    for action in random_actions(20):
        screens = []
        reward = 0.0
        for _ in range(4):
            reward += once.step(np.array([action])).rewards[0]
            screens.append(once._under_way[0].last.copy())
        step = four.step(np.array([action]))
        assert step.rewards[0] == reward
        np.testing.assert_array_equal(four._under_way[0].last, np.maximum(*screens[-2:]))
    assert (once.frames_per_step, four.frames_per_step) == (1, 4)


def test_shrinking_is_the_mean_over_areas():
    from evolution.environments.atari import _Shrink

    screen = np.random.default_rng(0).integers(0, 256, (210, 160)).astype(np.uint8)
    out = np.empty((84, 84), np.uint8)
    _Shrink(210, 160)(screen, out)
    # An 84th of each side is 2.5 lines and 40/21 columns: repeated 2 and 21 times, it is 5 and 40.
    fine = screen.repeat(2, axis=0).repeat(21, axis=1).astype(np.int64)
    sums = fine.reshape(84, 5, 84, 40).sum(axis=(1, 3))
    exact = sums / 200
    is_half = sums % 200 == 100
    np.testing.assert_array_equal(out[~is_half], np.rint(exact)[~is_half])
    assert (np.abs(out - exact)[is_half] == 0.5).all()


# Episodes.


def test_an_episode_is_a_function_of_its_seed_and_its_actions(used):
    fresh = AtariEnvironment(GAME)
    for i in range(10):
        played(used, [100 + i, 200 + i], count=5 + i, first=i)
    for one, other in zip(played(fresh, [7]), played(used, [7]), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(fresh.behaviour("ram"), used.behaviour("ram"))


def test_episodes_side_by_side_do_not_touch_one_another(used):
    together = played(used, [3, 4, 5])
    for i, seed in enumerate([3, 4, 5]):
        shown, rewards = played(used, [seed])
        np.testing.assert_array_equal(shown[:, 0], together[0][:, i])
        np.testing.assert_array_equal(rewards[:, 0], together[1][:, i])


def test_kept_episodes_go_on_as_they_were(used):
    left, alone = used, AtariEnvironment(GAME)
    left.begin([3, 4, 5])
    alone.begin([4])
    first, second = random_actions(15), random_actions(15, 1)
    for action in first:
        left.step(np.array([0, action, 1]))
        alone.step(np.array([action]))
    left.keep(np.array([1]))
    for action in second:
        np.testing.assert_array_equal(
            left.step(np.array([action])).observations, alone.step(np.array([action])).observations
        )
    np.testing.assert_array_equal(left.render(), alone.render())


def test_observations_are_the_callers(used):
    first = used.begin([0])
    before = first.copy()
    for action in random_actions(6):
        shown = used.step(np.array([action])).observations
    np.testing.assert_array_equal(first, before)
    assert not np.shares_memory(first, shown)


def test_pictures_are_stacked_with_the_newest_last(used):
    shown, _ = played(used, [0, 1])
    assert (shown[0, :, :-1] == 0).all()
    np.testing.assert_array_equal(shown[1:, :, :-1], shown[:-1, :, 1:])


def test_idle_frames_are_drawn_from_the_seed(used):
    counts = [used._idle_frames(seed) for seed in range(600)]
    assert set(counts) == set(range(1, 31))
    used.begin([11])
    assert used._under_way[0].ale.getEpisodeFrameNumber() == used._idle_frames(11)
    starts = {used.begin([seed]).tobytes() for seed in range(8)}
    assert len(starts) > 1


def test_without_idle_frames_all_episodes_begin_alike():
    environment = AtariEnvironment(GAME, noops=0)
    np.testing.assert_array_equal(environment.begin([1]), environment.begin([2]))


def test_an_episode_ends_after_its_most_steps_and_not_before():
    environment = AtariEnvironment(GAME, max_steps=3)
    environment.begin([0, 1])
    ends = [environment.step(np.zeros(2, np.int64)).ended.tolist() for _ in range(3)]
    assert ends == [[False, False], [False, False], [True, True]]
    environment.begin([0])
    assert not environment.step(np.zeros(1, np.int64)).ended[0]


def test_an_episode_goes_on_after_a_life_and_ends_with_the_game(used):
    used.begin([0])
    lives = set()
    for action in random_actions(1500):
        lives.add(used._under_way[0].ale.lives())
        if used.step(np.array([action])).ended[0]:
            break
    else:
        pytest.fail("the game was never over")
    assert len(lives) >= 4


def test_behaviour_is_the_memory_of_the_game(used):
    played(used, [0, 1])
    ram = used.behaviour("ram")
    assert used.behaviours == {"ram": 128}
    assert (ram.shape, ram.dtype) == ((2, 128), np.float64)
    np.testing.assert_array_equal(ram[1], used._under_way[1].ale.getRAM())
    with pytest.raises(ValueError, match="no behaviour 'position'"):
        used.behaviour("position")


def test_the_screen_is_shown_in_colour():
    environment = AtariEnvironment(GAME)
    assert environment.render() is None
    environment.begin([0])
    screen = environment.render()
    assert screen is not None
    assert (screen.shape, screen.dtype) == ((210, 160, 3), np.uint8)
    assert (screen[..., 0] != screen[..., 2]).any()


# What is given.


def test_spaces_are_those_of_the_game():
    assert AtariEnvironment(GAME).spaces.actions == Discrete(18)
    breakout = AtariEnvironment("ALE/Breakout-v5", stack=2)
    assert breakout.spaces.actions == Discrete(4)
    assert breakout.spaces.observations == Image(2, 84, 84)
    assert breakout.begin([0]).shape == (1, 2, 84, 84)
    assert AtariEnvironment("breakout", full_action_space=True).spaces.actions == Discrete(18)


def test_fire_is_pressed_where_it_is_asked_for():
    """The ball of Breakout waits for it."""
    waiting, pressed = (
        AtariEnvironment("breakout", noops=0),
        AtariEnvironment("breakout", noops=0, fire_reset=True),
    )
    after = []
    for environment in (waiting, pressed):
        environment.begin([0])
        for _ in range(200):
            over = environment.step(np.zeros(1, np.int64)).ended[0]
            if over:
                break
        after.append(environment._under_way[0].ale.lives())
    assert after[0] == 5
    assert after[1] < 5


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ALE/Frostbite-v5", "frostbite"),
        ("ms_pacman", "ms_pacman"),
        ("MsPacman", "ms_pacman"),
        ("ALE/KeystoneKapers-v5", "keystone_kapers"),
    ],
)
def test_games_go_by_their_names(name, file):
    assert game_of(name) == file


def test_ids_of_games_are_those_that_are_registered():
    gymnasium = pytest.importorskip("gymnasium")
    import ale_py

    gymnasium.register_envs(ale_py)
    registered = {
        name: spec.kwargs["game"] for name, spec in gymnasium.registry.items() if name.startswith("ALE/")
    }
    assert {id_of(game): game for game in games()} == registered
    assert all(game_of(name) == game for name, game in registered.items())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ALE/Frostbite-v6", "'ALE/Frostbite-v5'"),
        ("ALE/Frostbite-v4", "'ALE/Frostbite-v5'"),
        ("ALE/frostbite-v5", "'ALE/Frostbite-v5'"),
        ("ALE/Frostbite", "'ALE/Frostbite-v5'"),
        ("ALE/Frostbit-v5", "'ALE/Frostbite-v5'"),
        ("ALE/ms_pacman-v5", "'ALE/MsPacman-v5'"),
    ],
)
def test_other_versions_are_no_games(name, near):
    with pytest.raises(ValueError, match="`game` must name one of the") as raised:
        game_of(name)
    assert f"got {name!r}. Did you mean {near}" in str(raised.value)
    with pytest.raises(ValueError, match="`environment` must be one that is known") as raised:
        as_environment(name)
    assert f"got {name!r}. Did you mean {near}" in str(raised.value)


def test_games_of_several_players_alone_are_left_out():
    """The emulator would end the process."""
    known = games()
    assert len(known) > 100
    assert "warlords" not in known
    with pytest.raises(ValueError, match="got 'warlords'"):
        game_of("warlords")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"game": "ALE/Frostbit-v5"}, ValueError, "got 'ALE/Frostbit-v5'. Did you mean 'ALE/Frostbite-v5'?"),
        ({"game": 3}, TypeError, "`game` must be the name of a game, such as 'ALE/Frostbite-v5', got 3."),
        ({"game": GAME, "max_steps": 0}, ValueError, "`max_steps` must be at least 1, got 0."),
        ({"game": GAME, "noops": -1}, ValueError, "`noops` must be at least 0, got -1."),
        ({"game": GAME, "frame_skip": 0}, ValueError, "`frame_skip` must be at least 1, got 0."),
        ({"game": GAME, "stack": 2.0}, TypeError, "`stack` must be an integer, got 2.0: write 2."),
        (
            {"game": GAME, "full_action_space": 1},
            TypeError,
            "`full_action_space` must be True or False, got 1.",
        ),
        ({"game": GAME, "fire_reset": None}, TypeError, "`fire_reset` must be True or False, got None."),
        ({"game": GAME, "slots": 0}, ValueError, "`slots` must be at least 1, got 0."),
    ],
    ids=["unknown", "no-text", "steps", "noops", "skip", "stack", "actions", "fire", "slots"],
)
def test_bad_arguments_are_refused(arguments, kind, message):
    with pytest.raises(kind) as raised:
        AtariEnvironment(**arguments)
    assert message in str(raised.value)


# A run.


@pytest.mark.parametrize(
    "policy", ["atari-small", "tests.evolution.torch_networks:pictures"], ids=["named", "own"]
)
def test_the_same_seed_gives_the_same_run(policy):
    """Two generations of six, the best two tried again: 16 episodes of 8 steps."""
    options = {"population_size": 6, "num_parents": 2, "elite_candidates": 2, "elite_episodes": 1}
    runs = [
        evolve(
            GAME,
            "deep-ga",
            policy=policy,
            options=options,
            max_steps=8,
            generations=2,
            test_episodes=1,
            noise_table=2**21,
            rng=seed,
        )
        for seed in (0, 0, 1)
    ]
    assert runs[0].frames == 16 * 8 * 4
    assert runs[0].genome == runs[1].genome
    assert runs[0].genome != runs[2].genome
    np.testing.assert_array_equal(runs[0].parameters, runs[1].parameters)
    for name, column in runs[0].history.items():
        np.testing.assert_array_equal(column, runs[1].history[name])
