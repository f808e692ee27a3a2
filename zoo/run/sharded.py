"""Swarms in shards: a search whose particles stay on the workers, and come to the bytes they come to without.

Blocks of particles are parts (`zoo.execution.parts`), as many as `zoo.consensus.weights.boundaries` says,
whatever the number of workers. A step is one call: every part hears where the consensus point went, moves
its particles, has them evaluated where they are, and answers with their values, its share of the sums that
the next consensus point is made of, and its best point if that is the best so far. What no part could do at
once (an exception is tried again; time runs out; a worker dies over an evaluation) takes further calls.

Values go through the ledger of the step as they always do, so they are on record in the same form, and
failures have the same consequences. Parts have whole units of the objective evaluated under the keys of the
search. Where a part ended its worker, or where the last step is cut short by the budget and its units are
others, points are fetched from the parts and evaluated by the executor.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from zoo.consensus import sharded
from zoo.consensus.cbo import CBO, CBOState
from zoo.consensus.members import Members, Move
from zoo.consensus.sharded import Given, Place, Shard, Taken
from zoo.consensus.weights import Sums, boundaries, energies_of
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.errors import WorkerError
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Known, Optimizer, Reply
from zoo.execution import interrupts
from zoo.execution.executor import Executor
from zoo.execution.ledger import Ledger
from zoo.execution.parts import Part, PartReply, Query
from zoo.execution.shards import Shards
from zoo.run.job import Report, SearchJob, SearchState
from zoo.run.journal import SEARCH

Matrix = np.ndarray[Any, Any]
Runs = tuple[tuple[int, int], ...]

_LOGGED = 64  # messages that a part made anew handles again at most; a snapshot is as large as its particles


class _Step(NamedTuple):
    """Evaluate the particles, and take their values if all of them are there."""

    place: Place
    given: Given
    key: Key
    step: int
    runs: Runs


class _Again(NamedTuple):
    """Evaluate some particles that have no value yet."""

    key: Key
    step: int
    runs: Runs


class _Take(NamedTuple):
    """Take the values of the step, of all particles there are."""

    place: Place
    given: Given
    energies: Matrix


class _Weigh(NamedTuple):
    """Add up, at this inverse temperature."""

    alpha: Matrix


class _Fetch(NamedTuple):
    """Say where some particles are."""

    place: Place
    runs: Runs


class _Stand(NamedTuple):
    """Do what is left to be done up to a place, so that a snapshot is of there."""

    place: Place


class _Measure(NamedTuple):
    """Say how far the particles spread, and with `extent` how far in every coordinate."""

    place: Place
    extent: bool


class _Values(NamedTuple):
    """What was evaluated: the first row of each query, and what else was found there; and what was taken."""

    starts: tuple[int, ...]
    extras: tuple[Any, ...]
    taken: Taken | None


class Block(Part):
    """A block of particles, on a worker.

    Args:
        method: The method.
        units: Boundaries between the units of a whole step.
        index: Number of the block.
    """

    def __init__(self, method: CBO, units: Sequence[int], index: int) -> None:
        self._method, self._units, self._index = method, units, index
        self._shard: Shard | None = None

    def handle(self, message: Any, key: Key, query: Query) -> Any:
        shard = self._shard
        assert shard is not None
        if isinstance(message, _Again):
            return self._evaluated(shard, message, query)[0]
        if isinstance(message, _Weigh):
            return shard.weigh(message.alpha)
        shard.reach(message.place)
        start, stop = shard.members.start, shard.members.stop
        if isinstance(message, _Step):
            values, energies = self._evaluated(shard, message, query)
            if energies is None:
                return values
            return values._replace(taken=shard.take(message.given, energies))
        if isinstance(message, _Take):
            return shard.take(message.given, message.energies[:, start:stop])
        if isinstance(message, _Fetch):
            return [shard.candidates.rows(first, last) for first, last in _within(message.runs, start, stop)]
        if isinstance(message, _Measure):
            return shard.measure(message.extent)
        return None

    def _evaluated(
        self, shard: Shard, message: _Step | _Again, query: Query
    ) -> tuple[_Values, Matrix | None]:
        """Return what was evaluated, and the energies of all particles if that was all of them."""
        start, stop = shard.members.start, shard.members.stop
        replies: list[Reply] = []
        for first, last in _within(message.runs, start, stop):
            cuts = self._units[bisect_left(self._units, first) : bisect_right(self._units, last)]
            replies.append(query.units(shard.candidates, cuts, key=message.key, step=message.step))
        found = _Values(
            tuple(reply.start for reply in replies), tuple(dict(reply.extras) for reply in replies), None
        )
        if len(replies) != 1 or len(replies[0].values) != stop - start:
            return found, None
        return found, energies_of(replies[0].values)[None]

    def snapshot(self) -> Any:
        return None if self._shard is None else self._shard.state

    def restore(self, snapshot: Any) -> None:
        self._shard = Shard(self._method, *snapshot)


class _Afar(Candidates):
    """The particles of a step, which are at the parts: rows are fetched from there when they are wanted."""

    __slots__ = ("_count", "_job", "_place", "dim")

    dim: int

    def __init__(self, job: ShardedSearch, head: CBOState, count: int) -> None:
        self._job, self._place, self._count = job, job.place_of(head), count
        self.dim = head.frame.dim

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int, stop: int) -> Array:
        return self._job.rows(self._place, start, stop)


class _Some(Candidates):
    """Some rows of a step, in runs."""

    __slots__ = ("_count", "_parts", "_starts")

    def __init__(self, count: int, starts: Sequence[int], parts: Sequence[Array]) -> None:
        self._count, self._starts, self._parts = count, list(starts), list(parts)

    @property
    def dim(self) -> int:
        return int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int, stop: int) -> Array:
        found = []
        while start < stop:
            run = bisect_right(self._starts, start) - 1
            first = start - self._starts[run]
            found.append(self._parts[run][first : first + stop - start])
            if not len(found[-1]):
                raise IndexError(f"row {start} is not among those that are here.")
            start += len(found[-1])
        return found[0] + 0 if len(found) == 1 else array_module(found[0]).concatenate(found)


class _Led:
    """A method as the job uses it: on heads, and on states that have their particles still."""

    def __init__(self, method: CBO, job: ShardedSearch) -> None:
        self.method, self._job = method, job

    @property
    def recommends_evaluated(self) -> bool:
        return self.method.recommends_evaluated

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CBOState:
        return self.method.init(x0, key=key, bounds=bounds, scale=scale, budget=budget, known=known)

    def ask(self, state: CBOState) -> Candidates:
        if state.awaits or sharded.is_whole(state):
            return self.method.ask(state)
        return _Afar(self._job, state, self.method.wanted(state))

    def tell(self, state: CBOState, evaluations: Evaluations) -> CBOState:
        return self.method.tell(state, evaluations)

    def recommend(self, state: CBOState) -> Array:
        return self.method.recommend(state)

    def finished(self, state: CBOState) -> str | None:
        if sharded.is_whole(state):
            return self.method.finished(state)
        return sharded.finished(self.method, state, functools.partial(self._job.measure, state, extent=True))

    def diagnostics(self, state: CBOState) -> dict[str, Any]:
        if sharded.is_whole(state):
            return self.method.diagnostics(state)
        return sharded.diagnostics(self.method, state, self._job.measure(state))


class ShardedSearch(SearchJob):
    """A search by `CBO` whose particles stay where they are evaluated.

    Its state is that of `SearchJob` but for the particles, and valid once: they are where the last state is.
    Snapshots are those of `SearchJob` to the last bit, and either can go on from those of the other.

    Args:
        optimizer: The method.
        objective: As in `SearchJob`.
        executor: One that can keep parts.
        x0: As in `SearchJob`.
        options: As in `SearchJob`.

    Raises:
        ValueError: The method cannot be put in shards, or the objective takes points from several blocks in
            one call.
    """

    def __init__(
        self, optimizer: Optimizer[Any], objective: Objective, executor: Executor, x0: Array, **options: Any
    ) -> None:
        self._method = sharded.check(optimizer)
        super().__init__(optimizer, objective, executor, x0, **options)
        self.optimizer = _Led(self._method, self)
        count = self._method.num_particles
        self._edges = boundaries(count)
        self._units = tuple(objective.units(_Outline(count, len(x0))))
        if not set(self._edges) <= set(self._units):
            height = self._edges[1]
            raise ValueError(
                f"`unit` of the objective must be None or a divisor of {height} where {count} particles are "
                f"in shards of {height}, got {objective.unit!r}."
            )
        self._shards: Shards | None = None
        self._told: Move | None = None  # by the last step
        self._found: dict[int, Array] = {}  # rows of the step that are known here

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        try:
            with super().open():
                yield
        finally:
            self._shards = None

    def step(self, state: SearchState) -> tuple[SearchState, Report]:
        """Have the particles move, be evaluated, and agree on the next consensus point.

        Raises:
            EvaluationError: As in `SearchJob`.
            WorkerError: A part cannot go on.
            Interrupt: A signal asked to stop.
        """
        if sharded.is_whole(state.optimizer):
            self._spread(state.optimizer)
            state = replace(state, optimizer=sharded.head_of(state.optimizer))
        head, candidates = state.optimizer, self.ask(state)
        ledger = self.ledger(candidates, state, SEARCH)
        told: Move | None
        if head.awaits:
            evaluations = self.executor.evaluate(candidates, self.key(SEARCH), state.step, ledger)
            told_head, told = sharded.conclude_with(self._method, head, float(evaluations.values[0]))
        else:
            told_head, told, evaluations = self._step(head, state.step, len(candidates), ledger)
        outcome = self.after(state, told_head, evaluations)
        self._found = {}
        if told is not None:
            self._told = told
        return outcome

    def place_of(self, head: CBOState) -> Place:
        """Return where the particles are, or go, that a head is without."""
        return Place.of(head, self._told)

    def rows(self, place: Place, start: int, stop: int) -> Array:
        """Return some particles as they are to be evaluated, or were."""
        if stop - start == 1 and start in self._found:
            return self._found[start][None]
        parts = self._fetch(place, ((start, stop),))[1]
        return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)

    def measure(self, head: CBOState, extent: bool = False) -> list[Any]:
        """Return what `Shard.measure` of all shards says, in their order."""
        return self._call(_Measure(self.place_of(head), extent))

    def snapshot(self, state: SearchState) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
        """Return the state as a JSON tree and arrays, with the particles gathered from all parts."""
        if not sharded.is_whole(state.optimizer):
            with interrupts.overlooked():
                self._call(_Stand(self.place_of(state.optimizer)))
                assert self._shards is not None
                members: list[Members] = [snapshot[1] for snapshot in self._shards.snapshot()]
            state = replace(state, optimizer=sharded.whole_of(state.optimizer, members))
        return super().snapshot(state)

    def _spread(self, state: CBOState) -> None:
        """Hand the particles to the parts."""
        if self._shards is None:
            self._shards = self.executor.shards(
                functools.partial(Block, self._method, self._units),
                len(self._edges) - 1,
                on_error="nan",
                event=self.event,
                account=self.account,
                logged=_LOGGED,
                lenient=True,
            )
        self._told = None
        self._shards.restore([shard.state for shard in sharded.shards_of(self._method, state, self._edges)])

    def _step(
        self, head: CBOState, step: int, count: int, ledger: Ledger
    ) -> tuple[CBOState, Move | None, Evaluations]:
        """Do a step of the particles; see `sharded` for what is whose business."""
        method, key, place = self._method, self.key(SEARCH), self.place_of(head)
        given = sharded.given_of(method, head)
        evaluation = _Evaluation(self._edges, ledger)
        # The last step may have other units: then the parts evaluate nothing.
        own = self._units[: len(ledger.boundaries)] == tuple(ledger.boundaries)
        runs = evaluation.todo if own else ()
        found = self._call(_Step(place, given, key, step, runs), evaluation)
        while not ledger.complete:
            runs = evaluation.open if own else ()
            if runs:
                self._call(_Again(key, step, runs), evaluation, runs)
            else:
                some = _Some(count, *self._fetch(place, evaluation.todo))
                self.executor.evaluate(some, key, step, ledger)
        evaluations = ledger.evaluations()
        values = evaluations.values
        taken: list[Taken | None] = [
            None if part in evaluation.unsettled else one.taken for part, one in enumerate(found)
        ]
        if None in taken:
            energies = method.energies(head, energies_of(values)[None])
            late = [_Take(place, given, energies)] * len(taken)
            again = self._call([None if one else message for one, message in zip(taken, late, strict=True)])
            taken = [one or other for one, other in zip(taken, again, strict=True)]
        done = [one for one in taken if one is not None]
        head = sharded.hear(method, head, count, done)
        sums: list[Sums] = [one for part in done for one in part.sums or ()]
        if given.alpha is None:
            sums = [one for part in self._call(_Weigh(head.alpha)) for one in part]
        self._note(head, values, done)
        return *sharded.conclude(method, head, sums), evaluations

    def _note(self, head: CBOState, values: Matrix, taken: Sequence[Taken]) -> None:
        """Keep the best points of the parts: one of them may be the best of the search."""
        for (start, stop), one in zip(itertools.pairwise(self._edges), taken, strict=True):
            there = values[start:stop]
            if one.found[1] is not None and np.isfinite(there).any():
                self._found[start + int(np.nanargmin(there))] = head.frame.like.asarray(one.found[1][0])

    def _fetch(self, place: Place, runs: Runs) -> tuple[list[int], list[Array]]:
        """Return particles from the parts: the first number of each run within one part, and their rows."""
        holders = [_within(runs, *block) for block in itertools.pairwise(self._edges)]
        message = _Fetch(place, runs)
        replies = self._call([message if mine else None for mine in holders])
        starts = [first for mine in holders for first, _ in mine]
        return starts, [rows for reply in replies for rows in reply or ()]

    def _call(
        self, message: Any, evaluation: _Evaluation | None = None, runs: Runs | None = None
    ) -> list[Any]:
        """Send parts a message, or each its own, and return their replies.

        Raises:
            WorkerError: A part cannot go on.
        """
        assert self._shards is not None
        number = len(self._edges) - 1
        messages = message if isinstance(message, list) else [message] * number
        if runs is not None:
            blocks = itertools.pairwise(self._edges)
            messages = [message if _within(runs, *block) else None for block in blocks]
        record = None if evaluation is None else evaluation.record
        replies = self._shards.call(messages, self.key(SEARCH), record=record)
        for part, reply in enumerate(replies):
            if reply is not None and reply.error is not None:
                error = reply.error
                raise WorkerError(
                    f"part {part} of the swarm cannot go on, it {error.kind}: {error.message}\n\n"
                    f"{error.details}".rstrip()
                )
        return [None if reply is None else reply.reply for reply in replies]


class _Evaluation:
    """How far the evaluation of a step is.

    Attributes:
        unsettled: Parts that have not taken the values of their particles, or not the ones that count.
    """

    def __init__(self, edges: Sequence[int], ledger: Ledger) -> None:
        self._edges, self._ledger = edges, ledger
        self._aside: set[int] = set()
        self.unsettled: set[int] = set()

    @property
    def todo(self) -> Runs:
        """Rows without a value, in runs."""
        cuts = self._ledger.boundaries
        return tuple((cuts[first], cuts[last]) for first, last in self._ledger.todo)

    @property
    def open(self) -> Runs:
        """The same, but for those of parts that have ended their worker over them."""
        left: list[tuple[int, int]] = []
        for part, block in enumerate(itertools.pairwise(self._edges)):
            if part not in self._aside:
                left += _within(self.todo, *block)
        return tuple(left)

    def record(self, part: int, reply: PartReply) -> None:
        """Take note of what a part has evaluated."""
        found = reply.reply
        if not isinstance(found, _Values):
            return
        if found.taken is None:
            self.unsettled.add(part)
        if not reply.num_queries:
            self._aside.add(part)
        behind = 0
        for start, values, extras in zip(found.starts, reply.values, found.extras, strict=True):
            ahead, behind = behind, behind + len(values)
            failures = tuple(
                failure._replace(row=failure.row - ahead + start)
                for failure in reply.failures
                if ahead <= failure.row < behind
            )
            if len(values) and self._ledger.add(Reply(start, values, failures, extras=extras)):
                self.unsettled.add(part)


class _Outline(Candidates):
    """As many candidates as there will be, of which nothing is known yet."""

    __slots__ = ("_count", "dim")

    dim: int

    def __init__(self, count: int, dim: int) -> None:
        self._count, self.dim = count, dim

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int, stop: int) -> Array:
        raise ValueError("an objective whose units depend on the points cannot be that of a swarm in shards.")


def _within(runs: Runs, start: int, stop: int) -> list[tuple[int, int]]:
    """Return what of some runs of rows lies from `start` to `stop`."""
    cut = ((max(first, start), min(last, stop)) for first, last in runs)
    return [(first, last) for first, last in cut if first < last]
