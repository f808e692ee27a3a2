"""Champions at work: from a run, or a file, to episodes, pictures and films."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evolution.environments.environment import Environment
from evolution.episodes import Episodes
from evolution.genome import Codec, Genome
from evolution.lineage import Lineage
from evolution.members import HeldMembers
from evolution.moments import Normalizer
from evolution.policies.policy import Policy
from evolution.rollouts import Rollouts, episode_seed
from zoo.core.errors import EvaluationError, RunDirectoryError
from zoo.core.rng import Key

if TYPE_CHECKING:
    from evolution.setting import Setting

Array = np.ndarray[Any, Any]

_MOST_PICTURES, _WIDEST = 120, 320  # of a film, and pixels of each
_FASTEST = 25.0  # pictures a second: more make films larger, and hardly smoother
_COLOURS = 64


@dataclass(frozen=True, eq=False)
class Champion:
    """One that can be played.

    Attributes:
        name: Of its environment.
        source: What builds that.
        policy: What it is.
        parameters: Of the policy, float32, shape (dim,).
        normalizer: What its observations pass through, or None.
        score: Mean return in fresh episodes, or by re-evaluation where there are none; NaN if unknown.
        names: What environment and policy are called, for files; None where one was given as an object.
        codec: What its genome is decoded by, or None.
        genome: The chain of seeds that it comes from, or None.
        family: Its ancestors and itself, or None.
        trials: Its fresh episodes, once the run has ended or was stopped; empty where there are none.
    """

    name: str
    source: Any = field(repr=False)
    policy: Policy = field(repr=False)
    parameters: Array = field(repr=False)
    normalizer: Normalizer | None = field(repr=False)
    score: float = math.nan
    names: Mapping[str, Any] | None = None
    codec: Codec | None = field(default=None, repr=False)
    genome: Genome | None = field(default=None, repr=False)
    family: Lineage | None = field(default=None, repr=False)
    trials: tuple[Trial, ...] = field(default=(), repr=False)

    def save(self, path: str | Path) -> Path:
        """Write it to a safetensors file; see `evolution.individual.save_individual`."""
        from evolution.individual import save_individual

        return save_individual(
            path,
            self.policy,
            self.parameters,
            normalizer=self.normalizer,
            environment=self.names,
            score=self.score,
            codec=self.codec,
            genome=self.genome,
            family=self.family,
        )


class Trial(NamedTuple):
    """An episode.

    Attributes:
        seed: What it was begun with.
        score: Its return, NaN where it failed.
        steps: How long it was.
    """

    seed: int
    score: float
    steps: int


@dataclass(frozen=True, eq=False)
class Film:
    """An episode to look at.

    Attributes:
        pictures: uint8, shape (height, width, 3) each; not all of them, where there are many.
        seconds: How long each is to be seen, so that the episode takes as long as it does.
        score: The return of the episode as it was filmed.
        steps: How long it was.
    """

    pictures: tuple[Array, ...] = field(repr=False)
    seconds: float
    score: float
    steps: int

    def gif(self) -> bytes:
        """Return it as the content of a GIF file, which is played again and again."""
        from PIL import Image

        images = [Image.fromarray(picture) for picture in self.pictures]
        # One palette for all, from some of them, so that nothing flickers.
        some = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, 8).round().astype(int))]
        strip = Image.new("RGB", (images[0].width, images[0].height * len(some)))
        for number, image in enumerate(some):
            strip.paste(image, (0, number * images[0].height))
        palette = strip.quantize(_COLOURS, dither=Image.Dither.NONE)
        plain = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        # In hundredths of a second; below two of them, browsers go slower than they are told.
        duration = max(20, round(self.seconds * 100) * 10)
        buffer = io.BytesIO()
        plain[0].save(
            buffer, "GIF", save_all=True, append_images=plain[1:], duration=duration, loop=0, optimize=False
        )
        return buffer.getvalue()


class NotShown(Exception):
    """No pictures of an episode can be had; the message says why."""


def champion_of(path: str | Path, member: int | None = None) -> Champion:
    """Return the champion of a run, which may be under way, or of a file that one was saved to.

    Args:
        path: The run's directory, or the file.
        member: The id of somebody else instead, of a method with chains of seeds: a parent, or an ancestor of
            one or of the champion. Its observations pass through what was known of them last.

    Raises:
        RunDirectoryError: There is no run of this kind, its newest checkpoint knows of no champion yet, or
            the run was started with objects that a directory does not hold.
        ValueError: The file is no individual, or does not say of which environment or policy; or nobody of
            the id is known.
    """
    path = Path(path)
    if member is None or not path.is_file():
        return _from_file(path) if path.is_file() else _from_run(path, member)
    raise ValueError(f"`member` must be left out for a file, which holds one alone; {path} is one.")


def _from_run(path: Path, member: int | None) -> Champion:
    from evolution.setting import KIND, Setting, read_given
    from zoo.execution.executor import Serial
    from zoo.run import checkpoint
    from zoo.run.directory import read_config
    from zoo.run.loop import restored

    config = read_config(path)[0]
    if config.get("kind") != KIND:
        raise RunDirectoryError(f"{path} holds a run of another kind: there is no champion to be seen.")
    given = read_given(path)
    loaded = checkpoint.load(path / "checkpoints")
    if loaded is None:
        raise RunDirectoryError(f"{path} holds no checkpoint yet: there is nobody to be seen.")
    setting = Setting.of(given, Key.parse(config["key"]))
    job = setting.job(Serial())
    state = restored(job, *loaded[1:])
    method, own = setting.method, state.optimizer.method
    genome_of = getattr(method, "genome", None)
    genome = None if genome_of is None else genome_of(own)
    about: dict[str, Any] = {
        "name": str(setting.objective.environment.identity().get("name", "an environment")),
        "source": setting.objective.environment,
        "policy": setting.objective.policy,
        "names": setting.names,
    }
    if member is not None:
        moments = state.optimizer.moments
        return Champion(
            **about,
            **_member(path, setting, own, member),
            normalizer=None if moments is None else Normalizer.of(moments),
        )
    trials = _trials(path, job, state.step, given["test_episodes"])
    is_known = bool(state.nfev) if genome_of is None else method.best(own)[0] >= 0
    if not (is_known or trials or state.x is not None):
        raise RunDirectoryError(
            f"{path} has no champion yet: its newest checkpoint, of step {state.step}, knows of nobody who "
            f"was tried again. `zoo resume {shlex.quote(str(path))}` goes on with it; if it is under way, "
            "wait: a checkpoint is written after a generation, at most one a second."
        )
    parameters = state.x if state.x is not None else job.optimizer.recommend(state.optimizer)
    value = state.fun_best
    if known := [trial.score for trial in trials if math.isfinite(trial.score)]:
        value = -float(np.mean(known))
    if state.num_final and math.isfinite(state.fun):
        value = state.fun
    return Champion(
        **about,
        parameters=np.ascontiguousarray(parameters, np.float32),
        normalizer=job.optimizer.normalizer(state.optimizer),
        score=-value if math.isfinite(value) else math.nan,
        codec=setting.codec if genome is not None else None,
        genome=genome,
        family=setting.family(own),
        trials=trials,
    )


def _member(path: Path, setting: Setting, state: Any, member: int) -> dict[str, Any]:
    """Return who somebody is whose chain of seeds a state of the method holds.

    Raises:
        ValueError: It holds none of this id.
    """
    lineage = getattr(state, "lineage", None)
    if not isinstance(lineage, Lineage) or setting.codec is None:
        raise ValueError(
            f"`member` must be left out for {path}: its method keeps no chains of seeds, and nobody but the "
            "champion can be had."
        )
    if member not in lineage.ids:
        parents = ", ".join(map(str, np.unique(state.parents).tolist())) or "none"
        raise ValueError(
            f"`member` must be the id of somebody whose chain {path} holds, got {member}. Parents: "
            f"{parents}; they, the champion and their ancestors are {len(lineage)}, and others are gone."
        )
    genome = lineage.genome(member)
    return {
        "parameters": setting.codec.decode(genome),
        "codec": setting.codec,
        "genome": genome,
        "family": lineage.pruned([member]),
    }


def _trials(path: Path, job: Any, step: int, wanted: int) -> tuple[Trial, ...]:
    """Return the fresh episodes that were made after a step; none unless all are there.

    A run that was stopped has some as well, and goes on without them.
    """
    from zoo.run import journal

    key, found = job.key(journal.FINAL), {}
    for record in journal.read(path / "evaluations.bin"):
        if record.kind == journal.FINAL and record.step == step:
            reply = record.reply
            steps = reply.extras.get("steps", np.zeros(len(reply.values)))
            for number, (value, count) in enumerate(zip(reply.values, steps, strict=True), reply.start):
                found[number] = Trial(episode_seed(key, step, number), -float(value), int(count))
    return tuple(found[number] for number in sorted(found)) if len(found) == wanted else ()


def _from_file(path: Path) -> Champion:
    from evolution.environments.lookup import as_environment
    from evolution.individual import load_individual
    from evolution.policies.lookup import as_policy
    from evolution.setting import NAMES

    names = load_individual(path).environment
    if not set(NAMES) <= set(names):
        raise ValueError(
            f"{path} does not say in which environment it was bred: evolution.load_individual reads it, and "
            "evolution.playing.Champion plays it in one."
        )
    source = as_environment(
        names["environment"], options=names["environment_options"], max_steps=names["max_steps"]
    )
    built = source.build()
    try:
        policy = as_policy(names["policy"], built.spaces, names["policy_options"], built)
    finally:
        built.close()
    found = load_individual(path, policy)
    return Champion(
        name=str(source.identity().get("name", "an environment")),
        source=source,
        policy=policy,
        parameters=found.parameters,
        normalizer=found.normalizer,
        score=found.score,
        names=names,
        codec=found.codec,
        genome=found.genome,
        family=found.family,
    )


def play(champion: Champion, episodes: int, seed: int = 0) -> list[Trial]:
    """Play some episodes.

    Args:
        champion: Who plays.
        episodes: How many.
        seed: Where their seeds come from.

    Raises:
        EvaluationError: The environment raised.
    """
    key = Key(seed).fold("play")
    rollouts = Rollouts(champion.source, champion.policy)
    candidates = Episodes(HeldMembers(champion.parameters[None]), episodes, champion.normalizer, common=True)
    found = []
    cuts = rollouts.units(candidates)
    try:
        for start, stop in itertools.pairwise(cuts):
            done = rollouts.evaluate(candidates, start, stop, key=key, step=0)
            for failure in done.failures:
                raise EvaluationError(f"an episode of {champion.name} failed: {failure.message}")
            found += [
                Trial(episode_seed(key, 0, start + i), -float(value), int(steps))
                for i, (value, steps) in enumerate(zip(done.values, done.extras["steps"], strict=True))
            ]
    finally:
        rollouts.built.close()
    return found


def best_of(trials: list[Trial] | tuple[Trial, ...]) -> Trial | None:
    """Return the episode of the highest return, the first of equal ones; None where none has a return."""
    known = [trial for trial in trials if math.isfinite(trial.score)]
    return max(known, key=lambda trial: trial.score) if known else None


class Scene(NamedTuple):
    """A moment of an episode: what is to be seen, and the return until then."""

    picture: Array
    score: float
    steps: int


def scenes(champion: Champion, seed: int, every: int = 1) -> Iterator[Scene]:
    """Yield an episode picture by picture, from its beginning to its end.

    Args:
        champion: Who plays.
        seed: What the episode is begun with.
        every: Steps from one picture to the next; the last moment has one in any case.

    Raises:
        NotShown: There are no pictures of it.
        EvaluationError: The environment raised.
    """
    with _headless():
        try:
            environment = champion.source.build(pictures=True)
        except Exception as error:
            raise NotShown(_reason(champion, error)) from error
    try:
        observations = environment.begin([seed])
        parameters = HeldMembers(champion.parameters[None]).rows_on(champion.policy.device, 0, 1)
        actor = champion.policy.actor(parameters, np.zeros(1, np.int64))
        score, steps, is_over = 0.0, 0, False
        while True:
            if steps % every == 0 or is_over:
                yield Scene(_picture(champion, environment), score, steps)
            if is_over:
                return
            seen = observations if champion.normalizer is None else champion.normalizer(observations)
            done = environment.step(actor.act(seen))
            for raised in done.errors.values():
                raise EvaluationError(f"an episode of {champion.name} failed: {raised}") from raised
            observations, is_over = done.observations, bool(done.ended[0])
            score, steps = score + float(done.rewards[0]), steps + 1
    finally:
        environment.close()


def film(champion: Champion, trial: Trial) -> Film:
    """Return an episode as a film.

    Args:
        champion: Who plays.
        trial: The episode; how long it was says which of its pictures are kept.

    Raises:
        NotShown: There are no pictures of it.
        EvaluationError: The environment raised.
    """
    pace = pictures_per_second(champion)
    every = max(1, math.ceil(pace / _FASTEST), math.ceil(trial.steps / _MOST_PICTURES))
    kept: list[Array] = []
    thinned, last = 1, None
    for number, last in enumerate(scenes(champion, trial.seed, every)):
        if number % thinned == 0:
            kept.append(_small(last.picture))
        if len(kept) > 2 * _MOST_PICTURES:  # it is longer than it was
            kept, thinned = kept[::2], 2 * thinned
    assert last is not None
    if not np.array_equal(kept[-1], small := _small(last.picture)):
        kept.append(small)
    return Film(tuple(kept), every * thinned / pace, last.score, last.steps)


def pictures_per_second(champion: Champion) -> float:
    """Return how many steps of the environment are a second to look at."""
    environment = champion.source.build()
    try:
        return float(environment.pictures_per_second)
    finally:
        environment.close()


def _picture(champion: Champion, environment: Environment) -> Array:
    with _headless():
        try:
            picture = environment.render()
        except Exception as error:
            raise NotShown(_reason(champion, error)) from error
    if picture is None:
        raise NotShown(f"{champion.name} draws no pictures.")
    return picture


def _reason(champion: Champion, error: BaseException) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{champion.name} cannot be drawn here: {said.rstrip('.')}."


def _small(picture: Array) -> Array:
    """Return a picture that is not too wide."""
    from PIL import Image

    height, width = picture.shape[:2]
    if width <= _WIDEST:
        return np.array(picture)
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((_WIDEST, round(height * _WIDEST / width)), Image.Resampling.BOX))


@contextlib.contextmanager
def _headless() -> Iterator[None]:
    """Have what draws say nothing on standard output, and need no screen where there is none."""
    wanted = {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    if not has_screen():
        wanted |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "MUJOCO_GL": "egl"}
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def has_screen() -> bool:
    """Whether a window could be opened here."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
