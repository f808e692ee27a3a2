"""Rounds: what is counted, who is heard, and what befalls clients that misbehave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.algorithm import Problem, Trip
from federated.job import COLUMNS, FederatedJob, FederatedState, history_of, packed, unpacked
from federated.messages import Message
from federated.methods import find
from federated.network import Network
from federated.objective import ClientObjective
from federated.task import Task
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated
from tests.federated.toys import At, Bowls, Client, Descent, Echo, Server, Together
from zoo.core.errors import EvaluationError, TooManyFailures
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Failure
from zoo.execution.executor import Serial
from zoo.execution.parts import PartReply
from zoo.run.journal import PARTS, Journal
from zoo.run.loop import run

METHODS = ("fzoos", "fedzo", "scaffold-1", "scaffold-2", "decomfl", "fedkseed")


class Events(list[dict[str, Any]]):
    """What a job said, run by run."""

    def of(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self if entry["event"] == event]


def with_events(algorithm: Any, task: Task, rounds: int = 3, **options: Any) -> tuple[FederatedState, Events]:
    network = options.pop("network", Network())
    job = FederatedJob(
        algorithm,
        ClientObjective(task),
        Serial(),
        task.start(Key(0)),
        key=Key(0),
        network=network,
        rounds=rounds,
        **options,
    )
    events = Events()
    job.event = events.append
    done = run(job)
    assert done.error is None
    return done.state, events


def with_job(algorithm: Any, task: Task, **options: Any) -> tuple[FederatedState, str]:
    """Return the state at the end, and why it is the end."""
    given: dict[str, Any] = {"key": Key(0), "network": Network(), "rounds": 3, **options}
    job = FederatedJob(algorithm, ClientObjective(task), Serial(), task.start(Key(0)), **given)
    done = run(job)
    return done.state, done.reason


@pytest.mark.parametrize("kind", [Bowls, Together])
def test_every_query_and_byte_is_counted(kind: type[Bowls]) -> None:
    state = federated(Descent(directions=4, hidden=2), kind(5, dim=7), rounds=3)
    assert (state.step, state.nfev, state.hidden) == (3, 3 * 5 * 7, 3 * 5 * 2)
    assert state.queries.tolist() == [3 * 7] * 5
    vector = 7 * 8
    assert state.sent.tolist() == [3 * 2 * vector] * 5
    assert state.received.tolist() == [3 * 3 * vector] * 5
    assert (state.up, state.down) == (state.sent.sum(), state.received.sum())
    assert state.answered.tolist() == [3] * 5
    assert state.optimizer.merged == 3 * 2 * 5
    assert not any(
        getattr(state, name) for name in ("absent", "late", "stale", "duplicates", "invalid", "void")
    )


def test_history_has_a_line_for_the_start_and_each_round() -> None:
    task = Bowls(5)
    state = federated(Descent(), task, rounds=4)
    found = history_of(state, task.measures)
    assert list(found) == [*COLUMNS, "distance"]
    assert found["round"].tolist() == [0, 1, 2, 3, 4]
    assert found["queries"].tolist() == [0, 20, 40, 60, 80]
    assert found["answers"].tolist() == [0, 5, 5, 5, 5]
    assert found["value"][0] == pytest.approx(task.value(task.start(Key(0))), rel=1e-15)
    assert found["value"][-1] == pytest.approx(task.value(state.x), rel=1e-15)
    assert (np.diff(found["value"]) < 0).all()
    assert state.fun == state.fun_best == found["value"][-1]
    at_clients = [task.measure(client, state.x)["value"] for client in range(5)]
    assert state.looked[:, 0].tolist() == at_clients
    assert found["worst"][-1] == max(at_clients)
    assert found["spread"][-1] == np.std(at_clients)
    distances = [task.measure(client, state.x)["distance"] for client in range(5)]
    weights = np.array([1.0, 2, 1, 2, 1])
    assert found["distance"][-1] == pytest.approx((weights * distances).sum() / weights.sum(), rel=1e-15)


@pytest.mark.parametrize("every", [0, 1, 2, 3, 10])
def test_looking_changes_nothing_but_what_is_seen(every: int) -> None:
    state = federated(Descent(), Bowls(4), rounds=5, measure_every=every)
    seen = np.isfinite(history_of(state, ["distance"])["value"])
    assert seen.tolist() == [True, *(bool(every) and i % every == 0 for i in range(1, 6))]
    always = federated(Descent(), Bowls(4), rounds=5)
    assert digest(state.optimizer) == digest(always.optimizer)
    assert (state.fun, state.nfev) == (always.fun, always.nfev)
    assert state.fun_best == always.fun_best
    assert state.looked.tolist() == always.looked.tolist()


@pytest.mark.parametrize("number", [1, 2, 7])
def test_participation(number: int) -> None:
    state = federated(Descent(), Bowls(7), rounds=6, network=Network(participation=number))
    assert state.nfev == 6 * number * 4
    assert state.answered.sum() == 6 * number
    assert (state.queries == 4 * state.answered).all()


def test_all_absent_changes_nothing_and_is_said() -> None:
    task = Bowls(4)
    state, events = with_events(Echo(), task, network=Network(dropout=1.0))
    assert (state.void, state.absent, state.nfev, state.up) == (3, 12, 0, 0)
    assert state.down == 3 * 4 * 24
    assert state.x.tolist() == task.start(Key(0)).tolist()
    assert state.optimizer.merged == 0
    said = events.of("too few answers")
    assert [entry["round"] for entry in said] == [0, 1, 2]
    assert said[0]["message"] == "0 of 4 clients have answered in time; x stays as it is"
    assert history_of(state, ["distance"])["answers"].tolist() == [0] * 4


def test_who_vanishes_in_the_second_trip_has_done_the_first() -> None:
    network = Network(dropout=0.5)
    state = federated(Descent(), Bowls(8), rounds=20, network=network)
    plans = [network.plan(Key(0).fold("round", i), 8, 2) for i in range(20)]
    trips = np.array([np.minimum(plan.vanish, 2) for plan in plans])
    assert state.queries.tolist() == (3 * (trips >= 1) + (trips >= 2)).sum(0).tolist()
    assert state.answered.tolist() == (trips == 2).sum(0).tolist()
    assert state.received.tolist() == (24 + 48 * (trips >= 1)).sum(0).tolist()
    assert state.absent == (trips < 2).sum()


def test_too_few_answers_are_none() -> None:
    task = Bowls(6)
    network = Network(dropout=0.5, min_replies=4)
    state, events = with_events(Echo(), task, 30, network=network)
    present = np.array([(network.plan(Key(0).fold("round", i), 6, 1).vanish > 0).sum() for i in range(30)])
    assert 0 < (present < 4).sum() < 30
    assert state.void == len(events.of("too few answers")) == (present < 4).sum()
    assert state.optimizer.merged == present[present >= 4].sum()
    assert state.up == 24 * present.sum()  # they were sent all the same


class LeavesAll(Network):
    """All vanish in the second trip of every other round."""

    def plan(self, key: Key, num_clients: int, num_trips: int, busy: Sequence[int] = ()) -> Any:
        plan = super().plan(key, num_clients, num_trips, busy)
        odd = key.digest != Key(0).fold("round", 1).digest
        return plan._replace(vanish=np.ones(num_clients, int)) if odd else plan


def test_a_round_that_fails_in_its_second_trip_changes_nothing() -> None:
    state, events = with_events(Descent(), Bowls(3), 3, network=LeavesAll())
    assert (state.void, state.absent, state.nfev) == (2, 6, 2 * 3 * 3 + 3 * 4)
    assert state.optimizer.merged == 6  # of the round in between
    assert state.answered.tolist() == [1] * 3
    said = events.of("too few answers")
    assert [entry["round"] for entry in said] == [0, 2]
    assert said[0]["message"] == "0 of 3 clients have answered trip 1 in time; x stays as it is"
    found = history_of(state, ["distance"])
    assert found["answers"].tolist() == [0, 0, 3, 0]
    assert found["value"][0] == found["value"][1] > found["value"][2] == found["value"][3]
    assert (state.begun, state.active) == (None, None)
    # Clients keep what they have learnt: the round in between began with their momentum.
    assert state.x.tolist() != federated(Descent(), Bowls(3), rounds=1).x.tolist()


def test_x_moves_in_no_round_that_too_few_answer() -> None:
    network = Network(participation=0.6, dropout=0.3, latency=1.0, jitter=1.0, wait_for=2, min_replies=2)
    state = federated(Descent(), Bowls(5), rounds=30, network=network)
    found = history_of(state, ["distance"])
    moved, answers = np.diff(found["value"]) != 0, found["answers"][1:]
    assert (moved == (answers > 0)).all()
    assert 3 < state.void == (answers == 0).sum() < 27
    assert set(answers) == {0, 2}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_after_rounds_that_came_to_nothing(method: str) -> None:
    task = Quadratic(dim=5, num_clients=5)
    network = Network(dropout=0.5, latency=1.0, jitter=1.0, wait_for=4, min_replies=3)
    options = {"message": "gradient"} if method == "fzoos" else {}
    state = federated(find(method).build(options), task, rounds=16, network=network)
    assert 3 < state.void < 14
    value = history_of(state)["value"]
    answers = history_of(state)["answers"][1:]
    assert ((np.diff(value) != 0) <= (answers > 0)).all()
    assert value[-1] < 0.7 * value[0]


def test_what_was_said_in_a_round_that_came_to_nothing_is_of_no_other_x() -> None:
    method = find("fzoos").build({"num_steps": 2})
    task = Quadratic(dim=4, num_clients=3)
    server = method.server_init(task.start(Key(0)), Problem(3, task.bounds, Key(0)))
    there = method._settled(server, server.x + 0.1)
    back = method.undone(there, server)
    assert (back.x.tolist(), back.number) == (server.x.tolist(), server.number)
    assert method._settled(back, server.x + 0.2).number not in (there.number, server.number)


def test_a_share_to_wait_for_is_taken_once_a_round() -> None:
    network = Network(latency=1.0, jitter=0.5, wait_for=0.5, min_replies=4)
    state = federated(Descent(), Bowls(10), rounds=6, network=network)
    answers = history_of(state, ["distance"])["answers"].tolist()[1:]
    assert (state.void, answers[0]) == (0, 5)
    assert all(4 <= count <= 5 for count in answers)


def test_who_is_busy_is_not_asked_again() -> None:
    network = Network(latency=1.0, slow=((2, 1e6),), deadline=3.0)
    state = federated(Descent(), Bowls(4), rounds=40, network=network)
    assert len(state.pending) == 1
    assert state.queries.tolist() == [160, 160, 3, 160]
    assert (state.received[2], state.late) == (24, 1)
    # Nobody is free for a while, and the clock goes on.
    alone = federated(Echo(), Bowls(1), rounds=4, network=Network(latency=10.0, deadline=3.0))
    assert (alone.late, alone.stale, alone.void, alone.clock) == (4, 3, 4, 33.0)
    some = Network(latency=1.0, slow=((0, 20.0), (1, 20.0)), deadline=3.0, min_replies=2)
    state = federated(Echo(), Bowls(3), rounds=2, network=some)
    assert (state.clock, state.void, state.late) == (23.0, 2, 4)


def test_stragglers_are_cut_off_and_their_replies_are_stale() -> None:
    network = Network(latency=1.0, slow=((2, 10.0),), deadline=4.0)
    state = federated(Echo(), Bowls(4), rounds=9, network=network)
    assert state.answered.tolist() == [9, 9, 0, 9]
    # Asked at 0, when all wait until 4, it is there at 10, and asked again then; six rounds go on without it.
    assert (state.clock, state.late, state.stale, len(state.pending)) == (4 + 6 + 4 + 1, 2, 1, 1)
    waited = federated(Echo(), Bowls(4), rounds=6, network=Network(latency=1.0, slow=((2, 10.0),)))
    assert (waited.clock, waited.late, waited.stale) == (60.0, 0, 0)
    fast = federated(Echo(), Bowls(4), rounds=6, network=Network(latency=1.0, slow=((2, 10.0),), wait_for=3))
    assert (fast.clock, fast.late, fast.answered.tolist()) == (6.0, 1, [6, 6, 0, 6])


def test_answers_that_come_twice_count_once() -> None:
    network = Network(duplicates=1.0, latency=1.0, jitter=0.5)
    state, plain = (
        federated(Descent(), Bowls(4), rounds=5, network=one)
        for one in (network, dataclasses.replace(network, duplicates=0.0))
    )
    assert state.duplicates + len(state.pending) == 5 * 2 * 4
    assert state.duplicates > state.stale == 0
    assert digest(state.optimizer) == digest(plain.optimizer)
    assert state.up == 2 * plain.up
    assert state.sent.tolist() == (2 * plain.sent).tolist()


def test_a_message_that_is_not_finite_is_put_away() -> None:
    state, events = with_events(Descent(spoilt=(1, 3)), Bowls(5))
    assert state.invalid == 6
    assert state.answered.tolist() == [3, 0, 3, 0, 3]
    assert np.isfinite(state.x).all()
    said = events.of("reply put away")
    assert [(entry["round"], entry["client"]) for entry in said] == [(i, c) for i in range(3) for c in (1, 3)]
    nothing, _ = with_events(Descent(spoilt=(0, 1)), Bowls(2))
    assert nothing.x.tolist() == Bowls(2).start(Key(0)).tolist()
    assert nothing.answered.tolist() == [0, 0]


@pytest.mark.parametrize("kind", [Bowls, Together])
def test_a_client_that_raises_ends_the_run_and_is_named(kind: type[Bowls]) -> None:
    with pytest.raises(EvaluationError, match=r"client 3: RuntimeError: no answer at x\[0\] = 0.5") as caught:
        federated(Descent(), kind(5, wrong={3: "raises"}))
    assert "Traceback of the client" in str(caught.value)


@pytest.mark.parametrize("wrong", ["raises", "nan", "inf", "short"])
@pytest.mark.parametrize("kind", [Bowls, Together])
def test_a_client_without_values_is_told_nan(kind: type[Bowls], wrong: str) -> None:
    hard = wrong in ("raises", "short")
    # One of six is below a fifth.
    state, _ = with_events(
        Descent(), kind(6, wrong={3: wrong, **({} if hard else {1: wrong})}), on_error="nan"
    )
    assert state.num_failed == 3 * 4 * (1 if hard else 2)
    assert state.answered.tolist() == [3] * 6
    assert np.isfinite(state.x).all()
    assert len(state.failures) == (12 if hard else 0)
    if hard:
        ids = [round_ * 24 + 3 * 3 + i for round_ in range(3) for i in range(3)]
        assert set(ids) < set(state.failures)
        assert set(state.failures) - set(ids) == {round_ * 24 + 18 + 3 for round_ in range(3)}


def test_too_many_that_raise_end_the_run() -> None:
    with pytest.raises(TooManyFailures, match="20 of the last 60 queries raised"):
        federated(Descent(), Bowls(3, wrong={1: "raises"}), rounds=9, on_error="nan")


@pytest.mark.parametrize("number", [0, 10, 19])
def test_it_does_not_matter_which_client_raises(number: int) -> None:
    state, _ = with_events(Descent(), Bowls(20, wrong={number: "raises"}), 6, on_error="nan")
    assert (state.step, state.num_failed) == (6, 6 * 4)
    assert len(state.failures) == 2 * 4  # of the last two rounds, which have at least a hundred queries


@pytest.mark.parametrize("numbers", [(0, 1, 2), (1, 2, 3), (5, 6, 7)])
def test_nor_where_too_many_raise(numbers: tuple[int, ...]) -> None:
    wrong = dict.fromkeys(numbers, "raises")
    with pytest.raises(TooManyFailures, match="24 of the last 64 queries raised"):
        federated(Descent(), Bowls(8, wrong=wrong), rounds=6, on_error="nan")
    with pytest.raises(TooManyFailures, match="180 of the last 480 queries raised"):
        federated(Descent(directions=58), Bowls(8, wrong=wrong), rounds=6, on_error="nan")


def test_one_of_many_that_raises_is_not_all_there_is_where_few_are_asked() -> None:
    network = Network(participation=1)
    first = int(network.plan(Key(0).fold("round", 0), 20, 2).clients[0])
    task = Bowls(20, wrong={first: "raises"})
    state = federated(Descent(directions=80), task, rounds=40, network=network, on_error="nan")
    assert (state.step, state.num_failed > 0) == (40, True)


def test_who_raises_once_is_asked_again() -> None:
    class Moody(Bowls):
        calls = 0

        def values(self, client: int, x: Any, *, key: Key) -> Any:
            Moody.calls += 1
            if Moody.calls in (1, 9):
                raise RuntimeError("not now")
            return super().values(client, x, key=key)

    state, _ = with_events(Descent(), Moody(4))
    assert state.num_failed == 0
    assert digest(state.optimizer) == digest(federated(Descent(), Bowls(4), rounds=3).optimizer)


@pytest.mark.parametrize("wrong", ["blind", "mute", "sees nan"])
@pytest.mark.parametrize("client", [0, 1])
def test_a_client_that_cannot_be_looked_at(wrong: str, client: int) -> None:
    task, sound = Bowls(4, wrong={client: wrong}), Bowls(4)
    state, events = with_events(Descent(), task)
    found = history_of(state, task.measures)
    assert found["said"].tolist() == [3] * 4
    others = [one for one in range(4) if one != client]
    weights = np.array([sound.weight(one) for one in others])
    at_clients = np.array([sound.measure(one, state.x)["value"] for one in others])
    assert found["value"][-1] == (weights * at_clients).sum() / weights.sum()
    assert state.fun == state.fun_best == found["value"][-1]
    assert found["worst"][-1] == at_clients.max()
    assert state.num_failed == 0
    assert digest(state.optimizer) == digest(federated(Descent(), Bowls(4), rounds=3).optimizer)
    said = events.of("measure raised")
    assert {entry["client"] for entry in said} == (set() if wrong == "sees nan" else {client})
    assert {entry["round"] for entry in said} == (set() if wrong == "sees nan" else {0, 1, 2, 3})


def test_nobody_says() -> None:
    task = Bowls(3, wrong=dict.fromkeys(range(3), "sees nan"))
    state, _ = with_events(Descent(), task)
    found = history_of(state, task.measures)
    assert found["said"].tolist() == [0] * 4
    assert np.isnan(found["value"]).all()
    assert math.isnan(state.fun)
    blind = Bowls(3, wrong=dict.fromkeys(range(3), "blind"))
    for on_error in ("raise", "nan"):
        with pytest.raises(EvaluationError, match=r"`measure` raised at each client.*nothing to be seen"):
            federated(Descent(), blind, on_error=on_error)


def test_a_look_that_raises_is_tried_once_more() -> None:
    class Moody(Bowls):
        looks = 0

        def measure(self, client: int, x: Any) -> dict[str, float]:
            Moody.looks += 1
            if Moody.looks in (1, 7):
                raise RuntimeError("not now")
            return super().measure(client, x)

    state, events = with_events(Descent(), Moody(4))
    assert history_of(state, ["distance"])["said"].tolist() == [4] * 4
    assert len(events.of("measure raised")) == 2


def test_one_client() -> None:
    state = federated(Descent(), Bowls(1), rounds=10)
    found = history_of(state, ["distance"])
    assert found["spread"].tolist() == [0.0] * 11
    assert found["worst"].tolist() == found["value"].tolist()
    assert state.fun < found["value"][0]


def test_identical_clients_and_points() -> None:
    state = federated(Descent(), Quadratic(dim=4, num_clients=3, heterogeneity=0.0), rounds=4)
    assert history_of(state)["spread"].tolist() == [0.0] * 5

    @dataclasses.dataclass(frozen=True)
    class Same(Descent):
        def _estimate(self, client: Any, message: Any, local: Any) -> Any:
            values = yield np.stack([message.x] * 3)
            assert len(set(values.tolist())) == 1
            return client, At(0 * message.x)

    assert federated(Same(), Bowls(3)).nfev == 3 * 4


def test_one_variable() -> None:
    state = federated(Descent(), Bowls(4, dim=1), rounds=5)
    assert state.x.shape == (1,)
    assert state.fun < history_of(state, ["distance"])["value"][0]
    assert state.up == 5 * 4 * 2 * 8


def test_a_thousand_clients() -> None:
    state = federated(Echo(), Bowls(1000), rounds=2, measure_every=0)
    assert state.optimizer.merged == 2000
    assert state.answered.tolist() == [2] * 1000
    assert state.up == state.down == 2000 * 24
    assert math.isfinite(state.fun)


@pytest.mark.parametrize("budget", [11, 12, 23, 24, 30, 100])
def test_a_budget_is_never_exceeded(budget: int) -> None:
    network = Network(participation=3)
    state = federated(Descent(), Bowls(5), rounds=None, budget=budget, network=network)  # type: ignore[arg-type]
    assert state.nfev == budget // 12 * 12
    assert state.step == budget // 12


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_who_asks_for_more_than_it_says_ends_the_run(on_error: str) -> None:
    class Greedy(Descent):
        def most_queries(self, dim: int, first: bool) -> int:
            return 4 if first else 3

    with pytest.raises(EvaluationError, match=r"client 0.* asked for 1 values.* leaves it 0 in this round"):
        federated(Greedy(), Bowls(3), rounds=2, on_error=on_error)
    assert federated(Greedy(), Bowls(3), rounds=1, on_error=on_error).nfev == 3 * 4


def test_what_vanishing_clients_have_left_of_a_budget_is_spent() -> None:
    network = Network(dropout=0.5)
    job_rounds: Any = None
    state = federated(Descent(), Bowls(5), rounds=job_rounds, budget=200, network=network)
    assert 180 < state.nfev <= 200
    assert state.step > 10


def test_traffic_ends_a_run_after_the_round_that_exceeds_it() -> None:
    per_round = 5 * 24 * 5
    for traffic, rounds in ((1, 1), (per_round, 1), (per_round + 1, 2)):
        no_rounds: Any = None
        state = federated(Descent(), Bowls(5), rounds=no_rounds, traffic=traffic)
        assert state.step == rounds
    job_message = "the traffic of 1 bytes is used up: 600 have been sent"
    no_limit: Any = None
    assert with_job(Descent(), Bowls(5), rounds=no_limit, traffic=1)[1] == job_message


def test_messages_must_be_one_for_each_client() -> None:
    class Wrong(Echo):
        def _ask(self, server: Server, clients: Sequence[int]) -> Any:
            return [At(server.x)] * (len(clients) - 1)

    with pytest.raises(ValueError, match="`request` must return a message for each of 4 clients, got 3"):
        federated(Wrong(), Bowls(4))


def test_clients_are_told_apart() -> None:
    class Numbers(Echo):
        def _ask(self, server: Server, clients: Sequence[int]) -> list[Message]:
            return [At(np.full(client + 1, float(client))) for client in clients]

        def _echo(self, client: Client, message: At, local: Any) -> tuple[Client, Message]:
            assert message.x.tolist() == [float(local.client)] * (local.client + 1)
            return client, At(message.x[:1])

        def _take(self, server: Server, answers: Any) -> Server:
            assert [answer.message.x.tolist() for answer in answers] == [
                [answer.client] for answer in answers
            ]
            return dataclasses.replace(server, merged=server.merged + len(answers))

    state = federated(Numbers(), Bowls(40), network=Network(participation=0.5, dropout=0.3))
    assert state.optimizer.merged > 5
    asked = np.flatnonzero(state.received)
    assert state.received[asked].tolist() == [8 * (client + 1) for client in asked]


def test_gradients_are_counted() -> None:
    class Sloped(Bowls):
        def gradient(self, client: int, x: Any) -> Any:
            return 2 * (x - client / 10)

    class Exact(Echo):
        def _echo(self, client: Client, message: At, local: Any) -> tuple[Client, Message]:
            return client, At(message.x - 0.1 * local.gradient(message.x))

        @property
        def trips(self) -> tuple[Trip, ...]:
            return (Trip(self._ask, self._echo, self._take),)

    state = federated(Exact(), Sloped(3), rounds=2)
    assert (state.gradients, state.nfev) == (6, 0)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_must_be_above_0(weight: float) -> None:
    class Weightless(Bowls):
        def weight(self, client: int) -> float:
            return weight if client == 2 else 1.0

    with pytest.raises(ValueError, match=r"`weight\(2\)` must be a finite number above 0"):
        federated(Echo(), Weightless(4))


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_clients_and_server_come_back_from_a_checkpoint(rounds: int) -> None:
    def job(until: int) -> FederatedJob:
        return FederatedJob(
            Descent(),
            ClientObjective(Bowls(5)),
            Serial(),
            Bowls(5).start(Key(0)),
            key=Key(0),
            network=Network(participation=0.5, dropout=0.2, latency=1.0, jitter=1.0, wait_for=0.6),
            rounds=until,
        )

    first = job(8)
    saved: list[Any] = []
    with first.open():
        state = first.init()
        for _ in range(rounds):
            state, _ = first.step(state)
        saved = [*first.snapshot(state)]
    second = job(8)
    restored = second.restore(*saved)
    assert restored.clients is None
    assert second.snapshot(restored)[0] == saved[0]
    with second.open():
        assert second.snapshot(restored)[0] == saved[0]
        while second.finished(restored) is None:
            restored, _ = second.step(restored)
        again = second.snapshot(restored)
    whole = job(8)
    with whole.open():
        state = whole.init()
        while whole.finished(state) is None:
            state, _ = whole.step(state)
        expected = whole.snapshot(state)
    assert again[0] == expected[0]
    assert {name: array.tobytes() for name, array in again[1].items()} == {
        name: array.tobytes() for name, array in expected[1].items()
    }
    assert '"clients"' in str(again[0]).replace("'", '"')


def test_a_checkpoint_of_something_else_is_refused() -> None:
    tree, arrays = Serial, {}  # type: ignore[var-annotated]
    job = FederatedJob(
        Echo(), ClientObjective(Bowls(2)), Serial(), np.zeros(3), key=Key(0), network=Network(), rounds=1
    )
    from zoo.core.state import freeze

    tree, arrays = freeze(Server(np.zeros(2), None))
    with pytest.raises(ValueError, match="it holds a Server, not the state of a federation"):
        job.restore(tree, arrays)


RECORDS = {
    "nothing": PartReply(),
    "one query": PartReply(None, (np.array([1.0, np.nan]),), (Failure(1, "returned", "returned nan"),)),
    "several, one empty": PartReply(None, (np.array([1.0]), np.empty(0), np.array([2.0, 3.0]))),
    "given up": PartReply(
        None, (np.array([1.0]),), (Failure(0, "raised", "no"),), Failure(3, "crashed", "ended 3 workers")
    ),
    "given up at once": PartReply(error=Failure(3, "hung", "took too long")),
}


@pytest.mark.parametrize("reply", RECORDS.values(), ids=RECORDS.keys())
def test_what_the_journal_has_of_a_part(tmp_path: Path, reply: PartReply) -> None:
    journal = Journal(tmp_path / "evaluations.bin")
    journal.append(4, 100, PARTS, packed(3, reply))
    journal.close()
    again = Journal(tmp_path / "evaluations.bin")
    (record,) = again.known(PARTS, 4)
    again.close()
    part, found = unpacked(record)
    assert part == 3
    assert [values.tobytes() for values in found.values] == [values.tobytes() for values in reply.values]
    assert (found.failures, found.error) == (reply.failures, reply.error)
    assert not any(values.flags.writeable for values in found.values)
