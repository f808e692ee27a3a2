"""`evolve`: from the name of an environment to a champion."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolution.genome import Codec, Genome
from evolution.job import KEYFRAMED, EvolutionJob, EvolutionState, generations_of, history_of
from evolution.keyframes import Keyframes
from evolution.lineage import Lineage
from evolution.moments import Normalizer
from evolution.policies.policy import Policy
from evolution.setting import Setting, read_given
from zoo.arguments import as_executor
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count, check_flag, check_number, check_positive
from zoo.execution.executor import Executor, Serial
from zoo.kept import STATUS, as_callbacks, directory_of, kept_run, key_of
from zoo.run.directory import RunDirectory
from zoo.run.job import Report
from zoo.run.loop import Run, Stop


class Generation(NamedTuple):
    """What a callback is told after each step.

    Attributes:
        step: Steps so far.
        generation: Those of them that were no re-evaluations.
        episodes: Episodes so far.
        frames: Frames so far.
        retrial: Whether this step was a re-evaluation.
        highest: Highest return of a single episode of the step.
        median: Median of all returns of the step.
        best: Mean return of the best member by re-evaluation so far.
    """

    step: int
    generation: int
    episodes: int
    frames: int
    retrial: bool
    highest: float
    median: float
    best: float


@dataclass(frozen=True, eq=False)
class Evolution:
    """What came of a run.

    Attributes:
        parameters: Of the champion, float32, shape (dim,).
        policy: What they are the parameters of.
        normalizer: What its observations pass through, or None.
        genome: The champion as a chain of seeds, of methods that have those, else None.
        codec: What the chain stands for, or None.
        family: The champion and its ancestors, or None.
        names: What environment and policy are called, for files; None where one was given as an object.
        score: Mean return of the champion in fresh episodes, NaN if there were none.
        score_error: Standard error of that mean.
        best: Mean return of the champion by re-evaluation during the search: of the best of many, so biased.
        episodes: Episodes of the search.
        frames: Their frames.
        generations: Steps that were no re-evaluations.
        test_episodes: Fresh episodes at the end.
        num_failed: Episodes that had no return.
        history: By name, one number for each step; see `evolution.job.COLUMNS`.
        message: Why it ended.
        success: Whether it ended as it was to.
        seconds: Time this process spent on it.
        account: What was tried again or lost; see `zoo.execution.ledger.Account`.
        state: The method's own last state, such as its archive.
    """

    parameters: np.ndarray[Any, Any] = field(repr=False)
    policy: Policy = field(repr=False)
    normalizer: Normalizer | None = field(repr=False)
    genome: Genome | None = field(repr=False)
    codec: Codec | None = field(repr=False)
    family: Lineage | None = field(repr=False)
    names: Mapping[str, Any] | None = field(repr=False)
    score: float
    score_error: float
    best: float
    episodes: int
    frames: int
    generations: int
    test_episodes: int
    num_failed: int
    history: Mapping[str, np.ndarray[Any, Any]] = field(repr=False)
    message: str
    success: bool
    seconds: float
    account: Mapping[str, Any] = field(repr=False)
    state: Any = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the champion to a safetensors file.

        `load_individual`, `champion_of` and `zoo play` read it. Its score is that of fresh episodes, or that
        of the search where there were none. Where environment or policy were given as objects, the file does
        not say which.

        Args:
            path: Where to; the folder must be there. A file there is replaced.

        Raises:
            ValueError: Its parameters are not finite.
            OSError: It cannot be written.
        """
        from evolution.individual import save_individual

        return save_individual(
            Path(path),
            self.policy,
            self.parameters,
            normalizer=self.normalizer,
            environment=self.names,
            score=self.best if math.isnan(self.score) else self.score,
            codec=None if self.genome is None else self.codec,
            genome=self.genome,
            family=self.family,
        )


