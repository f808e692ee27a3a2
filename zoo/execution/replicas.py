"""The replicated step: workers run the method themselves, and only values travel.

Each worker holds a replica of the optimizer's state, tells it the values of every step, and asks it for
the candidates. The driver does the same and is the one that counts. So that a replica which drifted (another
model of processor rounds otherwise) does not go unnoticed, digests of the states are compared: at every step
where states are small, else at every tenth, by when up to nine steps may have used its values. A worker whose
digest differs is warned of, what it answered to that step is evaluated again, and from then on it is sent the
state itself.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from zoo.core.errors import ZooWarning
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.state import digest_of, freeze, thaw
from zoo.core.types import Evaluations, Optimizer
from zoo.execution.crew import Hand
from zoo.execution.packing import Message, encode
from zoo.execution.worker import Work

_EVERY = 10  # steps between comparisons of large states
_SMALL = 2**16  # bytes of a state that is compared at every step
_BEHIND = 8  # steps that a worker may miss and still catch up on by their values


class Place(NamedTuple):
    """Where a step is: what its evaluations are keyed by, and whether states are compared."""

    key: Key
    step: int
    compared: bool


class Replica:
    """An optimizer and its state, on a worker."""

    def __init__(self, optimizer: Optimizer[Any], state: Any) -> None:
        self.optimizer, self.state = optimizer, state

    def work(self, objective: Objective, place: Place) -> Work:
        """Ask for the step's candidates."""
        candidates = self.optimizer.ask(self.state)
        digest = digest_of(*freeze(self.state)) if place.compared else ""
        return Work(candidates, objective.units(candidates), place.key, place.step, digest)


class Given(NamedTuple):
    """A step with the whole state: for workers that are new, drifted, or far behind."""

    optimizer: Optimizer[Any]
    tree: Any
    arrays: dict[str, np.ndarray[Any, Any]]
    place: Place

    def work(self, memory: dict[str, Any]) -> Work:
        """Make a replica of the state, and ask it."""
        state = thaw(self.tree, {name: array.copy() for name, array in self.arrays.items()})
        memory["replica"] = replica = Replica(self.optimizer, state)
        return replica.work(memory["objective"], self.place)


class Told(NamedTuple):
    """A step for a worker that has an earlier state, and reaches this one by the values told since."""

    evaluations: tuple[Evaluations, ...]
    place: Place

    def work(self, memory: dict[str, Any]) -> Work:
        """Take the replica through the steps, and ask it."""
        replica: Replica = memory["replica"]
        for evaluations in self.evaluations:
            replica.state = replica.optimizer.tell(replica.state, evaluations)
        return replica.work(memory["objective"], self.place)


class Replicas:
    """One optimizer's replicas, as the driver knows them."""

    def __init__(self) -> None:
        self._optimizer: Optimizer[Any] | None = None
        self._state: Any = None  # the one that the next step is expected to come with
        self._steps = 0  # that replicas were taken through, over all
        self._told: deque[Evaluations] = deque(maxlen=_BEHIND)  # the last of them

    def begin(self, optimizer: Optimizer[Any], state: Any, key: Key, step: int) -> ReplicatedStep:
        """Return where workers get this step from."""
        if optimizer is not self._optimizer or state is not self._state:
            # Another search, or one that was restored: nobody has its state.
            self._steps += _BEHIND + 1
            self._told.clear()
        self._optimizer, self._state = optimizer, state
        return ReplicatedStep(optimizer, state, key, step, self._steps, tuple(self._told))

    def tell(self, evaluations: Evaluations) -> Any:
        """Return the state after a step."""
        assert self._optimizer is not None
        self._state = self._optimizer.tell(self._state, evaluations)
        self._told.append(evaluations)
        self._steps += 1
        return self._state


class ReplicatedStep:
    """A step as a source for workers of which some have the state already, or an earlier one."""

    def __init__(
        self,
        optimizer: Optimizer[Any],
        state: Any,
        key: Key,
        step: int,
        position: int,
        told: tuple[Evaluations, ...],
    ) -> None:
        self._optimizer, self._state, self._position, self._told = optimizer, state, position, told
        tree, arrays = freeze(state)
        small = sum(array.nbytes for array in arrays.values()) <= _SMALL
        self._place = Place(key, step, small or step % _EVERY == 0)
        self.digest = digest_of(tree, arrays) if self._place.compared else ""
        self._frozen = tree, arrays
        self._messages: dict[int, Message] = {}  # by how many steps a worker is behind, -1 for any more

    def message(self, hand: Hand) -> Message:
        """Return what takes a worker's replica to this step."""
        behind = self._position - hand.memory.get("replica", -_BEHIND - 1)
        if behind > len(self._told) or hand.memory.get("drifted"):
            behind = -1
        hand.memory["replica"] = self._position
        if behind not in self._messages:
            self._messages[behind] = encode(
                Given(self._optimizer, *self._frozen, self._place)
                if behind < 0
                else Told(self._told[len(self._told) - behind :], self._place)
            )
        return self._messages[behind]

    def drifted(self, hand: Hand) -> None:
        """Warn of a worker, which is sent the state itself from now on."""
        warnings.warn(
            f"worker {hand.number} came to another state than the run at step {self._place.step}; what "
            "it evaluated there is evaluated again, and from now on it is sent every state. Bytes are "
            "promised for workers on one model of processor, with the same versions of libraries.",
            ZooWarning,
            stacklevel=2,
        )
