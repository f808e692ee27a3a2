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
    (told,), _ = handled(block(Scripted(script=script), task), errand([1]), task)
    assert told.failure is not None
    expected = "TypeError: `reply` must return a client's new state and a Message, got"
    assert told.failure.message.startswith(expected)


def boom(client: Client, message: At, local: Local) -> Any:
    yield np.ones((2, 3))
    if local.client == 2:
        raise RuntimeError("a bug")
    yield np.ones((1, 3))
    return Client(None, client.trips + 1), message


def gradient_of_none(client: Client, message: At, local: Local) -> Any:
    yield np.ones((2, 3))
    if local.client == 2:
        local.gradient(message.x)
    yield np.ones((1, 3))
    return Client(None, client.trips + 1), message


def unsendable(client: Client, message: At, local: Local) -> Any:
    yield np.ones((2, 3))
    if local.client != 2:
        yield np.ones((1, 3))
    return Client(None, client.trips + 1), At("text") if local.client == 2 else message


OWN_FAILURES = {
    "raises": (boom, "RuntimeError: a bug"),
    "gradient": (gradient_of_none, "NotImplementedError: Bowls knows no exact gradients."),
    "unsendable": (unsendable, "TypeError: `x` of a message must be an array, a number"),
}


@pytest.mark.parametrize("case", OWN_FAILURES)
def test_a_client_that_fails_beside_its_function_is_left_out_alone(case: str) -> None:
    script, message = OWN_FAILURES[case]
    task = Bowls(6)
    one, other = (block(Scripted(script=script), task) for _ in range(2))
    told, query = handled(one, errand([0, 2, 5]), task)
    assert [one.client for one in told] == [0, 2, 5]
    assert [one.failure is None for one in told] == [True, False, True]
    assert [one.queries for one in told] == [3, 2, 3]
    failed = told[1]
    assert failed.failure is not None
    assert (failed.message, failed.nbytes, failed.failure.row) == (None, 0, 2)
    assert failed.failure.message.startswith(message)
    assert ("a bug" in failed.failure.details) == (script is boom)
    assert [client for client, state in one.snapshot().items() if state.trips] == [0, 5]
    replay = Query(ClientObjective(task), KEY, query.values, replayed=True)
    other.handle(errand([0, 2, 5]), KEY, replay)
    assert bytes_of(other) == bytes_of(one)


def test_what_a_client_stumbles_over_once_is_done_again() -> None:
    tries: list[int] = []

    def script(client: Client, message: At, local: Local) -> Any:
        values = yield np.ones((2, 3))
        values[:] = 0
        tries.append(local.client)
        if tries == [1]:
            raise OSError("busy")
        again = yield np.zeros((1, 3))
        return Client(None, client.trips + 1), At(again)

    task = Bowls(6)
    (told,), query = handled(block(Scripted(script=script), task), errand([1]), task)
    assert tries == [1, 1]
    assert (told.failure, told.queries, len(query.values)) == (None, 3, 2)
    assert told.message.x[0] == 3 * 0.1**2


SHAPE = "ValueError: `reply` must yield points of shape (k, 3), got "
KIND = "TypeError: `reply` must yield an array of points, shape (k, 3)"
YIELDS = {
    "one point": (lambda x: x, SHAPE + "shape (3,): yield x[None]"),
    "list": (lambda x: [[0.0] * 3], KIND + ""),
    "dimension": (lambda x: np.zeros((3, 4)), SHAPE + "shape (3, 4)."),
    "cube": (lambda x: np.zeros((1, 1, 3)), SHAPE + "shape (1, 1, 3)"),
    "none": (lambda x: None, KIND + ", of the kind of x0, got None"),
    "candidates": (lambda x: Rows(np.zeros((2, 4))), SHAPE + "candidates"),
    "hidden": (lambda x: Hidden(x), SHAPE + "shape (3,)"),
}


@pytest.mark.parametrize("case", YIELDS)
def test_what_a_client_yields_must_be_points(case: str) -> None:
    wanted, message = YIELDS[case]

    def script(client: Client, message: At, local: Local) -> Any:
        yield wanted(message.x)
        return client, message

    task = Bowls(6)
    (told,), query = handled(block(Scripted(script=script), task), errand([4]), task)
    assert told.failure is not None
    assert told.failure.message.startswith(message)
    assert (told.queries, query.values) == (0, [])


def test_tensors_where_x0_is_an_array_and_the_other_way_round() -> None:
    import torch

    def tensors(client: Client, message: At, local: Local) -> Any:
        yield torch.zeros((1, 3))
        return client, message

    def arrays(client: Client, message: At, local: Local) -> Any:
        yield np.zeros((1, 3))
        return client, message

    for script, task in ((tensors, Bowls(6)), (arrays, Bowls(6, like=("torch", "float32", "cpu")))):
        (told,), _ = handled(block(Scripted(script=script), task), errand([4]), task)
        assert told.failure is not None
        wanted = "an array" if isinstance(task.start(KEY), np.ndarray) else "a tensor"
        assert told.failure.message.startswith(f"TypeError: `reply` must yield {wanted} of points")


def test_more_values_than_an_algorithm_says_are_not_handed_out() -> None:
    def script(client: Client, message: At, local: Local) -> Any:
        yield np.ones((2, 3))
        yield np.ones((1 + local.client, 3))
        return client, message

    task = Bowls(6)
    what = errand([0, 2])._replace(most=np.array([3, 4]))
    told, query = handled(block(Scripted(script=script), task), what, task)
    assert [(one.queries, one.failure and one.failure.kind) for one in told] == [(3, None), (2, "asked")]
    assert sum(map(len, query.values)) == 5
    assert told[1].failure is not None
    assert told[1].failure.message.endswith(
        "asked for 5 values, and `most_queries` leaves it 4 in this round."
    )