def evolve(
    environment: Any,
    method: str = "deep-ga",
    *,
    policy: Any = None,
    options: Mapping[str, Any] | None = None,
    environment_options: Mapping[str, Any] | None = None,
    policy_options: Mapping[str, Any] | None = None,
    episodes: int = 1,
    max_steps: int | None = None,
    behaviour: Any = None,
    normalize: bool = False,
    common: bool = True,
    generations: int | None = None,
    budget: int | None = None,
    frames: int | None = None,
    score: float | None = None,
    seconds: float | None = None,
    test_episodes: int = 30,
    noise_table: int | None = None,
    start: Any = None,
    workers: int | Executor | Callable[..., Any] = 1,
    rng: int | np.random.Generator | Key | None = None,
    callback: Any = None,
    on_error: str = "raise",
    out: str | os.PathLike[str] | None = None,
    keyframe_every: int = 25,
) -> Evolution:
    """Look for a policy of high return in an environment.

    The same arguments and the same `rng` give the same bytes, whatever the number of workers, also when
    workers die and when the run is killed and resumed (on one model of processor and one build of the
    numerical libraries).

    Args:
        environment: An id of Gymnasium such as "CartPole-v1" or "ALE/Frostbite-v5"; "maze"; "cart-pole", many
            poles at once; a class, a function that returns an environment, or "module:name" of one.
        method: A name of `evolution.list_methods()`.
        policy: A name of `evolution.policies.lookup.POLICIES`, a `torch.nn.Module`, a function of the spaces
            that returns one, or "module:name" of either. Layers of numbers by default, and for pictures the
            network of 4 million parameters.
        options: Options of the method.
        environment_options: Arguments of the environment.
        policy_options: Arguments of the policy, such as {"hidden": (64, 64)}.
        episodes: Episodes that a member is tried in; its score is the mean of their returns.
        max_steps: Steps after which an episode is over, if it is not before; as the environment says by
            default. No episode is ever cut off for the time it takes.
        behaviour: What episodes are characterised by, for methods that look for novelty: "position",
            "observation", "ram", or a function, see `evolution.environments`; the environment's first one by
            default, where the method needs one.
        normalize: Whether observations are normalized by the moments of those of earlier steps.
        common: Whether all members of a generation meet the same episodes.
        generations: Generations at most.
        budget: Episodes at most, those of re-evaluations among them, for which enough of it is kept.
        frames: Frames after which no further generation is begun; what is due to be tried again still is.
        score: End as soon as the best member by re-evaluation has this mean return.
        seconds: End after the first step that is done later than this; a run in a directory can go on.
        test_episodes: Fresh episodes of the champion at the end, on top of the budget; 0 for none.
        noise_table: Length of the table that mutations are read from, of methods with chains of seeds; by
            default a power of two that holds sixteen rows, at least 2^20 and, if two rows fit, at most 2^26.
            0 for noise that is drawn anew for each mutation.
        start: Parameters to start from, shape (dim,), such as those of a champion of an earlier run, instead
            of random ones. First members of methods with chains of seeds are mutations of it.
        workers: Number of processes (-1: one for each core), an executor such as `zoo.Ray(8)`, or a map-like
            callable.
        rng: Seed, generator (one number is drawn from it), `Key`, or None for a fresh seed.
        callback: A function, called with a `Generation` after each step, `StopIteration` ending the run; a
            `zoo.Watcher`; or a list of these.
        on_error: What an exception of the environment does after the first success and one retry: "raise"
            ends the run, with a checkpoint, "nan" makes the episode a failed one.
        out: Directory to keep the run in. One that holds this very run is resumed, wherever it was stopped or
            killed; any other is refused.
        keyframe_every: After how many generations parents of 100,000 parameters and more are written down as
            they are, in `out` or a temporary directory, so that a worker that comes late, or a run that is
            resumed, decodes no more mutations than that; 0 for never. It changes no result.

    Raises:
        TypeError: An argument is of a type that it cannot be.
        ValueError: It has a value that it cannot have, or nothing would ever end the run.
        EvaluationError: The environment raised; `error.result` is what was found until then.
        TooManyFailures: More than a fifth of the last hundred episodes raised, crashed or hung.
        RunDirectoryError: `out` cannot be used.
        Interrupted: SIGINT or SIGTERM; `error.result` is what was found until then.

    Example:
        >>> small = {"population_size": 32, "num_parents": 8, "sigma": 0.5, "elite_candidates": 3}
        >>> found = evolve("cart-pole", "deep-ga", options=small, score=195, generations=20, rng=0)
        >>> found.score > 150
        True
    """
    given = {
        "environment": environment,
        "environment_options": dict(environment_options or {}),
        "method": method,
        "options": dict(options or {}),
        "policy": policy,
        "policy_options": dict(policy_options or {}),
        "episodes": check_count("episodes", episodes),
        "max_steps": None if max_steps is None else check_count("max_steps", max_steps),
        "behaviour": behaviour,
        "normalize": check_flag("normalize", normalize),
        "common": check_flag("common", common),
        "generations": None if generations is None else check_count("generations", generations),
        "budget": None if budget is None else check_count("budget", budget),
        "frames": None if frames is None else check_count("frames", frames),
        "score": None if score is None else _as_score(score),
        "test_episodes": check_count("test_episodes", test_episodes, minimum=0),
        "noise_table": None if noise_table is None else check_count("noise_table", noise_table, minimum=0),
        "start": start,
        "on_error": check_choice("on_error", on_error, ("raise", "nan")),
    }
    if all(limit is None for limit in (generations, budget, frames, seconds)):
        raise ValueError(
            "`generations`, `budget`, `frames` or `seconds` must be given: nothing else is sure to end a run."
        )
    return _carried_out(given, key_of(rng, out), workers, seconds, callback, out, keyframe_every)


