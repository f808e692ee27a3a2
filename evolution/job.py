"""Neuroevolution as a job: what is counted, when it ends, and what the champion is worth."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np

from evolution.descendants import Descendants
from evolution.episodes import Episodes, Episodic, EpisodicState
from evolution.keyframes import Keyframes
from evolution.members import HeldMembers
from evolution.rollouts import Rollouts
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Candidates, Evaluations
from zoo.execution.executor import Executor
from zoo.run.job import Report, SearchJob, SearchState, lately_failed

COLUMNS = ("step", "episodes", "frames", "retrial", "highest", "median", "best")
"""Of the history of a run; the last three are scores, NaN where there is none."""

KEYFRAMED = 100_000
"""Parameters from which on parents are written down: shorter chains are decoded before a file is read."""


@state
class EvolutionState(SearchState):
    """Where a run is. An evaluation is an episode, its value minus the return.

    Attributes:
        frames: Frames so far.
        history: Numbers of each step in turn, as `COLUMNS` names them.
    """

    frames: int = 0
    history: Log = dataclasses.field(default_factory=Log)


class EvolutionJob(SearchJob):
    """Look for policies of high return.

    The lowest value of the job is that of the best member by re-evaluation, of methods that evaluate again;
    a single episode of a high return is a lucky one. At the end, the champion is tried in fresh episodes, on
    top of the budget.

    Args:
        optimizer: The method.
        objective: The episodes.
        executor: Where they are run.
        x0: Parameters to start from, shape (dim,).
        key: Where all randomness comes from.
        generations: Steps that are not re-evaluations, at most, or None.
        budget: Episodes, at most, or None.
        frames: Frames after which no further generation is begun, or None.
        score: Score, of the best by re-evaluation, at which the search ends, or None.
        test_episodes: Fresh episodes of the champion at the end; 0 for none.
        on_error: "raise" or "nan", for environments that raise.
        threads: Threads of numerical libraries during the run.

    Attributes:
        keyframes: Where decoded parents are written down for workers that come late, or None.
        keyframe_every: After how many generations.
    """

    optimizer: Episodic
    objective: Rollouts
    checkpoint_seconds = 1.0  # so every generation, but for those that are shorter

    def __init__(
        self,
        optimizer: Episodic,
        objective: Rollouts,
        executor: Executor,
        x0: Array,
        *,
        key: Key,
        generations: int | None = None,
        budget: int | None = None,
        frames: int | None = None,
        score: float | None = None,
        test_episodes: int = 30,
        on_error: str = "raise",
        threads: int = 1,
    ) -> None:
        super().__init__(optimizer, objective, executor, x0, key=key, on_error=on_error, threads=threads)
        self._generations, self._episodes, self._frames, self._score = generations, budget, frames, score
        self._test_episodes = test_episodes
        self.keyframes: Keyframes | None = None
        self.keyframe_every = 25

    def init(self) -> EvolutionState:
        return EvolutionState(super().init().optimizer, violation_best=0.0)

    def finished(self, state: SearchState) -> str | None:
        """Return why the search is at its end, or None; trials that are due, or owed at the end, come first.

        Raises:
            TooManyFailures: More than a fifth of the last hundred episodes raised, crashed or hung.
        """
        assert isinstance(state, EvolutionState)
        reason = super().finished(state)
        if reason is not None:
            return reason
        if self._score is not None and -state.fun_best >= self._score:
            return f"the score of {self._score:g} is reached"
        if self.optimizer.members(state.optimizer).episodes is not None:
            return self._no_room(state, len(self.ask(state)))
        reason = self._limit(state)
        closing = None if reason is None else self._closing(state)
        if closing is not None and len(self.optimizer.ask(closing)) <= self._left(state):
            return None
        return reason

    def _limit(self, state: EvolutionState) -> str | None:
        """Return why no further generation is to begin, or None.

        Of a budget, what is to be tried again after a generation is kept, but for the first one.
        """
        if self._frames is not None and state.frames >= self._frames:
            return f"{self._frames} frames are over"
        if self._generations is not None and generations_of(state) >= self._generations:
            return f"all {self._generations} generations are done"
        kept = getattr(self.optimizer.method, "reserve", 0) if state.nfev else 0
        return self._no_room(state, len(self.ask(state)) + kept)

    def _left(self, state: SearchState) -> float:
        """Return how many episodes there may still be."""
        return math.inf if self._episodes is None else self._episodes - state.nfev

    def _no_room(self, state: SearchState, needed: int) -> str | None:
        """Return that the budget does not hold so many more episodes, or None if it does."""
        left = self._left(state)
        if needed <= left:
            return None
        rest = f": the last {left:.0f} are too few to go on, which takes {needed}" if left else ""
        return f"the budget of {self._episodes} episodes is used up{rest}"

    def _closing(self, state: EvolutionState) -> EpisodicState | None:
        """Return the method's state with a last trial due; None if it owes none."""
        closing = getattr(self.optimizer.method, "closing", None)
        due = None if closing is None else closing(state.optimizer.method)
        return None if due is None else replace(state.optimizer, method=due)

    def ask(self, state: SearchState) -> Candidates:
        """Return what the next step wants evaluated; workers learn from it where keyframes lie."""
        candidates = super().ask(state)
        if isinstance(candidates, Episodes) and isinstance(candidates.members, Descendants):
            candidates.members.keyframes = self.keyframes
        return candidates

    def step(self, state: SearchState) -> tuple[SearchState, Report]:
        """Ask, evaluate, tell, and before that write a keyframe where one is due.

        Where no further generation is to begin, it is the trial that the method still owes.
        """
        assert isinstance(state, EvolutionState)
        is_trial = self.optimizer.members(state.optimizer).episodes is not None
        if not is_trial and self._limit(state) is not None:
            return super().step(replace(state, optimizer=self._closing(state)))
        generation = generations_of(state)
        if self.keyframes is not None and generation and generation % self.keyframe_every == 0:
            candidates = self.ask(state)
            assert isinstance(candidates, Episodes)
            members = candidates.members
            if isinstance(members, Descendants) and members.episodes is None:
                try:
                    members.write_keyframe(self.keyframes, generation)
                except OSError as error:  # decoding takes longer without it, and that is all
                    if self.event is not None:
                        self.event({"event": "keyframe not written", "message": str(error)})
        return super().step(state)

    def after(
        self, state: SearchState, optimizer: Any, evaluations: Evaluations
    ) -> tuple[SearchState, Report]:
        """Return the state after a step, and what the step did."""
        assert isinstance(state, EvolutionState)
        candidates = self.ask(state)
        assert isinstance(candidates, Episodes)
        values, nfev = evaluations.values, state.nfev + len(evaluations)
        known = values[np.isfinite(values)]
        lowest = float(known.min()) if len(known) else math.nan
        best = getattr(self.optimizer.method, "best", None)
        found = min(lowest, state.fun_best) if best is None else best(optimizer.method)[1]
        steps = int(np.nansum(evaluations.extras.get("steps", np.zeros(0))))
        frames = state.frames + steps * self.objective.built.frames_per_step
        retrial = candidates.members.episodes is not None
        line = [
            state.step + 1,
            nfev,
            frames,
            retrial,
            -lowest,
            -float(np.median(known)) if len(known) else math.nan,
            -found if math.isfinite(found) else math.nan,
        ]
        told = replace(
            state,
            optimizer=optimizer,
            step=state.step + 1,
            nfev=nfev,
            num_failed=state.num_failed + len(evaluations.failures),
            failures=lately_failed(state, evaluations),
            fun_best=found,
            frames=frames,
            history=state.history.append(line),
        )
        return told, Report(lowest, evaluations, found < state.fun_best)

    def final(self, state: SearchState) -> Candidates | None:
        """Return the fresh episodes of the champion, None if there are to be none."""
        if not self._test_episodes:
            return None
        row = np.ascontiguousarray(to_numpy(self.optimizer.recommend(state.optimizer)), np.float32)
        normalizer = self.optimizer.normalizer(state.optimizer)
        return Episodes(HeldMembers(row[None]), self._test_episodes, normalizer, common=True)

    def settle(self, state: SearchState, evaluations: Evaluations | None) -> SearchState:
        """Return the state at the end, given the champion's fresh episodes."""
        x = np.ascontiguousarray(to_numpy(self.optimizer.recommend(state.optimizer)), np.float32)
        if evaluations is None:
            return replace(state, x=x, fun=state.fun_best)
        known = evaluations.values[np.isfinite(evaluations.values)]
        return replace(
            state,
            x=x,
            fun=float(known.mean()) if len(known) else math.nan,
            # Of differences, so that equal returns have no error, not that of rounding.
            fun_error=float((known - known[0]).std(ddof=1) / math.sqrt(len(known)))
            if len(known) > 1
            else math.nan,
            num_final=len(evaluations),
            num_failed=state.num_failed + len(evaluations.failures),
        )

    def cut_short(self, state: SearchState) -> SearchState:
        """Return what to report of a run that can go on: what its champion is worth by now."""
        return self.finish(state)

    def metrics(self, state: SearchState, report: Report) -> dict[str, Any]:
        """Return the step's numbers and the method's own diagnostics."""
        assert isinstance(state, EvolutionState)
        own = history_of(state)
        found = {name: float(own[name][-1]) for name in COLUMNS[2:]}
        return {
            "step": state.step,
            "nfev": state.nfev,
            "best": state.fun_best if math.isfinite(state.fun_best) else None,
            "value": report.value,
            "median": -found["median"],
            "failed": state.num_failed,
            **self.optimizer.diagnostics(state.optimizer),
            "frames": state.frames,
            "retrial": int(found["retrial"]),
        }


def history_of(state: SearchState) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of a state's history by name."""
    assert isinstance(state, EvolutionState)
    table = state.history.array.reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True))


def generations_of(state: SearchState) -> int:
    """Return how many steps are done that were no re-evaluations."""
    return int((history_of(state)["retrial"] == 0).sum())
