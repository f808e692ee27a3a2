"""Clients of a block, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from federated import part
from federated.algorithm import Hidden, Local, Problem, Trip
from federated.messages import Message
from federated.objective import ClientObjective
from federated.part import Block, Errand, edges_of
from tests.federated.toys import At, Bowls, Client, Descent, Together
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Rows
from zoo.execution.parts import Query

KEY = Key(5)


@pytest.mark.parametrize("num_clients", [1, 2, 15, 16, 17, 100, 1000])
def test_blocks_have_all_clients_and_hardly_differ_in_size(num_clients: int) -> None:
    edges = edges_of(num_clients)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1]) == (0, num_clients)
    assert len(sizes) == min(num_clients, part.BLOCKS)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


@dataclasses.dataclass(frozen=True)
class Scripted(Descent):
    """Clients do what a script says."""

    script: Callable[[Any, Any, Local], Any] | None = None

    @property
    def trips(self) -> tuple[Trip, ...]:
        assert self.script is not None
        return (Trip(self._ask, self.script, self._take_places),)


class Asked(Together):
    """Takes note of who is asked together."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.calls: list[list[int]] = []

    def joint_values(self, clients: np.ndarray, x: Any, keys: Any) -> Any:
        self.calls.append(clients.tolist())
        assert len(keys) == len(x) == len(clients)
        return super().joint_values(clients, x, keys)


def block(algorithm: Descent, task: Bowls, edges: tuple[int, ...] = (0, 6), index: int = 0) -> Block:
    problem = Problem(task.num_clients, task.bounds, KEY, (1.0,) * task.num_clients)
    return Block(algorithm, task.start(KEY), problem, edges, index)


def errand(clients: list[int], trip: int = 0, **more: Any) -> Errand:
    message: Message = more.pop("message", At(np.zeros(3)))
    which = np.zeros(len(clients), np.int64)
    return Errand(2, trip, KEY.fold("trip"), np.array(clients, np.int64), (message,), which)


def handled(one: Block, what: Errand, task: Bowls) -> tuple[list[Any], Query]:
    query = Query(ClientObjective(task), KEY)
    return one.handle(what, KEY, query), query


def bytes_of(one: Block) -> list[tuple[int, str]]:
    return [(client, digest(found)) for client, found in sorted(one.snapshot().items())]


def test_only_its_own_clients_that_are_asked() -> None:
    task = Bowls(6)
    told, query = handled(block(Descent(), task, (0, 2, 5, 6), 1), errand([0, 2, 4, 5]), task)
    assert [one.client for one in told] == [2, 4]
    assert [one.queries for one in told] == [3, 3]
    assert sum(map(len, query.values)) == 6


def test_clients_go_on_side_by_side_and_some_are_done_before_others() -> None:
    def script(client: Client, message: At, local: Local) -> Any:
        for _ in range(local.client):
            values = yield message.x[None] + local.client
            assert values.shape == (1,)
            assert values[0] == ((0.9 * local.client) ** 2 * np.ones(3)).sum() or local.client
        return Client(None, local.client), At(np.full(3, float(local.client)))

    task = Asked()
    told, query = handled(block(Scripted(script=script), task), errand([0, 1, 3]), task)
    assert task.calls == [[1, 3], [3], [3]]
    assert [(one.client, one.queries, one.message.x[0]) for one in told] == [(0, 0, 0), (1, 1, 1), (3, 3, 3)]
    assert len(query.values) == 3


def test_each_yield_has_randomness_of_its_own_and_its_points_share_it() -> None:
    seen: dict[int, list[float]] = {}

    def script(client: Client, message: At, local: Local) -> Any:
        for _ in range(3):
            values = yield np.zeros((2, 3))
            seen.setdefault(local.client, []).extend(values)
        return client, message

    class Noisy(Bowls):
        def values(self, client: int, x: Any, *, key: Key) -> Any:
            return np.full(len(x), key.normal(0, 1, 1)[0, 0])

    task = Noisy(6)
    handled(block(Scripted(script=script), task), errand([0, 1]), task)
    drawn = [*seen[0], *seen[1]]
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) == 6
    alone: dict[int, list[float]] = dict(seen)
    seen.clear()
    handled(block(Scripted(script=script), task), errand([1]), task)
    assert seen[1] == alone[1]


