"""Atari games under the protocol of the papers on neuroevolution.

Machado et al., "Revisiting the Arcade Learning Environment: Evaluation Protocols and Open Problems for
General Agents", 2018, https://arxiv.org/abs/1709.06009, on what such protocols differ in; Such et al., "Deep
Neuroevolution: Genetic Algorithms Are a Competitive Alternative for Training Deep Neural Networks for
Reinforcement Learning", 2017, https://arxiv.org/abs/1712.06567, for the one here.

The emulator is driven directly rather than through `ale_py.vector_env.AtariVectorEnv`, whose pictures and
rewards are reproduced bit for bit. To seed an episode there is to load the game's file again, which takes
97 ms, as long as 240 steps; it goes on stepping episodes that ended; and it shows neither the memory of the
game nor pictures in colour. Here an episode begins from a saved state in .06 ms, and one that ended is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evolution.environments.environment import Environment, Step
from evolution.environments.spaces import Discrete, Image, Spaces
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag

Array = np.ndarray[Any, Any]

_SIZE = 84


class AtariEnvironment(Environment):
    """An Atari game: grey pictures of the last steps, and the game's own points as rewards.

    An episode begins after 1 to `noops` frames without an action, drawn from its seed; nothing else about it
    is random: actions are never repeated at random. A step is `frame_skip` frames with one action, and the
    picture after it the maximum of the last two frames, pixel by pixel, as games draw some things in every
    other frame. It is shrunk to 84 by 84 by areas, and stacked on those of the steps before, the newest last;
    before the first step they are black. Rewards are sums of points, not clipped. An episode ends where the
    game does, not with a life, or after `max_steps` steps.

    Args:
        game: As Gymnasium names it, such as "ALE/Frostbite-v5", or as its file is named: "frostbite".
        max_steps: Steps after which an episode ends; 5000 are 20,000 frames, as in training there. For scores
            of trained policies, papers take 27,000 (half an hour of play).
        noops: The most frames without an action at the start; 0 for none.
        frame_skip: Frames of a step.
        stack: Pictures of an observation.
        full_action_space: Whether all 18 actions of the console can be taken, instead of those that the game
            knows. Frostbite knows all of them.
        fire_reset: Whether the fire button is pressed for a frame after the no-ops, where the game knows it.
            Some games wait for it; in the papers, policies have to find that out.
        slots: Episodes worth having side by side. An emulator takes the same time in each, so it is for the
            policy's sake: eight through one network take a third of the time that they take one by one.

    Raises:
        ModuleNotFoundError: ale-py is not installed.
        TypeError: An argument is not of its kind.
        ValueError: The game is unknown, or a number below what it can be.

    Example:
        >>> environment = AtariEnvironment("ALE/Frostbite-v5")
        >>> environment.begin([0, 1]).shape
        (2, 4, 84, 84)
        >>> environment.step(np.array([0, 5])).rewards.tolist()
        [0.0, 0.0]
    """

    def __init__(
        self,
        game: str,
        *,
        max_steps: int = 5000,
        noops: int = 30,
        frame_skip: int = 4,
        stack: int = 4,
        full_action_space: bool = False,
        fire_reset: bool = False,
        slots: int = 8,
    ) -> None:
        self.game = game_of(game)
        self.max_steps = check_count("max_steps", max_steps)
        self.noops = check_count("noops", noops, minimum=0)
        self.frames_per_step = check_count("frame_skip", frame_skip)
        self.pictures_per_second = 60.0 / self.frames_per_step
        self.stack = check_count("stack", stack)
        self.full_action_space = check_flag("full_action_space", full_action_space)
        self.fire_reset = check_flag("fire_reset", fire_reset)
        self.slots = check_count("slots", slots)
        self._consoles = [_Console(self.game, self.full_action_space)]
        self.behaviours = {"ram": self._consoles[0].ale.getRAMSize()}
        actions = Discrete(len(self._consoles[0].actions))
        self.spaces = Spaces(Image(self.stack, _SIZE, _SIZE), actions)
        self._under_way: list[_Console] = []
        self._steps = 0

    def begin(self, seeds: Sequence[int]) -> Array:
        while len(self._consoles) < len(seeds):
            self._consoles.append(_Console(self.game, self.full_action_space))
        self._under_way = self._consoles[: len(seeds)]
        self._steps = 0
        shown = np.zeros((len(seeds), self.stack, _SIZE, _SIZE), np.uint8)
        for console, seed, pictures in zip(self._under_way, seeds, shown, strict=True):
            console.begin(self._idle_frames(seed), self.fire_reset)
            console.look(pictures[-1])
        self._shown = shown
        return shown

    def _idle_frames(self, seed: int) -> int:
        if self.noops == 0:
            return 0
        return 1 + int(Key(seed).fold("no-ops").integers(0, 1, 1, high=self.noops)[0, 0])

    def step(self, actions: Array) -> Step:
        count = len(self._under_way)
        # A new array: whoever was given the last one may still hold it.
        shown = np.empty_like(self._shown)
        shown[:, :-1] = self._shown[:, 1:]
        rewards, ended = np.empty(count), np.empty(count, bool)
        chosen = np.asarray(actions).tolist()
        for i, console in enumerate(self._under_way):
            rewards[i] = console.advance(chosen[i], self.frames_per_step)
            console.look(shown[i, -1])
            ended[i] = console.ale.game_over()
        self._steps += 1
        if self._steps >= self.max_steps:
            ended[:] = True
        self._shown = shown
        return Step(shown, rewards, ended)

    def keep(self, which: Array) -> None:
        self._under_way = [self._under_way[i] for i in which.tolist()]
        self._shown = self._shown[which]

    def behaviour(self, name: str) -> Array:
        """Return the 128 bytes of the game's memory."""
        if name != "ram":
            return super().behaviour(name)
        return np.stack([console.ale.getRAM() for console in self._under_way]).astype(np.float64)

    def render(self) -> Array | None:
        """Return the screen of episode 0 in colour."""
        if not self._under_way:
            return None
        screen: Array = self._under_way[0].ale.getScreenRGB()
        return screen


