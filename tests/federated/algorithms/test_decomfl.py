"""DeComFL: what travels, and that what is redone is what the server did."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import numpy as np
import pytest

from federated.algorithm import Answer, Local, Problem
from federated.algorithms import decomfl, seeded
from federated.algorithms.decomfl import DeComFL
from federated.network import Network
from federated.task import Task
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.updates.schedules import StepDecay

TASK = Quadratic(24, 4, heterogeneity=2.0)
METHOD = DeComFL(num_steps=3, num_directions=4)
LIKES = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]


class Bowls(Task):
    """Bowls of any dimension, of which each client has the bottom elsewhere."""

    def __init__(self, dim: int, num_clients: int = 3, bounds: Bounds | None = None) -> None:
        self.dim, self.num_clients, self.bounds = dim, num_clients, bounds

    def start(self, key: Key) -> Array:
        return np.full(self.dim, 0.5, np.float32)

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        return ((x - client) ** 2).sum(1)


def answered(method: DeComFL, client: Any, message: Any, number: int, task: Task = TASK) -> tuple[Any, ...]:
    """Return the client afterwards, what it says, and the point that it began at."""
    work = method.trips[0].reply(client, message, Local(number, 0, Key(9), task))
    wanted = next(work)
    began = wanted.rows(0, 1)[0]
    while True:
        try:
            wanted = work.send(task.values(number, wanted.rows(0, len(wanted)), key=Key(0)))
        except StopIteration as end:
            return (*end.value, began)


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no client know of what others have computed."""

    class Forgetful(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            del key, value

    for module in (decomfl, seeded):
        monkeypatch.setattr(module, "KNOWN", Forgetful())


@pytest.mark.parametrize("like", LIKES, ids=str)
@pytest.mark.parametrize("directions", decomfl.LAWS)
@pytest.mark.usefixtures("_alone")
def test_replay_gives_the_servers_bits(like: Like, directions: str) -> None:
    """Row 15: a client that has missed k rounds begins where the server is, for every k."""
    method = DeComFL(3, 4, StepDecay(0.2, 1, 0.9), directions=directions)
    task = Quadratic(120, 4, heterogeneity=2.0)
    x0 = like.asarray(task.start(Key(0)))
    problem = Problem(4, task.bounds, Key(1))
    server = method.server_init(x0, problem)
    clients = {client: method.client_init(x0, problem, client) for client in range(4)}
    trip = method.trips[0]
    for present in ([0, 1, 2, 3], [0], [0, 1], [0], [0, 1], [0], [0, 2, 3]):
        messages = trip.request(server, present)
        answers = []
        for client, message in zip(present, messages, strict=True):
            assert type(message) is decomfl.Missed
            clients[client], said, began = answered(method, clients[client], message, client, task)
            assert Like.of(began) == like
            assert to_numpy(began).tobytes() == to_numpy(server.x).tobytes()
            answers.append(Answer(client, said, 1.0))
        server = trip.merge(server, answers)
    assert server.number == 7
    assert len(server.seeds) == 7 - 4  # client 1 knows of four rounds
    assert to_numpy(server.x).tobytes() != to_numpy(x0).tobytes()


@pytest.mark.usefixtures("_alone")
def test_one_client_goes_where_its_steps_have_led() -> None:
    problem = Problem(1, TASK.bounds, Key(1))
    x0 = TASK.start(Key(0))
    server, client = METHOD.server_init(x0, problem), METHOD.client_init(x0, problem, 0)
    message = METHOD.trips[0].request(server, [0])[0]
    client, said, _ = answered(METHOD, client, message, 0)
    after = METHOD.trips[0].merge(server, [Answer(0, said, 3.0)])
    assert client.x.tobytes() == x0.tobytes()  # its own steps are undone
    y = x0
    for step in range(3):
        y = METHOD._stepped(y, message.seed, step, said.slopes[step], 0.1, TASK.bounds)
    assert after.x.tobytes() == y.tobytes()


def test_an_answer_that_came_too_late_does_no_harm() -> None:
    """The client knows of more rounds than the server thinks, and does none of them twice."""
    problem = Problem(2, TASK.bounds, Key(1))
    x0 = TASK.start(Key(0))
    server = METHOD.server_init(x0, problem)
    clients = [METHOD.client_init(x0, problem, client) for client in range(2)]
    for _ in range(3):
        messages = METHOD.trips[0].request(server, [0, 1])
        clients[0], said, _ = answered(METHOD, clients[0], messages[0], 0)
        clients[1], _, began = answered(METHOD, clients[1], messages[1], 1)
        assert began.tobytes() == server.x.tobytes()
        server = METHOD.trips[0].merge(server, [Answer(0, said, 1.0)])
        assert (server.synced.tolist(), clients[1].number) == ([server.number - 1, 0], server.number - 1)


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_bytes_do_not_depend_on_the_dimension(participation: float) -> None:
    """Row 16."""
    method = DeComFL(num_steps=1, num_directions=2)
    network = Network(participation=participation)
    small, large = (
        federated(method, Bowls(dim, 4), rounds=3, network=network, measure_every=0)
        for dim in (1000, 1_000_000)
    )
    assert small.sent.tolist() == large.sent.tolist()
    assert small.received.tolist() == large.received.tolist()
    assert small.queries.tolist() == large.queries.tolist()
    assert large.x.shape == (1_000_000,)


def test_bytes() -> None:
    state = federated(METHOD, TASK, rounds=4)
    assert state.up == 4 * 4 * (4 * 3 * 4)
    # Everybody knows of all rounds but the last one, and of that from the second round on.
    assert state.down == 4 * (4 * 16 + 3 * (8 + 4 * 3 * 4))
    assert state.queries.tolist() == [4 * 3 * 5] * 4
    assert METHOD.most_queries(24, True) == 3 * 5
    assert METHOD.diagnostics(state.optimizer) == {"rounds kept": 1}


def test_absent_clients_are_sent_what_they_have_missed() -> None:
    """At most x itself, 60 numbers, which weighs as much as 8 rounds do."""
    network, task = Network(participation=1), Quadratic(60, 4)
    state = federated(METHOD, task, rounds=40, network=network)
    down, missed = 0, []
    synced = np.zeros(4, int)
    for number in range(40):
        client = int(network.plan(Key(0).fold("round", number), 4, 1).clients[0])
        missed.append(int(number - synced[client]))
        down += 16 + missed[-1] * (8 + 4 * 3 * 4) if missed[-1] <= 8 else 32 + 8 * 60
        synced[client] = number
    assert max(missed) > 8 > min(missed)
    assert state.optimizer.synced.tolist() == synced.tolist()
    assert state.down == down
    assert state.optimizer.first == max(synced.min(), 40 - 8)
    assert len(state.optimizer.seeds) == 40 - state.optimizer.first


@pytest.mark.parametrize("like", LIKES, ids=str)
@pytest.mark.usefixtures("_alone")
def test_who_has_missed_much_is_sent_x(like: Like) -> None:
    """It has the same bits as one that has redone everything, and goes on like that one."""
    x0 = like.asarray(TASK.start(Key(0)))
    problem = Problem(3, TASK.bounds, Key(1))
    server = METHOD.server_init(x0, problem)
    clients = [METHOD.client_init(x0, problem, client) for client in range(3)]
    rounds = []
    for present in (*([0, 1],) * 6, [0, 1, 2], [0, 1, 2]):
        messages = METHOD.trips[0].request(server, present)
        weights = [one.nbytes for one in messages]
        assert max(weights) <= 32 + x0.nbytes
        rounds.append(type(messages[-1]))
        answers = []
        for client, message in zip(present, messages, strict=True):
            clients[client], said, began = answered(METHOD, clients[client], message, client)
            assert to_numpy(began).tobytes() == to_numpy(server.x).tobytes()
            answers.append(Answer(client, said, 1.0))
        assert len({(clients[client].history, clients[client].number) for client in present}) == 1
        server = METHOD.trips[0].merge(server, answers)
        assert len(server.seeds) * 56 <= x0.nbytes
    assert rounds == [decomfl.Missed] * 6 + [decomfl.Present, decomfl.Missed]


def test_where_a_round_weighs_more_x_is_sent() -> None:
    state = federated(METHOD, Quadratic(3, 2), rounds=5)
    assert state.down == 2 * (16 + 4 * (32 + 3 * 8))
    assert len(state.optimizer.seeds) == 0


def test_runs_in_other_boxes_share_nothing() -> None:
    """Two runs of one process that are told the same, and differ in what else points follow from."""
    method, other = DeComFL(num_steps=1, learning_rate=9.0), DeComFL(num_steps=1, learning_rate=3.0)
    boxes = [Bounds(np.full(6, -5.0), np.full(6, upper)) for upper in (1.0, 5.0)]
    problems = [Problem(3, box, Key(1)) for box in boxes]
    problems += [Problem(3, boxes[0], Key(2)), Problem(3, None, Key(1))]
    clients = [method.client_init(np.full(6, 0.9), problem, 0) for problem in problems]
    assert len({client.history for client in clients}) == 4
    missed = decomfl.Missed(0, np.array([5]), np.ones((1, 1, 20), np.float32), 7)
    ends = [
        method.caught_up(client, missed, box)
        for client, box in zip(clients, (*boxes, boxes[0]), strict=False)
    ]
    assert ends[0].x.max() == 1.0 < ends[1].x.max()
    slower = other.caught_up(clients[0], missed, boxes[0])
    assert slower.x.tobytes() != ends[0].x.tobytes()


def test_clients_at_the_same_point_share_it() -> None:
    problem = Problem(3, TASK.bounds, Key(1))
    x0 = TASK.start(Key(0))
    server = METHOD.server_init(x0, problem)
    clients = [METHOD.client_init(x0, problem, client) for client in range(3)]
    assert clients[0].x is clients[1].x
    for present in ([0, 1, 2], [0, 1], [0, 2]):
        messages = METHOD.trips[0].request(server, present)
        answers = []
        for client, message in zip(present, messages, strict=True):
            clients[client], said, _ = answered(METHOD, clients[client], message, client)
            answers.append(Answer(client, said, 1.0))
        server = METHOD.trips[0].merge(server, answers)
    assert clients[0].x is clients[2].x  # by two steps, and by one
    assert clients[1].x is not clients[0].x
    gone = weakref.ref(clients[1].x)
    del clients
    assert gone() is None


def test_same_bytes_whoever_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(participation=0.5, dropout=0.3)
    shared = federated(METHOD, TASK, rounds=6, network=network)
    calls = []
    monkeypatch.setattr(decomfl, "shared", lambda history, like, make: calls.append(history) or make())
    alone = federated(METHOD, TASK, rounds=6, network=network)
    assert calls
    assert digest(shared.optimizer) == digest(alone.optimizer)


def test_states_survive() -> None:
    problem = Problem(2, TASK.bounds, Key(1))
    x0 = TASK.start(Key(0))
    server, client = METHOD.server_init(x0, problem), METHOD.client_init(x0, problem, 0)
    message = METHOD.trips[0].request(server, [0])[0]
    after = [answered(METHOD, one, message, 0)[1].slopes.tobytes() for one in (client, thaw(*freeze(client)))]
    assert after[0] == after[1]
    assert digest(thaw(*freeze(server))) == digest(server)


@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_descends(stencil: str) -> None:
    method = DeComFL(learning_rate=0.02, stencil=stencil)
    found = values(federated(method, Quadratic(30, 3, heterogeneity=5.0), rounds=20))
    assert found[-1] < 0.1 < 3 < found[0]
    assert DeComFL(stencil=stencil).most_queries(30, True) == 5 * {"forward": 21, "central": 40}[stencil]


@pytest.mark.parametrize(
    "like", [Like("numpy", "float16"), Like("torch", "float16"), Like("torch", "bfloat16")], ids=str
)
def test_half_precision(like: Like) -> None:
    """Points are of half precision, steps are not lost to it."""
    method = DeComFL(learning_rate=1e-5)
    x0 = like.asarray(TASK.start(Key(0)))
    state = federated(method, TASK, x0=x0, rounds=2)
    assert Like.of(state.x) == like
    assert Like.of(state.optimizer.x).dtype == "float32"
    assert (to_numpy(state.optimizer.x) != to_numpy(x0)).any()


def test_failed_values() -> None:
    class Broken(Bowls):
        def values(self, client: int, x: Array, *, key: Key) -> Any:
            found = super().values(client, x, key=key)
            return found * np.nan if client == 0 else np.where(np.arange(len(x)) == 2, np.nan, found)

    state = federated(DeComFL(1, 3), Broken(6, 2), rounds=1)
    slopes = state.optimizer.slopes[0, 0]
    assert slopes[1] == 0
    assert (slopes[[0, 2]] != 0).all()
    assert state.up == 3 * 4 + 1  # the other one has no vote
    nothing = federated(DeComFL(1, 3), Broken(6, 1), rounds=2)
    assert (nothing.x == 0.5).all()


def test_points_stay_in_the_box() -> None:
    class Fenced(Bowls):
        def values(self, client: int, x: Array, *, key: Key) -> Any:
            assert self.bounds is not None
            assert self.bounds.contains(x)
            return super().values(client, x, key=key)

    bounds = Bounds(np.full(4, 0.499), np.full(4, 0.75))
    state = federated(DeComFL(), Fenced(4, 3, bounds), rounds=5)
    assert bounds.contains(state.x)
    assert (state.x > 0.6).all()
    loose = federated(DeComFL(bounded=False), Bowls(4, 3, bounds), rounds=5)
    np.testing.assert_allclose(loose.x, 1.0, atol=0.05)


def test_one_coordinate() -> None:
    assert values(federated(DeComFL(learning_rate=0.002), Quadratic(1, 2), rounds=8))[-1] < 0.2


def test_checkpoints_hold_x_once() -> None:
    """However many clients are there, and after a restart they share it."""
    problem = Problem(5, TASK.bounds, Key(1))
    clients = [METHOD.client_init(TASK.start(Key(0)), problem, client) for client in range(5)]
    copies = [dataclasses.replace(client, x=client.x.copy()) for client in clients]
    for some in (clients, copies):
        tree, arrays = freeze(tuple(some))
        assert sum(array.size == 24 for array in arrays.values()) == 1
        assert len({id(client.x) for client in thaw(tree, arrays)}) == 1
    assert digest(tuple(clients)) == digest(tuple(copies))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "`num_steps` must be at least 1"),
        ({"num_directions": 2.5}, TypeError, "`num_directions` must be an integer"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be"),
        ({"smoothing": "auto"}, TypeError, "`smoothing` must be a number"),
        ({"directions": "gaussians"}, ValueError, "Did you mean 'gaussian'"),
        ({"stencil": "back"}, ValueError, "`stencil` must be one of"),
        ({"bounded": None}, TypeError, "`bounded` must be True or False"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeComFL(**options)
