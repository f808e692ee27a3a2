"""A swarm of `CBO` in shards: what is kept by whoever leads it, and what is done to some of its particles.

The leader has the state without its particles, the head; each shard has a block of particles. A step is one
message to each shard and one answer: d numbers and a few both ways, and the values. The functions called are
those that `CBO.tell` calls on all particles, on the blocks that its sums are made of, so that particles,
values and all that is common come to the same bytes as in one process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from zoo.consensus.cbo import CBO, CBOState
from zoo.consensus.members import Members, Move, join
from zoo.consensus.swarm import Particles
from zoo.consensus.weights import Sums
from zoo.core.device import Array
from zoo.core.types import Candidates

Matrix = np.ndarray[Any, Any]


def check(method: Any, name: str | None = None) -> CBO:
    """Return a method that can be put in shards.

    Args:
        method: Any method.
        name: What it is called; by default its class says it.

    Raises:
        ValueError: It cannot; the message says why.
    """
    advice = "Leave `sharded` out: workers then evaluate for one process, which has all."
    if not isinstance(method, CBO):
        raise ValueError(
            f"`sharded` must be False but for the methods 'cbo' and 'cbo-textbook', got "
            f"{type(method).__name__ if name is None else repr(name)}. {advice}"
        )
    for option, plain in (("batch_size", None), ("reduction", 0.0)):
        if (given := getattr(method, option)) != plain:
            raise ValueError(f"`{option}` must be {plain} in shards, got {given!r}. {advice}")
    return method


def check_search(*, is_primed: bool, is_constrained: bool, noise: bool) -> None:
    """Refuse what adds candidates of its own to those of the method.

    Args:
        is_primed: Whether known points are evaluated first.
        is_constrained: Whether there are constraints.
        noise: Whether candidates are evaluated again.

    Raises:
        ValueError: Something does.
    """
    for there, what in (
        (is_primed, "`known` has points without values"),
        (is_constrained, "there are `constraints`"),
        (noise, "`noise` is True"),
    ):
        if there:
            raise ValueError(
                f"`sharded` must be False where {what}. Workers then evaluate for one process, which has the "
                "candidates."
            )


def is_whole(state: CBOState) -> bool:
    """Return whether a state has its particles."""
    return bool(state.members.offsets.shape[1])


def head_of(state: CBOState) -> CBOState:
    """Return a state without its particles."""
    return replace(state, members=state.members.cut(0, 0))


def whole_of(head: CBOState, parts: Sequence[Members]) -> CBOState:
    """Return the state that a head and the particles of all shards are of."""
    return replace(head, members=join(parts))


class Place(NamedTuple):
    """How far a swarm is.

    Attributes:
        takes: How often particles have taken values.
        moves: How often they have moved.
        told: What they were told by the last move, for shards that have not made it yet, without its anchor.
    """

    takes: int
    moves: int
    told: Move | None

    @classmethod
    def of(cls, head: CBOState, told: Move | None) -> Place:
        """Return the place of a head, whose last move was this one."""
        sent = None if told is None else replace(told, anchor=told.anchor[:, :0])
        return cls(head.moves + head.awaits, head.moves, sent)


class Given(NamedTuple):
    """What is common to a step, beyond the place.

    Attributes:
        best_value: The best value before it, shape (1,).
        alpha: The inverse temperature, shape (1,), or None where it takes all energies to know it.
    """

    best_value: Matrix
    alpha: Matrix | None


class Taken(NamedTuple):
    """What a shard says of values that its particles have taken.

    Attributes:
        found: The best of them, as `CBO.best_of` returns it.
        accepted: Explorers that found something better, shape (1,).
        sums: Of its blocks, or None where the temperature is not known yet.
        heights: Energies of what takes part in the consensus, shape (1, k), where the temperature wants them.
    """

    found: tuple[Matrix, Array | None]
    accepted: Matrix
    sums: list[Sums] | None
    heights: Matrix | None


class Shard:
    """Some particles of a swarm.

    Args:
        method: The method.
        head: What is common, as of when the shard was made; its anchor goes along with the moves.
        members: The particles.
        takes: How often they have taken values.
        pending: Energies taken last, which do not count before the step is done, shape (1, k); or None.
    """

    def __init__(
        self, method: CBO, head: CBOState, members: Members, takes: int, pending: Matrix | None = None
    ) -> None:
        self.method, self.head, self.members, self.takes, self.pending = method, head, members, takes, pending
        self._taken: Members | None = None
        if pending is not None:
            self._taken = method.take(head, members, pending)[0]

    @property
    def state(self) -> tuple[CBOState, Members, int, Matrix | None]:
        """What another shard is made from that is to go on from here."""
        return self.head, self.members, self.takes, self.pending

    def reach(self, place: Place) -> None:
        """Do what is left to be done up to a place.

        Raises:
            RuntimeError: There is no way from here to there.
        """
        if self.takes == place.takes - 1 and self._taken is not None:
            self.members, self.takes = self._taken, place.takes
            self._taken = self.pending = None
        if self.head.moves == place.moves - 1 and place.told is not None:
            told = replace(place.told, anchor=self.head.anchor + place.told.shift)
            self.members = self.method.move(self.head.frame, self.members, told)
            self.head = replace(self.head, moves=place.moves, anchor=told.anchor)
        if (self.takes, self.head.moves) != place[:2]:
            raise RuntimeError(
                f"particles {self.members.start} to {self.members.stop} are at move {self.head.moves}, and "
                f"not at move {place.moves} or the one before."
            )

    @property
    def candidates(self) -> Stretch:
        """The particles as candidates, by their numbers."""
        frame = self.head.frame
        rows = Particles(frame.like, frame.bounds, self.head.anchor, self.members.offsets)
        return Stretch(rows, self.members.start)

    def take(self, given: Given, energies: Matrix) -> Taken:
        """Let the particles take values, which count as soon as the step is done.

        Args:
            given: What is common.
            energies: Shape (1, k), infinite where there is none.
        """
        method = self.method
        head = replace(self.head, best_value=given.best_value)
        self._taken, accepted = method.take(head, self.members, energies)
        self.pending = energies
        found = method.best_of(head, self._taken)
        if given.alpha is None:
            return Taken(found, accepted, None, method.heights(head, self._taken))
        return Taken(found, accepted, self.weigh(given.alpha), None)

    def weigh(self, alpha: Matrix) -> list[Sums]:
        """Return the sums over the blocks, of particles that have taken their values."""
        assert self._taken is not None
        return self.method.weigh(replace(self.head, alpha=alpha), self._taken)

    def measure(self, extent: bool) -> tuple[list[float], tuple[Matrix, Matrix] | None]:
        """Return what diagnostics, and with `extent` what the end of a search, depend on of the particles."""
        method, head = self.method, self.head
        return method.powers(head, self.members), method.extent(head, self.members) if extent else None


class Stretch(Candidates):
    """Some rows of a step, by their numbers there.

    Args:
        inner: These rows alone.
        start: Number of the first.
    """

    __slots__ = ("inner", "start")

    def __init__(self, inner: Candidates, start: int) -> None:
        self.inner, self.start = inner, start

    @property
    def dim(self) -> int:
        return self.inner.dim

    def __len__(self) -> int:
        return self.start + len(self.inner)

    def rows(self, start: int, stop: int) -> Array:
        return self.inner.rows(start - self.start, stop - self.start)


def shards_of(method: CBO, state: CBOState, edges: Sequence[int]) -> list[Shard]:
    """Return the shards of a swarm, cut at these numbers of particles."""
    head, takes = head_of(state), state.moves + state.awaits
    return [
        Shard(method, head, state.members.cut(first, last), takes)
        for first, last in itertools.pairwise(edges)
    ]


def given_of(method: CBO, head: CBOState) -> Given:
    """Return what is common to the step that a head is before."""
    if method.alpha_schedule == "effective-sample-size":
        return Given(head.best_value, None)
    return Given(head.best_value, method.heat(head).alpha)


def hear(method: CBO, head: CBOState, count: int, taken: Sequence[Taken]) -> CBOState:
    """Return a head after the values of a step, with its temperature but without the consensus point.

    Args:
        method: The method.
        head: Before it.
        count: How many values it was.
        taken: What all shards say of them, in order.
    """
    accepted = np.sum([one.accepted for one in taken], 0)
    head = replace(head, step=head.step + 1, nfev=head.nfev + count, accepted=accepted)
    head = method.elect(head, [one.found for one in taken])
    heights = [one.heights for one in taken if one.heights is not None]
    return method.heat(head, np.concatenate(heights, 1) if heights else None)


def conclude(method: CBO, head: CBOState, sums: Sequence[Sums]) -> tuple[CBOState, Move | None]:
    """Return a head after a step, and what particles are told, unless more is to be evaluated first."""
    head = method.agree(head, sums)
    return (head, None) if head.awaits else method.order(head, np.empty(0))


def finished(method: CBO, head: CBOState, measure: Callable[[], Sequence[Any]]) -> str | None:
    """Return which stopping rule holds, or None; `measure` returns what all shards say, with their extent."""
    budget = head.frame.budget
    if (budget is not None and head.nfev >= budget) or not method.looks(head):
        return method.finished(head)
    return method.collapsed(head, [extent for _, extent in measure()])


def diagnostics(method: CBO, head: CBOState, measures: Sequence[Any]) -> dict[str, Any]:
    """Return the diagnostics, by what all shards say."""
    return method.described(head, [power for powers, _ in measures for power in powers])


def conclude_with(method: CBO, head: CBOState, value: float) -> tuple[CBOState, Move]:
    """Return a head after the value of the consensus point, and what particles are told."""
    head = replace(head, step=head.step + 1, nfev=head.nfev + 1)
    return method.order(head, np.array([value if np.isfinite(value) else np.inf]))