class _Console:
    """An emulator with a game in it, and what it takes to look at its screen."""

    def __init__(self, game: str, full_action_space: bool) -> None:
        ale_py = _ale_py()
        # It greets, and names every file that it loads, on the standard error.
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale = ale_py.ALEInterface()
        ale.setInt("random_seed", 0)  # else the clock's, though nothing is left that draws from it
        ale.setFloat("repeat_action_probability", 0.0)
        ale.loadROM(ale_py.roms.get_rom_path(game))
        known = ale.getMinimalActionSet()
        self.actions = ale.getLegalActionSet() if full_action_space else known
        self.fire = ale_py.Action.FIRE if ale_py.Action.FIRE in known else None
        self.idle = ale_py.Action.NOOP
        ale.reset_game()
        self.start = ale.cloneSystemState()
        height, width = ale.getScreenDims()
        self.last, self.before = np.empty((2, height, width), np.uint8)
        self.shrink = _Shrink(height, width)
        self.has_two = False

    def begin(self, idle: int, presses_fire: bool) -> None:
        ale = self.ale
        ale.restoreSystemState(self.start)
        for _ in range(idle):
            ale.act(self.idle)
            if ale.game_over():
                ale.restoreSystemState(self.start)
        if presses_fire and self.fire is not None:
            ale.act(self.fire)
        ale.getScreenGrayscale(self.last)
        self.has_two = False

    def advance(self, action: int, frames: int) -> int:
        ale, button = self.ale, self.actions[action]
        act = ale.act
        reward = 0
        self.has_two = frames > 1
        for _ in range(frames - 2):
            reward += act(button)
        if self.has_two:
            reward += act(button)
            ale.getScreenGrayscale(self.before)
        reward += act(button)
        ale.getScreenGrayscale(self.last)
        return reward

    def look(self, out: Array) -> None:
        if self.has_two:
            np.maximum(self.last, self.before, out=self.last)
        self.shrink(self.last, out)


