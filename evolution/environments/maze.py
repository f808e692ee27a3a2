"""A robot in a maze whose straight way to the goal is a dead end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolution.environments.drawing import BLUE, FAINT, GREEN, INK, WHITE, blank, line
from evolution.environments.environment import Array, Environment, Step
from evolution.environments.spaces import Continuous, Spaces, Vector
from zoo.core.validation import check_count, check_known, check_number, check_positive, listed

Wall = tuple[float, float, float, float]

RADIUS = 8.0  # of the robot, in pixels
RANGE = 100.0  # how far it sees, in pixels
TOP_SPEED = 3.0  # pixels a step
TOP_TURN = math.radians(3.0)  # a step
SCALE, MARGIN = 2.0, 6.0  # of pictures: pixels a pixel of the maze, and what is left around it
MOST_CHANGE = 0.2 / 3.0  # of speed and turn in a step, in parts of their tops


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """Return so many finite numbers, or raise."""
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"`{name}` must be {count} numbers, got {values!r}.")
    found = tuple(check_number(f"{name}[{i}]", value) for i, value in enumerate(values))
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"`{name}` must be {count} finite numbers, got {values!r}.")
    return found


def _distance(point: Sequence[float], wall: Sequence[float]) -> float:
    """Return how far a point is from a wall."""
    x1, y1, x2, y2 = wall
    x, y = point[0] - x1, point[1] - y1
    share = (x * (x2 - x1) + y * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
    share = min(max(share, 0.0), 1.0)
    return math.hypot(x - share * (x2 - x1), y - share * (y2 - y1))


@dataclass(frozen=True, slots=True)
class Maze:
    """Walls, where the robot starts and where it should go, in pixels.

    Attributes:
        walls: Segments x1, y1, x2, y2.
        start: x, y.
        goal: x, y.
        heading: Where the robot looks at first, in degrees from the x axis to the y axis.
        goal_radius: Who ends nearer to the goal than this has solved the maze.

    Raises:
        TypeError: A wall or a point is not a sequence of numbers.
        ValueError: A wall has not four finite numbers or no length, a point not two, `goal_radius` is not
            above 0, or the robot, 8 in radius, has no room where it starts.

    Example:
        >>> room = Maze(walls=((0, 0, 90, 0), (90, 0, 90, 90)), start=(20, 20), goal=(70, 20))
        >>> room.is_solved(np.array([[68.0, 24.0], [50.0, 50.0]]))
        array([ True, False])
    """

    walls: tuple[Wall, ...]
    start: tuple[float, float]
    goal: tuple[float, float]
    heading: float = 0.0
    goal_radius: float = 10.0

    def __post_init__(self) -> None:
        walls = tuple(_numbers(f"walls[{i}]", wall, 4) for i, wall in enumerate(self.walls))
        object.__setattr__(self, "walls", walls)
        for name in ("start", "goal"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), 2))
        if not math.isfinite(check_number("heading", self.heading)):
            raise ValueError(f"`heading` must be finite, got {self.heading!r}.")
        check_positive("goal_radius", self.goal_radius)
        if not walls:
            raise ValueError("`walls` must have at least one wall, got none.")
        for i, (x1, y1, x2, y2) in enumerate(walls):
            if (x1, y1) == (x2, y2):
                raise ValueError(f"`walls[{i}]` must have a length, got {walls[i]!r}.")
            apart = _distance(self.start, walls[i])
            if apart < RADIUS:
                raise ValueError(
                    f"`start` must be at least {RADIUS:g} from every wall, or the robot cannot move, got "
                    f"{self.start!r}, {apart:.3g} from `walls[{i}]`."
                )

    def is_solved(self, ends: Array) -> Array:
        """Return whether those who ended here have solved it: bool, shape (n,), of positions (n, 2)."""
        found: Array = np.hypot(*(np.asarray(ends, np.float64) - self.goal).T) < self.goal_radius
        return found


HARD_MAZE = Maze(
    walls=(
        (41.0, 5.0, 3.0, 8.0),
        (3.0, 8.0, 4.0, 49.0),
        (4.0, 49.0, 57.0, 53.0),
        (4.0, 49.0, 7.0, 202.0),
        (7.0, 202.0, 195.0, 198.0),
        (195.0, 198.0, 186.0, 8.0),
        (186.0, 8.0, 39.0, 5.0),
        (56.0, 54.0, 56.0, 157.0),
        (57.0, 106.0, 158.0, 162.0),
        (77.0, 201.0, 108.0, 164.0),
        (6.0, 80.0, 33.0, 121.0),
        (192.0, 146.0, 87.0, 91.0),
        (56.0, 55.0, 133.0, 30.0),
    ),
    start=(36.0, 184.0),
    goal=(31.0, 20.0),
)


def as_maze(maze: Any) -> Maze:
    """Return a `Maze`, made of a mapping where it is none yet.

    Raises:
        TypeError: It is neither, or a part of it has another name or is missing.
    """
    if isinstance(maze, Maze):
        return maze
    if not isinstance(maze, Mapping):
        raise TypeError(f"`maze` must be a `Maze` or a mapping with what it is made of, got {maze!r}.")
    check_known("part of `maze`", maze, Maze.__slots__)
    missing = [name for name in ("walls", "start", "goal") if name not in maze]
    if missing:
        raise TypeError(f"`maze` must have walls, start and goal, got none for {listed(missing)}.")
    return Maze(**maze)


class HardMaze(Environment):
    """Steer a robot through the hard maze of Lehman and Stanley; only the end counts.

    Takes two numbers, for turn and speed, of which -1/2 is as far back and 1/2 as far ahead as can be: the
    outputs of a network, to which the paper's robot adds 1/2 before it takes what lies beyond 0 and 1 for
    these. Six times the numbers, in degrees and pixels a step, is what turn and speed tend to, by at most 0.2
    a step. In each step turn and speed change, the robot goes on in the direction it had, unless it came
    nearer than 8 to a wall, and turns.

    Shows 11 numbers: 1; the distance to the next wall, in hundreds of pixels and at most 1, at -90, -45, 0,
    45, 90 and 180 degrees; and as one 1 and three 0s in which quarter the goal lies, ahead, at +90, behind or
    at -90 degrees.

    An episode has 400 steps; the reward is 0 but for the last step, where it is minus the distance to the
    goal. Behaviour "position" is where the robot is, x and y. There is no chance in it: seeds do not matter.

    The observations that `begin` and `step` return are written over by the next step.

    Args:
        maze: Walls, start and goal: another `Maze`, or a mapping with what it is made of.
        max_steps: Steps of an episode.

    Attributes:
        solved: The return above which the maze is solved.

    Raises:
        TypeError: `maze` is neither, or `max_steps` no integer.
        ValueError: `max_steps` is below 1, or there is no such maze; see `Maze`.

    Example:
        >>> import numpy as np
        >>> maze = HardMaze(max_steps=2)
        >>> maze.begin([0]).shape
        (11, 1)
        >>> ahead = np.array([[0.0], [0.5]], np.float32)
        >>> maze.step(ahead).rewards, maze.step(ahead).rewards.round(1)
        (array([0.]), array([-164.1]))

    References:
        Lehman and Stanley, "Abandoning objectives: evolution through the search for novelty alone", 2011.
        https://doi.org/10.1162/EVCO_a_00025
    """

    spaces = Spaces(Vector(11), Continuous((-1.0, -1.0), (1.0, 1.0)))
    slots = 250
    behaviours: Mapping[str, int] = {"position": 2}

    def __init__(self, maze: Maze | Mapping[str, Any] = HARD_MAZE, max_steps: int = 400) -> None:
        self.maze = maze = as_maze(maze)
        self.solved = -maze.goal_radius
        self.max_steps = check_count("max_steps", max_steps)
        walls = np.array(maze.walls, np.float64).reshape(-1, 4)
        first, last = walls[:, :2], walls[:, 2:]
        along = last - first
        length = np.hypot(along[:, 0], along[:, 1])
        x, y = (along / length[:, None]).T
        middle = (first + last) / 2
        # The robot as a wall sees it: so far along it from its middle, so far to its side.
        self._frame = (
            np.concatenate([x, -y]),
            np.concatenate([y, x]),
            -np.concatenate([middle[:, 0] * x + middle[:, 1] * y, middle[:, 1] * x - middle[:, 0] * y]),
        )
        self._half = length / 2
        self._ends = walls[:, [0, 2]].T.ravel(), walls[:, [1, 3]].T.ravel()
        self._walls: Array | None = None
        self._arrange(0)

    def _arrange(self, k: int) -> None:
        """Lay out memory for this many episodes; constants in full, since to spread them costs steps more."""
        n = len(self.maze.walls)

        def full(column: Array) -> Array:
            return np.repeat(column.astype(np.float32)[:, None], k, axis=1)

        def empty(*shape: int) -> Array:
            return np.empty((*shape, k), np.float32)

        self._k = k
        self._x_of, self._y_of, self._of = (full(part) for part in self._frame)
        self._half_of = full(self._half)
        self._x_end, self._y_end = (full(part) for part in self._ends)
        self._position, self._moved, self._shift = empty(2), empty(2), empty(2)
        self._pace, self._aim = empty(2), empty(2)
        self._heading, self._cos, self._sin = empty(3)
        self._large = [empty(2 * n) for _ in range(5)]
        self._small = [empty(n) for _ in range(2)]
        self._wide = empty(n), np.empty((n, k), np.int32)
        self._gap = empty(1)[0]
        self._near = np.empty((6, k), np.float32)
        self._free = np.empty(k, bool)
        self._sides, self._quarters = np.empty((2, k), bool), np.empty((4, k), bool)
        self._goal = empty(4)
        self._seen = np.zeros((11, k), np.float32)
        self._seen[0] = 1
        self._nothing, self._going = np.zeros(k), np.zeros(k, bool)

    def begin(self, seeds: Sequence[int]) -> Array:
        if len(seeds) != self._k:
            self._arrange(len(seeds))
        self._steps = 0
        self._position[0], self._position[1] = self.maze.start
        self._heading[:] = math.radians(self.maze.heading)
        self._pace[:] = 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            self._sense()
        return self._seen

    def step(self, actions: Array) -> Step:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            self._move(actions)
            self._sense()
        self._steps += 1
        if self._steps == self.max_steps:
            x, y = (self._position.astype(np.float64).T - self.maze.goal).T
            return Step(self._seen, -np.hypot(x, y), np.ones(self._k, bool))
        return Step(self._seen, self._nothing, self._going)

    def _move(self, actions: Array) -> None:
        """Change turn and speed, go where that leads unless a wall is there, and turn."""
        aim, pace, shift, moved = self._aim, self._pace, self._shift, self._moved
        # Both in parts of their tops, from -1 to 1.
        np.multiply(actions, 2.0, out=aim)
        np.minimum(aim, 1.0, out=aim)
        np.maximum(aim, -1.0, out=aim)
        np.subtract(aim, pace, out=aim)
        np.minimum(aim, MOST_CHANGE, out=aim)
        np.maximum(aim, -MOST_CHANGE, out=aim)
        np.add(pace, aim, out=pace)
        turn, speed = aim
        np.multiply(pace[1], TOP_SPEED, out=speed)
        np.multiply(self._cos, speed, out=shift[0])
        np.multiply(self._sin, speed, out=shift[1])
        np.add(self._position, shift, out=moved)
        np.multiply(pace[0], TOP_TURN, out=turn)
        np.add(self._heading, turn, out=self._heading)

        n = len(self._half)
        place, work = self._large[:2]
        np.multiply(self._x_of, moved[0], out=place)
        np.multiply(self._y_of, moved[1], out=work)
        np.add(place, work, out=place)
        np.add(place, self._of, out=place)
        along, side = place[:n], place[n:]
        np.absolute(along, out=along)
        np.subtract(along, self._half_of, out=along)
        np.maximum(along, 0.0, out=along)
        np.square(place, out=place)
        np.add(along, side, out=along)
        np.minimum.reduce(along, axis=0, out=self._gap)
        np.greater_equal(self._gap, RADIUS**2, out=self._free)
        np.copyto(self._position, moved, where=self._free)

    def _sense(self) -> None:
        """Write what the robots see.

        With the ends of a wall at (u, v) and (u', v') where robots have the direction of a ray as first axis,
        the ray, or its way back, meets the wall where v v' < 0, at u v' - u' v over v' - v. The former is the
        same for all rays. So is everything but v' - v, and what is nearest has the largest 1 / distance.
        """
        n = len(self._half)
        x, y, u, v, w = self._large
        cross, work = self._small
        cos, sin, near = self._cos, self._sin, self._near
        np.cos(self._heading, out=cos)
        np.sin(self._heading, out=sin)
        np.subtract(self._x_end, self._position[0], out=x)
        np.subtract(self._y_end, self._position[1], out=y)
        np.multiply(x, cos, out=u)
        np.multiply(y, sin, out=w)
        np.add(u, w, out=u)  # how far the ends are ahead
        np.multiply(y, cos, out=v)
        np.multiply(x, sin, out=w)
        np.subtract(v, w, out=v)  # and how far to the side

        np.multiply(u[:n], v[n:], out=cross)
        np.multiply(u[n:], v[:n], out=work)
        np.subtract(cross, work, out=cross)
        np.divide(RANGE, cross, out=cross)

        self._meet(v, 1.0, near[2], near[5])
        np.negative(u, out=w)
        self._meet(w, 1.0, near[4], near[0])
        np.subtract(v, u, out=w)
        self._meet(w, math.sqrt(0.5), near[3], None)
        np.add(v, u, out=w)
        self._meet(w, math.sqrt(0.5), near[1], None)
        np.maximum(near, 1.0, out=near)
        np.reciprocal(near, out=self._seen[1:7])

        p, q, a, b = self._goal
        np.subtract(self.maze.goal[0], self._position[0], out=p)
        np.subtract(self.maze.goal[1], self._position[1], out=q)
        np.multiply(p, cos, out=a)
        np.multiply(q, sin, out=b)
        np.add(a, b, out=a)  # how far the goal is ahead
        np.multiply(q, cos, out=q)
        np.multiply(p, sin, out=p)
        np.subtract(q, p, out=b)  # and to the side
        one, other = self._sides
        ahead, over, behind, under = self._quarters
        np.add(a, b, out=p)
        np.subtract(a, b, out=q)
        np.greater_equal(p, 0.0, out=one)
        np.greater(q, 0.0, out=other)
        np.logical_and(one, other, out=ahead)
        np.greater(one, other, out=over)
        np.less(one, other, out=under)
        np.logical_or(one, other, out=behind)
        np.logical_not(behind, out=behind)
        np.copyto(self._seen[7:], self._quarters)

    def _meet(self, v: Array, scale: float, front: Array, back: Array | None) -> None:
        """Write the largest RANGE / distance along a ray, and along the way back."""
        n = len(self._half)
        inverse, mask = self._wide
        np.multiply(v[:n], v[n:], out=inverse)
        np.right_shift(inverse.view(np.int32), 31, out=mask)  # all ones where it is negative
        np.subtract(v[n:], v[:n], out=inverse)
        np.multiply(inverse, self._small[0], out=inverse)
        np.bitwise_and(inverse.view(np.int32), mask, out=inverse.view(np.int32))
        np.maximum.reduce(inverse, axis=0, out=front)
        if scale != 1:
            np.multiply(front, scale, out=front)
        if back is not None:
            np.minimum.reduce(inverse, axis=0, out=back)
            np.negative(back, out=back)

    def keep(self, which: Array) -> None:
        position, pace, heading = self._position[:, which], self._pace[:, which], self._heading[which]
        cos, sin = self._cos[which], self._sin[which]
        self._arrange(position.shape[1])
        self._position[:], self._pace[:], self._heading[:] = position, pace, heading
        self._cos[:], self._sin[:] = cos, sin

    def behaviour(self, name: str) -> Array:
        if name != "position":
            return super().behaviour(name)
        return self._position.T.astype(np.float64)

    def render(self) -> Array:
        if self._walls is None:
            self._walls, self._place = _drawn(self.maze)
        picture = self._walls.copy()
        x, y = self._position[:, 0].tolist()
        ahead = x + RADIUS * float(self._cos[0]), y + RADIUS * float(self._sin[0])
        line(picture, self._place(x, y), self._place(x, y), 2 * RADIUS * SCALE, BLUE)
        line(picture, self._place(x, y), self._place(*ahead), SCALE, WHITE)
        return picture


def _drawn(maze: Maze) -> tuple[Array, Callable[[float, float], tuple[float, float]]]:
    """Return a picture of walls, start and goal, and where in it a place of the maze is."""
    points = np.array([*maze.walls]).reshape(-1, 2)
    points = np.concatenate([points, [maze.start, maze.goal]])
    left, top = points.min(axis=0) - MARGIN
    right, bottom = points.max(axis=0) + MARGIN
    picture = blank(round((bottom - top) * SCALE), round((right - left) * SCALE))

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - left) * SCALE, (y - top) * SCALE

    line(picture, place(*maze.goal), place(*maze.goal), 2 * maze.goal_radius * SCALE, GREEN)
    line(picture, place(*maze.start), place(*maze.start), RADIUS * SCALE, FAINT)
    for x1, y1, x2, y2 in maze.walls:
        line(picture, place(x1, y1), place(x2, y2), SCALE, INK)
    return picture, place