def test_points_may_be_hidden_or_candidates_or_none_at_all() -> None:
    def script(client: Client, message: At, local: Local) -> Any:
        plain = yield np.ones((2, 3))
        hidden = yield Hidden(np.ones((3, 3)))
        candidates = yield Rows(np.ones((1, 3)))
        hidden_candidates = yield Hidden(Rows(np.ones((4, 3))))
        none = yield np.empty((0, 3))
        lengths = [len(one) for one in (plain, hidden, candidates, hidden_candidates, none)]
        return client, At(np.array(lengths, float))

    for task in (Bowls(6), Together(6)):
        (told,), query = handled(block(Scripted(script=script), task), errand([2]), task)
        assert told.message.x.tolist() == [2, 3, 1, 4, 0]
        assert (told.queries, told.hidden) == (10, 7)
        assert sum(map(len, query.values)) == 10


def test_values_are_the_clients_own_to_write_to() -> None:
    def script(client: Client, message: At, local: Local) -> Any:
        values = yield np.ones((2, 3))
        values[:] = 0.0
        return client, At(values)

    task = Bowls(6)
    _, query = handled(block(Scripted(script=script), task), errand([1]), task)
    assert query.values[0].tolist() == [3 * 0.9**2] * 2


def test_gradients_are_counted() -> None:
    class Sloped(Bowls):
        def gradient(self, client: int, x: Any) -> Any:
            return 2 * (x - client / 10)

    def script(client: Client, message: At, local: Local) -> Any:
        found = local.gradient(message.x) + local.gradient(message.x)
        return client, At(found)

    task = Sloped(6)
    told, _ = handled(block(Scripted(script=script), task), errand([0, 5]), task)
    assert [one.gradients for one in told] == [2, 2]
    assert told[1].message.x.tolist() == [-2.0] * 3


def test_who_raises_leaves_all_states_as_they_were() -> None:
    task, algorithm = Bowls(6), Descent()
    one = block(algorithm, task)
    handled(one, errand([0, 1, 2]), task)
    before = bytes_of(one)

    def raises(client: Client, message: At, local: Local) -> Any:
        if local.client == 2:
            raise RuntimeError("a bug")
        yield np.ones((1, 3))
        return client, message

    one._algorithm = Scripted(script=raises)
    with pytest.raises(RuntimeError, match="a bug"):
        handled(one, errand([0, 1, 2, 3]), task)
    assert bytes_of(one) == before


def test_states_come_with_the_first_errand_and_survive_a_snapshot() -> None:
    task, algorithm = Bowls(6), Descent()
    one, other = block(algorithm, task), block(algorithm, task)
    assert one.snapshot() == {}
    handled(one, errand([1, 4]), task)
    assert sorted(one.snapshot()) == [1, 4]
    other.restore(one.snapshot())
    for what in (errand([1, 2, 3]), errand([4, 5])):
        told = [
            [(t.client, t.message.x.tolist()) for t in handled(each, what, task)[0]] for each in (one, other)
        ]
        assert told[0] == told[1]
    assert bytes_of(one) == bytes_of(other)
    assert one.snapshot()[1].trips == 2


@pytest.mark.parametrize(
    "result", [None, 1, (1, 2, 3), (None, None)], ids=["none", "number", "three", "no message"]
)
@pytest.mark.parametrize("late", [True, False])
def test_what_a_client_comes_to_must_be_a_state_and_a_message(result: Any, late: bool) -> None:
    def asks(client: Client, message: At, local: Local) -> Any:
        yield np.ones((1, 3))
        return result

    task = Bowls(6)
    script = asks if late else lambda client, message, local: result
    with pytest.raises(TypeError, match="`reply` must return a client's new state and a Message, got"):
        handled(block(Scripted(script=script), task), errand([1]), task)