class _Shrink:
    """Means over areas, rounded as OpenCV's `INTER_AREA` does: along rows first, terms from left to right."""

    def __init__(self, height: int, width: int) -> None:
        self.columns, along = _areas(width)
        self.rows, down = _areas(height)
        # At full size: weights of one number a row would be multiplied at a third of the speed.
        self.along = [np.repeat(weights[:, None], height, axis=1) for weights in along]
        self.down = [np.repeat(weights[:, None], _SIZE, axis=1) for weights in down]
        self.screen = np.empty((width, height), np.float32)
        self.wide = np.empty((2, _SIZE, height), np.float32)
        self.turned = np.empty((height, _SIZE), np.float32)
        self.small = np.empty((2, _SIZE, _SIZE), np.float32)

    def __call__(self, screen: Array, out: Array) -> None:
        self.screen[...] = screen.T  # rows are quick to pick, columns are not
        self._sums(self.screen, self.columns, self.along, self.wide)
        self.turned[...] = self.wide[0].T
        self._sums(self.turned, self.rows, self.down, self.small)
        np.rint(self.small[0], out=self.small[0])
        out[...] = self.small[0]

    @staticmethod
    def _sums(lines: Array, picked: Array, weights: list[Array], work: Array) -> None:
        total, term = work
        for place, (lines_of, weight) in enumerate(zip(picked, weights, strict=True)):
            target = term if place else total
            np.take(lines, lines_of, axis=0, out=target, mode="clip")
            target *= weight
            if place:
                total += term


def _areas(size: int) -> tuple[Array, Array]:
    """Return what each of 84 numbers is a mean of: places (terms, 84), and their weights, 0 for none.

    A number covers `size / 84` places; those at its two ends count for the part that it covers, unless that
    is a thousandth or less.
    """
    scale = size / _SIZE
    terms: list[list[tuple[int, float]]] = []
    for i in range(_SIZE):
        low, high = i * scale, (i + 1) * scale
        width = min(scale, size - low)
        last = min(math.floor(high), size - 1)
        first = min(math.ceil(low), last)
        of = [(place, 1.0 / width) for place in range(first, last)]
        if first - low > 1e-3:
            of.insert(0, (first - 1, (first - low) / width))
        if high - last > 1e-3:
            of.append((last, min(high - last, 1.0, width) / width))
        terms.append(of)
    most = max(map(len, terms))
    filled = [of + [(0, 0.0)] * (most - len(of)) for of in terms]
    places = np.array([[of[j][0] for of in filled] for j in range(most)], np.int64)
    weights = np.array([[of[j][1] for of in filled] for j in range(most)], np.float32)
    return places, weights


def game_of(name: str) -> str:
    """Return the name of a game's file.

    Args:
        name: As Gymnasium names it, "ALE/MsPacman-v5", or as the file is named: "ms_pacman".

    Raises:
        ModuleNotFoundError: ale-py is not installed.
        TypeError: `name` is no text.
        ValueError: There is no such game for one player.

    Example:
        >>> game_of("ALE/MsPacman-v5")
        'ms_pacman'
    """
    if not isinstance(name, str):
        raise TypeError(f"`game` must be the name of a game, such as 'ALE/Frostbite-v5', got {name!r}.")
    known = {id_of(game): game for game in games()}
    if name in known:
        return known[name]
    plain = name.replace("_", "").casefold()
    for game in known.values():
        if game.replace("_", "") == plain:
            return game
    from evolution.environments.lookup import near_names

    near = near_names(name, known)
    instead = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"`game` must name one of the {len(known)} games that ale-py has, such as 'ALE/Frostbite-v5', "
        f"got {name!r}.{instead}"
    )


def id_of(game: str) -> str:
    """Return how Gymnasium names a game.

    Args:
        game: The name of its file.

    Example:
        >>> id_of("ms_pacman")
        'ALE/MsPacman-v5'
    """
    return f"ALE/{game.title().replace('_', '')}-v5"


def games() -> list[str]:
    """Return the games that ale-py has for one player, by the names of their files."""
    ale_py = _ale_py()
    roms, is_supported = ale_py.roms, ale_py.ALEInterface.isSupportedROM
    # The emulator ends the process where it is asked to play another one.
    return [game for game in sorted(roms.get_all_rom_ids()) if is_supported(roms.get_rom_path(game))]


def _ale_py() -> Any:
    try:
        import ale_py
        import ale_py.roms
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Atari games need ale-py: pip install 'gradfree[atari]'.") from error
    return ale_py