def _carried_out(
    given: Mapping[str, Any],
    key: Key,
    workers: Any,
    seconds: Any,
    callback: Any,
    out: Any,
    keyframe_every: int,
) -> Evolution:
    """Do a run, or go on with it."""
    check_count("keyframe_every", keyframe_every, minimum=0)
    executor = as_executor(workers)
    limit = None if seconds is None else check_positive("seconds", seconds)
    callbacks, watchers = as_callbacks(callback)
    setting = Setting.of(given, key)
    config = setting.config(executor.threads)
    job = setting.job(executor)
    _check_budget(job, given["budget"])
    directory = None
    if out is not None:
        names = [value for value in setting.given.values() if isinstance(value, str)]
        code = "the environment or the policy"
        directory = directory_of(Path(out), config, setting.arrays, executor, names, code)
    with contextlib.ExitStack() as stack:
        if keyframe_every:
            job.keyframes = stack.enter_context(_keyframes(setting, executor, out))
            job.keyframe_every = keyframe_every

        def concluded(outcome: Run[EvolutionState]) -> tuple[Evolution, dict[str, Any]]:
            result = _result(setting, job, outcome)
            return result, _entries(setting, outcome, result)

        return kept_run(
            job,
            directory,
            config,
            executor,
            stop=Stop(None, limit),
            callbacks=[_adapted(one) for one in callbacks],
            watchers=watchers,
            concluded=concluded,
            resumed_by="evolution.resume",
        )


def resume(
    out: str | os.PathLike[str],
    *,
    environment: Any = None,
    policy: Any = None,
    behaviour: Any = None,
    workers: int | Executor | Callable[..., Any] = 1,
    seconds: float | None = None,
    callback: Any = None,
    keyframe_every: int = 25,
) -> Evolution:
    """Go on with a run that was stopped or killed; a finished one just returns its result.

    Args:
        out: The run's directory.
        environment: The environment, where it was not given by name: functions are never stored.
        policy: The policy, likewise.
        behaviour: The behaviour, likewise.
        workers: As in `evolve`; it need not be what it was.
        seconds: As in `evolve`; it must be given where nothing else is sure to end the run.
        callback: As in `evolve`.
        keyframe_every: As in `evolve`.

    Raises:
        RunDirectoryError: The directory is missing, no run of this kind, in use, or something has to be given
            again.
        ValueError: `seconds` is needed.
        CheckpointError: Its checkpoints are damaged or newer than this version.
    """
    path = Path(out)
    given = read_given(path, {"environment": environment, "policy": policy, "behaviour": behaviour})
    if seconds is None and all(given[name] is None for name in ("generations", "budget", "frames")):
        with contextlib.closing(RunDirectory.open(path)) as directory:
            is_over = directory.result.get("status") == STATUS["finished"]
        if not is_over:
            raise ValueError(f"`seconds` must be given: nothing else is sure to end the run in {path}.")
    return _carried_out(given, key_of(None, out), workers, seconds, callback, out, keyframe_every)


