"""The hard maze, beside a plain reference that does one episode at a time in double precision."""

import math
from typing import ClassVar

import numpy as np
import pytest

from evolution import evolve
from evolution.environments.maze import HARD_MAZE, HardMaze, Maze
from evolution.environments.maze_picture import draw_maze
from zoo.core.rng import Key

AHEAD = np.array([[0.0], [0.5]], np.float32)


def seen_from(maze, x, y, heading):
    """Return what a robot sees, one ray and one wall at a time."""
    seen = [1.0]
    for turn in (-90, -45, 0, 45, 90, 180):
        end_x = x + 100 * math.cos(math.radians(heading + turn))
        end_y = y + 100 * math.sin(math.radians(heading + turn))
        nearest = 1.0
        for x1, y1, x2, y2 in maze.walls:
            denominator = (end_x - x) * (y2 - y1) - (end_y - y) * (x2 - x1)
            if denominator == 0:
                continue
            along_ray = ((y - y1) * (x2 - x1) - (x - x1) * (y2 - y1)) / denominator
            along_wall = ((y - y1) * (end_x - x) - (x - x1) * (end_y - y)) / denominator
            if 0 < along_ray < 1 and 0 < along_wall < 1:
                nearest = min(nearest, along_ray)
        seen.append(nearest)
    bearing = math.degrees(math.atan2(maze.goal[1] - y, maze.goal[0] - x)) - heading
    quarter = int((bearing + 45) % 360 // 90)
    return np.array(seen + [float(quarter == i) for i in range(4)])


def played(maze, policy, steps):
    """Return positions and what was seen, step by step."""
    (x, y), heading, turn, speed = maze.start, maze.heading, 0.0, 0.0
    seen, places = [seen_from(maze, x, y, heading)], [(x, y)]
    for _ in range(steps):
        first, second = policy(seen[-1])
        turn += min(max((min(max(first + 0.5, 0.0), 1.0) - 0.5) * 6 - turn, -0.2), 0.2)
        speed += min(max((min(max(second + 0.5, 0.0), 1.0) - 0.5) * 6 - speed, -0.2), 0.2)
        new_x = x + speed * math.cos(math.radians(heading))
        new_y = y + speed * math.sin(math.radians(heading))
        heading = (heading + turn) % 360
        free = True
        for x1, y1, x2, y2 in maze.walls:
            share = ((new_x - x1) * (x2 - x1) + (new_y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
            share = min(max(share, 0.0), 1.0)
            free &= math.hypot(new_x - x1 - share * (x2 - x1), new_y - y1 - share * (y2 - y1)) >= 8
        if free:
            x, y = new_x, new_y
        seen.append(seen_from(maze, x, y, heading))
        places.append((x, y))
    return np.array(places), np.array(seen)


def test_robots_go_and_see_as_in_a_plain_reference():
    count, steps = 1000, 50
    w1, w2 = Key(0).normal(0, count, 16 * 12), Key(1).normal(0, count, 2 * 17)
    w1, w2 = w1.reshape(count, 16, 12), w2.reshape(count, 2, 17)

    def act(weights, more, seen):
        hidden = np.tanh(np.einsum("...hi,...i->...h", weights[..., :11], seen) + weights[..., 11])
        return np.einsum("...oh,...h->...o", more[..., :16], hidden) + more[..., 16]

    env = HardMaze()
    observations = env.begin(range(count))
    places, seen = [env.behaviour("position")], [observations.T.copy()]
    for _ in range(steps):
        actions = np.clip(act(w1, w2, observations.T.astype(np.float64)), -1, 1)
        observations = env.step(actions.T.astype(np.float32)).observations
        places.append(env.behaviour("position"))
        seen.append(observations.T.copy())
    places, seen = np.array(places), np.array(seen)

    good, looked = 0, 0
    for i in range(count):
        expected, shown = played(HARD_MAZE, lambda seen, i=i: act(w1[i], w2[i], seen), steps)
        good += np.abs(places[:, i] - expected).max() <= 1e-2
        looked += np.abs(seen[:, i] - shown).max() <= 1e-2
    assert good >= 990
    assert looked >= 980
    moved = np.hypot(*(places[-1] - places[0]).T)
    assert np.median(moved) > 10  # else there was nothing to compare


def test_a_robot_in_a_room_sees_what_can_be_computed_by_hand():
    room = Maze(
        walls=((0, 0, 60, 0), (60, 0, 60, 40), (60, 40, 0, 40), (0, 40, 0, 0)), start=(20, 10), goal=(50, 35)
    )
    env = HardMaze(room)
    first = env.begin([0])[:, 0].tolist()
    half = math.sqrt(2)
    # y points down: at -90 degrees is the wall y = 0, at +90 the wall y = 40.
    expected = [1, 0.1, 0.1 * half, 0.4, 0.3 * half, 0.3, 0.2, 1, 0, 0, 0]
    assert first == pytest.approx(expected, abs=1e-6)
    turned = HardMaze(Maze(room.walls, room.start, room.goal, heading=90.0)).begin([0])[:, 0].tolist()
    assert turned == pytest.approx([1, 0.4, 0.3 * half, 0.3, 0.2 * half, 0.2, 0.1, 0, 0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("heading", [0.0, 90.0, 180.0, 270.0])
def test_walls_that_lie_on_a_ray_or_a_corner_cause_no_warning(heading):
    walls = ((0, 0, 60, 0), (40, 20, 80, 20), (20, 40, 20, 90))
    env = HardMaze(Maze(walls, start=(20, 20), goal=(20, 20), heading=heading))
    observations = env.begin([0])
    assert np.isfinite(observations).all()
    assert np.isfinite(env.step(AHEAD).observations).all()


def test_speed_grows_by_a_fifth_a_step_up_to_three():
    env = HardMaze()
    env.begin([0])
    x = [36.0]
    for _ in range(20):
        env.step(AHEAD)
        x.append(float(env.behaviour("position")[0, 0]))
    speeds = [min(0.2 * (step + 1), 3.0) for step in range(20)]
    np.testing.assert_allclose(np.diff(x), speeds, atol=1e-4)


def test_actions_beyond_a_half_are_as_a_half_and_zero_stands_still():
    ends = []
    for action in (0.5, 0.7, 1.0):
        env = HardMaze(max_steps=40)
        env.begin([0])
        for _ in range(40):
            env.step(np.full((2, 1), action, np.float32))
        ends.append(env.behaviour("position"))
    assert (ends[0] == ends[1]).all()
    assert (ends[0] == ends[2]).all()
    env.begin([0])
    for _ in range(40):
        env.step(np.zeros((2, 1), np.float32))
    assert env.behaviour("position").tolist() == [[36.0, 184.0]]


def test_the_reward_is_minus_the_distance_at_the_last_step_alone():
    env = HardMaze()
    env.begin([0, 1])
    rewards = []
    for step in range(400):
        done = env.step(np.repeat(AHEAD, 2, axis=1))
        assert done.ended.tolist() == [step == 399] * 2
        rewards.append(done.rewards)
    (x, y), _ = env.behaviour("position")
    assert (np.array(rewards[:-1]) == 0).all()
    assert rewards[-1].tolist() == [-math.hypot(x - 31, y - 20)] * 2
    assert x == pytest.approx(78)  # it comes to a stop less than a step before the wall from (77, 201)
    assert not HARD_MAZE.is_solved(np.array([[x, y]]))[0]
    assert env.solved == -10


def test_no_robot_comes_nearer_to_a_wall_than_its_radius():
    env = HardMaze()
    env.begin(range(64))
    actions = Key(2).normal(0, 4, 2 * 64).astype(np.float32).reshape(4, 2, 64)
    near = np.inf
    for step in range(400):
        env.step(actions[step // 100])
        x, y = env.behaviour("position").T[:, :, None]
        x1, y1, x2, y2 = np.array(HARD_MAZE.walls).T
        share = np.clip(
            ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2), 0, 1
        )
        near = min(near, np.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1)).min())
    assert 8 - 1e-3 < near < 8.5


def test_an_episode_does_not_depend_on_what_runs_beside_or_before_it():
    actions = np.tanh(Key(3).normal(0, 60, 2 * 5).astype(np.float32)).reshape(60, 2, 5)
    env = HardMaze()
    together = [env.begin(range(5))[:, 3:4].copy()]
    for step in range(60):
        if step == 40:
            env.keep(np.array([1, 3]))
        where, place = (slice(None), 3) if step < 40 else ([1, 3], 1)
        shown = env.step(actions[step][:, where]).observations
        together.append(shown[:, place : place + 1].copy())
    alone = [env.begin([9]).copy()]
    alone += [env.step(actions[step][:, 3:4]).observations.copy() for step in range(60)]
    np.testing.assert_array_equal(np.array(together), np.array(alone))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"walls": ()}, ValueError, "`walls` must have at least one wall"),
        ({"walls": ((0, 0, 1),)}, ValueError, r"`walls\[0\]` must be 4 finite numbers"),
        ({"walls": ((0, 0, 1, math.inf),)}, ValueError, r"`walls\[0\]` must be 4 finite numbers"),
        ({"walls": (7,)}, TypeError, r"`walls\[0\]` must be 4 numbers, got 7"),
        ({"walls": ((1, 2, 1, 2),)}, ValueError, r"`walls\[0\]` must have a length"),
        ({"start": (10, 5)}, ValueError, r"`start` must be at least 8 from every wall.*5 from `walls\[0\]`"),
        ({"goal": (1, 2, 3)}, ValueError, "`goal` must be 2 finite numbers"),
        ({"goal": "ab"}, TypeError, "`goal` must be 2 numbers, got 'ab'"),
        ({"heading": math.nan}, ValueError, "`heading` must be finite"),
        ({"goal_radius": 0}, ValueError, "`goal_radius` must be a finite number above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_mazes_that_cannot_be_are_refused(change, error, said):
    fields = {"walls": ((0, 0, 50, 0),), "start": (20, 20), "goal": (40, 20)}
    with pytest.raises(error, match=said):
        Maze(**{**fields, **change})


def test_a_maze_may_come_from_a_file():
    fields = {"walls": [[0, 0, 50, 0]], "start": [20, 20], "goal": [40, 20]}
    assert HardMaze(fields).maze == Maze(((0.0, 0.0, 50.0, 0.0),), (20.0, 20.0), (40.0, 20.0))
    with pytest.raises(TypeError, match=r"unknown part of `maze` 'gaol'\. Did you mean 'goal'"):
        HardMaze({**fields, "gaol": [1, 2]})
    with pytest.raises(TypeError, match="got none for 'goal'"):
        HardMaze({"walls": [[0, 0, 50, 0]], "start": [20, 20]})
    with pytest.raises(TypeError, match="`maze` must be a `Maze`"):
        HardMaze("medium")
    with pytest.raises(ValueError, match="`max_steps` must be at least 1"):
        HardMaze(max_steps=0)


def test_the_picture_shows_walls_and_the_robot_where_it_is():
    env = HardMaze()
    env.begin([0])
    picture = env.render()
    assert picture.dtype == np.uint8
    blue = (picture[:, :, 2].astype(int) - picture[:, :, 0]) > 90
    rows, columns = np.nonzero(blue)
    # Two pixels for one, and 6 of them around the maze, whose corner is at (3, 5).
    assert columns.mean() == pytest.approx(2 * (36 + 3), abs=1)
    assert rows.mean() == pytest.approx(2 * (184 + 1), abs=1)
    dark = (picture < 60).all(axis=2)
    assert dark[2 * (100 + 1), 2 * (56 + 3)]  # a wall
    assert not dark[2 * (100 + 1), 2 * (70 + 3)]
    assert env.render() is not picture


def test_the_map_shows_every_end_in_the_colour_of_its_generation():
    ends = np.array([[30.0, 15.0], [math.nan, 1.0], [100.0, 150.0], [60.0, 180.0]])
    picture = draw_maze(ends, [3, 3, 0, 1], title="a run")
    assert picture.caption == "Where 3 episodes ended; 1 of them solved the maze."
    assert picture.png().startswith(b"\x89PNG")
    everyone, solved = picture.figure.axes[0].collections[:2]
    # The last generation is drawn last.
    assert everyone.get_offsets().tolist() == [[100.0, 150.0], [60.0, 180.0], [30.0, 15.0]]
    assert everyone.get_array().tolist() == [0, 1, 3]
    assert solved.get_offsets().tolist() == [[30.0, 15.0]]
    assert len(picture.figure.axes) == 2  # the scale of colours


@pytest.mark.parametrize("ends", [[], [[100.0, 150.0]]], ids=len)
def test_a_map_without_generations_needs_no_scale(ends):
    picture = draw_maze(ends)
    assert len(picture.figure.axes) == 1
    assert picture.caption.endswith("none of them solved the maze.")
    assert picture.svg().startswith("<svg")


def test_maps_of_what_are_no_places_are_refused():
    with pytest.raises(ValueError, match=r"`ends` must have shape \(n, 2\), got \(1, 3\)"):
        draw_maze([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="`generations` must be as many as `ends`, 1, got 2"):
        draw_maze([[1.0, 2.0]], [0, 1])


class Recorded(HardMaze):
    """The maze, with a note of where the members of each generation ended."""

    ends: ClassVar[list] = []

    def step(self, actions):
        done = super().step(actions)
        if done.ended.all():
            self.ends.append(self.behaviour("position"))
        return done


def test_novelty_spreads_where_scores_gather():
    cells = {}
    for method in ("novelty-ga", "deep-ga"):
        Recorded.ends.clear()
        evolve(
            Recorded,
            method,
            policy_options={"hidden": (16,)},
            options={"population_size": 100, "num_parents": 10, "sigma": 0.1, "elite_candidates": 0},
            generations=20,
            test_episodes=0,
            rng=1,
        )
        places = np.concatenate(Recorded.ends[-20:])
        assert len(places) == 2000
        cells[method] = len(np.unique(places // 10, axis=0))
    assert cells["novelty-ga"] > 1.3 * cells["deep-ga"]
