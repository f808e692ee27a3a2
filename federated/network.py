"""Who takes part in a round, who vanishes, and when replies arrive: on a virtual clock.

Nothing here depends on how long anything takes in truth, so runs with dropouts, stragglers and deadlines
come to the same bytes every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_number, check_probability

Array = np.ndarray[Any, Any]

NEVER = 2**31 - 1
"""Number of a trip that no round has."""


class Plan(NamedTuple):
    """Who takes part in a round.

    Attributes:
        clients: Numbers of those that are asked, ascending.
        vanish: For each, the trip that it does not answer any more; `NEVER` for most.
    """

    clients: Array
    vanish: Array


class Envelope(NamedTuple):
    """A reply under way.

    Attributes:
        at: When it arrives, in seconds.
        client: Who has sent it.
        round: What it answers.
        trip: Likewise.
        copy: Whether it is sent for the second time.
    """

    at: float
    client: int
    round: int
    trip: int
    copy: bool = False


class Delivery(NamedTuple):
    """What came in during a trip.

    Attributes:
        on_time: Clients whose reply counts, ascending.
        at: When the trip was over, in seconds.
        pending: Replies that are still under way.
        late: Clients whose reply to this trip was not waited for.
        stale: Replies that nobody waits for any more, which came in now and were put away.
        duplicates: Replies that came in for the second time now, and were put away.
        copied: Clients whose reply to this trip is sent twice.
    """

    on_time: tuple[int, ...]
    at: float
    pending: tuple[Envelope, ...]
    late: tuple[int, ...]
    stale: int
    duplicates: int
    copied: tuple[int, ...] = ()


@dataclass(frozen=True)
class Network:
    """How clients are reached. By default all of them are, at once, and all answer.

    A trip of client i takes

        latency * speed_i * exp(jitter * z) + seconds_per_query * speed_i * queries + bytes / bandwidth

    seconds, speed_i = slow[i] * exp(spread * z_i), with z drawn anew each trip and z_i once a run, both
    standard normal. A client that vanishes does none of the work of that trip, and takes no part in the rest
    of the round. The server notices at once, as a connection breaks, and does not wait for it, with a
    deadline or without.

    A trip is over when all have answered who have not vanished, or as many as are waited for, or when
    `deadline` seconds have passed. How many are waited for is settled once a round, from those who are asked
    in its first trip; in a later one, which only those take part in who were heard in all before, it is that
    many or all of them. What arrives later is stale, and put away, as is what arrives twice.

    A client whose reply is still under way when a round begins is busy, and not asked: those who take part
    are drawn among the others, and are fewer where there are too few. A round begins when at least
    `min_replies` clients are free, which the clock may have to go on for.

    A round in a trip of which fewer than `min_replies` answer is void: the server goes back to what it was
    before. Clients keep what they have learnt, and queries and bytes stay counted.

    Args:
        participation: Share of the clients that are asked in a round, above 0, or their number as an int of 1
            or more; drawn anew for each round.
        dropout: Probability that a client vanishes in a round, at any trip of it.
        latency: Median seconds of a trip.
        spread: How much clients differ in speed, as the deviation of its logarithm.
        jitter: How much trips of one client differ, likewise.
        slow: Pairs (client, factor): clients that take so many times as long.
        seconds_per_query: Of a client of ordinary speed.
        bandwidth: Bytes a second, in both directions together; None for no limit.
        deadline: Seconds after which a trip is over, or None.
        wait_for: Share of the clients asked in a round, or their number as an int, whose answers are waited
            for, but no fewer than `min_replies`; None for all.
        min_replies: With fewer answers in any trip, the round changes nothing.
        duplicates: Probability that a client sends a reply twice. Bytes of the second one count as well; it
            is on its way for up to twice as long.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> network = Network(participation=0.5, dropout=0.3)
        >>> len(network.plan(Key(0), 10, 1).clients)
        5
    """

    participation: float = 1.0
    dropout: float = 0.0
    latency: float = 0.0
    spread: float = 0.0
    jitter: float = 0.0
    slow: tuple[tuple[int, float], ...] = ()
    seconds_per_query: float = 0.0
    bandwidth: float | None = None
    deadline: float | None = None
    wait_for: float | None = None
    min_replies: int = 1
    duplicates: float = 0.0

    def __post_init__(self) -> None:
        for name in ("participation", "wait_for"):
            value = getattr(self, name)
            if value is None and name == "wait_for":
                continue
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, check_count(name, value))
            elif not 0 < check_number(name, value) <= 1:
                raise ValueError(
                    f"`{name}` must be a share above 0 and at most 1, or a number of clients as an int, got "
                    f"{value!r}."
                )
        for name in ("dropout", "duplicates"):
            check_probability(name, getattr(self, name))
        for name in ("latency", "spread", "jitter", "seconds_per_query"):
            if not 0 <= check_number(name, getattr(self, name)) < math.inf:
                raise ValueError(f"`{name}` must be at least 0, and finite, got {getattr(self, name)!r}.")
        for name in ("bandwidth", "deadline"):
            value = getattr(self, name)
            if value is not None and not 0 < check_number(name, value) < math.inf:
                raise ValueError(f"`{name}` must be above 0, or None for no limit, got {value!r}.")
        check_count("min_replies", self.min_replies)
        try:
            slow = tuple((int(client), float(factor)) for client, factor in self.slow)
        except (TypeError, ValueError):
            raise ValueError(f"`slow` must be pairs (client, factor), got {self.slow!r}.") from None
        if not all(0 < factor < math.inf for _, factor in slow):
            raise ValueError(f"`slow` must have finite factors above 0, got {self.slow!r}.")
        object.__setattr__(self, "slow", slow)

    def check(self, num_clients: int) -> None:
        """Raise unless this fits so many clients.

        Raises:
            ValueError: More clients are asked, waited for or needed than there are.
        """
        asked = self.asked(num_clients)
        if asked > num_clients:
            raise ValueError(
                f"`participation` must be at most the {num_clients} clients there are, got {asked}."
            )
        awaited = asked if self.wait_for is None else _count(self.wait_for, asked)
        for name, count, most, which in (
            ("wait_for", awaited, asked, "asked in a round"),
            ("min_replies", self.min_replies, awaited, "waited for"),
        ):
            if count > most:
                raise ValueError(
                    f"`{name}` must be at most the {most} clients that are {which}, got {count}."
                )
        for client, _ in self.slow:
            if not 0 <= client < num_clients:
                raise ValueError(f"`slow` must name clients from 0 to {num_clients - 1}, got {client}.")

    def asked(self, num_clients: int) -> int:
        """Return how many of so many clients are asked in a round, if none is busy."""
        return _count(self.participation, num_clients)

    def ready(self, now: float, num_clients: int, pending: Sequence[Envelope]) -> tuple[float, list[int]]:
        """Return when a round begins, and which clients are still busy then, ascending.

        Args:
            now: When the last one was over, in seconds.
            num_clients: How many clients there are.
            pending: What is under way.
        """
        under_way = sorted(envelope for envelope in pending if not envelope.copy and envelope.at > now)
        missing = self.min_replies - (num_clients - len(under_way))
        if missing > 0:
            now = under_way[missing - 1].at
        return now, sorted(envelope.client for envelope in under_way if envelope.at > now)

    def plan(self, key: Key, num_clients: int, num_trips: int, busy: Sequence[int] = ()) -> Plan:
        """Return who takes part in a round.

        Args:
            key: Randomness of the round.
            num_clients: How many clients there are.
            num_trips: How many trips the round has.
            busy: Those who are not asked.
        """
        asked = self.asked(num_clients)
        clients = np.arange(num_clients)
        if asked < num_clients:
            clients = key.fold("participation").permutation(0, 1, num_clients)[0]
        clients = np.sort(clients[~np.isin(clients, busy)][:asked])
        vanish = np.full(len(clients), NEVER)
        if self.dropout:
            drawn = key.fold("dropout").uniform(0, num_clients, 2)[clients]
            gone = drawn[:, 0] < self.dropout
            vanish[gone] = (drawn[gone, 1] * num_trips).astype(int)
        return Plan(clients, vanish)

    def awaited(self, asked: int) -> int:
        """Return how many answers are waited for in a round that begins with so many clients."""
        if self.wait_for is None:
            return asked
        return min(max(_count(self.wait_for, asked), self.min_replies), asked)

    def deliver(
        self,
        key: Key,
        trip_key: Key,
        now: float,
        trip: tuple[int, int],
        awaited: int,
        clients: Sequence[int],
        queries: Sequence[int],
        nbytes: Sequence[int],
        pending: Sequence[Envelope],
    ) -> Delivery:
        """Return what comes in during a trip.

        Args:
            key: Randomness of the run.
            trip_key: Randomness of the trip.
            now: When it began, in seconds.
            trip: Its round and number.
            awaited: How many answers are waited for, if so many are to come.
            clients: Those that have answered, ascending.
            queries: Values that each of them asked for.
            nbytes: Bytes that it received and sent.
            pending: What was under way before.
        """
        seconds = self._seconds(key, trip_key, np.asarray(clients, int), queries, nbytes)
        envelopes = [
            Envelope(now + float(taken), client, *trip)
            for client, taken in zip(clients, seconds, strict=True)
        ]
        copies: list[Envelope] = []
        if self.duplicates and clients:
            again = trip_key.fold("duplicates").uniform(0, max(clients) + 1, 2)[list(clients)]
            copies = [
                envelope._replace(at=envelope.at + (envelope.at - now) * float(delay), copy=True)
                for envelope, (chance, delay) in zip(envelopes, again, strict=True)
                if chance < self.duplicates
            ]
        arriving = sorted((*pending, *envelopes, *copies))
        wanted = min(awaited, len(clients))
        last = math.inf if self.deadline is None else now + self.deadline
        on_time: list[int] = []
        stale = duplicates = position = 0
        end = now
        for envelope in arriving:
            if envelope.at > last or (len(on_time) >= wanted and envelope.at > end):
                break
            position += 1
            if envelope.copy:
                duplicates += 1
            elif envelope[2:4] == trip and len(on_time) < wanted:
                on_time.append(envelope.client)
                end = max(end, envelope.at)
            else:  # of an earlier trip, or at the very moment at which the last one came that was waited for
                stale += 1
        if len(on_time) < wanted:
            end = last
        late = tuple(sorted(set(clients) - set(on_time)))
        left = tuple(arriving[position:])
        copied = tuple(envelope.client for envelope in copies)
        return Delivery(tuple(sorted(on_time)), end, left, late, stale, duplicates, copied)

    def _seconds(
        self, key: Key, trip_key: Key, clients: Array, queries: Sequence[int], nbytes: Sequence[int]
    ) -> Array:
        """Return how long the trip of each client takes."""
        if not len(clients):
            return np.zeros(0)
        speed = np.ones(int(clients[-1]) + 1)
        if self.spread:
            speed *= np.exp(self.spread * key.fold("speed").normal(0, len(speed), 1)[:, 0])
        for client, factor in self.slow:
            if client < len(speed):
                speed[client] *= factor
        seconds = self.latency * speed[clients]
        if self.jitter:
            seconds = seconds * np.exp(
                self.jitter * trip_key.fold("jitter").normal(0, len(speed), 1)[clients, 0]
            )
        seconds = seconds + self.seconds_per_query * speed[clients] * np.asarray(queries)
        return seconds if self.bandwidth is None else seconds + np.asarray(nbytes) / self.bandwidth


def _count(share: float, total: int) -> int:
    """Return how many a share, or a number as an int, of a total is: at least one."""
    return share if isinstance(share, int) else max(1, int(np.ceil(share * total - 1e-9)))