@contextlib.contextmanager
def _keyframes(setting: Setting, executor: Executor, out: Any) -> Iterator[Keyframes | None]:
    """Find a place for keyframes, where anybody may need some."""
    if setting.codec is None or setting.codec.dim < KEYFRAMED:
        yield None
    elif out is not None:
        yield Keyframes(str(Path(out).absolute() / "keyframes"))
    elif isinstance(executor, Serial):
        yield None
    else:
        with tempfile.TemporaryDirectory(prefix="gradfree-") as folder:
            yield Keyframes(folder)


def _as_score(score: Any) -> float:
    if math.isnan(found := check_number("score", score)):
        raise ValueError("`score` must be a number that can be reached, got nan.")
    return found


def _check_budget(job: EvolutionJob, budget: int | None) -> None:
    """Refuse a budget in which nothing could be learnt.

    Raises:
        ValueError: It is below the episodes of a first generation, and of what is tried again after it.
    """
    if budget is None:
        return
    first, again = len(job.ask(job.init())), getattr(job.optimizer.method, "reserve", 0)
    if budget < first + again:
        trials = f", and {again} in which the best of it is tried again" if again else ""
        raise ValueError(
            f"`budget` must be at least {first + again} episodes, {first} of a first generation{trials}, got "
            f"{budget}; options of the method, such as `population_size` where it has one, make them fewer."
        )


def _result(setting: Setting, job: EvolutionJob, outcome: Run[EvolutionState]) -> Evolution:
    state = outcome.state
    method = setting.method
    tested = state.x is not None and state.num_final > 0
    is_lost = tested and math.isnan(state.fun)
    ended = outcome.status not in ("interrupted", "failed")
    parameters = job.settle(state, None).x if state.x is None else state.x
    genome = getattr(method, "genome", None)
    return Evolution(
        parameters=parameters,
        policy=setting.objective.policy,
        normalizer=job.optimizer.normalizer(state.optimizer),
        genome=None if genome is None else genome(state.optimizer.method),
        codec=setting.codec,
        family=setting.family(state.optimizer.method),
        names=setting.names,
        score=-state.fun if tested else math.nan,
        score_error=state.fun_error,
        best=-state.fun_best if math.isfinite(state.fun_best) else math.nan,
        episodes=state.nfev,
        frames=state.frames,
        generations=generations_of(state),
        test_episodes=state.num_final,
        num_failed=state.num_failed,
        history=history_of(state),
        message=outcome.reason + ("; none of its champion's fresh episodes had a return" if is_lost else ""),
        success=ended and state.nfev > state.num_failed and not is_lost,
        seconds=outcome.seconds,
        account=job.account.entries(state.nfev + state.num_final),
        state=state.optimizer.method,
    )


def _entries(setting: Setting, outcome: Run[EvolutionState], result: Evolution) -> dict[str, Any]:
    """Return what `result.json` is to hold."""
    return {
        "score": result.score,
        "score_error": result.score_error,
        "best": result.best,
        "fun": -result.score if math.isfinite(result.score) else -result.best,
        "fun_best": -result.best,
        "nfev": result.episodes + result.test_episodes,
        "nit": outcome.state.step,
        "generations": result.generations,
        "frames": result.frames,
        "num_failed": result.num_failed,
        "success": result.success,
        "status": STATUS[outcome.status],
        "message": result.message,
        "method": setting.given["method"],
        "account": result.account,
        "seconds": result.seconds,
    }


def _adapted(callback: Callable[[Generation], None]) -> Callable[[Any, Report], None]:
    def call(state: EvolutionState, report: Report) -> None:
        del report
        own = {name: column[-1] for name, column in history_of(state).items()}
        callback(
            Generation(
                state.step,
                generations_of(state),
                state.nfev,
                state.frames,
                bool(own["retrial"]),
                float(own["highest"]),
                float(own["median"]),
                float(own["best"]),
            )
        )

    return call
