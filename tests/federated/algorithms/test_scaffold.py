"""SCAFFOLD: what its control variates add up to, whoever is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.algorithm import Answer, Local, Problem
from federated.algorithms.fedzo import FedZO
from federated.algorithms.scaffold import ScaffoldI, ScaffoldII
from federated.network import Network
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values
from zoo.core.rng import Key

BOTH = [ScaffoldI, ScaffoldII]


@pytest.mark.parametrize("method", BOTH, ids=lambda method: method.__name__)
def test_one_client_is_fedzo(method: Any) -> None:
    task = Quadratic(20, 1)
    one, two = federated(method(), task, rounds=4), federated(FedZO(), task, rounds=4)
    assert one.x.tobytes() == two.x.tobytes()


@pytest.mark.parametrize("method", BOTH, ids=lambda method: method.__name__)
def test_identical_clients_correct_nothing(method: Any) -> None:
    """With all directions estimates are the same on all clients, and so are control variates."""
    task = Quadratic(20, 4, heterogeneity=0.0)
    options = {"update": "sgd", "num_directions": 20, "stencil": "central"}
    one = federated(method(**options), task, rounds=4)
    two = federated(FedZO(**options), task, rounds=4)
    np.testing.assert_allclose(one.x, two.x, rtol=0, atol=1e-10)


def test_queries_and_bytes_of_the_first_form() -> None:
    task = Quadratic(30, 3)
    method = ScaffoldI(num_steps=4, num_directions=7)
    state = federated(method, task, rounds=5)
    assert state.queries.tolist() == [5 * 5 * 8] * 3
    assert method.most_queries(30, True) == 5 * 8
    numbers, round_of = 8 * 30, 3 * 5
    assert state.up == round_of * 2 * numbers
    # x goes down twice in the first round only; the rest are numbers of changes, and where x was.
    assert state.down == round_of * (2 * numbers + 3 * 8 + 1) + 3 * (numbers - 1)


def test_queries_and_bytes_of_the_second_form() -> None:
    task = Quadratic(30, 3)
    method = ScaffoldII(num_steps=4, num_directions=7)
    state = federated(method, task, rounds=5)
    assert state.queries.tolist() == [5 * 4 * 8] * 3
    assert state.up == 3 * 5 * 2 * 8 * 30
    assert state.down == 3 * 5 * (2 * 8 * 30 + 2 * 8)


def test_published_queries() -> None:
    """Row 7."""
    task = Quadratic(30, 3)
    first, second = (federated(method.published(), task) for method in BOTH)
    assert first.queries.tolist() == [242] * 3
    assert second.queries.tolist() == [221] * 3
    assert [first.nfev - first.hidden, second.nfev - second.hidden] == [3 * 211] * 2
    assert [method.published().most_queries(30, True) for method in BOTH] == [242, 221]


NETWORK = Network(participation=0.7, dropout=0.3, latency=1.0, jitter=1.0, wait_for=0.6, min_replies=2)


@pytest.mark.parametrize("method", BOTH, ids=lambda method: method.__name__)
def test_variates_add_up(method: Any) -> None:
    """C is the mean of what clients hold, although they are absent, vanish, and replies are late."""

    class Weighted(Quadratic):
        def weight(self, client: int) -> float:
            return 1.0 + client

    task = Weighted(12, 8, heterogeneity=2.0)
    made = method(num_steps=2, num_directions=4)
    clients: dict[int, Any] = {}
    inner = type(made).client_init

    class Watched(method):  # type: ignore[misc]
        @property
        def trips(self) -> Any:
            def watched(trip: Any) -> Any:
                def reply(client: Any, message: Any, local: Local) -> Any:
                    state, answer = yield from trip.reply(client, message, local)
                    clients[local.client] = state
                    return state, answer

                return trip._replace(reply=reply)

            return tuple(map(watched, super().trips))

        def client_init(self, x0: Any, problem: Problem, client: int) -> Any:
            clients[client] = inner(self, x0, problem, client)
            return clients[client]

    state = federated(Watched(**vars(made)), task, rounds=12, network=NETWORK)
    assert state.late
    assert state.absent
    server = state.optimizer
    held = np.zeros(12)
    for client, kept in clients.items():
        held += (1.0 + client) / 36 * kept.informed(int(server.heard[client])).variate
    np.testing.assert_allclose(server.variate, held, rtol=0, atol=1e-12)
    assert abs(held).max() > 0


@pytest.mark.parametrize("method", BOTH, ids=lambda method: method.__name__)
def test_client_without_values_changes_no_variate(method: Any) -> None:
    class Cut(Quadratic):
        def joint_values(self, clients: Any, x: Any, keys: Any) -> Any:
            return super().joint_values(clients, x, keys) * np.where(clients == 1, np.nan, 1)

    options = {"num_steps": 1, "num_directions": 12, "stencil": "central", "update": "sgd"}
    made = method(learning_rate=0.01, **options)
    task = Cut(12, 4, heterogeneity=2.0)
    state = federated(made, task, rounds=1, x0=np.full(12, 0.5))
    x = state.optimizer.x if method is ScaffoldI else np.full(12, 0.5)
    others = [task.gradient(client, x) for client in (0, 2, 3)]
    np.testing.assert_allclose(state.optimizer.variate, sum(others) / 4, rtol=0, atol=1e-9)
    assert state.optimizer.heard.tolist() == [0] * 4
    numbers = 8 * 12
    assert state.up == 3 * 2 * numbers + 2


def test_second_trip_may_have_fewer_answers() -> None:
    method = ScaffoldI(num_steps=1, num_directions=2)
    problem = Problem(3, None, Key(0))
    server = method.server_init(np.zeros(4), problem)
    clients = [method.client_init(np.zeros(4), problem, client) for client in range(3)]
    task = Quadratic(4, 3)

    def answer(trip: int, client: int, message: Any) -> Answer:
        work = method.trips[trip].reply(clients[client], message, Local(client, 0, Key(client), task))
        wanted = next(work)
        try:
            while True:
                wanted = work.send(task.values(client, wanted.rows(0, len(wanted)), key=Key(0)))
        except StopIteration as end:
            clients[client], said = end.value
        return Answer(client, said, 1.0)

    for present in ([0, 2], [1, 2]):
        told = method.trips[0].request(server, [0, 1, 2])
        server = method.trips[0].merge(server, [answer(0, i, told[i]) for i in range(3)])
        message = method.trips[1].request(server, [0, 1, 2])
        server = method.trips[1].merge(server, [answer(1, i, message) for i in present])
    told = method.trips[0].request(server, [0, 1, 2])
    assert [one.x is None for one in told] == [False, True, True]
    assert told[1] is told[2]
    assert server.heard.tolist() == [0, 1, 1]


def test_drift_is_corrected() -> None:
    """With exact differences and SGD, FedZO stays beside the minimum that SCAFFOLD comes to."""
    task = Quadratic(20, 5, heterogeneity=4.0, key=Key(5))
    options = {"update": "sgd", "learning_rate": 0.02, "num_directions": 20, "stencil": "central"}
    ends = [
        values(federated(method(**options), task, rounds=30))[-1] - task.optimum
        for method in (FedZO, ScaffoldI, ScaffoldII)
    ]
    assert max(ends[1:]) < 0.1 * ends[0]
