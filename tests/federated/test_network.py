"""Who takes part, who vanishes, and what comes when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from federated.network import NEVER, Delivery, Envelope, Network
from zoo.core.rng import Key

KEY = Key(0)
TRIP = KEY.fold("trip")


def delivered(
    network: Network,
    clients: Sequence[int] = range(4),
    *,
    asked: int = 4,
    awaited: int | None = None,
    now: float = 10.0,
    trip: tuple[int, int] = (3, 0),
    queries: int = 0,
    nbytes: int = 0,
    pending: Sequence[Envelope] = (),
    trip_key: Key = TRIP,
) -> Delivery:
    count = len(clients)
    return network.deliver(
        KEY,
        trip_key,
        now,
        trip,
        network.awaited(asked) if awaited is None else awaited,
        list(clients),
        [queries] * count,
        [nbytes] * count,
        pending,
    )


def test_everybody_at_once_by_default() -> None:
    network = Network()
    plan = network.plan(KEY, 5, 2)
    assert plan.clients.tolist() == [0, 1, 2, 3, 4]
    assert plan.vanish.tolist() == [NEVER] * 5
    assert delivered(network) == Delivery((0, 1, 2, 3), 10.0, (), (), 0, 0)


@pytest.mark.parametrize(
    ("participation", "count"),
    [(1.0, 10), (0.5, 5), (0.51, 6), (0.3, 3), (0.001, 1), (1, 1), (10, 10), (7, 7), (np.int64(3), 3)],
)
def test_participation(participation: float, count: int) -> None:
    network = Network(participation=participation)
    seen = set()
    for number in range(200):
        clients = network.plan(KEY.fold(number), 10, 1).clients.tolist()
        assert len(clients) == count
        assert clients == sorted(set(clients))
        seen.update(clients)
    assert seen == set(range(10))


def test_a_share_of_few_clients_is_one_at_least() -> None:
    assert Network(participation=0.1).plan(KEY, 1, 1).clients.tolist() == [0]


def test_dropout() -> None:
    network = Network(dropout=0.3)
    vanish = np.concatenate([network.plan(KEY.fold(i), 100, 3).vanish for i in range(100)])
    gone = vanish < NEVER
    assert abs(gone.mean() - 0.3) < 0.015
    counts = np.bincount(vanish[gone], minlength=3) / gone.sum()
    assert len(counts) == 3
    assert (abs(counts - 1 / 3) < 0.03).all()
    assert (Network(dropout=1.0).plan(KEY, 50, 3).vanish < 3).all()


def test_who_vanishes_does_not_follow_from_who_takes_part() -> None:
    everyone = Network(dropout=0.5).plan(KEY, 20, 2)
    some = Network(dropout=0.5, participation=0.4).plan(KEY, 20, 2)
    assert some.vanish.tolist() == everyone.vanish[some.clients].tolist()


def test_seconds() -> None:
    network = Network(latency=2.0, slow=((1, 3.0), (3, 10)), seconds_per_query=0.5, bandwidth=100.0)
    found = delivered(network, queries=4, nbytes=300)
    assert found.at == 10.0 + 2.0 * 10 + 0.5 * 10 * 4 + 3.0
    assert found.on_time == (0, 1, 2, 3)
    assert delivered(network, [1], queries=4, nbytes=300).at == 10.0 + 6.0 + 6.0 + 3.0
    assert delivered(network, [0, 2], queries=0, nbytes=0).at == 12.0


def test_clients_keep_their_speed_and_trips_differ() -> None:
    network = Network(latency=1.0, spread=0.7, jitter=0.2)

    def seconds(network: Network, client: int, trip: int) -> float:
        found = delivered(network, [client], now=0.0, trip_key=KEY.fold("trip", trip))
        return found.at

    logs = np.log([[seconds(network, client, trip) for trip in range(40)] for client in range(60)])
    assert abs(logs.mean(1).std() - 0.7) < 0.15
    assert abs(logs.std(1).mean() - 0.2) < 0.03
    steady = Network(latency=1.0, spread=0.7)
    assert len({seconds(steady, 5, trip) for trip in range(5)}) == 1
    # Nor does it matter who else is there.
    both = delivered(network, [5, 9], now=0.0, trip_key=KEY.fold("trip", 1))
    assert both.at == max(seconds(network, 5, 1), seconds(network, 9, 1))


SLOW = Network(latency=1.0, slow=((0, 8.0), (2, 4.0), (3, 2.0)))


def slow(**more: Any) -> Network:
    return Network(latency=1.0, slow=SLOW.slow, **more)


def test_k_of_n() -> None:
    found = delivered(slow(wait_for=2))
    assert (found.on_time, found.at, found.late) == ((1, 3), 12.0, (0, 2))
    assert found.pending == (Envelope(14.0, 2, 3, 0), Envelope(18.0, 0, 3, 0))
    assert delivered(slow(wait_for=0.5)) == found
    # A client that vanished does not block those who wait for two.
    assert delivered(slow(wait_for=2), [0, 2, 3]).on_time == (2, 3)
    few = delivered(slow(wait_for=3), [1, 3])
    assert (few.on_time, few.at, few.late) == ((1, 3), 12.0, ())
    assert delivered(slow(wait_for=3), []).at == 10.0


def test_of_those_that_come_together_the_first_count() -> None:
    found = delivered(Network(wait_for=2))
    assert (found.on_time, found.late, found.stale, found.pending) == ((0, 1), (2, 3), 2, ())


def test_deadline() -> None:
    found = delivered(slow(deadline=3.0))
    assert (found.on_time, found.at, found.late) == ((1, 3), 13.0, (0, 2))
    assert [envelope.client for envelope in found.pending] == [2, 0]
    # On the very moment is in time, and when all are there nobody waits on.
    assert delivered(slow(deadline=8.0)).on_time == (0, 1, 2, 3)
    assert delivered(slow(deadline=100.0)).at == 18.0
    assert delivered(slow(deadline=100.0, wait_for=3), [1, 2, 3]).at == 14.0
    assert delivered(slow(deadline=0.5)).on_time == ()


@pytest.mark.parametrize("clients", [[], [1], [0, 1, 2], [1, 2, 3]])
@pytest.mark.parametrize("wait_for", [None, 3, 0.5])
def test_a_deadline_makes_no_trip_longer(clients: list[int], wait_for: Any) -> None:
    without = delivered(slow(wait_for=wait_for), clients)
    assert delivered(slow(wait_for=wait_for, deadline=100.0), clients) == without
    assert delivered(slow(wait_for=wait_for, deadline=3.0), clients).at <= without.at


def test_how_many_are_waited_for_is_a_share_of_those_asked_at_first() -> None:
    network = slow(wait_for=0.5)
    assert [network.awaited(asked) for asked in (10, 5, 3, 1)] == [5, 3, 2, 1]
    assert [Network(wait_for=3).awaited(asked) for asked in (10, 3, 2)] == [3, 3, 2]
    assert [Network().awaited(asked) for asked in (10, 2)] == [10, 2]
    # A later trip, of the two that were heard of four, waits for both.
    found = delivered(network, [0, 3], awaited=network.awaited(4))
    assert (found.on_time, found.at) == ((0, 3), 18.0)
    assert [Network(wait_for=0.3, min_replies=3).awaited(asked) for asked in (10, 5, 2)] == [3, 3, 2]


def test_who_is_busy_is_not_asked() -> None:
    pending = [Envelope(12.0, 3, 0, 0), Envelope(11.0, 1, 0, 0), Envelope(13.0, 0, 0, 0, True)]
    assert Network().ready(10.0, 5, pending) == (10.0, [1, 3])
    assert Network().ready(11.0, 5, pending) == (11.0, [3])
    assert Network(min_replies=3).ready(10.0, 5, pending) == (10.0, [1, 3])
    assert Network(min_replies=4).ready(10.0, 5, pending) == (11.0, [3])
    assert Network(min_replies=5).ready(10.0, 5, pending) == (12.0, [])
    assert Network().plan(KEY, 5, 1, [1, 3]).clients.tolist() == [0, 2, 4]
    some = [Network(participation=2).plan(KEY.fold(i), 5, 1, [1, 3]).clients.tolist() for i in range(50)]
    assert {tuple(clients) for clients in some} == {(0, 2), (0, 4), (2, 4)}
    assert Network(participation=4).plan(KEY, 5, 1, [1, 3]).clients.tolist() == [0, 2, 4]
    for one in range(20):  # those who are free come in the same order
        everyone = Network(participation=3).plan(KEY.fold(one), 5, 1).clients.tolist()
        if 2 not in everyone:
            assert Network(participation=3).plan(KEY.fold(one), 5, 1, [2]).clients.tolist() == everyone


def test_stale_replies_are_put_away() -> None:
    old = [Envelope(9.5, 0, 2, 0), Envelope(11.0, 1, 3, 0), Envelope(50.0, 2, 2, 1)]
    found = delivered(slow(), trip=(3, 1), pending=old)
    assert found.on_time == (0, 1, 2, 3)
    assert found.stale == 2
    assert found.pending == (old[2],)


def test_a_reply_to_an_earlier_round_does_not_count_for_the_client() -> None:
    found = delivered(slow(deadline=3.0), [0], asked=1, pending=[Envelope(11.0, 0, 2, 0)])
    assert (found.on_time, found.stale, found.late) == ((), 1, (0,))


def test_duplicates() -> None:
    found = delivered(Network(duplicates=1.0))
    assert (found.on_time, found.stale, found.copied) == ((0, 1, 2, 3), 0, (0, 1, 2, 3))
    assert found.duplicates + len(found.pending) == 4
    later = delivered(Network(duplicates=1.0, latency=1.0))
    assert (later.on_time, later.stale, later.at) == ((0, 1, 2, 3), 0, 11.0)
    assert (later.duplicates, len(later.pending)) == (0, 4)
    assert all(envelope.copy and 11.0 < envelope.at < 12.0 for envelope in later.pending)
    again = delivered(Network(latency=9.0), now=later.at, trip=(3, 1), pending=later.pending)
    assert (again.stale, again.duplicates, again.copied) == (0, 4, ())
    counts = [len(delivered(Network(duplicates=0.25), trip_key=KEY.fold(i)).copied) for i in range(500)]
    assert abs(np.mean(counts) - 1.0) < 0.1


def test_of_a_late_reply_that_comes_twice_one_is_stale() -> None:
    late = delivered(slow(wait_for=2, duplicates=1.0))
    after = delivered(Network(latency=1e3), now=50.0, trip=(4, 0), pending=late.pending)
    assert late.stale + after.stale == 2
    assert late.duplicates + after.duplicates == 4


BAD = {
    "participation 0": (
        {"participation": 0.0},
        "`participation` must be a share above 0",
    ),
    "participation 0 as int": ({"participation": 0}, "`participation` must be at least 1, got 0"),
    "participation 1.5": ({"participation": 1.5}, "`participation` must be a share"),
    "participation nan": ({"participation": math.nan}, "`participation` must be a share"),
    "wait_for": ({"wait_for": -0.5}, "`wait_for` must be a share"),
    "dropout": ({"dropout": 1.1}, "`dropout` must be from 0 to 1, got 1.1"),
    "dropout nan": ({"dropout": math.nan}, "`dropout` must be from 0 to 1"),
    "duplicates": ({"duplicates": -1}, "`duplicates` must be from 0 to 1"),
    "latency": ({"latency": -1.0}, "`latency` must be at least 0, and finite, got -1.0"),
    "latency nan": ({"latency": math.nan}, "`latency` must be at least 0"),
    "spread": ({"spread": math.inf}, "`spread` must be at least 0"),
    "deadline": ({"deadline": 0}, "`deadline` must be above 0, or None for no limit, got 0"),
    "bandwidth": ({"bandwidth": math.nan}, "`bandwidth` must be above 0"),
    "min_replies": ({"min_replies": 0}, "`min_replies` must be at least 1"),
    "slow": ({"slow": ((1, 0.0),)}, "`slow` must have finite factors above 0"),
    "slow is no pairs": ({"slow": (1, 2)}, "`slow` must be pairs"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD.keys())
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(**given)


@pytest.mark.parametrize("given", [{"participation": True}, {"dropout": "1"}, {"min_replies": 2.0}])
def test_arguments_of_another_type(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(given))}` must be"):
        Network(**given)


UNFIT = {
    "participation": ({"participation": 6}, "`participation` must be at most the 5 clients there are, got 6"),
    "wait_for": ({"participation": 0.4, "wait_for": 3}, "`wait_for` must be at most the 2 clients that"),
    "min_replies": ({"participation": 2, "min_replies": 3}, "`min_replies` must be at most the 2 clients"),
    "more than are waited for": (
        {"min_replies": 3, "wait_for": 2},
        "at most the 2 clients that are waited",
    ),
    "slow": ({"slow": ((5, 2.0),)}, "`slow` must name clients from 0 to 4, got 5"),
}


@pytest.mark.parametrize(("given", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_the_clients(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(**given).check(5)


def test_what_just_fits() -> None:
    Network(participation=5, wait_for=4, min_replies=4, slow=((4, 2.0),)).check(5)
